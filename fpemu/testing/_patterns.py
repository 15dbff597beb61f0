"""Arrays as bit patterns: the only form in which results are compared.

Everything here works on any dtype that `fpemu.lowering.CONTAINERS` names; bfloat16 needs
ml_dtypes for its dtype and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.lowering import CONTAINERS, Container
from fpemu.values import Special, Value

Floats: TypeAlias = NDArray[Any]
Unsigned: TypeAlias = NDArray[Any]


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The NumPy dtype of a container: float16, float32, float64, or ml_dtypes' bfloat16.

    Errors: ValueError for any other dtype, ImportError for "bfloat16" without ml_dtypes.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    found: np.dtype[Any] = np.dtype(dtype)
    _container(found)
    return found


def container_of(dtype: DTypeLike) -> Container:
    """The fields of a floating dtype. Errors: as `float_dtype`."""
    return _container(float_dtype(dtype))


@lru_cache(maxsize=64)
def _container(dtype: np.dtype[Any]) -> Container:
    if dtype.name not in CONTAINERS:
        raise ValueError(f"dtype must be one of {', '.join(CONTAINERS)}, got {dtype}")
    return CONTAINERS[dtype.name]


def containers(fmt: Format | str) -> tuple[np.dtype[Any], ...]:
    """The dtypes that hold every value of `fmt`, narrow ones first; bfloat16 if it is there."""
    target = as_format(fmt)
    found = []
    for name, container in CONTAINERS.items():
        if container.holds(target):
            try:
                found.append(float_dtype(name))
            except ImportError:
                continue
    return tuple(found)


def usual_dtype(fmt: Format | str) -> np.dtype[Any]:
    """float32 where it holds `fmt`, else float64. Errors: ValueError where neither does."""
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        if container_of(dtype).holds(as_format(fmt)):
            return dtype
    raise ValueError(f"fmt must fit float64, got {fmt}")


def bits(x: Floats) -> Unsigned:
    """The patterns of an array of floats, same shape; a copy where `x` is not contiguous."""
    width = container_of(x.dtype).bits
    return np.ascontiguousarray(x).view(f"u{width // 8}").reshape(x.shape)


def floats(patterns: Unsigned, dtype: DTypeLike) -> Floats:
    """The floats of an array of patterns; the inverse of `bits`."""
    target = float_dtype(dtype)
    unsigned = np.ascontiguousarray(patterns, dtype=f"u{target.itemsize}")
    return unsigned.view(target).reshape(np.shape(patterns))


def pattern(value: Value, dtype: DTypeLike) -> int:
    """The pattern of one exact value; NaN is the canonical positive quiet NaN."""
    return container_of(dtype).pattern(value)


def exact(values: Iterable[Value], dtype: DTypeLike) -> Floats:
    """A vector of exact values that `dtype` holds. Errors: ValueError for one it does not."""
    return floats(np.array([pattern(v, dtype) for v in values], dtype=np.uint64), dtype)


def widen(x: Floats) -> NDArray[np.float64]:
    """`x` as float64, exactly. Errors: ValueError for integers beyond 2**53."""
    if x.dtype.kind in "iu" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > 1 << 53:
        raise ValueError("x must be exact in float64, got integers beyond 2**53")
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return x.astype(np.float64)


def is_nan(x: Floats) -> NDArray[np.bool_]:
    """Which elements are NaN, read from the bits: no float operation, so no warning."""
    container = container_of(x.dtype)
    found: NDArray[np.bool_] = (bits(x) & bits(x).dtype.type(container.sign - 1)) > np.uint64(
        container.infinity
    )
    return found


def narrow(values: NDArray[np.float64], dtype: DTypeLike) -> Floats:
    """float64 values that `dtype` holds, as `dtype`; every NaN canonical."""
    target = float_dtype(dtype)
    with np.errstate(all="ignore"):
        result: Floats = values.astype(target)
    found = bits(result).copy()
    found[np.isnan(values)] = pattern(Special.NAN, target)
    return floats(found, target)


def nans(dtype: DTypeLike) -> Floats:
    """NaNs of both signs: canonical, signalling, quiet with payload, all ones."""
    container = container_of(dtype)
    inf, quiet = container.infinity, pattern(Special.NAN, dtype)
    positive = [quiet, inf + 1, quiet + 1, container.sign - 1]
    return floats(
        np.array(positive + [p | container.sign for p in positive], dtype=np.uint64), dtype
    )


def flip(x: Floats) -> Floats:
    """-x, by the sign bit."""
    patterns = bits(x)
    return floats(patterns ^ patterns.dtype.type(1 << (8 * x.dtype.itemsize - 1)), x.dtype)


def show(x: Floats) -> str:
    """One float with its pattern, as in ``1.0625 (float32 0x3f880000)``."""
    scalar = np.asarray(x).reshape(1)
    digits = container_of(scalar.dtype).bits // 4
    value = float(widen(scalar)[0])
    return f"{value!r} ({scalar.dtype.name} 0x{int(bits(scalar)[0]):0{digits}x})"
