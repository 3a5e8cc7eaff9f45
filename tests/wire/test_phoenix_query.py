"""Phoenix's query language over spans, answered as tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from phoenix_requests import fill, hex_id, span

from clearspan.catalog import KeyScope
from clearspan.testing.wire import SECOND_NS, Wire, iso

Row = dict[str, Any]


def ask(wire: Wire, *queries: dict[str, Any], project: str = "default", key: str | None = None, **body: Any) -> Any:
    headers = {"accept": "application/json"}
    who = {} if key is None else {"key": key}
    return wire.post(f"/v1/spans?project_name={project}", {"queries": list(queries), **body}, headers=headers, **who)


def tables(wire: Wire, *queries: dict[str, Any], **rest: Any) -> list[dict[str, Any]]:
    """The tables as the client takes the body apart."""
    answer = ask(wire, *queries, **rest)
    assert answer.status_code == 200, answer.text
    kind = answer.headers["content-type"]
    assert kind.startswith("multipart/mixed; boundary=")
    boundary = "--" + kind.split("boundary=")[1].split(";", 1)[0]
    text, found = answer.text, []
    while boundary in text:
        part, text = text.split(boundary, 1)
        if "Content-Type: application/json" in part:
            found.append(json.loads(part.split("\r\n\r\n", 1)[1].strip()))
    return found


def rows(wire: Wire, query: dict[str, Any], **rest: Any) -> list[Row]:
    """The rows of one table by the names of its columns; index columns among them, as `index.<name>`."""
    [table] = tables(wire, query, **rest)
    fields = [each["name"] for each in table["schema"]["fields"]]
    assert [int(name.split("_", 1)[0]) for name in fields] == list(range(len(fields)))
    keys = table["schema"]["primaryKey"]
    said = {name: ("index." if name in keys else "") + name.split("_", 1)[1] for name in fields}
    for row in table["data"]:
        assert list(row) == fields
    return [{said[name]: value for name, value in row.items()} for row in table["data"]]


def where(wire: Wire, condition: str, **rest: Any) -> set[str]:
    query = {"filter": {"condition": condition}, "select": {"name": {"key": "name"}}}
    return {row["name"][-1] for row in rows(wire, query, **rest)}


@pytest.fixture
def filled(wire: Wire) -> Wire:
    a = hex_id(1, 8)
    documents = [
        {"document": {"id": "d0", "content": "first", "score": 0.5, "metadata": {"page": 1}}},
        {"document": {"content": "second"}},
    ]
    fill(
        wire,
        span(wire, 1, span_kind="AGENT", ago_s=100, attributes={"input.value": "What IS it", "metadata": {"tier": 1}}),
        span(
            wire, 2, parent_id=a, span_kind="LLM", ago_s=99,
            attributes={"llm.model_name": "x", "llm.token_count.total": 7, "n": "5", "b": True, "tag.tags": ["u", "v"]},
        ),
        span(
            wire, 3, parent_id=a, span_kind="RETRIEVER", ago_s=98, status_code="ERROR",
            attributes={"retrieval.documents": documents, "input.value": "q"},
        ),
        span(wire, 4, trace=2, parent_id=hex_id(88, 8), ago_s=10, attributes={"n": 5}),
    )  # fmt: skip
    return wire


def test_the_empty_query_gives_whole_spans(filled: Wire) -> None:
    found = rows(filled, {})
    assert [row["name"] for row in found] == ["span 4", "span 3", "span 2", "span 1"]
    llm = found[2]
    assert llm["index.context.span_id"] == llm["context.span_id"] == hex_id(2, 8)
    expected = {
        "span_kind": "LLM", "parent_id": hex_id(1, 8), "status_code": "OK", "status_message": "", "events": [],
        "context.trace_id": hex_id(1, 16), "attributes.llm.model_name": "x", "attributes.llm.token_count.total": 7,
        "attributes.openinference.span.kind": "LLM", "attributes.n": "5", "attributes.retrieval.documents": None,
    }  # fmt: skip
    assert {key: llm[key] for key in expected} == expected
    assert found[3]["attributes.metadata"] == {"tier": 1}
    assert found[1]["attributes.retrieval.documents"][0]["document"]["metadata"] == {"page": 1}


def test_types_of_columns_bring_every_value_back(filled: Wire) -> None:
    [table] = tables(filled, {})
    kinds = {each["name"].split("_", 1)[1]: each for each in table["schema"]["fields"]}
    assert kinds["start_time"]["type"] == "datetime"
    assert kinds["start_time"]["tz"] == "UTC"
    assert kinds["name"]["type"] == "string"
    assert kinds["parent_id"]["type"] == "any"
    query = {"select": {"l": {"key": "latency_ms"}, "t": {"key": "llm.token_count.total"}}}
    [table] = tables(filled, query)
    assert [each["type"] for each in table["schema"]["fields"]] == ["string", "number", "number"]


def test_what_is_selected_is_shown_and_renamed(filled: Wire) -> None:
    query = {
        "select": {
            "name": {"key": "name"}, "trace_id": {"key": "trace_id"}, "input.value": {"key": "input.value"},
            "m": {"key": "attributes['metadata']['tier']"},
        },
        "filter": {"condition": "parent_id is None"},
        "rename": {"input.value": "input"},
        "index": {"key": "span_id"},
    }  # fmt: skip
    assert rows(filled, query) == [
        {
            "index.context.span_id": hex_id(1, 8),
            "name": "span 1",
            "context.trace_id": hex_id(1, 16),
            "input": "What IS it",
            "m": 1,
        }
    ]


def test_items_of_a_list_become_rows(filled: Wire) -> None:
    query = {
        "filter": {"condition": "span_kind == 'RETRIEVER'"},
        "select": {"context.trace_id": {"key": "context.trace_id"}, "input.value": {"key": "input.value"}},
        "rename": {"input.value": "input"},
        "explode": {
            "key": "retrieval.documents",
            "primary_index_key": "context.span_id",
            "kwargs": {"document": "document.content", "score": "document.score", "extra": "document.metadata"},
        },
        "index": {"key": "context.span_id"},
    }
    expected = {"index.context.span_id": hex_id(3, 8), "context.trace_id": hex_id(1, 16), "input": "q"}
    assert rows(filled, query) == [
        expected | {"index.document_position": 0, "document": "first", "score": 0.5, "extra": {"page": 1}},
        expected | {"index.document_position": 1, "document": "second", "score": None, "extra": None},
    ]
    query["explode"]["kwargs"] = None  # type: ignore[index]
    found = rows(filled, query)
    assert [row["document.content"] for row in found] == ["first", "second"]
    assert found[0]["document.metadata.page"] == 1


def test_items_of_a_list_are_joined(filled: Wire) -> None:
    query = {
        "filter": {"condition": "span_kind == 'RETRIEVER'"},
        "concat": {"key": "retrieval.documents", "kwargs": {"context": "document.content"}, "separator": "\n\n"},
        "index": {"key": "context.trace_id"},
    }
    assert rows(filled, query) == [{"index.context.trace_id": hex_id(1, 16), "context": "first\n\nsecond"}]
    assert rows(filled, query | {"filter": {"condition": "span_kind == 'LLM'"}}) == []
    tags = {"concat": {"key": "tag.tags", "separator": "+"}}
    assert rows(filled, tags) == [{"index.context.span_id": hex_id(2, 8), "tag.tags": "u+v"}]


CONDITIONS = [
    ("span_kind == 'LLM'", "2"),
    ("span_kind == 'llm'", "2"),
    ("span_kind in ['LLM', 'AGENT']", "12"),
    ("span_kind not in ['LLM', 'AGENT']", "34"),
    ("span_kind != 'LLM'", "134"),
    ("not span_kind == 'LLM'", "134"),
    ("parent_id is None", "1"),
    ("parent_id is not None", "234"),
    ("parent_id == None", "1"),
    ("parent_span is None", "14"),
    ("parent_span is not None", "23"),
    ("name == 'span 2' or name == 'span 4'", "24"),
    ("name == 'span 2' and span_kind == 'AGENT'", ""),
    ("'SPAN' in name", "1234"),
    ("'what is' in input.value", "1"),
    ("'zzz' not in input.value", "13"),
    ("input.value == 'q'", "3"),
    ("llm.token_count.total > 5", "2"),
    ("5 < llm.token_count.total", "2"),
    ("0 < llm.token_count.total < 7", ""),
    ("0 < llm.token_count.total <= 7", "2"),
    ("attributes['llm']['model_name'] == 'x'", "2"),
    ("attributes['llm.model_name'] == 'x'", "2"),
    ("attributes[['llm', 'model_name']] == 'x'", "2"),
    ("metadata['tier'] == 1", "1"),
    ("metadata['tier'] != 1", ""),
    ("not metadata['tier'] == 1", ""),
    ("metadata['tier'] is None", "234"),
    ("attributes['n'] == 5", "24"),
    ("attributes['n'] == '5'", "24"),
    ("int(attributes['n']) >= 5", "24"),
    ("attributes['b'] == True", "2"),
    ("'u' in tag.tags", "2"),
    ("latency_ms == 1000", "1234"),
    ("latency_ms > 1_000", ""),
    ("status_code == 'ERROR'", "3"),
    ("status_code in ['OK', 'UNSET']", "124"),
    ("start_time < '2031-01-01T00:00:00+00:00'", "1234"),
    ("start_time > '2031-01-01'", ""),
    (f"span_id == '{hex_id(2, 8)}'", "2"),
    (f"context.span_id in ['{hex_id(2, 8)}', '{hex_id(3, 8)}']", "23"),
    (f"trace_id == '{hex_id(2, 16)}'", "4"),
    ("span_id == 'nothing'", ""),
    ("-1 < latency_ms", "1234"),
    ("True", "1234"),
]


def test_conditions_mean_what_they_say(filled: Wire) -> None:
    for condition, expected in CONDITIONS:
        assert where(filled, condition) == set(expected), condition


def test_queries_that_are_none_are_refused(wire: Wire) -> None:
    for query in (
        {"filter": {"condition": "__import__('os').system('x')"}},
        {"select": {"x": {"key": "__import__('os')"}}},
        {"select": {"x": {"key": "1"}}},
        {"select": {"x": {"key": "foo"}}},
        {"index": {"key": "foo()"}},
        {"explode": {"key": "name"}},
        {"concat": {"key": "'x'"}},
    ):
        answer = ask(wire, query)
        assert answer.status_code == 422
        assert answer.text.startswith("Invalid query: ")


def test_roots_windows_and_limits(filled: Wire) -> None:
    names = {"select": {"name": {"key": "name"}}}

    def asked(**body: Any) -> str:
        return "".join(row["name"][-1] for row in rows(filled, names, **body))

    assert asked() == "4321"
    assert asked(limit=2) == "43"
    assert asked(root_spans_only=True) == "41"
    assert asked(root_spans_only=True, orphan_span_as_root_span=False) == "1"
    minute_ago = iso(filled.clock.now_ns() - 60 * SECOND_NS)
    assert asked(start_time=minute_ago) == "4"
    assert asked(end_time=minute_ago) == "321"
    assert asked(stop_time=minute_ago, limit=1) == "3"
    assert asked(project="nowhere") == ""
    for limit in (0, -1, 50_001):
        assert ask(filled, names, limit=limit).status_code == 422


def test_several_queries_give_several_tables(filled: Wire) -> None:
    found = tables(filled, {"select": {"name": {"key": "name"}}}, {"filter": {"condition": "span_kind == 'LLM'"}})
    assert [len(each["data"]) for each in found] == [4, 1]
    assert ask(filled).status_code == 404
    assert ask(filled, *[{}] * 21).status_code == 422
    body = {"queries": [{"select": {"name": {"key": "name"}}}], "project_name": "default"}
    assert filled.post("/v1/spans", body).status_code == 200


def test_an_empty_project_gives_an_empty_table(wire: Wire) -> None:
    assert rows(wire, {}) == []
    [table] = tables(wire, {"select": {"name": {"key": "name"}}})
    assert [each["name"] for each in table["schema"]["fields"]] == ["0_context.span_id", "1_name"]


def test_tenants_and_environments_are_apart(filled: Wire) -> None:
    names = {"select": {"name": {"key": "name"}}}
    theirs = filled.key(*KeyScope, org_id=filled.catalog.create_organisation("other").id)
    assert rows(filled, names, key=theirs) == []
    assert rows(filled, names, key=filled.key(*KeyScope, environment="prod")) == []
    condition = {"filter": {"condition": f"span_id == '{hex_id(2, 8)}'"}}
    assert rows(filled, condition, key=theirs) == []
    bound = filled.key(KeyScope.READ, project_ids=[filled.catalog.create_project(filled.catalog.first_org.id, "p").id])
    assert rows(filled, names, key=bound) == []
    assert len(rows(filled, names, key=filled.key(KeyScope.READ))) == 4
    assert ask(filled, names, key=filled.key(KeyScope.INGEST)).status_code == 403


def test_conditions_ask_what_was_said_of_spans(filled: Wire) -> None:
    def say(number: int, name: str, identifier: str = "", **result: Any) -> None:
        said = {"span_id": hex_id(number, 8), "name": name, "annotator_kind": "LLM", "identifier": identifier}
        answer = filled.post("/v1/span_annotations?sync=true", {"data": [{**said, "result": result}]})
        assert answer.status_code == 200, answer.text

    say(1, "quality", score=0.9, label="good")
    say(2, "quality", score=0.2, label="bad")
    say(2, "quality", "again", score=0.7)
    say(3, "topic", label="5")
    whole = {"trace_id": hex_id(2, 16), "name": "quality", "annotator_kind": "CODE", "result": {"score": 1}}
    assert filled.post("/v1/trace_annotations?sync=true", {"data": [whole]}).status_code == 200
    for condition, wanted in (
        ("annotations['quality'].score > 0.5", "12"),
        ("evals['quality'].score < 0.5", "2"),
        ("0.5 > evals['quality'].score and span_kind == 'LLM'", "2"),
        ("annotations['quality'].label == 'good'", "1"),
        ("'OO' in annotations['quality'].label", "1"),
        ("annotations['quality'].label in ['bad', 'worse']", "2"),
        ("float(annotations['topic'].label) == 5", "3"),
        ("annotations['quality'].score > evals['topic'].score", ""),
        ("annotations['topic'].label == '5' or annotations['quality'].score > 0.8", "13"),
        ("annotations['quality'].score is not None", "12"),
        ("annotations['quality'] is None", "34"),
        ("annotations['quality']", "12"),
        ("not evals['quality'] and not evals['topic']", "4"),
        ("not (annotations['quality'].score > 0.5)", ""),
        ("annotations['nothing'].score != 1", ""),
    ):
        assert where(filled, condition) == set(wanted), condition


def test_conditions_ask_for_costs(wire: Wire) -> None:
    costs = {"llm.cost.prompt": 0.25, "llm.cost.completion": 0.5, "llm.cost.total": 0.75}
    fill(wire, span(wire, 1, span_kind="LLM", attributes=costs), span(wire, 2, span_kind="LLM"))
    assert where(wire, "llm.cost.total >= 0.75 and llm.cost.prompt < 0.3") == {"1"}
    assert where(wire, "llm.cost.total is None") == {"2"}
