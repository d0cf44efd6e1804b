"""Tables of polygons: a row each, with attributes and geometries, against rasterstats and in every format."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.config import parse
from pipeline.model.errors import OutputError, PipelineError
from tests.georeference import placed_tiff
from tests.zarr_files import pixels

shapely = pytest.importorskip("shapely")
raw = pytest.importorskip("pyogrio.raw")
parquet = pytest.importorskip("pyarrow.parquet")
from tests.vector_files import UTM, write  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "zones.md"
SHAPES = [
    shapely.box(500100, 5399800, 500200, 5399900),
    shapely.box(500004, 5399700, 500004.5, 5399900),  # without the centre of a pixel
    shapely.Point(500300, 5399700).buffer(88.8),
    shapely.box(0, 0, 10, 10),  # far away
    shapely.Point(500120, 5399500).buffer(55.5),
]
FIELDS: dict[str, Any] = {
    "field_id": [12, 7, 31, 5, 40],
    "crop": ["wheat", "maize", None, "wheat", 'r"ye, ü'],
    "label": [1.5, float("nan"), 2.25, 0.0, -1.0],
}
ORDER = [3, 1, 0, 2, 4]
"""By id."""
VALUES = pixels((2, 60, 50), "uint16")


def run(folder: Path, table: str, **fields: Any) -> dict[str, Any]:
    placed_tiff(folder / "image.tif", VALUES)
    entry = {"vector": str(write(folder / "fields.gpkg", SHAPES, FIELDS)), "id": "field_id"} | fields
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "fields"}
    step |= {"statistics": ["count", "sum", "mean", "max"], "geometry": ["bbox"], "table": str(folder / table)}
    inputs = {"image": str(folder / "image.tif"), "fields": entry}
    return {"inputs": inputs, "steps": [step], "output": {"path": str(folder / "out.zarr")}}


def expected() -> dict[str, list[Any]]:
    """Return the table by GDAL and numpy."""
    features = pytest.importorskip("rasterio.features")
    transform = (10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0)
    found: dict[str, list[Any]] = {"label": [], "pixels": [], "mean_b2": [], "sum_b1": [], "bbox_top": []}
    for i in ORDER:
        inside = features.rasterize([SHAPES[i]], (60, 50), transform=transform).astype(bool)
        found["label"].append(FIELDS["field_id"][i])
        found["pixels"].append(int(inside.sum()))
        found["sum_b1"].append(float(VALUES[0][inside].sum()))
        found["mean_b2"].append(VALUES[1][inside].astype(float).mean() if inside.any() else None)
        found["bbox_top"].append(int(np.nonzero(inside)[0].min()) if inside.any() else None)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def same(found: Any, wanted: list[Any]) -> None:
    found = [None if each is None or each != each or each == "" else each for each in found]
    assert found == [None if each is None or each != each else each for each in wanted]


def test_a_csv_has_a_row_for_each_polygon(tmp_path: Path) -> None:
    api.run(run(tmp_path, "t.csv"))
    rows = rows_of(tmp_path / "t.csv")
    for name, column in expected().items():
        same([float(row[name]) if row[name] else None for row in rows], column)
    same([row["crop"] for row in rows], [FIELDS["crop"][i] for i in ORDER])
    same([float(row["label_"]) if row["label_"] else None for row in rows], [FIELDS["label"][i] for i in ORDER])
    assert list(rows[0])[:4] == ["label", "pixels", "count_b1", "count_b2"]
    assert list(rows[0])[-3:] == ["field_id", "crop", "label_"]


def test_a_parquet_is_a_geoparquet_that_is_an_input_again(tmp_path: Path) -> None:
    document = run(tmp_path, "t.parquet")
    api.run(document)
    table = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    for name, column in (expected() | {"crop": [FIELDS["crop"][i] for i in ORDER]}).items():
        same(table[name], column)
    assert [shapely.from_wkb(each).equals(SHAPES[i]) for i, each in zip(ORDER, table["geometry"], strict=True)] == [
        True
    ] * 5
    again = run(tmp_path, "again.parquet") | {"output": {"path": str(tmp_path / "again.zarr")}}
    again["inputs"]["fields"] = {"vector": str(tmp_path / "t.parquet"), "id": "label"}
    api.run(again)
    same(parquet.read_table(tmp_path / "again.parquet").to_pydict()["mean_b2"], expected()["mean_b2"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".gpkg", ".geojson"])
def test_attributes_get_names_of_their_own(tmp_path: Path, suffix: str) -> None:
    """Whatever their capitals, and beside the columns that files with geometries have."""
    named = {"Label": "Label_", "LABEL_": "LABEL__", "fid": "fid_", "Geom": "Geom_", "geometry": "geometry_"}
    fields = {"field_id": FIELDS["field_id"], **dict.fromkeys(named, FIELDS["field_id"])}
    document = run(tmp_path, f"t{suffix}")
    document["inputs"]["fields"]["vector"] = str(write(tmp_path / "fields.fgb", SHAPES, fields))
    api.run(document)
    if suffix == ".csv":
        table: dict[str, Any] = {name: [row[name] for row in rows_of(tmp_path / "t.csv")] for name in named.values()}
    elif suffix == ".parquet":
        table = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    else:
        meta, _, _, data = raw.read(tmp_path / f"t{suffix}")
        table = dict(zip(meta["fields"], data, strict=True))
    for name in named.values():
        assert [int(each) for each in table[name]] == sorted(FIELDS["field_id"])


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_geometries_are_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    document = run(tmp_path, f"t{suffix}")
    api.run(document)
    api.run(document, overwrite=True)
    meta, _, wkb, data = raw.read(tmp_path / f"t{suffix}")
    table = dict(zip(meta["fields"], data, strict=True))
    for name, column in (expected() | {"crop": [FIELDS["crop"][i] for i in ORDER]}).items():
        same(table[name].tolist(), column)
    shapes = shapely.from_wkb(wkb)
    if suffix == ".gpkg":
        assert meta["crs"] == UTM
        assert all(shape.equals(SHAPES[i]) for i, shape in zip(ORDER, shapes, strict=True))
    else:
        assert json.loads((tmp_path / "t.geojson").read_text()).get("crs") is None
        assert shapes[2].centroid.distance(shapely.Point(15.0021, 48.7532)) < 0.01


def test_a_geojson_of_polygons_without_a_system_is_refused(tmp_path: Path) -> None:
    """It has degrees, and GDAL would leave out the coordinates that are none."""
    document = run(tmp_path, "t.geojson")
    (tmp_path / "fields.gpkg").unlink()
    write(tmp_path / "fields.gpkg", SHAPES, FIELDS, crs=None)
    with pytest.raises(PipelineError, match="its polygons name no coordinate system"):
        api.run(document)
    assert not (tmp_path / "out.zarr").exists()


def test_ids_that_stand_twice_have_a_row_a_label(tmp_path: Path) -> None:
    write(tmp_path / "twice.gpkg", SHAPES, {"key": [1, 1, 2, 2, 1]})
    document = run(tmp_path, "t.csv", vector=str(tmp_path / "twice.gpkg"), id="key")
    facts = api.run(document)
    assert any("`id: key` is no key" in note for note in facts.warnings)
    rows = rows_of(tmp_path / "t.csv")
    assert [row["label"] for row in rows] == ["1", "2"]
    assert "key" not in rows[0]
    document["steps"][0]["table"] = str(tmp_path / "t.gpkg")
    with pytest.raises(PipelineError, match="its labels are no polygons with an id each"):
        api.run(document, overwrite=True)


def test_tables_with_geometries_need_polygons_and_replace_no_other_file(tmp_path: Path) -> None:
    document = run(tmp_path, "t.geojson")
    labels = placed_tiff(tmp_path / "labels.tif", pixels((60, 50), "uint8"))
    with pytest.raises(PipelineError, match="its labels are no polygons"):
        api.run({**document, "inputs": {**document["inputs"], "fields": labels}})
    document["steps"][0]["table"] = document["inputs"]["fields"]["vector"]
    with pytest.raises(OutputError, match="is also an input"):
        api.run(document, overwrite=True)
    other = write(tmp_path / "other.gpkg", SHAPES, FIELDS)
    document["steps"][0]["table"] = str(other)
    with pytest.raises(OutputError, match="exists and is not a table of rasterpipe"):
        api.run(document, overwrite=True)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::ResourceWarning")
def test_means_are_those_of_rasterstats(tmp_path: Path) -> None:
    rasterstats = pytest.importorskip("rasterstats")
    api.run(run(tmp_path, "t.csv"))
    found = {row["field_id"]: row for row in rows_of(tmp_path / "t.csv")}
    affine = pytest.importorskip("affine").Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0)
    for i in (0, 2, 4):
        (theirs,) = rasterstats.zonal_stats(
            SHAPES[i], VALUES[0], affine=affine, nodata=65535, stats=["count", "mean", "max"]
        )
        ours = found[str(FIELDS["field_id"][i])]
        assert int(ours["pixels"]) == theirs["count"]
        assert float(ours["max_b1"]) == theirs["max"]
        assert float(ours["mean_b1"]) == pytest.approx(theirs["mean"], rel=1e-14)


def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert text
    monkeypatch.chdir(tmp_path)
    placed_tiff(tmp_path / "image.tif", VALUES[0])
    write(tmp_path / "fields.gpkg", SHAPES, FIELDS)
    api.run(parse(text[1]).data)
    meta, _, _, data = raw.read(tmp_path / "wheat.gpkg")
    table = dict(zip(meta["fields"], data, strict=True))
    assert table["label"].tolist() == [5, 12]
    assert table["pixels"].tolist() == [0, 100]
    same(table["mean_b1"], [None, VALUES[0, 10:20, 10:20].mean()])
    assert list(meta["fields"]) == ["label", "pixels", "count_b1", "mean_b1", "std_b1", "field_id", "crop", "label_"]
