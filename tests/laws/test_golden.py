"""The golden files: known answers of Philox, bits of stochastic rounding and noise, and blocks.

`tests/golden/make.py` writes them from the reference. That the files still are what it writes
pins the reference; that the backends give them pins the backends.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fpemu
from fpemu import Key, philox
from fpemu.blocks import BlockFormat
from fpemu.catalog import parse
from fpemu.quantized import compress
from fpemu.scales import ScaleMethod
from fpemu.testing import bits
from fpemu.testing._patterns import float_dtype, floats

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    assert content["contract"] == fpemu.CONTRACT
    return content


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STOCHASTIC, NOISE, PHILOX = load("stochastic.json"), load("noise.json"), load("philox.json")
BLOCKS = load("blocks.json")


def label(case: dict[str, Any]) -> str:
    return f"{case['format']}-{case['dtype']}-{case['rounding']}"


def lane_label(case: dict[str, Any]) -> str:
    key = case["key"]
    return f"{key['seed']:x}-{key['stream']:x}-{key['offset']:x}-{case['lane_bits']}"


def parsed(case: dict[str, Any], field: str) -> np.ndarray:
    patterns = np.array([int(text, 16) for text in case[field].split()], np.uint64)
    return floats(patterns, float_dtype(case["dtype"])).reshape(case.get("shape", -1))


@pytest.mark.parametrize("name", ["philox.json", "stochastic.json", "noise.json", "blocks.json"])
def test_files_are_what_the_reference_gives(name: str) -> None:
    made = script()
    assert (GOLDEN / name).read_text(encoding="utf-8") == made.text(made.files()[name])


@pytest.mark.parametrize("case", PHILOX["published"], ids=lambda case: case["counter"][:8])
def test_philox_known_answers(case: dict[str, str]) -> None:
    counter, key, words = (
        tuple(int(word, 16) for word in case[field].split())
        for field in ("counter", "key", "words")
    )
    assert philox.philox(counter, key) == words


def test_the_known_answers_are_the_published_ones() -> None:
    assert [case["words"] for case in PHILOX["published"]] == [
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ]


@pytest.mark.parametrize("case", PHILOX["lanes"], ids=lane_label)
def test_lanes(backend: str, case: dict[str, Any]) -> None:
    """The raw lanes of a backend."""
    expected = [int(text, 16) for text in case["lanes"].split()]
    out = np.empty(len(expected), f"u{case['lane_bits'] // 8}")
    fpemu.backends.get(backend).lanes(out, Key(**case["key"]))
    assert out.tolist() == expected
    tail = np.empty(len(expected) - 3, out.dtype)
    fpemu.backends.get(backend).lanes(tail, Key(**case["key"]), 3)
    assert tail.tolist() == expected[3:]


@pytest.mark.parametrize("case", STOCHASTIC["cases"], ids=label)
def test_stochastic_bits(backend: str, case: dict[str, Any]) -> None:
    x, fmt = parsed(case, "x"), parse(case["format"])  # mxint8 alone is a block format
    arguments = {
        "rounding": case["rounding"],
        "policy": case["policy"],
        "key": Key(**case["key"]),
        "backend": backend,
    }
    got = fpemu.quantize(x, fmt, **arguments)
    assert bits(got).tolist() == bits(parsed(case, "values")).tolist()
    expected = case["codes"].split()
    coded = np.array([code != "-" for code in expected])
    codes = fpemu.encode(np.where(coded, x, x.dtype.type(0)), fmt, **arguments)
    assert codes[coded].tolist() == [int(code, 16) for code in expected if code != "-"]


@pytest.mark.parametrize("case", NOISE["cases"], ids=label)
def test_noise_bits(backend: str, case: dict[str, Any]) -> None:
    got = fpemu.quantize(
        parsed(case, "x"),
        case["format"],
        rounding=case["rounding"],
        key=Key(**case["key"]),
        backend=backend,
    )
    assert bits(got).tolist() == bits(parsed(case, "values")).tolist()


@pytest.mark.parametrize("case", BLOCKS["cases"], ids=label)
def test_block_bits(backend: str, case: dict[str, Any]) -> None:
    """Values, scale codes and the outer scale, and what is read back from them."""
    x, expected = parsed(case, "x"), bits(parsed(case, "values")).tolist()
    arguments = {"rounding": case["rounding"], "key": Key(**case["key"]), "backend": backend}
    assert bits(fpemu.quantize(x, case["format"], **arguments)).tolist() == expected
    stored = compress(x, case["format"], **arguments)
    assert stored.scales is not None
    assert stored.scales.reshape(-1).tolist() == [int(code, 16) for code in case["scales"].split()]
    assert stored.outer == (None if case["outer"] is None else float.fromhex(case["outer"]))
    assert bits(stored.dequantize(backend=backend)).tolist() == expected


def test_every_rule_of_the_reference_has_a_golden_block() -> None:
    rules = {BlockFormat.parse(case["format"]).rule.method for case in BLOCKS["cases"]}
    searched = {ScaleMethod.MSE, ScaleMethod.OCTAV, ScaleMethod.QUEST}
    assert rules == set(ScaleMethod) - searched
