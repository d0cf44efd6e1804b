"""Small matrices in files: kernels, footprints, palettes."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from pipeline.model.errors import InputError

MAX_BYTES = 16 * 2**20
SUFFIXES = (".npy", ".csv", ".txt")

Matrix = tuple[tuple[float, ...], ...]


def read_matrix(path: str) -> Matrix:
    """Return the matrix that a .npy, .csv (commas) or .txt (blanks) file holds, one row a line.

    Raises
    ------
    InputError
        Where the file cannot be read, or holds anything but finite numbers in rows of one length.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a matrix is read from {', '.join(SUFFIXES)}, got {file.suffix or 'no suffix'!r}")
    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: {size} bytes; a matrix file has at most {MAX_BYTES}")
        rows = _read_npy(file) if file.suffix.lower() == ".npy" else _read_text(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    widths = sorted({len(row) for row in rows})
    if not rows or not widths[0]:
        raise InputError(f"{path}: holds no numbers")
    if len(widths) > 1:
        raise InputError(f"{path}: rows of {' and '.join(map(str, widths))} numbers; all must have one length")
    for number, row in enumerate(rows, start=1):
        for value in row:
            if not math.isfinite(value):
                raise InputError(f"{path}: row {number} holds {value}; all numbers must be finite")
    return rows


def _read_npy(file: Path) -> Matrix:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            array = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header fails in tokenize, in numpy, or for want of memory
        raise InputError(f"{file}: is not a .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb" or array.ndim not in (1, 2):
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{file}: must hold a matrix of numbers, got {got}")
    return tuple(tuple(float(value) for value in row) for row in np.atleast_2d(array))


def _read_text(file: Path) -> Matrix:
    rows = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not a text file: {error}") from error
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip().rstrip(",")
        if not text:
            continue
        words = text.replace(",", " ").replace(";", " ").split()
        try:
            rows.append(tuple(float(word) for word in words))
        except ValueError:
            raise InputError(f"{file}: line {number} is not a row of numbers: {line.strip()[:60]!r}") from None
    return tuple(rows)
