"""`clearspan delete`: look at what would be deleted, confirm it by typing, watch it, keep the receipt."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clearspan.cli.follow import ended_badly, fetch_receipt, follow, save_new, state_line, verify_line
from clearspan.cli.output import JsonOption, fail, print_json, print_table, printable
from clearspan.cli.remote import DEFAULT_URL, KeyFileOption, KeyOption, Remote, RemoteFailure, UrlOption, open_remote
from clearspan.cli.selection import (
    EnvironmentOption,
    FiltersOption,
    FromOption,
    ProjectOption,
    SelectingCommand,
    SpanIdOption,
    ToOption,
    TraceIdOption,
    WhereOption,
    read_time,
    selection_body,
)

Json = dict[str, Any]

SAMPLES_SHOWN = 10


def delete(
    where: WhereOption = None,
    filters: FiltersOption = None,
    trace_id: TraceIdOption = None,
    span_id: SpanIdOption = None,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    start: FromOption = None,
    end: ToOption = None,
    delete_all: Annotated[bool, typer.Option("--delete-all", help="No time window: of whatever time.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; erased with the traces.", show_default=False)] = None,
    not_before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Hide now, erase not before then; until then it can be cancelled.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needs --expected-count.")] = False,
    expected_count: Annotated[
        int | None, typer.Option(help="Delete nothing unless exactly so many traces match.", show_default=False)
    ] = None,
    receipt: Annotated[
        Path | None, typer.Option(help="Where to keep the receipt; else receipt-<id>.json.", show_default=False)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete traces, or spans by themselves: preview, confirmation, progress, receipt.

    Nothing is deleted but what the preview listed. Exit status 0: verified, or waiting as asked; 1: refused or failed;
    2: not understood, or no server there.
    """
    with open_remote(url, key, key_file) as remote:
        body = selection_body(
            where=where,
            filters=filters,
            trace_id=trace_id,
            span_id=span_id,
            project=project,
            environment=environment,
            start=start,
            end=end or ("now" if start else None),
        )
        later = read_later(not_before, datetime.now(UTC))
        body |= {name: value for name, value in (("reason", reason), ("not_before", later)) if value is not None}
        if delete_all:
            body["delete_all"] = True
        if not dry_run:
            check_confirmable(yes, expected_count)
            if receipt is not None and receipt.exists():
                raise RemoteFailure(f"{receipt} exists already and was not overwritten; nothing was deleted.")
        preview = ask_preview(remote, body)
        if not as_json:
            print_preview(preview)
        elif dry_run:
            print_json(preview)
        if dry_run:
            return
        deletion = carry_out(remote, preview, expected_count, ask=not yes, show=sys.stderr.isatty() and not as_json)
        finish(remote, deletion, receipt, as_json)


vars(delete)["command_class"] = SelectingCommand


def ask_preview(remote: Remote, body: Json) -> Json:
    """The preview; a refusal for want of a window is told in the words of the options. Raises RemoteFailure."""
    try:
        preview: Json = remote.post("/v1/deletions/preview", body)
    except RemoteFailure as failure:
        if failure.code != "unbounded_window":
            raise
        raise RemoteFailure(f"{failure} Give --from and --to, or --delete-all.", code=failure.code) from None
    return preview


def carry_out(remote: Remote, preview: Json, expected_count: int | None, *, ask: bool, show: bool) -> Json:
    """Delete what was previewed, if it is as many as expected or confirmed, and follow it. Raises RemoteFailure.

    Args:
        ask: let a person type the number first.
        show: progress, on stderr.
    Returns:
        The deletion as it stands then; without id and state where nothing matched.
    """
    matched = preview["traces"]["matched"]
    if expected_count is not None and matched != expected_count:
        raise RemoteFailure(f"{matched:,} traces match, not {expected_count:,}; nothing was deleted.")
    if matched == 0:
        return {"id": None, "state": None, "traces": preview["traces"]}
    if ask:
        ask_for_number(matched, preview.get("kind", "traces"))
    order = {"plan_token": preview["plan_token"], "expected_count": matched, "wait": "hidden"}
    return follow(remote, remote.post("/v1/deletions", order), show=show)


def check_confirmable(yes: bool, expected_count: int | None) -> None:
    """Refuse what nobody could confirm, before anything is asked of the server. Raises RemoteFailure."""
    if yes and expected_count is None:
        raise RemoteFailure("--yes needs --expected-count N: say how many traces are meant.", exit_status=2)
    if not yes and not sys.stdin.isatty():
        raise RemoteFailure(
            "Nobody is there to confirm: in a script give --yes --expected-count N, or look first with --dry-run. "
            "Nothing was deleted.",
            exit_status=2,
        )


def ask_for_number(matched: int, kind: str) -> None:
    """Let a person type the number of traces, or spans. Ends the command when it is not that number."""
    typer.echo(f"\nThis cannot be undone. Type the number of {kind}, {matched}, to delete them: ", nl=False, err=True)
    try:
        typed = sys.stdin.readline().strip()
    except KeyboardInterrupt:
        typed = ""
    if typed.replace(",", "") != str(matched):
        raise fail("not confirmed; nothing was deleted.")


def read_later(text: str | None, now: datetime) -> str | None:
    """`--not-before`: a time, or a span from now: unlike other times, this one lies ahead. Raises RemoteFailure."""
    said = read_time(text, now, "--not-before")
    if said is None or said == text:
        return said
    return (now + (now - datetime.fromisoformat(said))).isoformat()


def finish(remote: Remote, deletion: Json, receipt: Path | None, as_json: bool) -> None:
    """Tell how it ended, keep the receipt, and choose the exit status."""
    kept = None
    if deletion["state"] == "verified":
        kept = receipt or Path(f"receipt-{deletion['id']}.json")
        save_new(kept, fetch_receipt(remote, deletion["id"]))
    if as_json:
        print_json({"deletion": deletion, "receipt_file": None if kept is None else str(kept)})
    else:
        typer.echo("\n".join(["", *ending_lines(deletion, kept)]))
    if bad := ended_badly(deletion):
        raise bad


def ending_lines(deletion: Json, kept: Path | None) -> list[str]:
    """How a deletion ended, for a person."""
    if deletion["state"] is None:
        return ["No trace matched; nothing was deleted."]
    traces, name, kind = deletion["traces"], deletion["id"], deletion.get("kind", "traces")
    done = "erased" if deletion["state"] == "verified" else "hidden"
    if deletion["state"] == "cancelled":
        done = "un-hidden"
    lines = [state_line(deletion), f"{printable(traces['hidden'])} of {traces['matched']:,} matched {kind} are {done}."]
    if traces.get("held"):
        child = deletion.get("child_id")
        lines.append(
            f"{traces['held']:,} are kept by a hold and go when it is released" + (f": {child}." if child else ".")
        )
    if deletion.get("follow_up_id"):
        lines.append(f"Copies were made meanwhile; what becomes of them: {printable(deletion['follow_up_id'])}.")
    if deletion.get("waits_for") == "not_before":
        lines.append(f"They are erased not before {deletion['not_before']}; until then it can be cancelled.")
    if kept is not None:
        lines += [f"Receipt: {kept}", verify_line(kept)]
    elif deletion["state"] not in ("failed", "cancelled"):
        lines += [f"  follow it:  clearspan deletions watch {name}", f"  cancel it:  clearspan deletions cancel {name}"]
        lines += [f"  its receipt, once it is verified:  clearspan deletions receipt {name}"]
    elif deletion["state"] == "failed":
        lines.append(f"  try again:  clearspan deletions retry {name}")
    return lines


def copies_lines(copies: Json) -> list[str]:
    """What becomes of copies, for a person; nothing where there are none."""
    words = (
        ("taken", "of them are traces with copies of the others."),
        ("redacted_items", "items of datasets among them are replaced by empty ones."),
        ("detached", "versions of dataset items made from them stay, as their datasets are set to."),
        ("of_trace", "traces with copies of the whole trace stay, and may hold their text."),
        ("not_covered", "traces with copies stay: this key does not reach them."),
    )
    return [f"{copies[name]:,} {told}" for name, told in words if copies.get(name)]


def print_preview(preview: Json) -> None:
    """What would be deleted: window, counts, holds, days, samples."""
    window, traces = preview["effective_window"], preview["traces"]
    start, end = window["start_time"] or "the beginning", window["end_time"] or "now"
    if preview.get("kind", "traces") == "spans":
        typer.echo(f"{traces['matched']:,} spans match")
    else:
        typer.echo(f"{traces['matched']:,} traces match, started from {start} to {end}")
    typer.echo(f"in {', '.join(map(printable, preview['projects'])) or 'no project'}.")
    if traces["matched"] == 0:
        return
    for line in copies_lines(preview.get("copies", {})):
        typer.echo(line)
    for hold in preview["holds"]:
        typer.echo(f"Hold {hold['id']} keeps {hold['traces']:,} of them; they are deleted when it is released.")
    typer.echo("")
    rows = {target: counts["planned"] for target, counts in preview["counts"].items() if counts["planned"]}
    print_table(["target", "rows"], [[target, f"{count:,}"] for target, count in rows.items()])
    for title, numbers in (("day", preview["by_day"]), ("project", preview["by_project"])):
        typer.echo("")
        print_table([title, "traces"], [[printable(name), f"{count:,}"] for name, count in numbers.items()])
    if samples := preview.get("samples"):
        typer.echo("")
        columns = ["trace_id", "start_time", "name", "customer_identifier", "span_count"]
        print_table(columns, [[printable(sample.get(name)) for name in columns] for sample in samples[:SAMPLES_SHOWN]])
        if traces["matched"] > len(samples[:SAMPLES_SHOWN]):
            typer.echo(f"… and {traces['matched'] - len(samples[:SAMPLES_SHOWN]):,} more")
