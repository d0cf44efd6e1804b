"""The pages of a TIFF file: which of them are bands, and what they say beside the pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffPage

from pipeline.model.errors import InputError
from pipeline.model.raster import RasterSpec, is_nan
from pipeline.storage.georeference import geotiff
from pipeline.storage.georeference.geokeys_parse import parse_crs
from pipeline.storage.georeference.ome import COLOR, UNIT
from pipeline.storage.georeference.recorded import Recorded
from pipeline.storage.input import Choice
from pipeline.storage.reader import Scales
from pipeline.storage.tiff.layout import Layout, codec_of, positive
from pipeline.storage.tiff.stack import Stack, groups_of, pages_of, parse_stacks

PAGE_LIMIT = 2**15
"""Pages of a file: so many take some five seconds to parse."""
IDENTITY_TAGS = (256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339, 347, 530, *geotiff.TAGS)

ORIENTATION = 274
PLACED = (*geotiff.PLACE, geotiff.GDAL_NODATA)


@dataclass(frozen=True)
class Selection:
    """The pages that are the bands of a raster."""

    pages: list[TiffPage]
    origin: list[TiffPage]
    """Those of full resolution, whose tags speak for them."""
    facts: dict[str, Any]
    names: tuple[str, ...] = ()
    """Of the bands, where the file has such besides GDAL's."""
    stack: Stack | None = None
    """What OME-TIFF or ImageJ tell of the image."""
    is_mask: bool = False

    @property
    def num_bands(self) -> int:
        return max(len(self.pages), positive(self.pages[0].samplesperpixel, "SamplesPerPixel"))


def select_pages(tif: TiffFile, choice: Choice, messages: list[str]) -> Selection:
    """Return the pages that are bands: of the image, level, slice and time that are chosen.

    An image that no description tells of is the pages of one kind, if they have one sample each, else one page.
    tifffile's `series` are not used: they follow names of other files, and change between versions.
    """
    path = str(tif.filehandle.path)
    every = _pages(tif, messages)
    full = [page for page in every if not page.is_reduced and not page.is_mask]
    if not full:
        raise InputError(f"{path}: has no image of full resolution ({len(every)} pages); it is no raster")
    masks = [page for page in every if page.is_mask and not page.is_reduced]
    reduced = [page for page in every if page.is_reduced and not page.is_mask]
    facts: dict[str, Any] = {
        "pages": len(every),
        "levels": len(reduced) + len(full[0].subifds or ()),
        "mask": "internal, not applied; `series: mask` reads it" if masks else None,
    }
    if choice.series == "mask":
        if not masks:
            raise InputError(f"{path}: `series: mask`: the file has no internal mask")
        return Selection(masks[:1], full[:1], facts, ("mask",), is_mask=True)
    pages, stack = _image(path, every, full, choice, messages)
    if slices := {axis: stack.sizes[axis] for axis in ("z", "t") if stack and stack.sizes[axis] > 1}:
        facts["slices"] = slices
    chosen = _level(path, pages, reduced, choice.level) if choice.level else pages
    names = stack.names_of(page.index for page in pages) if stack else ()
    return Selection(chosen, pages, facts, names, stack)


def _pages(tif: TiffFile, messages: list[str]) -> list[TiffPage]:
    """Return the pages of the chain, until it ends or leads back."""
    found: list[TiffPage] = []
    offsets: set[int] = set()
    for page in tif.pages:
        if not isinstance(page, TiffPage) or page.offset in offsets:
            messages.append(f"directory {len(offsets)} leads back to an earlier one; it ends the file")
            break
        offsets.add(page.offset)
        found.append(page)
        if len(found) > PAGE_LIMIT:
            raise InputError(f"{tif.filehandle.path}: has more than {PAGE_LIMIT} pages; split the file")
    return found


def _image(
    path: str, every: list[TiffPage], full: list[TiffPage], choice: Choice, messages: list[str]
) -> tuple[list[TiffPage], Stack | None]:
    """Return the pages of an image, and what a description tells of it."""
    assert choice.series != "mask"
    stacks = parse_stacks(every[0], len(every), messages)
    groups = groups_of(full, place_of)
    count, number = len(stacks or groups), choice.series or 0
    if not 0 <= number < count:
        raise InputError(f"{path}: `series: {number}`: the file has {count} images, counted from 0")
    if stacks:
        pages = pages_of(stacks[number], every, choice.at)
        if len(groups_of(pages)) > 1 or (pages[0].samplesperpixel > 1 and len(pages) > 1):
            raise InputError(f"{path}: the channels of image {number} are of several kinds; write them as files")
        return pages, stacks[number]
    if choice.at:
        raise InputError(
            f"{path}: `at` and `along` are for the slices and times that OME-TIFF and ImageJ tell of; this is no such "
            f"stack: its {len(full)} pages are told by `bands:` or `series:`"
        )
    group = groups[number]
    pages = group if group[0].samplesperpixel == 1 else group[:1]
    if len(pages) < len(full) and choice.series is None:
        elsewhere = "" if len(groups_of(full)) == len(groups) else ", one place and one nodata value"
        messages.append(
            f"{len(full) - len(pages)} of {len(full)} pages are ignored: bands are pages of one sample{elsewhere}"
        )
    if (orientation := pages[0].tags.valueof(ORIENTATION)) not in (None, 1):
        messages.append(
            f"Orientation is {orientation} and not 1 (the first row on top, the first column on the left): pixels are "
            "taken in the order in which they are stored, as GDAL does"
        )
    return pages, None


def place_of(page: TiffPage) -> Any:
    """Return what a page says of its place and nodata; None where it says nothing, as pages after the first may."""
    tags = {code: page.tags.valueof(code) for code in PLACED if page.tags.get(code) is not None}
    text = geotiff.nodata_text(tags)
    said = [(code, _plain(value)) for code, value in tags.items() if code != geotiff.GDAL_NODATA]
    number = None if text is None else geotiff.parse_number(text)
    return (repr(said), text if number is None or is_nan(number) else number) if tags else None


def _level(path: str, pages: list[TiffPage], reduced: list[TiffPage], level: int) -> list[TiffPage]:
    """Return the pages of a level of the pyramid: below each page, or after the image in the chain."""
    below = [[each for each in page.pages or () if isinstance(each, TiffPage)] for page in pages]
    if all(len(each) >= level for each in below):
        return [each[level - 1] for each in below]
    first = pages[0]
    same = [p for p in reduced if (p.samplesperpixel, p.dtype) == (first.samplesperpixel, first.dtype)]
    levels = [group for group in groups_of(same) if len(group) == len(pages)]
    if not 0 < level <= len(levels):
        known = max(len(levels), min(map(len, below)))
        raise InputError(f"{path}: `level: {level}`: the file has levels up to {known}, 0 is full resolution")
    return sorted(levels, key=lambda group: -int(group[0].imagelength))[level - 1]


def parse_spec(selection: Selection, layout: Layout, messages: list[str]) -> tuple[RasterSpec, Scales]:
    """Return what a file says of its raster, and the scales of its bands."""
    origin, num_bands = selection.origin[0], selection.num_bands
    tags, recorded = tags_of(origin), _parse_recorded(selection.origin, messages)
    items = geotiff.by_band(recorded.items)
    dtype = np.dtype(np.uint8) if layout.dtype.kind == "b" else layout.dtype.newbyteorder("=")
    given = selection.names if len(selection.names) == num_bands else ()
    bands = geotiff.band_names(given, items, num_bands, recorded.extra, messages)
    nodata = None if selection.is_mask else geotiff.parse_nodata(tags, dtype, messages)
    crs = geotiff.recorded_crs(recorded.items) or parse_crs(tags, messages)
    transform, unit = geotiff.parse_transform(tags, messages), None
    if transform is None and crs is None:
        transform, unit = geotiff.recorded_micrometers(recorded.items), UNIT
        transform = transform or (selection.stack.grid(messages) if selection.stack else None)
    if transform is not None:  # of full resolution
        transform = transform.scale(int(origin.imagelength) / layout.height, int(origin.imagewidth) / layout.width)
    if layout.height != int(origin.imagelength):
        recorded = recorded.at_level(messages)
    colors = selection.stack.colors if selection.stack else ()
    spec = RasterSpec(
        height=layout.height,
        width=layout.width,
        dtype=dtype,
        dims=_dims(num_bands, layout),
        bands=bands,
        nodata=nodata,
        band_coordinates=((COLOR, colors),) if len(colors) == num_bands > 1 else (),
        transform=transform,
        crs=crs,
        recorded=recorded.place if selection.is_mask else recorded,
        unit=unit if transform else None,
    )
    return spec, () if selection.is_mask else geotiff.parse_scales(items, num_bands, messages)


def _dims(num_bands: int, layout: Layout) -> tuple[str, ...]:
    if num_bands == 1:
        return ("y", "x")
    return ("band", "y", "x") if len(layout.offsets) > 1 else ("y", "x", "band")


def _parse_recorded(pages: list[TiffPage], messages: list[str]) -> Recorded:
    """Return what is handed on of the pages that are bands."""
    first = pages[0]
    recorded = geotiff.parse_recorded(tags_of(first), [tags_of(page) for page in pages], messages)
    extra = tuple(int(code) for code in first.extrasamples)
    return replace(recorded, photometric=int(first.photometric), extra=extra)


def tags_of(page: TiffPage) -> dict[int, Any]:
    return {code: page.tags.valueof(code) for code in geotiff.TAGS}


def describe_pages(tif: TiffFile, pages: list[TiffPage], layout: Layout) -> dict[str, Any]:
    """Return how a file is stored, in words for `info`."""
    first = pages[0]
    size = f"{layout.rows} x {layout.columns}" if layout.word == "tile" else f"of {layout.rows} rows"
    predictor = getattr(first.predictor, "name", str(first.predictor)).lower()
    return {
        "format": "BigTIFF" if tif.is_bigtiff else "TIFF",
        "codec": codec_of(first),
        "predictor": None if first.predictor == 1 else predictor,
        "layout": f"{layout.word}s {size}",
        "planar": "pages" if len(pages) > 1 else "separate" if first.planarconfig == 2 else "contiguous",
        "byteorder": "little" if tif.byteorder == "<" else "big",
    }


def hash_metadata(tif: TiffFile, pages: list[TiffPage], spec: RasterSpec, layout: Layout) -> str:
    """Return a hash of all that says what the pixels of a file are and where they lie."""
    digest = hashlib.sha256(f"{tif.byteorder} {tif.is_bigtiff} {spec.dtype} {spec.shape}".encode())
    for page in pages:
        for tag in page.tags.values():
            if tag.code in IDENTITY_TAGS:
                value = tag.value.tolist() if isinstance(tag.value, np.ndarray) else tag.value
                digest.update(f"{tag.code} {int(tag.dtype)} {tag.count} {_plain(value)!r};".encode())
    digest.update(layout.offsets.astype("<i8").tobytes())
    digest.update(layout.counts.astype("<i8").tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return a tag's value without enums, whose names change between versions."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) else value
