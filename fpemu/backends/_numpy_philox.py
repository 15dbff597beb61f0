"""Philox4x32-10 on NumPy arrays: the lanes of a key's elements."""

from __future__ import annotations

from functools import lru_cache
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
_WORD = 1 << 32

_LOW = np.array(0xFFFFFFFF, np.uint64)
_HALF = np.array(32, np.uint64)
_MULTIPLIER_0 = np.array(philox.MULTIPLIER_0, np.uint64)
_MULTIPLIER_1 = np.array(philox.MULTIPLIER_1, np.uint64)


def fill_lanes(out: NDArray[Any], key: Key, first: int) -> None:
    """Fill `out`, whose dtype is the lane width, with the lanes of elements ``first + j``."""
    length, stride = key.row_length, key.row_stride
    if length is None or stride is None:
        _run(out, key, key.index(first))
    elif length >= _LONG_ROW:
        done = 0
        while done < out.size:
            count = min(length - (first + done) % length, out.size - done)
            _run(out[done : done + count], key, key.index(first + done))
            done += count
    else:
        for start in range(0, out.size, _ELEMENTS):
            _gather(out[start : start + _ELEMENTS], key, first + start, length, stride)


def _run(out: NDArray[Any], key: Key, index: int) -> None:
    """Lanes of the consecutive global indices from `index` on, modulo 2**64."""
    per = 16 // out.itemsize
    done = 0
    while done < out.size:
        block, skip = divmod((index + done) % _INDICES, per)
        # Up to where the block number's high word changes: round 1 is cheaper for one such word.
        count = min(BLOCKS, _WORD - block % _WORD, -(-(skip + out.size - done) // per))
        low = np.arange(block % _WORD, block % _WORD + count, dtype=np.uint64)
        lanes = _lanes(low, np.uint64(block // _WORD), key, out.itemsize)[skip:]
        part = out[done : done + lanes.size]
        part[:] = lanes[: part.size]
        done += part.size


def _gather(out: NDArray[Any], key: Key, first: int, length: int, stride: int) -> None:
    """Lanes of elements in short rows: each run of equal block numbers is computed once."""
    per = 16 // out.itemsize
    column = first % length
    local = np.arange(column, column + out.size, dtype=np.uint64)
    row = local // np.uint64(length)
    # Global index: the start of the first row, and from there `stride` a row and one a column.
    index = local + row * np.uint64((stride - length) % _INDICES)
    index += np.uint64(key.index(first - column))
    place = index & np.uint64(per - 1)
    block = index // np.uint64(per)
    new = np.ones(out.size, np.bool_)
    np.not_equal(block[1:], block[:-1], new[1:])
    block = block[new]
    lanes = _lanes(block & _LOW, block >> _HALF, key, out.itemsize)
    place += (np.cumsum(new, dtype=np.uint64) - np.uint64(1)) * np.uint64(per)
    out[:] = lanes.take(place.view(np.int64))


def _lanes(low: Words, high: Words | np.uint64, key: Key, size: int) -> NDArray[Any]:
    """The lanes, `size` bytes each, of whole blocks of the key's stream, in order."""
    pairs = np.empty((low.size, 2), "<u8")
    c0, c1, c2, c3 = _philox(low, high, key)
    np.left_shift(c1, _HALF, c1)
    np.bitwise_or(c0, c1, pairs[:, 0])
    np.left_shift(c3, _HALF, c3)
    np.bitwise_or(c2, c3, pairs[:, 1])
    return pairs.view(f"<u{size}").reshape(-1)


def _philox(low: Words, high: Words | np.uint64, key: Key) -> tuple[Words, Words, Words, Words]:
    """`fpemu.philox.words` for blocks given as the low and the high word of their numbers.

    Words are held in 64 bits; the second and fourth result have more above, to be shifted out.
    """
    keys = _round_keys(key.seed)
    c0: Words = low
    c1: Any = high
    c2: Any = np.uint64(key.stream & 0xFFFFFFFF)
    c3: Any = np.uint64(key.stream >> 32)
    # Words that are the same for all blocks stay scalars for the first two rounds.
    for k0, k1 in keys[:2]:
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c2 = (p1 >> _HALF ^ c1 ^ k0) & _LOW, (p0 >> _HALF ^ c3 ^ k1) & _LOW
        c1, c3 = p1, p0
    p0, p1 = np.empty_like(low), np.empty_like(low)
    c3 = np.broadcast_to(c3, low.shape).copy()
    for k0, k1 in keys[2:]:
        np.multiply(c0, _MULTIPLIER_0, p0)
        np.multiply(c2, _MULTIPLIER_1, p1)
        np.right_shift(p1, _HALF, c0)
        np.bitwise_xor(c0, c1, c0)
        np.bitwise_xor(c0, k0, c0)
        np.bitwise_and(c0, _LOW, c0)
        np.right_shift(p0, _HALF, c2)
        np.bitwise_xor(c2, c3, c2)
        np.bitwise_xor(c2, k1, c2)
        np.bitwise_and(c2, _LOW, c2)
        # The low halves of the products are the new words; what is above is masked off later.
        c1, p1, c3, p0 = p1, c1, p0, c3
    return c0, c1, c2, c3


@lru_cache(maxsize=64)
def _round_keys(seed: int) -> tuple[tuple[NDArray[np.uint64], NDArray[np.uint64]], ...]:
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    keys = []
    for _ in range(philox.ROUNDS):
        keys.append((np.array(k0, np.uint64), np.array(k1, np.uint64)))
        k0, k1 = k0 + philox.WEYL_0 & 0xFFFFFFFF, k1 + philox.WEYL_1 & 0xFFFFFFFF
    return tuple(keys)
