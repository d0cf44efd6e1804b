"""The viewer from its start to Ctrl-C."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.storage.zarr.reader import configure
from pipeline.verbs.view.gallery import Gallery
from pipeline.verbs.view.server import Server


def view(
    paths: Sequence[str],
    *,
    port: int = 0,
    browser: bool = True,
    chosen: Mapping[str, Any] | None = None,
    started: Callable[[Server], None] = lambda server: None,
) -> None:
    """Serve a map of rasters until the process is interrupted (see `pipeline.api.view`).

    `started` is called once it listens.
    """
    configure(os.cpu_count() or 1)
    with Server(Gallery(paths, chosen), port) as server:
        started(server)
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()
