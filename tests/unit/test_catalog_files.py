"""catalog.db as a file: what it forgets, who may read it, how it is made, and several processes at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError, ProgrammingError, StatementError

from clearspan.catalog import Catalog, apsw_dbapi
from clearspan.catalog import database as database_module
from clearspan.catalog.database import HEAD, Database, open_connection
from clearspan.catalog.tables import api_key, metadata, project
from clearspan.model.errors import StoreDamaged


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_the_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database_module.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog, catalog.database.read() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
        integrity = db.execute(text("PRAGMA integrity_check")).scalar()
    assert integrity == "ok"


def test_only_the_first_start_migrates(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalog.db")
    assert database.migrate()
    assert not database.migrate()
    database.close()


def test_an_open_of_a_present_file_needs_no_alembic_and_no_sqlite3(tmp_path: Path) -> None:
    Catalog.open(tmp_path).close()
    program = (
        "import sys; from pathlib import Path; from clearspan.catalog import Catalog; "
        "Catalog.open(Path(sys.argv[1])).close(); "
        "print(sorted({'alembic', 'sqlite3'} & {name.split('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog, catalog.database.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreDamaged, match="newer version"):
        Catalog.open(tmp_path)


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = database_module._upgrade

    def fail(connection: object) -> None:
        upgrade(connection)  # type: ignore[arg-type]
        raise RuntimeError("power cut")

    monkeypatch.setattr(database_module, "_upgrade", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        Catalog.open(tmp_path)
    monkeypatch.undo()
    db = open_connection(tmp_path / "catalog.db")
    assert db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    db.close()
    Catalog.open(tmp_path).close()


def test_a_deleted_name_is_gone_from_the_files(tmp_path: Path) -> None:
    needle = "needle-in-a-key-name"
    with Catalog.open(tmp_path) as catalog:
        org = catalog.first_org
        for number in range(60):
            catalog.create_key(org.id, name=f"{needle}-{number}-" + "x" * (number * 3))
        catalog.checkpoint()
        assert bytes_of(tmp_path).count(needle.encode()) >= 60
        with catalog.database.write() as db:
            db.execute(delete(api_key).where(api_key.c.id % 2 == 0))
        with catalog.database.write() as db:
            db.execute(delete(api_key))
        assert catalog.checkpoint()
        assert needle.encode() not in bytes_of(tmp_path)


def test_a_checkpoint_says_when_a_reader_prevents_it(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        reader = open_connection(tmp_path / "catalog.db")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM project").fetchall()
        catalog.create_project(catalog.first_org.id, "later")
        connection = catalog.database.engine.raw_connection()
        connection.driver_connection.db.set_busy_timeout(0)  # type: ignore[union-attr]
        connection.close()
        assert not catalog.checkpoint()
        reader.execute("COMMIT")
        assert catalog.checkpoint()
        reader.close()


def test_the_folder_and_its_files_belong_to_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with Catalog.open(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_connections_are_as_careful_as_they_must_be(tmp_path: Path) -> None:
    Catalog.open(tmp_path).close()
    db = open_connection(tmp_path / "catalog.db")
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1), ("foreign_keys", 1)):
        assert db.pragma(pragma) == value, pragma
    assert str(db.vfsname("main")).startswith("clearspan"), "not through the VFS that zeroes gaps"
    db.close()


def test_several_processes_may_make_the_catalog_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from clearspan.catalog import Catalog; Catalog.open(Path(sys.argv[1]))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with Catalog.open(tmp_path) as catalog:
        assert len(catalog.organisations()) == 1


def test_threads_may_write_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    with Catalog.open(tmp_path) as catalog, ThreadPoolExecutor(8) as pool:
        org = catalog.first_org

        def work(number: int) -> None:
            start.wait()
            for each in range(5):
                catalog.append_ledger("planned", f"del_{number}_{each}", {})
                catalog.projects(org.id)

        list(pool.map(work, range(8)))
        assert [entry.seq for entry in catalog.ledger()] == list(range(40))


def test_an_error_rolls_the_whole_transaction_back(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        org = catalog.first_org
        row = {"public_id": "p", "org_id": org.id, "name": "half", "created_at_ns": 0}

        def insert_twice() -> None:
            with catalog.database.write() as db:
                db.execute(insert(project).values(row))
                db.execute(insert(project).values(row | {"name": "needle-name"}))

        with pytest.raises(IntegrityError) as raised:
            insert_twice()
        assert catalog.find_project(org.id, "half") is None
        assert "needle-name" not in str(raised.value), "errors go to logs, values must not"


# The adapter under SQLAlchemy


@pytest.fixture
def connection(tmp_path: Path) -> apsw_dbapi.Connection:
    opened = apsw_dbapi.connect(str(tmp_path / "plain.db"))
    opened.cursor().execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL)")
    return opened


def test_a_cursor_gives_rows_columns_and_counts(connection: apsw_dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO t (b) VALUES (?)", [("x",), ("y",), ("z",)])
    assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (3, 3, None)
    cursor.execute("SELECT a, b AS name FROM t ORDER BY a")
    assert cursor.description is not None
    assert [column[0] for column in cursor.description] == ["a", "name"]
    assert cursor.rowcount == -1
    assert cursor.fetchone() == (1, "x")
    assert cursor.fetchmany(1) == [(2, "y")]
    assert cursor.fetchall() == [(3, "z")]
    assert cursor.fetchone() is None
    assert cursor.execute("SELECT a FROM t WHERE a > 9").description is not None, "no row, yet its columns"
    assert cursor.execute("UPDATE t SET b = 'w' WHERE a > ?", (1,)).rowcount == 2
    returned = cursor.execute("DELETE FROM t RETURNING b")
    assert (returned.fetchall(), returned.rowcount) == ([("x",), ("w",), ("w",)], 3)


def test_nothing_begins_by_itself(connection: apsw_dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (1, 'kept')")
    connection.rollback()
    cursor.execute("BEGIN IMMEDIATE")
    cursor.execute("INSERT INTO t VALUES (2, 'undone')")
    connection.rollback()
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t VALUES (3, 'kept')")
    connection.commit()
    assert cursor.execute("SELECT a FROM t").fetchall() == [(1,), (3,)]


@pytest.mark.parametrize(
    ("sql", "parameters", "kind"),
    [
        ("INSERT INTO t VALUES (1, NULL)", (), apsw_dbapi.IntegrityError),
        ("INSERT INTO t VALUES ('text', 'x')", (), apsw_dbapi.IntegrityError),
        ("SELECT * FROM nothing", (), apsw_dbapi.OperationalError),
        ("SELECT ?", (), apsw_dbapi.ProgrammingError),
        ("SELECT ?", (object(),), apsw_dbapi.InterfaceError),
        ("SELECT ?", (2**70,), apsw_dbapi.InterfaceError),
    ],
)
def test_errors_are_those_of_the_standard(
    connection: apsw_dbapi.Connection, sql: str, parameters: tuple[object, ...], kind: type[Exception]
) -> None:
    with pytest.raises(apsw_dbapi.Error) as raised:
        connection.cursor().execute(sql, parameters)
    assert type(raised.value) is kind


def test_a_closed_connection_says_so(connection: apsw_dbapi.Connection) -> None:
    connection.close()
    with pytest.raises(apsw_dbapi.ProgrammingError, match="Cannot operate on a closed database"):
        connection.cursor().execute("SELECT 1")


def test_a_damaged_file_is_a_database_error(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever layer meets it first
        Catalog.open(tmp_path)
    assert isinstance(raised.value, (DatabaseError, StoreDamaged)) or "not a database" in str(raised.value)


def test_sqlalchemy_sees_the_standard_errors(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        for sql, kind in (("SELECT * FROM nothing", OperationalError), ("SELECT :a", StatementError)):
            with pytest.raises(kind), catalog.database.read() as db:
                db.execute(text(sql))
        with pytest.raises(ProgrammingError), catalog.database.read() as db:
            db.exec_driver_sql("SELECT ?", ())
        with catalog.database.read() as db:
            assert db.execute(select(func.count()).select_from(project)).scalar() == 1
