"""Scale rules: how the scale of a block follows from its elements.

With a = max|block|, qmax the largest element value and emax = floor(log2(qmax)):

============= ================================================= ==========================
rule          scale                                             source
============= ================================================= ==========================
floor         2**(floor(log2 a) - emax)                         OCP MX 1.0, 6.3
ceil          2**(ceil(log2 a) - emax)                          torchao
even          2**(floor(log2 a') - emax), a' is a rounded half  torchao
              up to the mantissa bits of the element's top
              binade
rceil         2**ceil(log2(a / qmax))                           cuBLAS, torchao
pow2_m1       as rceil, in any scale format                     ZeroQuant-FP (2307.09782) M1
pow2_m2       absmax; then s = s_max / 2**ceil(log2(s_max/s)),  ZeroQuant-FP M2
              s_max over the blocks of one row
four_thirds   2**(floor(log2 a) - emax), and the elements are   Quartet (2505.14669), MR-GPTQ
              divided and multiplied by 4/3 of it               (2509.23202)
absmax        a / qmax
mse           f * a / qmax, f = 1 - shrink * i / points for     MR-GPTQ's observer (there
              i < points, the one with the least sum of         norm 2.4)
              |x - q|**norm; ties to the largest f
octav         c / qmax, c the clip of least mean squared error  OCTAV (2206.06501)
quest         k * rms / qmax, k the clip of least mean squared  QuEST (2502.05003)
              error for unit Gaussian data
============= ================================================= ==========================

The result is rounded to the scale format (nearest even, saturating); powers of two are clamped
to those the scale format has. Exponents come from bits, never from a computed logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from fpemu.choices import as_int, member


class ScaleMethod(StrEnum):
    FLOOR = "floor"
    CEIL = "ceil"
    EVEN = "even"
    RCEIL = "rceil"
    POW2_M1 = "pow2_m1"
    POW2_M2 = "pow2_m2"
    FOUR_THIRDS = "four_thirds"
    ABSMAX = "absmax"
    MSE = "mse"
    OCTAV = "octav"
    QUEST = "quest"


_POWERS = frozenset(
    (
        ScaleMethod.FLOOR,
        ScaleMethod.CEIL,
        ScaleMethod.EVEN,
        ScaleMethod.RCEIL,
        ScaleMethod.POW2_M1,
        ScaleMethod.FOUR_THIRDS,
    )
)
_STATISTICS = frozenset((ScaleMethod.MSE, ScaleMethod.OCTAV, ScaleMethod.QUEST))


_NUMBERS = (100, 0.8, 2.0)  # the defaults of mse


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """A rule of this module's table. `points`, `shrink` and `norm` are for ``mse``.

    Spelled by its name, and ``mse:<points>:<shrink>:<norm>``.
    Errors: ValueError for an unknown name, points outside 1..10000, shrink outside [0, 1), a
    norm that is not positive.
    """

    method: ScaleMethod = ScaleMethod.ABSMAX
    points: int = 100
    shrink: float = 0.8
    norm: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", member(ScaleMethod, "rule", self.method))
        object.__setattr__(self, "points", as_int("points", self.points))
        object.__setattr__(self, "shrink", float(self.shrink))
        object.__setattr__(self, "norm", float(self.norm))
        if not 1 <= self.points <= 10_000:
            raise ValueError(f"points must be in 1..10000, got {self.points}")
        if not 0 <= self.shrink < 1:
            raise ValueError(f"shrink must be in [0, 1), got {self.shrink}")
        if not (self.norm > 0 and math.isfinite(self.norm)):
            raise ValueError(f"norm must be positive, got {self.norm}")
        if self.method is not ScaleMethod.MSE and self._numbers != _NUMBERS:
            raise ValueError(f"points, shrink and norm go with mse, not with {self.method}")

    @property
    def _numbers(self) -> tuple[int, float, float]:
        return self.points, self.shrink, self.norm

    @property
    def gives_powers_of_two(self) -> bool:
        """Whether every scale is a power of two."""
        return self.method in _POWERS

    @property
    def needs_all_elements(self) -> bool:
        """Whether more than the block's largest magnitude decides."""
        return self.method in _STATISTICS

    def __str__(self) -> str:
        if self._numbers == _NUMBERS:
            return str(self.method)
        numbers = (repr(value).removesuffix(".0") for value in (self.shrink, self.norm))
        return ":".join((str(self.method), str(self.points), *numbers))


DEFAULT = ScaleRule()


def parse_rule(rule: ScaleRule | str) -> ScaleRule:
    """A rule from itself or its spelling. Errors: ValueError listing the rules; TypeError."""
    if isinstance(rule, ScaleRule):
        return rule
    if not isinstance(rule, str):
        raise TypeError(f"rule must be a ScaleRule or a str, got {type(rule).__name__} {rule!r}")
    return _parse(rule)


@lru_cache(maxsize=256)
def _parse(text: str) -> ScaleRule:
    name, *numbers = text.strip().lower().split(":")
    method = member(ScaleMethod, "rule", name)
    if not numbers:
        return ScaleRule(method)
    try:
        points, shrink, norm = numbers
        return ScaleRule(method, int(points), float(shrink), float(norm))
    except ValueError as error:
        raise ValueError(f"rule {text!r}: {error}; mse:<points>:<shrink>:<norm>") from None
