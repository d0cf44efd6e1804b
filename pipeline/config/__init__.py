"""The pipeline file: YAML in, a frozen and checked `Pipeline` out, every complaint with its line and column.

`load_pipeline` is the way in; `locate` gives later errors (of planning) their place in the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from pipeline.config.document import Document, Setting, load, parse
from pipeline.config.json_schema import schema
from pipeline.config.message import InvalidPipeline, locate, locating
from pipeline.config.model import Pipeline, RegionConfig
from pipeline.config.name import RESERVED
from pipeline.config.reference import Ref, kept, resolve
from pipeline.config.trust import check_trust, is_in_trusted_folder
from pipeline.config.validation import validate, with_matrices
from pipeline.operations.base import Operation

__all__ = [
    "RESERVED",
    "Changes",
    "Document",
    "InvalidPipeline",
    "Pipeline",
    "Ref",
    "RegionConfig",
    "Setting",
    "is_in_trusted_folder",
    "kept",
    "load_pipeline",
    "locate",
    "locating",
    "parse",
    "resolve",
    "schema",
    "validate",
    "with_matrices",
]


class Changes(TypedDict, total=False):
    """What a caller may change of a pipeline: see `load_pipeline`."""

    overrides: Sequence[str | Setting]
    inputs: Mapping[str, str] | None
    output: str | None
    trust: bool | None


def load_pipeline(
    source: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str | Setting] = (),
    inputs: Mapping[str, str] | None = None,
    output: str | None = None,
    registry: Mapping[str, type[Operation]] | None = None,
    trust: bool | None = None,
) -> tuple[Pipeline, Document]:
    """Read, override and check a pipeline; its inputs are not opened.

    Parameters
    ----------
    source
        Path of a pipeline file, or the same as a mapping (whose relative paths begin at the working directory).
    overrides
        Assignments as ``--set`` takes them: ``steps.smooth.size=5``; or settings, whose values are any.
    inputs, output
        Paths of inputs by name, and of the output, as `--input` and `-o` give them.
    registry
        Operations by name; default: all registered ones.
    trust
        Whether it may ask for anything (see `trust`). Default: a mapping may, a file where the user's settings trust
        its folder.

    Returns
    -------
    tuple of Pipeline and Document
        The pipeline, paths absolute, references checked; and the document, for `locate`.

    Raises
    ------
    PipelineError
        Its text has a line for every problem, each with file, line and column.
    UsageError
        Where an override leads nowhere.
    """
    document = Document.from_data(source) if isinstance(source, Mapping) else load(source)
    document.override(overrides, inputs or {}, output)
    check_trust(document, _is_trusted(source) if trust is None else trust)
    return validate(document, registry), document


def _is_trusted(source: str | os.PathLike[str] | Mapping[str, Any]) -> bool:
    return isinstance(source, Mapping) or is_in_trusted_folder(source)
