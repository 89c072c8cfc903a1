"""Sixteen float32 numbers side by side as one value of compiled loops, which the compiler keeps in registers.

For loops that numba makes no vector code of, or only with a check at run time, because arrays might overlap. An array
holds such values as rows of (rows, 16), float32 and contiguous; rows are not checked against its bounds. The compiler
splits a value where registers are shorter (two of AVX2, four of SSE or NEON). What holds for one lane holds for each.

A caller's machine code stays on disk until the caller's own file changes: whoever changes this one touches theirs.
"""

import operator
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16
_INDEX = ir.IntType(32)
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
# A product and a sum may become one operation, as in all compiled loops here.
_CONTRACT = ("contract",)


class Lanes(types.Type):  # type: ignore[misc]
    """The type of such a value."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """A value is one vector of LLVM."""

    def __init__(self, manager: Any, of_type: Lanes) -> None:
        super().__init__(manager, of_type, _VECTOR)


@intrinsic
@no_type_check
def load_vector(context, rows, row):
    """Return a row of an array."""

    def generate(context, builder, signature, arguments):
        return builder.load(_row(context, builder, signature, arguments), align=4)

    return _if(_is_rows(rows), LANES(rows, row), generate)


@intrinsic
@no_type_check
def store_vector(context, rows, row, value):
    """Make a value the row of an array."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _row(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return _if(_is_rows(rows) and value == LANES, types.void(rows, row, value), generate)


@intrinsic
@no_type_check
def broadcast(context, number):
    """Return one float32 number in all lanes."""

    def generate(context, builder, signature, arguments):
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(empty, arguments[0], ir.Constant(_INDEX, 0))
        return builder.shuffle_vector(first, empty, _places([0] * WIDTH))

    return _if(number == types.float32, LANES(number), generate)


@intrinsic
@no_type_check
def root(context, value):
    """Return the square root."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f32"), arguments)

    return _if(value == LANES, LANES(value), generate)


@intrinsic
@no_type_check
def select_positive(context, number, value, otherwise):
    """Return ``value`` where ``number`` is above 0, ``otherwise`` where it is not or is NaN."""

    def generate(context, builder, signature, arguments):
        is_positive = builder.fcmp_ordered(">", arguments[0], ir.Constant(_VECTOR, [0.0] * WIDTH))
        return builder.select(is_positive, *arguments[1:])

    return _if(number == value == otherwise == LANES, LANES(number, value, otherwise), generate)


@intrinsic
@no_type_check
def transpose(context, numbers, starts, shift, rows, row):
    """Lay the sixteen numbers from each of sixteen ``starts`` + ``shift`` on out in the sixteen rows from ``row`` on.

    A start a lane; in registers halves are exchanged, then quarters, eighths and neighbors.
    """

    def generate(context, builder, signature, arguments):
        source, of_starts = (context.make_array(signature.args[n])(context, builder, arguments[n]) for n in (0, 1))
        shifted = context.cast(builder, arguments[2], signature.args[2], types.intp)
        vectors = []
        for lane in range(WIDTH):
            start = builder.load(builder.gep(of_starts.data, [ir.Constant(_INDEX, lane)]))
            place = builder.gep(source.data, [builder.add(start, shifted)])
            vectors.append(builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4))
        for step in (8, 4, 2, 1):
            for low in range(WIDTH):
                if not low & step:
                    vectors[low], vectors[low | step] = _exchanged(builder, vectors[low], vectors[low | step], step)
        first = _row(context, builder, signature, arguments, at=3)
        for lane, vector in enumerate(vectors):
            builder.store(vector, builder.gep(first, [ir.Constant(_INDEX, lane)]), align=4)
        return context.get_dummy_value()

    is_right = _is_rows(rows) and numbers == types.float32[::1] and starts == types.intp[::1]
    return _if(is_right, types.void(numbers, starts, shift, rows, row), generate)


@intrinsic
@no_type_check
def multiply_columns(context, matrix, n_columns, left, right, result):
    """Put AᵀB of four columns A, from ``left`` on, and four columns B, from ``right`` on, into sixteen rows ``result``.

    Of a matrix of ``n_columns`` whose entries are the rows of ``matrix``. Sums stay in registers, so that eight entries
    are read for sixteen products.
    """
    n_side = 4

    def generate(context, builder, signature, arguments):
        columns, first, second = (context.cast(builder, arguments[n], signature.args[n], types.intp) for n in (1, 2, 3))
        n_entries = context.make_array(signature.args[0])(context, builder, arguments[0]).shape
        n_rows = builder.sdiv(builder.extract_value(n_entries, 0), columns)
        none = ir.Constant(_VECTOR, [0.0] * WIDTH)
        sums = [cgutils.alloca_once_value(builder, none) for _ in range(n_side * n_side)]
        for place in sums:
            builder.store(none, place)
        with cgutils.for_range(builder, n_rows) as loop:
            start = _address(context, builder, signature.args[0], arguments[0], builder.mul(loop.index, columns))
            sides = [
                [
                    builder.load(builder.gep(start, [builder.add(side, ir.Constant(side.type, n))]), align=4)
                    for n in range(n_side)
                ]
                for side in (first, second)
            ]
            for index, place in enumerate(sums):
                product = builder.fmul(sides[0][index // n_side], sides[1][index % n_side], flags=_CONTRACT)
                builder.store(builder.fadd(builder.load(place), product, flags=_CONTRACT), place)
        start = _address(context, builder, signature.args[4], arguments[4], ir.Constant(first.type, 0))
        for index, place in enumerate(sums):
            builder.store(builder.load(place), builder.gep(start, [ir.Constant(_INDEX, index)]), align=4)
        return context.get_dummy_value()

    is_right = _is_rows(matrix) and _is_rows(result)
    return _if(is_right, types.void(matrix, n_columns, left, right, result), generate)


@no_type_check
def _exchanged(builder, low, high, step):
    """Return two vectors after the upper parts of one and the lower parts of the other have changed places."""
    lower = [place if not place & step else WIDTH + (place ^ step) for place in range(WIDTH)]
    upper = [place | step if not place & step else WIDTH + place for place in range(WIDTH)]
    return tuple(builder.shuffle_vector(low, high, _places(places)) for places in (lower, upper))


@no_type_check
def _row(context, builder, signature, arguments, at=0):
    """Return the address of a row; the array and the row are two arguments, one after the other."""
    row = context.cast(builder, arguments[at + 1], signature.args[at + 1], types.intp)
    return _address(context, builder, signature.args[at], arguments[at], row)


@no_type_check
def _address(context, builder, of_type, array, row):
    data = context.make_array(of_type)(context, builder, array).data
    place = builder.gep(data, [builder.mul(row, ir.Constant(row.type, WIDTH))])
    return builder.bitcast(place, _VECTOR.as_pointer())


@no_type_check
def _places(places):
    return ir.Constant(ir.VectorType(_INDEX, WIDTH), list(places))


@no_type_check
def _is_rows(array):
    return bool(array == types.float32[:, ::1])


@no_type_check
def _if(is_right, signature, generate):
    """Return what numba wants of an intrinsic; None, and it names the call, where the arguments are of other types."""
    return (signature, generate) if is_right else None


@no_type_check
def _arithmetic(operation, instruction):
    """Teach compiled loops an operation on two values."""

    @intrinsic
    @no_type_check
    def apply(context, left, right):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=_CONTRACT)

        return LANES(left, right), generate

    @overload(operation)
    def find(left, right):
        return (lambda left, right: apply(left, right)) if left == right == LANES else None


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operation, _instruction)
