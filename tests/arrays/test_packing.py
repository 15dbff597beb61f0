"""Packing: any width, any integers, one documented bit order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpemu
from fpemu.packing import PIECE, packed_size

WIDTHS = [*range(1, 18), 24, 31, 32, 33, 47, 48, 63, 64]


def random_codes(bits: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(bits)
    return rng.integers(0, 2**bits, count, np.uint64).astype(f"u{container(bits)}")


def container(bits: int) -> int:
    return next(n for n in (1, 2, 4, 8) if bits <= 8 * n)


@given(st.integers(1, 64), st.data())
def test_the_stream_is_the_codes_as_one_little_endian_number(bits, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))
    array = np.array(codes, f"u{container(bits)}")
    packed = fpemu.pack(array, bits)
    stream = sum(code << (i * bits) for i, code in enumerate(codes))
    assert packed.tobytes() == stream.to_bytes((len(codes) * bits + 7) // 8, "little")
    back = fpemu.unpack(packed, bits, len(codes))
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert np.array_equal(back, array)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("extra", [-9, -1, 0, 1, 8, 13])
def test_pieces_join_without_a_seam(bits, extra):
    codes = random_codes(bits, PIECE + extra)
    packed = fpemu.pack(codes, bits)
    assert packed.size == packed_size(codes.size, bits)
    assert np.array_equal(fpemu.unpack(packed, bits, codes.size), codes)
    # The second piece starts where a stream of the first ends.
    first = fpemu.pack(codes[: PIECE - 16], bits)
    assert np.array_equal(packed[: first.size], first)
    assert np.array_equal(packed[first.size :], fpemu.pack(codes[PIECE - 16 :], bits))


def test_the_documented_examples():
    assert fpemu.pack([0x1, 0x2, 0x3], 4).tolist() == [0x21, 0x03]
    assert fpemu.pack([0b000001, 0b000011, 0b000111, 0b100000], 6).tolist() == [
        0b11_000001, 0b0111_0000, 0b100000_00,
    ]  # fmt: skip
    assert fpemu.pack([1, 0, 0, 1, 1], 1).tolist() == [0b11001]
    assert fpemu.pack([0x1234], 16).tolist() == [0x34, 0x12]


@pytest.mark.parametrize("dtype", ["i1", "i2", ">i2", "i4", "i8", "u1", ">u2", "u4", ">u8"])
def test_any_integers_in_any_layout(dtype):
    codes = np.random.default_rng(0).integers(0, 16, (6, 7, 10))
    expected = fpemu.pack(codes, 4)
    array = codes.astype(dtype)
    array.flags.writeable = False
    assert np.array_equal(fpemu.pack(array, 4), expected)
    assert np.array_equal(fpemu.pack(np.asfortranarray(array), 4), expected)
    assert np.array_equal(fpemu.pack(np.repeat(array, 2, axis=1)[:, ::2], 4), expected)
    assert np.array_equal(fpemu.pack(array[::-1, :, ::-1].copy()[::-1, :, ::-1], 4), expected)
    assert np.array_equal(fpemu.unpack(np.repeat(expected, 2)[::2], 4, 420), codes.reshape(-1))


@pytest.mark.parametrize("bits", [1, 4, 6, 8, 12, 64])
def test_no_codes_are_no_bytes(bits):
    assert fpemu.pack(np.empty((3, 0), np.uint8), bits).shape == (0,)
    assert fpemu.unpack(np.empty(0, np.uint8), bits, 0).shape == (0,)


@pytest.mark.parametrize("bits", [3, 4, 6, 8, 11])
def test_only_bounded_pieces_are_allocated(bits):
    codes = random_codes(bits, 1 << 22)
    tracemalloc.start()
    packed = fpemu.pack(codes, bits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    back = fpemu.unpack(packed, bits, codes.size)
    peak_back = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < packed.nbytes + 16 * PIECE
    assert peak_back < packed.nbytes + back.nbytes + 16 * PIECE


def test_codes_that_do_not_fit_are_named():
    codes = np.zeros((3, PIECE), np.int16)
    codes[1, 5], codes[2, 7] = 16, -1
    with pytest.raises(ValueError, match=r"codes must fit 4 bits, got 16 at index \(1, 5\)"):
        fpemu.pack(codes, 4)
    codes[0, 9] = -3
    with pytest.raises(ValueError, match=r"codes must fit 4 bits, got -3 at index \(0, 9\)"):
        fpemu.pack(codes, 4)
    with pytest.raises(ValueError, match=r"codes must fit 63 bits"):
        fpemu.pack(np.array([2**63], np.uint64), 63)
    assert fpemu.pack(np.array([2**64 - 1], np.uint64), 64).tolist() == [255] * 8


def test_packing_refuses():
    packed = fpemu.pack([1, 2, 3], 4)
    for kind, words, call in (
        (ValueError, "codes must fit", lambda: fpemu.pack([-1], 4)),
        (ValueError, "codes must fit", lambda: fpemu.pack(np.array([-1], "i1"), 8)),
        (TypeError, "codes must be integers", lambda: fpemu.pack([1.0], 4)),
        (TypeError, "codes must be integers", lambda: fpemu.pack([], 4)),
        (TypeError, "codes must be integers", lambda: fpemu.pack([True], 4)),
        (ValueError, "bits must be in 1..64", lambda: fpemu.pack([1], 0)),
        (ValueError, "bits must be in 1..64", lambda: fpemu.unpack(packed, 65, 3)),
        (TypeError, "bits must be an int", lambda: fpemu.pack([1], True)),
        (ValueError, "must have 3 bytes for 5 codes of 4 bits, got 2",
         lambda: fpemu.unpack(packed, 4, 5)),
        (ValueError, "packed must have", lambda: fpemu.unpack(packed[:1], 4, 3)),
        (ValueError, "packed must have", lambda: fpemu.unpack(packed, 4, -3)),
        (ValueError, "stray bits", lambda: fpemu.unpack(packed | 0xF0, 4, 3)),
        (TypeError, "packed must be uint8", lambda: fpemu.unpack(packed.astype(int), 4, 3)),
        (TypeError, "count must be an int", lambda: fpemu.unpack(packed, 4, 3.0)),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            call()
