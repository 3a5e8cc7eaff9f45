"""What commands print: JSON documents, tables that are never cut, and texts of others made harmless."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def print_table(headings: list[str], rows: Iterable[list[str]]) -> None:
    """Rows in columns as wide as they need: nothing is cut, so that ids can be copied out of a pipe."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(value: Any) -> str:
    """A value for a terminal: None is a dash, and what would move the cursor or change colours is replaced.

    Names and ids come from whoever sent traces; a terminal must not obey them.
    """
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(value))


def fail(message: str, status: int = 1) -> typer.Exit:
    """Say on standard error what went wrong; the exit to raise."""
    typer.echo(f"clearspan: {message}", err=True)
    return typer.Exit(status)
