"""What this process may use: memory and CPUs, cgroups counted."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1
HEAP_MARGIN_BYTES = 32 * 2**20
HEAP_SECONDS = 0.25
LOOK_SECONDS = 2e-3
"""How often at most the memory is looked at: to look takes as long as a small block's way through dask."""
CGROUP_ROOT = Path("/sys/fs/cgroup")


def machine_memory_bytes() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def cgroup_memory_bytes() -> int | None:
    """Return the memory of the tightest cgroup around this process; None where none has less than the machine."""
    limits = [_number(folder / name) for folder in _cgroups() for name in ("memory.max", "memory.limit_in_bytes")]
    machine = machine_memory_bytes()
    return min((limit for limit in limits if limit and limit < machine), default=None)


def available_memory_bytes() -> int:
    """Return the memory of the machine, or of the tightest cgroup around this process."""
    return cgroup_memory_bytes() or machine_memory_bytes()


def default_memory_bytes() -> int:
    """Return what a run stays below that is not told."""
    return available_memory_bytes() // 2


def available_cpus() -> int:
    """Return the CPUs that this process may use, by affinity and by cgroup quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _cgroups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            cpus = min(cpus, max(1, math.ceil(int(quota) / int(period))))
    return cpus


def _cgroups() -> Iterator[Path]:
    """Yield the cgroup folders of this process, innermost first (v2, and the memory controller of v1)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = CGROUP_ROOT if not controllers else CGROUP_ROOT / "memory"
        if controllers in ("", "memory"):
            folder = root / path.lstrip("/")
            yield folder
            yield from (parent for parent in folder.parents if root in (parent, *parent.parents))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def resident_bytes() -> int:
    """Return the memory that this process has now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def limit_heaps() -> None:
    """Let all threads share two heaps, where the C library has one a thread (glibc): fewer holes, same speed.

    Measured for 5000 x 5000 x 16 on two workers: a peak of 804 instead of 863 MiB.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, 2)
        if "MALLOC_TRIM_THRESHOLD_" in os.environ:  # set by dask's nanny; it fixes both thresholds (see `trim_heap`)
            library.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
            library.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)


def trim_heap() -> None:
    """Give free heap memory back to the system, where the C library can (glibc).

    Codecs allocate encoded and decoded chunks of ever other sizes on several threads, and glibc keeps what they
    free: measured, 130 to 230 MiB more after 400 blocks, and growing. Fixed malloc thresholds would avoid that at
    the price of a page fault for every page of every chunk (4.0 s instead of 2.3 s for 5000 x 5000 x 16).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_rss_bytes() -> int:
    """Return the high-water mark of this process's memory."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # not ru_maxrss: a forked process inherits what its parent held, so it overstates this one and any helper
    own = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(own.split()[1]) * 1024


class HeapWatch:
    """Gives free heap back where the process holds more than it should, but not all the time.

    `own_bytes` are what the work at hand takes, beside what there is when it begins: that is measured, not planned, for
    a plan allows for kernels that are yet to be compiled. In all, it is to be `peak_bytes` at most.
    """

    def __init__(self, own_bytes: int, peak_bytes: int) -> None:
        trim_heap()
        self._limit = min(resident_bytes() + own_bytes, peak_bytes) + HEAP_MARGIN_BYTES
        self._trimmed = self._looked = 0.0

    def check(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS or now - self._trimmed < HEAP_SECONDS:
            return
        self._looked = now
        if resident_bytes() > self._limit:
            self._trimmed = now
            trim_heap()
