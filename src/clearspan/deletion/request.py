"""What was asked: by whom, through which dialect, why, and for which traces, annotations or spans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from clearspan.deletion.policy import ANYTHING, Policy
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.annotations import AnnotationQuery
from clearspan.store.port import DeletionKind

ANY_TIME = Window()


class ByFilter(NamedTuple):
    """Every trace that a filter matches; None: the caller gave no filter, which guard.py refuses."""

    where: Expr | None


class ByAnnotations(NamedTuple):
    """Annotations by themselves, without their traces. The request's window is on their creation: `query.created` is
    left open, and `bounded` closes it."""

    query: AnnotationQuery

    @property
    def names_them(self) -> bool:
        """Whether they are named by their ids, which need no window."""
        return bool(self.query.annotation_ids)

    def bounded(self, window: Window) -> AnnotationQuery:
        """What the store is asked for."""
        return self.query._replace(created=window)


class ByIds(NamedTuple):
    """Every permitted copy of these trace ids (normal form)."""

    trace_ids: tuple[str, ...]


class BySpans(NamedTuple):
    """Spans by themselves, without their traces: every permitted copy. A name is that of store/span_deletion.py, or a
    bare span id."""

    names: tuple[str, ...]


Selection = ByFilter | ByIds | ByAnnotations | BySpans


@dataclass(frozen=True, slots=True)
class DeletionRequest:
    """One request, the same for every dialect and rule.

    `selection`, `window`, `reason` and `idempotency_key` may hold personal data. They are kept in the trace store until
    the data they speak of is purged, then erased with it; the Catalog, the ledger and the logs never see them, and
    `repr` leaves them out.
    """

    org_id: int
    requested_by: str  # public id of the API key, or the name of a rule or command
    dialect: str  # "respan", "native", "cli", …
    scope: Scope  # what the caller may see: nothing else can be deleted
    selection: Selection = field(repr=False)
    # On the trace's start time, or the annotation's creation; a filter needs both bounds or `delete_all`.
    window: Window = ANY_TIME
    window_is_implicit: bool = False  # a default stands in for the start: every answer then tells the window
    end_is_implicit: bool = False  # a default, the present moment, stands in for the end
    delete_all: bool = False  # the caller said in so many words that no window bounds the filter
    reason: str | None = field(default=None, repr=False)
    expected_count: int | None = None  # refuse unless exactly so many traces match
    matches_max: int | None = None  # refuse if more match: the dialect's limit
    idempotency_key: str | None = field(default=None, repr=False)  # same key and request → the same deletion
    policy: Policy = ANYTHING  # of the key that asks
    strict_window: bool = False  # the server's own setting; it or the policy's makes an implicit window an error
    not_before_ns: int | None = None  # hidden at once, purged not before then: the time to cancel
    not_before_max_ns: int | None = None  # the latest such time that the server's settings allow
    reach: Scope | None = None  # where copies of the traces are taken as well (linked.py); None: `scope`
    leave_copies: bool = False  # copies are counted and stay
    removes_project: bool = False  # the project goes once its traces are erased (projects.py)

    @property
    def kind(self) -> DeletionKind:
        """What it lists and counts."""
        match self.selection:
            case ByAnnotations():
                return DeletionKind.ANNOTATIONS
            case BySpans():
                return DeletionKind.SPANS
            case _:
                return DeletionKind.TRACES
