"""A pipeline made ready: its inputs are open, its run is planned, its output has a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.document import Document
from pipeline.config.model import Pipeline
from pipeline.model.errors import InputError, OutputError
from pipeline.output.address import store_path
from pipeline.output.local import LocalPlace
from pipeline.output.place import Place
from pipeline.output.remote import ObjectPlace
from pipeline.planning.plan import Plan
from pipeline.storage.folder.address import is_url
from pipeline.storage.folder.open import folder_at
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.reader import Evidence, Reader


@dataclass(frozen=True)
class Job:
    """A pipeline whose inputs are open and whose plan is made."""

    pipeline: Pipeline
    document: Document
    readers: Mapping[str, Reader]
    plan: Plan
    parts: Mapping[str, Any]
    """All that the result depends on, ready for JSON; its hash is the plan hash."""
    matrix_files: tuple[str, ...] = ()
    """Files of kernels, footprints and palettes that the steps were made with."""
    in_place: bool = False
    """Whether a store in an object store may be replaced where it lies."""
    opened: Mapping[Any, Reader] = field(default_factory=dict)
    """The rasters that the readers are made of, by what they were opened for."""

    @cached_property
    def place(self) -> Place:
        """Where the store is written."""
        if not is_url(self.output):
            return LocalPlace(self.output)
        run = self.pipeline.run
        try:
            folder = folder_at(self.output, self.pipeline.output.storage)
        except InputError as error:
            raise OutputError(str(error)) from error
        assert isinstance(folder, ObjectFolder)
        return ObjectPlace(folder, Path(run.scratch) if run.scratch else None, run.retries, in_place=self.in_place)

    @property
    def evidence(self) -> list[Evidence]:
        """What tells the inputs from other rasters under their paths."""
        return [evidence for reader in self.readers.values() for evidence in reader.evidence()]

    @property
    def output(self) -> str:
        """The store that is written; in the work folder where the result is one GeoTIFF."""
        return store_path(self.result)

    @property
    def result(self) -> str:
        """The output as the pipeline file names it."""
        return self.pipeline.output.path
