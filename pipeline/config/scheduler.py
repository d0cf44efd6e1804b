"""Where blocks are computed: on threads, on a running dask scheduler, or on a cluster that the run starts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, StrictInt, StrictStr, model_validator

from pipeline.config.message import own_error, own_failure
from pipeline.config.place import KeyPath
from pipeline.model.errors import show, unknown
from pipeline.model.value import Frozen

THREADS = "threads"
WAIT_SECONDS = 60.0
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.%]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
LOCAL_CLUSTERS = ("dask.distributed:LocalCluster", "distributed:LocalCluster")
_FORMS = (THREADS, "tcp://HOST:PORT", "tls://HOST:PORT")
_DOTTED = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
_SCRIPTS = ("job_script_prologue", "env_extra")
"""Arguments of dask_jobqueue's classes that are lines of a script."""
_DIRECTIVES = ("job_extra_directives", "job_extra")
"""Those that are lines for the batch system, and comments to the shell."""
_LINE_BREAK = re.compile(r"[\n\r\0]")
_SHELL = re.compile(r"[\n\r\0;`&|<>]|\$\(")


class Cluster(Frozen):
    """A dask cluster that a run starts, and closes at its end; all but a plain LocalCluster takes the user's word."""

    module: Annotated[StrictStr, Field(pattern=_DOTTED)]
    """Where the class is, e.g. dask.distributed or dask_jobqueue."""
    class_name: Annotated[StrictStr, Field(alias="class", pattern=_DOTTED)]
    """E.g. LocalCluster or SLURMCluster."""
    args: tuple[Any, ...] = ()
    """Positional arguments of the class."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the class by name. No secrets: these belong in the environment."""
    scale: Annotated[StrictInt, Field(ge=1)] | None = None
    """Workers to ask the cluster for."""
    adapt: dict[str, Any] | None = None
    """Arguments of the cluster's `adapt`, e.g. {minimum: 1, maximum: 10}: workers come and go with the work."""
    wait: float = Field(default=WAIT_SECONDS, gt=0, allow_inf_nan=False)
    """Seconds to wait for the first worker, and for another one when all are lost."""

    @model_validator(mode="after")
    def _check(self) -> Cluster:
        if self.scale is not None and self.adapt is not None:
            raise ValueError("give scale (a fixed number of workers) or adapt (as the work demands), not both")
        if self.module.partition(".")[0] == "dask_jobqueue":
            _check_job_texts({"args": self.args, "kwargs": self.kwargs})
        return self

    @property
    def full_name(self) -> str:
        return f"{self.module}:{self.class_name}"


def _check_job_texts(arguments: Mapping[str, Any]) -> None:
    """Refuse what a shell would run: dask_jobqueue writes its arguments into a job script as they are."""
    for path, text in _texts(arguments, ()):
        key = path[1]
        if key not in _SCRIPTS and (bad := (_LINE_BREAK if key in _DIRECTIVES else _SHELL).search(text)):
            words = f"holds {bad.group()!r}, which the shell of a job script would obey; leave it out, got {show(text)}"
            raise own_failure("cluster", path, words, text)


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield all texts in mappings and lists."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))
    elif isinstance(value, str):
        yield path, value


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its number or as localhost; other names may lead anywhere.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "[::1]", "LOCALHOST", "127.0.0.1.evil.com", "127.evil", "0.0.0.0")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(address: str) -> str | None:
    """Return the host of a scheduler's address, None where it is no such address."""
    match = _ADDRESS.fullmatch(address)
    return match[2] if match else None


Scheduler = str | Cluster
"""`threads`, the address of a dask scheduler, or a cluster to start."""


def parse_scheduler(value: Any) -> Scheduler:
    """Return what `run.scheduler` means; raise pydantic's errors with complete texts."""
    if isinstance(value, Cluster):
        return value
    if isinstance(value, Mapping):
        return Cluster.model_validate(value)
    if not isinstance(value, str):
        raise own_error(f"must be `{THREADS}`, an address or {{module, class, ...}}, got {show(value)}")
    if value == THREADS:
        return value
    if not value.startswith(("tcp://", "tls://")):
        raise own_error(unknown("scheduler", value, _FORMS))
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match[3]) > 65535:
        raise own_error(f"must name a host and a port, as in tcp://127.0.0.1:8786, got {show(value)}")
    return value
