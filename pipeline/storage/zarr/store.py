"""The output store: Zarr v3 groups with coordinates and provenance, written in whole chunks or shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs

from pipeline.model.errors import InputError, OutputError
from pipeline.model.raster import array_slices, is_nan
from pipeline.model.region import Region
from pipeline.model.stored import StoredArray, StoredLevels
from pipeline.model.table import TableSpec
from pipeline.storage.folder.base import PLAIN_CODECS, Folder, RemoteError
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.open import folder_at
from pipeline.storage.zarr.document import TablePlan, documents, fill_value


def create_store(
    path: str | Folder,
    attributes: Mapping[str, Any],
    arrays: Sequence[StoredArray],
    levels: Mapping[str, StoredLevels] | None = None,
) -> None:
    """Create the group, its step groups with coordinates, and all arrays; everything but the pixels."""
    folder = folder_at(path)
    files = documents(attributes, arrays, levels=levels)
    folder.make()
    folder.replace("zarr.json", files.pop("zarr.json"))  # so that it is known for ours after a power cut too
    for name, data in files.items():
        folder.put(name, data)


def write_columns(folder: Folder, plan: TablePlan) -> None:
    """Write the columns of a table, every chunk of them."""
    for name in plan.spec.columns:
        array = open_for_all_chunks(folder, f"{plan.group}/{name}")
        rows = plan.num_rows(name)
        for first in range(0, len(plan.table[name]), rows):
            array[first : first + rows] = plan.table[name][first : first + rows]  # mapped anew where it is on the disk


def open_for_all_chunks(folder: Folder, path: str) -> zarr.Array[Any]:
    """Open an array for writing, chunks that hold nothing but the fill value too: zarrs leaves these out."""
    with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):
        return folder.open_array(path, "r+").with_config({"write_empty_chunks": True})


def read_table(path: str | Folder, step: str, spec: TableSpec) -> dict[str, np.ndarray]:
    """Return the columns of a table of the store."""
    folder = folder_at(path)
    return {name: np.asarray(folder.open_array(f"{step}/{spec.prefix}{name}")[...]) for name in spec.columns}


def missing_chunks(path: str | Folder, array: str) -> Iterator[str]:
    """Yield the files that an array of the store lacks, or that are empty; a run writes all of them."""
    folder = folder_at(path)
    stored, size_of = folder.open_array(array), folder.child(array).sizes()
    counts = (-(-n // size) for n, size in zip(stored.shape, stored.shards or stored.chunks, strict=True))
    for place in np.ndindex(*counts):
        key = stored.metadata.encode_chunk_key(place)
        if not size_of(key):
            yield f"{array}/{key}"


class ZarrWriter:
    """An array of the output store, open for writing whole blocks; threads may write different blocks at once."""

    def __init__(self, store: str | Folder, array: StoredArray) -> None:
        self.store, self.array = folder_at(store), array
        self._plain = open_for_all_chunks(self.store, array.raster)
        self._marks = self.store.marks() if isinstance(self.store, LocalFolder) else None
        self._array = self._plain if self._marks is None else self.store.open_array(array.raster, "r+")

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "array": self.array}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], state["array"])  # type: ignore[misc]

    def write(self, region: Region, values: np.ndarray) -> list[int]:
        """Write a region, in rows and columns of the array, of whole chunks or shards; return the marks of its files.

        Anything else would read, change and write a chunk that another task may be writing: it is refused.
        """
        spec, unit = self.array.stored, self.array.unit
        for start, stop, step, size in (
            (region.top, region.bottom, unit[0], spec.height),
            (region.left, region.right, unit[1], spec.width),
        ):
            if not 0 <= start < stop <= size or start % step or (stop % step and stop != size):
                raise ValueError(
                    f"{self.array.raster}: {region} is not whole chunks or shards of {unit} in {spec.shape}; "
                    "writing it could lose what another task writes"
                )
        if values.shape != spec.shape_of(region) or values.dtype != spec.dtype:
            raise ValueError(
                f"{self.array.raster}: {region} takes {spec.shape_of(region)} {spec.dtype}, "
                f"not {values.shape} {values.dtype}"
            )
        if not self.store.is_there:  # to write would make the folder anew
            raise OutputError(f"{self.store}: is gone: its run has ended, or somebody has removed it")
        try:
            self._array[array_slices(spec.dims, region)] = values
            for part in self._empty_units(values) if self._array is not self._plain else ():
                first = {"y": region.top, "x": region.left, "band": 0}
                shifted = (slice(s.start + first[d], s.stop + first[d]) for s, d in zip(part, spec.dims, strict=True))
                self._plain[tuple(shifted)] = values[part]
        except RemoteError as error:
            raise OutputError(str(error)) from error
        except Exception as error:  # a full disk comes as OSError or, from zarrs, as RuntimeError
            raise OutputError(f"{self.store}/{self.array.raster}: cannot write {region}: {error}") from error
        return [self._mark(name) for name in self.array.files(region)]

    def _mark(self, name: str) -> int:
        mark = self.store.mark_of_put(name) if self._marks is None else self._marks(name)
        if mark is None:
            raise OutputError(f"{self.store}/{name}: was written and is gone")
        return mark

    def _empty_units(self, values: np.ndarray) -> Iterator[tuple[slice, ...]]:
        """Yield the chunks or shards of a block that hold nothing but the fill value: zarrs leaves them out."""
        fill = fill_value(self.array.spec)
        is_fill = np.isnan if is_nan(fill) else partial(np.equal, values.dtype.type(fill))
        steps = self.array.shards or self.array.chunks
        for start in product(*(range(0, size, step) for size, step in zip(values.shape, steps, strict=True))):
            unit = tuple(slice(i, min(i + step, n)) for i, step, n in zip(start, steps, values.shape, strict=True))
            if is_fill(values[start]) and is_fill(values[unit]).all():
                yield unit


def finish_store(
    folder: Folder, files: dict[str, bytes], tables: Sequence[TablePlan], sync: Callable[[], None] = lambda: None
) -> None:
    """Write the documents of a complete store, all of them anew, and its tables.

    The root's comes last of all, in one write: it says that the store is complete. Before it, `sync` brings all else to
    the disk.
    """
    root = files.pop("zarr.json")
    for name, data in files.items():
        folder.put(name, data)
    for table in tables:
        write_columns(folder, table)
    sync()
    folder.replace("zarr.json", root)


def root_attributes(path: str | Folder) -> dict[str, Any] | None:
    """Return the provenance of one of our stores, or OME-Zarr images; None for anything that is not one."""
    folder = folder_at(path)
    is_old = isinstance(folder, LocalFolder) and not folder.is_there  # as an image of OME-Zarr 0.4
    try:
        document = folder.read_json(".zattrs" if is_old else "zarr.json")
        value = (document if is_old else document.get("attributes", {})).get("rasterpipe")
    except RemoteError:
        raise
    except (InputError, OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, dict) else None


def array_shape_of(path: str | Folder, array: str) -> tuple[int, ...]:
    return tuple(folder_at(path).open_array(array).shape)


def stored_bytes(path: str, array: str) -> int:
    """Return the bytes of an array's files."""
    return sum(f.stat().st_size for f in Path(path, array).rglob("*") if f.is_file())
