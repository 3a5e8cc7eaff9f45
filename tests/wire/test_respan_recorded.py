"""Every request that Respan's clients were recorded to send is answered as they expect."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from clearspan.testing.wire import Wire

# Nothing here depends on which store is behind: the one that ships is enough.
pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)

RECORDED = Path(__file__).resolve().parent.parent / "fixtures" / "respan"
TRACE_FILES = [
    "respan_api_0.1.49_traces.json",
    "respan_api_0.1.0_legacy_paths.json",
    "respan_api_0.1.20_operator_or.json",
]
INGEST_FILES = {
    "respan_tracing_2.24.0_decorators.json": {"span_count": 5, "name": "weather_flow"},
    "respan_ai_4.2.4_openai_chat.json": {"span_count": 3, "llm_call_count": 1},
    "keywordsai_tracing_0.0.59_protobuf.json": {},
    "keywordsai_tracing_js_1.0.44.json": {"span_count": 3},
    "otlp_exporter_1.45.2_protobuf_gzip.json": {},
}
WIDE = "?start_time=2026-01-01&end_time=2027-01-01"


def recorded(name: str) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = json.loads((RECORDED / name).read_text("utf-8"))
    return requests


def replay(wire: Wire, request: dict[str, Any]) -> Any:
    """Send a recorded request with its own headers, but for key, host and length."""
    headers = {
        name: value
        for name, value in request["headers"].items()
        if name.lower() not in ("authorization", "host", "content-length", "connection")
    }
    if "body_base64" in request:
        body: bytes | None = base64.b64decode(request["body_base64"])
        if headers.get("content-encoding") == "gzip":
            body = gzip.compress(body)
    else:
        body = None if request.get("json") is None else json.dumps(request["json"]).encode()
    query = f"?{request['query']}" if request.get("query") else ""
    return wire.send(request["method"], request["path"] + query, body, headers=headers)


@pytest.mark.parametrize("name", INGEST_FILES)
def test_recorded_spans_are_taken(wire: Wire, name: str) -> None:
    for request in recorded(name):
        if request["path"].startswith("/openai/"):
            continue
        answer = replay(wire, request)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == request["headers"]["content-type"]
        assert answer.content in (b"", b"{}"), "nothing was left out"
    (trace,) = wire.post(f"/api/traces/list/{WIDE}", {}).json()["results"]
    assert trace == trace | INGEST_FILES[name]


@pytest.mark.parametrize("name", TRACE_FILES)
def test_recorded_calls_of_the_traces_api_are_answered(wire: Wire, name: str) -> None:
    wire.ingest(wire.span("t1"), wire.span("t2"))
    wire.send("PATCH", "/api/traces/t1/", {"is_public": True})
    org = wire.catalog.first_org.public_id
    for request in recorded(name):
        if "/experiments/" in request["path"]:
            continue
        request["path"] = request["path"].replace("/org1/", f"/{org}/")
        # The recording deletes t1 and reads it afterwards.
        if request["path"] == "/api/traces/bulk/" and "trace_unique_id" in request["json"]["filters"]:
            request["json"]["filters"]["trace_unique_id"]["value"] = ["t2"]
        answer = replay(wire, request)
        assert answer.status_code == 200, (request["method"], request["path"], answer.text)
        assert answer.headers["content-type"] == "application/json"
