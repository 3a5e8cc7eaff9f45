"""Finding what annotations are about. Blocks: for threads.

Phoenix names a span by its own id alone, a trace by its id, a session by what its spans call it; none says where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from clearspan.api.phoenix.annotation_bodies import Target
from clearspan.api.phoenix.annotation_kinds import Kind, OfDocument, Said
from clearspan.api.phoenix.conventions import Refused
from clearspan.api.phoenix.span_views import SpanView
from clearspan.api.services import Services
from clearspan.catalog import Principal
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.ids import normalise_id
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, PAGE_SIZE_MAX, OffsetPage
from clearspan.query.values import make_condition
from clearspan.store.spans import SpanReader, SpanRow

LOOK_UP_MAX: Final = 500
"""Ids that one query asks for."""

_T = AnnotationTarget
_DOCUMENT: Final = re.compile(r"(?:retrieval\.documents|reranker\.output_documents)\.(\d{1,9})(?:\.|$)")
_DOCUMENT_LISTS: Final = ("retrieval.documents", "reranker.output_documents")


class Place(NamedTuple):
    """Where an annotation may go."""

    project_ids: tuple[int, ...]  # the likeliest first
    target: Target
    is_there: bool | None  # None: the store finds out


def stored_id(kind: Kind, text: str) -> str | None:
    """The id as the store has it; None: nothing can have it."""
    if kind.target is _T.SESSION:
        return text or None
    try:
        return normalise_id(text)
    except ValueError:
        return None


def places_of(services: Services, principal: Principal, kind: Kind, items: Sequence[Said]) -> dict[str, Place]:
    """An id as it was sent → where it is, for every one of them that can be an id."""
    ids = {sent: found for sent in map(kind.target_id, items) if (found := stored_id(kind, sent)) is not None}
    scope = principal.scope_for_read()
    everywhere = _projects(principal)
    if kind.target in (_T.SPAN, _T.DOCUMENT):
        spans = find_spans(services, scope, ids.values())
        _check_positions(kind, items, {sent: spans[found] for sent, found in ids.items() if found in spans})
        return {sent: _span_place(found, spans.get(found, ()), everywhere) for sent, found in ids.items()}
    # A key of one environment must not learn what others hold; the store knows nothing of that when it writes.
    there = None if scope.environment is None else present(services, scope, kind, ids.values())
    return {
        sent: Place(everywhere, _target(kind, found), None if there is None else found in there)
        for sent, found in ids.items()
    }


def present(services: Services, scope: Scope, kind: Kind, ids: Iterable[str], *, any_will_do: bool = False) -> set[str]:
    """Which of these stored ids name something that the scope shows.

    Args:
        any_will_do: one of them is enough for an answer.
    """
    wanted = sorted(set(ids))
    if kind.target in (_T.SPAN, _T.DOCUMENT):
        return set(find_spans(services, scope, wanted))
    found: set[str] = set()
    if kind.target is _T.SESSION:
        for session_id in wanted:
            if _traces(services, scope, "session_identifier", [session_id], 1):
                found.add(session_id)
                if any_will_do:
                    break
        return found
    copies_max = max(1, len(scope.project_ids))
    step = 1 if copies_max > PAGE_SIZE_MAX else min(LOOK_UP_MAX, PAGE_SIZE_MAX // copies_max)
    for start in range(0, len(wanted), step):
        part = wanted[start : start + step]
        found |= set(_traces(services, scope, "trace_unique_id", part, min(PAGE_SIZE_MAX, len(part) * copies_max)))
        if found and any_will_do:
            break
    return found


def find_spans(services: Services, scope: Scope, ids: Iterable[str]) -> dict[str, list[SpanRow]]:
    """Stored span id → the visible spans of that very id; oldest trace first."""
    wanted = sorted(set(ids))
    found: dict[str, list[SpanRow]] = {}
    for start in range(0, len(wanted), LOOK_UP_MAX):
        part = wanted[start : start + LOOK_UP_MAX]
        for row in cast(SpanReader, services.reader).find_spans(scope, part):
            # It also finds spans by what LangSmith calls them: not what a client of this dialect means.
            if row.detail.span.span_id in part:
                found.setdefault(row.detail.span.span_id, []).append(row)
    return found


def _traces(services: Services, scope: Scope, field: str, ids: Sequence[str], limit: int) -> list[str]:
    condition: Expr = make_condition(field, field_named(field), Operator.IN, list(ids))
    page = services.reader.list_traces(scope, condition, Window(), NEWEST_FIRST, OffsetPage(1, limit))
    return [row.summary.trace_id for row in page.rows]


def _projects(principal: Principal) -> tuple[int, ...]:
    """The key's projects, its default first. Raises Refused when it has none left."""
    first = principal.default_project_id
    if not principal.project_ids:
        raise Refused(403, "This API key has no project.")
    return tuple(sorted(principal.project_ids, key=lambda each: (each != first, each)))


def _span_place(span_id: str, rows: Sequence[SpanRow], everywhere: tuple[int, ...]) -> Place:
    """Of several spans with one id the one in the key's default project counts first, then the newest trace's."""
    if not rows:
        return Place(everywhere, Target(span_id=span_id), False)
    row = min(rows, key=lambda each: (each.trace.project_id != everywhere[0], -each.trace.trace_pk))
    return Place((row.trace.project_id,), Target(row.trace.summary.trace_id, span_id), True)


def _target(kind: Kind, found: str) -> Target:
    return Target(session_id=found) if kind.target is _T.SESSION else Target(trace_id=found)


def _check_positions(kind: Kind, items: Sequence[Said], spans: Mapping[str, Sequence[SpanRow]]) -> None:
    """Raise Refused for a document that a span which is there has not retrieved."""
    counts: dict[str, int] = {}
    for said in items:
        sent = kind.target_id(said)
        if not isinstance(said, OfDocument) or sent not in spans:
            continue
        if sent not in counts:
            counts[sent] = max(document_count(SpanView(row).told.attributes) for row in spans[sent])
        if said.document_position >= counts[sent]:
            raise Refused(
                422, f"Span {sent} has {counts[sent]} documents; there is none at position {said.document_position}."
            )


def document_count(attributes: Mapping[str, Any]) -> int:
    """How many documents a span retrieved or ranked, by its OpenInference attributes."""
    positions = [int(match[1]) for name in attributes if (match := _DOCUMENT.match(name)) is not None]
    lists = [attributes[name] for name in _DOCUMENT_LISTS if isinstance(attributes.get(name), list)]
    return max([0, *(position + 1 for position in positions), *map(len, lists)])
