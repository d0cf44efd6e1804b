"""What the author of an operation tests it with; see docs/own-operation.md.

`OperationContract` is the class of tests to inherit from. They need pytest and hypothesis: `rasterpipe[test]`.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # not of typing, which pytest's start need not wait for

if TYPE_CHECKING:
    from typing import Any

    from pipeline.testing.contract import OperationContract
    from pipeline.testing.layout import Layout
    from pipeline.testing.raster import Raster, same_bits
    from pipeline.testing.reference import Expected, Reference, pad
    from pipeline.testing.strategy import layouts, rasters, regions, steps_of

__all__ = [
    "Expected",
    "Layout",
    "OperationContract",
    "Raster",
    "Reference",
    "layouts",
    "pad",
    "rasters",
    "regions",
    "same_bits",
    "steps_of",
]
_HOMES = {
    "contract": ("OperationContract",),
    "layout": ("Layout",),
    "raster": ("Raster", "same_bits"),
    "reference": ("Expected", "Reference", "pad"),
    "strategy": ("layouts", "rasters", "regions", "steps_of"),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'pipeline.testing' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"pipeline.testing.{home}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("hypothesis", "pytest"):
            raise
        raise ImportError(
            f"pipeline.testing needs {error.name}, which is not installed; pip install 'rasterpipe[test]'"
        ) from error
