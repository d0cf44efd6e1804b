"""`import rasterpipe` is `import pipeline`: the same modules by the name of the distribution, no copies of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

import pipeline

if TYPE_CHECKING:
    from pipeline import *  # noqa: F403


class _Same(MetaPathFinder, Loader):
    """Finds `rasterpipe.api`, and loads `pipeline.api` for it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_one = fullname.startswith("rasterpipe.") and fullname != "rasterpipe.__main__"  # which is run, not imported
        return ModuleSpec(fullname, self) if is_one else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"pipeline.{spec.name.partition('.')[2]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # its own, which the import has replaced


if not any(isinstance(finder, _Same) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Same())
sys.modules[__name__] = pipeline
