"""Open what the pipeline file names as an input: any format, with the file's own words overridden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import (
    Dims,
    RasterSpec,
    Recorded,
    default_names,
    fit,
    grid_difference,
    name_bands,
    working_dtype,
)
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.open import folder_at
from pipeline.storage.reader import Evidence, Reader, Scales

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
    array: str | None = None,
    at: dict[str, Any] | None = None,
    dims: Dims | None = None,
    limits: ReadLimits | None = None,
    series: int | Literal["mask"] | None = None,
    level: int = 0,
    access: Access | None = None,
    missing: Literal["fill", "away"] = "fill",
) -> Reader:
    """Open one stored raster, Zarr or TIFF, by what it is; from object stores Zarr alone."""
    suffix = Path(path.rstrip("/")).suffix.lower()
    if is_url(path):
        return _open_remote(folder_at(path, access), array, at, dims, limits, level, missing)
    if suffix in REFUSED:
        raise InputError(f"{path}: " + REFUSED[suffix].format(path=path))
    try:
        if not Path(path).exists():
            begun = any(Path(f"{place}.work", "journal").exists() for place in (Path(path), *Path(path).parents))
            hint = "; a run that writes it has not ended: finish that with --resume first" if begun else ""
            raise InputError(f"{path}: no such file or folder{hint}")
        if Path(path).is_dir():
            from pipeline.storage.zarr.reader import ZarrReader

            if series is not None:
                raise InputError(f"{path}: `series` chooses an image of a TIFF; name an `array` of a store")
            return ZarrReader(path, array, at, dims, limits, level)
    except OSError as error:  # no permission, a name too long, a share that is gone
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if array:
        raise InputError(
            f"{path}: `array` and `at` are for Zarr groups; this is a file (of several images `series:` picks one, and "
            "`at:` cuts the slices and times of OME-TIFF and ImageJ)"
        )
    if labels := [place for place in (at or {}).values() if not isinstance(place, int)]:
        raise InputError(f"{path}: `at` cuts a file at positions, whole numbers from 0; got {labels[0]!r}")
    from pipeline.storage.tiff.reader import TiffReader
    from pipeline.storage.tiff.stack import Choice

    return TiffReader.open(path, limits, Choice(series, level, tuple((at or {}).items())))


def _open_remote(
    folder: Folder,
    array: str | None,
    at: dict[str, Any] | None,
    dims: Dims | None,
    limits: ReadLimits | None,
    level: int,
    missing: Literal["fill", "away"],
) -> Reader:
    from pipeline.storage.zarr.reader import ZarrReader

    if Path(folder.path).suffix.lower() in (*TIFF_SUFFIXES, *REFUSED):
        raise InputError(
            f"{folder}: only Zarr is read from object stores; copy the file to a disk (`rasterpipe convert` makes Zarr "
            "of a TIFF)"
        )
    try:
        return ZarrReader(folder, array, at, dims, limits, level, missing)
    except RemoteError as error:
        raise InputError(str(error)) from error


@dataclass(frozen=True)
class InputOptions:
    """How an input is read: the pipeline file's `inputs` entry, paths absolute."""

    paths: tuple[str, ...]
    arrays: tuple[str | None, ...] = (None,)
    at: tuple[tuple[str, Any], ...] = ()
    dims: Dims | None = None
    bands: tuple[int | str, ...] | None = None
    nodata: float | int | str | None = None
    """A value, "none" to ignore the one recorded, "carry" to hand it on uninterpreted, None to keep it."""
    scale: str | tuple[float, float] = "ignore"
    """"ignore", "apply" (as the file records it), or (factor, offset)."""
    is_wide: bool = False
    """Whether scaled pixels are float64 in any case."""
    limits: ReadLimits = field(default_factory=ReadLimits)
    series: int | Literal["mask"] | None = None
    level: int = 0
    access: Access = field(default_factory=Access)
    missing: Literal["fill"] | None = None
    """Whether chunks that are not there are known to be empty, where that is in doubt."""


def open_input(options: InputOptions, opened: dict[InputOptions, Reader] | None = None) -> Reader:
    """Open an input: one raster, or several one-band rasters as bands; then bands, nodata and scale as asked.

    What was opened before, for this input or another, is found in `opened`.
    """
    opened = {} if opened is None else opened
    targets = [(path, array) for path in options.paths for array in options.arrays]
    readers = [_open_one(options, path, array, opened) for path, array in targets]
    if len(readers) > 1 and options.nodata not in (None, "carry"):  # what each of them records counts no more
        readers = [Selected(reader, replace(reader.spec, nodata=None), None, ()) for reader in readers]
    names = [array or Path(path).name.split(".")[0] for path, array in targets]
    reader: Reader = readers[0] if len(readers) == 1 else Stack(readers, names)
    spec, bands = reader.spec.select(options.bands)
    spec = replace(spec, nodata=_nodata(options, spec), recorded=_recorded(options, spec))
    said: tuple[str, ...] = ()
    if options.scale == "apply" and not reader.scales:
        said = ("`scale: apply` changes nothing: the file records no scale and offset that can be used",)
    if options.bands is not None or spec != reader.spec or said:
        reader = Selected(reader, spec, bands if options.bands is not None else None, said)
    scales = reader.scales if options.scale == "apply" else ()
    if isinstance(options.scale, tuple):
        scales = (options.scale,) * spec.num_bands
    return Scaled(reader, scales, options.is_wide) if scales else reader


def _open_one(options: InputOptions, path: str, array: str | None, opened: dict[InputOptions, Reader]) -> Reader:
    plain = replace(options, paths=(path,), arrays=(array,), bands=None, nodata=None, scale="ignore", is_wide=False)
    if plain not in opened:
        reader = opened[plain] = open_raster(
            path,
            array,
            dict(options.at),
            options.dims,
            options.limits,
            options.series,
            options.level,
            options.access,
            options.missing or "away",
        )
        _check_complete(folder_at(path, options.access), reader, fills=options.missing == "fill")
    return opened[plain]


def _check_complete(path: Folder, reader: Reader, *, fills: bool) -> None:
    """Refuse what a run has begun to write and not finished, or what was lost of it: it would pass for pixels."""
    from pipeline.storage.zarr.store import root_attributes

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


def _nodata(options: InputOptions, spec: RasterSpec) -> float | int | None:
    if options.nodata is None:
        return spec.nodata
    if options.nodata in ("none", "carry"):
        return None
    nodata = fit(math.nan if isinstance(options.nodata, str) else options.nodata, spec.dtype)
    if nodata is None:
        raise PipelineError(
            f"{options.paths[0]}: nodata {options.nodata} cannot occur in {spec.dtype.name} pixels; "
            "give a value that can, or `nodata: none`",
            ("nodata",),
        )
    return nodata


def _recorded(options: InputOptions, spec: RasterSpec) -> Recorded | None:
    """Return what the file says of the raster, where the pipeline file does not say otherwise."""
    recorded = spec.recorded or Recorded()
    if options.nodata == "carry":
        recorded = replace(recorded, carried=spec.nodata)
    elif options.nodata is not None:
        recorded = replace(recorded, nodata=None)
    return recorded if recorded != Recorded() else None


class Selected(Reader):
    """A reader with some of its bands, or with another nodata; `said` are further warnings."""

    def __init__(self, reader: Reader, spec: RasterSpec, bands: tuple[int, ...] | None, said: tuple[str, ...]) -> None:
        self.reader, self.spec, self.bands, self._said = reader, spec, bands, said
        self.chunk, self.scales = reader.chunk, reader.scales
        if bands is not None and self.scales:
            self.scales = tuple(self.scales[band] for band in bands)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        own = self.bands
        if bands is not None:
            own = tuple(bands) if own is None else tuple(own[i] for i in bands)
        self.reader.read(region, out, own)

    def identity(self) -> dict[str, Any]:
        return self.reader.identity()

    def evidence(self) -> list[Evidence]:
        return self.reader.evidence()

    def describe(self) -> dict[str, Any]:
        facts = self.reader.describe()
        return facts | {"warnings": [*facts.get("warnings", []), *self._said]}


class Scaled(Reader):
    """A reader whose pixels are stored * factor + offset of their band, invalid ones as NaN.

    Their dtype is the working dtype, or float64.
    """

    def __init__(self, reader: Reader, applied: Scales, is_wide: bool = False) -> None:
        self.reader, self._applied = reader, np.array(applied)
        stored = reader.spec.dtype
        if stored.kind != "f" and stored.itemsize == 8:
            factor, offset = applied[0]
            remedy = f"{{op: cast, dtype: float64, scale: {factor!r}, offset: {offset!r}, allow_inexact: true}}"
            if len(set(applied)) > 1:
                remedy = "`calc` with `allow_inexact: true` for each band, whose scales differ"
            raise PipelineError(
                f"the raster is {stored.name}, and scaled pixels are floating point, which holds whole numbers only up "
                f"to 2^53; leave `scale` out and scale it where that may round: {remedy}",
                ("scale",),
            )
        self.chunk = reader.chunk
        nodata = None if reader.spec.nodata is None else float("nan")
        place = reader.spec.recorded.place if reader.spec.recorded else None
        dtype = np.dtype(np.float64) if is_wide else working_dtype(stored)
        self.spec = replace(reader.spec, dtype=dtype, nodata=nodata, recorded=place)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        stored = np.empty(out.shape, self.reader.spec.dtype)
        self.reader.read(region, stored, bands)
        pairs = self._applied if bands is None else self._applied[list(bands)]
        factor, offset = (pairs.T[..., np.newaxis] if self.spec.dims[0] == "band" else pairs.T).copy()
        axis, nodata = self.spec.dims.index("y"), self.reader.spec.nodata
        for row, scaled in zip(np.moveaxis(stored, axis, 0), np.moveaxis(out, axis, 0), strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # inf in, inf out
                scaled[...] = np.multiply(row, factor, dtype=np.float64) + offset  # rounded once; small temporaries
            if nodata is not None:
                scaled[row == row.dtype.type(nodata)] = np.nan

    def identity(self) -> dict[str, Any]:
        return self.reader.identity()

    def evidence(self) -> list[Evidence]:
        return self.reader.evidence()

    def describe(self) -> dict[str, Any]:
        return self.reader.describe()


UNSCALED = ((1.0, 0.0),)


class Stack(Reader):
    """Several rasters of one band on one grid, as the bands of one raster (dims band, y, x)."""

    def __init__(self, readers: Sequence[Reader], names: Sequence[str]) -> None:
        first = readers[0].spec
        for reader, name in zip(readers, names, strict=True):
            spec = reader.spec
            if spec.num_bands != 1:
                raise PipelineError(f"{name} has {spec.num_bands} bands; a stack takes rasters of one band", ("stack",))
            if words := grid_difference(first, spec):
                raise PipelineError(f"{names[0]} and {name} lie on different grids: {words}", ("stack",))
            if spec.dtype != first.dtype or repr(spec.nodata) != repr(first.nodata):  # NaN != NaN
                raise PipelineError(
                    f"{names[0]} is {first.dtype.name} with nodata {first.nodata}, {name} is {spec.dtype.name} with "
                    f"nodata {spec.nodata}; the rasters of a stack must agree",
                    ("stack",),
                )
        self._warnings: list[str] = []
        names = name_bands(names, default_names(len(names)), self._warnings)
        self.readers = tuple(readers)
        recorded = _stacked([reader.spec.recorded or Recorded() for reader in readers])
        self.spec = replace(first, dims=("band", "y", "x"), bands=tuple(names), band_coordinates=(), recorded=recorded)
        self.chunk = readers[0].chunk
        if any(reader.scales for reader in readers):
            self.scales = tuple((reader.scales or UNSCALED)[0] for reader in readers)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        for plane, index in enumerate(range(len(self.readers)) if bands is None else bands):
            reader = self.readers[index]
            axis = reader.spec.dims.index("band") if "band" in reader.spec.dims else None
            reader.read(region, out[plane] if axis is None else np.expand_dims(out[plane], axis))

    def identity(self) -> dict[str, Any]:
        return {"stack": [reader.identity() for reader in self.readers]}

    def evidence(self) -> list[Evidence]:
        return [evidence for reader in self.readers for evidence in reader.evidence()]

    def describe(self) -> dict[str, Any]:
        facts = [reader.describe() for reader in self.readers]
        warnings = [*self._warnings, *dict.fromkeys(text for fact in facts for text in fact.get("warnings", []))]
        return {**facts[0], "files": len(self.readers), "warnings": warnings}


def _stacked(recorded: Sequence[Recorded]) -> Recorded | None:
    """Return what the files say of their bands, and the first of the place."""
    items = [replace(item, band=band) for band, each in enumerate(recorded) for item in each.items if item.band == 0]
    stacked = Recorded(recorded[0].tags, recorded[0].nodata, tuple(items))
    return stacked if stacked != Recorded() else None


def local_paths(reader: Reader) -> list[str]:
    """Return the files and folders that a reader reads, to keep the output out of them."""
    identity = reader.identity()
    entries = identity.get("stack", [identity])
    return [str(entry["path"]) for entry in entries if not is_url(entry["path"])]
