"""Packing: codes of any width 1..64 as a stream of bits.

Bit order: the stream is little-endian throughout. Bit k of code i is bit ``i * bits + k`` of the
stream, and bit n of the stream is bit ``n % 8`` of byte ``n // 8``. Two 4-bit codes share a byte
low nibble first, and four 6-bit codes fill three bytes. The last byte is padded with zeros.

Eight codes fill exactly `bits` bytes, and such groups are worked on: their containers are read
as 64-bit words, in which neighbouring codes are shifted together, pairs first, then pairs of
pairs. What a word then holds without gaps is here called a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GROUP = 8
PIECE = 1 << 16  # codes handled at a time
_WORD = np.dtype("<u8")


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take."""
    return (count * bits + 7) // 8


def pack(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """The bytes of `codes` (any integer dtype and shape, C order), `bits` bits each.

    Returns a 1-D uint8 array of ``packed_size(codes.size, bits)`` bytes.
    Errors: TypeError for non-integers, ValueError for `bits` outside 1..64 or a code that does
    not fit (its index is named).
    """
    bits = check_bits(bits)
    array = np.asarray(codes)
    out = np.empty(packed_size(array.size, bits), np.uint8)
    for first, piece in pieces(array, bits):
        place = out[first // _GROUP * bits : packed_size(first + piece.size, bits)]
        if piece.size % _GROUP:
            piece = np.append(piece, np.zeros(-piece.size % _GROUP, piece.dtype))
        _pack_groups(piece, bits, place)
    return out


def unpack(packed: ArrayLike, bits: int, count: int) -> NDArray[Any]:
    """The `count` codes of a stream that `pack` wrote, in the smallest unsigned dtype.

    Errors: TypeError if `packed` is not uint8, ValueError for `bits` outside 1..64, a negative
    `count`, a stream of the wrong length, or padding that is not zero.
    """
    bits = check_bits(bits)
    stream = np.ascontiguousarray(packed)
    if stream.dtype != np.uint8:
        raise TypeError(f"packed must be uint8, got dtype {stream.dtype}")
    stream = stream.reshape(-1)
    count = check_count(count)
    check_stream(stream, bits, count)
    out = np.empty(count, container(bits))
    for first in range(0, count, PIECE):
        size = min(PIECE, count - first)
        groups = -(-size // _GROUP)
        piece = stream[first // _GROUP * bits : packed_size(first + size, bits)]
        if piece.size < groups * bits:
            piece = np.concatenate((piece, np.zeros(groups * bits - piece.size, np.uint8)))
        if size == groups * _GROUP:
            _unpack_groups(piece, bits, out[first : first + size])
        else:
            whole = np.empty(groups * _GROUP, out.dtype)
            _unpack_groups(piece, bits, whole)
            out[first : first + size] = whole[:size]
    return out.astype(out.dtype.newbyteorder("="), copy=False)


def check_stream(stream: NDArray[np.uint8], bits: int, count: int) -> None:
    """Errors: ValueError unless `stream` has the length and the padding of `count` codes."""
    if count < 0 or stream.size != packed_size(count, bits):
        raise ValueError(
            f"packed must have {packed_size(max(count, 0), bits)} bytes for {count} codes "
            f"of {bits} bits, got {stream.size}"
        )
    used = count * bits % 8
    if used and stream[-1] >> used:
        raise ValueError("packed must be padded with zero bits, got stray bits in its last byte")


# ------------------------------------------------------------------- groups


def _pack_groups(codes: NDArray[Any], bits: int, place: NDArray[np.uint8]) -> None:
    """Whole groups of codes in their containers, to bytes; `place` may lack the padding."""
    if bits == 8 * codes.itemsize:
        place[...] = codes.view(np.uint8)[: place.size]
        return
    runs, width = _merge(codes.view(_WORD), bits, 8 * codes.itemsize)
    runs = runs.reshape(codes.size // _GROUP, -1)
    words = runs if runs.shape[1] == 1 else _join(runs, width, -(-bits // 8))
    if place.size == len(words) * bits:
        unit = _unit(bits)
        place.view(unit).reshape(len(words), -1)[...] = words.view(unit)[:, : bits // unit.itemsize]
    else:
        place[...] = words.view(np.uint8)[:, :bits].reshape(-1)[: place.size]


def _unpack_groups(stream: NDArray[np.uint8], bits: int, codes: NDArray[Any]) -> None:
    """The inverse: whole groups of `bits` bytes, to codes in their containers."""
    if bits == 8 * codes.itemsize:
        codes.view(np.uint8)[...] = stream
        return
    groups, unit = codes.size // _GROUP, _unit(bits)
    words = np.zeros((groups, -(-bits // 8)), _WORD)
    words.view(unit)[:, : bits // unit.itemsize] = stream.view(unit).reshape(groups, -1)
    per_group = codes.itemsize  # a group's containers are so many words
    width = _GROUP * bits // per_group
    runs = words if per_group == 1 else _cut(words, width, per_group)
    codes.view(_WORD)[...] = _spread(runs.reshape(-1), bits, 8 * codes.itemsize)


def _merge(words: NDArray[Any], bits: int, lane: int) -> tuple[NDArray[Any], int]:
    """Words of lanes with a code each, as words with one run; and its width."""
    while lane < 64:
        even = _lanes(bits, 2 * lane)
        words = words & even | (words & (even << lane)) >> np.uint64(lane - bits)
        bits, lane = 2 * bits, 2 * lane
    return words, bits


def _spread(words: NDArray[Any], bits: int, lane: int) -> NDArray[Any]:
    """The inverse of `_merge`."""
    steps = (64 // lane).bit_length() - 1
    for step in reversed(range(steps)):
        width, gap = bits << step, lane << step
        even = _lanes(width, 2 * gap)
        words = words & even | words << np.uint64(gap - width) & (even << gap)
    return words


def _lanes(width: int, lane: int) -> int:
    """A word with the low `width` bits of every lane set."""
    return sum(((1 << width) - 1) << start for start in range(0, 64, lane))


def _join(runs: NDArray[Any], width: int, count: int) -> NDArray[Any]:
    """The runs of each row, of `width` bits, one after the other in `count` words."""
    words = np.zeros((len(runs), count), _WORD)
    for i in range(runs.shape[1]):
        word, shift = divmod(i * width, 64)
        words[:, word] |= runs[:, i] << np.uint64(shift)
        if shift + width > 64:
            words[:, word + 1] |= runs[:, i] >> np.uint64(64 - shift)
    return words


def _cut(words: NDArray[Any], width: int, count: int) -> NDArray[Any]:
    """The inverse of `_join`: `count` runs of each row."""
    runs = np.empty((len(words), count), _WORD)
    for i in range(count):
        word, shift = divmod(i * width, 64)
        run = words[:, word] >> np.uint64(shift)
        if shift + width > 64:
            run = run | words[:, word + 1] << np.uint64(64 - shift)
        runs[:, i] = run & np.uint64((1 << width) - 1)
    return runs


def _unit(bits: int) -> np.dtype[Any]:
    """The widest items that `bits` bytes are whole numbers of."""
    return np.dtype(f"<u{min(bits & -bits, 8)}")


# ------------------------------------------------------------------- checks


def container(bits: int) -> np.dtype[Any]:
    """The smallest unsigned dtype of `bits` bits, low byte first."""
    return np.dtype(f"<u{next(n for n in (1, 2, 4, 8) if bits <= 8 * n)}")


def pieces(codes: ArrayLike, bits: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first, up to `PIECE` codes in their container), in C order. Errors: as `pack`."""
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"codes must be integers, got dtype {array.dtype}")
    flat = array.reshape(-1)
    for first in range(0, flat.size, PIECE):
        piece = flat[first : first + PIECE]
        _check_fits(piece, bits, first, array.shape)
        yield first, np.ascontiguousarray(piece, container(bits))


def check_bits(bits: int) -> int:
    """A width. Errors: TypeError, ValueError."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        raise TypeError(f"bits must be an int, got {type(bits).__name__} {bits!r}")
    if not 1 <= bits <= 64:
        raise ValueError(f"bits must be in 1..64, got {bits}")
    return int(bits)


def check_count(count: int) -> int:
    """A number of codes. Errors: TypeError; the sign is left to `check_stream`."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise TypeError(f"count must be an int, got {type(count).__name__} {count!r}")
    return int(count)


def _check_fits(piece: NDArray[Any], bits: int, first: int, shape: tuple[int, ...]) -> None:
    signed = piece.dtype.kind == "i"
    narrower = bits < 8 * piece.dtype.itemsize
    top = (1 << bits) - 1
    if (not signed or piece.min() >= 0) and (not narrower or piece.max() <= top):
        return
    wrong = piece < 0 if signed else np.zeros(piece.shape, bool)
    if narrower:
        wrong = wrong | (piece > top)
    at = int(wrong.argmax())
    index = tuple(int(i) for i in np.unravel_index(first + at, shape))
    raise ValueError(f"codes must fit {bits} bits, got {piece[at]} at index {index}")
