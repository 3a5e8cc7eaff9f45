"""Runs are read whatever dialect they came by, in pages that hold still, within what a key sees."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from langsmith_requests import ROOTS, multipart, run, run_id

from clearspan.catalog import KeyScope
from clearspan.testing.wire import SECOND_NS, Wire, iso

OTLP_TRACE = "0af7651916cd43dd8448eb211c80319c"


def send(wire: Wire, *runs: dict[str, Any], key: str | None = None) -> None:
    more = {} if key is None else {"key": key}
    answer = wire.post("/runs/batch", {"post": list(runs)}, **more)
    assert answer.status_code == 202, answer.text


def query(wire: Wire, path: str = "/runs/query", **body: Any) -> list[dict[str, Any]]:
    answer = wire.post(path, body)
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = answer.json()["runs" if "v2" not in path else "items"]
    return told


def names(wire: Wire, **body: Any) -> list[str]:
    return [each["name"] for each in query(wire, **body)]


def at(wire: Wire, ago_s: float) -> str:
    return iso(wire.clock.now_ns() - round(ago_s * SECOND_NS))


def tree(wire: Wire) -> None:
    """A chain of a model that states usage and a tool that fails, and a run that has not ended."""

    def of(number: int, ago_s: float, **fields: Any) -> dict[str, Any]:
        begun = at(wire, ago_s)
        own = run(number, start_time=begun, **fields)
        own["trace_id"] = run_id(1) if number < 4 else run_id(4)
        stamp = "".join(letter for letter in begun if letter.isalnum())
        root = "".join(letter for letter in at(wire, 60) if letter.isalnum())
        own["dotted_order"] = (
            f"{stamp}{run_id(number)}" if number in (1, 4) else f"{root}{run_id(1)}.{stamp}{run_id(number)}"
        )
        return own

    usage = {
        "input_tokens": 3, "output_tokens": 1, "total_tokens": 4, "input_cost": 1e-7, "output_cost": 0.0000025,
        "total_cost": 0.0000026, "input_token_details": {"cache_read": 2},
    }  # fmt: skip
    meta = {"metadata": {"user_id": "u1", "thread_id": "th-1", "k": "v"}}
    send(
        wire,
        of(1, 60, name="chain", end_time=at(wire, 50), outputs={"a": 1}, extra=meta, tags=["t1"]),
        of(2, 59, name="model", run_type="llm", parent_run_id=run_id(1), end_time=at(wire, 58),
           outputs={"usage_metadata": usage}),
        of(3, 57, name="tool", run_type="tool", parent_run_id=run_id(1), end_time=at(wire, 56),
           error="ValueError('x')"),
        of(4, 10, name="open", extra={"metadata": {"thread_id": "th-1"}}),
    )  # fmt: skip


@pytest.mark.parametrize("root", ROOTS)
def test_one_run_has_everything(wire: Wire, root: str) -> None:
    tree(wire)
    told = wire.get(f"{root}/runs/{run_id(2)}").json()
    assert (told["prompt_cost"], told["completion_cost"], told["total_cost"]) == ("0.0000001", "0.0000025", "0.0000026")
    assert all(Decimal(told[name]) for name in ("prompt_cost", "completion_cost", "total_cost"))
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (3, 1, 4)
    assert told["prompt_token_details"] == {"cache_read": 2}
    assert told["parent_run_id"] == run_id(1)
    assert told["parent_run_ids"] == [run_id(1)]
    assert (told["status"], told["error"], told["latency"]) == ("success", None, 1.0)
    chain = wire.get(f"{root}/runs/{run_id(1)}").json()
    assert chain["child_run_ids"] == [run_id(2), run_id(3)]
    assert (chain["total_tokens"], chain["total_cost"]) == (4, "0.0000026"), "a root that states none shows its trace's"
    assert (chain["thread_id"], chain["tags"], chain["parent_run_id"]) == ("th-1", ["t1"], None)
    failed, begun = wire.get(f"{root}/runs/{run_id(3)}").json(), wire.get(f"{root}/runs/{run_id(4)}").json()
    assert (failed["status"], failed["error"]) == ("error", "ValueError('x')")
    assert (begun["status"], begun["end_time"], begun["outputs"]) == ("pending", None, None)
    assert wire.get(f"{root}/runs/{uuid4()}").json() == {"detail": "Run not found"}
    assert wire.get(f"{root}/runs/{run_id(2)}?exclude_serialized=true").json()["serialized"] is None
    assert "messages" in wire.get(f"{root}/runs/{run_id(2)}?include_messages=true").json()


def test_every_parameter_narrows(wire: Wire) -> None:
    tree(wire)
    assert names(wire) == ["open", "tool", "model", "chain"]
    assert names(wire, order="asc", limit=2) == ["chain", "model"]
    assert names(wire, is_root=True) == ["open", "chain"]
    assert names(wire, execution_order=1) == ["open", "chain"]
    assert names(wire, is_root=False, trace=run_id(1)) == ["tool", "model"]
    assert names(wire, trace=run_id(2)) == []
    assert names(wire, parent_run=run_id(1), run_type="llm") == ["model"]
    assert names(wire, error=True) == ["tool"]
    assert names(wire, error=False) == ["open", "model", "chain"]
    assert names(wire, id=[run_id(1), run_id(3)], error=True) == ["tool", "chain"], "ids are asked for alone"
    assert names(wire, start_time=at(wire, 58), end_time=at(wire, 57)) == ["tool"], "the last microsecond is included"
    assert names(wire, query="ValueError") == ["tool"]
    assert names(wire, search_filter='eq(name, "open")') == ["open"]
    assert names(wire, trace_filter='has(tags, "t1")', tree_filter="neq(error, null)", is_root=True) == ["chain"]
    assert names(wire, filter='eq(thread_id, "th-1")') == ["open", "chain"]
    assert names(wire, session=[str(UUID(project(wire, "p")))]) == ["open", "tool", "model", "chain"]
    assert names(wire, session=[project(wire, "default")]) == []
    assert len(names(wire, session=[project(wire, "default"), project(wire, "p")])) == 4
    assert wire.post("/runs/query", {"session": [str(uuid4())]}).status_code == 404
    assert len(names(wire, limit=5000)) == 4, "more than a page holds is a full page"
    [told] = query(wire, id=[run_id(1)], select=["tags", "nonsense"])
    assert set(told) == {"id", "name", "run_type", "start_time", "trace_id", "tags"}


def project(wire: Wire, name: str) -> str:
    found = wire.catalog.find_project(wire.catalog.first_org.id, name)
    assert found is not None
    return found.uuid


@pytest.mark.parametrize(
    "body",
    [{"filter": "nonsense("}, {"limit": 0}, {"cursor": "x"}, {"order": "up"}, {"is_root": "yes"}, {"trace": "t"},
     {"execution_order": 2}, {"run_type": "agent"}, {"select": "id"}, {"id": "no"}, {"start_time": "soon"}],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused_and_named(wire: Wire, body: dict[str, Any]) -> None:
    answer = wire.post("/runs/query", body)
    assert answer.status_code == 422, answer.text
    [name] = body
    assert name in answer.json()["detail"][0]["loc"]
    told = wire.post("/runs/query/validate", body).json()
    assert (told["valid"], told["errors"][0]["field"]) == (False, name)
    assert wire.post("/runs/query/validate", {}).json() == {"valid": True, "errors": []}


def test_a_client_loads_the_children_of_a_run(wire: Wire) -> None:
    """As the Python client does it: every run but the root of the trace, put below each other by dotted order."""
    tree(wire)
    for trace_id in plant_foreign(wire):
        [root] = query(wire, trace=trace_id, is_root=True)
        below = query(wire, trace=root["trace_id"], is_root=False, session_id=root["session_id"])
        assert below
        for each in sorted(below, key=lambda run: run["dotted_order"]):
            ancestors = [part.split("Z", 1)[1] for part in each["dotted_order"].split(".")]
            assert ancestors[-1] == each["id"]
            assert ancestors[0] == root["id"]
            assert each["parent_run_id"] is not None
            assert each["parent_run_ids"] == ancestors[:-1]


def plant_foreign(wire: Wire) -> list[str]:
    """The same tree by OTLP, by Respan with ids of its own, and as runs; the ids of the traces as clients know them."""
    start_ns = wire.clock.now_ns() - 40 * SECOND_NS

    def span(span_id: str, parent: str | None, **said: str) -> dict[str, Any]:
        attributes = [{"key": k.replace("__", "."), "value": {"stringValue": v}} for k, v in said.items()]
        return {
            "traceId": OTLP_TRACE, "spanId": span_id, "name": f"otlp {span_id[0]}", "attributes": attributes,
            "startTimeUnixNano": str(start_ns), "endTimeUnixNano": str(start_ns + SECOND_NS),
        } | ({"parentSpanId": parent} if parent else {})  # fmt: skip

    spans = [
        span("a" * 16, None, input__value='{"q": 1}', session__id="th-1", user__id="u1"),
        span("b" * 16, "a" * 16, gen_ai__operation__name="chat", gen_ai__completion="hello"),
        span("c" * 16, "b" * 16),
    ]
    wire.post("/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    child = wire.span("trace_abc", "child", span_parent_id="trace_abc-root", log_type="chat", ago_s=30)
    wire.ingest(wire.span("trace_abc", input="please", output={"text": "yes"}, ago_s=31), child)
    wire.ingest(
        wire.span("trace_abc", "lost", span_parent_id="nowhere", ago_s=29, status_code=500, error_message="bad")
    )
    [respan] = [each for each in query(wire, is_root=True) if each["inputs"] == {"input": "please"}]
    return [str(UUID(OTLP_TRACE)), respan["trace_id"], run_id(1)]


def test_spans_of_other_dialects_are_runs(wire: Wire) -> None:
    _, respan_trace, _ = plant_foreign(wire)[:3]
    root = wire.get(f"/runs/{UUID(OTLP_TRACE)}").json()
    assert (root["name"], root["run_type"], root["inputs"]) == ("otlp a", "chain", {"q": 1})
    assert (root["thread_id"], root["extra"]["metadata"]["user_id"]) == ("th-1", "u1")
    assert root["dotted_order"].endswith(f"Z{UUID(OTLP_TRACE)}")
    assert len(root["child_run_ids"]) == 2
    model = wire.get(f"/runs/{root['child_run_ids'][0]}").json()
    assert (model["run_type"], model["outputs"]) == ("llm", {"output": "hello"})
    whole = wire.get(f"/runs/{respan_trace}").json()
    assert (whole["id"], whole["outputs"], whole["error"]) == (respan_trace, {"text": "yes"}, None)
    [lost] = query(wire, error=True)
    assert (lost["error"], lost["parent_run_ids"]) == ("bad", [respan_trace])
    assert names(wire, trace=respan_trace, run_type="llm") == [child["name"] for child in query(wire, id=[
        each for each in whole["child_run_ids"] if each != lost["id"]])]  # fmt: skip
    # And back: what came as a run is a trace in the other dialect.
    tree(wire)
    assert run_id(1).replace("-", "") in wire.list_ids(wire.window())


def test_a_walk_shows_each_run_once(wire: Wire) -> None:
    send(wire, *(run(number, start_time=at(wire, number % 7 + 1)) for number in range(1, 24)))
    seen: list[str] = []
    cursor: str | None = None
    number = 100
    while True:
        answer = wire.post("/runs/query", {"limit": 5, "cursor": cursor, "session": [project(wire, "p")]}).json()
        seen += [each["id"] for each in answer["runs"]]
        send(wire, run(number, start_time=at(wire, 0.5)), run(number + 1, start_time=at(wire, 4)))
        number += 2
        cursor = answer["cursors"]["next"]
        if cursor is None:
            break
    assert len(set(seen)) == len(seen)
    assert {run_id(each) for each in range(1, 24)} <= set(seen)
    by_id: list[str] = []
    cursor = None
    while not by_id or cursor:
        answer = wire.post("/runs/query", {"id": sorted(seen), "limit": 4, "cursor": cursor}).json()
        by_id += [each["id"] for each in answer["runs"]]
        cursor = answer["cursors"]["next"]
    assert sorted(by_id) == sorted(seen)
    first = wire.post("/runs/query", {"limit": 1}).json()["cursors"]["next"]
    assert wire.post("/runs/query", {"order": "asc", "cursor": first}).status_code == 422


def test_figures_and_groups(wire: Wire) -> None:
    tree(wire)
    told = wire.post("/runs/stats", {"session": [project(wire, "p")]}).json()
    assert (told["run_count"], told["total_tokens"], told["total_cost"]) == (4, 4, "0.0000026")
    assert (told["error_rate"], told["latency_p50"]) == (0.25, 1.0)
    roots = wire.post("/runs/stats", {"is_root": True}).json()
    assert (roots["run_count"], roots["total_tokens"]) == (2, 4), "tokens of the whole traces"
    assert wire.post("/runs/stats", {"id": [run_id(2)], "select": ["run_count"]}).json() == {"run_count": 1}
    by_type = wire.post("/runs/stats", {"group_by": {"attribute": "run_type"}}).json()
    assert {name: each["run_count"] for name, each in by_type.items()} == {"chain": 2, "llm": 1, "tool": 1}
    by_meta = wire.post("/runs/stats", {"group_by": {"attribute": "metadata", "path": "thread_id"}}).json()
    assert by_meta["th-1"]["run_count"] == 2
    by_name = {"attribute": "name", "max_groups": 1}
    assert len(wire.post("/runs/stats", {"group_by": by_name}).json()) == 1
    assert list(wire.post("/runs/stats", {"group_by": {"attribute": "name"}, "groups": ["tool"]}).json()) == ["tool"]
    assert list(wire.post("/runs/stats", {"group_by": {"attribute": "tag"}}).json()) == ["t1"]
    assert wire.post("/runs/stats", {"group_by": {"attribute": "metadata"}}).status_code == 422


def test_feedback_is_told_with_its_run(wire: Wire) -> None:
    tree(wire)
    for number, score in ((2, 1.0), (2, 0.5), (1, 0.0)):
        body = {"run_id": run_id(number), "key": "k", "score": score, "comment": "c"}
        assert wire.post("/feedback", body).status_code == 200
    stats = wire.get(f"/runs/{run_id(2)}").json()["feedback_stats"]
    assert (stats["k"]["n"], stats["k"]["avg"]) == (2, 0.75)
    assert query(wire, id=[run_id(3)])[0]["feedback_stats"] == {}
    assert wire.post("/runs/stats", {"run_type": "llm"}).json()["feedback_stats"]["k"]["n"] == 2
    assert wire.post("/runs/stats", {}).json()["feedback_stats"]["k"]["n"] == 3
    grouped = wire.post("/runs/stats", {"group_by": {"attribute": "run_type"}}).json()
    assert (grouped["llm"]["feedback_stats"]["k"]["n"], grouped["tool"]["feedback_stats"]) == (2, {})


def test_attachments_are_linked(wire: Wire) -> None:
    body, headers = multipart((f"post.{run_id(1)}", run(1)), (f"attachment.{run_id(1)}.img", b"bytes"))
    assert wire.post("/runs/multipart", body, headers=headers).status_code == 202
    [told] = query(wire, id=[run_id(1)], select=["s3_urls"])
    link = told["s3_urls"]["attachment.img"]["presigned_url"]
    assert wire.get(link, key=None).content == b"bytes"
    assert "s3_urls" not in query(wire, id=[run_id(1)])[0]
    assert wire.get(f"/runs/{run_id(1)}").json()["s3_urls"].keys() == {"attachment.img"}


def test_a_key_sees_its_own_projects_and_no_other(wire: Wire) -> None:
    tree(wire)
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    default = wire.catalog.find_project(wire.catalog.first_org.id, "default")
    assert default is not None
    bound = wire.key(KeyScope.READ, project_ids=[default.id])
    for key in (theirs, bound):
        assert wire.get(f"/runs/{run_id(1)}", key=key).status_code == 404
        assert wire.post("/runs/query", {"id": [run_id(1)]}, key=key).json()["runs"] == []
        assert wire.post("/runs/query", {}, key=key).json()["runs"] == []
        assert wire.post("/runs/query", {"session": [project(wire, "p")]}, key=key).status_code == 404
        assert wire.post("/runs/stats", {}, key=key).json()["run_count"] == 0
        assert wire.get(f"/api/v2/runs/{run_id(1)}?project_id={project(wire, 'p')}", key=key).status_code == 404


def test_a_run_whose_client_said_ok_too_early_is_an_error(wire: Wire) -> None:
    """As LangSmith's JavaScript client 0.12.0 sends a run that failed, and one that states its cost, over OTLP."""
    now_ns = wire.clock.now_ns()
    own = [{"key": "langsmith.traceable", "value": {"stringValue": "true"}}]
    usage = {"key": "langsmith.usage_metadata", "value": {"stringValue": '{"input_tokens":5,"total_cost":0.5}'}}
    message = {"key": "exception.message", "value": {"stringValue": "Error: no weather"}}
    spans = [
        {
            "traceId": OTLP_TRACE, "spanId": span_id, "name": name, "status": {"code": 1}, "events": events,
            "attributes": attributes, "startTimeUnixNano": str(now_ns - SECOND_NS), "endTimeUnixNano": str(now_ns),
            **parent,
        }
        for span_id, name, attributes, events, parent in (
            ("a" * 16, "turn", own, [], {}),
            ("b" * 16, "chat", [*own, usage], [], {"parentSpanId": "a" * 16}),
            ("c" * 16, "broken", own, [{"name": "exception", "attributes": [message]}], {"parentSpanId": "a" * 16}),
        )
    ]  # fmt: skip
    sent = wire.post("/otel/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    assert sent.status_code == 200, sent.text
    runs = {each["name"]: each for each in query(wire, trace=str(UUID(OTLP_TRACE)))}
    assert (runs["broken"]["status"], runs["broken"]["error"]) == ("error", "Error: no weather")
    assert (runs["chat"]["status"], runs["chat"]["total_cost"]) == ("success", "0.5")
    assert [each["name"] for each in query(wire, error=True, trace=str(UUID(OTLP_TRACE)))] == ["broken"]
