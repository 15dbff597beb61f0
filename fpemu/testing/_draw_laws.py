"""Laws on stochastic rounding: which draw sends which value where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Descriptor, Stochastic, Variant
from fpemu.testing._draws import draws
from fpemu.testing._patterns import Floats, narrow, widen
from fpemu.testing._trial import Trial, draws_bits, law
from fpemu.testing.oracle import Neighbours, Table, scaled_fraction, table

MOST_SWEPT_BITS = 12

# Odd and even rungs, fractions on and off every grid of few bits.
_FRACTIONS = (1 / 2, 1 / 4, 3 / 4, 1 / 3, 2**-6, 1 - 2**-6, 0.3, 2**-20, 1 - 2**-13)


def _swept(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return (
        draws_bits(fmt, rounding, policy)
        and isinstance(rounding, Stochastic)
        and rounding.bits <= MOST_SWEPT_BITS
        and Table.covers(fmt)
    )


def _addressed(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return draws_bits(fmt, rounding, policy) and Table.covers(fmt)


def sweep_length(bits: int) -> int:
    """How many elements meet every draw of `bits` bits, but for a chance of about 2e-5."""
    return (1 << bits) * (bits + 11)


@law(_swept)
def probability_is_exact(trial: Trial) -> None:
    """Over all draws, the share that goes away from zero is the variant's formula, exactly.

    One value is repeated until every draw of N bits has come up; what an element becomes may
    depend on its draw alone, and of the 2**N draws as many must go away as the formula says.
    """
    rounding = trial.stochastic
    drawn = draws(trial.key, sweep_length(rounding.bits), rounding)
    different, first = np.unique(drawn, return_index=True)
    if different.size != 1 << rounding.bits:
        raise ValueError(f"key must meet every draw of {rounding}, got {trial.key}; try another")
    for value in _probes(trial):
        x = np.full(drawn.shape, value)
        got = np.abs(widen(trial.quantize(x)))
        at, counted = _formula(trial, value)
        went = got != at.low[0]
        trial.holds(~went | (got == at.high[0]), x, narrow(got, trial.dtype), "a neighbour of x")
        if (went != went[first][drawn]).any():
            trial.fail(
                f"{trial.describe(x, (0,))}: elements of the same draw were rounded differently"
            )
        share = int(went[first].sum())
        if share != counted:
            trial.fail(
                f"{trial.describe(x, (0,))}: {share} of the {different.size} draws go away "
                f"from zero, expected {counted}"
            )


def _formula(trial: Trial, value: Any) -> tuple[Neighbours, int]:
    """The neighbours of a value's magnitude, and how many draws must send it to the upper one."""
    size = np.abs(widen(np.array([value])))
    at = table(trial.fmt).positive.locate(size)
    rounding = trial.stochastic
    if rounding.variant is Variant.EQUAL:
        return at, int(size[0] != at.low[0])
    return at, int(scaled_fraction(size, at, rounding.bits, rounding.variant)[0])


def _probes(trial: Trial) -> Floats:
    """Values between two pairs of neighbours, and below the smallest, at known fractions."""
    ladder = table(trial.fmt).positive
    middle = ladder.beyond // 2
    found = []
    for rung in {0, middle, max(middle - 1, 0), ladder.beyond - 2} & set(range(ladder.beyond - 1)):
        low, high = ladder.rungs[rung], ladder.rungs[rung + 1]
        found += [low + (high - low) * part for part in _FRACTIONS]
    values = narrow(np.array(found), trial.dtype)
    values = values[values > 0]
    if trial.fmt.signed:
        values[::2] *= -1
    return values


@law(_addressed)
def thresholds_are_sharp(trial: Trial) -> None:
    """Each element, put just at its own draw's threshold, goes away; just below, it stays.

    This tells an N-bit draw from one with a bit more or less, shifted, reversed or reused,
    where random inputs would need 2**N tries.
    """
    rounding = trial.stochastic
    if rounding.variant is Variant.EQUAL:
        return
    count = min(len(trial.x), 4096)
    drawn = draws(trial.key, count, rounding)
    ladder = table(trial.fmt).positive
    rungs = np.arange(count) % (ladder.beyond - 1 or 1)
    low, high = ladder.rungs[rungs], ladder.rungs[np.minimum(rungs + 1, ladder.beyond)]
    needed = ((1 << rounding.bits) - drawn).astype(np.float64)  # 1..2**N
    for offset in (0.0, -0.25, 0.25, -0.5, 0.5, -0.75, -1.0):
        share = np.ldexp(np.maximum(needed + offset, 0.0), -rounding.bits)
        with np.errstate(invalid="ignore"):
            x = narrow(low + np.minimum(share, 1.0) * (high - low), trial.dtype)
        expected = table(trial.fmt).round(x, rounding, trial.policy, drawn)
        trial.same(x, trial.quantize(x), narrow(expected.values, trial.dtype))


_KEYS = (
    Key(0),
    Key(1),
    Key((1 << 64) - 1, (1 << 64) - 1),
    Key(1 << 32, 1 << 32),
    Key(7, offset=1),
    Key(7, offset=(1 << 32) - 3),
    Key(7, offset=(1 << 34) - 3),
    Key(7, offset=(1 << 64) - 3),
    Key(7, 9, 5, row_length=3, row_stride=1 << 40),
    Key(7, 9, 5, row_length=5, row_stride=0),
)


@law(_addressed)
def keys_address_draws(trial: Trial) -> None:
    """Seed, stream, offset and rows, at the edges of their ranges, give the draws they say."""
    x = narrow(_between(trial.fmt, 67), trial.dtype)
    for key in (trial.key, trial.key.child("w", 3), *_KEYS):
        drawn = draws(key, x.size, trial.stochastic)
        expected = narrow(trial.expect(x, drawn).values, trial.dtype)
        trial.same(x, trial.quantize(x, key=key), expected, f" with {key}")


def _between(fmt: Format, count: int) -> NDArray[np.float64]:
    """Values halfway between neighbours, where every draw matters."""
    middles = table(fmt).positive.middles[:-1]
    if not middles.size:
        middles = table(fmt).positive.rungs[:1] * 0.5
    return np.resize(middles, count)
