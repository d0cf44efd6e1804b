"""Checks of parameters that several operations take, and of what lies beyond the raster's edge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.model.errors import PipelineError
from pipeline.model.raster import Number, holds


def check_cval(key: str, rule: str, cval: Number | None) -> None:
    """Refuse a rule (of the parameter `key`) without the value that it needs, and a value that no rule uses."""
    if rule == "constant" and cval is None:
        raise PipelineError(f"{key}: constant needs a value; add `cval: 0`, say", (key,))
    if rule != "constant" and cval is not None:
        raise PipelineError(f"cval is for {key}: constant; {key} is {rule}", ("cval",))


def check_finite(cval: Number | None, remedy: str) -> None:
    if cval is not None and not math.isfinite(cval):
        raise PipelineError(f"must be finite, got {cval}; {remedy}", ("cval",))


def check_occurs(cval: Number | None, dtype: np.dtype) -> None:
    """Refuse a value that pixels of a dtype cannot have."""
    if cval is not None and not holds(dtype, cval):
        raise PipelineError(f"{cval} cannot occur in {dtype.name} pixels", ("cval",))


def check_odd(size: tuple[int, int] | None) -> tuple[int, int] | None:
    even = [side for side in size or () if side % 2 == 0]
    if even:
        raise ValueError(f"must be odd, got {even[0]}; try {even[0] - 1} or {even[0] + 1}")
    return size


def unique(what: str, name: Callable[[Any], str] = str) -> Callable[[tuple[Any, ...] | None], tuple[Any, ...] | None]:
    """Return a check that no two values of a tuple have one name; `what` ("each output") stands in the message."""

    def check(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        names = [name(value) for value in values or ()]
        if len(set(names)) != len(names):
            raise ValueError(f"must name {what} once, got {', '.join(names)}")
        return values

    return check
