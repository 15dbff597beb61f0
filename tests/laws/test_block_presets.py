"""Presets of block formats: rows measured with the libraries themselves, and what is refused.

torchao is asked on 2**20 values in `tests/oracles/test_torchao.py`, where it is installed; the
rows of microxcaling were measured with its PyTorch path in float32.
"""

from __future__ import annotations

import numpy as np
import pytest

import fpemu
from fpemu.block_presets import PRESETS
from fpemu.blocks import NAMES, BlockFormat
from fpemu.formats import Format
from fpemu.policy import Policy
from fpemu.quantized import compress
from fpemu.testing import bits

F = np.float32
INF, NAN, MAX = np.inf, np.nan, float(np.finfo(F).max)
MX = ["mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2"]


def below(x: float, steps: int = 1) -> float:
    return float((F(x).view(np.int32) - np.int32(steps)).view(F))


def block(*lead: float, rest: float = 0.0, length: int = 32) -> np.ndarray:
    return np.array([*lead, *[rest] * (length - len(lead))], F)


def run(policy: str, fmt: str, x: np.ndarray, **options) -> list[float]:
    return fpemu.quantize(x, fmt, policy=policy, **options).astype(np.float64).tolist()


def same(got: list[float], expected: list[float]) -> bool:
    a, b = np.array(got[: len(expected)]), np.array(expected, np.float64)
    return bool(((bits(a) == bits(b)) | (np.isnan(a) & np.isnan(b))).all())


# -------------------------------------------------------------------- microxcaling


@pytest.mark.parametrize(
    ("fmt", "x", "expected"),
    [
        # Just below 8 its logarithm is 3: the scale is 2, and the grid twice as coarse.
        ("mxfp4", (below(8), 0.5), [8, 1]),
        ("mxfp4", (below(8, 5), 0.5), [6, 0.5]),
        ("mxfp4", (4, 0.5), [4, 0.5]),
        ("mxint8", (below(4), 1 / 64), [127 / 32, 1 / 32]),
        # Halves go away from zero, and just under half the smallest element goes up.
        ("mxfp4", (4, 0.25, -0.75, 2.5, 5), [4, 0.5, -1, 3, 6]),
        ("mxfp4", (4, below(0.25), -below(0.25), below(0.25, 2)), [4, 0.5, -0.5, 0]),
        ("mxint8", (1, 1 / 128, -3 / 128), [1, 1 / 64, -2 / 64]),
        # -0 becomes +0, and what rounds to zero keeps its sign, integers included.
        ("mxfp4", (4, -0.0, -0.1, 0.1), [4, 0, -0.0, 0]),
        ("mxint8", (1, -0.0, -0.001), [1, 0, -0.0]),
        ("mxfp4", (-0.0, -0.0), [0, 0]),
        # The lowest integer is out of use.
        ("mxint8", (-1.999, 1.999), [-127 / 64, 127 / 64]),
        # One infinity or NaN makes all 32 NaN.
        ("mxfp4", (INF, 1), [NAN] * 32),
        ("mxfp8_e4m3", (-INF, 1), [NAN] * 32),
        ("mxfp6_e2m3", (1, NAN), [NAN] * 32),
        # Integers have emax 0, so that a logarithm of 128 is beyond the scales.
        ("mxint8", (MAX, 1), [NAN] * 32),
        ("mxfp4", (MAX, 1), [INF, 0]),
        # Small blocks: the scale ends at 2**-127.
        ("mxfp4", (2.0**-126, 2.0**-128), [2.0**-126, 2.0**-128]),
        ("mxfp4", (2.0**-149,), [0]),
    ],
)
def test_microxcaling(fmt: str, x: tuple[float, ...], expected: list[float]) -> None:
    assert same(run("microxcaling", fmt, block(*x)), expected)


def test_microxcaling_rounds_to_even_on_request() -> None:
    x = block(4, 0.25, 0.75, -2.5, below(0.25))
    assert run("microxcaling", "mxfp4", x, rounding="nearest_even")[:5] == [4, 0, 1, -2, 0.5]


def test_microxcaling_knows_integers_below_two() -> None:
    fmt = BlockFormat(Format.fixed_point(4, 2), 16, "e8m0", None, symmetric=True)  # type: ignore[arg-type]
    x = block(1.9, -2, 0.3, 0.125, length=16)
    assert fpemu.quantize(x, fmt, policy="microxcaling").tolist()[:4] == [2, -2, 0.5, 0]


# -------------------------------------------------------------------------- torchao


@pytest.mark.parametrize(
    ("fmt", "x", "expected"),
    [
        ("mxfp4", (INF, 1), [INF, 0]),
        ("mxfp4", (-INF, 1e38), [-INF, 8.507059173023462e37]),
        ("e2m1[32,e8m0,rceil]", (INF, 1), [INF, 0]),
        ("mxfp8_e4m3", (NAN, 1), [NAN] * 32),
        ("mxfp4", (0.0, -0.0), [0, -0.0]),
        # Divided by 2**-126, multiplied by 2**-127; rceil divides by 1.
        ("mxfp4", (2.0**-126, -(2.0**-127)), [2.0**-127, -(2.0**-128)]),
        ("e2m1[32,e8m0,rceil]", (2.0**-126, -(2.0**-127)), [0, -0.0]),
        # The largest float over 6 needs 2**126, and 4 * 2**126 is too large.
        ("e2m1[32,e8m0,rceil]", (MAX, 1), [INF, 0]),
        # Just above 6 * 2**20 its logarithm of a / 6 is 20, and 6 * 2**20 the result.
        ("e2m1[32,e8m0,rceil]", (-below(-6 * 2.0**20, -1), 2.0**19), [6 * 2.0**20, 2.0**19]),
    ],
)
def test_torchao_mx(fmt: str, x: tuple[float, ...], expected: list[float]) -> None:
    assert same(run("torchao", fmt, block(*x)), expected)


@pytest.mark.parametrize(
    ("fmt", "x", "expected"),
    [
        # An infinity has the largest scale, and scales end at 2**-6.
        ("e2m1[16,e4m3fn]", (INF, 1), [2688, 0]),
        ("e2m1[16,e4m3fn]", (1e-5, -1e-5), [0, -0.0]),
        ("e2m1[16,e4m3fn]", (NAN, 1), [NAN] * 16),
        # The tensor scale counts infinities, and is 0 for a tensor of zeros.
        ("nvfp4", (INF, 1), [NAN] * 16),
        ("nvfp4", (0.0, -0.0), [NAN] * 16),
        ("nvfp4", (1e6, 1), [999999.9375, 0]),
    ],
)
def test_torchao_nvfp4(fmt: str, x: tuple[float, ...], expected: list[float]) -> None:
    assert same(run("torchao", fmt, block(*x, length=16)), expected)


# ---------------------------------------------------------------- the verbs' promises


@pytest.mark.parametrize("policy", PRESETS)
def test_axes_tails_and_memory(policy: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 70, 3)).astype(F)
    whole = fpemu.quantize(x, "mxfp4", policy=policy, axis=1)
    moved = np.moveaxis(x, 1, -1)
    assert np.array_equal(np.moveaxis(fpemu.quantize(moved, "mxfp4", policy=policy), -1, 1), whole)
    padded = np.zeros((5, 96, 3), F)
    padded[:, :70] = x
    assert np.array_equal(fpemu.quantize(padded, "mxfp4", policy=policy, axis=1)[:, :70], whole)
    strided = np.asfortranarray(x)[:, ::-1]
    flipped = np.ascontiguousarray(strided)
    strided.flags.writeable = False
    out = np.empty_like(x)
    fpemu.quantize(strided, "mxfp4", policy=policy, axis=1, out=out)
    assert np.array_equal(out, fpemu.quantize(flipped, "mxfp4", policy=policy, axis=1))
    own = x.copy()
    fpemu.quantize(own, "mxfp4", policy=policy, axis=1, out=own)
    assert np.array_equal(own, whole)
    tiles = BlockFormat("e2m1", (4, 8), "e8m0")
    one = fpemu.quantize(x[0, :4, :], tiles, policy=policy)
    assert np.array_equal(fpemu.quantize(x[:, :, :], tiles, policy=policy)[0, :4], one)


@pytest.mark.parametrize("policy", PRESETS)
def test_dtypes(policy: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float16)
    expected = fpemu.quantize(x.astype(F), "mxfp8", policy=policy)
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16):
        got = fpemu.quantize(x.astype(dtype), "mxfp8", policy=policy)
        assert got.dtype == dtype
        if dtype is not ml_dtypes.bfloat16:
            assert np.array_equal(got.astype(F), expected)
    third = np.full(32, 1 / 3)
    assert np.array_equal(
        fpemu.quantize(third, "nvfp4", policy="torchao"),
        fpemu.quantize(third.astype(F), "nvfp4", policy="torchao").astype(np.float64),
    )
    integers = fpemu.quantize(np.arange(32), "mxfp4", policy=policy)
    assert integers.dtype == np.float64
    assert fpemu.quantize(5.0, "mxfp4", policy=policy) == (4 if policy == "torchao" else 6)
    assert fpemu.quantize(np.empty((0, 3), F), "mxfp4", policy=policy).shape == (0, 3)
    assert fpemu.quantize(np.empty((3, 0), F), "mxfp4", policy=policy).shape == (3, 0)


def test_values_beyond_the_dtype_are_infinite() -> None:
    x = np.full(32, 65504, np.float16)
    out = np.empty(32, np.float16)
    fpemu.quantize(x, "e2m1[32,e8m0,rceil]", policy="torchao", out=out)  # 65536
    assert np.isinf(out).all()


def test_results_agree_with_the_definition_on_usual_data() -> None:
    x = np.random.default_rng(2).standard_normal((64, 256)).astype(F)
    for name in MX:
        ours = fpemu.quantize(x, name)
        assert np.array_equal(fpemu.quantize(x, name, policy="torchao"), ours)
        near = fpemu.quantize(x, name, policy="microxcaling", rounding="nearest_even")
        assert np.array_equal(near, ours)


@pytest.mark.parametrize("policy", PRESETS)
@pytest.mark.parametrize("name", MX)
def test_compress_gives_the_same_values(policy: str, name: str) -> None:
    x = np.random.default_rng(5).standard_normal((6, 100)).astype(F)
    x[0, 0], x[1, 1], x[2, 40:] = below(8), NAN, 1e-39
    for axis in (0, 1, -1):
        stored = compress(x, name, policy=policy, axis=axis)
        values = fpemu.quantize(x, name, policy=policy, axis=axis)
        assert np.array_equal(bits(stored.dequantize()), bits(values))


@pytest.mark.parametrize(
    ("policy", "fmt", "x", "match"),
    [
        ("torchao", "mxfp4", block(INF), r"gives inf at \(0,\), which mxfp4 would store as"),
        (
            "torchao",
            "nvfp4",
            np.random.default_rng(1).random(256, F),
            r"'torchao' gives .* use quantize",
        ),
        ("microxcaling", "mxint8", block(1, -1e-3), r"gives -0.0 at \(1,\)"),
    ],
)
def test_compress_refuses_what_it_cannot_store(
    policy: str, fmt: str, x: np.ndarray, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        compress(x, fmt, policy=policy)


def test_one_level_nvfp4_can_be_stored() -> None:
    x = np.random.default_rng(5).standard_normal((6, 100)).astype(F)
    x[0, 0], x[1, 1] = INF, NAN
    stored = compress(x, "e2m1[16,e4m3fn]", policy="torchao")
    values = fpemu.quantize(x, "e2m1[16,e4m3fn]", policy="torchao")
    assert np.array_equal(bits(stored.dequantize()), bits(values))


@pytest.mark.parametrize(
    ("fmt", "options", "match"),
    [
        ("mxfp4", {"policy": "sat_finite"}, "policy must be None for mxfp4.*torchao, microxcaling"),
        ("mxfp4", {"policy": Policy()}, "policy must be None for mxfp4"),
        ("mxint8", {"policy": "torchao"}, "'torchao' must go with a format of torchao 0.18.0"),
        ("nvint4", {"policy": "torchao"}, "'torchao' must go with"),
        ("nvfp4", {"policy": "microxcaling"}, "'microxcaling' must go with"),
        ("e2m1[32,e8m0,ceil]", {"policy": "microxcaling"}, "'microxcaling' must go with"),
        ("e2m1[32,e8m0,four_thirds]", {"policy": "torchao"}, "'torchao' must go with"),
        ("e2m1[16,e4m3fn,bf16]", {"policy": "torchao"}, "'torchao' must go with"),
        ("e2m1[tensor,e8m0]", {"policy": "torchao"}, "goes with blocks of a length"),
        ("mxfp4", {"policy": "torchao", "rounding": "toward_zero"}, "one of nearest_even with"),
        ("mxfp4", {"policy": "microxcaling", "rounding": "stochastic", "key": 1}, "rounding must"),
        ("mxfp4", {"policy": "torchao", "axis": 1}, "axis must be"),
        ("mxfp4", {"policy": "torchao", "amax": 1.0}, "amax must be None"),
        ("nvfp4", {"policy": "torchao", "amax": -1.0}, "amax must be finite"),
        ("mxfp4", {"policy": "torchao", "backend": "nothing"}, "nothing"),
    ],
)
def test_refusals(fmt: str, options: dict, match: str) -> None:
    with pytest.raises((ValueError, ImportError), match=match):
        fpemu.quantize(np.ones(32, F), fmt, **options)


def test_no_catalogue_name_is_taken_by_surprise() -> None:
    """Which names each preset takes."""
    taken = {policy: {name for name in NAMES if _taken(policy, name)} for policy in PRESETS}
    assert taken == {
        "torchao": {*MX, "nvfp4"},
        "microxcaling": {*MX, "mxint8"},
    }


def _taken(policy: str, name: str) -> bool:
    try:
        fpemu.quantize(np.ones(32, F), name, policy=policy)
    except ValueError:
        return False
    return True
