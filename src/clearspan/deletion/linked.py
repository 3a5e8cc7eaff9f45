"""Copies of what is deleted: traces of evaluators, whose inputs hold the outputs that they judged; items of datasets
that were made from a trace; and what experiments did with such items.

LangSmith's SDKs name the judged run in the metadata of the evaluator's own run, as `target_run_id` or
`reference_run_id`, and keep it in another project. A deletion that left those traces would leave the text it was asked
to remove. So it takes them, and what judges them in turn, as far as the caller's key reaches; how many lie beyond is
counted and told. A copy is asked for by nobody's filter, window or project: those select what it is a copy of.

An item of a dataset names the run it was made from as `source_run_id`; what becomes of it the dataset's policy says.
With an item go all its versions, and the results of experiments, which hold its inputs; those name it by its id, which
is the run id of its first version.

A span that is deleted by itself takes what names its own run, in the same ways. What names the whole of its trace, and
what lies in that trace, may hold the text of any of its spans: that stays and is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from clearspan.catalog.datasets import SourcePolicy
from clearspan.deletion.guard import PLAN_MAX
from clearspan.deletion.request import ByFilter, ByIds, BySpans, DeletionRequest
from clearspan.deletion.spans import SpanRuns
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import START_TIME, field_named
from clearspan.query.operators import Operator
from clearspan.store.port import DeletionStore, PlannedTrace
from clearspan.store.span_deletion import parse_name

JUDGED_KEYS: Final = ("target_run_id", "reference_run_id")
"""Metadata keys under which a run, in any project, names the run whose text it holds."""
SOURCE_KEYS: Final = ("source_run_id",)
"""… under which an item of a dataset names the run it was made from. Elsewhere the word may mean anything."""
VERSION_KEYS: Final = ("dataset_item_id",)
"""… under which a version of an item names the item."""
RESULT_KEYS: Final = ("_reference_example_id",)
"""… under which a run of an experiment names the item that it was given."""
KEYS: Final = (*JUDGED_KEYS, *SOURCE_KEYS, *VERSION_KEYS, *RESULT_KEYS)

_TAKEN: Final = "copies:taken:"
_NOT_COVERED: Final = "copies:not_covered:"
_DETACHED: Final = "copies:detached:"
_REDACTED: Final = "copies:redacted:"
_OF_TRACE: Final = "copies:of_trace:"
_FOLLOWS: Final = "copies:made_since:"
_FOLLOWED: Final = "copies:follow_up:"

Policies = Mapping[int, SourcePolicy]
"""project of a dataset → what becomes of its items when their sources are deleted."""


class Copies(NamedTuple):
    """The copies of planned traces that are not among them."""

    traces: tuple[PlannedTrace, ...] = ()  # within the caller's reach
    not_covered: int = 0  # traces beyond it
    detached: int = 0  # within it, but items of datasets that keep them
    redacted: tuple[PlannedTrace, ...] = ()  # of `traces`: items in whose place an empty one is to stand
    of_trace: int = 0  # of the whole trace of a span, or in it: they may hold the span and stay
    left: frozenset[int] = frozenset()  # trace_pks of `not_covered`, `detached` and `of_trace`


def reach_of(request: DeletionRequest) -> Scope:
    """Where a request takes copies; without projects it leaves them all."""
    return Scope(()) if request.leave_copies else request.reach or request.scope


def find_copies(
    store: DeletionStore,
    traces: Sequence[PlannedTrace],
    reach: Scope,
    everywhere: Scope,
    datasets: Policies,
    *,
    limit: int,
    known: Collection[int] = (),
    runs: Sequence[SpanRuns] = (),
) -> Copies:
    """The copies of traces and spans, copies of copies included.

    Args:
        reach: what the caller may delete from; without projects all copies lie beyond it.
        everywhere: all of the organisation, to count what lies beyond.
        datasets: of the organisation.
        limit: when there are more within reach, one more is listed, for the guards to refuse.
        known: trace_pks of copies that another search told of: neither listed nor counted here.
        runs: of the spans among the traces. A span without is taken for one that nothing was made from.
    Cost: see store.port.DeletionStore.naming; four calls at most for each link of the longest chain, and as many more.
    """
    walk = _Walk(store, datasets, runs)
    own = {trace.trace_pk for trace in traces if parse_name(trace.trace_id) is None}
    taken: dict[int, PlannedTrace] = {}
    kept: set[int] = set()
    ignored = frozenset(known)
    redacted: dict[int, PlannedTrace] = {}
    latest = list(traces) if reach.project_ids else []
    while latest and len(taken) <= limit:
        room = limit - len(taken)
        step = walk.step(reach, latest, limit=room + len(own) + len(taken) + len(ignored))
        kept |= {item.trace_pk for item in step.detached} - ignored
        redacted |= {item.trace_pk: item for item in step.redacted if item.trace_pk not in own | taken.keys()}
        found = {each.trace_pk: each for each in step.taken if each.trace_pk not in own | taken.keys() | ignored}
        latest = [trace for _, trace in sorted(found.items())][: room + 1]
        taken |= {trace.trace_pk: trace for trace in latest}
    gone = own | taken.keys()
    kept -= gone  # what goes with another version of its item stays in no dataset
    beyond: set[int] = set()
    if reach.environment is not None or not set(everywhere.project_ids) <= set(reach.project_ids):
        limit_beyond = limit + len(gone) + len(kept) + len(ignored)
        named = walk.step(everywhere, [*traces, *taken.values()], limit=limit_beyond)
        beyond = {trace.trace_pk for trace in (*named.taken, *named.detached)} - gone - kept - ignored
    told = gone | kept | beyond | ignored
    of_trace = walk.of_traces(everywhere, limit=limit + len(told)) - told
    copies = tuple([trace for _, trace in sorted(taken.items())])
    replaced = tuple([item for pk, item in sorted(redacted.items()) if pk in taken])
    return Copies(copies, len(beyond), len(kept), replaced, len(of_trace), frozenset(beyond | kept | of_trace))


def find_detached(
    store: DeletionStore, traces: Sequence[PlannedTrace], reach: Scope, datasets: Policies, runs: Sequence[SpanRuns]
) -> list[PlannedTrace]:
    """The versions of items within reach that name one of these traces and spans, or their runs, and stay.

    Args:
        traces: hidden, with their rows; what of them goes as well is not found.
    """
    return _Walk(store, datasets, runs).detached(reach, traces, limit=PLAN_MAX)


class _Step(NamedTuple):
    """What names some traces; each perhaps several times."""

    taken: list[PlannedTrace]  # to go with them
    redacted: list[PlannedTrace]  # of those: items to be replaced by empty ones
    detached: list[PlannedTrace]  # items that stay


class _Walk:
    """From traces and spans to what names them."""

    def __init__(self, store: DeletionStore, datasets: Policies, runs: Sequence[SpanRuns]) -> None:
        self._store = store
        self._datasets = datasets
        self._runs = runs
        self._homes = {_home_of(each) for each in runs}  # the traces that the spans are in

    def detached(self, scope: Scope, traces: Sequence[PlannedTrace], *, limit: int) -> list[PlannedTrace]:
        """The items within a scope that name these and stay; at most `limit` + 1."""
        return self._made_from(self._among(scope, SourcePolicy.DETACH), traces, limit)

    def step(self, scope: Scope, traces: Sequence[PlannedTrace], *, limit: int) -> _Step:
        """What within a scope names these traces and spans; at most `limit` + 1 for each way of naming."""
        wholes = [trace for trace in traces if parse_name(trace.trace_id) is None]
        taken = self._naming(scope, traces, JUDGED_KEYS, limit)
        items = [trace.trace_pk for trace in wholes if trace.project_id in self._datasets]
        if items:
            taken += self._store.naming(self._among(scope, *SourcePolicy), items, VERSION_KEYS, limit=limit)
            taken += self._store.naming(scope, items, RESULT_KEYS, limit=limit)
        erased, redacted, detached = [
            self._made_from(self._among(scope, policy), traces, limit) for policy in SourcePolicy
        ]
        return _Step([*taken, *erased, *redacted], redacted, detached)

    def _made_from(self, scope: Scope, traces: Sequence[PlannedTrace], limit: int) -> list[PlannedTrace]:
        return self._naming(scope, traces, SOURCE_KEYS, limit) if scope.project_ids else []

    def of_traces(self, scope: Scope, *, limit: int) -> set[int]:
        """The trace_pks of what names the whole trace of a span, and of such traces that name the span themselves."""
        if not self._runs:
            return set()
        wholes = sorted({run_id for each in self._runs for run_id in each.of_trace})
        own = sorted({run_id for each in self._runs for run_id in each.runs})
        found: set[int] = set()
        for within, keys in ((scope, JUDGED_KEYS), (self._among(scope, *SourcePolicy), SOURCE_KEYS)):
            named = self._store.naming_runs(within, wholes, keys, limit=limit)
            found |= {each.trace_pk for each in named if each[1:] not in self._homes}
            named = self._store.naming_runs(within, own, keys, limit=limit)
            found |= {each.trace_pk for each in named if each[1:] in self._homes}
        return found

    def _naming(
        self, scope: Scope, traces: Sequence[PlannedTrace], keys: Sequence[str], limit: int
    ) -> list[PlannedTrace]:
        pks = [trace.trace_pk for trace in traces if parse_name(trace.trace_id) is None]
        found = self._store.naming(scope, pks, keys, limit=limit) if pks else []
        if len(pks) == len(traces):
            return found
        run_ids = sorted({run_id for each in self._runs for run_id in each.runs})
        for each in self._store.naming_runs(scope, run_ids, keys, limit=limit + len(self._homes)):
            if each[1:] not in self._homes or self._names_another(each, keys):
                found.append(each)
        return found

    def _names_another(self, trace: PlannedTrace, keys: Sequence[str]) -> bool:
        """Whether a trace that has some of the spans names one that is not among its own."""
        others = sorted({run_id for each in self._runs if _home_of(each) != trace[1:] for run_id in each.runs})
        named = self._store.naming_runs(Scope((trace.project_id,)), others, keys, limit=PLAN_MAX)
        return any(each.trace_pk == trace.trace_pk for each in named)

    def _among(self, scope: Scope, *policies: SourcePolicy) -> Scope:
        """The datasets of a scope that have one of these policies."""
        return scope._replace(project_ids=tuple([p for p in scope.project_ids if self._datasets.get(p) in policies]))


def _home_of(span: SpanRuns) -> tuple[int, str]:
    name = parse_name(span.name)
    assert name is not None, "it is that of a span"
    return span.project_id, name.trace_id


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
    by_name = isinstance(request.selection, ByIds | BySpans)
    if by_name and request.window == Window() and scope.environment == reach.environment:
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


def render_shape(
    copies: int, not_covered: int, detached: int = 0, redacted: int = 0, of_trace: int = 0
) -> tuple[str, ...]:
    """What a job's shape, and with it the ledger and the receipt, say of copies; nothing where there are none.

    Args:
        detached: items of datasets that stay, by the policy of their dataset.
        redacted: items in whose place an empty one stands.
        of_trace: copies of the whole traces of deleted spans, which stay.
    """
    words = (
        (_TAKEN, copies),
        (_NOT_COVERED, not_covered),
        (_DETACHED, detached),
        (_REDACTED, redacted),
        (_OF_TRACE, of_trace),
    )
    return tuple(f"{word}{count}" for word, count in words if count)


def follows_word(deletion_id: str) -> str:
    """How the shape of a follow-up (follow_up.py) names the deletion whose copies it takes."""
    return _FOLLOWS + deletion_id


def followed_words(follow_up_id: str | None) -> tuple[str, ...]:
    """How a receipt names the follow-up of its deletion, if there is one."""
    return () if follow_up_id is None else (_FOLLOWED + follow_up_id,)


def copies_taken(shape: Sequence[str]) -> int:
    """How many traces of a deletion are there as copies, by the shape of its job."""
    return _count(shape, _TAKEN)


def copies_not_covered(shape: Sequence[str]) -> int:
    """How many copies lay beyond the caller's reach when it was planned."""
    return _count(shape, _NOT_COVERED)


def copies_detached(shape: Sequence[str]) -> int:
    """How many versions of dataset items stay, because their dataset keeps what was made from a deleted trace."""
    return _count(shape, _DETACHED)


def copies_redacted(shape: Sequence[str]) -> int:
    """How many dataset items are replaced by empty ones."""
    return _count(shape, _REDACTED)


def copies_of_trace(shape: Sequence[str]) -> int:
    """How many copies of the whole traces of deleted spans stay."""
    return _count(shape, _OF_TRACE)


def _count(shape: Sequence[str], word: str) -> int:
    return sum(int(each.removeprefix(word)) for each in shape if each.startswith(word))
