"""Where sums and products of two formats' values are exact: unbounded grids and accumulators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from fpemu.catalog import format as as_format
from fpemu.formats import MAX_MANTISSA_BITS, Format
from fpemu.numerals import last_bit, numeral
from fpemu.spans import Span, smallest_containing, span
from fpemu.values import Real, Special, as_value, power_of_two, real


@dataclass(frozen=True, slots=True)
class Grid:
    """Zero and the multiples of ``2**quantum_exponent`` in a range, of at most `precision` bits.

    A format without codes: no limit on the exponent or on the width. `max_value` and
    `lowest_value` (0 where nothing is negative) are members. ``x in grid`` takes any real number;
    NaN and infinities are no members, -0 counts as 0.

    Errors: TypeError or ValueError naming the field.
    """

    precision: int
    quantum_exponent: int
    max_value: Fraction
    lowest_value: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        for name in ("precision", "quantum_exponent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
        for name in ("max_value", "lowest_value"):
            value = as_value(getattr(self, name))
            if isinstance(value, Special):
                raise ValueError(f"{name} must be finite, got {value!r}")
            object.__setattr__(self, name, value)
        if self.precision < 1:
            raise ValueError(f"precision must be at least 1, got {self.precision}")
        if self.max_value <= 0 or self.lowest_value > 0:
            raise ValueError(
                "max_value must be positive and lowest_value at most 0, got "
                f"{self.max_value} and {self.lowest_value}"
            )
        for name in ("max_value", "lowest_value"):
            if getattr(self, name) not in self:
                raise ValueError(f"{name} must be a member of the grid, got {getattr(self, name)}")

    def __contains__(self, value: object) -> bool:
        exact = as_value(value)
        if isinstance(exact, Special):
            return exact is Special.NEG_ZERO
        if not self.lowest_value <= exact <= self.max_value:
            return False
        steps = exact / power_of_two(self.quantum_exponent)
        return steps.denominator == 1 and _significant(steps.numerator) <= self.precision

    @property
    def emin(self) -> int:
        """Exponent of the lowest binade in which values have the full precision."""
        return self.quantum_exponent + self.precision - 1

    @property
    def max(self) -> Real:
        """The largest value, a float where float64 holds it."""
        return real(self.max_value)

    @property
    def min(self) -> Real:
        """The lowest value, 0 where none is negative."""
        return real(self.lowest_value)

    @property
    def format(self) -> Format | None:
        """The narrowest format that contains the grid, None if none is wide enough.

        Fixed point where nothing is narrower; otherwise as `fpemu.algebra.join` chooses.
        """
        fixed, floating = self.accumulator.format, smallest_containing([self.span])
        if fixed is None or (floating is not None and floating.bits < fixed.bits):
            return floating
        return fixed

    @property
    def accumulator(self) -> Accumulator:
        """The narrowest fixed point that contains the grid."""
        step = power_of_two(self.quantum_exponent)
        highest, lowest = int(self.max_value / step), int(self.lowest_value / step)
        width = max(highest, -lowest - 1).bit_length()
        return Accumulator(width + self.quantum_exponent, -self.quantum_exponent, lowest < 0)

    @property
    def span(self) -> Span:
        """The bounds that its values attain."""
        quantum = power_of_two(self.quantum_exponent)
        reach = max(self.max_value, -self.lowest_value)
        longest = min(int(reach / quantum), (1 << self.precision) - 1) - 1 | 1
        return Span(
            longest, self.quantum_exponent, quantum, self.max_value, self.lowest_value, True
        )

    def __str__(self) -> str:
        return (
            f"grid of {self.precision} significant bits in steps of 2**{self.quantum_exponent}, "
            f"{numeral(self.lowest_value)} to {numeral(self.max_value)}"
        )

    def __repr__(self) -> str:
        # Fractions of thousands of digits are no help, and Python refuses to print them.
        lowest, largest = numeral(self.lowest_value), numeral(self.max_value)
        return f"Grid({self.precision}, {self.quantum_exponent}, {largest}, {lowest})"


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A fixed-point width: two's complement where `signed`, with steps of 2**-fraction_bits.

    Either part may be negative: fewer than no fraction bits mean steps above 1.
    """

    integer_bits: int
    fraction_bits: int
    signed: bool

    @property
    def bits(self) -> int:
        """The whole width, sign included."""
        return self.integer_bits + self.fraction_bits + self.signed

    @property
    def format(self) -> Format | None:
        """The fixed-point format of this width, None where it has more bits than a Format."""
        if self.bits - self.signed > MAX_MANTISSA_BITS:
            return None
        return Format.fixed_point(self.bits, self.fraction_bits, signed=self.signed)


def exact_product(a: Format | str, b: Format | str) -> Grid:
    """The smallest grid that holds every product of a finite value of `a` and one of `b`.

    Every bound is attained by a product, so no grid with a tighter one will do.
    """
    first, second = span(as_format(a)), span(as_format(b))
    ends = [x * y for x in (first.largest, first.lowest) for y in (second.largest, second.lowest)]
    # A product of odd significands is odd: nothing cancels in its last bit.
    return Grid(
        (first.longest * second.longest).bit_length(),
        first.quantum_exponent + second.quantum_exponent,
        max(ends),
        min(ends),
    )


def exact_sum(a: Format | str, b: Format | str) -> Grid:
    """The smallest grid that holds every sum of a finite value of `a` and one of `b`.

    Every bound is attained by a sum, so no grid with a tighter one will do.
    """
    first, second = span(as_format(a)), span(as_format(b))
    largest = first.largest + second.largest
    lowest = min(Fraction(0), _bottom(first) + _bottom(second))
    long = [*_long_sums(first, second), *_long_sums(second, first)] or [largest]
    return Grid(
        max(_significant(x.numerator) for x in long),
        min(last_bit(x) for x in long),
        largest,
        lowest,
    )


def dot_accumulator(a: Format | str, b: Format | str, n: int) -> Accumulator:
    """The narrowest fixed point that holds every dot product of `n` values of `a` and of `b`.

    Every partial sum, in any order, from zero to all `n` exact products, is exact in it and none
    overflows. Errors: TypeError or ValueError for an `n` that is not an int of at least 1.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, got {type(n).__name__} {n!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    products = exact_product(a, b)
    highest, lowest = n * products.max_value, n * products.lowest_value
    steps = max(highest, -lowest) / power_of_two(products.quantum_exponent)
    sums = Grid(int(steps).bit_length(), products.quantum_exponent, highest, lowest)
    return sums.accumulator


def _bottom(values: Span) -> Fraction:
    """The least value, which is positive where there are neither zero nor negative values."""
    return values.lowest if values.lowest or values.has_zero else values.smallest


def _long_sums(leader: Span, other: Span) -> Iterable[Fraction]:
    """The sums furthest from zero whose last bit is the last bit of `leader`.

    The term of `leader` has its lowest last bit, the other term a higher one. No other sum has
    more significant bits than the best of these with either operand as the leader: to move the
    last bit up by one place at most doubles the sum, so that its length does not grow.
    """
    quantum = leader.quantum_exponent
    longest = leader.longest * power_of_two(quantum)
    coarse = power_of_two(quantum + 1)
    top = other.largest // coarse * coarse
    bottom = -(-other.lowest // coarse) * coarse
    if top >= other.smallest or other.has_zero:
        yield longest + (top if top >= other.smallest else 0)
    if leader.lowest < 0 and (-bottom >= other.smallest or other.has_zero):
        yield -longest + (bottom if -bottom >= other.smallest else 0)


def _significant(numerator: int) -> int:
    """Significant bits of a nonzero integer; 0 for 0."""
    odd = abs(numerator)
    return (odd // (odd & -odd)).bit_length() if odd else 0
