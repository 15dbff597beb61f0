"""Whether `cuda`, `native` and `numpy` give the same bits on random patterns.

    python benchmarks/gpu_agreement.py [--log2-size 20] [--output docs/reports/gpu-agreement.md]

For every catalogue format, container, mode and policy: patterns half uniform, half around the
format's range. cuda is compared with native on all of them, native with numpy on the first 2^14.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from fpemu_cuda._native import backend as native_backend

from fpemu import backends
from fpemu.catalog import CANONICAL
from fpemu.dtypes import code_dtype
from fpemu.keys import Key
from fpemu.lowering import CONTAINERS, Container, lower
from fpemu.policy import Overflow, parse_policy
from fpemu.rounding import Rounding, parse_rounding
from fpemu_cuda import _device

MODES = (*Rounding, "stochastic", "stochastic:8", "stochastic:16", "stochastic:16:B",
         "stochastic:3:C", "stochastic:equal")  # fmt: skip
KEYS = (Key(3), Key(3, 5, 11), Key(1, 2, 3, row_length=1000, row_stride=4096))
FEW = 1 << 14
TORCH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def patterns(container: Container, size: int, rng: np.random.Generator) -> np.ndarray:
    kind = np.dtype(f"u{container.bits // 8}")
    x = rng.integers(0, 1 << container.bits, size, dtype=kind)
    near = np.exp2(rng.uniform(-20, 18, size // 2)) * rng.choice([-1.0, 1.0], size // 2)
    if container.name == "bfloat16":
        x[: size // 2] = (near.astype("f4").view("u4") >> 16).astype(kind)
    else:
        with np.errstate(over="ignore"):
            x[: size // 2] = near.astype(f"f{container.bits // 8}").view(kind)
    return x


def on_device(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.view(f"i{x.itemsize}" if x.itemsize > 1 else "u1")).cuda()


def results(size: int) -> Iterator[tuple[str, int, int, int]]:
    """(what, comparisons, differences from native, differences of native from numpy)"""
    native, plain = native_backend(), backends.get("numpy")
    stream = torch.cuda.current_stream().cuda_stream
    rng = np.random.default_rng(0)
    for name, fmt in CANONICAL.items():
        compared = device_wrong = host_wrong = 0
        for container in CONTAINERS.values():
            if not container.holds(fmt):
                continue
            x = patterns(container, size, rng)
            given = on_device(x)
            here, few = np.empty_like(x), np.empty_like(x[:FEW])
            for mode in MODES:
                for overflow in Overflow:
                    params = lower(
                        fmt, parse_rounding(mode), parse_policy(overflow, fmt)[1], container
                    )
                    for key in KEYS if params.random_bits else (None,):
                        # an odd start address takes the element kernels
                        for skip in (0, 1) if mode in ("nearest_even", "stochastic:16") else (0,):
                            out = torch.empty_like(given)
                            _device.round_at(
                                given.data_ptr() + skip * x.itemsize,
                                out.data_ptr() + skip * x.itemsize,
                                size - skip, params, key, skip, stream,
                            )  # fmt: skip
                            native.round(x[skip:], here[skip:], params, key, skip)
                            there = out.cpu().numpy().view(x.dtype)
                            device_wrong += int((there[skip:] != here[skip:]).sum())
                            compared += size - skip
                    plain.round(x[:FEW], few, params, KEYS[-1] if params.random_bits else None, 0)
                    native.round(
                        x[:FEW], here[:FEW], params, KEYS[-1] if params.random_bits else None, 0
                    )
                    host_wrong += int((few != here[:FEW]).sum())
            params = lower(fmt, Rounding.NEAREST_EVEN, parse_policy(None, fmt)[1], container)
            native.round(x, here, params)
            codes = np.empty(size, code_dtype(fmt))
            native.encode(here, codes, params)
            made = torch.empty(size, dtype=TORCH[codes.itemsize], device="cuda")
            members = on_device(here)
            _device.encode_at(
                members.data_ptr(), made.data_ptr(), size, codes.itemsize, params, stream
            )
            device_wrong += int((made.cpu().numpy().view(codes.dtype) != codes).sum())
            back = torch.empty_like(given)
            _device.decode_at(
                made.data_ptr(), back.data_ptr(), size, codes.itemsize, params, stream
            )
            native.decode(codes, here, params)
            device_wrong += int((back.cpu().numpy().view(x.dtype) != here).sum())
            compared += 2 * size
        yield name, compared, device_wrong, host_wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log2-size", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start, wrong = time.perf_counter(), 0
    lines = [
        "# Agreement of the backends on a GPU",
        "",
        "Made by `python benchmarks/gpu_agreement.py`.",
        "",
        f"- {torch.cuda.get_device_name()}, torch {torch.__version__}; {time.strftime('%Y-%m-%d')}",
        "",
        "| format | results compared | cuda differs from native | native differs from numpy |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, compared, device_wrong, host_wrong in results(1 << options.log2_size):
        lines.append(f"| {name} | {compared:,} | {device_wrong} | {host_wrong} |")
        print(lines[-1], flush=True)
        wrong += device_wrong + host_wrong
    lines += ["", f"{wrong} differences, {time.perf_counter() - start:.0f} seconds."]
    print(lines[-1])
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
