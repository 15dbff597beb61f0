"""The verbs on block formats: dtypes, out, axes, shapes, shards, storage, and bad input."""

from __future__ import annotations

import json
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpemu
from fpemu import Key, Rounding
from fpemu.blocks import NAMES, BlockFormat
from fpemu.quantized import Quantized, compress
from fpemu.testing import BlockReference, bits
from fpemu.testing import strategies as fst
from fpemu.testing._block_geometry import grid_of
from fpemu.testing._patterns import is_nan, widen

X = (np.random.default_rng(3).standard_normal((6, 40)) * 3).astype(np.float32)
KEY = Key(11, 2)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bits(a).tolist() == bits(b).tolist()


def definition(x: np.ndarray, spelling: str, axis: int = -1) -> np.ndarray:
    return BlockReference().quantize(
        x, BlockFormat.parse(spelling), Rounding.NEAREST_EVEN, KEY, axis
    )


# ------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "mxfp8_e5m2", "int8[channel,fp32]"])
def test_dtypes_stay(backend: str, dtype: str, fmt: str) -> None:
    x = X.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    got = fpemu.quantize(x, fmt, backend=backend)
    assert same(got, definition(x, fmt))
    assert got.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64"])
def test_integers_become_float64(backend: str, dtype: str) -> None:
    x = np.arange(96).reshape(3, 32).astype(dtype)
    got = fpemu.quantize(x, "mxfp4", backend=backend)
    assert same(got, fpemu.quantize(x.astype(np.float64), "mxfp4", backend=backend))
    assert compress(x, "mxfp4").dtype == "float64"


def test_narrow_results_are_rounded_once_and_finite(backend: str) -> None:
    """A product may be beyond float16, or between its numbers."""
    x = np.array([60000, 65504, 3e-7, 6e-8, 1, 2], np.float16)
    got = fpemu.quantize(x, "e4m3fn[6,e8m0,ceil]", backend=backend)
    assert same(got, definition(x, "e4m3fn[6,e8m0,ceil]"))
    assert np.isfinite(got).all()
    assert got[1] == 65504  # 2**16 is not a float16
    wide = fpemu.quantize(x.astype(np.float32), "e4m3fn[6,e8m0,ceil]", backend=backend)
    assert wide[1] == 2**16
    thirds = np.array([1, 2, 3, 5, 7, 100], ml_dtypes.bfloat16)
    got = fpemu.quantize(thirds, "int8[6,fp32]", backend=backend)
    wide = fpemu.quantize(thirds.astype(np.float32), "int8[6,fp32]", backend=backend)
    assert same(got, wide.astype(ml_dtypes.bfloat16))
    assert (widen(got) != wide).any()


def test_another_dtype_can_be_asked_for(backend: str) -> None:
    x = X.astype(np.float64)
    got = fpemu.quantize(x, "mxfp4", dtype="bfloat16", backend=backend)
    assert same(got, definition(x, "mxfp4").astype(ml_dtypes.bfloat16))
    wide = fpemu.quantize(X, "mxfp4", dtype="float64", backend=backend)
    assert same(wide, definition(X, "mxfp4").astype(np.float64))


def test_lists_and_scalars(backend: str) -> None:
    assert fpemu.quantize([1.0, 2.9, -7.0], "mxfp4", backend=backend).tolist() == [1.0, 3.0, -6.0]
    one = fpemu.quantize(5.1, "mxfp4", backend=backend)
    assert isinstance(one, float)
    assert one == 6.0 or one == 4.0
    zero_d = fpemu.quantize(np.array(5.0, np.float32), "e2m1[tensor,fp32]", backend=backend)
    assert zero_d.shape == ()
    assert zero_d == 5


# ---------------------------------------------------------------------------- out


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "e2m1[4x4,e8m0]", "e2m1[tensor,fp32]"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_out(backend: str, fmt: str, dtype: type) -> None:
    x = X.astype(dtype)
    expected = fpemu.quantize(x, fmt, backend=backend)
    out = np.full_like(x, 9)
    assert fpemu.quantize(x, fmt, out=out, backend=backend) is out
    assert same(out, expected)
    strided = np.zeros((6, 80), dtype)[:, ::2]
    fpemu.quantize(x, fmt, out=strided, backend=backend)
    assert same(np.ascontiguousarray(strided), expected)
    alias = x.copy()
    fpemu.quantize(alias, fmt, out=alias, backend=backend)
    assert same(alias, expected)
    turned = np.asfortranarray(x)
    fpemu.quantize(turned, fmt, out=turned, backend=backend)
    assert same(np.ascontiguousarray(turned), expected)


@pytest.mark.parametrize(
    ("out", "kind", "words"),
    [
        (np.zeros((6, 41), np.float32), ValueError, r"out must have shape \(6, 40\)"),
        (np.zeros((6, 40)), TypeError, "out must have dtype float32, got float64"),
        ([0.0], TypeError, "out must be a NumPy array, got list"),
        (np.broadcast_to(np.float32(0), (6, 40)), ValueError, "out must be writeable"),
    ],
)
def test_wrong_out(out: object, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        fpemu.quantize(X, "mxfp4", out=out)


def test_overlapping_out_is_refused() -> None:
    store = np.zeros(300, np.float32)
    x, out = store[:240].reshape(6, 40), store[7:247].reshape(6, 40)
    with pytest.raises(ValueError, match="out must be x itself or not overlap it"):
        fpemu.quantize(x, "mxfp4", out=out)


def test_refusals_leave_out_as_it_was(backend: str) -> None:
    out = np.full((6, 40), 9, np.float32)
    for options in ({"axis": 2}, {"rounding": "stochastic"}, {"amax": 3}):
        with pytest.raises(ValueError, match="must be"):
            fpemu.quantize(X, "mxfp4", out=out, backend=backend, **options)
    assert (out == 9).all()


# ---------------------------------------------------------------------- axes, shapes


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("fmt", ["e2m1[5,e8m0]", "int8[channel,fp32]", "e2m1[4,e4m3fn,fp32]"])
def test_any_axis(backend: str, axis: int, fmt: str) -> None:
    x = X.reshape(6, 5, 8)
    got = fpemu.quantize(x, fmt, axis=axis, backend=backend)
    assert same(got, definition(x, fmt, axis))
    stored = compress(x, fmt, axis=axis, backend=backend)
    assert same(stored.dequantize(backend=backend), got)
    assert stored.scales is not None
    assert stored.scales.shape == grid_of(x.shape, BlockFormat.parse(fmt), axis)


@pytest.mark.parametrize(
    ("fmt", "shape", "grid"),
    [
        ("mxfp4", (70,), (3,)),
        ("mxfp4", (), (1,)),
        ("mxfp4", (3, 0), (3, 0)),
        ("mxfp4", (0, 3), (0, 1)),
        ("e2m1[16x16,e8m0]", (40, 20), (3, 2)),
        ("e2m1[16x16,e8m0]", (40,), (3,)),
        ("e2m1[16x16,e8m0]", (2, 5, 40, 20), (2, 5, 3, 2)),
        ("e2m1[16x16,e8m0]", (0, 20), (0, 2)),
        ("e2m1[128x128,e8m0]", (3, 4), (1, 1)),
        ("e2m1[tensor,fp32]", (3, 4, 5), ()),
        ("e2m1[tensor,fp32]", (0,), ()),
        ("e2m1[tensor,fp32]", (), ()),
        ("e2m1[channel,fp32]", (3, 7), (7,)),
        ("e2m1[channel,fp32]", (9,), (9,)),
        ("nvfp4", (2, 3, 17), (2, 3, 2)),
        ("nvfp4", (0,), (0,)),
    ],
)
def test_shapes(backend: str, fmt: str, shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    x = np.resize(X, shape).astype(np.float32)
    got = fpemu.quantize(x, fmt, backend=backend)
    assert got.shape == shape
    if x.size:
        assert same(np.asarray(got), definition(x, fmt))
    stored = compress(x, fmt, backend=backend)
    assert stored.scales is not None
    assert stored.scales.shape == grid
    assert same(np.asarray(stored.dequantize(backend=backend)), np.asarray(got))


def test_a_vector_is_one_row_of_tiles(backend: str) -> None:
    row = fpemu.quantize(X[:1], "e2m1[4x8,e8m0]", backend=backend)
    assert same(fpemu.quantize(X[0], "e2m1[4x8,e8m0]", backend=backend), row[0])


def test_views(backend: str) -> None:
    frozen = X[::-1, ::-2].copy()
    frozen.flags.writeable = False
    for fmt in ("mxfp4", "nvfp4", "e2m1[4x4,e8m0]", "int8[channel,fp32]"):
        expected = fpemu.quantize(frozen, fmt, backend=backend)
        assert same(fpemu.quantize(X[::-1, ::-2], fmt, backend=backend), expected)
        swapped = frozen.astype(frozen.dtype.newbyteorder())
        assert same(fpemu.quantize(swapped, fmt, backend=backend), expected)


def test_long_rows_are_cut_into_pieces(backend: str) -> None:
    """Beyond what is worked on at a time, and at lengths that no piece divides."""
    x = np.resize(X.reshape(-1), (2, 200_003))
    x[1] *= np.float32(0.01)
    for fmt in ("mxfp4", "nvfp4", "e2m1[32x32,e8m0]", "e2m1[tensor,fp32]"):
        got = fpemu.quantize(x, fmt, rounding="stochastic:8", key=KEY, backend=backend)
        tail = np.ascontiguousarray(x[:, 199_968:])  # a multiple of 32
        key = Key(KEY.seed, KEY.stream, 199_968, row_length=35, row_stride=200_003)
        amax = float(np.abs(x).max()) if fmt == "nvfp4" else None
        if fmt == "e2m1[tensor,fp32]":
            assert np.isin(np.abs(got / np.abs(got).max()), np.array(
                [0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32) / 6).mean() > 0.99  # fmt: skip
            continue
        part = fpemu.quantize(
            tail, fmt, rounding="stochastic:8", key=key, amax=amax, backend=backend
        )
        assert same(part, np.ascontiguousarray(got[:, 199_968:]))


def test_the_whole_range_of_a_batch_dtype(backend: str) -> None:
    x = np.resize(X, (3, 300, 170)).astype(np.float16)
    got = fpemu.quantize(x, "mxfp8_e4m3", axis=1, backend=backend)
    alone = np.stack([fpemu.quantize(m, "mxfp8_e4m3", axis=0, backend=backend) for m in x])
    assert same(got, alone)


# ------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("fmt", "options", "kind", "words"),
    [
        ("mxfp4", {"axis": 2}, ValueError, r"axis must be in -2\.\.1 for shape \(6, 40\), got 2"),
        ("mxfp4", {"axis": -3}, ValueError, r"axis must be in -2\.\.1"),
        ("e2m1[4x4,e8m0]", {"axis": 0}, ValueError, r"axis must be -1 with blocks of \(4, 4\)"),
        ("e2m1[tensor,fp32]", {"axis": 0}, ValueError, "axis must be -1 with blocks of tensor"),
        ("mxfp4", {"amax": 3.0}, ValueError, "amax must be None for mxfp4, which has no outer"),
        ("nvfp4", {"amax": -1.0}, ValueError, "amax must be finite and at least 0, got -1.0"),
        ("nvfp4", {"amax": float("nan")}, ValueError, "amax must be finite"),
        ("nvfp4", {"amax": float("inf")}, ValueError, "amax must be finite"),
        ("nvfp4", {"amax": "x"}, TypeError, "amax must be a number, got str 'x'"),
        ("mxfp4", {"bits": 4}, ValueError, "bits goes with pseudo rounding to a Format"),
        ("mxfp4", {"policy": "sat_finite"}, ValueError, "policy must be"),
        ("mxfp4", {"policy": fpemu.Policy()}, ValueError, "policy must be"),
        ("mxfp4", {"rounding": "stochastic"}, ValueError, "key must be given"),
        ("mxfp4", {"rounding": "pseudo_gaussian:4"}, ValueError, "single values"),
        ("mxfp4", {"rounding": "up"}, ValueError, "rounding must be one of"),
        ("mxfp4", {"key": 1.5}, TypeError, "key must be a Key or an int seed"),
        ("mxfp4", {"backend": "fortran"}, ValueError, "backend must be one of"),
        ("mxfp4", {"dtype": "int8"}, TypeError, "dtype must be float64"),
        ("mxfp5", {}, ValueError, "mxfp5"),
    ],
)
def test_refused_arguments(fmt: str, options: dict, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        fpemu.quantize(X, fmt, **options)
    if "dtype" not in options and "bits" not in options:
        with pytest.raises(kind, match=words):
            compress(X, fmt, **options)


@pytest.mark.parametrize("dtype", [bool, np.complex64, "U3", object])
def test_refused_dtypes(dtype: object) -> None:
    with pytest.raises(TypeError, match="x must be float64, float32, float16"):
        fpemu.quantize(np.zeros((2, 2), dtype), "mxfp4")


def test_a_scalar_has_no_channels() -> None:
    with pytest.raises(ValueError, match="x must have an axis for one scale per channel"):
        fpemu.quantize(np.float32(3), "e2m1[channel,fp32]")


def test_amax_goes_with_outer_scales_only() -> None:
    for fmt in ("e4m3fn", "hif8"):
        with pytest.raises(ValueError, match="amax must be None"):
            fpemu.quantize(X, fmt, amax=1.0)


def test_encode_and_decode_point_to_compress() -> None:
    with pytest.raises(ValueError, match=r"compress\(x, 'mxfp4'\) stores one"):
        fpemu.encode(X, "mxfp4")
    with pytest.raises(ValueError, match=r"Quantized\.dequantize reads one"):
        fpemu.decode(np.zeros(4, np.uint8), "mxfp4")


@pytest.mark.parametrize("fmt", ["e2m1[8,e5m2b3fn]", "e2m1[8,none]", "int8[8,int8]"])
def test_nan_without_a_nan_scale(backend: str, fmt: str) -> None:
    """int8 and absent scales cannot mark a block; the format with NaN can."""
    x = X.copy()
    x[2, 17] = np.nan
    spec = BlockFormat.parse(fmt)
    if spec.nan_scale:
        assert is_nan(fpemu.quantize(x, fmt, backend=backend)).sum() == 8
        return
    for call in (fpemu.quantize, compress):
        with pytest.raises(ValueError, match="x must not hold NaN or infinities") as caught:
            call(x, fmt, backend=backend)
        assert "no NaN to say so" in str(caught.value)


def test_nan_in_outer_blocks(backend: str) -> None:
    """The outer scale is that of the other blocks; all bad: every value is NaN."""
    x = X.copy()
    x[0, 0] = np.inf
    got = fpemu.quantize(x, "nvfp4", backend=backend)
    assert is_nan(got).sum() == 16
    assert same(got[1:], definition(x, "nvfp4")[1:])
    bad = np.full((2, 16), np.nan, np.float32)
    assert is_nan(fpemu.quantize(bad, "nvfp4", backend=backend)).all()
    stored = compress(bad, "nvfp4", backend=backend)
    assert stored.outer == 0
    assert not stored.element_codes().any()


# --------------------------------------------------------------------------- shards


@pytest.mark.parametrize(
    ("first", "length"), [(0, 16), (16, 24), (32, 8), (0, 40), (8, 32), (24, 16)]
)
def test_shards_of_whole_blocks(backend: str, first: int, length: int) -> None:
    whole = fpemu.quantize(X, "e2m1[8,e8m0]", rounding="stochastic:8", key=KEY, backend=backend)
    key = Key(KEY.seed, KEY.stream, first, row_length=length, row_stride=40)
    part = X[:, first : first + length]
    got = fpemu.quantize(part, "e2m1[8,e8m0]", rounding="stochastic:8", key=key, backend=backend)
    assert same(got, np.ascontiguousarray(whole[:, first : first + length]))


@pytest.mark.parametrize(("first", "length"), [(4, 16), (0, 12), (12, 8), (1, 39)])
def test_a_shard_that_cuts_a_block_is_refused(first: int, length: int) -> None:
    key = Key(KEY.seed, KEY.stream, first, row_length=length, row_stride=40)
    part = X[:, first : first + length]
    with pytest.raises(ValueError, match=f"key must not cut blocks of 8 columns: .* {length}"):
        fpemu.quantize(part, "e2m1[8,e8m0]", rounding="stochastic:8", key=key)
    down = fpemu.quantize(part, "e2m1[3,e8m0]", rounding="stochastic:8", key=key, axis=0)
    assert down.shape == part.shape  # blocks down the columns are not cut


def test_the_last_shard_may_be_ragged(backend: str) -> None:
    whole = fpemu.quantize(X, "e2m1[16,e8m0]", rounding="stochastic:8", key=KEY, backend=backend)
    key = Key(KEY.seed, KEY.stream, 32, row_length=8, row_stride=40)
    got = fpemu.quantize(
        X[:, 32:], "e2m1[16,e8m0]", rounding="stochastic:8", key=key, backend=backend
    )
    assert same(got, np.ascontiguousarray(whole[:, 32:]))


def test_keys_of_repeated_rows(backend: str) -> None:
    """A row stride of 0: every row draws what the first one draws."""
    x = np.repeat(X[:1], 5, axis=0)
    key = Key(3, row_length=40, row_stride=0)
    got = fpemu.quantize(x, "mxfp4", rounding="stochastic:8", key=key, backend=backend)
    assert (got == got[0]).all()


def test_amax_of_the_whole_is_passed_in(backend: str) -> None:
    whole = fpemu.quantize(X, "nvfp4", backend=backend)
    amax = float(np.abs(X).max())
    for rows in (slice(0, 2), slice(2, 6)):
        got = fpemu.quantize(X[rows], "nvfp4", amax=amax, backend=backend)
        assert same(got, whole[rows])
        stored = compress(X[rows], "nvfp4", amax=amax, backend=backend)
        assert same(stored.dequantize(backend=backend), whole[rows])
    zeros = fpemu.quantize(X, "nvfp4", amax=0, backend=backend)
    assert not zeros.any()
    assert np.signbit(zeros).tolist() == np.signbit(X).tolist()


# -------------------------------------------------------------------------- storage

# Bytes of a (64, 64) array, and bits of an element in the long run.
SIZES = {
    "mxfp4": (4096 * 4 // 8 + 128, Fraction(17, 4)),
    "mxfp6_e3m2": (4096 * 6 // 8 + 128, Fraction(25, 4)),
    "mxfp6_e2m3": (4096 * 6 // 8 + 128, Fraction(25, 4)),
    "mxfp8_e4m3": (4096 + 128, Fraction(33, 4)),
    "mxfp8_e5m2": (4096 + 128, Fraction(33, 4)),
    "mxint8": (4096 + 128, Fraction(33, 4)),
    "nvfp4": (4096 * 4 // 8 + 256 + 4, Fraction(9, 2)),
    "nvint4": (4096 * 4 // 8 + 256 + 4, Fraction(9, 2)),
    "msfp12": (4096 * 4 // 8 + 256, Fraction(9, 2)),
    "msfp13": (4096 * 5 // 8 + 256, Fraction(11, 2)),
    "msfp14": (4096 * 6 // 8 + 256, Fraction(13, 2)),
    "msfp15": (4096 * 7 // 8 + 256, Fraction(15, 2)),
    "msfp16": (4096 + 256, Fraction(17, 2)),
}


@pytest.mark.parametrize("name", NAMES)
def test_exact_sizes(name: str) -> None:
    stored = compress(np.ones((64, 64), np.float32), name)
    nbytes, per_element = SIZES[name]
    assert stored.nbytes == nbytes
    outer = 4 if NAMES[name].outer else 0
    assert stored.bytes_per_element == Fraction(nbytes, 4096)
    assert 8 * Fraction(nbytes - outer, 4096) == per_element == NAMES[name].bits_per_element()


@pytest.mark.parametrize(
    ("fmt", "shape", "nbytes"),
    [
        ("mxfp4", (1, 33), 17 + 2),
        ("mxfp6_e3m2", (3,), 3 + 1),
        ("e2m1[16x16,e8m0]", (17, 17), 145 + 4),
        ("e2m1[tensor,fp32]", (3, 3), 5 + 4),
        ("e2m1[tensor,bf16]", (0,), 0 + 2),
        ("int8[channel,fp32]", (5, 7), 35 + 28),
        ("e4m3fn[8,none]", (3, 5), 15),
        ("e2m1[4,ue5m3]", (10,), 5 + 3),
        ("e2m1[8,e3m2]", (4, 16), 32 + 6),
        ("e4m3fn", (3, 5), 15),
        ("e2m1", (3,), 2),
        ("nf4", (5,), 3),
        ("mxfp4", (0, 5), 0),
    ],
)
def test_sizes_of_ragged_arrays(fmt: str, shape: tuple[int, ...], nbytes: int) -> None:
    stored = compress(np.zeros(shape, np.float32), fmt)
    assert stored.nbytes == nbytes
    size = int(np.prod(shape))
    assert stored.bytes_per_element == (Fraction(nbytes, size) if size else 0)


@given(st.data())
def test_what_is_stored_is_what_is_quantized(data: st.DataObject) -> None:
    fmt = data.draw(fst.block_formats())
    dtype = data.draw(st.sampled_from(("float32", "float64", "float16", "bfloat16")))
    x = data.draw(fst.blocks(fmt, dtype, finite=not fmt.nan_scale))
    rounding = data.draw(fst.roundings())
    arguments = {"rounding": rounding, "key": KEY}
    stored = compress(x, fmt, **arguments)
    assert same(stored.dequantize(), fpemu.quantize(x, fmt, **arguments))
    again = Quantized(fmt, x.shape, stored.codes, stored.scales, stored.outer, -1, stored.dtype)
    assert same(again.dequantize(), stored.dequantize())
    assert stored.nbytes <= x.size * 8 + 8 * x.size + 4


def test_dequantize_to_other_dtypes(backend: str) -> None:
    stored = compress(X, "mxfp8_e4m3", backend=backend)
    values = stored.dequantize(backend=backend)
    assert values.dtype == np.float32
    for dtype in ("float64", "float16", ml_dtypes.bfloat16):
        got = stored.dequantize(dtype, backend=backend)
        assert same(got, values.astype(dtype))
    out = np.empty_like(X)
    assert stored.dequantize(out=out, backend=backend) is out
    assert same(out, values)
    strided = np.zeros((6, 80), np.float32)[:, ::2]
    stored.dequantize(out=strided, backend=backend)
    assert same(np.ascontiguousarray(strided), values)
    with pytest.raises(ValueError, match=r"out must have shape \(6, 40\)"):
        stored.dequantize(out=np.empty((40, 6), np.float32))
    with pytest.raises(TypeError, match="dtype must be float64"):
        stored.dequantize("int8")


def test_parts_of_a_stored_array() -> None:
    x = np.array([[12.0, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, -0.0]], np.float32)
    stored = compress(x, "e2m1[4,e8m0]")
    # 12 = 6 * 2, so the scale is 2: code 128; e2m1: 6 is 7, -0.5 is 9, 0.25 rounds to 0.
    assert stored.element_codes().tolist() == [[7, 9, 0, 0], [0, 0, 0, 8]]
    assert stored.codes.tolist() == [0x97, 0x00, 0x00, 0x80]
    assert stored.scales is not None
    assert stored.scales.tolist() == [[128], [0]]
    scales = stored.scale_values()
    assert scales is not None
    assert scales.tolist() == [[2.0], [2.0**-127]]
    assert stored.dequantize().tolist() == [[12.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert np.signbit(stored.dequantize()[1, 3])
    assert (stored.size, stored.element_bits, stored.outer, stored.axis) == (8, 4, None, -1)
    assert repr(stored) == (
        "Quantized('e2m1[4,e8m0]', shape=(2, 4), dtype=float32, 6 bytes, 6 bits per element)"
    )
    html = stored._repr_html_()
    for text in ("e2m1[4,e8m0]", "2x4", "float32"):
        assert text in html
    assert compress(x, "e4m3fn[8,none]").scale_values() is None


def test_positive_axes_are_kept_from_the_end() -> None:
    stored = compress(X, "mxfp4", axis=0)
    assert stored.axis == -2
    assert same(stored.dequantize(), fpemu.quantize(X, "mxfp4", axis=0))


CODES, SCALES = np.zeros(8, np.uint8), np.zeros((4, 1), np.uint8)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({}, None, ""),
        (
            {"codes": CODES[:7]},
            ValueError,
            "codes must be 8 bytes .uint8. for shape .4, 4. of e2m1",
        ),
        ({"codes": CODES.astype(np.int8)}, ValueError, "codes must be 8 bytes .uint8.*got int8"),
        ({"codes": CODES.reshape(2, 4)}, ValueError, "codes must be 8 bytes"),
        ({"scales": None}, ValueError, r"scales must be uint8 \(4, 1\) for .*, got None"),
        ({"scales": SCALES.T}, ValueError, r"scales must be uint8 \(4, 1\).*got uint8 \(1, 4\)"),
        ({"scales": SCALES.astype(np.uint16)}, ValueError, "scales must be uint8.*got uint16"),
        ({"outer": 1.0}, ValueError, "outer must not be given for"),
        ({"spec": "e2m1[16,e4m3fn,absmax,fp32]"}, ValueError, "outer must be given for"),
        ({"spec": "e2m1"}, ValueError, "scales and outer must be None for e2m1"),
        ({"spec": "e2m1[16,none]"}, ValueError, "scales and outer must be None"),
        ({"axis": 2}, ValueError, "axis must be in"),
        ({"dtype": "int8"}, TypeError, "dtype must be float64"),
        ({"spec": "mxfp5"}, ValueError, "mxfp5"),
    ],
)
def test_parts_must_fit(fields: dict, kind: type | None, words: str) -> None:
    parts = {"spec": "e2m1[16,e8m0]", "shape": (4, 4), "codes": CODES, "scales": SCALES, **fields}
    if kind is None:
        assert not Quantized(**parts).dequantize().any()
        return
    with pytest.raises(kind, match=words):
        Quantized(**parts)


def test_what_compress_refuses() -> None:
    with pytest.raises(ValueError, match="pseudo"):
        compress(X, "bf16", rounding="pseudo_gaussian:ulp", key=1)
    with pytest.raises(ValueError, match="key must be given"):
        compress(X, "mxfp4", rounding="stochastic")
    with pytest.raises(TypeError, match="x must be"):
        compress(np.zeros(3, bool), "mxfp4")


def test_specs_are_json() -> None:
    for name in NAMES:
        text = json.dumps(compress(X, name).spec.to_dict())
        assert BlockFormat.from_dict(json.loads(text)) == NAMES[name]


def test_the_lowest_element_overflows_to_a_finite_value(backend: str) -> None:
    """-128 times a scale under which 127 is still in range."""
    top = np.finfo(np.float32).max
    x = np.array([-top, top, 1], np.float32)
    for fmt in ("int8[3,e8m0]", "int4[3,e8m0]", "int8[tensor,e8m0]"):
        got = fpemu.quantize(x, fmt, backend=backend)
        assert got[0] == -top
        assert same(got, definition(x, fmt))
        assert same(compress(x, fmt, backend=backend).dequantize(backend=backend), got)
