"""The small PNG of a run: its panels, invalid pixels, places where it cannot be written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.model.errors import OutputError, PipelineError
from pipeline.model.region import Region
from pipeline.output.exports import quicklook
from pipeline.output.exports.quicklook import GAP, SIDE
from pipeline.storage.open import open_raster
from pipeline.testing.draws import draws
from tests import harness


def draw(values: np.ndarray, tmp_path: Path, name: str = "look.png", **raster: Any) -> np.ndarray:
    source = harness.store(harness.Raster(values, ("y", "x", "band")[: values.ndim], **raster), tmp_path / "in.zarr")
    steps = [{"name": "smooth", "op": "window", "size": 1}]
    config = {"inputs": {"image": source}, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}}
    pipeline.run(config, quicklook=tmp_path / name)
    image: np.ndarray = imagecodecs.png_decode((tmp_path / name).read_bytes())
    return image


def test_panels_stand_side_by_side(tmp_path: Path) -> None:
    values = np.tile(np.arange(40, dtype=np.uint8), (30, 1))
    image = draw(values, tmp_path)
    assert image.shape == (30, 40 + GAP + 40, 3)
    assert (image[:, 40 : 40 + GAP] == 255).all()
    np.testing.assert_array_equal(image[:, :40], image[:, 40 + GAP :])
    assert (np.diff(image[0, :40, 0].astype(int)) >= 0).all()
    assert (image[0, 0, 0], image[0, 39, 0]) == (0, 255)


def test_a_large_raster_of_thin_chunks_is_decimated(tmp_path: Path) -> None:
    """Chunks between two drawn rows are not read."""
    values = np.arange(3 * SIDE, dtype=np.float32)[:, np.newaxis] * np.ones((1, 8), np.float32)
    image = draw(values, tmp_path, chunks=(1, 8))
    assert image.shape == (SIDE, 3 + GAP + 3, 3)
    assert (np.diff(image[:, 0, 0].astype(int)) >= 0).all()


@settings(max_examples=draws(50), deadline=None)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(st.integers(3, 12), st.integers(3, 12)),
    st.integers(1, 9),
    st.integers(1, 500),
    st.booleans(),
    st.data(),
)
def test_every_step_th_pixel(
    size: tuple[int, int], chunk: tuple[int, int], step: int, piece: int, bands_first: bool, data: st.DataObject
) -> None:
    """Whatever the chunks and the pieces that are read of them."""
    values = np.arange(size[0] * size[1] * 3, dtype=np.int32).reshape(*size, 3)
    top, left = (data.draw(st.integers(0, n - 1)) for n in size)
    bottom, right = (data.draw(st.integers(first + 1, n)) for first, n in zip((top, left), size, strict=True))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(quicklook, "PIECE_BYTES", piece)
        raster = (
            harness.Raster(np.moveaxis(values, -1, 0), ("band", "y", "x"), chunks=(3, *chunk))
            if bands_first
            else harness.Raster(values, ("y", "x", "band"), chunks=(*chunk, 3))
        )
        reader = open_raster(harness.store(raster, Path(folder, "in.zarr")))
        drawn = quicklook._decimate(reader, Region(top, bottom, left, right), step, [2, 0])
    np.testing.assert_array_equal(drawn, values[top:bottom:step, left:right:step, [2, 0]])


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


def test_invalid_pixels_are_black_and_do_not_stretch(tmp_path: Path) -> None:
    values = np.full((20, 20, 3), 100, np.uint8)
    values[:10] = 200
    values[0] = 7
    image = draw(values, tmp_path, nodata=7)
    assert (image[0, :20] == 0).all()
    assert (image[1:10, :20] == 255).all()


def test_a_raster_without_valid_pixels_is_black(tmp_path: Path) -> None:
    image = draw(np.full((5, 5), 7, np.uint8), tmp_path, nodata=7)
    assert (image[:, :5] == 0).all()


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first := tmp_path / "first").mkdir()
    (first / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"folder\.png: is a folder, and the quicklook is a file"):
        draw(np.zeros((5, 5), np.uint8), first, "folder.png")

    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if ".png" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"out\.zarr is complete, but the quicklook failed: .*No space left"):
        draw(np.zeros((5, 5), np.uint8), tmp_path)
    assert not list(tmp_path.glob("*look*"))
