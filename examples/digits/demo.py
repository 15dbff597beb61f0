"""What FP8, FP6 and FP4 and each rounding do to a real model's accuracy.

    python examples/digits/demo.py            or: make demo

Rounds the weights of the network that `train.py` made (64-128-64-10, digits of 8x8 pixels) to
several formats with several roundings, and reads the 597 test images with the result; then the
same with every layer's input rounded too. Prints the accuracy and the SQNR of the weights, and
draws demo.png beside this file.

Every weight matrix (and every layer's input, over the whole test set) is first scaled by the
power of two that brings its largest magnitude to the top of the format's range. The product is
scaled back, which is exact. Biases and sums stay float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import fpemu
from fpemu import files, plots

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "demo.png"
SEEDS = 10
FORMATS = ("bf16", "e5m2", "e4m3fn", "e3m2", "e2m3", "e3m0finite", "e2m1")
LOWEST = 0.85  # where the picture's axis begins
LAYERS = ("fc1", "fc2", "fc3")

Array = NDArray[np.float32]
Quantizer = Callable[[str, Array], Array]  # a tensor's name and values -> its rounded values


class Mode(NamedTuple):
    """A rounding in the table: its name there, its spelling for a format, and how many seeds."""

    name: str
    spelling: Callable[[fpemu.Format], str]
    seeds: int
    for_activations: bool


MODES = (
    Mode("nearest_even", lambda fmt: "nearest_even", 1, True),
    Mode("toward_zero", lambda fmt: "toward_zero", 1, True),
    Mode("stochastic", lambda fmt: "stochastic", SEEDS, True),
    # b = m + 2 is the finest noise that a format of m mantissa bits still represents.
    Mode("gaussian noise", lambda fmt: f"pseudo_gaussian:{fmt.mantissa_bits + 2}", SEEDS, False),
)


class Result(NamedTuple):
    accuracy: plots.Measured
    sqnr_db: float


def main() -> None:
    start = time.perf_counter()
    weights, images, labels = load()
    baseline = accuracy(weights, images, labels, None)
    only = {
        mode.name: {fmt: measure(fmt, mode, weights, images, labels, False) for fmt in FORMATS}
        for mode in MODES
    }
    both = {
        mode.name: {fmt: measure(fmt, mode, weights, images, labels, True) for fmt in FORMATS}
        for mode in MODES
        if mode.for_activations
    }
    out = Console(highlight=False)
    out.print(f"A 64-128-64-10 network, {len(labels)} test images. float32: {baseline:.2%}\n")
    out.print(table("Weights rounded: accuracy in %, SQNR of the weights in dB", only))
    out.print()
    out.print(table("Weights and every layer's input rounded", both))
    out.print(
        "\nEach tensor is scaled by a power of two to the top of the format's range;\n"
        f"biases and sums are float32. Random modes: mean of {SEEDS} seeds. The noise is\n"
        "R * max|block| * 2**(1 - b), b = m + 2, 32x32 blocks, followed by nearest_even.\n"
    )
    draw(only, both, baseline).savefig(PICTURE)
    out.print(f"{PICTURE} ({time.perf_counter() - start:.1f} s)", soft_wrap=True)


def load() -> tuple[dict[str, Array], Array, NDArray[np.uint8]]:
    """The weights, the images as rows of 64 values in 0..1, and their labels."""
    with files.open_tensors(HERE / "weights.safetensors") as opened:
        weights = {name: opened.read(name) for name in opened.specs}
    with files.open_tensors(HERE / "test_images.npz") as opened:
        images, labels = opened.read("images"), opened.read("labels")
    return weights, (images.reshape(len(images), -1) / 16).astype(np.float32), labels


def accuracy(
    weights: dict[str, Array], images: Array, labels: NDArray[np.uint8], inputs: Quantizer | None
) -> float:
    """The share of images read rightly, with every layer's input passed through `inputs`."""
    x = images
    for layer in LAYERS:
        if inputs is not None:
            x = inputs(f"{layer}.input", x)
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        if layer != LAYERS[-1]:
            x = np.maximum(x, 0)
    return float((x.argmax(axis=1) == labels).mean())


def quantizer(fmt: fpemu.Format, rounding: str, seed: int) -> Quantizer:
    """Rounding to `fmt` under a power-of-two scale; each tensor draws by its own name."""

    def quantize(name: str, x: Array) -> Array:
        # frexp gives exponents from the bits: the scaled maximum lies in (max / 2, max].
        exponent = np.frexp(np.abs(x).max() / np.float32(fmt.max))[1]
        scale = np.ldexp(np.float32(1), exponent)
        key = fpemu.Key(seed).child(name)
        result: Array = fpemu.quantize(x / scale, fmt, rounding=rounding, key=key) * scale
        return result

    return quantize


def measure(
    spelling: str,
    mode: Mode,
    weights: dict[str, Array],
    images: Array,
    labels: NDArray[np.uint8],
    with_inputs: bool,
) -> Result:
    """Accuracy over the mode's seeds, and the SQNR of all weight matrices together."""
    fmt = fpemu.format(spelling)
    matrices = [name for name in weights if name.endswith("weight")]
    shares, ratios = [], []
    for seed in range(mode.seeds):
        quantize = quantizer(fmt, mode.spelling(fmt), seed)
        rounded = weights | {name: quantize(name, weights[name]) for name in matrices}
        shares.append(accuracy(rounded, images, labels, quantize if with_inputs else None))
        ratios.append(fpemu.error(flat(weights, matrices), flat(rounded, matrices)).sqnr_db)
    mean = plots.Measured(float(np.mean(shares)), min(shares), max(shares))
    return Result(mean, float(np.mean(ratios)))


def flat(weights: dict[str, Array], names: Iterable[str]) -> Array:
    return np.concatenate([weights[name].reshape(-1) for name in names])


def table(title: str, results: dict[str, dict[str, Result]]) -> Table:
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title,
                 title_justify="left", title_style="bold")  # fmt: skip
    made.add_column("format")
    made.add_column("bits", justify="right")
    for name in results:
        made.add_column(f"{name}\n%     dB", justify="right")
    for spelling in FORMATS:
        cells = (results[name][spelling] for name in results)
        made.add_row(
            spelling,
            str(fpemu.format(spelling).bits),
            *(f"{100 * cell.accuracy.mean:.2f}  {cell.sqnr_db:5.1f}" for cell in cells),
        )
    return made


def draw(
    only: dict[str, dict[str, Result]], both: dict[str, dict[str, Result]], baseline: float
) -> Figure:
    """Accuracy by format and rounding: weights on the left, inputs too on the right."""
    figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    titles = ("weights rounded", "weights and inputs rounded")
    for axes, title, results in zip(panels, titles, (only, both), strict=True):
        shown = {
            name: {fmt: result.accuracy for fmt, result in rows.items()}
            for name, rows in results.items()
        }
        plots.accuracy(shown, baseline=baseline, lowest=LOWEST, axes=axes)
        axes.set_title(title)
    figure.suptitle("Digits, 64-128-64-10: accuracy after rounding (lines reach over all seeds)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


if __name__ == "__main__":
    main()
