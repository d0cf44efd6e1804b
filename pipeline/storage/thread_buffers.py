"""Bytes that each thread uses again and again."""

from __future__ import annotations

import threading

import numpy as np


class ThreadBuffers(threading.local):
    """Room for what a codec makes: fresh memory would be mapped by the system page by page, which takes as long."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def take(self, name: str, size: int) -> np.ndarray:
        """Return so many bytes, which hold until the thread asks for the name again."""
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, np.uint8)
        return held[:size]
