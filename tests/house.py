"""The drawing of the house at the head of docs/design.md: `python -m tests.house` makes it anew.

`python -m tests.house --figures` counts what is large: entries, files, functions, parameters, lines.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PIPELINE = PROJECT / "pipeline"
DESIGN = PROJECT / "docs" / "design.md"
BEGIN, END = "<!-- the house: made by `python -m tests.house`, tested to be current -->", "<!-- end of the house -->"
WIDTH = 118

WAY = (
    ("verbs/load.py", "load"),
    ("planning/passes.py", "make_plan"),
    ("output/decision.py", "choose"),
    ("execution/run.py", "execute"),
    ("execution/strip.py", "split_into_strips"),
    ("execution/worker.py", "PassWorker.run_block"),
    ("block/walk.py", "walk"),
    ("storage/cache.py", "CachedReader.read"),
    ("operations/base.py", "Operation.apply"),
    ("storage/zarr/store.py", "ZarrWriter.write"),
    ("execution/recorder.py", "Recorder.record"),
    ("output/store.py", "RunStore.complete"),
    ("output/exports/base.py", "Export.write"),
)
"""The way of one block, from the pipeline file to the files that are made of the result."""


def floors() -> list[str]:
    """Return the folders and modules at the top of the package, from above, by the contract that imports keep."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.strip("()") for layer in layers]


def summary(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")


def find(path: Path, name: str) -> ast.FunctionDef:
    """Return a function, or a method given as Class.method."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    *around, last = name.split(".")
    for part in around:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == part)
    return next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == last)


def rooms(folder: Path) -> list[str]:
    found = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
    found += [f"{path.parent.name}/" for path in folder.glob("*/__init__.py")]
    return sorted(found)


def wrapped(words: list[str], indent: str) -> Iterator[str]:
    line = indent
    for word in words:
        if len(line) + len(word) + 1 > WIDTH:
            yield line.rstrip()
            line = indent
        line += f"{word} "
    yield line.rstrip()


def draw() -> Iterator[str]:
    """Yield the lines of the drawing: each floor stands on those below it, and imports nothing from above."""
    yield "```text"
    for floor in floors():
        path = PIPELINE / floor
        if not path.is_dir():
            if (module := path.with_suffix(".py")).exists() and floor != "__main__":
                yield f"{floor:<12}{summary(ast.parse(module.read_text()))}"
            continue
        yield f"{floor + '/':<12}{summary(ast.parse((path / '__init__.py').read_text()))}"
        if floor != "kernels":  # a file for each loop: too many to draw
            yield from wrapped(rooms(path), " " * 12)
    yield "```"
    yield ""
    yield "The way of one block:"
    yield ""
    yield "```text"
    for file, name in WAY:
        said = re.split(r"[;:,.](?: |$)", summary(find(PIPELINE / file, name)))[0]
        yield f"{f'{file}: {name}':<44}{said}"[:WIDTH].rstrip()
    yield "```"


def drawn_into(text: str) -> str:
    head, rest = text.split(BEGIN)
    return "\n".join([head + BEGIN, "", *draw(), "", END + rest.split(END)[1]])


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator) in ("kernel", "inner") for decorator in node.decorator_list)


def figures() -> Iterator[str]:
    """Yield the figures by which the size of the house is told."""
    files = sorted(PIPELINE.rglob("*.py"))
    counts = {path: len(path.read_text().splitlines()) for path in files}
    yield f"entries at the top: {sum(not path.name.startswith('__pycache__') for path in PIPELINE.iterdir())}"
    yield f"lines: {sum(counts.values())} in {len(files)} files"
    yield from (f"file of {n} lines: {path.relative_to(PIPELINE)}" for path, n in counts.items() if n > 300)
    for path in files:
        if path.is_relative_to(PIPELINE / "kernels"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel(node):
                where = f"{path.relative_to(PIPELINE)}: {node.name}"
                lines = (node.end_lineno or 0) - node.lineno + 1
                arguments = node.args
                count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
                count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
                if lines > 40:
                    yield f"function of {lines} lines: {where}"
                if count > 6:
                    yield f"function of {count} parameters: {where}"


if __name__ == "__main__":
    if "--figures" in sys.argv:
        print("\n".join(figures()))
    else:
        DESIGN.write_text(drawn_into(DESIGN.read_text()))
