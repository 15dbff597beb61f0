"""Where block rounding breaks: the blocks worth trying for a format.

A block is wrong when its scale is, so its largest magnitude is what matters: powers of two and
their neighbours, multiples of the largest element, ties of the scale format, both ends of the
range. The other elements are then put on values, ties and their neighbours under that scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import cycle, islice, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpemu.blocks import CHANNEL, TENSOR, BlockFormat
from fpemu.formats import Format
from fpemu.testing._block_geometry import block_count, block_numbers
from fpemu.testing._block_quantizers import scales_by_definition
from fpemu.testing._patterns import Floats, bits, container_of, float_dtype, floats, narrow, widen
from fpemu.testing._points import reals, some_codes
from fpemu.values import exponent_of, power_of_two

Float64s = NDArray[np.float64]
_SHARED = 40  # elements of an array that is one block


def element_reals(fmt: BlockFormat) -> Float64s:
    """Positive reals where rounding to the elements changes: values, ties, quarter points."""
    if isinstance(fmt.element, Format):
        found = reals(fmt.element, 64)
    else:
        values = np.unique([abs(float(v)) for v in fmt.element.values()])
        half = (values[:-1] + values[1:]) / 2
        found = np.concatenate([values, half, values[1:] * 0.75, values[-1:] * 1.5])
    found = np.unique(found[(found > 0) & np.isfinite(found)])
    return found[found <= 2 * float(fmt.qmax)]


def largest_magnitudes(fmt: BlockFormat, dtype: DTypeLike) -> Floats:
    """Positive finite values of `dtype` that are awkward as the largest magnitude of a block."""
    target = float_dtype(dtype)
    container = container_of(target)
    qmax, top = float(fmt.qmax), 2.0 ** (fmt.emax + 1)
    carry = top - 2.0 ** (fmt.emax - fmt.top_mantissa_bits - 1)
    found = [1.0, 2.0 ** (fmt.emax + 3), top, carry, qmax, qmax * 8, qmax * 0.75, 1.1 * qmax]
    found += [qmax * scale for scale in awkward_scales(fmt)]
    m, inf = container.mantissa_bits, container.infinity
    return _around(found, target, [1, 3, (1 << m) - 1, 1 << m, inf - 1, inf - (1 << m)])


def _around(values: Sequence[float], dtype: np.dtype[Any], patterns: Sequence[int] = ()) -> Floats:
    """Values of `dtype` with their neighbours, and some patterns, without the infinite ones."""
    near = bits(narrow(np.array(values), dtype)).astype(np.int64).tolist()
    found = [p + step for p in near for step in (0, -1, 1)] + list(patterns)
    kept = [p for p in dict.fromkeys(found) if 0 < p < container_of(dtype).infinity]
    return floats(np.array(kept, np.uint64), dtype)


def awkward_scales(fmt: BlockFormat) -> list[float]:
    """Both ends of the scale format and beyond, one in the middle, and ties."""
    if fmt.scale is None:
        return []
    codes = some_codes(fmt.scale, 16)
    decoded = [v for v in (fmt.scale.decode(int(c)) for c in codes) if isinstance(v, Fraction)]
    values = [float(v) for v in decoded if v > 0]
    ties = [(a + b) / 2 for a, b in pairwise(values)]
    ends = [values[0], values[0] / 2, values[-1], values[-1] * 4, values[len(values) // 2]]
    return [*ends, *ties[:: len(ties) // 3 + 1]]


def levels(fmt: BlockFormat, dtype: DTypeLike) -> tuple[Floats, ...]:
    """The `largest_magnitudes`; with an outer scale, those of a tensor at several levels."""
    if fmt.outer is None:
        return (largest_magnitudes(fmt, dtype),)
    assert fmt.scale is not None
    target = float_dtype(dtype)
    most = float(fmt.scale.max_value)
    scales = [s for s in awkward_scales(fmt) if s < most]
    found = []
    for outer in (1.0, 2.0**-6 / 3, 2.0**-14 * 1.3):
        around = _around([float(fmt.qmax) * s * outer for s in (most, *scales)], target)
        found.append(around[: 1 + 3 * len(scales)])
    return (*found, largest_magnitudes(fmt, dtype))


def fill(
    shape: tuple[int, ...], fmt: BlockFormat, tops: Floats, axis: int = -1, turn: int = 0
) -> Floats:
    """An array whose blocks have `tops` as largest magnitudes, in turn, and awkward elements.

    Every eighth element is a zero of either sign, and the largest element moves about.
    """
    numbers = block_numbers(shape, fmt, axis).reshape(-1)
    count = block_count(shape, fmt, axis)
    peaks = np.array(list(islice(cycle(np.roll(tops, -turn)), count)), tops.dtype)
    size = prod(shape)
    scale = _scales(peaks, fmt)
    ratios = element_reals(fmt)
    picked = ratios[(np.arange(size) * 7 + turn) % len(ratios)]
    with np.errstate(all="ignore"):
        near = narrow(picked * scale[numbers], tops.dtype)
    container = container_of(tops.dtype)
    shift = np.array([0, 0, 1, -1])[np.arange(size) * 5 // 3 % 4]
    moved = np.clip(bits(near).astype(np.int64) + shift, 0, container.infinity - 1)
    x = np.minimum(widen(floats(moved.astype(np.uint64), tops.dtype)), widen(peaks)[numbers])
    x[np.arange(size) % 8 == 5] = 0
    order = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers, minlength=count)
    starts = np.cumsum(counts) - counts
    at = order[starts + np.arange(count) * 3 % np.maximum(counts, 1)] if size else order
    x[at] = widen(peaks)
    sign = np.where((np.arange(size) * 11 // 3 + turn) % 2, -1.0, 1.0)
    return narrow(np.copysign(x, sign), tops.dtype).reshape(shape)


def _scales(peaks: Floats, fmt: BlockFormat) -> Float64s:
    """Roughly what blocks of these largest magnitudes are divided by."""
    if fmt.scale is None:
        return np.ones(len(peaks))
    if fmt.outer is not None or fmt.rule.needs_all_elements or fmt.rule.method == "pow2_m2":
        return widen(peaks) / float(fmt.qmax)
    alone = BlockFormat(fmt.element, 1, fmt.scale, fmt.rule, symmetric=fmt.symmetric)
    found = scales_by_definition(peaks, alone).each
    return np.array([float(s) for s in found])  # type: ignore[arg-type]


def usual_shapes(fmt: BlockFormat) -> tuple[tuple[int, ...], ...]:
    """Shapes of a few blocks with ragged ones at the far edges."""
    block = fmt.block
    if block == TENSOR:
        return ((5, _SHARED // 5),)
    if block == CHANNEL:
        return ((5, 12),)
    if isinstance(block, int):
        columns = 2 * block + (block + 1) // 3 if block <= 160 else block + 3
        return ((max(2, min(24, 500 // columns)), columns),)
    assert isinstance(block, tuple)
    rows, columns = block
    if rows * columns <= 260:
        return ((2 * rows + rows // 2, 2 * columns + columns // 3),)
    return ((min(rows, 2), columns + 3), (rows + 2, min(columns, 2)))


@lru_cache(maxsize=256)
def _points(fmt: BlockFormat, dtype: np.dtype[Any]) -> tuple[Floats, ...]:
    found = []
    for tops in levels(fmt, dtype):
        for shape in usual_shapes(fmt):
            most = 6 if fmt.block in (TENSOR, CHANNEL) else 3
            turns = min(-(-len(tops) // max(block_count(shape, fmt), 1)), most)
            for turn in range(turns):
                x = fill(shape, fmt, tops, turn=turn * len(tops) // turns)
                x.flags.writeable = False
                found.append(x)
    return tuple(found)


def block_points(fmt: BlockFormat, dtype: DTypeLike = np.float32) -> tuple[Floats, ...]:
    """Read-only matrices of `dtype` that a quantizer to `fmt` must get right; all finite.

    Blocks run along the last axis (one channel per column), some are ragged. For the largest
    magnitudes see `largest_magnitudes`; the other elements are values of the element format,
    ties between them and floats beside those under the block's scale, zeros of both signs among
    them.
    """
    return _points(fmt, float_dtype(dtype))


class Ordinary(NamedTuple):
    """Largest magnitudes well inside every range: `tops`, the `amax` to pass (None without an
    outer scale), and the `room` in binades either way; negative if there is none."""

    tops: Floats
    amax: float | None
    room: int


def ordinary(fmt: BlockFormat, dtype: DTypeLike) -> Ordinary:
    """Blocks of similar size whose scales are normal numbers, for a format with scales."""
    assert fmt.scale is not None
    ratios = np.array([1.0, 1.3, 1.9, 1.7, 1 + 2.0**-20, 2 - 2.0**-20])
    if fmt.outer is None:
        low, high = _normal_exponents(fmt.scale, fmt.emax)
        unit, amax = fmt.qmax * power_of_two((low + high) // 2), None
    else:
        product = fmt.qmax * fmt.scale.max_value
        low, high = _normal_exponents(fmt.outer, exponent_of(product))
        most = product * power_of_two((low + high) // 2)
        unit, amax = most * Fraction(2, 5), float(most)
    tops = narrow(ratios * float(unit), dtype)
    return Ordinary(tops, amax, min((high - low) // 2 - 3, 20))


def _normal_exponents(fmt: Format, shift: int) -> tuple[int, int]:
    """Exponents between which a format scales like numbers without a range, and products with
    something of exponent `shift` are well inside float32."""
    low = exponent_of(Fraction(fmt.min_normal or fmt.smallest_positive))
    high = exponent_of(fmt.max_value)
    if fmt.exponent_bits == 0:
        return high, high
    return max(low, -60 - shift, -60), min(high, 60 - shift, 60)
