"""Numba kernels of the Hadamard transform.

A tile of 512 bytes is loaded into registers, goes through its stages there, and is stored once;
longer rows combine finished tiles as soon as they can, so that short spans are still in the
cache. Each result is the same tree of additions as in stages over the whole row, so the bits do
not depend on any of this.

Everything that is compiled together lives in this one file, because numba's cache looks only at
the file of the function called.
"""

# Numba specialises these functions by their argument types, which annotations cannot name.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types

intrinsic: Any = numba.extending.intrinsic

TILE = 512  # bytes: as many as the vector registers of AVX2 hold, half those of AVX-512
_VECTOR = 64  # bytes


@intrinsic
def _transform_tile(context, source, target, at, strides, scale):
    """Butterflies of ``strides = (1, 2, 4, ...)`` on the tile at `at`, then the scale, and one
    NaN for all. The number of strides is part of the type, so that the code is a straight line.
    """
    lanes = _VECTOR * 8 // source.dtype.bitwidth
    stages = len(strides)

    def codegen(context, builder, signature, args):
        real = context.get_value_type(source.dtype)
        vector = ir.VectorType(real, lanes)
        size = source.dtype.bitwidth // 8

        def places(array_type, value):
            data = context.make_array(array_type)(context, builder, value).data
            first = builder.gep(data, [args[2]])
            vectors = builder.bitcast(first, vector.as_pointer())
            index = ir.IntType(64)
            return [builder.gep(vectors, [index(k)]) for k in range(TILE // _VECTOR)]

        def mask(indices):
            return ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(indices))

        row = [builder.load(place, align=size) for place in places(source, args[0])]
        for stage in range(stages):
            stride = 1 << stage
            if stride < lanes:
                swap = mask(lane ^ stride for lane in range(lanes))
                blend = mask(lane + lanes * bool(lane & stride) for lane in range(lanes))
                for k, v in enumerate(row):
                    partner = builder.shuffle_vector(v, v, swap)
                    total = builder.fadd(v, partner)
                    difference = builder.fsub(partner, v)
                    row[k] = builder.shuffle_vector(total, difference, blend)
            else:
                apart = stride // lanes
                for k in range(len(row)):
                    if not k & apart:
                        a, b = row[k], row[k + apart]
                        row[k], row[k + apart] = builder.fadd(a, b), builder.fsub(a, b)
        nan = ir.Constant(vector, [ir.Constant(real, float("nan"))] * lanes)
        factor = builder.insert_element(
            ir.Constant(vector, ir.Undefined), args[4], ir.IntType(32)(0)
        )
        factor = builder.shuffle_vector(factor, factor, mask([0] * lanes))
        for place, v in zip(places(target, args[1]), row, strict=True):
            scaled = builder.fmul(v, factor)
            known = builder.fcmp_ordered("ord", scaled, scaled)
            builder.store(builder.select(known, scaled, nan), place, align=size)
        return context.get_dummy_value()

    return types.none(source, target, types.intp, strides, scale), codegen


@numba.njit(nogil=True, cache=True)
def transform_tiles(x, out, strides, scale):
    """Rows no longer than a tile; the length is a multiple of the tile."""
    for at in range(0, x.size, TILE // x.itemsize):
        _transform_tile(x, out, at, strides, scale)


@numba.njit(nogil=True, cache=True)
def transform_rows(x, out, size, strides, scale):
    """Rows of `size`, longer than a tile; `strides` are those of a tile."""
    tile = TILE // x.itemsize
    one = x.dtype.type(1)
    for at in range(0, x.size, tile):
        _transform_tile(x, out, at, strides, one)
        end = at + tile
        stride = tile
        while stride < size and end % (2 * stride) == 0:
            low, high = out[end - 2 * stride : end - stride], out[end - stride : end]
            if 2 * stride < size:
                for i in range(stride):
                    a, b = low[i], high[i]
                    low[i] = a + b
                    high[i] = a - b
            else:
                for i in range(stride):
                    a, b = low[i], high[i]
                    total, difference = (a + b) * scale, (a - b) * scale
                    low[i] = total if total == total else x.dtype.type(np.nan)
                    high[i] = difference if difference == difference else x.dtype.type(np.nan)
            stride *= 2
