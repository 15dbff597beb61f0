"""The NumPy backend equals the reference: formats of every kind, every mode, policy and container."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from fpemu import backends, reference
from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials, Subnormals
from fpemu.keys import Key
from fpemu.lowering import CONTAINERS, Container, Params, lower
from fpemu.policy import NanRule, Overflow, Policy, ZeroSign
from fpemu.rounding import Noise, Rounding, Stochastic, Variant
from fpemu.values import Special, Value, power_of_two

BACKEND = backends.get("numpy")
NEAREST, PLAIN = Rounding.NEAREST_EVEN, Policy()

NAMED = (
    "e4m3fn e5m2 e2m1 e3m2 e4m3fnuz e5m2fnuz e8m0 ue4m3 int8 int4 mxint8 "
    "binary8p4se binary8p3se fp16 bf16 tf32 fp32"
).split()
BUILT = [
    Format(3, 0, specials=Specials.FINITE),
    Format(4, 0),
    Format(4, 0, bias=6, specials=Specials.FNUZ),
    Format(3, 2, subnormals=Subnormals.FLUSH),
    Format(4, 0, subnormals=Subnormals.FLUSH),
    Format(8, 4, subnormals=Subnormals.FLUSH),
    Format(6, 2, bias=40, specials=Specials.FN, subnormals=Subnormals.FLUSH),
    Format(0, 5, specials=Specials.FINITE),
    Format(0, 5, signed=False, specials=Specials.FN),
    Format(0, 11, specials=Specials.TWOS),
    Format(0, 8, specials=Specials.TWOS),
    Format(0, 24, specials=Specials.TWOS),
    Format(4, 3, signed=False, specials=Specials.E8M0, subnormals=Subnormals.NONE),
    Format(8, 2, bias=130, signed=False, specials=Specials.E8M0, subnormals=Subnormals.NONE),
    Format(7, 1, bias=142, specials=Specials.FN),
    Format(5, 0, bias=145, subnormals=Subnormals.FLUSH),
    Format(4, 3, bias=8, signed=False, specials=Specials.P3109_EXTENDED),
    Format(5, 2, bias=16, specials=Specials.P3109_FINITE),
    Format(4, 3, bias=8, signed=False, specials=Specials.P3109_FINITE),
    Format(11, 44),
    Format(5, 52),
]
FORMATS = [as_format(name) for name in NAMED] + BUILT
PAIRS = [
    pytest.param(fmt, container, id=f"{fmt}-{container.name}")
    for fmt in FORMATS
    for container in CONTAINERS.values()
    if container.holds(fmt)
]
MODES = [
    *Rounding,
    *(Stochastic(bits, v) for v in "ABC" for bits in (1, 7, 8, 13, 32)),
    Stochastic(variant=Variant.EQUAL),
]
POLICIES = [
    PLAIN,
    *map(Policy, Overflow),
    Policy(zero_sign=ZeroSign.DROP),
    Policy(Overflow.SAT_NONE, zero_sign=ZeroSign.DROP_INPUT, infinity_always=True),
    Policy(Overflow.SAT_FINITE, nan=NanRule.MAX, nan_in_values=True),
    Policy(Overflow.SAT_NONE, magnitude_only=True),
]


def dtype_of(container: Container) -> np.dtype:
    return np.dtype(f"u{container.bits // 8}")


def code_dtype(fmt: Format) -> np.dtype:
    return np.dtype(f"u{next(n for n in (1, 2, 4, 8) if fmt.bits <= 8 * n)}")


def truncated(container: Container, x: Fraction) -> int:
    """The pattern of the largest magnitude of the container not above x >= 0."""
    down = reference.round_magnitude(container.format, x, Rounding.TOWARD_ZERO, False, 0)
    return container.pattern(min(down, container.format.max_value))


def hard_patterns(
    fmt: Format, container: Container, rng: random.Random, count: int
) -> np.ndarray:
    """Patterns where rounding breaks: codes, points between them, their neighbours, edges."""
    low = 0 if not fmt.has_zero or fmt.subnormals is not Subnormals.FLUSH else 1 << fmt.mantissa_bits
    top = fmt.max_code
    codes = {low, low + 1, low + 2, 1, 1 << fmt.mantissa_bits, top - 1, top}
    codes |= {rng.randint(0, top) for _ in range(count)}
    marks = {0, 1, 2, (1 << container.mantissa_bits) - 1, 1 << container.mantissa_bits}
    marks |= {container.infinity + d for d in (-1, 0, 1)} | {container.sign - 1}
    quantum = power_of_two(fmt.quantum_exponent)
    for k in (-40, -33, -32, -31, -12, -9, -8, -2, -1, 0):
        marks.add(truncated(container, quantum * power_of_two(k)))
    for code in codes:
        value = fmt.magnitude(min(max(code, 0), top))
        step = power_of_two(fmt.step_exponent(value))
        for part in (0, Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(255, 256), 1):
            pattern = truncated(container, value + part * step)
            marks |= {pattern, pattern + 1, max(pattern - 1, 0)}
    smallest, largest = container.pattern(fmt.smallest_positive), container.pattern(fmt.max_value)
    spread = 2 << container.mantissa_bits
    marks |= {rng.randrange(container.sign) for _ in range(count)}
    marks |= {
        rng.randint(max(smallest - spread, 0), min(largest + spread, container.sign - 1))
        for _ in range(2 * count)
    }
    marks = {min(mark, container.sign - 1) for mark in marks}
    patterns = sorted(marks | {mark + container.sign for mark in marks})
    rng.shuffle(patterns)
    return np.array(patterns, dtype_of(container))


def assert_rounds(fmt, container, rounding, policy, x, key=None):
    params = lower(fmt, rounding, policy, container)
    out = np.empty_like(x)
    kept = x.copy()
    BACKEND.round(x, out, params, key, 5)
    assert np.array_equal(x, kept)
    for j, pattern in enumerate(x.tolist()):
        draw = 0
        if isinstance(rounding, Stochastic):
            draw = key.lane(5 + j, rounding.lane_bits) >> (rounding.lane_bits - rounding.bits)
        value = container.format.decode(pattern)
        expected = container.pattern(reference.round_value(fmt, value, rounding, policy, draw))
        assert int(out[j]) == expected, (str(fmt), container.name, str(rounding), policy, hex(pattern), draw)


@pytest.mark.parametrize(("fmt", "container"), PAIRS)
def test_every_mode_rounds_as_the_reference_does(fmt, container):
    rng = random.Random(f"{fmt} {container.name}")
    key = Key(rng.getrandbits(64), rng.getrandbits(64), offset=2**64 - 50)
    for rounding in MODES:
        x = hard_patterns(fmt, container, rng, 2)
        x = x[:24] if rounding is not NEAREST else x
        assert_rounds(fmt, container, rounding, PLAIN, x, key)


@pytest.mark.parametrize(("fmt", "container"), PAIRS)
def test_every_policy_rounds_as_the_reference_does(fmt, container):
    rng = random.Random(f"policy {fmt} {container.name}")
    edges = [container.infinity, container.infinity + 1, 0, 1, truncated(container, 3 * fmt.max_value / 2)]
    x = np.array([p + s for p in edges for s in (0, container.sign)], dtype_of(container))
    for policy in POLICIES:
        for rounding in (NEAREST, Rounding.TOWARD_NEGATIVE, Rounding.TO_ODD):
            x2 = np.concatenate([x, hard_patterns(fmt, container, rng, 0)[:6]])
            assert_rounds(fmt, container, rounding, policy, x2)
