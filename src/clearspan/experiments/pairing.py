"""The results of an experiment as comparing takes them: read from the store, one row an attempt that counts."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from clearspan.experiments.comparison import Outcome, Side
from clearspan.experiments.result_runs import NEWEST
from clearspan.experiments.results import Results, comparison_key_of
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.model.usage import PICO_PER_USD
from clearspan.query.ast import Condition, Group, RootSpan
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator

RESULTS_MAX: Final = 200_000
"""Results that one comparison reads, of all its experiments together: 1 KiB each in memory while it lasts."""
_WAITS: Final = RootSpan(Condition(field_named("span_status"), Operator.EQUALS, ("pending",)))


def read_side(results: Results, scope: Scope, *, room: int = RESULTS_MAX) -> Side:
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
    for row, given in results.walk_scores(scope, NEWEST, Window()):
        if len(outcomes) + without_key >= room:
            raise InvalidInput(
                f"More than {RESULTS_MAX:,} results cannot be compared at once.",
                code="too_many_results",
                fields=("experiments",),
            )
        named = comparison_key_of(row)
        if named is None:
            without_key += 1
            continue
        key = normal_key(named)
        waits = row.trace_pk in waiting
        outcomes.append(
            Outcome(
                key,
                row.summary.trace_id,
                {each.name: each.score for each in given if each.score is not None},
                _cost_usd(row.summary),
                None if waits else row.summary.duration_ns / 1e9,
                failed=row.summary.error_count > 0,
                waiting=waits,
            )
        )
    return Side(outcomes, without_key)


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
