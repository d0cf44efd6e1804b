"""Rasters of several times, or slices of one depth each, as the bands of one raster; and pixels masked by classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.model.errors import PipelineError
from pipeline.model.raster import SOURCE_BAND, Number, RasterSpec, array_shape, default_names, grid_difference, is_nan
from pipeline.model.region import Region
from pipeline.storage.georeference.recorded import Recorded, recorded_of
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Reader, Traffic, total
from pipeline.storage.view import UNSCALED, Ordered, Several, View


class Series(Several):
    """Rasters on one grid with the same bands, one after the other along the band axis (dims band, y, x)."""

    def __init__(self, name: str, entries: Sequence[Number | str], readers: Sequence[Reader]) -> None:
        """`name` is the coordinate that tells them apart (time, z), `entries` its value for each of them."""
        first = readers[0].spec
        for entry, reader in zip(entries, readers, strict=True):
            _check_alike(name, (entries[0], entry), (first, reader.spec))
        self.name, self.entries, self._num = name, tuple(entries), first.num_bands
        self.spec = series_spec(name, entries, [reader.spec for reader in readers])
        super().__init__([r if r.spec.dims == self.spec.dims else Ordered(r, self.spec.dims) for r in readers])
        if any(reader.scales for reader in readers):
            self.scales = tuple(pair for r in readers for pair in (r.scales or UNSCALED * self._num))

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        for number, places, own in self._asked(bands):
            self.readers[number].read(region, out[places], own)

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return total(self.readers[number].traffic(region, own) for number, _, own in self._asked(bands))

    def _asked(self, bands: Sequence[int] | None) -> Iterator[tuple[int, slice, list[int] | None]]:
        """Yield which raster is read for neighbouring places of what is asked for, and which bands of it."""
        wanted = range(self.spec.num_bands) if bands is None else bands
        for number, group in groupby(enumerate(wanted), lambda item: item[1] // self._num):
            places = list(group)
            own = [band % self._num for _, band in places]
            is_all = own == list(range(self._num))
            yield number, slice(places[0][0], places[-1][0] + 1), None if is_all else own

    def identity(self) -> dict[str, Any]:
        return {self.name: list(self.entries), "rasters": [reader.identity() for reader in self.readers]}

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), self.name: len(self.readers)}


def series_spec(name: str, entries: Sequence[Number | str], specs: Sequence[RasterSpec]) -> RasterSpec:
    """Return the raster of others with the same bands, one after the other: of each entry all bands."""
    first = specs[0]
    plain = first.bands == default_names(1)
    bands = [str(entry) if plain else f"{band} {entry}" for entry in entries for band in first.bands]
    if len(set(bands)) < len(bands):
        twice = next(entry for entry in entries if list(entries).count(entry) > 1)
        raise PipelineError(f"{name} {twice} is there twice", ("dates" if name == "time" else "along",))
    own: dict[str, tuple[Number | str, ...]] = {
        name: tuple(entry for entry in entries for _ in first.bands),
        SOURCE_BAND: first.bands * len(entries),
    }
    kept = tuple((key, values * len(entries)) for key, values in first.band_coordinates if key not in own)
    return replace(
        first,
        dims=("band", "y", "x"),
        bands=tuple(bands),
        band_coordinates=(*kept, *own.items()),
        recorded=_joined([recorded_of(spec) for spec in specs], first.num_bands),
    )


def _check_alike(name: str, entries: tuple[Number | str, Number | str], specs: tuple[RasterSpec, RasterSpec]) -> None:
    first, spec = specs
    words = grid_difference(first, spec)
    if not words and spec.bands != first.bands:
        words = " against ".join(", ".join(each.bands[:10]) for each in specs)
        words = f"bands {words}"
    if not words and (spec.dtype != first.dtype or repr(spec.nodata) != repr(first.nodata)):
        words = " against ".join(f"{each.dtype.name} with nodata {each.nodata}" for each in specs)
    if words:
        raise PipelineError(
            f"the rasters of {name} {entries[0]} and {entries[1]} differ: {words}; all of them must agree",
            ("dates" if name == "time" else "along",),
        )


def _joined(recorded: Sequence[Recorded], num_bands: int) -> Recorded | None:
    """Return what the files say of their bands, and the first of the place."""
    items = [
        replace(item, band=item.band + number * num_bands)
        for number, each in enumerate(recorded)
        for item in each.items
        if item.band is not None
    ]
    return Recorded(recorded[0].tags, recorded[0].nodata, tuple(items)).or_none


class Masked(View):
    """A raster whose pixels are nodata where one of some masks has one of its classes."""

    def __init__(self, reader: Reader, masks: Sequence[tuple[Reader, tuple[int, ...]]], names: Sequence[str]) -> None:
        """`masks` are rasters of one band on the reader's grid, with their classes; `names` are their names."""
        spec = reader.spec
        if spec.nodata is None and spec.dtype.kind != "f":
            raise PipelineError(
                f"the file records no nodata value, and masked pixels of {spec.dtype.name} need one: `nodata: VALUE`",
                ("mask",),
            )
        for (mask, _), name in zip(masks, names, strict=True):
            if mask.spec.dtype.kind == "f":
                raise PipelineError(
                    f"{name} is {mask.spec.dtype.name}; the classes of a mask are integers", ("mask", name)
                )
            if words := grid_difference(spec, mask.spec):
                raise PipelineError(f"{name} lies on another grid than the bands: {words}", ("mask", name))
        super().__init__(reader, spec)
        self.library_bytes = max(self.library_bytes, *(mask.library_bytes for mask, _ in masks))
        self.decoder_bytes = max(self.decoder_bytes, *(mask.decoder_bytes for mask, _ in masks))
        self.masks = tuple((mask, classes) for mask, classes in masks)
        self._fill = np.nan if spec.nodata is None or is_nan(spec.nodata) else spec.nodata

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        is_masked = self._masked(region)
        if is_masked.all():  # nothing is read of a clouded date
            out[...] = self._fill
            return
        self.reader.read(region, out, bands)
        if is_masked.any():
            planes = np.moveaxis(out, self.spec.dims.index("band"), 0) if "band" in self.spec.dims else out[np.newaxis]
            planes[:, is_masked] = self._fill

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        asked = total([self.reader.traffic(region, bands), *(mask.traffic(region) for mask, _ in self.masks)])
        return asked if asked == NO_TRAFFIC else None  # the mask tells whether the bands are read

    def _masked(self, region: Region) -> np.ndarray:
        is_masked = np.zeros(region.shape, bool)
        for mask, classes in self.masks:
            values = np.empty(array_shape(mask.spec.dims, region, 1), mask.spec.dtype)
            mask.read(region, values)
            is_masked |= np.isin(values.reshape(region.shape), classes)
        return is_masked

    def identity(self) -> dict[str, Any]:
        return {"masked": self.reader.identity(), "by": [mask.identity() for mask, _ in self.masks]}

    def evidence(self) -> list[Evidence]:
        return [*self.reader.evidence(), *(each for mask, _ in self.masks for each in mask.evidence())]
