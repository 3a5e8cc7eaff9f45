"""Which results an experiment has by now, asked of the store: the only truth about its progress. Every call blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from clearspan.catalog.experiments import Experiment
from clearspan.experiments.result_runs import (
    ATTEMPT_KEY,
    FIRST_ATTEMPT,
    NEWEST,
    NOT_SCORED,
    WAIT_NAME,
    ResultId,
    step_id,
)
from clearspan.experiments.usage import NO_USAGE, Usage, stated_usage, usage_of_calls
from clearspan.experiments.workflow import timeout_hours, type_of
from clearspan.ingest.payload import decode_record
from clearspan.ingest.run_document import run_values
from clearspan.ingest.run_promotion import KIND_OF_RUN_TYPE, REFERENCE_EXAMPLE_KEY
from clearspan.model.ids import normalise_id
from clearspan.model.span import Span
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import IS_ROOT, field_named
from clearspan.query.operators import Operator
from clearspan.store.figures import FigureReader
from clearspan.store.port import SpanDetail, TraceReader
from clearspan.store.spans import SpanOrder, SpanPosition, SpanReader

AT_ONCE: Final = 500
HOUR_NS: Final = 3_600 * 10**9
_ROOT: Final = Condition(IS_ROOT, Operator.EQUALS, (True,))
_IS_WAIT: Final = Condition(field_named("span_name"), Operator.EQUALS, (WAIT_NAME,))
_PENDING: Final = Condition(field_named("span_status"), Operator.EQUALS, ("pending",))
_CALL: Final = KIND_OF_RUN_TYPE["llm"]
_TRACE_ID: Final = field_named("trace_unique_id")


class ResultStatus(StrEnum):
    """How a result stands."""

    SUCCESS = "success"
    ERROR = "error"
    WAITING = "waiting"  # for somebody's input and output
    GIVEN = "given"  # it has got them, and its workflow must go on


class ResultState(NamedTuple):
    """The newest attempt at an item."""

    result: ResultId
    status: ResultStatus


class Counts(NamedTuple):
    """Results by how they stand; of each item the newest attempt."""

    success: int
    failed: int
    waiting: int  # those included whose workflow must go on
    not_scored: int  # that lack the score of some evaluator

    @property
    def results(self) -> int:
        return self.success + self.failed + self.waiting


class Waiting(NamedTuple):
    """A result that waits, or was given what it waited for, as far as going on with it takes."""

    result: ResultId
    start_ns: int
    step: int  # number of the step that waits
    step_start_ns: int
    given: Mapping[str, Any] | None = None  # `input`, `output`, `metrics` and `metadata`; None: it waits still
    used: Usage = NO_USAGE  # before that step: by calls, and while it waited at earlier ones


class StoreReader(TraceReader, SpanReader, FigureReader, Protocol):
    """What the runner reads of the store."""


class ResultStates:
    """Reads the results of one experiment."""

    def __init__(self, reader: StoreReader, experiment: Experiment) -> None:
        self._reader = reader
        self._scope = Scope((experiment.project_id,))
        self._project_uuid = experiment.uuid
        self._waits = [number for number, step in enumerate(experiment.workflow) if type_of(step) == "wait"]
        self._waits_ns = {
            number: round(hours * HOUR_NS)
            for number in self._waits
            if (hours := timeout_hours(experiment.workflow[number])) is not None
        }

    def of_items(self, item_ids: Sequence[str], attempts: int) -> dict[str, ResultState]:
        """item → its newest attempt among the first so many; items without a result are left out."""
        found: dict[str, ResultState] = {}
        for start in range(0, len(item_ids), AT_ONCE):
            asked = [
                ResultId(self._project_uuid, item_id, attempt)
                for item_id in item_ids[start : start + AT_ONCE]
                for attempt in range(FIRST_ATTEMPT, attempts + 1)
            ]
            found |= self._of_results(asked)
        return found

    def _of_results(self, asked: Sequence[ResultId]) -> dict[str, ResultState]:
        by_trace = {result.trace_id: result for result in asked}
        newest: dict[str, tuple[ResultId, str]] = {}
        for trace_id, span in self._spans(list(by_trace), _ROOT):
            result = by_trace[trace_id]
            if result.item_id not in newest or newest[result.item_id][0].attempt < result.attempt:
                newest[result.item_id] = result, span.status
        pending = [result for result, status in newest.values() if status == "pending"]
        given = self._given([result.trace_id for result in pending])
        return {
            item_id: ResultState(result, _status(status, result.trace_id in given))
            for item_id, (result, status) in newest.items()
        }

    def _given(self, trace_ids: Sequence[str]) -> set[str]:
        """Those of some pending results none of whose steps waits any more."""
        if not trace_ids:
            return set()
        waits = {step_id(trace_id, number) for trace_id in trace_ids for number in self._waits}
        waiting = {
            trace_id
            for trace_id, span in self._spans(trace_ids, None)
            if span.span_id in waits and span.status == "pending"
        }
        return set(trace_ids) - waiting

    def _spans(self, trace_ids: Sequence[str], where: Expr | None) -> Iterator[tuple[str, Span]]:
        """(trace, span) of those traces."""
        for start in range(0, len(trace_ids), AT_ONCE):
            of_traces = Condition(_TRACE_ID, Operator.IN, tuple(trace_ids[start : start + AT_ONCE]))
            asked = of_traces if where is None else Group("AND", (of_traces, where))
            after: SpanPosition | None = None
            while True:
                page = self._reader.list_spans(
                    self._scope,
                    asked,
                    Window(),
                    order=SpanOrder.ARRIVAL_ASC,
                    after=after,
                    limit=10 * AT_ONCE,
                    records=False,
                )
                for row in page.rows:
                    yield row.trace.summary.trace_id, row.detail.span
                after = page.after
                if after is None:
                    break

    def find_waiting(self, trace_id: str) -> Waiting | None:
        """A pending result, None when there is no such result or it has ended."""
        detail = self._reader.get_trace(self._scope, normalise_id(trace_id))
        if detail is None:
            return None
        spans = {each.span.span_id: each for each in detail.spans}
        root = spans.get(detail.row.summary.trace_id)
        result = self._result_of(detail.row.summary)
        if root is None or root.span.status != "pending" or result is None:
            return None
        waits = [
            (number, found)
            for number in self._waits
            if (found := spans.get(step_id(result.trace_id, number))) is not None
        ]
        if not waits:
            return None
        number, last = waits[-1]
        waiting = Waiting(result, root.span.start_ns, number, last.span.start_ns)
        if last.span.status != "pending":
            waiting = waiting._replace(given=_given_to(last))
        used = usage_of_calls(each.span for each in detail.spans if each.span.kind == _CALL)
        for _, earlier in waits[:-1]:
            used = used.plus(stated_usage(_given_to(earlier).get("metrics")))
        return waiting._replace(used=used)

    def overdue(self, now_ns: int) -> list[str]:
        """The traces that wait at a step whose `timeout_hours` are over. Cost: 40 µs for each that waits that long."""
        if not self._waits_ns:
            return []
        where = Group("AND", (_IS_WAIT, _PENDING))
        window = Window(None, now_ns - min(self._waits_ns.values()) + 1)
        found: list[str] = []
        after: SpanPosition | None = None
        while True:
            page = self._reader.list_spans(
                self._scope, where, window, order=SpanOrder.ARRIVAL_ASC, after=after, limit=5_000, records=False
            )
            for row in page.rows:
                trace_id, span = row.trace.summary.trace_id, row.detail.span
                allowed = {step_id(trace_id, number): allowed_ns for number, allowed_ns in self._waits_ns.items()}
                if span.span_id in allowed and span.start_ns + allowed[span.span_id] <= now_ns:
                    found.append(trace_id)
            after = page.after
            if after is None:
                return found

    def without_item(self, item_ids: Set[str]) -> list[str]:
        """The traces of results that the server made of items that are not among these. Cost: as `counts`."""
        found: list[str] = []
        after: SpanPosition | None = None
        while True:
            page = self._reader.list_spans(
                self._scope, _ROOT, Window(), order=SpanOrder.ARRIVAL_ASC, after=after, limit=5_000, records=False
            )
            for row in page.rows:
                result = self._result_of(row.trace.summary)
                if result is not None and result.item_id not in item_ids:
                    found.append(result.trace_id)
            after = page.after
            if after is None:
                return found

    def _result_of(self, summary: TraceSummary) -> ResultId | None:
        """Which result of ours a trace is; None: it came from elsewhere."""
        marks = dict(summary.metadata)
        item_id, attempt = marks.get(REFERENCE_EXAMPLE_KEY), marks.get(ATTEMPT_KEY, "")
        if item_id is None or not (attempt.isascii() and attempt.isdigit()):
            return None
        result = ResultId(self._project_uuid, item_id.replace("-", ""), int(attempt))
        return result if result.trace_id == summary.trace_id else None

    def counts(self) -> Counts:
        """How many results there are. Cost: some 3 µs each."""
        by_status = self._reader.span_statuses(self._scope, Group("AND", (_ROOT, NEWEST)), Window())
        not_scored = self._reader.count_traces(self._scope, Group("AND", (NEWEST, NOT_SCORED)), Window())
        failed, waiting = by_status.get("error", 0), by_status.get("pending", 0)
        return Counts(sum(by_status.values()) - failed - waiting, failed, waiting, not_scored)


def _status(stored: str, is_given: bool) -> ResultStatus:
    if stored == "pending":
        return ResultStatus.GIVEN if is_given else ResultStatus.WAITING
    return ResultStatus.ERROR if stored == "error" else ResultStatus.SUCCESS


def _given_to(step: SpanDetail) -> dict[str, Any]:
    """What somebody gave to a step that waited."""
    return run_values(decode_record(step.record).raw).get("outputs") or {}
