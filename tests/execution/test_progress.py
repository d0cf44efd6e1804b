"""What a user sees while a run is on."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipeline.execution import progress
from pipeline.execution.progress import Progress


def advance(**options: bool) -> None:
    with Progress(**options) as shown:
        shown.start(7, done=2)
        for _ in range(3):
            shown.advance()


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter(float(second) for second in range(0, 70, 7))  # each look at the clock
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    advance()
    assert capsys.readouterr().err == "4 of 7 blocks after 21 s\n"


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", -1)
    advance(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    advance()
    captured = capsys.readouterr()
    assert "5/7" in captured.err
    assert captured.out == ""
