"""Rounding of patterns with NumPy's integer operations, for every format, mode and policy.

Magnitudes are patterns without the sign, so they are ordered as integers and a carry out of
the significand reaches the exponent by itself. Everything here works on one chunk, in uint32 for
containers of up to 32 bits and in uint64 for float64.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu.lowering import FIELD_OFFSET, Mode, Params

Words: TypeAlias = NDArray[Any]

# From this many dropped bits beyond the significand on, the discarded fraction is below
# 2**-33 and no stochastic variant can see more of it than that it is not zero.
_BEYOND = 40


def word(p: Params) -> type[np.uint32] | type[np.uint64]:
    """The type that chunks of this container are worked on in."""
    return np.uint64 if p.width == 64 else np.uint32


def first_field(p: Params) -> int:
    """The container's exponent field of the first normal binade of the format."""
    return p.emin_field - FIELD_OFFSET


def significand(a: Words, p: Params) -> Words:
    """The magnitudes in units of their last place: the hidden bit is there, the field is not."""
    lead: Words = a - ((a >> p.mc).clip(1) - 1 << p.mc)
    return lead


def split(a: Words, p: Params, most: int) -> tuple[Words, Words]:
    """Per magnitude: its binade, counted from the first normal one up (0 below it), and how many
    low bits of the significand lie below the format's last place there, `most` at most.

    Under `flush` the second is what it would be with subnormals.
    """
    mc, emin = p.mc, first_field(p)
    if not p.deep:
        field = a >> mc
        quantum = emin + mc - p.m
        drop = quantum - field.clip(max(1, quantum - most), min(emin, quantum))
        return field.clip(emin) - emin, drop
    # The binades of the container's subnormals follow the leading bit, which an exact conversion
    # to float shows. `lead` is its position plus `bias`, and ends at the first normal binade.
    bias, fraction = (1023, 52) if p.width == 64 else (127, 23)
    small = a.clip(None, 1 << mc).astype(np.float64 if p.width == 64 else np.float32)
    start = emin + bias + mc - 1
    lead = (small.view(a.dtype) >> fraction).clip(start, bias + mc)
    return (a >> mc).clip(1) - 1 + lead - start, lead - (bias + mc - p.shift)


def round_patterns(x: Words, p: Params, lanes: Words | None = None) -> Words:
    """The patterns `x` rounded; `lanes` are the raw lanes of the elements for stochastic modes."""
    u = x.astype(word(p), copy=False)
    if p.keep != 2 * p.sign - 1:
        u = u & p.keep
    a = u & p.sign - 1
    if lanes is None:
        r = _deterministic(a, u >= p.sign, p)
    else:
        r = _stochastic(a, lanes, p)
    if p.floor_bits:
        r = r.clip(p.floor_bits)
    sign = u ^ a
    if p.tiny_neg != p.sign:
        sign *= r != 0
    result = r | sign
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
    if not zeros and seen.max(initial=0) <= top:
        return
    beyond = seen > top
    if zeros:
        beyond |= a == 0
    at = np.flatnonzero(beyond)
    kind = word(p)
    magnitude, rounded, negative = a[at], r[at], u[at] >= p.sign

    def by_sign(pos: int, neg: int) -> Words:
        return np.where(negative, kind(neg), kind(pos))

    value = by_sign(p.over_pos, p.over_neg)
    value = np.where(rounded <= by_sign(p.max_pos, p.max_neg), result[at], value)
    value = np.where(magnitude == p.infinity, by_sign(p.inf_pos, p.inf_neg), value)
    value = np.where(magnitude > p.infinity, kind(p.nan), value)
    value = np.where(magnitude == 0, by_sign(p.zero_pos, p.zero_neg), value)
    result[at] = value


def _deterministic(a: Words, negative: NDArray[np.bool_], p: Params) -> Words:
    kind = word(p)
    mode: int = p.mode_pos
    # A magnitude below the quantum becomes the quantum or zero, which one comparison decides:
    # patterns are ordered. After it no magnitude drops more bits than its significand has.
    least: Words | int
    if p.mode_pos != p.mode_neg:
        away = negative == (p.mode_neg == Mode.AWAY)
        least = np.where(away, kind(1), kind(p.quantum_bits))
    else:
        least = _least(mode, p)
    b = a.clip(p.quantum_bits) * (a >= least)

    field, drop = split(b, p, p.mc)
    high = ~kind(0) << drop
    low = ~high
    if p.mode_pos != p.mode_neg:
        return (b + low * away) & high
    match mode:
        case Mode.TRUNCATE:
            return b & high
        case Mode.AWAY:
            return (b + low) & high
        case Mode.NEAREST_AWAY:
            return (b + (low - (low >> 1))) & high
        case Mode.NEAREST_ZERO:
            return (b + (low >> 1)) & high
    odd = _odd(b, field, drop, p)
    if mode == Mode.ODD:
        return (b + (low & odd - 1)) & high
    return (b + ((low >> 1) + odd & low)) & high


def _least(mode: int, p: Params) -> int:
    """The smallest magnitude that does not round to zero, the quantum at most."""
    if mode == Mode.TRUNCATE:
        return p.quantum_bits
    if mode in (Mode.AWAY, Mode.ODD):
        return 1
    normal = 1 << p.mc
    if p.quantum_bits >= 2 * normal:
        half = p.quantum_bits - normal
    else:
        half = p.quantum_bits >> 1
    return max(half, 1) if mode == Mode.NEAREST_AWAY else half + 1


def _odd(b: Words, field: Words, drop: Words, p: Params) -> Words:
    """The last bit of the code below each magnitude that is not less than the quantum."""
    odd: Words
    if p.m:
        odd = ((b | 1 << p.mc) >> drop) & 1
    else:
        odd = (field ^ (first_field(p) ^ p.parity) & 1) & 1
    return odd


def _stochastic(a: Words, lanes: Words, p: Params) -> Words:
    mc, most = p.mc, p.mc + _BEYOND
    _, drop = split(a, p, most - p.m if p.flush else most)
    if p.flush:  # zero and the first normal are one step of 2**emin apart
        drop += (a < p.emin_bits) * word(p)(p.m)
    up = _carries(significand(a, p), drop, lanes, p).astype(a.dtype)
    low = drop.clip(None, mc)
    base = a & ~word(p)(0) << low
    # Below the quantum the result is zero or the quantum; its significand may have no bit there.
    base *= a >= p.quantum_bits
    r: Words = np.maximum(base + (up << low), up * word(p)(p.quantum_bits))
    return r


def _carries(significands: Words, drop: Words, lanes: Words, p: Params) -> NDArray[np.bool_]:
    """Whether the draw carries the discarded fraction over 1.

    Fraction and draw are aligned to the top of a word, so the carry is that of the word.
    """
    bits = p.random_bits
    wide = p.width == 64 or p.mode_pos != Mode.STOCHASTIC_A
    width = 64 if wide else 32
    kind = np.uint64 if wide else np.uint32
    fraction = _fraction(significands.astype(kind, copy=False), drop.astype(kind, copy=False), width)
    if p.shift == 0:
        fraction *= drop != 0
    draw = lanes.astype(kind) << width - p.lane_bits & ((1 << bits) - 1 << width - bits)
    half = 1 << width - 1 - bits if wide else 0
    carries: NDArray[np.bool_]
    match p.mode_pos:
        case Mode.STOCHASTIC_A:
            carries = fraction + draw < draw
        case Mode.STOCHASTIC_B:
            draw |= half
            carries = fraction + draw < draw
        case Mode.STOCHASTIC_C:
            inc = (fraction >> width - bits & 1) + (half - 1)
            nearest = fraction + inc
            carries = (nearest < inc) | (nearest + draw < draw)
        case _:
            carries = (fraction != 0) & (draw != 0)
    return carries


def _fraction(significands: Words, drop: Words, width: int) -> Words:
    """The dropped bits as a fraction of 2**width; the last bit also stands for what is lost.

    Wrong where nothing is dropped.
    """
    fraction: Words = significands << width - drop.clip(1, width)
    if drop.max(initial=0) > width:
        right = drop.clip(width) - width
        shifted = fraction >> right
        if width == 64:
            shifted |= (shifted << right) != fraction
        return shifted
    return fraction
