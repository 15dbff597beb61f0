"""How far quantized values are from the originals, and what happened at the edges.

`error` and `report` give everything at once; the functions below them give one figure each, by
the same sums. For distributions instead of pairs see `fpemu.distances`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu import arrays, dtypes, table_arrays
from fpemu.arguments import as_array
from fpemu.blocks import BlockFormat, Spec, as_spec
from fpemu.catalog import format as as_format
from fpemu.distances import float64_piece
from fpemu.formats import Format, Specials
from fpemu.keys import Key
from fpemu.packing import pack
from fpemu.policy import Policy
from fpemu.quantized import Quantized, compress
from fpemu.rounding import Descriptor
from fpemu.table_format import TableFormat
from fpemu.ulps import step_exponents
from fpemu.values import power_of_two

_CHUNK = 1 << 16


class Sums(NamedTuple):
    """Over the pairs whose two values are finite, but for the counts, which are over all.

    `saturated`, `underflowed` and `nan` as in `Report`; energies are sums of squares.
    """

    elements: int
    finite: int
    signal: Fraction
    result: Fraction
    noise: Fraction
    product: Fraction
    difference: float
    max_relative_error: float
    max_ulp_error: float
    saturated: int
    underflowed: int
    nan: int


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
    target = None if fmt is None else as_format(fmt)
    return _report(_sums(*_pair(x, q), target), target)


def report(
    x: ArrayLike,
    fmt: Spec | str,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    bits: ArrayLike | None = None,
    axis: int = -1,
    backend: str | None = None,
) -> Report:
    """Quantize `x` as `quantize` does (in float64 where its dtype cannot hold the format) and
    report the error. Errors: as `quantize`.

    In block formats, `saturated` counts elements beyond what their own block's scale reaches, and
    there are no ulps; nor are there any for table formats.
    """
    original, spec = as_array(x)[0], as_spec(fmt)
    if not isinstance(spec, Format):
        if bits is not None:
            raise ValueError(f"bits goes with pseudo rounding to a Format, not with {spec}")
        if isinstance(spec, TableFormat) and original.dtype.kind not in "iu":
            original = original.astype(table_arrays.holding_dtype(original.dtype, spec), copy=False)
        stored = compress(
            original, spec, rounding=rounding, policy=policy, key=key, axis=axis, backend=backend
        )
        result = stored.dequantize(backend=backend)
        sums = _sums(original, result)
        return _report(sums._replace(saturated=_beyond_reach(original, stored)), None)
    chosen = arrays.rule(spec, rounding, policy)
    dtype = arrays.holding_dtype(original, chosen.fmt)
    q = arrays.quantize(
        original, chosen.fmt, rounding=rounding, policy=policy, key=key, bits=bits,
        dtype=dtype, backend=backend,
    )  # fmt: skip
    return _report(_sums(original, q, chosen.fmt), chosen.fmt)


# --------------------------------------------------------------- single figures
#
# All take arrays of one shape and any real dtypes and raise as `error` does. Pairs with a value
# that is not finite are left out of errors and products; where none is left the result is NaN.


def sqnr(x: ArrayLike, q: ArrayLike) -> float:
    """Signal to quantization noise in dB, 10 log10(sum x^2 / sum (x - q)^2); inf for q = x."""
    sums = _sums(*_pair(x, q))
    return _decibels(sums.signal, sums.noise) if sums.finite else math.nan


def nmse(x: ArrayLike, q: ArrayLike) -> float:
    """sum (x - q)^2 / sum x^2; 0 for q = x, also where x is zero."""
    sums = _sums(*_pair(x, q))
    if not sums.finite:
        return math.nan
    if not sums.signal:
        return math.inf if sums.noise else 0.0
    return _float(sums.noise / sums.signal)


def mse(x: ArrayLike, q: ArrayLike) -> float:
    """The mean of (x - q)^2."""
    sums = _sums(*_pair(x, q))
    return _float(sums.noise / sums.finite) if sums.finite else math.nan


def bias(x: ArrayLike, q: ArrayLike) -> float:
    """The mean of q - x."""
    return error(x, q).bias


def max_ulp_error(x: ArrayLike, q: ArrayLike, fmt: Format | str) -> float:
    """The largest |x - q| in ulps of `fmt` at x; 0 where no pair is finite."""
    return _sums(*_pair(x, q), as_format(fmt)).max_ulp_error


def clip_rate(x: ArrayLike, q: ArrayLike, fmt: Format | str | None = None) -> float:
    """The share of elements that `Report.saturated` counts: finite x beyond the range of `fmt`,
    or without a format finite x whose result is not finite."""
    sums = _sums(*_pair(x, q), None if fmt is None else as_format(fmt))
    return sums.saturated / sums.elements if sums.elements else math.nan


def underflow_rate(x: ArrayLike, q: ArrayLike) -> float:
    """The share of elements that are not zero and became zero."""
    sums = _sums(*_pair(x, q))
    return sums.underflowed / sums.elements if sums.elements else math.nan


def cosine(x: ArrayLike, q: ArrayLike) -> float:
    """The cosine of the angle between x and q, sum x q / (|x| |q|); NaN where either is zero."""
    sums = _sums(*_pair(x, q))
    energies = sums.signal * sums.result
    if not energies:
        return math.nan
    size = math.sqrt(min(float(sums.product**2 / energies), 1.0))
    return -size if sums.product < 0 else size


# ------------------------------------------------------------------------- sums


def _pair(x: ArrayLike, q: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    original, result = as_array(x)[0], as_array(q)[0]
    if original.shape != result.shape:
        raise ValueError(f"q must have the shape of x, {original.shape}, got {result.shape}")
    return original, result


def _sums(x: NDArray[Any], q: NDArray[Any], fmt: Format | None = None) -> Sums:
    signal = energy = noise = product = Fraction(0)
    total = worst = worst_ulps = 0.0
    finite = saturated = underflowed = nan = 0
    for first in range(0, x.size, _CHUNK):
        original = float64_piece(x, first, _CHUNK)
        result = float64_piece(q, first, _CHUNK)
        usable = np.isfinite(original) & np.isfinite(result)
        a, b = original[usable], result[usable]
        with np.errstate(over="ignore"):
            difference = b - a
        finite += a.size
        signal += _product(a, a)
        energy += _product(b, b)
        noise += _product(difference, difference)
        product += _product(a, b)
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
    return Sums(
        x.size, finite, signal, energy, noise, product, total, worst, worst_ulps,
        saturated, underflowed, nan,
    )  # fmt: skip


def _report(sums: Sums, fmt: Format | None) -> Report:
    return Report(
        count=sums.elements,
        sqnr_db=_decibels(sums.signal, sums.noise) if sums.finite else math.nan,
        max_relative_error=sums.max_relative_error,
        max_ulp_error=None if fmt is None else sums.max_ulp_error,
        bias=sums.difference / sums.finite if sums.finite else math.nan,
        saturated=sums.saturated,
        underflowed=sums.underflowed,
        nan=sums.nan,
    )


def _beyond(x: NDArray[np.float64], fmt: Format) -> NDArray[np.bool_]:
    lowest = fmt.lowest_value if fmt.specials is Specials.TWOS else -fmt.max_value
    return np.isfinite(x) & ((x > float(fmt.max_value)) | (x < float(lowest)))


def _beyond_reach(x: NDArray[Any], stored: Quantized) -> int:
    """How many finite elements are beyond the largest value their codes can have."""
    spec = stored.spec
    element = spec.element if isinstance(spec, BlockFormat) else spec
    lowest = element.lowest_value
    if isinstance(spec, BlockFormat) and spec.symmetric:
        lowest = -element.max_value
    ends = np.array([element.encode(element.max_value), element.encode(lowest)])
    codes = ends.astype(dtypes.unsigned(8 if element.bits <= 8 else 32))[
        np.less(x, 0).view(np.uint8)
    ]
    wide = "float64" if stored.dtype == "float64" else "float32"
    reach = replace(stored, codes=pack(codes, element.bits)).dequantize(wide)
    count = 0
    for first in range(0, x.size, _CHUNK):
        original = float64_piece(x, first, _CHUNK)
        beyond = np.abs(original) > np.abs(float64_piece(reach, first, _CHUNK))
        count += int((np.isfinite(original) & beyond).sum())
    return count


def _product(x: NDArray[np.float64], y: NDArray[np.float64]) -> Fraction:
    """The dot product of two pieces, scaled where float64 products would over- or underflow."""
    if not x.size:
        return Fraction(0)
    p, q = _exponent(x), _exponent(y)
    # einsum, because dot hands short vectors to the threads of a BLAS library
    if max(abs(p), abs(q)) < 400:
        return Fraction(float(np.einsum("i,i", x, y)))
    scaled = float(np.einsum("i,i", np.ldexp(x, -p), np.ldexp(y, -q)))
    return Fraction(scaled) * power_of_two(p + q)


def _exponent(x: NDArray[np.float64]) -> int:
    largest = float(np.abs(x).max())
    return math.frexp(largest)[1] if largest else 0


def _float(ratio: Fraction) -> float:
    try:
        return float(ratio)
    except OverflowError:
        return math.inf


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
