"""Orthogonal transforms before quantization: block Hadamard, its randomised form, permutations.

    y = apply(x);  q = quantize(y, fmt);  invert(q)

Each works along one axis, so two operands of a product that share the axis can share the
transform and need no inverse: ``(x H)(w H)^T = x w^T``. The transforms are values, too:
`Hadamard(128)`, `RandomisedHadamard(128, key=7)`, `Permutation(indices)`, and `compose` of them.

The bits are part of the contract: float32 arithmetic (float64 for float64 and integers), in
butterfly stages from stride 1 upward, ``(a, b)`` to ``(a + b, a - b)``, one multiplication by
size**-0.5 at the end, and one rounding to the dtype. `axis`, strides, backends and threads never
change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu import dtypes
from fpemu.arguments import as_array, choose_backend, is_plain, output
from fpemu.backends import Backend
from fpemu.choices import as_int
from fpemu.flushing import refuse_flushing
from fpemu.keys import Key, as_key
from fpemu.lowering import FLOAT32, FLOAT64, Container, lower
from fpemu.policy import Policy
from fpemu.rounding import Rounding

_PIECE = 1 << 16  # elements copied at a time where memory does not lie as the kernels take it

Signs: TypeAlias = NDArray[np.int8]


# ------------------------------------------------------------------- functions


def hadamard(
    x: ArrayLike,
    size: int | None = None,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    backend: str | None = None,
) -> Any:
    """Orthonormal Sylvester Hadamard transform of each `size` consecutive elements along `axis`.

    `x` as in `quantize`, with one axis or more. `size` is a power of two that divides the axis;
    None is the whole axis. The result has the shape and dtype of `x` (integers: float64, each
    rounded to float64 first); `out` takes it instead and may be `x`. Its own inverse up to
    rounding.

    NaN anywhere in a block, or infinities that cancel, give the positive quiet NaN. Intermediate
    sums grow up to `size` times the largest element; beyond the computing dtype's range they are
    infinite. Errors: ValueError for a size that is no power of two or does not divide the axis,
    and for a wrong axis; TypeError for dtypes; RuntimeError where this thread flushes subnormals,
    which would change bits; otherwise as `quantize`.
    """
    return _transformed(x, size, axis, out, backend, None, False)


def randomised_hadamard(
    x: ArrayLike,
    size: int | None = None,
    *,
    key: Key | int,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    backend: str | None = None,
) -> Any:
    """``hadamard(x * signs)`` with the `signs` of `key` along `axis`: H diag(signs) x, blockwise.

    See `signs` for what is drawn and `hadamard` for everything else.
    """
    return _transformed(x, size, axis, out, backend, as_key(key), False)


def inverse_randomised_hadamard(
    y: ArrayLike,
    size: int | None = None,
    *,
    key: Key | int,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    backend: str | None = None,
) -> Any:
    """``hadamard(y) * signs``, the inverse of `randomised_hadamard` with the same arguments."""
    return _transformed(y, size, axis, out, backend, as_key(key), True)


def signs(key: Key | int, length: int, *, backend: str | None = None) -> Signs:
    """The random signs of `length` columns, int8: -1 where the column's bit is 1, else +1.

    Column c takes the top bit of lane c of 8 bits of ``key.child("signs")``. Its index is c
    itself: the offset and rows of `key`, which address the elements of a tensor, play no part, so
    that every row and every shard of whole columns has the same signs.
    Errors: TypeError and ValueError for a wrong key or length, ImportError for the backend.
    """
    count = as_int("length", length)
    if count < 0:
        raise ValueError(f"length must not be negative, got {count}")
    lanes = np.empty(count, np.uint8)
    drawn = replace(as_key(key).child("signs"), offset=0, row_length=None, row_stride=None)
    choose_backend(backend, count).lanes(lanes, drawn)
    return 1 - 2 * (lanes >> 7).astype(np.int8)


def sort_permutation(w: ArrayLike, by: str = "norm", *, axis: int = -1) -> NDArray[np.intp]:
    """The order of the slices of `w` along `axis`, largest first, equal ones in their own order.

    `by` is "max", the largest magnitude of a slice, or "norm", its Euclidean norm: squares
    summed in float64, the leading axes of ``moveaxis(w, axis, -1)`` in C order in pieces of fixed
    size, within about ``2**-53 * n`` relative of the exact sum of n.
    Permuting both operands of a product leaves it as it was and puts large channels into blocks
    of their own (Trukhanov and Soloveychik, arXiv 2403.20137, sort the channels of keys so).
    Errors: ValueError for another `by`, a wrong axis and elements that are not finite; TypeError
    for dtypes.
    """
    if by not in ("norm", "max"):
        raise ValueError(f"by must be 'norm' or 'max', got {by!r}")
    array = as_array(w)[0]
    view = np.moveaxis(array, _axis(axis, array.ndim), -1)
    largest = np.zeros(view.shape[-1])
    for piece, columns in _float64_rows(view):
        np.maximum(largest[columns], np.abs(piece).max(axis=0, initial=0.0), out=largest[columns])
    if not np.isfinite(largest).all():
        raise ValueError("w must be finite to be sorted by magnitude")
    scores = largest
    if by == "norm":
        # a power of two for all, so that squares neither overflow nor vanish beside the largest
        exponent = int(np.frexp(largest.max(initial=0.0))[1])
        scores = np.zeros_like(largest)
        for piece, columns in _float64_rows(view):
            scaled = np.ldexp(piece, -exponent)
            scores[columns] += (scaled * scaled).sum(axis=0)
    return np.argsort(-scores, kind="stable")


# ------------------------------------------------------------------------ values


class Transform(Protocol):
    """Something with an exact inverse (up to rounding) along one axis."""

    def apply(self, x: ArrayLike, *, axis: int = -1) -> Any:
        """A new array, transformed along `axis`."""

    def invert(self, y: ArrayLike, *, axis: int = -1) -> Any:
        """What `apply` was given, up to rounding."""


@dataclass(frozen=True, slots=True)
class Hadamard:
    """`hadamard` in blocks of `size`; None is the whole axis. Errors: as there."""

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", _power_of_two(self.size))

    def apply(self, x: ArrayLike, *, axis: int = -1) -> Any:
        return hadamard(x, self.size, axis=axis)

    def invert(self, y: ArrayLike, *, axis: int = -1) -> Any:
        return hadamard(y, self.size, axis=axis)


@dataclass(frozen=True, slots=True)
class RandomisedHadamard:
    """`randomised_hadamard` in blocks of `size` with the signs of `key`. Errors: as there."""

    size: int | None
    key: Key

    def __init__(self, size: int | None = None, *, key: Key | int) -> None:
        object.__setattr__(self, "size", None if size is None else _power_of_two(size))
        object.__setattr__(self, "key", as_key(key))

    def apply(self, x: ArrayLike, *, axis: int = -1) -> Any:
        return randomised_hadamard(x, self.size, key=self.key, axis=axis)

    def invert(self, y: ArrayLike, *, axis: int = -1) -> Any:
        return inverse_randomised_hadamard(y, self.size, key=self.key, axis=axis)


@dataclass(frozen=True, slots=True)
class Permutation:
    """Element i along the axis becomes the one that was at ``indices[i]``.

    `indices`: every number of 0..n - 1 once. Exact, NaN payloads included. Errors: ValueError for
    indices that are no permutation and for an axis of another length.
    """

    indices: tuple[int, ...]

    def __init__(self, indices: ArrayLike) -> None:
        order = np.asarray(indices)
        if order.ndim != 1 or (order.size and order.dtype.kind not in "iu"):
            raise ValueError(
                f"indices must be one row of integers, got shape {order.shape} of {order.dtype}"
            )
        if not np.array_equal(np.sort(order), np.arange(order.size)):
            raise ValueError(f"indices must hold every number of 0..{order.size - 1} once")
        object.__setattr__(self, "indices", tuple(order.tolist()))

    def __str__(self) -> str:
        shown = [str(i) for i in self.indices[:4]] + ["..."] * (len(self.indices) > 4)
        return f"Permutation([{', '.join(shown)}], length={len(self.indices)})"

    def apply(self, x: ArrayLike, *, axis: int = -1) -> Any:
        return self._take(x, np.array(self.indices, np.intp), axis)

    def invert(self, y: ArrayLike, *, axis: int = -1) -> Any:
        return self._take(y, np.argsort(np.array(self.indices, np.intp)), axis)

    def _take(self, x: ArrayLike, order: NDArray[np.intp], axis: int) -> NDArray[Any]:
        array = as_array(x)[0]
        along = _axis(axis, array.ndim)
        if array.shape[along] != order.size:
            raise ValueError(
                f"axis {axis} must have the permutation's length {order.size}, "
                f"got {array.shape[along]}"
            )
        return np.take(array, order, axis=along)


@dataclass(frozen=True, slots=True)
class Composition:
    """`steps` one after the other; inverted from the last to the first. See `compose`."""

    steps: tuple[Transform, ...]

    def __str__(self) -> str:
        return f"compose({', '.join(map(str, self.steps))})"

    def apply(self, x: ArrayLike, *, axis: int = -1) -> Any:
        for step in self.steps:
            x = step.apply(x, axis=axis)
        return x

    def invert(self, y: ArrayLike, *, axis: int = -1) -> Any:
        for step in reversed(self.steps):
            y = step.invert(y, axis=axis)
        return y


def compose(first: Transform, *others: Transform) -> Composition:
    """The transforms in the order given, as one: ``compose(Permutation(p), Hadamard(32))``."""
    return Composition((first, *others))


# ------------------------------------------------------------------------- doing


def _transformed(
    x: ArrayLike,
    size: int | None,
    axis: int,
    out: NDArray[Any] | None,
    backend: str | None,
    key: Key | None,
    signs_last: bool,
) -> NDArray[Any]:
    array, _ = as_array(x)
    along = _axis(axis, array.ndim)
    length = array.shape[along]
    span = _power_of_two(length if size is None else size)
    if length % span:
        raise ValueError(f"size must divide the axis: {length} is no multiple of {span}")
    compute = FLOAT64 if dtypes.container_of(array.dtype) in (FLOAT64, None) else FLOAT32
    target = dtypes.container_of(array.dtype) or FLOAT64
    result = output("out", out, array, dtypes.dtype_of(target))
    refuse_flushing()
    engine = choose_backend(backend, array.size)
    columns = None if key is None else signs(key, length, backend=engine.name)
    source, places = np.moveaxis(array, along, -1), np.moveaxis(result, along, -1)
    direct = columns is None and compute is target and array.dtype == result.dtype
    if direct and is_plain(source) and is_plain(places):
        engine.hadamard(source.reshape(-1), places.reshape(-1), span)
    else:
        _by_pieces(source, places, span, compute, engine, columns, signs_last)
    return result


def _by_pieces(
    x: NDArray[Any],
    out: NDArray[Any],
    size: int,
    compute: Container,
    engine: Backend,
    columns: Signs | None,
    signs_last: bool,
) -> None:
    """Blocks along the last axis, through contiguous copies of bounded size."""
    target = dtypes.container_of(out.dtype)
    assert target is not None
    params = lower(target.format, Rounding.NEAREST_EVEN, Policy(), compute)
    factors = None if columns is None else columns.astype(f"f{compute.bits // 8}")
    for index in _rectangles(x.shape, size):
        piece = _copy(x[index], compute)
        flat = piece.reshape(-1)
        if factors is not None and not signs_last:
            _negate(piece, factors[index[-1]])
        engine.hadamard(flat, flat, size)
        if factors is not None and signs_last:
            _negate(piece, factors[index[-1]])
        if target is compute:
            out[index] = piece
            continue
        bits = dtypes.patterns(flat)
        engine.round(bits, bits, params)
        place = np.empty(piece.shape, out.dtype)
        dtypes.narrow(bits.reshape(piece.shape), compute, place)
        out[index] = place


def _negate(x: NDArray[Any], factors: NDArray[Any]) -> None:
    """Multiply rows by +-1 in place, which leaves the sign of a NaN alone."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        x *= factors


def _rectangles(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Slices that cut an array of `shape` into about `_PIECE` elements, in blocks of `size`."""
    *leading, length = shape
    if not leading:
        step = max(size, _PIECE // size * size)
        for start in range(0, length, step):
            yield (slice(start, start + step),)
        return
    inner = length
    for count in leading[1:]:
        inner *= count
    step = max(1, _PIECE // max(inner, 1))
    for start in range(0, leading[0], step):
        rows = slice(start, start + step)
        if step > 1 or inner <= _PIECE:
            yield (rows, *(slice(None) for _ in shape[1:]))
        else:
            for rest in _rectangles(shape[1:], size):
                yield (rows, *rest)


def _copy(x: NDArray[Any], compute: Container) -> NDArray[Any]:
    """A contiguous copy in the computing dtype; 64-bit integers are rounded to float64."""
    wide = dtypes.widen(np.array(x, order="C", subok=False), compute)
    return wide.view(f"f{compute.bits // 8}")


def _float64_rows(view: NDArray[Any]) -> Iterator[tuple[NDArray[np.float64], slice]]:
    """Pieces of an array as float64 matrices, the last axis being their columns, and which."""
    for index in _rectangles(view.shape, 1) if view.size else ():
        piece = view[index]
        with np.errstate(invalid="ignore"):  # of signalling NaNs
            yield piece.reshape(-1, piece.shape[-1]).astype(np.float64), index[-1]


def _axis(axis: int, dimensions: int) -> int:
    number = as_int("axis", axis)
    if not -dimensions <= number < dimensions:
        raise ValueError(f"axis must be an axis of x, which has {dimensions}, got {number}")
    return number % dimensions


def _power_of_two(size: int) -> int:
    number = as_int("size", size)
    if number < 1 or number & number - 1:
        raise ValueError(f"size must be a power of two, got {number}")
    return number
