"""Laws on the edges: zero blocks, blocks with NaN or infinities, and blocks beside them."""

from __future__ import annotations

import numpy as np

from fpemu.blocks import TENSOR, BlockFormat
from fpemu.formats import Format
from fpemu.scales import ScaleMethod
from fpemu.testing._block_geometry import block_count, largest_of_all
from fpemu.testing._block_points import fill, ordinary
from fpemu.testing._block_quantizers import Mode, values_by_definition
from fpemu.testing._block_trial import BlockTrial, always, block_law, defined, independent
from fpemu.testing._patterns import Floats, container_of, floats, is_nan, nans, narrow, widen
from fpemu.values import Special


def _has_zero(fmt: BlockFormat, rounding: Mode) -> bool:
    return fmt.element.has_zero


def _several(fmt: BlockFormat, rounding: Mode) -> bool:
    return independent(fmt, rounding) and fmt.block != TENSOR


@block_law(_has_zero)
def zero_blocks_stay_zero(trial: BlockTrial) -> None:
    """Blocks of zeros are zeros of the same sign (+0 without -0), beside others and alone."""
    numbers = trial.numbers(trial.x)
    for all_of_them in (True, False):
        at = np.full(numbers.shape, True) if all_of_them else numbers == numbers.max()
        zero = np.where(np.arange(at.size).reshape(at.shape) % 3 == 1, -0.0, 0.0)
        x = narrow(np.where(at, zero, widen(trial.x)), trial.x.dtype)
        expected = x
        if not (isinstance(trial.fmt.element, Format) and trial.fmt.element.has_negative_zero):
            expected = np.where(x == 0, x.dtype.type(0), x)
        trial.same(x[at], trial.quantize(x)[at], expected[at], " (a block of zeros)")


@block_law(defined, once=True)
def tiny_blocks_agree_with_the_reference(trial: BlockTrial) -> None:
    """Blocks that hold nothing but subnormals of the dtype, down to the smallest."""
    m = container_of(trial.x.dtype).mantissa_bits
    rows, columns = max(1, 300 // trial.x.shape[1]), trial.x.shape[1]
    count = rows * columns
    patterns = (np.arange(count) * 2654435761 % (1 << 31)) >> (np.arange(count) % 31)
    sign = (np.arange(count) % 3 == 0).astype(np.uint64) * np.uint64(
        container_of(trial.x.dtype).sign
    )
    subnormal = (patterns & ((1 << m) - 1)).astype(np.uint64)
    x = floats(subnormal | sign, trial.x.dtype).reshape(rows, columns)
    expected = values_by_definition(x, trial.fmt, trial.rounding, trial.key)
    trial.same(x, trial.quantize(x), expected)


@block_law(always)
def spoiled_blocks_spoil_no_other(trial: BlockTrial) -> None:
    """NaN or an infinity makes its block NaN (the positive quiet one), and only that.

    Where the scale format has no NaN, or there is no scale, such an array is refused with a
    ValueError. The outer scale is that of the other blocks.
    """
    numbers = trial.numbers(trial.x)
    count = block_count(trial.x.shape, trial.fmt)
    dtype = trial.x.dtype
    infinity = narrow(np.array([np.inf]), dtype)[0]
    payload = nans(dtype)[-3]
    for spoilers in ({0: payload}, {count - 1: -infinity}, {0: infinity, count // 2: payload}):
        x = trial.x.copy()
        for number, what in spoilers.items():
            inside = np.flatnonzero(numbers.reshape(-1) == number)
            x.reshape(-1)[inside[len(inside) // 2]] = what
        _check_spoiled(trial, x, np.isin(numbers, list(spoilers)))


def _check_spoiled(
    trial: BlockTrial, x: Floats, bad: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> None:
    if not trial.fmt.nan_scale:
        try:
            trial.quantize(x)
        except ValueError:
            return
        trial.fail("x with NaN or an infinity was taken, although no scale can say so")
    got = trial.quantize(x)
    nan = np.full(x.shape, narrow(np.array([np.nan]), x.dtype)[0])
    trial.same(x[bad], got[bad], nan[bad], " (in a block with NaN or an infinity)")
    if trial.fmt.rule.method is ScaleMethod.POW2_M2:  # scales of a row depend on each other
        return
    rest = largest_of_all(x, trial.fmt)
    amax = None if trial.fmt.outer is None else rest
    expected = trial.quantize(trial.x, amax=amax)
    trial.same(x[~bad], got[~bad], expected[~bad], " (beside a block with NaN or an infinity)")
    if is_nan(got[~bad]).any():
        trial.fail(f"a block without {Special.NAN!r} became NaN")


@block_law(_several)
def blocks_do_not_see_each_other(trial: BlockTrial) -> None:
    """Given the largest magnitude of all, what a block becomes depends on its elements alone."""
    inputs = [trial.x]
    if trial.fmt.scale is not None:  # not so different in size that the small ones vanish
        top = ordinary(trial.fmt, trial.wide.dtype).tops[:1]
        tops = np.concatenate([top, top * top.dtype.type(0.125)])
        inputs.append(fill(trial.x.shape, trial.fmt, tops))
    for x in inputs:
        amax, numbers = trial.amax(x), trial.numbers(x)
        expected = trial.quantize(x, amax=amax)
        for kept in range(2):
            mine = numbers % 2 == kept
            other = np.where(mine, x, np.roll(x, 1) * x.dtype.type(0.25))
            got = trial.quantize(other, amax=amax)
            trial.same(x[mine], got[mine], expected[mine], " (beside other blocks)")
