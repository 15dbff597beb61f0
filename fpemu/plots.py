"""Pictures of quantization; one function a figure.

matplotlib is imported inside the functions. Each takes the axes to draw on, or makes a figure
of its own, and returns them; nothing touches pyplot or its state, so no display is needed.
Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu.arrays import encode
from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.numerals import numeral
from fpemu.policy import Policy
from fpemu.ulps import step_exponents
from fpemu.values import Special

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
GREY = "#666666"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#E69F00", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")

_CHUNK = 1 << 16
_REACH = 2.0  # ulps to either side in the error histogram
_BINS = 160
_MOST_CODES = 16  # bits


class Tally:
    """What the pictures need of any number of tensors, added up one at a time.

    Errors are counted in ulps of the format at the original value; codes only for formats of up
    to 16 bits. Non-finite originals have no error.
    """

    def __init__(self, fmt: Format | str) -> None:
        self.fmt = as_format(fmt)
        self.count = 0
        self.unchanged = 0
        self.beyond = 0
        self.edges = np.linspace(-_REACH, _REACH, _BINS + 1)
        self.errors = np.zeros(_BINS, np.int64)
        counts_codes = self.fmt.bits <= _MOST_CODES
        self.codes = np.zeros(1 << self.fmt.bits, np.int64) if counts_codes else None

    def add(self, x: ArrayLike, q: ArrayLike) -> Tally:
        """Count the elements of `x`, and of `q`, what they became. Returns the tally itself."""
        original, result = np.asarray(x).reshape(-1), np.asarray(q).reshape(-1)
        if original.shape != result.shape:
            raise ValueError(f"q must have the size of x, {original.size}, got {result.size}")
        for first in range(0, original.size, _CHUNK):
            piece = slice(first, first + _CHUNK)
            self._add(original[piece].astype(np.float64), result[piece])
        return self

    def _add(self, x: NDArray[np.float64], q: NDArray[Any]) -> None:
        self.count += x.size
        result = q.astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(result)
        x, difference = x[finite], result[finite] - x[finite]
        moved = difference != 0
        self.unchanged += int(x.size - moved.sum())
        ulps = np.ldexp(difference[moved], -step_exponents(x[moved], self.fmt))
        self.beyond += int((np.abs(ulps) > _REACH).sum())
        # A touch nearer to zero, so that ties at half an ulp count with what is inside.
        self.errors += np.histogram(ulps * (1 - 1e-9), self.edges)[0]
        if self.codes is not None:
            known = q[~np.isnan(q)] if not self.fmt.has_nan else q
            codes = encode(known, self.fmt, policy=Policy())
            self.codes += np.bincount(codes, minlength=self.codes.size)


def quantization(tally: Tally, *, title: str | None = None) -> Figure:
    """The error histogram and the code-usage histogram, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    error_histogram(tally, axes=left)
    code_usage(tally, axes=right)
    figure.suptitle(title or str(tally.fmt))
    return figure


def error_histogram(tally: Tally, *, axes: Axes | None = None) -> Axes:
    """How far results lie from the originals, in ulps; exact results are given in words."""
    axes = axes or _axes()
    centres = (tally.edges[1:] + tally.edges[:-1]) / 2
    width = tally.edges[1] - tally.edges[0]
    total = max(tally.errors.sum(), 1)
    axes.bar(centres, 100 * tally.errors / total, width=width, color=BLUE)
    reach = np.abs(centres[tally.errors > 0]).max(initial=0.5)
    limit = 0.75 if reach <= 0.5 else 1.25 if reach <= 1 else _REACH
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("error, ulps of the format at the original value")
    axes.set_ylabel("share of the inexact results, %")
    exact = f"{100 * tally.unchanged / max(tally.count, 1):.3g} % exact"
    far = f"; {tally.beyond:,} beyond {_REACH:g} ulps" if tally.beyond else ""
    axes.set_title(f"Errors of {tally.count:,} values ({exact}{far})", fontsize=10)
    return _clean(axes)


def code_usage(tally: Tally, *, axes: Axes | None = None) -> Axes:
    """How often each value occurs, in ascending order of the values.

    Beyond 8 bits neighbouring codes share a bar; beyond 16 nothing is counted.
    """
    axes = axes or _axes()
    fmt = tally.fmt
    if tally.codes is None:
        axes.text(0.5, 0.5, f"{fmt} has too many codes to count", ha="center", va="center")
        axes.set_axis_off()
        return axes
    order = _ascending(fmt)
    counts = tally.codes[[code for code, _ in order]]
    used = int((counts > 0).sum())
    group = 1 if fmt.bits <= 8 else 1 << (fmt.bits - 8)
    places = np.arange(0, len(order), group)
    shares = 100 * np.add.reduceat(counts, places) / max(tally.count, 1)
    axes.bar(places + group / 2, shares, width=group * (0.9 if len(order) <= 32 else 1), color=BLUE)
    axes.set_xlim(0, len(order))
    ends = _labelled(order)
    axes.set_xticks([place + 0.5 for place in ends], [order[place][1] for place in ends])
    axes.set_xlabel("value")
    axes.set_ylabel("share of all results, %")
    if shares.max(initial=0) > 8 * max(float(np.median(shares)), 1e-300):
        axes.set_yscale("log")
    axes.set_title(f"{used:,} of the {len(order):,} finite codes of {fmt} are used", fontsize=10)
    return _clean(axes)


def _ascending(fmt: Format) -> list[tuple[int, str]]:
    """The finite codes by value, -0 before 0, with the values as text."""
    found: list[tuple[Fraction, int, int, str]] = []
    for code in fmt.codes():
        value = fmt.decode(code)
        if value is Special.NEG_ZERO:
            found.append((Fraction(0), 0, code, "-0"))
        elif not isinstance(value, Special):
            found.append((value, 1, code, numeral(value)))
    return [(code, text) for _, _, code, text in sorted(found)]


def _labelled(order: Sequence[tuple[int, str]]) -> list[int]:
    """Places on the axis that get a label: the ends, zero, and two in between."""
    last = len(order) - 1
    if last < 16:
        return list(range(last + 1))
    zero = next((place for place, (_, text) in enumerate(order) if text == "0"), 0)
    return sorted({0, zero // 2, zero, (zero + last) // 2, last})


class Measured(NamedTuple):
    """A mean with the lowest and the highest it was made from."""

    mean: float
    low: float
    high: float


def accuracy(
    results: Mapping[str, Mapping[str, Measured]],
    *,
    baseline: float | None = None,
    lowest: float | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Accuracy by format, a row each, and by rounding, a marker each, in percent.

    `results` is by rounding, then by format; the shares are of 1. Lines reach from the lowest to
    the highest of a mean. `baseline` is the accuracy without quantization. The axis begins at
    `lowest`; means below it are given as a number at the edge.
    """
    axes = axes or _axes()
    formats = list(dict.fromkeys(name for rows in results.values() for name in rows))
    for number, (rounding, rows) in enumerate(results.items()):
        offset = (number - (len(results) - 1) / 2) * 0.7 / max(len(results), 1)
        places = [formats.index(name) + offset for name in rows]
        means = np.array([100 * measured.mean for measured in rows.values()])
        spans = np.array([[m.low, m.high] for m in rows.values()]).T * 100
        axes.errorbar(
            means,
            places,
            xerr=np.abs(spans - means),
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=5.5,
            elinewidth=1.2,
            label=rounding,
        )
        for mean, place in zip(means, places, strict=True):
            if lowest is not None and mean < 100 * lowest:
                axes.annotate(
                    f"\N{LEFTWARDS ARROW} {mean:.1f}",
                    (100 * lowest, place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    color=COLOURS[number % len(COLOURS)],
                    va="center",
                )
    if lowest is not None:
        highest = max(m.high for rows in results.values() for m in rows.values())
        highest = max(highest, baseline or 0)
        axes.set_xlim(100 * lowest, 100 * highest + 5 * (highest - lowest))
    if baseline is not None:
        axes.axvline(100 * baseline, color=GREY, linestyle="--", linewidth=1, label="float32")
    for place in range(1, len(formats)):
        axes.axhline(place - 0.5, color="#eeeeee", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(formats)), formats)
    axes.set_ylim(len(formats) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, %")
    return _clean(axes)


def _axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 4.2), dpi=150, layout="constrained").subplots()


def _clean(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return axes
