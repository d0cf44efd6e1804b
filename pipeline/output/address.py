"""Where the parts of an output lie: its store, its files, and the folder that a run works in."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.output_name import OME_ZARR
from pipeline.output.work_folder import work_folder

SUFFIXES = (".tif", ".tiff")


def is_geotiff(path: str) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def is_ome_zarr(path: str) -> bool:
    return path.rstrip("/").lower().endswith(OME_ZARR)


def is_one_raster(path: str) -> bool:
    """Return whether an output is one raster, made of a store that is gone then: a GeoTIFF or an OME-Zarr image."""
    return is_geotiff(path) or is_ome_zarr(path)


def store_path(output: str) -> str:
    """Return where the store of a run lies: at the output, or in its work folder where the output is one raster."""
    return str(work_folder(output) / "store.zarr") if is_one_raster(output) else output


STORE_FILES = ("zarr.json", ".zgroup", ".zarray")
"""By which a folder is known for a Zarr store, or for a part of one."""


def building_paths(output: str, run_id: str) -> tuple[Path, Path]:
    """Return where a run builds its store, and where the one that it replaces goes for the moment of the swap.

    No other run has these folders: what wakes up late, when its run was given up, finds nothing to write to.
    """
    folder = work_folder(output) / run_id
    return folder / "store", folder / "replaced"
