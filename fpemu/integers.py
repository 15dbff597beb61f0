"""Rounding 64-bit integers once, although float64 does not hold them all."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu import reference
from fpemu.backends import Backend
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.lowering import FLOAT64, Params
from fpemu.policy import Policy
from fpemu.rounding import Rounding, Stochastic

_EXACT = 1 << 53


def round_integers(
    x: NDArray[Any],
    fmt: Format,
    rounding: Rounding | Stochastic,
    policy: Policy,
    params: Params,
    key: Key | None,
    first: int,
    engine: Backend,
) -> NDArray[Any]:
    """int64 or uint64 values rounded to `fmt`, as fresh float64 patterns.

    Magnitudes up to 2**53 are exact in float64 and take the backend; the rest are rounded by
    the reference, one by one, which is slow and right.
    """
    bits = x.astype(np.float64).view(np.uint64)
    rounded = np.empty_like(bits)
    engine.round(bits, rounded, params, key, first)
    beyond = x > _EXACT
    if x.dtype.kind == "i":
        beyond |= x < -_EXACT
    for at in np.flatnonzero(beyond):
        draw = 0
        if key is not None and isinstance(rounding, Stochastic):
            lane = key.lane(first + int(at), rounding.lane_bits)
            draw = lane >> (rounding.lane_bits - rounding.bits)
        exact = Fraction(int(x[at]))
        rounded[at] = FLOAT64.pattern(reference.round_value(fmt, exact, rounding, policy, draw))
    return rounded
