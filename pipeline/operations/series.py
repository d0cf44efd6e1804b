"""Bands as series along one of their coordinates, such as dates: which bands belong together, and in which order."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from pipeline.model.errors import PipelineError, did_you_mean
from pipeline.model.raster import LAYER, SOURCE_BAND, BandCoordinates, Number, RasterSpec

BAND = "band"
"""The series of all bands, in their order."""
AXES = ("time", "z", SOURCE_BAND, "frequency", "orientation")
"""Coordinates that tell bands apart; what else is known of a band says something of it."""
_DAYS = re.compile(r"([1-9][0-9]{0,5}) days?")

Value = Number | str


@dataclass(frozen=True, slots=True)
class Group:
    """The bands that make one band of the result, in the order of the coordinate."""

    bands: tuple[int, ...]
    """Their indices from 0."""
    entries: tuple[int, ...]
    """The number of each band's entry among all of the coordinate, from 0."""
    period: int
    """The number of the period among those that have an entry."""


@dataclass(frozen=True, slots=True)
class Series:
    """The bands of a raster as series."""

    entries: tuple[str, ...]
    """The coordinate's different values, in their order, as text."""
    groups: tuple[Group, ...]
    """By period, and in each in the order in which they first occur."""
    names: tuple[str, ...]
    """Of each group within its period; empty where there is but one group."""
    periods: tuple[str, ...]
    """Where each period begins; empty without periods."""
    left_out: int
    """Periods between the first and the last that have no entry."""

    @property
    def num_periods(self) -> int:
        return max(1, len(self.periods))


def check_window(window: str | None) -> str | None:
    if window is None or window in ("month", "year") or _DAYS.fullmatch(window):
        return window
    raise ValueError(f"must be month, year or a number of days such as '16 days', got {window!r}")


class HasBands(Protocol):
    """A raster's spec, or a block of it."""

    @property
    def bands(self) -> tuple[str, ...]: ...

    @property
    def band_coordinates(self) -> BandCoordinates: ...


def are_layers(source: HasBands) -> bool:
    """Return whether bands are layers of labels that overlap, which go with no other bands."""
    return LAYER in dict(source.band_coordinates)


def series_of(source: HasBands, over: str, window: str | None = None) -> Series:
    """Return the bands of a raster as series over a coordinate, or in periods of it.

    Raises
    ------
    PipelineError
        Where the raster has no such coordinate, or it has values that cannot be put in an order.
    """
    return _series(source.band_coordinates, len(source.bands), over, window)


@lru_cache(maxsize=64)
def _series(coordinates: BandCoordinates, num_bands: int, over: str, window: str | None) -> Series:
    known = dict(coordinates)
    if over != BAND and over not in known:
        have = ", ".join(known) or "none"
        raise PipelineError(
            f"unknown coordinate {over!r}{did_you_mean(over, [*known, BAND])} (the raster's bands have {have}; "
            f"`over: {BAND}` is all bands in their order)",
            ("over",),
        )
    values = tuple(range(num_bands)) if over == BAND else known[over]
    orders, dates = _orders(over, values)
    different = sorted(set(orders))
    number = {order: i for i, order in enumerate(different)}
    keys = _keys(known, over, num_bands)
    cells = _periods(over, dates, window) if window else [0] * num_bands
    present = sorted(set(cells))
    members: dict[tuple[int, tuple[Value, ...]], list[int]] = {}
    first = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    for band in sorted(range(num_bands), key=lambda band: (cells[band], first[keys[band]], orders[band], band)):
        members.setdefault((cells[band], keys[band]), []).append(band)
    groups = tuple(
        Group(tuple(bands), tuple(number[orders[band]] for band in bands), present.index(cell))
        for (cell, _), bands in members.items()
    )
    texts = dict(zip(orders, map(str, values), strict=True))
    names = tuple(" ".join(map(str, key)) for _, key in members)
    periods = tuple(_start(dates, window, cell) for cell in present) if window else ()
    return Series(
        tuple(texts[order] for order in different), groups, names, periods, present[-1] - present[0] + 1 - len(present)
    )


def _keys(known: dict[str, tuple[Value, ...]], over: str, num_bands: int) -> list[tuple[Value, ...]]:
    """Return what tells the series apart, by band: the other coordinates that do."""
    others = [known[name] for name in AXES if name in known and over not in (name, BAND)]
    return [tuple(values[band] for values in others) for band in range(num_bands)]


def _orders(over: str, values: Sequence[Value]) -> tuple[Sequence[float], list[datetime.datetime]]:
    """Return numbers by whose order the values of a coordinate are, and where all are dates, these."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values):
        if bad := [number for number in numbers if not math.isfinite(number)]:
            raise PipelineError(f"{over} is {bad[0]} for a band; every band needs a number", ("over",))
        return numbers, []
    dates = [_date(str(value)) for value in values]
    known = [date for date in dates if date is not None]
    if len(known) == len(dates):
        begin = datetime.datetime.min
        return [(date - begin) // datetime.timedelta(microseconds=1) for date in known], known
    if over == "time":
        text = next(value for value, date in zip(values, dates, strict=True) if date is None)
        raise PipelineError(f"time is {text!r} for a band; it must be a date such as 2024-06-01", ("over",))
    places = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return [places[value] for value in values], []


def _date(text: str) -> datetime.datetime | None:
    """Return a date in UTC; one without a zone is taken as that."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return found.astimezone(datetime.UTC).replace(tzinfo=None) if found.tzinfo else found
    except OverflowError:
        return None


def _periods(over: str, dates: Sequence[datetime.datetime], window: str) -> list[int]:
    """Return the number of each date's period; those between are counted on."""
    if not dates:
        raise PipelineError(f"`window` divides dates, and the {over} of the bands is none; leave it out", ("window",))
    if window == "year":
        return [date.year for date in dates]
    if window == "month":
        return [12 * date.year + date.month - 1 for date in dates]
    first = min(dates).date()
    return [(date.date() - first).days // _days(window) for date in dates]


def _days(window: str) -> int:
    found = _DAYS.fullmatch(window)
    assert found
    return int(found[1])


def _start(dates: Sequence[datetime.datetime], window: str, cell: int) -> str:
    """Return the first day of a period."""
    if window == "year":
        return datetime.date(cell, 1, 1).isoformat()
    if window == "month":
        return datetime.date(cell // 12, cell % 12 + 1, 1).isoformat()
    return (min(dates).date() + datetime.timedelta(days=cell * _days(window))).isoformat()


def result_of(spec: RasterSpec, series: Series, over: str, name: str) -> RasterSpec:
    """Return the spec of a raster with a band for each group: its names, and the coordinates that its bands share."""
    first = spec.pick([group.bands[0] for group in series.groups])
    bands = tuple(_band_names(series, name))
    kept = [
        (coordinate, tuple(values[group.bands[0]] for group in series.groups))
        for coordinate, values in spec.band_coordinates
        if coordinate != over and all(len({values[band] for band in group.bands}) == 1 for group in series.groups)
    ]
    if series.periods:
        kept.insert(0, (over, tuple(series.periods[group.period] for group in series.groups)))
    return replace(first, bands=bands, band_coordinates=tuple(kept))


def _band_names(series: Series, name: str) -> Iterator[str]:
    for group, own in zip(series.groups, series.names, strict=True):
        period = series.periods[group.period] if series.periods else ""
        yield " ".join(part for part in (own, period) if part) or name


def dates_of_bands(source: HasBands) -> list[tuple[Value, ...]]:
    """Return what tells the dates of a series apart, whatever the band, for each band."""
    return _keys(dict(source.band_coordinates), SOURCE_BAND, len(source.bands))


@dataclass(frozen=True, slots=True)
class Dates:
    """A raster of which each entry of a coordinate has the same bands."""

    bands: np.ndarray
    """(entry, name): the band of each."""
    names: tuple[str, ...]


def dates_of(source: HasBands, over: str) -> Dates:
    """Return the bands of each entry; PipelineError where one lacks a band, or has it twice."""
    series = series_of(source, over)
    names = tuple(name or "b1" for name in series.names)
    bands = np.full((len(series.entries), len(names)), -1, np.int64)
    for place, group in enumerate(series.groups):
        for band, entry in zip(group.bands, group.entries, strict=True):
            if bands[entry, place] >= 0:
                raise PipelineError(
                    f"{over} {series.entries[entry]} has {names[place]} twice; `best` takes all bands of one entry, "
                    "so each has each band once",
                    ("best",),
                )
            bands[entry, place] = band
    if (bands < 0).any():
        entry, place = np.argwhere(bands < 0)[0]
        raise PipelineError(
            f"{over} {series.entries[entry]} has no band {names[place]}; `best` takes all bands of one entry, so each "
            "has each band once: pick those that all have with `bands`",
            ("best",),
        )
    return Dates(bands, names)
