"""Where the arrays of a block come from: buffers that a worker thread keeps, as a plan assigns them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Buffers(Protocol):
    """Where a block's arrays come from."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray: ...

    def give(self, array: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Slots:
    """The buffers that a worker thread keeps: their sizes, and which of them serves the k-th request of a block."""

    sizes: tuple[int, ...] = ()
    order: tuple[int, ...] = ()

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes)


NO_SLOTS = Slots()


class SlotPlanner:
    """Assigns the requests of the largest block to slots; an array it hands out occupies no memory."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._order: list[int] = []
        self._free: list[int] = []
        self._held: dict[int, tuple[int, np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = int(np.prod(shape)) * dtype.itemsize
        fitting = [slot for slot in self._free if self._sizes[slot] >= size]
        if fitting:
            slot = min(fitting, key=lambda slot: self._sizes[slot])
            self._free.remove(slot)
        elif self._free:
            slot = max(self._free, key=lambda slot: self._sizes[slot])
            self._free.remove(slot)
            self._sizes[slot] = size
        else:
            slot = len(self._sizes)
            self._sizes.append(size)
        self._order.append(slot)
        array = np.broadcast_to(np.empty((), dtype), shape)
        self._held[id(array)] = (slot, array)
        return array

    def give(self, array: np.ndarray) -> None:
        self._free.append(self._held.pop(id(array))[0])

    @property
    def slots(self) -> Slots:
        return Slots(tuple(self._sizes), tuple(self._order))


class Arena:
    """The buffers of one worker thread, reused block after block.

    Fresh buffers would be page-faulted in by the kernel for every block and would fragment the heap.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._buffers: list[np.ndarray | None] = [None] * len(slots.sizes)
        self._next = 0

    def begin(self) -> None:
        """Start a block: all buffers are free."""
        self._next = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        slot = self._slots.order[self._next]
        self._next += 1
        if (buffer := self._buffers[slot]) is None:
            buffer = self._buffers[slot] = _aligned(self._slots.sizes[slot])
        size = int(np.prod(shape)) * dtype.itemsize
        return buffer[:size].view(dtype).reshape(shape)

    def give(self, array: np.ndarray) -> None:
        """Do nothing: the plan knows when a buffer is free again."""


class Fresh:
    """Plain allocation, where there is no plan for buffers (the lazy Python face, tests)."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)

    def give(self, array: np.ndarray) -> None:
        """Do nothing: Python frees the array."""


def _aligned(size: int, alignment: int = 64) -> np.ndarray:
    buffer = np.empty(size + alignment, np.uint8)
    offset = -buffer.ctypes.data % alignment
    return buffer[offset : offset + size]
