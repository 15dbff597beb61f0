"""Detect a thread that flushes subnormals to zero, which would change computed results."""

from __future__ import annotations

import numpy as np

_TINY = np.array([2.0**-149], np.float32)


def refuse_flushing() -> None:
    """Errors: RuntimeError where this thread flushes subnormals."""
    if not (_TINY * np.float32(1)).view(np.uint32)[0]:
        raise RuntimeError(
            "this thread flushes subnormals to zero, which would change the results; "
            "reset its floating-point mode first"
        )
