"""Statistics of the pixels that bear each label, and the raster painted with them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StrictInt, StrictStr, field_validator, model_validator

from pipeline.kernels.label_columns import finish, lookup
from pipeline.kernels.label_counts import ROW_BYTES as COUNT_BYTES
from pipeline.kernels.label_counts import merge_counts
from pipeline.kernels.label_table import LabelTable, merge
from pipeline.kernels.label_width import Width, merged_bytes, width_of, width_of_dtype
from pipeline.model.errors import PipelineError
from pipeline.model.raster import SAME, RasterSpec, holds, largest
from pipeline.model.region import Halo, Region
from pipeline.model.table import Table, TableSpec
from pipeline.operations import label_shapes
from pipeline.operations.base import Block, Domain, Operation, Reduction, Specs
from pipeline.operations.checks import unique
from pipeline.operations.difference import Spacing, check_spacing, placed_by_geo
from pipeline.operations.exact import keep_dtype, require_exact
from pipeline.operations.fields import Percentile, percentile_name
from pipeline.operations.label_bytes import WEIGHTED, row_bytes
from pipeline.operations.label_checks import check_fields, check_labels, check_values, check_weights
from pipeline.operations.label_histogram import Histogram, edges_of, num_bins
from pipeline.operations.label_layers import ignored, label_layers, layer_table, patch_of
from pipeline.operations.label_shapes import MEASURED, Geometry, check_geometry
from pipeline.operations.label_values import COUNTED, Selection
from pipeline.operations.registry import register
from pipeline.operations.traits import HasUnits, NeedsGrid, WritesTableFiles
from pipeline.storage.tables import STRIPE_BYTES, StoredTable

Statistic = Literal["count", "sum", "mean", "var", "std", "min", "max", "range", "median", "mode", "variety"]
WHOLE = ("count", "variety", "min", "max", "mode")
LOOKED_BYTES = 2**20
"""Of a partial table, from which on the values are looked at to know how wide their sums are."""


@register
class LabelStats(HasUnits, NeedsGrid, WritesTableFiles, Reduction):
    """Zonal statistics: of all pixels that bear one label, as a table, and on request each pixel given its label's.

    Labels are integers of any dtype, sparse, negative, scattered as they may be; an invalid label is none. Invalid
    pixels (nodata, NaN, inf) count for `pixels` only. Sums are exact, so the table has the same bits for every layout.
    Reference: scipy.ndimage.mean, variance and kin, numpy.bincount, on the whole raster.
    """

    domain: ClassVar[Domain] = "native"
    row_key: ClassVar[str | None] = "label"
    painted_from: ClassVar[frozenset[str] | None] = frozenset({"labels"})
    example: ClassVar[str] = (
        "{name: zones, op: label_stats, input: image, labels: labels, statistics: [mean], recolor: [mean]}"
    )
    outputs_text: ClassVar[Mapping[str, str]] = {
        "table": "label (int64, sorted), pixels (int64), and by label and band count, variety (int64), sum, mean, var, "
        "std, range, median, mode, percentiles (p10), min, max (float64; min and max of 64-bit integers their dtype, "
        "and without a valid value their nodata); histogram (label, band, bin; int64); geometry by label",
        "mean": "with recolor: the raster, each pixel its label's mean; working dtype (so sum, var, std, range, "
        "median, p10; float64 for sums of integers)",
        "min": "with recolor; the input's dtype (so max, mode); floating point where an integer has none for nodata",
        "count": "with recolor; uint32 (so variety), with weights float64",
    }

    version: ClassVar[int] = 4

    op: Literal["label_stats"]
    labels: StrictStr
    """The label raster: an input, a step with one raster output, or step/output. One band of integers; of polygons
    that overlap, layers of them."""
    weights: StrictStr | None = None
    """A raster of what each pixel's values count, 0 or more, in count (the sum of weights), sum, mean, var and std; of
    min, max and range pixels of weight 0 are left out, and so are those without a valid weight. One band, or as many as
    `labels`. Default: all count 1; of polygons of `cover: fraction` their shares."""
    statistics: tuple[Statistic, ...] = ("mean",)
    """What to compute for each label and band; var and std are the population's. mode (the most frequent value, of
    equals the smallest) and variety (how many different values) are for 8 and 16 bits."""
    percentiles: Annotated[tuple[Percentile, ...], Field(max_length=100)] = ()
    """Percentiles to compute, from 0 to 100; [10, 90] are the columns p10 and p90. Statistics may be [] then."""
    histogram: Histogram | None = None
    """Counts of valid values by bin, as numpy.histogram: {edges: [0, 10, 20]}, {bins: 20, range: [0, 100]}, or auto:
    256 bins over the dtype's range, of 8 bits one for each value, of 16 bits one for 256 values."""
    geometry: tuple[Geometry, ...] = ()
    """centroid (mean row and column, pixel centres at whole numbers), centroid_weighted (by the values of each band)
    and bbox (first row, end, first column, end); area, perimeter, major_axis, minor_axis, orientation (radians),
    eccentricity and equivalent_diameter as scikit-image's regionprops."""
    spacing: Spacing | None = None
    """Height and width of a pixel, or one number for both, in whose unit area, perimeter, axes and diameters are; or
    geo: metres, or a microscope's micrometres, as for gradient. Default: pixels."""
    ignore: tuple[StrictInt, ...] = ()
    """Labels that count as none, [0] for a background."""
    recolor: tuple[StrictStr, ...] = ()
    """Statistics and percentiles (p10) that the raster is painted with; each is an output. Pixels without a label
    become invalid."""
    table: StrictStr | None = None
    """A .parquet or .csv file to write the table to as well; relative to the pipeline file. Where labels are polygons
    it has a row for each with its attributes, and may be a .gpkg or .geojson; these and .parquet have geometries."""

    _check_unique = field_validator("statistics", "geometry", "recolor")(unique("each"))
    _check_percentiles = field_validator("percentiles")(unique("each percentile", percentile_name))
    _check_spacing = field_validator("spacing")(check_spacing)

    @model_validator(mode="after")
    def _check(self) -> LabelStats:
        if not self._names and self.histogram is None:
            raise PipelineError("must name a statistic, or there must be `percentiles:`, `histogram:`", ("statistics",))
        missing = [name for name in self.recolor if name not in self._names]
        if missing:
            raise PipelineError(
                f"{missing[0]} is not among the statistics ({', '.join(self._names)}); add it there", ("recolor",)
            )
        if self.spacing is not None and not set(self.geometry) & set(MEASURED):
            raise PipelineError(f"is for `geometry:` {', '.join(MEASURED)}; none is asked for", ("spacing",))
        if self.table is not None and not self.table.endswith((".parquet", ".csv", ".gpkg", ".geojson")):
            raise PipelineError(f"must end in .parquet, .csv, .gpkg or .geojson, got {self.table!r}", ("table",))
        return self

    @property
    def _names(self) -> tuple[str, ...]:
        """The columns by label and band."""
        return (*self.statistics, *map(percentile_name, self.percentiles))

    @property
    def _in_table(self) -> tuple[str, ...]:
        """What partial tables of the first sweep are to hold."""
        return (*self.statistics, *self.geometry)

    @property
    def _selection(self) -> Selection:
        percents = {"median": 50.0} if "median" in self.statistics else {}
        percents |= {percentile_name(percentile): percentile for percentile in self.percentiles}
        counted = tuple(name for name in COUNTED if name in self.statistics)
        return Selection({name: percent / 100 for name, percent in percents.items()}, counted)

    def placed(self, specs: Specs, notes: list[str]) -> Operation:
        return placed_by_geo(self, specs["input"], notes) if self.spacing == "geo" else self

    def table_files(self) -> dict[str, str]:
        return {} if self.table is None else {"table": self.table}

    def sources(self) -> dict[str, str | None]:
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"input": self.input, "labels": self.labels, **weights}

    def output_specs(self, specs: Specs) -> dict[str, RasterSpec]:
        check_labels(self.labels, specs["labels"], bool(self.recolor))
        if self.weights is not None:
            wanted: dict[str, Sequence[str]] = {"statistics": self.statistics, "geometry": self.geometry}
            wanted |= {"percentiles": self._names[len(self.statistics) :]}
            wanted |= {} if self.histogram is None else {"histogram": ["histogram"]}
            check_weights(self, self.weights, specs["weights"], specs["labels"].num_bands, wanted)
            require_exact(self, specs["input"])
        check_values(self, specs["input"], self._selection)
        if self.geometry:
            check_geometry(self.geometry, specs["input"], self.spacing)
        check_fields(self.table_spec(specs), self.table)
        return {name: self._output(name, specs["input"]) for name in self.recolor}

    def _output(self, name: str, source: RasterSpec) -> RasterSpec:
        if name == "count" and self.weights is not None:
            return replace(source, dtype=np.dtype(np.float64), nodata=float("nan"))
        if name in ("count", "variety"):
            return replace(source, dtype=np.dtype(np.uint32), nodata=None)
        if name in ("min", "max", "mode"):
            return keep_dtype(self, source, can_be_invalid=True)  # where a pixel has no label
        if name == "range":
            require_exact(self, source)
        is_wide = name == "sum" and source.dtype.kind != "f"
        dtype = np.dtype(np.float64) if is_wide else self.working_dtype(source.dtype)
        return replace(source, dtype=dtype, nodata=float("nan"))

    def units(self) -> dict[str, str]:
        return {name: SAME for name in self.recolor if name not in ("var", "count", "variety")}

    def limits(self, specs: Specs) -> dict[str, float]:
        source = specs["input"]
        most = largest(source.dtype) if self.weights is None else largest(np.dtype(np.float64))
        larger = {"sum": most * source.height * source.width, "var": most**2, "range": 2 * most}
        return {name: larger.get(name, most) for name in self.recolor if name not in WHOLE}

    def table_spec(self, specs: Specs) -> TableSpec:
        columns: dict[str, tuple[str, ...]] = {"label": ("label",), "pixels": ("label",)}
        columns |= dict.fromkeys(self._names, ("label", "band"))
        columns |= label_shapes.column_dims(self.geometry)
        columns |= {} if self.histogram is None else {"histogram": ("label", "band", "bin")}
        edges = tuple(edges_of(self.histogram, specs["input"]).tolist())
        return TableSpec(columns, specs["input"].bands, edges=edges)

    def sweep_halo(self, specs: Specs) -> dict[str, Halo]:
        return {"labels": label_shapes.sweep_halo(self.geometry)}

    def partial_bytes(self, specs: Specs, num_pixels: int) -> int:
        num_rows: int = min(num_pixels, 2 ** (8 * specs["labels"].dtype.itemsize))
        num_bands = specs["input"].num_bands
        counts = num_pixels * (num_bands + 1) * COUNT_BYTES if self._selection else 0
        width, edges = width_of_dtype(specs["input"].dtype), edges_of(self.histogram, specs["input"])
        row = self._row_bytes(num_bands, width, edges, WEIGHTED)
        return specs["labels"].num_bands * max(num_rows * row, counts)

    def num_sweeps(self, specs: Specs) -> int:
        return 1 + self._selection.num_sweeps(specs["input"].dtype)

    def _row_bytes(self, num_bands: int, width: Width, edges: np.ndarray, weights: Width) -> int:
        return row_bytes(self._in_table, num_bands, width, num_bins(edges), None if self.weights is None else weights)

    def most_bytes(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> int:
        labels, source = blocks["labels"], blocks["input"]
        layers = labels.by_band()[(slice(None), *region.slices(labels.origin))]
        num_bands = len(source.planes()) * source.lanes
        if sweep:
            return len(layers) * region.num_pixels * (num_bands + 1) * COUNT_BYTES
        num_rows: int = sum(min(part.size, int(part.max()) - int(part.min()) + 1) for part in layers)
        most: int = num_rows * self._row_bytes(num_bands, width_of_dtype(source.values.dtype), state["edges"], WEIGHTED)
        if most <= LOOKED_BYTES:
            return most
        weights = blocks.get("weights")
        weighted = WEIGHTED if weights is None else width_of(weights.planes(), patch_of(labels, weights, region))
        width = width_of(source.planes(), patch_of(labels, source, region))
        return num_rows * self._row_bytes(num_bands, width, state["edges"], weighted)

    def partial(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Table:
        return functools.reduce(lambda a, b: self.merge(a, b, sweep), self._partials(blocks, state, sweep, region))

    def _partials(self, blocks: Mapping[str, Block], state: Table, sweep: int, region: Region) -> Iterator[Table]:
        """Yield the partial table of each layer."""
        labels, source = blocks["labels"], blocks["input"]
        for layer, (plane, mask) in enumerate(label_layers(labels, self.ignore)):
            if not sweep:
                wanted = self._in_table, state["edges"]
                yield layer_table(self.name, wanted, (layer, plane, mask), blocks, ignored(self.ignore), region)
                continue
            there = region.slices(labels.origin)
            own = None if mask is None else mask[there]
            yield self._selection.count(plane[there], own, source, patch_of(labels, source, region), state, sweep - 1)

    def start(self, specs: Specs) -> Table:
        source = specs["input"]
        is_named = self.nodata is not None and holds(source.dtype, self.nodata)
        unknown = self.nodata if is_named else source.nodata
        return {
            "num_bands": np.array(source.num_bands),
            "unknown": np.array(unknown or 0, source.dtype),
            "edges": edges_of(self.histogram, source),
        }

    def merge(self, first: Table, second: Table, sweep: int) -> Table:
        if not len(first["label"]) or not len(second["label"]):
            return first if len(first["label"]) else second
        if sweep:
            return merge_counts(first, second)
        num_bands = int(first["bands"][0])
        return merge([LabelTable.from_columns(table, num_bands) for table in (first, second)]).to_columns()

    def merged_bytes(self, tables: Sequence[Table]) -> int:
        return self._selection.merged_bytes(tables) if "place" in tables[0] else merged_bytes(tables)

    def fold(self, partial: Table, state: Table, sweep: int) -> Table:
        if sweep:
            return self._selection.fold(partial, state, sweep - 1)
        table = LabelTable.from_columns(partial, int(state["num_bands"]))
        columns = {"label": table.labels, "pixels": table.pixels}
        sides = self.spacing if isinstance(self.spacing, tuple) else (1.0, 1.0)
        found = finish(table, self._in_table, state["unknown"], sides)
        columns |= {name: found[name] for name in (*self.statistics, "histogram") if name in found}
        columns |= dict(label_shapes.columns(found, self.geometry))
        return columns | self._selection.begin(table.counts, state["unknown"]) if self._selection else columns

    def scratch_bytes(self, specs: Specs, shape: tuple[int, int]) -> int:
        # the values of the block's labels: as many labels as pixels at worst
        num_rows: int = min(shape[0] * shape[1], 2 ** (8 * specs["labels"].dtype.itemsize))
        row = 48 + 16 * specs["input"].num_bands
        masks = 2 * shape[0] * shape[1] if specs["labels"].dtype == np.uint64 else 0
        return num_rows * (row + 24 + 8 * specs["input"].num_bands * len(self.recolor)) + 3 * STRIPE_BYTES + masks

    def apply(
        self, blocks: Mapping[str, Block], tables: Mapping[str, Any], out: Mapping[str, Block], region: Region
    ) -> None:
        labels, table = blocks["labels"], tables["self"]
        ((plane, mask),) = label_layers(labels, self.ignore)
        if isinstance(table, StoredTable):
            part = plane[region.slices(labels.origin)]
            table = table.select("label", np.unique(part.astype(np.int64)), list(out))
        for name, block in out.items():
            fill = block.fill if block.fill is not None else 0
            lookup(
                plane,
                table["label"],
                table[name],
                block.planes(),
                patch_of(labels, block, region),
                fill,
                labels_valid=mask,
                ignore=ignored(self.ignore),
            )
