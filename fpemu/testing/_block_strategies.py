"""Hypothesis strategies for block formats and for arrays whose blocks are awkward."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from fpemu.blocks import CHANNEL, NAMES, TENSOR, Block, BlockFormat, Element
from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials
from fpemu.lowering import FLOAT32
from fpemu.scales import ScaleMethod, ScaleRule
from fpemu.table_format import NAMES as TABLES
from fpemu.testing._block_geometry import block_numbers
from fpemu.testing._block_points import fill, levels
from fpemu.testing._block_trial import as_block_format
from fpemu.testing._patterns import Floats, container_of, float_dtype, floats, nans, narrow

_SCALES = ("e8m0", "e4m3fn", "ue4m3", "ue5m3", "e5m3", "bf16", "fp32", "fp16", "none")
_NARROW = ("e4m3fn", "ue4m3", "ue5m3", "e5m3")  # leave room for an outer scale
_STATISTICS = (
    ScaleRule(ScaleMethod.MSE, 5),
    ScaleRule(ScaleMethod.MSE, 4, 0.5, 2.4),
    ScaleRule(ScaleMethod.OCTAV),
    ScaleRule(ScaleMethod.QUEST),
)
_FROM_MAXIMA = tuple(
    ScaleRule(method)
    for method in ScaleMethod
    if method not in (ScaleMethod.MSE, ScaleMethod.OCTAV, ScaleMethod.QUEST)
)


def scale_rules(searched: bool = True) -> st.SearchStrategy[ScaleRule]:
    """Scale rules; with `searched`, those that look at whole blocks too, with few points."""
    return st.sampled_from((*_FROM_MAXIMA, *_STATISTICS) if searched else _FROM_MAXIMA)


@st.composite
def block_formats(draw: st.DrawFn, max_bits: int = 8, searched: bool = True) -> BlockFormat:
    """Block formats, named ones first: elements of at most `max_bits` bits, every kind of block.

    `searched` as in `scale_rules`.
    """
    if draw(st.integers(0, 3)) == 0:
        named = [fmt for fmt in NAMES.values() if fmt.element.bits <= max_bits]
        return draw(st.sampled_from(named))
    element = draw(_elements(max_bits))
    block = draw(_blocks())
    twos = isinstance(element, Format) and element.specials is Specials.TWOS
    symmetric = twos and draw(st.booleans())
    scale = draw(st.sampled_from(_SCALES))
    if scale == "none":
        return BlockFormat(element, block, None, symmetric=symmetric)
    rule = draw(st.none() | scale_rules(searched))
    outer = draw(st.sampled_from((None, "fp32", "bf16"))) if scale in _NARROW else None
    try:
        return BlockFormat(
            element,
            block,
            as_format(scale),
            rule,  # type: ignore[arg-type]  # None is the default
            None if outer is None else as_format(outer),
            symmetric,
        )
    except ValueError:  # a range that float32 cannot hold
        return draw(st.nothing())


def _elements(max_bits: int) -> st.SearchStrategy[Element]:
    from fpemu.testing.strategies import formats  # which imports this module

    def fits(fmt: Format) -> bool:
        return fmt.signed and fmt.has_zero and FLOAT32.holds(fmt)

    tables = [fmt for fmt in TABLES.values() if fmt.bits <= min(max_bits, 8)]
    made: st.SearchStrategy[Element] = formats(max_bits, container="float32").filter(fits)
    return made | st.sampled_from(tables) if tables else made


def _blocks() -> st.SearchStrategy[Block]:
    runs = st.integers(1, 9) | st.sampled_from((16, 32, 33))
    tiles = st.tuples(st.integers(1, 6), st.integers(1, 6))
    return st.one_of(runs, tiles, st.sampled_from((TENSOR, CHANNEL)))


@st.composite
def blocks(
    draw: st.DrawFn,
    fmt: BlockFormat | str,
    dtype: DTypeLike = "float32",
    shape: tuple[int, ...] | None = None,
    axis: int = -1,
    finite: bool = True,
) -> Floats:
    """Arrays of `dtype`, a small matrix unless `shape` says otherwise, to be cut along `axis`.

    Blocks have awkward largest magnitudes (2**k and its neighbours, ties of the scale format,
    both ends of the range) and elements at values, ties and their neighbours under their scale;
    zero blocks, mixed magnitudes and raw patterns come up, and without `finite` NaN and
    infinities.
    """
    target, spec = as_block_format(fmt), float_dtype(dtype)
    if shape is None:
        width = target.block if isinstance(target.block, int) else 6
        shape = draw(st.integers(1, 5)), draw(st.integers(1, 2 * width + 3))
    tops = draw(st.sampled_from(levels(target, spec)))
    x = fill(shape, target, tops, axis, turn=draw(st.integers(0, 999)))
    flat, numbers = x.reshape(-1), block_numbers(shape, target, axis).reshape(-1)
    if not flat.size:
        return x
    container = container_of(spec)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, flat.size - 1))
        match draw(st.sampled_from(("zero block", "raw", "small", "sign"))):
            case "zero block":
                flat[numbers == numbers[at]] = 0
            case "raw":
                pattern = draw(st.integers(0, container.infinity - 1))
                flat[at] = _float(pattern | draw(st.booleans()) * container.sign, spec)
            case "small":
                flat[at] *= narrow(np.array([2.0 ** -draw(st.integers(1, 14))]), spec)[0]
            case _:
                flat[at] = -flat[at]
    if not finite and draw(st.booleans()):
        infinities = floats(
            np.array([container.infinity, container.infinity | container.sign], np.uint64), spec
        )
        flat[draw(st.integers(0, flat.size - 1))] = draw(
            st.sampled_from([*infinities, *nans(spec)])
        )
    return x


def _float(pattern: int, dtype: np.dtype[Any]) -> Any:
    return floats(np.array([pattern], np.uint64), dtype)[0]
