"""Copies of what is deleted: traces of evaluators, whose inputs hold the outputs that they judged.

LangSmith's SDKs name the judged run in the metadata of the evaluator's own run, as `target_run_id` or
`reference_run_id`, and keep it in another project. A deletion that left those traces would leave the text it was asked
to remove. So it takes them, and what judges them in turn, as far as the caller's key reaches; how many lie beyond is
counted and told. A copy is asked for by nobody's filter, window or project: those select what it is a copy of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import START_TIME, field_named
from clearspan.query.operators import Operator
from clearspan.store.port import DeletionStore, PlannedTrace

KEYS: Final = ("target_run_id", "reference_run_id")
"""Metadata keys under which a run names the run whose text it holds."""

_TAKEN: Final = "copies:taken:"
_NOT_COVERED: Final = "copies:not_covered:"


class Copies(NamedTuple):
    """The copies of planned traces that are not among them."""

    traces: tuple[PlannedTrace, ...] = ()  # within the caller's reach
    not_covered: int = 0  # traces beyond it


def find_copies(
    store: DeletionStore, traces: Sequence[PlannedTrace], reach: Scope, everywhere: Scope, *, limit: int
) -> Copies:
    """The copies of traces, copies of copies included.

    Args:
        reach: what the caller may delete from; without projects all copies lie beyond it.
        everywhere: all of the organisation, to count what lies beyond.
        limit: when there are more within reach, one more is listed, for the guards to refuse.
    Cost: see store.port.DeletionStore.naming; a call for each link of the longest chain of evaluators, and one more.
    """
    taken: dict[int, PlannedTrace] = {trace.trace_pk: trace for trace in traces}
    latest = list(traces) if reach.project_ids else []
    while latest and len(taken) - len(traces) <= limit:
        room = limit - (len(taken) - len(traces))
        found = store.naming(reach, [trace.trace_pk for trace in latest], KEYS, limit=room + len(taken))
        latest = [trace for trace in found if trace.trace_pk not in taken][: room + 1]
        taken |= {trace.trace_pk: trace for trace in latest}
    own = {trace.trace_pk for trace in traces}
    copies = tuple([trace for pk, trace in sorted(taken.items()) if pk not in own])
    beyond = 0
    if reach.environment is not None or not set(everywhere.project_ids) <= set(reach.project_ids):
        beyond = len(store.naming(everywhere, list(taken), KEYS, limit=limit))
    return Copies(copies, beyond)


def widened(request: DeletionRequest, copies: Sequence[PlannedTrace]) -> DeletionRequest:
    """The request as the store carries it out: it selects the copies as well, and nothing else that it did not.

    The store evaluates a request again when it hides. There, scope and window hold for all of it: so for what was
    asked for they become conditions, beside the ids of the copies.
    """
    if not copies:
        return request
    reach, scope = request.reach or request.scope, request.scope
    projects = tuple(sorted({*scope.project_ids, *(trace.project_id for trace in copies)}))
    wide = replace(request, scope=Scope(projects, reach.environment))
    if isinstance(request.selection, ByIds) and request.window == Window() and scope.environment == reach.environment:
        return wide  # ids are evaluated again by scope and window alone
    asked = Group("AND", tuple(_asked(request, reach)))
    where = Group("OR", (asked, _ids(tuple(sorted({trace.trace_id for trace in copies})))))
    return replace(wide, selection=ByFilter(where), window=Window(), delete_all=True)


def _asked(request: DeletionRequest, reach: Scope) -> Iterator[Expr]:
    match request.selection:
        case ByFilter(where):
            assert where is not None, "the guards let no request without a filter pass"
            yield Group("AND", (where,))  # a group of its own: which conditions share a span stays as it was
        case ByIds(trace_ids):
            yield _ids(trace_ids)
    if request.window.start_ns is not None:
        yield Condition(START_TIME, Operator.GTE, (request.window.start_ns,))
    if request.window.end_ns is not None:
        yield Condition(START_TIME, Operator.LT, (request.window.end_ns,))
    if request.scope.environment != reach.environment and request.scope.environment is not None:
        yield Condition(field_named("environment"), Operator.EQUALS, (request.scope.environment,))


def _ids(trace_ids: tuple[str, ...]) -> Condition:
    return Condition(field_named("trace_unique_id"), Operator.IN, trace_ids)


def render_shape(copies: int, not_covered: int) -> tuple[str, ...]:
    """What a job's shape, and with it the ledger and the receipt, say of copies; nothing where there are none."""
    words = ((_TAKEN, copies), (_NOT_COVERED, not_covered))
    return tuple(f"{word}{count}" for word, count in words if count)


def copies_taken(shape: Sequence[str]) -> int:
    """How many traces of a deletion are there as copies, by the shape of its job."""
    return _count(shape, _TAKEN)


def copies_not_covered(shape: Sequence[str]) -> int:
    """How many copies lay beyond the caller's reach when it was planned."""
    return _count(shape, _NOT_COVERED)


def _count(shape: Sequence[str], word: str) -> int:
    return sum(int(each.removeprefix(word)) for each in shape if each.startswith(word))
