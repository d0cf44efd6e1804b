"""Where blocks are computed: on threads, on a running dask scheduler, or on a cluster that the run starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from pipeline.config.message import own_error, show
from pipeline.errors import unknown

THREADS = "threads"
WAIT_SECONDS = 60.0
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.%]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
_FORMS = (THREADS, "tcp://HOST:PORT", "tls://HOST:PORT")
_DOTTED = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"


class Cluster(BaseModel):
    """A dask cluster that a run starts, and closes at its end; its class must be on the allow-list."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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
        return self

    @property
    def full_name(self) -> str:
        return f"{self.module}:{self.class_name}"


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
