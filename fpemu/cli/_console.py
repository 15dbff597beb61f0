"""Where output goes: 80 columns and no colour codes unless the terminal says otherwise."""

from __future__ import annotations

import os

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def console(*, unfolded: bool = False, stderr: bool = False) -> Console:
    """A console; `unfolded` lets rows be as long as they need where nobody sets a width."""
    # Names and reasons may hold brackets, which are not markup.
    result = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if unfolded and not result.is_terminal and "COLUMNS" not in os.environ:
        result.width = 1000
    return result


def table(*columns: str, title: str | None = None, gap: int = 2) -> Table:
    """An empty table in the house's look; columns after the first are right-aligned."""
    result = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),  # the box has a column of its own
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    for number, name in enumerate(columns):
        result.add_column(name, justify="right" if number else "left", overflow="fold")
    return result


def progress() -> Progress:
    """A bar of bytes on standard error, where that is a terminal."""
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
