"""How kernels are compiled: one place for the options that exactness and threads depend on."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import llvmlite
import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic, register_jitable

UNCOUNTED: dict[str, Any] = {"_nrt": False}
"""numba's option for functions that own no array: no references are counted."""
P = ParamSpec("P")
T = TypeVar("T")
_njit: Any = numba.njit
_register: Any = register_jitable


def leave_out_blas() -> None:
    """Keep numba from looking for BLAS, which imports scipy.linalg: 0.1 s or more of each start.

    Before the first kernel is loaded. No kernel multiplies matrices; np.cov in other code of the process would do
    without BLAS.
    """

    def refuse() -> None:
        raise ImportError("left out")

    with suppress(ImportError, AttributeError):
        from numba.np import linalg

        look, linalg.ensure_blas = linalg.ensure_blas, refuse
        try:
            import numba.np.arraymath  # noqa: F401  # looks for it when it is imported
        finally:
            linalg.ensure_blas = look


PROBE_BYTES = 2**20
"""About what the code of a kernel takes."""
_folders: dict[str, None] = {}
"""Where compiled kernels lie; one folder, unless the user's settings change between imports."""


@cache
def stamp(folder: Path) -> str:
    """Return a digest of all that machine code depends on: the sources of all kernels, numba and llvmlite.

    Of these kernels, and of those beside the one in question, which may be of another package.
    """
    digest = sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for file in sorted({*Path(__file__).parent.glob("*.py"), *folder.glob("*.py")}):
        digest.update(f"{file.name} {sha256(file.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


class _SharedCache(FunctionCache):
    """numba's cache on disk, for processes that fill it at once, fresh for as long as no kernel changes.

    numba itself would let two of them give one file to two signatures, and hand a third the kernel of the wrong one.
    Nor does it look at more than the file of the kernel, whose machine code holds inner functions of other files.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        version = stamp(Path(function.__code__.co_filename).parent)
        self._cache_file = IndexDataCacheFile(self.cache_path, self._impl.filename_base, version)
        # compared before what an index holds is unpickled: classes of tuples that are gone, maybe
        self._cache_file._version = version
        _folders[self.cache_path] = None

    def load_overload(self, *arguments: Any) -> Any:
        with _locked(self.cache_path, fcntl.LOCK_SH):
            return super().load_overload(*arguments)  # type: ignore[no-untyped-call]

    def save_overload(self, *arguments: Any) -> None:
        with suppress(OSError), _locked(self.cache_path, fcntl.LOCK_EX):  # the kernel is compiled all the same
            os.makedirs(self.cache_path, exist_ok=True)
            super().save_overload(*arguments)  # type: ignore[no-untyped-call]


def cache_fault() -> str:
    """Return why compiled kernels cannot be kept, as far as a small file tells; nothing where they can."""
    folder = next(iter(_folders), None)
    if folder is None:
        return "no folder for them can be written; name one in NUMBA_CACHE_DIR"
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="rasterpipe-") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return ""


@contextmanager
def _locked(folder: str, how: int) -> Iterator[None]:
    """Hold the lock of a folder; where it cannot be had (no folder yet, or one to read only), go on without."""
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open(os.path.join(folder, "rasterpipe.lock"), "a"))
            fcntl.flock(file, how)
        yield


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function with numba: without the GIL, cached on disk, IEEE arithmetic.

    Never `parallel` (dask owns the cores) and never `fastmath`: it reorders sums and contracts products into fused
    multiply-adds, differently in each loop, and results would depend on the path a block takes. Where numba finds
    no folder for its cache, neither beside the file nor in the user's, each process compiles for itself.
    """
    dispatcher = _njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    with suppress(RuntimeError):
        dispatcher._cache = _SharedCache(function)  # as numba's own `cache=True` does
    return cast("Callable[P, T]", dispatcher)


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
    options = {"error_model": "numpy", "no_cfunc_wrapper": True} | UNCOUNTED
    return cast("Callable[P, T]", _register(**options)(function))


def owning(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function that allocates or returns arrays, or parts of them: as `inner`, but not for `inner` ones."""
    return cast("Callable[P, T]", _register(error_model="numpy", no_cfunc_wrapper=True)(function))


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
