"""Limits of what reading takes: files that claim to be more than they are, and small ones that decode to much."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from pipeline import api
from pipeline.execution.process import peak_rss_bytes
from pipeline.kernels import lzw
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.compose import open_input
from pipeline.storage.input import Choice, Input
from pipeline.storage.tiff.reader import TiffReader
from pipeline.storage.zarr.reader import ZarrReader
from tests import harness

MIB = 2**20
BOMB_BYTES = 160 * MIB
"""What the traps decode to; the readers that fall in take at least this."""
MOST_BYTES = 60 * MIB
"""What refusing a trap may take."""


def bombs() -> dict[str, bytes]:
    """Return streams that decode to much more than the chunk of 64 bytes that they stand for."""
    data, member = bytes(BOMB_BYTES), bytes(BOMB_BYTES // 16)
    return {
        "blosc": bytes(imagecodecs.blosc_encode(data, compressor="zstd")),
        "zstd": bytes(imagecodecs.zstd_encode(data)),
        "gzip": gzip.compress(member, 1) * 16,
        "zlib": zlib.compress(data, 1),
        "bz2": bz2.compress(member, 1) * 16,
        "lzma": lzma.compress(member, preset=0) * 16,
        "lz4": struct.pack("<i", len(data)) + bytes(imagecodecs.lz4_encode(data)),
    }


@pytest.fixture(scope="module")
def traps() -> dict[str, bytes]:
    return bombs()


def write_v2(path: Path, compressor: dict[str, Any] | None, **changes: Any) -> Path:
    """Write a Zarr v2 array of 4 x 4 float32 with one chunk, by hand."""
    path.mkdir()
    metadata = {
        "zarr_format": 2,
        "shape": [4, 4],
        "chunks": [4, 4],
        "dtype": "<f4",
        "compressor": compressor,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (path / ".zarray").write_text(json.dumps(metadata | changes))
    return path


def read(reader: Any, region: Region | None = None) -> np.ndarray:
    region = region or reader.spec.region
    out = np.empty(reader.spec.shape_of(region), reader.spec.dtype)
    reader.read(region, out)
    return out


def grown(action: Callable[[], Any]) -> int:
    """Return by how much the process's memory grew at its highest."""
    before = harness.reset_peak_bytes()
    action()
    return peak_rss_bytes() - before


# --- Zarr ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codecs", ["zarr", "zarrs"])
@pytest.mark.parametrize("name", ["blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4"])
def test_a_chunk_that_decodes_to_more_than_its_shape(
    tmp_path: Path, traps: dict[str, bytes], name: str, codecs: str
) -> None:
    path = write_v2(tmp_path / "a.zarr", {"id": name})
    (path / "0.0").write_bytes(traps[name])

    def attempt() -> None:
        with pytest.raises(InputError, match=r"chunk 0\.0 .*(64 are due; it is damaged or a trap|no such chunk)"):
            read(ZarrReader(str(path)))

    with zarr.config.set({"codec_pipeline.path": PIPELINES[codecs]}):
        assert grown(attempt) < MOST_BYTES


PIPELINES = {"zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs": "zarrs.ZarrsCodecPipeline"}


@pytest.mark.parametrize("claim", [BOMB_BYTES, 2**31 - 1, 2**32 - 1])
def test_a_blosc_header_that_lies(tmp_path: Path, claim: int) -> None:
    path = write_v2(tmp_path / "a.zarr", {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1})
    chunk = bytearray(imagecodecs.blosc_encode(bytes(64), compressor="lz4"))
    chunk[4:8] = struct.pack("<I", claim)
    (path / "0.0").write_bytes(chunk)
    with pytest.raises(InputError, match=rf"claims or decodes to {claim:,} bytes or more, 64 are due"):
        read(ZarrReader(str(path)))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (12, 335545646, "chunk 0.0 is damaged: its header says 335545646 bytes, it has "),
        (12, 15, "its header says 15 bytes"),
        (8, 0, "its header says blocks of 0 bytes, values of"),
        (8, 65, "its header says blocks of 65 bytes"),
    ],
)
def test_a_blosc_chunk_is_not_read_beyond_its_end(tmp_path: Path, at: int, value: int, message: str) -> None:
    """The decoder would: a chunk that was cut off, or says so of itself, ends the process."""
    path = write_v2(tmp_path / "a.zarr", {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1})
    chunk = bytearray(imagecodecs.blosc_encode(bytes(64), compressor="lz4"))
    chunk[at : at + 4] = struct.pack("<I", value)
    (path / "0.0").write_bytes(chunk)
    refused(path, message)


def test_zstandard_frames_one_after_the_other_count_together(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "a.zarr", {"id": "zstd", "level": 1})
    frame = bytes(imagecodecs.zstd_encode(bytes(60_000)))
    skippable = struct.pack("<II", 0x184D2A50, 3) + b"abc"
    (path / "0.0").write_bytes((frame + skippable) * 100)
    with pytest.raises(InputError, match="64 are due; it is damaged or a trap"):
        read(ZarrReader(str(path)))


def test_zstandard_in_many_small_blocks_is_no_trap(tmp_path: Path) -> None:
    """Headers of small blocks allow for more than the blocks hold: then they are decoded to see."""
    path = write_v2(tmp_path / "a.zarr", {"id": "zstd", "level": 1}, shape=[256, 256], chunks=[256, 256])
    values = np.repeat(np.arange(2**8, dtype="<f4"), 2**8).reshape(256, 256)
    parts = [bytes(imagecodecs.zstd_encode(part.tobytes())) for part in values.reshape(-1, 128)]
    (path / "0.0").write_bytes(b"".join(parts))
    np.testing.assert_array_equal(read(ZarrReader(str(path))), values)
    (path / "0.0").write_bytes(b"".join(parts * 3))
    with pytest.raises(InputError, match=r"chunk 0\.0 claims or decodes to .* 262,144 are due"):
        read(ZarrReader(str(path)))


def test_more_stored_bytes_than_a_chunk_can_have(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "a.zarr", {"id": "zlib", "level": 1})
    with (path / "0.0").open("wb") as file:
        file.truncate(10 * 2**30)
    assert grown(lambda: refused(path, r"chunk 0\.0 has 10,737,418,240 bytes, and decoded it has 64")) < MOST_BYTES


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(ZarrReader(str(path)))


@pytest.mark.parametrize("compressor", [None, "blosc", "zstd", "gzip"])
def test_a_chunk_that_claims_more_texts_than_are_due(tmp_path: Path, compressor: str | None) -> None:
    codecs: dict[str, Any] = {"blosc": BloscCodec(), "zstd": ZstdCodec(), "gzip": GzipCodec()}
    encoders = {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), "gzip": numcodecs.GZip()}
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("image", data=np.zeros((2, 4, 4), "u1"), dimension_names=("band", "y", "x"))
    names = np.array(["red", "green"], np.dtypes.StringDType())
    group.create_array("band", data=names, dimension_names=("band",), compressors=codecs.get(compressor or ""))
    assert ZarrReader(str(tmp_path / "a.zarr"), Choice("image")).spec.bands == ("red", "green")
    claim = struct.pack("<I", 2**28) + bytes(20)
    chunk = tmp_path / "a.zarr" / "band" / "c" / "0"
    chunk.write_bytes(claim if compressor is None else bytes(encoders[compressor].encode(claim)))

    def open_it() -> None:
        with pytest.raises(InputError, match=r"chunk band/c/0 claims 268,435,456 texts, 2 are due"):
            ZarrReader(str(tmp_path / "a.zarr"), Choice("image"))

    assert grown(open_it) < MOST_BYTES


@pytest.mark.parametrize("name", ["pickle", "json2", "base64", "categorize", "vlen-array"])
def test_codecs_without_a_bound_are_refused(tmp_path: Path, name: str) -> None:
    """Also where an allowed one for objects stands before: that is how to bring in code by pickle."""
    options = {"categorize": {"labels": ["a"], "dtype": "U1"}, "vlen-array": {"dtype": "u1"}}.get(name, {})
    path = group_v2(tmp_path / "a.zarr", [{"id": "vlen-utf8"}, {"id": name, **options}])
    with pytest.raises(InputError, match=rf"the codec '{name}' is not read|band: cannot be read"):
        ZarrReader(str(path))


def test_pickled_chunks_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numcodecs = pytest.importorskip("numcodecs")
    path = group_v2(tmp_path / "a.zarr", [{"id": "vlen-utf8"}, {"id": "pickle"}])
    if hasattr(numcodecs, "pickles"):
        monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    (path / "band" / "0").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(InputError, match="the codec 'pickle' is not read"):
        ZarrReader(str(path))
    assert not (tmp_path / "ran").exists()


def group_v2(path: Path, filters: list[dict[str, Any]]) -> Path:
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    write_v2(path / "image", None, shape=[4, 4, 2], chunks=[4, 4, 2])
    write_v2(path / "band", None, shape=[2], chunks=[2], dtype="|O", fill_value="", filters=filters)
    for name, dims in {"image": ["y", "x", "band"], "band": ["band"]}.items():
        (path / name / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims}))
    return path


def test_two_compressors_are_refused(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "a.zarr", {"id": "zlib", "level": 1}, filters=[{"id": "bz2", "level": 1}])
    refused(path, "the codec 'zlib' after bz2 is not read")


def sharded(path: Path, **options: Any) -> Path:
    options = {"chunks": (4, 4), "shards": (8, 8), "compressors": ZstdCodec()} | options
    array = zarr.create_array(path, shape=(8, 8), dtype="f4", dimension_names=("y", "x"), **options)
    array[...] = np.arange(64).reshape(8, 8)
    return path


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 2**40, r"chunk \(0, 0\) of shard c/0/0 .*ends at byte .* the file at byte"),
        (8, 2**63, r"chunk \(0, 0\) of shard c/0/0 .*ends at byte .* the file at byte"),
        (0, 2**64 - 1, r"chunk \(0, 0\) of shard c/0/0 .*ends at byte"),
        (8, 3, r"cannot read|damaged"),
    ],
)
def test_an_index_of_a_shard_that_lies(tmp_path: Path, place: int, value: int, message: str) -> None:
    path = sharded(tmp_path / "a.zarr")
    chunk = path / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    at = len(data) - 4 - 64 + place
    data[at : at + 8] = struct.pack("<Q", value)
    chunk.write_bytes(data)
    refused(path, message)
    os.truncate(chunk, 50)
    refused(path, "shard c/0/0 has 50 bytes, its index takes 68; copy it again")


def test_an_axis_of_more_pixels_than_can_be_counted(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "a.zarr", None, shape=[10**30, 4])
    refused(path, r"claims the shape \(1000000000000000000000000000000, 4\)")


def test_shards_of_no_pixels(tmp_path: Path) -> None:
    path = sharded(tmp_path / "a.zarr")
    refused(
        edit(path, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0, 8]}}), r"has chunks of \(0, 8\)"
    )
    refused(write_v2(tmp_path / "b.zarr", None, chunks=[8, 0]), r"has chunks of \(8, 0\)")


def test_what_zarr_finds_wrong_when_pixels_are_read(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("image", data=np.zeros((4, 4), "u1"), dimension_names=("y", "x"))
    metadata = json.loads((tmp_path / "a.zarr" / "image" / "zarr.json").read_text())
    metadata["storage_transformers"] = [[[]]]
    (tmp_path / "a.zarr" / "image" / "zarr.json").write_text(json.dumps(metadata))
    refused(tmp_path / "a.zarr", r"a\.zarr: .*cannot be (read|opened).*storage transformers")


def test_a_trap_in_a_shard(tmp_path: Path, traps: dict[str, bytes]) -> None:
    path = sharded(tmp_path / "a.zarr")
    chunk = path / "c" / "0" / "0"
    index = struct.pack("<8Q", 0, len(traps["zstd"]), *([2**64 - 1] * 6))
    checksum = struct.pack("<I", crc32c(index))
    chunk.write_bytes(traps["zstd"] + index + checksum)
    message = r"chunk \(0, 0\) of shard c/0/0 (claims|has)"
    assert grown(lambda: refused(path, message)) < MOST_BYTES
    out = np.ones((4, 4), "f4")
    ZarrReader(str(path)).read(Region(4, 8, 4, 8), out)
    assert not out.any()


def crc32c(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))


def edit(path: Path, **changes: Any) -> Path:
    """Change the metadata of a v3 array."""
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | changes))
    return path


def test_giant_chunks_and_shards(tmp_path: Path) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [2**20, 2**20]}}
    path = sharded(tmp_path / "a.zarr", shards=None)
    refused(
        edit(path, shape=[2**30, 2**30], chunk_grid=grid),
        r"chunks of 1048576 x 1048576 float32 decode to 4,398,046,511,104 bytes each, the limit is 268,435,456; "
        r"raise run\.limits\.tile_bytes, or write the array with smaller chunks",
    )
    path = sharded(tmp_path / "b.zarr")
    refused(
        edit(path, shape=[2**30, 2**30], chunk_grid=grid),
        r"the index of a shard: 1,099,511,627,780 bytes in memory, the limit is 536,870,912; "
        r"raise run\.limits\.allocation_bytes",
    )


def test_shards_in_shards_and_around_codecs_are_refused(tmp_path: Path) -> None:
    path = sharded(tmp_path / "a.zarr")
    metadata = json.loads((path / "zarr.json").read_text())
    (outer,) = metadata["codecs"]
    inner = json.loads(json.dumps(outer))
    inner["configuration"]["chunk_shape"] = [2, 2]
    nested = json.loads(json.dumps(outer))
    nested["configuration"]["codecs"] = [inner]
    refused(edit(path, codecs=[nested]), "shards inside of shards are not read")
    refused(
        edit(path, codecs=[outer, {"name": "gzip", "configuration": {"level": 1}}]),
        "the codec 'sharding_indexed' is not read",
    )
    outer["configuration"]["index_codecs"].append({"name": "gzip", "configuration": {"level": 1}})
    refused(edit(path, codecs=[outer]), "index of shards in the codecs|index_codecs. must produce a fixed-size")


def test_giant_coordinates_and_band_counts(tmp_path: Path) -> None:
    """Of arrays without a single chunk: their fill value is enough to fill the memory."""
    root = zarr.create_group(tmp_path / "a.zarr")
    side = 10**10
    root.create_array("image", shape=(side, 5), chunks=(64, 5), dtype="u1", dimension_names=("y", "x"))
    root.create_array("y", shape=(side,), chunks=(2**20,), dtype="f8", dimension_names=("y",))
    root.create_array("x", shape=(5,), chunks=(5,), dtype="f8", dimension_names=("x",))
    message = r"a\.zarr/y: a coordinate of 10,000,000,000 entries .* raise run\.limits\.allocation_bytes"
    assert grown(lambda: refused(tmp_path / "a.zarr", message)) < MOST_BYTES
    zarr.create_array(
        tmp_path / "b.zarr", shape=(9, 9, side), chunks=(9, 9, 9), dtype="u1", dimension_names=("y", "x", "band")
    )
    message = "has 10,000,000,000 bands, at most 65,536 are read"
    assert grown(lambda: refused(tmp_path / "b.zarr", message)) < MOST_BYTES


def test_metadata_too_large_too_deep_or_no_file(tmp_path: Path) -> None:
    for name in ("large", "deep", "pipe", "inner"):
        sharded(tmp_path / name)
    with (tmp_path / "large" / "zarr.json").open("ab") as file:
        file.truncate(2**30)
    refused(tmp_path / "large", "1,073,741,824 bytes of metadata, at most 16,777,216 are read")
    (tmp_path / "deep" / "zarr.json").write_text('{"node_type": ' + "[" * 100_000)
    refused(tmp_path / "deep", "it is nested too deeply")
    for folder in (tmp_path / "pipe", tmp_path / "group" / "image"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "zarr.json").unlink(missing_ok=True)
        os.mkfifo(folder / "zarr.json")
    refused(tmp_path / "pipe", "zarr.json: is not a plain file")
    (tmp_path / "group" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    refused(tmp_path / "group", "zarr.json: is not a plain file")


def test_a_pipe_in_the_place_of_a_chunk(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "a.zarr", None)
    os.mkfifo(path / "0.0")
    refused(path, r"chunk 0\.0 is not a file")


def test_folders_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "a.zarr", None)
    here = os.open(path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert ZarrReader(str(path)).identity()["bytes"] > 0
    finally:
        subprocess.run(["rm", "-rf", str(path)], check=True)  # shutil.rmtree recurses, too


def test_compressed_chunks_of_all_kinds_still_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (40, 50)).astype("<i4")
    for compressor in ({"id": "lzma"}, {"id": "bz2"}, {"id": "zlib"}, {"id": "lz4"}, {"id": "gzip"}, {"id": "zstd"}):
        path = tmp_path / compressor["id"]
        import numcodecs

        with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
            array = zarr.create_array(
                path, shape=values.shape, chunks=(16, 16), dtype="<i4", zarr_format=2,
                compressors=numcodecs.get_codec(compressor), filters=[numcodecs.Delta("<i4"), numcodecs.Shuffle(4)],
            )  # fmt: skip
            array[...] = values
        np.testing.assert_array_equal(read(ZarrReader(str(path))), values)
    for number, codec in enumerate((BloscCodec(), ZstdCodec(), GzipCodec())):
        for shards in (None, (32, 32)):
            path = tmp_path / f"{number}{shards}.zarr"
            array = zarr.create_array(
                path, shape=values.shape, chunks=(16, 16), shards=shards, dtype="<i4", compressors=codec
            )
            array[...] = values
            np.testing.assert_array_equal(read(ZarrReader(str(path))), values)


# --- TIFF ------------------------------------------------------------------------------------------------------


def tile(path: Path, data: bytes, codec: int, **options: Any) -> Path:
    """Write a TIFF file of one tile of 16 x 16 x 3 bytes, whose stored bytes are `data`."""
    options = {"photometric": "rgb", "tile": (16, 16), "metadata": None} | options
    tifffile.imwrite(path, np.zeros((16, 16, 3), "uint8"), **options)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages.first.tags
        places = {code: (tags[code].offset, tags[code].valueoffset) for code in (259, 324, 325)}
        before = tif.pages.first.tags[259].value
    assert before == 1
    size = path.stat().st_size
    with path.open("r+b") as file:
        for code, value, form in ((259, codec, "<H"), (324, size, "<I"), (325, len(data), "<I")):
            file.seek(places[code][1])
            file.write(struct.pack(form, value))
        file.seek(size)
        file.write(data)
    return path


IMAGE_SIDE = 4000


def image_bombs() -> dict[str, tuple[int, bytes]]:
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    plain = image.tobytes()
    lerc = bytes(imagecodecs.lerc_encode(image))
    return {
        "jpeg": (7, bytes(imagecodecs.jpeg8_encode(image))),
        "jpeg2000": (34712, bytes(imagecodecs.jpeg2k_encode(image))),
        "png": (34933, bytes(imagecodecs.png_encode(image, level=1))),
        "webp": (50001, bytes(imagecodecs.webp_encode(image))),
        "jpegxr": (34934, bytes(imagecodecs.jpegxr_encode(image))),
        "lerc": (34887, lerc),
        "lerc in zstd": (34887, bytes(imagecodecs.zstd_encode(lerc[:6] + plain))),
        "lerc in zlib": (34887, zlib.compress(lerc[:6] + plain, 1)),
        "deflate": (8, zlib.compress(plain, 1)),
        "zstd": (50000, bytes(imagecodecs.zstd_encode(plain))),
        "lzw": (5, bytes(imagecodecs.lzw_encode(plain))),
        "lzma": (34925, bytes(imagecodecs.lzma_encode(plain, level=0))),
    }


def test_tiles_that_decode_to_more_than_their_size(tmp_path: Path) -> None:
    lzw.decode(np.zeros(64, np.uint8), np.zeros(64, np.uint8))  # numba itself takes 50 MiB, once a process
    for name, (codec, data) in image_bombs().items():
        reader = TiffReader.open(tile(tmp_path / "a.tif", data, codec))
        outcome: list[str] = []

        def attempt(reader: TiffReader = reader, outcome: list[str] = outcome) -> None:
            try:
                read(reader)
            except InputError as error:
                outcome.append(str(error))

        assert grown(attempt) < 20 * MIB, name
        # two codecs stop where they are told to, the others are told apart from a tile
        assert outcome == [] if name in ("lzw", "lzma") else "tile 0 is damaged" in outcome[0], (name, outcome)


def test_a_jpeg_header_that_lies(tmp_path: Path) -> None:
    """A cut off JPEG is filled up to the size in its header: 65,500 squared, 12 GB from some hundred bytes."""
    data = bytearray(imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    reader = TiffReader.open(tile(tmp_path / "a.tif", bytes(data), 7))
    with pytest.raises(InputError, match="65,500 x 65,500 pixels, 16 x 16 are due"):
        read(reader)


def test_codecs_of_which_nothing_is_known_are_refused(tmp_path: Path) -> None:
    path = tile(tmp_path / "a.tif", bytes(99), 65000)
    with pytest.raises(InputError, match=r"compression .*65000 is none of those that are read"):
        TiffReader.open(path)


def directories(count: int, tags: list[tuple[int, int, int, int]], *, cyclic: bool = False) -> bytes:
    """Return a TIFF file of so many directories, all alike."""
    image = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (273, 4, 1, 8), (278, 4, 1, 4), (279, 4, 1, 16)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(image + tags))
    size = 2 + len(entries) + 4
    parts = [struct.pack("<2sHI", b"II", 42, 8 + 2**16), bytes(2**16)]
    for number in range(count):
        following = 8 + 2**16 + (number + 1) * size if number + 1 < count else (8 + 2**16) * cyclic
        parts += [struct.pack("<H", len(image + tags)), entries, struct.pack("<I", following)]
    return b"".join(parts)


def test_directories_that_hold_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(directories(20_000, [(65000 + i, 4, 1, 1) for i in range(40)]))
    with pytest.raises(InputError, match="its directories hold more than 524,288 tags"):
        TiffReader.open(path)
    path.write_bytes(directories(900, [(324, 4, 2**14, 8)]))
    message = r"the tags of its directories: .* bytes in memory, the limit is .*; raise run\.limits\.allocation_bytes"
    with pytest.raises(InputError, match=message):
        TiffReader.open(path)


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(directories(3, [], cyclic=True))
    reader = TiffReader.open(path)
    assert reader.spec.num_bands == 3
    assert read(reader).shape == (3, 4, 4)


def test_too_many_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(directories(2**15 + 1, []))
    with pytest.raises(InputError, match="has more than 32768 pages; split the file"):
        TiffReader.open(path)


def test_dialects_of_instruments_are_not_parsed(tmp_path: Path) -> None:
    """STK counts its planes in a tag of its own, and tifffile reads as many entries: 2^32 here."""
    path = tmp_path / "a.tif"
    path.write_bytes(directories(1, [(33628, 4, 2**32 - 1, 8), (33629, 5, 2**32 - 1, 8), (270, 2, 9, 8)]))
    assert TiffReader.open(path).spec.num_bands == 1


# --- limits as the user sees them ------------------------------------------------------------------------------


def pipeline(source: Path, target: Path, **limits: Any) -> dict[str, Any]:
    steps = [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}]
    document = harness.document(str(source), steps, target)
    return document | {"run": {"memory": "1 GiB", "limits": limits}}


@pytest.fixture
def striped(tmp_path: Path) -> Path:
    """A raster of one compressed strip of 2 MiB, constant but for a pixel."""
    values = np.zeros((1024, 1024), "uint16")
    values[3, 4] = 7
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, compression="zlib", rowsperstrip=1024, metadata=None)
    return path


def test_limits_are_set_in_the_file_and_named_in_the_message(tmp_path: Path, striped: Path) -> None:
    target = tmp_path / "out.zarr"
    assert api.plan(pipeline(striped, target))["passes"]
    with pytest.raises(InputError, match=r"decode to 2,097,152 bytes each, the limit is 1,048,576; raise run\.limits"):
        api.plan(pipeline(striped, target, tile_bytes="1 MiB"))
    with pytest.raises(InputError, match=r"times as many, the limit is 5; raise run\.limits\.decompression_ratio"):
        api.plan(pipeline(striped, target, decompression_ratio=5))
    assert api.plan(pipeline(striped, target, tile_bytes="2 MiB", decompression_ratio=2000))["passes"]


def test_limits_of_a_zarr_store(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.full((1024, 1024), 3, "uint16"), chunks=(1024, 1024), dimension_names=("y", "x"))
    with pytest.raises(InputError, match=r"chunks of 1024 x 1024 uint16 decode to 2,097,152 bytes .*run\.limits\.tile"):
        open_input(Input(path=str(path)), ReadLimits(tile_bytes=MIB))
    reader = open_input(Input(path=str(path)), ReadLimits(decompression_ratio=5))
    with pytest.raises(InputError, match=r"chunk c/0/0: .* stored bytes claim to be 2,097,152, .* the limit is 5"):
        read(reader)
    assert (read(open_input(Input(path=str(path)))) == 3).all()


def test_a_slide_of_60000_x_60000_x_5_is_legitimate(tmp_path: Path) -> None:
    tags: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as tif:
        tif.write(
            (bytes(4) for _ in range((60_000 // 512 + 1) ** 2)),
            shape=(60_000, 60_000, 5), dtype="uint8", tile=(512, 512), compression="zlib", **tags,
        )  # fmt: skip
    zarr.create_array(
        tmp_path / "b.zarr", shape=(60_000, 60_000, 5), chunks=(512, 512, 5), dtype="u1",
        dimension_names=("y", "x", "band"),
    )[0, 0, 0] = 1  # fmt: skip
    for name in ("a.tif", "b.zarr"):
        facts = api.info(tmp_path / name)
        assert (facts["size"], facts["num_bands"]) == ([60_000, 60_000], 5)
        assert api.plan(pipeline(tmp_path / name, tmp_path / "out.zarr"))["passes"]


@pytest.mark.parametrize(
    ("shape", "chunks"), [((2**62, 2**62), (1, 1)), ((2**31, 2**31), (512, 512)), ((1, 2**62), (1, 4096))]
)
def test_rasters_of_too_many_blocks_are_refused(tmp_path: Path, shape: Any, chunks: Any) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=shape, chunks=chunks, dtype="u1", dimension_names=("y", "x"))[0, 0] = 1
    with pytest.raises(PipelineError, match="take more than 16,777,216 blocks that fit the memory; compute a `region`"):
        api.plan(pipeline(path, tmp_path / "out.zarr"))


def test_what_the_run_wrote_itself_has_no_limits(tmp_path: Path) -> None:
    """A stored intermediate is read back in the chunks that the run chose."""
    source = tmp_path / "a.zarr"
    zarr.create_array(source, data=np.ones((1024, 1024), "f4"), chunks=(256, 256), dimension_names=("y", "x"))
    steps = [
        {"name": "first", "op": "window", "size": 3, "statistics": ["mean"]},
        {"name": "second", "op": "window", "size": 3, "statistics": ["mean"], "boundary": "wrap"},
    ]
    document = harness.document(str(source), steps, tmp_path / "out.zarr", chunks=[1024, 1024])
    run = {"memory": "1 GiB", "limits": {"tile_bytes": "1 MiB"}}
    assert api.run(document | {"run": run})["blocks"]
    shutil.rmtree(tmp_path / "out.zarr")
