"""What a pipeline file may ask for by itself, and what takes the word of whoever runs it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.document import Document
from pipeline.config.message import Problem
from pipeline.config.place import KeyPath, look_up
from pipeline.config.scheduler import LOCAL_CLUSTERS, THREADS, host_of, is_loopback
from pipeline.model.errors import PipelineError, show
from pipeline.storage.folder.address import ENDPOINT_VARIABLES

CLUSTER_KEYS = ("n_workers", "threads_per_worker", "processes", "memory_limit")
ADAPT_KEYS = ("minimum", "maximum")
SCHEDULER_VARIABLE = "DASK_SCHEDULER_ADDRESS"
_SCHEDULER: KeyPath = ("run", "scheduler")


def check_trust(document: Document, trust: bool) -> None:
    """Refuse what a document asks for beyond what a file may by itself, unless it is trusted; nothing is done before.

    What was set from outside the file (the command line) is the word of whoever runs it. Variables that speak of
    secrets are refused in any case: their values would stand in messages, names and records.

    Raises
    ------
    PipelineError
        With complete text: all that is asked for, each with its place.
    """
    secrets = [Problem(path, _secret_text(name)) for path, name in document.secrets.items()]
    asked = [] if trust else [*_scheduler_problems(document), *_endpoint_problems(document)]
    problems = sorted([*asked, *secrets], key=lambda problem: document.order(problem.path))
    lines = [problem.render(document) for problem in problems]  # all of them: the worst might come last
    if lines:
        raise PipelineError("\n".join([*lines, *(_remedies(document) if asked else ())]))


def is_in_trusted_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether the user's settings trust a folder that holds a file, after following all links."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(folder) for folder in _trusted_folders())


def settings_file() -> Path:
    """Return the file in which the user names the folders to trust."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.config")) / "rasterpipe" / "trusted"


def _trusted_folders() -> Iterator[str]:
    """Yield the folders of the settings: a line each, absolute or from ~; `#` begins a comment."""
    if _settings_fault():
        return
    try:
        text = settings_file().read_bytes()
    except OSError:
        return
    for line in os.fsdecode(text).splitlines():
        folder = os.path.expanduser(line.strip())
        if os.path.isabs(folder):
            yield os.path.realpath(folder)


def _settings_fault() -> str:
    """Return why the settings are not believed, if they are not: somebody else can write to them."""
    path = settings_file()
    for place in (path, path.parent):
        try:
            status = place.stat()
        except OSError:
            return ""
        if status.st_uid != os.geteuid():
            return f"{place} is not believed: it belongs to user {status.st_uid}, not to you"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{place} is not believed: others can write to it; chmod go-w {place}"
    return ""


def _remedies(document: Document) -> Iterator[str]:
    folder = f"the line {os.path.dirname(os.path.realpath(document.name))}" if document.name else "a line of its folder"
    yield (
        "This takes your word: it can run code as you, open ports, or send requests with your credentials. If you "
        f"trust it, add --trust (in Python: trust=True), or {folder} to {settings_file()}"
    )
    if fault := _settings_fault():
        yield fault


def _secret_text(name: str) -> str:
    return (
        f"the variable '{name}' speaks of a secret by its name, and its value would stand in messages and records; "
        "credentials are read from the environment by themselves; if it is no secret, give it another name"
    )


def _scheduler_problems(document: Document) -> Iterator[Problem]:
    scheduler = look_up(document.data, _SCHEDULER)
    if isinstance(scheduler, dict):
        yield from _cluster_problems(document, scheduler)
    elif isinstance(scheduler, str) and scheduler not in (THREADS, os.environ.get(SCHEDULER_VARIABLE)):
        host = host_of(scheduler)  # what is no address is refused as such
        if host is not None and not is_loopback(host) and not document.is_from_outside(_SCHEDULER):
            text = f"connects to {scheduler}, which is not this machine: whoever runs that scheduler can run code here"
            yield Problem(_SCHEDULER, text)


def _cluster_problems(document: Document, cluster: dict[str, Any]) -> Iterator[Problem]:
    name = f"{cluster.get('module')}:{cluster.get('class')}"
    is_local = name in LOCAL_CLUSTERS
    for key in ("module", "class"):
        path = (*_SCHEDULER, key)
        if not is_local and key in cluster and not document.is_from_outside(path):
            text = f"{show(cluster[key])} is code to import and call; a file by itself starts {LOCAL_CLUSTERS[0]}"
            yield Problem(path, text)
    yield from _argument_problems(document, "args", cluster, ())
    yield from _argument_problems(document, "kwargs", cluster, CLUSTER_KEYS if is_local else ())
    yield from _argument_problems(document, "adapt", cluster, ADAPT_KEYS)


def _argument_problems(
    document: Document, part: str, cluster: dict[str, Any], own: tuple[str, ...]
) -> Iterator[Problem]:
    """Yield the arguments that are not among those that a file gives by itself."""
    start = (*_SCHEDULER, part)
    for path, value in _leaves(cluster.get(part), start):
        is_own = path[len(start)] in own and len(path) == len(start) + 1
        if not is_own and not document.is_from_outside(path):
            others = f"{', '.join(own)} and no others" if own else "none"
            yield Problem(path, f"got {show(value)}; of these arguments a file by itself gives {others}")


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Yield what stands in mappings and lists below a path."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*path, key)) if isinstance(item, dict | list) and item else [((*path, key), item)]


def _endpoint_problems(document: Document) -> Iterator[Problem]:
    inputs = look_up(document.data, ("inputs",))
    places: list[KeyPath] = [("inputs", name, "storage") for name in inputs] if isinstance(inputs, dict) else []
    named = {os.environ.get(name, "").rstrip("/") for name in ENDPOINT_VARIABLES}
    for place in [*places, ("output", "storage")]:
        path = (*place, "endpoint")
        endpoint = look_up(document.data, path)
        is_anonymous = look_up(document.data, (*place, "anonymous")) is True
        if not isinstance(endpoint, str) or is_anonymous or document.is_from_outside(path):
            continue
        if endpoint.rstrip("/") not in named:
            shown = show(endpoint.rpartition("@")[2].partition("?")[0])  # without a password
            text = f"{shown} gets requests signed with your credentials; leave it out for the provider's own, "
            yield Problem(path, text + "name it in AWS_ENDPOINT_URL, or ask without credentials: `anonymous: true`")
