"""The commands and their options."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

import fpemu
from fpemu import arrays
from fpemu.blocks import as_spec
from fpemu.cli import _dequantize, _doctor, _job, _quantize, _tables
from fpemu.cli._console import console

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
Abort = typer.Abort

app = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    help="Low-precision floating point, bit for bit.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

FormatName = Annotated[
    str, typer.Argument(metavar="FORMAT", help="A name or spelling, such as e4m3fn.")
]


def run(arguments: Sequence[str]) -> int:
    """The exit code. Errors are raised, not printed."""
    command = typer.main.get_command(app)
    status = command.main(list(arguments), prog_name="fpemu", standalone_mode=False)
    return status if isinstance(status, int) else 0


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fpemu {fpemu.__version__}, contract {fpemu.CONTRACT}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def formats() -> None:
    """List the named formats, with their limits and aliases."""
    out = console()
    for part in _tables.catalogue():
        out.print(part)


@app.command()
def show(fmt: FormatName) -> None:
    """Show a format: limits, special codes and, up to 8 bits, every value."""
    out = console()
    for part in _tables.card(as_spec(fmt)):
        out.print(part)


# Numbers such as -0.3 and -inf look like options to the parser, which is told to leave them.
@app.command(context_settings={"ignore_unknown_options": True})
def explain(
    x: Annotated[
        str, typer.Argument(metavar="X", help="0.3, -1e-5, 0x1.8p3, 1/3, inf, nan, -0.0, ...")
    ],
    fmt: FormatName,
    rounding: Annotated[
        str | None, typer.Option(help="Such as nearest_even, toward_zero or stochastic:8.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Overflow rule or preset.")] = None,
    seed: Annotated[int | None, typer.Option(help="For random roundings.")] = None,
) -> None:
    """Tell what becomes of one number: neighbours, tie, mode, policy and code.

    A decimal X is read as Python reads it, as a float64; a fraction is exact.
    """
    _job.require_seed(arrays.rule(fmt, rounding, policy).rounding, seed)
    story = fpemu.explain(_number(x), fmt, rounding=rounding, policy=policy, key=seed)
    console().print(str(story), soft_wrap=True)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A format.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
) -> None:
    """Compare two formats: fields, values and behaviour."""
    console().print(str(fpemu.diff(a, b)), soft_wrap=True)


@app.command()
def quantize(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .npy, .npz or .safetensors file.")
    ],
    fmt: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="The format to round to.")
    ],
    rounding: Annotated[
        str | None, typer.Option("--rounding", "-r", help="Such as toward_zero, stochastic:16.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Overflow rule (sat_none, ...) or preset (ocp_sat, ...).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="For random roundings; each tensor draws by its name.")
    ] = None,
    bits: Annotated[float | None, typer.Option(help="Bit width of pseudo rounding.")] = None,
    axis: Annotated[int, typer.Option(help="The axis that blocks run along.")] = -1,
    packed: Annotated[
        bool, typer.Option("--packed", help="Write codes and scales; fpemu dequantize reads them.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="(default: FILE's name with FORMAT)")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only tensors with such a name. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Copy tensors with such a name. Repeatable."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw error and code-usage histograms: .png, .svg, .pdf.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="numpy or numba; same bits.")] = None,
) -> None:
    """Round a file's float tensors, and write the same kind of file with the recipe inside.

    The values stay in their dtype: float32 tensors hold the values of FORMAT as float32. With
    --packed they become the codes of FORMAT, and the file as small as it promises.
    """
    job = _job.plan(
        file, fmt, rounding=rounding, policy=policy, seed=seed, bits=bits, axis=axis,
        packed=packed, output=output, include=include or [], exclude=exclude or [], plot=plot,
        backend=backend,
    )  # fmt: skip
    _quantize.run(job, overwrite)


@app.command()
def dequantize(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that quantize --packed wrote.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="(default: FILE's name with dequantized)")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, ... (default: that of the original)")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    backend: Annotated[str | None, typer.Option(help="numpy or numba; same bits.")] = None,
) -> None:
    """Bring a packed file back to the kind of file and the dtypes that it was made from."""
    _dequantize.run(file, output=output, dtype=dtype, overwrite=overwrite, backend=backend)


@app.command()
def doctor() -> None:
    """Check this installation: backends, optional packages, and that all bits agree."""
    if not _doctor.run(console()):
        raise typer.Exit(1)


def _number(text: str) -> float | Fraction:
    """A number as typed. Errors: ValueError."""
    try:
        if "0x" in text.lower():
            return float.fromhex(text)
        return Fraction(text) if "/" in text else float(text)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise ValueError(
            f"X must be a number such as 0.3, 0x1.8p3, 1/3 or -inf, got {text!r}"
        ) from None
