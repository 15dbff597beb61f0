"""Numba kernels: one scalar core, in loops that LLVM vectorises.

Numba widens every operation on narrow integers to 64 bits, which halves or quarters the vector
width. The small intrinsics at the top keep the type of their first argument instead. Their
shifts have LLVM's meaning: an amount of the width or more gives a value that must not be
selected.

Everything that is compiled together lives in this one file, and the record of format parameters
is laid out here (`FIELDS`), because numba's cache looks only at the file of the function called.
"""

# Numba specialises these functions by their argument types, which annotations cannot name.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types

intrinsic: Any = numba.extending.intrinsic

# ------------------------------------------------------------------ intrinsics


def _binary(name: str) -> Any:
    @intrinsic
    def operation(context, a, b):
        def codegen(_, builder, signature, args):
            return getattr(builder, name)(*args)

        return a(a, a), codegen

    return operation


add = _binary("add")
sub = _binary("sub")
mul = _binary("mul")
band = _binary("and_")
bor = _binary("or_")
bxor = _binary("xor")
shl = _binary("shl")
shr = _binary("lshr")


def _choose(comparison: str) -> Any:
    @intrinsic
    def operation(context, a, b):
        def codegen(_, builder, signature, args):
            return builder.select(builder.icmp_unsigned(comparison, *args), *args)

        return a(a, a), codegen

    return operation


umax = _choose(">")
umin = _choose("<")


@intrinsic
def like(context, reference, value):
    """`value` truncated or zero-extended to the type of `reference`."""

    def codegen(_, builder, signature, args):
        wide, narrow = signature.args[0].bitwidth, args[1].type.width
        kind = ir.IntType(wide)
        if wide == narrow:
            return args[1]
        return builder.trunc(args[1], kind) if wide < narrow else builder.zext(args[1], kind)

    return reference(reference, value), codegen


@intrinsic
def lift(context, a):
    """A 16-bit pattern as uint32; wider ones as they are."""

    def codegen(_, builder, signature, args):
        small = signature.args[0].bitwidth < 32
        return builder.zext(args[0], ir.IntType(32)) if small else args[0]

    return (types.uint64 if a.bitwidth == 64 else types.uint32)(a), codegen


@intrinsic
def leading_bit(context, a):
    """Position of the highest set bit; the width - 1 wraps around for 0."""

    def codegen(_, builder, signature, args):
        kind = args[0].type
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(kind, kind.width - 1), zeros)

    return a(a), codegen


@intrinsic
def as_float(context, a):
    def codegen(_, builder, signature, args):
        single = signature.args[0].bitwidth == 32
        return builder.bitcast(args[0], ir.FloatType() if single else ir.DoubleType())

    return (types.float32 if a.bitwidth == 32 else types.float64)(a), codegen


@intrinsic
def as_bits(context, a):
    def codegen(_, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(signature.args[0].bitwidth))

    return (types.uint32 if a.bitwidth == 32 else types.uint64)(a), codegen


# ---------------------------------------------------------------- the record

FIELDS = (
    "mc", "sign", "infinity", "keep", "m", "shift", "emin_field", "quantum_field", "emin_bits",
    "quantum_bits", "parity", "deep", "floor_bits", "max_pos", "max_neg", "limit_pos", "over_pos",
    "over_neg", "inf_pos", "inf_neg", "nan", "zero_pos", "zero_neg", "tiny_neg", "random_bits",
    "variant", "code_sign", "code_offset", "twos", "code_inf", "code_nan", "code_top", "code_bits",
    "flush", "nan_from", "plain", "half", "minus", "odd_up", "away_pos", "away_neg", "odd_mode",
)  # fmt: skip
(
    MC, SIGN, INFINITY, KEEP, M, SHIFT, EMIN_FIELD, QUANTUM_FIELD, EMIN_BITS,
    QUANTUM_BITS, PARITY, DEEP, FLOOR_BITS, MAX_POS, MAX_NEG, LIMIT_POS, OVER_POS,
    OVER_NEG, INF_POS, INF_NEG, NAN, ZERO_POS, ZERO_NEG, TINY_NEG, RANDOM_BITS,
    VARIANT, CODE_SIGN, CODE_OFFSET, TWOS, CODE_INF, CODE_NAN, CODE_TOP, CODE_BITS,
    FLUSH, NAN_FROM, PLAIN, HALF, MINUS, ODD_UP, AWAY_POS, AWAY_NEG, ODD_MODE,
) = range(len(FIELDS))  # fmt: skip

VARIANT_A, VARIANT_B, VARIANT_C, VARIANT_EQUAL = range(4)


def _compiled(**options: Any) -> Any:
    def decorate(function: Any) -> Any:
        try:
            return numba.njit(nogil=True, error_model="numpy", cache=True, **options)(function)
        except RuntimeError:  # numba found no folder it may cache in; compile in every process
            return numba.njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


kernel = _compiled()
inner = _compiled(forceinline=True)

# -------------------------------------------------- nearest even, fast kernels


@inner
def _unaligned(out):
    """Elements to do first, so that a long rest is written in whole cache lines."""
    return min(np.int64(-out.ctypes.data % 64) // out.itemsize, out.size)


@kernel
def nearest_even_by_addition(x, out, p):
    """`_by_addition`, the unaligned head first."""
    saturates, bare_zero = p[OVER_POS] == p[MAX_POS], p[TINY_NEG] == 0
    head = _unaligned(out)
    for begin, end in ((0, head), (head, out.size)):
        piece, place = x[begin:end], out[begin:end]
        if bare_zero:
            _by_addition(piece, place, p, True, False)
        elif saturates:
            _by_addition(piece, place, p, False, True)
        else:
            _by_addition(piece, place, p, False, False)


@inner
def _by_addition(x, out, p, bare_zero, saturates):
    """Adding and subtracting 2**(e + mc - m) makes the hardware round |x| to the grid.

    For float32 and float64 patterns of formats that `_numba._by_addition` admits; `bare_zero`
    for those without -0; `saturates` where overflow gives the largest value, so that clamping
    first does it.
    """
    z = x[0]
    mc, sign, infinity = like(z, p[MC]), like(z, p[SIGN]), like(z, p[INFINITY])
    limit, over, nan = like(z, p[LIMIT_POS]), like(z, p[OVER_POS]), like(z, p[NAN])
    nan_from = like(z, p[NAN_FROM])
    smallest, lift_by = shl(like(z, p[EMIN_FIELD]), mc), shl(like(z, p[SHIFT]), mc)
    magnitude, zero = sub(sign, like(z, 1)), like(z, 0)
    for i in range(x.size):
        u = x[i]
        a = band(u, magnitude)
        clamped = umin(a, over) if saturates else a
        g = as_float(add(umax(band(clamped, infinity), smallest), lift_by))
        r = as_bits((as_float(clamped) + g) - g)
        if not saturates:
            r = over if a >= limit else r
        s = band(u, sign)
        if bare_zero:
            s = s if r != zero else zero
        r = bor(r, s)
        out[i] = nan if a >= nan_from else r


@kernel
def nearest_even_by_carry(x, out, p):
    """`_by_carry`, the unaligned head first."""
    head = _unaligned(out)
    for begin, end in ((0, head), (head, out.size)):
        _by_carry(x[begin:end], out[begin:end], p)


@inner
def _by_carry(x, out, p):
    """Half an ulp added to the pattern, for formats with the container's own exponent range."""
    z = x[0]
    one = like(z, 1)
    shift, sign = like(z, p[SHIFT]), like(z, p[SIGN])
    limit, over, nan = like(z, p[LIMIT_POS]), like(z, p[OVER_POS]), like(z, p[NAN])
    nan_from = like(z, p[NAN_FROM])
    magnitude = sub(sign, one)
    below_half = sub(shl(one, sub(shift, one)), one)
    kept = sub(like(z, 0), shl(one, shift))
    for i in range(x.size):
        u = x[i]
        a = band(u, magnitude)
        r = band(add(add(a, below_half), band(shr(a, shift), one)), kept)
        r = over if a >= limit else r
        r = bor(r, band(u, sign))
        out[i] = nan if a >= nan_from else r


PAIRS = 1024


@kernel
def nearest_even_bfloat16_pairs(x, out, halves, p):
    """bfloat16 patterns two by two in a uint32, each half rounded as a float32 by addition.

    `halves` is `x` as uint16; the powers of two that are added are bfloat16 values, so they are
    made in 16-bit lanes. Runs with an overflow or NaN, which are rare, take the slower loop.
    """
    h = halves[0]
    magnitude, infinity, limit = like(h, 0x7FFF), like(h, 0x7F80), like(h, p[LIMIT_POS])
    seven = like(h, 7)
    smallest = shl(like(h, p[EMIN_FIELD]), seven)
    lift_by = shl(like(h, p[SHIFT] + np.uint64(16)), seven)
    added = np.empty(2 * PAIRS, np.uint16)
    powers = added.view(np.uint32)
    for start in range(0, x.size, PAIRS):
        piece, place = x[start : start + PAIRS], out[start : start + PAIRS]
        run = halves[2 * start : 2 * start + 2 * piece.size]
        peak = like(h, 0)
        for i in range(run.size):
            a = band(run[i], magnitude)
            peak = umax(peak, a)
            added[i] = add(umax(band(a, infinity), smallest), lift_by)
        if peak < limit:
            _bfloat16_pairs(piece, place, powers[: piece.size])
        else:
            _bfloat16_pairs_with_edges(piece, place, p)


@inner
def _bfloat16_pairs(x, out, powers):
    z = x[0]
    high, sixteen, signs = like(z, 0x7FFF0000), like(z, 16), like(z, 0x80008000)
    upper = like(z, 0xFFFF0000)
    for i in range(x.size):
        u, g = x[i], powers[i]
        above, below = as_float(band(g, upper)), as_float(shl(g, sixteen))
        r = as_bits((as_float(band(u, high)) + above) - above)
        s = as_bits((as_float(band(shl(u, sixteen), high)) + below) - below)
        out[i] = bor(bor(r, shr(s, sixteen)), band(u, signs))


@inner
def _bfloat16_pairs_with_edges(x, out, p):
    z = x[0]
    high, sixteen, infinity = like(z, 0x7FFF0000), like(z, 16), like(z, 0x7F800000)
    limit, nan_from = shl(like(z, p[LIMIT_POS]), sixteen), shl(like(z, p[NAN_FROM]), sixteen)
    over, nan, mc = like(z, p[OVER_POS]), like(z, p[NAN]), like(z, 23)
    smallest, lift_by = shl(like(z, p[EMIN_FIELD]), mc), shl(add(like(z, p[SHIFT]), sixteen), mc)
    for i in range(x.size):
        u = x[i]
        result = like(z, 0)
        for half in range(2):
            v = shl(u, sixteen) if half == 0 else u
            a = band(v, high)
            g = as_float(add(umax(band(a, infinity), smallest), lift_by))
            r = shr(as_bits((as_float(a) + g) - g), sixteen)
            r = over if a >= limit else r
            r = bor(r, shl(shr(v, like(z, 31)), like(z, 15)))
            r = nan if a >= nan_from else r
            result = bor(result, r if half == 0 else shl(r, sixteen))
        out[i] = result


# --------------------------------------------------------- the general kernel


@inner
def _edge_record(z, p):
    """The result patterns of `_edges`, read once before a loop."""
    return (
        like(z, p[FLOOR_BITS]), like(z, p[SIGN]), like(z, p[INFINITY]), like(z, p[NAN]),
        like(z, p[MAX_POS]), like(z, p[OVER_POS]), like(z, p[ZERO_POS]), like(z, p[INF_POS]),
        like(z, p[MAX_NEG]), like(z, p[OVER_NEG]), like(z, p[ZERO_NEG]), like(z, p[INF_NEG]),
        like(z, p[TINY_NEG]),
    )  # fmt: skip


@inner
def _edges(a, negative, r, record):
    """Rounded magnitude `r` of input magnitude `a` to the result, edges last."""
    (
        floor, sign, infinity, nan, max_pos, over_pos, zero_pos, inf_pos,
        max_neg, over_neg, zero_neg, inf_neg, tiny_neg,
    ) = record  # fmt: skip
    zero = like(a, 0)
    r = umax(r, floor)
    top = max_neg if negative else max_pos
    over = over_neg if negative else over_pos
    tiny = tiny_neg if negative else zero
    result = bor(r, sign) if negative else r
    result = tiny if r == zero else result
    result = over if r > top else result
    nothing = zero_neg if negative else zero_pos
    result = nothing if a == zero else result
    infinite = inf_neg if negative else inf_pos
    result = infinite if a == infinity else result
    return nan if a > infinity else result


@inner
def _grid_record(z, p):
    """The format parameters of `_locate`, read once before a loop."""
    return (
        like(z, p[MC]), like(z, p[M]), like(z, p[SHIFT]), like(z, p[QUANTUM_FIELD]),
        like(z, p[EMIN_BITS]),
    )  # fmt: skip


@inner
def _locate(a, record, deep):
    """(sig, drop, lead field): the significand, the bits to drop, the unbounded exponent field."""
    mc, m, shift, quantum_field, emin_bits = record
    one = like(a, 1)
    field = umax(shr(a, mc), one)
    sig = sub(a, shl(sub(field, one), mc))
    lead = leading_bit(sig) if deep else mc
    normal = sub(lead, m) if deep else shift
    drop = normal if a >= emin_bits else sub(quantum_field, field)
    return sig, drop, add(sub(lead, mc), field)


@inner
def _round_loop(x, out, p, deep):
    z = lift(x[0])
    one, zero, mc = like(z, 1), like(z, 0), like(z, p[MC])
    cap, sign, keep = add(mc, like(z, 2)), like(z, p[SIGN]), like(z, p[KEEP])
    powers_of_two, emin_bits = p[M] == 0, like(z, p[EMIN_BITS])
    half_on, minus, odd_up = like(z, p[HALF]), like(z, p[MINUS]), like(z, p[ODD_UP])
    odd_mode, parity, quantum = like(z, p[ODD_MODE]), like(z, p[PARITY]), like(z, p[QUANTUM_BITS])
    away_pos, away_neg = like(z, p[AWAY_POS]), like(z, p[AWAY_NEG])
    grid, edges = _grid_record(z, p), _edge_record(z, p)
    for i in range(x.size):
        u = band(lift(x[i]), keep)
        a = band(u, sub(sign, one))
        negative = u != a
        sig, drop, lead_field = _locate(a, grid, deep)
        drop = umin(drop, cap)
        step = shl(one, drop)
        mask = sub(step, one)
        odd = band(shr(sig, drop), one)
        by_exponent = band(bxor(lead_field, parity), one) if a >= emin_bits else zero
        odd = by_exponent if powers_of_two else odd
        away = away_neg if negative else away_pos
        nearest = sub(add(band(shr(step, one), half_on), band(odd, odd_up)), minus)
        outward = bor(away, band(sub(odd, one), odd_mode))
        # One of the two is zero: nearest modes have no outward mask and the reverse.
        increment = band(bor(nearest, outward), mask)
        r = band(add(a, increment), sub(zero, step))
        jump = quantum if add(sig, increment) >= step else zero
        r = jump if drop > mc else r
        out[i] = like(out[i], _edges(a, negative, r, edges))


@kernel
def round_any(x, out, p):
    """Every deterministic mode, format and policy; uint16, uint32 or uint64 patterns."""
    if p[DEEP]:
        _round_loop(x, out, p, True)
    else:
        _round_loop(x, out, p, False)


# ------------------------------------------------------------------- draws

CHUNK = 2048  # elements drawn at a time, so that words and lanes stay in the first-level cache


@inner
def _draw(pairs, start, count, lanes_log2, seed, stream):
    """Fill `pairs` with the blocks of elements start.. start + count - 1; where they begin.

    Words 0 and 1 of a block share one uint64, words 2 and 3 the next. The counters live in
    64-bit lanes whose upper halves are garbage: a 32 x 32 bit product looks at the lower ones
    only, so that nothing is narrowed and widened again between rounds.
    """
    one, shift, low = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    skipped = np.int64(band(start, sub(shl(one, lanes_log2), one)))
    blocks = (skipped + count + (1 << np.int64(lanes_log2)) - 1) >> np.int64(lanes_log2)
    first = shr(start, lanes_log2)
    stream_high = shr(stream, shift)
    for j in range(blocks):
        c0 = add(first, np.uint64(j))
        c1, c2, c3 = shr(c0, shift), stream, stream_high
        k0, k1 = seed, shr(seed, shift)
        for _ in range(10):
            p0, p1 = mul(band(c0, low), m0), mul(band(c2, low), m1)
            c0 = bxor(bxor(shr(p1, shift), c1), k0)
            c2 = bxor(bxor(shr(p0, shift), c3), k1)
            c1, c3 = p1, p0
            k0, k1 = add(k0, np.uint64(0x9E3779B9)), add(k1, np.uint64(0xBB67AE85))
        pairs[2 * j] = bor(band(c0, low), shl(c1, shift))
        pairs[2 * j + 1] = bor(band(c2, low), shl(c3, shift))
    return skipped


@inner
def _run(k, done, size):
    """(global index, length) of the longest run of consecutive indices from element `done`.

    A run ends with its row, and where indices wrap at 2**64, because blocks are counted on.
    """
    local, one = add(k[5], np.uint64(done)), np.uint64(1)
    start, length = add(k[2], local), np.uint64(size - done)
    if k[3] != np.uint64(0):
        row = local // k[3]
        column = sub(local, mul(row, k[3]))
        start = add(add(k[2], mul(row, k[4])), column)
        length = umin(length, sub(k[3], column))
    until_wrap = sub(np.uint64(0), start)
    return start, np.int64(add(umin(sub(length, one), sub(until_wrap, one)), one))


@inner
def _pairs():
    return np.empty(CHUNK // 2 + 16, np.uint64)


@inner
def _fill_lanes(out, k, lanes_log2):
    pairs = _pairs()
    lanes = pairs.view(out.dtype)
    done = 0
    while done < out.size:
        start, length = _run(k, done, out.size)
        count = min(length, CHUNK)
        skipped = _draw(pairs, start, count, lanes_log2, k[0], k[1])
        out[done : done + count] = lanes[skipped : skipped + count]
        done += count


@kernel
def fill_lanes_8(out, k):
    _fill_lanes(out, k, np.uint64(4))


@kernel
def fill_lanes_16(out, k):
    _fill_lanes(out, k, np.uint64(3))


@kernel
def fill_lanes_32(out, k):
    _fill_lanes(out, k, np.uint64(2))


# -------------------------------------------------------- stochastic rounding


@inner
def _stochastic_a_loop(x, out, lanes, p, lane_bits, deep):
    """Variant A in 32 bits: a carry out of the fraction's top 32 bits plus the draw."""
    z = lift(x[0])
    one, zero, mc, sign = like(z, 1), like(z, 0), like(z, p[MC]), like(z, p[SIGN])
    keep, quantum = like(z, p[KEEP]), like(z, p[QUANTUM_BITS])
    align = like(z, 32 - lane_bits)
    drawn = sub(zero, shl(one, sub(like(z, 32), like(z, p[RANDOM_BITS]))))
    cap, last = like(z, 63), like(z, 31)
    grid, edges = _grid_record(z, p), _edge_record(z, p)
    for i in range(x.size):
        u = band(lift(x[i]), keep)
        a = band(u, sub(sign, one))
        sig, drop, _ = _locate(a, grid, deep)
        drop = umin(drop, cap)
        draw = band(shl(like(z, lanes[i]), align), drawn)
        near = shl(shl(sig, one), sub(last, drop))
        far = shr(sig, sub(sub(drop, last), one))
        fraction = near if drop <= last else far
        up = add(fraction, draw) < draw
        step = shl(one, drop)
        r = add(band(a, sub(zero, step)), step if up else zero)
        r = (quantum if up else zero) if drop > mc else r
        out[i] = like(out[i], _edges(a, u != a, r, edges))


@inner
def _stochastic_a_plain_loop(x, out, lanes, p, lane_bits):
    """Variant A of float32 patterns, for formats that `_numba._is_plain_stochastic` admits.

    At or above one quantum the draw is added to the pattern under the dropped bits; below, the
    whole significand is fraction. Subnormal inputs lie so far below that nothing is left of them.
    """
    z = lift(x[0])
    one, zero, mc, sign = like(z, 1), like(z, 0), like(z, p[MC]), like(z, p[SIGN])
    quantum_field, emin_field = like(z, p[QUANTUM_FIELD]), like(z, p[EMIN_FIELD])
    quantum, top, over = like(z, p[QUANTUM_BITS]), like(z, p[MAX_POS]), like(z, p[OVER_POS])
    infinity, nan, over_nan = like(z, p[INFINITY]), like(z, p[NAN]), p[OVER_POS] == p[NAN]
    magnitude = sub(sign, one)
    align = like(z, 32 - lane_bits)
    drawn = sub(zero, shl(one, sub(like(z, 32), like(z, p[RANDOM_BITS]))))
    width, last = like(z, 32), like(z, 31)
    to_top, below_top = sub(last, mc), add(mc, one)
    over_sign = zero if over_nan else sign
    for i in range(x.size):
        u = x[i]
        a = band(u, magnitude)
        drop = sub(quantum_field, umin(shr(a, mc), emin_field))
        draw = band(shl(like(z, lanes[i]), align), drawn)
        near = band(add(a, shr(draw, sub(width, drop))), shl(like(z, 0xFFFFFFFF), drop))
        fraction = shr(bor(shl(a, to_top), sign), umin(sub(drop, below_top), last))
        far = quantum if add(fraction, draw) < draw else zero
        r = far if drop > mc else near
        r = bor(r, band(u, sign))
        beyond = band(r, magnitude) > top
        r = bor(over, band(u, over_sign)) if beyond else r
        out[i] = nan if a > infinity else r


@inner
def _stochastic_loop(x, out, lanes, p, lane_bits, deep):
    """Every variant in 64 bits: the fraction's top 64 bits (sticky), a rounding term, the draw."""
    z = np.uint64(0)
    one, zero, mc, sign = like(z, 1), like(z, 0), p[MC], p[SIGN]
    bits, variant = p[RANDOM_BITS], p[VARIANT]
    align, last = like(z, 64 - lane_bits), like(z, 63)
    drawn = sub(zero, shl(one, sub(like(z, 64), bits)))
    half = shl(one, sub(last, bits))
    keep, quantum = p[KEEP], p[QUANTUM_BITS]
    grid, edges = _grid_record(z, p), _edge_record(z, p)
    for i in range(x.size):
        u = band(like(z, x[i]), keep)
        a = band(u, sub(sign, one))
        sig, drop, _ = _locate(a, grid, deep)
        drop = umin(drop, like(z, 127))
        draw = band(shl(like(z, lanes[i]), align), drawn)
        near = shl(shl(sig, one), sub(last, drop))
        beyond = sub(sub(drop, last), one)
        far = shr(sig, beyond)
        far = bor(far, like(z, shl(far, beyond) != sig))
        fraction = near if drop <= last else far
        term = zero
        if variant == VARIANT_B:
            term = half
        elif variant == VARIANT_C:
            term = add(sub(half, one), band(shr(fraction, sub(like(z, 64), bits)), one))
        rounded = add(fraction, term)
        total = add(rounded, draw)
        up = (rounded < term) | (total < draw)
        if variant == VARIANT_EQUAL:
            up = (fraction != zero) & (draw != zero)
        step = shl(one, drop)
        r = add(band(a, sub(zero, step)), step if up else zero)
        r = (quantum if up else zero) if drop > mc else r
        out[i] = like(out[i], _edges(a, u != a, r, edges))


@inner
def _stochastic(x, out, p, k, kind, lane_bits, lanes_log2):
    pairs = _pairs()
    lanes = pairs.view(kind)
    done = 0
    while done < x.size:
        start, length = _run(k, done, x.size)
        count = min(length, CHUNK)
        skipped = _draw(pairs, start, count, lanes_log2, k[0], k[1])
        piece, place = x[done : done + count], out[done : done + count]
        drawn = lanes[skipped : skipped + count]
        if p[PLAIN]:
            _stochastic_a_plain_loop(piece, place, drawn, p, lane_bits)
        elif p[VARIANT] != VARIANT_A or p[MC] > 23:
            if p[DEEP]:
                _stochastic_loop(piece, place, drawn, p, lane_bits, True)
            else:
                _stochastic_loop(piece, place, drawn, p, lane_bits, False)
        elif p[DEEP]:
            _stochastic_a_loop(piece, place, drawn, p, lane_bits, True)
        else:
            _stochastic_a_loop(piece, place, drawn, p, lane_bits, False)
        done += count


@kernel
def stochastic_8(x, out, p, k):
    _stochastic(x, out, p, k, np.uint8, 8, np.uint64(4))


@kernel
def stochastic_16(x, out, p, k):
    _stochastic(x, out, p, k, np.uint16, 16, np.uint64(3))


@kernel
def stochastic_32(x, out, p, k):
    _stochastic(x, out, p, k, np.uint32, 32, np.uint64(2))


# --------------------------------------------------------------------- noise

ROUNDED_GAUSSIAN, GAUSSIAN, UNIFORM = range(3)


@kernel
def add_noise(w, out, delta, kind, table, k):
    """``w + R * delta``, a product and a sum, each rounded; `w` where the product is zero."""
    pairs = _pairs()
    lanes = pairs.view(np.uint16)
    done = 0
    while done < w.size:
        start, length = _run(k, done, w.size)
        count = min(length, CHUNK)
        skipped = _draw(pairs, start, count, np.uint64(3), k[0], k[1])
        for i in range(count):
            u = np.int32(lanes[skipped + i])
            if kind == ROUNDED_GAUSSIAN:
                v = u & 0x7FFF
                size = np.float32(np.int32(v < 10398) + np.int32(v < 88))
                r = -size if u >= 0x8000 else size
            elif kind == UNIFORM:
                r = np.float32(2 * u + 1 - 65536) * np.float32(2.0**-17)
            else:
                r = table[u]
            j = done + i
            term = r * delta[j]
            out[j] = w[j] if r == 0 or term == 0 else w[j] + term
        done += count


# --------------------------------------------------------------------- codes


@inner
def _encode_loop(x, out, p, deep):
    z = np.uint64(0)
    one, sign, m = like(z, 1), p[SIGN], p[M]
    offset, emin_bits, infinity = p[CODE_OFFSET], p[EMIN_BITS], p[INFINITY]
    code_sign, code_inf, code_nan, twos = p[CODE_SIGN], p[CODE_INF], p[CODE_NAN], p[TWOS] != 0
    wrap, first_normal = sub(shl(code_sign, one), one), shl(one, m)
    grid = _grid_record(z, p)
    for i in range(x.size):
        u = like(z, x[i])
        a = band(u, sub(sign, one))
        negative = u != a
        sig, drop, lead_field = _locate(a, grid, deep)
        # Normal values: exponent field and trailing bits; below: a count of quanta.
        field = sub(add(lead_field, like(z, 1 << 16)), offset)
        code = add(sub(shr(sig, drop), first_normal), shl(field, m))
        code = first_normal if twos else code  # only -2**m lies up there
        code = code if a >= emin_bits else shr(sig, umin(drop, like(z, 63)))
        code = code_inf if a == infinity else code
        signed = band(sub(like(z, 0), code), wrap) if twos else bor(code, code_sign)
        code = signed if negative else code
        code = code_nan if a > infinity else code
        out[i] = like(out[i], code)


@kernel
def encode_any(x, out, p):
    """Patterns of members to codes."""
    if p[DEEP]:
        _encode_loop(x, out, p, True)
    else:
        _encode_loop(x, out, p, False)


@kernel
def decode_any(codes, out, p):
    """Codes to patterns, in 64-bit integers."""
    z = np.uint64(0)
    one, zero, mc, m, sign = like(z, 1), like(z, 0), p[MC], p[M], p[SIGN]
    code_sign, top = p[CODE_SIGN], p[CODE_TOP]
    nan = bor(p[INFINITY], shl(one, sub(mc, one)))
    bias = like(z, 1 << 16)
    first_normal = shl(one, m)
    for i in range(codes.size):
        c = like(z, codes[i])
        negative = band(c, code_sign) != zero
        magnitude = c
        if p[TWOS]:
            magnitude = band(sub(zero, c), sub(shl(code_sign, one), one)) if negative else c
        elif code_sign != zero:
            magnitude = band(c, sub(code_sign, one))
        counted = magnitude < first_normal and p[FLOOR_BITS] == zero
        counted = counted or p[TWOS] != zero
        # Value = significand * 2**(place - 1) quanta of the container's smallest subnormal.
        field = shr(magnitude, m)
        significand = magnitude if counted else bor(
            band(magnitude, sub(first_normal, one)), first_normal
        )  # fmt: skip
        place = p[QUANTUM_FIELD] if counted else sub(
            add(add(field, p[CODE_OFFSET]), sub(mc, m)), bias
        )  # fmt: skip
        lead = leading_bit(bor(significand, one))
        # biased field of the result, kept positive by the bias that fields are stored with
        result_field = sub(add(add(lead, place), bias), mc)
        normal = result_field > bias
        shifted = shl(significand, sub(mc, lead)) if lead <= mc else significand
        pattern = add(
            band(shifted, sub(shl(one, mc), one)), shl(sub(result_field, bias), mc)
        )  # fmt: skip
        pattern = pattern if normal else shl(significand, band(sub(place, one), like(z, 63)))
        pattern = zero if significand == zero else pattern
        if p[FLUSH]:
            pattern = zero if magnitude < first_normal else pattern
        pattern = bor(pattern, sign) if negative else pattern
        pattern = p[TINY_NEG] if pattern == sign else pattern
        if not p[TWOS]:
            special = nan
            if p[CODE_INF] != zero and magnitude == p[CODE_INF]:
                special = bor(p[INFINITY], sign) if negative else p[INFINITY]
            pattern = special if magnitude > top else pattern
            # NaN in the place of -0
            if c == code_sign and p[CODE_NAN] == code_sign and code_sign != zero:
                pattern = nan
        out[i] = like(out[i], pattern)


@kernel
def look_up(index, out, table):
    """``out = table[index]``, for unsigned indices within the table."""
    for i in range(index.size):
        out[i] = table[index[i]]
