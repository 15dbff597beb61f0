"""Laws on values: what a block becomes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fpemu.blocks import CHANNEL, TENSOR, BlockFormat
from fpemu.formats import Format, Specials
from fpemu.rounding import Rounding
from fpemu.scales import ScaleMethod, ScaleRule
from fpemu.testing._block_geometry import largest, per_element
from fpemu.testing._block_idempotence import finest, is_idempotent
from fpemu.testing._block_points import fill, ordinary
from fpemu.testing._block_quantizers import (
    Mode,
    Scales,
    compute_format,
    members,
    scales_by_definition,
    values_by_definition,
)
from fpemu.testing._block_trial import (
    BlockTrial,
    block_law,
    defined,
    independent,
)
from fpemu.testing._patterns import Floats, container_of, flip, floats, is_nan, narrow, widen
from fpemu.values import exponent_of, power_of_two

_DIRECTED = (Rounding.TOWARD_POSITIVE, Rounding.TOWARD_NEGATIVE)
_MOST_SCALE_BITS = 8


def _has_mirror(fmt: BlockFormat) -> bool:
    """Every element but zero has its negative."""
    element = fmt.element
    if not isinstance(element, Format):
        return False
    return fmt.symmetric or element.specials is not Specials.TWOS


def _odd(fmt: BlockFormat, rounding: Mode) -> bool:
    return _has_mirror(fmt) and rounding not in _DIRECTED


def _mirrored(fmt: BlockFormat, rounding: Mode) -> bool:
    return _has_mirror(fmt) and rounding in _DIRECTED


def _ordered(fmt: BlockFormat, rounding: Mode) -> bool:
    return defined(fmt, rounding) and fmt.element.has_zero


def _swept(fmt: BlockFormat, rounding: Mode) -> bool:
    return (
        fmt.scale is not None
        and fmt.scale.bits <= _MOST_SCALE_BITS
        and fmt.element.bits <= _MOST_SCALE_BITS
    )


def _searched(fmt: BlockFormat, rounding: Mode) -> bool:
    element = fmt.element
    uniform = isinstance(element, Format) and element.specials is Specials.TWOS
    method = fmt.rule.method
    return rounding is Rounding.NEAREST_EVEN and (
        method is ScaleMethod.MSE or (method is ScaleMethod.OCTAV and not uniform)
    )


def _single_maxima(fmt: BlockFormat, rounding: Mode) -> bool:
    return defined(fmt, rounding) and independent(fmt, rounding) and fmt.block != TENSOR


def _homogeneous(fmt: BlockFormat, rounding: Mode) -> bool:
    return fmt.scale is not None and (fmt.rule.method is not ScaleMethod.MSE or fmt.rule.norm == 2)


def _claimed(fmt: BlockFormat, rounding: Mode) -> bool:
    return is_idempotent(fmt, rounding, container_of(np.float32).format)


# ---------------------------------------------------------------------- reference


@block_law(defined)
def blocks_agree_with_the_reference(trial: BlockTrial) -> None:
    """`fpemu.block_reference` on every block, bit for bit, along the last axis and another."""
    for x, axis in _turned(trial):
        expected = values_by_definition(x, trial.fmt, trial.rounding, trial.key, axis)
        trial.same(x, trial.quantize(x, axis=axis), expected, f" (axis {axis})")


def _turned(trial: BlockTrial) -> list[tuple[Floats, int]]:
    """The inputs, and a few rows of them as columns where blocks may run along any axis."""
    found = [(trial.x, -1)]
    if (isinstance(trial.fmt.block, int) or trial.fmt.block == CHANNEL) and trial.x.ndim == 2:
        few = trial.x[: max(min(len(trial.x), 100 // max(trial.x.shape[1], 1)), 1)]
        found.append((np.ascontiguousarray(few.T), 0))
    return found


@block_law(_single_maxima, once=True)
def maxima_beside_powers_of_two(trial: BlockTrial) -> None:
    """Blocks whose maximum is 2**k, the float before it or the one after, for every k.

    An exponent that comes from a computed logarithm is wrong for some of them.
    """
    container = container_of(trial.wide.dtype)
    m = container.mantissa_bits
    fields = np.unique(np.linspace(1, (container.infinity >> m) - 1, 300).astype(np.int64)) << m
    subnormal = 1 << np.arange(m)
    patterns = np.concatenate([fields, fields - 1, fields + 1, subnormal, subnormal[2:] + 1])
    tops = floats(patterns.astype(np.uint64), trial.wide.dtype)
    amax = None if trial.fmt.outer is None else 1.5
    if amax is not None:
        tops = tops[tops <= amax]
    x = np.stack([tops, tops * tops.dtype.type(0.33)])  # a block each, or each in a batch
    if trial.fmt.block != CHANNEL:
        x = np.ascontiguousarray(x.T)[:, None]
    expected = values_by_definition(x, trial.fmt, trial.rounding, trial.key, -1, amax)
    trial.same(x, trial.quantize(x, amax=amax), expected)


# ------------------------------------------------------------------------- scales


@block_law(_swept)
def blocks_share_a_scale_of_the_format(trial: BlockTrial) -> None:
    """Each block is elements times one value of the scale format (and the outer scale)."""
    assert trial.fmt.scale is not None
    x = trial.wide
    got = trial.quantize(x)
    outer = scales_by_definition(x, _simple(trial.fmt)).outer
    choices = [v for v in _values(trial.fmt.scale) if v >= 0]
    elements = [Fraction(v) for v in trial.fmt.element.values()]
    elements_now = narrow(np.array([float(v) for v in elements]), x.dtype)
    one = x.dtype.type
    with np.errstate(all="ignore"):
        scales = np.array([float(s) for s in choices]).astype(x.dtype)[:, None]
        if trial.fmt.rule.method is ScaleMethod.FOUR_THIRDS:
            scales = scales * (one(4) / one(3))
        products = elements_now * scales
        if outer is not None:
            products = products * one(float(outer))  # type: ignore[arg-type]
    largest_float = np.finfo(x.dtype).max
    table = np.clip(products, -largest_float, largest_float)
    for block in members(x, trial.fmt):
        values = np.unique(got.reshape(-1)[block])
        fits = np.full(len(table), True)
        for value in values:
            fits &= (table == value).any(axis=1)
        if not fits.any():
            at = np.unravel_index(int(block[0]), x.shape)
            shown = ", ".join(f"{float(v):g}" for v in values[:6])
            trial.fail(
                f"{trial.describe(x, at)} is in a block that became {shown}, ..., "
                f"which no value of {trial.fmt.scale} scales to {trial.fmt.element}"
            )


def _simple(fmt: BlockFormat) -> BlockFormat:
    """The same outer scale under a rule that the reference knows."""
    return replace(fmt, rule=ScaleRule(ScaleMethod.ABSMAX))


def _values(scale: Format) -> list[Fraction]:
    return [Fraction(v) for v in scale.values() if np.isfinite(float(v))]


@block_law(_ordered)
def elements_do_not_exceed_the_largest(trial: BlockTrial) -> None:
    """No result is beyond qmax * scale (* outer), or the lowest element times that."""
    x = trial.wide
    each, outer = scales_by_definition(x, trial.fmt)
    compute = compute_format(x)
    got = widen(trial.quantize(x))
    low = -trial.fmt.qmax if trial.fmt.symmetric else trial.fmt.element.lowest_value
    bounds = [_bound(trial.fmt, end, Scales(each, outer), compute) for end in (trial.fmt.qmax, low)]
    high, lowest = (per_element(bound, trial.numbers(x)) for bound in bounds)
    good = (got <= high) & (got >= lowest)
    trial.holds(good, x, narrow(got, x.dtype), "within the largest element times the scale")


def _bound(
    fmt: BlockFormat, element: Fraction, scales: Scales, compute: Format
) -> NDArray[np.float64]:
    from fpemu.block_reference import value_of

    found = [value_of(fmt, element, scale, scales.outer, compute) for scale in scales.each]
    return np.array([float(v) if isinstance(v, Fraction) else 0.0 for v in found])


@block_law(_searched)
def searched_scales_are_no_worse(trial: BlockTrial) -> None:
    """The error of a searched scale is at most that of the scale from the maximum.

    The two sums of n terms are in float64, and so is each term and every comparison of the
    search: a relative error of n + 8 roundings each.
    """
    x = trial.wide
    simple = _simple(trial.fmt)
    amax = trial.amax(x)
    plain = values_by_definition(x, simple, Rounding.NEAREST_EVEN, trial.key, -1, amax)
    norm = trial.fmt.rule.norm
    numbers = trial.numbers(x)
    with np.errstate(over="ignore"):
        losses = [
            np.bincount(numbers.reshape(-1), (np.abs(widen(x) - widen(q)) ** norm).reshape(-1))
            for q in (trial.quantize(x), plain)
        ]
    size = np.bincount(numbers.reshape(-1))
    slack = 1 + (size + 8) * 2.0**-50
    finite = np.isfinite(losses[1])
    for number in np.flatnonzero(finite & (losses[0] > losses[1] * slack)):
        at = tuple(int(i[0]) for i in np.nonzero(numbers == number))
        trial.fail(
            f"{trial.describe(x, at)} is in a block of error {losses[0][number]:g}, "
            f"more than {losses[1][number]:g} with the scale from the maximum"
        )


# ----------------------------------------------------------------------- symmetry


@block_law(_odd)
def blocks_are_odd(trial: BlockTrial) -> None:
    """q(-x) is -q(x), with the same draws; +0 where the elements have no -0."""
    _mirror(trial, trial.quantize(flip(trial.x)), trial.quantize(trial.x))


@block_law(_mirrored)
def directed_modes_mirror_blocks(trial: BlockTrial) -> None:
    """Rounding -x up is minus rounding x down."""
    other = next(mode for mode in _DIRECTED if mode is not trial.rounding)
    _mirror(trial, trial.quantize(flip(trial.x)), trial.quantize(trial.x, rounding=other))


def _mirror(trial: BlockTrial, got: Floats, twin: Floats) -> None:
    expected = flip(twin)
    assert isinstance(trial.fmt.element, Format)
    if not trial.fmt.element.has_negative_zero:
        expected = np.where(expected == 0, trial.x.dtype.type(0), expected)
    number = ~is_nan(twin)
    trial.same(flip(trial.x)[number], got[number], expected[number], " (the mirror image)")


@block_law(_homogeneous)
def powers_of_two_commute(trial: BlockTrial) -> None:
    """q(2**k x) is 2**k q(x), away from the ends of the scale format and of the dtype."""
    dtype = trial.wide.dtype
    tops, amax, room = ordinary(trial.fmt, dtype)
    if room < 1:
        return
    x = fill(trial.x.shape, trial.fmt, tops)
    expected = trial.quantize(x, amax=amax)
    for k in {1, -room, room}:
        factor = dtype.type(2.0**k)
        moved = x * factor
        got = trial.quantize(moved, amax=None if amax is None else amax * 2.0**k)
        trial.same(moved, got, expected * factor, f" (times 2**{k})")


@block_law(_ordered)
def blocks_are_monotone(trial: BlockTrial) -> None:
    """With the block's maximum kept, a larger element gives no smaller result, equal draws."""
    x = trial.x
    size = np.abs(widen(x))
    peak = per_element(largest(x, trial.fmt), trial.numbers(x))
    low = trial.quantize(x)
    for distance in (1, 5):
        other = np.roll(x.reshape(-1), distance).reshape(x.shape)
        raised = np.minimum(np.maximum(widen(x), widen(other)), peak)
        y = narrow(np.where(size == peak, widen(x), raised), x.dtype)
        high = trial.quantize(y)
        good = widen(low) <= widen(high)
        if not good.all():
            at = np.unravel_index(int((~good).argmax()), good.shape)
            trial.fail(
                f"{trial.describe(x, at)} gives {trial.name(low[at])}, but the larger "
                f"{trial.describe(y, at)} gives {trial.name(high[at])}"
            )


# -------------------------------------------------------------------- idempotence


@block_law(_claimed)
def blocks_are_idempotent(trial: BlockTrial) -> None:
    """Rounding a result again, with other draws, changes nothing, where that is claimed.

    Rules, elements and modes: `fpemu.testing._block_idempotence`. Left out are blocks at the ends
    of the computing format's range, and those whose scale is not normal where that matters.
    """
    x = trial.wide
    compute = compute_format(x)
    if not is_idempotent(trial.fmt, trial.rounding, compute):
        return
    once = trial.quantize(x)
    twice = trial.quantize(once, key=trial.key.child("again"))
    kept = per_element(_covered(trial, x, compute), trial.numbers(x))
    trial.same(once[kept], twice[kept], once[kept])


def _covered(trial: BlockTrial, x: Floats, compute: Format) -> NDArray[np.bool_]:
    """Blocks in the range that the claim is about."""
    fmt = trial.fmt
    good: NDArray[np.bool_] = largest(x, fmt) < float(
        power_of_two(exponent_of(compute.max_value) - 1)
    )
    if fmt.scale is None:
        return good
    least = compute.smallest_positive / finest(fmt)  # products need no rounding
    rule = fmt.rule
    each, outer = scales_by_definition(x, _simple(fmt) if rule.needs_all_elements else fmt)
    if not rule.gives_powers_of_two:
        normal = _normal(compute)
        least = max(_normal(fmt.scale), normal, normal / finest(fmt))
        least *= 256 if rule.needs_all_elements else 1  # what a search may take off
    if fmt.outer is not None:
        assert isinstance(outer, Fraction)
        if outer < max(_normal(fmt.outer), 256 * _normal(compute) / finest(fmt)):
            return good & False
    good &= np.array([s == 0 or (isinstance(s, Fraction) and s >= least) for s in each])
    return good


def _normal(fmt: Format) -> Fraction:
    return Fraction(fmt.min_normal or fmt.smallest_positive)
