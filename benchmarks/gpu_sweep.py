"""Every float32, bfloat16 and float16 pattern through every format of up to 16 bits.

    python benchmarks/gpu_sweep.py [--formats e4m3fn,e2m1] [--output docs/reports/gpu-sweep.md]

Every deterministic mode and policy on the GPU, compared pattern by pattern with an independent
method: rounding is a step function of the value, whose steps lie at the format's values, the exact
midpoints between them, and the dtype's neighbours of both. There `fpemu.testing.Table` (sorted
values and midpoints, a binary search, nothing shifted) says what the result must be; between them
it stays.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import fpemu
from fpemu.catalog import CANONICAL
from fpemu.formats import Format
from fpemu.lowering import BFLOAT16, CONTAINERS, Container, lower
from fpemu.policy import Overflow, Policy
from fpemu.rounding import Rounding
from fpemu.testing import table
from fpemu_cuda import _device

CHUNK = 1 << 28
INTS = {16: torch.int16, 32: torch.int32}


def floats(patterns: np.ndarray, container: Container) -> np.ndarray:
    """The values of patterns, as float64."""
    if container is BFLOAT16:
        patterns, kind = patterns.astype(np.uint32) << 16, np.dtype("f4")
    else:
        kind = np.dtype(f"f{container.bits // 8}")
    with np.errstate(invalid="ignore"):
        return patterns.astype(f"u{kind.itemsize}").view(kind).astype(np.float64)


def magnitude_points(fmt: Format, container: Container) -> np.ndarray:
    """Magnitude patterns where a step can lie, ascending, 0 and the first NaN among them."""
    ladders = (table(fmt).positive, table(fmt).negative)
    reals = np.concatenate([[0.0], *(np.r_[each.rungs, each.middles] for each in ladders)])
    infinity = container.infinity
    if container.bits == 16:
        every = floats(np.arange(infinity + 1, dtype=np.uint32), container)
        at = np.searchsorted(every, reals)
    else:
        with np.errstate(over="ignore"):
            at = reals.astype(np.float32).view(np.uint32).astype(np.int64)
    near = (at[:, None] + np.arange(-2, 3)).reshape(-1)
    near = np.r_[near, infinity - 1, infinity, infinity + 1]
    return np.unique(near[(near >= 0) & (near <= infinity + 1)])


def expected(
    fmt: Format, container: Container, rounding: Rounding, policy: Policy
) -> tuple[torch.Tensor, torch.Tensor]:
    """(points by sign and magnitude, the result patterns from each on), on the GPU."""
    magnitudes = magnitude_points(fmt, container)
    sign = container.sign
    results, keys = [], []
    for negative in (False, True):
        x = floats(magnitudes | (sign if negative else 0), container)
        values = table(fmt).round(x, rounding, policy).values
        results.append(patterns_of(values, container))
        keys.append(magnitudes | (sign if negative else 0))
    order = np.concatenate(keys).astype(np.int64)
    found = np.concatenate(results).astype(np.int64)
    return torch.from_numpy(order).cuda(), torch.from_numpy(found).cuda()


def patterns_of(values: np.ndarray, container: Container) -> np.ndarray:
    """The patterns of float64 values that the container holds; NaN is the positive quiet one."""
    if container is BFLOAT16:
        bits = values.astype(np.float32).view(np.uint32) >> 16
    else:
        kind = f"f{container.bits // 8}"
        bits = values.astype(kind).view(f"u{container.bits // 8}")
    return np.where(np.isnan(values), container.infinity | 1 << (container.mantissa_bits - 1), bits)


def sweep(fmt: Format, container: Container, cases: list[tuple[Rounding, Overflow]]) -> dict:
    """Mismatches per (mode, policy) over all patterns."""
    total, stream = 1 << container.bits, torch.cuda.current_stream().cuda_stream
    tables = {case: expected(fmt, container, case[0], Policy(case[1])) for case in cases}
    keys = next(iter(tables.values()))[0]
    wrong = dict.fromkeys(cases, 0)
    size = min(CHUNK, total)
    for first in range(0, total, size):
        pattern = torch.arange(first, first + size, device="cuda", dtype=torch.int64)
        step = torch.searchsorted(keys, pattern, right=True) - 1
        x = pattern.to(INTS[container.bits])
        del pattern
        out = torch.empty_like(x)
        for case in cases:
            params = lower(fmt, case[0], Policy(case[1]), container)
            _device.round_at(x.data_ptr(), out.data_ptr(), size, params, None, 0, stream)
            should = tables[case][1].to(INTS[container.bits])[step]
            wrong[case] += int((should != out).sum())
        del step, x, out
    return wrong


def lines(names: list[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        fmt = CANONICAL[name]
        for dtype in ("float32", "bfloat16", "float16"):
            container = CONTAINERS[dtype]
            if not container.holds(fmt):
                continue
            cases = [(mode, overflow) for mode in Rounding for overflow in Overflow]
            start = time.perf_counter()
            wrong = sweep(fmt, container, cases)
            took = time.perf_counter() - start
            for mode in Rounding:
                bad = sum(wrong[mode, overflow] for overflow in Overflow)
                inputs = len(Overflow) << container.bits
                yield (f"| {name} | {dtype} | {mode} | 3 | {inputs:,} | {bad} | "
                       f"{took / len(Rounding):.2f} |"), bad  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    small = [name for name, fmt in CANONICAL.items() if fmt.bits <= 16]
    parser.add_argument("--formats", default=",".join(small))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    text = [
        "# Every pattern on a GPU",
        "",
        "Made by `python benchmarks/gpu_sweep.py`; what is compared with what stands there.",
        "",
        f"- {torch.cuda.get_device_name()}, torch {torch.__version__}, "
        f"fpemu contract {fpemu.CONTRACT}; {time.strftime('%Y-%m-%d')}",
        "",
        "| format | dtype | mode | policies | inputs | mismatches | seconds |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    start, mismatches = time.perf_counter(), 0
    for line, bad in lines(options.formats.split(",")):
        text.append(line)
        mismatches += bad
        print(line, flush=True)
    text += ["", f"{mismatches} mismatches, {time.perf_counter() - start:.0f} seconds."]
    print(text[-1])
    if options.output is not None:
        options.output.write_text("\n".join(text) + "\n", encoding="utf-8")
    sys.exit(mismatches != 0)


if __name__ == "__main__":
    main()
