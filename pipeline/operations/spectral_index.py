"""Spectral indices: formulas over common names of bands, as the literature has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

IndexName = Literal[
    "ndvi",
    "gndvi",
    "ndre",
    "sr",
    "evi",
    "evi2",
    "savi",
    "osavi",
    "msavi",
    "arvi",
    "vari",
    "ngrdi",
    "cig",
    "cire",
    "ndwi",
    "mndwi",
    "ndmi",
    "nbr",
    "nbr2",
    "ndti",
    "ndbi",
    "ndsi",
    "bsi",
]


@dataclass(frozen=True, slots=True)
class SpectralIndex:
    """What an index is, and where it comes from."""

    formula: str
    """An expression as `calc` has it, of common names."""
    title: str
    source: str
    is_of_reflectance: bool = False
    """Whether it has constants that go with reflectance from 0 to 1, so that the scale of the bands counts."""

    def __str__(self) -> str:
        scale = "; of reflectance" if self.is_of_reflectance else ""
        return f"{self.formula}: {self.title} ({self.source}){scale}"


def _normalized(first: str, second: str, title: str, source: str) -> SpectralIndex:
    return SpectralIndex(f"({first} - {second}) / ({first} + {second})", title, source)


INDICES: Mapping[IndexName, SpectralIndex] = {
    "ndvi": _normalized("nir", "red", "normalized difference vegetation", "Rouse et al. 1974"),
    "gndvi": _normalized("nir", "green", "green NDVI", "Gitelson et al. 1996"),
    "ndre": _normalized("nir", "rededge", "normalized difference red edge", "Barnes et al. 2000"),
    "sr": SpectralIndex("nir / red", "simple ratio", "Jordan 1969"),
    "evi": SpectralIndex(
        "2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)", "enhanced vegetation", "Huete et al. 2002", True
    ),
    "evi2": SpectralIndex("2.5 * (nir - red) / (nir + 2.4 * red + 1)", "EVI of two bands", "Jiang et al. 2008", True),
    "savi": SpectralIndex(
        "1.5 * (nir - red) / (nir + red + 0.5)", "soil-adjusted vegetation, L = 0.5", "Huete 1988", True
    ),
    "osavi": SpectralIndex("(nir - red) / (nir + red + 0.16)", "optimized SAVI", "Rondeaux et al. 1996", True),
    "msavi": SpectralIndex(
        "(2 * nir + 1 - sqrt((2 * nir + 1) ** 2 - 8 * (nir - red))) / 2", "modified SAVI", "Qi et al. 1994", True
    ),
    "arvi": SpectralIndex(
        "(nir - (2 * red - blue)) / (nir + (2 * red - blue))",
        "atmospherically resistant vegetation, gamma = 1",
        "Kaufman and Tanre 1992",
    ),
    "vari": SpectralIndex(
        "(green - red) / (green + red - blue)", "visible atmospherically resistant", "Gitelson et al. 2002"
    ),
    "ngrdi": _normalized("green", "red", "normalized green-red difference", "Tucker 1979"),
    "cig": SpectralIndex("nir / green - 1", "chlorophyll, green", "Gitelson et al. 2003"),
    "cire": SpectralIndex("nir / rededge - 1", "chlorophyll, red edge", "Gitelson et al. 2003"),
    "ndwi": _normalized("green", "nir", "water; Gao's of vegetation is here ndmi", "McFeeters 1996"),
    "mndwi": _normalized("green", "swir16", "modified NDWI: water", "Xu 2006"),
    "ndmi": _normalized("nir", "swir16", "moisture of vegetation", "Gao 1996; Wilson and Sader 2002"),
    "nbr": _normalized("nir", "swir22", "normalized burn ratio", "Key and Benson 2006"),
    "nbr2": _normalized("swir16", "swir22", "normalized burn ratio 2", "USGS, Landsat surface reflectance"),
    "ndti": _normalized("swir16", "swir22", "tillage (not turbidity), as nbr2", "van Deventer et al. 1997"),
    "ndbi": _normalized("swir16", "nir", "built-up", "Zha et al. 2003"),
    "ndsi": _normalized("green", "swir16", "snow, as mndwi", "Hall et al. 1995"),
    "bsi": SpectralIndex(
        "((swir16 + red) - (nir + blue)) / ((swir16 + red) + (nir + blue))", "bare soil", "Rikimaru et al. 2002"
    ),
}
