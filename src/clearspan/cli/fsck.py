"""`clearspan fsck`: check every stored invariant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import apsw
import typer
from rich.console import Console
from rich.table import Table

from clearspan.catalog.fsck import CatalogReport, check_catalog
from clearspan.model.errors import ClearspanError
from clearspan.settings import load_settings
from clearspan.store.sqlite.fsck import Report, Violation, check


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
            report, catalog = check(folder, pages=pages), check_catalog(folder, pages=pages)
    except (ClearspanError, OSError, apsw.Error) as error:
        typer.echo(f"clearspan: {error}", err=True)
        raise typer.Exit(2) from None
    violations = report.violations + catalog.violations
    if as_json:
        counts = report._asdict() | {"ledger_entries": catalog.ledger_entries}
        found = {"violations": [violation._asdict() for violation in violations]}
        typer.echo(json.dumps({"ok": not violations} | counts | found, indent=2))
    else:
        print_report(report, catalog, violations)
    if violations:
        raise typer.Exit(1)


def print_report(report: Report, catalog: CatalogReport, violations: list[Violation]) -> None:
    """The reports for a person: what was read, then a line for each broken invariant."""
    console = Console(highlight=False)
    console.print(
        f"Read {report.traces:,} traces, {report.spans:,} spans, {report.blocks:,} blocks "
        f"and {catalog.ledger_entries:,} ledger entries."
    )
    if not violations:
        console.print("Every invariant holds.")
        return
    table = Table("invariant that does not hold", "count", "where")
    for violation in violations:
        table.add_row(violation.invariant, str(violation.count), violation.where)
    console.print(table)
