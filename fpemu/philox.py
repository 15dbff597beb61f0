"""Philox4x32-10 on Python ints, and the address of a draw.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
ROUNDS = 10

_MASK = 0xFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """The four 32-bit words of one block; `counter` and `key` are 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (p1 >> 32) ^ c1 ^ k0,
            p1 & _MASK,
            (p0 >> 32) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + WEYL_0) & _MASK, (k1 + WEYL_1) & _MASK
    return c0, c1, c2, c3


def words(seed: int, stream: int, block: int) -> tuple[int, int, int, int]:
    """Block number `block` of a stream; all three are 64-bit, taken low word first."""
    counter = (block & _MASK, block >> 32, stream & _MASK, stream >> 32)
    return philox(counter, (seed & _MASK, seed >> 32))


def lane(seed: int, stream: int, index: int, lane_bits: int) -> int:
    """The lane of element `index`: lanes run from the low bits of word 0 upward."""
    per_block = 128 // lane_bits
    block, place = divmod(index % (1 << 64), per_block)
    word, within = divmod(place * lane_bits, 32)
    return words(seed, stream, block)[word] >> within & ((1 << lane_bits) - 1)
