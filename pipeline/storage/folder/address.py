"""Where a store lies, as text: a path or a URL, and how it is reached."""

from __future__ import annotations

import os
import posixpath
import re
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, StrictBool, StrictStr

from pipeline.model.errors import InputError, show
from pipeline.model.value import Frozen


def _check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be http://HOST:PORT or https://HOST, got {show(value.rpartition('@')[2])}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be without user, password and query; credentials come from the environment alone")
    return value


def _check_region(value: str) -> str:
    """The provider's host is made of it, so that no other one may be."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"must be letters, digits, - and _, as in eu-central-1, got {show(value)}")
    return value


class Access(Frozen):
    """How an object store is reached; who may is known from the environment, never from here."""

    endpoint: Annotated[StrictStr, AfterValidator(_check_endpoint)] | None = None
    """The server, where it is not the provider's own: http://HOST:PORT or https://HOST."""
    region: Annotated[StrictStr, AfterValidator(_check_region)] | None = None
    """The region of the bucket."""
    anonymous: StrictBool = False
    """Whether to ask without credentials, for what is public."""
    requester_pays: StrictBool = False
    """Whether who asks agrees to pay for it."""


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


SCHEMES = ("s3", "gs", "az", "http", "https")


ENDPOINT_VARIABLES = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "GOOGLE_BASE_URL",
)
"""Where the environment names the endpoint of an object store."""


REQUESTS_AT_ONCE = 4
"""Chunks that zarr reads or writes at once, for a block; ranges of a file that are."""
RANGE_BYTES = 2**21
"""Of a request for neighbouring tiles of a file; a tile that is longer is asked for alone."""


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
