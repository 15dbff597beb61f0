"""The NumPy backend equals the reference, and does not depend on how arrays are cut."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from fpemu import backends, gaussian, reference
from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials, Subnormals
from fpemu.keys import Key
from fpemu.lowering import BFLOAT16, CONTAINERS, FLOAT16, FLOAT32, FLOAT64, Container, lower
from fpemu.policy import NanRule, Overflow, Policy, ZeroSign
from fpemu.rounding import Noise, Rounding, Stochastic, Variant, parse_rounding
from fpemu.values import power_of_two

BACKEND = backends.get("numpy")
NEAREST, PLAIN = Rounding.NEAREST_EVEN, Policy()

NAMED = [
    *("e4m3fn", "e5m2", "e2m1", "e3m2", "e4m3fnuz", "e5m2fnuz", "e8m0", "ue4m3"),
    *("int8", "mxint8", "binary8p4se", "binary8p3sf", "fp16", "bf16", "tf32", "fp32"),
]
BUILT = [
    # no mantissa bits
    Format(3, 0, specials=Specials.FINITE),
    Format(4, 0, bias=6, specials=Specials.FNUZ),
    Format(4, 0),
    # flush, and flush where the container is subnormal
    Format(3, 2, subnormals=Subnormals.FLUSH),
    Format(4, 0, subnormals=Subnormals.FLUSH),
    Format(8, 4, subnormals=Subnormals.FLUSH),
    Format(6, 2, bias=40, specials=Specials.FN, subnormals=Subnormals.FLUSH),
    Format(5, 0, bias=145, subnormals=Subnormals.FLUSH),
    Format(3, 2, specials=Specials.FNUZ, subnormals=Subnormals.FLUSH),
    # fixed point, with one bit more than float16, bfloat16 and float32 have too
    Format(0, 5, specials=Specials.FINITE),
    Format(0, 5, signed=False, specials=Specials.FN),
    Format(0, 11, specials=Specials.TWOS),
    Format(0, 8, specials=Specials.TWOS),
    Format(0, 24, specials=Specials.TWOS),
    # no zero
    Format(4, 3, signed=False, specials=Specials.E8M0, subnormals=Subnormals.NONE),
    Format(7, 2, bias=130, signed=False, specials=Specials.E8M0, subnormals=Subnormals.NONE),
    # normals where the container is subnormal, some with every bit of it
    Format(7, 1, bias=142, specials=Specials.FN),
    Format(4, 22, bias=128),
    # P3109
    Format(4, 3, bias=8, signed=False, specials=Specials.P3109_EXTENDED),
    Format(5, 2, bias=16, specials=Specials.P3109_FINITE),
    Format(4, 3, bias=8, signed=False, specials=Specials.P3109_FINITE),
    # wide
    Format(11, 44),
    Format(5, 52),
]
PAIRS = [
    pytest.param(fmt, container, id=f"{fmt}-{container.name}")
    for fmt in [as_format(name) for name in NAMED] + BUILT
    for container in CONTAINERS.values()
    if container.holds(fmt)
]
STOCHASTIC = [
    *(Stochastic(bits, variant) for variant in "ABC" for bits in (1, 7, 8, 13, 32)),
    Stochastic(variant=Variant.EQUAL),
]
POLICIES = [
    *map(Policy, Overflow),
    Policy(zero_sign=ZeroSign.DROP),
    Policy(Overflow.SAT_NONE, zero_sign=ZeroSign.DROP_INPUT, infinity_always=True),
    Policy(Overflow.SAT_FINITE, nan=NanRule.MAX, nan_in_values=True),
    Policy(Overflow.SAT_NONE, magnitude_only=True),
]


def pattern_dtype(container: Container) -> np.dtype:
    return np.dtype(f"u{container.bits // 8}")


def code_dtype(fmt: Format) -> np.dtype:
    return np.dtype(f"u{next(size for size in (1, 2, 4, 8) if fmt.bits <= 8 * size)}")


def truncated(container: Container, x: Fraction) -> int:
    """The pattern of the container's largest magnitude not above x >= 0."""
    down = reference.round_magnitude(container.format, x, Rounding.TOWARD_ZERO, False, 0)
    return container.pattern(min(down, container.format.max_value))


def hard_patterns(fmt: Format, container: Container, rng: random.Random) -> np.ndarray:
    """Patterns where rounding breaks, shuffled: codes, points between, their neighbours, edges."""
    top = fmt.max_code
    codes = {0, 1, 1 << fmt.mantissa_bits, (1 << fmt.mantissa_bits) + 1, top - 1, top}
    codes |= {rng.randint(0, top), rng.randint(0, top)}
    marks = {0, 1, 2, (1 << container.mantissa_bits) - 1, 1 << container.mantissa_bits}
    marks |= {container.infinity + d for d in (-1, 0, 1)} | {container.sign - 1}
    quantum = power_of_two(fmt.quantum_exponent)
    for below in (40, 33, 32, 31, 12, 9, 8, 2, 1):
        marks.add(truncated(container, quantum / power_of_two(below)))
    for code in codes:
        value = fmt.magnitude(min(max(code, 0), top))
        step = power_of_two(fmt.step_exponent(value))
        for part in (0, Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(255, 256)):
            pattern = truncated(container, value + part * step)
            marks |= {pattern, pattern + 1, max(pattern - 1, 0)}
    marks |= {rng.randrange(container.sign) for _ in range(6)}
    smallest, largest = container.pattern(fmt.smallest_positive), container.pattern(fmt.max_value)
    marks |= {rng.randint(smallest, largest) for _ in range(6)}
    marks = {min(mark, container.sign - 1) for mark in marks}
    patterns = sorted(marks | {mark + container.sign for mark in marks})
    rng.shuffle(patterns)
    return np.array(patterns, pattern_dtype(container))


def assert_rounds(fmt, container, rounding, policy, x, key=None, first=0):
    out = np.empty_like(x)
    BACKEND.round(x, out, lower(fmt, rounding, policy, container), key, first)
    for j, (pattern, result) in enumerate(zip(x.tolist(), out.tolist(), strict=True)):
        draw = 0
        if isinstance(rounding, Stochastic):
            lane = key.lane(first + j, rounding.lane_bits)
            draw = lane >> (rounding.lane_bits - rounding.bits)
        value = container.format.decode(pattern)
        expected = container.pattern(reference.round_value(fmt, value, rounding, policy, draw))
        assert result == expected, (str(rounding), policy, hex(pattern), draw)


@pytest.mark.parametrize(("fmt", "container"), PAIRS)
def test_every_mode_rounds_as_the_reference_does(fmt, container):
    rng = random.Random(f"{fmt} {container.name}")
    for rounding in Rounding:
        count = 40 if rounding is NEAREST else 20
        x = hard_patterns(fmt, container, rng)[:count]
        assert_rounds(fmt, container, rounding, PLAIN, x)
    for rounding in STOCHASTIC:
        key = Key(rng.getrandbits(64), rng.getrandbits(64), offset=2**64 - 9)
        x = hard_patterns(fmt, container, rng)[:10]
        assert_rounds(fmt, container, rounding, PLAIN, x, key, first=5)


@pytest.mark.parametrize(("fmt", "container"), PAIRS)
def test_every_policy_rounds_as_the_reference_does(fmt, container):
    rng = random.Random(f"policy {fmt} {container.name}")
    beyond = truncated(container, fmt.max_value * 3 / 2)
    edges = [0, 1, beyond, container.infinity, container.infinity + 1]
    x = np.array([p + s for p in edges for s in (0, container.sign)], pattern_dtype(container))
    for policy in POLICIES:
        assert_rounds(fmt, container, NEAREST, policy, x)
        assert_rounds(fmt, container, rng.choice([*Rounding]), policy, x)


@pytest.mark.parametrize(("fmt", "container"), PAIRS)
def test_codes_decode_and_encode_as_the_format_says(fmt, container):
    rng = random.Random(f"codes {fmt} {container.name}")
    if fmt.bits <= 8:
        codes = list(fmt.codes())
    else:
        bases = [0, fmt.max_code, *(1 << k for k in range(fmt.bits))]
        codes = [base + d & (1 << fmt.bits) - 1 for base in bases for d in (-1, 0, 1)]
        codes += [rng.getrandbits(fmt.bits) for _ in range(50)]
    params = lower(fmt, NEAREST, PLAIN, container)
    values = [fmt.decode(code) for code in codes]
    patterns = np.empty(len(codes), pattern_dtype(container))
    BACKEND.decode(np.array(codes, code_dtype(fmt)), patterns, params)
    assert patterns.tolist() == [container.pattern(value) for value in values]

    members = [value in fmt for value in values]
    written = np.empty(sum(members), code_dtype(fmt))
    BACKEND.encode(patterns[members], written, params)
    assert written.tolist() == [fmt.encode(value) for value in values if value in fmt]


def test_nan_is_encoded_whatever_its_payload_and_by_policy_without_one():
    x = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000] * 5000, np.uint32)
    for name, policy, expected in (
        ("e5m2", PLAIN, [0x7E, 0x7E, 0x7C, 0xFC]),
        ("e4m3fnuz", PLAIN, [0x80, 0x80]),
        ("e2m1", Policy(nan=NanRule.MAX), [7, 7]),
        ("e2m1", Policy(nan=NanRule.NEGATIVE_ZERO), [8, 8]),
    ):
        patterns = x if len(expected) == 4 else x[x & 0x7FFFFFFF != 0x7F800000]
        codes = np.empty(patterns.size, np.uint8)
        BACKEND.encode(patterns, codes, lower(as_format(name), NEAREST, policy, FLOAT32))
        assert codes[: len(expected)].tolist() == expected
        assert np.array_equal(codes, np.resize(codes[: len(expected)], codes.size))


CUTS = [
    ("e4m3fn", "nearest_even", FLOAT32),
    ("int8", "nearest_even", FLOAT32),
    ("e5m2", "nearest_even", FLOAT64),
    ("ue4m3", "nearest_even", FLOAT32),
    ("tf32", "nearest_even", FLOAT32),
    ("e5m2", "nearest_even", FLOAT16),
    ("e4m3fnuz", "nearest_even", BFLOAT16),
    ("e2m1", "to_odd", FLOAT16),
    ("e8m0", "toward_positive", FLOAT32),
    ("e3m2", "nearest_away", FLOAT64),
    ("e4m3fn", "stochastic:32", FLOAT32),
    ("e4m3fn", "stochastic:9:C", FLOAT32),
    ("e2m1", "stochastic:8:B", FLOAT64),
    ("e4m3fn", "stochastic:equal", BFLOAT16),
]


@pytest.mark.parametrize(("name", "mode", "container"), CUTS)
def test_long_arrays_are_their_pieces_and_may_be_rounded_in_place(name, mode, container):
    """Tables, chunks and runs of lanes must not show."""
    fmt, key = as_format(name), Key(5, 6, offset=2**64 - 70_000)
    generator = np.random.default_rng(7)
    n = 150_001
    x = generator.integers(0, 1 << container.bits, n, pattern_dtype(container))
    if container is not BFLOAT16:
        spread = generator.standard_normal(n) * (float(fmt.max_value) / 8)
        x[::2] = spread.astype(container.name).view(x.dtype)[::2]
    params = lower(fmt, parse_rounding(mode), PLAIN, container)
    whole, pieces, kept = np.empty_like(x), np.empty_like(x), x.copy()
    BACKEND.round(x, whole, params, key, 3)
    assert np.array_equal(x, kept)
    for start in range(0, n, 9_973):
        part = slice(start, start + 9_973)
        BACKEND.round(x[part], pieces[part], params, key, 3 + start)
    assert np.array_equal(whole, pieces)
    BACKEND.round(x, x, params, key, 3)
    assert np.array_equal(whole, x)

    if not fmt.has_nan:
        whole[whole & container.sign - 1 > container.infinity] = 0
    codes, coded = np.empty((2, n), code_dtype(fmt))
    BACKEND.encode(whole, codes, params)
    for start in range(0, n, 9_973):
        part = slice(start, start + 9_973)
        BACKEND.encode(whole[part], coded[part], params)
    assert np.array_equal(codes, coded)
    BACKEND.decode(codes, pieces, lower(fmt, NEAREST, PLAIN, container))
    assert np.array_equal(whole, pieces)


def test_empty_arrays():
    empty = np.empty(0, np.uint32)
    for mode in ("nearest_even", "toward_zero", "stochastic"):
        params = lower(as_format("e4m3fn"), parse_rounding(mode), PLAIN, FLOAT32)
        BACKEND.round(empty, empty, params, Key(1))
        BACKEND.encode(empty, np.empty(0, np.uint8), params)
        BACKEND.decode(np.empty(0, np.uint8), empty, params)
    BACKEND.lanes(empty, Key(1))
    floats = np.empty(0, np.float32)
    BACKEND.add_noise(floats, floats, floats, Noise.UNIFORM, Key(1))


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ((None, None), 0),
        ((None, None), 2**40 + 3),
        ((1, 0), 5),
        ((5, 2**64 - 3), 2),
        ((50, 64), 7),
        ((3000, 2**63), 2**50),
        ((20_000, 50_000), 19_900),
    ],
)
def test_lanes_are_those_of_the_key(bits, rows, first):
    for offset in (0, 2**64 - 100, 2**32 * (128 // bits) - 100, 2**40 + 1):
        key = Key(2**63 + 11, 2**64 - 5, offset, *rows)
        out = np.empty(301, f"u{bits // 8}")
        BACKEND.lanes(out, key, first)
        where = [*range(12), *range(90, 130), 299, 300]
        assert [int(out[j]) for j in where] == [key.lane(first + j, bits) for j in where]


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("rows", [(None, None), (1000, 1024), (30_000, 70_000)])
def test_long_runs_of_lanes(bits, rows):
    key = Key(3, 4, 5, *rows)
    out = np.empty(300_000, f"u{bits // 8}")
    BACKEND.lanes(out, key, 6)
    edges = [k * size for size in (8192 * 128 // bits, 16384, 30_000) for k in (1, 2, 5)]
    where = [e + d for e in edges for d in range(-20, 5) if e + d < out.size]
    assert [int(out[j]) for j in where] == [key.lane(6 + j, bits) for j in where]


def noise_of(noise: Noise, draw: int) -> float:
    if noise is Noise.GAUSSIAN:
        return float(gaussian.table()[draw])
    return float(reference.noise_value(noise, draw))


@pytest.mark.parametrize("noise", [*Noise])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_one_product_and_one_sum(noise, dtype):
    generator = np.random.default_rng(3)
    n, key = 70_000, Key(8, offset=12)
    w = generator.standard_normal(n).astype(dtype)
    delta = np.exp2(generator.integers(-10, 10, n)).astype(dtype)
    delta *= generator.random(n).astype(dtype)
    w[::7], delta[::5], delta[1::11] = -0.0, 0.0, np.finfo(dtype).smallest_subnormal
    w[:4] = np.nan, np.inf, -np.inf, np.finfo(dtype).max
    delta[3] = np.finfo(dtype).max
    out = np.empty_like(w)
    with np.errstate(all="raise"):
        BACKEND.add_noise(w, out, delta, noise, key, 9)
    for j in range(0, n, 1 if n < 2000 else 61):
        drawn = noise_of(noise, key.lane(9 + j, 16))
        with np.errstate(all="ignore"):
            step = dtype(drawn) * delta[j]
            expected = w[j] if step == 0 else w[j] + step
        assert out[j].tobytes() == dtype(expected).tobytes(), j
    place = w.copy()
    BACKEND.add_noise(place, place, delta, noise, key, 9)
    assert np.array_equal(place.view(np.uint8), out.view(np.uint8))


def test_every_draw_gives_the_noise_of_the_reference():
    """With w = 0 and delta = 1 the sum is R itself."""
    from fpemu.backends import _numpy

    draws = np.arange(1 << 16, dtype=np.uint16)
    for noise in Noise:
        values = _numpy._noise(noise, draws)
        assert values.dtype == np.float32
        sample = [*range(0, 1 << 16, 37), 87, 88, 10397, 10398, 0x8057, 0x8058, 0xA89D, 0xA89E]
        assert [float(values[u]) for u in sample] == [noise_of(noise, u) for u in sample]
