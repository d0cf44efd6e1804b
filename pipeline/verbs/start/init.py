"""A pipeline file to begin with, written from a template."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import parse, schema
from pipeline.model.errors import OutputError, RasterpipeError, UsageError, unknown
from pipeline.model.facts import ContentsFacts, Facts, InfoFacts
from pipeline.storage.folder.address import is_url
from pipeline.verbs.contents import line_of
from pipeline.verbs.load import load
from pipeline.verbs.start.fit import check, values_of
from pipeline.verbs.start.template import NAMES, SCENE, fill, is_asked_for, title_of

SCHEMA = "pipeline.schema.json"
HEAD = f"""\
# yaml-language-server: $schema={SCHEMA}
# $schema: {SCHEMA}
"""
"""What VS Code, Neovim and others, and what the editors of JetBrains look for."""
PLACES = ("path", "vector", "dates", "stack", "mosaic")
"""Keys of an input that hold paths."""
Described = InfoFacts | ContentsFacts


@dataclass(frozen=True)
class InitFacts(Facts):
    """A pipeline file that was written."""

    path: str
    template: str
    next: str
    """The command to give now."""
    notes: tuple[str, ...]


def templates() -> dict[str, str]:
    """Return the names of the templates, and what each is for."""
    return {name: title_of(name) for name in NAMES}


def init(
    name: str,
    inputs: Mapping[str, str],
    target: str | None,
    describe: Callable[[str], Described],
    along: str | None = None,
) -> InitFacts:
    """Write a pipeline file that fits inputs, and beside it the schema for editors, if there is none.

    Parameters
    ----------
    inputs
        Paths, by the names of the template's inputs; for those not given, there is a name to replace.
    target
        The file. Default: the template's name in this folder.
    describe
        Tells what an input is, by its name, as `pipeline.info` does by its path.
    along
        The dim that is read as bands, where one is.

    Raises
    ------
    UsageError
        Where there is no such template or input of it, or a raster is none that the template has a sense for.
    InputError
        Where an input cannot be opened.
    OutputError
        Where the file is there, or cannot be written.
    """
    wanted = [key for key in ("image", "labels") if is_asked_for(name, key)]
    for key in inputs:
        if key not in wanted:
            raise UsageError(f"--input {key}={inputs[key]}: {unknown(f'input of {name}', key, wanted)}")
    path = Path(target or f"{name}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise OutputError(f"{path}: a pipeline file is YAML; give a name that ends in .yaml")
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists, and is never replaced; give another name: -o FILE")
    described = {key: describe(key) for key in inputs}
    values = {**SCENE, "over": "band", **_values(name, inputs, described, along)}
    for key in wanted:
        values[key] = _line(key, described[key], path.parent) if key in described else f"  {key}: {key}.tif    # yours"
    quoted = shlex.quote(str(path))
    command = f"rasterpipe run {quoted} --quicklook {shlex.quote(str(path.with_suffix('.png')))}"
    head = ["#   rasterpipe plan " + quoted, "#   " + command, *([values["about"]] if "about" in values else [])]
    values |= {"head": "\n".join(head), "folder": "results", "output": line_text(f"results/{path.stem}.zarr")}
    _write(path, HEAD + fill(name, values))
    return InitFacts(
        str(path), name, command, tuple(_notes(name, path, [key for key in wanted if key not in described], values))
    )


def line_text(text: str) -> str:
    """Return a text as it stands in a pipeline file."""
    return line_of({"path": text}).removeprefix("  image: ")


def _values(
    name: str, inputs: Mapping[str, str], described: Mapping[str, Described], along: str | None
) -> dict[str, str]:
    """Return what the image, if there is one, fills in."""
    facts = described.get("image")
    if isinstance(facts, InfoFacts):
        check(name, facts, inputs["image"])
        return values_of(facts, along or "band")
    if facts is None:
        return {"bands": "b4: the band at position 4; put yours", "spacing": "geo"}
    if name == "composite" and facts.inputs_lines and "dates" in _entry(facts):
        return {"over": "time"}
    raise UsageError(
        f"{inputs['image']}: {facts.what}, no single raster; `rasterpipe info {shlex.quote(inputs['image'])}` "
        "says how to name one of them"
    )


def _entry(facts: Described) -> dict[str, Any]:
    """Return what makes an input of what was found."""
    line = facts.inputs_line if isinstance(facts, InfoFacts) else facts.inputs_lines[0]
    (entry,) = parse(f"inputs:\n{line}").data["inputs"].values()
    return entry if isinstance(entry, dict) else {"path": entry}


def _line(key: str, facts: Described, folder: Path) -> str:
    """Return the line of an input, its path as from the folder of the file."""
    if isinstance(facts, ContentsFacts) and not facts.inputs_lines:
        raise UsageError(f"{facts.path}: {facts.what}; nothing in it is an input")
    entry = _entry(facts)
    moved = {where: _moved(entry[where], folder) for where in PLACES if where in entry}
    return line_of({**entry, **moved}, key)


def _moved(value: Any, folder: Path) -> Any:
    """Return a path, or what holds several, as it is from a folder."""
    if isinstance(value, list):
        return [_moved(item, folder) for item in value]
    if isinstance(value, Mapping):
        return {key: item if key == "time" else _moved(item, folder) for key, item in value.items()}
    return (
        value if not isinstance(value, str) or is_url(value) or os.path.isabs(value) else os.path.relpath(value, folder)
    )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x") as file:
            file.write(text)
        if not os.path.lexists(path.parent / SCHEMA):
            (path.parent / SCHEMA).write_text(json.dumps(schema(), indent=2) + "\n")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; give another name: -o FILE"
        ) from error


def _notes(name: str, path: Path, missing: list[str], values: Mapping[str, str]) -> Iterator[str]:
    if missing:
        named = " and ".join(missing)
        yield f"put your {named} into {path} first; with --input {missing[0]}=PATH, init fits the file to it"
        return
    if is_asked_for(name, "nir") and values["bands"].startswith("guessed"):
        yield f"{path}: {values['bands']}"
    try:
        load(str(path))
    except RasterpipeError as error:
        yield f"{path} does not fit yet: {error}"
