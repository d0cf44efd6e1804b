"""A Zarr store from above: the array in it that is meant, and the names of its dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from pipeline.model.errors import InputError, SeveralRasters, UsageError, unknown
from pipeline.storage.folder.base import Folder, RemoteError
from pipeline.storage.folder.local import LocalFolder
from pipeline.storage.folder.metadata import METADATA, attributes_of, check_name
from pipeline.storage.georeference.ome import Image, parse_image
from pipeline.storage.input import Choice
from pipeline.storage.zarr.coordinate import Coordinates, quiet, recorded_names

LONGEST = 2**63
"""Pixels along an axis that 64 bits can no longer count: zarr loses itself there."""
Y_NAMES = ("y", "lat", "latitude", "row", "rows", "northing")
X_NAMES = ("x", "lon", "longitude", "col", "cols", "column", "columns", "easting")
BAND_NAMES = ("band", "bands", "c", "channel", "channels", "wavelength", "spectral")


def _open(folder: Folder) -> zarr.Group | zarr.Array[Any]:
    if isinstance(folder, LocalFolder) and not Path(folder.path).exists():
        raise InputError(f"{folder}: no such file or folder")
    names = [name for name in ("zarr.json", ".zarray", ".zgroup") if folder.exists(name)]
    if not names:
        hint = f"; `rasterpipe info {folder}` says what lies there" if isinstance(folder, LocalFolder) else ""
        raise InputError(f"{folder}: is not a Zarr array or group (no zarr.json, .zarray or .zgroup in it){hint}")
    try:
        with quiet():
            store = folder.metadata_store()
            if names[0] == ".zarray" or (
                names[0] == "zarr.json" and folder.read_json(names[0])["node_type"] == "array"
            ):
                return zarr.open_array(store, mode="r")
            group = zarr.open_group(store, mode="r", use_consolidated=None if folder.is_unlisted else False)
            return _gathered(folder, group) if isinstance(folder, LocalFolder) else group
    except (InputError, UsageError):
        raise
    except RemoteError as error:
        raise InputError(str(error)) from error
    except Exception as error:
        raise InputError(f"{folder}: cannot be opened as Zarr: {type(error).__name__}: {error}") from error


def _gathered(folder: Folder, group: zarr.Group) -> zarr.Group:
    """Return a group with its members as its consolidated metadata have them, where these are all there is of some."""
    gathered = zarr.open_group(folder.metadata_store(), mode="r", use_consolidated=None)
    known = gathered.metadata.consolidated_metadata
    names = known.flattened_metadata if known is not None else {}
    alone = any(not any(folder.exists(f"{name}/{each}") for each in (*METADATA, ".zgroup")) for name in names)
    return gathered if alone else group


def with_levels(folder: Folder, choice: Choice) -> tuple[Folder, Choice]:
    """Return the group around an array of which a level is meant, and the choice of the array in it."""
    around = _parent_group(folder) if choice.level and not choice.array else None
    if around is None or folder.parent is None or not isinstance(_open(folder), zarr.Array):
        return folder, choice
    return folder.parent, replace(choice, array=str(folder).rstrip("/").rpartition("/")[2])


def find_array(folder: Folder, name: str | None, level: int = 0) -> tuple[zarr.Group | None, zarr.Array[Any]]:
    """Return the raster array of a store, and the group that holds its coordinates."""
    node, path = _open(folder), str(folder)
    if isinstance(node, zarr.Array):
        if name:
            raise InputError(f"{path}: is one array, so array '{name}' names nothing in it; leave it out")
        if level:
            raise InputError(f"{path}: `level: {level}`: the array has no levels")
        return _parent_group(folder), node
    if name is not None:
        check_name(path, name, "the array")
    else:
        roots = [asset for asset, source in _layout(node).items() if not source]
        if len(roots) == 1:
            return _level_of(node, roots[0], level, path)
        name = _path_of_level(node, level, path)
    try:
        with quiet():
            array = node[name or _only_raster(node, path)]
            parent: Any = node[array.path.rpartition("/")[0]] if "/" in array.path else node
    except InputError:
        raise
    except Exception as error:
        is_there = name and any(folder.exists(f"{name}/{each}") for each in METADATA)
        if name and not is_there and name not in (rasters := _rasters(node)):
            raise InputError(f"{path}: {unknown('array', name, rasters)}") from None
        what = name or "an array in it"
        raise InputError(f"{path}: {what} cannot be opened: {type(error).__name__}: {error}") from error
    if not isinstance(array, zarr.Array):
        raise InputError(f"{path}: {name} is a group; {unknown('array', name, _rasters(node))}")
    group = parent if isinstance(parent, zarr.Group) else None
    if level and group is not None and len(image_of(group).levels) <= level:
        return _level_of(group, array.path.removeprefix(f"{group.path}/"), level, path)
    return group, array


def _path_of_level(group: zarr.Group, level: int, path: str) -> str | None:
    """Return where a group's pyramid has a level; None for a group that has none."""
    levels = [level.path for level in image_of(group).levels]
    if level and level >= len(levels):
        known = f"levels 0 to {len(levels) - 1}" if levels else "no levels"
        raise InputError(f"{path}: `level: {level}`: the group has {known}")
    if levels:
        check_name(path, levels[level], "its `multiscales` path")
    return levels[level] if levels else None


def _layout(group: zarr.Group) -> dict[str, str]:
    """Return asset -> what it is derived from, by the Zarr convention `multiscales`; both arrays or groups."""
    described = attributes_of(group).get("multiscales")
    entries = described.get("layout") if isinstance(described, Mapping) else None
    found = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    return {str(entry.get("asset")): str(entry.get("derived_from", "")) for entry in found}


def _level_of(group: zarr.Group, name: str, level: int, path: str) -> tuple[zarr.Group, zarr.Array[Any]]:
    """Return a level of an array, or of a group of the same rasters, and the group that holds its coordinates."""
    levels = level_names(group, name)
    if level >= len(levels):
        known = f"levels 0 to {len(levels) - 1}" if len(levels) > 1 else "no levels"
        raise InputError(f"{path}: `level: {level}`: {name} has {known}")
    check_name(path, levels[level], "its `multiscales` path")
    try:
        with quiet():
            found, around = group[levels[level]], levels[level].rpartition("/")[0]
            parent = found if isinstance(found, zarr.Group) else group[around] if around else group
            array = found[_only_raster(found, path)] if isinstance(found, zarr.Group) else found
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: level {level} cannot be opened: {type(error).__name__}: {error}") from error
    if not (isinstance(parent, zarr.Group) and isinstance(array, zarr.Array)):
        raise InputError(f"{path}: level {level} is no raster: {levels[level]}")
    return parent, array


def level_names(group: zarr.Group | None, name: str) -> list[str]:
    """Return the arrays that are levels of one, by the Zarr convention, itself the first."""
    layout = _layout(group) if group is not None else {}
    below, levels = {source: asset for asset, source in layout.items() if source}, [name]
    while (asset := below.pop(levels[-1], None)) is not None:
        levels.append(asset)
    return levels


def _only_raster(group: zarr.Group, path: str) -> str:
    rasters = _rasters(group)
    if not rasters:
        raise InputError(f"{path}: is a group and holds no raster; name a group or an array that is one")
    if len(rasters) > 1:
        raise SeveralRasters(
            f"{path}: is a group and holds {len(rasters)} rasters: {', '.join(rasters)}; name one: "
            f"`{path.rstrip('/')}/{rasters[0]}` as the path, `array: {rasters[0]}` in a pipeline file, "
            f"or `info --array {rasters[0]}`",
            [{"array": name} for name in rasters],
            [(name, _sides(group, name)) for name in rasters],
        )
    return rasters[0]


def _sides(group: zarr.Group, name: str) -> str:
    with quiet():
        array: Any = group[name]
    return f"{' x '.join(map(str, array.shape))} {array.dtype.name}"


def _rasters(group: zarr.Group) -> list[str]:
    """Return the arrays that can be rasters: those with dims y and x; if no names say so, those with two dims."""
    try:
        with quiet():
            found = dict(group.members(max_depth=2))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{group.store_path}: cannot be listed: {type(error).__name__}: {error}") from error
    groups = {"": group, **{f"{key}/": node for key, node in found.items() if isinstance(node, zarr.Group)}}
    levels = {f"{key}{asset}" for key, node in groups.items() for asset, source in _layout(node).items() if source}
    members = {key: node for key, node in found.items() if isinstance(node, zarr.Array) and key not in levels}
    flat = {key: node for key, node in members.items() if node.ndim >= 2}
    auxiliary = {name for node in flat.values() for name in str(attributes_of(node).get("coordinates", "")).split()}
    roles = {key: {role_of(name) for name in recorded_names(node)} for key, node in flat.items()}
    named = [key for key in flat if {"y", "x"} <= roles[key] and key.rpartition("/")[2] not in auxiliary]
    return sorted(named or flat)


def _parent_group(folder: Folder) -> zarr.Group | None:
    parent = folder.parent
    if parent is None or not any(parent.exists(name) for name in ("zarr.json", ".zgroup")):
        return None
    node = _open(parent)
    return node if isinstance(node, zarr.Group) else None


def image_of(group: zarr.Group | None) -> Image:
    """Return what OME-Zarr says of a group."""
    return parse_image(attributes_of(group) if group is not None else {})


def check_array(array: zarr.Array[Any], path: str) -> None:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"{path}: the array has dtype {array.dtype}; rasters are integers or floating point up to 64 bit"
            + (" (store real and imaginary part as two bands)" if array.dtype.kind == "c" else "")
        )
    if max(array.shape, default=0) >= LONGEST:
        raise InputError(f"{path}: the array claims the shape {array.shape}; it is damaged: copy the store again")
    if array.ndim < 2:
        raise InputError(f"{path}: the array has {array.ndim} dimension(s); a raster has y and x")


# --- dims ------------------------------------------------------------------------------------------------------


def dimension_names(
    array: zarr.Array[Any], group: zarr.Group | None, path: str, warnings: list[str]
) -> tuple[str, ...]:
    """Return the dims' names: as the array or OME-Zarr says, else guessed aloud where the shape leaves no doubt."""
    for names in (recorded_names(array), image_of(group).axes):
        if len(names) == array.ndim and all(names):
            return tuple(str(name) for name in names)
    if array.ndim == 2:
        return ("y", "x")
    if array.ndim == 3:
        first, middle, last = array.shape
        guess = "y,x,band" if last < min(first, middle) else "band,y,x" if first < min(middle, last) else ""
        if guess:
            warnings.append(f"the array names no dims; by its shape {array.shape} they are taken as `dims: {guess}`")
            return tuple(guess.split(","))
    raise InputError(
        f"{path}: the array of shape {array.shape} names no dims, and they cannot be told from the shape; "
        f"say them, for instance `dims: y,x,band`"
    )


def role_of(name: Any) -> str:
    lowered = str(name).lower()
    for role, names in (("y", Y_NAMES), ("x", X_NAMES), ("band", BAND_NAMES)):
        if lowered in names:
            return role
    return lowered


def fix_dimensions(
    array: zarr.Array[Any], coordinates: Coordinates, names: Sequence[str], at: dict[str, Any], path: str
) -> dict[int, int]:
    """Return axis -> index for the dims beyond y, x and band: from `at`, or 0 where the length is 1."""
    if len(names) != array.ndim:
        raise InputError(f"{path}: `dims` names {len(names)} dims, the array has {array.ndim}: shape {array.shape}")
    fixed = {}
    for axis, name in enumerate(names):
        if name in at:
            fixed[axis] = _index_at(array.shape[axis], coordinates, name, at.pop(name), path)
        elif role_of(name) not in ("y", "x", "band"):
            if (size := array.shape[axis]) != 1:
                _check_named(names, path)
                raise SeveralRasters(
                    f"{path}: dim {name!r} has {size} entries; pick one, for instance `at: {{{name}: 0}}`, "
                    f"or read all of them as bands: `along: {name}`",
                    [{"at": {name: 0}}, {"along": name}],
                    [(name, f"{size} entries")],
                )
            fixed[axis] = 0
    if at:
        raise InputError(f"{path}: `at`: {unknown('dim', next(iter(at)), names)}")
    return fixed


def _check_named(names: Sequence[str], path: str) -> None:
    """Refuse dims among which no y and x are known, with names that say which: a guess, for the user to look at."""
    roles = [role_of(name) for name in names]
    if {"y", "x"} <= set(roles):
        return
    lacking = iter([role for role in ("x", "y") if role not in roles])
    for axis in reversed(range(len(roles))):  # x is the last of those whose names say nothing
        if roles[axis] not in ("y", "x", "band"):
            roles[axis] = next(lacking, roles[axis])
    raise InputError(
        f"{path}: dims are {','.join(names)}, none of which is known for "
        f"{' or '.join(role for role in ('y', 'x') if role not in map(role_of, names))}; say which they are, for "
        f"instance `dims: {','.join(roles)}`"
    )


def _index_at(size: int, coordinates: Coordinates, name: str, value: Any, path: str) -> int:
    """Return a position along an axis: a whole number, or an entry of its coordinate (a date also shortened)."""
    if isinstance(value, int):
        if -size <= value < size:
            return value % size
        raise InputError(
            f"{path}: `at: {{{name}: {value}}}` is outside; {name} has {size} entries, from 0 (quoted it is a label)"
        )
    entries = coordinates.labels(name, size)
    matches = [i for i, entry in enumerate(entries or ()) if entry == str(value)]
    matches = matches or [i for i, entry in enumerate(entries or ()) if "T" in entry and entry.startswith(str(value))]
    if len(matches) != 1:
        known = "it has no coordinate" if entries is None else ", ".join(entries[:10])
        found = f"{len(matches)} entries" if matches else "no entry"
        raise InputError(f"{path}: `at`: {name} has {found} {value!r} ({known}); a whole number is a position from 0")
    return matches[0]
