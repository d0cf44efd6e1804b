"""Object stores: the same pixels from s3:// and http:// as from a disk, faults that pass, secrets that stay away."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import obstore
import pytest
import tifffile
import zarr

from pipeline import api
from pipeline.execution.cluster.crew import Crew
from pipeline.execution.worker import PassWorker
from pipeline.model.errors import InputChanged, InputError, OutputError, PipelineError, RunStopped, UsageError
from pipeline.model.region import Axis, Grid
from pipeline.output import remote_journal as object_journal
from pipeline.output.store import RunStore
from pipeline.planning import fitting
from pipeline.storage.folder import remote as object_folder
from pipeline.storage.folder import retry
from pipeline.storage.folder.address import Access
from pipeline.storage.folder.base import RemoteError
from pipeline.storage.folder.open import folder_at
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.zarr.store import root_attributes
from pipeline.verbs import load as job_module
from pipeline.verbs import run as run_module
from pipeline.verbs.load import load
from tests import harness
from tests.dask_process import ROOT, DaskProcesses
from tests.s3_server import CREDENTIALS, S3, s3_server

SIDE, CHUNK = 96, 16
STEPS = [
    {"name": "smooth", "op": "window", "input": "image", "size": 5},
    {"name": "edges", "op": "gradient", "input": "smooth", "outputs": ["magnitude"]},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    server.control()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(object_folder, "RETRIES", 0)
    object_folder._connect.cache_clear()


BUCKETS = itertools.count(1)


@pytest.fixture
def bucket(server: S3, request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    return server.make_bucket(f"{name}-{os.getpid()}-{next(BUCKETS)}")


def image() -> harness.Raster:
    values = np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)
    return harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2))


def upload(server: S3, folder: Path, url: str) -> str:
    """Copy a folder to a prefix."""
    target = ObjectFolder(url, Access(**server.storage))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            obstore.put(target.objects, str(path.relative_to(folder)), path.read_bytes())
    return url


def document(server: S3, source: str, output: Path | str, **run: Any) -> dict[str, Any]:
    entry = {"path": source, "storage": server.storage} if "://" in source else {"path": source}
    return {
        "inputs": {"image": entry},
        "steps": STEPS,
        "output": {"path": str(output), "keep": ["smooth", "edges"], "chunks": [CHUNK, CHUNK]},
        "run": {"workers": 2, **run},
    }


def pixels(store: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    return {key: node[...] for key, node in group.members(max_depth=2) if isinstance(node, zarr.Array)}


def same(first: Path, second: Path) -> None:
    expected, found = pixels(first), pixels(second)
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


@pytest.mark.parametrize("shards", [None, (48, 48, 2)])
@pytest.mark.parametrize("halo", ["read", "exchange"])
def test_a_run_from_a_bucket_is_that_from_the_disk(
    server: S3, bucket: str, tmp_path: Path, halo: str, shards: tuple[int, ...] | None
) -> None:
    raster = harness.Raster(**{**vars(image()), "shards": shards})
    local = harness.store(raster, tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/data/scene.zarr")
    api.run(document(server, local, tmp_path / "local.zarr", halo=halo))
    server.control()
    facts = api.run(document(server, remote, tmp_path / "remote.zarr", halo=halo))
    same(tmp_path / "local.zarr", tmp_path / "remote.zarr")
    requests = Counter(method for method, _ in server.control())
    assert 0 < facts["requests"] <= requests["GET"]
    assert requests["LIST"] <= 4  # what the array is made of, before and after; never for a block


def test_what_passes_is_tried_again(server: S3, bucket: str, tmp_path: Path) -> None:
    local = harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    api.run(document(server, local, tmp_path / "local.zarr"))
    server.control(failures=3, seconds=0.01, where="/c/")
    facts = api.run(document(server, remote, tmp_path / "remote.zarr", retries=5))
    assert facts["retries"] > 0
    same(tmp_path / "local.zarr", tmp_path / "remote.zarr")


def test_what_lasts_stops_the_run_with_the_block(server: S3, bucket: str, tmp_path: Path) -> None:
    harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    server.control(failures=10**9, where="/c/2/2")
    with pytest.raises(
        RunStopped, match=r"block \d+ of .*scene\.zarr.*503.*tried 2 times.*--resume continues"
    ) as caught:
        api.run(document(server, remote, tmp_path / "out.zarr", retries=1))
    assert "Debug source" not in str(caught.value)
    server.control()
    assert api.run(document(server, remote, tmp_path / "out.zarr"), resume=True)["blocks"] > 0
    api.run(document(server, str(tmp_path / "scene.zarr"), tmp_path / "local.zarr"))
    same(tmp_path / "local.zarr", tmp_path / "out.zarr")


def test_a_chunk_that_is_damaged_is_named(server: S3, bucket: str, tmp_path: Path) -> None:
    harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    folder = ObjectFolder(remote, Access(**server.storage))
    chunk = next(p for p in sorted((tmp_path / "scene.zarr").rglob("*")) if p.match("c/1/2/0"))
    key = str(chunk.relative_to(tmp_path / "scene.zarr"))
    obstore.put(folder.objects, key, chunk.read_bytes()[:40])
    with pytest.raises(RunStopped, match=rf"{key}.*(damaged|header says)"):
        api.run(document(server, remote, tmp_path / "out.zarr"))


def test_an_input_that_changes_meanwhile_is_noticed(
    server: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    folder = folder_at(remote, Access(**server.storage))
    execute = run_module.execute

    def change(*arguments: Any, **options: Any) -> Any:
        done = execute(*arguments, **options)
        folder.replace("added", b"something")
        return done

    monkeypatch.setattr(run_module, "execute", change)
    with pytest.raises(InputError, match="changed while the run read it"):
        api.run(document(server, remote, tmp_path / "out.zarr"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://user:secret-word@bucket/a.zarr", r"^s3://bucket/a\.zarr: was given with a user, password or query"),
        ("https://host/a.zarr?X-Signature=secret-word", r"credentials come from the environment alone"),
        ("s3:///a.zarr", "names no bucket"),
    ],
)
def test_urls_that_are_refused(server: S3, tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match="(?m)" + message.replace("^", "")) as caught:
        api.run(document(server, path, tmp_path / "out.zarr"))
    assert "secret-word" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()


def test_what_is_needed_is_said(tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for source, target in (("s3://bucket/a.zarr", str(tmp_path / "out.zarr")), (scene, "s3://bucket/out.zarr")):
        with pytest.raises(UsageError, match=r"s3://bucket/.*: object stores need obstore; pip install"):
            api.run({"inputs": {"image": source}, "steps": STEPS, "output": {"path": target}})


def test_what_is_not_there(server: S3, bucket: str, tmp_path: Path) -> None:
    for path, message in (
        (f"{bucket}/nothing.zarr", "is not a Zarr array or group"),
        ("s3://no-such-bucket-here/a.zarr", "the bucket does not exist|is not a Zarr array"),
    ):
        with pytest.raises(InputError, match=message):
            api.run(document(server, path, tmp_path / "out.zarr"))


def test_no_secret_is_written(server: S3, bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    facts = api.run(document(server, remote, tmp_path / "out.zarr"), quiet=False)
    written = [path.read_bytes() for path in (tmp_path / "out.zarr").rglob("*.json")]
    told = [json.dumps(facts.to_dict()).encode(), *(text.encode() for text in capfd.readouterr())]
    for value in CREDENTIALS.values():
        assert all(value.encode() not in text for text in (*written, *told))


# --- results in a bucket -----------------------------------------------------------------------------------------


def to_bucket(server: S3, source: str, url: str, steps: list[Any] | None = None, **run: Any) -> dict[str, Any]:
    config = document(server, source, url, **run)
    config["output"]["storage"] = server.storage
    if steps is not None:
        config |= {"steps": steps}
        config["output"]["keep"] = [step["name"] for step in steps if step["op"] not in ("label_stats", "palette")]
    return config


def download(server: S3, url: str, folder: Path) -> Path:
    """Copy a prefix to a folder."""
    source = folder_at(url, Access(**server.storage))
    assert isinstance(source, ObjectFolder)
    for name in source.names():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read(name))
    return folder


def names(server: S3, url: str) -> list[str]:
    folder = folder_at(url, Access(**server.storage))
    assert isinstance(folder, ObjectFolder)
    return sorted(folder.names())


@pytest.fixture
def scene(tmp_path: Path) -> str:
    return harness.store(image(), tmp_path / "scene.zarr")


@pytest.mark.parametrize("shards", ["none", [48, 48]])
def test_a_result_in_a_bucket_is_that_on_the_disk(
    server: S3, bucket: str, tmp_path: Path, scene: str, shards: Any
) -> None:
    local, remote = document(server, scene, tmp_path / "local.zarr"), to_bucket(server, scene, f"{bucket}/a/out.zarr")
    for config in (local, remote):
        config["output"]["shards"] = shards
    api.run(local)
    server.control()
    facts = api.run(remote)
    requests = Counter(method for method, _ in server.control())
    assert facts["output"] == f"{bucket}/a/out.zarr"
    assert 0 < facts["requests"] <= sum(requests.values())
    same(tmp_path / "local.zarr", download(server, f"{bucket}/a/out.zarr", tmp_path / "copy.zarr"))
    assert names(server, f"{bucket}/a/out.zarr.work") == []
    found, expected = (root_attributes(str(tmp_path / name)) for name in ("copy.zarr", "local.zarr"))
    assert found is not None
    assert expected is not None
    assert {key: found[key] for key in ("complete", "plan_hash", "valid")} == {
        key: expected[key] for key in ("complete", "plan_hash", "valid")
    }


def test_a_result_in_a_bucket_is_an_input_again(server: S3, bucket: str, tmp_path: Path, scene: str) -> None:
    url = f"{bucket}/out.zarr"
    api.run(to_bucket(server, scene, url))
    again = {
        "inputs": {"image": {"path": url, "array": "smooth/mean", "storage": server.storage}},
        "steps": STEPS[:1],
        "output": {"path": str(tmp_path / "again.zarr")},
    }
    api.run(again)
    with pytest.raises(InputError, match=r"holds 2 rasters: edges/magnitude, smooth/mean; name one"):
        api.run(document(server, url, tmp_path / "other.zarr"))
    folder = folder_at(url, Access(**server.storage))
    assert isinstance(folder, ObjectFolder)
    folder.remove("smooth/mean/c/1/1/0")
    with pytest.raises(InputError, match=r"is the output of a run and lacks 1 of 36 chunk files.*smooth/mean/c/1/1/0"):
        api.run(again, overwrite=True)


def test_what_is_there_is_kept_unless_it_is_given_up(server: S3, bucket: str, scene: str) -> None:
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url)
    api.run(config)
    before = names(server, url)
    with pytest.raises(OutputError, match=r"out\.zarr: exists; --overwrite --in-place replaces it"):
        api.run(config)
    with pytest.raises(OutputError, match="add --in-place to --overwrite if that is meant"):
        api.run(config, overwrite=True)
    with pytest.raises(UsageError, match="give --overwrite too"):
        api.run(config, in_place=True)
    assert names(server, url) == before
    assert api.run(config, resume=True)["blocks"] == 0
    assert any("an object store has no renames" in note for note in api.plan(config)["notes"])
    other = to_bucket(server, scene, url, [{"name": "low", "op": "window", "input": "image", "size": 3}])
    with pytest.raises(OutputError, match="is of another plan: steps"):
        api.run(other, resume=True)
    api.run(other, overwrite=True, in_place=True)
    assert not any(name.startswith(("smooth", "edges")) for name in names(server, url))
    assert names(server, f"{url}.work") == []


SPELLINGS = (
    "s3://{b}/./r.zarr",
    "s3://{b}/x/../r.zarr",
    "s3://{b}/x/%2E%2E/r.zarr",
    "s3://{b}//r.zarr",
    "s3://{b}/r%2Ezarr",
    "s3://{b}/r.zarr/.",
    "S3://{b}/r.zarr",
    "s3://{b}:443/r.zarr",
    "s3://{b}/r.zarr?",
    "s3://{b}/r.zarr#",
    "s3://{b}/r.zarr ",
    "s3://{b}/./r.zarr/inner.zarr",
    "s3://{b}/r.zarr/x/../inner.zarr",
)
"""Of an output, for an input s3://BUCKET/r.zarr and what lies in it."""


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_input_by_another_spelling_is_not_destroyed(
    server: S3, bucket: str, tmp_path: Path, scene: str, spelling: str
) -> None:
    url = f"{bucket}/r.zarr"
    api.run(to_bucket(server, scene, url))  # bears our mark, so that --overwrite --in-place might replace it
    before = names(server, bucket)
    other = spelling.format(b=bucket.removeprefix("s3://"))
    source = {"path": url, "array": "smooth/mean", "storage": server.storage}
    with pytest.raises(OutputError, match=r"a store takes this for|was given with a user, password or query") as caught:
        api.run(to_bucket(server, url, other) | {"inputs": {"image": source}}, overwrite=True, in_place=True)
    assert caught.value.exit_code == 5
    with pytest.raises(InputError, match=r"a store takes this for|was given with a user, password or query"):
        api.info(other)
    assert names(server, bucket) == before


def test_a_key_is_what_the_address_shows(server: S3, bucket: str, scene: str) -> None:
    with pytest.raises(OutputError, match=rf"a%20b\.zarr: a store takes this for {bucket}/a b\.zarr; give that"):
        api.run(to_bucket(server, scene, f"{bucket}/a%20b.zarr"))
    key = "a b+é~*[1]100%.zarr"
    assert api.run(to_bucket(server, scene, f"{bucket}/{key}"))["output"] == f"{bucket}/{key}"
    assert {name.partition("/")[0] for name in names(server, bucket)} == {key}


def test_nothing_is_written_into_another_result(server: S3, bucket: str, scene: str) -> None:
    api.run(to_bucket(server, scene, f"{bucket}/r.zarr"))
    before = names(server, bucket)
    for name in ("inner.zarr", "smooth/mean/c/inner.zarr"):
        with pytest.raises(OutputError, match=r"lies inside another Zarr store, .*/r\.zarr"):
            api.run(to_bucket(server, scene, f"{bucket}/r.zarr/{name}"))
    assert names(server, bucket) == before


OTHERS = ("notes.txt", "mine.zarr/zarr.json", "smooth/mean/notes.txt")


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize(
    "name", ["smooth/mine/zarr.json", *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS)]
)
def test_what_somebody_has_put_below_a_result_is_not_deleted(
    server: S3, bucket: str, scene: str, name: str, is_complete: bool
) -> None:
    url = f"{bucket}/r.zarr"
    config = to_bucket(server, scene, url)
    if is_complete:
        api.run(config)
    else:
        if name == "smooth/mine/zarr.json":
            pytest.skip("an unfinished result has no list of its arrays yet")
        server.control(failures=10**9, method="PUT", where="/c/2/2")
        with pytest.raises(RunStopped):
            api.run(to_bucket(server, scene, url, retries=0))
        server.control()
    folder = ObjectFolder(url, Access(**server.storage))
    folder.put(name, b"{}")
    before = names(server, url)
    with pytest.raises(OutputError, match=rf"r\.zarr: is replaced where it lies, and holds {name}, which its run has"):
        api.run(config, overwrite=True, in_place=True)
    assert names(server, url) == before
    folder.remove(name)
    api.run(config, overwrite=True, in_place=True)


def test_what_is_not_ours_is_never_replaced(server: S3, bucket: str, tmp_path: Path, scene: str) -> None:
    url = upload(server, tmp_path / "scene.zarr", f"{bucket}/theirs.zarr")
    before = names(server, url)
    for options in ({}, {"overwrite": True, "in_place": True}, {"resume": True}):
        with pytest.raises(OutputError, match="is not an output of rasterpipe, so it is never replaced"):
            api.run(to_bucket(server, scene, url), **options)
    for path, message in (
        (bucket, "is a whole bucket"),
        (f"{url}/inner.zarr", "lies inside the input"),
        (url, "is also an input"),
    ):
        with pytest.raises(OutputError, match=message):
            api.run(to_bucket(server, url, path) | {"inputs": {"image": {"path": url, "storage": server.storage}}})
    with pytest.raises(OutputError, match="nothing is written through http"):
        api.run(to_bucket(server, scene, "http://127.0.0.1:9/out.zarr"))
    with pytest.raises(PipelineError, match=r"GeoTIFFs and OME-Zarr images are written to folders"):
        api.run(to_bucket(server, scene, f"{bucket}/out.tif", STEPS[:1]))
    assert names(server, url) == before


def test_a_chain_of_passes_and_tables(server: S3, bucket: str, tmp_path: Path, scene: str) -> None:
    """Intermediate results and tables of an output in a bucket."""
    steps = [
        *STEPS[:1],
        {"name": "cells", "op": "label_stats", "input": "smooth", "labels": "labels", "recolor": ["mean"]},
        {"name": "colors", "op": "palette", "input": "image", "colors": 5},
        {"name": "nearest", "op": "quantize", "input": "image", "palette": "colors"},
    ]

    def config(output: Path | str, **run: Any) -> dict[str, Any]:
        whole = to_bucket(server, scene, str(output), steps, **run)
        whole["inputs"]["labels"] = f"{tmp_path / 'scene.zarr'}"
        whole["output"]["keep"] = ["cells/mean", "nearest"]
        if "://" not in str(output):
            del whole["output"]["storage"]
        whole["inputs"]["labels"] = labels_beside(tmp_path)
        return whole

    url = f"{bucket}/out.zarr"
    with pytest.raises(PipelineError, match=r"run\.scratch: the tables of cells, colors are made in a folder before"):
        api.run(config(url))
    facts = api.run(config(url, scratch=str(tmp_path / "scratch")))
    api.run(config(tmp_path / "local.zarr"))
    copy = download(server, url, tmp_path / "copy.zarr")
    same(tmp_path / "local.zarr", copy)
    assert harness.stored_files(copy).keys() == harness.stored_files(tmp_path / "local.zarr").keys()
    assert {table["path"] for table in facts["tables"]} == {"cells/table", "colors/palette"}
    assert list((tmp_path / "scratch").iterdir()) == []


def labels_beside(folder: Path) -> str:
    path = folder / "labels.zarr"
    if not path.exists():
        array = zarr.create_array(
            path, shape=(SIDE, SIDE), chunks=(CHUNK, CHUNK), dtype="i4", dimension_names=("y", "x")
        )
        array[...] = np.random.default_rng(3).integers(0, 9, (SIDE, SIDE))
    return str(path)


# --- stopped, and continued --------------------------------------------------------------------------------------


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Have the run stop after so many blocks."""
    run_block = PassWorker.run_block
    done = itertools.count(1)

    def run(self: PassWorker, number: int) -> Any:
        if next(done) > after:
            raise OutputError("enough")
        return run_block(self, number)

    monkeypatch.setattr(PassWorker, "run_block", run)


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have blocks of a chunk, each of which is read by itself."""
    monkeypatch.setattr(fitting, "_coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    grid = Grid(Axis(0, SIDE, CHUNK), Axis(0, SIDE, CHUNK), 2**31)
    settings = job_module._settings
    monkeypatch.setattr(
        job_module,
        "_settings",
        lambda config, spec, cut: settings(config, spec, replace(cut, grids=cut.grids or (grid,))),
    )


def test_a_stopped_run_is_continued(
    server: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, halo="read")
    small_blocks(monkeypatch)
    with monkeypatch.context() as patch:
        stopping(patch, 11)
        with pytest.raises(RunStopped, match=r"enough.*--resume continues it"):
            api.run(config)
    assert names(server, f"{url}.work") == ["journal"]
    with pytest.raises(InputError, match="is the unfinished output of a run"):
        api.run({**config, "inputs": {"image": {"path": f"{url}/smooth/mean", "storage": server.storage}}})
    with pytest.raises(OutputError, match="an unfinished run is there; --resume continues it, --overwrite --in-place"):
        api.run(config)
    facts = api.run(config, resume=True)
    assert facts["blocks_skipped"] == 11
    assert facts["blocks"] == 36 - 11
    api.run(document(server, scene, tmp_path / "local.zarr", halo="read"))
    same(tmp_path / "local.zarr", download(server, url, tmp_path / "copy.zarr"))
    assert names(server, f"{url}.work") == []


RUN = """
import sys, json
from pipeline import api
from pipeline.output import journal, remote_journal as object_journal
object_journal.LEASE_SECONDS, journal.CHECKPOINT_SECONDS = 2.0, 0.2
api.run(json.loads(sys.argv[1]), resume=True)
"""


ELSEWHERE = """
import socket
from pipeline.output import remote_journal as object_journal
socket.gethostname, object_journal.boot_id = lambda: "elsewhere", lambda: "another start"
"""


@pytest.mark.thorough
@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_killed_again_and_again(
    server: S3, bucket: str, tmp_path: Path, scene: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, halo="read", workers=1)
    config["output"]["shards"] = "none"
    script = RUN if host == "here" else f"{ELSEWHERE}{RUN}"
    server.control(seconds=0.02)
    kills = 0
    while not is_complete(server, url):
        process = subprocess.Popen([sys.executable, "-c", script, json.dumps(config)], cwd=ROOT, stderr=subprocess.PIPE)
        while process.poll() is None and object_journal.LEASE not in names(server, f"{url}.work"):
            time.sleep(0.05)  # a busy machine takes long to begin
        try:
            process.communicate(timeout=1.5 + kills)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if kills == 1:
                monkeypatch.setattr(object_journal, "LEASE_SECONDS", 1000.0)
                if host == "elsewhere":
                    with pytest.raises(
                        OutputError, match=r"another run writes it \(host elsewhere, pid \d+, last sign"
                    ):
                        api.run(config, resume=True)
            continue
        assert process.returncode == 0 or host == "elsewhere"
    assert kills
    while names(server, f"{url}.work"):  # the last one was killed when its result was complete
        subprocess.run([sys.executable, "-c", script, json.dumps(config)], cwd=ROOT, stderr=subprocess.PIPE)
    api.run(document(server, scene, tmp_path / "local.zarr", halo="read"))
    same(tmp_path / "local.zarr", download(server, url, tmp_path / "copy.zarr"))
    assert names(server, f"{url}.work") == []


def is_complete(server: S3, url: str) -> bool:
    return (root_attributes(folder_at(url, Access(**server.storage))) or {}).get("complete") is True


def test_two_runs_on_one_output(server: S3, bucket: str, scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url)
    folder = folder_at(f"{url}.work", Access(**server.storage))
    assert isinstance(folder, ObjectFolder)
    first = object_journal.ObjectJournal(folder, url, None)
    with pytest.raises(
        OutputError, match=rf"another run writes it \(host .*, pid {os.getpid()}, last sign of life \d s"
    ):
        api.run(config)
    monkeypatch.setattr(object_journal, "LEASE_SECONDS", -1.0)  # as if the first one had been silent for long
    second = object_journal.ObjectJournal(folder.child(""), url, None)
    second.start({"run_id": "second"})
    with pytest.raises(RemoteError, match="another run has taken it over"):
        first.flush()
    first.close()
    assert names(server, f"{url}.work") == ["journal", "lease"]  # the second one's
    second.close()
    assert names(server, f"{url}.work") == ["journal"]


def test_the_store_is_away_for_a_while(
    server: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, retries=1)
    small_blocks(monkeypatch)
    server.control(failures=10**9, method="PUT", where="/mean/c/")
    with pytest.raises(RunStopped, match=r"block \d+ of 36 .*503.*tried 2 times.*--resume continues"):
        api.run(config)
    server.control(failures=4, method="PUT", where="/mean/c/")
    facts = api.run(to_bucket(server, scene, url, retries=8), resume=True)
    assert facts["retries"] > 0
    api.run(document(server, scene, tmp_path / "local.zarr"))
    same(tmp_path / "local.zarr", download(server, url, tmp_path / "copy.zarr"))


# --- on a cluster ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("halo", ["read", pytest.param("exchange", marks=pytest.mark.thorough)])
def test_a_cluster_between_buckets(server: S3, bucket: str, tmp_path: Path, scene: str, halo: str) -> None:
    source = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    with DaskProcesses(tmp_path) as cluster:  # whose workers have the credentials of this environment
        cluster.start_worker()
        cluster.start_worker()
        facts = api.run(to_bucket(server, source, f"{bucket}/out.zarr", scheduler=cluster.address, halo=halo))
    assert facts["requests"] > 0
    api.run(document(server, scene, tmp_path / "local.zarr"))
    same(tmp_path / "local.zarr", download(server, f"{bucket}/out.zarr", tmp_path / "copy.zarr"))
    assert names(server, f"{bucket}/out.zarr.work") == []


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Another server, with buckets of the same names."""
    with s3_server(tmp_path_factory.mktemp("other")) as server:
        yield server


def refused_with_workers_at(
    endpoint: str, server: S3, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return why a run is refused whose store is named by the environment: by another one for one of two workers."""
    for entry in (config["inputs"]["image"], config["output"]):
        entry.pop("storage", None)
    with DaskProcesses(tmp_path) as cluster:
        cluster.start_worker(environment={"AWS_ENDPOINT_URL": server.endpoint})
        cluster.start_worker(environment={"AWS_ENDPOINT_URL": endpoint})
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        config["run"]["scheduler"] = cluster.address
        with pytest.raises(PipelineError) as caught:
            api.run(config)
    title, *lines = str(caught.value).splitlines()
    assert title.endswith("workers cannot take part in the run:")
    assert len(lines) == 1
    address, _, text = lines[0].strip().partition(": ")
    assert address.startswith("tcp://127.0.0.1:")
    assert "," not in address
    assert "let all ask the same store, by `storage: {endpoint: ...}`" in text
    return text


@pytest.mark.thorough
def test_workers_that_cannot_reach_the_store(
    server: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = document(server, upload(server, Path(scene), f"{bucket}/scene.zarr"), tmp_path / "out.zarr")
    text = refused_with_workers_at("http://127.0.0.1:9", server, config, tmp_path, monkeypatch)
    assert text.startswith(f"cannot reach {bucket}/scene.zarr/zarr.json: ")
    assert not list(tmp_path.glob("out.zarr*"))


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (2, "uint16", "sees another raster at {} (c/0/0/0 is another one)"),
        pytest.param(1, "uint32", "sees another raster at {} (zarr.json is another one)", marks=pytest.mark.thorough),
        pytest.param(0, "", "finds nothing at {};", marks=pytest.mark.thorough),
    ],
)
def test_workers_see_another_raster(
    server: S3,
    other: S3,
    bucket: str,
    tmp_path: Path,
    scene: str,
    monkeypatch: pytest.MonkeyPatch,
    scale: int,
    dtype: str,
    message: str,
) -> None:
    url = upload(server, Path(scene), f"{bucket}/scene.zarr")
    other.make_bucket(bucket.removeprefix("s3://"))
    if scale:
        raster = image()
        changed = harness.Raster(**{**vars(raster), "values": (raster.values * scale).astype(dtype)})
        upload(other, Path(harness.store(changed, tmp_path / "changed.zarr")), url)
    config = document(server, url, tmp_path / "out.zarr")
    text = refused_with_workers_at(other.endpoint, server, config, tmp_path, monkeypatch)
    assert text.startswith(message.format(url))
    assert not list(tmp_path.glob("out.zarr*"))


@pytest.mark.thorough
@pytest.mark.parametrize("endpoint", ["other", "nobody"])
def test_workers_that_would_write_to_another_store(
    server: S3, other: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    other.make_bucket(bucket.removeprefix("s3://"))
    config = to_bucket(server, scene, f"{bucket}/out.zarr")
    place = other.endpoint if endpoint == "other" else "http://127.0.0.1:9"
    server.control()
    text = refused_with_workers_at(place, server, config, tmp_path, monkeypatch)
    known = {"other": "finds nothing of this run at", "nobody": "cannot write to"}[endpoint]
    assert text.startswith(f"{known} {bucket}/out.zarr.work")
    assert names(server, bucket) == names(other, bucket) == []
    wrote = [path.rpartition("/")[2] for method, path in server.control() if method == "PUT"]
    assert wrote.index("lease") < wrote.index("client")  # nobody else is there


@pytest.mark.thorough
def test_a_worker_that_joins_late_with_another_store_stops_the_run(
    server: S3, other: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = document(server, upload(server, Path(scene), f"{bucket}/scene.zarr"), tmp_path / "out.zarr")
    del config["inputs"]["image"]["storage"]
    other.make_bucket(bucket.removeprefix("s3://"))
    small_blocks(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    with DaskProcesses(tmp_path) as cluster:
        cluster.start_worker()
        prepare = Crew.prepare

        def join(*arguments: Any) -> float:
            seconds = prepare(*arguments)
            cluster.start_worker(environment={"AWS_ENDPOINT_URL": other.endpoint})
            return seconds

        monkeypatch.setattr(Crew, "prepare", join)
        config["run"]["scheduler"] = cluster.address
        with pytest.raises(RunStopped, match=r"joined that cannot take part: finds nothing at s3://.*scene\.zarr;"):
            api.run(config)
        monkeypatch.setattr(Crew, "prepare", prepare)
        cluster.kill_worker()
        api.run(config, resume=True)
    api.run(document(server, scene, tmp_path / "local.zarr"))
    same(tmp_path / "local.zarr", tmp_path / "out.zarr")


# --- other doors -------------------------------------------------------------------------------------------------


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """A server of files, which lists nothing that obstore reads."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_input_from_a_web_server(http: str, scene: str, tmp_path: Path) -> None:
    inputs = {"image": f"{http}/scene.zarr"}
    config: dict[str, Any] = {"inputs": inputs, "steps": STEPS, "output": {"path": str(tmp_path / "out.zarr")}}
    api.run(config)
    api.run({**config, "inputs": {"image": scene}, "output": {"path": str(tmp_path / "local.zarr")}})
    same(tmp_path / "local.zarr", tmp_path / "out.zarr")
    named = {"path": f"{http}/local.zarr", "array": "edges/magnitude"}
    api.run({**config, "inputs": {"image": named}, "output": {"path": str(tmp_path / "again.zarr")}})
    assert api.info(f"{http}/local.zarr/edges/magnitude")["shape"] == [SIDE, SIDE, 2]


def test_metadata_that_a_group_has_gathered_suffice(http: str, tmp_path: Path) -> None:
    values = np.arange(48, dtype="int16").reshape(6, 8)
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.create_array("image", data=values, chunks=(3, 8), attributes={"_ARRAY_DIMENSIONS": ["y", "x"]})
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    for file in (tmp_path / "a.zarr" / "image").glob(".z*"):
        file.unlink()
    facts = api.convert(f"{http}/a.zarr", tmp_path / "b.tif", array="image", quiet=True)
    assert facts["outputs"][0]["valid_fraction"] == 1
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), values)


def test_verify_and_convert_from_a_bucket(
    server: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    api.convert(scene, f"{bucket}/scene.zarr")
    config = {"inputs": {"image": f"{bucket}/scene.zarr"}, "steps": STEPS, "output": {"path": f"{bucket}/out.zarr"}}
    api.run(config)
    assert api.verify(f"{bucket}/out.zarr", seed=1)["agrees"]
    folder = folder_at(f"{bucket}/out.zarr")
    assert isinstance(folder, ObjectFolder)
    (first, *_) = [name for name in folder.names() if "/c/" in name and "edges/magnitude" in name]
    folder.remove(first)
    facts = api.verify(f"{bucket}/out.zarr", seed=1)
    assert not facts["agrees"]
    assert first in facts["problems"][0]
    api.convert(f"{bucket}/scene.zarr", tmp_path / "scene.tif")
    assert api.info(tmp_path / "scene.tif")["shape"] == [SIDE, SIDE, 2]


def test_killed_while_an_unfinished_store_is_given_up(
    server: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of the run that is given up must not vouch for chunks that are already removed."""
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, halo="read")
    small_blocks(monkeypatch)
    with monkeypatch.context() as patch:
        stopping(patch, 30)
        with pytest.raises(RunStopped):
            api.run(config)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.output.store.create_store", dying)
        with pytest.raises(SystemExit):
            api.run(config, overwrite=True, in_place=True)
    assert names(server, url) == ["zarr.json"]
    assert not is_complete(server, url)
    assert api.run(config, resume=True)["blocks_skipped"] == 0
    api.run(document(server, scene, tmp_path / "local.zarr"))
    same(tmp_path / "local.zarr", download(server, url, tmp_path / "copy.zarr"))


def dying(*arguments: Any) -> None:
    raise SystemExit


def test_a_lease_whose_answer_is_lost(server: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_at(f"{bucket}/out.zarr.work", Access(**server.storage))
    assert isinstance(folder, ObjectFolder)
    journal = object_journal.ObjectJournal(folder, "out.zarr", None)
    put = obstore.put

    def again(*arguments: Any, **options: Any) -> Any:
        put(*arguments, **options)
        return put(*arguments, **options)  # as a client does that heard nothing

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", again)
        journal.flush()
    journal.flush()
    journal.close()
    assert names(server, f"{bucket}/out.zarr.work") == ["journal"]


@pytest.mark.parametrize("name", ["lease", "journal"])
def test_a_journal_that_is_refused_for_a_while(server: S3, bucket: str, scene: str, name: str) -> None:
    server.control(failures=3, method="PUT", where=f"out.zarr.work/{name}")
    assert api.run(to_bucket(server, scene, f"{bucket}/out.zarr"))["blocks"] > 0


@pytest.mark.parametrize(("where", "error"), [("/scene.zarr", InputError), ("/out.zarr", OutputError)])
def test_a_store_that_is_away_from_the_beginning(
    server: S3, bucket: str, tmp_path: Path, scene: str, where: str, error: type[Exception]
) -> None:
    source = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    server.control(failures=10**9, where=where)
    with pytest.raises(error, match=rf"{where}.*503"):
        api.run(to_bucket(server, source, f"{bucket}/out.zarr"))


# --- disturbed: nothing half done is taken for whole ------------------------------------------------------------


def put(url: str, name: str, data: bytes, server: S3) -> None:
    obstore.put(ObjectFolder(url, Access(**server.storage)).objects, name, data)


def get(url: str, name: str, server: S3) -> bytes:
    return ObjectFolder(url, Access(**server.storage)).read(name)


def before_block(monkeypatch: pytest.MonkeyPatch, acts: dict[int, Any]) -> None:
    """Let something happen before the n-th block begins."""
    run_block, begun = PassWorker.run_block, itertools.count(1)

    def run(self: PassWorker, number: int) -> Any:
        acts.get(next(begun), int)()
        return run_block(self, number)

    monkeypatch.setattr(PassWorker, "run_block", run)


@pytest.fixture
def local(server: S3, tmp_path: Path, scene: str) -> Path:
    """An undisturbed result."""
    api.run(document(server, scene, tmp_path / "local.zarr", halo="read"))
    return tmp_path / "local.zarr"


def test_a_single_404_is_no_fill_value(server: S3, bucket: str, tmp_path: Path, scene: str, local: Path) -> None:
    remote = upload(server, Path(scene), f"{bucket}/scene.zarr")
    server.control(failures=1, status=404, method="GET", where="/c/2/2")
    assert api.run(document(server, remote, tmp_path / "out.zarr"))["retries"] == 1
    same(local, tmp_path / "out.zarr")


def test_an_input_that_is_away_for_a_while(
    server: S3, bucket: str, tmp_path: Path, scene: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = upload(server, Path(scene), f"{bucket}/scene.zarr")
    config = document(server, remote, tmp_path / "out.zarr", retries=1, halo="read")
    small_blocks(monkeypatch)
    with monkeypatch.context() as patch:
        before_block(patch, {9: lambda: server.control(failures=10**9, status=404, method="GET", where="/c/")})
        with pytest.raises(RunStopped, match=r"c/\d/\d/0 was there when the run began, and is not now.*--resume"):
            api.run(config)
    server.control()
    assert api.run(config, resume=True)["blocks"] > 0
    same(local, tmp_path / "out.zarr")


def test_an_input_that_is_another_one_for_a_while(
    server: S3, bucket: str, tmp_path: Path, scene: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = upload(server, Path(scene), f"{bucket}/scene.zarr")
    config = document(server, remote, tmp_path / "out.zarr", halo="read")
    small_blocks(monkeypatch)
    first, other = get(remote, "c/4/4/0", server), get(remote, "c/0/0/0", server)
    with monkeypatch.context() as patch:
        acts = {5: partial(put, remote, "c/4/4/0", other, server), 34: partial(put, remote, "c/4/4/0", first, server)}
        before_block(patch, acts)
        with pytest.raises(InputChanged, match="c/4/4/0 is not as it was when the run began"):
            api.run(config)
    put(remote, "c/4/4/0", first, server)
    with pytest.raises(OutputError, match="the unfinished run cannot be continued"):
        api.run(config, resume=True)
    api.run(config, overwrite=True)
    same(local, tmp_path / "out.zarr")


def test_a_server_that_lists_nothing_and_finds_nothing(http: str, scene: str, tmp_path: Path) -> None:
    (Path(scene) / "c/2/3/0").unlink()
    inputs: dict[str, Any] = {"image": {"path": f"{http}/scene.zarr"}}
    config = {"inputs": inputs, "steps": STEPS, "output": {"path": str(tmp_path / "out.zarr")}, "run": {"retries": 1}}
    with pytest.raises(
        RunStopped, match=r"c/2/3/0 is not found; the server lists nothing.*`missing: fill` at the input"
    ):
        api.run(config)
    inputs["image"]["missing"] = "fill"
    api.run(config, overwrite=True)
    api.run({**config, "inputs": {"image": scene}, "output": {"path": str(tmp_path / "local.zarr")}})
    same(tmp_path / "local.zarr", tmp_path / "out.zarr")


@pytest.mark.parametrize("harm", [pytest.param("lost", marks=pytest.mark.thorough), "replaced"])
@pytest.mark.parametrize("when", ["between", "during"])
def test_a_finished_object_that_is_lost_is_computed_again(
    when: str, harm: str, server: S3, bucket: str, tmp_path: Path, scene: str, local: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, halo="read", workers=1)
    config["output"]["shards"] = "none"
    small_blocks(monkeypatch)

    def spoil() -> None:
        folder = ObjectFolder(url, Access(**server.storage))
        name = "smooth/mean/c/0/0/0"
        folder.remove(name) if harm == "lost" else put(url, name, b"something", server)

    with monkeypatch.context() as patch:
        if when == "between":
            stopping(patch, 11)
            with pytest.raises(RunStopped):
                api.run(config)
        else:
            before_block(patch, {20: spoil})
            if harm == "lost":
                assert api.run(config)["blocks_recomputed"] == 1
            else:  # what another one has put is not replaced
                with pytest.raises(RunStopped, match=r"was written by another run meanwhile.*--resume continues it"):
                    api.run(config)
    if when == "between":
        spoil()
    if (when, harm) != ("during", "lost"):
        facts = api.run(config, resume=True)
        assert (facts["blocks_recomputed"], facts["blocks"] > 0) == (when == "between", True)
    same(local, download(server, url, tmp_path / "copy.zarr"))
    assert names(server, f"{url}.work") == []


def test_a_client_that_slept_writes_nothing_into_the_run_that_took_over(
    server: S3, bucket: str, tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks, its metadata, its journal and its lease are refused by the store, whenever it wakes up."""
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, halo="read", workers=1)
    config["output"]["shards"] = "none"
    small_blocks(monkeypatch)
    other = {**config, "steps": [{**STEPS[0], "size": 9}, STEPS[1]]}
    taken: list[Any] = []

    def take_over() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(object_journal, "LEASE_SECONDS", -1.0)
            taken.append(api.run(other, overwrite=True, in_place=True))

    with monkeypatch.context() as patch:
        before_block(patch, {12: take_over})
        with pytest.raises(RunStopped, match=r"was written by another run meanwhile|another run has taken it over"):
            api.run(config)
    assert taken[0]["blocks"] == 36
    api.run({**document(server, scene, tmp_path / "local.zarr"), "steps": other["steps"]})
    same(tmp_path / "local.zarr", download(server, url, tmp_path / "copy.zarr"))
    assert is_complete(server, url)


def test_what_a_client_that_slept_puts_first_stops_the_other_which_continues(
    server: S3, bucket: str, tmp_path: Path, scene: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/out.zarr"
    config = to_bucket(server, scene, url, halo="read", workers=1)
    config["output"]["shards"] = "none"
    small_blocks(monkeypatch)
    with monkeypatch.context() as patch:
        before_block(patch, {3: partial(put, url, "smooth/mean/c/5/5/0", b"of an older run", server)})
        with pytest.raises(RunStopped, match="smooth/mean/c/5/5/0: was written by another run meanwhile"):
            api.run(config)
    api.run(config, resume=True)
    same(local, download(server, url, tmp_path / "copy.zarr"))


def test_a_store_that_does_not_heed_conditions_is_refused(server: S3, bucket: str, scene: str) -> None:
    server.control(blind=1)
    with pytest.raises(OutputError, match="the store writes where it was asked to write only if nobody else has"):
        api.run(to_bucket(server, scene, f"{bucket}/out.zarr"))
    assert names(server, f"{bucket}/out.zarr.work") == []
    assert names(server, f"{bucket}/out.zarr") == []


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),  # it is gone: a process of that number that began later is another one
        ({"space": "pid:[1]"}, True),
        ({"boot": "of another machine"}, True),
        ({"boot": "", "space": ""}, True),
    ],
)
def test_whose_lease_it_is(change: dict[str, str], refused: bool, server: S3, bucket: str, scene: str) -> None:
    """One host name and one number are not one process: containers, cloned machines."""
    url = f"{bucket}/out.zarr"
    owner = object_journal._own_process() | {"token": "x", "started": "1", "renewed": 0} | change
    put(f"{url}.work", "lease", json.dumps(owner).encode(), server)
    if not refused:
        assert api.run(to_bucket(server, scene, url))["blocks"] > 0
        return
    with pytest.raises(OutputError, match=r"another run writes it .*last sign of life"):
        api.run(to_bucket(server, scene, url))


def test_a_process_that_lives_keeps_its_lease(server: S3, bucket: str, scene: str) -> None:
    own = object_journal._own_process()
    for owner in (own, own | {"pid": 1, "started": object_journal._started(1)}):
        put(f"{bucket}/out.zarr.work", "lease", json.dumps(owner | {"token": "x", "renewed": 0}).encode(), server)
        with pytest.raises(OutputError, match="another run writes it"):
            api.run(to_bucket(server, scene, f"{bucket}/out.zarr"))


def test_a_result_is_complete_though_the_store_keeps_what_the_run_needed(
    server: S3, bucket: str, tmp_path: Path, scene: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/out.zarr"
    publish = RunStore.publish

    def fail(self: RunStore) -> None:
        publish(self)
        server.control(failures=10**9, status=500, method="POST")

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "publish", fail)
        facts = api.run(to_bucket(server, scene, url))
    assert any("could not be removed, which only the run needed" in text for text in facts["warnings"])
    server.control()
    same(local, download(server, url, tmp_path / "copy.zarr"))
    monkeypatch.setattr(object_journal, "LEASE_SECONDS", -1.0)  # this process has not ended
    assert api.run(to_bucket(server, scene, url), resume=True)["blocks"] == 0
    assert names(server, f"{url}.work") == []


@pytest.mark.parametrize(
    "where", ["out.zarr/zarr.json", "out.zarr/smooth", "out.zarr.work/lease", "out.zarr.work/journal"]
)
def test_a_store_that_may_not_be_written(server: S3, bucket: str, scene: str, where: str) -> None:
    server.control(failures=10**9, status=403, method="PUT", where=where)
    with pytest.raises(OutputError, match="access denied") as caught:
        api.run(to_bucket(server, scene, f"{bucket}/out.zarr"))
    assert caught.value.exit_code == 5
    server.control()
    assert api.run(to_bucket(server, scene, f"{bucket}/out.zarr"), resume=True)["blocks"] > 0


@pytest.mark.thorough
def test_more_objects_than_a_page_lists(server: S3, bucket: str, tmp_path: Path) -> None:
    values = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40)
    harness.store(harness.Raster(values, ("y", "x"), chunks=(1, 1)), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    known = ObjectFolder(remote, Access(**server.storage)).list_files()
    assert known is not None
    assert known.num_files == 1600
    ObjectFolder(remote, Access(**server.storage)).remove("c/39/39")
    (reader,) = load(document(server, remote, tmp_path / "x.zarr")).readers.values()
    assert "1 of 1600 chunk files" in " ".join(reader.describe()["warnings"])
