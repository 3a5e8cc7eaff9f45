"""Options that say which traces are meant, the same for deletions and holds, and the JSON body they make."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from clearspan.cli.remote import RemoteFailure

Json = dict[str, Any]

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FIELD OP VALUE…",
        help="A condition, as words or quoted as one; give several to join them by AND.",
        show_default=False,
    ),
]
FiltersOption = Annotated[
    str | None, typer.Option("--filters", metavar="JSON|@FILE", help="Filters in Respan's form.", show_default=False)
]
TraceIdOption = Annotated[
    list[str] | None,
    typer.Option("--trace-id", metavar="ID…", help="Traces by id; may be given several times.", show_default=False),
]
SpanIdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--span-id",
        metavar="ID…",
        help="Spans by themselves, by id or as TRACE/SPAN; may be given several times.",
        show_default=False,
    ),
]
ProjectOption = Annotated[str | None, typer.Option("--project", help="Only in this project.", show_default=False)]
EnvironmentOption = Annotated[
    str | None, typer.Option("--environment", help="Only in this environment.", show_default=False)
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME", help="Started then or later: a time, or 90m, 12h, 30d ago.", show_default=False
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="Started before then: a time, `now`, or a span ago.", show_default=False),
]

_GREEDY = frozenset({"--where", "--trace-id", "--span-id"})
_WORDLESS = frozenset({"empty", "not_empty", "is_empty", "isempty", "notempty", "is_null", "isnull", "is_not_null"})
_SPAN = re.compile(r"([1-9]\d{0,5})([smhdw])")
_SPAN_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class SelectingCommand(TyperCommand):
    """A command whose `--where`, `--trace-id` and `--span-id` take every word up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, gather(args))


def gather(args: list[str]) -> list[str]:
    """Arguments with the words after each greedy option put into one, as a shell would quote them.

    `--where error_count gt 0 --json` → `--where`, `error_count gt 0`, `--json`. A value that begins with two dashes has
    to be given in the quoted form.
    """
    out: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        out.append(word)
        if word not in _GREEDY:
            continue
        taken: list[str] = []
        while rest and not rest[0].startswith("--"):
            taken.append(rest.pop(0))
        if len(taken) > 1:
            out.append(shlex.join(taken))
        else:
            out += taken
    return out


def selection_body(
    *,
    where: list[str] | None,
    filters: str | None,
    trace_id: list[str] | None,
    project: str | None,
    environment: str | None,
    start: str | None,
    end: str | None,
    span_id: list[str] | None = None,
    now: datetime | None = None,
) -> Json:
    """The part of a request's body that says which traces are meant.

    Raises:
        RemoteFailure: words that cannot be understood; exit status 2.
    """
    body: Json = {}
    conditions = [parse_condition(each) for each in where or ()]
    if filters is not None:
        if conditions:
            raise _usage("--where and --filters cannot be given together.")
        body |= read_filters(filters)
    if conditions:
        body["filters"] = conditions
    if trace_id:
        body["trace_ids"] = [name for each in trace_id for name in _words(each, "--trace-id")]
    if span_id:
        body["span_ids"] = [name for each in span_id for name in _words(each, "--span-id")]
    now = now or datetime.now(UTC)
    given = {"project": project, "environment": environment}
    given |= {"start_time": read_time(start, now, "--from"), "end_time": read_time(end, now, "--to")}
    return body | {key: value for key, value in given.items() if value is not None}


def parse_condition(text: str) -> Json:
    """`FIELD OP VALUE…` as one condition of the list form; a shell's quoting keeps words together."""
    words = _words(text, "--where")
    if len(words) < 2 or (len(words) < 3 and words[1].lower() not in _WORDLESS):
        raise _usage(f"--where needs FIELD OP VALUE…, such as `customer_identifier = a@example.com`, not {text!r}.")
    return {"field": words[0], "operator": words[1], "value": words[2:]}


def read_filters(text: str) -> Json:
    """`filters`, and `operator` if it is said, from JSON or @FILE: either the filters themselves or a whole body."""
    try:
        said = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise _usage(f"--filters cannot be read: {error}") from None
    if isinstance(said, dict) and "filters" in said:
        if extra := sorted(set(said) - {"filters", "operator"}):
            raise _usage(f"--filters holds {extra[0]!r}: beside `filters` only `operator` may stand there.")
        return said
    return {"filters": said}


def read_time(text: str | None, now: datetime, option: str) -> str | None:
    """A time as the server reads it; `30d` is so long ago. Raises RemoteFailure."""
    if text is None:
        return None
    if text == "now":
        return now.isoformat()
    if match := _SPAN.fullmatch(text):
        return (now - timedelta(seconds=int(match[1]) * _SPAN_UNITS_S[match[2]])).isoformat()
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise _usage(
            f"{option} is neither a time such as 2026-01-31T12:00Z nor a span such as 30d: {text!r}."
        ) from None
    return text


def _words(text: str, option: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise _usage(f"{option} {text!r}: {error}.") from None


def _usage(message: str) -> RemoteFailure:
    return RemoteFailure(message, exit_status=2)
