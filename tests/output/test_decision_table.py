"""How a run begins, for all that can lie at an output and all that can be asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.model.errors import OutputError
from pipeline.output.decision import TABLE, choose
from pipeline.output.journal import Journal
from pipeline.output.local import LocalPlace
from pipeline.output.provenance import hash_parts, running_code

PARTS: dict[str, Any] = {"steps": [{"name": "a", "op": "window", "size": 3}]}
OTHER: dict[str, Any] = {"steps": [{"name": "a", "op": "window", "size": 5}]}
ASKED = {"nothing": {}, "resume": {"resume": True}, "overwrite": {"overwrite": True}}
ASKED["both"] = ASKED["resume"] | ASKED["overwrite"]

BEGINS, FINISHED, CONTINUES = "start", "finished", "continue"
EXPECTED = {
    #              asked for nothing                              --resume                --overwrite  both
    "nothing": (BEGINS, BEGINS, BEGINS, BEGINS),
    "finished": ("exists; --overwrite replaces it", FINISHED, BEGINS, FINISHED),
    "other": ("exists; --overwrite replaces it", "is of another plan", BEGINS, BEGINS),
    "torn": ("exists, unfinished; --resume continues it", BEGINS, BEGINS, BEGINS),
    "unfinished": ("an unfinished run is there; --resume continues", CONTINUES, BEGINS, CONTINUES),
    "stuck": ("an unfinished run is there; --resume continues", "is of another plan", BEGINS, BEGINS),
}


def record(folder: Path, **facts: Any) -> None:
    folder.mkdir(parents=True)
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": {"rasterpipe": facts}}
    (folder / "zarr.json").write_text(json.dumps(metadata))


def lay(state: str, output: Path) -> Journal | None:
    """Make what lies at an output; return the journal of a run that stopped, as far as a decision looks at it."""
    if state in ("finished", "other"):
        parts = PARTS if state == "finished" else OTHER
        record(output, complete=True, run_id="1", plan_hash=hash_parts(parts), parts=parts)
    elif state == "torn":
        record(output, complete=False, run_id="1", plan_hash=hash_parts(PARTS), parts=PARTS)
    elif state != "nothing":
        parts = PARTS if state == "unfinished" else OTHER
        record(Path(f"{output}.work") / "2" / "store", complete=False, run_id="2")
        header = {
            "run_id": "2",
            "plan_hash": hash_parts(parts),
            "parts": parts,
            "code": running_code(),
            "replaces": None,
        }
        return cast("Journal", SimpleNamespace(header=header, spoiled=""))
    return None


def test_the_table_and_this_one_are_of_the_same_states() -> None:
    assert TABLE.keys() == EXPECTED.keys()


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("state", EXPECTED)
def test_how_a_run_begins(state: str, asked: str, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    journal = lay(state, output)
    flags = {"resume": False, "overwrite": False} | ASKED[asked]
    expected = EXPECTED[state][list(ASKED).index(asked)]
    if expected not in (BEGINS, FINISHED, CONTINUES):
        with pytest.raises(OutputError, match=expected):
            choose(LocalPlace(str(output)), PARTS, journal, **flags)
        return
    target = choose(LocalPlace(str(output)), PARTS, journal, **flags)
    assert target.action == expected
    if expected == BEGINS:  # in a folder of its own; what lies there stays until the new result is complete
        assert target.run_id not in ("1", "2")
        assert target.replaces == ("1" if state in ("finished", "other", "torn") else None)
    else:
        assert target.run_id == ("2" if expected == CONTINUES else "1")
