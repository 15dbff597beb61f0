"""Laws for the quantization signal-to-noise ratio (QSNR) of block formats, in decibels.

A block is described by its crest factor, max|x| / rms(x). With scales that are powers of two, the
scale exceeds the one that just fits by `loss` in [1, 2); with E4M3 scales it fits, and the largest
of the `block` elements is taken to have no error. Integer elements have uniform errors; of
floating-point elements, normal values have errors relative to themselves and subnormal values
errors of one fixed step.

Source: "INT v.s. FP", arXiv 2510.25602. These are estimates: they know nothing of clipping or of
the rounding of E4M3 scales. The form for E4M3 scales is the less certain one: it has 4-bit integers
and e2m1 in blocks of 16 cross at 2.46 for Gaussian data, where 2.39 has been reported.
"""

from __future__ import annotations

import math

from fpemu.choices import as_int
from fpemu.formats import Format, Subnormals

DEFAULT_LOSS = 1.5


def integer_qsnr(bits: int, crest: float, *, loss: float = 1.0, block: int | None = None) -> float:
    """The law for `bits`-bit integers: ``4.77 + 6.02 bits - 20 log10(loss * crest)``.

    With `block`, the size of blocks with E4M3 scales, 10 log10(block / (block - 1)) more.
    Errors: ValueError for arguments out of range; see `element_qsnr`.
    """
    if as_int("bits", bits) < 1:
        raise ValueError(f"bits must be positive, got {bits}")
    _check(crest, loss, block)
    ratio = 3 * 4.0**bits / (loss * crest) ** 2
    if block is not None:
        ratio *= block / (block - 1)
    return 10 * math.log10(ratio)


def element_qsnr(
    fmt: Format,
    crest: float,
    *,
    loss: float = 1.0,
    block: int | None = None,
    normal_energy: float | None = None,
    subnormal_probability: float | None = None,
) -> float:
    """The law for elements of a floating-point format.

        -10 log10( a (w - crest**2 / block) + b (loss * crest)**2 p )
        a = 1 / (24 * 4**m),    b = 4**(1 - bias - m) / (12 * max_value**2)

    w is the share of the energy in values that become normal numbers of `fmt`, p the probability
    of the others; None takes those of Gaussian data, `gaussian_shares`. Without `block` the term
    crest**2 / block is absent. The result is inf where the law leaves no error.
    Errors: ValueError for a crest below 1 (or above sqrt(block)), a loss outside [1, 2), a loss
    other than 1 with a block (E4M3 scales lose nothing), a block below 2, shares outside [0, 1],
    and formats without sign, exponent bits or gradual subnormals.
    """
    _check(crest, loss, block)
    if not fmt.signed or not fmt.exponent_bits or fmt.subnormals is not Subnormals.GRADUAL:
        raise ValueError(f"fmt must be signed, with exponents and gradual subnormals, got {fmt}")
    energy, probability = gaussian_shares(fmt, crest, loss=loss)
    energy = energy if normal_energy is None else normal_energy
    probability = probability if subnormal_probability is None else subnormal_probability
    for name, share in (("normal_energy", energy), ("subnormal_probability", probability)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {share!r}")
    if block is not None:
        energy -= crest**2 / block
    step = math.ldexp(1.0, fmt.quantum_exponent) / float(fmt.max_value)
    noise = energy / (24 * 4.0**fmt.mantissa_bits) + (step * loss * crest) ** 2 / 12 * probability
    return -10 * math.log10(noise) if noise > 0 else math.inf


def gaussian_shares(fmt: Format, crest: float, *, loss: float = 1.0) -> tuple[float, float]:
    """Of Gaussian data scaled so that loss * max|x| becomes max_value: the share of the energy in
    values of at least the smallest normal number, and the probability of those below it."""
    edge = math.ldexp(1.0, fmt.emin) / float(fmt.max_value) * loss * crest
    below = math.erf(edge / math.sqrt(2))
    return 1 - below + edge * math.sqrt(2 / math.pi) * math.exp(-(edge**2) / 2), below


def gaussian_crossover(
    bits: int, fmt: Format, *, loss: float = DEFAULT_LOSS, block: int | None = None
) -> float:
    """The crest factor at which both laws agree for Gaussian data; integers win below it.

    `loss` is for scales that are powers of two; with `block` it is 1, whatever is given.
    Errors: as the laws; ValueError where they do not cross.
    """
    if block is not None:
        loss = 1.0

    def lead(crest: float) -> float:
        return integer_qsnr(bits, crest, loss=loss, block=block) - element_qsnr(
            fmt, crest, loss=loss, block=block
        )

    low = 1.0
    high = 1024.0 if block is None else math.sqrt(block)
    if not lead(low) > 0 > lead(high):
        raise ValueError(f"the laws of {bits}-bit integers and {fmt} do not cross")
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if lead(middle) > 0 else (low, middle)
    return low


def _check(crest: float, loss: float, block: int | None) -> None:
    if not 1 <= loss < 2:
        raise ValueError(f"loss must be in [1, 2), got {loss!r}")
    if block is not None and as_int("block", block) < 2:
        raise ValueError(f"block must be at least 2, got {block}")
    if block is not None and loss != 1:
        raise ValueError(f"loss must be 1 with block, whose scales fit, got {loss!r}")
    if not (1 <= crest < math.inf and (block is None or crest**2 <= block * (1 + 1e-15))):
        limit = "" if block is None else f" and at most sqrt({block})"
        raise ValueError(f"crest must be finite, at least 1{limit}, got {crest!r}")
