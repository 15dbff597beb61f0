"""The NumPy backend: blocked passes over bit patterns. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu import gaussian
from fpemu.backends import Patterns
from fpemu.backends._numpy_codes import decode_codes, encode_patterns
from fpemu.backends._numpy_grid import round_patterns
from fpemu.backends._numpy_nearest import plan_for, round_nearest
from fpemu.backends._numpy_philox import BLOCKS, fill_lanes
from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu.rounding import Noise

# Elements worked on together; their intermediate arrays stay in the cache.
_CHUNK = 1 << 13


class NumpyBackend:
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
            return
        for part in _chunks(x.size):
            out[part] = round_patterns(x[part], params)

    def _round_stochastic(
        self, x: Patterns, out: Patterns, params: Params, key: Key, first: int
    ) -> None:
        span = BLOCKS * (128 // params.lane_bits)
        lanes = np.empty(min(x.size, span), f"u{params.lane_bits // 8}")
        for start in range(0, x.size, span):
            drawn = lanes[: x.size - start]
            fill_lanes(drawn, key, first + start)
            for part in _chunks(drawn.size):
                whole = slice(start + part.start, start + part.stop)
                out[whole] = round_patterns(x[whole], params, drawn[part])

    def encode(self, x: Patterns, out: Patterns, params: Params) -> None:
        for part in _chunks(x.size):
            out[part] = encode_patterns(x[part], params)

    def decode(self, codes: Patterns, out: Patterns, params: Params) -> None:
        for part in _chunks(codes.size):
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
                for part in _chunks(drawn.size):
                    whole = slice(start + part.start, start + part.stop)
                    step = _noise(noise, drawn[part]).astype(w.dtype, copy=False) * delta[whole]
                    # Not w + 0, which would be +0 where w is -0.
                    out[whole] = np.where(step == 0, w[whole], w[whole] + step)


def _noise(noise: Noise, lanes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """R of 16-bit lanes; the formulas of `fpemu.reference.noise_value`, exact in float32."""
    match noise:
        case Noise.GAUSSIAN:
            return gaussian.table()[lanes]
        case Noise.UNIFORM:
            return (lanes.astype(np.float32) * 2 - 65535) * np.float32(2**-17)
        case Noise.ROUNDED_GAUSSIAN:
            v = lanes & 0x7FFF
            size = (v < 10398).astype(np.float32) + (v < 88)
            return np.where(lanes >> 15, -size, size)


def _chunks(size: int) -> Iterator[slice]:
    for start in range(0, size, _CHUNK):
        yield slice(start, min(start + _CHUNK, size))


backend = NumpyBackend()
