"""Every worker is asked before a run: what is missing there is found at once, and said in one message."""

from __future__ import annotations

import contextlib
import platform
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from pipeline.execution.cluster import look, sight
from pipeline.execution.cluster.sight import Expected
from pipeline.model.errors import PipelineError
from pipeline.model.version import __version__
from pipeline.planning.plan import Capacity
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.local import LocalFolder

PACKAGES = ["rasterpipe", "numpy", "numba", "zarr", "zarrs", "dask", "distributed"]
"""Whose versions must be the same on workers: on them depend the bits, or the way blocks travel."""


def probe(
    client: Any,
    inputs: Sequence[Expected],
    folders: Sequence[Path],
    work: Folder | None = None,
    distributions: Sequence[str] = (),
) -> Capacity:
    """Ask all workers of a dask client; return what they have.

    Parameters
    ----------
    inputs
        What every worker must see, as it is here.
    folders
        What every worker must see and be able to write to.
    work
        The work folder of the run in an object store: every worker must write there.
    distributions
        Other packages of which the workers must have the same version.

    Raises
    ------
    PipelineError
        With all that is missing, and the addresses of the workers where it is.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    problems = _python_problems(client)
    local = [each for each in inputs if isinstance(each[0].folder, LocalFolder)]
    if not problems:
        here = look.look([], [], "", [*PACKAGES, *distributions])
        answers = _ask(client, local, folders, list(here["versions"]))
        for address, text in ((a, text) for a, answer in answers.items() for text in _problems(answer, here, local)):
            problems[text].append(address)
    if not problems:  # all have this source: what they are asked now is rasterpipe's
        for address, text in _store_problems(client, [each for each in inputs if each not in local], work):
            problems[text].append(address)
    if problems:
        lines = "\n  ".join(f"{', '.join(sorted(addresses))}: {text}" for text, addresses in problems.items())
        raise PipelineError(f"workers cannot take part in the run:\n  {lines}", ("run", "scheduler"))
    return _capacity(workers, answers)


def _python_problems(client: Any) -> defaultdict[str, list[str]]:
    """Return the workers with another Python, to which no function can be sent by value."""
    here = platform.python_version_tuple()[:2]
    problems = defaultdict(list)
    for address, facts in client.get_versions(check=False)["workers"].items():
        there = str(((facts or {}).get("host") or {}).get("python", "?"))
        if tuple(there.split(".")[:2]) != here:
            problems[f"Python {'.'.join(there.split('.')[:2])}, here {'.'.join(here)}; install the same"].append(
                address
            )
    return problems


def _ask(
    client: Any, inputs: Sequence[Expected], folders: Sequence[Path], packages: list[str]
) -> dict[str, dict[str, Any]]:
    token = f"probe-{uuid.uuid4().hex}"
    cloudpickle.register_pickle_by_value(look)
    try:
        with _marked(folders, token):
            files = [sight.local_files(evidence) for evidence, _ in inputs]
            answers = client.run(look.look, files, [str(f) for f in folders], token, packages, on_error="return")
            for folder in folders:
                _check_seen(folder, token, answers)
    finally:
        cloudpickle.unregister_pickle_by_value(look)
    return {address: a if isinstance(a, dict) else {"error": repr(a)} for address, a in answers.items()}


@contextlib.contextmanager
def _marked(folders: Sequence[Path], token: str) -> Iterator[None]:
    """Leave a file in each folder for the workers to find; remove it at the end, and theirs."""
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / token).touch()
        yield
    finally:
        for folder in folders:
            for file in folder.glob(f"{token}*"):
                with contextlib.suppress(OSError):
                    file.unlink()


def _check_seen(folder: Path, token: str, answers: Mapping[str, Any]) -> None:
    """Note where fewer files came than workers say they wrote: theirs is another folder of this name."""
    said = [a for a in answers.values() if isinstance(a, dict) and str(folder) not in a["folders"]]
    if len(list(folder.glob(f"{token}.*"))) < len(said):
        for answer in said:
            answer["folders"].append(str(folder))


def _store_problems(client: Any, inputs: Sequence[Expected], work: Folder | None) -> Iterator[tuple[str, str]]:
    """Yield the addresses of workers that see object stores otherwise than this process, and in words what."""
    if not inputs and work is None:
        return
    rasters = [evidence for evidence, _ in inputs]
    with sight.token_in(work) as token:
        for address, seen in client.run(sight.look_at, rasters, token, on_error="return").items():
            if not isinstance(seen, sight.Seen):
                yield address, f"does not answer: {seen!r}"
                continue
            texts = [sight.difference(*each, there) for each, there in zip(inputs, seen.marks, strict=True)]
            if work is not None and token is not None:
                texts.append(sight.token_problem(work, token, seen))
            yield from ((address, text) for text in texts if text)


def differences(answer: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is installed otherwise on a worker than here, by what both say of themselves."""
    source, versions = answer["source"], answer["versions"]
    yield from _source_problems(source, versions, here)
    for package, version in here["versions"].items():
        if package != "rasterpipe" and versions[package] != version:
            yield f"{package} {versions[package] or 'is missing'}, here {version}; install the same"


def _problems(answer: Mapping[str, Any], here: Mapping[str, Any], inputs: Sequence[Expected]) -> Iterator[str]:
    if "error" in answer:
        yield f"does not answer: {answer['error']}"
        return
    yield from differences(answer, here)
    seen = (sight.difference(*each, there) for each, there in zip(inputs, answer["inputs"], strict=True))
    yield from (text for text in seen if text)
    for folder in answer["folders"]:
        yield f"cannot write to {folder}, or sees another folder there; choose an output that all can write to"


def _source_problems(source: Mapping[str, Any], versions: Mapping[str, str], here: Mapping[str, Any]) -> Iterator[str]:
    remedy = f"install rasterpipe {__version__} there"
    if not source:
        yield f"rasterpipe is not installed; {remedy}"
    elif not source["is_ours"]:
        yield f"the package `pipeline` in {source['folder']} is not rasterpipe's; remove it from there, and {remedy}"
    elif source["digest"] != here["source"]["digest"]:
        yield f"rasterpipe {versions['rasterpipe']} in {source['folder']} is not the one of here; {remedy}"


def _capacity(workers: Mapping[str, Any], answers: Mapping[str, Any]) -> Capacity:
    num_on_host = Counter(answer["host"] for answer in answers.values())
    limits = []
    for address, answer in answers.items():
        limit = workers.get(address, {}).get("memory_limit") or 0
        limits.append(limit or answer["memory_bytes"] // num_on_host[answer["host"]])
    threads = max(workers[address]["nthreads"] for address in answers)
    return Capacity(min(limits), threads, len(answers))
