"""The laws must be able to fail: deliberately wrong quantizers, each caught by a law it breaks.

Every one is a mistake that some library has made or could make. A case names the law that must
catch it, under one rounding, policy and dtype; together the cases name every law there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fpemu.catalog import parse
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, Stochastic, Variant, parse_rounding
from fpemu.testing import LawViolation, Reference, Tabulated, check, draws, lanes, violations
from fpemu.testing._patterns import bits, flip, floats, narrow, widen
from fpemu.testing._pseudo import pseudo_round
from fpemu.testing.laws import LAWS, ROUNDINGS
from fpemu.testing.oracle import table

Array = Any
Quantize = Callable[[Array, Format, Descriptor, Policy, Key], Array]

right: Quantize = Tabulated().quantize


@dataclass
class Wrong:
    """A quantizer that is nothing but a function."""

    quantize: Quantize


# ------------------------------------------------------------------------ values


def ties_away(x, fmt, rounding, policy, key):
    return right(x, fmt, Rounding.NEAREST_AWAY, policy, key)


def ties_upward(x, fmt, rounding, policy, key):
    """floor(x + 1/2): ties of negatives go toward zero."""
    positive = right(x, fmt, Rounding.NEAREST_AWAY, policy, key)
    return np.where(widen(x) < 0, right(x, fmt, Rounding.NEAREST_ZERO, policy, key), positive)


def half_added(x, fmt, rounding, policy, key):
    """Steps plus 0.5, then floor, all in float32: 0.49999997 + 0.5 is 1."""
    quantum = np.float32(fmt.smallest_positive)
    with np.errstate(all="ignore"):
        steps = np.abs(x).astype(np.float32) / quantum
        rounded = np.copysign(np.floor(steps + np.float32(0.5)) * quantum, x)
        small = steps < 2
    return np.where(small, rounded.astype(x.dtype), right(x, fmt, rounding, policy, key))


def near_ties_are_ties(x, fmt, rounding, policy, key):
    """A tie is detected by a difference below 1e-6."""
    wide = widen(x)
    ladder = table(fmt).positive
    with np.errstate(invalid="ignore"):
        at = np.clip(ladder.locate(np.abs(np.nan_to_num(wide))).rung, 0, ladder.beyond - 1)
        middle = ladder.middles[at]
        near = np.abs(np.abs(wide) - middle) < 1e-6 * middle
    wide = np.where(near, np.copysign(middle, wide), wide)
    return right(narrow(wide, x.dtype), fmt, rounding, policy, key)


def parity_of_the_significand(x, fmt, rounding, policy, key):
    """Without mantissa bits every significand is 1 and its parity says nothing: ties go down."""
    return right(x, fmt, Rounding.NEAREST_ZERO, policy, key)


def exponent_by_log2(x, fmt, rounding, policy, key):
    """The exponent of the float just below 2**k comes out as k."""
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.abs(x).astype(np.float32))).astype(np.float64)
        quantum = np.exp2(np.maximum(exponent, fmt.emin) - fmt.mantissa_bits)
        truncated = np.trunc(widen(x) / quantum) * quantum
        top = float(fmt.max_value)
        inside = np.isfinite(exponent) & (np.abs(truncated) <= top) & (np.abs(widen(x)) <= top)
    found = narrow(np.where(inside, np.copysign(truncated, widen(x)), 0.0), x.dtype)
    return np.where(inside, found, right(x, fmt, rounding, policy, key))


def through(dtype) -> Quantize:
    """Rounded to a narrower dtype first."""

    def quantize(x, fmt, rounding, policy, key):
        with np.errstate(all="ignore"):
            return right(x.astype(dtype).astype(x.dtype), fmt, rounding, policy, key)

    return quantize


def flushed_results(x, fmt, rounding, policy, key):
    got = right(x, fmt, rounding, policy, key)
    tiny = np.abs(widen(got)) < float(fmt.min_normal)
    return np.where(tiny, np.copysign(got.dtype.type(0), got), got)


def flushed_inputs(x, fmt, rounding, policy, key):
    tiny = (np.abs(widen(x)) < float(np.finfo(x.dtype).tiny)) & ~np.isnan(x)
    return right(np.where(tiny, np.copysign(x.dtype.type(0), x), x), fmt, rounding, policy, key)


def minus_zero_lost(x, fmt, rounding, policy, key):
    got = right(x, fmt, rounding, policy, key)
    return np.where(got == 0, got.dtype.type(0), got)


def tiny_negatives_lose_their_sign(x, fmt, rounding, policy, key):
    got = right(x, fmt, rounding, policy, key)
    return np.where((got == 0) & (x != 0), got.dtype.type(0), got)


def overflow_at_the_tie(x, fmt, rounding, policy, key):
    """The threshold compared with >= although the largest code is even."""
    half = float(2.0 ** (fmt.step_exponent(fmt.max_value) - 1))
    at_tie = np.abs(widen(x)) == float(fmt.max_value) + half
    return np.where(at_tie, x.dtype.type(np.nan), right(x, fmt, rounding, policy, key))


def overflow_a_step_late(x, fmt, rounding, policy, key):
    top, step = float(fmt.max_value), float(2.0 ** fmt.step_exponent(fmt.max_value))
    size = np.abs(widen(x))
    clamped = narrow(np.copysign(top, widen(x)), x.dtype)
    late = (size > top) & (size < top + step)
    return np.where(late, clamped, right(x, fmt, rounding, policy, key))


def always_saturates(x, fmt, rounding, policy, key):
    return right(x, fmt, rounding, Policy("sat_finite"), key)


def infinity_kept(x, fmt, rounding, policy, key):
    return np.where(np.isinf(widen(x)), x, right(x, fmt, rounding, policy, key))


def zero_beyond_the_range(x, fmt, rounding, policy, key):
    beyond = np.abs(widen(x)) > float(fmt.max_value)
    return np.where(beyond, x.dtype.type(0), right(x, fmt, rounding, policy, key))


def lowest_left_out(x, fmt, rounding, policy, key):
    """Symmetric two's complement: -2**k is never used."""
    got = right(x, fmt, rounding, policy, key)
    return np.where(widen(got) == float(fmt.lowest_value), -got.dtype.type(fmt.max_value), got)


def underflow_to_zero(x, fmt, rounding, policy, key):
    """In a format without zero."""
    small = (widen(x) > 0) & (widen(x) < float(fmt.smallest_positive))
    return np.where(small, x.dtype.type(0), right(x, fmt, rounding, policy, key))


def nan_kept_as_it_is(x, fmt, rounding, policy, key):
    nan = np.isnan(x)
    return floats(np.where(nan, bits(x), bits(right(x, fmt, rounding, policy, key))), x.dtype)


def nan_saturates(x, fmt, rounding, policy, key):
    return np.where(np.isnan(x), x.dtype.type(fmt.max_value), right(x, fmt, rounding, policy, key))


def nan_loses_only_its_sign(x, fmt, rounding, policy, key):
    nan = np.isnan(x) & ~np.signbit(x)
    return floats(np.where(nan, bits(x), bits(right(x, fmt, rounding, policy, key))), x.dtype)


def odd_always(x, fmt, rounding, policy, key):
    """Rounding to odd that moves exact even values too."""
    got = right(x, fmt, rounding, policy, key)
    even = (got == x) & (np.abs(widen(got)) == 1)
    return np.where(even, got + np.copysign(x.dtype.type(fmt.eps), got), got)


def up_is_away(x, fmt, rounding, policy, key):
    """Rounding up the magnitude, whatever the sign."""
    up = rounding is Rounding.TOWARD_POSITIVE
    size = right(np.abs(x), fmt, Rounding.TOWARD_POSITIVE if up else rounding, policy, key)
    return np.where(np.isnan(x), size, np.copysign(size, x))


def drifts(x, fmt, rounding, policy, key):
    """Each rounding moves values above 1 on by a step."""
    got = right(x, fmt, rounding, policy, key)
    return np.where((got >= 1) & (got < 1.5), got + x.dtype.type(fmt.eps), got)


# ------------------------------------------------------------------------- draws


def with_draws(change: Callable[[Array, Key, Stochastic], Array]) -> Quantize:
    """Right but for the draws."""

    def quantize(x, fmt, rounding, policy, key):
        drawn = change(x, key, rounding).reshape(x.shape)
        return narrow(table(fmt).round(x, rounding, policy, drawn).values, x.dtype)

    return quantize


def with_key(change: Callable[[Key], Key]) -> Quantize:
    """Right but for the key."""
    return lambda x, fmt, rounding, policy, key: right(x, fmt, rounding, policy, change(key))


def in_memory_order(x, key, rounding):
    drawn = draws(key, x.size, rounding)
    if x.flags.c_contiguous or x.ndim < 2:
        return drawn
    order = np.argsort(np.argsort([-stride for stride in x.strides]))
    walked = np.arange(x.size).reshape([x.shape[a] for a in np.argsort([-s for s in x.strides])])
    return drawn[np.transpose(walked, order)]


def in_pieces_of_their_own(x, key, rounding):
    """Every 2**15 elements start again."""
    return np.resize(draws(key, 1 << 15, rounding), x.size)


def top_bit_reused(x, key, rounding):
    drawn = draws(key, x.size, rounding)
    return drawn & ~1 | drawn >> (rounding.bits - 1)


def subnormals_to_nearest(x, fmt, rounding, policy, key):
    small = np.abs(widen(x)) < float(fmt.min_normal)
    nearest = right(x, fmt, Rounding.NEAREST_EVEN, policy, key)
    return np.where(small, nearest, right(x, fmt, rounding, policy, key))


def another_variant(x, fmt, rounding, policy, key):
    return right(x, fmt, replace(rounding, variant=Variant.A), policy, key)


def exact_values_move(x, fmt, rounding, policy, key):
    """The threshold is one draw too low, so that a draw of all ones takes exact values away."""
    drawn = draws(key, x.size, rounding).reshape(x.shape)
    got = right(x, fmt, rounding, policy, key)
    ones = (drawn == (1 << rounding.bits) - 1) & (got == x) & (np.abs(widen(x)) == 1)
    return np.where(ones, got + np.copysign(x.dtype.type(fmt.eps), got), got)


# ----------------------------------------------------------------- shape and memory


def changes_its_input(x, fmt, rounding, policy, key):
    got = right(x, fmt, rounding, policy, key)
    if x.flags.writeable and x.size:
        x.reshape(-1)[:] = got.reshape(-1)
    return got


def returns_its_input(x, fmt, rounding, policy, key):
    return x


def at_least_one_dimension(x, fmt, rounding, policy, key):
    return np.atleast_1d(right(x, fmt, rounding, policy, key))


def only_whole_pieces(x, fmt, rounding, policy, key):
    """What is left after pieces of 2**16 is not rounded."""
    got = right(x, fmt, rounding, policy, key).reshape(-1)
    done = x.size >> 16 << 16
    if done:
        got[done - 5 : done] = x.reshape(-1)[done - 5 : done]
    return got.reshape(x.shape)


def scaled_by_the_maximum(x, fmt, rounding, policy, key):
    """One NaN in the array spoils every element."""
    got = right(x, fmt, rounding, policy, key)
    return np.full_like(got, np.nan) if x.size > 900 and np.isnan(x).mean() > 0.5 else got


def memory_as_it_lies(x, fmt, rounding, policy, key):
    """Strides are taken for those of a C-order array."""
    flat = right(x, fmt, rounding, policy, key)
    if x.ndim < 2 or x.flags.c_contiguous or x.strides[0] < 0:
        return flat
    return np.ascontiguousarray(flat.T).reshape(x.shape)


class Forgetful:
    """Every call goes its own way."""

    calls = 0

    def quantize(self, x, fmt, rounding, policy, key):
        self.calls += 1
        mode = Rounding.NEAREST_EVEN if self.calls % 2 else Rounding.NEAREST_AWAY
        return right(x, fmt, mode, policy, key)


class SharedScratch:
    """Results pass through one buffer that all threads write to."""

    def quantize(self, x, fmt, rounding, policy, key):
        self.scratch = right(x, fmt, rounding, policy, key)
        if x.size > 1 << 16:
            time.sleep(0.02)
        return self.scratch.copy()


# ------------------------------------------------------------------------- codes


class EncodeDrawsElsewhere(Tabulated):
    def encode(self, x, fmt, rounding, policy, key):
        return super().encode(x, fmt, rounding, policy, key.child("encode"))


class NanBecomesZero(Tabulated):
    def encode(self, x, fmt, rounding, policy, key):
        return super().encode(np.where(np.isnan(x), x.dtype.type(0), x), fmt, rounding, policy, key)


class NanCodeKeepsItsSign(Tabulated):
    def encode(self, x, fmt, rounding, policy, key):
        codes = super().encode(x, fmt, rounding, policy, key)
        negative = np.isnan(x) & np.signbit(x)
        return np.where(negative, codes | np.uint64(1 << (fmt.bits - 1)), codes)


class MinusZeroDecodesToZero(Tabulated):
    def decode(self, codes, fmt, dtype):
        values = super().decode(codes, fmt, dtype)
        return np.where(values == 0, values.dtype.type(0), values)


class EncodesByTruncating(Tabulated):
    def encode(self, x, fmt, rounding, policy, key):
        return super().encode(x, fmt, Rounding.TOWARD_ZERO, policy, key)


class SignBitsLost(Tabulated):
    def encode(self, x, fmt, rounding, policy, key):
        return super().encode(x, fmt, rounding, policy, key) & np.uint64((1 << fmt.bits - 1) - 1)


class CodesSwapped(Tabulated):
    """Two neighbouring codes exchanged, in both directions."""

    def _swap(self, codes):
        return np.where(codes == 3, 4, np.where(codes == 4, 3, codes)).astype(codes.dtype)

    def encode(self, x, fmt, rounding, policy, key):
        return self._swap(super().encode(x, fmt, rounding, policy, key))

    def decode(self, codes, fmt, dtype):
        return super().decode(self._swap(codes), fmt, dtype)


# ------------------------------------------------------------------------- noise


def noise(x, fmt, rounding, policy, key):
    """The exact reference, and the cast where a law asks for it."""
    if not isinstance(rounding, PseudoNoise):
        return right(x, fmt, rounding, policy, key)
    return pseudo_round(x, fmt, rounding, policy, key)


def zero_noise_is_added(x, fmt, rounding, policy, key):
    got = noise(x, fmt, rounding, policy, key)
    return np.where((got == 0) & isinstance(rounding, PseudoNoise), got.dtype.type(0), got)


def one_block(x, fmt, rounding, policy, key):
    """The maximum of the whole tensor, not of each block."""
    if isinstance(rounding, PseudoNoise) and x.ndim == 2:
        rounding = replace(rounding, block=x.shape)
    return noise(x, fmt, rounding, policy, key)


def steps_have_a_floor(x, fmt, rounding, policy, key):
    """A maximum of zero is replaced by a constant, as against division by zero."""
    if isinstance(rounding, PseudoNoise) and x.size and not np.any(x):
        return noise(np.ones_like(x), fmt, rounding, policy, key) - x.dtype.type(1)
    return noise(x, fmt, rounding, policy, key)


def half_a_step(x, fmt, rounding, policy, key):
    """2**-bits instead of 2**(1 - bits)."""
    if isinstance(rounding, PseudoNoise):
        rounding = replace(rounding, bits=rounding.bits + 1)
    return noise(x, fmt, rounding, policy, key)


def noise_ignores_the_offset(x, fmt, rounding, policy, key):
    return noise(x, fmt, rounding, policy, replace(key, offset=0))


def noise_in_memory_order(x, fmt, rounding, policy, key):
    if x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous:
        turned = replace(rounding, block=rounding.block[::-1])
        return noise(x.T, fmt, turned, policy, key).T
    return noise(x, fmt, rounding, policy, key)


def noise_on_top_of_the_cast(x, fmt, rounding, policy, key):
    """The cast comes first, then the noise, then no cast."""
    cast = right(x, fmt, Rounding.NEAREST_EVEN, policy, key)
    return noise(cast, fmt, rounding, policy, key)


# ------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    quantizer: Any
    caught_by: str
    fmt: str = "e4m3fn"
    rounding: str = "nearest_even"
    policy: str = "sat_none"
    dtype: str = "float32"

    def __str__(self) -> str:
        name = getattr(self.quantizer, "__name__", type(self.quantizer).__name__)
        return f"{name}-{self.caught_by}-{self.fmt}-{self.rounding}"

    def options(self) -> dict[str, Any]:
        return {"rounding": self.rounding, "policy": self.policy, "dtype": self.dtype}

    def build(self) -> Any:
        is_function = callable(self.quantizer) and not isinstance(self.quantizer, type)
        return Wrong(self.quantizer) if is_function else self.quantizer()


S8, S32 = "stochastic:8", "stochastic"
MASK32 = (1 << 32) - 1


def named(name: str, quantizer: Quantize) -> Quantize:
    quantizer.__name__ = name
    return quantizer


CASES = [
    # values
    Case(ties_away, "nearest_is_nearest"),
    Case(ties_away, "agrees_with_the_reference", "e2m1"),
    Case(ties_upward, "rounding_is_odd", rounding="nearest_away"),
    Case(half_added, "nearest_is_nearest", rounding="nearest_away"),
    Case(near_ties_are_ties, "nearest_is_nearest"),
    Case(parity_of_the_significand, "nearest_is_nearest", "e3m0"),
    Case(parity_of_the_significand, "agrees_with_the_table", "e8m0"),
    Case(exponent_by_log2, "rounding_is_faithful", rounding="toward_zero"),
    Case(named("through_float32", through(np.float32)), "nearest_is_nearest", dtype="float64"),
    Case(named("through_float16", through(np.float16)), "nearest_is_nearest", "e5m2"),
    Case(named("through_float32", through(np.float32)), "agrees_with_the_table",
         rounding="toward_positive", dtype="float64"),
    Case(flushed_results, "values_are_fixed_points"),
    Case(flushed_results, "inclusion_means_exact_casts", "fp16"),
    Case(flushed_inputs, "values_are_fixed_points", "bf16"),
    Case(flushed_inputs, "agrees_with_the_table", rounding="toward_positive"),
    Case(minus_zero_lost, "zero_keeps_its_sign"),
    Case(tiny_negatives_lose_their_sign, "zero_keeps_its_sign"),
    Case(overflow_at_the_tie, "overflow_follows_the_policy"),
    Case(overflow_a_step_late, "overflow_follows_the_policy"),
    Case(overflow_a_step_late, "overflow_follows_the_policy", "e5m2", "toward_negative"),
    Case(always_saturates, "infinities_follow_the_policy", "e5m2"),
    Case(always_saturates, "overflow_follows_the_policy"),
    Case(infinity_kept, "results_are_values", "e2m1"),
    Case(zero_beyond_the_range, "rounding_is_monotone", "e5m2"),
    Case(lowest_left_out, "values_are_fixed_points", "int4"),
    Case(underflow_to_zero, "results_are_values", "e8m0"),
    Case(nan_kept_as_it_is, "nan_stays_nan"),
    Case(nan_loses_only_its_sign, "nan_stays_nan"),
    Case(nan_saturates, "nan_stays_nan"),
    Case(odd_always, "values_are_fixed_points", rounding="to_odd"),
    Case(up_is_away, "directed_modes_mirror_each_other", rounding="toward_positive"),
    Case(drifts, "rounding_is_idempotent", rounding="toward_zero"),
    # draws
    Case(named("biased_by_one", with_draws(lambda x, k, r: draws(k, x.size, r) + 1)),
         "probability_is_exact", rounding=S8),
    Case(named("one_draw_for_all", with_draws(lambda x, k, r: np.full(x.size, draws(k, 1, r)[0]))),
         "keys_address_draws", rounding=S8),
    Case(named("one_draw_for_all", with_draws(lambda x, k, r: np.full(x.size, draws(k, 1, r)[0]))),
         "probability_is_exact", rounding="stochastic:3"),
    Case(named("low_bits", with_draws(
        lambda x, k, r: lanes(k, x.size, r.lane_bits) & ((1 << r.bits) - 1))),
         "thresholds_are_sharp", rounding="stochastic:20"),
    Case(named("wide_lanes", with_draws(lambda x, k, r: lanes(k, x.size, 32) >> (32 - r.bits))),
         "thresholds_are_sharp", rounding=S8),
    Case(named("one_bit_fewer", with_draws(lambda x, k, r: draws(k, x.size, r) & ~1)),
         "thresholds_are_sharp", rounding=S8),
    Case(named("top_bit_reused", with_draws(top_bit_reused)), "probability_is_exact",
         rounding="stochastic:5"),
    Case(named("memory_order", with_draws(in_memory_order)), "memory_layout_does_not_matter",
         rounding=S8),
    Case(named("pieces_of_their_own", with_draws(in_pieces_of_their_own)),
         "long_arrays_draw_by_index", rounding=S8),
    Case(named("no_offset", with_key(lambda k: replace(k, offset=0))),
         "slices_draw_as_the_whole", rounding=S8),
    Case(named("offset_by_blocks", with_key(lambda k: replace(k, offset=k.offset & ~3))),
         "chunks_draw_as_the_whole", rounding=S32),
    Case(named("no_rows", with_key(lambda k: Key(k.seed, k.stream, k.offset))),
         "shards_draw_as_the_whole", rounding=S8),
    Case(named("no_stream", with_key(lambda k: replace(k, stream=0))),
         "keys_address_draws", rounding=S8),
    Case(named("32_bit_offset", with_key(lambda k: replace(k, offset=k.offset & MASK32))),
         "keys_address_draws", rounding=S8),
    Case(named("32_bit_seed", with_key(lambda k: replace(k, seed=k.seed & MASK32))),
         "keys_address_draws", rounding=S8),
    Case(subnormals_to_nearest, "probability_is_exact", rounding=S8),
    Case(another_variant, "agrees_with_the_reference", rounding="stochastic:2:C"),
    Case(another_variant, "probability_is_exact", rounding="stochastic:4:B"),
    Case(exact_values_move, "values_are_fixed_points", rounding="stochastic:1"),
    # shape and memory
    Case(changes_its_input, "input_is_left_alone"),
    Case(returns_its_input, "input_is_left_alone", "fp32"),
    Case(at_least_one_dimension, "any_shape_is_taken"),
    Case(only_whole_pieces, "threads_do_not_matter"),
    Case(scaled_by_the_maximum, "elements_do_not_see_each_other"),
    Case(memory_as_it_lies, "memory_layout_does_not_matter"),
    Case(Forgetful, "calls_repeat"),
    Case(SharedScratch, "threads_do_not_matter"),
    # codes
    Case(EncodeDrawsElsewhere, "encode_draws_as_quantize", rounding=S8),
    Case(NanBecomesZero, "nan_is_encoded_or_refused", "e2m1"),
    Case(NanCodeKeepsItsSign, "nan_is_encoded_or_refused"),
    Case(MinusZeroDecodesToZero, "decoding_is_exact"),
    Case(EncodesByTruncating, "codes_agree_with_the_table"),
    Case(SignBitsLost, "encoding_undoes_decoding"),
    Case(CodesSwapped, "codes_are_ordered"),
    # noise
    Case(zero_noise_is_added, "zero_noise_is_a_cast", "bf16", "pseudo_gaussian:4:4x4"),
    Case(one_block, "spoiled_blocks_get_no_noise", "bf16", "pseudo_gaussian:4:4x4"),
    Case(one_block, "noise_agrees_with_the_reference", "bf16", "pseudo_uniform:4:4x4"),
    Case(steps_have_a_floor, "zero_blocks_stay_zero", "bf16", "pseudo_gaussian:4:4x4"),
    Case(half_a_step, "noise_survives_at_the_maximum", "e4m3fn", "pseudo_gaussian:5:4x4"),
    Case(noise_ignores_the_offset, "batches_draw_as_the_whole", "bf16", "pseudo_gaussian:4:4x4"),
    Case(noise_in_memory_order, "noise_ignores_memory_layout", "bf16", "pseudo_gaussian:4:4x4"),
    Case(noise_on_top_of_the_cast, "noise_agrees_with_the_reference", "e4m3fn",
         "pseudo_gaussian:ulp"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_wrong_quantizers_are_caught(case: Case) -> None:
    """By the law that says what is wrong with them; and `check` stops at one that does."""
    found = violations(case.build(), case.fmt, **case.options())
    assert case.caught_by in found, sorted(found)
    with pytest.raises(LawViolation) as caught:
        check(case.build(), case.fmt, **case.options())
    assert caught.value.law in LAWS
    assert str(caught.value).startswith(f"{caught.value.law} does not hold for {parse(case.fmt)}")


def test_every_law_catches_something() -> None:
    assert {case.caught_by for case in CASES} == set(LAWS)


@pytest.mark.parametrize("spelling", ["e4m3fn", "e2m1", "e5m2", "int4", "e8m0", "e3m0"])
def test_the_table_breaks_no_law(spelling: str) -> None:
    """The control: the quantizer that the wrong ones are made from is right."""
    for turn, rounding in enumerate(ROUNDINGS):
        policy = ("sat_none", "sat_finite", "sat_propagate")[turn % 3]
        assert violations(Tabulated(), spelling, rounding=rounding, policy=policy) == {}


def test_the_reference_breaks_no_law() -> None:
    """On a format small enough; laws on long arrays are left out for its speed."""
    slow = {"threads_do_not_matter", "long_arrays_draw_by_index", "thresholds_are_sharp"}
    for rounding in ("nearest_even", "stochastic:1"):
        ran = check(Reference(), "e2m1", rounding=rounding, policy="sat_none", skip=slow)
        assert "agrees_with_the_table" in ran


@pytest.mark.parametrize("rounding", ["pseudo_gaussian:4:4x4", "pseudo_uniform:ulp"])
def test_the_noise_reference_breaks_no_law(rounding: str) -> None:
    ran = check(Wrong(noise), "bf16", rounding=rounding, policy=None)
    assert "noise_agrees_with_the_reference" in ran


def test_a_counterexample_can_be_read() -> None:
    """The input, both results, as numbers, bits and codes, and how many elements are wrong."""
    with pytest.raises(LawViolation) as caught:
        LAWS["agrees_with_the_table"].function(
            Wrong(ties_away), "e4m3fn", np.array([1.0, 1.0625], np.float32)
        )
    assert str(caught.value) == (
        "agrees_with_the_table does not hold for e4m3fn, nearest_even, sat_finite: "
        "x[1] = 1.0625 (float32 0x3f880000): got 1.125 (float32 0x3f900000) code 0x39, "
        "expected 1.0 (float32 0x3f800000) code 0x38; 1 of 2 elements"
    )


def test_unknown_laws_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match="rounding_is_monoton"):
        check(Tabulated(), "e2m1", skip={"rounding_is_monoton"})


def test_a_law_refuses_what_it_says_nothing_about() -> None:
    with pytest.raises(ValueError, match="nearest_is_nearest says nothing"):
        LAWS["nearest_is_nearest"].function(Tabulated(), "e2m1", rounding="toward_zero")
    assert parse_rounding("toward_zero") is Rounding.TOWARD_ZERO


def test_signs_are_flipped_in_bits() -> None:
    assert bits(flip(np.array([0.0, -1.5], np.float32))).tolist() == [0x80000000, 0x3FC00000]
