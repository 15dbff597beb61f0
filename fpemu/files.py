"""Tensor files (.npy, .npz, .safetensors): read one tensor at a time, written whole or not at all.

A file carries a recipe: a JSON object that says how its tensors came about. The recipe goes where
the kind has room for it:

    .safetensors   the entry "fpemu" of its metadata; other entries are kept
    .npz           a member "fpemu.json"
    .npy           a file of its own beside it, NAME.npy.json

float16, bfloat16, float32 and float64 tensors can be transformed; integer and boolean ones are
copied; everything else is refused. NumPy's formats have no bfloat16: `numpy.save` writes it as
raw two-byte items (``V2``), and such arrays are read as bfloat16.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu.atomic import Writer
from fpemu.contract import CONTRACT
from fpemu.dtypes import container_of, dtype_of
from fpemu.lowering import BFLOAT16

Array: TypeAlias = NDArray[Any]
Recipe: TypeAlias = dict[str, Any]
Transform: TypeAlias = Callable[[str, Array], Array]

RECIPE_KEY = "fpemu"
RECIPE_MEMBER = "fpemu.json"
SUFFIXES = (".npy", ".npz", ".safetensors")
NPY_NAME = "array"  # what the one tensor of an .npy file is called
ALLOWED = "float16, bfloat16, float32, float64, integers and booleans"


class Spec(NamedTuple):
    """A tensor without its data."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        """Whether the tensor can be transformed; others are copied."""
        return container_of(self.dtype) is not None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Group(NamedTuple):
    """Tensors that are made together, when their turn to be written comes.

    `make` returns arrays of the shapes and dtypes of `specs`, in the machine's byte order.
    """

    specs: Mapping[str, Spec]
    make: Callable[[], Mapping[str, Array]]


class TensorFile(ABC):
    """An open file of named tensors; a context manager.

    `specs` has every tensor, in the file's order, and opening checks them all. Errors of all
    methods: OSError from the system, ValueError for a file that is damaged or of another kind;
    the message names the path, and the tensor where there is one.
    """

    path: Path
    specs: dict[str, Spec]
    recipe: Recipe | None
    metadata: Mapping[str, str] = MappingProxyType({})  # of .safetensors, the recipe included
    compression: Mapping[str, int] = MappingProxyType({})  # of the members of an .npz

    @abstractmethod
    def read(self, name: str) -> Array:
        """One tensor, in memory of its own and in the machine's byte order."""

    def writers(self, target: Path, transform: Transform, recipe: Recipe) -> dict[Path, Writer]:
        """What `write_all` needs to write this file's tensors to `target`, as the same kind.

        `transform` gets the name and the data of each float tensor, and returns an array of the
        same shape and dtype.
        """

        def make(name: str) -> dict[str, Array]:
            array = self.read(name)
            return {name: transform(name, array) if self.specs[name].is_float else array}

        groups = [Group({name: spec}, partial(make, name)) for name, spec in self.specs.items()]
        kind = kind_of(self.path)
        return writers(kind, target, groups, recipe, self.metadata, self.compression)

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def kind_of(path: Path) -> str:
    """The suffix that says what kind a file is. Errors: ValueError for any other."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: a tensor file ends in {', '.join(SUFFIXES)}, not {suffix!r}")
    return suffix


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Open a file by its suffix. Errors: as `TensorFile`; ImportError without safetensors."""
    path = Path(path)
    suffix = kind_of(path)
    with path.open("rb"):  # the system's own words for a missing or unreadable file
        pass
    if suffix == ".npy":
        return NpyFile(path)
    return NpzFile(path) if suffix == ".npz" else SafetensorsFile(path)


def writers(
    kind: str,
    target: Path,
    groups: Sequence[Group],
    recipe: Recipe,
    metadata: Mapping[str, str] = MappingProxyType({}),
    compression: Mapping[str, int] = MappingProxyType({}),
) -> dict[Path, Writer]:
    """What `write_all` needs to write a file of one of the three kinds, one group at a time.

    `metadata` and `compression` are attributes of the `TensorFile` whose they are.
    """
    if kind == ".npy":
        (group,) = groups
        return {target: partial(_write_npy_file, group), beside(target): _recipe_writer(recipe)}
    if kind == ".npz":
        return {target: partial(_write_npz, groups, recipe, compression)}
    # Sorted, because the library gives metadata in any order.
    entries = dict(sorted({**metadata, RECIPE_KEY: json.dumps(recipe)}.items()))
    return {target: partial(_write_safetensors, groups, entries)}


def _write_group(group: Group, write: Callable[[str, Spec, Array], None]) -> None:
    """Make the tensors of a group and write each; none is kept while the next group is made.

    Errors: ValueError for one that is not as promised.
    """
    arrays = group.make()
    for name, spec in group.specs.items():
        array = np.asarray(arrays[name])
        if array.shape != spec.shape or array.dtype != spec.dtype.newbyteorder("="):
            raise ValueError(
                f"tensor {name!r} must keep {spec.dtype} {spec.shape}, "
                f"got {array.dtype} {array.shape}"
            )
        write(name, spec, array)


# ----------------------------------------------------------------------- NumPy


class NpyFile(TensorFile):
    """One array, called ``array``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage(path), path.open("rb") as stream:
            self.specs = {NPY_NAME: _npy_spec(path, NPY_NAME, stream, path.stat().st_size)}
        extra = beside(path)
        self.recipe = _recipe(path, extra.read_bytes()) if extra.exists() else None

    def read(self, name: str) -> Array:
        with damage(self.path), self.path.open("rb") as stream:
            return _read_npy(stream, self.specs[name])

    def close(self) -> None:
        pass


class NpzFile(TensorFile):
    """A zip archive of .npy members, compressed or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = None
        with ExitStack() as stack:
            with damage(path):
                self._archive = stack.enter_context(zipfile.ZipFile(path))
                self._members = self._read_members()
                self.specs = {
                    name: self._read_spec(name, member) for name, member in self._members.items()
                }
                self.compression = {
                    name: member.compress_type for name, member in self._members.items()
                }
            self._stack = stack.pop_all()

    def _read_members(self) -> dict[str, zipfile.ZipInfo]:
        members = {}
        for info in self._archive.infolist():
            name, dot, _ = info.filename.rpartition(".npy")
            if info.filename == RECIPE_MEMBER:
                self.recipe = _recipe(self.path, self._archive.read(info))
            elif not dot or not info.filename.endswith(".npy") or name in members:
                raise ValueError(f"member {info.filename!r} is not an array or not the only one")
            else:
                members[name] = info
        if not members:
            raise ValueError("it has no arrays")
        return members

    def _read_spec(self, name: str, member: zipfile.ZipInfo) -> Spec:
        with damage(self.path, name), self._archive.open(member) as stream:
            return _npy_spec(self.path, name, stream, member.file_size)

    def read(self, name: str) -> Array:
        with damage(self.path, name), self._archive.open(self._members[name]) as stream:
            array = _read_npy(stream, self.specs[name])
            stream.read(1)  # past the end, where the checksum is compared
            return array

    def close(self) -> None:
        self._stack.close()


def _npy_spec(path: Path, name: str, stream: IO[bytes], size: int) -> Spec:
    """The header of an .npy of `size` bytes."""
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its .npy version {version} is none of {', '.join(map(str, readers))}")
    shape, _, dtype = readers[version](stream)
    if dtype.str[1:] == "V2":
        dtype = dtype_of(BFLOAT16)
    if dtype.kind not in "iub" and container_of(dtype) is None:
        raise _refuse(path, name, dtype)
    spec = Spec(dtype, shape)
    left = size - stream.tell()
    if left != spec.nbytes:
        raise ValueError(f"{dtype} {shape} needs {spec.nbytes} bytes, and there are {left}")
    return spec


def _read_npy(stream: IO[bytes], spec: Spec) -> Array:
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "V":
        array = array.view(spec.dtype)
    return np.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _write_npy(stream: IO[bytes], array: Array, spec: Spec) -> None:
    # Not numpy's write_array: its short writes on a full disk come without a reason.
    array = np.asarray(array, dtype=spec.dtype, order="C")
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    stream.write(_bytes(array))


def _write_npy_file(group: Group, stream: IO[bytes]) -> None:
    _write_group(group, lambda _, spec, array: _write_npy(stream, array, spec))


def _write_npz(
    groups: Sequence[Group], recipe: Recipe, compression: Mapping[str, int], stream: IO[bytes]
) -> None:
    with zipfile.ZipFile(stream, "w") as archive:

        def write(name: str, spec: Spec, array: Array) -> None:
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = compression.get(name, zipfile.ZIP_STORED)
            with archive.open(entry, "w", force_zip64=True) as place:
                _write_npy(place, array, spec)

        for group in groups:
            _write_group(group, write)
        archive.writestr(zipfile.ZipInfo(RECIPE_MEMBER), json.dumps(recipe, indent=1))


def _recipe_writer(recipe: Recipe) -> Writer:
    def write(stream: IO[bytes]) -> None:
        stream.write(json.dumps(recipe, indent=1).encode() + b"\n")

    return write


def beside(path: Path) -> Path:
    """Where the recipe of an .npy is."""
    return path.with_name(path.name + ".json")


# ----------------------------------------------------------------- safetensors

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CODE_OF = {name: code for code, name in _CODES.items()}


class SafetensorsFile(TensorFile):
    """A .safetensors file: the length of a JSON header as 8 bytes, the header, and the data.

    The library opens and checks it. Data are read and written here: the library maps files into
    memory, which counts as the process's, and can only write tensors that are all in memory.
    """

    def __init__(self, path: Path) -> None:
        try:
            from safetensors import safe_open
        except ImportError:
            raise ImportError(
                f"{path} needs safetensors; install it with pip install 'fpemu[cli]'"
            ) from None
        self.path = path
        with damage(path), safe_open(path, "np") as checked:
            self.metadata = checked.metadata() or {}
            names = checked.keys()
            self.specs = {name: self._read_spec(name, checked.get_slice(name)) for name in names}
            text = self.metadata.get(RECIPE_KEY)
            self.recipe = None if text is None else _recipe(path, text.encode())
            self._starts = self._read_starts()

    def _read_spec(self, name: str, view: Any) -> Spec:
        with damage(self.path, name):
            code = view.get_dtype()
            if code not in _CODES:
                raise _refuse(self.path, name, code)
            dtype = dtype_of(BFLOAT16) if code == "BF16" else np.dtype(_CODES[code])
            return Spec(dtype, tuple(view.get_shape()))

    def _read_starts(self) -> dict[str, int]:
        """Where in the file each tensor begins."""
        with self.path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        return {name: 8 + length + header[name]["data_offsets"][0] for name in self.specs}

    def read(self, name: str) -> Array:
        spec = self.specs[name]
        with damage(self.path, name):
            data = np.fromfile(self.path, np.uint8, spec.nbytes, offset=self._starts[name])
            array = data.view(spec.dtype).reshape(spec.shape)
            return array if sys.byteorder == "little" else array.byteswap()

    def close(self) -> None:
        pass


def _write_safetensors(
    groups: Sequence[Group], metadata: Mapping[str, str], stream: IO[bytes]
) -> None:
    specs = {name: spec for group in groups for name, spec in group.specs.items()}
    # Wide items first, as the library does it, so that all of them are aligned.
    order = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
    entries: dict[str, Any] = {"__metadata__": metadata}
    starts, end = {}, 0
    for name in order:
        spec, start = specs[name], end
        starts[name], end = start, end + spec.nbytes
        entries[name] = {
            "dtype": _CODE_OF[spec.dtype.name],
            "shape": spec.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)

    def write(name: str, spec: Spec, array: Array) -> None:
        stream.seek(8 + len(text) + starts[name])
        stream.write(_bytes(array if sys.byteorder == "little" else array.byteswap()))

    for group in groups:
        _write_group(group, write)


# --------------------------------------------------------------------- checks


@contextmanager
def damage(path: Path, name: str | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise on a bad file into a ValueError that names it."""
    where = f"{path}: " if name is None else f"{path}: tensor {name!r}: "
    try:
        yield
    except (FileError, MemoryError):
        raise
    except ImportError as error:
        raise ImportError(f"{where}{error}") from None
    except Exception as error:
        # Damaged bytes bring out any error in a parser: bad syntax, bad tokens, seeks to nowhere.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise FileError(f"{where}damaged, or not what its suffix says: {error}") from None


class FileError(ValueError):
    """A ValueError whose message names the file."""


def _refuse(path: Path, name: str, dtype: object) -> FileError:
    return FileError(f"{path}: tensor {name!r} is {dtype}; allowed are {ALLOWED}")


def _recipe(path: Path, text: bytes) -> Recipe:
    """The recipe a file carries. Errors: ValueError if it is none, or of a later contract."""
    try:
        recipe = json.loads(text)
        contract = recipe["contract"]
    except (ValueError, TypeError, KeyError):
        raise FileError(f"{path}: its recipe is not one that fpemu wrote") from None
    if type(contract) is not int or not 1 <= contract <= CONTRACT:
        raise FileError(
            f"{path}: written under contract {contract}; this fpemu knows 1 to {CONTRACT}"
        )
    return dict(recipe)


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
