"""Speed of the CUDA backend, as shares of the best device-to-device copy in the same run.

    python benchmarks/gpu_speed.py [--log2-size 28] [--output docs/reports/gpu-speed.md]

A share is the time of the fastest copy of the same bytes (counting bytes read and written)
divided by the time of the call; medians of 20, CUDA events, standard normal data. Needs a GPU,
torch with CUDA for memory and events, and fpemu-cuda.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import fpemu
from fpemu.keys import Key
from fpemu.lowering import CONTAINERS, Params, lower
from fpemu.policy import parse_policy
from fpemu.rounding import parse_rounding
from fpemu_cuda import _device

REPEATS = 20
Call = Callable[[], object]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GOALS = {
    ("nearest_even", "float32"): 0.98,
    ("nearest_even", "bfloat16"): 0.97,
    ("stochastic:16", "float32"): 0.95,
    ("stochastic", "float32"): 0.88,
    ("stochastic:16", "bfloat16"): 0.90,
}


def milliseconds(call: Call) -> float:
    """The median time of a call by CUDA events, after two to warm up."""
    times = []
    for i in range(REPEATS + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        if i >= 2:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def lowered(fmt: str, rounding: str, dtype: str) -> Params:
    target = fpemu.format(fmt)
    policy = parse_policy(None, target)[1]
    return lower(target, parse_rounding(rounding), policy, CONTAINERS[dtype])


def copy_rate(x: torch.Tensor, out: torch.Tensor) -> float:
    """Bytes a millisecond, read and written, of the fastest of several copies."""
    size = x.nbytes
    wide, to = x.view(torch.int64), out.view(torch.int64)
    calls: list[Call] = [
        lambda: out.copy_(x),
        lambda: to.copy_(wide),
        lambda: torch.add(wide, 0, out=to),
    ]
    return max(2 * size / milliseconds(call) for call in calls)


def rows(size: int) -> Iterator[tuple[str, str, float, float | None]]:
    """(call, dtype, share, goal)"""
    for dtype in DTYPES:
        yield from rows_of(dtype, size)
        torch.cuda.empty_cache()


def rows_of(dtype: str, size: int) -> Iterator[tuple[str, str, float, float | None]]:
    stream = torch.cuda.current_stream().cuda_stream
    x = torch.randn(size, device="cuda").to(DTYPES[dtype])
    out = torch.empty_like(x)
    codes = torch.empty(size, dtype=torch.uint8, device="cuda")
    rate = copy_rate(x, out)

    def rounding(fmt: str, mode: str) -> float:
        params = lowered(fmt, mode, dtype)
        key = Key(1) if params.random_bits else None
        took = milliseconds(
            lambda: _device.round_at(x.data_ptr(), out.data_ptr(), size, params, key, 0, stream)
        )
        return 2 * x.nbytes / rate / took

    for fmt in ("e4m3fn", "e2m1", "e3m2", "e5m2", "e4m7"):
        if CONTAINERS[dtype].mantissa_bits > fpemu.format(fmt).mantissa_bits:
            goal = GOALS.get(("nearest_even", dtype))
            yield f"nearest_even {fmt}", dtype, rounding(fmt, "nearest_even"), goal
    for mode in ("toward_zero", "to_odd", "stochastic", "stochastic:16", "stochastic:8",
                 "stochastic:16:C"):  # fmt: skip
        yield f"{mode} e4m3fn", dtype, rounding("e4m3fn", mode), GOALS.get((mode, dtype))
    rounding("e4m3fn", "nearest_even")
    params = lowered("e4m3fn", "nearest_even", dtype)
    moved = (x.nbytes + size) / rate
    took = milliseconds(
        lambda: _device.encode_at(out.data_ptr(), codes.data_ptr(), size, 1, params, stream)
    )
    yield "encode members of e4m3fn, own bytes", dtype, moved / took, None
    took = milliseconds(
        lambda: _device.decode_at(codes.data_ptr(), out.data_ptr(), size, 1, params, stream)
    )
    yield "decode e4m3fn, own bytes", dtype, moved / took, None
    yield "the copy, GB/s", dtype, rate / 1e6, None


def report(size: int) -> Iterator[str]:
    yield "# Speed on a GPU"
    yield ""
    yield "Made by `python benchmarks/gpu_speed.py`."
    yield ""
    yield f"- {torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    yield f"- Python {platform.python_version()}, fpemu contract {fpemu.CONTRACT}, "
    yield f"  {size:,} elements; measured {time.strftime('%Y-%m-%d')}"
    yield ""
    yield "| call | dtype | share of the copy | goal |"
    yield "| --- | --- | ---: | ---: |"
    for name, dtype, share, goal in rows(size):
        shown = f"{share:.3f}" if share < 100 else f"{share:,.0f}"
        yield f"| {name} | {dtype} | {shown} | {'' if goal is None else goal} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log2-size", type=int, default=28)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = []
    for line in report(1 << options.log2_size):
        print(line, flush=True)
        lines.append(line)
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
