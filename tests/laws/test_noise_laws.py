"""Pseudo rounding on every backend, against exact Fractions, and the distributions exhaustively."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fpemu
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Noise, PseudoNoise, Step
from fpemu.testing import Backend, bits, check, containers, lanes, pseudo_round
from fpemu.testing import strategies as fst
from fpemu.testing._pseudo import noise_of

FORMATS = ("e4m3fn", "e2m1", "e5m2", "bf16", "fp16", "e4m3_flush", "mxint8", "e3m2", "fp32", "e8m0")
NOISES = [
    *(
        PseudoNoise(noise, width, block)
        for (noise, width), block in zip(
            itertools.product(Noise, (4.0, 6.3, 0.0, 24.0)),
            itertools.cycle(((32, 32), (1, 16), (5, 3))),
            strict=False,
        )
    ),
    *(PseudoNoise(noise, step=Step.ULP) for noise in Noise),
]
ALL_DRAWS = range(1 << 16)


# --------------------------------------------------------------------- distribution


def test_rounded_gaussian_over_all_draws() -> None:
    """P(|R| >= 1) = 2 * 10398 / 2**16, P(|R| >= 2) = 2 * 88 / 2**16, symmetric, nothing else."""
    counts = dict.fromkeys((-2, -1, 0, 1, 2), 0)
    for draw in ALL_DRAWS:
        counts[int(noise_of(Noise.ROUNDED_GAUSSIAN, draw))] += 1
    assert counts == {-2: 88, -1: 10398 - 88, 0: 65536 - 20796, 1: 10398 - 88, 2: 88}
    # The targets are the rounded normal's; no other 16-bit thresholds of this form are closer.
    at_least_1, at_least_2 = Fraction(20796, 65536), Fraction(176, 65536)
    assert abs(at_least_1 - Fraction("0.317310507863")) < Fraction(1, 65536)
    assert abs(at_least_2 - Fraction("0.002699796063")) < Fraction(1, 65536)


def test_uniform_over_all_draws() -> None:
    """Odd multiples of 2**-17 from -1/2 to 1/2, each once: mean 0, variance that of the grid."""
    values = [noise_of(Noise.UNIFORM, draw) for draw in ALL_DRAWS]
    assert values == [Fraction(2 * u - 65535, 1 << 17) for u in ALL_DRAWS]
    assert sum(values) == 0
    variance = sum(v * v for v in values) / len(values)
    assert variance == (1 - Fraction(1, 1 << 32)) / 12


def test_gaussian_over_all_draws() -> None:
    """Odd, increasing, never 0; its variance is 1/4 up to what the cut tails hold.

    The largest draw is at the quantile of 1 - 2**-17, 4.17 standard deviations; the variance of
    a normal cut there into 65536 midpoints is below 1/4 by less than 2**-14.
    """
    values = [noise_of(Noise.GAUSSIAN, draw) for draw in ALL_DRAWS]
    assert all(a < b for a, b in itertools.pairwise(values))
    assert all(values[u] == -values[65535 - u] for u in range(1 << 15))
    variance = sum(v * v for v in values) / len(values)
    assert Fraction(1, 4) - Fraction(1, 1 << 14) < variance < Fraction(1, 4)


@pytest.mark.parametrize("noise", Noise)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backend_maps_every_draw(backend: str, noise: Noise, dtype: type) -> None:
    """Each of the 65536 draws, as R itself: noise with step 1 on weights 0 leaves R.

    One block of 1 x 1 with maximum 1 and bits 1 has delta 1, and w = 1 gives 1 + R. The key's
    first 2**20 elements meet every draw.
    """
    count = 1 << 20
    key = Key(2)
    drawn = lanes(key, count, 16)
    different, first = np.unique(drawn, return_index=True)
    assert different.size == 1 << 16
    x = np.ones((count, 1), dtype)
    fmt = "fp32" if dtype is np.float32 else "fp64"
    rounding = PseudoNoise(noise, 1.0, (1, 1))
    got = fpemu.quantize(x, fmt, rounding=rounding, key=key, backend=backend)[first, 0]
    noises = np.array([float(noise_of(noise, draw)) for draw in ALL_DRAWS]).astype(dtype)
    assert got.tolist() == (dtype(1) + noises).tolist()  # one IEEE addition


# ----------------------------------------------------------------------------- laws


@pytest.mark.parametrize("rounding", NOISES, ids=str)
@pytest.mark.parametrize("spelling", FORMATS)
def test_all_noise_laws_hold(backend: str, spelling: str, rounding: PseudoNoise) -> None:
    dtypes = containers(spelling)
    turn = (NOISES.index(rounding) + FORMATS.index(spelling)) % len(dtypes)
    policy = list(fpemu.Overflow)[(turn + NOISES.index(rounding)) % 3]
    ran = check(Backend(backend), spelling, rounding=rounding, policy=policy, dtype=dtypes[turn])
    assert len(ran) >= (6 if rounding.step is Step.BLOCK else 4)


@pytest.mark.parametrize("width", range(1, 13))
def test_survival_rule(backend: str, width: int) -> None:
    """Noise shows at the block maximum of every significand above 1 iff bits <= m + 2.

    bfloat16 has m = 7: up to 9 bits it always shows, at 10 it never does (methods 1.6).
    """
    codes = np.arange(0x3F81, 0x3FFF, dtype=np.uint32)  # 1 < value < 2, even and odd codes
    x = np.repeat((codes << 16).view(np.float32), 64).reshape(-1, 1)
    key = Key(9)
    moved = np.array([noise_of(Noise.ROUNDED_GAUSSIAN, int(d)) for d in lanes(key, x.size, 16)])
    one = np.abs(moved.astype(float)) == 1
    rounding = PseudoNoise(bits=float(width), block=(1, 1))
    got = fpemu.quantize(x, "bf16", rounding=rounding, key=key, backend=backend)
    changed = (got != x).reshape(-1)
    assert not changed[moved == 0].any()
    if width <= 9:
        assert changed[one].all()
    else:
        assert not changed[one].any()


@given(data=st.data())
@settings(max_examples=max(settings.default.max_examples // 2, 10))
def test_noise_agrees_with_the_reference(backend: str, data: st.DataObject) -> None:
    """Any shape, block, width (per block too), noise, dtype and key, special values among them."""
    fmt = data.draw(fst.formats(container="float32"), label="fmt")
    dtype = data.draw(fst.containers(fmt), label="dtype")
    rounding = data.draw(fst.pseudo_noise(bits=False), label="rounding")
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple), label="shape")
    x = data.draw(fst.arrays(fmt, dtype, shape=shape), label="x")
    key = data.draw(fst.keys(), label="key")
    widths = None
    if rounding.step is Step.BLOCK and data.draw(st.booleans(), label="per block"):
        rows, columns = (1, *shape)[-2:]
        grid = (-(-rows // rounding.block[0]), -(-columns // rounding.block[1]))
        count = int(np.prod(grid))
        drawn = data.draw(
            st.lists(st.floats(0, 24, width=32), min_size=count, max_size=count), label="bits"
        )
        widths = np.array(drawn, np.float32).reshape(grid if len(shape) > 1 else grid[1:])
        rounding = replace(rounding, bits=None)
    got = fpemu.quantize(x, fmt, rounding=rounding, key=key, bits=widths, backend=backend)
    expected = pseudo_round(x, fmt, rounding, Policy(), key, widths)
    assert bits(got).tolist() == bits(expected).tolist()


def test_encode_draws_as_quantize(backend: str) -> None:
    """decode(encode(x)) is quantize(x) for block noise; ulp noise has no codes."""
    x = np.linspace(-7, 7, 64 * 3, dtype=np.float32).reshape(3, 64)
    for noise in Noise:
        rounding = PseudoNoise(noise, 4.0, (2, 8))
        arguments = {"rounding": rounding, "key": 3, "backend": backend}
        codes = fpemu.encode(x, "e4m3fn", **arguments)
        values = fpemu.quantize(x, "e4m3fn", **arguments)
        assert bits(fpemu.decode(codes, "e4m3fn")).tolist() == bits(values).tolist()
    with pytest.raises((TypeError, ValueError), match="off the grid"):
        fpemu.encode(x, "e4m3fn", rounding="pseudo_gaussian:ulp", key=3, backend=backend)
