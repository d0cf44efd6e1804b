"""What `info` says of a folder, a group, a stack of slices, and whether its lines work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline import api
from pipeline.config import parse
from pipeline.model.errors import InputError
from pipeline.model.facts import ContentsFacts
from pipeline.storage.compose import open_input
from pipeline.storage.files import expand
from pipeline.storage.input import Input
from pipeline.storage.reader import Reader
from pipeline.verbs.contents import line_of
from tests.georeference import placed_tiff as tiff
from tests.zarr_files import group, pixels, read


def contents(path: Path | str, **chosen: Any) -> ContentsFacts:
    facts = api.info(path, **chosen)
    assert isinstance(facts, ContentsFacts)
    return facts


def opened(line: str) -> Reader:
    """Open the input that a line of `info` makes, as a pipeline file with it would."""
    entry = parse(f"inputs:\n{line}\n").data["inputs"]["image"]
    return open_input(expand(Input.model_validate(entry if isinstance(entry, dict) else {"path": entry}))[0])


def scene(folder: Path, tile: str, day: str, column: int = 0) -> None:
    """Write two bands and the classes of a granule, in the folders of Sentinel-2."""
    place = folder / f"S2A_MSIL2A_{day}T100031_{tile}.SAFE" / "GRANULE" / "L2A" / "IMG_DATA"
    for seed, band in enumerate(("B04", "B08")):
        values = pixels((8, 8), "uint16", seed) | 1
        tiff(place / "R10m" / f"{tile}_{day}T100031_{band}_10m.tif", values, (0, column), nodata=0)
    classes = np.full((4, 4), 4, "uint8")
    tiff(place / "R20m" / f"{tile}_{day}T100031_SCL_20m.tif", classes, (0, column // 2), size=20)
    tiff(
        place / "R20m" / f"{tile}_{day}T100031_B04_20m.tif",
        classes.astype("uint16"),
        (0, column // 2),
        size=20,
        nodata=0,
    )


def test_the_bands_of_a_scene(tmp_path: Path) -> None:
    scene(tmp_path, "T33UUP", "20240601")
    facts = contents(tmp_path)
    assert [each.what for each in facts.members] == ["8 x 8 uint16", "8 x 8 uint16", "4 x 4 uint16", "4 x 4 uint8"]
    (line,) = facts.inputs_lines
    assert line.endswith("mask: {SCL: [0, 1, 3, 8, 9, 10]}}")
    reader = opened(line)
    assert reader.spec.bands == ("B04", "B08")
    np.testing.assert_array_equal(read(reader), [pixels((8, 8), "uint16", seed) | 1 for seed in (0, 1)])


def test_granules_of_several_dates(tmp_path: Path) -> None:
    for day in ("20240601", "20240611"):
        for number, tile in enumerate(("T33UUP", "T33UVP")):
            scene(tmp_path, tile, day, 8 * number)
    (line,) = contents(tmp_path).inputs_lines
    reader = opened(line)
    assert reader.spec.bands == ("B04 2024-06-01", "B08 2024-06-01", "B04 2024-06-11", "B08 2024-06-11")
    assert reader.spec.region.shape == (8, 16)


def test_tiles_and_files_with_dates(tmp_path: Path) -> None:
    for number in range(3):
        tiff(tmp_path / "tiles" / f"dem_{number}.tif", pixels((4, 4)), (0, 4 * number))
        tiff(tmp_path / "dates" / f"ndvi_2024-0{number + 1}-15_v1.tif", pixels((4, 4)))
    assert contents(tmp_path / "tiles").inputs_lines == (f'  image: {{mosaic: "{tmp_path}/tiles/dem_*.tif"}}',)
    (line,) = contents(tmp_path / "dates").inputs_lines
    assert line == f'  image: {{dates: "{tmp_path}/dates/ndvi_2024-0{{time:%Y-%m-%d}}_v1.tif"}}'.replace("2024-0{", "{")
    assert opened(line).spec.bands == ("2024-01-15", "2024-02-15", "2024-03-15")


def test_files_that_do_not_belong_together_are_named_each(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", pixels((4, 4)))
    tiff(tmp_path / "b.tif", pixels((3, 5, 5), "uint8"), size=7)
    (tmp_path / "c.tif").write_bytes(b"no TIFF at all")
    facts = contents(tmp_path)
    assert facts.inputs_lines == (f"  image: {tmp_path}/a.tif", f"  image: {tmp_path}/b.tif")
    assert facts.what == "3 rasters"
    assert "c.tif: is not a TIFF file" in facts.notes[0]


def test_a_folder_without_rasters_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no raster lies there: notes\.txt"):
        api.info(tmp_path)


def test_a_group_of_many_arrays(tmp_path: Path) -> None:
    path = group(tmp_path / "a.zarr", red=(("y", "x"), pixels((4, 5))), nir=(("y", "x"), pixels((4, 5), seed=1)))
    facts = contents(path)
    assert [(each.name, each.what) for each in facts.members] == [("nir", "4 x 5 float32"), ("red", "4 x 5 float32")]
    assert [read(opened(line)).tolist() for line in facts.inputs_lines] == [
        pixels((4, 5), seed=1).tolist(),
        pixels((4, 5)).tolist(),
    ]


def test_slices_of_a_microscope(tmp_path: Path) -> None:
    values = pixels((4, 2, 6, 7), "uint16")
    tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata={"axes": "ZCYX"})
    one, every = contents(tmp_path / "a.ome.tif").inputs_lines
    np.testing.assert_array_equal(read(opened(one)), values[0])
    np.testing.assert_array_equal(read(opened(every)), values.reshape(8, 6, 7))
    facts = api.info(tmp_path / "a.ome.tif", at={"z": 2})
    assert not isinstance(facts, ContentsFacts)
    assert facts.inputs_line == f"  image: {{path: {tmp_path}/a.ome.tif, at: {{z: 2}}}}"


def test_convert_and_apply_take_what_info_takes(tmp_path: Path) -> None:
    values = pixels((3, 2, 6, 7), "uint16")
    path = group(
        tmp_path / "cube.zarr",
        value=(("time", "band", "y", "x"), values),
        time=(("time",), np.arange(3), {"units": "days since 2024-06-01"}),
    )
    api.convert(path, tmp_path / "one.tif", at={"time": "2024-06-02"})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "one.tif"), values[1])
    api.convert(path, tmp_path / "all.zarr", along="time")
    np.testing.assert_array_equal(read(opened(f"  image: {tmp_path}/all.zarr")), values.reshape(6, 6, 7))
    api.apply_operation(
        "select", {"bands": [2]}, path, str(tmp_path / "b.zarr"), part={"array": "value", "at": {"time": 2}}
    )
    np.testing.assert_array_equal(read(opened(f"  image: {tmp_path}/b.zarr")).squeeze(), values[2, 1])


def test_a_file_of_polygons_says_its_layers_and_the_lines_that_make_inputs_of_them(tmp_path: Path) -> None:
    vector_files = pytest.importorskip("tests.vector_files")
    box = vector_files.shapely.box(0, 0, 1, 1)
    fields = {"class": [3, 3], "field_id": [7, 9], "crop": ["wheat", "rye"]}
    path = vector_files.write(tmp_path / "fields.gpkg", [box, box], fields, layer="fields")
    facts = contents(path)
    assert facts.inputs_lines == (f"  fields: {{vector: {path}, id: field_id}}",)
    (layer,) = facts.members
    assert layer.name == "fields"
    assert layer.what == ("2 features, Unknown, EPSG:32633; class (int64), field_id (int64), crop (object)")
    vector_files.write(path, [box], {"name": ["a"]}, layer="other", append=True)
    assert contents(path).inputs_lines[1] == f"  fields: {{vector: {path}, layer: other}}"
    with pytest.raises(InputError, match=r"a file of polygons is no raster; name it as one: `{vector: "):
        opened(f"  image: {path}")


def test_a_dollar_of_a_path_is_no_variable(tmp_path: Path) -> None:
    source = str(tmp_path / "${HOME} $$.zarr")
    line = line_of({"path": source})
    assert parse(f"inputs:\n{line}").data["inputs"]["image"] == source
