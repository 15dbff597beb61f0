"""Nearest-even for most formats in a few passes over chunks that stay in the cache.

float32 and float64: with q the format's last place at x, a power of two made from x's exponent
bits, ``rint(x / q) * q`` is x rounded: quotient and product are exact, and rint keeps the sign of
zero. Where the format's subnormals are the container's, the last place is a fixed bit of the
pattern and integer operations do the same. What lies beyond the range is found by one maximum
over the chunk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpemu.backends._numpy_grid import first_field, round_patterns
from fpemu.lowering import Mode, Params

# Larger chunks spread the cost of a NumPy call; the scratch is one chunk, and stays in L2.
_CHUNK_BYTES = 1 << 18
_ALIGNMENT = 64  # a cache line: loads across two lines cost a tenth of the speed

Array = NDArray[Any]


class Plan(NamedTuple):
    """Constants of a Params record, 0-d arrays where NumPy takes them; see `plan_for`."""

    dtype: np.dtype[Any]  # what the passes read and write: floats, or the patterns as they are
    limit: int  # magnitudes from here on are beyond the range
    clips: bool  # they become the largest value
    general: int  # magnitudes from here on are left to `round_patterns`
    magnitude: Array
    # float passes
    exponents: Array
    first: Array
    last: Array
    precision: Array
    lowest: Array
    highest: Array
    drops_zero_sign: bool
    # integer passes
    shift: Array
    one: Array
    half: Array
    high: Array


@lru_cache(maxsize=1024)
def plan_for(p: Params) -> Plan | None:
    """What `round_nearest` needs for `p`, or None where the general way must be taken."""
    keeps_zero_sign = p.tiny_neg == p.zero_neg == p.sign
    drops_zero_sign = p.tiny_neg == p.zero_neg == 0
    if (
        p.mode_pos != Mode.NEAREST_EVEN
        or p.mode_neg != Mode.NEAREST_EVEN
        or p.m == 0  # ties go by the exponent's last bit
        or p.deep
        or p.flush
        or p.floor_bits
        or p.zero_pos
        or p.keep != 2 * p.sign - 1
        or not (keeps_zero_sign or drops_zero_sign)
    ):
        return None
    emin, top = first_field(p), p.infinity >> p.mc
    # With a last place far from the container's subnormals, flushing hardware changes nothing.
    floats = p.width >= 32 and p.quantum_field - p.mc >= 3 and emin < top
    if not floats and not (emin == 1 and p.shift and keeps_zero_sign):
        return None
    patterns = np.dtype(f"u{p.width // 8}")
    dtype = np.dtype(f"f{p.width // 8}") if floats else patterns
    signed = p.code_sign != 0
    low = (1 << p.shift) - 1

    def bits(value: int) -> Array:
        return np.array(value, patterns)

    limit = min(p.limit_pos, p.limit_neg) if signed else p.limit_pos
    clips = (
        floats
        and p.over_pos == p.inf_pos == p.max_pos
        and (not signed or p.over_neg == p.inf_neg == p.max_neg | p.sign)
    )
    return Plan(
        dtype=dtype,
        limit=limit,
        clips=clips,
        general=p.infinity + 1 if clips else limit,
        # With its sign bit a negative is beyond every limit of an unsigned format.
        magnitude=bits(p.sign - 1 if signed else 2 * p.sign - 1),
        exponents=bits(p.infinity),
        first=bits(emin << p.mc),
        last=bits(top - 1 << p.mc),
        precision=bits(p.m << p.mc),
        lowest=bits(p.max_neg | p.sign).view(dtype),
        highest=bits(p.max_pos).view(dtype),
        drops_zero_sign=drops_zero_sign,
        shift=bits(p.shift),
        one=bits(1),
        half=bits(low >> 1),
        high=bits(2 * p.sign - 1 - low),
    )


def round_nearest(x: Array, out: Array, p: Params, plan: Plan) -> None:
    """Round `x` into `out`, which may be `x`."""
    size = max(1, min(x.size, _CHUNK_BYTES // x.itemsize))
    scratch = _aligned(size, x.dtype)
    passes = _integer_passes if plan.dtype == x.dtype else _float_passes
    values, results, quanta = (array.view(plan.dtype) for array in (x, out, scratch))
    # Only elements that are replaced afterwards can raise a flag.
    with np.errstate(all="ignore"):
        for start in range(0, x.size, size):
            part = slice(start, start + size)
            value, result, work = values[part], results[part], scratch[: x.size - start]
            np.bitwise_and(x[part], plan.magnitude, work)
            peak = np.maximum.reduce(work)
            at = None
            if peak >= plan.general:
                at = np.flatnonzero(work >= plan.general)
                replacements = round_patterns(x[part][at], p)
            passes(value, result, work, quanta[: work.size], plan)
            if plan.clips and peak >= plan.limit:
                result.clip(plan.lowest, plan.highest, result)
            if at is not None:
                out[part][at] = replacements


def _float_passes(x: Array, out: Array, work: Array, quantum: Array, plan: Plan) -> None:
    """`work` holds the magnitudes; `quantum` is the same memory, as floats."""
    np.bitwise_and(work, plan.exponents, work)
    work.clip(plan.first, plan.last, work)
    np.subtract(work, plan.precision, work)
    np.divide(x, quantum, out)
    np.rint(out, out)
    np.multiply(out, quantum, out)
    if plan.drops_zero_sign:
        np.add(out, 0, out)


def _integer_passes(x: Array, out: Array, work: Array, _: Array, plan: Plan) -> None:
    np.right_shift(x, plan.shift, work)
    np.bitwise_and(work, plan.one, work)
    np.add(work, plan.half, work)
    np.add(work, x, out)
    np.bitwise_and(out, plan.high, out)


def _aligned(size: int, dtype: np.dtype[Any]) -> Array:
    raw = np.empty(size * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)
