"""A synthetic scene: fields, woods, water, towns and roads with noise, generated out of core, the same for a seed."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.output_name import check_output_name
from pipeline.config.scalar import check_characters
from pipeline.model.affine import Affine
from pipeline.model.errors import OutputError, UsageError, unknown
from pipeline.model.raster import DTYPES, RasterSpec
from pipeline.model.region import Axis, Grid, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.model.stored import StoredArray

MARKER = "rasterpipe_synth"
"""Group attribute that says that a store is ours and may be overwritten; it holds the parameters."""
VERSION = 1
"""Counted up when the pixels of a seed change."""

CRS = "EPSG:32633"
TRANSFORM = Affine(10.0, 0.0, 399960.0, 0.0, -10.0, 5800020.0)
LARGEST_CHUNK = 512
LARGEST_CHUNK_BYTES = 32 * 2**20
LARGEST_VALUE = 10000

# What each land cover (water, forest, crop, stubble, soil, built) returns, in counts, in blue, green, red, near
# infrared, red edge 1 to 3, narrow near infrared, shortwave infrared 1 and 2, coastal, water vapour: plausible, not
# measured. The four bands of aerial images come first: 3, 2, 1 show natural colours, 4, 3, 2 the infrared.
_SPECTRA = (
    (800, 720, 400, 190, 320, 240, 210, 180, 100, 60, 1120, 160),
    (400, 720, 450, 4480, 1280, 3360, 4160, 4640, 2080, 960, 350, 4480),
    (560, 1120, 640, 6880, 1920, 5280, 6400, 7040, 3200, 1600, 480, 6400),
    (1120, 1760, 2400, 4640, 2880, 3680, 4000, 4640, 5280, 3680, 960, 4480),
    (1440, 2000, 2640, 3840, 3120, 3360, 3600, 3920, 5120, 4320, 1200, 3680),
    (2240, 2480, 2720, 3520, 2960, 3120, 3280, 3520, 4000, 3680, 2080, 3360),
)


def synth(
    path: str | Path,
    *,
    size: tuple[int, int],
    bands: int = 16,
    dtype: str = "float32",
    seed: int = 0,
    labels: str | Path | None = None,
    num_labels: int = 1000,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a plausible scene, and on request a label raster, as Zarr groups that xarray opens.

    A pixel depends on its row, column, band and the seed alone: not on size, number of bands, chunks, threads, or
    dtype but for its range. Values are whole numbers, also in floating-point scenes, as sensors deliver counts: 0 to
    10000, or to the dtype's maximum where that is less (8 bit).

    Parameters
    ----------
    path
        Where the group with the array ``scene`` (y, x, band) is written.
    size
        Rows and columns.
    dtype
        One of `pipeline.model.raster.DTYPES`.
    seed
        Any integer; seeds that differ by a multiple of 2**64 are one.
    labels
        Where the group with the array ``labels`` (y, x; int32) is written. Its segments are contiguous but for some
        pixels at their corners, irregular, and numbered from 1 without a gap. They follow the seed, not the scene.
    num_labels
        Segments wanted; the number made (``labels.num_labels`` of the result) is the nearest that a lattice of
        nearly square cells allows.
    overwrite
        Replace what an earlier call wrote at `path` or `labels`; nothing else is ever replaced.

    Returns
    -------
    dict
        What was written: path, array, shape, dims, dtype, chunks, bytes, seed, labels, seconds.

    Raises
    ------
    UsageError
        If an argument is out of range.
    OutputError
        If a path exists and may not be replaced, or cannot be written.
    """
    start = time.perf_counter()
    for place in (path, labels):
        check_characters(os.path.abspath(place) if place is not None else "", "")
    products = [_scene_product(Path(path), _checked_size(size), bands, dtype, seed)]
    if labels is not None:
        products.append(_labels_product(Path(labels), _checked_size(size), num_labels, seed))
    _check_apart(products)
    for product in products:
        _check_target(product.path, overwrite)
    with ExitStack() as stack, _codec_settings():
        for product in products:
            _write(product, stack.enter_context(_replacing(product.path)))
    summaries = [product.summary() for product in products]
    return {
        **summaries[0],
        "seed": seed,
        "labels": summaries[1] if labels is not None else None,
        "seconds": round(time.perf_counter() - start, 3),
    }


# ---------------------------------------------------------------- what is to be written


@dataclass(frozen=True, slots=True)
class _Product:
    """A store to be written: one raster, and the function that computes any region of it."""

    path: Path
    array: str
    spec: RasterSpec
    parameters: dict[str, Any]
    compute: Callable[[Region], np.ndarray]

    @property
    def chunks(self) -> tuple[int, ...]:
        # All bands lie in one chunk; many bands make it smaller in y and x.
        side = min(LARGEST_CHUNK, max(1, math.isqrt(LARGEST_CHUNK_BYTES // self.spec.pixel_bytes)))
        chunk = (chunk_length(self.spec.height, side), chunk_length(self.spec.width, side))
        return (*chunk, self.spec.num_bands) if "band" in self.spec.dims else chunk

    def summary(self) -> dict[str, Any]:
        from pipeline.storage.zarr.store import stored_bytes

        return {
            "path": str(self.path),
            "array": self.array,
            "shape": list(self.spec.shape),
            "dims": list(self.spec.dims),
            "dtype": self.spec.dtype.name,
            "chunks": list(self.chunks),
            "bytes": stored_bytes(str(self.path), self.array),
            **({"num_labels": self.parameters["num_labels"]} if "num_labels" in self.parameters else {}),
        }


def _scene_product(path: Path, size: tuple[int, int], bands: int, dtype: str, seed: int) -> _Product:
    if bands < 1:
        raise UsageError(f"bands must be at least 1, got {bands}")
    if dtype not in DTYPES:
        raise UsageError(unknown("dtype", dtype, DTYPES))
    spec = _spec(size, np.dtype(dtype), ("y", "x", "band"), bands)
    signature, scale = band_signature(bands), value_scale(spec.dtype)

    def compute(region: Region) -> np.ndarray:
        from pipeline.verbs.demo.scene import scene

        block = np.empty((*region.shape, bands), np.float32)
        scene(block, region.top, region.left, 0, _seed(seed), signature, scale)
        return block.astype(spec.dtype, copy=False)  # whole numbers in the dtype's range: exact, but for float16

    parameters = {"kind": "scene", "size": list(size), "bands": bands, "dtype": dtype, "seed": seed}
    return _Product(path, "scene", spec, parameters, compute)


def _labels_product(path: Path, size: tuple[int, int], num_labels: int, seed: int) -> _Product:
    cells = segment_lattice(*size, num_labels)

    def compute(region: Region) -> np.ndarray:
        from pipeline.verbs.demo.scene import segments

        block = np.empty(region.shape, np.int32)
        segments(block, region.top, region.left, size, cells, _seed(seed))
        return block

    parameters = {"kind": "labels", "size": list(size), "num_labels": cells[0] * cells[1], "seed": seed}
    return _Product(path, "labels", _spec(size, np.dtype(np.int32), ("y", "x"), 1), parameters, compute)


def _spec(size: tuple[int, int], dtype: np.dtype, dims: tuple[str, ...], bands: int) -> RasterSpec:
    names = tuple(f"b{i + 1}" for i in range(bands))
    return RasterSpec(size[0], size[1], dtype, dims, names, transform=TRANSFORM, crs=CRS)


def _seed(seed: int) -> np.uint64:
    return np.uint64(seed % 2**64)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    if height < 1 or width < 1:
        raise UsageError(f"size must be at least 1 row and 1 column, got {height} {width}; give rows, then columns")
    return height, width


def chunk_length(length: int, largest: int) -> int:
    """Return a chunk length of at most `largest` that divides the axis, else cuts it almost evenly.

    Examples
    --------
    >>> [chunk_length(length, 512) for length in (5000, 10000, 300, 1024, 1009)]
    [500, 500, 300, 512, 505]
    """
    count = -(-length // largest)
    even = (n for n in range(count, 2 * count) if length % n == 0)
    return -(-length // next(even, count))


def value_scale(dtype: np.dtype) -> np.float32:
    """Return the factor from counts of 0 to 10000 to the values of a dtype."""
    top = LARGEST_VALUE if dtype.kind == "f" else min(LARGEST_VALUE, int(np.iinfo(dtype).max))
    return np.float32(top / LARGEST_VALUE)


def band_signature(bands: int) -> np.ndarray:
    """Return what each land cover returns in each band, float32 (cover, band).

    Bands past the twelfth are mixtures of two others, a different pair each.
    """
    table = np.array(_SPECTRA, dtype=np.float32)
    num_known = table.shape[1]
    index = np.arange(bands)
    turn = index // num_known
    share = (np.where(turn == 0, 1.0, 0.6)).astype(np.float32)
    mixed = share * table[:, index % num_known] + (1 - share) * table[:, (index + turn * 5) % num_known]
    return np.ascontiguousarray(mixed, dtype=np.float32)


def segment_lattice(height: int, width: int, num_labels: int) -> tuple[int, int]:
    """Return rows and columns of a lattice of about `num_labels` nearly square cells, each of a pixel or more.

    Examples
    --------
    >>> segment_lattice(5000, 5000, 1000), segment_lattice(1, 100, 7), segment_lattice(10, 10, 100)
    ((32, 31), (1, 7), (10, 10))
    """
    largest = min(height * width, 2**31 - 1)
    if not 1 <= num_labels <= largest:
        raise UsageError(
            f"num_labels must be from 1 to {largest} for {height} x {width} pixels (int32 labels), got {num_labels}"
        )
    ideal = math.sqrt(num_labels * height / width)
    low, high = (min(height, max(1, round(ideal * factor))) for factor in (0.85, 1.18))
    choices = ((rows, min(width, max(1, round(num_labels / rows)))) for rows in range(low, high + 1))

    def cost(cells: tuple[int, int]) -> float:
        rows, columns = cells
        return abs(rows * columns / num_labels - 1) + 0.1 * abs(math.log(rows * width / (columns * height)))

    return min((cells for cells in choices if cells[0] * cells[1] <= 2**31 - 1), key=cost)


# ---------------------------------------------------------------- where it is written


def _check_apart(products: list[_Product]) -> None:
    for product in products:
        try:
            check_output_name(str(product.path))
        except ValueError as error:
            raise UsageError(f"{product.path}: {error}") from None
    paths = [Path(os.path.abspath(product.path)) for product in products]
    for i, path in enumerate(paths):
        for other in paths[:i]:
            if path == other or path in other.parents or other in path.parents:
                raise UsageError(f"the labels {path} and the scene {other} overlap; give two paths beside each other")


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuse a path that exists, unless it may be overwritten and an earlier call wrote it."""
    if os.path.lexists(path):
        if not is_synthetic(path):
            raise OutputError(f"{path} exists and is not a synthetic scene or its labels; take another path")
        if not overwrite:
            raise OutputError(f"{path} exists; use --overwrite to replace it, or take another path")
    for spare in (_beside(path, "new"), _beside(path, "old")):
        if os.path.lexists(spare) and not (overwrite and is_synthetic(spare)):
            raise OutputError(
                f"{spare} exists: left by a run that was killed, or another run is writing it; delete it"
                + (" (or use --overwrite)" if is_synthetic(spare) else "")
            )


def is_synthetic(path: Path) -> bool:
    """Return whether a folder is a Zarr group that bears the generator's attribute."""
    try:
        metadata = json.loads((path / "zarr.json").read_text())
        return not path.is_symlink() and metadata["node_type"] == "group" and MARKER in metadata["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; put it in place at the end, or remove it if anything fails or interrupts."""
    new, old = _beside(path, "new"), _beside(path, "old")
    for spare in (new, old):
        if is_synthetic(spare):
            shutil.rmtree(spare)
    try:
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


# ---------------------------------------------------------------- writing


@contextmanager
def _codec_settings() -> Iterator[None]:
    """Let the codecs use the threads that compute, and no more."""
    import zarr

    settings = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
    with zarr.config.set(settings):
        yield


def _write(product: _Product, path: Path) -> None:
    from pipeline.model.stored import StoredArray
    from pipeline.storage.zarr.store import ZarrWriter

    plan = StoredArray(product.array, product.spec, product.chunks, None, "fast", product.spec.region)
    _create(product, plan, path)
    writer = ZarrWriter(str(path), plan)

    def write_block(region: Region) -> None:
        writer.write(region, product.compute(region))

    rows, columns = plan.unit
    height, width = product.spec.height, product.spec.width
    grid = Grid(Axis(0, height, rows), Axis(0, width, columns), panel=-(-width // columns))
    _for_each(write_block, (grid.block(number) for number in range(len(grid))))


def _create(product: _Product, plan: StoredArray, path: Path) -> None:
    import zarr

    from pipeline.storage.folder.local import LocalFolder
    from pipeline.storage.zarr.store import consolidate, create_array, write_coordinates

    attributes = {MARKER: {"version": VERSION, **product.parameters}}
    root = zarr.create_group(LocalFolder(path).pixel_store(), zarr_format=3, attributes=attributes)
    write_coordinates(root, product.spec)
    create_array(root, plan)
    root[product.array].attrs.update({MARKER: {"version": VERSION, **product.parameters}})
    consolidate(str(path))


def _for_each(function: Callable[[Region], None], regions: Iterator[Region]) -> None:
    """Call a function for each region on all CPUs, with few calls in flight; stop at the first that fails."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flying: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="synth") as pool:
        try:
            for region in regions:
                flying.append(pool.submit(function, region))
                if len(flying) >= 2 * workers:
                    flying.popleft().result()
            while flying:
                flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()
