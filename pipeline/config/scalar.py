"""Scalars of the YAML 1.2 core schema, and the environment variables in them.

``on``, ``yes``, ``12:30:45``, ``010`` and ``2024-05-01`` are text, ``1e-3`` is a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pipeline.config.place import excerpt
from pipeline.model.errors import PipelineError

MAX_INTEGER = 1 << 64
TOO_LARGE = "the number is too large: an integer has 64 bits at most"
VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|(?P<bad>\{))"
)

_SECRET_WORDS = (
    *("SECRET", "TOKEN", "PASS", "KEY", "CREDENTIAL", "PRIVATE", "AUTH", "SIGNATURE", "COOKIE", "SESSION", "BEARER"),
    *("CONNECTION", "WEBHOOK", "PROXY", "DATABASE"),
)
"""What anywhere in the name of a variable says that its value is a secret, or a URL that may hold one."""
_SECRET_PARTS = frozenset({"PWD", "PAT", "PIN", "PSK", "SAS", "JWT", "OTP", "DSN", "SIG", "CRED", "CREDS", "CERT"})
"""The same as a whole part of the name, between underscores and digits."""
_FOLDERS = ("PWD", "OLDPWD")

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_NULL = re.compile(r"(?:~|null|Null|NULL|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"(?P<sign>[-+]?)\.(?P<word>inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def check_characters(text: str, where: str) -> None:
    """Raise PipelineError for what an escape can put into a text although no file name and no output can hold it.

    What is half of a character may also be a byte of a file name that is not UTF-8: Zarr's codecs open no such file.
    """
    if bad := _NO_TEXT.search(text):
        place = f"{where}: " if where else ""
        if "\udc80" <= bad.group() <= "\udcff":
            byte = ord(bad.group()) - 0xDC00
            raise PipelineError(
                f"{place}the character {bad.group()!r} is not allowed: the byte 0x{byte:02X} in {text!a} is not "
                "UTF-8 (of a name in Latin-1?); rename the file or folder"
            )
        raise PipelineError(f"{place}the character {bad.group()!r} is not allowed; remove it")


def secret_variable(text: str) -> str | None:
    """Return the first variable in a text whose name speaks of a secret: rather one too many than one too few.

    Examples
    --------
    >>> [secret_variable(f"${{{name}}}") for name in ("DB_PASSWORD", "github_pat", "MONKEY_DIR", "PWD", "SCENES")]
    ['DB_PASSWORD', 'github_pat', 'MONKEY_DIR', None, None]
    """
    names = (match["name"] for match in VARIABLE.finditer(text) if match["name"])
    return next((name for name in names if speaks_of_secrets(name.upper())), None)


def speaks_of_secrets(name: str) -> bool:
    """Return whether a name, in capitals, is of what may be a secret."""
    if name in _FOLDERS:
        return False
    return any(word in name for word in _SECRET_WORDS) or not _SECRET_PARTS.isdisjoint(re.split(r"[_0-9]+", name))


def expand(text: str, where: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text with ``${VAR}`` and ``${VAR:-default}`` (also if VAR is empty) replaced, and ``$$`` by ``$``.

    Examples
    --------
    >>> expand("${SCENES:-/data}/a.tif costs 5$", "here", {})
    '/data/a.tif costs 5$'
    """
    variables = os.environ if environment is None else environment

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["dollar"]:
            return "$"
        if match["bad"]:
            remedy = "write ${NAME} or ${NAME:-default}, and $$ for $"
            raise PipelineError(f"{where}: cannot read `{excerpt(text)}`; {remedy}")
        if default is not None:
            return variables.get(name) or default
        if name not in variables:
            remedy = f"set it, or write ${{{name}:-default}}"
            raise PipelineError(f"{where}: the environment variable '{name}' is not set; {remedy}")
        return variables[name]

    return VARIABLE.sub(replace, text)


def resolve_scalar(text: str) -> Any:
    """Return the value of a plain YAML scalar; raise ValueError for an integer beyond 64 bits.

    Examples
    --------
    >>> [resolve_scalar(text) for text in ("5", "1e-3", "true", "yes", "010", "12:30:45", "~")]
    [5, 0.001, True, 'yes', '010', '12:30:45', None]
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) or _HEX.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _SPECIAL.fullmatch(text):
        return float((match["sign"] or "") + (match["word"] or "nan"))
    return text


def _integer(text: str) -> int:
    value = int(text[:40], 0)  # so many digits suffice to see that it is too large
    if abs(value) >= MAX_INTEGER:
        raise ValueError(TOO_LARGE)
    return value
