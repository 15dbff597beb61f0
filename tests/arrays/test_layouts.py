"""The 4+2 split and bit planes: what lies where, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpemu
from fpemu.layouts import from_bit_planes, join_4_2, split_4_2, to_bit_planes
from fpemu.packing import PIECE


def test_the_split_cuts_e3m2_between_exponent_and_mantissa():
    codes = np.arange(64)
    high, low = split_4_2(codes)
    assert np.array_equal(fpemu.unpack(high, 4, 64), codes >> 2)
    assert np.array_equal(fpemu.unpack(low, 2, 64), codes & 3)
    values = fpemu.decode(codes.astype("u1"), "e3m2").reshape(16, 4)
    normal = values[1:8]  # one row a high segment, positive
    assert np.array_equal(normal, normal[:, :1] * [1, 1.25, 1.5, 1.75])
    assert np.array_equal(values[8:], -values[:8])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 101, PIECE - 1, PIECE + 5, 3 * PIECE])
def test_the_split_comes_back(count):
    codes = np.random.default_rng(count).integers(0, 64, count, np.uint8)
    high, low = split_4_2(codes)
    assert (high.size, low.size) == ((count + 1) // 2, (count + 3) // 4)
    back = join_4_2(high, low, count)
    assert back.dtype == np.uint8
    assert np.array_equal(back, codes)


@given(st.integers(1, 64), st.data())
def test_plane_i_holds_bit_i_of_every_code(bits, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    planes = to_bit_planes(np.array(codes, np.uint64), bits)
    assert planes.dtype == np.uint8
    assert planes.shape == (bits, (len(codes) + 7) // 8)
    for i, plane in enumerate(planes):
        wanted = sum((code >> i & 1) << k for k, code in enumerate(codes))
        assert plane.tobytes() == wanted.to_bytes(plane.size, "little")
    back = from_bit_planes(planes, bits, len(codes))
    assert back.dtype == fpemu.unpack(np.empty(0, np.uint8), bits, 0).dtype
    assert back.tolist() == codes


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 11, 16, 33])
@pytest.mark.parametrize("count", [PIECE - 3, PIECE, 2 * PIECE + 9])
def test_planes_of_many_codes_come_back(bits, count):
    codes = np.random.default_rng(bits).integers(0, 2**bits, count, np.uint64)
    assert np.array_equal(from_bit_planes(to_bit_planes(codes, bits), bits, count), codes)


def test_planes_are_a_product_of_one_bit_products():
    """What the layout is for: sum of 2**i times the counts of plane i."""
    codes = np.random.default_rng(0).integers(0, 16, 64, np.uint8)
    planes = to_bit_planes(codes, 4)
    counts = np.unpackbits(planes, axis=1).sum(axis=1, dtype=int)
    assert (counts << np.arange(4)).sum() == codes.sum(dtype=int)


def test_layouts_refuse():
    high, low = split_4_2([1, 2, 3])
    planes = to_bit_planes([1, 2, 3], 2)
    for kind, words, call in (
        (ValueError, r"codes must fit 6 bits, got 64 at index \(1,\)", lambda: split_4_2([1, 64])),
        (TypeError, "codes must be integers", lambda: split_4_2([1.0])),
        (ValueError, "packed must have", lambda: join_4_2(high, low, 5)),
        (ValueError, "packed must have", lambda: join_4_2(high, low[:0], 3)),
        (ValueError, "stray bits", lambda: join_4_2(high, low | 0xC0, 3)),
        (ValueError, "codes must fit 2 bits", lambda: to_bit_planes([4], 2)),
        (ValueError, "bits must be in 1..64", lambda: to_bit_planes([1], 65)),
        (TypeError, "codes must be integers", lambda: to_bit_planes([0.5], 2)),
        (TypeError, "planes must be uint8", lambda: from_bit_planes(planes.astype(int), 2, 3)),
        (ValueError, r"planes must have shape \(2, 2\)", lambda: from_bit_planes(planes, 2, 9)),
        (ValueError, r"planes must have shape \(3, 1\)", lambda: from_bit_planes(planes, 3, 3)),
        (ValueError, "planes must have shape", lambda: from_bit_planes(planes, 2, -1)),
        (ValueError, "stray bits", lambda: from_bit_planes(planes | 8, 2, 3)),
        (TypeError, "count must be an int", lambda: from_bit_planes(planes, 2, 3.0)),
    ):
        with pytest.raises(kind, match=words):
            call()
