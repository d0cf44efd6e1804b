"""Which of GDAL's drivers are let at a file: those that read it and nothing else."""

from __future__ import annotations

from pipeline.model.errors import unknown

WITH_HEADER = ("ENVI", "EHdr", "ISCE")
"""Raw pixels, of which a second file of the same name tells; GDAL finds it where it may look for files beside one."""
PLAIN = (
    *("GTiff", "JP2OpenJPEG", "JPEG", "PNG", "GIF", "BMP", "WEBP", "HFA", "AAIGrid", "GSAG", "GSBG"),
    *("GRIB", "DTED", "SRTMHGT", "PCRaster", "PNM"),
)
"""Tried on any file, in GDAL's order."""
NETCDF, RECIPE = "netCDF", "VRT"
HDF5 = ("HDF5", "HDF5Image")
"""One driver in two parts: the file, and an array in it."""
DRIVERS = (*PLAIN, *WITH_HEADER, NETCDF, HDF5[0], RECIPE)
"""What may be named."""


def drivers_of(name: str | None, head: bytes) -> list[str]:
    """Return the drivers that are let at a file that begins so: that which is named, or those that read it alone.

    HDF5 may keep pixels in other files, and a VRT always does, so these take a name.
    """
    if name is None:
        return [*PLAIN, *((NETCDF,) if head.startswith(b"CDF") else ())]
    return list(HDF5) if name == HDF5[0] else [name]


FORMATS = {
    **dict.fromkeys((".jp2", ".j2k"), "JPEG 2000"),
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **dict.fromkeys((".nc", ".nc4"), "NetCDF"),
    **dict.fromkeys((".h5", ".hdf5", ".he5"), "HDF5"),
    ".vrt": "VRT",
    ".img": "Erdas Imagine or ENVI",
    ".hdf": "HDF",
    ".asc": "an ASCII grid",
    ".png": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".webp": "WebP",
    ".grib": "GRIB",
    ".grb2": "GRIB",
    ".hgt": "SRTM",
    ".bil": "raw pixels with a header",
    ".bsq": "raw pixels with a header",
    ".bip": "raw pixels with a header",
}
"""What names of files promise, for messages; what a file is, it says itself."""


def parse_driver(value: str | None) -> str | None:
    """Return a driver as GDAL spells it; raise ValueError where it is none that is let at a file."""
    if value is None:
        return None
    found = next((name for name in DRIVERS if name.lower() == value.lower()), None)
    if found is None:
        raise ValueError(
            f"{unknown('driver', value, DRIVERS)}; others of GDAL's reach for files elsewhere or the network, or were "
            "not tried: write such a file out first (gdal_translate)"
        )
    return found
