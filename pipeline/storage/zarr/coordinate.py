"""The coordinates beside a raster in a Zarr group: positions of pixels, names of bands, what else is known of bands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import zarr

from pipeline.model.errors import InputError
from pipeline.model.raster import are_counted
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.folder.metadata import attributes_of, is_plain
from pipeline.storage.georeference import cf
from pipeline.storage.zarr.guard import ChunkGuard

LABEL_BYTES = 128
"""What an entry takes as text."""
CHUNK_BYTES = 2**15
"""What a chunk counts for, besides its entries: to read millions of them takes hours."""
NAMES_LIMIT = 100
"""Coordinates that an array may name."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep silent what is no news here: dtypes without a v3 specification, codecs that zarrs leaves to Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def recorded_names(array: zarr.Array[Any]) -> Sequence[Any]:
    names = getattr(array.metadata, "dimension_names", None) or attributes_of(array).get("_ARRAY_DIMENSIONS")
    return cast("Sequence[Any]", names) if isinstance(names, list | tuple) else ()


class Coordinates:
    """The coordinates in a group (None: there are none), read within limits."""

    def __init__(self, group: zarr.Group | None, limits: ReadLimits) -> None:
        self.group, self.limits = group, limits

    def member(self, name: str | None) -> zarr.Array[Any] | zarr.Group | None:
        """Return what lies in the group under a name; None for a name that leads out of it."""
        if self.group is None or not name or not is_plain(name):
            return None
        try:
            with quiet():
                return self.group.get(name)
        except InputError:
            raise
        except Exception as error:
            raise _unreadable(f"{self.root}/{name}", error) from error

    @property
    def root(self) -> str:
        """The folder of the store."""
        store: Any = self.group.store if self.group is not None else None
        return str(getattr(store, "root", None) or getattr(store, "folder", store))

    def array(self, name: str | None, size: int) -> zarr.Array[Any] | None:
        """Return the coordinate of this name and length."""
        node = self.member(name)
        return node if isinstance(node, zarr.Array) and node.shape == (size,) else None

    def read(self, name: str | None, size: int, entry_bytes: int = 0) -> np.ndarray | None:
        """Return a coordinate; `entry_bytes` is what the caller makes of an entry."""
        array = self.array(name, size)
        if array is None:
            return None
        place = f"{self.root}/{array.path}"
        guard = ChunkGuard(array, self.root, self.limits)
        num_chunks = -(-size // array.chunks[0])
        num_bytes = size * (array.dtype.itemsize + entry_bytes) + num_chunks * CHUNK_BYTES
        self.limits.check_allocation(f"{place}: a coordinate of {size:,} entries in {num_chunks:,} chunks", num_bytes)
        try:
            with quiet():
                guard.check([(0, size)])
                return np.asarray(array[...])
        except InputError:
            raise
        except Exception as error:
            raise _unreadable(place, error) from error

    def unit(self, name: str | None, size: int) -> str:
        """Return the unit of a coordinate; empty where it says none."""
        array = self.array(name, size)
        return "" if array is None else str(attributes_of(array).get("units", "")).strip()

    def labels(self, name: str | None, size: int) -> list[str] | None:
        """Return a coordinate as text."""
        values, array = self.read(name, size, LABEL_BYTES), self.array(name, size)
        return None if values is None or array is None else cf.labels(values, attributes_of(array))

    def band_names(self, name: str | None, count: int) -> list[str] | None:
        """Return the entries of a band axis; None where there are none, or they do nothing but count."""
        names = self.labels(name, count)
        return None if names is None or are_counted(names) else names

    def along_bands(
        self, array: zarr.Array[Any], band: str | None, count: int
    ) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """Return what else is known of each band: coordinates that the array names, along its band axis."""
        found = []
        for name in str(attributes_of(array).get("coordinates", "")).split(maxsplit=NAMES_LIMIT)[:NAMES_LIMIT]:
            node = self.array(name, count)
            taken = name in ("y", "x", "band", "spatial_ref", "table", "palette") or name == band
            if band and node is not None and not taken and tuple(recorded_names(node)) == (band,):
                values = self.read(name, count, LABEL_BYTES)
                assert values is not None
                attributes = attributes_of(node)
                numeric = cf.times(values, attributes).dtype.kind in "iuf"
                found.append((name, tuple(values.tolist() if numeric else cf.labels(values, attributes))))
        return tuple(found)


def _unreadable(place: str, error: Exception) -> InputError:
    return InputError(f"{place}: cannot be read: {type(error).__name__}: {error}")
