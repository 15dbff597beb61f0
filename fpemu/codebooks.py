"""The values of table formats that have a name, by code.

- HiF8 (HiFloat8, arXiv 2409.16626): a prefix code after the sign says how many exponent bits
  follow, so that precision falls away from 1. Patterns below the sign, with |E| read with a
  hidden leading one, ``s`` the sign of E and ``M`` the mantissa::

      11 s eee m     |E| = 8..15      01 s e mmm     |E| = 2..3      0001 mmm     E = 0
      10 s ee  mm    |E| = 4..7       001 s  mmm     |E| = 1         0000 MMM     2**(M - 23)

  0x00 is zero, 0x80 NaN, 0x6F and 0xEF infinities; they take the place of 1.5 * 2**15, so that
  a half away from zero overflows from 1.25 * 2**15 on.
- NF4 (QLoRA, arXiv 2305.14314): 16 float32 constants, quantiles of a normal distribution.
- Bipolar integers (arXiv 2409.17870): the odd integers ``2u - (2**n - 1)`` of an n-bit code u.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from fpemu.values import Special, Value, power_of_two


class Codebook(NamedTuple):
    """Values by code, and the value that an infinity stands in the place of, if there is one."""

    table: tuple[Value | None, ...]
    beyond: Fraction | None = None


_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def _hif8(code: int) -> Value:
    negative, body = code >> 7, code & 0x7F
    if body == 0:
        return Special.NAN if negative else Fraction(0)
    if body == 0x6F:
        return Special.NEG_INF if negative else Special.POS_INF
    size = _hif8_magnitude(body)
    return -size if negative else size


def _hif8_magnitude(body: int) -> Fraction:
    if body < 8:
        return power_of_two(body - 23)
    # Exponent bits (its sign included) and mantissa bits by the leading bits of the prefix.
    exponent_bits, mantissa_bits = (
        (4, 1) if body >> 5 == 3 else
        (3, 2) if body >> 5 == 2 else
        (2, 3) if body >> 5 == 1 else
        (1, 3) if body >> 4 == 1 else
        (0, 3)
    )  # fmt: skip
    significand = (1 << mantissa_bits) + (body & ((1 << mantissa_bits) - 1))
    exponent = 0
    if exponent_bits:
        field = body >> mantissa_bits & ((1 << exponent_bits) - 1)
        hidden = 1 << (exponent_bits - 1)
        exponent = -(field & (hidden - 1) | hidden) if field & hidden else field | hidden
    return significand * power_of_two(exponent - mantissa_bits)


def _bipolar(bits: int) -> Codebook:
    return Codebook(tuple(Fraction(2 * u - (1 << bits) + 1) for u in range(1 << bits)))


NAMED: dict[str, Codebook] = {
    "hif8": Codebook(tuple(map(_hif8, range(256))), Fraction(3 << 14)),
    "nf4": Codebook(tuple(map(Fraction, _NF4))),
    **{f"bint{bits}": _bipolar(bits) for bits in range(1, 9)},
}
