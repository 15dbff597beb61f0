"""The values of `gaussian` noise: half the normal quantile of a 16-bit draw, as a table."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

DRAWS = 1 << 16


@cache
def table() -> NDArray[np.float32]:
    """The 65536 noise values by draw, read-only: entry u is the float32 nearest to half the
    standard normal quantile at ``(u + 1/2) / 2**16``.

    Entry ``65535 - u`` is minus entry u; none is zero. float64 quantiles, good to about 1e-15,
    round to the right float32 because no exact value is closer than 1e-12 (relatively) to the
    middle of two floats; a test checks this against 40-digit arithmetic.
    """
    quantile = NormalDist().inv_cdf
    lower = [quantile((2 * u + 1) / (2 * DRAWS)) / 2 for u in range(DRAWS // 2)]
    values = np.empty(DRAWS, np.float32)
    values[: DRAWS // 2] = lower
    values[DRAWS // 2 :] = -values[: DRAWS // 2][::-1]
    values.flags.writeable = False
    return values
