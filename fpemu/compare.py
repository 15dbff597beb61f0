"""Two formats side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fpemu.algebra import includes, witness
from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.numerals import numeral, with_code
from fpemu.policy import Policy
from fpemu.reference import round_value
from fpemu.rounding import Rounding
from fpemu.tables import aligned, html_table
from fpemu.values import Real, Special, Value

# Formats of more bits are compared by a witness, not value by value.
_ENUMERABLE_BITS = 12
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class FormatDiff:
    """Two formats side by side; rows are (name, in a, in b) as text.

    `fields` are the facts that differ, `limits` the derived numbers, `behaviours` what becomes of
    some inputs under nearest_even and each format's default policy, with the codes. `only_in_a`
    and `only_in_b` list values nearest to zero first: a few, with `only_in_a_count` in all. For
    formats of more than 12 bits it is a single witness and the count is None. `a_in_b` is
    ``a <= b``.
    """

    a: Format
    b: Format
    fields: tuple[tuple[str, str, str], ...]
    limits: tuple[tuple[str, str, str], ...]
    behaviours: tuple[tuple[str, str, str], ...]
    only_in_a: tuple[Real, ...]
    only_in_b: tuple[Real, ...]
    only_in_a_count: int | None
    only_in_b_count: int | None
    a_in_b: bool
    b_in_a: bool

    def rows(self) -> list[tuple[str, ...]]:
        """Everything as (name, in a, in b) rows, headings as rows of one."""
        differ = "fields that differ" if self.fields else "no field differs"
        return [
            ("", str(self.a), str(self.b)),
            (differ,),
            *self.fields,
            ("limits",),
            *self.limits,
            ("nearest_even, default policies",),
            *self.behaviours,
            ("values",),
            (
                "only here",
                _listed(self.only_in_a, self.only_in_a_count),
                _listed(self.only_in_b, self.only_in_b_count),
            ),
            ("all in the other", _yes(self.a_in_b), _yes(self.b_in_a)),
        ]

    def __str__(self) -> str:
        return aligned(self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows(), f"{self.a} and {self.b}")


def diff(a: Format | str, b: Format | str) -> FormatDiff:
    """Two formats compared: fields, limits, behaviour at the edges, and values.

    Errors: as `fpemu.format`.
    """
    first, second = as_format(a), as_format(b)
    mine, yours = first.to_dict(), second.to_dict()
    fields = tuple((k, str(mine[k]), str(yours[k])) for k in mine if mine[k] != yours[k])
    beyond = 2 * max(first.max_value, second.max_value)
    inputs: list[Value] = [
        Fraction(1),
        beyond,
        *(Special(name) for name in ("inf", "-inf", "nan", "-0")),
    ]
    behaviours = [(numeral(x), _outcome(first, x), _outcome(second, x)) for x in inputs]
    behaviours[1] = (f"overflow, {behaviours[1][0]}", *behaviours[1][1:])
    only_in_a, count_a = _only_in(first, second)
    only_in_b, count_b = _only_in(second, first)
    return FormatDiff(
        a=first,
        b=second,
        fields=fields,
        limits=tuple(
            (name, value, other)
            for (name, value), (_, other) in zip(limits(first), limits(second), strict=True)
        ),
        behaviours=tuple(behaviours),
        only_in_a=only_in_a,
        only_in_b=only_in_b,
        only_in_a_count=count_a,
        only_in_b_count=count_b,
        a_in_b=includes(second, first),
        b_in_a=includes(first, second),
    )


def limits(fmt: Format) -> list[tuple[str, str]]:
    """The key numbers of a format as text."""
    numbers: tuple[tuple[str, Real | None], ...] = (
        ("bits", fmt.bits),
        ("bias", fmt.bias),
        ("max", fmt.max),
        ("min", fmt.min),
        ("smallest normal", fmt.min_normal),
        ("smallest subnormal", fmt.min_subnormal),
        ("eps", fmt.eps),
    )
    flags = (
        ("inf", fmt.has_inf),
        ("nan", fmt.has_nan),
        ("zero", fmt.has_zero),
        ("-0", fmt.has_negative_zero),
    )
    shown = [(name, "none" if n is None else numeral(n)) for name, n in numbers]
    return [*shown, *((name, _yes(flag)) for name, flag in flags)]


def _outcome(fmt: Format, x: Value) -> str:
    result = round_value(fmt, x, Rounding.NEAREST_EVEN, Policy())
    return with_code(fmt, result)


def _only_in(a: Format, b: Format) -> tuple[tuple[Real, ...], int | None]:
    found = witness(a, b)
    if found is None:
        return (), 0
    if a.bits > _ENUMERABLE_BITS:
        return (found,), None
    values = [value for value in a.values() if value not in b]
    values.sort(key=lambda value: (abs(value), value < 0))
    return tuple(values[:_SHOWN]), len(values)


def _listed(values: Sequence[Real], count: int | None) -> str:
    if count == 0:
        return "none"
    text = ", ".join(numeral(value) for value in values)
    if count is None:
        return f"{text}, for example"
    return text if count <= len(values) else f"{text}, ... ({count})"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
