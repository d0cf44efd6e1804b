"""Work in a process of its own: everyone pays for fresh memory, and has a peak that is theirs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rounds import Measured
from pipeline.execution.process import peak_rss_bytes


def in_own_process(function: Callable[..., float | None], *arguments: Any, answer: Any = None) -> Measured:
    """Call a function of a module with JSON arguments in a fresh process.

    The seconds are those of the call (imports of its module apart), or what it returns; the answer is passed through:
    where the result lies.
    """
    command = [sys.executable, "-m", "benchmarks.child", function.__module__, function.__name__, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    return Measured(said["seconds"], said["peak_bytes"], answer)


def main() -> None:
    module, name, arguments = sys.argv[1:]
    function = getattr(importlib.import_module(module), name)
    started = time.perf_counter()
    seconds = function(*json.loads(arguments))
    seconds = time.perf_counter() - started if seconds is None else seconds
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
