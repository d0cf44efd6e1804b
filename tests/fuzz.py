"""Hostile input: real files, damaged at random by a seed, and what may come of them: a raster, or one of our errors.

`python -m tests.fuzz zarr 0 1000 FOLDER` tries the seeds 0 to 999 of a kind and writes before each which it is, so
that a crash of the process has a name; the long test watches such a process from outside.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from pipeline import api
from pipeline.cli.text import format_info
from pipeline.config import load_pipeline
from pipeline.model.errors import InputError, OutputError, PipelineError, RasterpipeError, UsageError
from pipeline.model.region import Region
from pipeline.operations.registry import registry
from pipeline.storage.open import open_raster
from pipeline.verbs.facts import describe_input

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
KINDS = ("yaml", "zarr", "tiff", "shared")
MAX_READ = 256
"""Rows and columns that are read of a raster at most."""


# --- what is tried ---------------------------------------------------------------------------------------------


def open_and_read(path: Path) -> None:
    """Do with a raster file what a run does: open, describe, identify, read corners and the middle."""
    reader = open_raster(str(path))
    facts = describe_input(str(path), reader)
    json.dumps(facts.to_dict(), default=str)
    "\n".join(format_info(facts)).encode()
    json.dumps(reader.identity())
    for region in corners(reader.spec.height, reader.spec.width):
        shape = reader.spec.shape_of(region)
        if np.prod(shape, dtype=float) < 2**22:
            reader.read(region, np.empty(shape, reader.spec.dtype))


def corners(height: int, width: int) -> Iterator[Region]:
    rows, columns = min(height, MAX_READ), min(width, MAX_READ)
    for top, left in {(0, 0), (height - rows, width - columns), ((height - rows) // 2, (width - columns) // 2)}:
        yield Region(top, top + rows, left, left + columns)


def plan_raster(path: Path) -> None:
    """Plan a run over a raster file; it may be refused for its size, and for nothing that is not said."""
    steps = [{"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}]
    run = {"memory": "1 GiB", "workers": 2}
    document = {"inputs": {"image": str(path)}, "steps": steps, "output": {"path": str(path) + ".out"}, "run": run}
    api.plan(document)


def plan_file(path: Path) -> None:
    pipeline, _ = load_pipeline(path)
    json.dumps(pipeline.to_dict())
    api.plan(path)


# --- damage ----------------------------------------------------------------------------------------------------

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**62,
    2**63,
    2**64,
    10**30,
    10**400,
    0.5,
    1e308,
)
WORDS = (
    *("", "..", "../..", "/etc", "../../../etc/passwd", "image", "y", "x", "band", "int8", "float64", "<f8", "|O"),
    *("|S9", "<U5", "gzip", "zstd", "blosc", "bytes", "pickle", "vlen-utf8", "crc32c", "sharding_indexed", "transpose"),
    *("numcodecs.lzma", "NaN", "Infinity", "0x00", "\0", "\ud800", "\x1b[2J", "é" * 40, "A" * 5000, "C", "F", "."),
)


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def anything(rng: random.Random) -> Any:
    """Return some JSON value, most of them wrong in most places."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(WORDS)
    simple = (None, True, False, [], {}, [[]], {"": {}}, deep(60), float("nan"))
    if kind < 7:
        return rng.choice(simple)
    return [anything(rng) for _ in range(rng.randrange(4))]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (holder, key) of every value in a tree."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        holder = pending.pop()
        items = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        found += [(holder, key) for key, _ in items]
        pending += [item for _, item in items if isinstance(item, dict | list)]
    return found


def damage_tree(tree: Any, rng: random.Random) -> Any:
    """Return a tree with some values replaced, removed, doubled, or moved elsewhere."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = places(tree)
        if not found:
            return anything(rng)
        holder, key = rng.choice(found)
        way = rng.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif way == 2 and isinstance(holder, dict):
            holder[rng.choice((*WORDS[:12], "shape", "codecs", "attributes"))] = holder[key]
        elif way == 3 and isinstance(holder[key], int) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((-holder[key], holder[key] * 2**20, holder[key] + 1, holder[key] - 1))
        else:
            holder[key] = anything(rng)
    return tree


def damage_numbers(tree: Any, rng: random.Random) -> Any:
    """Return a tree with a number or two replaced by others, most of them possible, some absurd."""
    tree = json.loads(json.dumps(tree))
    found = [(holder, key) for holder, key in places(tree) if type(holder[key]) in (int, float)]
    for holder, key in rng.sample(found, min(len(found), rng.choice((1, 1, 2)))):
        holder[key] = rng.choice((0, 1, 2, 5, 15, 99, 1001, 65536, 10**6, 10**9, 2**62, -1, 0.5, 3.0, 1e-9, 1e300))
    return tree


def damage_bytes(data: bytes, rng: random.Random, first: int | None = None) -> bytes:
    """Return bytes changed, cut, doubled or filled in, mostly among the `first` ones."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        end = len(changed) if first is None or rng.random() < 0.2 else min(first, len(changed))
        if not end:
            break
        at, way = rng.randrange(end), rng.randrange(8)
        if way < 4:
            changed[at] = rng.choice((0, 1, 2, 3, 4, 8, 127, 128, 254, 255, rng.randrange(256)))
        elif way == 4:
            word = rng.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1, len(data), len(data) - 1, rng.randrange(2**32)))
            changed[at : at + 4] = word.to_bytes(4, rng.choice(("little", "big")))
        elif way == 5:
            del changed[at : at + rng.choice((1, 2, 12, 400))]
        elif way == 6:
            changed[at:at] = changed[at : at + rng.choice((1, 12, 100))]
        else:
            del changed[rng.randrange(at, len(changed)) :]
    return bytes(changed)


# --- Zarr ------------------------------------------------------------------------------------------------------


def make_zarr(folder: Path, number: int) -> Path:
    """Write one of several small stores: both formats, codecs, shards, coordinates, a pyramid."""
    rng = np.random.default_rng(number)
    path = folder / f"{number}.zarr"
    values = rng.integers(0, 99, (40, 30, 3)).astype(("uint8", "int16", "float32", "float64")[number % 4])
    codec = (BloscCodec(cname="zstd"), ZstdCodec(level=1), GzipCodec(), BloscCodec(), None, ZstdCodec(checksum=True))
    if number == 6:
        return make_zarr_v2(path, values, {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1})
    if number == 7:
        return make_zarr_v2(path, values, {"id": "zlib", "level": 1})
    root = zarr.create_group(path, attributes={"proj:code": "EPSG:32633", "spatial:transform": [10, 0, 5, 0, -10, 9]})
    options: dict[str, Any] = {"chunks": (16, 16, 3), "compressors": codec[number]}
    if number in (1, 3, 5):
        options |= {"chunks": (8, 8, 3), "shards": (16, 16, 3)}
    attributes = {"missing_value": 7, "grid_mapping": "crs", "coordinates": "wavelength", "scale_factor": 0.5}
    image = root.create_array(
        "image", data=values, dimension_names=("y", "x", "band"), attributes=attributes, **options
    )
    assert image.shape == values.shape
    coordinates(root)
    if number == 4:
        axes = [{"name": name} for name in ("y", "x", "band")]
        root.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "image"}]}]}
    return path


def coordinates(root: zarr.Group) -> None:
    along = {"y": np.arange(40) * -10.0, "x": np.arange(30) * 10.0, "wavelength": np.arange(3) + 0.5}
    for name, values in along.items():
        root.create_array(name, data=values, dimension_names=("band" if name == "wavelength" else name,))
    names = np.array(["red", "green", "blue"], np.dtypes.StringDType())
    root.create_array("band", data=names, dimension_names=("band",))
    mapping = {"crs_wkt": "EPSG:32633", "GeoTransform": "0 1 0 9 0 -1"}
    root.create_array("crs", data=np.zeros((), "int32"), attributes=mapping)


def make_zarr_v2(path: Path, values: np.ndarray, codec: dict[str, Any]) -> Path:
    import numcodecs

    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(16, 16, 3),
        zarr_format=2,
        compressors=numcodecs.get_codec(codec),
        attributes={"_ARRAY_DIMENSIONS": ["y", "x", "band"], "_FillValue": 3},
    )
    array[...] = values
    return path


NUM_STORES = 8
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


def damage_zarr(source: Path, target: Path, rng: random.Random) -> Path:
    """Copy a store and damage one or two of its files."""
    shutil.copytree(source, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    for _ in range(rng.choice((1, 1, 2))):
        is_metadata = rng.random() < 0.7
        file = rng.choice([path for path in files if (path.name in METADATA) == is_metadata])
        if not file.exists():
            continue
        data = file.read_bytes()
        if rng.random() < 0.03:
            file.unlink()
        elif is_metadata and rng.random() < 0.85:
            tree = damage_tree(json.loads(data), rng) if is_json(data) else anything(rng)
            file.write_text(json.dumps(tree), "utf-8", "surrogatepass")
        else:
            file.write_bytes(damage_bytes(data, rng, first=None if is_metadata else 40))
    return target


def is_json(data: bytes) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(data)
        return True
    return False


# --- TIFF ------------------------------------------------------------------------------------------------------

GEO_TAGS = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5000000.0, 0.0), True),
    (34735, 3, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633), True),
    (42113, 2, 0, "7", True),
    (42112, 2, 0, '<GDALMetadata><Item name="DESCRIPTION" sample="0">red</Item></GDALMetadata>', True),
]
TIFFS: tuple[dict[str, Any], ...] = (
    {"rowsperstrip": 5},
    {"tile": (16, 16), "compression": "zlib", "predictor": 2, "bigtiff": True},
    {"rowsperstrip": 9, "compression": "lzw", "byteorder": ">"},
    {"tile": (32, 32), "compression": "zstd", "planarconfig": "separate"},
    {"tile": (16, 16), "compression": "jpeg", "photometric": "rgb"},
    {"tile": (16, 16), "compression": "lerc", "planarconfig": "separate"},
    {"tile": (16, 16), "compression": "webp", "photometric": "rgb"},
    {"rowsperstrip": 16, "compression": "packbits"},
    {"tile": (16, 16), "compression": "jpeg2000", "photometric": "rgb"},
    {"tile": (16, 16), "compression": "png", "photometric": "rgb"},
    {"rowsperstrip": 40, "compression": "lzma"},
)


def make_tiff(folder: Path, number: int) -> Path:
    path = folder / f"{number}.tif"
    options = {"photometric": "minisblack", "planarconfig": "contig"} | TIFFS[number]
    values = np.random.default_rng(number).integers(0, 99, (40, 30, 3), "uint8")
    if options["planarconfig"] == "separate":
        values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    if number in (0, 1, 2):
        values = values.astype(("float32", "uint16", "int16")[number])
    tifffile.imwrite(path, values, metadata=None, extratags=GEO_TAGS, **options)
    return path


def damage_tiff(source: Path, target: Path, rng: random.Random) -> Path:
    """Copy a TIFF file and damage its bytes, or the fields of its tags."""
    data = source.read_bytes()
    if rng.random() < 0.6:
        data = damage_tags(data, rng)
    if rng.random() < 0.6:
        data = damage_bytes(data, rng, first=600)
    target.write_bytes(data)
    return target


def damage_tags(data: bytes, rng: random.Random) -> bytes:
    """Change code, type, count or value of some entries of the first directory, or where the next one is."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    width, entry = (8, 20) if big else (4, 12)
    word = order + ("Q" if big else "I")
    (start,) = struct.unpack_from(word, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    first = start + (8 if big else 2)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, field = first + entry * rng.randrange(count), rng.randrange(6)
        if field == 0:
            codes = (254, 256, 257, 258, 259, 277, 278, 284, 317, 322, 323, 330, 339, 347, 33628, 33629, 34412, 34665)
            struct.pack_into(order + "H", changed, at, rng.choice(codes))
        elif field == 1:
            struct.pack_into(order + "H", changed, at + 2, rng.choice((0, 1, 2, 3, 4, 5, 7, 12, 13, 16, 18, 99)))
        elif field == 5:
            struct.pack_into(word, changed, first + entry * count, rng.choice((start, 8, first, len(data) - 3, 1)))
        else:
            numbers = (0, 1, 2, 3, 8, 15, 255, 65535, 2**20, 2**31 - 1, 2**32 - 1, len(data), start, first)
            struct.pack_into(word, changed, at + (4 if field == 2 else 4 + width), rng.choice(numbers))
    return bytes(changed)


# --- YAML ------------------------------------------------------------------------------------------------------

FRAGMENTS = (
    *("&a", "*a", "<<: *a", "!!python/object/apply:os.system [id]", "!!binary aGk=", "!x", "? ", "- ", ": ", "[", "]"),
    *("{", "}", "|\n", ">\n", "---\n", "...\n", "%YAML 1.2\n", "\t", "\0", "\ufeff", "\u2028", "\U0001f600", "'", '"'),
    *("${HOME}", "${NOPE}", "${A:-b}", "${", "[" * 200, "{a: " * 60, "9" * 400, "1e999", ".inf", ".nan", "~", "#"),
    *('"\\0"', '"\\ud800"', "999999999999", "-1", "size: 99999999", "name: ../x", "path: /", "A" * 5000, "null"),
)


FURTHER = """
version: 1
inputs:
  image: {path: SAMPLE, array: scene, bands: [1, 2, "b4"], nodata: 0, dims: "y,x,band", scale: {factor: 2, offset: 1}}
  other: {path: SAMPLE, array: scene, bands: [4], scale: apply}
  more: {path: SAMPLE, arrays: [scene], at: {band: 0}, nodata: none}
region: {rows: [0, 100], columns: [20, 90]}
steps:
  - &first {name: one, op: window, input: image, size: [3, 5], statistics: [mean, std]}
  - {<<: *first, name: two, input: one/mean}
  - {name: three, op: calc, inputs: {a: other, b: more}, expression: a + b}
output: {path: out.zarr, keep: [one/std, two], chunks: [64, 64], shards: [128, 128], codec: small, dims: "y,x,band"}
run:
  {memory: 1 GiB, workers: 1, halo: read, scratch: "${HOME:-/tmp}", limits: {tile_bytes: 4 MiB, decompression_ratio: 9}}
"""


def pipeline_files(folder: Path) -> list[Path]:
    """Write the files that are damaged: the project's own, one with every option, one for each operation."""
    texts = {path.stem: path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml"))}
    texts["further"] = FURTHER
    for op, operation in registry().items():
        labels = ", labels: {path: SAMPLE, bands: [1]}" if "labels: " in operation.example else ""
        inputs = f"{{image: SAMPLE{labels}}}"
        texts[op] = f"inputs: {inputs}\nsteps:\n  - {operation.example}\noutput: {{path: out.zarr}}\n"
    files = []
    for name, text in texts.items():
        for known in ("../data/scene.zarr", "../data/sample.zarr", "SAMPLE"):
            text = text.replace(known, str(ROOT / "data" / "sample.zarr"))
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(text)
    return files


def damage_yaml(source: Path, target: Path, rng: random.Random) -> Path:
    """Write a pipeline file with values, lines or characters changed."""
    text = source.read_text()
    way = rng.randrange(8)
    if way < 6:
        tree = (damage_tree, damage_numbers)[way % 2](yaml.safe_load(text), rng)
        target.write_text(json.dumps(tree), "utf-8", "surrogatepass")
    elif way == 6:
        target.write_bytes(damage_bytes(text.encode(), rng))
    else:
        lines = text.splitlines()
        for _ in range(rng.choice((1, 1, 2))):
            number = rng.randrange(len(lines))
            at = rng.randrange(len(lines[number]) + 1)
            lines[number] = lines[number][:at] + rng.choice(FRAGMENTS) + lines[number][at + rng.choice((0, 0, 1, 5)) :]
            if rng.random() < 0.2:
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        target.write_text("\n".join(lines), "utf-8", "surrogatepass")
    return target


# --- together --------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[type[RasterpipeError], ...]] = {
    "zarr": (InputError,),
    "tiff": (InputError,),
    "shared": (InputError,),
    "yaml": (PipelineError, InputError, OutputError, UsageError),
}


@lru_cache(maxsize=1)
def originals(folder: Path) -> dict[str, list[Path]]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {
        "zarr": [make_zarr(folder, number) for number in range(NUM_STORES)],
        "tiff": [make_tiff(folder, number) for number in range(len(TIFFS))],
        "shared": sorted(SHARED.glob("*.tif")),
        "yaml": pipeline_files(folder),
    }


DAMAGE: dict[str, Callable[[Path, Path, random.Random], Path]] = {
    "zarr": damage_zarr,
    "tiff": damage_tiff,
    "shared": damage_tiff,
    "yaml": damage_yaml,
}


def attempt(kind: str, seed: int, folder: Path) -> str | None:
    """Damage a file and use it; return the text of the refusal, None where it could be used.

    Anything but a raster or an error of ours, in one message with the right exit code, raises.
    """
    rng = random.Random(f"{kind} {seed}")
    source = rng.choice(originals(folder / "originals")[kind])
    target = folder / f"damaged{source.suffix}"
    with removed(target), refused(REFUSALS[kind]) as texts:
        DAMAGE[kind](source, target, rng)
        if kind == "yaml":
            plan_file(target)
        else:
            open_and_read(target)
    if kind != "yaml" and not texts and seed % 4 == 0:
        with removed(target), refused((PipelineError, InputError)) as texts:
            DAMAGE[kind](source, target, random.Random(f"{kind} {seed}"))
            plan_raster(target)
    return texts[0] if texts else None


@contextmanager
def refused(kinds: tuple[type[RasterpipeError], ...]) -> Iterator[list[str]]:
    """Let errors of ours of these kinds pass, and check that they are fit to be read."""
    texts: list[str] = []
    errors: list[RasterpipeError] = []
    try:
        yield texts
    except kinds as error:
        errors.append(error)
    for error in errors:
        text = str(error)
        assert text.strip(), type(error)
        assert "Traceback" not in text, text
        assert len(text) < 20_000, text[:500]
        assert error.exit_code in (2, 3, 4, 5), error.exit_code
        texts.append(text)


@contextmanager
def removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def main(kind: str, first: str, count: str, folder: str) -> None:
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # as the command line does
    log = Path(folder, "seed")
    num_refused = 0
    for seed in range(int(first), int(first) + int(count)):
        log.write_text(str(seed))
        num_refused += attempt(kind, seed, Path(folder)) is not None
    print(json.dumps({"tried": int(count), "refused": num_refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
