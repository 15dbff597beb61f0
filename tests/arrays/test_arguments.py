"""Bad input to the verbs: one clear error that names the argument, and nothing changed."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

import fpemu
from fpemu import Key, Policy, PseudoNoise, Stochastic

X = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)


def refuses(kind, words, call, *args, **kwargs):
    with pytest.raises(kind, match=words):
        call(*args, **kwargs)


@pytest.mark.parametrize(
    ("kind", "words", "options"),
    [
        (ValueError, "grammar.*nearest names: e4m3fn", {"fmt": "e4m3fnn"}),
        (ValueError, "mantissa_bits must be in 0..52, got 60", {"fmt": "e4m60"}),
        (ValueError, "exponent_bits must be in 0..16, got 17", {"fmt": "e17m3"}),
        (TypeError, "fmt must be a Format or a spelling, got int 8", {"fmt": 8}),
        (TypeError, "fmt must be a Format or a spelling, got list", {"fmt": ["e4m3"]}),
        (ValueError, "rounding must be one of nearest_even", {"rounding": "sideways"}),
        (TypeError, "rounding must be a descriptor or a str, got int", {"rounding": 3}),
        (ValueError, r"bits must be in 1\.\.32, got 33", {"rounding": "stochastic:33", "key": 1}),
        (ValueError, "policy must be a Policy or one of sat_finite", {"policy": "saturate"}),
        (TypeError, "policy must be a Policy or a str, got int", {"policy": 1}),
        (ValueError, "key must be given with rounding='stochastic'", {"rounding": "stochastic"}),
        (ValueError, "key must be given", {"rounding": "pseudo_gaussian:4"}),
        (ValueError, r"seed must be in 0\.\.2\*\*64 - 1", {"rounding": "stochastic", "key": -1}),
        (ValueError, r"seed must be in 0\.\.2\*\*64 - 1", {"rounding": "stochastic", "key": 2**64}),
        (TypeError, "key must be a Key or an int seed, got float", {"key": 1.5}),
        (TypeError, "key must be a Key or an int seed, got bool", {"key": True}),
        (ValueError, "bits must be given", {"rounding": PseudoNoise(), "key": 1}),
        (ValueError, "bits goes with pseudo rounding", {"bits": 4}),
        (
            ValueError,
            r"bits must be in \[0, 24\]",
            {"rounding": PseudoNoise(), "key": 1, "bits": 25},
        ),
        (
            ValueError,
            r"shape of the block grid, \(1, 1\)",
            {"rounding": PseudoNoise(), "key": 1, "bits": [4, 4, 4]},
        ),
        (TypeError, "bits must be a number", {"rounding": PseudoNoise(), "key": 1, "bits": "x"}),
        (ValueError, "backend must be one of numpy, numba", {"backend": "fortran"}),
        (TypeError, "dtype must be float64, float32, float16 or bfloat16", {"dtype": "int8"}),
        (
            ValueError,
            "dtype float16 cannot hold.*use bfloat16 or float32",
            {"fmt": "bf16", "dtype": "f2"},
        ),
        (TypeError, "out must be a NumPy array, got list", {"out": [1.0]}),
        (TypeError, "out must have dtype float32, got float64", {"out": np.zeros((3, 4))}),
        (
            ValueError,
            r"out must have shape \(3, 4\), got \(4, 3\)",
            {"out": np.zeros((4, 3), "f4")},
        ),
    ],
)
def test_quantize_refuses(kind, words, options, backend):
    before = X.copy()
    options = {"fmt": "e4m3fn", "backend": backend} | options
    refuses(kind, words, fpemu.quantize, X, **options)
    assert np.array_equal(X, before)


@pytest.mark.parametrize(
    "x",
    [
        np.array([True]),
        np.array([1j]),
        np.array(["1.0"]),
        np.array([object()]),
        np.array([1.0], np.longdouble),
        np.array([1.0], ml_dtypes.float8_e4m3fn),
        [2**70],
        "0.3",
        None,
        np.ma.masked_array([1.0], [True]),
    ],
    ids=lambda x: str(getattr(x, "dtype", type(x).__name__)),
)
@pytest.mark.parametrize("verb", [fpemu.quantize, fpemu.encode, fpemu.report])
def test_other_dtypes_are_refused(verb, x):
    refuses(TypeError, "x must", verb, x, "e4m3fn")


def test_a_dtype_that_cannot_hold_the_format_is_refused():
    x = np.ones(3, np.float16)
    refuses(
        ValueError, "x of dtype float16 cannot hold.*bfloat16 or float32", fpemu.quantize, x, "bf16"
    )
    refuses(ValueError, "use float64", fpemu.quantize, X, "fp64")
    refuses(ValueError, "no supported dtype", fpemu.quantize, X, "binary16p1ue")
    assert fpemu.quantize(x, "bf16", dtype="float32").dtype == np.float32
    assert fpemu.encode(x, "bf16").tolist() == [0x3F80] * 3


def test_read_only_out_is_refused():
    out = np.zeros_like(X)
    out.flags.writeable = False
    refuses(ValueError, "out must be writeable", fpemu.quantize, X, "e2m1", out=out)


def test_out_may_be_x_but_not_overlap_it(backend):
    whole = np.linspace(-4, 4, 100, dtype=np.float32)
    expected = fpemu.quantize(whole[:50], "e2m1", backend=backend)
    refuses(
        ValueError, "partly shared memory",
        fpemu.quantize, whole[:50], "e2m1", out=whole[1:51], backend=backend,
    )  # fmt: skip
    other_half = whole[50:].copy()
    part = whole[:50]
    result = fpemu.quantize(part, "e2m1", out=part, backend=backend)
    assert result is part
    assert np.array_equal(part, expected)
    assert np.array_equal(whole[50:], other_half)
    even, odd = whole[::2], whole[1::2]  # interleaved, sharing no element
    fpemu.quantize(even, "int4", out=odd, backend=backend)
    assert np.array_equal(odd, fpemu.quantize(even, "int4", backend=backend))


def test_broadcast_out_is_refused():
    out = np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (3, 4), (0, 4))
    refuses(ValueError, "distinct elements|writeable", fpemu.quantize, X, "e2m1", out=out)


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_encode_names_the_first_nan_and_leaves_out_alone(backend, shape):
    x = np.ones(shape, np.float32)
    x[(1,) * len(shape)] = np.nan
    index = re.escape(str((1,) * len(shape)))
    out = np.full(shape, 99, np.uint8)
    refuses(
        ValueError, f"no code for it .first at index {index}",
        fpemu.encode, x, "e2m1", out=out, backend=backend,
    )  # fmt: skip
    assert (out == 99).all()
    assert fpemu.encode(x, "e2m1", policy=Policy(nan="max"), backend=backend).max() == 7
    assert fpemu.encode(x, "e2m1", policy=Policy(nan="zero"), backend=backend).min() == 0
    assert fpemu.encode(x, "e4m3fn", backend=backend).max() == 0x7F


def test_a_failing_encode_leaves_a_strided_out_alone(backend):
    x = np.array([1, np.nan, 2, 3], np.float32)
    out = np.full(8, 9, np.uint8)
    with pytest.raises(ValueError, match="NaN"):
        fpemu.encode(x, "e2m1", out=out[::2], backend=backend)
    assert (out == 9).all()


def test_encode_refuses_ulp_noise():
    refuses(
        ValueError, "off the grid", fpemu.encode, X, "e2m1", rounding="pseudo_gaussian:ulp", key=1
    )


def test_encode_out_must_be_of_the_code_type():
    refuses(TypeError, "out must have dtype uint8", fpemu.encode, X, "e2m1", out=np.zeros((3, 4)))
    refuses(
        ValueError, "out must be None with packed=True",
        fpemu.encode, X, "e2m1", out=np.zeros((3, 4), np.uint8), packed=True,
    )  # fmt: skip


def test_decode_refuses_stray_bits_and_other_types():
    refuses(
        ValueError,
        r"codes must be in 0..15 for e2m1, got 16 at \(2,\)",
        fpemu.decode,
        [1, 2, 16],
        "e2m1",
    )
    refuses(ValueError, r"got -1 at \(0,\)", fpemu.decode, [-1], "e2m1")
    refuses(TypeError, "codes must be integers, got dtype float64", fpemu.decode, [1.0], "e2m1")
    refuses(TypeError, "codes must be integers, got dtype bool", fpemu.decode, [True], "e2m1")
    refuses(ValueError, "dtype float16 cannot hold", fpemu.decode, [1], "bf16", dtype="float16")


@pytest.mark.parametrize(
    ("kind", "words", "fields"),
    [
        (ValueError, "stream must be in", {"stream": -1}),
        (ValueError, "offset must be in", {"offset": 2**64}),
        (ValueError, "row_length must be in 1", {"row_length": 0, "row_stride": 4}),
        (ValueError, "row_length and row_stride go together", {"row_length": 4}),
        (TypeError, "stream must be an int, got str", {"stream": "a"}),
    ],
)
def test_key_refuses(kind, words, fields):
    refuses(kind, words, Key, 1, **fields)
    refuses(TypeError, "path must be an int, got float", Key(1).child, 1.5)


@pytest.mark.parametrize(
    ("kind", "words", "call"),
    [
        (ValueError, "variant must be one of 'A'", lambda: Stochastic(8, "D")),
        (TypeError, "bits must be an int", lambda: Stochastic(8.0)),
        (ValueError, "bits must be in 1", lambda: Stochastic(0)),
        (ValueError, r"bits must be in \[0, 24\]", lambda: PseudoNoise(bits=-1)),
        (ValueError, "block must be", lambda: PseudoNoise(bits=4, block=(0, 32))),
        (ValueError, "noise must be one of", lambda: PseudoNoise("pink")),
        (ValueError, "overflow must be one of", lambda: Policy("wrap")),
        (ValueError, "nan must be one of", lambda: Policy(nan="inf")),
    ],
)
def test_descriptors_refuse(kind, words, call):
    refuses(kind, words, call)


def test_a_missing_backend_says_how_to_get_it(monkeypatch):
    from fpemu import backends

    monkeypatch.setitem(backends._BUILT_IN, "numba", "fpemu.backends._absent")
    monkeypatch.setattr(backends, "_loaded", {})
    refuses(ImportError, "pip install 'fpemu.numba.'", fpemu.quantize, X, "e2m1", backend="numba")
    assert "numba" not in backends.available()
    assert "not available" in backends.why_not("numba")


def test_global_state_is_left_alone():
    import random
    import warnings

    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    filters, errors = list(warnings.filters), np.geterr()
    for name in fpemu.backends.available():
        fpemu.quantize(X, "e4m3fn", rounding="stochastic", key=1, backend=name)
        fpemu.quantize(X * 1e38, "e5m2", rounding="pseudo_normal:4", key=1, backend=name)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    assert list(warnings.filters) == filters
    assert np.geterr() == errors
