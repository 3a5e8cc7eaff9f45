"""`clearspan deletions`: list, look at, watch, cancel and retry deletions; receipts and tombstones."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from clearspan.cli.follow import address, ended_badly, fetch_receipt, follow, save_new, state_line, verify_line
from clearspan.cli.output import JsonOption, print_json, print_table, printable
from clearspan.cli.remote import DEFAULT_URL, KeyFileOption, KeyOption, UrlOption, open_remote

app = typer.Typer(help="Look at deletions, cancel or retry them, get their receipts.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the deletion (del_…).")]
LimitOption = Annotated[int, typer.Option(min=1, help="Most to list.")]
Json = dict[str, Any]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only these states, with commas.", show_default=False)] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.", show_default=False)] = None,
    limit: LimitOption = 50,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deletions, newest first."""
    with open_remote(url, key, key_file) as remote:
        found = remote.pages("/v1/deletions", state=state, project=project, limit=min(limit, 200))
        rows = list(islice(found, limit))
    if as_json:
        print_json({"data": rows})
        return
    print_table(
        ["id", "state", "traces", "created_at", "requested_by", "note"],
        [
            [
                row["id"],
                row["state"],
                f"{printable(row['traces']['hidden'])}/{row['traces']['matched']:,}",
                printable(row["created_at"]),
                printable(row["requested_by"]),
                printable(row.get("alarm") or row.get("problem") or ""),
            ]
            for row in rows
        ],
    )


@app.command("show")
def show(
    deletion_id: IdArgument,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one deletion: state, times, counts by target."""
    with open_remote(url, key, key_file) as remote:
        deletion = remote.get(address(deletion_id))
    if as_json:
        print_json(deletion)
    else:
        print_deletion(deletion)


@app.command("watch")
def watch(
    deletion_id: IdArgument,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a deletion to its end; status 1 if that is not `verified`. Ctrl-C stops the watching only."""
    with open_remote(url, key, key_file) as remote:
        started = remote.get(address(deletion_id))
        deletion = follow(remote, started, show=sys.stderr.isatty() and not as_json)
    told(deletion, as_json)
    if bad := ended_badly(deletion):
        raise bad


@app.command("cancel")
def cancel(
    deletion_id: IdArgument,
    reason: Annotated[str | None, typer.Option(help="Why; kept outside the ledger.", show_default=False)] = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a deletion of which nothing is purged yet: its traces are as before."""
    with open_remote(url, key, key_file) as remote:
        deletion = remote.post(f"{address(deletion_id)}/cancel", {} if reason is None else {"reason": reason})
    told(deletion, as_json)


@app.command("retry")
def retry(
    deletion_id: IdArgument,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a failed deletion again, from where it stopped."""
    with open_remote(url, key, key_file) as remote:
        deletion = remote.post(f"{address(deletion_id)}/retry")
    told(deletion, as_json)


@app.command("receipt")
def receipt(
    deletion_id: IdArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to keep it; else receipt-<id>.json. `-`: standard output.", show_default=False),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Get the receipt of a verified deletion, with all that checking it offline needs."""
    with open_remote(url, key, key_file) as remote:
        document = fetch_receipt(remote, deletion_id)
        if str(out) == "-":
            print_json(document)
            return
        path = out or Path(f"receipt-{deletion_id}.json")
        save_new(path, document)
    if as_json:
        print_json({"receipt_file": str(path)})
    else:
        typer.echo(f"Receipt: {path}\n{verify_line(path)}")


@app.command("tombstones")
def tombstones(
    deletion_id: IdArgument,
    limit: LimitOption = 1000,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what refuses late spans of a deletion's traces: keyed hashes, no ids."""
    with open_remote(url, key, key_file) as remote:
        rows = list(islice(remote.pages(f"{address(deletion_id)}/tombstones", limit=min(limit, 200)), limit))
    if as_json:
        print_json({"data": rows})
        return
    for row in rows:
        typer.echo(printable(row["key"] if isinstance(row, dict) else row))


@app.command("lift")
def lift(
    trace_id: Annotated[str, typer.Argument(metavar="TRACE_ID", help="The trace that may be written again.")],
    reason: Annotated[str, typer.Option(help="Why; kept outside the ledger.")],
    project: Annotated[str | None, typer.Option(help="Its project.", show_default=False)] = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a deleted trace's id be written again. Brings nothing back; the ledger keeps that it was done."""
    body = {"trace_id": trace_id, "reason": reason} | ({} if project is None else {"project": project})
    with open_remote(url, key, key_file) as remote:
        lifted = remote.post("/v1/tombstones/lift", body)
    if as_json:
        print_json(lifted)
    else:
        typer.echo(f"The tombstone of {printable(lifted.get('deletion_id'))} for this trace is lifted.")


def told(deletion: Json, as_json: bool) -> None:
    """A deletion, as one line or as JSON."""
    if as_json:
        print_json(deletion)
    else:
        typer.echo(state_line(deletion))


def print_deletion(deletion: Json) -> None:
    """A deletion for a person."""
    typer.echo(state_line(deletion))
    ids = ("parent_id", "child_id", "follow_up_id")
    for name in ("alarm", "blocked_by", "reason", *ids, "not_before", "eta_s", "late_refused"):
        value = deletion.get(name)
        if value not in (None, [], 0):
            typer.echo(f"{name}: {printable(', '.join(value) if isinstance(value, list) else value)}")
    window = deletion["effective_window"]
    typer.echo(
        f"window: {window['start_time'] or 'the beginning'} to {window['end_time'] or 'now'} ({window['source']})"
    )
    typer.echo(f"asked by {printable(deletion['requested_by'])} for {' '.join(map(printable, deletion['scope']))}\n")
    print_table(["state", "entered at"], [[state, printable(at)] for state, at in deletion["times"].items()])
    typer.echo("")
    print_table(["traces", "count"], [[name, printable(count)] for name, count in deletion["traces"].items()])
    typer.echo("")
    columns = ["planned", "hidden", "purged", "already_absent", "held", "failed", "remaining"]
    print_table(
        ["target", *columns],
        [[target, *(printable(rows.get(name)) for name in columns)] for target, rows in deletion["counts"].items()],
    )
