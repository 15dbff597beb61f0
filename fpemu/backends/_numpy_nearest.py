"""Nearest-even for most formats in a few passes over chunks that stay in the cache.

float32 and float64: with ``q`` the format's last place at x, a power of two made from the
exponent bits, ``rint(x / q) * q`` is x rounded: the division and the product are exact, and rint
keeps the sign of zero. Where the format's subnormals are the container's, the last place is a
fixed bit of the pattern and integer operations do the same. Elements that overflow, infinities
and NaN are found by one maximum over the chunk and go the general way.
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
_ALIGNMENT = 64  # a cache line: vectors across two lines cost a tenth of the speed

Scalar = NDArray[Any]  # 0-d: NumPy converts these faster than scalars


class Plan(NamedTuple):
    """Constants of one Params record; see `plan_for`."""

    real: np.dtype[Any] | None  # None: integer operations
    limit: int
    magnitude: Scalar
    # float
    exponents: Scalar
    first: Scalar
    last: Scalar
    precision: Scalar
    drops_zero_sign: bool
    # integer
    shift: Scalar
    one: Scalar
    half: Scalar
    high: Scalar


@lru_cache(maxsize=1024)
def plan_for(p: Params) -> Plan | None:
    """What `round_nearest` needs for `p`, or None where the general way must be taken."""
    keeps_sign = p.tiny_neg == p.zero_neg == p.sign
    drops_sign = p.tiny_neg == p.zero_neg == 0
    if (
        p.mode_pos != Mode.NEAREST_EVEN
        or p.mode_neg != Mode.NEAREST_EVEN
        or p.m == 0
        or p.deep
        or p.flush
        or p.floor_bits
        or p.zero_pos
        or p.keep != 2 * p.sign - 1
        or not (keeps_sign or drops_sign)
    ):
        return None
    emin, top = first_field(p), p.infinity >> p.mc
    # Last places far from the container's subnormals, so that flushing hardware changes nothing.
    real = {32: np.dtype(np.float32), 64: np.dtype(np.float64)}.get(p.width)
    if real is not None and not (p.quantum_field - p.mc >= 3 and emin < top):
        real = None
    if real is None and not (emin == 1 and p.shift and keeps_sign):
        return None
    kind = np.dtype(f"u{p.width // 8}")

    def scalar(value: int) -> Scalar:
        return np.array(value, kind)

    low = (1 << p.shift) - 1
    signed = p.code_sign != 0
    return Plan(
        real=real,
        limit=min(p.limit_pos, p.limit_neg) if signed else p.limit_pos,
        # Unsigned formats: with its sign bit a negative is beyond the limit.
        magnitude=scalar(p.sign - 1 if signed else 2 * p.sign - 1),
        exponents=scalar(p.infinity),
        first=scalar(emin << p.mc),
        last=scalar(top - 1 << p.mc),
        precision=scalar(p.m << p.mc),
        drops_zero_sign=not keeps_sign,
        shift=scalar(p.shift),
        one=scalar(1),
        half=scalar(low >> 1),
        high=scalar(2 * p.sign - 1 - low),
    )


def round_nearest(x: NDArray[Any], out: NDArray[Any], p: Params, plan: Plan) -> None:
    """Round `x` into `out`, which may be `x`."""
    size = min(x.size, _CHUNK_BYTES // x.itemsize)
    scratch = _aligned(size, x.dtype)
    passes = _float_passes if plan.real is not None else _integer_passes
    # Nothing meant to be kept raises a flag; signaling NaNs and elements beyond the range may.
    with np.errstate(all="ignore"):
        for start in range(0, x.size, size or 1):
            part, result = x[start : start + size], out[start : start + size]
            work = scratch[: part.size]
            np.bitwise_and(part, plan.magnitude, work)
            if np.maximum.reduce(work) < plan.limit:
                passes(part, result, work, plan)
                continue
            at = np.flatnonzero(work >= plan.limit)
            beyond = round_patterns(part[at], p)
            passes(part, result, work, plan)
            result[at] = beyond


def _float_passes(x: NDArray[Any], out: NDArray[Any], work: NDArray[Any], plan: Plan) -> None:
    """`work` holds the magnitudes."""
    np.bitwise_and(work, plan.exponents, work)
    work.clip(plan.first, plan.last, work)
    np.subtract(work, plan.precision, work)
    assert plan.real is not None
    values, quantum = out.view(plan.real), work.view(plan.real)
    np.divide(x.view(plan.real), quantum, values)
    np.rint(values, values)
    np.multiply(values, quantum, values)
    if plan.drops_zero_sign:
        np.add(values, 0, values)


def _integer_passes(x: NDArray[Any], out: NDArray[Any], work: NDArray[Any], plan: Plan) -> None:
    np.right_shift(x, plan.shift, work)
    np.bitwise_and(work, plan.one, work)
    np.add(work, plan.half, work)
    np.add(work, x, out)
    np.bitwise_and(out, plan.high, out)


def _aligned(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    raw = np.empty(size * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)
