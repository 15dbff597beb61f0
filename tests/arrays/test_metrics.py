"""Reports against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fpemu


def test_counts_and_sums():
    x = np.array([0.3, -0.1, 1000.0, 0.0, -0.0, np.nan, np.inf, 1e-9])
    q = fpemu.quantize(x, "e4m3fn")
    report = fpemu.report(x, "e4m3fn")
    finite = np.isfinite(x)
    gap = (q - x)[finite]
    assert report.count == 8
    assert report.saturated == 1
    assert report.underflowed == 1
    assert report.nan == 1
    assert report.bias == pytest.approx(gap.mean(), rel=1e-12)
    signal, noise = (x[finite] ** 2).sum(), (gap**2).sum()
    assert report.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-12)
    assert report.max_relative_error == 1.0
    assert report.max_ulp_error == pytest.approx((1000 - 448) / 64)
    assert fpemu.error(x, q).sqnr_db == report.sqnr_db
    assert fpemu.error(x, q).max_ulp_error is None


def test_nearest_is_within_half_an_ulp(backend):
    x = np.random.default_rng(0).standard_normal(200_000)
    report = fpemu.report(x, "e5m2", backend=backend)
    assert 0.49 < report.max_ulp_error <= 0.5
    assert fpemu.report(x, "e5m2", rounding="toward_zero", backend=backend).max_ulp_error < 1


def test_no_error_and_no_elements():
    x = np.array([1.0, -2.0, 0.5])
    assert fpemu.report(x, "e2m1").sqnr_db == math.inf
    assert fpemu.report(x, "e2m1").underflowed == 0
    empty = fpemu.report(np.zeros(0), "e2m1")
    assert empty.count == 0
    assert math.isnan(empty.sqnr_db)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="q must have the shape of x"):
        fpemu.error(np.zeros(3), np.zeros(4))


def test_negative_zero_is_no_underflow():
    report = fpemu.report(np.array([-0.0, 0.0, -1e-30]), "e4m3fn")
    assert report.underflowed == 1


def test_float16_is_reported_against_wider_formats():
    x = np.array([0.3, 60000.0], np.float16)
    assert fpemu.report(x, "bf16").saturated == 0


def test_text_and_html_show_every_figure():
    report = fpemu.report(np.linspace(-3, 3, 50), "e2m1")
    for name in ("sqnr_db", "max_ulp_error", "underflowed"):
        assert name in str(report)
        assert name in report._repr_html_()
