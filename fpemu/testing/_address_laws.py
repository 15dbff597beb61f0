"""Laws on where elements lie: memory, shape, pieces and threads must not matter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Descriptor, Rounding
from fpemu.testing._patterns import Floats, bits, floats
from fpemu.testing._trial import Trial, draws_bits, law, rounds

_LONG = 1 << 17


def _random(fmt: Format, rounding: Descriptor, policy: Policy) -> bool:
    return draws_bits(fmt, rounding, policy)


def _matrix(trial: Trial, columns: int = 12) -> Floats:
    """Some of the inputs as a matrix, C order, the ones in the middle of the range."""
    rows = max(min(len(trial.x) // columns, 40), 1)
    start = (len(trial.x) - rows * columns) // 2
    return np.resize(trial.x[max(start, 0) :], (rows, columns))


def _at(key: Key, local: int) -> Key:
    return replace(key, offset=key.index(local))


@law(rounds)
def input_is_left_alone(trial: Trial) -> None:
    """The input keeps its bits, and the result is new memory."""
    x = trial.x.copy()
    before = bits(x).copy()
    got = trial.quantize(x)
    trial.same(x, x, floats(before, trial.dtype), " (the input itself, after the call)")
    if np.shares_memory(x, got):
        trial.fail("the result shares memory with the input")


@law(rounds)
def calls_repeat(trial: Trial) -> None:
    """The same call gives the same bits again."""
    trial.same(trial.x, trial.quantize(trial.x), trial.quantize(trial.x), " (the second call)")


@law(rounds)
def any_shape_is_taken(trial: Trial) -> None:
    """0-d, empty, and many-dimensional arrays are rounded as the vector of their elements."""
    flat = np.resize(trial.x, 24)
    expected = trial.quantize(flat)
    for shape in ((24,), (2, 3, 4), (24, 1), (1, 1, 24)):
        x = flat.reshape(shape)
        trial.same(x, trial.quantize(x), expected.reshape(shape))
    trial.same(flat[0].reshape(()), trial.quantize(flat[0].reshape(())), expected[0].reshape(()))
    for shape in ((0,), (3, 0), (0, 2, 2)):
        trial.quantize(np.empty(shape, trial.dtype))


@law(rounds)
def memory_layout_does_not_matter(trial: Trial) -> None:
    """Strided, reversed, transposed, Fortran-ordered and read-only views give the same bits."""
    x = _matrix(trial)
    wide = np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)
    frozen = x.copy()
    frozen.flags.writeable = False
    # Bytes that no element of this size is aligned to.
    shifted = np.empty(x.nbytes + 1, np.uint8)[1:].view(trial.dtype).reshape(x.shape)
    shifted[...] = x
    views = {
        "strided": wide[::2, ::3],
        "Fortran-ordered": np.asfortranarray(x),
        "read-only": frozen,
        "unaligned": shifted,
        "reversed": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "transposed": np.ascontiguousarray(x.T).T,
        "three-dimensional": np.ascontiguousarray(x.reshape(-1, 3, 4).transpose(2, 0, 1)).transpose(
            1, 2, 0
        ),
    }
    expected = trial.quantize(x)
    for name, view in views.items():
        got = trial.quantize(view).reshape(x.shape)
        trial.same(x, got, expected, f" (the input {name})")


@law(rounds)
def elements_do_not_see_each_other(trial: Trial) -> None:
    """What an element becomes does not depend on the others' values."""
    x = np.resize(trial.x, 997)
    expected = trial.quantize(x)
    for kept in range(3):
        other = np.full(x.shape, np.nan, trial.dtype)
        other[kept::3] = x[kept::3]
        got = trial.quantize(other)
        trial.same(x[kept::3], got[kept::3], expected[kept::3], " (beside other elements)")


@law(_random)
def slices_draw_as_the_whole(trial: Trial) -> None:
    """A slice, with its offset in the key, is rounded as it is inside the whole."""
    whole = trial.quantize(trial.x)
    size = len(trial.x)
    for first, last in ((0, 1), (1, 18), (3, 4), (size // 3, size), (size - 5, size)):
        part = trial.x[first:last]
        got = trial.quantize(part, key=_at(trial.key, first))
        trial.same(part, got, whole[first:last], f" (elements {first}..{last - 1})")


@law(_random)
def chunks_draw_as_the_whole(trial: Trial) -> None:
    """Pieces of any size, one after the other, give what one call gives."""
    x = np.resize(trial.x, 1000)
    whole = trial.quantize(x)
    for size in (1, 7, 64, 333):
        # All pieces of the larger sizes; of the smaller ones every so many.
        for start in range(0, len(x), size * max(1, 64 // size)):
            part = x[start : start + size]
            got = trial.quantize(part, key=_at(trial.key, start))
            trial.same(part, got, whole[start : start + size], f" (chunk at {start})")


@law(_random)
def shards_draw_as_the_whole(trial: Trial) -> None:
    """A shard of columns, with rows in the key, is rounded as it is inside the matrix."""
    x = _matrix(trial)
    whole = trial.quantize(x)
    columns = x.shape[1]
    for first, last in ((0, 5), (5, 6), (6, 12)):
        shard = x[:, first:last]
        key = Key(
            trial.key.seed,
            trial.key.stream,
            trial.key.index(first),
            row_length=last - first,
            row_stride=columns,
        )
        got = trial.quantize(shard, key=key)
        trial.same(shard, got, whole[:, first:last], f" (columns {first}..{last - 1})")


@law(rounds)
def threads_do_not_matter(trial: Trial) -> None:
    """A long array gives what its pieces give, and calls from several threads at once agree."""
    x = np.resize(trial.x, _LONG)
    whole = trial.quantize(x)
    if isinstance(trial.rounding, Rounding):
        once = trial.quantize(trial.x)
        trial.same(x, whole, np.resize(once, _LONG), " (inside a long array)")
    # Different inputs at once, so that a scratch buffer they share would show.
    inputs = [x, np.ascontiguousarray(x[::-1]), np.roll(x, 1001)]
    alone = [trial.quantize(one) for one in inputs]
    with ThreadPoolExecutor(len(inputs)) as pool:
        together = list(pool.map(trial.quantize, inputs))
    for one, expected, got in zip(inputs, alone, together, strict=True):
        trial.same(one, got, expected, " (called from several threads)")


@law(_random)
def long_arrays_draw_by_index(trial: Trial) -> None:
    """Far into a long array, whatever pieces and threads it is cut into, draws are by index."""
    x = np.resize(trial.x, _LONG + 11)
    whole = trial.quantize(x)
    for start in (32_765, 65_531, _LONG - 100):
        part = x[start : start + 111]
        got = trial.quantize(part, key=_at(trial.key, start))
        trial.same(part, got, whole[start : start + 111], f" (from element {start})")
