"""The strips of a pass: consecutive blocks that are computed, and recorded, as one."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from pipeline.block.plan import Pass


@dataclass(frozen=True, slots=True)
class Strip:
    """Consecutive blocks of a pass that go to dask as one graph."""

    blocks: tuple[int, ...]
    rows: tuple[int, int] = (0, 0)
    """Block rows and block columns that an exchanging strip spans; its blocks are all of them."""
    columns: tuple[int, int] = (0, 0)
    counted: frozenset[int] = frozenset()
    """Blocks that are computed again though their partial tables are saved: these count once."""

    @property
    def uncounted(self) -> list[int]:
        return [block for block in self.blocks if block not in self.counted]


def split_into_strips(planned: Pass, done: Container[int], counted: Container[int] = frozenset()) -> Iterator[Strip]:
    """Yield the strips of a pass without the blocks that are done already.

    A strip that exchanges halos is a rectangle of blocks; it is computed whole if any of its blocks is missing.
    Of blocks that are computed again, those that are counted add nothing to the tables of the pass.
    """
    grid = planned.grid
    height, width = planned.strip
    if planned.halo == "read":
        for first in range(0, len(grid), width):
            blocks = tuple(n for n in range(first, min(first + width, len(grid))) if n not in done)
            if blocks:
                yield Strip(blocks, counted=frozenset(block for block in blocks if block in counted))
        return
    for top in range(0, len(grid.rows), height):
        for left in range(0, len(grid.columns), width):
            rows, columns = (top, min(top + height, len(grid.rows))), (left, min(left + width, len(grid.columns)))
            blocks = tuple(grid.number(r, c) for r in range(*rows) for c in range(*columns))
            if not all(block in done for block in blocks):
                yield Strip(blocks, rows, columns, frozenset(block for block in blocks if block in counted))
