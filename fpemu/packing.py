"""Packing: codes of any width 1..64 as a stream of bits.

Bit order: the stream is little-endian throughout. Bit k of code i is bit ``i * bits + k`` of the
stream, and bit n of the stream is bit ``n % 8`` of byte ``n // 8``. Two 4-bit codes share a byte
low nibble first, and four 6-bit codes fill three bytes. The last byte is padded with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GROUPS = 1 << 13  # groups of 8 codes handled at a time; a group fills exactly `bits` bytes


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take."""
    return (count * bits + 7) // 8


def pack(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """The bytes of `codes` (any integer dtype and shape, C order), `bits` bits each.

    Returns a 1-D uint8 array of ``packed_size(codes.size, bits)`` bytes.
    Errors: TypeError for non-integers, ValueError for `bits` outside 1..64 or a code that does
    not fit (its index is named).
    """
    bits = _check_bits(bits)
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"codes must be integers, got dtype {array.dtype}")
    flat = array.reshape(-1)
    out = np.empty(packed_size(flat.size, bits), np.uint8)
    for first in range(0, flat.size, 8 * _GROUPS):
        piece = flat[first : first + 8 * _GROUPS]
        _check_fits(piece, bits, first, array.shape)
        unsigned = piece.astype(f"<u{_container_bytes(bits)}")
        planes = np.unpackbits(
            unsigned.view(np.uint8).reshape(piece.size, -1), axis=1, bitorder="little", count=bits
        )
        start = first // 8 * bits
        packed = np.packbits(planes.reshape(-1), bitorder="little")
        out[start : start + packed.size] = packed
    return out


def unpack(packed: ArrayLike, bits: int, count: int) -> NDArray[Any]:
    """The first `count` codes of a stream that `pack` wrote, in the smallest unsigned dtype.

    Errors: TypeError if `packed` is not uint8, ValueError for `bits` outside 1..64, a negative
    `count`, a stream of the wrong length, or padding that is not zero.
    """
    bits = _check_bits(bits)
    stream = np.ascontiguousarray(packed)
    if stream.dtype != np.uint8:
        raise TypeError(f"packed must be uint8, got dtype {stream.dtype}")
    stream = stream.reshape(-1)
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise TypeError(f"count must be an int, got {type(count).__name__} {count!r}")
    count = int(count)
    if count < 0 or stream.size != packed_size(count, bits):
        raise ValueError(
            f"packed must have {packed_size(max(count, 0), bits)} bytes for {count} codes "
            f"of {bits} bits, got {stream.size}"
        )
    used = count * bits % 8
    if used and stream[-1] >> used:
        raise ValueError("packed must be padded with zero bits, got stray bits in its last byte")
    width = _container_bytes(bits)
    out = np.empty(count, f"<u{width}")
    for first in range(0, count, 8 * _GROUPS):
        size = min(8 * _GROUPS, count - first)
        start = first // 8 * bits
        piece = stream[start : start + packed_size(size, bits)]
        planes = np.unpackbits(piece, bitorder="little", count=size * bits).reshape(size, bits)
        full = np.packbits(planes, axis=1, bitorder="little")
        padded = np.zeros((size, width), np.uint8)
        padded[:, : full.shape[1]] = full
        out[first : first + size] = padded.reshape(-1).view(out.dtype)
    return out.astype(out.dtype.newbyteorder("="), copy=False)


def _container_bytes(bits: int) -> int:
    return next(n for n in (1, 2, 4, 8) if bits <= 8 * n)


def _check_bits(bits: int) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        raise TypeError(f"bits must be an int, got {type(bits).__name__} {bits!r}")
    if not 1 <= bits <= 64:
        raise ValueError(f"bits must be in 1..64, got {bits}")
    return int(bits)


def _check_fits(piece: NDArray[Any], bits: int, first: int, shape: tuple[int, ...]) -> None:
    wrong = piece < 0 if piece.dtype.kind == "i" else np.zeros(piece.shape, bool)
    if bits < 8 * piece.dtype.itemsize:
        wrong = wrong | (piece > (1 << bits) - 1)
    if wrong.any():
        at = int(wrong.argmax())
        index = tuple(int(i) for i in np.unravel_index(first + at, shape))
        raise ValueError(f"codes must fit {bits} bits, got {piece[at]} at index {index}")
