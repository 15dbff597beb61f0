"""Formats: the published tables, the constructor's rules, codes, and the order of values."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpemu.formats import Format, Specials, Subnormals
from fpemu.testing import strategies as fst
from fpemu.values import Special, as_value, exponent_of, real

parse = Format.parse
NAN, INF, NEG_INF, NEG_ZERO = Special.NAN, Special.POS_INF, Special.NEG_INF, Special.NEG_ZERO


def formats_of(bits: range) -> Iterator[Format]:
    """Every valid format of so many bits with its default bias."""
    for e, m, signed in product(range(9), range(9), (True, False)):
        if e + m + signed in bits:
            for specials, subnormals in product(Specials, Subnormals):
                try:
                    yield Format(e, m, signed=signed, specials=specials, subnormals=subnormals)
                except ValueError:
                    continue


UP_TO_6_BITS = list(formats_of(range(1, 7)))
UP_TO_8_BITS = list(formats_of(range(1, 9)))


def naive_value(fmt: Format, code: int) -> Fraction | Special:
    """The value of a code from the text of the standards, in floats, field by field."""
    e, m = fmt.exponent_bits, fmt.mantissa_bits
    if fmt.specials is Specials.TWOS:
        signed = code - (1 << m + 1) if code >= 1 << m else code
        return Fraction(signed) * Fraction(2) ** (1 - fmt.bias - m)
    negative = fmt.signed and code >> (e + m) == 1
    body = code - (negative << (e + m))
    field, trailing = body >> m, body % (1 << m)
    top_field, ones = (1 << e) - 1, (1 << (e + m)) - 1
    minus_zero = negative and body == 0
    match fmt.specials:
        case Specials.IEEE if field == top_field:
            return NAN if trailing else (NEG_INF if negative else INF)
        case Specials.FN | Specials.E8M0 if body == ones:
            return NAN
        case Specials.FNUZ | Specials.P3109_EXTENDED | Specials.P3109_FINITE if minus_zero:
            return NAN
        case Specials.P3109_EXTENDED if fmt.signed and body == ones:
            return NEG_INF if negative else INF
        case Specials.P3109_EXTENDED if not fmt.signed and body >= ones - 1:
            return NAN if body == ones else INF
        case Specials.P3109_FINITE if not fmt.signed and body == ones:
            return NAN
    if field or fmt.subnormals is Subnormals.NONE:
        value = (1 + Fraction(trailing, 1 << m)) * Fraction(2) ** (field - fmt.bias)
    elif fmt.subnormals is Subnormals.FLUSH:
        value = Fraction(0)
    else:
        value = Fraction(trailing, 1 << m) * Fraction(2) ** (1 - fmt.bias)
    if negative and value == 0:
        return Fraction(0) if fmt.specials is Specials.FNUZ else NEG_ZERO  # fnuz has no -0
    return -value if negative else value


# ---------------------------------------------------------------------- published tables

TABLE = [
    # name, sign/exponent/mantissa bits, bias, max, min normal, min subnormal, inf, nan, -0
    ("e2m1", (1, 2, 1), 1, 6, 1, 0.5, False, False, True),
    ("e2m3", (1, 2, 3), 1, 7.5, 1, 0.125, False, False, True),
    ("e3m2", (1, 3, 2), 3, 28, 0.25, 0.0625, False, False, True),
    ("e4m3fn", (1, 4, 3), 7, 448, 2**-6, 2**-9, False, True, True),
    ("e5m2", (1, 5, 2), 15, 57344, 2**-14, 2**-16, True, True, True),
    ("e4m3", (1, 4, 3), 7, 240, 2**-6, 2**-9, True, True, True),
    ("e3m4", (1, 3, 4), 3, 15.5, 0.25, 2**-6, True, True, True),
    ("e3m4fn", (1, 3, 4), 3, 30, 0.25, 2**-6, False, True, True),  # Intel's toolkit
    ("e4m3fnuz", (1, 4, 3), 8, 240, 2**-7, 2**-10, False, True, False),
    ("e5m2fnuz", (1, 5, 2), 16, 57344, 2**-15, 2**-17, False, True, False),
    ("e4m3b11fnuz", (1, 4, 3), 11, 30, 2**-10, 2**-13, False, True, False),
    ("e8m0", (0, 8, 0), 127, 2.0**127, 2.0**-127, None, False, True, False),
    ("bf16", (1, 8, 7), 127, (2 - 2**-7) * 2.0**127, 2.0**-126, 2.0**-133, True, True, True),
    ("fp16", (1, 5, 10), 15, 65504, 2**-14, 2**-24, True, True, True),
    ("tf32", (1, 8, 10), 127, (2 - 2**-10) * 2.0**127, 2.0**-126, 2.0**-136, True, True, True),
    ("fp32", (1, 8, 23), 127, (2 - 2**-23) * 2.0**127, 2.0**-126, 2.0**-149, True, True, True),
    ("fp64", (1, 11, 52), 1023, 1.7976931348623157e308, 2.0**-1022, 5e-324, True, True, True),
    ("mxint8", (1, 0, 7), 0, 127 / 64, None, 1 / 64, False, False, False),
    ("int8", (1, 0, 7), -6, 127, None, 1, False, False, False),
    ("int4", (1, 0, 3), -2, 7, None, 1, False, False, False),
    ("ue4m3", (0, 4, 3), 7, 448, 2**-6, 2**-9, False, True, False),
    ("ue5m3", (0, 5, 3), 15, 114688, 2**-14, 2**-17, False, True, False),
    ("ue5m3finite", (0, 5, 3), 15, 122880, 2**-14, 2**-17, False, False, False),
    ("ue5m3ieee", (0, 5, 3), 15, 61440, 2**-14, 2**-17, True, True, False),
    # IEEE P3109 interim report 4.0
    ("binary8p3se", (1, 5, 2), 16, 49152, 2**-15, 2**-17, True, True, False),
    ("binary8p3sf", (1, 5, 2), 16, 57344, 2**-15, 2**-17, False, True, False),
    ("binary8p4se", (1, 4, 3), 8, 224, 2**-7, 2**-10, True, True, False),
    ("binary8p4sf", (1, 4, 3), 8, 240, 2**-7, 2**-10, False, True, False),
    ("binary8p5se", (1, 3, 4), 4, 15, 2**-3, 2**-7, True, True, False),
    ("binary8p1uf", (0, 8, 0), 128, 2.0**126, 2.0**-127, None, False, True, False),
    ("binary6p3sf", (1, 3, 2), 4, 14, 2**-3, 2**-5, False, True, False),
    ("binary6p4sf", (1, 2, 3), 2, 3.75, 0.5, 2**-4, False, True, False),
    ("binary4p2sf", (1, 2, 1), 2, 3, 0.5, 0.25, False, True, False),
    ("binary4p2se", (1, 2, 1), 2, 2, 0.5, 0.25, True, True, False),
    ("binary3p2sf", (1, 1, 1), 1, 1.5, 1, 0.5, False, True, False),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_a_format_has_the_published_numbers(row: tuple) -> None:
    name, (sign, e, m), bias, largest, normal, subnormal, inf, nan, negative_zero = row
    fmt = parse(name)
    assert (int(fmt.signed), fmt.exponent_bits, fmt.mantissa_bits) == (sign, e, m)
    assert (fmt.bits, fmt.bias) == (sign + e + m, bias)
    assert (fmt.max, fmt.min_normal, fmt.min_subnormal) == (largest, normal, subnormal)
    assert fmt.min_positive == (normal if subnormal is None else subnormal)
    assert (fmt.has_inf, fmt.has_nan, fmt.has_negative_zero) == (inf, nan, negative_zero)


@pytest.mark.parametrize(
    ("name", "code", "value"),
    [
        ("e4m3fn", 0x7F, NAN),
        ("e4m3fn", 0xFF, NAN),
        ("e4m3fn", 0x7E, 448),
        ("e5m2", 0x7C, INF),
        ("e5m2", 0xFC, NEG_INF),
        ("e5m2", 0x7D, NAN),
        ("e5m2", 0x7E, NAN),
        ("e5m2", 0x7F, NAN),
        ("e5m2", 0x7B, 57344),
        ("e3m4fn", 0x7F, NAN),
        ("e3m4fn", 0x7E, 30),
        ("e4m3fnuz", 0x80, NAN),
        ("e5m2fnuz", 0x80, NAN),
        ("e4m3b11fnuz", 0x80, NAN),
        ("e8m0", 0xFF, NAN),
        ("e8m0", 0x00, Fraction(1, 2**127)),
        ("e8m0", 0xFE, 2**127),
        ("e8m0", 0x7F, 1),
        ("mxint8", 0x80, -2),
        ("mxint8", 0x7F, Fraction(127, 64)),
        ("mxint8", 0xFF, Fraction(-1, 64)),
        ("int4", 0x8, -8),
        ("ue4m3", 0x7E, 448),
        ("ue4m3", 0x7F, NAN),
        ("ue5m3", 0xFE, 114688),
        ("ue5m3", 0xFF, NAN),
        ("ue5m3", 0x00, 0),
        ("ue5m3", 0x07, Fraction(7, 2**17)),
        ("ue5m3finite", 0xFF, 122880),
        ("ue5m3ieee", 0xF8, INF),
        ("ue5m3ieee", 0xF7, 61440),
        ("binary8p4se", 0x80, NAN),
        ("binary8p4se", 0x7F, INF),
        ("binary8p4se", 0xFF, NEG_INF),
        ("binary8p4se", 0x48, 2),
        ("binary8p4sf", 0x7F, 240),
        ("binary8p1uf", 0x00, 0),
        ("binary8p1uf", 0x01, Fraction(1, 2**127)),
        ("binary8p1uf", 0xFE, 2**126),
        ("binary8p1uf", 0xFF, NAN),
        ("binary8p1ue", 0xFE, INF),
        ("binary8p1ue", 0xFF, NAN),
    ],
)
def test_a_code_has_the_published_value(name: str, code: int, value: object) -> None:
    assert parse(name).decode(code) == value


@pytest.mark.parametrize(
    ("name", "magnitudes"),
    [
        ("e2m1", [0, 0.5, 1, 1.5, 2, 3, 4, 6]),
        ("binary4p2sf", [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3]),
        ("binary4p2se", [0, 0.25, 0.5, 0.75, 1, 1.5, 2]),
        ("binary3p2sf", [0, 0.5, 1, 1.5]),
        ("e0m2b0twos", [0, 0.5, 1, 1.5]),
        ("ue2m0b0nozero", [1, 2, 4]),
        ("e2m1_flush", [0, 1, 1.5, 2, 3]),
        ("e0m2finite", [0, 0.25, 0.5, 0.75]),
        ("e3m0finite", [0, 0.25, 0.5, 1, 2, 4, 8, 16]),
    ],
)
def test_small_formats_list_their_values(name: str, magnitudes: list[float]) -> None:
    fmt = parse(name)
    assert [real(v) for v in fmt.magnitudes()] == magnitudes
    negative = [-v for v in reversed(magnitudes) if v] if fmt.signed else []
    lowest = [-2.0] if name == "e0m2b0twos" else []
    assert fmt.values() == [*lowest, *negative, *magnitudes]


@pytest.mark.parametrize(("k", "p"), [(k, p) for k in range(3, 17) for p in range(1, k + 1)])
def test_p3109_formats_follow_the_draft(k: int, p: int) -> None:
    """Bias, limits and the places of NaN and the infinities, for every K, P, sign and domain."""
    for sign, domain in product("su", "ef"):
        if p == k and sign == "s":
            continue
        try:
            fmt = parse(f"binary{k}p{p}{sign}{domain}")
        except ValueError as error:
            assert "no positive finite value" in str(error)  # noqa: PT017
            continue
        assert fmt.bits == k
        assert fmt.precision == p
        assert fmt.bias == 2 ** (k - p - (sign == "s"))
        assert 1 in fmt or fmt.max < 1
        half, last = 1 << (k - 1), (1 << k) - 1
        nans = {half} if sign == "s" else {last}
        infinities = {} if domain == "f" else {half - 1: INF, last: NEG_INF}
        if domain == "e" and sign == "u":
            infinities = {last - 1: INF}
        if k <= 8:
            decoded = {code: fmt.decode(code) for code in fmt.codes()}
            assert {c for c, v in decoded.items() if v is NAN} == nans
            assert {c: v for c, v in decoded.items() if v in (INF, NEG_INF)} == infinities
            assert NEG_ZERO not in decoded.values()
        else:
            assert {fmt.decode(code) for code in nans} == {NAN}
            assert all(fmt.decode(code) is value for code, value in infinities.items())


# --------------------------------------------------------------------- numpy and ml_dtypes

NUMPY = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


@pytest.mark.parametrize("name", NUMPY)
def test_limits_are_those_of_numpy(name: str) -> None:
    fmt, theirs = parse(name), np.finfo(NUMPY[name])
    mine = fmt.finfo
    assert (mine.max, mine.min, mine.eps) == (theirs.max, theirs.min, theirs.eps)
    assert mine.smallest_normal == mine.tiny == theirs.smallest_normal
    assert mine.smallest_subnormal == theirs.smallest_subnormal
    assert (mine.bits, mine.nexp, mine.nmant) == (theirs.bits, theirs.nexp, theirs.nmant)
    assert (mine.minexp, mine.maxexp) == (theirs.minexp, theirs.maxexp)
    assert mine.precision == theirs.precision
    assert mine.dtype == name


def test_every_float16_code_decodes_as_numpy_reads_it() -> None:
    fmt = parse("fp16")
    theirs = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for code in range(0, 1 << 16, 7):
        assert matches(fmt.decode(code), float(theirs[code])), code


@given(st.floats(allow_nan=False))
def test_float64_codes_are_the_machine_bits(x: float) -> None:
    code = int(np.float64(x).view(np.uint64))
    fmt = parse("fp64")
    assert fmt.encode(x) == code
    assert fmt.decode(code) == as_value(x)


@given(st.floats(width=32, allow_nan=False))
def test_float32_codes_are_the_machine_bits(x: float) -> None:
    assert parse("fp32").encode(x) == int(np.float32(x).view(np.uint32))


MIRRORED = {
    "float4_e2m1fn": "e2m1",
    "float6_e2m3fn": "e2m3",
    "float6_e3m2fn": "e3m2",
    "float8_e3m4": "e3m4",
    "float8_e4m3": "e4m3",
    "float8_e4m3fn": "e4m3fn",
    "float8_e4m3fnuz": "e4m3fnuz",
    "float8_e4m3b11fnuz": "e4m3b11fnuz",
    "float8_e5m2": "e5m2",
    "float8_e5m2fnuz": "e5m2fnuz",
    "float8_e8m0fnu": "e8m0",
    "bfloat16": "bf16",
}


@pytest.mark.parametrize("theirs", MIRRORED)
def test_every_code_decodes_as_in_ml_dtypes(theirs: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    fmt = parse(MIRRORED[theirs])
    assert parse(theirs) == fmt
    dtype = np.dtype(getattr(ml_dtypes, theirs))
    step = 1 if fmt.bits <= 8 else 13
    codes = np.arange(0, 1 << fmt.bits, step, dtype=np.uint8 if fmt.bits <= 8 else np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        read = codes.view(dtype).astype(np.float64)
    for code, value in zip(codes.tolist(), read.tolist(), strict=True):
        assert matches(fmt.decode(code), value), code


@pytest.mark.parametrize("bits", [2, 4])
def test_integers_decode_as_in_ml_dtypes(bits: int) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in (f"int{bits}", f"uint{bits}"):
        fmt, dtype = parse(name), np.dtype(getattr(ml_dtypes, name))
        read = np.arange(1 << bits, dtype=np.uint8).astype(dtype).astype(np.float64)
        assert [fmt.decode(code) for code in fmt.codes()] == read.tolist()


def matches(value: Fraction | Special, x: float) -> bool:
    if math.isnan(x):
        return value is NAN
    return value == as_value(x)


# ------------------------------------------------------------------------------------ codes


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_code_has_the_value_of_its_fields(bits: int) -> None:
    for fmt in UP_TO_8_BITS:
        if fmt.bits == bits:
            for code in fmt.codes():
                assert fmt.decode(code) == naive_value(fmt, code), (fmt, code)


def test_encoding_a_decoded_code_gives_the_code_back() -> None:
    for fmt in UP_TO_8_BITS:
        for code in fmt.codes():
            value = fmt.decode(code)
            again = fmt.encode(value)
            assert fmt.decode(again) == value
            assert value in fmt
            # NaN has one canonical code; under flush many codes stand for zero.
            if value is not NAN and not (
                fmt.subnormals is Subnormals.FLUSH and value in (0, NEG_ZERO)
            ):
                assert again == code, (fmt, code)


def test_the_canonical_nan_is_positive_and_quiet() -> None:
    assert parse("fp16").encode(NAN) == 0x7E00
    assert parse("fp32").encode(float("nan")) == 0x7FC00000
    assert parse("bf16").encode(NAN) == 0x7FC0
    assert parse("e5m2").encode(NAN) == 0x7E
    assert parse("e4m3fn").encode(NAN) == 0x7F
    assert parse("e4m3fnuz").encode(NAN) == 0x80
    assert parse("e8m0").encode(NAN) == 0xFF
    assert not Format(4, 0).has_nan  # no bit left for one


def test_magnitude_codes_are_ordered() -> None:
    for fmt in UP_TO_8_BITS:
        values = [fmt.magnitude(code) for code in range(fmt.max_code + 1)]
        assert values == sorted(values), fmt
        assert fmt.max_value == values[-1]
        assert fmt.smallest_positive == min(v for v in values if v), fmt


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("e4m3fn", 449),
        ("e4m3fn", 0.3),
        ("e4m3fn", float("inf")),
        ("e2m1", float("nan")),
        ("e4m3fnuz", -0.0),
        ("ue4m3", -1),
        ("ue4m3", float("-inf")),
        ("e8m0", 0),
        ("e8m0", 3),
        ("int8", 128),
        ("int8", -129),
        ("int8", 0.5),
        ("int8", -0.0),
        ("e4m3_flush", 2.0**-9),
        ("fp32", Fraction(1, 3)),
    ],
)
def test_encode_demands_membership(name: str, value: object) -> None:
    assert value not in parse(name)
    with pytest.raises(ValueError, match=r"must be a member of .*; round it first"):
        parse(name).encode(value)


@pytest.mark.parametrize("value", ["1", None, True, 1j, [1.0], "nan"])
def test_a_value_must_be_a_number(value: object) -> None:
    fmt = parse("e4m3fn")
    with pytest.raises(TypeError, match="must be a real number"):
        fmt.encode(value)
    with pytest.raises(TypeError, match="must be a real number"):
        value in fmt  # noqa: B015
    with pytest.raises(TypeError, match="must be a real number"):
        fmt.neighbours(value)


def test_a_value_may_be_a_numpy_scalar() -> None:
    fmt = parse("e4m3fn")
    for scalar in (np.float32(1.5), np.float64(1.5), np.float16(1.5)):
        assert fmt.encode(scalar) == fmt.encode(1.5)
    assert fmt.encode(np.int8(2)) == fmt.encode(2)
    assert fmt.decode(np.uint8(0x7E)) == 448  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [-1, 256, 1 << 70])
def test_decode_refuses_a_code_out_of_range(code: int) -> None:
    with pytest.raises(ValueError, match=r"code must be in 0\.\.255 for e4m3fn"):
        parse("e4m3fn").decode(code)


@pytest.mark.parametrize("code", [1.0, "1", None, True])
def test_decode_refuses_a_code_that_is_no_int(code: object) -> None:
    with pytest.raises(TypeError, match="code must be an int"):
        parse("e4m3fn").decode(code)  # type: ignore[arg-type]


# --------------------------------------------------------------------------- order of values


def probes(values: list[Fraction]) -> list[Fraction]:
    """The values, points between them, near them, and beyond the ends."""
    middles = [(a + b) / 2 for a, b in pairwise(values)]
    near = [v + sign * Fraction(1, 10**6) for v in values for sign in (1, -1)]
    return [*values, *middles, *near, values[0] - 1, values[-1] + 1, Fraction(0)]


@pytest.mark.parametrize("bits", range(1, 7))
def test_neighbours_and_successors_agree_with_the_sorted_values(bits: int) -> None:
    for fmt in UP_TO_6_BITS:
        if fmt.bits == bits:
            # Every point for the narrower formats; the many of 6 bits share them out.
            check_order(fmt, probes([Fraction(v) for v in fmt.values()])[:: max(1, bits - 4)])


def test_neighbours_and_successors_of_some_8_bit_formats() -> None:
    for fmt in UP_TO_8_BITS[:: len(UP_TO_8_BITS) // 25]:
        check_order(fmt, probes([Fraction(v) for v in fmt.values()])[::5])


def check_order(fmt: Format, points: list[Fraction]) -> None:
    values = sorted(Fraction(v) for v in fmt.values())
    assert values == [Fraction(v) for v in fmt.values()]
    assert len(set(values)) == len(values)
    for x in points:
        below = [v for v in values if v <= x]
        above = [v for v in values if v >= x]
        expected = (below[-1] if below else None, above[0] if above else None)
        assert fmt.neighbours(x) == expected, (fmt, x)
        assert fmt.next_up(x) == next((v for v in values if v > x), None), (fmt, x)
        assert fmt.next_down(x) == next((v for v in reversed(values) if v < x), None), (fmt, x)
        assert (x in fmt) == (x in values), (fmt, x)


def test_infinities_have_one_neighbour() -> None:
    for fmt in UP_TO_6_BITS:
        lowest, largest = fmt.values()[0], fmt.values()[-1]
        assert fmt.neighbours(float("inf")) == (largest, None)
        assert fmt.neighbours(float("-inf")) == (None, lowest)
        assert fmt.next_down(INF) == largest
        assert fmt.next_up(NEG_INF) == lowest
        assert fmt.next_up(INF) is None
        assert fmt.next_down(NEG_INF) is None


def test_ulp_is_the_gap_above_each_magnitude() -> None:
    for fmt in UP_TO_6_BITS:
        values = list(fmt.magnitudes())
        for low, high in pairwise(values):
            middle = (low + high) / 2
            assert fmt.ulp(middle) == fmt.ulp(-middle) == high - low, (fmt, low)
            assert fmt.ulp(low) == high - low, (fmt, low)
        top = values[-1]
        if len(values) > 2 and exponent_of(top) == exponent_of(values[-2] or top):
            assert fmt.ulp(top) == top - values[-2]


def test_ulp_goes_on_beyond_the_range() -> None:
    assert parse("e4m3fn").ulp(448) == 32
    assert parse("e4m3fn").ulp(1024) == 128
    assert parse("e4m3fn").ulp(0) == 2**-9
    assert parse("e4m3_flush").ulp(2**-8) == 2**-6
    assert parse("int8").ulp(1e9) == 1
    assert parse("e8m0").ulp(3) == 2


def test_order_refuses_nan_and_ulp_infinities() -> None:
    fmt = parse("fp16")
    for method in (fmt.neighbours, fmt.next_up, fmt.next_down, fmt.ulp):
        with pytest.raises(ValueError, match="x must not be NaN"):
            method(float("nan"))
    with pytest.raises(ValueError, match="x must be finite"):
        fmt.ulp(float("inf"))


@pytest.mark.parametrize("name", ["fp16", "fp32", "fp64"])
@given(data=st.data())
def test_next_up_is_that_of_numpy(name: str, data: st.DataObject) -> None:
    width = int(name[2:])
    x = data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))
    kind = np.dtype(NUMPY[name]).type
    with np.errstate(over="ignore", under="ignore"):
        up, down = np.nextafter(kind(x), kind(np.inf)), np.nextafter(kind(x), kind(-np.inf))
    fmt = parse(name)
    assert fmt.next_up(x) == (None if np.isinf(up) else float(up))
    assert fmt.next_down(x) == (None if np.isinf(down) else float(down))
    magnitude = abs(kind(x))
    if magnitude != np.finfo(kind).max:
        assert fmt.ulp(x) == float(np.spacing(magnitude))


@given(fst.formats(max_bits=40, container=None), st.data())
def test_neighbours_enclose_and_are_adjacent(fmt: Format, data: st.DataObject) -> None:
    code = data.draw(st.integers(0, (1 << fmt.bits) - 1))
    value = fmt.decode(code)
    if isinstance(value, Special):
        return
    up, down = fmt.next_up(value), fmt.next_down(value)
    for other, back in ((up, fmt.next_down), (down, fmt.next_up)):
        if other is not None:
            assert other in fmt
            assert back(other) == value
            middle = (Fraction(other) + value) / 2
            assert set(fmt.neighbours(middle)) == {real(value), other}
            assert middle not in fmt


# ------------------------------------------------------------------------------ constructor


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exponent_bits": -1}, r"exponent_bits must be in 0\.\.16, got -1"),
        ({"exponent_bits": 17}, r"exponent_bits must be in 0\.\.16, got 17"),
        ({"mantissa_bits": -1}, r"mantissa_bits must be in 0\.\.52, got -1"),
        ({"mantissa_bits": 53}, r"mantissa_bits must be in 0\.\.52, got 53"),
        ({"exponent_bits": 16, "mantissa_bits": 48}, "at most 64 bits, got 65"),
        ({"specials": "e4m3"}, "specials must be one of 'ieee', 'fn'"),
        ({"subnormals": "denormal"}, "subnormals must be one of 'gradual', 'flush', 'none'"),
        ({"specials": "e8m0"}, "go together: a format without zero"),
        ({"subnormals": "none"}, "go together: a format without zero"),
        (
            {"exponent_bits": 0, "specials": "finite", "subnormals": "flush"},
            "subnormals must be 'gradual' when exponent_bits is 0",
        ),
        (
            {"exponent_bits": 0, "specials": "e8m0", "subnormals": "none", "signed": False},
            "subnormals must be 'gradual' when exponent_bits is 0",
        ),
        ({"specials": "e8m0", "subnormals": "none"}, "specials='e8m0' must be unsigned"),
        ({"specials": "fnuz", "signed": False}, "specials='fnuz' must be signed"),
        ({"specials": "twos"}, "must be signed with exponent_bits 0"),
        ({"specials": "twos", "exponent_bits": 0, "signed": False}, "must be signed"),
        ({"exponent_bits": 0}, "specials='ieee' needs an exponent field"),
        ({"exponent_bits": 9, "mantissa_bits": 9, "specials": "p3109_finite"}, "have 3..16 bits"),
        ({"exponent_bits": 1, "mantissa_bits": 0, "specials": "p3109_finite"}, "have 3..16 bits"),
        ({"exponent_bits": 0, "specials": "p3109_finite"}, "at least 1 exponent bit"),
        ({"bias": 7, "specials": "p3109_extended"}, "P3109 fixes the bias of .* at 8, got 7"),
        (
            {"specials": "p3109_extended", "subnormals": "flush"},
            "P3109 formats have subnormals, got 'flush'",
        ),
        ({"exponent_bits": 1, "mantissa_bits": 0}, "has no positive finite value"),
        ({"exponent_bits": 1, "mantissa_bits": 3, "subnormals": "flush"}, "no positive finite"),
        ({"exponent_bits": 0, "mantissa_bits": 0, "specials": "twos"}, "no positive finite"),
        ({"exponent_bits": 0, "mantissa_bits": 1, "specials": "fn"}, "no positive finite"),
    ],
)
def test_the_constructor_refuses(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Format(**{"exponent_bits": 4, "mantissa_bits": 3, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exponent_bits": 4.0}, "exponent_bits must be an int, got float 4.0"),
        ({"exponent_bits": True}, "exponent_bits must be an int, got bool True"),
        ({"mantissa_bits": "3"}, "mantissa_bits must be an int, got str '3'"),
        ({"mantissa_bits": None}, "mantissa_bits must be an int"),
        ({"bias": 7.0}, "bias must be an int, got float 7.0"),
        ({"bias": False}, "bias must be an int, got bool False"),
        ({"signed": 1}, "signed must be a bool, got 1"),
        ({"width": 8}, "width"),
    ],
)
def test_the_constructor_refuses_wrong_types(fields: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Format(**{"exponent_bits": 4, "mantissa_bits": 3, **fields})


def test_names_of_specials_are_read_as_members() -> None:
    fmt = Format(4, 3, specials="fn", subnormals="flush")  # type: ignore[arg-type]
    assert fmt.specials is Specials.FN
    assert fmt.subnormals is Subnormals.FLUSH


def test_default_biases() -> None:
    assert Format(4, 3).bias == Format(4, 3, specials=Specials.FN).bias == 7
    assert Format(4, 3, specials=Specials.FNUZ).bias == 8
    assert Format(4, 3, specials=Specials.P3109_FINITE).bias == 8
    assert Format(0, 3, specials=Specials.FINITE).bias == 1
    assert Format(0, 7, specials=Specials.TWOS).quantum_exponent == 0


def test_fixed_point_counts_in_steps_of_its_fraction() -> None:
    assert Format.fixed_point(8, 6) == parse("mxint8")
    assert Format.fixed_point(8, 0) == parse("int8")
    assert Format.fixed_point(8, 0, signed=False) == parse("uint8")
    quarters = Format.fixed_point(4, 2)
    assert (quarters.min, quarters.max, quarters.ulp(0)) == (-2, 1.75, 0.25)


def test_a_format_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        parse("fp16").bias = 3  # type: ignore[misc]


# --------------------------------------------------------------------------------- a value


@given(fst.formats(max_bits=64, container=None))
def test_a_format_survives_pickle_json_copy_and_repr(fmt: Format) -> None:
    for other in (
        pickle.loads(pickle.dumps(fmt)),
        Format.from_dict(json.loads(json.dumps(fmt.to_dict()))),
        copy.copy(fmt),
        copy.deepcopy(fmt),
        eval(repr(fmt), {"Format": parse}),
    ):
        assert other == fmt
        assert hash(other) == hash(fmt)
        assert str(other) == str(fmt)
    assert {fmt: 1}[Format.from_dict(fmt.to_dict())] == 1


def test_equality_is_structural() -> None:
    assert parse("e4m3fnuz") != parse("e4m3b8finite")
    assert parse("e4m3") == Format(4, 3)
    assert parse("e4m3") != "e4m3"
    assert len({parse("e4m3"), Format(4, 3), parse("float8_e4m3")}) == 1


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        ("fp16", 2**-10),
        ("e4m3fn", 0.125),
        ("e5m2fnuz", 0.25),  # torch.finfo says 0.125
        ("e2m1", 0.5),
        ("e8m0", 1),
        ("int8", 1),
        ("mxint8", 1 / 64),
        ("binary3p2sf", 0.5),
        ("e4m3b-30", None),
        ("e4m3b40", None),
    ],
)
def test_eps_is_the_spacing_above_one(name: str, eps: float | None) -> None:
    assert parse(name).eps == eps


def test_large_formats_give_fractions_where_floats_fail() -> None:
    fmt = Format(16, 40)
    assert isinstance(fmt.max, Fraction)
    assert fmt.max == (2 - Fraction(1, 2**40)) * 2**32767
    assert isinstance(fmt.min_subnormal, Fraction)
    assert fmt.max in fmt
    assert fmt.next_up(fmt.max) is None
    assert fmt.decode(fmt.encode(fmt.max)) == fmt.max
    assert fmt.finfo.maxexp == 32768
