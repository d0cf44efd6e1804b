"""Operations of other packages: found, named with their owner, refused where unfit, held to the contract."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline import api
from pipeline.cli import catalogue
from pipeline.cli.main import main
from pipeline.config import load_pipeline, schema
from pipeline.execution.cluster import look
from pipeline.execution.cluster.probe import PACKAGES, differences
from pipeline.model.errors import OutputError, PipelineError
from pipeline.model.version import __version__
from pipeline.operations import registry
from pipeline.operations.window import Window
from pipeline.verbs.load import load
from tests import harness
from tests.harness import Raster
from tests.sources import ROOT

HERE = ROOT.parent / "tests"
EXAMPLE = HERE / "plugin"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
POINTS = PROJECT["entry-points"]["rasterpipe.operations"]
Install = Callable[..., None]


def put(folder: Path, name: str, version: str, points: dict[str, str], **modules: str) -> None:
    """Install a distribution into a folder of the module search path, as pip would."""
    for old in folder.glob(f"{name.replace('-', '_')}-*.dist-info"):
        shutil.rmtree(old)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[rasterpipe.operations]", *lines]))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def put_example(folder: Path, version: str = PROJECT["version"]) -> None:
    shutil.copytree(EXAMPLE / "rasterpipe_example", folder / "rasterpipe_example", dirs_exist_ok=True)
    put(folder, PROJECT["name"], version, POINTS)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the module search path, in which our example is installed."""
    folder, modules = tmp_path / "site", set(sys.modules)
    put_example(folder)
    forget(monkeypatch, folder)
    yield folder
    for name in set(sys.modules) - modules:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    registry.known.cache_clear()


def forget(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Look again at what is installed, as the next process would."""
    monkeypatch.syspath_prepend(folder)
    registry.known.cache_clear()


@pytest.fixture
def install(site: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install something beside the example."""

    def add(name: str, version: str, points: dict[str, str], **modules: str) -> None:
        put(site, name, version, points, **modules)
        forget(monkeypatch, site)

    return add


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    values = np.arange(400, dtype=np.float32).reshape(20, 20) ** 2
    source = harness.store(Raster(values, ("y", "x"), chunks=(8, 8)), tmp_path / "in.zarr", with_labels=False)
    steps = [{"name": "edges", "op": "contrast"}]
    return {"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_ops_and_schema_say_whose_an_operation_is(site: Path) -> None:
    listed = call("ops").stdout
    assert "contrast     Each pixel minus the mean of its left and its right neighbour. (of rasterpipe-ex" in listed
    assert "note:" not in listed
    entries = {entry["op"]: entry for entry in json.loads(call("ops", "--json").stdout)["operations"]}
    assert entries["stretch"]["distribution"] == {"name": "rasterpipe-example", "version": "1.2"}
    assert "distribution" not in entries["window"]
    shown = call("ops", "contrast").stdout
    assert shown.startswith("contrast: Each pixel minus")
    assert "(of rasterpipe-example 1.2)" in shown.splitlines()[0]
    assert "needs around a block: 0 rows above, 0 below, 1 columns left, 1 right" in shown
    definitions = schema()["$defs"]
    assert definitions["Contrast"]["description"].endswith("(Of rasterpipe-example 1.2.)")
    assert "Of rasterpipe" not in definitions["Window"]["description"]
    assert "`contrast`" not in catalogue.operations_table()  # what is installed here is no matter of the README


def test_a_run_is_continued_by_the_same_version_alone(
    site: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = harness.Raster(np.arange(400, dtype=np.float32).reshape(20, 20) ** 2, ("y", "x")).values
    api.run(config)
    padded = np.pad(pixels, ((0, 0), (1, 1)), mode="symmetric")
    expected = pixels - (padded[:, :-2] * np.float32(0.5) + padded[:, 2:] * np.float32(0.5))
    np.testing.assert_array_equal(harness.read(Path(config["output"]["path"]), "edges/value")[0], expected)
    assert load(config).parts["operations"] == {"contrast": {"version": 1, "rasterpipe-example": "1.2"}}
    assert api.run(config, resume=True)["blocks"] == 0
    put_example(site, "1.3")
    forget(monkeypatch, site)
    with pytest.raises(OutputError, match=r'operations.contrast.rasterpipe-example was "1.2", is "1.3"'):
        api.run(config, resume=True)


def test_our_own_operations_are_told_by_their_version_alone(site: Path, config: dict[str, Any]) -> None:
    job = load({**config, "steps": [{"name": "smooth", "op": "window", "size": 3}]})
    assert job.parts["operations"] == {"window": Window.version}
    assert job.plan.distributions == []


def test_workers_must_have_the_same_version(site: Path, config: dict[str, Any]) -> None:
    distributions = load(config).plan.distributions
    assert distributions == ["rasterpipe-example"]
    here = look.look([], [], "", [*PACKAGES, *distributions])
    there = {**here, "versions": {**here["versions"], "rasterpipe-example": "1.1"}}
    without = {**here, "versions": {**here["versions"], "rasterpipe-example": ""}}
    assert list(differences(here, here)) == []
    assert list(differences(there, here)) == ["rasterpipe-example 1.1, here 1.2; install the same"]
    assert list(differences(without, here)) == ["rasterpipe-example is missing, here 1.2; install the same"]


def test_messages_say_whose_an_operation_is(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "inputs: {image: a.zarr}\nsteps:\n- {name: bright, op: stretch, low: 0, high: much}\noutput: {path: b.zarr}\n"
    )
    result = call("validate", str(file), "--no-inputs")
    assert result.exit_code == 3
    assert "steps[0] (bright).high: must be a number" in result.stderr
    assert "(stretch is an operation of rasterpipe-example 1.2)\n    - {name: bright, op: stretch" in result.stderr


def test_a_fault_is_its_owners(install: Install, config: dict[str, Any], tmp_path: Path) -> None:
    module = """
from typing import Literal
from rasterpipe_example.contrast import Contrast
class Faulty(Contrast):
    op: Literal["faulty"]
    def output_specs(self, specs):
        return {}["nothing"]
"""
    install("rasterpipe-faulty", "0.7", {"faulty": "faulty"}, faulty=module)
    file = tmp_path / "p.json"
    file.write_text(json.dumps({**config, "steps": [{"name": "a", "op": "faulty"}]}))
    result = call("plan", str(file))
    assert result.exit_code == 1
    assert result.stderr == "error: a fault of rasterpipe-faulty 0.7: KeyError: 'nothing'; --debug shows where\n"


def test_a_name_taken_twice_is_refused_with_both_owners(install: Install) -> None:
    module = """
from typing import Literal
from rasterpipe_example.contrast import Contrast
from tests.sources import PROJECT
class Mine(Contrast):
    op: Literal["contrast"]
class Window(Contrast):
    op: Literal["window"]
"""
    install("rasterpipe-other", "3.0", {"mine": "other:Mine", "window": "other:Window"}, other=module)
    twice = "the operation 'contrast' is taken twice, by rasterpipe-example 1.2 and by rasterpipe-other 3.0"
    ours = f"the operation 'window' is taken twice, by rasterpipe {__version__} and by rasterpipe-other 3.0; uninstall"
    assert f"note: {ours}" in call("ops").stdout
    for op, text in (("contrast", twice), ("window", ours)):
        assert op not in registry.registry()
        with pytest.raises(PipelineError) as caught:
            load_pipeline({"inputs": {"a": "a.zarr"}, "steps": [{"name": "s", "op": op}], "output": {"path": "b.zarr"}})
        assert text in str(caught.value)
        assert text in call("apply", op, "a.zarr", "b.zarr").stderr
    assert {"stretch", "gradient"} <= registry.registry().keys()


BROKEN = {
    "raises": ("raises", "import nothing_like_this", "ModuleNotFoundError: No module named 'nothing_like_this'"),
    "exits": ("exits", "import sys; sys.exit('bye')", "SystemExit: bye"),
    "absent": ("absent:Nothing", "", "AttributeError: module 'absent' has no attribute 'Nothing'"),
    "number": ("number:three", "three = 3", "3 is no Operation"),
    "empty": ("empty", "", "the module has no operations"),
    "nameless": (
        "nameless",
        "from pipeline.operations.base import Operation\nclass Nameless(Operation):\n    op: str = 'nameless'",
        'Nameless does not say what it is called; give it a field `op: Literal["name"]`',
    ),
    "hollow": (
        "hollow",
        "from typing import Literal\nfrom pipeline.operations.base import Operation\n"
        "class Hollow(Operation):\n    op: Literal['hollow']",
        "Hollow does not say output_specs and apply",
    ),
    "table": (
        "table",
        "from typing import Literal\nfrom pipeline.operations.base import Reduction\n"
        "class Sums(Reduction):\n    op: Literal['sums']\n    def table_spec(self, specs): ...",
        "Sums does not say partial and merge and fold and partial_bytes",
    ),
    "domain": (
        "domain",
        "from typing import Literal\nfrom rasterpipe_example.contrast import Contrast\n"
        "class Foreign(Contrast):\n    op: Literal['foreign']\n    domain = 'integer'",
        "Foreign.domain must be 'float' or 'native', got 'integer'",
    ),
}


def test_what_cannot_be_used_is_named_and_the_rest_works(install: Install) -> None:
    points = {name: value for name, (value, _, _) in BROKEN.items()}
    install("rasterpipe-broken", "0.1", points, **{name: source for name, (_, source, _) in BROKEN.items()})
    texts = [
        f"rasterpipe-broken 0.1: {name} = {value} cannot be used: {why}" for name, (value, _, why) in BROKEN.items()
    ]
    listed = call("ops").stdout
    for text in texts:
        assert f"note: {text}\n" in listed
    assert sorted(json.loads(call("ops", "--json").stdout)["notes"]) == sorted(texts)
    assert call("ops", "contrast").exit_code == 0
    with pytest.raises(PipelineError, match="unknown operation 'hollow'") as caught:
        load_pipeline({"inputs": {"a": "a"}, "steps": [{"name": "s", "op": "hollow"}], "output": {"path": "b.zarr"}})
    assert texts[list(BROKEN).index("hollow")] in str(caught.value)
    assert "rasterpipe-broken 0.1: hollow = hollow cannot be used" in call("ops", "hollow").stderr


def test_an_operation_without_an_example_is_described(install: Install) -> None:
    module = """
from typing import Literal
from rasterpipe_example.contrast import Contrast
class Mute(Contrast):
    op: Literal["mute"]
    example = ""
"""
    install("rasterpipe-mute", "0.1", {"mute": "mute"}, mute=module)
    assert call("ops", "mute").stdout.endswith("example:\n  - there is none\n  it cannot be planned\n")


def test_no_pipeline_file_names_a_module(site: Path) -> None:
    for op in ("rasterpipe_example.contrast:Contrast", "rasterpipe_example.contrast", "os:system"):
        with pytest.raises(PipelineError, match="unknown operation"):
            load_pipeline({"inputs": {"a": "a"}, "steps": [{"name": "s", "op": op}], "output": {"path": "b.zarr"}})


def hold(folder: Path, names: list[str], tests: str = "") -> dict[str, list[str]]:
    """Hold classes to the contract by pytest's option; return what fails of each, in words."""
    put_example(folder / "site")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "pipeline.testing.plugin", f"--junitxml={report}", "-k", tests]
    command += [f"--rasterpipe-operation=rasterpipe_example.{name}" for name in names]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(folder / "site")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "CI": "1",  # the same draws every time
    }
    command += [f"--basetemp={folder / 'temp'}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        texts = found.setdefault(case.attrib["classname"].rpartition(".")[2], [])
        texts += [fault.attrib["message"] for kind in ("failure", "error") for fault in case.iter(kind)]
    return found


@pytest.mark.thorough
def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    found = hold(tmp_path, ["tests:TestStretch", "tests:TestContrast"])
    assert found == {"TestStretch": [], "TestContrast": []}


def test_an_operation_is_held_to_the_contract_by_its_example(tmp_path: Path) -> None:
    assert hold(tmp_path, ["contrast:Contrast"], "reference or layout or explains") == {"TestContrast": []}


BREACHES = {
    "RunningSum": ("layout", "no running sum over a block"),
    "MoreScratch": ("float32", "and scratch_bytes says 0.0 MiB"),
    "OtherDtype": ("declares", "puts an array of float16 in the place of the output 'value', which is"),
    "HaloTooSmall": ("halo_is", "the halo is too small: halo() says 0 rows above, 0 below, 1 columns left, 0 right"),
    "PadsWithin": ("layout", "no padding within"),
    "HaloTooLarge": ("halo_is", "the halo is too large: halo() says 0 rows above, 0 below, 1 columns left, 2 right"),
    "ChangesInput": ("declares", "apply changes the block of its source 'input'"),
    "NotPicklable": ("pickling", "cannot be pickled, and so cannot go to workers"),
}
"""Operation -> the tests that must see what it breaks, and what they say."""


@pytest.mark.thorough
def test_an_operation_that_breaks_the_contract_is_told_what(tmp_path: Path) -> None:
    tests = " or ".join(f"({name} and {test})" for name, (test, _) in BREACHES.items())
    found = hold(tmp_path, [f"broken:{name}" for name in BREACHES], tests)
    for name, (_, words) in BREACHES.items():
        assert any(words in text for text in found[f"Test{name}"]), (name, found[f"Test{name}"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rasterpipe_example", "must read MODULE:CLASS"),
        ("nothing_like_this:Power", "cannot be imported: ModuleNotFoundError"),
        ("json:loads", "is neither an Operation nor an OperationContract"),
    ],
)
def test_the_option_of_pytest_says_what_is_wrong_with_it(name: str, words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "pipeline.testing.plugin", f"--rasterpipe-operation={name}"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert words in done.stderr


def test_the_option_costs_nothing_where_it_is_not_given() -> None:
    code = "import sys; before = set(sys.modules); import pipeline.testing.plugin; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded <= {
        *("pipeline", "pipeline.model", "pipeline.model.version", "pipeline.testing", "pipeline.testing.plugin"),
        *("__future__", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings", "_warnings"),
    }


@pytest.mark.parametrize("name", ["hypothesis", "pytest"])
def test_what_is_missing_is_said_with_the_extra(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; from pipeline.testing import OperationContract"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=False)
    wanted = f"ImportError: pipeline.testing needs {name}, which is not installed; pip install 'rasterpipe[test]'"
    assert done.stderr.splitlines()[-1] == wanted


def test_the_page_of_the_docs_is_the_example() -> None:
    page = (HERE.parent / "docs" / "own-operation.md").read_text()
    assert (EXAMPLE / "rasterpipe_example" / "stretch.py").read_text() in page
    assert 'stretch = "rasterpipe_example.stretch:Stretch"' in page
    assert "class TestStretch(OperationContract):\n    operation = Stretch\n" in page
