"""The affine transform: what is moved, scaled or told by centres lies where it did."""

from __future__ import annotations

import json
import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.affine import Affine
from pipeline.model.raster import RasterSpec

WHOLE = st.integers(-50, 50)
TRANSFORMS = st.builds(Affine, *[WHOLE] * 6)


def at(transform: Affine, row: float, column: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


@given(TRANSFORMS, WHOLE, WHOLE, WHOLE, WHOLE)
def test_places_stay_where_they_are(transform: Affine, row: int, column: int, down: int, across: int) -> None:
    assert at(transform.shift(down, across), row, column) == at(transform, row + down, column + across)
    assert at(transform.scale(down, across), row, column) == at(transform, row * down, column * across)
    assert at(transform.corners_to_centres(), row, column) == at(transform, row + 0.5, column + 0.5)
    assert transform.corners_to_centres().centres_to_corners() == transform
    assert Affine.from_gdal(*transform.gdal) == transform


@given(TRANSFORMS)
def test_what_a_transform_says_of_itself(transform: Affine) -> None:
    sides = np.subtract(at(transform, 1, 0), at(transform, 0, 0)), np.subtract(at(transform, 0, 1), at(transform, 0, 0))
    np.testing.assert_allclose(transform.pixel_size, [np.hypot(*side) for side in sides])
    assert transform.is_invertible == bool(np.linalg.matrix_rank(np.array(sides)) == 2)
    assert transform.is_rotated == bool(transform.b or transform.d)
    assert not transform._replace(c=float("inf")).is_invertible


def test_six_numbers_are_made_a_transform_and_are_shown_as_such() -> None:
    numbers = (10.0, 0.0, 5e5, 0.0, -20.0, 6e6)
    spec = pickle.loads(pickle.dumps(RasterSpec(4, 5, np.dtype("uint8"), transform=numbers)))  # type: ignore[arg-type]
    assert isinstance(spec.transform, Affine)
    assert spec.transform.spans(spec.height, spec.width) == ((5e5, 5e5 + 50), (6e6 - 80, 6e6))
    assert repr(spec.transform) == repr(numbers) == str(spec.transform)  # stands in what tells an input from another
    assert json.loads(json.dumps(spec.transform)) == list(numbers)
