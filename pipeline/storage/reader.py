"""What the engine asks of a stored raster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.model.raster import RasterSpec
from pipeline.model.region import Region
from pipeline.storage.folder.base import Folder

Scales = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Evidence:
    """Files by which a raster is told from another one that lies under the same path elsewhere."""

    path: str
    """Of the raster, absolute, or its URL."""
    folder: Folder
    metadata: tuple[str, ...]
    """Names of files in the folder that are compared by what they hold."""
    data: tuple[str, ...] = ()
    """Those that are compared by size and time of change, in an object store by its ETag; they need not be there."""


@dataclass(frozen=True)
class Traffic:
    """What reading asks of object stores."""

    requests: int = 0
    num_bytes: int = 0
    """As they are stored."""

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.requests + other.requests, self.num_bytes + other.num_bytes)


NO_TRAFFIC = Traffic()


def total(parts: Iterable[Traffic | None]) -> Traffic | None:
    """Return what is asked in all; None where that of a part is not known."""
    found = NO_TRAFFIC
    for part in parts:
        if part is None:
            return None
        found += part
    return found


class Reader(ABC):
    """A stored raster, opened for reading; several threads may read at once, and it pickles.

    Pixels come as stored: the raster's own dtype in native byte order, its dims, nodata not yet interpreted.
    """

    spec: RasterSpec
    """What the file says of itself."""
    chunk: tuple[int, int]
    """Rows and columns that are decoded together; the grid starts at the raster's upper left corner."""
    chunk_bands: int | None = None
    """Bands that are decoded together, and nothing of others is held meanwhile; None: all."""
    scales: Scales = ()
    """Scale and offset that the file records for each band (value = stored * scale + offset); empty: none."""

    compile_decoder: Callable[[], None] | None = None
    """What compiles the kernels that decode it, where there are such; it pickles."""

    library_bytes: int = 0
    """What the library behind it takes of a process, its own cache included."""
    decoder_bytes: int = 0
    """What that holds to decode a chunk, for each thread, beside the chunk."""

    @property
    def scale(self) -> tuple[float, float] | None:
        """Scale and offset that all bands share; None where none is recorded, or they differ."""
        return self.scales[0] if len(set(self.scales)) == 1 else None

    @abstractmethod
    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        """Read a region inside the raster into `out`, an array of the region's shape in the raster's dims.

        `bands` are indices from 0, in the order wanted; None reads all. `out` need not be contiguous.
        Raises InputError, naming file and chunk, where the data are missing or damaged.
        """

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        """Return what `read` will ask of object stores; None where that is not known before."""
        return None

    @property
    def is_untouched(self) -> bool:
        """Whether it is known, at no cost, that its files are as they were when it was opened."""
        return False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what tells this raster from a changed one (path, size, time, metadata hash), ready for JSON."""

    @abstractmethod
    def evidence(self) -> list[Evidence]:
        """Return what tells the files that are read from others, for each raster that this one consists of."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return further facts for `rasterpipe info`, ready for JSON: at least "format" and "codec"."""
