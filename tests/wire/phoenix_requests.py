"""Short ways to speak Phoenix's dialect."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

from clearspan.testing.wire import SECOND_NS, Wire, iso


def hex_id(seed: int, size: int) -> str:
    """An id of OTLP: 8 or 16 bytes as hex digits."""
    return random.Random(seed).randbytes(size).hex()


def span(wire: Wire, seed: int, *, trace: int = 1, ago_s: float = 60.0, **fields: Any) -> dict[str, Any]:
    """A span as clients post it, of one second."""
    start_ns = wire.clock.now_ns() - round(ago_s * SECOND_NS)
    return {
        "name": f"span {seed}",
        "context": {"trace_id": hex_id(trace, 16), "span_id": hex_id(seed, 8)},
        "span_kind": "CHAIN",
        "start_time": iso(start_ns),
        "end_time": iso(start_ns + SECOND_NS),
        "status_code": "OK",
        "attributes": {},
        **fields,
    }


def post(wire: Wire, *spans: dict[str, Any], project: str = "default", **rest: Any) -> Any:
    """The answer to posting spans."""
    return wire.post(f"/v1/projects/{quote(project, safe='')}/spans", {"data": list(spans)}, **rest)


def fill(wire: Wire, *spans: dict[str, Any], project: str = "default", **rest: Any) -> None:
    """Store spans; all must be taken."""
    answer = post(wire, *spans, project=project, **rest)
    assert (answer.status_code, answer.json()) == (202, {"total_received": len(spans), "total_queued": len(spans)})


def spans_of(wire: Wire, query: str = "", *, project: str = "default", **rest: Any) -> list[dict[str, Any]]:
    """The spans of one page."""
    answer = wire.get(f"/v1/projects/{quote(project, safe='')}/spans{query}", **rest)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def names(wire: Wire, query: str = "", **rest: Any) -> list[str]:
    """The names of the spans of one page."""
    return [each["name"] for each in spans_of(wire, query, **rest)]
