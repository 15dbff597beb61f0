"""The verbs on arrays: quantize, encode and decode.

This module checks arguments, chooses container and backend, and walks arrays in bounded
pieces; the arithmetic is the backends'.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fpemu import block_arrays, dtypes, noise, table_arrays
from fpemu.arguments import (
    as_array,
    choose_backend,
    is_plain,
    key_for,
    output,
    pieces,
    required_key,
)
from fpemu.backends import Backend
from fpemu.block_imitations import Imitation
from fpemu.block_presets import block_preset
from fpemu.blocks import BlockFormat, Spec, as_spec
from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.integers import round_integers
from fpemu.keys import Key
from fpemu.lowering import FLOAT32, FLOAT64, Container, Params, lower
from fpemu.packing import pack
from fpemu.policy import NanRule, Policy, ZeroSign, parse_policy
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, Step, parse_rounding
from fpemu.table_format import TableFormat


class Rule(NamedTuple):
    """A call's format, rounding and policy, parsed."""

    fmt: Format
    rounding: Descriptor
    policy: Policy


@lru_cache(maxsize=1024)
def _cached_spec(fmt: Any) -> Spec:
    return as_spec(fmt)


@lru_cache(maxsize=1024)
def _cached_rule(fmt: Any, rounding: Any, policy: Any) -> Rule:
    target = as_format(fmt)
    preset, chosen = parse_policy(policy, target)
    mode = parse_rounding(rounding) if rounding is not None else preset or Rounding.NEAREST_EVEN
    return Rule(target, mode, chosen)


class Call(NamedTuple):
    """What a call of `quantize` does, as far as its arguments but for the data decide."""

    rule: Rule
    container: Container
    params: Params | None  # None for pseudo rounding
    dtype: np.dtype[Any]
    direct: bool  # input and output are patterns of the container itself


def rule(fmt: Format | str, rounding: Descriptor | str | None, policy: Policy | str | None) -> Rule:
    """The arguments every verb shares, parsed. Errors: as the three parsers."""
    chosen: Rule = _hashed(_cached_rule, fmt, rounding, policy)
    return chosen


def _hashed(function: Any, *arguments: Any) -> Any:
    """Call a cached function; an unhashable argument is of a wrong type, which it then says."""
    try:
        return function(*arguments)
    except TypeError:
        return function.__wrapped__(*arguments)


def _prepare(
    fmt: Any, rounding: Any, policy: Any, source: np.dtype[Any], dtype: DTypeLike | None
) -> Call:
    call: Call = _hashed(_cached_call, fmt, rounding, policy, source, dtype)
    return call


@lru_cache(maxsize=1024)
def _cached_call(fmt: Any, rounding: Any, policy: Any, source: Any, dtype: Any) -> Call:
    chosen = rule(fmt, rounding, policy)
    given, container = _containers(source, chosen)
    target = dtypes.dtype_of(given) if dtype is None else dtypes.as_dtype("dtype", dtype)[0]
    mode = chosen.rounding
    if not (isinstance(mode, PseudoNoise) and mode.step is Step.ULP):
        _require_holding(target, chosen.fmt, "x of dtype" if dtype is None else "dtype")
    if isinstance(mode, PseudoNoise):
        return Call(chosen, container, None, target, False)
    params = lower(chosen.fmt, mode, chosen.policy, container)
    return Call(chosen, container, params, target, given is container and target == source)


def quantize(
    x: ArrayLike,
    fmt: Spec | str,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    bits: ArrayLike | None = None,
    axis: int = -1,
    amax: float | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    backend: str | None = None,
) -> Any:
    """Round every element of `x` to the nearest value of `fmt` (or as `rounding` says), once.

    `fmt`: a Format, a BlockFormat, a TableFormat or a spelling of one.
    `x`: array, scalar or nested list of float64, float32, float16, bfloat16 or integers, of any
    shape and strides. Returns an array of the same shape and dtype (integers: float64, rounded
    once from the integer itself), or a scalar for a scalar; `dtype` asks for another float
    dtype. `out` takes the result instead and may be `x` itself.

    `rounding`: a descriptor or spelling (`fpemu.rounding`); None is nearest_even, or the
    rounding of the preset that `policy` names. Random modes need `key`, a Key or an int seed.
    `bits`: bit widths of pseudo rounding, a scalar or one per block.
    `policy`: overflow rule or preset (`fpemu.policy`); for block formats a preset of
    `fpemu.block_presets`, or None.
    `axis`: the axis that blocks run along, or whose indices have a scale each (per channel).
    `amax`: the largest magnitude of a whole tensor of which `x` is a part, for block formats
    with an outer scale; None takes that of `x`.
    `backend`: a name from `fpemu.backends.names()`; None takes numba for large arrays where
    it is installed, else numpy. All give the same bits.

    NaN stays NaN, as the dtype's positive quiet NaN. Infinities and overflow follow the policy.
    -0 is kept where the format has it. Subnormals of the input are never flushed. Blocks are
    computed as `fpemu.block_reference` says, in float32 (float64 for float64 and integers), and
    rounded once more to the dtype; a block with NaN or an infinity becomes NaN. There 64-bit
    integers beyond 2**53 are rounded to float64 first.

    Errors: ValueError for an unknown spelling, a random mode without a key, and a dtype that
    cannot hold the format's values; TypeError for other dtypes, a wrong `out` or key type;
    ImportError for a backend that is not installed. `x` is never changed.
    """
    spec = _hashed(_cached_spec, fmt)
    if not isinstance(spec, Format):
        return _quantize_other(
            x, spec, rounding, policy, key, bits, axis, amax, dtype, out, backend
        )
    array, scalar = as_array(x)
    if amax is not None:
        raise ValueError(f"amax must be None for {spec}, which has no outer scale")
    call = _prepare(fmt, rounding, policy, array.dtype, dtype)
    result = output("out", out, array, call.dtype)
    engine = choose_backend(backend, array.size)
    if call.params is None:
        chosen = call.rule
        assert isinstance(chosen.rounding, PseudoNoise)
        noise.pseudo_round(
            array, result, chosen.fmt, chosen.rounding, chosen.policy,
            required_key(key, chosen.rounding), bits, engine,
        )  # fmt: skip
    else:
        if bits is not None:
            raise ValueError(f"bits goes with pseudo rounding, got rounding={rounding!r}")
        drawn = key_for(key, call.rule.rounding)
        if call.direct:
            _round_directly(array, result, call.params, drawn, engine)
        else:
            for first, piece, place in pieces(array, result, drawn is None):
                rounded = round_piece(
                    piece, call.rule, call.container, call.params, drawn, first, engine
                )
                dtypes.narrow(rounded, call.container, place)
    return result[()] if scalar and out is None else result


def _quantize_other(
    x: ArrayLike,
    spec: BlockFormat | TableFormat,
    rounding: Descriptor | str | None,
    policy: Policy | str | None,
    key: Key | int | None,
    bits: ArrayLike | None,
    axis: int,
    amax: float | None,
    dtype: DTypeLike | None,
    out: NDArray[Any] | None,
    backend: str | None,
) -> Any:
    if bits is not None:
        raise ValueError(f"bits goes with pseudo rounding to a Format, not with {spec}")
    if isinstance(spec, TableFormat):
        _known_backend(backend)
        if amax is not None:
            raise ValueError(f"amax must be None for {spec}, which has no outer scale")
        return table_arrays.quantize(
            x, spec, rounding=rounding, policy=policy, key=key, dtype=dtype, out=out
        )
    array, scalar = as_array(x)
    source = dtypes.container_of(array.dtype) or FLOAT64
    target = dtypes.dtype_of(source) if dtype is None else dtypes.as_dtype("dtype", dtype)[0]
    result = output("out", out, array, target)
    preset = block_preset(policy, spec)
    if preset is not None:
        Imitation(array, spec, preset, rounding, key, axis, amax, backend).quantize_into(result)
    else:
        job = block_arrays.start(array, spec, rounding, key, axis, amax, backend)
        block_arrays.round_into(job, result)
    return result[()] if scalar and out is None else result


def encode(
    x: ArrayLike,
    fmt: Format | TableFormat | str,
    *,
    rounding: Descriptor | str | None = None,
    policy: Policy | str | None = None,
    key: Key | int | None = None,
    packed: bool = False,
    out: NDArray[Any] | None = None,
    backend: str | None = None,
) -> Any:
    """Round as `quantize` does, and return the codes of the results.

    Codes are uint8, uint16, uint32 or uint64, the smallest that fits, of the shape of `x`;
    ``packed=True`` gives the bytes of `pack` instead. Draws are those of `quantize`, so
    ``decode(encode(x))`` equals ``quantize(x)``. Any input dtype goes with any format that
    float64 holds.

    NaN is written as the positive quiet NaN; a format without NaN raises a ValueError that names
    the first index, unless the policy's `nan` rule says what to write.
    Errors: as `quantize`; ValueError for pseudo rounding with ulp steps, whose results have no
    code. On an error `out` is unchanged.
    """
    spec = _hashed(_cached_spec, fmt)
    if isinstance(spec, BlockFormat):
        raise ValueError(f"fmt must not be a block format; compress(x, {str(spec)!r}) stores one")
    if isinstance(spec, TableFormat):
        _known_backend(backend)
        return table_arrays.encode(
            x, spec, rounding=rounding, policy=policy, key=key, packed=packed, out=out
        )
    chosen = rule(spec, rounding, policy)
    if isinstance(chosen.rounding, PseudoNoise):
        return _encode_noise(x, chosen, key, packed, out, backend)
    array, scalar = as_array(x)
    _, container = _containers(array.dtype, chosen)
    if packed and out is not None:
        raise ValueError("out must be None with packed=True")
    codes = output("out", out, array, dtypes.code_dtype(chosen.fmt))
    engine = choose_backend(backend, array.size)
    params = lower(chosen.fmt, chosen.rounding, chosen.policy, container)
    drawn = key_for(key, chosen.rounding)
    may_fail = _may_lack_code(chosen)
    # A failing call leaves `out` as it was.
    places = np.empty_like(codes) if may_fail and out is not None else codes
    in_memory_order = drawn is None and not may_fail
    for first, piece, place in pieces(array, places, in_memory_order):
        rounded = round_piece(piece, chosen, container, params, drawn, first, engine)
        if may_fail:
            _check_codes(rounded, chosen, params, array.shape, first)
        engine.encode(rounded, place, params)
    if places is not codes:
        codes[...] = places
    if packed:
        return pack(codes, chosen.fmt.bits)
    return codes[()] if scalar and out is None else codes


def decode(
    codes: ArrayLike,
    fmt: Format | TableFormat | str,
    *,
    dtype: DTypeLike = "float32",
    out: NDArray[Any] | None = None,
    backend: str | None = None,
) -> Any:
    """The values of integer `codes`, in `dtype`, exactly.

    `codes`: integers of any type and shape in 0..2**bits - 1. NaN codes give the dtype's
    positive quiet NaN.
    Errors: TypeError for non-integers, ValueError for a code with stray high bits (the first
    index is named) and for a dtype that cannot hold the format's values.
    """
    spec = _hashed(_cached_spec, fmt)
    if isinstance(spec, BlockFormat):
        raise ValueError(
            f"fmt must not be a block format, got {spec}; Quantized.dequantize reads one"
        )
    if isinstance(spec, TableFormat):
        _known_backend(backend)
        return table_arrays.decode(codes, spec, dtype=dtype, out=out)
    target = spec
    array = np.asarray(codes)
    scalar = not isinstance(codes, np.ndarray) and array.ndim == 0
    if array.dtype.kind not in "iu":
        raise TypeError(f"codes must be integers, got dtype {array.dtype}")
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    wanted, container = dtypes.as_dtype("dtype", dtype if out is None else out.dtype)
    _require_holding(wanted, target, "dtype")
    values = output("out", out, array, wanted)
    _check_range(array, target)
    engine = choose_backend(backend, array.size)
    params = lower(target, Rounding.NEAREST_EVEN, Policy(), container)
    native = dtypes.code_dtype(target)
    if array.dtype == native and is_plain(array) and is_plain(values):
        engine.decode(array.reshape(-1), dtypes.patterns(values).reshape(-1), params)
        return values[()] if scalar and out is None else values
    for _, piece, place in pieces(array, values, True):
        narrowed = np.ascontiguousarray(piece, dtype=native)
        engine.decode(narrowed, dtypes.patterns(place), params)
    return values[()] if scalar and out is None else values


def _known_backend(backend: str | None) -> None:
    """Table formats compute in NumPy, but a name that no backend has is an error all the same."""
    if backend is not None:
        choose_backend(backend, 0)


# ---------------------------------------------------------------------- codes


def _encode_noise(
    x: Any,
    chosen: Rule,
    key: Key | int | None,
    packed: bool,
    out: NDArray[Any] | None,
    backend: str | None,
) -> Any:
    assert isinstance(chosen.rounding, PseudoNoise)
    if chosen.rounding.step is Step.ULP:
        raise ValueError(
            f"rounding={str(chosen.rounding)!r} leaves the values off the grid of {chosen.fmt}, "
            "so they have no codes"
        )
    array, scalar = as_array(x)
    _, container = _containers(array.dtype, chosen)
    values = quantize(
        array,
        chosen.fmt,
        rounding=chosen.rounding,
        policy=chosen.policy,
        key=key,
        dtype=dtypes.dtype_of(container),
        backend=backend,
    )
    # The values are members already; a rule for signs of zeros must not be applied again.
    policy = replace(chosen.policy, zero_sign=ZeroSign.KEEP, through_float32=False)
    codes = encode(values, chosen.fmt, policy=policy, packed=packed, out=out, backend=backend)
    return codes[()] if scalar and out is None and not packed else codes


def _may_lack_code(chosen: Rule) -> bool:
    fmt, policy = chosen.fmt, chosen.policy
    lacks_nan = not fmt.has_nan and policy.nan is NanRule.ERROR
    return lacks_nan or (policy.infinity_always and not fmt.has_inf)


def _check_codes(
    rounded: NDArray[Any], chosen: Rule, params: Params, shape: tuple[int, ...], first: int
) -> None:
    """Errors: ValueError naming the first element whose result has no code."""
    magnitude = rounded & rounded.dtype.type(params.sign - 1)
    fmt = chosen.fmt
    missing = np.zeros(magnitude.shape, bool)
    if not fmt.has_nan and chosen.policy.nan is NanRule.ERROR:
        missing |= magnitude > params.infinity
    if not fmt.has_inf:
        missing |= magnitude == params.infinity
    if missing.any():
        at = int(missing.argmax())
        index = tuple(int(i) for i in np.unravel_index(first + at, shape))
        what, remedy = "infinity", ""
        if magnitude[at] > params.infinity:
            what = "NaN"
            remedy = "; Policy(nan='zero') or Policy(nan='max') writes a number for it"
        raise ValueError(
            f"x must not give {what}: {fmt} has no code for it (first at index {index}){remedy}"
        )


def _check_range(codes: NDArray[Any], fmt: Format) -> None:
    limits = np.iinfo(codes.dtype)
    top = (1 << fmt.bits) - 1
    if limits.min >= 0 and limits.max <= top:
        return
    wrong = codes < 0 if limits.min < 0 else np.zeros(codes.shape, bool)
    if limits.max > top:
        wrong = wrong | (codes > top)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), codes.shape))
        raise ValueError(f"codes must be in 0..{top} for {fmt}, got {codes[index]} at {index}")


# ------------------------------------------------------------------ arguments


def _containers(dtype: np.dtype[Any], chosen: Rule) -> tuple[Container, Container]:
    """The container of the input (integers: float64), and the one to compute in."""
    source = dtypes.container_of(dtype) or FLOAT64
    compute = dtypes.common(source, chosen.fmt)
    if compute is None:
        raise dtypes.refuse("x of dtype", dtype, chosen.fmt)
    is_float64 = dtypes.container_of(dtype) is FLOAT64  # integers are rounded once
    if chosen.policy.through_float32 and is_float64 and FLOAT32.holds(chosen.fmt):
        compute = FLOAT32
    return source, compute


def holding_dtype(array: NDArray[Any], fmt: Format) -> np.dtype[Any]:
    """The array's own float dtype, or the smallest wider one that also holds `fmt`."""
    source = dtypes.container_of(array.dtype) or FLOAT64
    container = dtypes.common(source, fmt)
    if container is None:
        raise dtypes.refuse("x of dtype", array.dtype, fmt)
    return dtypes.dtype_of(container)


def require_holding(dtype: np.dtype[Any], fmt: Format | TableFormat) -> None:
    """Errors: ValueError where values of `fmt` do not fit the dtype of an array (integers fit)."""
    if dtype.kind in "iu":
        return
    if isinstance(fmt, TableFormat):
        table_arrays.require_holding(dtype, fmt, "x of dtype")
    else:
        _require_holding(dtype, fmt, "x of dtype")


def _require_holding(dtype: np.dtype[Any], fmt: Format, name: str) -> None:
    container = dtypes.container_of(dtype)
    if container is None or not container.holds(fmt):
        raise dtypes.refuse(name, dtype, fmt)


# -------------------------------------------------------------------- walking


def round_piece(
    piece: NDArray[Any],
    chosen: Rule,
    container: Container,
    params: Params,
    key: Key | None,
    first: int,
    engine: Backend,
) -> NDArray[Any]:
    """A piece of the input, rounded, as fresh patterns of `container`."""
    if piece.dtype.kind in "iu":
        if piece.dtype.itemsize == 8:
            fmt, rounding, policy = chosen
            assert not isinstance(rounding, PseudoNoise)
            return round_integers(piece, fmt, rounding, policy, params, key, first, engine)
        piece = piece.astype(np.float64)
    elif container is FLOAT32 and piece.dtype == np.float64:  # a preset's own double rounding
        with np.errstate(all="ignore"):
            piece = piece.astype(np.float32)
    bits = dtypes.widen(piece, container)
    rounded = np.empty_like(bits)
    engine.round(bits, rounded, params, key, first)
    return rounded


def _round_directly(
    x: NDArray[Any], out: NDArray[Any], params: Params, key: Key | None, engine: Backend
) -> None:
    """Input and output of one container: whole arrays at once where memory order allows."""
    bits, places = dtypes.patterns(x), dtypes.patterns(out)
    if is_plain(bits) and is_plain(places):
        engine.round(bits.reshape(-1), places.reshape(-1), params, key, 0)
        return
    if key is None and is_plain(bits.T) and is_plain(places.T):
        engine.round(bits.T.reshape(-1), places.T.reshape(-1), params, None, 0)
        return
    for first, piece, place in pieces(bits, places):
        engine.round(piece, place, params, key, first)
