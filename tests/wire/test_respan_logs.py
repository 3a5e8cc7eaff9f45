"""The server's log and figures hold no personal data, whatever was sent: route templates, counts and codes only."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from clearspan.api.logs import configure_logging
from clearspan.testing.wire import Wire

# Nothing here depends on which store is behind: the one that ships is enough.
pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)

NEEDLE = "n33dl3"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("debug", out)
    root.handlers[0].addFilter(lambda record: not record.name.startswith(("httpx", "httpcore")))  # the test's client
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)


def test_no_needle_reaches_the_log(wire: Wire, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    def needle(n: int) -> str:
        return f"{NEEDLE}{n}"

    wire.ingest(
        wire.span(
            needle(0), needle(1), span_name=needle(2), input=needle(3), output=needle(4), error_message=needle(5),
            status="error", customer_identifier=needle(6), session_identifier=needle(7), environment=needle(8),
            metadata={needle(9): needle(10)}, model=needle(11), prompt_tokens=5, log_type="chat",
        )
    )  # fmt: skip
    filters = {"filters": {"customer_identifier": {"operator": "contains", "value": [needle(6)]}}}
    wire.post(f"/api/traces/list/?environment={needle(8)}&sort_by={needle(12)}&x={needle(13)}", filters)
    wire.post("/api/traces/list/", {"filters": {needle(14): {"value": [needle(15)]}}})
    wire.post("/api/traces/list/", f'{{"filters": {needle(16)}'.encode())
    wire.post("/api/v1/traces/ingest", [{"trace_unique_id": needle(17), "note": needle(18)}])
    wire.post("/v1/traces", needle(19).encode(), headers={"Content-Type": needle(20)})
    wire.get(f"/api/traces/{needle(0)}/")
    wire.get(f"/{needle(21)}/{needle(22)}?{needle(23)}", key=needle(24))
    wire.send(NEEDLE.upper(), f"/api/traces/{needle(0)}/")
    wire.send("PATCH", f"/api/traces/{needle(0)}/", {"is_public": True, "reason": needle(25)})
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise RuntimeError(needle(26))

        broken.setattr(wire.services.reader, "get_trace", fail)
        assert wire.get(f"/api/traces/{needle(0)}/").status_code == 500
    wire.post("/api/traces/bulk/", filters, headers={"Idempotency-Key": needle(27)})
    wire.send("DELETE", f"/api/traces/{needle(0)}/?start_time={needle(28)}")
    wire.send("DELETE", f"/api/traces/{needle(0)}/")

    text = log.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) >= 14, "every request is logged"
    assert NEEDLE not in text.lower()
    assert NEEDLE not in wire.get("/metrics").text.lower()
    routes = {line.get("route") for line in lines if line["logger"] == "clearspan.http"}
    assert {"/api/traces/{trace_unique_id}/", "/api/traces/bulk/", "/v1/traces", "unmatched"} <= routes
    (failed,) = [line for line in lines if line["event"] == "unexpected error"]
    assert failed["exception"] == "RuntimeError"
    assert failed["places"][-1].startswith(f"{__name__}:")
