"""Mistakes that other emulators make with blocks, as data: each row must come out right here.

Which library errs where is in the comments; the inputs are the ones that show it.
"""

from __future__ import annotations

import numpy as np
import pytest

import fpemu
from fpemu.blocks import NAMES, BlockFormat
from fpemu.quantized import compress
from fpemu.testing import bits

F = np.float32
INF, NAN = float("inf"), float("nan")
MAX = float(np.finfo(F).max)
MX = ["mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8"]
RULES = ["floor", "ceil", "even", "rceil"]
NAMED = [*MX, "nvfp4", "nvint4", "msfp12"]


def padded(*values: float, length: int = 32) -> np.ndarray:
    return np.array([*values, *[0.0] * (length - len(values))], F)


def scale_exponent(x: np.ndarray, fmt: str, backend: str) -> int:
    """The exponent of the scale of the only block."""
    stored = compress(x, fmt, backend=backend)
    assert stored.scales is not None
    return int(stored.scales[0]) - 127


# ------------------------------------------------------------------------- special blocks


@pytest.mark.parametrize("name", NAMED)
def test_zero_block(backend: str, name: str) -> None:
    """torchao makes NaN of a tensor of zeros in NVFP4, microxcaling loses the sign of zeros."""
    x = np.zeros((3, 32), F)
    x[1] = -0.0
    stored = compress(x, name, backend=backend)
    assert stored.scales is not None
    assert not stored.scales.any()
    element = BlockFormat.parse(name).element
    expected = x if element.has_negative_zero else np.zeros_like(x)
    assert np.array_equal(bits(fpemu.quantize(x, name, backend=backend)), bits(expected))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_one_bad_element_costs_its_block_alone(backend: str, name: str, bad: float) -> None:
    """torchao: one infinity and finite neighbours of another scale; with NVFP4's tensor scale the
    whole tensor becomes NaN. Here: a NaN scale, and blocks beside it as if it were not there."""
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(F)
    x[2, 37] = bad
    got = fpemu.quantize(x, name, backend=backend)
    length = BlockFormat.parse(name).block
    assert isinstance(length, int)
    first = 37 // length * length
    inside = np.zeros(x.shape, bool)
    inside[2, first : first + length] = True
    assert np.isnan(got[inside]).all()
    without = np.where(inside, 0, x)
    assert np.array_equal(got[~inside], fpemu.quantize(without, name, backend=backend)[~inside])


@pytest.mark.parametrize("spelling", ["e2m1[32,fp16]", "e2m1[32,ue5m3finite]", "e4m3fn[32,e5m2]"])
def test_bad_blocks_need_a_scale_that_says_so(backend: str, spelling: str) -> None:
    x = padded(1, NAN)
    if BlockFormat.parse(spelling).nan_scale:
        assert np.isnan(fpemu.quantize(x, spelling, backend=backend)).all()
    else:
        with pytest.raises(ValueError, match="has no NaN to say so"):
            fpemu.quantize(x, spelling, backend=backend)


@pytest.mark.parametrize("rule", RULES)
def test_subnormal_block(backend: str, rule: str) -> None:
    """torchao halves what lies below 2**-126 times the element's emax (floor, ceil, even) or makes
    it zero (rceil): it divides by another number than it multiplies by."""
    fmt = f"e2m1[4,e8m0,{rule}]"
    x = np.array([2.0**-126, -(2.0**-127), 1.5 * 2.0**-127, 2.0**-128], F)
    assert fpemu.quantize(x, fmt, backend=backend).tolist() == x.tolist()
    least = np.array([2.0**-149, -(2.0**-149), 0, 0], F)
    expected = [0.0, -0.0, 0.0, 0.0]
    assert np.array_equal(bits(fpemu.quantize(least, fmt, backend=backend)), bits(F(expected)))
    assert fpemu.quantize(least.astype(float), fmt, backend=backend).tolist() == expected


def test_small_blocks_of_nvfp4_keep_their_scale(backend: str) -> None:
    """torchao lets no block scale fall below 2**-6, E4M3's smallest normal, so that they vanish."""
    x = np.zeros((2, 16), F)
    x[0, 0], x[1] = 2688, 6 * 2.0**-9
    got = fpemu.quantize(x, "nvfp4", backend=backend)
    assert np.array_equal(got, x)
    smaller = x / 4  # a quarter of E4M3's smallest scale rounds to 0
    assert not fpemu.quantize(smaller[1:], "nvfp4", amax=2688, backend=backend).any()


def test_tiny_tensors_of_nvfp4_stay_finite(backend: str) -> None:
    """The reciprocal of torchao's tensor scale is infinite here, and its zeros become -1.5 t s."""
    x = padded(1e-40, 0.0, -0.0, 5e-41, length=16)
    got = fpemu.quantize(x, "nvfp4", backend=backend)
    assert got[1:3].tolist() == [0.0, -0.0]
    assert np.abs(got - x).max() < 2e-41


# --------------------------------------------------------------------- exponents of scales


@pytest.mark.parametrize("rule", RULES)
def test_maximum_next_to_a_power_of_two(backend: str, rule: str) -> None:
    """For every k: microxcaling takes log2 in float32 and errs below 2**k, torchao's rceil above;
    gfloat takes it in float64 and errs there for float64 data."""
    fmt = BlockFormat("e2m1", 1, "e8m0", rule)  # type: ignore[arg-type]
    k = np.arange(-120, 126)
    for dtype in (F, np.float64):
        one = dtype(1)
        power = np.ldexp(one, k)
        for x, floor in ((power, k), (np.nextafter(power, 2 * power), k)):
            above = x > power
            expected = {"floor": floor - 2, "even": floor - 2, "ceil": k + above - 2}
            # a / 6 lies in [2/3, 4/3) of 2**(k - 2), and so below 2**(k - 2)
            expected["rceil"] = k - 2
            assert exponents(x, fmt, backend).tolist() == expected[rule].tolist()
        x = np.nextafter(power, dtype(0))
        expected = {"floor": k - 3, "even": k - 2, "ceil": k - 2, "rceil": k - 2}
        assert exponents(x, fmt, backend).tolist() == expected[rule].tolist()
        six = 6 * power[:-3]
        rising = np.nextafter(six, dtype(np.inf))
        if rule == "rceil":
            assert exponents(six, fmt, backend).tolist() == k[:-3].tolist()
            assert exponents(rising, fmt, backend).tolist() == (k[:-3] + 1).tolist()


def exponents(x: np.ndarray, fmt: BlockFormat, backend: str) -> np.ndarray:
    stored = compress(x, fmt, backend=backend)
    assert stored.scales is not None
    return stored.scales.astype(int) - 127


@pytest.mark.parametrize("rule", RULES)
def test_scales_end_where_e8m0_ends(backend: str, rule: str) -> None:
    """The largest float: torchao's product is infinite with ceil, even and rceil, though the value
    is finite. 2**-149, zero: code 0. Codes above 254 mean NaN and are for NaN alone."""
    fmt = f"e2m1[32,e8m0,{rule}]"
    x = padded(MAX, -MAX, 1)
    got = fpemu.quantize(x, fmt, backend=backend)
    assert np.isfinite(got).all()
    if rule == "floor":
        assert got[0] == 6 * 2.0**125
    else:  # 4 * 2**126 is beyond float32
        assert got[:2].tolist() == [MAX, -MAX]
    assert scale_exponent(padded(2.0**-149), fmt, backend) == -127
    assert scale_exponent(padded(0), fmt, backend) == -127
    assert scale_exponent(padded(NAN), fmt, backend) == 128


def test_scale_of_integers_at_the_top(backend: str) -> None:
    """microxcaling's MXINT8 makes NaN of a block whose largest is just below 2**128."""
    got = fpemu.quantize(padded(MAX, 1e38), "mxint8", backend=backend)
    assert np.isfinite(got).all()
    assert got[0] == 127 / 64 * 2.0**127


# -------------------------------------------------------------------------------- elements


def test_halves_and_just_under_half(backend: str) -> None:
    """microxcaling rounds halves away by default, and 0.24999999 of E2M1's 0.5 up."""
    under = float(np.nextafter(F(0.25), F(0)))
    over = float(np.nextafter(F(0.25), F(1)))
    x = padded(4, 0.25, under, -under, over, 0.75, -1.25, 2.5, 5)
    expected = [4, 0, 0, -0.0, 0.5, 1, -1, 2, 4]
    got = fpemu.quantize(x, "mxfp4", backend=backend)[:9]
    assert np.array_equal(bits(got), bits(F(expected)))


@pytest.mark.parametrize("name", NAMED)
def test_negative_zero_and_tiny_negatives(backend: str, name: str) -> None:
    """microxcaling: -0 becomes +0 while tiny negatives become -0, also in integers."""
    x = padded(1, -0.0, -1e-30, 1e-30)
    got = fpemu.quantize(x, name, backend=backend)[1:4]
    signs = BlockFormat.parse(name).element.has_negative_zero
    assert got.tolist() == [0, 0, 0]
    assert np.signbit(got).tolist() == [signs, signs, False]


@pytest.mark.parametrize("name", NAMED)
def test_no_infinity_and_no_nan_from_finite_data(backend: str, name: str) -> None:
    """Whatever finite floats come: microxcaling returns infinities in FP4, torchao in all."""
    rng = np.random.default_rng(3)
    for dtype in (F, np.float16, np.float64):
        width = 8 * np.dtype(dtype).itemsize
        patterns = rng.integers(0, 1 << 64, 1 << 12, np.uint64).astype(f"u{width // 8}")
        x = patterns.view(dtype)
        x = np.where(np.isfinite(x), x, dtype(1))
        assert np.isfinite(fpemu.quantize(x, name, backend=backend)).all()


@pytest.mark.parametrize("name", ["mxint8", "nvint4", "msfp12"])
def test_integers_are_symmetric(backend: str, name: str) -> None:
    """The lowest code of two's complement, which biases gradients, is never used."""
    x = -np.abs(np.random.default_rng(0).standard_normal((64, 32)).astype(F))
    for rounding in ("nearest_even", "toward_negative"):
        codes = compress(x, name, rounding=rounding, backend=backend).element_codes()
        element = BlockFormat.parse(name).element
        assert not (codes == 1 << (element.bits - 1)).any()
        down = fpemu.quantize(x, name, rounding=rounding, backend=backend)
        mirror = rounding.replace("negative", "positive")
        assert np.array_equal(down, -fpemu.quantize(-x, name, rounding=mirror, backend=backend))


# ------------------------------------------------------------------------- shapes and axes


@pytest.mark.parametrize("name", NAMED)
def test_ragged_tail(backend: str, name: str) -> None:
    """torchao refuses lengths that are no multiple of the block."""
    x = np.random.default_rng(2).standard_normal((3, 100)).astype(F)
    full = np.zeros((3, 128), F)
    full[:, :100] = x
    got = fpemu.quantize(x, name, backend=backend)
    assert np.array_equal(got, fpemu.quantize(full, name, backend=backend)[:, :100])


@pytest.mark.parametrize("name", NAMED)
def test_every_axis(backend: str, name: str) -> None:
    """A backward pass reduces over other axes than the forward one: torchao and microxcaling's
    kernels have the last axis, or one, in mind."""
    x = np.random.default_rng(2).standard_normal((33, 20, 50)).astype(F)
    for axis in range(-3, 3):
        moved = np.moveaxis(x, axis, -1)
        expected = np.moveaxis(fpemu.quantize(moved, name, backend=backend), -1, axis)
        assert np.array_equal(fpemu.quantize(x, name, axis=axis, backend=backend), expected)


@pytest.mark.parametrize("name", [*NAMES])
def test_any_array(backend: str, name: str) -> None:
    """Empty, 0-d, read-only, strided, Fortran order, every dtype: works."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for shape in ((0,), (0, 5), (5, 0), (1,)):
        assert fpemu.quantize(np.ones(shape, F), name, backend=backend).shape == shape
    assert fpemu.quantize(np.array(1.0, F), name, backend=backend).shape == ()
    assert isinstance(fpemu.quantize(1.0, name, backend=backend), float)
    x = np.random.default_rng(0).standard_normal((40, 70)).astype(F)
    expected = fpemu.quantize(x, name, backend=backend)
    odd = np.asfortranarray(x)
    odd.flags.writeable = False
    assert np.array_equal(fpemu.quantize(odd, name, backend=backend), expected)
    wide = np.zeros((80, 140), F)
    wide[::2, ::-2] = x
    assert np.array_equal(fpemu.quantize(wide[::2, ::-2], name, backend=backend), expected)
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16):
        got = fpemu.quantize(x.astype(dtype), name, backend=backend)
        assert got.dtype == dtype
    assert fpemu.quantize(np.arange(64), name, backend=backend).dtype == np.float64


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "mxint8"])
def test_shards_draw_what_the_whole_draws(backend: str, name: str) -> None:
    """Stochastic rounding elsewhere differs by shard, by call order and when compiled."""
    x = np.random.default_rng(6).standard_normal((8, 128)).astype(F)
    amax = float(np.abs(x).max()) if name == "nvfp4" else None
    options = {"rounding": "stochastic", "amax": amax, "backend": backend}
    whole = fpemu.quantize(x, name, key=fpemu.Key(5), **options)
    again = fpemu.quantize(x, name, key=5, **options)
    assert np.array_equal(whole, again)
    rows = fpemu.quantize(x[4:], name, key=fpemu.Key(5, offset=4 * 128), **options)
    assert np.array_equal(rows, whole[4:])
    key = fpemu.Key(5, offset=64, row_length=64, row_stride=128)
    right = np.ascontiguousarray(x[:, 64:])
    assert np.array_equal(fpemu.quantize(right, name, key=key, **options), whole[:, 64:])
    other = fpemu.quantize(x, name, key=6, **options)
    assert not np.array_equal(other, whole)
