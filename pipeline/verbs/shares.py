"""Labels of polygons of `cover: fraction` get their weights: the shares of pixels, an input more."""

from __future__ import annotations

from pipeline.config import Pipeline
from pipeline.operations.base import Operation
from pipeline.operations.label_stats import LabelStats
from pipeline.storage.input import COVERAGE, Input


def with_shares(config: Pipeline) -> Pipeline:
    """Return the pipeline with an input of shares for each of such polygons that are the labels of a step."""
    inputs, steps = dict(config.inputs), list[Operation]()
    taken = {*inputs, *(step.name for step in config.steps)}
    names = dict[str, str]()
    for step in config.steps:
        entry = _weighing(step, config)
        if isinstance(step, LabelStats) and entry is not None:
            if step.labels not in names:
                names[step.labels] = _unused(f"{step.labels}_{COVERAGE}", taken)
                inputs[names[step.labels]] = entry.model_copy(update={"value": COVERAGE, "overlap": _overlap(entry)})
            step = step.model_copy(update={"weights": names[step.labels]})
        steps.append(step)
    return config.model_copy(update={"inputs": inputs, "steps": tuple(steps)}) if names else config


def _weighing(step: Operation, config: Pipeline) -> Input | None:
    """Return the input that a step's labels are, where its shares are to be their weights."""
    if not isinstance(step, LabelStats) or step.weights is not None:
        return None
    entry = config.inputs.get(step.labels)
    return entry if entry is not None and entry.cover == "fraction" and entry.value is None else None


def _overlap(entry: Input) -> str:
    """Return how shares are laid so that they are those of the ids."""
    return entry.overlap or "layers"


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
