"""Checked arguments: enum members from spellings, and integers; errors name the argument."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


def member(kind: type[Choice], name: str, value: object) -> Choice:
    """The member of `kind` that `value` is or spells. Errors: ValueError naming `name`."""
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        allowed = ", ".join(repr(str(v)) for v in kind)
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}") from None


def as_int(name: str, value: object) -> int:
    """`value` as an int, NumPy integers included. Errors: TypeError naming `name`."""
    if type(value) is int:
        return value
    # not isinstance(value, SupportsIndex), which takes 4 microseconds
    if not hasattr(value, "__index__") or type(value).__name__ in ("bool", "bool_"):
        raise TypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    return operator.index(value)
