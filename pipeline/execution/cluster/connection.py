"""The way to a cluster: a dask scheduler at an address, or one that is started for the run."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from typing import Any

from pipeline.config.scheduler import LOCAL_CLUSTERS, WAIT_SECONDS, Cluster, Scheduler
from pipeline.execution.cluster.crew import Crew
from pipeline.model.errors import PipelineError

PLACE = ("run", "scheduler")
CONNECT_SECONDS = 10
CLOSE_SECONDS = 3
"""A scheduler that is gone says no goodbye."""


@contextlib.contextmanager
def connect(scheduler: Scheduler) -> Iterator[Crew]:
    """Connect to a dask scheduler, or start a cluster, and wait for its first worker; close what was started.

    That it may be, the pipeline must have been asked (`config.trust.check_trust`). TLS certificates come from dask's
    configuration (`distributed.comm.tls`), never from the pipeline file.

    Raises
    ------
    PipelineError
        distributed is missing, nothing answers, the cluster cannot be started, or no worker comes.
    """
    try:
        from distributed import Client
    except ImportError:
        raise PipelineError(
            "a cluster needs the package distributed, which is not installed; pip install 'rasterpipe[cluster]'", PLACE
        ) from None
    _quiet_distributed()
    wait = scheduler.wait if isinstance(scheduler, Cluster) else WAIT_SECONDS
    with contextlib.ExitStack() as stack:
        target: Any = scheduler
        if isinstance(scheduler, Cluster):
            target = stack.enter_context(_started(scheduler))
        try:
            client = Client(target, set_as_default=False, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TypeError) as error:
            raise PipelineError(f"no dask scheduler answers at {scheduler}: {error}", PLACE) from error
        stack.callback(client.close, timeout=CLOSE_SECONDS)
        try:
            client.wait_for_workers(1, timeout=wait)
        except TimeoutError:
            remedy = "start workers (`dask worker ADDRESS`)" if target is scheduler else "look at the cluster's log"
            raise PipelineError(f"no worker came within {wait:g} s; {remedy}, or wait longer", PLACE) from None
        crew = Crew(client, wait)
        stack.callback(crew.close)
        yield crew


def _quiet_distributed() -> None:
    """Let distributed not tell what a run says itself: lost workers, a scheduler that is gone.

    What nannies and workers say of their memory is heard.
    """
    for name in ("client", "core", "scheduler", "comm", "utils"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)


def _private(cluster: Cluster) -> dict[str, str]:
    """Return arguments with which a LocalCluster is on loopback: its own defaults let everybody see the dashboard."""
    if cluster.full_name not in LOCAL_CLUSTERS:
        return {}
    arguments = {"dashboard_address": "127.0.0.1:8787"}
    if cluster.kwargs.get("processes") is False and "security" not in cluster.kwargs:
        arguments["protocol"] = "tcp://"  # else it is known by the machine's address, and its worker listens there
    return {key: value for key, value in arguments.items() if key not in cluster.kwargs}


@contextlib.contextmanager
def _started(cluster: Cluster) -> Iterator[Any]:
    name = cluster.full_name
    try:
        start = getattr(importlib.import_module(cluster.module), cluster.class_name)
    except (ImportError, AttributeError) as error:
        raise PipelineError(f"{name} cannot be imported ({error}); install its package", PLACE) from error
    try:
        started = start(*cluster.args, **_private(cluster), **cluster.kwargs)
        if cluster.scale is not None:
            started.scale(cluster.scale)
        if cluster.adapt is not None:
            started.adapt(**cluster.adapt)
    except Exception as error:  # whatever a class outside of our control finds wrong with its arguments
        raise PipelineError(f"{name} cannot be started: {type(error).__name__}: {error}", PLACE) from error
    with contextlib.closing(started):
        yield started
