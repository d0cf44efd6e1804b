"""Files that are made of a complete store: GeoTIFFs, tables, pictures, by one contract.

The store is the truth: a run that is stopped while it writes them has lost no block, and `--resume` writes what lacks.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.execution.progress import Progress
from pipeline.output.job import Job

Kind = Literal["store", "GeoTIFF", "OME-Zarr", "table", "picture", "report", "scratch", "work"]


@dataclass(frozen=True)
class Written:
    """A path that a run writes."""

    path: str
    what: str
    """In the words of a message."""
    kind: Kind

    @property
    def place(self) -> Path:
        """The path, all links followed."""
        return Path(self.path).resolve()


class Export(ABC):
    """Files of one kind."""

    name: str
    """The key of their facts."""

    @abstractmethod
    def files(self, job: Job) -> Sequence[Written]:
        """Return the files that a run makes of its store."""

    @abstractmethod
    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        """Refuse what cannot be made, or would replace what it should not, before anything is written.

        Raises
        ------
        PipelineError, OutputError
            By what cannot be: memory, libraries, names, or files of other runs.
        """

    def is_complete(self, job: Job) -> bool:
        """Return whether all files are there, of this plan."""
        return not self.files(job)

    @abstractmethod
    def write(self, job: Job, progress: Progress) -> Any:
        """Write the files that are not there yet, each beside its place and then renamed; return their facts.

        Raises
        ------
        RunStopped
            Where one cannot be written; `--resume` writes what lacks.
        """


_exports: list[Export] = []


def register(export: type[Export]) -> type[Export]:
    """Have an export made of every complete store whose pipeline asks for it (a class decorator)."""
    _exports.append(export())
    return export


def exports() -> list[Export]:
    """Return what is made of every complete store, by name; the first call imports every module of this package."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return sorted(_exports, key=lambda export: export.name)
