"""gfloat's MX blocks as an oracle, and the dtypes of ml_dtypes that MX and NVFP4 are stored in."""

from __future__ import annotations

import numpy as np
import pytest

gfloat = pytest.importorskip("gfloat")
from gfloat import block as theirs  # noqa: E402
from gfloat import formats  # noqa: E402

import fpemu  # noqa: E402
from fpemu.blocks import BlockFormat  # noqa: E402
from fpemu.packing import pack  # noqa: E402
from fpemu.quantized import Quantized, compress  # noqa: E402
from fpemu.testing import bits  # noqa: E402

MX = {info.name.replace("mxfp4_e2m1", "mxfp4"): info for info in formats.all_block_formats}
DTYPES = {
    "mxfp4": "float4_e2m1fn",
    "mxfp6_e2m3": "float6_e2m3fn",
    "mxfp6_e3m2": "float6_e3m2fn",
    "mxfp8_e4m3": "float8_e4m3fn",
    "mxfp8_e5m2": "float8_e5m2",
}


def same(ours: np.ndarray, expected: np.ndarray) -> bool:
    """As bits, but for the sign and payload of NaN."""
    nan = np.isnan(ours) & np.isnan(expected)
    return bool(((bits(ours) == bits(expected)) | nan).all())


def every_code(name: str) -> tuple[Quantized, np.ndarray]:
    """A block for every scale code, holding every element code once: (stored, element codes)."""
    fmt = BlockFormat.parse(name)
    count = 1 << fmt.element.bits
    wide = BlockFormat(fmt.element, count, fmt.scale, fmt.rule, None, fmt.symmetric)
    codes = np.tile(np.arange(count, dtype=np.uint8), (256, 1))
    scales = np.arange(256, dtype=np.uint8)[:, None]
    packed = pack(codes, fmt.element.bits)
    return Quantized(wide, codes.shape, packed, scales, None, -1, "float64"), codes


def test_the_fields_are_the_same() -> None:
    assert len(MX) == 6
    for name, info in MX.items():
        fmt = BlockFormat.parse(name)
        assert fmt.scale is not None
        assert (fmt.block, fmt.element.bits, fmt.scale.bits) == (
            info.k,
            info.element_bits,
            info.scale_bits,
        )
        stored = compress(np.ones(info.k, np.float32), fmt)
        assert stored.nbytes == info.block_size_bytes


@pytest.mark.parametrize("name", MX)
def test_every_code_under_every_scale(backend: str, name: str) -> None:
    stored, codes = every_code(name)
    # Elements one by one cost gfloat seconds; scale times element is all that its blocks do, and
    # the whole blocks below confirm it.
    info = MX[name]
    elements = np.array([gfloat.decode_float(info.etype, int(code)).fval for code in codes[0]])
    scales = np.array([gfloat.decode_float(info.stype, code).fval for code in range(256)])
    expected = scales[:, None] * elements
    ours = stored.dequantize(backend=backend)
    assert same(ours, expected)
    for code in (0, 1, 126, 127, 128, 200, 254, 255):
        block = list(theirs.decode_block(info, [code, *codes[0].tolist()]))
        assert same(ours[code], np.array(block))


@pytest.mark.parametrize("name", MX)
def test_quantized_blocks(backend: str, name: str) -> None:
    """Its own quantizer: floor rule, nearest even, saturating elements.

    It takes exponents from log2 in float64, which is right for float32 data alone.
    """
    rng = np.random.default_rng(4)
    data = rng.standard_normal((96, 32)) * np.exp2(rng.integers(-40, 40, (96, 1)))
    x = data.astype(np.float32)
    x[:16, 0] = np.exp2(rng.integers(8, 20, 16))  # a maximum at a power of two, and next to it
    x[16:32, 0] = np.nextafter(x[:16, 0], np.float32(0))
    x[32:40] = 0
    info, fmt = MX[name], BlockFormat.parse(name)
    fmt = BlockFormat(fmt.element, 32, fmt.scale, fmt.rule)  # its int8 uses the lowest code too
    expected = [
        theirs.quantize_block(info, row, theirs.compute_scale_amax) for row in x.astype(float)
    ]
    assert same(fpemu.quantize(x, fmt, backend=backend).astype(float), np.array(expected))


@pytest.mark.parametrize("name", DTYPES)
def test_codes_are_those_of_ml_dtypes(backend: str, name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    stored, codes = every_code(name)
    assert stored.scales is not None
    elements = codes.view(getattr(ml_dtypes, DTYPES[name])).astype(np.float64)
    scales = stored.scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    assert same(stored.dequantize(backend=backend), elements * scales)


def test_nvfp4_codes_are_those_of_ml_dtypes(backend: str) -> None:
    """Every element code under every E4M3 scale: float32 rounds two products, in this order."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    codes = np.tile(np.arange(16, dtype=np.uint8), (256, 1))
    scales = np.arange(256, dtype=np.uint8)[:, None]
    elements = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    factors = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    for outer in (1.0, float(np.float32(1 / 3)), 2.0**-149):
        stored = Quantized("nvfp4", codes.shape, pack(codes, 4), scales, outer)
        expected = (elements * factors) * np.float32(outer)
        assert same(stored.dequantize(backend=backend), expected)
