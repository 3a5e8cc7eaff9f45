"""What a list of scores may ask for: conditions that the store has an index for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from clearspan.api.respan.experiments.finding import Evaluators
from clearspan.api.respan.filters import Vocabulary
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.errors import InvalidFilter
from clearspan.model.ids import normalise_id
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import Field, FieldType, Level
from clearspan.query.operators import Operator
from clearspan.store.annotations import AnnotationQuery, AnnotationReader, AnnotationRow

TARGETS: Final = (AnnotationTarget.TRACE, AnnotationTarget.SPAN)
_KINDS: Final = {"llm": AnnotatorKind.LLM, "human": AnnotatorKind.HUMAN, "code": AnnotatorKind.CODE}
_IS: Final = (Operator.EQUALS, Operator.IN)


def _field(name: str, type: FieldType = FieldType.TEXT) -> Field:
    return Field(f"score.{name}", type, Level.TRACE, "")  # no SQL: becomes an AnnotationQuery


_FIELDS: Final = {
    name: _field(name) for name in ("id", "evaluator_id", "evaluator_slug", "log_id", "type", "scorer")
} | {"created_at": _field("created_at", FieldType.TIME)}


def _find(name: str) -> tuple[Field, None]:
    found = _FIELDS.get("created_at" if name == "timestamp" else name)
    if found is None:
        raise InvalidFilter(f"unknown filter field `{name[:100]}`; allowed: {', '.join(_FIELDS)}", fields=(name,))
    return found, None


WORDS: Final = Vocabulary(_find)


class Wanted(NamedTuple):
    """A question to the store; `log_ids` are traces or spans, None any."""

    query: AnnotationQuery
    log_ids: tuple[str, ...] | None


def score_query(where: Expr | None, evaluators: Evaluators) -> Wanted:
    """Conditions as a question to the store. Raises InvalidFilter for those that it has no index for."""
    query = AnnotationQuery(targets=TARGETS)
    log_ids: tuple[str, ...] | None = None
    seen: set[str] = set()
    for condition in _all_of(where):
        name = condition.field.name.removeprefix("score.")
        if name == "created_at":
            query = query._replace(created=_narrowed(query.created, condition))
            continue
        if condition.operator not in _IS or name in seen:
            raise _refused(name, "once, with `=` or `in`")
        seen.add(name)
        values = tuple(map(str, condition.values))
        if name == "log_id":
            log_ids = values
        elif name == "id":
            query = query._replace(annotation_ids=tuple(normal(each) or each for each in values))
        elif name == "type":
            query = query._replace(kinds=tuple(_kind(each) for each in values))
        elif name == "scorer":
            query = query._replace(identifiers=values)
        elif query.names:
            raise _refused(name, "by id or by slug, not both")
        else:
            query = query._replace(names=tuple(evaluators.score_name(each) for each in values))
    return Wanted(query, log_ids)


def _all_of(where: Expr | None) -> Iterator[Condition]:
    if isinstance(where, Condition):
        yield where
    elif isinstance(where, Group) and where.connector == "AND":
        for child in where.children:
            yield from _all_of(child)
    elif where is not None:
        raise InvalidFilter("conditions on scores are joined by AND", fields=("filters",))


def _narrowed(window: Window, condition: Condition) -> Window:
    value: Any = condition.values[0] if condition.values else None
    match condition.operator:
        case Operator.GT | Operator.GTE:
            start = value + (condition.operator is Operator.GT)
            return window._replace(start_ns=max(start, window.start_ns or start))
        case Operator.LT | Operator.LTE:
            end = value + (condition.operator is Operator.LTE)
            return window._replace(end_ns=min(end, window.end_ns or end))
    raise _refused("created_at", "with `gt`, `gte`, `lt` or `lte`")


def _kind(word: str) -> AnnotatorKind:
    found = _KINDS.get(word.lower())
    if found is None:
        raise InvalidFilter(f"filter `type`: one of {', '.join(_KINDS)}", fields=("type",))
    return found


def _refused(name: str, how: str) -> InvalidFilter:
    return InvalidFilter(f"filter `{name}`: scores are found by it {how}", fields=(name,))


def rows_of_logs(
    annotations: AnnotationReader, scope: Scope, query: AnnotationQuery, log_ids: Sequence[str], limit: int
) -> list[AnnotationRow]:
    """The newest scores of these traces themselves and of these spans."""
    ids = tuple(known for each in log_ids if (known := normal(each)) is not None)
    if not ids:
        return []
    traces = query._replace(targets=(AnnotationTarget.TRACE,), trace_ids=ids)
    spans = query._replace(targets=(AnnotationTarget.SPAN,), span_ids=ids)
    found = [*annotations.list_annotations(scope, traces, limit=limit)]
    found += annotations.list_annotations(scope, spans, limit=limit)
    return sorted(found, key=lambda row: row.row_no, reverse=True)


def normal(text: str) -> str | None:
    """The stored form of an id; None: nothing can have it."""
    try:
        return normalise_id(text)
    except ValueError:
        return None
