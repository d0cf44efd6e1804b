"""What explains the colours below a picture."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.raster import RasterSpec, default_names
from pipeline.picture.legend import FAINT, Legend, Pen
from pipeline.picture.sheet import FONT
from pipeline.picture.style import choose_style, drawn_bands


def legend_of(name: str, *values: float, bands: tuple[str, ...] = ()) -> Legend:
    pixels = np.array(values, "f4").reshape(1, -1, len(bands) or 1)
    spec = RasterSpec(1, pixels.shape[1], pixels.dtype, ("y", "x", "band"), bands=bands or default_names(1), nodata=-9)
    drawn = drawn_bands(name, spec)
    return Legend(spec, drawn, choose_style(name, spec, drawn, pixels[..., list(drawn)]), pixels[..., list(drawn)])


def drawn(legend: Legend) -> np.ndarray:
    from PIL import Image

    pen = Pen.of(FONT, 500)
    image = Image.new("RGB", (400, legend.height(pen)), "white")
    pen.on(image)
    legend.draw(pen, 0, 400, 1.0)
    return np.asarray(image)


def longest_line(picture: np.ndarray) -> int:
    """Return the pixels of the longest frame, which is that of the bar."""
    return int((picture == FAINT).all(axis=-1).sum(axis=1).max())


@pytest.mark.parametrize("name", ["image", "labels", "aspect", "slope/dy", "hillshade"])
def test_no_range_is_made_up_where_nothing_is_valid(name: str) -> None:
    legend = legend_of(name, np.nan, -9)
    assert legend.nothing == "no valid pixels"
    assert longest_line(drawn(legend)) < 40


def test_no_range_is_made_up_of_infinities() -> None:
    assert legend_of("image", np.inf, -np.inf).nothing == "no finite values"
    assert legend_of("image", np.inf, 3).nothing == ""


def test_one_value_is_one_colour() -> None:
    one, two = legend_of("image", 7, 7), legend_of("image", 7, 8)
    assert one.ticks == ["7"]
    assert len(two.ticks) == 3
    assert longest_line(drawn(one)) < 40 < longest_line(drawn(two))
    colors = np.unique(drawn(one).reshape(-1, 3), axis=0)
    assert np.array_equal(colors[np.ptp(colors, axis=1) > 20], one.style.paint(one.values)[0, :1])


def test_bands_named_as_their_colours_are_told_once() -> None:
    assert legend_of("color", *range(6), bands=("red", "green", "Blue")).colors == "red, green, blue"
    assert legend_of("color", *range(6), bands=("b4", "b3", "b2")).colors == "red b4, green b3, blue b2"


def test_level_ground_is_explained() -> None:
    def greys(*values: float) -> int:
        return int((drawn(legend_of("aspect", *values)) == 235).all(axis=-1).sum())

    assert greys(-1, 200) > 50
    assert greys(1, 200) < 50
