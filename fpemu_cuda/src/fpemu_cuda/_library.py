"""The shared library: found, loaded and checked on first use.

The library stands beside this file in an installed wheel. ``FPEMU_CUDA_LIBRARY`` names another one,
for development.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from fpemu.keys import Key
from fpemu.lowering import Params

ABI_VERSION = 1
_WORD64 = (1 << 64) - 1
_NAMES = {"win32": "fpemu_core.dll", "darwin": "libfpemu_core.dylib"}


class CParams(ctypes.Structure):
    """`fpemu_params`: the fields of `fpemu.lowering.Params`, in order."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in Params._fields)


class CKey(ctypes.Structure):
    """`fpemu_key`: the fields of a Key and the local index of the call's first element."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("seed", "stream", "offset", "row_length", "row_stride", "first")
    )


def c_key(key: Key, first: int) -> CKey:
    """A key as the library takes it."""
    return CKey(
        key.seed, key.stream, key.offset, key.row_length or 0, key.row_stride or 0, first & _WORD64
    )


_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_PARAMS, _KEY = ctypes.POINTER(CParams), ctypes.POINTER(CKey)
# (result, arguments) of every function of csrc/abi.h
SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "fpemu_abi_version": (_INT, ()),
    "fpemu_params_size": (_SIZE, ()),
    "fpemu_key_size": (_SIZE, ()),
    "fpemu_params_offset": (_SIZE, (ctypes.c_char_p,)),
    "fpemu_key_offset": (_SIZE, (ctypes.c_char_p,)),
    "fpemu_has_cuda": (_INT, ()),
    "fpemu_has_openmp": (_INT, ()),
    "fpemu_host_isa": (ctypes.c_char_p, ()),
    "fpemu_host_round": (_INT, (_POINTER, _POINTER, _SIZE, _PARAMS, _KEY, _INT)),
    "fpemu_host_encode": (_INT, (_POINTER, _POINTER, _SIZE, _INT, _PARAMS, _INT)),
    "fpemu_host_decode": (_INT, (_POINTER, _POINTER, _SIZE, _INT, _PARAMS, _INT)),
    "fpemu_host_lanes": (_INT, (_POINTER, _SIZE, _INT, _KEY, _INT)),
    "fpemu_host_add_noise": (
        _INT,
        (_POINTER, _POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER, _KEY, _INT),
    ),
}
_CUDA_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "fpemu_cuda_round": (_INT, (_POINTER, _POINTER, _SIZE, _PARAMS, _KEY, _POINTER)),
    "fpemu_cuda_encode": (_INT, (_POINTER, _POINTER, _SIZE, _INT, _PARAMS, _POINTER)),
    "fpemu_cuda_decode": (_INT, (_POINTER, _POINTER, _SIZE, _INT, _PARAMS, _POINTER)),
    "fpemu_cuda_lanes": (_INT, (_POINTER, _SIZE, _INT, _KEY, _POINTER)),
    "fpemu_cuda_add_noise": (
        _INT,
        (_POINTER, _POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER, _KEY, _POINTER),
    ),
    "fpemu_cuda_error_name": (ctypes.c_char_p, (_INT,)),
    "fpemu_cuda_device_count": (_INT, ()),
}


@cache
def library() -> ctypes.CDLL:
    """The loaded library. Errors: ImportError if it is missing, does not load or does not fit."""
    path = _path()
    if not path.exists():
        raise ImportError(f"its library is missing: {path}; reinstall fpemu-cuda")
    try:
        found = ctypes.CDLL(str(path))
        _declare(found, SIGNATURES)
        if found.fpemu_has_cuda():
            _declare(found, _CUDA_SIGNATURES)
    except (OSError, AttributeError) as error:
        raise ImportError(f"its library {path} does not load: {error}") from error
    _check(found, path)
    return found


def _declare(found: ctypes.CDLL, signatures: dict[str, tuple[object, tuple[object, ...]]]) -> None:
    for name, (result, arguments) in signatures.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments


def _path() -> Path:
    override = os.environ.get("FPEMU_CUDA_LIBRARY")
    if override:
        return Path(override)
    return Path(__file__).with_name(_NAMES.get(sys.platform, "libfpemu_core.so"))


def _check(found: ctypes.CDLL, path: Path) -> None:
    """Errors: ImportError where the library is of another version or lays records out otherwise."""
    version = found.fpemu_abi_version()
    if version != ABI_VERSION:
        raise ImportError(
            f"its library {path} has interface version {version}, this package needs {ABI_VERSION}"
        )
    for record, size, offset in (
        (CParams, found.fpemu_params_size, found.fpemu_params_offset),
        (CKey, found.fpemu_key_size, found.fpemu_key_offset),
    ):
        fits = size() == ctypes.sizeof(record) and all(
            offset(name.encode()) == getattr(record, name).offset for name, *_ in record._fields_
        )
        if not fits:
            raise ImportError(f"its library {path} lays out {record.__name__} otherwise")


def check(status: int) -> None:
    """Errors: RuntimeError for a result that is not 0, with CUDA's name for it."""
    if status > 0:
        name = library().fpemu_cuda_error_name(status).decode()
        raise RuntimeError(f"fpemu_cuda: CUDA reports {name} ({status})")
    if status:
        raise RuntimeError(f"fpemu_cuda: the library refused a call (status {status})")
