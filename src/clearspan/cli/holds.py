"""`clearspan holds`: keep traces from every deletion, look at what is kept, and let it go."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote

import typer

from clearspan.cli.output import JsonOption, print_json, print_table, printable
from clearspan.cli.remote import DEFAULT_URL, KeyFileOption, KeyOption, UrlOption, open_remote
from clearspan.cli.selection import (
    EnvironmentOption,
    FiltersOption,
    FromOption,
    ProjectOption,
    SelectingCommand,
    ToOption,
    TraceIdOption,
    WhereOption,
    selection_body,
)

app = typer.Typer(help="Keep traces from every deletion, and let them go again.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the hold (hold_…).")]
Json = dict[str, Any]


@app.command("list")
def list_(
    released: Annotated[bool, typer.Option("--released", help="Those that were released as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most to list.")] = 200,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List holds."""
    with open_remote(url, key, key_file) as remote:
        found = remote.pages("/v1/holds", limit=min(limit, 200), state="all" if released else None)
        rows = list(islice(found, limit))
    if as_json:
        print_json({"data": rows})
        return
    print_table(
        ["id", "state", "created_at", "created_by", "scope", "reason"],
        [
            [
                row["id"],
                row["state"],
                printable(row["created_at"]),
                printable(row["created_by"]),
                printable(" ".join(row["scope"] or [])),
                printable(row["reason"]),
            ]
            for row in rows
        ],
    )


@app.command("add", cls=SelectingCommand)
def add(
    reason: Annotated[str, typer.Option(help="Why; erased when the hold is released.")],
    where: WhereOption = None,
    filters: FiltersOption = None,
    trace_id: TraceIdOption = None,
    everything: Annotated[bool, typer.Option("--everything", help="Whatever lies in project and window.")] = False,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    start: FromOption = None,
    end: ToOption = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep what matches, now and later, from every deletion."""
    with open_remote(url, key, key_file) as remote:
        body = selection_body(
            where=where,
            filters=filters,
            trace_id=trace_id,
            project=project,
            environment=environment,
            start=start,
            end=end,
        )
        hold = remote.post("/v1/holds", body | {"reason": reason} | ({"everything": True} if everything else {}))
    if as_json:
        print_json(hold)
    else:
        print_hold(hold)


@app.command("show")
def show(
    hold_id: IdArgument,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one hold."""
    with open_remote(url, key, key_file) as remote:
        hold = remote.get(f"/v1/holds/{quote(hold_id, safe='')}")
    if as_json:
        print_json(hold)
    else:
        print_hold(hold)


@app.command("release")
def release(
    hold_id: IdArgument,
    reason: Annotated[str, typer.Option(help="Why; kept outside the ledger.")],
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a hold for good. Deletions that waited for it go on by themselves."""
    with open_remote(url, key, key_file) as remote:
        hold = remote.call("DELETE", f"/v1/holds/{quote(hold_id, safe='')}", json={"reason": reason})
    if as_json:
        print_json(hold)
    else:
        print_hold(hold)


def print_hold(hold: Json) -> None:
    """A hold for a person."""
    typer.echo(f"{hold['id']} is {hold['state']}.")
    for name, value in hold.items():
        if name in ("id", "state", "links") or value is None:
            continue
        if name == "traces":
            value = f"{value['protected']:,} are kept, {value['hidden_kept']:,} of them hidden already"
        elif isinstance(value, dict):
            value = f"{value.get('start_time') or 'the beginning'} to {value.get('end_time') or 'now and later'}"
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        typer.echo(f"{name}: {printable(shown)}")
