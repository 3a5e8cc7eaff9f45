"""The results of an experiment as comparing takes them: read from the store, one row an attempt that counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from clearspan.experiments.comparison import Outcome, Side
from clearspan.experiments.result_runs import NEWEST
from clearspan.experiments.results import Results, comparison_key_of, scores_of
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.model.usage import PICO_PER_USD
from clearspan.query.ast import Condition, Group, RootSpan
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.store.annotations import AnnotationReader, AnnotationRow
from clearspan.store.port import TraceRow

RESULTS_MAX: Final = 200_000
"""Results that one comparison reads, of all its experiments together: 1 KiB each in memory while it lasts."""
_WAITS: Final = RootSpan(Condition(field_named("span_status"), Operator.EQUALS, ("pending",)))


def read_side(results: Results, annotations: AnnotationReader, scope: Scope, *, room: int = RESULTS_MAX) -> Side:
    """Every result of an experiment that no later attempt replaced.

    What a result does not say stays missing: its cost while some of its calls have no known price, its time while it
    waits.

    Args:
        scope: the experiment's project, as the caller's key sees it.
        room: the most results that may be read.
    Raises:
        InvalidInput: there are more (`too_many_results`).
        ReadTooSlow: as Results.walk.
    Cost: about 25 µs a result.
    """
    waiting = {row.trace_pk for rows in results.walk(scope, Group("AND", (NEWEST, _WAITS)), Window()) for row in rows}
    outcomes: list[Outcome] = []
    without_key = 0
    for rows in results.walk(scope, NEWEST, Window()):
        if len(outcomes) + without_key + len(rows) > room:
            raise InvalidInput(
                f"More than {RESULTS_MAX:,} results cannot be compared at once.",
                code="too_many_results",
                fields=("experiments",),
            )
        said = annotations.annotations_of([row.trace_pk for row in rows])
        for row in rows:
            outcome = _outcome(row, said.get(row.trace_pk, []), waits=row.trace_pk in waiting)
            if outcome is None:
                without_key += 1
            else:
                outcomes.append(outcome)
    return Side(outcomes, without_key)


def _outcome(row: TraceRow, said: Sequence[AnnotationRow], *, waits: bool) -> Outcome | None:
    """A result; None: it names no item."""
    key = comparison_key_of(row)
    if key is None:
        return None
    summary = row.summary
    return Outcome(
        normal_key(key),
        summary.trace_id,
        {each.name: each.score for each in scores_of(said, summary.root_span_id) if each.score is not None},
        _cost_usd(summary),
        None if waits else summary.duration_ns / 1e9,
        failed=summary.error_count > 0,
        waiting=waits,
    )


def normal_key(key: str) -> str:
    """A comparison key in the one form of it: a UUID with dashes, anything else as it is."""
    try:
        return str(UUID(key))
    except ValueError:
        return key


def _cost_usd(summary: TraceSummary) -> float | None:
    if summary.cost_pico is None or summary.unpriced_count:
        return None
    return summary.cost_pico / PICO_PER_USD
