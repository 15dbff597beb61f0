"""Laws on pseudo rounding: noise, blocks and the cast."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fpemu import algebra
from fpemu.formats import Format
from fpemu.policy import Policy
from fpemu.rounding import Descriptor, Noise, PseudoNoise, Rounding, Step
from fpemu.testing._draws import lanes
from fpemu.testing._patterns import Floats, bits, narrow, widen
from fpemu.testing._pseudo import noise_of, pseudo_round
from fpemu.testing._trial import Trial, is_plain, law


def _noisy(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return isinstance(rounding, PseudoNoise) and is_plain(policy)


def _blocks(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return (
        isinstance(rounding, PseudoNoise)
        and is_plain(policy)
        and rounding.step is Step.BLOCK
        and rounding.bits is not None
    )


def _keeps_noise(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return (
        _blocks(fmt, rounding, policy)
        and isinstance(rounding, PseudoNoise)
        and rounding.noise is Noise.ROUNDED_GAUSSIAN
        and fmt.signed
        and fmt.min_normal is not None
        and rounding.bits is not None
        and rounding.bits >= 1
        and algebra.noise_survives(fmt, rounding.bits)
    )


def _noise(trial: Trial) -> PseudoNoise:
    assert isinstance(trial.rounding, PseudoNoise)
    return trial.rounding


def weights(trial: Trial, shape: tuple[int, ...] = (2, 21, 13)) -> Floats:
    """Finite weights of all sizes up to the middle of the format's range, some zero, both signs."""
    top = min(trial.fmt.emax, 100)
    draws = lanes(trial.key.child("weights"), int(np.prod(shape)), 32)
    exponents = top - 2 - draws % 9
    significands = 1 + (draws >> 4 & 0xFFFFF) / 2.0**20
    values = np.ldexp(significands, exponents.astype(np.int32)) * np.where(draws & 8, 1, -1)
    values[draws % 23 == 0] = 0.0
    values[draws % 29 == 0] = -0.0
    return narrow(values, trial.dtype).reshape(shape)


def _noises(trial: Trial, size: int) -> NDArray[np.float64]:
    """The R that each element draws."""
    drawn = lanes(trial.key, size, 16)
    return np.array([float(noise_of(_noise(trial).noise, int(draw))) for draw in drawn])


@law(_noisy)
def noise_agrees_with_the_reference(trial: Trial) -> None:
    """Bit for bit the exact computation of `fpemu.testing._pseudo`, special blocks included."""
    for x in (weights(trial), weights(trial, (37,)), np.resize(trial.x, (9, 50))):
        expected = pseudo_round(x, trial.fmt, _noise(trial), trial.policy, trial.key)
        trial.same(x, trial.quantize(x), expected)


@law(_noisy)
def zero_noise_is_a_cast(trial: Trial) -> None:
    """Where R is 0 the result is the plain cast of w, the sign of zero included."""
    x = weights(trial)
    silent = (_noises(trial, x.size) == 0).reshape(x.shape)
    got = trial.quantize(x)
    expected = x
    if _noise(trial).step is Step.BLOCK:
        expected = trial.quantize(x, rounding=Rounding.NEAREST_EVEN)
    trial.same(x[silent], got[silent], expected[silent])


@law(_blocks)
def zero_blocks_stay_zero(trial: Trial) -> None:
    """A block of zeros is rounded as zeros, whatever is drawn."""
    x = np.zeros((64, 64), trial.dtype)
    if trial.fmt.has_negative_zero:
        x[::2] = -0.0
    trial.same(x, trial.quantize(x), trial.quantize(x, rounding=Rounding.NEAREST_EVEN))


@law(_blocks)
def spoiled_blocks_get_no_noise(trial: Trial) -> None:
    """A block with NaN or an infinity gets the cast alone; other blocks get what they had."""
    height, width = _noise(trial).block
    x = weights(trial, (2 * height, 2 * width))
    clean = trial.quantize(x)
    for bad in (np.nan, np.inf, -np.inf):
        spoiled = x.copy()
        spoiled[height - 1, 0] = bad
        got = trial.quantize(spoiled)
        cast = trial.quantize(spoiled, rounding=Rounding.NEAREST_EVEN)
        here = (slice(0, height), slice(0, width))
        trial.same(spoiled[here], got[here], cast[here])
        got[here] = clean[here]
        trial.same(x, got, clean, " (another block was spoiled)")


@law(_keeps_noise)
def noise_survives_at_the_maximum(trial: Trial) -> None:
    """Where bits <= m + 2, noise that is not 0 changes the block maximum, powers of two aside."""
    fmt = trial.fmt
    top = fmt.max_code - (2 << fmt.mantissa_bits)
    if fmt.mantissa_bits == 0 or top < 1 << fmt.mantissa_bits:
        return
    size = 64
    step = (1 << fmt.mantissa_bits) // 64 + 1
    codes = top - np.arange(0, min(top >> 1, 64 * step), step)
    values = [fmt.magnitude(int(code)) for code in codes]
    values = [v for v in values if v.numerator & (v.numerator - 1)]
    noise = replace(_noise(trial), block=(1, 1))
    drawn = _noises(trial, size)
    for value in values:
        x = narrow(np.full((size, 1), float(value)), trial.dtype)
        if Fraction(float(widen(x)[0, 0])) != value:
            continue
        got = trial.quantize(x, rounding=noise)
        moved = (bits(got) != bits(x)).reshape(-1)
        trial.holds((moved == (drawn != 0)).reshape(x.shape), x, got, "moved just where R is not 0")


@law(_noisy)
def batches_draw_as_the_whole(trial: Trial) -> None:
    """A leading slice, with its offset in the key, is rounded as it is inside the whole."""
    x = weights(trial, (3, 10, 8))
    whole = trial.quantize(x)
    for first in range(3):
        key = replace(trial.key, offset=trial.key.index(first * 80))
        got = trial.quantize(x[first], key=key)
        trial.same(x[first], got, whole[first], f" (batch {first})")


@law(_noisy)
def noise_ignores_memory_layout(trial: Trial) -> None:
    """Transposed, strided and reversed weights give the bits of their C-order copy."""
    x = weights(trial, (40, 36))
    expected = trial.quantize(x)
    for view in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1].copy()[::-1]):
        trial.same(x, trial.quantize(view), expected)
