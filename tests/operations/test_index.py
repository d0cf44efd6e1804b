"""Spectral indices: the formulas of the literature, and which band is taken for which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import pipeline
from pipeline.model.errors import PipelineError
from pipeline.model.raster import RasterSpec
from pipeline.operations.base import Specs
from pipeline.operations.common_name import CommonName, find_band
from pipeline.operations.index import Index
from pipeline.operations.spectral_index import INDICES, IndexName
from pipeline.testing.reference import check_close
from tests import reference_pointwise

xr = pytest.importorskip("xarray")

COMMON = get_args(CommonName)
BLUE, GREEN, RED, REDEDGE, NIR, SWIR16, SWIR22 = 0.05, 0.08, 0.06, 0.15, 0.4, 0.2, 0.1
LITERATURE = {
    "ndvi": 0.34 / 0.46,
    "gndvi": 0.32 / 0.48,
    "ndre": 0.25 / 0.55,
    "sr": 0.4 / 0.06,
    "evi": 2.5 * 0.34 / (0.4 + 0.36 - 0.375 + 1),
    "evi2": 2.5 * 0.34 / (0.4 + 0.144 + 1),
    "savi": 1.5 * 0.34 / 0.96,
    "osavi": 0.34 / 0.62,
    "msavi": (1.8 - np.sqrt(1.8**2 - 8 * 0.34)) / 2,
    "arvi": (0.4 - 0.07) / (0.4 + 0.07),
    "vari": 0.02 / 0.09,
    "ngrdi": 0.02 / 0.14,
    "cig": 4.0,
    "cire": 0.4 / 0.15 - 1,
    "ndwi": -0.32 / 0.48,
    "mndwi": -0.12 / 0.28,
    "ndmi": 0.2 / 0.6,
    "nbr": 0.3 / 0.5,
    "nbr2": 0.1 / 0.3,
    "ndti": 0.1 / 0.3,
    "ndbi": -0.2 / 0.6,
    "ndsi": -0.12 / 0.28,
    "bsi": (0.26 - 0.45) / (0.26 + 0.45),
}
"""Index -> its value for the reflectances above, by hand."""


def array(values: Any, bands: Any, **coordinates: Any) -> Any:
    """Return one pixel, (band, y, x)."""
    coords = {"band": list(bands)} | {name: ("band", list(each)) for name, each in coordinates.items()}
    return xr.DataArray(np.array(values)[:, None, None], dims=("band", "y", "x"), coords=coords)


def computed(raster: Any, index: str, **fields: Any) -> float:
    step = {"name": "step", "op": "index", "indices": [index], **fields}
    return float(np.asarray(pipeline.apply([step], raster)).ravel()[0])


def test_the_formulas_are_those_of_the_literature() -> None:
    raster = array([BLUE, GREEN, RED, REDEDGE, NIR, SWIR16, SWIR22], COMMON)
    assert set(LITERATURE) == set(INDICES) == set(get_args(IndexName))
    found = {index: computed(raster, index) for index in LITERATURE}
    assert found == pytest.approx(LITERATURE, rel=1e-12)


def test_scale_and_offset_make_reflectance_of_integers() -> None:
    raster = array(np.array([1600, 5000], np.uint16), ["red", "nir"])
    found = computed(raster, "savi", scale=0.0001, offset=-0.1)
    assert found == pytest.approx(1.5 * 0.34 / (0.4 + 0.06 + 0.5), rel=1e-6)
    assert computed(raster, "ndvi") == np.float32(3400) / np.float32(6600)


def test_it_is_what_calc_makes_of_the_formula() -> None:
    values = np.random.default_rng(0).integers(0, 4, (2, 40, 50)).astype(np.uint16)  # some 0 / 0
    raster = xr.DataArray(values, dims=("band", "y", "x"), coords={"band": ["B04", "B08"]})
    ours = pipeline.apply([{"name": "a", "op": "index", "indices": ["ndvi"]}], raster)
    calc = pipeline.apply([{"name": "b", "op": "calc", "expression": "(B08 - B04) / (B08 + B04)"}], raster)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(calc))
    assert np.isnan(np.asarray(ours)).any()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("scale", [{"scale": 0.0001, "offset": -0.1}, {"scale": 2.75e-05}])
def test_errors_are_those_of_rounding(dtype: str, scale: dict[str, float]) -> None:
    """The bound of each pixel is what rounding each operation of the formula adds up to."""
    values = np.random.default_rng(1).integers(900, 9000, (4, 120, 130)).astype(dtype)
    common = ("blue", "green", "red", "nir")
    raster = xr.DataArray(values, dims=("band", "y", "x"), coords={"band": list(common)})
    places = {name: place for place, name in enumerate(common, 1)}
    for index in reference_pointwise.INDICES:
        step = Index(name="i", op="index", indices=(index,), names=places, **scale)
        expected, bound = reference_pointwise.index(step, values.astype(np.float64), np.dtype(dtype))[index]
        ours = np.asarray(pipeline.apply([step.model_dump(exclude_none=True, mode="json")], raster))
        check_close(index, ours.reshape(expected.shape), expected, bound, np.nan)
        assert np.median(bound / np.maximum(1e-3, np.abs(expected))) < 1e-4


def test_of_a_series_there_is_an_index_of_each_date(tmp_path: Path) -> None:
    series = (("time", ("2024-06-01", "2024-06-01", "2024-06-09", "2024-06-09")), ("source_band", ("B04", "B08") * 2))
    bands = tuple(f"{band} {time}" for time, band in zip(series[0][1], series[1][1], strict=True))
    spec = RasterSpec(5, 6, np.dtype(np.uint16), ("y", "x", "band"), bands, None, series)
    made = Index(name="i", op="index", indices=("ndvi",)).output_specs(Specs({"input": spec}))["ndvi"]
    assert made.bands == ("ndvi 2024-06-01", "ndvi 2024-06-09")
    assert dict(made.band_coordinates)["time"] == ("2024-06-01", "2024-06-09")


FOUND = {
    "names": ({"bands": ("red", "NIR", "Swir1")}, {"red": "red", "nir": "NIR", "swir16": "Swir1"}),
    "sentinel-2": ({"bands": ("B04", "B08", "B8A", "B05")}, {"red": "B04", "nir": "B08", "rededge": "B05"}),
    "without B08": ({"bands": ("B04", "B8A")}, {"nir": "B8A"}),
    "descriptions": ({"bands": ("B04, central wavelength 665 nm", "B8A")}, {"red": "B04, central wavelength 665 nm"}),
    "landsat": ({"bands": ("SR_B4", "SR_B5", "SR_B6")}, {"red": "SR_B4", "nir": "SR_B5", "swir16": "SR_B6"}),
    "nir beside nir08": ({"bands": ("nir08", "nir")}, {"nir": "nir"}),
    "nir08": ({"bands": ("nir08", "red")}, {"nir": "nir08"}),
    "common names": ({"bands": ("x", "y"), "common_name": ("nir", "red")}, {"nir": "x", "red": "y"}),
    "common before own": ({"bands": ("red", "y"), "common_name": ("nir", "red")}, {"nir": "red", "red": "y"}),
    "three red edges": (
        {"bands": ("B05", "B06", "B8A"), "common_name": ("rededge", "rededge", "nir08")},
        {"rededge": "B05", "nir": "B8A"},
    ),
    "nm": ({"bands": ("1", "2", "3"), "wavelength": (650.0, 664.0, 850.0)}, {"red": "2", "nir": "3", "blue": None}),
    "um": ({"bands": ("1", "2"), "center_wavelength": (0.665, 0.842)}, {"red": "1", "nir": "2"}),
}


@pytest.mark.parametrize("case", FOUND)
def test_bands_are_found(case: str) -> None:
    known, expected = FOUND[case]
    coordinates = tuple((name, values) for name, values in known.items() if name != "bands")
    spec = RasterSpec(1, 1, np.dtype(np.uint8), ("y", "x", "band"), known["bands"], None, coordinates)
    found = {common: [band.name for band in find_band(spec, common, None)] for common in expected}
    assert found == {common: [name] if name else [] for common, name in expected.items()}


def bound(step: dict[str, Any], bands: tuple[str, ...], dtype: str = "float32") -> list[str]:
    """Return the notes of a step on a raster."""
    specs = Specs({"input": RasterSpec(5, 6, np.dtype(dtype), ("y", "x", "band"), bands, None)})
    operation = Index.model_validate({"name": "i", "op": "index", **step})
    operation.output_specs(specs)
    return list(operation.notes(specs))


WRONG = {
    "missing": (
        ({"indices": ["ndvi"]}, ("b1", "red")),
        "ndvi needs nir, and no band is known as that (there are b1, red); say which: `names: {nir: BAND}`",
    ),
    "doubtful numbers": (
        ({"indices": ["ndvi"]}, ("B4", "B5")),
        "ndvi needs nir, and no band is known as that (there are B4, B5); say which: `names: {nir: BAND}`, or whose "
        "numbers these are: `sensor: sentinel-2`, `landsat-8-9`, `landsat-4-7` or `modis`",
    ),
    "two": (
        ({"indices": ["ndvi"]}, ("NIR", "nir ", "Nir", "red")),
        "ndvi needs nir, which could be NIR or Nir; say which: `names: {nir: BAND}`",
    ),
    "no such band": (
        ({"indices": ["ndvi"], "names": {"nir": "B80"}}, ("B04", "B08")),
        "unknown band 'B80' (valid: B04, B08)",
    ),
    "one for two": (
        ({"indices": ["ndvi"], "names": {"nir": 1, "red": 1}}, ("B04", "B08")),
        "nir and red are one band, B04; name another",
    ),
    "integers": (
        ({"indices": ["ndvi", "evi2"]}, ("red", "nir"), "uint16"),
        "evi2 has constants that go with reflectance from 0 to 1, and the input is uint16; give `scale: 0.0001`, say "
        "(and `offset`, if there is one), or `scale: apply` at the input, whose file says it",
    ),
    "offset alone": (({"indices": ["ndvi"], "offset": 1}, ("red", "nir")), "`offset` goes with `scale`; give both"),
    "bands": (
        ({"indices": ["ndvi"], "bands": {"nir": "B08"}}, ("red", "nir")),
        "`bands` picks bands of the input; which band is which is said by `names: {nir: B08}`",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said(case: str) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(PipelineError) as caught:
        bound(*arguments)
    assert str(caught.value) == message


def test_a_sensor_says_whose_the_numbers_are() -> None:
    assert bound({"indices": ["ndvi"], "sensor": "landsat-4-7"}, ("B3", "B4")) == [
        "nir is B4 (a band of landsat-4-7), red is B3 (a band of landsat-4-7)"
    ]


def test_what_is_taken_is_said() -> None:
    assert bound({"indices": ["ndvi"]}, ("red", "nir08"), "uint16") == [
        "nir is nir08 (its name)",
        "the stored numbers are used; where reflectance has an offset, give `scale` and `offset`",
    ]
    assert bound({"indices": ["savi"]}, ("red", "nir")) == [
        "savi: the input counts as reflectance from 0 to 1 (no `scale` is given)"
    ]
