"""What object stores answer: versions, errors, and whether these may pass."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.storage.folder.base import RemoteError

_PASSING = re.compile(r"status code: (408|429|5\d\d)|error sending request|timed out|connection|HTTP error", re.I)


def object_status(facts: Mapping[str, Any]) -> str:
    """Return what tells an object that was written anew; answers to GET have whole seconds."""
    return f"{facts['size']} {tag_of(facts)} {int(facts['last_modified'].timestamp())}"


def tag_of(facts: Mapping[str, Any]) -> str:
    """Return an ETag as it is written everywhere: some stores quote it in one answer and not in another."""
    return str(facts.get("e_tag") or "").removeprefix("W/").strip('"')


def conflicts() -> tuple[type[Exception], ...]:
    """Return the errors that say that another version of an object is there than was expected."""
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    return AlreadyExistsError, PreconditionError


def version_of(facts: Mapping[str, Any]) -> dict[str, str]:
    return {key: facts[key] for key in ("e_tag", "version") if facts[key] is not None}


@contextmanager
def errors_of(url: str) -> Iterator[None]:
    """Turn obstore's errors into FileNotFoundError, or RemoteError in few words."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise RemoteError(f"{url}: the bucket does not exist", may_pass=False) from None
        raise FileNotFoundError(f"{url}: no such object") from None
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, RemoteError):
            raise
        raise remote_error(url, error) from None


def remote_error(url: str, error: Exception) -> RemoteError:
    """Return an error of obstore's in few words, and whether it may pass."""
    text = str(error)
    message = re.search(r"<Message>(.*?)</Message>", text, re.S)
    words = message[1] if message else " ".join(text.partition("\n\nDebug source")[0].split())
    kind = type(error).__name__
    if "169.254.169.254" in text or "metadata.google" in text:  # where machines of the provider find theirs
        words = "no credentials are found in the environment"
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or words.startswith("no credentials"):
        remedy = "give credentials by the environment, or `storage: {anonymous: true}` for what is public"
        return RemoteError(f"{url}: access denied ({words}); {remedy}", may_pass=False)
    may_pass = kind in ("GenericError", "TimeoutError") and _PASSING.search(text) is not None
    return RemoteError(f"{url}: {words[:300]}", may_pass)
