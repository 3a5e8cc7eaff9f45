"""The results of an experiment, read from the store: pages, single ones, figures. Nothing here is kept anywhere.

A result is a trace of the experiment's project, whatever dialect it came by. Its score of some name is the newest
annotation of that name about the trace or its root span; a score that is not there is left out, never taken for 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import orjson

from clearspan.ingest.detail import decode_span
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.errors import InvalidPage, PayloadTooLarge, ReadTooSlow
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.annotations import AnnotationReader, AnnotationRow, ScoreRow
from clearspan.store.figures import FigureReader, Said, ScoreColumn
from clearspan.store.port import TraceDetail, TraceReader, TraceRow
from clearspan.store.sessions import SessionReader, TraceOrder, TracePosition, TraceWalk
from clearspan.store.spans import SpanReader

SORTED_MAX: Final = 20_000
"""Most results that are put into an order which the store does not keep."""
PAGE_BYTES_MAX: Final = 32 * 2**20
"""Most bytes of wire records behind one page."""
_WALK: Final = 1_000
_LOADED_AT_ONCE: Final = 20
_STATUS: Final = {"error": "error", "pending": "pending"}
SAYS_TOKENS: Final = Condition(field_named("total_completion_tokens"), Operator.IS_NOT_NULL)


class Score(NamedTuple):
    """One score of a result."""

    name: str  # the evaluator's slug, with `:grader` behind it for one of several; or the key of somebody's feedback
    evaluator_id: str | None  # 32 hex digits
    score_type: str | None  # what its evaluator says it gives; None: nobody said
    score: float | None
    label: str | None
    value: Any  # decoded JSON; None: nothing was said
    explanation: str | None


class Result(NamedTuple):
    """One result as lists show it."""

    row: TraceRow
    status: str | None  # "success" | "error" | "pending"; None: its root has not come
    error: str | None
    input: str | None  # text as sent, anything else as JSON
    output: str | None
    scores: list[Score]

    @property
    def comparison_key(self) -> str | None:
        """The dataset item (UUID with dashes) that it is the result of: equal across experiments."""
        return comparison_key_of(self.row)


class ResultPage(NamedTuple):
    """One page; `total` counts every match."""

    results: list[Result]
    total: int
    total_is_exact: bool = True


class ByName(NamedTuple):
    """The order of names."""

    descending: bool


class ByScore(NamedTuple):
    """The order of a score; results without it come last either way."""

    name: str
    descending: bool


Order: TypeAlias = SortKey | ByName | ByScore


class Mean(NamedTuple):
    """A sum over what was known, and over how many. `value` is None when nothing was."""

    total: float = 0.0
    n: int = 0

    @property
    def value(self) -> float | None:
        """The mean."""
        return self.total / self.n if self.n else None


class ScoreSummary(NamedTuple):
    """The scores of one name over the results that have one."""

    sample: Score  # of the trace that came last: whose it is and of which type
    n: int
    mean: Mean
    true_count: int  # scores other than 0
    false_count: int  # scores of 0
    labels: dict[str, int]  # by label; {} where nobody asked


class ResultSummary(NamedTuple):
    """Figures over every result that matches. Costs and tokens that nobody said are left out; None: nobody did."""

    results: int
    error_count: int  # spans
    cost_pico: int | None
    total_tokens: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float | None  # mean
    tokens_per_s: float | None  # completion tokens over the time of the traces that say them
    first_token_s: float | None  # mean over the spans that say it
    scores: dict[str, ScoreSummary]  # by name


def words_of(score: Score) -> list[str]:
    """The words that a categorical score chose; [] for one that is none."""
    return _words(score.label, score.value)


def _has_words(score: Score) -> bool:
    return bool(words_of(score))


class StoreReader(TraceReader, SessionReader, AnnotationReader, SpanReader, FigureReader, Protocol):
    """Everything that reading results takes of the store."""


class Results:
    """Reads the results of experiments. Every call takes the scope: the experiment's project, as the caller's key sees
    it. Safe for threads.

    Args:
        seconds_max: how long one walk over all results may take; then it ends with ReadTooSlow.
        monotonic_s: the clock for that.
    """

    def __init__(self, reader: StoreReader, *, seconds_max: float, monotonic_s: Callable[[], float]) -> None:
        self._reader = reader
        self._seconds_max = seconds_max
        self._monotonic_s = monotonic_s

    def page(self, scope: Scope, where: Expr | None, window: Window, order: Order, page: OffsetPage) -> ResultPage:
        """One page of results.

        Raises:
            InvalidPage: an order that the store does not keep, over more than SORTED_MAX results.
        Cost: as `TraceReader.list_traces`; by name or score it reads every result, 15 µs each.
        """
        if isinstance(order, SortKey):
            found = self._reader.list_traces(scope, where, window, order, page)
            return ResultPage(self.load(found.rows), found.total, found.total_is_exact)
        rows = self._sorted(scope, where, window, order)
        return ResultPage(self.load(rows[page.offset : page.offset + page.page_size]), len(rows))

    def find(self, scope: Scope, trace_id: str) -> tuple[Result, TraceDetail] | None:
        """One result with its spans; None if there is none to see."""
        detail = self._reader.get_trace(scope, trace_id)
        return None if detail is None else (self.load([detail.row])[0], detail)

    def load(self, rows: Sequence[TraceRow], *, bytes_max: int | None = PAGE_BYTES_MAX) -> list[Result]:
        """What lists show of those traces. Cost: about 60 µs a result.

        Raises:
            PayloadTooLarge: their inputs and outputs are more than `bytes_max` together.
        """
        out: list[Result] = []
        size = 0
        for start in range(0, len(rows), _LOADED_AT_ONCE):
            part = rows[start : start + _LOADED_AT_ONCE]
            roots = self._reader.root_records(part)
            size += sum(len(root or b"") + sum(map(len, logs)) for root, logs in roots.values())
            if bytes_max is not None and size > bytes_max:
                raise PayloadTooLarge(
                    "The inputs and outputs of this page are too large to send at once; ask for a smaller page_size.",
                    fields=("page_size",),
                )
            said = self._reader.annotations_of([row.trace_pk for row in part])
            for row in part:
                out.append(_result(row, *roots.get(row.trace_pk, (None, [])), said.get(row.trace_pk, [])))
        return out

    def walk(self, scope: Scope, where: Expr | None, window: Window, *, size: int = _WALK) -> Iterator[list[TraceRow]]:
        """Every match, the first start first, by pages that neither repeat nor miss one when others come or go.

        Raises:
            ReadTooSlow: it took longer than one read may.
        """
        until_s = self._monotonic_s() + self._seconds_max
        after = None
        while True:
            found = self.step(scope, where, window, after, size)
            if found.rows:
                yield found.rows
            after = found.after
            if after is None:
                return
            if self._monotonic_s() > until_s:
                raise ReadTooSlow

    def step(
        self, scope: Scope, where: Expr | None, window: Window, after: TracePosition | None, size: int
    ) -> TraceWalk:
        """One page of such a walk, for who goes on later."""
        return self._reader.walk_traces(scope, where, window, order=TraceOrder.START_ASC, after=after, limit=size)

    def scores(
        self, scope: Scope, where: Expr | None, window: Window, name: str, *, in_words: bool = False
    ) -> ScoreColumn | None:
        """The scores of one name over every match; None: there are none. Cost: 1 µs each, in words 3 µs."""
        found = self._reader.score_columns(scope, where, window, name=name, in_words=in_words)
        return found[0] if found else None

    def summary(
        self, scope: Scope, where: Expr | None, window: Window, *, in_words: Callable[[Score], bool] = _has_words
    ) -> ResultSummary:
        """Figures over every match. Cost: sums at the store's speed, and about 1 µs a score.

        Args:
            in_words: whether the labels of scores are counted of which this is one.
        """
        sums = self._reader.sum_traces(scope, where, window)
        told = SAYS_TOKENS if where is None else Group("AND", (SAYS_TOKENS, where))
        speed = self._reader.sum_traces(scope, told, window)
        spans, seconds = self._reader.first_tokens(scope, where, window)
        scores: dict[str, ScoreSummary] = {}
        for column in self._reader.score_columns(scope, where, window):
            scores[column.name] = _summed(column)
            if in_words(scores[column.name].sample):
                said = self.scores(scope, where, window, column.name, in_words=True)
                scores[column.name] = scores[column.name]._replace(labels={} if said is None else _labels(said))
        return ResultSummary(
            results=sums.traces,
            error_count=sums.error_count,
            cost_pico=sums.cost_pico,
            total_tokens=sums.total_tokens,
            prompt_tokens=sums.prompt_tokens,
            completion_tokens=sums.completion_tokens,
            latency_s=sums.duration_ns / sums.traces / 1e9 if sums.traces else None,
            tokens_per_s=(speed.completion_tokens or 0) * 1e9 / speed.duration_ns if speed.duration_ns else None,
            first_token_s=seconds / spans if spans else None,
            scores=scores,
        )

    def _sorted(self, scope: Scope, where: Expr | None, window: Window, order: ByName | ByScore) -> list[TraceRow]:
        if self._reader.count_traces(scope, where, window) > SORTED_MAX:
            raise InvalidPage(
                f"more than {SORTED_MAX} results cannot be sorted by name or score; narrow the filter",
                fields=("sort_by",),
            )
        rows = [row for rows in self.walk(scope, where, window) for row in rows]
        if isinstance(order, ByName):
            return sorted(rows, key=lambda row: (row.summary.name, row.trace_pk), reverse=order.descending)
        column = self.scores(scope, where, window, order.name)
        scores = {} if column is None else numbers_of(column)
        known = [row for row in rows if row.trace_pk in scores]
        known.sort(key=lambda row: (scores[row.trace_pk], row.trace_pk), reverse=order.descending)
        return known + [row for row in rows if row.trace_pk not in scores]


def comparison_key_of(row: TraceRow) -> str | None:
    """The dataset item (UUID with dashes) that a trace is the result of."""
    return dict(row.summary.metadata).get(REFERENCE_EXAMPLE_KEY)


def scores_of(rows: Sequence[AnnotationRow], root_span_id: str | None) -> list[Score]:
    """The scores among the annotations of one trace: of each name the newest, by name."""
    newest: dict[str, AnnotationRow] = {}
    for row in sorted(rows, key=lambda row: (row.annotation.updated_ns, row.row_no)):
        said = row.annotation
        is_about_it = said.target is AnnotationTarget.TRACE or (
            said.target is AnnotationTarget.SPAN and said.span_id == root_span_id
        )
        if is_about_it and (said.score is not None or said.label is not None or said.value is not None):
            newest[said.name] = row
    return [score_of(newest[name]) for name in sorted(newest)]


def score_of(row: AnnotationRow) -> Score:
    """An annotation as a score."""
    return _score(row.annotation, row.annotation.explanation)


def _score(said: Annotation | ScoreRow, explanation: str | None) -> Score:
    metadata = orjson.loads(said.metadata) if said.metadata is not None else {}
    evaluator_id, score_type = metadata.get("evaluator_id"), metadata.get("score_value_type")
    return Score(
        name=said.name,
        evaluator_id=evaluator_id if isinstance(evaluator_id, str) else None,
        score_type=score_type if isinstance(score_type, str) else None,
        score=said.score,
        label=said.label,
        value=None if said.value is None else orjson.loads(said.value),
        explanation=explanation,
    )


def _result(row: TraceRow, root: bytes | None, logs: list[bytes], said: list[AnnotationRow]) -> Result:
    scores = scores_of(said, row.summary.root_span_id)
    if root is None:
        return Result(row, None, None, None, None, scores)
    decoded = decode_span(root, logs)
    status = _STATUS.get(decoded.status, "success")
    error = decoded.error_message or decoded.status_message if status == "error" else None
    return Result(row, status, error, decoded.input, decoded.output, scores)


def sample_of(column: ScoreColumn) -> Score:
    """The score of the trace that came last: whose they are and of which type."""
    return _score(column.last, None)


def numbers_of(column: ScoreColumn) -> dict[int, float]:
    """trace_pk → score, of those that say a number."""
    known = ~np.isnan(column.scores)
    return dict(zip(column.trace_pks[known].tolist(), column.scores[known].tolist(), strict=True))


def _summed(column: ScoreColumn) -> ScoreSummary:
    numbers = column.scores[~np.isnan(column.scores)]
    false_count = int((numbers == 0).sum())
    with np.errstate(over="ignore", invalid="ignore"):  # a sum beyond every number is infinite, as of floats
        total = float(numbers.sum())
    return ScoreSummary(
        sample_of(column),
        len(column.scores),
        Mean(total, len(numbers)),
        len(numbers) - false_count,
        false_count,
        {},
    )


def _labels(column: ScoreColumn) -> dict[str, int]:
    """Word → how many scores chose it, each time that one names it."""
    assert column.said_nos is not None
    counts = np.bincount(column.said_nos, minlength=len(column.said))
    found: dict[str, int] = {}
    for said, count in zip(column.said, counts.tolist(), strict=True):
        for word in words_said(said) if count else ():
            found[word] = found.get(word, 0) + count
    return dict(sorted(found.items()))


def words_said(said: Said) -> list[str]:
    """The words that a label and a list choose; [] for none."""
    label, value = said
    return _words(label, None if value is None else orjson.loads(value))


def _words(label: str | None, value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [str(each) for each in value]
    return [] if label is None else [label]
