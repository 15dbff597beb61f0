"""The algebra of value sets: by brute force on small formats, by hypothesis on large ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise, product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fpemu import algebra
from fpemu.algebra import Accumulator, Grid
from fpemu.formats import Format, Specials, Subnormals
from fpemu.policy import Policy
from fpemu.reference import round_value
from fpemu.rounding import Rounding
from fpemu.values import Special, power_of_two

parse = Format.parse


def formats_of(bits: range, biases: range = range(1)) -> Iterator[Format]:
    """Every valid format of so many bits, with its default bias moved by each of `biases`."""
    for e, m, signed in product(range(7), range(7), (True, False)):
        if e + m + signed in bits:
            for specials, subnormals in product(Specials, Subnormals):
                try:
                    fmt = Format(e, m, signed=signed, specials=specials, subnormals=subnormals)
                except ValueError:
                    continue
                for move in biases:
                    if not (move and specials.is_p3109):
                        yield fmt if not move else shifted(fmt, move)


def shifted(fmt: Format, move: int) -> Format:
    return Format(**(fmt.to_dict() | {"bias": fmt.bias + move}))


@cache
def values(fmt: Format) -> frozenset[Fraction]:
    return frozenset(Fraction(v) for v in fmt.values())


TINY = list(formats_of(range(1, 5)))
SMALL = list(formats_of(range(1, 7), range(-2, 3)))
random.seed(20)
PAIRS = random.sample(list(product(SMALL, SMALL)), 3000)


@st.composite
def large_formats(draw: st.DrawFn, top: int = 16) -> Format:
    specials = draw(st.sampled_from(Specials))
    if specials.is_p3109:
        bits = draw(st.integers(3, 16))
        signed = draw(st.booleans())
        m = draw(st.integers(0, bits - 1 - signed))
        fields = (bits - m - signed, m, None, signed, specials)
    elif specials is Specials.TWOS:
        fields = (0, draw(st.integers(1, 52)), draw(BIASES), True, specials)
    else:
        signed = specials is Specials.FNUZ or (
            specials is not Specials.E8M0 and draw(st.booleans())
        )
        subnormals = draw(st.sampled_from([Subnormals.GRADUAL, Subnormals.FLUSH]))
        if specials is Specials.E8M0:
            subnormals = Subnormals.NONE
        e, m = draw(st.integers(1, top)), draw(st.integers(0, 46))
        fields = (e, m, draw(BIASES), signed, specials, subnormals)
    try:
        return Format(*fields)
    except ValueError:
        assume(False)
        raise


BIASES = st.none() | st.integers(-20, 20) | st.integers(-40000, 40000)


# ------------------------------------------------------------------------------------- order


def test_inclusion_is_that_of_value_sets() -> None:
    for a, b in PAIRS:
        assert (a <= b) == (values(a) <= values(b)), (a, b)
        assert algebra.same_values(a, b) == (values(a) == values(b)), (a, b)


def test_tiny_formats_include_each_other_as_their_values_do() -> None:
    for a, b in product(TINY, TINY):
        assert (a <= b) == (values(a) <= values(b)), (a, b)


def test_a_witness_is_a_value_of_one_that_the_other_lacks() -> None:
    for a, b in PAIRS:
        witness = algebra.witness(a, b)
        if witness is None:
            assert values(a) <= values(b), (a, b)
        else:
            assert Fraction(witness) in values(a) - values(b), (a, b)


@given(large_formats(), large_formats())
def test_a_witness_is_right_for_large_formats(a: Format, b: Format) -> None:
    witness = algebra.witness(a, b)
    assert (witness is None) == (a <= b)
    if witness is not None:
        assert witness in a
        assert witness not in b


@given(large_formats(), large_formats(), st.data())
def test_every_value_of_an_included_format_is_a_member(
    a: Format, b: Format, data: st.DataObject
) -> None:
    value = a.decode(data.draw(st.integers(0, (1 << a.bits) - 1)))
    if a <= b and isinstance(value, Fraction):
        assert value in b


@given(large_formats(), large_formats(), large_formats())
def test_inclusion_is_a_preorder(a: Format, b: Format, c: Format) -> None:
    assert a <= a
    assert not a < a
    assert not (a <= b <= c) or a <= c
    assert (a < b) == (a <= b and not b <= a)
    assert (a >= b) == (b <= a)
    assert (a > b) == (b < a)


def test_inclusion_ignores_the_sign_of_zero_and_the_special_values() -> None:
    assert parse("e4m3") <= parse("e4m3fn") <= parse("e4m3finite")
    assert parse("e4m3fnuz") <= parse("e4m3b8finite") <= parse("e4m3fnuz")
    assert parse("e4m3fnuz") != parse("e4m3b8finite")


@pytest.mark.parametrize(
    ("small", "big", "witness"),
    [
        ("e4m3fn", "fp16", None),
        ("bf16", "fp32", None),
        ("fp32", "fp64", None),
        ("fp16", "bf16", 65504),
        ("e8m0", "fp32", None),
        ("e8m0", "fp16", 2.0**127),
        ("e4m3fn", "e5m2", 1.875 * 2.0**-6),
        ("e4m3", "ue4m3", -240),
        ("int8", "e4m3fn", 127),
        ("int8", "e4m6finite", None),
        ("uint8", "int8", 255),
        ("mxint8", "bf16", None),
        ("e4m3_flush", "e4m3", None),
        ("e4m3", "e4m3_flush", 2.0**-9),
        ("fp32", "e8m0", 3.4028234663852886e38),
        ("ue3m2", "ue8m3nozero", 0),
        ("e16m47", "fp64", Fraction(2**48 - 1) * 2 ** (2**15 - 48)),
    ],
)
def test_known_inclusions(small: str, big: str, witness: float | None) -> None:
    assert algebra.witness(small, big) == witness
    assert algebra.includes(big, small) == (witness is None)


def test_a_grid_takes_part_in_the_order() -> None:
    products = parse("e4m3fn") * parse("e4m3fn")
    assert algebra.includes("fp32", products)
    assert not algebra.includes("fp16", products)
    assert algebra.includes(products, "e4m3fn")


# ---------------------------------------------------------------------------- join and meet


@cache
def candidates() -> list[Format]:
    """Floats and fixed point as `join` and `meet` search them, up to 7 bits, many biases."""
    return [
        fmt
        for fmt in formats_of(range(1, 8), range(-8, 9))
        if not fmt.specials.is_p3109 and (fmt.exponent_bits != 1 or not fmt.has_zero)
        if fmt.exponent_bits or fmt.specials is (Specials.TWOS if fmt.signed else Specials.FINITE)
    ]


def competes(fmt: Format, a: Format, b: Format) -> bool:
    return fmt.subnormals in {Subnormals.GRADUAL, a.subnormals, b.subnormals}


@pytest.mark.parametrize("seed", range(12))
def test_join_is_the_smallest_that_contains_both(seed: int) -> None:
    a, b = random.Random(seed).sample(list(formats_of(range(3, 6))), 2)
    found = a | b
    assert a <= found
    assert b <= found
    wanted = values(a) | values(b)
    for fmt in candidates():
        if competes(fmt, a, b) and len(values(fmt)) < len(values(found)):
            assert not wanted <= values(fmt), fmt


@pytest.mark.parametrize("seed", range(12))
def test_meet_is_the_largest_contained_in_both(seed: int) -> None:
    a, b = random.Random(seed).sample(list(formats_of(range(3, 7))), 2)
    shared = values(a) & values(b)
    try:
        found = a & b
    except ValueError:
        assert not any(competes(f, a, b) and values(f) <= shared for f in candidates())
        return
    assert values(found) <= shared
    for fmt in candidates():
        if competes(fmt, a, b) and len(values(fmt)) > len(values(found)):
            assert not values(fmt) <= shared, fmt


@pytest.mark.parametrize(
    ("a", "b", "join", "meet"),
    [
        ("e4m3fn", "e5m2", "e5m3", "e4m2finite"),
        ("e2m3", "e3m2", "e3m3b2", "e2m2finite"),
        ("fp16", "bf16", "tf32", "e5m7fnuz"),
        ("int8", "uint8", "int9", "uint7"),
        ("int4", "int8", "int8", "int4"),
        ("mxint8", "int8", "e4m6", "int2"),
        ("e8m0", "fp32", "fp32", "e8m0"),
        ("e8m0", "e4m3fn", "e8m3", "ue4m0nozero"),
        ("e4m3_flush", "e5m2_flush", "e5m3_flush", "e4m2_flush"),
    ],
)
def test_known_joins_and_meets(a: str, b: str, join: str, meet: str) -> None:
    assert algebra.join(a, b) == algebra.join(b, a) == parse(join)
    assert algebra.meet(a, b) == algebra.meet(b, a) == parse(meet)


@settings(max_examples=25)
@given(large_formats(top=11), large_formats(top=11))
def test_join_and_meet_obey_the_laws_that_hold(a: Format, b: Format) -> None:
    check_laws(a, b)


def test_join_and_meet_obey_the_laws_that_hold_on_small_formats() -> None:
    for a, b in PAIRS[:150]:
        check_laws(a, b)


def check_laws(a: Format, b: Format) -> None:
    assert a | a == a & a == a
    try:
        join = a | b
    except ValueError:
        assert not a <= b
        assert not b <= a
    else:
        assert join == b | a
        assert a <= join
        assert b <= join
        assert (a <= b) == algebra.same_values(join, b)
        assert algebra.same_values(a & join, a)
    try:
        meet = a & b
    except ValueError:
        assert not a <= b
        assert not b <= a
    else:
        assert meet == b & a
        assert meet <= a
        assert meet <= b
        assert (a <= b) == algebra.same_values(meet, a)
        assert algebra.same_values(a | meet, a)


def test_join_is_no_least_upper_bound_and_not_associative() -> None:
    a, b, above = parse("int4"), parse("uint4"), parse("e3m4")
    assert a <= above
    assert b <= above
    assert a | b == parse("int5")
    assert algebra.witness(a | b, above) == -16
    a, b, c = parse("e2m3"), parse("int4"), parse("int8")
    assert (a | b) | c == parse("e3m6b0fn")
    assert a | (b | c) == parse("e3m6b-1")


def test_meet_is_no_greatest_lower_bound_and_not_associative() -> None:
    a, b, below = parse("e3m3finite"), parse("e5m2"), parse("e3m2b4finite")
    assert below <= a
    assert below <= b
    assert a & b == parse("e3m2")
    assert algebra.witness(below, a & b) is not None
    a, b, c = parse("e2m1"), parse("e3m2"), parse("mxint8")
    assert (a & b) & c == parse("e0m2b0twos")
    assert a & (b & c) == parse("e2m0b2fn")


def test_no_join_and_no_meet_are_errors_that_say_so() -> None:
    with pytest.raises(ValueError, match="none holds fp64 and e16m0"):
        algebra.join("fp64", "e16m0")
    with pytest.raises(ValueError, match="no format lies in"):
        algebra.meet(Format(2, 1, bias=1), Format(2, 1, bias=100))


# ----------------------------------------------------------------------- sums and products


def grid_of(points: set[Fraction]) -> tuple[int, int, Fraction, Fraction]:
    """The bounds that these values attain."""
    odd = [(abs(x) / last_place(x)).numerator.bit_length() for x in points if x]
    exponents = [last_place(x) for x in points if x]
    return max(odd), min(exponents), max(points), min(points | {Fraction(0)})


def last_place(x: Fraction) -> Fraction:
    numerator, denominator = x.numerator, x.denominator
    return Fraction(numerator & -numerator, denominator)


def test_products_and_sums_are_the_smallest_grid() -> None:
    for a, b in PAIRS[:160] + list(product(TINY[::7], TINY[::5])):
        for grid, points in (
            (a * b, {x * y for x in values(a) for y in values(b)}),
            (a + b, {x + y for x in values(a) for y in values(b)}),
        ):
            bounds = (
                grid.precision,
                power_of_two(grid.quantum_exponent),
                grid.max_value,
                grid.lowest_value,
            )
            assert bounds == grid_of(points), (a, b)
            assert all(x in grid for x in points)


@given(large_formats(), large_formats(), st.data())
def test_products_and_sums_of_values_are_members(a: Format, b: Format, data: st.DataObject) -> None:
    x, y = (f.decode(data.draw(st.integers(0, (1 << f.bits) - 1))) for f in (a, b))
    assume(isinstance(x, Fraction) and isinstance(y, Fraction))
    assert x * y in a * b
    assert x + y in a + b


@given(large_formats(top=8), large_formats(top=8))
def test_the_format_of_a_grid_contains_it(a: Format, b: Format) -> None:
    for grid in (a * b, a + b):
        if grid.format is not None:
            assert algebra.includes(grid.format, grid)
    if (a + b).format is not None and a.has_zero and b.has_zero:
        assert a <= (a + b).format
        assert b <= (a + b).format


@pytest.mark.parametrize(
    ("a", "b", "product_format", "sum_format"),
    [
        ("e4m3fn", "e4m3fn", "e5m7b13", "e0m19b-9twos"),
        ("e2m1", "e2m1", "e3m3b1", "e0m5b-3twos"),
        ("int8", "int8", "int16", "int9"),
        ("uint8", "uint8", "uint16", "uint9"),
        ("bf16", "bf16", "e9m15", None),
        ("fp32", "fp32", "e9m47", None),
        ("fp64", "fp64", None, None),
    ],
)
def test_known_products_and_sums(
    a: str, b: str, product_format: str | None, sum_format: str | None
) -> None:
    for grid, spelling in (
        (algebra.exact_product(a, b), product_format),
        (algebra.exact_sum(a, b), sum_format),
    ):
        assert grid.format == (None if spelling is None else parse(spelling))


def test_grid_membership() -> None:
    grid = Grid(3, -1, Fraction(10), Fraction(-4))
    inside = [x for x in (Fraction(n, 4) for n in range(-60, 60)) if x in grid]
    assert [2 * x for x in inside] == [*range(-8, 8), *range(8, 16, 2), 16, 20]
    assert grid.emin == 1
    assert (grid.max, grid.min) == (10.0, -4.0)
    assert -0.0 in grid
    assert Special.NEG_ZERO in grid
    for outside in (float("nan"), float("inf"), float("-inf"), 10.5, 0.25):
        assert outside not in grid
    with pytest.raises(TypeError, match="x must be a real number"):
        "1" in grid  # noqa: B015


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, 0, 1), "precision must be at least 1, got 0"),
        ((2, 0, 0), "max_value must be positive"),
        ((2, 0, 4, 1), "lowest_value at most 0"),
        ((2, 0, 5), "max_value must be a member"),
        ((2, 1, 4, -1), "lowest_value must be a member"),
        ((2, 0, float("inf")), "max_value must be finite"),
    ],
)
def test_a_grid_refuses_bad_fields(fields: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(*fields)


def test_a_grid_refuses_fields_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match="precision must be an int"):
        Grid(2.0, 0, Fraction(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="x must be a real number"):
        Grid(2, 0, "1")  # type: ignore[arg-type]


def test_grids_print_in_full_or_in_short() -> None:
    assert str(algebra.exact_product("e4m3fn", "e4m3fn")) == (
        "grid of 8 significant bits in steps of 2**-18, -200704 to 200704"
    )
    assert repr(algebra.exact_sum("uint8", "uint8")) == "Grid(9, 0, 510, 0)"
    assert "2**32768" in repr(algebra.exact_sum("e16m0", "e16m0"))


# -------------------------------------------------------------------------- dot accumulator


def test_dot_accumulator_is_the_narrowest_that_holds_every_partial_sum() -> None:
    for a, b in PAIRS[400:550]:
        products = {x * y for x in values(a) for y in values(b)}
        for n in (1, 2, 3, 5, 8, 33):
            found = algebra.dot_accumulator(a, b, n)
            highest, lowest = n * max(products), min(0, n * min(products))
            step = power_of_two(-found.fraction_bits)
            assert step == min(last_place(x) for x in products if x)
            assert found.signed == (lowest < 0)
            assert holds(found.bits, highest / step, lowest / step), (a, b, n)
            assert not holds(found.bits - 1, highest / step, lowest / step), (a, b, n)
            if found.format is not None:
                assert all(x in found.format for x in (highest, lowest, step))


def holds(width: int, highest: Fraction, lowest: Fraction) -> bool:
    if lowest >= 0:
        return highest <= 2**width - 1
    return -(2 ** (width - 1)) <= lowest and highest <= 2 ** (width - 1) - 1


@pytest.mark.parametrize(
    ("a", "b", "n", "bits", "fraction_bits"),
    [
        ("int8", "int8", 1, 16, 0),  # 128 * 128 = 2**14 needs 16 bits signed
        ("int8", "int8", 4, 18, 0),
        ("uint8", "uint8", 1, 16, 0),
        ("uint8", "int8", 1, 16, 0),
        ("e2m1", "e2m1", 32, 14, 2),  # 32 * 36 * 4 = 4608
        ("e4m3fn", "e4m3fn", 1, 37, 18),  # 448 * 448 * 2**18 < 2**36
        ("e5m2", "e5m2", 1, 65, 32),
        ("fp16", "fp16", 1, 81, 48),
        ("fp32", "fp32", 1, 555, 298),
    ],
)
def test_known_accumulators(a: str, b: str, n: int, bits: int, fraction_bits: int) -> None:
    found = algebra.dot_accumulator(a, b, n)
    assert (found.bits, found.fraction_bits) == (bits, fraction_bits)
    assert (found.format is None) == (bits > 53)


def test_accumulator_formats() -> None:
    assert algebra.dot_accumulator("int8", "int8", 4).format == parse("int18")
    assert algebra.dot_accumulator("uint8", "uint8", 1).format == parse("uint16")
    assert Accumulator(integer_bits=-2, fraction_bits=10, signed=True).bits == 9
    assert algebra.dot_accumulator("e8m0", "e8m0", 1).signed is False
    coarse = algebra.dot_accumulator(Format(2, 1, bias=-50), Format(2, 1, bias=-50), 2)
    assert coarse.fraction_bits < 0
    assert coarse.bits == algebra.dot_accumulator(Format(2, 1), Format(2, 1), 2).bits


def test_dot_accumulator_refuses_bad_lengths() -> None:
    for n in (0, -1):
        with pytest.raises(ValueError, match="n must be at least 1"):
            algebra.dot_accumulator("int8", "int8", n)
    for wrong in (1.0, "4", True, None):
        with pytest.raises(TypeError, match="n must be an int"):
            algebra.dot_accumulator("int8", "int8", wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ casts


def test_an_exact_cast_loses_no_value() -> None:
    for a, b in PAIRS:
        assert algebra.is_exact_cast(a, b) == (a <= b)
        everything = {a.decode(code) for code in a.codes()}
        kept = {b.decode(code) for code in b.codes()} | {Fraction(0)} & values(b)
        assert algebra.is_exact_cast(a, b, specials=True) == (everything <= kept), (a, b)


@pytest.mark.parametrize(
    ("src", "dst", "finite", "everything"),
    [
        ("e4m3", "e4m3fn", True, False),
        ("e4m3fn", "fp16", True, True),
        ("e4m3fnuz", "fp16", True, True),
        ("e5m2", "fp16", True, True),
        ("e4m3fn", "e4m3finite", True, False),
        ("e2m1", "e4m3fnuz", True, False),
        ("fp16", "fp32", True, True),
        ("fp32", "fp16", False, False),
        ("e8m0", "fp32", True, True),
        ("int8", "fp16", True, True),
    ],
)
def test_known_exact_casts(src: str, dst: str, finite: bool, everything: bool) -> None:
    assert algebra.is_exact_cast(src, dst) is finite
    assert algebra.is_exact_cast(src, dst, specials=True) is everything


def rounded(fmt: Format, x: Fraction | Special, mode: Rounding) -> Fraction | Special:
    value = round_value(fmt, x, mode, Policy())
    return Fraction(0) if value is Special.NEG_ZERO else value


def harmed(x: Fraction, via: Format, dst: Format, mode: Rounding) -> bool:
    return rounded(dst, x, mode) != rounded(dst, rounded(via, x, mode), mode)


def test_double_rounding_agrees_with_brute_force() -> None:
    draw = random.Random(4)
    for _ in range(240):
        src, via, dst = (draw.choice(SMALL) for _ in range(3))
        mode = draw.choice(list(Rounding))
        found = algebra.double_rounding(src, via, dst, mode)
        if found is None:
            assert not any(harmed(x, via, dst, mode) for x in values(src)), (src, via, dst, mode)
        else:
            assert found in src
            assert harmed(Fraction(found), via, dst, mode), (src, via, dst, mode)


def test_double_rounding_of_all_reals_agrees_with_brute_force() -> None:
    """Both roundings are step functions: a point in each step, and each edge, decide."""
    draw = random.Random(5)
    for _ in range(150):
        via, dst = draw.choice(SMALL), draw.choice(SMALL)
        mode = draw.choice(list(Rounding))
        edges = sorted({edge for fmt in (via, dst) for edge in steps_of(fmt)})
        between = [(a + b) / 2 for a, b in pairwise(edges)]
        tried = [*edges, *between, edges[0] - 1, edges[-1] + 1]
        found = algebra.double_rounding(None, via, dst, mode)
        if found is None:
            assert not any(harmed(x, via, dst, mode) for x in tried), (via, dst, mode)
        else:
            assert harmed(Fraction(found), via, dst, mode), (via, dst, mode)


def steps_of(fmt: Format) -> set[Fraction]:
    ordered = sorted(values(fmt) | {Fraction(0), -fmt.max_value, -fmt.smallest_positive})
    above = ordered[-1] + power_of_two(fmt.step_exponent(ordered[-1]))
    below = ordered[0] - power_of_two(fmt.step_exponent(-ordered[0]))
    ordered = [below, *ordered, above]
    return {*ordered, *((a + b) / 2 for a, b in pairwise(ordered))}


@pytest.mark.parametrize(
    ("src", "via", "dst", "mode", "harmless"),
    [
        ("fp64", "fp32", "bf16", "nearest_even", False),
        ("fp64", "fp32", "bf16", "toward_zero", True),
        ("fp64", "fp32", "bf16", "to_odd", True),
        (None, "fp32", "bf16", "nearest_even", False),
        (None, "fp32", "bf16", "toward_positive", True),
        ("fp32", "fp16", "e4m3fn", "nearest_even", False),
        ("fp32", "bf16", "e4m3fn", "nearest_even", False),
        ("fp32", "fp64", "bf16", "nearest_even", True),
        ("bf16", "fp16", "e4m3fn", "nearest_even", True),
        ("fp16", "bf16", "e4m3fn", "nearest_even", False),
        ("fp32", "e4m3fn", "e2m1", "nearest_even", False),
        ("fp16", "fp32", "e4m3fn", "nearest_even", True),
        ("fp32", "e5m2", "bf16", "nearest_even", False),
        ("int8", "mxint8", "int8", "nearest_even", False),
        ("e8m0", "e4m3fn", "e8m0", "nearest_even", False),
        # Products of two fp16 values have 22 bits, so that float32 holds them exactly.
        ("e6m21", "fp32", "fp16", "nearest_even", True),
    ],
)
def test_known_double_roundings(
    src: str | None, via: str, dst: str, mode: str, harmless: bool
) -> None:
    found = algebra.double_rounding(src, via, dst, mode)
    assert (found is None) is harmless
    if found is not None:
        assert harmed(Fraction(found), parse(via), parse(dst), Rounding(mode))
        assert src is None or found in parse(src)


@settings(max_examples=12)
@given(st.sampled_from(Rounding), st.integers(0, 30), st.integers(2, 8), st.integers(0, 20))
def test_going_through_a_wider_format_of_the_same_range(
    mode: Rounding, extra: int, m: int, cut: int
) -> None:
    """Harmless where every source value is exact in it, and in modes that are no nearest ones;
    harmful in the nearest modes as soon as the source has two bits to lose in it."""
    dst, via = Format(8, m), Format(8, m + 1 + extra)
    src = Format(8, m + 1 + cut)
    found = algebra.double_rounding(src, via, dst, mode)
    if cut <= extra or not mode.is_nearest:
        assert found is None
    elif cut >= extra + 2:
        assert found is not None


def test_double_rounding_without_a_middle_is_harmless() -> None:
    for fmt in random.sample(SMALL, 7):
        for mode in Rounding:
            assert algebra.double_rounding(None, fmt, fmt, mode) is None, (fmt, mode)


def test_double_rounding_refuses_random_modes() -> None:
    for mode in ("stochastic", "stochastic:8:C", "pseudo_gaussian:4"):
        with pytest.raises(ValueError, match="rounding must be a deterministic mode"):
            algebra.double_rounding("fp32", "bf16", "e4m3fn", mode)


# ------------------------------------------------------------------------------- noise rule


@pytest.mark.parametrize("m", range(1, 6))
@pytest.mark.parametrize("strict", [False, True])
def test_noise_survives_where_every_cast_shows_it(m: int, strict: bool) -> None:
    fmt = Format(6, m)
    for bits in range(1, m + 5):
        shows = all(
            rounded(fmt, x + sign * delta, Rounding.NEAREST_EVEN) != x
            for steps in range((1 << m) + (not strict), 2 << m)
            for x in (Fraction(steps, 1 << m), -Fraction(steps, 1 << m))
            for delta in (abs(x) * power_of_two(1 - bits),)
            for sign in (1, -1)
        )
        assert algebra.noise_survives(fmt, bits, strict) is shows, bits


def test_the_noise_rule_is_a_bound_on_the_bits() -> None:
    assert algebra.noise_survives("bf16", 9)
    assert not algebra.noise_survives("bf16", 10)
    assert algebra.noise_survives("bf16", 8, strict=True)
    assert not algebra.noise_survives("bf16", 9, strict=True)
    assert algebra.noise_survives("bf16", 8.99, strict=True)
    assert not algebra.noise_survives("bf16", 9.01)


@pytest.mark.parametrize(
    ("bits", "spelling"),
    [
        (0, "e2m1"),
        (3, "e2m1"),
        (3.5, "e3m2"),
        (4, "e3m2"),
        (5, "e4m3fn"),
        (6, "e3m4"),
        (7, "bf16"),
        (9, "bf16"),
        (10, "fp16"),
        (12, "fp16"),
        (13, "fp32"),
        (24, "fp32"),
    ],
)
def test_smallest_format_for_noise(bits: float, spelling: str) -> None:
    found = algebra.smallest_format_for_noise(bits)
    assert found == parse(spelling)
    assert algebra.noise_survives(found, bits)
    assert found.emax - found.emin + 1 >= bits


def test_the_noise_rule_refuses_bad_bits_and_formats() -> None:
    for bits in (-1, 24.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"bits must be in 0\.\.24"):
            algebra.noise_survives("bf16", bits)
        with pytest.raises(ValueError, match=r"bits must be in 0\.\.24"):
            algebra.smallest_format_for_noise(bits)
    for wrong in ("4", True, None):
        with pytest.raises(TypeError, match="bits must be a number"):
            algebra.noise_survives("bf16", wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fmt must have normal values"):
        algebra.noise_survives("int8", 4)


def test_algebra_takes_spellings_and_refuses_the_rest() -> None:
    assert algebra.includes("fp32", parse("bf16"))
    with pytest.raises(ValueError, match="is not a format"):
        algebra.join("fp32", "fp33")
    with pytest.raises(TypeError, match="fmt must be a Format"):
        algebra.meet("fp32", 4)  # type: ignore[arg-type]
    for operation in ("__or__", "__and__", "__mul__", "__add__", "__le__", "__lt__"):
        assert getattr(parse("fp16"), operation)(3) is NotImplemented
