"""One rounding from every dtype under every preset, and the same values from codes."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import fpemu
from fpemu import Format, Policy, PseudoNoise
from fpemu.lowering import FLOAT64
from fpemu.policy import PRESETS, parse_policy
from fpemu.reference import quantize_scalar, round_value
from fpemu.rounding import Stochastic, parse_rounding
from fpemu.values import Special, as_value

DTYPES = [
    np.float16, ml_dtypes.bfloat16, np.float32, np.float64,
    np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("preset", [*PRESETS, "sat_propagate"])
@pytest.mark.parametrize("fmt", ["e4m3fn", "e5m2", "e2m1", "e4m3fnuz", "ue4m3"])
def test_presets_take_every_dtype(backend, dtype, preset, fmt):
    x = np.array([1, 2, 3, 5, 7, 17, 100, 0, 113, 9]).astype(dtype)
    q = fpemu.quantize(x, fmt, policy=preset, backend=backend)
    expected = [quantize_scalar(v, fmt, policy=preset) for v in x.astype(float)]
    assert [as_value(v) for v in q.astype(float)] == expected
    codes = fpemu.encode(x, fmt, policy=preset, backend=backend) if _finite(q) else None
    if codes is not None:
        back = fpemu.decode(codes, fmt, dtype="float64", backend=backend)
        assert np.array_equal(back, q.astype(float))


def _finite(q):
    return np.isfinite(q.astype(float)).all()


def test_only_float64_goes_through_float32(backend):
    policy = Policy(through_float32=True)
    x = np.array([2**28 + 2**24 + 1], np.int32)
    assert fpemu.quantize(x, "e8m3", policy=policy, backend=backend) == 301989888
    twice = np.array([1 + 2**-4 + 2**-40])
    assert fpemu.quantize(twice, "e8m3", policy=policy, backend=backend) == 1.0
    assert fpemu.quantize(twice, "e8m3", backend=backend) == 1.125
    # float32 cannot hold e9m3, so there is nothing to go through
    for fmt in (Format(9, 3), Format(8, 3)):
        q = fpemu.quantize(twice, fmt, policy=policy, backend=backend)
        codes = fpemu.encode(twice, fmt, policy=policy, backend=backend)
        assert np.array_equal(fpemu.decode(codes, fmt, dtype="float64"), q)


def test_codes_of_noise_keep_the_signs_a_preset_leaves(backend):
    x = np.full((1, 64), -1e-6, np.float32)
    options = {
        "rounding": "pseudo_gaussian:4", "policy": "microxcaling", "key": 1, "backend": backend,
    }  # fmt: skip
    q = fpemu.quantize(x, "e4m3fn", **options)
    back = fpemu.decode(fpemu.encode(x, "e4m3fn", **options), "e4m3fn")
    assert np.array_equal(np.signbit(q), np.signbit(back))
    assert np.signbit(q).any()


def test_large_integers_are_refused_before_anything_is_written(backend):
    x = np.ones(100_000, np.int64)
    x[-1] = 2**60
    out = np.full(x.shape, 9.0)
    for rounding in ("pseudo_gaussian:4:1x32", "pseudo_gaussian:ulp"):
        with pytest.raises(ValueError, match=r"within 2\*\*53"):
            fpemu.quantize(x, "e4m3", rounding=rounding, key=1, out=out, backend=backend)
        assert (out == 9).all()
    x[-1] = 2**53
    fpemu.quantize(x, "e4m3", rounding="pseudo_gaussian:4", key=1, out=out, backend=backend)


def test_lists_that_numpy_would_round_first_are_refused():
    with pytest.raises(ValueError, match="x must not mix"):
        fpemu.quantize([2**63 + 2**39 + 1, -1], "fp32")
    assert fpemu.quantize([2**63 + 2**39 + 1], "fp32") == 2.0**63 + 2.0**40
    assert fpemu.quantize([2**53, 0.5], "fp32").tolist() == [2.0**53, 0.5]


def test_exact_values_of_every_kind_of_number():
    assert as_value(np.int64(2**53 + 1)) == 2**53 + 1
    assert as_value(np.uint64(2**64 - 1)) == 2**64 - 1
    assert as_value(Decimal("1.0000000000000000000001")) == 1 + Fraction(1, 10**22)
    assert as_value(Decimal("1e400")) == 10**400
    assert as_value(np.longdouble(1) + np.longdouble(2) ** -60) == 1 + Fraction(1, 2**60)
    assert as_value(np.float16(0.1)) == Fraction(float(np.float16(0.1)))
    assert as_value(ml_dtypes.bfloat16(0.1)) == Fraction(float(ml_dtypes.bfloat16(0.1)))
    specials = {"-0": Special.NEG_ZERO, "nan": Special.NAN, "-inf": Special.NEG_INF}
    for text, special in specials.items():
        for kind in (float, np.float32, np.longdouble, Decimal):
            assert as_value(kind(text)) is special
    for wrong in (True, np.bool_(True), "1", None, 1j):
        with pytest.raises(TypeError, match="x must be a real number"):
            as_value(wrong)
    assert quantize_scalar(np.int64(2**60 + 2**56 + 1), "e8m3") == Fraction(2**60 + 2**57)


def test_signalling_nan_is_quiet_about_it(backend):
    x = np.array([0x7F800001, 0x3F800000], np.uint32).view(np.float32)
    with np.errstate(all="raise"):
        for rounding in ("nearest_even", "stochastic", "pseudo_gaussian:3", "pseudo_uniform:ulp"):
            q = fpemu.quantize(x, "e4m3fn", rounding=rounding, key=1, backend=backend)
            assert q.view(np.uint32)[0] == 0x7FC00000
        assert fpemu.report(x, "e4m3fn").nan == 1


def test_reports_of_tiny_and_huge_values():
    assert fpemu.report(np.array([1e-200]), "e4m3").sqnr_db == 0
    assert fpemu.report(np.array([1e308, 1e300]), "e4m3fn").sqnr_db == pytest.approx(0, abs=1e-9)
    assert fpemu.report(np.array([0.0, 1e-50, -1.0]), "e8m0").saturated == 0
    assert fpemu.report(np.array([-1.0]), "ue4m3").saturated == 0
    assert fpemu.report(np.array([-129.0, -128.0, 127.6]), "int8").saturated == 2


def test_numpy_integers_are_integers():
    assert fpemu.Key(np.int64(3)) == fpemu.Key(3)
    assert fpemu.Key(3).child(np.int64(5)) == fpemu.Key(3).child(5)
    assert Stochastic(np.int64(8)) == Stochastic(8)
    assert PseudoNoise(bits=4, block=np.int64(3)).block == (1, 3)
    packed = fpemu.pack(np.zeros(1000, np.uint8), np.uint8(4))
    assert fpemu.unpack(packed, np.uint8(4), np.uint16(1000)).size == 1000
    for noise in (PseudoNoise(bits=4.1234567), PseudoNoise(bits=4), PseudoNoise(bits=0.1)):
        assert parse_rounding(str(noise)) == noise


def test_a_far_bias_is_refused_at_once():
    for bias in (-99999999999, 99999999999):
        with pytest.raises(ValueError, match="no supported dtype"):
            fpemu.quantize(1.0, Format(4, 3, bias=bias))


def test_reference_agrees_with_itself_on_integers(backend):
    x = np.array([2**62 + 2**30 + 1, -(2**61) - 7, 2**53 + 1])
    for mode in ("nearest_even", "to_odd"):
        q = fpemu.quantize(x, "e11m40", rounding=mode, backend=backend)
        for value, got in zip(x.tolist(), q, strict=True):
            want = round_value(
                fpemu.format("e11m40"), Fraction(value), parse_rounding(mode),
                parse_policy(None, fpemu.format("e11m40"))[1],
            )  # fmt: skip
            assert np.array([got]).view(np.uint64)[0] == FLOAT64.pattern(want)
