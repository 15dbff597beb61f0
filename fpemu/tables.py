"""Rows of text as aligned lines and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(rows: Iterable[Sequence[str]], caption: str) -> str:
    """Rows as a table, the first cell of each a heading; a row of one cell spans the table."""
    body = []
    for label, *cells in rows:
        texts = "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in cells)
        span = "" if cells else " colspan='3'"
        body.append(f"<tr><th style='text-align:left'{span}>{escape(label)}</th>{texts}</tr>")
    return f"<table><caption>{escape(caption)}</caption>{''.join(body)}</table>"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows as indented columns; a row of one cell becomes a heading of its own."""
    table = [tuple(row) for row in rows]
    full = [row for row in table if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    lines = []
    for row in table:
        if len(row) == 1:
            lines.append(row[0])
            continue
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)
