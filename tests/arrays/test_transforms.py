"""Transforms against butterflies written out, and what they are for."""

from __future__ import annotations

import math
import pickle
import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import fpemu
from fpemu import backends
from fpemu.metrics import nmse
from fpemu.transforms import (
    Composition,
    Hadamard,
    Permutation,
    RandomisedHadamard,
    compose,
    hadamard,
    inverse_randomised_hadamard,
    randomised_hadamard,
    signs,
    sort_permutation,
)

SIZES = [1 << k for k in range(11)]


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same_bits(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def rounded(value, dtype):
    """A Python float rounded to the dtype. Twice rounded sums of float32 are right: 53 > 2*24."""
    return struct.unpack("f", struct.pack("f", value))[0] if dtype == np.float32 else value


def butterflies(row, dtype):
    """One row, in Python floats, each operation rounded by itself."""
    values = [float(v) for v in row]
    size, stride = len(values), 1
    while stride < size:
        for i in range(size):
            if not i & stride:
                a, b = values[i], values[i + stride]
                values[i] = rounded(a + b, dtype)
                values[i + stride] = rounded(a - b, dtype)
        stride *= 2
    scale = rounded(math.sqrt(1 / size), dtype)
    return np.array([rounded(v * scale, dtype) for v in values], dtype)


def sylvester(size):
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / math.sqrt(size)


def energy(row):
    """The exact sum of squares."""
    return sum(Fraction(v if isinstance(v, Fraction) else float(v)) ** 2 for v in row)


def error_bound(size, epsilon):
    """Of a result's distance from the exact one, relative to the norm: each stage and the scaling
    round every element once, by at most eps / 2, and the scale is off by at most as much."""
    return 1.01 * (math.log2(size) + 2) * epsilon / 2


# ------------------------------------------------------------------------ bits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_bits_are_those_of_the_butterflies_written_out(size, dtype, backend):
    x = normal(3, size, seed=size, dtype=dtype) * np.exp2(normal(3, size, dtype=dtype) * 8)
    x = x.astype(dtype)
    x[0, :: max(1, size // 3)] = -0.0
    expected = np.stack([butterflies(row, dtype) for row in x])
    assert same_bits(hadamard(x, backend=backend), expected)
    assert same_bits(hadamard(x.reshape(-1), size, backend=backend), expected.reshape(-1))


@pytest.mark.parametrize("size", [1, 2, 32, 128, 512, 1 << 15, 1 << 18])
def test_backends_agree_on_whole_arrays(size, backend):
    """Longer than what one thread, one chunk or one tile takes, with a rest after the last tile."""
    x = normal((1 << 19) + max(size, 32), dtype=np.float32)
    x[::999], x[5::7777], x[77::5555] = np.nan, np.inf, np.float32(1e-44)
    x = x[: x.size // size * size]
    expected = hadamard(x, size, backend="numpy")
    assert same_bits(hadamard(x, size, backend=backend), expected)
    assert hadamard(x, size, out=x, backend=backend) is x
    assert same_bits(x, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 16, 128, 1024])
def test_nan_and_infinity(size, dtype, backend):
    x = np.ones((4, size), dtype)
    x[0, size // 2] = -np.nan
    x[1, 0] = np.inf
    x[2, 0], x[2, -1] = np.inf, np.inf
    y = hadamard(x, size, backend=backend)
    quiet = np.array(np.nan, dtype).tobytes()
    assert all(value.tobytes() == quiet for value in y[0])
    if size > 1:
        assert np.isinf(y[1]).all()
        assert (y[1, ::2] > 0).all()
        assert all(v.tobytes() == quiet for v in y[2][np.isnan(y[2])])
        assert np.isnan(y[2]).any()
    assert y[3, 0] == pytest.approx(math.sqrt(size))
    assert not y[3, 1:].any()


def test_signalling_nan_warns_of_nothing(backend):
    x = np.full(64, 0xFF800001, np.uint32).view(np.float32)
    for y in (hadamard(x, backend=backend), randomised_hadamard(x, key=1, backend=backend)):
        assert (y.view(np.uint32) == 0x7FC00000).all()


def test_overflow_of_a_sum_is_infinite(backend):
    x = np.full(4, 3e38, np.float32)
    assert np.isposinf(hadamard(x, backend=backend)[0])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_dtypes_are_float32_rounded_once(dtype, backend):
    x = (normal(40, 64) * 1e4).astype(dtype)
    x[1, 3], x[2, 2], x[3] = np.nan, np.inf, x[3] * dtype(2**-38)
    x[4] = dtype(65504)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = hadamard(x.astype(np.float32), backend="numpy").astype(dtype)
    y = hadamard(x, backend=backend)
    assert same_bits(y, expected)
    assert np.isposinf(y[4, 0].astype(np.float32)) == (dtype is np.float16)
    assert hadamard(x, out=x, backend=backend) is x
    assert same_bits(x, expected)


def test_integers_are_computed_in_float64(backend):
    x = np.arange(-64, 64).reshape(4, 32)
    assert same_bits(hadamard(x, backend=backend), hadamard(x.astype(float), backend=backend))
    assert hadamard([3, 1], backend=backend).tolist() == butterflies([3, 1], float).tolist()
    big = np.array([2**63 - 1, 1], np.int64)
    assert same_bits(hadamard(big, backend=backend), hadamard(big.astype(float)))


# ---------------------------------------------------------------------- layouts


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("key", [None, 7])
def test_axis_and_strides_change_no_bit(axis, dtype, key, backend):
    def run(x, axis, **more):
        if key is None:
            return hadamard(x, 8, axis=axis, backend=backend, **more)
        return randomised_hadamard(x, 8, key=key, axis=axis, backend=backend, **more)

    x = normal(16, 24, 40, dtype=dtype)
    along = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    expected = np.moveaxis(run(along, -1), -1, axis)
    assert same_bits(run(x, axis), expected)
    assert same_bits(run(np.asfortranarray(x), axis), expected)
    padded = np.zeros((32, 24, 80), dtype)
    padded[::2, ::-1, ::2] = x
    view = padded[::2, ::-1, ::2]
    assert same_bits(run(view, axis), expected)
    view.flags.writeable = False
    out = np.empty((16, 40, 24), dtype).transpose(0, 2, 1)
    assert run(view, axis, out=out) is out
    assert same_bits(out, expected)
    assert not padded[1::2].any()


@pytest.mark.parametrize("shape", [(3, 1 << 17), (1 << 18,), (2, 3, 1 << 16), (1 << 17, 2)])
def test_large_arrays_are_cut_between_blocks(shape, backend):
    x = normal(*shape)
    columns = signs(3, shape[-1])
    size = min(shape[-1], 1 << 17)
    expected = hadamard(x * columns, size, backend=backend)
    y = randomised_hadamard(x, size, key=3, backend=backend)
    assert same_bits(y, expected)
    z = inverse_randomised_hadamard(y, size, key=3, backend=backend)
    assert same_bits(z, hadamard(y, size, backend=backend) * columns)
    turned = hadamard(np.asfortranarray(x), size, axis=-1, backend=backend)
    assert same_bits(turned, hadamard(x, size, backend=backend))


def test_empty_arrays(backend):
    assert hadamard(np.zeros((0, 8)), backend=backend).shape == (0, 8)
    assert hadamard(np.zeros((3, 0), np.float32), 4, backend=backend).shape == (3, 0)
    assert randomised_hadamard(np.zeros((3, 0)), 4, key=1, backend=backend).shape == (3, 0)


def test_the_input_is_left_alone(backend):
    x = normal(8, 32)
    before = x.copy()
    randomised_hadamard(x, 8, key=1, backend=backend)
    hadamard(x, 8, axis=0, backend=backend)
    assert same_bits(x, before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: hadamard(x, 3), ValueError, "size must be a power of two, got 3"),
        (lambda x: hadamard(x, 0), ValueError, "size must be a power of two, got 0"),
        (lambda x: hadamard(x, -4), ValueError, "size must be a power of two"),
        (lambda x: hadamard(x, 16), ValueError, "24 is no multiple of 16"),
        (lambda x: hadamard(x), ValueError, "size must be a power of two, got 24"),
        (lambda x: hadamard(x, 8.0), TypeError, "size must be an int"),
        (lambda x: hadamard(x, 8, axis=2), ValueError, "axis must be an axis of x"),
        (lambda x: hadamard(x, 8, axis=1.0), TypeError, "axis must be an int"),
        (lambda x: hadamard(1.0), ValueError, "axis must be an axis of x, which has 0"),
        (lambda x: hadamard(x > 0, 8), TypeError, "x must be"),
        (lambda x: hadamard(x, 8, out=np.zeros((4, 24))), TypeError, "out must have dtype"),
        (lambda x: hadamard(x, 8, out=np.zeros((4, 8), "f4")), ValueError, "out must have shape"),
        (lambda x: hadamard(x, 8, backend="none"), ValueError, "backend must be one of"),
        (lambda x: randomised_hadamard(x, 8, key=1.5), TypeError, "key must be"),
        (lambda x: signs(1, -1), ValueError, "length must not be negative"),
        (lambda x: sort_permutation(x, "sum"), ValueError, "by must be 'norm' or 'max'"),
        (lambda x: sort_permutation(x / 0), ValueError, "w must be finite"),
        (lambda x: Hadamard(12), ValueError, "size must be a power of two"),
        (lambda x: RandomisedHadamard(12, key=1), ValueError, "size must be a power of two"),
        (lambda x: Permutation([0, 0]), ValueError, "every number of 0..1 once"),
        (lambda x: Permutation([0.0, 1.0]), ValueError, "one row of integers"),
        (lambda x: Permutation([1, 0]).apply(x), ValueError, "permutation's length 2, got 24"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((4, 24), np.float32))


def test_flushing_is_refused(monkeypatch):
    def flushed():
        raise RuntimeError("flushes")

    monkeypatch.setattr("fpemu.transforms.refuse_flushing", flushed)
    with pytest.raises(RuntimeError, match="flushes"):
        hadamard(np.ones(4))


# ---------------------------------------------------------------------- algebra


@pytest.mark.parametrize("size", [2, 16, 128, 1024])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_sylvester_matrix_and_its_own_inverse(size, dtype, backend):
    matrix = hadamard(np.eye(size, dtype=dtype), backend=backend)
    epsilon = float(np.finfo(dtype).eps)
    assert np.array_equal(np.sign(matrix), np.sign(sylvester(size)))
    assert np.array_equal(np.sign(matrix) @ np.sign(matrix).T, size * np.eye(size))
    entry = Fraction(float(matrix[0, 0]))
    assert (np.abs(matrix) == matrix[0, 0]).all()
    assert abs(entry**2 * size - 1) <= 1.01 * epsilon
    x = normal(5, size, dtype=dtype)
    y = hadamard(x, backend=backend)
    back = hadamard(y, backend=backend)
    bound = error_bound(size, epsilon)
    for row, turned, returned in zip(x, y, back, strict=True):
        assert abs(energy(turned) / energy(row) - 1) <= 2.01 * bound
        # a second transform adds its own error; energies are squares of norms
        gap = [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(returned, row, strict=True)]
        assert energy(gap) <= (2.01 * bound) ** 2 * energy(row)


@pytest.mark.parametrize("size", [4, 64])
def test_small_integers_come_back_exactly(size, backend):
    """Sums below 2**24 and a scale that is a power of two are exact."""
    x = np.random.default_rng(1).integers(-8, 9, (20, size)).astype(np.float32)
    assert same_bits(hadamard(hadamard(x, backend=backend), backend=backend) + 0.0, x)
    y = randomised_hadamard(x, key=5, backend=backend)
    assert np.array_equal(inverse_randomised_hadamard(y, key=5, backend=backend), x)


@pytest.mark.parametrize("key", [None, 11])
def test_products_are_kept(key, backend):
    """x H (w H)^T = x w^T: each rotated row is off by at most the bound relative to its norm."""
    size, epsilon = 128, float(np.finfo(np.float32).eps)
    x, w = normal(20, 512, seed=1), normal(30, 512, seed=2)
    step = Hadamard(size) if key is None else RandomisedHadamard(size, key=key)
    rotated = step.apply(x).astype(float) @ step.apply(w).astype(float).T
    exact = x.astype(float) @ w.astype(float).T
    norms = np.outer(np.linalg.norm(x.astype(float), axis=1), np.linalg.norm(w, axis=1))
    assert (np.abs(rotated - exact) <= 2.01 * error_bound(size, epsilon) * norms).all()


# ------------------------------------------------------------------------ signs


def test_signs_are_the_top_bits_of_lanes(backend):
    key = fpemu.Key(99, stream=4)
    drawn = signs(key, 1000, backend=backend)
    child = key.child("signs")
    assert drawn.dtype == np.int8
    assert drawn.tolist() == [-1 if child.lane(c, 8) >> 7 else 1 for c in range(1000)]
    assert signs(key, 0, backend=backend).size == 0


def test_signs_are_by_column_whatever_the_key_addresses():
    key = fpemu.Key(99, offset=12345, row_length=8, row_stride=64)
    assert np.array_equal(signs(key, 256), signs(99, 256))
    x = normal(6, 256)
    whole = randomised_hadamard(x, 32, key=99)
    assert same_bits(randomised_hadamard(x[4:], 32, key=fpemu.Key(99, offset=4 * 256)), whole[4:])


def test_signs_are_fair_and_differ_by_key():
    """Sums of n fair signs stay within 5 sqrt(n)."""
    n = 1 << 16
    a, b = signs(1, n).astype(int), signs(2, n).astype(int)
    assert max(abs(a.sum()), abs(b.sum()), abs((a * b).sum())) < 5 * math.sqrt(n)


def test_signs_do_not_depend_on_the_backend(backend):
    assert np.array_equal(signs(5, 100_003, backend=backend), signs(5, 100_003, backend="numpy"))


# -------------------------------------------------------------------- quantizing


def blocks_of_e2m1(x):
    """e2m1 under power-of-two scales for each 32, the maximum's binade at the top one."""
    rows = x.reshape(-1, 32).astype(float)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scale = np.exp2(np.frexp(largest)[1] - 1 - 2.0)
    return (fpemu.quantize(rows / scale, "e2m1") * scale).reshape(x.shape)


@pytest.mark.parametrize("step", [Hadamard(32), RandomisedHadamard(32, key=3)], ids=str)
def test_rotation_lowers_the_error_of_outliers(step):
    """One column in 32 is 20 times the others and sets every scale. The rotation spreads it."""
    x = normal(256, 1024, dtype=np.float64)
    x[:, ::32] *= 20
    plain = blocks_of_e2m1(x)
    rotated = step.invert(blocks_of_e2m1(step.apply(x)))
    assert nmse(x, rotated) < nmse(x, plain) / 2
    small = np.arange(1024) % 32 > 0
    assert nmse(x[:, small], rotated[:, small]) < nmse(x[:, small], plain[:, small])


# ------------------------------------------------------------------- permutations


@pytest.mark.parametrize("by", ["norm", "max"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_sort_permutation_is_stable_and_descending(by, dtype):
    w = np.random.default_rng(2).integers(-5, 6, (7, 9, 50)).astype(dtype)
    for axis in (0, 1, 2, -1):
        rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1).astype(int).tolist()
        # small integers, so that squares are exact and ties are ties
        score = [max(map(abs, r)) if by == "max" else sum(v * v for v in r) for r in rows]
        expected = sorted(range(len(score)), key=lambda i: -score[i])
        assert sort_permutation(w, by, axis=axis).tolist() == expected
        turned = np.asfortranarray(w)
        assert sort_permutation(turned, by, axis=axis).tolist() == expected


def test_sort_permutation_by_norm_neither_overflows_nor_vanishes():
    assert sort_permutation([[1e300, 3e300, 2e300]]).tolist() == [1, 2, 0]
    assert sort_permutation([[1e-300, 3e-300, 2e-300]]).tolist() == [1, 2, 0]
    assert sort_permutation([3.0, -4.0, 0.0, 4.0]).tolist() == [1, 3, 0, 2]
    assert sort_permutation(np.zeros((0, 4))).tolist() == [0, 1, 2, 3]
    assert sort_permutation(np.zeros((4, 0))).tolist() == []
    assert sort_permutation(np.zeros((4, 0)), axis=0).tolist() == [0, 1, 2, 3]


def test_sort_permutation_of_a_large_matrix():
    w = normal(300, 1000)
    expected = np.argsort(-np.linalg.norm(w.astype(float), axis=1), kind="stable")
    assert np.array_equal(sort_permutation(w, axis=0), expected)


def test_permutations_round_trip_exactly():
    x = normal(6, 50)
    x[0, 0] = np.nan
    step = Permutation(sort_permutation(np.nan_to_num(x)))
    assert same_bits(step.apply(x), x[:, list(step.indices)])
    assert same_bits(step.invert(step.apply(x)), x)
    turned = np.ascontiguousarray(x.T)
    assert same_bits(step.invert(step.apply(turned, axis=0), axis=0), turned)
    assert Permutation([]).apply(np.zeros((2, 0))).shape == (2, 0)


# ------------------------------------------------------------------------- values


def test_composition_inverts_backwards():
    order = np.random.default_rng(0).permutation(64)
    steps = (Permutation(order), RandomisedHadamard(64, key=1), Hadamard(4))
    both = compose(*steps)
    x = np.random.default_rng(1).integers(-8, 9, (5, 64)).astype(np.float64)
    y = steps[2].apply(steps[1].apply(steps[0].apply(x)))
    assert same_bits(both.apply(x), y)
    assert np.array_equal(both.invert(y), x)
    turned = both.invert(both.apply(x.T, axis=0), axis=0)
    assert np.array_equal(turned, x.T)
    assert compose(both, Hadamard()).apply(x).shape == x.shape


def test_transforms_are_values():
    order = list(range(9, -1, -1))
    steps = compose(Permutation(order), RandomisedHadamard(32, key=7), Hadamard())
    again = Composition(
        (Permutation(np.array(order)), RandomisedHadamard(32, key=fpemu.Key(7)), Hadamard(None))
    )
    assert steps == again
    assert hash(steps) == hash(again)
    assert pickle.loads(pickle.dumps(steps)) == steps
    assert steps != compose(Hadamard(32))
    names = {"Key": fpemu.Key, "Permutation": Permutation, "Hadamard": Hadamard}
    names |= {"RandomisedHadamard": RandomisedHadamard, "Composition": Composition}
    assert eval(repr(steps), names) == steps
    assert str(steps).startswith("compose(Permutation([9, 8, 7, 6, ...], length=10), ")


def test_every_backend_has_the_operation(backend):
    x, out = normal(64), np.zeros(64, np.float32)
    backends.get(backend).hadamard(x, out, 32)
    assert same_bits(out, hadamard(x, 32))
