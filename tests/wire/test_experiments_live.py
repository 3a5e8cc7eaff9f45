"""The whole way on a server of its own, with the tau-bench dialogues: traces → dataset → experiments → scores →
comparison → deletion → receipt, and no marked word left in any file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from clearspan.demo.dataset import demo_requests
from clearspan.testing.live import LIVE_KEY, Live, start_server, stop_server
from clearspan.testing.llm_stub import LlmStub
from clearspan.testing.needles import needle_of, scan_folder, scan_values

DIALOGUES: Final = 88
PERSON: Final = "wei@example.com"
FOR_EVER: Final = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2030-01-01T00:00:00Z"}
WAIT_S: Final = 60
EXPERIMENTS: Final = "/api/v2/experiments"

Json = dict[str, Any]


class Desk:
    """The server, and what was planted in it."""

    def __init__(self, live: Live, data: Path) -> None:
        self.live, self.data = live, data
        self.needles: dict[str, str] = {}  # trace id → the word that its first message was given
        self.people: dict[str, str] = {}  # trace id → whose it is

    def call(self, method: str, path: str, body: Json | None = None, **rest: Any) -> Any:
        answer = self.live.http.request(method, path, json=body, **rest)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else answer

    def plant(self) -> None:
        """Send the dialogues, each with a word of its own at the end of what the customer says first."""
        for request in demo_requests():
            if request.source != "real-traces/tau-bench":
                continue
            body = json.loads(request.body)
            for of_resource in body["resourceSpans"]:
                for of_scope in of_resource["scopeSpans"]:
                    for span in of_scope["spans"]:
                        self._mark(span)
            self.call("POST", "/v1/traces", body)

    def _mark(self, span: Json) -> None:
        said = {each["key"]: each["value"] for each in span["attributes"]}
        if span.get("parentSpanId") or "gen_ai.input.messages" not in said:
            return
        trace_id = span["traceId"]
        self.needles[trace_id] = needle_of(bytes.fromhex(trace_id))
        self.people[trace_id] = said["user.id"]["stringValue"]
        messages = json.loads(said["gen_ai.input.messages"]["stringValue"])
        messages[0]["parts"][0]["content"] += f" My case is {self.needles[trace_id]}."
        said["gen_ai.input.messages"]["stringValue"] = json.dumps(messages)

    def make(self, name: str, dataset_id: str, evaluators: list[str], *workflow: str) -> str:
        steps = [{"type": each, "config": CONFIGS.get(each, {})} for each in workflow]
        body = {"name": name, "dataset_id": dataset_id, "workflow": steps, "evaluator_slugs": evaluators}
        made: str = self.call("POST", f"{EXPERIMENTS}/", body)["id"]
        return made

    def until(self, experiment: str, **wanted: int) -> Json:
        """The progress, once its figures are these."""
        ends_at = time.monotonic() + WAIT_S
        while True:
            told: Json = self.call("GET", f"{EXPERIMENTS}/{experiment}/progress/")
            if all(told[name] == count for name, count in wanted.items()):
                return told
            assert time.monotonic() < ends_at, told
            time.sleep(0.1)

    def results(self, experiment: str, filters: Json | None = None) -> Json:
        page: Json = self.call(
            "POST", f"{EXPERIMENTS}/{experiment}/logs/list/", {"filters": filters or {}}, params={"page_size": 100}
        )
        assert page["count"] == len(page["results"])
        return page

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "clearspan.cli.main", *words], capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def left(self) -> set[str]:
        """The planted words that some file holds, as its bytes lie or in any value, unpacked."""
        words = set(self.needles.values())
        hits = [*scan_folder(self.data, words), *scan_values(self.data / "traces.db", words)]
        return {hit.needle for hit in hits}

    def verified(self, headers: Any, tmp: Path) -> Json:
        """The deletion that an answer names, once it is proven; its receipt is checked without the server."""
        deletion_id = headers["Clearspan-Deletion-Id"]
        ends_at = time.monotonic() + WAIT_S
        while (told := self.call("GET", f"/v1/deletions/{deletion_id}"))["state"] != "verified":
            assert time.monotonic() < ends_at, told
            time.sleep(0.1)
        receipt, key = tmp / f"{deletion_id}.json", tmp / "key.json"
        receipt.write_text(json.dumps(self.call("GET", f"/v1/deletions/{deletion_id}/receipt")))
        key.write_text(json.dumps(self.call("GET", "/v1/ledger/keys")))
        self.command("verify", str(receipt), "--key", str(key))
        assert isinstance(told, dict)
        return told


CONFIGS: Final[dict[str, Json]] = {
    "completion": {"model": "gpt-4o-mini", "template": "Answer the customer: {{input}}"},
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with LlmStub() as stub:
        live = start_server(
            tmp_path / "data",
            CLEARSPAN_LLM_BASE_URL=stub.url,
            CLEARSPAN_LLM_API_KEY="sk-test",
            CLEARSPAN_LLM_ALLOW_PRIVATE="true",
            CLEARSPAN_LOG_LEVEL="error",
        )
        yield Desk(live, tmp_path / "data")
        stop_server(live)


def make_dataset(desk: Desk) -> str:
    """A dataset of the traces, and two evaluators."""
    window = {**FOR_EVER, "filters": {"metadata__source": {"operator": "", "value": ["tau-bench"]}}}
    dataset = desk.call("POST", "/api/datasets/", {"name": "support"})["id"]
    desk.call("POST", f"/api/datasets/{dataset}/logs/import/", window)
    assert desk.call("POST", f"/api/datasets/{dataset}/logs/list/", {})["count"] == DIALOGUES
    for slug, eval_class, config in (
        ("same", "exact", {}),
        ("close", "similarity", {"method": "token_set"}),
    ):
        body = {
            "name": slug,
            "evaluator_slug": slug,
            "type": "code",
            "eval_class": eval_class,
            "configurations": config,
        }
        desk.call("POST", "/api/evaluators/", body | ({"score_value_type": "numerical"} if slug == "close" else {}))
    assert isinstance(dataset, str)
    return dataset


def run_experiments(desk: Desk, dataset: str) -> tuple[str, str, str]:
    """One experiment repeats what was said, one asks a model, one waits for a person."""
    repeated = desk.make("repeated", dataset, ["same", "close"], "duplicate")
    asked = desk.make("asked", dataset, ["same", "close"], "completion")
    waited = desk.make("waited", dataset, ["same", "close"], "duplicate", "wait")
    for experiment in (repeated, asked):
        assert desk.until(experiment, done=DIALOGUES)["failed"] == 0
    desk.until(waited, waiting=DIALOGUES)
    first = desk.results(waited)["results"][0]
    answer = {"input": first["input"], "output": "A person's own words."}
    assert desk.call("PATCH", f"{EXPERIMENTS}/{waited}/logs/{first['id']}/", answer)["status"] == "success"
    desk.until(waited, waiting=DIALOGUES - 1, done=1)
    return repeated, asked, waited


def check_filters(desk: Desk, repeated: str, asked: str, waited: str) -> None:
    """By score, cost and status; summary; histogram."""
    perfect = {"scores__same": {"operator": "", "value": [1]}}
    assert desk.results(repeated, perfect)["count"] == DIALOGUES
    assert desk.results(asked, perfect)["count"] == 0
    costs = sorted(each["total_cost"] for each in desk.results(asked)["results"])
    assert costs[0] > 0
    dear = {"total_cost": {"operator": "gte", "value": [costs[DIALOGUES // 2]]}, "scores__close": {"operator": "lt", "value": [1]}}  # fmt: skip  # noqa: E501
    closeness = [
        each["scores"] for each in desk.results(asked)["results"] if each["total_cost"] >= costs[DIALOGUES // 2]
    ]
    expected = sum(
        score["numerical_value"] < 1
        for scores in closeness
        for score in scores.values()
        if score["evaluator_slug"] == "close"
    )
    assert desk.results(asked, dear)["count"] == expected > 0
    assert desk.results(waited, {"status": {"operator": "", "value": ["success"]}})["count"] == 1
    summary = desk.call("GET", f"{EXPERIMENTS}/{asked}/logs/summary/")
    assert (summary["number_of_requests"], summary["total_cost"]) == (DIALOGUES, pytest.approx(sum(costs)))
    histogram = desk.call("GET", f"{EXPERIMENTS}/{asked}/histogram/", params={"evaluator_id": "close", "bins": 10})
    assert sum(each["count"] for each in histogram["bins"]) == histogram["stats"]["total"] == DIALOGUES
    truth = desk.call("GET", f"{EXPERIMENTS}/{repeated}/histogram/", params={"evaluator_id": "same"})
    assert [(each["label"], each["count"]) for each in truth["bins"]] == [("false", 0), ("true", DIALOGUES)]


def check_comparison(desk: Desk, repeated: str, asked: str) -> None:
    """Every item against itself; the command says the same."""
    compared = desk.call("GET", "/v1/comparisons", params={"experiments": [repeated, asked], "evaluator": "same"})
    told = json.dumps(compared)
    assert f'"n": {DIALOGUES}' in told, told[:2000]
    said = desk.command("experiments", "compare", repeated, asked, "--url", desk.live.url, "--key", LIVE_KEY, "--json")
    assert json.loads(said)["experiments"] == compared["experiments"]


def test_from_real_dialogues_to_a_receipt(desk: Desk, tmp_path: Path) -> None:
    desk.plant()
    assert len(desk.needles) == DIALOGUES
    dataset = make_dataset(desk)
    repeated, asked, waited = run_experiments(desk, dataset)
    check_filters(desk, repeated, asked, waited)
    check_comparison(desk, repeated, asked)

    # One person asks to be forgotten: traces, items and results of all three experiments.
    mine = {trace_id for trace_id, person in desk.people.items() if person == PERSON}
    others = DIALOGUES - len(mine)
    assert 0 < len(mine) < DIALOGUES
    assert desk.left() == set(desk.needles.values())
    body = {"filters": {"customer_identifier": {"operator": "", "value": [PERSON]}}}
    gone = desk.live.http.post("/api/traces/bulk/", params=FOR_EVER, json=body)
    assert gone.json()["deleted_count"] >= len(mine), gone.text
    desk.verified(gone.headers, tmp_path)
    assert desk.call("POST", f"/api/datasets/{dataset}/logs/list/", {})["count"] == others
    for experiment in (repeated, asked, waited):
        assert desk.results(experiment)["count"] == others
    assert desk.left() == {word for trace_id, word in desk.needles.items() if trace_id not in mine}

    # Experiments, the dataset and the rest of the traces go; nothing is left of anybody.
    for path in (*(f"{EXPERIMENTS}/{each}/" for each in (repeated, asked, waited)), f"/api/datasets/{dataset}/"):
        desk.verified(desk.call("DELETE", path).headers, tmp_path)
        assert desk.live.http.get(path).status_code == 404
    assert desk.left() == {word for trace_id, word in desk.needles.items() if trace_id not in mine}
    body = {"filters": {"metadata__source": {"operator": "", "value": ["tau-bench"]}}}
    desk.verified(desk.live.http.post("/api/traces/bulk/", params=FOR_EVER, json=body).headers, tmp_path)
    assert desk.left() == set()
