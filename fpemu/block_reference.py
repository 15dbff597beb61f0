"""The definition of block formats, on Fractions: one block after the other, nothing fast.

All arithmetic is in one IEEE format (float32; float64 for float64 data), each operation rounded
to nearest even, in this order:

    without outer   scale = round_scale(amax / qmax)          q = element(x / scale)
    with outer t    scale = round_scale((amax / qmax) / t)    q = element((x / t) / scale)
    value = q * scale                                         value = (q * scale) * t

with t = round_outer(A / (qmax * smax)), A the largest magnitude of all blocks without NaN and
infinities. Rules that give powers of two look at amax, or at amax / t. `four_thirds` puts
scale * (4/3) for the scale of elements.

Edges: elements saturate. A block with NaN or an infinity has the NaN scale and only NaN values;
where the scale format has no NaN that is an error. A zero block has scale code 0. Where the scale
or t is zero, elements are zeros of their sign. A product beyond the range is the largest finite
value. Elements whose symmetric form is asked for end at -qmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from fpemu import table_format
from fpemu.blocks import BlockFormat
from fpemu.formats import Format
from fpemu.lowering import FLOAT32
from fpemu.policy import Overflow, Policy
from fpemu.reference import round_value
from fpemu.rounding import Rounding, Stochastic
from fpemu.scales import ScaleMethod
from fpemu.values import Special, Value, exponent_of, power_of_two

_NEAREST = Rounding.NEAREST_EVEN
_SATURATE = Policy(Overflow.SAT_FINITE)


class Block(NamedTuple):
    """A block's scale, its elements and their values."""

    scale: Value
    elements: tuple[Value, ...]
    values: tuple[Value, ...]


def outer_scale(fmt: BlockFormat, amax: Fraction, compute: Format = FLOAT32.format) -> Value:
    """t for the largest magnitude of all blocks without NaN and infinities."""
    assert fmt.scale is not None
    assert fmt.outer is not None
    ratio = _divide(amax, fmt.qmax * fmt.scale.max_value, compute)
    return round_value(fmt.outer, ratio, _NEAREST, _SATURATE)


def block_scale(
    fmt: BlockFormat, amax: Value, outer: Value | None = None, compute: Format = FLOAT32.format
) -> Value:
    """The scale, a value of ``fmt.scale``, of a block whose largest magnitude is `amax`.

    `amax` is Special.NAN for a block with NaN, an infinity for one with an infinity. For the
    rules that only need it. Errors: ValueError for NaN without a NaN scale.
    """
    scale = fmt.scale
    assert scale is not None
    if not isinstance(amax, Fraction):
        if scale.has_nan:
            return Special.NAN
        raise ValueError(f"x must not hold NaN or infinities: {scale} has no NaN to say so")
    if amax == 0 or outer == 0:
        return scale.decode(0)
    method = fmt.rule.method
    if method is ScaleMethod.ABSMAX:
        ratio = _divide(amax, fmt.qmax, compute)
        if outer is not None:
            ratio = _divide(ratio, outer, compute)
        return round_value(scale, ratio, _NEAREST, _SATURATE)
    size: Value = amax if outer is None else _divide(amax, outer, compute)
    if method in (ScaleMethod.RCEIL, ScaleMethod.POW2_M1):
        size = _divide(size, fmt.qmax, compute)
    low, high = fmt.scale_exponents
    if not isinstance(size, Fraction):
        return power_of_two(high)
    if size == 0:
        return scale.decode(0)
    return power_of_two(min(max(_exponent(fmt, size), low), high))


def _exponent(fmt: BlockFormat, size: Fraction) -> int:
    """The exponent of the scale for a block of largest magnitude `size`, not clamped."""
    floor = exponent_of(size)
    above = size > power_of_two(floor)
    match fmt.rule.method:
        case ScaleMethod.FLOOR | ScaleMethod.FOUR_THIRDS:
            return floor - fmt.emax
        case ScaleMethod.CEIL:
            return floor + above - fmt.emax
        case ScaleMethod.RCEIL | ScaleMethod.POW2_M1:  # size is amax / qmax already
            return floor + above
        case ScaleMethod.EVEN:
            half_step = power_of_two(floor - fmt.top_mantissa_bits - 1)
            return floor + (size + half_step >= power_of_two(floor + 1)) - fmt.emax
    raise ValueError(f"rule must need no more than the maximum, got {fmt.rule}")


def round_block(
    fmt: BlockFormat,
    x: Sequence[Value],
    scale: Value,
    outer: Value | None = None,
    *,
    rounding: Rounding | Stochastic = _NEAREST,
    draws: Sequence[int] | None = None,
    compute: Format = FLOAT32.format,
) -> Block:
    """The elements of a block under a given scale; `draws` as in `fpemu.reference.round_value`."""
    if scale is Special.NAN:
        return Block(scale, (Special.NAN,) * len(x), (Special.NAN,) * len(x))
    factor = effective(fmt, scale, compute)
    elements = []
    for i, value in enumerate(x):
        if factor == 0 or outer == 0:
            quotient: Value = Special.NEG_ZERO if _negative(value) else Fraction(0)
        else:
            quotient = value if outer is None else _divide(value, outer, compute)
            quotient = _divide(quotient, factor, compute)
        elements.append(_element(fmt, quotient, rounding, draws[i] if draws else 0))
    values = tuple(value_of(fmt, q, scale, outer, compute) for q in elements)
    return Block(scale, tuple(elements), values)


def _element(
    fmt: BlockFormat, quotient: Value, rounding: Rounding | Stochastic, draw: int
) -> Value:
    if isinstance(fmt.element, Format):
        q = round_value(fmt.element, quotient, rounding, _SATURATE, draw)
    else:
        q = table_format.round_value(fmt.element, quotient, rounding, _SATURATE, draw)
    return max(q, -fmt.qmax) if fmt.symmetric and isinstance(q, Fraction) else q


def value_of(
    fmt: BlockFormat,
    element: Value,
    scale: Value,
    outer: Value | None = None,
    compute: Format = FLOAT32.format,
) -> Value:
    """What an element is worth: ``(element * scale) * outer``."""
    if scale is Special.NAN or element is Special.NAN:
        return Special.NAN
    value = _multiply(element, effective(fmt, scale, compute), compute)
    return value if outer is None else _multiply(value, outer, compute)


def effective(fmt: BlockFormat, scale: Value, compute: Format = FLOAT32.format) -> Value:
    """What elements are divided by: the scale, or 4/3 of it."""
    if fmt.rule.method is not ScaleMethod.FOUR_THIRDS:
        return scale
    four_thirds = round_value(compute, Fraction(4, 3), _NEAREST, _SATURATE)
    return _multiply(scale, four_thirds, compute)


def _negative(x: Value) -> bool:
    return x in (Special.NEG_ZERO, Special.NEG_INF) or (isinstance(x, Fraction) and x < 0)


def _divide(a: Value, b: Value, compute: Format) -> Value:
    """a / b for a finite a and a positive b, rounded."""
    if a is Special.NEG_ZERO or not isinstance(a, Fraction):
        return a
    assert isinstance(b, Fraction)
    return round_value(compute, a / b, _NEAREST, Policy())


def _multiply(a: Value, b: Value, compute: Format) -> Value:
    """a * b for finite a and b >= 0, rounded; what is beyond the range is the largest value."""
    if _negative(a) and b == 0:
        return Special.NEG_ZERO
    if a is Special.NEG_ZERO or not isinstance(a, Fraction):
        return a
    assert isinstance(b, Fraction)
    return round_value(compute, a * b, _NEAREST, _SATURATE)
