"""The algebra of formats by their sets of finite values: order, join, meet, exactness.

Everything is exact and looks at a few values that decide (`fpemu.spans`), never at all of them.
Infinities, NaN and the sign of zero play no part unless a function says so. Formats are given
as `Format` or by spelling.

``a <= b`` is a preorder: e4m3fnuz and e4m3b8finite are different formats of the same values.
`join` and `meet` return an operand where one contains the other, and search elsewhere for the
format with the fewest, or the most, finite values; `spans.smallest_containing` says among
which. Up to `same_values` they are commutative, idempotent and absorbing (``a | (a & b)`` and
``a & (a | b)`` are `a`), and ``a <= b`` holds exactly where ``a | b`` is `b`, and where
``a & b`` is `a`.

Two formats often have several containing formats, none of which lies in the others, so this is
no lattice: `join` is no least upper bound (int4 and uint4 lie in e3m4, but ``int4 | uint4`` is
int5, whose -16 e3m4 lacks), `meet` no greatest lower bound (e3m2b4finite lies in e3m3finite and
e5m2, but not in their meet e3m2), and neither is associative (``(e2m3 | int4) | int8`` is
e3m6b0fn, ``e2m3 | (int4 | int8)`` is e3m6b-1).
"""

from __future__ import annotations

from fpemu.casts import double_rounding, is_exact_cast
from fpemu.catalog import NAMES
from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.grids import Accumulator, Grid, dot_accumulator, exact_product, exact_sum
from fpemu.spans import largest_inside, smallest_containing, span
from fpemu.values import Real, real

# What `smallest_format_for_noise` chooses from, in the order of preference.
_NOISE_FORMATS = ("e2m1", "e3m2", "e4m3fn", "e3m4", "bf16", "fp16", "fp32")

__all__ = [
    "Accumulator",
    "Grid",
    "dot_accumulator",
    "double_rounding",
    "exact_product",
    "exact_sum",
    "includes",
    "is_exact_cast",
    "join",
    "meet",
    "noise_survives",
    "same_values",
    "smallest_format_for_noise",
    "witness",
]


def witness(a: Format | Grid | str, b: Format | Grid | str) -> Real | None:
    """A finite value of `a` that `b` lacks; None where `b` has them all.

    The value is one of a few that decide inclusion: the largest, lowest or smallest positive
    value of `a`, one with the longest significand, or zero.
    """
    small = a.span if isinstance(a, Grid) else span(as_format(a))
    big = b if isinstance(b, Grid) else as_format(b)
    return next((real(value) for value in small.extremes if value not in big), None)


def includes(big: Format | Grid | str, small: Format | Grid | str) -> bool:
    """Whether every finite value of `small` is one of `big`; ``small <= big`` for formats."""
    return witness(small, big) is None


def same_values(a: Format | str, b: Format | str) -> bool:
    """Whether `a` and `b` have the same finite values: the equivalence behind ``<=``."""
    return includes(a, b) and includes(b, a)


def join(a: Format | str, b: Format | str) -> Format:
    """The smallest format that contains both: the one with the fewest finite values.

    That is `a` or `b` where one contains the other. Ties go to the fewest bits, then the fewest
    mantissa bits, then the bias nearest to the default. Errors: ValueError where no format is
    wide enough.
    """
    first, second = as_format(a), as_format(b)
    containing = [f for f, g in ((first, second), (second, first)) if includes(f, g)]
    found = _preferred(containing) or smallest_containing(
        [span(first), span(second)], extra={first.subnormals, second.subnormals}
    )
    if found is None:
        raise ValueError(f"a and b must have a common format, but none holds {first} and {second}")
    return found


def meet(a: Format | str, b: Format | str) -> Format:
    """The largest format contained in both: the one with the most finite values.

    That is `a` or `b` where one contains the other. Ties go as in `join`. Errors: ValueError
    where no format lies in both.
    """
    first, second = as_format(a), as_format(b)
    contained = [f for f, g in ((first, second), (second, first)) if includes(g, f)]
    found = _preferred(contained) or largest_inside(
        [span(first), span(second)],
        extra={first.subnormals, second.subnormals},
        widest=min(first.bits, second.bits) + 1,
    )
    if found is None:
        raise ValueError(
            f"a and b must have a common part, but no format lies in {first} and {second}"
        )
    return found


def _preferred(formats: list[Format]) -> Format | None:
    """The first by width among formats of the same values, whichever operand it was."""
    return min(formats, key=lambda f: (f.bits, f.mantissa_bits, str(f)), default=None)


def noise_survives(fmt: Format | str, bits: float, strict: bool = False) -> bool:
    """Whether pseudo rounding for `bits` bits always shows after the cast to `fmt`.

    The noise is at least ``delta = max|block| * 2**(1 - bits)`` where it is not zero. The answer
    is True where adding it to, or subtracting it from, the block maximum changes the cast
    result for every significand above 1, away from overflow and subnormals: that is
    ``bits <= m + 2``. With `strict` powers of two count too, where a tie loses the noise at that
    bound: ``bits < m + 2``, for integers ``bits <= m + 1``.

    Errors: TypeError for a `bits` that is no number, ValueError for one outside 0..24 and for a
    format without normal values.
    """
    target, width = as_format(fmt), _noise_bits(bits)
    if target.min_normal is None:
        raise ValueError(f"fmt must have normal values, got {target}")
    bound = target.mantissa_bits + 2
    return width < bound if strict else width <= bound


def smallest_format_for_noise(bits: float) -> Format:
    """The narrowest common format that pseudo rounding for `bits` bits can be cast to.

    It keeps the noise at the block maximum (`noise_survives`) and has at least `bits` normal
    binades, because the noise lies about that many binades below the maximum. The choice is among
    e2m1, e3m2, e4m3fn, e3m4, bf16, fp16 and fp32: e2m1 up to 3 bits, e3m2 up to 4, e4m3fn up to
    5, e3m4 up to 6, bf16 up to 9, fp16 up to 12, fp32 beyond. Errors: as `noise_survives`.
    """
    width = _noise_bits(bits)
    formats = (NAMES[name] for name in _NOISE_FORMATS)
    return next(
        fmt for fmt in formats if noise_survives(fmt, width) and fmt.emax - fmt.emin + 1 >= width
    )


def _noise_bits(bits: float) -> float:
    if isinstance(bits, bool) or not isinstance(bits, int | float):
        raise TypeError(f"bits must be a number, got {type(bits).__name__} {bits!r}")
    if not 0 <= bits <= 24:
        raise ValueError(f"bits must be in 0..24, got {bits}")
    return bits
