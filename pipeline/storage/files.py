"""Which files a pattern means, and what their names say: bands, times, what belongs together.

Names of bands are found as Sentinel-2 and Landsat write them: `T33UUP_20240601T100031_B08_10m.jp2` is of band B08,
`LC08_L2SP_193023_20240601_20240607_02_T1_SR_B4.TIF` of SR_B4.
"""

from __future__ import annotations

import datetime
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.model.errors import InputError, PipelineError
from pipeline.model.raster import printable
from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.input import Date, Input, Source, name_of
from pipeline.storage.stac import expand_stac

MAGIC = re.compile(r"[*?]|\[[^\]]+\]")
"""What makes a pattern of a path."""
MOST_FILES = 100_000
LISTED = 10
"""Names that a message lists."""
TIME = re.compile(r"\{time(?::([^{}]*))?\}")
DIRECTIVES = {"Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "M": r"\d{2}", "S": r"\d{2}", "j": r"\d{3}"}
"""What of `strptime` a time in a name may be made of."""
BAND = re.compile(
    r"(?<![A-Za-z0-9])(?P<band>"
    r"B(?:\d{1,2}|8A)|(?:SR|ST|TOA)_B\d{1,2}"  # Sentinel-2 and MODIS, Landsat
    r"|SCL|AOT|WVP|TCI|CLD|SNW|(?:QA|SR|ST)_[A-Z]{2,10}(?:_[A-Z]{2,10})?"
    r"|V[VH]|H[HV])(?![A-Za-z0-9])",
    re.IGNORECASE,
)
RESOLUTION = re.compile(r"(?<=/)R\d+m/|_\d+m(?=\.)")
"""What differs in the names of Sentinel-2's bands beside the band: files of other resolutions are of one place, too."""
METRES = re.compile(r"_(\d{1,4})m\.[^./]*$")


def expand(entry: Input) -> tuple[Input, tuple[str, ...]]:
    """Return an input whose patterns are the files that they mean, and what the user should know of that.

    Raises
    ------
    InputError
        A pattern meets no file, or its files do not tell how they belong together.
    """
    notes: list[str] = []
    if entry.stac is not None:
        return expand_stac(entry, notes), tuple(notes)
    if isinstance(entry.dates, str):
        return entry.model_copy(update={"dates": _dated(entry.dates, entry.storage, notes)}), tuple(notes)
    found = _expanded(entry, entry.storage, notes)
    if entry.dates is not None:
        found = entry.model_copy(update={"dates": tuple(_expanded(each, entry.storage, notes) for each in entry.dates)})
    return found, tuple(notes)


def _expanded(source: Any, access: Access | None, notes: list[str]) -> Any:
    """Return a source whose stack and mosaic name files."""
    changes: dict[str, Any] = {}
    if isinstance(source.stack, str):
        changes["stack"] = _stack_of(files_of(source.stack, access), source.stack)
        notes.append(f"stack {source.stack!r}: {_listed(changes['stack'])}")
    elif isinstance(source.stack, tuple) and any(map(is_pattern, source.stack)):
        changes["stack"] = tuple(
            path for each in source.stack for path in (files_of(each, access) if is_pattern(each) else [each])
        )
    mosaic = (source.mosaic,) if isinstance(source.mosaic, str) else source.mosaic
    if mosaic is not None:
        parts = [part for each in mosaic for part in _tiles_of(each, access, notes)]
        if source.mosaic != tuple(parts):
            changes["mosaic"] = tuple(parts)
    return source.model_copy(update=changes) if changes else source


def _tiles_of(part: str | Source, access: Access | None, notes: list[str]) -> Iterator[str | Source]:
    if isinstance(part, Source):
        yield _expanded(part, access, notes)
    elif is_pattern(part):
        found = files_of(part, access)
        notes.append(f"mosaic {part!r}: {len(found)} {'file' if len(found) == 1 else 'files'}")
        yield from found
    else:
        yield part


def is_pattern(path: str) -> bool:
    """Return whether a path is a pattern, and no file that is called so."""
    return MAGIC.search(path) is not None and (is_url(path) or not os.path.lexists(path))


def files_of(pattern: str, access: Access | None = None) -> list[str]:
    """Return the files (and stores) that a pattern meets, in natural order: 2 before 10.

    Raises
    ------
    InputError
        There is none: with what lies in the folder. A pattern on a server that does not list what it has.
    """
    found = dict[str, None]()
    for path in _objects(pattern, access) if is_url(pattern) else glob.iglob(pattern, recursive=True):
        found[path] = None
        if len(found) > MOST_FILES:
            raise InputError(f"{pattern}: meets more than {MOST_FILES:,} files; give a narrower pattern")
    if not found:
        there = "no object" if is_url(pattern) else "no file"
        raise InputError(f"{pattern}: {there} has such a name{'' if is_url(pattern) else _what_lies_there(pattern)}")
    return sorted(found, key=natural)


def _objects(pattern: str, access: Access | None) -> Iterator[str]:
    """Yield the objects (and stores, which are prefixes of objects) that a pattern meets in a bucket."""
    if pattern.startswith("http"):
        raise InputError(f"{pattern}: servers of http do not list what they have; list the files, or give a STAC item")
    from pipeline.storage.folder.remote import ObjectFolder

    first = MAGIC.search(pattern)
    assert first is not None
    root = pattern[: first.start()].rpartition("/")[0]
    folder, told = ObjectFolder(root, access or Access()), re.compile(_glob_expression(pattern) + "(?=/|$)", re.DOTALL)
    for name in folder.names():
        if match := told.match(f"{root}/{name}"):
            yield match[0]


def natural(text: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts numbers in names by their value.

    Examples
    --------
    >>> sorted(["b10", "b9", "a1"], key=natural)
    ['a1', 'b9', 'b10']
    """
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(part)) if part.isdecimal() and len(part) < 4000 else (1, part) for part in parts if part]


def _what_lies_there(pattern: str) -> str:
    """Return in words what there is in the deepest folder of a pattern that exists."""
    parts = Path(pattern).parts
    folder = Path(parts[0])
    for part in parts[1:-1]:
        if MAGIC.search(part) or not (folder / part).is_dir():
            break
        folder = folder / part
    try:
        names = sorted(os.listdir(folder), key=natural)
    except OSError as error:
        return f"; {folder} cannot be listed: {error.strerror}"
    more = f", and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"; in {folder} lie {', '.join(map(printable, names[:LISTED])) or 'no files'}{more}"


def band_in_name(path: str) -> str:
    """Return the band that the name of a file tells; empty where it tells none.

    Examples
    --------
    >>> band_in_name("T33UUP_20240601T100031_B08_10m.jp2"), band_in_name("LC08_T1_SR_B4.TIF"), band_in_name("dem.tif")
    ('B08', 'SR_B4', '')
    """
    found = [match["band"] for match in BAND.finditer(name_of(path))]
    return found[-1].upper() if found else ""


def names_of(paths: Sequence[str]) -> list[str]:
    """Return the names of bands that lie in files: as their names tell, if of each another one; else these."""
    bands = [band_in_name(path) for path in paths]
    return bands if all(bands) and len(set(bands)) == len(bands) else [name_of(path) for path in paths]


def _stack_of(paths: Sequence[str], pattern: str) -> dict[str, str]:
    paths = finest_of(paths)
    names = names_of(paths)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        files = ", ".join(path for name, path in zip(names, paths, strict=True) if name == twice)
        raise InputError(
            f"{pattern}: meets several files of the band {twice}: {files}; give a narrower pattern, or "
            "`stack: {NAME: FILE, ...}`"
        )
    return dict(zip(names, paths, strict=True))


def _place(path: str) -> tuple[str, str]:
    """Return what is told of a file beside its band and its resolution, and the band."""
    band = band_in_name(path)
    return (RESOLUTION.sub("", BAND.sub("*", path)) if band else path), band


def finest_of(paths: Sequence[str]) -> list[str]:
    """Return files without those that are there in a finer resolution, too: B04 at 20 m beside B04 at 10 m."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        found.setdefault(_place(path), []).append(path)
    finest = {place: min(map(_metres, each)) for place, each in found.items()}
    return [path for path in paths if _metres(path) == finest[_place(path)]]


def _metres(path: str) -> int:
    match = METRES.search(path)
    return int(match[1]) if match else 0


def _listed(files: Mapping[str, str]) -> str:
    shown = [f"{name} is {Path(path).name}" for name, path in list(files.items())[:LISTED]]
    more = f", and {len(files) - LISTED} more" if len(files) > LISTED else ""
    return ", ".join(shown) + more


def arrange(paths: Sequence[str]) -> Source:
    """Return how files of one time make up a raster: a file, bands of one place, tiles, or tiles of several bands.

    Files whose names differ in the band alone are a stack; of a band in several resolutions the finest counts.
    """
    paths = finest_of(paths)
    if len(paths) == 1:
        band = band_in_name(paths[0])
        return Source(stack={band: paths[0]}) if band else Source(path=paths[0])
    places: dict[str, dict[str, str]] = {}
    for path in paths:
        place, band = _place(path)
        places.setdefault(place, {}).setdefault(band, path)
    if sum(map(len, places.values())) < len(paths):
        raise InputError(f"{paths[0]} and others: several files are of one band and place; give a narrower pattern")
    parts = [
        Source(stack=files) if len(files) > 1 else next(iter(files.values()))
        for files in (dict(sorted(each.items())) for each in places.values())
    ]
    return (
        Source(mosaic=tuple(parts))
        if len(parts) > 1
        else parts[0]
        if isinstance(parts[0], Source)
        else Source(path=parts[0])
    )


def _dated(pattern: str, access: Access | None, notes: list[str]) -> tuple[Date, ...]:
    """Return the rasters of a pattern with a time in it, one for each time."""
    if TIME.search(pattern) is None:
        raise PipelineError(
            f"{pattern}: says no time; mark it in the name, as in `S2_{{time:%Y%m%d}}_*.tif`, or list the dates",
            ("dates",),
        )
    told, form, loose = _expression(pattern)
    files = files_of(loose, access)
    by_time: dict[str, list[str]] = {}
    for path in files:
        if (match := told.fullmatch(path)) is not None and (time := _time(match["time"], form)) is not None:
            by_time.setdefault(time, []).append(path)
    num_told = sum(map(len, by_time.values()))
    if not by_time:
        raise InputError(f"{pattern}: {len(files)} files have such a name, and none has a time as {form} in its place")
    if num_told < len(files):
        notes.append(f"dates {pattern!r}: {len(files) - num_told} of {len(files)} files have no time as {form}")
    notes.append(f"dates {pattern!r}: {num_told} files, {len(by_time)} dates, {min(by_time)} to {max(by_time)}")
    return tuple(
        Date(time=time, **arrange(paths).model_dump(exclude_defaults=True)) for time, paths in sorted(by_time.items())
    )


def _expression(pattern: str) -> tuple[re.Pattern[str], str, str]:
    """Return what tells the time in a path that a pattern meets, the form of the time, and the pattern without it."""
    forms = {match[1] for match in TIME.finditer(pattern) if match[1] is not None}
    if not forms:
        raise PipelineError(f"{pattern}: says not how the time is written; write {{time:%Y%m%d}}, say", ("dates",))
    if len(forms) > 1:
        raise PipelineError(f"{pattern}: the time is written in two ways: {', '.join(sorted(forms))}", ("dates",))
    form, parts, place = forms.pop(), [], 0
    for number, match in enumerate(TIME.finditer(pattern)):
        parts += [
            _glob_expression(pattern[place : match.start()]),
            f"(?P<time>{_form(form)})" if not number else "(?P=time)",
        ]
        place = match.end()
    told = re.compile("".join([*parts, _glob_expression(pattern[place:])]), re.DOTALL)
    return told, form, TIME.sub("*", pattern)


def _form(form: str) -> str:
    """Return the expression that a time of this form meets."""
    try:
        return re.sub(r"%(.)|([^%]+)", lambda m: DIRECTIVES[m[1]] if m[1] else re.escape(m[2]), form)
    except KeyError as error:
        known = ", ".join(f"%{letter}" for letter in DIRECTIVES)
        raise PipelineError(f"{{time:{form}}}: %{error.args[0]} is not read; use {known}", ("dates",)) from None


def _time(text: str, form: str) -> str | None:
    try:
        time = datetime.datetime.strptime(text, form)
    except ValueError:
        return None
    return time.isoformat() if re.search("%[HMS]", form) else time.date().isoformat()


def _glob_expression(pattern: str) -> str:
    """Return the regular expression of a pattern of `glob`, `**` included."""
    kinds: dict[str, Callable[[str], str]] = {
        r"\*\*/": lambda _: "(?:.*/)?",
        r"\*+": lambda _: "[^/]*",
        r"\?": lambda _: "[^/]",
        r"\[[^\]]+\]": lambda text: "[^" + text[2:] if text.startswith("[!") else text,
        r"[^*?\[]+|\[": re.escape,
    }
    every = re.compile("|".join(f"({kind})" for kind in kinds))
    makers = list(kinds.values())
    return "".join(makers[match.lastindex - 1](match[0]) for match in every.finditer(pattern) if match.lastindex)
