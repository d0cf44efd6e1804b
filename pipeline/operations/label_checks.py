"""What `label_stats` refuses: labels and weights that are none, values of which a statistic would not be exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.kernels.label_geometry import SHAPES
from pipeline.kernels.label_weights import MOMENTS
from pipeline.model.errors import PipelineError
from pipeline.model.raster import LAYER, RasterSpec
from pipeline.model.table import TableSpec
from pipeline.operations.base import Operation
from pipeline.operations.exact import require_exact
from pipeline.operations.label_values import Selection

_WEIGHABLE = frozenset({*MOMENTS, "min", "max", "range", "centroid", "bbox", *SHAPES})
"""What is computed with weights; of these the geometry is of all pixels that bear a label."""

MOST_FIELDS = 1900
"""Columns of a GeoPackage beside attributes: SQLite has up to 2000."""


def check_labels(name: str, labels: RasterSpec, are_painted: bool) -> None:
    """Refuse a label raster (the one called `name`) that is not one band of integers, or layers of them, unpainted."""
    if labels.dtype.kind == "f":
        raise PipelineError(
            f"labels are whole numbers, {name!r} is {labels.dtype.name}; cast it first: {{op: cast, dtype: int32}}",
            ("labels",),
        )
    if labels.num_bands != 1 and LAYER not in dict(labels.band_coordinates):
        raise PipelineError(
            f"a label raster has one band, {name!r} has {labels.num_bands} "
            f"({', '.join(labels.bands[:4])}, ...); pick one with {{op: select, bands: [1]}}",
            ("labels",),
        )
    if labels.num_bands != 1 and are_painted:
        raise PipelineError(
            f"paints a pixel with one label, and those of {name!r} overlap in {labels.num_bands} layers; take one of "
            "each pixel (polygons: `overlap: last`)",
            ("recolor",),
        )


def check_weights(
    operation: Operation, name: str, weights: RasterSpec, layers: int, wanted: Mapping[str, Sequence[str]]
) -> None:
    """Refuse weights (the raster called `name`) that do not fit the labels, and what is not computed with any.

    Wanted are the parameters and what each asks for.
    """
    if weights.num_bands not in (1, layers):
        bands = "one band" if layers == 1 else f"one band or {layers}, as the labels"
        raise PipelineError(
            f"weights have {bands}, {name!r} has {weights.num_bands}; pick one with {{op: select, bands: [1]}}",
            ("weights",),
        )
    require_exact(operation, weights)
    if others := [(key, name) for key, names in wanted.items() for name in names if name not in _WEIGHABLE]:
        raise PipelineError(
            f"with weights there is no {', '.join(name for _, name in others)}; leave that out, or weigh nothing "
            "(polygons: `cover: centre` or `all_touched`)",
            others[0][:1],
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


def check_fields(spec: TableSpec, table: str | None) -> None:
    """Refuse a GeoPackage of more columns than one can have, or of such as differ by capitals alone."""
    if table is None or not table.endswith(".gpkg"):
        return
    names = [name for each in spec.flat_names.values() for name in each]
    if len(names) > MOST_FIELDS:
        raise PipelineError(
            f"the table has {len(names):,} columns ({len(spec.bands)} bands), and a .gpkg up to {MOST_FIELDS:,}; write "
            "a .parquet, or take fewer bins or `bands`",
            ("table",),
        )
    folded = Counter(name.casefold() for name in names)
    if alike := [name for name in names if folded[name.casefold()] > 1]:
        raise PipelineError(
            f"columns of a .gpkg differ by more than capitals, and {', '.join(alike[:2])} do not; write a .parquet, or "
            "choose other `bands`",
            ("table",),
        )
