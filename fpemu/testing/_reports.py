"""How a law compares results, and what it says when one is wrong."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fpemu.testing._patterns import Floats, Unsigned, bits, show


class LawViolation(AssertionError):  # noqa: N818 - what it is, an AssertionError, says it
    """A law that does not hold: its name in `law`, a counterexample in the message."""

    def __init__(self, law: str, message: str) -> None:
        super().__init__(message)
        self.law = law


class Reports:
    """The comparisons of a trial, which has a `law` and says its `setting`."""

    law: str

    @property
    def setting(self) -> str:
        """Format, rounding and whatever else the law was tried under."""
        raise NotImplementedError

    def same(self, x: Floats, got: Floats, expected: Floats, note: str = "") -> None:
        """Fail at the first element whose bits differ."""
        wrong = bits(got) != bits(expected)
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            self.fail(
                f"{self.describe(x, at)}: got {self.name(got[at])}, "
                f"expected {self.name(expected[at])}{note}; {_count(wrong)}"
            )

    def same_codes(self, x: Floats, got: Unsigned, expected: NDArray[Any], note: str = "") -> None:
        """Fail at the first element whose codes differ."""
        wrong = got.astype(np.uint64) != expected.astype(np.uint64)
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            self.fail(
                f"{self.describe(x, at)}: got code {int(got[at]):#x}, "
                f"expected {int(expected[at]):#x}{note}; {_count(wrong)}"
            )

    def holds(self, good: NDArray[np.bool_], x: Floats, got: Floats, demand: str) -> None:
        """Fail at the first element that is not `good`."""
        if not good.all():
            at = np.unravel_index(int((~good).argmax()), good.shape)
            self.fail(
                f"{self.describe(x, at)}: got {self.name(got[at])}, "
                f"which is not {demand}; {_count(~good)}"
            )

    def describe(self, x: Floats, at: tuple[Any, ...]) -> str:
        """Element `at` of an input, with its bits."""
        place = ", ".join(str(int(i)) for i in at)
        return f"x[{place}] = {show(x[at])}"

    def name(self, value: Floats) -> str:
        """A result with its bits."""
        return show(value)

    def fail(self, message: str) -> NoReturn:
        """Raise the violation."""
        raise LawViolation(self.law, f"{self.law} does not hold for {self.setting}: {message}")


def _count(wrong: NDArray[np.bool_]) -> str:
    return f"{int(wrong.sum())} of {wrong.size} elements"
