"""First derivatives by central differences: dy, dx, magnitude, direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pipeline.operations.difference import Difference
from pipeline.operations.registry import register
from pipeline.operations.traits import HasUnits


@register
class Gradient(HasUnits, Difference):
    """First derivatives of each band by central differences, and their magnitude and direction.

    dy is down the rows, dx along the columns. A result is invalid where its support (its stencil and the pixel
    itself) holds an invalid pixel or an infinity. Reference: numpy.gradient in float64.
    """

    example: ClassVar[str] = "{name: slope, op: gradient, input: image, spacing: [10, 10], outputs: [dy, dx]}"
    not_averaged: ClassVar[frozenset[str]] = frozenset({"direction"})
    outputs_text: ClassVar[Mapping[str, str]] = {
        "dy": "(down - up) / (2 spacing); working dtype",
        "dx": "(right - left) / (2 spacing); working dtype",
        "magnitude": "length of the vector (dx, dy); working dtype",
        "direction": "its angle in degrees from +x (along the columns) towards +y (down the rows), in (-180, 180], "
        "0 where the gradient is 0; working dtype",
    }

    version: ClassVar[int] = 3

    op: Literal["gradient"]
    outputs: tuple[Literal["dy", "dx", "magnitude", "direction"], ...] = ("dy", "dx")
    """What to compute; each is an output."""

    def units(self) -> dict[str, str]:
        return {"direction": "degree"}
