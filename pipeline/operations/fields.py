"""Types of the fields of operations: what a pipeline file may say there, checked."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt


def to_pair(value: Any) -> Any:
    """Return [y, x]: one number stands for both."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value, value]
    if isinstance(value, list | tuple) and len(value) == 2:
        return value
    raise ValueError(f"must be a number or [y, x], got {'nothing' if value is None else repr(value)}")


Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]


IntPair = Annotated[tuple[Count, Count], BeforeValidator(to_pair, json_schema_input_type=Count | tuple[Count, Count])]


FloatPair = Annotated[tuple[float, float], BeforeValidator(to_pair, json_schema_input_type=float | tuple[float, float])]


Matrix = tuple[tuple[float, ...], ...]


def to_matrix(value: Any) -> Any:
    """Return rows of numbers, all of one length, or the path of a file that holds them."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(row, list | tuple) for row in value):
        raise ValueError(f"must be rows of numbers such as [[0, 1, 0], [1, 1, 1], [0, 1, 0]], or a file, got {value!r}")
    widths = sorted({len(row) for row in value})
    if len(widths) > 1 or not widths[0]:
        raise ValueError(f"must have rows of one length, got rows of {' and '.join(map(str, widths))} numbers")
    for row in value:
        for number in row:
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise ValueError(f"must hold finite numbers, got {number!r}")
    return value


def _refuse_none(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "none":
        raise ValueError("must be a number; `nodata: none` stands at an input, all of whose pixels are valid then")
    return value


MatrixOrPath = Annotated[Matrix | str, BeforeValidator(to_matrix, json_schema_input_type=Matrix | str)]
"""A matrix, inline or from a .npy, .csv or .txt file; the field's name stands in `ReadsMatrices.matrices`."""


Percentile = Annotated[float, Field(ge=0, le=100, strict=True)]


def percentile_name(percentile: float) -> str:
    """Return the name of an output.

    Examples
    --------
    >>> percentile_name(10.0), percentile_name(2.5)
    ('p10', 'p2.5')
    """
    return f"p{percentile:.12g}"


Positive = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
"""Beyond, a wave or an envelope is none that pixels can show, and its formulas leave float64."""


class Sigma(BaseModel):
    """Standard deviations of the envelope in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    along: Positive
    """Along the wave (scikit-image's sigma_x)."""
    across: Positive
    """Across it (sigma_y)."""


def to_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def to_sigma(value: Any) -> Any:
    """Return {along:, across:}: one number stands for both."""
    return {"along": value, "across": value} if to_list(value) is not value else value
