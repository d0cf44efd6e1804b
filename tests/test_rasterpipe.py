"""The name of the distribution is a name of the package, too."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import pytest

import pipeline
from tests.sources import PROJECT

SAME = {
    "package": "import rasterpipe, pipeline; assert rasterpipe is pipeline",
    "package, the other way": "import pipeline, rasterpipe; assert rasterpipe is pipeline",
    "function": "from rasterpipe import run, __version__; import pipeline; assert run is pipeline.run",
    "module": "import rasterpipe.api as a, pipeline.api as b; assert a is b is sys.modules['rasterpipe.api']",
    "module from": "from rasterpipe import api; import pipeline.api; assert api is pipeline.api",
    "class": (
        "from rasterpipe.operations.window import Window as A; from pipeline.operations.window import Window as B; "
        "from pipeline.operations.registry import registry; assert A is B is registry()['window']"
    ),
    "its own spec": (
        "import rasterpipe.operations.window as w; assert w.__spec__.name == w.__name__ == 'pipeline.operations.window'"
    ),
    "class in a pickle": (
        "import pickle; from rasterpipe.operations.window import Window; "
        "assert b'rasterpipe' not in pickle.dumps(Window)"
    ),
    "nothing": "import rasterpipe\ntry: import rasterpipe.nothing\nexcept ModuleNotFoundError: pass\nelse: assert 0",
    "reloaded": "import importlib, rasterpipe.model.version as v; assert importlib.reload(v) is v",
}


def test_the_wheel_has_both_names() -> None:
    targets = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["packages"] == ["pipeline", "rasterpipe"]


def python(*arguments: str) -> Any:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=PROJECT)


@pytest.mark.parametrize("case", SAME)
def test_it_is_the_same_module(case: str) -> None:
    done = python("-c", f"import sys\n{SAME[case]}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["pipeline", "rasterpipe"])
def test_it_runs_as_a_module(name: str) -> None:
    done = python("-m", name, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert pipeline.__version__ in done.stdout


def test_it_costs_nothing_heavy() -> None:
    done = python("-c", "import rasterpipe, sys; print(sorted({'numpy', 'dask', 'numba', 'zarr'} & set(sys.modules)))")
    assert done.stdout == "[]\n"
