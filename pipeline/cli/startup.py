"""What most commands import."""

from __future__ import annotations

import gc
import sys


def import_api() -> None:
    """Import what most commands need, and never look for garbage among it: that took a sixth of a short run."""
    if "pipeline.api" in sys.modules:
        return
    gc.disable()
    try:
        import pipeline.api  # noqa: F401
        from pipeline.kernels import compile as kernels

        kernels.alone = True
    finally:
        gc.freeze()
        gc.enable()
