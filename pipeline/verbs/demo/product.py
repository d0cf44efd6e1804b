"""What a synthetic store holds: its raster, its chunks, and how any region of it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.errors import UsageError, unknown
from pipeline.model.raster import DTYPES, RasterSpec
from pipeline.model.region import Region

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


@dataclass(frozen=True, slots=True)
class Product:
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


def scene_product(path: Path, size: tuple[int, int], bands: int, dtype: str, seed: int) -> Product:
    """Return the scene of a seed: an array `scene` (y, x, band)."""
    size = _checked_size(size)
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
    return Product(path, "scene", spec, parameters, compute)


def labels_product(path: Path, size: tuple[int, int], num_labels: int, seed: int) -> Product:
    """Return the labels of a seed: an array `labels` (y, x)."""
    size = _checked_size(size)
    cells = segment_lattice(*size, num_labels)

    def compute(region: Region) -> np.ndarray:
        from pipeline.verbs.demo.segments import segments

        block = np.empty(region.shape, np.int32)
        segments(block, region.top, region.left, size, cells, _seed(seed))
        return block

    parameters = {"kind": "labels", "size": list(size), "num_labels": cells[0] * cells[1], "seed": seed}
    return Product(path, "labels", _spec(size, np.dtype(np.int32), ("y", "x"), 1), parameters, compute)


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
