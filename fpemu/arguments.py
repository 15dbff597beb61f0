"""What the verbs on arrays do with their arguments: conversions, checks, and the walk in pieces."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu import backends, dtypes
from fpemu.backends import Backend
from fpemu.keys import Key, as_key
from fpemu.rounding import Descriptor, Stochastic

CHUNK = 1 << 16
_OVERLAP_WORK: Any = 1 << 16  # candidate solutions to try before calling it an overlap
_NUMBA_PAYS = 1 << 16  # elements from which loading numba is worth its start


def as_array(x: Any) -> tuple[NDArray[Any], bool]:
    """`x` as a native NumPy array of a dtype we take, and whether it was a scalar.

    Errors: TypeError naming the dtype that came.
    """
    array = x if type(x) is np.ndarray else _import(x)
    if array.dtype.kind not in "iu" and dtypes.container_of(array.dtype) is None:
        raise TypeError(f"x must be {dtypes.ALLOWED}, got dtype {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array, array.ndim == 0 and not isinstance(x, np.ndarray)


def _import(x: Any) -> NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("x must not be a masked array; fill it first")
    if type(x).__module__.partition(".")[0] == "torch":
        raise TypeError("x must be a NumPy array or convertible to one; got a torch tensor")
    if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray | np.generic):
        return np.from_dlpack(x)
    array = np.asarray(x)
    if isinstance(x, list | tuple) and array.dtype == np.float64:
        _refuse_inexact_integers(x)
    return array


def _refuse_inexact_integers(x: Any) -> None:
    """NumPy turns a list of integers that no integer type holds into float64, inexactly."""
    for leaf in np.asarray(x, dtype=object).flat:
        if isinstance(leaf, int) and abs(leaf) > 1 << 53:
            raise ValueError(
                f"x must not mix {leaf} with numbers of other types in a list, because float64 "
                "would round it first; give an array of the dtype you mean"
            )


def output(
    name: str, out: NDArray[Any] | None, x: NDArray[Any], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """`out` after its checks, or a new array of the shape (and memory order) of `x`."""
    if out is None:
        return np.empty_like(x, dtype=dtype, subok=False)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(out).__name__}")
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"{name} must have dtype {dtype}, got {out.dtype}")
    if out.shape != x.shape:
        raise ValueError(f"{name} must have shape {x.shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} must be writeable, got a read-only array")
    if out is not x and np.may_share_memory(out, x) and not _may_alias(out, x):
        raise ValueError(f"{name} must be x itself or not overlap it, got partly shared memory")
    if 0 in out.strides and any(
        n > 1 and step == 0 for n, step in zip(out.shape, out.strides, strict=True)
    ):
        raise ValueError(f"{name} must have distinct elements, got a broadcast array")
    return out


def _may_alias(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are element for element the same memory, or share none."""
    same = a.ctypes.data == b.ctypes.data and a.strides == b.strides
    if same and a.itemsize == b.itemsize:
        return True
    try:
        return not np.shares_memory(a, b, max_work=_OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return False


def required_key(key: Key | int | None, rounding: Descriptor) -> Key:
    """`key` as a Key. Errors: ValueError if there is none."""
    if key is None:
        raise ValueError(f"key must be given with rounding={str(rounding)!r}: a Key or an int seed")
    return as_key(key)


def key_for(key: Key | int | None, rounding: Descriptor) -> Key | None:
    if isinstance(rounding, Stochastic):
        return required_key(key, rounding)
    if key is not None:
        as_key(key)  # a wrong key is an error even where none is needed
    return None


def choose_backend(name: str | None, size: int) -> Backend:
    """The backend asked for, or the one that pays for `size` elements."""
    if name is not None:
        return backends.get(name)
    loaded = "fpemu.backends._numba" in sys.modules
    return backends.get("numba" if (loaded or size >= _NUMBA_PAYS) and _has_numba() else "numpy")


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None and backends.why_not("numba") is None


def pieces(
    x: NDArray[Any], out: NDArray[Any], any_order: bool = False
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """(first, piece of x, place in out): one-dimensional contiguous runs of C order, bounded.

    `any_order` allows the memory order instead, where both arrays share it.
    """
    if any_order and x.flags.f_contiguous and out.flags.f_contiguous:
        x, out = x.T, out.T
    if is_plain(x) and is_plain(out):
        flat, places = x.reshape(-1), out.reshape(-1)
        for first in range(0, flat.size, CHUNK):
            yield first, flat[first : first + CHUNK], places[first : first + CHUNK]
        return
    source, target = x.dtype, out.dtype
    # Unsigned views, so that the iterator need know nothing of bfloat16.
    iterate: Any = np.nditer  # its stubs do not know buffered iteration over a list
    walker = iterate(
        [x.view(dtypes.unsigned(8 * x.itemsize)), out.view(dtypes.unsigned(8 * out.itemsize))],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly", "contig", "aligned"], ["writeonly", "contig", "aligned"]],
        order="C",
        buffersize=CHUNK,
    )
    first = 0
    with walker:
        for piece, place in walker:
            yield first, piece.view(source), place.view(target)
            first += piece.size


def is_plain(x: NDArray[Any]) -> bool:
    return x.flags.c_contiguous and x.flags.aligned
