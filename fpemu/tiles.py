"""Tiles: how an array is cut into blocks, and into pieces of whole blocks.

Blocks cover the last two axes; leading axes are a batch, a vector is one row, and blocks at the
far edges hold what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """A rectangle of an array seen as (batch, rows, columns), whole blocks of it."""

    batch: int
    rows: slice
    columns: slice

    def blocks(self, block: tuple[int, int]) -> tuple[int, slice, slice]:
        """The index of its blocks in an array with one value per block."""
        return self.batch, _blocks(self.rows, block[0]), _blocks(self.columns, block[1])


def _blocks(span: slice, size: int) -> slice:
    return slice(span.start // size, -(-span.stop // size))


def grid_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """The shape of one value per block: leading axes kept, partial edge blocks counted."""
    *batch, rows, columns = (1, 1, *shape)[-max(2, len(shape)) :]
    blocks = (-(-rows // block[0]), -(-columns // block[1]))
    return blocks[1:] if len(shape) < 2 else (*batch, *blocks)


def pieces(shape: tuple[int, int, int], block: tuple[int, int], limit: int) -> Iterator[Piece]:
    """Rectangles of whole blocks, of about `limit` elements, in C order of their corners."""
    batches, rows, columns = shape
    width = min(columns, max(block[1], limit // block[0] // block[1] * block[1]))
    height = block[0] * max(1, limit // max(width, 1) // block[0]) if width else block[0]
    for batch in range(batches):
        for row in range(0, rows, height):
            for column in range(0, columns, max(width, 1)):
                yield Piece(
                    batch,
                    slice(row, min(row + height, rows)),
                    slice(column, min(column + width, columns)),
                )
