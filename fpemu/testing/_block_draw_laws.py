"""Laws on stochastic rounding inside blocks."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np

from fpemu.blocks import CHANNEL, TENSOR, BlockFormat
from fpemu.formats import Format
from fpemu.rounding import Stochastic, Variant
from fpemu.scales import ScaleMethod
from fpemu.testing._block_geometry import block_numbers
from fpemu.testing._block_quantizers import Mode, scales_by_definition
from fpemu.testing._block_trial import BlockTrial, block_law
from fpemu.testing._draw_laws import sweep_length
from fpemu.testing._draws import draws
from fpemu.testing._patterns import widen
from fpemu.values import power_of_two

_MOST_SWEPT_BITS = 8
_MOST_ELEMENT_BITS = 8


def _swept(fmt: BlockFormat, rounding: Mode) -> bool:
    """Draws of few bits, and scales that can be a power of two."""
    return (
        isinstance(rounding, Stochastic)
        and rounding.bits <= _MOST_SWEPT_BITS
        and rounding.variant is not Variant.EQUAL
        and isinstance(fmt.element, Format)
        and fmt.element.bits <= _MOST_ELEMENT_BITS
        and not fmt.rule.needs_all_elements
        and fmt.rule.method is not ScaleMethod.FOUR_THIRDS
        and fmt.block not in (1, (1, 1))
    )


@block_law(_swept, once=True)
def stochastic_blocks_are_unbiased(trial: BlockTrial) -> None:
    """Over all draws the mean of an element's results is the element, exactly.

    The block's maximum is so chosen that its scale is a power of two, and one value, at a whole
    number of 2**-bits between its neighbours, is repeated until every draw has come up.
    """
    assert isinstance(trial.rounding, Stochastic)
    rounding, fmt = trial.rounding, trial.fmt
    shape = _shape(fmt, sweep_length(rounding.bits))
    numbers = block_numbers(shape, fmt).reshape(-1)
    tops = np.unique(numbers, return_index=True)[1]
    inside = np.delete(np.arange(numbers.size), tops)
    drawn = draws(trial.key, numbers.size, rounding)[inside]
    different, first = np.unique(drawn, return_index=True)
    if different.size != 1 << rounding.bits:
        raise ValueError(f"key must meet every draw of {rounding}, got {trial.key}; try another")
    amax = None
    if fmt.outer is not None:
        assert fmt.scale is not None
        amax = float(fmt.qmax * fmt.scale.max_value)
    x = np.full(shape, 0, trial.wide.dtype)
    x.reshape(-1)[tops] = float(fmt.qmax)
    scale = scales_by_definition(x.reshape(-1)[tops[:1]], _alone(fmt), -1, amax).each[0]
    assert isinstance(scale, Fraction)
    for low, high in _pairs(fmt):
        for numerator in sorted({1, (1 << rounding.bits) // 2, (1 << rounding.bits) - 1}):
            value = scale * (low + (high - low) * numerator * power_of_two(-rounding.bits))
            x.reshape(-1)[inside] = float(value) * (-1 if numerator % 2 else 1)
            got = np.abs(widen(trial.quantize(x, amax=amax)).reshape(-1)[inside])
            if (got != got[first][drawn]).any():
                trial.fail(f"elements {float(value)!r} of the same draw became different")
            total = Fraction(math.fsum(got[first].tolist()))  # of few bits, so exact
            if total != value * different.size:
                mean = float(total / different.size)
                trial.fail(
                    f"{float(value)!r} in blocks of scale {float(scale)!r} has the mean {mean!r} "
                    f"over the {different.size} draws"
                )


def _shape(fmt: BlockFormat, count: int) -> tuple[int, ...]:
    """Whole blocks with at least `count` elements beside their maxima."""
    block = fmt.block
    if block == TENSOR:
        return (count + 1,)
    if block == CHANNEL:
        return (count // 4 + 2, 4)
    if isinstance(block, int):
        return (count // (block - 1) + 1, block)
    assert isinstance(block, tuple)
    rows, columns = block
    return (count // (rows * columns - 1) + 1, rows, columns)


def _alone(fmt: BlockFormat) -> BlockFormat:
    return BlockFormat(fmt.element, 1, fmt.scale, fmt.rule, fmt.outer, fmt.symmetric)


def _pairs(fmt: BlockFormat) -> list[tuple[Fraction, Fraction]]:
    """Neighbours among the elements up to half the largest: the lowest pair and a high one."""
    assert isinstance(fmt.element, Format)
    values = [Fraction(v) for v in fmt.element.values() if v >= 0]
    half = [v for v in values if 2 * v <= fmt.qmax]
    pairs = list(pairwise(half))
    return [pairs[0], pairs[-1]] if pairs else []
