"""The language of `calc` and `mask`: what it means, what it refuses, and that bits depend on nothing but operands."""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.kernels.expression import TILE_ELEMENTS, evaluate
from pipeline.operations.expression import grammar
from pipeline.operations.expression.names import Scope, Source
from pipeline.operations.expression.program import compile_expression

X = np.array([-np.inf, -7.5, -2.0, -1.0, -0.0, 0.25, 0.5, 1.0, 2.5, 3.0, 50.0, np.inf, np.nan])


def scope(**sources: tuple[str, ...]) -> Scope:
    """Return a scope of float64 rasters with these bands; one raster's bands are names by themselves."""
    plain = next(iter(sources)) if len(sources) == 1 else None
    dtype = np.dtype(np.float64)
    return Scope(tuple((key, Source(bands, dtype, True)) for key, bands in sources.items()), plain)


def compute(text: str, **values: np.ndarray) -> np.ndarray:
    """Return what an expression gives for rasters of one band and one row."""
    compiled = compile_expression(text, scope(**dict.fromkeys(values, ("b1",))))
    layers = [(values[leaf.key].reshape(1, 1, -1), None) for leaf in compiled.leaves]
    width = next(iter(values.values())).size
    out = np.empty(width, compiled.program.dtype)
    for _, _, columns, result in evaluate(compiled.program, layers, (1, 1, width)):
        out[columns] = result[0]
    return out


def _first_valid() -> np.ndarray:
    log, inverse = np.where(X > 0, np.log(X), np.nan), np.where(X == 0, np.nan, 1 / X)
    return np.where(~np.isnan(log), log, np.where(~np.isnan(inverse), inverse, -1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x + 1.5", lambda: X + 1.5),
        ("2 - x * 3", lambda: 2 - X * 3),
        ("-x", lambda: -X),
        ("+x", lambda: X),
        ("x / 4", lambda: X / 4),
        ("x // 2", lambda: np.where(np.isinf(X), np.nan, X // 2)),
        ("x % 2", lambda: X % 2),
        ("x ** 2", lambda: X**2),
        ("2 ** x", lambda: 2**X),
        ("-x ** 2", lambda: -(X**2)),
        ("1 / x", lambda: np.where(X == 0, np.nan, 1 / X)),
        ("x / x", lambda: X / X),
        ("x // 0", lambda: X * np.nan),
        ("x % 0", lambda: X * np.nan),
        ("x ** -1", lambda: np.where(X == 0, np.nan, X**-1)),
        ("x ** 0", lambda: np.where(np.isnan(X), np.nan, 1)),
        ("1 ** x", lambda: np.where(np.isnan(X), np.nan, 1)),
        ("x ** 0.5", lambda: X**0.5),
        ("sqrt(x)", lambda: np.sqrt(X)),
        ("exp(x)", lambda: np.exp(X)),
        ("log(x)", lambda: np.where(X == 0, np.nan, np.log(X))),
        ("log10(x)", lambda: np.where(X == 0, np.nan, np.log10(X))),
        ("log2(x)", lambda: np.where(X == 0, np.nan, np.log2(X))),
        ("sin(x) + cos(x) * tan(x)", lambda: np.sin(X) + np.cos(X) * np.tan(X)),
        ("arcsin(x) + arccos(x) + arctan(x)", lambda: np.arcsin(X) + np.arccos(X) + np.arctan(X)),
        ("arctan2(x, 2)", lambda: np.arctan2(X, 2)),
        ("abs(x)", lambda: np.abs(X)),
        ("floor(x) + ceil(x)", lambda: np.floor(X) + np.ceil(X)),
        ("round(x)", lambda: np.rint(X)),
        ("min(x, 1, 2) + max(3, x)", lambda: np.minimum(X, 1) + np.maximum(X, 3)),
        ("mean(x, 1, 2)", lambda: (X + 1 + 2) / 3),
        ("mean(x) + median(x)", lambda: X + X),
        ("median(x, 1, -1)", lambda: np.where(np.isnan(X), np.nan, np.median([X, np.ones(13), -np.ones(13)], axis=0))),
        ("median(x, 0)", lambda: (X + 0) / 2),
        ("median(4, 1, 3, 2) * x", lambda: 2.5 * X),
        ("coalesce(x, 7)", lambda: np.where(np.isnan(X), 7, X)),
        ("coalesce(x)", lambda: X),
        ("coalesce(log(x), 1 / x, -1)", _first_valid),
        ("clip(x, -1, 2)", lambda: np.clip(X, -1, 2)),
        ("x * pi", lambda: X * np.pi),
        ("1e3 * x - 0x10", lambda: 1e3 * X - 16),
        ("x > 1", lambda: np.where(np.isnan(X), np.nan, X > 1)),
        ("-2 <= x < 1", lambda: np.where(np.isnan(X), np.nan, (X >= -2) & (X < 1))),
        ("x == 1 or x != x + 0", lambda: np.where(np.isnan(X), np.nan, X == 1)),
        ("x > 0 and x < 3", lambda: np.where(np.isnan(X), np.nan, (X > 0) & (X < 3))),
        ("(x > 0) & ~(x >= 3) | (x == -1)", lambda: np.where(np.isnan(X), np.nan, (X > 0) & ~(X >= 3) | (X == -1))),
        ("not x", lambda: np.where(np.isnan(X), np.nan, X == 0)),
        ("x and 3", lambda: np.where(np.isnan(X), np.nan, X != 0)),
        ("(x > 1) * x", lambda: np.where(X > 1, X, X * 0)),
        ("where(x > 1, x, -1)", lambda: np.where(np.isnan(X), np.nan, np.where(X > 1, X, -1))),
        ("where(x, 1, 2)", lambda: np.where(np.isnan(X), np.nan, np.where(X != 0, 1, 2))),
        ("isvalid(x)", lambda: ~np.isnan(X) * 1.0),
        ("where(isvalid(x), x, 9)", lambda: np.where(np.isnan(X), 9, X)),
        ("where(isvalid(x), 5, x)", lambda: np.where(np.isnan(X), np.nan, 5)),
        ("x * (2 ** 3 - 10 / 4)", lambda: X * 5.5),
    ],
)
def test_means_what_numpy_means_and_nodata_where_there_is_no_result(
    text: str, expected: Callable[[], np.ndarray]
) -> None:
    with np.errstate(all="ignore"):
        wanted = np.asarray(expected(), np.float64)
    got = compute(text, x=X)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_array_max_ulp(np.nan_to_num(got), np.nan_to_num(wanted), 1)


@pytest.mark.parametrize("num", range(1, 14))
def test_medians_and_means_of_many(num: int) -> None:
    """As numpy's, of ties and infinities too; one invalid argument makes the result so, wherever it stands."""
    rng = np.random.default_rng(num)
    values = rng.integers(0, 9, (num, 50)).astype(np.float64)
    values[rng.random(values.shape) < 0.1] = np.inf
    values[:, :num][np.eye(num, dtype=bool)] = np.nan
    rasters = {f"r{i}": row for i, row in enumerate(values)}
    listed = ", ".join(rasters)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(compute(f"median({listed})", **rasters), np.median(values, axis=0))
        total = functools.reduce(np.add, values)
        np.testing.assert_array_equal(compute(f"mean({listed})", **rasters), total / num)
    first = functools.reduce(lambda a, b: np.where(np.isnan(a), b, a), values)
    np.testing.assert_array_equal(compute(f"coalesce({listed})", **rasters), first)


def test_what_is_filled_with_a_number_is_valid() -> None:
    """So that an integer dtype needs no nodata; but for an expression whose filling can be invalid."""
    assert not compile_expression("coalesce(x, 0)", scope(x=("b1",))).can_be_invalid
    assert compile_expression("coalesce(x, x + 1)", scope(x=("b1",))).can_be_invalid
    assert compile_expression("median(x, 0)", scope(x=("b1",))).can_be_invalid


def test_overflow_is_infinity() -> None:
    np.testing.assert_array_equal(compute("x * 1e300", x=np.array([1e300, -1e300, 1.0])), [np.inf, -np.inf, 1e300])


def test_several_rasters() -> None:
    a, b = np.array([1.0, 2.0, np.nan]), np.array([4.0, 0.0, 1.0])
    np.testing.assert_array_equal(compute("(a - b.b1) / b", a=a, b=b), [-0.75, np.nan, np.nan])


FUNCTIONS = ("exp", "log", "sin", "cos", "tan", "sqrt", "arcsin", "arctan", "log2", "log10")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "text", [*(f"{name}(x)" for name in FUNCTIONS), "x ** 2", "abs(x) ** 1.7", "arctan2(x, 3) % 1"]
)
def test_bits_depend_on_nothing_but_the_operands(text: str, dtype: type) -> None:
    """The same pixels, alone and among others, at any offset and stride."""
    values = (np.random.default_rng(0).normal(size=TILE_ELEMENTS + 3000) * 3).astype(dtype)
    source = Scope((("x", Source(("b1",), np.dtype(dtype), True)),), "x")
    program = compile_expression(text, source).program

    def run(array: np.ndarray) -> np.ndarray:
        tiles = evaluate(program, [(array[np.newaxis], None)], (1, *array.shape))
        return np.concatenate([result.copy().reshape(-1) for _, _, _, result in tiles])

    bits = np.dtype(f"u{values.itemsize}")
    whole = run(values[np.newaxis])
    for part in (
        slice(0, 1),
        slice(1, 8),
        slice(5, 1031),
        slice(3, None, 7),
        slice(TILE_ELEMENTS - 5, TILE_ELEMENTS + 40),
    ):
        same = run(values[part][np.newaxis]).view(bits) == np.ascontiguousarray(whole[part]).view(bits)
        assert np.all(same | np.isnan(whole[part]))
        np.testing.assert_array_equal(run(values[part][:, np.newaxis]), whole[part])


REFUSED = {
    "lambda: x": "`lambda: x` is not part of expressions",
    "[x for x in y]": "is not part of expressions",
    "{x}": "is not part of expressions",
    "'text'": "`'text'` is not part of expressions",
    "f'{x}'": "is not part of expressions",
    "x.__class__": "`__class__` is not a name of a raster or band",
    "().__class__.__bases__": "is not part of expressions",
    "x.a.b": "`x.a.b` is not part of expressions",
    "__import__('os').system('true')": "`__import__('os').system` cannot be called",
    "__import__('os')": "unknown function '__import__'",
    "open(x)": "unknown function 'open'",
    "np.sqrt(x)": "`np.sqrt` cannot be called; functions are abs, sqrt",
    "x[0]": "a band is written raster.B08 or raster.b2",
    "x ^ 2": "a power is written **",
    "x if y else z": "is written where(c, a, b)",
    "x @ y": "is not part of expressions",
    "x << 2": "is not part of expressions",
    "x is y": "is not part of expressions",
    "x in y": "is not part of expressions",
    "(x := 3)": "is not part of expressions",
    "x, y": "is not part of expressions",
    "True": "is not part of expressions",
    "x + 3j": "`3j` is not part of expressions",
    "x = 3": "cannot read `x = 3` after `x `",
    "x && y": "conditions are joined by `and`, `or`, `not`",
    "x + ": "cannot read `x +`",
    "x; y": "cannot read",
    "x # y": "# begins a comment",
    "x > 1 & y > 2": "`1` beside & is not a condition; write `and`",
    "~x": "`x` beside ~ is not a condition; write `not`",
    "": "the expression is empty",
    "1 + 2": "`1 + 2` names no raster and no band",
    "sqrt(x, y)": "sqrt takes 1 argument, got 2",
    "min(x)": "min takes 2 or more arguments, got 1",
    "mean()": "mean takes 1 or more arguments, got 0",
    "median()": "median takes 1 or more arguments, got 0",
    "coalesce()": "coalesce takes 1 or more arguments, got 0",
    f"median({', '.join(f'b{i}' for i in range(1, 150))})": "more than 2000 parts",
    f"median({', '.join(f'b{i}' for i in range(1, 1500))})": "more than 2000 parts",
    "where(x, y)": "where takes 3 arguments, got 2",
    "clip(x, lo=1, hi=2)": "arguments are given by position",
    "min(*x)": "arguments are given by position",
    "wher(x, y, z)": "unknown function 'wher'; did you mean 'where'?",
    "9 ** 9 ** 9 ** 9 * x": "`9 ** 9 ** 9` is not a finite number",
    "x * 10 ** 400": "`10 ** 400` is not a finite number",
    "x * " + "9" * 400: "is not a finite number",
    "x * " + "9" * 5000: "a number has too many digits",
    "x * (0 / 0)": "`0 / 0` is not a finite number",
    "x" * 10_001: "10001 characters, more than 10000",
    "+".join(["x"] * 5000): "split it into steps",  # too deep for Python's parser before 3.13, then too long
    "-" * 9000 + "x": "nested too deep",
    "not " * 2000 + "x": "nested more than 100 deep",
    "**".join(["x"] * 200): "nested more than 100 deep",
    "abs(" * 150 + "x" + ")" * 150: "nested more than 100 deep",
    "(" * 1000 + "x" + ")" * 1000: "too many nested parentheses",
    "+".join(f"b{i}" for i in range(1, 1500)): "more than 2000 parts",
    "x\0": "cannot read",
    "x\ud800": "not text",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:30]))
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked
        grammar.parse(text)
    assert REFUSED[text] in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_sum_of_many_bands_is_not_nested() -> None:
    bands = tuple(f"b{i + 1}" for i in range(224))
    compiled = compile_expression("+".join(bands), scope(image=bands))
    assert compiled.program.num_registers <= 3


def test_nothing_is_run_as_python() -> None:
    """No module of the language calls what runs code."""
    root = Path(grammar.__file__).parent
    for path in [*root.glob("*.py"), root.parents[1] / "kernels" / "expression.py"]:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"eval", "exec", "compile", "__import__", "globals"}


SENTINEL = ("B02", "B03", "B04", "B05", "B8A", "nir", "B11")


@pytest.mark.parametrize(
    ("name", "bands", "index"),
    [
        ("B04", SENTINEL, 2),
        ("b04", SENTINEL, 2),
        ("b8a", SENTINEL, 4),
        ("NIR", SENTINEL, 5),
        ("b6", SENTINEL, 5),
        ("b2", ("b1", "b2", "b3"), 1),
        ("b2", ("b2", "b1"), 0),
        ("b4", ("B01", "B02", "B03", "B04"), 3),
        ("b2", ("SR_B1", "SR_B2"), 1),
        ("b2", ("Band 1", "Band 2"), 1),
        ("b2", ("B4 f=0.15 o=0", "B4 f=0.15 o=45"), 1),
        ("b2", ("1", "2"), 1),
        ("b2", ("443", "490"), 1),
        ("b1", ("2019", "2020"), 0),
    ],
)
def test_bands_by_name_and_position(name: str, bands: tuple[str, ...], index: int) -> None:
    assert scope(image=bands).find((name,)).band == index
    assert scope(image=bands, other=bands).find(("image", name)).band == index


@pytest.mark.parametrize(
    ("name", "bands", "message"),
    [
        ("b4", SENTINEL, "'b4' is position 4, and the band there is called 'B05'; write B05"),
        ("b5", SENTINEL, "'b5' is position 5, and the band there is called 'B8A'; write B8A"),
        ("b2", ("B2", "B8"), "'b2' is position 2, and the band there is called 'B8'; write B8 or B2"),
        ("b1", ("red", "B1"), "'b1' is position 1, and the band there is called 'red'; write red or B1"),
        ("b2", ("4", "3", "2"), """'b2' is position 2, and the band there is called '3'; pick .*"3".* or .*"2".*"""),
        ("b1", ("4", "3", "2"), """'b1' is position 1, and the band there is called '4'; pick .*"4".*"""),
        ("b2", ("02", "01"), "'b2' is position 2, and the band there is called '01'; pick .*"),
        ("b2", ("2", "443"), "'b2' is position 2, and the band there is called '443'; pick .*"),
        ("Nir", ("nir", "NIR"), "'Nir' could be nir or NIR; write it exactly"),
        ("b9", ("red", "nir"), "unknown name 'b9'"),
        ("rad", ("red", "nir"), "unknown name 'rad'; did you mean 'red'? (valid: image, input, pi, red, nir)"),
    ],
)
def test_bands_that_are_not_one_thing(name: str, bands: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=r"^" + message.replace("?", r"\?").replace("(", r"\(").replace(")", r"\)")):
        scope(image=bands).find((name,))


def test_numbers_that_the_dtype_does_not_hold() -> None:
    source = Scope((("x", Source(("b1",), np.dtype(np.uint8), False)),), "x")
    for number in ("1e300", "1e-300"):
        with pytest.raises(ValueError, match="does not fit float32, in which this is computed"):
            compile_expression(f"x * {number}", source)
    compile_expression("x * (1e300 / 1e299)", source)


@pytest.mark.parametrize(
    ("text", "can_be_invalid"),
    [
        ("x / 10000", False),
        ("x - 3 * x", False),
        ("x > 3 and not x < 9", False),
        ("clip(round(x ** 2), 0, 9)", False),
        ("x ** 0.5 + x ** -1", True),
        ("x ** 300 - x", False),
        ("x ** 300 - x ** 300", True),
        ("x / x", True),
        ("sqrt(x)", True),
        ("where(x > 3, x, sqrt(x))", True),
        ("isvalid(sqrt(x))", False),
        ("x * x * x * x * x * x * x * x", False),
        ("x * 1e20 * (x * 1e20)", False),
        ("x * 1e20 * (x * 1e20) * 0", True),
    ],
)
def test_whether_a_result_can_be_invalid(text: str, can_be_invalid: bool) -> None:
    source = Scope((("x", Source(("b1",), np.dtype(np.uint8), False)),), "x")
    assert compile_expression(text, source).can_be_invalid == can_be_invalid
