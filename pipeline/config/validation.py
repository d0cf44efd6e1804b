"""From a document to the checked pipeline, without opening its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from pipeline.config.document import Document
from pipeline.config.explanation import explain
from pipeline.config.message import InvalidPipeline, Problem, locate
from pipeline.config.model import Pipeline, parse_version
from pipeline.config.name import name_problems
from pipeline.config.reference import check_references
from pipeline.model.errors import InputError, PipelineError
from pipeline.operations.base import Operation
from pipeline.operations.registry import registry
from pipeline.operations.traits import matrix_files, read_matrix_file, table_files
from pipeline.storage.input import Input


def validate(document: Document, operations: Mapping[str, type[Operation]] | None = None) -> Pipeline:
    """Return the pipeline of a document, paths absolute, references checked; InvalidPipeline has all problems."""
    known = registry() if operations is None else operations
    if "version" in document.data:
        _check_version(document)
    problems = list(name_problems(document))
    try:
        pipeline = Pipeline.model_validate(document.data, context={"operations": known})
    except ValidationError as error:
        problems += explain(error, document.data, Pipeline, known)
    if problems:
        raise InvalidPipeline(document, problems)
    if problems := check_references(pipeline):
        raise InvalidPipeline(document, problems)
    return resolved(document, pipeline)


def resolved(document: Document, pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with absolute paths: they begin at the file, those set from outside where we work."""
    inputs = {name: _resolve_input(document, name, source) for name, source in pipeline.inputs.items()}
    path = document.resolve_path(pipeline.output.path, ("output", "path"))
    run = pipeline.run
    if run.scratch is not None:
        run = run.model_copy(update={"scratch": document.resolve_path(run.scratch, ("run", "scratch"))})
    steps = tuple(_resolve_step(document, index, step) for index, step in enumerate(pipeline.steps))
    given = {"geotiff": pipeline.output.geotiff, "ome_zarr": pipeline.output.ome_zarr}
    folders = {key: document.resolve_path(folder, ("output", key)) for key, folder in given.items() if folder}
    polygons = _resolve_polygons(document, pipeline.output.polygons)
    output = pipeline.output.model_copy(update={"path": path, "polygons": polygons, **folders})
    return pipeline.model_copy(update={"inputs": inputs, "steps": steps, "output": output, "run": run})


def _resolve_polygons(document: Document, files: str | dict[str, str] | None) -> str | dict[str, str] | None:
    if isinstance(files, dict):
        return {name: document.resolve_path(path, ("output", "polygons", name)) for name, path in files.items()}
    return files and document.resolve_path(files, ("output", "polygons"))


def _resolve_step(document: Document, index: int, step: Operation) -> Operation:
    """Return a step whose matrix files have absolute paths."""
    files = matrix_files(step) | table_files(step)
    if not files:
        return step
    return step.model_copy(
        update={field: document.resolve_path(path, ("steps", index, field)) for field, path in files.items()}
    )


def with_matrices(document: Document, pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with every matrix in the place of the file that holds it.

    Raises PipelineError with the path of a field whose matrix does not fit; of InputError of a file the text gets the
    place where the document names it.
    """

    def read_at(index: int, field: str, path: str) -> Any:
        try:
            return read_matrix_file(pipeline.steps[index], path)
        except InputError as error:
            text = locate(document, PipelineError(str(error), ("steps", index, field)))
            raise InputError(text) from error.__cause__

    steps = tuple(_with_matrices(index, step, partial(read_at, index)) for index, step in enumerate(pipeline.steps))
    return pipeline.model_copy(update={"steps": steps})


def _with_matrices(index: int, step: Operation, read: Callable[[str, str], Any]) -> Operation:
    files = matrix_files(step)
    if not files:
        return step
    given = {name: getattr(step, name) for name in step.model_fields_set}
    try:
        return type(step).model_validate(given | {field: read(field, path) for field, path in files.items()})
    except ValidationError as error:
        fault = error.errors()[0]
        text = f"{fault['msg'].removeprefix('Value error, ')} (in {', '.join(files.values())})"
        raise PipelineError(text, ("steps", index, *fault["loc"][:1])) from None
    except PipelineError as error:
        raise PipelineError(str(error), ("steps", index, *error.path)) from None


def _resolve_input(document: Document, name: str, source: Input) -> Input:
    return source.with_paths(lambda path, place: document.resolve_path(path, ("inputs", name, *place)))


def _check_version(document: Document) -> None:
    """Refuse another version at once: what else seems wrong may be right there."""
    try:
        parse_version(document.data["version"])
    except ValueError as error:
        raise InvalidPipeline(document, [Problem(("version",), str(error))]) from None
