"""Versioned migrations of traces.db: numbered SQL files, applied in order, each in one transaction."""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

import apsw

from clearspan.model.errors import StoreDamaged


class Migration(NamedTuple):
    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this version, by number; a gap or a repeated number raises StoreDamaged."""
    found = []
    for entry in resources.files("clearspan.store.sqlite").joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort()
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise StoreDamaged("the store's migrations are not numbered 1, 2, 3 …")
    return found


def migrate(conn: apsw.Connection) -> int:
    """Bring a database to this version's schema.

    Args:
        conn: a writable connection; must not be inside a transaction.
    Returns:
        The schema version it has now.
    Raises:
        StoreDamaged: the file was written by a newer version than this one.
    """
    known = migrations()
    version = int(conn.pragma("user_version"))
    if version > known[-1].number:
        raise StoreDamaged(
            f"traces.db has schema version {version}, this program knows {known[-1].number}: "
            "it was written by a newer version"
        )
    for migration in known[version:]:
        with conn:
            conn.execute(migration.sql)
            conn.execute(f"PRAGMA user_version = {migration.number}")
    return known[-1].number
