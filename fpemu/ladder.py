"""The finite values of a format in order: what lies next to a real number, by exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from fpemu.values import Special, Value, as_value, power_of_two

if TYPE_CHECKING:
    from fpemu.formats import Format


def finite_or_infinite(x: object) -> Value:
    """`x` as an exact value, -0 as 0. Errors: ValueError for NaN, TypeError for a non-number."""
    value = as_value(x)
    if value is Special.NAN:
        raise ValueError("x must not be NaN")
    return Fraction(0) if value is Special.NEG_ZERO else value


def at_or_below(fmt: Format, x: Value) -> Fraction | None:
    """The largest finite value <= x."""
    if x is Special.NEG_INF:
        return None
    if x is Special.POS_INF or x >= fmt.max_value:  # type: ignore[operator]
        return fmt.max_value
    assert isinstance(x, Fraction)
    if x < fmt.lowest_value:
        return None
    step = power_of_two(fmt.step_exponent(abs(x)))
    below = (x // step) * step
    # Only where zero is missing does the step rule leave the value set.
    return below if below in fmt else fmt.smallest_positive


def at_or_above(fmt: Format, x: Value) -> Fraction | None:
    """The smallest finite value >= x."""
    if x is Special.POS_INF:
        return None
    if x is Special.NEG_INF or x <= fmt.lowest_value:  # type: ignore[operator]
        return fmt.lowest_value
    assert isinstance(x, Fraction)
    if x > fmt.max_value:
        return None
    step = power_of_two(fmt.step_exponent(abs(x)))
    above = -((-x) // step) * step
    return above if above in fmt else fmt.smallest_positive


def after(fmt: Format, x: Value) -> Fraction | None:
    """The smallest finite value > x."""
    above = at_or_above(fmt, x)
    if above is None or isinstance(x, Special) or above > x:
        return above
    return at_or_above(fmt, x + _nudge(fmt, x)) if x < fmt.max_value else None


def before(fmt: Format, x: Value) -> Fraction | None:
    """The largest finite value < x."""
    below = at_or_below(fmt, x)
    if below is None or isinstance(x, Special) or below < x:
        return below
    return at_or_below(fmt, x - _nudge(fmt, x)) if x > fmt.lowest_value else None


def _nudge(fmt: Format, x: Fraction) -> Fraction:
    # Less than any gap next to x, on either side of a binade's edge.
    return power_of_two(fmt.step_exponent(abs(x)) - 2)
