"""The histogram that `label_stats` has of labels: which bins, by their edges, and the columns that they make."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.operations.fields import Count

MOST_BINS = 65_536
AUTOMATIC = 256
"""Bins of 8 and 16 bits, over the dtype's range."""

Edge = Annotated[float, Field(allow_inf_nan=False)]


class Bins(BaseModel):
    """Bins of a histogram: their edges, or so many equal ones over a range."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    edges: Annotated[tuple[Edge, ...], Field(min_length=2, max_length=MOST_BINS + 1)] | None = None
    """Ascending; one more than bins."""
    bins: Annotated[Count, Field(le=MOST_BINS)] | None = None
    """How many equal bins, over `range`."""
    range: tuple[Edge, Edge] | None = None
    """The first edge and the last."""

    @model_validator(mode="after")
    def _check(self) -> Bins:
        if (self.edges is None) == (self.bins is None) or (self.bins is None) != (self.range is None):
            raise ValueError("give {edges: [0, 10, 20]}, or {bins: 20, range: [0, 100]}")
        ends = self.edges or self.range or ()
        for first, second in itertools.pairwise(ends):
            if not first < second:
                raise ValueError(f"edges must ascend, got {first:g} before {second:g}")
        return self


Histogram = Bins | Literal["auto"]


def edges_of(histogram: Histogram | None, source: RasterSpec) -> np.ndarray:
    """Return the edges of the bins, float64, as numpy.histogram has them for this dtype; none without a histogram."""
    dtype = source.dtype
    if histogram is None:
        return np.zeros(0)
    if dtype.kind != "f" and dtype.itemsize > 4:
        raise PipelineError(
            f"histograms are of up to 32 bits and of floating point, the input is {dtype.name}; cast it first: "
            "{op: cast, dtype: int32}",
            ("histogram",),
        )
    if isinstance(histogram, Bins) and histogram.edges is not None:
        return np.array(histogram.edges)
    if isinstance(histogram, Bins):
        assert histogram.bins is not None
        assert histogram.range is not None
        return _equal(np.dtype(np.float32) if dtype == np.float16 else dtype, histogram.bins, histogram.range)
    if dtype.itemsize > 2 or dtype.kind == "f":
        raise PipelineError(
            f"automatic bins are for 8 and 16 bits, the input is {dtype.name}; say which, "
            "`histogram: {bins: 100, range: [0, 1]}` or {edges: [...]}",
            ("histogram",),
        )
    lowest, size = int(np.iinfo(dtype).min), 256**dtype.itemsize
    edges: np.ndarray = lowest + np.arange(AUTOMATIC + 1) * (size / AUTOMATIC)
    return edges


def num_bins(edges: np.ndarray) -> int:
    return max(len(edges) - 1, 0)


def _equal(dtype: np.dtype, num: int, ends: tuple[float, float]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            edges: np.ndarray = np.histogram_bin_edges(np.zeros(0, dtype), num, ends).astype(np.float64)
        except ValueError:
            edges = np.zeros(0)
    if not edges.size or not np.isfinite(edges).all():
        raise PipelineError(
            f"{num} bins from {ends[0]:.9g} to {ends[1]:.9g} have no edges of their own in {dtype.name}; take fewer, "
            "or subtract what all values share",
            ("histogram",),
        )
    return edges
