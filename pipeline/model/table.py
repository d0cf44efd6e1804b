"""A small result: named columns, as a plan sees them and as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Table = Mapping[str, np.ndarray]
"""A small result, or the state of a reduction: named columns of one length, (row,), (row, band) or (row, band, bin)."""


_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table as the planner sees it."""

    columns: Mapping[str, tuple[str, ...]]
    """column -> its dims"""
    bands: tuple[str, ...]
    most_rows: int | None = None
    """None where only the pixels tell."""
    dtype: np.dtype = _FLOAT64
    """Of a palette's colours."""
    prefix: str = "table/"
    """What stands before the columns' names in the step's group of the output store."""
    edges: tuple[float, ...] = ()
    """Of the bins of a histogram: one more than bins."""

    @property
    def sizes(self) -> dict[str, int]:
        """The dims whose length is known."""
        return {"band": len(self.bands), "bin": max(len(self.edges) - 1, 0)}

    @property
    def flat_names(self) -> dict[str, list[str]]:
        """What columns are called in a file of one row a label: by band ``mean_B04``, by bin ``histogram_B04_10``."""
        bins = [_shortest(edge) for edge in self.edges[:-1]]
        each = {"band": list(self.bands), "bin": [f"{band}_{edge}" for band in self.bands for edge in bins]}
        return {
            name: [name] if dims[-1] not in each else [f"{name}_{one}" for one in each[dims[-1]]]
            for name, dims in self.columns.items()
        }

    @property
    def num_bytes(self) -> int | None:
        """The bytes of the table at most; None where only the pixels tell."""
        row = sum(8 * (len(self.bands) if "band" in dims else 1) for dims in self.columns.values())
        return None if self.most_rows is None else row * self.most_rows


def _shortest(edge: float) -> str:
    """Return the digits of an edge that tell it from all others."""
    return f"{edge:g}" if float(f"{edge:g}") == edge else repr(edge)
