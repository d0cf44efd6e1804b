"""The clusters that a pipeline file may have started: a file must not name any class to be called."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.scheduler import Cluster, Scheduler
from pipeline.errors import PipelineError, UsageError

ALLOWED = (
    "dask.distributed:LocalCluster",
    "distributed:LocalCluster",
    "dask_jobqueue:SLURMCluster",
    "dask_jobqueue:PBSCluster",
    "dask_jobqueue:LSFCluster",
    "dask_jobqueue:SGECluster",
    "dask_kubernetes.operator:KubeCluster",
    "dask_gateway:GatewayCluster",
    "coiled:Cluster",
)
LOOPBACK = ("127.", "localhost", "[::1]", "::1")
_HOSTS = ("host", "ip", "scheduler_ip")
"""Where LocalCluster's arguments name the interface on which its scheduler listens."""


def is_loopback(host: str) -> bool:
    return host.split("://")[-1].startswith(LOOPBACK)


def warning_of(address: str) -> str | None:
    """Return what must be said of an address, if anything.

    Examples
    --------
    >>> warning_of("tls://10.0.0.5:8786"), warning_of("tcp://127.0.0.1:8786")
    (None, None)
    """
    if not address.startswith("tcp://") or is_loopback(address):
        return None
    return (
        f"WARNING: {address} is neither encrypted nor protected: whoever reaches this port can run any code as you, "
        "here and on the workers; use tls://"
    )


def check_allowed(scheduler: Scheduler, further: Sequence[str] = ()) -> None:
    """Refuse a cluster that is not on the list, or whose scheduler anyone could reach; nothing is imported.

    Parameters
    ----------
    further
        Classes that the command line allows besides, as MODULE:CLASS.

    Raises
    ------
    PipelineError, UsageError
        A class that is not allowed; an entry of `further` that is none.
    """
    for name in further:
        if not all(part.strip(".") for part in name.split(":")) or name.count(":") != 1:
            raise UsageError(f"--allow-cluster takes MODULE:CLASS, got {name!r}")
    if not isinstance(scheduler, Cluster):
        return
    if scheduler.full_name not in (*ALLOWED, *further):
        raise PipelineError(
            f"{scheduler.full_name} is not a cluster that a file may start (it may: {', '.join(ALLOWED)}); if you "
            f"trust it, add --allow-cluster {scheduler.full_name} to the command",
            ("run", "scheduler"),
        )
    if scheduler.class_name == "LocalCluster":
        _check_private(scheduler)


def _check_private(cluster: Cluster) -> None:
    for name in _HOSTS:
        host = cluster.kwargs.get(name)
        if host is not None and not is_loopback(str(host)):
            raise PipelineError(
                f"a scheduler at {host!r} takes commands from anyone who reaches it; leave `{name}` out (127.0.0.1)",
                ("run", "scheduler", "kwargs"),
            )
