"""Where rounding breaks: the inputs worth trying for a format.

Random reals find almost nothing; wrong quantizers are wrong on ties, next to ties, next to
powers of two, at the overflow edge, below the smallest value and on special patterns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpemu.catalog import format as as_format
from fpemu.formats import Format, Subnormals
from fpemu.testing._patterns import Floats, bits, container_of, float_dtype, floats, nans, narrow

Codes = NDArray[np.int64]


def magnitudes(fmt: Format, codes: Codes, scale: int = 0) -> NDArray[np.float64]:
    """The values, times 2**scale, of magnitude codes under the format's field rules.

    Codes beyond the largest continue the ladder. Exact as long as float64 holds the result;
    what is too large for float64 is inf.
    """
    m = fmt.mantissa_bits
    field, trailing = codes >> m, codes & ((1 << m) - 1)
    normal = (field > 0) | (fmt.subnormals is Subnormals.NONE)
    significand = np.where(
        normal,
        trailing + (1 << m),
        0 if fmt.subnormals is Subnormals.FLUSH else trailing,
    )
    lowest = 0 if fmt.subnormals is Subnormals.NONE else 1
    exponent = np.maximum(field, lowest) - fmt.bias - m + scale
    with np.errstate(over="ignore"):
        values: NDArray[np.float64] = np.ldexp(significand.astype(np.float64), exponent)
    return values


def some_codes(fmt: Format, most: int = 512) -> Codes:
    """Magnitude codes 0..max_code: all of them if at most `most`, else the ones near edges.

    The sample has both ends of the ladder, both ends of binades spread over the range, and
    codes at regular distances.
    """
    top = fmt.max_code
    if top < most:
        return np.arange(top + 1)
    end, share = most // 8, max(most // 6, 1)
    m = fmt.mantissa_bits
    binades = np.unique(np.linspace(0, top >> m, share).astype(np.int64)) << m
    # An odd step, so that the codes taken differ in every bit.
    spread = np.arange(0, top + 1, (top // share) | 1)
    found = np.concatenate(
        [
            np.arange(end),
            np.arange(top - end, top + 1),
            binades,
            binades + 1,
            binades - 1,
            spread,
        ]
    )
    return np.unique(found[(found >= 0) & (found <= top)])


def reals(fmt: Format, most: int = 512) -> NDArray[np.float64]:
    """Positive reals where rounding to `fmt` changes: values, midpoints, quarters, edges.

    Those of `some_codes`; rounded to float64 in the rare format whose midpoints it lacks.
    """
    codes = some_codes(fmt, most)
    low, high = magnitudes(fmt, codes), magnitudes(fmt, codes + 1)
    half_gap = magnitudes(fmt, codes + 1, scale=-1) - magnitudes(fmt, codes, scale=-1)
    with np.errstate(over="ignore"):
        between = [low + half_gap * part for part in (0.5, 1.0, 1.5)]
        beyond = magnitudes(fmt, np.array([fmt.max_code])) * np.array([1.5, 2.0, 4.0])
        first = float(fmt.smallest_positive)
        below = first * np.array([0.5, 0.25, 2.0**-8, 2.0**-24, 2.0**-25, 2.0**-33])
    found = np.concatenate([low, high, *between, beyond, below])
    return np.unique(found[np.isfinite(found)])


def around(values: NDArray[np.float64], dtype: DTypeLike) -> Floats:
    """Each value as `dtype` with the patterns before and after it, both signs, sorted."""
    container = container_of(dtype)
    nearest = bits(narrow(np.abs(values), dtype)).astype(np.int64)
    steps = np.concatenate([nearest - 1, nearest, nearest + 1])
    steps = np.unique(steps[(steps >= 0) & (steps < container.infinity)]).astype(np.uint64)
    return floats(np.concatenate([steps[::-1] | np.uint64(container.sign), steps]), dtype)


def specials(dtype: DTypeLike) -> Floats:
    """Zeros, infinities, NaNs of all kinds, the edges of `dtype` itself, and small integers."""
    container = container_of(dtype)
    m, inf = container.mantissa_bits, container.infinity
    positive = [0, 1, 2, (1 << m) - 1, 1 << m, inf - 1, inf]
    both = positive + [p | container.sign for p in positive]
    integers = np.array([1.0, 2.0, 3.0, 100.0])
    return np.concatenate(
        [floats(np.array(both, dtype=np.uint64), dtype), around(integers, dtype), nans(dtype)]
    )


@lru_cache(maxsize=256)
def _points(fmt: Format, dtype: np.dtype[Any], most: int) -> Floats:
    found = np.concatenate([around(reals(fmt, most), dtype), specials(dtype)])
    found.flags.writeable = False
    return found


def points(fmt: Format | str, dtype: DTypeLike, most: int = 512) -> Floats:
    """A read-only vector of inputs of `dtype` that a quantizer to `fmt` must get right.

    Every value, midpoint and quarter point of the format (of a sample of `most` of its codes
    where it has more) with the floats before and after it, the overflow edge, tiny values, and
    the special patterns of `dtype`. `most` bounds the work: about 20 points a code.
    """
    return _points(as_format(fmt), float_dtype(dtype), most)
