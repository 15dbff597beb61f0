"""Laws on the edges of a format: NaN, zeros, overflow, infinities."""

from __future__ import annotations

import numpy as np

from fpemu.formats import Format, Specials
from fpemu.policy import Overflow, Policy
from fpemu.rounding import Descriptor, Rounding
from fpemu.testing._patterns import Floats, bits, flip, floats, is_nan, nans, narrow, pattern, widen
from fpemu.testing._points import around
from fpemu.testing._trial import Trial, deterministic, law, rounds
from fpemu.values import Special, as_value, power_of_two


def _has_zero(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return rounds(fmt, rounding, policy) and fmt.has_zero


@law(rounds)
def nan_stays_nan(trial: Trial) -> None:
    """Every NaN, whatever its sign and payload, gives the dtype's positive quiet NaN."""
    x = nans(trial.dtype)
    quiet = pattern(Special.NAN, trial.dtype)
    expected = floats(np.full(x.shape, quiet, np.uint64), trial.dtype)
    trial.same(x, trial.quantize(x), expected)


@law(_has_zero)
def zero_keeps_its_sign(trial: Trial) -> None:
    """+0 and -0 stay, and what rounds to zero keeps its sign; +0 where there is no -0."""
    tiny = float(trial.fmt.smallest_positive) * 2.0**-4
    x = narrow(np.array([0.0, -0.0, tiny, -tiny]), trial.dtype)
    got = trial.quantize(x)
    minus = np.signbit(x) & trial.fmt.has_negative_zero
    expected = np.where(minus, x.dtype.type(-0.0), x.dtype.type(0.0))
    zero = got == 0
    trial.holds(zero | (x != 0), x, got, "a zero")
    trial.same(x[zero], got[zero], expected[zero])


@law(deterministic)
def overflow_follows_the_policy(trial: Trial) -> None:
    """Next to the largest value, to half a step and a step beyond it, and far out."""
    for negative in (False, True)[: 1 + trial.fmt.signed]:
        top = -trial.fmt.lowest_value if negative else trial.fmt.max_value
        largest, half = float(top), float(power_of_two(trial.fmt.step_exponent(top) - 1))
        with np.errstate(over="ignore"):
            edges = np.array([largest, largest + half, largest + 2 * half, largest * 4])
        last = floats(np.array([pattern(Special.POS_INF, trial.dtype) - 1]), trial.dtype)
        size = np.concatenate([around(edges[np.isfinite(edges)], trial.dtype), last])
        size = size[widen(size) >= largest]
        even = trial.fmt.max_code % 2 == 0 or top > trial.fmt.max_value
        over = _overflows(trial, widen(size), largest, half, negative, even)
        expected = np.where(over, _outcome(trial, largest), largest)
        x = flip(size) if negative else size
        trial.same(x, trial.quantize(x), _signed(trial, expected, negative))


@law(deterministic)
def infinities_follow_the_policy(trial: Trial) -> None:
    """An infinite input becomes the largest value, an infinity or NaN, as the policy says."""
    for negative in (False, True)[: 1 + trial.fmt.signed]:
        largest = float(-trial.fmt.lowest_value if negative else trial.fmt.max_value)
        match trial.overflow:
            case Overflow.SAT_FINITE:
                size = largest
            case Overflow.SAT_PROPAGATE:
                size = np.inf if trial.fmt.has_inf else largest
            case Overflow.SAT_NONE:
                size = _outcome(trial, largest)
        expected = np.array([size])
        x = narrow(np.array([-np.inf if negative else np.inf]), trial.dtype)
        trial.same(x, trial.quantize(x), _signed(trial, expected, negative))


def _overflows(
    trial: Trial,
    size: np.ndarray[tuple[int], np.dtype[np.float64]],
    largest: float,
    half: float,
    negative: bool,
    even: bool,
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which magnitudes, at least the largest value, round to a step beyond it or further.

    `half` is half a step, `even` whether the largest value's code is even. In the one format
    whose next step float64 lacks nothing reaches it.
    """
    outward = Rounding.TOWARD_NEGATIVE if negative else Rounding.TOWARD_POSITIVE
    draft = trial.fmt.specials is Specials.P3109_EXTENDED and trial.fmt.signed
    match trial.rounding:
        case Rounding.NEAREST_EVEN:
            return size > largest + half if even else size >= largest + half
        case Rounding.NEAREST_AWAY:
            return size >= largest + half
        case Rounding.NEAREST_ZERO:
            return size > largest + half
        case Rounding.TO_ODD if draft:
            return size > largest if even else size - largest >= 2 * half
        case mode:
            return (size > largest) & (mode is outward)


def _outcome(trial: Trial, largest: float) -> float:
    """What the magnitude of a finite overflow becomes, NaN included."""
    if trial.overflow is not Overflow.SAT_NONE:
        return largest
    if trial.fmt.has_inf:
        return np.inf
    without = (Specials.FN, Specials.FNUZ, Specials.E8M0)
    return np.nan if trial.fmt.specials in without else largest


def _signed(
    trial: Trial, size: np.ndarray[tuple[int], np.dtype[np.float64]], negative: bool
) -> Floats:
    return narrow(-size if negative else size, trial.dtype)


@law(rounds)
def results_are_values(trial: Trial) -> None:
    """Every result is a value of the format; NaN elsewhere only where x is NaN or negative."""
    got = trial.quantize(trial.x)
    sample = np.unique(bits(got))
    for one in floats(sample[:: sample.size // 4096 + 1], trial.dtype):
        exact = as_value(float(widen(one.reshape(1))[0]))
        if exact not in trial.fmt and exact is not Special.NAN:
            at = np.flatnonzero(bits(got).reshape(-1) == bits(one.reshape(1))[0])[:1]
            x = trial.x.reshape(-1)[at]
            trial.holds(np.array([False]), x, one.reshape(1), f"a value of {trial.fmt}")
    if not trial.fmt.has_nan:
        negative = np.signbit(widen(trial.x)) & (not trial.fmt.signed)
        excused = is_nan(trial.x) | negative
        trial.holds(~is_nan(got) | excused, trial.x, got, "a number")
