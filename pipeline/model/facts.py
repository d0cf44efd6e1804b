"""What the commands find out and do, as data: one class a command, and what these hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

INLINE: Mapping[str, bool] = {"inline": True}
"""Marks a mapping whose keys stand among those of `--json` themselves."""


@dataclass(frozen=True)
class Facts:
    """Facts of one thing; their names are the keys of `--json`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, and those that they hold, as dicts, lists and scalars; what need not be is left out."""
        facts: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.metadata == INLINE:
                facts |= _plain(value)
            elif value is not None or each.default is not None:
                facts[each.name] = _plain(value)
        return facts

    def __getitem__(self, key: str) -> Any:
        """Return what stands under a key of `to_dict`."""
        return self.to_dict()[key]


def _plain(value: Any) -> Any:
    if isinstance(value, Facts):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Located(Facts):
    """What lies at a path: of a file, or in a store."""

    path: str


@dataclass(frozen=True)
class RasterFacts(Facts):
    """What a raster is."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bands: tuple[str, ...]
    nodata: float | int | str | None
    """Of NaN and the infinities, their names."""


@dataclass(frozen=True)
class InputFacts(RasterFacts):
    """An input of a plan."""

    chunk: tuple[int, int]
    """Rows and columns that are decoded together."""


@dataclass(frozen=True)
class ArrayFacts(RasterFacts, Located):
    """A raster that a run will store."""

    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codec: str
    bytes: int
    """Decoded."""
    levels: int
    """Below full resolution."""


@dataclass(frozen=True)
class PlannedFileFacts(Facts):
    """A file that a run will make of a raster."""

    path: str
    raster: str
    bytes: int
    """At most: its tiles before compression."""
    scratch_bytes: int
    """Besides, while it is written."""


@dataclass(frozen=True)
class PassFacts(Facts):
    """A pass of a plan: steps that are computed together."""

    steps: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    halo: str
    halo_pixels: Mapping[str, tuple[int, int, int, int]]
    """Raster -> rows above and below, columns left and right."""
    block: tuple[int, int]
    """Rows and columns of the largest."""
    blocks: int
    panel_blocks: int
    tasks: int
    in_flight: int
    """Blocks in work at once."""
    block_bytes: int
    cache_bytes: int
    planned_peak_bytes: int
    read_bytes: int
    read_amplification: float
    """Decoded per byte that is needed."""
    write_bytes: int
    requests: int | None
    """To object stores, to read the blocks by one process; None where nobody knows before."""
    fetch_bytes: int | None
    """What comes of them, as it is stored."""


@dataclass(frozen=True)
class PlanFacts(Facts):
    """What a run would do."""

    output: str
    plan_hash: str
    version: str
    workers: int
    memory_bytes: int
    """What the run may use."""
    planned_peak_bytes: int
    blocks: int
    tasks: int
    read_bytes: int
    write_bytes: int
    requests: int | None
    """Of all passes."""
    fetch_bytes: int | None
    disk_bytes: int
    inputs: Mapping[str, InputFacts]
    passes: tuple[PassFacts, ...]
    outputs: tuple[ArrayFacts, ...]
    files: tuple[PlannedFileFacts, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ValidateFacts(Facts):
    """A pipeline file that is valid."""

    valid: bool
    steps: int
    inputs_checked: bool


@dataclass(frozen=True)
class ResultFacts(Located):
    """A raster that a run stored."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    """Decoded."""
    valid_fraction: float | None


@dataclass(frozen=True)
class TableFacts(Located):
    """A table that a run stored."""

    rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class FileFacts(Located):
    """A file that was made of a raster of the result."""

    raster: str


@dataclass(frozen=True)
class GeoTiffFacts(FileFacts):
    """A GeoTIFF that was made of a result."""

    file_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class OmeZarrFacts(FileFacts):
    """An OME-Zarr image that was made of a result."""

    labels: tuple[str, ...]
    """Rasters that are its labels."""


@dataclass(frozen=True)
class WorkerFacts(Facts):
    """A worker of a cluster, as it was when the run ended."""

    address: str
    blocks: int
    peak_rss_bytes: int


@dataclass(frozen=True)
class RunFacts(Facts):
    """What a run did."""

    output: str
    seconds: float
    compile_seconds: float
    peak_rss_bytes: int
    """Of this process and the workers on this machine."""
    planned_peak_bytes: int
    bytes_read: int
    """Decoded."""
    bytes_written: int
    """Before compression."""
    blocks: int
    """Computed now."""
    blocks_skipped: int
    """Done before."""
    blocks_recomputed: int
    retries: int
    requests: int
    """To object stores."""
    bytes_fetched: int
    """From object stores, for blocks, as they are stored."""
    outputs: tuple[ResultFacts, ...]
    tables: tuple[TableFacts, ...]
    quality: Mapping[str, Mapping[str, Any]]
    """Step -> what is measured of it."""
    warnings: tuple[str, ...]
    plan_hash: str
    version: str
    exports: Mapping[str, Any] = field(default_factory=dict, metadata=INLINE)
    """Files that were made of the store, by the name of their kind."""
    scheduler: str | None = None
    """Of a cluster."""
    workers: tuple[WorkerFacts, ...] | None = None
    """Of a cluster."""
    quicklook: str | None = None

    @property
    def geotiffs(self) -> tuple[GeoTiffFacts, ...]:
        return tuple(self.exports.get("geotiffs", ()))

    @property
    def ome_zarrs(self) -> tuple[OmeZarrFacts, ...]:
        return tuple(self.exports.get("ome_zarrs", ()))

    @property
    def table_files(self) -> tuple[str, ...]:
        return tuple(self.exports.get("table_files", ()))

    @property
    def polygon_files(self) -> tuple[str, ...]:
        return tuple(self.exports.get("polygon_files", ()))


@dataclass(frozen=True)
class InfoFacts(RasterFacts, Located):
    """What a raster file or store is."""

    size: tuple[int, int]
    num_bands: int
    bytes: int
    """Decoded."""
    scale: tuple[float | str | None, ...] | None
    """Scale and offset, where all bands share them."""
    scales: tuple[tuple[float, float], ...] | None
    """Those of each band, where they differ."""
    chunk: tuple[int, int]
    crs: str | None
    transform: tuple[float, ...] | None
    stored: Mapping[str, Any] = field(metadata=INLINE)
    """What only files of its format have; "format", "codec" and "warnings" always."""
    inputs_line: str
    """What makes it an input of a pipeline file."""
    units: tuple[str, ...] | None = None
    """Of each band, once its scale is applied; empty where none is known."""
    color_table: int | None = None
    """How many values have a colour."""
    pixel_size: tuple[float, float] | None = None
    """Height and width, where a microscope's file says them."""
    pixel_unit: str | None = None


@dataclass(frozen=True)
class MemberFacts(Facts):
    """A raster among others."""

    name: str
    what: str
    """Its sides and its dtype."""


@dataclass(frozen=True)
class ContentsFacts(Facts):
    """What lies at a path that is no single raster."""

    path: str
    what: str
    """In words."""
    members: tuple[MemberFacts, ...]
    inputs_lines: tuple[str, ...]
    """What makes inputs of a pipeline file of them: one of these."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class VerifyFacts(Facts):
    """Whether a finished output is what its record says."""

    output: str
    agrees: bool
    problems: tuple[str, ...]
    everything: bool
    samples: int
    """Regions computed again."""
    seed: int
    pixels_compared: int
    pixels: int
    differing_pixels: int
    not_compared: tuple[str, ...]
    plan_hash: str
    version: str
    seconds: float
