"""What a request asks for, checked: numbers within bounds, names of a list; anything else is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from pipeline.model.region import Region
from pipeline.picture.color_map import MAPS
from pipeline.picture.style import KINDS, Kind, Style
from pipeline.verbs.view.gallery import Gallery

MOST_FIELDS = 16
MOST_POWER = 32


class BadQuery(Exception):
    """A request that asks for what there is not."""


class Query:
    """The fields behind the question mark of a URL."""

    def __init__(self, text: str, gallery: Gallery) -> None:
        try:
            found = parse_qs(text, strict_parsing=bool(text), max_num_fields=MOST_FIELDS, errors="strict")
        except (ValueError, UnicodeDecodeError) as error:
            raise BadQuery(f"the query cannot be read: {error}") from error
        self._fields: Mapping[str, str] = {name: values[0] for name, values in found.items()}
        self._gallery = gallery

    def whole(self, name: str, stop: int, first: int = 0) -> int:
        """Return a whole number from `first` up to `stop`, which it is not."""
        text = self._fields.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 12 and first <= int(text) < stop):
            raise BadQuery(f"{name} must be a whole number from {first} to {stop - 1}")
        return int(text)

    @property
    def raster(self) -> int:
        return self.whole("raster", len(self._gallery.shown))

    @property
    def bands(self) -> tuple[int, ...]:
        """One band, or those for red, green and blue."""
        texts, count = self._fields.get("bands", "").split(","), self._gallery.spec(self.raster).num_bands
        if len(texts) not in (1, 3):
            raise BadQuery("bands must be one, or three for red, green and blue")
        return tuple(Query._number(text, count) for text in texts)

    @staticmethod
    def _number(text: str, count: int) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < count):
            raise BadQuery(f"bands are whole numbers from 0 to {count - 1}")
        return int(text)

    @property
    def tile(self) -> tuple[int, int, int]:
        return self.whole("power", MOST_POWER), self.whole("row", 2**32), self.whole("column", 2**32)

    @property
    def pixel(self) -> tuple[int, int]:
        spec = self._gallery.spec(self.raster)
        return self.whole("row", spec.height), self.whole("column", spec.width)

    @property
    def region(self) -> Region:
        spec = self._gallery.spec(self.raster)
        top, left = self.whole("top", spec.height), self.whole("left", spec.width)
        bottom, right = self.whole("bottom", spec.height + 1, top + 1), self.whole("right", spec.width + 1, left + 1)
        return Region(top, bottom, left, right)

    @property
    def map(self) -> str:
        return self._one_of("map", MAPS)

    @property
    def style(self) -> Style:
        bands = self.bands
        kind: Any = self._one_of("kind", KINDS)
        if (kind == "color") != (len(bands) == 3):
            raise BadQuery("three bands are colours, and one is none")
        if kind in ("categorical", "palette") and self._gallery.spec(self.raster).dtype.kind == "f":
            raise BadQuery("classes are whole numbers")
        return Style(kind, self.map, self._limits(kind, len(bands)))

    def _limits(self, kind: Kind, count: int) -> tuple[tuple[float, float], ...]:
        try:
            numbers = [float(text) for text in self._fields.get("limits", "").split(",", 2 * count)]
        except ValueError:
            numbers = []
        if len(numbers) != 2 * count or not all(map(math.isfinite, numbers)):
            raise BadQuery(f"limits must be {2 * count} finite numbers, low and high of each band")
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _one_of(self, name: str, valid: Any) -> str:
        if (text := self._fields.get(name, "")) not in valid:
            raise BadQuery(f"{name} must be one of {', '.join(valid)}")
        return text
