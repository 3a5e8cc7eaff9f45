"""`clearspan fsck`: check every stored invariant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import apsw
import typer
from rich.console import Console
from rich.table import Table

from clearspan.model.errors import ClearspanError
from clearspan.settings import load_settings
from clearspan.store.sqlite.fsck import Report, check


def fsck(
    data: Annotated[
        Path | None, typer.Option("--data", help="Data directory; else from the settings.", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", show_default=False)] = None,
    pages: Annotated[
        bool,
        typer.Option(help="Also look for bytes that deletion must have zeroed; stop the server first."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Check every stored invariant of a data directory; status 1 if one does not hold. Changes nothing."""
    try:
        folder = load_settings({"data": data}, config=config).data
        if not (folder / "traces.db").is_file():
            raise FileNotFoundError(f"There is no traces.db in {folder}.")
        with Console(stderr=True).status("Checking …"):
            report = check(folder, pages=pages)
    except (ClearspanError, OSError, apsw.Error) as error:
        typer.echo(f"clearspan: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(render_json(report)) if as_json else print_report(report)
    if report.violations:
        raise typer.Exit(1)


def render_json(report: Report) -> str:
    """The report as one JSON document."""
    violations = [violation._asdict() for violation in report.violations]
    return json.dumps({"ok": not violations, **report._asdict(), "violations": violations}, indent=2)


def print_report(report: Report) -> None:
    """The report for a person: what was read, then a line for each broken invariant."""
    console = Console(highlight=False)
    console.print(f"Read {report.traces:,} traces, {report.spans:,} spans and {report.blocks:,} blocks.")
    if not report.violations:
        console.print("Every invariant holds.")
        return
    table = Table("invariant that does not hold", "count", "where")
    for violation in report.violations:
        table.add_row(violation.invariant, str(violation.count), violation.where)
    console.print(table)
