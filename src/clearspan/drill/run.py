"""One drill from planting to the report.

The order matters: what is there is looked for first, so that finding nothing afterwards says something; the neighbours
that stay are looked for each time, so that a search that has gone blind is noticed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import clearspan
from clearspan.drill.evidence import Sightings, fields_told, leftovers, planted_rows, sightings
from clearspan.drill.needles import Maker
from clearspan.drill.papers import check_ledger, fetch_papers, points, signed_head
from clearspan.drill.plant import Post, Shared, late_spans, plant, posts, refused_records, shared_pair
from clearspan.drill.report import Check, DrillReport
from clearspan.drill.server import Api, DrillFailed, OwnServer, Target, connect, refuse, send_witness, texts
from clearspan.model.clock import Clock, SystemClock, datetime_from_ns
from clearspan.proof.signing import parse_jwks

Json = dict[str, Any]
Tell = Callable[[str], None]

TRACES_MIN = 12
"""So that each field is written in each form over each wire."""
WINDOW_NS = 3600 * 1_000_000_000
FINAL = frozenset({"verified", "failed", "cancelled"})
POLL_S = 0.1


def run_drill(
    target: Target | None, folder: Path, *, traces: int, tell: Tell = lambda line: None, wait_s: float = 120.0
) -> DrillReport:
    """Plant, look, delete, look again, and write down what was seen.

    Args:
        target: a running server; None: start one of the drill's own below `folder`, and stop it at the end.
        traces: how many to delete, at least TRACES_MIN; a quarter as many more are planted to stay.
        tell: is given a line for each step and check.
        wait_s: how long the deletion may take to be verified.
    Raises:
        DrillFailed: it could not be carried out, so that nothing is known; a needle found is no error but a report
            that is not `ok`.
    """
    if target is not None:
        with connect(target) as api:
            drill = Drill(api, target, traces, tell, wait_s)
            drill.carry_out()
            drill.clean_up()
        return drill.report(is_own_server=False)
    tell("Starting a server of the drill's own")
    server = OwnServer(folder)
    try:
        with connect(server.target) as api:
            drill = Drill(api, server.target, traces, tell, wait_s)
            drill.carry_out()
        drill.look_at_rest(server.stop())
    finally:
        server.stop()
    return drill.report(is_own_server=True)


@dataclass
class Drill:
    """What one drill knows of itself."""

    api: Api
    target: Target
    traces: int
    tell: Tell
    wait_s: float
    clock: Clock = field(default_factory=SystemClock)
    gone: Maker = field(default_factory=lambda: Maker(secrets.token_bytes))
    kept: Maker = field(default_factory=lambda: Maker(secrets.token_bytes))
    checks: list[Check] = field(default_factory=list)
    looks: dict[str, Json] = field(default_factory=dict)
    seen: dict[str, Sightings] = field(default_factory=dict)
    deletion: Json = field(default_factory=dict)
    receipt: Json | None = None
    requests: int = 0
    organisation: str = ""

    def __post_init__(self) -> None:
        self.began_ns = self.clock.now_ns()
        self.shared, self.kept_shared = shared_pair(self.gone), shared_pair(self.kept)
        self.planted = plant(self.gone, self.shared, self.traces, self.began_ns)
        self.neighbours = plant(self.kept, self.kept_shared, max(3, self.traces // 4), self.began_ns)
        self.reason, self.idempotency_key = self.gone.text(-1, "reason"), self.gone.word(-1, "idempotency key")
        self.other_customer = self.gone.text(-1, "filter value")
        self.in_traces = len(self.gone.needles) - 3
        self.posts = list(posts(self.planted))

    def carry_out(self) -> None:
        """Every step that needs the server."""
        self.send_all()
        self.control()
        self.erase()
        self.replay()
        self.confirm()
        self.prove()

    def send_all(self) -> None:
        """Send what was planted, and share one trace of each kind."""
        self.tell(f"Planting {len(self.gone.needles):,} needles in {len(self.planted)} traces")
        for post in [*self.posts, *posts(self.neighbours)]:
            if refused := self.send(post):
                raise DrillFailed(f"{post.path} refused {refused} of the drill's records.")
        for trace in (self.planted[0], self.neighbours[0]):
            self.api.call("PATCH", f"/api/traces/{trace.trace_id}/", {"is_public": True})
            self.organisation = self.api.call("GET", f"/api/traces/{trace.trace_id}/")["unique_organization_id"]

    def control(self) -> None:
        """The search can see: everything planted is in the files, and reads find every trace."""
        seen = self.look("before")
        for kind, needles in (("to delete", self.gone.needles[: self.in_traces]), ("to keep", self.kept.needles)):
            missing = seen.missing("gone" if kind == "to delete" else "kept", needles, "files")
            said = f"{len(needles) - len(missing):,} of {len(needles):,} needles seen"
            self.check(
                f"before: every needle {kind} is found in the files",
                not missing,
                said + (f"; not {fields_told(missing)}" if missing else ""),
            )
        self.check_counts("before", len(self.planted))
        shown = seen.count_of("gone", "reads")
        self.check("before: reads show needles of every trace", self.every_trace_is_read(seen), f"{shown:,} needles")

    def every_trace_is_read(self, seen: Sightings) -> bool:
        by_trace = {needle.trace for needle in self.gone.needles if ("gone", needle.number) in seen.reads}
        return by_trace >= {trace.number for trace in self.planted}

    def erase(self) -> None:
        """Delete by a filter that itself holds needles, give a reason that is one, and wait for the end."""
        self.tell("Deleting")
        preview = self.api.call("POST", "/v1/deletions/preview", self.order())
        matched = matched_of(preview)
        self.check(
            "the preview matches what was planted, and no more", matched == len(self.planted), f"{matched} traces"
        )
        if matched != len(self.planted):
            raise DrillFailed(f"The preview matches {matched} traces, not {len(self.planted)}; nothing was deleted.")
        asked = {"plan_token": preview["plan_token"], "idempotency_key": self.idempotency_key}
        self.deletion = self.api.call("POST", "/v1/deletions", asked)
        deadline = time.monotonic() + self.wait_s
        while self.deletion["state"] not in FINAL and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.deletion = self.api.call("GET", f"/v1/deletions/{self.deletion['id']}")
        state = self.deletion["state"]
        self.check("the deletion is verified", state == "verified", f"{self.deletion['id']} is {state}")

    def order(self) -> Json:
        """The request to delete: by the metadata pair and by customers, one of whom is in no trace."""
        customers = [*(trace.customer for trace in self.planted), self.other_customer]
        start, end = self.bounds()
        return {
            "filters": {
                f"metadata__{self.shared.key}": {"operator": "=", "value": [self.shared.value]},
                "customer_identifier": {"operator": "in", "value": customers},
            },
            "start_time": start,
            "end_time": end,
            "reason": self.reason,
        }

    def replay(self) -> None:
        """Send everything once more, and a new span for each trace: all of it must be refused."""
        self.tell("Sending the same spans again, and late ones")
        records = sum(post.records for post in self.posts)
        refused = sum(self.send(post) for post in self.posts)
        self.check("the same requests again are refused", refused == records, f"{refused} of {records} records")
        late = list(posts(late_spans(self.gone, self.planted, self.clock.now_ns())))
        records, refused = sum(post.records for post in late), sum(map(self.send, late))
        self.check("late spans of deleted traces are refused", refused == records, f"{refused} of {records} records")
        self.deletion = self.api.call("GET", f"/v1/deletions/{self.deletion['id']}")
        counted = self.deletion.get("late_refused")
        self.check("the deletion counts what was refused", bool(counted), f"late_refused is {counted}")

    def confirm(self) -> None:
        """Nothing that had to go is anywhere; everything that had to stay is where it was."""
        seen = self.look("after")
        self.check_absence("after", seen)
        self.check_counts("after", 0)
        trace = self.planted[0]
        shared = self.api.request("GET", f"/api/{self.organisation}/traces/{trace.trace_id}/")
        self.check(
            "after: the public link of a deleted trace is gone", shared.status_code == 404, f"{shared.status_code}"
        )

    def check_absence(self, when: str, seen: Sightings) -> None:
        left = leftovers(seen, "gone", self.gone.needles)
        said = f"{len(left)} seen: {'; '.join(left[:5])}" if left else f"none of {len(self.gone.needles):,} is seen"
        self.check(f"{when}: no needle is left, nor a piece of one", not left, said)
        unreadable = self.looks[when]["files"]["unreadable"]
        self.check(f"{when}: every file could be read", not unreadable, "; ".join(unreadable) or "all read")
        missing = seen.missing("kept", self.kept.needles, "files")
        self.check(
            f"{when}: the search still sees the neighbours",
            not missing,
            f"{len(self.kept.needles) - len(missing):,} of {len(self.kept.needles):,} needles that had to stay",
        )

    def check_counts(self, when: str, expected: int) -> None:
        found, kept = self.count(self.shared), self.count(self.kept_shared)
        self.check(
            f"{when}: lists count what is there",
            (found, kept) == (expected, len(self.neighbours)),
            f"{found} traces to delete, {kept} to keep",
        )

    def prove(self) -> None:
        """Receipt, one trace's membership and the ledger: fetched once, checked away from the server."""
        if self.deletion["state"] != "verified":
            self.check("there is a receipt", False, f"the deletion is {self.deletion['state']}")
            return
        papers = fetch_papers(self.get, self.deletion["id"])
        member = self.get(f"/v1/deletions/{self.deletion['id']}/membership?{urlencode(self.one_member())}")
        for each in points(papers, member):
            self.check(*each)
        self.check("the ledger's entries make the signed root", *check_ledger(self.get, papers))
        payload, head = papers["payload"], signed_head(papers, parse_jwks({"keys": papers["keys"]}))
        self.receipt = {
            "receipt_of": payload["deletion_id"],
            "instance": payload["instance"],
            "keys": [key["kid"] for key in papers["keys"]],
            "ledger_index": payload["ledger"]["index"],
            "tree_size": head.size,
            "tree_root": head.root.hex(),
            "receipt_jws": papers["receipt"],
            "head_jws": papers["head"],
        }

    def one_member(self) -> Json:
        """A deleted trace, as a question for its membership."""
        project = self.deletion["projects"][0] if len(self.deletion["projects"]) == 1 else "default"
        return {"project": project, "trace_id": self.planted[0].trace_id}

    def get(self, path: str) -> Any:
        return self.api.call("GET", path)

    def look_at_rest(self, exit_code: int) -> None:
        """After the server has stopped: once more all files, and every page of every database."""
        self.check("the server stopped by itself when it was asked to", exit_code == 0, f"exit code {exit_code}")
        self.check_absence("at rest", self.look("at rest", pages=True, reads=False))
        pages = self.looks["at rest"]["pages"]
        dirty = [name for name, found in pages.items() if not found["is_clean"]]
        self.check(
            "at rest: no page of a database holds bytes that belong to nothing",
            not dirty,
            ", ".join(dirty) or ", ".join(f"{name}: {found['pages']:,} pages" for name, found in pages.items()),
        )

    def clean_up(self) -> None:
        """Delete the neighbours as well: a drill on a running server leaves nothing but its ledger entries."""
        ids = [trace.trace_id for trace in self.neighbours]
        start, end = self.bounds()
        body = {"trace_ids": ids, "start_time": start, "end_time": end, "expected_count": len(ids), "wait": "verified"}
        state = self.api.call("POST", "/v1/deletions", body)["state"]
        left = leftovers(self.look("cleaned up", reads=False), "kept", self.kept.needles)
        self.check(
            "the neighbours are deleted at the end",
            state == "verified" and not left and not self.count(self.kept_shared),
            f"{len(ids)} traces, {state}" + (f"; {len(left)} needles left" if left else ""),
        )

    def report(self, *, is_own_server: bool) -> DrillReport:
        return DrillReport(
            version=clearspan.__version__,
            started_at=iso(self.began_ns),
            ended_at=iso(self.clock.now_ns()),
            url=self.target.url,
            data=str(self.target.data),
            is_own_server=is_own_server,
            marks={
                kind: {"head": maker.marks.head.hex(), "tail": maker.marks.tail.hex()}
                for kind, maker in (("gone", self.gone), ("kept", self.kept))
            },
            planted=planted_rows("gone", self.gone.needles, self.seen["before"], self.seen["after"]),
            counts={
                "needles": len(self.gone.needles),
                "kept_needles": len(self.kept.needles),
                "gone_traces": len(self.planted),
                "kept_traces": len(self.neighbours),
                "requests": self.requests,
            },
            deletion=self.deletion,
            receipt=self.receipt,
            looks={name: without_hits(found) for name, found in self.looks.items()},
            checks=self.checks,
        )

    def send(self, post: Post) -> int:
        """Send one request of a client; how many of its records the server refused."""
        answer = self.api.request("POST", post.path, content=post.body, headers={"Content-Type": post.content_type})
        if not answer.is_success:
            refuse(f"POST {post.path}", answer)
        self.requests += 1
        return refused_records(post, answer.content)

    def look(self, name: str, *, pages: bool = False, reads: bool = True) -> Sightings:
        """Send the witness, and keep what it found."""
        self.tell(f"Looking at files{' and answers' if reads else ''}, {name}")
        found = send_witness({
            "kinds": {"gone": self.gone.wanted().dump(), "kept": self.kept.wanted().dump()},
            "folder": str(self.target.data),
            "files": [str(path) for path in self.target.logs],
            "pages": pages,
            "server": {"url": self.target.url, "key": self.target.key} if reads else None,
            "window": "&".join(f"{key}={quote(at)}" for key, at in zip(WINDOW_KEYS, self.bounds(), strict=True)),
            "facts": self.facts(),
        })  # fmt: skip
        self.looks[name], self.seen[name] = found, sightings(found)
        return self.seen[name]

    def facts(self) -> Json:
        """What the questions are about; see questions.Facts."""
        ids = [trace.trace_id for trace in (*self.planted, *self.neighbours)]
        deletions = [self.deletion["id"]] if self.deletion else []
        parameters: dict[str, Sequence[str]] = {
            "trace_unique_id": ids,
            "trace_id": ids,
            "unique_organization_id": [self.organisation],
            "deletion_id": deletions,
        }
        return {
            "trace_ids": ids,
            "pairs": [tuple(self.shared), tuple(self.kept_shared)],
            "needles": texts(self.gone.needles) + texts(self.kept.needles),
            "parameters": parameters,
        }

    def bounds(self) -> tuple[str, str]:
        """A window that holds everything planted."""
        return iso(self.began_ns - WINDOW_NS), iso(self.began_ns + WINDOW_NS)

    def count(self, shared: Shared) -> int:
        """How many traces of one kind a list finds."""
        filters = {f"metadata__{shared.key}": {"operator": "=", "value": [shared.value]}}
        start, end = self.bounds()
        page = self.api.call("POST", f"/api/traces/list/?start_time={start}&end_time={end}", {"filters": filters})
        return int(page["count"])

    def check(self, name: str, ok: bool, said: str) -> None:
        self.checks.append(Check(name, ok, said))
        self.tell(f"{'ok' if ok else 'FAILED'}: {name} ({said})")


WINDOW_KEYS = ("start_time", "end_time")


def matched_of(preview: Json) -> int:
    """How many traces a preview would delete."""
    return int(preview["traces"]["matched"])


def without_hits(found: Json) -> Json:
    """A look as the report holds it: what was read, not each of the thousand places where the control saw needles."""
    files = {key: value for key, value in found["files"].items() if key != "hits"}
    reads = found["reads"] and {key: value for key, value in found["reads"].items() if key != "hits"}
    return found | {"files": files, "reads": reads}


def iso(ns: int) -> str:
    """Unix nanoseconds as `2026-01-31T23:59:59.123456Z`."""
    return datetime_from_ns(ns).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
