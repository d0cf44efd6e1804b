"""Objects of the parts of a raster, joined to those of the whole: holes are filled, and small ones given away."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from pipeline.kernels.components import forest, join_runs, roots
from pipeline.kernels.contact import join_pairs, run_contacts
from pipeline.model.table import Table
from pipeline.operations.holes import is_alike


class Joining:
    """A forest of the objects (and holes) of parts, by what is known of them; see `Components.partial`."""

    def __init__(self, partial: Table, height: int, width: int, diagonal: bool) -> None:
        self.first, self._partial = partial["first"], partial
        self._height, self._width, self._diagonal = height, width, diagonal
        self.part = np.searchsorted(self.first, partial["object"])
        """Of each run, its object."""
        self.is_hole = partial.get("is_hole", np.zeros(len(self.first), bool))
        self._parents = forest(len(self.first))
        for starts, lasts, runs, side in self._sides():
            if "is_hole" not in partial:
                join_runs(starts, lasts, partial["value"][runs], self.part[runs], side, diagonal, self._parents)
                continue
            holes = self.is_hole[self.part[runs]]
            for these, corners in ((~holes, diagonal), (holes, not diagonal)):
                kept = partial["value"][runs][these], self.part[runs][these]
                join_runs(starts[these], lasts[these], *kept, side, corners, self._parents)

    def _sides(self) -> Iterator[tuple[np.ndarray, np.ndarray, slice, int]]:
        """Yield the runs of rows, then of columns: first and last places, which these are, the length of a line."""
        start, last, area = self._partial["start"], self._partial["last"], self._height * self._width
        num_rows = int(np.searchsorted(start, area))
        for runs, offset, side in (
            (slice(0, num_rows), 0, self._width),
            (slice(num_rows, len(start)), area, self._height),
        ):
            yield start[runs] - offset, last[runs] - offset, runs, side

    @cached_property
    def _contacts(self) -> tuple[np.ndarray, np.ndarray]:
        """Which objects and holes of parts share sides, within the parts and where these meet."""
        found = [np.searchsorted(self.first, self._partial["contact"]).T]
        for starts, lasts, runs, side in self._sides():
            found.append(np.stack(run_contacts(starts, lasts, side)) + runs.start)
            found[-1] = self.part[found[-1]]
        upper, lower = np.concatenate(found, axis=1)
        return upper, lower

    def finish(self) -> np.ndarray:
        """Return the first of those joined with each; nothing more is joined."""
        whole = roots(self._parents)
        del self._parents
        return whole

    def pixels(self, whole: np.ndarray) -> np.ndarray:
        """Return the pixels of what is joined, 0 for all but the first of it; `whole` is what `finish` returns."""
        found = np.zeros(len(self.first), np.int64)
        np.add.at(found, whole, self._partial["pixels"])
        return found

    def fill(self, size: int) -> None:
        """Join holes of fewer pixels with what is around and in them, where all that has one value."""
        whole = roots(self._parents)
        is_small = (self.pixels(whole) < size) & self.is_hole
        is_small[whole[self._at_edge()]] = False
        first, second = self._contacts
        of_both = self.is_hole[first] != self.is_hole[second]
        first, second = first[of_both], second[of_both]
        hole, other = np.where(self.is_hole[first], (first, second), (second, first))
        is_filled = is_small & is_alike(whole[hole], self._partial["object_value"][other], len(self.first))
        these = is_filled[whole[hole]]
        join_pairs(hole[these], other[these], self._parents)

    def _at_edge(self) -> np.ndarray:
        """Return the objects and holes of parts that lie at the edge of the region."""
        top, bottom, left, right = self._partial["extent"].tolist()
        found = []
        for (starts, _, runs, side), ends in zip(self._sides(), ((top, bottom), (left, right)), strict=True):
            line = starts // side
            found.append(self.part[runs][(line == ends[0]) | (line == ends[1] - 1)])
        return np.concatenate(found)

    def given(
        self, whole: np.ndarray, labels: np.ndarray, pixels: np.ndarray, min_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which objects of fewer pixels are given to the largest beside them that is kept, and its label.

        `labels` (0 where none is kept) and `pixels` are of the roots. Of equally large ones it is the first.
        """
        first, second = (whole[each] for each in self._contacts)
        small, kept = np.concatenate([first, second]), np.concatenate([second, first])
        these = (pixels[small] < min_size) & ~self.is_hole[small] & (labels[kept] > 0)
        small, kept = small[these], kept[these]
        order = np.lexsort((labels[kept], -pixels[kept], small))
        found, places = np.unique(small[order], return_index=True)
        return found, labels[kept[order][places]]
