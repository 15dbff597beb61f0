"""Hadamard transforms in NumPy: butterflies on transposed scratch, then on whole rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 14  # elements worked on together
_BASE = 128  # rows up to here are transposed, so that short strides too are long runs

Floats = NDArray[np.floating[Any]]


def transform(x: Floats, out: Floats, size: int) -> None:
    """See `fpemu.backends.Backend.hadamard`; `out` may be `x`."""
    base = min(size, _BASE)
    with np.errstate(all="ignore"):
        for start in range(0, x.size, _CHUNK):
            rows = x[start : start + _CHUNK].reshape(-1, base)
            columns = np.array(rows.T, order="C")
            count = rows.shape[0]
            for stage in range(base.bit_length() - 1):
                _butterflies(columns.reshape(-1), count << stage)
            out[start : start + _CHUNK].reshape(-1, base)[...] = columns.T
        stride = base
        while stride < size:
            _butterflies(out, stride)
            stride *= 2
        out *= x.dtype.type(math.sqrt(1 / size))
        for start in range(0, out.size, _CHUNK):
            part = out[start : start + _CHUNK]
            np.copyto(part, np.nan, where=np.isnan(part))


def _butterflies(values: Floats, stride: int) -> None:
    """One stage in place, on a flat array."""
    pairs = values.reshape(-1, 2, stride)
    group = max(1, _CHUNK // stride)
    for first in range(0, len(pairs), group):
        for at in range(0, stride, _CHUNK):
            low = pairs[first : first + group, 0, at : at + _CHUNK]
            high = pairs[first : first + group, 1, at : at + _CHUNK]
            difference = low - high
            low += high
            high[...] = difference
