"""What a Zarr store says of one of its arrays, so that it is a raster: dims, bands, nodata, georeference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.model.affine import Affine
from pipeline.model.errors import InputError, unknown
from pipeline.model.raster import DIMS, Number, RasterSpec, default_names, name_bands
from pipeline.model.read_limits import ReadLimits, check_bands
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.metadata import attributes_of
from pipeline.storage.georeference import cf
from pipeline.storage.georeference.array_attributes import band_name, from_attributes
from pipeline.storage.georeference.crs import in_units
from pipeline.storage.georeference.geotiff import by_band, parse_scales
from pipeline.storage.georeference.ome import COLOR, UNIT, micrometres
from pipeline.storage.georeference.recorded import Recorded, recorded_of
from pipeline.storage.input import Choice
from pipeline.storage.reader import Scales
from pipeline.storage.zarr.codec import codec_settings
from pipeline.storage.zarr.coordinate import Coordinates, recorded_names
from pipeline.storage.zarr.document import gdal_problem
from pipeline.storage.zarr.group import (
    check_array,
    dimension_names,
    find_array,
    fix_dimensions,
    image_of,
    level_names,
    role_of,
)
from pipeline.storage.zarr.guard import ChunkGuard


class Description:
    """The array of a store that is meant, and what the store says of it; `warnings` are what of it is not used."""

    def __init__(self, folder: Folder, choice: Choice, limits: ReadLimits) -> None:
        self.path, self.warnings = str(folder), list[str]()
        group, self.stored = find_array(folder, choice.array, choice.level)
        check_array(self.stored, self.path)
        ChunkGuard(self.stored, self.path, limits)  # chunks of no pixels end here
        self._attributes = attributes_of(self.stored)
        self._coordinates = Coordinates(group, limits)
        self._image, self._level = image_of(group), choice.level
        self._names = choice.dims or dimension_names(self.stored, group, self.path, self.warnings)
        own = recorded_names(self.stored)
        is_named = len(own) == len(self._names) and all(own)
        self._labels = dict(zip(self._names, map(str, own), strict=True)) if is_named else {}
        at = dict(choice.at)
        if choice.along is not None:
            self._check_along(choice.along)
            at[choice.along] = 0
        self.fixed = fix_dimensions(self.stored, self._coordinates, self._names, at, self.path)
        """axis -> position, of the dims beyond y, x and band."""
        self._full: dict[str, int] = {}
        """Sides of full resolution, where its group describes the place of all levels."""
        around, whole = find_array(folder, choice.array) if choice.level else (group, self.stored)
        if choice.level and group is not None and around is not None and around.path == group.path:
            self._full = dict(zip(map(role_of, self._names), whole.shape, strict=True))
        name = (whole.path or self.path).rstrip("/").rpartition("/")[2]
        self._num_levels = max(len(level_names(around, name)), len(image_of(around).levels))
        self._kept = [i for i in range(self.stored.ndim) if i not in self.fixed]
        self._band_axis = next((i for i, name in enumerate(self._names) if role_of(name) == "band"), None)
        self.spec = self._build_spec()
        self.scales = self._parse_scales()
        self.warnings += self._fill_value_note()

    def _check_along(self, along: str) -> None:
        further = [name for name in self._names if role_of(name) not in ("y", "x", "band")]
        if along not in further:
            known = unknown("dim", along, further) if further else "the array has no dims but y, x and band"
            raise InputError(f"{self.path}: `along`: {known}")

    @property
    def names(self) -> tuple[str, ...]:
        """The dims of the array, as it or the pipeline names them."""
        return tuple(self._names)

    def entries(self, name: str, size: int) -> list[Number | str]:
        """Return what a dim's coordinate says: numbers, or texts, times by ISO 8601; without one, positions."""
        values = self._coordinates.read(self._labels.get(name, name), size)
        if values is None:
            return list(range(size))
        labels = self._coordinates.labels(self._labels.get(name, name), size)
        if values.dtype.kind in "iuf" and labels == [str(value) for value in values.tolist()]:
            return list(values.tolist())
        return [each.removesuffix("T00:00:00") for each in labels or ()]

    @property
    def chunk(self) -> dict[str, int]:
        """The sides of a chunk, by dim."""
        return dict(zip(self.spec.dims, (self.stored.chunks[i] for i in self._kept), strict=True))

    @property
    def facts(self) -> dict[str, Any]:
        """How the array is stored, for `info`."""
        array = self.stored
        return {
            "format": f"Zarr v{array.metadata.zarr_format}",
            "array": array.path,
            "chunks": list(array.chunks),
            "shards": list(array.shards) if array.shards else None,
            "codec": [_codec_name(codec) for codec in array.compressors] or ["none"],
            "stored_shape": list(array.shape),
            "stored_dims": list(self._names),
            "levels": self._num_levels,
        } | ({"gdal": problem} if (problem := gdal_problem(self.spec.dims, array.shards)) else {})

    def _build_spec(self) -> RasterSpec:
        names = [self._names[i] for i in self._kept]
        dims = tuple(role_of(name) for name in names)
        if dims not in DIMS:
            raise InputError(
                f"{self.path}: dims are {','.join(names)}; they must be y,x or y,x,band or band,y,x in this order. "
                f"Give `dims:` if the names mislead, or `at:` to fix further dims"
            )
        sizes = dict(zip(dims, (self.stored.shape[i] for i in self._kept), strict=True))
        if not all(sizes.values()):
            raise InputError(f"{self.path}: the raster is empty: shape {self.stored.shape}")
        num_bands = sizes.get("band", 1)
        check_bands(self.path, num_bands)
        own = np.dtype(np.uint8) if self.stored.dtype.kind == "b" else self.stored.dtype.newbyteorder("=")
        dtype = cf.sign_dtype(self._attributes, own, self.warnings)
        # coordinates bear the names that the array gives its dims, whatever `dims:` calls them
        name_of = {dim: self._labels.get(name, name) for dim, name in zip(dims, names, strict=True)}
        recorded = self._recorded()
        transform, crs = self._georeference(name_of, sizes, is_tied=recorded is not None and recorded.is_tied)
        unit = None if crs else self._unit(name_of["x"], sizes["x"]) if transform else UNIT
        if transform is None and crs is None:
            transform = self._pixel_grid()
        return RasterSpec(
            height=sizes["y"],
            width=sizes["x"],
            dtype=dtype,
            dims=dims,
            bands=self._band_names(),
            nodata=cf.parse_nodata(self._attributes, dtype, self.warnings, own),
            band_coordinates=self._band_coordinates(name_of.get("band"), num_bands),
            transform=transform,
            crs=crs,
            recorded=recorded,
            unit=unit if transform else None,
        )

    def _pixel_grid(self) -> Affine | None:
        """Return the transform to micrometres that OME-Zarr says."""
        axes = {role_of(name): axis for axis, name in enumerate(self._names)}
        return self._image.grid(self._level, (axes["y"], axes["x"]), self.warnings)

    def _unit(self, name: str, size: int) -> str | None:
        """Return the unit of the coordinates where it is the one that we write for a microscope's."""
        return UNIT if micrometres(1, self._coordinates.unit(name, size)) == 1 else None

    def _band_coordinates(self, band: str | None, count: int) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """Return what else is known of each band, the colours of OME-Zarr's channels too."""
        found = self._coordinates.along_bands(self.stored, band, count)
        colors = self._image.colors
        is_said = band is not None and len(colors) == count and any(colors) and COLOR not in dict(found)
        return (*found, (COLOR, colors)) if is_said else found

    def _recorded(self) -> Recorded | None:
        """Return what the array says of the file that it was made of: of the bands that are not cut away."""
        axis = self._band_axis
        recorded = from_attributes(self._attributes, 1 if axis is None else self.stored.shape[axis])
        return recorded.select([self.fixed[axis]]) if recorded and axis in self.fixed else recorded

    def _parse_scales(self) -> Scales:
        """Return CF's scales; failing these, those of the GeoTIFF that the array was made of."""
        scales = cf.parse_scales(self._attributes, self.spec.num_bands, self.warnings)
        if scales is None:
            scales = parse_scales(by_band(recorded_of(self.spec).items), self.spec.num_bands, self.warnings)
        return scales

    def _band_names(self) -> tuple[str, ...]:
        """Return the names of the bands: the band coordinate's, OME-Zarr's, or those of rioxarray's `long_name`."""
        axis = self._band_axis
        if axis is None or axis in self.fixed:
            return (band_name(self._attributes) or "b1",)
        count, name = self.stored.shape[axis], self._names[axis]
        given = (
            self._coordinates.band_names(self._labels.get(name, name), count),
            self._image.channels,
            self._attributes.get("long_name"),
        )
        found = next((n for n in given if isinstance(n, list | tuple) and len(n) == count and any(n)), [""] * count)
        return name_bands([str(name) for name in found], default_names(count), self.warnings)

    def _georeference(
        self, name_of: Mapping[str, str], sizes: Mapping[str, int], *, is_tied: bool
    ) -> tuple[Affine | None, str | None]:
        """Return transform and CRS as attributes say, or failing that the coordinates.

        Beside control points (`is_tied`) coordinates only count the pixels of the raster that it is a part of.
        """
        coordinates = self._coordinates
        group = {} if coordinates.group is None else attributes_of(coordinates.group)
        attributes = {**group, **self._attributes}
        mapping = coordinates.member(str(attributes.get("grid_mapping", "spatial_ref")))
        mapped = {} if mapping is None else attributes_of(mapping)
        transform, crs = cf.parse_georeference(attributes, mapped, self.warnings)
        if transform is not None and self._full and not cf.parse_georeference(self._attributes, {}, [])[0]:
            down, across = (self._full[axis] / sizes[axis] for axis in ("y", "x"))
            transform = transform.scale(down, across)  # the group's is that of full resolution
        if transform is None and not is_tied:
            y, x = (coordinates.read(name_of[axis], sizes[axis]) for axis in ("y", "x"))
            transform = cf.transform_of_coordinates(y, x, self.warnings)
            if transform is not None and crs is not None:
                crs = in_units(crs, coordinates.unit(name_of["x"], sizes["x"]), self.warnings)
        return transform, crs

    def _fill_value_note(self) -> list[str]:
        """Say so where xarray, which writes nodata as the fill value in Zarr v2, would see nodata and we do not."""
        value = self.stored.fill_value
        is_xarray = self.stored.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in self._attributes
        if not is_xarray or self.spec.nodata is not None or value is None or not value or np.isnan(value):
            return []
        return [f"the fill value {value} is not taken as nodata; if xarray wrote it as such, say `nodata: {value}`"]


def _codec_name(codec: Any) -> str:
    name, settings = codec_settings(codec)
    return "/".join(str(part) for part in (name, settings.get("cname")) if part)
