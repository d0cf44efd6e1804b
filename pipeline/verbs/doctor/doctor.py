"""What a machine has for runs, gathered."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.model.facts import Facts
from pipeline.model.version import __version__
from pipeline.verbs.doctor.machine import describe_kernels, describe_memory, describe_processor, describe_temporary
from pipeline.verbs.doctor.packages import describe_extra, describe_gdal, problem_of, requirements, version_of
from pipeline.verbs.doctor.problem import Problem


@dataclass(frozen=True)
class DoctorFacts(Facts):
    """What this machine has for runs."""

    versions: Mapping[str, str | None]
    """Of Python, of all that rasterpipe needs, and of GDAL; None of what is not there."""
    processor: Mapping[str, Any]
    kernels: Mapping[str, Any]
    memory: Mapping[str, int | None]
    temporary: Mapping[str, Any]
    extras: Mapping[str, Mapping[str, Any]]
    """Optional packages, by the extra that brings them."""
    problems: tuple[Problem, ...]

    @property
    def works(self) -> bool:
        return not any(problem.stops for problem in self.problems)


def examine() -> DoctorFacts:
    """Look at what runs need; import it, and call a kernel."""
    problems: list[Problem] = []
    needed, extras = requirements(problems)
    versions: dict[str, str | None] = {"rasterpipe": __version__, "python": platform.python_version()}
    versions |= {each.name: version_of(each) for each in needed}
    problems += [problem for each in needed if (problem := problem_of(each))]
    works = not any(problem.stops for problem in problems)
    return DoctorFacts(
        versions={**versions, "GDAL": describe_gdal(problems) if works else None},
        processor=describe_processor(),
        kernels=describe_kernels(problems) if works else {},
        memory=describe_memory(problems) if works else {},
        temporary=describe_temporary(problems),
        extras={extra: describe_extra(extra, packages, problems) for extra, packages in extras.items()},
        problems=tuple(problems),
    )
