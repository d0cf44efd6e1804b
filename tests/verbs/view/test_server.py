"""The viewer's server: its page, and what it refuses; without a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import zarr

from pipeline.model.errors import UsageError
from pipeline.verbs.view.gallery import Gallery
from pipeline.verbs.view.server import ANSWERS, FILES, PAGE, Server
from tests.sources import PROJECT
from tests.views import STYLE, ask, serving


def test_the_page_and_its_files(server: Server) -> None:
    for path, (name, kind) in FILES.items():
        status, headers, body = ask(server, path)
        assert (status, headers["Content-Type"], body) == (200, kind, (PAGE / name).read_bytes())
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert not re.search("https?:|unsafe|[*]", policy)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
    assert "leaflet.LICENSE" in {file.name for file in PAGE.iterdir()}
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<script>|https?://", page)
    for name in ("map.js", "panel.js", "viewer.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://", (PAGE / name).read_text()
        )


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:80", "", "127.0.0.1:{}x"]
)
def test_hosts_that_are_not_this_machine(server: Server, host: str) -> None:
    """A name that an attacker rebinds to 127.0.0.1 brings its own name with it."""
    status, _, body = ask(server, "/rasters.json", host=host.format(server.port) or "x")
    assert (status, json.loads(body)) == (421, {"error": "this server answers to its own address alone"})
    assert ask(server, "/rasters.json", host=f"localhost:{server.port}")[0] == 200


def test_other_pages_do_not_get_tiles(server: Server) -> None:
    assert ask(server, "/rasters.json", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(server, "/rasters.json", **{"Sec-Fetch-Site": "same-origin"})[0] == 200
    assert ask(server, "/", **{"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link to it


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"])
def test_only_get(server: Server, method: str) -> None:
    status, headers, _ = ask(server, "/rasters.json", method)
    assert status == 501
    assert headers["Server"] == "rasterpipe"


OUTSIDE = (
    *(
        "/..",
        "/../pyproject.toml",
        "/%2e%2e/server.py",
        "/page/index.html",
        "/index.html",
        "//etc/passwd",
        "/./",
        "/leaflet.LICENSE",
    ),
    *(
        "/server.py",
        "/..%2fserver.py",
        "/etc/passwd",
        "/viewer.js/",
        "/viewer.js%00",
        "/tile.png/..",
        "/out.zarr/zarr.json",
        "*",
    ),
)


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_to_a_file(server: Server, path: str) -> None:
    status, _, body = ask(server, path)
    assert (status, json.loads(body)) == (404, {"error": "there is nothing of this name"})


GOOD = {
    "/tile.png": {"raster": 0, "power": 0, "row": 0, "column": 0, "bands": 0, **STYLE},
    "/pixel.json": {"raster": 0, "row": 0, "column": 0},
    "/histogram.json": {"raster": 0, "bands": 0, "top": 0, "bottom": 9, "left": 0, "right": 9, **STYLE},
    "/style.json": {"raster": 0, "bands": 0},
    "/bar.png": {"map": "viridis"},
}
BAD = {
    "raster": ("-1", "99", "1e0", "", "٣", "0x1", "1" * 40),
    "power": ("-1", "32", "x"),
    "row": ("-1", "9999999999999", "1.5"),
    "column": ("-1", "nan"),
    "bands": ("3", "-1", "0,1", "0,1,2,3", "", "b1", "0,1,2"),
    "top": ("600", "-1"),
    "bottom": ("0", "601"),
    "left": ("523", "x"),
    "right": ("0", "524"),
    "kind": ("photo", "color", "palette ", ""),
    "map": ("jet", "", "../viridis"),
    "limits": ("0", "0,1,2", "nan,1", "inf,2", "a,b", "", "1e999,0"),
}


@pytest.mark.parametrize("path", GOOD)
def test_queries_within_bounds(server: Server, path: str) -> None:
    assert ask(server, f"{path}?{urlencode(GOOD[path])}")[0] == 200
    for name in GOOD[path]:
        for value in BAD[name]:
            if path == "/style.json" and (name, value) == ("bands", "0,1,2"):
                continue  # there it is no contradiction
            status, _, body = ask(server, f"{path}?{urlencode({**GOOD[path], name: value})}")
            assert status in (400, 404), (name, value, body)
            assert "error" in json.loads(body)
    many = "&".join(f"a{i}=1" for i in range(50))
    assert ask(server, f"{path}?{many}")[0] == 400
    assert ask(server, f"{path}?%ff%fe=1")[0] == 400
    assert ask(server, f"{path}?{'a' * 70_000}")[0] == 414


def test_all_answers_are_tried(server: Server) -> None:
    assert set(ANSWERS) == {*GOOD, "/rasters.json"}


def test_a_damaged_chunk_is_told(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "bad.zarr"), shape=(64, 64), chunks=(32, 32), dtype="f4", dimension_names=("y", "x")
    )
    array[...] = np.random.default_rng(0).random((64, 64), np.float32)
    file = tmp_path / "bad.zarr" / "c" / "1" / "1"
    file.write_bytes(file.read_bytes()[:20])
    with serving(str(tmp_path / "bad.zarr")) as server:
        status, _, body = ask(server, "/pixel.json?raster=0&row=40&column=40")
        assert status == 500
        assert "chunk c/1/1" in json.loads(body)["error"]
        assert ask(server, "/pixel.json?raster=0&row=1&column=1")[0] == 200


def test_a_port_that_is_taken(server: Server, folder: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"port {server.port} of 127\.0\.0\.1 cannot be used: .*; give another --port"
    ):
        Server(Gallery([str(folder / "photo.tif")]), server.port)


def test_the_command_serves_until_it_is_stopped(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "view", str(folder / "photo.tif"), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        line = run.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
        assert found, (line, run.stderr.read())
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        connection.request("GET", "/rasters.json")
        assert json.loads(connection.getresponse().read())["rasters"][0]["name"] == "photo"
        connection.close()
        run.send_signal(signal.SIGINT)
        assert (run.wait(20), run.stderr.read()) == (0, "")
