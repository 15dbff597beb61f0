"""The native backend: the core that the GPU runs, compiled for the processor."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.backends import Patterns
from fpemu.backends._blocks import BlockOperations
from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu.rounding import Noise
from fpemu_cuda._library import CParams, c_key, check, library

_NOISES = {Noise.ROUNDED_GAUSSIAN: 0, Noise.GAUSSIAN: 1, Noise.UNIFORM: 2}


class NativeBackend(BlockOperations):
    """`fpemu.backends.Backend` on the host. Threads: those this process may run on."""

    name = "native"

    def __init__(self) -> None:
        self._library = library()

    def round(
        self, x: Patterns, out: Patterns, params: Params, key: Key | None = None, first: int = 0
    ) -> None:
        address = None if key is None or not params.random_bits else c_key(key, first)
        check(
            self._library.fpemu_host_round(
                x.ctypes.data, out.ctypes.data, x.size, c_params(params), address, threads()
            )
        )

    def encode(self, x: Patterns, out: Patterns, params: Params) -> None:
        check(
            self._library.fpemu_host_encode(
                x.ctypes.data, out.ctypes.data, x.size, out.itemsize, c_params(params), threads()
            )
        )

    def decode(self, codes: Patterns, out: Patterns, params: Params) -> None:
        check(
            self._library.fpemu_host_decode(
                codes.ctypes.data, out.ctypes.data, codes.size, codes.itemsize, c_params(params),
                threads(),
            )
        )  # fmt: skip

    def lanes(self, out: Patterns, key: Key, first: int = 0) -> None:
        check(
            self._library.fpemu_host_lanes(
                out.ctypes.data, out.size, 8 * out.itemsize, c_key(key, first), threads()
            )
        )

    def add_noise(
        self,
        w: NDArray[np.floating[Any]],
        out: NDArray[np.floating[Any]],
        delta: NDArray[np.floating[Any]],
        noise: Noise,
        key: Key,
        first: int = 0,
    ) -> None:
        table = None
        if noise is Noise.GAUSSIAN:
            from fpemu.gaussian import table as gaussian_table

            table = gaussian_table().ctypes.data
        check(
            self._library.fpemu_host_add_noise(
                w.ctypes.data, out.ctypes.data, delta.ctypes.data, w.size, 8 * w.itemsize,
                _NOISES[noise], table, c_key(key, first), threads(),
            )
        )  # fmt: skip


@lru_cache(maxsize=1024)
def c_params(params: Params) -> ctypes.Structure:
    """The record as the library takes it."""
    return CParams(*params)


def threads() -> int:
    """How many threads a call may use: the processors of this process, or OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        return int(limit)
    return _processors()


@lru_cache(maxsize=1)
def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def backend() -> NativeBackend:
    """The backend, for the entry point. Errors: ImportError."""
    return NativeBackend()
