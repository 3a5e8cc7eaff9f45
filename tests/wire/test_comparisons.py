"""Comparing experiments over both stores: what a LangSmith client evaluated, item by item, and who may see it."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from tests.wire.langsmith_requests import run, run_id
from typer.testing import CliRunner

from clearspan.catalog import KeyScope
from clearspan.catalog.annotation_configs import ConfigDefinition, ConfigType, Direction
from clearspan.cli import remote
from clearspan.cli.main import build
from clearspan.experiments import pairing
from clearspan.testing.wire import OWNER_KEY, Wire

PATH = "/v1/comparisons"
QUESTIONS = ("q0", "q1", "q2", "q3")


class Lab:
    """A dataset of four items, and experiments on it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.dataset = self._dataset("questions")
        made = wire.post("/api/v1/examples/bulk", [
            {"dataset_id": self.dataset, "inputs": {"question": each}, "outputs": {"answer": "yes"}}
            for each in QUESTIONS
        ])  # fmt: skip
        assert made.status_code in (200, 201, 202), made.text
        self.items = [each["id"] for each in self._examples()]
        self._runs = 0

    def _dataset(self, name: str) -> str:
        made = self.wire.post("/api/v1/datasets", {"name": name})
        assert made.status_code in (200, 201), made.text
        return str(made.json()["id"])

    def _examples(self) -> list[dict[str, Any]]:
        found = self.wire.get(f"/api/v1/examples?dataset={self.dataset}").json()
        return sorted(found, key=lambda each: str(each["inputs"]["question"]))

    def experiment(self, name: str, results: dict[int, dict[str, float]], dataset: str | None = None) -> str:
        """An experiment with a result of each item named by its number, and the scores of it."""
        own = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        body = {"id": own, "name": name, "reference_dataset_id": dataset or self.dataset}
        made = self.wire.post("/api/v1/sessions", body)
        assert made.status_code in (200, 201), made.text
        for item, scores in results.items():
            self.result(name, self.items[item], scores)
        return own

    def result(self, name: str, item: str | None, scores: dict[str, float], **fields: Any) -> str:
        self._runs += 1
        done = {"outputs": {"answer": name}, "end_time": "2026-11-21T22:33:34Z"}
        said = run(self._runs, session_name=name, reference_example_id=item, **done, **fields)
        assert self.wire.post("/runs", said).status_code == 202
        for key, score in scores.items():
            answer = self.wire.post("/feedback", {"run_id": run_id(self._runs), "key": key, "score": score})
            assert answer.status_code == 200, answer.text
        return run_id(self._runs)

    def compare(self, *ids: str, query: str = "", **rest: Any) -> dict[str, Any]:
        answer = self.wire.get(f"{PATH}?{'&'.join(f'experiments={each}' for each in ids)}{query}", **rest)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


@pytest.fixture
def lab(wire: Wire) -> Lab:
    return Lab(wire)


@pytest.fixture
def pair(lab: Lab) -> tuple[str, str]:
    """Item 0 got worse, 1 better, 2 was not run again, 3 nobody ran; one result names no item."""
    first = lab.experiment("first", {0: {"exact": 1, "close": 0.9}, 1: {"exact": 0}, 2: {"exact": 1}})
    second = lab.experiment("second", {0: {"exact": 0, "close": 0.4}, 1: {"exact": 1}})
    lab.result("second", None, {"exact": 1})
    return first, second


def measure(told: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in told["measures"] if each["name"] == name)
    assert isinstance(found, dict)
    return found


def test_items_scores_and_what_is_missing(lab: Lab, pair: tuple[str, str]) -> None:
    told = lab.compare(*pair)
    assert (told["baseline"], told["dataset_id"], told["items"]) == (pair[0], lab.dataset, 4)
    assert told["verdicts"] == {"regressed": 1, "missing": 3, "unchanged": 0, "improved": 0}
    assert [(each["items"], each["missing"], each["results"], each["without_key"]) for each in told["experiments"]] == [
        (3, 1, 3, 0), (2, 2, 3, 1),
    ]  # fmt: skip
    (exact,) = measure(told, "exact")["differences"]
    assert (exact["n"], exact["difference"], exact["missing"], exact["missing_both"]) == (2, 0.0, 1, 1)
    assert (exact["improved"], exact["regressed"]) == (1, 1)
    assert exact["interval"]["low"] <= 0 <= exact["interval"]["high"]
    (close,) = measure(told, "close")["differences"]
    assert (close["n"], close["interval"], close["missing_both"]) == (1, None, 3)
    worst = told["data"][0]
    assert (worst["comparison_key"], worst["verdict"], worst["loss"]) == (lab.items[0], "regressed", 1.0)
    assert [each["scores"] for each in worst["experiments"]] == [{"close": 0.9, "exact": 1}, {"close": 0.4, "exact": 0}]
    assert worst["differences"][0]["scores"] == {"close": -0.5, "exact": -1}
    assert worst["input"]
    assert all(each["output"] for each in worst["experiments"])
    by_key = {each["comparison_key"]: each for each in told["data"]}
    assert by_key[lab.items[3]]["experiments"] == [None, None], "an item that nobody ran is listed"
    assert by_key[lab.items[2]]["experiments"][1] is None


def test_pages_verdicts_and_evaluators(lab: Lab, pair: tuple[str, str]) -> None:
    whole = lab.compare(*pair)
    seen, cursor = [], ""
    while cursor is not None:
        told = lab.compare(*pair, query=f"&limit=1&preview_length=0{cursor and f'&cursor={cursor}'}")
        seen += [each["comparison_key"] for each in told["data"]]
        assert told["data"][0]["input"] is None
        cursor = told["next_cursor"]
    assert seen == [each["comparison_key"] for each in whole["data"]]
    only = lab.compare(*pair, query="&verdict=regressed")
    assert [each["comparison_key"] for each in only["data"]] == [lab.items[0]]
    close = lab.compare(*pair, query="&evaluator=close")
    assert [each["name"] for each in close["measures"]] == ["cost", "latency", "close"]
    cut = lab.compare(*pair, query="&preview_length=3")
    assert len(cut["data"][0]["input"]) == 3


def test_less_is_better_where_a_config_says_so(lab: Lab, pair: tuple[str, str]) -> None:
    org_id = lab.wire.catalog.first_org.id
    definition = ConfigDefinition(ConfigType.CONTINUOUS, Direction.MINIMIZE)
    lab.wire.catalog.annotation_configs.create(org_id, "close", definition)
    told = lab.compare(*pair)
    assert (measure(told, "close")["direction"], measure(told, "close")["direction_is_said"]) == ("minimize", True)
    assert measure(told, "close")["differences"][0]["improved"] == 1
    assert measure(told, "exact")["direction_is_said"] is False


def test_an_experiment_that_was_deleted_from_is_compared_without_it(lab: Lab, pair: tuple[str, str]) -> None:
    lost = lab.compare(*pair)["data"][0]["experiments"][1]["trace_ids"]
    gone = lab.wire.post("/v1/deletions", {"trace_ids": lost, "wait": "verified"})
    assert gone.status_code == 202, gone.text
    told = lab.compare(*pair)
    assert told["verdicts"]["regressed"] == 0
    assert measure(told, "exact")["differences"][0]["n"] == 1


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "invalid_input"),
        ("?experiments={0}", 400, "invalid_input"),
        ("?experiments={0}&experiments={0}", 400, "same_experiment"),
        ("?experiments={0}&experiments=nothing", 404, "experiment_not_found"),
        ("?experiments={0}&experiments={1}", 409, "different_datasets"),
        ("?experiments={0}&experiments={0}&nonsense=1", 400, "unknown_parameter"),
        ("?experiments={0}&experiments={0}&verdict=worse", 400, "invalid_input"),
        ("?experiments={0}&experiments={0}&limit=0", 400, "invalid_page"),
        ("?experiments={0}&experiments={0}&cursor=x", 400, "invalid_cursor"),
        ("?experiments={0}&experiments={0}&preview_length=99999", 400, "invalid_input"),
        ("?" + "&".join(["experiments={0}"] * 11), 400, "invalid_input"),
    ],
)
def test_refusals_name_what_is_wrong(lab: Lab, query: str, status: int, code: str) -> None:
    first = lab.experiment("first", {})
    other = lab.wire.post("/api/v1/datasets", {"name": "others"}).json()["id"]
    second = lab.experiment("second", {}, dataset=other)
    answer = lab.wire.get(PATH + query.format(first, second))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_too_many_results_are_refused(lab: Lab, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearspan.api.native.comparisons.RESULTS_MAX", 5)
    monkeypatch.setattr(pairing, "RESULTS_MAX", 5)
    answer = lab.wire.get(f"{PATH}?experiments={pair[0]}&experiments={pair[1]}")
    assert (answer.status_code, answer.json()["code"]) == (400, "too_many_results")


def test_other_tenants_and_bound_keys(lab: Lab, pair: tuple[str, str]) -> None:
    path = f"{PATH}?experiments={pair[0]}&experiments={pair[1]}"
    theirs = lab.wire.catalog.create_organisation("theirs")
    stranger = lab.wire.catalog.create_key(theirs.id, name="k").secret
    assert lab.wire.get(path, key=stranger).status_code == 404
    projects = {each.name: each.id for each in lab.wire.catalog.projects(lab.wire.catalog.first_org.id)}
    org_id = lab.wire.catalog.first_org.id
    both = [projects["first"], projects["second"]]
    one = lab.wire.catalog.create_key(org_id, name="one", scopes=[KeyScope.READ], project_ids=both[:1]).secret
    assert lab.wire.get(path, key=one).status_code == 404
    two = lab.wire.catalog.create_key(org_id, name="two", scopes=[KeyScope.READ], project_ids=both).secret
    told = lab.compare(*pair, key=two)
    assert told["items"] == 3, "a bound key learns of items with results only"
    here = lab.wire.catalog.create_key(org_id, name="env", scopes=[KeyScope.READ], environment="staging").secret
    assert lab.compare(*pair, key=here)["items"] == 0, "nor does one of an environment, which has no results here"


# ---- the command -----------------------------------------------------------------------------------------------------


def command(lab: Lab, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        got = lab.wire.client.request(request.method, path, content=request.read(), headers=dict(request.headers))
        return httpx.Response(got.status_code, content=got.content, headers=got.headers)

    monkeypatch.setattr(remote, "transport_for", lambda url: httpx.MockTransport(answer))
    monkeypatch.setenv("CLEARSPAN_API_KEY", OWNER_KEY)
    return CliRunner().invoke(build("experiments"), ["experiments", *arguments, "--url", "http://testserver"])


def test_the_command_lists_and_compares(lab: Lab, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    listed = command(lab, monkeypatch, "list")
    assert listed.exit_code == 0, listed.output
    assert all(each in listed.output for each in (*pair, "first", "second"))
    told = command(lab, monkeypatch, "compare", *pair, "--limit", "1")
    assert told.exit_code == 0, told.output
    assert "4 items: 1 regressed, 3 missing, 0 unchanged, 0 improved." in told.output
    assert "close 0.9 → 0.4; exact 1 → 0" in told.output
    assert "There are more items" in told.output
    assert lab.items[0] in told.output
    as_json = command(lab, monkeypatch, "compare", *pair, "--limit", "3", "--json")
    assert '"next_cursor": "' in as_json.output
    assert command(lab, monkeypatch, "compare", pair[0]).exit_code == 2
    assert command(lab, monkeypatch, "compare", pair[0], "nothing").exit_code == 1
