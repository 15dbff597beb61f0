"""How a law of blocks is stated and called; see `_trial` for those of single values.

A law is a function of a `BlockTrial`: a quantizer, a block format, inputs whose blocks run along
the last axis, a rounding and a key. `block_law` registers it in `BLOCK_LAWS` and gives it the
public signature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fpemu.blocks import BlockFormat
from fpemu.keys import Key, as_key
from fpemu.rounding import PseudoNoise, Rounding, Stochastic, parse_rounding
from fpemu.scales import ScaleMethod
from fpemu.testing._block_geometry import block_numbers, largest_of_all
from fpemu.testing._block_points import block_points
from fpemu.testing._block_quantizers import BlockCodec, BlockQuantizer, Mode, Stored
from fpemu.testing._patterns import Floats, widen
from fpemu.testing._reports import Reports

KEY = Key(0xB10C, stream=5)


@dataclass(frozen=True)
class BlockTrial(Reports):
    """One law on one quantizer under one setting."""

    law: str
    quantizer: BlockQuantizer
    fmt: BlockFormat
    x: Floats
    rounding: Mode
    key: Key

    @property
    def setting(self) -> str:
        return f"{self.fmt}, {self.rounding}"

    @property
    def wide(self) -> Floats:
        """The inputs in a dtype that blocks are computed in, whose results are not rounded."""
        if self.x.dtype in (np.float32, np.float64):
            return self.x
        return widen(self.x).astype(np.float32)

    def amax(self, x: Floats, axis: int = -1) -> float | None:
        """What to pass as `amax`, so that a part is quantized as inside `x`."""
        return None if self.fmt.outer is None else largest_of_all(x, self.fmt, axis)

    def numbers(self, x: Floats, axis: int = -1) -> Any:
        """The number of each element's block."""
        return block_numbers(x.shape, self.fmt, axis)

    def quantize(
        self,
        x: Floats,
        *,
        key: Key | None = None,
        rounding: Mode | None = None,
        fmt: BlockFormat | None = None,
        axis: int = -1,
        amax: float | None = None,
    ) -> Floats:
        """The quantizer's result, which must have the shape and dtype of `x`."""
        result = self.quantizer.quantize(
            x, fmt or self.fmt, rounding or self.rounding, key or self.key, axis, amax
        )
        if result.shape != x.shape or result.dtype != x.dtype:
            self.fail(
                f"x of {x.dtype}{x.shape} became {result.dtype}{result.shape}; "
                "shape and dtype must stay"
            )
        return result

    def store(self, x: Floats, *, rounding: Mode | None = None, axis: int = -1) -> Stored:
        """The quantizer's stored form, whose codes must have the shape of `x`."""
        assert isinstance(self.quantizer, BlockCodec)
        stored = self.quantizer.store(x, self.fmt, rounding or self.rounding, self.key, axis)
        if stored.codes.shape != x.shape or stored.codes.dtype.kind != "u":
            self.fail(f"codes of x{x.shape} came as {stored.codes.dtype}{stored.codes.shape}")
        if stored.values.shape != x.shape or stored.values.dtype != x.dtype:
            self.fail(
                f"x of {x.dtype}{x.shape} was read back as "
                f"{stored.values.dtype}{stored.values.shape}"
            )
        return stored


class BlockLawFunction(Protocol):
    """A law of blocks as it is called."""

    def __call__(
        self,
        quantizer: BlockQuantizer,
        fmt: BlockFormat | str,
        x: Floats | None = None,
        *,
        rounding: Mode | str = Rounding.NEAREST_EVEN,
        key: Key | int = KEY,
    ) -> None: ...


Applies = Callable[[BlockFormat, Mode], bool]


@dataclass(frozen=True)
class BlockLaw:
    """A law's name, its function, and where it says something.

    `needs_codes`: the quantizer must be a `BlockCodec`. `once`: the law makes its own inputs, of
    the shape and dtype of the given ones.
    """

    name: str
    function: BlockLawFunction
    applies: Applies
    needs_codes: bool
    once: bool

    def inputs(self, arrays: tuple[Floats, ...]) -> tuple[Floats, ...]:
        """Those of several inputs that the law has to see."""
        return arrays[:1] if self.once else arrays


BLOCK_LAWS: dict[str, BlockLaw] = {}


def as_block_format(fmt: BlockFormat | str) -> BlockFormat:
    """A block format from itself or its spelling."""
    return fmt if isinstance(fmt, BlockFormat) else BlockFormat.parse(fmt)


def as_mode(rounding: Mode | str) -> Mode:
    """A mode that rounds single values. Errors: TypeError for pseudo rounding."""
    mode = parse_rounding(rounding)
    if isinstance(mode, PseudoNoise):
        raise TypeError(f"rounding must round single values, got {str(mode)!r}")
    return mode


def block_law(
    applies: Applies, needs_codes: bool = False, once: bool = False
) -> Callable[[Callable[[BlockTrial], None]], BlockLawFunction]:
    """Register a function of a `BlockTrial` as a law under its own name."""

    def register(body: Callable[[BlockTrial], None]) -> BlockLawFunction:
        name = body.__name__

        @functools.wraps(body)
        def call(
            quantizer: BlockQuantizer,
            fmt: BlockFormat | str,
            x: Floats | None = None,
            *,
            rounding: Mode | str = Rounding.NEAREST_EVEN,
            key: Key | int = KEY,
        ) -> None:
            target, mode = as_block_format(fmt), as_mode(rounding)
            if not applies(target, mode):
                raise ValueError(f"{name} says nothing about {target}, {mode}")
            for inputs in stated.inputs(block_points(target) if x is None else (x,)):
                body(BlockTrial(name, quantizer, target, inputs, mode, as_key(key)))

        # The signature is the public one, not that of `body`.
        del call.__wrapped__
        stated = BLOCK_LAWS[name] = BlockLaw(name, call, applies, needs_codes, once)
        return call

    return register


# --------------------------------------------------------------- where laws apply


def always(fmt: BlockFormat, rounding: Mode) -> bool:
    return True


def deterministic(fmt: BlockFormat, rounding: Mode) -> bool:
    """No bits are drawn."""
    return isinstance(rounding, Rounding)


def stochastic(fmt: BlockFormat, rounding: Mode) -> bool:
    """Bits are drawn."""
    return isinstance(rounding, Stochastic)


def defined(fmt: BlockFormat, rounding: Mode) -> bool:
    """The largest magnitudes decide the scales, as the reference defines."""
    return not fmt.rule.needs_all_elements


def independent(fmt: BlockFormat, rounding: Mode) -> bool:
    """A block's scale is its own affair, given the outer scale."""
    return fmt.rule.method is not ScaleMethod.POW2_M2
