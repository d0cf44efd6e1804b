"""What the machine has: processor, compiled kernels, memory, space for temporary files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pipeline.execution.process import (
    available_cpus,
    available_memory_bytes,
    cgroup_memory_bytes,
    default_memory_bytes,
    machine_memory_bytes,
)
from pipeline.verbs.doctor.problem import Problem

SMALL_BYTES = 2**30
"""Space that what waits in the temporary folder may fill: tables, files on their way to a bucket, what verify makes."""


def describe_processor() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith(("model name", "Model"))
    ]
    return {"name": (names or [platform.processor()])[0], "machine": platform.machine(), "cpus": available_cpus()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def describe_kernels(problems: list[Problem]) -> dict[str, Any]:
    """Call a kernel, which compiles it where no cache has it, and return where kernels come from."""
    import numpy as np

    import pipeline.kernels
    from pipeline.kernels.machine_code import cache_fault, carried_folders, stamp
    from pipeline.kernels.validity import count_valid

    try:
        count_valid(np.ones(3, np.float32), np.float32(0))
    except Exception as error:  # of the compiler
        what = f"no kernel can be compiled: {type(error).__name__}: {error}"
        problems.append(Problem(what, "pip install --force-reinstall numba llvmlite", stops=True))
        return {}
    sources = Path(pipeline.kernels.__path__[0])
    carried = carried_folders(sources)
    fresh = [name for name, folder in carried.items() if _is_fresh(folder, stamp(sources))]
    if carried and not fresh:
        what = "the compiled kernels that the package carries are of another version of numba or of the sources"
        problems.append(Problem(what, "pip install --force-reinstall rasterpipe", stops=False))
    made: Any = count_valid
    folder = made.made.stats.cache_path
    if fault := cache_fault():
        what = f"compiled kernels cannot be kept ({fault}), so each run compiles its own"
        remedy = "set NUMBA_CACHE_DIR to a folder that you may write, with some 100 MiB of space"
        problems.append(Problem(what, remedy, stops=False))
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if wanted and not (folder and Path(folder).resolve().is_relative_to(Path(wanted).resolve())):
        what = f"NUMBA_CACHE_DIR is {wanted}, which cannot be written: {folder} is taken instead"
        problems.append(Problem(what, "make that folder writable, or name another one", stops=False))
    files = list(Path(folder).glob("*.nb[ci]")) if folder else []
    kept = sum(file.stat().st_size for file in files)
    return {"carried": fresh, "cache": folder, "writable": not fault, "bytes": kept, "files": len(files)}


def _is_fresh(folder: Path, version: str) -> bool:
    """Return whether carried kernels are of these sources and this numba: each index begins with what it is of."""
    index = next(folder.glob("*.nbi"), None)
    return index is not None and version.encode() in index.read_bytes()[:256]


def describe_memory(problems: list[Problem]) -> dict[str, int | None]:
    """Return what limits the memory of this process, what is free of it, and what a run stays below by default."""
    from pipeline.planning.cost import BASE_BYTES

    default, address = default_memory_bytes(), resource.getrlimit(resource.RLIMIT_AS)[0]
    ulimit = None if address == resource.RLIM_INFINITY else address
    words = next((line.split() for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable:")), None)
    free = int(words[1]) * 1024 if words else None
    limits = {
        "the machine, or the cgroup of this process, has": available_memory_bytes(),
        "`ulimit -v` lets it have": ulimit,
    }
    for what, limit in limits.items():
        if limit is not None and limit < BASE_BYTES:
            text = f"{what} {_mib(limit)} of memory, and a run takes {_mib(BASE_BYTES)} before its first block"
            problems.append(Problem(text, "raise that limit, of a container in its settings", stops=True))
    if default < BASE_BYTES and available_memory_bytes() >= BASE_BYTES:
        text = f"half of the memory is {_mib(default)}, which is less than a run takes before its first block"
        problems.append(
            Problem(text, f"give runs more than half: --memory '{_mib(available_memory_bytes())}'", stops=False)
        )
    for what, limit in {"`ulimit -v` lets this process have": ulimit, "other programs leave free": free}.items():
        if limit is not None and BASE_BYTES <= limit < default:
            text = f"{what} {_mib(limit)} of memory, less than the {_mib(default)} that a run stays below by default"
            problems.append(Problem(text, "give runs less: --memory, or `memory` of `run` in the file", stops=False))
    return {
        "machine_bytes": machine_memory_bytes(),
        "cgroup_bytes": cgroup_memory_bytes(),
        "ulimit_bytes": ulimit,
        "free_bytes": free,
        "run_bytes": default,
    }


def _mib(count: int) -> str:
    return f"{count // 2**20} MiB"


def describe_temporary(problems: list[Problem]) -> dict[str, Any]:
    """Return the folder of temporary files, and what is free in it."""
    remedy = "set TMPDIR to a folder that you may write, with space (`scratch` of `run` in the file is another way)"
    try:
        folder = tempfile.gettempdir()
    except OSError:
        problems.append(Problem("no folder for temporary files can be written", remedy, stops=False))
        return {"folder": None, "free_bytes": None}
    free = shutil.disk_usage(folder).free
    if free < SMALL_BYTES:
        problems.append(Problem(f"the temporary folder {folder} has {_mib(free)} left", remedy, stops=False))
    return {"folder": folder, "free_bytes": free}
