"""What hypothesis draws: steps of our operations, and chains of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipeline.kernels import difference, terrain
from tests.strategy_pointwise import POINTWISE
from tests.strategy_terrain import TERRAIN

BOUNDARIES = ("reflect", "nearest", "mirror", "constant", "wrap", "shrink")
LABEL_STATISTICS = ("count", "sum", "mean", "var", "std", "min", "max", "range")
LABEL_GEOMETRY = (
    *("centroid", "centroid_weighted", "bbox", "area", "perimeter"),
    *("major_axis", "minor_axis", "orientation", "eccentricity"),
)
HISTOGRAMS = (None, None, {"edges": [-5, 0, 7, 100]}, {"bins": 9, "range": [-10.5, 300]})
COMPOSITES = ("mean", "median", "min", "max", "std", "count", "first", "last")
STATISTICS = ("mean", "sum", "var", "std", "min", "max", "range", "count", "median")


@st.composite
def window_steps(draw: st.DrawFn, name: str = "step", statistics: tuple[str, ...] = STATISTICS) -> dict[str, Any]:
    size = [2 * draw(st.integers(0, 5)) + 1, 2 * draw(st.integers(0, 5)) + 1]
    boundary = draw(st.sampled_from(BOUNDARIES))
    step: dict[str, Any] = {"name": name, "op": "window", "size": size, "boundary": boundary}
    num_pixels = draw(footprints(step))
    step["statistics"] = draw(st.lists(st.sampled_from(statistics), min_size=1, max_size=3, unique=True))
    if draw(st.integers(0, 3)) == 0:
        step["percentiles"] = draw(st.lists(st.sampled_from([0, 2.5, 10, 50, 90, 100]), max_size=2, unique=True))
        if step["percentiles"] and draw(st.booleans()):
            step["statistics"] = []
    if boundary == "constant":
        step["cval"] = draw(st.integers(0, 100))
    step["min_valid"] = draw(st.integers(1, min(4, num_pixels)))
    step["fill_invalid"] = draw(st.booleans())
    return step


@st.composite
def sides(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """Draw which pixels of a matrix may be used: all, those on one side of its centre, or a part off the centre."""
    used = np.zeros((height, width), bool)
    spans = []
    for side in (height, width):
        first, last = draw(st.one_of(st.just((0, side - 1)), st.tuples(*[st.integers(0, side - 1)] * 2)))
        spans.append(slice(min(first, last), max(first, last) + 1))
    used[spans[0], spans[1]] = True
    return used


@st.composite
def footprints(draw: st.DrawFn, step: dict[str, Any]) -> int:
    """Give some steps a disk or a matrix with few or many pixels, and return how many it has."""
    kind = draw(st.sampled_from(["rectangle", "rectangle", "disk", "few", "many"]))
    height, width = step["size"]
    if kind == "rectangle":
        return height * width
    if kind == "disk":
        step["footprint"] = "disk"
        return max(height, width)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = rng.random((height, width)) < (0.2 if kind == "few" else 0.8)
    matrix[rng.integers(height), rng.integers(width)] = True
    side = draw(sides(height, width))
    matrix = matrix & side if (matrix & side).any() else side
    step["footprint"] = matrix.astype(int).tolist()
    if draw(st.booleans()):
        del step["size"]
    return int(matrix.sum())


@st.composite
def difference_steps(draw: st.DrawFn, op: str, outputs: tuple[str, ...], name: str = "step") -> dict[str, Any]:
    edge = draw(st.sampled_from(("one_sided", "one_sided_2", "zero", *BOUNDARIES)))
    step: dict[str, Any] = {"name": name, "op": op, "edge": edge}
    step["outputs"] = draw(st.lists(st.sampled_from(outputs), min_size=1, max_size=4, unique=True))
    if spacing := draw(st.sampled_from([None, 1, 10, [0.1, 30], [2.5, 0.7]])):
        step["spacing"] = spacing
    if edge == "constant":
        step["cval"] = draw(st.integers(0, 100))
    return step


gradient_steps = partial(difference_steps, "gradient", difference.FIRST)
hessian_steps = partial(difference_steps, "hessian", difference.SECOND)


def boundaries(draw: st.DrawFn) -> dict[str, Any]:
    boundary = draw(st.sampled_from(BOUNDARIES))
    return {"boundary": boundary} | ({"cval": draw(st.integers(0, 100))} if boundary == "constant" else {})


@st.composite
def convolve_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    """Draw kernels of any sign with some zeros, also at the rim, and products of two vectors."""
    height, width = 2 * draw(st.integers(0, 4)) + 1, 2 * draw(st.integers(0, 4)) + 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        kernel = np.outer(rng.normal(size=height), rng.normal(size=width))
    else:
        kernel = rng.normal(size=(height, width)) * (rng.random((height, width)) < draw(st.sampled_from([1.0, 0.5])))
    normalize = draw(st.booleans())
    if normalize or draw(st.booleans()):
        kernel = np.abs(kernel)
    kernel[height // 2, width // 2] = kernel[height // 2, width // 2] or 1.0
    side = draw(sides(height, width))
    kernel = kernel * side if (kernel * side).any() else np.where(side, 1.0, 0.0)
    return {
        "name": name,
        "op": "convolve",
        "kernel": kernel.tolist(),
        "correlate": draw(st.booleans()),
        "normalize": normalize,
        **boundaries(draw),
    }


@st.composite
def gaussian_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    order = [draw(st.sampled_from([0, 0, 1, 2, 3])) for _ in range(2)]
    sigma = [draw(st.sampled_from([0.7, 1.0, 2.3] if number else [0.0, 0.1, 0.7, 1.0, 2.3])) for number in order]
    step = {"name": name, "op": "gaussian", "sigma": sigma, "order": order, "truncate": draw(st.sampled_from([2, 4.0]))}
    return step | {"normalize": order == [0, 0] and draw(st.booleans())} | boundaries(draw)


@st.composite
def gabor_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    """Draw a small bank of small kernels."""
    boundary = draw(st.sampled_from(BOUNDARIES))
    step: dict[str, Any] = {"name": name, "op": "gabor", "boundary": boundary}
    angles = st.sampled_from([0.0, 17.5, 30.0, 45.0, 90.0, 135.0, 150.0, -30.0])
    step["frequencies"] = draw(st.lists(st.sampled_from([0.3, 0.4, 0.45]), min_size=1, max_size=2, unique=True))
    step["orientations"] = draw(st.lists(angles, min_size=1, max_size=3, unique=True))
    sigmas = st.sampled_from([0.5, 0.8, 1.3])
    match draw(st.sampled_from(["round", "oval", "bandwidth", "default"])):
        case "round":
            step["sigma"] = draw(sigmas)
        case "oval":
            step["sigma"] = {"along": draw(sigmas), "across": draw(sigmas)}
        case "bandwidth":
            step["bandwidth"] = draw(st.sampled_from([1.5, 2.0]))
    step["n_stds"] = draw(st.sampled_from([2.0, 3.0]))
    step["offset"] = draw(st.sampled_from([0.0, 0.0, 40.0]))
    step["response"] = draw(st.sampled_from(["real", "imag", "magnitude"]))
    step["exact"] = draw(st.booleans())
    if draw(st.booleans()):
        step["window"] = [2 * draw(st.integers(0, 4)) + 1, 2 * draw(st.integers(0, 4)) + 1]
        statistics = st.sampled_from(["mean", "var", "std"])
        step["statistics"] = draw(st.lists(statistics, min_size=1, max_size=3, unique=True))
    if boundary == "constant":
        step["cval"] = draw(st.integers(0, 100))
    return step


@st.composite
def label_stats_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    statistics = draw(st.lists(st.sampled_from(LABEL_STATISTICS), min_size=1, max_size=4, unique=True))
    selected = draw(st.sampled_from([[], [], ["median"], ["mode"], ["median", "mode", "variety"]]))  # sweeps more
    percentiles = draw(st.sampled_from([[], [], [10], [0, 97.5]]))
    columns = [*statistics, *selected, *(f"p{value:g}" for value in percentiles)]
    return {
        "name": name,
        "op": "label_stats",
        "labels": "labels",
        "statistics": [*statistics, *selected],
        "percentiles": percentiles,
        "recolor": draw(st.lists(st.sampled_from(columns), max_size=2, unique=True)),
        "histogram": draw(st.sampled_from(HISTOGRAMS)),
        "geometry": draw(st.lists(st.sampled_from(LABEL_GEOMETRY), unique=True)),
        "ignore": draw(st.lists(st.sampled_from([0, 3, -2, 5 * 10**15]), unique=True)),
    }


@st.composite
def components_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    """Draw objects of equal value of the first band, mostly, and of conditions of it."""
    step: dict[str, Any] = {"name": name, "op": "components", "connectivity": draw(st.sampled_from([4, 8]))}
    if draw(st.booleans()):
        step |= {
            "where": draw(
                st.sampled_from(["(input > 3) & ~(input.b1 > 50)", "-3 < input <= 50 or input == 7", "not input"])
            )
        }
        step |= {"bands": [1]}
    else:
        step |= draw(st.sampled_from([{}, {"bands": [1]}, {"bands": [1]}]))
        step |= draw(st.sampled_from([{}, {"background": 7}, {"background": 0.5}]))
        step |= draw(st.sampled_from([{}, {}, {"min_size": 3, "removed": "largest_neighbour"}]))
    step |= draw(st.sampled_from([{}, {}, {"fill_holes": 5}, {"fill_holes": 30}]))
    if "removed" in step:
        return step
    return step | draw(st.sampled_from([{}, {}, {"min_size": 2}, {"max_size": 9}, {"min_size": 3, "max_size": 3}]))


@st.composite
def threshold_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    chosen = draw(
        st.sampled_from([{"method": method} for method in ("otsu", "otsu", "triangle", "li")] + [{"value": 7}])
    )
    return {"name": name, "op": "threshold", **chosen}


@st.composite
def distance_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    step: dict[str, Any] = {"name": name, "op": "distance", "radius": draw(st.sampled_from([0.5, 2, 3.7, 5]))}
    step |= draw(st.sampled_from([{}, {"bands": [1]}, {"bands": [1], "where": "(input > 3) & ~(input.b1 > 50)"}]))
    return step | draw(st.sampled_from([{}, {"spacing": 2}, {"spacing": [0.7, 2.5]}]))


@st.composite
def quantize_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    """Draw palettes of one band; those of three that do not fit the raster are refused."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    colors = rng.integers(0, 200, (draw(st.sampled_from([2, 3, 255, 256, 300])), draw(st.sampled_from([1, 1, 3]))))
    outputs = draw(st.lists(st.sampled_from(["index", "color", "distance"]), min_size=1, unique=True))
    step = {"name": name, "op": "quantize", "palette": colors.tolist(), "outputs": outputs}
    return step | ({"bands": [1]} if colors.shape[1] == 1 else {})


@st.composite
def palette_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    step: dict[str, Any] = {"name": name, "op": "palette"}
    step["method"] = draw(st.sampled_from(["median_cut", "kmeans", "inline"]))
    if step["method"] == "inline":
        return step | {"values": [[number] for number in draw(st.lists(st.integers(0, 100), min_size=2))], "bands": [1]}
    step |= {"colors": draw(st.sampled_from([2, 7, 300])), "max_cells": draw(st.sampled_from([256, 2**18]))}
    return step | ({"sweeps": 2} if step["method"] == "kmeans" else {})


@st.composite
def composite_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    """Draw composites over dates, which rasters with a band axis have, and over all bands."""
    step: dict[str, Any] = {"name": name, "op": "composite", "over": draw(st.sampled_from(["time", "time", "band"]))}
    if draw(st.booleans()):
        step["statistics"] = draw(st.lists(st.sampled_from(COMPOSITES), min_size=1, max_size=4, unique=True))
    if draw(st.integers(0, 3)) == 0:
        step["percentiles"] = draw(
            st.lists(st.sampled_from([0, 2.5, 50, 90, 100]), min_size=1, max_size=2, unique=True)
        )
    if step["over"] == "band":
        if draw(st.booleans()):
            by = draw(st.sampled_from(["input", "b1 % 7", "-abs(input)"]))
            step["best"] = {"by": by, "pick": draw(st.sampled_from(["max", "min"]))}
    elif draw(st.booleans()):
        step["window"] = draw(st.sampled_from(["month", "year", "16 days"]))
    return step


STEPS = {
    "composite": composite_steps,
    "components": components_steps,
    "convolve": convolve_steps,
    "distance": distance_steps,
    "gabor": gabor_steps,
    "gaussian": gaussian_steps,
    "gradient": gradient_steps,
    "hessian": hessian_steps,
    "label_stats": label_stats_steps,
    "palette": palette_steps,
    "quantize": quantize_steps,
    "threshold": threshold_steps,
    "window": window_steps,
    **POINTWISE,
    **TERRAIN,
}
"""One strategy per operation; it draws `outputs` or `statistics` where the operation has the choice."""


def outputs_of(step: dict[str, Any]) -> list[str]:
    """Return the rasters that a drawn step makes."""
    if step["op"] == "label_stats":
        return list(step.get("recolor", ()))
    if step["op"] == "palette":
        return []
    if step["op"] == "components":
        return ["labels"]
    if step["op"] in ("threshold", "relief"):
        return ["mask" if step["op"] == "threshold" else "color"]
    if step["op"] == "gabor" and "window" not in step:
        return ["response"]
    percentiles = [f"p{value:g}" for value in step.get("percentiles", ())]
    best = ["value", "date"] if "best" in step else []
    default = "median" if step["op"] == "composite" else "value"
    named = (*step.get("outputs", ()), *step.get("indices", ()))
    return [*step.get("statistics", ()), *percentiles, *named, *best] or [default]


def plain(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step changed so that every pixel of its support changes the result."""
    step = {key: value for key, value in step.items() if key not in ("cval", "edge", "percentiles")}
    if step["op"] == "quantize":
        step["outputs"] = ["distance"]
    if step["op"] == "distance":
        step |= {"where": "input > 3"}  # few pixels at first
    if step["op"] == "composite":
        step = {"name": step["name"], "op": "composite", "over": "band", "statistics": ["mean"]}
    if step["op"] in ("gradient", "hessian"):
        step["edge"] = "nearest"  # a parabola's block holds more than its interior needs
    if step["op"] == "window":
        step |= {"fill_invalid": True, "min_valid": 1, "statistics": ["mean"]}
    if step["op"] == "gabor" and "window" in step:
        step["statistics"] = ["mean"]  # the variance of one pixel is 0
    if "boundary" in step:
        step["boundary"] = "nearest"  # a mirrored edge needs as much on both sides
    return step


SCRATCH_STEPS: dict[str, dict[str, Any]] = {
    "composite": {"over": "band", "statistics": list(COMPOSITES), "percentiles": [10], "best": {"by": "input"}},
    "components": {"where": "b1 % 2 == 1"},
    "convolve": {"kernel": np.random.default_rng(0).random((31, 15)).tolist(), "normalize": True},
    "gabor": {"frequencies": [0.1, 0.2], "orientations": [0, 30, 150], "window": 15, "statistics": ["mean", "var"]},
    "gaussian": {"sigma": 20, "normalize": True},
    "quantize": {"palette": [[i, 255 - i, i * 7 % 256] for i in range(256)], "outputs": ["index", "color", "distance"]},
    "label_stats": {"labels": "labels", "statistics": ["mean", "std", "min", "median"], "recolor": ["mean"]},
    "calc": {"expression": "where(b1 > b2, (b1 - b2) / (b1 + b3), input) ** 2 - log(input)"},
    "relief": {"bands": [1], "colors": [[0, 0, 0, 0], [1000, 255, 200, 100], [5000, 9, 99, 199]], "alpha": True},
    "terrain": {"outputs": list(terrain.OUTPUTS), "spacing": 1},
    "threshold": {"method": "otsu"},
    "distance": {"where": "b1 > 300 and b2 > 1", "radius": 12},
    "cast": {"dtype": "uint8", "scale": 0.1, "nodata": 255},
    "index": {"indices": ["evi", "msavi"], "names": {"red": 1, "nir": 2, "blue": 3}, "scale": 0.001, "offset": -0.1},
    "mask": {"where": "b1 > 3 and b2 != b3"},
    "select": {"bands": [3, 1]},
    "window": {"size": [15, 31], "statistics": list(STATISTICS), "percentiles": [10]},
}
"""For each operation a step that allocates much, where its defaults do not."""


def memory_steps(op: str) -> list[dict[str, Any]]:
    """Return a pipeline whose memory the operation rules: most others read what it writes."""
    return [scratch_step(op) | ({"bands": [1, 2, 3]} if op == "quantize" else {})]


def scratch_step(op: str) -> dict[str, Any]:
    return {"name": "step", "op": op, **SCRATCH_STEPS.get(op, {})}


@st.composite
def chains(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw up to four steps with one or two outputs, every one reading any output before it."""
    steps: list[dict[str, Any]] = []
    outputs: list[str] = []
    for number in range(draw(st.integers(2, 4))):
        strategy = STEPS[draw(st.sampled_from(sorted(STEPS.keys() - {"palette"})))]  # which makes no raster
        step = draw(strategy(name=f"s{number}"))
        if step.get("statistics"):
            step.pop("percentiles", None)
        for key in ("statistics", "outputs"):
            if key in step and step["op"] != "terrain":  # whose parameters are for its outputs
                step[key] = step[key][:2]
        if "recolor" in step:
            step["recolor"] = [statistic for statistic in step["recolor"] if statistic in step["statistics"]]
        sources = ["image", *outputs]
        if "inputs" in step:
            step["inputs"] = {key: draw(st.sampled_from(sources)) for key in step["inputs"]}
        if "inputs" not in step or "input" in step:
            step["input"] = draw(st.sampled_from(sources))
        outputs += [f"{step['name']}/{output}" for output in outputs_of(step)]
        if step.get("cval") is not None:
            step["cval"] = draw(st.integers(0, 100))
        if draw(st.integers(0, 3)) == 0:
            step["dtype"], step["nodata"] = draw(
                st.sampled_from([("int16", -999), ("float32", -1.0), ("float64", 5.0)])
            )
        elif draw(st.integers(0, 3)) == 0:
            step["nodata"] = draw(st.sampled_from([0, 5]))
        steps.append(step)
    return steps
