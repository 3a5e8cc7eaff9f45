"""Every recorded exchange with Phoenix, in order: equal, but for a table of deliberate differences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.wire import phoenix_matrix as matrix
from tests.wire.phoenix_matrix import KINDS, OWNED, Recorded
from tests.wire.phoenix_requests import hex_id

from clearspan.testing.wire import OWNER_KEY, Wire, open_wire

FIRST_OF_USERS = 357  # the second server's first exchange
TARGETS = {
    "span": (matrix.SPAN_IDS[1][0], matrix.SPAN_IDS[1][1]),
    "trace": (matrix.TRACE_IDS[1], matrix.TRACE_IDS[2]),
    "session": ("sess-proj-a-0", "sess-proj-a-1"),
}
RESULT = {"label": "good", "score": 0.5, "explanation": "why"}
OWNED_TARGETS = {
    "span": "f5ea3ed1445af8b2",
    "trace": "69f3df074ed4c4dc3c5a9a3488da8221",
    "session": f"sess-{OWNED}-0",
}


USER_KEYS = {
    366: ("ann", "MEMBER", "VXNlcjoz"),
    367: ("bob", "MEMBER", "VXNlcjo0"),
    368: ("eve", "VIEWER", "VXNlcjo1"),
}
"""Who makes a key for himself in which exchange, and his recorded id. Of the users only ann's making was recorded."""


class Seen(NamedTuple):
    """What an entry of the recording came to."""

    number: int
    recorded: tuple[Any, ...]
    ours: tuple[Any, ...]

    @property
    def is_equal(self) -> bool:
        return self.recorded == self.ours


class Different(NamedTuple):
    """How this server's answer is meant to differ from the recorded one."""

    reason: str
    status: int
    says: str = ""  # within the body
    rows: tuple[int, int] | None = None  # annotations before and after
    but: tuple[tuple[str, str], ...] = ()  # recorded → here; all the rest of the body is equal

    def is_met_by(self, seen: Seen) -> bool:
        status, _, body, *rest = seen.ours
        if seen.is_equal or status != self.status or self.says not in str(body):
            return False
        theirs = str(seen.recorded[2])
        for recorded, here in self.but:
            theirs = theirs.replace(recorded, here)
        if self.but and theirs != str(body):
            return False
        return self.rows is None or tuple(rest[:2]) == self.rows


KEYS_ONLY = "people and programs use keys here: nobody signs in, administrators make keys"
NO_PASSWORDS = "there are no passwords, so none is to be set anew"
RFC = "OTLP's errors are a google.rpc.Status in the encoding of the request; a body that cannot be read is 400"
MORE_OTLP = "OTLP as JSON and content types with parameters are taken"
HALF_OPEN = "[start_time, end_time) over created_at, exact to the microsecond"
REASON_ONLY = "the reason alone, without the words of a library around it"
ALWAYS_KEYS = "there is no mode without authentication"
NO_PAGE = "an address below /v1 that names nothing is 404, not the page of a web application"

RESET = (("'password_needs_reset': True", "'password_needs_reset': False"),)
DESCRIPTION = (("'Default project'", "None"),)

DELIBERATE = {
    1: Different("the health of this server is told as JSON", 200, "'status': 'ok'"),
    2: Different(NO_PAGE, 404, "nothing at this address"),
    11: Different("a name that is taken is a conflict, no failure of the server", 409, "made already exists"),
    15: Different(NO_PAGE, 404, "nothing at this address"),
    45: Different(
        "times in nanoseconds are exact",
        200,
        but=(("1795297245047981056", "1795297245047981000"), ("1795297245046981120", "1795297245046981000")),
    ),
    208: Different(HALF_OPEN, 204, rows=(4, 4)),
    209: Different(HALF_OPEN, 204, rows=(4, 0)),
    251: Different(HALF_OPEN, 204, rows=(4, 4)),
    252: Different(HALF_OPEN, 204, rows=(4, 0)),
    294: Different(HALF_OPEN, 204, rows=(4, 4)),
    295: Different(HALF_OPEN, 204, rows=(4, 0)),
    322: Different("a session is shown where its traces are: the moved trace took it along", 200, "'data': []"),
    326: Different(RFC, 400, "not an OTLP protobuf request"),
    327: Different(MORE_OTLP, 200, "{}"),
    328: Different(MORE_OTLP, 200),
    329: Different(RFC, 415, "gzip, deflate, zstd or none"),
    330: Different(RFC, 400, "gzip body cannot be unpacked"),
    339: Different(REASON_ONLY, 400, "Lower bound must be strictly less than upper bound"),
    341: Different(REASON_ONLY, 400, "Values must be non-empty"),
    355: Different(ALWAYS_KEYS, 201, "(key)"),
    356: Different(ALWAYS_KEYS, 401, "Invalid token"),
    361: Different(RFC, 401, "API key is invalid"),
    363: Different("a key in an api_key header is taken", 200, "default"),
    364: Different("the default project has no description until somebody writes one", 200, but=DESCRIPTION),
    365: Different(NO_PASSWORDS, 201, but=RESET),
    366: Different(KEYS_ONLY, 403, "Only admin"),
    367: Different(KEYS_ONLY, 403, "Only admin"),
    368: Different(KEYS_ONLY, 403, "Viewers"),
    373: Different(NO_PASSWORDS, 200, but=RESET),
    411: Different(RFC, 403, "lacks the scope `ingest`"),
}
"""What differs on purpose, and how."""
NOT_YET: dict[int, Different] = {}
"""What waits for a route. When the route is there, its entries fail and must go."""
COUNTS = {"equal": 383, "deliberate": 30, "not yet": 0, "wrong": 0}


def kind_of(case: dict[str, Any]) -> str:
    """Which annotations an exchange is about."""
    return next(kind for kind in KINDS if f"{kind}_annotations" in case["group"])


def item(kind: str, target: str, name: str, identifier: str = "", by: str = "LLM") -> dict[str, Any]:
    said = {"name": name, "annotator_kind": by, "result": RESULT, "identifier": identifier}
    return {f"{kind}_id": target, **said}


def set_up_plain(recorded: Recorded) -> None:
    request = ExportTraceServiceRequest()
    for number in range(1, 13):
        spans = matrix.SPAN_IDS.get(number) or tuple(hex_id(number * 100 + each, 8) for each in range(3))
        matrix.trace_of(request, "proj-a", number, matrix.TRACE_IDS.get(number, hex_id(number, 16)), spans)
    send(recorded.wire, request)


def set_up_owned(recorded: Recorded) -> None:
    request = ExportTraceServiceRequest()
    ids = (OWNED_TARGETS["trace"], "b352e6907df735975bf6599174ff9c55", "566c15e5be2e167da905e70700ccd702")
    for number, trace in enumerate(ids, 1):
        span = OWNED_TARGETS["span"] if number == 1 else hex_id(number, 8)
        matrix.trace_of(request, OWNED, number, trace, (span,))
    send(recorded.wire, request)


def send(wire: Wire, request: ExportTraceServiceRequest) -> None:
    answer = wire.post("/v1/traces", request.SerializeToString(), headers={"Content-Type": matrix.PROTOBUF})
    assert answer.status_code == 200, answer.text


def exchange(recorded: Recorded, number: int, case: dict[str, Any]) -> Seen:
    """One exchange, with the annotations before and after where the recording has them."""
    theirs, before = list[Any](matrix.recorded_of(case)), list[Any]()
    kind = kind_of(case) if "annotations" in case["group"] and case["method"] == "DELETE" else ""
    if "rows_before" in case:
        told = seeded(recorded, kind)
        before.append(len(told))
        bound = {208: "end_time", 209: "start_time"}.get((number - 208) % 43 + 208)
        if bound is not None:
            case = case | {"query": case["query"] | {bound: told[0]["created_at"]}}
        theirs += [case["rows_before"], case["rows_after"]]
    elif "before" in case:
        before.append(sorted(each["name"] for each in recorded.annotations(kind, OWNED, (OWNED_TARGETS[kind],))))
        theirs += [case["before"], case["after"]]
    ours = [*matrix.told_by(recorded.send(number, case)), *before]
    if "rows_before" in case:
        told = recorded.annotations(kind, "proj-a", TARGETS[kind])
        ours.append(len(told))
        if "remaining" in case:
            theirs.append(case["remaining"])
            ours.append(sorted(f"{each['name']}/{each['identifier']}/{each['annotator_kind']}" for each in told))
    elif "before" in case:
        ours.append(sorted(each["name"] for each in recorded.annotations(kind, OWNED, (OWNED_TARGETS[kind],))))
    return Seen(number, tuple(theirs), tuple(ours))


def seeded(recorded: Recorded, kind: str) -> list[dict[str, Any]]:
    """The four annotations that a deletion meets, and no others. Those that the last one left are used again."""
    told = recorded.annotations(kind, "proj-a", TARGETS[kind])
    if [each["name"] for each in told] != ["a", "a", "a", "b"]:
        answer = recorded.wire.send("DELETE", f"/v1/projects/proj-a/{kind}_annotations?delete_all=true")
        assert answer.status_code == 204, answer.text
        first, second = TARGETS[kind]
        recorded.annotate(
            kind, item(kind, first, "a"), item(kind, second, "a"), item(kind, first, "a", "x", "HUMAN"),
            item(kind, first, "b", by="CODE"),
        )  # fmt: skip
        told = recorded.annotations(kind, "proj-a", TARGETS[kind])
    return told


def upsert(recorded: Recorded, number: int, case: dict[str, Any]) -> Seen:
    """An entry without a request: what writing the same key again keeps, or whose the row is afterwards."""
    kind = kind_of(case)
    if "user_id_after" in case:
        for who in ("ann", "bob"):
            recorded.annotate(kind, item(kind, OWNED_TARGETS[kind], "taken"), key=recorded.keys[who])
        rows = recorded.annotations(kind, OWNED, (OWNED_TARGETS[kind],))
        [row] = [each for each in rows if each["name"] == "taken"]
        return Seen(number, (recorded.swapped(case["user_id_after"]),), (row["user_id"],))
    [*_, before] = seeded(recorded, kind)
    recorded.wire.clock.advance(2.0)
    recorded.annotate(kind, item(kind, TARGETS[kind][0], "b", by="CODE"))
    [*_, after] = recorded.annotations(kind, "proj-a", TARGETS[kind])
    kept = ("id", "created_at", "updated_at")
    return Seen(number, tuple(case[f"{each}_kept"] for each in kept), tuple(before[x] == after[x] for x in kept))


def between(recorded: Recorded, number: int) -> None:
    """What the recorder did before an exchange without recording it."""
    wire = recorded.wire
    if number == 16:
        for each in range(3):
            assert wire.post("/v1/projects", {"name": f"page-{each}"}).status_code == 200
    if number in USER_KEYS:
        name, role, recorded_id = USER_KEYS[number]
        if recorded_id not in recorded.ours:
            user = {"username": name, "email": f"{name}@example.com", "role": role, "auth_method": "LOCAL"}
            made = wire.post("/v1/users", {"user": user, "send_welcome_email": False}).json()
            recorded.ours[recorded_id] = made["data"]["id"]
        told = {"data": {"name": "test", "user_id": recorded.ours[recorded_id]}}
        recorded.keys[name] = wire.post("/v1/user/api_keys", told).json()["data"]["key"]
    if number == 374:
        set_up_owned(recorded)
    if number in (375, 385, 395):
        kind = KINDS[(number - 375) // 10]
        recorded.annotate(kind, item(kind, OWNED_TARGETS[kind], "by-bob"), key=recorded.keys["bob"])
        recorded.annotate(kind, item(kind, OWNED_TARGETS[kind], "by-admin"), key=OWNER_KEY)


def replay(wire: Wire, first: int, last: int) -> Iterator[Seen]:
    recorded = Recorded(wire)
    now = matrix.RECORDED_AT + timedelta(seconds=first)
    wire.clock.advance(now.timestamp() - wire.clock.now_ns() / 1e9)
    if first < FIRST_OF_USERS:
        set_up_plain(recorded)
    for number, case in enumerate(matrix.cases()[first:last], first):
        wire.clock.advance(1.0)
        between(recorded, number)
        if "method" in case:
            yield exchange(recorded, number, case)
        else:
            yield upsert(recorded, number, case)


@pytest.mark.parametrize("store", ["sqlite", pytest.param("memory", marks=pytest.mark.long)])
def test_every_recorded_exchange_is_equal_or_in_a_table(tmp_path: Path, store: str) -> None:
    verdicts: dict[str, list[Seen]] = {"equal": [], "deliberate": [], "not yet": [], "wrong": []}
    for first, last in ((0, FIRST_OF_USERS), (FIRST_OF_USERS, len(matrix.cases()))):
        with ExitStack() as stack:
            wire = open_wire(stack, tmp_path / f"from {first}", store)
            for seen in replay(wire, first, last):
                verdicts[verdict_of(seen)].append(seen)
    assert verdicts["wrong"] == []
    assert {name: len(seen) for name, seen in verdicts.items()} == COUNTS


def verdict_of(seen: Seen) -> str:
    """In which table an entry is. One that is in a table, and equal or different in another way, is wrong."""
    for name, table in (("deliberate", DELIBERATE), ("not yet", NOT_YET)):
        if seen.number in table:
            return name if table[seen.number].is_met_by(seen) else "wrong"
    return "equal" if seen.is_equal else "wrong"


def test_no_exchange_is_in_two_tables_and_each_has_a_reason() -> None:
    assert not DELIBERATE.keys() & NOT_YET.keys()
    assert all(each.reason for each in (*DELIBERATE.values(), *NOT_YET.values()))
    assert sum(COUNTS.values()) == len(matrix.cases()) == 413
