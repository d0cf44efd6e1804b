"""Labels of polygons of `cover: fraction` get their weights: the shares of pixels, an input more."""

from __future__ import annotations

from pipeline.config import Pipeline
from pipeline.operations.base import Operation
from pipeline.operations.label_stats import LabelStats
from pipeline.storage.input import COVERAGE, Input


def with_shares(config: Pipeline) -> tuple[Pipeline, list[str]]:
    """Return the pipeline with an input of shares for each of such polygons that are labels, and what is to be said."""
    inputs, steps, notes = dict(config.inputs), list[Operation](), list[str]()
    taken, names = {*inputs, *(step.name for step in config.steps)}, dict[str, str]()
    for step in config.steps:
        if isinstance(step, LabelStats) and (entry := _weighing(step, config)):
            name = names.setdefault(step.labels, _unused(f"{step.labels}_{COVERAGE}", taken))
            inputs[name] = entry.model_copy(update={"value": COVERAGE, "overlap": entry.overlap or "layers"})
            notes.append(f"step {step.name}: values count by the share of their pixel that {step.labels} have ({name})")
            step = step.model_copy(update={"weights": name})
        steps.append(step)
    return config.model_copy(update={"inputs": inputs, "steps": tuple(steps)}) if notes else config, notes


def _weighing(step: LabelStats, config: Pipeline) -> Input | None:
    """Return the input that a step's labels are, where its shares are to be their weights."""
    entry = config.inputs.get(step.labels)
    is_fraction = entry is not None and entry.cover == "fraction" and entry.value is None
    return entry if is_fraction and step.weights is None else None


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
