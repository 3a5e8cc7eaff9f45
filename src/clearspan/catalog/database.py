"""Opening catalog.db, bringing it to the present schema, and its two kinds of transaction.

The SQL of this package is SQLAlchemy Core without SQLite's own words, so that PostgreSQL can take its place; what is
SQLite's alone stands in this module.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from clearspan.catalog import apsw_dbapi
from clearspan.files.vfs import open_database
from clearspan.model.errors import StoreDamaged

FILE_NAME = "catalog.db"
HEAD = "0005"
"""The newest migration. Kept by hand, and by a test, so that a start needs Alembic (120 ms) only to migrate."""

BUSY_MS = 10_000
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """A pool of connections to the catalog; safe for use by many threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _make_private_file(path)
        # Errors must not carry bound values into a log: among them are key digests and names.
        self._engine = create_engine(
            "sqlite+pysqlite:///catalog.db",
            module=apsw_dbapi,
            creator=lambda: apsw_dbapi.Connection(open_connection(path)),
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=12,
            hide_parameters=True,
        )
        event.listen(self._engine, "begin", _begin)
        self._writing = threading.Lock()
        self._writes = self._engine.execution_options(clearspan_begin="BEGIN IMMEDIATE")

    @property
    def engine(self) -> Engine:
        """For tests and tools."""
        return self._engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot; nothing may be written."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One durable transaction. It takes SQLite's write lock at once, so that what it reads first stays true.

        Not to be nested.
        """
        # Threads queue here: SQLite's own waiting is by sleeping longer and longer, up to 0.1 s a time.
        with self._writing, self._writes.begin() as connection:
            yield connection

    def migrate(self) -> bool:
        """Bring the schema to HEAD; True when something was to be done.

        Safe to call from several processes at once. Cost: 0.2 ms when up to date.
        Raises:
            StoreDamaged: the file was written by a newer version.
        """
        if not self.is_behind():
            return False
        with self.write() as connection:
            _upgrade(connection)
        return True

    def is_behind(self) -> bool:
        """Whether the schema is not HEAD's, so that nothing but `migrate` may touch the file."""
        return self._revision() != HEAD

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it; False when a reader elsewhere prevents it.

        After True, nothing that was deleted before is left in the log.
        """
        connection = self._engine.raw_connection()
        try:
            db = connection.driver_connection.db  # type: ignore[union-attr]
            return bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        finally:
            connection.close()

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    def _revision(self) -> str | None:
        with self.read() as connection:
            if not self._engine.dialect.has_table(connection, "alembic_version"):
                return None
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def open_connection(path: Path) -> apsw.Connection:
    """A connection to catalog.db as every user of the file must have it: zeroing, WAL, synchronous FULL."""
    db = open_database(path, busy_ms=BUSY_MS)
    db.execute("PRAGMA foreign_keys=ON").fetchall()
    return db


def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(connection.get_execution_options().get("clearspan_begin", "BEGIN"))


def _make_private_file(path: Path) -> None:
    # The file holds secrets; SQLite gives its log and index files the same mode. Only when new: to open and close
    # a database file behind SQLite's back drops the locks this process holds on it.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreDamaged(
            f"catalog.db cannot be brought to version {HEAD}: it was written by a newer version of Clearspan."
        ) from error
