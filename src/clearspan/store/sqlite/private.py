"""Previews, tombstones and notes in traces.db: small statements in the caller's transaction or snapshot."""

from __future__ import annotations

from typing import Any

import apsw

from clearspan.model.errors import Conflict
from clearspan.store.sqlite.deletion_rows import REFUSING
from clearspan.store.tombstone import tombstone_key


def save_preview(conn: apsw.Connection, key: bytes, body: bytes, expires_ns: int) -> None:
    """See port.DeletionStore.save_preview. Raises ValueError if the key is there already."""
    try:
        conn.execute("INSERT INTO preview (key, body, expires_ns) VALUES (?, ?, ?)", (key, body, expires_ns))
    except apsw.ConstraintError:
        raise ValueError("that preview is stored already") from None


def get_preview(conn: apsw.Connection, key: bytes) -> bytes | None:
    """The body, or None."""
    body: bytes | None = conn.execute("SELECT body FROM preview WHERE key = ?", (key,)).get
    return body


def preview_keys(conn: apsw.Connection) -> list[bytes]:
    """Every key."""
    return [key for (key,) in conn.execute("SELECT key FROM preview ORDER BY key")]


def void_preview(conn: apsw.Connection, key: bytes) -> bool:
    """Empty one; False if there was none with a body."""
    conn.execute("UPDATE preview SET body = x'' WHERE key = ? AND body <> x''", (key,))
    return conn.changes() > 0


def sweep_previews(conn: apsw.Connection, now_ns: int) -> int:
    """Remove what has expired; how many there were."""
    conn.execute("DELETE FROM preview WHERE expires_ns <= ?", (now_ns,))
    return conn.changes()


def tombstones(conn: apsw.Connection, deletion_id: str, after: bytes, limit: int) -> list[bytes]:
    """The next keys of a deletion in order."""
    found = conn.execute(
        "SELECT key FROM tombstone INDEXED BY tombstone_by_deletion WHERE deletion_no = "
        f"(SELECT deletion_no FROM deletion WHERE deletion_id = ? AND {REFUSING}) AND key > ? ORDER BY key LIMIT ?",
        (deletion_id, after, limit),
    )
    return [key for (key,) in found]


def find_tombstone(conn: apsw.Connection, secret: bytes, project_id: int, trace_id: str) -> str | None:
    """The deletion whose tombstone refuses a trace."""
    found: str | None = conn.execute(
        f"SELECT d.deletion_id FROM tombstone JOIN deletion d USING (deletion_no) WHERE key = ? AND d.{REFUSING}",
        (tombstone_key(secret, project_id, trace_id),),
    ).get
    return found


def lift_tombstone(conn: apsw.Connection, secret: bytes, project_id: int, trace_id: str) -> str | None:
    """See port.DeletionStore.lift_tombstone."""
    deletion_id = find_tombstone(conn, secret, project_id, trace_id)
    if deletion_id is None:
        return None
    if conn.execute(
        "SELECT EXISTS (SELECT 1 FROM trace WHERE project_id = ? AND trace_id = ?)", (project_id, trace_id)
    ).get:
        raise Conflict("That trace is still being erased.", code="still_erasing")
    conn.execute("DELETE FROM tombstone WHERE key = ?", (tombstone_key(secret, project_id, trace_id),))
    return deletion_id


def put_note(conn: apsw.Connection, ref: str, salt: bytes, body: bytes) -> None:
    """Store a note unless the reference has one."""
    conn.execute(
        "INSERT INTO private_note (ref, salt, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (ref, salt, body)
    )


def get_note(conn: apsw.Connection, ref: str) -> tuple[bytes, bytes] | None:
    """(salt, body), or None."""
    row: Any = conn.execute("SELECT salt, body FROM private_note WHERE ref = ?", (ref,)).fetchone()
    return None if row is None else (row[0], row[1])


def erase_note(conn: apsw.Connection, ref: str) -> bool:
    """Remove a note; False if there was none."""
    conn.execute("DELETE FROM private_note WHERE ref = ?", (ref,))
    return conn.changes() > 0
