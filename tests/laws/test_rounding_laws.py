"""Every law of rounding, on every backend.

Hypothesis draws the format, the dtype, the rounding, the policy and the key; values are drawn
relative to the format. The catalogue's formats, and some that are awkward, are checked whole.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fpemu
from fpemu.catalog import CANONICAL, parse
from fpemu.formats import Format, Specials
from fpemu.lowering import FLOAT64
from fpemu.rounding import PseudoNoise, Rounding, Stochastic
from fpemu.testing import Backend, check, containers, points
from fpemu.testing import strategies as fst
from fpemu.testing.laws import KEY, LAWS, POLICIES, ROUNDINGS

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

# Laws that choose their own inputs, or need many, run on `points`; they cost more.
ON_POINTS = {
    "any_shape_is_taken",
    "chunks_draw_as_the_whole",
    "codes_are_ordered",
    "decoding_is_exact",
    "elements_do_not_see_each_other",
    "encoding_undoes_decoding",
    "inclusion_means_exact_casts",
    "infinities_follow_the_policy",
    "keys_address_draws",
    "long_arrays_draw_by_index",
    "memory_layout_does_not_matter",
    "nan_is_encoded_or_refused",
    "nan_stays_nan",
    "overflow_follows_the_policy",
    "probability_is_exact",
    "shards_draw_as_the_whole",
    "slices_draw_as_the_whole",
    "threads_do_not_matter",
    "thresholds_are_sharp",
    "values_are_fixed_points",
    "zero_keeps_its_sign",
}
_FMT, _POLICY = parse("e4m3fn"), POLICIES[0]
SINGLE = sorted(
    name for name, law in LAWS.items() if any(law.applies(_FMT, r, _POLICY) for r in ROUNDINGS)
)
assert set(SINGLE) >= ON_POINTS


def settle(data: st.DataObject, name: str, max_bits: int = 16) -> dict[str, object]:
    """A format, rounding, policy and key under which the law says something."""
    law = LAWS[name]
    fmt = data.draw(fst.formats(max_bits=max_bits), label="fmt")
    policy = data.draw(fst.policies(), label="policy")
    modes = [mode for mode in ROUNDINGS if law.applies(fmt, mode, policy)]
    assume(modes)
    drawn = data.draw(fst.roundings(), label="rounding")
    rounding = drawn if law.applies(fmt, drawn, policy) else data.draw(st.sampled_from(modes))
    return {"fmt": fmt, "rounding": rounding, "policy": policy}


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in ON_POINTS])
@given(data=st.data())
def test_law_on_drawn_values(backend: str, name: str, data: st.DataObject) -> None:
    setting = settle(data, name)
    fmt = setting.pop("fmt")
    dtype = data.draw(fst.containers(fmt), label="dtype")
    x = data.draw(fst.arrays(fmt, dtype, shape=st.integers(1, 24)), label="x")
    key = data.draw(fst.keys(), label="key")
    LAWS[name].function(Backend(backend), fmt, x, key=key, **setting)


@pytest.mark.parametrize("name", sorted(ON_POINTS))
@settings(max_examples=max(settings.default.max_examples // 8, 5))
@given(data=st.data())
def test_law_on_points(backend: str, name: str, data: st.DataObject) -> None:
    setting = settle(data, name, max_bits=10)
    LAWS[name].function(Backend(backend), **setting)


AWKWARD = {
    "e0m1finite": "two magnitudes, no exponent",
    "e1m0finite": "one value and zero",
    "e3m0": "powers of two with infinities",
    "e4m0fn": "powers of two with one NaN",
    "e5m0_flush": "powers of two, flushed",
    "e4m3_flush": "no subnormals",
    "ue4m3b3fn_flush": "unsigned, no subnormals",
    "e4m3b-20fn": "all values huge",
    "e5m2b140": "normal where float32 is subnormal",
    "e8m3b200": "below float32's range",
    "e8m7b130": "deep in float32's subnormals",
    "ue6m1nozero": "no zero, with a mantissa",
    "binary3p1uf": "P3109's smallest",
    "binary8p1ue": "P3109, powers of two",
    "binary12p5se": "P3109 beyond a byte",
    "e11m4": "the range of float64",
}


def formats_to_check() -> list[Format]:
    named = [fmt for fmt in CANONICAL.values() if FLOAT64.holds(fmt)]
    return [*named, *(parse(spelling) for spelling in AWKWARD)]


@pytest.mark.parametrize("fmt", formats_to_check(), ids=str)
def test_all_laws_hold(backend: str, fmt: Format) -> None:
    """Every rounding with one policy and one dtype in turn; nightly with all of them."""
    dtypes = containers(fmt)
    ran: set[str] = set()
    turn = sum(map(ord, str(fmt)))
    for i, rounding in enumerate(ROUNDINGS, turn):
        for policy in POLICIES if NIGHTLY else POLICIES[i % 3 :][:1]:
            for dtype in dtypes if NIGHTLY else dtypes[i % len(dtypes) :][:1]:
                ran |= set(
                    check(Backend(backend), fmt, rounding=rounding, policy=policy, dtype=dtype)
                )
    left_out = set(SINGLE) - ran
    excused = {"zero_keeps_its_sign"} if fmt.specials is Specials.E8M0 else set()
    if not fmt.signed:
        excused |= {"rounding_is_odd", "directed_modes_mirror_each_other"}
    if fmt.bits > 16:
        excused |= {name for name in SINGLE if "table" in name}
        excused |= {"keys_address_draws", "probability_is_exact", "thresholds_are_sharp"}
    assert left_out <= excused


def test_thread_counts_do_not_matter() -> None:
    """The numba backend on one thread and on all of them: values, codes and draws."""
    numba = pytest.importorskip("numba")
    x = np.resize(points("e4m3fn", np.float32), 1_200_007)
    allowed = numba.get_num_threads()
    found = []
    try:
        for threads in {1, allowed}:
            numba.set_num_threads(threads)
            for rounding in (Rounding.NEAREST_EVEN, Stochastic(32), Stochastic(8), Stochastic(11)):
                codes = fpemu.encode(x, "e4m3fn", rounding=rounding, key=KEY, backend="numba")
                values = fpemu.quantize(x, "e4m3fn", rounding=rounding, key=KEY, backend="numba")
                found.append((threads, str(rounding), codes.tobytes(), values.tobytes()))
    finally:
        numba.set_num_threads(allowed)
    results = {(rounding, codes, values) for _, rounding, codes, values in found}
    assert len(results) == 4


def test_every_law_is_run_somewhere() -> None:
    noise = PseudoNoise(bits=4)
    elsewhere = {name for name, law in LAWS.items() if law.applies(_FMT, noise, _POLICY)}
    assert set(SINGLE) | elsewhere == set(LAWS)
    assert all(LAWS[name].applies(_FMT, Rounding.NEAREST_EVEN, _POLICY) for name in SINGLE[:1])
