"""The pipeline file: what is read, what is refused, and the exact words of the refusal."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationInfo, field_validator

from pipeline.config import (
    Document,
    InvalidPipeline,
    Pipeline,
    Ref,
    kept,
    load_pipeline,
    locate,
    parse,
    resolve,
    schema,
    validate,
)
from pipeline.model.errors import PipelineError, RasterpipeError, UsageError, unknown
from pipeline.operations.base import Operation
from pipeline.operations.fields import IntPair
from pipeline.testing.draws import draws


class Sigma(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    along: float
    across: float


class Window(Operation):
    """Statistics of a window around every pixel."""

    op: Literal["window"]
    size: IntPair
    """Rows and columns of the window."""
    statistics: tuple[Literal["mean", "var", "std", "min", "max"], ...] = ("mean",)
    boundary: Literal["reflect", "nearest"] = "reflect"
    fill_invalid: StrictBool = False
    min_valid: Annotated[int, Field(ge=1)] = 1

    @field_validator("size")
    @classmethod
    def _is_odd(cls, size: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        for side in size:
            if side % 2 == 0:
                raise ValueError(f"must be odd, got {side}; try {side - 1} or {side + 1}")
        return size


class Bank(Operation):
    """A bank of filters."""

    op: Literal["bank"]
    orientations: tuple[float, ...] = (0.0,)
    sigma: float | Sigma = 1.0
    window: int | None = None
    mask: str | None = None

    @field_validator("window")
    @classmethod
    def _is_odd(cls, window: int | None) -> int | None:
        if window is not None and window % 2 == 0:
            raise PipelineError(f"must be odd, got {window}; try {window - 1} or {window + 1}", ("window",))
        return window

    def sources(self) -> dict[str, str | None]:
        return {"input": self.input} | ({"mask": self.mask} if self.mask else {})


class Calc(Operation):
    """An expression of several rasters."""

    op: Literal["calc"]
    inputs: dict[str, str]

    def sources(self) -> dict[str, str | None]:
        return dict(self.inputs)


OPERATIONS: Mapping[str, type[Operation]] = {"window": Window, "bank": Bank, "calc": Calc}

HEAD = """\
inputs: {image: {path: a.tif, match: labels}, labels: b.tif}
output: {path: out.zarr}
steps:
"""


def check(text: str) -> Pipeline:
    return validate(parse(text), OPERATIONS)


def refusal(text: str) -> str:
    with pytest.raises(PipelineError) as caught:
        check(text)
    return str(caught.value)


def with_steps(*steps: str) -> str:
    return HEAD + "".join(f"  - {step}\n" for step in steps)


def in_window(settings: str) -> str:
    return with_steps(f"{{name: smooth, op: window, {settings}}}")


def smooth(head: str) -> str:
    """A file with this head and one harmless step."""
    return head + "\nsteps: [{name: smooth, op: window, size: 3}]\n"


# ---------------------------------------------------------------------------------------------------- messages

STEP_ERRORS = {
    "size: 14": "4:38: steps[0] (smooth).size: must be odd, got 14; try 13 or 15",
    "sise: 3": "4:32: steps[0] (smooth): unknown key 'sise'; did you mean 'size'?",
    "kernel_size: 3": "4:32: steps[0] (smooth): unknown key 'kernel_size'; here it is called 'size'",
    "size: 3, mode: reflect": "4:41: steps[0] (smooth): unknown key 'mode'; here it is called 'boundary'",
    "size: 3, qqq: 1": "4:41: steps[0] (smooth): unknown key 'qqq' (valid: op, name, input, bands, dtype, nodata, "
    "allow_inexact, size, statistics, boundary, fill_invalid, min_valid)",
    "statistics: [mean]": "4:5: steps[0] (smooth).size: missing; add `size: ...`",
    "size: 3, statistics: [average]": "4:54: steps[0] (smooth).statistics[0]: unknown statistic 'average'; "
    "here it is called 'mean'",
    "size: 3, statistics: [maen]": "4:54: steps[0] (smooth).statistics[0]: unknown statistic 'maen'; "
    "did you mean 'mean'? (valid: mean, var, std, min, max)",
    "size: 3, statistics: mean": "4:53: steps[0] (smooth).statistics: must be a list, got 'mean'; write [mean]",
    "size: 3, boundary: 5": "4:51: steps[0] (smooth).boundary: must be 'reflect' or 'nearest', got 5",
    "size: 3, fill_invalid: yes": "4:55: steps[0] (smooth).fill_invalid: must be true or false, got 'yes'; write true",
    "size: 3, min_valid: 0": "4:52: steps[0] (smooth).min_valid: must be at least 1, got 0",
    "size: 3, min_valid: 1.5": "4:52: steps[0] (smooth).min_valid: must be a whole number, got 1.5",
    "size: 3, min_valid: ~": "4:52: steps[0] (smooth).min_valid: must be a whole number, got nothing",
    "size: [3]": "4:38: steps[0] (smooth).size: must be a number or [y, x], got [3]",
    "size: [3, 3, 3]": "4:38: steps[0] (smooth).size: must be a number or [y, x], got [3, 3, 3]",
    "size: 3.5": "4:38: steps[0] (smooth).size: must be a whole number, got 3.5",
    "size: 0": "4:38: steps[0] (smooth).size: must be at least 1, got 0",
    "size: 3, bands: [1.5]": "4:49: steps[0] (smooth).bands[0]: must be a whole number or text, got 1.5",
    "size: 3, bands: 4": "4:48: steps[0] (smooth).bands: must be a list, got 4; write [4]",
    "size: 3, nodata: x": "4:49: steps[0] (smooth).nodata: must be a number, got 'x'",
    "size: 3, input: imagee": "4:48: steps[0] (smooth).input: unknown input or step 'imagee'; "
    "did you mean 'image'? (valid: image, labels)",
    "size: 3, input: 5": "4:48: steps[0] (smooth).input: must be text, got 5; write '5' in quotes",
    "size: 3, input: image/mean": "4:48: steps[0] (smooth).input: 'image' is an input and has no outputs; "
    "write 'image'",
    "size: 3, input: smooth": "4:48: steps[0] (smooth).input: step 'smooth' reads itself; choose one of: image, labels",
}


@pytest.mark.parametrize(("settings", "message"), STEP_ERRORS.items())
def test_message_about_a_setting_of_a_step(settings: str, message: str) -> None:
    assert refusal(in_window(settings)) == f"pipeline.yaml:{message}"


OTHER_STEPS = {
    "focal": (["{name: a, op: focal}"], "4:19: steps[0] (a).op: unknown operation 'focal'; here it is called 'window'"),
    "near": (
        ["{name: a, op: windwo}"],
        "4:19: steps[0] (a).op: unknown operation 'windwo'; did you mean 'window'? (valid: window, bank, calc)",
    ),
    "op is no word": (["{name: a, op: 3}"], "4:19: steps[0] (a).op: must be 'window', 'bank' or 'calc', got 3"),
    "no op": (["{name: a}"], "4:5: steps[0] (a).op: missing; add one of: window, bank, calc"),
    "no name": (["{op: window, size: 3}"], "4:5: steps[0].name: missing; add `name: window`"),
    "no name, op's taken": (
        ["{name: bank, op: bank}", "{op: bank}"],
        "5:5: steps[1].name: missing; add `name: bank_1`",
    ),
    "name is a number": (
        ["{name: 5, op: bank}"],
        "4:12: steps[0].name: must be text, got 5; write '5' in quotes",
    ),
    "bad name": (
        ["{name: a b, op: bank}"],
        "4:12: steps[0] (a b).name: a name begins with a letter and holds letters, digits, _ and -, got 'a b'",
    ),
    "reserved": (
        ["{name: band, op: bank}"],
        "4:12: steps[0] (band).name: the name 'band' is reserved "
        "(y, x, band, label, spatial_ref, table, palette, report); choose another",
    ),
    "twice": (
        ["{name: a, op: bank}", "{name: a, op: bank}"],
        "5:12: steps[1] (a).name: the name 'a' is taken by steps[0].name at pipeline.yaml:4:12; "
        "names are unique over inputs and steps",
    ),
    "as an input": (
        ["{name: image, op: bank}"],
        "4:12: steps[0] (image).name: the name 'image' is taken by inputs.image at pipeline.yaml:1:10; "
        "names are unique over inputs and steps",
    ),
    "no mapping": (["window"], "4:5: steps[0]: must be a mapping with `name` and `op`, got 'window'"),
    "union": (["{name: a, op: bank, sigma: x}"], "4:32: steps[0] (a).sigma: must be a number or a mapping, got 'x'"),
    "inside a union": (
        ["{name: a, op: bank, sigma: {along: 2}}"],
        "4:32: steps[0] (a).sigma.across: missing; add `across: ...`",
    ),
    "key inside a union": (
        ["{name: a, op: bank, sigma: {along: 2, acros: 1}}"],
        "4:43: steps[0] (a).sigma: unknown key 'acros'; did you mean 'across'?",
    ),
    "theta": (
        ["{name: a, op: bank, theta: [0]}"],
        "4:25: steps[0] (a): unknown key 'theta'; here it is called 'orientations' (degrees)",
    ),
    "PipelineError from an operation": (
        ["{name: a, op: bank, window: 4}"],
        "4:33: steps[0] (a).window: must be odd, got 4; try 3 or 5",
    ),
    "later": (
        ["{name: a, op: bank, input: b}", "{name: b, op: bank, input: image}"],
        "4:32: steps[0] (a).input: reads 'b', a later step; a step reads earlier ones: move 'b' before 'a'",
    ),
    "cycle": (
        ["{name: a, op: bank, input: c}", "{name: b, op: bank}", "{name: c, op: bank}"],
        "4:32: steps[0] (a).input: a cycle: a -> c -> b -> a (each reads the next); break it",
    ),
    "second source": (
        ["{name: a, op: bank, mask: lables}"],
        "4:31: steps[0] (a).mask: unknown input or step 'lables'; did you mean 'labels'? (valid: image, labels)",
    ),
    "source in inputs": (
        ["{name: a, op: calc, inputs: {a: image, b: nope}}"],
        "4:47: steps[0] (a).inputs.b: unknown input or step 'nope' (valid: image, labels)",
    ),
    "bad reference": (
        ["{name: a, op: bank}", "{name: b, op: bank, input: a/b/c}"],
        "5:32: steps[1] (b).input: cannot read the reference 'a/b/c'; write 'a' or 'a/OUTPUT'",
    ),
}


@pytest.mark.parametrize("case", OTHER_STEPS)
def test_message_about_steps(case: str) -> None:
    steps, message = OTHER_STEPS[case]
    assert refusal(with_steps(*steps)) == f"pipeline.yaml:{message}"


STEPS_REMEDY = "add `steps:` and under it `- {name: smooth, op: window, size: 3, statistics: [mean]}`"
SECTION_ERRORS = {
    "output: {path: o}\ninputs: {}": "2:9: inputs: empty; add `inputs: {image: FILE}`",
    "output: {path: o}": "1:1: inputs: missing; add `inputs: {image: FILE}`",
    "output: {path: o}\ninputs: a.tif": "2:9: inputs: must be a mapping such as `{image: FILE}`, got 'a.tif'",
    "inputs: {a: x}": "1:1: output: missing; add `output: {path: result.zarr}`, or give -o PATH",
    "inputs: {a: x}\noutput: {}": "2:9: output.path: missing; add `path: result.zarr`, or give -o PATH",
    "inputs: {a: x}\noutput: o": "2:9: output: must be a mapping such as `{path: result.zarr}`, got 'o'",
    "inputs: {a: x}\noutput: {path: 3}": "2:16: output.path: must be text, got 3; write '3' in quotes",
    "inputs: {a: x}\noutput: {path: o, tiles: d}": "2:19: output: unknown key 'tiles' "
    "(valid: path, storage, keep, chunks, shards, codec, dims, geotiff, polygons, ome_zarr, ome_version, cog, "
    "overviews, pyramid, resampling)",
    "inputs: {a: x}\noutput: {path: o, chunks: 512}": "2:27: output.chunks: must be `auto`, [y, x] or [y, x, band] "
    "in whole pixels, got 512; write [512, 512]",
    "inputs: {a: x}\noutput: {path: o, shards: [1]}": "2:27: output.shards: must be `auto`, `none`, [y, x] or "
    "[y, x, band] in whole pixels, got [1]",
    "inputs: {a: x}\noutput: {path: o, pyramid: 0}": "2:28: output.pyramid: must be at least 1, got 0",
    "inputs: {a: x}\noutput: {path: o, codec: blosc}": "2:26: output.codec: unknown codec 'blosc' "
    "(valid: fast, balanced, small, none)",
    "inputs: {a: x}\noutput: {path: o, keep: [smoth]}": "2:26: output.keep[0]: unknown step 'smoth'; "
    "did you mean 'smooth'? (valid: smooth)",
    "inputs: {a: x}\noutput: {path: o, keep: [a]}": "2:26: output.keep[0]: 'a' is an input, only steps are kept "
    "(valid: smooth)",
    "inputs: {a: x}\noutput: {path: o, keep: [smooth, smooth]}": "2:34: output.keep[1]: 'smooth' is listed twice",
    "inputs: {a: {}}\noutput: {path: o}": "1:13: inputs.a: no source; add `path: FILE`, or `stack: [FILE, FILE]`",
    "inputs: {a: {arrays: [r, g]}}\noutput: {path: o}": "1:13: inputs.a: no source; add `path: FILE`, or "
    "`stack: [FILE, FILE]`",
    "inputs: {a: {path: x, stack: [y]}}\noutput: {path: o}": "1:13: inputs.a: `path` and `stack` are two sources; "
    "give one of them",
    "inputs: {a: {stack: [x, y], arrays: [r, g]}}\noutput: {path: o}": "1:13: inputs.a: `arrays` and `stack` exclude "
    "each other; give one of them",
    "inputs: {a: {path: x, arrays: [r, g], array: r}}\noutput: {path: o}": "1:13: inputs.a: `arrays` and `array` "
    "exclude each other; give one of them",
    "inputs: {a: {path: x, bands: []}}\noutput: {path: o}": "1:30: inputs.a.bands: must have at least 1 entry, got []",
    "inputs: {a: {path: x, dims: 3}}\noutput: {path: o}": "1:29: inputs.a.dims: must be names such as `y,x,band`, "
    "got 3",
    "inputs: {a: {path: x, scale: {factor: .inf}}}\noutput: {path: o}": "1:39: inputs.a.scale.factor: must be finite, "
    "got inf",
    "inputs: {a: 3}\noutput: {path: o}": "1:13: inputs.a: must be a path, or a mapping with `path`, got 3",
    "inputs: {a: {path: x, nodata: yes}}\noutput: {path: o}": "1:31: inputs.a.nodata: must be a number, `none` or "
    "`nan`, got 'yes'",
    "inputs: {a: {path: x, scale: aply}}\noutput: {path: o}": "1:30: inputs.a.scale: unknown scale 'aply'; "
    "did you mean 'apply'? (valid: ignore, apply)",
    "inputs: {a: {path: x, dims: 'y,q'}}\noutput: {path: o}": "1:29: inputs.a.dims: must name y and x once each, "
    "got 'y,q'; for example `y,x,band`",
    "inputs: {a: {path: x, channels: [1]}}\noutput: {path: o}": "1:23: inputs.a: unknown key 'channels'; "
    "here it is called 'bands'",
    "inputs: {1a: x}\noutput: {path: o}": "1:10: inputs: a name begins with a letter and holds letters, digits, "
    "_ and -, got '1a'",
    "inputs: {a: x, b: y}\noutput: {path: o}": "3:9: steps[0] (smooth).input: not given, and there are several "
    "inputs, none called 'image'; choose one of: a, b",
    "inputs: {a: x}\noutput: {path: o}\nregion: {}": "3:9: region: give rows, columns or both, or bbox",
    "inputs: {a: x}\noutput: {path: o}\nregion: {rows: [5, 2]}": "3:9: region: rows must be [first, end] with "
    "first < end, got [5, 2]",
    "inputs: {a: x}\noutput: {path: o}\nregion: {bbox: [0, 5, 1, 2]}": "3:9: region: bbox must be "
    "[xmin, ymin, xmax, ymax], the smaller first, got [0.0, 5.0, 1.0, 2.0]",
    "inputs: {a: x}\noutput: {path: o}\nrun: {memory: 2 gigs}": "3:15: run.memory: must be a size such as `2 GiB`, "
    "`512 MiB` or `1.5GB`, got '2 gigs'",
    "inputs: {a: x}\noutput: {path: o}\nrun: {memory: 2}": "3:15: run.memory: must be at least 1 MiB, got 2 bytes; "
    "give a unit: `2 GiB`",
    "inputs: {a: x}\noutput: {path: o}\nrun: {scheduler: ucx://h:1}": "3:18: run.scheduler: unknown scheduler "
    "'ucx://h:1' (valid: threads, tcp://HOST:PORT, tls://HOST:PORT)",
    "inputs: {a: x}\noutput: {path: o}\nrun: {scheduler: tcp://h}": "3:18: run.scheduler: must name a host and a "
    "port, as in tcp://127.0.0.1:8786, got 'tcp://h'",
    "inputs: {a: x}\noutput: {path: o}\nrun: {scheduler: 3}": "3:18: run.scheduler: must be `threads`, an address or "
    "{module, class, ...}, got 3",
    "inputs: {a: x}\noutput: {path: o}\nrun: {scheduler: {module: m, clas: C}}": "3:30: run.scheduler: unknown key "
    "'clas'; did you mean 'class'?",
    "inputs: {a: x}\noutput: {path: o}\nrun: {scheduler: {module: m, class: C, scale: 1, adapt: {}}}": "3:18: "
    "run.scheduler: give scale (a fixed number of workers) or adapt (as the work demands), not both",
    "inputs: {a: x}\noutput: {path: o}\nrun: {workers: 0}": "3:16: run.workers: must be at least 1, got 0",
    "inputs: {a: x}\noutput: {path: o}\nstpes: 3": "3:1: unknown key 'stpes'; did you mean 'steps'?",
    "version: 2\nfoo: 3": "1:10: version: the file is of version 2, this rasterpipe reads up to 1; upgrade rasterpipe",
    "version: true\nfoo: 3": "1:10: version: must be 1, got true",
}


@pytest.mark.parametrize(("head", "message"), SECTION_ERRORS.items())
def test_message_about_a_section(head: str, message: str) -> None:
    assert refusal(smooth(head)) == f"pipeline.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inputs: {a: x}\noutput: {path: o}\n", f"1:1: steps: missing; {STEPS_REMEDY}"),
        ("inputs: {a: x}\noutput: {path: o}\nsteps: []\n", f"3:8: steps: empty; {STEPS_REMEDY}"),
        ("inputs: {a: x}\noutput: {path: o}\nstep: []\n", "3:1: unknown key 'step'; did you mean 'steps'?"),
        (
            "inputs: {a: x}\noutput: {path: o}\nsteps: {smooth: {op: window}}\n",
            "3:8: steps: must be a list of steps such as "
            "`- {name: smooth, op: window, size: 3, statistics: [mean]}`, got a mapping",
        ),
    ],
)
def test_message_about_missing_steps(text: str, message: str) -> None:
    assert refusal(text) == f"pipeline.yaml:{message}"


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    text = with_steps("{name: a, op: window, size: 4}", "{name: a, op: focal}") + "run: {workers: 0}\nfoo: 1\n"
    assert refusal(text).splitlines() == [
        "pipeline.yaml:4:33: steps[0] (a).size: must be odd, got 4; try 3 or 5",
        "pipeline.yaml:5:12: steps[1] (a).name: the name 'a' is taken by steps[0].name at pipeline.yaml:4:12; "
        "names are unique over inputs and steps",
        "pipeline.yaml:5:19: steps[1] (a).op: unknown operation 'focal'; here it is called 'window'",
        "pipeline.yaml:6:16: run.workers: must be at least 1, got 0",
        "pipeline.yaml:7:1: unknown key 'foo' (valid: version, inputs, region, steps, output, run)",
    ]


def test_at_most_20_problems_are_told() -> None:
    lines = refusal(with_steps(*(f"{{name: s{i}, op: window, size: 4}}" for i in range(30)))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 10 more"


def test_problems_are_data_too() -> None:
    with pytest.raises(InvalidPipeline) as caught:
        check(in_window("size: 4"))
    (problem,) = caught.value.problems
    assert problem.path == ("steps", 0, "size")
    assert caught.value.exit_code == 3


def test_a_later_error_is_located() -> None:
    document = parse(in_window("size: 3"))
    error = PipelineError("exceeds the raster", ("steps", 0, "size"))
    assert locate(document, error) == "pipeline.yaml:4:38: steps[0] (smooth).size: exceeds the raster"
    error = PipelineError("does not fit", ("steps", 0, "boundary"))  # a default: the file does not say it
    assert locate(document, error) == "pipeline.yaml:4:5: steps[0] (smooth).boundary: does not fit"
    assert locate(document, RasterpipeError("elsewhere")) == "elsewhere"


# ---------------------------------------------------------------------------------------------------- YAML

YAML_ERRORS = {
    "": "pipeline.yaml: the file is empty; `rasterpipe schema` shows what belongs in it",
    "# only a comment\n": "pipeline.yaml: the file is empty; `rasterpipe schema` shows what belongs in it",
    "---\n": "pipeline.yaml: the file is empty; `rasterpipe schema` shows what belongs in it",
    "- 3": "pipeline.yaml:1:1: a pipeline file is a mapping: inputs, steps, output, run",
    "a: 1\nb: 2\na: 3\n": "pipeline.yaml:3:1: the key 'a' is given twice; first at pipeline.yaml:1:1",
    "a: !!python/object:os.system x": "pipeline.yaml:1:4: the tag !!python/object:os.system is not allowed; "
    "a pipeline file holds plain values only",
    "a: !Window {size: 3}": "pipeline.yaml:1:4: the tag !Window is not allowed; "
    "a pipeline file holds plain values only",
    "a: !!int x": "pipeline.yaml:1:4: a: 'x' is no !!int",
    "a: 1\n---\nb: 2": "pipeline.yaml:2:1: a second document begins here; a pipeline file holds one",
    "a: &a [1, *a]": "pipeline.yaml:1:11: the alias *a stands inside its own anchor",
    "a: &size 3\nb: *sise": "pipeline.yaml:2:4: unknown anchor 'sise'; did you mean 'size'? (valid: size)",
    "a: {<<: 3}": "pipeline.yaml:1:9: `<<` takes a mapping or a list of mappings",
    "? [a]\n: 1": "pipeline.yaml:1:3: a key must be a word, not a list or mapping",
    "a: \x01": "pipeline.yaml:1:4: the character '\\x01' is not allowed in YAML",
    "a: " + "[" * 60: "pipeline.yaml:1:53: nested deeper than 50 levels",
    "a: " + "9" * 5000: "pipeline.yaml:1:4: a: the number is too large: an integer has 64 bits at most",
    "x: &x " + "{k: " * 30 + "1" + "}" * 30 + "\ny: " + "{k: " * 30 + "*x" + "}" * 30: "pipeline.yaml:1:87: y.k: "
    "nested deeper than 50 levels, aliases expanded",
    "a: ${NO_SUCH_VAR}": "pipeline.yaml:1:4: a: the environment variable 'NO_SUCH_VAR' is not set; "
    "set it, or write ${NO_SUCH_VAR:-default}",
    "a: ${1}": "pipeline.yaml:1:4: a: cannot read `${1}`; write ${NAME} or ${NAME:-default}, and $$ for $",
}


@pytest.mark.parametrize(("text", "message"), YAML_ERRORS.items(), ids=range(len(YAML_ERRORS)))
def test_message_about_yaml(text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_syntax_error_has_its_place() -> None:
    assert refusal("inputs:\n  image: a: b\n").startswith("pipeline.yaml:2:11: not YAML: ")
    assert '; inside { } and [ ] a variable needs quotes: "${NAME}"' in refusal("inputs: {image: ${DATA}/a.tif}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("0x1F", 31),
        ("010", "010"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-05-01", "2024-05-01"),
        ("-.inf", float("-inf")),
        ("B05", "B05"),
        ("2 GiB", "2 GiB"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!float 5", 5),
        ("|\n  5", "5"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    data = parse(f"a: {text}").data["a"]
    assert data == value
    assert type(data) is type(value)


def test_not_a_number() -> None:
    assert check(smooth("inputs: {a: {path: x, nodata: .nan}}\noutput: {path: o}")).inputs["a"].nodata == "nan"


def test_positions_of_values_and_keys() -> None:
    document = parse("inputs:\n  image: {path: a.tif}\nsteps:\n  - name: s\n    op: window\n    size: [3,\n      5]\n")
    assert document.positions[()] == (1, 1)
    assert document.positions["inputs", "image"] == (2, 10)
    assert document.positions["inputs", "image", "path"] == (2, 17)
    assert document.positions["steps", 0] == (4, 5)
    assert document.positions["steps", 0, "size", 1] == (7, 7)
    assert document.key_positions["steps", 0, "size"] == (6, 5)


def test_anchors_and_merge_keys() -> None:
    pipeline = check(
        with_steps(
            "&first {name: a, op: window, size: &size [3, 5], boundary: nearest}",
            "{<<: *first, name: b, min_valid: 2}",
            "{name: c, op: window, size: *size}",
        )
    )
    first, second, third = pipeline.steps
    assert second == first.model_copy(update={"name": "b", "min_valid": 2})
    assert third.size == (3, 5)  # type: ignore[attr-defined]


def test_the_first_of_several_merged_mappings_wins() -> None:
    data = parse("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\nd: {'<<': 1}").data
    assert data["c"] == {"x": 1, "y": 1, "z": 3}
    assert data["d"] == {"<<": 1}


def test_a_merged_fault_is_told_where_it_is_written() -> None:
    text = with_steps("&a {name: a, op: window, size: 3}", "{<<: *a, name: b, boundary: &b nearst}")
    assert refusal(text).startswith("pipeline.yaml:5:33: steps[1] (b).boundary: unknown boundary 'nearst'")
    text = with_steps("{name: a, op: window, size: &s 4}", "{name: b, op: window, size: *s}")
    assert refusal(text).splitlines() == [
        "pipeline.yaml:4:33: steps[0] (a).size: must be odd, got 4; try 3 or 5",
        "pipeline.yaml:4:33: steps[1] (b).size: must be odd, got 4; try 3 or 5",
    ]


def laughs(line: str, num_levels: int = 20) -> str:
    levels = (f"l{i}: &l{i} {line.replace('@', f'*l{i - 1}')}" for i in range(1, num_levels))
    return "\n".join(["l0: &l0 {a: lol}", *levels])


FLOODS = {
    "lists": laughs("[" + ", ".join(["@"] * 10) + "]"),
    "merges": laughs("{<<: [" + ", ".join(["@"] * 10) + "], b: 1}", 20_000),
    "nested merges": "x:\n  <<: [{k: [&l0 {}, " + ", ".join(f"&l{i} {{<<: *l{i - 1}}}" for i in range(1, 20_000))
    + "]}, *l19999]",
    "flat": "a: [" + "1," * 400_000 + "]",
    "large": "a: " + "x" * (1 << 20),
    "variables": "a: [" + '"${PADDING}",' * 20_000 + "]",
}  # fmt: skip


@pytest.mark.parametrize("case", FLOODS)
def test_floods_are_refused_fast(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDING", "x" * 10_000)
    started = time.perf_counter()
    with pytest.raises(PipelineError, match=r"30,000 values|1,048,576|50 levels"):
        parse(FLOODS[case])
    assert time.perf_counter() - started < 5


def test_a_long_list_of_faults_is_told_fast() -> None:
    started = time.perf_counter()
    message = refusal(smooth(f"output: {{path: o}}\ninputs: {{a: {{stack: [{'1, ' * 20_000}]}}}}"))
    assert message.endswith("... and 19980 more")
    assert time.perf_counter() - started < 5


# ---------------------------------------------------------------------------------------------------- variables


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", "/data")
    monkeypatch.setenv("SIDE", "5")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("EVIL", "{a: [1, !!python/object:os.system x]}")
    data = parse(
        "a: ${ROOT}/scene.zarr\nb: ${SIDE}\nc: '${SIDE}'\nd: ${NOPE:-7}\ne: ${EMPTY:-x}\nf: ${EMPTY}\n"
        "g: cost $5 or $$5 or $${SIDE}\nh: ${EVIL}\ni: a${SIDE}\nj: !!str ${SIDE}\nk: ${NOPE:-}"
    ).data
    assert data == {
        "a": "/data/scene.zarr",
        "b": 5,
        "c": "5",
        "d": 7,
        "e": "x",
        "f": None,
        "g": "cost $5 or $5 or ${SIDE}",
        "h": "{a: [1, !!python/object:os.system x]}",
        "i": "a5",
        "j": "5",
        "k": None,
    }


def test_variables_are_read_in_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has its own way to them, and on the command line the shell has been there before."""
    monkeypatch.setenv("ROOT", "/data")
    texts = ["${ROOT}/x", "a$$b", "${", "${NOPE}"]
    assert Document.from_data({"a": texts}).data == {"a": texts}
    document = parse("a: ${ROOT}")
    for text in texts:
        document.set(f"a='{text}'")
        assert document.data == {"a": text}


# ---------------------------------------------------------------------------------------------------- overrides


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline file in `<tmp>/configs`; the working directory is `<tmp>/here`."""
    for folder in ("configs", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "configs" / "demo.yaml"
    path.write_text(
        "inputs:\n"
        "  image: ../data/scene.zarr\n"
        "  labels: {path: s3://bucket/segments.tif, nodata: 0, match: bands}\n"
        "  bands: {stack: [b2.tif, ~/b3.tif]}\n"
        "steps:\n"
        "  - {name: smooth, op: window, size: 3}\n"
        "  - {name: texture, op: bank, mask: labels}\n"
        "output: {path: ../results/demo.zarr, keep: [smooth, texture]}\n"
        "run: {scratch: tmp}\n"
    )
    return path


def load_demo(path: Path, *overrides: str, **options: Any) -> Pipeline:
    return load_pipeline(path, overrides, registry=OPERATIONS, **options)[0]


def test_paths_begin_at_the_file(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    pipeline = load_demo(demo)
    assert pipeline.inputs["image"].paths == (f"{tmp_path}/data/scene.zarr",)
    assert pipeline.inputs["labels"].paths == ("s3://bucket/segments.tif",)
    assert pipeline.inputs["bands"].paths == (f"{tmp_path}/configs/b2.tif", "/home/ada/b3.tif")
    assert pipeline.output.path == f"{tmp_path}/results/demo.zarr"
    assert pipeline.run.scratch == f"{tmp_path}/configs/tmp"


def test_overrides(demo: Path, tmp_path: Path) -> None:
    pipeline = load_demo(
        demo,
        "steps.smooth.size=[5, 7]",
        "steps.1.window=3",
        "steps[1].orientations=[0, 45]",
        "run.memory=2 GiB",
        "region.rows=[0, 100]",
        "inputs.image.nodata=none",
        "output.path=other.zarr",
        "output.keep.1=texture/response",
        "inputs.bands.stack.0=B02.tif",
    )
    assert pipeline.steps[0].size == (5, 7)  # type: ignore[attr-defined]
    assert pipeline.steps[1].window == 3  # type: ignore[attr-defined]
    assert pipeline.steps[1].orientations == (0, 45)  # type: ignore[attr-defined]
    assert pipeline.run.memory == 2 << 30
    assert pipeline.region is not None
    assert pipeline.region.rows == (0, 100)
    assert pipeline.inputs["image"].nodata == "none"
    assert pipeline.inputs["image"].path == f"{tmp_path}/data/scene.zarr"  # still the file's own
    assert pipeline.output.path == f"{tmp_path}/here/other.zarr"
    assert pipeline.output.keep == ("smooth", "texture/response")
    assert pipeline.inputs["bands"].paths[0] == f"{tmp_path}/here/B02.tif"


def test_inputs_and_output_replaced(demo: Path, tmp_path: Path) -> None:
    inputs = {"image": "new.tif", "labels": "$x.tif", "bands": "stacked.tif", "more": "/abs/more.tif"}
    pipeline = load_demo(demo, "steps.texture.input=more", inputs=inputs, output="out.zarr")
    assert pipeline.inputs["image"].path == f"{tmp_path}/here/new.tif"
    assert pipeline.inputs["labels"].path == f"{tmp_path}/here/$x.tif"
    assert pipeline.inputs["labels"].nodata == 0  # what else the file says of the input stays
    assert pipeline.inputs["bands"].stack is None
    assert pipeline.inputs["more"].path == "/abs/more.tif"
    assert pipeline.output.path == f"{tmp_path}/here/out.zarr"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps.smooth", "must read KEY=VALUE, for example --set steps.smooth.size=5"),
        ("=3", "must read KEY=VALUE, for example --set steps.smooth.size=5"),
        ("steps..size=3", "must read KEY=VALUE, for example --set steps.smooth.size=5"),
        ("steps.smoth.size=3", "unknown step 'smoth'; did you mean 'smooth'? (valid: smooth, texture)"),
        ("steps.7.size=3", "unknown step '7' (valid: smooth, texture)"),
        ("output.keep.5=smooth", "unknown entry of output.keep '5' (valid: smooth, texture)"),
        ("output.path.x=3", "output.path is a single value and has no 'x'"),
    ],
)
def test_overrides_that_lead_nowhere(demo: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_demo(demo, override)
    assert str(caught.value) == f"--set {override}: {message}"


def test_an_overridden_path_with_a_second_setting_begins_where_we_work(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pipeline, document = load_pipeline(demo, ["inputs.image=mine.tif", "inputs.image.nodata=0"], registry=OPERATIONS)
    source = pipeline.inputs["image"]
    assert (source.path, source.nodata) == (str(tmp_path / "elsewhere" / "mine.tif"), 0)
    assert document.origin(("inputs", "image", "path")) == "--set inputs.image=mine.tif"


def test_an_override_that_is_no_yaml(demo: Path) -> None:
    with pytest.raises(UsageError, match=r"^--set run\.workers=\[1: value:\d:\d: not YAML: .* \(the value is"):
        load_demo(demo, "run.workers=[1")


def test_a_wrong_override_is_named(demo: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load_demo(demo, "steps.smooth.size=4", "steps.smooth.sise=3")
    assert str(caught.value).splitlines() == [
        "--set steps.smooth.size=4: steps[0] (smooth).size: must be odd, got 4; try 3 or 5",
        "--set steps.smooth.sise=3: steps[0] (smooth): unknown key 'sise'; did you mean 'size'?",
    ]


def test_no_steps_are_added() -> None:
    with pytest.raises(UsageError, match="there are no steps yet"):
        load_pipeline({"inputs": {"a": "x"}}, ["steps.smooth.size=3"], registry=OPERATIONS)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"nope\.yaml: cannot read the pipeline file: no such file or directory$"):
        load_pipeline(tmp_path / "nope.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(PipelineError, match=r"latin\.yaml:2:4: the file is not UTF-8 text; save it as UTF-8$"):
        load_pipeline(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(PipelineError, match=r"large\.yaml: larger than 1,048,576 bytes"):
        load_pipeline(tmp_path / "large.yaml")


def test_what_is_no_pipeline() -> None:
    with pytest.raises(UsageError, match="a pipeline is a path or a mapping, got list"):
        load_pipeline([{"op": "window"}])  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match=r"cannot read the pipeline file: embedded null byte"):
        load_pipeline("a\0b.yaml")
    with pytest.raises(PipelineError, match=r"inputs: keys must be text, got 3"):
        load_pipeline({"inputs": {3: "a.tif"}})


def test_left_out_and_null_mean_the_default() -> None:
    plain = check(smooth("inputs: {a: x}\noutput: {path: o}"))
    assert check(smooth("inputs: {a: {path: x, dims: ~}}\noutput: {path: o}\nrun: {memory: null}")) == plain


@pytest.mark.parametrize(
    ("text", "num_bytes"), [("2 GiB", 2 << 30), ("1.5GB", 1_500_000_000), ("512mib", 512 << 20), ("3e6", 3_000_000)]
)
def test_sizes_in_bytes(text: str, num_bytes: int) -> None:
    assert check(smooth(f"inputs: {{a: x}}\noutput: {{path: o}}\nrun: {{memory: {text}}}")).run.memory == num_bytes


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_text(in_window("size: 3"), encoding="utf-8-sig")
    assert len(load_demo(path).steps) == 1


# ---------------------------------------------------------------------------------------------------- references


def references(*steps: str, inputs: str = "{image: {path: a, match: labels}, labels: b}") -> dict[tuple[int, str], str]:
    text = f"inputs: {inputs}\noutput: {{path: o}}\nsteps:\n" + "".join(f"  - {step}\n" for step in steps)
    return {key: str(reference) for key, reference in resolve(check(text)).items()}


def test_default_inputs() -> None:
    bank = "{name: a, op: bank}"
    assert references(bank) == {(0, "input"): "image"}
    assert references(bank, inputs="{only: x}") == {(0, "input"): "only"}
    assert references(bank, "{name: b, op: bank, mask: labels}", "{name: c, op: bank, input: a/response}") == {
        (0, "input"): "image",
        (1, "input"): "a",
        (1, "mask"): "labels",
        (2, "input"): "a/response",
    }
    assert references(bank, "{name: b, op: calc, inputs: {p: a, q: image}}")[1, "q"] == "image"


def test_kept_steps() -> None:
    steps = ["{name: a, op: bank}", "{name: b, op: bank}", "{name: c, op: bank, input: a}"]
    assert kept(check(with_steps(*steps))) == (Ref("b"), Ref("c"))
    text = with_steps(*steps).replace("out.zarr", "out.zarr, keep: [a/mean, c]")
    assert kept(check(text)) == (Ref("a", "mean"), Ref("c"))


def test_resolve_raises_the_first_problem() -> None:
    pipeline = check(in_window("size: 3"))
    step = pipeline.steps[0].model_copy(update={"input": "nope"})
    with pytest.raises(PipelineError, match="unknown input or step 'nope'") as caught:
        resolve(pipeline.model_copy(update={"steps": (step,)}))
    assert caught.value.path == ("steps", 0, "input")


def test_an_input_that_no_step_reads_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = "inputs:\n  image: a.tif\n  labels: b.tif\nsteps:\n  - {name: t, op: bank, mask: labels}\n"
    path.write_text(text + "output: {path: o}\n")

    def told(*overrides: str, **inputs: str) -> str:
        with pytest.raises(PipelineError) as caught:
            load_demo(path, *overrides, inputs=inputs)
        return str(caught.value)

    rest = "(read are: image, labels); correct the name, or remove it"
    nearest = f"inputs: no step reads 'imag'; did you mean 'image'? {rest}"
    assert told(imag="c.tif") == f"--input imag=c.tif: {nearest}"
    assert told("inputs.imag=c.tif") == f"--set inputs.imag=c.tif: {nearest}"
    assert told("inputs.imag.path=c.tif") == f"--set inputs.imag.path=c.tif: {nearest}"
    assert told(IMAGE="c.tif") == f"--input IMAGE=c.tif: inputs: no step reads 'IMAGE'; did you mean 'image'? {rest}"
    assert told(qq="c.tif") == f"--input qq=c.tif: inputs: no step reads 'qq' {rest}"
    # one that would come into being by the setting of something else
    unknown = "inputs: unknown input 'imag'; did you mean 'image'? (valid: image, labels)"
    assert told("inputs.imag.nodata=0").splitlines()[0] == f"--set inputs.imag.nodata=0: {unknown}"
    path.write_text(
        text.replace("b.tif", "b.tif\n  lables: {path: c.tif, match: spare}\n  spare: d.tif") + "output: {path: o}\n"
    )
    assert told() == (
        f"{path}:4:3: inputs: no step reads 'lables'; did you mean 'labels'? {rest}\n"
        f"{path}:5:3: inputs: no step reads 'spare' {rest}"
    )


def test_an_input_that_another_has_to_match_is_read() -> None:
    pipeline = check(smooth("inputs: {image: {path: a, match: grid}, grid: b}\noutput: {path: o}"))
    assert list(pipeline.inputs) == ["image", "grid"]


# ---------------------------------------------------------------------------------------------------- round trip


FULL = """\
version: 1
inputs:
  image: {path: s3://b/scene.zarr, arrays: [b02, b03], at: {time: 0, "z": 1.5}, dims: "time, y, x", bands: [1, b03]}
  labels: {stack: [a.tif, b.tif], nodata: .nan, scale: {factor: 2e-4}}
region: {rows: [0, 2000], columns: [500, 2500]}
steps:
  - {name: smooth, op: window, size: 3, statistics: [mean, var], nodata: -.inf}
  - {name: texture, op: bank, mask: labels, sigma: {along: 1, across: 2}, dtype: float32}
  - {name: ratio, op: calc, inputs: {a: smooth/mean, b: texture}}
output: {path: out $$ 5.zarr, keep: [ratio], chunks: [512, 512], shards: none, codec: none, dims: "band, y, x"}
run: {memory: 1.5 GB, workers: 2, halo: read}
"""


@pytest.mark.parametrize("text", [FULL, smooth("inputs: {a: x}\noutput: {path: o}")])
def test_round_trip(text: str) -> None:
    pipeline = check(text)
    data = json.loads(json.dumps(pipeline.to_dict(), allow_nan=False))
    again, _ = load_pipeline(data, registry=OPERATIONS)
    assert again == pipeline
    assert again.to_dict() == data
    assert hash(pipeline.output) == hash(again.output)


def test_normalised() -> None:
    pipeline = check(FULL)
    assert pipeline.output.path.endswith("/out $ 5.zarr")
    assert pipeline.output.dims == "band,y,x"
    assert pipeline.inputs["image"].dim_names == ("time", "y", "x")
    assert pipeline.run.memory == 1_500_000_000
    assert pipeline.to_dict()["steps"][1] == {
        "op": "bank",
        "name": "texture",
        "mask": "labels",
        "dtype": "float32",
        "allow_inexact": False,
        "orientations": [0.0],
        "sigma": {"along": 1.0, "across": 2.0},
    }


def test_python_values() -> None:
    import numpy as np

    data = {
        "inputs": {"image": Path("a.tif")},
        "steps": ({"name": "s", "op": "window", "size": (np.int64(3), 5), "bands": np.array([1, 2])},),
        "output": {"path": "o"},
    }
    pipeline, _ = load_pipeline(data, registry=OPERATIONS)
    assert pipeline.steps[0].size == (3, 5)  # type: ignore[attr-defined]
    assert pipeline.steps[0].bands == (1, 2)
    assert data["steps"][0]["size"][0] == 3  # type: ignore[index]
    with pytest.raises(PipelineError) as caught:
        load_pipeline({**data, "steps": [{"name": "s", "op": "window", "size": 4}]}, registry=OPERATIONS)
    assert str(caught.value) == "steps[0] (s).size: must be odd, got 4; try 3 or 5"
    with pytest.raises(PipelineError, match=r"^output\.path: a set cannot stand in a pipeline; use plain values$"):
        load_pipeline({"output": {"path": {1}}}, registry=OPERATIONS)
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(PipelineError, match="nested deeper than 50 levels"):
        load_pipeline(loop)


def test_models_are_frozen() -> None:
    pipeline = check(in_window("size: 3"))
    with pytest.raises(ValueError, match="frozen"):
        pipeline.output.path = "other"


# ---------------------------------------------------------------------------------------------------- schema


def walk(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in walk(value))]
    return [found for value in node for found in walk(value)] if isinstance(node, list) else []


def test_schema() -> None:
    whole = json.loads(json.dumps(schema(OPERATIONS)))
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(whole["required"]) == {"inputs", "steps", "output"}
    assert whole["additionalProperties"] is False
    items = whole["properties"]["steps"]["items"]
    assert items["properties"]["op"]["enum"] == ["window", "bank", "calc"]
    assert items["discriminator"]["mapping"]["bank"] in [option["$ref"] for option in items["oneOf"]]
    references = [node["$ref"] for node in walk(whole) if isinstance(node.get("$ref"), str)]
    assert {reference.removeprefix("#/$defs/") for reference in references} == set(whole["$defs"])
    window = whole["$defs"]["Window"]
    assert window["required"] == ["name", "op", "size"]
    assert window["properties"]["op"]["const"] == "window"
    assert all("description" in field for field in whole["$defs"]["Run"]["properties"].values())
    inputs = whole["properties"]["inputs"]["additionalProperties"]
    assert {"type": "string"} in inputs["anyOf"]


def test_schema_without_operations() -> None:
    assert schema({})["properties"]["steps"]["items"]["oneOf"] == []


# ---------------------------------------------------------------------------------------------------- fuzz

FAST = settings(max_examples=draws(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
TOKENS = """
inputs steps output run region path keep name op window bank calc size sigma along mask memory chunks dims bbox rows
stack arrays at scale nodata version image a b x a/mean auto none nan true ~ 0 1 3 -1 1e-3 .nan .inf 2GiB
${HOME} ${Q:-3} $$ << *a &a !!str !t 'q' "w" | > - ? : , [ ] { } # --- ...
"""
WORDS = st.sampled_from(TOKENS.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)


def attempt(source: Any) -> None:
    """Only a pipeline, or a refusal in words, may come out."""
    try:
        document = parse(source) if isinstance(source, str) else Document.from_data(source)
        pipeline = validate(document, OPERATIONS)
    except PipelineError:
        return
    assert load_pipeline(pipeline.to_dict(), registry=OPERATIONS)[0].to_dict() == pipeline.to_dict()


@FAST
@given(st.text(max_size=60))
def test_fuzz_text(text: str) -> None:
    attempt(text)


@FAST
@given(st.lists(st.tuples(WORDS, st.sampled_from(["", " ", ": ", "\n", "\n  ", "\n  - "])), max_size=40))
def test_fuzz_yaml(words: list[tuple[str, str]]) -> None:
    attempt("".join(word + space for word, space in words))


@FAST
@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_fuzz_data(data: dict[str, Any]) -> None:
    attempt(data)


@FAST
@given(st.data())
def test_fuzz_one_value(data: st.DataObject) -> None:
    """A good pipeline with one value replaced by anything."""
    document = parse(FULL)
    path = data.draw(st.sampled_from(sorted((path for path in document.positions if path), key=str)))
    holder: Any = document.data
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = data.draw(TREES)
    attempt(document.data)


@FAST
@given(st.lists(WORDS | st.text(max_size=5), max_size=5), st.text(max_size=10) | WORDS)
def test_fuzz_overrides(keys: list[str], value: str) -> None:
    document = parse(FULL)
    with suppress(PipelineError, UsageError):
        document.set(".".join(keys) + "=" + value)
        validate(document, OPERATIONS)


def test_names_of_steps_that_differ_in_capitals() -> None:
    """A group of both lacks one of them in xarray (zarr-python#4226), and some file systems hold one of them."""
    text = (
        "inputs: {NDVI: a.zarr}\n"  # an input is no group
        "steps:\n"
        "- {name: ndvi, op: window, size: 3}\n"
        "- {name: Ndvi, op: window, size: 3}\n"
        "output: {path: o.zarr}\n"
    )
    message = refusal(text)
    assert "steps[1] (Ndvi).name: the name 'Ndvi' differs from that of the step 'ndvi' in capitals alone" in message
    assert message.count("\n") == 0


@pytest.mark.parametrize("key", ["path", "geotiff"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "x.png",
            r"\.png is a picture, and results are Zarr stores or GeoTIFFs; write a \.zarr or \.tif",
        ),
        ("x.zarr.ZIP", r"\.zip is an archive"),
        ("a/b.nc", r"\.nc is NetCDF or HDF"),
        ("b.jp2", r"\.jp2 is another raster format"),
        ("b.csv", r"\.csv is a table, .*`table: FILE\.csv`"),
    ],
)
def test_outputs_that_promise_another_format(key: str, name: str, words: str) -> None:
    path = "" if key == "path" else "path: o.zarr, "
    message = refusal(smooth(f"inputs: {{a: a.zarr}}\noutput: {{{path}{key}: {name}}}"))
    assert re.search(rf"output\.{key}: {words}", message)


@pytest.mark.parametrize("name", ["x", "x.zarr", "x.tif", "run.2024-11", "v1.2", "s3://b/x.zarr"])
def test_outputs_of_any_other_name(name: str) -> None:
    path = check(smooth(f"inputs: {{a: a.zarr}}\noutput: {{path: '{name}'}}")).output.path
    assert path in (name, os.path.abspath(name))


@pytest.mark.parametrize("text", ['"${N}"', "${N}", "[3, '${N}']"])
def test_numbers_of_variables(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside { } and [ ] a variable needs quotes; in single ones it is text."""
    monkeypatch.setenv("N", "5")
    head = "inputs: {a: a.zarr}\noutput: {path: o.zarr}\n"
    if "'" in text:
        assert "got '5'" in refusal(f"{head}steps: [{{name: smooth, op: window, size: {text}}}]\n")
        return
    block = check(f"{head}steps:\n- name: smooth\n  op: window\n  size: {text}\n")
    assert block.steps[0].size == (5, 5)  # type: ignore[attr-defined]
    if '"' in text:
        flow = check(f"{head}steps: [{{name: smooth, op: window, size: {text}}}]\n")
        assert flow.steps == block.steps


@pytest.mark.parametrize("name", ["otsu", "mean", "abcd"])
def test_a_hint_resembles(name: str) -> None:
    """No hint is better than one that nobody means."""
    assert "did you mean" not in unknown("function", name, ["tan", "cos", "sin", "sqrt", "window"])
    assert "did you mean 'window'" in unknown("operation", "windwo", ["tan", "window"])
