"""Phoenix's spans: posted, listed, filtered, in its own form and in one like OTLP's."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest
from phoenix_requests import fill, hex_id, names, post, span, spans_of

from clearspan.api.phoenix.globalids import render, span_of
from clearspan.api.phoenix.span_filters import parse_attribute
from clearspan.catalog import KeyScope
from clearspan.testing.wire import SECOND_NS, Wire, iso


def offset(text: str) -> str:
    """As Phoenix writes a time without a fraction."""
    return text.replace(".000000Z", "+00:00").replace("Z", "+00:00")


# Posted and read back


def test_a_posted_span_is_read_back_as_it_was(wire: Wire) -> None:
    sent = span(
        wire, 1, span_kind="LLM", status_code="ERROR", status_message="no", parent_id=hex_id(9, 8),
        attributes={
            "llm.model_name": "m", "session.id": "s", "n": 1, "f": 1.5, "b": True, "tag.tags": ["a", "b"],
            "llm.input_messages.0.message.role": "user",
        },
        events=[{"name": "e", "timestamp": "2026-01-01T00:00:00.500Z", "attributes": {"k": 1}}],
    )  # fmt: skip
    fill(wire, sent)
    [told] = spans_of(wire)
    found = span_of(told.pop("id"))
    assert found is not None
    assert found[1:] == (hex_id(1, 16), hex_id(1, 8))
    expected = sent | {"start_time": offset(sent["start_time"]), "end_time": offset(sent["end_time"])}
    assert told == expected | {
        "events": [{"name": "e", "timestamp": "2026-01-01T00:00:00.500000+00:00", "attributes": {"k": 1}}]
    }


def test_objects_are_opened_and_json_texts_too(wire: Wire) -> None:
    attributes = {
        "metadata": {"tier": "gold", "deep": {"x": 1}},
        "llm": {"token_count": {"prompt": 3}},
        "retrieval.documents": [{"document": {"id": "d0", "metadata": {"page": 2}}}, {"document": {"id": "d1"}}],
        "list": [1, 2],
    }
    fill(wire, span(wire, 1, attributes=attributes))
    opened = {
        "metadata.tier": "gold", "metadata.deep.x": 1, "llm.token_count.prompt": 3, "list": [1, 2],
        "retrieval.documents.0.document.id": "d0", "retrieval.documents.0.document.metadata.page": 2,
        "retrieval.documents.1.document.id": "d1",
    }  # fmt: skip
    [told] = spans_of(wire)
    assert told["attributes"] == opened
    # What was read can be posted again.
    fill(wire, span(wire, 2, attributes=told["attributes"]), project="again")
    assert spans_of(wire, project="again")[0]["attributes"] == opened
    # And other dialects read it: metadata and tokens are where they look.
    detail = wire.get(f"/api/traces/{hex_id(1, 16)}/").json()
    assert detail["total_prompt_tokens"] == 3
    assert wire.list_ids(filters={"metadata__tier": {"value": ["gold"]}}) == [hex_id(1, 16)] * 2


def test_unknown_kinds_are_kept_and_unknown_status_codes_are_unset(wire: Wire) -> None:
    fill(wire, span(wire, 1, span_kind="weird", status_code="weird"))
    [told] = spans_of(wire)
    assert (told["span_kind"], told["status_code"]) == ("weird", "UNSET")
    assert names(wire, "?span_kind=unknown") == ["span 1"]


def test_ids_that_are_not_hex_are_kept(wire: Wire) -> None:
    sent = span(wire, 1, context={"trace_id": "not hex", "span_id": "also not"}, parent_id="nor this")
    fill(wire, sent)
    [told] = spans_of(wire)
    assert (told["context"], told["parent_id"]) == (sent["context"], "nor this")
    assert names(wire, "?trace_id=not%20hex&span_id=also%20not&parent_id=nor%20this") == ["span 1"]
    again = post(wire, sent)
    assert (again.status_code, again.json()["total_duplicates"]) == (400, 1)


def test_an_empty_list_is_taken_and_makes_nothing(wire: Wire) -> None:
    answer = post(wire, project="nothing")
    assert (answer.status_code, answer.json()) == (202, {"total_received": 0, "total_queued": 0})
    assert wire.get("/v1/projects/nothing").status_code == 404


def test_duplicates_are_refused_with_everything_else(wire: Wire) -> None:
    fill(wire, span(wire, 1), project="p")
    answer = post(wire, span(wire, 1, name="other"), span(wire, 2), span(wire, 1, trace=5), project="p")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.json() == {
        "error": "Request contains invalid or duplicate spans",
        "total_received": 3,
        "total_queued": 0,
        "total_duplicates": 2,
        "total_invalid": 0,
        "duplicate_spans": [
            {"span_id": hex_id(1, 8), "trace_id": hex_id(1, 16)},
            {"span_id": hex_id(1, 8), "trace_id": hex_id(5, 16)},
        ],
        "invalid_spans": [],
    }
    assert names(wire, project="p") == ["span 1"]
    fill(wire, span(wire, 1), project="elsewhere")


def test_of_two_with_one_id_in_a_request_the_first_stays(wire: Wire) -> None:
    fill(wire, span(wire, 1, name="first"), span(wire, 1, name="second"))
    assert names(wire) == ["first"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"context": {"trace_id": "a/b", "span_id": "x"}}, "an id must not hold slashes"),
        ({"context": {"trace_id": "", "span_id": "x"}}, "an id must have 1 to 256 characters"),
        ({"context": {"trace_id": "0" * 32, "span_id": "x"}}, "all-zero trace id"),
        ({"attributes": {"n": 2**63}}, "a whole number of more than 64 bits"),
        ({"start_time": "1960-01-01T00:00:00Z"}, "a time before 1970"),
        ({"end_time": "2300-01-01T00:00:00Z"}, "a time after the year 2262"),
    ],
)
def test_one_span_that_cannot_be_stored_refuses_all(wire: Wire, change: dict[str, Any], reason: str) -> None:
    answer = post(wire, span(wire, 1), span(wire, 2, **change), project="new")
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert (told["total_queued"], told["total_invalid"], told["total_duplicates"]) == (0, 1, 0)
    assert reason in told["invalid_spans"][0]["error"]
    assert wire.get("/v1/projects/new").status_code == 404


def test_bodies_that_are_none_are_told_by_place(wire: Wire) -> None:
    naive = span(wire, 1, start_time="2026-01-01T00:00:00")
    answer = post(wire, naive)
    assert answer.status_code == 422
    [told] = answer.json()["detail"]
    assert told == {
        "type": "value_error",
        "loc": ["body", "data", 0],
        "msg": "Value error, start_time: timezone-naive timestamp is not allowed; all timestamps must be "
        "timezone-aware (e.g., use UTC).",
        "input": naive,
        "ctx": {"error": {}},
    }
    for broken in ({"context": {}}, {"name": 1}, {"attributes": []}, {"events": [{"name": "e"}]}, {"end_time": "x"}):
        [told, *_] = post(wire, span(wire, 1), span(wire, 2, **broken)).json()["detail"]
        assert told["loc"][:3] == ["body", "data", 1]
    assert wire.post("/v1/projects/default/spans", {}).json()["detail"][0]["loc"] == ["body", "data"]
    assert spans_of(wire) == []


def test_spans_go_to_a_project_by_name_or_id(wire: Wire) -> None:
    fill(wire, span(wire, 1), project="p")
    gid = wire.get("/v1/projects/p").json()["data"]["id"]
    fill(wire, span(wire, 2), project=gid)
    assert sorted(names(wire, project="p")) == ["span 1", "span 2"]
    nowhere = render("Project", 99999)
    answer = post(wire, span(wire, 3), project=nowhere)
    assert (answer.status_code, answer.text) == (404, f"Project with ID {nowhere} not found")


def test_a_packed_body_is_read(wire: Wire) -> None:
    body = gzip.compress(json.dumps({"data": [span(wire, 1)]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert wire.post("/v1/projects/default/spans", body, headers=headers).status_code == 202
    assert names(wire) == ["span 1"]


def test_a_span_of_a_deleted_trace_is_refused(wire: Wire) -> None:
    fill(wire, span(wire, 1))
    assert wire.send("DELETE", f"/api/traces/{hex_id(1, 16)}/").status_code == 200
    answer = post(wire, span(wire, 1), span(wire, 2, trace=2))
    assert answer.status_code == 400
    told = answer.json()
    assert (told["total_queued"], told["total_invalid"]) == (1, 1)
    assert "was deleted (deletion del_" in told["invalid_spans"][0]["error"]
    assert names(wire) == ["span 2"]


# Listed


def test_pages_hold_each_span_once_in_every_order_while_others_come(wire: Wire) -> None:
    sent = [span(wire, n, trace=n % 4, ago_s=100 - 7 * (n % 5)) for n in range(12)]
    fill(wire, *sent)
    start = {each["name"]: each["start_time"] for each in sent}
    for query in ("", "&order=asc", "&sort=start_time", "&sort=start_time&order=asc"):
        found: list[str] = []
        cursor = ""
        for page in range(10):
            answer = wire.get(f"/v1/projects/default/spans?limit=5{query}{cursor}").json()
            found += [each["name"] for each in answer["data"]]
            if answer["next_cursor"] is None:
                break
            cursor = "&cursor=" + quote(answer["next_cursor"], safe="")
            if page == 0:  # beyond the end that the list began at
                late = 1 if "asc" not in query else 1_000
                fill(wire, span(wire, 100 + len(query), trace=50 + len(query), ago_s=late), project="default")
        mine = [name for name in found if name in start]
        assert sorted(mine) == sorted(start), query
        assert len(found) == len(set(found))
        if "start_time" in query:
            times = [start[name] for name in mine]
            assert times == sorted(times, reverse="asc" not in query)
    bad = wire.get("/v1/projects/default/spans?cursor=garbage")
    assert (bad.status_code, bad.text) == (422, "Invalid cursor")
    first = wire.get("/v1/projects/default/spans?limit=1").json()["next_cursor"]
    other = wire.get(f"/v1/projects/default/spans?sort=start_time&cursor={quote(first, safe='')}")
    assert (other.status_code, other.text) == (422, "Invalid cursor")


def test_filters_narrow_and_are_all_fulfilled(wire: Wire) -> None:
    a, b = hex_id(1, 8), hex_id(2, 8)
    fill(
        wire,
        span(wire, 1, span_kind="LLM", attributes={"llm.model_name": "x", "n": 1, "b": True, "t": "1", "u.id": "a:b"}),
        span(wire, 2, parent_id=a, status_code="ERROR", attributes={"n": 1.0, "f": 0.5}),
        span(wire, 3, parent_id=b, trace=2, span_kind="TOOL", status_code="UNSET", name="Span 3", ago_s=3600),
    )
    for query, expected in (
        (f"trace_id={hex_id(1, 16)}", {1, 2}),
        (f"trace_id={hex_id(1, 16)}&trace_id={hex_id(2, 16)}", {1, 2, 3}),
        (f"trace_id={hex_id(1, 16).upper()}", set()),
        (f"span_id={a}&span_id={hex_id(3, 8)}", {1, 3}),
        (f"span_id={hex_id(77, 8)}", set()),
        (f"span_id={a}&trace_id={hex_id(2, 16)}", set()),
        ("parent_id=null", {1}),
        (f"parent_id={a}", {2}),
        ("name=span%201&name=span%202", {1, 2}),
        ("span_kind=llm&span_kind=Tool", {1, 3}),
        ("status_code=error", {2}),
        ("status_code=OK&status_code=unset", {1, 3}),
        ("attribute=llm.model_name:x", {1}),
        ("attribute=n:1", {1, 2}),
        ("attribute=n:1&attribute=b:true", {1}),
        ("attribute=n:%221%22", set()),
        ("attribute=t:%221%22", {1}),
        ("attribute=t:1", set()),
        ("attribute=f:0.5", {2}),
        ("attribute=u.id:a:b", {1}),
        ("attribute=b:1", set()),
        (f"end_time={iso(wire.clock.now_ns() - 1800 * SECOND_NS)}", {3}),
        (f"start_time={iso(wire.clock.now_ns() - 1800 * SECOND_NS)}", {1, 2}),
        ("start_time=2031-01-01T00:00:00Z&end_time=2030-01-01T00:00:00Z", set()),
        ("unheard_of=1", {1, 2, 3}),
    ):
        found = {name[-1] for name in names(wire, f"?{query}")}
        assert found == {str(each) for each in expected}, query


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("span_kind=nope", "Invalid span_kind values: ['NOPE']"),
        ("status_code=nope", "Invalid status_code values: ['NOPE']"),
        ("attribute=nocolon", "Invalid attribute 'nocolon': expected format 'key:value'"),
        ("attribute=:1", "Invalid attribute: key must not be empty"),
        ("attribute=k:", "Invalid attribute: value must not be empty"),
        (
            "attribute=llm.model_name:null",
            "Invalid attribute value 'null': must be a string, integer, float, or boolean. To match a string that "
            'looks like a number or boolean, JSON-quote the value: `key:"12345"`.',
        ),
    ],
)
def test_filters_that_are_none_are_told(wire: Wire, query: str, text: str) -> None:
    answer = wire.get(f"/v1/projects/default/spans?{query}")
    assert (answer.status_code, answer.text) == (422, text)


def test_attribute_values_are_typed() -> None:
    assert [parse_attribute(f"k:{value}")[1] for value in ("1", "1.5", "true", '"1"', "x y", "a:b", "-0")] == [
        1, 1.5, True, "1", "x y", "a:b", 0,
    ]  # fmt: skip


def test_limits_are_told_as_recorded(wire: Wire) -> None:
    answer = wire.get("/v1/projects/default/spans?limit=1001").json()
    assert answer["detail"][0]["msg"] == "Input should be less than or equal to 1000"
    assert wire.get("/v1/projects/default/spans?limit=0").status_code == 422
    assert wire.get("/v1/projects/default/spans?start_time=not-a-time").json()["detail"][0]["type"] == (
        "datetime_from_date_parsing"
    )
    answer = wire.get("/v1/projects/no-such/spans")
    assert (answer.status_code, answer.text) == (404, "Project with name no-such not found")


def test_pages_filtered_by_attributes_go_on_where_they_ended(wire: Wire) -> None:
    fill(wire, *(span(wire, n, trace=n, attributes={"even": n % 2 == 0}) for n in range(20)))
    found, cursor = [], ""
    while True:
        answer = wire.get(f"/v1/projects/default/spans?attribute=even:true&limit=3&sort=start_time{cursor}").json()
        found += [each["name"] for each in answer["data"]]
        if answer["next_cursor"] is None:
            break
        assert len(answer["data"]) == 3
        cursor = "&cursor=" + quote(answer["next_cursor"], safe="")
    assert sorted(found) == sorted(f"span {n}" for n in range(0, 20, 2))


def test_the_form_like_otlp(wire: Wire) -> None:
    fill(wire, span(wire, 1, span_kind="LLM", attributes={"n": 1, "f": 0.5, "b": False, "l": ["x"], "t": "y"}))
    answer = wire.get("/v1/projects/default/spans/otlpv1?limit=1")
    assert answer.status_code == 200
    [told] = answer.json()["data"]
    values = {each["key"]: {k: v for k, v in each["value"].items() if v is not None} for each in told["attributes"]}
    assert values.pop("l")["array_value"]["values"][0]["string_value"] == "x"
    assert values == {
        "n": {"int_value": 1}, "f": {"double_value": 0.5}, "b": {"bool_value": False}, "t": {"string_value": "y"},
        "openinference.span.kind": {"string_value": "LLM"},
    }  # fmt: skip
    assert set(told["attributes"][0]["value"]) == {
        "array_value", "bool_value", "bytes_value", "double_value", "int_value", "kvlist_value", "string_value",
    }  # fmt: skip
    assert (told["trace_id"], told["span_id"], told["parent_span_id"]) == (hex_id(1, 16), hex_id(1, 8), None)
    assert told["status"] == {"code": 1, "message": None}
    assert (told["kind"], told["events"], told["name"]) == ("SPAN_KIND_INTERNAL", None, "span 1")
    assert told["end_time_unix_nano"] - told["start_time_unix_nano"] == SECOND_NS
    assert wire.get("/v1/projects/default/spans/otlpv1?attribute=n:2").json() == {"data": [], "next_cursor": None}


# Other dialects


def test_a_run_of_langsmith_is_told_in_openinferences_words(wire: Wire) -> None:
    run_id, now = "0190b6f0-0000-7000-8000-000000000001", wire.clock.now_ns()
    run = {
        "id": run_id,
        "trace_id": run_id,
        "dotted_order": f"20260101T000000000000Z{run_id}",
        "name": "ask",
        "run_type": "llm",
        "start_time": iso(now - 2 * SECOND_NS),
        "end_time": iso(now - SECOND_NS),
        "inputs": {"messages": [{"role": "user", "content": "hello"}]},
        "outputs": {"choices": [{"message": {"role": "assistant", "content": "hi"}}]},
        "extra": {"metadata": {"tier": "gold", "ls_model_name": "m", "thread_id": "t"}},
        "tags": ["a"],
        "events": [{"name": "new_token", "time": iso(now - SECOND_NS)}],
        "session_name": "default",
    }
    assert wire.post("/runs", run).status_code == 202
    [told] = spans_of(wire)
    assert (told["name"], told["span_kind"], told["status_code"]) == ("ask", "LLM", "OK")
    attributes = told["attributes"]
    expected = {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "hello",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "hi",
        "llm.model_name": "m",
        "metadata.tier": "gold",
        "tag.tags": ["a"],
        "input.mime_type": "application/json",
    }
    assert {key: attributes.get(key) for key in expected} == expected
    assert json.loads(attributes["input.value"]) == run["inputs"]
    assert [each["name"] for each in told["events"]] == ["new_token"]
    assert names(wire, "?attribute=metadata.tier:gold&span_kind=LLM") == ["ask"]


def test_a_span_of_respan_is_told_in_openinferences_words(wire: Wire) -> None:
    wire.ingest(
        wire.span(
            "t1", "s1", log_type="chat", model="m", prompt_tokens=3, completion_tokens=4, status_code=500,
            error_message="broke", input="hello", output={"text": "hi"}, customer_identifier="c",
            session_identifier="s", metadata={"tier": "gold"},
        ),
        wire.span("t1", "s2", span_parent_id="s1", log_type="tool", span_name="search"),
    )  # fmt: skip
    [told] = spans_of(wire, "?span_kind=llm")
    assert (told["status_code"], told["status_message"]) == ("ERROR", "broke")
    expected = {
        "input.value": "hello", "input.mime_type": "text/plain", "output.value": '{"text": "hi"}',
        "output.mime_type": "application/json", "llm.model_name": "m", "llm.token_count.prompt": 3,
        "llm.token_count.completion": 4, "session.id": "s", "user.id": "c", "metadata.tier": "gold",
    }  # fmt: skip
    assert {key: told["attributes"].get(key) for key in expected} == expected
    [tool] = spans_of(wire, "?span_kind=TOOL")
    assert (tool["attributes"]["tool.name"], tool["parent_id"]) == ("search", "s1")


def test_a_span_of_another_family_keeps_its_own_words(wire: Wire) -> None:
    start_ns = wire.clock.now_ns() - SECOND_NS
    said = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "7",
        "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"hello"}]}]',
    }  # fmt: skip
    sent = {
        "traceId": hex_id(1, 16),
        "spanId": hex_id(1, 8),
        "name": "chat m",
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + 1),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in said.items()],
    }
    answer = wire.post("/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [sent]}]}]})
    assert answer.status_code == 200
    [told] = spans_of(wire)
    assert told["span_kind"] == "LLM"
    assert {key: told["attributes"][key] for key in said} == said
    assert told["attributes"]["llm.model_name"] == "m"
    assert told["attributes"]["llm.input_messages.0.message.content"] == "hello"


# Removed


def delete(wire: Wire, named: str, **more: Any) -> Any:
    return wire.send("DELETE", f"/v1/spans/{quote(named, safe='')}", **more)


def test_a_span_goes_and_its_children_stay(wire: Wire) -> None:
    fill(
        wire,
        span(wire, 1),
        span(wire, 2, parent_id=hex_id(1, 8), context=span(wire, 1)["context"] | {"span_id": hex_id(2, 8)}),
    )
    gone = delete(wire, hex_id(1, 8), headers={"clearspan-reason": "asked to"})
    assert gone.status_code == 204
    assert gone.headers["clearspan-deletion-state"] == "verified"
    assert (gone.headers["clearspan-deleted-count"], gone.content) == ("1", b"")
    [left] = spans_of(wire)
    assert (left["name"], left["parent_id"]) == ("span 2", hex_id(1, 8))
    again = delete(wire, hex_id(1, 8))
    assert (again.status_code, again.text) == (404, f"Span with span_id '{hex_id(1, 8)}' not found")
    told = wire.get(gone.headers["location"]).json()
    assert (told["kind"], told["state"], told["traces"]["matched"]) == ("spans", "verified", 1)
    assert wire.get(f"{gone.headers['location']}/receipt").status_code == 200
    late = post(wire, span(wire, 1), span(wire, 3))
    assert late.status_code == 400
    told = json.loads(late.text)
    assert (told["total_received"], told["total_queued"]) == (2, 1)
    [refused] = told["invalid_spans"]
    assert (refused["span_id"], gone.headers["clearspan-deletion-id"] in refused["error"]) == (hex_id(1, 8), True)
    assert sorted(names(wire)) == ["span 2", "span 3"]


def test_by_global_id_the_span_of_that_trace_goes(wire: Wire) -> None:
    fill(wire, span(wire, 1), span(wire, 2, trace=2))
    [first] = [each["id"] for each in spans_of(wire) if each["name"] == "span 1"]
    for named in (render("Span", f"999.{hex_id(1, 16)}.{hex_id(1, 8)}"), render("Span", "99999")):
        answer = delete(wire, named)
        assert (answer.status_code, answer.text) == (404, f"Span with relay ID '{named}' not found")
    for named in (hex_id(1, 8).upper(), "nothing"):
        answer = delete(wire, named)
        assert (answer.status_code, answer.text) == (404, f"Span with span_id '{named}' not found")
    assert delete(wire, first).status_code == 204
    assert names(wire) == ["span 2"]
    traces = wire.get("/v1/projects/default/traces").json()["data"]
    assert [each["trace_id"] for each in traces] == [hex_id(2, 16)], "a trace goes with its last span"


def test_who_may_delete_a_span(wire: Wire) -> None:
    fill(wire, span(wire, 1))
    assert delete(wire, hex_id(1, 8), key=wire.key(KeyScope.INGEST)).status_code == 403
    viewer = delete(wire, hex_id(1, 8), key=wire.key(KeyScope.READ))
    assert (viewer.status_code, viewer.text) == (403, "Viewers cannot perform this action.")
    other = wire.key(*KeyScope, environment="prod")
    assert delete(wire, hex_id(1, 8), key=other).status_code == 404
    assert names(wire) == ["span 1"]


def test_a_hold_on_its_trace_keeps_a_span(wire: Wire) -> None:
    fill(wire, span(wire, 1))
    hold = wire.post("/v1/holds", {"trace_ids": [hex_id(1, 16)], "reason": "a lawsuit"})
    assert hold.status_code in (200, 201)
    assert delete(wire, hex_id(1, 8)).status_code == 409
    assert names(wire) == ["span 1"]


# Who may see


def test_tenants_and_environments_are_apart(wire: Wire) -> None:
    prod = wire.key(*KeyScope, environment="prod")
    fill(wire, span(wire, 1))
    fill(wire, span(wire, 2, trace=2), key=prod)
    assert names(wire, key=prod) == ["span 2"]
    assert sorted(names(wire)) == ["span 1", "span 2"]
    for path in ("spans", "spans/otlpv1"):
        found = wire.get(f"/v1/projects/default/{path}?span_id={hex_id(1, 8)}", key=prod)
        assert found.json() == {"data": [], "next_cursor": None}
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    gid = quote(wire.get("/v1/projects/default").json()["data"]["id"], safe="")
    for path in ("spans", "spans/otlpv1"):
        assert wire.get(f"/v1/projects/{gid}/{path}", key=theirs).status_code == 404
        assert wire.get(f"/v1/projects/default/{path}?span_id={hex_id(1, 8)}", key=theirs).json()["data"] == []
    assert post(wire, span(wire, 1), project=gid, key=theirs).status_code == 404
    # An id that another tenant has stored is no duplicate of ours, and tells nothing.
    fill(wire, span(wire, 1), key=theirs)
    viewer = wire.key(KeyScope.READ)
    answer = post(wire, span(wire, 3), key=viewer)
    assert (answer.status_code, answer.text) == (403, "Viewers cannot perform this action.")


def test_a_repeat_under_the_same_key_is_told_the_same(wire: Wire) -> None:
    fill(wire, span(wire, 1), span(wire, 2, trace=2))
    for number, path in ((1, f"/v1/spans/{hex_id(1, 8)}"), (2, f"/v1/traces/{hex_id(2, 16)}")):
        once = {"headers": {"idempotency-key": f"once {number}"}}
        first, again = [wire.send("DELETE", path, **once) for _ in range(2)]
        assert (first.status_code, again.status_code) == (204, 204)
        assert first.headers["clearspan-deletion-id"] == again.headers["clearspan-deletion-id"]
        assert wire.send("DELETE", path).status_code == 404
        assert wire.send("DELETE", path, headers={"idempotency-key": f"another {number}"}).status_code == 404
