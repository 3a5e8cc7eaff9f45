"""Short ways to talk to the native API, for its tests."""

from __future__ import annotations

import time
from typing import Any

from clearspan.testing.wire import SECOND_NS, Wire, iso

PATIENCE_S = 20.0


def by_customer(wire: Wire, customer: str = "u1", **rest: Any) -> dict[str, Any]:
    """A body that names a customer's traces of a day."""
    now = wire.clock.now_ns()
    window = {"start_time": iso(now - 86400 * SECOND_NS), "end_time": iso(now + 3600 * SECOND_NS)}
    return {"filters": {"customer_identifier": {"operator": "=", "value": [customer]}}, **window, **rest}


def later(wire: Wire, seconds: float = 3600) -> str:
    """A time after the clock's now."""
    return iso(wire.clock.now_ns() + round(seconds * SECOND_NS))


def create(wire: Wire, body: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A deletion that must be accepted; waits for the proof unless the body says otherwise."""
    answer = wire.post("/v1/deletions", {"wait": "verified"} | body, **rest)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def preview(wire: Wire, body: dict[str, Any], **rest: Any) -> dict[str, Any]:
    answer = wire.post("/v1/deletions/preview", body, **rest)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def hold(wire: Wire, **body: Any) -> dict[str, Any]:
    answer = wire.post("/v1/holds", {"reason": "case 12"} | body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def until(wire: Wire, deletion_id: str, *states: str) -> dict[str, Any]:
    """The deletion once it is in one of these states; the worker thread takes it there."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        told: dict[str, Any] = wire.get(f"/v1/deletions/{deletion_id}").json()
        if told["state"] in states:
            return told
        assert time.monotonic() < give_up, told
        time.sleep(0.005)


def refused(answer: Any, status: int, code: str, field: str | None = None) -> None:
    """The answer is this problem, about this key."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["code"]) == (status, code), answer.text
    if field is not None:
        assert answer.json()["fields"] == [field], answer.text
