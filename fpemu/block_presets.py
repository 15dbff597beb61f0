"""Presets of block formats: what other libraries do, where it differs from the definition.

The differences, with a the largest magnitude of a block, s its scale and t the outer scale:

==================== ======================= ========================= =========================
                     here                    torchao                   microxcaling
==================== ======================= ========================= =========================
exponent             from bits               from bits; rceil by       by float32 log2: just
                                             float32 log2: just above  below 2**k it is k
                                             2**k it is k
infinity in a block  NaN scale               the largest exponent, or  NaN scale
                                             scale 448
exponent above 127   127                     127                       NaN scale
scale 2**-127        divides by it           divides by 2**-126;       divides by it
                                             rceil: by 1
NVFP4 scale          (a / 6) / t             the same, at least 2**-6
NVFP4 element        (x / t) / s             x * ((1 / t) / s)
NVFP4 value          (q * s) * t             q * (t * s)
NVFP4 t              of finite blocks        of all elements
a product too large  the largest value       infinity                  infinity
rounding             any, default nearest    nearest even              nearest away (default)
                     even                                              or even
just under half the  0                       0                         rounds up
smallest element
-0                   where the element       as here                   becomes +0; tiny
                     has it                                            negatives become -0
==================== ======================= ========================= =========================

Everything is computed in float32: float64 and integers go through it first. Blocks at the end of
an axis hold what is there (torchao refuses them, microxcaling pads with zeros: the same).

Sources: torchao 0.18.0 (`prototype/mx_formats`, eager, CPU, whose log2 rounds correctly at these
places) and microxcaling 7bc4195 (`mx/mx_ops.py`, PyTorch path, float32).
Not imitated: torchao compiled or on a GPU, where rceil may multiply by 1/qmax or use an
instruction of the device; microxcaling's custom kernels (exponents from bits), its arithmetic
in bfloat16, float16 and float64, its roundings `floor` and `dither`, other scale widths than 8 and
`mx_flush_fp32_subnorms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from fpemu.blocks import BlockFormat
from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials
from fpemu.rounding import Descriptor, Rounding, parse_rounding
from fpemu.scales import ScaleMethod


@dataclass(frozen=True, slots=True)
class BlockPreset:
    """Another library's way with blocks; this module has the table.

    `elements` and `rules` are those it has for E8M0 scales, `integers` whether any symmetric
    two's complement below 2 counts as well, `roundings` those it has, its default first.
    """

    name: str
    imitates: str
    elements: frozenset[Format]
    rules: tuple[ScaleMethod, ...]
    roundings: tuple[Rounding, ...]
    integers: bool = False
    nvfp4: bool = False
    logarithms: frozenset[ScaleMethod] = frozenset()  # rules whose exponent is a float32 log2
    nan_beyond_range: bool = False  # scales above 2**127, and of infinities, are NaN
    least_divisor: float = 2.0**-127
    least_divisor_of_ratio: float = 2.0**-127  # the same for rceil, in place of 2**-127 alone
    half_by_addition: bool = False  # nearest is floor(|x| + 1/2) in float32
    sign_by_product: bool = False  # sign(x) * rounded |x|

    def check(self, fmt: BlockFormat) -> None:
        """Errors: ValueError for a format that the library does not have."""
        if isinstance(fmt.block, str):
            raise ValueError(f"policy {self.name!r} goes with blocks of a length, got {fmt}")
        method = fmt.rule.method
        if fmt.scale == _E4M3:
            known = fmt.element == _E2M1 and method is ScaleMethod.ABSMAX and self.nvfp4
            known = known and fmt.outer in (None, _FLOAT32)
        else:
            known = fmt.element in self.elements or (self.integers and _is_fraction(fmt))
            known = known and fmt.scale == _E8M0 and fmt.outer is None and method in self.rules
        if not known:
            raise ValueError(
                f"policy {self.name!r} must go with a format of {self.imitates}, got {fmt}"
            )

    def rounding(self, rounding: Descriptor | str | None) -> Rounding:
        """The rounding meant. Errors: ValueError for one that the library does not have."""
        if rounding is None:
            return self.roundings[0]
        mode = parse_rounding(rounding)
        if not isinstance(mode, Rounding) or mode not in self.roundings:
            allowed = ", ".join(self.roundings)
            raise ValueError(
                f"rounding must be one of {allowed} with policy {self.name!r}, got {str(mode)!r}"
            )
        return mode


def _is_fraction(fmt: BlockFormat) -> bool:
    """A symmetric integer read as 1.xxx: largest value just below 2."""
    element = fmt.element
    return (
        isinstance(element, Format)
        and element.specials is Specials.TWOS
        and fmt.symmetric
        and element.max_value == 2 - Fraction(4, 1 << element.bits)
    )


_E8M0, _E4M3, _E2M1, _FLOAT32 = map(as_format, ("e8m0", "e4m3fn", "e2m1", "fp32"))
_MX = frozenset(map(as_format, ("e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2")))
_TORCHAO_RULES = (ScaleMethod.FLOOR, ScaleMethod.CEIL, ScaleMethod.EVEN, ScaleMethod.RCEIL)

PRESETS: dict[str, BlockPreset] = {
    preset.name: preset
    for preset in (
        BlockPreset(
            "torchao",
            "torchao 0.18.0",
            _MX,
            _TORCHAO_RULES,
            (Rounding.NEAREST_EVEN,),
            nvfp4=True,
            logarithms=frozenset((ScaleMethod.RCEIL,)),
            least_divisor=2.0**-126,
            least_divisor_of_ratio=1.0,
        ),
        BlockPreset(
            "microxcaling",
            "microxcaling 7bc4195",
            _MX,
            (ScaleMethod.FLOOR,),
            (Rounding.NEAREST_AWAY, Rounding.NEAREST_EVEN),
            integers=True,
            logarithms=frozenset((ScaleMethod.FLOOR,)),
            nan_beyond_range=True,
            half_by_addition=True,
            sign_by_product=True,
        ),
    )
}


def block_preset(policy: object, fmt: BlockFormat) -> BlockPreset | None:
    """The preset of a call's `policy`; None for None.

    Errors: ValueError for another policy than a preset of this module, for block formats leave
    nothing else open; ValueError for a format that the library does not have.
    """
    if policy is None:
        return None
    name = policy.strip().lower() if isinstance(policy, str) else ""
    if name not in PRESETS:
        raise ValueError(
            f"policy must be None for {fmt}, whose elements saturate, or one of "
            f"{', '.join(PRESETS)}; got {policy!r}"
        )
    preset = PRESETS[name]
    preset.check(fmt)
    return preset
