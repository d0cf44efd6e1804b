"""Colours for numbers: tables of 256 colours, or of as many as there are values."""

from __future__ import annotations

import numpy as np

SIZE = 256
ANCHORS = {
    "viridis": "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
    "magma": "000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf",
    "grey": "000000 ffffff",
    "blue-red": "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b",
    "brown-green": "8c510a bf812d dfc27d f6e8c3 f5f5f5 c7eae5 80cdc1 35978f 01665e",
    "terrain": "2b6a4d 5f9a58 a9bd6e e3d38f cfa66b a4754c 8c6a5a b8aba4 f4f2f0",
}
"""Colours at equal distances, between which the others lie."""
CYCLE = "cycle"
"""Hues around the circle, equally light: the last colour is next to the first."""
MAPS = (*ANCHORS, CYCLE)


def color_map(name: str) -> np.ndarray:
    """Return a map by its name: uint8 of shape (256, 3).

    Examples
    --------
    >>> color_map("grey")[[0, 128, 255], 0].tolist(), color_map("viridis")[0].tolist()
    ([0, 128, 255], [68, 1, 84])
    """
    if name == CYCLE:
        return hues(np.arange(SIZE) / SIZE)
    anchors = np.array([list(bytes.fromhex(text)) for text in ANCHORS[name].split()], np.float64)
    places = np.linspace(0, len(anchors) - 1, SIZE)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=-1)), np.uint8)


def hues(turns: np.ndarray, lightness: float | np.ndarray = 0.74, chroma: float = 0.12) -> np.ndarray:
    """Return colours of hues, given in turns of the circle, as uint8 of shape (..., 3).

    They are equally light to the eye: Björn Ottosson, A perceptual color space for image processing (2020).
    """
    a, b = chroma * np.cos(2 * np.pi * turns), chroma * np.sin(2 * np.pi * turns)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip(cones**3 @ np.array(to_linear).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), np.uint8)


FIRST = "4477aa ee6677 228833 ccbb44 66ccee aa3377 ee8866 44bb99"
"""Of few classes, in order: distinct to the colour-blind, too (Paul Tol's scheme "bright", and two of "light")."""
BACKGROUND = 235
"""Light grey: of class 0, and of angles that are none."""
GOLDEN = 0.6180339887498949


def class_colors(numbers: np.ndarray) -> np.ndarray:
    """Return a colour for each number of a class or object, the same in every picture: uint8 of shape (..., 3).

    Neighbouring numbers, which lie side by side, differ much.

    Examples
    --------
    >>> class_colors(np.array([1, 2, 2, 9])).tolist()[:3]
    [[68, 119, 170], [238, 102, 119], [238, 102, 119]]
    """
    first = np.array([list(bytes.fromhex(text)) for text in FIRST.split()], np.uint8)
    places = np.asarray(numbers).astype(np.int64)  # of uint64 the bits, which differ where the numbers do
    turns = np.mod(np.mod(places, 2**20) * GOLDEN, 1)
    others = hues(turns, lightness=0.55 + 0.1 * np.mod(places, 4), chroma=0.13)
    is_first = (places >= 1) & (places <= len(first))
    found = np.where(is_first[..., np.newaxis], first[np.where(is_first, places - 1, 0)], others)
    return np.where((places == 0)[..., np.newaxis], np.uint8(BACKGROUND), found)
