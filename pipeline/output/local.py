"""An output on a disk: put in its place by a rename once it is complete; an older one is kept until then."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.model.errors import OutputError
from pipeline.output.address import building_paths
from pipeline.output.journal import Journal
from pipeline.output.place import Place, Target, is_unfinished_of
from pipeline.output.work_folder import work_folder
from pipeline.planning.plan import format_bytes
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.disk import sync_path
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.zarr.store import root_attributes


class LocalPlace(Place):
    """On a disk: a store is put in its place by a rename, once it is complete; an older one is kept until then."""

    overwriting = "--overwrite"
    replacing = "--overwrite replaces it once the new result is complete"

    def __init__(self, output: str) -> None:
        self.output, self.folder = output, LocalFolder(output)

    @property
    def work(self) -> Folder:
        return LocalFolder(work_folder(self.output))

    def check(self, inputs: Sequence[str]) -> None:
        """The paths on a disk are checked together (see `writes`)."""

    def is_begun(self) -> bool:
        return work_folder(self.output).exists()

    def open_journal(self) -> Journal:
        return Journal(self.output)

    def finish_swap(self, journal: Journal) -> None:
        finish_swap(self.output, journal.header)

    def begin(self, here: Mapping[str, Any] | None, *, overwrite: bool) -> Target:
        run_id = uuid.uuid4().hex
        replaces = None if here is None else str(here.get("run_id"))
        return Target("start", LocalFolder(building_paths(self.output, run_id)[0]), run_id, replaces)

    def find_unfinished(self, header: Mapping[str, Any]) -> Folder | None:
        folder = LocalFolder(building_paths(self.output, str(header["run_id"]))[0])
        return folder if is_unfinished_of(root_attributes(folder) or {}, header) else None

    def check_room(self, num_bytes: int) -> str | None:
        return check_free_space(self.output, num_bytes)

    def prepare(self, chosen: Target) -> None:
        chosen.store.make()

    def discard(self, chosen: Target) -> None:
        shutil.rmtree(Path(chosen.store.path).parent, ignore_errors=True)

    def remove_torn(self, chosen: Target) -> None:
        remove_torn(Path(chosen.store.path))

    def publish(self, chosen: Target) -> None:
        swap_in(self.output, chosen.run_id, chosen.replaces)


TORN = re.compile(r".+\.[0-9a-f]{32}\.partial")
"""Files that are written beside and renamed, by zarr and by us, as long as they are not whole."""


def is_empty_folder(path: Path) -> bool:
    """Return whether a folder holds nothing, or only what a process that was killed there had begun to write."""
    return path.is_dir() and all(TORN.fullmatch(entry.name) for entry in path.iterdir())


def remove_torn(folder: Path) -> None:
    """Remove the files in a folder and below that a killed process had begun to write."""
    for path in folder.rglob("*.partial"):
        if TORN.fullmatch(path.name):
            path.unlink()


def check_free_space(output: str, num_bytes: int) -> str | None:
    """Refuse a disk that cannot hold half of the uncompressed result; return a warning where all is not sure to fit."""
    folder = next(p for p in Path(output).absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if free < num_bytes / 2:
        raise OutputError(
            f"{output}: the result has {format_bytes(num_bytes)} before compression, and only {format_bytes(free)} "
            f"are free in {folder}; make room, keep fewer outputs, or choose another disk"
        )
    if free < num_bytes:
        return f"the result has {format_bytes(num_bytes)} before compression, and {format_bytes(free)} are free"
    return None


def finish_swap(output: str, header: Mapping[str, Any] | None) -> None:
    """Finish what a crash at the end of a run left; the journal, whose header is given, must be locked."""
    if not header:
        return
    path, (new, old) = Path(output), building_paths(output, header["run_id"])
    finished = (root_attributes(str(new)) or {}).get("complete") is True
    if not path.exists() and old.exists():  # between the renames
        os.rename(new if finished else old, path)
    elif finished:  # before them
        swap_in(output, header["run_id"], header["replaces"])
    if path.exists() and old.exists():
        shutil.rmtree(old)


def swap_in(output: str, run_id: str, replaces: str | None) -> None:
    """Put a finished store in its place; the one that it replaces is kept until then."""
    path, (new, old) = Path(output), building_paths(output, run_id)
    if path.exists() and not is_empty_folder(path):  # somebody may have removed it meanwhile
        here = root_attributes(str(path))
        if here is None or replaces is None or str(here.get("run_id")) != replaces:
            raise OutputError(
                f"{output}: is not what lay there when the run began; the result is complete, in {new}: move away what "
                "is in its place, and --resume puts it there"
            )
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    sync_path(path.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)
