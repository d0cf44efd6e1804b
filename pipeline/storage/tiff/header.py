"""The directories of a TIFF that is far away, read through windows: few requests, whatever their order."""

from __future__ import annotations

import bisect
import io
import os
from collections.abc import Callable
from typing import Any

from pipeline.model.errors import InputError
from pipeline.model.read_limits import ReadLimits

FIRST_BYTES = 2**16
"""What is asked for at once: the directories of most files."""
GROWTH, LARGEST_BYTES = 8, 2**24
"""How many times as long a window gets that is read beyond its end, and how much comes at once at most."""
ALIGNED_BYTES = 2**12
WINDOW_LIMIT = 1024
"""Requests for the directories of a file: the places of it that are looked at."""

Fetch = Callable[[int, int], bytes]
"""Brings bytes of the file: from the first to the one before the last."""


class Header(io.RawIOBase):
    """A file of which only the parts that are read are fetched, once."""

    def __init__(self, size: int, head: bytes, fetch: Fetch, path: str, limits: ReadLimits) -> None:
        """`head` is how the file begins."""
        self._size, self._fetch, self._path, self._limits = size, fetch, path, limits
        self._starts, self._windows = [0], [bytearray(head)]
        self._held = len(head)
        self._num_requests = 0
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._place + len(view), self._size)
        count = max(0, stop - self._place)
        while self._place < stop:
            data = self._find(self._place, stop)
            view[: len(data)] = data
            view, self._place = view[len(data) :], self._place + len(data)
        return count

    def _find(self, start: int, stop: int) -> memoryview:
        """Return bytes from `start` on, at least one, of the window that holds it or is made to."""
        number = bisect.bisect_right(self._starts, start) - 1
        first, window = self._starts[number], self._windows[number]
        after = self._starts[number + 1] if number + 1 < len(self._starts) else self._size
        if start == first + len(window):
            wanted = max(stop - start, min((GROWTH - 1) * len(window), LARGEST_BYTES))
            window += self._take(start, min(start + wanted, after))
        elif start > first + len(window):
            begin = max(first + len(window), start - start % ALIGNED_BYTES)
            window = bytearray(self._take(begin, min(max(stop, begin + FIRST_BYTES), after)))
            number, first = number + 1, begin
            self._starts.insert(number, first)
            self._windows.insert(number, window)
        return memoryview(bytes(window[start - first : stop - first]))

    def _take(self, start: int, stop: int) -> bytes:
        self._num_requests += 1
        if self._num_requests > WINDOW_LIMIT:
            raise InputError(
                f"{self._path}: its directories lie in more than {WINDOW_LIMIT:,} places, each a request; copy it to a "
                "disk, or write it anew with its directories together (a Cloud Optimized GeoTIFF)"
            )
        self._held += stop - start
        self._limits.check_allocation(f"{self._path}: what is read of its directories", self._held)
        return self._fetch(start, stop)
