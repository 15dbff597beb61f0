"""Which kernel of `_numba_blocks` is right for a block format, and the records it is given."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu.backends import _numba_blocks as kernels
from fpemu.backends._numba_conditions import by_addition, is_plain_nearest_even
from fpemu.block_lowering import ScaleMode, Scaling
from fpemu.lowering import FIELD_OFFSET, Params

Record = NDArray[np.uint64]
_SHORT = 15  # mantissa bits of scales up to which the guess of a quotient is the quotient
_REACH = 2.0**80  # divisors lie between its inverse and it: no step leaves the normal range


class Plan(NamedTuple):
    """The kernel's kinds and records for one element format and one way of scaling."""

    kind: tuple[int, ...]
    result: tuple[int, ...]
    origin: tuple[int, ...]
    elements: Record
    scaling: Record


def rounding(params: Params, scaling: Scaling, codes: bool) -> Plan | None:
    """How to round to elements; None where no kernel is right.

    Scales must be given or powers of two of the maxima alone.
    """
    if params.random_bits:
        return None
    plan = _rounding(params, _without_outer(scaling), codes)
    if plan is None or not scaling.has_outer:
        return plan
    outer = scaling.outer
    return _nested(plan, outer, params) if 1 / _REACH <= outer <= _REACH else None


def decoding(params: Params, scaling: Scaling) -> Plan | None:
    """How to make values of codes; None where no kernel is right."""
    plan = _decoding(params, _without_outer(scaling))
    if plan is None or not scaling.has_outer:
        return plan
    if not 1 / _REACH <= scaling.outer <= _REACH:
        return None
    elements, scales = plan.elements.copy(), plan.scaling.copy()
    elements[kernels.OUTER] = pattern(scaling.outer, params.width)
    most = _most_factor(scaling.qmax, max(scaling.outer, 1.0), params)
    scales[kernels.MOST_FACTOR] = pattern(most, params.width)
    return plan._replace(elements=elements, scaling=scales)


def scales_by_ratio(scaling: Scaling) -> tuple[Record, Record] | None:
    """The records of `kernels.ratio_scales`, None where it is not right."""
    params = scaling.scale_params
    if scaling.mode != ScaleMode.ABSMAX or not scaling.outer > 0 or not _is_admitted(params):
        return None
    elements, scales = _scale_records(_without_outer(scaling))
    elements = elements.copy()
    elements[kernels.OUTER] = pattern(scaling.outer, params.width)
    return elements, scales


def step(dtype: np.dtype[Any], scaling: Scaling, divide: bool) -> Plan:
    """How to divide or to multiply alone, in any range."""
    width = 8 * dtype.itemsize
    twice, outer = bool(scaling.has_outer), scaling.outer
    kind: tuple[int, ...]
    if divide:
        kind = kernels.DIVIDED_TWICE if twice else kernels.DIVIDED
        outer = outer if outer else math.inf  # x / inf is a zero of the sign of x
    else:
        kind = kernels.MULTIPLIED_TWICE if twice else kernels.MULTIPLIED
    infinity, ones = pattern(math.inf, width), (1 << width) - 1
    elements = {"magnitude": ones >> 1, "infinity": infinity, "outer": pattern(outer, width)}
    scales = {
        "nan": infinity | infinity >> 1 & ~infinity,
        "factor": pattern(scaling.factor, width),
        "most_factor": ones,
        "empty": infinity if divide else 0,
    }
    records = (
        np.array([elements.get(name, 0) for name in kernels.FIELDS], np.uint64),
        np.array([scales.get(name, 0) for name in kernels.SCALING], np.uint64),
    )
    return Plan(kind, kernels.VALUES, kernels.GIVEN, *records)


def scales_by_power(scaling: Scaling) -> tuple[Record, Record] | None:
    """The records of `kernels.power_scales`, None where it is not right."""
    powers = ScaleMode.GIVEN < scaling.mode < ScaleMode.ABSMAX
    return _scale_records(scaling) if powers and not scaling.has_outer else None


def pattern(value: float, width: int) -> int:
    """The bits of a float that a container of `width` bits holds."""
    kinds = ("<f", "<I") if width == 32 else ("<d", "<Q")
    found: int = struct.unpack(kinds[1], struct.pack(kinds[0], value))[0]
    return found


# --------------------------------------------------------------- conditions


def _without_outer(scaling: Scaling) -> Scaling:
    return scaling if scaling.outer == 1 else scaling._replace(outer=1.0)


def _is_admitted(params: Params) -> bool:
    """Whether adding and subtracting rounds to the format, which saturates."""
    return (
        is_plain_nearest_even(params)
        and by_addition(params, params.mc)
        and params.over_pos == params.max_pos
    )


def _fits_quotients(params: Params) -> bool:
    """Whether all that matters is far from the container's ends, and a little above the largest
    value still rounds to it."""
    bias = params.infinity >> params.mc + 1
    quantum = params.emin_field - FIELD_OFFSET - params.m - bias
    largest = (params.max_pos >> params.mc) - bias
    return params.m <= 15 and quantum > -20 and largest < 20


def _fits_half(params: Params) -> bool:
    """Whether codes are those of a float16, but for trailing bits and the exponent bias."""
    fields = params.code_top >> params.m
    return params.width == 32 and not params.twos and params.m <= 10 and fields <= 30


@lru_cache(maxsize=256)
def _rounding(params: Params, scaling: Scaling, codes: bool) -> Plan | None:
    kind: tuple[int, ...]
    result: tuple[int, ...]
    given, plain = scaling.mode == ScaleMode.GIVEN, scaling.factor == 1
    short = scaling.scale_params.m <= _SHORT and plain
    if not _is_admitted(params) or scaling.mode == ScaleMode.ABSMAX:
        return None
    if scaling.has_outer:
        if not given or not short:
            return None
        kind = kernels.NESTED
    elif plain and (not given or scaling.scale_params.m == 0):
        kind = kernels.POWERS
    else:
        kind = kernels.SHORT if short else kernels.LONG
    if kind != kernels.POWERS and not _fits_quotients(params):
        return None
    if codes:
        result = kernels.SIGNED_CODES if params.tiny_neg else kernels.UNSIGNED_ZERO_CODES
        result = kernels.TWOS_CODES if params.twos else result
    else:
        result = kernels.VALUES if params.tiny_neg else kernels.UNSIGNED_ZERO
    origin = kernels.GIVEN if given else kernels.DERIVED
    return Plan(kind, result, origin, _element_record(params), _scaling_record(params, scaling))


@lru_cache(maxsize=256)
def _decoding(params: Params, scaling: Scaling) -> Plan | None:
    nan_for_zero = not params.twos and params.code_nan == params.code_sign
    if (
        not (params.code_sign and params.m and params.shift)
        or params.deep
        or params.flush
        or params.floor_bits
        or params.emin_field - FIELD_OFFSET - params.m < 1
        or nan_for_zero
    ):
        return None
    kind: tuple[int, ...] = kernels.TWICE if scaling.has_outer else kernels.ONCE
    if params.code_bits <= 4 and params.width == 32:
        kind = kernels.TABLE_TWICE if scaling.has_outer else kernels.TABLE_ONCE
    elif _fits_half(params):
        kind = kernels.HALF_TWICE if scaling.has_outer else kernels.HALF_ONCE
    record = _element_record(params).copy()
    if not params.twos:
        record[kernels.CODE_MASK] = params.code_sign - 1
    record[kernels.CODE_TOP] = record[kernels.CODE_MASK] if params.twos else params.code_top
    result: tuple[int, ...] = kernels.SIGNED_CODES
    result = kernels.TWOS_CODES if params.twos else result
    return Plan(kind, result, kernels.GIVEN, record, _scaling_record(params, scaling))


# ------------------------------------------------------------------- records


@lru_cache(maxsize=256)
def _scale_records(scaling: Scaling) -> tuple[Record, Record]:
    params = scaling.scale_params
    return _element_record(params), _scaling_record(params, scaling)


@lru_cache(maxsize=256)
def _element_record(params: Params) -> Record:
    emin = params.emin_field - FIELD_OFFSET
    fields = {
        "magnitude": params.sign - 1,
        "sign": params.sign,
        "infinity": params.infinity,
        "mc": params.mc,
        "lift": params.shift << params.mc,
        "smallest": params.emin_bits,
        "over_less": (params.max_pos - params.emin_bits) % 2**64,
        "outer": pattern(1.0, params.width),
        "outer_high": pattern(1.0, params.width),
        "outer_low": 0,
        "code_shift": params.shift,
        "sign_shift": params.width - params.code_bits,
        "code_sign": params.code_sign,
        "code_mask": (1 << params.code_bits) - 1,
        "one_binade": 1 << params.mc,
        "quantum": params.quantum_bits,
        "code_top": params.code_top,
        "half_shift": max(10 - params.m, 0),
        "half_sign_shift": max(16 - params.code_bits, 0),
        "half_factor": (emin + 14 << params.mc) % 2**64,
        "over": params.over_pos,
        "one": pattern(1.0, params.width),
    }
    return np.array([fields[name] for name in kernels.FIELDS], np.uint64)


def _scaling_record(params: Params, scaling: Scaling) -> Record:
    mc, width = params.mc, params.width
    top, bias = params.infinity >> mc, params.infinity >> mc + 1
    emin = params.emin_field - FIELD_OFFSET
    by_ratio = scaling.mode == ScaleMode.CEIL_OF_RATIO
    # the quantum, and what is added to round the largest value, stay normal
    least = max(1, 3 + params.m + bias - emin)
    most = min(top - 1, top - 1 - params.shift + bias - max(params.max_pos >> mc, emin))
    fields = {
        "ratio": int(by_ratio),
        "qmax": pattern(scaling.qmax, width),
        "up_above": _up_above(scaling, mc),
        "emax": 0 if by_ratio else scaling.emax % 2**64,
        "low": scaling.lowest + bias + kernels.FIELD_BIAS,
        "high": scaling.highest + bias + kernels.FIELD_BIAS,
        "zero_scale": pattern(scaling.zero_scale, width),
        "nan": params.infinity | 1 << mc - 1,
        "least": least,
        "span": max(most - least, 0),
        "usual": bias,
        "emin_field": (emin - bias) % 2**64,
        "factor": pattern(scaling.factor, width),
        "top": pattern(_top(scaling), width),
        "unit": pattern(1.0, width),
        "least_divisor": pattern(1 / _REACH, width),
        "most_divisor": pattern(_REACH, width),
        "most_factor": pattern(_most_factor(scaling.qmax, 1.0, params), width),
        "empty": 0,
    }
    return np.array([fields[name] for name in kernels.SCALING], np.uint64)


def _up_above(scaling: Scaling, mc: int) -> int:
    """The largest fraction field with which the exponent stays."""
    match scaling.mode:
        case ScaleMode.CEIL | ScaleMode.CEIL_OF_RATIO:
            return 0
        case ScaleMode.EVEN:  # carry_from belongs to significands in [0.5, 1)
            return math.ceil((2 * scaling.carry_from - 1) * (1 << mc)) - 1
    return (1 << mc) - 1


def _top(scaling: Scaling) -> float:
    """A little above the largest value, to which it still rounds."""
    return scaling.qmax * (1 + 2.0**-19)


def _most_factor(qmax: float, outer: float, params: Params) -> float:
    """The largest scale under which no product overflows."""
    top = 2.0 ** (125 if params.width == 32 else 1021)
    return min(top / (2 * qmax) / outer, 4 * top)  # a float of that width, small as qmax may be


def _nested(plan: Plan, outer: float, params: Params) -> Plan:
    """The plan with an outer scale."""
    width, low_end, high_end = params.width, 1 / _REACH, _REACH
    elements, scales = plan.elements.copy(), plan.scaling.copy()
    significand, exponent = math.frexp(outer)
    high, low = inverse(2 * significand, width)
    power = math.ldexp(1.0, 1 - exponent)
    elements[kernels.OUTER] = pattern(outer, width)
    elements[kernels.OUTER_HIGH] = pattern(high * power, width)
    elements[kernels.OUTER_LOW] = pattern(low * power, width)
    top = scales[kernels.TOP : kernels.TOP + 1].view(np.float64 if width == 64 else np.float32)
    top[0] *= outer
    scales[kernels.LEAST_DIVISOR] = pattern(max(low_end, low_end / outer), width)
    scales[kernels.MOST_DIVISOR] = pattern(min(high_end, high_end / outer), width)
    calm = width == 32 and is_calm(int(math.ldexp(significand, 24)))
    kind = kernels.CALM_NESTED if calm else plan.kind
    return plan._replace(kind=kind, elements=elements, scaling=scales)


# --------------------------------------------------------- an outer scale's 1/t


def inverse(t: float, width: int) -> tuple[float, float]:
    """1/t for t in [1, 2) as a rounded number and the rest, rounded."""
    if width == 64:
        high = 1 / t
        exact = (1 - Fraction(high) * Fraction(t)) / Fraction(t)
        return high, float(exact)
    high = _single(1 / t)
    return high, _single((1 - high * t) / t)  # the difference is exact


def _single(value: float) -> float:
    """The nearest float32."""
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


@lru_cache(maxsize=256)
def is_calm(t: int) -> bool:
    """Whether ``fma(x, high, x * low)`` is the rounded ``x / t`` for all 24-bit x.

    `t`, in ``2**23 .. 2**24 - 1``, stands for a float32. Before its last rounding the sum is off
    by less than ``2**-48`` of the quotient, so that it can only be wrong where ``x / t`` is as
    close to a midpoint n of two floats: where ``x * 2**k - n * t`` is a small number (k = 24 for
    x >= t, else 25; n odd, of 25 bits). Those few x are found by an inverse modulo 2**k. (N.
    Brisebarre, J.-M. Muller, S. K. Raina, IEEE Trans. Computers 53, 2004.)
    """
    high, low = inverse(math.ldexp(t, -23), 32)
    even = t % 2 == 0
    if t % 4 == 0:  # then no rest below 4 leaves n odd
        return True
    odd = t >> even
    for k in (24, 25):
        modulus = 1 << k - even
        inverted = pow(odd, -1, modulus)
        for rest in (-2, 2) if even else (-3, -1, 1, 3):
            n = -(rest >> even) * inverted % modulus
            for midpoint in range(n, 1 << 25, modulus):
                x = midpoint * t + rest >> k
                if midpoint < 1 << 24 or not 1 << 23 <= x < 1 << 24 or (x >= t) != (k == 24):
                    continue
                small = int(math.ldexp(_single(x * low), 100))
                total = (x * int(math.ldexp(high, 24)) << 76) + small
                beyond = total - (midpoint << 123 - k)
                if not (beyond > 0 if rest > 0 else beyond < 0):
                    return False
    return True
