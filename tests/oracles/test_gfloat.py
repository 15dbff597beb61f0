"""gfloat as an oracle: every rounding it shares with us, stochastic ones given our draws.

gfloat (MIT, pure Python on floats) was written by others from the same standards. Its formats
are rebuilt from ours, field by field, so that it serves for every family it can express.
"""

from __future__ import annotations

import numpy as np
import pytest

gfloat = pytest.importorskip("gfloat")
from gfloat import Domain, FormatInfo, RoundMode  # noqa: E402
from gfloat import formats as theirs  # noqa: E402

import fpemu  # noqa: E402
from fpemu.catalog import CANONICAL, parse  # noqa: E402
from fpemu.formats import Format, Specials, Subnormals  # noqa: E402
from fpemu.policy import Overflow  # noqa: E402
from fpemu.rounding import Rounding, Stochastic, Variant  # noqa: E402
from fpemu.testing import bits, draws, points  # noqa: E402
from fpemu.testing._patterns import narrow, widen  # noqa: E402

MODES = {
    RoundMode.TiesToEven: Rounding.NEAREST_EVEN,
    RoundMode.TiesToAway: Rounding.NEAREST_AWAY,
    RoundMode.TowardZero: Rounding.TOWARD_ZERO,
    RoundMode.TowardPositive: Rounding.TOWARD_POSITIVE,
    RoundMode.TowardNegative: Rounding.TOWARD_NEGATIVE,
}
# gfloat's StochasticOdd, ties to odd before the comparison, has no twin here.
VARIANTS = {
    RoundMode.StochasticFastest: Variant.A,
    RoundMode.StochasticFast: Variant.B,
    RoundMode.Stochastic: Variant.C,
}
NAMED = {
    "ocp_e2m1": "e2m1",
    "ocp_e2m3": "e2m3",
    "ocp_e3m2": "e3m2",
    "ocp_e4m3": "e4m3fn",
    "ocp_e5m2": "e5m2",
    "ocp_e8m0": "e8m0",
    "ocp_int8": "mxint8",
    "binary16": "fp16",
    "bfloat16": "bf16",
}


def rebuilt(fmt: Format) -> FormatInfo:
    """The format in gfloat's terms."""
    high = {Specials.IEEE: (1 << fmt.mantissa_bits) - 1, Specials.FN: 1, Specials.E8M0: 1}
    p3109_unsigned = fmt.specials.is_p3109 and not fmt.signed
    return FormatInfo(
        str(fmt),
        fmt.bits,
        fmt.mantissa_bits + 1,
        bias=fmt.bias,
        is_signed=fmt.signed,
        domain=Domain.Extended if fmt.has_inf else Domain.Finite,
        has_nz=fmt.has_negative_zero,
        num_high_nans=high.get(fmt.specials, int(p3109_unsigned)),
        has_subnormals=fmt.subnormals is Subnormals.GRADUAL,
        is_twos_complement=fmt.specials is Specials.TWOS,
    )


def shared_formats() -> list[Format]:
    """The catalogue up to 16 bits and P3109 of 3, 4, 6 and 8 bits."""
    p3109 = [
        parse(f"binary{k}p{p}{sign}{domain}")
        for k in (3, 4, 6, 8)
        for sign in "su"
        for p in range(1, k + (sign == "u"))
        for domain in "ef"
    ]
    others = [parse(spelling) for spelling in ("ue4m3finite", "e3m0finite", "e5m3", "e4m2b11fn")]
    return [fmt for fmt in CANONICAL.values() if fmt.bits <= 16] + others + p3109


def inputs(fmt: Format) -> np.ndarray:
    """The points, as far as the two agree on what they mean.

    gfloat lets unsigned formats keep negatives, formats without zero go below their smallest
    value, and refuses NaN where the format has none.
    """
    x = points(fmt, np.float32 if _fits(fmt) else np.float64)
    x = x[~np.isnan(x) | fmt.has_nan]
    if not fmt.signed:
        x = x[~np.signbit(x)]
    if not fmt.has_zero:
        x = x[~(x < float(fmt.smallest_positive))]
    return x


def _fits(fmt: Format) -> bool:
    return fmt.quantum_exponent >= -149 and float(fmt.max_value) < 2.0**128


def rules(fmt: Format) -> list[tuple[bool, Overflow]]:
    """(their sat, our overflow rule) where they mean the same."""
    if fmt.has_inf or fmt.specials in (Specials.FN, Specials.FNUZ, Specials.E8M0):
        return [(True, Overflow.SAT_FINITE), (False, Overflow.SAT_NONE)]
    return [(True, Overflow.SAT_FINITE)]


def assert_same(got: np.ndarray, theirs: np.ndarray, x: np.ndarray, note: object) -> None:
    wrong = np.flatnonzero(bits(got) != bits(narrow(theirs, got.dtype)))
    assert not wrong.size, (note, x[wrong[:3]], got[wrong[:3]], theirs[wrong[:3]])


@pytest.mark.parametrize("theirs_name", NAMED)
def test_named_formats_are_the_same(theirs_name: str) -> None:
    """Our formats, rebuilt, are gfloat's own."""
    info = getattr(theirs, f"format_info_{theirs_name}")
    ours = rebuilt(parse(NAMED[theirs_name]))
    for field in ("k", "precision", "bias", "is_signed", "domain", "has_nz", "num_high_nans"):
        assert getattr(ours, field) == getattr(info, field)


@pytest.mark.parametrize("fmt", [f for f in shared_formats() if f.bits <= 16], ids=str)
def test_codes_mean_the_same(fmt: Format) -> None:
    codes = np.arange(1 << fmt.bits)
    expected = gfloat.decode_ndarray(rebuilt(fmt), codes)
    got = fpemu.decode(codes, fmt, dtype="float64", backend="numpy")
    assert bits(got).tolist() == bits(narrow(expected, np.float64)).tolist()


@pytest.mark.parametrize("fmt", shared_formats(), ids=str)
def test_deterministic_modes(backend: str, fmt: Format) -> None:
    x = inputs(fmt)
    for their_mode, mode in MODES.items():
        for sat, overflow in rules(fmt):
            with np.errstate(all="ignore"):
                expected = gfloat.round_ndarray(rebuilt(fmt), widen(x), their_mode, sat)
            got = fpemu.quantize(x, fmt, rounding=mode, policy=overflow, backend=backend)
            assert_same(got, expected, x, (mode, overflow))


@pytest.mark.parametrize("fmt", shared_formats(), ids=str)
def test_stochastic_modes(backend: str, fmt: Format) -> None:
    """Variants A, B and C with 1, 5, 8, 14 and 32 bits: gfloat gets the draws of our key."""
    x = inputs(fmt)
    for turn, (their_mode, variant) in enumerate(VARIANTS.items()):
        for count in (1, 5, 8, 14, 32):
            rounding = Stochastic(count, variant)
            sat, overflow = rules(fmt)[(turn + count) % len(rules(fmt))]
            drawn = draws(3, x.size, rounding)
            with np.errstate(all="ignore"):
                expected = gfloat.round_ndarray(
                    rebuilt(fmt), widen(x), their_mode, sat, drawn, count
                )
            got = fpemu.quantize(x, fmt, rounding=rounding, policy=overflow, key=3, backend=backend)
            assert_same(got, expected, x, (rounding, overflow))


@pytest.mark.parametrize("spelling", ["e4m3fn", "e2m1", "e5m2", "binary8p4se", "e3m0"])
def test_scalar_rounding(backend: str, spelling: str) -> None:
    """gfloat's scalar function, the one its documentation defines, on every third point."""
    fmt = parse(spelling)
    x = inputs(fmt)[::3]
    info = rebuilt(fmt)
    for their_mode, mode in MODES.items():
        expected = np.array([gfloat.round_float(info, float(v), their_mode, True) for v in x])
        got = fpemu.quantize(x, fmt, rounding=mode, policy="sat_finite", backend=backend)
        assert_same(got, expected, x, mode)
    for their_mode, variant in VARIANTS.items():
        drawn = draws(8, x.size, Stochastic(6, variant))
        expected = np.array(
            [
                gfloat.round_float(info, float(v), their_mode, True, int(r), 6)
                for v, r in zip(x, drawn, strict=True)
            ]
        )
        got = fpemu.quantize(
            x, fmt, rounding=Stochastic(6, variant), policy="sat_finite", key=8, backend=backend
        )
        assert_same(got, expected, x, variant)
