"""Values of a format to codes and back, on one chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.backends._numpy_grid import (
    at_least,
    at_most,
    binade,
    dropped,
    first_field,
    float_fields,
    significand,
    word,
)
from fpemu.lowering import FIELD_OFFSET, Params


def encode_patterns(x: NDArray[Any], p: Params) -> NDArray[Any]:
    """The codes of members of the format, infinities and NaN, as words."""
    u = x.astype(word(p), copy=False)
    a = u & p.sign - 1
    # Adding the binade to the significand, hidden bit included, makes the fields of the code.
    code = significand(a, p)
    code >>= dropped(a, p, p.mc)
    code += binade(a, p) << p.m
    code -= (_offset(p) - first_field(p) + 1) << p.m
    if p.m > p.mc:  # one value of two's complement has more bits than the significand: -2**emin
        code[a == p.emin_bits] = 1 << p.m
    negative = u >= p.sign
    if p.twos:
        code = np.where(negative, _negated(code, p), code)
        code[a > p.infinity] = p.code_nan
        return code
    sign = negative * word(p)(p.code_sign)
    code |= sign
    if np.maximum.reduce(a, initial=0) >= p.infinity:
        code = np.where(a == p.infinity, sign | p.code_inf, code)
        code[a > p.infinity] = p.code_nan
    return code


def decode_codes(codes: NDArray[Any], p: Params) -> NDArray[Any]:
    """The patterns of codes, as words."""
    kind = word(p)
    c = codes.astype(kind, copy=False)
    negative = (c & p.code_sign) != 0
    magnitude = c & p.code_sign - 1 if p.code_sign else c
    if p.twos:
        magnitude = np.where(negative, _negated(c, p), c)
    a = _magnitudes(magnitude, p)
    beyond = magnitude > p.code_top
    if p.code_nan == p.code_sign != 0 and p.tiny_neg != p.sign:  # NaN in the place of -0
        beyond |= c == p.code_nan
        negative &= a != 0
    pattern: NDArray[Any] = a | negative * kind(p.sign)
    if not p.twos:
        pattern[beyond] = p.infinity | 1 << p.mc - 1
    if p.code_inf:
        infinite = magnitude == p.code_inf
        pattern[infinite] = p.infinity | negative[infinite] * kind(p.sign)
    return pattern


def _magnitudes(magnitude: NDArray[Any], p: Params) -> NDArray[Any]:
    """The patterns of magnitude codes under the field rules, special codes not considered."""
    hidden = 1 << p.m
    field, steps = magnitude >> p.m, magnitude & hidden - 1
    # The significand is `steps` last places of the binade `field`.
    if p.floor_bits:
        steps |= hidden
    elif p.flush:
        steps |= hidden
        steps *= field != 0
    else:
        steps += at_most(field, 1) << p.m
        field = at_least(field, 1)
    # Move it up until its leading bit is the hidden one, or the container's exponents end.
    # Binades are counted from -2**16, because those of deep formats can be negative.
    leads, bias, _ = float_fields(steps)
    start = field + (_offset(p) + FIELD_OFFSET - p.m)
    placed = at_least(start + leads - bias, FIELD_OFFSET + 1)
    a = steps << at_most(start + p.mc - placed, p.mc)
    a += placed - (FIELD_OFFSET + 1) << p.mc
    a *= steps != 0
    if p.m > p.mc:
        a[magnitude == hidden] = p.emin_bits
    return a


def _negated(code: NDArray[Any], p: Params) -> NDArray[Any]:
    """Two's complement."""
    return (~code + 1) & (1 << p.code_bits) - 1


def _offset(p: Params) -> int:
    """The container's exponent field that magnitude code 0 would have as a normal number."""
    return p.code_offset - FIELD_OFFSET
