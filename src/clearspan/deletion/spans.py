"""Spans as what a deletion lists: the words of a request for them, and what of a trace goes with its last span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from clearspan.deletion.request import BySpans, DeletionRequest
from clearspan.model.runs import run_id_of, run_ids_of_trace
from clearspan.model.trace import Scope, Window
from clearspan.store.port import SUMMARIES_MAX, Breakdown, DeletionStore, PlannedTrace
from clearspan.store.span_deletion import parse_name

_SHAPE: Final = "span_ids:in:"
_SELECTION: Final = "spans"


class SpanRuns(NamedTuple):
    """By what a copy of a span that is planned to be deleted names it. Personal data: it holds ids."""

    project_id: int
    name: str  # store/span_deletion.py
    runs: tuple[str, ...]  # run ids of the span
    of_trace: tuple[str, ...]  # run ids that stand for its whole trace, and are not the span's


def runs_of(store: DeletionStore, lines: Sequence[PlannedTrace]) -> tuple[SpanRuns, ...]:
    """The run ids of planned spans, as they are while the spans are in their traces: whether one is the root, by whose
    run id its whole trace goes, nobody can tell afterwards. Cost: one read for SUMMARIES_MAX of their traces."""
    pks = sorted({line.trace_pk for line in lines})
    roots: dict[tuple[int, str], str | None] = {}
    for start in range(0, len(pks), SUMMARIES_MAX):
        for row in store.summaries(pks[start : start + SUMMARIES_MAX]):
            roots[row.project_id, row.summary.trace_id] = row.summary.root_span_id
    return tuple([_runs_of(line, roots) for line in lines if parse_name(line.trace_id) is not None])


def _runs_of(line: PlannedTrace, roots: Mapping[tuple[int, str], str | None]) -> SpanRuns:
    name = parse_name(line.trace_id)
    assert name is not None, "the caller picks those of spans"
    root = roots.get((line.project_id, name.trace_id))
    mine = {run_id_of(*name, is_root=False), run_id_of(*name, is_root=name.span_id == root)}  # it was named before it
    whole = run_ids_of_trace(name.trace_id, () if root is None else (root,), root) - mine  # was the root, perhaps
    return SpanRuns(line.project_id, line.trace_id, tuple(sorted(mine)), tuple(sorted(whole)))


def plain_runs(runs: Iterable[SpanRuns]) -> list[list[Any]]:
    """As JSON values: kept with the request, and erased with it."""
    return [list(each) for each in runs]


def parse_runs(plain: Iterable[Sequence[Any]]) -> tuple[SpanRuns, ...]:
    """What `plain_runs` was given."""
    return tuple([SpanRuns(project, name, tuple(runs), tuple(whole)) for project, name, runs, whole in plain])


def without_parts(lines: Sequence[PlannedTrace], copies: Sequence[PlannedTrace]) -> list[PlannedTrace]:
    """The spans of which the trace does not go as a whole, as a copy of another span."""
    whole = {line[1:] for line in copies}
    return [
        line
        for line in lines
        if (name := parse_name(line.trace_id)) is None or (line.project_id, name.trace_id) not in whole
    ]


def count_planned(store: DeletionStore, lines: Sequence[PlannedTrace]) -> dict[str, int]:
    """target → rows, of spans and of the traces that go with them as copies."""
    wholes = [line.trace_pk for line in lines if parse_name(line.trace_id) is None]
    counts = Counter(store.count_targets(wholes) if wholes else {})
    if len(wholes) < len(lines):
        counts["span"] += len(lines) - len(wholes)
    return dict(counts)


def shape_of(selection: BySpans) -> tuple[str, ...]:
    """The selection without its values, fit for the Catalog and the ledger."""
    return (f"{_SHAPE}{len(selection.names)}",)


def is_of_spans(shape: Sequence[str]) -> bool:
    """Whether a deletion lists spans, by the shape of its job."""
    return any(each.startswith(_SHAPE) for each in shape)


def plain_selection(selection: BySpans) -> dict[str, Any]:
    """The selection as JSON values, in one order. Personal data."""
    return {_SELECTION: sorted(set(selection.names))}


def parse_selection(plain: object) -> BySpans | None:
    """What `plain_selection` was given; None for anything else."""
    if not isinstance(plain, Mapping) or set(plain) != {_SELECTION}:
        return None
    return BySpans(tuple(plain[_SELECTION]))


def list_spans(store: DeletionStore, request: DeletionRequest, selection: BySpans) -> list[PlannedTrace]:
    """The spans that the request names and its caller sees."""
    return store.plan_spans(request.scope, selection.names)


def with_shares(store: DeletionStore, lines: Sequence[PlannedTrace]) -> list[PlannedTrace]:
    """What public links a deletion ends: those to its traces; those to traces of which it has hidden spans, if nothing
    of them is left."""
    found: list[PlannedTrace] = []
    for line in lines:
        name = parse_name(line.trace_id)
        if name is None:
            found.append(line)
        elif not store.plan_ids(Scope((line.project_id,)), [name.trace_id], Window()):
            found.append(line._replace(trace_id=name.trace_id))
    return found


def breakdown(store: DeletionStore, lines: Sequence[PlannedTrace]) -> Breakdown:
    """Counts of spans by the day and the project of their traces, as far as those are visible."""
    days: Counter[str] = Counter()
    projects: Counter[int] = Counter()
    for pk, spans in _by_trace(lines).items():
        told = store.breakdown([pk])
        days.update({day: spans * count for day, count in told.by_day.items()})
        projects.update({project_id: spans * count for project_id, count in told.by_project.items()})
    return Breakdown(dict(days), dict(projects))


def weighed(lines: Sequence[PlannedTrace], count: Callable[[Sequence[int]], int]) -> int:
    """A count of traces, told of the spans that each stands for."""
    return sum(spans * count([pk]) for pk, spans in _by_trace(lines).items())


def count_held(store: DeletionStore, lines: Sequence[PlannedTrace]) -> dict[str, int]:
    """hold_id → how many of those spans it keeps: it keeps them with their traces."""
    held: Counter[str] = Counter()
    for pk, spans in _by_trace(lines).items():
        held.update({hold_id: spans * count for hold_id, count in store.count_held([pk]).items()})
    return dict(held)


def _by_trace(lines: Sequence[PlannedTrace]) -> Counter[int]:
    return Counter(line.trace_pk for line in lines)
