"""Strategies of terrain and relief; see `tests.strategies`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pipeline.kernels import terrain


@st.composite
def relief_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    """Draw ramps of one band; those with percentages where the raster itself is read, which has valid pixels."""
    channel = st.integers(0, 255)
    values = st.one_of(
        st.integers(-200, 1000), st.sampled_from(["0%", "12.5%", "100%"] if name == "step" else [7, 7.5])
    )
    entries = draw(st.lists(st.tuples(values, channel, channel, channel, channel), min_size=1, max_size=5))
    missing = draw(st.sampled_from([[], [["nv", 1, 2, 3, 4]]]))
    step = {"name": name, "op": "relief", "bands": [1], "colors": [*map(list, entries), *missing]}
    return step | {"pick": draw(st.sampled_from(["interpolate", "nearest", "exact"])), "alpha": draw(st.booleans())}


@st.composite
def terrain_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    step: dict[str, Any] = {"name": name, "op": "terrain"}
    names = draw(st.lists(st.sampled_from(terrain.OUTPUTS), min_size=1, max_size=4, unique=True))
    step["outputs"], used = names, set(names)
    if used & terrain.OF_SIDES:
        step["spacing"] = draw(st.sampled_from([1, 10, [0.1, 30], [2.5, 0.7]]))
    if used & {"slope", "aspect", "hillshade"}:
        step["method"] = draw(st.sampled_from(["horn", "zevenbergen_thorne"]))
    if "slope" in used:
        step["slope_unit"] = draw(st.sampled_from(["degree", "percent"]))
    if "aspect" in used:
        step |= draw(st.sampled_from([{}, {"flat": -1}]))
    if "tri" in used:
        step["tri_method"] = draw(st.sampled_from(["riley", "wilson"]))
    if "hillshade" in used:
        step["shading"] = draw(st.sampled_from(["single", "multidirectional", "combined"]))
        step |= {"altitude": draw(st.sampled_from([0, 30, 45, 90])), "z_factor": draw(st.sampled_from([1, 0.01]))}
        if step["shading"] != "multidirectional":
            step["azimuth"] = draw(st.sampled_from([315, 0, 77.5, -90]))
    if "tpi" in used and draw(st.booleans()):
        step["ring"] = draw(st.sampled_from([[1, 1], [2, 3.5], [4, 4]]))
    else:
        step["compute_edges"] = draw(st.booleans())
    return step


TERRAIN = {"relief": relief_steps, "terrain": terrain_steps}
