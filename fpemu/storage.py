"""Packed files: quantized tensors in .npz and .safetensors, with all it takes to read them back.

A tensor NAME is stored as up to three tensors of the file:

    NAME.codes    uint8, the stream of `fpemu.packing`
    NAME.scales   scale codes of 8, 16 or 32 bits: that integer type, in the shape that `Quantized`
                  gives them; of other widths: uint8, a stream
    NAME.outer    float32, the outer scale, a scalar

The file's recipe (`fpemu.files`) has an object ``packed``. Its ``formats`` are the formats in
use, field by field; its ``tensors`` give, under each name, ``format`` (an index of that list),
``shape``, ``axis``, ``dtype`` (of the values) and ``layout`` ("stream"); ``check`` is the CRC-32
of the rest and of the contract number, as JSON with sorted keys and no spaces. Tensors that it
does not name are stored as they are.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu import block_arrays, files
from fpemu.atomic import write_all
from fpemu.blocks import BlockFormat, Spec
from fpemu.contract import CONTRACT
from fpemu.dtypes import code_dtype, container_of
from fpemu.files import FileError, Group, Recipe, damage
from fpemu.formats import Format
from fpemu.lowering import CONTAINERS
from fpemu.packing import check_stream, pack, packed_size, unpack
from fpemu.quantized import Quantized
from fpemu.table_format import TableFormat

Tensor: TypeAlias = Quantized | NDArray[Any]

KINDS = (".npz", ".safetensors")
LAYOUT = "stream"
_PACKED = "packed"
_WHOLE_SCALES = (8, 16, 32)  # widths of scale codes that are stored as integers of a type


class Entry(NamedTuple):
    """All about a packed tensor but its data; the fields are those of `Quantized`."""

    spec: Spec
    shape: tuple[int, ...]
    axis: int = -1
    dtype: str = "float32"

    def parts(self, name: str) -> dict[str, files.Spec]:
        """The tensors of the file that hold it. Errors: ValueError for no such axis."""
        spec, size = self.spec, prod(self.shape)
        element = spec.element if isinstance(spec, BlockFormat) else spec
        parts = {f"{name}.codes": _stream(size, element.bits)}
        if not isinstance(spec, BlockFormat) or spec.scale is None:
            return parts
        grid = block_arrays.layout(self.shape, spec, self.axis).grid
        if spec.scale.bits in _WHOLE_SCALES:
            parts[f"{name}.scales"] = files.Spec(code_dtype(spec.scale), grid)
        else:
            parts[f"{name}.scales"] = _stream(prod(grid), spec.scale.bits)
        if spec.outer is not None:
            parts[f"{name}.outer"] = files.Spec(np.dtype(np.float32), ())
        return parts

    @property
    def nbytes(self) -> int:
        """Bytes of its data in a file."""
        return sum(part.nbytes for part in self.parts("").values())


def _stream(count: int, bits: int) -> files.Spec:
    return files.Spec(np.dtype(np.uint8), (packed_size(count, bits),))


def entry_of(tensor: Quantized) -> Entry:
    return Entry(tensor.spec, tensor.shape, tensor.axis, tensor.dtype)


# -------------------------------------------------------------------- verbs


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], *, overwrite: bool = False
) -> None:
    """Write named tensors, `Quantized` ones packed and NumPy arrays as they are.

    The suffix of `path`, .npz or .safetensors, says which kind of file. Arrays may be float16,
    bfloat16, float32, float64, integers and booleans. The file appears whole or not at all.
    Errors: ValueError for another suffix, no tensors, names of parts that clash; TypeError for
    other dtypes and objects; FileExistsError for a file that exists, unless `overwrite`; OSError
    from the system.
    """
    target = Path(path)
    kind = packed_kind(target)
    groups = [_group(name, tensor) for name, tensor in tensors.items()]
    if not groups:
        raise ValueError("tensors must not be empty")
    check_names([group.specs for group in groups])
    entries = {
        name: entry_of(tensor) for name, tensor in tensors.items() if isinstance(tensor, Quantized)
    }
    write_all(files.writers(kind, target, groups, recipe_for(entries)), overwrite=overwrite)


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a file: `Quantized` where it holds packed ones, else NumPy arrays.

    Errors: ValueError naming the path, and the tensor where there is one, for a damaged file,
    a format that cannot be read, data of another length than format and shape say, and a
    contract that this fpemu does not know; OSError from the system.
    """
    with PackedFile(path) as opened:
        return {name: opened.read(name) for name in opened.names}


def save_one(path: str | os.PathLike[str], tensor: Quantized, *, overwrite: bool = False) -> None:
    """`Quantized.save`: a file with this tensor alone, by the name "array"."""
    save(path, {files.NPY_NAME: tensor}, overwrite=overwrite)


def load_one(path: str | os.PathLike[str]) -> Quantized:
    """`Quantized.load`: the packed tensor of a file that has no other."""
    with PackedFile(path) as opened:
        if len(opened.entries) != 1:
            raise FileError(
                f"{path}: must hold one packed tensor, has {len(opened.entries)}; "
                "fpemu.load reads them all"
            )
        (name,) = opened.entries
        tensor = opened.read(name)
        assert isinstance(tensor, Quantized)
        return tensor


def packed_kind(path: Path) -> str:
    """The suffix of a packed file. Errors: ValueError for any other."""
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise ValueError(f"{path}: a packed file ends in {' or '.join(KINDS)}, not {suffix!r}")
    return suffix


# ------------------------------------------------------------------- writing


def _group(name: str, tensor: object) -> Group:
    if not isinstance(name, str):
        raise TypeError(f"names of tensors must be str, got {type(name).__name__} {name!r}")
    if isinstance(tensor, Quantized):
        return Group(entry_of(tensor).parts(name), lambda: arrays_of(name, tensor))
    if not isinstance(tensor, np.ndarray):
        raise TypeError(
            f"tensor {name!r} must be a Quantized or a NumPy array, got {type(tensor).__name__}"
        )
    if tensor.dtype.kind not in "iub" and container_of(tensor.dtype) is None:
        raise TypeError(f"tensor {name!r} must be {files.ALLOWED}, got {tensor.dtype}")
    native = tensor.astype(tensor.dtype.newbyteorder("="), copy=False)
    return Group({name: files.Spec(native.dtype, native.shape)}, lambda: {name: native})


def arrays_of(name: str, tensor: Quantized) -> dict[str, NDArray[Any]]:
    """The tensors of the file that hold a packed one."""
    arrays: dict[str, NDArray[Any]] = {f"{name}.codes": tensor.codes}
    spec = tensor.spec
    if isinstance(spec, BlockFormat) and spec.scale is not None:
        assert tensor.scales is not None
        whole = spec.scale.bits in _WHOLE_SCALES
        arrays[f"{name}.scales"] = tensor.scales if whole else pack(tensor.scales, spec.scale.bits)
        if tensor.outer is not None:
            arrays[f"{name}.outer"] = np.array(tensor.outer, np.float32)
    return arrays


def check_names(parts: list[Mapping[str, files.Spec]]) -> None:
    """Errors: ValueError for a name that two tensors would have in the file, or none can have."""
    seen: set[str] = set()
    for name in (name for group in parts for name in group):
        if name in seen or name == "__metadata__":
            raise ValueError(f"tensor {name!r} must have another name, for this one is taken")
        seen.add(name)


def recipe_for(entries: Mapping[str, Entry]) -> Recipe:
    """The least recipe of a packed file: how to read it."""
    formats: list[Recipe] = []
    tensors = {}
    for name, entry in entries.items():
        fmt = {"spelling": str(entry.spec), **entry.spec.to_dict()}
        if fmt not in formats:
            formats.append(fmt)
        tensors[name] = {
            "format": formats.index(fmt),
            "shape": list(entry.shape),
            "axis": entry.axis,
            "dtype": entry.dtype,
            "layout": LAYOUT,
        }
    packed = {"formats": formats, "tensors": tensors}
    return {"contract": CONTRACT, _PACKED: {**packed, "check": _check(CONTRACT, packed)}}


def _check(contract: int, packed: Mapping[str, Any]) -> str:
    text = json.dumps([contract, packed], sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


# ------------------------------------------------------------------- reading


class PackedFile:
    """An open file, of which one tensor at a time is read; a context manager.

    `entries` has the packed tensors and `names` all. Opening checks formats, shapes and lengths
    of all tensors. Errors: as `load`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        packed_kind(Path(path))
        self.file = files.open_tensors(path)
        try:
            self.entries = self._read_entries()
            taken = {part for name, entry in self.entries.items() for part in entry.parts(name)}
            self.names = [*self.entries, *(name for name in self.file.specs if name not in taken)]
        except BaseException:
            self.file.close()
            raise

    def _read_entries(self) -> dict[str, Entry]:
        path, recipe = self.file.path, self.file.recipe or {}
        if _PACKED not in recipe:
            return {}
        with damage(path):
            packed = dict(recipe[_PACKED])
            check = packed.pop("check")
            formats = list(packed["formats"])
            tensors = dict(packed["tensors"])
        entries = {}
        for name, fields in tensors.items():
            with damage(path, name):
                entries[name] = entry = _entry(formats, fields)
                for part, spec in entry.parts(name).items():
                    self._check_part(part, spec)
        if check != _check(recipe["contract"], packed):
            raise FileError(f"{path}: damaged: its table of formats does not match its checksum")
        return entries

    def _check_part(self, part: str, spec: files.Spec) -> None:
        there = self.file.specs.get(part)
        if there is None:
            raise ValueError(f"there is no {part!r}")
        if (there.dtype.newbyteorder("="), there.shape) != spec:
            raise ValueError(
                f"{part!r} must be {spec.dtype} {spec.shape}, and is {there.dtype} {there.shape}"
            )

    def read(self, name: str) -> Tensor:
        """One tensor. Errors: as `load`."""
        if name not in self.entries:
            return self.file.read(name)
        entry = self.entries[name]
        data = {part: self.file.read(part) for part in entry.parts(name)}
        with damage(self.file.path, name):
            return _tensor(entry, lambda part: data[f"{name}.{part}"])

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def __enter__(self) -> PackedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _entry(formats: list[Any], fields: Mapping[str, Any]) -> Entry:
    """A tensor's line of the recipe. Errors: anything."""
    if set(fields) != {"format", "shape", "axis", "dtype", "layout"}:
        raise ValueError(f"its fields are {', '.join(fields)}")
    number, shape, axis, dtype = (fields[name] for name in ("format", "shape", "axis", "dtype"))
    if fields["layout"] != LAYOUT:
        raise ValueError(f"layout must be {LAYOUT!r}, got {fields['layout']!r}")
    if type(number) is not int or not 0 <= number < len(formats):
        raise ValueError(f"format must be in 0..{len(formats) - 1}, got {number!r}")
    if type(axis) is not int:
        raise ValueError(f"axis must be an int, got {axis!r}")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape must be of numbers from 0 on, got {shape!r}")
    if dtype not in CONTAINERS:
        raise ValueError(f"dtype must be one of {', '.join(CONTAINERS)}, got {dtype!r}")
    return Entry(_spec(formats[number]), tuple(shape), axis, dtype)


def _spec(fields: Mapping[str, Any]) -> Spec:
    """A format from its fields. Errors: anything."""
    rest = {name: value for name, value in fields.items() if name != "spelling"}
    if "element" in rest:
        return BlockFormat.from_dict(rest)
    return Format.from_dict(rest) if "exponent_bits" in rest else TableFormat.from_dict(rest)


def _tensor(entry: Entry, read: Callable[[str], NDArray[Any]]) -> Quantized:
    """A packed tensor from its parts. Errors: ValueError for data that cannot be."""
    spec, codes, scales, outer = entry.spec, read("codes"), None, None
    element = spec.element if isinstance(spec, BlockFormat) else spec
    check_stream(codes, element.bits, prod(entry.shape))
    if isinstance(spec, BlockFormat) and spec.scale is not None:
        scales = read("scales")
        if spec.scale.bits not in _WHOLE_SCALES:
            grid = block_arrays.layout(entry.shape, spec, entry.axis).grid
            scales = unpack(scales, spec.scale.bits, prod(grid)).reshape(grid)
        if spec.outer is not None:
            outer = float(read("outer"))
    return Quantized(spec, entry.shape, codes, scales, outer, entry.axis, entry.dtype)
