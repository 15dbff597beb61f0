"""Laws on values: what rounding one number means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu import algebra
from fpemu.catalog import CANONICAL
from fpemu.formats import Format, Specials
from fpemu.policy import Overflow, Policy
from fpemu.rounding import Descriptor, Rounding, Stochastic
from fpemu.testing._draws import draws
from fpemu.testing._patterns import Floats, bits, containers, exact, flip, is_nan, narrow, widen
from fpemu.testing._points import magnitudes, some_codes
from fpemu.testing._quantizers import Reference
from fpemu.testing._trial import Trial, law, rounds, tabulated
from fpemu.testing.oracle import Table, table

_MOST_EXACT = 256  # elements that go through the slow reference
_DIRECTED = (Rounding.TOWARD_POSITIVE, Rounding.TOWARD_NEGATIVE)
_OPPOSITE = {
    Rounding.TOWARD_POSITIVE: Rounding.TOWARD_NEGATIVE,
    Rounding.TOWARD_NEGATIVE: Rounding.TOWARD_POSITIVE,
}


def _symmetric(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return rounds(fmt, rounding, policy) and fmt.signed and rounding not in _DIRECTED


def _directed(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return rounds(fmt, rounding, policy) and fmt.signed and rounding in _DIRECTED


def _nearest(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return rounds(fmt, rounding, policy) and isinstance(rounding, Rounding) and rounding.is_nearest


# -------------------------------------------------------------------- helpers


def finite_values(fmt: Format, dtype: np.dtype[Any]) -> Floats:
    """The finite values of a format, of a sample of its codes if it has many; -0 if it has it."""
    positive = magnitudes(fmt, some_codes(fmt, 1 << 16))
    found = [positive]
    if fmt.signed:
        found.append(-positive if fmt.has_negative_zero else -positive[positive > 0])
        found.append(np.array([float(fmt.lowest_value)]))
    return narrow(np.concatenate(found), dtype)


def bracket(fmt: Format, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of `fmt` at or below and at or above each x, NaN where there is none.

    `x` lies between the lowest and the largest value.
    """
    if Table.covers(fmt):
        ladder = table(fmt)
        low, high = np.empty_like(x), np.empty_like(x)
        for negative in (False, True):
            side = (x < 0) == negative
            size = np.abs(x[side])
            at = (ladder.negative if negative else ladder.positive).locate(size)
            inner = np.where(at.rung >= 0, at.low, np.nan)
            outer = np.where(inner == size, size, np.where(at.rung >= 0, at.high, at.low))
            low[side] = -outer if negative else inner
            high[side] = -inner if negative else outer
        return low, high
    pairs = [fmt.neighbours(float(v)) for v in x]
    low = np.array([np.nan if a is None else float(a) for a, _ in pairs])
    high = np.array([np.nan if b is None else float(b) for _, b in pairs])
    return low, high


def _in_range(trial: Trial) -> Floats:
    """The inputs between the lowest and the largest value; few of them if neighbours are slow."""
    wide = widen(trial.x)
    low, high = float(trial.fmt.lowest_value), float(trial.fmt.max_value)
    if not trial.fmt.has_zero:
        low = np.nextafter(0, 1)
    found: Floats = trial.x[(wide >= low) & (wide <= high)]
    return found if Table.covers(trial.fmt) else found[:: len(found) // _MOST_EXACT + 1]


# ----------------------------------------------------------------------- laws


@law(rounds)
def agrees_with_the_reference(trial: Trial) -> None:
    """Bit for bit what `fpemu.reference` says, on a sample where there are many inputs."""
    got = trial.quantize(trial.x).reshape(-1)
    x = trial.x.reshape(-1)
    step = x.size // _MOST_EXACT + 1
    # A first element that depends on the setting, so that settings sample different inputs.
    first = sum(map(ord, f"{trial.rounding}{trial.policy}")) % step
    drawn = _draws(trial)
    values = Reference.round(
        x[first::step],
        trial.fmt,
        trial.rounding,
        trial.policy,
        None if drawn is None else drawn.reshape(-1)[first::step],
    )
    trial.same(x[first::step], got[first::step], exact(values, trial.dtype))


@law(tabulated)
def agrees_with_the_table(trial: Trial) -> None:
    """Bit for bit what looking up in the format's sorted values says (`fpemu.testing.oracle`)."""
    got = trial.quantize(trial.x)
    expected = trial.expect(trial.x, _draws(trial))
    trial.same(trial.x, got, narrow(expected.values, trial.dtype))


@law(tabulated, needs_codes=True)
def codes_agree_with_the_table(trial: Trial) -> None:
    """`encode` gives the code of the value that the table says."""
    expected = trial.expect(trial.x, _draws(trial))
    # Every element keeps its place, and so its draw; a zero stands for what has no code.
    x = np.where(expected.codes >= 0, trial.x, trial.x.dtype.type(0))
    codes = trial.expect(x, _draws(trial)).codes
    trial.same_codes(x, trial.encode(x), codes)


def _draws(trial: Trial) -> NDArray[np.int64] | None:
    if not isinstance(trial.rounding, Stochastic):
        return None
    return draws(trial.key, trial.x.size, trial.rounding).reshape(trial.x.shape)


@law(rounds)
def rounding_is_idempotent(trial: Trial) -> None:
    """Rounding a result again, with other draws, changes nothing."""
    once = trial.quantize(trial.x)
    twice = trial.quantize(once, key=trial.key.child("again"))
    trial.same(once, twice, once)


@law(rounds)
def values_are_fixed_points(trial: Trial) -> None:
    """Every value of the format, of either sign, is left as it is in every mode."""
    values = finite_values(trial.fmt, trial.dtype)
    trial.same(values, trial.quantize(values), values)
    if trial.fmt.has_inf and trial.overflow is not Overflow.SAT_FINITE:
        infinities = np.array([np.inf, -np.inf][: 1 + trial.fmt.signed], trial.dtype)
        trial.same(infinities, trial.quantize(infinities), infinities)


@law(rounds)
def rounding_is_monotone(trial: Trial) -> None:
    """x <= y gives q(x) <= q(y), for equal draws too; NaN results are left out."""
    x = trial.x.reshape(-1)
    x = x[~is_nan(x)]
    x = x[np.argsort(widen(x), kind="stable")]
    for distance in (1, 7):
        below, above = x[:-distance], x[distance:]
        low, high = trial.quantize(below), trial.quantize(above)
        good = is_nan(low) | is_nan(high) | (widen(low) <= widen(high))
        if not good.all():
            at = (int((~good).argmax()),)
            trial.fail(
                f"{trial.describe(below, at)} gives {trial.name(low[at])}, but the larger "
                f"{trial.describe(above, at)} gives {trial.name(high[at])}"
            )


@law(rounds)
def rounding_is_faithful(trial: Trial) -> None:
    """A value in range becomes itself or one of its two neighbours in the format."""
    x = _in_range(trial)
    got = widen(trial.quantize(x))
    low, high = bracket(trial.fmt, widen(x))
    trial.holds((got == low) | (got == high), x, narrow(got, trial.dtype), "a neighbour of x")


@law(_nearest)
def nearest_is_nearest(trial: Trial) -> None:
    """No value of the format is nearer, and ties go where the mode sends them."""
    x = _in_range(trial)
    result = trial.quantize(x)
    wide, got = widen(x), widen(result)
    low, high = bracket(trial.fmt, wide)
    # Where float64 rounds one of the differences it is the larger, and stays so.
    below, above = wide - low, high - wide
    only = np.isnan(low) | np.isnan(high)
    good = only | np.where(got == low, below <= above, (got == high) & (above <= below))
    trial.holds(good, x, result, "the nearest value")
    for at in np.flatnonzero((below == above) & (below > 0)):
        wanted = _tie(trial, float(low[at]) + 0.0, float(high[at]) + 0.0)  # -0 is 0
        trial.holds(
            got[at : at + 1] == wanted,
            x[at : at + 1],
            result[at : at + 1],
            f"{wanted!r}, where {trial.rounding} sends the tie",
        )


def _tie(trial: Trial, low: float, high: float) -> float:
    small, large = sorted((low, high), key=abs)
    if trial.rounding is Rounding.NEAREST_AWAY:
        return large
    if trial.rounding is Rounding.NEAREST_ZERO:
        return small
    # Where flushing leaves two even codes, zero is the one.
    return large if trial.fmt.encode(small) % 2 else small


@law(_symmetric)
def rounding_is_odd(trial: Trial) -> None:
    """q(-x) is -q(x), with the same draws; +0 where the format has no -0."""
    wide = np.abs(widen(trial.x))
    if trial.fmt.specials is Specials.TWOS:  # -2**k has no positive twin
        x = np.where(wide <= float(trial.fmt.max_value), trial.x, trial.x.dtype.type(0))
    else:
        x = np.where(np.isnan(wide), trial.x.dtype.type(0), trial.x)
    _mirror(trial, x, trial.quantize(flip(x)), trial.quantize(x))


@law(_directed)
def directed_modes_mirror_each_other(trial: Trial) -> None:
    """Rounding -x up is minus rounding x down."""
    assert isinstance(trial.rounding, Rounding)
    wide = np.abs(widen(trial.x))
    top = float(trial.fmt.max_value) if trial.fmt.specials is Specials.TWOS else np.inf
    x = trial.x[wide <= top]
    other = trial.quantize(x, rounding=_OPPOSITE[trial.rounding])
    _mirror(trial, x, trial.quantize(flip(x)), other)


def _mirror(trial: Trial, x: Floats, got: Floats, twin: Floats) -> None:
    expected = flip(twin)
    if not trial.fmt.has_negative_zero:
        expected = np.where(expected == 0, trial.x.dtype.type(0), expected)
    number = ~is_nan(twin)
    trial.same(flip(x)[number], got[number], expected[number], " (the mirror image)")
    trial.same(flip(x)[~number], got[~number], twin[~number])


@law(rounds, any_rounding=True)
def inclusion_means_exact_casts(trial: Trial) -> None:
    """The values of every catalogue format that the algebra says is contained stay as they are."""
    for other in CANONICAL.values():
        if other.bits > 16 or not algebra.includes(trial.fmt, other):
            continue
        if trial.dtype not in containers(other):
            continue
        values = finite_values(other, trial.dtype)
        if not trial.fmt.has_negative_zero:
            values = values[bits(values) != 1 << (8 * trial.dtype.itemsize - 1)]
        trial.same(values, trial.quantize(values), values, f" (a value of {other})")
