"""Tensor files: what is written is read back, and what fails leaves nothing behind."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import stat
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fpemu import CONTRACT, atomic, files

KINDS = ("npy", "npz", "safetensors")
FLOATS = ("float16", "bfloat16", "float32", "float64")
OTHERS = ("int8", "uint16", "int32", "uint64", "bool")
RECIPE = {"contract": CONTRACT, "what": "a test"}

Tensors = dict[str, np.ndarray]


@st.composite
def tensors(draw: st.DrawFn) -> Tensors:
    """A few small tensors of any allowed dtype and shape, with any bits."""
    names = draw(
        st.lists(
            st.text("ab.0é", min_size=1, max_size=5), min_size=1, max_size=4, unique=True
        ).filter(lambda names: "array" not in names)
    )
    made = {}
    for name in names:
        dtype = np.dtype(draw(st.sampled_from(FLOATS + OTHERS)))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        count = int(np.prod(shape)) * dtype.itemsize
        data = draw(st.binary(min_size=count, max_size=count))
        code = np.frombuffer(data, "u1") & (1 if dtype.kind == "b" else 255)
        made[name] = code.astype("u1").view(dtype).reshape(shape)
    return made


def save(path: Path, some: Tensors, metadata: dict[str, str] | None = None) -> Path:
    """Write with the libraries themselves."""
    if path.suffix == ".npy":
        np.save(path, next(iter(some.values())))
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in some.items():
                data = io.BytesIO()
                np.save(data, array)
                archive.writestr(f"{name}.npy", data.getvalue())
    else:
        safetensors.numpy.save_file(some, path, metadata=metadata)
    return path


def names_of(path: Path, some: Tensors) -> Tensors:
    """The tensors that `path` is to have, by the names it gives them."""
    return {"array": next(iter(some.values()))} if path.suffix == ".npy" else some


def flip_bits(name: str, x: np.ndarray) -> np.ndarray:
    """A transformation that shows: every bit of every float turned round."""
    return (~np.ascontiguousarray(x).reshape(-1).view("u1")).view(x.dtype).reshape(x.shape)


def rewrite(source: Path, target: Path, overwrite: bool = False) -> None:
    with files.open_tensors(source) as opened:
        atomic.write_all(opened.writers(target, flip_bits, RECIPE), overwrite=overwrite)


def read_all(path: Path) -> Tensors:
    with files.open_tensors(path) as opened:
        return {name: opened.read(name) for name in opened.specs}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(kind: str, tmp_path: Path) -> Path:
    weights = np.linspace(-2, 2, 21, dtype="f4").reshape(3, 7)
    return save(tmp_path / f"in.{kind}", {"w": weights, "n": np.arange(5)})


# ------------------------------------------------------------------ round trips


@given(some=tensors())
def test_reading_gives_what_was_written(
    kind: str, some: Tensors, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = save(tmp_path_factory.mktemp("read") / f"in.{kind}", some)
    with files.open_tensors(path) as opened:
        assert opened.recipe is None
        expected = names_of(path, some)
        assert set(opened.specs) == set(expected)
        for name, array in expected.items():
            assert opened.specs[name].nbytes == array.nbytes
            assert same(opened.read(name), array)


@given(some=tensors())
def test_rewriting_transforms_floats_and_copies_the_rest(
    kind: str, some: Tensors, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("write")
    path, target = save(folder / f"in.{kind}", some), folder / f"out.{kind}"
    rewrite(path, target)
    with files.open_tensors(target) as opened:
        assert opened.recipe == RECIPE
        for name, array in names_of(path, some).items():
            is_float = array.dtype.name in FLOATS
            assert same(opened.read(name), flip_bits(name, array) if is_float else array)


def test_the_libraries_read_what_is_written(tmp_path: Path) -> None:
    some = {
        "half": np.ones((2, 3), "f2"),
        "brain": np.ones(4, ml_dtypes.bfloat16),
        "empty": np.ones((0, 2)),
        "count": np.arange(3, dtype="i8"),
    }
    source = save(tmp_path / "in.safetensors", some, {"format": "pt"})
    rewrite(source, tmp_path / "out.safetensors")
    read = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert all(same(read[name], flip_bits(name, some[name])) for name in ("half", "brain"))
    assert same(read["count"], some["count"])
    with safetensors.safe_open(tmp_path / "out.safetensors", "np") as opened:
        assert opened.metadata()["format"] == "pt"
        assert json.loads(opened.metadata()["fpemu"]) == RECIPE
    del some["brain"]  # NumPy's files have raw bytes for it
    rewrite(save(tmp_path / "in.npz", some), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as loaded:
        assert same(loaded["half"], flip_bits("half", some["half"]))
        assert json.loads(loaded["fpemu.json"]) == RECIPE
    rewrite(save(tmp_path / "in.npy", some), tmp_path / "out.npy")
    assert same(np.load(tmp_path / "out.npy"), flip_bits("half", some["half"]))
    assert json.loads((tmp_path / "out.npy.json").read_text()) == RECIPE


@pytest.mark.parametrize("form", [">f8", "fortran", "compressed"])
def test_byte_order_memory_order_and_compression_are_no_obstacle(form: str, tmp_path: Path) -> None:
    x = np.arange(600.0).reshape(2, 300)
    path, target = tmp_path / "in.npz", tmp_path / "out.npz"
    if form == "compressed":
        np.savez_compressed(path, x=x)
    else:
        np.savez(path, x=x.astype(form) if form == ">f8" else np.asfortranarray(x))
    rewrite(path, target)
    with files.open_tensors(target) as opened, files.open_tensors(path) as original:
        assert same(original.read("x"), x)
        assert same(opened.read("x"), flip_bits("x", x))
    if form == ">f8":
        assert np.load(target)["x"].dtype == np.dtype(">f8")
    if form == "compressed":
        assert zipfile.ZipFile(target).getinfo("x.npy").compress_type == zipfile.ZIP_DEFLATED


def test_the_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / f"{name}{source.suffix}" for name in "ab")
    rewrite(source, first)
    rewrite(source, second)
    assert first.read_bytes() == second.read_bytes()


def test_a_transform_that_changes_the_shape_is_refused(source: Path, tmp_path: Path) -> None:
    with files.open_tensors(source) as opened, pytest.raises(ValueError, match="keep float32"):
        atomic.write_all(opened.writers(tmp_path / "out", lambda name, x: x[:1], RECIPE))


# -------------------------------------------------------------------- bad files


def test_every_truncation_is_refused(source: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    cut = tmp_path / f"cut{source.suffix}"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=re.escape(str(cut))):
            read_all(cut)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_harmless_to_the_program(
    kind: str, place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / f"in.{kind}"
    data = bytearray(save(path, {"w": np.linspace(0, 1, 50), "n": np.arange(9)}).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with suppress(ValueError):  # and nothing else
        read_all(path)


def test_a_file_of_another_kind_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind}"
    for content in (b"", b"hello, world", b"\x00" * 100, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged, or not what its suffix says"):
            files.open_tensors(path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.touch()
    with pytest.raises(ValueError, match=r"\.npy, \.npz, \.safetensors"):
        files.open_tensors(path)


def test_a_missing_file_is_the_systems_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        files.open_tensors(tmp_path / f"none.{kind}")
    assert raised.value.filename == str(tmp_path / f"none.{kind}")


class Bomb:
    """Its unpickling would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_nothing_is_ever_unpickled(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind}"
    array = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    (np.save if kind == "npy" else np.savez)(path, array, allow_pickle=True)
    with pytest.raises(ValueError, match="object"):
        files.open_tensors(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("dtype", ["c8", "U3", "S2", "M8[s]", "V3", "f4,i4"])
def test_other_dtypes_are_refused_with_path_and_tensor(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    np.savez(path, weird=np.zeros(2, dtype))
    with pytest.raises(ValueError, match=r"in\.npz: tensor 'weird' is .*allowed are float16"):
        files.open_tensors(path)


def test_float8_is_refused_with_path_and_tensor(tmp_path: Path) -> None:
    codes = np.zeros(4, "u1")
    spec = safetensors.TensorSpec(
        dtype="float8_e4m3fn", shape=[4], data_ptr=codes.ctypes.data, data_len=4
    )
    path = tmp_path / "in.safetensors"
    safetensors.serialize_file({"q": spec}, path)
    with pytest.raises(ValueError, match=r"in\.safetensors: tensor 'q' is F8_E4M3"):
        files.open_tensors(path)


@pytest.mark.parametrize("member", ["readme.txt", "a.npy"])
def test_an_archive_with_anything_but_arrays_is_refused(member: str, tmp_path: Path) -> None:
    path = save(tmp_path / "in.npz", {"a": np.zeros(3)})
    with zipfile.ZipFile(path, "a") as archive:
        if member == "a.npy":
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(member, "")
        else:
            archive.writestr(member, "hello")
    with pytest.raises(ValueError, match=member):
        files.open_tensors(path)


@pytest.mark.parametrize("text", [f'{{"contract": {CONTRACT + 1}}}', "{}", "[", '{"contract": 0}'])
def test_a_recipe_that_cannot_be_honoured_is_refused(kind: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind}"
    save(path, {"a": np.zeros(3)}, {"fpemu": text})
    if kind == "npz":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("fpemu.json", text)
    if kind == "npy":
        (tmp_path / "in.npy.json").write_text(text)
    with pytest.raises(ValueError, match=r"contract|recipe"):
        files.open_tensors(path)


def test_without_safetensors_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "in.safetensors", {"a": np.zeros(3)})
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'fpemu\[cli\]'"):
        files.open_tensors(path)


# --------------------------------------------------------------- whole or not


def put(text: bytes) -> Callable[[IO[bytes]], None]:
    def write(stream: IO[bytes]) -> None:
        stream.write(text)

    return write


def failing(error: BaseException) -> Callable[[IO[bytes]], None]:
    def write(stream: IO[bytes]) -> None:
        stream.write(b"half of it")
        stream.flush()
        raise error

    return write


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        KeyboardInterrupt(),
        MemoryError(),
        ValueError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_leaves_nothing(error: BaseException, overwrite: bool, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    if overwrite:
        first.write_bytes(b"before")
    with pytest.raises(type(error)) as raised:
        atomic.write_all({first: put(b"new"), second: failing(error)}, overwrite=overwrite)
    if isinstance(error, OSError):
        assert raised.value.filename == str(second)  # type: ignore[attr-defined]
        assert raised.value.errno == errno.ENOSPC  # type: ignore[attr-defined]
    assert sorted(os.listdir(tmp_path)) == (["a"] if overwrite else [])
    assert not overwrite or first.read_bytes() == b"before"


def test_an_existing_output_is_refused_before_any_work(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    second.write_bytes(b"before")
    with pytest.raises(FileExistsError) as raised:
        atomic.write_all({first: failing(AssertionError()), second: put(b"new")})
    assert raised.value.filename == str(second)
    assert os.listdir(tmp_path) == ["b"]
    assert second.read_bytes() == b"before"


def test_an_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"

    def write(stream: IO[bytes]) -> None:
        second.write_bytes(b"someone else's")

    with pytest.raises(FileExistsError):
        atomic.write_all({first: put(b"new"), second: write})
    assert os.listdir(tmp_path) == ["b"]
    assert second.read_bytes() == b"someone else's"


def test_a_failed_second_placement_takes_the_first_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def once(a: Path, b: Path) -> None:
        if b.name == "b":
            raise PermissionError(errno.EACCES, "no", str(b))
        link(a, b)

    monkeypatch.setattr(os, "link", once)
    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(PermissionError):
        atomic.write_all({tmp_path / "a": put(b""), tmp_path / "b": put(b"")})
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(a: Path, b: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    atomic.write_all({tmp_path / "a": put(b"new")})
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_missing_folder_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        atomic.write_all({tmp_path / "none" / "a": put(b"")})
    assert raised.value.filename == str(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        atomic.write_all({tmp_path: put(b"")}, overwrite=True)


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes and links")
def test_modes_follow_the_umask_and_links_are_followed(tmp_path: Path) -> None:
    plain, link, real = tmp_path / "plain", tmp_path / "link", tmp_path / "real"
    atomic.write_all({plain: put(b"x")})
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert stat.S_IMODE(plain.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    real.write_bytes(b"before")
    link.symlink_to(real)
    atomic.write_all({link: put(b"new")}, overwrite=True)
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_file_may_be_replaced_by_its_own_rewriting(source: Path) -> None:
    before = read_all(source)
    rewrite(source, source, overwrite=True)
    after = read_all(source)
    for name, array in before.items():
        changed = flip_bits(name, array) if array.dtype.kind == "f" else array
        assert same(after[name], changed)
