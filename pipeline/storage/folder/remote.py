"""A prefix in an object store (s3://, gs://, az://, http://) as a folder, through obstore."""

from __future__ import annotations

import functools
import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

import zarr

from pipeline.model.errors import UsageError
from pipeline.storage.folder.address import ENDPOINT_VARIABLES, Access, check_url
from pipeline.storage.folder.answer import conflicts, errors_of, object_status, remote_error, tag_of, version_of
from pipeline.storage.folder.base import PLAIN_CODECS, REQUESTS, Conflict, Folder
from pipeline.storage.folder.forked import check_not_forked
from pipeline.storage.folder.listing import Entry, Listing, mark_of
from pipeline.storage.folder.local import open_stored
from pipeline.storage.folder.metadata import check_metadata_size
from pipeline.storage.folder.request import answer_to

RETRIES = 2
"""Of single requests, at once; what lasts longer is for the retries of the run."""
CLIENT_SECONDS = 3600
"""Longer than any request has (see `object_request`)."""


class ObjectFolder(Folder):
    """A prefix in a bucket, container or server."""

    def __init__(self, url: str, access: Access) -> None:
        self.path, self.access = url.rstrip("/"), access
        self.versions: dict[str, Any] = {}
        """Of objects that this folder has put, or has taken over: what another run put is not replaced."""
        self.confirm: Callable[[], None] = lambda: None
        """Makes sure, before objects are deleted, that they are still this run's."""
        check_url(self.path)
        if importlib.util.find_spec("obstore") is None:
            raise UsageError(f"{self.path}: object stores need obstore; pip install 'rasterpipe[cloud]'")

    def __getstate__(self) -> tuple[str, Access]:
        return self.path, self.access

    def __setstate__(self, state: tuple[str, Access]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @property
    def objects(self) -> Any:
        """obstore's store of what lies below the prefix."""
        check_not_forked()
        return _connect(self.path, self.access)

    @property
    def parent(self) -> Folder | None:
        parts = urlsplit(self.path)
        if not parts.path.strip("/"):
            return None
        return ObjectFolder(self.path.rpartition("/")[0], self.access)

    def child(self, name: str) -> Folder:
        return ObjectFolder(f"{self.path}/{name}", self.access)

    def read(self, name: str) -> bytes:
        import obstore

        with self._errors_of(name, "get"):
            answer = answer_to(obstore.get_async, self.objects, name)
            check_metadata_size(f"{self.path}/{name}", answer.meta["size"])
            return bytes(answer_to(answer.bytes_async, num_bytes=answer.meta["size"]))

    def exists(self, name: str) -> bool:
        try:
            self.stamp(name)
        except FileNotFoundError:
            return False
        return True

    def stamp(self, name: str) -> list[Any]:
        """Return size and ETag of an object (where the store gives none, the time of its change)."""
        import obstore

        with self._errors_of(name, "head"):
            facts = answer_to(obstore.head_async, self.objects, name)
        return [facts["size"], tag_of(facts) or str(facts["last_modified"])]

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with self._errors_of(name, "put"):
            try:
                put = partial(obstore.put_async, self.objects, name, data, **self.condition(name))
                self.versions[name] = version_of(answer_to(put, num_bytes=len(data)))
            except conflicts():
                found = self.read_versioned(name)
                self.versions[name] = self.same_version(name, data, found)

    def replace(self, name: str, data: bytes) -> None:
        self.put(name, data)

    def condition(self, name: str) -> dict[str, Any]:
        """Return how an object is put: in the place of the version that is known, else where there is none."""
        return {"mode": self.versions.get(name) or "create", "use_multipart": False}

    def same_version(self, name: str, data: Any, found: tuple[bytes, Any] | None) -> Any:
        """Return the version of an object that is there already: as it was put, if the answer to that was lost."""
        if found is None or found[0] != bytes(data):
            raise Conflict(f"{self.path}/{name}: was written by another run meanwhile", may_pass=False)
        return found[1]

    def sync(self, name: str) -> None:
        """What a store has acknowledged is there."""

    def list_files(self) -> Listing | None:
        if self.is_unlisted:
            return None
        return Listing(
            Entry(str(entry["path"]), int(entry["size"]), _identity(entry), object_status(entry))
            for entry in self._entries()
        )

    def head(self, name: str) -> bytes:
        return b""  # ETags tell

    def sizes(self) -> Callable[[str], int | None]:
        return {str(entry["path"]): int(entry["size"]) for entry in self._entries()}.get

    def marks(self) -> Callable[[str], int | None]:
        return Listing(Entry(str(entry["path"]), 0, "", tag_of(entry)) for entry in self._entries()).find

    def mark_of_put(self, name: str) -> int | None:
        version = self.versions.pop(name, None)
        return None if version is None else mark_of(tag_of(version))

    def take_over(self, is_ours: Callable[[str], bool], is_chunk: Callable[[str], bool]) -> None:
        """Make what an earlier run of the same plan left this one's, less the chunks that are not of it."""
        stale = []
        for entry in self._entries():
            name = str(entry["path"])
            if not is_chunk(name):
                self.versions[name] = {"e_tag": entry["e_tag"]}
            elif not is_ours(name):
                stale.append(name)
        self.remove_named(stale)

    @property
    def is_unlisted(self) -> bool:
        return self.path.startswith("http")

    def _entries(self) -> Iterator[Any]:
        import obstore

        with self._errors_of("", "list"):
            pages = obstore.list(self.objects)
            with suppress(StopAsyncIteration):
                while True:
                    page = answer_to(pages.__anext__)
                    REQUESTS.add()
                    yield from page

    def names(self) -> Iterator[str]:
        """Yield the names of all objects below the prefix."""
        return (str(entry["path"]) for entry in self._entries())

    def is_empty(self) -> bool:
        return next(self.names(), None) is None

    def read_versioned(self, name: str) -> tuple[bytes, Any] | None:
        """Return an object and its version; None where there is none."""
        import obstore

        try:
            with self._errors_of(name, "get"):
                answer = answer_to(obstore.get_async, self.objects, name)
                data = bytes(answer_to(answer.bytes_async, num_bytes=answer.meta["size"]))
                return data, version_of(answer.meta)
        except FileNotFoundError:
            return None

    def age_of(self, name: str) -> float | None:
        """Return for how many seconds an object has not been written, by the store's own clock; None: it is gone."""
        import obstore

        clock = f"clock-{uuid.uuid4().hex}"
        self.put(clock, b"")
        try:
            with self._errors_of(name, "head"):
                now, then = (answer_to(obstore.head_async, self.objects, each) for each in (clock, name))
            return float((now["last_modified"] - then["last_modified"]).total_seconds())
        except FileNotFoundError:
            return None
        finally:
            self.remove(clock)

    def heeds_conditions(self) -> bool:
        """Try whether the store refuses to create what is there, and to replace a version that is not."""
        probe = f"probe-{uuid.uuid4().hex}"
        self.put(probe, b"first")
        first = self.versions[probe]
        try:
            self.put(probe, b"second")
            for version in (None, first):
                self.versions[probe] = version
                with suppress(Conflict):
                    self.put(probe, b"third")
                    return False
            return True
        finally:
            self.remove(probe)

    def remove(self, name: str) -> None:
        import obstore

        self.versions.pop(name, None)
        with suppress(FileNotFoundError), self._errors_of(name, "delete"):
            answer_to(obstore.delete_async, self.objects, name)

    def remove_all(self) -> None:
        """Delete all objects below the prefix."""
        self.remove_named(list(self.names()))

    def remove_named(self, names: Sequence[str]) -> None:
        """Delete some objects, in order."""
        import obstore

        with self._errors_of("", "delete"):
            for start in range(0, len(names), 1000):
                self.confirm()
                answer_to(obstore.delete_async, self.objects, names[start : start + 1000])
        for name in names:
            self.versions.pop(name, None)

    def make(self) -> None:
        """Prefixes need not be made."""

    def remove_tree(self) -> None:
        with suppress(OSError):
            self.remove_all()

    def metadata_store(self) -> Any:
        from pipeline.storage.folder.remote_zarr import CountedStore  # with obstore, an extra

        return CountedStore(self, read_only=True)

    def pixel_store(self) -> Any:
        from pipeline.storage.folder.remote_zarr import CountedStore

        return CountedStore(self)

    def open_array(self, path: str, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
        with zarr.config.set({"codec_pipeline.path": PLAIN_CODECS}):  # zarrs would go to the store by itself
            return open_stored(self.pixel_store(), path, mode)

    @contextmanager
    def _errors_of(self, name: str, kind: str) -> Iterator[None]:
        if kind != "list":  # which may take several
            REQUESTS.add()
        with errors_of(f"{self.path}/{name}".rstrip("/")):
            yield


def _identity(facts: Mapping[str, Any]) -> str:
    return f"{facts['size']} {tag_of(facts) or facts['last_modified']}"


@functools.lru_cache(maxsize=64)
def _connect(url: str, access: Access) -> Any:
    from obstore.store import HTTPStore, from_url

    is_web = url.startswith("http")  # from https a redirect is not to lead to http
    endpoints = (url,) if is_web else (access.endpoint, *(os.environ.get(name) for name in ENDPOINT_VARIABLES))
    plain = any(endpoint is not None and endpoint.startswith("http://") for endpoint in endpoints)
    options: dict[str, Any] = {
        "client_options": {"timeout": f"{CLIENT_SECONDS}s", **({"allow_http": True} if plain else {})},
        "retry_config": {"max_retries": RETRIES},
    }
    if not is_web:
        given = {
            "endpoint": access.endpoint,
            "region": access.region,
            "skip_signature": access.anonymous or None,
            "request_payer": access.requester_pays or None,
        }
        options |= {key: value for key, value in given.items() if value is not None}
    try:
        if is_web:  # obstore takes some hosts for S3 or Azure, and would sign
            return HTTPStore.from_url(url, **options)
        return from_url(url, **options)
    except Exception as error:
        raise remote_error(url, error) from None
