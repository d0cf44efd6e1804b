"""Which pages of a TIFF are one raster: of several images, channels, slices, times, levels and masks.

OME-TIFF and ImageJ say in the description of the first page how pages follow each other; other files have pages of
one kind after pages of another.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tifffile import TiffPage

from pipeline.model.affine import Affine
from pipeline.model.errors import InputError, SeveralRasters, unknown
from pipeline.storage.georeference.ome import color_of_number, pixel_grid
from pipeline.storage.tiff.layout import path_of

AXES = ("c", "z", "t")
IJ_METADATA = 50839
"""The tag of ImageJ's metadata: among them a label for each page."""
TEXT_LIMIT = 2**26
"""Characters of an OME-XML: it holds a line for each page."""


PLANE_LIMIT = 2**16
"""Planes of an image."""
ELSEWHERE = -(2**40)
"""For the page of a plane in another file."""


@dataclass(frozen=True)
class Stack:
    """An image as a description tells of it: sizes, and the page of each (channel, slice, time)."""

    sizes: Mapping[str, int]
    pages: Mapping[tuple[int, int, int], int]
    channels: tuple[str, ...] = ()
    """Their names, "" for those without; empty where none has one."""
    labels: tuple[str, ...] = ()
    """Of the pages."""
    colors: tuple[str, ...] = ()
    """Of the channels, RRGGBB, "" for those without; empty where none has one."""
    pixel: tuple[tuple[str | None, str], ...] = ()
    """Height and width of a pixel, each with its unit, as OME-XML says them."""

    def grid(self, messages: list[str]) -> Affine | None:
        """Return the transform to micrometres that OME-XML says; None where it says none."""
        is_said = any(size for size, _ in self.pixel)
        return pixel_grid(self.pixel, messages) if is_said else None

    def names_of(self, places: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the channels whose pages are given; a stack without channels has none."""
        if self.channels or self.sizes["c"] == 1:
            return self.channels
        names = tuple(self.labels[page] if page < len(self.labels) else "" for page in places)
        return names if any(names) else ()


def parse_stacks(first: TiffPage, num_pages: int, messages: list[str]) -> list[Stack]:
    """Return the images that a file tells of; none where it is neither OME-TIFF nor of ImageJ, or tells nonsense."""
    text = str(first.description or "")
    try:
        if "<OME" in text[:4096]:
            return _parse_ome(text, os.path.basename(path_of(first)))
        if text.startswith("ImageJ="):
            return _parse_imagej(text, num_pages, first)
        if re.match(r'{"shape": .*"truncated": true', text, re.DOTALL):
            _refuse_truncated(text, first)
    except (ElementTree.ParseError, ValueError, KeyError, IndexError) as error:
        messages.append(f"what it says of its channels and slices is ignored: {error}; pages are bands")
    return []


def _refuse_truncated(text: str, first: TiffPage) -> None:
    """Refuse what tifffile wrote with `truncate=True`: pages of which only the first has a directory."""
    shape = json.loads(text)["shape"]
    count = math.prod(shape) // math.prod(first.shape)
    if count > 1:
        raise InputError(
            f"{path_of(first)}: tifffile wrote {count} images of shape {shape} behind one directory (truncate=True); "
            "write it without"
        )


def _parse_imagej(text: str, num_pages: int, first: TiffPage) -> list[Stack]:
    given = {
        key: int(value) for key, value in re.findall(r"^(images|channels|slices|frames)=(\d{1,9})\s*$", text, re.M)
    }
    if given.get("images", 1) > num_pages == 1:
        raise InputError(
            f"{path_of(first)}: ImageJ wrote {given['images']} images behind one directory; save it as OME-TIFF"
        )
    sizes = dict(zip(AXES, (given.get(key, 1) for key in ("channels", "slices", "frames")), strict=True))
    if first.samplesperpixel > 1:
        sizes["c"] = 1
    if sizes["c"] * sizes["z"] * sizes["t"] != num_pages:
        return []
    order = itertools.product(range(sizes["t"]), range(sizes["z"]), range(sizes["c"]))
    return [Stack(sizes, {(c, z, t): page for page, (t, z, c) in enumerate(order)}, labels=_labels(first))]


def _labels(first: TiffPage) -> tuple[str, ...]:
    """Return what ImageJ calls each page."""
    metadata = first.tags.valueof(IJ_METADATA)
    labels = metadata.get("Labels", ()) if isinstance(metadata, Mapping) else ()
    return tuple(str(label) for label in labels) if isinstance(labels, list | tuple) else ()


def _parse_ome(text: str, file_name: str) -> list[Stack]:
    if len(text) > TEXT_LIMIT or re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise ValueError("the OME-XML is too long, or declares a document type")
    root = ElementTree.fromstring(text)
    own = {root.get("UUID"), file_name}
    return [_parse_pixels(pixels, own) for pixels in root.iter() if _tag(pixels) == "Pixels"]


def _parse_pixels(pixels: Any, own: set[str | None]) -> Stack:
    sizes = {axis: int(pixels.get(f"Size{axis.upper()}", 1)) for axis in AXES}
    channels = [entry for entry in pixels if _tag(entry) == "Channel"]
    samples = max([1, *(int(entry.get("SamplesPerPixel", 1)) for entry in channels)])
    sizes["c"] = sizes["c"] // samples or 1
    order = pixels.get("DimensionOrder", "XYCZT")[2:].lower()
    if sorted(order) != sorted(AXES) or not all(0 < size < 2**20 for size in sizes.values()):
        raise ValueError(f"dimensions {order}, sizes {sizes}")
    if (count := math.prod(sizes.values())) > PLANE_LIMIT:
        raise ValueError(f"{count:,} planes")
    pages = _parse_planes(pixels, order, sizes, own) or {_place(n, order, sizes): n for n in range(count)}
    names = tuple(entry.get("Name") or "" for entry in channels)
    colors = tuple(color_of_number(entry.get("Color") or "") for entry in channels)
    if samples > 1 or len(names) != sizes["c"]:
        names = colors = ()
    pixel = tuple((pixels.get(side), pixels.get(f"{side}Unit", "µm")) for side in ("PhysicalSizeY", "PhysicalSizeX"))
    return Stack(sizes, pages, names if any(names) else (), colors=colors if any(colors) else (), pixel=pixel)


def _parse_planes(
    pixels: Any, order: str, sizes: Mapping[str, int], own: set[str | None]
) -> dict[tuple[int, int, int], int]:
    """Return the page of each (channel, slice, time) that is listed."""
    pages: dict[tuple[int, int, int], int] = {}
    count = math.prod(sizes.values())
    for data in (entry for entry in pixels if _tag(entry) == "TiffData"):
        start = {axis: int(data.get(f"First{axis.upper()}", 0)) for axis in AXES}
        position = start[order[0]] + sizes[order[0]] * (start[order[1]] + sizes[order[1]] * start[order[2]])
        page = int(data.get("IFD", 0))
        planes = int(data.get("PlaneCount", 1 if "IFD" in data.attrib else count))
        named = [entry for entry in data if _tag(entry) == "UUID"]
        if named and not own & {named[0].text, named[0].get("FileName")}:
            page = ELSEWHERE
        for plane in range(min(planes, count - position)):
            pages[_place(position + plane, order, sizes)] = page + plane
    return pages


def _place(position: int, order: str, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    found = {}
    for axis in order:
        position, found[axis] = divmod(position, sizes[axis])
    return found["c"], found["z"], found["t"]


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def pages_of(stack: Stack, pages: list[TiffPage], at: Mapping[str, int]) -> list[TiffPage]:
    """Return the pages of the channels of a stack, cut at a slice and a time."""
    path = path_of(pages[0])
    at = {key.lower(): value for key, value in at.items()}
    for axis in at:
        if axis in ("c", "channel", "channels"):
            raise InputError(f"{path}: `at`: the {stack.sizes['c']} channels are the bands; pick some with `bands:`")
        if axis not in ("z", "t"):
            raise InputError(f"{path}: `at`: {unknown('dim', axis, [a for a in ('z', 't') if stack.sizes[a] > 1])}")
    for axis in ("z", "t"):
        size = stack.sizes[axis]
        if size > 1 and axis not in at:
            raise SeveralRasters(
                f"{path}: dim {axis!r} has {size} entries; pick one, for instance `at: {{{axis}: 0}}`, or read all of "
                f"them as bands: `along: {axis}`",
                [{"at": {axis: 0}}, {"along": axis}],
                [(axis, f"{size} entries")],
            )
        if not isinstance(index := at.get(axis, 0), int) or not 0 <= index < size:
            raise InputError(f"{path}: `at: {{{axis}: {index}}}` is outside; {axis} has {size} entries, from 0")
    places = [(c, at.get("z", 0), at.get("t", 0)) for c in range(stack.sizes["c"])]
    missing = [place for place in places if not 0 <= stack.pages.get(place, -1) < len(pages)]
    if missing:
        raise InputError(
            f"{path}: channel {missing[0][0]}, slice {missing[0][1]}, time {missing[0][2]} lies in another file, or "
            "nowhere; stack the files of one image (`stack:`), or write it as one file"
        )
    return [pages[stack.pages[place]] for place in places]


def groups_of(pages: Iterable[TiffPage], place_of: Callable[[TiffPage], Any] = lambda _: None) -> list[list[TiffPage]]:
    """Return pages of one kind and place together, in their order; the first place is that of those without one."""
    groups: dict[Any, list[TiffPage]] = {}
    first: dict[Any, Any] = {}
    for page in pages:
        kind, place = (page.hash, page.planarconfig), place_of(page)
        first.setdefault(kind, place)
        groups.setdefault((kind, first[kind] if place is None else place), []).append(page)
    return list(groups.values())
