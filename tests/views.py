"""Results to look at, a server of them in a thread of its own, and what it answers."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import imagecodecs

import pipeline
from pipeline.verbs.demo.synth import synth
from pipeline.verbs.view.gallery import Gallery
from pipeline.verbs.view.server import Server

STYLE = {"kind": "sequential", "map": "viridis", "limits": "0,1000"}
"""Of a tile, a histogram."""


def make_result(folder: Path, side: int = 600) -> str:
    """Make a result: bands, slopes, a poster with its palette, cells with a table, all with levels."""
    synth(folder / "scene.zarr", size=(side, side - 77), bands=3, dtype="uint16", seed=3)
    steps = [
        {"name": "bands", "op": "select", "input": "image", "bands": [1, 2, 3]},
        {"name": "slope", "op": "gradient", "input": "image", "spacing": 1, "outputs": ["dy", "direction"]},
        {"name": "colors", "op": "palette", "input": "image", "bands": [3, 2, 1], "colors": 8},
        {"name": "poster", "op": "quantize", "input": "image", "bands": [3, 2, 1], "palette": "colors"},
        {"name": "one", "op": "select", "input": "image", "bands": [1]},
        {"name": "cells", "op": "components", "input": "one", "where": "b1 > 500"},
        {"name": "stats", "op": "label_stats", "input": "image", "labels": "cells", "statistics": ["mean", "max"]},
    ]
    document = {
        "inputs": {"image": str(folder / "scene.zarr")},
        "steps": steps,
        "output": {
            "path": str(folder / "out.zarr"),
            "pyramid": 2,
            "chunks": [128, 128],
            "keep": ["bands", "slope", "poster", "cells", "stats"],
        },
    }
    pipeline.run(document)
    return str(folder / "out.zarr")


@contextmanager
def serving(*paths: str) -> Iterator[Server]:
    """Serve rasters on a free port."""
    with Server(Gallery(paths), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


Answer = tuple[int, Mapping[str, str], bytes]


def ask(server: Server, path: str, method: str = "GET", host: str | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{server.port}", **headers})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def get(server: Server, name: str, **fields: Any) -> Any:
    status, headers, body = ask(server, f"/{name}?{urlencode(fields)}")
    assert status == 200, body
    return json.loads(body) if headers["Content-Type"] == "application/json" else imagecodecs.png_decode(body)


def names(server: Server) -> list[str]:
    return [each["name"] for each in get(server, "rasters.json")["rasters"]]
