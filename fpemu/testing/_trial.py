"""How a law is stated, called and reported.

A law is a function of a `Trial`: a quantizer, a format, inputs, a rounding, a policy and a key.
`law` registers it in `LAWS` and gives it the public signature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fpemu.catalog import format as as_format
from fpemu.formats import Format
from fpemu.keys import Key, as_key
from fpemu.policy import Overflow, Policy, ZeroSign, parse_policy
from fpemu.rounding import Descriptor, Rounding, Stochastic, parse_rounding
from fpemu.testing._patterns import Floats, Unsigned, show, usual_dtype, widen
from fpemu.testing._points import points
from fpemu.testing._quantizers import Codec, Quantizer
from fpemu.testing._reports import LawViolation, Reports
from fpemu.testing.oracle import Rounded, Table, table
from fpemu.values import as_value

KEY = Key(0x5EED, stream=3)


@dataclass(frozen=True)
class Trial(Reports):
    """One law on one quantizer under one setting."""

    law: str
    quantizer: Quantizer
    fmt: Format
    x: Floats
    rounding: Descriptor
    policy: Policy
    key: Key

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.x.dtype

    @property
    def stochastic(self) -> Stochastic:
        """The rounding, where the law applies to stochastic ones only."""
        assert isinstance(self.rounding, Stochastic)
        return self.rounding

    @property
    def overflow(self) -> Overflow:
        return self.policy.overflow_for(self.fmt)

    # -------------------------------------------------------------- the quantizer

    def quantize(
        self,
        x: Floats,
        *,
        key: Key | None = None,
        rounding: Descriptor | None = None,
        fmt: Format | None = None,
    ) -> Floats:
        """The quantizer's result, which must have the shape and dtype of `x`."""
        result = self.quantizer.quantize(
            x, fmt or self.fmt, rounding or self.rounding, self.policy, key or self.key
        )
        if result.shape != x.shape or result.dtype != x.dtype:
            self.fail(
                f"x of {x.dtype}{x.shape} became {result.dtype}{result.shape}; "
                "shape and dtype must stay"
            )
        return result

    @property
    def codec(self) -> Codec:
        assert isinstance(self.quantizer, Codec)
        return self.quantizer

    def encode(self, x: Floats, key: Key | None = None) -> Unsigned:
        """The quantizer's codes, which must be of an unsigned dtype and the shape of `x`."""
        codes = self.codec.encode(x, self.fmt, self.rounding, self.policy, key or self.key)
        if codes.shape != x.shape or codes.dtype.kind != "u":
            self.fail(f"codes of x{x.shape} came as {codes.dtype}{codes.shape}")
        return codes

    def decode(self, codes: Unsigned) -> Floats:
        """The quantizer's values of codes, in the dtype of the trial."""
        return self.codec.decode(codes, self.fmt, self.dtype)

    def expect(self, x: Floats, draws: NDArray[np.int64] | None) -> Rounded:
        """What the table says; only for formats it covers."""
        assert isinstance(self.rounding, Rounding | Stochastic)
        return table(self.fmt).round(x, self.rounding, self.policy, draws)

    # -------------------------------------------------------------------- reports

    @property
    def setting(self) -> str:
        return f"{self.fmt}, {self.rounding}, {self.overflow}"

    def name(self, value: Floats) -> str:
        """A result with its bits, and its code where it has one."""
        exact = as_value(float(widen(np.asarray(value).reshape(1))[0]))
        try:
            code = f"code {self.fmt.encode(exact):#x}"
        except ValueError:
            code = "not a value of the format"
        return f"{show(value)} {code}"


class LawFunction(Protocol):
    """A law as it is called."""

    def __call__(
        self,
        quantizer: Quantizer,
        fmt: Format | str,
        x: Floats | None = None,
        *,
        rounding: Descriptor | str = Rounding.NEAREST_EVEN,
        policy: Policy | str | None = None,
        key: Key | int = KEY,
    ) -> None: ...


Applies = Callable[[Format, Descriptor, Policy], bool]


@dataclass(frozen=True)
class Law:
    """A law's name, its function, and where it says something.

    `needs_codes`: the quantizer must be a `Codec`. `any_rounding`: the law does not depend on
    the rounding, so that one will do.
    """

    name: str
    function: LawFunction
    applies: Applies
    needs_codes: bool
    any_rounding: bool


LAWS: dict[str, Law] = {}


def law(
    applies: Applies, needs_codes: bool = False, any_rounding: bool = False
) -> Callable[[Callable[[Trial], None]], LawFunction]:
    """Register a function of a `Trial` as a law under its own name."""

    def register(body: Callable[[Trial], None]) -> LawFunction:
        name = body.__name__

        @functools.wraps(body)
        def call(
            quantizer: Quantizer,
            fmt: Format | str,
            x: Floats | None = None,
            *,
            rounding: Descriptor | str = Rounding.NEAREST_EVEN,
            policy: Policy | str | None = None,
            key: Key | int = KEY,
        ) -> None:
            target = as_format(fmt)
            mode, rules = parse_rounding(rounding), parse_policy(policy, target)[1]
            if not applies(target, mode, rules):
                raise ValueError(f"{name} says nothing about {target}, {mode}, {rules}")
            inputs = points(target, usual_dtype(target)) if x is None else x
            body(Trial(name, quantizer, target, inputs, mode, rules, as_key(key)))

        # The signature is the public one, not that of `body`.
        del call.__wrapped__
        LAWS[name] = Law(name, call, applies, needs_codes, any_rounding)
        return call

    return register


# --------------------------------------------------------------- where laws apply


def is_plain(policy: Policy) -> bool:
    """Whether a policy is one of the contract's own: an overflow rule and a NaN rule."""
    return policy == Policy(policy.overflow, policy.nan) and policy.zero_sign is ZeroSign.KEEP


def rounds(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    """Single values are rounded, under a policy of the contract's own."""
    return isinstance(rounding, Rounding | Stochastic) and is_plain(policy)


def deterministic(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    """No bits are drawn."""
    return rounds(fmt, rounding, policy) and isinstance(rounding, Rounding)


def draws_bits(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    """Stochastic rounding."""
    return isinstance(rounding, Stochastic) and is_plain(policy)


def tabulated(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    """Single values are rounded to a format that a table covers, under any policy."""
    return isinstance(rounding, Rounding | Stochastic) and Table.covers(fmt)


__all__ = [
    "KEY",
    "LAWS",
    "Law",
    "LawFunction",
    "LawViolation",
    "Trial",
    "deterministic",
    "draws_bits",
    "is_plain",
    "law",
    "rounds",
    "tabulated",
]
