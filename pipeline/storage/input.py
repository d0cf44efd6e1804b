"""An input as the pipeline file says it: the files, what of them is meant, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from pipeline.model.raster import Dims
from pipeline.model.value import Frozen, parse_input_dims, parse_nodata, parse_time
from pipeline.storage.driver import parse_driver
from pipeline.storage.folder.address import Access

Series = int | Literal["mask"]
SOURCES = ("path", "stack", "mosaic", "dates", "stac", "vector")
"""Fields that name the files of a raster; one of them is given."""
OF_VECTOR = ("layer", "where", "id", "value", "cover", "overlap")
"""What of the polygons of `vector` is meant."""


COVERAGE = "coverage"
"""What pixels may get besides ids and attributes of polygons: the share of the pixel that they have."""


@dataclass(frozen=True)
class Choice:
    """What of a file or a store is meant, where it holds several rasters."""

    array: str | None = None
    """Of a store."""
    at: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Where to cut further dims: a position, or an entry of the coordinate."""
    dims: Dims | None = None
    """Those of a store's array, where it does not name them."""
    series: Series | None = None
    """The image in a TIFF, counted from 0, or its internal mask."""
    level: int = 0
    """Of its pyramid, 0 is full resolution."""
    along: str | None = None
    """A further dim that is read as bands."""
    driver: str | None = None
    """GDAL's, which is let at the file."""
    sidecar: bool = False
    """Whether what lies beside the file is read with it, by GDAL."""


class Scale(Frozen):
    """How stored values become physical ones: value = stored * factor + offset."""

    factor: float = Field(default=1.0, allow_inf_nan=False)
    """What stored values are multiplied by."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """What is added then."""


Text = Annotated[StrictStr, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Classes = Annotated[tuple[StrictInt, ...], Field(min_length=1)]


class Source(Frozen):
    """Files that make up one raster."""

    path: Text | None = None
    """A .zarr store, a group or an array in it, a .tif, or a file that GDAL knows; relative to the pipeline file, or a
    URL."""
    stack: Annotated[dict[str, Text], Field(min_length=1)] | Texts | Text | None = None
    """Files of one band each that make up the bands: {B04: FILE, B08: FILE}, a list in this order, or a pattern such as
    "R10m/*_B0[2348]_10m.tif", in natural order."""
    mosaic: Annotated[tuple[Text | Source, ...], Field(min_length=1)] | Text | None = None
    """Files that lie beside each other on one grid, and are read as one: a list, or a pattern."""
    mask: Annotated[dict[str, Classes], Field(min_length=1)] | None = None
    """Pixels that are invalid: those where a band has one of some values, e.g. {SCL: [0, 1, 3, 8, 9, 10]}. The band, of
    the file or of the stack, is not among the bands that are read; of a stack it may have coarser pixels."""

    @property
    def sources(self) -> dict[str, Any]:
        """What is given of the fields that name files, by field."""
        return {key: value for key in SOURCES if (value := getattr(self, key, None)) is not None}

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that this reads."""
        return tuple(_paths_of(self))

    def with_paths(self, change: Callable[[str, tuple[str | int, ...]], str]) -> Self:
        """Return it with other paths: what is made of each, and of the keys where it stands."""
        return self.model_copy(update={key: _changed(value, (key,), change) for key, value in self.sources.items()})

    def _check_one(self) -> None:
        given = [f"`{key}`" for key in self.sources]
        if not given:
            raise ValueError("no source; add `path: FILE`, or `stack: [FILE, FILE]`")
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} are {'two' if len(given) == 2 else len(given)} sources; give one of them"
            )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        self._check_one()
        return self


class Date(Source):
    """The raster of one point of time."""

    time: Annotated[str, BeforeValidator(parse_time, json_schema_input_type=str)]
    """A date or a time by ISO 8601: 2024-06-01, or 2024-06-01T10:30:00 (UTC)."""


class Input(Source):
    """A raster that the pipeline reads."""

    dates: Annotated[tuple[Date, ...], Field(min_length=1)] | Text | None = None
    """Rasters of several points of time on one grid: [{time: 2024-06-01, path: FILE}, ...], or a pattern such as
    "S2_{time:%Y%m%d}_*.tif". Bands are those of each date, in the order of time."""
    stac: Text | Texts | None = None
    """STAC items, or an ItemCollection: a file or URL. Items of one day are a mosaic, of several days dates."""
    assets: Texts | None = None
    """Of the items, by key, name of a band, or common name: [B04, B08]. Default: all rasters of data with one band."""
    vector: Text | None = None
    """Polygons, as a raster of whole numbers on the grid of the raster `match`: a .gpkg, .geojson, .shp, .fgb, or
    GeoParquet on this machine. Where none lies pixels are 0, which is nodata."""
    layer: Text | None = None
    """Of the file `vector`, where it has several."""
    where: Text | None = None
    """Which features of `vector`, as SQL says it: "crop = 'wheat'"."""
    id: Text | None = None
    """The field of whole numbers but 0 whose values pixels get. Default: 1, 2, 3, ... in the file's order."""
    value: Text | None = None
    """What pixels get instead of ids: a field of numbers, NaN where no polygon lies; or `coverage`, the share of the
    pixel, from 0 to 1, that polygons have."""
    cover: Literal["centre", "all_touched", "fraction"] | None = None
    """Which pixels a polygon has: those whose `centre` lies in it (default); `all_touched`, all that it meets; or
    `fraction`, these too, by the exact share of each: `label_stats` weights by it."""
    alternate: StrictStr | None = None
    """Which of the alternate places of assets is read, by its key: s3. Default: their `href`."""
    along: StrictStr | None = None
    """A further dimension of the file that is read as bands: time of a Zarr store, z or t of OME-TIFF."""
    overlap: Literal["first", "last", "error", "layers", "sum"] | None = None
    """Where files of a mosaic overlap: the first (default) or the last of the list that is valid there, or an error.
    Where polygons do: `layers` (default of ids), bands in which none do; the `last` of the file (default of a field),
    or the `sum` of shares (default of coverage)."""
    extent: Literal["union", "of first"] | tuple[float, float, float, float] | None = None
    """What a mosaic spans: union, all its files (default), of first, or [xmin, ymin, xmax, ymax] by its CRS."""
    arrays: Annotated[tuple[StrictStr, ...], Field(min_length=1)] | None = None
    """Arrays in the store `path` that make up the bands in this order."""
    array: StrictStr | None = None
    """The array in the store, or in a NetCDF or HDF5 file, where it holds several."""
    driver: Annotated[StrictStr | None, AfterValidator(parse_driver)] = None
    """GDAL's driver that is to read the file: VRT for a VRT, which reads other files, those below its folder alone."""
    sidecar: StrictBool | None = None
    """Whether world files, .aux.xml, .ovr and .msk beside the file are read with it, by GDAL."""
    at: dict[str, StrictInt | StrictFloat | StrictStr] = Field(default_factory=dict)
    """Where to cut further dimensions: dimension -> index or label, e.g. {time: 0}; of OME-TIFF and ImageJ z and t."""
    series: Annotated[StrictInt, Field(ge=0)] | Literal["mask"] | None = None
    """The image in a TIFF that holds several, counted from 0; `mask`: the TIFF's internal mask."""
    level: Annotated[StrictInt, Field(ge=0)] = 0
    """The level of a pyramid to read; 0 is full resolution."""
    dims: Annotated[str | None, BeforeValidator(parse_input_dims)] = None
    """The array's dimensions where it does not name them, e.g. y,x,band."""
    bands: Annotated[tuple[StrictInt | StrictStr, ...], Field(min_length=1)] | None = None
    """The bands to use: positions from 1, or names. Default: all."""
    nodata: Annotated[
        StrictInt | StrictFloat | Literal["none", "nan", "carry"] | None,
        BeforeValidator(parse_nodata, json_schema_input_type=int | float | Literal["none", "nan", "carry"] | None),
    ] = None
    """The value that marks invalid pixels; `none` ignores the one that the file records, `carry` hands it on with the
    pixels as they are (for `select` alone; what `convert` does)."""
    scale: Literal["ignore", "apply"] | Scale = "ignore"
    """Whether to apply the scale and offset that the file records, or which to apply instead."""
    storage: Access | None = None
    """How the object store is reached, where the path is a URL."""
    missing: Literal["fill"] | None = None
    """`fill`: chunks that are not there are empty, where that is in doubt: on http(s), whose servers do not list what
    they have, and where all are missing."""
    match: StrictStr | None = None
    """Another input, on whose finer grid this one is read: each pixel is repeated, a whole number of times. Of polygons
    the raster on whose grid they are laid, by default the first one that matches no other."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        self._check_one()
        self._check_vector()
        if self.arrays is not None and (self.path is None or self.array is not None):
            other = "array" if self.array is not None else next(iter(self.sources))
            raise ValueError(f"`arrays` and `{other}` exclude each other; give one of them")
        if self.along is not None and self.path is None:
            raise ValueError(
                "`along` is a dimension of one file or store, given as `path`; of several files, give `dates`"
            )
        if self.stac is None and (self.assets or self.alternate):
            raise ValueError(f"`{'assets' if self.assets else 'alternate'}` is of a `stac`, and there is none")
        has_mosaic = self.mosaic or self.stac or any(each.mosaic for each in self.dates or () if isinstance(each, Date))
        is_of_one = self.vector is None and not has_mosaic and not isinstance(self.dates, str)
        if is_of_one and (self.overlap or self.extent):
            raise ValueError(f"`{'overlap' if self.overlap else 'extent'}` is of a `mosaic`, and there is none")
        if self.along is not None and self.along in self.at:
            raise ValueError(f"`at` cuts {self.along!r} and `along` reads all of it; give one of them")
        return self

    def _check_vector(self) -> None:
        """Refuse what only polygons, or only rasters, have."""
        given = [
            name for name in type(self).model_fields if getattr(self, name) != type(self).model_fields[name].default
        ]
        given = [name for name in given if name != "at" or self.at]
        if self.vector is None:
            if wrong := [name for name in given if name in OF_VECTOR and name != "overlap"]:
                raise ValueError(f"`{wrong[0]}` is of polygons, and there is no `vector: FILE`")
            if self.overlap in ("layers", "sum"):
                raise ValueError(f"`overlap: {self.overlap}` is of polygons; of a mosaic it is first, last or error")
        elif wrong := [name for name in given if name not in ("vector", "match", *OF_VECTOR)]:
            raise ValueError(f"`{wrong[0]}` is of rasters; polygons take {', '.join(OF_VECTOR)} and match")
        elif self.overlap not in (None, "layers", "last", "sum"):
            raise ValueError(f"`overlap: {self.overlap}` is of a mosaic; of polygons it is layers, last or sum")
        elif self.overlap == "sum" and self.value != COVERAGE:
            raise ValueError("`overlap: sum` adds shares; say `value: coverage`")
        elif self.value == COVERAGE and self.cover not in (None, "fraction"):
            raise ValueError("`value: coverage` is of `cover: fraction`; leave `cover` out")

    @property
    def dim_names(self) -> Dims | None:
        return None if self.dims is None else tuple(self.dims.split(","))

    def choices(self, path: str) -> Iterator[tuple[str, Choice]]:
        """What of a file each of the rasters is that this reads, in order, and its name."""
        for array in self.arrays or (self.array,):
            yield (
                array or name_of(path),
                Choice(
                    array, self.at, self.dim_names, self.series, self.level, self.along, self.driver, bool(self.sidecar)
                ),
            )


def grid_of(name: str, inputs: Mapping[str, Input]) -> str | None:
    """Return the input on whose grid another one is read; None where that is its own."""
    entry = inputs[name]
    if entry.match is not None or entry.vector is None:
        return entry.match
    return next((other for other, each in inputs.items() if each.vector is None and each.match is None), None)


def name_of(path: str) -> str:
    """Return what a file is called after its path."""
    return PurePath(path).name.split(".")[0]


def _paths_of(value: Any) -> Iterator[str]:
    """Yield the paths that a source, or one of its fields, names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Source):
        for part in value.sources.values():
            yield from _paths_of(part)
    else:
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _paths_of(part)


def _changed(value: Any, place: tuple[str | int, ...], change: Callable[[str, tuple[str | int, ...]], str]) -> Any:
    if isinstance(value, str):
        return change(value, place)
    if isinstance(value, Source):
        return value.with_paths(lambda path, below: change(path, (*place, *below)))
    if isinstance(value, Mapping):
        return {key: _changed(part, (*place, key), change) for key, part in value.items()}
    return tuple(_changed(part, (*place, index), change) for index, part in enumerate(value))
