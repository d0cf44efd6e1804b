"""Many float32 numbers at once, where the compiler would not see that short loops are vectors.

LLVM's vectors work on every processor (it splits them where registers are shorter). Products may be fused with sums
where the processor can: results differ in the last bits from one kind of machine to the next, so they serve to find
candidates, never as results. Arrays are float32 and C-contiguous; views are not taken, for their references would be
counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from pipeline.kernels.compile import cgutils, intrinsic, types

VECTOR = 32
"""Numbers of a vector: two registers of the widest kind."""
UNROLLED = 2
"""Bands that are summed separately."""
_VECTOR = ir.VectorType(ir.FloatType(), VECTOR)
_MASK = ir.VectorType(ir.IntType(32), VECTOR)

Generator = tuple[Any, Callable[..., Any]]


def array_parts(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, Any, Any]:
    """Return an array's pointer, its first dimension and its first stride."""
    array = context.make_array(kind)(context, builder, value)
    sizes, strides = (cgutils.unpack_tuple(builder, part) for part in (array.shape, array.strides))
    return array.data, sizes[0], strides[0]


def _load(builder: Any, pointer: Any) -> Any:
    """Load neighbours, which need not be aligned."""
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)


def _repeat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(_MASK, [0] * VECTOR))


def _function(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Return one of LLVM's functions for these vectors."""
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{VECTOR}f32")


@intrinsic
def squared_distances(typing_context: Any, pixels: Any, pixel: Any, colors: Any, color: Any, out: Any) -> Generator:
    """Write the squared distances of one pixel from `VECTOR` neighbouring colours to the same places of `out`.

    pixels are (band, pixel), colors (band, color), out is (color,); the number of bands is a multiple of `UNROLLED`.
    Returns the least distance; none may be NaN.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, index = signature.args, arguments[1].type
        x, num, x_stride = array_parts(context, builder, kinds[0], arguments[0])
        c, _, c_stride = array_parts(context, builder, kinds[2], arguments[2])
        target, _, _ = array_parts(context, builder, kinds[4], arguments[4])
        x, c, target = (builder.gep(p, [arguments[i]]) for p, i in ((x, 1), (c, 3), (target, 3)))
        multiply_add = _function(builder, "llvm.fmuladd", _VECTOR, [_VECTOR] * 3)
        totals = [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * VECTOR)) for _ in range(2)]
        with cgutils.for_range_slice(builder, index(0), num, index(UNROLLED)) as (band, _):
            for step in range(UNROLLED):
                total = totals[step % 2]
                place = builder.add(band, index(step))
                number = builder.load(cgutils.pointer_add(builder, x, builder.mul(place, x_stride)))
                there = _load(builder, cgutils.pointer_add(builder, c, builder.mul(place, c_stride)))
                difference = builder.fsub(_repeat(builder, number), there)
                builder.store(builder.call(multiply_add, [difference, difference, builder.load(total)]), total)
        distances = builder.fadd(*(builder.load(total) for total in totals))
        builder.store(distances, builder.bitcast(target, _VECTOR.as_pointer()), align=4)
        least = _function(builder, "llvm.vector.reduce.fmin", ir.FloatType(), [_VECTOR])
        return builder.call(least, [distances], fastmath=("nnan",))

    return types.float32(pixels, types.intp, colors, types.intp, out), generate


@intrinsic
def bits_within(typing_context: Any, numbers: Any, first: Any, limit: Any) -> Generator:
    """Return a bit for each of `VECTOR` neighbours in a flat array, set where the number is at most the limit."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, _, _ = array_parts(context, builder, signature.args[0], arguments[0])
        vector = _load(builder, builder.gep(pointer, [arguments[1]]))
        mask = builder.fcmp_ordered("<=", vector, _repeat(builder, arguments[2]))
        return builder.zext(builder.bitcast(mask, ir.IntType(VECTOR)), ir.IntType(64))

    return types.int64(numbers, types.intp, types.float32), generate


@intrinsic
def lowest_bit(typing_context: Any, bits: Any) -> Generator:
    """Return the place of the lowest bit that is set; 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.int64(types.int64), generate


@intrinsic
def number_of_bits(typing_context: Any, bits: Any) -> Generator:
    """Return how many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate
