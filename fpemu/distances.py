"""Distances between distributions of values, and how evenly codes are used.

The samples need not be of one size. Values that are not finite are left out; where nothing is
left the result is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu.arguments import as_array
from fpemu.choices import as_int

_CHUNK = 1 << 16


def code_entropy(codes: ArrayLike, bits: int) -> float:
    """The entropy of the codes in use, in bits: at most `bits`, 0 where all codes are one.

    `codes`: integers of any type and shape in 0..2**bits - 1, unpacked; `bits`: 1..16. NaN for no
    codes. Errors: TypeError for other dtypes, ValueError for a code or `bits` out of range.
    """
    width = as_int("bits", bits)
    if not 1 <= width <= 16:
        raise ValueError(f"bits must be in 1..16, got {width}")
    array = np.asarray(codes)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"codes must be integers, got dtype {array.dtype}")
    if not array.size:
        return math.nan
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 1 << width:
        raise ValueError(f"codes must be in 0..{(1 << width) - 1}, got {low if low < 0 else high}")
    counts = np.zeros(1 << width, np.int64)
    for first in range(0, array.size, _CHUNK):
        part = array.flat[first : first + _CHUNK].astype(np.int64)
        counts += np.bincount(part, minlength=counts.size)
    used = counts[counts > 0].tolist()
    total = array.size
    return math.fsum(count / total * math.log2(total / count) for count in used)


def kl_divergence(
    x: ArrayLike, q: ArrayLike, bins: int | ArrayLike = 256, *, pseudo_count: float = 0.0
) -> float:
    """The Kullback-Leibler divergence of the histogram of `q` from that of `x`, in nats:
    sum P log(P / Q), with P of `x` and Q of `q`.

    `bins`: how many of equal width over the range of all values of both, or the increasing edges
    of at least one; values outside the edges are left out. A bin holds its lower edge, the last
    one its upper edge too.
    Empty bins: `pseudo_count` is added to the count of every bin on both sides. With 0, a bin
    without `x` contributes nothing, and a bin with `x` but without `q` makes the result inf, as
    the definition has it; quantized data in fine bins does that, so take coarse bins or a pseudo
    count such as 1/2.
    Errors: TypeError for dtypes; ValueError for bins that are not positive or not increasing,
    and for a pseudo count that is negative or not finite.
    """
    if not 0 <= pseudo_count < math.inf:
        raise ValueError(f"pseudo_count must be finite and not negative, got {pseudo_count!r}")
    original, result = as_array(x)[0], as_array(q)[0]
    exponent, edges = 0, _edges(bins)
    if edges is None:
        low, high = _range(original, result)
        # by a power of two, so that the width of the range cannot overflow
        exponent = math.frexp(max(abs(low), abs(high)))[1]
        edges = np.linspace(
            math.ldexp(low, -exponent), math.ldexp(high, -exponent), as_int("bins", bins) + 1
        )
    p = _histogram(original, edges, exponent) + pseudo_count
    r = _histogram(result, edges, exponent) + pseudo_count
    if not p.any() or not r.any():
        return math.nan
    p, r = p / p.sum(), r / r.sum()
    used = p > 0
    if not r[used].all():
        return math.inf
    terms = p[used] * np.log(p[used] / r[used])
    return max(math.fsum(terms.tolist()), 0.0)


def wasserstein1(x: ArrayLike, q: ArrayLike) -> float:
    """The Wasserstein-1 distance of two samples: the integral of |F - G| over their distribution
    functions; for samples of one size the mean distance of their sorted values.

    Both are sorted as float64 copies. Errors: TypeError for dtypes.
    """
    a, b = _sorted(x), _sorted(q)
    if not a.size or not b.size:
        return math.nan
    largest = max(abs(a[0]), abs(a[-1]), abs(b[0]), abs(b[-1]))
    exponent = int(np.frexp(largest)[1])
    a, b = np.ldexp(a, -exponent), np.ldexp(b, -exponent)
    total = 0.0
    if a.size == b.size:
        for first in range(0, a.size, _CHUNK):
            part = slice(first, first + _CHUNK)
            total += float(np.abs(a[part] - b[part]).sum())
        mean = total / a.size
    else:
        # Quantile functions are steps; between two steps of either both are constant.
        n, m = a.size, b.size
        steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
        gaps = np.abs(a[steps[:-1] // m] - b[steps[:-1] // n])
        mean = float(np.dot(gaps, np.diff(steps) / (n * m)))
    with np.errstate(over="ignore"):
        return float(np.ldexp(mean, exponent))


def float64_piece(x: NDArray[Any], first: int, size: int) -> NDArray[np.float64]:
    """Elements `first` to `first + size` in C order, of any layout."""
    # flat indexing copies one piece of any layout in C order
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return x.flat[first : first + size].astype(np.float64)


def _finite_pieces(x: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    for first in range(0, x.size, _CHUNK):
        piece = float64_piece(x, first, _CHUNK)
        yield piece[np.isfinite(piece)]


def _sorted(x: ArrayLike) -> NDArray[np.float64]:
    pieces = [np.zeros(0), *_finite_pieces(as_array(x)[0])]
    values = np.concatenate(pieces)
    values.sort()
    return values


def _edges(bins: int | ArrayLike) -> NDArray[np.float64] | None:
    """The edges given, None for a number of bins."""
    if np.ndim(bins) == 0:
        if as_int("bins", bins) < 1:
            raise ValueError(f"bins must be positive, got {bins!r}")
        return None
    edges = np.asarray(bins, np.float64)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError("bins must be a number, or at least two increasing edges in one row")
    return edges


def _range(*samples: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest finite value of all; zeros where there is none."""
    ends = [
        end
        for sample in samples
        for piece in _finite_pieces(sample)
        if piece.size
        for end in (float(piece.min()), float(piece.max()))
    ]
    return min(ends, default=0.0), max(ends, default=0.0)


def _histogram(x: NDArray[Any], edges: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    counts = np.zeros(edges.size - 1)
    for piece in _finite_pieces(x):
        counts += np.histogram(np.ldexp(piece, -exponent), edges)[0]
    return counts
