"""Where synthetic stores are written: beside what is there, and only over what an earlier call wrote."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.output_name import check_output_name
from pipeline.config.scalar import check_characters
from pipeline.model.errors import OutputError, UsageError

MARKER = "rasterpipe_synth"
"""Group attribute that says that a store is ours and may be overwritten; it holds the parameters."""


def check_apart(paths: list[Path]) -> None:
    """Refuse paths of which one lies in another, and names that no store may have."""
    for path in paths:
        check_characters(os.path.abspath(path), "")
        try:
            check_output_name(str(path))
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None
    places = [Path(os.path.abspath(path)) for path in paths]
    for i, path in enumerate(places):
        for other in places[:i]:
            if path == other or path in other.parents or other in path.parents:
                raise UsageError(f"the labels {path} and the scene {other} overlap; give two paths beside each other")


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a path that exists, unless it may be overwritten and an earlier call wrote it."""
    if os.path.lexists(path):
        if not is_synthetic(path):
            raise OutputError(f"{path} exists and is not a synthetic scene or its labels; take another path")
        if not overwrite:
            raise OutputError(f"{path} exists; use --overwrite to replace it, or take another path")
    for spare in (_beside(path, "new"), _beside(path, "old")):
        if os.path.lexists(spare) and not (overwrite and is_synthetic(spare)):
            raise OutputError(
                f"{spare} exists: left by a run that was killed, or another run is writing it; delete it"
                + (" (or use --overwrite)" if is_synthetic(spare) else "")
            )


def is_synthetic(path: Path) -> bool:
    """Return whether a folder is a Zarr group that bears the generator's attribute."""
    try:
        metadata = json.loads((path / "zarr.json").read_text())
        return not path.is_symlink() and metadata["node_type"] == "group" and MARKER in metadata["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; put it in place at the end, or remove it if anything fails or interrupts."""
    new, old = _beside(path, "new"), _beside(path, "old")
    for spare in (new, old):
        if is_synthetic(spare):
            shutil.rmtree(spare)
    try:
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
