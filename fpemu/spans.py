"""Value sets as a handful of bounds, and the search for formats by their value set.

The nonzero finite values of any format are exactly the numbers that meet four conditions, each
with its own bound: at most p significant bits, a multiple of 2**q, a magnitude of at least the
smallest positive value, and a place between the lowest and the largest value. So one set of
values lies in another exactly where every bound is at least as tight, and the few values that
attain the bounds (`Span.extremes`) decide inclusion, for formats of any size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from fpemu.formats import MAX_BITS, MAX_EXPONENT_BITS, Format, Specials, Subnormals
from fpemu.values import exponent_of, power_of_two


class Span(NamedTuple):
    """The bounds of a set of values, each attained by one of its values.

    `longest` is the largest odd significand: the value ``longest * 2**quantum_exponent`` has the
    most significant bits and the lowest last bit of all. `lowest` is 0 where nothing is negative.
    """

    longest: int
    quantum_exponent: int
    smallest: Fraction
    largest: Fraction
    lowest: Fraction
    has_zero: bool

    @property
    def precision(self) -> int:
        return self.longest.bit_length()

    @property
    def extremes(self) -> tuple[Fraction, ...]:
        """Values such that any format that has these has every value of the set."""
        ends = (self.largest, self.lowest) if self.lowest else (self.largest,)
        zero = (Fraction(0),) if self.has_zero else ()
        longest = self.longest * power_of_two(self.quantum_exponent)
        if longest > self.largest:
            longest = -longest
        return (*ends, self.smallest, longest, *zero)


@lru_cache(maxsize=4096)
def span(fmt: Format) -> Span:
    """The bounds of the finite values of `fmt`, -0 not distinguished from 0."""
    smallest, largest = fmt.smallest_positive, fmt.max_value
    quantum = fmt.quantum_exponent
    steps = int(largest / power_of_two(quantum))
    longest = min(steps, (1 << fmt.precision) - 1) - 1 | 1
    if longest * power_of_two(quantum) < smallest:
        # The only positive value is a power of two; the grid's finer steps lie below it.
        longest, quantum = 1, exponent_of(largest)
    lowest = fmt.lowest_value if fmt.signed else Fraction(0)
    return Span(longest, quantum, smallest, largest, lowest, fmt.has_zero)


def count(fmt: Format) -> int:
    """The number of finite values, zero counted once."""
    if fmt.specials is Specials.TWOS:
        return 1 << fmt.bits
    magnitudes = fmt.max_code + 1
    if fmt.subnormals is Subnormals.FLUSH:
        magnitudes -= (1 << fmt.mantissa_bits) - 1
    return 2 * magnitudes - 1 if fmt.signed else magnitudes


def shifts(small: Span, big: Span) -> range:
    """Every k for which all values of `small`, times 2**k, are values of `big`."""
    if (
        small.precision > big.precision
        or (small.has_zero and not big.has_zero)
        or (small.lowest < 0 and big.lowest == 0)
    ):
        return range(0)
    low = max(
        big.quantum_exponent - small.quantum_exponent,
        -exponent_of(small.smallest / big.smallest),
    )
    high = exponent_of(big.largest / small.largest)
    if small.lowest < 0:
        high = min(high, exponent_of(big.lowest / small.lowest))
    return range(low, high + 1)


def smallest_containing(parts: Sequence[Span], extra: Collection[Subnormals] = ()) -> Format | None:
    """The format with the fewest finite values among those that contain every part.

    The search ranges over every bias, width and sign of: floating-point formats (2 exponent bits
    or more) with ieee, fn, fnuz or finite specials and gradual subnormals; two's-complement and
    unsigned fixed point; and, where `extra` names them, formats that flush and formats without
    zero. What it leaves out (sign-magnitude fixed point, 1 exponent bit, P3109) has the same
    values as one of these, give or take the last code or two.

    Ties go to the fewest bits, then the fewest mantissa bits, then the bias nearest to the
    default, then finite, fn, ieee, fnuz in that order. None where no format is wide enough.
    """
    found: list[_Candidate] = []
    for bits in range(max(part.precision for part in parts), MAX_BITS + 1):
        # No format of this width, and no wider one, has fewer values than 2**(bits - 1) - 1.
        if found and (1 << bits - 1) - 1 > count(min(found).format):
            break
        for fmt in _formats_of_width(bits, frozenset(extra)):
            found += _shifted(fmt, 1, [shifts(part, span(fmt)) for part in parts])
    return min(found).format if found else None


def largest_inside(
    parts: Sequence[Span], extra: Collection[Subnormals] = (), widest: int = MAX_BITS
) -> Format | None:
    """The format with the most finite values, of at most `widest` bits, inside every part.

    Range and ties as in `smallest_containing`. None where the parts share too little for any
    format.
    """
    found: list[_Candidate] = []
    for bits in range(min(widest, MAX_BITS), 0, -1):
        if found and 1 << bits < count(min(found).format):
            break
        for fmt in _formats_of_width(bits, frozenset(extra)):
            found += _shifted(fmt, -1, [shifts(span(fmt), part) for part in parts])
    return min(found).format if found else None


class _Candidate(NamedTuple):
    rank: tuple[int, ...]
    format: Format


def _shifted(fmt: Format, direction: int, allowed: Sequence[range]) -> list[_Candidate]:
    """`fmt` with the bias nearest to its own that puts it in place, if there is one.

    `allowed` are the powers of two by which the parts may grow to lie in `fmt` (direction 1,
    fewer values are better) or by which `fmt` may grow to lie in the parts (-1, more are).
    """
    low = max(shift.start for shift in allowed)
    high = min(shift.stop for shift in allowed) - 1
    if low > high:
        return []
    shift = min(max(0, low), high)
    specials, subnormals = _SPECIALS.index(fmt.specials), list(Subnormals).index(fmt.subnormals)
    rank = (
        direction * count(fmt),
        fmt.bits,
        fmt.mantissa_bits,
        abs(shift),
        specials,
        subnormals,
        not fmt.signed,
    )
    return [_Candidate(rank, replace(fmt, bias=fmt.bias + direction * shift))]


_SPECIALS = (
    Specials.FINITE,
    Specials.FN,
    Specials.IEEE,
    Specials.FNUZ,
    Specials.TWOS,
    Specials.E8M0,
)


@lru_cache(maxsize=4 * MAX_BITS)
def _formats_of_width(bits: int, extra: frozenset[Subnormals]) -> tuple[Format, ...]:
    """The formats of the search that have `bits` bits, each with its default bias."""
    found = []
    kinds = {Subnormals.GRADUAL, *extra}
    for e, signed, specials, subnormals in product(
        range(MAX_EXPONENT_BITS + 1), (True, False), _SPECIALS, kinds
    ):
        m = bits - e - signed
        fixed_point = specials is (Specials.TWOS if signed else Specials.FINITE)
        if fixed_point if e == 0 else e > 1 or subnormals is not Subnormals.GRADUAL:
            # The constructor knows which combinations have a meaning.
            with suppress(ValueError):
                found.append(Format(e, m, signed=signed, specials=specials, subnormals=subnormals))
    return tuple(found)
