"""Spans as what a deletion lists: the words of a request for them, and what of a trace goes with its last span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from clearspan.deletion.request import BySpans, DeletionRequest
from clearspan.model.trace import Scope, Window
from clearspan.store.port import Breakdown, DeletionStore, PlannedTrace
from clearspan.store.span_deletion import parse_name

_SHAPE: Final = "span_ids:in:"
_SELECTION: Final = "spans"


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
