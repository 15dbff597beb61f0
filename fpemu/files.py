"""Tensor files (.npy, .npz, .safetensors): read one tensor at a time, written whole or not at all.

A file is rewritten as the same kind of file, with a recipe: a JSON object that says how its
tensors came about. The recipe goes where the kind has room for it:

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
import secrets
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fpemu import CONTRACT
from fpemu.dtypes import container_of, dtype_of
from fpemu.lowering import BFLOAT16

Array: TypeAlias = NDArray[Any]
Recipe: TypeAlias = dict[str, Any]
Transform: TypeAlias = Callable[[str, Array], Array]
Writer: TypeAlias = Callable[[IO[bytes]], None]

RECIPE_KEY = "fpemu"
RECIPE_MEMBER = "fpemu.json"
SUFFIXES = (".npy", ".npz", ".safetensors")
NPY_NAME = "array"  # what the one tensor of an .npy file is called


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


class TensorFile(ABC):
    """An open file of named tensors; a context manager.

    `specs` has every tensor, in the file's order, and opening checks them all. Errors of all
    methods: OSError from the system, ValueError for a file that is damaged or of another kind;
    the message names the path, and the tensor where there is one.
    """

    path: Path
    specs: dict[str, Spec]
    recipe: Recipe | None

    @abstractmethod
    def read(self, name: str) -> Array:
        """One tensor, in memory of its own and in the machine's byte order."""

    @abstractmethod
    def writers(self, target: Path, transform: Transform, recipe: Recipe) -> dict[Path, Writer]:
        """What `write_all` needs to write this file's tensors to `target`.

        `transform` gets the name and the data of each float tensor, and returns an array of the
        same shape and dtype.
        """

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

    def _transformed(self, transform: Transform, name: str) -> Array:
        array = self.read(name)
        if not self.specs[name].is_float:
            return array
        result = np.asarray(transform(name, array))
        if result.shape != array.shape or result.dtype != array.dtype:
            raise ValueError(
                f"transform must keep {array.dtype} {array.shape} of tensor {name!r}, "
                f"got {result.dtype} {result.shape}"
            )
        return result


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


# ----------------------------------------------------------------------- NumPy


class NpyFile(TensorFile):
    """One array, called ``array``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _damage(path), path.open("rb") as stream:
            self.specs = {NPY_NAME: _npy_spec(path, NPY_NAME, stream, path.stat().st_size)}
        beside = _beside(path)
        self.recipe = _recipe(path, beside.read_bytes()) if beside.exists() else None

    def read(self, name: str) -> Array:
        with _damage(self.path), self.path.open("rb") as stream:
            return _read_npy(stream, self.specs[name])

    def writers(self, target: Path, transform: Transform, recipe: Recipe) -> dict[Path, Writer]:
        def write(stream: IO[bytes]) -> None:
            _write_npy(stream, self._transformed(transform, NPY_NAME), self.specs[NPY_NAME])

        def write_recipe(stream: IO[bytes]) -> None:
            stream.write(json.dumps(recipe, indent=1).encode() + b"\n")

        return {target: write, _beside(target): write_recipe}

    def close(self) -> None:
        pass


class NpzFile(TensorFile):
    """A zip archive of .npy members, compressed or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = None
        with ExitStack() as stack:
            with _damage(path):
                self._archive = stack.enter_context(zipfile.ZipFile(path))
                self._members = self._read_members()
                self.specs = {
                    name: self._read_spec(name, member) for name, member in self._members.items()
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
        with _damage(self.path, name), self._archive.open(member) as stream:
            return _npy_spec(self.path, name, stream, member.file_size)

    def read(self, name: str) -> Array:
        with _damage(self.path, name), self._archive.open(self._members[name]) as stream:
            array = _read_npy(stream, self.specs[name])
            stream.read(1)  # past the end, where the checksum is compared
            return array

    def writers(self, target: Path, transform: Transform, recipe: Recipe) -> dict[Path, Writer]:
        def write(stream: IO[bytes]) -> None:
            with zipfile.ZipFile(stream, "w") as archive:
                for name, member in self._members.items():
                    array = self._transformed(transform, name)
                    entry = zipfile.ZipInfo(member.filename)
                    entry.compress_type = member.compress_type
                    with archive.open(entry, "w", force_zip64=True) as place:
                        _write_npy(place, array, self.specs[name])
                archive.writestr(zipfile.ZipInfo(RECIPE_MEMBER), json.dumps(recipe, indent=1))

        return {target: write}

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


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


# ----------------------------------------------------------------- safetensors

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class SafetensorsFile(TensorFile):
    """A .safetensors file, read through its library.

    The library can only write tensors that are all in memory, so the writing is done here: the
    length of a JSON header as 8 bytes, low byte first, the header, and the data.
    """

    def __init__(self, path: Path) -> None:
        try:
            from safetensors import safe_open
        except ImportError:
            raise ImportError(
                f"{path} needs safetensors; install it with pip install 'fpemu[cli]'"
            ) from None
        self.path = path
        with ExitStack() as stack:
            with _damage(path):
                self._file = stack.enter_context(safe_open(path, "np"))
                self._metadata: dict[str, str] = self._file.metadata() or {}
                self._codes: dict[str, str] = {}
                names = self._file.keys()
                self.specs = {name: self._read_spec(name) for name in names}
                text = self._metadata.get(RECIPE_KEY)
                self.recipe = None if text is None else _recipe(path, text.encode())
            self._stack = stack.pop_all()

    def _read_spec(self, name: str) -> Spec:
        with _damage(self.path, name):
            view = self._file.get_slice(name)
            code = self._codes[name] = view.get_dtype()
            if code != "BF16" and code not in _CODES:
                raise _refuse(self.path, name, code)
            dtype = dtype_of(BFLOAT16) if code == "BF16" else np.dtype(_CODES[code])
            return Spec(dtype, tuple(view.get_shape()))

    def read(self, name: str) -> Array:
        with _damage(self.path, name):
            return np.asarray(self._file.get_tensor(name))

    def writers(self, target: Path, transform: Transform, recipe: Recipe) -> dict[Path, Writer]:
        metadata = {**self._metadata, RECIPE_KEY: json.dumps(recipe)}
        # Wide items first, as the library does it, so that all of them are aligned.
        order = sorted(self.specs, key=lambda name: (-self.specs[name].dtype.itemsize, name))

        def write(stream: IO[bytes]) -> None:
            stream.write(self._header(order, metadata))
            for name in order:
                array = self._transformed(transform, name)
                stream.write(_bytes(array if sys.byteorder == "little" else array.byteswap()))

        return {target: write}

    def _header(self, order: list[str], metadata: dict[str, str]) -> bytes:
        entries: dict[str, Any] = {"__metadata__": metadata}
        end = 0
        for name in order:
            spec, start = self.specs[name], end
            end += spec.nbytes
            entries[name] = {
                "dtype": self._codes[name],
                "shape": spec.shape,
                "data_offsets": (start, end),
            }
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def close(self) -> None:
        self._stack.close()


# --------------------------------------------------------------------- checks


@contextmanager
def _damage(path: Path, name: str | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise on a bad file into a ValueError that names it."""
    where = f"{path}: " if name is None else f"{path}: tensor {name!r}: "
    try:
        yield
    except (_FileError, MemoryError):
        raise
    except ImportError as error:
        raise ImportError(f"{where}{error}") from None
    except Exception as error:
        # Damaged bytes bring out any error in a parser: bad syntax, bad tokens, seeks to nowhere.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise _FileError(f"{where}damaged, or not what its suffix says: {error}") from None


class _FileError(ValueError):
    """A ValueError whose message names the file."""


def _refuse(path: Path, name: str, dtype: object) -> _FileError:
    allowed = "float16, bfloat16, float32, float64, integers and booleans"
    return _FileError(f"{path}: tensor {name!r} is {dtype}; allowed are {allowed}")


def _recipe(path: Path, text: bytes) -> Recipe:
    """The recipe a file carries. Errors: ValueError if it is none, or of a later contract."""
    try:
        recipe = json.loads(text)
        contract = recipe["contract"]
    except (ValueError, TypeError, KeyError):
        raise _FileError(f"{path}: its recipe is not one that fpemu wrote") from None
    if not isinstance(contract, int) or not 1 <= contract <= CONTRACT:
        raise _FileError(
            f"{path}: written under contract {contract}; this fpemu knows 1 to {CONTRACT}"
        )
    return dict(recipe)


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


# -------------------------------------------------------------------- writing


def write_all(writers: Mapping[Path, Writer], *, overwrite: bool = False) -> None:
    """Write several files so that all of them appear, whole, or none does.

    Each writer fills a temporary file in its target's folder; when all are done and on the disk
    they take their names. On any error, an interrupt included, the temporary files are removed.
    Errors: FileExistsError for a target that exists, unless `overwrite`; other OSErrors as the
    system gives them, with the target's path.
    """
    targets = {Path(path): Path(os.path.realpath(path)) for path in writers}
    for path, target in targets.items():
        _check_target(path, target, overwrite)
    temporary: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, write in writers.items():
            target = targets[Path(path)]
            temporary[target] = target.with_name(f".fpemu-{secrets.token_hex(6)}.tmp")
            with _naming(path):
                _fill(temporary[target], write)
        for path, target in targets.items():
            with _naming(path):
                _place(temporary[target], target, overwrite)
            placed.append(target)
    except BaseException:
        if not overwrite:
            for target in placed:
                target.unlink(missing_ok=True)
        raise
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)


def _check_target(path: Path, target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "output is a folder", str(path))
    if target.exists() and not overwrite:
        raise FileExistsError(
            errno.EEXIST, "output exists; --overwrite (overwrite=True) replaces it", str(path)
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give errors of the temporary file the name the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None or ".fpemu-" not in (error.filename or ".fpemu-"):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _fill(temporary: Path, write: Writer) -> None:
    with temporary.open("xb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def _place(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
    else:
        try:
            os.link(temporary, target)  # unlike a rename, it fails if the target has appeared
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.replace(temporary, target)
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
