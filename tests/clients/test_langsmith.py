"""LangSmith's clients for Python and JavaScript, and what the server holds afterwards by its other APIs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearspan.testing.live import LIVE_KEY, Live

HERE = Path(__file__).resolve().parent
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
INFO = "GET /info - 200"
SENT = {
    "plain": {UNPACKED},
    "zstd": {"POST /runs/multipart zstd 202"},
    "batch": {"POST /runs/batch - 202"},
    "single": {"PATCH /runs - 202", "POST /runs - 202"},
}
"""The writes of each mode: method, path, Content-Encoding, status. That a mode is what it says it is."""


def settings(live: Live, root: str = "", **more: str) -> dict[str, str]:
    return {"LANGSMITH_ENDPOINT": live.url + root, "LANGSMITH_API_KEY": LIVE_KEY, **more}


def node_modules() -> Path:
    """Where the locked JavaScript packages are; they are installed first if they are not."""
    done = subprocess.run([HERE.parent.parent / "tools" / "node.sh"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip())


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
        # The first runs may leave uncompressed: this client's senders start one after the other. One of them may have
        # asked for /info before the program could listen.
        assert set(seen[mode]["sent"]) - {INFO} - ({UNPACKED} if mode == "zstd" else set()) == SENT[mode]
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
    assert traces["shop"]["total_cost"] == pytest.approx(0.0017)  # what the run states, not what a price list says
    check_counts(live, traces, f"{project}-otel", attachments=0)


EVALUATED = {
    "datasets": {
        "has": [True, False], "read": True, "by_metadata": ["{project}"], "counted": [["{project}", 3, "numbers"]],
        "taken": True, "unknown": True,
    },
    "examples": {
        "all": ["one", "three", "two"],
        "renamed": ["three", "two", "uno"],
        "limited": 2,
        "splits": [["three", "two"], ["one", "three"], ["one"]],
        "by_metadata": ["two"],
        "filtered": ["one", "three"],
        "as_of_tag": ["one", "three", "two"],
        "by_id": [True],
        "split_names": ["held", "long", "test", "train"],
        "read": {"n": 0, "dataset_split": ["train", "held"]},
        "versions": 4,
        "modified": True,
    },
    "attachments": {"front": True, "note": True, "count": 2, "gone": True},
    "shown": {
        "good": {
            "runs": {"one": 2, "two": 2, "three": 2}, "errors": 0, "answers": ["ONE", "THREE", "TWO"], "count": 6,
            "correct": 1.0, "summary": 6.0, "listed": True,
        },
        "bad": {
            "runs": {"one": 1, "two": 1, "three": 1}, "errors": 1, "answers": ["", "?"], "count": 3,
            "correct": 0.0, "summary": 3.0, "listed": True,
        },
        "slow": {
            "runs": {"one": 1, "two": 1, "three": 1}, "errors": 0, "answers": ["ONE", "THREE", "TWO"], "count": 3,
            "correct": 1.0, "summary": 3.0, "listed": True,
        },
        "sessions": 3,
        "version": True,
    },
    "v2": [3, [3, 3, 3], ["#"]],
    "respan": [["completed", 6, 6], ["completed", 3, 0], ["completed", 3, 3]],
    "removed": {"left": 2, "dataset": False, "example": True, "experiments": [False, True]},
}  # fmt: skip
"""What run_langsmith_evaluate.py sees."""


@pytest.mark.parametrize(("version", "root"), [(VERSIONS[0], ""), (VERSIONS[1], "/api/v1")])
def test_datasets_examples_and_evaluate(shared_live: Live, run_client: Program, version: str, root: str) -> None:
    live, project = shared_live, f"evaluate-{version}"
    environment = settings(live, root, PROJECT=project)
    seen = run_client(f"langsmith-{version}", "run_langsmith_evaluate.py", **environment)
    assert seen == json.loads(json.dumps(EVALUATED).replace("{project}", project))


RUNS_READ = {
    "all": [9, ["broken", "model", "turn"]],
    "paged": [7, ["broken", "model", "turn"]],
    "roots": [3, ["turn"]],
    "errors": [3, ["broken"]],
    "llm": [3, ["model"]],
    "by_metadata": [3, ["broken", "model", "turn"]],
    "by_root": [1, ["broken"]],
    "by_tree": [3, ["turn"]],
    "searched": [2, ["model", "turn"]],
    "of_trace": ["turn", "model", "broken"],
    "by_id": True,
    "read": ["turn", "chain", "success", "question 0", {"output": "sorry"}, ["tag0"]],
    "children": [["model", "success", False], ["broken", "error", True]],
    "tokens": [14, "0.0017"],
    "attachment": ["image/png", True],
    "unknown": True,
    "stats": {"run_count": 9, "total_tokens": 42},
    "url": True,
}


@pytest.mark.parametrize(("version", "root"), [(VERSIONS[0], "/api/v1"), (VERSIONS[1], "")])
def test_reads_feedback_shares_threads_and_projects(
    shared_live: Live, run_client: Program, version: str, root: str
) -> None:
    live, project = shared_live, f"read-{version}"
    seen = run_client(f"langsmith-{version}", "run_langsmith_read.py", **settings(live, root, PROJECT=project))
    assert seen["runs"] == RUNS_READ
    said, shared, second = seen["feedback"], seen["sharing"], seen["v2"]
    ids, feedback_ids, tokens = seen["ids"], said.pop("ids"), [shared.pop("token"), second.pop("token")]
    assert said == {
        "listed": 2,
        "changed": [0.9, "better", "so-so"],
        "queued": True,
        "stats": 1,
        "filtered": [2, ["turn"]],
        "gone": True,
    }
    names = ["broken", "model", "turn"]
    assert shared == {"is_shared": True, "shared": ["turn", True], "runs": names, "still_shared": False}
    turns = ["question 0", "question 1", "question 2"]
    assert seen["threads"] == {"turns": turns, "listed": [True, 3, 3]}
    assert seen["projects"] == {
        "conflict": True,
        "upsert": True,
        "changed": [True, "another text"],
        "listed": [f"{project}-made"],
        "stats": [3, 42],
        "has": [True, False],
        "deleted": True,
    }
    assert second == {
        "runs": [9, names],
        "read": ["turn", "CHAIN", {"output": "sorry"}],
        "traces": 3,
        "in_trace": names,
        "threads": [[True, 3]],
        "turns": 3,
        "public": names,
    }
    check_read_elsewhere(live, project, [each.replace("-", "") for each in ids], feedback_ids)
    assert [live.http.get(f"/public/{each}/run").status_code for each in tokens] == [404, 404]


def check_read_elsewhere(live: Live, project: str, ids: list[str], feedback_ids: list[str]) -> None:
    """The same, as the other dialects tell it."""
    thread = {each["id"]: each for each in live.traces(session_identifier={"value": [f"{project}-thread"]})}
    assert [thread[each]["customer_identifier"] for each in ids] == ["u-0", "u-1", "u-2"]
    preview = live.http.post("/v1/deletions/preview", json={"trace_ids": ids}).json()
    planned = {name: preview["counts"][name]["planned"] for name in ("span", "attachment", "annotation")}
    assert planned == {"span": 9, "attachment": 3, "annotation": 2}
    assert preview["by_project"] == {project: 3}
    assert f"{project}-made" not in preview["projects"]
    query = {"span_ids": ids, "limit": 10}
    told = live.http.get(f"/v1/projects/{project}/span_annotations", params=query).json()["data"]
    kept = {each["identifier"]: [each["span_id"], each["result"]["score"]] for each in told}
    first, queued, _ = (each.replace("-", "") for each in feedback_ids)
    assert kept == {first: [ids[0], 0.9], queued: [ids[1], 1.0]}


def run_javascript(live: Live, name: str, project: str) -> Any:
    """A JavaScript program; what it printed last, as JSON."""
    home = node_modules()
    environment = settings(live, PROJECT=project, LANGSMITH_TRACING="true", NODE_HOME=str(home))
    done = subprocess.run(
        ["node", "--no-deprecation", str(HERE / "javascript" / name)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_javascript_evaluates(shared_live: Live) -> None:
    assert run_javascript(shared_live, "run_langsmith_evaluate.mjs", "javascript-evaluate") == {
        "examples": [
            ["one", "ONE", {"dataset_split": ["test"]}, []],
            ["two", "?", {"dataset_split": ["base"]}, ["note"]],
            ["three", "THREE", {"n": 3, "dataset_split": ["base"]}, []],
        ],
        "runs": 6,
        "correct": [6, pytest.approx(2 / 3)],
        "isOfDataset": True,
        "splits": ["base", "test"],
        "left": 2,
        "isGone": True,
    }


def test_javascript(shared_live: Live) -> None:
    live, project = shared_live, "javascript"
    seen = run_javascript(live, "run_langsmith.mjs", project)
    token, feedback = seen["sharing"].pop("token"), seen.pop("feedback")
    children = ["broken", "model", "model", "stream"]
    assert seen["runs"] == {
        "all": 12,
        "errors": ["broken", "broken"],
        "by_metadata": ["turn"],
        "by_tree": ["late"],
        "read": ["turn", "chain", "success", {"input": "question 0"}, {"outputs": "sorry"}, ["tag0"]],
        "children": children,
        "unknown": True,
        "stats": 12,
    }
    assert [each[1:] for each in feedback] == [["helpful", 0.9]]
    assert seen["sharing"] == {"shared": sorted([*children, "turn"]), "still": None}
    assert seen["turns"] == [{"input": "question 0"}, {"input": "question 1"}]
    assert seen["threads"] == [[f"{project}-thread", 2]]
    assert seen["projects"] == {"conflict": True, "has": True, "read": "a project", "deleted": True}
    assert seen["second"] == {"runs": 12, "traces": 3, "threads": [[f"{project}-thread", 2]]}
    ids = [each.replace("-", "") for each in (*seen["ids"], seen["late"])]
    traces = {each["id"]: live.trace(each["id"]) for each in live.traces(metadata__case={"value": [project]})}
    leaves = [["broken", "tool", "error", []], *[["model", "chat", "success", []]] * 2]
    turn = ["turn", "chain", "success", [*leaves, ["stream", "chain", "success", []]]]
    late = ["late", "chain", "success", [["late_child", "tool", "success", []]]]
    assert {each: [shape(root) for root in traces[each]["span_tree"]] for each in traces} == {
        ids[0]: [turn],
        ids[1]: [turn],
        ids[2]: [late],
    }
    assert traces[ids[0]]["total_cost"] == pytest.approx(2 * 0.0017)
    assert traces[ids[0]]["customer_identifier"] == "u-0"
    assert traces[ids[2]]["output"] == '{"a":"late!"}'
    preview = live.http.post("/v1/deletions/preview", json={"trace_ids": ids}).json()
    planned = {name: preview["counts"][name]["planned"] for name in ("span", "attachment", "annotation")}
    assert planned == {"span": 12, "attachment": 1, "annotation": 1}
    assert preview["by_project"] == {project: 3}
    assert live.http.get(f"/public/{token}/run").status_code == 404
