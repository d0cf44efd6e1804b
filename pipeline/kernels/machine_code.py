"""Machine code of kernels: compiled by numba when they are first called, and kept on disk.

Nothing here is imported before: numba takes 0.2 s, which a plan, a schema or a refusal need not wait for.
"""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import cpu_target
from numba.extending import intrinsic, register_jitable

_V3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
PROCESSORS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "x86-64-v4": (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
        "x86-64-v3": _V3,
    },
}
"""By kind of machine the processors that wheels carry kernels for, best first, with what they must have."""
PROBE_BYTES = 2**20
"""About what the code of a kernel takes."""
_folders: dict[str, None] = {}
"""Where compiled kernels lie; one folder, unless the user's settings change between imports."""
_njit: Any = numba.njit
_config: Any = numba.config
_register: Any = register_jitable


def make_kernel(function: Callable[..., Any]) -> Any:
    dispatcher = _njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    with suppress(RuntimeError):  # numba finds no folder for its cache
        dispatcher._cache = _SharedCache(function)  # as numba's own `cache=True` does
    return dispatcher


def make_intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


def make_inner(function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Let kernels call a function, which stays what it is to Python."""
    _register(error_model="numpy", no_cfunc_wrapper=True, pipeline_class=_InnerCompiler, **options)(function)


class _InnerCompiler(Compiler):
    """Compiles a function that only kernels call."""

    def define_pipelines(self) -> Any:
        state: Any = self.state
        state.library = _InnerLibrary(state.targetctx.codegen(), state.func_id.func_qualname)  # type: ignore[no-untyped-call]
        return super().define_pipelines()  # type: ignore[no-untyped-call]


class _InnerLibrary(JITCodeLibrary):
    """A function that is linked into its callers and optimised with them, and gets no machine code of its own.

    numba would optimise and generate it twice: a third of the time to compile a kernel.
    """

    def _optimize_final_module(self) -> None:
        manager, builder = self._codegen._module_pass_manager(
            loop_vectorize=False, slp_vectorize=False, opt=self._codegen._opt_level, cost="cheap"
        )
        manager.run(self._final_module, builder)

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call]
        self._verify_declare_only_symbols()  # type: ignore[no-untyped-call]
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()  # type: ignore[no-untyped-call]
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Leave out what only Python objects would need, at an address that there is not."""


def type_of(made: Any) -> Any:
    """Return what numba takes a kernel or an intrinsic for where another kernel names it."""
    return cpu_target.typing_context.resolve_value_type(made)


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


@cache
def stamp(folder: Path) -> str:
    """Return a digest of all that machine code depends on: the sources of all kernels, numba and llvmlite.

    Of these kernels, and of those beside the one in question, which may be of another package.
    """
    digest = sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for file in sorted({*Path(__file__).parent.glob("*.py"), *folder.glob("*.py")}):
        digest.update(f"{file.name} {sha256(file.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


@cache
def carried_folders(kernels: Path) -> dict[str, Path]:
    """Return the folders of compiled kernels that a package carries, by the processors that they are for.

    Of those that this processor can run, the best first; none where the user names a processor to numba.
    """
    if not (kernels / "compiled").is_dir() or _config.CPU_NAME or _config.CPU_FEATURES is not None:
        return {}
    features = llvmlite.binding.get_host_cpu_features()
    known = PROCESSORS.get(platform.machine(), {})
    able = [name for name, needed in known.items() if all(features.get(feature) for feature in needed)]
    return {name: kernels / "compiled" / name for name in able if (kernels / "compiled" / name).is_dir()}


class _SharedCache(FunctionCache):
    """numba's cache on disk, for processes that fill it at once, fresh for as long as no kernel changes.

    numba itself would let two of them give one file to two signatures, and hand a third the kernel of the wrong one.
    Nor does it look at more than the file of the kernel, whose machine code holds inner functions of other files.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        version = stamp(Path(function.__code__.co_filename).parent)
        self._cache_file = _index_file(self.cache_path, self._impl.filename_base, version)
        _folders[self.cache_path] = None
        self._carried = [
            (processor, _index_file(str(folder), self._impl.filename_base, version))
            for processor, folder in carried_folders(Path(function.__code__.co_filename).parent).items()
        ]

    def load_overload(self, signature: Any, context: Any) -> Any:
        context.refresh()
        if (carried := self._load_carried(signature, context)) is not None:
            return carried
        with _locked(self.cache_path, fcntl.LOCK_SH):
            return super().load_overload(signature, context)  # type: ignore[no-untyped-call]

    def _load_carried(self, signature: Any, context: Any) -> Any:
        """Return a kernel that came with the package, compiled for a processor whose instructions this one has."""
        for processor, file in self._carried:
            key: Any = self._index_key(signature, context.codegen())  # type: ignore[no-untyped-call]
            (triple, *_), rest = key[1], key[2:]
            with suppress(OSError):
                data = file.load((signature, (triple, processor, ""), *rest))
                if data is not None:
                    return self._impl.rebuild(context, data)
        return None

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


def _index_file(folder: str, name: str, version: str) -> IndexDataCacheFile:
    file = IndexDataCacheFile(folder, name, version)
    # compared before what an index holds is unpickled: classes of tuples that are gone, maybe
    file._version = version
    return file


@contextmanager
def _locked(folder: str, how: int) -> Iterator[None]:
    """Hold the lock of a folder; where it cannot be had (no folder yet, or one to read only), go on without."""
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open(os.path.join(folder, "rasterpipe.lock"), "a"))
            fcntl.flock(file, how)
        yield


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
