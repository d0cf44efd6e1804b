"""Matrices in files: kernels, footprints, palettes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.model.errors import InputError
from pipeline.storage.matrix import read_matrix


def test_reads_npy_csv_and_text(tmp_path: Path) -> None:
    rows = ((0.0, 1.5, 0.0), (1.0, -2.0, 3.0))
    np.save(tmp_path / "k.npy", np.array(rows))
    (tmp_path / "k.csv").write_text("\ufeff0,1.5,0\n1,-2,3\n", encoding="utf-8")
    (tmp_path / "k.txt").write_text("# a kernel\n0 1.5 0\n\n1 -2 3  # last\n")
    assert {read_matrix(str(tmp_path / name)) for name in ("k.npy", "k.csv", "k.txt")} == {rows}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.csv", "1,2\n3", "rows of 1 and 2 numbers"),
        ("k.csv", "", "holds no numbers"),
        ("k.txt", "1 nan", "row 1 holds nan; all numbers must be finite"),
        ("k.txt", "1 x", "line 1 is not a row of numbers"),
        ("k.json", "[]", "read from .npy, .csv, .txt, got '.json'"),
        ("k.npy", "1 2", "is not a .npy file of numbers"),
    ],
)
def test_refuses_what_is_no_matrix(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_matrix(str(tmp_path / name))


def test_refuses_pickles_and_missing_files(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match=r"is not a \.npy file of numbers"):
        read_matrix(str(tmp_path / "k.npy"))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_matrix(str(tmp_path / "missing.csv"))
