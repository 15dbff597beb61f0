"""Known answers of block formats: exponent tables, clips, errors on Gaussian data, small blocks.

The tables are those of the papers and standards that `fpemu.scales` names, or were worked out
from their formulas; errors are normalised: sum (x - q)**2 / sum x**2.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

import fpemu
from fpemu import block_reference
from fpemu.blocks import BlockFormat, as_element
from fpemu.formats import Special
from fpemu.gaussian_clip import gaussian_clip, mean_squared_error
from fpemu.quantized import compress
from fpemu.testing import bits

F = np.float32
SAMPLES = 1 << 22

# ------------------------------------------------------------------ exponents of scales

# (element, largest magnitudes, exponent by floor, even, rceil, ceil)
EXPONENTS = [
    ("e2m1", (3.0,), -1, -1, -1, 0),
    ("e2m1", (4.0,), 0, 0, 0, 0),
    ("e2m1", (5.0, 6.0), 0, 0, 0, 1),
    ("e2m1", (6.5,), 0, 0, 1, 1),
    ("e2m1", (7.0, 7.5), 0, 1, 1, 1),
    ("e2m1", (8.0,), 1, 1, 1, 1),
    ("e4m3fn", (448.0,), 0, 0, 0, 1),
    ("e4m3fn", (450.0, 490.0), 0, 0, 1, 1),
    ("e4m3fn", (511.0,), 0, 1, 1, 1),
]
RULES = ["floor", "even", "rceil", "ceil"]


@pytest.mark.parametrize("at", range(4), ids=RULES)
def test_exponents(backend: str, at: int) -> None:
    """The table, shifted by every power of two that keeps it in range, both signs."""
    for element, maxima, *exponents in EXPONENTS:
        fmt = BlockFormat(element, 32, "e8m0", RULES[at])  # type: ignore[arg-type]
        for amax in maxima:
            assert block_reference.block_scale(fmt, Fraction(amax)) == Fraction(2) ** exponents[at]
            shifts = np.arange(-115, 117)
            x = np.zeros((shifts.size, 2, 32), F)
            x[:, 0, 5] = np.ldexp(F(amax), shifts)
            x[:, 1, 31] = -x[:, 0, 5]
            stored = compress(x, fmt, backend=backend)
            assert stored.scales is not None
            expected = 127 + exponents[at] + shifts
            assert (stored.scales[:, :, 0] == expected[:, None]).all(), amax


def test_exponents_at_the_ends(backend: str) -> None:
    """127 is the largest scale, 2**-127 the smallest, and a zero block has code 0."""
    largest, smallest = np.finfo(F).max, F(2.0**-149)
    for rule, top in zip(RULES, (125, 126, 126, 126), strict=True):
        fmt = BlockFormat("e2m1", 4, "e8m0", rule)  # type: ignore[arg-type]
        x = np.array([largest, smallest, 0, 2.0**-125, 2.0**-124], F)[:, None] * np.eye(
            1, 4, dtype=F
        )
        stored = compress(x, fmt, backend=backend)
        assert stored.scales is not None
        codes = stored.scales[:, 0].tolist()
        assert codes == [127 + top, 0, 0, 0, 1], rule


def test_nvfp4_scales(backend: str) -> None:
    """t = amax / 2688, and a block's scale is its share of 448."""
    x = np.zeros((4, 16), F)
    x[:, 3] = [2688, 6, 3, 0.01]
    stored = compress(x, "nvfp4", backend=backend)
    scales = stored.scale_values()
    assert stored.outer == 1
    assert scales is not None
    assert scales[:, 0].tolist() == [448, 1, 0.5, 2.0**-9]  # 0.01 / 6 is less than 2**-9
    assert stored.dequantize(backend=backend)[:, 3].tolist() == [2688, 6, 3, 6 * 2.0**-9]
    assert compress(2 * x, "nvfp4").outer == 2
    assert compress(x, "nvfp4", amax=1344).outer == 0.5


# ------------------------------------------------------------------ errors on Gaussian data

# Errors of 4 million samples, block 32 (16 for E4M3 scales), rounded to four decimals.
NMSE = {
    "mxfp4": 0.0132,
    "e2m1[32,e8m0,even]": 0.0125,
    "e2m1[32,e8m0,rceil]": 0.0133,
    "e2m1[32,e8m0,ceil]": 0.0208,
    "e2m1[32,fp32]": 0.0102,
    "e2m1[32,e8m0,four_thirds]": 0.0139,
    "nvfp4": 0.0090,
    "e2m1[16,fp32]": 0.0089,
}


@cache
def gaussian() -> np.ndarray:
    return np.random.default_rng(2026).standard_normal(SAMPLES, F)


def nmse(x: np.ndarray, q: np.ndarray) -> float:
    gap = (x - q).astype(np.float64)
    return float(gap @ gap / np.square(x, dtype=np.float64).sum())


@pytest.mark.parametrize("spelling", NMSE)
def test_error_on_gaussian_data(spelling: str) -> None:
    """Within 1e-4: half a unit of the table, and 5e-5 for chance.

    The spread of 131072 block errors gives a standard error below 2.2e-5, asserted as well.
    """
    x = gaussian()
    q = fpemu.quantize(x, spelling)
    blocks = np.square(x - q).reshape(-1, 32).mean(axis=1, dtype=np.float64)
    assert blocks.std() / blocks.size**0.5 < 2.2e-5
    assert abs(nmse(x, q) - NMSE[spelling]) < 1e-4


def test_order_of_the_rules() -> None:
    """On Gaussian data: quest and mse do better than the maximum, even better than floor."""
    x = gaussian()[: 1 << 16]
    error = {
        rule: nmse(x, fpemu.quantize(x, f"e2m1[32,fp32,{rule}]"))
        for rule in ("absmax", "mse", "octav")
    }
    assert error["octav"] < error["absmax"]
    assert error["mse"] < error["absmax"]
    # Each looks for the least error: golden sections find at most what 100 steps miss.
    assert abs(error["mse"] - error["octav"]) < 2e-4
    whole = nmse(gaussian(), fpemu.quantize(gaussian(), "e2m1[tensor,fp32,quest]"))
    assert abs(whole - 0.01268490) < 3e-5  # the closed form, below


# -------------------------------------------------------------------------------- clips

# (element, clip of least error for N(0, 1) in 30 digits rounded to 9, that error)
CLIPS = [
    ("e2m1", 2.922475071, 0.01268490),
    ("e2m3", 3.747540216, 8.2915e-4),
    ("e3m2", 4.541759668, 2.76611e-3),
    ("e2m2finite", 3.379412582, 3.25600e-3),
    ("e3m1finite", 7.357269001, 1.064563e-2),
    ("e3m0finite", 4.193619673, 3.774499e-2),
    ("e1m2finite", 2.473879209, 1.288939e-2),
    # Levels -1, 1; -3, -1, 1, 3; ...: QuEST's symmetric grid without zero.
    ("bint1", 0.7978845608, 0.3633802276),
    ("bint2", 1.49353004, 0.11884605),
    ("bint3", 2.05106805, 0.03743966),
    ("bint4", 2.51400455, 0.01154288),
    ("bint5", 2.91615129, 3.49521e-3),
    ("bint6", 3.27798480, 1.04005e-3),
    ("bint7", 3.61109720, 3.04333e-4),
    ("bint8", 3.92220437, 8.76862e-5),
]


@pytest.mark.parametrize(("element", "clip", "error"), CLIPS)
def test_gaussian_clips(element: str, clip: float, error: float) -> None:
    """To the six decimals that are kept; errors to the digits that are given."""
    fmt = as_element(element)
    found = gaussian_clip(fmt)
    assert found == round(clip, 6)
    qmax = float(fmt.max_value)
    levels = sorted({float(value) / qmax for value in fmt.values()})
    assert abs(mean_squared_error(levels, found) / error - 1) < 1e-5


def test_ternary_clip() -> None:
    """Three levels, QuEST's 1.585 bits."""
    fmt = as_element("int2")
    assert abs(gaussian_clip(fmt, symmetric=True) - 1.22400636) <= 1.1e-6
    assert abs(mean_squared_error([-1, 0, 1], 1.22400636) - 0.19017404) < 1e-8


def test_quest_scale_is_the_clip_times_the_rms(backend: str) -> None:
    x = gaussian()[:4096].reshape(-1, 128)
    scales = compress(x, "e2m1[128,fp32,quest]", backend=backend).scale_values()
    rms = np.sqrt(np.square(x, dtype=np.float64).mean(axis=1))
    assert scales is not None
    # Two roundings to float32.
    assert np.abs(scales[:, 0] / (rms * 2.92247502 / 6) - 1).max() < 2e-7 + 2e-7


OCTAV = {2: 1.738835, 3: 2.161117, 4: 2.562090, 5: 2.937070, 6: 3.287162, 8: 3.924054}


@pytest.mark.parametrize("width", OCTAV)
def test_octav_on_gaussian_quantiles(width: int) -> None:
    """The fixed point for N(0, 1), by the means of 2**16 equally likely cells of the half line.

    Sums over whole cells are exact; only the cell of the clip is counted whole or not at all,
    which moves the clip by at most a share 1 / (cells beyond it) of a cell's width. Up to 6 bits
    that is below 1e-5; beyond the clip of 8 bits there are 6 cells of width 0.04 and more.
    """
    normal, n = NormalDist(), 1 << 16
    edges = np.array([*(normal.inv_cdf(0.5 + i / (2 * n)) for i in range(n)), np.inf])
    density = np.exp(-edges * edges / 2) / np.sqrt(2 * np.pi)
    x = 2 * n * (density[:-1] - density[1:])
    fmt = BlockFormat.parse(f"int{width}[tensor,fp32,octav]")
    scales = compress(x, fmt).scale_values()
    assert scales is not None
    clip = float(scales) * float(fmt.qmax)
    assert abs(clip - OCTAV[width]) < (1e-2 if width == 8 else 1e-5)


# ------------------------------------------------------------- power-of-two constraints


def spread_blocks() -> np.ndarray:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((64, 512)).astype(F)
    x *= np.exp2(rng.uniform(-20, 20, (64, 512 // 32))).astype(F).repeat(32, axis=1)
    x[0, ::32] = np.exp2(np.arange(16))  # ratios that are powers of two already
    x[0, 1:32] = 0
    return x


@pytest.mark.parametrize("element", ["e2m1", "e4m3fn", "int4"])
def test_power_of_two_scales_of_zeroquant(backend: str, element: str) -> None:
    """M1: S <= S' < 2 S, a power of two. M2: S/2 < S' <= S, S_max over a power of two."""
    x = spread_blocks()
    plain, m1, m2 = (
        compress(x, f"{element}[32,fp32,{rule}]", backend=backend).scale_values()
        for rule in ("absmax", "pow2_m1", "pow2_m2")
    )
    assert plain is not None
    assert m1 is not None
    assert m2 is not None
    assert (m1 >= plain).all()
    assert (m1 < 2 * plain).all()
    assert (np.frexp(m1)[0] == 0.5).all()
    assert (m2 <= plain).all()
    assert (m2 > plain / 2).all()
    largest = plain.max(axis=1, keepdims=True)
    assert (m2.max(axis=1, keepdims=True) == largest).all()
    assert (np.frexp(largest / m2)[0] == 0.5).all()


def test_m1_is_rceil(backend: str) -> None:
    x = spread_blocks()
    a = fpemu.quantize(x, "e2m1[32,fp32,pow2_m1]", backend=backend)
    assert np.array_equal(a, fpemu.quantize(x, "e2m1[32,e8m0,rceil]", backend=backend))


def test_four_thirds_never_clips(backend: str) -> None:
    """Every 64th magnitude of a binade, and those at its ends, land in [3, 6)."""
    patterns = np.arange(0x40800000, 0x41000000, 64, np.uint32)
    ends = np.concatenate([patterns[:1] + np.arange(64), patterns[-1:] + np.arange(64)])
    amax = np.concatenate([patterns, ends.astype(np.uint32)]).view(F)
    x = amax[:, None] * np.eye(1, 2, dtype=F)
    fmt = BlockFormat.parse("e2m1[2,e8m0,four_thirds]")
    for rounding in ("toward_zero", "toward_positive"):
        stored = compress(x, fmt, rounding=rounding, backend=backend)
        elements = fpemu.decode(stored.element_codes()[:, 0], "e2m1")
        assert (stored.scales == 127).all()
        assert elements.min() >= 3
        assert (elements <= 6).all()
    quotient = amax / F(4 / 3)
    assert quotient.min() >= 3
    assert quotient.max() < 6


# --------------------------------------------------------------- all blocks of two elements


@cache
def magnitudes() -> np.ndarray:
    """E2M1's, the midpoints between them, and the float32 neighbours of both."""
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], F)
    middles = (values[1:] + values[:-1]) / 2
    points = np.concatenate([values, middles, [F(5), F(7), F(8), F(12)]])
    up, down = (np.nextafter(points, F(end)) for end in (np.inf, -np.inf))
    every = np.concatenate([points, up, down])
    return np.unique(every[every >= 0])


# Powers of two in the middle and at the ends of float32, and scales that round every quotient.
SCALES = [1.0, 2.0**-3, 2.0**-126, 2.0**-140, 2.0**124, 1 / 3, 0.7, 5e-39]
FORMATS = [
    *(f"e2m1[2,e8m0,{rule}]" for rule in (*RULES, "four_thirds")),
    "e2m1[2,e4m3fn]",
    "e2m1[2,e4m3fn,fp32]",
    "e2m1[2,fp32]",
    "e2m1[2,fp32,pow2_m1]",
    "e2m1[2,ue5m3]",
    "e2m1[2,bf16]",
]


@pytest.mark.parametrize("spelling", FORMATS)
@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_away", "toward_negative"])
def test_every_block_of_two_magnitudes(backend: str, spelling: str, rounding: str) -> None:
    """All ordered pairs, both signs, under each scale, against the definition."""
    for scale in SCALES:
        x, expected = small_blocks(spelling, rounding, scale)
        got = fpemu.quantize(x, spelling, rounding=rounding, backend=backend)
        assert np.array_equal(bits(got), bits(expected)), scale


@cache
def small_blocks(spelling: str, rounding: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of two, and what becomes of them."""
    signed = np.concatenate([magnitudes(), -magnitudes()])
    pairs = np.array(list(product(signed, magnitudes())), F)
    with np.errstate(all="ignore"):
        x = pairs * F(scale)
    x = x[np.isfinite(x).all(axis=1)]
    return x, defined(BlockFormat.parse(spelling), x, rounding)


def defined(fmt: BlockFormat, x: np.ndarray, rounding: str) -> np.ndarray:
    """By the definition: distinct maxima and distinct (element, scale) pairs once each."""
    amax = np.abs(x).max(axis=1)
    outer = None
    if fmt.outer is not None:
        outer = block_reference.outer_scale(fmt, Fraction(float(amax.max())))
    distinct, which = np.unique(amax, return_inverse=True)
    scales = [block_reference.block_scale(fmt, Fraction(float(a)), outer) for a in distinct]
    kinds = {scale: i for i, scale in enumerate(dict.fromkeys(scales))}
    index = np.array([kinds[scale] for scale in scales])[which]
    order = list(kinds)
    keys = (index[:, None].astype(np.uint64) << np.uint64(32)) | bits(x)
    unique, back = np.unique(keys, return_inverse=True)
    values = np.empty(unique.size, F)
    for i, key in enumerate(unique.tolist()):
        number = float(np.array([key & 0xFFFFFFFF], np.uint32).view(F)[0])
        negative_zero = number == 0 and key & 0x80000000
        value = Special.NEG_ZERO if negative_zero else Fraction(number)
        block = block_reference.round_block(
            fmt, [value], order[key >> 32], outer, rounding=fpemu.Rounding(rounding)
        )
        result = block.values[0]
        values[i] = -0.0 if result is Special.NEG_ZERO else float(result)  # type: ignore[arg-type]
    return values[back].reshape(x.shape)


def test_mxfp4_reproduces_its_own_values(backend: str) -> None:
    """A block of E2M1 magnitudes whose largest is 4 or 6 is a fixed point, at any scale."""
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], F)
    pairs = np.array([pair for pair in product(values, values) if max(pair) >= 4], F)
    for exponent in range(-127, 126):
        x = np.ldexp(pairs, exponent)
        for sign in (1, -1):
            q = fpemu.quantize(sign * x, "e2m1[2,e8m0]", backend=backend)
            assert np.array_equal(bits(q), bits(sign * x)), exponent
