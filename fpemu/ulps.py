"""The format's ulp at every element of an array, as `Format.ulp` defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.formats import Format, Subnormals


def step_exponents(x: NDArray[np.floating[Any]], fmt: Format) -> NDArray[np.int32]:
    """log2 of the ulp of `fmt` at finite `x` (float32 or float64), the exponent unbounded above."""
    if fmt.exponent_bits == 0:
        return np.full(x.shape, fmt.quantum_exponent, np.int32)
    exponents = np.where(x == 0, fmt.emin - 1, np.frexp(x)[1] - 1)
    steps = np.maximum(exponents, fmt.emin) - fmt.mantissa_bits
    if fmt.subnormals is Subnormals.FLUSH:
        steps = np.where(exponents < fmt.emin, fmt.emin, steps)
    return steps.astype(np.int32)
