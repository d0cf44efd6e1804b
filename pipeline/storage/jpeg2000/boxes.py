"""The boxes of a JP2 file (ISO/IEC 15444-1, annex I): where its codestream lies, and what they say of its place.

A place is told by a GeoJP2 box, a small GeoTIFF, or by GML in JP2 (OGC 08-085), of which Sentinel-2 has the latter.
"""

from __future__ import annotations

import io
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field

from tifffile import TiffFile, TiffPage

from pipeline.model.affine import Affine
from pipeline.model.errors import InputError
from pipeline.storage.georeference import crs, geotiff
from pipeline.storage.georeference.geokeys_parse import parse_crs
from pipeline.storage.jpeg2000.codestream import RAW, Read
from pipeline.storage.tiff.page import tags_of

GEOJP2 = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
BOX_LIMIT, TEXT_LIMIT, DEPTH = 4096, 2**20, 5
SUPERBOXES = (b"jp2h", b"asoc", b"res ")


@dataclass
class Boxes:
    """What the boxes of a file say."""

    start: int = 0
    """Where the codestream begins, and where it ends."""
    stop: int = 0
    has_palette: bool = False
    alpha: int | None = None
    """The band that is opacity, from 0."""
    geotiff: bytes = b""
    gml: list[str] = field(default_factory=list)

    def place(self, messages: list[str]) -> tuple[Affine | None, str | None]:
        """Return transform and CRS, as far as they are said."""
        if self.geotiff:
            transform, system = _of_geotiff(self.geotiff, messages)
            if transform is not None:
                return transform, system
        for text in self.gml:
            found = _of_gml(text, messages)
            if found is not None:
                return found
        return None, None


def parse_boxes(read: Read, size: int, path: str) -> Boxes:
    """Look through the boxes of a file."""
    found = Boxes(0, size)
    if read(0, 4) == RAW:
        return found
    found.stop = 0
    for count, (kind, start, stop) in enumerate(_walk(read, 0, size, path)):
        if count >= BOX_LIMIT:
            raise InputError(f"{path}: has more than {BOX_LIMIT:,} boxes; it is damaged")
        if kind == b"jp2c" and not found.stop:
            found.start, found.stop = start, stop
        elif kind == b"pclr":
            found.has_palette = True
        elif kind == b"cdef":
            found.alpha = _alpha_of(read(start, min(stop - start, TEXT_LIMIT)))
        elif kind == b"uuid" and stop - start <= TEXT_LIMIT and read(start, 16) == GEOJP2:
            found.geotiff = read(start + 16, stop - start - 16)
        elif kind == b"xml " and stop - start <= TEXT_LIMIT:
            text = read(start, stop - start).decode("utf-8", "replace").strip("\0 \n\r\t")
            found.gml += [text] if "RectifiedGrid" in text else []
    if not found.stop:
        raise InputError(f"{path}: has no codestream (box jp2c); it is damaged: copy it again")
    return found


def _walk(read: Read, start: int, stop: int, path: str, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, beginning and end of what boxes hold, those within boxes too."""
    place = start
    while place + 8 <= stop:
        head = read(place, min(16, stop - place))
        length, kind = struct.unpack(">I4s", head[:8])
        first = place + 8
        if length == 1 and len(head) == 16:
            (length,), first = struct.unpack(">Q", head[8:]), place + 16
        end = stop if length == 0 else place + length
        if not first <= end <= stop:
            raise InputError(f"{path}: the box at byte {place:,} is longer than the file; it is cut off: copy it again")
        yield kind, first, end
        if kind in SUPERBOXES and depth < DEPTH:
            yield from _walk(read, first, end, path, depth + 1)
        place = end


def _alpha_of(data: bytes) -> int | None:
    """Return which channel is opacity, of those that a cdef box defines."""
    (count,) = struct.unpack_from(">H", data) if len(data) >= 2 else (0,)
    for number in range(min(count, (len(data) - 2) // 6)):
        channel, kind, _ = struct.unpack_from(">HHH", data, 2 + 6 * number)
        if kind == 1:
            return int(channel)
    return None


def _of_geotiff(data: bytes, messages: list[str]) -> tuple[Affine | None, str | None]:
    try:
        with TiffFile(io.BytesIO(data)) as tif:
            page = tif.pages.first
            assert isinstance(page, TiffPage)
            tags = tags_of(page)
    except Exception as error:  # tifffile raises anything on a damaged one
        messages.append(f"the GeoJP2 box is ignored: {type(error).__name__}: {error}")
        return None, None
    return geotiff.parse_transform(tags, messages), parse_crs(tags, messages)


def _of_gml(text: str, messages: list[str]) -> tuple[Affine, str | None] | None:
    """Return transform and CRS of a rectified grid; its origin is the centre of the first pixel."""
    try:
        if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
            raise ValueError("it declares a document type")
        grid = next(each for each in ElementTree.fromstring(text).iter() if _tag(each) == "RectifiedGrid")
        texts = {_tag(each): (each.text or "").replace(",", " ").split() for each in grid.iter()}
        vectors = [(each.text or "").replace(",", " ").split() for each in grid.iter() if _tag(each) == "offsetVector"]
        origin = tuple(map(float, texts["pos"]))[:2]
        (a, d), (b, e) = (tuple(map(float, vector))[:2] for vector in vectors[:2])
        named = " ".join(each.get("srsName", "") for each in grid.iter())
        code = re.search(r"EPSG(?::[\d.]*:|:|/[\d.]*/|.*#)(\d{4,6})", named)
    except (ElementTree.ParseError, ValueError, KeyError, StopIteration) as error:
        messages.append(f"the place that GML in JP2 says is ignored: {type(error).__name__}: {error}")
        return None
    system = crs.from_text(f"EPSG:{code[1]}", messages) if code else None
    c, f = origin
    if system is not None and "urn" in named and _is_northing_first(system):
        (a, d), (b, e), (c, f) = (d, a), (e, b), (f, c)
    return Affine(a, b, c, d, e, f).centres_to_corners(), system


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _is_northing_first(system: str) -> bool:
    import pyproj

    axes = pyproj.CRS(system).axis_info
    return bool(axes) and axes[0].direction.lower() in ("north", "south")
