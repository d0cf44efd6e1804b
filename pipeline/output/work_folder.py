"""The folder beside an output, in which its run works: journal, unfinished store, intermediate results, tables."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pipeline.model.errors import OutputError


def work_folder(output: str) -> Path:
    """Return the folder for what belongs to the run and not to the result."""
    return Path(output.rstrip("/") + ".work")


MAGIC = b'{"rasterpipe": "journal", '
"""What the first line begins with: by that a folder is known for a run's."""


OWN_NAMES = re.compile(
    r"journal|owner|[0-9a-f]{32}|store\.zarr|store\.zarr\.work|\..+\.[0-9a-f]{32}\.(partial|tiles|index)|"
    r"probe-[0-9a-f]{32}(\.[0-9a-f]{32})?"
)
"""What a run makes in the folder beside its output; nothing else there is ever removed."""


def check_work_folder(folder: Path) -> None:
    """Refuse to work in a folder that no run has made: all in it is removed in the end."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    journal = folder / "journal"
    known = all(OWN_NAMES.fullmatch(name) and not (folder / name).is_symlink() for name in names)
    if journal.is_file():
        with journal.open("rb") as file:
            known = known and MAGIC.startswith(file.read(len(MAGIC)))
    elif folder.exists() or folder.is_symlink():
        known = known and folder.is_dir() and not {"owner", "journal"} & set(names)
    if not known:
        raise OutputError(
            f"{folder}: is in the way: a run works in a folder of this name, and this one is not a run's; move it away"
        )


def remove_work_folder(folder: Path) -> str | None:
    """Remove what runs have made in their folder, the journal last; return what could not be, in words."""
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "journal"):
            if not OWN_NAMES.fullmatch(path.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder} could not be removed, which only the run needed: {error.strerror or error}"
    return None
