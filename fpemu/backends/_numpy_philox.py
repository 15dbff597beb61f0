"""Philox4x32-10 on NumPy arrays: the lanes of a key's elements."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu import philox
from fpemu.keys import Key

Words: TypeAlias = NDArray[np.uint64]

# Blocks computed together: enough to spread the cost of NumPy's calls, few enough for the cache.
BLOCKS = 8192
# Rows at least this long are runs of their own; shorter ones are gathered.
_LONG_ROW = 1 << 14
_ELEMENTS = 1 << 14
_INDICES = 1 << 64

_LOW = np.array(0xFFFFFFFF, np.uint64)
_HALF = np.array(32, np.uint64)
_MULTIPLIER_0 = np.array(philox.MULTIPLIER_0, np.uint64)
_MULTIPLIER_1 = np.array(philox.MULTIPLIER_1, np.uint64)


def fill_lanes(out: NDArray[Any], key: Key, first: int) -> None:
    """Fill `out`, whose dtype is the lane width, with the lanes of elements ``first + j``."""
    if key.row_length is None or key.row_stride is None:
        _run(out, key, key.index(first))
    elif key.row_length >= _LONG_ROW:
        done = 0
        while done < out.size:
            left_in_row = key.row_length - (first + done) % key.row_length
            count = min(left_in_row, out.size - done)
            _run(out[done : done + count], key, key.index(first + done))
            done += count
    else:
        for start in range(0, out.size, _ELEMENTS):
            _gather(out[start : start + _ELEMENTS], key, first + start)


def _run(out: NDArray[Any], key: Key, index: int) -> None:
    """Lanes of the consecutive global indices from `index` on, modulo 2**64."""
    per = 16 // out.itemsize
    block, skip = divmod(index, per)
    done = 0
    while done < out.size:
        count = min(BLOCKS * per - skip, out.size - done)
        blocks = np.arange(-(-(skip + count) // per), dtype=np.uint64)
        blocks += np.uint64(block)
        blocks &= np.uint64(_INDICES // per - 1)
        lanes = _lanes(blocks, key, out.itemsize)
        out[done : done + count] = lanes[skip : skip + count]
        done += count
        block, skip = (block + BLOCKS) % (_INDICES // per), 0


def _gather(out: NDArray[Any], key: Key, first: int) -> None:
    """Lanes of elements in short rows: each run of equal block numbers is computed once."""
    assert key.row_length is not None and key.row_stride is not None
    per = 16 // out.itemsize
    column = first % key.row_length
    local = np.arange(column, column + out.size, dtype=np.uint64)
    row, within = np.divmod(local, np.uint64(key.row_length))
    start = np.uint64(key.index(first - column))
    index = start + row * np.uint64(key.row_stride) + within
    block, place = np.divmod(index, np.uint64(per))
    new = np.empty(out.size, np.bool_)
    new[:1] = True
    np.not_equal(block[1:], block[:-1], new[1:])
    lanes = _lanes(block[new], key, out.itemsize).reshape(-1, per)
    out[:] = lanes[np.cumsum(new) - 1, place]


def _lanes(blocks: Words, key: Key, size: int) -> NDArray[Any]:
    """The lanes, `size` bytes each, of whole blocks of the key's stream, in order."""
    pairs = np.empty((blocks.size, 2), "<u8")
    c0, c1, c2, c3 = _philox(blocks, key)
    np.left_shift(c1, _HALF, c1)
    np.bitwise_or(c0, c1, pairs[:, 0])
    np.left_shift(c3, _HALF, c3)
    np.bitwise_or(c2, c3, pairs[:, 1])
    return pairs.view(f"<u{size}").reshape(-1)


def _philox(blocks: Words, key: Key) -> tuple[Words, Words, Words, Words]:
    """`fpemu.philox.words` for an array of block numbers; 32-bit words held in 64 bits."""
    c0, c1 = blocks & _LOW, blocks >> _HALF
    c2 = np.full_like(blocks, key.stream & 0xFFFFFFFF)
    c3 = np.full_like(blocks, key.stream >> 32)
    p0, p1 = np.empty_like(blocks), np.empty_like(blocks)
    k0, k1 = key.seed & 0xFFFFFFFF, key.seed >> 32
    for _ in range(philox.ROUNDS):
        np.multiply(c0, _MULTIPLIER_0, p0)
        np.multiply(c2, _MULTIPLIER_1, p1)
        np.right_shift(p1, _HALF, c0)
        np.bitwise_xor(c0, c1, c0)
        np.bitwise_xor(c0, np.uint64(k0), c0)
        np.bitwise_and(p1, _LOW, c1)
        np.right_shift(p0, _HALF, c2)
        np.bitwise_xor(c2, c3, c2)
        np.bitwise_xor(c2, np.uint64(k1), c2)
        np.bitwise_and(p0, _LOW, c3)
        k0 = k0 + philox.WEYL_0 & 0xFFFFFFFF
        k1 = k1 + philox.WEYL_1 & 0xFFFFFFFF
    return c0, c1, c2, c3
