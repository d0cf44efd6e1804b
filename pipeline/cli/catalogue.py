"""What operations there are and what they take: `rasterpipe ops`, and the tables of the docs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.block.plan import StepPlan
from pipeline.config import parse
from pipeline.config.description import descriptions
from pipeline.model.errors import PipelineError, UsageError
from pipeline.model.raster import RasterSpec
from pipeline.model.region import Halo
from pipeline.model.table import TableSpec
from pipeline.operations.base import Operation
from pipeline.operations.registry import find_operation, known, our_operations, owner_of, registry
from pipeline.operations.synonyms import elsewhere, meant
from pipeline.planning.binding import bind_step

TABLE_BEGIN = "<!-- operations: made by `python -m pipeline.cli.catalogue`, tested to be current -->"
TABLE_END = "<!-- end of operations -->"
COMMON = tuple(name for name in Operation.model_fields if name != "op")


def describe_operations() -> dict[str, Any]:
    """Return the facts of `ops --json`: every operation with its summary, and whose it is where it is not ours."""
    entries = [{"op": name, "summary": _summary(cls), **_whose(cls)} for name, cls in registry().items()]
    return {"operations": entries, "notes": list(known().faults)}


def _whose(cls: type[Operation]) -> dict[str, Any]:
    owner = owner_of(cls)
    return {"distribution": {"name": owner.name, "version": owner.version}} if owner else {}


def describe_word(name: str) -> dict[str, Any] | None:
    """Return the facts of `ops WORD --json`, where a word is no operation here, and another's for one; else None."""
    if name in registry():
        return None
    if text := elsewhere(name):
        return {"word": name, "elsewhere": text}
    if (found := meant(name, registry())) is None:
        return None
    cls = registry()[found.op]
    return {"word": name, "op": found.op, "summary": _summary(cls), "example": found.line(cls.example)}


def describe_operation(name: str) -> dict[str, Any]:
    """Return the facts of `ops NAME --json`."""
    try:
        cls = find_operation(name)
    except PipelineError as error:
        raise UsageError(str(error)) from None
    properties = cls.model_json_schema()["properties"]
    own = [key for key in cls.model_fields if key not in Operation.model_fields]
    own.sort(key=lambda key: not cls.model_fields[key].is_required())  # what must be given comes first
    return {
        "op": name,
        "summary": _summary(cls),
        "description": _paragraphs(cls),
        "parameters": [_describe_parameter(cls, key, properties[key]) for key in own],
        "common_parameters": [_describe_parameter(cls, key, properties[key]) for key in COMMON],
        "outputs": cls.outputs_text,
        "example": cls.example,
        "of_example": _of_example(cls),
        "version": cls.version,
        **_whose(cls),
    }


def _of_example(cls: type[Operation]) -> dict[str, Any] | None:
    """Return what the example needs and makes; of another package's that has none, or a wrong one, nothing is known."""
    try:
        return _describe_example(cls)
    except Exception:
        if owner_of(cls) is None:
            raise
        return None


def _describe_example(cls: type[Operation]) -> dict[str, Any]:
    """Return what the example needs around a block and makes, by planning it for rasters of two dtypes."""
    outputs: dict[str, dict[str, str]] = {}
    halo = Halo()
    for dtype in ("uint16", "float32"):
        step = _bind_example(cls, np.dtype(dtype))
        for use in step.uses:
            halo |= use.halo
        for output, spec in step.declared.items():
            outputs.setdefault(output, {})[dtype] = spec.dtype.name
    return {"halo": [halo.top, halo.bottom, halo.left, halo.right], "outputs": outputs}


def _bind_example(cls: type[Operation], dtype: np.dtype) -> StepPlan:
    document = parse(f"step: {cls.example}")
    operation = cls.model_validate(document.data["step"])
    bands = tuple(f"b{number}" for number in range(1, 17))
    series = (
        ("time", tuple(f"2024-0{number // 4 + 1}-01" for number in range(len(bands)))),
        ("source_band", tuple(f"B{number % 4 + 1}" for number in range(len(bands)))),
    )
    nodata = 0 if dtype.kind == "u" else float("nan")
    spec = RasterSpec(1000, 1000, dtype, ("y", "x", "band"), bands, nodata, series)
    single = RasterSpec(1000, 1000, np.dtype(np.uint16), ("y", "x"), ("b1",), 0)
    sources = {key: key for key in operation.sources()}
    specs = {key: single if key == "labels" else spec for key in sources}
    tables = {maker: TableSpec({"palette": ("entry", "band")}, bands[:3], 256) for maker in operation.tables().values()}
    return bind_step(operation, sources, specs, tables)


def _summary(cls: type[Operation]) -> str:
    return _paragraphs(cls)[0]


def _paragraphs(cls: type[Operation]) -> list[str]:
    text = cls.__doc__ or ""
    return [re.sub(r"\s+", " ", paragraph).strip() for paragraph in text.split("\n\n")]


def _describe_parameter(cls: type[Operation], name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    field = cls.model_fields[name]
    choices = _choices(entry)
    return {
        "name": name,
        "required": field.is_required() or name == "name",
        "default": None if field.is_required() else entry.get("default"),
        "choices": choices,
        "description": re.sub(r"\s+", " ", descriptions(cls).get(name, "")).strip(),
    }


def _choices(entry: Any) -> list[str]:
    """Return the words that a parameter may be, or its items may be."""
    if isinstance(entry, Mapping):
        if "enum" in entry:
            return [str(choice) for choice in entry["enum"]]
        for key in ("items", "anyOf"):
            inner = entry.get(key)
            for part in inner if isinstance(inner, list) else [inner]:
                if choices := _choices(part):
                    return choices
    return []


def format_operations(facts: Mapping[str, Any]) -> Iterator[str]:
    for entry in facts["operations"]:
        yield f"{entry['op']:<12} {entry['summary']}{_of(entry)}"
    yield from (f"note: {text}" for text in facts["notes"])
    yield "rasterpipe ops NAME shows the parameters of one"


def format_word(facts: Mapping[str, Any]) -> Iterator[str]:
    if "elsewhere" in facts:
        yield f"{facts['word']} is no operation here; {facts['elsewhere']}"
        return
    yield f"{facts['word']} is here {facts['op']}: {facts['summary']}"
    yield f"  - {facts['example']}"
    yield f"rasterpipe ops {facts['op']} shows its parameters"


def _of(entry: Mapping[str, Any]) -> str:
    """Return in words whose an operation is, where it is not ours."""
    owner = entry.get("distribution")
    return f" (of {owner['name']} {owner['version']})" if owner else ""


def format_operation(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{facts['op']}: {facts['description'][0]}{_of(facts)}", "")
    for paragraph in facts["description"][1:]:
        yield from (paragraph, "")
    yield "parameters:"
    for entry in facts["parameters"]:
        yield from _format_parameter(entry)
    yield "of every step:"
    for entry in facts["common_parameters"]:
        yield from _format_parameter(entry)
    yield from ("outputs:", *(f"  {name}: {text}" for name, text in facts["outputs"].items()))
    yield from ("example:", f"  - {facts['example'] or 'there is none'}")
    if facts["of_example"] is None:
        yield "  it cannot be planned"
        return
    top, bottom, left, right = facts["of_example"]["halo"]
    yield f"  needs around a block: {top} rows above, {bottom} below, {left} columns left, {right} right"
    for output, dtypes in facts["of_example"]["outputs"].items():
        yield f"  makes {output}: {', '.join(f'{made} from {dtype}' for dtype, made in dtypes.items())}"


def _format_parameter(entry: Mapping[str, Any]) -> Iterator[str]:
    value = "required" if entry["required"] else f"default {_word(entry['default'])}"
    yield f"  {entry['name']} ({value}): {entry['description']}"
    if entry["choices"]:
        yield f"      one of: {', '.join(entry['choices'])}"


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_word(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def operations_table() -> str:
    """Return the Markdown table of our operations that README and docs hold."""
    lines = ["| operation | what it does | outputs | example |", "|---|---|---|---|"]
    for name, cls in our_operations().items():
        outputs = ", ".join(f"`{output}`" for output in cls.outputs_text)
        lines.append(f"| `{name}` | {_summary(cls)} | {outputs} | `{cls.example}` |")
    return "\n".join(lines)


def write_tables(readme: Path) -> None:
    """Put the current table of operations into the README, between its marks."""
    text = readme.read_text()
    before, begin, rest = text.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    readme.write_text(f"{before}{begin}\n{operations_table()}\n{end}{after}")


if __name__ == "__main__":
    write_tables(Path("README.md"))
