"""Which block an element lies in, said a second time: by an index of every element."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.blocks import CHANNEL, TENSOR, BlockFormat
from fpemu.testing._patterns import Floats, widen

Numbers = NDArray[np.intp]


def grid_of(shape: tuple[int, ...], fmt: BlockFormat, axis: int = -1) -> tuple[int, ...]:
    """The shape of the scales of an array of `shape`; see `fpemu.quantized.Quantized`."""
    full, block = shape or (1,), fmt.block
    if block == TENSOR:
        return ()
    if block == CHANNEL:
        return (full[axis],)
    if isinstance(block, int):
        at = axis % len(full)
        return tuple(-(-n // block) if i == at else n for i, n in enumerate(full))
    assert isinstance(block, tuple)
    *batch, rows, columns = (1, *full) if len(full) == 1 else full
    last = (-(-columns // block[1]),)
    return last if len(full) == 1 else (*batch, -(-rows // block[0]), *last)


def block_numbers(shape: tuple[int, ...], fmt: BlockFormat, axis: int = -1) -> Numbers:
    """The number of each element's block, counted in C order of the scales; of `shape`."""
    full, block = shape or (1,), fmt.block
    index = list(np.indices(full))
    if block == TENSOR:
        return np.zeros(shape, np.intp)
    if block == CHANNEL:
        return np.asarray(index[axis]).reshape(shape)
    if isinstance(block, int):
        index[axis] //= block
    else:
        assert isinstance(block, tuple)
        index[-1] //= block[1]
        if len(full) > 1:
            index[-2] //= block[0]
    if not prod(full):
        return np.zeros(shape, np.intp)
    found = np.ravel_multi_index(index, grid_of(full, fmt, axis))
    return np.asarray(found).reshape(shape)


def block_count(shape: tuple[int, ...], fmt: BlockFormat, axis: int = -1) -> int:
    """Blocks in an array of `shape`."""
    return prod(grid_of(shape, fmt, axis))


def largest(x: Floats, fmt: BlockFormat, axis: int = -1) -> NDArray[np.float64]:
    """max|x| of every block, NaN for one with NaN, in C order of the scales."""
    found = np.zeros(block_count(x.shape, fmt, axis))
    numbers = block_numbers(x.shape, fmt, axis).reshape(-1)
    with np.errstate(invalid="ignore"):
        np.maximum.at(found, numbers, np.abs(widen(x)).reshape(-1))
    return found


def largest_of_all(x: Floats, fmt: BlockFormat, axis: int = -1) -> float:
    """The largest magnitude of all blocks without NaN and infinities."""
    found = largest(x, fmt, axis)
    return float(found[np.isfinite(found)].max(initial=0))


def per_element(values: NDArray[Any], numbers: Numbers) -> NDArray[Any]:
    """One value per block, repeated for its elements."""
    return values.reshape(-1)[numbers]
