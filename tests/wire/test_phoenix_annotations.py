"""Phoenix's annotations over both stores: upserts, what must be there, what waits, lists, and other dialects' eyes."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.wire.langsmith_requests import run, run_id
from tests.wire.phoenix_spans import (
    ABSENT,
    KINDS,
    annotate,
    annotated,
    item,
    listed,
    rows,
    send_trace,
    session_id,
    span_id,
    target_id,
    trace_id,
)

from clearspan.api.phoenix.annotation_targets import document_count
from clearspan.catalog import KeyScope
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.model.trace import Scope
from clearspan.testing.wire import Wire

WORDS = {"span": "Spans", "trace": "Traces", "session": "Sessions"}
GIDS = {"span": "SpanAnnotation", "trace": "TraceAnnotation", "session": "ProjectSessionAnnotation"}
RESERVED = {"span": "trace and span notes", "trace": "trace and span notes", "session": "session notes"}
NOT_FOUND = {
    "span": "Span with ID {} not found",
    "trace": "Trace with ID {} not found",
    "session": "Session with session_id {} not found",
}


def late_refused(wire: Wire) -> float:
    return sum(
        sample.value for metric in [wire.services.metrics.late_refused] for sample in metric.collect()[0].samples
    )


def delete_trace(wire: Wire, number: int) -> None:
    principal = wire.catalog.authenticate("owner-key-of-the-tests")
    request = DeletionRequest(
        principal.org_id, principal.key_id, "native", principal.scope_for_read(), ByIds((trace_id(number),))
    )
    wire.services.deleter.delete(request)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_comes_back(wire: Wire, kind: str) -> None:
    send_trace(wire)
    [gid] = annotated(wire, kind, item(kind, metadata={"a": [1, 2**70]}))
    assert base64.b64decode(gid).decode().partition(":")[0] == GIDS[kind]
    [row] = rows(wire, kind)
    times = {name: row.pop(name) for name in ("created_at", "updated_at")}
    assert times["created_at"] == times["updated_at"]
    assert times["created_at"].endswith("+00:00")
    assert row == {
        "id": gid,
        "source": "API",
        "user_id": row["user_id"],
        "name": "quality",
        "annotator_kind": "LLM",
        "result": {"label": "good", "score": 0.5, "explanation": "why"},
        "metadata": {"a": [1, 2**70]},
        "identifier": "",
        f"{kind}_id": target_id(kind, 1),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_key_replaces_and_keeps_id_and_creation(wire: Wire, kind: str) -> None:
    send_trace(wire)
    [first] = annotated(wire, kind, item(kind, metadata={"a": 1}))
    [before] = rows(wire, kind)
    wire.clock.advance(5)
    [again] = annotated(wire, kind, item(kind, annotator_kind="HUMAN", result={"score": 1}, metadata=None))
    assert again == first
    [after] = rows(wire, kind)
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]
    assert after["annotator_kind"] == "HUMAN"
    assert after["result"] == {"label": None, "score": 1.0, "explanation": None}
    assert after["metadata"] == {}
    [second] = annotated(wire, kind, item(kind, identifier="v2"))
    assert [row["id"] for row in rows(wire, kind)] == [second, first], "newest first"


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_key_twice_in_a_request_the_later_counts(wire: Wire, kind: str) -> None:
    send_trace(wire)
    sent = [item(kind, result={"score": 1}), item(kind, name="other"), item(kind, result={"score": 2})]
    first, other, again = annotated(wire, kind, *sent)
    assert first == again != other
    assert {row["name"]: row["result"]["score"] for row in rows(wire, kind)} == {"quality": 2.0, "other": 0.5}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [{"result": None}, {"result": {}}, {"metadata": None}])
def test_little_is_enough(wire: Wire, kind: str, said: dict[str, Any]) -> None:
    send_trace(wire)
    assert annotated(wire, kind, item(kind, **said))
    assert annotate(wire, kind).json() == {"data": []}


@pytest.mark.parametrize("kind", KINDS)
def test_with_sync_every_target_must_be_there_or_nothing_is_written(wire: Wire, kind: str) -> None:
    send_trace(wire)
    other = ABSENT[kind][:-1] + "9"
    absent = [item(kind, **{f"{kind}_id": each}) for each in (ABSENT[kind], other, ABSENT[kind])]
    answer = annotate(wire, kind, item(kind), *absent)
    text = f"{WORDS[kind]} with IDs {ABSENT[kind]}, {other} do not exist."
    assert (answer.status_code, answer.text) == (404, text)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert rows(wire, kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_sync_it_waits_for_its_target(wire: Wire, kind: str) -> None:
    answer = annotate(wire, kind, item(kind), item(kind, name="second"), sync=False)
    assert (answer.status_code, answer.json()) == (200, {"data": []})
    assert answer.headers["Clearspan-Waiting-Count"] == "2"
    assert wire.services.annotations.annotation_figures().waiting == 2
    assert listed(wire, kind).status_code == 404
    send_trace(wire)
    assert {row["name"] for row in rows(wire, kind)} == {"quality", "second"}
    assert wire.services.annotations.annotation_figures().waiting == 0
    answer = annotate(wire, kind, item(kind), sync=False)
    assert "Clearspan-Waiting-Count" not in answer.headers


@pytest.mark.parametrize("kind", KINDS)
def test_it_waits_for_a_project_that_is_made_later(wire: Wire, kind: str) -> None:
    assert annotate(wire, kind, item(kind), sync=False).status_code == 200
    send_trace(wire, project="later")
    wire.services.deleter._keep_house()
    assert [row["name"] for row in rows(wire, kind, project="later")] == ["quality"]
    assert listed(wire, kind).status_code == 404


def test_a_span_that_comes_while_it_is_looked_for_gets_its_annotation(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, told = type(wire.services.annotating).put_annotations, []

    def late(self: Any, writes: Any, **rest: Any) -> Any:
        if not told:
            told.append(True)
            send_trace(wire)
        return put(self, writes, **rest)

    monkeypatch.setattr(type(wire.services.annotating), "put_annotations", late)
    assert annotate(wire, "span", item("span"), item("span", 2), sync=False).headers["Clearspan-Waiting-Count"] == "1"
    assert [row["name"] for row in rows(wire, "span")] == ["quality"]
    assert wire.services.annotations.annotation_figures().waiting == 1


@pytest.mark.parametrize("kind", ["span", "trace"])
def test_of_a_deleted_trace_nothing_is_taken(wire: Wire, kind: str) -> None:
    send_trace(wire)
    annotated(wire, kind, item(kind))
    delete_trace(wire, 1)
    assert listed(wire, kind).status_code == 404
    assert annotate(wire, kind, item(kind)).status_code == 404
    answer = annotate(wire, kind, item(kind), sync=False)
    assert (answer.status_code, answer.json()) == (200, {"data": []})
    if kind == "trace":
        assert answer.headers["Clearspan-Refused-Count"] == "1"
    else:
        assert wire.services.annotations.annotation_figures().waiting == 1, "nobody knows of which trace it was"


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_note_is_reserved(wire: Wire, kind: str) -> None:
    send_trace(wire)
    for sync in (True, False):
        answer = annotate(wire, kind, item(kind), item(kind, name="note"), sync=sync)
        text = f"The name 'note' is reserved for {RESERVED[kind]}. Use POST /v1/{kind}_notes instead."
        assert (answer.status_code, answer.text) == (400, text)
    assert rows(wire, kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_a_body_is_told_as_by_fastapi(wire: Wire, kind: str) -> None:
    answer = annotate(wire, kind, item(kind, annotator_kind="ROBOT"))
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": [
            {
                "type": "literal_error",
                "loc": ["body", "data", 0, "annotator_kind"],
                "msg": "Input should be 'LLM', 'CODE' or 'HUMAN'",
                "input": "ROBOT",
                "ctx": {"expected": "'LLM', 'CODE' or 'HUMAN'"},
            }
        ]
    }
    bare = {f"{kind}_id": "x", "name": "x"}
    assert annotate(wire, kind, bare).json() == {
        "detail": [
            {"type": "missing", "loc": ["body", "data", 0, "annotator_kind"], "msg": "Field required", "input": bare}
        ]
    }
    for wrong in ({"result": {"score": "nan"}}, {"metadata": [1]}, {"name": None}, {f"{kind}_id": 1}):
        assert annotate(wire, kind, item(kind, **wrong)).status_code == 422, wrong
    assert wire.post(f"/v1/{kind}_annotations?sync=maybe", {"data": []}).status_code == 422


def test_an_id_that_nothing_can_have_is_not_kept_waiting(wire: Wire) -> None:
    for kind in ("span", "trace", "session"):
        bad = item(kind, **{f"{kind}_id": ""})
        assert annotate(wire, kind, bad, sync=False).status_code == 422
        assert annotate(wire, kind, bad).status_code == 404


def test_hex_ids_are_one_in_either_case(wire: Wire) -> None:
    send_trace(wire, 0xABCDEF)
    upper = span_id(0xABCDEF).upper()
    annotated(wire, "span", item("span", span_id=upper))
    assert rows(wire, "span", f"span_ids={upper}")[0]["span_id"] == span_id(0xABCDEF)


@pytest.mark.parametrize("kind", KINDS)
def test_notes_pile_up_unless_they_bring_an_identifier(wire: Wire, kind: str) -> None:
    send_trace(wire)

    def add(text: str, **rest: str) -> Any:
        return wire.post(f"/v1/{kind}_notes", {"data": {f"{kind}_id": target_id(kind, 1), "note": text, **rest}})

    first, second = add(" hi "), add("hi")
    assert first.status_code == second.status_code == 200
    assert first.json()["data"]["id"] != second.json()["data"]["id"]
    one, two = add("a", identifier="mine"), add("b", identifier="mine")
    assert one.json() == two.json()
    said = rows(wire, kind)
    assert [row["result"]["explanation"] for row in said] == ["b", "hi", "hi"]
    assert {(row["name"], row["annotator_kind"]) for row in said} == {("note", "HUMAN")}
    prefix, _, unique = said[1]["identifier"].partition(":")
    assert (prefix, UUID(unique).version) == (f"px-{kind}-note", 4)
    blank = add("  ")
    assert blank.status_code == 422
    assert blank.json()["detail"] == [
        {
            "type": "string_too_short",
            "loc": ["body", "data", "note"],
            "msg": "String should have at least 1 character",
            "input": "",
            "ctx": {"min_length": 1},
        }
    ]
    absent = wire.post(f"/v1/{kind}_notes", {"data": {f"{kind}_id": ABSENT[kind], "note": "hi"}})
    assert (absent.status_code, absent.text) == (404, NOT_FOUND[kind].format(ABSENT[kind]))


def test_documents_are_annotated_by_position(wire: Wire) -> None:
    send_trace(wire, retrieval__documents__0__document__id="a", retrieval__documents__2__document__id="c")
    send_trace(wire, 2)

    def say(number: int, position: int, sync: bool = True, **rest: Any) -> Any:
        return annotate(wire, "document", item("span", number, document_position=position, **rest), sync=sync)

    answer = say(1, 2)
    assert answer.status_code == 200, answer.text
    assert base64.b64decode(answer.json()["data"][0]["id"]).startswith(b"DocumentAnnotation:")
    assert say(1, 2).json() == answer.json()
    assert say(1, 0).json() != answer.json()
    assert say(1, 3).status_code == say(2, 0).status_code == say(1, 3, sync=False).status_code == 422
    assert say(1, -1).status_code == say(1, 0, identifier="x").status_code == 422
    assert say(9, 0).status_code == 404
    assert say(9, 0, sync=False).json() == {"data": []}
    assert rows(wire, "span") == [], "not annotations of the span itself"


def test_documents_of_langsmiths_retrievers_count(wire: Wire) -> None:
    found = {"documents": [{"page_content": "a", "metadata": {}}, {"page_content": "b", "metadata": {}}]}
    sent = run(1, run_type="retriever", outputs=found, end_time="2026-01-01T00:00:01Z")
    assert wire.post("/runs", sent).status_code == 202
    of_run = {"span_id": UUID(run_id(1)).hex}
    for position, status in ((1, 200), (2, 422)):
        answer = annotate(wire, "document", item("span", document_position=position, **of_run))
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("attributes", "count"),
    [
        ({}, 0),
        ({"retrieval.documents.0.document.content": "a", "retrieval.documents.1.document.id": "b"}, 2),
        ({"reranker.output_documents.4.document.id": "a", "reranker.input_documents.9.document.id": "b"}, 5),
        ({"retrieval.documents": [{"document.id": "a"}, {}]}, 2),
        ({"retrieval.documents.x": "a", "my.retrieval.documents.0.a": "b"}, 0),
    ],
)
def test_documents_are_counted(attributes: dict[str, Any], count: int) -> None:
    assert document_count(attributes) == count


# Lists


@pytest.mark.parametrize("kind", KINDS)
def test_lists_go_by_ids_identifiers_and_names(wire: Wire, kind: str) -> None:
    send_trace(wire, 1)
    send_trace(wire, 2)
    annotated(
        wire,
        kind,
        item(kind, 1, name="a"),
        item(kind, 1, name="b", identifier="x"),
        item(kind, 2, name="a", identifier="x"),
        item(kind, 2, name="c", identifier="y"),
    )
    one, two = target_id(kind, 1), target_id(kind, 2)

    def names(query: str) -> list[str]:
        return [f"{row['name']}{row[f'{kind}_id'][-1]}{row['identifier']}" for row in rows(wire, kind, query)]

    assert names(f"{kind}_ids={one}") == ["b1x", "a1"]
    assert names(f"{kind}_ids={one}&{kind}_ids={two}&{kind}_ids={ABSENT[kind]}") == ["c2y", "a2x", "b1x", "a1"]
    assert names("identifier=x") == ["a2x", "b1x"]
    assert names("identifier=x&identifier=y") == ["c2y", "a2x", "b1x"]
    assert names(f"identifier=x&{kind}_ids={two}") == ["a2x"]
    assert names(f"{kind}_ids={one}&{kind}_ids={two}&include_annotation_names=a") == ["a2x", "a1"]
    assert names(f"{kind}_ids={one}&exclude_annotation_names=a&exclude_annotation_names=c") == ["b1x"]
    assert names("identifier=none") == []
    assert names(f"{kind}_ids={one}&include_annotation_names=zzz") == []
    assert names(f"{kind}_ids={ABSENT[kind]}&identifier=x") == []


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_disjoint_and_whole(wire: Wire, kind: str) -> None:
    send_trace(wire)
    annotated(wire, kind, *(item(kind, name=f"n{n}") for n in range(7)))
    path, found, cursor = f"/v1/projects/default/{kind}_annotations?{kind}_ids={target_id(kind, 1)}", [], ""
    while True:
        answer = wire.get(f"{path}&limit=3{cursor}").json()
        found += [row["name"] for row in answer["data"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert found == [f"n{n}" for n in range(6, -1, -1)]
    assert len(wire.get(path).json()["data"]) == 7
    annotated(wire, kind, *(item(kind, name=f"m{n}") for n in range(4)))
    assert len(wire.get(path).json()["data"]) == 10, "the default"
    assert wire.get(f"{path}&limit=11").json()["next_cursor"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_a_list_is_told(wire: Wire, kind: str) -> None:
    send_trace(wire)
    path = f"/v1/projects/default/{kind}_annotations"
    ids = f"{kind}_ids={target_id(kind, 1)}"

    def told(query: str, path: str = path) -> tuple[int, str]:
        answer = wire.get(f"{path}?{query}")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8", answer.text
        return answer.status_code, answer.text

    assert told("") == (422, f"At least one of {kind}_ids or identifier must be supplied")
    assert told(f"{ids}&cursor=garbage") == (422, "Invalid cursor value")
    assert told(f"{kind}_ids={ABSENT[kind]}") == (404, f"None of the supplied {kind}_ids exist in this project")
    assert told(ids, "/v1/projects/no-such/" + path.rpartition("/")[2]) == (404, "Project with name no-such not found")
    many = "&".join(f"{kind}_ids={n}" for n in range(1001))
    assert told(many) == (422, f"Too many {kind}_ids supplied: 1001 (max 1000)")
    many = "&".join(f"identifier={n}" for n in range(1001))
    assert told(many) == (422, "Too many identifiers supplied: 1001 (max 1000)")
    assert wire.get(f"{path}?{ids}").json() == {"data": [], "next_cursor": None}
    empty = wire.get(f"{path}?identifier=")
    assert empty.status_code == 422
    assert empty.json()["detail"][0]["loc"] == ["query", "identifier", 0]
    for limit in (0, 10_001):
        assert wire.get(f"{path}?{ids}&limit={limit}").status_code == 422


def test_a_cursor_is_good_for_its_list_only(wire: Wire) -> None:
    send_trace(wire)
    for kind in ("span", "trace"):
        annotated(wire, kind, item(kind), item(kind, name="b"))
    first = wire.get(f"/v1/projects/default/span_annotations?span_ids={span_id(1)}&limit=1").json()["next_cursor"]
    other = wire.get(f"/v1/projects/default/trace_annotations?trace_ids={trace_id(1)}&cursor={first}")
    assert (other.status_code, other.text) == (422, "Invalid cursor value")


# Who may, and who sees what


@pytest.mark.parametrize("kind", KINDS)
def test_other_tenants_and_bound_keys_see_and_annotate_nothing(wire: Wire, kind: str) -> None:
    send_trace(wire)
    send_trace(wire, 2, project="theirs")
    annotated(wire, kind, item(kind))
    stranger = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    theirs = wire.catalog.find_project(wire.catalog.first_org.id, "theirs")
    assert theirs is not None
    bound = wire.key(*KeyScope, project_ids=(theirs.id,))
    for key in (stranger, bound):
        assert annotate(wire, kind, item(kind), key=key).status_code == 404
        assert listed(wire, kind, key=key).status_code == 404
    assert listed(wire, kind, "identifier=x", key=bound).status_code == 404
    assert listed(wire, kind, project="theirs", query=f"{kind}_ids={target_id(kind, 2)}", key=bound).status_code == 200
    default = wire.catalog.find_project(wire.catalog.first_org.id, "default")
    assert default is not None
    gid = base64.b64encode(f"Project:{default.id}".encode()).decode()
    assert len(rows(wire, kind, project=gid)) == 1
    hidden = listed(wire, kind, project=gid, key=stranger)
    assert (hidden.status_code, hidden.text) == (404, f"Project with ID {gid} not found")
    assert annotate(wire, kind, item(kind, name="mine"), sync=False, key=stranger).status_code == 200
    assert len(rows(wire, kind)) == 1, "it waits in the other's own projects"


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_one_environment_annotates_no_other(wire: Wire, kind: str) -> None:
    send_trace(wire, 1, deployment__environment="prod")
    send_trace(wire, 2, deployment__environment="staging")
    key = wire.key(*KeyScope, environment="staging")
    assert annotate(wire, kind, item(kind, 1), key=key).status_code == 404
    assert annotate(wire, kind, item(kind, 2), key=key).status_code == 200
    assert listed(wire, kind, key=key).status_code == 404
    assert len(rows(wire, kind, f"{kind}_ids={target_id(kind, 2)}", key=key)) == 1


def test_viewers_write_nothing(wire: Wire) -> None:
    viewer = wire.key(KeyScope.READ)
    for kind in (*KINDS, "document"):
        answer = annotate(wire, kind, key=viewer)
        assert (answer.status_code, answer.text) == (403, "Viewers cannot perform this action.")
    assert wire.post("/v1/span_notes", {}, key=viewer).status_code == 403
    assert annotate(wire, "span", key="wrong").text == "Invalid token"


# Other dialects


@pytest.mark.parametrize("kind", ["span", "trace"])
def test_langsmith_sees_the_annotation_as_feedback(wire: Wire, kind: str) -> None:
    send_trace(wire)
    annotated(wire, kind, item(kind, metadata={"a": 1}))
    [told] = wire.get(f"/feedback?run={UUID(trace_id(1))}").json() if kind == "span" else wire.get("/feedback").json()
    assert (told["key"], told["score"], told["value"], told["comment"]) == ("quality", 0.5, "good", "why")
    assert (told["feedback_source"]["type"], told["feedback_source"]["metadata"]) == ("api", {"a": 1})
    assert told["trace_id"] == str(UUID(trace_id(1)))
    assert told["run_id"] == (str(UUID(trace_id(1))) if kind == "span" else None)
    changed = wire.send("PATCH", f"/feedback/{told['id']}", {"score": True})
    assert changed.status_code == 200, changed.text
    assert rows(wire, kind)[0]["result"]["score"] == 1.0
    annotated(wire, kind, item(kind, result={"score": 0.25}))
    assert wire.get(f"/feedback/{told['id']}").json()["score"] == 0.25


def test_feedback_of_langsmith_is_seen_as_an_annotation(wire: Wire) -> None:
    assert wire.post("/runs", run(1)).status_code == 202
    own = {"run_id": run_id(1), "score": True, "value": "yes", "comment": "c", "feedback_source": {"type": "model"}}
    ids = [str(uuid4()), str(uuid4())]
    for each in ids:
        assert wire.post("/feedback", {"id": each, "key": "correctness", **own}).status_code == 200
    uuid = UUID(run_id(1))
    found = wire.services.reader.find_spans(  # type: ignore[attr-defined]
        Scope(wire.catalog.authenticate("owner-key-of-the-tests").project_ids), [uuid.hex]
    )
    project = next(
        each.name for each in wire.catalog.projects(wire.catalog.first_org.id) if each.id == found[0].trace.project_id
    )
    said = rows(wire, "span", f"span_ids={uuid.hex}", project=project)
    assert {row["identifier"] for row in said} == {UUID(each).hex for each in ids}
    assert {row["annotator_kind"] for row in said} == {"LLM"}
    assert said[0]["result"] == {"label": "yes", "score": 1.0, "explanation": "c"}


def test_two_sessions_of_one_name_are_two(wire: Wire) -> None:
    send_trace(wire, 1)
    send_trace(wire, 1, project="other")
    annotated(wire, "session", item("session"))
    assert len(rows(wire, "session")) == 1
    assert rows(wire, "session", project="other") == []
    assert listed(wire, "session", f"session_ids={session_id(2)}").status_code == 404
