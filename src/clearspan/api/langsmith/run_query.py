"""What a query of runs asks for, in the classic words and in v2's, as an expression about one span."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from clearspan.api.langsmith.grammar import parse_filter, parse_filters
from clearspan.api.langsmith.inputs import Json, optional_text, optional_time, optional_uuid, read_uuid
from clearspan.api.langsmith.run_cursor import decode_cursor
from clearspan.api.langsmith.session_views import find_session
from clearspan.api.services import Services
from clearspan.catalog import Principal
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group, Not
from clearspan.query.fields import IS_ROOT, SPAN_TEXT, field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.spans import SpanOrder, SpanPosition, SpanReader

LIMIT_MAX: Final = 100
IDS_MAX: Final = 1_000
MICROSECOND_NS: Final = 1_000
ROOTS: Final[Expr] = Condition(IS_ROOT, Operator.EQUALS, (True,))
_ERROR: Final = field_named("span_status")
_ORDERS: Final = {"desc": SpanOrder.START_DESC, "asc": SpanOrder.START_ASC}


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A query of runs. Everything given holds at once, except that `ids` replaces all the rest but the projects.

    Attributes:
        ids: run ids (32 hex digits); None: not asked for by id.
        trace_ids: of traces, as clients know them; parents: run ids of parents.
        parts: expressions about the run.
    """

    ids: tuple[str, ...] | None
    trace_ids: tuple[str, ...]
    parents: tuple[str, ...]
    parts: tuple[Expr, ...]
    window: Window
    order: SpanOrder
    limit: int
    after: SpanPosition | None
    roots_only: bool = False

    def also(self, *parts: Expr) -> RunQuery:
        """The same with more to hold."""
        return replace(self, parts=(*self.parts, *parts))

    def where(self, services: Services, scope: Scope) -> Expr | None:
        """The expression that the runs must satisfy. Blocks: ids that clients know are looked up."""
        parts = list(self.parts)
        if self.trace_ids:
            parts.append(traces_are(services, scope, self.trace_ids))
        if self.parents:
            parts += _below(services, scope, self.parents)
        return all_of(parts)


def all_of(parts: Sequence[Expr]) -> Expr | None:
    """Every part; None for none."""
    if len(parts) > 1:
        return Group("AND", tuple(parts))
    return parts[0] if parts else None


def read_run_query(body: Json) -> RunQuery:
    """A body of the classic API. Unknown keys are passed over. Raises InvalidInput, InvalidFilter."""
    ids = read_uuid_list(body, "id")
    is_root = optional_flag(body, "is_root")
    if body.get("execution_order") is not None:
        if body["execution_order"] != 1:
            raise InvalidInput("execution_order can only be 1, which means root runs.", fields=("execution_order",))
        is_root = True
    parts = _filters(body)
    if (search := optional_text(body, "search_filter")) is not None:
        parts.append(parse_filter(search, "search_filter"))
    if query := optional_text(body, "query"):
        parts.append(make_condition("query", SPAN_TEXT, Operator.ICONTAINS, [query]))
    parts += _common(body, run_type="run_type", error="error", examples="reference_example", is_root=is_root)
    end_ns = optional_time(body, "end_time")
    # The last microsecond is included: times are told to the microsecond.
    window = Window(optional_time(body, "start_time"), None if end_ns is None else end_ns + MICROSECOND_NS)
    order = _order(body, "order")
    return RunQuery(
        ids=tuple(ids) if ids else None,
        trace_ids=_one(body, "trace"),
        parents=_one(body, "parent_run"),
        parts=tuple(parts),
        window=window,
        order=order,
        limit=read_limit(body),
        after=decode_cursor(optional_text(body, "cursor"), order),
        roots_only=is_root is True,
    )


def read_run_query_v2(body: Json, now_ns: int, *, default_size: int, most: int) -> RunQuery:
    """A body of v2's runs. Raises InvalidInput, InvalidFilter, NotHere."""
    is_root = optional_flag(body, "is_root")
    ids = read_uuid_list(body, "ids")
    parts = _filters(body)
    parts += _common(body, run_type="run_type", error="has_error", examples="reference_examples", is_root=is_root)
    order = _order(body, "sort_order")
    return RunQuery(
        ids=tuple(ids) if ids else None,
        trace_ids=_one(body, "trace_id"),
        parents=(),
        parts=tuple(parts),
        window=read_window_v2(body, now_ns),
        order=order,
        limit=read_page_size(body, default_size, most),
        after=decode_cursor(optional_text(body, "cursor"), order),
        roots_only=is_root is True,
    )


def read_window_v2(body: Json, now_ns: int) -> Window:
    """v2's window on the start: the day before now unless said otherwise."""
    start_ns, end_ns = optional_time(body, "min_start_time"), optional_time(body, "max_start_time")
    end = now_ns + MICROSECOND_NS if end_ns is None else end_ns
    return Window(min(end, now_ns) - 86_400 * 10**9 if start_ns is None else start_ns, end)


def read_limit(body: Json) -> int:
    """`limit`; clients pass their caller's total through, so more than a page holds means a full page."""
    limit = body.get("limit")
    if limit is None:
        return LIMIT_MAX
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidInput("limit must be a whole number from 1.", fields=("limit",))
    return min(limit, LIMIT_MAX)


def read_page_size(body: Json, default: int, most: int) -> int:
    """`page_size` of v2. Raises InvalidInput."""
    size = body.get("page_size")
    if size is None:
        return default
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
        raise InvalidInput(f"page_size must be a whole number from 1 to {most}.", fields=("page_size",))
    return size


def optional_flag(body: Json, name: str) -> bool | None:
    """true, false or nothing. Raises InvalidInput."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true, false or null.", fields=(name,))
    return value


def scope_of(services: Services, principal: Principal, uuids: Sequence[str]) -> Scope:
    """What a query may see: the projects of those UUIDs, or every one of the key. Blocks. Raises NotFound."""
    scope = principal.scope_for_read()
    if not uuids:
        return scope
    ids = [find_session(services, principal, each).id for each in dict.fromkeys(uuids)]
    return scope._replace(project_ids=tuple(ids))


def session_uuids(body: Json) -> list[str]:
    """The sessions that a classic body names, in a list or by `session_id`. Raises InvalidInput."""
    found = read_uuid_list(body, "session")
    if not found and (one := optional_uuid(body, "session_id")) is not None:
        found = [one]
    return found


def _filters(body: Json) -> list[Expr]:
    texts = [optional_text(body, name) or None for name in ("filter", "trace_filter", "tree_filter")]
    found = parse_filters(*texts)
    return [] if found is None else [found]


def _common(body: Json, *, run_type: str, error: str, examples: str, is_root: bool | None) -> list[Expr]:
    parts: list[Expr] = []
    if (kind := optional_text(body, run_type)) is not None:
        parts.append(parse_filter(f"eq(run_type, {json.dumps(kind)})", run_type))
    failed = optional_flag(body, error)
    if failed is not None:
        parts.append(Condition(_ERROR, Operator.EQUALS if failed else Operator.NOT, ("error",)))
    if of_examples := read_uuid_list(body, examples):
        parts.append(parse_filter(f"in(reference_example, {json.dumps(of_examples)})", examples))
    if is_root is not None:
        parts.append(ROOTS if is_root else Not(ROOTS))
    return parts


def _order(body: Json, name: str) -> SpanOrder:
    word = optional_text(body, name) or "desc"
    if word.lower() not in _ORDERS:
        raise InvalidInput(f"{name} is asc or desc.", fields=(name,))
    return _ORDERS[word.lower()]


def read_uuid_list(body: Json, name: str) -> list[str]:
    """UUIDs of a body as 32 hex digits each; one alone may stand for a list. Raises InvalidInput."""
    value = body.get(name)
    if isinstance(value, str):
        value = [value]
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > IDS_MAX:
        raise InvalidInput(f"{name} must be a list of at most {IDS_MAX} UUIDs.", fields=(name,))
    return [read_uuid(each, name) for each in value]


def _one(body: Json, name: str) -> tuple[str, ...]:
    found = optional_uuid(body, name)
    return () if found is None else (found,)


def traces_are(services: Services, scope: Scope, shown: Sequence[str]) -> Expr:
    """The runs of some traces, by the ids that clients know (32 hex digits). Blocks."""
    return _trace_is(_traces_of(services, scope, shown))


def _trace_is(trace_ids: Sequence[str]) -> Expr:
    return make_condition("trace", field_named("trace_unique_id"), Operator.IN, list(trace_ids))


def _traces_of(services: Services, scope: Scope, shown: Sequence[str]) -> list[str]:
    """The stored ids of traces by the ids that clients know: a trace whose id is no UUID goes by its root's run id."""
    found = dict.fromkeys(shown)
    for row in cast(SpanReader, services.reader).find_spans(scope, list(shown)):
        if row.detail.span.span_id == row.trace.summary.root_span_id:
            found[row.trace.summary.trace_id] = None
    return list(found)


def _below(services: Services, scope: Scope, parents: Sequence[str]) -> list[Expr]:
    """The runs directly below some runs, looked for in the traces of those that are there."""
    is_child = make_condition("parent_run", field_named("parent_run_id"), Operator.IN, list(parents))
    rows = cast(SpanReader, services.reader).find_spans(scope, list(parents))
    if len(rows) < len(set(parents)):
        return [is_child]
    return [_trace_is(sorted({row.trace.summary.trace_id for row in rows})), is_child]
