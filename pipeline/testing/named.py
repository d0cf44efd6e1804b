"""Collected by pytest where `--rasterpipe-operation` names operations: one class of tests for each."""

from __future__ import annotations

from pipeline.testing.plugin import tests

globals().update(tests)
