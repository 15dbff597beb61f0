"""Write the golden files beside this script, from the reference alone: python tests/golden/make.py

They pin what a key draws and what stochastic rounding and noise do with it, and blocks of every
scale rule. A change of any
number here changes the contract (`fpemu.CONTRACT`); a test compares the files with this script
and with every backend.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fpemu import CONTRACT, Format, Key, Policy, PseudoNoise, Stochastic
from fpemu.blocks import BlockFormat
from fpemu.catalog import parse
from fpemu.rounding import parse_rounding
from fpemu.testing import Reference, bits, draws, lanes, pseudo_round
from fpemu.testing._block_points import fill, largest_magnitudes
from fpemu.testing._block_quantizers import scales_by_definition, values_by_definition
from fpemu.testing._patterns import exact, float_dtype, floats, narrow
from fpemu.testing._points import magnitudes

HERE = Path(__file__).parent

# Salmon et al. (SC 2011), Random123's known answers for philox4x32-10: counter, key, words.
PUBLISHED = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
)  # fmt: skip

KEYS = (
    Key(0),
    Key(7),
    Key((1 << 64) - 1, (1 << 64) - 1),
    Key(0x0123456789ABCDEF, 0xFEDCBA9876543210),
    Key(7, 1, offset=(1 << 34) - 5),
    Key(7, offset=(1 << 64) - 6),
    Key(7, 2, 10, row_length=3, row_stride=1000),
    Key(7).child("layers.0.mlp.up", 41),
)
STOCHASTIC = (
    ("e4m3fn", "float32", "stochastic", None),
    ("e4m3fn", "float64", "stochastic", None),
    ("e4m3fn", "bfloat16", "stochastic:8", None),
    ("e5m2", "float32", "stochastic:16", None),
    ("e5m2", "float16", "stochastic:5:B", "sat_finite"),
    ("e2m1", "float32", "stochastic:8", None),
    ("e2m1", "bfloat16", "stochastic:1", None),
    ("e3m2", "float64", "stochastic:11:C", None),
    ("bf16", "float32", "stochastic:16", None),
    ("bf16", "float64", "stochastic:32:C", None),
    ("fp16", "float32", "stochastic:24:B", None),
    ("e8m0", "float32", "stochastic:8", "sat_none"),
    ("mxint8", "float32", "stochastic:12", None),
    ("binary8p4se", "float32", "stochastic:7:C", "sat_none"),
    ("e4m3fnuz", "float32", "stochastic:equal", "sat_none"),
    ("e3m0", "float32", "stochastic:9", None),
    ("e4m3_flush", "float32", "stochastic", None),
)
NOISE = (
    ("bf16", "bfloat16", "pseudo_gaussian:4:4x4", (9, 11)),
    ("bf16", "float32", "pseudo_gaussian:6.5:32x32", (9, 11)),
    ("fp32", "float32", "pseudo_gaussian:9:1x8", (64,)),
    ("fp32", "float32", "pseudo_normal:4:4x4", (9, 11)),
    ("fp32", "float32", "pseudo_uniform:4.3:4x4", (2, 5, 8)),
    ("e3m2", "float32", "pseudo_gaussian:4:2x8", (9, 11)),
    ("e4m3fn", "float16", "pseudo_uniform:5:3x3", (9, 11)),
    ("fp64", "float64", "pseudo_normal:11.7:8x8", (9, 11)),
    ("e4m3fn", "float32", "pseudo_gaussian:ulp", (64,)),
    ("bf16", "float32", "pseudo_normal:ulp", (64,)),
    ("e2m1", "float64", "pseudo_uniform:ulp", (64,)),
)

# One format for every rule that the reference defines, then stochastic blocks of the named ones.
BLOCKS = (
    ("e2m1[8,e8m0,floor]", "float32", "nearest_even", (3, 20)),
    ("e4m3fn[8,e8m0,ceil]", "float32", "nearest_even", (3, 20)),
    ("e4m3fn[8,e8m0,even]", "float32", "nearest_even", (3, 20)),
    ("e2m1[8,e8m0,rceil]", "float32", "nearest_even", (3, 20)),
    ("e2m1[8,e4m3fn,absmax]", "float32", "nearest_even", (3, 20)),
    ("e2m1[8,fp32,pow2_m1]", "float32", "nearest_even", (3, 20)),
    ("int8[8,fp32,pow2_m2]", "float32", "nearest_even", (3, 20)),
    ("e2m1[8,e8m0,four_thirds]", "float32", "nearest_even", (3, 20)),
    ("e2m1[8,e4m3fn,absmax,fp32]", "float64", "nearest_even", (3, 20)),
    ("e3m2[4x5,e5m3,absmax,bf16]", "float16", "to_odd", (6, 11)),
    ("mxfp4", "float32", "stochastic:8", (2, 70)),
    ("mxfp6_e3m2", "float32", "stochastic:16", (2, 70)),
    ("mxfp6_e2m3", "bfloat16", "stochastic:3:B", (2, 70)),
    ("mxfp8_e4m3", "float32", "stochastic", (2, 70)),
    ("mxfp8_e5m2", "float64", "stochastic:11:C", (2, 70)),
    ("mxint8", "float32", "stochastic:12", (2, 70)),
    ("nvfp4", "float32", "stochastic:8", (3, 37)),
    ("nvint4", "float16", "stochastic:equal", (3, 37)),
    ("bfp(6,16)", "float32", "stochastic:5", (3, 37)),
    ("e2m1[4x4,e8m0]", "float32", "stochastic:8", (2, 6, 9)),
    ("e4m3fn[channel,fp32]", "float32", "stochastic:16", (9, 7)),
    ("e2m1[tensor,bf16]", "float32", "stochastic:8", (9, 7)),
    ("hif8[16,e8m0]", "float32", "stochastic:8", (3, 37)),
)


def hexadecimal(values: np.ndarray, width: int) -> str:
    return " ".join(f"{int(v):0{width // 4}x}" for v in values.reshape(-1))


def fields(key: Key) -> dict[str, int | None]:
    return {name: getattr(key, name) for name in Key.__slots__}


def inputs(fmt: Format, dtype: str, count: int, label: str) -> np.ndarray:
    """Values between neighbours of `fmt` at random fractions; every eighth a raw pattern."""
    key = Key(2026).child("golden", label)
    code = lanes(key.child("code"), count, 32) % (fmt.max_code + 1)
    low, high = magnitudes(fmt, code), magnitudes(fmt, np.minimum(code + 1, fmt.max_code))
    share = lanes(key.child("fraction"), count, 32) / 2.0**32
    sign = 1 - 2 * (lanes(key.child("sign"), count, 8) & 1)
    with np.errstate(all="ignore"):
        x = narrow((low + (high - low) * share) * (sign if fmt.signed else 1), dtype)
    width = x.dtype.itemsize * 8
    words = lanes(key.child("raw"), 2 * count, 32).astype(np.uint64)
    raw = (words[::2] << np.uint64(32) | words[1::2]) >> np.uint64(64 - width)
    return np.where(np.arange(count) % 8 == 7, floats(raw, dtype), x)


def weights(dtype: str, count: int, label: str) -> np.ndarray:
    """Normal-looking weights: a sum of uniform ones, with a zero of each sign."""
    key = Key(2026).child("golden", label)
    sums = sum(lanes(key.child("term", n), count, 16) for n in range(4))
    x = (sums - 131070) / 2.0**18
    x[5], x[6] = 0.0, -0.0
    return narrow(x, dtype)


def philox_file() -> dict[str, Any]:
    return {
        "published": [{"counter": c, "key": k, "words": words} for c, k, words in PUBLISHED],
        "lanes": [
            {
                "key": fields(key),
                "lane_bits": width,
                "lanes": hexadecimal(np.array([key.lane(j, width) for j in range(20)]), width),
            }
            for key in KEYS
            for width in (8, 16, 32)
        ],
    }


def stochastic_cases() -> Iterator[dict[str, Any]]:
    for turn, (spelling, dtype, rounding, policy) in enumerate(STOCHASTIC):
        fmt, key, mode = parse(spelling), KEYS[turn % len(KEYS)], parse_rounding(rounding)
        assert isinstance(mode, Stochastic)
        x = inputs(fmt, dtype, 64, f"{spelling} {dtype} {rounding}")
        rules = Policy(policy)
        values = Reference.round(x, fmt, mode, rules, draws(key, x.size, mode))
        result = exact(values, x.dtype)
        yield {
            "format": spelling,
            "dtype": dtype,
            "rounding": rounding,
            "policy": policy,
            "key": fields(key),
            "x": hexadecimal(bits(x), x.dtype.itemsize * 8),
            "values": hexadecimal(bits(result), x.dtype.itemsize * 8),
            "codes": " ".join(_code(fmt, value) for value in values),
        }


def _code(fmt: Format, value: Any) -> str:
    """In hexadecimal, "-" for NaN in a format without NaN."""
    try:
        return f"{fmt.encode(value):x}"
    except ValueError:
        return "-"


def noise_cases() -> Iterator[dict[str, Any]]:
    for turn, (spelling, dtype, rounding, shape) in enumerate(NOISE):
        fmt, key, noise = parse(spelling), KEYS[turn % len(KEYS)], parse_rounding(rounding)
        assert isinstance(noise, PseudoNoise)
        x = weights(dtype, int(np.prod(shape)), f"{spelling} {dtype} {rounding}").reshape(shape)
        width = float_dtype(dtype).itemsize * 8
        yield {
            "format": spelling,
            "dtype": dtype,
            "rounding": rounding,
            "key": fields(key),
            "shape": list(shape),
            "x": hexadecimal(bits(x), width),
            "values": hexadecimal(bits(pseudo_round(x, fmt, noise, Policy(), key)), width),
        }


def block_cases() -> Iterator[dict[str, Any]]:
    for turn, (spelling, dtype, rounding, shape) in enumerate(BLOCKS):
        fmt, mode = BlockFormat.parse(spelling), parse_rounding(rounding)
        assert not isinstance(mode, PseudoNoise)
        key = KEYS[turn % 6]  # those without rows
        # One outer scale for all: keep to ordinary sizes, so that not all else is zero.
        tops = largest_magnitudes(fmt, dtype)
        if fmt.outer is not None:
            tops = weights(dtype, 16, spelling)
        x = fill(shape, fmt, np.abs(tops), turn=turn)
        width = float_dtype(dtype).itemsize * 8
        scales = scales_by_definition(x, fmt)
        assert fmt.scale is not None
        yield {
            "format": spelling,
            "dtype": dtype,
            "rounding": rounding,
            "key": fields(key),
            "shape": list(shape),
            "x": hexadecimal(bits(x), width),
            "scales": " ".join(f"{fmt.scale.encode(scale):x}" for scale in scales.each),
            "outer": None if scales.outer is None else float(scales.outer).hex(),
            "values": hexadecimal(bits(values_by_definition(x, fmt, mode, key)), width),
        }


def files() -> dict[str, dict[str, Any]]:
    """The contents of every golden file by its name."""
    return {
        "philox.json": {"contract": CONTRACT, **philox_file()},
        "stochastic.json": {"contract": CONTRACT, "cases": list(stochastic_cases())},
        "blocks.json": {"contract": CONTRACT, "cases": list(block_cases())},
        "noise.json": {"contract": CONTRACT, "cases": list(noise_cases())},
    }


def text(content: dict[str, Any]) -> str:
    """A golden file as it is written."""
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_text(text(content), encoding="utf-8")
