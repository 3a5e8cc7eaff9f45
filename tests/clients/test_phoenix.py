"""Phoenix's Python client and `phoenix.otel`, and what the server holds afterwards by its other APIs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clearspan.testing.live import LIVE_KEY, Live, start_server, stop_server

CLIENT = "phoenix-client-3.5.0"
ANNOTATIONS = 7 + 1 + 3 + 3 + 3  # of spans, a note, of documents, of traces, of sessions
Program = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with a port for gRPC, for the tests of this module."""
    live = start_server(tmp_path_factory.mktemp("phoenix") / "data", "--grpc-port", "0")
    try:
        yield live
    finally:
        stop_server(live)


def settings(live: Live, project: str, **more: str) -> dict[str, str]:
    return {"PHOENIX_COLLECTOR_ENDPOINT": live.url, "PHOENIX_API_KEY": LIVE_KEY, "PROJECT": project, **more}


def feedback_of(live: Live, run_id: str) -> list[list[Any]]:
    """Annotations as LangSmith's dialect tells them: name, score."""
    told = live.http.get("/feedback", params={"run": run_id, "limit": 100}).json()
    return sorted([each["key"], each["score"]] for each in told)


EVERY_SPAN = [[name, number] for name in ("call", "turn") for number in range(3)]
FILLED = {
    "spans": {
        "logged": [{"total_received": 4, "total_queued": 4}, {"total_received": 2, "total_queued": 2}, [1, 0]],
        "all": EVERY_SPAN,
        "two": 2,
        "window": [["call", 1], ["turn", 1]],
        "trace": [["call", 1], ["turn", 1]],
        "span": [["call", 0], ["turn", 2]],
        "roots": EVERY_SPAN[3:],
        "name": EVERY_SPAN[:3],
        "kind": EVERY_SPAN[:3],
        "status": [["call", 2]],
        "attribute": [["call", 1], ["turn", 1]],
        "frame": [6, ["call", "turn"], "context.span_id"],
        "roots_frame": 3,
        "asked": [["llm.model_name", "name"], ["gpt-4o-mini"], 3],
        "exploded": [["context.span_id", "document_position"], ["rain"] * 3],
        "joined": ["context.trace_id", ["rain"] * 3],
        "renamed": [["title"], True],
        "absent": 404,
    },
    "projects": {
        "made": ["shop-made", "d", "e", True],
        "listed": ["shop-made"],
        "taken": 409,
        "absent": 404,
        "by_id": "shop",
    },
    "annotations": {
        "same": True,
        "many": [3, 2, True],
        "documents": [1, 1, 1],
        "found": [["framed", 0], ["framed", 1], *(["many", each] for each in range(3)), ["one", 0], ["queued", 1]],
        "replaced": ["bad"],
        "noted": ["look at this"],
        "table": 7,
        "traces": 3,
        "sessions": 3,
        "absent": 404,
    },
}
READ = {
    "async": [2, 2, 2, 3, 2],
    "helpers": {
        "documents": [["weather?"] * 2, ["rain", "sun"], [0.5, 1.5]],
        "questions": [["question 0"], ["answer 0"], ["rain\n\nsun"]],
    },
    "traces": {
        "all": [2, 1, 0],
        "oldest": [0, 1],
        "session": [1, 0],
        "error": [2],
        "slow": [],
        "with_spans": ["call", "turn"],
        "tokens": 14,
    },
    "sessions": {
        "listed": ["shop-session-0", "shop-session-1"],
        "got": [2, 14],
        "turns": [["question 0", "answer 0"], ["question 1", "answer 1"]],
        "frame": 2,
        "left": ["shop-session-1"],
        "gone": [0, 404],
    },
    "deleting_one_span": None,
}
"""What each part of run_phoenix.py is to tell; spans as name and number of their trace."""


def test_every_method_of_the_client(server: Live, run_client: Program) -> None:
    seen = run_client(CLIENT, "run_phoenix.py", **settings(server, "shop", PART="fill"))
    traces = seen.pop("traces")
    assert seen == FILLED
    told = [server.trace(each) for each in traces]
    assert [(each["name"], each["span_count"], each["error_count"], each["total_tokens"]) for each in told] == [
        ("turn", 2, 0, 14), ("turn", 2, 0, 14), ("turn", 2, 1, 14),
    ]  # fmt: skip
    assert [each["customer_identifier"] for each in told] == ["user-0", "user-1", "user-2"]
    assert [(each["input"], each["output"]) for each in told] == [(f"question {n}", f"answer {n}") for n in range(3)]
    preview = server.http.post("/v1/deletions/preview", json={"trace_ids": traces}).json()
    planned = {name: preview["counts"][name]["planned"] for name in ("span", "annotation")}
    assert (preview["by_project"], planned) == ({"shop": 3}, {"span": 6, "annotation": ANNOTATIONS})

    assert run_client(CLIENT, "run_phoenix.py", **settings(server, "shop", PART="read")) == READ
    assert [server.http.get(f"/api/traces/{each}/").status_code for each in traces] == [404] * 3


PROTOCOLS = {
    "grpc": {},
    "grpc in batches": {"BATCH": "1"},
    "http": {"PROTOCOL": "http/protobuf"},
    "http in batches": {"PROTOCOL": "http/protobuf", "BATCH": "1"},
}


@pytest.mark.parametrize("way", PROTOCOLS)
def test_register_sends_traces(server: Live, run_client: Program, way: str) -> None:
    assert server.grpc is not None
    project, port = f"otel {way}", server.grpc.rpartition(":")[2]
    environment = settings(server, project, PHOENIX_GRPC_PORT=port, **PROTOCOLS[way])
    seen = run_client(CLIENT, "run_phoenix_otel.py", **environment)
    assert seen["flushed"] is True
    trace = server.trace(seen["trace_id"])
    assert (trace["name"], trace["span_count"], trace["error_count"]) == ("turn", 2, 0)
    assert (trace["customer_identifier"], trace["session_identifier"]) == ("user-1", "otel-session")
    assert (trace["input"], trace["output"], trace["total_tokens"]) == ("weather?", "21 degrees", 14)
    preview = server.http.post("/v1/deletions/preview", json={"trace_ids": [seen["trace_id"]]}).json()
    assert preview["by_project"] == {project: 1}


def delete_from(live: Live, dialect: str, trace_id: str, project_id: str) -> str:
    """Delete one trace as the users of a dialect do; the deletion's id."""
    if dialect == "langsmith":
        answer = live.http.post("/runs/delete", json={"session_id": project_id, "trace_ids": [trace_id]})
    else:
        path = f"/v1/traces/{trace_id}" if dialect == "phoenix" else f"/api/traces/{trace_id}/"
        answer = live.http.delete(path)
    assert answer.is_success, answer.text
    deletion_id: str = answer.headers["Clearspan-Deletion-Id"]
    return deletion_id


@pytest.mark.parametrize("dialect", ["phoenix", "langsmith", "respan"])
def test_a_trace_of_phoenix_in_every_dialect(server: Live, run_client: Program, dialect: str) -> None:
    """Listed by the other two, annotated from two, deleted by any with its annotations, under one receipt."""
    name = f"crossing-{dialect}"
    seen = run_client(CLIENT, "run_phoenix_otel.py", **settings(server, name, PROTOCOL="http/protobuf"))
    trace_id, span_id = seen["trace_id"], seen["span_id"]
    assert trace_id in [each["id"] for each in server.traces(name={"value": ["turn"]})]
    [project] = [each for each in server.http.get("/sessions").json() if each["name"] == name]
    query = {"session": [project["id"]], "is_root": True}
    [run] = server.http.post("/runs/query", json=query).json()["runs"]
    assert (run["name"], run["trace_id"].replace("-", "")) == ("turn", trace_id)
    by_phoenix = {"span_id": span_id, "name": "quality", "annotator_kind": "HUMAN", "result": {"score": 0.5}}
    answer = server.http.post("/v1/span_annotations?sync=true", json={"data": [by_phoenix]})
    assert answer.status_code == 200
    by_langsmith = {"run_id": run["id"], "trace_id": run["trace_id"], "key": "helpful", "score": 0.9}
    assert server.http.post("/feedback", json=by_langsmith).status_code == 200
    assert feedback_of(server, run["id"]) == [["helpful", 0.9], ["quality", 0.5]]
    listed = server.http.get(f"/v1/projects/{name}/span_annotations", params={"span_ids": span_id}).json()["data"]
    assert [each["name"] for each in listed] == ["helpful", "quality"]  # the newest first

    deletion_id = delete_from(server, dialect, trace_id, project["id"])
    receipt = server.http.get(f"/v1/deletions/{deletion_id}/receipt").json()["payload"]
    assert receipt["dialect"] == dialect
    removed = {name: list(receipt["targets"][name].values()) for name in ("trace", "span", "annotation")}
    assert removed == {"trace": [1, 1, 0], "span": [2, 2, 0], "annotation": [2, 2, 0]}
    assert server.http.get(f"/api/traces/{trace_id}/").status_code == 404
    assert server.http.get(f"/runs/{run['id']}").status_code == 404
    assert feedback_of(server, run["id"]) == []
