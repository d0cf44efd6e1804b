"""The metadata of Zarr stores, read with care: plain files of moderate size, inside the store, under plain names."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from pipeline.model.errors import InputError

METADATA = ("zarr.json", ".zarray", ".zattrs")
METADATA_LIMIT_BYTES = 16 * 2**20
"""Of one metadata file: parsed, it takes some twenty times as much."""


class InputStore(LocalStore):
    """A store that is only read, and whose metadata are plain files: a pipe would block, a huge file fill memory."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        _check_key(str(self.root), key)
        return await super().get(key, *arguments, **options)

    def get_sync(self, key: str, **options: Any) -> Any:
        _check_key(str(self.root), key)
        return super().get_sync(key, **options)


def _check_key(root: str, key: str) -> None:
    if not is_plain(key):
        raise InputError(f"{root}: the name '{key}' leads out of the store; it must be relative, without `..`")
    if key.rpartition("/")[2] in (*METADATA, ".zgroup", ".zmetadata"):
        check_metadata_file(Path(root, key))


def check_metadata_file(path: Path) -> None:
    """Raise InputError for what is no plain file, or too large; what is absent passes."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is not a plain file; copy the store again")
    check_metadata_size(path, status.st_size)


def check_metadata_size(place: str | Path, num_bytes: int) -> None:
    if num_bytes > METADATA_LIMIT_BYTES:
        raise InputError(f"{place}: {num_bytes:,} bytes of metadata, at most {METADATA_LIMIT_BYTES:,} are read")


def attributes_of(node: zarr.Array[Any] | zarr.Group) -> dict[str, Any]:
    """Return the attributes of an array or a group; none where they are no mapping."""
    value = node.metadata.attributes
    return dict(value) if isinstance(value, Mapping) else {}


def is_plain(name: str) -> bool:
    """Return whether a name stays inside of the group that holds it.

    Examples
    --------
    >>> [is_plain(name) for name in ("image", "r10m/b02", "../image", "/etc", "a//b", "")]
    [True, True, False, False, False, False]
    """
    return bool(name) and "\\" not in name and not {"", ".", ".."} & set(name.split("/")) and name.isprintable()


def check_name(path: str, name: str, where: str) -> None:
    """Raise InputError for the name of an array that leads out of the store, or nowhere."""
    if not is_plain(name):
        raise InputError(
            f"{path}: {where} is {name!r}; the name of an array is relative to the store, without `..`, "
            "as in `image` or `r10m/b02`"
        )
