"""Table formats: at most 256 codes with any values, and the definition of rounding to them.

A `TableFormat` lists the value of every code. Rounding knows no fields and no exponents there,
only the two neighbours of a number, their codes, and the fraction between them::

    nu = (|x| - lo) / (hi - lo)        lo, hi: the neighbours' magnitudes, lo <= |x| < hi

with the modes of `fpemu.rounding` applied to it as for any format. What is left to say:

- A code is even or odd as an integer, whatever its value: a tie of `nearest_even` goes to the
  even one of the two codes, `to_odd` to the odd one. In HiF8, NF4 and bipolar integers
  neighbours always differ in parity. Where they do not, the one nearer to zero is the even one.
- Formats without zero that have both signs (bipolar integers): in the gap around zero neither
  neighbour is the one towards zero, so `nu` is measured upwards from the negative neighbour, for
  every x in the gap. `toward_zero` keeps the sign of x there. Zero, of either sign, is rounded
  like any other number between the two; where a mode's answer hangs on a side that zero has not
  (`toward_zero`, and a tie of `nearest_away` or `nearest_zero` between equal magnitudes), it
  goes to the even code.
- Formats without zero and without negative values: as E8M0 (`fpemu.policy`).
- Overflow is decided as if the infinity's code stood for `beyond`, the next value of the pattern.
  Formats without infinities never leave their range: every overflow rule gives the largest value.

Policies: the overflow, `nan`, `nan_in_values` and `zero_sign` fields; the fields that imitate
other libraries, and their presets, are refused.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from fpemu import catalog
from fpemu.codebooks import NAMED
from fpemu.policy import PRESETS, NanRule, Overflow, Policy, ZeroSign, parse_policy
from fpemu.reference import HALF, goes_away
from fpemu.rounding import Rounding, Stochastic
from fpemu.tables import html_table
from fpemu.values import Real, Special, Value, as_value, real

MAX_BITS = 8


@dataclass(frozen=True, slots=True)
class TableFormat:
    """A format given by the values of its codes; immutable, hashable, picklable.

    `table` holds the value of every code in order: a real number, a `Special`, or None for a
    code that stands for nothing. Its length is a power of two, 2..256. `name` is what ``str``
    prints; the names of `NAMES` read back and mean those tables only. `beyond` goes with
    infinities: the magnitude in whose place they stand, which says where overflow begins.

    Finite values are distinct, with at least one above zero; several codes may be NaN, of which
    the lowest is written. With negative values there is an infinity of each sign or none.

    Errors: TypeError or ValueError naming the field.
    """

    name: str
    table: tuple[Value | None, ...]
    beyond: Fraction | None = None

    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "name", _checked_name(self.name))
        if not isinstance(self.table, Iterable):
            raise TypeError(f"table must be a sequence of values, got {self.table!r}")
        values = tuple(None if entry is None else as_value(entry) for entry in self.table)
        put(self, "table", values)
        if self.beyond is not None:
            beyond = as_value(self.beyond)
            if not isinstance(beyond, Fraction):
                raise ValueError(f"beyond must be finite, got {self.beyond!r}")
            put(self, "beyond", beyond)
        put(self, "_hash", hash((self.name, values, self.beyond)))
        self._check_table()
        self._check_infinities()
        if self.name in NAMED and NAMED[self.name] != (values, self.beyond):
            raise ValueError(f"name {self.name!r} is taken by another table; choose another name")

    def _check_table(self) -> None:
        size = len(self.table)
        if not 2 <= size <= 1 << MAX_BITS or size & (size - 1):
            raise ValueError(f"table must have 2, 4, ... {1 << MAX_BITS} entries, got {size}")
        once = [v for v in self.table if v is not None and v is not Special.NAN]
        if len(set(once)) != len(once):
            twice = next(v for v in once if once.count(v) > 1)
            raise ValueError(f"table must not give {twice!s} to two codes")
        finite = [v for v in once if isinstance(v, Fraction)]
        if not finite or max(finite) <= 0:
            raise ValueError("table must have a positive value")
        if Special.NEG_ZERO in once and not (0 in finite and min(finite) < 0):
            raise ValueError("table must have zero and negative values if it has -0")

    def _check_infinities(self) -> None:
        infinities = [v for v in (Special.POS_INF, Special.NEG_INF) if v in self.table]
        wanted = [Special.POS_INF, Special.NEG_INF][: 1 + self.signed]
        if infinities and infinities != wanted:
            raise ValueError(f"table must have an infinity of each sign it has, got {infinities}")
        if bool(infinities) != (self.beyond is not None):
            raise ValueError(f"beyond goes with infinities, got beyond={self.beyond}")
        if self.beyond is not None and self.beyond <= max(self.max_value, -self.lowest_value):
            raise ValueError(f"beyond must be larger than every value, got {self.beyond}")

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Callable[..., TableFormat], tuple[Any, ...]]:
        # Made anew: the hash of a name is another one in another process.
        return TableFormat, (self.name, self.table, self.beyond)

    # ------------------------------------------------------------------ codes

    @property
    def bits(self) -> int:
        """Width of a code."""
        return len(self.table).bit_length() - 1

    def codes(self) -> range:
        """Every code, those that stand for nothing included."""
        return range(len(self.table))

    def decode(self, code: int) -> Value:
        """The exact value of `code`: a Fraction, or a `Special`.

        Errors: TypeError if `code` is not an int, ValueError if it has more than `bits` bits or
        stands for nothing.
        """
        if isinstance(code, bool) or not hasattr(code, "__index__"):
            raise TypeError(f"code must be an int, got {type(code).__name__} {code!r}")
        code = code.__index__()
        if not 0 <= code < len(self.table):
            raise ValueError(f"code must be in 0..{len(self.table) - 1} for {self}, got {code}")
        value = self.table[code]
        if value is None:
            raise ValueError(f"code {code} stands for nothing in {self}")
        return value

    def encode(self, value: object) -> int:
        """The code of `value`, a real number or `Special` of the format (no rounding).

        Errors: ValueError for a value the format does not have, TypeError for a non-number.
        """
        code = _codes(self).get(as_value(value))
        if code is None:
            raise ValueError(f"value must be a member of {self}, got {value!r}; round it first")
        return code

    def __contains__(self, value: object) -> bool:
        """Whether `value`, a real number or a `Special`, is a value of the format."""
        return as_value(value) in _codes(self)

    @property
    def nan_code(self) -> int | None:
        """The code written for NaN, None where there is none."""
        return _codes(self).get(Special.NAN)

    @property
    def inf_code(self) -> int | None:
        """The code of the positive infinity, None where there is none."""
        return _codes(self).get(Special.POS_INF)

    @property
    def has_nan(self) -> bool:
        return Special.NAN in _codes(self)

    @property
    def has_inf(self) -> bool:
        return Special.POS_INF in _codes(self)

    @property
    def has_zero(self) -> bool:
        return Fraction(0) in _codes(self)

    @property
    def has_negative_zero(self) -> bool:
        return Special.NEG_ZERO in _codes(self)

    # ------------------------------------------------------------ value order

    @property
    def finite(self) -> tuple[Fraction, ...]:
        """Every finite value once, ascending; zero once."""
        return _finite(self)

    @property
    def signed(self) -> bool:
        """Whether there are negative values."""
        return self.lowest_value < 0

    @property
    def max_value(self) -> Fraction:
        """The largest finite value."""
        return self.finite[-1]

    @property
    def lowest_value(self) -> Fraction:
        """The most negative finite value (without a sign: the smallest value)."""
        return self.finite[0]

    @property
    def smallest_positive(self) -> Fraction:
        """The smallest value above zero."""
        return self.finite[bisect_right(self.finite, 0)]

    @property
    def max(self) -> Real:
        """`max_value`: a float where float64 holds it, a Fraction otherwise."""
        return real(self.max_value)

    @property
    def min(self) -> Real:
        """`lowest_value`, as `max`."""
        return real(self.lowest_value)

    @property
    def min_positive(self) -> Real:
        """`smallest_positive`, as `max`."""
        return real(self.smallest_positive)

    def values(self) -> list[Real]:
        """Every finite value once, ascending; zero once."""
        return [real(value) for value in self.finite]

    def neighbours(self, x: object) -> tuple[Real | None, Real | None]:
        """The largest value <= x and the smallest value >= x; None beyond either end.

        Both are x itself where x is a member. Infinities have one neighbour. Errors: ValueError
        for NaN.
        """
        value = as_value(x)
        if value is Special.NAN:
            raise ValueError("x must not be NaN")
        if value is Special.POS_INF:
            return self.max, None
        if value is Special.NEG_INF:
            return None, self.min
        exact = Fraction(0) if isinstance(value, Special) else value
        above = bisect_left(self.finite, exact)
        below = bisect_right(self.finite, exact) - 1
        return (
            real(self.finite[below]) if below >= 0 else None,
            real(self.finite[above]) if above < len(self.finite) else None,
        )

    # -------------------------------------------------------------- spellings

    @staticmethod
    def parse(spelling: str) -> TableFormat:
        """The format named by `spelling`: ``hif8``, ``nf4``, ``bint1`` to ``bint8``, either case.

        Errors: TypeError for a non-string, ValueError with the names for any other string.
        """
        return named(spelling)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        if self.name in NAMED:
            return f"TableFormat.parse({self.name!r})"
        return f"<TableFormat {self.name!r}: {len(self.finite)} values, {self.bits} bits>"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, numbers as exact ratios; `from_dict` reads them back."""
        return {
            "name": self.name,
            "table": [_as_text(value) for value in self.table],
            "beyond": _as_text(self.beyond),
        }

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> TableFormat:
        """The inverse of `to_dict`. Errors: TypeError for unknown fields, ValueError for text
        that is no number."""
        rest = dict(fields)
        table = tuple(_from_text(text) for text in rest.pop("table"))
        beyond = _from_text(rest.pop("beyond", None))
        return TableFormat(table=table, beyond=beyond, **rest)  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        has = {"zero": self.has_zero, "-0": self.has_negative_zero, "inf": self.has_inf}
        extras = [name for name, there in {**has, "NaN": self.has_nan}.items() if there]
        rows = [
            ("bits", str(self.bits)),
            ("finite values", str(len(self.finite))),
            ("range", f"{float(self.min):.9g} to {float(self.max):.9g}"),
            ("smallest above zero", f"{float(self.min_positive):.9g}"),
            ("has", ", ".join(extras) or "no zero, infinity or NaN"),
        ]
        if self.bits <= 4:
            rows += [
                (f"0x{code:x}", "nothing" if value is None else _short(value))
                for code, value in enumerate(self.table)
            ]
        return html_table(rows, self.name)


def named(spelling: str) -> TableFormat:
    """The table format of a name; see `TableFormat.parse`."""
    if not isinstance(spelling, str):
        raise TypeError(f"spelling must be a str, got {type(spelling).__name__} {spelling!r}")
    text = spelling.strip().lower()
    if text in NAMES:
        return NAMES[text]
    near = difflib.get_close_matches(text, NAMES, n=4, cutoff=0.5)
    hint = f"; nearest names: {', '.join(near)}" if near else ""
    raise ValueError(
        f"spelling {spelling!r} is not a table format; names: {', '.join(NAMES)}{hint}"
    )


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__} {name!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name must be small letters, digits and '_', got {name!r}")
    try:
        catalog.parse(name)
    except ValueError:
        return name
    raise ValueError(f"name {name!r} is the spelling of a Format; choose another name")


def _as_text(value: Value | None) -> str | None:
    return value.value if isinstance(value, Special) else None if value is None else str(value)


def _from_text(text: str | None) -> Value | None:
    if text is None:
        return None
    special = {member.value: member for member in Special}.get(text)
    return Fraction(text) if special is None else special


def _short(value: Value) -> str:
    return value.value if isinstance(value, Special) else f"{float(value):.9g}"


@lru_cache(maxsize=256)
def _codes(fmt: TableFormat) -> dict[Value, int]:
    """The code of every value; the lowest one for NaN."""
    return {v: code for code, v in reversed(list(enumerate(fmt.table))) if v is not None}


@lru_cache(maxsize=256)
def _finite(fmt: TableFormat) -> tuple[Fraction, ...]:
    return tuple(sorted(v for v in fmt.table if isinstance(v, Fraction)))


# ------------------------------------------------------------------- rounding


def check_policy(fmt: TableFormat, policy: Policy) -> None:
    """Errors: ValueError for a policy that table formats have no meaning for."""
    for name in ("infinity_always", "magnitude_only", "through_float32"):
        if getattr(policy, name):
            raise ValueError(f"policy must leave {name} off for the table format {fmt}")
    if policy.nan in (NanRule.ZERO, NanRule.NEGATIVE_ZERO) and not (fmt.has_nan or fmt.has_zero):
        raise ValueError(f"policy nan={str(policy.nan)!r} needs a zero, which {fmt} has not")


def parse_table_policy(policy: Policy | str | None, fmt: TableFormat) -> Policy:
    """The policy meant: a Policy, the name of an overflow rule, or None for the default.

    Errors: ValueError for a preset, an unknown name, or a policy that `check_policy` refuses;
    TypeError for another type.
    """
    if isinstance(policy, str) and policy.strip().lower() in PRESETS:
        rules = ", ".join(Overflow)
        raise ValueError(
            f"policy {policy!r} imitates a library that does not know the table format {fmt}; "
            f"allowed: a Policy, {rules}"
        )
    # Overflow names and Policy objects do not ask the format.
    chosen = parse_policy(policy, _ANY)[1]
    check_policy(fmt, chosen)
    return chosen


_ANY = catalog.parse("e2m1")


def overflow_rule(fmt: TableFormat, policy: Policy) -> Overflow:
    """The overflow rule that applies: sat_none where there are infinities, else sat_finite."""
    if policy.overflow is not None:
        return policy.overflow
    return Overflow.SAT_NONE if fmt.has_inf else Overflow.SAT_FINITE


class Rung(NamedTuple):
    """A magnitude that rounding may give, and the parity of its code."""

    size: Fraction
    odd: bool


@lru_cache(maxsize=512)
def ladder(fmt: TableFormat, negative: bool) -> tuple[Rung, ...]:
    """The magnitudes of one sign, zero included, ascending; last the one that overflows, if any.

    Negative numbers climb the positive ladder where the format has no negative values.
    """
    mirrored = negative and fmt.signed
    values = [-v for v in reversed(fmt.finite)] if mirrored else list(fmt.finite)
    rungs = [
        Rung(size, bool(fmt.encode(-size if mirrored else size) & 1))
        for size in values
        if size >= 0
    ]
    if fmt.beyond is not None:
        code = fmt.encode(Special.NEG_INF if mirrored else Special.POS_INF)
        rungs.append(Rung(fmt.beyond, bool(code & 1)))
    return tuple(rungs)


def round_value(
    fmt: TableFormat,
    x: Value,
    rounding: Rounding | Stochastic,
    policy: Policy,
    draw: int = 0,
) -> Value:
    """`x` rounded once to `fmt`: the definition that the array verbs equal.

    As `fpemu.reference.round_value`, for tables; this module states the rules. `draw` is the
    random integer of `rounding.bits` bits for stochastic modes. Errors: TypeError for pseudo
    rounding, ValueError for a policy that table formats refuse.
    """
    if not isinstance(rounding, Rounding | Stochastic):
        raise TypeError(f"rounding must be deterministic or stochastic, got {rounding!r}")
    check_policy(fmt, policy)
    if x is Special.NAN:
        return Special.NAN if fmt.has_nan or not policy.nan_in_values else nan_value(fmt, policy)
    if x is Special.POS_INF or x is Special.NEG_INF:
        return _infinite(fmt, policy, x is Special.NEG_INF)
    number = Fraction(0) if x is Special.NEG_ZERO else x
    assert isinstance(number, Fraction)
    gap = gap_around_zero(fmt)
    if gap is not None and gap[0] < number < gap[1]:
        return _in_gap(fmt, number, gap, rounding, draw)
    if number == 0:
        return _zero(fmt, policy, x is Special.NEG_ZERO, from_input=True)
    return _off_zero(fmt, number, rounding, policy, draw)


def gap_around_zero(fmt: TableFormat) -> tuple[Fraction, Fraction] | None:
    """The neighbours of zero in a format that has both signs and no zero."""
    if fmt.has_zero or not fmt.signed:
        return None
    above = bisect_left(fmt.finite, 0)
    return fmt.finite[above - 1], fmt.finite[above]


def _in_gap(
    fmt: TableFormat,
    x: Fraction,
    gap: tuple[Fraction, Fraction],
    rounding: Rounding | Stochastic,
    draw: int,
) -> Fraction:
    low, high = gap
    nu = (x - low) / (high - low)
    if rounding is Rounding.TOWARD_ZERO and x != 0:
        return high if x > 0 else low
    nearest = rounding in (Rounding.NEAREST_AWAY, Rounding.NEAREST_ZERO)
    if nearest and nu == HALF and high != -low:
        return high if (high > -low) == (rounding is Rounding.NEAREST_AWAY) else low
    if nearest or rounding is Rounding.TOWARD_ZERO:
        rounding = Rounding.NEAREST_EVEN
    odd = bool(fmt.encode(low) & 1)
    if odd == bool(fmt.encode(high) & 1):
        odd = -low > high
    return high if goes_away(rounding, nu, odd, False, draw) else low


def _off_zero(
    fmt: TableFormat,
    x: Fraction,
    rounding: Rounding | Stochastic,
    policy: Policy,
    draw: int,
) -> Value:
    """A number that is not zero and not in the gap around it."""
    negative, size = x < 0, abs(x)
    rungs = ladder(fmt, negative)
    at = bisect_right(rungs, size, key=lambda rung: rung.size) - 1
    low = rungs[max(at, 0)]
    rounded = low.size  # below the smallest value of a format without zero: that value
    if at == len(rungs) - 1:
        over = size > low.size or fmt.has_inf
    elif at >= 0:
        high = rungs[at + 1]
        nu = (size - low.size) / (high.size - low.size)
        if goes_away(rounding, nu, low.odd and not high.odd, negative, draw):
            rounded = high.size
        over = rounded == fmt.beyond
    else:
        over = False
    if rounded == 0:
        return _zero(fmt, policy, negative, from_input=False)
    if negative and not fmt.signed:
        return _negative_in_unsigned(fmt, policy)
    if over:
        return _overflow(fmt, rounding, policy, negative)
    return -rounded if negative else rounded


def _largest(fmt: TableFormat, negative: bool) -> Fraction:
    return fmt.lowest_value if negative else fmt.max_value


def _overflow(
    fmt: TableFormat, rounding: Rounding | Stochastic, policy: Policy, negative: bool
) -> Value:
    outward = Rounding.TOWARD_NEGATIVE if negative else Rounding.TOWARD_POSITIVE
    stays = isinstance(rounding, Rounding) and not (rounding.is_nearest or rounding is outward)
    if stays or not fmt.has_inf or overflow_rule(fmt, policy) is not Overflow.SAT_NONE:
        return _largest(fmt, negative)
    return Special.NEG_INF if negative else Special.POS_INF


def _infinite(fmt: TableFormat, policy: Policy, negative: bool) -> Value:
    if negative and not fmt.signed:
        return _negative_in_unsigned(fmt, policy)
    if not fmt.has_inf or overflow_rule(fmt, policy) is Overflow.SAT_FINITE:
        return _largest(fmt, negative)
    return Special.NEG_INF if negative else Special.POS_INF


def _zero(fmt: TableFormat, policy: Policy, negative: bool, from_input: bool) -> Value:
    """A zero result; formats that have neither zero nor negative values: what stands for it."""
    if not fmt.has_zero:
        sat = overflow_rule(fmt, policy) is Overflow.SAT_FINITE
        return fmt.smallest_positive if sat else Special.NAN
    dropped = policy.zero_sign is ZeroSign.DROP or (
        policy.zero_sign is ZeroSign.DROP_INPUT and from_input
    )
    return Special.NEG_ZERO if negative and fmt.has_negative_zero and not dropped else Fraction(0)


def _negative_in_unsigned(fmt: TableFormat, policy: Policy) -> Value:
    if overflow_rule(fmt, policy) is Overflow.SAT_NONE:
        return Special.NAN
    return _zero(fmt, policy, negative=False, from_input=False)


def nan_value(fmt: TableFormat, policy: Policy) -> Value:
    """What stands for NaN in a format without it. Errors: ValueError under ``nan="error"``."""
    match policy.nan:
        case NanRule.MAX:
            return fmt.max_value
        case NanRule.ZERO:
            return Fraction(0)
        case NanRule.NEGATIVE_ZERO:
            return Special.NEG_ZERO if fmt.has_negative_zero else Fraction(0)
        case NanRule.ERROR:
            raise ValueError(f"x must not be NaN: {fmt} has no code for it")


NAMES: dict[str, TableFormat] = {
    name: TableFormat(name, book.table, book.beyond) for name, book in NAMED.items()
}
