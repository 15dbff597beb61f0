"""What the laws of blocks are run on: a small protocol, and two things that obey it.

`BlockBackend` is fpemu itself on one backend, `BlockReference` the definition block by block. To
test something else, write a class with a `quantize` method (and `store` if it has codes) and hand
it to `fpemu.testing.check_blocks`.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fpemu import block_reference
from fpemu.block_reference import Block
from fpemu.blocks import BlockFormat
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Overflow, Policy
from fpemu.reference import round_value
from fpemu.rounding import Rounding, Stochastic
from fpemu.scales import ScaleMethod, ScaleRule
from fpemu.testing._block_geometry import block_count, block_numbers, grid_of
from fpemu.testing._draws import draws
from fpemu.testing._patterns import Floats, Unsigned, container_of, floats, widen
from fpemu.values import Special, Value, as_value, exponent_of, power_of_two

Mode = Rounding | Stochastic
_SATURATE = Policy(Overflow.SAT_FINITE)
_FLOAT32, _FLOAT64 = container_of(np.float32).format, container_of(np.float64).format


class Stored(NamedTuple):
    """An array in stored form: `codes` of the elements in its shape, the bytes they are `packed`
    to, codes of the `scales` (None without scales), the `outer` scale's value or None, and the
    `values` that are read back from all this."""

    codes: Unsigned
    packed: NDArray[np.uint8]
    scales: Unsigned | None
    outer: float | None
    values: Floats


class BlockQuantizer(Protocol):
    """Something that rounds arrays to block formats."""

    def quantize(
        self,
        x: Floats,
        fmt: BlockFormat,
        rounding: Mode,
        key: Key,
        axis: int = -1,
        amax: float | None = None,
    ) -> Floats:
        """`x` rounded to `fmt` along `axis`, in the shape and dtype of `x`.

        `amax` is given for formats with an outer scale only, and then takes the place of the
        largest magnitude of `x`. Deterministic modes ignore `key`. ValueError for NaN or an
        infinity where the scale format has no NaN.
        """


@runtime_checkable
class BlockCodec(Protocol):
    """A `BlockQuantizer` that also has a stored form."""

    def quantize(
        self,
        x: Floats,
        fmt: BlockFormat,
        rounding: Mode,
        key: Key,
        axis: int = -1,
        amax: float | None = None,
    ) -> Floats:
        """As in `BlockQuantizer`."""

    def store(
        self,
        x: Floats,
        fmt: BlockFormat,
        rounding: Mode,
        key: Key,
        axis: int = -1,
        amax: float | None = None,
    ) -> Stored:
        """The stored form of what `quantize` gives for the same arguments."""


class BlockBackend:
    """fpemu's verbs on one backend; None lets fpemu choose."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"BlockBackend({self.name!r})"

    def quantize(
        self,
        x: Floats,
        fmt: BlockFormat,
        rounding: Mode,
        key: Key,
        axis: int = -1,
        amax: float | None = None,
    ) -> Floats:
        from fpemu import arrays

        drawn = None if isinstance(rounding, Rounding) else key
        result: Floats = arrays.quantize(
            x, fmt, rounding=rounding, key=drawn, axis=axis, amax=amax, backend=self.name
        )
        return result

    def store(
        self,
        x: Floats,
        fmt: BlockFormat,
        rounding: Mode,
        key: Key,
        axis: int = -1,
        amax: float | None = None,
    ) -> Stored:
        from fpemu.quantized import compress

        drawn = None if isinstance(rounding, Rounding) else key
        kept = compress(
            x, fmt, rounding=rounding, key=drawn, axis=axis, amax=amax, backend=self.name
        )
        values = kept.dequantize(backend=self.name)
        return Stored(kept.element_codes(), kept.codes, kept.scales, kept.outer, values)


class BlockReference:
    """`fpemu.block_reference` on every block: exact, and slow (some 50 microseconds an element).

    Rules that need all elements are not defined there: ValueError.
    """

    def quantize(
        self,
        x: Floats,
        fmt: BlockFormat,
        rounding: Mode,
        key: Key,
        axis: int = -1,
        amax: float | None = None,
    ) -> Floats:
        return values_by_definition(x, fmt, rounding, key, axis, amax)


# ------------------------------------------------------------ the definition on arrays


class Scales(NamedTuple):
    """The scale of every block in C order, and the outer scale."""

    each: tuple[Value, ...]
    outer: Value | None


def compute_format(x: Floats) -> Format:
    """What blocks of `x` are computed in."""
    return _FLOAT64 if x.dtype == np.float64 else _FLOAT32


def members(x: Floats, fmt: BlockFormat, axis: int = -1) -> list[NDArray[np.intp]]:
    """The flat positions of the elements of every block, in C order each."""
    numbers = block_numbers(x.shape, fmt, axis).reshape(-1)
    order = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers, minlength=block_count(x.shape, fmt, axis))
    return np.split(order, np.cumsum(counts)[:-1])


def scales_by_definition(
    x: Floats, fmt: BlockFormat, axis: int = -1, amax: float | None = None
) -> Scales:
    """The scales of the blocks of `x`, for rules that need no more than the largest magnitudes."""
    return _scales(_Array.of(x), fmt, axis, amax)


def values_by_definition(
    x: Floats,
    fmt: BlockFormat,
    rounding: Mode,
    key: Key,
    axis: int = -1,
    amax: float | None = None,
    scales: Scales | None = None,
) -> Floats:
    """What `x` becomes, under scales of its own or given ones; rounded once to its dtype."""
    source = _Array.of(x)
    found = _values(source, fmt, rounding, key, axis, scales or _scales(source, fmt, axis, amax))
    return floats(np.array(found, np.uint64), x.dtype).reshape(x.shape)


class _Array(NamedTuple):
    """An array that can be the key of a cache: backends are compared with the same results."""

    content: bytes
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @staticmethod
    def of(x: Floats) -> _Array:
        return _Array(x.tobytes(), x.dtype, x.shape)

    @property
    def array(self) -> Floats:
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)


@lru_cache(maxsize=128)
def _scales(source: _Array, fmt: BlockFormat, axis: int, amax: float | None) -> Scales:
    x = source.array
    compute = compute_format(x)
    numbers = [as_value(v) for v in widen(x).reshape(-1).tolist()]
    sizes = [_magnitude([numbers[i] for i in block]) for block in members(x, fmt, axis)]
    outer: Value | None = None
    if fmt.outer is not None:
        finite = [size for size in sizes if isinstance(size, Fraction)]
        given = max(finite, default=Fraction(0)) if amax is None else Fraction(amax)
        outer = block_reference.outer_scale(fmt, given, compute)
    if fmt.scale is None:
        if not all(isinstance(size, Fraction) for size in sizes):
            raise ValueError("x must not hold NaN or infinities without scales")
        return Scales((Fraction(1),) * len(sizes), None)
    simple = fmt
    if fmt.rule.method is ScaleMethod.POW2_M2:
        simple = replace(fmt, rule=ScaleRule(ScaleMethod.ABSMAX))
    each = [block_reference.block_scale(simple, size, outer, compute) for size in sizes]
    if fmt.rule.method is ScaleMethod.POW2_M2:
        each = _in_powers(each, fmt, x.shape, axis)
    return Scales(tuple(each), outer)


def _magnitude(block: list[Value]) -> Value:
    if Special.NAN in block:
        return Special.NAN
    if Special.POS_INF in block or Special.NEG_INF in block:
        return Special.POS_INF
    return max((abs(v) for v in block if isinstance(v, Fraction)), default=Fraction(0))


def _in_powers(
    scales: list[Value], fmt: BlockFormat, shape: tuple[int, ...], axis: int
) -> list[Value]:
    """Rule pow2_m2: s_max / 2**ceil(log2(s_max / s)) along the axis that blocks run along."""
    assert fmt.scale is not None
    grid = grid_of(shape, fmt, axis)
    rows = np.zeros((), np.intp) if not grid else np.arange(len(scales)).reshape(grid)
    if grid:
        along = axis if isinstance(fmt.block, int) else -1
        rows = np.moveaxis(rows, along, -1)
    found = list(scales)
    for row in rows.reshape(-1, rows.shape[-1] if grid else 1):
        top = max((s for i in row if isinstance(s := scales[i], Fraction)), default=Fraction(0))
        for i in row:
            size = scales[i]
            if isinstance(size, Fraction) and size > 0:
                floor = exponent_of(top / size)
                power = floor + (top / size > power_of_two(floor))
                found[i] = round_value(
                    fmt.scale, top / power_of_two(power), Rounding.NEAREST_EVEN, _SATURATE
                )
    return found


@lru_cache(maxsize=128)
def _values(
    source: _Array,
    fmt: BlockFormat,
    rounding: Mode,
    key: Key,
    axis: int,
    scales: Scales,
) -> tuple[int, ...]:
    x = source.array
    each, outer = scales
    drawn = draws(key, x.size, rounding).tolist() if isinstance(rounding, Stochastic) else None
    numbers = [as_value(v) for v in widen(x).reshape(-1).tolist()]
    container, compute = container_of(x.dtype), compute_format(x)
    found = [0] * x.size
    for scale, block in zip(each, members(x, fmt, axis), strict=True):
        rounded: Block = block_reference.round_block(
            fmt,
            [numbers[i] for i in block],
            scale,
            outer,
            rounding=rounding,
            draws=None if drawn is None else [drawn[i] for i in block],
            compute=compute,
        )
        for i, value in zip(block, rounded.values, strict=True):
            if container.format != compute:
                value = round_value(container.format, value, Rounding.NEAREST_EVEN, _SATURATE)
            found[i] = container.pattern(value)
    return tuple(found)


def decoded_scales(stored: Stored, fmt: BlockFormat, count: int) -> Scales:
    """The scales of a stored array, exactly. Errors: ValueError for codes that are none."""
    outer = None if stored.outer is None else as_value(stored.outer)
    if fmt.scale is None or stored.scales is None:
        return Scales((Fraction(1),) * count, outer)
    scale = fmt.scale
    return Scales(tuple(scale.decode(int(code)) for code in stored.scales.reshape(-1)), outer)


__all__ = [
    "BlockBackend",
    "BlockCodec",
    "BlockQuantizer",
    "BlockReference",
    "Mode",
    "Scales",
    "Stored",
    "compute_format",
    "decoded_scales",
    "members",
    "scales_by_definition",
    "values_by_definition",
]
