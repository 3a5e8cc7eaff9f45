"""The traces of an experiment over both stores: pages, filters, one trace, figures, histograms."""

from __future__ import annotations

import json
import uuid
from typing import Any, NamedTuple

import pytest
from tests.wire.respan_experiments import (
    ALL,
    add_items,
    add_result,
    add_score,
    ask,
    make_dataset,
    make_evaluator,
    make_experiment,
    numbers,
    result_id,
)

from clearspan.catalog.experiments import Experiment
from clearspan.experiments.items import Item, NewItem
from clearspan.testing.wire import SECOND_NS, Wire, iso

WRONG = {"operator": "nope", "value": [1]}


class Lab(NamedTuple):
    wire: Wire
    experiment: Experiment
    items: list[Item]
    evaluator_id: str  # of `accuracy`

    def list(self, filters: Any = None, query: str = "", **rest: Any) -> Any:
        return ask(self.wire, self.experiment, f"logs/list/{query}", filters, **rest)

    def refused(self, path: str, body: Any = None, method: str = "POST") -> Any:
        answer = self.wire.send(method, f"{ALL}{self.experiment.public_id}/{path}", body)
        assert answer.status_code in (400, 404), answer.text
        return answer.json()


@pytest.fixture
def lab(wire: Wire) -> Lab:
    """Four results, made 40, 30, 20 and 10 seconds ago: two good ones, one that failed, one that waits."""
    dataset = make_dataset(wire)
    items = add_items(wire, dataset, *[NewItem({"q": n}, {"a": n} if n else "plain") for n in range(3)])
    evaluator_id = make_evaluator(wire, "accuracy")
    experiment = make_experiment(wire, dataset)
    add_result(wire, experiment, 0, item=items[0], ago_s=40, metadata={"kind": "x"}, tokens=(10, 4), cost=0.5)
    add_result(wire, experiment, 1, item=items[1], ago_s=30, metadata={"kind": "y"}, tokens=(20, 6), lasts_s=4)
    add_result(wire, experiment, 2, item=items[2], ago_s=20, error="boom", outputs={})
    add_result(wire, experiment, 3, ago_s=10, lasts_s=None, outputs=None)
    add_score(wire, 0, "accuracy", score=0.25)
    add_score(wire, 1, "accuracy", score=1.0, comment="fine")
    add_score(wire, 1, "tone", value="kind")
    add_score(wire, 2, "tone", value="rude")
    return Lab(wire, experiment, items, evaluator_id)


def test_a_page_shows_each_trace_with_what_was_expected_and_scored(lab: Lab) -> None:
    page = lab.list(query="?sort_by=start_time")
    assert (page["count"], page["next"], page["previous"], page["current_filters"]) == (4, None, None, {})
    assert numbers(page["results"]) == [0, 1, 2, 3]
    good, better, failed, waiting = page["results"]
    assert good["id"] == good["trace_unique_id"] == good["root_span_unique_id"] == result_id(0)
    assert json.loads(good["input"]) == {"question": "question 0"}
    assert json.loads(good["output"]) == {"answer": "answer 0"}
    assert [each["expected_output"] for each in page["results"]] == ["plain", '{"a":1}', '{"a":2}', None]
    assert [each["status"] for each in page["results"]] == ["success", "success", "error", "pending"]
    assert failed["error_message"] == "boom"
    assert good["comparison_key"] == str(uuid.UUID(lab.items[0].id))
    assert waiting["comparison_key"] is None
    assert (good["duration"], good["total_cost"], good["total_tokens"]) == (2.0, 0.5, 14)
    assert (good["total_prompt_tokens"], good["total_completion_tokens"], good["span_count"]) == (10, 4, 1)
    assert good["metadata"]["kind"] == "x"
    assert set(better["scores"]) == {lab.evaluator_id, "tone"}
    assert better["scores"][lab.evaluator_id] == {
        "evaluator_id": lab.evaluator_id, "evaluator_slug": "accuracy", "evaluator_name": "Accuracy",
        "score_value_type": "numerical", "numerical_value": 1.0, "boolean_value": None, "categorical_value": None,
        "string_value": None, "json_value": None, "avg_score": 1.0, "true_count": None, "false_count": None,
        "explanation": "fine",
    }  # fmt: skip
    tone = better["scores"]["tone"]
    assert (tone["score_value_type"], tone["categorical_value"], tone["avg_score"]) == ("categorical", ["kind"], None)
    assert failed["scores"].keys() == {"tone"}
    assert waiting["scores"] == {}


def test_filters_find_traces_by_everything_that_the_contract_names(lab: Lab) -> None:
    key = lab.items[1].id
    cases: list[tuple[Any, list[int]]] = [
        ({"status": {"value": ["success"]}}, [0, 1]),
        ({"status": {"operator": "in", "value": ["error", "pending"]}}, [2, 3]),
        ({"status": {"operator": "not", "value": ["error"]}}, [0, 1, 3]),
        ({"total_cost": {"operator": "gte", "value": [0.5]}}, [0]),
        ({"cost": {"operator": "lt", "value": 1}}, [0]),
        ({"cost": {"operator": "isnull", "value": [True]}}, [1, 2, 3]),
        ({"comparison_key": {"value": [key]}}, [1]),
        ({"comparison_key": {"value": [str(uuid.UUID(key)).upper()]}}, [1]),
        ({"comparison_key": {"operator": "not_in", "value": [key]}}, [0, 2]),
        ({"comparison_key": {"value": ["nothing"]}}, []),
        ({"metadata__kind": {"value": ["x"]}}, [0]),
        ({"scores__accuracy": {"operator": "gt", "value": [0.5]}}, [1]),
        ({f"scores__{lab.evaluator_id}": {"operator": "lte", "value": [0.25]}}, [0]),
        ({"scores__accuracy": {"operator": "not_in", "value": [0.25]}}, [1]),
        ({"scores__nobody": {"operator": "gte", "value": [0]}}, []),
        ({"duration": {"operator": "gt", "value": [3]}}, [1]),
        ({"latency": {"operator": "gt", "value": [3]}}, [1]),
        ({"total_tokens": {"operator": "gte", "value": [26]}}, [1]),
        ({"error_count": {"operator": "gt", "value": [0]}}, [2]),
        ({"total_prompt_tokens": [{"operator": "gt", "value": [5]}, {"operator": "lt", "value": [15]}]}, [0]),
        ({"any": {"connector": "OR", "filter_params": {"status": {"value": ["error"]}, "cost": {"value": [0.5]}}}},
         [0, 2]),
        ([{"field": "status", "operator": "=", "value": ["success"]},
          {"field": "scores__accuracy", "operator": "GTE", "value": [1]}], [1]),
        ({"timestamp": {"operator": "gte", "value": [iso(lab.wire.clock.now_ns() - 30 * SECOND_NS)]}}, [1, 2, 3]),
    ]  # fmt: skip
    for filters, expected in cases:
        page = lab.list(filters, "?sort_by=start_time")
        assert numbers(page["results"]) == expected, filters
        assert page["count"] == len(expected), filters
        assert ask(lab.wire, lab.experiment, "logs/summary/", filters)["number_of_requests"] == len(expected), filters


def test_what_a_filter_cannot_mean_is_refused_and_named(lab: Lab) -> None:
    for filters, key in (
        ({"nonsense": {"value": ["x"]}}, "nonsense"),
        ({"status": {"value": ["completed"]}}, "status"),
        ({"scores__accuracy": {"operator": "contains", "value": ["1"]}}, "scores__accuracy"),
        ({"scores__": {"value": [1]}}, "scores__"),
        ({"cost": WRONG}, "cost"),
    ):
        for part in ("logs/list/", "logs/summary/"):
            assert key in lab.refused(part, {"filters": filters}), (filters, part)
    for query, key in (
        ("?page=0", "page"), ("?page_size=101", "page_size"), ("?page_size=0", "page_size"),
        ("?sort_by=nonsense", "sort_by"), ("?start_time=soon", "start_time"),
        ("?start_time=2026-02-01&end_time=2026-01-01", "end_time"),
    ):  # fmt: skip
        assert key in lab.refused(f"logs/list/{query}", {}), query


def test_current_filters_are_those_of_the_request_in_normal_form(lab: Lab) -> None:
    page = lab.list({"status": {"operator": "==", "value": "success"}, "cost": [{"operator": "ISNULL"}]})
    assert page["current_filters"] == {
        "status": {"operator": "", "value": ["success"]},
        "cost": [{"operator": "is_null", "value": []}],
    }
    nested = {"g": {"connector": "or", "filter_params": {"name": {"value": ["a"], "connector": "or"}}}}
    assert lab.list(nested)["current_filters"] == {
        "g": {"connector": "OR", "filter_params": {"name": {"operator": "", "value": ["a"], "connector": "OR"}}}
    }


def test_the_window_holds_its_start_and_not_its_end(lab: Lab) -> None:
    now_ns = lab.wire.clock.now_ns()
    at = [iso(now_ns - seconds * SECOND_NS) for seconds in (40, 30, 20, 10)]
    for query, expected in (
        (f"?start_time={at[0]}&end_time={at[2]}", [1, 0]),
        (f"?start_time={at[3]}", [3]),
        (f"?end_time={at[0]}", []),
        (f"?start_time={at[1]}&end_time={at[1]}", []),
        ("", [3, 2, 1, 0]),
    ):
        page = lab.list(query=query)
        assert numbers(page["results"]) == expected, query
        answer = lab.wire.get(f"{ALL}{lab.experiment.public_id}/logs/summary/{query}")
        assert answer.json()["number_of_requests"] == len(expected), query


def test_pages_end_and_orders_are_kept(lab: Lab) -> None:
    first = lab.list(query="?page_size=3&sort_by=-start_time")
    assert (first["count"], numbers(first["results"]), bool(first["next"])) == (4, [3, 2, 1], True)
    second = lab.wire.post(first["next"].removeprefix("http://clearspan.test"), {}).json()
    assert (numbers(second["results"]), second["next"], bool(second["previous"])) == ([0], None, True)
    past = lab.list(query="?page=99&page_size=3")
    assert (past["count"], past["results"], past["next"]) == (4, [], None)
    for sort_by, expected in (
        ("-cost", [0]), ("-duration", [1]), ("scores__accuracy", [0, 1]), (f"-scores__{lab.evaluator_id}", [1, 0]),
        ("name", [0, 1]), ("-name", [3, 2]),
    ):  # fmt: skip
        found = numbers(lab.list(query=f"?sort_by={sort_by}")["results"])
        assert found[: len(expected)] == expected, sort_by
        assert sorted(found) == [0, 1, 2, 3], sort_by
    assert numbers(lab.list(query="?sort_by=-scores__accuracy&page=2&page_size=1")["results"]) == [0]


def test_the_get_forms_list_as_well(lab: Lab) -> None:
    for path in ("logs/list", "logs/list/", "logs", "logs/"):
        answer = lab.wire.get(f"{ALL}{lab.experiment.public_id}/{path}?page_size=2&sort_by=start_time")
        assert numbers(answer.json()["results"]) == [0, 1], path


def test_texts_are_cut_and_spans_are_shown_when_asked(lab: Lab) -> None:
    (cut,) = lab.list({"metadata__kind": {"value": ["y"]}}, "?preview_length=5")["results"]
    assert (cut["input"], cut["output"], cut["expected_output"]) == ('{"que', '{"ans', '{"a":')
    for query in ("", "?preview_length=0", "?preview_length=-3", "?preview_length=x", "?preview_length=5&detail=1"):
        (whole,) = lab.list({"metadata__kind": {"value": ["y"]}}, query)["results"]
        assert whole["expected_output"] == '{"a":1}', query
        assert ("span_tree" in whole) == ("detail" in query), query
    (node,) = whole["span_tree"]
    assert (node["id"], node["span_name"], node["log_type"], node["children"]) == (result_id(1), "target", "chat", [])
    assert (node["total_tokens"], node["duration"]) == (26, 4.0)
    assert node["scores"] == whole["scores"]


def test_one_trace_is_shown_with_its_spans(lab: Lab) -> None:
    answer = lab.wire.get(f"{ALL}{lab.experiment.public_id}/logs/{uuid.UUID(result_id(0))}/")
    found = answer.json()
    (listed,) = lab.list({"metadata__kind": {"value": ["x"]}})["results"]
    tree = found.pop("span_tree")
    assert found == listed
    assert [node["id"] for node in tree] == [result_id(0)]
    for log_id in ("never-seen", result_id(9), "x" * 300):
        assert lab.refused(f"logs/{log_id}/", None, "GET")["code"] == "not_found"


def test_an_attempt_that_was_replaced_is_in_no_list_and_no_figure(lab: Lab) -> None:
    add_result(lab.wire, lab.experiment, 5, item=lab.items[2], metadata={"experiment_superseded": "2"}, cost=9)
    add_score(lab.wire, 5, "accuracy", score=9)
    assert numbers(lab.list(query="?sort_by=start_time")["results"]) == [0, 1, 2, 3]
    summary = ask(lab.wire, lab.experiment, "logs/summary/")
    assert (summary["number_of_requests"], summary["total_cost"]) == (4, 0.5)
    assert ask(lab.wire, lab.experiment, "histogram/?evaluator_id=accuracy")["stats"]["max"] == 1.0
    assert lab.wire.get(f"{ALL}{lab.experiment.public_id}/logs/{result_id(5)}/").status_code == 200


def test_figures_leave_out_what_is_not_known(lab: Lab) -> None:
    told = ask(lab.wire, lab.experiment, "logs/summary/", {})
    assert (told["number_of_requests"], told["error_count"]) == (4, 1)
    assert (told["total_cost"], told["total_tokens"]) == (0.5, 40)
    assert (told["total_prompt_tokens"], told["total_completion_tokens"]) == (30, 10)
    assert told["avg_latency"] == pytest.approx((2 + 4 + 2 + 0) / 4)
    assert told["avg_tps"] == pytest.approx((4 + 6) / (2 + 4))
    assert told["avg_ttft"] is None
    accuracy, tone = told["scores"][lab.evaluator_id], told["scores"]["tone"]
    assert (accuracy["avg_score"], accuracy["numerical_value"], accuracy["count"]) == (0.625, 0.625, 2)
    assert (tone["categorical_value"], tone["label_counts"]) == (["kind", "rude"], {"kind": 1, "rude": 1})
    nothing = ask(lab.wire, lab.experiment, "logs/summary/", {"cost": {"operator": "gt", "value": [100]}})
    assert (nothing["number_of_requests"], nothing["total_cost"], nothing["total_tokens"]) == (0, 0, 0)
    assert (nothing["avg_latency"], nothing["scores"]) == (None, {})


def test_the_time_to_the_first_token_is_a_mean_over_the_spans_that_say_it(lab: Lab) -> None:
    start_ns = lab.wire.clock.now_ns() - 5 * SECOND_NS
    for number, wait_s in ((6, 0.25), (7, 0.75)):
        event = {"name": "new_token", "time": iso(start_ns + round(wait_s * SECOND_NS))}
        add_result(lab.wire, lab.experiment, number, ago_s=5, events=[event], metadata={"kind": "streamed"})
    assert ask(lab.wire, lab.experiment, "logs/summary/")["avg_ttft"] == pytest.approx(0.5)
    good = {"metadata__kind": {"value": ["x"]}}
    assert ask(lab.wire, lab.experiment, "logs/summary/", good)["avg_ttft"] is None


def test_histograms_of_numbers_words_and_truth(lab: Lab) -> None:
    for asked in ("accuracy", lab.evaluator_id):
        told = ask(lab.wire, lab.experiment, f"histogram/?evaluator_id={asked}&bins=3")
        assert (told["evaluator_id"], told["evaluator_slug"], told["evaluator_name"]) == (asked, "accuracy", "Accuracy")
        assert [each["count"] for each in told["bins"]] == [1, 0, 1]
        assert (told["bins"][0]["lower"], told["bins"][-1]["upper"]) == (0.25, 1.0)
        assert told["stats"] == {"min": 0.25, "max": 1.0, "mean": 0.625, "total": 2}
    words = lab.wire.get(f"{ALL}{lab.experiment.public_id}/histogram?evaluator_id=tone").json()
    assert [(each["label"], each["count"]) for each in words["bins"]] == [("kind", 1), ("rude", 1)]
    assert words["stats"] == {"min": 0.0, "max": 0.0, "mean": 0.0, "total": 2}
    make_evaluator(lab.wire, "passed", "boolean")
    for number in (0, 1, 2):
        add_score(lab.wire, number, "passed", score=number != 2)
    truth = ask(lab.wire, lab.experiment, "histogram/?evaluator_id=passed")
    assert [(each["label"], each["count"]) for each in truth["bins"]] == [("false", 1), ("true", 2)]
    assert truth["stats"]["total"] == 3
    boolean = ask(lab.wire, lab.experiment, "logs/summary/")["scores"]
    assert [(each["true_count"], each["false_count"]) for each in boolean.values() if each["true_count"]] == [(2, 1)]


def test_a_histogram_can_be_of_one_grader_and_of_some_traces(lab: Lab) -> None:
    add_score(lab.wire, 0, "accuracy:strict", score=0.0)
    for asked in (f"{lab.evaluator_id}:strict", "accuracy:strict", f"{lab.evaluator_id}%3Astrict"):
        told = ask(lab.wire, lab.experiment, f"histogram/?evaluator_id={asked}")
        assert told["bins"] == [{"lower": 0.0, "upper": 0.0, "count": 1}], asked
        assert told["evaluator_slug"] == "accuracy"
    (good,) = lab.list({"metadata__kind": {"value": ["x"]}})["results"]
    assert set(good["scores"]) == {lab.evaluator_id, f"{lab.evaluator_id}:strict"}
    some = {"scores__accuracy": {"operator": "gte", "value": [0.5]}}
    assert ask(lab.wire, lab.experiment, "histogram/?evaluator_id=accuracy", some)["stats"]["total"] == 1
    empty = ask(lab.wire, lab.experiment, "histogram/?evaluator_id=nobody&bins=50")
    assert (empty["bins"], empty["stats"]["total"]) == ([], 0)
    for query, key in (
        ("", "evaluator_id"), ("?evaluator_id=", "evaluator_id"), ("?evaluator_id=accuracy&bins=0", "bins"),
        ("?evaluator_id=accuracy&bins=51", "bins"), ("?evaluator_id=accuracy&bins=ten", "bins"),
    ):  # fmt: skip
        assert key in lab.refused(f"histogram/{query}", {}), query


def test_text_scores_are_counted_and_in_no_bin(lab: Lab) -> None:
    make_evaluator(lab.wire, "notes", "json")
    add_score(lab.wire, 0, "notes", value={"a": 1})
    told = ask(lab.wire, lab.experiment, "histogram/?evaluator_id=notes")
    assert (told["bins"], told["unbinned"], told["stats"]["total"]) == ([], 1, 1)
    (good,) = lab.list({"metadata__kind": {"value": ["x"]}})["results"]
    (notes,) = [each for each in good["scores"].values() if each["evaluator_slug"] == "notes"]
    assert json.loads(notes["json_value"]) == {"a": 1}


def test_the_newest_feedback_of_a_name_counts_once(lab: Lab) -> None:
    lab.wire.clock.advance(1)
    add_score(lab.wire, 0, "accuracy", score=0.75)
    (good,) = lab.list({"metadata__kind": {"value": ["x"]}})["results"]
    assert good["scores"][lab.evaluator_id]["numerical_value"] == 0.75
    assert ask(lab.wire, lab.experiment, "histogram/?evaluator_id=accuracy")["stats"]["total"] == 2
