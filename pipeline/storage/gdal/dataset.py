"""GDAL's datasets, opened and read with settings of ours: one thread, a small cache, no network, nothing beside."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipeline.model.errors import InputError
from pipeline.storage.driver import FORMATS, HDF5, NETCDF, RECIPE, WITH_HEADER, drivers_of
from pipeline.storage.library import logged, reason

CACHE_BYTES = 64 * 2**20
"""Of GDAL's blocks, one cache for the process."""
LIBRARY_BYTES = 64 * 2**20 + CACHE_BYTES
"""Its code and tables, 30 to 60 MiB (measured) once files are read, and the cache."""
SETTINGS = {
    "GDAL_NUM_THREADS": "1",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "VRT_VIRTUAL_OVERVIEWS": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}
AUXILIARY_BYTES = 2**20
HDF5_HEAD, HDF4_HEAD = b"\x89HDF\r\n\x1a\n", b"\x0e\x03\x13\x01"
TIFF_HEADS = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
LOGGER = "rasterio._env"
_opening = threading.Lock()


@dataclass(frozen=True)
class Source:
    """What of which file is opened, and by what."""

    path: str
    driver: str | None = None
    sidecar: bool = False
    """Whether what lies beside the file is read with it: world files, .aux.xml, .ovr, .msk."""
    inside: str | None = None
    """GDAL's name of a raster in it."""
    level: int = 0

    head: bytes = b""
    """How the file begins."""
    downwards: bool = False
    """Whether rows of NetCDF count as they are stored. By itself GDAL turns them where it finds no coordinates."""

    @property
    def looks_beside(self) -> bool:
        return self.sidecar or self.driver in WITH_HEADER


def rasterio_for(path: str) -> Any:
    """Return rasterio; raise InputError, with both remedies, where it is not installed."""
    try:
        import rasterio
    except ModuleNotFoundError as error:
        name = FORMATS.get(os.path.splitext(path)[1].lower())
        what = f"{name} is read through GDAL" if name else "it is no TIFF, and other files are read through GDAL"
        raise InputError(
            f"{path}: {what}: pip install 'rasterpipe[gdal]', or convert it where GDAL is: gdal_translate {path} "
            "image.tif"
        ) from error
    return rasterio


def gdal_version() -> str:
    """Return the version of the GDAL that rasterio brings; raise ImportError where that is not there, or broken."""
    import rasterio

    return str(rasterio.__gdal_version__)


@contextlib.contextmanager
def gdal_settings(source: Source) -> Iterator[None]:
    """Have GDAL work in this thread with our settings."""
    import rasterio
    from rasterio.env import set_gdal_config
    from rasterio.session import DummySession

    with rasterio.Env(
        session=DummySession(),
        GDAL_DISABLE_READDIR_ON_OPEN="TRUE" if source.looks_beside else "EMPTY_DIR",
        GDAL_PAM_ENABLED="YES" if source.sidecar else "NO",
        **SETTINGS,
        **({"GDAL_NETCDF_BOTTOMUP": "NO"} if source.downwards else {}),
    ):
        set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)  # of the process: not for a while, threads would undo each other
        yield


def log(messages: list[str]) -> contextlib.AbstractContextManager[None]:
    """Collect what GDAL warns of."""
    return logged(messages, LOGGER)


def open_dataset(source: Source) -> Any:
    """Return an open dataset, to be used by one thread at a time; raise InputError where GDAL cannot open it."""
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import DatasetReader

    level = {"overview_level": source.level - 1} if source.level else {}
    with _opening, warnings.catch_warnings(), gdal_settings(source):  # filters of warnings are the process's
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return DatasetReader(
                source.inside or source.path, driver=drivers_of(source.driver, source.head), sharing=False, **level
            )
        except Exception as error:  # rasterio raises anything where GDAL does not say what is wrong
            raise InputError(_why_not(source, reason(error))) from error


def _why_not(source: Source, words: str) -> str:
    path = source.path
    if "not recognized as being in a supported file format" not in words:
        return f"{path}: cannot be opened: {words.partition(': ')[2] or words}; check the path, or copy it again"
    head = source.head.lstrip()
    if source.driver is None and head.startswith((b"<VRTDataset", b"<?xml")) and b"<VRTDataset" in head:
        return (
            f"{path}: a VRT is a recipe that reads other files; `driver: {RECIPE}` at the input reads it, and those of "
            "them below its folder"
        )
    if source.driver is None and head.startswith(HDF5_HEAD):
        named = NETCDF if path.lower().endswith((".nc", ".nc4")) else HDF5[0]
        return (
            f"{path}: HDF5 (NetCDF 4 is such) may keep its pixels in other files, wherever these lie; "
            f"`driver: {named}` at the input reads it, if you trust it"
        )
    if head.startswith(HDF4_HEAD):
        return f"{path}: HDF4 is not in rasterio's GDAL; convert it where GDAL has it: gdal_translate {path} image.tif"
    tried = source.driver or "what GDAL's drivers read that are let at it"
    return f"{path}: is no raster that is known, neither TIFF nor {tried}; check the path, or copy it again"


@contextlib.contextmanager
def parsing(source: Source) -> Iterator[None]:
    """Turn whatever goes wrong with what a file says of itself into an InputError: rasterio raises anything."""
    try:
        with gdal_settings(source):
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source.path}: is not a readable raster: {reason(error)}; copy the file again") from error


@contextlib.contextmanager
def reading(source: Source, where: str) -> Iterator[None]:
    """Turn what GDAL raises, or only warns of, while it reads pixels into an InputError."""
    said: list[str] = []
    try:
        with gdal_settings(source), log(said):
            yield
    except Exception as error:
        words = reason(error.__cause__ or error)
        raise InputError(f"{where} cannot be read: {words}; copy the file again") from error
    if said:
        raise InputError(f"{where} is damaged: {'; '.join(said)}; copy the file again")


def identify(source: Source) -> tuple[Source, Any]:
    """Return an open dataset, and what it was opened by, where no driver was named."""
    if source.looks_beside:
        check_beside(source)
    try:
        dataset = open_dataset(source)
        return replace(source, driver=source.driver or dataset.driver), dataset
    except InputError:
        if source.driver is not None:
            raise
        for driver in WITH_HEADER:
            with contextlib.suppress(InputError):
                return identify(replace(source, driver=driver))
        raise


def check_beside(source: Source) -> None:
    """Refuse what lies beside a file and could lead elsewhere: GDAL opens it with any of its drivers."""
    for suffix in (".ovr", ".msk", ".msk.ovr", ".ovr.msk"):
        beside = source.path + suffix
        with contextlib.suppress(FileNotFoundError), open(beside, "rb") as file:
            if not file.read(4).startswith(TIFF_HEADS):
                raise InputError(f"{beside}: is no TIFF, as overviews and masks beside a file are; move it away")
    with contextlib.suppress(FileNotFoundError), open(f"{source.path}.aux.xml", "rb") as file:
        text = file.read(AUXILIARY_BYTES + 1)
        if len(text) > AUXILIARY_BYTES or re.search(rb"<!\s*(DOCTYPE|ENTITY)|OVERVIEW_FILE", text, re.IGNORECASE):
            raise InputError(
                f"{source.path}.aux.xml: is larger than {AUXILIARY_BYTES:,} bytes, declares a document type, or names "
                "another file; leave `sidecar` out"
            )
