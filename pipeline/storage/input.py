"""An input as the pipeline file says it: the files, what of them is meant, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

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
from pipeline.model.value import Frozen, parse_input_dims, parse_nodata
from pipeline.storage.driver import parse_driver
from pipeline.storage.folder.address import Access

Series = int | Literal["mask"]


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


class Input(Frozen):
    """A raster that the pipeline reads."""

    path: Annotated[StrictStr, Field(min_length=1)] | None = None
    """A .zarr store, a group or an array in it, a .tif, or a file that GDAL knows; relative to the pipeline file, or a
    URL."""
    stack: Annotated[tuple[Annotated[StrictStr, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    """Files of one band each that make up the bands in this order, e.g. [B02.tif, B03.tif]."""
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
    """Another input, on whose finer grid this one is read: each pixel is repeated, a whole number of times."""

    @model_validator(mode="after")
    def _check_source(self) -> Input:
        if self.path is None and self.stack is None:
            raise ValueError(f"no source; add `path: {'STORE' if self.arrays else 'FILE'}`, or `stack: [FILE, FILE]`")
        if self.path is not None and self.stack is not None:
            raise ValueError("`path` and `stack` are two sources; give one of them")
        if self.arrays is not None and (self.stack is not None or self.array is not None):
            other = "stack" if self.stack else "array"
            raise ValueError(f"`arrays` and `{other}` exclude each other; give one of them")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that this reads."""
        return self.stack or (() if self.path is None else (self.path,))

    @property
    def dim_names(self) -> Dims | None:
        return None if self.dims is None else tuple(self.dims.split(","))

    @property
    def choices(self) -> Iterator[tuple[str, Choice]]:
        """What of which file each of the rasters is that this reads, in order."""
        for path in self.paths:
            for array in self.arrays or (self.array,):
                yield (
                    path,
                    Choice(array, self.at, self.dim_names, self.series, self.level, self.driver, bool(self.sidecar)),
                )
