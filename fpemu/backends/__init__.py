"""Backends: what computes on arrays, behind one small protocol, loaded on first use.

A backend fills `out` from `x`. Both are one-dimensional, C-contiguous, native-endian NumPy
arrays of unsigned bit patterns; sizes agree; `out` may be `x`. It chooses no defaults, checks no
user input, converts no dtypes and allocates only bounded scratch. `params` is what
`fpemu.lowering.lower` made for the container whose patterns these are. ``key`` and ``first``
address random bits: element j draws the lane of local element ``first + j`` of the key.

Other distributions register a backend through the entry-point group ``fpemu.backends``: the
entry point names a callable that returns the backend, or raises ImportError with the reason why
it cannot run here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu.block_lowering import Scaling
from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu.rounding import Noise

Patterns: TypeAlias = NDArray[Any]


class Backend(Protocol):
    """The operations every backend provides, bit for bit the same."""

    name: str

    def round(
        self, x: Patterns, out: Patterns, params: Params, key: Key | None = None, first: int = 0
    ) -> None:
        """Container patterns to container patterns, rounded once; `key` for stochastic modes."""

    def encode(self, x: Patterns, out: Patterns, params: Params) -> None:
        """Patterns of values of the format to codes (uint8/16/32/64). NaN gives `code_nan`."""

    def decode(self, codes: Patterns, out: Patterns, params: Params) -> None:
        """Codes, below ``2**code_bits``, to container patterns."""

    def lanes(self, out: Patterns, key: Key, first: int = 0) -> None:
        """The raw lanes of `key`; the dtype of `out` (uint8/16/32) is the lane width."""

    def add_noise(
        self,
        w: NDArray[np.floating[Any]],
        out: NDArray[np.floating[Any]],
        delta: NDArray[np.floating[Any]],
        noise: Noise,
        key: Key,
        first: int = 0,
    ) -> None:
        """``out = w + R * delta`` in the arrays' own float32 or float64, no contraction.

        R comes from 16-bit lanes. Where ``R * delta`` is zero, `w` is copied.
        """

    def hadamard(
        self, x: NDArray[np.floating[Any]], out: NDArray[np.floating[Any]], size: int
    ) -> None:
        """Hadamard transforms of rows of `size`, a power of two that divides the length.

        In the arrays' own float32 or float64: for strides 1, 2, ... size / 2, ``(a, b)`` that far
        apart become ``(a + b, a - b)``; then one multiplication by the `size`**-0.5 nearest in
        the dtype. NaN results are the positive quiet NaN.
        """

    def round_blocks(
        self,
        x: NDArray[np.floating[Any]],
        out: NDArray[np.floating[Any]],
        scales: NDArray[np.floating[Any]],
        params: Params,
        scaling: Scaling,
        key: Key | None = None,
        first: int = 0,
        stride: int | None = None,
    ) -> None:
        """Values of a block format, by `fpemu.block_reference`; `out` may be `x`.

        `x`, `out`: 2-D C-contiguous float32 or float64; `scales`: one value per tile, of the
        same dtype, filled unless they are given (`ScaleMode.GIVEN`; then NaN, too, for a tile
        with NaN or infinities). `params` are the element's.
        Element (r, c) is local element ``first + r * stride + c``; stride None is x.shape[1].
        """

    def encode_blocks(
        self,
        x: NDArray[np.floating[Any]],
        codes: Patterns,
        scales: NDArray[np.floating[Any]],
        params: Params,
        scaling: Scaling,
        key: Key | None = None,
        first: int = 0,
        stride: int | None = None,
    ) -> None:
        """As `round_blocks`, but to the elements' codes (2-D); 0 under a NaN scale."""

    def decode_blocks(
        self,
        codes: Patterns,
        out: NDArray[np.floating[Any]],
        scales: NDArray[np.floating[Any]],
        params: Params,
        scaling: Scaling,
    ) -> None:
        """The values of elements' codes under given scales; all 2-D."""

    def block_maxima(
        self,
        x: NDArray[np.floating[Any]],
        amax: NDArray[np.floating[Any]],
        height: int,
        width: int,
    ) -> None:
        """max|x| of every tile of a 2-D float32 or float64 array; NaN where a tile holds NaN."""

    def block_scales(
        self,
        amax: NDArray[np.floating[Any]],
        scales: NDArray[np.floating[Any]],
        scaling: Scaling,
    ) -> None:
        """The scales of blocks whose largest magnitudes are `amax`; they may be one array.

        NaN for a block with NaN or an infinity, whether or not the scale format has one.
        """


_BUILT_IN = {"numpy": "fpemu.backends._numpy", "numba": "fpemu.backends._numba"}

_loaded: dict[str, Backend] = {}


def names() -> tuple[str, ...]:
    """Every known backend, available here or not; the built-in ones first."""
    return (*_BUILT_IN, *(name for name in _registered() if name not in _BUILT_IN))


def available() -> tuple[str, ...]:
    """The backends that run here."""
    return tuple(name for name in names() if why_not(name) is None)


def why_not(name: str) -> str | None:
    """Why the backend `name` does not run here, None if it does. Errors: ValueError if unknown."""
    try:
        get(name)
    except ImportError as error:
        return str(error)
    return None


def get(name: str) -> Backend:
    """The backend `name`, loaded if need be.

    Errors: ValueError for an unknown name, ImportError with the reason and the remedy for one
    that does not run here.
    """
    if name in _loaded:
        return _loaded[name]
    if not isinstance(name, str) or name not in names():
        raise ValueError(f"backend must be one of {', '.join(names())}; got {name!r}")
    _loaded[name] = _load(name)
    return _loaded[name]


@cache
def _registered() -> dict[str, Callable[[], Callable[[], Backend]]]:
    return {entry.name: entry.load for entry in entry_points(group="fpemu.backends")}


def _load(name: str) -> Backend:
    if name in _BUILT_IN:
        try:
            backend: Backend = import_module(_BUILT_IN[name]).backend
        except ImportError as error:
            raise ImportError(
                f"backend {name!r} is not available: {error}; install it with "
                f"pip install 'fpemu[{name}]'"
            ) from error
        return backend
    try:
        return _registered()[name]()()
    except ImportError as error:
        raise ImportError(f"backend {name!r} is not available: {error}") from error
