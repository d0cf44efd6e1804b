"""What files of single rasters have in common, whatever their format: which there are, of which run, and which lack.

Every file carries the record of its run, so that it is known for ours and for this run's. Where the output itself is
such a file, the store lies in the work folder and goes when the file is there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.execution.process import trim_heap
from pipeline.execution.progress import Progress
from pipeline.model.errors import OutputError, PipelineError, RunStopped
from pipeline.model.facts import FileFacts
from pipeline.model.raster import RasterSpec, default_names
from pipeline.model.stored import StoredArray, with_region
from pipeline.output.address import is_one_raster
from pipeline.output.color_table import with_colors
from pipeline.output.decision import check_file
from pipeline.output.exports.base import Export, Kind, Written
from pipeline.output.job import Job
from pipeline.output.provenance import hash_parts, provenance_of
from pipeline.output.work_folder import remove_work_folder, work_folder
from pipeline.planning.cost import BASE_BYTES
from pipeline.planning.plan import format_bytes
from pipeline.storage.folder.address import is_url
from pipeline.storage.zarr.store import root_attributes

FORM = ("cog", "overviews", "resampling", "ome_version")
"""The settings of an output that its files depend on, and its store does not."""


@dataclass(frozen=True)
class RasterFile:
    """A file to be written: of which raster, where, and with which rasters as its labels."""

    array: StoredArray
    path: Path
    labels: tuple[StoredArray, ...] = ()


class RasterExport(Export):
    """A format of files that hold one raster."""

    kind: Kind
    suffix: str
    key: str
    """Of the folder in the pipeline file."""
    form: tuple[str, ...]
    """Those of `FORM` that these files depend on."""

    @abstractmethod
    def rasters(self, job: Job) -> Sequence[RasterFile]:
        """Return the files that a run writes beside its store, or in its place."""

    @abstractmethod
    def num_bytes(self, job: Job, file: RasterFile) -> int:
        """Return what writing takes of the memory, the process itself not counted."""

    @abstractmethod
    def make(self, job: Job, file: RasterFile, record: Mapping[str, Any], progress: Progress) -> Sequence[str]:
        """Write a file with its record beside its place, and put it there; return in words what it cannot say."""

    @abstractmethod
    def facts(self, file: RasterFile, warnings: Sequence[str]) -> FileFacts:
        """Return what is told of a file that is there."""

    def placed(
        self, job: Job, arrays: Sequence[StoredArray], is_own: Callable[[str], bool]
    ) -> list[tuple[StoredArray, Path]]:
        """Return where each raster goes: the only one to the output, if that is such a file; each into the folder."""
        output, found = job.pipeline.output, list[tuple[StoredArray, Path]]()
        if is_own(output.path):
            if len(arrays) != 1:
                listed = ", ".join(array.raster for array in arrays) or "none"
                raise PipelineError(
                    f"a {self.suffix} holds one raster, and {len(arrays)} are kept ({listed}); `keep` one of them, "
                    f"compute no other, or write a .zarr and `{self.key}: FOLDER/`",
                    ("output", "path"),
                )
            found.append((arrays[0], Path(output.path)))
        if (folder := getattr(output, self.key)) is not None:
            found += [(array, Path(folder, name)) for name, array in self._named(arrays).items()]
        return found

    def _named(self, arrays: Sequence[StoredArray]) -> dict[str, StoredArray]:
        named, taken = dict[str, StoredArray](), dict[str, str]()
        for array in arrays:
            name = file_name(array) + self.suffix
            if other := taken.get(name.casefold()):  # some file systems take both for one
                raise PipelineError(
                    f"{other} and {array.raster} would both be written as {name}; rename one of the steps",
                    ("output", self.key),
                )
            taken[name.casefold()], named[name] = array.raster, array
        return named

    def files(self, job: Job) -> list[Written]:
        return [
            Written(str(file.path), f"the {self.kind} of {file.array.raster}", self.kind) for file in self.rasters(job)
        ]

    def check(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        continues = resume and _is_begun(job)
        for file in self.rasters(job):
            self._check_memory(job, file)
            if str(file.path) == job.result:
                _check_not_begun(job, resume=resume, overwrite=overwrite)
            if not continues:
                check_file(str(file.path), provenance_of(file.path), job.parts, resume=resume, overwrite=overwrite)

    def is_complete(self, job: Job) -> bool:
        return all(self._is_of(provenance_of(file.path), job) for file in self.rasters(job))

    def write(self, job: Job, progress: Progress) -> tuple[FileFacts, ...]:
        return tuple(self._write_missing(job, file, progress) for file in self.rasters(job))

    def _form(self, job: Job) -> dict[str, Any]:
        return {key: getattr(job.pipeline.output, key) for key in self.form}

    def _is_of(self, here: Mapping[str, Any] | None, job: Job) -> bool:
        if here is None:
            return False
        return here.get("plan_hash") == hash_parts(job.parts) and here.get("form") == self._form(job)

    def _check_memory(self, job: Job, file: RasterFile) -> None:
        need, have = BASE_BYTES + self.num_bytes(job, file), job.plan.settings.memory_bytes
        if need > have:
            raise PipelineError(
                f"{file.path}: writing it takes {format_bytes(need)}, the run may use {format_bytes(have)}; set it to "
                f"{format_bytes(need, up=True)} or more",
                ("run", "memory"),
            )

    def _write_missing(self, job: Job, file: RasterFile, progress: Progress) -> FileFacts:
        """Write a file, unless it is there; return its facts."""
        record, here = root_attributes(job.place.folder) or {}, provenance_of(file.path)
        is_there = here is not None and self._is_of(here, job) and here.get("run_id") == record.get("run_id")
        warnings: Sequence[str] = ()
        if not is_there:
            record = {**record, "raster": file.array.raster, "form": self._form(job)}
            record |= {"labels": [array.raster for array in file.labels]} if file.labels else {}
            trim_heap()  # of what the blocks left
            try:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                with progress:
                    warnings = self.make(job, file, record, progress)
            except OSError as error:
                raise RunStopped(
                    f"{file.path}: cannot be written: {error.strerror or error}; the store {job.output} is complete, "
                    "and --resume writes the file once that is mended"
                ) from error
        for warning in warnings:
            progress.say(f"note: {file.path}: {warning}")
        return self.facts(file, warnings)


def _is_begun(job: Job) -> bool:
    return job.place.is_begun() if is_url(job.output) else work_folder(job.result).exists()


def _check_not_begun(job: Job, *, resume: bool, overwrite: bool) -> None:
    is_complete = (root_attributes(job.place.folder) or {}).get("complete") is True
    if is_complete and not (resume or overwrite or Path(job.result).exists()):
        raise OutputError(
            f"{job.result}: a run stopped before it had written the file; --resume writes it, --overwrite starts anew"
        )


ONLY = "value"
"""The output of operations that have one: its name says nothing."""


def file_name(array: StoredArray) -> str:
    """Return the name of a raster's file, without suffix: smooth_mean; of a step's only result, the step's alone."""
    return array.raster.removesuffix(f"/{ONLY}").replace("/", "_")


def file_spec(array: StoredArray, colors: tuple[int, ...] = ()) -> RasterSpec:
    """Return the spec of a raster as its file has it: its bands are those of this output.

    A store tells the mean of a band from its standard deviation by the array's name, a file by its bands' alone:
    `B08 mean`, `b2 mean`; one band without a name is the `mean`. `colors` are those of indices, see `color_table`.
    """
    spec = with_colors(with_region(array.spec, array.region), colors)
    output = array.raster.partition("/")[2]
    if output == ONLY or spec.bands == (output,):
        return spec
    if spec.bands == default_names(1):
        return replace(spec, bands=(output,))
    return replace(spec, bands=tuple(f"{band} {output}" for band in spec.bands))


def writing_bytes(job: Job) -> int:
    """Return what writing may take at most: half of the memory, for the heap still holds what the blocks left."""
    return (job.plan.settings.memory_bytes - BASE_BYTES) // 2


def remove_store(job: Job) -> str | None:
    """Remove the store that the output was made of, where that is one raster; return what could not be, in words."""
    output = job.pipeline.output.path
    return remove_work_folder(work_folder(output)) if is_one_raster(output) else None
