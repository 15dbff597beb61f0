"""An independent second opinion: rounding by looking a value up in the format's table.

The table holds every magnitude of a format in order and the exact midpoints between them, in
float64. Rounding is then a binary search and comparisons; nothing is shifted, divided or
reconstructed, and none of `fpemu.reference` is used. So agreement of the two means something,
and all formats up to 8 bits can be swept in seconds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials
from fpemu.policy import NanRule, Overflow, Policy, ZeroSign
from fpemu.rounding import Rounding, Stochastic, Variant
from fpemu.testing._patterns import Floats, widen
from fpemu.testing._points import magnitudes

MAX_BITS = 16
NO_CODE = -1

Float64s = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Rounded(NamedTuple):
    """What rounding must give: exact float64 `values` and their `codes`, `NO_CODE` for none."""

    values: Float64s
    codes: Integers


class Neighbours(NamedTuple):
    """Where magnitudes lie: number of the `rung` at or below (-1: below the lowest), the values
    of that rung and the next, the midpoint, and whether the lower rung's code is odd."""

    rung: Integers
    low: Float64s
    high: Float64s
    middle: Float64s
    odd: Mask

    def where(self, mask: Mask) -> Neighbours:
        """Those of some magnitudes."""
        return Neighbours(
            self.rung[mask], self.low[mask], self.high[mask], self.middle[mask], self.odd[mask]
        )


class Ladder(NamedTuple):
    """The magnitudes of one sign, ascending, and one rung beyond the largest."""

    rungs: Float64s
    middles: Float64s
    codes: Integers

    @property
    def beyond(self) -> int:
        """Index of the rung that is out of range."""
        return len(self.rungs) - 1

    def locate(self, size: Float64s) -> Neighbours:
        """The neighbours of finite magnitudes; those beyond the last rung stay at it."""
        index = np.searchsorted(self.rungs, size, side="right") - 1
        low = np.clip(index, 0, self.beyond)
        high = np.clip(index + 1, 0, self.beyond)
        middle = np.clip(index, 0, self.beyond - 1)
        return Neighbours(
            index,
            self.rungs[low],
            self.rungs[high],
            self.middles[middle],
            self.codes[low] % 2 == 1,
        )


class Table:
    """The values of one format, up to 16 bits, with the rules of every mode and policy.

    Errors: ValueError for a format that is wider, or whose midpoints float64 does not hold.
    """

    def __init__(self, fmt: Format | str) -> None:
        self.fmt = as_format(fmt)
        if not self.covers(self.fmt):
            raise ValueError(
                f"fmt must have at most {MAX_BITS} bits and midpoints in float64, got {self.fmt}"
            )
        extra = self.fmt.specials is Specials.TWOS  # -2**k, which has no positive twin
        self.positive = self._ladder(self.fmt.max_code)
        self.negative = self._ladder(self.fmt.max_code + extra)

    @staticmethod
    def covers(fmt: Format) -> bool:
        """Whether a table can be made."""
        return fmt.bits <= MAX_BITS and fmt.quantum_exponent > -1074 and fmt.max_value < 1 << 1024

    def _ladder(self, top: int) -> Ladder:
        codes = np.arange(top + 2)
        rungs = magnitudes(self.fmt, codes)
        first = np.concatenate([[True], rungs[1:] != rungs[:-1]])  # flush: one zero
        rungs, codes = rungs[first], codes[first]
        halves = magnitudes(self.fmt, codes, scale=-1)  # finite even where 2**1024 is next
        return Ladder(rungs, rungs[:-1] + (halves[1:] - halves[:-1]), codes)

    def decode(self, codes: Integers) -> Float64s:
        """The values of codes, special ones included."""
        fmt = self.fmt
        if fmt.specials is Specials.TWOS:
            wrapped = np.where(codes >> fmt.mantissa_bits, codes - (1 << fmt.bits), codes)
            return np.sign(wrapped) * magnitudes(fmt, np.abs(wrapped))
        magnitude = codes & ((1 << (fmt.bits - fmt.signed)) - 1)
        values = magnitudes(fmt, magnitude)
        values[magnitude > fmt.max_code] = np.nan
        if fmt.inf_code is not None:
            values[magnitude == fmt.inf_code] = np.inf
        values = np.where(magnitude == codes, values, -values)
        return np.where(codes == fmt.nan_code, np.nan, values)

    # ------------------------------------------------------------------ rounding

    def round(
        self,
        x: Floats,
        rounding: Rounding | Stochastic = Rounding.NEAREST_EVEN,
        policy: Policy | None = None,
        draws: NDArray[Any] | None = None,
    ) -> Rounded:
        """What `x` must become, and its codes; `draws` are the random integers, one an element.

        Errors: ValueError for a stochastic mode without draws.
        """
        rules = policy or Policy()
        if isinstance(rounding, Stochastic) and draws is None:
            raise ValueError(f"draws must be given with rounding={str(rounding)!r}")
        if rules.through_float32 and x.dtype == np.float64:
            with np.errstate(all="ignore"):
                x = x.astype(np.float32)
        wide = np.atleast_1d(widen(np.asarray(x)))
        if rules.magnitude_only and not self.fmt.signed:
            wide = np.abs(wide)
        flat = wide.reshape(-1)
        drawn = np.zeros(flat.shape, np.int64) if draws is None else draws.reshape(-1)
        negative = np.signbit(flat) & ~np.isnan(flat)
        values, codes = np.empty(flat.shape), np.empty(flat.shape, np.int64)
        for sign in (False, True):
            side = (negative == sign) & ~np.isnan(flat)
            values[side], codes[side] = self._side(
                np.abs(flat[side]), sign, rounding, rules, drawn[side].astype(np.int64)
            )
        values[np.isnan(flat)], codes[np.isnan(flat)] = self._nan(rules)
        shape = np.shape(x)
        return Rounded(values.reshape(shape), codes.reshape(shape))

    def _side(
        self,
        size: Float64s,
        negative: bool,
        rounding: Rounding | Stochastic,
        policy: Policy,
        draws: Integers,
    ) -> Rounded:
        """Magnitudes of one sign, infinities included."""
        ladder = self.negative if negative else self.positive
        finite = np.isfinite(size)
        at = ladder.locate(np.where(finite, size, 0.0))
        inside = finite & (at.rung >= 0) & (at.rung < ladder.beyond)
        away = np.zeros(size.shape, np.bool_)
        part = at.where(inside)
        away[inside] = _goes_away(rounding, size[inside], part, negative, draws[inside])
        rung = np.clip(at.rung + away, 0, ladder.beyond)

        values = ladder.rungs[rung]
        codes = self._signed_codes(ladder.codes[rung], negative)
        values = -values if negative else values
        zero = ladder.rungs[rung] == 0
        fixes: list[tuple[Mask, tuple[float, int]]] = []
        if negative and not self.fmt.signed:
            fixes.append((~zero, self._negative_in_unsigned(policy)))
        else:
            over = rung == ladder.beyond
            fixes.append((over, self._overflow(rounding, policy, negative)))
        fixes.append((zero, self._zero(policy, negative, from_input=False)))
        fixes.append((size == 0, self._zero(policy, negative, from_input=True)))
        fixes.append((~finite, self._infinite(policy, negative)))
        for where, (value, code) in fixes:
            values[where], codes[where] = value, code
        return Rounded(values, codes)

    # -------------------------------------------------- the edges, as policy.py states them

    def _rule(self, policy: Policy) -> Overflow:
        if policy.overflow is not None:
            return policy.overflow
        return Overflow.SAT_NONE if self.fmt.has_inf else Overflow.SAT_FINITE

    def _overflow(
        self, rounding: Rounding | Stochastic, policy: Policy, negative: bool
    ) -> tuple[float, int]:
        inward = {
            Rounding.TOWARD_ZERO,
            Rounding.TOWARD_POSITIVE if negative else Rounding.TOWARD_NEGATIVE,
        }
        if not (self.fmt.specials is Specials.P3109_EXTENDED and self.fmt.signed):
            inward.add(Rounding.TO_ODD)
        if rounding in inward or self._rule(policy) is not Overflow.SAT_NONE:
            return self._largest(negative)
        return self._infinity(policy, negative)

    def _infinite(self, policy: Policy, negative: bool) -> tuple[float, int]:
        if negative and not self.fmt.signed:
            return self._negative_in_unsigned(policy)
        kept = self.fmt.has_inf or policy.infinity_always
        match self._rule(policy):
            case Overflow.SAT_NONE:
                return self._infinity(policy, negative)
            case Overflow.SAT_PROPAGATE if kept:
                return self._infinity(policy, negative)
            case _ if policy.infinity_always:
                return self._infinity(policy, negative)
        return self._largest(negative)

    def _infinity(self, policy: Policy, negative: bool) -> tuple[float, int]:
        value = -np.inf if negative else np.inf
        if self.fmt.inf_code is not None:
            return value, int(self._signed_codes(np.array([self.fmt.inf_code]), negative)[0])
        if policy.infinity_always:
            return value, NO_CODE
        if self.fmt.specials in (Specials.FN, Specials.FNUZ, Specials.E8M0):
            assert self.fmt.nan_code is not None
            return np.nan, self.fmt.nan_code
        return self._largest(negative)

    def _largest(self, negative: bool) -> tuple[float, int]:
        ladder = self.negative if negative else self.positive
        top = ladder.beyond - 1
        code = self._signed_codes(ladder.codes[top : top + 1], negative)
        return (-1 if negative else 1) * float(ladder.rungs[top]), int(code[0])

    def _zero(self, policy: Policy, negative: bool, from_input: bool) -> tuple[float, int]:
        if not self.fmt.has_zero:
            if policy.magnitude_only or self._rule(policy) is Overflow.SAT_FINITE:
                return float(self.positive.rungs[0]), 0
            return np.nan, self._nan_code()
        dropped = policy.zero_sign is ZeroSign.DROP or (
            policy.zero_sign is ZeroSign.DROP_INPUT and from_input
        )
        if negative and self.fmt.has_negative_zero and not dropped:
            return -0.0, 1 << (self.fmt.bits - 1)
        return 0.0, 0

    def _negative_in_unsigned(self, policy: Policy) -> tuple[float, int]:
        if self._rule(policy) is Overflow.SAT_NONE:
            return np.nan, self._nan_code(policy)
        return self._zero(policy, negative=False, from_input=False)

    def _nan(self, policy: Policy) -> tuple[float, int]:
        code = self._nan_code(policy)
        if self.fmt.has_nan or not policy.nan_in_values:
            return np.nan, code
        return self._nan_value(policy), code

    def _nan_code(self, policy: Policy | None = None) -> int:
        if self.fmt.nan_code is not None:
            return self.fmt.nan_code
        if policy is None or policy.nan is NanRule.ERROR:
            return NO_CODE
        if policy.nan is NanRule.MAX:
            return self.fmt.max_code
        minus_zero = policy.nan is NanRule.NEGATIVE_ZERO and self.fmt.has_negative_zero
        return 1 << (self.fmt.bits - 1) if minus_zero else 0

    def _nan_value(self, policy: Policy) -> float:
        if policy.nan is NanRule.MAX:
            return self._largest(False)[0]
        minus_zero = policy.nan is NanRule.NEGATIVE_ZERO and self.fmt.has_negative_zero
        return -0.0 if minus_zero else 0.0

    def _signed_codes(self, codes: Integers, negative: bool) -> Integers:
        if not negative or not self.fmt.signed:
            return codes.copy()
        if self.fmt.specials is Specials.TWOS:
            return -codes % (1 << self.fmt.bits)
        return codes + (1 << (self.fmt.bits - 1))


def _goes_away(
    rounding: Rounding | Stochastic,
    size: Float64s,
    at: Neighbours,
    negative: bool,
    draws: Integers,
) -> Mask:
    """Which magnitudes, between the rungs `at`, go to the upper one."""
    inexact = size != at.low
    away: Mask
    match rounding:
        case Rounding.NEAREST_EVEN:
            away = (size > at.middle) | ((size == at.middle) & at.odd)
        case Rounding.NEAREST_AWAY:
            away = size >= at.middle
        case Rounding.NEAREST_ZERO:
            away = size > at.middle
        case Rounding.TOWARD_ZERO:
            away = np.zeros(size.shape, np.bool_)
        case Rounding.TOWARD_POSITIVE:
            away = inexact & (not negative)
        case Rounding.TOWARD_NEGATIVE:
            away = inexact & negative
        case Rounding.TO_ODD:
            away = inexact & ~at.odd
        case Stochastic(_, Variant.EQUAL):
            away = inexact & (draws == 1)
        case Stochastic(bits, variant):
            away = scaled_fraction(size, at, bits, variant) + draws >= 1 << bits
        case _:
            raise TypeError(f"rounding must be deterministic or stochastic, got {rounding!r}")
    return away


def scaled_fraction(size: Float64s, at: Neighbours, bits: int, variant: Variant) -> Integers:
    """How many of the 2**bits draws send each magnitude away from zero.

    Exact: a gap between rungs is a power of two (twice the midpoint's distance), the distance
    from a rung is exact in float64, and scaling by a power of two loses only what no floor
    and no rounding to an integer could see.
    """
    _, exponent = np.frexp(at.middle - at.low)  # gap = 2**exponent
    distance = size - at.low
    count: Float64s
    match variant:
        case Variant.A:
            count = np.floor(np.ldexp(distance, bits - exponent))
        case Variant.B:
            doubled = np.floor(np.ldexp(distance, bits + 1 - exponent))
            count = np.floor((doubled + 1) / 2)
        case _:
            count = np.rint(np.ldexp(distance, bits - exponent))
    whole: Integers = count.astype(np.int64)
    return whole


@lru_cache(maxsize=2048)
def table(fmt: Format) -> Table:
    """The table of a format, made once."""
    return Table(fmt)
