"""Scope, window and filter as one WHERE over `trace t`; the only text in it is ours."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.compile_sql import compile_where


class Selection(NamedTuple):
    """An SQL condition over alias `t` and its parameters, in order."""

    sql: str
    params: tuple[Any, ...]


def selection(
    scope: Scope, where: Expr | None, window: Window, *, any_hidden: bool = True, by_start: bool = True
) -> Selection:
    """Everything that decides whether a caller sees a trace.

    Args:
        any_hidden: False only if `hidden` is known to be empty in this snapshot; the test costs 40 ns a row.
        by_start: False keeps SQLite from using the window to choose an index, for windows that exclude little.
    """
    parts: list[str] = []
    params: list[Any] = []
    if len(scope.project_ids) == 1:
        parts.append("t.project_id = ?")
        params.append(scope.project_ids[0])
    else:
        parts.append("t.project_id IN (SELECT value FROM json_each(?))")
        params.append(orjson.dumps(scope.project_ids).decode())
    if scope.environment is not None:
        parts.append("t.environment = ?")
        params.append(scope.environment)
    column = "t.start_ns" if by_start else "+t.start_ns"
    if window.start_ns is not None:
        parts.append(f"{column} >= ?")
        params.append(window.start_ns)
    if window.end_ns is not None:
        parts.append(f"{column} < ?")
        params.append(window.end_ns)
    if any_hidden:
        parts.append("t.trace_pk NOT IN (SELECT trace_pk FROM hidden)")
    if where is not None:
        compiled = compile_where(where, project_ids=scope.project_ids)
        parts.append(f"({compiled.sql})")
        params.extend(compiled.params)
    return Selection(" AND ".join(parts), tuple(params))
