"""How long a request to an object store may take, and who waits for it: nobody who wants to leave."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from zarr.core.sync import sync

SECONDS = 30.0
"""Of a request, retries and all, beside what its bytes take."""
BYTES_PER_SECOND = 2**20
LOOK_SECONDS = 0.1
SOON_SECONDS, LAST_SECONDS = 0.6, 1.6
"""After a call to `hurry`: what requests have that wait then, and those that come after them."""
FORGET_SECONDS = 5.0

Answer = TypeVar("Answer")
_called = -math.inf


def hurry() -> None:
    """Let requests end within a second or two, the next few included: who waits for them is to leave.

    Examples
    --------
    What a handler of SIGTERM does, before it raises what ends the run.
    """
    global _called
    _called = time.monotonic()


async def limited(request: Awaitable[Answer], num_bytes: int = 0) -> Answer:
    """Return the answer to a request that sends or brings some bytes.

    Raises
    ------
    TimeoutError
        It did not come in time.
    """
    began = time.monotonic()
    allowed = SECONDS + num_bytes / BYTES_PER_SECOND
    task = asyncio.ensure_future(request)
    try:
        while not task.done():
            now = time.monotonic()
            if now - began > allowed:
                raise TimeoutError(f"timed out: no whole answer came within {allowed:.0f} s")
            if now - _called < FORGET_SECONDS and now - _called > (SOON_SECONDS if began < _called else LAST_SECONDS):
                raise TimeoutError("was not waited for, for the run is to end")
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
        return task.result()
    finally:
        task.cancel()


def answer_to(request: Callable[..., Awaitable[Any]], *arguments: Any, num_bytes: int = 0, **options: Any) -> Any:
    """Return the answer to a request, which is made on zarr's event loop: a signal does not wait for it."""

    async def ask() -> Any:
        return await limited(request(*arguments, **options), num_bytes)

    try:
        return sync(ask())
    except KeyboardInterrupt:
        hurry()
        raise
