"""Where rounding blocks a second time changes nothing.

With a the block's largest magnitude, s its scale, m the largest element after rounding and qmax
the largest there is, the second scale is that of m * s. Away from the ends of the computing
format's range:

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
absmax      Nearest modes, where the scale is a normal number (a smaller one is too coarse) and
            its rounding leaves m at qmax: qmax / (1 + error) rounds to qmax (e2m1 under e4m3fn,
            bf16 or fp32; not e4m3fn under e4m3fn). A scale as wide as the computation is found
            again: with s = fl(a / n), fl(s n) is at least as near to s n as a is, so that
            fl(fl(s n) / n) = s. Other modes see quotients beside the elements, but not where the
            scale is that wide and qmax and every element are 2**k or 3 * 2**k (e2m1): then the s
            for which 3 s is a tie are no fl(a / 6), and fl(fl(3 s) / s) = 3.
pow2_m2,    as absmax: m is qmax all the more. The search finds a factor of 1 to have no error.
mse, octav  (octav on integers does not search; it clips again.)
no scale    every mode.

An outer scale is found again like an inner one, under absmax and pow2_m2 in nearest modes, where
the largest block keeps the largest scale: nvfp4 is idempotent for blocks of normal scales.

Elsewhere there are blocks that change: under four_thirds, where 3/2 * 2**emax becomes twice the
scale, under quest, and under searches or powers of two with an outer scale, which then shrinks.
"""

from __future__ import annotations

from fractions import Fraction

from fpemu.blocks import BlockFormat, Element
from fpemu.formats import Format, Specials
from fpemu.rounding import Rounding
from fpemu.scales import ScaleMethod
from fpemu.testing._block_quantizers import Mode
from fpemu.values import exponent_of, power_of_two

_DOUBLING = (ScaleMethod.CEIL, ScaleMethod.RCEIL, ScaleMethod.POW2_M1)
_FROM_RATIOS = (ScaleMethod.ABSMAX, ScaleMethod.POW2_M2)
_SEARCHED = (ScaleMethod.MSE, ScaleMethod.OCTAV)
_AWAY = (Rounding.NEAREST_EVEN, Rounding.NEAREST_AWAY)


def is_idempotent(fmt: BlockFormat, rounding: Mode, compute: Format) -> bool:
    """Whether rounding again in `compute` is claimed to change nothing; see this module."""
    if fmt.scale is None:
        return True
    method = fmt.rule.method
    if method in _FROM_RATIOS or (method in _SEARCHED and fmt.outer is None):
        return not _clips_again(fmt) and _ratio_is_found_again(fmt, rounding, compute)
    if fmt.outer is not None:
        return False
    if method is ScaleMethod.FLOOR:
        return power_of_two(fmt.emax) in fmt.element and not _lower_end_is_longer(fmt)
    if method in _DOUBLING:
        return _closed_under_doubling(fmt)
    return method is ScaleMethod.EVEN and _even(fmt, rounding)


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


# ------------------------------------------------------------- scales from quotients


def _clips_again(fmt: BlockFormat) -> bool:
    element = fmt.element
    uniform = isinstance(element, Format) and element.specials is Specials.TWOS
    return fmt.rule.method is ScaleMethod.OCTAV and uniform


def _ratio_is_found_again(fmt: BlockFormat, rounding: Mode, compute: Format) -> bool:
    assert fmt.scale is not None
    width = compute.mantissa_bits + 1
    if not (isinstance(rounding, Rounding) and rounding.is_nearest):
        return _precision(fmt.scale) >= width and fmt.outer is None and _ones_and_threes(fmt)
    if fmt.outer is not None:
        largest = fmt.qmax * fmt.scale.max_value
        if not _stays(fmt.scale, _precision(fmt.outer)):
            return False
        if not _finds_again(_bits_of(largest), fmt.outer, width):
            return False
    room = _precision(fmt.scale)
    return _stays(fmt.element, room) and _finds_again(_bits_of(fmt.qmax), fmt.scale, width)


def _finds_again(bits: int, scale: Format, width: int) -> bool:
    """Whether products with numbers of `bits` bits are exact, or scales not rounded at all."""
    return _precision(scale) >= width or bits + _precision(scale) <= width


def _stays(fmt: Element, room: int) -> bool:
    """Whether the largest value, divided by 1 + 2**-room, still rounds to itself."""
    if not room:
        return False
    below = fmt.neighbours(fmt.max_value - Fraction(1, 1 << 200))[0]
    assert below is not None
    return fmt.max_value / (1 + power_of_two(-room)) > (fmt.max_value + Fraction(below)) / 2


def _ones_and_threes(fmt: BlockFormat) -> bool:
    odd = {_odd_part(Fraction(v)) for v in fmt.element.values() if v}
    return odd == {1} or (odd == {1, 3} and _odd_part(fmt.qmax) == 3)


def _precision(scale: Format) -> int:
    """Bits of a normal scale's significand; 0 where small scales have fewer."""
    return 0 if scale.exponent_bits == 0 else scale.mantissa_bits + 1


def _odd_part(value: Fraction) -> int:
    n = abs(value.numerator)
    return n >> ((n & -n).bit_length() - 1)


def _bits_of(value: Fraction) -> int:
    return _odd_part(value).bit_length()


def finest(fmt: BlockFormat) -> Fraction:
    """A power of two that every element is a multiple of."""
    if isinstance(fmt.element, Format):
        return power_of_two(fmt.element.step_exponent(fmt.element.smallest_positive))
    values = [Fraction(v) for v in fmt.element.values()]
    return min(power_of_two(exponent_of(Fraction(1, v.denominator))) for v in values)
