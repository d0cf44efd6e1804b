"""What the contract of our own operations has beside that of any: parameters that do not fit, steps that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipeline.testing import OperationContract
from tests import strategies
from tests.harness import Raster


class Ours(OperationContract):
    """What is the same for all of ours."""

    unfit = (
        *("band counts do not fit", "holds fractions", "the palette has"),
        *("one band is looked at", "is the number of an object", "the condition has"),
        *("histograms are of 8 and 16 bits", "li is for 8 and 16 bits"),
        *("no pixel is valid in all bands", "pick the one that is coloured"),
        *("is for 8 and 16 bits", "histograms are of up to 32 bits"),
        *("the raster's bands have", "`best` takes all bands of one entry"),
    )

    def plain(self, step: dict[str, Any]) -> dict[str, Any]:
        return strategies.plain(step)

    def fits(self, raster: Raster | None, steps: Any) -> bool:
        if raster is None or all(step["op"] not in ("palette", "relief") for step in steps):
            return True
        return bool(np.isfinite(raster.planes()).all(axis=0).any())  # else no pixel is valid

    def declared_dtypes(self, step: dict[str, Any]) -> Any:
        return st.just(step) if step["op"] == "palette" else super().declared_dtypes(step)

    test_fused_equals_step_by_step = None  # below, among each other


def loadable(source: str, steps: list[dict[str, Any]], folder: Path, raster: Raster | None = None) -> bool:
    """Return whether drawn steps can be planned for a raster, and where it is given, whether their run can end."""
    return Ours().loaded(source, steps, folder, raster) is not None
