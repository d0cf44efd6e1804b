"""A folder by its path, or by its URL in an object store."""

from __future__ import annotations

import os

from pipeline.storage.folder.address import Access, is_url
from pipeline.storage.folder.base import Folder
from pipeline.storage.folder.local import LocalFolder


def folder_at(path: str | os.PathLike[str] | Folder, access: Access | None = None) -> Folder:
    """Return a folder by its path, or by its URL in an object store."""
    if isinstance(path, Folder):
        return path
    if not is_url(path):
        return LocalFolder(path)
    from pipeline.storage.folder.remote import ObjectFolder

    return ObjectFolder(str(path), access or Access())
