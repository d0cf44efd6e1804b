"""Which paths a run may write: one function decides for all of them, before anything is computed.

What belongs to the user is never overwritten: inputs, other results, and files that no run wrote.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.model.errors import OutputError
from pipeline.output.address import STORE_FILES, is_one_raster
from pipeline.output.exports.base import Kind, Written
from pipeline.output.exports.table import is_table
from pipeline.output.job import Job
from pipeline.output.local import is_empty_folder
from pipeline.output.provenance import provenance_of
from pipeline.output.work_folder import check_work_folder, work_folder
from pipeline.storage.folder.address import is_url
from pipeline.storage.zarr.store import root_attributes

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How an address begins, also one that was taken for a path."""


def check_writes(job: Job, inputs: Sequence[str], exports: Iterable[Written], *, overwrite: bool, resume: bool) -> None:
    """Refuse paths that hold, or lie in, what is not the run's to replace: inputs, other results, other files.

    Raises
    ------
    OutputError
        With the first path that may not be written, and why.
    """
    # what --resume finds may be of the run that it continues only where there is one
    may_replace = overwrite or (resume and _is_begun(job))
    written = [*exports, *_folders(job)]
    check_files([*written, *_hidden_folders(job)], [*inputs, *job.matrix_files], may_replace=may_replace)
    for pair in itertools.combinations(written, 2):
        _check_apart(*pair)


def check_files(written: Iterable[Written], inputs: Iterable[str], *, may_replace: bool) -> None:
    """Refuse paths, each by itself, as `check_writes`; `may_replace` says whether files of their kind may be there."""
    sources = {path: Path(os.path.realpath(path)) for path in inputs if not is_url(path)}
    for each in written:
        try:
            _check_place(each, sources)
            _check_existing(each, may_replace)
        except (OSError, ValueError) as error:  # a name too long or with a zero byte, no permission to look
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{each.path}: {reason}; choose another output path") from error


def _is_begun(job: Job) -> bool:
    return job.place.is_begun() or job.place.folder.exists("zarr.json") or Path(job.result).exists()


def _folders(job: Job) -> Iterator[Written]:
    if not is_url(job.result):
        if not is_one_raster(job.result):
            yield Written(job.result, "the output", "store")
        yield Written(str(work_folder(job.result)), "the folder that the run works in", "work")
    if scratch := job.pipeline.run.scratch:
        yield Written(scratch, "run.scratch", "scratch")


def _hidden_folders(job: Job) -> Iterator[Written]:
    """Yield the store of a run whose output is one raster: it lies in the work folder."""
    if is_one_raster(job.result):
        yield Written(job.output, "the store", "store")
        yield Written(str(work_folder(job.output)), "the folder that the run works in", "work")


def _check_place(each: Written, inputs: Mapping[str, Path]) -> None:
    """Refuse a path in, over or around an input, in another store, at a link, or where nothing can be written."""
    if URL.match(each.path):
        raise OutputError(f"{each.path}: {each.what} is written to a disk, not to a URL; choose a path")
    path = each.place
    parents = set(path.parents)
    for source, other in inputs.items():
        _check_input(each, source, other, parents)
    if Path(each.path).is_symlink() and each.kind != "scratch":  # in which a run makes a folder of its own
        remedy = "remove the link" if each.kind == "work" else f"give {path} itself as the output"
        raise OutputError(f"{each.path}: is a symbolic link to {os.readlink(each.path)}; {remedy}")
    if path == path.parent:
        raise OutputError(f"{each.path}: is a root folder; choose a path for {each.what} in it")
    around = [path, *path.parents] if each.kind == "scratch" else list(path.parents)
    parent = next(folder for folder in around if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"{each.path}: {parent} is a file, not a folder")
    if not _may_write_in(parent):
        raise OutputError(f"{each.path}: the folder {parent} is not writable")
    if any((folder / name).exists() for folder in around for name in STORE_FILES):
        raise OutputError(f"{each.path}: lies inside another Zarr store; choose a path outside of it")


def _check_input(each: Written, source: str, other: Path, parents: Collection[Path]) -> None:
    path = each.place
    if path == other:
        raise OutputError(f"{each.path}: is also an input; choose another output path")
    if other in parents:
        raise OutputError(f"{each.path}: lies inside the input {source}; choose an output path beside it")
    if not other.is_relative_to(path):
        return
    if each.kind == "work":
        raise OutputError(f"{each.path}: the run builds in this folder, which holds the input {source}; move the input")
    if each.kind != "scratch":
        raise OutputError(f"{each.path}: lies around the input {source}; choose an output path beside it")


def _check_existing(each: Written, may_replace: bool) -> None:
    """Refuse to replace what is not of the kind that is written, and files without `--overwrite`."""
    path = Path(each.path)
    if each.kind == "work":
        check_work_folder(path)
    if each.kind != "scratch" and path.exists():
        _check_rights(each, may_replace)
    if each.kind in ("work", "scratch") or not path.exists():
        return
    if path.is_dir() and each.kind not in ("store", "OME-Zarr"):
        raise OutputError(f"{path}: is a folder, and {each.what} is a file; choose another name")
    words, is_of_kind = KINDS[each.kind]
    if not is_of_kind(path):
        raise OutputError(f"{path}: exists and is not {words}, so it is never replaced; move it away")
    if each.kind not in ("store", "GeoTIFF", "OME-Zarr") and not may_replace:  # for those it depends on their plan
        raise OutputError(f"{path}: exists; --overwrite replaces it")


def _check_rights(each: Written, may_replace: bool) -> None:
    """Refuse now what only the end of the run would find out: that what is there cannot be moved away, or removed."""
    path = Path(each.path)
    around, status = path.parent.stat(), path.stat()
    keeps = bool(around.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, around.st_uid, status.st_uid)
    folders = [path, *(entry for entry in path.iterdir() if entry.is_dir())] if path.is_dir() else []
    locked = next((folder for folder in folders if not _may_write_in(folder)), None)
    if (may_replace or each.kind == "work") and (keeps or locked):
        of = "" if status.st_uid == os.geteuid() else f", which belongs to user {status.st_uid}"
        raise OutputError(
            f"{locked or path}: you may not move or remove what is there{of}; choose another output path, or let its "
            "owner remove it"
        )


def _may_write_in(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _is_store(path: Path) -> bool:
    return path.is_dir() and (root_attributes(str(path)) is not None or is_empty_folder(path))


def _is_geotiff(path: Path) -> bool:
    return path.is_file() and provenance_of(path) is not None


def _is_picture(path: Path) -> bool:
    return path.is_file() and _beginning(path).startswith(b"\x89PNG\r\n\x1a\n")


def _is_page(path: Path) -> bool:
    return path.is_file() and _beginning(path).lstrip().lower().startswith(b"<!doctype html")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


KINDS: dict[Kind, tuple[str, Callable[[Path], bool]]] = {
    "store": ("an output of rasterpipe", _is_store),
    "GeoTIFF": ("an output of rasterpipe", _is_geotiff),
    "OME-Zarr": ("an output of rasterpipe", _is_store),
    "table": ("a table of rasterpipe", is_table),
    "picture": ("a PNG", _is_picture),
    "report": ("an HTML page", _is_page),
}


def _check_apart(first: Written, second: Written) -> None:
    """Refuse two paths of which one lies in the other; a run's own folder in `run.scratch` is in nobody's way."""
    if first.place == second.place:
        raise OutputError(
            f"{second.path}: {first.what} and {second.what} would both be written there; choose another path for one"
        )
    for inner, outer in ((first, second), (second, first)):
        if outer.place in inner.place.parents and outer.kind != "scratch":
            raise OutputError(
                f"{inner.path}: {inner.what} would lie inside {outer.what}, {outer.path}; choose a path beside it"
            )
