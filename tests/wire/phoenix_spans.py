"""Spans and annotations as Phoenix's users send them, for the tests of that dialect."""

from __future__ import annotations

from typing import Any, Final

from clearspan.testing.wire import OWNER_KEY, SECOND_NS, Wire

KINDS: Final = ("span", "trace", "session")
ABSENT: Final = {"span": "0000000000000000", "trace": "f" * 32, "session": "no-such"}


def span_id(number: int) -> str:
    """The id of the root span of trace `number`."""
    return f"{number:016x}"


def trace_id(number: int) -> str:
    return f"{number:032x}"


def session_id(number: int) -> str:
    return f"session {number}"


def target_id(kind: str, number: int) -> str:
    """What annotations of that kind name of trace `number`."""
    return {"span": span_id, "trace": trace_id, "session": session_id}[kind](number)


def send_trace(wire: Wire, number: int = 1, *, project: str | None = None, key: str = OWNER_KEY, **said: str) -> None:
    """A trace of one span in a session of its own; `said` are further attributes, dots written as `__`."""
    start_ns = wire.clock.now_ns() - 60 * SECOND_NS
    attributes = {"session.id": session_id(number)} | {name.replace("__", "."): text for name, text in said.items()}
    span = {
        "traceId": trace_id(number),
        "spanId": span_id(number),
        "name": "root",
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + SECOND_NS),
        "attributes": [{"key": name, "value": {"stringValue": text}} for name, text in attributes.items()],
    }
    names = [] if project is None else [{"key": "openinference.project.name", "value": {"stringValue": project}}]
    body = {"resourceSpans": [{"resource": {"attributes": names}, "scopeSpans": [{"spans": [span]}]}]}
    answer = wire.post("/v1/traces", body, key=key)
    assert (answer.status_code, answer.json()) == (200, {}), answer.text


def item(kind: str, number: int = 1, **said: Any) -> dict[str, Any]:
    """One annotation of trace `number`, or of what belongs to it."""
    result = {"label": "good", "score": 0.5, "explanation": "why"}
    made = {f"{kind}_id": target_id(kind, number), "name": "quality", "annotator_kind": "LLM", "result": result}
    return {**made, **said}


def annotate(wire: Wire, kind: str, *items: dict[str, Any], sync: bool = True, key: str = OWNER_KEY) -> Any:
    """POST; the answer."""
    query = "?sync=true" if sync else ""
    return wire.post(f"/v1/{kind}_annotations{query}", {"data": list(items)}, key=key)


def annotated(wire: Wire, kind: str, *items: dict[str, Any], key: str = OWNER_KEY) -> list[str]:
    """The ids of annotations that must be taken."""
    answer = annotate(wire, kind, *items, key=key)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["data"]]


def listed(wire: Wire, kind: str, query: str = "", *, project: str = "default", key: str = OWNER_KEY) -> Any:
    """GET; the answer. Without a query those of trace 1."""
    query = query or f"{kind}_ids={target_id(kind, 1)}"
    return wire.get(f"/v1/projects/{project}/{kind}_annotations?limit=1000&{query}", key=key)


def rows(wire: Wire, kind: str, query: str = "", **rest: Any) -> list[dict[str, Any]]:
    answer = listed(wire, kind, query, **rest)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found
