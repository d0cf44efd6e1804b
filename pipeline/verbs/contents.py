"""What lies at a path that is no single raster: the files of a folder, the arrays of a group, the slices of a stack."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.model.alignment import repetition
from pipeline.model.errors import InputError, RasterpipeError, SeveralRasters
from pipeline.model.facts import ContentsFacts, MemberFacts
from pipeline.model.raster import RasterSpec, grid_difference
from pipeline.model.read_limits import ReadLimits
from pipeline.storage.compose import open_input
from pipeline.storage.files import band_in_name, expand, finest_of, names_of, natural
from pipeline.storage.input import Input
from pipeline.storage.open import RASTER_SUFFIXES, open_raster
from pipeline.storage.vector.file import Layer, layers_of, read_features
from pipeline.storage.vector.polygons import repeated

MOST = 2000
"""Rasters of a folder that are opened."""
DEPTH = 6
"""Folders below a folder that are looked into; a Sentinel-2 scene has its bands in the fourth."""
DATE = re.compile(r"(?<!\d)(?:19|20)\d{2}(?P<sign>[-_]?)(?:0[1-9]|1[0-2])(?P=sign)(?:0[1-9]|[12]\d|3[01])(?!\d)")
CLOUDS = [0, 1, 3, 8, 9, 10]
"""Classes of Sentinel-2's SCL that show no ground: no data, defective, cloud shadows, clouds, cirrus."""
PLAIN = re.compile(r"[\w./+~-](?:[\w./+%@=~-]|:(?=\S))*")
"""Text that YAML takes as it stands, in braces too."""
STORES = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class _Member:
    path: Path
    spec: RasterSpec


def describe_several(path: str, error: SeveralRasters) -> ContentsFacts:
    """Return the rasters that a file or a store holds, as an attempt to open it as one has found them."""
    lines = tuple(line_of({"path": path, **choice}) for choice in error.choices)
    words = str(error).removeprefix(f"{path}: ").partition("; ")[0]
    return ContentsFacts(path, words, tuple(MemberFacts(*each) for each in error.members), lines, ())


def describe_polygons(path: str) -> ContentsFacts:
    """Return the layers of a file of polygons, and the lines that make inputs of them."""
    layers, lines, found = layers_of(path), list[str](), list[MemberFacts]()
    for layer in layers:
        fields = ", ".join(f"{name} ({dtype})" for name, dtype in layer.fields.items())
        told = f"{layer.num_features:,} features, {layer.kind}, {(layer.crs or 'no coordinate system')[:40]}"
        found.append(MemberFacts(layer.name, f"{told}; {fields or 'no fields'}"))
        entry = {"vector": path, **({"layer": layer.name} if len(layers) > 1 else {})}
        lines.append(line_of({**entry, **({"id": key} if (key := _key_of(path, layer)) else {})}, "fields"))
    told = f"{len(layers):,} {'layer' if len(layers) == 1 else 'layers'} of geometries"
    return ContentsFacts(path, told, tuple(found), tuple(lines), ())


def _key_of(path: str, layer: Layer) -> str | None:
    """Return the first field that may be the ids of polygons."""
    names = [name for name, dtype in layer.fields.items() if dtype.lstrip("u").startswith("int")]
    columns = read_features(path, layer, None, names, ReadLimits()).fields if names else {}
    return next((name for name in names if columns[name].all() and repeated(columns[name]) is None), None)


def is_plain_folder(path: str) -> bool:
    """Return whether a path is a folder and no Zarr store."""
    return os.path.isdir(path) and not any(os.path.lexists(os.path.join(path, name)) for name in STORES)


def describe_folder(path: str) -> ContentsFacts:
    """Return the rasters that lie in a folder, and the inputs that they make."""
    places, notes, members = list(_rasters_in(Path(path))), list[str](), list[_Member]()
    for place in places[:MOST]:
        try:
            members.append(_Member(place, open_raster(str(place)).spec))
        except SeveralRasters:
            notes.append(f"{place.name} holds several rasters: rasterpipe info {place}")
        except RasterpipeError as error:
            notes.append(str(error))
    if len(places) > MOST:
        notes.append(f"{MOST:,} of {len(places):,} rasters are opened here")
    if not places:
        names = sorted(os.listdir(path), key=natural)
        raise InputError(f"{path}: no raster lies there: {', '.join(names[:10]) or 'it is empty'}")
    found = tuple(
        MemberFacts(os.path.relpath(each.path, path), f"{' x '.join(map(str, each.spec.shape))} {each.spec.dtype.name}")
        for each in members
    )
    told = f"{len(places):,} {'raster' if len(places) == 1 else 'rasters'}"
    return ContentsFacts(path, told, found, tuple(_lines(members)), tuple(notes))


def _rasters_in(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the rasters of a folder; where it has none, those of the folders in it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
    except OSError:
        return
    names = [entry for entry in entries if not entry.name.startswith(".")]
    found = [Path(entry.path) for entry in names if _is_raster(entry)]
    yield from found
    if not found and depth < DEPTH:
        for entry in names:
            if entry.is_dir(follow_symlinks=False):
                yield from _rasters_in(Path(entry.path), depth + 1)


def _is_raster(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir():
        return any(os.path.lexists(os.path.join(entry.path, name)) for name in STORES)
    return Path(entry.name).suffix.lower() in RASTER_SUFFIXES


def _lines(members: Sequence[_Member]) -> Iterator[str]:
    """Yield the inputs that rasters make: dates, bands or tiles, what can be opened first; else each alone."""
    made: Sequence[_Member] = ()
    for entry, used in _ways(members):
        try:
            open_input(expand(Input.model_validate(entry))[0])
        except (RasterpipeError, ValueError):
            continue
        yield line_of(entry)
        made = used
        break
    yield from (line_of({"path": str(each.path)}) for each in members if each not in made)


def _ways(members: Sequence[_Member]) -> Iterator[tuple[dict[str, Any], list[_Member]]]:
    """Yield inputs that may be made of several rasters, each with those that it is made of."""
    paths = set(finest_of([str(each.path) for each in members]))
    coarser = [each for each in members if str(each.path) not in paths]
    members = [each for each in members if str(each.path) in paths]
    if len(members) < 2:
        return
    bands = {str(each.path): band_in_name(str(each.path)) for each in members}
    mask = {"mask": {"SCL": CLOUDS}} if "SCL" in bands.values() else {}
    if pattern := _dated(members):
        yield {"dates": pattern, **mask}, [*members, *coarser]
    single = [each for each in members if each.spec.num_bands == 1]
    finest = max((each.spec for each in single), key=lambda spec: spec.region.num_pixels, default=None)
    same = [each for each in single if finest is not None and _is_on(each.spec, finest)]
    alike = [each for each in same if (each.spec.dtype, each.spec.nodata) == (same[0].spec.dtype, same[0].spec.nodata)]
    scl = [each for each in same if bands[str(each.path)] == "SCL" and each not in alike]
    if len(alike) > 1:
        used = [*alike, *scl]
        names = names_of([str(each.path) for each in used])
        files = dict(zip(names, (str(each.path) for each in used), strict=True))
        yield {"stack": files, **(mask if scl else {})}, [*used, *coarser]
    yield {"mosaic": _common([str(each.path) for each in members])}, [*members, *coarser]


def _is_on(spec: RasterSpec, grid: RasterSpec) -> bool:
    return not grid_difference(grid, spec) or repetition(spec, grid) is not None


def _dated(members: Sequence[_Member]) -> str:
    """Return the pattern of files whose names tell several dates; empty where they do not."""
    found = [(str(each.path), list(DATE.finditer(each.path.name))) for each in members]
    if not all(matches for _, matches in found):
        return ""
    first = [matches[0] for _, matches in found]
    if len({match[0] for match in first}) < 2 or len({match["sign"] for match in first}) > 1:
        return ""
    form = first[0]["sign"].join(("%Y", "%m", "%d"))
    names = [f"{match.string[: match.start()]}\0{match.string[match.end() :]}" for match in first]
    paths = [os.path.join(os.path.dirname(path), name) for (path, _), name in zip(found, names, strict=True)]
    return _common(paths).replace("\0", f"{{time:{form}}}")


def _common(paths: Sequence[str]) -> str:
    """Return the pattern of paths, folder by folder; the time in a name stays."""
    parts = [path.split("/") for path in paths]
    if len(set(map(len, parts))) > 1:
        return ""
    return "/".join("\0".join(map(_pattern, _pieces(level))) for level in zip(*parts, strict=True))


def _pieces(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield what stands before the time in names, and what stands after it."""
    return map(list, zip(*(name.split("\0") for name in names), strict=True))


def _pattern(texts: Sequence[str]) -> str:
    """Return the pattern of texts that begin and end alike."""
    if len(set(texts)) == 1:
        return texts[0]
    begin = _beginning(texts)
    end = _beginning([text[len(begin) :][::-1] for text in texts])[::-1]
    return f"{begin}*{end}"


def _beginning(texts: Sequence[str]) -> str:
    """Return the letters that texts have in common from their beginning on."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in alike)


def line_of(entry: Mapping[str, Any], name: str = "image") -> str:
    """Return the line that makes a raster an input of a pipeline file."""
    return f"  {name}: {_text(entry if len(entry) > 1 or 'path' not in entry else entry['path'])}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in value.items())}}}"
    text = str(value).replace("$", "$$")  # else `${A}` were a variable
    is_plain = re.fullmatch(r"[\w./+~-](?:[\w./+%@=~-]|:(?=\S))*", text) and not re.fullmatch(
        r"[-+.]?\d[\d.eE+-]*", text
    )
    return text if is_plain or isinstance(value, int) else json.dumps(text, ensure_ascii=False)
