"""Sums down and along eight rows at a time, in vectors of eight float64: what the compiler would not find itself.

The column sums of eight rows are transposed in registers, so that the eight rows of a column lie side by side. A sum
along the rows then reads whole vectors, where rows as they are would be read at every offset, across cache lines: half
the time. Four rows share what is loaded and converted for their columns. LLVM splits the vectors where registers are
shorter; every number is one chain of fused multiply-adds, said outright, and so the same everywhere.

Sizes of kernels are odd and at least `LEAST`. Arrays are C-contiguous.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from pipeline.kernels.compile import cgutils, intrinsic, types
from pipeline.kernels.vector import Generator

VECTOR = 8
"""Numbers of a vector: rows that are computed together, and columns of a block."""
SHARING = 4
"""Rows that share loads: eight would need more registers than most processors have."""
LEAST = SHARING + 1
"""The least rows and columns of a kernel."""
_VECTOR = ir.VectorType(ir.DoubleType(), VECTOR)


def _data(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, list[Any]]:
    """Return an array's pointer and strides."""
    array = context.make_array(kind)(context, builder, value)
    return array.data, cgutils.unpack_tuple(builder, array.strides)


def _load(builder: Any, pointer: Any) -> Any:
    """Load neighbours, which need not be aligned, as float64."""
    kind = ir.VectorType(pointer.type.pointee, VECTOR)
    vector = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=4)
    return vector if kind == _VECTOR else builder.fpext(vector, _VECTOR)


def _store(builder: Any, vector: Any, pointer: Any) -> None:
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=4)


def _repeat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR))


def _zeros(builder: Any, num: int) -> list[Any]:
    return [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * VECTOR)) for _ in range(num)]


def _add_product(builder: Any, vector: Any, number: Any, total: Any) -> None:
    """Add vector x number to the total that a pointer stands for."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{VECTOR}f64")
    builder.store(builder.call(fma, [vector, _repeat(builder, number), builder.load(total)]), total)


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return as many vectors as they have elements, rows and columns exchanged: by swaps of ever larger blocks."""
    vectors = list(vectors)
    places = range(len(vectors))
    mask = ir.VectorType(ir.IntType(32), len(vectors))
    for step in (1, 2, 4):
        low = ir.Constant(mask, [j + (VECTOR - step if j & step else 0) for j in places])
        high = ir.Constant(mask, [j + (VECTOR if j & step else step) for j in places])
        for i in places:
            if not i & step:
                a, b = vectors[i], vectors[i | step]
                vectors[i] = builder.shuffle_vector(a, b, low)
                vectors[i | step] = builder.shuffle_vector(a, b, high)
    return vectors


@intrinsic
def sum_columns(
    typing_context: Any, values: Any, row: Any, last: Any, column: Any, weights: Any, size: Any, out: Any, to: Any
) -> Generator:
    """Sum `size` rows of eight columns, from each of eight rows on, into (column, row) at element `to` of `out`.

    Rows beyond the last count as the last; so do their sums, which nobody needs. Even and odd taps are two chains.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, row, last, column, _, size, _, to = arguments
        source, strides = _data(context, builder, signature.args[0], arguments[0])
        taps, _ = _data(context, builder, signature.args[4], arguments[4])
        target, _ = _data(context, builder, signature.args[6], arguments[6])
        source = builder.gep(source, [column])
        index = row.type

        def load(i: Any) -> Any:
            at = builder.add(row, i)
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            return _load(builder, cgutils.pointer_add(builder, source, builder.mul(at, strides[0])))

        def four_rows(first: int) -> list[Any]:
            totals = [_zeros(builder, 2) for _ in range(SHARING)]

            def take(i: Any, parity: int, rows: range) -> None:
                """Add source row i, which is even or odd, to those of the four rows that it is below of."""
                vector = load(builder.add(i, index(first)))
                for r in rows:
                    tap = builder.load(builder.gep(taps, [builder.sub(i, index(r))]))
                    _add_product(builder, vector, tap, totals[r][(parity - r) % 2])

            for i in range(SHARING - 1):
                take(index(i), i, range(i + 1))
            with cgutils.for_range_slice(builder, index(SHARING - 1), size, index(2)) as (i, _):
                take(i, 1, range(SHARING))
                take(builder.add(i, index(1)), 0, range(SHARING))
            for i in range(SHARING - 1):
                take(builder.add(size, index(i)), 1 + i, range(i + 1, SHARING))
            return [builder.fadd(builder.load(even), builder.load(odd)) for even, odd in totals]

        columns = _transposed(builder, [total for first in range(0, VECTOR, SHARING) for total in four_rows(first)])
        for c, vector in enumerate(columns):
            _store(builder, vector, builder.gep(target, [builder.add(to, index(c * VECTOR))]))
        return context.get_dummy_value()

    return types.void(values, row, last, column, weights, size, out, to), generate


@intrinsic
def sum_along(typing_context: Any, sums: Any, begin: Any, weights: Any, size: Any, out: Any, to: Any) -> Generator:
    """Sum `size` neighbours of eight columns, the first at element `begin` of `sums`, into element `to` of `out`.

    Both are flat (column, row). Taps are added from both ends to the centre, the greatest weights last: the rounding
    errors are least.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, begin, _, size, _, to = arguments
        source, _ = _data(context, builder, signature.args[0], arguments[0])
        taps, _ = _data(context, builder, signature.args[2], arguments[2])
        target, _ = _data(context, builder, signature.args[4], arguments[4])
        source = builder.gep(source, [begin])
        index = begin.type
        totals = _zeros(builder, VECTOR)

        def take(k: Any) -> None:
            tap = builder.load(builder.gep(taps, [k]))
            at = builder.gep(source, [builder.mul(k, index(VECTOR))])
            for c in range(VECTOR):
                _add_product(builder, _load(builder, builder.gep(at, [index(c * VECTOR)])), tap, totals[c])

        centre, end = builder.sdiv(size, index(2)), builder.sub(size, index(1))
        with cgutils.for_range(builder, centre) as loop:
            take(loop.index)
            take(builder.sub(end, loop.index))
        take(centre)
        for c, total in enumerate(totals):
            _store(builder, builder.load(total), builder.gep(target, [builder.add(to, index(c * VECTOR))]))
        return context.get_dummy_value()

    return types.void(sums, begin, weights, size, out, to), generate


@intrinsic
def store_block(typing_context: Any, columns: Any, begin: Any, out: Any, row: Any, column: Any) -> Generator:
    """Write eight columns of (column, row) from element `begin` on into eight rows of `out`, of the same dtype."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, begin, _, row, column = arguments
        source, _ = _data(context, builder, signature.args[0], arguments[0])
        target, strides = _data(context, builder, signature.args[2], arguments[2])
        index = begin.type
        kind = ir.VectorType(source.type.pointee, VECTOR).as_pointer()
        places = [builder.gep(source, [builder.add(begin, index(c * VECTOR))]) for c in range(VECTOR)]
        rows = _transposed(builder, [builder.load(builder.bitcast(place, kind), align=4) for place in places])
        for r, vector in enumerate(rows):
            offset = builder.mul(builder.add(row, index(r)), strides[0])
            _store(builder, vector, builder.gep(cgutils.pointer_add(builder, target, offset), [column]))
        return context.get_dummy_value()

    return types.void(columns, begin, out, row, column), generate
