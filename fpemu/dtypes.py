"""NumPy dtypes and containers: which is which, and exact conversions between their patterns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpemu.formats import Format
from fpemu.lowering import BFLOAT16, CONTAINERS, FLOAT16, FLOAT32, FLOAT64, Container

ALLOWED = "float64, float32, float16, bfloat16 (ml_dtypes) or an integer type"
_UNSIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype("u1"),
    16: np.dtype("u2"),
    32: np.dtype("u4"),
    64: np.dtype("u8"),
}
_FLOATS: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("f2"),
    "float32": np.dtype("f4"),
    "float64": np.dtype("f8"),
}


def unsigned(bits: int) -> np.dtype[Any]:
    """The unsigned dtype of exactly `bits` bits (8, 16, 32, 64)."""
    return _UNSIGNED[bits]


def code_dtype(fmt: Format) -> np.dtype[Any]:
    """The smallest unsigned dtype that holds the codes of `fmt`."""
    return next(dtype for bits, dtype in _UNSIGNED.items() if fmt.bits <= bits)


@lru_cache(maxsize=256)
def container_of(dtype: np.dtype[Any]) -> Container | None:
    """The container whose values `dtype` stores, None for any other dtype.

    ml_dtypes' bfloat16 is known by its name, so that ml_dtypes need not be imported.
    """
    return CONTAINERS.get(dtype.name)


def dtype_of(container: Container) -> np.dtype[Any]:
    """The dtype of a container. Errors: ImportError for bfloat16 without ml_dtypes."""
    if container is BFLOAT16:
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError(
                "dtype 'bfloat16' needs ml_dtypes; install it with pip install 'fpemu[interop]'"
            ) from None
        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
    return _FLOATS[container.name]


def as_dtype(name: str, dtype: DTypeLike) -> tuple[np.dtype[Any], Container]:
    """A float dtype an argument called `name` asks for, with its container.

    Errors: TypeError for anything that is not one of the four float dtypes.
    """
    text: object = getattr(dtype, "__name__", dtype)
    if text in ("bfloat16", "bf16"):
        return dtype_of(BFLOAT16), BFLOAT16
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    container = container_of(found)
    if container is None:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {dtype!r}")
    return found.newbyteorder("="), container


def holders(fmt: Format) -> list[str]:
    """The names of the dtypes that hold every value of `fmt`."""
    return [name for name, container in CONTAINERS.items() if container.holds(fmt)]


def refuse(name: str, dtype: object, fmt: Format) -> ValueError:
    """The error for a dtype that cannot hold a format's values; names those that can."""
    able = holders(fmt)
    remedy = f"use {' or '.join(able)}" if able else "no supported dtype can"
    return ValueError(f"{name} {dtype} cannot hold every value of {fmt}; {remedy}")


def patterns(x: NDArray[Any]) -> NDArray[Any]:
    """The bits of a native array of any float dtype, without a copy."""
    return x.view(_UNSIGNED[x.dtype.itemsize * 8])


def widen(x: NDArray[Any], container: Container) -> NDArray[Any]:
    """The patterns of float or integer values in a container that holds them exactly."""
    source = container_of(x.dtype)
    if source is container:
        return patterns(x)
    if source is BFLOAT16:
        as_float32 = np.left_shift(patterns(x), 16, dtype=np.uint32)
        return as_float32 if container is FLOAT32 else widen(as_float32.view("f4"), container)
    return patterns(x.astype(_FLOATS[container.name]))


def narrow(x: NDArray[Any], container: Container, out: NDArray[Any]) -> None:
    """Write patterns of `container` to the float array `out`, which holds their values exactly."""
    target = container_of(out.dtype)
    if target is container:
        patterns(out)[...] = x
    elif target is BFLOAT16:
        floats = x.view(_FLOATS[container.name]).astype(np.float32, copy=False)
        np.right_shift(patterns(floats), 16, out=patterns(out), casting="unsafe")
    elif container is BFLOAT16:
        out[...] = np.left_shift(x, 16, dtype=np.uint32).view("f4")
    else:
        out[...] = x.view(_FLOATS[container.name])


def common(source: Container, fmt: Format) -> Container | None:
    """The smallest container that holds the values of both `source` and `fmt`."""
    if source.holds(fmt):
        return source
    for container in (FLOAT16, FLOAT32, FLOAT64):
        if container.holds(fmt) and container.holds(source.format):
            return container
    return None
