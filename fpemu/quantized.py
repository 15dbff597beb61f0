"""Quantized: an array stored as codes and scales, with the format that they are of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fpemu import arguments, arrays, block_arrays, dtypes
from fpemu.block_imitations import Imitation
from fpemu.block_presets import block_preset
from fpemu.blocks import BlockFormat, Spec, as_spec
from fpemu.choices import as_int
from fpemu.keys import Key
from fpemu.packing import check_stream, pack, packed_size, unpack
from fpemu.policy import Policy
from fpemu.rounding import Descriptor

if TYPE_CHECKING:
    from fpemu.interop import Parts


@dataclass(frozen=True, eq=False)
class Quantized:
    """An array of `shape` as packed element codes, scale codes and their format.

    `spec`: a Format, TableFormat or BlockFormat. `codes`: 1-D uint8, the stream that
    `fpemu.pack` makes of the element codes in C order. `scales`: codes of ``spec.scale``, one
    per block: the shape of the array with the blocked axis counted in blocks; (rows of tiles,
    columns of tiles) for the last two axes; () for one per tensor; (n,) for one per channel; None
    without scales. `outer`: the value of the outer scale, or None. `axis`: the blocked axis.
    `dtype`: the name of the dtype the values came in, which `dequantize` gives back.

    Errors: ValueError or TypeError for parts that do not fit together.
    """

    spec: Spec
    shape: tuple[int, ...]
    codes: NDArray[np.uint8]
    scales: NDArray[Any] | None = None
    outer: float | None = None
    axis: int = -1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", as_spec(self.spec))
        object.__setattr__(self, "shape", _as_shape(self.shape))
        object.__setattr__(self, "axis", as_int("axis", self.axis))
        # The canonical name, for that is what files carry.
        object.__setattr__(self, "dtype", dtypes.as_dtype("dtype", self.dtype)[1].name)
        for name in ("codes", "scales"):
            part = getattr(self, name)
            if not isinstance(part, np.ndarray) and (name == "codes" or part is not None):
                raise TypeError(f"{name} must be a NumPy array, got {type(part).__name__}")
        expected = packed_size(self.size, self.element_bits)
        if self.codes.dtype != np.uint8 or self.codes.shape != (expected,):
            raise ValueError(
                f"codes must be {expected} bytes (uint8) for shape {self.shape} of {self.spec}, "
                f"got {self.codes.dtype} {self.codes.shape}"
            )
        check_stream(self.codes, self.element_bits, self.size)
        spec = self.spec
        if not isinstance(spec, BlockFormat) or spec.scale is None:
            if self.scales is not None or self.outer is not None:
                raise ValueError(f"scales and outer must be None for {spec}")
            return
        grid, dtype = self._layout(spec).grid, dtypes.code_dtype(spec.scale)
        if self.scales is None or self.scales.shape != grid or self.scales.dtype != dtype:
            got = "None" if self.scales is None else f"{self.scales.dtype} {self.scales.shape}"
            raise ValueError(f"scales must be {dtype} {grid} for {spec}, got {got}")
        if (
            spec.scale.bits < 8 * dtype.itemsize
            and int(self.scales.max(initial=0)) >> spec.scale.bits
        ):
            raise ValueError(f"scales must be codes of {spec.scale}, got {self.scales.max()}")
        if (self.outer is None) != (spec.outer is None):
            raise ValueError(f"outer must {'' if spec.outer else 'not '}be given for {spec}")
        if self.outer is not None and spec.outer is not None:
            outer = _as_outer(self.outer)
            object.__setattr__(self, "outer", outer)
            if not (0 <= outer < np.inf and Fraction(outer) in spec.outer):
                raise ValueError(f"outer must be a value of {spec.outer} from 0 on, got {outer}")

    def _layout(self, spec: BlockFormat) -> block_arrays.Layout:
        return block_arrays.layout(self.shape, spec, self.axis)

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def element_bits(self) -> int:
        """Bits of an element's code."""
        spec = self.spec
        return spec.element.bits if isinstance(spec, BlockFormat) else spec.bits

    @property
    def nbytes(self) -> int:
        """Bytes of storage: codes and scales packed to their widths, and the outer scale."""
        spec, total = self.spec, self.codes.size
        if isinstance(spec, BlockFormat):
            if self.scales is not None and spec.scale is not None:
                total += packed_size(self.scales.size, spec.scale.bits)
            if spec.outer is not None:
                total += packed_size(1, spec.outer.bits)
        return int(total)

    @property
    def bytes_per_element(self) -> Fraction:
        """`nbytes` over the number of elements; 0 for an empty array."""
        return Fraction(self.nbytes, self.size) if self.size else Fraction(0)

    def element_codes(self) -> NDArray[Any]:
        """The element codes, unpacked, in the array's shape."""
        return unpack(self.codes, self.element_bits, self.size).reshape(self.shape)

    def read_codes(self) -> NDArray[Any]:
        """As `element_codes`, but a view of `codes` where elements have 8 bits."""
        return self.codes.reshape(self.shape) if self.element_bits == 8 else self.element_codes()

    def scale_values(self) -> NDArray[np.float32] | None:
        """The scales as float32 (exact), without the outer scale; None without scales."""
        if self.scales is None or not isinstance(self.spec, BlockFormat):
            return None
        assert self.spec.scale is not None
        values: NDArray[np.float32] = arrays.decode(self.scales, self.spec.scale)
        return values

    def dequantize(
        self,
        dtype: DTypeLike | None = None,
        *,
        out: NDArray[Any] | None = None,
        backend: str | None = None,
    ) -> Any:
        """The values, in `dtype` (None: the dtype they came in), an array of `shape`.

        Computed in float32, in float64 for float64 results, and rounded once to narrower dtypes.
        ``compress(x, ...).dequantize()`` equals ``quantize(x, ...)`` bit for bit.
        Errors: TypeError for other dtypes, ValueError for a dtype that cannot hold the values of
        a format without scales, and for an `out` that does not fit; TypeError for an `out` that is
        no array or has another dtype than the one asked for.
        """
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
        given = self.dtype if out is None else out.dtype
        target = dtypes.as_dtype("dtype", given if dtype is None else dtype)[0]
        if out is not None and out.dtype != target:
            raise TypeError(f"out must have dtype {target}, got {out.dtype}")
        spec = self.spec
        if not isinstance(spec, BlockFormat):
            return arrays.decode(self.read_codes(), spec, dtype=target, out=out, backend=backend)
        like = np.broadcast_to(np.uint8(0), self.shape) if out is not None else None
        result = (
            np.empty(self.shape, target)
            if like is None
            else (arguments.output("out", out, like, target))
        )
        engine = arguments.choose_backend(backend, self.size)
        block_arrays.dequantize_into(
            self.codes, self.scales, self.outer, spec, self.axis, result, engine
        )
        return result

    def to_ml_dtypes(self) -> Parts:
        """(elements, scales, outer) as arrays of ml_dtypes' dtypes, None for what there is not.

        Elements have the array's shape, one an item, and scales the shape of `scales`: views
        where elements have 8 bits, copies otherwise. Errors: ValueError for a format that
        ml_dtypes and NumPy have no dtype for; ImportError without ml_dtypes.
        """
        from fpemu import interop

        return interop.parts_to_ml_dtypes(self)

    def to_torch(self) -> Parts:
        """(elements, scales, outer) as torch tensors, None for what there is not.

        Elements have the array's shape; FP4 elements are ``float4_e2m1fn_x2``, two an item, and
        their last axis is half as long. Elements of 8 bits, FP4 and scales share this object's
        memory. Errors: ValueError for a format that torch has no dtype for, and for FP4 with an
        odd last axis; ImportError without torch.
        """
        from fpemu import interop

        return interop.parts_to_torch(self)

    @staticmethod
    def from_ml_dtypes(
        elements: NDArray[Any],
        scales: NDArray[Any] | None,
        fmt: Spec | str,
        *,
        outer: float | None = None,
        axis: int = -1,
        dtype: DTypeLike = "float32",
    ) -> Quantized:
        """The inverse of `to_ml_dtypes`; `fmt` says what the parts do not, the blocks.

        `dtype` is what `dequantize` is to give back. Errors: TypeError for arrays of other dtypes
        than the format's, ValueError for shapes that do not fit it.
        """
        from fpemu import interop

        return interop.quantized_from_ml_dtypes(
            elements, scales, fmt, outer=outer, axis=axis, dtype=dtype
        )

    @staticmethod
    def from_torch(
        elements: Any,
        scales: Any,
        fmt: Spec | str,
        *,
        outer: Any = None,
        axis: int = -1,
        dtype: Any = "float32",
    ) -> Quantized:
        """The inverse of `to_torch`, for tensors on any device; `fmt` says what the blocks are.

        `outer` may be a tensor, and `dtype` torch's. Errors: as `from_ml_dtypes`; ImportError
        without torch.
        """
        from fpemu import interop

        return interop.quantized_from_torch(
            elements, scales, fmt, outer=outer, axis=axis, dtype=dtype
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a file, .npz or .safetensors, that `load` reads without being told what it is.

        It appears whole or not at all. Errors: ValueError for another suffix, FileExistsError
        for a file that exists, unless `overwrite`; OSError from the system.
        """
        from fpemu import storage

        storage.save_one(path, self, overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Quantized:
        """The packed tensor of a file that holds no other.

        Errors: ValueError naming the path for a damaged file and one with another number of
        packed tensors (`fpemu.load` reads those); OSError from the system.
        """
        from fpemu import storage

        return storage.load_one(path)

    def __repr__(self) -> str:
        return (
            f"Quantized({str(self.spec)!r}, shape={self.shape}, dtype={self.dtype}, "
            f"{self.nbytes:,} bytes, {8 * float(self.bytes_per_element):.4g} bits per element)"
        )

    def _repr_html_(self) -> str:
        rows = {
            "format": str(self.spec),
            "shape": "x".join(map(str, self.shape)) or "scalar",
            "dtype": self.dtype,
            "bytes": f"{self.nbytes:,}",
            "bits per element": f"{8 * float(self.bytes_per_element):.4g}",
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{text}</td></tr>"
            for name, text in rows.items()
        )
        return f"<table>{cells}</table>"


def _as_shape(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(shape)
    except TypeError:
        raise TypeError(f"shape must be a tuple of ints, got {shape!r}") from None
    sizes = tuple(as_int("shape", n) for n in sizes)
    if min(sizes, default=0) < 0:
        raise ValueError(f"shape must be of numbers from 0 on, got {sizes}")
    return sizes


def _as_outer(outer: Any) -> float:
    if isinstance(outer, str | bytes | bool):
        raise TypeError(f"outer must be a number, got {outer!r}")
    try:
        return float(outer)
    except (TypeError, ValueError):
        raise TypeError(f"outer must be a number, got {outer!r}") from None


def compress(
    x: ArrayLike,
    fmt: Spec | str,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    axis: int = -1,
    amax: float | None = None,
    backend: str | None = None,
) -> Quantized:
    """Quantize `x` as `quantize` does, and store it: packed codes, scales and the format.

    Arguments and errors are those of `quantize`; pseudo rounding is refused. Elements of blocks
    whose scale is NaN are stored as code 0. With a preset: ValueError naming the first element
    that the stored form would not give back as `quantize` gives it (an infinite value, a -0 of
    integers, or the last bit under an outer scale).
    """
    spec = as_spec(fmt)
    array, _ = arguments.as_array(x)
    source = dtypes.container_of(array.dtype)
    name = source.name if source is not None else "float64"
    if not isinstance(spec, BlockFormat):
        arrays.require_holding(array.dtype, spec)
        codes = arrays.encode(
            array, spec, rounding=rounding, policy=policy, key=key, packed=True, backend=backend
        )
        return Quantized(spec, array.shape, codes, dtype=name)
    axis = as_int("axis", axis)
    if spec.block != "tensor" and 0 <= axis < array.ndim:
        axis -= array.ndim  # from the end, so that it means the same
    preset = block_preset(policy, spec)
    if preset is not None:
        imitation = Imitation(array, spec, preset, rounding, key, axis, amax, backend)
        return _imitated(imitation, array.shape, axis, name)
    job = block_arrays.start(array, spec, rounding, key, axis, amax, backend)
    return Quantized(
        spec,
        array.shape,
        block_arrays.packed_codes(job),
        block_arrays.scale_codes(job),
        job.outer,
        axis,
        name,
    )


def _imitated(imitation: Imitation, shape: tuple[int, ...], axis: int, dtype: str) -> Quantized:
    """What a preset stores. Errors: ValueError where it would not read back the same."""
    fmt = imitation.fmt
    codes, scales = imitation.codes_and_scales(block_arrays.code_dtype(fmt))
    packed = pack(codes, fmt.element.bits)
    stored = Quantized(fmt, shape, packed, scales, imitation.outer, axis, dtype)
    values = np.empty(shape, np.float32)
    imitation.quantize_into(values)
    back = stored.dequantize(np.float32)
    differs = np.flatnonzero(values.view(np.uint32) != back.view(np.uint32))
    if differs.size:
        first = int(differs[0])
        at = tuple(int(i) for i in np.unravel_index(first, shape))
        raise ValueError(
            f"policy {imitation.preset.name!r} gives {values.flat[first]} at {at}, which {fmt} "
            f"would store as {back.flat[first]}; use quantize, or no preset"
        )
    return stored
