"""Open one stored raster, of any format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.folder.open import folder_at
from pipeline.storage.input import Choice
from pipeline.storage.reader import Reader
from pipeline.storage.series import Series

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
RASTER_SUFFIXES = TIFF_SUFFIXES
"""Of files that are read."""
REFUSED = {
    ".vrt": "a VRT is a recipe, not pixels; write it out first: gdal_translate {path} image.tif",
    ".jp2": "JPEG 2000 has no fast reader of parts here; convert it first: gdal_translate {path} image.tif",
    ".nc": "NetCDF is not read; convert it first: xarray.open_dataset({path!r}).to_zarr('image.zarr')",
    ".hdf": "HDF is not read; convert it first: gdal_translate {path} image.tif, or through xarray to Zarr",
    ".h5": "HDF5 is not read; convert it first: xarray.open_dataset({path!r}).to_zarr('image.zarr')",
    ".png": "PNG is not read; convert it first: gdal_translate {path} image.tif",
    ".jpg": "JPEG is not read; convert it first: gdal_translate {path} image.tif",
    ".img": "Erdas Imagine is not read; convert it first: gdal_translate {path} image.tif",
    ".zip": "an archive is not read; unpack it first",
}


def open_raster(
    path: str,
    choice: Choice | None = None,
    limits: ReadLimits | None = None,
    access: Access | None = None,
    missing: Literal["fill", "away"] = "fill",
) -> Reader:
    """Open one stored raster, Zarr or TIFF, by what it is; from object stores Zarr alone.

    `missing` says what chunks are that are not there, where nobody lists those that are.
    """
    choice, folder = choice or Choice(), folder_at(path, access)
    suffix = Path(path.rstrip("/")).suffix.lower()
    if is_url(path) and suffix in (*TIFF_SUFFIXES, *REFUSED):
        raise InputError(
            f"{folder}: only Zarr is read from object stores; copy the file to a disk (`rasterpipe convert` makes Zarr "
            "of a TIFF)"
        )
    if suffix in REFUSED:
        raise InputError(f"{path}: " + REFUSED[suffix].format(path=path))
    try:
        if not is_url(path) and not _is_folder(path):
            return _open_file(path, choice, limits)
        from pipeline.storage.zarr.reader import ZarrReader

        if choice.series is not None:
            raise InputError(f"{path}: `series` chooses an image of a TIFF; name an `array` of a store")
        if choice.along is not None:
            from pipeline.storage.zarr.slices import ZarrSlices

            return ZarrSlices(folder, choice, limits, missing)
        return ZarrReader(folder, choice, limits, missing)
    except RemoteError as error:
        raise InputError(str(error)) from error
    except OSError as error:  # no permission, a name too long, a share that is gone
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _is_folder(path: str) -> bool:
    if not Path(path).exists():
        begun = any(Path(f"{place}.work", "journal").exists() for place in (Path(path), *Path(path).parents))
        hint = "; a run that writes it has not ended: finish that with --resume first" if begun else ""
        raise InputError(f"{path}: no such file or folder{hint}")
    return Path(path).is_dir()


def _open_file(path: str, choice: Choice, limits: ReadLimits | None) -> Reader:
    if choice.array:
        raise InputError(
            f"{path}: `array` and `at` are for Zarr groups; this is a file (of several images `series:` picks one, and "
            "`at:` cuts the slices and times of OME-TIFF and ImageJ)"
        )
    if labels := [place for place in choice.at.values() if not isinstance(place, int)]:
        raise InputError(f"{path}: `at` cuts a file at positions, whole numbers from 0; got {labels[0]!r}")
    from pipeline.storage.tiff.reader import TiffReader

    if choice.along is None:
        return TiffReader.open(path, limits, choice)
    return _slices(choice.along, lambda index: TiffReader.open(path, limits, _cut(choice, index)))


def _cut(choice: Choice, index: int) -> Choice:
    return replace(choice, at={**choice.at, choice.along or "": index}, along=None)


def _slices(along: str, open_at: Callable[[int], Reader]) -> Reader:
    """Return all slices or times of a file as bands."""
    first = open_at(0)
    sizes = first.describe().get("slices") or {}
    entries = range(sizes.get(along.lower(), 1))
    return Series(along, entries, [first, *map(open_at, entries[1:])])


def local_paths(reader: Reader) -> list[str]:
    """Return the files and folders that a reader reads, to keep the output out of them."""
    return [each.path for each in reader.evidence() if not is_url(each.path)]
