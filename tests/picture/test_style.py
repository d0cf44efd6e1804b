"""What kind of values a raster has, and the colours that stand for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.model.affine import Affine
from pipeline.model.raster import RasterSpec, default_names
from pipeline.picture.color_map import MAPS, class_colors, color_map, hues
from pipeline.picture.marks import ScaleBar, north, scale_bar
from pipeline.picture.render import DARK, LIGHT, hatch, render
from pipeline.picture.style import Style, choose_style, drawn_bands
from pipeline.storage.georeference.recorded import Item, Recorded

RNG = np.random.default_rng(5)


def spec_of(values: np.ndarray, **more: Any) -> RasterSpec:
    height, width, count = values.shape
    bands = default_names(count)
    return RasterSpec(height, width, values.dtype, ("y", "x", "band"), **{"bands": bands, **more})


def choose(name: str, values: np.ndarray, **more: Any) -> Style:
    spec = spec_of(values, **more)
    bands = drawn_bands(name, spec)
    return choose_style(name, spec, bands, values[..., list(bands)])


def plane(*values: float, dtype: str = "f4") -> np.ndarray:
    return np.array(values, dtype)[np.newaxis, :, np.newaxis]


HEIGHTS = np.linspace(200, 900, 500, dtype="f4").reshape(20, 25, 1)
SIGNED = RNG.normal(0, 3, (20, 25, 1)).astype("f4")
ANGLES = RNG.uniform(0, 360, (20, 25, 1)).astype("f4")
CLASSES = RNG.integers(0, 5, (20, 25, 1)).astype("u1")
COUNTS = RNG.integers(0, 2000, (20, 25, 1)).astype("u2")

KINDS = {
    "heights": ("dem/value", HEIGHTS, "sequential", "viridis"),
    "signed": ("difference/value", SIGNED, "diverging", "blue-red"),
    "a gradient above 0": ("slope/dy", HEIGHTS, "diverging", "blue-red"),
    "heights with a little below 0": ("dem/value", HEIGHTS - 210, "sequential", "viridis"),
    "ndvi": ("ndvi/value", HEIGHTS / 1000, "diverging", "brown-green"),
    "aspect": ("terrain/aspect", ANGLES, "cyclic", "cycle"),
    "directions both ways": ("slope/direction", ANGLES - 180, "cyclic", "cycle"),
    "what is called aspect and is none": ("aspect/value", HEIGHTS, "sequential", "viridis"),
    "few whole numbers": ("kinds/value", CLASSES, "categorical", "viridis"),
    "labels": ("cells/labels", COUNTS, "categorical", "viridis"),
    "counts": ("smooth/count", CLASSES, "sequential", "viridis"),
    "pixels of 16 bits": ("image", COUNTS, "sequential", "viridis"),
    "shade": ("relief/hillshade", HEIGHTS, "sequential", "grey"),
    "colours by names": ("scene", np.repeat(COUNTS, 3, axis=2), "color", "viridis"),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds(case: str) -> None:
    name, values, kind, name_of_map = KINDS[case]
    style = choose(name, values)
    assert (style.kind, style.map) == (kind, name_of_map)


def test_limits() -> None:
    """Robust for what is sequential, about 0 for what has signs, a turn for angles."""
    many = np.concatenate([np.linspace(0, 1, 1000), [1e9, np.nan, np.inf]])[np.newaxis, :, np.newaxis].astype("f4")
    ((low, high),) = choose("image", many, nodata=float("nan")).limits
    assert 0 < low < 0.03
    assert 0.97 < high < 1
    ((low, high),) = choose("x/dy", plane(-1, 4)).limits
    assert low == -high
    assert choose("a/aspect", plane(0, 359)).limits == ((0, 360),)
    assert choose("a/aspect", plane(-1, 359)).limits == ((0, 360),)
    assert choose("a/aspect", plane(-1, 90)).limits == ((0, 360),)
    assert choose("a/direction", plane(-90, 359)).limits == ((0, 360),)
    assert choose("a/direction", plane(-179, 180)).limits == ((-180, 180),)
    assert choose("a/phase", plane(-3, 3)).limits == ((-np.pi, np.pi),)
    assert choose("image", plane(7, 7)).limits == ((7, 7),)
    assert choose("image", plane(np.nan), nodata=float("nan")).limits == ((0, 1),)


def test_which_bands_are_colours() -> None:
    def bands(dtype: str, *names: str, name: str = "scene") -> tuple[int, ...]:
        more = {"bands": names} if names[0] != "b1" else {}
        return drawn_bands(name, spec_of(np.zeros((2, 2, len(names)), dtype), **more))

    assert bands("u2", "B02", "B03", "B04", "B08") == (2, 1, 0)
    assert bands("u1", "red", "green", "blue", "alpha") == (0, 1, 2)
    assert bands("u1", "b1", "b2", "b3") == (0, 1, 2)
    assert bands("u2", "b1", "b2", "b3", "b4") == (2, 1, 0)
    assert bands("f4", "b1", "b2", "b3") == (0,)
    assert bands("f4", "b3", "b2", "b1", name="poster/color") == (0, 1, 2)
    assert bands("u2", "nir", "swir", "tir") == (0,)
    photo = replace(spec_of(np.zeros((2, 2, 3), "f4"), bands=("x", "y", "z")), recorded=Recorded(photometric=2))
    assert drawn_bands("photo", photo) == (0, 1, 2)


def test_a_palette_has_its_own_colours() -> None:
    colors = (65535, 0, 257, 0, 65535, 514, 0, 0, 771)  # red, green, dark
    values = plane(0, 1, 2, 9, dtype="u1")
    style = choose("poster/index", values, recorded=Recorded(colors=colors))
    assert style.kind == "palette"
    assert style.paint(values)[0].tolist() == [[255, 0, 0], [0, 255, 0], [1, 2, 3], [0, 0, 0]]
    dark = choose("poster/index", values, recorded=Recorded(colors=tuple(value // 16 for value in colors)))
    assert dark.paint(values)[0, 0].tolist() == [255, 0, 0]


def test_colours_are_those_of_the_map() -> None:
    style = Style("sequential", "grey", ((10.0, 20.0),))
    assert style.paint(plane(0, 10, 15, 20, 99))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert style.paint(plane(-np.inf, np.inf))[0, :, 0].tolist() == [0, 255]
    turn = Style("cyclic", "cycle", ((0.0, 360.0),))
    assert (turn.paint(plane(0)) == turn.paint(plane(360))).all()
    flat = turn.paint(plane(-1, 359))[0].tolist()
    assert flat == [[235, 235, 235], turn.paint(plane(-361))[0, 0].tolist()]  # level ground, and an angle
    both_ways = Style("cyclic", "cycle", ((-180.0, 180.0),))
    assert both_ways.paint(plane(-1)).tolist() == both_ways.paint(plane(359)).tolist()
    photo = Style("color", limits=((0.0, 255.0),) * 3)
    values = RNG.integers(0, 256, (4, 5, 3)).astype("u1")
    np.testing.assert_array_equal(photo.paint(values), values)


def test_maps() -> None:
    for name in MAPS:
        table = color_map(name)
        assert table.shape == (256, 3)
        assert table.dtype == np.uint8
        assert np.abs(np.diff(table.astype(int), axis=0)).max() < 12, name
    wheel = color_map("cycle").astype(int)
    assert np.abs(wheel[0] - wheel[-1]).max() < 12
    assert color_map("blue-red")[127:129].min() > 240  # 0 is white
    assert hues(np.array([0.0])).shape == (1, 3)


def test_classes_are_told_apart_and_keep_their_colours() -> None:
    colors = class_colors(np.arange(0, 400)).astype(int)
    assert (class_colors(np.array([7, 300])) == colors[[7, 300]]).all()
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 40
    for extreme in (np.array([2**64 - 1, 2**53 + 1, 2**53], np.uint64), np.array([-(2**63), -1], np.int64)):
        assert class_colors(extreme).shape == (len(extreme), 3)
    numbers = np.array([2**53, 2**53 + 1], np.uint64)
    assert len(np.unique(class_colors(numbers), axis=0)) == 2


def test_invalid_pixels_are_hatched_and_do_not_stretch() -> None:
    values = np.full((20, 20, 1), 100, np.uint8)
    values[:10] = 200
    values[5] = 7
    spec = spec_of(values, nodata=7)
    image = render(values, spec, Style("sequential", "grey", ((100.0, 200.0),)))
    assert set(np.unique(image[5])) == {DARK, LIGHT}
    assert (image[6:10] == 255).all()
    assert (image[10:] == 0).all()
    twice = render(values, spec, Style("sequential", "grey", ((100.0, 200.0),)), 2)
    np.testing.assert_array_equal(twice[12::2, ::2], image[6:])
    np.testing.assert_array_equal(twice[10:12, :, 0], hatch(40, 40)[10:12])
    assert choose("image", values, nodata=7).kind == "categorical"
    several = np.dstack([values, values, np.full_like(values, 7)])
    assert set(np.unique(render(several, spec_of(several, nodata=7), Style("color")))) == {DARK, LIGHT}


def test_a_raster_is_painted_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.where(RNG.random((50, 30, 1)) < 0.2, 7, RNG.integers(0, 200, (50, 30, 1))).astype("u1")
    spec, style = spec_of(values, nodata=7), Style("sequential", limits=((0.0, 200.0),))
    whole = render(values, spec, style, 3)
    monkeypatch.setattr("pipeline.picture.render.STRIP", 7)
    np.testing.assert_array_equal(render(values, spec, style, 3), whole)


def test_scale_bars() -> None:
    spec = RasterSpec(100, 100, np.dtype("f4"), transform=Affine(10, 0, 5e5, 0, -10, 5e6), crs="EPSG:32633")
    assert scale_bar(spec, 130) == ScaleBar(100, "1 km")
    assert scale_bar(spec, 70) == ScaleBar(50, "500 m")
    feet = replace(spec, crs="EPSG:2263", transform=Affine(100, 0, 1e6, 0, -100, 2e5))
    bar = scale_bar(feet, 100)
    assert bar is not None
    assert bar.text == "2 km"
    assert bar.pixels == pytest.approx(2000 / (100 * 1200 / 3937))
    cells = replace(spec, crs=None, unit="micrometer", transform=Affine(0.25, 0, 0, 0, 0.25, 0))
    bar = scale_bar(cells, 300)
    assert bar is not None
    assert (bar.text, round(bar.pixels, 9)) == ("50 µm", 200)
    degrees = replace(spec, crs="EPSG:4326", transform=Affine(0.01, 0, 10, 0, -0.01, 60.5))
    bar = scale_bar(degrees, 100)
    assert bar is not None
    assert bar.text == "50 km"
    assert 50_000 / bar.pixels == pytest.approx(0.01 * 111_412 * 0.5, rel=0.01)  # at 60 degrees north
    assert scale_bar(replace(spec, crs=None), 100) is None
    assert scale_bar(replace(spec, transform=None), 100) is None


def test_north() -> None:
    spec = RasterSpec(100, 100, np.dtype("f4"), transform=Affine(10, 0, 5e5, 0, -10, 5e6), crs="EPSG:32633")
    assert north(spec) == pytest.approx(0)
    assert north(replace(spec, transform=Affine(10, 0, 0, 0, 10, 0))) == pytest.approx(180)
    turned = Affine(0, -10, 0, -10, 0, 0)  # rows run west, columns south
    assert north(replace(spec, transform=turned)) == pytest.approx(-90)
    assert north(replace(spec, crs=None)) is None


def test_units_by_their_signs() -> None:
    from pipeline.picture.style import unit_of

    items = (Item("UNITTYPE", "degree", 0), Item("UNITTYPE", "m", 1))
    spec = spec_of(np.zeros((2, 2, 3), "f4"), recorded=Recorded(items=items))
    assert [unit_of(spec, band) for band in range(3)] == ["°", "m", ""]
