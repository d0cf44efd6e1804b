"""Readers made of readers: some bands, other nodata, scaled pixels, several rasters as the bands of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.model.errors import PipelineError
from pipeline.model.raster import Dims, RasterSpec, default_names, grid_difference, name_bands, working_dtype
from pipeline.model.region import Region
from pipeline.storage.georeference.geotiff import unit_items
from pipeline.storage.georeference.recorded import Recorded, recorded_of
from pipeline.storage.reader import Evidence, Reader, Scales, Traffic, total


class View(Reader):
    """A raster made of another one, which lies in the same files."""

    def __init__(self, reader: Reader, spec: RasterSpec) -> None:
        self.reader, self.spec, self.chunk, self.scales = reader, spec, reader.chunk, reader.scales
        self.compile_decoder = reader.compile_decoder
        self.library_bytes, self.decoder_bytes = reader.library_bytes, reader.decoder_bytes

    def identity(self) -> dict[str, Any]:
        return self.reader.identity()

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return self.reader.traffic(region, bands)

    def evidence(self) -> list[Evidence]:
        return self.reader.evidence()

    def describe(self) -> dict[str, Any]:
        return self.reader.describe()


class Selected(View):
    """A reader with some of its bands (indices from 0), or with another nodata; `said` are further warnings."""

    def __init__(
        self,
        reader: Reader,
        bands: Sequence[int] | None = None,
        spec: RasterSpec | None = None,
        said: tuple[str, ...] = (),
    ) -> None:
        """`spec` is that of the bands, by default as the reader has it."""
        super().__init__(reader, spec or reader.spec.pick(bands or ()))
        self.chunk_bands = reader.chunk_bands
        self.bands, self._said = None if bands is None else tuple(bands), said
        if bands is not None and self.scales:
            self.scales = tuple(self.scales[band] for band in bands)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        self.reader.read(region, out, self._own(bands))

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return self.reader.traffic(region, self._own(bands))

    def _own(self, bands: Sequence[int] | None) -> Sequence[int] | None:
        """Return bands as the reader counts them."""
        if bands is None or self.bands is None:
            return self.bands if bands is None else tuple(bands)
        return tuple(self.bands[i] for i in bands)

    def describe(self) -> dict[str, Any]:
        facts = self.reader.describe()
        return facts | {"warnings": [*facts.get("warnings", []), *self._said]}


class Ordered(View):
    """A reader with its dims in another order; of a single band with or without a dim for it."""

    def __init__(self, reader: Reader, dims: Dims) -> None:
        super().__init__(reader, replace(reader.spec, dims=dims))

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        own, stored = self.spec.dims, self.reader.spec.dims
        planes = np.moveaxis(out, own.index("band"), 0) if "band" in own else out[np.newaxis]
        self.reader.read(region, np.moveaxis(planes, 0, stored.index("band")) if "band" in stored else planes[0], bands)


class Scaled(View):
    """A reader whose pixels are stored * factor + offset of their band, invalid ones as NaN.

    Their dtype is the working dtype, or float64.
    """

    def __init__(self, reader: Reader, applied: Scales, is_wide: bool = False) -> None:
        self._applied, stored = np.array(applied), reader.spec.dtype
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
        nodata = None if reader.spec.nodata is None else float("nan")
        recorded = recorded_of(reader.spec)
        units = unit_items(recorded.items) if tuple(applied) == tuple(reader.scales) else ()  # of the file's own scale
        recorded = Recorded(recorded.tags, items=units)
        dtype = np.dtype(np.float64) if is_wide else working_dtype(stored)
        super().__init__(reader, replace(reader.spec, dtype=dtype, nodata=nodata, recorded=recorded.or_none))
        self.scales = ()

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


UNSCALED = ((1.0, 0.0),)


READER_BYTES = 2**14
"""What an open raster takes: 10 KiB measured of small TIFFs."""


class Several(Reader):
    """A raster made of several, each in files of its own."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers, self.chunk = tuple(readers), readers[0].chunk
        self.compile_decoder = next((r.compile_decoder for r in readers if r.compile_decoder), None)
        self.chunk_bands = max(reader.chunk_bands or reader.spec.num_bands for reader in readers)
        self.library_bytes = max(reader.library_bytes for reader in readers) + READER_BYTES * len(readers)
        self.decoder_bytes = max(reader.decoder_bytes for reader in readers)

    def evidence(self) -> list[Evidence]:
        return [evidence for reader in self.readers for evidence in reader.evidence()]

    def describe(self) -> dict[str, Any]:
        facts = [reader.describe() for reader in self.readers]
        warnings = list(dict.fromkeys(text for fact in facts for text in fact.get("warnings", [])))
        return {**facts[0], "warnings": warnings}


class Stack(Several):
    """Several rasters of one band on one grid, as the bands of one raster (dims band, y, x)."""

    def __init__(self, readers: Sequence[Reader], names: Sequence[str]) -> None:
        super().__init__(readers)
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
        matched = ((name, reader.describe().get("matched")) for name, reader in zip(names, readers, strict=True))
        self._warnings = [f"{name}: {words}" for name, words in matched if words]
        names = name_bands(names, default_names(len(names)), self._warnings)
        recorded = _stacked([recorded_of(reader.spec) for reader in readers])
        self.spec = replace(first, dims=("band", "y", "x"), bands=tuple(names), band_coordinates=(), recorded=recorded)
        if any(reader.scales for reader in readers):
            self.scales = tuple((reader.scales or UNSCALED)[0] for reader in readers)

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        for plane, index in enumerate(range(len(self.readers)) if bands is None else bands):
            reader = self.readers[index]
            axis = reader.spec.dims.index("band") if "band" in reader.spec.dims else None
            reader.read(region, out[plane] if axis is None else np.expand_dims(out[plane], axis))

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        wanted = range(len(self.readers)) if bands is None else bands
        return total(self.readers[index].traffic(region) for index in wanted)

    def identity(self) -> dict[str, Any]:
        return {"stack": [reader.identity() for reader in self.readers]}

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        return {**facts, "files": len(self.readers), "warnings": [*self._warnings, *facts["warnings"]]}


def _stacked(recorded: Sequence[Recorded]) -> Recorded | None:
    """Return what the files say of their bands, and the first of the place."""
    items = [replace(item, band=band) for band, each in enumerate(recorded) for item in each.items if item.band == 0]
    return Recorded(recorded[0].tags, recorded[0].nodata, tuple(items)).or_none
