"""An output in an object store, which has no renames: an older one is replaced where it lies, if that is meant."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.model.errors import OutputError
from pipeline.output.address import STORE_FILES
from pipeline.output.journal import Journal
from pipeline.output.place import Place, Target, is_unfinished_of
from pipeline.output.remote_journal import JOURNAL, LEASE, ObjectJournal
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.zarr.store import root_attributes

NODE_FILE = re.compile(r"(.+)/(?:zarr\.json|c(?:/\d+)*)")
"""A file of an array or a group: its metadata or a chunk."""


def own_names(metadata: Any, names: Iterable[str]) -> list[str]:
    """Return which names below a result its run has made: files of nodes that its own metadata tell of.

    An unfinished result has not gathered metadata yet; there all below the groups of its steps counts.
    """
    try:
        nodes = (metadata.get("consolidated_metadata") or {}).get("metadata") or {}
        steps = {step["name"] for step in metadata["attributes"]["rasterpipe"]["parts"]["steps"]}
    except (AttributeError, KeyError, TypeError):  # not as a run wrote it
        nodes, steps = {}, set()

    def is_own(name: str) -> bool:
        match = NODE_FILE.fullmatch(name)
        if match is None:
            return name == "zarr.json"
        return match[1] in nodes if nodes else match[1].partition("/")[0] in steps

    return [name for name in names if is_own(name)]


class ObjectPlace(Place):
    """In an object store, which has no renames: an existing store is replaced where it lies, if that is agreed to."""

    overwriting = "--overwrite --in-place"
    replacing = "--overwrite --in-place replaces it, and it is gone before the new result is complete"

    def __init__(self, folder: ObjectFolder, scratch: Path | None, retries: int, *, in_place: bool) -> None:
        self.folder: ObjectFolder = folder
        self.scratch, self.retries, self.in_place = scratch, retries, in_place

    @property
    def work(self) -> ObjectFolder:
        return ObjectFolder(f"{self.folder}.work", self.folder.access)

    def check(self, inputs: Sequence[str]) -> None:
        if self.folder.is_unlisted:
            raise OutputError(f"{self}: nothing is written through http; give an object store or a folder")
        if self.folder.parent is None:
            raise OutputError(f"{self}: is a whole bucket; choose a path in it")
        for source in (source.rstrip("/") for source in inputs):
            if source == str(self):
                raise OutputError(f"{self}: is also an input; choose another output path")
            for inner, outer, word in ((str(self), source, "inside"), (source, str(self), "around")):
                if inner.startswith(outer + "/"):
                    raise OutputError(f"{self}: lies {word} the input {source}; choose an output path beside it")
        try:
            if root_attributes(self.folder) is None and not self.folder.is_empty():
                words = "exists and is not an output of rasterpipe, so it is never replaced"
                raise OutputError(f"{self}: {words}; choose another path")
            if (around := self._store_around()) is not None:
                raise OutputError(f"{self}: lies inside another Zarr store, {around}; choose a path outside of it")
        except RemoteError as error:
            raise OutputError(str(error)) from error

    def _store_around(self) -> Folder | None:
        folder = self.folder.parent
        while folder is not None:
            with suppress(RemoteError):  # who may not look there has no store there
                if any(folder.exists(name) for name in STORE_FILES):
                    return folder
            folder = folder.parent
        return None

    def is_begun(self) -> bool:
        return self.work.exists(JOURNAL) or self.work.exists(LEASE)

    def open_journal(self) -> Journal:
        journal = ObjectJournal(self.work, str(self), self.scratch, self.retries)
        self.folder.confirm = journal.lease.confirm
        return journal

    def finish_swap(self, journal: Journal) -> None:
        """Nothing is swapped."""

    def begin(self, here: Mapping[str, Any] | None, *, overwrite: bool) -> Target:
        if here is not None:
            if overwrite and not self.in_place:
                raise OutputError(
                    f"{self}: an object store has no renames, so the old result would be gone before the new one is "
                    "complete; add --in-place to --overwrite if that is meant, or choose another path"
                )
            if foreign := sorted({*self.folder.names()} - {*self._own_names()}):
                raise OutputError(
                    f"{self}: is replaced where it lies, and holds {foreign[0]}, which its run has not made; move it "
                    "away, or choose another path"
                )
        return Target("start", self.folder, uuid.uuid4().hex)

    def _own_names(self) -> list[str]:
        """Return the objects below the result that its run has made."""
        return own_names(self.folder.read_json("zarr.json"), self.folder.names())

    def find_unfinished(self, header: Mapping[str, Any]) -> Folder | None:
        here = root_attributes(self.folder) or {}
        return self.folder if is_unfinished_of(here, header) else None

    def check_room(self, num_bytes: int) -> str | None:
        return None

    def prepare(self, chosen: Target) -> None:
        """Mark a store that is replaced as incomplete, then remove all else of it: whoever reads it sees so.

        It is this run's from then on: the journal of an unfinished one counts blocks as done that are being removed.
        """
        found = self.folder.read_versioned("zarr.json")
        if found is None:
            return
        self.folder.versions["zarr.json"] = found[1]
        own = self._own_names()
        record = (root_attributes(self.folder) or {}) | {"complete": False, "run_id": chosen.run_id}
        metadata = {"zarr_format": 3, "node_type": "group", "attributes": {"rasterpipe": record}}
        self.folder.replace_json("zarr.json", metadata)
        self.folder.remove_named([name for name in own if name != "zarr.json"])

    def discard(self, chosen: Target) -> None:
        if (root_attributes(self.folder) or {}).get("run_id") == chosen.run_id:
            self.folder.remove_named(self._own_names())

    def remove_torn(self, chosen: Target) -> None:
        """Objects are there whole or not at all."""

    def publish(self, chosen: Target) -> None:
        """It is where it belongs."""
