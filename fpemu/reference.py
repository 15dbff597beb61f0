"""The definition of rounding, on Python ints and Fractions.

Backends are faster spellings of this page and must equal it on codes. Nothing here is fast.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials, Subnormals
from fpemu.keys import Key, as_key
from fpemu.policy import NanRule, Overflow, Policy, ZeroSign, parse_policy
from fpemu.rounding import (
    Descriptor,
    Noise,
    PseudoNoise,
    Rounding,
    Stochastic,
    Variant,
    parse_rounding,
)
from fpemu.values import Special, Value, as_value, exponent_of, power_of_two

HALF = Fraction(1, 2)


def nearest_even(x: Fraction) -> int:
    """The integer nearest to x, ties to even."""
    return round(x)


def goes_away(
    rounding: Rounding | Stochastic, nu: Fraction, odd: bool, negative: bool, draw: int
) -> bool:
    """Whether a magnitude with discarded fraction `nu`, 0 <= nu < 1, rounds away from zero.

    `odd` is the parity of the code below it; `draw` the random integer of `rounding.bits` bits.
    """
    match rounding:
        case Rounding.NEAREST_EVEN:
            return nu > HALF or (nu == HALF and odd)
        case Rounding.NEAREST_AWAY:
            return nu >= HALF
        case Rounding.NEAREST_ZERO:
            return nu > HALF
        case Rounding.TOWARD_ZERO:
            return False
        case Rounding.TOWARD_POSITIVE:
            return nu > 0 and not negative
        case Rounding.TOWARD_NEGATIVE:
            return nu > 0 and negative
        case Rounding.TO_ODD:
            return nu > 0 and not odd
        case Stochastic(bits, Variant.A):
            return floor(nu * (1 << bits)) + draw >= 1 << bits
        case Stochastic(bits, Variant.B):
            return floor(nu * (2 << bits)) + 2 * draw + 1 >= 2 << bits
        case Stochastic(bits, Variant.C):
            return nearest_even(nu * (1 << bits)) + draw >= 1 << bits
        case Stochastic(_, Variant.EQUAL):
            return nu > 0 and draw == 1
    raise TypeError(f"rounding must be deterministic or stochastic, got {rounding!r}")


def round_magnitude(
    fmt: Format, x: Fraction, rounding: Rounding | Stochastic, negative: bool, draw: int
) -> Fraction:
    """x >= 0 rounded to the precision of `fmt` with no upper limit on the exponent."""
    if x == 0:
        return x
    binade = max(exponent_of(x), fmt.emin)
    quantum = binade - fmt.mantissa_bits
    flushing = fmt.subnormals is Subnormals.FLUSH and x < power_of_two(fmt.emin)
    if flushing:
        quantum = fmt.emin
    steps = x / power_of_two(quantum)
    below = floor(steps)
    code = below + ((binade - fmt.emin) << fmt.mantissa_bits)
    if fmt.subnormals is Subnormals.NONE:
        code -= 1 << fmt.mantissa_bits
    odd = bool(code & 1) and not flushing  # under flush zero counts as even, min normal as odd
    away = goes_away(rounding, steps - below, odd, negative, draw)
    rounded = (below + away) * power_of_two(quantum)
    return rounded if fmt.has_zero else max(rounded, fmt.smallest_positive)


def without_infinity(fmt: Format, policy: Policy, negative: bool) -> Value:
    """What stands for an infinity that overflow or an infinite input asks for."""
    if policy.infinity_always or (fmt.has_inf and (fmt.signed or not negative)):
        return Special.NEG_INF if negative else Special.POS_INF
    if fmt.specials in (Specials.FN, Specials.FNUZ, Specials.E8M0):
        return Special.NAN
    return fmt.lowest_value if negative else fmt.max_value


def overflow(fmt: Format, rounding: Rounding | Stochastic, policy: Policy, negative: bool) -> Value:
    """The result of a finite value whose rounded magnitude is beyond the range."""
    largest = fmt.lowest_value if negative else fmt.max_value
    inward = (
        rounding is Rounding.TOWARD_ZERO
        or (rounding is Rounding.TOWARD_NEGATIVE and not negative)
        or (rounding is Rounding.TOWARD_POSITIVE and negative)
    )
    p3109_odd = fmt.specials is Specials.P3109_EXTENDED and fmt.signed
    stays = inward or (rounding is Rounding.TO_ODD and not p3109_odd)
    if stays or policy.overflow_for(fmt) is not Overflow.SAT_NONE:
        return largest
    return without_infinity(fmt, policy, negative)


def infinite(fmt: Format, policy: Policy, negative: bool) -> Value:
    """The result of an infinite input."""
    largest = fmt.lowest_value if negative else fmt.max_value
    rule = policy.overflow_for(fmt)
    if rule is Overflow.SAT_FINITE and not policy.infinity_always:
        return largest
    if rule is Overflow.SAT_PROPAGATE and not (fmt.has_inf or policy.infinity_always):
        return largest
    return without_infinity(fmt, policy, negative)


def not_a_number(fmt: Format, policy: Policy) -> Value:
    """The result of NaN in value space."""
    if not policy.nan_in_values or fmt.has_nan:
        return Special.NAN
    return nan_substitute(fmt, policy)


def nan_substitute(fmt: Format, policy: Policy) -> Value:
    """What stands for NaN in a format without NaN. Errors: ValueError under ``nan="error"``."""
    match policy.nan:
        case NanRule.ZERO:
            return Fraction(0)
        case NanRule.MAX:
            return fmt.max_value
        case NanRule.NEGATIVE_ZERO:
            return Special.NEG_ZERO if fmt.has_negative_zero else Fraction(0)
        case NanRule.ERROR:
            raise ValueError(f"x must not be NaN: {fmt} has no code for it")


def zero(fmt: Format, policy: Policy, negative: bool, from_input: bool) -> Value:
    """A zero result: of a zero input, or of a value that rounded to zero."""
    if not fmt.has_zero:
        sat = policy.overflow_for(fmt) is Overflow.SAT_FINITE
        return fmt.smallest_positive if sat or policy.magnitude_only else Special.NAN
    dropped = policy.zero_sign is ZeroSign.DROP or (
        policy.zero_sign is ZeroSign.DROP_INPUT and from_input
    )
    return Special.NEG_ZERO if negative and fmt.has_negative_zero and not dropped else Fraction(0)


def negative_in_unsigned(fmt: Format, policy: Policy) -> Value:
    """The result of a negative value that did not round to zero."""
    if policy.overflow_for(fmt) is Overflow.SAT_NONE:
        return Special.NAN
    return zero(fmt, policy, negative=False, from_input=False)


def round_value(
    fmt: Format,
    x: Value,
    rounding: Rounding | Stochastic,
    policy: Policy,
    draw: int = 0,
) -> Value:
    """`x` rounded once to `fmt`: the definition that every backend equals.

    `x` and the result are Fractions or Specials; `draw` is the random integer of `rounding.bits`
    bits for stochastic modes. Errors: TypeError for pseudo rounding, which is not one rounding.
    """
    if x is Special.NAN:
        return not_a_number(fmt, policy)
    if policy.magnitude_only and not fmt.signed:
        x = Special.POS_INF if x is Special.NEG_INF else x
        x = Fraction(0) if x is Special.NEG_ZERO else x
        x = abs(x) if isinstance(x, Fraction) else x
    if x is Special.POS_INF or x is Special.NEG_INF:
        negative = x is Special.NEG_INF
        if negative and not fmt.signed:
            return negative_in_unsigned(fmt, policy)
        return infinite(fmt, policy, negative)
    if x is Special.NEG_ZERO or x == 0:
        return zero(fmt, policy, negative=x is Special.NEG_ZERO, from_input=True)
    assert isinstance(x, Fraction)
    negative = x < 0
    rounded = round_magnitude(fmt, abs(x), rounding, negative, draw)
    if rounded == 0:
        return zero(fmt, policy, negative, from_input=False)
    if negative and not fmt.signed:
        return negative_in_unsigned(fmt, policy)
    if rounded > abs(fmt.lowest_value if negative else fmt.max_value):
        return overflow(fmt, rounding, policy, negative)
    return -rounded if negative else rounded


def quantize_scalar(
    x: object,
    fmt: Format | str,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    index: int = 0,
) -> Value:
    """One number rounded to `fmt` as `fpemu.quantize` rounds element `index` of an array.

    Takes any real number or Special, of any precision; result exact. Errors: as `quantize`;
    pseudo rounding is refused, because it needs the array.
    """
    target = as_format(fmt)
    preset, chosen = parse_policy(policy, target)
    mode = parse_rounding(rounding) if rounding is not None else preset or Rounding.NEAREST_EVEN
    if isinstance(mode, PseudoNoise):
        raise TypeError("rounding must round a single value; pseudo rounding works on arrays")
    draw = 0
    if isinstance(mode, Stochastic):
        if key is None:
            raise ValueError(f"key must be given with rounding={str(mode)!r}")
        draw = as_key(key).lane(index, mode.lane_bits) >> (mode.lane_bits - mode.bits)
    return round_value(target, as_value(x), mode, chosen, draw)


def noise_value(noise: Noise, draw: int) -> Fraction:
    """R for a 16-bit draw; exact for rounded_gaussian and uniform.

    Errors: ValueError for `gaussian`, whose table is `fpemu.noise.gaussian_table`.
    """
    match noise:
        case Noise.ROUNDED_GAUSSIAN:
            v = draw & 0x7FFF
            size = (v < 10398) + (v < 88)
            return Fraction(-size if draw >> 15 else size)
        case Noise.UNIFORM:
            return Fraction(2 * draw + 1 - (1 << 16), 1 << 17)
    raise ValueError(f"noise must be 'rounded_gaussian' or 'uniform', got {str(noise)!r}")
