"""Packages: those that every run needs, and those of extras, as the installed rasterpipe names them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from pipeline.verbs.doctor.problem import Problem

DISTRIBUTION = "rasterpipe"
FOR_DEVELOPERS = {"test", "bench", "dev"}


def requirements(problems: list[Problem]) -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Return what is needed always, and by each extra for users."""
    try:
        about = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        remedy = "install it, so that its needs are known: pip install -e ."
        problems.append(Problem("rasterpipe runs from its sources, and is not installed", remedy, stops=False))
        return [], {}
    every = [Requirement(text) for text in about.get_all("Requires-Dist") or ()]
    names = [name for name in about.get_all("Provides-Extra") or () if name not in FOR_DEVELOPERS]
    needed = [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]
    return needed, {
        name: [each for each in every if each.marker and each not in needed and each.marker.evaluate({"extra": name})]
        for name in names
    }


def version_of(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def problem_of(requirement: Requirement) -> Problem | None:
    """Return what is wrong with a package that every run needs."""
    found, text = version_of(requirement), f"{requirement.name}{requirement.specifier}"
    remedy = f"pip install '{text}'"
    if found is None:
        return Problem(f"{requirement.name} is not installed", remedy, stops=True)
    if not requirement.specifier.contains(found, prereleases=True):
        return Problem(f"{requirement.name} is {found}, where {requirement.specifier} is needed", remedy, stops=True)
    for module in _modules(requirement.name):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken package does
            what = f"{requirement.name} {found} cannot be imported: {type(error).__name__}: {error}"
            return Problem(what, f"pip install --force-reinstall '{text}'", stops=True)
    return None


def _modules(name: str) -> Iterator[str]:
    """Yield what a package is imported by, from the list of its files."""
    for file in metadata.files(name) or ():
        if len(file.parts) == 2 and file.name == "__init__.py" and not file.parts[0].startswith(("_", ".")):
            yield file.parts[0]


def describe_gdal(problems: list[Problem]) -> str | None:
    """Return the version of GDAL, where the extra `gdal` is installed."""
    try:
        metadata.version("rasterio")
    except metadata.PackageNotFoundError:
        return None
    try:
        from pipeline.storage.gdal.dataset import gdal_version

        return gdal_version()
    except Exception as error:  # a library that it needs is gone, say
        what = f"rasterio cannot be imported: {type(error).__name__}: {error}"
        problems.append(Problem(what, "pip install --force-reinstall 'rasterpipe[gdal]'", stops=False))
        return None


def describe_extra(extra: str, packages: list[Requirement], problems: list[Problem]) -> dict[str, Any]:
    """Return which packages of an extra are there, and the line that brings those that are not."""
    versions, line = {each.name: version_of(each) for each in packages}, f"pip install '{DISTRIBUTION}[{extra}]'"
    for each in packages:
        found = versions[each.name]
        if found is not None and not each.specifier.contains(found, prereleases=True):
            what = f"{each.name} is {found}, where {each.specifier} is needed"
            problems.append(Problem(what, line, stops=False))
    return {"packages": versions, "install": None if all(versions.values()) else line}
