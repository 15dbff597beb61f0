"""Lowering: a format, a rounding and a policy as a flat record of integers for a container.

A container is the IEEE format whose bit patterns a backend works on. With bias C, `mc`
mantissa bits and E the exponent field, the significand of a pattern is an integer multiple of
``2**(max(E, 1) - C - mc)``. Rounding drops its low bits:

- at or above ``emin_bits`` (the target's normal range): ``shift = mc - m`` bits;
- below: ``quantum_field - max(E, 1)`` bits, because the quantum is fixed there.

Patterns of magnitudes are ordered as integers, so a carry out of the significand reaches the
exponent by itself. Containers whose own subnormals hold normal values of the target are marked
`deep`: there the number of dropped bits follows the leading bit.

Every edge of the contract (overflow, infinities, NaN, signs of zero) is a result pattern in the
record, computed here by the reference, so that a backend only selects.
"""

from __future__ import annotations

from enum import IntEnum
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from fpemu import reference
from fpemu.formats import Format, Specials, Subnormals
from fpemu.policy import Policy
from fpemu.rounding import Rounding, Stochastic, Variant
from fpemu.values import Special, Value, power_of_two


class Mode(IntEnum):
    """How a magnitude is rounded, once the sign has been taken into account."""

    NEAREST_EVEN = 0
    NEAREST_AWAY = 1
    NEAREST_ZERO = 2
    TRUNCATE = 3
    AWAY = 4
    ODD = 5
    STOCHASTIC_A = 6
    STOCHASTIC_B = 7
    STOCHASTIC_C = 8
    STOCHASTIC_EQUAL = 9


class Container(NamedTuple):
    """An IEEE format a backend computes in: its name as a dtype, and its fields."""

    name: str
    bits: int
    mantissa_bits: int
    format: Format

    @property
    def bias(self) -> int:
        return self.format.bias

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def infinity(self) -> int:
        """The pattern of +inf; magnitudes above it are NaN."""
        return self.pattern(Special.POS_INF)

    def pattern(self, value: Value) -> int:
        """The bit pattern of an exactly representable value."""
        return self.format.encode(value)

    def holds(self, fmt: Format) -> bool:
        """Whether every finite value of `fmt` is a value of this container."""
        # The exponents first: a far bias would make numbers too large to build.
        reach = (1 << fmt.exponent_bits) - fmt.bias
        return (
            fmt.precision <= self.mantissa_bits + 1
            and reach <= 2 * self.bias + 4 + fmt.mantissa_bits
            and fmt.quantum_exponent >= self.format.quantum_exponent
            and max(fmt.max_value, -fmt.lowest_value) <= self.format.max_value
        )


FLOAT16 = Container("float16", 16, 10, Format(5, 10))
BFLOAT16 = Container("bfloat16", 16, 7, Format(8, 7))
FLOAT32 = Container("float32", 32, 23, Format(8, 23))
FLOAT64 = Container("float64", 64, 52, Format(11, 52))
CONTAINERS = {c.name: c for c in (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)}


class Params(NamedTuple):
    """What a backend knows of a format, a rounding and a policy; all non-negative ints.

    Patterns are full container patterns, sign included, except the magnitudes `max_*`,
    `limit_*`, `floor_bits`, `emin_bits` and `quantum_bits`.
    """

    # container
    width: int
    mc: int
    sign: int
    infinity: int
    keep: int  # and-mask on inputs: everything, or everything but the sign
    # rounding
    mode_pos: int
    mode_neg: int
    random_bits: int  # N of stochastic rounding, 0 for deterministic modes
    lane_bits: int
    # grid
    m: int
    shift: int
    emin_field: int  # exponent field of the first normal binade plus `field_offset`
    quantum_field: int
    emin_bits: int
    quantum_bits: int
    parity: int  # m = 0: the code is odd where the exponent field's last bit differs from this
    deep: int
    floor_bits: int  # smallest magnitude of a format without zero, else 0
    # edges
    max_pos: int
    max_neg: int
    limit_pos: int  # smallest magnitude that overflows (deterministic modes)
    limit_neg: int
    over_pos: int
    over_neg: int
    inf_pos: int
    inf_neg: int
    nan: int
    zero_pos: int
    zero_neg: int
    tiny_neg: int  # a negative that rounds to zero
    # codes
    code_bits: int
    code_sign: int  # 0 for unsigned formats
    code_offset: int  # exponent-field units that code 0's binade starts at, plus `field_offset`
    twos: int
    code_inf: int
    code_nan: int
    code_top: int  # largest finite magnitude code
    flush: int


# Exponent fields of deep targets can be negative; fields are stored with this added.
FIELD_OFFSET = 1 << 16


@lru_cache(maxsize=4096)
def lower(
    fmt: Format, rounding: Rounding | Stochastic, policy: Policy, container: Container
) -> Params:
    """The record for rounding values of `container` to `fmt`.

    Errors: ValueError if the container cannot hold the format's values exactly.
    """
    if not container.holds(fmt):
        raise ValueError(f"{container.name} cannot hold every value of {fmt}")
    mc, bias, pattern = container.mantissa_bits, container.bias, container.pattern
    mode_pos, mode_neg = _modes(rounding)
    flush = fmt.subnormals is Subnormals.FLUSH
    zeroless = not fmt.has_zero
    quantum = fmt.emin if flush or zeroless else fmt.quantum_exponent
    emin_field = fmt.emin + bias
    max_pos = pattern(fmt.max_value)
    max_neg = pattern(abs(fmt.lowest_value)) if fmt.signed else 0
    stochastic = isinstance(rounding, Stochastic)

    def result(value: Value) -> int:
        return pattern(value)

    def overflow(negative: bool) -> Value:
        if negative and not fmt.signed:
            return reference.negative_in_unsigned(fmt, policy)
        return reference.overflow(fmt, rounding, policy, negative)

    def infinite(negative: bool) -> Value:
        if negative and not fmt.signed:
            return reference.negative_in_unsigned(fmt, policy)
        return reference.infinite(fmt, policy, negative)

    return Params(
        width=container.bits,
        mc=mc,
        sign=container.sign,
        infinity=container.infinity,
        keep=(1 << container.bits) - 1 - (container.sign if _drops_sign(fmt, policy) else 0),
        mode_pos=int(mode_pos),
        mode_neg=int(mode_neg),
        random_bits=rounding.bits if isinstance(rounding, Stochastic) else 0,
        lane_bits=rounding.lane_bits if isinstance(rounding, Stochastic) else 0,
        m=fmt.mantissa_bits,
        shift=max(mc - fmt.mantissa_bits, 0),
        emin_field=emin_field + FIELD_OFFSET,
        quantum_field=quantum + bias + mc,
        emin_bits=_pattern_of_power(container, fmt.emin),
        quantum_bits=_pattern_of_power(container, quantum),
        parity=(emin_field - (not zeroless)) & 1,
        deep=int(emin_field < 1),
        floor_bits=0 if fmt.has_zero else pattern(fmt.smallest_positive),
        max_pos=max_pos,
        max_neg=max_neg,
        limit_pos=0 if stochastic else overflow_limit(container, fmt, max_pos, mode_pos),
        limit_neg=0 if stochastic else overflow_limit(container, fmt, max_neg, mode_neg),
        over_pos=result(overflow(False)),
        over_neg=result(overflow(True)),
        inf_pos=result(infinite(False)),
        inf_neg=result(infinite(True)),
        nan=result(reference.not_a_number(fmt, policy)),
        zero_pos=result(reference.zero(fmt, policy, negative=False, from_input=True)),
        zero_neg=result(reference.zero(fmt, policy, negative=True, from_input=True)),
        tiny_neg=result(reference.zero(fmt, policy, negative=True, from_input=False)),
        code_bits=fmt.bits,
        code_sign=1 << (fmt.bits - 1) if fmt.signed else 0,
        code_offset=emin_field - (not zeroless) + FIELD_OFFSET,
        twos=int(fmt.specials is Specials.TWOS),
        code_inf=fmt.inf_code if fmt.inf_code is not None else 0,
        code_nan=_code_of_nan(fmt, policy),
        code_top=fmt.max_code,
        flush=int(flush),
    )


def _modes(rounding: Rounding | Stochastic) -> tuple[Mode, Mode]:
    match rounding:
        case Stochastic():
            mode = {
                Variant.A: Mode.STOCHASTIC_A,
                Variant.B: Mode.STOCHASTIC_B,
                Variant.C: Mode.STOCHASTIC_C,
                Variant.EQUAL: Mode.STOCHASTIC_EQUAL,
            }[rounding.variant]
            return mode, mode
        case Rounding.TOWARD_POSITIVE:
            return Mode.AWAY, Mode.TRUNCATE
        case Rounding.TOWARD_NEGATIVE:
            return Mode.TRUNCATE, Mode.AWAY
    mode = {
        Rounding.NEAREST_EVEN: Mode.NEAREST_EVEN,
        Rounding.NEAREST_AWAY: Mode.NEAREST_AWAY,
        Rounding.NEAREST_ZERO: Mode.NEAREST_ZERO,
        Rounding.TOWARD_ZERO: Mode.TRUNCATE,
        Rounding.TO_ODD: Mode.ODD,
    }[rounding]
    return mode, mode


def _drops_sign(fmt: Format, policy: Policy) -> bool:
    return policy.magnitude_only and not fmt.signed


def _pattern_of_power(container: Container, exponent: int) -> int:
    """The pattern of 2**exponent, or the one it would have just above the container's range."""
    field = exponent + container.bias
    if field >= 1:
        return field << container.mantissa_bits
    return container.pattern(power_of_two(exponent))


def overflow_limit(container: Container, fmt: Format, max_bits: int, mode: Mode) -> int:
    """The smallest magnitude pattern whose rounded value lies beyond `max_bits`."""
    if max_bits == 0:  # the negative side of an unsigned format, decided by what is not zero
        return _first_nonzero(container, fmt, mode)
    value = container.format.decode(max_bits)
    assert isinstance(value, Fraction)
    step = max(fmt.step_exponent(value) - container.format.step_exponent(value), 0)
    beyond = max_bits + (1 << step)
    middle, exact = max_bits + ((1 << step) >> 1), step > 0
    odd = _odd_top(container, fmt, max_bits)
    match mode:
        case Mode.TRUNCATE:
            return beyond
        case Mode.AWAY:
            return max_bits + 1
        case Mode.ODD:
            return beyond if odd else max_bits + 1
        case Mode.NEAREST_AWAY:
            return middle if exact else beyond
        case Mode.NEAREST_EVEN if odd:
            return middle if exact else beyond
    return middle + 1


def _odd_top(container: Container, fmt: Format, max_bits: int) -> bool:
    # -2**k of two's complement is beyond the ladder of positive codes; its code is even.
    return bool(fmt.max_code & 1) and max_bits == container.pattern(fmt.max_value)


def _first_nonzero(container: Container, fmt: Format, mode: Mode) -> int:
    if not fmt.has_zero:
        return 1
    smallest = fmt.smallest_positive
    if mode is Mode.TRUNCATE:
        return container.pattern(smallest)
    if mode in (Mode.AWAY, Mode.ODD):
        return 1
    half = smallest / 2
    if half not in container.format:
        return container.pattern(smallest)
    return container.pattern(half) + (mode is not Mode.NEAREST_AWAY)


def _code_of_nan(fmt: Format, policy: Policy) -> int:
    """The code for NaN; formats without one: the policy's, and 0 where that is an error."""
    if fmt.nan_code is not None:
        return fmt.nan_code
    if policy.nan == "error":
        return 0
    return fmt.encode(reference.nan_substitute(fmt, policy))
