"""The lines of files that messages quote."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.excerpt import with_excerpts


@pytest.mark.parametrize(
    ("line", "column", "excerpt"),
    [
        ("size: 14  # odd", 7, ["size: 14  # odd", "      ^~"]),
        ("size: 3, mode: 'a b'}", 16, ["size: 3, mode: 'a b'}", "               ^~~~~"]),
        ("[a, b]", 1, ["[a, b]", "^"]),
        ("\tsize: x", 8, [" size: x", "       ^"]),
        ("x" * 200 + " bad, " + "y" * 200, 202, ["x" * 59 + " bad, " + "y" * 35, f"{'':60}^~~"]),
        ("z" * 300, 1, ["z" * 100, "^" + "~" * 99]),
    ],
)
def test_the_word_is_marked(line: str, column: int, excerpt: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a: b.yaml"
    file.write_text(f"first\n{line}\n")
    message = f"{file}:2:{column}: wrong"
    assert with_excerpts(message, {str(file)}).splitlines() == [message, *(f"    {text}" for text in excerpt)]


@pytest.mark.parametrize(
    "line", ["api_token: abc", "path: https://host/a.tif?x=1", "{user: a, password: b}", "a: ${AWS_SECRET}"]
)
def test_what_may_be_secret_is_not_quoted(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(line)
    message = f"{tmp_path}/a.yaml:1:1: wrong"
    assert with_excerpts(message, {f"{tmp_path}/a.yaml"}) == message


def test_only_files_that_the_user_named_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("size: 4\n")
    message = f"{tmp_path}/a.yaml:1:1: wrong"
    assert with_excerpts(message, {"b.yaml"}) == message


@pytest.mark.parametrize("place", ["9:1", "1:99", "1:0", "0:1"])
def test_places_that_are_not_there(place: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("size: 4\n")
    message = f"{tmp_path}/a.yaml:{place}: wrong"
    assert with_excerpts(message, {f"{tmp_path}/a.yaml"}) == message


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    message = f"{tmp_path}/gone.yaml:1:1: wrong"
    assert with_excerpts(message, {f"{tmp_path}/gone.yaml"}) == message
