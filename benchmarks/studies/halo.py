"""The two ways to a halo, from file to file: reading it with each block, and exchanging it; and which one `auto` takes.

    python -m benchmarks.studies.halo --folder FOLDER [--size 3000] [--rounds 3] [--picture docs/halo.svg]

Means of growing windows of four bands, within much memory and little, where blocks are small; each run in a process of
its own, in turn.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import whole_runs
from benchmarks.child import in_own_process
from benchmarks.rows.files import Scenes, fresh
from pipeline.verbs.load import load

WINDOWS = (3, 31, 101, 201, 401, 601)
WAYS = {"read": "#c33", "exchange": "#33c", "auto": "#383"}
BANDS = [1, 2, 3, 4]
MEMORIES = ("2 GiB", "900 MiB")


def config_of(scenes: Scenes, window: int, way: str, memory: str) -> dict[str, Any]:
    step = {"name": "smooth", "op": "window", "input": "image", "bands": BANDS, "size": window, "statistics": ["mean"]}
    return scenes.config(step, halo=way, memory=memory)


def measure(scenes: Scenes, window: int, memory: str, rounds: int) -> dict[str, float]:
    """Return the seconds of each way, medians of rounds in turn."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, seconds in found.items():
            config = config_of(scenes, window, way, memory)
            seconds.append(fresh(config["output"]["path"], in_own_process, whole_runs.run, config)().seconds)
    return {way: statistics.median(seconds) for way, seconds in found.items()}


def chosen(scenes: Scenes, window: int, memory: str) -> str:
    (planned,) = load(config_of(scenes, window, "auto", memory)).plan.passes
    return planned.halo


Found = Mapping[str, Sequence[tuple[int, Mapping[str, float], str]]]
"""By memory: window, seconds by way, and what `auto` chose."""


def picture(found: Found) -> str:
    """Return an SVG, a panel for each memory: the window against seconds."""
    width, height, left = 300, 200, 40
    most = max(max(seconds.values()) for rows in found.values() for _, seconds, _ in rows)
    parts = []
    for memory, rows in found.items():
        parts.append(f'<rect x="{left}" y="30" width="{width}" height="{height}" fill="none" stroke="#888"/>')
        parts.append(f'<text x="{left}" y="22">{memory}, {most:.1f} s high</text>')
        for number, (way, color) in enumerate(WAYS.items()):
            points = [
                (left + width * window / max(WINDOWS), 30 + height * (1 - seconds[way] / most))
                for window, seconds, _ in rows
            ]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            dashes = ' stroke-dasharray="4 3"' if way == "auto" else ""
            parts.append(f'<polyline points="{line}" fill="none" stroke="{color}"{dashes}/>')
            parts.append(f'<text x="{left + 8 + 70 * number}" y="{height + 24}" fill="{color}">{way}</text>')
        parts.append(f'<text x="{left + width}" y="{height + 44}" text-anchor="end">window {max(WINDOWS)}</text>')
        left += width + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left} {height + 60}" '
        'font-family="sans-serif" font-size="11">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    scenes = Scenes(arguments.folder, arguments.size)
    found: dict[str, list[tuple[int, dict[str, float], str]]] = {}
    for memory in MEMORIES:
        for window in WINDOWS:
            seconds, choice = measure(scenes, window, memory, arguments.rounds), chosen(scenes, window, memory)
            found.setdefault(memory, []).append((window, seconds, choice))
            words = ", ".join(f"{way} {taken:.2f} s" for way, taken in seconds.items())
            print(f"{memory}, window {window}: {words}; auto takes {choice}", flush=True)
    if arguments.picture:
        arguments.picture.write_text(picture(found))


if __name__ == "__main__":
    main()
