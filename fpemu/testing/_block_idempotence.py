"""Where rounding blocks a second time changes nothing.

With s the scale, m the largest element of the block after rounding and qmax the largest there
is, the second scale is that of m * s. Without an outer scale, for results that need no rounding
and lie below the top binade of float32:

floor       2**emax <= m, so the scale stays: every mode, for elements that have 2**emax and no
            -2**k beyond -qmax (two's complement without ``sym``: -127.9 becomes -128, whose scale
            is twice as large).
ceil,       the scale stays or is halved, and then every element doubles: every mode, for elements
rceil,      closed under doubling (every Format is; NF4 and bipolar integers are not).
pow2_m1
even        a block that was given the larger scale because its maximum would round up to 2**emax
            keeps it where the maximum does so: nearest_even and nearest_away. In other modes the
            scale is halved, and twice the element below 2**emax is beyond qmax unless the top
            binade is full (it is in e2m1 and e5m2, not in e4m3fn).
absmax      m = qmax where the scale's own error leaves it there, and the next scale is
            qmax * s / qmax. Nearest modes, blocks whose scale is a normal number (a smaller one
            is too coarse), and either products without rounding and a scale precise enough that
            qmax / (1 + error) still rounds to qmax (e2m1 under e4m3fn or bf16, not e4m3fn under
            e4m3fn), or a scale as wide as the computation and qmax = 2**k (2**i + 1) or 2**k, for
            which (a / qmax) * qmax = a in floating point (Kahan; 6 is one, 7 and 448 are not).
            Other modes see a quotient that is a bit off a value.
no scale    every mode.

Others have blocks that change: pow2_m2 as absmax; four_thirds where 3/2 * 2**emax rounds up to
twice the scale; mse, octav and quest, which clip again; and every outer scale, whose
t = A / (qmax * smax) is not found again from the rounded A.
"""

from __future__ import annotations

from fractions import Fraction

from fpemu.blocks import BlockFormat
from fpemu.formats import Format, Specials
from fpemu.rounding import Rounding
from fpemu.scales import ScaleMethod
from fpemu.testing._block_quantizers import Mode
from fpemu.values import exponent_of, power_of_two

_DOUBLING = (ScaleMethod.CEIL, ScaleMethod.RCEIL, ScaleMethod.POW2_M1)
_AWAY = (Rounding.NEAREST_EVEN, Rounding.NEAREST_AWAY)


def is_idempotent(fmt: BlockFormat, rounding: Mode, compute: Format) -> bool:
    """Whether rounding again in `compute` is claimed to change nothing; see this module."""
    if fmt.outer is not None:
        return False
    if fmt.scale is None:
        return True
    method = fmt.rule.method
    if method is ScaleMethod.FLOOR:
        return power_of_two(fmt.emax) in fmt.element and not _lower_end_is_longer(fmt)
    if method in _DOUBLING:
        return _closed_under_doubling(fmt)
    if method is ScaleMethod.EVEN:
        return _even(fmt, rounding)
    return method is ScaleMethod.ABSMAX and _absmax(fmt, rounding, compute)


def _lower_end_is_longer(fmt: BlockFormat) -> bool:
    return -fmt.element.lowest_value > fmt.qmax and not fmt.symmetric


def _closed_under_doubling(fmt: BlockFormat) -> bool:
    if isinstance(fmt.element, Format):
        return True
    values = {Fraction(v) for v in fmt.element.values()}
    return all(2 * v in values for v in values if 2 * abs(v) <= fmt.qmax)


def _even(fmt: BlockFormat, rounding: Mode) -> bool:
    if not isinstance(fmt.element, Format):
        return False
    if rounding in _AWAY:
        return True
    full = power_of_two(fmt.emax + 1) - power_of_two(fmt.emax - fmt.top_mantissa_bits)
    return fmt.qmax == full and not _lower_end_is_longer(fmt)


def _absmax(fmt: BlockFormat, rounding: Mode, compute: Format) -> bool:
    assert fmt.scale is not None
    if not (isinstance(rounding, Rounding) and rounding.is_nearest):
        return False
    width, room = compute.mantissa_bits + 1, _precision(fmt.scale)
    if room >= width:
        odd = fmt.qmax.numerator >> _trailing_zeros(fmt.qmax.numerator)
        return odd == 1 or (odd - 1) & (odd - 2) == 0
    below = fmt.element.neighbours(fmt.qmax - Fraction(1, 1 << 200))[0]
    assert below is not None
    stays = fmt.qmax / (1 + power_of_two(-room)) > (fmt.qmax + Fraction(below)) / 2
    return stays and room + _element_precision(fmt) <= width


def _precision(scale: Format) -> int:
    if scale.specials is Specials.TWOS:  # few bits for small scales
        return 0
    return scale.mantissa_bits + 1


def _element_precision(fmt: BlockFormat) -> int:
    if isinstance(fmt.element, Format):
        return max(fmt.element.mantissa_bits + 1, fmt.element.bits if _fixed(fmt.element) else 0)
    return max(_bits_of(Fraction(v)) for v in fmt.element.values())


def _fixed(element: Format) -> bool:
    return element.exponent_bits == 0


def _bits_of(value: Fraction) -> int:
    n = abs(value.numerator)
    return (n >> _trailing_zeros(n)).bit_length() if n else 0


def _trailing_zeros(n: int) -> int:
    return (n & -n).bit_length() - 1


def finest(fmt: BlockFormat) -> Fraction:
    """A power of two that every element is a multiple of."""
    if isinstance(fmt.element, Format):
        smallest = fmt.element.smallest_positive
        return power_of_two(fmt.element.step_exponent(smallest))
    values = [Fraction(v) for v in fmt.element.values()]
    return min(power_of_two(exponent_of(Fraction(1, v.denominator))) for v in values)
