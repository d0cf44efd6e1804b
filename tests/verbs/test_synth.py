"""The synthetic scene: the same bits for a seed, plausible statistics, whole segments, and safe overwriting."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.ndimage

from pipeline.model.errors import OutputError, UsageError
from pipeline.model.raster import DTYPES
from pipeline.verbs.demo import product
from pipeline.verbs.demo.product import band_signature, chunk_length, segment_lattice, value_scale
from pipeline.verbs.demo.scene import scene
from pipeline.verbs.demo.segments import segments
from pipeline.verbs.demo.synth import VERSION, synth

if TYPE_CHECKING:
    from pathlib import Path

zarr = pytest.importorskip("zarr")


def whole_scene(
    height: int, width: int, bands: int = 4, seed: int = 0, origin: tuple[int, int] = (0, 0), scale: float = 1
) -> np.ndarray:
    out = np.empty((height, width, bands), np.float32)
    scene(out, *origin, 0, np.uint64(seed), band_signature(bands), np.float32(scale))
    return out


def whole_labels(
    height: int, width: int, cells: tuple[int, int], seed: int = 0, origin: tuple[int, int] = (0, 0), part: int = 0
) -> np.ndarray:
    out = np.empty((part or height, part or width), np.int32)
    segments(out, *origin, (height, width), cells, np.uint64(seed))
    return out


# --- pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 0), (17, 3), (39, 55)])
def test_block_does_not_depend_on_where_blocks_begin(row: int, column: int) -> None:
    whole = whole_scene(60, 70)
    part = whole_scene(60 - row, 70 - column, origin=(row, column))
    np.testing.assert_array_equal(part, whole[row:, column:])


def test_band_does_not_depend_on_the_other_bands() -> None:
    whole, bands = whole_scene(20, 30, bands=14), band_signature(14)
    np.testing.assert_array_equal(whole_scene(20, 30, bands=3), whole[..., :3])
    last = np.empty((20, 30, 5), np.float32)
    scene(last, 0, 0, 9, np.uint64(0), np.ascontiguousarray(bands[:, 9:]), np.float32(1))
    np.testing.assert_array_equal(last, whole[..., 9:])


def test_known_pixels() -> None:
    """The bits of version 1: whoever changes them counts `pipeline.verbs.demo.synth.VERSION` up."""
    assert VERSION == 1
    assert whole_scene(1, 3, bands=2, origin=(1000, 2000)).tolist() == [
        [[1544.0, 1754.0], [1586.0, 1843.0], [1753.0, 2069.0]]
    ]
    assert whole_labels(100, 100, (5, 5), origin=(40, 38), part=3).tolist() == [[7, 7, 7], [12, 12, 12], [12, 12, 12]]


def test_seeds_differ_everywhere() -> None:
    assert (whole_scene(50, 50, seed=1) == whole_scene(50, 50, seed=2)).mean() < 0.05
    assert (whole_labels(90, 90, (6, 6), seed=1) != whole_labels(90, 90, (6, 6), seed=2)).mean() > 0.1


def test_scene_is_plausible() -> None:
    values = whole_scene(400, 400, bands=13, seed=5)
    flat = values.reshape(-1, 13)
    assert values.min() >= 0
    assert values.max() <= 10000
    assert (values == np.rint(values)).all()
    assert (flat.std(axis=0) > 50).all()
    correlation = np.corrcoef(flat.T)
    assert (correlation[np.triu_indices(13, 1)] < 0.9999).all()
    assert correlation[1, 2] > 0.5  # green and red
    # Smooth within fields: neighbours are much more alike than pixels far apart.
    assert np.abs(np.diff(values[..., 2], axis=1)).mean() < 0.5 * np.abs(values[:, 200:, 2] - values[:, :200, 2]).mean()


def test_noise_is_white() -> None:
    """What the sensor adds differs in every pixel and band; neighbours and bands do not correlate."""
    flat = np.zeros((6, 4), np.float32) + np.float32(1000)  # one spectrum for all covers: only light and noise differ
    out = np.empty((300, 300, 4), np.float32)
    scene(out, 0, 0, 0, np.uint64(3), flat, np.float32(1))
    noise = out[..., 0] - out[..., 1]  # the light goes
    noise -= scipy.ndimage.median_filter(noise, 5)  # and the tint of the patches
    assert 10 < noise.std() < 100
    assert abs(np.corrcoef(noise[:, 3:].ravel(), noise[:, :-3].ravel())[0, 1]) < 0.05


# --- labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "num_labels"),
    [(300, 300, 100), (200, 500, 37), (64, 64, 400), (50, 50, 2500), (1, 90, 30), (33, 47, 800), (40, 40, 1)],
)
def test_every_label_occurs(height: int, width: int, num_labels: int) -> None:
    cells = segment_lattice(height, width, num_labels)
    labels = whole_labels(height, width, cells, seed=num_labels)
    assert np.unique(labels).tolist() == list(range(1, cells[0] * cells[1] + 1))


@pytest.mark.parametrize("num_labels", [5, 99, 1000, 12345])
def test_number_of_labels_is_close_to_the_one_asked_for(num_labels: int) -> None:
    rows, columns = segment_lattice(3000, 2000, num_labels)
    assert abs(rows * columns - num_labels) <= max(1, 0.03 * num_labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_segments_are_contiguous_and_irregular(seed: int) -> None:
    labels = whole_labels(400, 400, (10, 10), seed=seed)
    for label in range(1, 101):
        mask = labels == label
        components, count = scipy.ndimage.label(mask)
        largest = np.bincount(components.ravel())[1:].max()
        assert largest >= 0.98 * mask.sum(), f"label {label}: {count} components"
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.std() > 0.1 * sizes.mean()


def test_labels_do_not_depend_on_where_blocks_begin() -> None:
    whole = whole_labels(100, 100, (7, 7))
    np.testing.assert_array_equal(whole_labels(100, 100, (7, 7), origin=(31, 9), part=50), whole[31:81, 9:59])


# --- stores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_fill_the_range_of_the_dtype(tmp_path: Path, dtype: str) -> None:
    synth(tmp_path / "s.zarr", size=(80, 70), bands=5, dtype=dtype)
    values = zarr.open_group(tmp_path / "s.zarr", mode="r")["scene"][...]
    assert values.dtype == dtype
    scale = value_scale(np.dtype(dtype))
    expected = whole_scene(80, 70, 5, scale=float(scale))
    np.testing.assert_array_equal(values, expected.astype(dtype))
    assert values.min() >= 0
    assert values.max() > 0.3 * 10000 * scale


def test_store_of_many_chunks_equals_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "LARGEST_CHUNK", 16)
    summary = synth(tmp_path / "s.zarr", size=(50, 61), bands=3, labels=tmp_path / "l.zarr", num_labels=12, seed=4)
    assert summary["chunks"] == [10, 16, 3]
    stored = zarr.open_group(tmp_path / "s.zarr", mode="r")["scene"][...]
    np.testing.assert_array_equal(stored, whole_scene(50, 61, 3, seed=4))
    cells = segment_lattice(50, 61, 12)
    stored = zarr.open_group(tmp_path / "l.zarr", mode="r")["labels"][...]
    np.testing.assert_array_equal(stored, whole_labels(50, 61, cells, seed=4))
    assert summary["labels"]["num_labels"] == stored.max() == cells[0] * cells[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.zarr", "s.zarr"]


def test_summary_is_json_and_true(tmp_path: Path) -> None:
    summary = json.loads(json.dumps(synth(tmp_path / "s.zarr", size=(20, 30), bands=2, dtype="uint8", seed=-1)))
    array = zarr.open_group(tmp_path / "s.zarr", mode="r")["scene"]
    assert summary["path"] == str(tmp_path / "s.zarr")
    assert (summary["shape"], summary["dtype"], summary["dims"]) == ([20, 30, 2], "uint8", ["y", "x", "band"])
    assert tuple(summary["chunks"]) == array.chunks
    assert summary["labels"] is None
    assert array.attrs["rasterpipe_synth"]["seed"] == -1


def test_xarray_opens_both_without_a_warning(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    synth(tmp_path / "s.zarr", size=(20, 30), bands=12, labels=tmp_path / "l.zarr", num_labels=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = xarray.open_zarr(tmp_path / "s.zarr", decode_coords="all")
        labels = xarray.open_zarr(tmp_path / "l.zarr", decode_coords="all")
        assert image["scene"].dims == ("y", "x", "band")
        assert image["band"].values.tolist()[:2] == ["b1", "b2"]
        assert (float(image["x"][1] - image["x"][0]), float(image["y"][1] - image["y"][0])) == (10, -10)
        assert "33N" in image["spatial_ref"].attrs["crs_wkt"]
        assert image["scene"].encoding["grid_mapping"] == "spatial_ref"
        np.testing.assert_array_equal(labels["y"], image["y"])
        assert int(labels["labels"].max()) == 6


@pytest.mark.parametrize(("length", "largest"), [(5000, 512), (1, 512), (1009, 512), (511, 512), (997, 10)])
def test_chunk_length(length: int, largest: int) -> None:
    chunk = chunk_length(length, largest)
    assert 1 <= chunk <= largest
    assert chunk >= min(length, largest) / 2


def test_many_bands_make_chunks_smaller(tmp_path: Path) -> None:
    summary = synth(tmp_path / "s.zarr", size=(100, 100), bands=2000, dtype="float64")
    assert np.prod(summary["chunks"]) * 8 <= product.LARGEST_CHUNK_BYTES


# --- overwriting -----------------------------------------------------------------------------------------------


def test_an_existing_path_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    synth(path, size=(9, 9), bands=1)
    with pytest.raises(OutputError, match="use --overwrite"):
        synth(path, size=(9, 9), bands=2)
    with pytest.raises(OutputError, match="use --overwrite"):  # nothing is written before both paths are checked
        synth(tmp_path / "new.zarr", size=(9, 9), labels=path, num_labels=3)
    assert not (tmp_path / "new.zarr").exists()
    assert synth(path, size=(9, 9), bands=2, overwrite=True)["shape"] == [9, 9, 2]
    assert zarr.open_group(path, mode="r")["scene"].shape == (9, 9, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("kind", ["file", "folder", "zarr", "array", "link"])
def test_overwrite_replaces_only_what_synth_wrote(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.zarr"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    elif kind == "zarr":
        zarr.create_group(path)
    elif kind == "array":
        zarr.create_array(path, shape=(2, 2), dtype="u1", attributes={"rasterpipe_synth": {}})
    else:
        synth(tmp_path / "other.zarr", size=(9, 9), bands=1)
        path.symlink_to(tmp_path / "other.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="is not a synthetic scene"):
        synth(path, size=(9, 9), bands=1, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_leftovers_of_a_killed_run(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    synth(tmp_path / "s.zarr.new", size=(9, 9), bands=1)
    with pytest.raises(OutputError, match=r"s\.zarr\.new exists"):
        synth(path, size=(9, 9), bands=1)
    synth(path, size=(9, 9), bands=1, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError("disk full"), ValueError("a fault")])
def test_an_interrupted_run_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException | type[BaseException]
) -> None:
    path = tmp_path / "s.zarr"
    synth(path, size=(40, 40), bands=1)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("pipeline.storage.zarr.store.ZarrWriter.write", fail)
    expected = OutputError if isinstance(failure, OSError) else failure if isinstance(failure, type) else type(failure)
    with pytest.raises(expected):
        synth(path, size=(40, 40), bands=2, labels=tmp_path / "l.zarr", num_labels=4, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]
    assert zarr.open_group(path, mode="r")["scene"].shape == (40, 40, 1)


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        synth(tmp_path / "file" / "s.zarr", size=(9, 9), bands=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 5)}, "size must be at least 1 row and 1 column, got 0 5"),
        ({"bands": 0}, "bands must be at least 1, got 0"),
        ({"dtype": "float23"}, "unknown dtype 'float23'; did you mean 'float32'"),
        ({"labels": "l.zarr", "num_labels": 0}, "num_labels must be from 1 to 81"),
        ({"labels": "l.zarr", "num_labels": 82}, "for 9 x 9 pixels .* got 82"),
        ({"labels": "s.zarr"}, "overlap"),
        ({"labels": "s.zarr/labels"}, "overlap"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        synth("s.zarr", **{"size": (9, 9), "num_labels": 3, **arguments})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
