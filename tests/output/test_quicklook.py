"""The PNG of a run: its panels, its memory, places where it cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

import pipeline
from pipeline.model.errors import OutputError, PipelineError
from pipeline.picture.sheet import GAP, MARGIN, NARROWEST
from tests import harness


def run(values: np.ndarray, tmp_path: Path, name: str = "look.png", steps: Any = None, **raster: Any) -> np.ndarray:
    source = harness.store(harness.Raster(values, ("y", "x", "band")[: values.ndim], **raster), tmp_path / "in.zarr")
    steps = steps or [{"name": "smooth", "op": "window", "size": 1}]
    config = {"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}
    pipeline.run(config, quicklook=tmp_path / name)
    image: np.ndarray = imagecodecs.png_decode((tmp_path / name).read_bytes())
    return image


def test_input_and_outputs_stand_side_by_side(tmp_path: Path) -> None:
    """The input and what has its values look the same; what has others does not."""
    values = np.tile(np.arange(400, dtype=np.float32), (300, 1))
    steps = [
        {"name": "smooth", "op": "window", "input": "image", "size": 1},
        {"name": "slope", "op": "gradient", "input": "image", "spacing": 1, "outputs": ["dx"]},
    ]
    image = run(values, tmp_path, steps=steps)
    assert image.shape[1] == 2 * MARGIN + 3 * (400 + 2) + 2 * GAP
    top = MARGIN + 60
    first, second, third = (image[top : top + 200, MARGIN + i * (402 + GAP) :][:, 1:401] for i in range(3))
    np.testing.assert_array_equal(first, second)
    assert (first[:, 0] == [68, 1, 84]).all()  # viridis begins
    assert (third == third[0, 0]).all()  # of one value
    again = tmp_path / "again"
    again.mkdir()
    np.testing.assert_array_equal(image, run(values, again, steps=steps))


def test_a_large_raster_of_thin_chunks_is_decimated(tmp_path: Path) -> None:
    values = np.arange(1500, dtype=np.float32)[:, np.newaxis] * np.ones((1, 8), np.float32)
    image = run(values, tmp_path, chunks=(1, 8))
    assert image.shape[1] == 2 * MARGIN + 2 * NARROWEST + GAP
    column = image[:, MARGIN + 2].astype(int)
    assert (np.abs(column - [253, 231, 37]).sum(axis=1) < 12).any()  # the last of viridis: all rows are drawn
    assert (np.abs(column - [68, 1, 84]).sum(axis=1) < 12).any()


def test_what_has_no_room_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = harness.store(harness.Raster(np.zeros((5, 5), np.float32), ("y", "x")), tmp_path / "in.zarr")
    steps = [{"name": f"s{i}", "op": "window", "input": "image", "size": 1} for i in range(9)]
    config = {"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}
    pipeline.run(config, quicklook=tmp_path / "look.png", quiet=False)
    assert "look.png has no room for the last 2 rasters; `rasterpipe show` draws them" in capsys.readouterr().err


def test_a_geotiff_is_drawn_once_its_store_is_gone(tmp_path: Path) -> None:
    source = harness.store(harness.Raster(np.ones((5, 5), np.float32), ("y", "x")), tmp_path / "in.zarr")
    steps = [{"name": "smooth", "op": "window", "size": 1}]
    config = {"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.tif")}}
    pipeline.run(config, quicklook=tmp_path / "look.png")
    pipeline.run(config, quicklook=tmp_path / "again.png", resume=True)
    assert (tmp_path / "look.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_chunk_too_large_to_draw(tmp_path: Path) -> None:
    """A run that takes a part of a chunk may have less memory than the picture of it needs."""
    source = harness.store(harness.Raster(np.ones((4096, 4096)), ("y", "x"), chunks=(4096, 4096)), tmp_path / "in.zarr")
    config = {
        "inputs": {"image": source},
        "steps": [{"name": "smooth", "op": "window", "size": 1}],
        "output": {"path": str(tmp_path / "out.zarr")},
        "run": {"memory": "750 MiB", "workers": 1},
    }
    with pytest.raises(PipelineError, match=r"run\.memory: the quicklook takes .*, the run may use 750\.0 MiB; set it"):
        pipeline.run(config, quicklook=tmp_path / "look.png")
    assert not list(tmp_path.glob("out*"))


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first := tmp_path / "first").mkdir()
    (first / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"folder\.png: is a folder, and the quicklook is a file"):
        run(np.zeros((5, 5), np.uint8), first, "folder.png")

    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if ".png" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"out\.zarr is complete, but the quicklook failed: .*No space left"):
        run(np.zeros((5, 5), np.uint8), tmp_path)
    assert not list(tmp_path.glob("*look*"))
