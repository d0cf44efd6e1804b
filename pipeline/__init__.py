"""rasterpipe: a chunked, out-of-core processing pipeline for large multi-band rasters.

`run`, `plan`, `validate`, `convert`, `info`, `show` and `verify` do what the commands of these names do and return
their facts (`model.facts`), `view` serves until it is interrupted; `apply` applies steps lazily to a dask or xarray
array.
"""

from __future__ import annotations

from pipeline.model.version import __version__

TYPE_CHECKING = False  # not of typing: a command is to answer Ctrl-C a few milliseconds after it was given

__all__ = ["__version__", "apply", "convert", "info", "plan", "run", "show", "validate", "verify", "view"]

if TYPE_CHECKING:
    from typing import Any

    from pipeline.api import convert, info, plan, run, show, validate, verify, view
    from pipeline.verbs.lazy import apply


def __getattr__(name: str) -> Any:
    # Imported when used: `rasterpipe --version` needs none of it.
    if name == "apply":
        from pipeline.verbs import lazy

        return lazy.apply
    if name in __all__:
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
