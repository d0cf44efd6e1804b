"""What a raster's file said beside pixels and grid, to be handed on to the files that are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.model.raster import Number, RasterSpec

PIXEL_SCALE, TIEPOINT, RPC = 33550, 33922, 50844
LINE_OFFSET, SAMPLE_OFFSET = 2, 3
"""Where the row and the column stand from which the coefficients of an RPC count."""


@dataclass(frozen=True, slots=True)
class Item:
    """A line of GDAL's metadata: of the whole raster, or of one of its bands."""

    name: str
    text: str
    band: int | None = None
    """Counted from 0."""
    role: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a file says of a raster that nothing here computes with: handed on to what is written of its pixels."""

    tags: tuple[tuple[int, tuple[int | float, ...] | str], ...] = ()
    """GeoTIFF's tags of the place, as they stand in the file: what they say may be more than transform and CRS."""
    nodata: str | None = None
    """The nodata value as the file spells it, also one that no pixel can have."""
    items: tuple[Item, ...] = ()
    photometric: int | None = None
    """TIFF's code of what the bands mean."""
    extra: tuple[int, ...] = ()
    """TIFF's codes of the bands beyond: 1 and 2 are alpha."""
    colors: tuple[int, ...] = ()
    """The colour table: 16 bits of red for each value, then green, then blue."""
    carried: Number | None = None
    """The value of invalid pixels, where these pass as they are: neither marked nor counted on the way."""

    @property
    def or_none(self) -> Recorded | None:
        """Itself; None where the file says nothing."""
        return self if self != Recorded() else None

    @property
    def place(self) -> Recorded | None:
        """What holds for any raster on the same grid, whatever its values mean."""
        return Recorded(self.tags) if self.tags else None

    def select(self, indices: Sequence[int]) -> Recorded:
        """Return what holds for some of the bands."""
        items = [item for item in self.items if item.band is None]
        items += [replace(item, band=new) for new, old in enumerate(indices) for item in self.items if item.band == old]
        return replace(self, items=tuple(items), photometric=None, extra=(), colors=())

    @property
    def is_tied(self) -> bool:
        """Whether the place is given by control points, which are no transform."""
        codes = {code for code, _ in self.tags}
        return TIEPOINT in codes and PIXEL_SCALE not in codes

    def at_level(self, messages: list[str]) -> Recorded:
        """Return what holds for a level of the pyramid: without what counts pixels of full resolution."""
        codes = {code for code, _ in self.tags} & {RPC, *((TIEPOINT,) if self.is_tied else ())}
        if codes:
            messages.append(
                "control points and RPCs are left out: they are of full resolution, and this is another level"
            )
        return replace(self, tags=tuple(each for each in self.tags if each[0] not in codes))

    def cut(self, row: int, column: int) -> Recorded:
        """Return what holds for the part that begins there: control points and RPCs count from its corner.

        A transform is left: that of the part is known better, and stands in its spec.
        """
        return replace(self, tags=tuple((code, self._cut(code, value, row, column)) for code, value in self.tags))

    def _cut(self, code: int, value: Any, row: int, column: int) -> Any:
        if code not in (TIEPOINT, RPC) or isinstance(value, str) or not (row or column):
            return value
        numbers = np.array(value, np.float64)
        if code == RPC and len(numbers) > SAMPLE_OFFSET:
            numbers[LINE_OFFSET] -= row
            numbers[SAMPLE_OFFSET] -= column
        elif code == TIEPOINT and self.is_tied:
            numbers[0::6] -= column
            numbers[1::6] -= row
        return tuple(numbers.tolist())


def recorded_of(spec: RasterSpec) -> Recorded:
    """Return what the file of a raster said."""
    return spec.recorded if isinstance(spec.recorded, Recorded) else Recorded()
