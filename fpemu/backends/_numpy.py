"""The NumPy backend: blocked passes over bit patterns. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu import gaussian
from fpemu.backends import Patterns
from fpemu.backends import _numpy_tables as tables
from fpemu.backends._blocks import BlockOperations
from fpemu.backends._numpy_codes import decode_codes, encode_patterns
from fpemu.backends._numpy_grid import round_patterns
from fpemu.backends._numpy_hadamard import transform
from fpemu.backends._numpy_nearest import plan_for, round_nearest
from fpemu.backends._numpy_philox import BLOCKS, fill_lanes
from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu.rounding import Noise

# Elements worked on together, by container: an intermediate array has 2**16 bytes.
_CHUNK = 1 << 14
_WIDE_CHUNK = 1 << 13


class NumpyBackend(BlockOperations):
    """`fpemu.backends.Backend` on NumPy arrays, in one thread. See there for the contract."""

    name = "numpy"

    def round(
        self, x: Patterns, out: Patterns, params: Params, key: Key | None = None, first: int = 0
    ) -> None:
        if params.random_bits:
            assert key is not None
            self._round_stochastic(x, out, params, key, first)
            return
        plan = plan_for(params)
        if plan is not None:
            round_nearest(x, out, params, plan)
        elif params.width == tables.BITS and x.size >= tables.WORTH:
            tables.look_up(tables.rounded(params), x, out)
        else:
            for part in _chunks(x):
                out[part] = round_patterns(x[part], params)

    def _round_stochastic(
        self, x: Patterns, out: Patterns, params: Params, key: Key, first: int
    ) -> None:
        span = BLOCKS * (128 // params.lane_bits)
        lanes = np.empty(min(x.size, span), f"u{params.lane_bits // 8}")
        for start in range(0, x.size, span):
            drawn = lanes[: x.size - start]
            fill_lanes(drawn, key, first + start)
            run, result = x[start : start + span], out[start : start + span]
            for part in _chunks(run):
                result[part] = round_patterns(run[part], params, drawn[part])

    def encode(self, x: Patterns, out: Patterns, params: Params) -> None:
        low_bits = (1 << params.width - tables.BITS) - 1
        for part in _chunks(x):
            if x.size >= tables.WORTH and not np.bitwise_or.reduce(x[part]) & low_bits:
                top = (x[part] >> params.width - tables.BITS).astype(np.uint16, copy=False)
                tables.look_up(tables.codes(params, out.dtype), top, out[part])
            else:
                out[part] = encode_patterns(x[part], params)

    def decode(self, codes: Patterns, out: Patterns, params: Params) -> None:
        if params.code_bits <= tables.BITS and codes.size >= 1 << params.code_bits:
            tables.look_up(tables.values(params, out.dtype), codes, out)
            return
        for part in _chunks(out):
            out[part] = decode_codes(codes[part], params)

    def lanes(self, out: Patterns, key: Key, first: int = 0) -> None:
        fill_lanes(out, key, first)

    def add_noise(
        self,
        w: NDArray[np.floating[Any]],
        out: NDArray[np.floating[Any]],
        delta: NDArray[np.floating[Any]],
        noise: Noise,
        key: Key,
        first: int = 0,
    ) -> None:
        span = BLOCKS * 8
        lanes = np.empty(min(w.size, span), np.uint16)
        with np.errstate(all="ignore"):
            for start in range(0, w.size, span):
                drawn = lanes[: w.size - start]
                fill_lanes(drawn, key, first + start)
                run, steps = w[start : start + span], delta[start : start + span]
                result = out[start : start + span]
                for part in _chunks(run):
                    step = _noise(noise, drawn[part]).astype(w.dtype, copy=False)
                    # R = 0 is no noise, even where the step has overflowed to infinity.
                    np.multiply(step, steps[part], out=step, where=step != 0)
                    # A delta that overflowed: 0 * inf is no noise, not NaN.
                    np.copyto(step, 0, where=np.isnan(step))
                    _add(run[part], step, result[part])

    def hadamard(
        self, x: NDArray[np.floating[Any]], out: NDArray[np.floating[Any]], size: int
    ) -> None:
        transform(x, out, size)


def _noise(noise: Noise, lanes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """R of 16-bit lanes; the formulas of `fpemu.reference.noise_value`, exact in float32."""
    match noise:
        case Noise.GAUSSIAN:
            return gaussian.table().take(lanes)
        case Noise.UNIFORM:
            return (lanes.astype(np.float32) * 2 - 65535) * np.float32(2**-17)
        case Noise.ROUNDED_GAUSSIAN:
            v = lanes & 0x7FFF
            size = (v < 10398).astype(np.int16)
            size += v < 88
            size *= 1 - (lanes >> 14 & 2).astype(np.int16)
            return size.astype(np.float32)


def _add(w: NDArray[Any], step: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = w + step``, and `w` itself where `step` is zero."""
    # The sum is w there, but for -0 + 0 and for NaN that the processor may alter.
    unequal = np.flatnonzero(~(np.abs(w) > 0))
    unequal = unequal[step[unequal] == 0]
    same = w[unequal]
    np.add(w, step, out)
    out[unequal] = same


def _chunks(array: NDArray[Any]) -> Iterator[slice]:
    chunk = _WIDE_CHUNK if array.itemsize == 8 else _CHUNK
    for start in range(0, array.size, chunk):
        yield slice(start, start + chunk)


backend = NumpyBackend()
