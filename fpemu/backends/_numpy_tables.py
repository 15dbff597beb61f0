"""Tables: what has only 2**16 different operands is computed once and looked up.

Patterns of float16 and bfloat16, codes of up to 16 bits, and patterns of wider containers in
which only the top 16 bits are used, as in the values of most small formats.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.backends._numpy_codes import decode_codes, encode_patterns
from fpemu.backends._numpy_grid import round_patterns
from fpemu.lowering import Params

BITS = 16
# From this many elements on a table of 2**16 entries pays, if it is used again.
WORTH = 1 << 14
_CHUNK = 1 << 14


@lru_cache(maxsize=16)
def rounded(p: Params) -> NDArray[Any]:
    """By pattern of a 16-bit container, for deterministic modes."""
    return round_patterns(np.arange(1 << BITS, dtype=np.uint16), p)


@lru_cache(maxsize=16)
def codes(p: Params, dtype: np.dtype[Any]) -> NDArray[Any]:
    """By the top 16 bits of a pattern whose other bits are zero."""
    top = np.arange(1 << BITS, dtype=f"u{p.width // 8}") << p.width - BITS
    return encode_patterns(top, p).astype(dtype)


@lru_cache(maxsize=16)
def values(p: Params, dtype: np.dtype[Any]) -> NDArray[Any]:
    """By code, for codes of up to 16 bits."""
    return decode_codes(np.arange(1 << p.code_bits, dtype=np.uint32), p).astype(dtype)


def look_up(table: NDArray[Any], index: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = table[index]``; every index is within the table."""
    for start in range(0, index.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        np.take(table, index[part], out=out[part], mode="clip")
