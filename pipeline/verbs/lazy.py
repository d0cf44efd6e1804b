"""Steps applied lazily to a dask or xarray array, through `dask.array.map_overlap`."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from pipeline.block.buffers import Fresh
from pipeline.block.compute import compute_block, cut_from
from pipeline.block.plan import Pass
from pipeline.config import load_pipeline, locate, resolve, with_matrices
from pipeline.execution.exchange import Intervals, Parts, common_dims, new_token, overlap, own_dims, rim_edges
from pipeline.model.alignment import TRUE_TO_SCALE, spacing_metres, spacing_text
from pipeline.model.errors import PipelineError, UsageError, show
from pipeline.model.raster import DIMS, Dims, Number, RasterSpec, default_names, fit
from pipeline.model.region import Region, wrap_pieces
from pipeline.model.table import Table
from pipeline.model.value import parse_dims
from pipeline.operations.base import Operation
from pipeline.planning.passes import make_plan
from pipeline.planning.plan import InputSpec, Plan, Settings
from pipeline.storage import data_array
from pipeline.storage.matrix import read_matrix


def apply(
    steps: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    array: Any,
    *,
    dims: str | None = None,
    nodata: Number | None = None,
    keep: Sequence[str] | None = None,
) -> Any:
    """Apply steps to an array without computing anything.

    Parameters
    ----------
    steps
        One step or a list of steps, as in a pipeline file; they read the array as ``image``.
    array
        dask array, numpy array, or xarray DataArray (whose dims are y, x and maybe band).
    dims
        ``y,x``, ``y,x,band`` or ``band,y,x``; an xarray array names them itself. Default: y,x, and with three axes
        y,x,band where the last is the shortest; others need it.
    nodata
        Value of invalid pixels; NaN is always invalid. An xarray array may say it in `_FillValue`.
    keep
        The rasters wanted, as in a pipeline file. Default: the steps that no other step reads.

    Returns
    -------
    dask.array.Array or xarray.DataArray
        The result, chunked as the array (chunks thinner than the halo are merged); a dict from ``step/output``
        to such arrays where several are kept. The bits are those of a run.

    Raises
    ------
    UsageError
        Where an argument is no such thing.
    PipelineError
        Where the steps are wrong, or do not fit the array; where one makes a table of the whole array, which would
        have to be computed first.

    Examples
    --------
    >>> import dask.array as da
    >>> scene = da.ones((100, 120, 3), chunks=(50, 50, 3), dtype="float32")
    >>> apply({"name": "smooth", "op": "window", "size": 5}, scene)
    dask.array<rasterpipe, shape=(100, 120, 3), dtype=float32, chunksize=(50, 50, 3), chunktype=numpy.ndarray>
    """
    import dask.array

    listed = _listed(steps)
    if isinstance(array, str | os.PathLike):
        raise UsageError(f"apply takes an array, got the path {str(array)!r}; open it first, or use pipeline.run")
    _check_kind(array)
    is_xarray = hasattr(array, "dims") and hasattr(array, "coords")
    if not hasattr(array, "shape"):
        array = np.asarray(array)
    _check_shape(array.shape)
    names = _dims(array, dims, is_xarray)
    data = array.data if is_xarray else array
    _check_pixels(data)
    if not isinstance(data, dask.array.Array):
        data = dask.array.from_array(np.asarray(data))
    data = data.astype(data.dtype.newbyteorder("="))
    spec = _spec(array, data, names, nodata, is_xarray)
    plan = _plan(listed, spec, keep)
    lazy = {"image": data}
    for planned in plan.passes:
        sources = {raster: lazy[raster] for raster in planned.stored}
        lazy.update(_apply_pass(planned, sources, plan.first_tables()))
    results = {raster: lazy[raster] for raster in plan.kept}
    if is_xarray:
        results = {raster: _wrap(array, result, plan.kept[raster].spec, raster) for raster, result in results.items()}
    return next(iter(results.values())) if len(results) == 1 else results


def _listed(steps: Any) -> list[Mapping[str, Any]]:
    listed = list(steps) if isinstance(steps, list | tuple) else [steps]
    for step in listed:
        if not isinstance(step, Mapping):
            raise UsageError(f"a step is a mapping such as {{'op': 'window', 'size': 3}}, got {show(step)}")
    return listed


def _check_kind(array: Any) -> None:
    """Refuse what holds arrays and is none."""
    if hasattr(array, "data_vars"):
        names = ", ".join(map(str, array.data_vars)) or "nothing"
        raise UsageError(
            f"apply takes one raster, got a Dataset (of {names}); give one of its variables, or all of one dtype as "
            "bands: `dataset.to_dataarray('band')`"
        )
    if hasattr(array, "iloc"):
        raise UsageError(f"apply takes an array, got a {type(array).__name__}; give `.to_numpy()` of it")


def _check_shape(shape: tuple[float, ...]) -> None:
    if any(math.isnan(size) for size in shape):
        raise UsageError(f"the array has chunks of unknown size (shape {shape}); call its compute_chunk_sizes() first")
    if len(shape) not in (2, 3) or not all(shape):
        raise UsageError(f"the array has shape {shape}; a raster has y, x and maybe band, none of them empty")


def _check_pixels(data: Any) -> None:
    if isinstance(getattr(data, "_meta", data), np.ma.MaskedArray):  # dask keeps an empty array of the same kind
        raise UsageError("the array is masked; fill it first: `.filled(VALUE)`, and say `nodata=VALUE`")
    if data.dtype.kind not in "iuf" or data.dtype.itemsize > 8:
        remedies = {"b": "; convert it: `.astype('uint8')`", "c": "; stack real and imaginary part as two bands"}
        remedy = "; convert it: `.astype('float64')`" if data.dtype.kind == "f" else remedies.get(data.dtype.kind, "")
        raise UsageError(
            f"the array has dtype {data.dtype}; rasters are integers or floating point up to 64 bit{remedy}"
        )


def _dims(array: Any, dims: str | None, is_xarray: bool) -> Dims:
    if dims is not None:
        names = _split(dims)
    elif is_xarray:
        names = tuple(str(name) for name in array.dims)
    else:
        _check_order(array.shape)
        names = ("y", "x", "band")[: array.ndim]
    if names not in DIMS or len(names) != array.ndim:
        raise UsageError(f"dims are {','.join(names)}; they must be y,x or y,x,band or band,y,x: rename or say `dims=`")
    return names


def _check_order(shape: tuple[int, ...]) -> None:
    """Refuse to guess which axis is the band, unless the last one is the shortest: rasterio has it first."""
    if len(shape) == 2 or shape[2] < min(shape[:2]):
        return
    first, middle, last = shape
    raise UsageError(
        f"the array has shape {shape}, and nothing says which axis is the band; say "
        f'`dims="band,y,x"` for {first} band{"s"[: first > 1]} of {middle} x {last} pixels, as rasterio reads them, or '
        f'`dims="y,x,band"` for {last} band{"s"[: last > 1]} of {first} x {middle}'
    )


def _split(dims: Any) -> tuple[str, ...]:
    try:
        return tuple(parse_dims(dims).split(","))
    except ValueError as error:
        raise UsageError(f"dims {error}") from None


def _spec(array: Any, data: Any, dims: Dims, nodata: Number | None, is_xarray: bool) -> RasterSpec:
    """Return the spec of an array; what an xarray one records and is not used is said, as of a file."""
    sizes = dict(zip(dims, data.shape, strict=True))
    if nodata is not None:
        nodata = _fitting(nodata, data.dtype)
    spec = RasterSpec(sizes["y"], sizes["x"], data.dtype, dims, default_names(sizes.get("band", 1)), nodata)
    said: list[str] = []
    if is_xarray:
        spec = data_array.describe(array, spec, said)
    for text in said:
        warnings.warn(text, stacklevel=3)
    return spec


def _fitting(nodata: Any, dtype: np.dtype) -> Number:
    """Return nodata as the pixels hold it."""
    value = nodata.item() if isinstance(nodata, np.generic) else nodata
    fitted = fit(value, dtype) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if fitted is None:
        raise UsageError(f"nodata is {show(value)}, which cannot occur in {dtype} pixels; leave it out, or correct it")
    return fitted


def _plan(steps: Sequence[Mapping[str, Any]], spec: RasterSpec, keep: Sequence[str] | None) -> Plan:
    if isinstance(keep, str):
        raise UsageError(f"keep is a list of names, got {keep!r}; write [{keep!r}]")
    named = [{"name": f"step{number}", **step} for number, step in enumerate(steps)]
    output = {"path": "unused.zarr"} if keep is None else {"path": "unused.zarr", "keep": list(keep)}
    config, document = load_pipeline({"inputs": {"image": "unused.zarr"}, "steps": named, "output": output})
    settings = Settings(memory_bytes=2**62, workers=1, keep=config.output.keep, halo="read")
    inputs = {"image": InputSpec("image", spec, (spec.height, spec.width))}
    try:
        config = with_matrices(document, config, read_matrix)
        plan = make_plan(config.steps, resolve(config), inputs, settings)
        _refuse_sweeps(plan)
    except PipelineError as error:
        raise PipelineError(locate(document, error), error.path) from None
    _say_rough_spacing(config.steps, spec)
    return plan


def _say_rough_spacing(steps: Sequence[Operation], spec: RasterSpec) -> None:
    """Warn where pixels have not the same size in metres all over the array; a run notes it."""
    if any(getattr(step, "spacing", None) == "geo" for step in steps):
        spacing, off = spacing_metres(spec)
        if off > TRUE_TO_SCALE:
            warnings.warn(spacing_text(spacing, off), stacklevel=4)


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


def _wrap(array: Any, result: Any, spec: RasterSpec, name: str) -> Any:
    """Return a result as an xarray array with the coordinates of the source that still fit."""
    import xarray

    coordinates = {
        key: value
        for key, value in array.coords.items()
        if set(value.dims) <= set(spec.dims) and ("band" not in value.dims or value.sizes["band"] == spec.num_bands)
    }
    attributes = {} if spec.nodata is None else {"_FillValue": spec.nodata}
    return xarray.DataArray(result, dims=spec.dims, coords=coordinates, name=name.replace("/", "_"), attrs=attributes)
