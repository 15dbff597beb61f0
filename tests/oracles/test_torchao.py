"""torchao as an oracle: MX in its four scale modes, and NVFP4, on 2**20 values each.

The preset reproduces torchao bit for bit, on every input. Our own definition agrees with it on
every block that does not meet one of the listed differences, and the conditions here say which.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
logging.disable(logging.WARNING)  # it reports the extensions that its wheel was built without
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mx = pytest.importorskip(
            "torchao.prototype.mx_formats.mx_tensor", reason="torchao is not installed"
        )
        nv = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
finally:
    logging.disable(logging.NOTSET)

import fpemu  # noqa: E402
from fpemu.blocks import BlockFormat  # noqa: E402
from fpemu.quantized import compress  # noqa: E402

F = np.float32
SIZE = 1 << 20
ELEMENTS = {
    "e2m1": torch.float4_e2m1fn_x2,
    "e2m3": "fp6_e2m3",
    "e3m2": "fp6_e3m2",
    "e4m3fn": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
RULES = ["floor", "ceil", "even", "rceil"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def patterns(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, count, np.uint32).view(F)


def inputs(fmt: BlockFormat) -> np.ndarray:
    """2**20 values in rows of 512: every kind of block that the rules tell apart."""
    rng = np.random.default_rng(11)
    n = fmt.block
    assert isinstance(n, int)
    powers = np.ldexp(F(1), np.arange(-149, 128)).astype(F).view(np.int32)
    # Below 2**k the float32 log2 is k for up to 44 steps, above it for up to 22.
    steps = np.array([0, 1, 2, 3, 5, 6, 11, 12, 22, 23, 44, 45])
    near = (powers[:, None] + np.concatenate([steps, -steps])).reshape(-1)
    near = near[(near >= 0) & (near < 0x7F800000)].astype(np.int32).view(F)
    with np.errstate(over="ignore"):
        maxima = np.concatenate([near, near * F(fmt.qmax)])
    maxima = maxima[np.isfinite(maxima)]
    lead = np.zeros((maxima.size, n), F)  # each a block's largest; the others below it
    lead[:, 0] = maxima
    scale = rng.uniform(-1, 1, (maxima.size, n - 1)).astype(F)
    lead[:, 1:] = scale * maxima[:, None]
    elements = np.array([float(v) for v in fmt.element.values() if float(v) == float(v)], F)
    elements = elements[np.isfinite(elements)]
    middles = np.concatenate([elements, (elements[1:] + elements[:-1]) / 2])
    ties = rng.choice(middles, (4096, n)) * np.ldexp(F(1), rng.integers(-30, 30, (4096, 1)))
    near_ties = np.nextafter(ties, rng.choice([-np.inf, np.inf], ties.shape).astype(F))
    special = patterns(5, 256 * n).reshape(256, n)
    zeros = np.zeros((8, n), F) * rng.choice([-1, 1], (8, n))
    one_bad = rng.standard_normal((8, n)).astype(F)
    one_bad[np.arange(8), np.arange(8)] = np.repeat([np.inf, -np.inf, np.nan, 0], 2)
    gaussian = rng.standard_normal((8192, n)) * np.exp2(rng.uniform(-140, 120, (8192, 1)))
    blocks = [lead, ties, near_ties, special, zeros, one_bad, gaussian, 1e-40 * gaussian[:512]]
    with np.errstate(all="ignore"):
        data = np.concatenate([np.asarray(block, F).reshape(-1) for block in blocks])
    fill = SIZE - data.size
    assert fill > 0
    data = np.concatenate([data, rng.standard_normal(fill).astype(F)])
    return data.reshape(-1, 512)


def theirs(x: np.ndarray, fmt: BlockFormat) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the scales, and values."""
    element = ELEMENTS[str(fmt.element)]
    mode = mx.ScaleCalculationMode(str(fmt.rule))
    scale, data = mx.to_mx(torch.from_numpy(x), element, fmt.block, mode)
    values = mx.to_dtype(data, scale, element, fmt.block, torch.float32)
    return scale.view(torch.uint8).numpy(), values.numpy()


def assert_same(ours: np.ndarray, values: np.ndarray, x: np.ndarray, note: object = "") -> None:
    """As bits, but for the sign and payload of NaN."""
    wrong = (ours.view(np.uint32) != values.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(values))
    at = tuple(np.argwhere(wrong)[0]) if wrong.any() else None
    assert at is None, (note, int(wrong.sum()), at, x[at], ours[at], values[at])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_mx_preset_is_exact(element: str, rule: str) -> None:
    fmt = BlockFormat(element, 32, "e8m0", rule)  # type: ignore[arg-type]
    x = inputs(fmt)
    _, values = theirs(x, fmt)
    assert_same(fpemu.quantize(x, fmt, policy="torchao"), values, x)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_mx_definition_agrees(backend: str, element: str, rule: str) -> None:
    """Scales and values, but for blocks of infinities, blocks so small that the scale is 2**-127,
    values beyond float32 and, with rceil, ratios just above a power of two."""
    fmt = BlockFormat(element, 32, "e8m0", rule)  # type: ignore[arg-type]
    x = inputs(fmt)
    scales, values = theirs(x, fmt)
    amax = np.abs(x).reshape(len(x), -1, 32).max(axis=2)
    differs = np.isinf(amax) | (scales == 0)
    if rule == "rceil":
        with np.errstate(invalid="ignore"):  # signalling NaN
            significand, _ = np.frexp(amax / F(fmt.qmax))
        differs |= (significand > 0.5) & (significand < 0.5 + 80 * 2.0**-24)
    same = np.repeat(~differs, 32, axis=1)
    assert same.mean() > 0.75
    ours = fpemu.quantize(x, fmt, backend=backend)
    beyond = np.isinf(values)
    assert (np.abs(ours[beyond & same]) == np.finfo(F).max).all()
    same &= ~beyond
    assert_same(np.where(same, ours, 0), np.where(same, values, 0), x)
    stored = compress(x, fmt, backend=backend)
    assert stored.scales is not None
    agree = (stored.scales == scales) | differs
    assert agree.all(), np.argwhere(~agree)[:3]


@pytest.mark.parametrize("element", ELEMENTS)
def test_mx_in_bfloat16(element: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    fmt = BlockFormat(element, 32, "e8m0")
    every = np.arange(1 << 16, dtype=np.uint16)
    finite = every[(every & 0x7F80) != 0x7F80]
    mixed = np.random.default_rng(0).permutation(finite)
    x = np.concatenate([every, mixed]).view(ml_dtypes.bfloat16).reshape(-1, 256)
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    scale, data = mx.to_mx(tensor, ELEMENTS[element], 32)
    values = mx.to_dtype(data, scale, ELEMENTS[element], 32, torch.bfloat16)
    ours = fpemu.quantize(x, fmt, policy="torchao")
    assert ours.dtype == x.dtype
    assert_same(ours.astype(F), values.float().numpy(), x)


def test_mx_codes_are_theirs() -> None:
    """What compress stores: their packed FP4, low nibble first, and their scales."""
    x = np.random.default_rng(3).standard_normal((64, 512)).astype(F)
    scale, data = mx.to_mx(torch.from_numpy(x), torch.float4_e2m1fn_x2, 32)
    for policy in (None, "torchao"):
        stored = compress(x, "mxfp4", policy=policy)
        assert stored.codes.tobytes() == data.numpy().tobytes()
        assert stored.scales is not None
        assert stored.scales.tobytes() == scale.view(torch.uint8).numpy().tobytes()


# --------------------------------------------------------------------- NVFP4


def their_nvfp4(x: np.ndarray, amax: float | None) -> tuple[np.ndarray, np.ndarray]:
    t = None if amax is None else nv.per_tensor_amax_to_scale(torch.tensor(amax, dtype=torch.float))
    made = nv.NVFP4Tensor.to_nvfp4(torch.from_numpy(x), 16, t)
    return made.scale.view(torch.uint8).numpy(), made.dequantize(torch.float32).numpy()


def test_nvfp4_one_level_preset_is_exact() -> None:
    fmt = BlockFormat.parse("e2m1[16,e4m3fn]")
    x = inputs(fmt)
    _, values = their_nvfp4(x, None)
    assert_same(fpemu.quantize(x, fmt, policy="torchao"), values, x)


@pytest.mark.parametrize("amax", [2688.0, 6.0, 1e-3, 3.7e4, 3.4e38, 1e-30, 1e-36, 1e-42])
def test_nvfp4_two_level_preset_is_exact(amax: float) -> None:
    x = inputs(BlockFormat.parse("nvfp4"))
    _, values = their_nvfp4(x, amax)
    assert_same(fpemu.quantize(x, "nvfp4", policy="torchao", amax=amax), values, x)


@pytest.mark.parametrize("exponent", [-140, -126, -60, -8, 0, 9, 100])
def test_nvfp4_preset_finds_its_tensor_scale(exponent: int) -> None:
    rng = np.random.default_rng(exponent + 200)
    x = np.ldexp(rng.standard_normal((64, 256)), exponent).astype(F)
    x[3, :16] = 0
    x[4, :16] = [0.0, -0.0] * 8
    _, values = their_nvfp4(x, float(np.abs(x).max()))
    assert_same(fpemu.quantize(x, "nvfp4", policy="torchao"), values, x)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 0.0])
def test_nvfp4_preset_with_a_bad_tensor_scale(bad: float) -> None:
    """Infinities and NaN take part in its maximum, and a tensor of zeros becomes NaN."""
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(F) * F(bad != 0)
    x[2, 5] = bad
    _, values = their_nvfp4(x, float(np.abs(x).max()))
    assert np.isnan(values).all()
    assert_same(fpemu.quantize(x, "nvfp4", policy="torchao"), values, x)


def test_nvfp4_one_level_definition_agrees(backend: str) -> None:
    """Without the outer scale, blocks whose scale is not below 2**-6: quotients differ in the
    last bit only, and so elements differ only next to a midpoint of E2M1."""
    fmt = BlockFormat.parse("e2m1[16,e4m3fn]")
    x = inputs(fmt)
    scales, values = their_nvfp4(x, None)
    amax = np.abs(x).reshape(len(x), -1, 16).max(axis=2)
    small = amax < F(6 * 2.0**-6)
    beyond = ~np.isfinite(amax)
    stored = compress(x, fmt, backend=backend)
    assert stored.scales is not None
    assert ((stored.scales == scales) | small | beyond).all()
    same = np.repeat(~(small | beyond), 16, axis=1)
    assert same.mean() > 0.4
    ours = fpemu.quantize(x, fmt, backend=backend)
    differs = same & (ours != values)
    scale = np.repeat(fpemu.decode(scales, "e4m3fn"), 16, axis=1)
    quotient = np.abs(x[differs].astype(np.float64) / scale[differs])
    middles = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    distance = np.abs(quotient[:, None] / middles - 1).min(axis=1, initial=1)
    assert differs.mean() < 0.02
    assert (distance < 2.0**-22).all()


def test_nvfp4_two_level_definition_agrees(backend: str) -> None:
    """On Gaussian data: the same scales (none is below 2**-6 of the largest); values within two
    roundings of float32, but for a quotient next to a midpoint."""
    x = np.random.default_rng(9).standard_normal((2048, 512)).astype(F)
    scales, values = their_nvfp4(x, float(np.abs(x).max()))
    stored = compress(x, "nvfp4", backend=backend)
    assert stored.scales is not None
    assert (stored.scales == scales).all()
    ours = fpemu.quantize(x, "nvfp4", backend=backend)
    apart = np.abs(ours - values) > 2.0**-22 * np.abs(values)
    assert apart.mean() < 2.0**-18
