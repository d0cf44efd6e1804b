"""Open what the pipeline file names as an input: any format, with the file's own words overridden."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import RasterSpec, fit
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.open import folder_at
from pipeline.storage.georeference.recorded import Recorded, recorded_of
from pipeline.storage.input import Choice, Input, Scale
from pipeline.storage.reader import Reader
from pipeline.storage.view import Scaled, Selected, Stack

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
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
    """Open one stored raster, Zarr or TIFF, by what it is: on a disk, or in an object store.

    `missing` says what chunks are that are not there, where nobody lists those that are.
    """
    choice, folder = choice or Choice(), folder_at(path, access)
    suffix = Path(path.rstrip("/")).suffix.lower()
    if suffix in REFUSED and is_url(path):
        raise InputError(f"{path}: only Zarr and TIFF are read from object stores; copy the file to a disk")
    if suffix in REFUSED:
        raise InputError(f"{path}: " + REFUSED[suffix].format(path=path))
    try:
        if _is_tiff(path, access) if is_url(path) else not _is_folder(path):
            return _open_file(path, choice, limits, access)
        from pipeline.storage.zarr.reader import ZarrReader

        if choice.series is not None:
            raise InputError(f"{path}: `series` chooses an image of a TIFF; name an `array` of a store")
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


def _is_tiff(url: str, access: Access | None) -> bool:
    """Return whether a TIFF lies at a URL, by its name; where that says nothing, by how what lies there begins."""
    name = PurePosixPath(url)
    if name.suffix.lower() in TIFF_SUFFIXES:
        return True
    if any(part.endswith(".zarr") for part in name.parts):
        return False
    from pipeline.storage.folder.ranges import object_at  # with obstore, an extra
    from pipeline.storage.tiff.directory import is_tiff

    try:
        return is_tiff(bytes(object_at(url, access or Access()).get([(0, 8)], lambda facts: None)[0]))
    except OSError:  # no object at all: a store of many lies below it, or nothing
        return False


def _open_file(path: str, choice: Choice, limits: ReadLimits | None, access: Access | None) -> Reader:
    if choice.array:
        raise InputError(
            f"{path}: `array` and `at` are for Zarr groups; this is a file (of several images `series:` picks one, and "
            "`at:` cuts the slices and times of OME-TIFF and ImageJ)"
        )
    if labels := [place for place in choice.at.values() if not isinstance(place, int)]:
        raise InputError(f"{path}: `at` cuts a file at positions, whole numbers from 0; got {labels[0]!r}")
    from pipeline.storage.tiff.reader import TiffReader

    return TiffReader.open(path, limits, choice, access)


Opened = dict[tuple[Any, ...], Reader]
"""Rasters by what they were opened for."""


def open_input(
    entry: Input, limits: ReadLimits | None = None, *, is_wide: bool = False, opened: Opened | None = None
) -> Reader:
    """Open an input: one raster, or several one-band rasters as bands; then bands, nodata and scale as asked.

    What was opened before, for this input or another, is found in `opened`. Scaled pixels are float64 in any case where
    `is_wide` says so.
    """
    opened = {} if opened is None else opened
    choices = list(entry.choices)
    readers = [_open_one(entry, path, choice, limits, opened) for path, choice in choices]
    if len(readers) > 1 and entry.nodata not in (None, "carry"):  # what each of them records counts no more
        readers = [Selected(reader, spec=replace(reader.spec, nodata=None)) for reader in readers]
    names = [choice.array or Path(path).name.split(".")[0] for path, choice in choices]
    reader: Reader = readers[0] if len(readers) == 1 else Stack(readers, names)
    spec, bands = reader.spec.select(entry.bands)
    spec = replace(spec, nodata=_nodata(entry, spec), recorded=_recorded(entry, spec))
    said: tuple[str, ...] = ()
    if entry.scale == "apply" and not reader.scales:
        said = ("`scale: apply` changes nothing: the file records no scale and offset that can be used",)
    if entry.bands is not None or spec != reader.spec or said:
        reader = Selected(reader, None if entry.bands is None else bands, spec, said)
    scales = reader.scales if entry.scale == "apply" else ()
    if isinstance(entry.scale, Scale):
        scales = ((entry.scale.factor, entry.scale.offset),) * spec.num_bands
    return Scaled(reader, scales, is_wide) if scales else reader


def _open_one(entry: Input, path: str, choice: Choice, limits: ReadLimits | None, opened: Opened) -> Reader:
    key = (path, choice, limits, entry.storage, entry.missing)
    if key not in opened:
        reader = opened[key] = open_raster(path, choice, limits, entry.storage, entry.missing or "away")
        _check_complete(folder_at(path, entry.storage), reader, fills=entry.missing == "fill")
    return opened[key]


def _check_complete(path: Folder, reader: Reader, *, fills: bool) -> None:
    """Refuse what a run has begun to write and not finished, or what was lost of it: it would pass for pixels."""
    from pipeline.storage.zarr.store import root_attributes

    if not hasattr(type(reader), "missing"):  # a file
        return
    if getattr(reader, "has_nothing", False) and not fills:
        raise InputError(
            f"{path}: lacks all its chunk files, and all of it would be read as the fill value; copy it again, or say "
            "`missing: fill` at the input if it is meant to be empty"
        )
    folder: Folder | None = path
    while folder is not None and folder.exists("zarr.json"):
        attributes = root_attributes(folder)
        if attributes is not None and attributes.get("complete") is False:
            raise InputError(f"{path}: is the unfinished output of a run; finish that with --resume first")
        if attributes is not None and (missing := getattr(reader, "missing", "")):
            raise InputError(f"{path}: is the output of a run and lacks {missing}; compute it again")
        folder = folder.parent


def _nodata(entry: Input, spec: RasterSpec) -> float | int | None:
    if entry.nodata is None:
        return spec.nodata
    if entry.nodata in ("none", "carry"):
        return None
    nodata = fit(math.nan if isinstance(entry.nodata, str) else entry.nodata, spec.dtype)
    if nodata is None:
        raise PipelineError(
            f"{entry.paths[0]}: nodata {entry.nodata} cannot occur in {spec.dtype.name} pixels; "
            "give a value that can, or `nodata: none`",
            ("nodata",),
        )
    return nodata


def _recorded(entry: Input, spec: RasterSpec) -> Recorded | None:
    """Return what the file says of the raster, where the pipeline file does not say otherwise."""
    recorded = recorded_of(spec)
    if entry.nodata == "carry":
        recorded = replace(recorded, carried=spec.nodata)
    elif entry.nodata is not None:
        recorded = replace(recorded, nodata=None)
    return recorded.or_none


def local_paths(reader: Reader) -> list[str]:
    """Return the files and folders that a reader reads, to keep the output out of them."""
    return [each.path for each in reader.evidence() if not is_url(each.path)]
