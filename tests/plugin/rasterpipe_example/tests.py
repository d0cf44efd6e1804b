"""The operations of this package, held to the contract of rasterpipe."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipeline.testing import Expected, OperationContract, pad
from rasterpipe_example.contrast import Contrast
from rasterpipe_example.stretch import Stretch


def stretched(step: Stretch, planes: np.ndarray, dtype: np.dtype) -> Expected:
    span, eps = step.high - step.low, np.finfo(step.working_dtype(dtype)).eps
    return {"value": ((planes - step.low) / span, 4 * eps * (np.abs(planes) + abs(step.low)) / span)}


class TestStretch(OperationContract):
    operation = Stretch
    steps = st.fixed_dictionaries({"low": st.integers(-9, 9), "high": st.integers(10, 4000)})
    reference = stretched


def contrast(step: Any, planes: np.ndarray, dtype: np.dtype) -> Expected:
    eps = np.finfo(step.working_dtype(dtype)).eps
    padded = np.stack([pad(plane, 0, 1, "reflect", None) for plane in planes])
    left, right = padded[..., :-2], padded[..., 2:]
    with np.errstate(all="ignore"):
        value = planes - (left + right) / 2
        bound = 4 * eps * (np.abs(planes) + np.abs(left) + np.abs(right))
    return {"value": (np.abs(value) if step.absolute else value, bound)}


class TestContrast(OperationContract):
    operation = Contrast
    reference = contrast
