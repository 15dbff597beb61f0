"""Exact values: fractions, and the few things that are not numbers with a fraction."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from typing import TypeAlias


class Special(Enum):
    """The values of a format that are not numbers with an exact fraction."""

    NAN = "nan"
    POS_INF = "inf"
    NEG_INF = "-inf"
    NEG_ZERO = "-0"

    def __repr__(self) -> str:
        return self.value


Value: TypeAlias = Fraction | Special
Real: TypeAlias = float | Fraction


def real(value: Fraction) -> Real:
    """`value` as a float where float64 holds it exactly, unchanged otherwise."""
    try:
        as_float = float(value)
    except OverflowError:
        return value
    return as_float if Fraction(as_float) == value else value


def exponent_of(value: Fraction) -> int:
    """floor(log2(value)) of a positive fraction, exactly."""
    numerator, denominator = value.numerator, value.denominator
    guess = numerator.bit_length() - denominator.bit_length()
    below = numerator < denominator << guess if guess >= 0 else numerator << -guess < denominator
    return guess - below


def power_of_two(exponent: int) -> Fraction:
    """2**exponent, exactly, for any integer exponent."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def as_value(x: object) -> Value:
    """The exact value of a real number or a Special.

    Takes Python and NumPy integers and floats of any width, Fraction and Decimal.
    Errors: TypeError for anything that is not a real number, bool included.
    """
    if isinstance(x, Fraction | Special):
        return x
    if type(x).__name__ in ("bool", "bool_"):
        raise TypeError(f"x must be a real number, got {x!r}")
    if hasattr(x, "__index__"):
        return Fraction(x.__index__())
    ratio = getattr(x, "as_integer_ratio", None)
    if ratio is None and hasattr(x, "__float__"):  # narrow floats that float64 holds
        return as_value(float(x))
    if ratio is None:
        raise TypeError(f"x must be a real number, got {type(x).__name__} {x!r}")
    if x != x:
        return Special.NAN
    try:
        exact = Fraction(*(int(part) for part in ratio()))
    except OverflowError:
        return Special.NEG_INF if str(x).startswith("-") else Special.POS_INF
    if exact == 0 and str(x).startswith("-"):
        return Special.NEG_ZERO
    return exact
