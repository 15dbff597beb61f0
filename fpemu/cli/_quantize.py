"""The command `fpemu quantize`: round the tensors of a file."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import fpemu
from fpemu import arrays, atomic, backends, files
from fpemu.cli._console import console, table
from fpemu.keys import Key
from fpemu.metrics import Report, error
from fpemu.rounding import Descriptor, PseudoNoise, Rounding

if TYPE_CHECKING:
    from fpemu.plots import Tally

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Job:
    """What is to be done, all arguments checked that can be without reading data."""

    source: Path
    target: Path
    rule: arrays.Rule
    key: Key | None
    include: Sequence[str]
    exclude: Sequence[str]
    plot: Path | None
    backend: str | None

    def chooses(self, name: str) -> bool:
        """Whether a float tensor of this name is to be rounded; others are copied."""

        def matches(globs: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for glob in globs)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


def plan(
    source: Path,
    fmt: str,
    *,
    rounding: str | None,
    policy: str | None,
    seed: int | None,
    bits: float | None,
    output: Path | None,
    include: Sequence[str],
    exclude: Sequence[str],
    plot: Path | None,
    backend: str | None,
) -> Job:
    """A job from the command's options. Errors: ValueError, ImportError."""
    kind = files.kind_of(source)
    if bits is not None and rounding is not None and ":" not in rounding:
        rounding = f"{rounding}:?"  # --bits is the width that the spelling leaves open
    rule = arrays.rule(fmt, rounding, policy)
    if bits is not None and isinstance(rule.rounding, PseudoNoise):
        if rule.rounding.bits is not None:
            raise ValueError(f"--bits {bits:g} and --rounding {rounding} both give a bit width")
        rule = rule._replace(rounding=replace(rule.rounding, bits=bits))
    require_seed(rule.rounding, seed)
    if bits is not None and not isinstance(rule.rounding, PseudoNoise):
        raise ValueError(f"--bits goes with pseudo rounding, got {str(rule.rounding)!r}")
    if backend is not None:
        backends.get(backend)
    target = output or source.with_name(f"{source.stem}.{rule.fmt}{source.suffix}")
    if target.suffix.lower() != kind:
        raise ValueError(f"--output must end in {kind} as FILE does, got {target}")
    if plot is not None:
        _check_plot(plot)
    key = None if seed is None else Key(seed)
    return Job(source, target, rule, key, include, exclude, plot, backend)


def require_seed(rounding: Descriptor, seed: int | None) -> None:
    """Errors: ValueError for a random rounding without a seed."""
    if not isinstance(rounding, Rounding) and seed is None:
        raise ValueError(f"--seed must be given with the random rounding {str(rounding)!r}")


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"--plot must end in one of {', '.join(PLOT_SUFFIXES)}, got {path}")
    try:
        import matplotlib as _  # noqa: F401 - before any work is done
    except ImportError as missing:
        raise ImportError(f"--plot: {missing}; pip install 'fpemu[plot]'") from None


def run(job: Job, overwrite: bool) -> None:
    """Do the job, with a progress bar on a terminal, and print the table."""
    with files.open_tensors(job.source) as source:
        chosen = [name for name, spec in source.specs.items() if spec.is_float]
        chosen = [name for name in chosen if job.chooses(name)]
        if not chosen:
            raise ValueError(f"{job.source}: {_nothing_to_do(job, source)}")
        work = Work(job, frozenset(chosen))
        with _progress() as progress:
            total = sum(spec.nbytes for spec in source.specs.values() if spec.is_float)
            task = progress.add_task(f"{job.rule.fmt}, {job.rule.rounding}", total=total)

            def transform(name: str, x: NDArray[Any]) -> NDArray[Any]:
                result = work.transform(name, x)
                progress.advance(task, x.nbytes)
                return result

            writers = source.writers(job.target, transform, recipe(job, source, chosen))
            if job.plot is not None:
                writers[job.plot] = work.draw
            atomic.write_all(writers, overwrite=overwrite)
        out = console(unfolded=True)
        out.print(work.table(source))
        for path in writers:
            out.print(f"wrote {path}")


def _progress() -> Progress:
    err = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def _nothing_to_do(job: Job, source: files.TensorFile) -> str:
    floats = [name for name, spec in source.specs.items() if spec.is_float]
    if floats:
        return f"--include and --exclude leave no float tensor; there are {', '.join(floats[:5])}"
    kinds = ", ".join(sorted({str(spec.dtype) for spec in source.specs.values()})) or "nothing"
    return f"there is no float tensor to round, only {kinds}; other types are copied unchanged"


def recipe(job: Job, source: files.TensorFile, chosen: Sequence[str]) -> files.Recipe:
    """How the tensors came about, as JSON types; enough to make them again from the source."""
    fmt, rounding, policy = job.rule
    made: files.Recipe = {
        "fpemu": fpemu.__version__,
        "contract": fpemu.CONTRACT,
        "format": {"spelling": str(fmt), **fmt.to_dict()},
        "rounding": str(rounding),
        "policy": {**asdict(policy), "overflow": str(policy.overflow_for(fmt))},
        "key": None if job.key is None else {"seed": job.key.seed, "child": "tensor name"},
        "tensors": {name: "rounded" if name in chosen else "copied" for name in source.specs},
    }
    if source.recipe is not None:
        made["source"] = source.recipe
    return made


@dataclass
class Work:
    """The rounding of one file's tensors, and what came of it."""

    job: Job
    chosen: frozenset[str]
    reports: dict[str, Report] = field(default_factory=dict)
    signal: float = 0.0
    noise: float = 0.0
    tally: Tally | None = None

    def __post_init__(self) -> None:
        if self.job.plot is not None:
            from fpemu.plots import Tally

            self.tally = Tally(self.job.rule.fmt)

    def transform(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        """A tensor, rounded if it is chosen."""
        if name not in self.chosen:
            return x
        job = self.job
        fmt, rounding, policy = job.rule
        try:
            q: NDArray[Any] = arrays.quantize(
                x, fmt, rounding=rounding, policy=policy, backend=job.backend,
                key=None if job.key is None else job.key.child(name),
            )  # fmt: skip
        except (ValueError, TypeError) as wrong:
            raise type(wrong)(
                f"{job.source}: tensor {name!r}: {wrong}; --exclude {name!r} copies it unchanged"
            ) from None
        self.reports[name] = error(x, q, fmt)
        self._add(x, q)
        if self.tally is not None:
            self.tally.add(x, q)
        return q

    def _add(self, x: NDArray[Any], q: NDArray[Any]) -> None:
        for first in range(0, x.size, 1 << 16):
            a = x.reshape(-1)[first : first + (1 << 16)].astype(np.float64)
            b = q.reshape(-1)[first : first + (1 << 16)].astype(np.float64)
            finite = np.isfinite(a) & np.isfinite(b)
            if not finite.all():
                a, b = a[finite], b[finite]
            d = b - a
            self.signal += float(np.dot(a, a))
            self.noise += float(np.dot(d, d))

    def draw(self, stream: IO[bytes]) -> None:
        """Write the picture of the tensors seen so far."""
        from fpemu.plots import quantization

        assert self.tally is not None
        assert self.job.plot is not None
        figure = quantization(self.tally, title=f"{self.job.source.name}: {self._done()}")
        figure.savefig(stream, format=self.job.plot.suffix[1:].lower())

    def _done(self) -> str:
        return f"{self.job.rule.fmt}, {self.job.rule.rounding}"

    def table(self, source: files.TensorFile) -> Table:
        """One row a tensor, and the total."""
        names = ("tensor", "shape", "dtype", "SQNR\ndB", "max rel.\nerror", "satu-\nrated",
                 "under-\nflowed")  # fmt: skip
        result = table(*names, title=self._done())
        for column in result.columns[1:]:
            column.overflow = "ellipsis"
            column.no_wrap = True
        for name, spec in source.specs.items():
            shape = "x".join(map(str, spec.shape)) or "scalar"
            if name in self.reports:
                figures = _figures(self.reports[name])
            else:
                figures = ("copied", "", "", "")
            result.add_row(name, shape, spec.dtype.name, *figures)
        result.add_section()
        total = self.total()
        result.add_row("total", f"{total.count:,}", "", *_figures(total), style="bold")
        return result

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


def _figures(report: Report) -> tuple[str, str, str, str]:
    exact = math.isinf(report.sqnr_db) and report.sqnr_db > 0
    return (
        "exact" if exact else f"{report.sqnr_db:.2f}",
        f"{report.max_relative_error:.2g}",
        f"{report.saturated:,}",
        f"{report.underflowed:,}",
    )
