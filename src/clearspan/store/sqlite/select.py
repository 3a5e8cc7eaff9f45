"""Scope, window and filter as one WHERE over `trace t`, and the index to enter it by.

SQLite has no statistics here and would guess: with them absent it enters a numeric index for `total_cost > 0` and
looks up a million rows one by one. So each query names its index (INDEXED BY), chosen by what the filter says and by
exact counts that are cheap to take. All SQL text is ours; what a caller wrote is a parameter.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Any, NamedTuple

import apsw

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, conditions, conjuncts
from clearspan.query.compile_sql import compile_where
from clearspan.query.fields import FieldType
from clearspan.query.operators import Operator
from clearspan.query.page import SortKey

METADATA_SET_MAX = 20_000
"""A metadata condition that more traces meet than this is probed trace by trace instead of entered as a set."""

RARE_MAX = 1_000
"""A metadata key with no more values than this is rare: whether it is there is asked of the set of them, not of each
trace."""

_SORT_INDEX = {
    "start_time": "trace_by_start",
    "total_cost": "trace_by_cost",
    "duration": "trace_by_duration",
    "total_tokens": "trace_by_tokens",
}
_EQUALITY_INDEX = {
    "trace_unique_id": "trace_by_id",
    "customer_identifier": "trace_by_customer",
    "session_identifier": "trace_by_session",
}
_POSITIVE = frozenset({Operator.EQUALS, Operator.IN})
_MISSING = frozenset({Operator.IS_NULL, Operator.EMPTY})
_PRESENCE = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})


class Entry(Enum):
    """How a query finds the traces it tests."""

    INDEX = "index"  # through the index named in the plan
    METADATA = "metadata"  # through the sets of traces of a metadata condition
    SCORES = "scores"  # through the sets of traces of a condition on scores
    GIVEN = "given"  # through a list of trace_pks


_ENTERED = {Entry.METADATA: FieldType.METADATA, Entry.SCORES: FieldType.SCORE}


class Plan(NamedTuple):
    """The FROM and WHERE of one project's part of a query."""

    table: str  # `trace t` with its index
    sql: str  # condition over alias t
    params: tuple[Any, ...]
    entry: Entry


def entry_of(conn: apsw.Connection, project_id: int, where: Expr | None) -> tuple[Entry, str]:
    """The narrowest way into a filter: (entry, index name)."""
    entry, index, is_rare = Entry.INDEX, "trace_by_start", False
    for part in conjuncts(where) if where is not None else ():
        if not isinstance(part, Condition):
            continue
        if part.operator in _POSITIVE and part.field.name in _EQUALITY_INDEX:
            return Entry.INDEX, _EQUALITY_INDEX[part.field.name]
        if part.field.type is FieldType.METADATA and part.operator in _POSITIVE:
            if _metadata_count(conn, project_id, part, METADATA_SET_MAX + 1) <= METADATA_SET_MAX:
                return Entry.METADATA, ""
        elif part.field.type is FieldType.METADATA and part.operator is Operator.IS_NOT_NULL:
            is_rare = is_rare or _is_rare(conn, project_id, part.key)
        elif _means_errors(part):
            index = "trace_by_error"
        elif part.field.type is FieldType.SCORE and part.operator not in _MISSING:
            entry = Entry.SCORES
    if is_rare:
        return Entry.METADATA, ""
    if index == "trace_by_error":
        return Entry.INDEX, index
    return entry, index if entry is Entry.INDEX else ""


def narrow_part(where: Expr | None) -> Condition | None:
    """The condition that a filter is best entered by: an equality with an index, or of metadata."""
    for part in conjuncts(where) if where is not None else ():
        if not isinstance(part, Condition) or part.operator not in _POSITIVE:
            continue
        if part.field.name in _EQUALITY_INDEX or part.field.type is FieldType.METADATA:
            return part
    return None


def plan(
    scope: Scope,
    project_id: int,
    where: Expr | None,
    window: Window,
    *,
    entry: Entry,
    index: str = "",
    any_hidden: bool = True,
    rare_keys: Collection[str] = (),
) -> Plan:
    """One project's part of a query; `scope.environment` applies, its projects do not.

    Args:
        index: for Entry.INDEX.
        rare_keys: see `rare_keys`.
        any_hidden: False only if `hidden` is known to be empty in this snapshot; the test costs 40 ns a row.
    """
    parts = ["t.project_id = ?"]
    params: list[Any] = [project_id]
    if index == "trace_by_error":
        parts.append("t.error_count > 0")  # said with a literal, SQLite may use the partial index
    if index == "trace_by_customer":
        parts.append("t.customer_identifier IS NOT NULL")
    if index == "trace_by_session":
        parts.append("t.session_id IS NOT NULL")
    if scope.environment is not None:
        parts.append("t.environment = ?")
        params.append(scope.environment)
    if window.start_ns is not None:
        parts.append("t.start_ns >= ?")
        params.append(window.start_ns)
    if window.end_ns is not None:
        parts.append("t.start_ns < ?")
        params.append(window.end_ns)
    if any_hidden:
        parts.append("t.trace_pk NOT IN (SELECT trace_pk FROM hidden)")
    if where is not None:
        compiled = compile_where(where, project_ids=(project_id,), entered=_ENTERED.get(entry), rare_keys=rare_keys)
        parts.append(f"({compiled.sql})")
        params.extend(compiled.params)
    how = f"INDEXED BY {index}" if entry is Entry.INDEX else "NOT INDEXED"
    return Plan(f"trace t {how}", " AND ".join(parts), tuple(params), entry)


def rare_keys(conn: apsw.Connection, project_id: int, where: Expr | None) -> frozenset[str]:
    """The metadata keys of a filter, asked whether they are there, that few traces of a project have."""
    asked = {
        part.key
        for part in (conditions(where) if where is not None else ())
        if part.field.type is FieldType.METADATA and part.operator in _PRESENCE and part.key is not None
    }
    return frozenset(key for key in asked if _is_rare(conn, project_id, key))


def _is_rare(conn: apsw.Connection, project_id: int, key: str | None) -> bool:
    count = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM metadata WHERE project_id = ? AND key = ? LIMIT ?)",
        (project_id, key, RARE_MAX + 1),
    ).get
    return bool(count <= RARE_MAX)


def walk_index(sort: SortKey, *, wanted: int, total: int, all_visible: int) -> str | None:
    """The index to read a page in order from, if that visits fewer rows than sorting every match.

    Args:
        wanted: rows up to the end of the page.
        total: traces that match; assumed to be spread evenly over the order.
        all_visible: traces of the scope.
    """
    index = _SORT_INDEX.get(sort.field.name)
    if index is None or not total:
        return None
    return index if wanted * all_visible < total * total else None


def has_index(sort: SortKey) -> bool:
    """Whether an index holds the order of a sort."""
    return sort.field.name in _SORT_INDEX


def only_metadata_equals(where: Expr | None) -> Condition | None:
    """The condition, if the filter is one metadata key against one value: its count needs no trace row."""
    if (
        isinstance(where, Condition)
        and where.field.type is FieldType.METADATA
        and where.operator in _POSITIVE
        and len(where.values) == 1
    ):
        return where
    return None


def count_metadata(conn: apsw.Connection, project_id: int, where: Condition, window: Window) -> int:
    """How many traces, hidden ones included, carry a key with a value within a window: a range of the index."""
    return int(
        conn.execute(
            "SELECT count(*) FROM metadata WHERE project_id = ? AND key = ? AND value = ? "
            "AND start_ns >= ? AND start_ns < ?",
            (
                project_id,
                where.key,
                where.values[0],
                -(2**63) if window.start_ns is None else window.start_ns,
                2**63 - 1 if window.end_ns is None else window.end_ns,
            ),
        ).get
    )


def _metadata_count(conn: apsw.Connection, project_id: int, part: Condition, limit: int) -> int:
    total = 0
    for value in part.values:
        total += conn.execute(
            "SELECT count(*) FROM (SELECT 1 FROM metadata WHERE project_id = ? AND key = ? AND value = ? LIMIT ?)",
            (project_id, part.key, value, limit),
        ).get
    return total


def _means_errors(part: Condition) -> bool:
    """Whether a condition can only hold for traces with errors."""
    if part.field.name != "error_count" or not part.values:
        return False
    least = min(int(value) if isinstance(value, bool) else value for value in part.values if not isinstance(value, str))
    return (part.operator is Operator.GT and least >= 0) or (part.operator in {Operator.GTE, *_POSITIVE} and least > 0)
