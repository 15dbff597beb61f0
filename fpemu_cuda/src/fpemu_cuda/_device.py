"""Calls on device memory: raw addresses, lengths and a stream, checked by the caller.

Nothing here allocates or synchronises. The current device must be the one that the memory and
the stream belong to.
"""

from __future__ import annotations

from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu_cuda._library import c_key, check, library
from fpemu_cuda._native import c_params


def round_at(
    x: int, out: int, size: int, params: Params, key: Key | None, first: int, stream: int
) -> None:
    """Patterns at address `x` rounded to `out`, which may be `x`."""
    address = None if key is None or not params.random_bits else c_key(key, first)
    check(library().fpemu_cuda_round(x, out, size, c_params(params), address, stream))


def encode_at(x: int, codes: int, size: int, code_bytes: int, params: Params, stream: int) -> None:
    """Patterns of members to codes."""
    check(library().fpemu_cuda_encode(x, codes, size, code_bytes, c_params(params), stream))


def decode_at(
    codes: int, out: int, size: int, code_bytes: int, params: Params, stream: int
) -> None:
    """Codes to patterns."""
    check(library().fpemu_cuda_decode(codes, out, size, code_bytes, c_params(params), stream))


def lanes_at(out: int, size: int, lane_bits: int, key: Key, first: int, stream: int) -> None:
    """Raw lanes of a key."""
    check(library().fpemu_cuda_lanes(out, size, lane_bits, c_key(key, first), stream))


def add_noise_at(
    w: int, out: int, delta: int, size: int, width: int, noise: int, table: int | None,
    key: Key, first: int, stream: int,
) -> None:  # fmt: skip
    """``out = w + R * delta``; `table` is the address of the gaussian table, on the device."""
    check(
        library().fpemu_cuda_add_noise(
            w, out, delta, size, width, noise, table, c_key(key, first), stream
        )
    )


def why_not() -> str | None:
    """Why there is no GPU to run on; None if there is one."""
    if not library().fpemu_has_cuda():
        return "this build of fpemu-cuda has no GPU part (no CUDA compiler when it was built)"
    if not library().fpemu_cuda_device_count():
        return "no CUDA device is visible (no GPU, no driver, or CUDA_VISIBLE_DEVICES hides it)"
    return None
