"""Single figures and distances between distributions, against sums written out."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpemu
from fpemu import metrics
from fpemu.distances import code_entropy, kl_divergence, wasserstein1

PAIRED = [
    metrics.sqnr,
    metrics.nmse,
    metrics.mse,
    metrics.bias,
    metrics.clip_rate,
    metrics.underflow_rate,
    metrics.cosine,
]
FINITE = st.floats(-1e6, 1e6, width=32)
SAMPLES = st.lists(FINITE, min_size=1, max_size=30)


def sample(size=1000, seed=0):
    return np.random.default_rng(seed).standard_normal(size)


# ----------------------------------------------------------------------- paired


def test_figures_against_exact_sums():
    x = sample(300)
    q = fpemu.quantize(x, "e2m1")
    pairs = [(Fraction(float(a)), Fraction(float(b))) for a, b in zip(x, q, strict=True)]
    signal = sum(a * a for a, _ in pairs)
    noise = sum((b - a) ** 2 for a, b in pairs)
    product = sum(a * b for a, b in pairs)
    energy = sum(b * b for _, b in pairs)
    close = {"rel": 1e-13}
    assert metrics.nmse(x, q) == pytest.approx(float(noise / signal), **close)
    assert metrics.mse(x, q) == pytest.approx(float(noise / 300), **close)
    assert metrics.bias(x, q) == pytest.approx(float(sum(b - a for a, b in pairs) / 300), rel=1e-9)
    assert metrics.sqnr(x, q) == pytest.approx(10 * math.log10(signal / noise), **close)
    expected = float(product) / math.sqrt(float(signal * energy))
    assert metrics.cosine(x, q) == pytest.approx(expected, **close)
    zeroed = sum(a != 0 and b == 0 for a, b in pairs)
    assert metrics.underflow_rate(x, q) == zeroed / 300


def test_figures_are_those_of_the_report():
    x = np.concatenate([sample() * 200, [np.nan, np.inf, 1e9, 1e-9]])
    q = fpemu.quantize(x, "e4m3fn")
    report = fpemu.report(x, "e4m3fn")
    assert metrics.sqnr(x, q) == report.sqnr_db == fpemu.error(x, q).sqnr_db
    assert metrics.bias(x, q) == report.bias
    assert metrics.max_ulp_error(x, q, "e4m3fn") == report.max_ulp_error
    assert metrics.clip_rate(x, q, "e4m3fn") == report.saturated / x.size
    assert metrics.underflow_rate(x, q) == report.underflowed / x.size


def test_clip_rate_with_and_without_a_format():
    x = np.array([1.0, 1000.0, -1000.0, np.inf])
    assert metrics.clip_rate(x, np.array([1, 448.0, -448, 448]), "e4m3fn") == 0.5
    assert metrics.clip_rate(x, np.array([1, 448.0, -np.inf, np.inf])) == 0.25


def test_pairs_that_are_not_finite_are_left_out():
    x = np.array([1.0, 2.0, np.nan, np.inf, 5.0])
    q = np.array([1.5, 2.0, 0.0, 7.0, np.nan])
    assert metrics.mse(x, q) == 0.125
    assert metrics.nmse(x, q) == 0.05
    assert metrics.bias(x, q) == 0.25
    assert metrics.cosine(x, q) == pytest.approx(5.5 / math.sqrt(5 * 6.25))
    nothing = np.full(3, np.nan)
    for figure in (metrics.sqnr, metrics.nmse, metrics.mse, metrics.bias, metrics.cosine):
        assert math.isnan(figure(nothing, nothing))
        assert math.isnan(figure([], []))
    assert math.isnan(metrics.clip_rate([], []))
    assert metrics.max_ulp_error(nothing, nothing, "e2m1") == 0


def test_zeros():
    zero, one = np.zeros(4), np.ones(4)
    assert metrics.nmse(zero, zero) == metrics.mse(zero, zero) == 0
    assert metrics.nmse(zero, one) == math.inf
    assert metrics.sqnr(zero, one) == -math.inf
    assert math.isnan(metrics.cosine(zero, one))


@pytest.mark.parametrize("size", [1.0, 1e200, 1e-200, 1e308, 5e-324])
def test_no_figure_overflows_or_vanishes(size):
    x, q = np.array([3.0, -4.0]) / 4 * size, np.array([4.0, -3.0]) / 4 * size
    if size == 5e-324:
        x, q = np.array([3.0, -4.0]) * size, np.array([4.0, -3.0]) * size
    assert metrics.cosine(x, q) == pytest.approx(24 / 25, rel=1e-12)
    assert metrics.nmse(x, q) == pytest.approx(2 / 25, rel=1e-12)
    assert metrics.cosine(x, -q) == pytest.approx(-24 / 25, rel=1e-12)
    assert wasserstein1(x, q) == pytest.approx(abs(q[0] - x[0]), rel=1e-12)
    assert metrics.mse(x, q) == pytest.approx((q[0] - x[0]) ** 2 if size < 1e100 else math.inf)


def test_cosine_of_parallel_vectors_is_at_most_one():
    for seed in range(20):
        x = sample(77, seed)
        assert 1 - 1e-15 <= metrics.cosine(x, 3 * x) <= 1
        assert -1 <= metrics.cosine(x, -x) <= -1 + 1e-15


@pytest.mark.parametrize("figure", PAIRED)
def test_any_layout_and_dtype(figure):
    x = (sample(200_000) * 4).astype(np.float32).reshape(400, 500)
    q = fpemu.quantize(x, "e4m3fn")
    expected = figure(x, q)
    assert figure(np.asfortranarray(x), q) == expected
    assert figure(x[::-1, ::-1][::-1, ::-1], q.astype(np.float64)) == expected
    assert figure(x, q.astype(ml_dtypes.bfloat16)) == expected
    with pytest.raises(ValueError, match="q must have the shape of x"):
        figure(x, q[1:])
    with pytest.raises(TypeError, match="x must be"):
        figure(x > 0, q)


# ---------------------------------------------------------------------- entropy


def test_entropy_of_codes():
    assert code_entropy(np.zeros(9, np.uint8), 4) == 0
    assert code_entropy(np.arange(16).repeat(5000), 4) == 4
    assert code_entropy([0, 0, 1, 3], 2) == 1.5
    assert code_entropy(np.arange(1 << 16, dtype=np.uint16)[::-1], 16) == 16
    assert math.isnan(code_entropy([], 4))
    codes = fpemu.encode(sample(), "e2m1")
    shares = [n / 1000 for n in Counter(codes.tolist()).values()]
    assert code_entropy(codes, 4) == pytest.approx(-sum(p * math.log2(p) for p in shares))
    assert code_entropy(codes.reshape(10, 100).T, 4) == code_entropy(codes, 4)


@pytest.mark.parametrize(
    ("codes", "bits", "error", "message"),
    [
        ([16], 4, ValueError, r"codes must be in 0..15, got 16"),
        ([-1, 2], 4, ValueError, r"codes must be in 0..15, got -1"),
        ([0.5], 4, TypeError, "codes must be integers"),
        ([True], 4, TypeError, "codes must be integers"),
        ([1], 0, ValueError, r"bits must be in 1..16, got 0"),
        ([1], 17, ValueError, r"bits must be in 1..16"),
        ([1], 4.0, TypeError, "bits must be an int"),
    ],
)
def test_entropy_errors(codes, bits, error, message):
    with pytest.raises(error, match=message):
        code_entropy(codes, bits)


# --------------------------------------------------------------------------- KL


def test_kl_of_histograms_written_out():
    x, q = [0.0, 0.1, 0.6, 1.0], [0.0, 0.7, 0.8, 0.9, 1.0]
    # halves of [0, 1]: 2 and 2 of 4, 1 and 4 of 5
    assert kl_divergence(x, q, 2) == pytest.approx(0.5 * math.log(2.5) + 0.5 * math.log(0.625))
    assert kl_divergence(x, q, [0, 0.5, 1]) == kl_divergence(x, q, 2)
    smoothed = 2.5 / 5 * math.log(2.5 / 5 / (1.5 / 6)) + 2.5 / 5 * math.log(2.5 / 5 / (4.5 / 6))
    assert kl_divergence(x, q, 2, pseudo_count=0.5) == pytest.approx(smoothed)


def test_kl_of_empty_bins():
    assert kl_divergence([0, 1, 2], [0, 2], [0, 1, 2, 3]) == math.inf
    assert kl_divergence([0, 2], [0, 1, 2], [0, 1, 2, 3]) == pytest.approx(math.log(1.5))
    assert kl_divergence([0, 1, 2], [0, 2], [0, 1, 2, 3], pseudo_count=0.5) < 1
    # values outside the edges, and those that are not finite, are left out
    assert kl_divergence([0, 1, 9, np.nan], [0, 1, -9, np.inf], [0, 1, 2]) == 0
    assert math.isnan(kl_divergence([9], [0], [0, 1]))
    assert math.isnan(kl_divergence([], []))


def test_kl_of_one_sample_is_zero():
    x = sample(100_000)
    assert kl_divergence(x, x) == 0
    assert kl_divergence(x, x.reshape(10, -1).T) == 0
    assert kl_divergence([3.0], [3.0]) == kl_divergence([0.0], [0.0]) == 0
    assert kl_divergence([1e308, -1e308], [-1e308, 1e308]) == 0


def test_kl_falls_with_precision():
    x = sample(100_000)
    found = [kl_divergence(x, fpemu.quantize(x, f), 20) for f in ("e2m1", "e4m3fn", "fp16")]
    assert found[0] > found[1] > found[2] >= 0


@given(SAMPLES, SAMPLES, st.integers(1, 9))
def test_kl_is_never_negative(x, q, bins):
    assert kl_divergence(x, q, bins) >= 0
    assert 0 <= kl_divergence(x, q, bins, pseudo_count=0.5) < math.inf


@pytest.mark.parametrize(
    ("bins", "count", "error", "message"),
    [
        (0, 0, ValueError, "bins must be positive"),
        (2.5, 0, TypeError, "bins must be an int"),
        ([1], 0, ValueError, "at least two increasing edges"),
        ([0, 1, 1], 0, ValueError, "at least two increasing edges"),
        ([0, np.nan], 0, ValueError, "at least two increasing edges"),
        (3, -1, ValueError, "pseudo_count must be finite and not negative"),
        (3, math.nan, ValueError, "pseudo_count must be finite and not negative"),
    ],
)
def test_kl_errors(bins, count, error, message):
    with pytest.raises(error, match=message):
        kl_divergence([1.0, 2.0], [1.0], bins, pseudo_count=count)


# ------------------------------------------------------------------ Wasserstein


def test_wasserstein_written_out():
    assert wasserstein1([0, 1, 3], [5, 6, 8]) == 5
    assert wasserstein1([0.0], [0, 1, 2, 5]) == 2
    assert wasserstein1([0, 1], [0, 0.5, 1]) == pytest.approx(1 / 6)
    assert wasserstein1([2, np.nan, 1], [np.inf, 1, 2]) == 0
    assert math.isnan(wasserstein1([np.inf], [1.0]))
    assert math.isnan(wasserstein1([], [1.0]))
    x = sample(200_000)
    assert wasserstein1(x, (x + 0.25).reshape(400, -1).T) == pytest.approx(0.25)
    assert wasserstein1(x[:150_000], x) < 0.02
    assert wasserstein1([-1.7e308], [1.7e308]) == math.inf


@given(SAMPLES, SAMPLES)
def test_wasserstein_is_the_area_between_distribution_functions(x, q):
    ends = sorted({Fraction(v) for v in (*x, *q)})
    area = sum(
        abs(Fraction(sum(v <= low for v in x), len(x)) - Fraction(sum(v <= low for v in q), len(q)))
        * (high - low)
        for low, high in pairwise(ends)
    )
    largest = max(map(abs, (*x, *q)))
    assert wasserstein1(x, q) == pytest.approx(float(area), rel=1e-12, abs=1e-13 * largest)
    assert wasserstein1(q, x) == pytest.approx(wasserstein1(x, q), rel=1e-12, abs=1e-13 * largest)
