"""Values and codes as text."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from fpemu.formats import Format, Specials
from fpemu.values import Real, Special, Value, exponent_of, power_of_two, real


def numeral(value: Real | Special) -> str:
    """`value` as text that Python reads back: ``448``, ``0.3``, ``-0``, ``3*2**-1076``, ``1/3``.

    Only numbers beyond float64 of more than 64 significant bits are cut short, as in
    ``~1.50000*2**2000``.
    """
    if isinstance(value, Special):
        return value.value
    if isinstance(value, Fraction):
        value = real(value)
    if isinstance(value, Fraction):
        return scaled(value)
    return repr(float(value)).removesuffix(".0")


def scaled(value: Fraction) -> str:
    """`value` as an odd integer times a power of two, where it is one; as a ratio elsewhere."""
    if not value or value.denominator & (value.denominator - 1):
        return str(value)
    exponent = last_bit(value)
    odd = value.numerator >> max(exponent, 0)
    if odd.bit_length() > 64:
        top = exponent_of(abs(value))
        return f"~{float(value / power_of_two(top)):.5f}*2**{top}"
    return f"{odd}*2**{exponent}" if exponent else str(odd)


def last_bit(value: Fraction) -> int:
    """The exponent of the last nonzero bit of a nonzero dyadic value."""
    return exponent_of(Fraction(value.numerator & -value.numerator, value.denominator))


def hex_code(fmt: Format, code: int) -> str:
    """`code` in hexadecimal with all digits of the format's width."""
    return f"0x{code:0{(fmt.bits + 3) // 4}x}"


def split_bits(fmt: Format, code: int) -> str:
    """`code` in binary as sign|exponent|mantissa, without the fields the format lacks."""
    text = f"{code:0{fmt.bits}b}"
    if fmt.specials is Specials.TWOS:
        return text
    ends = (0, int(fmt.signed), fmt.bits - fmt.mantissa_bits, fmt.bits)
    parts = (text[start:end] for start, end in pairwise(ends))
    return "|".join(part for part in parts if part)


def with_code(fmt: Format, value: Value | Real) -> str:
    """`value` and its code in `fmt`, in hexadecimal and in binary."""
    if value not in fmt:
        return f"{numeral(value)}  no code"
    code = fmt.encode(value)
    return f"{numeral(value)}  {hex_code(fmt, code)}  {split_bits(fmt, code)}"
