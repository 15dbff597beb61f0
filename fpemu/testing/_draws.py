"""The random integers that a key addresses, for whole arrays.

A second spelling of `fpemu.philox`, on NumPy words, so that an adapter of a foreign quantizer
can be given the same draws, and so that laws can say what each element must have drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fpemu import philox
from fpemu.keys import Key, as_key
from fpemu.rounding import Stochastic

Words = NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def indices(key: Key, count: int) -> Words:
    """The global indices of local elements 0..count-1, modulo 2**64."""
    local = np.arange(count, dtype=np.uint64)
    offset = np.uint64(key.offset)
    if key.row_length is None or key.row_stride is None:
        return local + offset
    row, column = np.divmod(local, np.uint64(key.row_length))
    return row * np.uint64(key.row_stride) + column + offset


def blocks(key: Key, numbers: Words) -> tuple[Words, Words, Words, Words]:
    """The four words of each Philox block whose number is given."""
    c0, c1 = numbers & _LOW, numbers >> _HALF
    c2 = np.full_like(numbers, key.stream & 0xFFFFFFFF)
    c3 = np.full_like(numbers, key.stream >> 32)
    k0, k1 = key.seed & 0xFFFFFFFF, key.seed >> 32
    for _ in range(philox.ROUNDS):
        p0, p1 = c0 * np.uint64(philox.MULTIPLIER_0), c2 * np.uint64(philox.MULTIPLIER_1)
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + philox.WEYL_0) & 0xFFFFFFFF, (k1 + philox.WEYL_1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def lanes(key: Key | int, count: int, lane_bits: int) -> NDArray[np.int64]:
    """The lanes, 8, 16 or 32 bits wide, of local elements 0..count-1 of a call."""
    address = as_key(key)
    per_block = np.uint64(128 // lane_bits)
    block, place = np.divmod(indices(address, count), per_block)
    numbers, inverse = np.unique(block, return_inverse=True)
    words = np.stack(blocks(address, numbers))
    bit = place * np.uint64(lane_bits)
    word = words[(bit // _HALF).astype(np.intp), inverse.reshape(-1)]
    lane = word >> (bit % _HALF) & np.uint64((1 << lane_bits) - 1)
    return lane.astype(np.int64)


def draws(key: Key | int, count: int, rounding: Stochastic) -> NDArray[np.int64]:
    """What elements 0..count-1 draw for `rounding`: the top `rounding.bits` bits of their lanes."""
    return lanes(key, count, rounding.lane_bits) >> (rounding.lane_bits - rounding.bits)
