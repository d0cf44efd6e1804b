"""A result, a photograph and a scene, and a server of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.verbs.view.server import Server
from tests.views import make_result, serving


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("view")
    make_result(place)
    photo = np.random.default_rng(2).integers(0, 255, (40, 60, 3)).astype("u1")
    tifffile.imwrite(place / "photo.tif", photo, photometric="rgb")
    return place


@pytest.fixture(scope="package")
def server(folder: Path) -> Iterator[Server]:
    with serving(str(folder / "out.zarr"), str(folder / "photo.tif"), str(folder / "scene.zarr")) as server:
        yield server
