"""Table formats on arrays: bit for bit the reference, and the verbs' manners."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpemu import arrays, catalog, table_arrays
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.lowering import CONTAINERS
from fpemu.packing import pack
from fpemu.policy import NanRule, Overflow, Policy, ZeroSign
from fpemu.rounding import Rounding, Stochastic, Variant
from fpemu.table_format import NAMES, TableFormat, round_value
from fpemu.table_plans import plan_for
from fpemu.testing import check, draws, laws
from fpemu.testing import strategies as fst
from fpemu.testing._patterns import bits, exact, floats, is_nan, narrow, widen
from fpemu.testing._points import around, specials
from fpemu.values import Special, as_value

HIF8, NF4, BINT1, BINT4 = (NAMES[name] for name in ("hif8", "nf4", "bint1", "bint4"))
SWEPT = [HIF8, NF4, BINT1, BINT4]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]
MODES = [
    *Rounding,
    Stochastic(32),
    Stochastic(1),
    Stochastic(8, Variant.B),
    Stochastic(32, Variant.B),
    Stochastic(5, Variant.C),
    Stochastic(32, Variant.C),
    Stochastic(variant=Variant.EQUAL),
]
# Values far apart next to values close together: the integers of a gap do not fit 64 bits.
WIDE = TableFormat(
    "wide",
    (0, 1 + 2**-30, 2.0**60, -(2.0**-40), -(2.0**50), float("inf"), float("-inf"), None),
    Fraction(10**20, 3),
)
KEY = Key(5, stream=2, offset=11)


def points(fmt: TableFormat, dtype: np.dtype) -> np.ndarray:
    """Every value, midpoint and quarter with its neighbours, both signs, and special patterns."""
    rungs = sorted({*fmt.finite, Fraction(0), *([fmt.beyond] if fmt.beyond else [])})
    between = [a + (b - a) * Fraction(k, 4) for a, b in pairwise(rungs) for k in (1, 2, 3)]
    edges = [rungs[-1] * Fraction(k, 8) for k in (9, 12, 16, 99)]
    reals = np.array([float(x) for x in (*rungs, *between, *edges)])
    with np.errstate(over="ignore"):
        reals = reals[np.isfinite(narrow(reals, dtype).astype(np.float64))]
    return np.concatenate([around(reals, dtype), specials(dtype)])


def expected_values(x, fmt, mode, policy, key):
    drawn = draws(key, x.size, mode).tolist() if isinstance(mode, Stochastic) else [0] * x.size
    numbers = [as_value(number) for number in widen(x).reshape(-1).tolist()]
    return [round_value(fmt, v, mode, policy, r) for v, r in zip(numbers, drawn, strict=True)]


def assert_agrees(x, fmt, mode, policy=Policy(), key=KEY):  # noqa: B008 - immutable
    given_key = key if isinstance(mode, Stochastic) else None
    before = bits(x).copy()
    got = table_arrays.quantize(x, fmt, rounding=mode, policy=policy, key=given_key)
    values = expected_values(x, fmt, mode, policy, key)
    wrong = np.flatnonzero(bits(got).reshape(-1) != bits(exact(values, x.dtype)))
    assert not wrong.size, (fmt, mode, policy, widen(x).reshape(-1)[wrong[0]], values[wrong[0]])
    codes = table_arrays.encode(
        x, fmt, rounding=mode, policy=replace(policy, nan="max"), key=given_key
    )
    top = fmt.encode(fmt.max_value)
    assert codes.reshape(-1).tolist() == [
        top if v is Special.NAN and not fmt.has_nan else fmt.encode(v) for v in values
    ]
    assert (bits(x) == before).all()


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [(fmt, dtype) for fmt in SWEPT for dtype in DTYPES if dtype.name in table_arrays.holders(fmt)],
    ids=str,
)
def test_every_breakpoint_agrees_with_the_reference(fmt, dtype, mode):
    x = points(fmt, dtype)
    if x.size > 1000 and dtype != np.float32:
        x = x[::3]
    assert_agrees(x, fmt, mode)


@pytest.mark.parametrize("policy", Overflow)
@pytest.mark.parametrize("mode", [*Rounding, Stochastic(3), Stochastic(9, Variant.C)], ids=str)
def test_edges_agree_with_the_reference_under_every_policy(policy, mode):
    for fmt in (HIF8, NF4, BINT4):
        x = points(fmt, np.dtype(np.float32))
        x = np.concatenate([x[:40], x[x.size // 2 - 20 : x.size // 2 + 20], x[-60:]])
        assert_agrees(x, fmt, mode, Policy(policy))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_gaps_too_wide_for_integers_agree_with_the_reference(mode):
    assert_agrees(points(WIDE, np.dtype(np.float64)), WIDE, mode)
    assert_agrees(points(WIDE, np.dtype(np.float64)), WIDE, mode, Policy("sat_propagate"))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("rule", ZeroSign)
def test_the_sign_of_zero_follows_the_policy(rule, mode):
    fmt = TableFormat("signed", (0, 1, Special.NEG_ZERO, -1))
    x = np.array([-0.0, 0.0, -1e-9, 1e-9, -0.5, 0.5], np.float32)
    assert_agrees(x, fmt, mode, Policy(zero_sign=rule))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_close_values_agree_with_the_reference(mode):
    """Too many in a binade for the table by leading bits: all of the search is used."""
    fmt = TableFormat("close", tuple(1 + Fraction(k, 128) for k in range(128)))
    dtype = np.dtype(np.float64)
    assert plan_for(fmt, Rounding.TO_ODD, Policy(), CONTAINERS["float64"]).reach is None
    assert_agrees(points(fmt, dtype)[::5], fmt, mode)


@st.composite
def tables(draw):
    """Any small table: values of float16, unsigned and without zero among them, in any order."""
    patterns = st.integers(0, 0x7BFF) | st.sampled_from([0, 1, 0x3C00, 0x3C01, 0x4000, 0x7BFF])
    signs = st.sampled_from([0, 0, 0x8000]) if draw(st.booleans()) else st.just(0)
    numbers = st.builds(lambda p, s: p | s, patterns, signs)
    found = draw(st.lists(numbers, min_size=1, max_size=14, unique=True))
    values = {as_value(float(v)) for v in floats(np.array(found, np.uint64), np.float16)}
    table = [v for v in values if v is not Special.NEG_ZERO]
    if not any(v > 0 for v in table):
        table.append(Fraction(1, 3) if draw(st.booleans()) else Fraction(5))
        table = [Fraction(7) if v == Fraction(1, 3) else v for v in table]
    signed = min(table) < 0
    if signed and 0 in table and draw(st.booleans()):
        table.append(Special.NEG_ZERO)
    beyond = None
    if draw(st.booleans()):
        table += [Special.POS_INF, Special.NEG_INF][: 1 + signed]
        size = max(abs(v) for v in table if isinstance(v, Fraction))
        beyond = size * draw(st.sampled_from([2, 3, Fraction(9, 8), Fraction(4, 3)]))
    table += [Special.NAN] * draw(st.integers(0, 2))
    table = draw(st.permutations(table))
    size = max(2, 1 << (len(table) - 1).bit_length())
    return TableFormat("drawn", (*table, *[None] * (size - len(table))), beyond)


@given(st.data(), tables(), st.sampled_from(DTYPES[:3]), fst.roundings(), fst.keys())
def test_any_table_agrees_with_the_reference(data, fmt, dtype, mode, key):
    container = CONTAINERS[dtype.name]
    raw = st.integers(0, (1 << container.bits) - 1)
    near = points(fmt, dtype)
    listed = st.sampled_from(bits(near).tolist())
    chosen = data.draw(st.lists(raw | listed, min_size=1, max_size=30))
    nan = NanRule.MAX
    policy = Policy(data.draw(st.none() | st.sampled_from(Overflow)), nan=nan)
    assert_agrees(floats(np.array(chosen, np.uint64), dtype), fmt, mode, policy, key)


# ------------------------------------------------------------------------ laws


class Tabled:
    """fpemu's table formats, given the values of a `Format`, as a quantizer for the laws."""

    def table(self, fmt: Format) -> TableFormat:
        beyond = fmt.magnitude(fmt.max_code + 1) if fmt.has_inf else None
        return TableFormat("like", tuple(map(fmt.decode, fmt.codes())), beyond)

    def quantize(self, x, fmt, rounding, policy, key):
        return table_arrays.quantize(x, self.table(fmt), rounding=rounding, policy=policy, key=key)

    def encode(self, x, fmt, rounding, policy, key):
        return table_arrays.encode(x, self.table(fmt), rounding=rounding, policy=policy, key=key)

    def decode(self, codes, fmt, dtype):
        return table_arrays.decode(codes, self.table(fmt), dtype=dtype)


@pytest.mark.parametrize(
    ("spelling", "policy", "rounding"),
    [
        ("e2m1", "sat_none", laws.ROUNDINGS),
        ("e3m1", "sat_none", laws.ROUNDINGS),
        ("e3m1", "sat_propagate", "nearest_even"),
        ("uint4", "sat_none", laws.ROUNDINGS),
        ("int4", "sat_finite", ("nearest_even", "to_odd", "stochastic:3")),
        ("binary6p3sf", "sat_finite", ("nearest_even", "to_odd", "stochastic:3")),
        ("e8m0", "sat_finite", ("nearest_away", "toward_zero", "stochastic:4")),
    ],
)
def test_laws_hold(spelling, policy, rounding):
    """Every law of the suite, on tables that a Format describes too."""
    ran = check(Tabled(), spelling, policy=policy, rounding=rounding)
    assert {"agrees_with_the_table", "codes_agree_with_the_table", "decoding_is_exact"} <= set(ran)


@pytest.mark.parametrize("fmt", NAMES.values(), ids=str)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_codes_are_fixed_points(fmt, mode):
    codes = np.arange(len(fmt.table), dtype=np.uint8)
    policy = Policy("sat_none")
    for dtype in table_arrays.holders(fmt):
        values = table_arrays.decode(codes, fmt, dtype=dtype)
        assert bits(values).tolist() == bits(exact(fmt.table, dtype)).tolist()
        again = table_arrays.quantize(values, fmt, rounding=mode, policy=policy, key=1)
        assert (bits(again) == bits(values)).all()
        encoded = table_arrays.encode(values, fmt, rounding=mode, policy=policy, key=1)
        assert (encoded == codes).all()


@pytest.mark.parametrize("fmt", SWEPT, ids=str)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_order_is_kept_and_results_are_neighbours(fmt, mode):
    x = points(fmt, np.dtype(np.float32))
    x = np.sort(x[~is_nan(x)])
    one_draw = Key(3, row_length=1, row_stride=0)
    key = one_draw if isinstance(mode, Stochastic) else None
    q = table_arrays.quantize(x, fmt, rounding=mode, key=key)
    assert (q[1:] >= q[:-1]).all()
    inside = (x >= float(fmt.min)) & (x <= float(fmt.max))
    values = np.array(fmt.values())
    low = values[np.searchsorted(values, x[inside], "right") - 1]
    high = values[np.searchsorted(values, x[inside], "left")]
    assert ((q[inside] == low) | (q[inside] == high)).all()


@pytest.mark.parametrize("fmt", [HIF8, NF4], ids=str)
@pytest.mark.parametrize("variant", Variant)
def test_every_draw_together_gives_the_formula(fmt, variant):
    """As the law of formats says, swept over all draws."""
    mode = Stochastic(6, variant)
    key = Key(1)
    drawn = draws(key, 4096, mode)
    different, first = np.unique(drawn, return_index=True)
    assert different.size == 1 << mode.bits
    for low, high in list(pairwise(fmt.finite))[:: len(fmt.finite) // 9]:
        if low < 0:
            low, high = high, low
        for part in (0.0, 0.25, 0.5, 1 / 3, 2**-6, 1 - 2**-6, 2**-20, 1 - 2**-13):
            x = float(low) + float(high - low) * part
            q = table_arrays.quantize(np.full(4096, x), fmt, rounding=mode, key=key)
            nu = (as_value(x) - low) / (high - low)
            wanted = {
                Variant.A: nu * 64 // 1,
                Variant.B: (nu * 128 // 1 + 1) // 2,
                Variant.C: round(nu * 64),
                Variant.EQUAL: int(nu > 0),
            }[variant]
            assert (q == float(high))[first].sum() == wanted
            assert ((q == float(low)) | (q == float(high))).all()


def test_draws_are_addressed():
    x = np.linspace(-3, 3, 200_000, dtype=np.float32)
    options = {"rounding": "stochastic:11", "fmt": HIF8}
    whole = table_arrays.quantize(x, key=9, **options)
    for start, stop in ((1, 18), (65_530, 65_550), (131_000, 200_000)):
        part = table_arrays.quantize(x[start:stop], key=Key(9, offset=start), **options)
        assert (part == whole[start:stop]).all()
    matrix = x[:6000].reshape(60, 100)
    shard = Key(9, offset=30, row_length=20, row_stride=100)
    part = table_arrays.quantize(matrix[:, 30:50], key=shard, **options)
    assert (part == whole[:6000].reshape(60, 100)[:, 30:50]).all()
    lane = Key(9).lane(77, 16) >> 5
    assert whole[77] == float(round_value(HIF8, as_value(x[77]), Stochastic(11), Policy(), lane))
    drawn = table_arrays.round_table(x[5:9], HIF8, Stochastic(11), Policy(), Key(9), 5)
    assert (drawn == whole[5:9]).all()


# -------------------------------------------------------------- the verbs' manners


@pytest.mark.parametrize("mode", ["nearest_even", "stochastic:7"])
def test_layout_does_not_matter(mode):
    base = np.random.default_rng(3).standard_normal((9, 10, 11)).astype(np.float32)
    expected = table_arrays.quantize(base, NF4, rounding=mode, key=4)
    wide = np.repeat(base, 2, axis=1)
    views = [
        np.asfortranarray(base),
        base.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        base[::-1, :, ::-1].copy()[::-1, :, ::-1],
        wide[:, ::2],
        base.astype(">f4"),
    ]
    for view in views:
        before = view.copy()
        assert (table_arrays.quantize(view, NF4, rounding=mode, key=4) == expected).all()
        out = np.empty(base.shape[::-1], np.float32).T
        assert table_arrays.quantize(view, NF4, rounding=mode, key=4, out=out) is out
        assert (out == expected).all()
        codes = table_arrays.encode(view, NF4, rounding=mode, key=4)
        assert (table_arrays.decode(codes, NF4) == expected).all()
        assert (view == before).all()
    packed = table_arrays.encode(base, NF4, rounding=mode, key=4, packed=True)
    assert (packed == pack(codes, 4)).all()
    x = base.copy()
    table_arrays.quantize(x, NF4, rounding=mode, key=4, out=x)
    assert (x == expected).all()


def test_scalars_shapes_and_dtypes():
    assert isinstance(table_arrays.quantize(0.3, NF4), np.float64)
    assert table_arrays.quantize(np.float32(0.3), NF4) == np.float32(0.33791524171829224)
    assert isinstance(table_arrays.encode(0.3, NF4), np.uint8)
    assert isinstance(table_arrays.decode(8, NF4), np.float32)
    assert table_arrays.quantize(np.zeros((2, 0)), HIF8).shape == (2, 0)
    assert table_arrays.quantize([1, 3], BINT4).dtype == np.float64
    half = np.array([0.3, -0.7], np.float16)
    assert table_arrays.quantize(half, NF4, dtype="float32").dtype == np.float32
    assert table_arrays.encode(half, NF4).tolist() == [11, 1]
    assert table_arrays.quantize(half.astype(BFLOAT16), HIF8).dtype == BFLOAT16
    narrowed = table_arrays.quantize(np.array([0.3, -9.0]), HIF8, dtype="bfloat16")
    assert narrowed.dtype == BFLOAT16


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("mode", ["toward_positive", "stochastic:7:C"])
def test_integers_are_rounded_once(dtype, mode):
    limits = np.iinfo(dtype)
    top = int(limits.max)
    edge = 1 << 60
    fmt = TableFormat("big", (0, 1, edge, 2 * edge, -edge, None, None, None))
    picked = [0, 1, 2, 100, top, top - 1, limits.min]
    picked += [edge + d for d in (-1, 0, 1)] if top > edge else []
    picked += [-edge - 1, -edge + 1] if limits.min < -edge else []
    x = np.array(picked, dtype)
    q = table_arrays.quantize(x, fmt, rounding=mode, key=5)
    chosen = table_arrays.rule(fmt, mode, None)
    for i, number in enumerate(picked):
        draw = Key(5).lane(i, 8) >> 1 if isinstance(chosen.rounding, Stochastic) else 0
        exact = round_value(fmt, Fraction(int(number)), chosen.rounding, Policy(), draw)
        assert as_value(q[i]) == exact
    codes = table_arrays.encode(x, fmt, rounding=mode, key=5)
    assert (table_arrays.decode(codes, fmt, dtype="float64") == q).all()


def test_special_values():
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-40, -1e-40], np.float32)
    q = table_arrays.quantize(x, HIF8)
    assert (
        bits(q).tolist()
        == bits(np.array([np.nan, np.nan, np.inf, -np.inf, 0, 0, 0], "f4")).tolist()
    )
    assert table_arrays.encode(x, HIF8).tolist() == [0x80, 0x80, 0x6F, 0xEF, 0, 0, 0]
    q = table_arrays.quantize(x, NF4)
    assert (bits(q) == bits(np.array([np.nan, np.nan, 1, -1, 0, 0, 0], np.float32))).all()
    q = table_arrays.quantize(x[2:], BINT4)
    assert q.tolist() == [15, -15, 1, 1, -1]


@pytest.mark.parametrize("fmt", [NF4, BINT4], ids=str)
def test_nan_has_no_code(fmt):
    x = np.array([[1, 2], [np.nan, 3]], np.float32)
    out = np.full((2, 4), 9, np.uint8)[:, ::2]
    with pytest.raises(ValueError, match=r"no code for it \(first at index \(1, 0\)\)"):
        table_arrays.encode(x, fmt, out=out)
    assert (out == 9).all()
    codes = table_arrays.encode(x, fmt, policy=Policy(nan="max"), out=out)
    assert codes is out
    assert codes[1, 0] == 15
    long = np.ones(100_000)
    long[80_000] = np.nan
    with pytest.raises(ValueError, match=r"\(80000,\)"):
        table_arrays.encode(long, fmt)


def test_decode_refuses_what_is_no_code():
    ternary = TableFormat("ternary", (0, 1, None, -1))
    with pytest.raises(ValueError, match=r"stand for a value of ternary, got 2 at \(1,\)"):
        table_arrays.decode([0, 2], ternary)
    with pytest.raises(ValueError, match=r"0\.\.3 for ternary, got -1 at \(1, 0\)"):
        table_arrays.decode([[0], [-1]], ternary)
    with pytest.raises(ValueError, match=r"0\.\.15 for nf4, got 16"):
        table_arrays.decode(np.array([16], np.uint8), NF4)
    with pytest.raises(TypeError, match="integers"):
        table_arrays.decode([0.5], NF4)
    with pytest.raises(ValueError, match="float16 cannot hold every value of nf4; use float32"):
        table_arrays.decode([0], NF4, dtype="float16")
    out = np.empty((2, 4), np.float32).T
    codes = np.arange(8).reshape(4, 2)
    assert table_arrays.decode(codes, NF4, out=out) is out
    assert out[0, 0] == -1
    values = table_arrays.decode_table(codes, NF4, np.dtype(np.float32))
    assert (values == out).all()


def test_arguments_are_checked():
    x = np.ones(3, np.float32)
    for call, error, words in (
        (lambda: table_arrays.quantize(x, NF4, rounding="stochastic"), ValueError, "key"),
        (lambda: table_arrays.quantize(x, NF4, rounding="pseudo_gaussian:4"), ValueError, "pseudo"),
        (lambda: table_arrays.quantize(x, NF4, rounding="up"), ValueError, "rounding"),
        (lambda: table_arrays.quantize(x, NF4, policy="torch"), ValueError, "imitates"),
        (lambda: table_arrays.quantize(x, NF4, key="k"), TypeError, "key"),
        (lambda: table_arrays.quantize(x.astype("f2"), NF4), ValueError, "use float32 or float64"),
        (lambda: table_arrays.quantize(x, NF4, dtype="float16"), ValueError, "dtype float16"),
        (lambda: table_arrays.quantize(x > 0, NF4), TypeError, "bool"),
        (lambda: table_arrays.quantize(x, NF4, out=np.empty(3)), TypeError, "float32"),
        (lambda: table_arrays.encode(x, NF4, out=np.empty(4, np.uint8)), ValueError, "shape"),
        (
            lambda: table_arrays.encode(x, NF4, packed=True, out=np.empty(3, np.uint8)),
            ValueError,
            "packed",
        ),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_table_agrees_with_the_format_of_the_same_values():
    """The fast paths of both, on ordinary data."""
    x = np.random.default_rng(1).standard_normal(100_000).astype(np.float32) * 3
    fmt = catalog.parse("e4m3")
    # Both NaN codes are NaN of one sign each; only values matter here.
    table = Tabled().table(fmt)
    for mode in ("nearest_even", "toward_zero", "stochastic:16", "stochastic:8:B"):
        key = 7 if "stochastic" in mode else None
        ours = table_arrays.quantize(x, table, rounding=mode, key=key)
        theirs = arrays.quantize(x, fmt, rounding=mode, key=key, backend="numpy")
        assert (bits(ours) == bits(theirs)).all()
    ours = table_arrays.encode_table(x, table, Rounding.TO_ODD, Policy())
    assert (ours == arrays.encode(x, fmt, rounding="to_odd", backend="numpy")).all()
