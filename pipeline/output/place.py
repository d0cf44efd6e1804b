"""Where a run writes, as far as a disk and an object store differ: beginning, replacing, and what lies beside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.output.journal import Journal
from pipeline.storage.folder.base import Folder


@dataclass(frozen=True)
class Target:
    """The decision how to begin: what to do, and in which folder the store is written."""

    action: Literal["start", "continue", "finished"]
    store: Folder
    run_id: str
    replaces: str | None = None
    """The run whose result lies at the output and is replaced at the end; None: nothing lies there."""


class Place(ABC):
    """The place of an output store."""

    folder: Folder
    """The store, once it is complete."""
    overwriting: str
    """The options that replace a result here."""
    replacing: str
    """What they do, in words."""

    def __str__(self) -> str:
        return str(self.folder)

    @property
    @abstractmethod
    def work(self) -> Folder:
        """The folder for what belongs to the run and not to the result."""

    @abstractmethod
    def check(self, inputs: Sequence[str]) -> None:
        """Refuse a prefix equal to, inside or around an input, and one that holds no store of ours."""

    @abstractmethod
    def is_begun(self) -> bool:
        """Return whether a run has been here and has not ended."""

    @abstractmethod
    def open_journal(self) -> Journal:
        """Open and lock the journal; OutputError where another run holds it."""

    @abstractmethod
    def finish_swap(self, journal: Journal) -> None:
        """Finish what a crash at the end of an overwriting run left."""

    @abstractmethod
    def begin(self, here: Mapping[str, Any] | None, *, overwrite: bool) -> Target:
        """Return where a new run writes; OutputError where the result that is there may not be replaced."""

    @abstractmethod
    def find_unfinished(self, header: Mapping[str, Any]) -> Folder | None:
        """Return the store that a journal belongs to."""

    @abstractmethod
    def check_room(self, num_bytes: int) -> str | None:
        """Refuse a disk that cannot hold a result of so many bytes; return a warning where it may not."""

    @abstractmethod
    def prepare(self, chosen: Target) -> None:
        """Make room for the store."""

    @abstractmethod
    def discard(self, chosen: Target) -> None:
        """Remove a store that could not be created."""

    @abstractmethod
    def remove_torn(self, chosen: Target) -> None:
        """Remove what a killed process had begun to write in a store."""

    @abstractmethod
    def publish(self, chosen: Target) -> None:
        """Put a complete store in its place."""


def is_unfinished_of(attributes: Mapping[str, Any], header: Mapping[str, Any]) -> bool:
    """Return whether a store's record says that it is the unfinished one of a journal."""
    run_id, complete = attributes.get("run_id"), attributes.get("complete")
    return run_id is not None and run_id == header.get("run_id") and complete is not True
