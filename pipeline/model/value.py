"""Values that a file may write in several ways, made one: sizes in bytes, dimensions, chunks, nodata."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.model.errors import show

_UNITS = {unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))}
_UNITS |= {unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)}
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?P<unit>[kmgt]?i?b)", re.IGNORECASE)
_DIM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Frozen(BaseModel):
    """Base of what a pipeline file says: unknown keys are errors, and what is said of a key is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_bytes(value: Any) -> int | None:
    """Return the bytes that ``2 GiB``, ``512 MiB``, ``1.5GB`` or a number of bytes mean.

    Examples
    --------
    >>> parse_bytes("2 GiB"), parse_bytes("1.5GB")
    (2147483648, 1500000000)
    """
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        value = round(float(match["number"]) * _UNITS[match["unit"].lower()])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be a size such as `2 GiB`, `512 MiB` or `1.5GB`, got {show(value)}")
    if value < 1 << 20:
        raise ValueError(f"must be at least 1 MiB, got {show(value)} bytes; give a unit: `2 GiB`")
    return value


def parse_time(value: Any) -> str:
    """Return a point of time by ISO 8601, in UTC: a date, or date and time.

    Examples
    --------
    >>> parse_time("20240601"), parse_time("2024-06-01T12:30:00+02:00")
    ('2024-06-01', '2024-06-01T10:30:00')
    """
    try:
        time = datetime.datetime.fromisoformat(value)
        is_date = "T" not in value and ":" not in value and " " not in value
    except (TypeError, ValueError):
        raise ValueError(
            f"must be a date or a time such as 2024-06-01 or 2024-06-01T10:30:00, got {show(value)}"
        ) from None
    if time.tzinfo is not None:
        time = time.astimezone(datetime.UTC).replace(tzinfo=None)
    return time.date().isoformat() if is_date else time.isoformat()


def parse_nodata(value: Any) -> Any:
    """Return a number, "none" (ignore the recorded value), "nan", "carry" (hand it on), or None (as recorded)."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, str) and value.lower() in ("none", "nan", "carry"):
        return value.lower()
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f"must be a number, `none` or `nan`, got {show(value)}")


def parse_dims(value: Any) -> Any:
    """Return ``y,x,band`` for any way to write it: with spaces, or as a list."""
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"must be names such as `y,x,band`, got {show(value)}")
    return ",".join(name.strip() for name in names)


def parse_input_dims(value: Any) -> Any:
    text = parse_dims(value)
    names = text.split(",") if text is not None else ["y", "x"]
    if not all(_DIM.fullmatch(name) for name in names):
        raise ValueError(f"must be names such as `y,x,band`, got {show(value)}")
    if len(set(names)) < len(names) or not {"y", "x"} <= set(names):
        raise ValueError(f"must name y and x once each, got {show(value)}; for example `y,x,band`")
    return text


def parse_sides(value: Any, words: tuple[str, ...]) -> Any:
    """Check rows and columns (and bands) of chunks or shards, or one of the words."""
    if value in words if isinstance(value, str) else _are_sides(value):
        return value
    remedy = f"; write [{value}, {value}]" if _are_sides([value, value]) else ""
    names = ", ".join(f"`{word}`" for word in words)
    raise ValueError(f"must be {names}, [y, x] or [y, x, band] in whole pixels, got {show(value)}{remedy}")


def _are_sides(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) in (2, 3)
        and all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**31 for side in value)
    )
