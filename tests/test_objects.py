"""Object stores: the same pixels from s3:// and http:// as from a disk, faults that pass, secrets that stay away."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline import api
from pipeline.errors import InputError, RunStopped
from pipeline.storage import object_folder, retry
from pipeline.storage.folder import Access, folder_at
from tests import harness
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


@pytest.fixture
def bucket(server: S3, request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    return server.make_bucket(f"{name}-{os.getpid()}")


def image() -> harness.Raster:
    values = np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)
    return harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2))


def upload(server: S3, folder: Path, url: str) -> str:
    """Copy a folder to a prefix."""
    target = folder_at(url, Access(**server.storage))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target.replace(str(path.relative_to(folder)), path.read_bytes())
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
    facts = api.run(document(server, remote, tmp_path / "out.zarr"), resume=True)
    assert facts["blocks"] + facts["blocks_skipped"] == 4 or facts["blocks"] > 0


def test_a_chunk_that_is_damaged_is_named(server: S3, bucket: str, tmp_path: Path) -> None:
    harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    folder = folder_at(remote, Access(**server.storage))
    chunk = next(p for p in sorted((tmp_path / "scene.zarr").rglob("*")) if p.match("c/1/2/0"))
    key = str(chunk.relative_to(tmp_path / "scene.zarr"))
    folder.replace(key, chunk.read_bytes()[:40])
    with pytest.raises(RunStopped, match=rf"{key}.*(damaged|header says)"):
        api.run(document(server, remote, tmp_path / "out.zarr"))


def test_an_input_that_changes_meanwhile_is_noticed(
    server: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.store(image(), tmp_path / "scene.zarr")
    remote = upload(server, tmp_path / "scene.zarr", f"{bucket}/scene.zarr")
    folder = folder_at(remote, Access(**server.storage))
    execute = api.execute

    def change(*arguments: Any) -> Any:
        done = execute(*arguments)
        folder.replace("added", b"something")
        return done

    monkeypatch.setattr(api, "execute", change)
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
    told = [json.dumps(facts).encode(), *(text.encode() for text in capfd.readouterr())]
    for value in CREDENTIALS.values():
        assert all(value.encode() not in text for text in (*written, *told))
