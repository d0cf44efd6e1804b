"""Rasters drawn into a PNG, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.execution.progress import Progress
from pipeline.execution.terminal import say
from pipeline.model.errors import OutputError, UsageError
from pipeline.model.facts import Facts
from pipeline.output.exports.base import Written
from pipeline.output.writes import check_files
from pipeline.picture.render import to_png
from pipeline.picture.sheet import LARGEST, SMALLEST, Subject, draw_sheet
from pipeline.storage.folder.disk import replace_file
from pipeline.storage.open import local_paths
from pipeline.storage.zarr.reader import configure
from pipeline.verbs.convert import Chosen
from pipeline.verbs.rasters import Found, find_rasters

AnyPath = str | os.PathLike[str]
MOST = 16
"""Rasters in one picture."""


@dataclass(frozen=True)
class ShowFacts(Facts):
    """A picture that was drawn."""

    path: str
    rasters: tuple[str, ...]
    size: tuple[int, int]
    """Height and width in pixels."""
    not_drawn: tuple[str, ...]
    """Rasters that it has no room for."""


def show(
    results: AnyPath | Sequence[AnyPath],
    target: AnyPath,
    *,
    size: int | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    chosen: Chosen | None = None,
) -> ShowFacts:
    """Draw rasters side by side into a PNG, with titles, the colours explained, scale bar and north arrow.

    Parameters
    ----------
    results
        Output stores, arrays in them, TIFFs, or whatever is an input; of a store all its rasters.
    size
        About the pixels of the longer side of each. Default: 1000, of several 500.
    overwrite
        Whether a PNG that is there is replaced.
    chosen
        Which raster of each is meant: see `pipeline.info`.
    """
    target, paths = os.fspath(target), [results] if isinstance(results, str | os.PathLike) else results
    if Path(target).suffix.lower() != ".png":
        raise OutputError(f"{target}: a picture is a PNG; give a name that ends in .png")
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise UsageError(f"--size must be from {SMALLEST} to {LARGEST} pixels, got {size}")
    configure(os.cpu_count() or 1)
    found = find_rasters([os.fspath(path) for path in paths], chosen)
    sources = [path for each in found for path in local_paths(each.source.full)]
    check_files([Written(target, "the picture", "picture")], sources, may_replace=overwrite)
    drawn, rest = found[:MOST], tuple(each.name for each in found[MOST:])
    notes = [f"{each.name}: {text}" for each in drawn for text in each.source.full.describe().get("warnings", ())]
    if rest:
        notes.append(f"a picture has room for {MOST} rasters; not drawn: {', '.join(rest)}; name those that you want")
    for note in () if quiet else notes:
        say(f"note: {note}")
    with Progress(quiet=quiet) as progress:
        progress.start(len(drawn), what=f"panels of {Path(target).name}")
        image = draw_sheet(_subjects(drawn, progress), len(drawn), size)
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(target), to_png(image))
    except OSError as error:
        raise OutputError(f"{target}: the picture cannot be written: {error.strerror or error}") from error
    return ShowFacts(target, tuple(each.name for each in drawn), (image.shape[0], image.shape[1]), rest)


def _subjects(found: Sequence[Found], progress: Progress) -> Iterator[Subject]:
    for each in found:
        yield Subject(each.name, each.source, each.source.full.spec.region)
        progress.advance()
