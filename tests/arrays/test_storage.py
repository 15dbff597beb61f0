"""Packed files: what is saved is loaded, bit for bit, and what is damaged is refused."""

from __future__ import annotations

import copy
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fpemu
from fpemu import blocks, storage, table_format
from fpemu.quantized import Quantized, compress
from fpemu.storage import Entry, load, save
from fpemu.table_format import TableFormat

KINDS = ("npz", "safetensors")
DTYPES = ("float16", "bfloat16", "float32", "float64")
OTHERS = (
    "e2m1[16,ue4m3,bf16]",
    "e2m1[32,e8m0,rceil]",
    "e2m1[16,ue5m3,mse:20:0.5:2]",
    "e3m2[4x8,bf16]",
    "e4m3fn[channel,fp32]",
    "int8[tensor,fp32,sym]",
    "nf4[64,fp32]",
    "hif8[16,none]",
    "bfp(9,7)",
    "e2m1[5,tf32]",
)
BLOCKS = (*blocks.NAMES, *OTHERS)
SCALARS = ("e2m1", "e3m2", "e4m3fn", "e5m2", "e2m0", "hif8")
CUSTOM = TableFormat("odd", (0, 1, 1.25, -2))

Tensors = dict[str, Any]


def data(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * 3, np.dtype(dtype))


def same(a: object, b: object) -> bool:
    """Whether two tensors are the same in every part."""
    if isinstance(a, Quantized) and isinstance(b, Quantized):
        parts = (a.spec, a.shape, a.outer, a.axis, a.dtype)
        if parts != (b.spec, b.shape, b.outer, b.axis, b.dtype):
            return False
        if (a.scales is None) != (b.scales is None):
            return False
        return same(a.codes, b.codes) and (a.scales is None or same(a.scales, b.scales))
    assert isinstance(a, np.ndarray)
    assert isinstance(b, np.ndarray)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ------------------------------------------------------------------ round trips


@pytest.mark.parametrize("fmt", BLOCKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_format_and_dtype_comes_back(kind: str, fmt: str, dtype: str, tmp_path: Path) -> None:
    x = data((6, 70), dtype)
    path = tmp_path / f"w.{kind}"
    q = compress(x, fmt)
    q.save(path)
    back = Quantized.load(path)
    assert same(q, back)
    assert same(back.dequantize(), fpemu.quantize(x, fmt))


@st.composite
def tensors(draw: st.DrawFn) -> Tensors:
    """A few tensors of any format, shape, axis and dtype, and plain arrays between them."""
    names = draw(
        st.lists(st.text("ab./é ", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)
    )
    made: Tensors = {}
    for name in names:
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
        dtype = draw(st.sampled_from(DTYPES))
        x = data(shape, dtype, draw(st.integers(0, 9)))
        fmt = draw(st.sampled_from((*BLOCKS, *SCALARS, CUSTOM, None)))
        if fmt is None:
            made[name] = draw(st.sampled_from([x, np.arange(5), np.array([True, False])]))
            continue
        spec = blocks.as_spec(fmt)
        axis = -1
        if isinstance(spec, blocks.BlockFormat):
            if spec.block == "channel" and not shape:
                continue
            if isinstance(spec.block, int) or spec.block == "channel":
                axis = draw(st.integers(-max(len(shape), 1), max(len(shape), 1) - 1))
        made[name] = compress(x, spec, axis=axis)
    return made


@given(some=tensors())
def test_what_is_saved_is_loaded(
    kind: str, some: Tensors, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("save") / f"w.{kind}"
    if not some:
        with pytest.raises(ValueError, match="must not be empty"):
            save(path, some)
        return
    save(path, some)
    back = load(path)
    assert set(back) == set(some)
    for name, tensor in some.items():
        assert same(back[name], tensor)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (3, 0), (2, 0, 5)])
@pytest.mark.parametrize("fmt", [*BLOCKS, *SCALARS])
def test_scalars_and_empty_arrays_come_back(
    kind: str, fmt: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    if "channel" in fmt and not shape:
        pytest.skip("a scalar has no channels")
    q = compress(np.zeros(shape, np.float32), fmt)
    q.save(tmp_path / f"w.{kind}")
    assert same(Quantized.load(tmp_path / f"w.{kind}"), q)


def test_nan_blocks_and_zero_blocks_come_back(kind: str, tmp_path: Path) -> None:
    x = data((4, 64))
    x[0, 3], x[1], x[2, 40] = np.nan, 0, -np.inf
    q = compress(x, "mxfp4")
    q.save(tmp_path / f"w.{kind}")
    back = Quantized.load(tmp_path / f"w.{kind}").dequantize()
    assert same(back, fpemu.quantize(x, "mxfp4"))
    assert np.isnan(back[0, :32]).all()


def test_the_parts_are_ordinary_tensors(tmp_path: Path) -> None:
    """Any reader of .safetensors finds codes and scales by name."""
    q, wide = compress(data((4, 32)), "nvfp4"), compress(data((4, 32)), "e2m1[16,bf16]")
    narrow = compress(data((4, 32)), "e2m1[16,ue4m3]")
    save(tmp_path / "w.safetensors", {"q": q, "wide": wide, "narrow": narrow})
    parts = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert set(parts) == {
        "q.codes", "q.scales", "q.outer", "wide.codes", "wide.scales", "narrow.codes",
        "narrow.scales",
    }  # fmt: skip
    assert same(parts["q.codes"], q.codes)
    assert same(parts["q.scales"], q.scales)
    assert parts["q.outer"].dtype == np.float32
    assert float(parts["q.outer"]) == q.outer
    assert parts["wide.scales"].dtype == np.uint16
    assert same(parts["narrow.scales"], fpemu.pack(narrow.scales, 7))
    for name, tensor in {"q": q, "wide": wide, "narrow": narrow}.items():
        entry = storage.entry_of(tensor)
        assert entry.nbytes == tensor.nbytes
        assert entry.nbytes == sum(
            part.nbytes for key, part in parts.items() if key.startswith(f"{name}.")
        )


def test_sizes_are_known_before_the_data() -> None:
    for fmt in BLOCKS:
        for shape in ((3, 50), (1,), (0, 4)):
            q = compress(np.ones(shape, np.float32), fmt)
            outer = getattr(q.spec, "outer", None)
            wider = 0 if outer is None else 4 - outer.bits // 8  # in a file it is a float32
            assert Entry(q.spec, q.shape, q.axis, q.dtype).nbytes == q.nbytes + wider


def test_the_same_tensors_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    some = {"a": compress(data((3, 40)), "mxfp6"), "b": np.arange(3)}
    for name in ("first", "second"):
        save(tmp_path / f"{name}.{kind}", some)
    assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()


def test_a_file_without_packed_tensors_is_read_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", a=np.arange(3))
    assert same(load(tmp_path / "plain.npz")["a"], np.arange(3))
    with pytest.raises(ValueError, match=r"plain\.npz: must hold one packed tensor, has 0"):
        Quantized.load(tmp_path / "plain.npz")


def test_one_format_is_written_once(tmp_path: Path) -> None:
    some = {f"layer.{i}": compress(data((2, 32)), "mxfp4") for i in range(200)}
    save(tmp_path / "w.safetensors", some)
    size = (tmp_path / "w.safetensors").stat().st_size
    assert size < sum(q.nbytes for q in some.values()) + 300 * len(some) + 2000


# -------------------------------------------------------------------- bad files


@pytest.fixture
def small(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"small.{kind}"
    save(path, {"w": compress(data((2, 20)), "e2m1[16,ue4m3,bf16]"), "n": np.arange(3)})
    return path


def test_every_truncation_is_refused(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    cut = tmp_path / f"cut{small.suffix}"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=re.escape(str(cut))):
            load(cut)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_harmless_to_the_program(
    kind: str, place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / f"w.{kind}"
    save(path, {"w": compress(data((2, 20)), "nvfp4"), "n": np.arange(3)})
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with suppress(ValueError):  # and nothing else
        load(path)


def edit(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], object]) -> Path:
    """A copy of the file whose recipe and tensors are changed, all else in order."""
    target = path.with_name(f"changed{path.suffix}")
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            recipe = json.loads(archive.read("fpemu.json"))
            parts = {
                name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)))
                for name in archive.namelist()
                if name != "fpemu.json"
            }
        change(recipe, parts)
        with zipfile.ZipFile(target, "w") as archive:
            for name, array in parts.items():
                content = io.BytesIO()
                np.save(content, array)
                archive.writestr(f"{name}.npy", content.getvalue())
            archive.writestr("fpemu.json", json.dumps(recipe))
        return target
    with safetensors.safe_open(path, "np") as opened:
        recipe = json.loads(opened.metadata()["fpemu"])
        parts = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(recipe, parts)
    safetensors.numpy.save_file(parts, target, metadata={"fpemu": json.dumps(recipe)})
    return target


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers, strings and so on of a JSON value are."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*at, key))
    else:
        yield at


def others(value: Any) -> list[Any]:
    """What a leaf might be changed to."""
    if isinstance(value, bool):
        return [not value, "x"]
    if isinstance(value, int):
        return [value + 1, value - 1, -value - 1, value + 0.5, str(value), 10**30, None, [value]]
    if value is None:
        return [0, "x", {}]
    return [value + "x", "", value[1:], 0, None, {}]


def test_every_changed_field_of_the_table_is_refused(small: Path) -> None:
    recipes: list[dict[str, Any]] = []
    edit(small, lambda recipe, parts: recipes.append(copy.deepcopy(recipe)))
    places = list(leaves(recipes[0]))
    assert len(places) > 20
    for place in places:
        *path, last = place
        value = recipes[0]
        for key in place:
            value = value[key]
        for other in others(value):

            def change(recipe: Any, parts: Any, other: Any = other, path: Any = path) -> None:
                for key in path:
                    recipe = recipe[key]
                recipe[last] = other  # noqa: B023 - used at once

            changed = edit(small, change)
            with pytest.raises(ValueError, match=re.escape(str(changed))):
                load(changed)


@pytest.mark.parametrize("table", ["formats", "tensors", "check", "packed"])
def test_a_missing_table_is_refused(small: Path, table: str) -> None:
    def change(recipe: Any, parts: Any) -> None:
        if table == "packed":
            recipe["packed"] = []
        else:
            del recipe["packed"][table]

    with pytest.raises(ValueError, match="changed"):
        load(edit(small, change))


def resign(recipe: dict[str, Any]) -> None:
    """Make the checksum right again, so that the checks behind it are reached."""
    packed = {name: value for name, value in recipe["packed"].items() if name != "check"}
    recipe["packed"]["check"] = storage._check(recipe["contract"], packed)


BAD_FIELDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown exponent bits": (
        lambda p: p["formats"][0]["element"].update(exponent_bits=99), "exponent_bits"),
    "unknown field": (lambda p: p["formats"][0]["scale"].update(width=3), "width"),
    "no element": (lambda p: p["formats"][0].pop("element"), "tensor 'w'"),
    "no rule": (lambda p: p["formats"][0].update(rule="best"), "rule"),
    "format number": (lambda p: p["tensors"]["w"].update(format=1), "format must be in 0..0"),
    "negative shape": (lambda p: p["tensors"]["w"].update(shape=[-2, -20]), "shape"),
    "another shape": (lambda p: p["tensors"]["w"].update(shape=[2, 22]), "'w.codes' must be"),
    "huge shape": (lambda p: p["tensors"]["w"].update(shape=[10**18, 10**18]), "'w.codes'"),
    "other blocks": (lambda p: p["formats"][0].update(block=4), "'w.scales' must be"),
    "no such axis": (lambda p: p["tensors"]["w"].update(axis=2), "axis must be in -2..1"),
    "unknown dtype": (lambda p: p["tensors"]["w"].update(dtype="int8"), "dtype must be one of"),
    "unknown layout": (lambda p: p["tensors"]["w"].update(layout="4+2"), "'stream', got '4\\+2'"),
    "extra field": (lambda p: p["tensors"]["w"].update(sign=1), "its fields are"),
    "another name": (lambda p: p["tensors"].update(v=p["tensors"].pop("w")), "no 'v.codes'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_fields_are_checked_even_under_a_right_checksum(small: Path, case: str) -> None:
    spoil, clue = BAD_FIELDS[case]

    def change(recipe: Any, parts: Any) -> None:
        spoil(recipe["packed"])
        resign(recipe)

    changed = edit(small, change)
    with pytest.raises(ValueError, match=clue) as raised:
        load(changed)
    assert str(changed) in str(raised.value)
    assert "tensor '" in str(raised.value)
    assert "\n" not in str(raised.value)


BAD_PARTS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "codes too short": (lambda p: p.update({"w.codes": p["w.codes"][:-1]}), "'w.codes' must be"),
    "codes too long": (lambda p: p.update({"w.codes": np.zeros(99, "u1")}), "'w.codes' must be"),
    "codes of another type": (
        lambda p: p.update({"w.codes": p["w.codes"].astype("i1")}), "'w.codes' must be uint8"),
    "scales of another shape": (
        lambda p: p.update({"w.scales": p["w.scales"].reshape(2, -1)}), "'w.scales' must be"),
    "no scales": (lambda p: p.pop("w.scales"), "no 'w.scales'"),
    "no codes": (lambda p: p.pop("w.codes"), "no 'w.codes'"),
    "stray bits": (lambda p: p.update({"w.scales": p["w.scales"] | 0xF0}), "stray bits"),
    "outer of another type": (
        lambda p: p.update({"w.outer": np.array(1.0)}), "'w.outer' must be"),
    "outer not finite": (
        lambda p: p.update({"w.outer": np.array(np.inf, "f4")}), "outer must be a value"),
    "outer not of its format": (
        lambda p: p.update({"w.outer": np.array(1.0001, "f4")}), "outer must be a value of bf16"),
    "outer negative": (
        lambda p: p.update({"w.outer": np.array(-1, "f4")}), "outer must be a value"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PARTS)
def test_parts_are_checked_before_anything_is_returned(small: Path, case: str) -> None:
    spoil, clue = BAD_PARTS[case]
    changed = edit(small, lambda _, parts: spoil(parts))
    with pytest.raises(ValueError, match=clue) as raised:
        load(changed)
    assert f"{changed}: tensor 'w'" in str(raised.value)


@pytest.mark.parametrize("contract", [fpemu.CONTRACT + 1, 0, -1, "1", None, True])
def test_an_unknown_contract_is_refused(small: Path, contract: object) -> None:
    def change(recipe: Any, parts: Any) -> None:
        recipe["contract"] = contract

    with pytest.raises(ValueError, match=r"changed\S+: written under contract"):
        load(edit(small, change))


# ---------------------------------------------------------------- bad arguments


def test_save_refuses(tmp_path: Path) -> None:
    q, path = compress(data((2, 20)), "mxfp4"), tmp_path / "w.npz"
    for kind, words, call in (
        (ValueError, r"ends in \.npz or \.safetensors, not '\.npy'",
         lambda: save(tmp_path / "w.npy", {"q": q})),
        (ValueError, "tensors must not be empty", lambda: save(path, {})),
        (ValueError, r"tensor 'q\.codes' must have another name",
         lambda: save(path, {"q": q, "q.codes": np.zeros(2)})),
        (ValueError, "tensor '__metadata__' must have another name",
         lambda: save(path, {"__metadata__": np.zeros(2)})),
        (TypeError, "tensor 'q' must be a Quantized or a NumPy array, got list",
         lambda: save(path, {"q": [1.0]})),  # type: ignore[dict-item]
        (TypeError, "tensor 'z' must be float16.*got complex128",
         lambda: save(path, {"q": q, "z": np.zeros(2, complex)})),
        (TypeError, "names of tensors must be str", lambda: save(path, {1: q})),  # type: ignore[dict-item]
        (FileNotFoundError, "no such folder", lambda: q.save(tmp_path / "none" / "w.npz")),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            call()
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_asked(kind: str, tmp_path: Path) -> None:
    q, path = compress(data((2, 20)), "mxfp4"), tmp_path / f"w.{kind}"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError):
        q.save(path)
    assert path.read_bytes() == b"before"
    q.save(path, overwrite=True)
    assert same(Quantized.load(path), q)
    assert len(list(tmp_path.iterdir())) == 1


def test_load_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")
    np.save(tmp_path / "a.npy", np.zeros(2))
    with pytest.raises(ValueError, match=r"ends in \.npz or \.safetensors"):
        load(tmp_path / "a.npy")
    two = {"a": compress(data((2, 20)), "mxfp4"), "b": compress(data((2, 20)), "mxfp4")}
    save(tmp_path / "two.npz", two)
    with pytest.raises(ValueError, match=r"two\.npz: must hold one packed tensor, has 2"):
        Quantized.load(tmp_path / "two.npz")


def test_without_safetensors_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    compress(data((2, 20)), "mxfp4").save(path)  # writing needs no library
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'fpemu\[cli\]'"):
        load(path)


def test_names_and_tables_of_every_sort_come_back(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{kind}"
    x = np.array([0, 1, 1.25, -2], np.float64)
    named = {name: compress(x.astype("f4") * 0 + 1, book)
             for name, book in table_format.NAMES.items()}  # fmt: skip
    some = {"custom": compress(x, CUSTOM), "bf": x.astype(ml_dtypes.bfloat16), **named}
    save(path, some)
    back = load(path)
    assert all(same(back[name], tensor) for name, tensor in some.items())
