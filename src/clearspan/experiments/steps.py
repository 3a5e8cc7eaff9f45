"""Running the workflow of one item: one step after the other, each leaving a record of what it did.

Nothing is written here and nothing is kept: the runner stores what comes out. A step that fails ends the item with an
error; no step after it runs, and no evaluator scores what is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, assert_never

from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.conditions import hold
from clearspan.experiments.item_documents import Item
from clearspan.experiments.result_runs import WAIT_NAME, StepRun
from clearspan.experiments.score_types import NotScored, ScoreValue, Subject
from clearspan.experiments.templates import as_text, render_template
from clearspan.experiments.usage import NO_USAGE, Usage
from clearspan.experiments.workflow import Branch, Call, Duplicate, Evaluate, Step, Wait
from clearspan.model.clock import Clock
from clearspan.model.errors import ClearspanError

_log = logging.getLogger("clearspan.experiments")
GONE: Final = NotScored("there is no such evaluator any more")
NO_OUTPUT: Final = NotScored("the workflow gave no output")


class Answer(Protocol):
    """What a model said (experiments.llm.Completion)."""

    @property
    def text(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def cost_usd(self) -> Decimal | None: ...


class Llm(Protocol):
    """The endpoint that the operator has set (experiments.llm.LlmClient)."""

    async def complete(self, messages: Sequence[Mapping[str, Any]], model: str, **parameters: Any) -> Answer:
        """One answer."""
        ...


class StepFailed(ClearspanError):
    """The step could not be carried out."""

    code = "step_failed"


Scored: TypeAlias = tuple[Evaluator, ScoreValue | NotScored]
Scoring: TypeAlias = Callable[[Evaluator, Subject], Awaitable[ScoreValue | NotScored]]


class Tools(NamedTuple):
    """What steps work with.

    Attributes:
        llm: None: the operator has set no endpoint.
        score: one evaluator on one result; raises for what is wrong with the endpoint, not with the result.
        evaluators: by UUID and by slug.
        provider: whose prices the endpoint's models have; None: the model's name decides.
    """

    llm: Llm | None
    score: Scoring
    evaluators: Mapping[str, Evaluator]
    clock: Clock
    provider: str | None = None


@dataclass(slots=True)
class Passage:
    """One item on its way through the workflow.

    Attributes:
        output: of the last step that gave one.
        given: what somebody gave to a step that waited, in place of the item's inputs; None: nothing.
        scored: by evaluator's UUID, the latest that was said.
        used: by the calls of models, and by what was done while it waited.
        at: the step that comes next.
        runs: a record of each step so far.
    """

    item: Item
    given: Any = None
    output: Any = None
    has_output: bool = False
    scored: dict[str, Scored] = field(default_factory=dict)
    used: Usage = NO_USAGE
    at: int = 0
    is_waiting: bool = False
    error: str | None = None
    runs: list[StepRun] = field(default_factory=list)

    @property
    def inputs(self) -> Any:
        """What the next step is asked with."""
        return self.item.inputs if self.given is None else self.given

    def facts(self) -> dict[str, Any]:
        """What conditions and templates can name."""
        facts: dict[str, Any] = {"input": self.inputs, "metadata": self.item.metadata, "scores": self._scores()}
        if self.has_output:
            facts["output"] = self.output
        if self.item.outputs is not None:
            facts["expected_output"] = self.item.outputs
        return facts

    def subject(self) -> Subject:
        """What evaluators see."""
        return Subject(
            inputs=self.inputs,
            output=self.output,
            expected=self.item.outputs,
            metadata=self.item.metadata,
            error=self.error,
            **self.used._asdict(),
        )

    def _scores(self) -> dict[str, Any]:
        """The scores by slug and by UUID: the number, else the label, else the value."""
        out: dict[str, Any] = {}
        for evaluator, given in self.scored.values():
            if isinstance(given, ScoreValue):
                found = next((each for each in (given.score, given.label, given.value) if each is not None), None)
                out[evaluator.slug] = out[evaluator.uuid] = found
        return out


async def run_steps(steps: Sequence[Step], passage: Passage, tools: Tools) -> None:
    """Carry an item on from `passage.at` until its workflow ends, fails, or waits for somebody."""
    while passage.at < len(steps) and passage.error is None and not passage.is_waiting:
        step, number = steps[passage.at], passage.at
        passage.at += 1
        start_ns, start_s = tools.clock.now_ns(), tools.clock.monotonic_s()
        try:
            said = await _run_step(step, steps, passage, tools)
        except ClearspanError as error:
            said = _Said(error=f"{type(error).__name__}: {error.message}")
        except Exception as error:  # of one item: the others go on, and this one says that it failed
            _log.exception("a step of an experiment failed")
            said = _Said(error=f"{type(error).__name__}: in the server; its log says more")
        took_s = tools.clock.monotonic_s() - start_s
        end_ns = None if passage.is_waiting else start_ns + round(took_s * 1e9)
        if isinstance(step, Call):
            passage.used = passage.used.plus(Usage(latency_s=took_s))
        passage.error = said.error
        passage.runs.append(_record(number, step, start_ns, end_ns, said, tools.provider))


async def score_all(evaluators: Sequence[str], passage: Passage, tools: Tools) -> list[str]:
    """Let evaluators score what there is.

    Returns:
        The names of those that are gone: nothing can be recorded of them but that.
    """
    gone: list[str] = []
    for name in evaluators:
        evaluator = tools.evaluators.get(name)
        if evaluator is None:
            gone.append(name)
        elif not passage.has_output and passage.error is None:
            passage.scored[evaluator.uuid] = evaluator, NO_OUTPUT
        else:
            passage.scored[evaluator.uuid] = evaluator, await tools.score(evaluator, passage.subject())
    return gone


class _Said(NamedTuple):
    """What a step did, for its record."""

    inputs: Any = None
    outputs: Any = None
    error: str | None = None
    answer: Answer | None = None


async def _run_step(step: Step, steps: Sequence[Step], passage: Passage, tools: Tools) -> _Said:
    match step:
        case Duplicate():
            return _duplicate(passage)
        case Wait():
            passage.is_waiting = True
            return _Said(passage.inputs)
        case Branch():
            return _branch(step, steps, passage)
        case Call():
            return await _call(step, passage, tools)
        case Evaluate():
            return await _evaluate(step, passage, tools)
        case _:
            assert_never(step)


def _duplicate(passage: Passage) -> _Said:
    item = passage.item
    found = item.outputs if item.observed is None else item.observed
    if found is None:
        raise StepFailed("the item has no output to duplicate")
    passage.output, passage.has_output = found, True
    return _Said(passage.inputs, found)


def _branch(step: Branch, steps: Sequence[Step], passage: Passage) -> _Said:
    passed = hold(step.checks, passage.facts())
    if not passed:
        passage.at = len(steps) if step.on_false == "stop" else passage.at + 1
    return _Said(None, {"passed": passed} if passed else {"passed": False, "on_false": step.on_false})


async def _call(step: Call, passage: Passage, tools: Tools) -> _Said:
    if tools.llm is None:
        raise StepFailed("no endpoint for models is set")
    messages = messages_of(step, passage)
    try:
        answer = await tools.llm.complete(messages, step.model, **step.parameters)
    except ClearspanError as error:
        return _Said({"messages": messages}, error=f"{type(error).__name__}: {error.message}")
    passage.output, passage.has_output = answer.text, True
    passage.used = passage.used.plus(_used_by(answer))
    return _Said({"messages": messages}, answer.text, answer=answer)


async def _evaluate(step: Evaluate, passage: Passage, tools: Tools) -> _Said:
    gone = await score_all(step.evaluators, passage, tools)
    if gone:
        raise StepFailed("an evaluator of this step does not exist any more")
    mine = {tools.evaluators[name].uuid for name in step.evaluators}
    told = {passage.scored[each][0].slug: _told(passage.scored[each][1]) for each in mine}
    return _Said(None, {"scores": dict(sorted(told.items()))})


def _told(given: ScoreValue | NotScored) -> dict[str, Any]:
    if isinstance(given, NotScored):
        return {"not_scored": given.reason}
    told = {name: getattr(given, name) for name in ("score", "label", "value", "explanation")}
    return {name: value for name, value in told.items() if value is not None}


def _used_by(answer: Answer) -> Usage:
    """What a call used but its time, which counts when it fails, too."""
    counts = [each for each in (answer.prompt_tokens, answer.completion_tokens) if each is not None]
    return Usage(
        cost_usd=answer.cost_usd,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=sum(counts) if counts else None,
    )


def messages_of(step: Call, passage: Passage) -> list[dict[str, Any]]:
    """The messages that a call sends.

    Raises:
        UnknownName: a template names what the item does not have.
    """
    inputs = passage.inputs
    if step.messages is None:
        if isinstance(inputs, dict) and isinstance(inputs.get("messages"), list):
            return [dict(each) for each in inputs["messages"] if isinstance(each, dict)]
        only = next(iter(inputs.values())) if isinstance(inputs, dict) and len(inputs) == 1 else inputs
        return [{"role": "user", "content": as_text(only)}]
    named = {key: value for key, value in inputs.items() if isinstance(key, str)} if isinstance(inputs, dict) else {}
    facts = passage.facts()
    values = named | {name: facts[name] for name in facts if name != "scores"}
    return [{**message, "content": _rendered(message.get("content"), values)} for message in step.messages]


def _rendered(content: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(content, str):
        return render_template(content, values)
    if not isinstance(content, list):
        return content
    return [
        {**part, "text": render_template(part["text"], values)}
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else part
        for part in content
    ]


_NAMES: Final[Mapping[type, str]] = {Duplicate: "duplicate", Wait: WAIT_NAME, Branch: "condition", Evaluate: "eval"}


def _record(number: int, step: Step, start_ns: int, end_ns: int | None, said: _Said, provider: str | None) -> StepRun:
    metadata: dict[str, Any] = {}
    parameters: Mapping[str, Any] = {}
    name = _NAMES.get(type(step), "completion")
    if isinstance(step, Call):
        metadata["ls_model_name"] = step.model if said.answer is None else said.answer.model
        if provider is not None:
            metadata["ls_provider"] = provider
        parameters = {**step.parameters, "model": step.model}
        if step.prompt is not None:
            name = "prompt"
            metadata["lc_hub_repo"] = step.prompt
        if step.version is not None:
            metadata["lc_hub_commit_hash"] = step.version
        if said.answer is not None:
            metadata["usage_metadata"] = _usage(said.answer)
    return StepRun(
        number=number,
        name=name,
        run_type="llm" if isinstance(step, Call) else "chain",
        start_ns=start_ns,
        end_ns=end_ns,
        inputs=said.inputs,
        outputs=said.outputs,
        error=said.error,
        metadata=metadata,
        parameters=parameters,
    )


def _usage(answer: Answer) -> dict[str, int]:
    counts = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}
    known = {name: count for name, count in counts.items() if count is not None}
    return known | ({"total_tokens": sum(known.values())} if len(known) == 2 else {})
