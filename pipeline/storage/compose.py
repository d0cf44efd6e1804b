"""An input as the pipeline file describes it: its files as one raster, with their own words overridden."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.model.alignment import repetition
from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import BandKey, RasterSpec, fit, grid_difference
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.files import band_in_name, names_of
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.open import folder_at
from pipeline.storage.georeference.recorded import Recorded, recorded_of
from pipeline.storage.input import Choice, Input, Scale, Source
from pipeline.storage.matched import Matched
from pipeline.storage.mosaic import Mosaic, place
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader
from pipeline.storage.series import Masked, Series
from pipeline.storage.view import Scaled, Selected, Stack

Classes = Mapping[str, tuple[int, ...]]
"""Bands, and their values where pixels are invalid."""
Opened = dict[tuple[Any, ...], Reader]
"""Rasters by what they were opened for."""


def open_input(
    entry: Input, limits: ReadLimits | None = None, *, is_wide: bool = False, opened: Opened | None = None
) -> Reader:
    """Open an input: its files as one raster; then bands, nodata and scale as asked.

    What was opened before, for this input or another, is found in `opened`. Scaled pixels are float64 in any case where
    `is_wide` says so.
    """
    reader = Composition(entry, limits, {} if opened is None else opened).open()
    if entry.scale == "apply" and not reader.scales:
        said = ("`scale: apply` changes nothing: the file records no scale and offset that can be used",)
        return Selected(reader, spec=reader.spec, said=said)
    scales = reader.scales if entry.scale == "apply" else ()
    if isinstance(entry.scale, Scale):
        scales = ((entry.scale.factor, entry.scale.offset),) * reader.spec.num_bands
    return Scaled(reader, scales, is_wide) if scales else reader


@dataclass(frozen=True)
class Composition:
    """Makes one raster of the files of an input."""

    entry: Input
    limits: ReadLimits | None
    opened: Opened

    def open(self) -> Reader:
        dates = self.entry.dates
        if dates is None or isinstance(dates, str):
            return self._of_one_time(self.entry, None)
        each = sorted(dates, key=lambda date: date.time)
        times = [date.time for date in each]
        readers = [self._of_one_time(date, self.entry.mask) for date in each]
        if any(grid_difference(readers[0].spec, reader.spec) for reader in readers):
            readers = _on_one_grid(readers, times)
        return Series("time", times, readers)

    def _of_one_time(self, source: Source, mask: Classes | None) -> Reader:
        reader = self._source(source, mask)
        if self.entry.bands is None:
            return reader
        spec, bands = reader.spec.select([_band_key(reader.spec, key) for key in self.entry.bands])
        return Selected(reader, bands, spec)

    def _source(self, source: Source, mask: Classes | None) -> Reader:
        mask = source.mask or mask
        if source.mosaic is not None:
            parts = [Source(path=part) if isinstance(part, str) else part for part in source.mosaic]
            names, readers = [part.paths[0] for part in parts], [self._source(part, mask) for part in parts]
            placed = place([reader.spec for reader in readers], names, self.entry.extent or "union")
            overlap = self.entry.overlap or "first"
            assert overlap in ("first", "last", "error")
            return Mosaic(readers, names, overlap, placed)
        if source.stack is not None:
            assert not isinstance(source.stack, str)
            return self._stack(source.stack, mask or {})
        assert source.path is not None
        return _masked(self._file(source.path), mask or {})

    def _stack(self, files: Mapping[str, str] | Sequence[str], mask: Classes) -> Reader:
        paths = list(files.values()) if isinstance(files, Mapping) else list(files)
        names = list(files) if isinstance(files, Mapping) else names_of(paths)
        if lost := [name for name in mask if name not in names]:
            raise PipelineError(f"{lost[0]!r} is no band of the stack ({', '.join(names)})", ("mask", lost[0]))
        if self.entry.bands and all(band in names for band in self.entry.bands):  # others need not even fit
            wanted = {*self.entry.bands, *mask}
            chosen = [(name, path) for name, path in zip(names, paths, strict=True) if name in wanted]
            names, paths = [name for name, _ in chosen], [path for _, path in chosen]
        readers = [self._file(path, is_mask=name in mask) for name, path in zip(names, paths, strict=True)]
        finest = max((reader.spec for reader in readers), key=lambda spec: spec.region.num_pixels)
        found = dict(zip(names, [_repeated(reader, finest) for reader in readers], strict=True))
        if len(found) < len(names):
            return Stack(readers, names)  # it says which is there twice
        bands = {name: reader for name, reader in found.items() if name not in mask}
        is_alone = len(files) == 1 and not isinstance(files, Mapping)
        if not bands:
            raise PipelineError("all bands of the stack are masks; none is left", ("mask",))
        reader = next(iter(bands.values())) if is_alone else Stack(list(bands.values()), list(bands))
        return Masked(reader, [(found[name], mask[name]) for name in mask], list(mask)) if mask else reader

    def _file(self, path: str, *, is_mask: bool = False) -> Reader:
        """Return the raster of one file, nodata as the input says it."""
        choices = list(self.entry.choices(path))
        readers = [self._open(path, choice) for _, choice in choices]
        if not is_mask:
            readers = [self._with_nodata(reader) for reader in readers]
        return readers[0] if len(readers) == 1 else Stack(readers, [name for name, _ in choices])

    def _with_nodata(self, reader: Reader) -> Reader:
        spec = replace(
            reader.spec, nodata=_nodata(self.entry, reader.spec), recorded=_recorded(self.entry, reader.spec)
        )
        return reader if spec == reader.spec else Selected(reader, spec=spec)

    def _open(self, path: str, choice: Choice) -> Reader:
        entry = self.entry
        key = (path, choice, self.limits, entry.storage, entry.missing)
        if key not in self.opened:
            reader = open_raster(path, choice, self.limits, entry.storage, entry.missing or "away")
            self.opened[key] = reader
            _check_complete(folder_at(path, entry.storage), reader, fills=entry.missing == "fill")
        return self.opened[key]


def _band_key(spec: RasterSpec, key: BandKey) -> BandKey:
    """Return the band whose description tells the one that is asked for: B08 of `B08, central wavelength`."""
    told = (
        [] if isinstance(key, int) or key in spec.bands else [b for b in spec.bands if band_in_name(b) == key.upper()]
    )
    return told[0] if len(told) == 1 else key


def _masked(reader: Reader, mask: Classes) -> Reader:
    """Return the bands of a raster that are no masks, masked by those that are."""
    if not mask:
        return reader
    try:
        places = [reader.spec.band_index(_band_key(reader.spec, name)) for name in mask]
    except PipelineError as error:
        raise PipelineError(str(error), ("mask",)) from None
    rest = [band for band in range(reader.spec.num_bands) if band not in places]
    if not rest:
        raise PipelineError("all bands are masks; none is left", ("mask",))
    masks = [(Selected(reader, [band]), classes) for band, classes in zip(places, mask.values(), strict=True)]
    return Masked(Selected(reader, rest), masks, list(mask))


def _repeated(reader: Reader, finest: RasterSpec) -> Reader:
    """Return a raster on the grid of the finest of its stack, where its pixels are whole numbers of pixels there."""
    times = repetition(reader.spec, finest) if grid_difference(finest, reader.spec) else None
    return reader if times is None else Matched(reader, finest, times)


def _on_one_grid(readers: Sequence[Reader], times: Sequence[str]) -> list[Reader]:
    """Return rasters of several times on the grid that holds them all: where one has no pixels, it is nodata."""
    placed = place([reader.spec for reader in readers], [f"the raster of {time}" for time in times])
    return [
        Mosaic([reader], [time], "first", replace(placed, corners=(corner,), spec=_like(reader.spec, placed.spec)))
        for reader, time, corner in zip(readers, times, placed.corners, strict=True)
    ]


def _like(spec: RasterSpec, grid: RasterSpec) -> RasterSpec:
    """Return the raster of a spec on another grid."""
    recorded = replace(recorded_of(spec), tags=recorded_of(grid).tags).or_none
    height, width = grid.region.shape
    return replace(spec, height=height, width=width, transform=grid.transform, crs=grid.crs, recorded=recorded)


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
