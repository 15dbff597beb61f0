"""`fpemu.testing` as others use it: strategies, what must not be imported, one's own quantizer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import fpemu.testing.hypothesis_entry  # noqa: F401 - registers; an installation does it itself
from fpemu import Format, Key, Policy, PseudoNoise, Rounding, Special, Specials, Stochastic
from fpemu.blocks import CHANNEL, TENSOR, BlockFormat
from fpemu.catalog import CANONICAL, parse
from fpemu.formats import Subnormals
from fpemu.lowering import FLOAT64
from fpemu.scales import ScaleMethod, ScaleRule
from fpemu.table_format import TableFormat
from fpemu.testing import (
    Table,
    bits,
    block_points,
    check,
    check_blocks,
    containers,
    draws,
    points,
    table,
)
from fpemu.testing import strategies as fst
from fpemu.testing._patterns import (
    container_of,
    exact,
    floats,
    is_nan,
    narrow,
    usual_dtype,
    widen,
)
from fpemu.testing._points import magnitudes

TIES = set(table(parse("e4m3fn")).positive.middles.tolist())
POWERS = {2.0**k for k in range(-9, 9)}


def run(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)


def test_fpemu_does_not_import_hypothesis() -> None:
    run("import sys, fpemu; assert 'hypothesis' not in sys.modules")


def test_the_laws_work_without_hypothesis() -> None:
    run(
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "from fpemu.testing import Tabulated, check, table\n"
        "assert 'nearest_is_nearest' in check(Tabulated(), 'e2m1', rounding='nearest_even')\n"
    )


def test_the_entry_point_is_light() -> None:
    """Hypothesis imports it in every project; NumPy waits until a strategy is asked for."""
    run(
        "import sys, hypothesis\n"
        "before = set(sys.modules)\n"
        "import fpemu.testing.hypothesis_entry\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert 'numpy' not in new and 'numba' not in new, new\n"
    )


@pytest.mark.parametrize(
    "kind",
    [BlockFormat, Format, Key, Policy, PseudoNoise, Rounding, ScaleRule, Stochastic],
)
def test_types_resolve(kind: type) -> None:
    assert isinstance(find(st.from_type(kind), lambda _: True), kind)


@pytest.mark.parametrize("family", fst.FAMILIES)
def test_every_family_is_drawn(family: str) -> None:
    """And only formats of that family, none wider than asked."""

    @given(fst.formats(max_bits=9, families=[family]))
    def only_that(fmt: Format) -> None:
        assert fmt.bits <= 9
        assert FLOAT64.holds(fmt)
        match family:
            case "flush":
                assert fmt.subnormals is Subnormals.FLUSH
            case "unsigned":
                assert not fmt.signed
            case "catalogue":
                assert fmt in CANONICAL.values()
            case _:
                assert fmt.specials is Specials(family)

    only_that()


@pytest.mark.parametrize(
    "wanted",
    [
        lambda fmt: fmt.exponent_bits == 0,
        lambda fmt: fmt.mantissa_bits == 0 and fmt.exponent_bits > 2,
        lambda fmt: fmt.bias < -10,
        lambda fmt: fmt.specials is Specials.P3109_EXTENDED and not fmt.signed,
        lambda fmt: fmt.subnormals is Subnormals.FLUSH and not fmt.signed,
        lambda fmt: fmt.bits == 16,
    ],
)
def test_awkward_formats_come_up(wanted) -> None:
    assert wanted(find(fst.formats(), wanted))


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ValueError, match="families must be among"):
        find(fst.formats(families=["posit"]), lambda _: True)


@given(st.data())
def test_arrays_have_the_dtype_asked_for(data: st.DataObject) -> None:
    fmt = data.draw(fst.formats())
    dtype = data.draw(fst.containers(fmt))
    x = data.draw(fst.arrays(fmt, dtype))
    assert x.dtype == dtype
    assert data.draw(fst.values(fmt, dtype)).dtype == dtype
    assert data.draw(fst.arrays(fmt, shape=(2, 3))).dtype == usual_dtype(fmt)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda x: abs(x) in TIES,
        lambda x: np.nextafter(abs(x), np.float32(0)) in TIES,
        lambda x: np.nextafter(abs(x), np.float32(np.inf)) in TIES,
        lambda x: np.nextafter(abs(x), np.float32(np.inf)) in POWERS,
        lambda x: 448 < abs(x) < 480,
        lambda x: 2.0**-12 < abs(x) < 2.0**-9,
        lambda x: np.isnan(x) and np.signbit(x),
        lambda x: x == 0 and np.signbit(x),
        lambda x: 0 < x < 1e-40,
    ],
)
def test_values_where_rounding_breaks_come_up(wanted) -> None:
    assert wanted(find(fst.values("e4m3fn", np.float32), lambda x: bool(wanted(x))))


@given(fst.formats(), st.data())
def test_points_hold_ties_edges_and_specials(fmt: Format, data: st.DataObject) -> None:
    dtype = data.draw(fst.containers(fmt))
    x = points(fmt, dtype)
    assert not x.flags.writeable
    assert is_nan(x).any()
    assert np.isinf(widen(x)).any()
    assert (widen(x) == float(fmt.max_value)).any()
    assert (widen(x) == float(fmt.smallest_positive)).any()
    if container_of(dtype).format.precision > fmt.precision + 1 and fmt.max_code < 512:
        ladder = table(fmt).positive
        inside = ladder.middles[:-1]
        inside = inside[widen(narrow(inside, dtype)) == inside]
        assert np.isin(inside, widen(x)).all()


@given(fst.formats(max_bits=10))
def test_the_table_has_the_values_of_the_format(fmt: Format) -> None:
    """Codes, order and special values, against `Format.decode`."""
    assert Table.covers(fmt)
    codes = np.arange(1 << fmt.bits)
    decoded = table(fmt).decode(codes)
    expected = exact([fmt.decode(int(code)) for code in codes], np.float64)
    assert bits(narrow(decoded, np.float64)).tolist() == bits(expected).tolist()
    ladder = table(fmt).positive
    assert (np.diff(ladder.rungs) > 0).all()
    assert [float(fmt.magnitude(int(c))) for c in ladder.codes[:-1]] == ladder.rungs[:-1].tolist()


def test_tables_are_for_small_formats() -> None:
    for spelling in ("fp32", "e11m4b1100", "binary16p1se"):
        with pytest.raises(ValueError, match="fmt must have at most 16 bits"):
            Table(spelling)
    with pytest.raises(ValueError, match="draws must be given"):
        table(parse("e2m1")).round(np.ones(2), Stochastic(4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_patterns_come_back(dtype: str) -> None:
    found = {d.name: d for d in containers("e2m1")}[dtype]
    width = found.itemsize * 8
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 1 << width, 1000, dtype=f"u{width // 8}")
    assert np.array_equal(bits(floats(patterns, found)), patterns)
    assert bits(exact([Special.NAN], found))[0] == container_of(found).pattern(Special.NAN)


def test_magnitudes_go_beyond_the_range() -> None:
    assert magnitudes(parse("e4m3fn"), np.array([0x7E, 0x7F, 0x80])).tolist() == [448, 480, 512]
    assert magnitudes(parse("e11m4"), np.array([0x7FF0])).tolist() == [np.inf]
    assert magnitudes(parse("e11m4"), np.array([0x7FF0]), scale=-1).tolist() == [2.0**1023]


class RoundHalfEven:
    """What someone else's quantizer might be: E2M1 by hand, nearest even, saturating."""

    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])

    def quantize(self, x, fmt, rounding, policy, key):
        size = np.minimum(np.nan_to_num(np.abs(x)), 6)
        distance = np.abs(self.grid - size[..., None])
        even = np.arange(8) % 2
        best = np.lexsort((np.broadcast_to(even, distance.shape), distance), axis=-1)[..., 0]
        q = self.grid[best]
        return np.where(np.signbit(x), -q, q).astype(x.dtype)


def test_a_quantizer_of_ones_own() -> None:
    """Laws on codes do not run where there are none, and NaN is what it gets wrong."""
    options = {"rounding": "nearest_even", "policy": "sat_finite"}
    with pytest.raises(AssertionError, match=r"nan \(float32 0x7fc00000\).*code 0x0"):
        check(RoundHalfEven(), "e2m1", **options, skip={"agrees_with_the_reference"})
    number = points("e2m1", np.float32)
    number = number[~np.isnan(number)]
    ran = check(RoundHalfEven(), "e2m1", **options, x=number, skip={"nan_stays_nan"})
    assert {"agrees_with_the_table", "nearest_is_nearest", "rounding_is_odd"} <= set(ran)
    assert not {"codes_are_ordered", "slices_draw_as_the_whole"} & set(ran)


def test_draws_are_for_adapters() -> None:
    """A foreign quantizer takes the integers of a key from here."""
    drawn = draws(7, 5, Stochastic(8))
    assert drawn.tolist() == [Key(7).lane(j, 8) for j in range(5)]


# ------------------------------------------------------------------------- blocks


def test_the_laws_of_blocks_work_without_hypothesis() -> None:
    run(
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "from fpemu.testing import BlockBackend, check_blocks\n"
        "ran = check_blocks(BlockBackend('numpy'), 'e2m1[4,e8m0]', rounding='nearest_even')\n"
        "assert 'blocks_are_idempotent' in ran\n"
    )


def test_a_function_of_ones_own_can_be_checked() -> None:
    """The least that a quantizer must have: no stored form, nothing of fpemu's arrays."""

    class Mine:
        def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
            size = np.abs(x).max(axis=axis, keepdims=True)
            exponent = np.frexp(size)[1] - 3
            scale = np.where(size == 0, 1, np.ldexp(np.float32(1), exponent.clip(-127, 127)))
            return np.copysign(np.minimum(np.rint(np.abs(x / scale) * 2) / 2, 6) * scale, x)

    x = np.array([[8, 1, -2, 0], [4, 2, 1, -0.0]], np.float32)
    ran = check_blocks(
        Mine(), "e2m1[4,e8m0]", x=x, rounding="nearest_even",
        skip={"spoiled_blocks_spoil_no_other", "maxima_beside_powers_of_two",
              "tiny_blocks_agree_with_the_reference", "small_arrays_are_taken",
              "powers_of_two_commute", "runs_are_tiles", "blocks_do_not_see_each_other"},
    )  # fmt: skip
    assert "blocks_agree_with_the_reference" in ran
    assert not any("stor" in name for name in ran)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda fmt: fmt.block == TENSOR,
        lambda fmt: fmt.block == CHANNEL,
        lambda fmt: isinstance(fmt.block, tuple),
        lambda fmt: fmt.scale is None,
        lambda fmt: fmt.outer is not None and str(fmt.outer) == "bf16",
        lambda fmt: fmt.symmetric and str(fmt) not in ("mxint8", "nvint4"),
        lambda fmt: isinstance(fmt.element, TableFormat),
        lambda fmt: fmt.rule.method is ScaleMethod.QUEST,
        lambda fmt: fmt.rule.method is ScaleMethod.FOUR_THIRDS,
    ],
)
def test_every_kind_of_block_format_is_drawn(wanted) -> None:
    assert wanted(find(fst.block_formats(), wanted))


@pytest.mark.parametrize(
    "wanted",
    [
        lambda x: x.shape[1] > 32 and x.shape[1] % 32,
        lambda x: (x[:, :32] == 0).all() and x.shape[1] > 32,
        lambda x: np.isnan(x).any(),
        lambda x: np.isinf(x).any(),
        lambda x: (x == 0).any() and np.signbit(x[x == 0]).any(),
        lambda x: 0 < np.abs(x).max() < 2.0**-126,
        lambda x: np.abs(x).max() == np.finfo(np.float32).max,
        lambda x: np.abs(x).max() == 8 - 2.0**-21,
    ],
)
def test_awkward_blocks_come_up(wanted) -> None:
    found = find(fst.blocks("mxfp4", finite=False), wanted, settings=settings(max_examples=5000))
    assert found.dtype == np.float32


def test_blocks_have_the_shape_asked_for() -> None:
    x = find(fst.blocks("mxfp4", "float16", shape=(2, 3, 4), axis=1), lambda _: True)
    assert (x.shape, x.dtype) == ((2, 3, 4), np.float16)


@pytest.mark.parametrize("spelling", ["mxfp4", "nvfp4", "mxint8"])
def test_block_points_hold_the_maxima_that_matter(spelling: str) -> None:
    fmt = BlockFormat.parse(spelling)
    found = block_points(fmt, "float32")
    assert all(np.isfinite(x).all() and not x.flags.writeable for x in found)
    maxima = {
        float(np.abs(x[row, first : first + fmt.block]).max())
        for x in found
        for row in range(len(x))
        for first in range(0, x.shape[1], fmt.block)
    }
    assert any(np.frexp(m)[0] == 0.5 for m in maxima)
    assert any(np.frexp(m)[0] == 1 - 2.0**-24 for m in maxima)
    assert max(maxima) == np.finfo(np.float32).max
    assert min(maxima) < 2.0**-126
