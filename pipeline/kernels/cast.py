"""Values scaled, limited, rounded and stored in another dtype, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

TILE_ELEMENTS = 65_536
"""Elements converted at once."""
ROUNDINGS: dict[str, Callable[..., Any]] = {
    "half_even": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "truncate": np.trunc,
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """To `dtype`: value * scale + offset, limited to `clip`, rounded, saturated."""

    dtype: np.dtype
    scale: float = 1.0
    offset: float = 0.0
    clip: tuple[int | float, int | float] | None = None
    rounding: Literal["half_even", "floor", "ceil", "truncate"] = "half_even"

    def is_exact(self, source: np.dtype) -> bool:
        """Return whether whole numbers stay whole: nothing but limits happens to them."""
        whole = all(side == int(side) for side in self.clip or ())
        return source.kind != "f" and self.dtype.kind != "f" and (self.scale, self.offset) == (1, 0) and whole


SCRATCH_BYTES = TILE_ELEMENTS * (8 + 2 + 1)
"""What `convert` allocates: a tile in float64, one in float16, one of flags."""


def convert(
    values: np.ndarray, valid: np.ndarray | None, out: np.ndarray, fill: int | float | None, conversion: Conversion
) -> None:
    """Convert an array into another of the same shape.

    Parameters
    ----------
    valid
        False where an integer is invalid; NaN always is. These become `fill` among integers, else NaN.
    out
        Of the conversion's dtype, or float32 for float16 (which is rounded to float16 then).
    """
    step = _limit if conversion.is_exact(values.dtype) else _scale
    buffer, flags, mark = (
        np.empty(TILE_ELEMENTS),
        np.empty(TILE_ELEMENTS, bool),
        np.nan if out.dtype.kind == "f" else fill,
    )
    for tile in _tiles(values.shape):
        part, target = values[tile], out[tile]
        flag = flags[: part.size].reshape(part.shape)
        with np.errstate(all="ignore"):
            step(part, target, buffer, flag, conversion)
        if part.dtype.kind == "f":
            np.isnan(part, out=flag)
        elif valid is not None:
            np.logical_not(valid[tile], out=flag)
        if mark is not None and (valid is not None or part.dtype.kind == "f"):
            np.copyto(target, mark, where=flag)


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut an array into pieces of at most `TILE_ELEMENTS` elements (or of one, where the last axes hold more)."""
    *first, rest = shape
    if not first:
        yield from ((slice(i, i + TILE_ELEMENTS),) for i in range(0, rest, TILE_ELEMENTS))
        return
    inner = int(np.prod(shape[1:]))
    if inner > TILE_ELEMENTS:
        for i in range(shape[0]):
            yield from ((slice(i, i + 1), *tile) for tile in _tiles(shape[1:]))
    else:
        step = TILE_ELEMENTS // max(1, inner)
        yield from ((slice(i, i + step),) for i in range(0, shape[0], step))


def _limit(values: np.ndarray, out: np.ndarray, buffer: np.ndarray, flag: np.ndarray, conversion: Conversion) -> None:
    """Bring integers inside the limits of the conversion and of its dtype."""
    info, own = np.iinfo(conversion.dtype), np.iinfo(values.dtype)
    low, high = int(info.min), int(info.max)
    if conversion.clip is not None:
        low, high = (int(min(max(side, low), high)) for side in conversion.clip)
    if low > own.max or high < own.min:
        out.fill(low if low > own.max else high)
        return
    limited = buffer.view(values.dtype)[: values.size].reshape(values.shape)
    np.clip(values, max(low, own.min), min(high, own.max), out=limited)
    np.copyto(out, limited, casting="unsafe")


def _scale(values: np.ndarray, out: np.ndarray, buffer: np.ndarray, flag: np.ndarray, conversion: Conversion) -> None:
    """Scale values in float64 and round them once."""
    scaled = buffer[: values.size].reshape(values.shape)
    np.multiply(values, conversion.scale, out=scaled, dtype=np.float64)
    if conversion.offset != 0:  # -0.0 + 0 is 0
        scaled += conversion.offset
    if conversion.clip is not None:
        np.clip(scaled, *(float(side) for side in conversion.clip), out=scaled)
    if conversion.dtype.kind == "f":
        np.copyto(out, scaled.astype(conversion.dtype) if conversion.dtype != out.dtype else scaled, casting="unsafe")
        return
    ROUNDINGS[conversion.rounding](scaled, out=scaled)
    info = np.iinfo(conversion.dtype)
    np.copyto(out, scaled, casting="unsafe")
    # compared as floats: 2^63 - 1 is not one, and 2^63 does not fit
    np.copyto(out, info.max, where=np.greater_equal(scaled, float(info.max), out=flag))
    np.copyto(out, info.min, where=np.less_equal(scaled, float(info.min), out=flag))
