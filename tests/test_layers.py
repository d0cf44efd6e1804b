"""Imports go downwards only: the layers of docs/design.md, walked."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import ROOT, modules

LAYERS = (
    {"cli", "__main__"},
    {"api", "verification", "recomputation", "expectation", "conversion"},
    {"job", "report", "quicklook", "lazy", "notes", "writes"},
    {"cluster", "compilation", "execution", "store", "place", "target", "synth", "table_file", "geotiff_file"},
    {"graph", "journal", "object_journal", "progress", "limits", "catalogue"},
    {"worker"},
    {"planning", "reduction"},
    {"passes"},
    {"storage", "operations", "config", "palette"},
    {"expression"},
    {"operation"},
    {"kernels"},
    {"raster", "grid", "region", "read_limits", "errors", "terminal"},
)
"""From the top; a module imports only modules of lower layers, or of its own."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Yield the layers that a module imports at run time (what it imports for type checking does not count)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts == ["pipeline"]:
                yield from (alias.name for alias in node.names if not alias.name.startswith("_"))
            elif parts[0] == "pipeline":
                yield parts[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("pipeline."))


def test_every_module_has_a_layer() -> None:
    assert {layer(path) for path in modules()} == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    own = LEVEL[layer(path)]
    upwards = [name for name in imported(path) if LEVEL[name] < own]
    assert not upwards, f"{path.name} imports from above: {upwards}"


@pytest.mark.parametrize(
    ("names", "allowed"), [({"yaml"}, {"config"}), ({"numba"}, {"kernels"}), ({"tifffile"}, {"storage"})]
)
def test_libraries_stay_in_their_layer(names: set[str], allowed: set[str]) -> None:
    for path in modules():
        tree = ast.parse(path.read_text())
        found = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert not (found & names) or layer(path) in allowed, path


def test_version_needs_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['rasterpipe', '--version']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'zarr', 'dask', 'numba', 'pydantic', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_planning_and_a_threads_run_need_neither_dask_array_nor_distributed() -> None:
    heavy = "{'dask.array', 'distributed', 'scipy.ndimage', 'tifffile'}"
    code = f"import sys, pipeline.api\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_loads_kernels_without_scipy_linalg() -> None:
    code = (
        "import sys; from pipeline import cli; cli._import_api()\n"
        "import numpy as np; from pipeline.kernels.validity import count_valid\n"
        "print(count_valid(np.ones(3, np.float32), np.float32(0)), 'scipy.linalg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 False"


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
