"""Mistakes that other emulators make or made, as data: each row must come out right here.

Which library errs where is in the comments; the inputs are the ones that show it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import fpemu
from fpemu.catalog import CANONICAL, parse
from fpemu.formats import Format, Special
from fpemu.keys import Key
from fpemu.policy import Overflow, Policy
from fpemu.rounding import PseudoNoise, Rounding, Stochastic, Variant
from fpemu.testing import Backend, bits, containers, draws, laws
from fpemu.testing._patterns import exact, floats, nans, usual_dtype

INF, NAN = float("inf"), float("nan")
MODES = [*Rounding, Stochastic(1), Stochastic(8, Variant.C), Stochastic(variant=Variant.EQUAL)]
ENCODABLE = [fmt for fmt in CANONICAL.values() if fmt.exponent_bits <= 11]


def quantize(backend: str, x: object, fmt: str | Format, dtype: str = "float32", **options):
    """One value or several through fpemu; a list of Python floats."""
    array = np.atleast_1d(np.asarray(x, dtype=dtype))
    # As a Format, because mxint8 alone spells the block format.
    target = fpemu.format(fmt)
    return fpemu.quantize(array, target, backend=backend, **options).astype(np.float64).tolist()


def same(got: list[float], expected: list[float]) -> bool:
    """Equal as bits, NaN included."""
    return list(map(_text, got)) == list(map(_text, expected))


def _text(x: float) -> str:
    return "nan" if x != x else float(x).hex()


def after(x: float, toward: float, dtype: type = np.float32) -> float:
    return float(np.nextafter(dtype(x), dtype(toward)))


# ------------------------------------------------------------------------ overflow

# float16: pychop turns a whole binade above the largest value into 0, and 65520 into 65536.
FP16_EDGE = [65504.0, 65519.996, 65520.0, 65536.0, 100000.0, 131072.0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, [65504, 65504, INF, INF, INF, INF]),
        ("sat_none", [65504, 65504, INF, INF, INF, INF]),
        ("sat_finite", [65504] * 6),
        ("sat_propagate", [65504] * 6),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_fp16_overflow(backend: str, policy: str, expected: list[float], sign: int) -> None:
    x = [sign * v for v in FP16_EDGE]
    assert same(quantize(backend, x, "fp16", policy=policy), [sign * v for v in expected])


# OCP E4M3: every library surveyed disagrees with another one in some column.
E4M3 = [448.0, 464.0, after(464, 1e9), 480.0, 1e38, INF, NAN]


@pytest.mark.parametrize(
    ("fmt", "policy", "expected"),
    [
        ("e4m3fn", None, [448, 448, 448, 448, 448, 448, NAN]),
        ("e4m3fn", "sat_finite", [448, 448, 448, 448, 448, 448, NAN]),
        ("e4m3fn", "sat_propagate", [448, 448, 448, 448, 448, 448, NAN]),
        ("e4m3fn", "sat_none", [448, 448, NAN, NAN, NAN, NAN, NAN]),
        ("e4m3fn", "ocp_sat", [448, 448, 448, 448, 448, 448, NAN]),
        ("e4m3fn", "ocp_nonsat", [448, 448, NAN, NAN, NAN, NAN, NAN]),
        ("e4m3fnuz", "sat_none", [NAN] * 7),
        ("e4m3fnuz", "sat_finite", [240] * 6 + [NAN]),
        ("e4m3", "sat_none", [INF] * 6 + [NAN]),
        ("e4m3", "sat_propagate", [240] * 5 + [INF, NAN]),
        ("e4m3finite", "sat_none", [448, 448, 480, 480, 480, 480, NAN]),
        ("binary8p4se", "sat_none", [INF] * 6 + [NAN]),
        ("binary8p4sf", "sat_none", [240] * 6 + [NAN]),
    ],
)
def test_e4m3_overflow(backend: str, fmt: str, policy: str | None, expected: list[float]) -> None:
    assert same(quantize(backend, E4M3, fmt, policy=policy), expected)
    mirrored = [-v for v in E4M3]
    assert same(quantize(backend, mirrored, fmt, policy=policy), [-v for v in expected])


@pytest.mark.parametrize(
    ("fmt", "x", "expected"),
    [
        ("e5m2", [57344, 61439, 61440, 65536, INF], [57344, 57344, INF, INF, INF]),
        ("e4m3fnuz", [240, 247, 248, INF], [240, 240, NAN, NAN]),
        ("e2m1", [6, 7, 1e30, INF], [6, 6, 6, 6]),
        ("bf16", [3.3895e38, 3.3961e38, 3.3962e38], [3.3895313892515355e38] * 2 + [INF]),
    ],
)
def test_measured_overflow_rows(
    backend: str, fmt: str, x: list[float], expected: list[float]
) -> None:
    """The rows of the conversion tables, without saturation."""
    assert same(quantize(backend, x, fmt, policy="sat_none"), expected)


@pytest.mark.parametrize("fmt", ENCODABLE, ids=str)
def test_formats_without_inf_or_nan_never_return_them(backend: str, fmt: Format) -> None:
    """microxcaling keeps inf in FP4, gfloat keeps NaN in E2M1 under saturation."""
    dtype = usual_dtype(fmt)
    x = np.array([INF, -INF, 1e300, -1e300, 1e30, 0.3, -0.3, 5.0], dtype=np.float64)
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    for overflow in Overflow:
        for rounding in Rounding:
            got = fpemu.quantize(x, fmt, rounding=rounding, policy=overflow, backend=backend)
            assert fmt.has_inf or not np.isinf(got).any()
            assert fmt.has_nan or not fmt.signed or not np.isnan(got).any()


# ------------------------------------------------------------------------ fixed points


@pytest.mark.parametrize("fmt", ENCODABLE, ids=str)
def test_every_code_is_a_fixed_point(backend: str, fmt: Format) -> None:
    """In every mode, both signs. pychop's round to odd moves 512 of 1024 exact values; some
    stochastic rounding moves exact values (StochasticRounding.jl #74)."""
    for rounding in MODES:
        laws.values_are_fixed_points(Backend(backend), fmt, rounding=rounding, policy="sat_none")


def test_float32_itself_is_the_identity(backend: str) -> None:
    """QPyTorch #48: FP(8, 23) flips the sign of 3.0."""
    assert quantize(backend, [3.0, -3.0], "e8m23") == [3.0, -3.0]
    draw = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    x = draw.view(np.float32)
    x = x[~np.isnan(x)]
    for rounding in Rounding:
        got = fpemu.quantize(x, "fp32", rounding=rounding, backend=backend)
        assert np.array_equal(bits(got), bits(x))


# -------------------------------------------------------------------------------- ties


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("nearest_even", [1.0, 1.25, 0.0, 2**-8]),
        ("nearest_away", [1.125, 1.25, 2**-9, 2**-8]),
        ("nearest_zero", [1.0, 1.125, 0.0, 2**-9]),
    ],
)
def test_ties_mirror(backend: str, rounding: str, expected: list[float]) -> None:
    """pychop swaps ties to zero and away for negatives; QPyTorch and microxcaling's default
    send every tie away."""
    ties = [1.0625, 1.1875, 2**-10, 3 * 2**-10]
    assert same(quantize(backend, ties, "e4m3fn", rounding=rounding), expected)
    mirrored = quantize(backend, [-t for t in ties], "e4m3fn", rounding=rounding)
    assert same(mirrored, [-v for v in expected])


def test_ties_of_powers_of_two_go_to_the_even_code(backend: str) -> None:
    """Without mantissa bits parity is that of the exponent code: 1.5 lies between codes 3, 4."""
    assert quantize(backend, [0.125, 0.375, 0.75, 1.5, 3.0, 6.0], "e3m0") == [
        0.0, 0.5, 0.5, 2.0, 2.0, 8.0,
    ]  # fmt: skip


def test_ml_dtypes_221(backend: str) -> None:
    """4.25 to bfloat16-like 3 bits is a tie, and goes to 4: reported as a bug, and none."""
    assert quantize(backend, 4.25, "e5m3fn") == [4.0]
    assert quantize(backend, 4.75, "e5m3fn") == [5.0]


# ---------------------------------------------------------------------------- signed zero

SIGNED_ZERO = ["e4m3fn", "e5m2", "e2m1", "e3m2", "bf16", "fp16", "fp32", "e4m3_flush"]


@pytest.mark.parametrize("fmt", SIGNED_ZERO)
@pytest.mark.parametrize("rounding", list(Rounding))
def test_negative_zero(backend: str, fmt: str, rounding: Rounding) -> None:
    """Lost by QPyTorch and mptorch; microxcaling and pychop turn -0 into +0. Where a mode takes
    -1e-30 away from zero (or fp32 and bf16 hold about it) it is no zero at all."""
    tiny = -1e-30
    zero, small = quantize(backend, [-0.0, tiny], fmt, rounding=rounding)
    assert same([zero], [-0.0])
    if parse(fmt).emin < -100:
        assert small < 0
    elif rounding in (Rounding.TOWARD_NEGATIVE, Rounding.TO_ODD):
        assert small == -float(parse(fmt).smallest_positive)
    else:
        assert same([small], [-0.0])


@pytest.mark.parametrize("fmt", ["e4m3fnuz", "e5m2fnuz", "binary8p4se", "int8", "mxint8"])
def test_formats_without_negative_zero_give_plus_zero(backend: str, fmt: str) -> None:
    assert same(quantize(backend, [-0.0, -1e-30], fmt), [0.0, 0.0])


# ----------------------------------------------------- powers of two and small values


@pytest.mark.parametrize("fmt", ["e4m3fn", "e5m2", "fp16", "bf16", "e3m0", "e8m0", "e2m3"])
def test_just_below_powers_of_two(backend: str, fmt: str) -> None:
    """For all 2**k of float32, in all directed modes, against exact integers: an exponent by
    log2 is one too high there (microxcaling's scales, pychop's round to zero)."""
    powers = np.ldexp(np.float32(1), np.arange(-149, 128))
    x = np.nextafter(powers, np.float32(0))
    x = np.concatenate([x, powers, np.nextafter(powers, np.float32(np.inf))])
    for rounding in Rounding:
        for values in (x, -x):
            laws.agrees_with_the_reference(
                Backend(backend), fmt, values[::3], rounding=rounding, policy="sat_none"
            )
            laws.agrees_with_the_table(
                Backend(backend), fmt, values, rounding=rounding, policy="sat_none"
            )


SMALL = ["e4m3fn", "e5m2", "e2m1", "e2m3", "e3m2", "e4m3fnuz", "fp16", "e3m4", "mxint8", "int4"]


@pytest.mark.parametrize("fmt", SMALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_half_the_smallest_value(backend: str, fmt: str, dtype: type) -> None:
    """floor(x + 0.5) rounds the number just below a half up (microxcaling); a magic addend does
    it next to other ties (QPyTorch)."""
    smallest = float(parse(fmt).smallest_positive)
    half = smallest / 2
    x = [after(half, 0, dtype), half, after(half, 1, dtype)]
    got = quantize(backend, x, fmt, dtype=dtype.__name__)
    assert same(got, [0.0, 0.0, smallest])
    ties = [after(1.5 * smallest, 0, dtype), after(1.5 * smallest, 9, dtype)]
    assert quantize(backend, ties, fmt, dtype=dtype.__name__) == [smallest, 2 * smallest]


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "tf32", "e8m0", "e8m3b130", "e4m3fn"])
def test_float32_subnormal_inputs(backend: str, fmt: str) -> None:
    """frexp under a compiler gives 0 for them (torch #195007); flushing kernels lose them."""
    rng = np.random.default_rng(5)
    x = (rng.integers(1, 1 << 23, 300).astype(np.uint32)).view(np.float32)
    dtype = usual_dtype(fmt)
    for rounding in Rounding:
        laws.agrees_with_the_reference(
            Backend(backend), fmt, x.astype(dtype), rounding=rounding, policy="sat_none"
        )


# --------------------------------------------------------------------- double rounding


@pytest.mark.parametrize(
    ("x", "fmt", "expected"),
    [
        (1 + 2.0**-8 + 2.0**-40, "bf16", 1.0078125),
        (1.0625 + 1e-12, "e4m3fn", 1.125),
        (1.0625 - 1e-12, "e4m3fn", 1.0),
        (2.0**-10 + 2.0**-60, "e4m3fn", 2.0**-9),
        (464 + 1e-9, "e5m2", 448.0),
        (65520 - 2.0**-30, "fp16", 65504.0),
        (1 + 2.0**-11 + 2.0**-50, "fp16", 1 + 2.0**-10),
        (1 + 2.0**-24 + 2.0**-52, "fp32", 1 + 2.0**-23),
        (2.0**-150 + 2.0**-200, "fp32", 2.0**-149),
    ],
)
def test_float64_is_rounded_once(backend: str, x: float, fmt: str, expected: float) -> None:
    """ml_dtypes and torch round through float32 and lose the last bit."""
    for sign in (1, -1):
        assert quantize(backend, sign * x, fmt, dtype="float64") == [sign * expected]


def test_integers_are_rounded_once(backend: str) -> None:
    """2**53 + 1 is not a float64; through it, the first of these would be a tie."""
    x = np.array([(1 << 61) + (1 << 57) + 1, (1 << 61) + (1 << 57), -(1 << 61) - (1 << 57) - 1])
    assert x.dtype == np.int64
    expected = [float((1 << 61) + (1 << 58)), float(1 << 61), -float((1 << 61) + (1 << 58))]
    got = fpemu.quantize(x, "e8m3", backend=backend)
    assert got.dtype == np.float64
    assert got.tolist() == expected
    unsigned = np.array([(1 << 64) - 1, (1 << 63) + 1], np.uint64)
    down = fpemu.quantize(unsigned, "e8m3", rounding="toward_zero", backend=backend)
    assert down.tolist() == [15 * 2.0**60, 2.0**63]


# -------------------------------------------------------------------- NaN and infinities


@pytest.mark.parametrize("fmt", [f for f in ENCODABLE if f.has_nan], ids=str)
def test_nan_stays_nan_in_every_mode(backend: str, fmt: Format) -> None:
    """QPyTorch gives 480, torchao floatx 1.5, mptorch's stochastic mode 240 or Inf."""
    for rounding in MODES:
        for overflow in Overflow:
            laws.nan_stays_nan(Backend(backend), fmt, rounding=rounding, policy=overflow)
    x = nans(usual_dtype(fmt))
    codes = fpemu.encode(x, fmt, backend=backend)
    assert set(codes.tolist()) == {fmt.encode(Special.NAN)}


def test_nan_into_a_format_without_nan(backend: str) -> None:
    """Named by its index, or what the policy says; never a value by accident."""
    x = np.array([[1.0, 2.0], [NAN, 3.0]], np.float32)
    with pytest.raises(ValueError, match=r"\(1, 0\)"):
        fpemu.encode(x, "e2m1", backend=backend)
    assert fpemu.encode(x, "e2m1", policy=Policy(nan="zero"), backend=backend)[1, 0] == 0
    assert fpemu.encode(x, "e2m1", policy=Policy(nan="max"), backend=backend)[1, 0] == 7
    assert np.isnan(fpemu.quantize(x, "e2m1", backend=backend)[1, 0])


# ------------------------------------------------------------------------------- E8M0

E8M0_IN = [0.0, -0.0, -1.0, INF, -INF, NAN, 2.0**-149, 2.0**-128, 1.4, 1.5, 3.0, 6.0, 3e38]
_LOW, _TOP = 2.0**-127, 2.0**127
# 1.5, 3 and 6 are ties between the codes of 1, 2, 4 and 8, which are 127, 128, 129 and 130.
_EVEN, _UP = [1.0, 2.0, 2.0, 8.0], [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("sat_finite", [_LOW, _LOW, _LOW, _TOP, _LOW, NAN, _LOW, _LOW, *_EVEN, _TOP]),
        ("sat_propagate", [NAN, NAN, NAN, _TOP, NAN, NAN, _LOW, _LOW, *_EVEN, _TOP]),
        ("sat_none", [NAN, NAN, NAN, NAN, NAN, NAN, _LOW, _LOW, *_EVEN, NAN]),
        # torch and ml_dtypes differ from each other; each as measured.
        ("torch", [_LOW, _LOW, 1.0, NAN, NAN, NAN, _LOW, _LOW, *_UP, NAN]),
        ("ml_dtypes", [NAN, NAN, NAN, NAN, NAN, NAN, _LOW, _LOW, *_UP, NAN]),
    ],
)
def test_e8m0_edges(backend: str, policy: str, expected: list[float]) -> None:
    assert same(quantize(backend, E8M0_IN, "e8m0", policy=policy), expected)


# --------------------------------------------------------------------- stochastic rounding


@pytest.mark.parametrize("k", range(1, 11))
def test_probability_is_a_multiple_of_two_to_minus_k(backend: str, k: int) -> None:
    """mptorch's one-bit mode rounds a value at 0.30 up with probability 0.10: one bit can only
    give 0 or 1/2, and A gives floor(0.3 * 2**k) of 2**k draws."""
    x = np.full((1 << k) * (k + 11), 1.0 + 0.3 * 2.0**-3)
    drawn = draws(Key(11), x.size, Stochastic(k))
    got = fpemu.quantize(x, "e4m3fn", rounding=Stochastic(k), key=11, backend=backend)
    _, first = np.unique(drawn, return_index=True)
    assert len(first) == 1 << k
    assert int((got[first] == 1.125).sum()) == int(Fraction(3, 10) * 2**k)


@pytest.mark.parametrize("depth", range(1, 25))
def test_below_the_smallest_value(backend: str, depth: int) -> None:
    """P(up) = x / smallest down to 2**-24 of it. Magic-addend code gives 0 there.

    With 32 bits and x = smallest * 2**-d exactly the draws at or above 2**32 - 2**(32-d) go up.
    """
    rounding = Stochastic(32)
    smallest = float(parse("e4m3fn").smallest_positive)
    x = np.full(1 << 12, smallest * 2.0**-depth, np.float32)
    drawn = draws(Key(depth), x.size, rounding)
    got = fpemu.quantize(x, "e4m3fn", rounding=rounding, key=depth, backend=backend)
    assert got.tolist() == np.where(drawn >= (1 << 32) - (1 << (32 - depth)), smallest, 0).tolist()
    # And for as many elements at their own threshold, where every draw tells.
    laws.thresholds_are_sharp(Backend(backend), "e4m3fn", x, rounding=rounding, key=depth)


def test_two_calls_with_two_keys_differ(backend: str) -> None:
    """pychop's default backend reuses the same numbers on every call; two of our calls with the
    same key agree, and any change of seed or stream changes them."""
    x = np.full(4096, 1.0625, np.float32)
    keys = [Key(0), Key(1), Key(0, 1), Key(0, 0, 4096), Key(0).child("w"), Key(0).child("w", 1)]

    def run(key: Key) -> bytes:
        return fpemu.quantize(
            x, "e4m3fn", rounding="stochastic", key=key, backend=backend
        ).tobytes()

    results = [run(key) for key in keys]
    assert len(set(results)) == len(keys)
    assert results == [run(key) for key in keys]


def test_a_shard_draws_what_the_whole_draws(backend: str) -> None:
    x = np.linspace(-3, 3, 64 * 48, dtype=np.float32).reshape(64, 48)
    whole = fpemu.quantize(x, "e2m1", rounding="stochastic:8", key=5, backend=backend)
    for rows, columns in (((0, 32), (0, 48)), ((32, 64), (0, 48)), ((16, 48), (12, 36))):
        shard = x[slice(*rows), slice(*columns)]
        key = Key(
            5, 0, rows[0] * 48 + columns[0], row_length=columns[1] - columns[0], row_stride=48
        )
        got = fpemu.quantize(shard, "e2m1", rounding="stochastic:8", key=key, backend=backend)
        assert np.array_equal(bits(got), bits(whole[slice(*rows), slice(*columns)]))


def test_random_modes_need_a_key(backend: str) -> None:
    x = np.ones(4, np.float32)
    for rounding in ("stochastic", "stochastic:equal", "pseudo_gaussian:4"):
        with pytest.raises(ValueError, match="key"):
            fpemu.quantize(x, "e4m3fn", rounding=rounding, backend=backend)


# --------------------------------------------------------------------------- side effects


def test_no_generator_is_touched(backend: str) -> None:
    """FP8-Emulation-Toolkit seeds torch's global generator when it is imported."""
    random.seed(7)
    np.random.seed(7)
    python, legacy = random.getstate(), np.random.get_state()[1].tobytes()
    x = np.linspace(-9, 9, 1000, dtype=np.float32)
    for rounding in ("stochastic", PseudoNoise(bits=4)):
        fpemu.quantize(x, "e4m3fn", rounding=rounding, key=1, backend=backend)
    assert random.getstate() == python
    assert np.random.get_state()[1].tobytes() == legacy


def test_import_touches_nothing() -> None:
    script = (
        "import random, numpy as np\n"
        "random.seed(3); np.random.seed(3)\n"
        "before = random.getstate(), np.random.get_state()[1].tobytes(), np.geterr()\n"
        "import fpemu, warnings\n"
        "filters = list(warnings.filters)\n"
        "fpemu.quantize(np.ones(3, np.float32), 'e4m3fn')\n"
        "after = random.getstate(), np.random.get_state()[1].tobytes(), np.geterr()\n"
        "assert before == after and filters == list(warnings.filters)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_awkward_arrays(backend: str, dtype: str) -> None:
    """Empty, 0-d, strided, read-only, of any float dtype. (QPyTorch refuses most of them.)"""
    found = {d.name: d for d in containers("e2m1")}[dtype]
    values = exact([Fraction(n, 4) for n in range(-40, 41)], found)
    for rounding in (Rounding.NEAREST_EVEN, Stochastic(8)):
        for law in (
            laws.any_shape_is_taken,
            laws.memory_layout_does_not_matter,
            laws.input_is_left_alone,
        ):
            law(Backend(backend), "e2m1", np.resize(values, 500), rounding=rounding)


def test_more_than_the_chunks_of_any_backend(backend: str) -> None:
    """A million elements, elementwise the same as a hundred."""
    pattern = floats(np.arange(0x3F000000, 0x3F000064, dtype=np.uint64) * 7919 % (1 << 31), "f4")
    expected = fpemu.quantize(pattern, "e4m3fn", backend=backend)
    got = fpemu.quantize(np.resize(pattern, 1_000_003), "e4m3fn", backend=backend)
    assert np.array_equal(bits(got), bits(np.resize(expected, 1_000_003)))
