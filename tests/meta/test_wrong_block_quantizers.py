"""The laws of blocks must be able to fail: wrong quantizers, each caught by a law it breaks.

They are made from `ByHand`, a third spelling of block formats in a few lines of NumPy, by
changing one step. Together the cases name every law of blocks there is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fpemu.blocks import BlockFormat
from fpemu.packing import pack
from fpemu.policy import Policy
from fpemu.rounding import Rounding, Stochastic
from fpemu.scales import ScaleMethod
from fpemu.testing import (
    BLOCK_LAWS,
    BlockReference,
    LawViolation,
    Stored,
    block_violations,
    check_blocks,
    draws,
)
from fpemu.testing._block_geometry import block_count, block_numbers, grid_of
from fpemu.testing._patterns import narrow, widen
from fpemu.testing.oracle import table

SATURATE = Policy("sat_finite")
F = np.float32


class ByHand:
    """float32 blocks with the rules floor, even and absmax; every step can be replaced."""

    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        values, *_ = self.work(x, fmt, rounding, key, axis, amax)
        return values

    def work(self, x, fmt, rounding, key, axis, amax):
        numbers, count = self.numbers(x, fmt, axis), block_count(x.shape, fmt, axis)
        tops = self.maxima(x, numbers, count)
        bad = ~np.isfinite(tops)
        if bad.any() and not fmt.nan_scale:
            raise ValueError("NaN without a NaN scale")
        outer = self.outer(fmt, tops, amax)
        with np.errstate(all="ignore"):
            scales = self.scales(fmt, tops, outer)
            drawn = None
            if isinstance(rounding, Stochastic):
                drawn = self.draws(x, rounding, key, axis)
            divisors = np.where(scales == 0, np.inf, scales).astype(F)[numbers]
            quotients = self.divide(x, outer, divisors)
            rounded = self.elements(fmt, quotients, rounding, drawn)
            values = rounded.values.astype(F) * scales.astype(F)[numbers]
            if outer is not None:
                values = values * outer
            values = np.clip(values, -np.finfo(F).max, np.finfo(F).max)
        values = np.where(bad[numbers], np.nan, values)
        return narrow(widen(values), x.dtype), scales, outer, rounded.codes, bad

    def numbers(self, x, fmt, axis):
        return block_numbers(x.shape, fmt, axis)

    def draws(self, x, rounding, key, axis):
        return draws(key, x.size, rounding).reshape(x.shape)

    def maxima(self, x, numbers, count):
        tops = np.zeros(count, F)
        with np.errstate(invalid="ignore"):
            np.maximum.at(tops, numbers.reshape(-1), np.abs(x).reshape(-1))
        return tops

    def outer(self, fmt, tops, amax):
        if fmt.outer is None:
            return None
        largest = tops[np.isfinite(tops)].max(initial=0) if amax is None else amax
        return F(largest) / F(float(fmt.qmax * fmt.scale.max_value))

    def scales(self, fmt, tops, outer):
        if fmt.rule.method is ScaleMethod.ABSMAX:
            ratio = tops / F(fmt.qmax)
            return self.rounded(fmt, ratio if outer is None else ratio / outer)
        exponent = self.exponent(fmt, tops if outer is None else tops / outer)
        low, high = fmt.scale_exponents
        powers = np.ldexp(F(1), np.clip(exponent, low, high))
        return np.where(tops == 0, F(float(fmt.scale.decode(0))), powers)

    def rounded(self, fmt, ratio):
        if fmt.scale.bits == 32:
            return ratio
        finite = np.where(np.isfinite(ratio), ratio, F(0))
        return table(fmt.scale).round(finite, Rounding.NEAREST_EVEN, SATURATE, None).values

    def exponent(self, fmt, size):
        size = np.where(np.isfinite(size), size, F(1))
        if fmt.rule.method is ScaleMethod.EVEN:
            half = np.frexp(size)[0] + F(2.0 ** (-fmt.top_mantissa_bits - 2))
            return np.frexp(size)[1] - 1 + (half >= 1) - fmt.emax
        return np.frexp(size)[1] - 1 - fmt.emax

    def divide(self, x, outer, divisors):
        return (x if outer is None else x / (outer or F(np.inf))) / divisors

    def elements(self, fmt, quotients, rounding, drawn):
        quotients = np.where(np.isnan(quotients), F(0), quotients)
        return table(fmt.element).round(quotients, rounding, SATURATE, drawn)


class ByHandStored(ByHand):
    """With a stored form; for scale formats of at most 16 bits."""

    def store(self, x, fmt, rounding, key, axis=-1, amax=None):
        values, scales, outer, codes, bad = self.work(x, fmt, rounding, key, axis, amax)
        numbers = self.numbers(x, fmt, axis)
        codes = np.where(bad[numbers], 0, codes).astype(np.uint8)
        found = table(fmt.scale).round(
            np.where(np.isfinite(scales), scales, 0), Rounding.NEAREST_EVEN, SATURATE, None
        )
        nan = fmt.scale.nan_code or 0
        grid = np.where(bad, nan, found.codes).astype(np.uint8)
        grid = grid.reshape(grid_of(x.shape, fmt, axis))
        kept = None if outer is None else float(outer)
        return Stored(codes, pack(codes, fmt.element.bits), grid, kept, values)


# ---------------------------------------------------------------------- wrong scales


class ExponentByLog2(ByHand):
    def exponent(self, fmt, size):
        size = np.where(np.isfinite(size) & (size > 0), size, F(1))
        return np.floor(np.log2(size)).astype(np.int32) - fmt.emax


class OneHigherAtPowersOfTwo(ByHand):
    def exponent(self, fmt, size):
        return super().exponent(fmt, size) + (np.frexp(size)[0] == 0.5)


class ScaleNotRounded(ByHand):
    def rounded(self, fmt, ratio):
        return ratio


class ScaleFromTheNorm(ByHand):
    def maxima(self, x, numbers, count):
        with np.errstate(over="ignore"):
            squares = np.bincount(numbers.reshape(-1), widen(x).reshape(-1) ** 2, count)
            return np.sqrt(squares).astype(F)


class OneScaleForAll(ByHand):
    def maxima(self, x, numbers, count):
        tops = super().maxima(x, numbers, count)
        return np.full(count, tops.max(initial=0))


class NearestPowerInsteadOfFloor(ByHand):
    def exponent(self, fmt, size):
        return super().exponent(fmt, size) + (np.frexp(size)[0] >= 0.75)


class NanIgnored(ByHand):
    def maxima(self, x, numbers, count):
        return super().maxima(np.where(np.isnan(x), F(0), x), numbers, count)


class NanSpreads(ByHand):
    """Every block after one with NaN is spoiled too."""

    def maxima(self, x, numbers, count):
        tops = super().maxima(x, numbers, count)
        return np.where(np.logical_or.accumulate(~np.isfinite(tops)), F(np.nan), tops)


class NoOuterScale(ByHand):
    def outer(self, fmt, tops, amax):
        return None if fmt.outer is None else F(1)


class OuterScaleSeesBadBlocks(ByHand):
    def outer(self, fmt, tops, amax):
        if fmt.outer is not None and amax is None and not np.isfinite(tops).all():
            amax = 1e30
        return super().outer(fmt, tops, amax)


class PaddedWithOnes(ByHand):
    """Short blocks are filled up with ones before the maximum is taken."""

    def maxima(self, x, numbers, count):
        tops = super().maxima(x, numbers, count)
        sizes = np.bincount(numbers.reshape(-1), minlength=count)
        return np.where(sizes < sizes.max(initial=0), np.maximum(tops, F(1)), tops)


class SubnormalsFlushed(ByHand):
    def maxima(self, x, numbers, count):
        tops = super().maxima(x, numbers, count)
        return np.where(tops < np.finfo(F).tiny, F(0), tops)


class SmallClip(ByHand):
    """A search that always takes a fifth of the maximum."""

    def scales(self, fmt, tops, outer):
        return self.rounded(fmt, tops / F(5 * fmt.qmax))


# -------------------------------------------------------------------- wrong elements


class MultipliesByTheReciprocal(ByHand):
    def divide(self, x, outer, divisors):
        return x * (F(1) / (outer or F(np.inf)) / divisors)


class OneDivisor(ByHand):
    """x / (s * t) for (x / t) / s."""

    def divide(self, x, outer, divisors):
        return x / ((outer or F(np.inf)) * divisors)


class NotSaturated(ByHand):
    def elements(self, fmt, quotients, rounding, drawn):
        found = super().elements(fmt, quotients, rounding, drawn)
        beyond = np.abs(quotients) > float(fmt.qmax) * 1.2
        return found._replace(values=np.where(beyond, np.rint(quotients), found.values))


class MinusZeroLost(ByHand):
    def elements(self, fmt, quotients, rounding, drawn):
        found = super().elements(fmt, quotients, rounding, drawn)
        return found._replace(values=found.values + 0.0)


class TiesUpward(ByHand):
    def elements(self, fmt, quotients, rounding, drawn):
        up = super().elements(fmt, quotients, Rounding.NEAREST_AWAY, drawn)
        down = super().elements(fmt, quotients, Rounding.NEAREST_ZERO, drawn)
        return up._replace(values=np.where(quotients < 0, down.values, up.values))


class UpIsAway(ByHand):
    def elements(self, fmt, quotients, rounding, drawn):
        found = super().elements(fmt, np.abs(quotients), rounding, drawn)
        return found._replace(values=np.copysign(found.values, quotients))


class DrawsOneMore(ByHand):
    def draws(self, x, rounding, key, axis):
        return super().draws(x, rounding, key, axis) + 1


# ---------------------------------------------------------------------- wrong places


class DrawsByTheMovedAxis(ByHand):
    def draws(self, x, rounding, key, axis):
        moved = np.moveaxis(x, axis, -1) if x.ndim else x
        drawn = draws(key, x.size, rounding).reshape(moved.shape)
        return np.moveaxis(drawn, -1, axis) if x.ndim else drawn


class OffsetIgnored(ByHand):
    def draws(self, x, rounding, key, axis):
        return super().draws(x, rounding, replace(key, offset=0), axis)


class AxisIgnored(ByHand):
    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        if isinstance(fmt.block, int) and x.ndim:
            return super().quantize(x.T, fmt, rounding, key, -1, amax).T if axis == 1 else (
                super().quantize(x, fmt, rounding, key, -1, amax))  # fmt: skip
        return super().quantize(x, fmt, rounding, key, axis, amax)


class BlocksRunOn(ByHand):
    """Blocks of the flattened array: the end of a row and the start of the next share one."""

    def numbers(self, x, fmt, axis):
        if isinstance(fmt.block, int):
            return (np.arange(x.size) // fmt.block).reshape(x.shape)
        return super().numbers(x, fmt, axis)


class TilesTurned(ByHand):
    def numbers(self, x, fmt, axis):
        if isinstance(fmt.block, tuple):
            fmt = replace(fmt, block=fmt.block[::-1])
        return super().numbers(x, fmt, axis) % max(block_count(x.shape, fmt, axis), 1)

    def work(self, x, fmt, rounding, key, axis, amax):
        if isinstance(fmt.block, tuple):
            fmt = replace(fmt, block=fmt.block[::-1])
        return ByHand.work(Plain(), x, fmt, rounding, key, axis, amax)


class Plain(ByHand):
    """A name for `ByHand` itself."""


class FirstRowOfTiles(ByHand):
    """The maximum of a tile is that of its first row."""

    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        if not isinstance(fmt.block, tuple) or x.ndim < 2:
            return super().quantize(x, fmt, rounding, key, axis, amax)
        self.seen = np.zeros(x.shape, bool)
        self.seen[..., :: fmt.block[0], :] = True
        got = super().quantize(x, fmt, rounding, key, axis, amax)
        self.seen = None
        return got

    seen: Any = None

    def maxima(self, x, numbers, count):
        return super().maxima(
            x if self.seen is None else np.where(self.seen, x, F(0)), numbers, count
        )


class TilesAcrossMatrices(ByHand):
    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        if isinstance(fmt.block, tuple) and x.ndim > 2:
            flat = x.reshape(-1, x.shape[-1])
            return super().quantize(flat, fmt, rounding, key, axis, amax).reshape(x.shape)
        return super().quantize(x, fmt, rounding, key, axis, amax)


class MemoryAsItLies(ByHand):
    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        if x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous:
            x = np.ascontiguousarray(x).reshape(-1, order="F").reshape(x.shape)
        return super().quantize(x, fmt, rounding, key, axis, amax)


class ChangesItsInput(ByHand):
    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        got = super().quantize(x, fmt, rounding, key, axis, amax)
        if x.flags.writeable and x.size:
            x[...] = got
        return got


class OneDimensionAtLeast(ByHand):
    def quantize(self, x, fmt, rounding, key, axis=-1, amax=None):
        return np.atleast_1d(super().quantize(x, fmt, rounding, key, axis, amax))


# ---------------------------------------------------------------------- wrong storage


class ScaleFloor(ByHandStored):
    """No scale below 2**-6, as against division by zero."""

    def rounded(self, fmt, ratio):
        return np.maximum(super().rounded(fmt, ratio), 2.0**-6)


class SignsNotStored(ByHandStored):
    def store(self, *arguments, **options):
        stored = super().store(*arguments, **options)
        return stored._replace(values=np.abs(stored.values))


class HighNibbleFirst(ByHandStored):
    def store(self, x, *arguments, **options):
        stored = super().store(x, *arguments, **options)
        return stored._replace(packed=stored.packed >> 4 | stored.packed << 4)


class ScaleCodesOffByOne(ByHandStored):
    def store(self, *arguments, **options):
        stored = super().store(*arguments, **options)
        return stored._replace(scales=np.maximum(stored.scales, 1) - 1)


class ScalesDraw(ByHandStored):
    drawn: Any = None

    def work(self, x, fmt, rounding, key, axis, amax):
        self.drawn = rounding if isinstance(rounding, Stochastic) else None
        return super().work(x, fmt, rounding, key, axis, amax)

    def exponent(self, fmt, size):
        return super().exponent(fmt, size) + (self.drawn is not None)


class BadBlocksKeepTheirCodes(ByHandStored):
    def store(self, x, fmt, *arguments, **options):
        stored = super().store(x, fmt, *arguments, **options)
        nan = stored.scales.reshape(-1)[self.numbers(x, fmt, -1)] == fmt.scale.nan_code
        return stored._replace(codes=np.where(nan, stored.codes | 1, stored.codes))


# ------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    quantizer: type[ByHand]
    caught_by: str
    fmt: str = "e2m1[8,e8m0]"
    rounding: str = "nearest_even"

    def __str__(self) -> str:
        return f"{self.quantizer.__name__}-{self.caught_by}-{self.fmt}-{self.rounding}"


NV, S8 = "e2m1[8,e4m3fn,absmax,fp32]", "stochastic:8"
TILE = "e2m1[4x4,e8m0]"
CASES = [
    # scales
    Case(ExponentByLog2, "maxima_beside_powers_of_two"),
    Case(OneHigherAtPowersOfTwo, "maxima_beside_powers_of_two"),
    Case(OneHigherAtPowersOfTwo, "blocks_agree_with_the_reference"),
    Case(ScaleNotRounded, "blocks_share_a_scale_of_the_format", "e2m1[8,e4m3fn]"),
    Case(ScaleFromTheNorm, "blocks_are_monotone"),
    Case(OneScaleForAll, "blocks_do_not_see_each_other"),
    Case(NearestPowerInsteadOfFloor, "blocks_are_idempotent"),
    Case(NearestPowerInsteadOfFloor, "blocks_agree_with_the_reference", "e2m1[8,e8m0,even]"),
    Case(NanIgnored, "spoiled_blocks_spoil_no_other"),
    Case(NanSpreads, "spoiled_blocks_spoil_no_other"),
    Case(NoOuterScale, "powers_of_two_commute", NV),
    Case(NoOuterScale, "blocks_agree_with_the_reference", NV),
    Case(OuterScaleSeesBadBlocks, "spoiled_blocks_spoil_no_other", NV),
    Case(PaddedWithOnes, "ragged_blocks_are_padded_with_zeros"),
    Case(SubnormalsFlushed, "tiny_blocks_agree_with_the_reference", "e2m1[8,fp32]"),
    Case(SmallClip, "searched_scales_are_no_worse", "e2m1[8,fp32,mse:5:0.8:2]"),
    # elements
    Case(MultipliesByTheReciprocal, "blocks_agree_with_the_reference", NV),
    Case(OneDivisor, "blocks_agree_with_the_reference", NV),
    Case(NotSaturated, "elements_do_not_exceed_the_largest"),
    Case(MinusZeroLost, "zero_blocks_stay_zero"),
    Case(TiesUpward, "blocks_are_odd", rounding="nearest_away"),
    Case(UpIsAway, "directed_modes_mirror_blocks", rounding="toward_positive"),
    Case(DrawsOneMore, "stochastic_blocks_are_unbiased", rounding=S8),
    # places
    Case(DrawsByTheMovedAxis, "shards_of_blocks_agree", rounding=S8),
    Case(OffsetIgnored, "chunks_of_blocks_agree", rounding=S8),
    Case(AxisIgnored, "axes_do_not_matter"),
    Case(BlocksRunOn, "chunks_of_blocks_agree"),
    Case(TilesTurned, "runs_are_tiles"),
    Case(FirstRowOfTiles, "tiles_transpose", TILE),
    Case(TilesAcrossMatrices, "batches_of_blocks_agree", TILE),
    Case(MemoryAsItLies, "blocks_ignore_memory_layout"),
    Case(ChangesItsInput, "blocks_are_left_alone"),
    Case(OneDimensionAtLeast, "small_arrays_are_taken"),
    # storage
    Case(ScaleFloor, "stored_scales_are_those_of_the_reference", NV),
    Case(ScaleFloor, "edge_blocks_have_their_codes", "e2m1[8,e4m3fn]"),
    Case(SignsNotStored, "storing_keeps_the_values"),
    Case(HighNibbleFirst, "packed_and_unpacked_agree"),
    Case(ScaleCodesOffByOne, "stored_elements_follow_from_their_scales"),
    Case(ScalesDraw, "scales_do_not_draw", rounding=S8),
    Case(BadBlocksKeepTheirCodes, "edge_blocks_have_their_codes"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_wrong_quantizers_are_caught(case: Case) -> None:
    with pytest.raises(LawViolation) as caught:
        BLOCK_LAWS[case.caught_by].function(case.quantizer(), case.fmt, rounding=case.rounding)
    assert caught.value.law == case.caught_by
    fmt = BlockFormat.parse(case.fmt)
    assert str(caught.value).startswith(f"{case.caught_by} does not hold for {fmt}")


def test_every_law_catches_something() -> None:
    assert {case.caught_by for case in CASES} == set(BLOCK_LAWS)


CONTROLS = ("e2m1[8,e8m0]", "e4m3fn[8,e8m0,even]", NV, "e2m1[8,e4m3fn]", TILE)


@pytest.mark.parametrize("spelling", CONTROLS)
@pytest.mark.parametrize("rounding", ["nearest_even", "toward_positive", S8])
def test_the_quantizer_they_are_made_from_breaks_no_law(spelling: str, rounding: str) -> None:
    found = block_violations(
        ByHandStored(), spelling, rounding=rounding, skip={"stochastic_blocks_are_unbiased"}
    )
    assert found == {}


def test_violations_goes_on_and_check_stops() -> None:
    found = block_violations(ExponentByLog2(), "e2m1[8,e8m0]", rounding="nearest_even")
    assert {"maxima_beside_powers_of_two", "blocks_agree_with_the_reference"} <= set(found)
    with pytest.raises(LawViolation):
        check_blocks(ExponentByLog2(), "e2m1[8,e8m0]", rounding="nearest_even")


def test_a_counterexample_can_be_read() -> None:
    x = np.array([[8.0, 1.3, 0, 0], [4.0, 1.3, 0, 0]], F)
    with pytest.raises(LawViolation) as caught:
        BLOCK_LAWS["blocks_agree_with_the_reference"].function(
            OneHigherAtPowersOfTwo(), "e2m1[4,e8m0]", x
        )
    assert str(caught.value) == (
        "blocks_agree_with_the_reference does not hold for e2m1[4,e8m0], nearest_even: "
        "x[0, 1] = 1.2999999523162842 (float32 0x3fa66666): got 2.0 (float32 0x40000000), "
        "expected 1.0 (float32 0x3f800000) (axis -1); 2 of 8 elements"
    )


def test_unknown_laws_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match="blocks_are_nice"):
        check_blocks(BlockReference(), "mxfp4", skip={"blocks_are_nice"})


def test_a_law_refuses_what_it_says_nothing_about() -> None:
    with pytest.raises(ValueError, match="tiles_transpose says nothing about mxfp4"):
        BLOCK_LAWS["tiles_transpose"].function(BlockReference(), "mxfp4")
    with pytest.raises(TypeError, match="single values"):
        check_blocks(BlockReference(), "mxfp4", rounding="pseudo_gaussian:4:4x4")
