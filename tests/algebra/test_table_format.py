"""Table formats: the published tables, the constructor's rules, and the definition of rounding."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest

from fpemu import catalog, reference
from fpemu.formats import Format
from fpemu.policy import NanRule, Overflow, Policy, ZeroSign
from fpemu.rounding import PseudoNoise, Rounding, Stochastic, Variant
from fpemu.table_format import NAMES, TableFormat, named, parse_table_policy, round_value
from fpemu.values import Special

NAN, INF, NEG_INF, NEG_ZERO = Special.NAN, Special.POS_INF, Special.NEG_INF, Special.NEG_ZERO
HIF8, NF4 = NAMES["hif8"], NAMES["nf4"]
BIPOLAR = [NAMES[f"bint{n}"] for n in range(1, 9)]
NEAREST = (Rounding.NEAREST_EVEN, Rounding.NEAREST_AWAY, Rounding.NEAREST_ZERO)
STOCHASTIC = [Stochastic(2, variant) for variant in Variant]
SWEPT = [HIF8, NF4, *(NAMES[f"bint{n}"] for n in (1, 2, 5))]
POLICIES = [Policy(), *map(Policy, Overflow)]


def table_of(fmt: Format) -> TableFormat:
    """The table with the values of a format."""
    beyond = fmt.magnitude(fmt.max_code + 1) if fmt.has_inf else None
    return TableFormat("like", tuple(map(fmt.decode, fmt.codes())), beyond)


def draws_of(rounding: Rounding | Stochastic) -> range:
    return range(1 << rounding.bits if isinstance(rounding, Stochastic) else 1)


# ---------------------------------------------------------------------- published tables


def test_hif8_has_the_binades_of_the_paper():
    """Mantissa bits by exponent, and powers of two alone below."""
    expected = {Fraction(2) ** e for e in range(-22, -15)}
    for mantissa_bits, exponents in ((3, range(4)), (2, range(4, 8)), (1, range(8, 16))):
        for size, sign in product(exponents, (1, -1)):
            expected |= {
                (1 + Fraction(t, 1 << mantissa_bits)) * Fraction(2) ** (sign * size)
                for t in range(1 << mantissa_bits)
            }
    expected.remove(Fraction(3 << 14))  # infinity's place
    positive = [HIF8.decode(code) for code in range(1, 0x80) if code != 0x6F]
    assert sorted(positive) == sorted(expected)
    assert len({HIF8.decode(0), *positive}) == 127
    for code in set(range(1, 0x80)) - {0x6F}:
        assert HIF8.decode(code + 0x80) == -HIF8.decode(code)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (0x00, 0),
        (0x01, 2.0**-22),
        (0x07, 2.0**-16),
        (0x08, 1),
        (0x0F, 1.875),
        (0x10, 2),
        (0x18, 0.5),
        (0x20, 4),
        (0x6E, 2.0**15),
        (0x6D, 1.5 * 2.0**14),
        (0x7E, 2.0**-15),
        (0x88, -1),
        (0x6F, INF),
        (0xEF, NEG_INF),
        (0x80, NAN),
    ],
)
def test_hif8_codes(code, value):
    assert HIF8.decode(code) == value
    assert HIF8.encode(value) == code


def test_hif8_limits():
    assert (HIF8.bits, HIF8.max, HIF8.min, HIF8.min_positive) == (8, 2.0**15, -(2.0**15), 2.0**-22)
    assert HIF8.has_zero
    assert HIF8.has_inf
    assert HIF8.has_nan
    assert not HIF8.has_negative_zero
    assert (HIF8.nan_code, HIF8.inf_code) == (0x80, 0x6F)


@pytest.mark.parametrize(
    ("x", "even", "away"),
    [
        (Fraction(5 << 13) - 1, 2**15, 2**15),
        (Fraction(5 << 13), 2**15, INF),  # 1.25 * 2**15, the paper's overflow threshold
        (Fraction(5 << 13) + 1, INF, INF),
        (Fraction(1, 1 << 23), 0, Fraction(1, 1 << 22)),
        (Fraction(17, 16), 1, Fraction(9, 8)),
        (Fraction(5 << 20), INF, INF),
    ],
)
def test_hif8_rounds_to_nearest(x, even, away):
    assert round_value(HIF8, x, Rounding.NEAREST_EVEN, Policy()) == even
    assert round_value(HIF8, x, Rounding.NEAREST_AWAY, Policy()) == away
    assert round_value(HIF8, x, Rounding.TO_ODD, Policy()) != INF
    saturated = 2**15 if away is INF else away
    assert round_value(HIF8, x, Rounding.NEAREST_AWAY, Policy("sat_finite")) == saturated


def test_nf4_is_float32_exact_and_ascending():
    values = NF4.values()
    assert [float(np.float32(v)) for v in values] == values
    assert values[0] == -1
    assert values[7] == 0
    assert values[15] == 1
    assert values[8] == 0.07958029955625534
    assert [NF4.encode(v) for v in values] == list(range(16))
    assert [NF4.has_nan, NF4.has_inf, NF4.has_negative_zero] == [False] * 3


@pytest.mark.parametrize("bits", range(1, 9))
def test_bipolar_integers_are_sums_of_signed_bits(bits):
    fmt = NAMES[f"bint{bits}"]
    for code in fmt.codes():
        signed = sum((2 * (code >> i & 1) - 1) << i for i in range(bits))
        assert fmt.decode(code) == signed
    assert fmt.values() == [-v for v in reversed(fmt.values())]
    assert not fmt.has_zero
    assert fmt.min_positive == 1


@pytest.mark.parametrize("fmt", NAMES.values(), ids=str)
def test_neighbours_differ_in_parity(fmt):
    for low, high in pairwise(fmt.finite):
        assert (fmt.encode(low) + fmt.encode(high)) % 2 == 1


# ----------------------------------------------------------------------------- the value


@pytest.mark.parametrize("fmt", NAMES.values(), ids=str)
def test_codes_and_values_match(fmt):
    for code in fmt.codes():
        assert fmt.encode(fmt.decode(code)) == code
        assert fmt.decode(code) in fmt
    assert fmt.values() == sorted(set(fmt.values()))
    assert 0.3 not in fmt


@pytest.mark.parametrize("fmt", NAMES.values(), ids=str)
def test_formats_survive_every_kind_of_copy(fmt):
    assert TableFormat.parse(str(fmt)) is fmt
    assert named(f" {str(fmt).upper()} ") is fmt
    for other in (
        eval(repr(fmt)),
        copy.deepcopy(fmt),
        pickle.loads(pickle.dumps(fmt)),
        TableFormat.from_dict(json.loads(json.dumps(fmt.to_dict()))),
    ):
        assert other == fmt
        assert hash(other) == hash(fmt)
    with pytest.raises(AttributeError):
        fmt.name = "other"


def test_a_pickled_format_keys_dictionaries_in_another_process():
    code = (
        "import pickle, sys\nfrom fpemu.table_format import NAMES\n"
        "fmt = pickle.load(sys.stdin.buffer)\nassert {NAMES['hif8']: 1}[fmt] == 1"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(HIF8), check=True)


def test_a_table_of_ones_own():
    fmt = TableFormat("ternary", (0, 0.5, None, -0.5))
    assert fmt.values() == [-0.5, 0, 0.5]
    assert fmt.decode(3) == Fraction(-1, 2)
    assert "ternary" in repr(fmt)
    assert TableFormat.from_dict(fmt.to_dict()) == fmt
    with pytest.raises(ValueError, match="stands for nothing"):
        fmt.decode(2)
    with pytest.raises(ValueError, match="member"):
        fmt.encode(0.25)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        fmt.decode(4)
    with pytest.raises(TypeError, match="code"):
        fmt.decode(True)
    assert fmt != TableFormat("ternary", (0, 0.5, NAN, -0.5))


def test_of_several_nans_the_lowest_code_is_written():
    fmt = TableFormat("mine", (0, NAN, 1, NAN))
    assert fmt.nan_code == 1
    assert fmt.decode(3) is NAN


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.1, (0.07958029955625534, 0.16093020141124725)),
        (0, (0, 0)),
        (NEG_ZERO, (0, 0)),
        (1, (1, 1)),
        (1.5, (1, None)),
        (-2, (None, -1)),
        (INF, (1, None)),
        (NEG_INF, (None, -1)),
    ],
)
def test_neighbours(x, expected):
    assert NF4.neighbours(x) == expected


def test_nan_has_no_neighbours():
    with pytest.raises(ValueError, match="NaN"):
        NF4.neighbours(float("nan"))


@pytest.mark.parametrize("fmt", NAMES.values(), ids=str)
def test_html_is_short(fmt):
    assert str(fmt) in fmt._repr_html_()
    assert len(fmt._repr_html_()) < 3000


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, (0, 1)), TypeError, "name"),
        (("No", (0, 1)), ValueError, "name"),
        (("e2m1", (0, 1)), ValueError, "spelling of a Format"),
        (("nf4", (0, 1)), ValueError, "taken"),
        (("t", 3), TypeError, "table"),
        (("t", (0, "1")), TypeError, "real number"),
        (("t", (0, 1, 2)), ValueError, "got 3"),
        (("t", (1,)), ValueError, "got 1"),
        (("t", tuple(range(512))), ValueError, "got 512"),
        (("t", (0, 1, 1, 2)), ValueError, "two codes"),
        (("t", (0, -1)), ValueError, "positive"),
        (("t", (NAN, INF), 3), ValueError, "positive"),
        (("t", (1, NEG_ZERO)), ValueError, "-0"),
        (("t", (0, 1, -1, INF), 2), ValueError, "each sign"),
        (("t", (0, 1, NEG_INF, None), 2), ValueError, "each sign"),
        (("t", (0, INF, 1, None)), ValueError, "beyond"),
        (("t", (0, 1), 2), ValueError, "beyond"),
        (("t", (0, INF, 1, None), 1), ValueError, "larger"),
        (("t", (0, INF, 1, None), INF), ValueError, "finite"),
    ],
)
def test_constructor_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        TableFormat(*arguments)


def test_unknown_names():
    with pytest.raises(ValueError, match="nearest names: bint8"):
        named("bint9")
    with pytest.raises(ValueError, match="names: hif8, nf4, bint1"):
        named("e2m1")
    with pytest.raises(TypeError, match="str"):
        named(4)


# ------------------------------------------------------------------------------ rounding


def reals(fmt: TableFormat) -> list[Fraction]:
    """Values, midpoints and points off them, zero, and the edges; both signs."""
    rungs = sorted({*fmt.finite, Fraction(0), *([fmt.beyond] if fmt.beyond else [])})
    found = set(rungs)
    for low, high in pairwise(rungs):
        found |= {low + (high - low) * Fraction(k, 16) for k in (1, 4, 6, 7, 8, 9, 10, 12, 15)}
    found |= {rungs[-1] * k for k in (Fraction(17, 16), Fraction(3, 2), 4)}
    return sorted(found | {-x for x in found})


@pytest.mark.parametrize(
    "spelling", ["e2m1", "int3", "uint3", "e2m1ieee", "ue3m0nozero", "binary5p3sf", "ue2m1finite"]
)
def test_a_format_given_as_a_table_rounds_as_itself(spelling):
    """Every mode and draw; tables have no NaN to overflow to."""
    fmt = catalog.parse(spelling)
    table = table_of(fmt)
    policies = [p for p in POLICIES if p.overflow is not Overflow.SAT_NONE]
    if fmt.has_inf or not fmt.has_nan:
        policies = POLICIES
    for policy, mode in product(policies, (*Rounding, *STOCHASTIC)):
        for x in (*reals(table), INF, NEG_INF, NAN, NEG_ZERO):
            for draw in draws_of(mode):
                expected = reference.round_value(fmt, x, mode, policy, draw)
                assert round_value(table, x, mode, policy, draw) == expected, (mode, policy, x)


@pytest.mark.parametrize("fmt", SWEPT, ids=str)
@pytest.mark.parametrize("mode", [*Rounding, *STOCHASTIC], ids=str)
def test_values_stay_and_results_are_neighbours_in_order(fmt, mode):
    for value, draw in product(fmt.finite, draws_of(mode)):
        assert round_value(fmt, value, mode, Policy("sat_none"), draw) == value
    inside = [x for x in reals(fmt) if fmt.lowest_value <= x <= fmt.max_value]
    for draw in draws_of(mode):
        results = [round_value(fmt, x, mode, Policy(), draw) for x in inside]
        assert results == sorted(results)
        for x, q in zip(inside, results, strict=True):
            assert float(q) in fmt.neighbours(x)


@pytest.mark.parametrize("fmt", SWEPT, ids=str)
@pytest.mark.parametrize("mode", NEAREST)
def test_nearest_is_nearest(fmt, mode):
    for x in reals(fmt):
        if fmt.lowest_value <= x <= fmt.max_value:
            q = round_value(fmt, x, mode, Policy())
            assert abs(q - x) == min(abs(Fraction(v) - x) for v in fmt.neighbours(x))


@pytest.mark.parametrize("fmt", SWEPT, ids=str)
def test_directed_modes_go_their_way(fmt):
    for x in reals(fmt):
        if fmt.lowest_value <= x <= fmt.max_value:
            below, above = fmt.neighbours(x)
            assert round_value(fmt, x, Rounding.TOWARD_NEGATIVE, Policy()) == below
            assert round_value(fmt, x, Rounding.TOWARD_POSITIVE, Policy()) == above


@pytest.mark.parametrize("fmt", SWEPT, ids=str)
@pytest.mark.parametrize("mode", STOCHASTIC, ids=str)
def test_every_draw_together_gives_the_formula(fmt, mode):
    """The share of draws that goes away from zero; upwards in the gap around zero."""
    for low, high in pairwise(fmt.finite):
        for k in range(17):
            x = low + (high - low) * Fraction(k, 16)
            up = high > 0
            nu = Fraction(k, 16) if up else 1 - Fraction(k, 16)
            expected = {
                Variant.A: nu * 4 // 1,
                Variant.B: (nu * 8 // 1 + 1) // 2,
                Variant.C: round(nu * 4),
                Variant.EQUAL: 1 if nu not in (0, 1) else 2 * nu,
            }[mode.variant]
            outer = high if up else low
            got = [round_value(fmt, x, mode, Policy(), draw) for draw in draws_of(mode)]
            assert got.count(outer) == expected, (x, mode)


# ----------------------------------------------------------------- the gap around zero


@pytest.mark.parametrize("fmt", BIPOLAR, ids=str)
@pytest.mark.parametrize("zero", [Fraction(0), NEG_ZERO], ids=str)
def test_zero_is_a_tie_where_there_is_none(fmt, zero):
    even = Fraction(1 if fmt.encode(1) % 2 == 0 else -1)
    expected = dict.fromkeys(Rounding, even) | {
        Rounding.TOWARD_POSITIVE: 1,
        Rounding.TOWARD_NEGATIVE: -1,
        Rounding.TO_ODD: -even,
    }
    assert {mode: round_value(fmt, zero, mode, Policy()) for mode in Rounding} == expected
    for mode in STOCHASTIC:
        ups = [round_value(fmt, zero, mode, Policy(), draw) for draw in draws_of(mode)]
        assert sum(ups) == 0
        assert ups == sorted(ups)


@pytest.mark.parametrize("fmt", BIPOLAR, ids=str)
def test_in_the_gap_around_zero(fmt):
    for x in (Fraction(1, 3), Fraction(9, 10), Fraction(1, 1 << 200)):
        for mode in (*NEAREST, Rounding.TOWARD_ZERO):
            assert round_value(fmt, x, mode, Policy()) == 1
            assert round_value(fmt, -x, mode, Policy()) == -1
        odd = 1 if fmt.encode(1) % 2 else -1
        assert round_value(fmt, x, Rounding.TO_ODD, Policy()) == odd
        assert round_value(fmt, -x, Rounding.TO_ODD, Policy()) == odd


def test_a_lopsided_gap_around_zero():
    fmt = TableFormat("lopsided", (-1, 3))
    nearest = {x: round_value(fmt, Fraction(x), Rounding.NEAREST_ZERO, Policy()) for x in (0, 1, 2)}
    assert nearest == {0: -1, 1: -1, 2: 3}
    assert round_value(fmt, Fraction(1), Rounding.NEAREST_AWAY, Policy()) == 3
    assert round_value(fmt, Fraction(1), Rounding.NEAREST_EVEN, Policy()) == -1
    assert round_value(fmt, Fraction(1, 9), Rounding.TOWARD_ZERO, Policy()) == 3
    assert round_value(fmt, Fraction(0), Rounding.TOWARD_ZERO, Policy()) == -1
    assert round_value(fmt, Fraction(0), Rounding.NEAREST_AWAY, Policy()) == -1


def test_without_parity_the_nearer_to_zero_is_even():
    fmt = TableFormat("gray", (0, 5, 1, 2, -4, None, -2, None))
    for sign, low, high in ((1, 0, 1), (1, 2, 5), (-1, 0, 2), (-1, 2, 4)):
        x = Fraction(sign * (low + high), 2)
        assert round_value(fmt, x, Rounding.NEAREST_EVEN, Policy()) == sign * low
        assert round_value(fmt, x, Rounding.TO_ODD, Policy()) == sign * high
    gap = TableFormat("gap", (-1, None, 3, None))
    assert round_value(gap, Fraction(1), Rounding.NEAREST_EVEN, Policy()) == -1
    assert round_value(gap, Fraction(1), Rounding.TO_ODD, Policy()) == 3
    gap = TableFormat("gap", (-3, None, 1, None))
    assert round_value(gap, Fraction(-1), Rounding.NEAREST_EVEN, Policy()) == 1
    assert round_value(gap, Fraction(-1), Rounding.TO_ODD, Policy()) == -3


# ------------------------------------------------------------------------------ policies


def test_overflow_of_hif8():
    for sign, infinity in ((1, INF), (-1, NEG_INF)):
        far, top = Fraction(sign << 20), sign << 15
        for mode in (*NEAREST, *STOCHASTIC):
            assert round_value(HIF8, far, mode, Policy()) is infinity
            assert round_value(HIF8, far, mode, Policy("sat_finite")) == top
            assert round_value(HIF8, far, mode, Policy("sat_propagate")) == top
        for mode in (Rounding.TOWARD_ZERO, Rounding.TO_ODD):
            assert round_value(HIF8, far, mode, Policy()) == top
        assert round_value(HIF8, infinity, Rounding.TOWARD_ZERO, Policy()) is infinity
        assert (
            round_value(HIF8, infinity, Rounding.TOWARD_ZERO, Policy("sat_propagate")) is infinity
        )
        assert round_value(HIF8, infinity, Rounding.TOWARD_ZERO, Policy("sat_finite")) == top


@pytest.mark.parametrize("policy", POLICIES)
def test_without_infinities_everything_saturates(policy):
    for fmt, mode in product((NF4, *BIPOLAR), Rounding):
        for x, top in ((Fraction(1000), fmt.max), (INF, fmt.max), (NEG_INF, fmt.min)):
            assert round_value(fmt, x, mode, policy) == top


def test_nan_and_the_policy():
    for fmt in NAMES.values():
        assert round_value(fmt, NAN, Rounding.TO_ODD, Policy()) is NAN
    assert round_value(NF4, NAN, Rounding.TO_ODD, Policy(nan="zero", nan_in_values=True)) == 0
    assert round_value(NF4, NAN, Rounding.TO_ODD, Policy(nan="max", nan_in_values=True)) == 1
    signed = TableFormat("signed", (0, 1, NEG_ZERO, -1))
    negative = Policy(nan=NanRule.NEGATIVE_ZERO, nan_in_values=True)
    assert round_value(signed, NAN, Rounding.TO_ODD, negative) is NEG_ZERO
    assert round_value(NF4, NAN, Rounding.TO_ODD, negative) == 0


def test_the_sign_of_zero():
    signed = TableFormat("signed", (0, 1, NEG_ZERO, -1))
    tiny = Fraction(-1, 9)
    for rule, from_input, from_tiny in (
        (ZeroSign.KEEP, NEG_ZERO, NEG_ZERO),
        (ZeroSign.DROP_INPUT, 0, NEG_ZERO),
        (ZeroSign.DROP, 0, 0),
    ):
        policy = Policy(zero_sign=rule)
        assert round_value(signed, NEG_ZERO, Rounding.NEAREST_EVEN, policy) == from_input
        assert round_value(signed, tiny, Rounding.NEAREST_EVEN, policy) == from_tiny
    for fmt in (NF4, HIF8):
        assert round_value(fmt, NEG_ZERO, Rounding.NEAREST_EVEN, Policy()) == 0
        assert round_value(fmt, Fraction(-1, 1 << 90), Rounding.NEAREST_EVEN, Policy()) == 0


@pytest.mark.parametrize(
    "policy",
    [Policy(infinity_always=True), Policy(magnitude_only=True), Policy(through_float32=True)],
)
def test_imitations_are_refused(policy):
    with pytest.raises(ValueError, match="must leave"):
        round_value(NF4, Fraction(1), Rounding.NEAREST_EVEN, policy)


def test_policies_by_name():
    assert parse_table_policy(None, NF4) == Policy()
    assert parse_table_policy("sat_finite", HIF8) == Policy(Overflow.SAT_FINITE)
    for name in ("ml_dtypes", " Torch"):
        with pytest.raises(ValueError, match="imitates a library"):
            parse_table_policy(name, NF4)
    with pytest.raises(ValueError, match="needs a zero"):
        parse_table_policy(Policy(nan="zero"), NAMES["bint4"])
    with pytest.raises(ValueError, match="sat_finite"):
        parse_table_policy("saturate", NF4)
    with pytest.raises(TypeError, match="policy"):
        parse_table_policy(3, NF4)


def test_pseudo_rounding_is_no_rounding_of_one_value():
    with pytest.raises(TypeError, match="deterministic or stochastic"):
        round_value(NF4, Fraction(1), PseudoNoise(bits=4), Policy())
