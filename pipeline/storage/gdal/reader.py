"""Files that GDAL knows as rasters: whole blocks of the file, each thread with a dataset of its own."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.model.errors import InputChanged, InputError, unknown
from pipeline.model.raster import RasterSpec, printable
from pipeline.model.read_limits import ReadLimits, check_bands
from pipeline.model.region import Region
from pipeline.storage.driver import NETCDF, RECIPE
from pipeline.storage.folder.listing import check_status, file_status
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.gdal import facts
from pipeline.storage.gdal.dataset import (
    LIBRARY_BYTES,
    Source,
    identify,
    log,
    open_dataset,
    parsing,
    rasterio_for,
    reading,
)
from pipeline.storage.gdal.files import check_file, digest_of, files_of, identity_of
from pipeline.storage.gdal.layout import Layout, parse_layout
from pipeline.storage.gdal.length import check_length
from pipeline.storage.gdal.recipe import check_recipe
from pipeline.storage.input import Choice
from pipeline.storage.reader import NO_TRAFFIC, Evidence, Reader, Traffic
from pipeline.storage.tiff.descriptor import Descriptors
from pipeline.storage.tiff.file import find_sidecars

MOST_RASTERS = 32
"""Whose datasets are open at once."""
SUBDATASETS = ("NETCDF", "HDF5")
"""Kinds of GDAL's names for arrays in a file."""
LISTED = 20
"""Arrays of a file that a message names."""


class Datasets:
    """The open datasets of a raster, one a thread: GDAL's may be used by one at a time."""

    def __init__(self) -> None:
        self._of: dict[int, Any] = {}

    def get(self, source: Source) -> Any:
        """Return this thread's."""
        here = threading.get_ident()
        if here not in self._of:
            alive = {thread.ident for thread in threading.enumerate()}
            for gone in [ident for ident in self._of if ident not in alive]:
                self._of.pop(gone, None)
            self._of[here] = open_dataset(source)
        return self._of[here]


DATASETS: Descriptors[Datasets] = Descriptors(MOST_RASTERS)
"""Of this process."""


class GdalReader(Reader):
    """A file, opened for reading through GDAL. Make one with `GdalReader.open`."""

    library_bytes = LIBRARY_BYTES

    def __init__(
        self,
        source: Source,
        spec: RasterSpec,
        layout: Layout,
        files: Mapping[str, str],
        identity: dict[str, Any],
        told: dict[str, Any],
    ) -> None:
        self.spec, self.chunk, self.decoder_bytes = spec, layout.chunk, layout.decoder_bytes
        self._source, self._layout, self._files, self._identity, self._told = source, layout, files, identity, told
        weakref.finalize(self, DATASETS.drop, id(self))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], limits: ReadLimits | None = None, choice: Choice | None = None
    ) -> GdalReader:
        """Open a file: ask GDAL what it is. Reads no pixel.

        Raises InputError where rasterio is missing, GDAL does not know the file, it exceeds a limit, or leads
        elsewhere.
        """
        path, limits, choice = os.path.abspath(os.fspath(path)), limits or ReadLimits(), choice or Choice()
        rasterio_for(path)
        head = check_file(path)
        named = check_recipe(path, limits) if choice.driver == RECIPE else [path]
        messages: list[str] = []
        with log(messages):
            source, dataset = identify(Source(path, choice.driver, choice.sidecar, head=head))
            if inside := _inside(dataset, source, choice.array):
                source = replace(source, inside=inside)
                dataset = open_dataset(source)
            with parsing(source), dataset:
                reader = cls._parse(dataset, source, choice.level, named, limits, messages)
        reader._limits, reader._choice = limits, choice
        return reader

    _limits: ReadLimits
    _choice: Choice

    @classmethod
    def _parse(
        cls, dataset: Any, source: Source, level: int, named: Sequence[str], limits: ReadLimits, messages: list[str]
    ) -> GdalReader:
        path = source.path
        check_bands(path, dataset.count)
        if not dataset.count:
            raise InputError(f"{path}: GDAL finds no raster in it")
        if not dataset.height or not dataset.width:
            raise InputError(f"{path}: the raster is empty: {dataset.height} x {dataset.width} pixels")
        spec, scales = facts.parse_spec(dataset, path, messages)
        check_length(dataset, spec, path)
        files, told = files_of(dataset, path, named), facts.describe(dataset)
        if dataset.driver == NETCDF and spec.transform is None:
            source = replace(source, downwards=True)
            messages.append(
                "GDAL finds no coordinates that CF's attributes mark (standard_name, units): no place is known"
            )
        if level:
            source, dataset = replace(source, level=level), _at_level(dataset, source, level)
            spec = facts.at_level(spec, dataset, messages)
        layout = parse_layout(dataset, spec, path, limits)
        if not source.sidecar:
            messages += find_sidecars(path, spec.transform is not None)
        told |= {"layout": f"blocks {layout.block[0]} x {layout.block[1]}", "warnings": messages}
        if len(files) > 1:
            told["files"] = len(files)
        statuses = {name: file_status(os.stat(name)) for name in files}
        identity = identity_of(files, f"{source.driver} {source.inside} {source.level} {spec} {layout.block}")
        reader = cls(source, spec, layout, statuses, identity, told)
        reader.scales = scales
        return reader

    def read(self, region: Region, out: np.ndarray, bands: Sequence[int] | None = None) -> None:
        spec = self.spec
        wanted = tuple(range(spec.num_bands)) if bands is None else tuple(bands)
        if not spec.region.contains(region):
            raise ValueError(f"{region} is not inside the raster ({spec.region})")
        if not region.num_pixels or not wanted:
            return
        opened = DATASETS.get(id(self), Datasets)
        planes = np.moveaxis(out, spec.dims.index("band"), 0) if "band" in spec.dims else out[np.newaxis]
        for part in self._parts(region):
            rows, columns = part.slices((region.top, region.left))
            planes[:, rows, columns] = self._read_part(opened, part, wanted)
        if self._layout.is_whole:  # the dataset keeps all of it
            DATASETS.drop(id(self))

    def _parts(self, region: Region) -> Iterator[Region]:
        """Yield a region by the chunks that it meets."""
        height, width = self.chunk
        for row in range(region.top // height, -(-region.bottom // height)):
            for column in range(region.left // width, -(-region.right // width)):
                cell = Region(row * height, (row + 1) * height, column * width, (column + 1) * width)
                yield cell.clip(region)

    def _read_part(self, opened: Datasets, part: Region, bands: Sequence[int]) -> np.ndarray:
        """Return the pixels of a part of a chunk (band, y, x)."""
        from rasterio.windows import Window

        where = (
            f"{self._source.path}: rows {part.top} to {part.bottom}, columns {part.left} to {part.right} "
        ).rstrip()
        try:
            dataset = opened.get(self._source)
            with reading(self._source, where):
                window = Window(part.left, part.top, part.width, part.height)
                pixels: np.ndarray = dataset.read([band + 1 for band in bands], window=window)
        except InputError:
            self._check_files()
            raise
        self._check_files()
        return pixels

    def _check_files(self) -> None:
        for name, status in self._files.items():
            check_status(name, name, status)

    def traffic(self, region: Region, bands: Sequence[int] | None = None) -> Traffic | None:
        return NO_TRAFFIC

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def evidence(self) -> list[Evidence]:
        folder, name = os.path.split(self._source.path)
        others = sorted(os.path.relpath(file, folder) for file in self._files if file != self._source.path)
        return [Evidence(self._source.path, LocalFolder(folder), (), (name, *others))]

    def describe(self) -> dict[str, Any]:
        return self._told | {"warnings": list(self._told["warnings"])}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (
            self._source.path,
            digest_of(self._files),
            self._identity["metadata"],
            self._limits,
            self._choice,
        )


@functools.lru_cache(maxsize=256)
def _reopen(path: str, digest: str, metadata: str, limits: ReadLimits, choice: Choice) -> GdalReader:
    """Return the reader that was pickled; tasks of one process share it."""
    reader = GdalReader.open(path, limits, choice)
    if reader.identity()["metadata"] != metadata or digest_of(reader._files) != digest:
        raise InputChanged(f"{path}: it, or a file that it reads, changed since it was opened; start again")
    return reader


def _inside(dataset: Any, source: Source, array: str | None) -> str | None:
    """Return GDAL's name of the raster that is meant in a file of several; None where the file is one raster."""
    path = source.path
    found: dict[str, str] = {}
    for each in dataset.subdatasets:  # rasterio leaves the quotes out, by which GDAL tells the path from the rest
        kind, _, rest = each.partition(":")
        rest = rest.replace(f'"{path}":', f"{path}:", 1)  # newer ones leave them in
        if kind.upper() in SUBDATASETS and rest.startswith(f"{path}:"):
            name = rest.removeprefix(f"{path}:")
            found[name.lstrip("/")] = f'{kind}:"{path}":{name}'
    if array is not None:
        if dataset.count and array == dataset.tags(1).get("NETCDF_VARNAME"):
            return None
        if array not in found:
            where = unknown("array", array, list(found)[:LISTED]) if found else "the file is one raster; leave it out"
            raise InputError(f"{path}: `array: {array}`: {printable(where)}")
        return found[array]
    if dataset.count or not found:
        return None
    if len(found) == 1:
        return next(iter(found.values()))
    names = ", ".join(map(printable, list(found)[:LISTED])) + (", ..." if len(found) > LISTED else "")
    raise InputError(f"{path}: holds {len(found)} rasters: {names}; name one: `array: {printable(next(iter(found)))}`")


def _at_level(dataset: Any, source: Source, level: int) -> Any:
    known = len(dataset.overviews(1))
    if level > known:
        raise InputError(f"{source.path}: `level: {level}`: the file has levels up to {known}, 0 is full resolution")
    return open_dataset(replace(source, level=level))
