"""The typed, frozen pipeline: what a file says, checked as far as that goes without opening its inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import models_json_schema

from pipeline.config.document import Document, KeyPath, format_path
from pipeline.config.message import (
    OPERATION_SYNONYMS,
    InvalidPipeline,
    Problem,
    explain,
    missing,
    own_error,
    own_failure,
    show,
    unknown_value,
)
from pipeline.errors import PipelineError, unknown
from pipeline.operation import Operation, registry

VERSION = 1
RESERVED = ("y", "x", "band", "label", "spatial_ref", "table", "palette", "report")
"""Names that mean something inside an output store."""
NAME_PATTERN = "[A-Za-z][A-Za-z0-9_-]*"

_UNITS = {unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))}
_UNITS |= {unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)}
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?P<unit>[kmgt]?i?b)", re.IGNORECASE)
_DIM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=True)


def parse_bytes(value: Any) -> int | None:
    """Return the bytes that ``2 GiB``, ``512 MiB``, ``1.5GB`` or a number of bytes mean.

    Examples
    --------
    >>> parse_bytes("2 GiB"), parse_bytes("1.5GB")
    (2147483648, 1500000000)
    """
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        value = round(float(match["number"]) * _UNITS[match["unit"].lower()])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be a size such as `2 GiB`, `512 MiB` or `1.5GB`, got {show(value)}")
    if value < 1 << 20:
        raise ValueError(f"must be at least 1 MiB, got {show(value)} bytes; give a unit: `2 GiB`")
    return value


def parse_nodata(value: Any) -> Any:
    """Return a number, "none" (ignore the recorded value), "nan", or None (as recorded)."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, str) and value.lower() in ("none", "nan"):
        return value.lower()
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f"must be a number, `none` or `nan`, got {show(value)}")


def parse_dims(value: Any) -> Any:
    """Return ``y,x,band`` for any way to write it: with spaces, or as a list."""
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"must be names such as `y,x,band`, got {show(value)}")
    return ",".join(name.strip() for name in names)


def parse_input_dims(value: Any) -> Any:
    text = parse_dims(value)
    names = text.split(",") if text is not None else ["y", "x"]
    if not all(_DIM.fullmatch(name) for name in names):
        raise ValueError(f"must be names such as `y,x,band`, got {show(value)}")
    if len(set(names)) < len(names) or not {"y", "x"} <= set(names):
        raise ValueError(f"must name y and x once each, got {show(value)}; for example `y,x,band`")
    return text


def parse_sides(value: Any, words: tuple[str, ...]) -> Any:
    """Check rows and columns (and bands) of chunks or shards, or one of the words."""
    if value in words if isinstance(value, str) else _are_sides(value):
        return value
    remedy = f"; write [{value}, {value}]" if _are_sides([value, value]) else ""
    names = ", ".join(f"`{word}`" for word in words)
    raise ValueError(f"must be {names}, [y, x] or [y, x, band] in whole pixels, got {show(value)}{remedy}")


def _are_sides(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) in (2, 3)
        and all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**31 for side in value)
    )


def parse_version(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value > VERSION:
        raise ValueError(
            f"the file is of version {show(value)}, this rasterpipe reads up to {VERSION}; upgrade rasterpipe"
        )
    if isinstance(value, bool) or value != VERSION:
        raise ValueError(f"must be {VERSION}, got {show(value)}")
    return value


Sides = tuple[int, int] | tuple[int, int, int]
Side = Annotated[StrictInt, Field(ge=0)]
Span = tuple[Side, Side]


class Scale(_Frozen):
    """How stored values become physical ones: value = stored * factor + offset."""

    factor: float = Field(default=1.0, allow_inf_nan=False)
    """What stored values are multiplied by."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """What is added then."""


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
    """Where to cut further dimensions: dimension -> index or label, e.g. {time: 0}."""
    dims: Annotated[str | None, BeforeValidator(parse_input_dims)] = None
    """The array's dimensions where it does not name them, e.g. y,x,band."""
    bands: Annotated[tuple[StrictInt | StrictStr, ...], Field(min_length=1)] | None = None
    """The bands to use: positions from 1, or names. Default: all."""
    nodata: Annotated[
        StrictInt | StrictFloat | Literal["none", "nan"] | None,
        BeforeValidator(parse_nodata, json_schema_input_type=int | float | Literal["none", "nan"] | None),
    ] = None
    """The value that marks invalid pixels; `none` ignores the one that the file records."""
    scale: Literal["ignore", "apply"] | Scale = "ignore"
    """Whether to apply the scale and offset that the file records, or which to apply instead."""

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

    path: Annotated[StrictStr, Field(min_length=1)]
    """The Zarr store to write; relative to the pipeline file, or a URL."""
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


class Run(_Frozen):
    """How the pipeline is run; nothing here changes the result."""

    memory: Annotated[int | None, BeforeValidator(parse_bytes, json_schema_input_type=int | str | None)] = None
    """What the whole run stays below, e.g. 2 GiB. Default: half of what this process may use."""
    scheduler: Literal["threads"] = "threads"
    """Where blocks are computed."""
    workers: Annotated[StrictInt, Field(ge=1, le=65536)] | None = None
    """Blocks computed at once. Default: the CPUs that this process may use."""
    halo: Literal["auto", "read", "exchange"] = "auto"
    """How a block gets the pixels around it: read from the store, exchanged between tasks, or the cheaper of both."""
    scratch: Annotated[StrictStr, Field(min_length=1)] | None = None
    """Folder for intermediate results. Default: beside the output."""


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
        raise own_failure("step", ("op",), text, op)
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
    inputs: Annotated[dict[str, InputField], Field(min_length=1)]
    """The rasters to read, by name; a path is short for {path: ...}."""
    region: RegionConfig | None = None
    """Only this part of the result. Default: all."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    """The operations, in order."""
    output: Output
    """What is written, and where."""
    run: Run = Field(default_factory=Run)
    """Memory, workers, scheduler."""

    def to_dict(self) -> dict[str, Any]:
        """Return the normalised pipeline, ready for JSON; `load_pipeline` makes an equal one of it."""
        data = self.model_dump(mode="json", exclude_none=True, exclude={"steps"})
        data["steps"] = [_dump_step(step) for step in self.steps]
        return {key: _portable(data[key]) for key in type(self).model_fields if key in data}

    def step_index(self, name: str) -> int:
        """Return the index of a step."""
        names = [step.name for step in self.steps]
        if name not in names:
            raise PipelineError(unknown("step", name, names))
        return names.index(name)


def _dump_step(step: Operation) -> dict[str, Any]:
    fields = type(step).model_fields
    data = step.model_dump(mode="json")
    return {key: value for key, value in data.items() if value is not None or fields[key].default is not None}


def _portable(value: Any) -> Any:
    """Return data for JSON that a pipeline file means the same by: no NaN, no `$` that would be expanded."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.replace("$", "$$") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Ref:
    """What a step reads: an input or a step, and for a step with several outputs which one."""

    name: str
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Return the reference written ``name`` or ``step/output``."""
        name, slash, output = text.partition("/")
        return cls(name, output if slash else None)

    def __str__(self) -> str:
        return self.name if self.output is None else f"{self.name}/{self.output}"


References = Mapping[tuple[int, str], Ref]


def validate(document: Document, operations: Mapping[str, type[Operation]] | None = None) -> Pipeline:
    """Return the pipeline of a document, paths absolute, references checked; InvalidPipeline has all problems."""
    known = registry() if operations is None else operations
    if "version" in document.data:
        _check_version(document)
    problems = list(_name_problems(document))
    try:
        pipeline = Pipeline.model_validate(document.data, context={"operations": known})
    except ValidationError as error:
        problems += explain(error, document.data, Pipeline, known)
    if problems:
        raise InvalidPipeline(document, problems)
    if problems := check_references(pipeline):
        raise InvalidPipeline(document, problems)
    return resolved(document, pipeline)


def resolved(document: Document, pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with absolute paths: they begin at the file, those set from outside where we work."""
    inputs = {name: _resolve_input(document, name, source) for name, source in pipeline.inputs.items()}
    path = document.resolve_path(pipeline.output.path, ("output", "path"))
    run = pipeline.run
    if run.scratch is not None:
        run = run.model_copy(update={"scratch": document.resolve_path(run.scratch, ("run", "scratch"))})
    steps = tuple(_resolve_step(document, index, step) for index, step in enumerate(pipeline.steps))
    output = pipeline.output.model_copy(update={"path": path})
    return pipeline.model_copy(update={"inputs": inputs, "steps": steps, "output": output, "run": run})


def _resolve_step(document: Document, index: int, step: Operation) -> Operation:
    """Return a step whose matrix files have absolute paths."""
    files = step.matrix_files()
    if not files:
        return step
    return step.model_copy(
        update={field: document.resolve_path(path, ("steps", index, field)) for field, path in files.items()}
    )


def with_matrices(pipeline: Pipeline, read: Callable[[str], Any]) -> Pipeline:
    """Return the pipeline with every matrix in the place of the file that holds it.

    Raises PipelineError with the path of a field whose matrix does not fit; what `read` raises passes through.
    """
    steps = tuple(_with_matrices(index, step, read) for index, step in enumerate(pipeline.steps))
    return pipeline.model_copy(update={"steps": steps})


def _with_matrices(index: int, step: Operation, read: Callable[[str], Any]) -> Operation:
    files = step.matrix_files()
    if not files:
        return step
    given = {name: getattr(step, name) for name in step.model_fields_set}
    try:
        return type(step).model_validate(given | {field: read(path) for field, path in files.items()})
    except ValidationError as error:
        fault = error.errors()[0]
        text = f"{fault['msg'].removeprefix('Value error, ')} (in {', '.join(files.values())})"
        raise PipelineError(text, ("steps", index, *fault["loc"][:1])) from None
    except PipelineError as error:
        raise PipelineError(str(error), ("steps", index, *error.path)) from None


def _resolve_input(document: Document, name: str, source: Input) -> Input:
    if source.stack is not None:
        paths = (document.resolve_path(path, ("inputs", name, "stack", i)) for i, path in enumerate(source.stack))
        return source.model_copy(update={"stack": tuple(paths)})
    assert source.path is not None  # Input has checked that it has a source
    return source.model_copy(update={"path": document.resolve_path(source.path, ("inputs", name, "path"))})


def resolve(pipeline: Pipeline) -> References:
    """Return what every step reads: (index of the step, key of the source) -> reference, defaults filled in.

    Raises PipelineError with the path of the first reference that leads nowhere.
    """
    references, problems = _follow(pipeline)
    if problems:
        raise PipelineError(problems[0].text, problems[0].path)
    return references


def kept(pipeline: Pipeline) -> tuple[Ref, ...]:
    """Return the rasters to keep: what the file lists, else the steps that no other step reads."""
    if pipeline.output.keep is not None:
        return tuple(Ref.parse(text) for text in pipeline.output.keep)
    read = {reference.name for reference in resolve(pipeline).values()}
    return tuple(Ref(step.name) for step in pipeline.steps if step.name not in read)


def check_references(pipeline: Pipeline) -> list[Problem]:
    """Return what is wrong with `input` and `keep`; outputs of steps are the planner's to check."""
    return [*_follow(pipeline)[1], *_keep_problems(pipeline)]


def _follow(pipeline: Pipeline) -> tuple[dict[tuple[int, str], Ref], list[Problem]]:
    scope = _Scope(pipeline)
    references: dict[tuple[int, str], Ref] = {}
    problems: list[Problem] = []
    for index, step in enumerate(pipeline.steps):
        for key, text in step.sources().items():
            try:
                reference = scope.default(index) if text is None else Ref.parse(text)
                scope.check(index, reference)
            except PipelineError as error:
                problems.append(Problem(_source_path(step, index, key), str(error)))
            else:
                references[index, key] = reference
    return references, problems


def _source_path(step: Operation, index: int, key: str) -> KeyPath:
    """Return where the file says what a source is: the field of that name, or an entry of `inputs`."""
    if key not in type(step).model_fields and "inputs" in type(step).model_fields:
        return ("steps", index, "inputs", key)
    return ("steps", index, key)


class _Scope:
    """The names that a step can read."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.steps = pipeline.steps
        self.inputs = list(pipeline.inputs)
        self.positions = {step.name: index for index, step in enumerate(pipeline.steps)}

    def default(self, index: int) -> Ref:
        """Return what a step reads that does not say."""
        if index:
            return Ref(self.steps[index - 1].name)
        if len(self.inputs) == 1:
            return Ref(self.inputs[0])
        if "image" in self.inputs:
            return Ref("image")
        choices = ", ".join(self.inputs)
        raise PipelineError(f"not given, and there are several inputs, none called 'image'; choose one of: {choices}")

    def check(self, index: int, reference: Ref) -> None:
        """Raise PipelineError unless the step at `index` can read this."""
        name = reference.name
        if name in self.inputs:
            if reference.output is not None:
                raise PipelineError(f"'{name}' is an input and has no outputs; write '{name}'")
            return
        if name not in self.positions:
            raise PipelineError(unknown("input or step", str(reference), self.choices(index)))
        _check_form(reference)
        if self.positions[name] == index:
            choices = ", ".join(self.choices(index))
            raise PipelineError(f"step '{name}' reads itself; choose one of: {choices}")
        if self.positions[name] > index:
            self.refuse_later(index, self.positions[name])

    def choices(self, index: int) -> list[str]:
        return [*self.inputs, *(step.name for step in self.steps[:index])]

    def refuse_later(self, index: int, later: int) -> None:
        here, there = self.steps[index].name, self.steps[later].name
        if chain := self.chain(later, index):
            raise PipelineError(f"a cycle: {' -> '.join([here, *chain])} (each reads the next); break it")
        raise PipelineError(f"reads '{there}', a later step; a step reads earlier ones: move '{there}' before '{here}'")

    def chain(self, start: int, goal: int) -> list[str]:
        """Return the names of the steps from `start` along what each reads to `goal`, empty if it is not reached."""
        reader = {start: start}
        found = [start]
        for position in found:
            if position == goal:
                break
            for source in self.sources(position):
                if source not in reader:
                    reader[source] = position
                    found.append(source)
        else:
            return []
        way = [goal]
        while way[-1] != start:
            way.append(reader[way[-1]])
        return [self.steps[position].name for position in reversed(way)]

    def sources(self, index: int) -> Iterator[int]:
        """Yield the positions of the steps that a step reads."""
        for text in self.steps[index].sources().values():
            # the default of the first step is an input
            position = index - 1 if text is None else self.positions.get(Ref.parse(text).name, -1)
            if position >= 0:
                yield position


def _check_form(reference: Ref) -> None:
    if reference.output == "" or "/" in (reference.output or ""):
        name = reference.name
        raise PipelineError(f"cannot read the reference '{reference}'; write '{name}' or '{name}/OUTPUT'")


def _keep_problems(pipeline: Pipeline) -> Iterator[Problem]:
    names = dict.fromkeys(step.name for step in pipeline.steps)
    seen: set[str] = set()
    for index, text in enumerate(pipeline.output.keep or ()):
        try:
            _check_kept(pipeline, names, text)
            if text in seen:
                raise PipelineError(f"'{text}' is listed twice")
        except PipelineError as error:
            yield Problem(("output", "keep", index), str(error))
        seen.add(text)


def _check_kept(pipeline: Pipeline, names: Collection[str], text: str) -> None:
    reference = Ref.parse(text)
    if reference.name in pipeline.inputs:
        raise PipelineError(f"'{reference.name}' is an input, only steps are kept (valid: {', '.join(names)})")
    if reference.name not in names:
        raise PipelineError(unknown("step", text, names))
    _check_form(reference)


def _check_version(document: Document) -> None:
    """Refuse another version at once: what else seems wrong may be right there."""
    try:
        parse_version(document.data["version"])
    except ValueError as error:
        raise InvalidPipeline(document, [Problem(("version",), str(error))]) from None


def _name_problems(document: Document) -> Iterator[Problem]:
    """Yield what is wrong with the names of inputs and steps, looked up in the data: models may not exist yet."""
    taken: dict[str, KeyPath] = {}
    inputs, steps = document.data.get("inputs"), document.data.get("steps")
    for name in inputs if isinstance(inputs, dict) else ():
        taken[name] = ("inputs", name)
        if text := _name_fault(name):
            yield Problem(("inputs", name), text, of_key=True)
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if not isinstance(step, dict):
            continue
        path, name = ("steps", index, "name"), step.get("name")
        if "name" not in step:
            yield Problem(path, missing(path, f"add `name: {_free_name(step.get('op'), index, taken)}`"))
        elif isinstance(name, str) and (text := _name_fault(name)):
            yield Problem(path, text)
        elif isinstance(name, str) and name in taken:
            place = document.origin(taken[name], of_key=taken[name][0] == "inputs")
            words = format_path(taken[name]) + (f" at {place}" if place else "")
            yield Problem(path, f"the name '{name}' is taken by {words}; names are unique over inputs and steps")
        elif isinstance(name, str):
            taken[name] = path


def _name_fault(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        return f"a name begins with a letter and holds letters, digits, _ and -, got {show(name)}"
    return f"the name '{name}' is reserved ({', '.join(RESERVED)}); choose another" if name in RESERVED else ""


def _free_name(op: Any, index: int, taken: Mapping[str, Any]) -> str:
    base = op if isinstance(op, str) and not _name_fault(op) else "step"
    return f"{base}_{index}" if base in taken else base


def schema(operations: Mapping[str, type[Operation]] | None = None) -> dict[str, Any]:
    """Return the JSON schema of pipeline files; a step is one of all operations, told apart by `op`."""
    known = registry() if operations is None else operations
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(Pipeline, "validation")]
    models += [(operation, "validation") for operation in known.values()]
    references, definitions = models_json_schema(models)
    defs = definitions["$defs"]
    by_op = {op: references[operation, "validation"]["$ref"] for op, operation in known.items()}
    for reference in by_op.values():
        _require_name(defs[reference.rpartition("/")[2]])
    result = defs.pop(references[Pipeline, "validation"]["$ref"].rpartition("/")[2])
    result["properties"]["steps"]["items"] = {
        "type": "object",
        "required": ["name", "op"],
        "properties": {"op": {"enum": list(known), "description": "The operation."}},
        "discriminator": {"propertyName": "op", "mapping": by_op},
        "oneOf": [{"$ref": reference} for reference in by_op.values()],
    }
    result["properties"]["inputs"]["propertyNames"] = {"pattern": f"^{NAME_PATTERN}$"}
    defs.pop("Operation", None)  # a step is always one of the registered ones
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result, "$defs": defs}


def _require_name(definition: dict[str, Any]) -> None:
    required = definition.get("required", [])
    definition["required"] = ["name", "op", *(key for key in required if key not in ("name", "op"))]
    definition["properties"]["name"]["pattern"] = f"^{NAME_PATTERN}$"
    definition["properties"]["name"].pop("default", None)
