"""label_stats with weights, as its users run it: against fractions, in any layout; what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.execution import partials
from pipeline.model.errors import InputUnfit, PipelineError
from tests import harness
from tests.georeference import placed_tiff
from tests.harness import Raster

SHAPE = (70, 90)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return a pipeline over two bands, labels, and weights with zeros, NaN and nodata."""
    rng = np.random.default_rng(1)
    image = rng.normal(100, 30, (2, *SHAPE)).astype(np.float32)
    image[0, 5, :] = np.nan
    weights = np.where(rng.random(SHAPE) < 0.2, 0, rng.random(SHAPE)).astype(np.float32)
    weights[rng.random(SHAPE) < 0.1] = np.nan
    weights[7, :] = -9
    placed_tiff(tmp_path / "image.tif", image)
    placed_tiff(tmp_path / "weights.tif", weights, nodata=-9)
    placed_tiff(tmp_path / "labels.tif", (np.arange(70)[:, None] // 20 * 10 + np.arange(90) // 30).astype(np.int32))
    step = {
        "name": "zones",
        "op": "label_stats",
        "input": "image",
        "labels": "labels",
        "weights": "weights",
        "statistics": ["count", "sum", "mean", "var", "std", "min", "max", "range"],
    }
    return {
        "inputs": {name: str(tmp_path / f"{name}.tif") for name in ("image", "labels", "weights")},
        "steps": [step],
        "output": {"path": str(tmp_path / "out.zarr")},
    }


def tables(path: str | Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: harness.read(Path(path), f"zones/table/{name}", is_table=True) for name in names}


def arrays(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import tifffile

    image, labels, weights = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("image", "labels", "weights"))
    return image, labels, np.where(weights == -9, np.nan, weights)


def test_every_layout_has_the_bits_of_fractions(config: dict[str, Any], tmp_path: Path) -> None:
    names = ("label", "pixels", *config["steps"][0]["statistics"])
    found = []
    for number, (chunks, run) in enumerate([([16, 16], {}), ([64, 32], {"workers": 3}), ([70, 90], {"workers": 1})]):
        path = str(tmp_path / f"{number}.zarr")
        api.run({**config, "output": {"path": path, "chunks": chunks}, "run": run})
        assert api.verify(path).agrees
        found.append(tables(path, names))
    for name in names:
        assert found[0][name].tobytes() == found[1][name].tobytes() == found[2][name].tobytes()
    image, labels, weights = arrays(tmp_path)
    assert found[0]["pixels"].sum() == labels.size
    for row, label in enumerate(found[0]["label"]):
        for band in range(2):
            used = (labels == label) & (weights > 0) & np.isfinite(image[band])
            pairs = [
                (Fraction(float(w)), Fraction(float(v))) for w, v in zip(weights[used], image[band][used], strict=True)
            ]
            weight, total = sum(w for w, _ in pairs), sum(w * v for w, v in pairs)
            variance = sum(w * v * v for w, v in pairs) / weight - (total / weight) ** 2
            got = {name: found[0][name][row, band] for name in names[2:]}
            assert got["count"] == float(weight)
            assert got["sum"] == float(total)
            assert got["mean"] == float(total / weight)
            assert got["var"] == float(variance)
            assert got["std"] == pytest.approx(np.sqrt(float(variance)), rel=1e-15)
            assert got["min"] == image[band][used].min()
            assert got["max"] == image[band][used].max()


def test_tables_that_do_not_fit_are_merged_on_the_disk(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that span much widen all sums: tables are divided, saved, and merged range by range."""
    weights = np.random.default_rng(0).random(SHAPE)
    weights[3, 5], weights[60, 80] = 1e200, 1e-200
    placed_tiff(tmp_path / "weights.tif", weights)
    placed_tiff(tmp_path / "labels.tif", np.random.default_rng(2).integers(0, 400, SHAPE).astype(np.int32))
    names = ("label", "pixels", "count", "mean", "std", "max")
    config["steps"][0]["statistics"] = list(names[2:])
    api.run({**config, "output": {"path": str(tmp_path / "whole.zarr")}})
    monkeypatch.setattr("pipeline.planning.fitting._multiples", lambda unit, size: [unit])
    monkeypatch.setattr("pipeline.planning.fitting._coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr("pipeline.planning.cost.MAX_TABLE_BYTES", 2**16)
    saved: list[Any] = []
    fold = partials.fold

    def watched(sweep: Any, folders: Any, *rest: Any) -> None:
        saved.extend(folders)
        fold(sweep, folders, *rest)

    monkeypatch.setattr(partials, "fold", watched)
    api.run(config)
    assert len(saved) > 5
    whole, divided = tables(tmp_path / "whole.zarr", names), tables(config["output"]["path"], names)
    for name in names:
        assert whole[name].tobytes() == divided[name].tobytes()


def test_weights_of_steps_in_either_order_of_bands_and_painted(config: dict[str, Any], tmp_path: Path) -> None:
    image, labels, _ = arrays(tmp_path)
    bands_last = np.nan_to_num(np.ascontiguousarray(np.moveaxis(image, 0, -1)))
    config["inputs"] |= {
        "image": harness.store(Raster(bands_last, ("y", "x", "band"), chunks=(20, 20, 2)), tmp_path / "i.zarr")
    }
    config["inputs"].pop("weights")
    weigh = {"name": "weights", "op": "calc", "input": "image", "expression": "min(abs(image.b1), 50)"}
    config["inputs"] |= {"labels": harness.store(Raster(labels, ("y", "x"), chunks=(20, 20)), tmp_path / "l.zarr")}
    config["steps"].insert(0, weigh)
    config["steps"][1] |= {"recolor": ["count", "mean"]}
    api.run(config)
    out = Path(config["output"]["path"])
    found = tables(out, ("label", "count", "mean"))
    painted = harness.read(out, "zones/count")
    assert painted.dtype == np.float64
    weights = np.minimum(np.abs(bands_last[..., 0]), np.float32(50)).astype(np.float64)
    for row, label in enumerate(found["label"]):
        own = labels == label
        assert found["count"][row, 1] == pytest.approx(weights[own].sum(), rel=1e-12)
        wanted = (weights[own] * bands_last[own, 1]).sum() / weights[own].sum()
        assert found["mean"][row, 1] == pytest.approx(wanted, rel=1e-12)
        assert (np.moveaxis(painted, painted.shape.index(2), -1)[own, 1] == found["count"][row, 1]).all()


def test_a_weight_below_0_stops_the_run_with_its_place(config: dict[str, Any], tmp_path: Path) -> None:
    weights = np.ones(SHAPE, np.int16)
    weights[33, 44] = -5
    placed_tiff(tmp_path / "weights.tif", weights)
    with pytest.raises(InputUnfit, match="weights of step 'zones' are -5 in row 33, column 44; weights are 0 or more"):
        api.run(config)


def test_products_that_float64_does_not_hold_stop_the_run(config: dict[str, Any], tmp_path: Path) -> None:
    placed_tiff(tmp_path / "weights.tif", np.full(SHAPE, 1e308))
    with pytest.raises(InputUnfit, match=r"weights times values of step 'zones' .* beyond 2\^1000 or below"):
        api.run(config)


@pytest.mark.parametrize(
    ("changes", "values", "words"),
    [
        ({"statistics": ["mean", "mode"]}, None, r"\(zones\).statistics: with weights there is no mode; leave"),
        ({"percentiles": [10]}, None, r"\(zones\).percentiles: with weights there is no p10"),
        (
            {"geometry": ["bbox", "area", "perimeter", "centroid_weighted"]},
            None,
            r"\(zones\).geometry: with weights there is no perimeter, centroid_weighted",
        ),
        ({"histogram": {"bins": 4, "range": [0, 8]}}, None, r"\(zones\).histogram: with weights there is no histogram"),
        ({}, np.ones((3, *SHAPE), np.uint8), "weights have one band, 'weights' has 3"),
        ({}, np.ones(SHAPE, np.int64), "int64, and floating point holds whole numbers only up to"),
    ],
)
def test_what_does_not_go_with_weights(
    config: dict[str, Any], tmp_path: Path, changes: dict[str, Any], values: np.ndarray | None, words: str
) -> None:
    config["steps"][0] |= changes
    if values is not None:
        placed_tiff(tmp_path / "weights.tif", values)
    with pytest.raises(PipelineError, match=words):
        api.plan(config)
