"""Speed on this machine's processor, as ratios to a plain copy taken in the same run.

    python benchmarks/cpu.py [--quick] [--peers] [--output docs/reports/cpu-speed.md]

A ratio is the time of ``np.copyto`` on the same array divided by the time of the call, both
measured one after the other, many times over; the median is reported. 1 is the speed of a copy.
All calls get `out` and run on one thread, unless the table says otherwise. The peers are timed
through what they offer; one that is not installed is named as absent.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fpemu

ROOT = Path(__file__).resolve().parents[1]
SMALL, LARGE = 1 << 20, 1 << 24
SEED = 0
Call = Callable[[], object]


class Case(NamedTuple):
    """A row: what is timed, and the copy it is held against."""

    name: str
    call: Call
    copy: Call


class Goal(NamedTuple):
    """The ratios asked for at 2^20 and 2^24."""

    small: float
    large: float


GOALS = {
    ("numba", "nearest"): Goal(0.80, 0.85),
    ("numba", "stochastic"): Goal(0.28, 0.42),
    ("numba", "stochastic:16"): Goal(0.38, 0.55),
    ("numba", "bfloat16"): Goal(0.45, 0.45),
    ("numba", "float64"): Goal(0.80, 0.80),
    ("numba", "blocks"): Goal(0.30, 0.30),
    ("numba", "compress"): Goal(0.25, 0.25),
    ("numba", "dequantize"): Goal(0.50, 0.50),
    ("numba", "hadamard"): Goal(0.15, 0.15),
    ("numpy", "nearest"): Goal(0.18, 0.22),
}


# -------------------------------------------------------------------- timing


def once(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratios(cases: Sequence[Case], seconds: float) -> dict[str, float]:
    """The median of copy time / call time per case, the cases taken in turn."""
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    spent = dict.fromkeys(found, 0.0)
    for case in cases:
        case.copy()
        case.call()
    while any(spent[name] < seconds or len(found[name]) < 3 for name in found):
        for case in cases:
            if spent[case.name] < seconds or len(found[case.name]) < 3:
                case.copy()  # so that the caches hold what they can for both
                copied, called = once(case.copy), once(case.call)
                found[case.name].append(copied / called)
                spent[case.name] += copied + called
    return {name: statistics.median(each) for name, each in found.items()}


def microseconds(call: Call, repeats: int) -> float:
    """The median time of a call, in rounds of 100."""
    call()
    rounds = [once(lambda: [call() for _ in range(100)]) / 100 for _ in range(repeats)]
    return 1e6 * statistics.median(rounds)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Numba's thread count, put back afterwards."""
    if not has("numba"):
        yield
        return
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(count, before))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def in_process(code: str, repeats: int = 1) -> list[float]:
    """What `code` prints as a number in fresh processes; the first one only warms caches."""
    results = []
    for _ in range(repeats + (repeats > 1)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        results.append(float(done.stdout.split()[-1]))
    return results[-repeats:]


# --------------------------------------------------------------------- cases


def data(size: int, dtype: str = "float32") -> np.ndarray:
    x = np.random.default_rng(SEED).standard_normal(size, dtype=np.float32)
    if dtype == "bfloat16":
        import ml_dtypes

        return x.astype(ml_dtypes.bfloat16)
    return x.astype(dtype)


def rounding_case(
    name: str, x: np.ndarray, out: np.ndarray, fmt: str, backend: str, **options: Any
) -> Case:
    """Copy and call share both arrays, so that caches favour neither."""
    return Case(
        name,
        lambda: fpemu.quantize(x, fmt, out=out, backend=backend, **options),
        lambda: np.copyto(out, x),
    )


def one_thread(size: int, backend: str) -> Iterator[tuple[str, Case]]:
    """(kind of goal, case) for the first table."""
    x = data(size)
    out = np.empty_like(x)

    def copy() -> None:
        np.copyto(out, x)

    for fmt in ("e4m3fn", "e5m2", "e3m2", "e2m1", "e4m7"):
        yield "nearest", rounding_case(f"nearest_even {fmt}", x, out, fmt, backend)
    mode = "toward_zero"
    yield "", rounding_case(f"{mode} e4m3fn", x, out, "e4m3fn", backend, rounding=mode)
    for mode in ("stochastic", "stochastic:16", "stochastic:8"):
        name = f"{mode} e4m3fn"
        yield mode, rounding_case(name, x, out, "e4m3fn", backend, rounding=mode, key=SEED)
    codes = fpemu.encode(x, "e4m3fn")
    into = np.empty_like(codes)

    def encode() -> None:
        fpemu.encode(x, "e4m3fn", out=into, backend=backend)

    def decode() -> None:
        fpemu.decode(codes, "e4m3fn", out=out, backend=backend)

    yield "", Case("encode e4m3fn, to uint8", encode, copy)
    yield "", Case("decode e4m3fn, to float32", decode, copy)
    yield from blocks(x, out, backend, copy)
    for dtype in ("bfloat16", "float16", "float64"):
        if dtype == "bfloat16" and not has("ml_dtypes"):
            continue
        y = data(size, dtype)
        name = f"nearest_even e4m3fn, {dtype}"
        yield dtype, rounding_case(name, y, np.empty_like(y), "e4m3fn", backend)


def blocks(x: np.ndarray, out: np.ndarray, backend: str, copy: Call) -> Iterator[tuple[str, Case]]:
    """Block formats, and the transform that goes before them."""
    for fmt in ("mxfp4", "nvfp4", "mxfp8"):
        yield "blocks", rounding_case(fmt, x, out, fmt, backend)
    mode = "stochastic:16"
    yield "", rounding_case(f"mxfp4 {mode}", x, out, "mxfp4", backend, rounding=mode, key=SEED)
    stored = fpemu.compress(x, "mxfp4", backend=backend)
    yield (
        "compress",
        Case("compress mxfp4", lambda: fpemu.compress(x, "mxfp4", backend=backend), copy),
    )
    yield "", Case("compress nvfp4", lambda: fpemu.compress(x, "nvfp4", backend=backend), copy)
    yield (
        "dequantize",
        Case("dequantize mxfp4", lambda: stored.dequantize(out=out, backend=backend), copy),
    )
    yield (
        "hadamard",
        Case("hadamard 128", lambda: fpemu.hadamard(x, 128, out=out, backend=backend), copy),
    )


def peers(size: int) -> tuple[list[Case], list[str]]:
    """Cases of the peers that are installed, and the names of those that are not."""
    x = data(size)
    out = np.empty_like(x)
    cases, absent = [], []

    def add(name: str, call: Call) -> None:
        cases.append(Case(name, call, lambda: np.copyto(out, x)))

    def offered(package: str) -> bool:
        if has(package):
            return True
        absent.append(package)
        return False

    if offered("ml_dtypes"):
        import ml_dtypes

        for dtype in ("float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"):
            add(f"ml_dtypes {dtype}", lambda d=dtype: x.astype(getattr(ml_dtypes, d)).astype("f4"))
    if offered("gfloat"):
        import gfloat
        from gfloat import formats

        nearest = gfloat.RoundMode.TiesToEven
        for fmt in ("e4m3", "e2m1"):
            info = getattr(formats, f"format_info_ocp_{fmt}")
            add(f"gfloat {fmt}", lambda i=info: gfloat.round_ndarray(i, x, nearest, sat=True))
        info = formats.format_info_ocp_e4m3
        stochastic = gfloat.RoundMode.Stochastic
        rng = np.random.default_rng(SEED)

        def draw() -> np.ndarray:
            return rng.integers(0, 1 << 32, size, dtype=np.int64)

        drawn = draw()
        add(
            "gfloat e4m3 stochastic, 32 bits",
            lambda: gfloat.round_ndarray(info, x, stochastic, True, draw(), 32),
        )
        add(
            "gfloat e4m3 stochastic, 32 bits drawn beforehand",
            lambda: gfloat.round_ndarray(info, x, stochastic, True, drawn, 32),
        )
    if offered("torch"):
        import torch

        torch.set_num_threads(1)
        tensor = torch.from_numpy(x)
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            add(f"{dtype}", lambda d=dtype: tensor.to(d).to(tensor.dtype))
    if has("torch") and offered("torchao"):
        import torch
        from torchao.prototype.mx_formats import mx_tensor

        rows = torch.from_numpy(x).reshape(-1, 1024)
        floor = mx_tensor.ScaleCalculationMode.FLOOR
        for name, dtype in (("MXFP4", torch.float4_e2m1fn_x2), ("MXFP8", torch.float8_e4m3fn)):

            def there_and_back(kind: Any = dtype) -> object:
                scales, codes = mx_tensor.to_mx(rows, kind, 32, floor)
                return mx_tensor.to_dtype(codes, scales, kind, 32, rows.dtype)

            add(f"torchao {name}, eager", there_and_back)
    if offered("qtorch"):
        import torch
        from qtorch.quant import float_quantize

        tensor = torch.from_numpy(x)
        add("qtorch e4m3", lambda: float_quantize(tensor, exp=4, man=3, rounding="nearest"))
        add(
            "qtorch e4m3 stochastic",
            lambda: float_quantize(tensor, exp=4, man=3, rounding="stochastic"),
        )
    if offered("pychop"):
        from pychop import Chop

        add("pychop e4m3", partial(Chop(exp_bits=4, sig_bits=3, rmode=1), x))
        add("pychop e4m3 stochastic", partial(Chop(exp_bits=4, sig_bits=3, rmode=5), x))
    return cases, absent


# -------------------------------------------------------------------- tables


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)] + [""]


def shown(ratio: float, goal: float | None) -> str:
    text = f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"
    if goal is None:
        return text
    return f"{text} (goal {goal:.2f})" if ratio >= goal else f"**{text}** (goal {goal:.2f})"


def main_table(backends: Sequence[str], seconds: float) -> Iterator[str]:
    yield "## One thread"
    yield ""
    yield (
        "Ratios to a copy of the input array (2^20 and 2^24 elements, float32 unless said "
        "otherwise, standard normal). In bold: below the goal. Where 2^20 elements stay in the "
        "cache the copy is several times faster than memory, and modes that are bound by "
        "arithmetic fall behind it."
    )
    yield ""
    columns: list[dict[str, str]] = []
    for backend in backends:
        for size in (SMALL, LARGE):
            cases = list(one_thread(size, backend))
            with threads(1):
                measured = ratios([case for _, case in cases], seconds)
            copied = statistics.median(once(cases[0][1].copy) for _ in range(31))
            column = {"the copy, million elements a second": f"{size / copied / 1e6:,.0f}"}
            for kind, case in cases:
                goal = GOALS.get((backend, kind))
                asked = None if goal is None else (goal.small if size == SMALL else goal.large)
                column[case.name] = shown(measured[case.name], asked)
            columns.append(column)
    head = ["", *(f"{b}, {s}" for b in backends for s in ("2^20", "2^24"))]
    names = list(columns[0])
    yield from table(head, ([name, *(column[name] for column in columns)] for name in names))


def threads_table(seconds: float) -> Iterator[str]:
    yield "## Two threads"
    yield ""
    x = data(LARGE)
    out = np.empty_like(x)
    rows = []
    for rounding in ("nearest_even", "stochastic"):

        def call(mode: str = rounding) -> object:
            return fpemu.quantize(x, "e4m3fn", rounding=mode, key=SEED, out=out, backend="numba")

        def alone(call: Call = call) -> None:
            with threads(1):
                call()

        def together(call: Call = call) -> None:
            with threads(2):
                call()

        gain = ratios([Case(rounding, together, alone)], 2 * seconds)[rounding]
        goal = 1.3 if rounding == "nearest_even" else None
        rows.append((f"{rounding} e4m3fn, numba, 2^24", shown(gain, goal)))
    yield from table(("", "two threads over one"), rows)


def calls_table(backends: Sequence[str], repeats: int) -> Iterator[str]:
    yield "## Small arrays"
    yield ""
    yield "Microseconds a call on 1,000 float32 elements, `out` given, format given as a spelling."
    yield ""
    x = data(1000)
    out = np.empty_like(x)
    rows = []
    for rounding in ("nearest_even", "stochastic"):
        cells = []
        for backend in backends:
            took = microseconds(
                lambda m=rounding, b=backend: fpemu.quantize(
                    x, "e4m3fn", rounding=m, key=SEED, out=out, backend=b
                ),
                repeats,
            )
            goal = {"numba": 15, "numpy": 60}[backend] if rounding == "nearest_even" else None
            late = goal is not None and took > goal
            cells.append(
                (f"**{took:.1f}**" if late else f"{took:.1f}") + (f" (goal {goal})" if goal else "")
            )
        rows.append((f"{rounding} e4m3fn", *cells))
    yield from table(("", *backends), rows)


IMPORT = """
import numpy, time
start = time.perf_counter()
import {package}
print(time.perf_counter() - start)
"""
FIRST_CALL = """
import numpy, time
x = numpy.ones(1000, "f4")
start = time.perf_counter()
import fpemu
fpemu.quantize(x, "e4m3fn", backend="{backend}")
print(time.perf_counter() - start)
"""
# The peak counts from a state in which both arrays are in memory and the code has run once.
PEAK = """
import resource
import numpy as np
import fpemu
x = np.empty({size}, "f4")
x[:] = 1.1
out = np.zeros_like(x)
out[:] = 0
options = dict(rounding="{rounding}", key=1, backend="{backend}")
small = np.ones(1000, "f4")
fpemu.quantize(small, "e4m3fn", out=small, **options)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fpemu.quantize(x, "e4m3fn", out=out, **options)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def start_table(backends: Sequence[str], repeats: int) -> Iterator[str]:
    yield "## Start and memory"
    yield ""

    def median(code: str) -> float:
        return statistics.median(in_process(code, repeats))

    rows = [("`import fpemu`, beyond NumPy's", f"{median(IMPORT.format(package='fpemu')):.3f} s",
             "0.15 s")]  # fmt: skip
    for backend in backends:
        took = median(FIRST_CALL.format(backend=backend))
        goal = "1 s" if backend == "numba" else ""
        rows.append((f"import and first {backend} call, caches warm", f"{took:.2f} s", goal))
    if "numba" in backends:
        rows.append(
            ("of which `import numba`", f"{median(IMPORT.format(package='numba')):.2f} s", "")
        )
    size = 1 << 28
    for backend in backends:
        for rounding in ("nearest_even", "stochastic"):
            code = PEAK.format(size=size, backend=backend, rounding=rounding)
            (extra,) = in_process(code)
            name = f"peak extra memory on 1 GiB, {backend}, {rounding}"
            rows.append((name, f"{extra:.1f} MiB", "16 MiB"))
    yield from table(("", "measured", "goal"), rows)


def peers_table(seconds: float) -> Iterator[str]:
    yield "## Peers"
    yield ""
    yield (
        "The same ratios, one thread, for the float32 round trip each library offers. Those that "
        "convert to a dtype of their own are timed there and back."
    )
    yield ""
    columns = []
    absent: list[str] = []
    for size in (SMALL, LARGE):
        cases, absent = peers(size)
        columns.append(ratios(cases, seconds))
    rows = [(name, *(shown(column[name], None) for column in columns)) for name in columns[0]]
    yield from table(("", "2^20", "2^24"), rows)
    if absent:
        yield f"Not installed here, so not timed: {', '.join(absent)}."
        yield ""


# -------------------------------------------------------------------- report


def machine() -> Iterator[str]:
    names = ("numpy", "numba", "ml_dtypes", "gfloat", "torch", "torchao", "qtorch", "pychop")
    versions = ", ".join(f"{name} {version(name)}" for name in names if has(name))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"- processor: {processor()}, {cores} cores usable"
    yield f"- Python {platform.python_version()}, {versions}"
    yield f"- fpemu {fpemu.__version__}, commit {commit()}; measured {time.strftime('%Y-%m-%d')}"
    yield ""


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    wide = "with" if "avx512f" in found.get("flags", "").split() else "without"
    return f"{found.get('model name', platform.machine())} {wide} AVX-512"


def commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    found = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{found} with changes" if git("status", "--porcelain", "fpemu") else found


def report(quick: bool, with_peers: bool) -> Iterator[str]:
    seconds, repeats = (0.2, 3) if quick else (2.0, 7)
    backends = [name for name in ("numba", "numpy") if name in fpemu.backends.available()]
    yield "# Speed on a processor"
    yield ""
    yield "Made by `python benchmarks/cpu.py`; see [README](README.md) for how to run it again."
    yield ""
    yield from machine()
    yield from main_table(backends, seconds)
    if "numba" in backends:
        yield from threads_table(seconds)
    yield from calls_table(backends, 5 * repeats)
    yield from start_table(backends, repeats)
    if with_peers:
        yield from peers_table(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less time, more noise")
    parser.add_argument("--peers", action="store_true", help="time other libraries, too")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    options = parser.parse_args()
    lines = []
    for line in report(options.quick, options.peers):
        print(line, flush=True)
        lines.append(line)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
