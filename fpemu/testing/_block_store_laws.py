"""Laws on the stored form: codes, scales, bytes, and what they are read back as."""

from __future__ import annotations

import numpy as np

from fpemu.block_reference import outer_scale
from fpemu.blocks import TENSOR, BlockFormat
from fpemu.formats import Format
from fpemu.packing import pack, packed_size, unpack
from fpemu.rounding import Rounding
from fpemu.testing._block_geometry import block_count, grid_of, largest_of_all
from fpemu.testing._block_quantizers import (
    Mode,
    Stored,
    compute_format,
    decoded_scales,
    scales_by_definition,
    values_by_definition,
)
from fpemu.testing._block_trial import BlockTrial, always, block_law, defined, stochastic
from fpemu.testing._patterns import Floats
from fpemu.values import Special, Value, as_value


def _scaled(fmt: BlockFormat, rounding: Mode) -> bool:
    return fmt.scale is not None and defined(fmt, rounding)


def _draws_beside_scales(fmt: BlockFormat, rounding: Mode) -> bool:
    return fmt.scale is not None and stochastic(fmt, rounding)


def _marked(fmt: BlockFormat, rounding: Mode) -> bool:
    return fmt.nan_scale and fmt.block != TENSOR


@block_law(always, needs_codes=True)
def storing_keeps_the_values(trial: BlockTrial) -> None:
    """What is stored is read back as `quantize` gives it, bit for bit, along any axis."""
    x = trial.x
    trial.same(x, trial.store(x).values, trial.quantize(x), " (from quantize)")
    if isinstance(trial.fmt.block, int) or trial.fmt.block == "channel":
        columns = np.ascontiguousarray(x.T)
        stored = trial.store(columns, axis=0)
        trial.same(columns, stored.values, trial.quantize(columns, axis=0), " (along axis 0)")


@block_law(always, needs_codes=True)
def packed_and_unpacked_agree(trial: BlockTrial) -> None:
    """The bytes are the codes in their width, one after the other, and nothing else."""
    stored, width = trial.store(trial.x), trial.fmt.element.bits
    if stored.packed.shape != (packed_size(trial.x.size, width),):
        trial.fail(f"{trial.x.size} codes of {width} bits take {stored.packed.shape} bytes")
    codes = unpack(stored.packed, width, trial.x.size).reshape(trial.x.shape)
    trial.same_codes(trial.x, stored.codes, codes, " in the packed bytes")
    if (pack(stored.codes, width) != stored.packed).any():
        trial.fail("packing the codes again gives other bytes")


@block_law(_scaled, needs_codes=True)
def stored_scales_are_those_of_the_reference(trial: BlockTrial) -> None:
    """The scale codes, their shape, and the outer scale."""
    assert trial.fmt.scale is not None
    stored = trial.store(trial.x)
    expected = scales_by_definition(trial.x, trial.fmt)
    _same_scales(trial, stored, expected.each)
    if as_value(stored.outer) != expected.outer if stored.outer is not None else expected.outer:
        trial.fail(f"outer scale {stored.outer!r}, expected {expected.outer!r}")


def _same_scales(trial: BlockTrial, stored: Stored, expected: tuple[Value, ...]) -> None:
    assert trial.fmt.scale is not None
    grid = grid_of(trial.x.shape, trial.fmt)
    if stored.scales is None or stored.scales.shape != grid:
        shape = None if stored.scales is None else stored.scales.shape
        trial.fail(f"scales of x{trial.x.shape} came in the shape {shape}, expected {grid}")
    codes = [trial.fmt.scale.encode(value) for value in expected]
    for number, (code, wanted) in enumerate(zip(stored.scales.reshape(-1), codes, strict=True)):
        if int(code) != wanted:
            at = tuple(int(i[0]) for i in np.nonzero(trial.numbers(trial.x) == number))
            trial.fail(
                f"{trial.describe(trial.x, at)} is in a block of scale code {int(code):#x}, "
                f"expected {wanted:#x}"
            )


@block_law(always, needs_codes=True)
def stored_elements_follow_from_their_scales(trial: BlockTrial) -> None:
    """Under the stored scales, whatever rule gave them, values are those of the reference.

    And every scale code is one of the scale format, the outer scale the one of the largest
    magnitude.
    """
    x, fmt = trial.x, trial.fmt
    stored = trial.store(x)
    try:
        scales = decoded_scales(stored, fmt, block_count(x.shape, fmt))
    except ValueError as error:
        trial.fail(f"a scale code is none of {fmt.scale}: {error}")
    if fmt.outer is not None:
        amax = as_value(largest_of_all(x, fmt))
        assert not isinstance(amax, Special)
        if scales.outer != outer_scale(fmt, amax, compute_format(x)):
            trial.fail(f"outer scale {stored.outer!r} is not that of the largest magnitude {amax}")
    expected = values_by_definition(x, fmt, trial.rounding, trial.key, -1, None, scales)
    trial.same(x, stored.values, expected, " (under the stored scales)")


@block_law(_draws_beside_scales, needs_codes=True)
def scales_do_not_draw(trial: BlockTrial) -> None:
    """The scales are those of rounding to nearest, whatever the elements draw."""
    drawn, nearest = trial.store(trial.x), trial.store(trial.x, rounding=Rounding.NEAREST_EVEN)
    if not np.array_equal(drawn.scales, nearest.scales) or drawn.outer != nearest.outer:  # type: ignore[arg-type]
        trial.fail(f"scales {drawn.scales}, with rounding to nearest {nearest.scales}")


@block_law(_marked, needs_codes=True)
def edge_blocks_have_their_codes(trial: BlockTrial) -> None:
    """A zero block has scale code 0; one with NaN the NaN code and element codes 0."""
    assert trial.fmt.scale is not None
    numbers = trial.numbers(trial.x)
    last = int(numbers.max())
    x: Floats = trial.x.copy()
    x[numbers == 0] = 0
    if last:
        x.reshape(-1)[np.flatnonzero(numbers.reshape(-1) == last)[-1]] = np.nan
    stored = trial.store(x)
    assert stored.scales is not None
    scales = stored.scales.reshape(-1)
    if scales[0] != 0:
        trial.fail(f"a block of zeros has scale code {int(scales[0]):#x}, expected 0")
    element = trial.fmt.element
    if isinstance(element, Format) and stored.codes[numbers == 0].any():
        trial.fail("a block of zeros has element codes that are not 0")
    if last:
        nan = trial.fmt.scale.encode(Special.NAN)
        if int(scales[last]) != nan:
            trial.fail(f"a block with NaN has scale code {int(scales[last]):#x}, expected {nan:#x}")
        if stored.codes[numbers == last].any():
            trial.fail("a block with NaN has element codes that are not 0")
