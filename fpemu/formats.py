"""The Format value: which real numbers a code of a few bits stands for.

A format is six facts (exponent bits, mantissa bits, bias, sign, special values,
subnormals); everything else on this page is derived from them with exact integers.

Magnitude codes are ordered: leaving the sign aside, code ``c`` has exponent field
``E = c >> m`` and trailing significand ``T = c & (2**m - 1)``, and stands for::

    E == 0, gradual   T * 2**(1 - bias - m)             subnormal, or zero
    E == 0, flush     0
    otherwise         (2**m + T) * 2**(E - bias - m)    normal

Two's-complement formats (``twos``) have no fields: the code is an integer and the value
is that integer times ``2**(1 - bias - m)``.

Sources: IEEE 754-2019 section 3; OCP OFP8 1.0 and MX 1.0; IEEE P3109 interim report 4.0
section 4 (a draft).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fpemu import ladder
from fpemu.choices import member
from fpemu.values import (
    Real,
    Special,
    Value,
    as_value,
    exponent_of,
    power_of_two,
    real,
)

if TYPE_CHECKING:
    from fpemu.algebra import Grid

MAX_EXPONENT_BITS = 16
MAX_MANTISSA_BITS = 52
MAX_BITS = 64


class Specials(StrEnum):
    """Which codes stand for infinities and NaNs.

    ``ieee``: the top exponent holds infinity and NaNs. ``fn``: one NaN per sign, the top
    code; no infinity. ``fnuz``: one NaN in the place of -0; no infinity. ``finite``: none.
    ``p3109_extended`` and ``p3109_finite``: one NaN (signed: in the place of -0, unsigned:
    the top code), with or without infinities below it. ``e8m0``: no zero, the top code is
    NaN. ``twos``: two's-complement fixed point, none.
    """

    IEEE = "ieee"
    FN = "fn"
    FNUZ = "fnuz"
    FINITE = "finite"
    P3109_EXTENDED = "p3109_extended"
    P3109_FINITE = "p3109_finite"
    E8M0 = "e8m0"
    TWOS = "twos"

    @property
    def is_p3109(self) -> bool:
        return self in (Specials.P3109_EXTENDED, Specials.P3109_FINITE)


class Subnormals(StrEnum):
    """What exponent code 0 means.

    ``gradual``: subnormals. ``flush``: every such code is read and written as zero.
    ``none``: a normal binade like any other, so that there is no zero (E8M0).
    """

    GRADUAL = "gradual"
    FLUSH = "flush"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class FInfo:
    """Limits of a format under the names of ``numpy.finfo``; all in units of 1."""

    bits: int
    nexp: int
    nmant: int
    minexp: int | None
    maxexp: int | None
    eps: Real | None
    max: Real
    min: Real
    smallest_normal: Real | None
    smallest_subnormal: Real | None
    precision: int
    dtype: str

    @property
    def tiny(self) -> Real | None:
        return self.smallest_normal


@dataclass(frozen=True, slots=True)
class Format:
    """A floating-point or fixed-point format as an immutable, hashable, picklable value.

    `exponent_bits` is 0..16 and `mantissa_bits` (stored bits, hidden one excluded) 0..52,
    together with the sign at most 64. `bias` is any integer; by default
    ``2**(e-1) - 1``, and ``2**(e-1)`` for fnuz and P3109; formats without exponent bits
    default to 1, so that they count in steps of ``2**-m``, and two's complement to ``1 - m``,
    so that it counts in steps of 1. `specials` and `subnormals` take the names of `Specials`
    and `Subnormals`.

    ``==`` compares the six facts; ``<=`` compares the sets of finite values (`algebra`).
    ``str`` gives the shortest spelling that `Format.parse` reads back.

    Errors: TypeError for a field of the wrong type, ValueError for one out of range and for
    combinations that have no meaning, such as fnuz without a sign.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int = None  # type: ignore[assignment]
    signed: bool = True
    specials: Specials = Specials.IEEE
    subnormals: Subnormals = Subnormals.GRADUAL

    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        for name, value, top in (
            ("exponent_bits", e, MAX_EXPONENT_BITS),
            ("mantissa_bits", m, MAX_MANTISSA_BITS),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
            if not 0 <= value <= top:
                raise ValueError(f"{name} must be in 0..{top}, got {value}")
        if not isinstance(self.signed, bool):
            raise TypeError(f"signed must be a bool, got {self.signed!r}")
        object.__setattr__(self, "specials", member(Specials, "specials", self.specials))
        object.__setattr__(self, "subnormals", member(Subnormals, "subnormals", self.subnormals))
        if self.bias is None:
            bias = default_bias(e, m, self.specials)  # type: ignore[unreachable]
            object.__setattr__(self, "bias", bias)
        elif isinstance(self.bias, bool) or not isinstance(self.bias, int):
            raise TypeError(f"bias must be an int, got {type(self.bias).__name__} {self.bias!r}")
        self._check_combination()
        # Formats key caches in every call, and hashing enum members is slow. Integers only, so
        # that the hash is the same in every process and survives pickling.
        places = list(Specials).index(self.specials), list(Subnormals).index(self.subnormals)
        object.__setattr__(self, "_hash", hash((e, m, self.bias, self.signed, *places)))

    def __hash__(self) -> int:
        return self._hash

    def _check_combination(self) -> None:
        e, m, specials = self.exponent_bits, self.mantissa_bits, self.specials
        spelled = f"e{e}m{m} {'signed' if self.signed else 'unsigned'} {specials}"
        if self.bits > MAX_BITS:
            raise ValueError(f"a format has at most {MAX_BITS} bits, got {self.bits} for {spelled}")
        if (specials is Specials.E8M0) != (self.subnormals is Subnormals.NONE):
            raise ValueError(
                "specials='e8m0' and subnormals='none' go together: a format without zero; "
                f"got specials={str(specials)!r}, subnormals={str(self.subnormals)!r}"
            )
        if self.subnormals is not Subnormals.GRADUAL and e == 0:
            raise ValueError(f"subnormals must be 'gradual' when exponent_bits is 0, got {spelled}")
        if specials is Specials.E8M0 and self.signed:
            raise ValueError(f"specials='e8m0' must be unsigned, got {spelled}")
        if specials is Specials.FNUZ and not self.signed:
            raise ValueError(f"specials='fnuz' must be signed, got {spelled}")
        if specials is Specials.TWOS and not (self.signed and e == 0):
            raise ValueError(f"specials='twos' must be signed with exponent_bits 0, got {spelled}")
        if specials is Specials.IEEE and e == 0:
            raise ValueError(
                f"specials='ieee' needs an exponent field, got {spelled}; "
                "a format without exponent bits is 'finite', 'fn', 'fnuz' or 'twos'"
            )
        if specials.is_p3109:
            if not 3 <= self.bits <= 16 or e < 1:
                raise ValueError(
                    f"P3109 formats have 3..16 bits and at least 1 exponent bit, got {spelled}"
                )
            if self.bias != default_bias(e, m, specials):
                raise ValueError(
                    f"P3109 fixes the bias of {spelled} at {default_bias(e, m, specials)}, "
                    f"got {self.bias}"
                )
            if self.subnormals is not Subnormals.GRADUAL:
                raise ValueError(f"P3109 formats have subnormals, got {str(self.subnormals)!r}")
        smallest = 0 if self.subnormals is Subnormals.NONE else 1
        if self.subnormals is Subnormals.FLUSH:
            smallest = 1 << m
        if self.max_code < smallest:
            raise ValueError(f"{spelled} has no positive finite value")

    # ------------------------------------------------------------------ codes

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.exponent_bits + self.mantissa_bits + self.signed

    @property
    def max_code(self) -> int:
        """The magnitude code of the largest finite value."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        match self.specials:
            case Specials.IEEE:
                return (((1 << self.exponent_bits) - 1) << self.mantissa_bits) - 1
            case Specials.FN | Specials.E8M0:
                return top - 1
            case Specials.P3109_EXTENDED:
                return top - 1 if self.signed else top - 2
            case Specials.P3109_FINITE:
                return top if self.signed else top - 1
            case _:
                return top

    @property
    def inf_code(self) -> int | None:
        """The magnitude code of infinity, None where there is none."""
        if self.specials in (Specials.IEEE, Specials.P3109_EXTENDED):
            return self.max_code + 1
        return None

    @property
    def nan_code(self) -> int | None:
        """The code written for NaN: positive, quiet, payload 0. None where there is none."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        match self.specials:
            case Specials.IEEE:
                half = (1 << self.mantissa_bits) >> 1
                return self.max_code + 1 + half if half else None
            case Specials.FN | Specials.E8M0:
                return top
            case Specials.FNUZ:
                return top + 1
            case Specials.P3109_EXTENDED | Specials.P3109_FINITE:
                return top + 1 if self.signed else top
            case _:
                return None

    @property
    def has_inf(self) -> bool:
        return self.inf_code is not None

    @property
    def has_nan(self) -> bool:
        return self.nan_code is not None

    @property
    def has_zero(self) -> bool:
        return self.subnormals is not Subnormals.NONE

    @property
    def has_negative_zero(self) -> bool:
        return self.signed and self.specials in (
            Specials.IEEE,
            Specials.FN,
            Specials.FINITE,
        )

    @property
    def has_negative_inf(self) -> bool:
        return self.signed and self.has_inf

    def codes(self) -> range:
        """Every code, special ones included."""
        return range(1 << self.bits)

    def decode(self, code: int) -> Value:
        """The exact value of `code`: a Fraction, or a `Special` (NaN, infinities, -0).

        Errors: TypeError if `code` is not an int, ValueError if it has more than `bits` bits.
        """
        if isinstance(code, bool) or not hasattr(code, "__index__"):
            raise TypeError(f"code must be an int, got {type(code).__name__} {code!r}")
        code = code.__index__()
        if not 0 <= code < 1 << self.bits:
            raise ValueError(f"code must be in 0..{(1 << self.bits) - 1} for {self}, got {code}")
        if self.specials is Specials.TWOS:
            wrapped = code - (1 << self.bits) if code >> self.mantissa_bits else code
            return wrapped * power_of_two(self.quantum_exponent)
        magnitude = code & ((1 << (self.bits - self.signed)) - 1)
        negative = magnitude != code
        if code == self.nan_code or (magnitude > self.max_code and magnitude != self.inf_code):
            return Special.NAN
        if magnitude == self.inf_code:
            return Special.NEG_INF if negative else Special.POS_INF
        value = self.magnitude(magnitude)
        if negative:
            if value:
                return -value
            return Special.NEG_ZERO if self.has_negative_zero else value
        return value

    def magnitude(self, code: int) -> Fraction:
        """The value of a magnitude code under the field rules above, specials not considered."""
        m = self.mantissa_bits
        field, trailing = code >> m, code & ((1 << m) - 1)
        if field == 0 and self.subnormals is Subnormals.GRADUAL:
            return trailing * power_of_two(self.quantum_exponent)
        if field == 0 and self.subnormals is Subnormals.FLUSH:
            return Fraction(0)
        return ((1 << m) + trailing) * power_of_two(field - self.bias - m)

    def encode(self, value: object) -> int:
        """The code of `value`, which must be a member of the format (no rounding).

        `value` is a real number or a `Special`; NaN gives the positive quiet NaN.
        Errors: ValueError for a value the format does not have, TypeError for a non-number.
        """
        exact = as_value(value)
        code = self._code_or_none(exact)
        if code is None:
            raise ValueError(f"value must be a member of {self}, got {value!r}; round it first")
        return code

    def __contains__(self, value: object) -> bool:
        """Whether `value`, a real number or a `Special`, is a value of the format."""
        return self._code_or_none(as_value(value)) is not None

    def _code_or_none(self, value: Value) -> int | None:
        sign = 1 << (self.bits - 1)
        match value:
            case Special.NAN:
                return self.nan_code
            case Special.POS_INF:
                return self.inf_code
            case Special.NEG_INF:
                return sign + self.inf_code if self.signed and self.inf_code is not None else None
            case Special.NEG_ZERO:
                return sign if self.has_negative_zero else None
        assert isinstance(value, Fraction)
        if self.specials is Specials.TWOS:
            steps = value / power_of_two(self.quantum_exponent)
            fits = steps.denominator == 1 and -sign <= steps < sign
            return int(steps) % (1 << self.bits) if fits else None
        if value < 0 and not self.signed:
            return None
        magnitude = self._magnitude_code_or_none(abs(value))
        if magnitude is None:
            return None
        return magnitude + sign if value < 0 else magnitude

    def _magnitude_code_or_none(self, value: Fraction) -> int | None:
        m = self.mantissa_bits
        if value == 0:
            return 0 if self.has_zero else None
        binade = max(exponent_of(value), self.emin)
        steps = value / power_of_two(binade - m)
        code = int(steps) + ((binade - self.emin) << m)
        if self.subnormals is Subnormals.NONE:
            code -= 1 << m
        if steps.denominator != 1 or not 0 <= code <= self.max_code:
            return None
        return code if self.magnitude(code) == value else None

    # ----------------------------------------------------------------- limits

    @property
    def precision(self) -> int:
        """Significant bits, the hidden one included (none is hidden without exponent bits)."""
        return self.mantissa_bits + (self.exponent_bits > 0)

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal binade."""
        return -self.bias if self.subnormals is Subnormals.NONE else 1 - self.bias

    @property
    def quantum_exponent(self) -> int:
        """The exponent of the last place in the smallest binade (2 to it is min_subnormal)."""
        return self.emin - self.mantissa_bits

    @property
    def emax(self) -> int:
        """floor(log2(max))."""
        return exponent_of(self.max_value)

    @property
    def max_value(self) -> Fraction:
        """`max` as a Fraction."""
        return self.magnitude(self.max_code)

    @property
    def lowest_value(self) -> Fraction:
        """The most negative finite value (unsigned formats: the smallest value)."""
        if self.specials is Specials.TWOS:
            return -power_of_two(self.quantum_exponent + self.mantissa_bits)
        if not self.signed:
            return Fraction(0) if self.has_zero else self.magnitude(0)
        return -self.max_value

    @property
    def max(self) -> Real:
        """The largest finite value: a float where float64 holds it, a Fraction otherwise."""
        return real(self.max_value)

    @property
    def min(self) -> Real:
        """The most negative finite value."""
        return real(self.lowest_value)

    @property
    def min_normal(self) -> Real | None:
        """The smallest positive normal value, None where every value is subnormal."""
        first = self.magnitude(0 if self.subnormals is Subnormals.NONE else 1 << self.mantissa_bits)
        return real(first) if self.exponent_bits and first <= self.max_value else None

    @property
    def min_subnormal(self) -> Real | None:
        """The smallest positive subnormal, None where there is none."""
        if self.subnormals is not Subnormals.GRADUAL or self.mantissa_bits == 0:
            return None
        return real(power_of_two(self.quantum_exponent))

    @property
    def min_positive(self) -> Real:
        """The smallest positive value, subnormal or not."""
        return real(self.smallest_positive)

    @property
    def smallest_positive(self) -> Fraction:
        """`min_positive` as a Fraction."""
        if self.subnormals is Subnormals.NONE:
            return self.magnitude(0)
        return self.magnitude(1 << self.mantissa_bits if self._flushes else 1)

    @property
    def _flushes(self) -> bool:
        return self.subnormals is Subnormals.FLUSH

    @property
    def eps(self) -> Real | None:
        """Spacing of the values just above 1, None where 1 or its successor is out of range."""
        if 1 not in self or self.max_value == 1:
            return None
        above = ladder.after(self, Fraction(1))
        return real(above - 1) if above is not None else None

    @property
    def finfo(self) -> FInfo:
        """The limits under NumPy's names; `precision` there is in decimal digits."""
        return FInfo(
            bits=self.bits,
            nexp=self.exponent_bits,
            nmant=self.mantissa_bits,
            minexp=self.emin if self.min_normal is not None else None,
            maxexp=self.emax + 1,
            eps=self.eps,
            max=self.max,
            min=self.min,
            smallest_normal=self.min_normal,
            smallest_subnormal=self.min_subnormal,
            precision=max(0, int((self.precision - 1) * 0.30102999566398120)),
            dtype=str(self),
        )

    # ------------------------------------------------------------ value order

    def magnitudes(self) -> Iterator[Fraction]:
        """Every finite magnitude once, ascending."""
        previous = None
        for code in range(self.max_code + 1):
            value = self.magnitude(code)
            if value != previous:
                yield value
            previous = value

    def values(self) -> list[Real]:
        """Every finite value once, ascending; zero once. 2**bits entries, so mind the format."""
        positive = list(self.magnitudes())
        if not self.signed:
            return [real(v) for v in positive]
        negative = [-v for v in reversed(positive) if v]
        if self.specials is Specials.TWOS:
            negative.insert(0, self.lowest_value)
        return [real(v) for v in negative + positive]

    def neighbours(self, x: object) -> tuple[Real | None, Real | None]:
        """The largest value <= x and the smallest value >= x; None beyond either end.

        Both are x itself where x is a member. Infinities have one neighbour. Errors:
        ValueError for NaN.
        """
        value = ladder.finite_or_infinite(x)
        below, above = ladder.at_or_below(self, value), ladder.at_or_above(self, value)
        return (
            None if below is None else real(below),
            None if above is None else real(above),
        )

    def next_up(self, x: object) -> Real | None:
        """The smallest finite value greater than x, None if there is none."""
        above = ladder.after(self, ladder.finite_or_infinite(x))
        return None if above is None else real(above)

    def next_down(self, x: object) -> Real | None:
        """The largest finite value less than x, None if there is none."""
        below = ladder.before(self, ladder.finite_or_infinite(x))
        return None if below is None else real(below)

    def ulp(self, x: object) -> Real:
        """Spacing of the values in the binade of x, as if the exponent had no upper limit.

        Below the smallest normal (and at zero) it is the smallest positive value's spacing.
        Errors: ValueError for NaN and infinities.
        """
        value = ladder.finite_or_infinite(x)
        if isinstance(value, Special):
            raise ValueError(f"x must be finite, got {x!r}")
        return real(power_of_two(self.step_exponent(abs(value))))

    def step_exponent(self, magnitude: Fraction) -> int:
        """log2 of the spacing at a magnitude, the exponent unbounded above."""
        if self.exponent_bits == 0 or magnitude == 0:
            binade = self.emin
        else:
            binade = max(exponent_of(magnitude), self.emin)
        if self._flushes and magnitude < power_of_two(self.emin):
            return self.emin
        return binade - self.mantissa_bits

    # -------------------------------------------------------------- spellings

    @staticmethod
    def parse(spelling: str) -> Format:
        """The format spelled by `spelling`; see `fpemu.catalog.parse` for the grammar."""
        from fpemu.catalog import parse

        return parse(spelling)

    @staticmethod
    def fixed_point(word_length: int, fraction_length: int, signed: bool = True) -> Format:
        """Two's-complement or unsigned fixed point in steps of ``2**-fraction_length``."""
        m = word_length - signed
        return Format(
            0,
            m,
            bias=1 - m + fraction_length,
            signed=signed,
            specials=Specials.TWOS if signed else Specials.FINITE,
        )

    @property
    def name(self) -> str:
        """The shortest spelling that parses back to this format."""
        from fpemu.catalog import spell

        return spell(self)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Format({self.name!r})"

    def to_dict(self) -> dict[str, Any]:
        """The six facts as JSON types; `Format.from_dict` reads them back."""
        return {
            "exponent_bits": self.exponent_bits,
            "mantissa_bits": self.mantissa_bits,
            "bias": self.bias,
            "signed": self.signed,
            "specials": str(self.specials),
            "subnormals": str(self.subnormals),
        }

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> Format:
        """The inverse of `to_dict`. Errors: TypeError for unknown fields."""
        return Format(**fields)

    def _repr_html_(self) -> str:
        from fpemu.describe import format_html

        return format_html(self)

    # ---------------------------------------------------------------- algebra

    def __le__(self, other: object) -> bool:
        """Whether every finite value of this format is one of `other` (a preorder)."""
        from fpemu import algebra

        if not isinstance(other, Format):
            return NotImplemented
        return algebra.includes(other, self)

    def __ge__(self, other: object) -> bool:
        if not isinstance(other, Format):
            return NotImplemented
        return other <= self

    def __lt__(self, other: object) -> bool:
        """Inclusion that is proper."""
        if not isinstance(other, Format):
            return NotImplemented
        return self <= other and not other <= self

    def __gt__(self, other: object) -> bool:
        if not isinstance(other, Format):
            return NotImplemented
        return other < self

    def __or__(self, other: object) -> Format:
        """The smallest format that contains both (`algebra.join`)."""
        from fpemu import algebra

        if not isinstance(other, Format):
            return NotImplemented
        return algebra.join(self, other)

    def __and__(self, other: object) -> Format:
        """The largest format contained in both (`algebra.meet`)."""
        from fpemu import algebra

        if not isinstance(other, Format):
            return NotImplemented
        return algebra.meet(self, other)

    def __mul__(self, other: object) -> Grid:
        """The smallest grid in which every product of two values is exact."""
        from fpemu import algebra

        if not isinstance(other, Format):
            return NotImplemented
        return algebra.exact_product(self, other)

    def __add__(self, other: object) -> Grid:
        """The smallest grid in which every sum of two values is exact."""
        from fpemu import algebra

        if not isinstance(other, Format):
            return NotImplemented
        return algebra.exact_sum(self, other)


def default_bias(exponent_bits: int, mantissa_bits: int, specials: Specials) -> int:
    """The bias a spelling without one means; see `Format`."""
    if specials is Specials.TWOS:
        return 1 - mantissa_bits
    if exponent_bits == 0:
        return 1
    half = 1 << (exponent_bits - 1)
    return half if specials is Specials.FNUZ or specials.is_p3109 else half - 1
