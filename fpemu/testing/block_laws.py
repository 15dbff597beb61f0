"""The laws of block formats, as functions anyone can run on a quantizer.

    from fpemu.testing import BlockBackend, block_laws, check_blocks

    check_blocks(BlockBackend("numpy"), "mxfp4")               # every law that applies
    check_blocks(mine, "nvfp4", rounding="nearest_even")
    block_laws.blocks_are_monotone(mine, "mxfp8_e4m3", x)      # one law on inputs of your own

A law returns None or raises `LawViolation`, an AssertionError with a counterexample.
`BLOCK_LAWS` lists the laws by name. Inputs of your own are finite matrices; blocks run along
their last axis. Where rounding twice is claimed to change nothing, and why elsewhere not, stands
in `fpemu.testing._block_idempotence`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fpemu.blocks import BlockFormat
from fpemu.keys import Key, as_key
from fpemu.rounding import Rounding, Stochastic, Variant
from fpemu.testing._block_draw_laws import (
    stochastic_blocks_are_unbiased as stochastic_blocks_are_unbiased,
)
from fpemu.testing._block_edge_laws import (
    blocks_do_not_see_each_other as blocks_do_not_see_each_other,
)
from fpemu.testing._block_edge_laws import (
    spoiled_blocks_spoil_no_other as spoiled_blocks_spoil_no_other,
)
from fpemu.testing._block_edge_laws import (
    tiny_blocks_agree_with_the_reference as tiny_blocks_agree_with_the_reference,
)
from fpemu.testing._block_edge_laws import zero_blocks_stay_zero as zero_blocks_stay_zero
from fpemu.testing._block_idempotence import is_idempotent as is_idempotent
from fpemu.testing._block_place_laws import axes_do_not_matter as axes_do_not_matter
from fpemu.testing._block_place_laws import batches_of_blocks_agree as batches_of_blocks_agree
from fpemu.testing._block_place_laws import blocks_are_left_alone as blocks_are_left_alone
from fpemu.testing._block_place_laws import (
    blocks_ignore_memory_layout as blocks_ignore_memory_layout,
)
from fpemu.testing._block_place_laws import chunks_of_blocks_agree as chunks_of_blocks_agree
from fpemu.testing._block_place_laws import (
    ragged_blocks_are_padded_with_zeros as ragged_blocks_are_padded_with_zeros,
)
from fpemu.testing._block_place_laws import runs_are_tiles as runs_are_tiles
from fpemu.testing._block_place_laws import shards_of_blocks_agree as shards_of_blocks_agree
from fpemu.testing._block_place_laws import small_arrays_are_taken as small_arrays_are_taken
from fpemu.testing._block_place_laws import tiles_transpose as tiles_transpose
from fpemu.testing._block_points import block_points
from fpemu.testing._block_quantizers import BlockCodec, BlockQuantizer, Mode
from fpemu.testing._block_store_laws import (
    edge_blocks_have_their_codes as edge_blocks_have_their_codes,
)
from fpemu.testing._block_store_laws import packed_and_unpacked_agree as packed_and_unpacked_agree
from fpemu.testing._block_store_laws import scales_do_not_draw as scales_do_not_draw
from fpemu.testing._block_store_laws import (
    stored_elements_follow_from_their_scales as stored_elements_follow_from_their_scales,
)
from fpemu.testing._block_store_laws import (
    stored_scales_are_those_of_the_reference as stored_scales_are_those_of_the_reference,
)
from fpemu.testing._block_store_laws import storing_keeps_the_values as storing_keeps_the_values
from fpemu.testing._block_trial import BLOCK_LAWS, KEY, BlockLaw, as_block_format, as_mode
from fpemu.testing._block_value_laws import (
    blocks_agree_with_the_reference as blocks_agree_with_the_reference,
)
from fpemu.testing._block_value_laws import blocks_are_idempotent as blocks_are_idempotent
from fpemu.testing._block_value_laws import blocks_are_monotone as blocks_are_monotone
from fpemu.testing._block_value_laws import blocks_are_odd as blocks_are_odd
from fpemu.testing._block_value_laws import (
    blocks_share_a_scale_of_the_format as blocks_share_a_scale_of_the_format,
)
from fpemu.testing._block_value_laws import (
    directed_modes_mirror_blocks as directed_modes_mirror_blocks,
)
from fpemu.testing._block_value_laws import (
    elements_do_not_exceed_the_largest as elements_do_not_exceed_the_largest,
)
from fpemu.testing._block_value_laws import (
    maxima_beside_powers_of_two as maxima_beside_powers_of_two,
)
from fpemu.testing._block_value_laws import powers_of_two_commute as powers_of_two_commute
from fpemu.testing._block_value_laws import (
    searched_scales_are_no_worse as searched_scales_are_no_worse,
)
from fpemu.testing._patterns import Floats, float_dtype
from fpemu.testing._reports import LawViolation

BLOCK_ROUNDINGS: tuple[Mode, ...] = (
    *Rounding,
    Stochastic(32),
    Stochastic(8),
    Stochastic(4, Variant.B),
    Stochastic(11, Variant.C),
    Stochastic(variant=Variant.EQUAL),
)


def check_blocks(
    quantizer: BlockQuantizer,
    fmt: BlockFormat | str,
    *,
    rounding: Mode | str | Iterable[Mode | str] = BLOCK_ROUNDINGS,
    dtype: DTypeLike = np.float32,
    x: Floats | None = None,
    key: Key | int = KEY,
    skip: Collection[str] = (),
) -> tuple[str, ...]:
    """Run every law that applies, and return the names of those that did.

    `rounding` is one choice or several. `dtype` is the floating dtype tried; `x`, a finite
    matrix, replaces the inputs of `block_points`. `skip` names laws to leave out. Laws on stored
    forms run where the quantizer is a `BlockCodec`, laws on draws for stochastic roundings.

    Errors: `LawViolation` (an AssertionError) at the first law that does not hold; ValueError
    for a name in `skip` that is no law.
    """
    ran: set[str] = set()
    for law, run in _runs(quantizer, fmt, rounding, dtype, x, key, skip):
        run()
        ran.add(law.name)
    return tuple(name for name in BLOCK_LAWS if name in ran)


def block_violations(
    quantizer: BlockQuantizer,
    fmt: BlockFormat | str,
    *,
    rounding: Mode | str | Iterable[Mode | str] = BLOCK_ROUNDINGS,
    dtype: DTypeLike = np.float32,
    x: Floats | None = None,
    key: Key | int = KEY,
    skip: Collection[str] = (),
) -> dict[str, str]:
    """As `check_blocks`, but goes on: every law that does not hold, with a counterexample."""
    found: dict[str, str] = {}
    for law, run in _runs(quantizer, fmt, rounding, dtype, x, key, skip):
        if law.name not in found:
            try:
                run()
            except LawViolation as violation:
                found[law.name] = str(violation)
    return found


def _runs(
    quantizer: BlockQuantizer,
    fmt: BlockFormat | str,
    rounding: Any,
    dtype: DTypeLike,
    x: Floats | None,
    key: Key | int,
    skip: Collection[str],
) -> Iterator[tuple[BlockLaw, Callable[[], None]]]:
    """Every law that applies, bound to its arguments."""
    if unknown := sorted(set(skip) - set(BLOCK_LAWS)):
        known = ", ".join(BLOCK_LAWS)
        raise ValueError(f"skip names no law: {', '.join(unknown)}; laws: {known}")
    target = as_block_format(fmt)
    inputs = block_points(target, float_dtype(dtype)) if x is None else (x,)
    several = not isinstance(rounding, str) and isinstance(rounding, Iterable)
    for mode in [as_mode(one) for one in (rounding if several else (rounding,))]:
        for law in BLOCK_LAWS.values():
            if law.name in skip or not law.applies(target, mode):
                continue
            if law.needs_codes and not isinstance(quantizer, BlockCodec):
                continue
            for array in law.inputs(inputs):
                yield (
                    law,
                    partial(law.function, quantizer, target, array, rounding=mode, key=as_key(key)),
                )


__all__ = [
    *BLOCK_LAWS,
    "BLOCK_LAWS",
    "BLOCK_ROUNDINGS",
    "KEY",
    "BlockLaw",
    "LawViolation",
    "block_violations",
    "check_blocks",
    "is_idempotent",
]
