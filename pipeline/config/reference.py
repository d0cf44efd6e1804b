"""What steps read and what is kept: references followed, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pipeline.config.message import Problem
from pipeline.config.model import Pipeline
from pipeline.model.errors import PipelineError, did_you_mean, unknown
from pipeline.operations.base import Reduction
from pipeline.storage.input import grid_of


@dataclass(frozen=True, slots=True)
class Ref:
    """What a step reads: an input or a step, and for a step with several outputs which one."""

    name: str
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Return the reference written ``name`` or ``step/output``."""
        name, slash, output = text.partition("/")
        return cls(name, output if slash else None)

    def __str__(self) -> str:
        return self.name if self.output is None else f"{self.name}/{self.output}"


References = Mapping[tuple[int, str], Ref]


def resolve(pipeline: Pipeline) -> References:
    """Return what every step reads: (index of the step, key of the source) -> reference, defaults filled in.

    Raises PipelineError with the path of the first reference that leads nowhere.
    """
    references, problems = _follow(pipeline)
    if problems:
        raise PipelineError(problems[0].text, problems[0].path)
    return references


def kept(pipeline: Pipeline) -> tuple[Ref, ...]:
    """Return the rasters to keep: what the file lists, else the steps that no other step reads."""
    if pipeline.output.keep is not None:
        return tuple(Ref.parse(text) for text in pipeline.output.keep)
    read = {reference.name for reference in resolve(pipeline).values()}
    return tuple(Ref(step.name) for step in pipeline.steps if step.name not in read)


def check_references(pipeline: Pipeline) -> list[Problem]:
    """Return what is wrong with references and `keep`; outputs of steps are the planner's to check."""
    references, problems = _follow(pipeline)
    unread = [] if problems else _unread_problems(pipeline, {reference.name for reference in references.values()})
    return [*problems, *unread, *_keep_problems(pipeline)]


def _unread_problems(pipeline: Pipeline, read: Collection[str]) -> Iterator[Problem]:
    """Yield the inputs that no step reads, nor one that is read has to match: as a rule the name is mistyped."""
    used = [name for name in pipeline.inputs if name in read]
    used += [grid for name in list(used) if (grid := grid_of(name, pipeline.inputs))]
    for name in pipeline.inputs:
        if name not in used:
            text = f"no step reads '{name}'{did_you_mean(name, used)} (read are: {', '.join(dict.fromkeys(used))})"
            yield Problem(("inputs", name), f"{text}; correct the name, or remove it", of_key=True)


def _follow(pipeline: Pipeline) -> tuple[dict[tuple[int, str], Ref], list[Problem]]:
    scope = _Scope(pipeline)
    references: dict[tuple[int, str], Ref] = {}
    problems: list[Problem] = []
    for index, step in enumerate(pipeline.steps):
        for key, text in step.sources().items():
            try:
                reference = scope.default(index) if text is None else Ref.parse(text)
                scope.check(index, reference)
            except PipelineError as error:
                problems.append(Problem(("steps", index, *step.source_path(key)), str(error)))
            else:
                references[index, key] = reference
        for key, name in step.tables().items():
            try:
                scope.check_table(index, name)
            except PipelineError as error:
                problems.append(Problem(("steps", index, key), str(error)))
    return references, problems


class _Scope:
    """The names that a step can read."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.steps = pipeline.steps
        self.inputs = list(pipeline.inputs)
        self.positions = {step.name: index for index, step in enumerate(pipeline.steps)}

    def default(self, index: int) -> Ref:
        """Return what a step reads that does not say."""
        if index:
            return Ref(self.steps[index - 1].name)
        if len(self.inputs) == 1:
            return Ref(self.inputs[0])
        if "image" in self.inputs:
            return Ref("image")
        choices = ", ".join(self.inputs)
        raise PipelineError(f"not given, and there are several inputs, none called 'image'; choose one of: {choices}")

    def check(self, index: int, reference: Ref) -> None:
        """Raise PipelineError unless the step at `index` can read this."""
        name = reference.name
        if name in self.inputs:
            if reference.output is not None:
                raise PipelineError(f"'{name}' is an input and has no outputs; write '{name}'")
            return
        if name not in self.positions:
            raise PipelineError(unknown("input or step", str(reference), self.choices(index)))
        _check_form(reference)
        if self.positions[name] == index:
            choices = ", ".join(self.choices(index))
            raise PipelineError(f"step '{name}' reads itself; choose one of: {choices}")
        if self.positions[name] > index:
            self.refuse_later(index, self.positions[name])

    def check_table(self, index: int, name: str) -> None:
        """Raise PipelineError unless the step at `index` can read the table of a step called so."""
        makers = [step.name for step in self.steps[:index] if isinstance(step, Reduction)]
        if name not in self.positions:
            raise PipelineError(unknown("step", name, makers))
        if self.positions[name] > index:
            self.refuse_later(index, self.positions[name])
        if name not in makers:
            earlier = ", ".join(makers) or "none"
            raise PipelineError(f"step '{name}' makes no table; name one before this that does (those are: {earlier})")

    def choices(self, index: int) -> list[str]:
        return [*self.inputs, *(step.name for step in self.steps[:index])]

    def refuse_later(self, index: int, later: int) -> None:
        here, there = self.steps[index].name, self.steps[later].name
        if chain := self.chain(later, index):
            raise PipelineError(f"a cycle: {' -> '.join([here, *chain])} (each reads the next); break it")
        raise PipelineError(f"reads '{there}', a later step; a step reads earlier ones: move '{there}' before '{here}'")

    def chain(self, start: int, goal: int) -> list[str]:
        """Return the names of the steps from `start` along what each reads to `goal`, empty if it is not reached."""
        reader = {start: start}
        found = [start]
        for position in found:
            if position == goal:
                break
            for source in self.sources(position):
                if source not in reader:
                    reader[source] = position
                    found.append(source)
        else:
            return []
        way = [goal]
        while way[-1] != start:
            way.append(reader[way[-1]])
        return [self.steps[position].name for position in reversed(way)]

    def sources(self, index: int) -> Iterator[int]:
        """Yield the positions of the steps that a step reads."""
        for text in self.steps[index].sources().values():
            # the default of the first step is an input
            position = index - 1 if text is None else self.positions.get(Ref.parse(text).name, -1)
            if position >= 0:
                yield position
        for name in self.steps[index].tables().values():
            if name in self.positions:
                yield self.positions[name]


def _check_form(reference: Ref) -> None:
    if reference.output == "" or "/" in (reference.output or ""):
        name = reference.name
        raise PipelineError(f"cannot read the reference '{reference}'; write '{name}' or '{name}/OUTPUT'")


def _keep_problems(pipeline: Pipeline) -> Iterator[Problem]:
    names = dict.fromkeys(step.name for step in pipeline.steps)
    seen: set[str] = set()
    for index, text in enumerate(pipeline.output.keep or ()):
        try:
            _check_kept(pipeline, names, text)
            if text in seen:
                raise PipelineError(f"'{text}' is listed twice")
        except PipelineError as error:
            yield Problem(("output", "keep", index), str(error))
        seen.add(text)


def _check_kept(pipeline: Pipeline, names: Collection[str], text: str) -> None:
    reference = Ref.parse(text)
    if reference.name in pipeline.inputs:
        raise PipelineError(f"'{reference.name}' is an input, only steps are kept (valid: {', '.join(names)})")
    if reference.name not in names:
        raise PipelineError(unknown("step", text, names))
    _check_form(reference)
