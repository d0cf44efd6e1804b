"""What goes wrong with TIFF files: whatever tifffile raises becomes an InputError; and what lies beside them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import tifffile

from pipeline.model.errors import InputError
from pipeline.storage.library import reason

SIDECAR_BYTES = 2**20
"""Of an .aux.xml that are searched: what bears on the place stands at its beginning."""


@contextlib.contextmanager
def input_errors(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an InputError: tifffile raises anything on a damaged one."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except tifffile.TiffFileError as error:
        known = "not a TIFF file" in str(error) or "invalid TIFF version" in str(error)
        fact = "is not a TIFF file" if known else f"is not a readable TIFF file: {reason(error)}"
        raise InputError(f"{path}: {fact}; check the path, or copy it again") from error
    except Exception as error:
        raise InputError(f"{path}: is not a readable TIFF file: {reason(error)}; copy it again") from error


def find_sidecars(path: str, is_placed: bool) -> Iterator[str]:
    """Yield what lies beside a file and says more of it to GDAL than to us: world files, and GDAL's .aux.xml."""
    remedy = "and is not read; `sidecar: true` at the input reads both, by GDAL"
    auxiliary = Path(f"{path}.aux.xml")
    with contextlib.suppress(OSError), open(auxiliary, "rb") as file:
        found = re.findall(rb"<(SRS|GeoTransform|GCPList|NoDataValue)\b", file.read(SIDECAR_BYTES))
        if found:
            words = ", ".join(sorted({word.decode() for word in found}))
            yield f"{auxiliary.name} lies beside the file, says more ({words}) than it, {remedy}"
    stem, suffix = Path(path).with_suffix(""), Path(path).suffix[1:]
    names = (f"{suffix[:1]}{suffix[-1:]}w", f"{suffix}w", "wld")  # .tfw, .tifw
    worlds = [Path(f"{stem}.{name}") for name in names]
    if not is_placed and (world := next((each for each in worlds if each.is_file()), None)):
        yield f"the file has no transform; {world.name} beside it holds one, {remedy}"
