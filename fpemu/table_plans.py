"""Plans: what rounding to a table format is, on the ordered bit patterns of a container.

A pattern's key is an integer that orders the container's numbers: the pattern itself for
positive ones and ``-1 - magnitude`` for negative ones, so that -0 is -1, just below +0, and NaNs
lie at both ends. Between two neighbouring breakpoints (values, midpoints, zero, the edge of
overflow) the deterministic modes give one result, which `fpemu.table_format.round_value`
says. So a mode is a list of regions of keys, found by binary search.

Stochastic modes have regions from value to value, with two results each. With the values in
units of their last common bit, ``lo = L * u`` and ``hi = (L + G) * u``, a magnitude t goes away
for a draw that needs a fraction of ``K / 2**M`` iff::

    (t - lo) * 2**M >= (hi - lo) * K,   that is   floor(t * 2**M / u) >= L * 2**M + G * K

which is exact in integers; the fraction of t below the floor matters for strict inequalities only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu import ladder as values_of
from fpemu.lowering import Container
from fpemu.policy import NanRule, Policy
from fpemu.rounding import Rounding, Stochastic, Variant
from fpemu.table_format import TableFormat, nan_value, round_value
from fpemu.values import Special, Value, exponent_of

NO_CODE = -1
# Bits that the larger side of the inequality above may take: int64 with room for its sign.
_MOST_BITS = 62


class Gaps(NamedTuple):
    """Stochastic regions, one entry each: the integers of the inequality above."""

    low: NDArray[np.int64]  # L * 2**M
    width: NDArray[np.int64]  # G
    shift: NDArray[np.int64]  # M - log2(u)
    across: NDArray[np.bool_]  # around zero: t is x itself, not its magnitude
    wide: NDArray[np.bool_]  # does not fit; the reference decides


class Plan(NamedTuple):
    """Regions of keys. Results and codes are one a region, or (stays, goes) pairs of `gaps`."""

    starts: NDArray[Any]  # the first key of every region but the first
    patterns: NDArray[Any]
    codes: NDArray[np.int16]
    gaps: Gaps | None
    reach: NDArray[Any] | None = None  # the search below, by the top 16 bits of a pattern
    steps: int = 0


@lru_cache(maxsize=256)
def holds(container: Container, fmt: TableFormat) -> bool:
    """Whether every value of `fmt` is a value of the container."""
    return all(value in container.format for value in fmt.finite)


@lru_cache(maxsize=64)
def plan_for(
    fmt: TableFormat, rounding: Rounding | Stochastic, policy: Policy, container: Container
) -> Plan:
    """The plan of one mode in one container, which must hold the format."""
    if isinstance(rounding, Stochastic):
        return _stochastic(fmt, rounding, policy, container)
    regions = _merged(_regions(fmt, rounding, policy, container))
    starts = _starts(regions, container)
    values = [value for _, value in regions]
    return _with_reach(
        Plan(starts, _patterns(values, container), _codes(values, fmt, policy), None), container
    )


# -------------------------------------------------------------- deterministic


def _regions(
    fmt: TableFormat, rounding: Rounding, policy: Policy, container: Container
) -> Iterator[tuple[int, Value]]:
    """(first key, result), ascending; regions may be empty or repeat a result."""

    def result(x: Value) -> Value:
        return round_value(fmt, x, rounding, policy)

    infinity = container.infinity
    yield -(1 << (container.bits - 1)), result(Special.NAN)
    yield -1 - infinity, result(Special.NEG_INF)
    points = _breakpoints(fmt)
    yield -infinity, result(points[0] - 1)
    for point, after in pairwise([*points, points[-1] + 2]):
        if point == 0:
            yield -1, result(Special.NEG_ZERO)
            yield 0, result(point)
        else:
            yield key_at(container, point), result(point)
        yield key_after(container, point), result((point + after) / 2)
    yield infinity, result(Special.POS_INF)
    yield infinity + 1, result(Special.NAN)


def _breakpoints(fmt: TableFormat) -> list[Fraction]:
    """Every real at which a mode's result may change, ascending."""
    rungs = _rungs(fmt)
    middles = [(a + b) / 2 for a, b in pairwise(rungs)]
    return sorted({*rungs, *middles, Fraction(0)})


def _rungs(fmt: TableFormat) -> list[Fraction]:
    """The values, and where infinities stand; mirrored where there are no negative values."""
    found = set(fmt.finite)
    if fmt.beyond is not None:
        found |= {fmt.beyond, -fmt.beyond}
    if not fmt.signed:
        found |= {-value for value in found} | {Fraction(0)}
    return sorted(found)


def _merged(regions: Iterable[tuple[int, Value]]) -> list[tuple[int, Value]]:
    """Without the regions that are empty or continue the one before."""
    found: list[tuple[int, Value]] = []
    for start, value in regions:
        if found and found[-1][0] == start:
            found.pop()
        if not found or found[-1][1] != value:
            found.append((start, value))
    return found


# ----------------------------------------------------------------- stochastic


def scale_bits(rounding: Stochastic) -> int:
    """M: the bits that fractions are compared in."""
    return rounding.bits if rounding.variant is Variant.A else rounding.bits + 1


def _stochastic(
    fmt: TableFormat, rounding: Stochastic, policy: Policy, container: Container
) -> Plan:
    last_draw = (1 << rounding.bits) - 1
    scale = scale_bits(rounding)
    regions: list[tuple[int, Value, Value, tuple[Fraction, Fraction] | None]] = []

    def constant(start: int, x: Value) -> None:
        value = round_value(fmt, x, rounding, policy)
        regions.append((start, value, value, None))

    def between(start: int, low: Fraction, high: Fraction) -> None:
        # In the middle the first draw of every variant stays and the last one goes.
        middle = (low + high) / 2
        stays = round_value(fmt, middle, rounding, policy, 0)
        goes = round_value(fmt, middle, rounding, policy, last_draw)
        regions.append((start, stays, goes, None if stays == goes else (low, high)))

    infinity = container.infinity
    constant(-(1 << (container.bits - 1)), Special.NAN)
    constant(-1 - infinity, Special.NEG_INF)
    rungs = _rungs(fmt)
    constant(-infinity, rungs[0] - 1)
    for low, high in pairwise(rungs):
        # A value belongs to the region away from zero, where its fraction is 0.
        start = key_at(container, low) if low > 0 else key_after(container, low)
        between(start, low, high)
        if high == 0:
            constant(-1, Special.NEG_ZERO)
            constant(0, high)
    constant(key_at(container, rungs[-1]), rungs[-1] + 1)
    if fmt.beyond is None:  # the largest value itself is exact, and overflows to itself
        assert regions[-1][1] == fmt.max_value
    constant(infinity, Special.POS_INF)
    constant(infinity + 1, Special.NAN)
    kept = _without_empty(regions)
    pairs = [value for _, stays, goes, _ in kept for value in (stays, goes)]
    return _with_reach(
        Plan(
            _starts([(start, stays) for start, stays, _, _ in kept], container),
            _patterns(pairs, container),
            _codes(pairs, fmt, policy),
            _gaps([ends for *_, ends in kept], scale),
        ),
        container,
    )


def _without_empty(
    regions: list[tuple[int, Value, Value, tuple[Fraction, Fraction] | None]],
) -> list[tuple[int, Value, Value, tuple[Fraction, Fraction] | None]]:
    following = [start for start, *_ in regions[1:]]
    return [one for one, after in zip(regions, [*following, None], strict=True) if one[0] != after]


def _gaps(ends: list[tuple[Fraction, Fraction] | None], scale: int) -> Gaps:
    low, width, shift, across, wide = [], [], [], [], []
    for pair in ends:
        a, b = (Fraction(0), Fraction(1)) if pair is None else pair
        straddles = a < 0 < b
        if b <= 0:
            a, b = -b, -a
        denominator = max(a.denominator, b.denominator)
        unit = Fraction(1, denominator)
        while (a / unit) % 2 == 0 and (b / unit) % 2 == 0:
            unit *= 2
        lowest, gap = int(a / unit), int((b - a) / unit)
        fits = max(abs(lowest), lowest + gap).bit_length() + scale + 1 <= _MOST_BITS
        fits &= denominator & (denominator - 1) == 0  # else `beyond` is no binary fraction
        low.append(lowest << scale if fits else 0)
        width.append(gap if fits else 0)
        shift.append(scale - exponent_of(unit))
        across.append(straddles)
        wide.append(not fits)
    return Gaps(
        np.array(low, np.int64),
        np.array(width, np.int64),
        np.array(shift, np.int64),
        np.array(across, np.bool_),
        np.array(wide, np.bool_),
    )


# --------------------------------------------------------------- keys, arrays


def key_at(container: Container, x: Fraction) -> int:
    """The first key of a number >= x (-0 counts as 0)."""
    return _key(container, values_of.at_or_above(container.format, x))


def key_after(container: Container, x: Fraction) -> int:
    """The first key of a number > x."""
    return _key(container, values_of.after(container.format, x))


def _key(container: Container, value: Fraction | None) -> int:
    if value is None:
        return container.infinity
    if value > 0:
        return container.pattern(value)
    return -1 - container.pattern(-value)


def _starts(regions: list[tuple[int, Value]], container: Container) -> NDArray[Any]:
    return np.array([start for start, _ in regions[1:]], f"i{container.bits // 8}")


def _patterns(values: list[Value], container: Container) -> NDArray[Any]:
    return np.array([container.pattern(v) for v in values], f"u{container.bits // 8}")


def _codes(values: list[Value], fmt: TableFormat, policy: Policy) -> NDArray[np.int16]:
    return np.array([_code(value, fmt, policy) for value in values], np.int16)


def _code(value: Value, fmt: TableFormat, policy: Policy) -> int:
    if value is not Special.NAN or fmt.has_nan:
        return fmt.encode(value)
    return NO_CODE if policy.nan is NanRule.ERROR else fmt.encode(nan_value(fmt, policy))


_TOP = 16
_MOST_STEPS = 4


def _with_reach(plan: Plan, container: Container) -> Plan:
    """`plan` with a table that leaves the binary search a few comparisons, where it pays.

    By the top 16 bits of a pattern: the number of starts up to the first key of that bucket.
    `steps` is the most that any bucket has beyond those.
    """
    rest = container.bits - _TOP
    tops = np.arange(1 << _TOP, dtype=np.uint16).view(np.int16).astype(np.int64)
    first = np.where(tops < 0, ((tops ^ 0x7FFF) << rest), tops << rest)
    last = first + ((1 << rest) - 1)
    starts = plan.starts.astype(np.int64)
    reach = np.searchsorted(starts, first, side="right")
    steps = int((np.searchsorted(starts, last, side="right") - reach).max())
    if steps > _MOST_STEPS:
        return plan
    return plan._replace(reach=reach.astype(np.int16), steps=steps)
