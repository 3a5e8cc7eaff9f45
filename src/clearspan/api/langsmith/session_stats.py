"""The figures of a session: over the runs of a project, its feedback and its feedback as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final, cast

from clearspan.api.langsmith.inputs import Json, render_time
from clearspan.api.services import Services
from clearspan.catalog import Principal, Project
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.trace import Scope, Window
from clearspan.query.fields import IS_ROOT
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.annotations import AnnotationQuery, AnnotationReader, AnnotationRow
from clearspan.store.spans import SpanReader

ROWS_AT_ONCE: Final = 1_000
_RUN_TARGETS: Final = (AnnotationTarget.SPAN, AnnotationTarget.TRACE)


def session_stats(services: Services, principal: Principal, project: Project, since_ns: int | None = None) -> Json:
    """Figures of one session. Blocks; cost: two reads over the project's spans, one over its feedback.

    `run_count`, latencies and error rate are of root runs, as clients show them; tokens and costs are the sums of the
    traces, which count once what a run repeats of the runs below it.

    Args:
        since_ns: only runs that started then or later, and feedback given then or later.
    """
    scope, window = principal.scope_for_read()._replace(project_ids=(project.id,)), Window(since_ns)
    spans = cast(SpanReader, services.reader)
    roots = spans.span_stats(scope, make_condition("is_root", IS_ROOT, Operator.EQUALS, [True]), window)
    every = services.reader.sum_traces(scope, None, window)
    cost = None if every.cost_pico is None else f"{Decimal(every.cost_pico).scaleb(-12):f}"
    return {
        "run_count": roots.count,
        "latency_p50": roots.latency_s[0],
        "latency_p99": roots.latency_s[1],
        "first_token_p50": roots.first_token_s[0],
        "first_token_p99": roots.first_token_s[1],
        "error_rate": roots.error_count / roots.count if roots.count else None,
        "last_run_start_time": render_time(roots.last_start_ns),
        "total_tokens": every.total_tokens or 0,
        "prompt_tokens": every.prompt_tokens or 0,
        "completion_tokens": every.completion_tokens or 0,
        "total_cost": cost,
        "prompt_cost": None,  # costs are known per call, not per direction
        "completion_cost": None,
        "feedback_stats": feedback_stats(_feedback(services, scope, _RUN_TARGETS, window)),
        "session_feedback_stats": feedback_stats(_feedback(services, scope, (AnnotationTarget.PROJECT,), window)),
        "run_facets": [],
    }


def feedback_stats(rows: Iterable[AnnotationRow]) -> Json:
    """Key → `{n, avg, stdev, values, comments, sources, errors}` of feedback. `values` counts labels."""
    found: dict[str, Json] = {}
    scores: dict[str, list[float]] = {}
    for row in rows:
        said = row.annotation
        told = found.setdefault(
            said.name,
            {"n": 0, "avg": None, "stdev": None, "values": {}, "comments": [], "sources": [], "errors": 0},
        )
        told["n"] += 1
        if said.score is not None:
            scores.setdefault(said.name, []).append(said.score)
        if said.label is not None:
            told["values"][said.label] = told["values"].get(said.label, 0) + 1
        if said.source not in told["sources"]:
            told["sources"].append(said.source)
    for name, values in scores.items():
        mean = math.fsum(values) / len(values)
        found[name]["avg"] = mean
        found[name]["stdev"] = math.sqrt(math.fsum((each - mean) ** 2 for each in values) / len(values))
    return found


def _feedback(
    services: Services, scope: Scope, targets: tuple[AnnotationTarget, ...], created: Window
) -> Iterator[AnnotationRow]:
    """Every annotation of these targets, newest first, a thousand at a time."""
    reader, before = cast(AnnotationReader, services.reader), None
    query = AnnotationQuery(targets=targets, created=created)
    while rows := reader.list_annotations(scope, query, before_row=before, limit=ROWS_AT_ONCE):
        yield from (row for row in rows if not row.is_waiting)
        before = rows[-1].row_no
