"""Whole runs from file to file against their floors, against others, on one thread, cold, and by size."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr

from benchmarks import whole_runs
from benchmarks.child import in_own_process
from benchmarks.rounds import Measured, Row, at_least, at_most
from benchmarks.rows import peers
from pipeline.verbs.demo.synth import synth

BANDS = 16
NUM_LABELS = 10_000
FEW_LABELS = 100
MEAN = {"name": "smooth", "op": "window", "input": "image", "size": 3, "statistics": ["mean"]}
GABOR = {"name": "texture", "op": "gabor", "input": "image", "bands": [1, 2], "frequencies": [0.15]} | {
    "orientations": [0, 45, 90, 135],
    "sigma": 5,
    "window": 15,
    "statistics": ["mean"],
}
ALL_SYSTEMS = Path(__file__).parents[2] / "configs" / "all-systems.yaml"
THREADS = 2
RIM = 40


@dataclass(frozen=True)
class Scenes:
    """Rasters of one size, made when they are first asked for."""

    folder: Path
    size: int

    def path(self, name: str) -> Path:
        stem, dot, suffix = name.partition(".")
        return self.folder / f"{stem}-{self.size}{dot}{suffix}"

    @property
    def num_labels(self) -> int:
        return min(NUM_LABELS, self.size**2 // 25)

    @property
    def scene(self) -> str:
        place, labels = self.path("scene.zarr"), self.path("labels.zarr")
        if not place.exists():
            size = (self.size, self.size)
            synth(place, size=size, bands=BANDS, labels=labels, num_labels=self.num_labels)
        return str(place)

    @property
    def labels(self) -> str:
        return str(self.path("labels.zarr")) if self.scene else ""

    @property
    def plain(self) -> str:
        """The scene, uncompressed."""
        place = self.path("plain.zarr")
        if not place.exists():
            from pipeline import api

            api.convert(Path(self.scene), place, output={"codec": "none"})
        return str(place)

    @property
    def tiff(self) -> str:
        """The scene as an uncompressed TIFF."""
        import tifffile

        place = self.path("plain.tif")
        if not place.exists():
            array = zarr.open_array(self.scene, path="scene", mode="r")
            strips = (array[top : top + array.chunks[0]] for top in range(0, self.size, array.chunks[0]))
            rows = (row for strip in strips for row in np.asarray(strip))
            options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "rowsperstrip": 1}
            tifffile.imwrite(place, rows, shape=array.shape, dtype=array.dtype, bigtiff=True, **options)
        return str(place)

    def config(self, *steps: dict[str, Any], scene: str | None = None, **options: Any) -> dict[str, Any]:
        """Return a pipeline over the scene; `options` of the run, `codec`, and `pyramid`: none, as peers make none."""
        codec = {"codec": codec} if (codec := options.pop("codec", None)) else {}
        pyramid = options.pop("pyramid", "none")
        run = {"memory": "1 GiB", "workers": THREADS, "durable": False, **options}
        output = {"path": str(self.path("result.zarr")), "pyramid": pyramid, **codec}
        return {"inputs": {"image": scene or self.scene}, "steps": list(steps), "output": output, "run": run}

    def all_systems(self, **options: Any) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(ALL_SYSTEMS.read_text())
        config["inputs"] = {"image": self.scene, "labels": self.labels}
        config["output"] |= {"path": str(self.path("result.zarr")), "pyramid": "none"}
        config["run"] |= {"workers": THREADS, "durable": False, **options}
        return config


def ours(config: dict[str, Any], array: str = "smooth/mean") -> Callable[[], Measured]:
    path = config["output"]["path"]
    return fresh(path, in_own_process, whole_runs.run, config, answer=(path, array))


def fresh(path: str, work: Callable[..., Measured], *arguments: Any, **options: Any) -> Callable[..., Measured]:
    """Return a call of work that writes a store, after the last one is removed: that does not count."""

    def call(*more: Any) -> Measured:
        shutil.rmtree(path, ignore_errors=True)
        return work(*arguments, *more, **options)

    return call


def floor(config: dict[str, Any]) -> Callable[[], Measured]:
    place = config["output"]["path"] + ".floor"
    return partial(in_own_process, whole_runs.floor, config, place)


def corner(answer: tuple[str, str]) -> np.ndarray:
    """Return pixels away from the rim, where others may pad otherwise."""
    path, array = answer
    if not array:
        import pyvips

        image = pyvips.Image.new_from_file(path)
        width, height = (min(side - 2 * RIM, 300) for side in (image.width, image.height))
        return np.asarray(image.crop(RIM, RIM, width, height).numpy())
    stored = zarr.open_array(path, path=array, mode="r")
    ends = (min(side - RIM, RIM + 300) for side in stored.shape[:2])
    return np.asarray(stored[tuple(slice(RIM, end) for end in ends)])


def near(ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
    return bool(np.allclose(corner(ours), corner(theirs), rtol=1e-5, atol=1e-2))


def means(scenes: Scenes) -> Iterator[Row]:
    """Rows 1 and 2."""
    config, result = scenes.config(MEAN), str(scenes.path("peer.zarr"))
    size = f"{scenes.size} x {scenes.size} x {BANDS}"
    others: dict[str, Callable[[], Any]] = {"its floor": floor(config)}
    if importlib.util.find_spec("dask_image"):
        call = fresh(result, in_own_process, peers.dask_image_mean, scenes.scene, result, answer=(result, "mean"))
        others |= {"dask-image, our codecs": partial(call, True), "dask-image as installed": partial(call, False)}
    aims = (
        at_most("its floor", 1.15),
        at_most("dask-image, our codecs", 0.75),
        at_most("dask-image as installed", 0.45),
    )
    yield Row(f"1. mean 3 x 3, {size}", ours(config), others, near, aims, frozenset(others) - {"its floor"})
    yield Row(*_uncompressed(scenes, size))
    both = {**MEAN, "size": 15, "statistics": ["mean", "var"]}
    config = scenes.config(both)
    yield Row(
        f"2. mean and var 15 x 15, {size}",
        ours(config),
        {"its floor": floor(config)},
        near,
        (at_most("its floor", 1.15),),
        frozenset(),
    )


def _uncompressed(scenes: Scenes, size: str) -> tuple[Any, ...]:
    config, result = scenes.config(MEAN, scene=scenes.plain, codec="none"), str(scenes.path("peer.tif"))
    others: dict[str, Callable[[], Any]] = {"its floor": floor(config)}
    if importlib.util.find_spec("pyvips"):
        vips = partial(in_own_process, peers.libvips_mean, scenes.tiff, result, answer=(result, ""))
        others["libvips, TIFF to TIFF"] = vips
    if importlib.util.find_spec("pyvips") and shutil.which("otbcli_Smoothing"):
        orfeo = str(scenes.path("orfeo.tif"))
        others["Orfeo Toolbox, TIFF to TIFF"] = partial(
            in_own_process, peers.orfeo_mean, scenes.tiff, orfeo, answer=(orfeo, "")
        )
    aims = (at_most("libvips, TIFF to TIFF", 0.5),)
    name = f"1. the same, uncompressed, {size}"
    return name, ours(config), others, near, aims, frozenset(others) - {"its floor"}


def label_files(scenes: Scenes) -> Iterator[Row]:
    """Row 5, from file to file."""
    step = {"name": "zones", "op": "label_stats", "input": "image", "labels": "labels", "bands": [1, 2, 3]}
    config = scenes.config({**step, "statistics": ["mean"], "recolor": ["mean"]})
    config["inputs"]["labels"] = scenes.labels
    config["output"]["keep"] = ["zones"]
    result, others = str(scenes.path("peer.zarr")), {}
    few = f"dask-image, {FEW_LABELS} labels of 1 band, not painted"
    if importlib.util.find_spec("flox"):
        arguments = (scenes.scene, scenes.labels, result, scenes.num_labels, 3)
        others["flox"] = fresh(result, in_own_process, peers.flox_labels, *arguments, answer=(result, "mean"))
    if importlib.util.find_spec("dask_image"):
        others[few] = partial(in_own_process, peers.dask_image_labels, scenes.scene, scenes.labels, FEW_LABELS)
    name = f"5. means of {scenes.num_labels:,} labels, painted, {scenes.size} x {scenes.size} x 3, file to file"
    aims = (at_least("flox", 5), at_least(few, 5))
    yield Row(name, ours(config, "zones/mean"), others, near, aims, frozenset({"flox"}))


def all_systems(scenes: Scenes) -> Iterator[Row]:
    """Row 10."""
    result = str(scenes.path("peer.zarr"))
    arguments = (scenes.scene, scenes.labels, result, scenes.num_labels)
    peer = "dask-image, scikit-image, scipy, Pillow under dask"
    others = {peer: fresh(result, in_own_process, peers.all_systems, *arguments, answer=(result, "smooth"))}
    name = f"10. all-systems.yaml, {scenes.size} x {scenes.size} x {BANDS}"
    yield Row(name, ours(scenes.all_systems()), others, near, (at_least(peer, 5),))


def levels(scenes: Scenes) -> Iterator[Row]:
    """Row 15: what the levels of a store cost, beside the cheapest operation and a costly one."""
    peer = "without levels"
    for name, step in (("3 x 3 mean", MEAN), ("Gabor means", GABOR)):
        plain, whole = (scenes.config(step, pyramid=pyramid) for pyramid in ("none", "auto"))
        array = f"{step['name']}/mean"
        others = {peer: ours(plain, array)}
        yield Row(f"15. {name} with its levels", ours(whole, array), others, near, (at_most(peer, 1.4),))


def threads(scenes: Scenes) -> Iterator[Row]:
    """Row 11: two threads and one."""
    one, two = (scenes.config(MEAN, workers=workers) for workers in (1, 2))
    alone, both = (scenes.all_systems(workers=workers) for workers in (1, 2))
    peer = "one thread"
    for name, first, second in (
        ("mean 3 x 3", ours(one), ours(two)),
        ("its floor", floor(one), floor(two)),
        ("all-systems.yaml", ours(alone), ours(both)),
    ):
        yield Row(f"11. two threads, {name}", second, {peer: first}, near, (at_least(peer, 1.8),), frozenset())


def sizes(scenes: Scenes) -> Iterator[Row]:
    """Row 13: half and twice the side, scaled."""
    half, twice = (Scenes(scenes.folder, size) for size in (scenes.size // 2, scenes.size * 2))

    def scaled(of: Scenes, factor: int) -> Measured:
        taken = ours(of.config(MEAN))()
        return Measured(taken.seconds * factor, taken.peak_bytes)

    others = {
        f"{half.size} x {half.size}, times 16": partial(scaled, half, 16),
        f"{scenes.size} x {scenes.size}, times 4": partial(scaled, scenes, 4),
    }
    aims = tuple(at_most(peer, 1.1) for peer in others)
    yield Row(
        f"13. mean 3 x 3, {twice.size} x {twice.size} x {BANDS}",
        ours(twice.config(MEAN)),
        others,
        near,
        aims,
        frozenset(),
    )


# --- starting -----------------------------------------------------------------------------------------------------


def starts(folder: Path) -> Iterator[Row]:
    """Row 12: a raster of 64 x 64 from the shell, the first time ever and any other; and all five systems."""
    small = Scenes(folder, 64)
    mean, everything = folder / "mean.json", folder / "everything.json"
    mean.write_text(json.dumps(small.config(MEAN)))
    everything.write_text(json.dumps(small.all_systems()))
    for name, path, seconds, cold in (
        ("warm, mean 3 x 3", mean, 0.9, False),
        ("warm, all-systems.yaml", everything, 1.3, False),
        ("first run, mean 3 x 3", mean, 8.0, True),
        ("first run, all-systems.yaml", everything, 12.0, True),
    ):
        limit = f"limit of {seconds:g} s"
        others = {limit: partial(Measured, seconds)}
        work = partial(from_shell, path, cold)
        yield Row(f"12. {name}, 64 x 64 x {BANDS}", work, others, near, (at_most(limit, 1),), frozenset())


def from_shell(path: Path, cold: bool) -> Measured:
    """Run the command, with an empty cache of compiled kernels if it is to be the first time."""
    command = [sys.executable, "-m", "pipeline", "run", str(path), "--overwrite", "--quiet"]
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ) | ({"NUMBA_CACHE_DIR": cache} if cold else {})
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return Measured(time.perf_counter() - started)
