"""Pseudo rounding on Fractions: the exact reference that the noise laws compare with.

    delta = max|block| * 2**(1 - bits)
    w_hat = cast( w + R * delta )

Each operation is exact and then rounded to the computing format (binary32; binary64 for float64
weights), so that the order of operations and every rounding is spelled out. Slow on purpose.
"""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from fpemu import reference
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.lowering import FLOAT32, FLOAT64, Container
from fpemu.policy import Policy
from fpemu.rounding import Noise, PseudoNoise, Rounding, Step
from fpemu.testing._draws import lanes
from fpemu.testing._patterns import Floats, container_of, exact, widen
from fpemu.values import Special, Value, as_value, power_of_two

_PRECISE = Context(prec=80)


@lru_cache(maxsize=1 << 16)
def noise_of(noise: Noise, draw: int) -> Fraction:
    """R for a 16-bit draw.

    `gaussian` is the float32 nearest to half the normal quantile at (draw + 1/2) / 2**16; the
    float64 quantile decides it, because none of the 65536 lies within 2**-45 of a tie.
    """
    if noise is not Noise.GAUSSIAN:
        return reference.noise_value(noise, draw)
    half_quantile = NormalDist().inv_cdf((draw + 0.5) / 65536) / 2
    return Fraction(float(np.float32(half_quantile)))


@lru_cache(maxsize=4096)
def two_to_one_minus(bits: float) -> Fraction:
    """The float32 nearest to 2**(1 - b), for b the float32 nearest to `bits`."""
    exponent = 1 - Fraction(float(np.float32(bits)))
    if exponent.denominator == 1:
        return power_of_two(int(exponent))
    as_decimal = _PRECISE.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    power = Fraction(_PRECISE.power(Decimal(2), as_decimal))
    return _number(_to(FLOAT32, power))


def pseudo_round(
    w: Floats, fmt: Format, noise: PseudoNoise, policy: Policy, key: Key, bits: object = None
) -> Floats:
    """What pseudo rounding must give, in the shape and dtype of `w`.

    `bits` as in `fpemu.quantize`. With ulp steps the result is rounded to the dtype of `w`.
    """
    compute = FLOAT64 if container_of(w.dtype) is FLOAT64 else FLOAT32
    values = [as_value(float(v)) for v in widen(w).reshape(-1)]
    drawn = lanes(key, w.size, 16)
    noises = [noise_of(noise.noise, int(draw)) for draw in drawn]
    if noise.step is Step.ULP:
        steps = [_ulp(fmt, value) for value in values]
        target, rules = container_of(w.dtype).format, Policy()
    else:
        steps = _block_steps(values, w.shape, noise, bits, compute)
        target, rules = fmt, policy
    results = [
        _cast(target, rules, compute, value, step, r)
        for value, step, r in zip(values, steps, noises, strict=True)
    ]
    return exact(results, w.dtype).reshape(w.shape)


def _cast(
    fmt: Format, policy: Policy, compute: Container, w: Value, step: Value | None, r: Fraction
) -> Value:
    """cast(w + r * step); step None means no noise, POS_INF a step beyond the range."""
    nearest = Rounding.NEAREST_EVEN
    if step is None or r == 0 or step == 0:
        return reference.round_value(fmt, w, nearest, policy)
    term: Value
    if step is Special.POS_INF:
        term = Special.NEG_INF if r < 0 else Special.POS_INF
    else:
        term = _to(compute, r * _number(step))
    if term == 0 or term is Special.NEG_ZERO:
        return reference.round_value(fmt, w, nearest, policy)
    total = term if isinstance(term, Special) else _to(compute, _number(w) + term)
    if isinstance(total, Special):
        negative = total is Special.NEG_INF
        if negative and not fmt.signed:
            return reference.negative_in_unsigned(fmt, policy)
        return reference.overflow(fmt, nearest, policy, negative)
    return reference.round_value(fmt, total, nearest, policy)


def _block_steps(
    values: list[Value],
    shape: tuple[int, ...],
    noise: PseudoNoise,
    bits: object,
    compute: Container,
) -> list[Value | None]:
    """The step of every element, in C order."""
    rows, columns = (1, 1, *shape)[-2:]
    blocks: dict[tuple[int, int, int], list[int]] = {}
    for at in range(len(values)):
        batch, place = divmod(at, rows * columns)
        row, column = divmod(place, columns)
        block = (batch, row // noise.block[0], column // noise.block[1])
        blocks.setdefault(block, []).append(at)
    grid = (-(-rows // noise.block[0]), -(-columns // noise.block[1]))
    batches = len(values) // (rows * columns) if values else 0
    given = np.asarray(noise.bits if bits is None else bits, dtype=np.float32)
    leading = shape[:-2] if len(shape) >= 2 else ()
    if len(shape) >= 2:
        widths = np.broadcast_to(given, (*leading, *grid)).reshape(batches, *grid)
    else:
        widths = np.broadcast_to(given, grid[1:]).reshape(1, *grid)
    steps: list[Value | None] = [None] * len(values)
    for block, members in blocks.items():
        step = _step([values[at] for at in members], float(widths[block]), compute)
        for at in members:
            steps[at] = step
    return steps


def _step(members: list[Value], bits: float, compute: Container) -> Value | None:
    if any(v in (Special.NAN, Special.POS_INF, Special.NEG_INF) for v in members):
        return None
    largest = max(abs(_number(v)) for v in members)
    return _to(compute, largest * two_to_one_minus(bits))


def _ulp(fmt: Format, w: Value) -> Value | None:
    if w in (Special.NAN, Special.POS_INF, Special.NEG_INF):
        return None
    return power_of_two(fmt.step_exponent(abs(_number(w))))


def _to(compute: Container, x: Fraction) -> Value:
    return reference.round_value(compute.format, x, Rounding.NEAREST_EVEN, Policy())


def _number(x: Value) -> Fraction:
    if x is Special.NEG_ZERO:
        return Fraction(0)
    assert isinstance(x, Fraction), x
    return x
