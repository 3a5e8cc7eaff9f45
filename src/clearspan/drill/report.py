"""What a drill saw, as JSON for programs and as Markdown for the people who ask for evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

Json = dict[str, Any]


class Check(NamedTuple):
    """One thing that had to hold."""

    name: str
    ok: bool
    said: str  # what was seen, in a sentence


LIMITS = (
    "The drill looks at the data directory, at the server's own log, and at what the server answers. It does not look "
    "at backups, file-system snapshots, spare blocks of a disk, swap, or copies that others made.",
    "It shows what happened to the traces of this drill. How other deletions ended is shown by their own receipts.",
    "Searched for are the bytes of each needle and these writings of them: hexadecimal, letters, Base64, CJK text, "
    "plain, escaped in JSON, percent-encoded, and as UTF-16. Pieces are found by a needle's first or last six bytes.",
    "The text index keeps hashes of four-byte grams. A needle cannot be read there; that its rows are gone is the "
    "deletion's own recount of the target text_signature.",
)


@dataclass(frozen=True)
class DrillReport:
    """One drill from its beginning to its end. Of the needles it holds only the marks."""

    version: str
    started_at: str
    ended_at: str
    url: str
    data: str
    is_own_server: bool
    marks: dict[str, dict[str, str]]  # kind → head and tail, hex
    planted: list[Json]  # field, forms, needles, seen before (files, reads) and after (files, reads)
    counts: Json  # traces, needles, requests, bytes read …
    deletion: Json  # as GET /v1/deletions/{id} told it at the end
    receipt: Json | None  # id, key, index, tree head
    looks: dict[str, Json]  # before, after, at rest: what was read
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return all(check.ok for check in self.checks)

    def as_json(self) -> Json:
        said = asdict(self)
        said["checks"] = [check._asdict() for check in self.checks]
        return {"ok": self.ok, **said, "limits": list(LIMITS)}


def render_markdown(report: DrillReport) -> str:
    """The report as a page."""
    verdict = "Nothing of what was deleted was found." if report.ok else "**The drill failed.**"
    lines = [
        "# Deletion drill",
        "",
        f"{verdict} Clearspan {report.version}, {report.started_at} to {report.ended_at}.",
        "",
        *_where(report),
        "## What had to hold",
        "",
        "| | check | seen |",
        "| --- | --- | --- |",
        *(f"| {'ok' if check.ok else '**FAILED**'} | {check.name} | {_cell(check.said)} |" for check in report.checks),
        "",
        *_deletion(report),
        "## What was planted, and where it was seen",
        "",
        "Needles are 24 random bytes. *Before* is the control: it shows that the search can see each of them.",
        "",
        "| field | needles | forms | before: in files | before: in answers | after: in files | after: in answers |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
        *map(_planted_row, report.planted),
        "",
        *_looks(report),
        "## Look for yourself",
        "",
        "Every needle that had to go begins with the first of these bytes and ends with the second:",
        "",
        *(f"    {kind}: {marks['head']} … {marks['tail']}" for kind, marks in report.marks.items()),
        "",
        *_yourself(report),
        "",
        "## What this does not show",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    return "\n".join(lines)


def fields_of(planted: list[Json]) -> Counter[str]:
    """Needles by field."""
    return Counter({row["field"]: row["needles"] for row in planted})


def _yourself(report: DrillReport) -> list[str]:
    head = report.marks["gone"]["head"]
    if report.is_own_server:
        return [
            "The drill's own directory was removed at its end: there is nothing left to search. To look for yourself, "
            "run the drill on a server that stays: `clearspan drill --url URL --data DIR`."
        ]
    return [
        f"For example: `grep -rlaP '{_pattern(head)}' {report.data}`, or `grep -rla {head} {report.data}` for those "
        "written in hexadecimal. This report holds them as well: keep it elsewhere."
    ]


def _where(report: DrillReport) -> list[str]:
    kind = "a server of the drill's own, stopped at its end" if report.is_own_server else "a running server"
    counts = report.counts
    return [
        f"- Server: {report.url}, {kind}; data directory `{report.data}`",
        f"- Planted: {counts['needles']:,} needles in {counts['gone_traces']} traces to delete, and as marked "
        f"neighbours {counts['kept_traces']} traces to keep, by {counts['requests']} requests over OTLP (protobuf and "
        "JSON, traces and logs) and Respan's JSON",
        "",
    ]


def _deletion(report: DrillReport) -> list[str]:
    deletion, receipt = report.deletion, report.receipt
    lines = ["## The deletion", "", f"- Deletion `{deletion.get('id')}`, state `{deletion.get('state')}`"]
    times = deletion.get("times") or {}
    lines += [f"- {state}: {at}" for state, at in times.items() if at]
    if receipt:
        lines += [f"- {name.replace('_', ' ')}: `{value}`" for name, value in receipt.items() if value is not None]
    rows = deletion.get("counts") or {}
    if rows:
        lines += ["", "| target | planned | purged | remaining |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {target} | {count.get('planned')} | {count.get('purged')} | {count.get('remaining')} |"
            for target, count in rows.items()
        ]
    return [*lines, ""]


def _planted_row(row: Json) -> str:
    before, after = row["before"], row["after"]
    cells = [row["field"], row["needles"], ", ".join(row["forms"])]
    cells += [before["files"], before["reads"], after["files"], after["reads"]]
    return f"| {' | '.join(map(str, cells))} |"


def _looks(report: DrillReport) -> list[str]:
    lines = [
        "## What was read",
        "",
        "| look | process | files | bytes | zstd frames | table values | requests | routes not asked |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, look in report.looks.items():
        files, reads = look["files"], look["reads"] or {"asked": {}, "left_out": []}
        numbers = [look["pid"], files["files"], f"{files['bytes']:,}", f"{files['frames']:,}", f"{files['values']:,}"]
        numbers += [sum(reads["asked"].values()), ", ".join(reads["left_out"]) or "–"]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return [*lines, ""]


def _pattern(hexed: str) -> str:
    return "".join(f"\\x{hexed[at : at + 2]}" for at in range(0, len(hexed), 2))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
