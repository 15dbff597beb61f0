"""How far quantized values are from the originals, and what happened at the edges."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu import arrays
from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Descriptor
from fpemu.ulps import step_exponents
from fpemu.values import power_of_two

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Report:
    """Sums over all elements; non-finite inputs and results are left out of the error figures.

    count: elements. sqnr_db: 10 log10(sum x^2 / sum (x - q)^2), inf where nothing changed,
    NaN for no finite element. max_relative_error: max |x - q| / |x| over nonzero x (1 where a value
    became zero). max_ulp_error: max |x - q| in ulps of the format at x (None without a format).
    bias: mean of q - x. saturated: finite with |x| beyond the format's range (without a format:
    finite x whose result is not finite). underflowed: nonzero x that became zero. nan: NaN
    results.
    """

    count: int
    sqnr_db: float
    max_relative_error: float
    max_ulp_error: float | None
    bias: float
    saturated: int
    underflowed: int
    nan: int

    def __str__(self) -> str:
        return "\n".join(f"{name:<20}{_shown(value)}" for name, value in asdict(self).items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{_shown(value)}</td></tr>"
            for name, value in asdict(self).items()
        )
        return f"<table>{rows}</table>"


def error(x: ArrayLike, q: ArrayLike, fmt: Format | str | None = None) -> Report:
    """Compare `q` with the original `x`, arrays of one shape and any real dtypes.

    With `fmt`, the format that `q` was rounded to, the report has ulps and saturation too. Sums
    are float64, in pieces of fixed size, in C order. Errors: TypeError for other dtypes,
    ValueError for shapes that differ.
    """
    original, result = arrays.as_array(x)[0], arrays.as_array(q)[0]
    if original.shape != result.shape:
        raise ValueError(f"q must have the shape of x, {original.shape}, got {result.shape}")
    return _compare(original, result, None if fmt is None else as_format(fmt))


def report(
    x: ArrayLike,
    fmt: Format | str,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    bits: ArrayLike | None = None,
    backend: str | None = None,
) -> Report:
    """Quantize `x` as `quantize` does (in float64 where its dtype cannot hold the format) and
    report the error. Errors: as `quantize`."""
    original = arrays.as_array(x)[0]
    chosen = arrays.rule(fmt, rounding, policy)
    dtype = arrays.holding_dtype(original, chosen.fmt)
    q = arrays.quantize(
        original, chosen.fmt, rounding=rounding, policy=policy, key=key, bits=bits,
        dtype=dtype, backend=backend,
    )  # fmt: skip
    return _compare(original, q, chosen.fmt)


def _compare(x: NDArray[Any], q: NDArray[Any], fmt: Format | None) -> Report:
    signal = noise = Fraction(0)
    total = worst = worst_ulps = 0.0
    finite = saturated = underflowed = nan = 0
    for first in range(0, x.size, _CHUNK):
        original = _piece(x, first)
        result = _piece(q, first)
        usable = np.isfinite(original) & np.isfinite(result)
        a, b = original[usable], result[usable]
        with np.errstate(over="ignore"):
            difference = b - a
        finite += a.size
        signal += _energy(a)
        noise += _energy(difference)
        total += float(difference.sum())
        size, gap = np.abs(a), np.abs(difference)
        nonzero = size > 0
        if nonzero.any():
            with np.errstate(over="ignore"):
                worst = max(worst, float((gap[nonzero] / size[nonzero]).max()))
        if fmt is not None and a.size:
            worst_ulps = max(worst_ulps, float(np.ldexp(gap, -step_exponents(a, fmt)).max()))
            saturated += int(_beyond(original, fmt).sum())
        else:
            saturated += int((np.isfinite(original) & ~np.isfinite(result)).sum())
        underflowed += int(((original != 0) & (result == 0)).sum())
        nan += int(np.isnan(result).sum())
    return Report(
        count=x.size,
        sqnr_db=_decibels(signal, noise) if finite else math.nan,
        max_relative_error=worst,
        max_ulp_error=None if fmt is None else worst_ulps,
        bias=total / finite if finite else math.nan,
        saturated=saturated,
        underflowed=underflowed,
        nan=nan,
    )


def _piece(x: NDArray[Any], first: int) -> NDArray[np.float64]:
    # flat indexing copies one piece of any layout in C order
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return x.flat[first : first + _CHUNK].astype(np.float64)


def _beyond(x: NDArray[np.float64], fmt: Format) -> NDArray[np.bool_]:
    lowest = fmt.lowest_value if fmt.specials is Specials.TWOS else -fmt.max_value
    return np.isfinite(x) & ((x > float(fmt.max_value)) | (x < float(lowest)))


def _energy(x: NDArray[np.float64]) -> Fraction:
    """The sum of squares of a piece, scaled where float64 squares would over- or underflow."""
    largest = float(np.abs(x).max(initial=0.0))
    exponent = math.frexp(largest)[1] if largest else 0
    if abs(exponent) < 400:
        return Fraction(float(np.dot(x, x)))
    scaled = np.ldexp(x, -exponent)
    return Fraction(float(np.dot(scaled, scaled))) * power_of_two(2 * exponent)


def _decibels(signal: Fraction, noise: Fraction) -> float:
    if not noise:
        return math.inf
    if not signal:
        return -math.inf
    ratio = signal / noise
    return 10 * (math.log10(ratio.numerator) - math.log10(ratio.denominator))


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
