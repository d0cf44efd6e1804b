"""The command that looks at the machine and the installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.cli.command import command
from pipeline.cli.options import debug_option, json_option
from pipeline.cli.printing import fail, print_facts

if TYPE_CHECKING:
    from pipeline.verbs.doctor.doctor import DoctorFacts


@command("rasterpipe doctor", "rasterpipe doctor --json > doctor.json")
@json_option
@debug_option
def doctor(as_json: bool) -> None:
    """Look at what runs need (packages, kernels, memory, space); where something is wrong, say what to do.

    Exits with 1 if something keeps runs from working, with 0 if not.
    """
    from pipeline.verbs.doctor.doctor import examine

    facts = examine()
    print_facts(facts.to_dict(), as_json, _format(facts))
    if not facts.works:
        fail("\n".join(f"{each.what}: {each.remedy}" for each in facts.problems if each.stops), 1)


def _format(facts: DoctorFacts) -> Iterator[str]:
    yield ", ".join(f"{name} {version}" for name, version in facts.versions.items() if version)
    processor = facts.processor
    yield f"processor: {processor['name']} ({processor['machine']}), {processor['cpus']} CPUs for this process"
    if kernels := facts.kernels:
        carried = ", ".join(kernels["carried"])
        yield f"kernels: {f'the package carries them for {carried}' if carried else 'compiled on this machine'}"
        yield f"kernel cache: {kernels['cache']}, {_size(kernels['bytes'])} in {kernels['files']} files"
    if memory := facts.memory:
        limits = [("machine", "machine"), ("cgroup", "cgroup"), ("ulimit", "ulimit -v"), ("free", "free now")]
        told = [f"{name} {_size(memory[f'{key}_bytes'])}" for key, name in limits]
        yield f"memory: {', '.join(told)}; a run stays below {_size(memory['run_bytes'])} by default"
    yield f"temporary folder: {facts.temporary['folder']}, {_size(facts.temporary['free_bytes'])} free"
    for extra, about in facts.extras.items():
        found = ", ".join(f"{name} {version or 'is missing'}" for name, version in about["packages"].items())
        yield f"extra {extra}: {found}{f'; {line}' if (line := about['install']) else ''}"
    for each in facts.problems:
        yield f"problem: {each.what}"
        yield f"  remedy: {each.remedy}"
    yield "nothing is wrong" if not facts.problems else "runs work" if facts.works else "runs do not work"


def _size(count: int | None) -> str:
    from pipeline.planning.plan import format_bytes

    return "no limit" if count is None else format_bytes(count)
