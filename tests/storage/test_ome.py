"""What OME-TIFF and OME-Zarr say of a raster: pixel sizes in micrometres, colours of channels; and what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import xarray as xr

import pipeline
from pipeline import api
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.storage.georeference.ome import micrometres
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader
from pipeline.testing import raster
from tests import harness
from tests.zarr_files import group, pixels

COLORS = ("0000FF", "00FF00", "")


def ome_tiff(path: Path, shape: tuple[int, ...] = (3, 16, 20), **pixel: Any) -> Path:
    """Write an OME-TIFF: of three channels DAPI in blue, GFP in green, and one without name and colour."""
    channel = {"Name": ["DAPI", "GFP", ""], "Color": [0x0000FFFF, 0x00FF00FF, ""]} if shape[0] == 3 else {}
    metadata = {"axes": "CYX"[-len(shape) :], "Channel": channel, **pixel}
    tifffile.imwrite(path, pixels(shape, "uint16"), ome=True, photometric="minisblack", metadata=metadata)
    return path


def scaled(*scale: float, shift: tuple[float, ...] = ()) -> dict[str, Any]:
    found: list[dict[str, Any]] = [{"type": "scale", "scale": list(scale)}]
    return {"coordinateTransformations": found + [{"type": "translation", "translation": list(shift)}] * bool(shift)}


def ome_zarr(
    path: Path,
    *levels: dict[str, Any],
    version: str = "0.5",
    unit: str | None = "micrometer",
    common: Any = None,
    colors: Any = COLORS,
) -> str:
    """Write an OME-Zarr image of three channels and as many levels as are described."""
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": unit} for n in "yx")]
    datasets = [{"path": str(number), **level} for number, level in enumerate(levels)]
    scales = {"axes": axes, "datasets": datasets, **({"coordinateTransformations": common} if common else {})}
    channels = [{"label": name, "color": color} for name, color in zip(["DAPI", "GFP", ""], colors, strict=True)]
    said = {"multiscales": [scales], "omero": {"channels": channels}}
    arrays: dict[str, Any] = {
        str(n): (("c", "y", "x"), pixels((3, -(-16 >> n), -(-20 >> n)), "uint16")) for n in range(len(levels))
    }
    return group(path, said if version == "0.4" else {"ome": {"version": "0.5", **said}}, **arrays)


def colors_of(spec: RasterSpec) -> Any:
    return dict(spec.band_coordinates).get("channel_color")


def notes(reader: Reader) -> str:
    return "; ".join(reader.describe()["warnings"])


@pytest.mark.parametrize(
    ("value", "unit", "due"),
    [
        (0.325, "micrometer", 0.325),
        ("0.325", "µm", 0.325),
        (325, "nm", 0.325),
        (0.1, "mm", 100.0),
        (1.1, "angstrom", 0.00011),
        (1, "in", 25400.0),
        (2, "parsec", None),
        (2, None, None),
        (True, "um", None),
        ("1e999", "um", None),
        ("wide", "um", None),
        (10**400, "um", None),
        ([1], "um", None),
    ],
)
def test_lengths(value: Any, unit: Any, due: float | None) -> None:
    assert micrometres(value, unit) == due


def test_pixels_and_channels_of_ome_tiff(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 650, "PhysicalSizeYUnit": "nm"}
    path = ome_tiff(tmp_path / "a.ome.tif", **sizes)
    spec = open_raster(str(path)).spec
    assert spec.transform == (0.325, 0, 0, 0, 0.65, 0)
    assert (spec.unit, spec.crs) == ("micrometer", None)
    assert (spec.bands, colors_of(spec)) == (("DAPI", "GFP", "b3"), COLORS)
    assert colors_of(spec.select([2, 1])[0]) == ("00FF00", "0000FF")
    facts = api.info(str(path))
    assert (facts["pixel_size"], facts["pixel_unit"]) == ([0.65, 0.325], "micrometer")
    assert open_raster(str(ome_tiff(tmp_path / "plain.ome.tif"))).spec.transform is None
    assert "pixel_size" not in api.info(str(tmp_path / "plain.ome.tif")).to_dict()


def test_a_level_of_ome_tiff_has_its_own_pixels(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(pixels((64, 32), "uint8"), subifds=1, metadata=metadata)
        writer.write(pixels((32, 16), "uint8"), subfiletype=1)
    assert open_raster(str(tmp_path / "a.ome.tif"), Choice(level=1)).spec.transform == (1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("pixel", "words"),
    [
        ({"PhysicalSizeX": 0, "PhysicalSizeY": 1}, "the pixel size is ignored: 1 µm x 0 µm is no size in a known unit"),
        ({"PhysicalSizeX": -1, "PhysicalSizeY": 1}, "1 µm x -1 µm is no size"),
        ({"PhysicalSizeX": 1e300, "PhysicalSizeY": 1}, "1 µm x 1e[+]300 µm is no size"),
        ({"PhysicalSizeX": 1}, "None µm x 1 µm is no size"),
        ({"PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeYUnit": "pixel"}, "1 pixel x 1 µm is no size"),
    ],
)
def test_sizes_of_ome_tiff_that_are_none_are_said(tmp_path: Path, pixel: dict[str, Any], words: str) -> None:
    reader = open_raster(str(ome_tiff(tmp_path / "a.ome.tif", **pixel)))
    assert (reader.spec.transform, reader.spec.unit) == (None, None)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(notes(reader))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_pixels_and_channels_of_ome_zarr(tmp_path: Path, version: str) -> None:
    path = ome_zarr(tmp_path / "a.zarr", scaled(1, 0.5, 0.25), scaled(1, 1, 0.5), version=version)
    for level, transform in enumerate([(0.25, 0, 0, 0, 0.5, 0), (0.5, 0, 0, 0, 1, 0)]):
        spec = open_raster(path, Choice(level=level)).spec
        assert (spec.transform, spec.unit, spec.crs) == (transform, "micrometer", None)
        assert (spec.bands, colors_of(spec)) == (("DAPI", "GFP", "b3"), COLORS)
    assert notes(open_raster(path)) == ""


def test_levels_lie_where_ome_zarr_says(tmp_path: Path) -> None:
    """Their centres are what is told; full resolution begins at 0, in whatever unit."""
    path = ome_zarr(tmp_path / "a.zarr", scaled(1, 2, 2), scaled(1, 4, 4, shift=(0, 1, 1)), unit="nanometer")
    assert open_raster(path, Choice(level=1)).spec.transform == (0.004, 0, 0, 0, 0.004, 0)
    moved = ome_zarr(tmp_path / "b.zarr", scaled(1, 2, 2, shift=(0, 10, 20)), scaled(1, 4, 4))
    for level in (0, 1):
        transform = open_raster(moved, Choice(level=level)).spec.transform
        assert transform is not None
        assert (transform.c, transform.f) == (20, 10)
    common = [{"type": "scale", "scale": [1, 3, 3]}]
    tripled = ome_zarr(tmp_path / "c.zarr", scaled(1, 2, 2, shift=(0, 1, 1)), common=common)
    assert open_raster(tripled).spec.transform == (6, 0, 3, 0, 6, 3)


@pytest.mark.parametrize(
    ("level", "unit", "words"),
    [
        (scaled(1, 0.5, 0.5), None, "0.5 None x 0.5 None is no size in a known unit of length"),
        (scaled(1, 0.5, 0.5), "fathom", "0.5 fathom"),
        (scaled(1, 0, 0.5), "micrometer", r"'scale': \[1, 0, 0.5\]} is no transformation that is read"),
        (scaled(1, 0.5), "micrometer", ""),
        (scaled(1, float("inf"), 0.5), "micrometer", "'scale'.* is no transformation"),
        (scaled(1, 1e200, 1e200), "micrometer", "is no size"),
        (scaled(1, 1, 1, shift=(0, 1e308, 1e308)), "nanometer", ""),
        (
            {"coordinateTransformations": [{"type": "scale", "path": "s"}]},
            "micrometer",
            r"{'type': 'scale', 'path': 's'} is no transform",
        ),
        ({"coordinateTransformations": "wide"}, "micrometer", ""),
        ({}, "micrometer", ""),
        (scaled(1, 1, 1), None, ""),
    ],
)
def test_sizes_of_ome_zarr_that_are_none(tmp_path: Path, level: dict[str, Any], unit: str | None, words: str) -> None:
    reader = open_raster(ome_zarr(tmp_path / "a.zarr", level, unit=unit))
    if reader.spec.transform is not None:
        assert all(map(np.isfinite, reader.spec.transform))
        return
    assert reader.spec.unit is None
    with pytest.raises(AssertionError, match=words or "^$"):
        raise AssertionError(notes(reader))


def test_colours_that_are_none(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", {}, colors=["#ff00ff", 7, "red"])
    assert colors_of(open_raster(path).spec) == ("FF00FF", "", "")
    assert colors_of(open_raster(ome_zarr(tmp_path / "b.zarr", {}, colors=[[], None, "12345G"])).spec) is None


STEP: dict[str, Any] = {"name": "s", "op": "gradient", "outputs": ["dy", "dx"]}


def test_derivatives_per_micrometre(tmp_path: Path) -> None:
    source = str(ome_tiff(tmp_path / "a.ome.tif", PhysicalSizeX=0.25, PhysicalSizeY=0.5))
    found = {}
    for name, spacing in {"geo": "geo", "given": [0.5, 0.25]}.items():
        facts = api.run(harness.document(source, [{**STEP, "spacing": spacing}], tmp_path / f"{name}.zarr"))
        found[name] = [harness.read(tmp_path / f"{name}.zarr", f"s/{side}") for side in ("dy", "dx")]
        assert ("s: a pixel is 0.5 um high and 0.25 um wide" in facts.warnings) == (name == "geo")
    assert all(map(harness.same_bits, found["geo"], found["given"]))
    with pytest.raises(
        PipelineError, match=r"not given, and the raster has pixels of 0\.5 x 0\.25 micrometer; say what"
    ):
        api.plan(harness.document(source, [STEP], tmp_path / "x.zarr"))


def test_the_unit_goes_with_the_raster(tmp_path: Path) -> None:
    """Through steps, a part, stores, GeoTIFFs and xarray; of a place on a map, no file says a word."""
    source = ome_tiff(tmp_path / "a.ome.tif", PhysicalSizeX=0.25, PhysicalSizeY=0.5)
    steps = [{"name": "m", "op": "window", "size": 3, "statistics": ["mean"]}, {**STEP, "input": "m", "spacing": "geo"}]
    document = harness.document(str(source), steps, tmp_path / "out.zarr")
    document |= {"region": {"rows": [4, 12], "columns": [2, 20]}}
    document["output"] |= {"geotiff": str(tmp_path / "maps")}
    api.run(document)
    here = (0.25, 0, 0.5, 0, 0.5, 2)
    for path, array in ((tmp_path / "out.zarr", "s/dy"), (tmp_path / "maps" / "s_dy.tif", None)):
        spec = open_raster(str(path), Choice(array)).spec
        assert (spec.transform, spec.unit, spec.crs) == (here, "micrometer", None)
    assert colors_of(open_raster(str(tmp_path / "out.zarr"), Choice("s/dy")).spec) == COLORS
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):  # drawn with the first row on top
        dataset = rasterio.open(tmp_path / "maps" / "s_dy.tif")
    with dataset:
        assert dataset.transform.is_identity
        assert dataset.crs is None
    api.convert(tmp_path / "maps" / "s_dy.tif", tmp_path / "again.tif")
    again = api.info(str(tmp_path / "again.tif"))
    assert (again["pixel_size"], again["pixel_unit"]) == ([0.5, 0.25], "micrometer")
    array = xr.open_zarr(tmp_path / "out.zarr", group="s")["dx"]
    assert array.x.attrs["units"] == "micrometer"
    lazy = pipeline.apply([{**STEP, "outputs": ["dx"], "spacing": "geo"}], array)
    given = pipeline.apply([{**STEP, "outputs": ["dx"], "spacing": [0.5, 0.25]}], array)
    assert harness.same_bits(lazy.values, given.values)


def test_grids_of_a_microscope(tmp_path: Path) -> None:
    """A level lies on full resolution; a calibration may be off by what moves no pixel; another one is refused."""
    path = ome_zarr(tmp_path / "a.zarr", scaled(1, 0.5, 0.5), scaled(1, 1, 1))
    near = ome_zarr(tmp_path / "b.zarr", scaled(1, 0.50001, 0.5))
    far = ome_zarr(tmp_path / "c.zarr", scaled(1, 0.6, 0.5))
    steps = [{"name": "d", "op": "calc", "inputs": {"a": "image", "b": "other"}, "expression": "a - b"}]

    def plan(other: dict[str, Any]) -> Any:
        document = harness.document(path, steps, tmp_path / "out.zarr")
        document["inputs"]["other"] = other
        return api.plan(document)

    plan({"path": path, "level": 1, "match": "image"})
    plan({"path": near})
    with pytest.raises(PipelineError, match=r"one of the files records a wrong pixel size; correct it there"):
        plan({"path": far})
    place = raster.Raster(pixels((3, 16, 20)), ("band", "y", "x"))
    on_a_map = harness.store(place, tmp_path / "map.zarr")
    plan({"path": on_a_map})  # which says nothing of its place
    group(
        tmp_path / "utm.zarr",
        {"proj:code": "EPSG:32632", "spatial:transform": [0.5, 0, 0, 0, 0.5, 0]},
        image=(("band", "y", "x"), pixels((3, 16, 20))),
    )
    with pytest.raises(PipelineError, match=r"micrometer against CRS EPSG:32632"):
        plan({"path": str(tmp_path / "utm.zarr")})


@pytest.mark.parametrize(
    "text", ["0.5 0 0 0 0.5 0", "0.5 0 0 0 0.5", "1 0 0 0 x 0", "nan 0 0 0 1 0", "1 1 0 0 1 0", "9" * 400, ""]
)
def test_micrometres_in_the_metadata_of_a_geotiff(tmp_path: Path, text: str) -> None:
    item = f'<GDALMetadata><Item name="MICROMETERS" domain="rasterpipe">{text}</Item></GDALMetadata>'
    tag = (42112, 2, len(item) + 1, item, True)
    tifffile.imwrite(tmp_path / "a.tif", pixels((8, 9), "uint8"), metadata=None, extratags=[tag])
    spec = open_raster(str(tmp_path / "a.tif")).spec
    due = ((0.5, 0, 0, 0, 0.5, 0), "micrometer") if text == "0.5 0 0 0 0.5 0" else (None, None)
    assert (spec.transform, spec.unit) == due
