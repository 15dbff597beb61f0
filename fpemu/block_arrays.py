"""Block formats on arrays: geometry, scales, and the walk over pieces.

The definition is `fpemu.block_reference`; this module cuts arrays into blocks, finds the scales
that need more than one block, and hands rectangles of whole blocks to a backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu import arguments, dtypes
from fpemu.backends import Backend, get
from fpemu.backends._blocks import BlockOperations
from fpemu.block_lowering import ScaleMode, Scaling, lower_elements, lower_scaling
from fpemu.blocks import CHANNEL, TENSOR, BlockFormat
from fpemu.choices import as_int
from fpemu.flushing import refuse_flushing
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.lowering import FLOAT32, FLOAT64, Container, Params, lower
from fpemu.packing import pack, packed_size, unpack
from fpemu.policy import Overflow, Policy
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, Stochastic, parse_rounding
from fpemu.scale_search import Search
from fpemu.scales import ScaleMethod
from fpemu.table_blocks import TableRounder
from fpemu.tiles import Piece, grid_shape, pieces

_PIECE = 1 << 17  # elements converted to the computing dtype together
_RUN = 1 << 15  # a tile's width where one scale serves whole rows


class Layout(NamedTuple):
    """An array as (batch, rows, columns), its tile, and the shape of its scales."""

    shape: tuple[int, int, int]
    tile: tuple[int, int]
    grid: tuple[int, ...]
    shared: bool = False  # one scale a row, for all batches: blocks are not tiles
    along: int = -1  # the axis of `grid3` that follows blocks

    @property
    def grid3(self) -> tuple[int, int, int]:
        batch, rows, columns = self.shape
        return batch, -(-rows // self.tile[0]), -(-columns // self.tile[1])

    @property
    def held(self) -> tuple[int, int]:
        """What the array can hold of a tile: the same blocks, and no room for more."""
        _, rows, columns = self.shape
        return max(min(self.tile[0], rows), 1), max(min(self.tile[1], columns), 1)


def layout(shape: tuple[int, ...], fmt: BlockFormat, axis: int = -1) -> Layout:
    """How `fmt` cuts an array of `shape`.

    Errors: TypeError for an axis that is no int; ValueError for one that is not there, and for
    another axis than the last with tiles or one scale per tensor.
    """
    full, axis = shape or (1,), as_int("axis", axis)
    if not -len(full) <= axis < len(full):
        raise ValueError(
            f"axis must be in {-len(full)}..{len(full) - 1} for shape {shape}, got {axis}"
        )
    at = axis % len(full)
    before, along, after = prod(full[:at]), full[at], prod(full[at + 1 :])
    block = fmt.block
    if block == CHANNEL:
        if len(shape) < 1:
            raise ValueError("x must have an axis for one scale per channel, got a scalar")
        return Layout((before, along, after), (1, max(min(after, _RUN), 1)), (along,), True)
    if isinstance(block, int):
        if at == len(full) - 1:
            return Layout((1, before, along), (1, block), (*full[:at], -(-along // block)))
        grid = (*full[:at], -(-along // block), *full[at + 1 :])
        return Layout((before, along, after), (block, 1), grid, along=1)
    if at != len(full) - 1:
        raise ValueError(f"axis must be -1 with blocks of {fmt.block}, got {axis}")
    if block == TENSOR:
        size = prod(shape)
        return Layout((1, 1, size), (1, max(min(size, _RUN), 1)), (), True)
    assert isinstance(block, tuple)
    rows, columns = (1, *full)[-2:]
    return Layout((prod(full[:-2]), rows, columns), block, grid_shape(shape, block))


@dataclass(frozen=True)
class Job:
    """One call: the data, and everything decided about it."""

    x: NDArray[Any]  # (batch, rows, columns)
    fmt: BlockFormat
    layout: Layout
    compute: Container
    key: Key | None
    engine: BlockOperations | Backend
    backend: Backend
    params: Any  # Params; None for table elements
    scaling: Scaling
    scales: NDArray[Any]  # (batch, rows of blocks, columns of blocks), of the computing dtype

    @property
    def outer(self) -> float | None:
        """The outer scale, if there is one."""
        return self.scaling.outer if self.scaling.has_outer else None


def start(
    x: NDArray[Any],
    fmt: BlockFormat,
    rounding: Descriptor | str | None,
    key: Key | int | None,
    axis: int,
    amax: float | None,
    backend: str | None,
) -> Job:
    """Check the arguments, and find the scales that need a pass of their own.

    Errors: as `fpemu.quantize`; ValueError for an axis or shard that does not fit, NaN without a
    NaN scale, an `amax` that is not a finite number or is given without need; RuntimeError
    where this thread flushes subnormals.
    """
    mode = Rounding.NEAREST_EVEN if rounding is None else parse_rounding(rounding)
    if isinstance(mode, PseudoNoise):
        raise ValueError(f"rounding must round single values in {fmt}, got {str(mode)!r}")
    drawn = arguments.key_for(key, mode)
    engine = arguments.choose_backend(backend, x.size)
    refuse_flushing()
    cut = layout(x.shape, fmt, axis)
    _check_shard(drawn, cut, fmt)
    compute = FLOAT64 if dtypes.container_of(x.dtype) in (FLOAT64, None) else FLOAT32
    data = np.ascontiguousarray(x).reshape(cut.shape)
    scaling = lower_scaling(fmt, cut.held, compute)
    if amax is not None and fmt.outer is None:
        raise ValueError(f"amax must be None for {fmt}, which has no outer scale")
    found = None
    if fmt.outer is not None:
        if amax is None:
            found = _maxima(data, cut, compute, engine)
        largest = _largest(found) if found is not None else given_amax(amax, compute)
        scaling = scaling._replace(has_outer=1, outer=_outer(fmt, largest, compute, engine))
    params, elements = _elements(fmt, mode, compute, engine)
    scales = np.empty(cut.grid3, f"f{compute.bits // 8}") if found is None else found
    beforehand = cut.shared or scaling.mode == ScaleMode.GIVEN
    if found is not None and not beforehand:
        engine.block_scales(found, found, scaling)
        scaling = scaling._replace(mode=int(ScaleMode.GIVEN))
    job = Job(data, fmt, cut, compute, drawn, elements, engine, params, scaling, scales)
    if not beforehand:
        return job
    given = scaling._replace(mode=int(ScaleMode.GIVEN))
    return replace(job, scaling=given, scales=_scales_beforehand(job, found))


def round_into(job: Job, out: NDArray[Any]) -> None:
    """The values of the block format, into an array of the original shape.

    On an error `out` is unchanged.
    """
    unsure = not job.scaling.has_nan
    if unsure and job.scaling.mode == ScaleMode.GIVEN:
        check_scales(job)
        unsure = False
    direct_out = out.flags.c_contiguous and not unsure
    result = out if direct_out else np.empty(out.shape, out.dtype)
    places = result.reshape(job.layout.shape)
    direct, columns = out.dtype == job.scales.dtype == job.x.dtype, job.layout.shape[2]
    for piece, w, first in _walk(job, direct):
        values = places[piece.batch] if direct else np.empty_like(w)
        grid = job.scales[piece.blocks(job.layout.tile)]
        job.engine.round_blocks(w, values, grid, job.params, job.scaling, job.key, first, columns)
        if not direct:
            place = places[piece.batch, piece.rows, piece.columns]
            place[...] = narrow(values, out.dtype, backend=job.backend)
    check_scales(job)
    if result is not out:
        out[...] = result


def encode_into(job: Job, codes: NDArray[Any]) -> None:
    """The elements' codes, into a C-contiguous array of the original shape."""
    places, columns = codes.reshape(job.layout.shape), job.layout.shape[2]
    for piece, w, first in _walk(job, job.x.dtype == job.scales.dtype):
        place = places[piece.batch, piece.rows, piece.columns]
        grid = job.scales[piece.blocks(job.layout.tile)]
        job.engine.encode_blocks(w, place, grid, job.params, job.scaling, job.key, first, columns)
    check_scales(job)


def packed_codes(job: Job) -> NDArray[np.uint8]:
    """The codes of all elements as the stream that `fpemu.pack` makes of them."""
    bits, whole = job.fmt.element.bits, job.x.shape[0] == 1
    if whole and job.key is None and job.x.dtype == job.scales.dtype:
        stream = np.empty(packed_size(job.x.size, bits), np.uint8)
        encode = getattr(job.engine, "encode_packed", None)
        if encode and encode(job.x[0], stream, job.scales[0], job.params, job.scaling):
            check_scales(job)
            return stream
    codes = np.empty(job.layout.shape, code_dtype(job.fmt))
    encode_into(job, codes)
    return codes.reshape(-1) if bits == 8 else pack(codes, bits)


def scale_codes(job: Job) -> NDArray[Any] | None:
    """The codes of the scales in their own shape; None for a format without scales."""
    fmt, cut = job.fmt, job.layout
    if fmt.scale is None:
        return None
    if not job.scales.size:  # no elements; a scale per channel or tensor is there all the same
        return np.zeros(cut.grid, dtypes.code_dtype(fmt.scale))
    scales = np.ascontiguousarray(job.scales[0, :, 0] if cut.shared else job.scales).reshape(-1)
    codes = np.empty(scales.shape, dtypes.code_dtype(fmt.scale))
    job.backend.encode(dtypes.patterns(scales), codes, job.scaling.scale_params)
    return codes.reshape(cut.grid)


def dequantize_into(
    stream: NDArray[np.uint8],
    scales: NDArray[Any] | None,
    outer: float | None,
    fmt: BlockFormat,
    axis: int,
    out: NDArray[Any],
    backend: Backend,
) -> None:
    """The values of packed codes under scale codes, into a float array of the original shape."""
    refuse_flushing()
    compute = FLOAT64 if dtypes.container_of(out.dtype) is FLOAT64 else FLOAT32
    cut = layout(out.shape, fmt, axis)
    scaling = lower_scaling(fmt, cut.held, compute)._replace(mode=int(ScaleMode.GIVEN))
    if outer is not None:
        scaling = scaling._replace(has_outer=1, outer=outer)
    values = np.ones((1, 1, 1), f"f{compute.bits // 8}")
    if scales is not None:
        values = np.empty(scales.shape, values.dtype)
        flat = np.ascontiguousarray(scales).reshape(-1)
        backend.decode(flat, dtypes.patterns(values).reshape(-1), scaling.scale_params)
        values = values.reshape((1, -1, 1) if cut.shared else cut.grid3)
    factors = np.broadcast_to(values, cut.grid3)
    params, engine = _elements(fmt, Rounding.NEAREST_EVEN, compute, backend)
    result = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    places, direct = result.reshape(cut.shape), out.dtype == values.dtype
    decode = getattr(engine, "decode_packed", None) if direct and cut.shape[0] == 1 else None
    if decode and decode(stream, places[0], factors[0], params, scaling):
        if result is not out:
            out[...] = result
        return
    bits = fmt.element.bits
    codes = stream if bits == 8 else unpack(stream, bits, out.size)
    elements = codes.reshape(cut.shape)
    for piece in _pieces(cut, direct):
        where = (piece.batch, piece.rows, piece.columns)
        place = places[where] if direct else np.empty(elements[where].shape, values.dtype)
        grid = factors[piece.blocks(cut.tile)]
        engine.decode_blocks(elements[where], place, grid, params, scaling)
        if not direct:
            places[where] = narrow(place, out.dtype, backend=backend)
    if result is not out:
        out[...] = result


def _elements(
    fmt: BlockFormat, rounding: Rounding | Stochastic, compute: Container, backend: Backend
) -> tuple[Any, BlockOperations | Backend]:
    """(Params, what rounds the elements): the backend, or a table around it, without Params."""
    if isinstance(fmt.element, Format):
        return lower_elements(fmt, rounding, compute), backend
    return None, TableRounder(backend, fmt.element, rounding)


def check_scales(job: Job) -> None:
    """Errors: ValueError naming the first block with NaN or an infinity, if no scale says so."""
    if job.scaling.has_nan:
        return
    bad = np.isnan(job.scales)
    if bad.any():
        at = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise ValueError(
            f"x must not hold NaN or infinities: {job.fmt.scale or job.fmt} has no NaN to say so "
            f"(first in block {at} of batch, row of blocks, column of blocks)"
        )


def code_dtype(fmt: BlockFormat) -> np.dtype[Any]:
    """The smallest unsigned dtype that holds the element codes."""
    return next(np.dtype(f"u{n}") for n in (1, 2, 4) if fmt.element.bits <= 8 * n)


def narrow(
    values: NDArray[Any],
    dtype: np.dtype[Any],
    overflow: Overflow = Overflow.SAT_FINITE,
    backend: Backend | None = None,
) -> NDArray[Any]:
    """Rounded once to `dtype`, nearest even; finite values stay finite unless `overflow` is so."""
    container = dtypes.container_of(dtype)
    compute = FLOAT64 if values.dtype == np.float64 else FLOAT32
    assert container is not None
    if not compute.holds(container.format):  # a wider dtype holds what is there
        return values.astype(dtype)
    params = lower(container.format, Rounding.NEAREST_EVEN, Policy(overflow), compute)
    patterns = dtypes.patterns(np.ascontiguousarray(values)).reshape(-1)
    rounded = np.empty_like(patterns)
    (backend or get("numpy")).round(patterns, rounded, params)
    out = np.empty(values.shape, dtype)
    dtypes.narrow(rounded.reshape(values.shape), compute, out)
    return out


# ------------------------------------------------------------------- walking


def _walk(job: Job, direct: bool) -> Iterator[tuple[Piece, NDArray[Any], int]]:
    """(piece, its elements in the computing dtype, local index of the first one)."""
    _, rows, columns = job.layout.shape
    for piece in _pieces(job.layout, direct):
        w = job.x[piece.batch, piece.rows, piece.columns]
        first = (piece.batch * rows + piece.rows.start) * columns + piece.columns.start
        yield piece, w if direct else _floats(w, job.compute), first


def _pieces(cut: Layout, direct: bool) -> Iterator[Piece]:
    """A whole matrix at a time where nothing has to be converted."""
    batch, rows, columns = cut.shape
    if not direct:
        yield from pieces(cut.shape, cut.tile, _PIECE)
    elif rows and columns:
        for at in range(batch):
            yield Piece(at, slice(0, rows), slice(0, columns))


def _floats(w: NDArray[Any], compute: Container) -> NDArray[Any]:
    wide = dtypes.widen(np.ascontiguousarray(w), compute)
    return wide.view(f"f{compute.bits // 8}")


def _check_shard(key: Key | None, cut: Layout, fmt: BlockFormat) -> None:
    """Errors: ValueError where the rows of a key say that the shard cuts a block."""
    if key is None or key.row_length is None or not isinstance(fmt.block, int | tuple):
        return
    if not key.row_stride:  # rows that repeat are not shards of longer ones
        return
    width, first = cut.tile[1], key.offset % key.row_stride
    ends = key.row_length % width == 0 or first + key.row_length == key.row_stride
    # Longer rows hold whole rows of the array: what is cut is another axis than the last.
    several = key.row_length > cut.shape[2] and key.row_length % max(cut.shape[2], 1) == 0
    if key.row_length != key.row_stride and not several and (first % width or not ends):
        raise ValueError(
            f"key must not cut blocks of {width} columns: its rows of {key.row_length} start at "
            f"column {first}"
        )


# -------------------------------------------------------------------- scales


def given_amax(amax: float | None, compute: Container) -> float:
    """Errors: TypeError for no number, ValueError for one that is negative or not finite in the
    computing dtype."""
    try:
        if isinstance(amax, str | bytes | bool):
            raise TypeError
        value = float(amax)  # type: ignore[arg-type]  # None is a TypeError
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"amax must be a number, got {type(amax).__name__} {amax!r}") from None
    if not (0 <= value < np.inf):
        raise ValueError(f"amax must be finite and at least 0, got {value}")
    if value > float(compute.format.max_value):
        raise ValueError(f"amax must be finite in {compute.name}, got {value}")
    return value


def _maxima(data: NDArray[Any], cut: Layout, compute: Container, engine: Backend) -> NDArray[Any]:
    """The largest magnitude of every block, of every row where blocks are not tiles; or NaN."""
    dtype = np.dtype(f"f{compute.bits // 8}")
    if cut.shared:
        rows = np.zeros(cut.shape[1], dtype)
        for piece in pieces(cut.shape, cut.tile, _PIECE):
            w = _floats(data[piece.batch, piece.rows, piece.columns], compute)
            if w.size:
                rows[piece.rows] = np.maximum(rows[piece.rows], np.abs(w).max(axis=1))
        return rows
    found, direct = np.empty(cut.grid3, dtype), data.dtype == dtype
    for piece in _pieces(cut, direct):
        w = data[piece.batch, piece.rows, piece.columns]
        place = found[piece.blocks(cut.tile)]
        engine.block_maxima(w if direct else _floats(w, compute), place, *cut.held)
    return found


def _largest(maxima: NDArray[Any]) -> float:
    """The largest magnitude of all blocks without NaN and infinities."""
    largest = float(maxima.max(initial=0))
    return largest if np.isfinite(largest) else float(maxima[np.isfinite(maxima)].max(initial=0))


def _outer(fmt: BlockFormat, largest: float, compute: Container, backend: Backend) -> float:
    divisor, params = _outer_record(fmt, compute)
    ratio = np.array([largest], divisor.dtype) / divisor
    patterns = dtypes.patterns(ratio)
    backend.round(patterns, patterns, params)
    return float(ratio[0])


@lru_cache(maxsize=256)
def _outer_record(fmt: BlockFormat, compute: Container) -> tuple[Any, Params]:
    """What the largest magnitude is divided by, and how the outer scale is rounded."""
    assert fmt.outer is not None
    assert fmt.scale is not None
    divisor = np.dtype(f"f{compute.bits // 8}").type(float(fmt.qmax * fmt.scale.max_value))
    policy = Policy(Overflow.SAT_FINITE)
    return divisor, lower(fmt.outer, Rounding.NEAREST_EVEN, policy, compute)


def _scales_beforehand(job: Job, amax: NDArray[Any] | None) -> NDArray[Any]:
    """All scales, for blocks that are not tiles and for rules that need all elements; `amax` are
    the blocks' maxima if they are known."""
    cut, fmt = job.layout, job.fmt
    if fmt.rule.needs_all_elements:
        found = _searched(job)
    else:
        if amax is None:
            amax = _maxima(job.x, cut, job.compute, job.backend)
        mode = job.scaling.mode or int(ScaleMode.ABSMAX)
        found = amax
        job.backend.block_scales(amax, found, job.scaling._replace(mode=mode))
        if fmt.scale is None:
            found = np.where(np.isnan(found), found, 1).astype(found.dtype)
        if fmt.rule.method is ScaleMethod.POW2_M2:
            along = -1 if cut.shared else cut.along
            found = _ratios_to_powers(found, along)
            rounded = dtypes.patterns(np.ascontiguousarray(found)).reshape(-1)
            job.backend.round(rounded, rounded, job.scaling.scale_params)
            found = rounded.view(found.dtype).reshape(found.shape)
    return np.broadcast_to(found[None, :, None] if cut.shared else found, cut.grid3)


def _searched(job: Job) -> NDArray[Any]:
    """The scales of a rule that looks at whole blocks."""
    cut, fmt = job.layout, job.fmt
    params, engine = _elements(fmt, Rounding.NEAREST_EVEN, job.compute, job.backend)
    search = Search(fmt, job.scaling, params, engine, job.backend)
    if cut.shared:
        batch, count, columns = cut.shape
        rows = _floats(np.moveaxis(job.x, 1, 0), job.compute).reshape(count, batch * columns)
        return search.find(rows, np.ones(rows.shape, np.bool_))
    found = np.empty(cut.grid3, job.scales.dtype)
    for piece, w, _ in _walk(job, False):
        place = found[piece.blocks(cut.tile)]
        rows, present = (blocks_as_rows(each, cut.tile) for each in (w, np.ones(w.shape, np.bool_)))
        place[...] = search.find(rows, present).reshape(place.shape)
    return found


def blocks_as_rows(w: NDArray[Any], tile: tuple[int, int]) -> NDArray[Any]:
    """The blocks of a 2-D piece as rows of a matrix, padded with zeros at the far edges."""
    height, width = tile
    rows, columns = (-(-n // size) for n, size in zip(w.shape, tile, strict=True))
    padded = np.zeros((rows * height, columns * width), w.dtype)
    padded[: w.shape[0], : w.shape[1]] = w
    return padded.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(rows * columns, -1)


def _ratios_to_powers(scales: NDArray[Any], axis: int) -> NDArray[Any]:
    """s_max / 2**ceil(log2(s_max / s)) along an axis; zero and NaN scales stay."""
    finite = np.where(np.isnan(scales), 0, scales)
    largest = finite.max(axis=axis, keepdims=True, initial=0)
    top, high = np.frexp(largest)
    significand, exponent = np.frexp(finite)
    # The quotient itself could overflow.
    powers = np.ldexp(largest, exponent - high - (top > significand))
    return np.where(finite > 0, powers, scales)
