"""What a review of block formats and their storage found: arguments, shards, errors, files."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import fpemu
from fpemu import BlockFormat, Key, Quantized, compress, quantize
from fpemu.table_format import TableFormat


def gaussian(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("axis", [1.0, True, None, "0"])
@pytest.mark.parametrize("verb", [quantize, compress])
def test_an_axis_that_is_no_int_is_named(verb, axis):
    with pytest.raises(TypeError, match="axis must be an int"):
        verb(gaussian(4, 64), "mxfp4", axis=axis)


@pytest.mark.parametrize("axis", [np.int64(0), np.int8(-2)])
def test_numpy_integers_as_axis_are_stored_as_ints(tmp_path, axis):
    stored = compress(gaussian(4, 64), "mxfp4", axis=axis)
    stored.save(tmp_path / "a.npz")
    assert Quantized.load(tmp_path / "a.npz").axis == -2


@pytest.mark.parametrize("amax", ["3", True, b"1", [1.0, 2.0]])
def test_an_amax_that_is_no_number_is_named(amax):
    with pytest.raises(TypeError, match="amax must be a number"):
        quantize(gaussian(16), "nvfp4", amax=amax)


@pytest.mark.parametrize("policy", [None, "torchao"])
def test_an_amax_beyond_float32_is_refused_for_float32(policy):
    with pytest.raises(ValueError, match="amax must be finite in float32"):
        quantize(gaussian(16), "nvfp4", amax=1e300, policy=policy)
    quantize(gaussian(16).astype(np.float64), "nvfp4", amax=1e300)


def test_a_shard_of_a_middle_axis_cuts_no_block():
    whole = gaussian(4, 6, 20)
    expected = quantize(whole, "e2m1[16,e8m0]", rounding="stochastic", key=7)
    key = Key(7, offset=3 * 20, row_length=3 * 20, row_stride=6 * 20)
    shard = quantize(whole[:, 3:], "e2m1[16,e8m0]", rounding="stochastic", key=key)
    assert (shard == expected[:, 3:]).all()
    cut = Key(7, offset=8, row_length=12, row_stride=20)
    with pytest.raises(ValueError, match="key must not cut blocks"):
        quantize(whole[:, :, 8:], "e2m1[16,e8m0]", rounding="stochastic", key=cut)


@pytest.mark.parametrize("fmt", ["e2m1[16,none]", "e2m1[16,e3m2]", "int8[tensor,int8]"])
def test_a_refused_nan_leaves_out_and_x_alone(fmt, backend):
    x = gaussian(64)
    x[40] = np.nan
    before, out = x.copy(), np.full_like(x, 9)
    for target in (out, x):
        with pytest.raises(ValueError, match="x must not hold NaN or infinities"):
            quantize(x, fmt, out=target, backend=backend)
    assert (out == 9).all()
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize("fmt", ["e2m1[16,none]", "e2m1[16,e3m2]", "int8[tensor,int8]"])
def test_without_a_nan_scale_out_may_still_be_x(fmt, backend):
    x = gaussian(4, 32)
    expected = quantize(x, fmt, backend=backend)
    assert quantize(x, fmt, out=x, backend=backend) is x
    assert x.tobytes() == expected.tobytes()


def test_table_formats_refuse_backends_that_are_not_there():
    for call in (
        lambda: quantize(gaussian(4), "nf4", backend="nonsense"),
        lambda: fpemu.encode(gaussian(4), "nf4", backend="nonsense"),
        lambda: fpemu.decode([1, 2], "nf4", backend="nonsense"),
    ):
        with pytest.raises(ValueError, match="backend must be one of"):
            call()
    assert (quantize(gaussian(4), "nf4", backend="numba") == quantize(gaussian(4), "nf4")).all()


@pytest.mark.parametrize("fmt", ["bf16", "nf4"])
def test_compress_refuses_a_dtype_that_could_not_be_given_back(fmt):
    x = gaussian(8).astype(np.float16)
    for verb in (quantize, compress):
        with pytest.raises(ValueError, match="x of dtype float16 cannot hold every value"):
            verb(x, fmt)
    assert fpemu.report(x, fmt).count == 8
    assert compress(np.arange(8), fmt).dequantize().dtype == np.float64


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (TableFormat("thirds", (0, Fraction(1, 3), -1, 1)), "float32 holds"),
        (TableFormat("positive", (0, 1, 2, 3)), "have a sign"),
    ],
)
def test_tables_that_cannot_be_scaled_are_refused(element, message):
    with pytest.raises(ValueError, match=f"element must .*{message}"):
        BlockFormat(element, 16, "e4m3fn")


def test_symmetric_must_be_a_bool():
    with pytest.raises(TypeError, match="symmetric must be a bool"):
        BlockFormat("int4", 16, "e8m0", symmetric="no")


@pytest.mark.parametrize("block", [10**22, (4, 10**22)])
def test_lengths_beyond_64_bits_are_refused(block):
    with pytest.raises(ValueError, match=r"block must be at most 2\*\*40"):
        BlockFormat("e2m1", block, "e8m0")
    x = gaussian(3, 5)
    assert (quantize(x, f"e2m1[{2**40},e8m0]") == quantize(x, "e2m1[5,e8m0]")).all()


# ------------------------------------------------------------------- Quantized


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["f4", np.float32, "bf16", ">f8"])
def test_any_spelling_of_a_dtype_is_stored_so_that_it_loads(tmp_path, kind, dtype):
    x = compress(gaussian(64), "mxfp4")
    stored = Quantized(x.spec, x.shape, x.codes, x.scales, dtype=dtype)
    path = tmp_path / f"a.{kind}"
    stored.save(path)
    assert Quantized.load(path).dtype == stored.dtype
    assert stored.dtype in ("float32", "bfloat16", "float64")


def test_an_outer_scale_may_be_a_numpy_number(tmp_path):
    parts = (16,), np.zeros(8, np.uint8), np.zeros(1, np.uint8)
    stored = Quantized("nvfp4", *parts, outer=np.float32(0.5))
    stored.save(tmp_path / "a.npz")
    assert Quantized.load(tmp_path / "a.npz").outer == 0.5
    with pytest.raises(TypeError, match="outer must be a number"):
        Quantized("nvfp4", *parts, outer="1")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"shape": (-2, -2)}, ValueError, "shape must be of numbers from 0 on"),
        ({"shape": (2.7, 2)}, TypeError, "shape must be an int"),
        ({"shape": 4}, TypeError, "shape must be a tuple of ints"),
        ({"codes": [1, 2]}, TypeError, "codes must be a NumPy array"),
        ({"scales": [1]}, TypeError, "scales must be a NumPy array"),
        ({"axis": "0"}, TypeError, "axis must be an int"),
        ({"shape": (3,), "codes": np.full(2, 255, np.uint8)}, ValueError, "stray bits"),
    ],
)
def test_parts_that_cannot_be_are_refused_by_name(changes, error, message):
    parts = {"spec": "e2m1", "shape": (4,), "codes": np.zeros(2, np.uint8)}
    Quantized(**parts)
    with pytest.raises(error, match=message):
        Quantized(**{**parts, **changes})


def test_dequantize_checks_out():
    stored = compress(gaussian(64), "mxfp4")
    with pytest.raises(TypeError, match="out must be a NumPy array"):
        stored.dequantize(out=[1.0])
    for spec in ("mxfp4", "e4m3fn"):
        with pytest.raises(TypeError, match="out must have dtype float64"):
            compress(gaussian(64), spec).dequantize(np.float64, out=np.empty(64, np.float32))


def test_scales_are_refused_where_there_are_none():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    elements = np.zeros((2, 2), ml_dtypes.float8_e4m3fn)
    with pytest.raises(ValueError, match="scales must be None for e4m3fn"):
        Quantized.from_ml_dtypes(elements, np.ones(2, ml_dtypes.float8_e8m0fnu), "e4m3fn")
