"""Rounding of patterns with NumPy's integer operations, for every format, mode and policy.

Magnitudes are patterns without the sign, so they are ordered as integers and a carry out of the
significand reaches the exponent by itself. Everything here works on one chunk, in uint32 for
containers of up to 32 bits and in uint64 for float64.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu.lowering import FIELD_OFFSET, Mode, Params

Words: TypeAlias = NDArray[Any]

# With this many dropped bits more than the significand has, the discarded fraction is below
# 2**-33, and all that a stochastic variant can still see of it is whether it is zero.
_BEYOND = 40


def word(p: Params) -> type[Any]:
    """The type that chunks of this container are worked on in."""
    return np.uint64 if p.width == 64 else np.uint32


def first_field(p: Params) -> int:
    """The container's exponent field of the first normal binade of the format."""
    return p.emin_field - FIELD_OFFSET


def at_least(a: Words, low: int) -> Words:
    """maximum(a, low); NumPy's clip with both bounds is several times faster."""
    clipped: Words = a.clip(low, np.iinfo(a.dtype).max)
    return clipped


def at_most(a: Words, high: int) -> Words:
    """minimum(a, high)."""
    clipped: Words = a.clip(0, high)
    return clipped


def float_fields(a: Words) -> tuple[Words, int, int]:
    """The exponent fields of integers as floats of their width, with that float's bias and
    mantissa bits: so they show the position of the leading bit. `a` must convert exactly.
    """
    if a.dtype == np.uint64:
        return a.astype(np.float64).view(np.uint64) >> 52, 1023, 52
    return a.astype(np.float32).view(np.uint32) >> 23, 127, 23


def significand(a: Words, p: Params) -> Words:
    """The magnitudes in units of their last place: the hidden bit is there, the field is not."""
    field = at_least(a >> p.mc, 1)
    field -= 1
    field <<= p.mc
    return a - field


def _leads(a: Words, p: Params) -> tuple[Words, int, int]:
    """For deep formats: the binades from the first normal one up to the container's first normal
    one, by leading bit, and the numbers of these two.
    """
    fields, bias, _ = float_fields(at_most(a, 1 << p.mc))
    low, high = first_field(p) + bias + p.mc - 1, bias + p.mc
    return fields.clip(low, high), low, high


def binade(a: Words, p: Params) -> Words:
    """The binade of each magnitude, counted from the format's first normal one; 0 below it."""
    field = a >> p.mc
    if not p.deep:
        field = at_least(field, first_field(p))
        field -= first_field(p)
        return field
    leads, low, _ = _leads(a, p)
    leads -= low
    leads += at_least(field, 1)
    leads -= 1
    return leads


def dropped(a: Words, p: Params, most: int) -> Words:
    """How many low bits of the significand are below the format's last place there, `most` at
    most. Under `flush`: how many there would be with subnormals.
    """
    if p.deep:
        leads, _, high = _leads(a, p)
        leads -= high - p.shift
        return leads
    emin = first_field(p)
    quantum = emin + p.mc - p.m
    field: Words = (a >> p.mc).clip(max(1, quantum - most), min(emin, quantum))
    return np.subtract(quantum, field, out=field)


def round_patterns(x: Words, p: Params, lanes: Words | None = None) -> Words:
    """The patterns `x` rounded; `lanes` are the raw lanes of the elements for stochastic modes."""
    u = x.astype(word(p), copy=False)
    if p.keep != 2 * p.sign - 1:
        u = u & p.keep
    a = u & p.sign - 1
    r = _deterministic(a, u, p) if lanes is None else _stochastic(a, lanes, p)
    if p.floor_bits:
        r = at_least(r, p.floor_bits)
    result: Words = u ^ a
    if p.tiny_neg != p.sign:
        result *= r != 0
    result |= r
    _edges(result, r, a, u, p)
    return result.astype(x.dtype, copy=False)


def _edges(result: Words, r: Words, a: Words, u: Words, p: Params) -> None:
    """Put the policy's patterns where a magnitude is beyond the range, and for inf, NaN and zero.

    The few elements concerned are picked out; the rest pay for one maximum.
    """
    signed = p.code_sign != 0
    top = min(p.max_pos, p.max_neg) if signed else p.max_pos
    seen = r if signed else result  # negatives of unsigned formats are beyond by their sign bit
    zeros = p.zero_pos != 0 or p.zero_neg != p.tiny_neg
    if not zeros and np.maximum.reduce(seen, initial=0) <= top:
        return
    beyond = seen > top
    if zeros:
        beyond |= a == 0
    at = np.flatnonzero(beyond)
    kind = word(p)
    magnitude, rounded, negative = a[at], r[at], u[at] >= p.sign

    def by_sign(pos: int, neg: int) -> Words:
        chosen: Words = np.where(negative, kind(neg), kind(pos))
        return chosen

    value = by_sign(p.over_pos, p.over_neg)
    value = np.where(rounded <= by_sign(p.max_pos, p.max_neg), result[at], value)
    value = np.where(magnitude == p.infinity, by_sign(p.inf_pos, p.inf_neg), value)
    value = np.where(magnitude > p.infinity, kind(p.nan), value)
    value = np.where(magnitude == 0, by_sign(p.zero_pos, p.zero_neg), value)
    result[at] = value


def _deterministic(a: Words, u: Words, p: Params) -> Words:
    """The magnitudes rounded, with no upper limit on the exponent."""
    kind = word(p)
    mode = Mode(p.mode_pos)
    away = None
    least: Words | int = _least(mode, p)
    if p.mode_pos != p.mode_neg:  # directed: away from zero for one sign, towards it for the other
        away = (u >= p.sign) == (p.mode_neg == Mode.AWAY)
        least = kind(p.quantum_bits) - away * kind(p.quantum_bits - 1)
    # A magnitude below the quantum becomes the quantum or zero, which one comparison decides.
    # After that no element drops more bits than its significand has.
    b = at_least(a, p.quantum_bits)
    b *= a >= least

    drop = dropped(b, p, p.mc)
    high: Words = ~kind(0) << drop
    if away is not None:
        add = ~high
        add *= away
    else:
        add = _addend(mode, b, drop, ~high, p)
    add += b
    add &= high
    return add


def _least(mode: Mode, p: Params) -> int:
    """The smallest magnitude that does not round to zero, the quantum at most."""
    if mode is Mode.TRUNCATE:
        return p.quantum_bits
    if mode in (Mode.AWAY, Mode.ODD):
        return 1
    normal = 1 << p.mc
    small = p.quantum_bits < 2 * normal
    half = p.quantum_bits >> 1 if small else p.quantum_bits - normal
    return max(half, 1) if mode is Mode.NEAREST_AWAY else half + 1


def _addend(mode: Mode, b: Words, drop: Words, add: Words, p: Params) -> Words:
    """What carries out of the dropped bits, `add` at most, where the mode goes away from zero."""
    match mode:
        case Mode.TRUNCATE:
            add *= 0
        case Mode.NEAREST_AWAY:
            add -= add >> 1
        case Mode.NEAREST_ZERO:
            add >>= 1
        case Mode.NEAREST_EVEN:
            half = add >> 1
            half += _odd(b, drop, p)
            add &= half  # nothing where nothing is dropped
        case Mode.ODD:
            add *= 1 - _odd(b, drop, p)
    return add


def _odd(b: Words, drop: Words, p: Params) -> Words:
    """The last bit of the code of each magnitude below."""
    if p.m:
        odd = b | 1 << p.mc  # the hidden bit, where it is the last one
        odd >>= drop
    else:
        odd = binade(b, p)
        odd += (first_field(p) ^ p.parity) & 1
    odd &= 1
    return odd


def _stochastic(a: Words, lanes: Words, p: Params) -> Words:
    """The magnitudes rounded, with no upper limit on the exponent."""
    kind = word(p)
    most = p.mc + _BEYOND
    drop = dropped(a, p, most - p.m if p.flush else most)
    if p.flush:  # zero and the first normal are one step of 2**emin apart
        drop += (a < p.emin_bits) * kind(p.m)
    up = _carries(significand(a, p), drop, lanes, p).astype(kind)
    low = at_most(drop, p.mc)
    # Below the quantum the significand may have no bit in the quantum's place, and the result
    # is the quantum or zero.
    r: Words = ~kind(0) << low
    r &= a
    r *= a >= p.quantum_bits
    r += up << low
    up *= kind(p.quantum_bits)
    np.maximum(r, up, out=r)
    return r


def _carries(significands: Words, drop: Words, lanes: Words, p: Params) -> NDArray[np.bool_]:
    """Whether the draw carries the dropped fraction over 1.

    Fraction and draw are aligned to the top of a word, so that the carry is the word's.
    """
    bits = p.random_bits
    wide = p.width == 64 or p.mode_pos != Mode.STOCHASTIC_A
    width = 64 if wide else 32
    kind: type[Any] = np.uint64 if wide else np.uint32
    drop = drop.astype(kind, copy=False)
    fraction = _fraction(significands.astype(kind, copy=False), drop, width)
    if p.shift == 0 or p.deep:  # where nothing may be dropped
        fraction *= drop != 0
    draw = lanes.astype(kind)
    draw <<= width - p.lane_bits
    draw &= (1 << bits) - 1 << width - bits
    carried: NDArray[np.bool_]
    match p.mode_pos:
        case Mode.STOCHASTIC_EQUAL:
            carried = (fraction != 0) & (draw != 0)
            return carried
        case Mode.STOCHASTIC_C:
            # fraction to nearest even at `bits` bits; its lower bits do not matter any more
            add = fraction >> width - bits
            add &= 1
            add += (1 << width - 1 - bits) - 1
            fraction += add
            carried = fraction < add
            fraction += draw
            carried |= fraction < draw
            return carried
        case Mode.STOCHASTIC_B:
            draw |= 1 << width - 1 - bits
    fraction += draw
    carried = fraction < draw
    return carried


def _fraction(significands: Words, drop: Words, width: int) -> Words:
    """The dropped bits as a fraction of 2**width; wrong where none is dropped.

    What does not fit is lost with 32 bits, and kept as a last bit of 1 with 64.
    """
    left = drop.clip(1, width)
    fraction: Words = significands << np.subtract(width, left, out=left)
    if np.maximum.reduce(drop, initial=0) <= width:
        return fraction
    right = at_least(drop, width)
    right -= width
    shifted = fraction >> right
    if width == 64:
        shifted |= (shifted << right) != fraction
    return shifted
