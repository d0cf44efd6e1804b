"""Processes killed at any moment: a resumed run ends with the bytes of an undisturbed one.

What is complete is never half of something, an old result stays until the new one is complete, nothing is left over.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from pipeline.output.work_folder import work_folder
from pipeline.storage.zarr.store import ZarrWriter, root_attributes
from pipeline.verbs.load import Cut
from tests import harness
from tests.process import Run
from tests.two_pipelines import GRIDS, Config, Pair, two_pipelines

KILLED = -signal.SIGKILL
BOTH = {"resume": True, "overwrite": True, "cut": Cut(GRIDS)}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_pipelines() as pair:
        yield pair


def check_whole(pair: Pair, new: int, *, replaces: bool) -> None:
    """Check that what is called complete is a whole result, and that an old one is there as long as it is needed."""
    work = work_folder(str(pair.output))
    beside, old = list(work.glob("*/store")), list(work.glob("*/replaced"))
    places = [path for path in (pair.output, *beside, *old) if (root_attributes(path) or {}).get("complete") is True]
    for path in places:
        assert harness.stored_files(path) in ([pair.expected[new]] if path in beside else pair.expected)
    if replaces:
        assert pair.output in places or len(places) == 2


# --- killed at random times ------------------------------------------------------------------------------------


def kill_at_random(pair: Pair, num_kills: int, seed: int) -> int:
    """Kill runs that replace the results of two pipelines by each other in turn; return how many were ended."""
    random, kills, turn, seconds = np.random.default_rng(seed), 0, 0, 1.0
    pair.cleared()
    while kills < num_kills:
        run = Run(pair.plans[turn % 2], **BOTH)
        run.kill(after=random.uniform(0, seconds))
        ended = run.wait()
        if ended.code == KILLED:
            kills += 1
            seconds *= 1.05  # on a busy machine, until it gets on
            check_whole(pair, turn % 2, replaces=turn > 0)
        else:
            assert (ended.code, ended.message) == (0, "")
            pair.check_ended(turn % 2)
            turn, seconds = turn + 1, 1.0
    assert Run(pair.plans[turn % 2], **BOTH).wait().code == 0
    pair.check_ended(turn % 2)
    return turn + 1


@pytest.mark.parametrize("num_kills", [5, pytest.param(20, marks=pytest.mark.thorough)])
def test_killed_some_times(num_kills: int, pair: Pair) -> None:
    kill_at_random(pair, num_kills, seed=1)


@pytest.mark.long
def test_killed_two_hundred_times(pair: Pair) -> None:
    print(f"200 kills, {kill_at_random(pair, num_kills=200, seed=2)} runs")


# --- killed before a change of a file --------------------------------------------------------------------------

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink")
SOME = 5
NUMBERS = pytest.mark.parametrize("number", [SOME, pytest.param(None, marks=pytest.mark.long, id="all")])
"""At how many changes, evenly spread, the first and the last among them: a few, or all."""


def kill_before_change(folder: str, number: int, counter: str) -> None:
    """Let this process kill itself before its n-th change in a folder: of a name, or opening a file for writing."""
    count, file = itertools.count(1), os.open(counter, os.O_RDWR | os.O_CREAT)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if _changed(event, args).startswith(folder):
            n = next(count)
            os.pwrite(file, struct.pack("q", n), 0)
            if n == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _changed(event: str, args: tuple[Any, ...]) -> str:
    """Return the path that an audited event changes; empty for one that changes none."""
    is_change = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if event == "open" else event in CHANGES
    if not is_change or not isinstance(args[0], str | os.PathLike):
        return ""
    name = os.fspath(args[0])
    if event in ("os.remove", "os.rmdir") and args[1] != -1:  # named within a folder that is open
        return f"{os.readlink(f'/proc/self/fd/{args[1]}')}/{name}"
    return name


class Scene:
    """A run over what `before` left, to be killed before its n-th change."""

    def __init__(self, pair: Pair, before: Callable[[], None], plan: Config, **flags: bool) -> None:
        self.pair, self.before, self.plan, self.flags = pair, before, plan, flags
        self.counter = pair.folder / "counter"

    def run(self, number: int) -> int:
        """Run up to a change; return the exit code."""
        self.pair.cleared()
        self.before()
        arm = partial(kill_before_change, str(self.pair.output.parent), number, str(self.counter))
        return Run(self.plan, arm, **self.flags, cut=Cut(GRIDS)).wait().code

    def kill(self, number: int | None) -> Iterator[int]:
        """Kill the run before one change after the other, or before some, and yield which."""
        assert self.run(0) == 0
        total = int(struct.unpack("q", self.counter.read_bytes())[0])
        some = np.linspace(1, total, number or total).round().astype(int).tolist()
        for point in some:
            assert self.run(point) == KILLED, point
            yield point
        print(f"{len(some)} of {total} changes", end=" ")


def ended(plan: Config, **flags: bool) -> None:
    """Run a pipeline to its end."""
    found = Run(plan, cut=Cut(GRIDS), **flags).wait()
    assert (found.code, found.message) == (0, "")


def begun(plan: Config) -> None:
    """Leave an unfinished run, in its second pass."""
    assert Run(plan, partial(stop_after, 100), cut=Cut(GRIDS)).wait().code == 6


def stop_after(count: int) -> None:
    """Let the disk of this process be full once it has written some rasters of blocks."""
    write, calls = ZarrWriter.write, itertools.count(1)

    def limited(*args: Any) -> Any:
        if next(calls) > count:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args)

    ZarrWriter.write = limited  # type: ignore[method-assign]


@NUMBERS
def test_killed_before_a_change_of_a_first_run(number: int | None, pair: Pair) -> None:
    for _ in Scene(pair, lambda: None, pair.plans[0]).kill(number):
        check_whole(pair, 0, replaces=False)
        ended(pair.plans[0], resume=True)
        pair.check_ended(0)


@NUMBERS
def test_killed_before_a_change_of_a_resumed_run(number: int | None, pair: Pair) -> None:
    for _ in Scene(pair, partial(begun, pair.plans[0]), pair.plans[0], resume=True).kill(number):
        check_whole(pair, 0, replaces=False)
        ended(pair.plans[0], resume=True)
        pair.check_ended(0)


@pytest.mark.thorough
@NUMBERS
def test_killed_before_a_change_of_an_overwriting_run(number: int | None, pair: Pair) -> None:
    for _ in Scene(pair, partial(ended, pair.plans[0]), pair.plans[1], overwrite=True).kill(number):
        check_whole(pair, 1, replaces=True)
        ended(pair.plans[1], resume=True, overwrite=True)
        pair.check_ended(1)


@NUMBERS
def test_killed_before_a_change_of_a_run_that_gives_up_another(number: int | None, pair: Pair) -> None:
    """The other one, resumed, is refused or ends as if undisturbed."""
    for point in Scene(pair, partial(begun, pair.plans[0]), pair.plans[1], overwrite=True).kill(number):
        check_whole(pair, 1, replaces=False)
        found = Run(pair.plans[0], resume=True, cut=Cut(GRIDS)).wait()
        if found.code:
            assert found.code == 5, (point, found)
            assert "of another plan" in found.message
        else:
            pair.check_ended(0)
        ended(pair.plans[1], resume=True, overwrite=True)
        pair.check_ended(1)
