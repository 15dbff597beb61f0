"""A small pool of Python threads for kernels that release the interpreter lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba

_SHARE = 1 << 17  # elements a thread must have for its start to pay
_pool: ThreadPoolExecutor | None = None
_starting = threading.Lock()


def share(part: Callable[[int, int], None], size: int, unit: int = 64) -> None:
    """Call ``part(begin, end)`` on parts of range(size), on this thread and the pool's.

    Parts begin at multiples of `unit`; where it is large, some may be empty.
    """
    threads = 1 if size < 2 * _SHARE else min(numba.get_num_threads(), size // _SHARE)
    if threads < 2:
        part(0, size)
        return
    share = -(-size // threads // unit) * unit
    edges = [*(min(share * i, size) for i in range(threads)), size]
    others = [_workers().submit(part, a, b) for a, b in pairwise(edges[1:])]
    try:
        part(edges[0], edges[1])
    finally:
        for other in others:
            other.result()


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _starting:
        if _pool is not None:
            return _pool
        workers = max(numba.get_num_threads() - 1, os.cpu_count() or 1)
        _pool = ThreadPoolExecutor(workers, thread_name_prefix="fpemu")
    return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _starting
    _pool, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
