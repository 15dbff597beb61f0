"""The rounding of one file's tensors, one at a time, and the table of what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from fpemu import arrays, dtypes, files, storage
from fpemu.blocks import BlockFormat
from fpemu.cli._console import table
from fpemu.cli._job import Job
from fpemu.formats import Format
from fpemu.metrics import Report, error
from fpemu.packing import packed_size, unpack
from fpemu.quantized import Quantized, compress
from fpemu.storage import Entry
from fpemu.table_format import TableFormat

if TYPE_CHECKING:
    from fpemu.plots import Tally

_PIECE = 1 << 16  # elements compared at a time, a multiple of 8


@dataclass
class Work:
    """The rounding of one file's tensors, and what came of it."""

    job: Job
    entries: Mapping[str, Entry]  # of the tensors that are to be rounded
    reports: dict[str, Report] = field(default_factory=dict)
    signal: float = 0.0
    noise: float = 0.0
    tally: Tally | None = None

    def __post_init__(self) -> None:
        if self.job.plot is not None:
            from fpemu.plots import Tally

            assert isinstance(self.job.fmt, Format)
            self.tally = Tally(self.job.fmt)

    def parts(self, name: str, spec: files.Spec) -> dict[str, files.Spec]:
        """What is written for a tensor of the source."""
        packed = self.job.packed and name in self.entries
        return self.entries[name].parts(name) if packed else {name: spec}

    def check(self, name: str) -> None:
        """Errors: ValueError, TypeError for a shape or dtype that cannot be rounded."""
        entry = self.entries[name]
        with self._naming(name):
            entry.parts(name)
            dtype = dtypes.as_dtype("dtype", entry.dtype)[0]
            self._round(name, np.zeros((0,) * len(entry.shape), dtype))

    def make(self, name: str, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """A tensor of the source, rounded or packed."""
        with self._naming(name):
            stored, q = self._round(name, x)
        self.reports[name] = self._report(x, q, stored)
        self._add(x, q)
        if self.tally is not None:
            self.tally.add(x, q)
        if not self.job.packed:
            return {name: q}
        assert stored is not None
        return storage.arrays_of(name, stored)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError) as wrong:
            raise type(wrong)(
                f"{self.job.source}: tensor {name!r}: {wrong}; "
                f"--exclude {name!r} copies it unchanged"
            ) from None

    def _round(self, name: str, x: NDArray[Any]) -> tuple[Quantized | None, NDArray[Any]]:
        """The tensor as it is stored, for what can be, and its values."""
        job = self.job
        key = None if job.key is None else job.key.child(name)
        if job.packed or (isinstance(job.fmt, BlockFormat) and job.policy is None):
            stored = compress(
                x, job.fmt, rounding=job.rounding, policy=job.policy, key=key,
                axis=self.entries[name].axis, backend=job.backend,
            )  # fmt: skip
            return stored, stored.dequantize(backend=job.backend)
        return None, arrays.quantize(
            x, job.fmt, rounding=job.rounding, policy=job.policy, key=key,
            axis=self.entries[name].axis, backend=job.backend,
        )  # fmt: skip

    def _report(self, x: NDArray[Any], q: NDArray[Any], stored: Quantized | None) -> Report:
        fmt = self.job.fmt
        if isinstance(fmt, Format):
            return error(x, q, fmt)
        if not self._counts_saturated:
            return error(x, q)
        saturated = sum(_saturated(x, q, fmt, stored, first) for first in range(0, x.size, _PIECE))
        return replace(error(x, q), saturated=saturated)

    @property
    def _counts_saturated(self) -> bool:
        """Not in blocks by a preset, whose scales are known only where they are stored."""
        job = self.job
        return job.packed or job.policy is None or not isinstance(job.fmt, BlockFormat)

    def _add(self, x: NDArray[Any], q: NDArray[Any]) -> None:
        for first in range(0, x.size, _PIECE):
            a = x.reshape(-1)[first : first + _PIECE].astype(np.float64)
            b = q.reshape(-1)[first : first + _PIECE].astype(np.float64)
            finite = np.isfinite(a) & np.isfinite(b)
            if not finite.all():
                a, b = a[finite], b[finite]
            d = b - a
            self.signal += float(np.einsum("i,i", a, a))
            self.noise += float(np.einsum("i,i", d, d))

    def draw(self, stream: IO[bytes]) -> None:
        """Write the picture of the tensors seen so far."""
        from fpemu.plots import quantization

        assert self.tally is not None
        assert self.job.plot is not None
        figure = quantization(self.tally, title=f"{self.job.source.name}: {self._done()}")
        figure.savefig(stream, format=self.job.plot.suffix[1:].lower())

    def _done(self) -> str:
        return f"{self.job.fmt}, {self.job.rounding}"

    def table(self, source: files.TensorFile) -> Table:
        """One row a tensor, and the total."""
        names = ("tensor", "shape", "dtype", "bits per\nelement", "SQNR\ndB", "max rel.\nerror",
                 "satu-\nrated", "under-\nflowed")  # fmt: skip
        result = table(*names, title=self._done())
        for column in result.columns[1:]:
            column.overflow = "ellipsis"
            column.no_wrap = True
        for name, spec in source.specs.items():
            shape = "x".join(map(str, spec.shape)) or "scalar"
            if name in self.reports:
                figures = (self._bits([name]), *self._figures(self.reports[name]))
            else:
                figures = ("", "copied", "", "", "")
            result.add_row(name, shape, spec.dtype.name, *figures)
        result.add_section()
        total = self.total()
        bits = self._bits(list(self.reports))
        result.add_row("total", f"{total.count:,}", "", bits, *self._figures(total), style="bold")
        return result

    def _bits(self, names: Sequence[str]) -> str:
        """Bits per element of tensors in storage, all scales included."""
        size = sum(math.prod(self.entries[name].shape) for name in names)
        return f"{8 * sum(self.entries[name].nbytes for name in names) / size:.4g}" if size else "-"

    def total(self) -> Report:
        """All rounded tensors as if they were one; bias and ulps are not added up."""
        reports = self.reports.values()

        def add(what: Callable[[Report], int]) -> int:
            return sum(what(report) for report in reports)

        if self.noise:
            ratio = 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf
        else:
            ratio = math.inf
        return Report(
            count=add(lambda report: report.count),
            sqnr_db=ratio,
            max_relative_error=max(report.max_relative_error for report in reports),
            max_ulp_error=None,
            bias=math.nan,
            saturated=add(lambda report: report.saturated),
            underflowed=add(lambda report: report.underflowed),
            nan=add(lambda report: report.nan),
        )

    def _figures(self, report: Report) -> tuple[str, str, str, str]:
        exact = math.isinf(report.sqnr_db) and report.sqnr_db > 0
        return (
            "exact" if exact else f"{report.sqnr_db:.2f}",
            f"{report.max_relative_error:.2g}",
            f"{report.saturated:,}" if self._counts_saturated else "-",
            f"{report.underflowed:,}",
        )


def _saturated(
    x: NDArray[Any],
    q: NDArray[Any],
    fmt: BlockFormat | TableFormat,
    stored: Quantized | None,
    first: int,
) -> int:
    """How many finite elements of a piece are beyond what the format, or their scale, reaches."""
    a = x.reshape(-1)[first : first + _PIECE].astype(np.float64)
    b = q.reshape(-1)[first : first + _PIECE].astype(np.float64)
    if isinstance(fmt, TableFormat):
        return int((np.isfinite(a) & ((a > float(fmt.max)) | (a < float(fmt.min)))).sum())
    assert stored is not None
    bits, last = fmt.element.bits, first + a.size
    codes = unpack(stored.codes[first * bits // 8 : packed_size(last, bits)], bits, a.size)
    largest = fmt.element.encode(fmt.qmax)
    lowest = -fmt.qmax if fmt.symmetric else fmt.element.lowest_value
    at_the_end = (codes == largest) | (codes == fmt.element.encode(lowest))
    return int((np.isfinite(a) & at_the_end & (np.abs(a) > np.abs(b))).sum())
