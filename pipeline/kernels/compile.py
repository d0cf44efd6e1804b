"""How kernels are declared: one place for the options that exactness and threads depend on.

numba is imported when the first kernel is called; `kernels.machine_code` has what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from threading import RLock
from typing import Any, ParamSpec, TypeVar, cast

UNCOUNTED: dict[str, Any] = {"_nrt": False}
"""numba's option for functions that own no array: no references are counted."""
P = ParamSpec("P")
T = TypeVar("T")
_lock = RLock()
_untold: list[Callable[[Any], object]] = []
"""What numba has not been told of yet: functions that only kernels call."""
alone = False
"""Whether this process runs no other code of numba's: a command does not, and so starts faster."""


def _machine_code() -> Any:
    """Return the module of the compiler, which knows all functions that kernels may call."""
    with _lock:
        from pipeline.kernels import machine_code as module

        if alone and _untold:
            module.leave_out_blas()
        while _untold:
            _untold.pop()(module)
        return module


class _Late:
    """A function that numba makes of one when it is needed: called, or named by another kernel."""

    def __init__(self, function: Callable[..., Any], make: str) -> None:
        update_wrapper(self, function)
        self._function, self._make = function, make
        self._made: Any = None

    @property
    def made(self) -> Any:
        if self._made is None:
            with _lock:
                module = _machine_code()
                self._made = self._made or getattr(module, self._make)(self._function)
        return self._made

    def __call__(self, *arguments: Any) -> Any:
        return (self._made or self.made)(*arguments)

    @property
    def _numba_type_(self) -> Any:
        return _machine_code().type_of(self.made)

    def __reduce__(self) -> str:
        return self._function.__qualname__


class _Types:
    """numba's types, imported when one is used."""

    def __getattr__(self, name: str) -> Any:
        from numba.core import types

        return getattr(types, name)


class _Cgutils:
    """What numba has for those who generate LLVM's code, imported when it is used."""

    def __getattr__(self, name: str) -> Any:
        from numba.core import cgutils

        return getattr(cgutils, name)


types: Any = _Types()
cgutils: Any = _Cgutils()


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function with numba: without the GIL, cached on disk, IEEE arithmetic.

    Never `parallel` (dask owns the cores) and never `fastmath`: it reorders sums and contracts products into fused
    multiply-adds, differently in each loop, and results would depend on the path a block takes. Where numba finds
    no folder for its cache, neither beside the file nor in the user's, each process compiles for itself.
    """
    return cast("Callable[P, T]", _Late(function, "make_kernel"))


def intrinsic(function: Callable[..., Any]) -> Any:
    """Make a function of kernels from one that generates LLVM's code (and takes numba's context besides)."""
    late = _Late(function, "make_intrinsic")
    _untold.append(lambda module: late.made)
    return late


def inner(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function that only kernels call, without a cache file of its own: it is cached with its callers.

    It owns no array: it may take parts of its arguments, but neither allocate arrays nor return parts (numba refuses
    both), nor call a function that does (numba does not refuse: the memory would never be freed). So no references
    are counted. That is why the loops of a kernel stand in an inner function, and what it allocates in the kernel:
    counting the slices of one row costs as much as adding 500 numbers (measured: 1 microsecond of atomic operations
    for each row of a window's mean and variance).

    Nor does it get wrappers to be called from Python, where it stays the plain function: of the time to compile all
    kernels, these took a fifth.
    """
    return _declare(function, UNCOUNTED)


def owning(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function that allocates or returns arrays, or parts of them: as `inner`, but not for `inner` ones."""
    return _declare(function, {})


def _declare(function: Callable[P, T], options: dict[str, Any]) -> Callable[P, T]:
    _untold.append(lambda module: module.make_inner(function, options))
    return function


def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    single, double = types.float32, types.float64
    number = single if a == b == c == single else double
    return number(number, number, number), generate


fma = cast("Callable[[float, float, float], float]", intrinsic(_fma))
"""a b + c, rounded once: said outright, so that it is the same in every loop and on every machine.

In float32 if all three are float32, else in float64.
"""
