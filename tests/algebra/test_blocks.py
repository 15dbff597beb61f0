"""BlockFormat and ScaleRule as values: fields, spellings, JSON, and what they refuse."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpemu import Format
from fpemu.blocks import NAMES, BlockFormat, as_element, as_spec, bfp, is_block_spelling
from fpemu.catalog import parse
from fpemu.scales import DEFAULT, ScaleMethod, ScaleRule, parse_rule
from fpemu.table_format import TableFormat, named
from fpemu.testing import strategies as fst

E2M1, E4M3FN, E8M0, FP32 = (parse(name) for name in ("e2m1", "e4m3fn", "e8m0", "fp32"))

# name: element, block, scale, rule, outer, symmetric, qmax, emax, bits per element
CATALOGUE = {
    "mxfp4": ("e2m1", 32, "e8m0", "floor", None, False, 6, 2, Fraction(17, 4)),
    "mxfp6_e3m2": ("e3m2", 32, "e8m0", "floor", None, False, 28, 4, Fraction(25, 4)),
    "mxfp6_e2m3": ("e2m3", 32, "e8m0", "floor", None, False, Fraction(15, 2), 2, Fraction(25, 4)),
    "mxfp8_e4m3": ("e4m3fn", 32, "e8m0", "floor", None, False, 448, 8, Fraction(33, 4)),
    "mxfp8_e5m2": ("e5m2", 32, "e8m0", "floor", None, False, 57344, 15, Fraction(33, 4)),
    "mxint8": ("mxint8", 32, "e8m0", "floor", None, True, Fraction(127, 64), 0, Fraction(33, 4)),
    "nvfp4": ("e2m1", 16, "e4m3fn", "absmax", "fp32", False, 6, 2, Fraction(9, 2)),
    "nvint4": ("int4", 16, "e4m3fn", "absmax", "fp32", True, 7, 2, Fraction(9, 2)),
    "msfp12": ("int4", 16, "e8m0", "floor", None, True, 7, 2, Fraction(9, 2)),
    "msfp13": ("int5", 16, "e8m0", "floor", None, True, 15, 3, Fraction(11, 2)),
    "msfp14": ("int6", 16, "e8m0", "floor", None, True, 31, 4, Fraction(13, 2)),
    "msfp15": ("int7", 16, "e8m0", "floor", None, True, 63, 5, Fraction(15, 2)),
    "msfp16": ("int8", 16, "e8m0", "floor", None, True, 127, 6, Fraction(17, 2)),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue(name: str) -> None:
    fmt = BlockFormat.parse(name)
    element, block, scale, rule, outer, symmetric, qmax, emax, bits = CATALOGUE[name]
    assert fmt.element == parse(element)
    assert (fmt.block, str(fmt.scale), str(fmt.rule)) == (block, scale, rule)
    assert (None if fmt.outer is None else str(fmt.outer)) == outer
    assert (fmt.symmetric, fmt.qmax, fmt.emax) == (symmetric, qmax, emax)
    assert fmt.bits_per_element() == bits
    assert fmt.nan_scale
    assert str(fmt) == name
    assert as_spec(name) is as_spec(name) == fmt
    assert eval(repr(fmt), {"BlockFormat": BlockFormat}) == fmt


def test_every_name_is_in_the_table() -> None:
    assert set(NAMES) == set(CATALOGUE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MXFP4", "mxfp4"),
        ("mxfp4_e2m1", "mxfp4"),
        ("mxfp6", "mxfp6_e3m2"),
        ("mxfp8", "mxfp8_e4m3"),
        ("mxfp8_e4m3fn", "mxfp8_e4m3"),
        ("e2m1[32,e8m0]", "mxfp4"),
        ("e2m1[32, e8m0, floor]", "mxfp4"),
        ("e2m1[16,e4m3fn,fp32]", "nvfp4"),
        ("e2m1[16,e4m3fn,absmax,fp32]", "nvfp4"),
        ("E2M1[16,E4M3FN,FP32,absmax]", "nvfp4"),
        ("int4[16,e8m0,sym]", "msfp12"),
        ("bfp(4,16)", "msfp12"),
        ("bfp( 8 , 16 )", "msfp16"),
    ],
)
def test_spellings_of_one_format(one: str, other: str) -> None:
    assert BlockFormat.parse(one) == BlockFormat.parse(other)
    assert is_block_spelling(one)


@pytest.mark.parametrize(
    ("spelling", "block", "text"),
    [
        ("e2m1[tensor,fp32]", "tensor", "e2m1[tensor,fp32]"),
        ("e4m3fn[channel,fp32]", "channel", "e4m3fn[channel,fp32]"),
        ("e2m1[16x16,e8m0,rceil]", (16, 16), "e2m1[16x16,e8m0,rceil]"),
        ("e2m1[1x32,e8m0]", (1, 32), "e2m1[1x32,e8m0]"),
        ("bfp(8,32)", 32, "bfp(8,32)"),
        ("int8[32,e8m0]", 32, "int8[32,e8m0]"),
        ("hif8[16,none]", 16, "hif8[16,none]"),
        ("e2m1[32,fp32,mse:50:0.5:2.4]", 32, "e2m1[32,fp32,mse:50:0.5:2.4]"),
        ("e2m1[16,e8m0,absmax]", 16, "e2m1[16,e8m0,absmax]"),
    ],
)
def test_spellings_print_as_written(spelling: str, block: object, text: str) -> None:
    fmt = BlockFormat.parse(spelling)
    assert fmt.block == block
    assert str(fmt) == text


def test_fields_take_spellings() -> None:
    fmt = BlockFormat("e2m1", [4, 8], "bf16", "rceil")  # type: ignore[arg-type]
    assert fmt == BlockFormat(E2M1, (4, 8), parse("bf16"), ScaleRule(ScaleMethod.RCEIL))
    assert BlockFormat("nf4", "Tensor", "none").scale is None  # type: ignore[arg-type]
    assert BlockFormat(E2M1, 32, E8M0).rule.method is ScaleMethod.FLOOR
    assert BlockFormat(E2M1, 32, FP32).rule == DEFAULT


@given(st.from_type(BlockFormat))
def test_a_format_survives_print_json_and_pickle(fmt: BlockFormat) -> None:
    assert BlockFormat.parse(str(fmt)) == fmt
    assert BlockFormat.parse(fmt.spelling) == fmt
    assert BlockFormat.parse(str(fmt).upper()) == fmt
    assert BlockFormat.from_dict(json.loads(json.dumps(fmt.to_dict()))) == fmt
    again = pickle.loads(pickle.dumps(fmt))
    assert again == fmt
    assert hash(again) == hash(fmt)
    assert len({fmt, again, BlockFormat.parse(str(fmt))}) == 1
    assert str(fmt) in fmt._repr_html_().replace("&amp;", "&")


@given(fst.block_formats(max_bits=6, searched=False))
def test_drawn_formats_are_as_asked_for(fmt: BlockFormat) -> None:
    assert fmt.element.bits <= 6
    assert not fmt.rule.needs_all_elements
    assert Fraction(2) ** fmt.emax <= fmt.qmax < Fraction(2) ** (fmt.emax + 1)


def test_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        NAMES["mxfp4"].block = 16  # type: ignore[misc]
    assert NAMES["mxfp4"] != replace(NAMES["mxfp4"], block=16)


def test_bits_per_element() -> None:
    tile = BlockFormat.parse("e2m1[16x16,e8m0]")
    assert tile.bits_per_element() == 4 + Fraction(8, 256)
    tensor = BlockFormat.parse("e4m3fn[tensor,fp32]")
    assert tensor.bits_per_element((64, 64)) == 8 + Fraction(32, 4096)
    channel = BlockFormat.parse("int8[channel,bf16]")
    assert channel.bits_per_element((10, 64), axis=0) == 8 + Fraction(16, 64)
    assert channel.bits_per_element((10, 64)) == 8 + Fraction(16, 10)
    assert BlockFormat.parse("e4m3fn[32,none]").bits_per_element() == 8
    with pytest.raises(ValueError, match="shape must be given for one scale per tensor"):
        tensor.bits_per_element()


def test_html_tells_what_there_is() -> None:
    html = NAMES["nvfp4"]._repr_html_()
    assert "<caption>nvfp4</caption>" in html
    for text in ("e2m1, 4 bits, up to 6", "e4m3fn, 8 bits", "fp32, one per tensor", "4.5"):
        assert text in html
    assert "outer" not in NAMES["mxfp4"]._repr_html_()
    assert "bits per element" not in BlockFormat.parse("e2m1[tensor,fp32]")._repr_html_()


def test_table_elements() -> None:
    fmt = BlockFormat.parse("hif8[16,e8m0]")
    assert isinstance(fmt.element, TableFormat)
    assert fmt.element == named("hif8") == as_element("HiF8")
    assert (fmt.qmax, fmt.emax) == (2**15, 15)
    assert fmt.to_dict()["element"]["spelling"] == "hif8"


def test_specs() -> None:
    assert as_spec("e4m3fn") == E4M3FN
    assert as_spec("nf4") == named("nf4")
    assert as_spec(E2M1) is E2M1
    assert isinstance(as_spec("mxint8"), BlockFormat)
    assert isinstance(as_spec(parse("mxint8")), Format)
    with pytest.raises(TypeError, match="fmt must be a Format"):
        as_spec(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("mxfp5", "is not a block format; grammar: .*nearest names: .*mxfp4"),
        ("zzzz", "names: mxfp4, mxfp6_e3m2"),
        ("e2m1[32]", "'e2m1\\[32\\]': a block and a scale are needed"),
        ("e2m1[32,e8m0,floor,ceil]", "'ceil'"),
        ("e2m1[32,e8m0,floor,fp32,fp32]", "'fp32' is one part too many"),
        ("e2m1[0,e8m0]", "block must be at least 1, got 0"),
        ("e2m1[0x4,e8m0]", r"block must be \(rows, columns\) of at least 1"),
        ("e2m1[-3,e8m0]", "block must be a length, <rows>x<columns>, tensor or channel; got '-3'"),
        ("e2m1[1x2x3,e8m0]", "block must be a length"),
        ("e2m1[row,e8m0]", "got 'row'"),
        ("e2m1[32,e4m99]", "mantissa_bits must be in"),
        ("ue4m3[32,e8m0]", "element must have zero and a sign.*got ue4m3"),
        ("e8m0[32,e8m0]", "element must have zero and a sign"),
        ("fp64[32,e8m0]", "element must be a format that float32 holds, got fp64"),
        ("e2m1[32,e8m0,sym]", "symmetric goes with two's-complement elements, got e2m1"),
        ("e2m1[32,fp64]", "scale must be a format that float32 holds, got fp64"),
        ("e2m1[32,int8,floor]", "scale format int8 cannot hold 1/2, a scale that rule floor gives"),
        ("e2m1[32,e4m3b-20fn]", "cannot hold 1, a scale that rule absmax gives"),
        ("e2m1[32,none,floor]", "scale none takes no rule and no outer, got floor"),
        ("e2m1[32,none,fp32]", "scale none takes no rule and no outer"),
        ("e2m1[32,e8m0,fp32]", "outer needs a scale format of less range: e2m1 times e8m0"),
        ("e2m1[16,e4m3fn,absmax,fp64]", "outer must be a format that float32 holds, got fp64"),
        ("e2m1[16,e4m3fn,absmax,e4m3b-20fn]", "outer must be"),
        ("e2m1[32,fp32,mse:0:0.8:2]", r"points must be in 1\.\.10000, got 0"),
        ("e2m1[32,fp32,mse:4]", "mse:<points>:<shrink>:<norm>"),
        ("bfp(1,16)", r"bits of bfp must be in 2\.\.24, got 1"),
        ("bfp(25,16)", "got 25"),
        ("bfp(8)", "is not a block format"),
        ("bfp(8,0)", "block must be at least 1, got 0"),
        ("[32,e8m0]", "is not a block format"),
        ("e2m1[]", "is not a block format"),
    ],
)
def test_refused_spellings(spelling: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BlockFormat.parse(spelling)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"element": 4}, TypeError, "fmt must be a Format"),
        ({"block": 2.5}, TypeError, "block must be an int"),
        ({"block": True}, TypeError, "block must be an int"),
        ({"block": (4,)}, ValueError, r"block must be \(rows, columns\)"),
        ({"block": (4, 4, 4)}, ValueError, r"block must be \(rows, columns\)"),
        ({"block": (4, 0)}, ValueError, r"block must be \(rows, columns\)"),
        ({"scale": 8}, TypeError, "fmt must be a Format"),
        ({"rule": 3}, TypeError, "rule must be a ScaleRule or a str, got int 3"),
        ({"rule": "round"}, ValueError, "rule must be one of .floor., .ceil., .even."),
        ({"outer": 1}, TypeError, "fmt must be a Format"),
    ],
)
def test_refused_fields(fields: dict[str, object], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        BlockFormat(**{"element": E2M1, "block": 32, "scale": E8M0, **fields})  # type: ignore[arg-type]


def test_parse_takes_strings_only() -> None:
    with pytest.raises(TypeError, match="spelling must be a str, got int 4"):
        BlockFormat.parse(4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bits must be an int"):
        bfp(4.0, 16)  # type: ignore[arg-type]


# ------------------------------------------------------------------------- rules


@given(st.from_type(ScaleRule))
def test_rules_parse_back(rule: ScaleRule) -> None:
    assert parse_rule(str(rule)) == rule
    assert parse_rule(rule) is rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(parse_rule(str(rule))) == hash(rule)


@pytest.mark.parametrize("method", ScaleMethod)
def test_kinds_of_rules(method: ScaleMethod) -> None:
    rule = ScaleRule(method)
    assert str(rule) == method
    powers = ("floor", "ceil", "even", "rceil", "pow2_m1", "four_thirds")
    assert rule.gives_powers_of_two is (method in powers)
    assert rule.needs_all_elements is (method in ("mse", "octav", "quest"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ScaleRule(ScaleMethod.MSE, 10_001), "points must be in"),
        (lambda: ScaleRule(ScaleMethod.MSE, 10, 1.0), r"shrink must be in \[0, 1\), got 1.0"),
        (lambda: ScaleRule(ScaleMethod.MSE, 10, -0.1), "shrink must be in"),
        (lambda: ScaleRule(ScaleMethod.MSE, 10, 0.5, 0), "norm must be positive, got 0.0"),
        (lambda: ScaleRule(ScaleMethod.MSE, 10, 0.5, float("inf")), "norm must be positive"),
        (lambda: ScaleRule(ScaleMethod.FLOOR, 10), "points, shrink and norm go with mse, not with"),
        (lambda: ScaleRule("best"), "rule must be one of"),
        (lambda: parse_rule("mse:a:b:c"), "rule 'mse:a:b:c'"),
        (lambda: parse_rule("floor:1:2:3"), "rule 'floor:1:2:3'"),
    ],
)
def test_refused_rules(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_spelling_of_numbers() -> None:
    assert str(ScaleRule(ScaleMethod.MSE)) == "mse"
    assert str(ScaleRule(ScaleMethod.MSE, 50, 0.5, 3)) == "mse:50:0.5:3"
    assert parse_rule(" MSE:50:0.5:3 ") == ScaleRule(ScaleMethod.MSE, 50, 0.5, 3)
