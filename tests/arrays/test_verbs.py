"""Shapes, dtypes and layouts: the verbs take anything and agree with the reference."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import fpemu
from fpemu import reference
from fpemu.lowering import FLOAT64
from fpemu.policy import Policy
from fpemu.rounding import parse_rounding

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", FLOATS)
def test_dtype_and_shape_are_kept(backend, dtype):
    x = np.linspace(-3, 3, 24).astype(dtype).reshape(2, 3, 4)
    q = fpemu.quantize(x, "e2m1", backend=backend)
    assert q.dtype == x.dtype
    assert q.shape == x.shape
    assert q.flags.writeable
    wide = fpemu.quantize(x.astype(np.float64), "e2m1", backend=backend)
    assert np.array_equal(q.astype(np.float64), wide)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("mode", ["nearest_even", "toward_negative", "to_odd", "stochastic:7:C"])
def test_integers_are_rounded_from_their_own_magnitude(backend, dtype, mode):
    limits = np.iinfo(dtype)
    top = int(limits.max)
    picked = [0, 1, 2, 3, 5, 7, 100, top, top - 1, top // 2, top // 2 + 1, top // 3, limits.min]
    picked += [
        (1 << k) + d for k in range(3, top.bit_length()) for d in (-1, 1) if (1 << k) + d <= top
    ]
    x = np.array(picked, dtype)
    rounding = parse_rounding(mode)
    key = fpemu.Key(5)
    for fmt in ("bf16", "e4m3fn", "fp32", "e11m50", "uint24"):
        target = fpemu.format(fmt)
        q = fpemu.quantize(x, fmt, rounding=mode, key=key, backend=backend)
        assert q.dtype == np.float64
        for i, value in enumerate(picked):
            draw = key.lane(i, 8) >> 1 if mode.startswith("stochastic") else 0
            expected = reference.round_value(target, Fraction(int(value)), rounding, Policy(), draw)
            assert q[i : i + 1].view(np.uint64)[0] == FLOAT64.pattern(expected), (fmt, value)
        codes = fpemu.encode(x, fmt, rounding=mode, key=key, backend=backend)
        assert np.array_equal(fpemu.decode(codes, fmt, dtype="float64"), q)


def test_float64_is_rounded_once(backend):
    x = np.array([1 + 2**-8 + 2**-40, 1.0625 + 1e-12])
    assert fpemu.quantize(x[:1], "bf16", backend=backend) == 1.0078125
    assert fpemu.quantize(x[1:], "e4m3fn", backend=backend) == 1.125
    assert fpemu.encode(x[:1], "bf16", backend=backend) == [0x3F81]


def test_scalars_give_scalars(backend):
    assert fpemu.quantize(0.3, "e2m1", backend=backend) == 0.5
    assert isinstance(fpemu.quantize(0.3, "e2m1", backend=backend), np.float64)
    assert isinstance(fpemu.quantize(np.float32(0.3), "e2m1", backend=backend), np.float32)
    assert isinstance(fpemu.encode(0.3, "e2m1", backend=backend), np.uint8)
    assert isinstance(fpemu.decode(1, "e2m1", backend=backend), np.float32)
    zero_d = fpemu.quantize(np.array(0.3), "e2m1", backend=backend)
    assert isinstance(zero_d, np.ndarray)
    assert zero_d.shape == ()


@pytest.mark.parametrize(
    "mode", ["nearest_even", "toward_zero", "stochastic", "pseudo_gaussian:4:2x3"]
)
def test_layout_does_not_matter(backend, mode):
    rng = np.random.default_rng(3)
    base = rng.standard_normal((9, 10, 11)).astype(np.float32)
    options = {"rounding": mode, "key": 4, "backend": backend}
    expected = fpemu.quantize(base, "e3m2", **options)
    swapped = base.astype(">f4")
    views = {
        "fortran": np.asfortranarray(base),
        "transposed": base.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        "reversed": base[::-1, :, ::-1].copy()[::-1, :, ::-1],
        "strided": np.repeat(base, 2, axis=1)[:, ::2],
        "big-endian": swapped,
        "unaligned": np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:]
        .view(np.float32)
        .reshape(base.shape),
    }
    for name, view in views.items():
        before = view.copy()
        assert np.array_equal(fpemu.quantize(view, "e3m2", **options), expected), name
        out = np.empty(base.shape[::-1], np.float32).T
        fpemu.quantize(view, "e3m2", out=out, **options)
        assert np.array_equal(out, expected), name
        codes = fpemu.encode(view, "e3m2", **options)
        assert np.array_equal(fpemu.decode(codes, "e3m2", backend=backend), expected), name
        assert np.array_equal(view, before), name


def test_broadcast_and_read_only_inputs(backend):
    row = np.linspace(-2, 2, 7, dtype=np.float32)
    x = np.broadcast_to(row, (5, 7))
    q = fpemu.quantize(x, "e2m1", backend=backend)
    assert np.array_equal(q, np.tile(fpemu.quantize(row, "e2m1"), (5, 1)))
    q[0, 0] = 5  # a result of its own, not a broadcast one
    assert q[1, 0] != 5


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("wanted", FLOATS)
def test_output_dtype_can_be_chosen(backend, dtype, wanted):
    x = np.array([0.3, -1.7, 100, -0.0, np.inf, np.nan], dtype)
    q = fpemu.quantize(x, "e5m2", dtype=wanted, backend=backend)
    expected = fpemu.quantize(x, "e5m2", backend=backend)
    assert q.dtype == wanted
    assert np.array_equal(q.astype(np.float64), expected.astype(np.float64), equal_nan=True)
    assert np.array_equal(np.signbit(q), np.signbit(expected))


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_is_the_positive_quiet_one(backend, dtype):
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    quiet = np.array([np.nan], dtype).view(unsigned)[0] & ((1 << (8 * unsigned.itemsize - 1)) - 1)
    noisy = np.array(
        [quiet, quiet + 1, quiet | (1 << (8 * unsigned.itemsize - 1)), quiet - 1], unsigned
    )
    for mode in ("nearest_even", "to_odd", "stochastic:8", "pseudo_uniform:4"):
        for fmt in ("e4m3fn", "e5m2", "e2m1", "e4m3fnuz"):
            q = fpemu.quantize(noisy.view(dtype), fmt, rounding=mode, key=1, backend=backend)
            assert (q.view(unsigned) == quiet).all(), (mode, fmt)


def test_other_libraries_arrays_come_in_through_dlpack():
    class Tensor:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    x = np.linspace(-3, 3, 5, dtype=np.float32)
    assert np.array_equal(fpemu.quantize(Tensor(x), "e2m1"), fpemu.quantize(x, "e2m1"))


def test_encode_packed_is_pack_of_encode(backend):
    x = np.random.default_rng(0).standard_normal((7, 5))
    codes = fpemu.encode(x, "e3m2", backend=backend)
    assert np.array_equal(
        fpemu.encode(x, "e3m2", packed=True, backend=backend), fpemu.pack(codes, 6)
    )


def test_threads_and_sizes_give_the_same_bits():
    if "numba" not in fpemu.backends.available():
        pytest.skip("numba is not installed: " + str(fpemu.backends.why_not("numba")))
    import numba

    x = np.random.default_rng(1).standard_normal((1 << 19) + 77, dtype=np.float32) * 3
    before = numba.get_num_threads()
    for mode in (
        "nearest_even",
        "toward_positive",
        "stochastic:16",
        "stochastic:9:B",
        "pseudo_gaussian:5",
    ):
        options = {"rounding": mode, "key": fpemu.Key(3, offset=5)}
        expected = fpemu.quantize(x, "e4m3fn", backend="numpy", **options)
        for count in {1, before}:
            numba.set_num_threads(count)
            got = fpemu.quantize(x, "e4m3fn", backend="numba", **options)
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32)), (mode, count)
    assert numba.get_num_threads() == before


def test_concurrent_calls_agree(backend):
    from concurrent.futures import ThreadPoolExecutor

    x = np.random.default_rng(2).standard_normal(300_000, dtype=np.float32)

    def call(seed):
        return fpemu.quantize(x, "e3m2", rounding="stochastic", key=seed, backend=backend)

    expected = [call(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(call, range(4)), expected, strict=True):
            assert np.array_equal(got, want)
