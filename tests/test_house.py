"""The house: what a fresh process imports, what kernels may call, and the drawing in docs/design.md.

Who may import whom stands in pyproject.toml, as contracts of import-linter, which `.ci/run` checks.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from tests import house

ROOT = Path(__file__).parent.parent / "pipeline"


def imported(code: str, packages: set[str]) -> list[str]:
    """Return which packages a fresh process has imported after some code."""
    code = f"import sys\n{code}\nprint(*sorted({packages!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


OPENS_FILES = {"zarr", "tifffile", "numba", "dask", "obstore", "imagecodecs", "pipeline.storage.reader"}


@pytest.mark.parametrize("module", ["pipeline.planning.passes", "pipeline.operations.base", "pipeline.block.walk"])
def test_planning_and_the_contract_of_operations_import_nothing_that_opens_a_file(module: str) -> None:
    assert imported(f"import {module}", OPENS_FILES) == []


@pytest.mark.parametrize("words", ["--version", "--help", "run --help", "convert --help"])
def test_version_and_help_need_no_heavy_library(words: str) -> None:
    code = (
        f"sys.argv = ['rasterpipe', *{words.split()}]\n"
        "from pipeline.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass"
    )
    assert imported(code, {"numpy", "zarr", "dask", "numba", "pydantic", "scipy", "yaml", "rich"}) == []


def test_a_threads_run_needs_neither_dask_array_nor_distributed() -> None:
    assert imported("import pipeline.api", {"dask.array", "distributed", "scipy.ndimage", "tifffile"}) == []


def test_a_plan_needs_no_compiler(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=np.ones((4, 5, 3), np.uint16))
    config = {
        "inputs": {"image": str(tmp_path / "in.zarr")},
        "steps": [
            {"name": "mean", "op": "window", "input": "image", "size": 3},
            {"name": "colors", "op": "palette", "input": "image", "colors": 2},
            {"name": "ours", "op": "quantize", "input": "mean", "palette": "colors"},
        ],
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    code = f"import pipeline\npipeline.plan({config!r})\nassert 'pipeline.kernels.window' in sys.modules"
    assert imported(code, {"numba", "dask", "rich"}) == []


def test_a_command_loads_kernels_without_scipy_linalg() -> None:
    code = (
        "from pipeline.cli import startup; startup.import_api()\n"
        "import numpy as np; from pipeline.kernels.validity import count_valid\n"
        "assert count_valid(np.ones(3, np.float32), np.float32(0)) == 3"
    )
    assert imported(code, {"scipy.linalg"}) == []


def test_the_drawing_is_current() -> None:
    text = house.DESIGN.read_text()
    assert house.drawn_into(text) == text, "run `python -m tests.house`"


def test_every_folder_says_its_idea() -> None:
    for file in ROOT.rglob("__init__.py"):
        assert house.summary(ast.parse(file.read_text())), f"{file} has no docstring"


def decorated(path: Path) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield the name of each function of a file, its decorators, and what it calls by name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            calls = {
                call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and type(call.func) is ast.Name
            }
            yield node.name, {ast.unparse(decorator) for decorator in node.decorator_list}, calls


def test_inner_functions_own_no_arrays() -> None:
    """numba would not refuse the call, but never free what the function returns: see `kernels.compile.inner`."""
    functions = [function for path in (ROOT / "kernels").glob("*.py") for function in decorated(path)]
    owning = {name for name, decorators, _ in functions if "owning" in decorators}
    assert "scratch" in owning
    assert [
        (name, calls & owning) for name, decorators, calls in functions if "inner" in decorators and calls & owning
    ] == []


def test_no_folder_has_the_name_of_a_verb() -> None:
    """A package that is imported becomes an attribute of the one around it, in the place of the function."""
    assert not {path.stem for path in ROOT.iterdir()} & set(pipeline.__all__)


def test_no_test_module_imports_another() -> None:
    for file in (ROOT.parent / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                modules = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                assert not any(name.startswith("test_") for name in modules), f"{file} imports {node.module}"


def test_extras_are_imported_where_they_are_used() -> None:
    """What a plain installation lacks; a run on threads from disk to disk needs none of it."""
    extras = {"obstore", "distributed", "bokeh", "threadpoolctl", "pyarrow", "hypothesis", "pytest", "xarray"}
    code = "import pipeline.api, pipeline.verbs.lazy, pipeline.verbs.verify, pipeline.output.remote, pipeline.cli.main"
    assert imported(code, extras) == []
