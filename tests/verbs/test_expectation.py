"""`verify` compares all that a reader sees: each leaf of the metadata, coordinate, name of a band, palette, table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import zarr
from click.testing import CliRunner

from pipeline import api
from pipeline.cli.main import main
from pipeline.model.errors import RasterpipeError
from pipeline.storage.folder.local import LocalFolder
from pipeline.verbs import expectation
from pipeline.verbs import verify as verification
from pipeline.verbs.expectation import document_difference, value_problems
from tests import harness
from tests.georeference import UTM, geo_text
from tests.zarr_files import group, pixels

STEPS: list[dict[str, Any]] = [
    {"name": "smooth", "op": "window", "input": "image", "size": 3, "statistics": ["mean", "max"]},
    {"name": "texture", "op": "gabor", "input": "image", "frequencies": [0.15, 0.25], "orientations": 2},
    {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "statistics": ["mean", "count"]},
    {"name": "colors", "op": "palette", "input": "image", "colors": 5},
    {"name": "poster", "op": "quantize", "input": "image", "palette": "colors", "outputs": ["index", "color"]},
    {"name": "given", "op": "palette", "input": "image", "method": "inline", "values": [[1, 2, 3], [900, 800, 700]]},
    {"name": "duotone", "op": "quantize", "input": "image", "palette": "given"},
]
STEPS[2]["recolor"] = ["mean"]
KEEP = ["smooth", "texture", "zones", "poster", "duotone"]
TWINS = ("valid.smooth/max", "valid.duotone/index", "valid.poster/color", "quality.duotone")
"""What is recorded just as of others: each takes half a second."""
ANY_TEXT = [("started", "text"), ("finished", "text")]
Edit = Callable[[], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output of all kinds of metadata, which no test changes."""
    folder = tmp_path_factory.mktemp("metadata")
    values = pixels((40, 50, 3), "int16")
    values[5:9, 5:9] = -1
    image = {"missing_value": -1, "grid_mapping": "crs", "coordinates": "wavelength crs"}
    source = group(
        folder / "scene.zarr",
        image=(("y", "x", "band"), values, image),
        band=(("band",), ["B02", "B03", "B04"]),
        wavelength=(("band",), [490, 560, 665]),
        crs=((), 0, {"crs_wkt": pyproj.CRS("EPSG:32633").to_wkt(), "GeoTransform": geo_text(UTM)}),
    )
    harness.store(harness.Raster(harness.labels(40, 50), ("y", "x")), folder / "labels.zarr", with_labels=False)
    inputs = {"image": {"path": source, "array": "image"}, "labels": str(folder / "labels.zarr")}
    output = {"path": str(folder / "result.zarr"), "keep": KEEP}
    api.run({"inputs": inputs, "steps": STEPS, "output": output, "run": {"workers": 2}})
    return folder / "result.zarr"


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed."""
    return Path(shutil.copytree(made, tmp_path / "result.zarr"))


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What the output is compared with: a store without pixels, and its metadata by file."""
    folder, documents = tmp_path_factory.mktemp("expected") / "store.zarr", {}
    with pytest.MonkeyPatch.context() as patch:
        make = expectation.expected_documents

        def keep(store: Any, record: Any) -> dict[str, Any]:
            documents.update(make(store, record))
            shutil.copytree(store.path, folder)
            return documents

        patch.setattr(expectation, "expected_documents", keep)
        assert api.verify(made, samples=0)["problems"] == []
    return folder, documents


def problems_of(output: Path, **options: Any) -> list[str]:
    """Return what `verify` says of an output; where it refuses to look, that."""
    try:
        return list(api.verify(output, **{"samples": 0, **options})["problems"])
    except RasterpipeError as error:
        return [str(error)]


def read(path: Path) -> Any:
    return json.loads((path / "zarr.json").read_text())


def write(path: Path, document: Any) -> None:
    (path / "zarr.json").write_text(json.dumps(document))


def other(value: Any) -> Any:
    """Return a value that differs by as little as it can."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return float(np.nextafter(value, np.inf))
    if isinstance(value, int):
        return value + 1
    return f"{value}x" if isinstance(value, str) else [0] if value in ([], {}) else 0


def edits(node: Any, place: str = "") -> Iterator[tuple[str, Edit, Edit]]:
    """Yield the changes of a document, each with what undoes it: a leaf or branch changed, removed or added."""
    entries = list(node.items() if isinstance(node, dict) else enumerate(node))
    for key, value in entries:
        where = f"{place}.{key}".lstrip(".")
        if isinstance(value, dict | list) and value:
            yield from edits(value, where)
        else:
            yield (
                f"{where} changed",
                partial(node.__setitem__, key, other(value)),
                partial(node.__setitem__, key, value),
            )
        yield f"{where} removed", partial(node.__delitem__, key), partial(insert, node, key, value)
    if isinstance(node, dict):
        yield f"{place} added to", partial(node.__setitem__, "added", 1), partial(node.__delitem__, "added")


def insert(node: Any, key: Any, value: Any) -> None:
    if isinstance(node, dict):
        node[key] = value
    else:
        node.insert(key, value)


# --- metadata --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_each_leaf_of_all_metadata_is_compared(made: Path, expected: tuple[Path, dict[str, Any]]) -> None:
    documents = expected[1]
    files = {str(path.relative_to(made)) for path in made.rglob("zarr.json")}
    assert files == set(documents)
    unseen, count = [], 0
    for name in sorted(files):
        document = json.loads((made / name).read_text())
        assert document_difference(document, documents[name]) is None
        if name == "zarr.json":  # whose record has tests of its own, below
            for each in (document, documents[name]):
                each["attributes"]["rasterpipe"] = "the same"
        for what, change, undo in edits(document):
            if what.startswith("consolidated_metadata.metadata.") and not what.endswith("changed"):
                continue  # of a copy; it takes longer
            change()
            count += 1
            if document_difference(document, documents[name]) is None:
                unseen.append(f"{name}: {what}")
            undo()
    assert unseen == []
    assert count > 2500


def test_metadata_that_are_lost_or_no_json_are_found(output: Path) -> None:
    (output / "smooth" / "mean" / "zarr.json").unlink()
    (output / "texture" / "frequency" / "zarr.json").write_text("{")
    (output / "zones" / "table" / "band" / "zarr.json").write_text("[" * 100_000)
    problems = problems_of(output)
    for name in ("smooth/mean", "texture/frequency", "zones/table/band"):
        assert any(f"{name}/zarr.json: is not there, or cannot be read" in text for text in problems), problems


def edit(path: Path, *keys: str, value: Any = None) -> None:
    """Change or add (None: remove) one value of metadata."""
    document = read(path)
    node = document
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    if value is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    write(path, document)


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("smooth/max", "attributes _FillValue", 7),
        ("smooth/mean", "attributes scale_factor", 2.0),
        ("smooth/mean", "attributes add_offset", 1),
        ("smooth/spatial_ref", "attributes crs_wkt", pyproj.CRS("EPSG:32634").to_wkt()),
        ("smooth/spatial_ref", "attributes GeoTransform", None),
        ("smooth", "attributes proj:wkt2", "none"),
        ("smooth/mean", "attributes coordinates", "spatial_ref"),
        ("smooth/max", "fill_value", 3),
        ("smooth/max", "dimension_names", ["x", "y", "band"]),
        ("poster/index", "attributes psnr", 99.0),
        ("zones/table/mean", "attributes _FillValue", 0),
        ("zones", "attributes rasterpipe step size", 9),
        ("zones", "attributes rasterpipe inputs image bytes", 9),
        ("zones", "consolidated_metadata metadata mean attributes", {}),
        ("", "consolidated_metadata metadata smooth/mean attributes _FillValue", "AAAA"),
        ("", "consolidated_metadata", None),
        ("", "attributes title", "another"),
    ],
)
def test_an_edit_is_found_by_the_command(name: str, keys: str, value: Any, output: Path) -> None:
    edit(output / name, *keys.split(), value=value)
    result = CliRunner().invoke(main, ["verify", str(output), "--samples", "0"])
    assert result.exit_code == 5
    where = f"{output}/{name}".rstrip("/")
    assert f"{where}/zarr.json: {'.'.join(keys.split())}" in result.stderr


def test_what_a_reader_would_take_for_a_part_of_the_result_is_found(output: Path) -> None:
    root = zarr.open_group(output, mode="r+", use_consolidated=False)
    root.create_group("more").create_array("nested", shape=(3,), dtype="f4")
    root["smooth"].create_array("median", shape=(40, 50), dtype="f4")
    root["zones/table"].create_array("sum", shape=(3,), dtype="f4")
    problems = problems_of(output)
    assert problems == [
        f"{output}: holds what is no part of the result: more, smooth/median, zones/table/sum; move it away"
    ]


# --- small arrays ----------------------------------------------------------------------------------------------


def change_array(store: Path, name: str) -> None:
    """Change one value by one bit, or by one letter."""
    array = zarr.open_array(store, path=name, mode="r+")
    values = np.asarray(array[...])
    first = (0,) * values.ndim
    if values.dtype.kind in "iuf":
        bits = values.view(f"u{values.dtype.itemsize}")
        bits[first] ^= 1
    else:
        values[first] = values[first][:-1] + chr(ord(values[first][-1]) + 1)
    array[...] = values


def test_each_small_array_is_compared_by_value(output: Path, expected: tuple[Path, dict[str, Any]]) -> None:
    folder, documents = expected
    kept = {f"{name}/zarr.json" for name in read(output)["attributes"]["rasterpipe"]["valid"]}
    arrays = [name for name, document in documents.items() if document["node_type"] == "array" and name not in kept]
    assert len(arrays) > 35
    for name in (each.removesuffix("/zarr.json") for each in arrays):
        assert list(value_problems(str(output), name, LocalFolder(folder))) == []
        change_array(output, name)
        (problem,) = value_problems(str(output), name, LocalFolder(folder))
        assert f"{name}: 1 of " in problem


SMALL = ("smooth/y", "texture/x", "smooth/band", "texture/frequency", "zones/table/band", "smooth/spatial_ref")
PALETTES = ("poster/palette", "duotone/palette", "given/palette", "colors/palette")


@pytest.mark.parametrize("name", [*SMALL, *PALETTES])
def test_a_changed_value_is_found(name: str, output: Path) -> None:
    change_array(output, name)
    found = "poster/palette" if name == "colors/palette" else name  # which is made of it
    assert any(
        f"{output}/{found}: " in text and " values differ, the first at " in text for text in problems_of(output)
    )


@pytest.mark.parametrize("name", ["smooth/y", "smooth/band", "poster/palette"])
def test_a_lost_or_damaged_chunk_is_found(name: str, output: Path) -> None:
    (chunk,) = (path for path in (output / name / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert any(f"{output}/{name}: " in text for text in problems_of(output))
    chunk.unlink()
    assert any(f"{output}/{name}: " in text for text in problems_of(output))


@pytest.mark.parametrize("name", ["label", "pixels", "mean", "count"])
def test_tables_are_computed_again_by_all_alone(name: str, output: Path) -> None:
    change_array(output, f"zones/table/{name}")
    facts = api.verify(output, samples=0)
    assert facts["agrees"]
    assert any("the tables of zones, colors, given: " in text for text in facts["not_compared"])
    assert problems_of(output, everything=True)[0] == f"zones/table/{name}: the table differs"


def test_a_table_of_another_shape_is_found(output: Path) -> None:
    group = zarr.open_group(output, mode="r+", path="zones/table", use_consolidated=False)
    values = np.asarray(group["mean"][...])
    for wrong in (values[1:], values[:, 1:], values > 0, values[0, 0]):
        group.create_array("mean", data=np.asarray(wrong), overwrite=True)
        assert any("zones/table/mean" in text for text in problems_of(output))


# --- the record ------------------------------------------------------------------------------------------------


def test_each_leaf_of_the_recorded_plan_is_compared(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "store_problems", lambda *arguments: ())  # as above: they take longer
    document, unseen = read(output), []
    record = document["attributes"]["rasterpipe"]
    for part in ("parts", "config"):
        for what, change, undo in edits(record[part], part):
            if not what.startswith(("parts.steps.", "config.steps.")) or ".0" in what:
                change()
                write(output, document)
                unseen += [] if problems_of(output) else [what]
                undo()
    seen_in_files = {"config.output.path changed", "config.output.cog changed"}
    assert {what for what in unseen if not what.startswith("config.run.")} == seen_in_files


@pytest.mark.thorough
def test_what_else_is_recorded_is_compared(output: Path) -> None:
    document = read(output)
    record, unseen = document["attributes"]["rasterpipe"], []
    for what, change, undo in edits(record):
        if not what.startswith(("parts.", "config.", *TWINS)):
            change()
            write(output, document)
            unseen += [] if problems_of(output) else [what]
            undo()
    counts = {
        f"valid.{name} changed"
        for name, count in record["valid"].items()
        if count % 1000 and f"valid.{name}" not in TWINS
    }
    assert set(unseen) == {"started changed", "finished changed", *counts}


@pytest.mark.parametrize("value", [-1, 40 * 50 * 3 + 1, True, 3.0, "3"])
def test_counts_that_cannot_be_are_found(value: Any, output: Path) -> None:
    edit(output, "attributes", "rasterpipe", "valid", "smooth/mean", value=value)
    assert problems_of(output)[0].startswith(f"{output}: the valid values of smooth/mean are recorded as ")


def test_counts_and_errors_are_computed_again_by_all(output: Path) -> None:
    record = read(output)["attributes"]["rasterpipe"]
    count, error = record["valid"]["smooth/max"], record["quality"]["poster"]["mean_squared_error"]
    edit(output, "attributes", "rasterpipe", "valid", "smooth/max", value=count - 1)
    assert problems_of(output) == []
    assert problems_of(output, everything=True) == [
        f"{output}: the valid values of smooth/max are recorded as {count - 1}, and computed as {count}"
    ]
    edit(output, "attributes", "rasterpipe", "quality", "poster", "mean_squared_error", value=error * 2)
    assert any("attributes.rasterpipe.quality.poster.psnr is " in text for text in problems_of(output))


WRONG = (None, 10**9, [], "text", {}, ...)
"""Values of another type, and none."""


@pytest.mark.thorough
def test_a_record_of_other_types_is_refused(output: Path) -> None:
    """Each key of the record, at the top and one level down."""
    document = read(output)
    record = document["attributes"]["rasterpipe"]
    nodes = [(record, key) for key in record]
    nodes += [(node, key) for node in record.values() if isinstance(node, dict) for key in list(node)[:6]]
    for node, key in nodes:
        before = dict(node)
        for value in WRONG:
            node[key] = value
            if value is ...:
                del node[key]
            if node != before and (key, value) not in ANY_TEXT:
                write(output, document)
                result = CliRunner().invoke(main, ["verify", str(output), "--samples", "0", "-q"])
                assert result.exit_code == 5, (key, value, result.stderr)
                assert "fault of rasterpipe" not in result.stderr, (key, value, result.stderr)
            node.clear()
            node.update(before)
