"""The pipeline file: YAML in, a frozen and checked `Pipeline` out, every complaint with its line and column.

`load_pipeline` is the way in; `locate` gives later errors (of planning) their place in the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.document import Document, load, parse
from pipeline.config.json_schema import schema
from pipeline.config.message import InvalidPipeline, locate
from pipeline.config.model import Pipeline, RegionConfig
from pipeline.config.name import RESERVED
from pipeline.config.reference import Ref, kept, resolve
from pipeline.config.trust import check_trust, is_in_trusted_folder
from pipeline.config.validation import validate, with_matrices
from pipeline.model.errors import UsageError
from pipeline.operations.base import Operation

__all__ = [
    "RESERVED",
    "Document",
    "InvalidPipeline",
    "Pipeline",
    "Ref",
    "RegionConfig",
    "is_in_trusted_folder",
    "kept",
    "load_pipeline",
    "locate",
    "parse",
    "resolve",
    "schema",
    "validate",
    "with_matrices",
]


def load_pipeline(
    source: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str | tuple[str, str]] = (),
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
        Assignments as ``--set`` takes them: ``steps.smooth.size=5``; a pair adds what messages call it.
    inputs
        Input name -> path, as ``--input NAME=PATH``: replaces the input's source, or adds the input.
    output
        Replaces the output's path, as ``-o``.
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
        With complete text: every problem on a line of its own, each with file, line and column.
    UsageError
        Where an override leads nowhere.
    """
    if not isinstance(source, Mapping | str | os.PathLike):
        raise UsageError(f"a pipeline is a path or a mapping, got {type(source).__name__}")
    document = Document.from_data(source) if isinstance(source, Mapping) else load(source)
    for name, path in (inputs or {}).items():
        document.put_input(name, path)
    if output is not None:
        document.put(("output", "path"), output, f"-o {output}")
    for override in overrides:
        assignment, origin = (override, "") if isinstance(override, str) else override
        document.set(assignment, origin=origin)
    check_trust(document, _is_trusted(source) if trust is None else trust)
    return validate(document, registry), document


def _is_trusted(source: str | os.PathLike[str] | Mapping[str, Any]) -> bool:
    return isinstance(source, Mapping) or is_in_trusted_folder(source)
