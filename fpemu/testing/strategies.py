"""Hypothesis strategies for formats, inputs, roundings, policies and keys.

    from hypothesis import given
    from fpemu.testing import strategies as fst

    @given(st.data(), fst.formats(max_bits=8))
    def test(data, fmt):
        x = data.draw(fst.arrays(fmt, "float32"))

`block_formats`, `scale_rules` and `blocks` are the same for block formats.
Values are drawn relative to a format: codes, midpoints and their neighbours, the overflow and
underflow edges, powers of two, special patterns and raw bits. ``st.from_type(Format)`` works
where hypothesis finds fpemu installed (or after importing `fpemu.testing.hypothesis_entry`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import DTypeLike

from fpemu.catalog import CANONICAL
from fpemu.catalog import format as as_format
from fpemu.formats import Format, Specials, Subnormals
from fpemu.keys import Key
from fpemu.policy import NanRule, Overflow, Policy
from fpemu.rounding import Descriptor, Noise, PseudoNoise, Rounding, Step, Stochastic, Variant
from fpemu.testing import _patterns
from fpemu.testing._block_strategies import block_formats as block_formats
from fpemu.testing._block_strategies import blocks as blocks
from fpemu.testing._block_strategies import scale_rules as scale_rules
from fpemu.testing._patterns import Floats, container_of, float_dtype, floats, narrow
from fpemu.testing._points import magnitudes, points

FAMILIES: tuple[str, ...] = (*Specials, "flush", "unsigned", "catalogue")
_WORD = (1 << 64) - 1


@st.composite
def formats(
    draw: st.DrawFn,
    max_bits: int = 16,
    families: Iterable[str] = FAMILIES,
    container: DTypeLike | None = "float64",
) -> Format:
    """Formats of at most `max_bits` bits, simple ones first.

    `families`: names of `Specials`, "flush" (formats that flush subnormals), "unsigned"
    (formats without a sign, beyond e8m0) and "catalogue" (the named formats). Biases are
    usually the default and sometimes odd; no exponent or no mantissa bits come up. `container`
    is the dtype that must hold every value; None lifts that.
    """
    wanted = tuple(families)
    if unknown := set(wanted) - set(FAMILIES):
        raise ValueError(f"families must be among {', '.join(FAMILIES)}; got {sorted(unknown)}")
    if container is None:
        return draw(_any_format(max_bits, wanted))
    holder = container_of(container)
    return draw(_any_format(max_bits, wanted).filter(holder.holds))


@lru_cache(maxsize=256)
def _any_format(max_bits: int, families: tuple[str, ...]) -> st.SearchStrategy[Format]:
    made = [_fields(max_bits, family) for family in families if family != "catalogue"]
    named = [fmt for fmt in CANONICAL.values() if fmt.bits <= max_bits]
    if "catalogue" in families and named:
        made.insert(0, st.sampled_from(sorted(named, key=lambda fmt: fmt.bits)))
    return st.one_of(made)


@st.composite
def _fields(draw: st.DrawFn, max_bits: int, family: str) -> Format:
    """A format of one family, built so that few draws are rejected."""
    specials, signed = Specials.FINITE, True
    if family in ("flush", "unsigned"):
        choices = [Specials.IEEE, Specials.FN, Specials.FINITE]
        specials = draw(st.sampled_from(choices))
        signed = family == "flush" and draw(st.booleans())
    else:
        specials = Specials(family)
    if specials is Specials.E8M0:
        signed = False
    if specials.is_p3109:
        signed = draw(st.booleans())
    width = max_bits - signed
    if specials.is_p3109:
        width = min(width, 16 - signed)
    low = 0 if specials in (Specials.FN, Specials.FNUZ, Specials.FINITE) else 1
    low = 1 if family == "flush" else low
    top = 0 if specials is Specials.TWOS else max(low, min(width, 11))
    e = draw(st.integers(min(low, top), top))
    m = draw(st.integers(0, max(0, min(width - e, 52))))
    subnormals = {Specials.E8M0: Subnormals.NONE}.get(specials, Subnormals.GRADUAL)
    if family == "flush":
        subnormals = Subnormals.FLUSH
    bias = None
    if not specials.is_p3109 and draw(st.integers(0, 2)) == 2:
        center = (1 << e >> 1) - 1 if e else 1
        bias = center + draw(st.integers(-40, 40))
    try:
        return Format(e, m, bias, signed, specials, subnormals)  # type: ignore[arg-type]
    except ValueError:  # too few codes for the family's special values
        return draw(st.nothing())


@st.composite
def values(draw: st.DrawFn, fmt: Format | str, dtype: DTypeLike | None = None) -> Any:
    """One NumPy scalar of `dtype` (default float32, or float64), drawn relative to `fmt`."""
    return draw(_scalars(as_format(fmt), _dtype(fmt, dtype)))


def arrays(
    fmt: Format | str,
    dtype: DTypeLike | None = None,
    shape: int | tuple[int, ...] | st.SearchStrategy[Any] | None = None,
) -> st.SearchStrategy[Floats]:
    """Arrays of such values; by default of up to 3 dimensions and a few dozen elements."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=8)
    target = _dtype(fmt, dtype)
    width = target.itemsize * 8
    patterns = _scalars(as_format(fmt), target).map(lambda v: int(_patterns.bits(v.reshape(1))[0]))
    return hnp.arrays(f"u{width // 8}", shapes if shape is None else shape, elements=patterns).map(
        lambda found: floats(found, target)
    )


def containers(fmt: Format | str) -> st.SearchStrategy[np.dtype[Any]]:
    """The dtypes that hold every value of `fmt`. Errors: ValueError where there is none."""
    found = _patterns.containers(fmt)
    if not found:
        raise ValueError(f"fmt must fit float64, got {fmt}")
    return st.sampled_from(found)


def _dtype(fmt: Format | str, dtype: DTypeLike | None) -> np.dtype[Any]:
    return _patterns.usual_dtype(fmt) if dtype is None else float_dtype(dtype)


@lru_cache(maxsize=512)
def _scalars(fmt: Format, dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    container = container_of(dtype)
    chosen = points(fmt, dtype)
    listed = st.integers(0, len(chosen) - 1).map(lambda at: chosen[at])
    raw = st.integers(0, (1 << container.bits) - 1).map(
        lambda pattern: floats(np.array([pattern], np.uint64), dtype)[0]
    )
    return st.one_of(listed, _near_values(fmt, dtype), raw)


@st.composite
def _near_values(draw: st.DrawFn, fmt: Format, dtype: np.dtype[Any]) -> Any:
    """Any value of the format, or a point between it and the next, some patterns off, signed."""
    code = draw(st.integers(0, fmt.max_code))
    part = draw(st.sampled_from((0.0, 0.5, 0.25, 0.75, 1.0)) | st.floats(0, 1))
    low, high = magnitudes(fmt, np.array([code, code + 1]), scale=-1)
    with np.errstate(over="ignore"):
        near = narrow(np.array([(low + (high - low) * part) * 2]), dtype)
    top = container_of(dtype).infinity
    pattern = int(_patterns.bits(near)[0]) + draw(st.integers(-2, 2))
    sign = draw(st.booleans()) * container_of(dtype).sign
    return floats(np.array([min(max(pattern, 0), top) | sign], np.uint64), dtype)[0]


def stochastic(max_bits: int = 32) -> st.SearchStrategy[Stochastic]:
    """Stochastic roundings of all variants."""
    return st.builds(Stochastic, st.integers(1, max_bits), st.sampled_from(Variant))


def pseudo_noise(bits: bool = True) -> st.SearchStrategy[PseudoNoise]:
    """Pseudo roundings; with `bits`, block steps of a stated width only."""
    widths = st.integers(0, 24).map(float) | st.floats(0, 24, width=32)
    blocks = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.just((32, 32))
    noises = st.sampled_from(Noise)
    given = st.builds(PseudoNoise, noises, widths, blocks)
    return given if bits else given | st.builds(PseudoNoise, noises, step=st.just(Step.ULP))


def roundings(deterministic: bool = True, random: bool = True) -> st.SearchStrategy[Descriptor]:
    """Deterministic and stochastic modes, those that round a single value."""
    modes: list[st.SearchStrategy[Descriptor]] = []
    if deterministic:
        modes.append(st.sampled_from(Rounding))
    if random:
        modes.append(stochastic())
    return st.one_of(modes)


def policies() -> st.SearchStrategy[Policy]:
    """Policies of the contract: every overflow rule (None among them) and NaN rule."""
    return st.builds(Policy, st.none() | st.sampled_from(Overflow), nan=st.sampled_from(NanRule))


@st.composite
def keys(draw: st.DrawFn) -> Key:
    """Keys: small seeds first; edges of 64 bits, offsets that wrap, and rows come up."""
    word = (
        st.integers(0, 9)
        | st.integers(0, _WORD)
        | st.integers(0, 64).map(lambda n: ((1 << n) - 1) & _WORD)
        | st.integers(0, 40).map(lambda n: _WORD - n)
    )
    key = Key(draw(word), draw(st.just(0) | word), draw(st.just(0) | word))
    if draw(st.integers(0, 3)) < 3:
        return key
    length = draw(st.integers(1, 9) | st.integers(1, _WORD))
    return Key(key.seed, key.stream, key.offset, length, draw(word))
