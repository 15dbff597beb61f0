"""What laws are run on: a small protocol, and three things that obey it.

`Backend` is fpemu itself on one backend, `Reference` the definition element by element, and
`Tabulated` the independent table. To test something else, write a class with a `quantize`
method (and `encode` and `decode` if it has codes) and hand it to `fpemu.testing.check`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpemu import reference
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, Stochastic
from fpemu.testing._draws import draws
from fpemu.testing._patterns import Floats, Unsigned, exact, narrow, widen
from fpemu.testing.oracle import NO_CODE, Rounded, table
from fpemu.values import Value, as_value


class Quantizer(Protocol):
    """Something that rounds arrays to formats."""

    def quantize(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Floats:
        """`x` rounded to `fmt`, in the shape and dtype of `x`.

        Deterministic modes ignore `key`. A quantizer with a generator of its own takes
        `fpemu.testing.draws` from the key instead, or the laws on draws are skipped.
        """


@runtime_checkable
class Codec(Protocol):
    """A `Quantizer` that also has codes."""

    def quantize(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Floats:
        """As in `Quantizer`."""

    def encode(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Unsigned:
        """The codes of `x` rounded; ValueError for a result without a code."""

    def decode(self, codes: Unsigned, fmt: Format, dtype: np.dtype[Any]) -> Floats:
        """The values of codes in a dtype that holds the format."""


class Backend:
    """fpemu's array verbs on one backend; None lets fpemu choose."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    def quantize(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Floats:
        from fpemu import arrays

        result: Floats = arrays.quantize(
            x, fmt, rounding=rounding, policy=policy, key=_if_random(rounding, key),
            backend=self.name,
        )  # fmt: skip
        return result

    def encode(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Unsigned:
        from fpemu import arrays

        codes: Unsigned = arrays.encode(
            x, fmt, rounding=rounding, policy=policy, key=_if_random(rounding, key),
            backend=self.name,
        )  # fmt: skip
        return codes

    def decode(self, codes: Unsigned, fmt: Format, dtype: DTypeLike) -> Floats:
        from fpemu import arrays

        values: Floats = arrays.decode(codes, fmt, dtype=dtype, backend=self.name)
        return values


class Reference:
    """`fpemu.reference` on every element: exact, and slow (some 20 microseconds each)."""

    def quantize(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Floats:
        return exact(self.values(x, fmt, rounding, policy, key), x.dtype).reshape(x.shape)

    def encode(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Unsigned:
        values = self.values(x, fmt, rounding, policy, key)
        codes = np.array([self._code(fmt, policy, v) for v in values], dtype=np.uint64)
        return codes.reshape(x.shape)

    def decode(self, codes: Unsigned, fmt: Format, dtype: DTypeLike) -> Floats:
        values = [fmt.decode(int(code)) for code in codes.reshape(-1)]
        return exact(values, dtype).reshape(codes.shape)

    def values(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> list[Value]:
        """The exact results, in C order."""
        drawn = draws(key, x.size, rounding) if isinstance(rounding, Stochastic) else None
        return self.round(x, fmt, rounding, policy, drawn)

    @staticmethod
    def round(
        x: Floats,
        fmt: Format,
        rounding: Descriptor,
        policy: Policy,
        drawn: NDArray[np.int64] | None,
    ) -> list[Value]:
        """The exact results of elements with given draws, in C order."""
        mode = _single(rounding)
        numbers = widen(x).reshape(-1)
        given = np.zeros(x.size, np.int64) if drawn is None else drawn.reshape(-1)
        return [
            reference.round_value(fmt, as_value(number), mode, policy, draw)
            for number, draw in zip(numbers.tolist(), given.tolist(), strict=True)
        ]

    @staticmethod
    def _code(fmt: Format, policy: Policy, value: Value) -> int:
        if value is not as_value(float("nan")) or fmt.has_nan:
            return fmt.encode(value)
        return fmt.encode(reference.nan_substitute(fmt, policy))


class Tabulated:
    """`fpemu.testing.oracle`: rounding by looking up, for formats it covers."""

    def quantize(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Floats:
        return narrow(self.rounded(x, fmt, rounding, policy, key).values, x.dtype)

    def encode(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Unsigned:
        codes = self.rounded(x, fmt, rounding, policy, key).codes
        if (codes == NO_CODE).any():
            raise ValueError(f"x must not give a value without a code in {fmt}")
        return codes.astype(np.uint64)

    def decode(self, codes: Unsigned, fmt: Format, dtype: DTypeLike) -> Floats:
        return narrow(table(fmt).decode(codes.astype(np.int64)), dtype)

    def rounded(
        self, x: Floats, fmt: Format, rounding: Descriptor, policy: Policy, key: Key
    ) -> Rounded:
        """Values and codes."""
        mode = _single(rounding)
        drawn: NDArray[Any] | None = None
        if isinstance(mode, Stochastic):
            drawn = draws(key, x.size, mode).reshape(x.shape)
        return table(fmt).round(x, mode, policy, drawn)


def _if_random(rounding: Descriptor, key: Key) -> Key | None:
    return None if isinstance(rounding, Rounding) else key


def _single(rounding: Descriptor) -> Rounding | Stochastic:
    if isinstance(rounding, PseudoNoise):
        raise TypeError(f"rounding must round single values, got {str(rounding)!r}")
    return rounding
