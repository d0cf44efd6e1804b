"""A dask scheduler and workers in processes of their own, started by dask's command line on 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 60


class DaskProcesses:
    """Processes that are all killed at the end."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, protocol: str = "tcp") -> None:
        self.folder, self.environment, self.protocol = folder, dict(environment or {}), protocol
        self.workers: list[subprocess.Popen[bytes]] = []
        self._count = 0
        self.file = folder / "scheduler.json"
        options = ["--port", "0", "--no-dashboard", "--protocol", protocol]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", *options, "--scheduler-file", str(self.file))
        self._wait(lambda: self.file.exists() and self.file.read_text().endswith("}"))  # it is written at leisure
        self.address: str = json.loads(self.file.read_text())["address"]

    def __enter__(self) -> DaskProcesses:
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def start_worker(self, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker of one thread; return when the scheduler knows it, or when it is dead again."""
        log = self.folder / f"log-{self._count}"
        process = self._start(
            "worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--memory-limit", "2GiB",
            "--no-dashboard", *(options or ["--no-nanny"]), environment=environment,
        )  # fmt: skip
        self.workers.append(process)
        self._wait(lambda: b"Registered to" in log.read_bytes() or process.poll() is not None)
        return process

    def kill_worker(self) -> None:
        worker = self.workers.pop()
        worker.kill()
        worker.wait()

    def have_workers(self, number: int) -> None:
        """Have that many workers, new ones for those that died."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < number:
            self.start_worker()

    def _start(self, kind: str, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        place = self.folder / f"{kind}-{self._count}"
        place.mkdir()
        log = (self.folder / f"log-{self._count}").open("wb")
        self._count += 1
        variables = os.environ | {"PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(place)}
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *options],
                env=variables | self.environment | dict(environment or {}),
                cwd=place,
                stdout=log,
                stderr=log,
            )

    def _wait(self, is_met: Callable[[], bool]) -> None:
        ends = time.monotonic() + SECONDS
        while not is_met():
            if time.monotonic() > ends:
                logs = "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*")))
                raise TimeoutError(f"a dask process does not come up:\n{logs}")
            time.sleep(0.05)
