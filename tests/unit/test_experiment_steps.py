"""Steps of a workflow on one item: what each does, what it records, and what failing means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.item_documents import Item
from clearspan.experiments.score_types import NotScored, ScoreValue, Subject
from clearspan.experiments.steps import GONE, NO_OUTPUT, Passage, Tools, run_steps, score_all
from clearspan.experiments.usage import Usage
from clearspan.experiments.workflow import parse_workflow
from clearspan.model.errors import ClearspanError
from clearspan.testing.clock import FixedClock

LENGTH = Evaluator(1, "0a" * 16, 1, "length", "Length", "exact", {}, "numerical", None, 0, 0)


class Answer(NamedTuple):
    text: str
    model: str = "m-2026"
    prompt_tokens: int | None = 10
    completion_tokens: int | None = 4
    cost_usd: Decimal | None = Decimal("0.001")


class FakeLlm:
    """Says what `reply` makes of the messages, half a second later."""

    def __init__(self, clock: FixedClock, reply: Callable[[str], str] = str.upper) -> None:
        self.clock, self.reply = clock, reply
        self.asked: list[tuple[list[dict[str, Any]], str, dict[str, Any]]] = []

    async def complete(self, messages: Sequence[Mapping[str, Any]], model: str, **parameters: Any) -> Answer:
        self.asked.append(([dict(each) for each in messages], model, parameters))
        self.clock.advance(0.5)
        return Answer(self.reply(str(messages[-1]["content"])))


async def by_length(evaluator: Evaluator, subject: Subject) -> ScoreValue | NotScored:
    if not isinstance(subject.output, str):
        return NotScored("no text")
    return ScoreValue(float(len(subject.output)), None, None, None, "numerical")


def item(inputs: Any = None, outputs: Any = None, **rest: Any) -> Item:
    given = {"q": "why"} if inputs is None else inputs
    fields = {"metadata": {"lang": "de"}, **rest}
    return Item(
        "01" * 16, "0d" * 16, "01" * 16, given, outputs, fields.pop("metadata"), (), None, 0, 0, None, False, **fields
    )


class Case:
    """A passage through one workflow."""

    def __init__(self, *workflow: tuple[str, dict[str, Any]], of: Item | None = None, llm: bool = True) -> None:
        self.clock = FixedClock()
        self.llm = FakeLlm(self.clock)
        known = {LENGTH.slug: LENGTH, LENGTH.uuid: LENGTH}
        self.tools = Tools(self.llm if llm else None, by_length, known, self.clock, "acme")
        self.steps = parse_workflow([{"type": kind, "config": config} for kind, config in workflow])
        self.passage = Passage(of or item())

    def run(self) -> Passage:
        asyncio.run(run_steps(self.steps, self.passage, self.tools))
        return self.passage

    def score(self, *names: str) -> list[str]:
        return asyncio.run(score_all(names, self.passage, self.tools))


def policy(**fields: Any) -> dict[str, Any]:
    return {"condition_policy": {name: {"operator": said[0], "value": said[1]} for name, said in fields.items()}}


def test_duplicate_takes_what_was_recorded_else_the_reference() -> None:
    assert Case(("duplicate", {}), of=item(outputs="right")).run().output == "right"
    assert Case(("duplicate", {}), of=item(outputs="right", observed="said")).run().output == "said"
    failed = Case(("duplicate", {})).run()
    assert failed.error == "StepFailed: the item has no output to duplicate"
    assert (failed.has_output, failed.runs[0].error) == (False, failed.error)


def test_a_completion_is_asked_with_the_rendered_template() -> None:
    case = Case(("completion", {"model": "m", "template": "{{q}} {{input.q}} {{metadata.lang}}", "temperature": 0}))
    passage = case.run()
    assert case.llm.asked == [([{"role": "user", "content": "why why de"}], "m", {"temperature": 0})]
    assert passage.output == "WHY WHY DE"
    assert passage.used == Usage(0.5, Decimal("0.001"), 10, 4, 14)
    run = passage.runs[0]
    assert (run.name, run.run_type, run.outputs) == ("completion", "llm", "WHY WHY DE")
    assert run.end_ns == run.start_ns + 500_000_000
    assert run.metadata["ls_model_name"] == "m-2026"
    assert run.metadata["usage_metadata"] == {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


@pytest.mark.parametrize(
    ("inputs", "messages"),
    [
        ("plain", [{"role": "user", "content": "plain"}]),
        ({"only": "one"}, [{"role": "user", "content": "one"}]),
        ({"a": 1, "b": 2}, [{"role": "user", "content": '{"a": 1, "b": 2}'}]),
        ({"messages": [{"role": "system", "content": "s"}], "x": 1}, [{"role": "system", "content": "s"}]),
    ],
)
def test_without_a_template_the_input_itself_is_asked(inputs: Any, messages: Any) -> None:
    case = Case(("completion", {"model": "m"}), of=item(inputs))
    case.run()
    assert case.llm.asked[0][0] == messages


def test_steps_follow_one_another_and_add_up() -> None:
    second = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "again: {{output}}"}]}]}
    case = Case(
        ("prompt", {"model": "m", "prompt_slug": "greet", "version": 2, "template": "{{q}}"}), ("completion", second)
    )
    passage = case.run()
    assert case.llm.asked[1][0][0]["content"] == [{"type": "text", "text": "again: WHY"}]
    assert passage.used == Usage(1.0, Decimal("0.002"), 20, 8, 28)
    assert passage.runs[0].name == "prompt"
    assert passage.runs[0].metadata["lc_hub_repo"] == "greet"
    assert passage.runs[0].metadata["lc_hub_commit_hash"] == "2"


def test_a_step_that_fails_ends_the_item_and_nothing_scores_what_is_not_there() -> None:
    case = Case(("completion", {"model": "m", "template": "{{absent}}"}), ("duplicate", {}), of=item(outputs="x"))
    passage = case.run()
    assert passage.error is not None
    assert passage.error.startswith("UnknownName: the template names `absent`")
    assert [run.name for run in passage.runs] == ["completion"]
    assert not case.llm.asked

    class Down(ClearspanError):
        """The endpoint is down."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise Down

    case = Case(("completion", {"model": "m"}))
    case.llm.complete = fail  # type: ignore[method-assign]
    assert case.run().error == "Down: The endpoint is down."
    assert case.passage.runs[0].inputs == {"messages": [{"role": "user", "content": "why"}]}, "what was asked is told"
    assert Case(("completion", {"model": "m"}), llm=False).run().error == "StepFailed: no endpoint for models is set"


def test_a_bug_in_a_step_is_of_one_item() -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret content")

    case = Case(("completion", {"model": "m"}))
    case.llm.complete = fail  # type: ignore[method-assign]
    assert case.run().error == "RuntimeError: in the server; its log says more"


def test_wait_stops_the_item_until_somebody_gives_something() -> None:
    case = Case(("wait", {}), ("completion", {"model": "m", "template": "{{input}} {{output}}"}))
    passage = case.run()
    assert (passage.is_waiting, passage.at, passage.error) == (True, 1, None)
    assert passage.runs[0].end_ns is None
    case.passage = Passage(item(), given="mine", output="theirs", has_output=True, at=1)
    assert case.run().output == "MINE THEIRS"
    assert [run.number for run in case.passage.runs] == [1]


def test_conditions_stop_or_skip() -> None:
    long = policy(output=("contains", ["WHY"]))
    call = ("completion", {"model": "m", "template": "{{q}}!"})
    assert len(Case(call, ("condition", long), call).run().runs) == 3
    stopped = Case(call, ("condition", policy(output=("contains", ["NO"]))), call, call).run()
    assert [run.outputs for run in stopped.runs] == ["WHY!", {"passed": False, "on_false": "stop"}]
    assert stopped.output == "WHY!"
    skip = ("condition", {**policy(output=("contains", ["NO"])), "on_false": "skip"})
    skipped = Case(call, skip, call, call).run()
    assert [run.number for run in skipped.runs] == [0, 1, 3]
    assert Case(call, skip).run().error is None, "there may be nothing to skip"


def test_inline_evaluators_score_and_conditions_see_it() -> None:
    call = ("completion", {"model": "m", "template": "{{q}}"})
    case = Case(call, ("eval", {"evaluator_slugs": ["length"]}), ("condition", policy(scores__length=("gt", 3))), call)
    passage = case.run()
    assert [run.name for run in passage.runs] == ["completion", "eval", "condition"]
    assert passage.runs[1].outputs == {"scores": {"length": {"score": 3.0}}}
    assert passage.scored[LENGTH.uuid][1] == ScoreValue(3.0, None, None, None, "numerical")


def test_missing_is_not_zero() -> None:
    case = Case(("condition", policy(metadata__lang=("", ["en"]))), ("completion", {"model": "m"}))
    case.run()
    assert case.score("length", "gone") == ["gone"]
    assert case.passage.scored == {LENGTH.uuid: (LENGTH, NO_OUTPUT)}
    assert GONE.reason
    case = Case(("duplicate", {}), of=item(outputs={"a": 1}))
    case.run()
    case.score("length")
    assert case.passage.scored[LENGTH.uuid] == (LENGTH, NotScored("no text"))
    assert case.passage.used.latency_s is None, "nothing was called, so nothing took a time"
    assert case.passage.subject().total_tokens is None
