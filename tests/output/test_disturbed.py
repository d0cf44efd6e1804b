"""What is half done is never taken for whole: inputs that are away or others for a while, results that lose files.

Every case ends with the bytes of an undisturbed run, or is refused; none is wrong and calls itself complete.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from pipeline import api
from pipeline.model.errors import InputChanged, InputError, OutputError, RunInterrupted, RunStopped
from pipeline.model.region import Axis, Grid
from pipeline.output import decision, provenance
from pipeline.output.journal import Journal
from pipeline.output.store import RunStore
from pipeline.output.work_folder import work_folder
from pipeline.planning import fitting
from pipeline.storage.folder import listing, retry
from pipeline.storage.zarr import store as zarr_store
from pipeline.storage.zarr.store import ZarrWriter, root_attributes
from pipeline.verbs import run as run_module
from pipeline.verbs.load import Cut, load
from tests import harness

SIDE, CHUNK, BLOCKS = 128, 16, 64
GRIDS = (Grid(Axis(0, SIDE, CHUNK), Axis(0, SIDE, CHUNK), 2**31),)
SMOOTH = {"name": "smooth", "op": "window", "size": 5, "statistics": ["mean"]}

Config = dict[str, Any]
Act = Callable[[], object]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every chunk by itself, and wait less before trying again."""
    monkeypatch.setattr(fitting, "_coarse_unit", lambda chunk, raster, pixel_bytes: chunk)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.02)


def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 4000, (SIDE, SIDE, 2), dtype=np.uint16)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    raster = harness.Raster(pixels(), ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2))
    return Path(harness.store(raster, tmp_path / "scene.zarr"))


def pipeline(source: Path | str, output: Path, *steps: dict[str, Any], **run: Any) -> Config:
    document = harness.document(str(source), list(steps) or [SMOOTH], output, chunks=[CHUNK, CHUNK], codec="none")
    return document | {"run": {"workers": 2, "halo": "read", **run}}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "result.zarr"


@pytest.fixture
def config(scene: Path, output: Path) -> Config:
    return pipeline(scene, output)


@pytest.fixture
def expected(config: Config, tmp_path: Path) -> dict[str, Any]:
    return undisturbed(config, tmp_path)


def undisturbed(config: Config, folder: Path, grids: Any = GRIDS) -> dict[str, Any]:
    path = folder / "undisturbed" / "result.zarr"
    api.run({**config, "output": {**config["output"], "path": str(path)}}, cut=Cut(grids))
    return harness.stored_files(path)


def during(monkeypatch: pytest.MonkeyPatch, acts: dict[int, Act]) -> None:
    """Let something happen before the n-th raster of a block is written."""
    write, calls, lock = ZarrWriter.write, itertools.count(1), threading.Lock()

    def watched(*args: Any) -> Any:
        with lock:
            act = acts.get(next(calls))
            if act is not None:
                act()
        return write(*args)

    monkeypatch.setattr(ZarrWriter, "write", watched)


def stop(*_: Any) -> None:
    raise OutputError("enough")


def aside(path: Path) -> Path:
    return path.with_name(f"{path.name}-aside")


def away(path: Path) -> None:
    os.rename(path, aside(path))


def back(path: Path) -> None:
    os.rename(aside(path), path)


# --- inputs that are away for a while ---------------------------------------------------------------------------

PLACES = {"store": "", "chunk": "c/7/7/0", "row of chunks": "c/7"}


@pytest.mark.parametrize("halo", ["read", "exchange"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_input_that_is_away_stops_the_run_which_then_continues(
    place: str, halo: str, config: Config, scene: Path, output: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config["run"]["halo"] = halo
    with monkeypatch.context() as patch:
        during(patch, {20: partial(away, scene / place)})
        with pytest.raises(RunStopped, match=r"was there when the run began, and is not now.*--resume continues it"):
            api.run(config, cut=Cut(GRIDS))
    assert not output.exists()
    back(scene / place)
    facts = api.run(config, cut=Cut(GRIDS), resume=True)
    assert facts["blocks"] > 0
    assert facts["blocks"] + facts["blocks_skipped"] == BLOCKS
    assert harness.stored_files(output) == expected


def test_an_input_that_is_away_for_a_moment_costs_attempts(
    config: Config, scene: Path, output: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blink() -> None:
        away(scene)
        threading.Timer(0.05, partial(back, scene)).start()

    during(monkeypatch, {20: blink})
    assert api.run({**config, "run": {**config["run"], "retries": 8}}, cut=Cut(GRIDS))["retries"] > 0
    assert harness.stored_files(output) == expected


def test_a_tiff_that_is_away_stops_the_run_which_then_continues(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "scene.tif"
    tifffile.imwrite(source, pixels()[..., 0], tile=(CHUNK, CHUNK), compression="zlib")
    config = pipeline(source, output)
    expected = undisturbed(config, tmp_path)
    (reader,) = load(config).readers.values()
    away(source)
    with pytest.raises(InputError, match=r"scene\.tif: was there when the run began, and is not now"):
        reader.read(reader.spec.region, np.empty(reader.spec.shape, np.uint16))
    back(source)
    with monkeypatch.context() as patch:
        during(patch, {20: partial(away, source)})
        with pytest.raises(RunStopped, match=r"was there when the run began, and is not now.*--resume continues it"):
            api.run(config, cut=Cut(GRIDS))
    back(source)
    assert 0 < api.run(config, cut=Cut(GRIDS), resume=True)["blocks"] < BLOCKS
    assert harness.stored_files(output) == expected


def test_an_input_of_which_nothing_is_there_is_refused(config: Config, scene: Path, output: Path) -> None:
    shutil.rmtree(scene / "c")
    with pytest.raises(InputError, match="lacks all its chunk files, and all of it would be read as the fill value"):
        api.run(config)
    assert not output.exists()
    config["inputs"] = {"image": {"path": str(scene), "missing": "fill"}}
    assert api.run(config)["blocks"] > 0


def test_chunks_that_never_were_are_fill_values(config: Config, scene: Path, output: Path, tmp_path: Path) -> None:
    for name in ("c/3/4/0", "c/0/0/0"):
        (scene / name).unlink()
    values = pixels()
    values[3 * CHUNK : 4 * CHUNK, 4 * CHUNK : 5 * CHUNK] = values[:CHUNK, :CHUNK] = 0
    plain = harness.store(harness.Raster(values, ("y", "x", "band"), chunks=(CHUNK, CHUNK, 2)), tmp_path / "plain.zarr")
    api.run(config)
    api.run(pipeline(plain, tmp_path / "plain-result.zarr"))
    found, due = (zarr.open_array(path, path="smooth/mean")[...] for path in (output, tmp_path / "plain-result.zarr"))
    np.testing.assert_array_equal(found, due)


def test_folders_that_are_links_are_looked_into(config: Config, scene: Path, output: Path, expected: Any) -> None:
    shutil.move(scene / "c" / "3", scene.parent / "elsewhere")
    (scene / "c" / "3").symlink_to(scene.parent / "elsewhere")
    (scene / "c" / "back").symlink_to(scene)
    assert not [note for note in api.plan(config)["notes"] if "lacks" in note]
    api.run(config, cut=Cut(GRIDS))
    assert without_identity(harness.stored_files(output)) == without_identity(expected)


def without_identity(files: Any) -> Any:
    """Return stored files without what says of which input they are."""
    text = {name: data for name, data in files.items() if not isinstance(data, dict)}
    return text | {name: sorted(data) for name, data in files.items() if isinstance(data, dict)}


# --- inputs that are others for a while -------------------------------------------------------------------------


def overwrite(path: Path, data: bytes) -> None:
    """Write other bytes into a file, and give it the times that it had."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_another(path: Path, data: bytes) -> None:
    """Put another file in the place of one, with its times."""
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(path, aside(path))
    os.replace(other, path)


def put_back(path: Path) -> None:
    os.replace(aside(path), path)


@pytest.mark.parametrize("way", ["in place", "renamed"])
@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_an_input_that_is_another_one_for_a_while_stops_the_run_for_good(
    kind: str, way: str, config: Config, scene: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = scene / "c" / "6" / "6" / "0"
    if kind == "tiff":
        chunk = tmp_path / "scene.tif"
        tifffile.imwrite(chunk, pixels()[..., 0], tile=(CHUNK, CHUNK))
        config = pipeline(chunk, output)
    before, other = chunk.read_bytes(), chunk.read_bytes()[:-100] + bytes(100)
    first = partial(overwrite, chunk, other) if way == "in place" else partial(put_another, chunk, other)
    last = partial(overwrite, chunk, before) if way == "in place" else partial(put_back, chunk)
    expected = undisturbed(config, tmp_path)
    with monkeypatch.context() as patch:
        during(patch, {10: first, 60: last})
        with pytest.raises(InputChanged, match=r"is not as it was when .*--overwrite starts anew") as caught:
            api.run(config, cut=Cut(GRIDS))
        assert caught.value.exit_code == 4
    if chunk.read_bytes() != before:
        last()
    with pytest.raises(OutputError, match=r"the unfinished run cannot be continued: .*; --overwrite starts anew"):
        api.run(config, resume=True)
    api.run(config, cut=Cut(GRIDS), overwrite=True)
    assert pixel_files(output) == pixel_files_of(expected)


def pixel_files_of(files: Any) -> Any:
    return {name: data for name, data in files.items() if isinstance(data, bytes)}


def pixel_files(path: Path) -> Any:
    return pixel_files_of(harness.stored_files(path))


def test_a_chunk_that_was_not_there_and_is_stops_the_run(
    config: Config, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away(scene / "c/6/6/0")
    during(monkeypatch, {10: partial(back, scene / "c/6/6/0")})
    with pytest.raises(InputChanged, match="c/6/6/0 was not there when the run began, and is now"):
        api.run(config, cut=Cut(GRIDS))


def test_a_chunk_that_is_another_one_while_it_is_read_is_told(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the file and the reading of it, which opens it again."""
    (reader,) = load(pipeline(scene, scene.parent / "x.zarr")).readers.values()
    get, chunk = zarr.Array.get_basic_selection, scene / "c" / "0" / "0" / "0"
    data = chunk.read_bytes()

    def read(*args: Any, **options: Any) -> Any:
        put_another(chunk, data[:-4] + bytes(4))
        result = get(*args, **options)
        put_back(chunk)
        return result

    monkeypatch.setattr(zarr.Array, "get_basic_selection", read)
    with pytest.raises(InputChanged, match="c/0/0/0 is not as it was when the run began"):
        reader.read(reader.spec.region, np.empty(reader.spec.shape, np.uint16))


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_a_moved_project_is_continued(
    kind: str, config: Config, scene: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "tiff":
        scene = tmp_path / "scene.tif"
        tifffile.imwrite(scene, pixels()[..., 0], tile=(CHUNK, CHUNK))
        config = pipeline(scene, output)
    expected = undisturbed(config, tmp_path)
    with monkeypatch.context() as patch:
        during(patch, {20: stop})
        with pytest.raises(RunStopped):
            api.run(config, cut=Cut(GRIDS))
    moved = tmp_path / "moved" / scene.name
    moved.parent.mkdir()
    shutil.copytree(scene, moved) if scene.is_dir() else shutil.copy2(scene, moved)
    shutil.rmtree(scene) if scene.is_dir() else scene.unlink()
    facts = api.run(config, cut=Cut(GRIDS), inputs={"image": str(moved)}, resume=True)
    assert 0 < facts["blocks"] < BLOCKS
    assert pixel_files(output) == pixel_files_of(expected)


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_another_raster_of_the_same_sizes_and_times_is_told(
    kind: str, config: Config, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As archives unpack them: same name, another folder."""
    sources = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        values = pixels() + number
        if kind == "zarr":
            array = zarr.create_array(
                folder / "a.zarr", data=values, chunks=(CHUNK, CHUNK, 2), compressors=None,
                dimension_names=("y", "x", "band"),
            )  # fmt: skip
            assert array.shape == values.shape
            sources.append(folder / "a.zarr")
        else:
            tifffile.imwrite(folder / "a.tif", values[..., 0], tile=(CHUNK, CHUNK))
            sources.append(folder / "a.tif")
        for path in (folder, *folder.rglob("*")):
            os.utime(path, ns=(10**18, 10**18))
    with monkeypatch.context() as patch:
        during(patch, {20: stop})
        with pytest.raises(RunStopped):
            api.run(pipeline(sources[0], output), cut=Cut(GRIDS))
    with pytest.raises(OutputError, match="the input image has changed since"):
        api.run(pipeline(sources[1], output), cut=Cut(GRIDS), resume=True)


@pytest.mark.thorough
def test_listings_know_a_million_files() -> None:
    """16 bytes a file: they go to workers."""
    entries = (listing.Entry(f"c/{i // 1000}/{i % 1000}", 7, f"7 {i}", f"7 {i} {i}") for i in range(10**6))
    known = listing.Listing(entries)
    assert (known.num_files, known.num_bytes, known._names.nbytes + known._marks.nbytes) == (
        10**6,
        7 * 10**6,
        16 * 10**6,
    )
    known.check("c/999/999", "7 999999 999999")
    known.check("c/1000/0", None)
    for name, status, kind in (
        ("c/0/5", "7 5 6", InputChanged),
        ("c/0/5", None, InputError),
        ("c/1000/0", "7", InputChanged),
    ):
        with pytest.raises(kind):
            known.check(name, status)


# --- results that lose files ------------------------------------------------------------------------------------


def lose(store: Path, name: str = "smooth/mean/c/1/1/0") -> None:
    (store / name).unlink()


def cut(store: Path, name: str = "smooth/mean/c/1/1/0") -> None:
    data = (store / name).read_bytes()
    (store / name).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("harm", [lose, cut])
@pytest.mark.parametrize("when", ["between", "during"])
def test_a_finished_chunk_that_is_lost_is_computed_again(
    when: str, harm: Any, config: Config, output: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: dict[int, Act] = {40: stop} if when == "between" else {40: lambda: harm(harness.unfinished(output))}
    with monkeypatch.context() as patch:
        during(patch, acts)
        if when == "between":
            with pytest.raises(RunStopped):
                api.run(config, cut=Cut(GRIDS))
            harm(harness.unfinished(output))
        else:
            assert api.run(config, cut=Cut(GRIDS))["blocks_recomputed"] == 1
    if when == "between":
        assert api.run(config, cut=Cut(GRIDS), resume=True)["blocks_recomputed"] == 1
    assert harness.stored_files(output) == expected


def test_what_is_lost_again_and_again_is_no_result(
    config: Config, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ZarrWriter.write

    def spoiled(self: ZarrWriter, region: Any, values: Any) -> Any:
        marks = write(self, region, values)
        if region.top == region.left == CHUNK:
            threading.Timer(0.02, partial(lose, harness.unfinished(output))).start()
        return marks

    monkeypatch.setattr(ZarrWriter, "write", spoiled)
    slow = RunStore.take_back_lost
    monkeypatch.setattr(RunStore, "take_back_lost", lambda *args: (threading.Event().wait(0.1), slow(*args))[1])
    with pytest.raises(RunStopped, match="1 blocks of the result are lost again and again"):
        api.run(config, cut=Cut(GRIDS))
    assert not output.exists()


CHAIN = [
    {"name": "first", "op": "window", "size": 3},
    {"name": "around", "op": "window", "size": 3, "boundary": "wrap", "statistics": ["max"]},
    {
        "name": "zones",
        "op": "label_stats",
        "input": "around",
        "labels": "labels",
        "statistics": ["mean"],
        "recolor": ["mean"],
    },
]


@pytest.mark.parametrize("halo", ["read", pytest.param("exchange", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1, 2, 3))])
def test_whatever_is_lost_of_a_chain_with_tables_is_made_again(
    seed: int, halo: str, scene: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks, intermediate ones too, partial and finished tables, metadata: some of them, at a moment drawn."""
    config = pipeline(scene, output, *CHAIN, halo=halo)
    config["output"]["keep"] = ["around", "zones"]
    passes = len(api.plan(config)["passes"])
    grids = GRIDS * passes
    expected = undisturbed(config, tmp_path, grids)
    random = np.random.default_rng(seed)
    writes = [(passes - 1) * BLOCKS * share // 4 for share in (1, 2, 3)]
    with monkeypatch.context() as patch:
        during(patch, {writes[seed % 3] + int(random.integers(20)): stop})
        with pytest.raises(RunStopped):
            api.run(config, cut=Cut(grids))
    files = sorted(p for p in work_folder(str(output)).rglob("*") if p.is_file() and p.name not in ("journal", "owner"))
    files = [path for path in files if path.name != "zarr.json"]
    for index in random.choice(len(files), min(len(files), 12), replace=False):
        path = files[int(index)]
        path.unlink() if random.random() < 0.5 else path.write_bytes(path.read_bytes()[:-7])
    api.run(config, cut=Cut(grids), resume=True)
    assert harness.stored_files(output) == expected
    assert not work_folder(str(output)).exists()


def test_a_table_that_is_cut_is_made_again(
    scene: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its sweeps and its painting, when the partial tables that it was made of are gone."""
    config = pipeline(scene, output, {**CHAIN[2], "input": "image"})
    expected = undisturbed(config, tmp_path, GRIDS * 2)
    for name in ("mean.npy", "sum.npy", "sizes.json"):
        with monkeypatch.context() as patch:
            during(patch, {20: stop})
            with pytest.raises(RunStopped):
                api.run(config, cut=Cut(GRIDS * 2), overwrite=True)
        (table,) = work_folder(str(output)).glob("*/tables/zones.*")
        column = next((path for path in table.iterdir() if path.name == name), next(table.glob("*.npy")))
        column.write_bytes(column.read_bytes()[:-1])
        api.run(config, cut=Cut(GRIDS * 2), resume=True)
        assert harness.stored_files(output) == expected


def test_metadata_that_are_others_for_a_while_stop_the_run(
    config: Config, scene: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (scene / "zarr.json").read_text()
    another = before.replace('"endian": "little"', '"endian": "big"')
    assert another != before
    execute = run_module.execute

    def meddle(*args: Any, **options: Any) -> Any:
        overwrite(scene / "zarr.json", another.encode())
        return execute(*args, **options)

    monkeypatch.setattr(run_module, "execute", meddle)
    with pytest.raises(InputChanged, match="its metadata are not those of when the run began"):
        api.run(config, cut=Cut(GRIDS))


def test_metadata_are_written_anew(
    config: Config, output: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harm() -> None:
        store = harness.unfinished(output)
        for name in ("smooth/zarr.json", "smooth/band/c/0", "smooth/y/zarr.json"):
            (store / name).unlink()
        (store / "smooth/x/c/0").write_bytes(b"")

    during(monkeypatch, {40: harm})
    api.run(config, cut=Cut(GRIDS))
    assert harness.stored_files(output) == expected


@pytest.mark.parametrize("number", range(1, 14, 2))
def test_killed_while_the_documents_of_a_table_are_written(
    number: int, scene: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of bands without their chunk were read as empty texts."""
    config = pipeline(scene, output, {**CHAIN[2], "input": "image"})
    expected = undisturbed(config, tmp_path, None)
    put, calls = zarr_store.LocalFolder.put, itertools.count(1)

    def dying(*args: Any) -> None:
        if root_attributes(output) is None and next(calls) == number:
            raise KeyboardInterrupt
        put(*args)

    with monkeypatch.context() as patch:
        finish = zarr_store.finish_store

        def armed(*args: Any) -> None:
            patch.setattr(zarr_store.LocalFolder, "put", dying)
            finish(*args)

        patch.setattr("pipeline.output.store.finish_store", armed)
        with pytest.raises(RunInterrupted):
            api.run(config)
    api.run(config, resume=True)
    assert harness.stored_files(output) == expected


# --- writers that wake up late, and two at once -----------------------------------------------------------------


@pytest.mark.parametrize("ends", ["overwritten", "resumed"])
def test_what_wakes_up_late_finds_nothing_to_write_to(
    ends: str, config: Config, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Act] = []
    write = ZarrWriter.write

    def sleepy(self: ZarrWriter, region: Any, values: np.ndarray) -> Any:
        if not late:  # this worker sleeps with its block computed; it is given up, and another one does its work
            late.append(partial(write, self, region, np.array(values)))
        return write(self, region, values)

    with monkeypatch.context() as patch:
        patch.setattr(ZarrWriter, "write", sleepy)
        during(patch, {20: stop})
        with pytest.raises(RunStopped):
            api.run(config, cut=Cut(GRIDS))
    if ends == "overwritten":
        config["steps"] = [{**SMOOTH, "size": 9}]
        api.run(config, cut=Cut(GRIDS), overwrite=True)
    else:
        api.run(config, cut=Cut(GRIDS), resume=True)
    before = harness.stored_files(output)
    with pytest.raises(OutputError, match="is gone: its run has ended, or somebody has removed it"):
        late[0]()
    assert harness.stored_files(output) == before
    assert not work_folder(str(output)).exists()


def test_two_runs_into_one_folder_of_geotiffs(config: Config, tmp_path: Path) -> None:
    """Each file is whole, of one of them; none is left over."""
    maps = tmp_path / "maps"
    configs = []
    for number, size in enumerate((3, 9)):
        steps = [{**SMOOTH, "size": size}]
        path = {**config["output"], "path": str(tmp_path / f"{number}.zarr"), "geotiff": str(maps)}
        configs.append({**config, "steps": steps, "output": path})
    run_at_once([partial(api.run, each, overwrite=True) for each in configs])
    found = tifffile.imread(maps / "smooth_mean.tif")
    stores = [zarr.open_array(tmp_path / f"{number}.zarr", path="smooth/mean")[...] for number in range(2)]
    assert any(np.array_equal(np.squeeze(found), values) for values in stores)
    assert [path.name for path in maps.iterdir()] == ["smooth_mean.tif"]


def test_two_runs_into_one_file_of_a_table(scene: Path, tmp_path: Path) -> None:
    table = tmp_path / "zones.csv"
    configs = []
    for number in range(2):
        step = {**CHAIN[2], "input": "image", "table": str(table), "statistics": [["mean"], ["sum"]][number]}
        step["recolor"] = step["statistics"]
        configs.append(pipeline(scene, tmp_path / f"{number}.zarr", step))
    run_at_once([partial(api.run, each, overwrite=True) for each in configs])
    lines = table.read_text().splitlines()
    assert len({line.count(",") for line in lines}) == 1
    assert lines[0] in ("label,pixels,mean_b1,mean_b2", "label,pixels,sum_b1,sum_b2")
    assert len(lines) == 1 + len(np.unique(zarr.open_array(f"{scene}{harness.LABELS}")[...]))
    assert not list(tmp_path.glob(".*"))


def run_at_once(runs: list[Act]) -> None:
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_table_of_a_finished_output_is_written_under_the_lock(scene: Path, output: Path, tmp_path: Path) -> None:
    step = {**CHAIN[2], "input": "image", "table": str(tmp_path / "zones.csv")}
    config = pipeline(scene, output, step)
    api.run(config)
    (tmp_path / "zones.csv").unlink()
    first = Journal(str(output))
    with pytest.raises(OutputError, match="another run writes it"):
        api.run(config, resume=True)
    first.remove()
    assert api.run(config, resume=True)["table_files"] == [str(tmp_path / "zones.csv")]


# --- the journal ------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(config: Config, output: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal of an unfinished run."""
    with monkeypatch.context() as patch:
        during(patch, {20: stop})
        with pytest.raises(RunStopped):
            api.run(config, cut=Cut(GRIDS))
    return work_folder(str(output)) / "journal"


@pytest.mark.parametrize("key", ["source", "numba", "rasterpipe"])
def test_an_unfinished_run_of_another_version_is_not_continued(
    key: str, begun: Path, config: Config, output: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = provenance.running_code() | {key: "another"}
    with monkeypatch.context() as patch:
        patch.setattr(decision, "running_code", lambda: code)
        with pytest.raises(
            OutputError, match=rf"begun by another version: {key} was .*, is \"another\"; continue it with"
        ):
            api.run(config, resume=True)
    api.run(config, cut=Cut(GRIDS), resume=True)
    assert harness.stored_files(output) == expected


@pytest.mark.parametrize(
    "line", [b"[0, 64, 5, 9]\n", b"[1, 0, 5, 9]\n", b"[0, 63, 5]\n", b'[0, "x", 5, 9]\n', b"[]\n", b'["no"]\n', b"{}\n"]
)
def test_a_line_that_no_run_wrote_is_not_believed(
    line: bytes, begun: Path, config: Config, output: Path, expected: Any
) -> None:
    with begun.open("ab") as file:
        file.write(line)
    api.run(config, cut=Cut(GRIDS), resume=True)
    assert harness.stored_files(output) == expected


def test_a_result_is_complete_though_its_work_folder_cannot_be_removed(
    config: Config, output: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmdir = Path.rmdir

    def refuse(path: Path) -> None:
        if path == work_folder(str(output)):
            raise PermissionError(1, "Operation not permitted")
        rmdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", refuse)
        facts = api.run(config, cut=Cut(GRIDS))
    assert any("could not be removed, which only the run needed: Operation" in text for text in facts["warnings"])
    assert harness.stored_files(output) == expected
    shutil.rmtree(work_folder(str(output)), ignore_errors=True)
    with monkeypatch.context() as patch:  # somebody else has removed it
        publish = RunStore.publish
        patch.setattr(RunStore, "publish", lambda self: (publish(self), shutil.rmtree(work_folder(str(output))))[0])
        assert api.run(config, cut=Cut(GRIDS), overwrite=True)["blocks"] == BLOCKS
    assert harness.stored_files(output) == expected


def test_gathered_metadata_are_those_of_the_members(config: Config, output: Path) -> None:
    api.run(config, cut=Cut(GRIDS))
    found = json.loads((output / "zarr.json").read_text())
    assert found["attributes"]["rasterpipe"]["complete"] is True
    gathered = found["consolidated_metadata"]["metadata"]
    members = dict(zarr.open_group(output, mode="r", use_consolidated=False).members(max_depth=None))
    assert set(gathered) == set(members)
    for name in members:
        own = json.loads((output / name / "zarr.json").read_text())
        assert gathered[name]["attributes"] == own["attributes"]
