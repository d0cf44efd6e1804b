"""Where a store lies, as text: a path or a URL, and how it is reached."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pipeline.model.errors import InputError


@dataclass(frozen=True, slots=True)
class Access:
    """How an object store is reached. Who may is known from the environment alone."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    requester_pays: bool = False


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


SCHEMES = ("s3", "gs", "az", "http", "https")


ENDPOINT_VARIABLES = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "GOOGLE_BASE_URL",
)
"""Where the environment names the endpoint of an object store."""


REQUESTS_AT_ONCE = 4
"""Chunks that zarr reads or writes at once, for a block."""


def check_url(url: str) -> None:
    """Refuse what is no object store, and URLs that carry secrets: they would stand in logs and provenance."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InputError(f"{parts.scheme}://{parts.hostname or ''}...: is no object store that is known ({known})")
    if "@" in parts.netloc or "?" in url or "#" in url:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InputError(
            f"{shown}: was given with a user, password or query; credentials come from the environment alone"
        )
    if not parts.netloc:
        raise InputError(f"{url}: names no bucket; give {parts.scheme}://BUCKET/PATH")
    if url != (plain := plain_url(url)):
        raise InputError(f"{url}: a store takes this for {plain}; give that, so that all names of it are one")


def plain_url(url: str) -> str:
    """Return an address as a store reads it: escapes of its key and segments of dots resolved; those of the web stay.

    Examples
    --------
    >>> plain_url("S3://bucket/./old/../a%20scene.zarr")
    's3://bucket/a scene.zarr'
    """
    scheme, _, rest = re.sub(r"[\t\r\n]", "", url.strip()).partition("://")
    scheme = scheme.lower()
    if scheme.startswith("http"):
        return f"{scheme}://{rest}"
    bucket, _, key = rest.partition("/")
    key = posixpath.normpath(f"/{unquote(key).lstrip('/')}")
    return f"{scheme}://{bucket.partition(':')[0]}{key}".rstrip("/")
