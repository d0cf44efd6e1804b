"""Runs on dask clusters of real processes: the files of a run on threads, whatever happens to the workers."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline import api
from pipeline.execution.cluster import connection
from pipeline.execution.cluster.crew import warning_of
from pipeline.model.errors import RasterpipeError
from pipeline.model.region import Axis, Grid
from pipeline.output.journal import Journal
from pipeline.verbs.load import Cut, load
from tests import harness
from tests.dask_process import ROOT, DaskProcesses
from tests.process import Ended, Run

pytest.importorskip("distributed", reason="rasterpipe[cluster] is not installed")

SIDE, CHUNK = 96, 16
GRID = Grid(Axis(0, SIDE, CHUNK), Axis(0, SIDE, CHUNK), 2**31)
"""36 blocks a pass."""
LARGE = Grid(Axis(0, SIDE, 2 * CHUNK), Axis(0, SIDE, 2 * CHUNK), 2**31)
"""9 blocks a pass, where each takes many tasks."""
WHOLE = Grid(Axis(0, SIDE, SIDE), Axis(0, SIDE, SIDE), 2**31)
STEPS = [
    {"name": "first", "op": "window", "input": "image", "size": 3},
    {"name": "smooth", "op": "window", "size": 3, "boundary": "wrap", "statistics": ["mean", "max"]},
    {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "recolor": ["mean"]},
]
LOCAL = {"module": "dask.distributed", "class": "LocalCluster"}
Config = dict[str, Any]


class Place:
    """A folder with a scene, a pipeline of passes with tables, and the files of its result on threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        values = np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)
        source = harness.store(
            harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2)), folder / "scene.zarr"
        )
        self.document = harness.document(source, STEPS, folder / "out" / "result.zarr", chunks=[CHUNK, CHUNK])
        expected = self.document | {"output": self.document["output"] | {"path": str(folder / "expected.zarr")}}
        self.num_passes = len(load(expected).plan.passes)
        ended = Run(expected | {"run": {"halo": "read"}}).wait()
        assert ended.code == 0, ended.message
        self.expected = harness.stored_files(folder / "expected.zarr")

    @property
    def output(self) -> Path:
        return Path(self.document["output"]["path"])

    def start(self, arm: Callable[[], None] | None = None, resume: bool = False, grid: Grid = GRID, **run: Any) -> Run:
        if not resume:
            shutil.rmtree(self.output.parent, ignore_errors=True)
            self.output.parent.mkdir()
        return Run(
            self.document | {"run": {"halo": "read"} | run}, arm, cut=Cut((grid,) * self.num_passes), resume=resume
        )

    def check(self, ended: Ended) -> None:
        """Check that a run ended with the files of the run on threads, and left nothing else."""
        assert (ended.code, ended.message) == (0, "")
        assert os.listdir(self.output.parent) == [self.output.name]
        assert harness.stored_files(self.output) == self.expected


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with DaskProcesses(tmp_path_factory.mktemp("dask")) as processes:
        yield processes


def at_record(number: int, act: Callable[[], None]) -> None:
    """Do something, once, in this process when so many blocks are recorded."""
    record, calls = Journal.record, itertools.count(1)

    def counted(*args: Any) -> bool:
        if next(calls) == number:
            act()
        return record(*args)

    Journal.record = counted  # type: ignore[method-assign]


def wait_for(path: Path) -> None:
    ends = time.monotonic() + 60
    while not path.exists() and time.monotonic() < ends:
        time.sleep(0.02)


def pause(begun: Path, joined: Path) -> None:
    begun.touch()
    wait_for(joined)


@pytest.mark.parametrize(("halo", "grid"), [("read", GRID), ("exchange", LARGE)], ids=["read", "exchange"])
def test_two_workers_give_the_files_of_threads(place: Place, dask: DaskProcesses, halo: str, grid: Grid) -> None:
    dask.have_workers(2)
    ended = place.start(scheduler=dask.address, halo=halo, grid=grid).wait()
    place.check(ended)
    workers = ended.facts["workers"]
    assert ended.facts["blocks"] == sum(worker["blocks"] for worker in workers) == len(grid) * place.num_passes
    assert len(workers) == 2
    assert all(worker["blocks"] for worker in workers)
    assert ended.facts["blocks_recomputed"] == 0
    assert ended.facts["warnings"] == []


def test_a_killed_worker_costs_its_blocks(place: Place, dask: DaskProcesses) -> None:
    dask.have_workers(2)
    kill = partial(os.kill, dask.workers[0].pid, signal.SIGKILL)
    ended = place.start(partial(at_record, 1, kill), scheduler=dask.address).wait()
    place.check(ended)
    assert ended.facts["blocks_recomputed"] >= 1
    assert len(ended.facts["workers"]) == 1


SIGNALS_ITSELF = """
import os, pathlib
from pipeline.execution.worker import PassWorker

def dask_setup(worker):
    run, begun = PassWorker.{method}, pathlib.Path({begun!r})

    def signalled(self, number, *args):
        if number == {block} and not begun.exists():
            begun.write_text(str(os.getpid()))
            os.kill(os.getpid(), {signal})
        return run(self, number, *args)

    PassWorker.{method} = signalled
"""


def start_signalling(own: DaskProcesses, method: str, block: int, number: signal.Signals) -> Path:
    """Start two workers, of which the one that begins a block sends itself a signal; return the file with its pid."""
    preload, begun = own.folder / "signals_itself.py", own.folder / "begun"
    preload.write_text(SIGNALS_ITSELF.format(method=method, block=block, signal=int(number), begun=str(begun)))
    for _ in range(2):
        own.start_worker("--no-nanny", "--preload", str(preload))
    return begun


@pytest.mark.thorough
@pytest.mark.parametrize("grid", [pytest.param(LARGE, id="blocks"), pytest.param(WHOLE, id="one block")])
def test_a_worker_killed_amid_an_exchange_costs_its_blocks(place: Place, tmp_path: Path, grid: Grid) -> None:
    with DaskProcesses(tmp_path) as own:
        start_signalling(own, "run_exchanged", len(grid) - 1, signal.SIGKILL)
        ended = place.start(scheduler=own.address, halo="exchange", grid=grid).wait()
    place.check(ended)
    assert ended.facts["blocks_recomputed"] >= 1
    assert len(ended.facts["workers"]) == 1


TTL = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "2 s"}


@pytest.mark.thorough
def test_a_worker_that_hangs_is_given_up_and_changes_nothing_when_it_wakes(place: Place, tmp_path: Path) -> None:
    with DaskProcesses(tmp_path, TTL) as own:
        begun = start_signalling(own, "run_block", 9, signal.SIGSTOP)
        ended = place.start(scheduler=own.address).wait()
        assert (ended.code, ended.message) == (0, "")
        assert ended.facts["blocks_recomputed"] >= 1
        assert len(ended.facts["workers"]) == 1
        assert harness.stored_files(place.output) == place.expected
        os.kill(int(begun.read_text()), signal.SIGCONT)
        time.sleep(3)  # for the block that it was in
        assert harness.stored_files(place.output) == place.expected


@pytest.mark.thorough
def test_a_worker_that_wakes_after_another_pipeline_has_ended_changes_nothing(place: Place, tmp_path: Path) -> None:
    with DaskProcesses(tmp_path, TTL) as own:
        begun = start_signalling(own, "run_block", 9, signal.SIGSTOP)
        given_up = place.start(scheduler=own.address)
        wait_for(begun)
        given_up.process.kill()
        given_up.wait()
        other = place.document | {"steps": [{**STEPS[0], "size": 7}, *STEPS[1:]], "run": {"halo": "read"}}
        assert Run(other, overwrite=True).wait().code == 0
        before = harness.stored_files(place.output)
        assert before != place.expected
        os.kill(int(begun.read_text()), signal.SIGCONT)
        time.sleep(3)  # for the block that it was in
        assert harness.stored_files(place.output) == before
    # what was being written when its folder was removed may have made it anew; whoever comes next removes that
    assert Run(other, resume=True).wait().facts["blocks"] == 0
    assert os.listdir(place.output.parent) == [place.output.name]
    assert harness.stored_files(place.output) == before


@pytest.mark.parametrize("halo", [pytest.param("read", marks=pytest.mark.thorough), "exchange"])
def test_an_input_that_is_away_stops_the_run_which_then_continues(place: Place, dask: DaskProcesses, halo: str) -> None:
    dask.have_workers(2)
    scene, aside = (place.output.parent.parent / name for name in ("scene.zarr", "aside.zarr"))
    grid = LARGE if halo == "exchange" else GRID
    arm = partial(at_record, 5, partial(os.rename, scene, aside))
    ended = place.start(arm, scheduler=dask.address, halo=halo, grid=grid).wait()
    os.rename(aside, scene)
    assert ended.code == 6, ended
    words = "was there when the run began, and is not now|does not exist; the run stopped|--resume ends the run once"
    assert re.search(words, ended.message)
    place.check(place.start(resume=True, scheduler=dask.address, halo=halo, grid=grid).wait())


def test_an_input_that_is_another_one_for_a_while_stops_the_run_for_good(place: Place, dask: DaskProcesses) -> None:
    dask.have_workers(2)
    chunk = place.output.parent.parent / "scene.zarr" / "c" / "5" / "5" / "0"
    before, times = chunk.read_bytes(), chunk.stat()

    def put(data: bytes) -> None:
        chunk.write_bytes(data)
        os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))

    another = chunk.with_name("another")
    another.write_bytes(before[:-8] + bytes(8))
    ended = place.start(partial(at_record, 5, partial(shutil.copy2, another, chunk)), scheduler=dask.address).wait()
    another.unlink()
    put(before)
    assert ended.code == 4, ended
    assert "is not as it was when the run began" in ended.message or "changed while the run read it" in ended.message
    assert place.start(resume=True, scheduler=dask.address).wait().code == 5
    place.check(place.start(scheduler=dask.address).wait())


@pytest.mark.thorough
def test_a_worker_that_joins_late_is_used(place: Place, dask: DaskProcesses, tmp_path: Path) -> None:
    dask.have_workers(2)
    dask.kill_worker()
    begun, joined = tmp_path / "begun", tmp_path / "joined"
    run = place.start(partial(at_record, 1, partial(pause, begun, joined)), scheduler=dask.address)
    wait_for(begun)
    dask.start_worker()
    joined.touch()
    ended = run.wait()
    place.check(ended)
    assert [worker["blocks"] > 0 for worker in ended.facts["workers"]] == [True, True]


@pytest.mark.thorough
def test_a_worker_that_joins_late_with_another_version_stops_the_run(place: Place, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "pipeline", tmp_path / "other" / "pipeline")
    (tmp_path / "other" / "pipeline" / "further.py").touch()
    begun, joined = tmp_path / "begun", tmp_path / "joined"
    with DaskProcesses(tmp_path) as own:
        own.start_worker()
        run = place.start(partial(at_record, 1, partial(pause, begun, joined)), scheduler=own.address)
        wait_for(begun)
        own.start_worker("--no-nanny", environment={"PYTHONPATH": str(tmp_path / "other")})
        joined.touch()
        ended = run.wait()
    assert ended.code == 6
    assert re.search(
        r"a worker on .* joined that cannot take part: rasterpipe .* in .*other.* is not the one of here", ended.message
    ), ended.message
    place.check(place.start(resume=True).wait())


def test_a_scheduler_that_dies_stops_the_run_which_threads_continue(place: Place, tmp_path: Path) -> None:
    with DaskProcesses(tmp_path) as own:
        own.start_worker()
        kill = partial(os.kill, own.scheduler.pid, signal.SIGKILL)
        ended = place.start(partial(at_record, len(GRID) + 9, kill), scheduler=own.address).wait()
    assert ended.code == 6
    assert "the run stopped, and --resume continues it" in ended.message
    assert own.address in ended.message
    ended = place.start(resume=True).wait()
    place.check(ended)
    assert ended.facts["blocks_skipped"] >= len(GRID)  # the first pass


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.thorough)]
)
def test_a_signal_ends_the_run_and_the_workers_go_on_with_another(
    place: Place, dask: DaskProcesses, number: signal.Signals, code: int
) -> None:
    dask.have_workers(2)
    ended = place.start(
        partial(at_record, len(GRID) + 9, partial(signal_itself, number)), scheduler=dask.address
    ).wait()
    assert ended.code == code
    assert "--resume continues" in ended.message
    ended = place.start(resume=True, scheduler=dask.address).wait()
    place.check(ended)
    assert len(GRID) <= ended.facts["blocks_skipped"] < place.num_passes * len(GRID)


def signal_itself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.thorough
def test_workers_that_are_all_lost_stop_the_run(place: Place, tmp_path: Path) -> None:
    with DaskProcesses(tmp_path) as own:
        kill = partial(os.kill, own.start_worker().pid, signal.SIGKILL)
        arm = partial(lose_all, kill)
        ended = place.start(arm, scheduler=own.address).wait()
    assert ended.code == 6
    assert ended.message.startswith("the cluster has had no worker for 1 s")


def lose_all(kill: Callable[[], None]) -> None:
    connection.WAIT_SECONDS = 1.0
    at_record(1, kill)


@pytest.mark.parametrize(
    "processes", [pytest.param(True, id="processes", marks=pytest.mark.thorough), pytest.param(False, id="threads")]
)
def test_a_local_cluster_is_started_and_closed(place: Place, processes: bool) -> None:
    kwargs = {"n_workers": 2, "threads_per_worker": 1, "processes": processes, "dashboard_address": None}
    place.check(place.start(scheduler=LOCAL | {"kwargs": kwargs}).wait())


def test_what_workers_lack_is_said_at_once(place: Place, tmp_path: Path) -> None:
    """Paths below /proc/self/cwd are other ones for each process; `pipeline` on one worker is another package."""
    (tmp_path / "other" / "pipeline").mkdir(parents=True)
    (tmp_path / "other" / "pipeline" / "__init__.py").touch()
    here = Path("/proc/self/cwd")
    with DaskProcesses(tmp_path) as own:
        own.start_worker()
        own.start_worker("--no-nanny", environment={"PYTHONPATH": str(tmp_path / "other")})
        document = place.document | {"run": {"scheduler": own.address}, "output": {"path": str(here / "result.zarr")}}
        document["inputs"] = document["inputs"] | {"image": str(here / "scene.zarr")}
        ended = Run(document, partial(os.chdir, place.folder)).wait()
    assert ended.code == 3
    title, *lines = ended.message.splitlines()
    assert title.endswith("workers cannot take part in the run:")
    assert len([line for line in lines if line.count("tcp://127.0.0.1:") == 2]) == 2
    assert f"finds nothing at {here}/scene.zarr; put it where all see it" in ended.message
    assert f"cannot write to {here}/result.zarr.work" in ended.message
    assert f"the package `pipeline` in {tmp_path}/other/pipeline is not rasterpipe's; remove it" in ended.message
    assert not list(place.folder.glob("result.zarr*"))


SCENE_OF_EACH = Path("/proc/self/cwd/scene.zarr")
"""Another folder for each process."""
ANOTHER_SCENE = f"sees another raster at {SCENE_OF_EACH} (c/0/0/0 is another one); put it where all see it"


def folder_of_newest_worker(own: DaskProcesses) -> Path:
    return max(own.folder.glob("worker-*"), key=lambda path: int(path.name.partition("-")[2]))


def copy_scene(place: Place, own: DaskProcesses) -> None:
    """Give a worker a scene of its own, whose files are of another time."""
    target = folder_of_newest_worker(own) / "scene.zarr"
    shutil.copytree(place.folder / "scene.zarr", target, copy_function=shutil.copy)


def with_scene_of_each(place: Place, output: Path, **run: Any) -> Config:
    inputs = place.document["inputs"] | {"image": str(SCENE_OF_EACH)}
    return place.document | {"inputs": inputs, "output": {"path": str(output), "chunks": [CHUNK, CHUNK]}, "run": run}


def test_a_worker_that_sees_another_folder_is_told(place: Place, tmp_path: Path) -> None:
    with DaskProcesses(tmp_path) as own:
        own.start_worker()
        copy_scene(place, own)
        document = with_scene_of_each(place, tmp_path / "result.zarr", scheduler=own.address)
        ended = Run(document, partial(os.chdir, place.folder)).wait()
    assert ended.code == 3
    assert ANOTHER_SCENE in ended.message
    assert not list(tmp_path.glob("result.zarr*"))


@pytest.mark.thorough
def test_a_worker_that_joins_late_and_sees_another_folder_stops_the_run(place: Place, tmp_path: Path) -> None:
    begun, joined = tmp_path / "begun", tmp_path / "joined"
    with DaskProcesses(tmp_path) as own:
        own.start_worker()
        (folder_of_newest_worker(own) / "scene.zarr").symlink_to(place.folder / "scene.zarr")
        document = with_scene_of_each(place, tmp_path / "result.zarr", scheduler=own.address, halo="read")
        run = Run(document, partial(begin_in, place.folder, begun, joined), cut=Cut((GRID,) * place.num_passes))
        wait_for(begun)
        own.start_worker()
        copy_scene(place, own)
        joined.touch()
        ended = run.wait()
    assert ended.code == 6
    assert f"joined that cannot take part: {ANOTHER_SCENE}" in ended.message


def begin_in(folder: Path, begun: Path, joined: Path) -> None:
    os.chdir(folder)
    at_record(1, partial(pause, begun, joined))


@pytest.mark.thorough
def test_the_command_line_over_tls(place: Place, tmp_path: Path) -> None:
    environment = certificates(tmp_path)
    output = tmp_path / "result.zarr"
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(place.document | {"run": {"memory": "600 MiB"}}))
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "pipeline", "run", str(file), "-o", str(output), "--json"]
    command += ["--performance-report", str(page)]
    with DaskProcesses(tmp_path, environment, "tls") as own:
        own.start_worker()
        done = subprocess.run(
            [*command, "--scheduler", own.address],
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scheduler"].startswith("tls://127.0.0.1:")
    assert "dashboard" in done.stderr
    assert "<html" in page.read_text()[:2000]


def certificates(folder: Path) -> dict[str, str]:
    """Make an authority and one certificate for all; return the variables by which dask finds them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rasterpipe test")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(1))
        .not_valid_after(today + datetime.timedelta(1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    form, secrecy = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, form, secrecy))
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    places = {f"{tls}{who}__CERT": "cert.pem" for who in ("CLIENT", "SCHEDULER", "WORKER")}
    places |= {f"{tls}{who}__KEY": "key.pem" for who in ("CLIENT", "SCHEDULER", "WORKER")}
    places |= {f"{tls}CA_FILE": "cert.pem"}
    return {variable: str(folder / file) for variable, file in places.items()}


def set_environment(**variables: str) -> None:
    os.environ.update(variables)


@pytest.mark.thorough
def test_slurm_gets_a_job_script_of_workers(place: Place, tmp_path: Path) -> None:
    """A stand-in for sbatch keeps the script and runs it here."""
    pytest.importorskip("dask_jobqueue", reason="dask_jobqueue is not installed")
    for name, text in {
        "sbatch": f'cp "$1" {tmp_path}/job.sh; bash {tmp_path}/job.sh >/dev/null 2>&1 & echo $! > {tmp_path}/pid\n'
        "echo Submitted batch job 42\n",
        "scancel": f"echo $@ > {tmp_path}/cancelled\n",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    arguments = {
        "cores": 1, "memory": "2GiB", "queue": "rasters", "account": "survey", "walltime": "00:10:00",
        "python": sys.executable, "local_directory": str(tmp_path),
        "scheduler_options": {"host": "127.0.0.1", "dashboard_address": None},
    }  # fmt: skip
    slurm = {"module": "dask_jobqueue", "class": "SLURMCluster", "kwargs": arguments, "scale": 1}
    arm = partial(set_environment, PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    place.check(place.start(arm, scheduler=slurm).wait())
    script = (tmp_path / "job.sh").read_text()
    for line in ("#SBATCH -p rasters", "#SBATCH -A survey", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=2G"):
        assert line in script
    assert "distributed.cli.dask_worker tcp://127.0.0.1:" in script
    assert (tmp_path / "cancelled").read_text().split() == ["42"]


def test_kernels_run_where_no_cache_can_be_written() -> None:
    code = "import numpy; from pipeline.kernels.validity import count_valid as f; print(f(numpy.arange(9.0), 3.0))"
    variables = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


# --- refused before anything starts --------------------------------------------------------------------------------


def test_threads_make_no_performance_report(place: Place, tmp_path: Path) -> None:
    with pytest.raises(RasterpipeError, match="a performance report is made by a dask cluster"):
        api.run(place.document, performance_report=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


LISTENING = """
import psutil
from pipeline.execution.cluster.connection import connect
from pipeline.config.scheduler import Cluster

if __name__ == "__main__":
    kwargs = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": "1GiB", "processes": %s}
    with connect(Cluster.model_validate({"module": "%s", "class": "LocalCluster", "kwargs": kwargs})) as crew:
        here = psutil.Process()
        sockets = [one for each in (here, *here.children(True)) for one in each.net_connections("tcp")]
        print(sorted({one.laddr.ip for one in sockets if one.status == "LISTEN"}), crew.description)
"""


@pytest.mark.parametrize("module", ["distributed", pytest.param("dask.distributed", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("processes", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_local_cluster_listens_to_this_machine_alone(tmp_path: Path, module: str, processes: bool) -> None:
    """Scheduler, dashboard and workers: dask's own defaults let everybody see the dashboard."""
    (tmp_path / "listening.py").write_text(LISTENING % (processes, module))
    command = [sys.executable, str(tmp_path / "listening.py")]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("['127.0.0.1'] scheduler tcp://127.0.0.1:"), done.stderr
    assert "dashboard http://127.0.0.1:" in done.stdout


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://10.1.2.3:8786", True),
        ("tls://10.1.2.3:8786", False),
        ("tcp://[::1]:1", False),
        ("tcp://127.evil:1", True),
    ],
)
def test_an_open_address_is_warned_of(address: str, warned: bool) -> None:
    assert ("whoever reaches this port can run any code" in (warning_of(address) or "")) is warned


def hurry() -> None:
    connection.CONNECT_SECONDS = 1


def lose_distributed() -> None:
    sys.modules["distributed"] = None  # type: ignore[assignment]


def test_what_keeps_a_run_from_its_cluster(place: Place) -> None:
    ended = place.start(hurry, scheduler="tcp://127.0.0.1:1").wait()
    assert (ended.code, "no dask scheduler answers at tcp://127.0.0.1:1" in ended.message) == (3, True)
    ended = place.start(lose_distributed, scheduler="tcp://127.0.0.1:1").wait()
    assert (ended.code, "pip install 'rasterpipe[cluster]'" in ended.message) == (3, True)
    assert not list(place.output.parent.iterdir())


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("mode", ["graceful", "segfault"])
def test_workers_that_die_at_random(place: Place, tmp_path: Path, mode: Any) -> None:
    """Workers live 10 s on average, and are replaced.

    (Mode sys.exit is left out: a worker was seen to hang in asyncio's shutdown, its process alive.)
    """
    from distributed import Client
    from distributed.chaos import KillWorker

    ended = threading.Event()
    with DaskProcesses(tmp_path, {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}) as own:

        def replace() -> None:
            while not ended.wait(0.1):
                own.have_workers(3)

        with Client(own.address, set_as_default=False) as client:
            client.register_plugin(KillWorker("10 s", mode))
        thread = threading.Thread(target=replace)
        thread.start()
        try:
            for halo in ("read", "exchange") * 3:
                run = place.start(scheduler=own.address, halo=halo).wait()
                place.check(run)
                print(mode, halo, run.facts["blocks_recomputed"], run.facts["seconds"])
        finally:
            ended.set()
            thread.join()
