"""Lowering of block formats: what a backend knows of the scales, as plain numbers."""

from __future__ import annotations

from enum import IntEnum
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from fpemu.blocks import BlockFormat
from fpemu.formats import Format
from fpemu.lowering import FLOAT32, Container, Mode, Params, lower, overflow_limit
from fpemu.policy import Overflow, Policy
from fpemu.reference import round_value
from fpemu.rounding import Rounding, Stochastic
from fpemu.scales import ScaleMethod
from fpemu.values import power_of_two


class ScaleMode(IntEnum):
    """How scales come about."""

    GIVEN = 0  # the array of scales is an input
    FLOOR = 1
    CEIL = 2
    EVEN = 3
    CEIL_OF_RATIO = 4  # of amax / qmax
    ABSMAX = 5


class Scaling(NamedTuple):
    """A block format and its tile for one container (float32 or float64).

    All floats are values of that container. `outer` is t, and 1.0 with `has_outer` 0.
    """

    mode: int
    height: int
    width: int
    emax: int
    qmax: float
    carry_from: float  # EVEN: significands in [0.5, 1) from here on round up to 1
    lowest: int  # exponents of the scale format's powers of two
    highest: int
    zero_scale: float  # what code 0 of the scale format is worth
    has_nan: int
    factor: float  # elements are divided by scale * factor
    has_outer: int
    outer: float
    scale_params: Params  # rounding to the scale format, nearest even, saturating


_MODES = {
    ScaleMethod.FLOOR: ScaleMode.FLOOR,
    ScaleMethod.FOUR_THIRDS: ScaleMode.FLOOR,
    ScaleMethod.CEIL: ScaleMode.CEIL,
    ScaleMethod.EVEN: ScaleMode.EVEN,
    ScaleMethod.RCEIL: ScaleMode.CEIL_OF_RATIO,
    ScaleMethod.POW2_M1: ScaleMode.CEIL_OF_RATIO,
    ScaleMethod.ABSMAX: ScaleMode.ABSMAX,
}
_SATURATE = Policy(Overflow.SAT_FINITE)


@lru_cache(maxsize=1024)
def lower_scaling(fmt: BlockFormat, tile: tuple[int, int], container: Container) -> Scaling:
    """The record of `fmt` for blocks of `tile`; no outer scale yet.

    Rules that need all elements, and formats without scales, are lowered to GIVEN.
    """
    scale = fmt.scale or FLOAT32.format
    low, high = fmt.scale_exponents if fmt.scale else (0, 0)
    given = ScaleMode.GIVEN
    zero = scale.decode(0)
    assert isinstance(zero, Fraction)
    factor = Fraction(4, 3) if fmt.rule.method is ScaleMethod.FOUR_THIRDS else Fraction(1)
    return Scaling(
        mode=_MODES.get(fmt.rule.method, given) if fmt.scale else given,
        height=tile[0],
        width=tile[1],
        emax=fmt.emax,
        qmax=float(fmt.qmax),
        carry_from=float(1 - power_of_two(-fmt.top_mantissa_bits - 2)),
        lowest=low,
        highest=high,
        zero_scale=float(zero),
        has_nan=int(fmt.nan_scale),
        factor=_rounded(factor, container.format),
        has_outer=0,
        outer=1.0,
        scale_params=lower(scale, Rounding.NEAREST_EVEN, _SATURATE, container),
    )


def _rounded(value: Fraction, fmt: Format) -> float:
    """The nearest value of float32 or float64."""
    rounded = round_value(fmt, value, Rounding.NEAREST_EVEN, _SATURATE)
    assert isinstance(rounded, Fraction)
    return float(rounded)


@lru_cache(maxsize=1024)
def lower_elements(
    fmt: BlockFormat, rounding: Rounding | Stochastic, container: Container
) -> Params:
    """The record for rounding quotients to the elements of `fmt`, a Format, saturating."""
    assert isinstance(fmt.element, Format)
    params = lower(fmt.element, rounding, _SATURATE, container)
    if not fmt.symmetric:
        return params
    # The lowest code is out of use: negatives end where positives do.
    stochastic = isinstance(rounding, Stochastic)
    mode = Mode(params.mode_neg)
    return params._replace(
        max_neg=params.max_pos,
        limit_neg=0 if stochastic else overflow_limit(container, fmt.element, params.max_pos, mode),
        over_neg=params.over_pos | params.sign,
        inf_neg=params.inf_pos | params.sign,
    )
