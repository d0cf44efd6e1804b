"""Comparisons in one run: everything in turn, several rounds, medians of ratios; absolute times drift."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Aim:
    """What a row is to reach against a peer: a bound of our time over the peer's, or of the peer's over ours."""

    peer: str
    bound: float
    of_ours: bool

    @property
    def text(self) -> str:
        return f"{'≤' if self.of_ours else '≥'} {self.bound:g}"

    def reached(self, peer_over_ours: float) -> bool:
        return 1 / peer_over_ours <= self.bound if self.of_ours else peer_over_ours >= self.bound


def at_most(peer: str, ratio: float) -> Aim:
    """Our time is at most so many times the peer's."""
    return Aim(peer, ratio, of_ours=True)


def at_least(peer: str, ratio: float) -> Aim:
    """The peer takes at least so many times our time."""
    return Aim(peer, ratio, of_ours=False)


@dataclass(frozen=True)
class Measured:
    """What a piece of work that runs in a process of its own says of itself."""

    seconds: float
    peak_bytes: int = 0
    answer: Any = None


@dataclass(frozen=True)
class Row:
    """A piece of work, done by us and by others: calls that return their answer, or a `Measured`."""

    name: str
    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    agree: Callable[[Any, Any], bool]
    """Whether a peer's answer is ours, as far as the peer can."""
    aims: tuple[Aim, ...] = ()
    compared: frozenset[str] | None = None
    """Peers whose answers are to agree; all, if None (a floor computes nothing)."""


@dataclass(frozen=True)
class Timed:
    """What was measured of a row: seconds of each round."""

    name: str
    seconds: Mapping[str, list[float]]
    """"ours" and the peers"""
    disagree: tuple[str, ...]
    aims: tuple[Aim, ...] = ()
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    """The largest of all rounds, of those who ran in a process of their own."""

    def ratio(self, peer: str) -> float:
        """Return how many times as long the peer takes, the median over rounds."""
        return statistics.median(p / o for p, o in zip(self.seconds[peer], self.seconds["ours"], strict=True))


def measure(row: Row, rounds: int, round_seconds: float = float("inf")) -> Timed:
    """Run a row: once to warm up and compare, then in rounds; fewer where a round takes more than `round_seconds`.

    Peers that are not installed are left out.
    """
    started = time.perf_counter()
    answer = _timed(row.ours).answer
    works, disagree = {"ours": row.ours}, []
    for name, peer in row.peers.items():
        try:
            theirs = _timed(peer).answer
        except ModuleNotFoundError:
            continue
        works[name] = peer
        if (row.compared is None or name in row.compared) and not row.agree(answer, theirs):
            disagree.append(name)
    answer = theirs = None
    rounds = max(1, min(rounds, round(rounds * round_seconds / (time.perf_counter() - started))))
    seconds: dict[str, list[float]] = {name: [] for name in works}
    peaks = dict.fromkeys(works, 0)
    for _ in range(rounds):
        for name, work in works.items():
            taken = _timed(work)
            seconds[name].append(taken.seconds)
            peaks[name] = max(peaks[name], taken.peak_bytes)
    measured = {name: peak for name, peak in peaks.items() if peak}
    return Timed(row.name, seconds, tuple(disagree), row.aims, measured)


def _timed(work: Callable[[], Any]) -> Measured:
    started = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - started
    return answer if isinstance(answer, Measured) else Measured(seconds, 0, answer)


def report(timed: Timed) -> str:
    """Return a row as text: medians, spread, ratios."""
    ours = timed.seconds["ours"]
    words = [f"{timed.name}: {statistics.median(ours):.3f} s ({min(ours):.3f} to {max(ours):.3f})"]
    for peer, seconds in timed.seconds.items():
        if peer != "ours":
            doubt = " [answers differ]" if peer in timed.disagree else ""
            words.append(f"{peer} {statistics.median(seconds):.3f} s, {timed.ratio(peer):.1f} x ours{doubt}")
    return "; ".join(words)
