"""Error of block formats on Gaussian data: every rule and format, beside torchao's.

    python benchmarks/block_error.py [--samples 4194304] [--output docs/reports/block-error.md]

The data are N(0, 1) from a seeded generator, rounded to float32; the error is the normalised mean
squared one, sum (x - q)**2 / sum x**2, in float64. torchao quantizes the same array through its
own functions where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import platform
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import fpemu
from fpemu.blocks import BlockFormat

SEED = 2026
ROW = 4096  # elements of a row: no block crosses its end
TORCHAO = importlib.util.find_spec("torchao") is not None

ELEMENTS = ["e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2", "mxint8"]
RULES = ["floor", "even", "rceil", "ceil", "four_thirds"]
SCALES = ["fp32", "bf16", "e4m3fn", "ue4m3", "ue5m3", "e5m3", "e8m0"]
BLOCKS = [8, 16, 32, 64, 128]
# (format, what the literature and earlier measurements give, to the digits given)
KNOWN = [
    ("e2m1[32,e8m0]", 0.0132),
    ("e2m1[32,e8m0,even]", 0.0125),
    ("e2m1[32,e8m0,rceil]", 0.0133),
    ("e2m1[32,e8m0,ceil]", 0.0208),
    ("e2m1[32,fp32]", 0.0102),
    ("e2m1[32,e8m0,four_thirds]", 0.0139),
    ("e2m1[16,e4m3fn,fp32]", 0.0090),
    ("e2m1[16,fp32]", 0.0089),
]
OTHERS = [
    "nvfp4",
    "e2m1[16,e4m3fn]",
    "nvint4",
    "mxint8",
    *(f"msfp{bits}" for bits in range(12, 17)),
    "e2m1[32,fp32,mse]",
    "e2m1[32,fp32,mse:100:0.8:2.4]",
    "e2m1[32,fp32,octav]",
    "e2m1[32,fp32,quest]",
    "e2m1[32,fp32,pow2_m1]",
    "e2m1[32,fp32,pow2_m2]",
    "e2m1[16x16,e4m3fn,fp32]",
    "e2m1[tensor,fp32]",
    "e2m1[tensor,fp32,quest]",
    "int4[32,fp32,sym]",
    "int4[32,fp32,octav,sym]",
    "int8[tensor,fp32,sym]",
    "hif8[tensor,fp32]",
    "nf4[64,fp32]",
]


def nmse(x: np.ndarray, q: np.ndarray) -> float:
    error = total = 0.0
    for part, rounded in zip(x, q, strict=True):  # a row at a time, summed exactly
        wide = part.astype(np.float64)
        gap = wide - rounded
        error += float(gap @ gap)
        total += float(wide @ wide)
    return error / total


def torchao_values(x: np.ndarray, fmt: BlockFormat) -> np.ndarray | None:
    """What torchao makes of it; None for what it does not have."""
    if not TORCHAO:
        return None
    logging.disable(logging.WARNING)  # of extensions that its wheel was built without
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from torchao.prototype.mx_formats import mx_tensor, nvfp4_tensor
    logging.disable(logging.NOTSET)
    elements = {
        "e2m1": torch.float4_e2m1fn_x2,
        "e2m3": "fp6_e2m3",
        "e3m2": "fp6_e3m2",
        "e4m3fn": torch.float8_e4m3fn,
        "e5m2": torch.float8_e5m2,
    }
    element: Any = elements.get(str(fmt.element))
    data, made = torch.from_numpy(x), None
    if str(fmt.scale) == "e8m0" and element is not None and isinstance(fmt.block, int):
        modes = {str(mode.value): mode for mode in mx_tensor.ScaleCalculationMode}
        if str(fmt.rule) in modes:
            scale, codes = mx_tensor.to_mx(data, element, fmt.block, modes[str(fmt.rule)])
            made = mx_tensor.to_dtype(codes, scale, element, fmt.block, torch.float32)
    elif str(fmt.spelling) in ("e2m1[16,e4m3fn,fp32]", "e2m1[16,e4m3fn]"):
        t = nvfp4_tensor.per_tensor_amax_to_scale(data.abs().max()) if fmt.outer else None
        made = nvfp4_tensor.NVFP4Tensor.to_nvfp4(data, 16, t).dequantize(torch.float32)
    return None if made is None else made.numpy()


def row(x: np.ndarray, spelling: str) -> list[str]:
    """error, SQNR in dB, torchao's error, elements in a million that differ from torchao's."""
    fmt = BlockFormat.parse(spelling)
    q = fpemu.quantize(x, fmt)
    ours = nmse(x, q)
    cells = [f"{ours:.3e}", f"{-10 * math.log10(ours):.2f}"]
    values = torchao_values(x, fmt)
    if values is None:
        return [*cells, "", ""]
    differing = 1e6 * np.count_nonzero(values != q) / q.size
    return [*cells, f"{nmse(x, values):.3e}", f"{differing:.0f}"]


def table(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "| --- |" + " ---: |" * (len(header) - 1)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"
    yield ""


def report(samples: int) -> Iterator[str]:
    x = np.random.default_rng(SEED).standard_normal(samples, np.float32).reshape(-1, ROW)
    yield "# Error of block formats on Gaussian data"
    yield ""
    yield "Made by `python benchmarks/block_error.py`; see [README](README.md)."
    yield ""
    yield f"- {samples:,} samples of N(0, 1), seed {SEED}, float32; error = sum (x - q)^2 / sum x^2"
    yield "- chance: below 3e-5 for E2M1 in the standard error, in proportion for the others"
    names = ["numpy", *(["torch", "torchao"] if TORCHAO else [])]
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    yield f"- fpemu {fpemu.__version__}, Python {platform.python_version()}, {packages}"
    yield "- torchao multiplies NVFP4's two scales by each other first: last bits differ, see"
    yield "  `fpemu/block_presets.py`; as `policy='torchao'` nothing differs"
    if not TORCHAO:
        yield "- torchao is not installed: its columns are empty"
    yield ""
    yield "## Known numbers"
    yield ""
    header = ["format", "known", "error", "SQNR, dB", "torchao", "differing, per million"]
    yield from table(header, ([f"`{s}`", f"{known:.4f}", *row(x, s)] for s, known in KNOWN))
    yield "## Power-of-two scales by rule"
    yield ""
    yield "Error, and torchao's in parentheses where it has the rule; blocks of 32."
    yield ""

    def rules(element: str) -> list[str]:
        cells = [f"`{element}`"]
        for rule in RULES:
            symmetric = ",sym" if element == "mxint8" else ""
            ours, _, theirs, _ = row(x, f"{element}[32,e8m0,{rule}{symmetric}]")
            cells.append(f"{ours} ({theirs})" if theirs else ours)
        return cells

    yield from table(["element", *RULES], map(rules, ELEMENTS))
    yield "## Scale format and block length"
    yield ""
    yield "E2M1, the scale nearest to amax / 6 (e8m0: floor), with a float32 scale of the whole"
    yield "tensor where the scale has little range."
    yield ""

    def lengths(scale: str) -> list[str]:
        outer = ",fp32" if scale in ("e4m3fn", "ue4m3") else ""
        cells = [f"`{scale}`{' under fp32' if outer else ''}"]
        return [*cells, *(row(x, f"e2m1[{n},{scale}{outer}]")[0] for n in BLOCKS)]

    yield from table(["scale", *map(str, BLOCKS)], map(lengths, SCALES))
    yield "## Other formats and rules"
    yield ""
    header = ["format", "error", "SQNR, dB", "torchao", "differing, per million"]
    yield from table(header, ([f"`{spelling}`", *row(x, spelling)] for spelling in OTHERS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1 << 22, help="a multiple of 4096")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    options = parser.parse_args()
    lines = []
    for line in report(options.samples):
        print(line, flush=True)
        lines.append(line)
    if options.output is not None:
        options.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
