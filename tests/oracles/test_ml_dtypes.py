"""ml_dtypes as an oracle: the value of every code, and every cast that does not overflow.

Its casts at the edges (overflow, infinities, NaN) are the business of `tests/laws/test_presets`.
ml_dtypes rounds float64 twice, so that only narrower inputs are compared here.
"""

from __future__ import annotations

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")

import fpemu  # noqa: E402
from fpemu.catalog import parse  # noqa: E402
from fpemu.testing import bits, points  # noqa: E402
from fpemu.testing._patterns import narrow  # noqa: E402

NAMES = [
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


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name))


@pytest.mark.parametrize("name", NAMES)
def test_every_code_has_the_same_value(backend: str, name: str) -> None:
    fmt = parse(name)
    codes = np.arange(1 << fmt.bits, dtype=np.uint16 if fmt.bits > 8 else np.uint8)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        theirs = codes.view(dtype_of(name)).astype(np.float64)
    ours = fpemu.decode(codes, fmt, dtype="float64", backend=backend)
    assert bits(ours).tolist() == bits(narrow(theirs, np.float64)).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_the_same_code(backend: str, name: str) -> None:
    fmt = parse(name)
    codes = np.arange(1 << fmt.bits, dtype=np.uint16 if fmt.bits > 8 else np.uint8)
    values = codes.view(dtype_of(name)).astype(np.float32)
    number = ~np.isnan(values)
    ours = fpemu.encode(values[number], fmt, policy="sat_none", backend=backend)
    assert ours.tolist() == codes[number].tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["float16", "float32", "bfloat16"])
def test_casts_in_range(backend: str, name: str, source: str) -> None:
    """All 16-bit inputs, and for float32 the points and 2**18 patterns spread over the range."""
    fmt = parse(name)
    if source == "float32":
        spread = np.arange(0, 1 << 32, 16381, dtype=np.uint64).astype(np.uint32)
        x = np.concatenate([spread.view(np.float32), points(fmt, np.float32)])
    else:
        kind = np.float16 if source == "float16" else ml_dtypes.bfloat16
        x = np.arange(1 << 16, dtype=np.uint16).view(kind).astype(np.float32)
    top = float(fmt.max_value)
    x = x[np.isfinite(x) & (np.abs(x) <= top)]
    if fmt.has_zero:
        rounding = "nearest_even"
    else:  # Halves of e8m0 go up, zero and negatives have no code, and subnormals are misrounded.
        rounding, x = "nearest_away", x[x >= 2.0**-126]
    with np.errstate(all="ignore"):
        theirs = x.astype(dtype_of(name))
    codes = fpemu.encode(x, fmt, rounding=rounding, backend=backend)
    wrong = np.flatnonzero(codes != theirs.view(codes.dtype))
    assert not wrong.size, (x[wrong[:3]], codes[wrong[:3]], theirs[wrong[:3]])


@pytest.mark.parametrize("name", NAMES)
def test_limits_are_the_same(name: str) -> None:
    ours, theirs = parse(name).finfo, ml_dtypes.finfo(dtype_of(name))
    assert ours.bits == theirs.bits or parse(name).bits < 8
    assert float(ours.max) == float(theirs.max)
    assert float(ours.min) == float(theirs.min) or not parse(name).signed
    assert float(ours.smallest_normal) == float(theirs.smallest_normal)
    assert float(ours.eps) == float(theirs.eps)
    assert ours.nmant == theirs.nmant
    if parse(name).signed:
        assert float(ours.smallest_subnormal) == float(theirs.smallest_subnormal)
