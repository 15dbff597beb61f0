"""Block formats: elements that share a scale, as one frozen value.

Grammar (either case)::

    <element>[<block>,<scale>[,<rule>][,<outer>][,sym]]

`element`, `scale` and `outer` are spellings of formats, written in full; `scale` may be ``none``.
`block` is a length (a run along one axis), ``<rows>x<columns>`` (a tile of the last two axes),
``tensor`` or ``channel`` (one scale per index of one axis). Names: ``mxfp4``, ``mxfp6_e3m2``,
``mxfp6_e2m3``, ``mxfp8_e4m3``, ``mxfp8_e5m2``, ``mxint8``, ``nvfp4``, ``nvint4``, ``msfp12`` to
``msfp16``, and ``bfp(<bits>,<length>)``.

Sources: OCP Microscaling Formats 1.0 (MX), NVIDIA's NVFP4 (arXiv 2509.25149), Microsoft's MSFP.
"""

from __future__ import annotations

import difflib
import html
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

from fpemu.catalog import format as as_format
from fpemu.choices import as_int
from fpemu.formats import Format, Specials
from fpemu.lowering import FLOAT32
from fpemu.scales import DEFAULT, ScaleMethod, ScaleRule, parse_rule
from fpemu.table_format import NAMES as TABLES
from fpemu.table_format import TableFormat
from fpemu.values import exponent_of

Element: TypeAlias = Format | TableFormat
Block: TypeAlias = int | tuple[int, int] | str

MAX_LENGTH = 1 << 40  # of a block, in elements along an axis: places in it fit 64 bits
TENSOR, CHANNEL = "tensor", "channel"
GRAMMAR = "<element>[<block>,<scale>[,<rule>][,<outer>][,sym]]"


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Elements of one format in blocks, each with a scale; immutable and hashable.

    `element`: a Format or TableFormat. `block`: an int n, a run of n along the axis that a call
    names; (rows, columns), a tile of the last two axes; "tensor"; or "channel". `scale`: the
    format of the scales, None for no scales. `rule`: how a scale is derived (`fpemu.scales`);
    None is ``floor`` for E8M0 scales and ``absmax`` for others. `outer`: the format of one more
    scale for the whole tensor, so chosen that the largest block scale is the largest value of
    `scale`. `symmetric`: two's-complement elements leave their lowest code unused.

    A spelling may be given for any field but `symmetric`. Values of an element code q are
    ``(q * scale) * outer``.
    Errors: ValueError or TypeError naming the field: a field out of range, an element that
    float32 cannot hold or that has no values of both signs, a scale format that cannot hold a
    scale the rule gives (the value is named).
    """

    element: Element
    block: Block
    scale: Format | None
    rule: ScaleRule = None  # type: ignore[assignment]  # replaced below
    outer: Format | None = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "element", as_element(self.element))
        put(self, "block", _as_block(self.block))
        scale: object = self.scale
        put(self, "scale", None if scale in (None, "none") else as_format(self.scale))  # type: ignore[arg-type]
        put(self, "outer", None if self.outer is None else as_format(self.outer))
        default = _default_rule(self.scale)
        put(self, "rule", default if self.rule is None else parse_rule(self.rule))
        self._check_element()
        self._check_scale()
        self._check_outer()

    def _check_element(self) -> None:
        element = self.element
        if isinstance(element, Format):
            if not element.has_zero or not element.signed:
                raise ValueError(
                    f"element must have zero and a sign, so that it can be scaled; got {element}"
                )
            if not FLOAT32.holds(element):
                raise ValueError(f"element must be a format that float32 holds, got {element}")
        elif not element.signed:
            raise ValueError(f"element must have a sign, so that it can be scaled; got {element}")
        elif any(value not in FLOAT32.format for value in element.finite):
            raise ValueError(f"element must be a format that float32 holds, got {element}")
        if not isinstance(self.symmetric, bool):
            raise TypeError(f"symmetric must be a bool, got {self.symmetric!r}")
        twos = isinstance(element, Format) and element.specials is Specials.TWOS
        if self.symmetric and not twos:
            raise ValueError(f"symmetric goes with two's-complement elements, got {element}")

    def _check_scale(self) -> None:
        scale, rule = self.scale, self.rule
        if scale is None:
            if rule != DEFAULT or self.outer is not None:
                raise ValueError(f"scale none takes no rule and no outer, got {rule}, {self.outer}")
            return
        if not FLOAT32.holds(scale):
            raise ValueError(f"scale must be a format that float32 holds, got {scale}")
        needed = (Fraction(1), Fraction(1, 2)) if rule.gives_powers_of_two else (Fraction(1),)
        for value in needed:
            if value not in scale:
                raise ValueError(
                    f"scale format {scale} cannot hold {value}, a scale that rule {rule} gives"
                )

    def _check_outer(self) -> None:
        if self.outer is None:
            return
        assert self.scale is not None
        for name, fmt in (("outer", self.outer),):
            if not FLOAT32.holds(fmt) or Fraction(1) not in fmt:
                raise ValueError(f"{name} must be a format that float32 holds, got {fmt}")
        largest = self.element.max_value * self.scale.max_value
        if largest > FLOAT32.format.max_value:
            raise ValueError(
                f"outer needs a scale format of less range: {self.element} times {self.scale} "
                f"reaches {float(largest):.3g}, which float32 cannot hold"
            )

    # --------------------------------------------------------------- derived

    @property
    def qmax(self) -> Fraction:
        """The largest element value: what the largest magnitude of a block is scaled to."""
        return self.element.max_value

    @property
    def emax(self) -> int:
        """floor(log2(qmax)): 2 for E2M1, 8 for E4M3FN, 0 for MXINT8."""
        return exponent_of(self.qmax)

    @property
    def top_mantissa_bits(self) -> int:
        """Mantissa bits in the element's top binade, which rule ``even`` rounds to."""
        if isinstance(self.element, TableFormat):
            below = self.element.neighbours(self.qmax - Fraction(1, 1 << 60))[0]
            assert below is not None
            return max(self.emax - exponent_of(self.qmax - Fraction(below)), 0)
        return max(self.emax - self.element.step_exponent(self.qmax), 0)

    @property
    def scale_exponents(self) -> tuple[int, int]:
        """The least and the largest exponent of a power of two in the scale format."""
        assert self.scale is not None
        return exponent_of(self.scale.smallest_positive), exponent_of(self.scale.max_value)

    @property
    def nan_scale(self) -> bool:
        """Whether a block with NaN or an infinity can be marked by its scale."""
        return self.scale is not None and self.scale.has_nan

    def block_elements(self, shape: tuple[int, ...], axis: int = -1) -> int:
        """Elements of a full block in an array of `shape`."""
        match self.block:
            case int(n):
                return n
            case (rows, columns):
                return rows * columns
            case "tensor":
                return prod(shape)
        return prod(shape) // max(shape[axis], 1)

    def bits_per_element(self, shape: tuple[int, ...] | None = None, axis: int = -1) -> Fraction:
        """Storage of an element, its share of a full block's scale included (not of `outer`).

        `shape` is needed for "tensor" and "channel".
        """
        bits = Fraction(self.element.bits)
        if self.scale is None:
            return bits
        if isinstance(self.block, str) and shape is None:
            raise ValueError(f"shape must be given for one scale per {self.block}")
        count = self.block_elements(shape or (), axis)
        return bits + Fraction(self.scale.bits, max(count, 1))

    # -------------------------------------------------------------- printing

    @staticmethod
    def parse(spelling: str) -> BlockFormat:
        """The block format of a spelling; see this module. Errors: ValueError, TypeError."""
        if not isinstance(spelling, str):
            raise TypeError(f"spelling must be a str, got {type(spelling).__name__} {spelling!r}")
        return _parse(spelling)

    @property
    def spelling(self) -> str:
        """The grammar's spelling, without names."""
        parts = [_spell_block(self.block), "none" if self.scale is None else str(self.scale)]
        if self.rule != _default_rule(self.scale):
            parts.append(str(self.rule))
        if self.outer is not None:
            parts.append(str(self.outer))
        if self.symmetric:
            parts.append("sym")
        return f"{self.element}[{','.join(parts)}]"

    def __str__(self) -> str:
        for name, named in NAMES.items():
            if named == self:
                return name
        if self == _bfp_like(self):
            return f"bfp({self.element.bits},{self.block})"
        return self.spelling

    def __repr__(self) -> str:
        return f"BlockFormat.parse({str(self)!r})"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; `from_dict` reads them back."""
        return {
            "element": _element_dict(self.element),
            "block": list(self.block) if isinstance(self.block, tuple) else self.block,
            "scale": None if self.scale is None else self.scale.to_dict(),
            "rule": str(self.rule),
            "outer": None if self.outer is None else self.outer.to_dict(),
            "symmetric": self.symmetric,
        }

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> BlockFormat:
        """The block format of `to_dict`. Errors: ValueError, TypeError, KeyError."""

        def fmt(name: str) -> Format | None:
            return None if fields[name] is None else Format.from_dict(fields[name])

        block = fields["block"]
        return BlockFormat(
            _element_from_dict(fields["element"]),
            (block[0], block[1]) if isinstance(block, list) else block,
            fmt("scale"),
            parse_rule(fields["rule"]),
            fmt("outer"),
            fields["symmetric"],
        )

    def _repr_html_(self) -> str:
        rows = {
            "element": f"{self.element}, {self.element.bits} bits, up to {float(self.qmax):g}",
            "block": _spell_block(self.block),
            "scale": "none" if self.scale is None else f"{self.scale}, {self.scale.bits} bits",
            "rule": str(self.rule),
        }
        if self.outer is not None:
            rows["outer scale"] = f"{self.outer}, one per tensor"
        if not isinstance(self.block, str):
            rows["bits per element"] = f"{float(self.bits_per_element()):g}"
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        return f"<table><caption>{html.escape(str(self))}</caption>{cells}</table>"


# -------------------------------------------------------------------- fields


def as_element(element: Element | str) -> Element:
    """An element format from itself or its spelling. Errors: as `fpemu.format`."""
    if isinstance(element, TableFormat):
        return element
    if isinstance(element, str) and element.strip().lower() in TABLES:
        return TABLES[element.strip().lower()]
    return as_format(element)


def _as_block(block: object) -> Block:
    if isinstance(block, str):
        text = block.strip().lower()
        if text in (TENSOR, CHANNEL):
            return text
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", text, re.ASCII)
        if not match:
            raise ValueError(
                f"block must be a length, <rows>x<columns>, tensor or channel; got {block!r}"
            )
        block = int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
    if isinstance(block, tuple | list):
        sizes = tuple(as_int("block", size) for size in block)
        if len(sizes) != 2 or min(sizes) < 1:
            raise ValueError(f"block must be (rows, columns) of at least 1, got {block!r}")
        return _length(sizes[0]), _length(sizes[1])
    return _length(as_int("block", block))


def _length(length: int) -> int:
    if length < 1:
        raise ValueError(f"block must be at least 1, got {length}")
    if length > MAX_LENGTH:
        raise ValueError(f"block must be at most 2**40, got {length}")
    return length


def _spell_block(block: Block) -> str:
    return f"{block[0]}x{block[1]}" if isinstance(block, tuple) else str(block)


def _default_rule(scale: Format | None) -> ScaleRule:
    powers = scale is not None and scale.specials is Specials.E8M0 and not scale.mantissa_bits
    return ScaleRule(ScaleMethod.FLOOR) if powers else DEFAULT


def _element_dict(element: Element) -> dict[str, Any]:
    return {"spelling": str(element), **element.to_dict()}


def _element_from_dict(fields: dict[str, Any]) -> Element:
    rest = {name: value for name, value in fields.items() if name != "spelling"}
    if "exponent_bits" in rest:
        return Format.from_dict(rest)
    return TableFormat.from_dict(rest)


# ----------------------------------------------------------------- catalogue

_E8M0 = as_format("e8m0")


def _mx(element: str, symmetric: bool = False) -> BlockFormat:
    return BlockFormat(as_format(element), 32, _E8M0, symmetric=symmetric)


def _nv(element: str, symmetric: bool = False) -> BlockFormat:
    return BlockFormat(
        as_format(element), 16, as_format("e4m3fn"), outer=as_format("fp32"), symmetric=symmetric
    )


def bfp(bits: int, length: int) -> BlockFormat:
    """Block floating point: signed `bits`-bit integers, sign included, under a shared exponent."""
    bits = as_int("bits", bits)
    if not 2 <= bits <= 24:
        raise ValueError(f"bits of bfp must be in 2..24, got {bits}")
    return BlockFormat(Format.fixed_point(bits, 0), length, _E8M0, symmetric=True)


def _bfp_like(fmt: BlockFormat) -> BlockFormat | None:
    fits = isinstance(fmt.block, int) and 2 <= fmt.element.bits <= 24
    return bfp(fmt.element.bits, fmt.block) if fits and isinstance(fmt.block, int) else None


NAMES: dict[str, BlockFormat] = {
    "mxfp4": _mx("e2m1"),
    "mxfp6_e3m2": _mx("e3m2"),
    "mxfp6_e2m3": _mx("e2m3"),
    "mxfp8_e4m3": _mx("e4m3fn"),
    "mxfp8_e5m2": _mx("e5m2"),
    "mxint8": _mx("mxint8", symmetric=True),
    "nvfp4": _nv("e2m1"),
    "nvint4": _nv("int4", symmetric=True),
    **{f"msfp{8 + bits}": bfp(bits, 16) for bits in range(4, 9)},
}
_ALIASES = {
    "mxfp4_e2m1": "mxfp4",
    "mxfp6": "mxfp6_e3m2",
    "mxfp8": "mxfp8_e4m3",
    "mxfp8_e4m3fn": "mxfp8_e4m3",
}


@lru_cache(maxsize=1024)
def _parse(spelling: str) -> BlockFormat:
    text = re.sub(r"\s+", "", spelling).lower()
    text = _ALIASES.get(text, text)
    if text in NAMES:
        return NAMES[text]
    try:
        if match := re.fullmatch(r"bfp\((\d+),(\d+)\)", text, re.ASCII):
            return bfp(int(match[1]), int(match[2]))
        if match := re.fullmatch(r"([^\[\]]+)\[([^\[\]]+)\]", text):
            return _from_parts(match[1], match[2].split(","))
    except ValueError as error:
        raise ValueError(f"block format {spelling!r}: {error}") from None
    near = difflib.get_close_matches(text, [*NAMES, *_ALIASES], n=4, cutoff=0.5)
    hint = f"; nearest names: {', '.join(near)}" if near else f"; names: {', '.join(NAMES)}"
    raise ValueError(f"spelling {spelling!r} is not a block format; grammar: {GRAMMAR}{hint}")


def _from_parts(element: str, parts: list[str]) -> BlockFormat:
    if len(parts) < 2:
        raise ValueError(f"a block and a scale are needed, as in {GRAMMAR}")
    block, scale, *rest = parts
    rule: ScaleRule | None = None
    outer: Format | None = None
    symmetric = False
    for part in rest:
        if part == "sym" and not symmetric:
            symmetric = True
        elif part.partition(":")[0] in ScaleMethod.__members__.values() and rule is None:
            rule = parse_rule(part)
        elif outer is None:
            outer = as_format(part)
        else:
            raise ValueError(f"{part!r} is one part too many; grammar: {GRAMMAR}")
    fmt = None if scale == "none" else as_format(scale)
    chosen = _default_rule(fmt) if rule is None else rule
    return BlockFormat(as_element(element), _as_block(block), fmt, chosen, outer, symmetric)


Spec: TypeAlias = Format | TableFormat | BlockFormat


def as_spec(fmt: Spec | str) -> Spec:
    """Any format from itself or its spelling: names of block formats first, then the others.

    ``mxint8`` alone is the block format; its element is written ``mxint8`` inside brackets.
    Errors: TypeError, and ValueError for an unknown spelling.
    """
    if isinstance(fmt, BlockFormat | TableFormat):
        return fmt
    if isinstance(fmt, str) and is_block_spelling(fmt):
        return BlockFormat.parse(fmt)
    return as_element(fmt)


def is_block_spelling(text: str) -> bool:
    """Whether `text` can only mean a block format."""
    plain = re.sub(r"\s+", "", text).lower()
    return plain in NAMES or plain in _ALIASES or "[" in plain or plain.startswith("bfp(")
