"""The part of DB-API 2 (PEP 249) that SQLAlchemy's SQLite dialect needs, over apsw.

Why: every database file goes through the gap-zeroing VFS of apsw's SQLite, and two SQLite libraries must never open
one file. So the catalog cannot use the standard `sqlite3`.

Transactions are explicit: nothing here begins one by itself. The engine sends `BEGIN` or `BEGIN IMMEDIATE`
(catalog/database.py); `commit` and `rollback` end what is open and do nothing otherwise.

Rows are read completely by `execute`. Catalog results are small, and a half-read statement would keep a snapshot
open, which keeps the write-ahead log from being emptied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import apsw

apilevel = "2.0"
threadsafety = 1  # threads may share the module, not a connection: the pool lends each to one thread at a time
paramstyle = "qmark"
sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))
Binary = bytes


class Warning(Exception):
    """Never raised; PEP 249 wants the name."""


class Error(Exception):
    """Something went wrong in the database layer."""


class InterfaceError(Error):
    """A value that SQLite cannot take."""


class DatabaseError(Error):
    """The database file is damaged or is none."""


class DataError(DatabaseError):
    """A value out of range."""


class OperationalError(DatabaseError):
    """Busy, full, read-only, I/O error, or SQL that fails."""


class IntegrityError(DatabaseError):
    """A constraint forbids it."""


class InternalError(DatabaseError):
    """SQLite reports an error of its own."""


class ProgrammingError(DatabaseError):
    """The interface is used wrongly."""


class NotSupportedError(DatabaseError):
    """Not offered by SQLite."""


_KINDS: tuple[tuple[tuple[type[Exception], ...], type[Error]], ...] = (
    ((apsw.ConstraintError, apsw.MismatchError), IntegrityError),
    ((apsw.TooBigError, apsw.RangeError), DataError),
    ((apsw.CorruptError, apsw.NotADBError, apsw.FormatError), DatabaseError),
    ((apsw.InternalError,), InternalError),
    ((apsw.BindingsError, apsw.MisuseError, apsw.ThreadingViolationError), ProgrammingError),
    ((apsw.CursorClosedError, apsw.ConnectionClosedError), ProgrammingError),
    ((TypeError, OverflowError), InterfaceError),
)


def _translated(error: Exception) -> Error:
    if isinstance(error, apsw.ConnectionClosedError):
        # SQLAlchemy's dialect knows a lost connection by these very words of sqlite3.
        return ProgrammingError("Cannot operate on a closed database.")
    for kinds, ours in _KINDS:
        if isinstance(error, kinds):
            return ours(str(error))
    return OperationalError(str(error))


class Cursor:
    """Runs one statement at a time and holds its rows."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.lastrowid: int | None = None
        self.rowcount = -1
        self._rows: Iterator[Any] = iter(())
        self._readonly = True

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run one statement with positional parameters and read its rows."""
        return self._run(sql, [parameters])

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> Cursor:
        """Run one statement for each set of parameters; `rowcount` is the sum."""
        return self._run(sql, parameters)

    def _run(self, sql: str, many: Sequence[Sequence[Any]]) -> Cursor:
        db = self.connection.db
        try:
            cursor = db.cursor()
            # apsw forgets the columns of a statement that gave no row, so they are noted as it starts.
            cursor.exec_trace = self._note_columns
            self.description, rows, changed, writes = None, [], 0, False
            for parameters in many:
                rows += cursor.execute(sql, tuple(parameters)).fetchall()
                if not self._readonly:
                    writes = True
                    changed += db.changes()
        except (apsw.Error, TypeError, OverflowError) as error:
            raise _translated(error) from error
        self._rows = iter(rows)
        self.rowcount = changed if writes else -1
        self.lastrowid = db.last_insert_rowid() if writes else None
        return self

    def _note_columns(self, cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        self._readonly = cursor.is_readonly
        columns = cursor.get_description()
        if columns:
            self.description = tuple((column[0], None, None, None, None, None, None) for column in columns)
        return True

    def fetchone(self) -> Any:
        """The next row or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """At most `size` further rows."""
        return list(islice(self._rows, size or self.arraysize))

    def fetchall(self) -> list[Any]:
        """All further rows."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        """Let go of the rows."""
        self._rows = iter(())

    def setinputsizes(self, _sizes: Any) -> None:
        """Nothing to do; PEP 249 wants it."""

    def setoutputsize(self, _size: Any, _column: Any = None) -> None:
        """Nothing to do; PEP 249 wants it."""


class Connection:
    """An apsw connection as PEP 249 sees it."""

    isolation_level: str | None = ""  # SQLAlchemy asks: None would mean that every statement commits by itself

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self)

    def commit(self) -> None:
        """End the open transaction, durably."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the open transaction."""
        self._end("ROLLBACK")

    def _end(self, sql: str) -> None:
        try:
            if self.db.in_transaction:
                self.db.execute(sql)
        except apsw.Error as error:
            raise _translated(error) from error

    def close(self) -> None:
        """Close the file; an open transaction is undone."""
        self.db.close()

    def create_function(
        self, name: str, arguments: int, function: Callable[..., Any], *, deterministic: bool = False
    ) -> None:
        """Register an SQL function."""
        self.db.create_scalar_function(name, function, arguments, deterministic=deterministic)


def connect(path: str) -> Connection:
    """Open a file plainly. The catalog's engine passes its own opener instead (catalog/database.py)."""
    return Connection(apsw.Connection(path))
