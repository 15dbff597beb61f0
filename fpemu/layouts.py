"""Layouts of codes other than one stream: two segments of FP6, and bit planes.

4+2 (ZeroQuant(4+2), arXiv 2312.08583): a 6-bit code is a segment of 4 bits and one of 2, each
kind in an array of its own, so that loads are aligned. Here the high four bits, of E3M2 the sign
and the exponent, are one segment and the low two bits, the mantissa, the other; the papers leave
this open, and other software may cut elsewhere.

Bit planes: plane i holds bit i of all codes, as look-up kernels (T-MAC, arXiv 2407.00088) and
kernels of one-bit products want them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu.packing import (
    PIECE,
    check_bits,
    check_count,
    container,
    pack,
    packed_size,
    pieces,
    unpack,
)


class Segments(NamedTuple):
    """The streams of `split_4_2`: 4 and 2 bits a code, in the bit order of `fpemu.packing`."""

    high: NDArray[np.uint8]
    low: NDArray[np.uint8]


def split_4_2(codes: ArrayLike) -> Segments:
    """6-bit codes (any integer dtype and shape, C order) as packed high and low segments.

    Errors: TypeError for non-integers, ValueError for a code that does not fit 6 bits.
    """
    array = np.asarray(codes)
    high, low = (np.empty(packed_size(array.size, bits), np.uint8) for bits in (4, 2))
    for first, piece in pieces(array, 6):
        last = first + piece.size
        high[first // 2 : packed_size(last, 4)] = pack(piece >> 2, 4)
        low[first // 4 : packed_size(last, 2)] = pack(piece & 3, 2)
    return Segments(high, low)


def join_4_2(high: ArrayLike, low: ArrayLike, count: int) -> NDArray[np.uint8]:
    """The `count` codes, uint8, of the segments of `split_4_2`.

    Errors: as `fpemu.unpack`, for either segment.
    """
    codes: NDArray[np.uint8] = unpack(high, 4, count)
    codes <<= 2
    codes |= unpack(low, 2, count)
    return codes


def to_bit_planes(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Codes of `bits` bits (any integer dtype and shape, C order) as an array of planes.

    Returns uint8 of shape (bits, ceil(count / 8)). Plane i holds bit i of every code, code k at
    bit ``k % 8`` of byte ``k // 8``; the last byte is padded with zeros.
    Errors: TypeError for non-integers, ValueError for `bits` outside 1..64 or a code that does
    not fit (its index is named).
    """
    bits, array = check_bits(bits), np.asarray(codes)
    planes = np.empty((bits, packed_size(array.size, 1)), np.uint8)
    for first, piece in pieces(array, bits):
        for i, plane in enumerate(planes):
            bit = piece >> piece.dtype.type(i) & piece.dtype.type(1)
            plane[first // 8 : packed_size(first + piece.size, 1)] = pack(bit, 1)
    return planes


def from_bit_planes(planes: ArrayLike, bits: int, count: int) -> NDArray[Any]:
    """The `count` codes of the planes of `to_bit_planes`, in the smallest unsigned dtype.

    Errors: TypeError if `planes` is not uint8, ValueError for `bits` outside 1..64, a negative
    `count`, another shape than (bits, ceil(count / 8)), or padding that is not zero.
    """
    bits, count, array = check_bits(bits), check_count(count), np.asarray(planes)
    if array.dtype != np.uint8:
        raise TypeError(f"planes must be uint8, got dtype {array.dtype}")
    expected = bits, packed_size(max(count, 0), 1)
    if count < 0 or array.shape != expected:
        raise ValueError(
            f"planes must have shape {expected} for {count} codes of {bits} bits, got {array.shape}"
        )
    codes = np.zeros(count, container(bits).newbyteorder("="))
    for first in range(0, count, PIECE):
        size = min(PIECE, count - first)
        place = codes[first : first + size]
        for i, plane in enumerate(array):
            bit = unpack(plane[first // 8 : packed_size(first + size, 1)], 1, size)
            place |= bit.astype(codes.dtype) << codes.dtype.type(i)
    return codes
