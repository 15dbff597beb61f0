"""Formats and single values told in words: `explain`, `diff` and the notebook display."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from html import escape

from fpemu.catalog import NAMES
from fpemu.catalog import format as as_format
from fpemu.compare import FormatDiff, diff, limits
from fpemu.formats import Format, Specials
from fpemu.keys import Key, as_key
from fpemu.numerals import hex_code, numeral, scaled, split_bits, with_code
from fpemu.policy import NanRule, Policy, parse_policy
from fpemu.reference import nan_substitute, round_magnitude, round_value
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, Stochastic, parse_rounding
from fpemu.tables import aligned, html_table
from fpemu.values import Real, Special, Value, as_value, power_of_two, real

__all__ = ["Explanation", "FormatDiff", "diff", "explain", "format_html"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one value is rounded; `str` tells it in lines, notebooks show a table.

    `x` is the exact input, `below` and `above` are its neighbours in `fmt` (both the value itself
    where it is a member, None beyond either end) and `position` the exact fraction of the way
    between them (None where one is missing). `ulp` is the spacing at x, None for infinities and
    NaN. `is_tie` also holds half a step beyond the ends. `draw` is the random integer of a
    stochastic mode. `notes` say which rules of the policy took part. `code`, `hex` and `bits`
    (sign|exponent|mantissa) are those of `result`, None where it has no code.
    """

    x: Value
    fmt: Format
    below: Real | None
    above: Real | None
    ulp: Real | None
    position: Fraction | None
    is_tie: bool
    rounding: Rounding | Stochastic
    draw: int | None
    policy: Policy
    notes: tuple[str, ...]
    result: Real | Special
    code: int | None
    hex: str | None
    bits: str | None

    def rows(self) -> list[tuple[str, str]]:
        """The story as (label, text) pairs."""
        given = numeral(self.x)
        if isinstance(self.x, Fraction) and self.x.denominator > 1 and scaled(self.x) != given:
            given += f" = {scaled(self.x)}"
        rows = [("input", given)]
        for label, value in (("below", self.below), ("above", self.above)):
            rows.append((label, "none" if value is None else with_code(self.fmt, value)))
        if self.ulp is not None:
            rows.append(("ulp", numeral(self.ulp)))
        if self.below is not None and self.below == self.above:
            rows.append(("position", "a value of the format"))
        elif self.position is not None or self.is_tie:
            part = "beyond the end" if self.position is None else f"{float(self.position):.6g}"
            rows.append(("position", part + (", a tie" if self.is_tie else "")))
        mode = str(self.rounding)
        if isinstance(self.rounding, Stochastic):
            mode += f", draw {self.draw} of 2**{self.rounding.bits}"
        rows.append(("rounding", mode))
        default = " (default)" if self.policy.overflow is None else ""
        rows.append(("policy", str(self.policy.overflow_for(self.fmt)) + default))
        rows += [("", note) for note in self.notes]
        code = "no code" if self.code is None else f"{self.hex}  {self.bits}"
        return [*rows, ("result", f"{numeral(self.result)}  {code}")]

    def __str__(self) -> str:
        return aligned([(f"{numeral(self.x)} in {self.fmt}",), *self.rows()])

    def _repr_html_(self) -> str:
        return html_table(self.rows(), f"{numeral(self.x)} in {self.fmt}")


def explain(
    x: object,
    fmt: Format | str,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    index: int = 0,
) -> Explanation:
    """The story of one value's rounding, the same as `fpemu.quantize` of a float64 would do.

    `x` is any real number (int, float, Fraction, NumPy scalar) or a `Special`. `rounding` None
    means nearest_even, or that of the preset that `policy` names. A stochastic mode draws as
    element `index` of a call with `key` would.

    Errors: ValueError for a stochastic mode without key and for unknown names; TypeError for an
    x that is no number and for pseudo rounding, which needs an array.
    """
    target, exact = as_format(fmt), as_value(x)
    preset, chosen = parse_policy(policy, target)
    mode = parse_rounding(rounding) if rounding is not None else preset or Rounding.NEAREST_EVEN
    if isinstance(mode, PseudoNoise):
        raise TypeError("rounding must round a single value; pseudo rounding works on arrays")
    draw = None
    if isinstance(mode, Stochastic):
        if key is None:
            raise ValueError(f"key must be given with rounding={str(mode)!r}")
        draw = as_key(key).lane(index, mode.lane_bits) >> (mode.lane_bits - mode.bits)
    seen, notes = exact, []
    if chosen.through_float32:
        seen = round_value(NAMES["fp32"], exact, Rounding.NEAREST_EVEN, Policy())
        if seen != exact:
            notes.append(f"rounded to fp32 first: {numeral(seen)}")
    result = round_value(target, seen, mode, chosen, draw or 0)
    notes += _notes(target, seen, mode, chosen, draw or 0, result)
    below, above = (None, None) if seen is Special.NAN else target.neighbours(seen)
    code = _code(target, result, chosen)
    return Explanation(
        x=exact,
        fmt=target,
        below=below,
        above=above,
        ulp=None if isinstance(_unsigned_zero(seen), Special) else target.ulp(seen),
        position=_position(seen, below, above),
        is_tie=_is_tie(target, seen, below, above),
        rounding=mode,
        draw=draw,
        policy=chosen,
        notes=tuple(notes),
        result=result if isinstance(result, Special) else real(result),
        code=code,
        hex=None if code is None else hex_code(target, code),
        bits=None if code is None else split_bits(target, code),
    )


def _unsigned_zero(value: Value) -> Value:
    return Fraction(0) if value is Special.NEG_ZERO else value


def _position(x: Value, below: Real | None, above: Real | None) -> Fraction | None:
    exact = _unsigned_zero(x)
    if isinstance(exact, Special) or below is None or above is None:
        return None
    low, high = Fraction(below), Fraction(above)
    return (exact - low) / (high - low) if low < high else Fraction(0)


def _is_tie(fmt: Format, x: Value, below: Real | None, above: Real | None) -> bool:
    if below is not None and above is not None:
        return _position(x, below, above) == Fraction(1, 2)
    end = below if above is None else above
    if not isinstance(x, Fraction) or not end:
        return False
    step = power_of_two(fmt.step_exponent(abs(Fraction(end))))
    return fmt.has_zero and abs(x - Fraction(end)) * 2 == step


def _code(fmt: Format, result: Value, policy: Policy) -> int | None:
    if result is Special.NAN and not fmt.has_nan and policy.nan is not NanRule.ERROR:
        result = nan_substitute(fmt, policy)
    return fmt.encode(result) if result in fmt else None


def _notes(
    fmt: Format, x: Value, mode: Rounding | Stochastic, policy: Policy, draw: int, result: Value
) -> list[str]:
    """The rules at the edges of the format that took part in rounding x to `result`."""
    rule, given = policy.overflow_for(fmt), numeral(result)
    if x is Special.NAN:
        if fmt.has_nan:
            return []
        return [f"no code for NaN: nan='{policy.nan}' applies when codes are written"]
    if x is Special.POS_INF or x is Special.NEG_INF:
        return [f"infinite input: {rule} gives {given}"]
    value = _unsigned_zero(x)
    assert isinstance(value, Fraction)
    if value == 0 and fmt.has_zero:
        dropped = x is Special.NEG_ZERO and result is not Special.NEG_ZERO
        return ["-0 becomes 0"] if dropped else []
    if not fmt.has_zero and value <= 0:
        return [f"no zero and nothing below it: {rule} gives {given}"]
    rounded = round_magnitude(fmt, abs(value), mode, value < 0, draw)
    if value < 0 and not fmt.signed and rounded:
        return [f"negative in an unsigned format: {rule} gives {given}"]
    if rounded > abs(fmt.lowest_value if value < 0 else fmt.max_value):
        return [f"beyond the range: {rule} with {mode} gives {given}"]
    if rounded == 0:
        return [f"underflow to {given}"]
    if value > 0 and not fmt.has_zero and value < fmt.smallest_positive:
        return ["underflow to the smallest value, as there is no zero"]
    return []


def format_html(fmt: Format) -> str:
    """A format as self-contained HTML: the layout of its bits and its key numbers."""
    if fmt.specials is Specials.TWOS:
        blocks = [("two's complement", fmt.bits, "#cfe3cf")]
    else:
        blocks = [
            ("sign", int(fmt.signed), "#f3c9c9"),
            ("exponent", fmt.exponent_bits, "#c9d7f3"),
            ("mantissa", fmt.mantissa_bits, "#cfe3cf"),
        ]
    cells = "".join(
        f"<span style='flex:{width};background:{colour};padding:2px 4px;overflow:hidden;"
        f"text-align:center;white-space:nowrap;color:#222'>{escape(name)} {width}</span>"
        for name, width, colour in blocks
        if width
    )
    bar = f"<div style='display:flex;gap:1px;max-width:40em'>{cells}</div>"
    kinds = [("specials", str(fmt.specials)), ("subnormals", str(fmt.subnormals))]
    return f"<div>{bar}{html_table([*limits(fmt), *kinds], str(fmt))}</div>"
