"""What the rounds measured, as a table, as JSON and as a chart, with the machine it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from math import log10
from pathlib import Path
from typing import Any

import pipeline
from benchmarks.rounds import Aim, Timed

PACKAGES = (
    "numpy",
    "numba",
    "dask",
    "zarr",
    "zarrs",
    "scipy",
    "dask-image",
    "scikit-image",
    "opencv-python-headless",
    "pyvips",
    "flox",
    "faiss-cpu",
    "pillow",
    "exactextract",
    "rasterstats",
    "pandas",
)
MIB = 2**20
LEFT, WIDTH, LINE = 430, 420, 18
LEAST, MOST = 0.25, 400
"""Ends of the chart: the peer's time over ours."""


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "rasterpipe": pipeline.__version__,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def as_json(rows: Sequence[Timed], **facts: Any) -> dict[str, Any]:
    """Return everything that was measured."""
    return {"machine": machine(), **facts, "rows": [_row_json(row) for row in rows]}


def _row_json(row: Timed) -> dict[str, Any]:
    peers = [name for name in row.seconds if name != "ours"]
    return {
        "name": row.name,
        "seconds": dict(row.seconds),
        "peer_over_ours": {name: row.ratio(name) for name in peers},
        "peak_bytes": dict(row.peak_bytes),
        "disagree": list(row.disagree),
        "aims": [
            {"peer": aim.peer, "aim": aim.text, "reached": aim.reached(row.ratio(aim.peer))}
            for aim in row.aims
            if aim.peer in row.seconds
        ],
    }


def as_table(rows: Iterable[Timed]) -> str:
    """Return a table in Markdown, a line for each peer of each row."""
    lines = [
        "| work | ours | against | takes | ratio | aim | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        work, ours = row.name, _seconds(row, "ours")
        for peer in (name for name in row.seconds if name != "ours"):
            aim = next((aim for aim in row.aims if aim.peer == peer), None)
            doubt = " (answers differ)" if peer in row.disagree else ""
            cells = [work, ours, peer + doubt, _seconds(row, peer), *_verdict(row, peer, aim)]
            lines.append("| " + " | ".join(cells) + " |")
            work = ours = ""
    return "\n".join(lines)


def _seconds(row: Timed, name: str) -> str:
    times = row.seconds[name]
    middle, low, high = (_short(value) for value in (statistics.median(times), min(times), max(times)))
    peak = f", {row.peak_bytes[name] / MIB:,.0f} MiB" if name in row.peak_bytes else ""
    return f"{middle} s ({low} to {high}){peak}" if len(times) > 1 else f"{middle} s{peak}"


def _short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.4f}" if seconds < 0.01 else f"{seconds:.3f}"


def _verdict(row: Timed, peer: str, aim: Aim | None) -> tuple[str, str, str]:
    ratio = row.ratio(peer)
    if aim is None:
        return f"peer / ours {ratio:.2f}", "", ""
    shown = f"ours / peer {1 / ratio:.2f}" if aim.of_ours else f"peer / ours {ratio:.1f}"
    return shown, aim.text, "reached" if aim.reached(ratio) else "missed"


def as_chart(rows: Sequence[Timed]) -> str:
    """Return an SVG: a bar for each peer, the peer's time over ours on a logarithmic scale, a tick for the aim."""
    bars = [(row, peer) for row in rows for peer in row.seconds if peer != "ours"]
    parts = [_axis(len(bars))]
    for number, (row, peer) in enumerate(bars):
        parts.append(_bar(number, row, peer))
    height = (len(bars) + 3) * LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {height}" '
        'font-family="sans-serif" font-size="11">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _place(ratio: float) -> float:
    share = log10(min(max(ratio, LEAST), MOST) / LEAST) / log10(MOST / LEAST)
    return LEFT + WIDTH * share


def _axis(num_bars: int) -> str:
    bottom = (num_bars + 1) * LINE
    parts = []
    for ratio in (0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        x, color = _place(ratio), "#333" if ratio == 1 else "#ddd"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{LINE / 2}" y2="{bottom}" stroke="{color}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{ratio:g}</text>')
    middle = LEFT + WIDTH / 2
    parts.append(f'<text x="{middle}" y="{bottom + 30}" text-anchor="middle">the peer\'s time over ours</text>')
    return "\n".join(parts)


def _bar(number: int, row: Timed, peer: str) -> str:
    ratio, top = row.ratio(peer), (number + 1) * LINE - LINE / 2
    aim = next((aim for aim in row.aims if aim.peer == peer), None)
    color = "#999" if aim is None else "#2a7" if aim.reached(ratio) else "#c63"
    left, right = sorted((_place(1), _place(ratio)))
    name = f"{row.name}: {peer}".replace("&", "&amp;").replace("<", "&lt;")
    parts = [
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{name}</text>',
        f'<rect x="{left:.1f}" y="{top + 2}" width="{right - left:.1f}" height="{LINE - 6}" fill="{color}"/>',
        f'<text x="{right + 4:.1f}" y="{top + 10}">{ratio:.3g}</text>',
    ]
    if aim is not None:
        x = _place(1 / aim.bound if aim.of_ours else aim.bound)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + LINE - 2}" stroke="#000" stroke-width="2"/>'
        )
    return "\n".join(parts)
