"""Which band of a raster is the red one: by its common name, the numbers of a sensor, or its wavelength.

Common names are those of STAC's electro-optical extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.model.raster import SOURCE_BAND
from pipeline.operations.series import HasBands

CommonName = Literal["blue", "green", "red", "rededge", "nir", "swir16", "swir22"]
Sensor = Literal["sentinel-2", "landsat-8-9", "landsat-4-7", "modis"]

ALIASES: Mapping[str, tuple[str, ...]] = {
    "rededge": ("rededge", "rededge071", "rededge1", "red_edge"),
    "nir": ("nir", "nir08"),
    "swir16": ("swir16", "swir1"),
    "swir22": ("swir22", "swir2"),
}
"""What bands are called for a common name, the first that there is; else the common name itself."""
_NUMBERS: Mapping[Sensor, Mapping[str, str]] = {
    "sentinel-2": {
        "blue": "2",
        "green": "3",
        "red": "4",
        "rededge": "5",
        "nir": "8 8A",
        "swir16": "11",
        "swir22": "12",
    },
    "landsat-8-9": {"blue": "2", "green": "3", "red": "4", "nir": "5", "swir16": "6", "swir22": "7"},
    "landsat-4-7": {"blue": "1", "green": "2", "red": "3", "nir": "4", "swir16": "5", "swir22": "7"},
    "modis": {"red": "1", "nir": "2", "blue": "3", "green": "4", "swir16": "6", "swir22": "7"},
}
"""Sensor -> common name -> the numbers of its bands, the first that there is."""
_NUMBERED = re.compile(r"(?:SR_|TOA_)?B0*([1-9][0-9]?A?)(?:[ ,].*)?", re.DOTALL)
WAVELENGTHS: Mapping[str, tuple[float, float, float]] = {
    "blue": (450, 490, 520),
    "green": (520, 560, 600),
    "red": (620, 665, 690),
    "rededge": (695, 705, 745),
    "nir": (760, 842, 900),
    "swir16": (1550, 1610, 1750),
    "swir22": (2080, 2200, 2350),
}
"""Of a common name in nm: the shortest, the usual, the longest."""
_WAVELENGTH = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength", "wavelength_nm", "wavelength_um")


@dataclass(frozen=True, slots=True)
class Found:
    """A band that is known by a common name."""

    name: str
    """Its own; of a series, that of the band of each date."""
    why: str
    """By what it is known; empty where its name says it."""


def find_band(raster: HasBands, common: str, sensor: Sensor | None) -> list[Found]:
    """Return the band that has a common name: none where none is known, several where it could be each."""
    levels = list(filter(None, _levels(raster, common, sensor)))
    return next((found for found in levels if len(found) == 1), levels[0] if levels else [])


def _levels(raster: HasBands, common: str, sensor: Sensor | None) -> Iterator[list[Found]]:
    """Yield the bands that have a common name by what is known of them, the surest first."""
    known = dict(raster.band_coordinates)
    own = tuple(map(str, known.get(SOURCE_BAND, raster.bands)))
    places = {name: index for index, name in reversed(list(enumerate(own)))}
    for told, why in ((known.get("common_name"), "its common name"), (own, "its name")):
        words = {name: str(told[place]).casefold() for name, place in places.items()} if told else {}
        for alias in ALIASES.get(common, (common,)):
            found = sorted(name for name in places if words.get(name) == alias)
            yield [Found(name, "" if name == common else why) for name in found]
    numbers = {match[1]: name for name in places if (match := _NUMBERED.fullmatch(name))}
    sensor = sensor or sensor_of(own)
    for number in _NUMBERS[sensor].get(common, "").split() if sensor else ():
        yield [Found(numbers[number], f"a band of {sensor}")] if number in numbers else []
    yield list(_by_wavelength(places, known, common))


def sensor_of(names: tuple[str, ...]) -> Sensor | None:
    """Return whose bands these are where their numbers leave no doubt.

    Examples
    --------
    >>> sensor_of(("B04", "B08")), sensor_of(("SR_B4", "SR_B6")), sensor_of(("B4", "B5")), sensor_of(("B08", "B16"))
    ('sentinel-2', 'landsat-8-9', None, None)
    """
    first = {re.split("[ ,]", name)[0] for name in names}
    numbers = {match[1] for name in names if (match := _NUMBERED.fullmatch(name))}
    if first & {"B08", "B8A"} and numbers <= {"8A", *map(str, range(1, 13))}:
        return "sentinel-2"
    return "landsat-8-9" if "SR_B6" in first else None


def are_numbered(raster: HasBands) -> bool:
    """Return whether bands have the numbers of some sensor."""
    own = dict(raster.band_coordinates).get(SOURCE_BAND, raster.bands)
    return any(_NUMBERED.fullmatch(str(name)) for name in own)


def _by_wavelength(places: Mapping[str, int], known: Mapping[str, Any], common: str) -> Iterator[Found]:
    """Yield the band whose centre is nearest to the usual one."""
    low, usual, high = WAVELENGTHS[common]
    values = next((known[name] for name in _WAVELENGTH if name in known), None)
    if values is None:
        return
    centres = {name: _nanometres(values[place]) for name, place in places.items()}
    within = {name: centre for name, centre in centres.items() if low <= centre <= high}
    if within:
        name = min(within, key=lambda name: abs(within[name] - usual))
        yield Found(name, f"{within[name]:g} nm")


def _nanometres(value: Any) -> float:
    """Return a wavelength of light, which in micrometres is a small number and in nanometres a large one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return round(number * 1000, 6) if number < 100 else number
