"""All formats up to 8 bits, whole: every code, every midpoint, what lies next to them, the edges.

Two independent definitions meet here: `fpemu.reference` (Fractions) and the table of
`fpemu.testing.oracle` (a search). Then every backend meets the table, in every mode and policy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
import pytest

from fpemu.catalog import CANONICAL
from fpemu.formats import Format, Specials, Subnormals
from fpemu.lowering import FLOAT64
from fpemu.policy import Overflow, Policy
from fpemu.rounding import Rounding
from fpemu.testing import Backend, Reference, Table, bits, containers, points, table
from fpemu.testing._patterns import exact, narrow
from fpemu.testing.oracle import NO_CODE

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
MAX_BITS = 8
SHARDS = 24
POLICIES = tuple(Policy(overflow) for overflow in Overflow)
# Added to the default bias of every fifth format.
ODD_BIASES = (-3, 9, 130, -140)


@lru_cache(maxsize=1)
def small_formats() -> tuple[Format, ...]:
    """Every format of up to 8 bits with its default bias, and some with another."""
    named = [fmt for fmt in CANONICAL.values() if fmt.bits <= MAX_BITS]
    return tuple(dict.fromkeys([*_small_formats(), *named]))


def _small_formats() -> Iterator[Format]:
    fields = product(range(MAX_BITS + 1), range(MAX_BITS + 1), (True, False), Specials, Subnormals)
    count = 0
    for e, m, signed, specials, subnormals in fields:
        if not 1 <= e + m + signed <= MAX_BITS:
            continue
        try:
            fmt = Format(e, m, None, signed, specials, subnormals)
        except ValueError:  # a combination without meaning, or without a value
            continue
        yield fmt
        count += 1
        if count % 5 == 0 and not specials.is_p3109:
            other = ODD_BIASES[count // 5 % len(ODD_BIASES)]
            yield Format(e, m, fmt.bias + other, signed, specials, subnormals)


def test_the_sweep_has_every_family() -> None:
    formats = small_formats()
    assert len(formats) > 700
    assert all(Table.covers(fmt) and FLOAT64.holds(fmt) for fmt in formats)
    for family in Specials:
        assert any(fmt.specials is family for fmt in formats), family
    # P3109 says how many formats there are: K = 3..8, signed 1 <= P < K, unsigned 1 <= P <= K.
    p3109 = [fmt for fmt in formats if fmt.specials.is_p3109]
    assert len(p3109) == sum(2 * (k - 1) + 2 * k for k in range(3, 9))


@pytest.mark.parametrize("fmt", [f for f in CANONICAL.values() if f.bits <= MAX_BITS], ids=str)
def test_table_agrees_with_the_reference_on_the_catalogue(fmt: Format) -> None:
    _compare_definitions(fmt, every=1)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_table_agrees_with_the_reference(shard: int) -> None:
    """Every point in the nightly run; a few of every format otherwise."""
    for fmt in small_formats()[shard::SHARDS]:
        _compare_definitions(fmt, every=1 if NIGHTLY else 41)


def _compare_definitions(fmt: Format, every: int) -> None:
    """All modes on all points with one policy, and the other policies on points further apart."""
    dtype = containers(fmt)[-2 if len(containers(fmt)) > 1 else -1]
    for i, rounding in enumerate(Rounding):
        for j, policy in enumerate(POLICIES):
            step = every if NIGHTLY or (i + j) % 3 == 0 else 7 * every
            x = points(fmt, dtype)[(i + j) % step :: step]
            expected = exact(Reference.round(x, fmt, rounding, policy, None), dtype)
            found = table(fmt).round(x, rounding, policy)
            wrong = np.flatnonzero(bits(narrow(found.values, dtype)) != bits(expected))
            assert not wrong.size, (str(fmt), rounding, policy, x[wrong[:1]])


@pytest.mark.parametrize("shard", range(SHARDS))
def test_backend_agrees_with_the_table(backend: str, shard: int) -> None:
    """Values and codes, in every mode and policy; dtypes take turns, nightly all of them."""
    quantizer = Backend(backend)
    for turn, fmt in enumerate(small_formats()[shard::SHARDS], shard):
        dtypes = containers(fmt)
        for dtype in dtypes if NIGHTLY else [dtypes[turn % len(dtypes)]]:
            _compare_backend(quantizer, fmt, points(fmt, dtype))


def _compare_backend(quantizer: Backend, fmt: Format, x: np.ndarray) -> None:
    for rounding, policy in product(Rounding, POLICIES):
        expected = table(fmt).round(x, rounding, policy)
        got = quantizer.quantize(x, fmt, rounding, policy, None)
        wrong = np.flatnonzero(bits(got) != bits(narrow(expected.values, x.dtype)))
        assert not wrong.size, (
            str(fmt), x.dtype, rounding, policy, x[wrong[0]], got[wrong[0]],
            expected.values[wrong[0]],
        )  # fmt: skip
        coded = expected.codes != NO_CODE
        codes = quantizer.encode(x[coded], fmt, rounding, policy, None)
        wrong = np.flatnonzero(codes != expected.codes[coded])
        assert not wrong.size, (
            str(fmt), x.dtype, rounding, policy, x[coded][wrong[0]], codes[wrong[0]],
            expected.codes[coded][wrong[0]],
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("fmt", [f for f in CANONICAL.values() if f.bits <= 16], ids=str)
def test_every_half_precision_input(backend: str, fmt: Format, dtype: str) -> None:
    """All 65536 patterns of a 16-bit dtype, in every mode; nightly with every policy."""
    if dtype not in [found.name for found in containers(fmt)]:
        return
    x = np.arange(1 << 16, dtype=np.uint16).view(
        next(found for found in containers(fmt) if found.name == dtype)
    )
    for i, rounding in enumerate(Rounding):
        for policy in POLICIES if NIGHTLY else POLICIES[i % 3 :][:1]:
            expected = table(fmt).round(x, rounding, policy)
            got = Backend(backend).quantize(x, fmt, rounding, policy, None)
            wrong = np.flatnonzero(bits(got) != bits(narrow(expected.values, x.dtype)))
            assert not wrong.size, (rounding, policy, x[wrong[:1]], got[wrong[:1]])
