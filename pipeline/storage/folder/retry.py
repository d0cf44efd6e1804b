"""Reading or writing again after an error that may pass: a busy disk, a server that does not answer."""

from __future__ import annotations

import errno
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.model.errors import ChunkAway, RasterpipeError
from pipeline.storage.folder.base import RemoteError

TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EAGAIN", "EBUSY", "EINTR", "ETIMEDOUT", "ESTALE", "EREMOTEIO", "EPIPE", "ENOBUFS"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ENOTCONN"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH"),
    )
    if hasattr(errno, name)
)
"""Errors that may pass. Not among them: a full disk, no permission, a missing file, a damaged chunk."""

RETRIES = 3
FIRST_SECONDS = 0.2
FACTOR = 4
MOST_SECONDS = 30.0
POLL_SECONDS = 0.1

Result = TypeVar("Result")


def is_transient(error: BaseException) -> bool:
    """Return whether an error may pass by itself: what the innermost cause with an error number says.

    Examples
    --------
    >>> is_transient(OSError(errno.EIO, "Input/output error")), is_transient(OSError(errno.ENOSPC, "full"))
    (True, False)
    >>> is_transient(RuntimeError("Stale file handle (os error 116)"))  # from zarrs, which is not of Python
    True
    """
    found = [_verdict(link) for link in _chain(error)]
    return next((verdict for verdict in reversed(found) if verdict is not None), False)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _verdict(error: BaseException) -> bool | None:
    if isinstance(error, RemoteError):
        return error.may_pass
    if isinstance(error, ChunkAway):
        return True
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TRANSIENT
    numbers = re.findall(r"\(os error (\d+)\)", str(error))
    return int(numbers[-1]) in TRANSIENT if numbers else None


class Retry:
    """Calls functions that read or write, again after transient errors; threads may share it, and it pickles."""

    def __init__(self, retries: int = RETRIES, stopped: Callable[[], bool] = bool) -> None:
        self.retries, self.stopped = retries, stopped
        """How often at most after the first time; whether the run stops anyway, so that waiting is in vain."""
        self.count = 0
        """Calls repeated so far."""
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"retries": self.retries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return what the function returns; what it does twice must be as if done once."""
        for attempt in range(self.retries):
            try:
                return function(*args)
            except Exception as error:
                if not is_transient(error) or not self._wait(attempt):
                    raise
            with self._lock:
                self.count += 1
        try:
            return function(*args)
        except RasterpipeError as error:
            if not self.retries or not is_transient(error):
                raise
            raise type(error)(f"{error} (tried {self.retries + 1} times)") from error

    def _wait(self, attempt: int) -> bool:
        """Wait before the next attempt, each time longer, by a random part less; return whether to try at all."""
        seconds = min(MOST_SECONDS, FIRST_SECONDS * FACTOR**attempt) * random.uniform(0.5, 1)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.stopped():
                return False
            time.sleep(min(left, POLL_SECONDS))
        return not self.stopped()
