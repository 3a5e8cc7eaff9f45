"""Empty databases of this version's schema, made once a process and laid down where a test wants one.

Migrating takes 100 to 150 ms, and thousands of tests begin with it. What is laid down is the file that the migrations
made; tests of the migrations themselves open an empty directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from clearspan.catalog.database import FILE_NAME, Database
from clearspan.store.sqlite.process import Options, Service


def lay_catalog(data: Path) -> None:
    """A migrated catalog.db that nobody has written to, if the directory has none."""
    _lay(data / FILE_NAME, _catalog)


def lay_traces(path: Path) -> None:
    """A migrated traces.db that nobody has written to, if there is none."""
    _lay(path, _traces)


@cache
def _catalog() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        database = Database(path)
        database.migrate()
        database.checkpoint()
        database.close()
        return path.read_bytes()


@cache
def _traces() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.db"
        Service(Options(path, bytes(32), 1, 2**20, 1)).close()
        return path.read_bytes()


def _lay(path: Path, made: Callable[[], bytes]) -> None:
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_bytes(made())
