"""A synthetic scene: fields, woods, water, towns and roads with noise, generated out of core, the same for a seed.

A pixel depends on its row, column, band and the seed alone: not on size, number of bands, chunks, threads, or dtype but
for its range. Values are whole numbers, also in floating-point scenes, as sensors deliver counts: 0 to 10000, or to the
dtype's maximum where that is less (8 bit).

Segments are contiguous but for some pixels at their corners, irregular, and numbered from 1 without a gap. They follow
the seed, not the scene.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.model.region import Axis, Grid, Region
from pipeline.model.stored import StoredArray
from pipeline.verbs.demo.product import Product, labels_product, scene_product
from pipeline.verbs.demo.target import MARKER, check_apart, check_target, replacing

VERSION = 1
"""Counted up when the pixels of a seed change."""


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
    """Write a plausible scene, and on request a label raster, as Zarr groups that xarray opens; return what is written.

    Parameters
    ----------
    path, labels
        Where the groups with the arrays ``scene`` (y, x, band) and ``labels`` (y, x; int32) are written.
    size
        Rows and columns.
    seed
        Any integer; seeds that differ by a multiple of 2**64 are one.
    num_labels
        Segments wanted; made are as near to that as a lattice of nearly square cells allows.
    overwrite
        Replace what an earlier call wrote; nothing else is ever replaced.

    Raises
    ------
    UsageError, OutputError
        If an argument is out of range; if a path exists and may not be replaced, or cannot be written.
    """
    start = time.perf_counter()
    products = [scene_product(Path(path), size, bands, dtype, seed)]
    if labels is not None:
        products.append(labels_product(Path(labels), size, num_labels, seed))
    _write_all(products, overwrite)
    facts, *others = (product.summary() for product in products)
    seconds = round(time.perf_counter() - start, 3)
    return {**facts, "seed": seed, "labels": others[0] if others else None, "seconds": seconds}


def _write_all(products: list[Product], overwrite: bool) -> None:
    check_apart([product.path for product in products])
    for product in products:
        check_target(product.path, overwrite)
    with ExitStack() as stack, _codec_settings():
        for product in products:
            _write(product, stack.enter_context(replacing(product.path)))


@contextmanager
def _codec_settings() -> Iterator[None]:
    """Let the codecs use the threads that compute, and no more."""
    import zarr

    settings = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
    with zarr.config.set(settings):
        yield


def _write(product: Product, path: Path) -> None:
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


def _create(product: Product, plan: StoredArray, path: Path) -> None:
    import zarr

    from pipeline.storage.folder.local import LocalFolder
    from pipeline.storage.zarr.document import consolidate, create_array, write_coordinates

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
