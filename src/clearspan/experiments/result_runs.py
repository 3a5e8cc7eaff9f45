"""One item's result ↔ the LangSmith run documents that it is stored as: a root, and a child for each step. Pure.

Ids are worked out from what the result is the result of, so that whoever repeats it after a crash writes the same
runs. A result is written whole, root and children in one transaction, once its item has ended or waits: what was cut
short has left nothing.

The root's metadata, beside the item's own:

    experiment_attempt      1, or more after a retry
    experiment_superseded   the attempt that replaced this one; only of those that were: lists leave them out
    not_scored              evaluator → why there is no score
    not_scored_count        of how many

It names its item as `reference_example_id`: whatever deletes the item, and so whatever deletes the trace that the item
was made from, takes the result with it (deletion/linked.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.experiments.item_documents import Item
from clearspan.ingest.langsmith import RunSource, batch_runs, decode_runs, nowhere
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.metadata import flatten
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_parts import RunOperation
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY, dotted_segment, dotted_uuid
from clearspan.ingest.semconv import METADATA_PAIRS_MAX
from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import PayloadTooLarge
from clearspan.model.span import TraceBatch
from clearspan.query.ast import Condition
from clearspan.query.fields import METADATA
from clearspan.query.operators import Operator

ATTEMPT_KEY: Final = "experiment_attempt"
SUPERSEDED_KEY: Final = "experiment_superseded"
NOT_SCORED_KEY: Final = "not_scored"
NOT_SCORED_COUNT_KEY: Final = "not_scored_count"
METRICS_KEY: Final = "metrics"
WAIT_NAME: Final = "wait"
"""Of the run of a step that waits."""
FIRST_ATTEMPT: Final = 1
REPETITION: Final = 1
"""The only one there is as yet; part of the id, so that more of them need no new ids."""

RESERVED: Final = frozenset({ATTEMPT_KEY, SUPERSEDED_KEY, NOT_SCORED_KEY, NOT_SCORED_COUNT_KEY, REFERENCE_EXAMPLE_KEY})
"""Metadata by which results are found and counted: nobody else's metadata may say it."""

_ROOM: Final = 32
"""Metadata of ours that one result has at most, reasons of unscored evaluators beyond it left out."""
_encode: Final = msgspec.json.Encoder().encode

NEWEST: Final = Condition(METADATA, Operator.IS_NULL, (), SUPERSEDED_KEY)
"""Holds for a result that no later attempt replaced; a condition of every list of results."""
NOT_SCORED: Final = Condition(METADATA, Operator.IS_NOT_NULL, (), NOT_SCORED_COUNT_KEY)
"""Holds for a result that lacks the score of some evaluator."""


class ResultId(NamedTuple):
    """Which result a trace is."""

    project_uuid: str  # of the experiment
    item_id: str
    attempt: int = FIRST_ATTEMPT

    @property
    def trace_id(self) -> str:
        """32 hex digits; also the id of the root run."""
        return uuid.uuid5(uuid.UUID(self.project_uuid), f"{self.item_id}/{REPETITION}/{self.attempt}").hex


class StepRun(NamedTuple):
    """What one step of the workflow did."""

    number: int
    name: str
    run_type: str
    start_ns: int
    end_ns: int | None  # None: it waits
    inputs: Any = None
    outputs: Any = None
    error: str | None = None
    metadata: Mapping[str, Any] = {}
    parameters: Mapping[str, Any] = {}  # of a call of a model


class Ending(NamedTuple):
    """How a result stands when it is written."""

    end_ns: int | None  # None: it waits
    outputs: Any
    error: str | None = None
    inputs: Any = None  # in place of the item's; None: those
    metadata: Mapping[str, Any] = {}


class ResultWriter:
    """Makes the batches of one experiment's results.

    Args:
        has_steps: whether every step is a run of its own; else only calls of models and waiting ones are, and calls say
            no more than tokens and cost.
    """

    def __init__(
        self, project_id: int, name: str, prices: PriceBook | None, limits: IngestLimits, *, has_steps: bool
    ) -> None:
        self._project_id = project_id
        self._name = name
        self._prices = prices
        self._limits = limits
        self._has_steps = has_steps

    def whole(
        self, result: ResultId, item: Item, start_ns: int, ending: Ending, steps: Sequence[StepRun], received_ns: int
    ) -> list[TraceBatch]:
        """A result that is new, the attempt that it replaces marked as such.

        Raises:
            PayloadTooLarge: a value is larger than ingest takes; the words name no content.
        """
        trace_id = result.trace_id
        metadata: dict[str, Any] = {ATTEMPT_KEY: result.attempt, **ending.metadata}
        metadata |= _item_metadata(item, metadata)
        fields = {
            "name": self._name,
            "run_type": "chain",
            "start_time": iso(start_ns),
            "reference_example_id": dotted_uuid(item.id),
            "inputs": item_inputs(item),
            "extra": {"metadata": metadata},
            **_ended(ending),
        }
        operations = [_operation(False, trace_id, trace_id, fields), *self._children(trace_id, start_ns, steps)]
        batches = self._batches(operations, received_ns)
        if result.attempt > FIRST_ATTEMPT:
            older = result._replace(attempt=result.attempt - 1).trace_id
            mark = {"extra": {"metadata": {SUPERSEDED_KEY: str(result.attempt)}}}
            batches += self._batches([_operation(True, older, older, mark)], received_ns)
        return batches

    def given(self, trace_id: str, step: StepRun, received_ns: int) -> list[TraceBatch]:
        """What somebody gave to a step that waited, and what of time and money it took by what they say.

        The figures are the step's own, so that they add up with those of calls before and after it: the figures of a
        root count only where nothing below it has any.
        """
        said: dict[str, Any] = {"end_time": iso(step.end_ns), "outputs": as_object(step.outputs, "output")}
        if step.metadata:
            said["extra"] = {"metadata": dict(step.metadata)}
        return self._batches([_operation(True, trace_id, step_id(trace_id, step.number), said)], received_ns)

    def resumed(
        self, trace_id: str, start_ns: int, ending: Ending, steps: Sequence[StepRun], received_ns: int
    ) -> list[TraceBatch]:
        """The rest of a result that had waited."""
        said = {"extra": {"metadata": dict(ending.metadata)}, **_ended(ending)}
        operations = [_operation(True, trace_id, trace_id, said), *self._children(trace_id, start_ns, steps)]
        return self._batches(operations, received_ns)

    def timed_out(self, trace_id: str, number: int, ending: Ending, received_ns: int) -> list[TraceBatch]:
        """The end of a result that nobody resumed in time: the step that waited failed, and so did the result."""
        said = {name: value for name, value in _ended(ending).items() if name in ("end_time", "error")}
        runs = (trace_id, step_id(trace_id, number))
        return self._batches([_operation(True, trace_id, run_id, said) for run_id in runs], received_ns)

    def _children(self, trace_id: str, start_ns: int, steps: Sequence[StepRun]) -> list[RunOperation]:
        out: list[RunOperation] = []
        for step in steps:
            is_call = step.run_type == "llm"
            if not self._has_steps and not is_call and step.end_ns is not None and step.name != WAIT_NAME:
                continue
            run_id = step_id(trace_id, step.number)
            place = f"{dotted_segment(start_ns, trace_id)}.{dotted_segment(step.start_ns, run_id)}"
            fields: dict[str, Any] = {
                "name": step.name,
                "run_type": step.run_type,
                "start_time": iso(step.start_ns),
                "parent_run_id": dotted_uuid(trace_id),
                "dotted_order": place,
                "extra": {"metadata": dict(step.metadata), "invocation_params": dict(step.parameters)},
            }
            if step.end_ns is not None:
                fields["end_time"] = iso(step.end_ns)
            if step.error is not None:
                fields["error"] = step.error
            if self._has_steps:
                fields["inputs"] = as_object(step.inputs, "input")
                if step.outputs is not None:
                    fields["outputs"] = as_object(step.outputs, "output")
            out.append(_operation(False, trace_id, run_id, fields))
        return out

    def _batches(self, operations: Sequence[RunOperation], received_ns: int) -> list[TraceBatch]:
        decoded = decode_runs(operations, RunSource(received_ns, limits=self._limits), nowhere)
        if decoded.rejected:
            raise PayloadTooLarge(f"the result cannot be stored: {decoded.rejected[0].reason}")
        return batch_runs(self._project_id, decoded.runs, self._prices, self._limits).batches


def step_id(trace_id: str, index: int) -> str:
    """The run id of a step of a result: 32 hex digits."""
    return uuid.uuid5(uuid.UUID(trace_id), f"step/{index}").hex


def item_inputs(item: Item) -> Any:
    """The inputs of an item as those of its result's root: an object in its own text."""
    text = item.texts.get("inputs")
    return msgspec.Raw(text) if text is not None and text[:1] == b"{" else as_object(item.inputs, "input")


def as_object(value: Any, name: str) -> Any:
    """A value as a run's inputs or outputs, which LangSmith's clients want to be an object."""
    return value if isinstance(value, dict | msgspec.Raw) else {name: value}


def unwrapped(value: Any, name: str) -> Any:
    """What `as_object` was given, for a value that it may have made."""
    return value[name] if isinstance(value, dict) and value.keys() == {name} else value


def _item_metadata(item: Item, ours: Mapping[str, Any]) -> dict[str, Any]:
    """As much of the item's own metadata as the store indexes, with room left for what a later update says."""
    room = METADATA_PAIRS_MAX - _ROOM
    out: dict[str, Any] = {}
    for key, value in item.metadata.items():
        room -= sum(1 for _ in flatten(value, key))
        if room < 0:
            break
        if key not in ours and key not in RESERVED:
            out[key] = value
    return out


def iso(at_ns: int | None) -> str | None:
    """A time as a run says it."""
    return None if at_ns is None else datetime_from_ns(at_ns).isoformat()


def _ended(ending: Ending) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if ending.end_ns is not None:
        fields["end_time"] = iso(ending.end_ns)
    if ending.inputs is not None:
        fields["inputs"] = as_object(ending.inputs, "input")
    if ending.outputs is not None:
        fields["outputs"] = as_object(ending.outputs, "output")
    if ending.error is not None:
        fields["error"] = ending.error
    return fields


def _operation(is_update: bool, trace_id: str, run_id: str, fields: Mapping[str, Any]) -> RunOperation:
    said = {"trace_id": dotted_uuid(trace_id), **fields}
    return RunOperation(is_update, run_id, {name: _encode(value) for name, value in said.items()})
