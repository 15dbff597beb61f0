"""Which casts keep every value, and which casts may go through a third format."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.numerals import last_bit
from fpemu.policy import Policy
from fpemu.reference import round_value
from fpemu.rounding import Descriptor, Rounding, parse_rounding
from fpemu.spans import span
from fpemu.values import Real, Special, Value, power_of_two, real


def is_exact_cast(src: Format | str, dst: Format | str, specials: bool = False) -> bool:
    """Whether every finite value of `src` is one of `dst`, so that no rounding can change it.

    With `specials` also whether `dst` has -0, the infinities and NaN where `src` has them (NaN
    as such: payloads are not compared).
    """
    source, target = as_format(src), as_format(dst)
    if any(value not in target for value in span(source).extremes):
        return False
    return not specials or all(special in target for special in Special if special in source)


def double_rounding(
    src: Format | str | None,
    via: Format | str,
    dst: Format | str,
    rounding: Descriptor | str = Rounding.NEAREST_EVEN,
) -> Real | None:
    """A finite value of `src` for which going by way of `via` changes the result in `dst`, or None.

    `src` None means every real number. Both steps use `rounding` and each format's default
    policy, and overflow counts: a `via` of less range is harmful. The sign of a zero does not.
    None is a proof, not a search that gave up (see `_breakpoints`).

    Errors: ValueError for a random mode.
    """
    mode = parse_rounding(rounding)
    if not isinstance(mode, Rounding):
        raise ValueError(f"rounding must be a deterministic mode, got {str(mode)!r}")
    source = None if src is None else as_format(src)
    middle, target = as_format(via), as_format(dst)
    tried: set[Fraction] = set()
    for point in _breakpoints(source, middle, target):
        for x in _next_to(point, source, middle, target):
            if x not in tried and _round(target, x, mode) != _round(
                target, _round(middle, x, mode), mode
            ):
                return real(x)
            tried.add(x)
    return None


def _round(fmt: Format, x: Value, mode: Rounding) -> Value:
    rounded = round_value(fmt, x, mode, Policy())
    return Fraction(0) if rounded is Special.NEG_ZERO else rounded


def _breakpoints(src: Format | None, via: Format, dst: Format) -> Iterator[Fraction]:
    """Points that decide `double_rounding`, those near 1 first; a few more do no harm.

    Rounding is monotone, so that `dst` cuts the reals into intervals of equal results. If some x
    is harmful, `via` moves it out of its interval, say past the upper end t. Then the last value
    of `src` in the same interval is harmful too, because `via` moves it at least as far. So only
    the values of `src` next to a breakpoint t of `dst` need a trial.

    There may be too many breakpoints to visit, but inside a binade the three grids repeat. To
    shift x by twice the widest of the three steps changes neither membership nor the parity of a
    code, so the breakpoints within that distance of the binade's start stand for all. Where
    `via` is the coarsest the distance holds many, but then any value of `src` that `via` lacks
    betrays itself: half a step of `via` above one of its values is a value of `dst`. Binades in
    which each format is plainly normal, or plainly out of range, are copies of each other by
    scaling, two successive ones where parity is that of the exponent (m = 0). What does not
    repeat lies next to the ends of a format's range.
    """
    uneven = [(0, 0)]
    for fmt in (src, via, dst):
        if fmt is not None:
            uneven += [(fmt.quantum_exponent, fmt.emin), (fmt.emax, fmt.emax)]
    binades = {exponent for low, high in uneven for exponent in range(low - 3, high + 4)}
    for exponent in sorted(binades, key=lambda e: (abs(e), e)):
        start = power_of_two(exponent)
        half = power_of_two(dst.step_exponent(start) - 1)
        half_via = power_of_two(via.step_exponent(start) - 1)
        for point in (*(start + j * half for j in range(5)), start + half_via):
            yield point
            yield -point
    for fmt in (via, dst):
        for edge in _edges(fmt):
            for point in _around(dst, edge):
                yield point
                yield -point


def _edges(fmt: Format) -> Iterator[Fraction]:
    """Magnitudes where the steps of `fmt` begin or end, and the middles of the gaps there."""
    yield Fraction(0)
    yield fmt.smallest_positive
    yield fmt.smallest_positive / 2
    for end in (fmt.max_value, -fmt.lowest_value):
        if end > 0:
            step = power_of_two(fmt.step_exponent(end))
            yield from (end, end + step / 2, end + step)


def _around(dst: Format, x: Fraction) -> Iterator[Fraction]:
    """x, the two values of `dst` on either side, and the middles between them."""
    yield x
    below, above = dst.neighbours(x)
    outer = (
        None if below is None else dst.next_down(below),
        below,
        above,
        None if above is None else dst.next_up(above),
    )
    values = [Fraction(value) for value in outer if value is not None]
    yield from values
    yield from ((a + b) / 2 for a, b in pairwise(values))


def _next_to(point: Fraction, src: Format | None, via: Format, dst: Format) -> Iterator[Fraction]:
    """The values of `src` at `point` and next to it on either side."""
    if src is None:
        # Nearer than any breakpoint of the two formats but `point` itself.
        steps = [fmt.step_exponent(abs(point)) for fmt in (via, dst)]
        nudge = power_of_two(min(*steps, last_bit(point) if point else steps[0]) - 3)
        yield from (point + nudge, point - nudge, point)
        return
    found = (src.next_up(point), src.next_down(point), *src.neighbours(point))
    yield from (Fraction(x) for x in found if x is not None)
