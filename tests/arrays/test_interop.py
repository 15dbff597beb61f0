"""Codes and quantized arrays as ml_dtypes' arrays and torch's tensors, and back."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fpemu
from fpemu import interop
from fpemu.interop import from_dtype, from_ml_dtypes, from_torch, to_dtype, to_ml_dtypes, to_torch
from fpemu.quantized import Quantized, compress

ML = [fmt for fmt in interop._NAMES["ml_dtypes"] if fmt != "ue4m3"]
TORCH = [fmt for fmt in interop._NAMES["torch"] if fmt != "ue4m3"]

ML_BLOCKS = (
    "mxfp4", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4", "nvint4",
    "e2m1[16,ue4m3,bf16]", "e4m3fn[channel,bf16]", "e2m1[tensor,fp32]", "int8[32,fp32]",
    "e5m2[4x8,fp32]", "e3m4[16,none]", "e4m3fn", "e3m2", "bf16", "fp16",
)  # fmt: skip
TORCH_BLOCKS = (
    "mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4", "e2m1[16,ue4m3,bf16]", "e4m3fn[channel,bf16]",
    "e2m1[tensor,fp32]", "int8[32,fp32]", "e5m2[4x8,fp32]", "e2m1[16,none]", "e4m3fn", "e5m2fnuz",
    "bf16", "fp16",
)  # fmt: skip


def all_codes(fmt: str) -> np.ndarray:
    bits = fpemu.format(fmt).bits
    if bits <= 16:
        return np.arange(1 << bits, dtype="u1" if bits <= 8 else "u2")
    return (
        np.random.default_rng(bits).integers(0, 1 << bits, 1000, np.uint64).astype(f"u{bits // 8}")
    )


def data(shape: tuple[int, ...] = (6, 64)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 3


def assert_same_values(values: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(values, expected, equal_nan=True)
    number = ~np.isnan(expected)
    assert np.array_equal(np.signbit(values)[number], np.signbit(expected)[number])


def assert_same(a: Quantized, b: Quantized) -> None:
    assert (a.spec, a.shape, a.outer, a.axis, a.dtype) == (
        b.spec,
        b.shape,
        b.outer,
        b.axis,
        b.dtype,
    )
    assert np.array_equal(a.codes, b.codes)
    assert (a.scales is None) == (b.scales is None)
    assert a.scales is None or np.array_equal(a.scales, b.scales)


# ------------------------------------------------------------------- ml_dtypes


@pytest.mark.parametrize("fmt", ML)
def test_views_of_ml_dtypes_have_our_values(fmt: str) -> None:
    codes = all_codes(fmt)
    view = to_ml_dtypes(codes, fmt)
    assert np.shares_memory(view, codes)
    assert view.dtype == to_dtype(fmt)
    assert from_dtype(view.dtype) == from_dtype(view.dtype.name) == fpemu.format(fmt)
    with np.errstate(invalid="ignore"):
        assert_same_values(view.astype(np.float64), fpemu.decode(codes, fmt, dtype="float64"))
    back, found = from_ml_dtypes(view)
    assert found == fpemu.format(fmt)
    assert np.shares_memory(back, codes)
    assert np.array_equal(back, codes)


def test_upper_bits_of_a_sub_byte_item_are_refused() -> None:
    array = np.array([0x0F, 0xF2], np.uint8).view(ml_dtypes.float4_e2m1fn)
    with pytest.raises(ValueError, match="codes must fit the 4 bits of e2m1, got 242"):
        from_ml_dtypes(array)


def test_unsigned_e4m3_shares_the_dtype_of_e4m3fn() -> None:
    codes = np.arange(128, dtype=np.uint8)
    view = to_ml_dtypes(codes, "ue4m3")
    assert view.dtype == ml_dtypes.float8_e4m3fn
    assert_same_values(view.astype(np.float32), fpemu.decode(codes, "ue4m3"))


@pytest.mark.parametrize("fmt", ML_BLOCKS)
@pytest.mark.parametrize("shape", [(6, 64), (5, 37), (0, 8), (7,), (2, 3, 20)])
def test_quantized_goes_to_ml_dtypes_and_back(fmt: str, shape: tuple[int, ...]) -> None:
    axis = 0 if "channel" in fmt else -1
    q = compress(data(shape), fmt, axis=axis)
    elements, scales, outer = q.to_ml_dtypes()
    assert elements.shape == q.shape
    assert outer is None or outer.dtype == np.float32
    element = q.spec.element if hasattr(q.spec, "element") else q.spec
    assert_same_values(elements.astype(np.float32), fpemu.decode(q.element_codes(), element))
    if q.scales is None:
        assert scales is None
    else:
        assert np.shares_memory(scales, q.scales) or not scales.size
        assert_same_values(scales.astype(np.float32), q.scale_values())
    back = Quantized.from_ml_dtypes(elements, scales, fmt, outer=outer, axis=q.axis)
    assert_same(back, q)


def test_the_parts_of_mxfp8_multiply_to_the_values() -> None:
    q = compress(data(), "mxfp8_e4m3")
    elements, scales, _ = q.to_ml_dtypes()
    product = elements.astype("f4").reshape(6, 2, 32) * scales.astype("f4")[..., None]
    assert np.array_equal(product.reshape(6, 64), q.dequantize())


def test_ml_dtypes_parts_that_do_not_fit_are_refused() -> None:
    elements, scales, outer = compress(data(), "nvfp4").to_ml_dtypes()
    make = Quantized.from_ml_dtypes
    bad = scales.view(np.uint8).copy()
    for kind, words, call in (
        (TypeError, "elements must be float4_e2m1fn for e2m1, got float32",
         lambda: make(elements.astype("f4"), scales, "nvfp4", outer=outer)),
        (TypeError, "elements must be a ndarray, got list",
         lambda: make([1.0], scales, "nvfp4", outer=outer)),  # type: ignore[arg-type]
        (TypeError, "scales must be float8_e4m3fn", lambda: make(elements, bad, "nvfp4", outer=1)),
        (ValueError, r"scales must be uint8 \(6, 4\)",
         lambda: make(elements, scales[:, :3], "nvfp4", outer=outer)),
        (ValueError, "scales must be uint8", lambda: make(elements, None, "nvfp4", outer=outer)),
        (ValueError, "outer must be given", lambda: make(elements, scales, "nvfp4")),
        (ValueError, "outer must be a value of fp32",
         lambda: make(elements, scales, "nvfp4", outer=0.1)),
        (ValueError, "outer must be a value", lambda: make(elements, scales, "nvfp4", outer=-1.0)),
        (ValueError, "scales and outer must be None",
         lambda: make(elements, None, "e2m1", outer=1.0)),
        (TypeError, "dtype must be float64", lambda: make(
            elements, scales, "nvfp4", outer=outer, dtype="int8")),
        (ValueError, "scales must be codes of ue4m3", lambda: make(
            elements, (bad | 128).view(ml_dtypes.float8_e4m3fn), "e2m1[16,ue4m3]")),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            call()


@pytest.mark.parametrize("fmt", ["mxint8", "e2m1[16,ue5m3]", "msfp12", "tf32", "e2m2"])
def test_formats_without_a_dtype_are_refused(fmt: str) -> None:
    if fmt == "msfp12":  # elements are int4, which ml_dtypes has
        assert compress(data(), fmt).to_ml_dtypes().elements.dtype == ml_dtypes.int4
        return
    with pytest.raises(ValueError, match="ml_dtypes has no dtype for"):
        compress(data(), fmt).to_ml_dtypes()


def test_table_formats_have_no_dtype() -> None:
    with pytest.raises(ValueError, match="table format nf4"):
        compress(data(), "nf4[64,fp32]").to_ml_dtypes()


def test_codes_and_names_are_checked() -> None:
    for kind, words, call in (
        (TypeError, "codes must be an array of uint8 for e2m1, got int64",
         lambda: to_ml_dtypes(np.array([1]), "e2m1")),
        (TypeError, "got list", lambda: to_ml_dtypes([1], "e2m1")),  # type: ignore[arg-type]
        (ValueError, "codes must fit the 4 bits of e2m1, got 16",
         lambda: to_ml_dtypes(np.array([16], "u1"), "e2m1")),
        (ValueError, "library must be 'ml_dtypes' or 'torch', got 'jax'",
         lambda: to_dtype("e2m1", "jax")),
        (ValueError, "dtype must be one of", lambda: from_dtype(np.int32)),
        (ValueError, "dtype must be one of", lambda: from_dtype("float8")),
        (ValueError, "dtype must be one of", lambda: from_dtype(object())),
        (ValueError, "dtype must be one of", lambda: from_ml_dtypes(np.zeros(2, complex))),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            call()


@pytest.mark.parametrize(
    ("package", "remedy"), [("torch", "pip install torch"), ("ml_dtypes", r"fpemu\[interop\]")]
)
def test_a_missing_library_comes_with_its_remedy(
    package: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    q = compress(data(), "mxfp8_e4m3")
    with pytest.raises(ImportError, match=f"{package} is not installed.*{remedy}"):
        q.to_torch() if package == "torch" else q.to_ml_dtypes()


# ----------------------------------------------------------------------- torch


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("fmt", TORCH)
def test_tensors_have_our_values(fmt: str, torch: Any) -> None:
    codes = all_codes(fmt)
    tensor = to_torch(codes, fmt)
    assert tensor.dtype == to_dtype(fmt, "torch")
    assert from_dtype(tensor.dtype) == fpemu.format(fmt)
    if fmt == "e2m1":  # torch cannot convert pairs
        assert tensor.shape == (8,)
        assert np.array_equal(tensor.view(torch.uint8).numpy(), fpemu.pack(codes, 4))
    else:
        values = tensor.to(torch.float64).numpy()
        assert_same_values(values, fpemu.decode(codes, fmt, dtype="float64"))
        assert tensor.data_ptr() == codes.ctypes.data
    back, found = from_torch(tensor)
    assert found == fpemu.format(fmt)
    assert np.array_equal(back, codes)
    assert back.dtype == codes.dtype


@pytest.mark.parametrize("fmt", TORCH_BLOCKS)
@pytest.mark.parametrize("shape", [(6, 64), (5, 38), (0, 8), (8,), (2, 3, 20)])
def test_quantized_goes_to_torch_and_back(fmt: str, shape: tuple[int, ...], torch: Any) -> None:
    axis = 0 if "channel" in fmt else -1
    q = compress(data(shape), fmt, axis=axis)
    elements, scales, outer = q.to_torch()
    if fmt.startswith(("mxfp4", "nvfp4", "e2m1")):
        assert elements.dtype == torch.float4_e2m1fn_x2
        assert tuple(elements.shape) == (*shape[:-1], shape[-1] // 2)
        assert elements.data_ptr() == q.codes.ctypes.data or not q.size
    else:
        assert tuple(elements.shape) == shape
    if q.scales is not None:
        assert_same_values(scales.to(torch.float32).numpy(), q.scale_values())
    assert outer is None or (outer.dtype == torch.float32 and float(outer) == q.outer)
    back = Quantized.from_torch(elements, scales, fmt, outer=outer, axis=q.axis)
    assert_same(back, q)
    assert np.array_equal(back.dequantize(), fpemu.quantize(data(shape), fmt, axis=axis))


def test_tensors_of_other_layouts_come_in(torch: Any) -> None:
    q = compress(data(), "mxfp8_e4m3")
    elements, scales, _ = q.to_torch()
    strided = torch.stack((elements.view(torch.uint8),) * 2, -1)[..., 1].view(torch.float8_e4m3fn)
    assert not strided.is_contiguous()
    turned = scales.view(torch.uint8).T.contiguous().T.view(torch.float8_e8m0fnu)
    back = Quantized.from_torch(strided, turned, "mxfp8_e4m3", dtype=torch.bfloat16)
    assert np.array_equal(back.codes, q.codes)
    assert np.array_equal(back.scales, q.scales)
    assert back.dtype == "bfloat16"


def test_read_only_codes_become_a_copy(torch: Any) -> None:
    codes = np.arange(16, dtype=np.uint8)
    codes.flags.writeable = False
    tensor = to_torch(codes, "e4m3fn")
    assert tensor.data_ptr() != codes.ctypes.data
    assert np.array_equal(from_torch(tensor)[0], codes)
    assert np.array_equal(from_torch(to_torch(codes[::-1], "e4m3fn"))[0], codes[::-1])


def test_tensors_that_do_not_fit_are_refused(torch: Any) -> None:
    elements, scales, outer = compress(data(), "nvfp4").to_torch()
    make = Quantized.from_torch
    for kind, words, call in (
        (ValueError, r"last axis must be even.*\(6, 63\)",
         lambda: compress(data((6, 63)), "nvfp4").to_torch()),
        (ValueError, "last axis must be even", lambda: compress(data(()), "e2m1").to_torch()),
        (ValueError, "torch has no dtype for e3m2", lambda: compress(data(), "mxfp6").to_torch()),
        (ValueError, "torch has no dtype for ue5m3",
         lambda: compress(data(), "e2m1[16,ue5m3]").to_torch()),
        (TypeError, "elements must be torch.float4_e2m1fn_x2",
         lambda: make(elements.view(torch.uint8), scales, "nvfp4", outer=outer)),
        (TypeError, "elements must be a Tensor, got ndarray",
         lambda: make(np.zeros(3), scales, "nvfp4", outer=outer)),
        (TypeError, "scales must be torch.float8_e4m3fn",
         lambda: make(elements, scales.to(torch.float32), "nvfp4", outer=outer)),
        (ValueError, "scales must be uint8",
         lambda: make(elements, scales[:, :2], "nvfp4", outer=outer)),
        (ValueError, "outer must be given", lambda: make(elements, scales, "nvfp4")),
        (TypeError, "tensor must be a torch tensor, got ndarray",
         lambda: from_torch(np.zeros(3))),
        (ValueError, "dtype must be one of", lambda: from_torch(torch.zeros(2, dtype=torch.int32))),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            call()
