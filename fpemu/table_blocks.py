"""Blocks of table-format elements: the generic block operations around a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpemu import table_arrays
from fpemu.backends import Backend
from fpemu.backends._blocks import BlockOperations
from fpemu.keys import Key
from fpemu.lowering import Params
from fpemu.policy import Overflow, Policy
from fpemu.rounding import Rounding, Stochastic
from fpemu.table_format import TableFormat

_SATURATE = Policy(Overflow.SAT_FINITE)


class TableRounder(BlockOperations):
    """Elements (no Params) go by the table, scales (with Params) by the backend."""

    def __init__(
        self, backend: Backend, element: TableFormat, rounding: Rounding | Stochastic
    ) -> None:
        self.backend, self.element, self.rounding = backend, element, rounding

    def round(
        self,
        x: NDArray[Any],
        out: NDArray[Any],
        params: Params | None,
        key: Key | None = None,
        first: int = 0,
    ) -> None:
        if params is not None:
            self.backend.round(x, out, params, key, first)
            return
        floats = x.view(f"f{x.itemsize}")
        rounded = table_arrays.round_table(
            floats, self.element, self.rounding, _SATURATE, key, first
        )
        out[...] = rounded.view(out.dtype)

    def encode(self, x: NDArray[Any], out: NDArray[Any], params: Params | None) -> None:
        floats = x.view(f"f{x.itemsize}")
        out[...] = table_arrays.encode_table(floats, self.element, Rounding.NEAREST_EVEN, _SATURATE)

    def decode(self, codes: NDArray[Any], out: NDArray[Any], params: Params | None) -> None:
        values = table_arrays.decode_table(codes, self.element, np.dtype(f"f{out.itemsize}"))
        out[...] = values.view(out.dtype)
