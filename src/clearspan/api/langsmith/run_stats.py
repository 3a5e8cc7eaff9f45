"""Figures of the runs that a query matches, over all of them or by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import Json, optional_object, optional_text, optional_texts, render_time
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import RunQuery, all_of, read_run_query, scope_of, session_uuids
from clearspan.api.langsmith.run_views import cost_text
from clearspan.api.langsmith.runs import loader_for
from clearspan.api.langsmith.session_stats import ROWS_AT_ONCE, feedback_stats
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.ingest.run_promotion import RUN_TYPE_OF_KIND
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Window
from clearspan.query.ast import Expr, RootSpan
from clearspan.query.fields import RUN_ID, field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.annotations import AnnotationQuery, AnnotationRow
from clearspan.store.span_figures import FIGURE_COLUMNS, SpanTally
from clearspan.store.spans import SpanOrder, SpanRow, SpanStats

GROUPS_DEFAULT: Final = 5
GROUPS_MAX: Final = 100
GROUPED_RUNS_MAX: Final = 50_000
"""Runs that one question with groups looks at."""
_ATTRIBUTES: Final = ("name", "run_type", "tag", "metadata")
_TARGETS: Final = (AnnotationTarget.SPAN, AnnotationTarget.TRACE)


@dataclass(frozen=True, slots=True)
class Grouping:
    """What divides runs into groups. A run with several tags is in several groups; one without any is in none."""

    attribute: str
    path: str | None
    groups_max: int

    def groups_of(self, row: SpanRow) -> tuple[str, ...]:
        """The groups of a run."""
        span, context = row.detail.span, row.detail.context
        if self.attribute == "name":
            return (span.entity_name or span.name,)
        if self.attribute == "run_type":
            return (RUN_TYPE_OF_KIND.get(span.kind, "chain"),)
        if self.attribute == "tag":
            return tuple(dict.fromkeys(context.tags))
        return tuple(value for key, value in context.metadata if key == self.path)


@dataclass
class _Group:
    tally: SpanTally = field(default_factory=SpanTally)
    count: int = 0
    feedback: list[AnnotationRow] = field(default_factory=list)


@requires(Permission.READ)
async def query_run_stats(request: Request) -> Response:
    """Figures of the runs that a query matches; with `group_by` those of each of its largest groups."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    query, grouping = read_run_query(body), read_grouping(body)
    wanted, sessions = optional_texts(body, "select"), session_uuids(body)
    groups = optional_texts(body, "groups")

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, sessions))
        if grouping is None:
            return _selected(stats_of(loader, query, with_feedback=_is_asked("feedback_stats", wanted)), wanted)
        found = _by_group(loader, query, grouping, groups, with_feedback=_is_asked("feedback_stats", wanted))
        return {name: _selected(stats, wanted) for name, stats in found.items()}

    return json_reply(await services.reads.run(read))


def stats_of(loader: Loader, query: RunQuery, *, with_feedback: bool = True) -> Json:
    """Figures over every run of a query. Blocks; cost: about 3 µs a run, twice for a query of roots.

    Tokens and cost of a query of roots are those of their whole traces.
    """
    where, window = _where(loader, query)
    stats = loader.spans.span_stats(loader.scope, where, window)
    usage = stats
    if query.roots_only and query.ids is None and where is not None:
        usage = loader.spans.span_stats(loader.scope, RootSpan(where), window)
    said = list(_feedback(loader, where, window)) if with_feedback else []
    return render_stats(stats, usage, [each for _, each in said])


def render_stats(stats: SpanStats, usage: SpanStats, said: Sequence[AnnotationRow]) -> Json:
    """Figures as the classic API says them.

    Args:
        usage: where tokens and cost are taken from.
    """
    median, p99 = usage.total_tokens_quantiles
    cost_p50, cost_p99 = (None if each is None else round(each) for each in usage.cost_quantiles_pico)
    ended = stats.count - stats.pending_count
    return {
        "run_count": stats.count,
        "latency_p50": stats.latency_s[0],
        "latency_p99": stats.latency_s[1],
        "first_token_p50": stats.first_token_s[0],
        "first_token_p99": stats.first_token_s[1],
        "total_tokens": usage.total_tokens or 0,
        "prompt_tokens": usage.prompt_tokens or 0,
        "completion_tokens": usage.completion_tokens or 0,
        "median_tokens": median,
        "tokens_p50": median,
        "tokens_p99": p99,
        "last_run_start_time": render_time(stats.last_start_ns),
        "feedback_stats": feedback_stats(said),
        "run_facets": [],
        "error_rate": stats.error_count / stats.count if stats.count else None,
        "streaming_rate": stats.streaming_count / ended if ended else None,
        "total_cost": cost_text(usage.cost_pico),
        "prompt_cost": None,
        "completion_cost": None,
        "cost_p50": cost_text(cost_p50),
        "cost_p99": cost_text(cost_p99),
    }


def read_grouping(body: Json) -> Grouping | None:
    """`group_by` of a body; None: there is none. Raises InvalidInput."""
    said = optional_object(body, "group_by")
    if said is None:
        return None
    attribute, path = optional_text(said, "attribute"), optional_text(said, "path")
    if attribute not in _ATTRIBUTES:
        raise InvalidInput(f"group_by.attribute is one of {', '.join(_ATTRIBUTES)}.", fields=("group_by.attribute",))
    if attribute == "metadata" and not path:
        raise InvalidInput("group_by metadata needs a path: the key.", fields=("group_by.path",))
    groups_max = said.get("max_groups", GROUPS_DEFAULT)
    if isinstance(groups_max, bool) or not isinstance(groups_max, int) or not 1 <= groups_max <= GROUPS_MAX:
        raise InvalidInput(
            f"group_by.max_groups is a whole number from 1 to {GROUPS_MAX}.", fields=("group_by.max_groups",)
        )
    return Grouping(attribute, path, groups_max)


def _where(loader: Loader, query: RunQuery) -> tuple[Expr | None, Window]:
    if query.ids is not None:
        return make_condition("id", RUN_ID, Operator.IN, list(query.ids)), Window()
    return query.where(loader.services, loader.scope), query.window


def _by_group(
    loader: Loader, query: RunQuery, grouping: Grouping, names: Sequence[str] | None, *, with_feedback: bool
) -> dict[str, Json]:
    """Group → figures, the largest first.

    Args:
        names: the groups that are asked for; None: the largest.
    Raises:
        InvalidInput: there are more runs than one question looks at.
    """
    where, window = _where(loader, query)
    found: dict[str, _Group] = {}
    for row in _scan(loader, where, window):
        for name in grouping.groups_of(row):
            if names is not None and name not in names:
                continue
            group = found.setdefault(name, _Group())
            group.count += 1
            group.tally.add(*(getattr(row.detail.span, column) for column in FIGURE_COLUMNS))
    largest = sorted(found, key=lambda name: (-found[name].count, name))[: grouping.groups_max]
    if with_feedback:
        for row, said in _feedback(loader, where, window):
            for name in grouping.groups_of(row):
                if name in largest:
                    found[name].feedback.append(said)
    return {name: _group_stats(found[name]) for name in largest}


def _group_stats(group: _Group) -> Json:
    stats = group.tally.stats()
    return render_stats(stats, stats, group.feedback)


def _scan(loader: Loader, where: Expr | None, window: Window) -> Iterator[SpanRow]:
    refusal = InvalidInput(
        f"More than {GROUPED_RUNS_MAX} runs match; narrow the time or the filter to group them.", fields=("group_by",)
    )
    return loader.scan(where, window, rows_max=GROUPED_RUNS_MAX, refusal=refusal)


def _feedback(loader: Loader, where: Expr | None, window: Window) -> Iterator[tuple[SpanRow, AnnotationRow]]:
    """What was said about the runs that match, and about the traces of the roots that do. Cost: a look-up of the
    traces that carry feedback, a thousand at a time."""
    before: int | None = None
    query = AnnotationQuery(targets=_TARGETS)
    while rows := loader.services.annotations.list_annotations(
        loader.scope, query, before_row=before, limit=ROWS_AT_ONCE
    ):
        before = rows[-1].row_no
        said = [row for row in rows if not row.is_waiting]
        matching = _matching(loader, where, window, {row.annotation.trace_id or "" for row in said})
        for row in said:
            key = (row.project_id, row.annotation.trace_id or "")
            span_id = row.annotation.span_id if row.annotation.target is AnnotationTarget.SPAN else None
            for span in matching.get(key, ()):
                if span.detail.span.span_id == (span_id or span.trace.summary.root_span_id):
                    yield span, row


def _matching(
    loader: Loader, where: Expr | None, window: Window, trace_ids: set[str]
) -> Mapping[tuple[int, str], list[SpanRow]]:
    """(project, trace id) → its runs that match."""
    found: dict[tuple[int, str], list[SpanRow]] = {}
    ids = sorted(trace_ids - {""})
    if not ids:
        return found
    of_traces = make_condition("trace", field_named("trace_unique_id"), Operator.IN, ids)
    expr = all_of([of_traces] if where is None else [of_traces, where])
    for row in loader.every(expr, window, SpanOrder.START_DESC, records=False):
        found.setdefault((row.trace.project_id, row.trace.summary.trace_id), []).append(row)
    return found


def _is_asked(name: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or name in wanted


def _selected(stats: Json, wanted: Sequence[str] | None) -> Json:
    return stats if wanted is None else {name: value for name, value in stats.items() if name in wanted}


ROUTES: Final[tuple[RestRoute, ...]] = (classic("POST", "/runs/stats", query_run_stats),)
