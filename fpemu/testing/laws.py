"""The laws of rounding, as functions anyone can run on a quantizer.

    from fpemu.testing import Backend, check, laws

    check(Backend("numpy"), "e4m3fn")                       # every law that applies
    check(mine, "e4m3fn", rounding="nearest_even", policy="sat_finite")
    laws.rounding_is_monotone(mine, "e4m3fn", x)            # one law on inputs of your own

A law returns None or raises `LawViolation`, an AssertionError with a counterexample: the input,
the two results, their bits and codes. `LAWS` lists the laws by name. Nothing here is approximate
and nothing needs hypothesis; `fpemu.testing.strategies` draws further inputs where it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

from numpy.typing import DTypeLike

from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.keys import Key, as_key
from fpemu.policy import Overflow, Policy, parse_policy
from fpemu.rounding import Descriptor, Rounding, Stochastic, Variant, parse_rounding
from fpemu.testing._address_laws import any_shape_is_taken as any_shape_is_taken
from fpemu.testing._address_laws import calls_repeat as calls_repeat
from fpemu.testing._address_laws import chunks_draw_as_the_whole as chunks_draw_as_the_whole
from fpemu.testing._address_laws import (
    elements_do_not_see_each_other as elements_do_not_see_each_other,
)
from fpemu.testing._address_laws import input_is_left_alone as input_is_left_alone
from fpemu.testing._address_laws import long_arrays_draw_by_index as long_arrays_draw_by_index
from fpemu.testing._address_laws import (
    memory_layout_does_not_matter as memory_layout_does_not_matter,
)
from fpemu.testing._address_laws import shards_draw_as_the_whole as shards_draw_as_the_whole
from fpemu.testing._address_laws import slices_draw_as_the_whole as slices_draw_as_the_whole
from fpemu.testing._address_laws import threads_do_not_matter as threads_do_not_matter
from fpemu.testing._code_laws import codes_are_ordered as codes_are_ordered
from fpemu.testing._code_laws import decoding_is_exact as decoding_is_exact
from fpemu.testing._code_laws import encode_draws_as_quantize as encode_draws_as_quantize
from fpemu.testing._code_laws import encoding_undoes_decoding as encoding_undoes_decoding
from fpemu.testing._code_laws import nan_is_encoded_or_refused as nan_is_encoded_or_refused
from fpemu.testing._draw_laws import keys_address_draws as keys_address_draws
from fpemu.testing._draw_laws import probability_is_exact as probability_is_exact
from fpemu.testing._draw_laws import thresholds_are_sharp as thresholds_are_sharp
from fpemu.testing._edge_laws import infinities_follow_the_policy as infinities_follow_the_policy
from fpemu.testing._edge_laws import nan_stays_nan as nan_stays_nan
from fpemu.testing._edge_laws import overflow_follows_the_policy as overflow_follows_the_policy
from fpemu.testing._edge_laws import results_are_values as results_are_values
from fpemu.testing._edge_laws import zero_keeps_its_sign as zero_keeps_its_sign
from fpemu.testing._noise_laws import batches_draw_as_the_whole as batches_draw_as_the_whole
from fpemu.testing._noise_laws import (
    noise_agrees_with_the_reference as noise_agrees_with_the_reference,
)
from fpemu.testing._noise_laws import noise_ignores_memory_layout as noise_ignores_memory_layout
from fpemu.testing._noise_laws import noise_survives_at_the_maximum as noise_survives_at_the_maximum
from fpemu.testing._noise_laws import spoiled_blocks_get_no_noise as spoiled_blocks_get_no_noise
from fpemu.testing._noise_laws import zero_blocks_stay_zero as zero_blocks_stay_zero
from fpemu.testing._noise_laws import zero_noise_is_a_cast as zero_noise_is_a_cast
from fpemu.testing._patterns import Floats, float_dtype, usual_dtype
from fpemu.testing._points import points
from fpemu.testing._quantizers import Codec, Quantizer
from fpemu.testing._trial import KEY, LAWS, Law
from fpemu.testing._trial import LawViolation as LawViolation
from fpemu.testing._value_laws import agrees_with_the_reference as agrees_with_the_reference
from fpemu.testing._value_laws import agrees_with_the_table as agrees_with_the_table
from fpemu.testing._value_laws import codes_agree_with_the_table as codes_agree_with_the_table
from fpemu.testing._value_laws import (
    directed_modes_mirror_each_other as directed_modes_mirror_each_other,
)
from fpemu.testing._value_laws import inclusion_means_exact_casts as inclusion_means_exact_casts
from fpemu.testing._value_laws import nearest_is_nearest as nearest_is_nearest
from fpemu.testing._value_laws import rounding_is_faithful as rounding_is_faithful
from fpemu.testing._value_laws import rounding_is_idempotent as rounding_is_idempotent
from fpemu.testing._value_laws import rounding_is_monotone as rounding_is_monotone
from fpemu.testing._value_laws import rounding_is_odd as rounding_is_odd
from fpemu.testing._value_laws import values_are_fixed_points as values_are_fixed_points

ROUNDINGS: tuple[Descriptor, ...] = (
    *Rounding,
    Stochastic(32),
    Stochastic(16),
    Stochastic(8),
    Stochastic(3),
    Stochastic(1),
    Stochastic(4, Variant.B),
    Stochastic(11, Variant.B),
    Stochastic(5, Variant.C),
    Stochastic(32, Variant.C),
    Stochastic(variant=Variant.EQUAL),
)
POLICIES: tuple[Policy, ...] = tuple(Policy(overflow) for overflow in Overflow)


def check(
    quantizer: Quantizer,
    fmt: Format | str,
    *,
    rounding: Descriptor | str | Iterable[Descriptor | str] = ROUNDINGS,
    policy: Policy | str | Iterable[Policy | str | None] | None = POLICIES,
    dtype: DTypeLike | None = None,
    x: Floats | None = None,
    key: Key | int = KEY,
    skip: Collection[str] = (),
) -> tuple[str, ...]:
    """Run every law that applies, and return the names of those that did.

    `rounding` and `policy` are one choice or several: every combination is tried. `dtype` is
    the floating dtype tried, by default float32, or float64 where the format needs it; `x`
    replaces the inputs of `points`. `skip` names laws to leave out. Laws on codes run where the
    quantizer is a `Codec`; laws on draws run for stochastic roundings, laws on noise for pseudo
    rounding.

    Errors: `LawViolation` (an AssertionError) at the first law that does not hold; ValueError
    for a name in `skip` that is no law.
    """
    ran: set[str] = set()
    for law, run in _runs(quantizer, fmt, rounding, policy, dtype, x, key, skip):
        if not (law.any_rounding and law.name in ran):
            run()
            ran.add(law.name)
    return tuple(name for name in LAWS if name in ran)


def violations(
    quantizer: Quantizer,
    fmt: Format | str,
    *,
    rounding: Descriptor | str | Iterable[Descriptor | str] = ROUNDINGS,
    policy: Policy | str | Iterable[Policy | str | None] | None = POLICIES,
    dtype: DTypeLike | None = None,
    x: Floats | None = None,
    key: Key | int = KEY,
    skip: Collection[str] = (),
) -> dict[str, str]:
    """As `check`, but goes on: every law that does not hold, with its first counterexample."""
    found: dict[str, str] = {}
    for law, run in _runs(quantizer, fmt, rounding, policy, dtype, x, key, skip):
        if law.name not in found:
            try:
                run()
            except LawViolation as violation:
                found[law.name] = str(violation)
    return found


def _runs(
    quantizer: Quantizer,
    fmt: Format | str,
    rounding: Any,
    policy: Any,
    dtype: DTypeLike | None,
    x: Floats | None,
    key: Key | int,
    skip: Collection[str],
) -> Iterator[tuple[Law, Callable[[], None]]]:
    """Every law that applies, bound to its arguments."""
    if unknown := sorted(set(skip) - set(LAWS)):
        raise ValueError(f"skip names no law: {', '.join(unknown)}; laws: {', '.join(LAWS)}")
    target = as_format(fmt)
    inputs = x
    if inputs is None:
        inputs = points(target, usual_dtype(target) if dtype is None else float_dtype(dtype))
    for mode in _several(rounding, parse_rounding):
        for rules in _several(policy, lambda choice: parse_policy(choice, target)[1]):
            for law in LAWS.values():
                if law.name not in skip and _applies(law, quantizer, target, mode, rules):
                    yield (
                        law,
                        partial(
                            law.function, quantizer, target, inputs,
                            rounding=mode, policy=rules, key=as_key(key),
                        ),
                    )  # fmt: skip


def _applies(
    law: Law, quantizer: Quantizer, fmt: Format, rounding: Descriptor, policy: Policy
) -> bool:
    if law.needs_codes and not isinstance(quantizer, Codec):
        return False
    return law.applies(fmt, rounding, policy)


def _several(choice: Any, parse: Any) -> list[Any]:
    """One choice or several, parsed."""
    several = not isinstance(choice, str) and isinstance(choice, Iterable)
    return [parse(one) for one in (choice if several else (choice,))]


__all__ = [
    *LAWS,
    "KEY",
    "LAWS",
    "POLICIES",
    "ROUNDINGS",
    "Law",
    "LawViolation",
    "check",
    "violations",
]
