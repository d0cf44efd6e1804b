"""The pages of a TIFF file: which of them are bands, and what they say beside the pixels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffPage

from pipeline.errors import InputError
from pipeline.raster import RasterSpec, Recorded
from pipeline.storage import geotiff
from pipeline.storage.tiff_layout import Layout, codec_of

PAGE_LIMIT = 2**15
"""Pages of a file: so many take some five seconds to parse."""
IDENTITY_TAGS = (256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339, 347, 530, *geotiff.TAGS)


def select_pages(tif: TiffFile, messages: list[str]) -> tuple[list[TiffPage], dict[str, Any]]:
    """Return the pages that are bands: the first of full resolution, and those of its kind if it has one sample.

    tifffile's `series` are not used: they follow names of other files, and change between versions.
    """
    path = str(tif.filehandle.path)
    full: list[TiffPage] = []
    offsets: set[int] = set()
    levels = 0
    for page in tif.pages:
        if not isinstance(page, TiffPage) or page.offset in offsets:
            messages.append(f"directory {len(offsets)} leads back to an earlier one; it ends the file")
            break
        offsets.add(page.offset)
        if len(offsets) > PAGE_LIMIT:
            raise InputError(f"{path}: has more than {PAGE_LIMIT} pages; split the file")
        levels += page.is_reduced and not page.is_mask
        if not page.is_reduced and not page.is_mask:
            full.append(page)
    if not full:
        raise InputError(f"{path}: has no image of full resolution ({len(offsets)} pages); it is no raster")
    first = full[0]
    alike = [page for page in full if page.hash == first.hash and page.planarconfig == first.planarconfig]
    pages = alike if first.samplesperpixel == 1 else alike[:1]
    if len(pages) < len(full):
        messages.append(f"{len(full) - len(pages)} of {len(full)} pages are ignored: bands are pages of one sample")
    return pages, {"pages": len(offsets), "levels": levels + len(first.subifds or ())}


def parse_recorded(pages: list[TiffPage], messages: list[str]) -> Recorded:
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
