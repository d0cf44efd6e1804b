"""Open one stored raster, of any format."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.driver import FORMATS
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.folder.open import folder_at
from pipeline.storage.input import Choice
from pipeline.storage.jpeg2000.codestream import SIGNATURE, is_jpeg2000
from pipeline.storage.reader import Reader
from pipeline.storage.series import Series
from pipeline.storage.tiff.directory import is_tiff
from pipeline.storage.vector.file import is_vector

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
RASTER_SUFFIXES = (*TIFF_SUFFIXES, *FORMATS)
"""Of files that may be rasters."""


def open_raster(
    path: str,
    choice: Choice | None = None,
    limits: ReadLimits | None = None,
    access: Access | None = None,
    missing: Literal["fill", "away"] = "fill",
) -> Reader:
    """Open one stored raster, Zarr, TIFF or what GDAL knows, by what it is; from object stores Zarr and TIFF.

    `missing` says what chunks are that are not there, where nobody lists those that are.
    """
    choice, folder = choice or Choice(), folder_at(path, access)
    suffix = Path(path.rstrip("/")).suffix.lower()
    if is_url(path) and (suffix in FORMATS or choice.driver or choice.sidecar):
        raise InputError(f"{path}: only Zarr and TIFF are read from object stores; copy the file to a disk")
    if is_vector(path):
        raise InputError(f"{path}: a file of polygons is no raster; name it as one: `{{vector: {path}}}`")
    if suffix == ".zip":
        raise InputError(f"{path}: an archive is not read; unpack it first")
    try:
        if _is_tiff_at(path, access) if is_url(path) else not _is_folder(path):
            return _open_file(path, choice, limits, access)
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


def _is_tiff_at(url: str, access: Access | None) -> bool:
    """Return whether a TIFF lies at a URL, by its name; where that says nothing, by how what lies there begins."""
    name = PurePosixPath(url)
    if name.suffix.lower() in TIFF_SUFFIXES:
        return True
    if any(part.endswith(".zarr") for part in name.parts):
        return False
    from pipeline.storage.folder.ranges import object_at  # with obstore, an extra

    try:
        return is_tiff(bytes(object_at(url, access or Access()).get([(0, 8)], lambda facts: None)[0]))
    except OSError:  # no object at all: a store of many lies below it, or nothing
        return False


def _open_file(path: str, choice: Choice, limits: ReadLimits | None, access: Access | None) -> Reader:
    """Open a file: TIFFs by our own reader, what else it is, and what is asked for, by GDAL."""
    if not (is_url(path) or choice.driver or choice.sidecar) and _is_plain_jpeg2000(path, choice):
        from pipeline.storage.jpeg2000.reader import Jpeg2000Reader

        return Jpeg2000Reader.open(path, limits)
    if choice.driver or choice.sidecar or not (is_url(path) or _is_tiff(path)):
        from pipeline.storage.gdal.reader import GdalReader

        if choice.at or choice.along or choice.series is not None:
            raise InputError(
                f"{path}: `at`, `along` and `series` are for Zarr and TIFF; of several rasters in a file that GDAL "
                "reads `array` names one, and times and levels of it are its `bands`"
            )
        return GdalReader.open(path, limits, choice)
    if choice.array:
        raise InputError(
            f"{path}: `array` and `at` are for Zarr groups; this is a file (of several images `series:` picks one, and "
            "`at:` cuts the slices and times of OME-TIFF and ImageJ)"
        )
    if labels := [place for place in choice.at.values() if not isinstance(place, int)]:
        raise InputError(f"{path}: `at` cuts a file at positions, whole numbers from 0; got {labels[0]!r}")
    from pipeline.storage.tiff.reader import TiffReader

    if choice.along is None:
        return TiffReader.open(path, limits, choice, access)
    return _slices(choice.along, lambda index: TiffReader.open(path, limits, _cut(choice, index), access))


def _is_plain_jpeg2000(path: str, choice: Choice) -> bool:
    """Return whether a file is JPEG 2000 that is read without GDAL, for there is none."""
    if importlib.util.find_spec("rasterio") is not None or not os.path.isfile(path):
        return False
    if choice.array or choice.at or choice.along or choice.level or choice.series is not None:
        return False
    with open(path, "rb") as file:
        return is_jpeg2000(file.read(len(SIGNATURE)))


def _cut(choice: Choice, index: int) -> Choice:
    return replace(choice, at={**choice.at, choice.along or "": index}, along=None)


def _is_tiff(path: str) -> bool:
    """Return whether a file is a TIFF, or named as one."""
    if Path(path).suffix.lower() in TIFF_SUFFIXES or not Path(path).is_file():
        return True
    with open(path, "rb") as file:
        return is_tiff(file.read(8))


def _slices(along: str, open_at: Callable[[int], Reader]) -> Reader:
    """Return all slices or times of a file as bands."""
    first = open_at(0)
    sizes = first.describe().get("slices") or {}
    entries = range(sizes.get(along.lower(), 1))
    return Series(along, entries, [first, *map(open_at, entries[1:])])


def local_paths(reader: Reader) -> list[str]:
    """Return the files and folders that a reader reads, to keep the output out of them."""
    return [each.path for each in reader.evidence() if not is_url(each.path)]
