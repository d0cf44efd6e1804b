"""How kernels are compiled: one place for the options that exactness and threads depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core import event
from numba.extending import intrinsic

UNCOUNTED: dict[str, Any] = {"_nrt": False}
"""numba's option for functions that own no array: no references are counted."""
P = ParamSpec("P")
T = TypeVar("T")


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function with numba: without the GIL, cached on disk, IEEE arithmetic.

    Never `parallel` (dask owns the cores) and never `fastmath`: it reorders sums and contracts products into fused
    multiply-adds, differently in each loop, and results would depend on the path a block takes. Where numba finds
    no folder for its cache, neither beside the file nor in the user's, each process compiles for itself.
    """
    try:
        return cast("Callable[P, T]", numba.njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:
        return owning(function)


def inner(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function that only kernels call, without a cache file of its own: it is cached with its callers.

    It owns no array: it may take parts of its arguments, but neither allocate arrays nor return parts (numba refuses
    both), nor call a function that does (numba does not refuse: the memory would never be freed). So no references
    are counted. That is why the loops of a kernel stand in an inner function, and what it allocates in the kernel:
    counting the slices of one row costs as much as adding 500 numbers (measured: 1 microsecond of atomic operations
    for each row of a window's mean and variance).

    numba looks at the date of the caller's file alone: after a change to an inner function in another file, save the
    caller's file too, or delete ``__pycache__``.
    """
    return cast("Callable[P, T]", numba.njit(nogil=True, error_model="numpy", **UNCOUNTED)(function))


def owning(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function that allocates or returns arrays, or parts of them: as `inner`, but not for `inner` ones."""
    return cast("Callable[P, T]", numba.njit(nogil=True, error_model="numpy")(function))


def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    single, double = numba.types.float32, numba.types.float64
    number = single if a == b == c == single else double
    return number(number, number, number), generate


fma = cast("Callable[[float, float, float], float]", intrinsic(_fma))
"""a b + c, rounded once: said outright, so that it is the same in every loop and on every machine.

In float32 if all three are float32, else in float64.
"""


class NotCompiledError(Exception):
    """A kernel is not in numba's cache."""


@contextmanager
def cached_only() -> Iterator[None]:
    """Raise NotCompiledError where a kernel would be compiled, before that begins."""
    listener = _Refusal()
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)


class _Refusal(event.Listener):
    def on_start(self, event: Any) -> None:
        raise NotCompiledError

    def on_end(self, event: Any) -> None:
        """Nothing has begun."""
