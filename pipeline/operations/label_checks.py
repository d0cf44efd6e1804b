"""What `label_stats` refuses: labels that are none, and values of which a statistic would not be exact; its mask."""

from __future__ import annotations

import numpy as np

from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.operations.base import Block, Operation
from pipeline.operations.exact import require_exact
from pipeline.operations.label_values import Selection


def check_labels(name: str, labels: RasterSpec) -> None:
    """Refuse a label raster (the one called `name`) that is not one band of integers."""
    if labels.dtype.kind == "f":
        raise PipelineError(
            f"labels are whole numbers, {name!r} is {labels.dtype.name}; cast it first: {{op: cast, dtype: int32}}",
            ("labels",),
        )
    if labels.num_bands != 1:
        raise PipelineError(
            f"a label raster has one band, {name!r} has {labels.num_bands} "
            f"({', '.join(labels.bands[:4])}, ...); pick one with {{op: select, bands: [1]}}",
            ("labels",),
        )


def check_values(operation: Operation, source: RasterSpec, selection: Selection) -> None:
    """Refuse to round 64-bit integers, and to count the different values of more than 16 bits."""
    if selection.fractions:
        require_exact(operation, source)
    if selection.counted and source.dtype.itemsize > 2:
        raise PipelineError(
            f"{selection.counted[0]} is for 8 and 16 bits, the input is {source.dtype.name}; cast it first: "
            "{op: cast, dtype: int16}",
            ("statistics",),
        )


def labels_valid(labels: Block, ignore: tuple[int, ...]) -> np.ndarray | None:
    """Return where there are labels: where they are valid, and none of those to ignore that only uint64 holds."""
    mask = None if labels.valid is None else labels.planes(labels.valid)[0]
    large = [label for label in ignore if 2**63 <= label < 2**64]
    if not large or labels.values.dtype != np.uint64:
        return mask
    plane = labels.planes()[0]
    kept: np.ndarray = np.ones(plane.shape, bool) if mask is None else mask.copy()
    for label in large:
        kept &= plane != np.uint64(label)
    return kept
