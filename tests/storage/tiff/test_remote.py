"""TIFFs in object stores: the pixels of the local file, few requests, and servers that fail, change and lie."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import rasterio
import tifffile
from rasterio.shutil import copy as gdal_copy

from pipeline import api
from pipeline.execution.cluster.sight import difference, marks_of
from pipeline.model.errors import InputChanged, InputError, RasterpipeError, RunStopped
from pipeline.model.raster import array_slices
from pipeline.model.read_limits import ReadLimits
from pipeline.model.region import Region
from pipeline.storage.folder import ranges, retry
from pipeline.storage.folder import remote as object_folder
from pipeline.storage.folder import request as object_request
from pipeline.storage.folder.address import Access
from pipeline.storage.folder.base import REQUESTS
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader, Traffic
from pipeline.storage.tiff import header
from pipeline.storage.tiff import reader as tiff
from pipeline.storage.tiff import remote as tiff_remote
from tests.dask_process import DaskProcesses
from tests.range_server import Behaviour, range_server
from tests.s3_server import CREDENTIALS, S3, s3_server

Web = tuple[str, Behaviour]
SIDE = 700
TRANSFORM = rasterio.Affine(10, 0, 5e5, 0, -10, 6e6)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(object_folder, "RETRIES", 0)
    object_folder._connect.cache_clear()
    tiff._reopen.cache_clear()
    with range_server(tmp_path) as served:
        yield served


def scene(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(5).integers(0, 4000, shape or (SIDE, SIDE)).astype(dtype)


def write(path: Path, values: np.ndarray, **options: Any) -> str:
    tifffile.imwrite(path, values, **({"photometric": "minisblack", "metadata": None} | options))
    return path.name


def write_cog(path: Path, values: np.ndarray, side: int = 256) -> str:
    """Write (band, row, column) as GDAL does: header first, then the overviews, then full resolution."""
    bands, height, width = values.shape
    shape: dict[str, Any] = {"height": height, "width": width, "count": bands, "dtype": values.dtype.name}
    place: dict[str, Any] = {"crs": "EPSG:32633", "transform": TRANSFORM}
    plain = path.with_name("plain.tif")
    with rasterio.open(plain, "w", driver="GTiff", **shape, **place) as file:
        file.write(values)
    gdal_copy(plain, path, driver="COG", blocksize=side, compress="deflate")
    plain.unlink()
    return path.name


def whole(reader: Reader) -> np.ndarray:
    out = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, out)
    return out


COMPRESSED: dict[str, Any] = {"compression": "zlib"}
LAYOUTS: dict[str, Callable[[Path], str]] = {
    "strips": lambda path: write(path, scene(), rowsperstrip=7, **COMPRESSED),
    "tiles": lambda path: write(path, scene(), tile=(128, 64), **COMPRESSED),
    "pixels": lambda path: write(path, scene(SIDE, SIDE, 3), planarconfig="contig", tile=(128, 128), **COMPRESSED),
    "planes": lambda path: write(path, scene(3, SIDE, SIDE), planarconfig="separate", tile=(128, 128), **COMPRESSED),
    "pages": lambda path: write(path, scene(3, SIDE, SIDE), tile=(128, 128), **COMPRESSED),
    "raw strips": lambda path: write(path, scene(), rowsperstrip=SIDE),
    "raw wide strips": lambda path: write(path, scene(20, 40_000), rowsperstrip=20),
    "raw tiles, big-endian BigTIFF": lambda path: write(path, scene(), tile=(256, 256), bigtiff=True, byteorder=">"),
    "cog": lambda path: write_cog(path, scene(2, SIDE, SIDE)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_regions_are_those_of_the_local_file(web: Web, tmp_path: Path, layout: str) -> None:
    """Also counted: what reading a region asks for is what `traffic` says."""
    url, served = web
    name = LAYOUTS[layout](tmp_path / "a.tif")
    local, reader = open_raster(str(tmp_path / name)), open_raster(f"{url}/{name}")
    assert reader.spec == local.spec
    expected, rng = whole(local), random.Random(layout)
    dims, bands = reader.spec.dims, reader.spec.num_bands
    for number in range(6):
        top, bottom = sorted(rng.sample(range(reader.spec.height + 1), 2))
        left, right = sorted(rng.sample(range(reader.spec.width + 1), 2))
        region = reader.spec.region if number == 0 else Region(top, bottom, left, right)
        wanted = None if bands == 1 else [rng.randrange(bands) for _ in range(rng.randint(1, 4))]
        part = expected[array_slices(dims, region)]
        part = part if wanted is None else np.take(part, wanted, dims.index("band"))
        out = np.full(part.shape, 77, part.dtype)
        served.log.clear()
        reader.read(region, out, wanted)
        np.testing.assert_array_equal(out, part)
        assert Traffic(len(served.gets), sum(served.gets)) == reader.traffic(region, wanted)


def test_a_header_is_one_request_or_two(web: Web, tmp_path: Path) -> None:
    url, served = web
    open_raster(f"{url}/{write_cog(tmp_path / 'a.tif', scene(1, SIDE, SIDE))}")
    assert served.log == [("GET", "/a.tif", header.FIRST_BYTES)]
    served.log.clear()
    long = write(tmp_path / "long.tif", np.zeros((20_000, 16), "uint8"), rowsperstrip=1, **COMPRESSED)
    reader = open_raster(f"{url}/{long}")  # tables of 240 KB
    assert [(method, path) for method, path, _ in served.log] == [("GET", "/long.tif")] * 2
    assert not whole(reader).any()


def test_directories_at_the_end_or_everywhere(web: Web, tmp_path: Path) -> None:
    url, served = web
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:  # each directory before its pixels
        for page in scene(5, SIDE, SIDE):
            file.write(page, photometric="minisblack", metadata=None, contiguous=False)
    np.testing.assert_array_equal(whole(open_raster(f"{url}/a.tif")), scene(5, SIDE, SIDE))
    served.log.clear()
    shape = {"height": SIDE, "width": SIDE, "count": 1, "dtype": "uint16", "transform": TRANSFORM}
    with rasterio.open(tmp_path / "b.tif", "w", driver="GTiff", **shape) as out:
        out.write(scene(), 1)
    with rasterio.open(tmp_path / "b.tif", "r+") as out:
        out.build_overviews([2, 4])
    np.testing.assert_array_equal(whole(open_raster(f"{url}/b.tif")), scene())


@pytest.mark.parametrize("seed", range(5))
def test_a_header_reads_as_the_file_and_fetches_nothing_twice(seed: int) -> None:
    rng, fetched = random.Random(seed), list[tuple[int, int]]()
    content = rng.randbytes(3_000_000)

    def fetch(start: int, stop: int) -> bytes:
        fetched.append((start, stop))
        return content[start:stop]

    head = content[: rng.randrange(1, 70_000)]
    far, near = header.Header(len(content), head, fetch, "a.tif", ReadLimits()), io.BytesIO(content)
    for _ in range(200):
        place = rng.choice([rng.randrange(3_100_000), rng.randrange(200_000), near.tell()])
        count = rng.choice([0, 1, 8, 5000, 100_000])
        assert far.seek(place) == near.seek(place)
        assert (far.read(count), far.tell()) == (near.read(count), near.tell()) or place > len(content)
    known = sorted([(0, len(head)), *fetched])
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(known))


def test_a_part_of_a_cog_fetches_its_part(web: Web, tmp_path: Path) -> None:
    """A tenth of the rows and of the columns: the tiles that they meet, and nothing else."""
    url, served = web
    path = tmp_path / "a.tif"
    write_cog(path, scene(1, 4000, 4000), side=128)
    config = {
        "inputs": {"image": f"{url}/a.tif"},
        "steps": [{"name": "part", "op": "select", "bands": [1]}],
        "region": {"bbox": [512_800, 5_983_360, 516_640, 5_987_200]},
        "output": {"path": str(tmp_path / "out.zarr")},
    }
    planned = api.plan(config)
    served.log.clear()
    facts = api.run(config)
    assert facts["outputs"][0]["shape"] == [384, 384]
    assert planned["fetch_bytes"] == facts["bytes_fetched"] < 0.013 * path.stat().st_size
    assert planned["requests"] == facts["requests"]
    stored = open_raster(str(tmp_path / "out.zarr"))
    np.testing.assert_array_equal(whole(stored).squeeze(), scene(1, 4000, 4000)[0, 1280:1664, 1280:1664])


def test_levels_images_and_masks(web: Web, tmp_path: Path) -> None:
    url, _ = web
    name = write_cog(tmp_path / "a.tif", scene(1, 2048, 2048))
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(scene(50, 60), metadata=None)
        file.write(scene(50, 70, dtype="uint8"), metadata=None)
    for place, choice in ((name, Choice(level=1)), (name, Choice(level=3)), ("b.tif", Choice(series=1))):
        local, reader = (open_raster(f"{base}/{place}", choice) for base in (tmp_path, url))
        assert reader.spec == local.spec
        np.testing.assert_array_equal(whole(reader), whole(local))
    with pytest.raises(InputError, match=rf"^{url}/a.tif: `level: 9`: the file has levels up to 3"):
        open_raster(f"{url}/{name}", Choice(level=9))


def test_info_finds_a_tiff_by_what_it_is(web: Web, tmp_path: Path) -> None:
    url, served = web
    (tmp_path / "a folder").mkdir()
    write(tmp_path / "a folder" / "scene", scene())
    (tmp_path / "text").write_bytes(b"no raster")
    facts = api.info(f"{url}/a%20folder/scene")
    assert (facts["format"], facts["shape"]) == ("TIFF", [SIDE, SIDE])
    assert facts["inputs_line"] == f"  image: {url}/a%20folder/scene"
    assert len(served.log) == 2
    with pytest.raises(InputError, match="is not a Zarr array or group"):
        api.info(f"{url}/text")


def test_what_nobody_knows_before_is_not_said(web: Web, tmp_path: Path) -> None:
    url, _ = web
    config = document(f"{url}/{LAYOUTS['tiles'](tmp_path / 'a.tif')}", tmp_path / "out.zarr")
    config["steps"][0]["boundary"] = "wrap"
    planned, facts = api.plan(config), api.run(config)
    assert planned["requests"] is planned["passes"][0]["fetch_bytes"] is None
    assert facts["requests"] > 0


def document(source: str, output: Path, **run: Any) -> dict[str, Any]:
    return {
        "inputs": {"image": source},
        "steps": [{"name": "smooth", "op": "window", "size": 5}],
        "output": {"path": str(output), "chunks": [100, 100]},
        "run": {"workers": 2, "memory": "700 MiB", "halo": "read"} | run,
    }


def same(first: Path, second: Path) -> None:
    np.testing.assert_array_equal(whole(open_raster(str(first))), whole(open_raster(str(second))))


RUNS: dict[str, dict[str, Any]] = {"all": {}, "region": {"region": {"rows": [90, 400], "columns": [100, 500]}}}


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("layout", ["tiles", "planes", "raw strips", "cog"])
def test_a_run_asks_for_what_its_plan_says(web: Web, tmp_path: Path, layout: str, case: str) -> None:
    """No tile twice, though blocks share it: requests and bytes are those of the plan, and of the server."""
    url, served = web
    name = LAYOUTS[layout](tmp_path / "a.tif")
    config = document(f"{url}/{name}", tmp_path / "remote.zarr") | RUNS[case]
    if layout == "planes":
        config["steps"] = [{**config["steps"][0], "bands": [3, 1]}]
    planned = api.plan(config)
    header_bytes = min(header.FIRST_BYTES, (tmp_path / name).stat().st_size)
    served.log.clear()
    facts = api.run(config)
    assert (planned["requests"], planned["fetch_bytes"]) == (facts["requests"], facts["bytes_fetched"])
    assert facts["requests"] > 0
    for_headers = 2  # when it begins, and when it ends
    assert len(served.gets) == facts["requests"] + for_headers
    assert sum(served.gets) == facts["bytes_fetched"] + for_headers * header_bytes
    api.run({**config, "inputs": {"image": str(tmp_path / name)}, "output": {"path": str(tmp_path / "local.zarr")}})
    same(tmp_path / "remote.zarr", tmp_path / "local.zarr")


def test_convert_there_and_verify(web: Web, tmp_path: Path) -> None:
    url, _ = web
    name = write_cog(tmp_path / "a.tif", scene(2, SIDE, SIDE))
    facts = api.convert(f"{url}/{name}", tmp_path / "out.zarr")
    assert facts["bytes_fetched"] > 0
    planes = np.moveaxis(whole(open_raster(str(tmp_path / name))), -1, 0)
    np.testing.assert_array_equal(whole(open_raster(str(tmp_path / "out.zarr"))), planes)
    assert api.verify(tmp_path / "out.zarr", everything=True)["agrees"]
    api.convert(f"{url}/{name}", tmp_path / "half.tif", level=1)
    api.convert(tmp_path / name, tmp_path / "local.tif", level=1)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "half.tif"), tifffile.imread(tmp_path / "local.tif"))


def test_a_stack_of_bands_here_and_there(web: Web, tmp_path: Path) -> None:
    url, _ = web
    names = [write(tmp_path / f"B0{n}.tif", scene() + n, tile=(128, 128), **COMPRESSED) for n in (2, 3)]
    config = document("", tmp_path / "out.zarr")
    config["inputs"] = {"image": {"stack": [f"{url}/{names[0]}", f"{url}/{names[1]}"]}}
    planned, facts = api.plan(config), api.run(config)
    assert planned["requests"] == facts["requests"] > 0
    config["inputs"] = {"image": {"stack": [str(tmp_path / name) for name in names]}}
    assert api.plan(config)["requests"] == 0
    api.run(config | {"output": {"path": str(tmp_path / "local.zarr")}})
    same(tmp_path / "out.zarr", tmp_path / "local.zarr")


# --- faults ------------------------------------------------------------------------------------------------------


def fail(served: Behaviour, fault: str, faults: int = 2**31, spared: int = 0) -> None:
    served.fault, served.faults, served.spared = fault, faults, spared


@pytest.mark.parametrize("fault", ["408", "429", "500", "503", "cut", "short"])
def test_what_passes_is_tried_again(web: Web, tmp_path: Path, fault: str) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    config = document(f"{url}/{name}", tmp_path / "out.zarr", retries=5)
    fail(served, fault, faults=3, spared=2)
    facts = api.run(config)
    assert facts["retries"] > 0
    api.run(document(str(tmp_path / name), tmp_path / "local.zarr"))
    same(tmp_path / "out.zarr", tmp_path / "local.zarr")


LIES = {
    "long": "more bytes came than the",
    "elsewhere": "not as it was|came, .* were asked for|Requested",
    "404": "was there when the run began, and is not now",
    "403": "access denied",
    "416": "not as it was when the run began",
    "whole": "the server sends no parts of files",
    "unknown": "the server sends no parts of files",
    "endless": "more bytes came than the",
    "503": "503 Service Unavailable.*tried 2 times",
    "cut": "tried 2 times",
    "short": "ended after .* bytes.*tried 2 times",
    "file:///etc/passwd": "302 Found|redirect",
    "ftp://127.0.0.1/a.tif": "error",
    "gopher://127.0.0.1:70/x": "error",
}


@pytest.mark.parametrize("fault", LIES)
def test_what_lasts_stops_a_run_and_gives_no_pixel(web: Web, tmp_path: Path, fault: str) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    fail(served, fault, spared=1)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((RunStopped, InputChanged), match=LIES[fault]) as caught:
        api.run(document(f"{url}/{name}", tmp_path / "out.zarr", retries=1))
    assert f"{url}/{name}" in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 2**10  # KiB
    if isinstance(caught.value, RunStopped):
        fail(served, "")
        assert api.run(document(f"{url}/{name}", tmp_path / "out.zarr"), resume=True)["blocks"] > 0


OPENING = {
    "403": "access denied",
    "404": "no such file",
    "416": r"is empty \(0 bytes\)",
    "503": "503 Service Unavailable",
    "cut": "HTTP error|ended",
    "short": "the answer ended after",
    "long": "more bytes came than the",
    "elsewhere": "Requested",
    "endless": "more bytes came than the",
    "huge": r"the server sends no parts of files, and of 1,099,511,627,776 bytes at most 268,435,456 are read whole",
    "unknown": "Content-Length Header missing",
    "file:///etc/passwd": "302 Found|redirect",
    "ftp://127.0.0.1/a.tif": "error",
}


@pytest.mark.parametrize("fault", OPENING)
def test_a_file_that_cannot_be_opened(web: Web, tmp_path: Path, fault: str) -> None:
    url, served = web
    LAYOUTS["tiles"](tmp_path / "a.tif")
    fail(served, fault)
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"^{url}/a.tif: .*({OPENING[fault]})"):
        open_raster(f"{url}/a.tif")
    assert time.monotonic() - started < 10


def test_a_redirect_on_the_web_is_followed(web: Web, tmp_path: Path) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    with range_server(tmp_path) as (elsewhere, _):
        fail(served, f"{elsewhere}/{name}")
        np.testing.assert_array_equal(whole(open_raster(f"{url}/{name}")), scene())


def test_a_server_that_sends_no_parts(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file is read once, and said; a large one is refused."""
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    size = (tmp_path / name).stat().st_size
    fail(served, "whole")
    reader = open_raster(f"{url}/{name}")
    assert (
        f"the server sends no parts of files, so all {size:,} bytes of it are read" in reader.describe()["warnings"][0]
    )
    np.testing.assert_array_equal(whole(reader), scene())
    assert reader.traffic(reader.spec.region) == Traffic(0, 0)
    assert served.gets == [size, size]  # obstore asks for a part first, and takes nothing of that
    fetched = REQUESTS.num_bytes
    again = open_raster(f"{url}/{name}")
    assert REQUESTS.num_bytes == fetched
    np.testing.assert_array_equal(whole(again), scene())
    served.tag = "second"
    open_raster(f"{url}/{name}")
    assert REQUESTS.num_bytes == fetched + size
    api.run(document(f"{url}/{name}", tmp_path / "out.zarr"))
    monkeypatch.setattr(tiff_remote, "WHOLE_BYTES", size - 1)
    with pytest.raises(InputError, match=rf"a.tif: the server sends no parts of files, and of {size:,} bytes at most"):
        open_raster(f"{url}/{name}")


def test_a_header_that_trickles(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, served = web
    LAYOUTS["tiles"](tmp_path / "a.tif")
    monkeypatch.setattr(object_request, "SECONDS", 0.5)
    served.seconds = 3
    with pytest.raises(InputError, match="timed out: no whole answer came within"):
        open_raster(f"{url}/a.tif")


def test_directories_all_over_a_file_are_refused(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, served = web
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in scene(9, 300, 300):
            file.write(page, photometric="minisblack", metadata=None, contiguous=False)
    monkeypatch.setattr(header, "WINDOW_LIMIT", 5)
    with pytest.raises(InputError, match=r"a.tif: its directories lie in more than 5 places, each a request; copy it"):
        open_raster(f"{url}/a.tif")
    assert len(served.log) == 6


def test_a_giant_that_is_none(web: Web, tmp_path: Path) -> None:
    """A header whose tables would be gigabytes, from a server that says there are."""
    url, _ = web
    name = write(tmp_path / "a.tif", np.zeros((64, 64), "uint8"), tile=(16, 16), bigtiff=True)
    with tifffile.TiffFile(tmp_path / name) as file:
        place = file.pages[0].tags[324].offset
    with (tmp_path / name).open("r+b") as file:
        file.seek(place + 4)
        file.write((2**32).to_bytes(8, "little"))
        file.truncate(2**36)
    before = REQUESTS.num_bytes
    with pytest.raises(InputError, match=r"the tags of its directories: .* bytes in memory, the limit is"):
        open_raster(f"{url}/{name}")
    assert REQUESTS.num_bytes - before < 2**17


# --- which file it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"tag": "second"}, {"tag": "", "modified": "Tue, 02 Jan 2024 00:00:00 GMT"}])
def test_a_file_that_is_replaced_is_seen(web: Web, tmp_path: Path, change: dict[str, str]) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    if not change["tag"]:
        served.tag = ""
    reader = open_raster(f"{url}/{name}")
    identity, sent = reader.identity(), pickle.dumps(reader)
    assert open_raster(f"{url}/{name}").identity() == identity
    np.testing.assert_array_equal(whole(pickle.loads(sent)), scene())
    tiff._reopen.cache_clear()
    vars(served).update(change)
    assert open_raster(f"{url}/{name}").identity() != identity
    for read in (lambda: whole(reader), lambda: pickle.loads(sent)):
        with pytest.raises(InputChanged, match=rf"{url}/{name}: is not as it was when the run began"):
            read()


def test_a_file_that_is_replaced_during_a_run(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    config = document(f"{url}/{name}", tmp_path / "out.zarr")
    requests = api.plan(config)["requests"]
    for spared in (2, 1 + requests):  # while blocks are read, and when all are
        answers = itertools.count()

        def replace(answers: Iterator[int] = answers, spared: int = spared) -> str:
            served.tag = "first" if next(answers) < spared else "second"
            return ""

        monkeypatch.setattr(served, "next_fault", replace)
        with pytest.raises(InputChanged, match=r"is not as it was|changed while the run read it"):
            api.run(config, overwrite=True)
        assert not (tmp_path / "out.zarr").exists()


def test_a_server_that_tells_nothing_of_changes(web: Web, tmp_path: Path) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    served.tag = served.modified = ""
    reader = open_raster(f"{url}/{name}")
    assert "the server says neither ETag nor Last-Modified" in reader.describe()["warnings"][0]
    np.testing.assert_array_equal(whole(reader), scene())


@pytest.mark.parametrize(
    "url",
    ["https://user:secret-word@host/a.tif", "https://host/a.tif?X-Signature=secret-word", "s3://b/a.tif#secret-word"],
)
def test_secrets_in_an_address_are_refused(url: str) -> None:
    with pytest.raises(RasterpipeError, match="was given with a user, password or query") as caught:
        api.info(url)
    assert "secret-word" not in str(caught.value)


# --- buckets and clusters ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(server: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    object_folder._connect.cache_clear()
    server.control()
    return server.make_bucket(f"scenes-{os.getpid()}-{random.randrange(2**32)}")


def upload(server: S3, bucket: str, path: Path, key: str) -> dict[str, Any]:
    """Put a file into a bucket; return it as an input."""
    obstore.put(ObjectFolder(bucket, Access(**server.storage)).objects, key, path.read_bytes())
    return {"path": f"{bucket}/{key}", "storage": server.storage}


def test_a_scene_in_a_bucket(server: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cog(tmp_path / "a.tif", scene(2, SIDE, SIDE))
    entry = upload(server, bucket, tmp_path / "a.tif", "deep/in it/scene é.tif")
    config = document("", tmp_path / "out.zarr") | {"inputs": {"image": entry}}
    server.control()
    facts = api.run(config)
    assert {method for method, _ in server.control()} == {"GET"}
    assert api.plan(config)["requests"] == facts["requests"] > 0
    api.run(document(str(tmp_path / "a.tif"), tmp_path / "local.zarr"))
    same(tmp_path / "out.zarr", tmp_path / "local.zarr")
    for value in CREDENTIALS.values():
        told = [json.dumps(facts.to_dict()), *(file.read_text() for file in tmp_path.rglob("zarr.json"))]
        assert all(value not in text for text in told)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert api.info(entry["path"])["shape"] == [SIDE, SIDE, 2]
    write_cog(tmp_path / "a.tif", scene(2, SIDE, SIDE) + 1)
    upload(server, bucket, tmp_path / "a.tif", "deep/in it/scene é.tif")
    with pytest.raises(RasterpipeError, match=r"the input image is not the one that it was made of"):
        api.verify(tmp_path / "out.zarr")


def test_workers_open_it_for_themselves(server: S3, bucket: str, tmp_path: Path) -> None:
    write_cog(tmp_path / "a.tif", scene(2, SIDE, SIDE))
    config = document("", tmp_path / "out.zarr")
    config["inputs"] = {"image": upload(server, bucket, tmp_path / "a.tif", "a.tif")}
    with DaskProcesses(tmp_path) as cluster:
        cluster.start_worker()
        cluster.start_worker()
        facts = api.run(config | {"run": {"scheduler": cluster.address}})
    assert facts["requests"] > 0
    assert facts["bytes_fetched"] > 0
    api.run(document(str(tmp_path / "a.tif"), tmp_path / "local.zarr"))
    same(tmp_path / "out.zarr", tmp_path / "local.zarr")


def test_what_workers_see_of_it(web: Web, server: S3, bucket: str, tmp_path: Path) -> None:
    url, served = web
    name = LAYOUTS["tiles"](tmp_path / "a.tif")
    (evidence,) = open_raster(f"{url}/{name}").evidence()
    here = marks_of(evidence)
    assert difference(evidence, here, marks_of(evidence)) is None
    served.tag = "second"
    assert str(difference(evidence, here, marks_of(evidence))).startswith(
        f"sees another raster at {url}/{name}; let all"
    )
    (tmp_path / name).unlink()
    assert str(difference(evidence, here, marks_of(evidence))).startswith(f"finds nothing at {url}/{name}; let all")
    LAYOUTS["tiles"](tmp_path / "a.tif")
    entry = upload(server, bucket, tmp_path / name, "b.tif")
    (evidence,) = open_raster(entry["path"], access=Access(**server.storage)).evidence()
    here = marks_of(evidence)
    upload(server, bucket, tmp_path / name, "b.tif")
    assert difference(evidence, here, marks_of(evidence)) is None  # the same bytes have the same ETag
    LAYOUTS["strips"](tmp_path / "a.tif")
    upload(server, bucket, tmp_path / name, "b.tif")
    assert str(difference(evidence, here, marks_of(evidence))).startswith(f"sees another raster at {bucket}/b.tif; let")


def test_ranges_are_merged_and_bounded() -> None:
    gap, most = ranges.GAP_BYTES, ranges.RANGE_BYTES
    assert ranges.merge([(gap + 10, gap + 20), (0, 10)]) == [(0, gap + 20)]
    assert ranges.merge([(0, 10), (gap + 11, gap + 20)]) == [(0, 10), (gap + 11, gap + 20)]
    assert ranges.merge([(0, most), (most, most + 1)]) == [(0, most), (most, most + 1)]
    assert ranges.merge([(0, 3 * most), (5, 10)]) == [(0, 3 * most)]
    tiles = [(n * most, (n + 1) * most) for n in range(9)]
    assert [len(batch) for batch in ranges.batches(tiles)] == [4, 4, 1]
    assert [len(batch) for batch in ranges.batches([(0, 9 * most), (9 * most, 10 * most)])] == [1, 1]
