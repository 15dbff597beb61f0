"""The verbs on arrays for table formats: `quantize`, `encode` and `decode` for a `TableFormat`.

Arguments, results and errors are those of `fpemu.arrays`, which hands table formats to this
module. What computes is NumPy, whichever backend is installed or asked for: a binary search
among the keys of `fpemu.table_plans`, and integer comparisons for stochastic modes. The bits
are those of `fpemu.table_format.round_value`, for every input.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fpemu import backends, dtypes
from fpemu.arguments import as_array, key_for, output, pieces
from fpemu.keys import Key
from fpemu.lowering import CONTAINERS, FLOAT16, FLOAT32, FLOAT64, Container
from fpemu.packing import pack
from fpemu.policy import NanRule, Policy
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, Stochastic, Variant, parse_rounding
from fpemu.table_format import TableFormat, nan_value, parse_table_policy, round_value
from fpemu.table_plans import NO_CODE, Gaps, Plan, holds, plan_for
from fpemu.values import Special, Value, as_value

_EXACT = 1 << 53  # integers up to here are exact in float64
_CHUNK = 1 << 13  # elements worked on together


class Rule(NamedTuple):
    """A call's format, rounding and policy, parsed."""

    fmt: TableFormat
    rounding: Rounding | Stochastic
    policy: Policy


def quantize(
    x: ArrayLike,
    fmt: TableFormat,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
) -> Any:
    """Round every element of `x` to a value of `fmt`; otherwise as `fpemu.quantize`.

    Errors: also ValueError for pseudo rounding, presets, and a dtype that cannot hold the values
    (NF4 needs float32).
    """
    array, scalar = as_array(x)
    chosen = rule(fmt, rounding, policy)
    container = _container(array.dtype, fmt)
    given = dtypes.dtype_of(dtypes.container_of(array.dtype) or FLOAT64)
    target = given if dtype is None else dtypes.as_dtype("dtype", dtype)[0]
    require_holding(target, fmt, "x of dtype" if dtype is None else "dtype")
    result = output("out", out, array, target)
    drawn = key_for(key, chosen.rounding)
    for first, piece, place in pieces(array, result, drawn is None):
        dtypes.narrow(_round(piece, chosen, container, drawn, first), container, place)
    return result[()] if scalar and out is None else result


def encode(
    x: ArrayLike,
    fmt: TableFormat,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    packed: bool = False,
    out: NDArray[Any] | None = None,
) -> Any:
    """The codes, uint8, of `x` rounded to `fmt`; otherwise as `fpemu.encode`.

    Any input dtype goes with any format that float64 holds. Errors: as there, and as `quantize`.
    """
    array, scalar = as_array(x)
    chosen = rule(fmt, rounding, policy)
    container = _container(array.dtype, fmt)
    if packed and out is not None:
        raise ValueError("out must be None with packed=True")
    codes = output("out", out, array, np.dtype(np.uint8))
    drawn = key_for(key, chosen.rounding)
    may_fail = not fmt.has_nan and chosen.policy.nan is NanRule.ERROR
    # A failing call leaves `out` as it was.
    target = np.empty(array.shape, np.uint8) if may_fail and out is not None else codes
    for first, piece, place in pieces(array, target, drawn is None and not may_fail):
        found = _encode(piece, chosen, container, drawn, first)
        if may_fail:
            _check_results(found, fmt, array.shape, first)
        place[...] = found
    if target is not codes:
        codes[...] = target
    if packed:
        return pack(codes, fmt.bits)
    return codes[()] if scalar and out is None else codes


def decode(
    codes: ArrayLike,
    fmt: TableFormat,
    *,
    dtype: DTypeLike = "float32",
    out: NDArray[Any] | None = None,
) -> Any:
    """The values of integer `codes`, in `dtype`, exactly; otherwise as `fpemu.decode`.

    Errors: also ValueError for a code that stands for nothing (the first index is named).
    """
    array = np.asarray(codes)
    scalar = not isinstance(codes, np.ndarray) and array.ndim == 0
    if array.dtype.kind not in "iu":
        raise TypeError(f"codes must be integers, got dtype {array.dtype}")
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    wanted, container = dtypes.as_dtype("dtype", dtype if out is None else out.dtype)
    require_holding(wanted, fmt, "dtype")
    values = output("out", out, array, wanted)
    patterns, there = _decoded(fmt, container)
    _check_codes(array, fmt, there)
    for _, piece, place in pieces(array, values, True):
        dtypes.patterns(place)[...] = patterns.take(piece.astype(np.intp))
    return values[()] if scalar and out is None else values


# ------------------------------------------------- whole arrays of one float dtype


def round_table(
    x: NDArray[Any],
    fmt: TableFormat,
    rounding: Rounding | Stochastic,
    policy: Policy,
    key: Key | None = None,
    first: int = 0,
) -> NDArray[Any]:
    """A float array, rounded, as a new array of its dtype and shape; nothing is checked.

    The dtype must hold the format. Element j in C order draws what local element ``first + j``
    of `key` draws.
    """
    container = dtypes.container_of(x.dtype)
    assert container is not None
    result = np.empty(x.shape, x.dtype)
    chosen = Rule(fmt, rounding, policy)
    for start, piece, place in pieces(x, result):
        bits = _round(piece, chosen, container, key, first + start)
        dtypes.patterns(place)[...] = bits
    return result


def encode_table(
    x: NDArray[Any],
    fmt: TableFormat,
    rounding: Rounding | Stochastic,
    policy: Policy,
    key: Key | None = None,
    first: int = 0,
) -> NDArray[np.int16]:
    """The codes of a float array, rounded, with `NO_CODE` (-1) for NaN without a code."""
    container = _container(x.dtype, fmt)
    result = np.empty(x.shape, np.int16)
    chosen = Rule(fmt, rounding, policy)
    for start, piece, place in pieces(x, result):
        place[...] = _encode(piece, chosen, container, key, first + start)
    return result


def decode_table(codes: NDArray[Any], fmt: TableFormat, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of codes, all of which must stand for something, in a dtype that holds them."""
    container = dtypes.container_of(dtype)
    assert container is not None
    return _decoded(fmt, container)[0].take(codes.astype(np.intp)).view(dtype)


# ------------------------------------------------------------------ arguments


def rule(fmt: TableFormat, rounding: Descriptor | str | None, policy: Policy | str | None) -> Rule:
    """The arguments every verb shares, parsed.

    Errors: as the parsers; ValueError for pseudo rounding.
    """
    mode = Rounding.NEAREST_EVEN if rounding is None else parse_rounding(rounding)
    if isinstance(mode, PseudoNoise):
        raise ValueError(f"rounding of the table format {fmt} must not be pseudo, got {mode}")
    return Rule(fmt, mode, parse_table_policy(policy, fmt))


def holders(fmt: TableFormat) -> list[str]:
    """The names of the dtypes that hold every value of `fmt`."""
    return [name for name, container in CONTAINERS.items() if holds(container, fmt)]


def _refuse(name: str, dtype: object, fmt: TableFormat) -> ValueError:
    able = holders(fmt)
    remedy = f"use {' or '.join(able)}" if able else "no supported dtype can"
    return ValueError(f"{name} {dtype} cannot hold every value of {fmt}; {remedy}")


def require_holding(dtype: np.dtype[Any], fmt: TableFormat, name: str) -> None:
    container = dtypes.container_of(dtype)
    if container is None or not holds(container, fmt):
        raise _refuse(name, dtype, fmt)


def holding_dtype(dtype: np.dtype[Any], fmt: TableFormat) -> np.dtype[Any]:
    """The dtype itself (integers: float64), or the smallest wider one that also holds `fmt`."""
    return dtypes.dtype_of(_container(dtype, fmt))


def _container(dtype: np.dtype[Any], fmt: TableFormat) -> Container:
    """The smallest that holds the values of the dtype (integers: float64) and of `fmt`."""
    source = dtypes.container_of(dtype) or FLOAT64
    for container in (source, FLOAT16, FLOAT32, FLOAT64):
        if holds(container, fmt) and container.holds(source.format):
            return container
    raise _refuse("x of dtype", dtype, fmt)


def _check_results(
    codes: NDArray[np.int16], fmt: TableFormat, shape: tuple[int, ...], first: int
) -> None:
    """Errors: ValueError naming the first element whose result has no code."""
    missing = codes == NO_CODE
    if missing.any():
        at = np.unravel_index(first + int(missing.argmax()), shape)
        zero = "Policy(nan='zero') or " if fmt.has_zero else ""
        raise ValueError(
            f"x must not give NaN: {fmt} has no code for it (first at index "
            f"{tuple(int(i) for i in at)}); {zero}Policy(nan='max') writes a number for it"
        )


def _check_codes(codes: NDArray[Any], fmt: TableFormat, there: NDArray[np.bool_]) -> None:
    """Errors: ValueError naming the first code that is out of range or stands for nothing."""
    top = there.size - 1
    limits = np.iinfo(codes.dtype)
    wrong = np.zeros(codes.shape, np.bool_)
    if limits.min < 0:
        wrong |= codes < 0
    if limits.max > top:
        wrong |= codes > top
    if not there.all():
        wrong |= np.isin(codes, np.flatnonzero(~there))
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), codes.shape))
        code = int(codes[index])
        inside = 0 <= code <= top
        what = f"codes that stand for a value of {fmt}" if inside else f"in 0..{top} for {fmt}"
        raise ValueError(f"codes must be {what}, got {code} at {index}")


@lru_cache(maxsize=64)
def _decoded(fmt: TableFormat, container: Container) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The pattern of every code, and which codes stand for something."""
    patterns = [0 if value is None else container.pattern(value) for value in fmt.table]
    there = np.array([value is not None for value in fmt.table], np.bool_)
    return np.array(patterns, f"u{container.bits // 8}"), there


# -------------------------------------------------------------------- rounding


def _round(
    piece: NDArray[Any], chosen: Rule, container: Container, key: Key | None, first: int
) -> NDArray[Any]:
    """A one-dimensional piece, rounded, as fresh patterns of `container`."""
    plan = plan_for(*chosen, container)
    result = plan.patterns.take(_select(piece, chosen, container, plan, key, first))
    for at, value in _beyond_float64(piece, chosen, key, first):
        result[at] = container.pattern(value)
    return result


def _encode(
    piece: NDArray[Any], chosen: Rule, container: Container, key: Key | None, first: int
) -> NDArray[np.int16]:
    """The codes of a one-dimensional piece, rounded."""
    plan = plan_for(*chosen, container)
    result = plan.codes.take(_select(piece, chosen, container, plan, key, first))
    for at, value in _beyond_float64(piece, chosen, key, first):
        if value is Special.NAN and not chosen.fmt.has_nan:
            result[at] = NO_CODE
            if chosen.policy.nan is not NanRule.ERROR:
                result[at] = chosen.fmt.encode(nan_value(chosen.fmt, chosen.policy))
        else:
            result[at] = chosen.fmt.encode(value)
    return result


def _beyond_float64(
    piece: NDArray[Any], chosen: Rule, key: Key | None, first: int
) -> list[tuple[int, Value]]:
    """The integers that float64 may lack, each with its result by the reference."""
    if piece.dtype.kind not in "iu" or piece.dtype.itemsize < 8:
        return []
    beyond = piece > _EXACT
    if piece.dtype.kind == "i":
        beyond |= piece < -_EXACT
    found = []
    for at in np.flatnonzero(beyond).tolist():
        draw = 0
        if key is not None and isinstance(chosen.rounding, Stochastic):
            draw = int(_draws(key, first + at, 1, chosen.rounding)[0])
        found.append((at, _exactly(as_value(int(piece[at])), chosen, draw)))
    return found


def _exactly(x: Value, chosen: Rule, draw: int) -> Value:
    return round_value(chosen.fmt, x, chosen.rounding, chosen.policy, draw)


def _select(
    piece: NDArray[Any],
    chosen: Rule,
    container: Container,
    plan: Plan,
    key: Key | None,
    first: int,
) -> NDArray[np.intp]:
    """For every element the place of its result in the plan."""
    if piece.dtype.kind in "iu":
        piece = piece.astype(np.float64)
    bits = dtypes.widen(piece, container)
    places = np.empty(bits.size, np.intp)
    for start in range(0, bits.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        places[part] = _region(bits[part], container, plan)
        if plan.gaps is not None:
            assert key is not None
            assert isinstance(chosen.rounding, Stochastic)
            some = places[part]
            draws = _draws(key, first + start, some.size, chosen.rounding)
            away = _goes_away(bits[part], some, draws, chosen.rounding, container, plan.gaps)
            _ask_reference(away, bits[part], some, draws, chosen, container, plan)
            places[part] = 2 * some + away
    return places


def _region(bits: NDArray[Any], container: Container, plan: Plan) -> NDArray[np.intp]:
    """The number of the region that each pattern lies in."""
    signed = bits.view(f"i{container.bits // 8}")
    # Magnitudes of negative numbers are turned round: the sign extended, but for the sign bit.
    keys = signed ^ ((signed >> (container.bits - 1)) & (container.sign - 1))
    if plan.reach is None:
        sought: NDArray[np.intp] = np.searchsorted(plan.starts, keys, side="right")
        return sought
    top = (bits >> (container.bits - 16)).astype(np.uint16, copy=False)
    found: NDArray[np.intp] = plan.reach.take(top).astype(np.intp)
    last = plan.starts.size - 1
    for _ in range(plan.steps):
        more = plan.starts.take(found, mode="clip") <= keys
        more &= found <= last
        found += more
    return found


def _draws(key: Key, first: int, count: int, rounding: Stochastic) -> NDArray[np.int64]:
    lanes = np.empty(count, f"u{rounding.lane_bits // 8}")
    backends.get("numpy").lanes(lanes, key, first)
    return lanes.astype(np.int64) >> (rounding.lane_bits - rounding.bits)


def _goes_away(
    bits: NDArray[Any],
    region: NDArray[np.intp],
    draws: NDArray[np.int64],
    rounding: Stochastic,
    container: Container,
    gaps: Gaps,
) -> NDArray[np.bool_]:
    """The inequality of `fpemu.table_plans`, for every element."""
    magnitude = (bits & bits.dtype.type(container.sign - 1)).astype(np.int64)
    field = magnitude >> container.mantissa_bits
    significand = magnitude & ((1 << container.mantissa_bits) - 1)
    significand |= (field > 0).astype(np.int64) << container.mantissa_bits
    below = gaps.across.take(region) & (bits > bits.dtype.type(container.sign - 1))
    np.negative(significand, out=significand, where=below)

    exponent = np.maximum(field, 1) - (container.bias + container.mantissa_bits)
    shift = np.clip(exponent + gaps.shift.take(region), -63, 63)
    # An arithmetic shift to the right is a floor, for negative numbers too.
    have = (significand << np.maximum(shift, 0)) >> np.maximum(-shift, 0)
    inexact = have << np.maximum(-shift, 0) != significand << np.maximum(shift, 0)

    needed, or_equal = _needed(draws, rounding)
    target = gaps.low.take(region) + gaps.width.take(region) * needed
    away: NDArray[np.bool_] = (have > target) | ((have == target) & (or_equal | inexact))
    if rounding.variant is Variant.EQUAL:
        away &= draws == 1
    return away


def _needed(
    draws: NDArray[np.int64], rounding: Stochastic
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """K of the fraction ``K / 2**M`` that goes away with each draw, and whether K itself does."""
    whole = (1 << rounding.bits) - draws  # of 2**bits
    always = np.ones(draws.shape, np.bool_)
    match rounding.variant:
        case Variant.A:
            return whole, always
        case Variant.B:
            return 2 * whole - 1, always
        case Variant.C:  # the fraction's nearest integer, ties to even, reaches `whole`
            return 2 * whole - 1, whole & 1 == 0
    return np.zeros_like(draws), ~always


def _ask_reference(
    away: NDArray[np.bool_],
    bits: NDArray[Any],
    region: NDArray[np.intp],
    draws: NDArray[np.int64],
    chosen: Rule,
    container: Container,
    plan: Plan,
) -> None:
    """Decide by the reference where the integers would not fit, one by one."""
    assert plan.gaps is not None
    if not plan.gaps.wide.any():
        return
    for at in np.flatnonzero(plan.gaps.wide.take(region)).tolist():
        exact = container.format.decode(int(bits[at]))
        value = _exactly(exact, chosen, int(draws[at]))
        away[at] = container.pattern(value) == plan.patterns[2 * region[at] + 1]
