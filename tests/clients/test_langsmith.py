"""LangSmith's Python client, two releases of it, and what the server holds afterwards by its other APIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clearspan.testing.live import LIVE_KEY, Live

VERSIONS = ("0.15.0", "0.11.1")
Program = Callable[..., dict[str, Any]]

LEAF = ["async_leaf", "chain", "success", []]
SQUARE = ["in_thread", "chain", "success", []]
TREES = {
    "shop": [
        "shop",
        "chain",
        "success",
        [["broken", "tool", "error", []], ["find", "retriever", "success", []], ["model", "chat", "success", []]],
    ],
    "boom": ["boom", "chain", "error", []],
    "async_root": ["async_root", "chain", "success", [LEAF] * 4],
    "threaded": ["threaded", "chain", "success", [SQUARE] * 4],
    "stream": ["stream", "chat", "success", []],
    "async_stream": ["async_stream", "chain", "success", []],
    "with_picture": ["with_picture", "chain", "success", []],
    "late": ["late", "chain", "success", [["late_child", "tool", "success", []]]],
}
"""What each part of run_langsmith_trace.py is to be, as [name, kind, status, children]."""
RUNS = sum(5 if name in ("async_root", "threaded") else 4 if name == "shop" else 1 for name in TREES) + 1
UNPACKED = "POST /runs/multipart - 202"
SENT = {
    "plain": {"GET /info - 200", UNPACKED},
    "zstd": {"GET /info - 200", "POST /runs/multipart zstd 202"},
    "batch": {"POST /runs/batch - 202"},
    "single": {"GET /info - 200", "PATCH /runs - 202", "POST /runs - 202"},
}
"""The requests of each mode: method, path, Content-Encoding, status. That a mode is what it says it is."""


def settings(live: Live, root: str = "", **more: str) -> dict[str, str]:
    return {"LANGSMITH_ENDPOINT": live.url + root, "LANGSMITH_API_KEY": LIVE_KEY, **more}


def shape(node: dict[str, Any]) -> list[Any]:
    children = sorted((shape(each) for each in node["children"]), key=str)
    return [node["span_name"], node["log_type"], node["status"], children]


def check_traces(live: Live, case: str) -> dict[str, dict[str, Any]]:
    """Every trace of a case is whole, read through Respan's API; the traces by name."""
    found = {each["name"]: live.trace(each["id"]) for each in live.traces(metadata__case={"value": [case]})}
    assert {name: [shape(root) for root in each["span_tree"]] for name, each in found.items()} == {
        name: [tree] for name, tree in TREES.items()
    }
    shop = found["shop"]
    assert (shop["customer_identifier"], shop["model"], shop["metadata"]["plan"]) == ("u-1", "gpt-4o-mini", "pro")
    assert (shop["total_prompt_tokens"], shop["total_completion_tokens"], shop["total_tokens"]) == (11, 3, 14)
    assert (shop["input"], shop["output"]) == ('{"question":"weather?"}', '{"output":"21 degrees"}')
    assert found["stream"]["output"] == '{"output":"token0 token1 token2 "}'
    assert found["async_stream"]["output"] == '{"text":"t0t1t2"}'
    assert found["late"]["output"] == '{"a":"late!"}'
    assert found["late"]["metadata"]["added"] == "later"
    assert found["late"]["span_tree"][0]["children"][0]["output"] == '{"n":2}'
    return found


def check_counts(live: Live, traces: dict[str, dict[str, Any]], project: str, attachments: int) -> None:
    """What a deletion of these traces would reach, by the native API."""
    body = {"trace_ids": [each["id"] for each in traces.values()]}
    preview = live.http.post("/v1/deletions/preview", json=body).json()
    assert preview["by_project"] == {project: len(TREES)}
    planned = {name: preview["counts"][name]["planned"] for name in ("span", "attachment")}
    assert planned == {"span": RUNS, "attachment": attachments}


@pytest.mark.parametrize("version", VERSIONS)
def test_runs_arrive_whole_in_every_way_of_sending(shared_live: Live, run_client: Program, version: str) -> None:
    live, project = shared_live, f"trace-{version}"
    modes = ("plain", "zstd", "batch", "single")
    environment = settings(live, MODES=",".join(modes), PROJECT=project)
    seen = run_client(f"langsmith-{version}", "run_langsmith_trace.py", **environment)
    for mode in modes:
        # The first runs may leave uncompressed: this client's senders start one after the other.
        assert set(seen[mode]["sent"]) - ({UNPACKED} if mode == "zstd" else set()) == SENT[mode]
        traces = check_traces(live, f"{project}-{mode}")
        ids = {name: each.replace("-", "") for name, each in seen[mode]["ids"].items()}
        assert {name: each["id"] for name, each in traces.items()} == ids
        # Costs that a client states win over prices. This client leaves attachments out of /runs/batch, and says so.
        assert traces["shop"]["total_cost"] == pytest.approx(0.0017)
        check_counts(live, traces, f"{project}-{mode}", attachments=0 if mode == "batch" else 2)


@pytest.mark.parametrize(("version", "root"), [(VERSIONS[0], ""), (VERSIONS[1], "/api/v1")])
def test_runs_arrive_as_otlp(shared_live: Live, run_client: Program, version: str, root: str) -> None:
    live, project = shared_live, f"trace-{version}"
    environment = settings(live, root, MODES="otel", PROJECT=project, LANGSMITH_TRACING_MODE="otel")
    seen = run_client(f"langsmith-{version}", "run_langsmith_trace.py", **environment)
    assert seen["otel"]["sent"] == []  # it has an exporter of its own
    traces = check_traces(live, f"{project}-otel")
    # This client puts no costs into OTLP: these are of the price table.
    assert traces["shop"]["total_cost"] == pytest.approx(7 * 0.15e-6 + 4 * 0.075e-6 + 3 * 0.6e-6)
    check_counts(live, traces, f"{project}-otel", attachments=0)
