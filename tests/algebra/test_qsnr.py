"""The QSNR laws: the crossovers derived from them, and sampled errors."""

from __future__ import annotations

import math
import random

import pytest

import fpemu
from fpemu.qsnr import element_qsnr, gaussian_crossover, gaussian_shares, integer_qsnr


@pytest.mark.parametrize(
    ("bits", "element", "crest"), [(8, "e4m3fn", 7.54), (6, "e2m3", 1.958), (4, "e2m1", 2.040)]
)
def test_crossovers_under_power_of_two_scales(bits, element, crest):
    """With the published 7.55, 1.96 and 2.04 to the digits given there, but for the first, which
    comes from 4.78 + 6.02 bits in place of 10 log10(3 * 4**bits)."""
    found = gaussian_crossover(bits, fpemu.format(element))
    assert found == pytest.approx(crest, abs=0.003)


def test_crossover_under_e4m3_scales():
    assert gaussian_crossover(4, fpemu.format("e2m1"), block=16) == pytest.approx(2.46, abs=0.005)


def test_integers_win_below_the_crossover():
    fmt = fpemu.format("e2m1")
    at = gaussian_crossover(4, fmt)
    for crest, better in ((at - 0.01, True), (at + 0.01, False)):
        found = integer_qsnr(4, crest, loss=1.5) > element_qsnr(fmt, crest, loss=1.5)
        assert found is better


def test_the_integer_law():
    assert integer_qsnr(8, 1.0) == pytest.approx(4.77 + 6.02 * 8, abs=0.01)
    assert integer_qsnr(5, 3.0) - integer_qsnr(4, 3.0) == pytest.approx(20 * math.log10(2))
    assert integer_qsnr(4, 6.0) - integer_qsnr(4, 3.0) == pytest.approx(-20 * math.log10(2))
    assert integer_qsnr(4, 3.0, loss=1.5) == pytest.approx(integer_qsnr(4, 4.5))
    more = integer_qsnr(4, 3.0, block=16) - integer_qsnr(4, 3.0)
    assert more == pytest.approx(10 * math.log10(16 / 15))


def test_the_integer_law_is_that_of_uniform_errors():
    """Steps of 2 max / 2**bits have the mean squared error step**2 / 12."""
    crest, bits = 4.0, 6
    step = 2 * crest / 2**bits
    assert integer_qsnr(bits, crest) == pytest.approx(-10 * math.log10(step**2 / 12))


def test_the_element_law_with_shares_given():
    fmt = fpemu.format("e2m1")
    only_normal = element_qsnr(fmt, 3.0, normal_energy=1, subnormal_probability=0)
    assert only_normal == pytest.approx(10 * math.log10(24 * 4))
    only_steps = element_qsnr(fmt, 3.0, loss=1.5, normal_energy=0, subnormal_probability=1)
    assert only_steps == pytest.approx(-10 * math.log10((0.5 * 4.5 / 6) ** 2 / 12))
    nothing = element_qsnr(fmt, 3.0, normal_energy=0, subnormal_probability=0)
    assert nothing == math.inf
    block = element_qsnr(fmt, 2.0, block=16, normal_energy=1, subnormal_probability=0)
    assert block == pytest.approx(-10 * math.log10((1 - 4 / 16) / 96))


@pytest.mark.parametrize("element", ["e2m1", "e2m3", "e4m3fn"])
def test_gaussian_shares_against_samples(element):
    """Both are means of n values with a standard deviation below 2: within 5 * 2 / sqrt(n)."""
    fmt = fpemu.format(element)
    crest, loss, n = 3.5, 1.5, 20_000
    edge = float(fmt.min_normal) * loss * crest / float(fmt.max_value)
    draws = random.Random(3)
    values = [draws.gauss(0, 1) for _ in range(n)]
    energy, probability = gaussian_shares(fmt, crest, loss=loss)
    found = sum(v * v for v in values if abs(v) >= edge) / n
    assert energy == pytest.approx(found, abs=10 / math.sqrt(n))
    below = sum(abs(v) < edge for v in values) / n
    assert probability == pytest.approx(below, abs=10 / math.sqrt(n))


E2M1 = fpemu.format("e2m1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: integer_qsnr(0, 2.0), "bits must be positive"),
        (lambda: integer_qsnr(4, 0.5), "crest must be finite, at least 1"),
        (lambda: integer_qsnr(4, math.nan), "crest must be finite"),
        (lambda: integer_qsnr(4, math.inf), "crest must be finite"),
        (lambda: integer_qsnr(4, 4.1, block=16), r"at most sqrt\(16\)"),
        (lambda: integer_qsnr(4, 2.0, loss=2.0), r"loss must be in \[1, 2\)"),
        (lambda: integer_qsnr(4, 2.0, loss=1.5, block=16), "loss must be 1 with block"),
        (lambda: integer_qsnr(4, 1.0, block=1), "block must be at least 2"),
        (lambda: element_qsnr(E2M1, 0.5), "crest must be finite"),
        (lambda: element_qsnr(E2M1, 2.0, normal_energy=1.5), r"normal_energy must be in \[0, 1\]"),
        (lambda: element_qsnr(fpemu.format("int8"), 2.0), "fmt must be signed, with exponents"),
        (lambda: element_qsnr(fpemu.format("e8m0"), 2.0), "fmt must be signed, with exponents"),
        (lambda: gaussian_crossover(8, E2M1), "do not cross"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
