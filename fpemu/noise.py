"""Pseudo rounding of arrays: one addition of scaled noise, and one cast.

    delta = max|block| * 2**(1 - b)       one per block
    w_hat = cast( w + R * delta )         in this order, without contraction

computed in float32 (float64 input: float64). Source: Ahn and Yoo, arXiv 2505.11170, with our
own generator and addresses. A term R * delta that is zero is not added, so that -0 stays -0. A
block with NaN or infinity gets no noise, only the cast. A sum that overflows from a finite
weight is a finite overflow of its sign for the cast.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpemu import dtypes
from fpemu.backends import Backend
from fpemu.backends._blocks import maxima
from fpemu.flushing import refuse_flushing
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.lowering import FLOAT32, FLOAT64, Container, lower
from fpemu.policy import Policy
from fpemu.rounding import PseudoNoise, Rounding, Step
from fpemu.tiles import Piece, grid_shape, pieces
from fpemu.ulps import step_exponents

_PIECE = 1 << 15


def pseudo_round(
    x: NDArray[Any],
    out: NDArray[Any],
    fmt: Format,
    noise: PseudoNoise,
    policy: Policy,
    key: Key,
    bits: ArrayLike | None,
    engine: Backend,
) -> None:
    """Fill `out` with the pseudo-rounded `x`; the arguments are checked but for `bits`.

    Errors: ValueError for bits that are missing, out of [0, 24] or do not fit the block grid;
    RuntimeError where this thread flushes subnormals, which would change results.
    """
    refuse_flushing()
    _refuse_inexact(x)
    compute = FLOAT64 if dtypes.container_of(x.dtype) in (FLOAT64, None) else FLOAT32
    if not compute.holds(fmt):
        raise dtypes.refuse("pseudo rounding computes in", compute.name, fmt)
    if noise.step is Step.ULP and bits is not None:
        raise ValueError(f"bits must be None with rounding={str(noise)!r}")
    factors = None if noise.step is Step.ULP else step_factors(noise, bits, x.shape)
    if not x.size:
        return
    # Blocks are written as rectangles, which needs rows that lie one after the other.
    result = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    with np.errstate(all="ignore"):  # overflow, signalling NaNs: what comes of them is stated
        if factors is None:
            _ulp_steps(x, result, fmt, noise, key, engine, compute)
        else:
            _block_steps(x, result, fmt, noise, policy, key, factors, engine, compute)
    if result is not out:
        out[...] = result


def _block_steps(
    x: NDArray[Any],
    out: NDArray[Any],
    fmt: Format,
    noise: PseudoNoise,
    policy: Policy,
    key: Key,
    factors: NDArray[np.float32],
    engine: Backend,
    compute: Container,
) -> None:
    shape = (1, 1, *x.shape)[-max(2, x.ndim) :]
    rows, columns = shape[-2:]
    weights, results = x.reshape(-1, rows, columns), out.reshape(-1, rows, columns)
    factors = factors.reshape(-1, -(-rows // noise.block[0]), -(-columns // noise.block[1]))
    params = lower(fmt, Rounding.NEAREST_EVEN, policy, compute)
    height, width = noise.block
    for piece in pieces(weights.shape, noise.block, _PIECE):
        w = _floats(weights[piece], compute)
        largest = maxima(w, height, width)
        delta = largest * factors[piece.blocks(noise.block)]
        delta[~np.isfinite(largest)] = 0
        steps = delta.repeat(height, 0)[: w.shape[0]].repeat(width, 1)[:, : w.shape[1]]
        noisy = np.empty_like(w)
        _add_noise(w, noisy, np.ascontiguousarray(steps), noise, key, piece, shape, engine)
        rounded = np.empty(w.size, dtypes.unsigned(compute.bits))
        engine.round(dtypes.patterns(noisy).reshape(-1), rounded, params)
        overflowed = np.isinf(noisy) & np.isfinite(w)
        if overflowed.any():
            over = np.where(np.signbit(noisy), params.over_neg, params.over_pos)
            rounded[overflowed.reshape(-1)] = over[overflowed]
        place = np.empty(w.shape, out.dtype)
        dtypes.narrow(rounded.reshape(w.shape), compute, place)
        results[piece] = place


def _add_noise(
    w: NDArray[Any],
    noisy: NDArray[Any],
    steps: NDArray[Any],
    noise: PseudoNoise,
    key: Key,
    piece: Piece,
    shape: tuple[int, ...],
    engine: Backend,
) -> None:
    """Noise on a rectangle; whole rows are one run of indices, else each row is."""
    rows, columns = shape[-2:]
    start = (piece.batch * rows + piece.rows.start) * columns + piece.columns.start
    if w.shape[1] == columns:
        engine.add_noise(
            w.reshape(-1), noisy.reshape(-1), steps.reshape(-1), noise.noise, key, start
        )
        return
    for row in range(w.shape[0]):
        engine.add_noise(w[row], noisy[row], steps[row], noise.noise, key, start + row * columns)


def _ulp_steps(
    x: NDArray[Any],
    out: NDArray[Any],
    fmt: Format,
    noise: PseudoNoise,
    key: Key,
    engine: Backend,
    compute: Container,
) -> None:
    columns = x.shape[-1] if x.ndim else 1
    weights, results = x.reshape(1, -1, columns), out.reshape(1, -1, columns)
    target = dtypes.container_of(out.dtype)
    assert target is not None
    if not compute.holds(target.format):
        target = compute
    params = lower(target.format, Rounding.NEAREST_EVEN, Policy(), compute)
    for piece in pieces(weights.shape, (1, 1), _PIECE):
        w = _floats(weights[piece], compute)
        finite = np.isfinite(w)
        delta = np.ldexp(w.dtype.type(1), step_exponents(np.where(finite, w, 0), fmt))
        delta[~finite] = 0
        noisy = np.empty_like(w)
        _add_noise(w, noisy, delta, noise, key, piece, weights.shape, engine)
        rounded = np.empty(w.size, dtypes.unsigned(compute.bits))
        engine.round(dtypes.patterns(noisy).reshape(-1), rounded, params)
        place = np.empty(w.shape, out.dtype)
        dtypes.narrow(rounded.reshape(w.shape), compute, place)
        results[piece] = place


# ---------------------------------------------------------------- block steps


def step_factors(
    noise: PseudoNoise, bits: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """2**(1 - b) for every block, the float32 nearest to it, in the block grid's shape."""
    if bits is not None and noise.bits is not None:
        raise ValueError(f"bits must be given once, got {bits!r} and rounding={str(noise)!r}")
    given = noise.bits if bits is None else bits
    if given is None:
        raise ValueError(f"bits must be given with rounding={str(noise)!r}")
    try:
        widths = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"bits must be a number or an array of numbers, got {given!r}") from None
    if not (np.isfinite(widths) & (widths >= 0) & (widths <= 24)).all():
        raise ValueError("bits must be in [0, 24] everywhere")
    grid = grid_shape(shape, noise.block)
    try:
        return np.broadcast_to(exp2_of_one_minus(widths), grid)
    except ValueError:
        raise ValueError(
            f"bits must have the shape of the block grid, {grid}, or broadcast to it; "
            f"got {widths.shape}"
        ) from None


def exp2_of_one_minus(b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The float32 nearest to 2**(1 - b), correctly rounded, whatever the platform's exp2.

    A float64 estimate decides wherever it is clear of a float32 rounding boundary by far more
    than its error; exact integer arithmetic decides the rest.
    """
    flat = b.reshape(-1)
    estimate = np.exp2(1.0 - flat.astype(np.float64))
    nearest = estimate.astype(np.float32)
    slack = estimate * 2.0**-40
    unclear = (estimate - slack).astype(np.float32) != (estimate + slack).astype(np.float32)
    for at in np.flatnonzero(unclear):
        nearest[at] = _exact_exp2_of_one_minus(Fraction(float(flat[at])))
    return nearest.reshape(b.shape)


def _exact_exp2_of_one_minus(b: Fraction) -> np.float32:
    """Nearest float32 to 2**(1 - b): compare the midpoint's power with a power of two."""
    guess = np.float32(2.0 ** float(1 - b))
    candidates = [np.nextafter(guess, np.float32(0)), guess, np.nextafter(guess, np.float32(99))]
    best: np.float32 = candidates[0]
    for low, high in pairwise(candidates):
        middle = (Fraction(float(low)) + Fraction(float(high))) / 2
        if _power_exceeds(1 - b, middle):
            best = high
    return best


def _power_exceeds(exponent: Fraction, bound: Fraction) -> bool:
    """Whether 2**exponent > bound, by bisecting the exponent's bits with exact squarings."""
    # log2(bound) digit by digit: bound**2 shifts one binary digit of the logarithm out.
    whole = math.floor(exponent)
    rest, value = exponent - whole, bound / Fraction(2) ** whole
    precision = 400
    for _ in range(200):
        if value >= 2:
            return False
        if value < 1:
            return True
        rest *= 2
        value = value * value
        digit = math.floor(rest)
        rest -= digit
        value /= 2**digit
        if value >= 2:
            return False
        if value < 1:
            return True
        value = Fraction(math.floor(value * 2**precision), 2**precision)
    return False


def _refuse_inexact(x: NDArray[Any]) -> None:
    """Errors: ValueError for integers that float64, in which they are computed, does not hold."""
    if x.dtype.kind not in "iu" or x.dtype.itemsize < 8 or not x.size:
        return
    if int(x.max()) > 1 << 53 or int(x.min()) < -(1 << 53):
        raise ValueError("x must be within 2**53 for pseudo rounding of 64-bit integers")


def _floats(w: NDArray[Any], compute: Container) -> NDArray[Any]:
    """A contiguous copy in the computing dtype."""
    wide = dtypes.widen(np.ascontiguousarray(w), compute)
    return wide.view(f"f{compute.bits // 8}")
