"""Values of a format to codes and back, on one chunk of patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.backends._numpy_grid import first_field, significand, split, word
from fpemu.lowering import FIELD_OFFSET, Params


def encode_patterns(x: NDArray[Any], p: Params) -> NDArray[Any]:
    """The codes of members of the format, infinities and NaN, as words."""
    u = x.astype(word(p), copy=False)
    a = u & p.sign - 1
    field, drop = split(a, p, p.mc)
    # Adding the binade to the significand, hidden bit included, makes the fields of the code.
    code = (significand(a, p) >> drop) + (field << p.m)
    code -= (_code_offset(p) - first_field(p) + 1) << p.m
    if p.m > p.mc:  # one value of two's complement has more bits than the significand: -2**emin
        code[a == p.emin_bits] = 1 << p.m
    negative = u >= p.sign
    if p.twos:
        code = np.where(negative, (~code + 1) & (1 << p.code_bits) - 1, code)
    elif p.code_sign:
        code |= negative * word(p)(p.code_sign)
    if a.max(initial=0) >= p.infinity:
        infinite = p.code_inf | negative * word(p)(p.code_sign)
        code = np.where(a == p.infinity, infinite, code)
        code[a > p.infinity] = p.code_nan
    return code


def decode_codes(codes: NDArray[Any], p: Params) -> NDArray[Any]:
    """The patterns of codes, as words."""
    kind = word(p)
    c = codes.astype(kind, copy=False)
    negative = (c & p.code_sign) != 0
    magnitude = c & p.code_sign - 1 if p.code_sign else c
    if p.twos:
        magnitude = np.where(negative, (~c + 1) & (1 << p.code_bits) - 1, c)
    a = _magnitudes(magnitude, p)
    pattern = a | negative * kind(p.sign)
    if p.twos:
        return pattern
    beyond = magnitude > p.code_top
    if p.code_nan == p.code_sign != 0 and p.tiny_neg != p.sign:  # NaN in the place of -0
        beyond |= c == p.code_nan
    if beyond.any():
        pattern[beyond] = p.infinity | 1 << p.mc - 1
        if p.code_inf:
            infinite = magnitude == p.code_inf
            pattern[infinite] = p.infinity | negative[infinite] * kind(p.sign)
    return pattern


def _magnitudes(magnitude: NDArray[Any], p: Params) -> NDArray[Any]:
    """The patterns of magnitude codes under the field rules, special codes not considered."""
    field, trailing = magnitude >> p.m, magnitude & (1 << p.m) - 1
    offset = _code_offset(p)
    # The significand is `steps` last places of the binade `field`.
    if p.floor_bits:
        steps = trailing | 1 << p.m
    elif p.flush:
        steps = (trailing | 1 << p.m) * (field != 0)
    else:
        steps, field = trailing + (field.clip(None, 1) << p.m), field.clip(1)
    # Moved up until its leading bit is the hidden one, or the container's exponents end.
    bias, fraction = (1023, 52) if p.width == 64 else (127, 23)
    real = steps.astype(np.float64 if p.width == 64 else np.float32).view(steps.dtype)
    # The binade of the leading bit, plus 2**16 because deep formats have negative ones.
    binade = field + (real >> fraction) + (offset + FIELD_OFFSET - p.m - bias)
    placed = binade.clip(FIELD_OFFSET + 1)
    left = field + (offset + FIELD_OFFSET + p.mc - p.m) - placed
    a = (steps << left.clip(None, p.mc)) + (placed - (FIELD_OFFSET + 1) << p.mc)
    a *= steps != 0
    if p.m > p.mc:
        a[magnitude >> p.m != 0] = p.emin_bits
    return a


def _code_offset(p: Params) -> int:
    return p.code_offset - FIELD_OFFSET
