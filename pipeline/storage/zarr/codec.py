"""What chunks of a Zarr array decode to, told from their first bytes: nothing is decoded that could fill the memory.

Codecs allocate what a chunk says of itself, or decode until it ends. So only codecs are read whose result can be
bounded beforehand, at the most one of them a compressor; none runs code that a chunk brings along (pickle).
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs

from pipeline.model.errors import InputError

COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")
SUFFIXES = {"crc32c": 4, "fletcher32": 4}
"""Checksums that may follow a compressor, and what they append."""
FILTERS = (
    *("bytes", "endian", "transpose", "shuffle", "delta", "astype", "fixedscaleoffset", "quantize", "bitround"),
    *("packbits", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "vlen-utf8", "vlen-bytes"),
)
"""Codecs before the compressor: what they decode to is as large as what they get, but for the width of a value."""
PIECE_BYTES, DECODED_BYTES = 2**16, 2**20
"""What is read, and what is decoded, at a time."""
ZSTD_BLOCK_BYTES = 2**17

# Numbers of a Zstandard stream (RFC 8878).
ZSTD_MAGIC, ZSTD_SKIPPABLE = 0xFD2FB528, range(0x184D2A50, 0x184D2A60)
RUN, COMPRESSED = 1, 2


@dataclass(frozen=True, slots=True)
class Chain:
    """The codecs of a chunk, as far as they bear on its size."""

    compressor: str | None
    filters: tuple[str, ...]
    suffix: int
    """Bytes that checksums append to what the compressor made."""


def codec_settings(codec: Any) -> tuple[str, dict[str, Any]]:
    """Return a codec's name as its metadata give it, and what else they say."""
    settings: dict[str, Any] = codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config()
    return str(settings.get("name", settings.get("id"))), settings.get("configuration", settings)


def codec_name(codec: Any) -> str:
    """Return a codec's name, of numcodecs' own without their prefix."""
    return codec_settings(codec)[0].removeprefix("numcodecs.")


def parse_chain(codecs: Iterable[Any], path: str) -> Chain:
    """Return the codecs of a chunk in the order in which they encode; raise InputError for any that is not read."""
    compressor, suffix = None, 0
    filters: list[str] = []
    for codec in codecs:
        name = codec_name(codec)
        if name in COMPRESSORS and compressor is None and not _is_raw_lzma(codec):
            compressor = name
        elif compressor is None and name in (*FILTERS, *SUFFIXES):
            filters.append(name)
        elif name in SUFFIXES:
            suffix += SUFFIXES[name]
        else:
            after = f" after {compressor}" if name in COMPRESSORS or name in FILTERS else ""
            known = ", ".join((*COMPRESSORS, *FILTERS, *SUFFIXES))
            raise InputError(
                f"{path}: the codec '{name}'{after} is not read, because what it decodes to has no bound; "
                f"write the array with another one (read: one of {known})"
            )
    return Chain(compressor, tuple(filters), suffix)


def _is_raw_lzma(codec: Any) -> bool:
    """Return whether LZMA is stored without the header by which its end is known."""
    return bool(codec_settings(codec)[1].get("format") == lzma.FORMAT_RAW)


ReadAt = Callable[[int, int], bytes]
"""Returns at most so many bytes of a file from an offset on."""


def file_reader(descriptor: int) -> ReadAt:
    return partial(os.pread, descriptor)


def memory_reader(data: memoryview, start: int = 0) -> ReadAt:
    """Return a reader of bytes that lie in a file from `start` on."""
    return lambda count, offset: bytes(data[offset - start : offset - start + count])


class Piece:
    """A part of a file: a chunk, or one of a shard."""

    def __init__(self, read_at: ReadAt, offset: int, size: int) -> None:
        self.read_at, self.offset, self.size = read_at, offset, size

    def read(self, start: int, count: int) -> bytes:
        """Return at most `count` bytes from the piece's byte `start` on."""
        count = min(count, self.size - start)
        return self.read_at(count, self.offset + start) if count > 0 else b""

    def parts(self) -> Iterator[bytes]:
        for start in range(0, self.size, PIECE_BYTES):
            yield self.read(start, PIECE_BYTES)


def bound(piece: Piece, compressor: str | None, limit: int) -> int:
    """Return what a piece decodes to at most, or anything above `limit`; what it claims to be counts as well.

    Raises ValueError where the decoder would find another format than the one that is bounded here.
    """
    if compressor is None:
        return piece.size
    if compressor == "blosc":
        return _bound_blosc(piece)
    if compressor == "lz4":
        return max(0, int(struct.unpack("<i", _head(piece, 4))[0]))
    return _bound_zstd(piece, limit) if compressor == "zstd" else _count(piece, compressor, limit)


def _head(piece: Piece, count: int) -> bytes:
    head = piece.read(0, count)
    if len(head) < count:
        raise ValueError(f"it has {len(head)} bytes, its header takes {count}")
    return head


def _bound_blosc(piece: Piece) -> int:
    """Return the size of the result, up to 2 GiB, which the decoder takes from the header.

    It believes what the header says of the chunk, too, and reads that far: beyond the end of a chunk that was cut.
    """
    head = _head(piece, 16)
    element, (decoded, block, encoded) = head[3], struct.unpack_from("<III", head, 4)
    if not 16 <= encoded <= piece.size:
        raise ValueError(f"its header says {encoded} bytes, it has {piece.size}")
    if element == 0 or (decoded > 0 and not 0 < block <= decoded):
        raise ValueError(f"its header says blocks of {block} bytes, values of {element}")
    return int(decoded)


def _bound_zstd(piece: Piece, limit: int) -> int:
    """Return what the headers of all blocks of all frames allow; if that is too much, what the blocks hold."""
    claimed = total = 0
    for claim, most in _zstd_frames(piece):
        claimed, total = max(claimed, claim), total + most
        if claimed > limit:
            return claimed
    if total <= limit:
        return max(claimed, total)
    try:  # many small blocks: decoded, into no more than the limit
        return len(imagecodecs.zstd_decode(piece.read(0, piece.size), out=limit))
    except imagecodecs.ZstdError:
        return limit + 1


def _zstd_frames(piece: Piece) -> Iterator[tuple[int, int]]:
    """Yield for each frame what it claims to hold (0 if it does not say), and what its blocks can hold."""
    at = 0
    while len(head := piece.read(at, 18)) >= 5:
        magic = int.from_bytes(head[:4], "little")
        if magic in ZSTD_SKIPPABLE:
            at += 8 + int.from_bytes(head[4:8], "little")
            continue
        if magic != ZSTD_MAGIC:
            raise ValueError(f"no Zstandard frame at its byte {at}")
        single, checksum = head[4] >> 5 & 1, head[4] >> 2 & 1
        start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
        width = (single, 2, 4, 8)[head[4] >> 6]
        claim = int.from_bytes(head[start : start + width], "little") + 256 * (width == 2)
        at, most = _zstd_blocks(piece, at + start + width)
        at += 4 * checksum
        yield claim, most


def _zstd_blocks(piece: Piece, at: int) -> tuple[int, int]:
    """Return where the blocks of a frame end, and what they can hold."""
    most = 0
    while len(head := piece.read(at, 3)) == 3:
        header = int.from_bytes(head, "little")
        kind, size = header >> 1 & 3, header >> 3
        most += ZSTD_BLOCK_BYTES if kind == COMPRESSED else min(size, ZSTD_BLOCK_BYTES)
        at += 3 + (1 if kind == RUN else size)
        if header & 1:
            break
    return at, most


def _count(piece: Piece, compressor: str, limit: int) -> int:
    """Decode a piece bit by bit, keeping nothing, until it ends, is damaged, or has given more than `limit` bytes."""
    total = 0
    try:
        for size in _decoded_sizes(piece, compressor):
            total += size
            if total > limit:
                break
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        pass  # the decoder ends here, too
    return total


def _decoded_sizes(piece: Piece, compressor: str) -> Iterator[int]:
    decoder = _decoder(compressor)
    for part in piece.parts():
        while True:
            yield len(decoder.decompress(part, DECODED_BYTES))
            if decoder.eof:  # another member may follow
                part, decoder = decoder.unused_data.lstrip(b"\0"), _decoder(compressor)
            else:
                part = getattr(decoder, "unconsumed_tail", b"")
            if not part and getattr(decoder, "needs_input", True):
                break


def num_texts(piece: Piece, compressor: str | None) -> int:
    """Return how many texts of any length a piece claims to hold: whoever decodes it makes room for them at once.

    ValueError where it cannot be decoded; its size must have been bounded before.
    """
    data = piece.read(0, piece.size)
    try:
        if compressor == "blosc":
            data = bytes(imagecodecs.blosc_decode(data))
        elif compressor == "zstd":
            data = bytes(imagecodecs.zstd_decode(data))
        elif compressor == "lz4":
            data = bytes(imagecodecs.lz4_decode(data, header=True))
        elif compressor is not None:
            data = _decoder(compressor).decompress(data, 4)
    except (RuntimeError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"it cannot be decoded: {error}") from error
    return int.from_bytes(data[:4], "little")


def _decoder(compressor: str) -> Any:
    if compressor in ("gzip", "zlib"):
        return zlib.decompressobj(31 if compressor == "gzip" else 15)
    return bz2.BZ2Decompressor() if compressor == "bz2" else lzma.LZMADecompressor()
