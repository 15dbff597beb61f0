"""Block formats as other libraries compute them: the presets of `fpemu.block_presets`.

NumPy passes in float32, in the order of operations of the library; `backend` makes no
difference here. The definition that all else obeys is `fpemu.block_reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu import arguments, backends, dtypes
from fpemu.backends._blocks import bits, maxima, scales_of
from fpemu.block_arrays import Layout, given_amax, layout, narrow
from fpemu.block_lowering import lower_elements, lower_scaling
from fpemu.block_presets import BlockPreset
from fpemu.blocks import BlockFormat
from fpemu.flushing import refuse_flushing
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.lowering import FLOAT32
from fpemu.policy import Overflow
from fpemu.rounding import Descriptor
from fpemu.scales import ScaleMethod
from fpemu.tiles import Piece, pieces

Floats = NDArray[np.float32]
_PIECE = 1 << 15  # elements worked on together
_LEAST_E4M3 = np.float32(2.0**-6)  # torchao's E4M3_EPS, the smallest normal number


class Part(NamedTuple):
    """A rectangle of blocks: where it is, its elements, their values, and its scales."""

    piece: Piece
    elements: Floats
    values: Floats
    scales: Floats


class Imitation:
    """One call of a preset on an array.

    Errors: ValueError for what the library does not have (`BlockPreset`), an axis or an `amax`
    that does not fit, a backend that is not there; RuntimeError where this thread flushes
    subnormals.
    """

    def __init__(
        self,
        x: NDArray[Any],
        fmt: BlockFormat,
        preset: BlockPreset,
        rounding: Descriptor | str | None,
        key: Key | int | None,
        axis: int,
        amax: float | None,
        backend: str | None,
    ) -> None:
        self.fmt, self.preset = fmt, preset
        self.mode = preset.rounding(rounding)
        arguments.key_for(key, self.mode)
        arguments.choose_backend(backend, x.size)
        refuse_flushing()
        self.layout: Layout = layout(x.shape, fmt, axis)
        self.x = np.ascontiguousarray(x).reshape(self.layout.shape)
        self.scaling = lower_scaling(fmt, self.layout.tile, FLOAT32)
        self.params = lower_elements(fmt, self.mode, FLOAT32)
        self.numpy = backends.get("numpy")
        self.outer: float | None = None
        if fmt.outer is not None:
            self.outer = self._outer(amax)
        elif amax is not None:
            raise ValueError(f"amax must be None for {fmt}, which has no outer scale")

    def parts(self) -> Iterator[Part]:
        """The array in bounded pieces of whole blocks."""
        for piece in pieces(self.layout.shape, self.layout.tile, _PIECE):
            w = _float32(self.x[piece.batch, piece.rows, piece.columns])
            amax = maxima(w, *self.layout.tile)
            with np.errstate(all="ignore"):
                if self.fmt.rule.method is ScaleMethod.ABSMAX:
                    yield self._by_reciprocal(piece, w, amax)
                else:
                    yield self._by_power(piece, w, amax)

    def quantize_into(self, out: NDArray[Any]) -> None:
        """The values, rounded once to the dtype of `out`; it has the array's shape."""
        result = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        places = result.reshape(self.layout.shape)
        for piece, _, values, _ in self.parts():
            places[piece.batch, piece.rows, piece.columns] = narrow(
                values, out.dtype, Overflow.SAT_NONE
            )
        if result is not out:
            out[...] = result

    def codes_and_scales(self, code_dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The codes of the elements, in the layout's shape, and of the scales, in the grid's."""
        assert self.fmt.scale is not None
        codes = np.empty(self.layout.shape, code_dtype)
        scales = np.empty(self.layout.grid3, np.float32)
        for piece, elements, _, found in self.parts():
            place = np.empty(elements.size, code_dtype)
            np.copyto(elements, 0, where=np.isnan(elements))
            self.numpy.encode(bits(elements).reshape(-1), place, self.params)
            codes[piece.batch, piece.rows, piece.columns] = place.reshape(elements.shape)
            scales[piece.blocks(self.layout.tile)] = found
        scale_codes = np.empty(scales.size, dtypes.code_dtype(self.fmt.scale))
        self.numpy.encode(bits(scales).reshape(-1), scale_codes, self.scaling.scale_params)
        return codes, scale_codes.reshape(self.layout.grid)

    # ------------------------------------------------------------ power-of-two scales

    def _by_power(self, piece: Piece, w: Floats, amax: Floats) -> Part:
        scales = self._powers(amax)
        ratio = self.fmt.rule.method is ScaleMethod.RCEIL
        least = self.preset.least_divisor_of_ratio if ratio else self.preset.least_divisor
        divisors = np.where(scales == np.float32(2.0**-127), np.float32(least), scales)
        quotients = w / self._spread(divisors, w)
        elements = self._rounded(quotients)
        if self.preset.half_by_addition:
            assert isinstance(self.fmt.element, Format)
            smallest = np.float32(self.fmt.element.smallest_positive)
            almost = np.nextafter(smallest / 2, np.float32(0))
            np.copyto(elements, smallest, where=np.abs(quotients) == almost)
        if self.preset.sign_by_product:
            np.copysign(elements, np.where(quotients < 0, np.float32(-1), 1), out=elements)
        return self._part(piece, elements, elements * self._spread(scales, w), scales)

    def _powers(self, amax: Floats) -> Floats:
        """The scale of each block: a power of two, or NaN."""
        fmt, low, high = self.fmt, self.scaling.lowest, self.scaling.highest
        method = fmt.rule.method
        if method in self.preset.logarithms:
            # float64 is far more than enough to find float32's nearest value to a logarithm.
            if method is ScaleMethod.RCEIL:
                exponent = np.ceil(_log2(amax / np.float32(self.scaling.qmax)))
            else:
                floor = np.float32(2.0**-126)
                exponent = np.floor(_log2(np.where(amax == 0, floor, amax))) - fmt.emax
        else:
            scales = scales_of(amax, self.scaling, self.numpy)
            return np.where(np.isinf(amax), np.float32(2.0 ** (128 - fmt.emax)), scales)
        scales = np.ldexp(np.float32(1), _clamped(exponent, low, high))
        bad = exponent > high if self.preset.nan_beyond_range else np.isnan(exponent)
        return np.where(bad | np.isnan(exponent), np.float32(np.nan), scales)

    # ------------------------------------------------------------------ E4M3 scales

    def _by_reciprocal(self, piece: Piece, w: Floats, amax: Floats) -> Part:
        t = np.float32(1 if self.outer is None else self.outer)
        qmax = np.float32(self.scaling.qmax)
        ratio = np.ascontiguousarray(np.clip(amax / qmax / t, _LEAST_E4M3, np.float32(448)))
        scales = np.empty_like(ratio)
        flat = bits(scales).reshape(-1)
        self.numpy.round(bits(ratio).reshape(-1), flat, self.scaling.scale_params)
        reciprocals: Floats = np.divide(1 / t, scales)
        quotients = np.clip(w * self._spread(reciprocals, w), -qmax, qmax)
        elements = self._rounded(quotients)
        # Its conversion to E2M1 knows no NaN and makes it code 3, or 11 by the sign bit.
        np.copyto(elements, np.copysign(np.float32(1.5), quotients), where=np.isnan(quotients))
        return self._part(piece, elements, elements * self._spread(t * scales, w), scales)

    def _outer(self, amax: float | None) -> float:
        if amax is None:
            largest = np.float32(0)
            for piece in pieces(self.layout.shape, self.layout.tile, _PIECE):
                w = _float32(self.x[piece.batch, piece.rows, piece.columns])
                largest = np.maximum(largest, np.abs(w).max(initial=0))
        else:
            largest = np.float32(given_amax(amax, FLOAT32))
        return float(largest / np.float32(448 * 6))

    # ------------------------------------------------------------------------ helpers

    def _rounded(self, quotients: Floats) -> Floats:
        elements = np.empty(quotients.shape, np.float32)
        source = bits(np.ascontiguousarray(quotients)).reshape(-1)
        self.numpy.round(source, bits(elements).reshape(-1), self.params)
        return elements

    def _spread(self, grid: Floats, w: Floats) -> Floats:
        """The number of its block for every element."""
        height, width = self.layout.tile
        rows, columns = w.shape
        tall = grid if height == 1 else grid.repeat(height, axis=0)[:rows]
        spread: Floats = tall.repeat(width, axis=1)[:, :columns]
        return spread

    def _part(self, piece: Piece, elements: Floats, values: Floats, scales: Floats) -> Part:
        np.copyto(values, np.nan, where=np.isnan(values))  # the positive quiet NaN
        return Part(piece, elements, values, scales)


def _float32(w: NDArray[Any]) -> Floats:
    with np.errstate(all="ignore"):
        return w.astype(np.float32)


def _log2(x: Floats) -> Floats:
    return np.log2(x.astype(np.float64)).astype(np.float32)


def _clamped(exponent: Floats, low: int, high: int) -> NDArray[np.int32]:
    return np.nan_to_num(exponent, nan=0, posinf=high, neginf=low).clip(low, high).astype(np.int32)
