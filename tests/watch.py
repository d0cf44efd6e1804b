"""The memory of a process and its children, watched from outside: sampled every 50 ms, killed beyond a limit."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS = 0.05


@dataclass(frozen=True)
class Watched:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    peak_bytes: int
    """The largest PSS of all its processes together that was seen."""
    samples: int
    exceeded: bool
    """It was killed for that."""


def run_below(limit_bytes: int, command: list[str], folder: Path) -> Watched:
    """Run a command, and kill it if its processes together hold more than the limit."""
    with open(folder / "stdout.txt", "w+") as stdout, open(folder / "stderr.txt", "w+") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True)
        peak, samples, exceeded = 0, 0, False
        while process.poll() is None:
            now = sum(map(pss_bytes, family(process.pid)))
            peak, samples = max(peak, now), samples + 1
            if now > limit_bytes:
                exceeded = True
                process.kill()
            time.sleep(SECONDS)
        stdout.seek(0)
        stderr.seek(0)
        return Watched(process.returncode, stdout.read(), stderr.read(), peak, samples, exceeded)


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it ended meanwhile
        return []
    return [pid, *(each for child in children for each in family(child))]


def pss_bytes(pid: int) -> int:
    """Return the memory of a process, what it shares divided among those that share it; 0 once it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
