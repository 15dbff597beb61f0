"""Key: the address of a call's random bits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from fpemu import philox
from fpemu.choices import as_int

_WORD64 = (1 << 64) - 1
# Streams are derived under a key of their own, so that a derived stream is never a draw.
_CHILD_KEY = int.from_bytes(b"fpemukey", "little")


@dataclass(frozen=True, slots=True)
class Key:
    """Where a call draws its random bits; immutable, so the same key gives the same bits.

    `seed` and `stream` are 64-bit. Local element j (C order) has the global index
    ``offset + (j // row_length) * row_stride + j % row_length`` (modulo 2**64), or
    ``offset + j`` without rows, so that a shard or a chunk draws what the whole tensor would
    have drawn. Draws depend on (seed, stream, global index) and on the lane width of the
    rounding, nothing else.

    Errors: TypeError for a non-integer field, ValueError for one out of range and for
    `row_length` without `row_stride` or the reverse.
    """

    seed: int
    stream: int = 0
    offset: int = 0
    row_length: int | None = None
    row_stride: int | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "stream", "offset"):
            object.__setattr__(self, name, _word(name, getattr(self, name)))
        if (self.row_length is None) != (self.row_stride is None):
            raise ValueError(
                "row_length and row_stride go together, got "
                f"row_length={self.row_length!r}, row_stride={self.row_stride!r}"
            )
        if self.row_length is not None:
            object.__setattr__(self, "row_length", _word("row_length", self.row_length, low=1))
            object.__setattr__(self, "row_stride", _word("row_stride", self.row_stride))

    def child(self, *path: str | int) -> Key:
        """The key of a named part: ``key.child("layers.0.mlp.up", step)``.

        Each part of `path` maps the stream to the first two words of the Philox block with
        counter (part, stream) under a fixed key; a name stands for the first 8 bytes, little
        end first, of its BLAKE2b digest. Seed, offset and rows are kept.
        Errors: TypeError for a part that is neither, ValueError for an integer outside 64 bits.
        """
        stream = self.stream
        for part in path:
            if isinstance(part, str):
                digest = hashlib.blake2b(part.encode(errors="surrogatepass")).digest()
                part = int.from_bytes(digest[:8], "little")
            low, high, _, _ = philox.words(_CHILD_KEY, stream, _word("path", part))
            stream = low | high << 32
        return replace(self, stream=stream)

    def index(self, local: int) -> int:
        """The global index of local element `local`."""
        if self.row_length is None or self.row_stride is None:
            return (self.offset + local) & _WORD64
        row, column = divmod(local, self.row_length)
        return (self.offset + row * self.row_stride + column) & _WORD64

    def lane(self, local: int, lane_bits: int) -> int:
        """The `lane_bits`-wide lane (8, 16 or 32) of local element `local`."""
        return philox.lane(self.seed, self.stream, self.index(local), lane_bits)


def as_key(key: Key | int) -> Key:
    """`key` itself, or Key(key) for an integer seed. Errors: TypeError, ValueError."""
    if isinstance(key, Key):
        return key
    if isinstance(key, bool) or not hasattr(key, "__index__"):
        raise TypeError(f"key must be a Key or an int seed, got {type(key).__name__} {key!r}")
    return Key(key.__index__())


def _word(name: str, value: object, low: int = 0) -> int:
    number = as_int(name, value)
    if not low <= number <= _WORD64:
        raise ValueError(f"{name} must be in {low}..2**64 - 1, got {number}")
    return number
