"""Laws on codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.formats import Format, Specials, Subnormals
from fpemu.policy import NanRule, Overflow
from fpemu.testing._patterns import exact, is_nan, nans, narrow, widen
from fpemu.testing._points import some_codes
from fpemu.testing._trial import Trial, deterministic, law, rounds
from fpemu.values import Special

_MOST_EXACT = 1 << 12


def all_codes(fmt: Format, most: int = 1 << 16) -> NDArray[Any]:
    """Every code, or a sample near the edges if there are more than `most`; unsigned."""
    if fmt.bits <= 16 and 1 << fmt.bits <= most:
        found = np.arange(1 << fmt.bits, dtype=np.uint64)
    else:
        magnitudes = some_codes(fmt, most // 4).astype(np.uint64)
        top = np.uint64((1 << (fmt.bits - fmt.signed)) - 1)
        magnitudes = np.concatenate([magnitudes, top - np.arange(4, dtype=np.uint64)])
        sign = np.uint64(1 << (fmt.bits - 1) if fmt.signed else 0)
        found = np.unique(np.concatenate([magnitudes, magnitudes | sign]))
    width = next(w for w in (8, 16, 32, 64) if w >= fmt.bits)
    return found.astype(f"u{width // 8}")


@law(rounds, needs_codes=True, any_rounding=True)
def decoding_is_exact(trial: Trial) -> None:
    """Every code gives the value `Format.decode` says, NaN as the positive quiet NaN."""
    codes = all_codes(trial.fmt, _MOST_EXACT)
    got = trial.decode(codes)
    expected = exact([trial.fmt.decode(int(code)) for code in codes], trial.dtype)
    trial.same(expected, got, expected)


@law(rounds, needs_codes=True)
def encoding_undoes_decoding(trial: Trial) -> None:
    """encode(decode(c)) is c, in every mode; NaN codes give the one NaN written, flushed zero."""
    codes = all_codes(trial.fmt)
    values = trial.decode(codes)
    if trial.overflow is Overflow.SAT_FINITE:
        codes, values = codes[~np.isinf(values)], values[~np.isinf(values)]
    trial.same_codes(values, trial.encode(values), _canonical(trial.fmt, codes, widen(values)))


def _canonical(fmt: Format, codes: NDArray[Any], values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """What is written for codes that share their value with others."""
    expected = codes.astype(np.uint64)
    if fmt.nan_code is not None:
        expected[np.isnan(values)] = fmt.nan_code
    if fmt.subnormals is Subnormals.FLUSH:
        zero = values == 0
        minus = np.uint64(1 << (fmt.bits - 1)) if fmt.has_negative_zero else np.uint64(0)
        expected[zero] = np.where(np.signbit(values[zero]), minus, np.uint64(0))
    return expected


@law(rounds, needs_codes=True)
def encode_draws_as_quantize(trial: Trial) -> None:
    """decode(encode(x)) is quantize(x), bit for bit."""
    values = trial.quantize(trial.x)
    x = trial.x
    if not trial.fmt.has_nan:  # a zero stands for what has no code, so that places are kept
        x = np.where(is_nan(values), x.dtype.type(0), x)
        values = trial.quantize(x)
    trial.same(x, trial.decode(trial.encode(x)), values)


@law(rounds, needs_codes=True)
def nan_is_encoded_or_refused(trial: Trial) -> None:
    """NaN gives the format's one NaN code; without one, the policy's number or a ValueError."""
    fmt = trial.fmt
    x = nans(trial.dtype)
    if fmt.has_nan:
        wanted = fmt.encode(Special.NAN)
    elif trial.policy.nan is NanRule.ERROR:
        ordinary = narrow(np.array([float(fmt.max_value), float("nan")]), trial.dtype)
        try:
            codes = trial.encode(ordinary)
        except ValueError:
            return
        trial.fail(f"NaN must be refused, got code {int(codes[1]):#x}")
    else:
        minus = trial.policy.nan is NanRule.NEGATIVE_ZERO and fmt.has_negative_zero
        zero = 1 << (fmt.bits - 1) if minus else 0
        wanted = fmt.max_code if trial.policy.nan is NanRule.MAX else zero
    trial.same_codes(x, trial.encode(x), np.full(x.shape, wanted, np.uint64))


@law(deterministic, needs_codes=True, any_rounding=True)
def codes_are_ordered(trial: Trial) -> None:
    """Among non-negative numbers a larger value has a larger code."""
    if trial.fmt.specials is Specials.TWOS:
        return
    wide = widen(trial.x)
    x = trial.x[np.isfinite(wide) & ~np.signbit(wide)]
    x = x[np.argsort(widen(x), kind="stable")]
    values = trial.quantize(x)
    x = x[~is_nan(values)]
    codes = trial.encode(x)
    falls = np.flatnonzero(codes[1:] < codes[:-1])
    if falls.size:
        at = (int(falls[0]),)
        trial.fail(
            f"{trial.describe(x, at)} has code {int(codes[at]):#x}, more than the code "
            f"{int(codes[at[0] + 1]):#x} of the larger {trial.describe(x, (at[0] + 1,))}"
        )
