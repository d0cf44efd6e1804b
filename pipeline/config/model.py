"""The typed, frozen pipeline: what a file says, checked value by value; references are followed elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from pipeline.config.message import OPERATION_SYNONYMS, missing, own_error, own_failure, show, unknown_value
from pipeline.config.output_name import check_output_name
from pipeline.config.scheduler import THREADS, Cluster, Scheduler, parse_scheduler
from pipeline.config.value import parse_bytes, parse_dims, parse_input_dims, parse_nodata, parse_sides, parse_version
from pipeline.model.errors import PipelineError
from pipeline.model.read_limits import ReadLimits
from pipeline.operations.base import Operation
from pipeline.operations.registry import registry, why_unknown

DEFAULTS = ReadLimits()
Sides = tuple[int, int] | tuple[int, int, int]
Side = Annotated[StrictInt, Field(ge=0)]
Span = tuple[Side, Side]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=True)


def _check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be http://HOST:PORT or https://HOST, got {show(value.rpartition('@')[2])}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be without user, password and query; credentials come from the environment alone")
    return value


def _check_region(value: str) -> str:
    """The provider's host is made of it, so that no other one may be."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"must be letters, digits, - and _, as in eu-central-1, got {show(value)}")
    return value


class Scale(_Frozen):
    """How stored values become physical ones: value = stored * factor + offset."""

    factor: float = Field(default=1.0, allow_inf_nan=False)
    """What stored values are multiplied by."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """What is added then."""


class Storage(_Frozen):
    """How an object store is reached; who may is known from the environment, never from here."""

    endpoint: Annotated[StrictStr, AfterValidator(_check_endpoint)] | None = None
    """The server, where it is not the provider's own: http://HOST:PORT or https://HOST."""
    region: Annotated[StrictStr, AfterValidator(_check_region)] | None = None
    """The region of the bucket."""
    anonymous: StrictBool = False
    """Whether to ask without credentials, for what is public."""
    requester_pays: StrictBool = False
    """Whether who asks agrees to pay for it."""


class Input(_Frozen):
    """A raster that the pipeline reads."""

    path: Annotated[StrictStr, Field(min_length=1)] | None = None
    """A .zarr store, a group or an array in it, or a .tif; relative to the pipeline file, or a URL."""
    stack: Annotated[tuple[Annotated[StrictStr, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    """Files of one band each that make up the bands in this order, e.g. [B02.tif, B03.tif]."""
    arrays: Annotated[tuple[StrictStr, ...], Field(min_length=1)] | None = None
    """Arrays in the store `path` that make up the bands in this order."""
    array: StrictStr | None = None
    """The array in the store, where it holds several."""
    at: dict[str, StrictInt | StrictFloat | StrictStr] = Field(default_factory=dict)
    """Where to cut further dimensions: dimension -> index or label, e.g. {time: 0}; of OME-TIFF and ImageJ z and t."""
    series: Side | Literal["mask"] | None = None
    """The image in a TIFF that holds several, counted from 0; `mask`: the TIFF's internal mask."""
    level: Side = 0
    """The level of a pyramid to read; 0 is full resolution."""
    dims: Annotated[str | None, BeforeValidator(parse_input_dims)] = None
    """The array's dimensions where it does not name them, e.g. y,x,band."""
    bands: Annotated[tuple[StrictInt | StrictStr, ...], Field(min_length=1)] | None = None
    """The bands to use: positions from 1, or names. Default: all."""
    nodata: Annotated[
        StrictInt | StrictFloat | Literal["none", "nan", "carry"] | None,
        BeforeValidator(parse_nodata, json_schema_input_type=int | float | Literal["none", "nan", "carry"] | None),
    ] = None
    """The value that marks invalid pixels; `none` ignores the one that the file records, `carry` hands it on with the
    pixels as they are (for `select` alone; what `convert` does)."""
    scale: Literal["ignore", "apply"] | Scale = "ignore"
    """Whether to apply the scale and offset that the file records, or which to apply instead."""
    storage: Storage | None = None
    """How the object store is reached, where the path is a URL."""
    missing: Literal["fill"] | None = None
    """`fill`: chunks that are not there are empty, where that is in doubt: on http(s), whose servers do not list what
    they have, and where all are missing."""
    match: StrictStr | None = None
    """Another input, on whose finer grid this one is read: each pixel is repeated, a whole number of times."""

    @model_validator(mode="after")
    def _check_source(self) -> Input:
        if self.path is None and self.stack is None:
            raise ValueError(f"no source; add `path: {'STORE' if self.arrays else 'FILE'}`, or `stack: [FILE, FILE]`")
        if self.path is not None and self.stack is not None:
            raise ValueError("`path` and `stack` are two sources; give one of them")
        if self.arrays is not None and (self.stack is not None or self.array is not None):
            other = "stack" if self.stack else "array"
            raise ValueError(f"`arrays` and `{other}` exclude each other; give one of them")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that this reads."""
        return self.stack or (() if self.path is None else (self.path,))

    @property
    def dim_names(self) -> tuple[str, ...] | None:
        return None if self.dims is None else tuple(self.dims.split(","))


class RegionConfig(_Frozen):
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


class Output(_Frozen):
    """The store that the pipeline writes."""

    path: Annotated[StrictStr, Field(min_length=1), AfterValidator(check_output_name)]
    """The Zarr store to write; relative to the pipeline file, or a URL. One kept raster may go to a .tif instead."""
    storage: Storage | None = None
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
    """A folder for each kept raster as a GeoTIFF too: smooth/mean as smooth_mean.tif."""


class Limits(_Frozen):
    """What reading an input may take at most; raise a limit for a file that is to be trusted."""

    tile_bytes: Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)] = DEFAULTS.tile_bytes
    """What a chunk, strip or tile that can only be decoded whole decodes to."""
    allocation_bytes: Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)] = (
        DEFAULTS.allocation_bytes
    )
    """What is read beside the pixels: coordinates, tables of tiles, tags."""
    decompression_ratio: float = Field(default=DEFAULTS.decompression_ratio, ge=1, allow_inf_nan=False)
    """Decoded to stored bytes of a chunk, strip or tile."""


class Run(_Frozen):
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
    limits: Limits = Field(default_factory=Limits)
    """What reading an input may take at most."""


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
        text = unknown_value("operation", op, list(operations) or ["none"], OPERATION_SYNONYMS)
        raise own_failure("step", ("op",), why_unknown(op, text), op)
    try:
        return operations[op].model_validate(value, context=info.context)
    except PipelineError as error:  # pydantic passes only ValueErrors on
        raise own_failure("step", error.path, str(error), value) from None


InputField = Annotated[Input, BeforeValidator(_parse_input, json_schema_input_type=str | Input)]
Step = Annotated[SerializeAsAny[Operation], WrapValidator(_validate_step)]


class Pipeline(_Frozen):
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
