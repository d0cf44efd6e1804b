"""How a run begins: by what lies at its output, and by what it was asked for. `TABLE` is all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.model.errors import OutputError
from pipeline.output.journal import Journal
from pipeline.output.place import Place, Target
from pipeline.output.provenance import Parts, difference, hash_parts, other_plan, running_code
from pipeline.storage.folder.base import Folder
from pipeline.storage.zarr.store import root_attributes

State = Literal["nothing", "finished", "other", "torn", "unfinished", "stuck"]
Action = Literal["start", "replace", "continue", "finished", "refuse"]

TABLE: dict[State, tuple[Action, Action, Action, Action]] = {
    # asked for:     nothing    --resume    --overwrite  both
    "nothing": ("start", "start", "start", "start"),
    "finished": ("refuse", "finished", "replace", "finished"),  # a complete result of this plan
    "other": ("refuse", "refuse", "replace", "replace"),  # a complete result of another plan
    "torn": ("refuse", "replace", "replace", "replace"),  # an incomplete one without a journal: it cannot be trusted
    "unfinished": ("refuse", "continue", "replace", "continue"),  # what a run left that stopped
    "stuck": ("refuse", "refuse", "replace", "replace"),  # the same, of another plan, version or input
}


@dataclass(frozen=True)
class Found:
    """What lies at an output."""

    state: State
    here: Mapping[str, Any] | None
    """The record of the result that is there."""
    unfinished: Folder | None = None
    """The store of a run that stopped."""
    why: str = ""
    """Why that cannot be continued."""


def choose(place: Place, parts: Parts, journal: Journal | None, *, resume: bool, overwrite: bool) -> Target:
    """Decide how a run begins; nothing is written or deleted here.

    Raises
    ------
    OutputError
        Where an output exists and neither flag says what to do with it, or `--resume` finds another plan's work.
    """
    found = look(place, parts, journal)
    action = TABLE[found.state][resume + 2 * overwrite]
    if action == "refuse":
        raise OutputError(_refusal(place, found, parts, resume))
    if action == "finished":
        return Target("finished", place.folder, str((found.here or {}).get("run_id")))
    if action == "continue":
        assert journal is not None
        assert journal.header is not None
        assert found.unfinished is not None
        return Target("continue", found.unfinished, journal.header["run_id"], journal.header["replaces"])
    return place.begin(found.here, overwrite=overwrite)


def look(place: Place, parts: Parts, journal: Journal | None) -> Found:
    """Return what lies at an output; without its journal, a run that stopped is not looked for."""
    here = root_attributes(place.folder)
    state = state_of(here, parts)
    if state == "finished" or journal is None or journal.header is None:
        return Found(state, here)
    unfinished = place.find_unfinished(journal.header)
    if unfinished is None:
        return Found(state, here)
    why = _why_not_continued(str(place), journal, parts)
    return Found("stuck" if why else "unfinished", here, unfinished, why)


def state_of(here: Mapping[str, Any] | None, parts: Parts) -> State:
    """Return what a result is by its record."""
    if here is None:
        return "nothing"
    if here.get("complete") is not True:
        return "torn"
    return "finished" if here.get("plan_hash") == hash_parts(parts) else "other"


def check_file(path: str, here: Mapping[str, Any] | None, parts: Parts, *, resume: bool, overwrite: bool) -> None:
    """Refuse to replace a file that a run wrote, by its record, where nobody asked for that."""
    state = state_of(here, parts)
    if TABLE[state][resume + 2 * overwrite] == "refuse":
        words = "--overwrite replaces it once the new result is complete"
        raise OutputError(_refusal_of_result(path, state, here, parts, resume, words))


def _refusal(place: Place, found: Found, parts: Parts, resume: bool) -> str:
    if found.unfinished is None:
        return _refusal_of_result(str(place), found.state, found.here, parts, resume, place.replacing)
    if resume:
        return found.why
    return f"{place}: an unfinished run is there; --resume continues it, {place.overwriting} starts it anew"


def _refusal_of_result(
    path: str, state: State, here: Mapping[str, Any] | None, parts: Parts, resume: bool, replacing: str
) -> str:
    if state == "torn":
        return f"{path}: exists, unfinished; --resume continues it, --overwrite replaces it"
    if resume:
        return other_plan(path, (here or {}).get("parts", {}), parts, "the finished output")
    return f"{path}: exists; {replacing}"


def _why_not_continued(output: str, journal: Journal, parts: Parts) -> str:
    """Return in words why an unfinished run cannot be continued; empty: it can."""
    header = journal.header or {}
    if journal.spoiled:
        return f"{output}: the unfinished run cannot be continued: {journal.spoiled}; --overwrite starts anew"
    if header["plan_hash"] != hash_parts(parts):
        return other_plan(output, header["parts"], parts, "the unfinished run")
    if header["code"] != (now := running_code()):
        return (
            f"{output}: the unfinished run was begun by another version: {difference(header['code'], now)}; continue "
            "it with that one, or start anew with --overwrite"
        )
    return ""
