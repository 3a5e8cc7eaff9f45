"""The server and the data that the recorded Phoenix exchanges met, and how one of them is sent again and compared.

The recording (tests/fixtures/phoenix) has two servers: one without authentication, one with users. What it did between
the exchanges without recording it is done here: 12 traces of three spans, projects, and four annotations before each
deletion of annotations.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from tests.wire.phoenix_requests import hex_id

from clearspan.testing.wire import OWNER_KEY, Wire

RECORDED: Final = Path(__file__).resolve().parent.parent / "fixtures" / "phoenix" / "matrix.json"
RECORDED_AT: Final = datetime.fromisoformat("2026-11-21T22:40:45+00:00")
FIRST_START: Final = datetime.fromisoformat("2026-11-21T10:40:45.044981+00:00")
TRACE_IDS: Final = {
    1: "b2fb4fc53135d0c539e828293ad704f1",
    2: "a1341a45a0f5f620acef7ea570735fda",
    3: "6cc479123853903531875b8a4315bb82",
    4: "d63a55d5f14e0b3c46574ab3c2c98645",
    5: "99341bc08ec284bdd93ae167d8e5174b",
    6: "0913b2ac27595265ba17faf52aa60bad",
    9: "7c3de6b0d259937848eeec89e9997fe2",
    10: "28be7e6fb916f5a6ba64728340d6455d",
    11: "0de60b398974bd766d905332fdb5de73",
    12: "56f24ccdaeff3b9dd8eace6f1ade6ffa",
}
"""The traces of proj-a whose ids were recorded; which of them 3 and 4 are was not."""
SPAN_IDS: Final = {
    1: ("0033f1d74731c36a", "6f87fc5930044064", "7825aed6fdaa088e"),
    6: ("2ce14eceacbdfbea", hex_id(6, 8), "0f34abf7a0d6bcae"),
    7: (hex_id(7, 8), hex_id(77, 8), "21ffa0a6b436f9d1"),
    12: ("e8f9a1e317aa9c4c", "32b8ddcdcd8aa012", "c5b01afe9a1026df"),
}
USERS: Final = {1: "user-1", 6: "user-5", 12: "user-0"}
PROTOBUF: Final = "application/x-protobuf"
MASKED: Final = frozenset({"id", "project_id", "user_id", "created_at", "updated_at", "key", "next_cursor"})
"""What is different in every recording. Nulls are not masked: a cursor is there or is not."""
NAMES: Final = frozenset({"id", "project_id", "user_id", "next_cursor"})
"""What later requests name again."""
NOTE: Final = re.compile(r"(px-\w+-note):[0-9a-f-]{36}")
OWNED: Final = "owned-1795300859367259907"
KINDS: Final = ("span", "trace", "session")


def cases() -> list[dict[str, Any]]:
    """The 413 entries, in order."""
    found: list[dict[str, Any]] = json.loads(RECORDED.read_text())["cases"]
    return found


def add_span(
    request: ExportTraceServiceRequest, project: str, trace: str, span: str, start: datetime, *, name: str = "root",
    parent: str = "", failed: bool = False, **attributes: str | int,
) -> None:  # fmt: skip
    """A span of one millisecond, with what the recorder put into all of its spans."""
    group = request.resource_spans.add()
    group.resource.attributes.add(key="openinference.project.name").value.string_value = project
    start_ns = round(start.timestamp() * 1_000_000) * 1000
    made = group.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(trace), span_id=bytes.fromhex(span), parent_span_id=bytes.fromhex(parent), name=name,
        start_time_unix_nano=start_ns, end_time_unix_nano=start_ns + 1_000_000,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK),
    )  # fmt: skip
    for key, each in attributes.items():
        value = made.attributes.add(key=key).value
        if isinstance(each, int):
            value.int_value = each
        else:
            value.string_value = each


def attributes_of(session: str | None, text: str, position: int, user: str) -> dict[str, str | int]:
    return ({} if session is None else {"session.id": session}) | {
        "input.value": text,
        "output.value": f"answer {position}",
        "openinference.span.kind": "LLM" if position else "CHAIN",
        "llm.token_count.prompt": 11,
        "llm.token_count.completion": 7,
        "llm.model_name": "model-x",
        "user.id": user,
    }


def trace_of(request: ExportTraceServiceRequest, project: str, number: int, trace: str, spans: tuple[str, ...]) -> None:
    """Trace `number` of a project, in its hour: a root and calls beneath, those of trace 6 failed."""
    start, session = FIRST_START + timedelta(hours=number - 1), f"sess-{project}-{(number - 1) % 4}"
    for position, span in enumerate(spans):
        add_span(
            request, project, trace, span, start + timedelta(milliseconds=position),
            name=f"call-{position}" if position else "root", parent=spans[0] if position else "",
            failed=number == 6,
            **attributes_of(session, f"hello {number - 1}", position, USERS.get(number, f"user-{number}")),
        )  # fmt: skip


def single(project: str, trace: str, span: str, start: str, user: str) -> bytes:
    """A request of the OTLP exchanges: one span, outside of any session."""
    request = ExportTraceServiceRequest()
    add_span(request, project, trace, span, datetime.fromisoformat(start), **attributes_of(None, "", 0, user))
    return request.SerializeToString()


FIRST: Final = single(
    "otlp-p", "21d5da24f1754b6c05b23cff1be9bb18", "c98d01d13f638a11", "2026-11-21T22:40:57.446883+00:00", "user-1"
)
BODIES: Final = {
    323: FIRST,
    324: gzip.compress(FIRST),
    325: b"",
    326: b"not a protobuf",
    327: b'{"resourceSpans":[]}',
    328: FIRST,
    329: FIRST,
    330: b"no gzip",
    331: single(
        "otlp-p", "bdfa8154dbb54f04234670f1dbe3c39d", "7908bbe31069e387", "2026-11-21T22:40:57.471450+00:00", "user-6"
    ),
    361: b"",
    411: FIRST,
}
"""Bodies were not recorded where they are no JSON."""


class Recorded:
    """One of the two servers: sends recorded requests with this server's ids in the place of the recorded ones."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.ours: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    @cached_property
    def nobody(self) -> str:
        """A machine's key, for what nobody in particular writes without authentication."""
        told: str = self.wire.post("/v1/system/api_keys", {"data": {"name": "machine"}}).json()["data"]["key"]
        return told

    def swapped(self, text: str) -> str:
        """A text with what this server calls the same things."""
        if not self.ours:
            return text
        pattern = "|".join(re.escape(each) for each in sorted(self.ours, key=len, reverse=True))
        return re.sub(rf"(?<![\w+])(?:{pattern})(?![\w+/=])", lambda found: self.ours[found[0]], text)

    def send(self, number: int, case: dict[str, Any]) -> Any:
        """The answer to a recorded request, with the key that stands for its caller."""
        path, query = self.swapped(case["path"]), case["query"]
        if query:
            told = {name: [self.swapped(str(each)) for each in _many(value)] for name, value in query.items()}
            path += "?" + urlencode(told, doseq=True, quote_via=quote)
        body: Any = None
        if case["request_body"] is not None:
            body = json.loads(self.swapped(json.dumps(case["request_body"])))
        elif number in BODIES:
            body = BODIES[number]
        headers = {name: "Bearer REDACTED" if "REDACTED" in each else each
                   for name, each in (case["request_headers"] or {}).items()}  # fmt: skip
        key = self.key_of(case, headers)
        answer = self.wire.send(case["method"], path, body, key=key, headers=headers)
        if "json" in answer.headers.get("content-type", "") and isinstance(case["response"], dict):
            self.ours.update(_pairs(case["response"], answer.json()))
        return answer

    def key_of(self, case: dict[str, Any], headers: dict[str, str]) -> str | None:
        """The key to send; headers of a caller without one are filled in."""
        caller: str = case["caller"]
        match caller:
            case "anonymous, auth off":
                return None if "authorization" in headers else self.nobody
            case "admin":
                return OWNER_KEY
            case "no token":
                return None
            case "bad token":
                return "no-such-key"
            case "basic scheme":
                headers["authorization"] = "Basic YTpi"
                return None
            case "api_key header":
                headers["api_key"] = OWNER_KEY
                return None
            case "lower-case scheme":
                headers["authorization"] = f"bearer {OWNER_KEY}"
                return None
        return self.keys[caller.split(" ")[0]]

    def annotate(self, kind: str, *items: dict[str, Any], key: str | None = None) -> None:
        """Annotations that the recorder wrote between its exchanges."""
        answer = self.wire.post(f"/v1/{kind}_annotations?sync=true", {"data": list(items)}, key=key or self.nobody)
        assert answer.status_code == 200, answer.text

    def annotations(self, kind: str, project: str, targets: tuple[str, ...]) -> list[dict[str, Any]]:
        """The annotations of these targets, oldest first."""
        told = urlencode({f"{kind}_ids": targets, "limit": 1000}, doseq=True)
        answer = self.wire.get(f"/v1/projects/{project}/{kind}_annotations?{told}")
        assert answer.status_code == 200, answer.text
        return list(reversed(answer.json()["data"]))


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _pairs(recorded: Any, ours: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """What the recording calls things → what this server calls them."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        for key in recorded.keys() & ours.keys():
            yield from _pairs(recorded[key], ours[key], key)
    elif isinstance(recorded, list) and isinstance(ours, list):
        for theirs, mine in zip(recorded, ours, strict=False):
            yield from _pairs(theirs, mine, name)
    elif isinstance(recorded, str) and isinstance(ours, str) and name in NAMES and recorded != ours:
        yield recorded, ours


def masked(value: Any, name: str = "") -> Any:
    """A body with ids, times of writing, keys and cursors left out."""
    if isinstance(value, dict):
        # An attribute's key is none that opens anything.
        return {key: each if "value" in value and key == "key" else masked(each, key) for key, each in value.items()}
    if isinstance(value, list):
        told = [masked(each, name) for each in value]
        # OTLP gives the order of attributes no meaning.
        return sorted(told, key=lambda each: str(each["key"])) if name == "attributes" else told
    if name in MASKED and isinstance(value, str):
        return f"({name})"
    return NOTE.sub(r"\1", value) if isinstance(value, str) else value


def told_by(answer: Any) -> tuple[int, str, Any]:
    """Status, content type and masked body of an answer."""
    kind = answer.headers.get("content-type", "")
    body = masked(answer.json()) if kind == "application/json" and answer.content else answer.text
    return answer.status_code, kind, body


def recorded_of(case: dict[str, Any]) -> tuple[int, str, Any]:
    """The same of the recording. A 204 has no content type here: there is nothing that it could be the type of."""
    kind = case["headers"].get("content-type", "")
    return case["status"], "" if case["status"] == 204 else kind, masked(case["response"])
