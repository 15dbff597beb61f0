"""Turning a spelled choice into an enum member, with an error that lists the choices."""

from __future__ import annotations

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
