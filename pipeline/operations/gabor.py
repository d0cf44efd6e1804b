"""Responses to a bank of Gabor filters, or the statistics of their windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, StrictBool, field_validator, model_validator

from pipeline.kernels import extreme
from pipeline.kernels.gabor import Group, bandwidth_sigma, factor_bank, gabor_kernel, kernel_reach
from pipeline.kernels.gabor_bank import Band, compute_bank, scratch_bytes
from pipeline.kernels.gabor_rows import interleave
from pipeline.model.errors import PipelineError
from pipeline.model.raster import Number, RasterSpec, largest
from pipeline.model.region import Halo, Region
from pipeline.operations.base import Block, Boundary, Edge, Operation, Specs
from pipeline.operations.checks import check_cval, check_odd, unique
from pipeline.operations.exact import require_exact
from pipeline.operations.fields import IntPair, Positive, Sigma, to_list, to_sigma
from pipeline.operations.registry import register

Statistic = Literal["mean", "var", "std"]
Response = Literal["real", "imag", "magnitude"]
Angle = Annotated[float, Field(allow_inf_nan=False)]
LARGEST_REACH = 500
"""Pixels of a kernel on each side of its centre: beyond, it could not be factored in reasonable time."""
LARGEST_BANK = 1024
"""Filters of a bank: each is compared with all others for what they share."""
Filter = tuple[float, float, tuple[float, float], float, float]
"""Frequency, orientation, sigma along and across, n_stds, offset: the parameters of `gabor_kernel`, in radians."""


def _number(value: float) -> str:
    """Return a frequency or an angle as it is written in names.

    Examples
    --------
    >>> _number(45.0), _number(0.15), _number(0.1 + 0.2)
    ('45', '0.15', '0.3')
    """
    return f"{value:.9g}"


@register
class Gabor(Operation):
    """Responses to a bank of Gabor filters, or the mean and variance of each in a window.

    A response is the true convolution with scikit-image's ``gabor_kernel``. With a `window`, the statistics are those
    of `op: window` over the response in the working dtype: beyond the raster's edge the response is continued by the
    same boundary as the input, its invalid pixels are skipped, and a pixel whose own response is invalid stays so. A
    bank multiplies the bands: bands outermost, then frequencies, then orientations.
    """

    example: ClassVar[str] = (
        "{name: texture, op: gabor, input: image, frequencies: [0.15], orientations: [0, 45, 90, 135], sigma: 5, "
        "window: 15, statistics: [mean, var]}"
    )
    outputs_text: ClassVar[Mapping[str, str]] = {
        "response": "the response, without `window`; working dtype",
        "mean": "its mean in the window; working dtype",
        "var": "its population variance in the window; working dtype",
        "std": "its standard deviation in the window; working dtype",
    }

    version: ClassVar[int] = 3

    op: Literal["gabor"]
    frequencies: Annotated[
        tuple[Positive, ...], Field(min_length=1), BeforeValidator(to_list, json_schema_input_type=float | list[float])
    ]
    """Frequencies of the waves in cycles per pixel."""
    orientations: Annotated[
        tuple[Angle, ...], Field(min_length=1), BeforeValidator(to_list, json_schema_input_type=float | list[float])
    ]
    """Directions of the waves in degrees, scikit-image's theta: 0 varies along the columns, 90 down the rows."""
    sigma: Annotated[Sigma, BeforeValidator(to_sigma, json_schema_input_type=Positive | Sigma)] | None = None
    """Standard deviation of the envelope in pixels: one number, or {along:, across:} the wave. Default: bandwidth's."""
    bandwidth: Annotated[float, Field(ge=1e-6, le=100, allow_inf_nan=False)] | None = None
    """Bandwidth in octaves, from which sigma follows for each frequency; default 1. Not together with sigma."""
    n_stds: Annotated[float, Field(ge=1e-6, le=100, allow_inf_nan=False)] = 3
    """Kernels are cut off at this many standard deviations."""
    offset: Angle = 0
    """Phase of the waves in degrees."""
    response: Response = "real"
    """Response to the real part of the kernel, to the imaginary part, or the root of the sum of their squares."""
    window: IntPair | None = None
    """Height and width of the window in pixels, both odd; one number for a square. Without: the response itself."""
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1)] | None = None
    """What to compute of the response in the window; each is an output. Default: mean."""
    boundary: Boundary = "reflect"
    """What lies beyond the edge of the raster, and of the response: scipy.ndimage's modes, or shrink (nothing: the
    response is invalid where its kernel reaches over the edge)."""
    cval: Annotated[Number, Field(allow_inf_nan=False)] | None = None
    """Value of the pixels, and of the responses, beyond the edge, for boundary: constant."""
    exact: StrictBool = False
    """Sum over the pixels of each kernel one by one. By default kernels are taken as sums of products of two vectors:
    many times faster; the weights differ by 1e-7 of their sum for float32 results and 2e-15 for float64 ones."""

    _check_numbers = field_validator("frequencies", "orientations")(unique("each value", _number))
    _check_statistics = field_validator("statistics")(unique("each value"))
    _check_window = field_validator("window")(check_odd)

    @model_validator(mode="after")
    def _check(self) -> Gabor:
        check_cval("boundary", self.boundary, self.cval)
        if self.sigma is not None and self.bandwidth is not None:
            raise PipelineError("bandwidth says what sigma is; give one of the two", ("bandwidth",))
        if self.statistics is not None and self.window is None:
            raise PipelineError("statistics are those of a window; add `window: 15`, say", ("statistics",))
        if (count := len(self.frequencies) * len(self.orientations)) > LARGEST_BANK:
            raise PipelineError(
                f"{len(self.frequencies):,} frequencies and {len(self.orientations):,} orientations are {count:,} "
                f"filters, and a bank has at most {LARGEST_BANK:,}; take fewer, or several steps",
                ("frequencies",),
            )
        for number, frequency in enumerate(self.frequencies):
            self._check_size(frequency, ("frequencies", number))
        return self

    def _check_size(self, frequency: float, place: tuple[str | int, ...]) -> None:
        sigma = self._sigma(frequency)
        reach = max(max(kernel_reach(math.radians(o), sigma, self.n_stds)) for o in self.orientations)
        if reach > LARGEST_REACH:
            remedy = "raise the frequency or the bandwidth" if self.sigma is None else "lower sigma"
            raise PipelineError(
                f"the kernel of frequency {_number(frequency)} has {2 * reach + 1} rows or columns, and at most "
                f"{2 * LARGEST_REACH + 1} can be computed; {remedy}, lower n_stds, or take a coarser image",
                place,
            )

    def _sigma(self, frequency: float) -> tuple[float, float]:
        if self.sigma is not None:
            return self.sigma.along, self.sigma.across
        sigma = bandwidth_sigma(self.bandwidth or 1.0, frequency)
        return sigma, sigma

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters of the bank: frequencies outermost, then orientations."""
        offset = math.radians(self.offset)
        return tuple(
            (frequency, math.radians(orientation), self._sigma(frequency), self.n_stds, offset)
            for frequency in self.frequencies
            for orientation in self.orientations
        )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return ("response",) if self.window is None else self.statistics or ("mean",)

    def _groups(self, dtype: np.dtype) -> tuple[Group, ...]:
        return _bank(self.filters, self.response, dtype.name, self.exact)

    @property
    def _reach(self) -> Halo:
        reaches = [kernel_reach(theta, sigma, n_stds) for _, theta, sigma, n_stds, _ in self.filters]
        return Halo.around(max(rows for rows, _ in reaches), max(columns for _, columns in reaches))

    @property
    def _margin(self) -> Halo:
        height, width = self.window or (1, 1)
        return Halo.around(height // 2, width // 2)

    def halo(self, specs: Specs) -> dict[str, Halo]:
        return {"input": self._reach + self._margin}

    def edges(self, specs: Specs) -> dict[str, Edge]:
        return {"input": Edge("invalid" if self.boundary == "shrink" else self.boundary, self.cval or 0)}

    def notes(self, specs: Specs) -> Iterator[str]:
        above = [_number(frequency) for frequency in self.frequencies if frequency > 0.5]
        if above:
            yield f"frequency {', '.join(above)} is above half a cycle per pixel: pixels show a slower wave instead"

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        source = specs["input"]
        require_exact(self, source)
        bank = [(frequency, orientation) for frequency in self.frequencies for orientation in self.orientations]
        dims = source.dims if "band" in source.dims or len(bank) == 1 else ("band", "y", "x")
        spec = replace(
            source,
            dtype=self.working_dtype(source.dtype),
            dims=dims,
            nodata=float("nan") if source.can_be_invalid or self.boundary == "shrink" else None,
            bands=tuple(f"{band} f={_number(f)} o={_number(o)}" for band in source.bands for f, o in bank),
            band_coordinates=_coordinates(source, bank) if "band" in dims else (),
        )
        return dict.fromkeys(self.wanted, spec)

    def limits(self, specs: Specs) -> dict[str, float]:
        # the absolute weights of a kernel sum to 1, but for what the grid of pixels makes of a narrow one
        most = 2 * max(largest(specs["input"].dtype), abs(self.cval or 0))
        return {name: most**2 if name == "var" else most for name in self.wanted}

    def _tile(self, interleaved: bool) -> tuple[int, int]:
        """Return the rows and columns that are computed at a time: each tile computes its margins anew."""
        reach, margin = self._reach, self._margin
        rows, columns = (128, 512) if interleaved else (256, 1024)
        return max(rows, 8 * margin.top), max(columns, 8 * (reach.left + margin.left))

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        spec = next(iter(self.output_specs(specs).values()))
        interleaved = spec.dims[-1] == "band"
        rows, columns = (min(pair) for pair in zip(shape, self._tile(interleaved), strict=True))
        filters = scratch_bytes(self._groups(spec.dtype), (rows, columns), self.window, spec.dtype)
        reach = self._reach + self._margin
        filters += extreme.scratch_bytes(spec.dtype, reach, 1, len(self.wanted) * len(self.filters))
        if not interleaved:
            return filters
        results = rows * columns * len(self.filters) * len(self.wanted)
        around = Region(0, rows, 0, columns).grow(self._margin).grow(self._reach)
        return filters + (results + around.num_pixels) * spec.dtype.itemsize

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        source = blocks["input"]
        interleaved = source.dims[-1] == "band"
        rows, columns = self._tile(interleaved)
        for top in range(region.top, region.bottom, rows):
            for left in range(region.left, region.right, columns):
                tile = Region(top, min(top + rows, region.bottom), left, min(left + columns, region.right))
                for band in range(source.lanes if interleaved else len(source.planes())):
                    compute = self._compute_interleaved if interleaved else self._compute_plane
                    compute(source, band, out, tile)

    def _compute_plane(self, source: Block, band: int, out: Mapping[str, Block], tile: Region) -> None:
        num = len(self.filters)
        planes = {name: block.planes()[band * num : (band + 1) * num] for name, block in out.items()}
        corner = next(iter(out.values())).origin
        self._compute(source, source.planes()[band], source.origin, planes, corner, tile)

    def _compute_interleaved(self, source: Block, band: int, out: Mapping[str, Block], tile: Region) -> None:
        """Compute one band of ``y, x, band`` in planes of its own."""
        num = len(self.filters)
        around = tile.grow(self._margin).grow(self._reach)
        plane = np.ascontiguousarray(source.values[(*around.slices(source.origin), band)])
        planes = {name: np.empty((num, *tile.shape), plane.dtype) for name in out}
        self._compute(source, plane, (around.top, around.left), planes, (tile.top, tile.left), tile)
        for name, block in out.items():
            place = (tile.top - block.origin[0], tile.left - block.origin[1], band * num)
            interleave(planes[name], block.values, place)

    def _compute(
        self,
        source: Block,
        plane: np.ndarray,
        origin: tuple[int, int],
        out: Mapping[str, np.ndarray],
        corner: tuple[int, int],
        tile: Region,
    ) -> None:
        """Compute all filters of one band over a tile."""
        rule, cval = ("constant", math.nan) if self.boundary == "shrink" else (self.boundary, self.cval or 0)
        band = Band(plane, origin, source.raster, rule, cval, self.window)
        compute_bank(self._groups(plane.dtype), band, out, corner, tile)


@lru_cache(maxsize=256)
def _bank(filters: tuple[Filter, ...], response: Response, dtype: str, exact: bool) -> tuple[Group, ...]:
    parts = {"real": ("real",), "imag": ("imag",), "magnitude": ("real", "imag")}[response]
    kernels = [gabor_kernel(*parameters) for parameters in filters]
    return factor_bank([tuple(getattr(kernel, part) for part in parts) for kernel in kernels], np.dtype(dtype), exact)


def _coordinates(
    source: RasterSpec, bank: list[tuple[float, float]]
) -> tuple[tuple[str, tuple[Number | str, ...]], ...]:
    """Return the coordinates along the bands: those of the source repeated, and which filter made each."""
    num, known = len(source.bands), dict(source.band_coordinates)
    # of a series, whose bands are those of many dates; those of a bank are told apart by their names alone
    bands = known["source_band"] if "source_band" in known and "frequency" not in known else source.bands
    own: dict[str, tuple[Number | str, ...]] = {
        "frequency": tuple(frequency for frequency, _ in bank) * num,
        "orientation": tuple(orientation for _, orientation in bank) * num,
        "source_band": tuple(band for band in bands for _ in bank),
    }
    kept = tuple(
        (name, tuple(value for value in values for _ in bank))
        for name, values in source.band_coordinates
        if name not in own
    )
    return kept + tuple(own.items())
