"""Holds in traces.db: what they keep, asked of given traces only, and their plain requests.

Every function works in the caller's transaction or snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.store.port import HoldRow
from clearspan.store.span_deletion import SLASH
from clearspan.store.sqlite import select, textsearch

CHUNK = 500
"""Traces that one statement looks at."""
_COLUMNS = "hold_id, org_id, project_ids, request, created_ns, created_by, released_ns"


def insert(conn: apsw.Connection, hold: HoldRow) -> None:
    """Store a hold; one with this id that is there already stays as it is."""
    conn.execute(
        f"INSERT INTO hold ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
        (
            hold.hold_id,
            hold.org_id,
            orjson.dumps(hold.scope.project_ids).decode(),
            _request(hold),
            hold.created_ns,
            hold.created_by,
        ),
    )


def release(conn: apsw.Connection, hold_id: str, released_ns: int) -> bool:
    """End a hold and erase its request; False: there is none, or it was released before."""
    conn.execute(
        "UPDATE hold SET released_ns = ?, request = NULL WHERE hold_id = ? AND released_ns IS NULL",
        (released_ns, hold_id),
    )
    return conn.changes() > 0


def rows(conn: apsw.Connection, org_id: int | None = None, *, released: bool = False) -> list[HoldRow]:
    """Holds of an organisation or of all, oldest first."""
    found = conn.execute(
        f"SELECT {_COLUMNS} FROM hold WHERE (?1 IS NULL OR org_id = ?1) AND (?2 OR released_ns IS NULL) "
        "ORDER BY created_ns, hold_id",
        (org_id, released),
    )
    return [_hold_of(row) for row in found]


def get(conn: apsw.Connection, hold_id: str) -> HoldRow | None:
    """One hold by its id."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM hold WHERE hold_id = ?", (hold_id,)).fetchone()
    return None if row is None else _hold_of(row)


def kept_by(conn: apsw.Connection, hold: HoldRow, trace_pks: Sequence[int]) -> set[int]:
    """Those of the traces, hidden or not, that the hold covers. Cost: a few µs a trace; text searches unpack it."""
    return kept(conn, [hold], trace_pks)


def kept(conn: apsw.Connection, active: Sequence[HoldRow], trace_pks: Sequence[int]) -> set[int]:
    """Those of the traces that some of the holds covers. A span that was cut out of its trace is covered with it."""
    found: set[int] = set()
    if not active:
        return found
    whole_of = _wholes(conn, trace_pks)
    asked = [*trace_pks, *sorted(set(whole_of.values()) - set(trace_pks))]
    with textsearch.searching(conn, unlimited=True, narrow=False):
        for start in range(0, len(asked), CHUNK):
            for project_id, pks in _by_project(conn, asked[start : start + CHUNK]).items():
                for hold in active:
                    if project_id in hold.scope.project_ids:
                        sql, params = _query(hold, project_id)
                        found.update(pk for (pk,) in conn.execute(sql, (*params, pks)))
    return {pk for pk in trace_pks if pk in found or whole_of.get(pk) in found}


def _wholes(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[int, int]:
    """Of spans that were cut out (store/span_deletion.py): what is left of the trace that each came from."""
    rows: list[Any] = conn.execute(
        "SELECT part.trace_pk, whole.trace_pk FROM json_each(?) AS w CROSS JOIN trace part ON part.trace_pk = w.value "
        f"CROSS JOIN trace whole ON whole.project_id = part.project_id AND whole.trace_id = {_WHOLE_ID} "
        f"WHERE part.trace_id <> {_WHOLE_ID}",
        (orjson.dumps(list(trace_pks)).decode(),),
    ).fetchall()
    return dict(rows)


_WHOLE_ID = f"substr(part.trace_id, 1, instr(part.trace_id || '{SLASH}', '{SLASH}') - 1)"


def count_hidden(conn: apsw.Connection, hold: HoldRow) -> int:
    """How many hidden traces the hold keeps: those of which nothing is purged yet. Cost O(hidden traces)."""
    pks = [pk for (pk,) in conn.execute("SELECT trace_pk FROM hidden WHERE NOT begun")]
    return len(kept_by(conn, hold, pks))


def _by_project(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[int, str]:
    """project_id → JSON array of those of the traces that are in it."""
    pks = orjson.dumps(trace_pks).decode()
    sql = (
        "SELECT project_id, json_group_array(trace_pk) FROM trace "
        "WHERE trace_pk IN (SELECT value FROM json_each(?)) GROUP BY 1"
    )
    found: list[Any] = conn.execute(sql, (pks,)).fetchall()
    return dict(found)


def _query(hold: HoldRow, project_id: int) -> tuple[str, tuple[Any, ...]]:
    """The traces of one project that the hold covers; those asked about are the last parameter."""
    plan = select.plan(hold.scope, project_id, hold.where, hold.window, entry=select.Entry.GIVEN, any_hidden=False)
    sql, params = f"SELECT t.trace_pk FROM {plan.table} WHERE {plan.sql}", plan.params
    if hold.trace_ids is not None:
        sql += f" AND {_WHOLE_ID.replace('part.', 't.')} IN (SELECT value FROM json_each(?))"
        params = (*params, orjson.dumps(hold.trace_ids).decode())
    return f"{sql} AND t.trace_pk IN (SELECT value FROM json_each(?))", params


def _request(hold: HoldRow) -> bytes:
    plain = {
        "where": None if hold.where is None else encode_expr(hold.where),
        "trace_ids": hold.trace_ids,
        "window": list(hold.window),
        "environment": hold.scope.environment,
        "reason": hold.reason,
    }
    return orjson.dumps(plain)


def _hold_of(row: Sequence[Any]) -> HoldRow:
    hold_id, org_id, project_ids, request, created_ns, created_by, released_ns = row
    plain: dict[str, Any] = {} if request is None else orjson.loads(request)
    where: Expr | None = None if plain.get("where") is None else decode_expr(plain["where"])
    ids = plain.get("trace_ids")
    return HoldRow(
        hold_id=hold_id,
        org_id=org_id,
        scope=Scope(tuple(orjson.loads(project_ids)), plain.get("environment")),
        where=where,
        trace_ids=None if ids is None else tuple(ids),
        window=Window(*plain["window"]) if plain else Window(),
        reason=plain.get("reason"),
        created_ns=created_ns,
        created_by=created_by,
        released_ns=released_ns,
    )
