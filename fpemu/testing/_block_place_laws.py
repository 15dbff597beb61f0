"""Laws on where blocks lie: axes, tiles, chunks, shards, batches and memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from fpemu.blocks import CHANNEL, BlockFormat
from fpemu.keys import Key
from fpemu.testing._block_quantizers import Mode
from fpemu.testing._block_trial import (
    BlockTrial,
    always,
    block_law,
    deterministic,
    independent,
)
from fpemu.testing._patterns import Floats, bits, floats


def _along_an_axis(fmt: BlockFormat, rounding: Mode) -> bool:
    return deterministic(fmt, rounding) and (isinstance(fmt.block, int) or fmt.block == CHANNEL)


def _runs(fmt: BlockFormat, rounding: Mode) -> bool:
    return isinstance(fmt.block, int)


def _tiles(fmt: BlockFormat, rounding: Mode) -> bool:
    tile = isinstance(fmt.block, tuple)
    return tile and deterministic(fmt, rounding) and independent(fmt, rounding)


def _cut(fmt: BlockFormat, rounding: Mode) -> bool:
    return isinstance(fmt.block, int | tuple) and independent(fmt, rounding)


def _batched(fmt: BlockFormat, rounding: Mode) -> bool:
    return isinstance(fmt.block, int | tuple)


def _padded(fmt: BlockFormat, rounding: Mode) -> bool:
    return isinstance(fmt.block, int) and not fmt.rule.needs_all_elements


def _tile(fmt: BlockFormat) -> tuple[int, int]:
    if isinstance(fmt.block, int):
        return 1, fmt.block
    assert isinstance(fmt.block, tuple)
    return fmt.block


def _at(key: Key, local: int) -> Key:
    return replace(key, offset=key.index(local))


def _rows(key: Key, first: int, length: int, stride: int) -> Key:
    """The key of a shard: columns from `first` on of a matrix with `stride` columns."""
    return Key(key.seed, key.stream, key.index(first), row_length=length, row_stride=stride)


# ---------------------------------------------------------------------------- axes


@block_law(_along_an_axis)
def axes_do_not_matter(trial: BlockTrial) -> None:
    """Blocks along an axis are those along the last one of the array with its axes moved."""
    x = trial.x
    expected = trial.quantize(x)
    columns = np.ascontiguousarray(x.T)
    for axis in (0, -2):
        trial.same(columns, trial.quantize(columns, axis=axis), expected.T, f" (axis {axis})")
    if trial.fmt.block == CHANNEL:
        return
    rows = len(x) // 2 * 2
    deep = x[:rows].reshape(2, rows // 2, x.shape[1])
    deep_expected = expected[:rows].reshape(deep.shape)
    if trial.fmt.outer is not None:
        deep_expected = trial.quantize(np.ascontiguousarray(x[:rows])).reshape(deep.shape)
    for axis in (0, 1):
        moved = np.ascontiguousarray(np.moveaxis(deep, -1, axis))
        got = trial.quantize(moved, axis=axis)
        trial.same(moved, got, np.moveaxis(deep_expected, -1, axis), f" (axis {axis} of three)")


@block_law(_runs)
def runs_are_tiles(trial: BlockTrial) -> None:
    """Blocks of n along the last axis are tiles of 1xn, and along the one before it of nx1."""
    x, n = trial.x, trial.fmt.block
    assert isinstance(n, int)
    tiles = replace(trial.fmt, block=(1, n))
    trial.same(x, trial.quantize(x, fmt=tiles), trial.quantize(x), f" (tiles of 1x{n})")
    if independent(trial.fmt, trial.rounding):
        columns = np.ascontiguousarray(x.T)
        got = trial.quantize(columns, fmt=replace(trial.fmt, block=(n, 1)))
        trial.same(columns, got, trial.quantize(columns, axis=0), f" (tiles of {n}x1)")


@block_law(_tiles)
def tiles_transpose(trial: BlockTrial) -> None:
    """Square tiles commute with transposition; others do so with their sides exchanged."""
    assert isinstance(trial.fmt.block, tuple)
    turned = replace(trial.fmt, block=trial.fmt.block[::-1])
    columns = np.ascontiguousarray(trial.x.T)
    got = trial.quantize(columns, fmt=turned)
    trial.same(columns, got, trial.quantize(trial.x).T, " (transposed)")


# -------------------------------------------------------------------------- pieces


@block_law(_cut)
def chunks_of_blocks_agree(trial: BlockTrial) -> None:
    """Whole rows of blocks, with their offset and the largest magnitude passed in."""
    x, height = trial.x, _tile(trial.fmt)[0]
    amax, columns = trial.amax(x), x.shape[1]
    whole = trial.quantize(x, amax=amax)
    edges = [0, height, *range(3 * height, len(x), 4 * height), len(x)]
    for first, last in pairwise(edges):
        if first < last <= len(x):
            got = trial.quantize(x[first:last], key=_at(trial.key, first * columns), amax=amax)
            trial.same(x[first:last], got, whole[first:last], f" (rows {first}..{last - 1})")


@block_law(_cut)
def shards_of_blocks_agree(trial: BlockTrial) -> None:
    """Whole columns of blocks, with rows in the key and the largest magnitude passed in.

    Blocks that run down the columns are cut at any column: draws are by the index in the array
    as it is given, not as it is walked.
    """
    _check_shards(trial, trial.x, -1, _tile(trial.fmt)[1])
    if isinstance(trial.fmt.block, int):
        _check_shards(trial, np.ascontiguousarray(trial.x.T), 0, 1)


def _check_shards(trial: BlockTrial, x: Floats, axis: int, width: int) -> None:
    amax, columns = trial.amax(x, axis), x.shape[1]
    # The key says at which column rows start, so the whole starts at column 0.
    origin = replace(trial.key, offset=trial.key.offset % (1 << 62) // columns * columns)
    whole = trial.quantize(x, key=origin, axis=axis, amax=amax)
    step = width * max(1, -(-columns // width) // 3)
    edges = [*range(0, columns, step), columns]
    for first, last in pairwise(edges):
        shard = x[:, first:last]
        key = _rows(origin, first, last - first, columns)
        got = trial.quantize(shard, key=key, axis=axis, amax=amax)
        trial.same(shard, got, whole[:, first:last], f" (columns {first}..{last - 1})")


@block_law(_batched)
def batches_of_blocks_agree(trial: BlockTrial) -> None:
    """A stack of matrices is quantized as each of them, with its offset; a vector as one row."""
    x = trial.x
    stack = np.stack([x, x[::-1] * x.dtype.type(0.5), np.roll(x, 3)])
    amax = trial.amax(stack)
    got = trial.quantize(stack, amax=amax)
    again = trial.quantize(stack[None], amax=amax)[0]
    trial.same(stack, again, got, " (with one more axis)")
    for number, matrix in enumerate(stack):
        alone = trial.quantize(matrix, key=_at(trial.key, number * x.size), amax=amax)
        trial.same(matrix, got[number], alone, f" (matrix {number} of three)")
    trial.same(x[0], trial.quantize(x[0]), trial.quantize(x[:1])[0], " (a vector)")


@block_law(_padded)
def ragged_blocks_are_padded_with_zeros(trial: BlockTrial) -> None:
    """The last block of a row may be short: it is as if zeros followed."""
    x, n = trial.x, trial.fmt.block
    assert isinstance(n, int)
    rows, columns = x.shape
    full = -(-columns // n) * n
    padded = np.zeros((rows, full), x.dtype)
    padded[:, :columns] = x
    origin = replace(trial.key, offset=0, row_length=None, row_stride=None)
    key = origin if full == columns else _rows(origin, 0, full, columns)
    got = trial.quantize(padded, key=key)[:, :columns]
    trial.same(x, trial.quantize(x, key=origin), got, " (the padded array has this)")


# -------------------------------------------------------------------------- memory


@block_law(always)
def blocks_ignore_memory_layout(trial: BlockTrial) -> None:
    """Strided, reversed, transposed, Fortran-ordered, unaligned and read-only views."""
    x = trial.x
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    views = {
        "strided": np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
        "Fortran-ordered": np.asfortranarray(x),
        "read-only": frozen,
        "unaligned": shifted,
        "reversed": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    }
    expected = trial.quantize(x)
    for name, view in views.items():
        trial.same(x, trial.quantize(view), expected, f" (the input {name})")


@block_law(always)
def blocks_are_left_alone(trial: BlockTrial) -> None:
    """The input keeps its bits, the result is new memory, and a second call gives it again."""
    x = trial.x.copy()
    before = bits(x).copy()
    got = trial.quantize(x)
    trial.same(x, x, floats(before, x.dtype), " (the input itself, after the call)")
    if np.shares_memory(x, got):
        trial.fail("the result shares memory with the input")
    trial.same(x, trial.quantize(x), got, " (the second call)")


@block_law(always, once=True)
def small_arrays_are_taken(trial: BlockTrial) -> None:
    """Empty arrays stay empty, and a scalar is a vector of one element."""
    for shape in ((0,), (3, 0), (0, 4), (2, 0, 3)):
        trial.quantize(np.empty(shape, trial.x.dtype))
    if trial.fmt.block != CHANNEL:
        one = trial.x[0, :1]
        trial.same(one, trial.quantize(one[0].reshape(())).reshape(1), trial.quantize(one))
