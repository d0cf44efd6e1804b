"""Forks are told from the process that they come from: zarr's and zarrs' threads, and those of obstore, stay there."""

from __future__ import annotations

import os

from pipeline.model.errors import UsageError

_users: set[int] = set()
"""The processes that have opened Zarr stores: this one, or those whose memory it got by a fork."""


def check_not_forked() -> None:
    """Refuse to go on in a fork of a process that has opened stores: it would wait for threads that it does not have.

    Raises
    ------
    UsageError
        Where that is so; the remedy is another way to start processes.
    """
    here = os.getpid()
    if _users - {here}:
        raise UsageError(
            f"process {here} was forked from one that had read or written Zarr before, whose threads it lacks; start "
            'it by spawn instead: multiprocessing.get_context("spawn"), or mp_context= of a ProcessPoolExecutor'
        )
    _users.add(here)
