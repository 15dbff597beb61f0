"""Scales that depend on all elements of a block: rules mse, octav and quest.

These are reductions, in float64; their result is the same for every backend, and the order of
the sums is NumPy's, so that another NumPy may differ where two candidates are within rounding of
each other. Candidates are judged by rounding to nearest even, whatever the call rounds with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu.backends import Backend
from fpemu.backends._blocks import BlockOperations, bits
from fpemu.block_lowering import ScaleMode, Scaling
from fpemu.blocks import BlockFormat
from fpemu.formats import Format, Specials
from fpemu.gaussian_clip import gaussian_clip
from fpemu.lowering import Params
from fpemu.scales import ScaleMethod

Floats: TypeAlias = NDArray[Any]
_GROUP = 1 << 16  # elements searched together
_GOLDEN = (5**0.5 - 1) / 2


class Search:
    """The search of one call: `find` gives the scales of blocks that are rows of a matrix."""

    def __init__(
        self,
        fmt: BlockFormat,
        scaling: Scaling,
        params: Params | None,
        engine: BlockOperations | Backend,
        backend: Backend,
    ) -> None:
        self.fmt = fmt
        self.scaling = scaling._replace(mode=int(ScaleMode.GIVEN), height=1)
        self.params = params
        self.engine = engine
        self.backend = backend

    def find(self, rows: Floats, present: NDArray[np.bool_]) -> Floats:
        """A scale per row; `present` is False for padding, where `rows` is 0."""
        found = np.empty(rows.shape[0], rows.dtype)
        group = max(1, _GROUP // max(rows.shape[1], 1))
        for first in range(0, rows.shape[0], group):
            part = slice(first, first + group)
            found[part] = self._group(rows[part], present[part])
        return found

    def _group(self, x: Floats, present: NDArray[np.bool_]) -> Floats:
        amax = np.abs(x).max(axis=1, initial=0)
        good = np.isfinite(amax) & (amax > 0)
        scales = np.full(x.shape[0], self.scaling.zero_scale, x.dtype)
        scales[~np.isfinite(amax)] = np.nan
        if self.scaling.has_outer and self.scaling.outer == 0:
            return scales
        x, present, amax = x[good], present[good], amax[good].astype(np.float64)
        if not x.size:
            return scales
        match self.fmt.rule.method:
            case ScaleMethod.MSE:
                clips = self._best_of_grid(x, present, amax)
            case ScaleMethod.OCTAV if self._is_uniform():
                clips = np.minimum(_octav(np.abs(x).astype(np.float64), self.fmt), amax)
            case ScaleMethod.OCTAV:
                clips = amax * self._golden(x, present, amax)
            case _:
                # By a power of two near the maximum, so that no square leaves the range.
                unit = np.ldexp(1.0, np.frexp(amax)[1] - 1)
                squares = np.square(x / unit[:, None], dtype=np.float64).sum(axis=1)
                rms = np.sqrt(squares / present.sum(axis=1))
                with np.errstate(over="ignore"):
                    clips = rms * gaussian_clip(self.fmt.element, self.fmt.symmetric) * unit
        scales[good] = self._scales(clips, x.dtype)
        return scales

    def _is_uniform(self) -> bool:
        element = self.fmt.element
        return isinstance(element, Format) and element.specials is Specials.TWOS

    def _scales(self, clips: NDArray[np.float64], dtype: np.dtype[Any]) -> Floats:
        """clip / qmax, rounded to the scale format."""
        with np.errstate(all="ignore"):
            ratio = clips.astype(dtype) / dtype.type(self.scaling.qmax)
            if self.scaling.has_outer:
                ratio /= dtype.type(self.scaling.outer)
        scales: Floats = np.empty_like(ratio)
        self.backend.round(bits(ratio), bits(scales), self.scaling.scale_params)
        return scales

    def _loss(
        self, x: Floats, present: NDArray[np.bool_], clips: NDArray[np.float64], norm: float
    ) -> NDArray[np.float64]:
        """The sum of |x - q|**norm of every row."""
        scales = self._scales(clips, x.dtype)[:, None]
        q = np.empty_like(x)
        scaling = self.scaling._replace(width=x.shape[1])
        self.engine.round_blocks(x, q, scales, self.params, scaling)  # type: ignore[arg-type]
        gap = np.abs(x.astype(np.float64) - q)
        with np.errstate(over="ignore"):
            powers = np.square(gap) if norm == 2 else gap**norm
        losses: NDArray[np.float64] = np.where(present, powers, 0).sum(axis=1)
        return losses

    def _best_of_grid(
        self, x: Floats, present: NDArray[np.bool_], amax: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        rule = self.fmt.rule
        best, least = amax, self._loss(x, present, amax, rule.norm)
        for i in range(1, rule.points):
            clips = amax * (1 - rule.shrink * i / rule.points)
            loss = self._loss(x, present, clips, rule.norm)
            better = loss < least
            best, least = np.where(better, clips, best), np.where(better, loss, least)
        return best

    def _golden(
        self, x: Floats, present: NDArray[np.bool_], amax: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The factor in (0, 1] of least squared error, by golden sections around a coarse best."""

        def loss(factors: NDArray[np.float64]) -> NDArray[np.float64]:
            return self._loss(x, present, amax * factors, 2)

        return golden_minimum(loss, amax.size)


def golden_minimum(
    loss: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int
) -> NDArray[np.float64]:
    """`count` searches at once: the best of 32 steps of (0, 1], refined by golden sections."""
    steps = 32
    best, least = np.ones(count), loss(np.ones(count))
    for i in range(1, steps):
        factors = np.full(count, 1 - i / steps)
        found = loss(factors)
        best, least = np.where(found < least, factors, best), np.minimum(found, least)
    low, high = best - 1 / steps, np.minimum(best + 1 / steps, 1)
    low = np.maximum(low, 1 / (4 * steps))
    for _ in range(24):
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_a, at_b = loss(a), loss(b)
        for factors, found in ((a, at_a), (b, at_b)):
            best, least = np.where(found < least, factors, best), np.minimum(found, least)
        left = at_a <= at_b
        low, high = np.where(left, low, a), np.where(left, b, high)
    return best


def _octav(size: NDArray[np.float64], fmt: BlockFormat) -> NDArray[np.float64]:
    """The fixed point of OCTAV's iteration for a uniform grid of the element's bits.

    clip <- sum |x| [|x| > clip] / (4**-bits / 3 * count [0 < |x| <= clip] + count [|x| > clip]),
    from mean |x|, until it moves by less than 1e-12 of itself, 100 times at most. Source: arXiv
    2206.06501.
    """
    following: NDArray[np.float64]
    weight = 4.0**-fmt.element.bits / 3
    clip: NDArray[np.float64] = size.sum(axis=1) / np.maximum((size > 0).sum(axis=1), 1)
    for _ in range(100):
        beyond = size > clip[:, None]
        above = beyond.sum(axis=1)
        within = (size > 0).sum(axis=1) - above
        following = np.where(beyond, size, 0).sum(axis=1) / (weight * within + above)
        # A block whose elements are all of one size has nothing beyond its mean.
        following = np.where(above == 0, clip, following)
        if (np.abs(following - clip) <= 1e-12 * clip).all():
            return following
        clip = following
    return clip
