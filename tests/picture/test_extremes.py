"""Any pixels become a picture: of every dtype, up to the ends of its range, few of them and invalid ones."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.picture.sheet import Subject, draw_sheet
from pipeline.picture.style import Style
from pipeline.testing.draws import draws
from pipeline.verbs.view.gallery import TILE, Gallery
from tests import harness

DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
NAMES = ("labels", "aspect", "dy", "image", "ndvi", "count", "color", "mask")


@st.composite
def rasters(draw: st.DrawFn) -> tuple[str, harness.Raster]:
    dtype, size = np.dtype(draw(st.sampled_from(DTYPES))), draw(st.tuples(st.integers(1, 9), st.integers(1, 40)))
    bands = draw(st.integers(1, 4))
    values = draw(arrays.arrays(dtype, (*size, bands), elements=arrays.from_dtype(dtype)))
    nodata: Any = draw(st.sampled_from([None, values.flat[0].item()]))
    dims = ("y", "x", "band")
    if bands == 1 and draw(st.booleans()):
        values, dims = values[..., 0], ("y", "x")
    return draw(st.sampled_from(NAMES)), harness.Raster(values, dims, nodata=nodata)


@settings(max_examples=draws(60), deadline=None)
@given(rasters(), st.integers(50, 120))
def test_any_pixels_become_a_picture(case: tuple[str, harness.Raster], size: int) -> None:
    name, raster = case
    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery([harness.store(raster, Path(folder, f"{name}.zarr"), with_labels=False)])
        found = gallery.shown[0]
        image = draw_sheet([Subject(found.name, found.source, found.source.full.spec.region)], 1, size)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        (told,) = gallery.describe()
        chosen = gallery.style(0, told["drawn"])
        style = Style(chosen["kind"], chosen["map"], tuple((low, high) for low, high in chosen["limits"]))
        tile = imagecodecs.png_decode(gallery.tile(0, (0, 0, 0), told["drawn"], style) or b"")
        assert tile.shape == (TILE, TILE, 4)
        histogram = gallery.histogram(0, gallery.spec(0).region, told["drawn"], style)
        pixel = gallery.pixel(0, 0, 0)
        json.dumps([told, chosen, histogram, pixel], allow_nan=False)
        (values,) = pixel["rasters"]
        stored = np.atleast_1d(raster.values[0, 0])
        np.testing.assert_array_equal([stored.dtype.type(each["value"]) for each in values["bands"]], stored)
