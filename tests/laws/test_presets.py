"""Policy presets against the libraries they imitate.

ml_dtypes is here and is asked itself, on all half-precision inputs and many others. The rows of
torch, microxcaling and QPyTorch were measured with the versions that the presets name.
"""

from __future__ import annotations

import numpy as np
import pytest

import fpemu
from fpemu.catalog import parse
from fpemu.formats import Format
from fpemu.policy import PRESETS
from fpemu.testing import bits, points, table
from fpemu.testing._patterns import narrow, widen

ml_dtypes = pytest.importorskip("ml_dtypes")

INF, NAN = float("inf"), float("nan")
THEIRS = [
    "bfloat16",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
]


def half_inputs() -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def bfloat16_inputs() -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)


def float32_inputs(fmt: Format) -> np.ndarray:
    """Patterns spread over all of float32, and the points of the format."""
    spread = np.arange(0, 1 << 32, 8191, dtype=np.uint64).astype(np.uint32)
    return np.concatenate([spread.view(np.float32), points(fmt, np.float32)])


def float64_inputs(fmt: Format) -> np.ndarray:
    """Points of the format in float64: many are ties once they have gone through float32."""
    return points(fmt, np.float64)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
def test_ml_dtypes(backend: str, name: str, source: str) -> None:
    """Values and codes, NaN, infinities and zeros included; NaN without its sign."""
    fmt = parse(name)
    x = {
        "float16": half_inputs,
        "bfloat16": bfloat16_inputs,
        "float32": lambda: float32_inputs(fmt),
        "float64": lambda: float64_inputs(fmt),
    }[source]()
    wide = widen(x)
    # What the preset's note says is not imitated.
    if not fmt.has_zero:
        x = x[(wide <= 2.0**-127) | (wide >= 2.0**-126) | np.isnan(wide)]
    elif not fmt.has_nan:
        x = x[~np.isnan(wide) | ~np.signbit(wide)]
    with np.errstate(all="ignore"):
        theirs = x.astype(np.dtype(getattr(ml_dtypes, name)))
        values = theirs.astype(np.float64)
    # float64 holds every format, whatever dtype came in.
    ours = fpemu.quantize(x, fmt, policy="ml_dtypes", dtype="float64", backend=backend)
    wrong = np.flatnonzero(bits(ours) != bits(narrow(values, np.float64)))
    assert not wrong.size, (x[wrong[:3]], ours[wrong[:3]], values[wrong[:3]])
    codes = fpemu.encode(x, fmt, policy="ml_dtypes", backend=backend)
    differ = (codes != theirs.view(codes.dtype)) & ~np.isnan(values)
    assert not differ.any(), (x[differ][:3], codes[differ][:3], theirs[differ][:3])


# Measured: torch 2.13 (CPU), microxcaling 7bc4195, QPyTorch f58bba7; float32 inputs.
E4M3_IN = [1.0625, 448.0, 464.0, 464.1, 1000.0, INF, NAN, -0.0, 2.0**-10]
MEASURED = [
    ("ml_dtypes", "e4m3fn", E4M3_IN, [1, 448, 448, NAN, NAN, NAN, NAN, -0.0, 0]),
    ("torch", "e4m3fn", E4M3_IN, [1, 448, 448, 448, 448, 448, NAN, -0.0, 0]),
    ("microxcaling", "e4m3fn", E4M3_IN, [1.125, 448, INF, INF, INF, INF, NAN, 0.0, 2.0**-9]),
    ("qtorch", "e4m3finite", E4M3_IN, [1.125, 448, 480, 480, 480, 480, 480, 0.0, 2.0**-9]),
    ("torch", "e5m2", [61439.0, 61440.0, INF, -61440.0], [57344, INF, INF, -INF]),
    ("torch", "e4m3fnuz", [240.0, 248.0, INF, -248.0], [240, NAN, NAN, NAN]),
    ("ml_dtypes", "e4m3fnuz", [464.0, 465.0, INF, -0.0], [NAN, NAN, NAN, 0.0]),
    ("microxcaling", "e2m1", [6.9, 7.0, INF, -0.0, -1e-9], [6, INF, INF, 0.0, -0.0]),
    ("qtorch", "e5m2finite", [1e6, -1e6, INF], [114688, -114688, 114688]),
    ("ptx_satfinite", "e4m3fn", [464.1, INF, -INF, NAN], [448, 448, -448, NAN]),
    ("ocp_sat", "e5m2", [61440.0, INF, -INF, NAN], [57344, 57344, -57344, NAN]),
    ("ocp_nonsat", "e5m2", [61440.0, INF, -INF, NAN], [INF, INF, -INF, NAN]),
    (
        "torch",
        "e8m0",
        [0.0, -1.0, INF, 1.4, 1.5, 3.0, 6.0, 2.0**-128],
        [2.0**-127, 1, NAN, 1, 2, 4, 8, 2.0**-127],
    ),
    (
        "ml_dtypes",
        "e8m0",
        [0.0, -1.0, INF, 1.4, 1.5, 3.0, 6.0, 2.0**-128],
        [NAN, NAN, NAN, 1, 2, 4, 8, 2.0**-127],
    ),
]


@pytest.mark.parametrize(("preset", "fmt", "x", "expected"), MEASURED)
def test_measured_rows(
    backend: str, preset: str, fmt: str, x: list[float], expected: list[float]
) -> None:
    got = fpemu.quantize(np.array(x, np.float32), fmt, policy=preset, backend=backend)
    wanted = narrow(np.array(expected, np.float64), np.float32)
    assert bits(got).tolist() == bits(wanted).tolist(), (got, expected)


def test_nan_under_ptx_satfinite_is_written_as_the_largest(backend: str) -> None:
    assert fpemu.encode([NAN], "e2m1", policy="ptx_satfinite", backend=backend).tolist() == [7]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fmt", ["e4m3fn", "e5m2", "e2m1", "e8m0", "e4m3fnuz", "ue4m3"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_preset_agrees_with_the_table(
    backend: str, preset: str, fmt: str, dtype: str
) -> None:
    """The fields that imitate other libraries, by an independent route, under all inputs."""
    target = parse(fmt)
    rounding, policy = PRESETS[preset].choose(target)
    x = points(target, dtype)
    expected = table(target).round(x, rounding, policy)
    got = fpemu.quantize(x, fmt, policy=preset, backend=backend)
    wrong = np.flatnonzero(bits(got) != bits(narrow(expected.values, x.dtype)))
    assert not wrong.size, (x[wrong[:3]], got[wrong[:3]], expected.values[wrong[:3]])
