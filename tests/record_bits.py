"""Records hashes of what pipelines write, to compare the bits of two versions of rasterpipe; run by hand.

    python tests/record_bits.py before.json                      # with one version on the path
    python tests/record_bits.py after.json --compare before.json # with another: says what differs, exits 1

It runs every pipeline of configs/ on small inputs and 200 drawn ones, in both halo ways, and uses nothing but the
public functions `run`, `apply` and the command line, so that it runs unchanged however the house is rebuilt. Hashed are
decoded pixels, the bytes of chunks, tables and pictures, and all metadata but the provenance, which has times and ids.
A pipeline that is refused records its message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
import zarr

import pipeline

ROOT = Path(__file__).resolve().parent.parent
HALOS = ("read", "exchange")
PROVENANCE = "rasterpipe"
"""The attribute of a group that says how it was made."""
TIFF_VOLATILE = {"ImageDescription", "Software", "StripOffsets", "TileOffsets"}
"""Tags that hold the provenance, or lie where its length puts them."""
MEMORY = {"read": ("1 GiB",), "exchange": ("440 MiB", "2 GiB")}
"""Tried in this order: little memory makes several blocks of a small raster."""

Step = dict[str, Any]


# --- what is hashed --------------------------------------------------------------------------------------------


def digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:20]


def pixels(values: np.ndarray) -> str:
    return digest(str((values.dtype, values.shape)).encode(), np.ascontiguousarray(values).tobytes())


def hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of all that lies in a folder, by path."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "/c/" in name:
            continue
        if path.name == "zarr.json":
            found |= _zarr(path, name.removesuffix("/zarr.json"))
        elif path.suffix in (".tif", ".tiff"):
            found |= _tiff(path, name)
        else:
            found[name] = digest(path.read_bytes())
    return found


def _zarr(path: Path, name: str) -> dict[str, str]:
    document = json.loads(path.read_text())
    found = {f"{name} metadata": digest(json.dumps(_lasting(document), sort_keys=True).encode())}
    if document["node_type"] == "array":
        found[f"{name} pixels"] = pixels(np.asarray(zarr.open_array(str(path.parent), mode="r")[...]))
        is_sharded = document["codecs"][0]["name"] == "sharding_indexed"
        files = sorted(file for file in (path.parent / "c").rglob("*") if file.is_file())
        named = ((str(file.relative_to(path.parent)).encode(), file.read_bytes()) for file in files)
        found[f"{name} chunks"] = digest(
            # zarrs puts the chunks of a shard in any order
            *(part for file, data in named for part in (file, b"%d" % len(data) if is_sharded else data))
        )
    return found


def _lasting(value: Any) -> Any:
    """Return metadata without the provenance of the run."""
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key != PROVENANCE}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def _tiff(path: Path, name: str) -> dict[str, str]:
    with tifffile.TiffFile(path) as tif:
        tags = [
            [(tag.name, repr(tag.value)) for tag in page.tags if tag.name not in TIFF_VOLATILE] for page in tif.pages
        ]
        return {
            f"{name} pixels": pixels(np.stack([page.asarray() for page in tif.pages])),
            f"{name} tags": digest(json.dumps(tags).encode()),
        }


# --- running ---------------------------------------------------------------------------------------------------


def record(document: dict[str, Any], halo: str, folder: Path, **options: Any) -> dict[str, str]:
    """Run a pipeline in one halo way; return the hashes of what it wrote, or why it was refused."""
    output = folder / "out"
    output.mkdir()
    file = folder / "pipeline.yaml"
    for memory in MEMORY[halo]:
        text = yaml.safe_dump(
            {**document, "run": {"workers": 4, **document.get("run", {}), "halo": halo, "memory": memory}}
        )
        file.write_text(text)
        try:
            pipeline.run(file, quiet=True, **options)
        except Exception as error:
            if memory != MEMORY[halo][-1] and "run.memory" in str(error):
                continue
            return {"refused": f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER")}
        return hashes(output)
    raise AssertionError("the last memory returns")


def lazily(step: Step, raster: Raster) -> dict[str, str]:
    """Apply a step to a dask array, or say why it cannot be."""
    import dask.array

    array = dask.array.from_array(raster.values, chunks=raster.chunks)
    try:
        result = pipeline.apply(step, array, dims=",".join(raster.dims), nodata=raster.nodata)
        results = result if isinstance(result, dict) else {"": result}
        return {key: pixels(value.compute(scheduler="synchronous")) for key, value in results.items()}
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"}


# --- the pipelines of configs/ ---------------------------------------------------------------------------------


def call(*arguments: str | Path) -> None:
    """Call the command."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_scene(folder: Path) -> None:
    """Make what the pipelines of configs/ read."""
    labels = ("--labels", folder / "segments.zarr", "--num-labels", "60")
    call("synth", folder / "scene.zarr", "--size", "230", "190", "--bands", "5", "--seed", "3", *labels)


def convert(inputs: Path, folder: Path) -> dict[str, str]:
    """Convert the scene to a GeoTIFF and back."""
    call("convert", inputs / "scene.zarr", folder / "scene.tif")
    call("convert", folder / "scene.tif", folder / "scene.zarr", "--chunks", "[50, 60]")
    return hashes(folder)


def configs(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pipelines of configs/ with small local inputs; a cluster of other machines becomes threads."""
    local = {"labels": str(folder / "segments.zarr")}
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        sample = str(ROOT / "data/sample.zarr")
        image = sample if path.stem == "quickstart" else str(folder / "scene.zarr")
        document["inputs"] = {name: local.get(name, image) for name in document["inputs"]}
        document["output"] = {"chunks": [64, 48], **document["output"], "path": "out/store.zarr"}
        document["output"].pop("storage", None)
        run = document.get("run", {})
        if path.stem in ("cluster-slurm", "cluster-s3"):
            run.pop("scheduler", None)
        yield path.stem, document


# --- drawn pipelines -------------------------------------------------------------------------------------------

DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")
DIMS = (("y", "x", "band"), ("band", "y", "x"), ("y", "x"))
BOUNDARIES = ("reflect", "nearest", "mirror", "constant", "wrap", "shrink")
EXPRESSIONS = (
    *("input * 0.5 + 3", "(input - 7) / (input + 7)", "input - input.b1", "max(input, 3, -input)", "input ** 2"),
    *("input // 7 + input % 7", "sqrt(input) - log(input)", "exp(-abs(input) / 100)", "arctan2(input, 3) / pi"),
    *("clip(round(input / 8), -5, 20)", "where(isvalid(input), input, -1)", "where(input > 5, sin(input), -input)"),
)

CONDITIONS = ("-3 < input <= 50 or input == 7", "not input", "(input > 3) & ~(input.b1 > 50)")


class Raster:
    """A raster of the inputs: its pixels in its dims, and how it is stored."""

    def __init__(self, rng: random.Random) -> None:
        self.dims = rng.choice(DIMS)
        sizes = {"y": rng.randint(1, 90), "x": rng.randint(1, 90), "band": rng.randint(1, 4)}
        self.height, self.width = sizes["y"], sizes["x"]
        self.num_bands = sizes["band"] if "band" in self.dims else 1
        shape = tuple(sizes[dim] for dim in self.dims)
        self.dtype, self.nodata = np.dtype(rng.choice(DTYPES)), None
        numbers = np.random.default_rng(rng.randrange(2**32))
        density = rng.choice([0.0, 0.05, 0.5])
        if self.dtype.kind == "f":
            self.values = (numbers.normal(size=shape) * rng.choice([1.0, 1e4])).astype(self.dtype)
            self.values[numbers.random(shape) < density] = rng.choice([np.nan, np.inf, -9999.0])
            self.nodata = rng.choice([None, -9999.0])
        else:
            info = np.iinfo(self.dtype)
            self.values = numbers.integers(max(info.min, -300), min(info.max, 10**6), shape, self.dtype, endpoint=True)
            if density:
                self.nodata = rng.choice([0, 7, int(info.max)])
                self.values[numbers.random(shape) < density] = self.nodata
        self.chunks = tuple(rng.randint(max(1, size // 5), size) for size in shape)
        self.is_tiff = rng.random() < 0.25

    def store(self, folder: Path) -> str:
        """Write the raster as Zarr or TIFF, and labels beside it; return its name."""
        numbers = np.random.default_rng(self.height * 1000 + self.width)
        labels = numbers.integers(-2, 9, (-(-self.height // 6), -(-self.width // 5))).repeat(6, 0).repeat(5, 1)
        labels = labels[: self.height, : self.width] * numbers.choice([1, 10**12])
        zarr.create_array(
            str(folder / "labels.zarr"),
            data=labels,
            chunks=(min(9, self.height), min(30, self.width)),
            dimension_names=("y", "x"),
        )
        if self.is_tiff:
            planar = {"planarconfig": "separate" if self.dims[0] == "band" else "contig"} if self.num_bands > 1 else {}
            values = self.values if self.num_bands > 1 else self.values.reshape(self.height, self.width)
            tags = [] if self.nodata is None else [(42113, 2, 0, str(self.nodata), True)]
            options = {"photometric": "minisblack", "tile": (32, 16), "compression": "zlib", "metadata": None}
            tifffile.imwrite(folder / "image.tif", values, extratags=tags, **planar, **options)
            return "image.tif"
        attributes = {} if self.nodata is None else {"missing_value": self.nodata}
        path = str(folder / "image.zarr")
        names = {"dimension_names": self.dims, "attributes": attributes}
        zarr.create_array(path, data=self.values, chunks=self.chunks, **names)
        return "image.zarr"


def boundary(rng: random.Random, key: str = "boundary", more: tuple[str, ...] = ()) -> Step:
    chosen = rng.choice((*BOUNDARIES, *more))
    return {key: chosen} | ({"cval": rng.randint(0, 100)} if chosen == "constant" else {})


def some(rng: random.Random, values: tuple[Any, ...] | list[Any], most: int = 3) -> list[Any]:
    return rng.sample(values, rng.randint(1, min(most, len(values))))


def odd(rng: random.Random, most: int = 5) -> int:
    return 2 * rng.randint(0, most) + 1


def draw_window(rng: random.Random) -> Step:
    statistics = ("mean", "sum", "var", "std", "min", "max", "range", "count", "median")
    step = {"size": [odd(rng), odd(rng)], "statistics": some(rng, statistics)} | boundary(rng)
    kind = rng.choice(["rectangle", "rectangle", "disk", "matrix"])
    if kind == "disk":
        step["footprint"] = "disk"
    elif kind == "matrix":
        height, width = step.pop("size")
        matrix = [[rng.randint(0, 1) for _ in range(width)] for _ in range(height)]
        matrix[rng.randrange(height)][rng.randrange(width)] = 1
        step["footprint"] = matrix
    if rng.random() < 0.3:
        step["percentiles"] = some(rng, [0, 2.5, 10, 50, 90, 100], 2)
    return step | {"fill_invalid": rng.random() < 0.4}


def draw_difference(outputs: tuple[str, ...]) -> Callable[[random.Random], Step]:
    def draw(rng: random.Random) -> Step:
        spacing = rng.choice([1, 10, [0.1, 30], [2.5, 0.7]])
        edges = boundary(rng, "edge", ("one_sided", "one_sided_2", "zero"))
        return {"outputs": some(rng, outputs, 4), "spacing": spacing} | edges

    return draw


def draw_convolve(rng: random.Random) -> Step:
    height, width, normalize = odd(rng, 4), odd(rng, 4), rng.random() < 0.3
    if rng.random() < 0.5:
        rows, columns = ([rng.gauss(0, 1) for _ in range(side)] for side in (height, width))
        kernel = [[a * b for b in columns] for a in rows]
    else:
        kernel = [[rng.gauss(0, 1) * (rng.random() < 0.7) for _ in range(width)] for _ in range(height)]
    kernel[height // 2][width // 2] = 1.0
    if normalize:
        kernel = [[abs(weight) for weight in row] for row in kernel]
    return {"kernel": kernel, "correlate": rng.random() < 0.5, "normalize": normalize} | boundary(rng)


def draw_gaussian(rng: random.Random) -> Step:
    order = [rng.choice([0, 0, 1, 2, 3]) for _ in range(2)]
    sigma = [rng.choice([0.7, 1.0, 2.3]) for _ in range(2)]
    return {"sigma": sigma, "order": order, "normalize": order == [0, 0] and rng.random() < 0.5} | boundary(rng)


def draw_gabor(rng: random.Random) -> Step:
    step: Step = {"frequencies": some(rng, [0.3, 0.4, 0.45], 2), "orientations": some(rng, [0, 17.5, 45, 90, 135])}
    sigma: Any = rng.choice([{"sigma": 0.8}, {"sigma": {"along": 1.3, "across": 0.5}}, {"bandwidth": 1.5}])
    step |= {"response": rng.choice(["real", "imag", "magnitude"]), "exact": rng.random() < 0.4} | sigma
    if rng.random() < 0.5:
        step |= {"window": [odd(rng, 4), odd(rng, 4)], "statistics": some(rng, ["mean", "var", "std"])}
    return step | boundary(rng)


def draw_label_stats(rng: random.Random) -> Step:
    statistics = some(rng, ("count", "sum", "mean", "var", "std", "min", "max"), 4)
    step = {"labels": "labels", "statistics": statistics, "geometry": some(rng, ["centroid", "bbox"])}
    return step | {"recolor": some(rng, statistics, 2) if rng.random() < 0.7 else [], "ignore": rng.choice([[], [0]])}


def draw_palette(rng: random.Random) -> Step:
    method = rng.choice(["median_cut", "kmeans"])
    step: Step = {"method": method, "colors": rng.choice([2, 7, 300]), "max_cells": rng.choice([256, 2**18])}
    return step | ({"sweeps": 2} if method == "kmeans" else {})


def draw_quantize(rng: random.Random) -> Step:
    num_bands = rng.choice([1, 1, 3])
    colors = [[rng.randint(0, 200) for _ in range(num_bands)] for _ in range(rng.choice([2, 3, 256, 300]))]
    bands = {"bands": [1]} if num_bands == 1 else {}
    return {"palette": colors, "outputs": some(rng, ["index", "color", "distance"])} | bands


def draw_cast(rng: random.Random) -> Step:
    dtype = rng.choice(["uint8", "int16", "int32", "float32", "float64"])
    step: Step = {"dtype": dtype} | rng.choice([{}, {"scale": 0.025, "offset": -7.25}, {"scale": -2.0}])
    if rng.random() < 0.5:
        step["clip"] = rng.choice([[0, 100], [-3.5, 99.5], [-20, -10]])
    if dtype[0] != "f":
        step |= {"nodata": rng.randint(0, 100), "rounding": rng.choice(["half_even", "floor", "ceil", "truncate"])}
    return step


OPERATIONS: dict[str, Callable[[random.Random], Step]] = {
    "calc": lambda rng: {"expression": rng.choice(EXPRESSIONS)},
    "cast": draw_cast,
    "convolve": draw_convolve,
    "gabor": draw_gabor,
    "gaussian": draw_gaussian,
    "gradient": draw_difference(("dy", "dx", "magnitude", "direction")),
    "hessian": draw_difference(("dyy", "dxy", "dxx", "laplacian", "determinant", "eigen_large", "eigen_small")),
    "label_stats": draw_label_stats,
    "mask": lambda rng: {
        "where": rng.choice(["-3 < input <= 50 or input == 7", "not input", "(input > 3) & ~(b1 > 50)"])
    },
    "palette": draw_palette,
    "quantize": draw_quantize,
    "select": lambda rng: {"bands": [rng.randint(1, 2) for _ in range(rng.randint(1, 3))]},
    "window": draw_window,
}


def outputs_of(step: Step) -> list[str]:
    """Return the rasters that a drawn step makes."""
    match step["op"]:
        case "label_stats":
            return list(step["recolor"])
        case "palette":
            return []
        case "gabor" if "window" not in step:
            return ["response"]
    percentiles = [f"p{value:g}" for value in step.get("percentiles", ())]
    return [*step.get("statistics", ()), *percentiles, *step.get("outputs", ())] or ["value"]


def draw_steps(rng: random.Random, first: str) -> list[Step]:
    """Draw one to three steps of which the first is of a given kind, each reading any raster before it."""
    steps: list[Step] = []
    sources = ["image"]
    for number in range(rng.choice([1, 2, 3])):
        op = first if number == 0 else rng.choice(sorted(OPERATIONS))
        step = {"name": f"s{number}", "op": op, "input": rng.choice(sources), **OPERATIONS[op](rng)}
        if op == "quantize" and steps and steps[-1]["op"] == "palette" and rng.random() < 0.8:
            step |= {"palette": steps[-1]["name"], "input": steps[-1]["input"]}
            step.pop("bands", None)
        if op not in ("cast", "palette") and rng.random() < 0.25:
            dtype, nodata = rng.choice([("int16", -999), ("int32", -(2**31)), ("float32", -1.0), ("float64", 5.0)])
            step |= {"dtype": dtype, "nodata": nodata}
        if op == "label_stats" and rng.random() < 0.5:
            step["table"] = f"out/{step['name']}.{rng.choice(['csv', 'parquet'])}"
        steps.append(step)
        sources += [f"{step['name']}/{output}" for output in outputs_of(step)]
    return steps


def draw_pipeline(rng: random.Random, first: str, raster: Raster, image: str) -> dict[str, Any]:
    steps = draw_steps(rng, first)
    chunks = [rng.randint(4, 24), rng.randint(4, 24)]
    kept = [f"{step['name']}/{output}" for step in steps for output in outputs_of(step)]
    output: dict[str, Any] = {"path": "out/store.zarr", "chunks": chunks}
    output["codec"] = rng.choice(["fast", "balanced", "small", "none"])
    output["dims"] = rng.choice(["auto", "y,x,band", "band,y,x"])
    if kept and rng.random() < 0.6:
        output["keep"] = some(rng, kept, 9)
    if rng.random() < 0.3:
        output["shards"] = [2 * side for side in chunks]
    if rng.random() < 0.25:
        output["geotiff"] = "out/files/"
    elif len(kept) == 1 and rng.random() < 0.3:
        output["path"] = "out/only.tif"
    inputs = {"image": image}
    if any("labels" in step for step in steps):
        inputs["labels"] = "labels.zarr"
    document: dict[str, Any] = {"inputs": inputs, "steps": steps, "output": output}
    if rng.random() < 0.2:
        spans = [sorted(rng.sample(range(side + 1), 2)) for side in (raster.height, raster.width)]
        document["region"] = dict(zip(("rows", "columns"), spans, strict=True))
    return document


# --- the command -----------------------------------------------------------------------------------------------


def record_drawn(number: int) -> dict[str, dict[str, str]]:
    """Record a drawn pipeline; its number alone says what is drawn."""
    rng = random.Random(f"drawn {number}")
    raster = Raster(rng)
    operations = sorted(OPERATIONS)
    found: dict[str, dict[str, str]] = {}
    document, options = None, {}
    for halo in HALOS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            image = raster.store(folder)
            if document is None:
                document = draw_pipeline(rng, operations[number % len(operations)], raster, image)
                options = {"quicklook": "look.png"} if rng.random() < 0.2 else {}
            given = {key: str(folder / "out" / value) for key, value in options.items()}
            found[f"drawn {number:03} {halo}"] = record(document, halo, folder, **given)
    assert document is not None
    step = {key: value for key, value in document["steps"][0].items() if key != "input"}
    if step["op"] not in ("palette", "label_stats"):
        found[f"drawn {number:03} lazily"] = lazily(step, raster)
    return found


def record_all(num_draws: int, *, with_configs: bool) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    if with_configs:
        with tempfile.TemporaryDirectory() as inputs:
            make_scene(Path(inputs))
            with tempfile.TemporaryDirectory() as folder:
                found["scene"] = hashes(Path(inputs))
                found["convert"] = convert(Path(inputs), Path(folder))
            for name, document in configs(Path(inputs)):
                for halo in HALOS:
                    with tempfile.TemporaryDirectory() as folder:
                        found[f"{name} {halo}"] = record(document, halo, Path(folder))
                        say(f"{name} {halo}: {len(found[f'{name} {halo}'])} hashes")
    for number in range(num_draws):
        found |= record_drawn(number)
        if number % 20 == 19:
            say(f"{number + 1} of {num_draws} drawn pipelines")
    return found


def differences(found: dict[str, dict[str, str]], other: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield in words what differs from another record, of what is in this one: it may be a part."""
    for name in sorted(found):
        here, there = found[name], other.get(name, {})
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                yield f"{name}: {key}: {there.get(key, 'nothing')} was, {here.get(key, 'nothing')} is"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--no-configs", action="store_true")
    parser.add_argument("--compare", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    os.environ.pop("AWS_ENDPOINT_URL", None)
    say(f"rasterpipe of {Path(pipeline.__file__).parent}")
    found = record_all(arguments.draws, with_configs=not arguments.no_configs)
    arguments.file.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")
    refused = sum("refused" in hashes for hashes in found.values())
    say(f"{len(found)} runs ({refused} refused), {sum(map(len, found.values()))} hashes in {arguments.file}")
    if arguments.compare is None:
        return 0
    differing = list(differences(found, json.loads(arguments.compare.read_text())))
    print("\n".join(differing) or f"the same bits in {len(found)} runs")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
