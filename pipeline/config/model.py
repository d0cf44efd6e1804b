"""The typed, frozen pipeline: what a file says, checked value by value; references are followed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from pipeline.config.message import missing, own_error, own_failure, unknown_value
from pipeline.config.output_name import check_output_name, check_polygons
from pipeline.config.scheduler import THREADS, Cluster, Scheduler, parse_scheduler
from pipeline.model.errors import PipelineError, show
from pipeline.model.read_limits import ReadLimits
from pipeline.model.value import Frozen, parse_bytes, parse_dims, parse_sides
from pipeline.operations.base import Operation
from pipeline.operations.registry import registry, why_unknown
from pipeline.operations.synonyms import unknown_operation
from pipeline.storage.folder.address import Access
from pipeline.storage.input import Input

VERSION = 1
"""Of the file format, as this reads it."""
Sides = tuple[int, int] | tuple[int, int, int]
Side = Annotated[StrictInt, Field(ge=0)]
Span = tuple[Side, Side]


class RegionConfig(Frozen):
    """The part of the result to compute: rows and columns, or a box in the coordinates of the raster's CRS."""

    rows: Span | None = None
    """First row and the row after the last. Default: all."""
    columns: Span | None = None
    """First column and the column after the last. Default: all."""
    bbox: tuple[float, float, float, float] | None = None
    """xmin, ymin, xmax, ymax."""

    @model_validator(mode="after")
    def _check(self) -> RegionConfig:
        if (self.bbox is None) == (self.rows is None and self.columns is None):
            raise ValueError("give rows, columns or both, or bbox")
        for name, span in (("rows", self.rows), ("columns", self.columns)):
            if span is not None and span[0] >= span[1]:
                raise ValueError(f"{name} must be [first, end] with first < end, got {show(span)}")
        if self.bbox is not None and not _is_box(self.bbox):
            raise ValueError(f"bbox must be [xmin, ymin, xmax, ymax], the smaller first, got {show(self.bbox)}")
        return self


def _is_box(box: tuple[float, float, float, float]) -> bool:
    return all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3]


class Output(Frozen):
    """The store that the pipeline writes."""

    path: Annotated[StrictStr, Field(min_length=1), AfterValidator(check_output_name)]
    """The Zarr store to write; relative to the pipeline file, or a URL. One kept raster may go to a .tif instead."""
    storage: Access | None = None
    """How the object store is reached, where the path is a URL."""
    keep: tuple[StrictStr, ...] | None = None
    """The rasters to keep: steps, or step/output. Default: the steps that no other step reads. Tables always are."""
    chunks: Annotated[
        Literal["auto"] | Sides,
        BeforeValidator(lambda value: parse_sides(value, ("auto",)), json_schema_input_type=Literal["auto"] | Sides),
    ] = "auto"
    """[y, x] or [y, x, band], or auto."""
    shards: Annotated[
        Literal["auto", "none"] | Sides,
        BeforeValidator(
            lambda value: parse_sides(value, ("auto", "none")), json_schema_input_type=Literal["auto", "none"] | Sides
        ),
    ] = "auto"
    """[y, x] or [y, x, band], none, or auto: none on local disks below 20,000 files, else some 64 MiB."""
    codec: Literal["fast", "balanced", "small", "none"] = "fast"
    """How chunks are compressed."""
    dims: Annotated[Literal["auto", "y,x,band", "band,y,x"], BeforeValidator(parse_dims)] = "auto"
    """Order of the dimensions; auto: as a Zarr input has them, band,y,x from TIFFs."""
    geotiff: Annotated[StrictStr, Field(min_length=1), AfterValidator(check_output_name)] | None = None
    """A folder for each kept raster as a GeoTIFF too: smooth/mean as smooth_mean.tif, ndvi/value as ndvi.tif."""
    polygons: Annotated[
        StrictStr | dict[str, StrictStr] | None,
        BeforeValidator(check_polygons, json_schema_input_type=str | dict[str, str]),
    ] = None
    """A .parquet, .gpkg or .geojson for the outlines of a kept raster of labels; {STEP: FILE, ...} of several."""
    ome_zarr: Annotated[StrictStr, Field(min_length=1), AfterValidator(check_output_name)] | None = None
    """A folder for each kept raster as an OME-Zarr image too: smooth/mean as smooth_mean.ome.zarr."""
    ome_version: Annotated[
        Literal["0.5", "0.4"],
        BeforeValidator(lambda value: str(value) if isinstance(value, float) else value, json_schema_input_type=str),
    ] = "0.5"
    """Of OME-Zarr; 0.4 is Zarr v2, for programs that know no 0.5 yet."""
    cog: StrictBool = True
    """Whether GeoTIFFs are laid out as Cloud Optimized GeoTIFFs. Else their tiles lie in the order of their making, and
    writing takes half the disk."""
    overviews: Literal["auto", "none"] = "auto"
    """Overviews of GeoTIFFs, each half as large as the one before, down to one tile; or none."""
    pyramid: Literal["auto", "none"] | Annotated[StrictInt, Field(ge=1, le=30)] = "auto"
    """Levels of the rasters in the store, each half as large as the one before: auto (down to one chunk, of rasters of
    4096 rows or columns on), none, or how many."""
    resampling: Literal["auto", "average", "nearest", "mode", "min", "max"] = "auto"
    """How overviews and levels are made. auto: average, of valid pixels; nearest for indices of colours and angles."""


class Run(Frozen):
    """How the pipeline is run; nothing here changes the result."""

    memory: Annotated[int | None, BeforeValidator(parse_bytes, json_schema_input_type=int | str | None)] = None
    """What the whole run stays below, e.g. 2 GiB. Default: half of what this process may use. On a cluster: what each
    worker stays below, by default 60 % of its limit."""
    scheduler: Annotated[
        Scheduler,
        BeforeValidator(parse_scheduler, json_schema_input_type=Literal["threads"] | str | Cluster),
    ] = THREADS
    """Where blocks are computed: threads, a dask scheduler (tcp://HOST:PORT, tls://HOST:PORT), a cluster to start."""
    workers: Annotated[StrictInt, Field(ge=1, le=65536)] | None = None
    """Blocks computed at once. Default: the CPUs that this process may use; on a cluster, each worker's threads."""
    halo: Literal["auto", "read", "exchange"] = "auto"
    """How a block gets the pixels around it: read from the store, exchanged between tasks, or the cheaper of both."""
    scratch: Annotated[StrictStr, Field(min_length=1)] | None = None
    """Folder for intermediate results. Default: beside the output."""
    durable: StrictBool = True
    """Whether a power cut, too, leaves what is recorded as done: the file system is synced now and then, and before a
    result is called complete. Else only the death of the process does."""
    retries: Annotated[StrictInt, Field(ge=0, le=100)] = 3
    """How often reading or writing a block is tried again after an error that may pass (I/O error, time-out)."""
    limits: ReadLimits = Field(default_factory=ReadLimits)
    """What reading an input may take at most."""


def parse_version(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value > VERSION:
        raise ValueError(
            f"the file is of version {show(value)}, this rasterpipe reads up to {VERSION}; upgrade rasterpipe"
        )
    if isinstance(value, bool) or value != VERSION:
        raise ValueError(f"must be {VERSION}, got {show(value)}")
    return value


def _parse_input(value: Any) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if value is None or not isinstance(value, Mapping | Input):
        raise own_error(f"must be a path, or a mapping with `path`, got {show(value)}")
    return value


def _validate_step(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Operation:
    """Validate a step with the class that its `op` names, so that messages speak of that operation alone."""
    if isinstance(value, Operation):
        return value
    if not isinstance(value, Mapping):
        raise own_error(f"must be a mapping with `name` and `op`, got {show(value)}")
    operations: Mapping[str, type[Operation]] = (info.context or {}).get("operations") or registry()
    op = value.get("op")
    if "op" not in value:
        raise own_failure("step", ("op",), missing(("op",), f"add one of: {', '.join(operations)}"), value)
    if not isinstance(op, str) or op not in operations:
        names = list(operations) or ["none"]
        text = unknown_operation(op, names) if isinstance(op, str) else unknown_value("operation", op, names)
        raise own_failure("step", ("op",), why_unknown(op, text), op)
    try:
        return operations[op].model_validate(value, context=info.context)
    except PipelineError as error:  # pydantic passes only ValueErrors on
        raise own_failure("step", error.path, str(error), value) from None


InputField = Annotated[Input, BeforeValidator(_parse_input, json_schema_input_type=str | Input)]
Step = Annotated[SerializeAsAny[Operation], WrapValidator(_validate_step)]


class Pipeline(Frozen):
    """A pipeline: inputs, steps in order, one output store."""

    version: Annotated[Literal[1], BeforeValidator(parse_version)] = 1
    """Version of the file format."""
    inputs: Annotated[dict[str, InputField], Field(min_length=1, max_length=1000)]
    """The rasters to read, by name; a path is short for {path: ...}."""
    region: RegionConfig | None = None
    """Only this part of the result. Default: all."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=1000)]
    """The operations, in order."""
    output: Output
    """What is written, and where."""
    run: Run = Field(default_factory=Run)
    """Memory, workers, scheduler."""

    def to_dict(self) -> dict[str, Any]:
        """Return the normalised pipeline, ready for JSON; `load_pipeline` makes an equal one of it."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"steps"})
        data["steps"] = [_dump_step(step) for step in self.steps]
        return {key: _portable(data[key]) for key in type(self).model_fields if key in data}


def _dump_step(step: Operation) -> dict[str, Any]:
    fields = type(step).model_fields
    data = step.model_dump(mode="json")
    return {key: value for key, value in data.items() if value is not None or fields[key].default is not None}


def _portable(value: Any) -> Any:
    """Return data for JSON, which has no NaN; as text it means the same."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
