"""Phoenix's deletion of annotations by filter, over both stores: a matrix of kinds, parameters, callers and tenants
against a plain model, and what a deletion of ours adds to it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update
from tests.wire.phoenix_spans import KINDS, annotated, item, rows, send_trace, target_id

from clearspan.api.phoenix.annotation_delete import NOT_ASCENDING, UNBOUNDED
from clearspan.catalog import KeyPolicy, KeyScope
from clearspan.catalog.tables import api_key, app_user
from clearspan.testing.wire import OWNER_KEY, Wire

MEMBER = (KeyScope.INGEST, KeyScope.READ, KeyScope.ANNOTATE, KeyScope.DELETE)
FAR, NEAR = "2020-01-01T00:00:00Z", "2036-01-01T00:00:00Z"
BOTH = {"start_time": FAR, "end_time": NEAR}
VIEWERS = "Viewers cannot perform this action."


def user_key(wire: Wire, name: str, *scopes: KeyScope) -> str:
    """A key that acts for a user; the user is made if it is new."""
    org_id = wire.catalog.first_org.id
    made = wire.catalog.create_key(org_id, name=name, scopes=scopes or MEMBER)
    with wire.catalog.database.write() as db:
        known = select(app_user.c.id).where(app_user.c.org_id == org_id, app_user.c.name == name)
        number = db.execute(known).scalar()
        if number is None:
            public_id = wire.services.ids.new_id("user")
            values = {"public_id": public_id, "org_id": org_id, "name": name, "role": "member", "created_at_ns": 0}
            number = db.execute(insert(app_user).values(values)).inserted_primary_key[0]  # type: ignore[index]
        db.execute(update(api_key).where(api_key.c.public_id == made.key.public_id).values(user_id=number))
    return made.secret


def machine_key(wire: Wire) -> str:
    """A key that acts for nobody."""
    made = wire.catalog.create_key(wire.catalog.first_org.id, name="machine", scopes=MEMBER)
    with wire.catalog.database.write() as db:
        db.execute(update(api_key).where(api_key.c.public_id == made.key.public_id).values(user_id=None))
    return made.secret


class Caller(NamedTuple):
    """Who asks, and what the model knows of them."""

    name: str
    key: str | None
    takes: Callable[[str], bool]  # by the owner of a row
    refusal: tuple[int, str] | None = None  # whatever is asked
    sees_project: bool = True


class Row(NamedTuple):
    name: str
    identifier: str
    kind: str
    owner: str


ROWS = (
    Row("a", "", "LLM", "admin"),
    Row("a", "x", "HUMAN", "ann"),
    Row("b", "", "CODE", "robot"),
    Row("b", "y", "LLM", "ann"),
)


class World:
    """A project with four annotations of one kind, and everybody who may ask."""

    def __init__(self, wire: Wire, kind: str) -> None:
        self.wire, self.kind = wire, kind
        send_trace(wire)
        send_trace(wire, 2, project="elsewhere")
        elsewhere = wire.catalog.find_project(wire.catalog.first_org.id, "elsewhere")
        default = wire.catalog.find_project(wire.catalog.first_org.id, "default")
        assert elsewhere is not None
        assert default is not None
        self.gid = base64.b64encode(f"Project:{default.id}".encode()).decode()
        self.keys = {"admin": OWNER_KEY, "ann": user_key(wire, "ann"), "robot": machine_key(wire)}
        stranger = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
        bound = wire.key(*KeyScope, project_ids=(elsewhere.id,))
        self.callers = (
            Caller("an administrator", OWNER_KEY, lambda owner: True),
            Caller("the writer of two", self.keys["ann"], lambda owner: owner == "ann"),
            Caller("another key of that user", user_key(wire, "ann"), lambda owner: owner == "ann"),
            Caller("a key that acts for nobody", self.keys["robot"], lambda owner: owner == "robot"),
            Caller("another such key", machine_key(wire), lambda owner: False),
            Caller("a user who wrote nothing", user_key(wire, "bob"), lambda owner: False),
            Caller("a viewer", user_key(wire, "eve", KeyScope.READ), lambda owner: False, (403, VIEWERS)),
            Caller("nobody", None, lambda owner: False, (401, "Invalid token")),
            Caller("a wrong key", "wrong", lambda owner: False, (401, "Invalid token")),
            Caller("another tenant", stranger, lambda owner: False),
            Caller("a key of another project", bound, lambda owner: False, sees_project=False),
        )
        self.fill()

    def fill(self) -> None:
        """Bring back the rows that are gone; each is created a second and some after the one before."""
        there = self.left()
        for row in ROWS:
            if row not in there:
                self.wire.clock.advance(1.000_000_7)
                said = {"name": row.name, "identifier": row.identifier, "annotator_kind": row.kind}
                annotated(self.wire, self.kind, item(self.kind, **said), key=self.keys[row.owner])

    def left(self) -> dict[Row, datetime]:
        """The rows that are there, and when each was created."""
        query = "&".join(f"{self.kind}_ids={target_id(self.kind, number)}" for number in (1, 2))
        found = {(row["name"], row["identifier"]): row for row in rows(self.wire, self.kind, query)}
        return {
            row: datetime.fromisoformat(found[row.name, row.identifier]["created_at"])
            for row in ROWS
            if (row.name, row.identifier) in found
        }

    def delete(
        self, said: dict[str, str], *, key: str | None = OWNER_KEY, project: str = "default", **rest: Any
    ) -> Any:
        path = f"/v1/projects/{project}/{self.kind}_annotations"
        return self.wire.send("DELETE", path, None, key=key, params=said, **rest)


def parameters(created: dict[Row, datetime]) -> list[dict[str, str]]:
    """Queries that are well made, some bounds at the very moment of a row."""
    second = sorted(created.values())[1]
    at, before, after = (each.isoformat() for each in (second, *(second + timedelta(microseconds=n) for n in (-1, 1))))
    naive = second.replace(tzinfo=None).isoformat()
    others = [{}, {"name": "a"}, {"identifier": "x"}, {"annotator_kind": "LLM"}, {"name": "zzz"}, {"surprise": "1"}]
    times = [
        {}, BOTH, {"start_time": FAR}, {"end_time": NEAR}, {"start_time": NEAR, "end_time": FAR},
        {"start_time": at, "end_time": at}, {"start_time": FAR, "end_time": at}, {"start_time": at, "end_time": NEAR},
        {"start_time": at, "end_time": after}, {"start_time": before, "end_time": at},
        {"start_time": naive, "end_time": after}, {"start_time": "2020-01-01", "end_time": "2082758400"},
    ]  # fmt: skip
    switches = [{}, {"delete_all": "true"}, {"delete_all": "no"}]
    return [{**a, **b, **c} for b in times for c in switches for a in (others if b in ({}, BOTH) else others[:2])]


def moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromtimestamp(int(text), UTC) if text.isdigit() else datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def model(
    world: World, caller: Caller, said: dict[str, str], created: dict[Row, datetime]
) -> tuple[int, str, set[Row]]:
    """(status, text, the rows that go)."""
    if caller.refusal is not None:
        return (*caller.refusal, set())
    start, end = moment(said.get("start_time")), moment(said.get("end_time"))
    if start is not None and end is not None and start >= end:
        return 422, NOT_ASCENDING, set()
    if (start is None or end is None) and said.get("delete_all") != "true":
        return 422, UNBOUNDED, set()
    if not caller.sees_project:
        return 404, "Project with name default not found", set()
    going = {
        row
        for row, at in created.items()
        if caller.takes(row.owner)
        and said.get("name", row.name) == row.name
        and said.get("identifier", row.identifier) == row.identifier
        and said.get("annotator_kind", row.kind) == row.kind
        and (start is None or start <= at)
        and (end is None or at < end)
    }
    return 204, "", going


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_with_two_callers(wire: Wire, kind: str) -> None:
    ask_everything(World(wire, kind), 2)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_with_every_caller(wire: Wire, kind: str) -> None:
    ask_everything(World(wire, kind))


def ask_everything(world: World, callers_max: int | None = None) -> None:
    """Each query by each caller, or by so many of them, others from query to query."""
    taken = 0
    for number, _ in enumerate(parameters(world.left())):
        rotated = [*world.callers[number % len(world.callers) :], *world.callers[: number % len(world.callers)]]
        for caller in rotated[:callers_max]:
            created = world.left()
            said = parameters(created)[number]
            status, text, going = model(world, caller, said, created)
            answer = world.delete(said, key=caller.key)
            assert (answer.status_code, answer.text) == (status, text), (caller.name, said)
            assert world.left().keys() == created.keys() - going, (caller.name, said)
            if status == 204:
                assert answer.headers["Clearspan-Deleted-Count"] == str(len(going)), (caller.name, said)
                assert answer.headers["Clearspan-Deletion-State"] == "verified"
            if going:
                taken += 1
                world.fill()
    assert taken > 10


WRONG = (
    ({"name": "", "delete_all": "true"}, "string_too_short"),
    ({"identifier": "", **BOTH}, "string_too_short"),
    ({"annotator_kind": "ROBOT", "delete_all": "true"}, "literal_error"),
    ({"annotator_kind": "llm", **BOTH}, "literal_error"),
    ({"start_time": "yesterday", "end_time": NEAR}, "datetime_from_date_parsing"),
    ({"delete_all": "maybe"}, "bool_parsing"),
    ({"delete_all": ""}, "bool_parsing"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_syntax_stands_before_the_gate_and_the_gate_before_the_project(wire: Wire, kind: str) -> None:
    world = World(wire, kind)
    viewer, nobody = world.callers[6], world.callers[7]
    for said, error in WRONG:
        answer = world.delete(said, project="no-such")
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/json"
        [detail] = answer.json()["detail"]
        assert (detail["type"], detail["loc"]) == (error, ["query", next(iter(said))])
        assert world.delete(said, key=viewer.key).status_code == 403
        assert world.delete(said, key=nobody.key).status_code == 401
    ungated = world.delete({}, project="no-such")
    assert (ungated.status_code, ungated.text) == (422, UNBOUNDED)
    assert ungated.headers["content-type"] == "text/plain; charset=utf-8"
    absent = world.delete({"delete_all": "true"}, project="no-such")
    assert (absent.status_code, absent.text) == (404, "Project with name no-such not found")
    far = base64.b64encode(b"Project:9999").decode()
    absent = world.delete({"delete_all": "true"}, project=far)
    assert (absent.status_code, absent.text) == (404, f"Project with ID {far} not found")
    assert len(world.left()) == len(ROWS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_names_the_deletion_and_its_receipt(wire: Wire, kind: str) -> None:
    world = World(wire, kind)
    answer = world.delete({"delete_all": "yes", "end_time": NEAR}, project=world.gid)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    told = answer.headers
    assert told["Clearspan-Deleted-Count"] == "4"
    assert told["Clearspan-Effective-Window"] == "../2036-01-01T00:00:00.000000Z; source=request"
    assert told["Location"] == f"/v1/deletions/{told['Clearspan-Deletion-Id']}"
    status = wire.get(told["Location"])
    assert status.status_code == 200, status.text
    assert status.json()["state"] == "verified"
    receipt = wire.get(f"{told['Location']}/receipt")
    assert receipt.status_code == 200, receipt.text
    again = world.delete({"delete_all": "yes"})
    assert (again.status_code, again.headers["Clearspan-Deleted-Count"]) == (204, "0")
    world.fill()
    assert len(world.left()) == len(ROWS), "the same may be said again"


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_writer_owns_it(wire: Wire, kind: str) -> None:
    world = World(wire, kind)
    ann, bob = world.keys["ann"], user_key(wire, "bob")
    annotated(wire, kind, item(kind, name="taken"), key=ann)
    [gid] = annotated(wire, kind, item(kind, name="taken"), key=bob)
    said = {"name": "taken", "delete_all": "true"}
    assert world.delete(said, key=ann).headers["Clearspan-Deleted-Count"] == "0"
    assert gid in {row["id"] for row in rows(wire, kind)}
    assert world.delete(said, key=bob).headers["Clearspan-Deleted-Count"] == "1"
    assert gid not in {row["id"] for row in rows(wire, kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_notes_go_with_the_rest_and_other_kinds_stay(wire: Wire, kind: str) -> None:
    world = World(wire, kind)
    for other in KINDS:
        annotated(wire, other, item(other, name="kept" if other != kind else "gone"))
    note = wire.post(f"/v1/{kind}_notes", {"data": {f"{kind}_id": target_id(kind, 1), "note": "hi"}})
    assert note.status_code == 200
    assert world.delete({"delete_all": "true"}).headers["Clearspan-Deleted-Count"] == "6"
    assert rows(wire, kind) == []
    assert [row["name"] for other in KINDS for row in rows(wire, other)] == ["kept", "kept"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_waits_is_taken_too(wire: Wire, kind: str) -> None:
    world = World(wire, kind)
    late = item(kind, 7, name="late")
    assert wire.post(f"/v1/{kind}_annotations", {"data": [late]}).status_code == 200
    assert world.delete({"delete_all": "true", "name": "late"}).headers["Clearspan-Deleted-Count"] == "1"
    send_trace(wire, 7)
    assert rows(wire, kind, f"{kind}_ids={target_id(kind, 7)}") == []


def test_a_far_window_takes_nothing_and_is_no_error(wire: Wire) -> None:
    world = World(wire, "span")
    for said in (
        {"start_time": "0001-01-01", "end_time": "0001-01-02"},
        {"start_time": "9999-01-01", "end_time": "9999-12-31"},
    ):
        answer = world.delete(said)
        assert (answer.status_code, answer.headers["Clearspan-Deleted-Count"]) == (204, "0"), answer.text
    assert (
        world.delete({"start_time": "0001-01-01", "end_time": "9999-12-31"}).headers["Clearspan-Deleted-Count"] == "4"
    )


def test_a_key_of_one_environment_takes_no_other(wire: Wire) -> None:
    send_trace(wire, 1, deployment__environment="prod")
    send_trace(wire, 2, deployment__environment="staging")
    for kind in KINDS:
        annotated(wire, kind, item(kind, 1), item(kind, 2))
        key = wire.key(*KeyScope, environment="staging")
        answer = wire.send("DELETE", f"/v1/projects/default/{kind}_annotations?delete_all=true", key=key)
        assert (answer.status_code, answer.headers["Clearspan-Deleted-Count"]) == (204, "1")
        assert len(rows(wire, kind)) == 1
        assert rows(wire, kind, f"{kind}_ids={target_id(kind, 2)}") == []


def test_the_policy_of_a_key_holds(wire: Wire) -> None:
    world = World(wire, "span")
    for policy, said, status in (
        (KeyPolicy(require_reason=True), {"delete_all": "true"}, 422),
        (KeyPolicy(forbid_delete_all=True), {"delete_all": "true"}, 422),
        (KeyPolicy(max_traces=3), BOTH, 422),
        (KeyPolicy(forbid_delete_all=True), {**BOTH, "delete_all": "true"}, 204),
    ):
        key = wire.key(*KeyScope, policy=policy)
        assert world.delete(said, key=key).status_code == status, policy
        assert len(world.left()) == (len(ROWS) if status == 422 else 0)
    world.fill()
    key = wire.key(*KeyScope, policy=KeyPolicy(require_reason=True))
    answer = world.delete({"delete_all": "true"}, key=key, headers={"Clearspan-Reason": "asked to"})
    assert (answer.status_code, answer.headers["Clearspan-Deleted-Count"]) == (204, "4")


def test_a_hold_keeps_annotations(wire: Wire) -> None:
    world = World(wire, "span")
    made = wire.post("/v1/holds", {"trace_ids": [target_id("trace", 1)], "reason": "case 1"})
    assert made.status_code == 201, made.text
    refused = world.delete({"delete_all": "true"})
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(world.left()) == len(ROWS)
    send_trace(wire, 3)
    annotated(wire, "span", item("span", 3))
    partly = world.delete({"delete_all": "true"}).headers
    assert (partly["Clearspan-Deleted-Count"], partly["Clearspan-Held-Count"]) == ("1", "4")


def test_an_idempotency_key_is_kept(wire: Wire) -> None:
    world = World(wire, "trace")
    headers = {"Idempotency-Key": "once"}
    first = world.delete({"delete_all": "true"}, headers=headers)
    world.fill()
    again = world.delete({"delete_all": "true"}, headers=headers)
    assert again.headers["Clearspan-Deletion-Id"] == first.headers["Clearspan-Deletion-Id"]
    assert len(world.left()) == len(ROWS)
    assert world.delete({"delete_all": "true", "name": "a"}, headers=headers).status_code == 409


def test_feedback_of_langsmith_is_taken(wire: Wire) -> None:
    send_trace(wire)
    key = user_key(wire, "ann")
    run = str(UUID(target_id("trace", 1)))
    assert wire.post("/feedback", {"run_id": run, "key": "k", "score": 1}, key=key).status_code == 200
    assert wire.post("/feedback", {"run_id": run, "key": "theirs", "score": 1}).status_code == 200
    answer = wire.send("DELETE", "/v1/projects/default/span_annotations?delete_all=true", key=key)
    assert answer.headers["Clearspan-Deleted-Count"] == "1"
    assert [each["key"] for each in wire.get("/feedback").json()] == ["theirs"]
