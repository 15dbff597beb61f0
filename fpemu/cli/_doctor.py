"""The command `fpemu doctor`: what is installed here, and whether it gives the right bits."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from rich.console import Console
from rich.text import Text

import fpemu
from fpemu import backends, reference
from fpemu.arrays import quantize
from fpemu.cli._console import table
from fpemu.lowering import FLOAT32

# Optional packages, and the extra that brings them.
EXTRAS = {
    "numba": "numba",
    "ml_dtypes": "interop",
    "safetensors": "cli",
    "typer": "cli",
    "rich": "cli",
    "matplotlib": "plot",
    "hypothesis": "test",
}
FORMATS = ("e4m3fn", "e5m2", "e2m1", "bf16")
ROUNDINGS = ("nearest_even", "toward_zero", "stochastic:16")
SEED = 1


def run(out: Console) -> bool:
    """Print the report; returns whether all is well."""
    out.print(Text("This machine", "bold"))
    for name, text in facts().items():
        out.print(f"  {name:<16}{text}")
    out.print()
    out.print(Text("Optional packages", "bold"))
    for name, extra in EXTRAS.items():
        found = _installed(name) or f"not installed; pip install 'fpemu[{extra}]'"
        out.print(f"  {name:<16}{found}")
    results = table("backend", "here", f"against the reference, {_cases():,} roundings")
    well = True
    for name in backends.names():
        reason = backends.why_not(name)
        if reason:
            results.add_row(name, "no", reason)
            continue
        difference = first_difference(name)
        well = well and difference is None
        verdict = Text("agrees", "green") if difference is None else Text(difference, "red")
        results.add_row(name, "yes", verdict)
    for column in results.columns[1:]:
        column.justify = "left"
    out.print()
    out.print(results)
    return well


def facts() -> dict[str, str]:
    """What decides bits and speed here."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "fpemu": f"{fpemu.__version__}, contract {fpemu.CONTRACT}",
        "python": f"{platform.python_version()} {platform.python_implementation()}",
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}, {sys.byteorder}-endian",
        "processors": f"{usable} usable of {os.cpu_count()}; numba threads {_numba_threads()}",
        "subnormals": _subnormals(),
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numba_threads() -> str:
    if backends.why_not("numba"):
        return "none"
    import numba

    return str(numba.get_num_threads())


def _subnormals() -> str:
    tiny = np.full(64, 2.0**-149, np.float32)
    if np.all(tiny * np.float32(1) == tiny):
        return "kept by the processor"
    return "flushed to zero in this process; fpemu's integer paths keep them"


def _values() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Special patterns, random ones over all binades, and ones near 1 with many ties."""
    patterns = np.random.default_rng(SEED).integers(0, 1 << 32, 500, dtype=np.uint32)
    special = [0, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
    patterns[: 2 * len(special)] = special + [pattern | 1 << 31 for pattern in special]
    # Exponents near 1, where the small formats are; in the last hundred few mantissa bits, too.
    patterns[300:] = patterns[300:] & np.uint32(0x87FFFFFF) | np.uint32(0x3C000000)
    patterns[400:] &= np.uint32(0xFFF80000)
    return patterns.view(np.float32)


def _cases() -> int:
    return len(FORMATS) * len(ROUNDINGS) * _values().size


def first_difference(backend: str) -> str | None:
    """Where `backend` departs from the reference, None if nowhere."""
    values = _values()
    for fmt in FORMATS:
        for rounding in ROUNDINGS:
            got = quantize(values, fmt, rounding=rounding, key=SEED, backend=backend)
            for index, (x, q) in enumerate(zip(values, got.view(np.uint32), strict=True)):
                exact = reference.quantize_scalar(
                    float(x), fmt, rounding=rounding, key=SEED, index=index
                )
                if int(q) != FLOAT32.pattern(exact):
                    return f"differs: {float(x)!r} to {fmt}, {rounding}"
    return None
