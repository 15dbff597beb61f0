"""Block formats on the numba backend: kernels where they are right, passes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu.backends import Patterns
from fpemu.backends import _numba_block_plans as plans
from fpemu.backends import _numba_blocks as kernels
from fpemu.backends._blocks import BlockOperations, Floats, Part, bits, parts_of
from fpemu.backends._numba_block_plans import Plan
from fpemu.backends._numba_conditions import is_plain_nearest_even
from fpemu.backends._pool import share
from fpemu.block_lowering import ScaleMode, Scaling
from fpemu.keys import Key
from fpemu.lowering import Params


class NumbaBlocks(BlockOperations):
    """`fpemu.backends._blocks.BlockOperations`: one kernel where rounding to nearest even allows
    it, else a kernel for each step."""

    piece = 1 << 17

    def round_blocks(
        self,
        x: Floats,
        out: Floats,
        scales: Floats,
        params: Params,
        scaling: Scaling,
        key: Key | None = None,
        first: int = 0,
        stride: int | None = None,
    ) -> None:
        if not x.size:
            return
        scaling = self._scaled(x, scales, scaling)
        plan = plans.rounding(params, scaling, codes=False) if _is_plain(x, out) else None
        if plan is None:
            scaling = self._scaled(x, scales, scaling, always=True)
            super().round_blocks(x, out, scales, params, scaling, key, first, stride)
            return
        shape = _Shape.of(x, scaling.height, scaling.width)
        x, out, grid = shape.laid(x), shape.laid(out), shape.laid_grid(scales)
        for part, blocks in _quantize(plan, shape, bits(x), bits(out), bits(grid)):
            super().round_blocks(x[part], out[part], grid[blocks], params, scaling)
        _put(grid, scales, scaling)

    def encode_blocks(
        self,
        x: Floats,
        codes: Patterns,
        scales: Floats,
        params: Params,
        scaling: Scaling,
        key: Key | None = None,
        first: int = 0,
        stride: int | None = None,
    ) -> None:
        if not x.size:
            return
        scaling = self._scaled(x, scales, scaling)
        plan = plans.rounding(params, scaling, codes=True) if _is_plain(x, codes) else None
        if plan is None:
            scaling = self._scaled(x, scales, scaling, always=True)
            super().encode_blocks(x, codes, scales, params, scaling, key, first, stride)
            return
        shape = _Shape.of(x, scaling.height, scaling.width)
        x, codes, grid = shape.laid(x), shape.laid(codes), shape.laid_grid(scales)
        for part, blocks in _quantize(plan, shape, bits(x), codes, bits(grid)):
            super().encode_blocks(x[part], codes[part], grid[blocks], params, scaling)
        _put(grid, scales, scaling)

    def decode_blocks(
        self, codes: Patterns, out: Floats, scales: Floats, params: Params, scaling: Scaling
    ) -> None:
        if not out.size:
            return
        plan = plans.decoding(params, scaling) if _is_plain(codes, out) else None
        if plan is None or not _is_ordinary(params, scales):
            super().decode_blocks(codes, out, scales, params, scaling)
            return
        shape = _Shape.of(out, scaling.height, scaling.width)
        codes, out, grid = shape.laid(codes), shape.laid(out), shape.laid_grid(scales)
        for part, blocks in _dequantize(plan, shape, codes, bits(out), bits(grid)):
            super().decode_blocks(codes[part], out[part], grid[blocks], params, scaling)

    def encode_packed(
        self, x: Floats, stream: Patterns, scales: Floats, params: Params, scaling: Scaling
    ) -> bool:
        shape = _Shape.of(x, scaling.height, scaling.width)
        if not (shape.holds_pairs and params.code_bits == 4 and _is_plain(x, stream)):
            return False
        if not is_plain_nearest_even(params):
            return False
        scaling = self._scaled(x, scales, scaling)
        plan = plans.rounding(params, scaling, codes=True)
        if plan is None:
            return False
        x, grid = shape.laid(x), shape.laid_grid(scales)
        for part, blocks in _quantize(
            plan, shape, bits(x), stream[None], bits(grid), kernels.PACKED
        ):
            codes = np.empty(x[part].shape, np.uint8)
            super().encode_blocks(x[part], codes, grid[blocks], params, scaling)
            stream[_bytes(part)] = codes[0, ::2] | codes[0, 1::2] << 4
        _put(grid, scales, scaling)
        return True

    def decode_packed(
        self, stream: Patterns, out: Floats, scales: Floats, params: Params, scaling: Scaling
    ) -> bool:
        shape, plan = _Shape.of(out, scaling.height, scaling.width), plans.decoding(params, scaling)
        if plan is None or not (shape.holds_pairs and params.code_bits == 4):
            return False
        if not _is_plain(stream, out) or not _is_ordinary(params, scales):
            return False
        out, grid = shape.laid(out), shape.laid_grid(scales)
        for part, blocks in _dequantize(
            plan, shape, stream[None], bits(out), bits(grid), kernels.PACKED
        ):
            pairs = stream[_bytes(part)]
            codes = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(1, -1)
            super().decode_blocks(codes, out[part], grid[blocks], params, scaling)
        return True

    def block_maxima(self, x: Floats, amax: Floats, height: int, width: int) -> None:
        if not x.size:
            return
        shape = _Shape.of(x, height, width)
        patterns = bits(shape.laid(np.ascontiguousarray(x)))
        grid = shape.laid_grid(amax)
        found = bits(grid)
        record = np.array([(1 << 8 * x.itemsize - 1) - 1], np.uint64)

        def part(elements: Part, blocks: Part, _: Part) -> None:
            kernels.maxima(
                patterns[elements], found[blocks], record, shape.height, shape.width,
                shape.section, shape.vectors,
            )  # fmt: skip

        shape.share(part)
        if not np.may_share_memory(grid, amax):
            amax[...] = grid.reshape(amax.shape)

    def block_scales(self, amax: Floats, scales: Floats, scaling: Scaling) -> None:
        records = plans.scales_by_ratio(scaling) if _is_plain(amax, scales) else None
        if records is not None and amax.size:
            if scales is not amax:
                scales[...] = amax
            kernels.ratio_scales(bits(scales).reshape(-1), *records)
            return
        records = plans.scales_by_power(scaling) if _is_plain(amax) else None
        if records is not None and amax.size:
            found = np.empty(amax.shape, amax.dtype)
            odd = kernels.power_scales(bits(amax).reshape(-1), bits(found).reshape(-1), *records)
            if not odd:
                scales[...] = found
                return
        super().block_scales(amax, scales, scaling)

    def _in_parts(
        self,
        work: Callable[[Part, Part, int], None],
        x: Floats,
        scaling: Scaling,
        first: int,
        stride: int | None,
    ) -> None:
        parts = list(parts_of(x, scaling, first, stride, self.piece))

        def some(begin: int, end: int) -> None:
            for each in parts[begin * len(parts) // x.size : end * len(parts) // x.size]:
                work(*each)

        if x.size:
            share(some, x.size)

    def divide(self, x: Floats, scales: Floats, scaling: Scaling) -> Floats:
        if not _is_plain(x):
            return super().divide(x, scales, scaling)
        out = np.empty(x.shape, x.dtype)
        _step(x, out, scales, scaling, divide=True)
        return out

    def multiply(self, q: Floats, scales: Floats, scaling: Scaling, out: Floats) -> None:
        if _is_plain(q, out) and not np.signbit(scales).any():  # stored codes can have any sign
            _step(q, out, scales, scaling, divide=False)
        else:
            super().multiply(q, scales, scaling, out)

    def _scaled(self, x: Floats, scales: Floats, scaling: Scaling, always: bool = False) -> Scaling:
        """Fill `scales` where the kernels do not derive them on the way."""
        powers = ScaleMode.GIVEN < scaling.mode < ScaleMode.ABSMAX
        if scaling.mode == ScaleMode.GIVEN or (powers and not scaling.has_outer and not always):
            return scaling
        self.block_maxima(x, scales, scaling.height, scaling.width)
        self.block_scales(scales, scales, scaling)
        return scaling._replace(mode=int(ScaleMode.GIVEN))


def _is_plain(*arrays: NDArray[Any]) -> bool:
    return all(array.flags.c_contiguous and array.flags.aligned for array in arrays)


def _bytes(part: Part) -> slice:
    return slice(part[1].start // 2, part[1].stop // 2)


def _put(grid: Floats, scales: Floats, scaling: Scaling) -> None:
    """Scales that were derived in a copy."""
    if scaling.mode != ScaleMode.GIVEN and not np.may_share_memory(grid, scales):
        scales[...] = grid.reshape(scales.shape)


# ------------------------------------------------------------------- geometry


class _Shape(NamedTuple):
    """How a matrix is cut: blocks, sections, and one long row where blocks allow."""

    rows: int
    columns: int
    height: int
    width: int
    section: int
    vectors: tuple[int, ...]
    whole: bool  # whether runs are whole vectors

    @staticmethod
    def of(x: Floats, height: int, width: int) -> _Shape:
        rows, columns = x.shape
        if height == 1 and columns % width == 0:
            rows, columns = 1, rows * columns
        section = max(min(kernels.SECTION // height // width, kernels.RUNS), 1) * width
        each = -(-width * x.itemsize // kernels.VECTOR)
        vectors = (0,) * (len(kernels.MANY) + each)
        vectors = vectors if len(vectors) <= len(kernels.MOST) else kernels.MANY
        vectors = kernels.SINGLE if width == 1 else vectors
        whole = width * x.itemsize % kernels.VECTOR == 0
        return _Shape(rows, columns, height, width, section, vectors, whole)

    @property
    def holds_pairs(self) -> bool:
        """Whether codes can be stored two to a byte."""
        even = not (self.columns % 2 or self.section % 2)
        return self.rows == 1 and self.columns > 0 and even and self.whole

    def laid(self, x: Any) -> Any:
        return x.reshape(self.rows, self.columns)

    def laid_grid(self, scales: Floats) -> Floats:
        """The scales, or a plain copy where they are a view of fewer numbers."""
        if not (scales.flags.c_contiguous and scales.flags.writeable):
            scales = np.array(scales, order="C")
        return scales.reshape(-(-self.rows // self.height), -(-self.columns // self.width))

    def share(self, work: Callable[[Part, Part, Part], None]) -> None:
        """Call `work` with (elements, blocks, sections) on several threads."""
        everything = slice(None)

        def columns(begin: int, end: int) -> None:
            if begin < end:
                blocks = slice(begin // self.width, -(-end // self.width))
                sections = slice(begin // self.section, -(-end // self.section))
                work(
                    (everything, slice(begin, end)), (everything, blocks), (everything, sections)
                )  # fmt: skip

        def bands(begin: int, end: int) -> None:
            if begin < end:
                first, last = begin // self.columns, end // self.columns
                blocks = slice(first // self.height, -(-last // self.height))
                work((slice(first, last), everything), (blocks, everything), (blocks, everything))

        if self.rows == 1:
            share(columns, self.columns, self.section)
        else:
            share(bands, self.rows * self.columns, self.height * self.columns)

    def marks(self) -> NDArray[np.uint8]:
        bands, sections = -(-self.rows // self.height), -(-self.columns // self.section)
        return np.zeros((bands, sections), np.uint8)

    def marked(self, odd: NDArray[np.uint8]) -> Iterator[tuple[Part, Part]]:
        """(elements, blocks) of runs of marked sections in one row of blocks."""
        if not odd.any():
            return
        for band in np.flatnonzero(odd.any(axis=1)):
            rows = slice(band * self.height, min((band + 1) * self.height, self.rows))
            flags = odd[band].astype(np.int8)
            edges = np.flatnonzero(np.diff(flags, prepend=0, append=0)) * self.section
            for begin, end in edges.reshape(-1, 2):
                stop = min(end, self.columns)
                blocks = slice(begin // self.width, -(-stop // self.width))
                yield (rows, slice(begin, stop)), (slice(band, band + 1), blocks)


def _quantize(
    plan: Plan,
    shape: _Shape,
    x: Patterns,
    out: Patterns,
    scales: Patterns,
    packing: tuple[int, ...] = kernels.APART,
) -> Iterator[tuple[Part, Part]]:
    """Round; what is left to do."""
    odd, packed = shape.marks(), packing == kernels.PACKED

    def part(elements: Part, blocks: Part, sections: Part) -> None:
        kernels.blocks(
            x[elements], out[_byte_columns(elements) if packed else elements], scales[blocks],
            odd[sections], plan.elements, plan.scaling, shape.height, shape.width, shape.section,
            plan.kind, plan.result, shape.vectors, plan.origin, packing,
        )  # fmt: skip

    shape.share(part)
    return shape.marked(odd)


def _dequantize(
    plan: Plan,
    shape: _Shape,
    codes: Patterns,
    out: Patterns,
    scales: Patterns,
    packing: tuple[int, ...] = kernels.APART,
) -> Iterator[tuple[Part, Part]]:
    """Decode and multiply; what is left to do."""
    odd, packed = shape.marks(), packing == kernels.PACKED

    def part(elements: Part, blocks: Part, sections: Part) -> None:
        kernels.values(
            codes[_byte_columns(elements) if packed else elements], out[elements],
            scales[blocks], odd[sections], plan.elements, plan.scaling, shape.height, shape.width,
            shape.section, plan.kind, plan.result, shape.vectors, packing,
        )  # fmt: skip

    shape.share(part)
    return shape.marked(odd)


def _is_ordinary(params: Params, scales: Floats) -> bool:
    """Whether the elements have no infinities and no scale is negative, as rounding makes them."""
    return not params.code_inf and not np.signbit(scales).any()


def _step(x: Floats, out: Floats, scales: Floats, scaling: Scaling, divide: bool) -> None:
    """Quotients or products of all elements."""
    plan = plans.step(x.dtype, scaling, divide)
    shape = _Shape.of(x, scaling.height, scaling.width)
    x, out, grid = shape.laid(x), shape.laid(out), shape.laid_grid(scales)
    _dequantize(plan, shape, bits(x), bits(out), bits(grid))


def _byte_columns(elements: Part) -> Part:
    return elements[0], _bytes(elements)
