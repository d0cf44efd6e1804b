"""Something that is wrong with a machine or an installation."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.facts import Facts


@dataclass(frozen=True)
class Problem(Facts):
    """Something that is wrong."""

    what: str
    remedy: str
    stops: bool
    """Whether it keeps runs from working."""
