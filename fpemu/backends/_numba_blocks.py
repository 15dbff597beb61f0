"""Numba kernels of block formats, for blocks whose numbers stay in the container's normal range.

A section of a few thousand elements is taken at a time: the largest magnitude of each run (the
part of a block in one row), the scales, what the elements of a run need, and then the elements,
one vector register after the other. Elements are rounded to nearest even by adding and
subtracting a power of two, which needs the format to be one that `_numba` admits.

Under a power of two nothing is divided: the element's grid is moved to the elements instead.
Other quotients are exact without a division: with ``z = 1 / d`` and a first guess q1 that is off
by less than a unit in the last place, ``fma(fma(-q1, d, x), z, q1)`` is the correctly rounded
``x / d`` (P. Markstein, IBM J. Res. Dev. 34, 1990).

A section that is not regular (a block of tiny or huge numbers, where a step would leave the
normal range) is left as it is and marked; the caller does it by other means.

Everything that is compiled together lives in this one file, because numba's cache looks only at
the file of the function called; the intrinsics of `_numba_kernels` are the exception.
"""

# Numba specialises these functions by their argument types, which annotations cannot name.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import numba.extending
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fpemu.backends._numba_kernels import (
    add,
    as_bits,
    as_float,
    band,
    bor,
    inner,
    kernel,
    like,
    shl,
    shr,
    sub,
    umax,
    umin,
)

intrinsic: Any = numba.extending.intrinsic

VECTOR = 64  # bytes
RUNS = 512  # runs of a section at most
SECTION = 4096  # elements of a section, unless a block has more

# What distinguishes kernels is passed as the length of a tuple, so that it is part of the type, and
# of what is compiled only what is needed stays.
# How elements are divided: POWERS not at all; by the block's scale, where it has many bits, and
# where it has few; NESTED by the outer scale first, which is a CALM one or any.
POWERS, LONG, SHORT, CALM_NESTED, NESTED = (0,) * 0, (0,) * 1, (0,) * 2, (0,) * 3, (0,) * 4
# How codes are turned into values, which are multiplied by the block's scale, and then (TWICE) by
# the outer one. TABLE: codes of up to 4 bits by a table, where processors can look up in a
# register. HALF: through float16, where they can convert it; its exponents must suffice.
ONCE, TWICE, TABLE_ONCE, TABLE_TWICE = (0,) * 5, (0,) * 6, (0,) * 7, (0,) * 8
HALF_ONCE, HALF_TWICE = (0,) * 9, (0,) * 10
# Floats divided by the outer scale, if there is one, and the block's; or multiplied in turn.
DIVIDED, DIVIDED_TWICE, MULTIPLIED, MULTIPLIED_TWICE = (0,) * 11, (0,) * 12, (0,) * 13, (0,) * 14
# What is stored: values, of formats with and without -0; codes, of these two and of two's
# complement. The kernel of codes knows them by the last three.
VALUES, UNSIGNED_ZERO = (0,) * 0, (0,) * 1
SIGNED_CODES, UNSIGNED_ZERO_CODES, TWOS_CODES = (0,) * 2, (0,) * 3, (0,) * 4
# Vectors of a run: runs of one element, any number of vectors; longer tuples for one and two.
SINGLE, MANY, MOST = (0,) * 0, (0,) * 1, (0,) * 3
GIVEN, DERIVED = (0,) * 0, (0,) * 1  # where scales come from
APART, PACKED = (0,) * 0, (0,) * 1  # codes one by one, or two to a byte

# ---------------------------------------------------------------- the records

FIELDS = (
    "magnitude", "sign", "infinity", "mc", "lift", "smallest", "over_less", "outer", "outer_high",
    "outer_low", "code_shift", "sign_shift", "code_sign", "code_mask", "one_binade", "quantum",
    "half_shift", "half_sign_shift", "half_factor", "code_top", "over", "one",
)  # fmt: skip
(
    MAGNITUDE, SIGN, INFINITY, MC, LIFT, SMALLEST, OVER_LESS, OUTER, OUTER_HIGH,
    OUTER_LOW, CODE_SHIFT, SIGN_SHIFT, CODE_SIGN, CODE_MASK, ONE_BINADE, QUANTUM,
    HALF_SHIFT, HALF_SIGN_SHIFT, HALF_FACTOR, CODE_TOP, OVER, ONE,
) = range(len(FIELDS))  # fmt: skip

SCALING = (
    "ratio", "qmax", "up_above", "emax", "low", "high", "zero_scale", "nan", "least",
    "span", "usual", "emin_field", "factor", "top", "unit", "least_divisor", "most_divisor",
    "most_factor", "empty",
)  # fmt: skip
(
    RATIO, QMAX, UP_ABOVE, EMAX, LOW, HIGH, ZERO_SCALE, NAN, LEAST,
    SPAN, USUAL, EMIN_FIELD, FACTOR, TOP, UNIT, LEAST_DIVISOR, MOST_DIVISOR,
    MOST_FACTOR, EMPTY,
) = range(len(SCALING))  # fmt: skip

FIELD_BIAS = 1 << 12  # added to exponent fields, so that none is negative

# ---------------------------------------------------------------- vector code


class _Lanes:
    """Emits operations on one vector of patterns."""

    def __init__(self, builder: Any, dtype: Any, size: int = VECTOR) -> None:
        self.builder = builder
        self.bits = dtype.bitwidth
        self.count = 8 * size // self.bits
        self.words = ir.VectorType(ir.IntType(self.bits), self.count)
        self.kind = ir.FloatType() if self.bits == 32 else ir.DoubleType()
        self.reals = ir.VectorType(self.kind, self.count)

    def place(self, context: Any, array_type: Any, array: Any, at: Any, vector: Any) -> Any:
        data = context.make_array(array_type)(context, self.builder, array).data
        return self.builder.bitcast(self.builder.gep(data, [at]), vector.as_pointer())

    def load(self, context: Any, array_type: Any, array: Any, at: Any) -> Any:
        place = self.place(context, array_type, array, at, self.words)
        return self.builder.load(place, align=self.bits // 8)

    def spread(self, value: Any) -> Any:
        """A scalar pattern in all lanes."""
        one = self.builder.insert_element(
            ir.Constant(self.words, ir.Undefined), value, ir.IntType(32)(0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.count), None)
        return self.builder.shuffle_vector(one, one, zeros)

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def umax(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_unsigned(">", a, b), a, b)

    def umin(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_unsigned("<", a, b), a, b)

    def real(self, a: Any) -> Any:
        return self.builder.bitcast(a, self.reals)

    def word(self, a: Any) -> Any:
        return self.builder.bitcast(a, self.words)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fma.v{self.count}f{self.bits}"
        declared = ir.FunctionType(self.reals, [self.reals] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, declared, name)
        return self.builder.call(function, [a, b, c])


class _Vector(_Lanes):
    """Emits what is done to one vector of elements; the arguments are `_element_vector`'s."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.args, self.types = context, args, signature.args
        self.runs_type = self.types[4]
        super().__init__(builder, self.runs_type.dtype)
        self.fields = cgutils.unpack_tuple(builder, args[6])
        self.kinds, self.results, vectors = (len(each) for each in self.types[7:])
        self.alike = vectors > len(SINGLE)
        self.offset = 0
        self.known: dict[int, Any] = {}

    def field(self, index: int) -> Any:
        return self.spread(self.fields[index])

    def number(self, value: int) -> Any:
        return ir.Constant(self.words, [value] * self.count)

    def run(self, index: int) -> Any:
        """What `runs` holds in its part `index`."""
        if index not in self.known:
            self.known[index] = self.load_run(index)
        return self.known[index]

    def load_run(self, index: int) -> Any:
        at = self.builder.add(self.args[5], self.args[5].type(index * RUNS))
        if not self.alike:
            return self.load(self.context, self.runs_type, self.args[4], at)
        data = self.context.make_array(self.runs_type)(self.context, self.builder, self.args[4])
        return self.spread(self.builder.load(self.builder.gep(data.data, [at])))

    def loaded(self) -> Any:
        builder, source = self.builder, self.types[0]
        narrow = ir.VectorType(ir.IntType(source.dtype.bitwidth), self.count)
        at = self.builder.add(self.args[1], self.args[1].type(self.offset))
        place = self.place(self.context, source, self.args[0], at, narrow)
        x = builder.load(place, align=source.dtype.bitwidth // 8)
        return x if narrow == self.words else builder.zext(x, self.words)

    def store(self, x: Any) -> None:
        builder, target = self.builder, self.types[2]
        narrow = ir.VectorType(ir.IntType(target.dtype.bitwidth), self.count)
        at = self.builder.add(self.args[3], self.args[3].type(self.offset))
        place = self.place(self.context, target, self.args[2], at, narrow)
        x = x if narrow == self.words else builder.trunc(x, narrow)
        builder.store(x, place, align=target.dtype.bitwidth // 8)

    def divided(self, a: Any, d: Any, high: Any, low: Any, calm: bool) -> Any:
        if not _has_fma(self.context):
            return self.builder.fdiv(a, d)
        guess = self.fma(a, high, self.builder.fmul(a, low))
        if calm:
            return guess
        rest = self.fma(self.builder.fneg(guess), d, a)
        return self.fma(rest, high, guess)

    def quantize(self) -> None:
        builder, kinds, results = self.builder, self.kinds, self.results
        nested = kinds >= len(CALM_NESTED)
        u = self.loaded()
        a = builder.and_(u, self.field(MAGNITUDE))
        outer, d = self.real(self.field(OUTER)), None
        if kinds == len(POWERS):
            smallest = self.run(0)
            y = self.real(self.umin(a, builder.add(smallest, self.field(OVER_LESS))))
        else:
            smallest = self.field(SMALLEST)
            y = self.real(self.umin(a, self.run(0)))
            if nested:
                high, low = self.real(self.field(OUTER_HIGH)), self.real(self.field(OUTER_LOW))
                y = self.divided(y, outer, high, low, kinds == len(CALM_NESTED))
            d = self.real(self.run(3))
            high, low = self.real(self.run(1)), self.real(self.run(2))
            y = self.divided(y, d, high, low, kinds != len(LONG))
        power = self.umax(builder.and_(self.word(y), self.field(INFINITY)), smallest)
        lifted = builder.add(power, self.field(LIFT))
        total = builder.fadd(y, self.real(lifted))
        if results >= len(SIGNED_CODES):
            count = builder.sub(self.word(total), lifted)
            binade = builder.lshr(builder.sub(power, smallest), self.field(CODE_SHIFT))
            self.store(self.code(u, count, binade))
            return
        r = builder.fsub(total, self.real(lifted))
        if d is not None:
            r = builder.fmul(r, d)
            r = builder.fmul(r, outer) if nested else r
        found, sign = self.word(r), builder.and_(u, self.field(SIGN))
        if results == len(UNSIGNED_ZERO):
            none = self.number(0)
            sign = builder.select(builder.icmp_unsigned("==", found, none), none, sign)
        self.store(builder.or_(found, sign))

    def code(self, u: Any, count: Any, binade: Any) -> Any:
        """The code of `count` last places in a binade, with the sign of `u`."""
        builder = self.builder
        if self.results == len(TWOS_CODES):  # where all binades but the first are beyond
            negative = builder.ashr(u, self.number(self.bits - 1))
            code = builder.sub(builder.xor(count, negative), negative)
            return builder.and_(code, self.field(CODE_MASK))
        code = builder.add(count, binade)
        sign = builder.and_(builder.lshr(u, self.field(SIGN_SHIFT)), self.field(CODE_SIGN))
        signed = builder.or_(code, sign)
        if self.results == len(SIGNED_CODES):
            return signed
        return builder.select(builder.icmp_unsigned("==", code, self.number(0)), code, signed)

    def dequantize(self) -> None:
        builder, code = self.builder, self.loaded()
        if len(TABLE_ONCE) <= self.kinds <= len(TABLE_TWICE) and _has(self.context, "avx512f"):
            r = self.looked_up(code)
        elif len(HALF_ONCE) <= self.kinds and _has(self.context, "f16c"):
            r = self.through_half(code)
        else:
            r = self.decoded(code)
        r = builder.fmul(r, self.real(self.run(0)))
        if self.kinds in (len(TWICE), len(TABLE_TWICE), len(HALF_TWICE)):
            r = builder.fmul(r, self.real(self.field(OUTER)))
        self.store(self.word(r))

    def scale(self) -> None:
        """One step by itself; what overflows in a product becomes the largest value."""
        builder, r = self.builder, self.real(self.loaded())
        if self.kinds == len(DIVIDED_TWICE):
            r = builder.fdiv(r, self.real(self.field(OUTER)))
        if self.kinds <= len(DIVIDED_TWICE):
            self.store(self.word(builder.fdiv(r, self.real(self.run(0)))))
            return
        r = builder.fmul(r, self.real(self.run(0)))
        if self.kinds == len(MULTIPLIED_TWICE):
            r = builder.fmul(r, self.real(self.field(OUTER)))
        found, infinity = self.word(r), self.field(INFINITY)
        size = builder.and_(found, self.field(MAGNITUDE))
        less = builder.sub(found, self.number(1))
        self.store(builder.select(builder.icmp_unsigned("==", size, infinity), less, found))

    def looked_up(self, code: Any) -> Any:
        """The values of 4-bit codes in the table that follows the runs."""
        start = self.args[5].type(RUNS)
        table = self.load(self.context, self.runs_type, self.args[4], start)
        declared = ir.FunctionType(self.reals, [self.reals, self.words])
        name = "llvm.x86.avx512.permvar.sf.512"
        function = cgutils.get_or_insert_function(self.builder.module, declared, name)
        return self.builder.call(function, [self.real(table), code])

    def through_half(self, code: Any) -> Any:
        """Values as float16 of another exponent bias, widened and put right."""
        builder, kind = self.builder, ir.IntType(16)
        words = ir.VectorType(kind, self.count)

        def field(index: int) -> Any:
            one = builder.trunc(self.fields[index], kind)
            first = builder.insert_element(ir.Constant(words, ir.Undefined), one, ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.count), None)
            return builder.shuffle_vector(first, first, zeros)

        code = builder.trunc(code, words)
        size = builder.shl(builder.and_(code, field(CODE_MASK)), field(HALF_SHIFT))
        sign = builder.shl(code, field(HALF_SIGN_SHIFT))
        sign = builder.and_(sign, ir.Constant(words, [1 << 15] * self.count))
        halves = builder.bitcast(builder.or_(size, sign), ir.VectorType(ir.HalfType(), self.count))
        r = builder.fpext(halves, self.reals)
        return builder.fmul(r, self.real(self.field(HALF_FACTOR)))

    def decoded(self, code: Any) -> Any:
        builder = self.builder
        top = builder.shl(code, self.field(SIGN_SHIFT))  # the code's sign bit is the highest
        if self.results == len(TWOS_CODES):  # two's complement: an integer times the quantum
            integer = builder.ashr(top, self.field(SIGN_SHIFT))
            return builder.fmul(builder.sitofp(integer, self.reals), self.real(self.field(QUANTUM)))
        # Below the normal numbers, 1 + fraction in the first binade, and its 1 taken off.
        code = builder.and_(code, self.field(CODE_MASK))
        shifted, smallest = builder.shl(code, self.field(CODE_SHIFT)), self.field(SMALLEST)
        below = builder.icmp_unsigned("<", shifted, self.field(ONE_BINADE))
        one_less = builder.sub(smallest, self.field(ONE_BINADE))
        r = self.real(builder.add(shifted, builder.select(below, smallest, one_less)))
        r = builder.fsub(r, self.real(builder.select(below, smallest, self.number(0))))
        return self.real(builder.or_(self.word(r), builder.and_(top, self.field(SIGN))))


def _has(context: Any, feature: str) -> bool:
    """Whether the x86 processor that code is made for has a feature."""
    triple, _, features = context.codegen().magic_tuple()
    return triple.startswith("x86_64") and f"+{feature}," in f"{features},"


def _has_fma(context: Any) -> bool:
    x86 = context.codegen().magic_tuple()[0].startswith(("x86", "i686"))
    return not x86 or _has(context, "fma")


@intrinsic
def _element_vector(context, x, at, out, to, runs, i, record, kind, result, vectors):
    """The elements or codes of a run of known length, or of one vector of it.

    Loads x[at : ...], stores out[to : ...]; `i` is the run.

    `runs` holds, by `RUNS`: for POWERS the least power of two; for quotients the largest
    magnitude that matters, 1/d, what 1/d is short of, and d; for codes d.
    """

    def codegen(context, builder, signature, args):
        vector = _Vector(context, builder, signature, args)
        for _ in range(max(len(vectors) - len(MANY), 1)):
            if len(kind) < len(ONCE):
                vector.quantize()
            elif len(kind) < len(DIVIDED):
                vector.dequantize()
            else:
                vector.scale()
            vector.offset += vector.count
        return context.get_dummy_value()

    return types.none(x, at, out, to, runs, i, record, kind, result, vectors), codegen


@intrinsic
def _maxima_of_vectors(context, x, at, out, to, magnitude, vectors):
    """The largest magnitude of as many runs of ``len(vectors)`` vectors as half a vector has lanes.

    Halves, because loads are cheaper than the shuffles that they save.
    """
    each = max(2 * (len(vectors) - len(MANY)), 1)  # others do not call it

    def codegen(context, builder, signature, args):
        v = _Lanes(builder, x.dtype, VECTOR // 2)
        x_type, _, out_type, *_ = signature.args
        mask = v.spread(args[4])
        rows = []
        for run in range(v.count):
            row = None
            for k in range(each):
                at = builder.add(args[1], args[1].type((run * each + k) * v.count))
                a = builder.and_(v.load(context, x_type, args[0], at), mask)
                row = a if row is None else v.umax(row, a)
            rows.append(row)
        # Two rows become one with half the lanes each, until lane i is the maximum of row i. Only
        # the first step moves numbers across the middle of the vector, which is slow.
        middle = v.count // 2
        first = list(range(middle))
        pairs = list(zip(rows[:middle], rows[middle:], strict=True))
        low, apart = [*first, *(v.count + lane for lane in first)], middle
        while True:
            high = [lane + apart for lane in low]
            rows = [v.umax(v.shuffle(a, b, low), v.shuffle(a, b, high)) for a, b in pairs]
            if len(rows) == 1:
                break
            apart = len(rows) // 2
            lanes = [lane for lane in first if not lane & apart]
            low = [base + lane for side in (0, middle) for base in (side, v.count + side)
                   for lane in lanes]  # fmt: skip
            pairs = list(zip(rows[::2], rows[1::2], strict=True))
        place = v.place(context, out_type, args[2], args[3], v.words)
        builder.store(rows[0], place, align=v.bits // 8)
        return context.get_dummy_value()

    return types.none(x, at, out, to, magnitude, vectors), codegen


@intrinsic
def _maximum_of_vectors(context, x, at, count, magnitude):
    """The largest magnitude of `count` vectors."""

    def codegen(context, builder, signature, args):
        v = _Lanes(builder, x.dtype)
        mask = v.spread(args[3])
        place = cgutils.alloca_once_value(builder, ir.Constant(v.words, None))
        with cgutils.for_range(builder, args[2]) as loop:
            at = builder.add(args[1], builder.mul(loop.index, args[1].type(v.count)))
            a = builder.and_(v.load(context, signature.args[0], args[0], at), mask)
            builder.store(v.umax(builder.load(place), a), place)
        row = builder.load(place)
        half = v.count // 2
        while half:
            lanes = [(lane + half) % v.count for lane in range(v.count)]
            row = v.umax(row, v.shuffle(row, row, lanes))
            half //= 2
        return builder.extract_element(row, ir.IntType(32)(0))

    return x.dtype(x, at, count, magnitude), codegen


@intrinsic
def fma(context, a, b, c):
    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, a, a), codegen


# --------------------------------------------------------------------- passes


@intrinsic
def _copy(context, source, at, target, to, count):
    """``target[to : to + count] = source[at : at + count]``, of one dtype."""

    def codegen(context, builder, signature, args):
        places = [
            builder.gep(context.make_array(kind)(context, builder, array).data, [index])
            for kind, array, index in (
                (signature.args[0], *args[0:2]),
                (signature.args[2], *args[2:4]),
            )
        ]
        size = source.dtype.bitwidth // 8
        cgutils.raw_memcpy(builder, places[1], places[0], args[4], size)
        return context.get_dummy_value()

    return types.none(source, at, target, to, types.intp), codegen


@intrinsic
def _clear(context, target, to, count):
    """``target[to : to + count] = 0``."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        size = args[2].type(target.dtype.bitwidth // 8)
        cgutils.memset(builder, builder.gep(data, [args[1]]), builder.mul(args[2], size), 0)
        return context.get_dummy_value()

    return types.none(target, to, types.intp), codegen


@inner
def _copy_runs(source, at, target, columns, width, pitch):
    """A row's part into a buffer, every run padded with zeros to `pitch`."""
    runs = -(-columns // width)
    if width == pitch:
        _copy(source, at, target, 0, columns)
        _clear(target, columns, target.size - columns)
    else:
        _clear(target, 0, target.size)
        for run in range(runs):
            start = run * width
            _copy(source, at + start, target, run * pitch, min(width, columns - start))


@inner
def _copy_back(source, target, at, columns, width, pitch):
    if width == pitch:
        _copy(source, 0, target, at, columns)
    else:
        for run in range(-(-columns // width)):
            start = run * width
            _copy(source, run * pitch, target, at + start, min(width, columns - start))


@inner
def _pack_nibbles(source, target, at, count):
    """Codes of 4 bits, two to a byte, low nibble first; `at` is the first code's index."""
    pairs, place = source.view(np.uint16), target[at // 2 : (at + count) // 2]
    z = place[0]
    for i in range(place.size):
        pair = pairs[i]
        place[i] = like(z, bor(pair, shr(pair, like(pair, 4))))


@inner
def _largest(x, at, runs, width, amax, magnitude, vectors, combine):
    """The largest magnitude of each run; the maximum with what is there under `combine`."""
    lanes = VECTOR // x.itemsize
    if len(vectors) == len(SINGLE):
        piece = x[at : at + runs]
        for i in range(runs):
            a = band(piece[i], magnitude)
            amax[i] = umax(amax[i], a) if combine else a
        return
    done, to = 0, RUNS if combine else 0
    if len(vectors) > len(MANY):
        while done + lanes // 2 <= runs:
            _maxima_of_vectors(x, at + done * width, amax, to + done, magnitude, vectors)
            done += lanes // 2
    for run in range(done, runs):
        amax[to + run] = _maximum_of_vectors(x, at + run * width, width // lanes, magnitude)
    if combine:
        found = amax[RUNS:]
        for i in range(runs):
            amax[i] = umax(amax[i], found[i])


# The loops below only take maxima and minima along the way: flags would be masks, which LLVM
# moves to and fro. `special` patterns, 0 and NaN, are a comparison, too: less 1, 0 is largest.


@inner
def _derive(amax, scales, count, p, s):
    """Powers of two for the largest magnitudes of runs, as patterns; (irregular, has NaN)."""
    z = amax[0]
    one, zero, mc, infinity = like(z, 1), like(z, 0), like(z, p[MC]), like(z, p[INFINITY])
    fraction, ends = sub(shl(one, mc), one), sub(infinity, one)
    by_ratio, qmax = s[RATIO] != 0, as_float(like(z, s[QMAX]))
    up_above, emax = like(z, s[UP_ABOVE]), like(z, s[EMAX])
    low, high, bias = like(z, s[LOW]), like(z, s[HIGH]), like(z, FIELD_BIAS)
    zero_scale, nan = like(z, s[ZERO_SCALE]), like(z, s[NAN])
    least, most = high, zero
    for i in range(count):
        a = amax[i]
        size = as_bits(as_float(a) / qmax) if by_ratio else a
        field = shr(size, mc)
        up = one if band(size, fraction) > up_above else zero
        k = umin(umax(sub(add(add(field, up), bias), emax), low), high)
        normal = k if field > zero else zero
        least = umin(least, high if sub(a, one) >= ends else normal)
        most = umax(most, a)
        scale = zero_scale if a == zero else shl(sub(k, bias), mc)
        scales[i] = nan if a >= infinity else scale
    return least <= bias, most >= infinity


@inner
def _prepare_powers(amax, derived, scales, runs, count, p, s):
    """What `_element_vector` needs of runs under powers of two; (irregular, has NaN)."""
    z = runs[0]
    one, zero, mc, infinity = like(z, 1), like(z, 0), like(z, p[MC]), like(z, p[INFINITY])
    lowest, span, emin = shl(like(z, s[LEAST]), mc), like(z, s[SPAN]), like(z, s[EMIN_FIELD])
    rest, usual = sub(like(z, 8 * runs.itemsize), mc), shl(like(z, s[USUAL]), mc)
    shift = shl(emin, mc)
    worst, most = zero, zero
    for i in range(count):
        scale = scales[i]
        above = sub(scale, lowest)
        apart = bor(shr(above, mc), shl(above, rest))  # large for what is no power of two
        empty = derived & (amax[i] == zero)
        worst = umax(worst, zero if (sub(scale, one) >= infinity) | empty else apart)
        most = umax(most, scale)
        runs[i] = add(scale if apart <= span else usual, shift)
    return worst > span, most > infinity


@inner
def _prepare_quotients(amax, derived, scales, runs, count, p, s):
    """What `_element_vector` needs of runs under other scales; (irregular, has NaN)."""
    z = runs[0]
    one, zero, infinity = like(z, 1), like(z, 0), like(z, p[INFINITY])
    factor, top = as_float(like(z, s[FACTOR])), as_float(like(z, s[TOP]))
    lowest = like(z, s[LEAST_DIVISOR])
    span = sub(like(z, s[MOST_DIVISOR]), lowest)
    unit = as_float(like(z, s[UNIT]))
    highs, lows, divisors = runs[RUNS:], runs[2 * RUNS :], runs[3 * RUNS :]
    worst, most = zero, zero
    for i in range(count):
        d = as_float(scales[i]) * factor
        pattern = as_bits(d)
        above = sub(pattern, lowest)
        empty = derived & (amax[i] == zero)
        worst = umax(worst, zero if (sub(pattern, one) >= infinity) | empty else above)
        most = umax(most, pattern)
        d = d if above <= span else unit
        high = unit / d
        runs[i] = as_bits(top * d) if above <= span else zero  # zero makes all elements zeros
        highs[i] = as_bits(high)
        lows[i] = as_bits(fma(-high, d, unit) * high)
        divisors[i] = as_bits(d)
    return worst > span, most > infinity


@inner
def _elements(x, at, out, to, count, pitch, runs, record, kind, result, vectors):
    lanes = VECTOR // runs.itemsize
    if len(vectors) == len(SINGLE):
        for v in range(0, count, lanes):
            _element_vector(x, at + v, out, to + v, runs, v, record, kind, result, vectors)
    elif len(vectors) == len(MANY):
        for i in range(count):
            for j in range(i * pitch, (i + 1) * pitch, lanes):
                _element_vector(x, at + j, out, to + j, runs, i, record, kind, result, vectors)
    else:
        for i in range(count):
            j = i * pitch
            _element_vector(x, at + j, out, to + j, runs, i, record, kind, result, vectors)


@inner
def _mark_nan(out, to, scales, count, pitch, p, value):
    infinity, filled = like(scales[0], p[INFINITY]), like(out[0], value)
    for i in range(count):
        if scales[i] > infinity:
            for j in range(i * pitch, (i + 1) * pitch):
                out[to + j] = filled


@inner
def _record(z, p):
    return (
        like(z, p[0]), like(z, p[1]), like(z, p[2]), like(z, p[3]), like(z, p[4]),
        like(z, p[5]), like(z, p[6]), like(z, p[7]), like(z, p[8]), like(z, p[9]),
        like(z, p[10]), like(z, p[11]), like(z, p[12]), like(z, p[13]), like(z, p[14]),
        like(z, p[15]), like(z, p[16]), like(z, p[17]), like(z, p[18]),
    )  # fmt: skip


@kernel
def blocks(
    x, out, scales, odd, p, s, height, width, section, kind, result, vectors, origin, packing
):
    """Elements of all blocks: values or codes (patterns and codes as unsigned integers, 2-D).

    `scales` has a row per `height` rows of `x` and a column per `width` columns; it is filled
    if `origin` is DERIVED. `odd`, by rows of blocks and by sections of `section` columns,
    tells which sections were not regular; there, nothing is written but scales. Under `packing`
    `out` holds two codes a byte and has one row.
    """
    z = x[0, 0]
    rows, columns = x.shape
    record = _record(z, p)
    magnitude = like(z, p[MAGNITUDE])
    derived = len(origin) == len(DERIVED)
    filled = s[NAN] if len(result) < len(SIGNED_CODES) else np.uint64(0)
    lanes = VECTOR // x.itemsize
    pitch = 1 if len(vectors) == len(SINGLE) else -(-width // lanes) * lanes
    amax, runs = np.empty(2 * RUNS, x.dtype), np.empty(4 * RUNS, x.dtype)
    room = -(-section // width) * pitch + VECTOR
    buffer, result_buffer = np.empty(room, x.dtype), np.empty(room, out.dtype)
    for band_index in range(scales.shape[0]):
        first, last = band_index * height, min((band_index + 1) * height, rows)
        for part in range(odd.shape[1]):
            start = part * section
            size = min(section, columns - start)
            count = -(-size // width)
            aligned = size % lanes == 0 if pitch == 1 else width == pitch and size % width == 0
            place = scales[band_index, start // width : start // width + count]
            irregular, has_nan = False, False
            if derived:
                for r in range(first, last):
                    source, at = x[r], start
                    if not aligned:
                        _copy_runs(source, at, buffer, size, width, pitch)
                        source, at = buffer, 0
                    _largest(source, at, count, pitch, amax, magnitude, vectors, r > first)
                irregular, has_nan = _derive(amax, place, count, p, s)
            if len(kind) == len(POWERS):
                bad, nan_too = _prepare_powers(amax, derived, place, runs, count, p, s)
            else:
                bad, nan_too = _prepare_quotients(amax, derived, place, runs, count, p, s)
            has_nan |= nan_too
            odd[band_index, part] = irregular | bad
            if irregular | bad:
                continue
            for r in range(first, last):
                source, at, target, to = x[r], start, out[r], start
                if not aligned:
                    _copy_runs(source, at, buffer, size, width, pitch)
                    source, at = buffer, 0
                if not aligned or len(packing) == len(PACKED):
                    target, to = result_buffer, 0
                _elements(source, at, target, to, count, pitch, runs, record, kind, result, vectors)
                if has_nan:
                    _mark_nan(target, to, place, count, pitch, p, filled)
                if len(packing) == len(PACKED):
                    _pack_nibbles(target, out[r], start, size)
                elif not aligned:
                    _copy_back(target, out[r], start, size, width, pitch)


@inner
def _prepare_products(scales, runs, count, p, s):
    """What `_element_vector` needs of runs of codes; (irregular, has NaN)."""
    z = runs[0]
    one, zero, infinity = like(z, 1), like(z, 0), like(z, p[INFINITY])
    factor, limit = as_float(like(z, s[FACTOR])), like(z, s[MOST_FACTOR])
    empty = like(z, s[EMPTY])
    worst, most = zero, zero
    for i in range(count):
        d = as_bits(as_float(scales[i]) * factor)
        worst = umax(worst, zero if sub(d, one) >= infinity else d)
        most = umax(most, d)
        runs[i] = empty if d == zero else d
    return worst > limit, most > infinity


@inner
def _unpack_nibbles(source, at, target, count):
    pairs, piece = target.view(np.uint16), source[at // 2 : (at + count) // 2]
    z = pairs[0]
    for i in range(piece.size):
        pair = like(z, piece[i])
        pairs[i] = band(bor(pair, shl(pair, like(z, 4))), like(z, 0x0F0F))


@inner
def _beyond(codes, at, count, mask, top):
    """Whether a magnitude code is above the largest finite one."""
    z, piece = codes[0], codes[at : at + count]
    peak, mask = like(z, 0), like(z, mask)
    for i in range(piece.size):
        peak = umax(peak, band(piece[i], mask))
    return peak > like(z, top)


@kernel
def values(codes, out, scales, odd, p, s, height, width, section, kind, result, vectors, packing):
    """The values of codes; as `blocks`. Sections with codes of NaN or infinities are not regular.

    Or quotients or products of patterns of floats, by `kind`.
    Under `packing` `codes` holds two codes a byte and has one row.
    """
    z = out[0, 0]
    rows, columns = out.shape
    record = _record(z, p)
    checked = p[CODE_TOP] < p[CODE_MASK]
    lanes = VECTOR // out.itemsize
    pitch = 1 if len(vectors) == len(SINGLE) else -(-width // lanes) * lanes
    runs = np.empty(2 * RUNS, out.dtype)
    room = -(-section // width) * pitch + VECTOR
    buffer, result_buffer = np.empty(room, codes.dtype), np.empty(room, out.dtype)
    if len(kind) == len(TABLE_ONCE) or len(kind) == len(TABLE_TWICE):
        for code in range(lanes):
            buffer[code] = like(buffer[0], code)
        runs[0] = like(z, p[ONE])
        _element_vector(buffer, 0, runs, RUNS, runs, 0, record, ONCE, result, MANY)
    for band_index in range(scales.shape[0]):
        first, last = band_index * height, min((band_index + 1) * height, rows)
        for part in range(odd.shape[1]):
            start = part * section
            size = min(section, columns - start)
            count = -(-size // width)
            aligned = size % lanes == 0 if pitch == 1 else width == pitch and size % width == 0
            place = scales[band_index, start // width : start // width + count]
            irregular, has_nan = _prepare_products(place, runs, count, p, s)
            if checked:
                for r in range(first, last):
                    irregular |= _beyond(codes[r], start, size, p[CODE_MASK], p[CODE_TOP])
            odd[band_index, part] = irregular
            if irregular:
                continue
            for r in range(first, last):
                source, at, target, to = codes[r], start, out[r], start
                if len(packing) == len(PACKED):
                    _unpack_nibbles(source, at, buffer, size)
                    source, at = buffer, 0
                elif not aligned:
                    _copy_runs(source, at, buffer, size, width, pitch)
                    source, at = buffer, 0
                if not aligned:
                    target, to = result_buffer, 0
                _elements(source, at, target, to, count, pitch, runs, record, kind, result, vectors)
                if has_nan:
                    _mark_nan(target, to, place, count, pitch, p, s[NAN])
                if not aligned:
                    _copy_back(target, out[r], start, size, width, pitch)


@kernel
def power_scales(amax, scales, p, s):
    """Powers of two for largest magnitudes; whether one is out of the normal range."""
    odd, _ = _derive(amax, scales, amax.size, p, s)
    return odd


@kernel
def ratio_scales(scales, p, s):
    """The largest magnitudes by amax / qmax / outer, rounded to nearest even by addition."""
    z = scales[0]
    zero, infinity = like(z, 0), like(z, p[INFINITY])
    qmax, outer = as_float(like(z, s[QMAX])), as_float(like(z, p[OUTER]))
    over, lift, smallest = like(z, p[OVER]), like(z, p[LIFT]), like(z, p[SMALLEST])
    zero_scale, nan = like(z, s[ZERO_SCALE]), like(z, s[NAN])
    for i in range(scales.size):
        a = scales[i]
        ratio = umin(as_bits(as_float(a) / qmax / outer), over)
        g = as_float(add(umax(band(ratio, infinity), smallest), lift))
        scale = as_bits((as_float(ratio) + g) - g)
        scale = zero_scale if a == zero else scale
        scales[i] = nan if a >= infinity else scale


@kernel
def codes_of_powers(x, codes):
    """Powers of two and NaN, as float32 patterns, to E8M0."""
    for i in range(x.size):
        codes[i] = like(codes[i], shr(x[i], like(x[i], 23)))


@kernel
def powers_of_codes(codes, out):
    """E8M0 to float32 patterns: 2**-127 is subnormal, and 255 is NaN."""
    z = out[0]
    zero, last, low, nan = like(z, 0), like(z, 255), like(z, 1 << 22), like(z, 0x7FC00000)
    for i in range(codes.size):
        c = like(z, codes[i])
        power = low if c == zero else shl(c, like(z, 23))
        out[i] = nan if c == last else power


@kernel
def maxima(x, amax, p, height, width, section, vectors):
    """The largest magnitude of each block, as a pattern; above infinity for NaN."""
    rows, columns = x.shape
    lanes = VECTOR // x.itemsize
    magnitude = like(x[0, 0], p[MAGNITUDE])
    pitch = 1 if len(vectors) == len(SINGLE) else -(-width // lanes) * lanes
    found = np.empty(2 * RUNS, x.dtype)
    buffer = np.empty(-(-section // width) * pitch + VECTOR, x.dtype)
    for band_index in range(amax.shape[0]):
        first, last = band_index * height, min((band_index + 1) * height, rows)
        for start in range(0, columns, section):
            size = min(section, columns - start)
            count = -(-size // width)
            aligned = pitch == 1 or (width == pitch and size % width == 0)
            for r in range(first, last):
                source, at = x[r], start
                if not aligned:
                    _copy_runs(source, at, buffer, size, width, pitch)
                    source, at = buffer, 0
                _largest(source, at, count, pitch, found, magnitude, vectors, r > first)
            amax[band_index, start // width : start // width + count] = found[:count]
