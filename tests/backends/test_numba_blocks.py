"""The numba kernels of block formats give the bits of the NumPy passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fpemu import arrays, backends
from fpemu.block_lowering import ScaleMode, lower_elements, lower_scaling
from fpemu.blocks import BlockFormat
from fpemu.keys import Key
from fpemu.lowering import FLOAT32
from fpemu.quantized import Quantized, compress
from fpemu.rounding import Rounding

if reason := backends.why_not("numba"):
    pytest.skip(reason, allow_module_level=True)

import numba

from fpemu.backends import _numba_block_plans as plans
from fpemu.backends import _numba_blocks as kernels

NUMPY, NUMBA = backends.get("numpy"), backends.get("numba")

# One of each: powers of two, quotients by scales of many and of few bits, an outer scale, elements
# without -0, two's complement, what no kernel does (m = 0, an absmax of E8M0, asymmetric integers)
SPECS = [
    *("mxfp4", "nvfp4", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvint4", "msfp12", "bfp(8,20)"),
    *("e2m1[32,e8m0,rceil]", "e2m1[32,e8m0,even]", "e4m3fn[32,e8m0,ceil]", "e2m1[16,fp32]"),
    *("e2m1[32,e8m0,four_thirds]", "e2m1[20,bf16]", "e4m3fnuz[32,e8m0]", "e2m1[16,e4m3fn,floor]"),
    *("e2m1[16,e4m3fn,even,fp32]", "e4m3fn[7,e5m2,absmax,bf16]", "e3m0[32,e8m0]", "int8[32,fp32]"),
    *("e2m1[32,e8m0,absmax]", "e2m1[16x16,e8m0]", "e4m3fn[4x32,fp32]", "e2m1[tensor,fp32]"),
    *("e2m1[channel,e8m0]", "e2m1[32,none]", "e2m1[1,e8m0]", "e5m10[32,e8m0]"),
]


def patterns(x: NDArray[Any]) -> NDArray[Any]:
    return x.view(f"u{x.itemsize}")


def hard(size: int, dtype: type = np.float32) -> list[NDArray[Any]]:
    """Arrays in which blocks are ordinary, at the range's ends, with specials, and any bits."""
    rng = np.random.default_rng(size)
    normal = rng.standard_normal(size).astype(dtype)
    special = normal.copy()
    special[::197], special[5::1201] = np.nan, -np.inf
    special[size // 2 : size // 2 + 100], special[size // 2 + 50] = 0, -0.0
    width = np.dtype(dtype).itemsize
    bits = rng.integers(0, 1 << 8 * width, size, dtype=f"u{width}").view(dtype)
    finite = np.where(np.isfinite(bits), bits, dtype(1))
    low, high = (-149, 126) if dtype is np.float32 else (-1074, 1022)
    scaled = np.ldexp(normal / 8, np.repeat(rng.integers(low, high, -(-size // 32)), 32)[:size])
    mixed = np.ldexp(normal, rng.integers(-20, 20, size))
    ties = (np.round(normal * 8) / 4).astype(dtype)
    return [normal, special, bits, finite, scaled.astype(dtype), mixed.astype(dtype), ties]


def both(x: NDArray[Any], spec: Any, **options: Any) -> list[Any]:
    """What the two backends make of `x`: values and the stored form; or that it is an error."""
    found: list[Any] = []
    for backend in ("numpy", "numba"):
        try:
            values = arrays.quantize(x, spec, backend=backend, **options)
            found.append((values, compress(x, spec, backend=backend, **options)))
        except ValueError as error:
            found.append(str(error))
    return found


def assert_same(x: NDArray[Any], spec: Any, **options: Any) -> None:
    expected, got = both(x, spec, **options)
    if isinstance(expected, str):
        assert got == expected
        return
    values, stored = expected
    assert not isinstance(got, str)
    np.testing.assert_array_equal(patterns(got[0]), patterns(values))
    assert_same_storage(got[1], stored)
    back = got[1].dequantize(backend="numba")
    np.testing.assert_array_equal(patterns(back), patterns(values))


def assert_same_storage(a: Quantized, b: Quantized) -> None:
    np.testing.assert_array_equal(a.codes, b.codes)
    assert (a.scales is None) == (b.scales is None)
    if a.scales is not None and b.scales is not None:
        np.testing.assert_array_equal(a.scales, b.scales)
    assert a.outer == b.outer


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("spec", SPECS)
def test_values_codes_and_scales(spec):
    for x in hard(6400):
        assert_same(x.reshape(-1, 64), spec)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "mxint8", "e2m1[32,fp32]"])
def test_float64(spec):
    for x in hard(3200, np.float64):
        assert_same(x.reshape(-1, 64), spec)


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "e4m3fn[4x32,fp32]", "e2m1[1,e8m0]"])
def test_shapes(spec):
    x = hard(7200)[1]
    for shape in ((7200,), (1,), (96, 75), (75, 96), (2, 60, 60), (7200, 1), (0, 32), (3, 0)):
        for axis in (-1, 0) if isinstance(BlockFormat.parse(spec).block, int) else (-1,):
            assert_same(np.resize(x, shape), spec, axis=axis)


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4"])
def test_results_in_place_of_arguments_and_arguments_that_are_read_only(spec):
    x = hard(6400)[1].reshape(-1, 64)
    expected = arrays.quantize(x, spec, backend="numpy")
    y = x.copy()
    arrays.quantize(y, spec, out=y, backend="numba")
    np.testing.assert_array_equal(patterns(y), patterns(expected))
    y = x.copy()
    y.flags.writeable = False
    got = arrays.quantize(y[:, ::-1], spec, backend="numba")
    flipped = arrays.quantize(x[:, ::-1], spec, backend="numpy")
    np.testing.assert_array_equal(patterns(got), patterns(flipped))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mode", ["toward_zero", "toward_positive", "to_odd", "nearest_away"])
def test_other_modes_by_steps(mode):
    for spec in ("mxfp4", "nvfp4", "mxint8", "e2m1[32,e8m0,four_thirds]"):
        for x in hard(3200):
            assert_same(x.reshape(-1, 64), spec, rounding=mode)


@pytest.mark.parametrize("mode", ["stochastic", "stochastic:8"])
def test_draws_by_steps(mode):
    x = hard(1 << 18)[1]
    for key, shape in (
        (7, (-1, 256)),
        (Key(3, offset=640, row_length=64, row_stride=1024), (-1, 64)),
    ):
        assert_same(x.reshape(shape), "mxfp4", rounding=mode, key=key)
    assert_same(x[:6400].reshape(4, -1, 20), "nvfp4", rounding=mode, key=5, axis=1)


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "e2m1[16x16,e8m0]"])
def test_thread_counts(spec):
    x = hard(1 << 19)[1].reshape(-1, 1 << 10)
    expected = arrays.quantize(x, spec, backend="numpy")
    before = numba.get_num_threads()
    try:
        for count in (1, before):
            numba.set_num_threads(count)
            got = arrays.quantize(x, spec, backend="numba")
            np.testing.assert_array_equal(patterns(got), patterns(expected))
            back = compress(x, spec, backend="numba").dequantize(backend="numba")
            np.testing.assert_array_equal(patterns(back), patterns(expected))
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("spec", ["mxfp8_e4m3", "mxfp8_e5m2", "e4m3fnuz[32,e8m0]", "mxfp4"])
def test_any_code_is_decoded(spec):
    """Codes of NaN, infinities and zeros with a sign, which rounding never gives."""
    fmt = BlockFormat.parse(spec)
    params = lower_elements(fmt, Rounding.NEAREST_EVEN, FLOAT32)
    scaling = lower_scaling(fmt, (1, 32), FLOAT32)._replace(mode=int(ScaleMode.GIVEN))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << fmt.element.bits, (40, 64), dtype=np.uint8)
    scales = np.exp2(rng.integers(-20, 20, (40, 2))).astype(np.float32)
    scales[3, 1] = np.nan
    expected, got = (np.empty(codes.shape, np.float32) for _ in range(2))
    NUMPY.decode_blocks(codes, expected, scales, params, scaling)
    NUMBA.decode_blocks(codes, got, scales, params, scaling)
    np.testing.assert_array_equal(patterns(got), patterns(expected))


# ------------------------------------------------------- quotients by products


@pytest.mark.parametrize("outer", [0.0017, 1.0, 0.1, 1 + 2.0**-23, 2 - 2.0**-23, 3.7e-5])
def test_quotients_that_are_ties_but_for_the_last_bits(outer):
    """x near boundary * scale * outer, for all E4M3 scales: one bit off changes the element."""
    fmt = BlockFormat.parse("nvfp4")
    outer = float(np.float32(outer))
    params = lower_elements(fmt, Rounding.NEAREST_EVEN, FLOAT32)
    scaling = lower_scaling(fmt, (1, 16), FLOAT32)
    scaling = scaling._replace(mode=int(ScaleMode.GIVEN), has_outer=1, outer=outer)
    assert scaling.scale_params.m == 3
    every = arrays.decode(np.arange(1, 127, dtype=np.uint8), "e4m3fn").astype(np.float32)
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.5])
    near = (ties * every[:, None] * outer).astype(np.float32)
    x = near.view(np.uint32)[:, :, None] + np.arange(-8, 8, dtype=np.int32).astype(np.uint32)
    x = x.view(np.float32).reshape(-1, 16)
    scales = np.repeat(every, ties.size).reshape(-1, 1).copy()
    expected, got = np.empty_like(x), np.empty_like(x)
    NUMPY.round_blocks(x, expected, scales, params, scaling)
    NUMBA.round_blocks(x, got, scales, params, scaling)
    np.testing.assert_array_equal(patterns(got), patterns(expected))


def test_calm_divisors():
    """`is_calm` is right about every 24-bit dividend; it says no for divisors that need more."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("needs a longdouble of 64 bits to compute an exact sum")
    rng = np.random.default_rng(0)
    divisors = rng.integers(1 << 23, 1 << 24, 200)
    calm = [int(t) for t in divisors if plans.is_calm(int(t))]
    wild = [int(t) for t in divisors if not plans.is_calm(int(t))]
    assert calm
    assert wild
    for t in calm[:3]:
        assert not mismatches(t).size
    assert any(mismatches(t).size for t in wild[:10])


def mismatches(t: int) -> NDArray[np.float32]:
    """Dividends in [1, 2) for which ``fma(x, high, x * low)`` is not the rounded x / t."""
    divisor = np.float32(t * 2.0**-23)
    high, low = (np.float32(part) for part in plans.inverse(float(divisor), 32))
    x = np.arange(1 << 23, 1 << 24, dtype=np.uint32).astype(np.float32) * np.float32(2.0**-23)
    exact = x.astype(np.longdouble) * np.longdouble(high) + (x * low).astype(np.longdouble)
    return x[exact.astype(np.float32) != x / divisor]


# ----------------------------------------------------------------- any formats


@st.composite
def formats(draw: st.DrawFn) -> str:
    """Block formats that differ where kernels do; few block lengths, each of which is compiled."""
    element = draw(st.sampled_from(("e2m1", "e4m3fn", "e5m2", "e3m2", "int4", "e4m3fnuz", "e3m0")))
    block = draw(st.sampled_from(("32", "20", "3x32")))
    scale = draw(st.sampled_from(("e8m0", "e4m3fn", "ue5m3", "bf16", "fp32")))
    rules = ["floor", "ceil", "even", "rceil", "four_thirds", "absmax", "pow2_m2"]
    rule = draw(st.sampled_from(rules))
    outer = draw(st.sampled_from(("", ",fp32"))) if scale in ("e4m3fn", "ue5m3") else ""
    symmetric = ",sym" if element == "int4" and draw(st.booleans()) else ""
    return f"{element}[{block},{scale},{rule}{outer}{symmetric}]"


@settings(max_examples=30)
@given(formats(), st.integers(0, 2**32 - 1), st.integers(-120, 100), st.integers(1, 90))
def test_drawn_formats(spec, seed, exponent, columns):
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.standard_normal((7, columns), dtype=np.float32), exponent)
    x[rng.random(x.shape) < 0.1] = 0
    assert_same(x, spec)


def test_fields_are_named_once():
    assert len(set(kernels.FIELDS)) == len(kernels.FIELDS)
    assert len(set(kernels.SCALING)) == len(kernels.SCALING)
