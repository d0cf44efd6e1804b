"""Files that are open for reading: some at once, for a process may open a thousand and a stack may have more."""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

MOST = 256
Opened = TypeVar("Opened")
"""What closes by itself when nobody holds it."""


class Descriptor:
    """A file that is open as long as somebody holds this."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Descriptors(Generic[Opened]):
    """The files that were read last; those that were read longest ago are closed, as soon as nobody reads them."""

    def __init__(self, most: int | None = None) -> None:
        """`most` is by default a quarter of what the process may open, and no more than 256."""
        self._most = most
        self._open: OrderedDict[int, Opened] = OrderedDict()
        self._lock = threading.RLock()  # a reader may be dropped, and its file with it, wherever Python collects

    def get(self, key: int, opener: Callable[[], Opened]) -> Opened:
        """Return the file of a key, opened where it is not: hold it while you read."""
        with self._lock:
            if (found := self._open.get(key)) is not None:
                self._open.move_to_end(key)
                return found
        opened = opener()
        with self._lock:
            found = self._open.setdefault(key, opened)  # another thread may have been faster
            while len(self._open) > self._limit():
                self._open.popitem(last=False)
        return found

    def drop(self, key: int) -> None:
        """Forget a file."""
        with self._lock:
            self._open.pop(key, None)

    def _limit(self) -> int:
        if self._most is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._most = MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft // 4))
        return self._most


DESCRIPTORS: Descriptors[Descriptor] = Descriptors()
"""Of this process."""
