"""Rounding descriptors: what kind of rounding, with no arithmetic.

`Rounding` members are the deterministic modes; `Stochastic` and `PseudoNoise` are the two
families that draw random bits and so need a key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from fpemu.choices import as_int, member


class Rounding(StrEnum):
    """Deterministic modes. Ties of `nearest_even` go to the even code (matters when m = 0)."""

    NEAREST_EVEN = "nearest_even"
    NEAREST_AWAY = "nearest_away"
    NEAREST_ZERO = "nearest_zero"
    TOWARD_ZERO = "toward_zero"
    TOWARD_POSITIVE = "toward_positive"
    TOWARD_NEGATIVE = "toward_negative"
    TO_ODD = "to_odd"

    @property
    def is_nearest(self) -> bool:
        return self in (
            Rounding.NEAREST_EVEN,
            Rounding.NEAREST_AWAY,
            Rounding.NEAREST_ZERO,
        )


class Variant(StrEnum):
    """Stochastic variants A, B, C of P3109 4.7.4, and the 50 % variant."""

    A = "A"
    B = "B"
    C = "C"
    EQUAL = "equal"


class Noise(StrEnum):
    """Noise of pseudo rounding: round(N(0,1)/2), N(0,1)/2, or U(-1/2, 1/2)."""

    ROUNDED_GAUSSIAN = "rounded_gaussian"
    GAUSSIAN = "gaussian"
    UNIFORM = "uniform"


class Step(StrEnum):
    """What noise is measured in: a step per block of weights, or the format's ulp."""

    BLOCK = "block"
    ULP = "ulp"


@dataclass(frozen=True, slots=True)
class Stochastic:
    """Stochastic rounding with `bits` random bits (1..32).

    With nu the discarded fraction, N bits and a uniform N-bit draw r, away from zero iff
    A: floor(nu * 2^N) + r >= 2^N. B: floor(nu * 2^(N+1)) + 2r + 1 >= 2^(N+1).
    C: nearest_even(nu * 2^N) + r >= 2^N. `equal`: nu > 0 and the one bit drawn is 1.
    Source: IEEE P3109 interim report 4.0, 4.7.4.

    Errors: ValueError for `bits` out of range or an unknown variant, TypeError for a
    non-integer.
    """

    bits: int = 32
    variant: Variant = Variant.A

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", as_int("bits", self.bits))
        object.__setattr__(self, "variant", member(Variant, "variant", self.variant))
        if not 1 <= self.bits <= 32:
            raise ValueError(f"bits must be in 1..32, got {self.bits}")
        if self.variant is Variant.EQUAL:
            object.__setattr__(self, "bits", 1)

    @property
    def lane_bits(self) -> int:
        """Width of the lane an element draws from: the smallest of 8, 16, 32 that holds `bits`."""
        return 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32

    def __str__(self) -> str:
        if self.variant is Variant.EQUAL:
            return "stochastic:equal"
        suffix = "" if self.variant is Variant.A else f":{self.variant}"
        return "stochastic" if not suffix and self.bits == 32 else f"stochastic:{self.bits}{suffix}"


@dataclass(frozen=True, slots=True)
class PseudoNoise:
    """Pseudo rounding: one addition of scaled noise and, for block steps, one cast.

    ``delta = max|block| * 2**(1 - bits)`` and ``w_hat = cast(w + R * delta)``. `bits` is in
    [0, 24] and may be fractional; None means that the call gives it (one per block, say).
    `block` is the (rows, columns) of a tile of the last two axes; an int n means (1, n).
    ``step="ulp"`` takes the format's ulp at w as delta, needs no bits and casts to nothing.

    Errors: ValueError or TypeError naming the field.
    """

    noise: Noise = Noise.ROUNDED_GAUSSIAN
    bits: float | None = None
    block: tuple[int, int] = (32, 32)
    step: Step = Step.BLOCK

    lane_bits = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", member(Noise, "noise", self.noise))
        object.__setattr__(self, "step", member(Step, "step", self.step))
        if self.bits is not None:
            if isinstance(self.bits, bool) or not isinstance(self.bits, int | float):
                raise TypeError(
                    f"bits must be a number, got {type(self.bits).__name__} {self.bits!r}"
                )
            if not (math.isfinite(self.bits) and 0 <= self.bits <= 24):
                raise ValueError(f"bits must be in [0, 24], got {self.bits}")
            object.__setattr__(self, "bits", float(self.bits))
        sizes = self.block if isinstance(self.block, tuple | list) else (1, self.block)
        block = tuple(as_int("block", size) for size in sizes)
        if len(block) != 2 or min(block) < 1:
            raise ValueError(f"block must be (rows, columns) of at least 1, got {self.block!r}")
        object.__setattr__(self, "block", block)
        if self.step is Step.ULP and self.bits is not None:
            raise ValueError(f"bits must be None with step='ulp', got {self.bits}")

    def __str__(self) -> str:
        name = _NOISE_NAMES[self.noise]
        if self.step is Step.ULP:
            return f"{name}:ulp"
        width = "?" if self.bits is None else repr(self.bits).removesuffix(".0")
        return f"{name}:{width}:{self.block[0]}x{self.block[1]}"


Descriptor: TypeAlias = Rounding | Stochastic | PseudoNoise

_NOISE_NAMES = {
    Noise.ROUNDED_GAUSSIAN: "pseudo_gaussian",
    Noise.GAUSSIAN: "pseudo_normal",
    Noise.UNIFORM: "pseudo_uniform",
}
_NOISES = {name: noise for noise, name in _NOISE_NAMES.items()}

SPELLINGS = (
    ", ".join(Rounding) + ", stochastic[:<bits 1..32>[:A|B|C]], stochastic:equal, "
    "pseudo_gaussian:<bits>[:<rows>x<columns>], pseudo_normal:..., pseudo_uniform:..., "
    "pseudo_gaussian:ulp"
)


def parse_rounding(rounding: Descriptor | str) -> Descriptor:
    """A descriptor from itself or from its spelling, as in ``stochastic:8:C``.

    ``pseudo_gaussian:4:32x32`` is rounded_gaussian noise for 4 bits in 32x32 blocks;
    ``pseudo_normal`` and ``pseudo_uniform`` are the other two.
    Errors: ValueError listing the spellings, TypeError for another type.
    """
    if isinstance(rounding, Stochastic | PseudoNoise | Rounding):
        return rounding
    if isinstance(rounding, str):
        return _parse(rounding)
    raise TypeError(
        f"rounding must be a descriptor or a str, got {type(rounding).__name__} {rounding!r}"
    )


@lru_cache(maxsize=1024)
def _parse(text: str) -> Descriptor:
    head, *rest = text.strip().lower().split(":")
    try:
        if head in Rounding.__members__.values() and not rest:
            return Rounding(head)
        if head == "stochastic" and len(rest) <= 2:
            if rest == ["equal"]:
                return Stochastic(variant=Variant.EQUAL)
            bits = int(rest[0]) if rest else 32
            return Stochastic(bits, Variant(rest[1].upper()) if len(rest) == 2 else Variant.A)
        if head in _NOISES and not rest:
            raise ValueError(f"it needs a bit width, as in {head}:4 or {head}:4:32x32")
        if head in _NOISES and len(rest) <= 2:
            if rest == ["ulp"]:
                return PseudoNoise(_NOISES[head], step=Step.ULP)
            block = (32, 32)
            if len(rest) == 2:
                rows, _, columns = rest[1].rpartition("x")
                block = (int(rows or 1), int(columns))
            return PseudoNoise(_NOISES[head], None if rest[0] == "?" else float(rest[0]), block)
    except ValueError as error:
        raise ValueError(f"rounding {text!r}: {error}; allowed: {SPELLINGS}") from None
    raise ValueError(f"rounding must be one of {SPELLINGS}; got {text!r}")
