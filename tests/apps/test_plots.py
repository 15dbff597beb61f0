"""Pictures: the counts behind them are right, and they draw what they count."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import fpemu
from fpemu import plots
from fpemu.ulps import step_exponents

FORMATS = ("e4m3fn", "e5m2", "e2m1", "e4m3fnuz", "int4", "e8m0", "bf16", "e3m2flush", "tf32")


def normal(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


@pytest.mark.parametrize("fmt", FORMATS)
def test_everything_is_counted_once(fmt: str) -> None:
    x = normal(1000)
    q = fpemu.quantize(x, fmt)
    tally = plots.Tally(fmt).add(x, q)
    finite = np.isfinite(q)
    assert tally.count == 1000
    assert tally.unchanged + tally.errors.sum() + tally.beyond == finite.sum()
    assert tally.unchanged == (q == x).sum()
    if tally.codes is not None:
        codes = np.arange(1 << fpemu.format(fmt).bits)
        counts = [(fpemu.encode(x, fmt) == code).sum() for code in codes[tally.codes > 0]]
        assert tally.codes[tally.codes > 0].tolist() == counts
        assert tally.codes.sum() == 1000


def test_a_tally_of_parts_is_the_tally_of_the_whole() -> None:
    x = normal(200_000)
    q = fpemu.quantize(x, "e3m2", rounding="stochastic", key=0)
    whole, parts = plots.Tally("e3m2").add(x, q), plots.Tally("e3m2")
    for first in range(0, x.size, 7_001):
        parts.add(x[first : first + 7_001], q[first : first + 7_001])
    assert np.array_equal(whole.errors, parts.errors)
    assert whole.codes is not None
    assert np.array_equal(whole.codes, parts.codes)
    assert (whole.count, whole.unchanged) == (parts.count, parts.unchanged)


def test_nearest_errors_stay_within_half_an_ulp() -> None:
    x = np.concatenate([normal(5000), np.arange(-8, 8, 0.25, dtype="f4")])  # with exact ties
    tally = plots.Tally("e4m3fn").add(x, fpemu.quantize(x, "e4m3fn"))
    inside = (tally.edges[:-1] >= -0.5 - 1e-9) & (tally.edges[1:] <= 0.5 + 1e-9)
    assert tally.errors[inside].sum() == tally.errors.sum() > 0


def test_special_values_have_no_error_but_have_codes() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0], "f4")
    tally = plots.Tally("e5m2").add(x, fpemu.quantize(x, "e5m2"))
    assert (tally.count, tally.unchanged, tally.errors.sum()) == (4, 1, 0)
    assert tally.codes is not None
    assert tally.codes.sum() == 4
    none = plots.Tally("e2m1").add(x, fpemu.quantize(x, "e2m1"))
    assert none.codes is not None
    assert none.codes.sum() == 3  # e2m1 has no code for NaN


def test_a_result_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="q must have the size of x, 3, got 2"):
        plots.Tally("e2m1").add(np.zeros(3), np.zeros(2))


@given(x=st.floats(width=32, allow_nan=False, allow_infinity=False), fmt=st.sampled_from(FORMATS))
def test_vectorised_ulps_are_the_formats(x: float, fmt: str) -> None:
    chosen = fpemu.format(fmt)
    assert step_exponents(np.array([x]), chosen)[0] == chosen.step_exponent(abs(Fraction(x)))


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_can_be_drawn(fmt: str) -> None:
    x = normal(500)
    figure = plots.quantization(plots.Tally(fmt).add(x, fpemu.quantize(x, fmt)), title="a title")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")
    assert figure.get_suptitle() == "a title"
    assert len(figure.axes) == 2


def test_an_empty_tally_can_be_drawn() -> None:
    plots.quantization(plots.Tally("e4m3fn")).savefig(io.BytesIO(), format="png")


def test_axes_are_used_when_given_and_made_when_not() -> None:
    tally = plots.Tally("e2m1").add([0.3, 2.0], [0.5, 2.0])
    given_axes = Figure().subplots()
    for draw in (plots.error_histogram, plots.code_usage):
        assert draw(tally, axes=given_axes) is given_axes
        assert draw(tally) is not given_axes


def test_code_usage_is_in_the_order_of_the_values() -> None:
    tally = plots.Tally("e2m1").add(*[np.array([-6, -0.0, 0, 0, 1.5], "f4")] * 2)
    axes = plots.code_usage(tally)
    heights = [bar.get_height() for bar in axes.patches]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [
        "-6", "-4", "-3", "-2", "-1.5", "-1", "-0.5", "-0", "0", "0.5", "1", "1.5", "2", "3",
        "4", "6",
    ]  # fmt: skip
    used = {label: height for label, height in zip(labels, heights, strict=True) if height}
    assert used == pytest.approx({"-6": 20, "-0": 20, "0": 40, "1.5": 20})


def test_accuracy_has_a_row_a_format_and_a_marker_a_rounding() -> None:
    results = {
        "nearest_even": {"e4m3fn": plots.Measured(0.96, 0.96, 0.96)},
        "stochastic": {
            "e4m3fn": plots.Measured(0.95, 0.94, 0.96),
            "e2m1": plots.Measured(0.5, 0.4, 0.6),
        },
    }
    axes = plots.accuracy(results, baseline=0.97, lowest=0.9)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["e4m3fn", "e2m1"]
    _, names = axes.get_legend_handles_labels()
    assert sorted(names) == ["float32", "nearest_even", "stochastic"]
    assert axes.get_xlim()[0] == 90
    assert [text.get_text() for text in axes.texts] == ["\N{LEFTWARDS ARROW} 50.0"]


def test_drawing_leaves_pyplot_alone() -> None:
    code = (
        "import io, sys, numpy as np\nfrom fpemu import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "tally = plots.Tally('e2m1').add(np.ones(3), np.ones(3))\n"
        "plots.quantization(tally).savefig(io.BytesIO(), format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
