"""The rasters at a path, each with its levels: all of a store or a file, or the one that is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from pipeline.model.errors import InputError, SeveralRasters, UsageError
from pipeline.picture.sample import Levelled, PieceCache
from pipeline.storage.driver import parse_driver
from pipeline.storage.input import Choice
from pipeline.storage.open import open_raster
from pipeline.storage.reader import Reader


@dataclass(frozen=True)
class Found:
    """A raster to be looked at."""

    path: str
    """Of the file or the store, as it was given."""
    name: str
    """In the store, or after the file; rasters of several paths that have one name in common are told apart by it."""
    source: Levelled


def find_rasters(
    paths: Sequence[str], chosen: Mapping[str, Any] | None = None, cache: PieceCache | None = None
) -> list[Found]:
    """Return the rasters at some paths, in order; `chosen` says which of each is meant, as of `pipeline.info`.

    Raises
    ------
    InputError
        Where one cannot be opened, or a path holds nothing that could be one.
    """
    choice = _choice(chosen or {})
    found = [Found(path, name, source) for path in paths for name, source in _rasters_at(path, choice, cache)]
    names = [each.name for each in found]
    return [
        replace(each, name=f"{_stem(each.path)}:{each.name}") if names.count(each.name) > 1 else each for each in found
    ]


def _choice(chosen: Mapping[str, Any]) -> Choice:
    given = {key: value for key, value in chosen.items() if value is not None}
    try:
        given |= {"driver": parse_driver(given["driver"])} if "driver" in given else {}
    except ValueError as error:
        raise UsageError(f"--driver {given['driver']}: {error}") from error
    return Choice(**given)


def _rasters_at(path: str, choice: Choice, cache: PieceCache | None) -> Iterator[tuple[str, Levelled]]:
    try:
        first = open_raster(path, choice)
    except SeveralRasters as error:
        along = [each for each in error.choices if "along" in each]
        for each in along or error.choices:
            yield from _rasters_at(path, replace(choice, **each), cache)
        if not error.choices:
            raise
        return
    array = first.describe().get("array") or choice.array
    name = str(array or "")
    if name.rpartition("/")[2].isdigit():  # a level of OME-Zarr
        name = name.rpartition("/")[0]
    name = name or _stem(path)
    if choice.series is not None:
        name = f"{name} {choice.series}"
    if choice.level:
        yield name, Levelled([first], cache)
        return
    ways = [choice, replace(choice, array=str(array))] if array else [choice]
    yield name, Levelled.open(lambda level: _level(path, ways, level) if level else first, cache)


def _level(path: str, ways: Sequence[Choice], level: int) -> Reader:
    """Open a level: of the image that a group is (OME-Zarr), else of the array in it."""
    for choice in ways[:-1]:
        with suppress(InputError):
            return open_raster(path, replace(choice, level=level))
    return open_raster(path, replace(ways[-1], level=level))


def _stem(path: str) -> str:
    """Return what a path is called: in a store the way to the array, else the name of the file.

    Examples
    --------
    >>> _stem("results/out.zarr/slope/dy"), _stem("scenes/S2.tif"), _stem("out.zarr/")
    ('slope/dy', 'S2', 'out')
    """
    pure = PurePath(path)
    stores = [i for i, part in enumerate(pure.parts) if part.endswith(".zarr")]
    below = pure.parts[stores[-1] + 1 :] if stores else ()
    return "/".join(below) or pure.name.partition(".")[0] or pure.name
