"""The recorded reads of LangSmith's clients, sent again: the answers have the shape that the clients took."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from langsmith_requests import SENT_ANEW

from clearspan.testing.clock import FixedClock
from clearspan.testing.wire import Wire

RECORDED = Path(__file__).parent.parent / "fixtures" / "langsmith"
RECORDED_AT_NS = 1_795_300_500_000_000_000
MASKED = {"extra", "inputs", "outputs", "feedback_stats", "s3_urls", "events", "serialized"}
"""Values that are the client's own, or maps of names."""


def is_read(said: dict[str, Any]) -> bool:
    path = said["path"].split("?")[0].removeprefix("/api/v1").removeprefix("/api")
    is_query = path in ("/runs/query", "/runs/stats") or path.startswith(("/v2/runs", "/v2/traces", "/v2/threads"))
    return is_query or (said["method"] == "GET" and path.startswith("/runs/"))


def shape(value: Any, name: str = "") -> Any:
    """Types by key; null fits anything."""
    if value is None or name in MASKED:
        return None
    if name.endswith("_time"):
        return "time"  # the recorder gave numbers back as they were sent
    if isinstance(value, dict):
        return {key: shape(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def misfits(told: Any, wanted: Any, path: str = "") -> list[str]:
    """Where an answer lacks a key that was asked for, or has a value of another type."""
    if told is None or wanted is None:
        return []
    if isinstance(told, dict) and isinstance(wanted, dict):
        found = []
        for key, each in wanted.items():
            found += [f"{path}/{key}"] if key not in told else misfits(told[key], each, f"{path}/{key}")
        return found
    if isinstance(told, list) and isinstance(wanted, list):
        return misfits(told[0], wanted[0], f"{path}[]") if told and wanted else []
    return [] if told == wanted else [f"{path}: {told} instead of {wanted}"]


def asked_for(said: dict[str, Any]) -> Any:
    """The recorder's answer, of which runs keep what the request selects: it told more than it was asked."""
    answer, body = said["recorder_answer"], said.get("body") or {}
    selects = body.get("selects") or re.findall(r"selects=(\w+)", said["path"]) or ["ID"]
    names = body.get("select") or [name.lower() for name in selects]
    for listed in ("runs", "items"):
        if listed in answer:
            runs = [{name: run[name] for name in names if name in run} for run in answer[listed]]
            return answer | {listed: runs}
    if "/v2/" in said["path"]:
        kept = names if said["answered"] == 200 else ["detail", "title", "status"]
        return {key: value for key, value in answer.items() if key in kept}
    # What the server is free to repeat of what was sent, and does not.
    return {key: value for key, value in answer.items() if key not in ("child_runs",)}


@pytest.mark.parametrize("folder", ["reads", "js"])
def test_recorded_reads_get_answers_of_the_same_shape(wire: Wire, folder: str) -> None:
    clock = wire.clock
    assert isinstance(clock, FixedClock)
    clock.advance((RECORDED_AT_NS - clock.now_ns()) / 1e9)
    ours: str | None = None
    theirs = ""
    reads = 0
    for line in (RECORDED / folder / "requests.jsonl").read_text().strip().split("\n"):
        said = json.loads(line)
        if said["path"].startswith("/_att/"):
            continue
        path, body = said["path"], None
        if said.get("body_file"):
            body = (RECORDED / folder / said["body_file"]).read_bytes()
        elif said["body"] is not None:
            told = {key: value for key, value in said["body"].items() if key != "cursor"}
            body = json.dumps(told).replace(theirs or "-", ours or "-").encode()
        if ours is not None:
            path = path.replace(theirs, ours)
        headers = {key: value for key, value in said["headers"].items() if key.lower() not in SENT_ANEW}
        answer = wire.send(said["method"], path, body, headers=headers)
        if path.startswith("/sessions?") and ours is None:
            ours, theirs = answer.json()[0]["id"], said["recorder_answer"][0]["id"]
        if not is_read(said):
            continue
        reads += 1
        assert answer.status_code == said["answered"], (said["n"], answer.text)
        wanted = shape(asked_for(said))
        assert misfits(shape(answer.json()), wanted) == [], (said["n"], path)
        if said["answered"] == 404 and "/v2/" in path:
            assert answer.headers["content-type"] == "application/problem+json"
    assert reads >= (20 if folder == "reads" else 3)


def test_recorded_runs_are_there_as_they_were_sent(wire: Wire) -> None:
    body = (RECORDED / "reads" / "002.body.bin").read_bytes()
    lines = (RECORDED / "reads" / "requests.jsonl").read_text().strip().split("\n")
    sent = json.loads(lines[1])
    headers = {key: value for key, value in sent["headers"].items() if key.lower() not in SENT_ANEW}
    assert wire.post("/runs/multipart", body, headers=headers).status_code == 202
    runs = [run for line in lines if (said := json.loads(line))["path"] == "/runs/query"
            for run in said["recorder_answer"]["runs"]]  # fmt: skip
    assert len({run["id"] for run in runs}) >= 5
    for run in runs:
        told = wire.get(f"/runs/{run['id']}").json()
        kept = ("name", "run_type", "start_time", "end_time", "inputs", "outputs", "trace_id", "dotted_order", "error",
                "tags", "events", "extra", "status")  # fmt: skip
        for name in kept:
            assert told[name] == run.get(name) or not run.get(name), (run["name"], name)
        assert told.get("parent_run_id") == run.get("parent_run_id")
    [attached] = [run for run in runs if run.get("s3_urls")][:1] or [None]
    if attached is not None:
        told = wire.get(f"/runs/{attached['id']}").json()
        assert told["s3_urls"].keys() == attached["s3_urls"].keys()
        for link in told["s3_urls"].values():
            assert wire.get(link["presigned_url"], key=None).status_code == 200
