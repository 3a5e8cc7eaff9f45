"""Feedback over both stores: kept as it was sent, found by every parameter, gone with its run."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.wire.langsmith_requests import run, run_id

from clearspan.api.langsmith.feedback import FeedbackOutcome, feedback_write
from clearspan.catalog import KeyScope
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.trace import Scope
from clearspan.store.annotations import AnnotationQuery, AnnotationWrite
from clearspan.testing.build import make_annotation
from clearspan.testing.wire import OWNER_KEY, Wire

ROOTS = ("", "/api/v1")
INSISTED = {
    "id", "created_at", "modified_at", "key", "run_id", "trace_id", "score", "value", "comment", "correction",
    "feedback_source", "session_id", "comparative_experiment_id", "feedback_group_id", "extra",
}  # fmt: skip


def send_run(wire: Wire, number: int = 1, **fields: Any) -> str:
    answer = wire.post("/runs", run(number, **fields))
    assert answer.status_code == 202, answer.text
    return run_id(number)


def say(wire: Wire, root: str = "", **body: Any) -> Any:
    return wire.post(f"{root}/feedback", {"id": str(uuid4()), "key": "correctness", **body})


def said(wire: Wire, **body: Any) -> dict[str, Any]:
    answer = say(wire, **body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def listed(wire: Wire, query: str = "", **rest: Any) -> list[str]:
    answer = wire.get(f"/feedback{query}", **rest)
    assert answer.status_code == 200, answer.text
    return [each["key"] for each in answer.json()]


def written(wire: Wire, *bodies: dict[str, Any]) -> list[FeedbackOutcome]:
    principal = wire.catalog.authenticate(OWNER_KEY)
    texts = [json.dumps(body).encode() for body in bodies]
    return asyncio.run(feedback_write(wire.services, principal, texts))


@pytest.mark.parametrize("root", ROOTS)
def test_what_a_client_sends_comes_back(wire: Wire, root: str) -> None:
    own = send_run(wire)
    body = {
        "id": "01a2003e-6b4c-763c-8119-b8101c23c95c",
        "created_at": "2026-11-21T22:33:40.428528+00:00",
        "modified_at": "2026-11-21T22:33:40.428531+00:00",
        "run_id": own,
        "trace_id": own,
        "key": "correctness",
        "score": True,
        "value": {"a": [1, 2.50, "ü"]},
        "comment": "why",
        "correction": {"output": "x"},
        "feedback_source": {"type": "model", "metadata": {"__run": {"run_id": "r"}}},
        "feedback_config": {"type": "continuous", "min": 0.0, "max": 1.0},
        "extend_trace_retention": False,
        "feedback_group_id": str(UUID(int=7)),
    }
    made = wire.post(f"{root}/feedback", body)
    assert made.status_code == 200, made.text
    told = made.json()
    assert told.keys() >= INSISTED
    user_id = wire.catalog.authenticate(OWNER_KEY).user_id
    source = {"user_id": user_id, "user_name": None, **body["feedback_source"]}  # type: ignore[dict-item]
    assert {key: told[key] for key in body} == body | {"feedback_source": source}
    assert told["score"] is True
    assert json.dumps(body["value"]).encode() in made.content, "as it was sent, to the byte"
    assert UUID(told["session_id"])
    assert wire.get(f"{root}/feedback/{body['id']}").json() == told
    assert wire.get(f"{root}/feedback?run={own}&limit=100&key=correctness&offset=0").json() == [told]
    assert wire.post(f"{root}/feedback", body).json() == told
    assert wire.post(f"{root}/feedback/eager", body).json() == told
    assert listed(wire) == ["correctness"]


@pytest.mark.parametrize(
    ("score", "text"), [(1, "1"), (0.8765, "0.8765"), (1.0, "1.0"), (False, "false"), (None, "null")]
)
def test_a_score_stays_what_it_was(wire: Wire, score: Any, text: str) -> None:
    answer = say(wire, run_id=send_run(wire), score=score)
    assert f'"score":{text},' in answer.text


def test_several_of_one_key_stay_apart_and_the_same_id_replaces(wire: Wire) -> None:
    own = send_run(wire)
    first, second = said(wire, run_id=own, score=1), said(wire, run_id=own, score=0)
    assert len(listed(wire)) == 2
    again = said(wire, run_id=own, id=first["id"], score=0.5)
    assert (again["id"], again["score"]) == (first["id"], 0.5)
    assert len(listed(wire)) == 2
    assert wire.get(f"/feedback/{second['id']}").json() == second


@pytest.mark.parametrize("root", ROOTS)
def test_a_change_changes_what_it_names_and_null_clears(wire: Wire, root: str) -> None:
    told = said(wire, run_id=send_run(wire), score=True, comment="why", value="yes", correction={"a": 1})
    changed = wire.send("PATCH", f"{root}/feedback/{told['id']}", {"score": 0.5, "comment": None})
    assert changed.status_code == 200, changed.text
    expected = told | {"score": 0.5, "comment": None}
    assert {**changed.json(), "modified_at": told["modified_at"]} == expected
    changed = wire.send("PATCH", f"/feedback/{told['id']}", {"score": None, "value": [1], "correction": None})
    expected |= {"score": None, "value": [1], "correction": None}
    assert {**changed.json(), "modified_at": told["modified_at"]} == expected
    assert wire.get(f"/feedback/{told['id']}").json() == changed.json()
    assert wire.send("PATCH", f"/feedback/{uuid4()}", {"score": 1}).status_code == 404


def test_feedback_on_an_unknown_run_is_404_in_the_foreground(wire: Wire) -> None:
    answer = say(wire, run_id=run_id(9), trace_id=run_id(9))
    assert answer.status_code == 404
    assert answer.json() == {"detail": "There is no such run."}
    assert say(wire, trace_id=run_id(9)).status_code == 404
    assert say(wire, session_id=str(uuid4())).status_code == 404
    assert listed(wire) == []


def test_feedback_that_comes_with_runs_may_come_before_them(wire: Wire) -> None:
    send_run(wire, 5)  # which makes the project
    early = {"id": str(uuid4()), "key": "early", "run_id": run_id(1), "trace_id": run_id(1), "score": 1}
    bad = {"id": str(uuid4()), "key": "", "run_id": run_id(1)}
    first, second = written(wire, early, bad)
    assert first.stored is not None
    assert first.stored.is_waiting
    assert second.error is not None
    assert second.error.fields == ("key",)
    assert listed(wire) == []
    assert wire.get(f"/feedback/{early['id']}").json()["run_id"] == run_id(1)
    send_run(wire)
    assert listed(wire) == ["early"]
    assert listed(wire, f"?run={run_id(1)}") == ["early"]


def test_feedback_may_come_before_the_project_of_its_run(wire: Wire) -> None:
    early = {"id": str(uuid4()), "key": "early", "run_id": run_id(1), "trace_id": run_id(1), "score": 1}
    written(wire, early)
    send_run(wire)
    wire.services.deleter._keep_house()
    assert listed(wire, f"?run={run_id(1)}") == ["early"]
    assert wire.catalog.find_project(wire.catalog.first_org.id, "p") is not None


def test_feedback_goes_with_its_run_and_late_feedback_is_refused(wire: Wire) -> None:
    own = send_run(wire)
    told = said(wire, run_id=own, comment="a word")
    deleted = wire.send("DELETE", f"/api/traces/{UUID(own).hex}/")
    assert deleted.status_code == 200, deleted.text
    assert listed(wire) == []
    assert wire.get(f"/feedback/{told['id']}").status_code == 404
    assert wire.send("PATCH", f"/feedback/{told['id']}", {"score": 1}).status_code == 404
    assert say(wire, run_id=own, trace_id=own).status_code == 404
    (late,) = written(wire, {"id": str(uuid4()), "key": "late", "run_id": own, "trace_id": own})
    assert late.stored is not None
    assert late.stored.deletion_id is not None
    status = wire.get(f"/v1/deletions/{late.stored.deletion_id}").json()
    assert status["counts"]["annotation"]["purged"] == 1
    assert status["late_refused"] == 1


def test_lists_are_narrowed_by_every_parameter(wire: Wire) -> None:
    one, two = send_run(wire, 1), send_run(wire, 2)
    session = said(wire, run_id=one, key="a", score=1, created_at="2026-01-01T00:00:00Z")["session_id"]
    said(wire, run_id=two, key="b", comment="c", feedback_source={"type": "model"}, created_at="2026-01-02T00:00:00Z")
    said(wire, session_id=session, key="p", created_at="2026-01-03T00:00:00Z")
    for query, expected in (
        ("", ["p", "b", "a"]),
        ("?limit=1&offset=1", ["b"]),
        (f"?run={one}", ["a"]),
        (f"?run={one}&run={two}", ["b", "a"]),
        (f"?run={uuid4()}", []),
        (f"?session={session}", ["p", "b", "a"]),
        (f"?session={uuid4()}", []),
        ("?key=a&key=p", ["p", "a"]),
        ("?source=model", ["b"]),
        ("?has_comment=True", ["b"]),
        ("?has_score=True", ["a"]),
        ("?has_score=false", ["p", "b"]),
        ("?level=run", ["b", "a"]),
        ("?level=session", ["p"]),
        ("?min_created_at=2026-01-02T00:00:00Z", ["p", "b"]),
        ("?max_created_at=2026-01-02T00:00:00Z", ["b", "a"]),
        ("?include_user_names=true", ["p", "b", "a"]),
    ):
        assert listed(wire, query) == expected, query
    for bad in ("level=x", "source=x", "run=x", "has_score=x", "limit=0", "min_created_at=x"):
        assert wire.get(f"/feedback?{bad}").status_code == 422, bad


def test_feedback_on_a_whole_session_has_no_run(wire: Wire) -> None:
    session = said(wire, run_id=send_run(wire))["session_id"]
    told = said(wire, session_id=session, key="p", score=1)
    assert (told["run_id"], told["trace_id"], told["session_id"]) == (None, None, session)


def test_feedback_on_a_session_goes_with_it(wire: Wire) -> None:
    session = said(wire, run_id=send_run(wire))["session_id"]
    told = said(wire, session_id=session, key="p")
    assert wire.send("DELETE", f"/sessions/{session}").status_code == 200
    owner = wire.catalog.authenticate(OWNER_KEY)
    everywhere = Scope(tuple(range(1, 1 + max(owner.known_project_ids))))
    assert wire.services.annotations.list_annotations(everywhere, AnnotationQuery(), limit=9) == []
    assert wire.get(f"/feedback/{told['id']}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"key": ""}, {"key": None}, {"key": "x" * 181}, {"score": "1"}, {"score": [1]}, {"comment": 5},
        {"feedback_source": {"type": "x"}}, {"feedback_source": []}, {"run_id": "x"}, {"run_id": None}, {"id": "x"},
        {"created_at": "x"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_422(wire: Wire, body: dict[str, Any]) -> None:
    answer = say(wire, **{"run_id": send_run(wire), **body})
    assert answer.status_code == 422, answer.text
    assert isinstance(answer.json()["detail"], list)
    assert listed(wire) == []


def test_what_another_dialect_said_is_readable_and_what_is_said_here_is_theirs(wire: Wire) -> None:
    wire.ingest(wire.span("a" * 32, "b" * 16), wire.span("a" * 32, "c" * 16, span_parent_id="b" * 16))
    project = wire.catalog.authenticate(OWNER_KEY).default_project_id
    assert project is not None
    theirs = [
        make_annotation("root", number=1, trace_id="a" * 32, span_id="b" * 16, label="good", score=1.0),
        make_annotation("child", number=2, trace_id="a" * 32, span_id="c" * 16, metadata=b'{"k":1}'),
    ]
    wire.services.annotating.put_annotations([AnnotationWrite((project,), each) for each in theirs], received_ns=0)
    child, root = wire.get("/feedback").json()
    assert root["run_id"] == root["trace_id"] == str(UUID("a" * 32))
    assert (root["value"], root["score"]) == ("good", 1.0)
    assert child["feedback_source"]["metadata"] == {"k": 1}
    assert UUID(child["run_id"]).version == 8
    told = said(wire, run_id=child["run_id"], key="here", value="bad", feedback_source={"type": "auto_eval"})
    assert told["run_id"] == child["run_id"]
    scope, query = Scope((project,)), AnnotationQuery(names=("here",))
    (row,) = wire.services.annotations.list_annotations(scope, query, limit=2)
    found = row.annotation
    assert (found.target, found.span_id, found.kind, found.label) == (
        AnnotationTarget.SPAN, "c" * 16, AnnotatorKind.LLM, "bad",
    )  # fmt: skip


def test_keys_see_and_change_only_their_own(wire: Wire) -> None:
    told = said(wire, run_id=send_run(wire))
    reader = wire.key(KeyScope.READ)
    assert listed(wire, key=reader) == ["correctness"]
    assert wire.send("PATCH", f"/feedback/{told['id']}", {"score": 1}, key=reader).status_code == 403
    assert wire.post("/feedback", {"key": "k", "run_id": run_id(1)}, key=reader).status_code == 403
    other = wire.catalog.create_organisation("other")
    stranger = wire.key(KeyScope.READ, KeyScope.ANNOTATE, org_id=other.id)
    assert listed(wire, key=stranger) == []
    assert wire.get(f"/feedback/{told['id']}", key=stranger).status_code == 404
    assert wire.send("PATCH", f"/feedback/{told['id']}", {"score": 1}, key=stranger).status_code == 404
    assert wire.post("/feedback", {"key": "k", "run_id": run_id(1)}, key=stranger).status_code == 404
    taken = wire.post("/feedback", {"key": "k", "run_id": run_id(1), "session_id": told["session_id"]}, key=stranger)
    assert taken.status_code == 404


def test_what_waits_in_vain_is_removed_and_counted(wire: Wire) -> None:
    early = {"id": str(uuid4()), "key": "early", "run_id": run_id(1), "trace_id": run_id(1)}
    written(wire, early)
    assert "clearspan_annotations_waiting 1.0" in wire.get("/metrics").text
    wire.clock.advance(6.9 * 86_400)
    wire.services.deleter._keep_house()
    assert wire.get(f"/feedback/{early['id']}").status_code == 200
    wire.clock.advance(0.2 * 86_400)
    wire.services.deleter._keep_house()
    assert wire.get(f"/feedback/{early['id']}").status_code == 404
    text = wire.get("/metrics").text
    assert "clearspan_annotations_waiting 0.0" in text
    assert "clearspan_annotations_expired_total 1.0" in text


@pytest.mark.parametrize("root", ROOTS)
def test_feedback_can_be_deleted_by_itself(wire: Wire, root: str) -> None:
    """Its run stays, other feedback stays, and the same can be said again."""
    own = send_run(wire)
    gone, stays = said(wire, run_id=own, comment="gone")["id"], said(wire, run_id=own, key="another")["id"]
    answer = wire.send("DELETE", f"{root}/feedback/{gone}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["message"] == "Successfully deleted 1 annotations"
    assert answer.headers["clearspan-deletion-state"] == "verified"
    deletion = wire.get(answer.headers["location"]).json()
    assert (deletion["kind"], deletion["dialect"], deletion["traces"]["hidden"]) == ("annotations", "langsmith", 1)
    assert wire.get(f"{root}/feedback/{gone}").status_code == 404
    assert wire.get(f"{root}/feedback/{stays}").status_code == 200
    assert wire.get(f"/runs/{own}").status_code == 200
    for unknown in (gone, str(uuid4())):
        assert wire.send("DELETE", f"{root}/feedback/{unknown}").status_code == 404
    assert wire.send("DELETE", f"{root}/feedback/no-uuid").status_code == 422
    assert said(wire, id=gone, run_id=own)["id"] == gone


def test_feedback_that_waits_can_be_deleted(wire: Wire) -> None:
    body = {"id": str(uuid4()), "key": "early", "run_id": run_id(9), "trace_id": run_id(9)}
    (outcome,) = written(wire, body)
    assert outcome.stored is not None
    assert outcome.stored.is_waiting
    assert wire.send("DELETE", f"/feedback/{body['id']}").status_code == 200
    send_run(wire, 9)
    assert listed(wire) == []


def test_feedback_of_a_held_run_is_held(wire: Wire) -> None:
    own = send_run(wire)
    feedback_id = said(wire, run_id=own)["id"]
    assert wire.post("/v1/holds", {"trace_ids": [own], "reason": "a lawsuit"}).status_code == 201
    assert wire.send("DELETE", f"/feedback/{feedback_id}").status_code == 409
    assert wire.get(f"/feedback/{feedback_id}").status_code == 200


def test_feedback_carries_whom_the_key_acts_for(wire: Wire) -> None:
    feedback_id = said(wire, run_id=send_run(wire))["id"]
    principal = wire.catalog.authenticate(OWNER_KEY)
    assert principal.user_id is not None
    (row,) = wire.services.annotations.list_annotations(principal.scope_for_read(), AnnotationQuery(), limit=9)
    assert row.annotation.user_id == principal.user_id
    body = {"annotations": {"user": "user_of_somebody_else"}, "delete_all": True}
    assert wire.post("/v1/deletions", body).json()["traces"]["matched"] == 0
    body = {"annotations": {"user": principal.user_id}, "delete_all": True, "wait": "verified"}
    assert wire.post("/v1/deletions", body).json()["traces"]["hidden"] == 1
    assert wire.get(f"/feedback/{feedback_id}").status_code == 404
