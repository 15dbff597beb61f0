"""explain, diff and the notebook display: what they say, and that it agrees with rounding."""

from __future__ import annotations

import json
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpemu
from fpemu.describe import Explanation, FormatDiff, diff, explain
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import PRESETS, Overflow, Policy
from fpemu.reference import quantize_scalar
from fpemu.rounding import Rounding, Stochastic
from fpemu.testing import strategies as fst
from fpemu.values import Special, as_value

parse = Format.parse


class Checker(HTMLParser):
    """Collects text, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert tag in {"div", "span", "table", "caption", "tr", "th", "td"}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def html_text(shown: object) -> str:
    checker = Checker()
    checker.feed(shown._repr_html_())  # type: ignore[attr-defined]
    assert checker.open == []
    return checker.text


# ---------------------------------------------------------------------------------- explain


def test_explain_tells_everything_about_one_value() -> None:
    told = explain(0.3, "e4m3fn")
    assert told == Explanation(
        x=Fraction(0.3),
        fmt=parse("e4m3fn"),
        below=0.28125,
        above=0.3125,
        ulp=0.03125,
        position=(Fraction(0.3) - Fraction(9, 32)) * 32,
        is_tie=False,
        rounding=Rounding.NEAREST_EVEN,
        draw=None,
        policy=Policy(),
        notes=(),
        result=0.3125,
        code=0x2A,
        hex="0x2a",
        bits="0|0101|010",
    )
    assert str(told) == "\n".join(
        [
            "0.3 in e4m3fn",
            "  input     0.3 = 5404319552844595*2**-54",
            "  below     0.28125  0x29  0|0101|001",
            "  above     0.3125  0x2a  0|0101|010",
            "  ulp       0.03125",
            "  position  0.6",
            "  rounding  nearest_even",
            "  policy    sat_finite (default)",
            "  result    0.3125  0x2a  0|0101|010",
        ]
    )


def test_explain_names_a_tie() -> None:
    for x, result in ((1.0625, 1), (1.1875, 1.25), (-1.0625, -1), (2.0**-10, 0)):
        told = explain(x, "e4m3fn")
        assert told.is_tie
        assert told.position == Fraction(1, 2)
        assert told.result == result
        assert "0.5, a tie" in str(told)
    assert not explain(np.nextafter(1.0625, 2), "e4m3fn").is_tie
    assert not explain(1.125, "e4m3fn").is_tie
    edge = explain(464, "e4m3fn")
    assert (edge.below, edge.above, edge.position, edge.is_tie) == (448, None, None, True)
    assert "beyond the end, a tie" in str(edge)
    assert explain(-464, "e4m3fn").is_tie
    assert not explain(465, "e4m3fn").is_tie
    assert not explain(480, "e4m3fn").is_tie


def test_explain_of_a_member() -> None:
    told = explain(-1.5, "e2m1")
    assert (told.below, told.above, told.position, told.is_tie) == (-1.5, -1.5, 0, False)
    assert (told.result, told.hex, told.bits) == (-1.5, "0xb", "1|01|1")
    assert "a value of the format" in str(told)


@pytest.mark.parametrize(
    ("x", "fmt", "arguments", "result", "code", "note"),
    [
        (1e9, "e4m3fn", {}, 448, 0x7E, "beyond the range: sat_finite with nearest_even gives 448"),
        (1e9, "e4m3fn", {"policy": "sat_none"}, Special.NAN, 0x7F, "sat_none with nearest_even"),
        (1e9, "e5m2", {}, Special.POS_INF, 0x7C, "gives inf"),
        (-1e9, "e5m2", {"rounding": "toward_zero"}, -57344, 0xFB, "with toward_zero gives -57344"),
        (float("inf"), "e4m3fn", {}, 448, 0x7E, "infinite input: sat_finite gives 448"),
        (float("-inf"), "e5m2", {}, Special.NEG_INF, 0xFC, "infinite input: sat_none gives -inf"),
        (float("nan"), "e4m3fn", {}, Special.NAN, 0x7F, None),
        (float("nan"), "e2m1", {}, Special.NAN, None, "no code for NaN: nan='error'"),
        (float("nan"), "e2m1", {"policy": Policy(nan="max")}, Special.NAN, 7, "nan='max'"),
        (float("nan"), "e2m1", {"policy": Policy(nan="zero")}, Special.NAN, 0, "nan='zero'"),
        (-0.0, "e4m3fn", {}, Special.NEG_ZERO, 0x80, None),
        (-0.0, "e4m3fnuz", {}, 0, 0, "-0 becomes 0"),
        (-1e-30, "e4m3fn", {}, Special.NEG_ZERO, 0x80, "underflow to -0"),
        (1e-30, "e4m3fn", {}, 0, 0, "underflow to 0"),
        (1e-30, "e4m3fn", {"rounding": "toward_positive"}, 2.0**-9, 1, None),
        (-3, "ue4m3", {}, 0, 0, "negative in an unsigned format: sat_finite gives 0"),
        (-3, "ue4m3", {"policy": "sat_none"}, Special.NAN, 0x7F, "unsigned format: sat_none"),
        (-1e-30, "ue4m3", {}, 0, 0, "underflow to 0"),
        (0, "e8m0", {}, 2.0**-127, 0, "no zero and nothing below it"),
        (-2, "e8m0", {"policy": "sat_none"}, Special.NAN, 0xFF, "sat_none gives nan"),
        (2.0**-140, "e8m0", {}, 2.0**-127, 0, "underflow to the smallest value"),
        (300, "int8", {}, 127, 0x7F, "gives 127"),
        (-300, "int8", {}, -128, 0x80, "gives -128"),
        (1.0625 + 1e-12, "e4m3fn", {"policy": "ml_dtypes"}, 1, 0x38, "to fp32 first: 1.0625"),
        (1.0625 + 1e-12, "e4m3fn", {}, 1.125, 0x39, None),
        (float("inf"), "e2m1", {"policy": "microxcaling"}, Special.POS_INF, None, "infinite input"),
    ],
)
def test_explain_says_which_rule_applied(
    x: float, fmt: str, arguments: dict, result: object, code: int | None, note: str | None
) -> None:
    told = explain(x, fmt, **arguments)
    assert told.result == result
    assert told.code == code
    if note is None:
        assert told.notes == ()
    else:
        assert note in " ".join(told.notes)
        assert note in str(told)
    assert ("no code" in str(told).splitlines()[-1]) == (code is None)


def test_explain_draws_as_an_array_would() -> None:
    key = Key(7, stream=2)
    mode = Stochastic(8)
    told = explain(0.3, "e4m3fn", mode, key=key, index=5)
    assert told.draw == key.lane(5, 8)
    assert f"stochastic:8, draw {told.draw} of 2**8" in str(told)
    drawn = [explain(0.3, "e4m3fn", "stochastic:8:C", key=key, index=i).result for i in range(64)]
    assert (
        drawn
        == fpemu.quantize(
            np.full(64, 0.3), "e4m3fn", rounding="stochastic:8:C", key=key, backend="numpy"
        ).tolist()
    )
    assert set(drawn) == {0.28125, 0.3125}


@given(
    fst.formats(max_bits=16),
    st.floats() | st.floats(width=16),
    st.sampled_from(Rounding),
    st.sampled_from([None, *Overflow]),
)
def test_explain_agrees_with_the_reference(
    fmt: Format, x: float, rounding: Rounding, overflow: Overflow | None
) -> None:
    policy = Policy(overflow)
    told = explain(x, fmt, rounding, policy)
    assert told.x == as_value(x)
    assert told.result == quantize_scalar(x, fmt, rounding=rounding, policy=policy)
    assert (told.code is None) == (told.result not in fmt)
    if told.code is not None:
        assert fmt.decode(told.code) == as_value(told.result)
        assert int(told.hex or "", 16) == told.code
        assert int((told.bits or "").replace("|", ""), 2) == told.code
        assert len((told.bits or "").replace("|", "")) == fmt.bits
    assert str(told).count("\n") >= 5
    assert str(fmt) in html_text(told)


@given(fst.formats(max_bits=10), st.integers(-(2**12), 2**12), st.integers(-30, 30))
def test_position_and_tie_agree_with_the_neighbours(fmt: Format, n: int, exponent: int) -> None:
    x = n * Fraction(2) ** exponent
    told = explain(x, fmt)
    assert (told.below, told.above) == fmt.neighbours(x)
    if told.below is not None and told.above is not None:
        low, high = Fraction(told.below), Fraction(told.above)
        assert told.position is not None
        assert low + told.position * (high - low) == x
        assert told.is_tie == (x not in fmt and 2 * x == low + high)
    else:
        assert told.position is None


@pytest.mark.parametrize("policy", [None, *Overflow, *PRESETS])
@pytest.mark.parametrize("fmt", ["e4m3fn", "e5m2", "e2m1", "e8m0", "e4m3fnuz", "ue4m3", "int8"])
def test_explain_agrees_with_arrays(fmt: str, policy: str | None) -> None:
    inf, nan = float("inf"), float("nan")
    x = [0.3, -0.0, 0.0, 1.0625 + 1e-12, -1.1, 464, 465, -1e9, 1e-300, -1e-9, inf, -inf, nan]
    told = [explain(value, fmt, policy=policy).result for value in x]
    rounded = fpemu.quantize(np.array(x), fmt, policy=policy, backend="numpy")
    assert [as_value(value) for value in told] == [as_value(value) for value in rounded]


def test_explain_takes_any_real_number_and_no_other() -> None:
    third = explain(Fraction(1, 3), "fp16")
    assert third.x == Fraction(1, 3)
    assert "1/3" in str(third)
    assert explain(np.float32(0.1), "fp32").position == 0
    assert explain(10**400, "fp16").result is Special.POS_INF
    assert explain(Special.NEG_ZERO, "fp16").bits == "1|00000|0000000000"
    assert explain(Format(16, 40).max, Format(16, 40)).position == 0
    for wrong in ("0.3", None, [0.3], 1j):
        with pytest.raises(TypeError, match="x must be a real number"):
            explain(wrong, "fp16")


def test_explain_refuses_what_it_cannot_tell() -> None:
    with pytest.raises(ValueError, match="key must be given with rounding='stochastic'"):
        explain(0.3, "e4m3fn", "stochastic")
    with pytest.raises(TypeError, match="rounding must round a single value"):
        explain(0.3, "e4m3fn", "pseudo_gaussian:4", key=1)
    with pytest.raises(ValueError, match="rounding must be one of"):
        explain(0.3, "e4m3fn", "nearest")
    with pytest.raises(ValueError, match="policy must be"):
        explain(0.3, "e4m3fn", policy="saturate")
    with pytest.raises(ValueError, match="is not a format"):
        explain(0.3, "e4m3x")


@pytest.mark.parametrize(
    ("fmt", "x", "bits"),
    [
        ("fp16", 1, "0|01111|0000000000"),
        ("e8m0", 1, "01111111"),
        ("ue4m3", 1, "0111|000"),
        ("int8", -1, "11111111"),
        ("e0m3finite", -0.5, "1|100"),
        ("e3m0finite", 1, "0|011"),
    ],
)
def test_bits_are_split_into_the_fields_there_are(fmt: str, x: float, bits: str) -> None:
    assert explain(x, fmt).bits == bits


# ------------------------------------------------------------------------------------- diff


def test_diff_shows_fields_limits_and_behaviours() -> None:
    told = diff("e4m3", "e4m3fnuz")
    assert isinstance(told, FormatDiff)
    assert told.fields == (("bias", "7", "8"), ("specials", "ieee", "fnuz"))
    limits = {name: pair for name, *pair in told.limits}
    assert limits["max"] == ["240", "240"]
    assert limits["smallest subnormal"] == ["0.001953125", "0.0009765625"]
    assert limits["inf"] == ["yes", "no"]
    behaviours = {name: pair for name, *pair in told.behaviours}
    assert behaviours["1"] == ["1  0x38  0|0111|000", "1  0x40  0|1000|000"]
    assert behaviours["overflow, 480"] == ["inf  0x78  0|1111|000", "240  0x7f  0|1111|111"]
    assert behaviours["nan"] == ["nan  0x7c  0|1111|100", "nan  0x80  1|0000|000"]
    assert behaviours["-0"] == ["-0  0x80  1|0000|000", "0  0x00  0|0000|000"]
    assert (told.a_in_b, told.b_in_a) == (True, False)
    assert (told.only_in_a, told.only_in_a_count) == ((), 0)
    assert told.only_in_b_count == 16
    assert told.only_in_b[:3] == (2.0**-10, -(2.0**-10), 3 * 2.0**-10)


def test_diff_of_a_format_with_itself() -> None:
    told = diff("e2m1", parse("e2m1"))
    assert told.fields == ()
    assert "no field differs" in str(told)
    assert told.a_in_b
    assert told.b_in_a
    assert told.only_in_a_count == told.only_in_b_count == 0


def test_diff_shows_no_code_where_there_is_none() -> None:
    behaviours = {name: pair for name, *pair in diff("e2m1", "e4m3fn").behaviours}
    assert behaviours["nan"] == ["nan  no code", "nan  0x7f  0|1111|111"]


def test_diff_of_wide_formats_gives_a_witness() -> None:
    told = diff("fp16", "bf16")
    assert told.only_in_a_count is None
    assert told.only_in_b_count is None
    assert told.only_in_a == (65504,)
    assert "65504, for example" in str(told)
    assert diff("bf16", "fp32").only_in_a_count == 0
    assert diff(Format(16, 40), "fp64").b_in_a is False


@given(fst.formats(max_bits=8), fst.formats(max_bits=8))
def test_diff_agrees_with_the_value_sets(a: Format, b: Format) -> None:
    told = diff(a, b)
    only_a, only_b = set(a.values()) - set(b.values()), set(b.values()) - set(a.values())
    assert told.only_in_a_count == len(only_a)
    assert told.only_in_b_count == len(only_b)
    assert set(told.only_in_a) <= only_a
    assert set(told.only_in_b) <= only_b
    assert (told.a_in_b, told.b_in_a) == (a <= b, b <= a)
    mirrored = diff(b, a)
    assert mirrored.fields == tuple((name, y, x) for name, x, y in told.fields)
    assert len({len(row) for row in told.limits + told.behaviours}) == 1
    assert str(a) in str(told)
    assert str(b) in html_text(told)


def test_diff_lines_are_aligned() -> None:
    lines = str(diff("fp32", "e2m1")).splitlines()
    column = lines[0].index("e2m1")
    rows = [line for line in lines if line.startswith("  ") and len(line) > column]
    assert all(line[column - 1] == " " != line[column] for line in rows)
    assert all(line == line.rstrip() for line in lines)


# ----------------------------------------------------------------------------- the notebook


@given(fst.formats(max_bits=64, container=None))
def test_a_format_shows_its_bits_and_numbers(fmt: Format) -> None:
    text = html_text(fmt)
    assert str(fmt) in text
    assert str(fmt.specials) in text
    for name in ("bias", "max", "smallest normal", "eps", "subnormals"):
        assert name in text
    if fmt.mantissa_bits and fmt.specials != "twos":
        assert f"mantissa {fmt.mantissa_bits}" in text
    assert ("sign 1" in text) == (fmt.signed and fmt.specials != "twos")


def test_the_display_of_known_formats() -> None:
    shown = html_text(parse("e4m3fn"))
    for piece in ("sign 1", "exponent 4", "mantissa 3", "448", "0.015625", "0.001953125"):
        assert piece in shown
    assert "two's complement 8" in html_text(parse("int8"))


def test_text_is_escaped() -> None:
    page = parse("int8")._repr_html_()
    assert "two&#x27;s complement" in page
    assert "<script" not in page


def test_the_results_are_values() -> None:
    assert explain(1, "fp16") == explain(1.0, "binary16")
    assert hash(explain(1, "fp16")) == hash(explain(1.0, "binary16"))
    assert diff("fp16", "bf16") == diff("float16", "bfloat16")
    assert json.dumps(explain(1, "fp16").rows())
