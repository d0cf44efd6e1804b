"""What explains the colours of a raster below its picture: bar or swatches, no data, scale bar, north arrow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.raster import RasterSpec, printable
from pipeline.picture.color_map import BACKGROUND, color_map
from pipeline.picture.marks import north, scale_bar
from pipeline.picture.render import hatch
from pipeline.picture.style import FEW, Style, is_valid, unit_of

INK, FAINT = (30, 30, 30), (120, 120, 120)


@dataclass
class Pen:
    """Draws text and simple shapes on an image, in one size for all of it."""

    small: Any
    large: Any
    line: int
    """Pixels from one line of text to the next."""
    image: Any = None
    draw: Any = None

    @classmethod
    def of(cls, font: Path, size: int) -> Pen:
        """Return a pen whose letters fit a picture of so many pixels."""
        from PIL import ImageFont

        height = 12 if size <= 600 else 16
        layout = ImageFont.Layout.BASIC  # the same letters with and without a library for shaping
        small, large = (ImageFont.truetype(str(font), n, layout_engine=layout) for n in (height, height + 3))
        return cls(small, large, round(height * 1.6))

    def on(self, image: Any) -> None:
        from PIL import ImageDraw

        self.image, self.draw = image, ImageDraw.Draw(image)

    def width(self, text: str, *, is_large: bool = False) -> int:
        return math.ceil(float((self.large if is_large else self.small).getlength(text)))

    def text(self, x: float, y: float, text: str, room: float, *, is_large: bool = False) -> None:
        """Write a text, cut where there is no room for all of it."""
        while len(text) > 1 and self.width(text, is_large=is_large) > room:
            text = text[:-2] + "…"
        self.draw.text((round(x), round(y)), text, INK, font=self.large if is_large else self.small)

    def frame(self, x: float, y: float, width: float, height: float, fill: Any = None) -> None:
        self.draw.rectangle((x, y, x + width - 1, y + height - 1), outline=FAINT, fill=fill)

    def paste(self, pixels: np.ndarray, x: int, y: int) -> None:
        from PIL import Image

        self.image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (x, y))


@dataclass(frozen=True)
class Legend:
    """What explains a raster that is drawn."""

    spec: RasterSpec
    bands: Sequence[int]
    style: Style
    values: np.ndarray
    """Those that are drawn: (row, column, band)."""
    scale: tuple[float, float] = (1.0, 0.0)
    """Scale and offset by which they are told."""

    @staticmethod
    def height(pen: Pen) -> int:
        return round(4.2 * pen.line)

    @property
    def has_invalid(self) -> bool:
        return not is_valid(self.values, self.spec).all()

    @property
    def nothing(self) -> str:
        """What is said instead of colours where no value tells any."""
        valid = self.values[is_valid(self.values, self.spec)]
        if not valid.size:
            return "no valid pixels"
        is_ramp = self.style.kind not in ("categorical", "palette")
        return "no finite values" if is_ramp and not np.isfinite(valid).any() else ""

    @property
    def colors(self) -> str:
        """Which bands are red, green and blue."""
        names = [printable(self.spec.bands[band]) for band in self.bands]
        shown = zip(("red", "green", "blue"), names, strict=True)
        return ", ".join(color if name.lower() == color else f"{color} {name}" for color, name in shown)

    @property
    def ticks(self) -> list[str]:
        """The low limit, the middle and the high limit, by the scale, the last with the unit; of one value that."""
        (low, high), (factor, offset) = self.style.limits[0], self.scale
        first, middle, last = (format_number(value * factor + offset) for value in (low, (low + high) / 2, high))
        unit = unit_of(self.spec, self.bands[0])
        last = f"{last} {unit}".rstrip().replace(" °", "°")
        return [last] if low == high else [first, middle, last]

    def draw(self, pen: Pen, top: int, width: int, scale: float) -> None:
        """Draw it below a picture in which a pixel of the raster takes `scale` pixels."""
        top += pen.line // 2
        if text := self.nothing:
            pen.text(0, top, text, width)
        elif self.style.kind == "color":
            pen.text(0, top, self.colors, width)
        elif self.style.kind in ("categorical", "palette"):
            self._swatches(pen, top, width)
        else:
            self._bar(pen, top, width)
        self._marks(pen, top + round(2.3 * pen.line), width, scale)

    def _bar(self, pen: Pen, top: int, width: int) -> None:
        texts = self.ticks
        long, thick = min(width, (20 if len(texts) > 1 else 2) * pen.line), pen.line * 2 // 3
        colors = color_map(self.style.map)[np.arange(long - 2) * 256 // (long - 2) * (len(texts) > 1)]
        pen.frame(0, top, long, thick + 2)
        pen.paste(np.repeat(colors[np.newaxis], thick, axis=0), 1, top + 1)
        for place, text in zip((0.0, 0.5, 1.0), texts, strict=False):
            pen.text((long - pen.width(text)) * place if place else 0, top + thick + 4, text, width)

    def _swatches(self, pen: Pen, top: int, width: int) -> None:
        """Draw a swatch for each value that is there; of many, say how many are drawn."""
        found = np.unique(self.values[is_valid(self.values, self.spec)])
        x = 0
        for value in found.tolist() if len(found) <= FEW else ():
            text = str(value)
            if x + pen.line + pen.width(text) > width and x:
                x, top = 0, top + pen.line
            color = self.style.paint(np.array([[[value]]], self.values.dtype))[0, 0]
            pen.frame(x, top + 2, pen.line - 6, pen.line - 6, tuple(color.tolist()))
            pen.text(x + pen.line - 2, top, text, width - x)
            x += pen.line + pen.width(text) + 8
        if len(found) > FEW:
            what = "values in the colours of its table" if self.style.kind == "palette" else "values, a colour each"
            pen.text(0, top, f"{len(found):,} {what}", width)
            rest = found[:: max(1, len(found) // 40)][:40]
            strip = self.style.paint(rest[np.newaxis, :, np.newaxis])
            pen.paste(np.repeat(np.repeat(strip, pen.line // 2, axis=0), 6, axis=1), 0, top + pen.line)

    def _marks(self, pen: Pen, top: int, width: int, scale: float) -> None:
        """Draw scale bar, no data and north arrow, as far as there are such."""
        x = 0.0
        if bar := scale_bar(self.spec, 8 * pen.line / scale):
            long, y = bar.pixels * scale, top + pen.line * 0.7
            pen.draw.line([(0, y - 5), (0, y), (long, y), (long, y - 5)], INK, 2)
            pen.text(long + 6, top, bar.text, width)
            x = long + pen.width(bar.text) + 24
        if self.has_invalid:
            side = pen.line - 6
            pen.frame(x, top + 2, 2 * side + 2, side + 2)
            pen.paste(np.repeat(hatch(side, 2 * side)[..., np.newaxis], 3, axis=-1), round(x) + 1, top + 3)
            pen.text(x + 2 * side + 8, top, "no data", width - x)
            x += 2 * side + 24 + pen.width("no data")
        if (self.style.is_level(self.values[..., 0]) & is_valid(self.values, self.spec)).any():
            pen.frame(x, top + 2, pen.line - 6, pen.line - 6, (BACKGROUND,) * 3)
            pen.text(x + pen.line - 2, top, "level", width - x)
        if (angle := north(self.spec)) is not None:
            _arrow(pen, width - pen.line, top + pen.line * 0.6, angle)


def _arrow(pen: Pen, x: float, y: float, angle: float) -> None:
    """Draw an arrow that shows north, clockwise from up, around a point."""
    turn, long = math.radians(angle), 0.6 * pen.line

    def at(along: float, aside: float) -> tuple[float, float]:
        return (
            x + long * (along * math.sin(turn) + aside * math.cos(turn)),
            y - long * (along * math.cos(turn) - aside * math.sin(turn)),
        )

    pen.draw.polygon([at(1, 0), at(-1, 0.6), at(-0.6, 0), at(-1, -0.6)], fill=INK)
    pen.text(x - 2 * pen.line // 2 - pen.width("N") / 2, y - pen.line / 2, "N", 2 * pen.line)


def format_number(value: float) -> str:
    """Return a number in few digits.

    Examples
    --------
    >>> [format_number(value) for value in (0.0, 1234.56, 0.000123456, 1e9)]
    ['0', '1235', '0.0001235', '1e+09']
    """
    return f"{value:.4g}" if abs(value) < 1000 or abs(value) >= 1e7 else f"{value:.0f}"
