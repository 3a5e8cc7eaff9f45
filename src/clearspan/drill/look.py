"""The witness: a process of its own that looks for needles in files and in answers, and shares nothing with the server.

    python -m clearspan.drill.look  < order.json  > findings.json

Order and findings go through pipes: a needle written to a file by the witness would be found by the next look.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from clearspan.drill.needles import Wanted
from clearspan.drill.questions import Facts, Question, questions
from clearspan.files.pages import scan_database
from clearspan.files.scan import is_database, scan_all, scan_files

Json = dict[str, Any]
ANSWER_TIMEOUT_S = 60.0


class Kinds(NamedTuple):
    """All needles of a drill: those that must go and those that must stay, told apart by their marks."""

    wanted: dict[str, Wanted]

    def find(self, data: bytes) -> Iterator[tuple[str, str]]:
        """`kind/number` and the writing of each needle seen."""
        for kind, wanted in self.wanted.items():
            yield from ((f"{kind}/{name}", writing) for name, writing in wanted.find(data))


def main() -> None:
    """Entry point of the process."""
    order = json.load(sys.stdin)
    json.dump(look(order), sys.stdout)


def look(order: Json) -> Json:
    """Look at what the order names.

    Args:
        order: `kinds` {kind: Wanted.dump()}, `folder` and `files` (paths) to scan, `pages` whether to parse every
            page of the databases there (nobody may have them open), `server` {url, key} or null, `facts` and `window`
            of the questions.
    Returns:
        {pid, files, pages, reads}: see the functions below.
    """
    kinds = Kinds({kind: Wanted.load(said) for kind, said in order["kinds"].items()})
    folder = Path(order["folder"])
    found: Json = {"pid": os.getpid(), "files": look_at_files(folder, [Path(each) for each in order["files"]], kinds)}
    found["pages"] = look_at_pages(folder) if order["pages"] else None
    server = order["server"]
    found["reads"] = None if server is None else look_at_reads(server, _facts(order["facts"]), order["window"], kinds)
    return found


def look_at_files(folder: Path, others: Iterable[Path], kinds: Kinds) -> Json:
    """Counts of what was read, and `hits` as [file, needle, writing]."""
    scan = scan_all(folder, kinds.find)
    for path in others:
        scan_files(path, kinds.find, scan)
    counts = {"files": scan.files, "bytes": scan.bytes, "frames": scan.frames, "values": scan.values}
    return counts | {"unreadable": scan.unreadable, "hits": [list(hit) for hit in scan.hits]}


def look_at_pages(folder: Path) -> Json:
    """Database file → what its pages hold where they should hold nothing; empty when all are clean."""
    reports = {path.name: scan_database(path) for path in sorted(folder.rglob("*")) if is_database(path)}
    return {
        name: {"pages": report.pages, "is_clean": report.is_clean, "residue_bytes": sum(report.residue.values())}
        for name, report in reports.items()
    }


def look_at_reads(server: Json, facts: Facts, window: str, kinds: Kinds) -> Json:
    """Ask every question and search every answer, headers included.

    Returns: `asked` requests by route, `statuses` by route, `left_out` routes, `hits` as [route, needle, writing].
    """
    headers = {"Authorization": f"Bearer {server['key']}"}
    with httpx.Client(base_url=server["url"], headers=headers, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
        asked, left_out = questions(http.get("/openapi.json").raise_for_status().json(), facts, window)
        counts: Counter[str] = Counter()
        statuses: dict[str, Counter[str]] = {}
        hits: dict[tuple[str, str, str], None] = {}
        for question in asked:
            status, answer = _ask(http, question)
            counts[question.route] += 1
            statuses.setdefault(question.route, Counter())[str(status)] += 1
            for needle, writing in kinds.find(answer):
                hits[(question.route, needle, writing)] = None
    return {"asked": counts, "statuses": statuses, "left_out": left_out, "hits": [list(hit) for hit in hits]}


def _ask(http: httpx.Client, question: Question) -> tuple[int, bytes]:
    """(status, headers and body). A refusal is an answer like any other: it must not tell what is gone either."""
    answer = http.request(question.method, question.path, json=question.body)
    head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    return answer.status_code, head.encode("utf-8", "surrogateescape") + b"\n\n" + answer.content


def _facts(said: Json) -> Facts:
    return Facts(
        said["trace_ids"],
        [(key, value) for key, value in said["pairs"]],
        [(field, text) for field, text in said["needles"]],
        said["parameters"],
    )


if __name__ == "__main__":
    main()
