"""Strategies of the pointwise operations; see `tests.strategies`."""

from __future__ import annotations

import ast
from typing import Any

from hypothesis import strategies as st

from tests.reference_pointwise import EXPRESSIONS, INDICES

DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")

CONDITIONS = (
    *("-3 < input <= 50 or input == 7", "(input > 3) & ~(input.b1 > 50)", "not input", "m.b1 > 3 and input < 100"),
    *("m.b1 > 3", "clip(round(input / 8), -5, 20)", "where(isvalid(input), input, -1)"),
)
"""Of the expressions, those that are exact in every dtype."""


@st.composite
def calc_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    expression = draw(st.sampled_from(sorted(EXPRESSIONS)))
    return {"name": name, "op": "calc", "expression": expression, **_inputs(expression, "abm")}


@st.composite
def mask_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    where = draw(st.sampled_from(CONDITIONS))
    step = {"name": name, "op": "mask", "where": where, "input": "image", **_inputs(where, "m")}
    if draw(st.booleans()):
        step["nodata"] = draw(st.sampled_from([0, 9, 255]))
    return step


def _names(expression: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)}


def _inputs(expression: str, keys: str) -> dict[str, Any]:
    found = sorted(_names(expression) & set(keys))
    return {"inputs": dict.fromkeys(found, "image")} if found else {}


@st.composite
def select_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    return {"name": name, "op": "select", "bands": draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))}


@st.composite
def cast_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    step: dict[str, Any] = {"name": name, "op": "cast", "dtype": dtype}
    if draw(st.booleans()):
        step |= {"scale": draw(st.sampled_from([0.025, -2.0, 1.0])), "offset": draw(st.sampled_from([0.0, 0.5, -7.25]))}
    if draw(st.booleans()):
        step["clip"] = draw(st.sampled_from([[0, 100], [-3.5, 99.5], [300, 400], [-20, -10]]))
    if dtype[0] != "f":
        step["nodata"] = draw(st.integers(0, 100))
        step["rounding"] = draw(st.sampled_from(["half_even", "floor", "ceil", "truncate"]))
    return step


@st.composite
def index_steps(draw: st.DrawFn, name: str = "step") -> dict[str, Any]:
    pool = draw(st.sampled_from([("cig",), ("ndvi", "evi2", "savi"), ("evi", "arvi", "ndvi")]))  # of few bands each
    indices = draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
    needed = {common for index in indices for common in INDICES[index].__code__.co_varnames}
    places = dict(zip(sorted(needed), draw(st.permutations(range(1, len(needed) + 1))), strict=True))
    step = {"name": name, "op": "index", "indices": indices, "names": places}
    if not set(indices) & {"evi", "evi2", "savi"} and draw(st.booleans()):
        return step
    return step | {"scale": 0.01} | draw(st.sampled_from([{}, {"offset": 0.25}, {"offset": -0.1}]))


POINTWISE = {
    "calc": calc_steps,
    "cast": cast_steps,
    "index": index_steps,
    "mask": mask_steps,
    "select": select_steps,
}
