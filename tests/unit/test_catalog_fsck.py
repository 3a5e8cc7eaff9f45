"""The catalog's offline check finds each kind of damage, and nothing in a sound file."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from clearspan.catalog import Catalog, ExperimentDefinition
from clearspan.catalog.fsck import CatalogReport, check_catalog
from clearspan.files.vfs import create_database, open_writer

LEDGER_ENTRIES = 1100  # more than are read at once


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a catalog with two projects and a long ledger."""
    data = tmp_path_factory.mktemp("sound")
    with Catalog.open(data) as catalog:
        org_id = catalog.first_org.id
        catalog.create_project(org_id, "second")
        dataset = catalog.datasets.create(org_id, "golden")
        catalog.experiments.create(org_id, ExperimentDefinition("run", dataset.uuid, [], 0))
        for number in range(LEDGER_ENTRIES):
            catalog.append_ledger("deletion", org_id=org_id, deletion_id=f"del_{number:032x}", step="planned", body={})
        assert catalog.checkpoint()
    return (data / "catalog.db").read_bytes()


@pytest.fixture
def data(tmp_path: Path, sound: bytes) -> Path:
    (tmp_path / "catalog.db").write_bytes(sound)
    return tmp_path


def damage(data: Path, sql: str) -> None:
    """Change the file behind the catalog's back, past the triggers that protect its ledger."""
    conn = apsw.Connection(str(data / "catalog.db"))
    conn.execute("PRAGMA secure_delete=OFF; PRAGMA foreign_keys=OFF").fetchall()
    for (trigger,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f'DROP TRIGGER "{trigger}"')
    conn.execute(sql).fetchall()
    conn.close()


def broken(data: Path) -> list[str]:
    return [violation.invariant for violation in check_catalog(data, pages=False).violations]


def test_a_sound_catalog_has_no_violation(data: Path) -> None:
    assert check_catalog(data) == CatalogReport(LEDGER_ENTRIES, [])


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE ledger_entry SET step = 'verified' WHERE seq = 1050",
        "DELETE FROM ledger_entry WHERE seq = 1000",
        "UPDATE ledger_entry SET body = '{\"n\":1}' WHERE seq = 0",
    ],
)
def test_a_changed_ledger_is_found(data: Path, sql: str) -> None:
    damage(data, sql)
    assert broken(data) == ["each ledger entry follows the one before"]


def test_a_dangling_reference_and_a_foreign_schema_are_found(data: Path) -> None:
    damage(data, "UPDATE project SET org_id = 99 WHERE name = 'second'; UPDATE alembic_version SET version_num = '9'")
    assert broken(data) == ["references in the catalog lead somewhere", "the catalog's schema is this program's"]


@pytest.mark.parametrize(
    ("sql", "invariants"),
    [
        ("DELETE FROM dataset", ["every dataset has a project of its own"]),
        ("UPDATE project SET purpose = 'traces' WHERE purpose = 'dataset'", ["every dataset has a project of its own"]),
        ("UPDATE project SET state = 'gone' WHERE purpose = 'dataset'", ["every dataset has a project of its own"]),
        ("UPDATE experiment SET project_id = 1", ["every definition of an experiment has its project"]),
        ("UPDATE project SET purpose = 'fun' WHERE name = 'second'", ["every project has a known purpose"]),
    ],
)
def test_a_project_that_is_not_what_it_is_for_is_found(data: Path, sql: str, invariants: list[str]) -> None:
    damage(data, sql)
    assert broken(data) == invariants


def test_a_trace_of_no_project_is_found(data: Path) -> None:
    traces = data / "traces.db"
    create_database(traces, page_size=4096)
    conn = open_writer(traces)
    conn.execute("CREATE TABLE trace (project_id INTEGER); INSERT INTO trace VALUES (1), (2), (7), (7)")
    conn.close()
    found = check_catalog(data, pages=False).violations
    assert [(each.invariant, each.count, each.where) for each in found] == [
        ("every trace belongs to a project", 2, "project_id 7")
    ]


def test_bytes_that_belong_to_nothing_are_found(data: Path) -> None:
    damage(data, "DELETE FROM ledger_entry WHERE seq >= 900")
    found = [each.invariant for each in check_catalog(data).violations]
    assert "the ledger's tree is that of its entries" in found
    assert any(invariant.startswith("no bytes left in") for invariant in found)


def test_no_catalog_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_catalog(tmp_path)
    assert list(tmp_path.iterdir()) == []
