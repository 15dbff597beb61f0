"""The laws of block formats on every backend: over the catalogue, awkward and drawn formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fpemu
from fpemu import Key, Rounding, Stochastic
from fpemu.blocks import NAMES, BlockFormat
from fpemu.lowering import FLOAT32
from fpemu.rounding import parse_rounding
from fpemu.testing import BLOCK_LAWS, BlockBackend, BlockReference, bits, block_points, check_blocks
from fpemu.testing import strategies as fst
from fpemu.testing._block_quantizers import values_by_definition
from fpemu.testing.block_laws import BLOCK_ROUNDINGS, KEY, is_idempotent

NIGHTLY = settings.default.max_examples > 1000

# One of each kind of block, scale and rule, with the elements that are hardest on it.
AWKWARD = (
    "e2m1[32,e8m0,ceil]",
    "e4m3fn[32,e8m0,even]",
    "e2m1[32,e8m0,rceil]",
    "e2m1[32,e8m0,four_thirds]",
    "e5m2[16,ue4m3,pow2_m1]",
    "e2m1[16,fp32,pow2_m2]",
    "e2m1[16,e4m3fn,pow2_m2]",
    "e2m1[16,e4m3fn,even,fp32]",
    "e2m1[16,e4m3fn,mse:9:0.8:2,fp32]",
    "e2m1[32,e8m0,mse:5:0.5:2.4]",
    "e3m2[16,fp32,octav]",
    "int4[16,bf16,octav]",
    "e2m1[16,fp32,quest]",
    "e2m1[16x16,e8m0]",
    "e4m3fn[4x3,fp32]",
    "e2m1[128x128,e8m0,rceil]",
    "e2m1[4x4,ue5m3,absmax,fp32]",
    "e4m3fn[tensor,fp32]",
    "int8[channel,fp32]",
    "e2m1[tensor,e4m3fn,absmax,fp32]",
    "int8[32,e8m0]",
    "int4[1,e5m2,absmax]",
    "e3m0[7,e8m0,even]",
    "bf16[8,e8m0]",
    "e4m3_flush[8,e5m3,ceil]",
    "e4m3fn[8,none]",
    "int8[4,int8]",
    "hif8[16,e8m0]",
    "nf4[64,fp32]",
    "bint2[32,bf16]",
)
FORMATS = (*NAMES, *AWKWARD)
RARE = ("searched_scales_are_no_worse", "tiles_transpose")
SLOW = ("maxima_beside_powers_of_two", "stochastic_blocks_are_unbiased")


@pytest.mark.parametrize("spelling", FORMATS)
def test_all_laws_hold(backend: str, spelling: str) -> None:
    """To nearest, and another rounding and dtype in turn; nightly all of them."""
    dtypes = ("float32", "float64", "bfloat16", "float16")
    turn = sum(map(ord, spelling))
    modes = range(len(BLOCK_ROUNDINGS)) if NIGHTLY else (0, 1 + turn % 11)
    for number, mode in enumerate(modes):
        rounding = BLOCK_ROUNDINGS[mode]
        for dtype in dtypes if NIGHTLY else dtypes[turn % 4 if number else 0 :][:1]:
            check_blocks(
                BlockBackend(backend),
                spelling,
                rounding=rounding,
                dtype=dtype,
                skip=SLOW if number and not NIGHTLY else (),
            )


@pytest.mark.parametrize("spelling", ["mxfp4", "nvfp4", "e4m3fn[8x8,fp32]", "mxint8"])
def test_draws_of_few_bits_are_unbiased(backend: str, spelling: str) -> None:
    for rounding in (Stochastic(1), Stochastic(3), Stochastic(8), Stochastic(4, "B")):  # type: ignore[arg-type]
        BLOCK_LAWS["stochastic_blocks_are_unbiased"].function(
            BlockBackend(backend), spelling, rounding=rounding
        )


@pytest.mark.parametrize("name", [name for name in BLOCK_LAWS if name not in SLOW])
@settings(max_examples=max(settings.default.max_examples // 10, 5))
@given(data=st.data())
def test_law_on_drawn_blocks(backend: str, name: str, data: st.DataObject) -> None:
    law = BLOCK_LAWS[name]
    formats = fst.block_formats()
    if name in RARE:
        formats = st.sampled_from([BlockFormat.parse(spelling) for spelling in FORMATS])
    fmt = data.draw(formats, label="fmt")
    modes = [mode for mode in BLOCK_ROUNDINGS if law.applies(fmt, mode)]
    assume(modes)
    rounding = data.draw(st.sampled_from(modes), label="rounding")
    dtype = data.draw(st.sampled_from(("float32", "float64", "float16", "bfloat16")))
    x = data.draw(fst.blocks(fmt, dtype), label="x")
    drawn = data.draw(fst.keys(), label="key")
    key = replace(drawn, row_length=None, row_stride=None)
    law.function(BlockBackend(backend), fmt, x, rounding=rounding, key=key)


def test_every_law_runs_somewhere() -> None:
    formats = [BlockFormat.parse(spelling) for spelling in FORMATS]
    for law in BLOCK_LAWS.values():
        assert any(law.applies(fmt, mode) for fmt in formats for mode in BLOCK_ROUNDINGS), law.name


def test_the_reference_breaks_no_law() -> None:
    """The definition itself, on a format with everything but a search."""
    for spelling in ("e2m1[4,e4m3fn,absmax,fp32]", "e2m1[2x3,e8m0,even]"):
        for rounding in (Rounding.NEAREST_EVEN, Stochastic(3)):
            check_blocks(BlockReference(), spelling, rounding=rounding, x=block_points(
                BlockFormat.parse(spelling))[0][:3], skip=SLOW)  # fmt: skip


# -------------------------------------------------------------------- idempotence

# What `fpemu.testing._block_idempotence` says: spelling, mode, whether a second rounding is free.
IDEMPOTENT = (
    ("mxfp4", "nearest_even", True),
    ("mxfp4", "stochastic", True),
    ("mxfp8_e4m3", "toward_positive", True),
    ("mxint8", "to_odd", True),
    ("int8[32,e8m0]", "nearest_even", False),  # -127.9 becomes -128
    ("bint2[32,e8m0]", "nearest_even", False),  # 2 is no element
    ("e2m1[32,e8m0,ceil]", "stochastic:8", True),
    ("int8[32,e8m0,ceil]", "toward_negative", True),
    ("e4m3fn[32,e8m0,rceil]", "toward_zero", True),
    ("nf4[16,e8m0,rceil]", "nearest_even", False),  # not closed under doubling
    ("e4m3fn[32,e8m0,even]", "nearest_even", True),
    ("e4m3fn[32,e8m0,even]", "toward_zero", False),  # 480 is beyond 448
    ("e2m1[32,e8m0,even]", "toward_zero", True),
    ("e2m1[32,e8m0,four_thirds]", "nearest_even", False),
    ("e2m1[16,e4m3fn]", "nearest_even", True),
    ("e2m1[16,e4m3fn]", "nearest_zero", True),
    ("e2m1[16,e4m3fn]", "toward_zero", False),
    ("e4m3fn[16,e4m3fn]", "nearest_even", False),  # 448 / (1 + 1/16) rounds to 416
    ("e2m1[16,e8m0,absmax]", "nearest_even", False),
    ("e2m1[16,bf16]", "nearest_away", True),
    ("e2m1[16,fp32]", "nearest_even", True),
    ("e2m1[16,fp32]", "toward_zero", True),  # elements are 2**k and 3 * 2**k
    ("e2m1[16,fp32]", "stochastic", True),
    ("int4[16,fp32]", "nearest_even", True),
    ("int4[16,fp32]", "toward_zero", False),
    ("e4m3fn[16,fp32]", "to_odd", False),
    ("nf4[16,fp32]", "nearest_even", True),
    ("e2m1[16,fp32,pow2_m2]", "toward_zero", True),
    ("int4[16,fp32,pow2_m2]", "nearest_even", True),
    ("e2m1[16,fp32,mse:9:0.8:2]", "nearest_even", True),
    ("e2m1[16,fp32,octav]", "nearest_even", True),
    ("int4[16,fp32,octav]", "nearest_even", False),
    ("e2m1[16,fp32,quest]", "nearest_even", False),
    ("nvfp4", "nearest_even", True),
    ("nvfp4", "stochastic", False),
    ("nvint4", "nearest_even", True),
    ("e2m1[16,e4m3fn,floor,fp32]", "nearest_even", False),
    ("e4m3fn[32,none]", "toward_positive", True),
)


@pytest.mark.parametrize(("spelling", "rounding", "claimed"), IDEMPOTENT)
def test_idempotence_is_claimed_where_it_holds(spelling: str, rounding: str, claimed: bool) -> None:
    """And where it is not claimed, among a few thousand ordinary blocks there is a witness."""
    fmt, mode = BlockFormat.parse(spelling), parse_rounding(rounding)
    assert is_idempotent(fmt, mode, FLOAT32.format) is claimed
    generator = np.random.default_rng(7)
    x = generator.standard_normal((1500, 32), np.float32)
    x *= np.exp2(generator.integers(-3, 4, (1500, 1))).astype(np.float32)
    x[0] = 2.0
    once = fpemu.quantize(x, fmt, rounding=mode, key=Key(1), backend="numpy")
    twice = fpemu.quantize(once, fmt, rounding=mode, key=Key(2), backend="numpy")
    assert (bits(once) == bits(twice)).all() == claimed


@pytest.mark.parametrize(
    "spelling",
    [
        "e2m1[16,e4m3fn,absmax,e4m3fn]",  # the outer scale is too coarse
        "e2m1[16,e4m3fn,mse:9:0.8:2,fp32]",  # the largest block may lose the largest scale
    ],
)
def test_outer_scales_that_are_not_found_again(spelling: str) -> None:
    fmt = BlockFormat.parse(spelling)
    assert not is_idempotent(fmt, Rounding.NEAREST_EVEN, FLOAT32.format)
    changed = 0
    for x in np.random.default_rng(7).standard_normal((100, 16), np.float32):
        once = fpemu.quantize(x, fmt)
        changed += (fpemu.quantize(once, fmt) != once).any()
    assert changed


@pytest.mark.parametrize(
    ("spelling", "x"),
    [
        # The scale is subnormal: 3 * 2**-9 / 6 is a tie, and becomes no scale at all.
        ("e2m1[16,e4m3fn]", 3.1 * 2.0**-9),
        ("e2m1[16,fp32]", 9 * 2.0**-149),
    ],
)
def test_subnormal_scales_are_not_idempotent(spelling: str, x: float) -> None:
    once = fpemu.quantize(np.array([x], np.float32), spelling)
    assert once != 0
    assert fpemu.quantize(once, spelling) != once


def test_twice_is_four_thirds_of_the_scale() -> None:
    """5.9 * 4/3 and 6 * 4/3 are on different sides of 8."""
    x = np.array([7.9, 0.6], np.float32)
    once = fpemu.quantize(x, "e2m1[32,e8m0,four_thirds]")
    assert once.tolist() == pytest.approx([8.0, 2 / 3])
    assert fpemu.quantize(once, "e2m1[32,e8m0,four_thirds]")[1] != once[1]


# ------------------------------------------------------------------ some by hand


def test_float64_blocks_are_computed_in_float64(backend: str) -> None:
    fmt = BlockFormat.parse("e2m1[16,fp32,absmax]")
    x = block_points(fmt, "float64")[0]
    got = fpemu.quantize(x, fmt, backend=backend)
    assert (bits(got) == bits(values_by_definition(x, fmt, Rounding.NEAREST_EVEN, KEY))).all()


def test_blocks_of_one_row_share_s_max(backend: str) -> None:
    """Rule pow2_m2: scales are s_max / 2**k along the axis that blocks run along, any of them."""
    x = np.array([[6.0, 1.0, 3.0, 0.4], [12.0, 9.0, 0.1, 7.0]], np.float32)
    row = fpemu.quantize(x, "e2m1[1,fp32,pow2_m2]", backend=backend)
    column = fpemu.quantize(
        np.ascontiguousarray(x.T), "e2m1[1,fp32,pow2_m2]", axis=0, backend=backend
    )
    assert row.tolist() == column.T.tolist()
    # s_max is 1 and 2; the scales below 1: 1/6 -> 1/8, 3/6 -> 1/2, 0.4/6 -> 1/16.
    assert row[0].tolist() == [6.0, 0.75, 3.0, 0.375]


def test_ratios_of_scales_may_overflow(backend: str) -> None:
    x, fmt = np.array([2.0**127, 2.0**-126], np.float32), "e2m1[1,fp32,pow2_m2]"
    got = fpemu.quantize(x, fmt, backend=backend)
    expected = values_by_definition(x, BlockFormat.parse(fmt), Rounding.NEAREST_EVEN, KEY)
    assert bits(got).tolist() == bits(expected).tolist()
    assert got[1] > 0
