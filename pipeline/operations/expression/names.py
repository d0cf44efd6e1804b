"""What the names in an expression mean: rasters, and bands by name or position."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.model.errors import unknown
from pipeline.operations.expression.grammar import CONSTANTS, FUNCTIONS

WHOLE = "input"
"""The name under which the step's `input` can always be had, all its bands."""
STATISTICS = ("mean", "median", "coalesce")
"""Functions whose names rasters bore before there were these; a function is called, so that both can be told apart."""
_POSITION = re.compile(r"b([1-9][0-9]{0,6})")
_NUMBER = re.compile(r"0*([1-9][0-9]*)")
BAND_NUMBERS = 300
"""Numbers up to it are those of a sensor's bands (EMIT has 285); wavelengths in nm and years are larger."""
_NUMBERED = re.compile(r"(?:.*[^a-z])?(?:b|band)[ _-]?0*([0-9]+[a-z]?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """What an expression must know of a raster."""

    bands: tuple[str, ...]
    dtype: np.dtype
    can_be_invalid: bool
    source_bands: tuple[str, ...] = ()
    """Of a series (of dates, of filters), which band of each of them a band is."""
    are_layers: bool = False
    """Whether the bands are layers of labels that overlap."""

    def series(self, name: str) -> tuple[int, ...]:
        """Return all bands (indices from 0) that are one band of each date."""
        return tuple(index for index, band in enumerate(self.source_bands) if band == name)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a name means: a raster with all its bands, one band (its index from 0), or one band of all dates."""

    key: str
    band: int | None
    series: tuple[int, ...] = ()
    """The bands that are one band of each date."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The rasters that the names of an expression can mean.

    A name is looked up in this order: a key; the exact name of a band of the plain raster; a name of that raster; the
    name that a band has at all dates of a series; ``b4``, the band at position 4; a band's name in other capitals, if
    that is one band.
    """

    sources: tuple[tuple[str, Source], ...]
    plain: str | None = None
    """The key of the raster whose bands are names by themselves."""
    aliases: tuple[str, ...] = (WHOLE,)
    """Names that stand for that raster as a whole, beside its key."""

    def source(self, key: str) -> Source:
        return dict(self.sources)[key]

    def find(self, name: tuple[str, ...]) -> Leaf:
        """Return what a name means; ValueError where that is nothing, or not one thing."""
        head, *band = name
        if band:
            key = self._raster(head)
            return self._band(key, band[0], f"band of {head!r}")
        own = self.source(self.plain).bands if self.plain is not None else ()
        if head in dict(self.sources) and head in own:
            raise ValueError(f"{head!r} is a raster and a band of the input; write {WHOLE}.{head} for the band")
        if self._is_raster(head) and head not in own:
            return Leaf(self._raster(head), None)
        if self.plain is None:
            raise ValueError(unknown("name", head[:60], self._names()))
        return self._band(self.plain, head, "name")

    def _is_raster(self, name: str) -> bool:
        return name in dict(self.sources) or (self.plain is not None and name in self.aliases)

    def _raster(self, name: str) -> str:
        if name in dict(self.sources):
            return name
        if self.plain is not None and name in self.aliases:
            return self.plain
        raise ValueError(unknown("raster", name[:60], self._rasters()))

    def _band(self, key: str, name: str, kind: str) -> Leaf:
        source = self.source(key)
        if name not in source.bands and (series := source.series(name)):
            return Leaf(key, None, series) if len(series) > 1 else Leaf(key, series[0])
        return Leaf(key, self._index(source, name, kind))

    def _index(self, source: Source, name: str, kind: str) -> int:
        """Return which of the bands a name means."""
        bands = source.bands
        if name in bands:
            return bands.index(name)
        similar = [index for index, band in enumerate(bands) if band.casefold() == name.casefold()]
        position = _POSITION.fullmatch(name)
        if position and int(position[1]) <= len(bands):
            index = int(position[1]) - 1
            _check_position(name, bands, index, similar)
            return index
        if len(similar) == 1:
            return similar[0]
        if similar:
            raise ValueError(f"{name!r} could be {' or '.join(bands[index] for index in similar)}; write it exactly")
        own = [*filter(is_writable, dict.fromkeys(source.source_bands)), *_band_names(bands)]
        valid = [*self._names(), *own] if kind == "name" else own
        raise ValueError(unknown(kind, name[:60], dict.fromkeys(valid)))

    def _rasters(self) -> list[str]:
        keys = [key for key, _ in self.sources]
        return list(dict.fromkeys([*keys, *(self.aliases if self.plain is not None else ())]))

    def _names(self) -> list[str]:
        return [*self._rasters(), *CONSTANTS]


def _check_position(name: str, bands: tuple[str, ...], index: int, similar: list[int]) -> None:
    """Refuse a position that reads as the name of another band: b4 where the fourth band is B05."""
    numbered = _NUMBERED.fullmatch(bands[index]) or _band_number(bands[index])
    meant = [band for i, band in enumerate(bands) if i != index and (i in similar or _is_number(band, name[1:]))]
    if (numbered and numbered[1].casefold() != name[1:]) or meant:
        remedy = f"write {' or '.join([bands[index], *meant])}"
        if unwritable := [band for band in (bands[index], *meant) if not is_writable(band)]:
            quoted = " or ".join(f'bands: ["{band}"]' for band in unwritable)
            remedy = f"pick the band by its name in a step before: `select` with {quoted}"
        raise ValueError(f"{name!r} is position {index + 1}, and the band there is called {bands[index]!r}; {remedy}")


def _band_number(band: str) -> re.Match[str] | None:
    """Return the match of a name that is nothing but the number of a band."""
    found = _NUMBER.fullmatch(band)
    return found if found and int(found[1]) <= BAND_NUMBERS else None


def _is_number(band: str, number: str) -> bool:
    found = _NUMBER.fullmatch(band)
    return found is not None and found[1] == number


def _band_names(bands: tuple[str, ...]) -> Iterator[str]:
    """Yield how bands can be written: their names, and the positions of those whose names cannot be."""
    for index, band in enumerate(bands):
        yield band if is_writable(band) else f"b{index + 1}"


def is_writable(name: str) -> bool:
    """Return whether an expression can hold this as a name."""
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def check_key(key: str) -> None:
    """Raise ValueError unless a raster can be called so in an expression."""
    taken = (*CONSTANTS, *(name for name in FUNCTIONS if name not in STATISTICS), WHOLE)
    if not is_writable(key) or key in taken:
        why = "means something else" if key in taken else "is not a name in expressions"
        raise ValueError(f"{key!r} {why}; a raster is called by letters, digits and _, and not {', '.join(taken)}")
