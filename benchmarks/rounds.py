"""Comparisons in one run: everything in turn, several rounds, medians of ratios; absolute times drift."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A piece of work, done by us and by others."""

    name: str
    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    agree: Callable[[Any, Any], bool]
    """Whether a peer's answer is ours, as far as the peer can."""


@dataclass(frozen=True)
class Timed:
    """What was measured of a row: seconds of each round."""

    name: str
    seconds: Mapping[str, list[float]]
    """"ours" and the peers"""
    disagree: tuple[str, ...]

    def ratio(self, peer: str) -> float:
        """Return how many times as long the peer takes, the median over rounds."""
        return statistics.median(p / o for p, o in zip(self.seconds[peer], self.seconds["ours"], strict=True))


def measure(row: Row, rounds: int) -> Timed:
    """Run a row: once to warm up and compare, then in rounds."""
    answer = row.ours()
    disagree = tuple(name for name, peer in row.peers.items() if not row.agree(answer, peer()))
    del answer
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in row.peers}}
    for _ in range(rounds):
        for name, work in {"ours": row.ours, **row.peers}.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return Timed(row.name, seconds, disagree)


def report(timed: Timed) -> str:
    """Return a row as text: medians, spread, ratios."""
    ours = timed.seconds["ours"]
    words = [f"{timed.name}: {statistics.median(ours):.3f} s ({min(ours):.3f} to {max(ours):.3f})"]
    for peer, seconds in timed.seconds.items():
        if peer != "ours":
            doubt = " [answers differ]" if peer in timed.disagree else ""
            words.append(f"{peer} {statistics.median(seconds):.3f} s, {timed.ratio(peer):.1f} x ours{doubt}")
    return "; ".join(words)
