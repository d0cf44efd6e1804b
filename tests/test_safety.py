"""Nothing leaves the places it is given: paths of inputs and outputs, and text that never becomes code."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

from pipeline import api
from pipeline.model.errors import InputError, OutputError, PipelineError
from pipeline.storage.folder.metadata import InputStore, is_plain
from pipeline.storage.input import Choice
from pipeline.storage.zarr.reader import ZarrReader
from tests.sources import ROOT, modules

STEP = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A group with a raster, beside another store that it must not reach."""
    for name in ("inside", "outside"):
        root = zarr.create_group(tmp_path / f"{name}.zarr")
        values = np.full((8, 9), 1 if name == "inside" else 2, "float32")
        root.create_array("image", data=values, chunks=(4, 4), dimension_names=("y", "x"))
    return tmp_path / "inside.zarr"


def configure(source: Any, target: Path, **output: Any) -> dict[str, Any]:
    document = {"inputs": {"image": source}, "steps": [STEP], "output": {"path": str(target), **output}}
    return document | {"run": {"memory": "1 GiB", "workers": 1}}


# --- names inside of stores ------------------------------------------------------------------------------------

OUTWARD = (
    "../outside.zarr/image",
    "/etc",
    "image/../../outside.zarr/image",
    "..",
    ".",
    "a//b",
    "image/",
    "a\\b",
    "a\0b",
)


@pytest.mark.parametrize("name", OUTWARD)
def test_names_of_arrays_stay_inside_of_the_store(store: Path, tmp_path: Path, name: str) -> None:
    message = r"the name of an array is relative to the store, without `\.\.`|character .* is not allowed"
    for source in ({"path": str(store), "array": name}, {"path": str(store), "arrays": ["image", name]}):
        with pytest.raises((InputError, PipelineError), match=message):
            api.plan(configure(source, tmp_path / "out.zarr"))
    with pytest.raises(InputError, match=message):
        api.info(store, name)


@pytest.mark.parametrize("name", OUTWARD)
def test_names_in_the_metadata_stay_inside_of_the_store(store: Path, name: str) -> None:
    path = store / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"] = {"ome": {"multiscales": [{"datasets": [{"path": name}]}]}}
    path.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="its `multiscales` path is "):
        ZarrReader(str(store))


@pytest.mark.parametrize("name", OUTWARD)
def test_coordinates_that_lead_outside_are_not_followed(store: Path, name: str) -> None:
    path = store / "image" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"] = {"coordinates": name, "grid_mapping": name}
    path.write_text(json.dumps(metadata))
    assert ZarrReader(str(store)).spec.transform is None
    metadata["dimension_names"] = [name, "x"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=r"pick one|dims are"):
        ZarrReader(str(store), Choice("image"))


def test_the_store_itself_refuses_keys_that_lead_outside(store: Path) -> None:
    inside = InputStore(store, read_only=True)
    for name in OUTWARD:
        assert not is_plain(name)
        with pytest.raises(InputError, match="leads out of the store"):
            zarr.core.sync.sync(inside.get(name))


def test_links_inside_of_an_input_are_followed(store: Path, tmp_path: Path) -> None:
    """People put stores together from links; what is read through one is read with the rights of who runs it."""
    (store / "linked").symlink_to(tmp_path / "outside.zarr" / "image")
    reader = ZarrReader(str(store), Choice("linked"))
    out = np.empty((8, 9), "float32")
    reader.read(reader.spec.region, out)
    assert (out == 2).all()
    (tmp_path / "whole.zarr").symlink_to(store)
    assert api.info(tmp_path / "whole.zarr", "image")["size"] == [8, 9]


def test_links_that_lead_nowhere_or_in_circles(store: Path) -> None:
    (store / "circle").symlink_to(store)
    (store / "nowhere").symlink_to(store / "absent")
    (store / "itself").symlink_to(store / "itself")
    chunk = store / "image" / "c" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to(chunk)
    reader = ZarrReader(str(store), Choice("image"))
    with pytest.raises(InputError, match=r"inside\.zarr"):
        reader.read(reader.spec.region, np.empty((8, 9), "float32"))
    with pytest.raises(InputError, match=r"inside\.zarr: (is a group and holds|cannot be listed)"):
        ZarrReader(str(store))


# --- outputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../up", "/etc", ".", "..", ".hidden", "", "a b", "a\nb", "é", "-x", "run/../../x"])
def test_names_of_steps_are_names(store: Path, tmp_path: Path, name: str) -> None:
    document = configure({"path": str(store), "array": "image"}, tmp_path / "out.zarr")
    document["steps"] = [{**STEP, "name": name}]
    with pytest.raises(PipelineError, match="name"):
        api.plan(document)
    document["steps"] = [STEP]
    document["output"]["keep"] = [f"smooth/{name}"]
    if name != "":
        with pytest.raises(PipelineError, match=r"output\.keep|smooth|unknown"):
            api.plan(document)


def test_everything_written_lies_below_the_output(store: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    api.run(configure({"path": str(store), "array": "image"}, tmp_path / "out.zarr"))
    new = set(tmp_path.rglob("*")) - before
    assert new
    assert all(tmp_path / "out.zarr" in (path, *path.parents) for path in new)


@pytest.mark.parametrize("way", ["inside", "equal", "around", "array", "linked", "dotted", "link inside"])
def test_outputs_in_inputs_and_the_reverse_are_refused(store: Path, tmp_path: Path, way: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path if way == "dotted" else store)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "below").symlink_to(store)
    target = {
        "inside": store / "result",
        "equal": store,
        "around": tmp_path,
        "array": store / "image" / "result.zarr",
        "linked": link / "result",
        "dotted": link / "far" / ".." / "inside.zarr" / "x",
        "link inside": tmp_path / "far" / "below" / "result",
    }[way]
    with pytest.raises(OutputError, match=r"lies (inside|around)|is also an input") as caught:
        api.run(configure({"path": str(store), "array": "image"}, target))
    assert caught.value.exit_code == 5


def test_inputs_given_through_links_protect_what_they_lead_to(store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.zarr"
    link.symlink_to(store)
    for target in (store / "result", store, link / "result"):
        with pytest.raises(OutputError, match=r"lies inside|is also an input"):
            api.run(configure({"path": str(link), "array": "image"}, target))
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    (tmp_path / "group" / "linked").symlink_to(store / "image")
    with pytest.raises(OutputError, match="lies inside"):
        api.run(configure({"path": str(tmp_path / "group"), "array": "linked"}, store / "image" / "result"))


@pytest.mark.parametrize("suffix", ["", ".work"])
@pytest.mark.parametrize("exists", [False, True])
def test_links_in_the_place_of_what_a_run_writes(store: Path, tmp_path: Path, suffix: str, exists: bool) -> None:
    """Neither is written to what they lead to, nor is it removed."""
    precious, target = tmp_path / "precious", tmp_path / "out.zarr"
    precious.mkdir()
    (precious / "file").write_text("kept")
    document = configure({"path": str(store), "array": "image"}, target)
    if exists and suffix:
        api.run(document)
    (tmp_path / f"out.zarr{suffix}").symlink_to(precious)
    with pytest.raises(OutputError, match="link"):
        api.run(document, overwrite=True)
    assert [path.name for path in precious.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ['"a\\0b"', '"\\ud800"', '"' + "a" * 5000 + '"'])
@pytest.mark.parametrize("place", ["inputs", "output"])
def test_paths_that_no_file_system_knows(store: Path, tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "pipeline.yaml"
    parts = {"inputs": str(store / "image"), "output": str(tmp_path / "out.zarr"), "scratch": str(tmp_path)}
    parts = {key: json.dumps(value) for key, value in parts.items()} | {place: text}
    path.write_text(
        f"inputs: {{image: {parts['inputs']}}}\nsteps: [{json.dumps(STEP)}]\n"
        f"output: {{path: {parts['output']}}}\nrun: {{scratch: {parts['scratch']}}}\n"
    )
    with pytest.raises((PipelineError, InputError, OutputError)) as caught:
        api.run(path)
    str(caught.value).encode()


# --- text that never becomes code ------------------------------------------------------------------------------

CODE = {"eval", "exec", "compile", "__import__", "execfile", "globals", "vars", "breakpoint", "input", "delattr"}
MODULES = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "code", "codeop", "runpy", "pty", "subprocess", "imp"),
    *("socketserver", "http", "ftplib", "telnetlib", "xmlrpc", "webbrowser", "jinja2"),
}
CALLS = {
    *("os.system", "os.popen", "os.startfile", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("np.fromregex", "np.fromfile", "joblib.load", "pd.read_pickle", "pd.eval", "pandas.eval", "ne.evaluate"),
    *("numexpr.evaluate", "builtins.eval", "builtins.exec", "tempfile.mktemp", "sympy.sympify", "ElementTree.parse"),
}
OWN = {
    "compilation.py": {"pickle", "subprocess"},
    "crew.py": {"pickle"},
    "task.py": {"pickle"},
    "probe.py": {"cloudpickle"},
    "server.py": {"http"},
    "view.py": {"webbrowser"},
}
"""What compiles kernels hands its own plan to a child of its own: the command is a constant, the pickle a pipe's.
The viewer serves this machine, when somebody asks for it, and opens the address of that in the browser.

Plans and passes go to the workers of a cluster as dask sends everything: pickled, to who is trusted to run code.
"""
IMPORTLIB = {
    "operations/registry.py": {"'pipeline.operations'", "f'{package.__name__}.{module.name}'"},
    "output/exports/base.py": {"package", "f'{package}.{module.name}'"},
    "execution/cluster/connection.py": {"cluster.module"},
    "verbs/doctor/packages.py": {"module"},
}
"""Imports by name: operations and exports of the package itself, found in its folders; a cluster, with trust; and
`doctor`, which reads no file of the user's, imports what the installed package needs, by its metadata."""


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


RUNNING = [path for path in modules() if not path.is_relative_to(ROOT / "testing")]
"""What a run may import: the tests of operations are for their authors."""


@pytest.mark.parametrize("path", RUNNING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_becomes_code(path: Path) -> None:
    """Nothing in the package can evaluate, import, unpickle or run what a file or an input says."""
    where = str(path.relative_to(ROOT))
    for name in imports(path):
        assert name.partition(".")[0] not in MODULES - OWN.get(path.name, set()), name
        assert name not in ("os.system", "os.popen", "builtins.eval", "builtins.exec", "yaml.load"), name
    for call in calls(path):
        name, keywords = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert name not in CODE, ast.unparse(call)
        assert name not in CALLS, ast.unparse(call)
        assert not name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "runpy.", "code.")), ast.unparse(call)
        assert keywords.get("allow_pickle", "False") == "False", ast.unparse(call)
        assert keywords.get("shell", "False") == "False", ast.unparse(call)
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False", f"{ast.unparse(call)}: say it"
        if name.endswith("import_module"):
            assert ast.unparse(call.args[0]) in IMPORTLIB.get(where, set()), ast.unparse(call)
        if name in ("setattr", "getattr") and len(call.args) > 1 and "config" in path.parts:
            assert ast.unparse(call.args[1]) in ("field", "name", "'name'", "'path'", "'CSafeLoader'"), ast.unparse(
                call
            )


def test_yaml_is_read_from_events_of_the_safe_loader() -> None:
    """`yaml.parse` builds nothing; the loader is the safe one, so a tag could build nothing either."""
    used = {
        ast.unparse(call.func)
        for path in modules()
        for call in calls(path)
        if ast.unparse(call.func).startswith("yaml")
    }
    assert used == {"yaml.parse"}
    from pipeline.config.node import _LOADER

    assert issubclass(_LOADER, yaml.SafeLoader | yaml.CSafeLoader)


EXPRESSIONS = (
    "__import__('os').system('touch ran')",
    "().__class__.__bases__[0].__subclasses__()",
    "b1.__class__",
    "open('ran', 'w')",
    "(lambda: b1)()",
    "[b1 for b1 in b1]",
    "b1 if open('ran', 'w') else b1",
    "exec('1')",
    "9 ** 9 ** 9 ** 9",
    "b1 " + "+ b1 " * 20_000,
    "(" * 20_000 + "b1" + ")" * 20_000,
    "-" * 20_000 + "b1",
    "b1\0",
    "'a' * 1000000000",
    "b1; b1",
    "b1 := 3",
    "f'{b1}'",
    "@b1",
)


@pytest.mark.parametrize("text", EXPRESSIONS, ids=lambda text: text[:24])
@pytest.mark.parametrize("step", [{"op": "calc", "field": "expression"}, {"op": "mask", "field": "where"}])
def test_expressions_are_a_language_of_their_own(
    store: Path, tmp_path: Path, text: str, step: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = configure({"path": str(store), "array": "image"}, tmp_path / "out.zarr")
    document["steps"] = [{"name": "made", "op": step["op"], step["field"]: text}]
    with suppress(PipelineError):
        api.plan(document)
    assert not (tmp_path / "ran").exists()


def test_text_from_files_is_fit_to_be_shown(store: Path) -> None:
    """Band names of a file reach the terminal and the output: no control characters, nothing that is no text."""
    root = zarr.open_group(store, mode="a")
    root.create_array("cube", data=np.zeros((3, 4, 2), "u1"), dimension_names=("y", "x", "band"))
    names = np.array(["\x1b[2Jred", "gr\u202een\n"], np.dtypes.StringDType())
    root.create_array("band", data=names, dimension_names=("band",))
    spec = ZarrReader(str(store), Choice("cube")).spec
    assert all(name.isprintable() for name in spec.bands)
    assert len(set(spec.bands)) == 2
    facts = api.info(store, "cube")
    assert "\x1b" not in json.dumps(facts.to_dict(), ensure_ascii=False)


def test_the_file_system_root_and_home_are_no_outputs(store: Path) -> None:
    source = {"path": str(store), "array": "image"}
    for target in ("/", os.path.expanduser("~")):
        with pytest.raises(OutputError):
            api.run(configure(source, Path(target)), overwrite=True)
