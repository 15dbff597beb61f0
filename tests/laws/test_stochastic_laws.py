"""Stochastic rounding: probabilities as equalities over all draws, on every backend.

With nu the discarded fraction and N random bits, the number of draws, of 2**N, that go away from
zero is floor(nu 2**N) for A, floor((floor(nu 2**(N+1)) + 1) / 2) for B and nearest_even(nu 2**N)
for C; half of them for `equal` (P3109 4.7.4; the counts are derived there from the predicates).
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpemu import philox
from fpemu.catalog import parse
from fpemu.keys import Key
from fpemu.reference import goes_away
from fpemu.rounding import Stochastic, Variant
from fpemu.testing import Backend, containers, draws, lanes, laws
from fpemu.testing import strategies as fst
from fpemu.testing._draw_laws import sweep_length
from fpemu.testing._draws import blocks

SWEPT = [Stochastic(bits, v) for bits in range(1, 13) for v in (Variant.A, Variant.B, Variant.C)]
SWEPT.append(Stochastic(variant=Variant.EQUAL))


def away_count(nu: Fraction, rounding: Stochastic) -> int:
    """How many of the 2**N draws go away from zero, by the closed formulas."""
    n = rounding.bits
    match rounding.variant:
        case Variant.A:
            return floor(nu * 2**n)
        case Variant.B:
            return (floor(nu * 2 ** (n + 1)) + 1) // 2
        case Variant.C:
            return round(nu * 2**n)
    return int(nu > 0)


@pytest.mark.parametrize("rounding", [r for r in SWEPT if r.bits <= 7], ids=str)
def test_the_predicate_has_the_probability_of_the_formula(rounding: Stochastic) -> None:
    """Every fraction on a grid finer than the draws by 3 bits, and a few off every grid."""
    n = rounding.bits
    grid = [Fraction(k, 1 << (n + 3)) for k in range(1 << (n + 3))]
    grid += [Fraction(1, 3), Fraction(1, 1 << 70), 1 - Fraction(1, 1 << 70)]
    for nu in grid:
        away = sum(goes_away(rounding, nu, False, False, draw) for draw in range(1 << n))
        assert away == away_count(nu, rounding)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("extra", [1, 5])
def test_mean_bias_over_a_grid_of_fractions(bits: int, extra: int) -> None:
    """A errs toward zero by half a draw's weight less half a grid step, B the other way by half
    a grid step, C not at all: exact sums over all fractions k / 2**M with M = bits + extra."""
    m = bits + extra
    fractions = [Fraction(k, 1 << m) for k in range(1 << m)]

    def bias(variant: Variant) -> Fraction:
        rounding = Stochastic(bits, variant)
        errors = (Fraction(away_count(nu, rounding), 1 << bits) - nu for nu in fractions)
        return sum(errors, Fraction(0)) / len(fractions)

    step = Fraction(1, 1 << (m + 1))
    assert bias(Variant.A) == step - Fraction(1, 1 << (bits + 1))
    assert bias(Variant.B) == step
    assert bias(Variant.C) == 0


@pytest.mark.parametrize("rounding", SWEPT, ids=str)
@pytest.mark.parametrize("spelling", ["e4m3fn", "e2m1", "e3m0", "bf16", "e4m3_flush", "mxint8"])
def test_probabilities_are_exact(backend: str, spelling: str, rounding: Stochastic) -> None:
    """The share of draws that go away, counted on the backend, is the formula's."""
    laws.probability_is_exact(Backend(backend), spelling, rounding=rounding, key=Key(11))


@given(fst.formats(), fst.stochastic(), st.data())
def test_thresholds_are_sharp(
    backend: str, fmt: object, rounding: Stochastic, data: st.DataObject
) -> None:
    """Every element on either side of its own draw's threshold, up to 32 bits."""
    dtype = data.draw(fst.containers(fmt))
    key = data.draw(fst.keys())
    x = np.zeros(64, dtype)
    laws.thresholds_are_sharp(Backend(backend), fmt, x, rounding=rounding, key=key)


@pytest.mark.parametrize("bits", [1, 8, 9, 16, 17, 31, 32])
def test_thresholds_of_many_draws_are_sharp(backend: str, bits: int) -> None:
    x = np.zeros(4096)
    for variant in (Variant.A, Variant.B, Variant.C):
        for spelling in ("e4m3fn", "fp16", "e5m2"):
            laws.thresholds_are_sharp(
                Backend(backend), spelling, x, rounding=Stochastic(bits, variant)
            )


@pytest.mark.parametrize("bits", range(1, 13))
def test_the_sweep_meets_every_draw(bits: int) -> None:
    """What `probability_is_exact` rests on: that many elements of this key draw everything."""
    drawn = draws(Key(11), sweep_length(bits), Stochastic(bits))
    assert np.unique(drawn).size == 1 << bits


@given(fst.keys(), st.sampled_from([8, 16, 32]), st.integers(1, 40))
def test_vectorised_lanes_are_the_keys_lanes(key: Key, lane_bits: int, count: int) -> None:
    """`fpemu.testing.draws` against the scalar definition of the draw's address."""
    expected = [key.lane(local, lane_bits) for local in range(count)]
    assert lanes(key, count, lane_bits).tolist() == expected


@given(fst.keys(), st.integers(0, (1 << 64) - 1))
def test_vectorised_philox_is_philox(key: Key, number: int) -> None:
    found = blocks(key, np.array([number], np.uint64))
    assert tuple(int(word[0]) for word in found) == philox.words(key.seed, key.stream, number)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_draws_do_not_depend_on_the_dtype(backend: str, dtype: str) -> None:
    """The same values in another dtype meet the same draws."""
    fmt = parse("e2m1")
    found = {d.name: d for d in containers(fmt)}
    values = np.resize(np.array([0.25, 1.25, 2.5, 5.0, -0.75, 0.0]), 300)
    expected = Backend(backend).quantize(values, fmt, Stochastic(8), _plain(), Key(3))
    got = Backend(backend).quantize(
        values.astype(found[dtype]), fmt, Stochastic(8), _plain(), Key(3)
    )
    assert got.astype(np.float64).tolist() == expected.tolist()


def _plain() -> object:
    from fpemu.policy import Policy

    return Policy()


@pytest.mark.parametrize("first", [0, 1, 5])
def test_any_bits_use_their_own_lane_width(backend: str, first: int) -> None:
    """17 bits take 32-bit lanes and their top bits, 9 bits 16-bit lanes, 8 bits 8-bit lanes."""
    x = np.full(101, 1.0625, np.float32)  # halfway between values of e4m3fn
    for bits in (1, 7, 8, 9, 15, 16, 17, 24, 32):
        key = Key(5, 6, first)
        drawn = draws(key, x.size, Stochastic(bits))
        away = drawn >= 1 << (bits - 1)  # nu = 1/2
        got = Backend(backend).quantize(x, parse("e4m3fn"), Stochastic(bits), _plain(), key)
        assert got.tolist() == np.where(away, 1.125, 1.0).tolist()
