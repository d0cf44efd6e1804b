"""A picture of rasters side by side, each with its title, colours explained, scale bar and north arrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.model.raster import RasterSpec, printable
from pipeline.model.region import Region
from pipeline.picture.legend import Legend, Pen
from pipeline.picture.render import render
from pipeline.picture.sample import Levelled
from pipeline.picture.style import choose_style, drawn_bands, unit_of

SIZE, SIZE_OF_SEVERAL = 1000, 500
"""About the pixels of the longer side of a raster that is drawn alone, and of each of several."""
SMALLEST, LARGEST = 50, 2000
COLUMNS = 4
NARROWEST = 260
"""Of a panel, so that there is room for its legend."""
MARGIN, GAP = 16, 24
FONT = Path(__file__).parent / "font" / "DejaVuSans.ttf"


@dataclass(frozen=True)
class Subject:
    """What is drawn: a part of a raster, under a name."""

    name: str
    source: Levelled
    region: Region

    @property
    def spec(self) -> RasterSpec:
        return self.source.full.spec


def draw_sheet(subjects: Iterable[Subject], count: int, size: int | None = None) -> np.ndarray:
    """Return the picture of `count` rasters, four in a row, as uint8 (row, column, 3).

    The longer side of each has about `size` pixels: one of a whole number of the raster's, from the level that
    suffices, or of a small raster each a whole number of times as large.
    """
    side = size or (SIZE if count == 1 else SIZE_OF_SEVERAL)
    panels = [draw_panel(subject, side) for subject in subjects]
    rows = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    heights = [max(len(panel) for panel in row) for row in rows]
    width = max(sum(panel.shape[1] + GAP for panel in row) for row in rows) - GAP + 2 * MARGIN
    sheet = np.full((sum(heights) + GAP * (len(rows) - 1) + 2 * MARGIN, width, 3), 255, np.uint8)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for panel in row:
            sheet[top : top + len(panel), left : left + panel.shape[1]] = panel
            left += panel.shape[1] + GAP
        top += height + GAP
    return sheet


def drawn_steps(longest: int, size: int) -> tuple[int, int]:
    """Return of how many pixels one is drawn, and how many times as large: whole numbers, so that none is torn.

    Examples
    --------
    >>> drawn_steps(5000, 1000), drawn_steps(1400, 1000), drawn_steps(300, 1000)
    ((5, 1), (1, 1), (1, 3))
    """
    return max(1, round(longest / size)), max(1, size // longest)


def draw_panel(subject: Subject, size: int) -> np.ndarray:
    """Return one raster with what explains it, as uint8 (row, column, 3)."""
    from PIL import Image

    spec, region = subject.spec, subject.region
    step, times = drawn_steps(max(region.shape), size)
    rows, columns = np.arange(region.top, region.bottom, step), np.arange(region.left, region.right, step)
    bands = drawn_bands(subject.name, spec)
    values = subject.source.pixels(rows, columns, bands, step)
    style = choose_style(subject.name, spec, bands, values)
    pixels = render(values, spec, style, times)
    pen = Pen.of(FONT, size)
    line = pen.line
    panel_width = max(NARROWEST, pixels.shape[1] + 2)
    panel = Image.new("RGB", (panel_width, pixels.shape[0] + 2 + 2 * line + Legend.height(pen)), "white")
    pen.on(panel)
    pen.text(0, 0, _title(subject, bands), panel_width, is_large=True)
    pen.text(0, line + line // 8, _subtitle(spec, region, bands, step, times), panel_width)
    top = 2 * line
    pen.frame(0, top, pixels.shape[1] + 2, pixels.shape[0] + 2)
    panel.paste(Image.fromarray(pixels), (1, top + 1))
    legend = Legend(spec, bands, style, values, subject.source.scale_of(bands[0]))
    legend.draw(pen, top + pixels.shape[0] + 2, panel_width, times / step)
    return np.asarray(panel)


def _title(subject: Subject, bands: Sequence[int]) -> str:
    spec, unit = subject.spec, unit_of(subject.spec, bands[0])
    name = spec.bands[bands[0]]
    band = f" · {name}" if len(bands) == 1 and name not in ("b1", subject.name.rpartition("/")[2]) else ""
    return printable(f"{subject.name}{band}" + (f" [{unit}]" if unit else ""))


def _subtitle(spec: RasterSpec, region: Region, bands: Sequence[int], step: int, times: int) -> str:
    """Return what is drawn of what: `5,000 × 5,000 × uint16, band 1 of 4, every 5th pixel`."""
    which = f"{len(bands)} of" if len(bands) > 1 else f"band {bands[0] + 1} of"
    count = f", {which} {spec.num_bands}" + (" bands" if len(bands) > 1 else "") if spec.num_bands > 1 else ""
    drawn = f", 1:{step}" if step > 1 else f", {times}:1" if times > 1 else ""
    return f"{region.height:,} × {region.width:,} {spec.dtype.name}{count}{drawn}"
