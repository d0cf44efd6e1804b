"""Steps applied lazily to a dask or xarray array, through `dask.array.map_overlap`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from pipeline.block.buffers import Fresh
from pipeline.block.compute import compute_block, cut_from
from pipeline.block.plan import Pass
from pipeline.config import load_pipeline, locating, resolve, with_matrices
from pipeline.execution.exchange import Intervals, Parts, common_dims, new_token, overlap, own_dims, rim_edges
from pipeline.model.alignment import TRUE_TO_SCALE, geo_spacing
from pipeline.model.errors import PipelineError, UsageError, show
from pipeline.model.raster import Dims, Number, RasterSpec
from pipeline.model.region import Region, wrap_pieces
from pipeline.model.table import Table
from pipeline.operations.base import Operation
from pipeline.operations.terrain import Terrain
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings
from pipeline.verbs.array import take_array


def apply(
    steps: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    array: Any,
    *,
    dims: str | None = None,
    nodata: Number | None = None,
    keep: Sequence[str] | None = None,
) -> Any:
    """Apply steps without computing; return a dask or xarray array, or a dict of such from ``step/output``.

    The bits are those of a run; chunks thinner than the halo are merged. Raises UsageError for a wrong argument,
    PipelineError for steps that do not fit, or make a table of the whole array, which would have to be computed first.

    Parameters
    ----------
    steps
        One step or a list of steps, as in a pipeline file; they read the array as ``image``.
    array
        dask or numpy array, or xarray DataArray, which names its dims and may say its nodata in `_FillValue`.
    dims
        ``y,x``, ``y,x,band`` or ``band,y,x``. Default: y,x, and y,x,band where the last axis of three is the shortest.
    nodata
        Value of invalid pixels; NaN is always invalid.
    keep
        The rasters wanted, as in a pipeline file. Default: the steps that no other step reads.

    Examples
    --------
    >>> import dask.array as da
    >>> apply({"op": "window", "size": 5}, da.ones((100, 120, 3), chunks=(50, 50, 3), dtype="float32"))
    dask.array<rasterpipe, shape=(100, 120, 3), dtype=float32, chunksize=(50, 50, 3), chunktype=numpy.ndarray>
    """
    listed = _listed(steps)
    given = take_array(array, dims, nodata)
    _warn(given.said)
    plan, said = _plan(listed, given.spec, keep)
    _warn(said)
    lazy = _apply_plan(plan, given.data)
    results = {raster: given.wrap(lazy[raster], kept.spec, raster) for raster, kept in plan.kept.items()}
    return next(iter(results.values())) if len(results) == 1 else results


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        warnings.warn(text, stacklevel=3)


def _listed(steps: Any) -> list[Mapping[str, Any]]:
    listed = list(steps) if isinstance(steps, list | tuple) else [steps]
    for step in listed:
        if not isinstance(step, Mapping):
            raise UsageError(f"a step is a mapping such as {{'op': 'window', 'size': 3}}, got {show(step)}")
    return listed


def _plan(steps: Sequence[Mapping[str, Any]], spec: RasterSpec, keep: Sequence[str] | None) -> tuple[Plan, list[str]]:
    """Return the plan of steps, and what is to be said of it."""
    if isinstance(keep, str):
        raise UsageError(f"keep is a list of names, got {keep!r}; write [{keep!r}]")
    named = [{"name": f"step{number}", **step} for number, step in enumerate(steps)]
    output = {"path": "unused.zarr"} if keep is None else {"path": "unused.zarr", "keep": list(keep)}
    config, document = load_pipeline({"inputs": {"image": "unused.zarr"}, "steps": named, "output": output})
    settings = Settings(memory_bytes=2**62, workers=1, keep=config.output.keep, halo="read")
    inputs = {"image": InputSpec("image", spec, (spec.height, spec.width))}
    with locating(document):
        config = with_matrices(document, config)
        plan = make_plan(config.steps, resolve(config), inputs, settings)
        _refuse_sweeps(plan)
    return plan, list(_rough_spacing(config.steps, plan, spec))


def _rough_spacing(steps: Sequence[Operation], plan: Plan, spec: RasterSpec) -> Iterator[str]:
    """Yield that pixels have not the same size in metres all over the array, where that matters; a run notes it."""
    placed = (step.operation for planned in plan.passes for step in planned.steps)
    is_rough = any(step.ground.off for step in placed if isinstance(step, Terrain))  # of rows on their own it is not
    if is_rough or any(getattr(step, "spacing", None) == "geo" for step in steps if not isinstance(step, Terrain)):
        spacing = geo_spacing(spec)
        if spacing.off > TRUE_TO_SCALE:
            yield str(spacing)


def _refuse_sweeps(plan: Plan) -> None:
    """Refuse what cannot be lazy: a table of the whole raster, and steps of which no raster comes."""
    for sweep in (sweep for planned in plan.passes for sweep in planned.sweeps):
        raise PipelineError(
            f"step {sweep.step.name!r} ({sweep.reduction.op}) makes a table of the whole raster, which `apply` cannot "
            "without computing; use pipeline.run, or for `quantize` a palette that is known: a list or a file",
            ("steps",),
        )
    if not plan.kept:
        raise PipelineError("the steps make no raster, only tables; use pipeline.run", ("steps",))


def _apply_plan(plan: Plan, image: Any) -> dict[str, Any]:
    lazy = {"image": image}
    for planned in plan.passes:
        sources = {raster: lazy[raster] for raster in planned.stored}
        lazy.update(_apply_pass(planned, sources, plan.first_tables()))
    return lazy


def _apply_pass(plan: Pass, sources: Mapping[str, Any], tables: Mapping[str, Table]) -> dict[str, Any]:
    """Return what a pass writes, as lazy arrays in their dims."""
    import dask.array

    first = plan.stored[0]
    chunks = common_dims_lazy(sources[first], plan.specs[first].dims).chunks
    halos = plan.halos.values()
    rows = _intervals(chunks[0], max(max(h.top, h.bottom) for h in halos))
    columns = _intervals(chunks[1], max(max(h.left, h.right) for h in halos))
    whole = Region(0, rows[-1][1], 0, columns[-1][1])
    parts = {raster: _with_rim(plan, raster, array, whole, rows, columns) for raster, array in sources.items()}

    def compute(row: int, column: int, blocks: Parts) -> dict[str, np.ndarray]:
        block = Region(*rows[row], *columns[column])
        return compute_block(plan, block, cut_from(plan, block, blocks), Fresh(), tables=tables)

    bundles = overlap(plan, parts, rows, columns, compute)

    def output(raster: str) -> Any:
        spec = plan.specs[raster]
        return dask.array.map_blocks(
            lambda bundle: common_dims(bundle.item()[raster], spec.dims),
            bundles,
            chunks=(_lengths(rows), _lengths(columns), (spec.num_bands,)),
            dtype=spec.dtype,
            meta=np.empty((0, 0, 0), spec.dtype),
            name=f"rasterpipe-{new_token()}",
        )

    return {raster: own_dims_lazy(output(raster), plan.specs[raster].dims) for raster in plan.writes}


def common_dims_lazy(array: Any, dims: Dims) -> Any:
    import dask.array

    if dims[0] == "band":
        return dask.array.moveaxis(array, 0, -1)
    return array if dims[-1] == "band" else array[..., np.newaxis]


def own_dims_lazy(array: Any, dims: Dims) -> Any:
    import dask.array

    return dask.array.moveaxis(array, -1, 0) if dims[0] == "band" else own_dims(array, dims)


def _intervals(lengths: Sequence[int], shortest: int) -> Intervals:
    """Return the chunks of an axis as intervals, those thinner than the halo merged with their neighbours."""
    merged: list[int] = []
    for length in lengths:
        if merged and (merged[-1] < shortest or length < shortest):
            merged[-1] += length
        else:
            merged.append(length)
    return list(pairwise(accumulate(merged, initial=0)))


def _lengths(intervals: Intervals) -> tuple[int, ...]:
    return tuple(last - first for first, last in intervals)


def _with_rim(plan: Pass, raster: str, array: Any, whole: Region, rows: Intervals, columns: Intervals) -> Any:
    """Return a raster as y, x, band, one chunk per block; where it wraps, with its far sides around it."""
    import dask.array

    spec = plan.specs[raster]
    common = common_dims_lazy(array, spec.dims)
    if raster in plan.bands:
        common = common[..., list(plan.bands[raster])]
    extent = plan.extent(raster, whole)
    pieces: dict[tuple[int, int], list[Any]] = {}
    for piece, source in wrap_pieces(extent, spec.height, spec.width):
        pieces.setdefault((piece.top, piece.bottom), []).append(common[source.slices()])
    lines = [dask.array.concatenate(line, axis=1) if len(line) > 1 else line[0] for line in pieces.values()]
    joined = dask.array.concatenate(lines, axis=0) if len(lines) > 1 else lines[0]
    tops, lefts = rim_edges(extent, rows, columns)
    return joined.rechunk((tuple(np.diff(tops).tolist()), tuple(np.diff(lefts).tolist()), (spec.num_bands,)))
