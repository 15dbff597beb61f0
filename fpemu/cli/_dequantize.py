"""The command `fpemu dequantize`: packed tensors become values again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import fpemu
from fpemu import atomic, backends, dtypes, files
from fpemu.cli._console import console, progress, table
from fpemu.files import Group
from fpemu.quantized import Quantized
from fpemu.storage import PackedFile


def run(
    source: Path,
    *,
    output: Path | None,
    dtype: str | None,
    overwrite: bool,
    backend: str | None,
) -> None:
    """Write the values of a packed file, with a progress bar on a terminal, and print a table.

    Errors: ValueError, TypeError for options and files that do not fit; as `fpemu.load`.
    """
    wanted = None if dtype is None else dtypes.as_dtype("--dtype", dtype)[0]
    if backend is not None:
        backends.get(backend)
    with PackedFile(source) as packed:
        if not packed.entries:
            raise ValueError(f"{source}: holds no packed tensors; quantize --packed writes them")
        recipe = packed.file.recipe or {}
        kind = _kind(packed, recipe)
        target = output or source.with_name(f"{source.stem}.dequantized{kind}")
        if target.suffix.lower() != kind:
            raise ValueError(f"--output must end in {kind} as the original did, got {target}")
        specs = {name: _spec(packed, name, wanted) for name in packed.names}
        with progress() as bar:
            task = bar.add_task(str(source.name), total=sum(s.nbytes for s in specs.values()))

            def make(name: str) -> Mapping[str, NDArray[Any]]:
                values = _values(packed, name, specs[name].dtype, backend)
                bar.advance(task, values.nbytes)
                return {name: values}

            groups = [Group({name: spec}, partial(make, name)) for name, spec in specs.items()]
            writers = files.writers(
                kind, target, groups, _recipe(recipe, specs, packed), packed.file.metadata,
                packed.file.compression,
            )  # fmt: skip
            atomic.write_all(writers, overwrite=overwrite)
        out = console(unfolded=True)
        out.print(_table(packed, specs))
        for path in writers:
            out.print(f"wrote {path}", soft_wrap=True)


def _kind(packed: PackedFile, recipe: files.Recipe) -> str:
    """The kind of file that was packed."""
    kind = recipe.get("kind", packed.file.path.suffix.lower())
    if kind not in files.SUFFIXES or (kind == ".npy" and packed.names != [files.NPY_NAME]):
        raise ValueError(f"{packed.file.path}: cannot become a {kind!r} file, as its recipe says")
    return str(kind)


def _spec(packed: PackedFile, name: str, wanted: np.dtype[Any] | None) -> files.Spec:
    if name not in packed.entries:
        return packed.file.specs[name]
    entry = packed.entries[name]
    dtype = dtypes.as_dtype("dtype", entry.dtype)[0] if wanted is None else wanted
    return files.Spec(dtype, entry.shape)


def _values(
    packed: PackedFile, name: str, dtype: np.dtype[Any], backend: str | None
) -> NDArray[Any]:
    tensor = packed.read(name)
    if not isinstance(tensor, Quantized):
        return tensor
    try:
        return np.asarray(tensor.dequantize(dtype, backend=backend))
    except (ValueError, TypeError) as wrong:
        raise type(wrong)(f"{packed.file.path}: tensor {name!r}: {wrong}") from None


def _recipe(
    source: files.Recipe, specs: Mapping[str, files.Spec], packed: PackedFile
) -> files.Recipe:
    """How the tensors came about: from the packed file's recipe, without what is in its table."""
    return {
        "fpemu": fpemu.__version__,
        "contract": fpemu.CONTRACT,
        "tensors": {name: "dequantized" if name in packed.entries else "copied" for name in specs},
        "source": {key: value for key, value in source.items() if key != "packed"},
    }


def _table(packed: PackedFile, specs: Mapping[str, files.Spec]) -> Table:
    """One row a tensor: what it was, what it is."""
    result = table("tensor", "shape", "format", "bytes", "dtype", "bytes")
    for name, spec in specs.items():
        shape = "x".join(map(str, spec.shape)) or "scalar"
        entry = packed.entries.get(name)
        before = ("copied", "") if entry is None else (str(entry.spec), f"{entry.nbytes:,}")
        result.add_row(name, shape, *before, spec.dtype.name, f"{spec.nbytes:,}")
    return result
