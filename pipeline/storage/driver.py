"""Which of GDAL's drivers are let at a file: those that read it and nothing else."""

from __future__ import annotations

from pipeline.model.errors import unknown

WITH_HEADER = ("ENVI", "EHdr", "ISCE")
"""Raw pixels, of which a second file of the same name tells; GDAL finds it where it may look for files beside one."""
CONTAINERS = ("netCDF", "HDF5", "HDF5Image")
"""Files of many arrays."""
PLAIN = (
    "GTiff",
    "JP2OpenJPEG",
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "WEBP",
    *CONTAINERS,
    "HFA",
    "AAIGrid",
    "GSAG",
    "GSBG",
    "GS7BG",
    "XYZ",
    "GRIB",
    "DTED",
    "SRTMHGT",
    "USGSDEM",
    "PCRaster",
    "PNM",
    *WITH_HEADER,
)
"""Tried on any file, in GDAL's order."""
RECIPE = "VRT"
"""What reads other files: let at one only by name, after its text was looked through."""
DRIVERS = (*PLAIN, RECIPE)

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
