"""Kernels are compiled by children that share the work, into a cache that they share."""

from __future__ import annotations

import os
import pickle
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import pytest

import pipeline
from pipeline.block.compute import Computation
from pipeline.block.plan import StepPlan, Sweep
from pipeline.config import load_pipeline, resolve
from pipeline.execution import compilation
from pipeline.kernels import machine_code
from pipeline.model.raster import RasterSpec
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings

STEPS = [
    {"name": "slope", "op": "gradient", "input": "image", "bands": [1]},
    {"name": "bend", "op": "hessian", "input": "image", "bands": [1]},
    {"name": "small", "op": "cast", "input": "image", "dtype": "uint8", "nodata": 0},
    {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]},
    {"name": "colors", "op": "palette", "input": "image", "colors": 4},
    {"name": "poster", "op": "quantize", "input": "image", "palette": "colors"},
]


def plan_of(steps: list[dict[str, Any]], workers: int = 2) -> Plan:
    names = {"image": np.float32, "labels": np.int32} if "zones" in str(steps) else {"image": np.float32}
    config, _ = load_pipeline({"inputs": dict.fromkeys(names, "a.zarr"), "steps": steps, "output": {"path": "b.zarr"}})
    specs = {name: RasterSpec(64, 64, np.dtype(kind), ("y", "x"), ("b1",)) for name, kind in names.items()}
    inputs = {name: InputSpec(name, spec, (16, 16)) for name, spec in specs.items()}
    return make_plan(config.steps, resolve(config), inputs, Settings(memory_bytes=2**31, workers=workers))


def test_a_plan_is_shared_by_kinds_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    monkeypatch.setattr(compilation, "compute_pixels", lambda plan, is_mine: shares.append(is_mine))
    payload = pickle.dumps(plan_of(STEPS))
    compilation.compile_share(payload, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"Difference", "Cast", "Reduction"}
    assert len(shares) == 3
    compilation.compile_share(payload, str(tmp_path))  # all is claimed
    assert len(shares) == 3


@pytest.mark.parametrize("share", ["Difference", "Cast", "Reduction"])
def test_one_share_is_computed_without_the_others(share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names, apply, collect = set(), Computation.apply, Computation.collect

    def applied(self: Computation, step: StepPlan, *args: Any) -> None:
        names.add(step.name)
        apply(self, step, *args)

    def collected(self: Computation, sweep: Sweep, *args: Any) -> None:
        names.add(sweep.step.name)
        collect(self, sweep, *args)

    monkeypatch.setattr(Computation, "apply", applied)
    monkeypatch.setattr(Computation, "collect", collected)
    compilation.compute_pixels(plan_of(STEPS), share.__eq__)
    expected = {"Difference": {"slope", "bend"}, "Cast": {"small"}, "Reduction": {"zones", "colors", "poster"}}
    assert names == expected[share]


def run_with_cache(folder: Path, code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)} | variables
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_children_compile_all_that_a_plan_needs(tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(pickle.dumps(plan_of(STEPS[:3])))
    code = (
        "import pickle, sys\n"
        "from pipeline.execution import compilation\n"
        "from pipeline.execution.progress import Progress\n"
        "plan = pickle.load(open(sys.argv[1], 'rb'))\n"
        "compilation._compile_in_children(plan, Progress())\n"
        "compilation.compile_kernels(plan, Progress())\n"
    )
    done = run_with_cache(tmp_path / "cache", code, str(tmp_path / "plan"))
    said = sorted(done.communicate()[0].split("\n"))
    assert said == ["", "compiling 1 of 2: gradient, hessian", "compiling 2 of 2: cast"] or said == [
        *("", "compiling 1 of 2: cast", "compiling 2 of 2: gradient, hessian")
    ]


@pytest.mark.thorough
def test_processes_that_compile_one_kernel_at_once_do_not_mix_their_signatures(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy as np\n"
        "from numba.core.caching import IndexDataCacheFile\n"
        "from pipeline.kernels.validity import count_valid\n"
        "save = IndexDataCacheFile._save_index\n"
        "IndexDataCacheFile._save_index = lambda *arguments: (time.sleep(2), save(*arguments))\n"
        "print(*(count_valid(np.arange(9).astype(d), np.dtype(d).type(3)) for d in sys.argv[1:]))\n"
        "print(sum(count_valid.made.stats.cache_hits.values()))"
    )
    at_once = [run_with_cache(tmp_path, code, dtype) for dtype in ("uint8", "float64")]
    assert [process.communicate()[0].split() for process in at_once] == [["8", "0"]] * 2
    assert run_with_cache(tmp_path, code, "uint8", "float64").communicate()[0].split() == ["8", "8", "2"]


KERNELS = Path(machine_code.__file__).parent

INNER = "from pipeline.kernels.compile import inner\n\n\n@inner\ndef increased(value):\n    return value + {}\n"
OUTER = (
    "from pipeline.kernels.compile import kernel\nfrom pipeline.kernels.inside import increased\n\n\n"
    "@kernel\ndef increase(values):\n    values[0] = increased(values[0])\n"
)


def test_a_kernel_is_compiled_again_where_a_function_of_another_file_has_changed(tmp_path: Path) -> None:
    """Of the same length and date, as an update may leave it."""
    package = tmp_path / "pipeline"
    shutil.copytree(Path(pipeline.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\nfrom pipeline.kernels.outside import increase\n"
        "values = np.array([40])\nincrease(values)\nprint(values[0], sum(increase.made.stats.cache_hits.values()))"
    )
    (package / "kernels" / "outside.py").write_text(OUTER)
    for step, hits in ((2, 0), (2, 1), (3, 0), (3, 1)):
        (package / "kernels" / "inside.py").write_text(INNER.format(step))
        os.utime(package / "kernels" / "inside.py", (0, 0))
        for file in (package / "kernels" / "__pycache__").glob("inside*.pyc"):
            file.unlink()
        process = run_with_cache(tmp_path / "cache", code, str(tmp_path))
        assert process.communicate()[0].split() == [str(40 + step), str(hits)]


NAMED = (
    "from typing import NamedTuple\nfrom pipeline.kernels.compile import kernel\n\n\n"
    "class {0}(NamedTuple):\n    number: int\n\n\n"
    "@kernel\ndef increase(values, by):\n    values[0] += by.number\n\n\nmake = {0}\n"
)


def test_a_cache_that_holds_tuples_whose_class_is_gone_is_made_anew(tmp_path: Path) -> None:
    package = tmp_path / "pipeline"
    shutil.copytree(Path(pipeline.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\nfrom pipeline.kernels.named import increase, make\n"
        "values = np.array([40])\nincrease(values, make(2))\n"
        "print(values[0], sum(increase.made.stats.cache_hits.values()))"
    )
    for name, hits in (("Step", 0), ("Step", 1), ("Stride", 0), ("Stride", 1)):
        (package / "kernels" / "named.py").write_text(NAMED.format(name))
        process = run_with_cache(tmp_path / "cache", code, str(tmp_path))
        assert process.communicate()[0].split() == ["42", str(hits)]


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
def test_a_kernel_is_compiled_again_by_another_compiler(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine_code.stamp.__wrapped__(KERNELS)
    monkeypatch.setattr(sys.modules[package], "__version__", "999")
    assert machine_code.stamp.__wrapped__(KERNELS) != before == machine_code.stamp(KERNELS)


V3 = machine_code.PROCESSORS["x86_64"]["x86-64-v3"]
has_v3 = platform.machine() == "x86_64" and all(llvmlite.binding.get_host_cpu_features().get(name) for name in V3)


@pytest.mark.skipif(not has_v3, reason="kernels are carried for processors of x86-64-v3")
def test_kernels_that_a_package_carries_are_taken_unless_a_file_has_changed(tmp_path: Path) -> None:
    kernels = tmp_path / "pipeline" / "kernels"
    shutil.copytree(Path(pipeline.__file__).parent, kernels.parent, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\nfrom pipeline.kernels.outside import increase\n"
        "values = np.array([40])\nincrease(values)\nprint(values[0], sum(increase.made.stats.cache_hits.values()))"
    )
    (kernels / "outside.py").write_text(OUTER)
    (kernels / "inside.py").write_text(INNER.format(2))
    named = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}
    assert run_with_cache(tmp_path / "v3", code, str(tmp_path), **named).communicate()[0].split() == ["42", "0"]
    (kernels / "compiled" / "x86-64-v3").mkdir(parents=True)
    for file in (tmp_path / "v3").glob("**/*.nb[ci]"):
        shutil.copy(file, kernels / "compiled" / "x86-64-v3")
    assert run_with_cache(tmp_path / "own", code, str(tmp_path)).communicate()[0].split() == ["42", "1"]
    assert not list((tmp_path / "own").glob("**/*.nb[ci]"))
    (kernels / "inside.py").write_text(INNER.format(3))
    assert run_with_cache(tmp_path / "own", code, str(tmp_path)).communicate()[0].split() == ["43", "0"]
