"""Where regions lie in arrays, and the parts that kernels compute."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.frame import Frame, Place, num_parts, part_of
from pipeline.model.region import Halo, Region


@given(st.data())
def test_parts_cover_a_place_once_and_keep_to_groups(data: st.DataObject) -> None:
    num_rows, num, group, strip = (data.draw(st.integers(1, most)) for most in (20, 30, 7, 12))
    place = Place(3, 5, num_rows, num, 11, 13, data.draw(st.integers(0, group - 1)))
    covered = np.zeros((num_rows, num), int)
    for k in range(num_parts(place, group, strip)):
        part = part_of(place, k, group, strip)
        top, left = part.top - place.top, part.left - place.left
        assert (part.out_top - place.out_top, part.out_left - place.out_left) == (top, left)
        assert part.phase == (place.phase + top) % group
        assert 0 < part.num_rows <= group - part.phase
        assert 0 < part.num <= strip
        assert num_parts(part, group, strip) == 1
        assert part_of(part, 0, group, strip) == part
        covered[top : top + part.num_rows, left : left + part.num] += 1
    assert (covered == 1).all()


def test_a_frame_says_where_its_region_lies() -> None:
    frame = Frame(Region(10, 14, 20, 26), origin=(7, 15), out_origin=(9, 20), lanes=3)
    assert frame.place(above=2, left=4, phase=1) == Place(1, 3, 4, 18, 1, 0, 1)
    values, out = np.arange(10 * 20 * 3).reshape(1, 10, -1), np.zeros((1, 6, 24))
    assert values[frame.slices(Halo(2, 0, 4, 1))].shape == (1, 6, 33)
    assert values[frame.slices(Halo(2, 0, 4, 1))][0, 0, 0] == values[0, 1, 3]
    assert out[frame.out_slices].shape == (1, 4, 18)
