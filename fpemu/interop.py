"""Codes as arrays of ml_dtypes and tensors of torch, and back: views wherever the bits agree.

ml_dtypes has one element a byte for formats of less than 8 bits, in the low bits. torch's
``float4_e2m1fn_x2`` has two elements a byte, the first in the low nibble, as `fpemu.packing` has.
Unsigned E4M3 shares the dtype of ``e4m3fn``, whose sign bit is then zero.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpemu import dtypes
from fpemu.blocks import BlockFormat, Spec, as_spec
from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.packing import pack
from fpemu.quantized import Quantized

ML_DTYPES, TORCH = "ml_dtypes", "torch"

# Canonical names of formats, and the names that their dtypes have.
_BOTH = {
    "e4m3fn": "float8_e4m3fn", "e4m3fnuz": "float8_e4m3fnuz", "ue4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2", "e5m2fnuz": "float8_e5m2fnuz", "e8m0": "float8_e8m0fnu",
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64", "int8": "int8",
}  # fmt: skip
_NAMES = {
    ML_DTYPES: _BOTH | {
        "e2m1": "float4_e2m1fn", "e2m3": "float6_e2m3fn", "e3m2": "float6_e3m2fn",
        "e3m4": "float8_e3m4", "e4m3": "float8_e4m3", "e4m3b11fnuz": "float8_e4m3b11fnuz",
        "int4": "int4",
    },
    TORCH: _BOTH | {"e2m1": "float4_e2m1fn_x2"},
}  # fmt: skip
_FORMAT_OF = {
    name: fmt for names in _NAMES.values() for fmt, name in names.items() if fmt != "ue4m3"
}
_NUMPYS = ("float16", "float32", "float64", "int8")
_PAIRS = "float4_e2m1fn_x2"


class Parts(NamedTuple):
    """What a `Quantized` is made of, as another library's arrays; None for what it has not."""

    elements: Any
    scales: Any
    outer: Any


# -------------------------------------------------------------------- dtypes


def to_dtype(fmt: Format | str, library: str = ML_DTYPES) -> Any:
    """The dtype whose codes are those of `fmt`: NumPy's or ml_dtypes' ("ml_dtypes"), or torch's.

    Errors: ValueError for another library and for a format without such a dtype (those with one
    are listed); ImportError, with the remedy, where the library is missing.
    """
    if library not in _NAMES:
        raise ValueError(f"library must be {ML_DTYPES!r} or {TORCH!r}, got {library!r}")
    target = as_format(fmt)
    name = _NAMES[library].get(str(target))
    if name is None:
        raise ValueError(
            f"{library} has no dtype for {target}, only for {', '.join(_NAMES[library])}"
        )
    if library == TORCH:
        return getattr(_torch(), name)
    return np.dtype(name if name in _NUMPYS else getattr(_ml_dtypes(), name))


def from_dtype(dtype: Any) -> Format:
    """The format of a dtype of NumPy, ml_dtypes or torch, or of its name.

    Errors: ValueError for a dtype that no format is the same as.
    """
    name = dtype if isinstance(dtype, str) else _dtype_name(dtype)
    if name not in _FORMAT_OF:
        raise ValueError(f"dtype must be one of {', '.join(_FORMAT_OF)}, got {dtype!r}")
    return as_format(_FORMAT_OF[name])


def _dtype_name(dtype: Any) -> str:
    if type(dtype).__module__ == "torch":
        return str(dtype).removeprefix("torch.")
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return repr(dtype)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError:
        raise ImportError("torch is not installed; get it with pip install torch") from None


def _ml_dtypes() -> Any:
    try:
        return import_module("ml_dtypes")
    except ImportError:
        raise ImportError(
            "ml_dtypes is not installed; get it with pip install 'fpemu[interop]'"
        ) from None


# --------------------------------------------------------------------- codes


def to_ml_dtypes(codes: NDArray[Any], fmt: Format | str) -> NDArray[Any]:
    """Codes, as `fpemu.encode` gives them, as a view of ml_dtypes' or NumPy's dtype.

    Errors: as `to_dtype`; TypeError for codes of another dtype than `encode` gives, ValueError
    for one that does not fit the format.
    """
    return _checked(codes, as_format(fmt)).view(to_dtype(fmt, ML_DTYPES))


def from_ml_dtypes(array: NDArray[Any]) -> tuple[NDArray[Any], Format]:
    """The codes of an array of ml_dtypes' or NumPy's floats, and their format; a view.

    Errors: as `from_dtype`; ValueError for items whose upper bits, which no value uses, are set.
    """
    fmt = from_dtype(array.dtype)
    return _checked(array.view(dtypes.code_dtype(fmt)), fmt), fmt


def to_torch(codes: NDArray[Any], fmt: Format | str) -> Any:
    """Codes, as `fpemu.encode` gives them, as a tensor of torch's dtype, with the same memory.

    Of ``e2m1`` two codes go into one item, and the last axis is half as long (a copy).
    Errors: as `to_ml_dtypes`; ValueError for ``e2m1`` whose last axis is odd or missing.
    """
    target = as_format(fmt)
    dtype = to_dtype(target, TORCH)
    array = _checked(codes, target)
    if _NAMES[TORCH][str(target)] == _PAIRS:
        array = pack(array, 4).reshape(_half(array.shape))
    return _tensor(array, dtype)


def from_torch(tensor: Any) -> tuple[NDArray[Any], Format]:
    """The codes of a tensor of floats, and their format; a view where it lies in main memory.

    Errors: TypeError for anything but a tensor; as `from_dtype`.
    """
    torch = _torch()
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor must be a torch tensor, got {type(tensor).__name__}")
    fmt = from_dtype(tensor.dtype)
    if _dtype_name(tensor.dtype) == _PAIRS:
        pairs = _bits(tensor, 8)
        codes = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(_double(pairs.shape))
        return codes, fmt
    return _bits(tensor, 8 * tensor.dtype.itemsize), fmt


def _checked(codes: NDArray[Any], fmt: Format) -> NDArray[Any]:
    wanted = dtypes.code_dtype(fmt)
    if not isinstance(codes, np.ndarray) or codes.dtype != wanted:
        got = codes.dtype if isinstance(codes, np.ndarray) else type(codes).__name__
        raise TypeError(f"codes must be an array of {wanted} for {fmt}, got {got}")
    if _strays(codes, fmt):
        raise ValueError(f"codes must fit the {fmt.bits} bits of {fmt}, got {codes.max()}")
    return codes


def _strays(codes: NDArray[Any], fmt: Format) -> bool:
    return fmt.bits < 8 * codes.itemsize and int(codes.max(initial=0)) >> fmt.bits > 0


def _half(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape or shape[-1] % 2:
        raise ValueError(f"the last axis must be even for torch's {_PAIRS}, got shape {shape}")
    return (*shape[:-1], shape[-1] // 2)


def _double(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape:
        raise ValueError(f"a tensor of {_PAIRS} must have an axis, got a scalar")
    return (*shape[:-1], 2 * shape[-1])


def _tensor(codes: NDArray[Any], dtype: Any) -> Any:
    """A tensor on the memory of `codes`; of a copy where torch has no such arrays."""
    whole = codes
    if not codes.flags.writeable or any(step < 0 for step in codes.strides):
        whole = codes.copy()
    bits = 8 * codes.itemsize
    return _torch().from_numpy(whole.view("u1" if bits == 8 else f"i{bits // 8}")).view(dtype)


def _bits(tensor: Any, bits: int) -> NDArray[Any]:
    """The patterns of a tensor, in main memory."""
    torch = _torch()
    integers = torch.uint8 if bits == 8 else getattr(torch, f"int{bits}")
    array: NDArray[Any] = tensor.detach().view(integers).cpu().numpy()
    return array.view(dtypes.unsigned(bits))


# ----------------------------------------------------------------- Quantized


def parts_to_ml_dtypes(q: Quantized) -> Parts:
    """`Quantized.to_ml_dtypes`."""
    element, scale = _formats(q.spec)
    elements = to_ml_dtypes(q.read_codes(), element)
    scales = None if scale is None or q.scales is None else to_ml_dtypes(q.scales, scale)
    return Parts(elements, scales, None if q.outer is None else np.float32(q.outer))


def parts_to_torch(q: Quantized) -> Parts:
    """`Quantized.to_torch`."""
    element, scale = _formats(q.spec)
    dtype = to_dtype(element, TORCH)
    if _NAMES[TORCH][str(element)] == _PAIRS:
        elements = _tensor(q.codes.reshape(_half(q.shape)), dtype)
    else:
        elements = _tensor(q.read_codes(), dtype)
    scales = None if scale is None or q.scales is None else to_torch(q.scales, scale)
    torch = _torch()
    outer = None if q.outer is None else torch.tensor(q.outer, dtype=torch.float32)
    return Parts(elements, scales, outer)


def quantized_from_ml_dtypes(
    elements: NDArray[Any],
    scales: NDArray[Any] | None,
    fmt: Spec | str,
    *,
    outer: float | None,
    axis: int,
    dtype: DTypeLike,
) -> Quantized:
    """`Quantized.from_ml_dtypes`."""
    spec = as_spec(fmt)
    element, scale = _formats(spec)
    _require(elements, "elements", element, ML_DTYPES)
    codes = pack(from_ml_dtypes(elements)[0], element.bits)
    found = None
    _refuse_scales(scales, spec, scale)
    if scales is not None and scale is not None:
        _require(scales, "scales", scale, ML_DTYPES)
        found = np.asarray(from_ml_dtypes(scales)[0], order="C")
    return _quantized(spec, elements.shape, codes, found, outer, axis, dtype)


def quantized_from_torch(
    elements: Any,
    scales: Any,
    fmt: Spec | str,
    *,
    outer: Any,
    axis: int,
    dtype: Any,
) -> Quantized:
    """`Quantized.from_torch`."""
    spec = as_spec(fmt)
    element, scale = _formats(spec)
    _require(elements, "elements", element, TORCH)
    shape = tuple(elements.shape)
    if _dtype_name(elements.dtype) == _PAIRS:
        shape = _double(shape)
        codes = np.ascontiguousarray(_bits(elements, 8)).reshape(-1)
    else:
        codes = pack(from_torch(elements)[0], element.bits)
    found = None
    _refuse_scales(scales, spec, scale)
    if scales is not None and scale is not None:
        _require(scales, "scales", scale, TORCH)
        found = np.asarray(from_torch(scales)[0], order="C")
    return _quantized(spec, shape, codes, found, outer, axis, dtype)


def _quantized(
    spec: Spec,
    shape: tuple[int, ...],
    codes: NDArray[np.uint8],
    scales: NDArray[Any] | None,
    outer: Any,
    axis: int,
    dtype: Any,
) -> Quantized:
    name = dtypes.as_dtype("dtype", _dtype_name(dtype))[1].name
    value = None if outer is None else float(outer)
    return Quantized(spec, shape, codes, scales, value, axis, name)


def _formats(spec: Spec) -> tuple[Format, Format | None]:
    """The formats of elements and scales. Errors: ValueError for elements of a table."""
    element = spec.element if isinstance(spec, BlockFormat) else spec
    if not isinstance(element, Format):
        raise ValueError(f"no library has a dtype for the table format {element}")
    return element, spec.scale if isinstance(spec, BlockFormat) else None


def _refuse_scales(scales: Any, spec: Spec, scale: Format | None) -> None:
    if scales is not None and scale is None:
        raise ValueError(f"scales must be None for {spec}, which has none")


def _require(array: Any, name: str, fmt: Format, library: str) -> None:
    """Errors: TypeError unless `array` is of the library's dtype for `fmt`."""
    wanted = to_dtype(fmt, library)
    kind = _torch().Tensor if library == TORCH else np.ndarray
    if not isinstance(array, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(array).__name__}")
    if array.dtype != wanted:
        raise TypeError(f"{name} must be {wanted} for {fmt}, got {array.dtype}")
