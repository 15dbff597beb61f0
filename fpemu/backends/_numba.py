"""The numba backend: compiled loops, several threads for large arrays.

Kernels release the interpreter lock and are called from a small pool of Python threads, each on
a contiguous part. Numba's own parallel loops would compile for seconds, spoil vectorisation, and
abort when two threads of a program call them at once. The thread count is numba's
(``numba.get_num_threads()``), read and never set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.backends import Patterns
from fpemu.backends import _numba_blocks as block_kernels
from fpemu.backends import _numba_hadamard as butterflies
from fpemu.backends import _numba_kernels as kernels
from fpemu.backends._numba_block_operations import NumbaBlocks
from fpemu.backends._numba_conditions import (
    by_addition,
    is_exponent_only,
    is_plain_nearest_even,
    is_symmetric,
)
from fpemu.backends._pool import share
from fpemu.keys import Key
from fpemu.lowering import FIELD_OFFSET, Mode, Params
from fpemu.rounding import Noise

_COPIED = 1 << 15  # elements copied together where results replace their arguments
_TABLE_PAYS = 1 << 17  # elements from which a table of 2**16 entries pays
_ONES = (1 << 64) - 1


class NumbaBackend(NumbaBlocks):
    """Implements `fpemu.backends.Backend`."""

    name = "numba"

    def round(
        self, x: Patterns, out: Patterns, params: Params, key: Key | None = None, first: int = 0
    ) -> None:
        if not x.size:
            return
        record, run = _plan(params)
        if run is kernels.round_any and params.width == 16 and x.size >= _TABLE_PAYS:
            run, record = kernels.look_up, _rounded(params)
        # A loop whose result replaces its argument is not vectorised, so that goes by copies.
        in_place = x.size > _COPIED and np.may_share_memory(x, out)

        def part(begin: int, end: int) -> None:
            length = _COPIED if in_place else end - begin
            for start in range(begin, end, length):
                stop = min(start + length, end)
                piece = x[start:stop].copy() if in_place else x[start:stop]
                if params.random_bits:
                    assert key is not None
                    run(piece, out[start:stop], record, _address(key, first + start))
                else:
                    run(piece, out[start:stop], record)

        share(part, x.size)

    def encode(self, x: Patterns, out: Patterns, params: Params) -> None:
        if not x.size:
            return
        if is_exponent_only(params):
            share(lambda a, b: block_kernels.codes_of_powers(x[a:b], out[a:b]), x.size)
            return
        record = _record(params)
        share(lambda a, b: kernels.encode_any(x[a:b], out[a:b], record), x.size)

    def decode(self, codes: Patterns, out: Patterns, params: Params) -> None:
        if not codes.size:
            return
        if is_exponent_only(params):
            share(lambda a, b: block_kernels.powers_of_codes(codes[a:b], out[a:b]), codes.size)
            return
        if params.code_bits <= 8 or (params.code_bits <= 16 and codes.size >= _TABLE_PAYS):
            table = _decoded(params, out.dtype)
            share(lambda a, b: kernels.look_up(codes[a:b], out[a:b], table), codes.size)
        else:
            record = _record(params)
            share(lambda a, b: kernels.decode_any(codes[a:b], out[a:b], record), codes.size)

    def lanes(self, out: Patterns, key: Key, first: int = 0) -> None:
        fill = {
            1: kernels.fill_lanes_8,
            2: kernels.fill_lanes_16,
            4: kernels.fill_lanes_32,
        }[out.itemsize]
        if out.size:
            share(lambda a, b: fill(out[a:b], _address(key, first + a)), out.size)

    def add_noise(
        self,
        w: NDArray[np.floating[Any]],
        out: NDArray[np.floating[Any]],
        delta: NDArray[np.floating[Any]],
        noise: Noise,
        key: Key,
        first: int = 0,
    ) -> None:
        kind = {
            Noise.ROUNDED_GAUSSIAN: kernels.ROUNDED_GAUSSIAN,
            Noise.GAUSSIAN: kernels.GAUSSIAN,
            Noise.UNIFORM: kernels.UNIFORM,
        }[noise]
        table = _NO_TABLE
        if noise is Noise.GAUSSIAN:
            from fpemu.gaussian import table as gaussian_table

            table = gaussian_table()
        if w.size:
            share(
                lambda a, b: kernels.add_noise(
                    w[a:b], out[a:b], delta[a:b], kind, table, _address(key, first + a)
                ),
                w.size,
            )

    def hadamard(
        self, x: NDArray[np.floating[Any]], out: NDArray[np.floating[Any]], size: int
    ) -> None:
        tile = butterflies.TILE // x.itemsize
        strides = tuple(1 << stage for stage in range(min(size, tile).bit_length() - 1))
        scale = x.dtype.type(math.sqrt(1 / size))
        if size > tile:
            share(
                lambda a, b: butterflies.transform_rows(x[a:b], out[a:b], size, strides, scale),
                x.size,
                size,
            )
            return
        whole = x.size - x.size % tile
        share(
            lambda a, b: butterflies.transform_tiles(x[a:b], out[a:b], strides, scale),
            whole,
            tile,
        )
        if whole < x.size:
            last = np.zeros(tile, x.dtype)
            last[: x.size - whole] = x[whole:]
            butterflies.transform_tiles(last, last, strides, scale)
            out[whole:] = last[: x.size - whole]


_NO_TABLE = np.zeros(1, np.float32)
_STOCHASTIC = {8: kernels.stochastic_8, 16: kernels.stochastic_16, 32: kernels.stochastic_32}


def _address(key: Key, first: int) -> NDArray[np.uint64]:
    """The key as the kernels take it."""
    row = (key.row_length or 0, key.row_stride or 0)
    return np.array([key.seed, key.stream, key.offset, *row, first & _ONES], np.uint64)


@lru_cache(maxsize=1024)
def _record(params: Params) -> NDArray[np.uint64]:
    """The parameters in the kernels' layout."""
    pos, neg = params.mode_pos, params.mode_neg
    extra = {
        "emin_field": max(params.emin_field - FIELD_OFFSET, 0),
        "variant": max(pos - Mode.STOCHASTIC_A, 0),
        # where overflow is NaN, it starts at the limit
        "nan_from": params.limit_pos if params.over_pos == params.nan else params.infinity + 1,
        "plain": int(_is_plain_stochastic(params)),
        "half": _on(pos in (Mode.NEAREST_EVEN, Mode.NEAREST_AWAY, Mode.NEAREST_ZERO)),
        "minus": int(pos in (Mode.NEAREST_EVEN, Mode.NEAREST_ZERO)),
        "odd_up": int(pos == Mode.NEAREST_EVEN),
        "away_pos": _on(pos == Mode.AWAY),
        "away_neg": _on(neg == Mode.AWAY),
        "odd_mode": _on(pos == Mode.ODD),
    }
    fields = params._asdict() | extra
    return np.array([fields[name] for name in kernels.FIELDS], np.uint64)


def _on(flag: bool) -> int:
    return _ONES if flag else 0


@lru_cache(maxsize=1024)
def _plan(params: Params) -> tuple[NDArray[np.uint64], Callable[..., None]]:
    """The record and the fastest kernel that is right for it."""
    record = _record(params)
    if params.random_bits:
        return record, _STOCHASTIC[params.lane_bits]
    if is_plain_nearest_even(params):
        keeps_zero = params.tiny_neg == params.sign
        if keeps_zero and params.emin_field - FIELD_OFFSET == 1:
            return record, kernels.nearest_even_by_carry
        if by_addition(params, 23 if params.width == 16 else params.mc):
            if params.width > 16:
                return record, kernels.nearest_even_by_addition
            if params.mc == 7 and keeps_zero:
                return record, _bfloat16_pairs
    return record, kernels.round_any


@lru_cache(maxsize=16)
def _rounded(params: Params) -> Patterns:
    """The result for every pattern of a 16-bit container."""
    every = np.arange(1 << 16, dtype=np.uint16)
    table = np.empty_like(every)
    kernels.round_any(every, table, _record(params))
    return table


@lru_cache(maxsize=64)
def _decoded(params: Params, dtype: np.dtype[Any]) -> Patterns:
    """The value of every code, for codes of up to 16 bits."""
    every = np.arange(1 << params.code_bits, dtype=np.uint16)
    table = np.empty(every.size, dtype)
    kernels.decode_any(every, table, _record(params))
    return table


def _is_plain_stochastic(params: Params) -> bool:
    """Variant A of float32 patterns, symmetric, and no subnormal input can round away from 0."""
    return (
        params.mode_pos == Mode.STOCHASTIC_A
        and params.width == 32
        and is_symmetric(params)
        and params.tiny_neg == params.sign
        and params.quantum_field - 1 > params.mc + 32
    )


def _bfloat16_pairs(x: Patterns, out: Patterns, record: NDArray[np.uint64]) -> None:
    # The pairs are written in whole cache lines; what is before and after goes one by one.
    head = min(-out.ctypes.data % 64 // 2, x.size)
    end = head + (x.size - head & ~1)
    if (x.ctypes.data + 2 * head) % 4:
        head = end = 0
    for begin, stop in ((0, head), (end, x.size)):
        if begin < stop:
            kernels.round_any(x[begin:stop], out[begin:stop], record)
    if head < end:
        halves = x[head:end]
        kernels.nearest_even_bfloat16_pairs(
            halves.view(np.uint32), out[head:end].view(np.uint32), halves, record
        )


backend = NumbaBackend()
