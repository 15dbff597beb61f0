"""The command `fpemu quantize`: round the tensors of a file, or pack them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from numpy.typing import NDArray

import fpemu
from fpemu import atomic, files, storage
from fpemu.blocks import BlockFormat
from fpemu.cli._console import console, progress
from fpemu.cli._job import Job
from fpemu.cli._work import Work
from fpemu.files import Group
from fpemu.policy import Policy
from fpemu.storage import Entry
from fpemu.table_format import TableFormat, overflow_rule


def run(job: Job, overwrite: bool) -> None:
    """Do the job, with a progress bar on a terminal, and print the table."""
    with files.open_tensors(job.source) as source:
        chosen = [name for name, spec in source.specs.items() if spec.is_float]
        chosen = [name for name in chosen if job.chooses(name)]
        if not chosen:
            raise ValueError(f"{job.source}: {_nothing_to_do(job, source)}")
        work = Work(job, {name: job.entry(source.specs[name]) for name in chosen})
        for name in chosen:
            work.check(name)
        with progress() as bar:
            total = sum(spec.nbytes for spec in source.specs.values() if spec.is_float)
            task = bar.add_task(f"{job.fmt}, {job.rounding}", total=total)

            def make(name: str) -> Mapping[str, NDArray[Any]]:
                x = source.read(name)
                made = work.make(name, x) if name in work.entries else {name: x}
                bar.advance(task, x.nbytes if source.specs[name].is_float else 0)
                return made

            groups = [
                Group(work.parts(name, spec), partial(make, name))
                for name, spec in source.specs.items()
            ]
            storage.check_names([group.specs for group in groups])
            writers = files.writers(
                files.kind_of(job.target), job.target, groups, recipe(job, source, work.entries),
                source.metadata, source.compression,
            )  # fmt: skip
            if job.plot is not None:
                writers[job.plot] = work.draw
            atomic.write_all(writers, overwrite=overwrite)
        out = console(unfolded=True)
        out.print(work.table(source))
        for path in writers:
            size = f" ({path.stat().st_size:,} bytes)" if job.packed else ""
            out.print(f"wrote {path}{size}", soft_wrap=True)


def _nothing_to_do(job: Job, source: files.TensorFile) -> str:
    floats = [name for name, spec in source.specs.items() if spec.is_float]
    if floats:
        return f"--include and --exclude leave no float tensor; there are {', '.join(floats[:5])}"
    kinds = ", ".join(sorted({str(spec.dtype) for spec in source.specs.values()})) or "nothing"
    return f"there is no float tensor to round, only {kinds}; other types are copied unchanged"


def recipe(job: Job, source: files.TensorFile, entries: Mapping[str, Entry]) -> files.Recipe:
    """How the tensors came about, as JSON types; enough to make them again from the source."""
    made: files.Recipe = {
        "fpemu": fpemu.__version__,
        "contract": fpemu.CONTRACT,
        "format": {"spelling": str(job.fmt), **job.fmt.to_dict()},
        "rounding": str(job.rounding),
        "policy": _policy(job),
        "key": None if job.key is None else {"seed": job.key.seed, "child": "tensor name"},
    }
    if isinstance(job.fmt, BlockFormat):
        made["axis"] = job.axis
    done = "packed" if job.packed else "rounded"
    made["tensors"] = {name: done if name in entries else "copied" for name in source.specs}
    if job.packed:
        made |= {**storage.recipe_for(entries), "kind": files.kind_of(job.source)}
    if source.recipe is not None:
        made["source"] = source.recipe
    return made


def _policy(job: Job) -> dict[str, Any] | str | None:
    if isinstance(job.fmt, BlockFormat) or not isinstance(job.policy, Policy):
        return None if job.policy is None else str(job.policy)
    if isinstance(job.fmt, TableFormat):
        rule = overflow_rule(job.fmt, job.policy)
    else:
        rule = job.policy.overflow_for(job.fmt)
    return {**asdict(job.policy), "overflow": str(rule)}
