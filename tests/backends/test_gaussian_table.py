"""The table of Gaussian noise against 40-digit arithmetic."""

from __future__ import annotations

import hashlib

import mpmath
import numpy as np

from fpemu import gaussian

DIGEST = "8545e5294ed4c943ba3af0ef01e108ecaa06077841abd965dd83fec58a8e6eff"


def test_every_entry_is_the_nearest_float32_with_a_margin():
    """The exact value lies between the middles to both neighbours, 1e-12 of it or more inside."""
    lower = gaussian.table()[: gaussian.DRAWS // 2]
    below = np.nextafter(lower, np.float32(-np.inf))
    above = np.nextafter(lower, np.float32(np.inf))
    middles_below = (lower.astype(np.float64) + below) / 2
    middles_above = (lower.astype(np.float64) + above) / 2
    with mpmath.workdps(40):
        inward = mpmath.mpf(10) ** -12
        for u, (low, high) in enumerate(
            zip(middles_below.tolist(), middles_above.tolist(), strict=True)
        ):
            # Values are negative here, and are half the quantile.
            probability = mpmath.mpf(2 * u + 1) / (2 * gaussian.DRAWS)
            assert mpmath.ncdf(2 * low * (1 - inward)) < probability, u
            assert probability < mpmath.ncdf(2 * high * (1 + inward)), u


def test_the_table_is_odd_and_read_only():
    table = gaussian.table()
    assert table.shape == (gaussian.DRAWS,)
    assert table.dtype == np.float32
    assert np.array_equal(table, -table[::-1])
    assert not table.flags.writeable


def test_the_bits_are_these():
    assert hashlib.sha256(gaussian.table().astype("<f4").tobytes()).hexdigest() == DIGEST
