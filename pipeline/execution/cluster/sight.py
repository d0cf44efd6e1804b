"""What proves that a worker sees what the client sees: marks of the files of inputs, tokens where a run writes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.execution.cluster import look
from pipeline.model.errors import RasterpipeError
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.storage.reader import Evidence

Marks = Mapping[str, Any]
"""File -> what tells it from others, None where there is none, text where it cannot be read."""
Expected = tuple[Evidence, Marks]
"""A raster, with the marks of the process that has opened it."""
TOKEN = "client"
SAME_FOLDER = "put it where all see it"
SAME_STORE = (
    "let all ask the same store, by `storage: {endpoint: ...}` in the pipeline file or the variables that the workers "
    "are started with (AWS_ENDPOINT_URL, say)"
)


@dataclass(frozen=True)
class Seen:
    """What a process sees of object stores."""

    marks: Sequence[Marks]
    token: bytes = b""
    """What it read of the client's token."""
    own: str = ""
    """The name of the token that it left itself."""
    trouble: str = ""
    """Why it could not."""


def local_files(evidence: Evidence) -> dict[str, bool]:
    """Return the files of a local raster as `look.marks` takes them: path -> whether its contents count."""
    names = dict.fromkeys(evidence.metadata, True) | dict.fromkeys(evidence.data, False)
    return {f"{evidence.folder.absolute}/{name}": is_read for name, is_read in names.items()}


def marks_of(evidence: Evidence) -> Marks:
    """Return what this process sees of a raster."""
    if isinstance(evidence.folder, ObjectFolder):
        return {name: _mark(evidence, evidence.folder, name) for name in (*evidence.metadata, *evidence.data)}
    return look.marks(local_files(evidence))


def _mark(evidence: Evidence, folder: ObjectFolder, name: str) -> list[Any] | str | None:
    try:
        digest = [hashlib.sha256(folder.read(name)).hexdigest()] if name in evidence.metadata else []
        return [*digest, *folder.stamp(name)]
    except FileNotFoundError:
        return None
    except (RasterpipeError, OSError) as error:
        return str(error)


def difference(evidence: Evidence, here: Marks, there: Marks) -> str | None:
    """Return in words what another process sees otherwise than this one, None where both see the same."""
    differing = [name for name, mark in here.items() if there.get(name) != mark]
    if not differing:
        return None
    is_local = isinstance(evidence.folder, LocalFolder)
    remedy = SAME_FOLDER if is_local else SAME_STORE
    trouble = next((mark for name in differing if isinstance(mark := there.get(name), str)), None)
    if trouble is not None:
        return f"cannot read {evidence.path}: {trouble}; {remedy}" if is_local else f"cannot reach {trouble}; {remedy}"
    if not any(there.values()):
        return f"finds nothing at {evidence.path}; {remedy}"
    name = differing[0].removeprefix(f"{evidence.path}/")
    is_whole = not name or name == evidence.path.rpartition("/")[2] or name == evidence.path  # a file, not one of many
    what = "" if is_whole else f" ({name} is another one)"
    return f"sees another raster at {evidence.path}{what}; {remedy}"


def differences_here(expected: Iterable[Expected]) -> Iterator[str]:
    """Yield what this process sees otherwise than another one, by the marks that came from there."""
    for evidence, marks in expected:
        if text := difference(evidence, marks, marks_of(evidence)):
            yield text


def look_at(evidence: Sequence[Evidence], token: Folder | None) -> Seen:
    """Return what this process sees of rasters in object stores; leave a token beside the client's, if that is seen."""
    marks = [marks_of(each) for each in evidence]
    if token is None:
        return Seen(marks)
    try:
        read, own = token.read(TOKEN), uuid.uuid4().hex
        token.replace(own, own.encode())
    except FileNotFoundError:
        return Seen(marks)
    except (RasterpipeError, OSError) as error:
        return Seen(marks, trouble=str(error))
    return Seen(marks, read, own)


@contextmanager
def token_in(work: Folder | None) -> Iterator[Folder | None]:
    """Leave a token in a folder of its own below a run's work folder, and at the end nothing."""
    if work is None:
        yield None
        return
    folder = work.child(f"probe-{uuid.uuid4().hex}")
    try:
        folder.replace(TOKEN, folder.path.encode())
        yield folder
    finally:
        folder.remove_tree()


def token_problem(work: Folder, token: Folder, seen: Seen) -> str | None:
    """Return in words why a worker does not write where the client does, None where it does."""
    if seen.trouble:
        return f"cannot write to {work}: {seen.trouble}; {SAME_STORE}"
    try:
        if seen.token == token.path.encode() and token.read(seen.own) == seen.own.encode():
            return None
    except FileNotFoundError:
        pass
    return f"finds nothing of this run at {work}, or sees another store there; {SAME_STORE}"
