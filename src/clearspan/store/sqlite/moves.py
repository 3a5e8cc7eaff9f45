"""Where traces went that were moved to another project, and where they came from: reads only.

A keyed hash of a trace under a project that it left says where it went; one under the project that it is in, where it
was before. Neither tells anybody anything, so they need no erasing. transferring.py writes both.
"""

from __future__ import annotations

import apsw

from clearspan.store.tombstone import tombstone_key

_HOPS_MAX = 1_000
"""Moves that late data follows. No chain has a circle: a trace that comes back ends the way that led out."""


def any_moved(conn: apsw.Connection) -> bool:
    """Whether any trace was ever moved."""
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM moved)").get)


def home_of(conn: apsw.Connection, secret: bytes, project_id: int, trace_id: str) -> int:
    """The project that data of a trace belongs to which was sent to `project_id`. Cost: about 5 µs."""
    for _ in range(_HOPS_MAX):
        key = tombstone_key(secret, project_id, trace_id)
        found = conn.execute("SELECT project_id FROM moved WHERE key = ?", (key,)).get
        if found is None:
            break
        project_id = int(found)
    return project_id


def homes_of(conn: apsw.Connection, secret: bytes, project_id: int, trace_id: str) -> list[int]:
    """The project that a trace is in, and those that it was in before. Cost: about 5 µs."""
    key = tombstone_key(secret, project_id, trace_id)
    return [
        project_id,
        *(number for (number,) in conn.execute("SELECT project_id FROM moved_from WHERE key = ?", (key,))),
    ]
