"""A small PNG of the input and the outputs of a run, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import OutputError
from pipeline.raster import RasterSpec, array_slices
from pipeline.region import Region
from pipeline.storage.disk import replace_file
from pipeline.storage.inputs import open_raster
from pipeline.storage.reader import Reader
from pipeline.storage.zarr import open_written

if TYPE_CHECKING:
    from pipeline.job import Job

SIDE = 384
GAP = 8
MAX_PANELS = 8


def check_quicklook(path: str) -> None:
    """Refuse what is no PNG, before the run."""
    if Path(path).suffix.lower() != ".png":
        raise OutputError(f"{path}: a quicklook is a PNG; give a name that ends in .png")


def draw(job: Job, path: str) -> str:
    """Draw the first input and up to seven outputs, each stretched between its 2nd and 98th percentile."""
    import imagecodecs

    arrays = list(job.plan.kept.values())
    panels = [_panel(next(iter(job.readers.values())), job.plan.passes[0].plan.grid.region)]
    for array in arrays[: MAX_PANELS - 1]:
        folder = job.place.folder  # where the output is a GeoTIFF, its store is gone once that is written
        is_stored = folder.exists("zarr.json")
        reader = open_written(folder, array.raster) if is_stored else open_raster(job.result)
        panels.append(_panel(reader, reader.spec.region))
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] + GAP for panel in panels) - GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for panel in panels:
        sheet[: panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), bytes(imagecodecs.png_encode(sheet)))
    except OSError as error:
        raise OutputError(f"{path}: the result {job.output} is complete, but the quicklook failed: {error}") from error
    return path


def _panel(reader: Reader, region: Region) -> np.ndarray:
    """Return a part of a raster as (rows, columns, 3) bytes: three bands in colour, else the first in grey."""
    spec = reader.spec
    bands = [2, 1, 0] if spec.num_bands >= 3 else [0]
    step = max(1, -(-max(region.shape) // SIDE))
    values = _decimate(reader, region, step, bands)
    rgb = np.stack([_stretch(values[..., i], spec) for i in range(len(bands))], axis=-1)
    return np.repeat(rgb, 3, axis=-1) if len(bands) == 1 else rgb


def _decimate(reader: Reader, region: Region, step: int, bands: list[int]) -> np.ndarray:
    """Read every step-th pixel, a row of chunks at a time: the raster may be larger than memory."""
    spec = reader.spec
    rows = range(region.top, region.bottom, step)
    result = np.empty((len(rows), len(range(region.left, region.right, step)), len(bands)), np.float64)
    height = reader.chunk[0]
    for top in range(region.top // height * height, region.bottom, height):
        strip = Region(top, top + height, region.left, region.right).clip(region)
        wanted = [i for i, row in enumerate(rows) if strip.top <= row < strip.bottom]
        if not wanted:
            continue
        shape = [len(bands) if dim == "band" else n for dim, n in zip(spec.dims, spec.shape_of(strip), strict=True)]
        values = np.empty(shape, spec.dtype)
        reader.read(strip, values, bands)
        values = values[array_slices(spec.dims, strip, (strip.top, strip.left))]
        planes = np.moveaxis(values, 0, -1) if spec.dims[0] == "band" else values.reshape((*strip.shape, -1))
        result[wanted] = planes[[rows[i] - strip.top for i in wanted], ::step]
    return result


def _stretch(values: np.ndarray, spec: RasterSpec) -> np.ndarray:
    invalid = ~np.isfinite(values)
    if spec.nodata is not None:
        invalid |= values == spec.nodata
    if invalid.all():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[~invalid], (2, 98))
    scaled = np.clip((values - low) / (high - low if high > low else 1), 0, 1) * 255
    return np.where(invalid, 0, np.nan_to_num(scaled)).astype(np.uint8)
