"""Block formats on any backend: scales, quotients and products as NumPy passes.

A backend that has nothing faster inherits `BlockOperations`; it needs `round`, `encode` and
`decode`. The order of operations is that of `fpemu.block_reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fpemu.backends import Patterns
from fpemu.block_lowering import ScaleMode, Scaling
from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu.tiles import pieces

Floats = NDArray[np.floating[Any]]
Part = tuple[slice, slice]
_WORDS = {size: np.dtype(f"u{size}") for size in (4, 8)}


class Rounder(Protocol):
    """What `BlockOperations` is built on; see `fpemu.backends.Backend`."""

    def round(
        self, x: Patterns, out: Patterns, params: Params, key: Key | None = None, first: int = 0
    ) -> None: ...

    def encode(self, x: Patterns, out: Patterns, params: Params) -> None: ...

    def decode(self, codes: Patterns, out: Patterns, params: Params) -> None: ...


class BlockOperations(Rounder):
    """`round_blocks`, `encode_blocks` and `decode_blocks` of `fpemu.backends.Backend`.

    A backend may override the steps, `divide`, `multiply`, `block_maxima` and `block_scales`.
    """

    piece = 1 << 15  # elements worked on together

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
        def work(part: Part, grid: Part, start: int) -> None:
            quotients = self._rounded(x[part], scales[grid], params, scaling, key, start, stride)
            self.multiply(quotients, scales[grid], scaling, out[part])

        self._in_parts(work, x, scaling, first, stride)

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
        def work(part: Part, grid: Part, start: int) -> None:
            rounded = self._rounded(x[part], scales[grid], params, scaling, key, start, stride)
            zero_bad_blocks(rounded, scales[grid], scaling)
            place = np.empty(rounded.size, codes.dtype)
            self.encode(bits(rounded).reshape(-1), place, params)
            codes[part] = place.reshape(rounded.shape)
            zero_bad_blocks(codes[part], scales[grid], scaling)  # code 0 may be another value

        self._in_parts(work, x, scaling, first, stride)

    def decode_blocks(
        self, codes: Patterns, out: Floats, scales: Floats, params: Params, scaling: Scaling
    ) -> None:
        def work(part: Part, grid: Part, start: int) -> None:
            values = np.empty(out[part].shape, out.dtype)
            piece = np.ascontiguousarray(codes[part]).reshape(-1)
            self.decode(piece, bits(values).reshape(-1), params)
            infinite = np.isinf(values)
            if not infinite.any():
                self.multiply(values, scales[grid], scaling, out[part])
                return
            # Rounding gives no such codes. An infinity stays one, but under a NaN scale.
            signs = np.copysign(np.ones_like(values), values)
            self.multiply(values, scales[grid], scaling, out[part])
            self.multiply(signs, scales[grid], scaling, values)
            infinite &= ~np.isnan(values)
            out[part][infinite] = np.copysign(np.inf, values[infinite])

        self._in_parts(work, out, scaling, 0, None)

    def _in_parts(
        self,
        work: Callable[[Part, Part, int], None],
        x: Floats,
        scaling: Scaling,
        first: int,
        stride: int | None,
    ) -> None:
        """Call `work` with (elements, blocks, local index of the first element), part by part."""
        for each in parts_of(x, scaling, first, stride, self.piece):
            work(*each)

    def _rounded(
        self,
        x: Floats,
        scales: Floats,
        params: Params,
        scaling: Scaling,
        key: Key | None,
        first: int,
        stride: int | None,
    ) -> Floats:
        """The elements of a piece, as floats; fills `scales` unless they are given."""
        if scaling.mode != ScaleMode.GIVEN:
            self.block_maxima(x, scales, scaling.height, scaling.width)
            self.block_scales(scales, scales, scaling)
        quotients = self.divide(x, scales, scaling)
        rounded = np.empty_like(quotients)
        source, target = bits(quotients), bits(rounded)
        if key is None or stride in (None, x.shape[1]):
            self.round(source.reshape(-1), target.reshape(-1), params, key, first)
        else:
            assert stride is not None
            for row in range(x.shape[0]):
                self.round(source[row], target[row], params, key, first + row * stride)
        return rounded

    def divide(self, x: Floats, scales: Floats, scaling: Scaling) -> Floats:
        return divided(x, scales, scaling)

    def multiply(self, q: Floats, scales: Floats, scaling: Scaling, out: Floats) -> None:
        products(q, scales, scaling, out)

    def block_maxima(self, x: Floats, amax: Floats, height: int, width: int) -> None:
        for piece in pieces((1, *x.shape), (height, width), self.piece):
            part = x[piece.rows, piece.columns]
            amax[piece.blocks((height, width))[1:]] = maxima(part, height, width)

    def block_scales(self, amax: Floats, scales: Floats, scaling: Scaling) -> None:
        scales[...] = scales_of(amax, scaling, self)

    def encode_packed(
        self, x: Floats, stream: Patterns, scales: Floats, params: Params, scaling: Scaling
    ) -> bool:
        """`encode_blocks` for nearest even to a stream as `fpemu.pack` writes it, if that is
        fast; False, and no codes, if not."""
        return False

    def decode_packed(
        self, stream: Patterns, out: Floats, scales: Floats, params: Params, scaling: Scaling
    ) -> bool:
        """`decode_blocks` from such a stream, if that is fast."""
        return False


def parts_of(
    x: Floats, scaling: Scaling, first: int, stride: int | None, limit: int
) -> Iterator[tuple[Part, Part, int]]:
    """(part of x, its part of the scales, local index of its first element)."""
    block = (scaling.height, scaling.width)
    distance = x.shape[1] if stride is None else stride
    for piece in pieces((1, *x.shape), block, limit):
        _, grid_rows, grid_columns = piece.blocks(block)
        start = first + piece.rows.start * distance + piece.columns.start
        yield (piece.rows, piece.columns), (grid_rows, grid_columns), start


def maxima(x: Floats, height: int, width: int) -> Floats:
    """max|x| of every block of a 2-D piece; NaN where a block holds NaN."""
    size = np.abs(x)
    rows, columns = x.shape
    if height > 1:
        size = np.maximum.reduceat(size, np.arange(0, rows, height), axis=0)
    if columns % width:
        largest: Floats = np.maximum.reduceat(size, np.arange(0, columns, width), axis=1)
        return largest
    runs = size.reshape(-1, width)
    # NumPy reduces short rows one by one, and columns many at a time.
    largest = runs.max(axis=1) if width >= 128 else np.ascontiguousarray(runs.T).max(axis=0)
    return largest.reshape(size.shape[0], -1)


def scales_of(amax: Floats, scaling: Scaling, rounder: Rounder) -> Floats:
    """The scales of blocks whose largest magnitudes are `amax`, in the same dtype.

    NaN for a block with NaN or an infinity, whether or not the scale format has one.
    """
    outer, qmax = amax.dtype.type(scaling.outer), amax.dtype.type(scaling.qmax)
    result: Floats
    with np.errstate(all="ignore"):
        if scaling.mode == ScaleMode.ABSMAX:
            ratio = amax / qmax
            if scaling.has_outer:
                ratio /= outer
            result = np.empty_like(ratio)
            rounder.round(bits(ratio).reshape(-1), bits(result).reshape(-1), scaling.scale_params)
        else:
            size = np.array(amax)
            if scaling.has_outer:
                size /= outer
            if scaling.mode == ScaleMode.CEIL_OF_RATIO:
                size /= qmax
            result = _powers(size, scaling)
            result[size == 0] = scaling.zero_scale
        result[amax == 0] = scaling.zero_scale
        if scaling.has_outer and scaling.outer == 0:
            result[...] = scaling.zero_scale
        result[~np.isfinite(amax)] = np.nan
    return result


def _powers(size: Floats, scaling: Scaling) -> Floats:
    significand, exponent = np.frexp(size)  # in [0.5, 1)
    exponent -= 1
    match scaling.mode:
        case ScaleMode.FLOOR:
            exponent -= scaling.emax
        case ScaleMode.CEIL:
            exponent += significand != 0.5
            exponent -= scaling.emax
        case ScaleMode.EVEN:
            exponent += significand >= scaling.carry_from
            exponent -= scaling.emax
        case ScaleMode.CEIL_OF_RATIO:
            exponent += significand != 0.5
    exponent[np.isinf(size)] = scaling.highest
    powers: Floats = np.ldexp(size.dtype.type(1), exponent.clip(scaling.lowest, scaling.highest))
    return powers


def divided(x: Floats, scales: Floats, scaling: Scaling) -> Floats:
    """``(x / outer) / (scale * factor)``; zeros of the sign of x under a zero scale."""
    kind = x.dtype.type
    with np.errstate(all="ignore"):
        divisors = scales if scaling.factor == 1 else scales * kind(scaling.factor)
        if not divisors.all() or (scaling.has_outer and scaling.outer == 0):
            divisors = np.where(divisors == 0, kind(np.inf), divisors)  # x / inf is such a zero
        if scaling.has_outer:
            outer = kind(scaling.outer) if scaling.outer else kind(np.inf)
            quotients = x / outer
        else:
            quotients = np.array(x, order="C")
        for run, divisor in _runs(quotients, divisors, scaling):
            np.divide(run, divisor, out=run)
    return quotients


def products(q: Floats, scales: Floats, scaling: Scaling, out: Floats) -> None:
    """``out = (q * (scale * factor)) * outer``, NaN in blocks whose scale is NaN."""
    kind = q.dtype.type
    with np.errstate(all="ignore"):
        factors = scales if scaling.factor == 1 else scales * kind(scaling.factor)
        # Twice: the lowest element may be beyond -qmax.
        largest = np.abs(factors).max(initial=0) * kind(2 * scaling.qmax) * kind(scaling.outer)
        fits = largest < np.finfo(q.dtype).max
        finite = None if fits else np.isfinite(q)
        places = _runs(out, factors, scaling)
        for (run, factor), (place, _) in zip(_runs(q, factors, scaling), places, strict=True):
            np.multiply(run, factor, out=place)
        if scaling.has_outer:
            np.multiply(out, kind(scaling.outer), out=out)
        if finite is not None:
            _mend(out, finite, scales, scaling)


def _mend(q: Floats, finite: NDArray[np.bool_], scales: Floats, scaling: Scaling) -> None:
    """Overflow becomes the largest value, blocks under a NaN scale the positive quiet NaN.

    Elements that were infinite (codes of other makers) stay so.
    """
    largest = np.finfo(q.dtype).max
    np.clip(q, -largest, largest, out=q, where=finite)
    for run, scale in _runs(q, scales, scaling):
        np.copyto(run, np.nan, where=np.isnan(scale))


def zero_bad_blocks(q: NDArray[Any], scales: Floats, scaling: Scaling) -> None:
    """Elements, or codes, of blocks under a NaN scale become 0."""
    if np.isnan(scales).any():
        for run, scale in _runs(q, scales, scaling):
            np.copyto(run, 0, where=np.isnan(scale))


def _runs(
    x: NDArray[Any], scales: Floats, scaling: Scaling
) -> Iterator[tuple[NDArray[Any], Floats]]:
    """(view of x, scales that broadcast against it), together all of a 2-D piece."""
    height, width = scaling.height, scaling.width
    if height > 1:
        scales = scales.repeat(height, axis=0)[: x.shape[0]]
    rows, columns = x.shape
    whole = columns // width * width
    if whole:  # splitting an axis gives a view, whatever the strides
        yield x[:, :whole].reshape(rows, -1, width), scales[:, : whole // width, None]
    if whole < columns:
        yield x[:, whole:], scales[:, -1:]


def bits(x: Floats) -> Patterns:
    """The patterns of floats, without a copy."""
    return x.view(_WORDS[x.dtype.itemsize])
