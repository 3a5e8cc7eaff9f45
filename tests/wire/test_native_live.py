"""Event streams over a real connection: what a client sees as it happens, and a server that stops under it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from test_native_evidence import events_of

from clearspan.testing.live import READY_S, Live, start_server, stop_server

FAR = (datetime.now(UTC) + timedelta(days=300)).isoformat()


def waiting(live: Live, *trace_ids: str) -> dict[str, Any]:
    """A deletion that is hidden and stays so."""
    span = {"span_name": "answer", "start_time": "2026-01-01T00:00:00Z", "timestamp": "2026-01-01T00:00:01Z"}
    spans = [span | {"trace_unique_id": each, "span_unique_id": f"{each}-1"} for each in trace_ids]
    assert live.http.post("/api/v1/traces/ingest", json=spans).status_code == 200
    answer = live.http.post("/v1/deletions", json={"trace_ids": list(trace_ids), "not_before": FAR})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_stream_tells_each_move_as_it_happens_and_ends_with_the_server(tmp_path: Path) -> None:
    live = start_server(tmp_path / "data")
    told, other = waiting(live, "a", "b"), waiting(live, "c")
    with live.http.stream("GET", told["links"]["events"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["clearspan-deletion-state"] == "hidden"
        events = events_of(stream.iter_lines())
        first = [next(events) for _ in range(3)]
        assert [(name, data["state"]) for name, _, data in first] == [
            ("state", "planned"), ("state", "hidden"), ("progress", "hidden"),
        ]  # fmt: skip
        assert live.http.post(told["links"]["cancel"], json={}).json()["state"] == "cancelled"
        rest = list(events)
    assert [(name, data["state"]) for name, _, data in rest] == [
        ("state", "cancelled"), ("progress", "cancelled"), ("end", "cancelled"),
    ]  # fmt: skip
    assert live.http.get("/readyz").status_code == 200
    with (
        httpx.Client(base_url=live.url, headers=live.http.headers, timeout=READY_S) as client,
        client.stream("GET", other["links"]["events"]) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        began = time.monotonic()
        stop_server(live)
        assert time.monotonic() - began < READY_S / 2, "an open stream must not keep the server from stopping"
        for _ in lines:  # ends: whole, not broken off
            pass
