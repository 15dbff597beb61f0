"""What `fpemu quantize` is asked for, from its options."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fpemu import arrays, backends, files, table_arrays
from fpemu.block_presets import block_preset
from fpemu.blocks import CHANNEL, BlockFormat, Spec, as_spec
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import Descriptor, PseudoNoise, Rounding, parse_rounding
from fpemu.storage import Entry
from fpemu.table_format import TableFormat

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Job:
    """What is to be done, all arguments checked that can be without reading data."""

    source: Path
    target: Path
    fmt: Spec
    rounding: Descriptor
    policy: Policy | str | None  # of block formats: a preset's name, or None
    key: Key | None
    axis: int
    packed: bool
    include: Sequence[str]
    exclude: Sequence[str]
    plot: Path | None
    backend: str | None

    def chooses(self, name: str) -> bool:
        """Whether a float tensor of this name is to be rounded; others are copied."""

        def matches(globs: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for glob in globs)

        return (not self.include or matches(self.include)) and not matches(self.exclude)

    def entry(self, spec: files.Spec) -> Entry:
        """A tensor as it is packed, or would be."""
        axis, ndim = -1, len(spec.shape)
        if isinstance(self.fmt, BlockFormat) and ndim > 1:  # a vector has one axis to go along
            axis = self.axis - ndim if 0 <= self.axis < ndim else self.axis
        return Entry(self.fmt, spec.shape, axis, spec.dtype.name)


def plan(
    source: Path,
    spelling: str,
    *,
    rounding: str | None,
    policy: str | None,
    seed: int | None,
    bits: float | None,
    axis: int,
    packed: bool,
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
    fmt, mode, chosen_policy = _rule(spelling, rounding, policy)
    if bits is not None and isinstance(mode, PseudoNoise):
        if mode.bits is not None:
            raise ValueError(f"--bits {bits:g} and --rounding {rounding} both give a bit width")
        mode = replace(mode, bits=bits)
    require_seed(mode, seed)
    if bits is not None and not isinstance(mode, PseudoNoise):
        raise ValueError(f"--bits goes with pseudo rounding, got {str(mode)!r}")
    if isinstance(mode, PseudoNoise) and (packed or not isinstance(fmt, Format)):
        raise ValueError(f"--rounding {mode} adds noise, which neither blocks nor codes can hold")
    _check_axis(fmt, axis)
    if backend is not None:
        backends.get(backend)
    target = _target(source, kind, str(fmt), packed, output)
    if plot is not None:
        _check_plot(plot, fmt)
    key = None if seed is None else Key(seed)
    return Job(
        source, target, fmt, mode, chosen_policy, key, axis, packed, include, exclude, plot, backend
    )


def _rule(
    spelling: str, rounding: str | None, policy: str | None
) -> tuple[Spec, Descriptor, Policy | str | None]:
    fmt = as_spec(spelling)
    if isinstance(fmt, BlockFormat):
        preset = block_preset(policy, fmt)
        if preset is not None:
            return fmt, preset.rounding(rounding), preset.name
        return fmt, Rounding.NEAREST_EVEN if rounding is None else parse_rounding(rounding), None
    if isinstance(fmt, TableFormat):
        return table_arrays.rule(fmt, rounding, policy)
    return arrays.rule(fmt, rounding, policy)


def _check_axis(fmt: Spec, axis: int) -> None:
    if axis != -1 and not (isinstance(fmt, BlockFormat) and isinstance(fmt.block, int)):
        if isinstance(fmt, BlockFormat) and fmt.block == CHANNEL:
            return
        what = "in runs or one scale per channel"
        raise ValueError(f"--axis {axis} goes with blocks {what}, which {fmt} has not")


def _target(source: Path, kind: str, name: str, packed: bool, output: Path | None) -> Path:
    """Where to write. A packed .npy becomes an .npz, for it takes several arrays."""
    suffix = ".npz" if packed and kind == ".npy" else source.suffix
    target = output or source.with_name(f"{source.stem}.{name}{suffix}")
    if target.suffix.lower() != suffix.lower():
        why = "a packed .npy does" if packed and kind == ".npy" else "FILE does"
        raise ValueError(f"--output must end in {suffix.lower()} as {why}, got {target}")
    return target


def require_seed(rounding: Descriptor, seed: int | None) -> None:
    """Errors: ValueError for a random rounding without a seed."""
    if not isinstance(rounding, Rounding) and seed is None:
        raise ValueError(f"--seed must be given with the random rounding {str(rounding)!r}")


def _check_plot(path: Path, fmt: Spec) -> None:
    if not isinstance(fmt, Format):
        raise ValueError(f"--plot goes with formats whose steps it can count, not with {fmt}")
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"--plot must end in one of {', '.join(PLOT_SUFFIXES)}, got {path}")
    try:
        import matplotlib as _  # noqa: F401 - before any work is done
    except ImportError as missing:
        raise ImportError(f"--plot: {missing}; pip install 'fpemu[plot]'") from None
