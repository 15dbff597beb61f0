"""Spellings: the named formats, the grammar, and the printer.

Grammar (either case; ``_`` and ``-`` before a suffix are ignored)::

    [u]e<X>m<Y>[b<bias>][ieee|fn|fnuz|finite|nozero][flush]
    int<K>, uint<K>                          integers in steps of 1
    e0m<Y>[b<bias>]twos                      two's-complement fixed point
    binary<K>p<P>{s|u}{e|f}                  IEEE P3109: signed or not, extended or finite

and the names below, which win over the grammar. Without a suffix a spelling has IEEE
specials, so ``e4m3`` is IEEE's and ``e4m3fn`` is OCP's, as in ml_dtypes. ``nozero`` is the
E8M0 family at other widths. An explicit bias always means the grammar: ``e2m1fn`` is OCP's
finite FP4 (ml_dtypes' name for it), ``e2m1b1fn`` is FP4 with a NaN code.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

from fpemu.formats import Format, Specials, Subnormals, default_bias

GRAMMAR = (
    "[u]e<X>m<Y>[b<bias>][ieee|fn|fnuz|finite|nozero|twos][flush], int<K>, uint<K>, "
    "binary<K>p<P>{s|u}{e|f}"
)


def _finite(e: int, m: int) -> Format:
    return Format(e, m, specials=Specials.FINITE)


def _unsigned_fn(e: int, m: int) -> Format:
    return Format(e, m, signed=False, specials=Specials.FN)


_E8M0 = Format(8, 0, bias=127, signed=False, specials=Specials.E8M0, subnormals=Subnormals.NONE)

# The first name of a row is canonical, the rest are aliases.
_TABLE: tuple[tuple[Format, tuple[str, ...]], ...] = (
    (_finite(2, 1), ("e2m1", "e2m1fn", "float4_e2m1fn", "fp4")),
    (_finite(2, 3), ("e2m3", "e2m3fn", "float6_e2m3fn")),
    (_finite(3, 2), ("e3m2", "e3m2fn", "float6_e3m2fn")),
    (Format(3, 4), ("e3m4", "float8_e3m4")),
    (Format(4, 3), ("e4m3", "float8_e4m3")),
    (Format(4, 3, specials=Specials.FN), ("e4m3fn", "float8_e4m3fn")),
    (Format(4, 3, specials=Specials.FNUZ), ("e4m3fnuz", "float8_e4m3fnuz")),
    (
        Format(4, 3, bias=11, specials=Specials.FNUZ),
        ("e4m3b11fnuz", "float8_e4m3b11fnuz", "float8_e4m3b11_fnuz"),
    ),
    (Format(5, 2), ("e5m2", "float8_e5m2")),
    (Format(5, 2, specials=Specials.FNUZ), ("e5m2fnuz", "float8_e5m2fnuz")),
    (_E8M0, ("e8m0", "ue8m0", "e8m0fnu", "float8_e8m0fnu")),
    (_unsigned_fn(4, 3), ("ue4m3", "ue4m3fn")),
    (_unsigned_fn(5, 3), ("ue5m3", "ue5m3fn")),
    (Format(5, 10), ("fp16", "float16", "binary16", "half")),
    (Format(8, 7), ("bf16", "bfloat16")),
    (Format(8, 10), ("tf32", "tensorfloat32")),
    (Format(8, 23), ("fp32", "float32", "binary32", "single")),
    (Format(11, 52), ("fp64", "float64", "binary64", "double")),
    (Format.fixed_point(8, 6), ("mxint8",)),
    (Format.fixed_point(4, 0), ("int4",)),
    (Format.fixed_point(8, 0), ("int8",)),
)

NAMES: dict[str, Format] = {name: fmt for fmt, names in _TABLE for name in names}
CANONICAL: dict[str, Format] = {names[0]: fmt for fmt, names in _TABLE}
ALIASES: dict[str, tuple[str, ...]] = {names[0]: names[1:] for _, names in _TABLE}

# What people call a width when they mean one of several formats of it.
_FAMILIES: dict[str, list[str]] = {
    name: formats
    for names, formats in (
        (("fp8", "float8", "f8"), ["e4m3fn", "e5m2"]),
        (("fp6", "float6", "f6"), ["e3m2", "e2m3"]),
        (("float4", "f4"), ["e2m1"]),
        (("f16",), ["fp16", "bf16"]),
        (("f32",), ["fp32"]),
        (("f64",), ["fp64"]),
    )
    for name in names
}

_FIELDS = re.compile(
    r"(?P<u>u?)e(?P<e>\d+)m(?P<m>\d+)(?:b(?P<bias>-?\d+))?"
    r"(?:[-_]?(?P<specials>ieee|fnuz|fn|finite|nozero|twos))?(?:[-_]?(?P<flush>flush))?",
    re.ASCII,
)
_INTEGER = re.compile(r"(?P<u>u?)int(?P<bits>\d+)", re.ASCII)
_P3109 = re.compile(r"binary(?P<k>\d+)p(?P<p>\d+)(?P<sign>[su])(?P<domain>[ef])", re.ASCII)
_SPECIALS = {
    None: Specials.IEEE,
    "ieee": Specials.IEEE,
    "fn": Specials.FN,
    "fnuz": Specials.FNUZ,
    "finite": Specials.FINITE,
    "nozero": Specials.E8M0,
    "twos": Specials.TWOS,
}
_SUFFIX = {value: key for key, value in _SPECIALS.items() if key}


def parse(spelling: str) -> Format:
    """The format that `spelling` names; the grammar is this module's docstring.

    Errors: TypeError for a non-string; ValueError for an unknown or malformed spelling (with
    the grammar and the nearest names) and for fields out of range.
    """
    if not isinstance(spelling, str):
        raise TypeError(f"spelling must be a str, got {type(spelling).__name__} {spelling!r}")
    return _parse(spelling)


@lru_cache(maxsize=4096)
def _parse(spelling: str) -> Format:
    text = spelling.strip().lower()
    if text in NAMES:
        return NAMES[text]
    for pattern, build in (
        (_FIELDS, _from_fields),
        (_INTEGER, _from_integer),
        (_P3109, _from_p3109),
    ):
        match = pattern.fullmatch(text)
        if match:
            try:
                return build(match.groupdict())
            except ValueError as error:
                raise ValueError(f"spelling {spelling!r}: {error}") from None
    near = _FAMILIES.get(text) or difflib.get_close_matches(text, NAMES, n=4, cutoff=0.5)
    hint = f"; nearest names: {', '.join(near)}" if near else ""
    raise ValueError(f"spelling {spelling!r} is not a format; grammar: {GRAMMAR}{hint}")


def _from_fields(part: dict[str, str]) -> Format:
    specials = _SPECIALS[part["specials"]]
    subnormals = Subnormals.FLUSH if part["flush"] else Subnormals.GRADUAL
    if specials is Specials.E8M0:
        if part["flush"]:
            raise ValueError("a format without zero cannot flush")
        subnormals = Subnormals.NONE
    return Format(
        int(part["e"]),
        int(part["m"]),
        bias=int(part["bias"]) if part["bias"] is not None else None,
        signed=not part["u"],
        specials=specials,
        subnormals=subnormals,
    )


def _from_integer(part: dict[str, str]) -> Format:
    bits, signed = int(part["bits"]), not part["u"]
    if bits < 1 + signed:
        raise ValueError(f"an integer has at least {1 + signed} bits")
    return Format.fixed_point(bits, 0, signed=signed)


def _from_p3109(part: dict[str, str]) -> Format:
    k, p, signed = int(part["k"]), int(part["p"]), part["sign"] == "s"
    if not 3 <= k <= 16 or not 1 <= p <= k - signed:
        top = "K - 1" if signed else "K"
        raise ValueError(f"P3109 has 3 <= K <= 16 and 1 <= P <= {top}, got K={k}, P={p}")
    return Format(
        k - p + 1 - signed,
        p - 1,
        signed=signed,
        specials=Specials.P3109_EXTENDED if part["domain"] == "e" else Specials.P3109_FINITE,
    )


@lru_cache(maxsize=4096)
def spell(fmt: Format) -> str:
    """The shortest spelling that parses back to `fmt`; ties go to the catalogue, then a-z."""
    candidates = [name for name, named in CANONICAL.items() if named == fmt]
    candidates += _spellings(fmt)
    readable = [name for name in candidates if parse(name) == fmt]
    return min(readable, key=lambda name: (len(name), name not in CANONICAL, name))


def _spellings(fmt: Format) -> list[str]:
    e, m, specials = fmt.exponent_bits, fmt.mantissa_bits, fmt.specials
    if specials.is_p3109:
        domain = "e" if specials is Specials.P3109_EXTENDED else "f"
        return [f"binary{fmt.bits}p{m + 1}{'s' if fmt.signed else 'u'}{domain}"]
    bias = f"b{fmt.bias}"
    unsigned = "" if fmt.signed else "u"
    suffix = _SUFFIX[specials]
    flush = "_flush" if fmt.subnormals is Subnormals.FLUSH else ""
    stem = f"{unsigned}e{e}m{m}"
    found = [f"{stem}{bias}{suffix}{flush}"]
    if specials is Specials.IEEE:
        found.append(f"{stem}{bias}{flush}")
    if fmt.bias == default_bias(e, m, specials):
        found.append(f"{stem}{suffix}{flush}")
        if specials is Specials.IEEE:
            found.append(f"{stem}{flush}")
    if e == 0 and fmt.quantum_exponent == 0 and m + fmt.signed >= 1 + fmt.signed:
        found.append(f"{unsigned}int{fmt.bits}")
    return found if fmt.bits > 1 or unsigned else found[:1]


def format(fmt: Format | str) -> Format:
    """`fmt` itself, or the format its spelling names. Errors: as `parse`."""
    if isinstance(fmt, Format):
        return fmt
    if not isinstance(fmt, str):
        raise TypeError(f"fmt must be a Format or a spelling, got {type(fmt).__name__} {fmt!r}")
    return parse(fmt)
