"""Tables about formats."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from fpemu import blocks, table_format
from fpemu.blocks import BlockFormat, Spec
from fpemu.catalog import ALIASES, CANONICAL, GRAMMAR
from fpemu.cli._console import table
from fpemu.formats import Format, Specials
from fpemu.numerals import numeral
from fpemu.table_format import TableFormat
from fpemu.values import Real, Special, Value, real

LARGEST_SHOWN = 8  # bits
COLUMNS = 8
WIDTH = 8


def catalogue() -> Iterator[Text | Table]:
    """The named formats, one a row: of single values, tables of values, blocks."""
    result = table("format", "bits", "max", "min > 0", "special", "aliases")
    for name, fmt in CANONICAL.items():
        aliases = ", ".join(ALIASES[name])
        special = ", ".join(_specials(fmt)) or "-"
        limits = (str(fmt.bits), _short(fmt.max), _short(fmt.min_positive))
        result.add_row(name, *limits, special, aliases)
    yield _left(result, 4)
    yield Text()
    yield Text(f"Any other format is spelled {GRAMMAR}.", "dim")
    yield Text()
    tables = table("table format", "bits", "max", "min > 0", "special")
    for name, book in table_format.NAMES.items():
        limits = (str(book.bits), _short(book.max), _short(book.min_positive))
        tables.add_row(name, *limits, ", ".join(_specials(book)) or "-")
    yield _left(tables, 4)
    yield Text()
    result = table("block format", "element", "block", "scale", "rule", "outer", "bits per element")
    for name, block in blocks.NAMES.items():
        outer = "-" if block.outer is None else str(block.outer)
        what = (str(block.element), str(block.block), str(block.scale), str(block.rule), outer)
        result.add_row(name, *what, f"{float(block.bits_per_element()):g}")
    yield _left(result, 1)
    yield Text()
    yield Text(
        f"Any other block format is spelled {blocks.GRAMMAR}, or bfp(<bits>,<length>).", "dim"
    )


def _left(result: Table, first: int) -> Table:
    """A table whose columns from `first` on hold words."""
    for column in result.columns[first:]:
        column.justify = "left"
    return result


def card(fmt: Spec) -> Iterator[Text | Table]:
    """All about one format."""
    if isinstance(fmt, BlockFormat):
        yield from _block_card(fmt)
        return
    if isinstance(fmt, TableFormat):
        yield Text.assemble((str(fmt), "bold"), f"  {fmt.bits} bits  a table of values")
        yield Text()
        yield from _table_values(fmt)
        return
    yield Text.assemble((str(fmt), "bold"), f"  {fmt.bits} bits  ", _layout(fmt))
    for part in (_limits(fmt), _special_codes(fmt)):
        yield Text()
        yield part
    if fmt.bits <= LARGEST_SHOWN:
        yield Text()
        yield from _values(fmt)


def _block_card(fmt: BlockFormat) -> Iterator[Text | Table]:
    """What a block format is made of, and its elements."""
    bits = "" if isinstance(fmt.block, str) else f"  {float(fmt.bits_per_element()):g} bits"
    yield Text.assemble((str(fmt), "bold"), f"{bits and bits + ' per element'}  {fmt.spelling}")
    yield Text()
    rows = [
        ("element", f"{fmt.element}, {fmt.element.bits} bits, up to {numeral(real(fmt.qmax))}"),
        ("block", _block(fmt)),
        ("scale", "none" if fmt.scale is None else f"{fmt.scale}, {fmt.scale.bits} bits"),
        ("rule", str(fmt.rule)),
        ("outer scale", "none" if fmt.outer is None else f"{fmt.outer}, one per tensor"),
        ("lowest code", "left unused" if fmt.symmetric else "used"),
    ]
    result = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for name, text in rows[: 5 + fmt.symmetric]:
        result.add_row(Text(name, "dim"), text)
    yield result
    yield Text()
    yield Text("The elements:", "dim")
    yield Text()
    yield from card(fmt.element)


def _block(fmt: BlockFormat) -> str:
    match fmt.block:
        case int(length):
            return f"runs of {length} along an axis"
        case (rows, columns):
            return f"tiles of {rows} by {columns} of the last two axes"
    return f"one scale per {fmt.block}"


def _table_values(fmt: TableFormat) -> Iterator[Text | Table]:
    columns = min(COLUMNS, len(fmt.table))
    result = table("code", *(f"+{column}" for column in range(columns)), gap=1)
    for start in range(0, len(fmt.table), columns):
        row = (_entry(value) for value in fmt.table[start : start + columns])
        result.add_row(f"0x{start:0{-(-fmt.bits // 4)}x}", *row)
    yield result
    exact = (real(value) for value in fmt.finite)
    if any(_short(value) != numeral(value) for value in exact):
        yield Text(f"Values of more than {WIDTH} characters are rounded.", "dim")


def _entry(value: Value | None) -> str:
    if value is None:
        return "-"
    return _short(value if isinstance(value, Special) else real(value))


def _layout(fmt: Format) -> str:
    """The fields of a code, high bit first, as in ``s eeee mmm``."""
    if fmt.specials is Specials.TWOS:
        return f"two's-complement integer times {numeral(fmt.min_positive)}"
    fields = ("s" * fmt.signed, "e" * fmt.exponent_bits, "m" * fmt.mantissa_bits)
    return " ".join(field for field in fields if field)


def _limits(fmt: Format) -> Table:
    def shown(value: Real | int | None) -> str:
        return "none" if value is None else numeral(value)

    left = [
        ("exponent bits", str(fmt.exponent_bits)),
        ("mantissa bits", str(fmt.mantissa_bits)),
        ("bias", str(fmt.bias)),
        ("signed", "yes" if fmt.signed else "no"),
        ("specials", str(fmt.specials)),
        ("subnormals", str(fmt.subnormals)),
        ("emin, emax", f"{fmt.emin}, {fmt.emax}"),
    ]
    right = [
        ("max", shown(fmt.max)),
        ("min", shown(fmt.min)),
        ("min normal", shown(fmt.min_normal)),
        ("min subnormal", shown(fmt.min_subnormal)),
        ("eps", shown(fmt.eps)),
        ("precision", f"{fmt.precision} bits"),
        ("finite values", f"{_finite_values(fmt):,}"),
    ]
    result = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for first, second in zip(left, right, strict=True):
        result.add_row(Text(first[0], "dim"), first[1], Text(second[0], "dim"), second[1])
    return result


def _finite_values(fmt: Format) -> int:
    zero = fmt.magnitude(0) == 0
    magnitudes = fmt.max_code + 1
    if str(fmt.subnormals) == "flush":
        magnitudes -= (1 << fmt.mantissa_bits) - 1
    if fmt.specials is Specials.TWOS:
        return 1 << fmt.bits
    return 2 * magnitudes - zero if fmt.signed else magnitudes


def _specials(fmt: Format | TableFormat) -> list[str]:
    found = ["inf"] if fmt.has_inf else []
    if fmt.has_nan:
        found.append("nan")
    if fmt.has_negative_zero:
        found.append("-0")
    return found if fmt.has_zero else [*found, "no 0"]


def _special_codes(fmt: Format) -> Table:
    """The codes of zeros, infinities and NaN, and of the ends of the range."""
    result = table("value", "code", "bits")
    values: list[tuple[str, object]] = [
        ("-0", Special.NEG_ZERO), ("inf", Special.POS_INF), ("-inf", Special.NEG_INF),
        ("nan", Special.NAN), ("max", fmt.max_value), ("min > 0", fmt.smallest_positive),
    ]  # fmt: skip
    for name, value in values:
        if value in fmt:
            code = fmt.encode(value)
            result.add_row(name, _hex(code, fmt), _binary(code, fmt))
    return result


def _values(fmt: Format) -> Iterator[Text | Table]:
    half = 1 << (fmt.bits - 1)
    mirrored = fmt.signed and all(_is_negative(fmt, code) for code in range(half))
    codes = range(half) if mirrored else fmt.codes()
    columns = min(COLUMNS, 1 << fmt.mantissa_bits if fmt.mantissa_bits else 8, len(codes))
    result = table("code", *(f"+{column}" for column in range(columns)), gap=1)
    for start in range(0, len(codes), columns):
        row = (_short(_value(fmt, start + column)) for column in range(columns))
        result.add_row(_hex(start, fmt), *row)
    yield result
    if mirrored:
        yield Text(f"Codes from {_hex(half, fmt)} on are the same with a minus sign.", "dim")
    if any(_short(_value(fmt, code)) != numeral(_value(fmt, code)) for code in codes):
        yield Text(f"Values of more than {WIDTH} characters are rounded.", "dim")


def _value(fmt: Format, code: int) -> Real | Special:
    value = fmt.decode(code)
    return value if isinstance(value, Special) else real(value)


def _is_negative(fmt: Format, code: int) -> bool:
    """Whether setting the sign bit of `code` negates its value (NaN: keeps it)."""
    value, other = fmt.decode(code), fmt.decode(code + (1 << (fmt.bits - 1)))
    if isinstance(value, Special) or isinstance(other, Special) or not value:
        pairs = {(Special.NAN, Special.NAN), (Special.POS_INF, Special.NEG_INF)}
        return (value, other) in pairs or (value == 0 and other is Special.NEG_ZERO)
    return other == -value


def _hex(code: int, fmt: Format) -> str:
    return f"0x{code:0{-(-fmt.bits // 4)}x}"


def _binary(code: int, fmt: Format) -> str:
    """The bits of a code, its fields apart."""
    text = f"{code:0{fmt.bits}b}"
    if fmt.specials is Specials.TWOS:
        return text
    cuts = (0, int(fmt.signed), fmt.bits - fmt.mantissa_bits, fmt.bits)
    return " ".join(text[a:b] for a, b in pairwise(cuts) if b > a)


def _short(value: Real | Special) -> str:
    """At most 8 characters where that is possible; rounded where the exact value is longer."""
    text = numeral(value)
    if isinstance(value, Special) or len(text) <= WIDTH:
        return text
    try:
        number = float(value)
    except OverflowError:
        return text
    return max((f"{number:.{n}g}" for n in range(1, 6)), key=lambda t: (len(t) <= WIDTH, len(t)))
