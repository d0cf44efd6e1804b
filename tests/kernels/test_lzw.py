"""LZW of TIFF: the kernel against imagecodecs, on what is whole and on what is damaged."""

from __future__ import annotations

import pickle
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import lzw
from pipeline.storage.tiff import lzw as tiff_lzw
from pipeline.storage.tiff.reader import TiffReader
from pipeline.testing.draws import draws
from pipeline.verbs.load import load

GUARD = 64


def decode(data: bytes, size: int) -> tuple[int, bytes]:
    """Decode by the kernel, in arrays whose surroundings must stay as they are; beyond the data lie random bytes."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, len(data) + lzw.SLACK_BYTES + GUARD, np.uint8)
    source[: len(data)] = np.frombuffer(data, np.uint8)
    out = np.full(GUARD + size + lzw.SLACK_BYTES + GUARD, 77, np.uint8)
    inner = out[GUARD : GUARD + size + lzw.SLACK_BYTES]
    count = int(lzw.decode(source[: len(data) + lzw.SLACK_BYTES], inner))
    assert (out[:GUARD] == 77).all()
    assert (out[-GUARD:] == 77).all()
    return count, inner[: max(0, count)].tobytes()


def texts() -> st.SearchStrategy[bytes]:
    noise = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(0, 256, 9000, np.uint8))
    few = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(0, 3, 50_000, np.uint8))
    runs = st.integers(1, 300_000).map(lambda size: np.zeros(size, np.uint8))
    long = st.integers(1, 5000).map(lambda period: np.arange(100_000) % period // 3)
    arrays = st.one_of(noise, few, runs, long).map(lambda array: array.astype(np.uint8).tobytes())
    return st.one_of(st.binary(min_size=1, max_size=600), arrays)


@settings(max_examples=draws(80), deadline=None)
@given(text=texts(), short=st.integers(0, 40), more=st.integers(0, 40))
def test_the_kernel_decodes_what_imagecodecs_encodes(text: bytes, short: int, more: int) -> None:
    data = imagecodecs.lzw_encode(text)
    assert decode(data, len(text)) == (len(text), text)
    less = max(0, len(text) - short)
    assert decode(data, less) == (less, text[:less])  # stops where the room ends
    assert decode(data, len(text) + more) == (len(text), text)  # and at the end of the data


@settings(max_examples=draws(200), deadline=None)
@given(text=texts(), seed=st.integers(0, 2**32), cut=st.integers(0, 50))
def test_damaged_data_stay_within_their_room_and_decode_as_in_imagecodecs(text: bytes, seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(imagecodecs.lzw_encode(text))
    for place in rng.integers(2, max(3, len(data)), 3):
        data[min(place, len(data) - 1)] = rng.integers(0, 256)
    damaged = bytes(data[: max(2, len(data) - cut)])
    count, decoded = decode(damaged, len(text))
    if count == len(text):
        assert decoded == bytes(imagecodecs.lzw_decode(damaged, out=len(text)))


def test_what_does_not_begin_with_the_clear_code_is_odd() -> None:
    assert decode(b"\x00\x01\x02\x03", 10)[0] == -1  # the first writers', bits reversed
    assert decode(b"\xff" * 20, 10)[0] == -1
    assert decode(b"", 10)[0] == 0


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}])
def test_files_are_read_as_by_tifffile(
    tmp_path: Path, dtype: str, predictor: int, byteorder: str, layout: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = np.dtype(dtype)
    values = np.random.default_rng(1).integers(0, 100, (50, 70, 3)).astype(kind)
    predictor = 3 if predictor == 2 and kind.kind == "f" else predictor
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        values,
        compression="lzw",
        predictor=predictor,
        byteorder=byteorder,
        photometric="minisblack",
        planarconfig="contig",
        **layout,
    )
    reader = TiffReader.open(path)
    if byteorder == "<" or predictor != 3:
        assert isinstance(reader._decode, tiff_lzw.LzwDecoder)
        monkeypatch.setattr(reader._decode, "_otherwise", None)  # the kernel decodes all of it
    out = np.empty(reader.spec.shape, reader.spec.dtype)
    reader.read(reader.spec.region, out)
    np.testing.assert_array_equal(out, values)


def test_an_input_says_that_the_kernel_is_to_be_compiled(tmp_path: Path) -> None:
    """Through all views of a file, and where it is not the first of a stack; not of other codecs."""
    values = np.arange(20, dtype="u1").reshape(4, 5)
    for name in ("zlib", "lzw"):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, compression=name, photometric="minisblack")
    entries = {
        "zlib": {"path": str(tmp_path / "zlib.tif")},
        "lzw": {"path": str(tmp_path / "lzw.tif"), "bands": [1], "nodata": 3, "scale": {"factor": 2}},
        "both": {"stack": [str(tmp_path / "zlib.tif"), str(tmp_path / "lzw.tif")]},
    }
    steps = [{"name": f"of_{name}", "op": "cast", "input": name, "dtype": "float32"} for name in entries]
    job = load({"inputs": entries, "steps": steps, "output": {"path": str(tmp_path / "out.zarr")}})
    inputs = pickle.loads(pickle.dumps(job.plan.inputs))  # as it goes to the processes that compile
    found = {name: entry.compile_decoder for name, entry in inputs.items()}
    assert found == {"zlib": None, "lzw": tiff_lzw.compile_kernel, "both": tiff_lzw.compile_kernel}
