"""A data directory that lives through many servers, and a model of what must be in it.

The model is a set of trace ids that are there and a set of deletions with what each took. `check` compares everything
a reader can see with it; `check_files` reads the files themselves.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from clearspan.files.vfs import open_reader
from clearspan.store.sqlite import fsck
from clearspan.testing.needles import needle_of, scan_folder

from .live import Live, start, wait_for

DAY = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = {"start_time": "2025-12-31T00:00:00Z", "end_time": "2026-02-01T00:00:00Z"}
OPEN_STATES = ("planned", "hidden", "purged", "blocked")
SPANS_A_REQUEST = 500
PAGE = 1000
END_S = 60.0


def ingest(client: httpx.Client, spans: list[dict[str, Any]]) -> httpx.Response:
    """Send spans as exporters do: what a writer that is being started again answers with 503 is sent once more."""
    answers: list[httpx.Response] = []

    def is_taken() -> bool:
        answers.append(client.post("/api/v1/traces/ingest", json=spans))
        return answers[-1].status_code != 503

    wait_for(is_taken, "the writer takes spans")
    assert answers[-1].status_code == 200, answers[-1].text
    return answers[-1]


@dataclass
class Group:
    """Traces of one customer, which one filter selects."""

    customer: str
    trace_ids: list[str]
    spans_each: int
    needles: set[str]

    @property
    def filters(self) -> dict[str, Any]:
        return {"customer_identifier": {"operator": "=", "value": [self.customer]}}

    @property
    def spans(self) -> int:
        return len(self.trace_ids) * self.spans_each


@dataclass
class World:
    """One data directory under test."""

    data: Path
    rng: random.Random
    settings: dict[str, str] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)  # trace ids that reads must show
    gone: set[str] = field(default_factory=set)  # trace ids that were deleted
    needles: set[str] = field(default_factory=set)  # of what was deleted and purged
    deletions: int = 0  # verified with at least one trace

    def start(self) -> Live:
        self.data.mkdir(mode=0o700, exist_ok=True)
        return start(self.data, faults=self.data.parent / "faults", **self.settings)

    def plant(self, live: Live, traces: int, spans: int = 3, *, text_bytes: int = 40, customer: str = "") -> Group:
        """Send traces of one customer, a new one if none is named; all must be acknowledged."""
        group = Group(customer or self.needle(), [self.needle() for _ in range(traces)], spans, set())
        group.needles |= {group.customer, *group.trace_ids}
        bodies = []
        for trace_id in group.trace_ids:
            text = self.needle()
            group.needles.add(text)
            bodies += [self.span(group.customer, trace_id, n, f"{text} {'x' * text_bytes}") for n in range(spans)]
        with live.client() as client:
            for at in range(0, len(bodies), SPANS_A_REQUEST):
                ingest(client, bodies[at : at + SPANS_A_REQUEST])
        self.there |= set(group.trace_ids)
        return group

    def took(self, group: Group) -> None:
        """Note that a deletion takes this group, whole."""
        self.there -= set(group.trace_ids)
        self.gone |= set(group.trace_ids)
        self.needles |= group.needles
        self.deletions += 1

    def send_late(self, live: Live, group: Group) -> None:
        """A late span for a trace that was deleted: it must be refused, and said to be."""
        with live.client() as client:
            span = self.span(group.customer, self.rng.choice(group.trace_ids), 999, "late")
            answer = ingest(client, [span])
        assert "1 spans refused" in answer.json()["message"], answer.text

    def check(self, live: Live) -> None:
        """Nothing lost, nothing extra, nothing back: reads show exactly what the model holds."""
        seen = visible_ids(live)
        lost, extra = self.there - seen, seen - self.there
        assert (lost, extra & self.gone, extra) == (set(), set(), set())

    def check_files(self, *, receipts_min: bool = False) -> None:
        """No needle of what was deleted in any file, raw or decoded, and a store whose parts agree. Server stopped.

        As many receipts as deletions that took something; `receipts_min`: at least, as those that took nothing have
        one too.
        """
        issued = receipts(self.data)
        assert issued >= self.deletions if receipts_min else issued == self.deletions
        assert fsck.check(self.data).violations == []
        assert scan_folder(self.data, self.needles) == []

    def needle(self) -> str:
        """A word that is nowhere else."""
        return needle_of(self.rng.randbytes(12))

    def span(self, customer: str, trace_id: str, number: int, text: str) -> dict[str, Any]:
        start_at = DAY + timedelta(seconds=number)
        return {
            "trace_unique_id": trace_id,
            "span_unique_id": f"{trace_id[:8]}-{number}",
            "span_parent_id": None if number == 0 else f"{trace_id[:8]}-0",
            "span_name": "answer",
            "log_type": "workflow",
            "start_time": start_at.isoformat(),
            "timestamp": (start_at + timedelta(seconds=1)).isoformat(),
            "customer_identifier": customer,
            "input": text,
        }


def visible_ids(live: Live) -> set[str]:
    """Every trace id that the list shows; each once."""
    seen: list[str] = []
    with live.client() as client:
        for page in range(1, 10_000):
            answer = client.post(
                "/api/traces/list/", params={**WINDOW, "page": str(page), "page_size": str(PAGE)}, json={}
            )
            assert answer.status_code == 200, answer.text
            rows = [row["trace_unique_id"] for row in answer.json()["results"]]
            seen += rows
            if len(rows) < PAGE:
                break
    assert len(seen) == len(set(seen)), "a trace is listed twice"
    return set(seen)


def native_body(group: Group, **more: Any) -> dict[str, Any]:
    return {"filters": group.filters, **WINDOW, **more}


def native_delete(client: httpx.Client, group: Group, **more: Any) -> httpx.Response:
    """A deletion of the group through /v1, which waits for the proof unless `more` says otherwise."""
    return client.post("/v1/deletions", json={"wait": "verified", **native_body(group, **more)}, timeout=END_S)


def bulk_delete(client: httpx.Client, group: Group) -> httpx.Response:
    return client.post("/api/traces/bulk/", params=WINDOW, json={"filters": group.filters}, timeout=END_S)


def ended(live: Live, deletion_id: str) -> dict[str, Any]:
    """A deletion, once it is in a final state."""
    found: dict[str, Any] = {}
    with live.client() as client:

        def is_over() -> bool:
            answer = client.get(f"/v1/deletions/{deletion_id}")
            assert answer.status_code == 200, answer.text
            found.update(answer.json())
            return found["state"] not in OPEN_STATES

        wait_for(is_over, f"{deletion_id} ends, not {found.get('state')}", seconds=END_S)
    return found


def check_receipt(live: Live, deletion_id: str, traces: int) -> None:
    """A verified deletion has its receipt, and its ledger rows name each move once."""
    with live.client() as client:
        answer = client.get(f"/v1/deletions/{deletion_id}/receipt")
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"] == deletion_id
        assert answer.json()["payload"]["manifest"]["size"] == traces, answer.text
        rows = client.get("/v1/ledger/entries", params={"deletion_id": deletion_id, "limit": "200"}).json()["data"]
    steps = [row["entry"]["step"] for row in rows]
    assert len(steps) == len(set(steps)), steps
    assert sum(step.endswith(".verified") for step in steps) == 1, steps


def deletion_ids(data: Path) -> list[str]:
    """The id of every deletion that was ever accepted, also by a server that died before it could answer."""
    conn = open_reader(data / "catalog.db")
    try:
        return [row[0] for row in conn.execute("SELECT id FROM job WHERE kind = 'deletion' ORDER BY rowid")]
    finally:
        conn.close()


def receipts(data: Path) -> int:
    """How many receipts were ever issued for deletions that took a trace."""
    conn = open_reader(data / "catalog.db")
    try:
        return int(conn.execute("SELECT count(*) FROM receipt").get)
    finally:
        conn.close()
