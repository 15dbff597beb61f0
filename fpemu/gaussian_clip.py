"""The clip of least mean squared error when unit Gaussian data are rounded to a scaled format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from fpemu.formats import Format
from fpemu.table_format import TableFormat

MAX_BITS = 8


@lru_cache(maxsize=256)
def gaussian_clip(element: Format | TableFormat, symmetric: bool = False) -> float:
    """k such that scaling `element` by k / qmax rounds N(0, 1) with the least squared error.

    To six decimals (so that the last bits of a platform's erf decide nothing): 2.922475 for
    E2M1, 3.747540 for E2M3. `symmetric` leaves out the lowest code of two's complement.
    Source: QuEST, arXiv 2502.05003, whose scale this is.
    Errors: ValueError for elements of more than 8 bits.
    """
    if element.bits > MAX_BITS:
        raise ValueError(f"rule quest takes elements of up to {MAX_BITS} bits, got {element}")
    qmax = float(element.max_value)
    levels = sorted({float(value) / qmax for value in element.values()})
    if symmetric:
        levels = [level for level in levels if level >= -1]
    # Floating grids repeat in every binade, so there are many local minima: look everywhere.
    grid = [0.25 * 2 ** (i / 64) for i in range(64 * 10 + 1)]
    errors = [mean_squared_error(levels, k) for k in grid]
    best = min(range(len(grid)), key=errors.__getitem__)
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    # The error is too flat to find its minimum by comparing values: look for its slope's zero.
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        cross, square = _moments(levels, middle)
        low, high = (middle, high) if middle * square < cross else (low, middle)
    return round((low + high) / 2, 6)


def mean_squared_error(levels: Sequence[float], scale: float) -> float:
    """E (x - scale * nearest level)^2 for unit Gaussian x; `levels` ascending."""
    cross, square = _moments(levels, scale)
    return 1 - 2 * scale * cross + scale * scale * square


def _moments(levels: Sequence[float], scale: float) -> tuple[float, float]:
    """E x * level and E level^2, for the level nearest to x / scale.

    The edges between levels are where neighbours err alike, so that moving them with the scale
    does not count, and half the slope of the error is scale * E level^2 - E x * level.
    """
    edges = [-math.inf, *(scale * (a + b) / 2 for a, b in pairwise(levels)), math.inf]
    cross = square = 0.0
    for level, (low, high) in zip(levels, pairwise(edges), strict=True):
        cross += level * (_density(low) - _density(high))
        square += level * level * (_mass(low) - _mass(high))
    return cross, square


def _density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _mass(x: float) -> float:
    """P(X > x)"""
    return math.erfc(x / math.sqrt(2)) / 2
