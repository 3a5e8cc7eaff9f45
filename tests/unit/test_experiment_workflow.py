"""Workflows of experiments as callers write them: what is read, and what is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from clearspan.experiments.conditions import hold, parse_policy
from clearspan.experiments.templates import UnknownName, check_template, render_template
from clearspan.experiments.workflow import (
    Branch,
    Call,
    Duplicate,
    Evaluate,
    Wait,
    normal_workflow,
    parse_workflow,
)
from clearspan.model.errors import InvalidInput


def step(kind: str, **config: Any) -> dict[str, Any]:
    return {"type": kind, "config": config}


def parse_one(kind: str, **config: Any) -> Any:
    return parse_workflow([step(kind, **config)])[0]


def test_every_type_is_read() -> None:
    found = parse_workflow(
        [
            step("duplicate"),
            step("wait"),
            step("condition", condition_policy={"output": {"operator": "contains", "value": ["x"]}}, on_false="skip"),
            step("completion", model="m", temperature=0.5, template="Say {{input}}", stream=False),
            step("prompt", prompt_slug="greet", version=3, model="m", messages=[{"role": "user", "content": "{{q}}"}]),
            step("eval", evaluator_slugs=["exact"], evaluator_id="0f" * 16),
        ]
    )
    assert [type(each) for each in found] == [Duplicate, Wait, Branch, Call, Call, Evaluate]
    assert isinstance(found[3], Call)
    assert found[3].messages == ({"role": "user", "content": "Say {{input}}"},)
    assert dict(found[3].parameters) == {"temperature": 0.5}, "what only says how to answer is not passed on"
    assert isinstance(found[4], Call)
    assert (found[4].prompt, found[4].version) == ("greet", "3")
    assert found[5] == Evaluate(("exact", "0f" * 16))


def test_the_words_of_older_clients_are_understood() -> None:
    old = [step("custom", allow_submission=True, timeout_hours=24), step("evaluator", evaluator_slugs=["exact"])]
    assert parse_workflow(old) == (Wait(24), Evaluate(("exact",)))
    assert [each["type"] for each in normal_workflow(old)] == ["wait", "eval"]
    assert normal_workflow([{"type": "wait"}]) == [{"type": "wait", "config": {}}]


@pytest.mark.parametrize(
    ("workflow", "named"),
    [
        (None, "workflow"),
        ([], "workflow"),
        ([step("duplicate")] * 51, "workflow"),
        (["duplicate"], "workflow[0]"),
        ([step("duplicate"), step("launch")], "workflow[1].type"),
        ([{"type": ["wait"]}], "workflow[0].type"),
        ([{"type": "wait", "configuration": {}}], "workflow[0].configuration"),
        ([{"type": "wait", "config": []}], "workflow[0].config"),
        ([step("duplicate", x=1)], "workflow[0].config.x"),
        ([step("custom", allow_submission=False)], "workflow[0].config.allow_submission"),
        ([step("wait", timeout_hours="1")], "workflow[0].config.timeout_hours"),
        ([step("wait", timeout_hours=0)], "workflow[0].config.timeout_hours"),
        ([step("wait", timeout_hours=10**400)], "workflow[0].config.timeout_hours"),
        ([step("wait", timeout_hours=float("nan"))], "workflow[0].config.timeout_hours"),
        ([step("completion")], "workflow[0].config.model"),
        ([step("completion", model="  ")], "workflow[0].config.model"),
        ([step("completion", model="m", temprature=0)], "workflow[0].config.temprature"),
        ([step("completion", model="m", temperature="hot")], "workflow[0].config.temperature"),
        ([step("completion", model="m", max_tokens=True)], "workflow[0].config.max_tokens"),
        ([step("completion", model="m", stream=True)], "workflow[0].config.stream"),
        ([step("completion", model="m", messages=[])], "workflow[0].config.messages"),
        ([step("completion", model="m", messages=[{"role": "boss"}])], "workflow[0].config.messages[0].role"),
        ([step("completion", model="m", messages=[{"role": "user", "content": 1}])],
         "workflow[0].config.messages[0].content"),
        ([step("completion", model="m", template="{{a|upper}}")], "workflow[0].config.template"),
        ([step("completion", model="m", template="a", messages=[{"role": "user"}])], "workflow[0].config.template"),
        ([step("prompt", model="m", template="a")], "workflow[0].config.prompt_id"),
        ([step("prompt", prompt_id="p", model="m")], "workflow[0].config.messages"),
        ([step("prompt", prompt_id="p", template="a")], "workflow[0].config.model"),
        ([step("prompt", prompt_id="p", version=1.5, model="m", template="a")], "workflow[0].config.version"),
        ([step("eval")], "workflow[0].config.evaluator_slugs"),
        ([step("eval", evaluator_slugs=[1])], "workflow[0].config.evaluator_slugs"),
        ([step("eval", evaluator_ids=["unknown"])], "workflow[0].config.evaluator_ids"),
        ([step("condition")], "workflow[0].config.condition_policy"),
        ([step("condition", condition_policy={"cost": {}})], "workflow[0].config.condition_policy.cost"),
        ([step("condition", condition_policy={"metadata": {}})], "workflow[0].config.condition_policy.metadata"),
        ([step("condition", condition_policy={"output": {"operator": "regex", "value": "x"}})],
         "workflow[0].config.condition_policy.output.operator"),
        ([step("condition", condition_policy={"output": {"operator": "gt", "value": [1, 2]}})],
         "workflow[0].config.condition_policy.output.value"),
        ([step("condition", condition_policy={"output": {"value": []}})],
         "workflow[0].config.condition_policy.output.value"),
        ([step("condition", condition_policy={"output": {"value": "x"}}, on_false="explode")],
         "workflow[0].config.on_false"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_name(workflow: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_workflow(workflow, knows=lambda name: name != "unknown")
    assert refused.value.fields == (named,)
    assert refused.value.message.startswith(named)


FACTS = {
    "input": {"question": "Why?", "n": 3},
    "output": "I am Sorry",
    "metadata": {"lang": "de", "a.b": "dotted", "empty": ""},
    "scores": {"exact": 1.0, "tone": "rude"},
}


@pytest.mark.parametrize(
    ("policy", "holds"),
    [
        ({"output": {"operator": "icontains", "value": ["sorry"]}}, True),
        ({"output": {"operator": "contains", "value": "sorry"}}, False),
        ({"output": {"operator": "not_contains", "value": "sorry"}}, True),
        ({"output": {"operator": "startswith", "value": "I"}}, True),
        ({"output": {"operator": "endswith", "value": "I"}}, False),
        ({"output": {"operator": "iexact", "value": "i AM sorry"}}, True),
        ({"event.input.question": {"value": ["Why?", "How?"]}}, True),
        ({"input.question": {"operator": "not", "value": ["Why?"]}}, False),
        ({"input.n": {"operator": ">=", "value": 3}}, True),
        ({"input.n": {"operator": "lt", "value": "4"}}, True),
        ({"input.n": [{"operator": "gt", "value": 1}, {"operator": "lt", "value": 3}]}, False),
        ({"input.question": {"operator": "gt", "value": 1}}, False),
        ({"input": {"operator": "contains", "value": "Why"}}, True),
        ({"scores__exact": {"operator": "gte", "value": 0.5}}, True),
        ({"scores__exact": {"value": True}}, False),
        ({"scores__tone": {"operator": "in", "value": ["rude"]}}, True),
        ({"scores__missing": {"operator": "lt", "value": 1}}, False),
        ({"scores__missing": {"operator": "not", "value": 1}}, False),
        ({"scores__missing": {"operator": "isnull", "value": [True]}}, True),
        ({"scores__missing": {"operator": "isnull", "value": [False]}}, False),
        ({"metadata__empty": {"operator": "empty"}}, True),
        ({"metadata__lang": {"operator": "not_empty"}}, True),
        ({"metadata__a.b": {"value": "dotted"}}, True),
        ({"expected_output": {"operator": "is_not_null"}}, False),
        ({"output": {"value": "I am Sorry"}, "metadata__lang": {"value": "en"}}, False),
    ],
)
def test_a_condition_holds(policy: Any, holds: bool) -> None:
    assert hold(parse_policy(policy), FACTS) is holds


def test_a_template_is_a_look_up_and_nothing_else() -> None:
    values = {"input": {"q": "{{secret}}", "list": [{"x": 1}]}, "first name": "Ann", "none": None}
    text = "{{ input.q }} {{input.list.0.x}} {{first name}} {{none}} {{input.list}}"
    assert render_template(text, values) == '{{secret}} 1 Ann null [{"x": 1}]'
    with pytest.raises(UnknownName, match=r"input\.absent"):
        render_template("{{input.absent}}", values)
    with pytest.raises(UnknownName):
        render_template("{{input.list.9}}", values)
    for text in ("{{a b|c}}", "{{#each x}}", "{{ }}", "{{a()}}", "{{> partial}}", "{{x[0]}}"):
        with pytest.raises(InvalidInput):
            check_template(text)
    check_template("{ {not a place} } {{fine}} {{a-b.c_d}}")
