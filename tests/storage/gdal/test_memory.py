"""Runs over files that GDAL decodes stay below what was planned, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gdal_files import NORTH_UP, rasterio

shutil = pytest.importorskip("rasterio.shutil")
MIB = 2**20
RUN = """
import json, sys
import pipeline
facts = pipeline.run(json.loads(sys.argv[1]))
print(json.dumps({key: facts[key] for key in ("peak_rss_bytes", "planned_peak_bytes", "blocks")}))
"""
LOSSLESS = {"REVERSIBLE": "YES", "QUALITY": "100"}
# driver, dtype, bands, options
KINDS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "a.jp2": ("JP2OpenJPEG", "uint16", 3, LOSSLESS | {"blockxsize": 1024, "blockysize": 1024}),
    "one tile.jp2": ("JP2OpenJPEG", "uint16", 3, LOSSLESS | {"blockxsize": 2500, "blockysize": 2500}),
    "a.png": ("PNG", "uint8", 3, {}),
    "progressive.jpg": ("JPEG", "uint8", 3, {"PROGRESSIVE": "ON"}),
    "a.img": ("HFA", "uint16", 3, {}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "a.img" else pytest.mark.thorough) for name in KINDS]
)
def test_measured_peak_is_below_the_planned_one(tmp_path: Path, name: str) -> None:
    driver, dtype, bands, options = KINDS[name]
    form = {"count": bands, "height": 2500, "width": 2500, "dtype": dtype, "transform": NORTH_UP}
    with rasterio.open(tmp_path / "made.tif", "w", driver="GTiff", **form) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (bands, 2500, 2500)).astype(dtype))
    shutil.copy(tmp_path / "made.tif", tmp_path / name, driver=driver, **options)
    document = {
        "inputs": {"image": str(tmp_path / name)},
        "steps": [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}],
        "output": {"path": str(tmp_path / "out.zarr")},
        "run": {"workers": 2, "memory": "1 GiB"},
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(document)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["peak_rss_bytes"] <= facts["planned_peak_bytes"] <= 1024 * MIB
