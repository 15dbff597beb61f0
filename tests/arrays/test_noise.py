"""Pseudo rounding in the array layer: steps, edges, exactness. The laws are in tests/laws."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest

import fpemu
from fpemu import PseudoNoise
from fpemu.noise import _exact_exp2_of_one_minus, exp2_of_one_minus, grid_shape, step_factors


def nearest_float32(value):
    """The float32 nearest to an mpmath number, ties to even."""
    mantissa, exponent = mpmath.frexp(value)
    return np.float32(
        float(mpmath.ldexp(mpmath.nint(mpmath.ldexp(mantissa, 24)), int(exponent) - 24))
    )


def test_step_factors_are_correctly_rounded():
    rng = np.random.default_rng(0)
    b = np.concatenate([
        rng.uniform(0, 24, 3000), np.arange(25), np.arange(24) + 0.5, [1e-30, 2**-24, 1 - 2**-24],
    ]).astype(np.float32)  # fmt: skip
    with mpmath.workprec(200):
        expected = np.array([nearest_float32(mpmath.power(2, 1 - mpmath.mpf(float(v)))) for v in b])
    assert np.array_equal(exp2_of_one_minus(b), expected)
    exact = [_exact_exp2_of_one_minus(Fraction(float(v))) for v in b[:300]]
    assert np.array_equal(np.array(exact), expected[:300])


def test_block_grids():
    assert grid_shape((64, 64), (32, 32)) == (2, 2)
    assert grid_shape((5, 33, 70), (32, 32)) == (5, 2, 3)
    assert grid_shape((70,), (32, 32)) == (3,)
    assert grid_shape((), (32, 32)) == (1,)
    assert step_factors(PseudoNoise(bits=4), None, (33, 70)).shape == (2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("shape", [(70, 45), (3, 40, 50), (77,), ()])
def test_formula_block_by_block(backend, dtype, shape):
    rng = np.random.default_rng(1)
    x = np.asarray(rng.standard_normal(shape)).astype(dtype)
    key = fpemu.Key(9, stream=2, offset=3)
    noise = PseudoNoise("uniform", bits=3.7, block=(8, 16))
    q = fpemu.quantize(x, "e3m2", rounding=noise, key=key, backend=backend)
    compute = np.float64 if dtype is np.float64 else np.float32
    w = x.astype(compute).reshape((1, 1, *shape)[-max(2, len(shape)) :])
    flat = w.reshape(-1, *w.shape[-2:])
    draws = np.array([key.lane(i, 16) for i in range(x.size)]).reshape(flat.shape)
    factor = exp2_of_one_minus(np.float32([3.7]))[0]
    expected = np.empty_like(flat)
    for batch in range(flat.shape[0]):
        for r in range(0, flat.shape[1], 8):
            for c in range(0, flat.shape[2], 16):
                part = (batch, slice(r, r + 8), slice(c, c + 16))
                delta = np.abs(flat[part]).max() * compute(factor)
                uniform = ((2 * draws[part] + 1 - 65536) / 2**17).astype(compute)
                expected[part] = flat[part] + uniform * delta
    rounded = fpemu.quantize(expected, "e3m2", backend="numpy").reshape(shape)
    assert np.array_equal(np.asarray(q).astype(np.float64), rounded.astype(np.float64))


def test_bits_per_block(backend):
    x = np.random.default_rng(2).standard_normal((64, 96)).astype(np.float32)
    bits = np.array([[2.0, 4.0, 24.0], [6.0, 3.5, 0.0]], np.float32)
    q = fpemu.quantize(x, "bf16", rounding=PseudoNoise(), key=1, bits=bits, backend=backend)
    for r in range(2):
        for c in range(3):
            part = (slice(32 * r, 32 * r + 32), slice(32 * c, 32 * c + 32))
            key = fpemu.Key(1, offset=32 * r * 96 + 32 * c, row_length=32, row_stride=96)
            alone = fpemu.quantize(
                x[part],
                "bf16",
                rounding=PseudoNoise(bits=float(bits[r, c])),
                key=key,
                backend=backend,
            )
            assert np.array_equal(q[part], alone)


def test_blocks_with_nan_or_infinity_get_the_cast_alone(backend):
    x = np.random.default_rng(3).standard_normal((32, 64)).astype(np.float32)
    x[3, 5], x[9, 40] = np.nan, -np.inf
    q = fpemu.quantize(x, "e4m3fn", rounding="pseudo_gaussian:3", key=1, backend=backend)
    assert np.array_equal(q, fpemu.quantize(x, "e4m3fn"), equal_nan=True)


def test_zero_blocks_keep_their_zeros(backend):
    x = np.zeros((4, 40), np.float32)
    x[1] = -0.0
    for noise in ("gaussian", "normal", "uniform"):
        q = fpemu.quantize(x, "e4m3fn", rounding=f"pseudo_{noise}:3", key=1, backend=backend)
        assert np.array_equal(q.view(np.uint32), x.view(np.uint32))


def test_a_step_that_overflows_is_a_finite_overflow(backend):
    x = np.full((1, 64), -3e38, np.float32)
    q = fpemu.quantize(x, "bf16", rounding="pseudo_gaussian:0", key=1, backend=backend)
    assert set(q.ravel().tolist()) <= {-np.inf, np.inf, fpemu.quantize(np.float32(-3e38), "bf16")}
    assert np.isinf(q).any()
    clipped = fpemu.quantize(
        x, "bf16", rounding="pseudo_gaussian:0", key=1, policy="sat_finite", backend=backend
    )
    assert np.array_equal(np.isinf(q), np.abs(clipped) == fpemu.format("bf16").max)


@pytest.mark.parametrize("fmt", ["e4m3fn", "e4m3fn_flush", "int8", "e5m0"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_ulp_steps(backend, fmt, dtype):
    x = np.array([0.3, -1.5, 0.0, -0.0, 1e-4, 300.0, 1000.0, np.inf, np.nan, 2.0**-130], dtype)
    key = fpemu.Key(4)
    q = fpemu.quantize(
        x, fmt, rounding=PseudoNoise("uniform", step="ulp"), key=key, backend=backend
    )
    compute = np.float64 if dtype is np.float64 else np.float32
    for i, value in enumerate(x.astype(compute)):
        if not np.isfinite(value):
            assert np.array_equal(q[i : i + 1], x[i : i + 1], equal_nan=True)
            continue
        r = compute((2 * key.lane(i, 16) + 1 - 65536) / 2**17)
        expected = dtype(value + r * compute(float(fpemu.format(fmt).ulp(float(value)))))
        assert q[i] == expected, (value, q[i], expected)


def test_integers_are_computed_in_float64(backend):
    x = np.arange(-20, 20)
    q = fpemu.quantize(x, "e4m3fn", rounding="pseudo_gaussian:4", key=1, backend=backend)
    assert q.dtype == np.float64
    same = fpemu.quantize(x.astype(float), "e4m3fn", rounding="pseudo_gaussian:4", key=1)
    assert np.array_equal(q, same)


def test_codes_of_pseudo_rounding(backend):
    x = np.random.default_rng(5).standard_normal((40, 40)).astype(np.float32)
    options = {"rounding": "pseudo_gaussian:4", "key": 2, "backend": backend}
    codes = fpemu.encode(x, "e3m2", **options)
    assert np.array_equal(fpemu.decode(codes, "e3m2"), fpemu.quantize(x, "e3m2", **options))
