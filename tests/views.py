"""Results to look at, and a server of them in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pipeline
from pipeline.verbs.demo.synth import synth
from pipeline.verbs.view.gallery import Gallery
from pipeline.verbs.view.server import Server


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
