"""Spellings: names, the grammar, the printer, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fpemu import catalog
from fpemu.catalog import ALIASES, CANONICAL, NAMES, format, parse, spell
from fpemu.formats import Format, Specials, Subnormals
from fpemu.testing import strategies as fst

SUFFIXES = {
    Specials.IEEE: "ieee",
    Specials.FN: "fn",
    Specials.FNUZ: "fnuz",
    Specials.FINITE: "finite",
}


@pytest.mark.parametrize("name", CANONICAL)
def test_a_named_format_prints_its_name_and_knows_its_aliases(name: str) -> None:
    fmt = parse(name)
    assert str(fmt) == fmt.name == name
    assert repr(fmt) == f"Format({name!r})"
    for alias in ALIASES[name]:
        assert parse(alias) == NAMES[alias] == fmt


@pytest.mark.parametrize(
    ("spelling", "fmt"),
    [
        ("e4m3", Format(4, 3)),
        ("e4m3ieee", Format(4, 3)),
        ("E4M3FN", Format(4, 3, specials=Specials.FN)),
        ("float8_e4m3fn", Format(4, 3, specials=Specials.FN)),
        ("e2m1", Format(2, 1, specials=Specials.FINITE)),
        ("e2m1fn", Format(2, 1, specials=Specials.FINITE)),
        ("float4_e2m1fn", Format(2, 1, specials=Specials.FINITE)),
        ("e2m1b1fn", Format(2, 1, specials=Specials.FN)),
        ("e2m1ieee", Format(2, 1)),
        ("e5m3", Format(5, 3)),
        ("e4m3b-5", Format(4, 3, bias=-5)),
        ("ue4m3", Format(4, 3, signed=False, specials=Specials.FN)),
        ("ue4m3ieee", Format(4, 3, signed=False)),
        ("e4m3_flush", Format(4, 3, subnormals=Subnormals.FLUSH)),
        ("e4m3fn-flush", Format(4, 3, specials=Specials.FN, subnormals=Subnormals.FLUSH)),
        ("e4m3-fn", Format(4, 3, specials=Specials.FN)),
        ("float8_e4m3b11_fnuz", Format(4, 3, bias=11, specials=Specials.FNUZ)),
        (" bfloat16\n", Format(8, 7)),
        ("half", Format(5, 10)),
        ("binary16", Format(5, 10)),
        ("double", Format(11, 52)),
        ("int8", Format.fixed_point(8, 0)),
        ("uint1", Format.fixed_point(1, 0, signed=False)),
        ("e0m7b0twos", Format.fixed_point(8, 6)),
        ("e8m0", Format(8, 0, 127, False, Specials.E8M0, Subnormals.NONE)),
        ("ue4m0nozero", Format(4, 0, 7, False, Specials.E8M0, Subnormals.NONE)),
        ("Binary8p4se", Format(4, 3, specials=Specials.P3109_EXTENDED)),
        ("binary8p1uf", Format(8, 0, signed=False, specials=Specials.P3109_FINITE)),
    ],
)
def test_a_spelling_means_what_the_grammar_says(spelling: str, fmt: Format) -> None:
    assert parse(spelling) == Format.parse(spelling) == format(spelling) == fmt


@given(fst.formats(max_bits=64, container=None))
@example(Format(1, 52, specials=Specials.FN))
@example(Format(16, 47, bias=-70000))
@example(Format(16, 0, signed=False, specials=Specials.E8M0, subnormals=Subnormals.NONE))
@example(Format(0, 1, specials=Specials.FINITE))
def test_every_format_prints_as_something_that_reads_back(fmt: Format) -> None:
    assert parse(str(fmt)) == fmt
    assert parse(str(fmt).upper()) == fmt


@pytest.mark.parametrize("family", fst.FAMILIES)
@given(data=st.data())
def test_every_family_prints_as_something_that_reads_back(family: str, data: st.DataObject) -> None:
    fmt = data.draw(fst.formats(max_bits=20, families=[family], container=None))
    assert parse(str(fmt)) == fmt


@given(
    st.integers(0, 16),
    st.integers(0, 46),
    st.sampled_from(list(SUFFIXES)),
    st.integers(-(10**6), 10**6),
    st.booleans(),
    st.booleans(),
)
def test_the_full_spelling_gives_every_field(
    e: int, m: int, specials: Specials, bias: int, signed: bool, flush: bool
) -> None:
    spelling = f"{'' if signed else 'u'}e{e}m{m}b{bias}{SUFFIXES[specials]}{'flush' * flush}"
    subnormals = Subnormals.FLUSH if flush else Subnormals.GRADUAL
    try:
        fmt = Format(e, m, bias, signed, specials, subnormals)
    except ValueError:
        with pytest.raises(ValueError, match="spelling"):
            parse(spelling)
        assume(False)
    assert parse(spelling) == fmt
    assert len(str(fmt)) <= len(spelling) + 1


def test_the_printed_name_is_the_shortest() -> None:
    for spelling, printed in (
        ("float8_e4m3fn", "e4m3fn"),
        ("e4m3b7fn", "e4m3fn"),
        ("float16", "fp16"),
        ("e5m10", "fp16"),
        ("e8m7ieee", "bf16"),
        ("e4m3b6", "e4m3b6"),
        ("e3m2b3finite", "e3m2"),
        ("e3m2ieee", "e3m2b3"),
        ("e5m3ieee", "e5m3"),
        ("e0m7twos", "int8"),
        ("e0m7b0twos", "mxint8"),
        ("ue0m8b-7finite", "uint8"),
    ):
        assert str(parse(spelling)) == printed
        assert spell(parse(spelling)) == printed


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        " ",
        "e4",
        "m3",
        "e4m",
        "em3",
        "e4m3b",
        "e4m3b--1",
        "e4m3b+1",
        "e4m-3",
        "e4m3fnn",
        "e4m3 fn",
        "e4m3fnflushflush",
        "e4m3uz",
        "e4m3_",
        "e4m3-",
        "e4m3__fn",
        "e4m3fn_",
        "4m3",
        "se4m3",
        "e4.0m3",
        "e\u0663m2",
        "e4m3\u0000",
        "int",
        "int-8",
        "int8_t",
        "binary8p4",
        "binary8p4xe",
        "binary8p4s",
        "fp8",
        "nan",
        "0x43",
        "e4m3,e5m2",
    ],
)
def test_a_malformed_spelling_shows_the_grammar(spelling: str) -> None:
    with pytest.raises(ValueError, match="is not a format; grammar: ") as caught:
        parse(spelling)
    assert repr(spelling) in str(caught.value)
    assert catalog.GRAMMAR in str(caught.value)


def test_a_misspelling_shows_the_nearest_names() -> None:
    for spelling, name in (("e4m3fnn", "e4m3fn"), ("bfloat15", "bfloat16"), ("fp33", "fp32")):
        with pytest.raises(ValueError, match=f"nearest names: .*{name}"):
            parse(spelling)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("e17m3", r"exponent_bits must be in 0\.\.16, got 17"),
        ("e4m53", r"mantissa_bits must be in 0\.\.52, got 53"),
        ("e16m52", "at most 64 bits"),
        ("int1", "an integer has at least 2 bits"),
        ("uint0", "an integer has at least 1 bits"),
        ("int99", r"mantissa_bits must be in 0\.\.52"),
        ("binary2p1se", "3 <= K <= 16"),
        ("binary17p4se", "3 <= K <= 16"),
        ("binary8p8se", "1 <= P <= K - 1, got K=8, P=8"),
        ("binary8p0ue", "1 <= P <= K, got K=8, P=0"),
        ("ue4m3fnuz", "specials='fnuz' must be signed"),
        ("e4m3nozero", "must be unsigned"),
        ("ue4m3nozeroflush", "cannot flush"),
        ("e2m1twos", "exponent_bits 0"),
        ("e0m3", "needs an exponent field"),
        ("e0m0finite", "no positive finite value"),
    ],
)
def test_a_spelling_of_no_format_says_why(spelling: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"spelling '{spelling}': .*{message}"):
        parse(spelling)


@pytest.mark.parametrize("spelling", [None, 8, b"e4m3", ["e4m3"]])
def test_a_spelling_is_a_string(spelling: object) -> None:
    with pytest.raises(TypeError, match="spelling must be a str"):
        parse(spelling)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fmt must be a Format or a spelling"):
        format(spelling)  # type: ignore[arg-type]


def test_format_returns_a_format_unchanged() -> None:
    fmt = Format(4, 3)
    assert format(fmt) is fmt


@given(st.text(alphabet="eEmMbBuUfnuzit_-0123456789 ", max_size=12))
def test_any_text_is_a_format_or_a_value_error(text: str) -> None:
    try:
        fmt = parse(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017
    else:
        assert parse(str(fmt)) == fmt
