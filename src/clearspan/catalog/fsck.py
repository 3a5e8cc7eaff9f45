"""Every stored invariant of catalog.db, and what traces.db assumes of it. Reads only; the server may run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from sqlalchemy import Connection, select

from clearspan.catalog.check import check_stored
from clearspan.catalog.database import FILE_NAME, HEAD, Database
from clearspan.catalog.export import export_lines
from clearspan.catalog.projects import ProjectPurpose, ProjectState
from clearspan.catalog.tables import dataset, experiment, project
from clearspan.files.pages import scan_database
from clearspan.files.vfs import open_reader
from clearspan.model.errors import StoreDamaged
from clearspan.proof.findings import Findings
from clearspan.proof.log import check_log
from clearspan.store.sqlite.fsck import Violation

_LEDGER = {
    "chain": "each ledger entry follows the one before",
    "tree": "the ledger's tree is that of its entries",
    "entries": "the ledger can be exported",
    "heads": "each signed head fits the ledger",
    "receipts": "each receipt holds and is its deletion's only one",
}
"""Points of the ledger's check as invariants."""


class CatalogReport(NamedTuple):
    """The outcome of one check."""

    ledger_entries: int
    violations: list[Violation]


def check_catalog(data: Path, *, pages: bool = True) -> CatalogReport:
    """Check the catalog of a data directory.

    Args:
        pages: also parse every page for bytes that belong to nothing; right only when no server writes meanwhile.
    Cost: reads the whole file once, and the index of traces by project.
    Raises:
        FileNotFoundError: there is no catalog.
    """
    path = data / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"There is no {FILE_NAME} in {data}.")
    violations = list(_file(path))
    if violations:  # what a damaged or foreign file says of itself is not worth reading
        return CatalogReport(0, violations)
    database = Database(path)
    try:
        ledger_entries, chain = _ledger(database)
        violations += chain
        with database.read() as db:
            known = set(db.scalars(select(project.c.id)))
            violations += _purposes(db)
    finally:
        database.close()
    violations += _projects(data / "traces.db", known)
    if pages:
        violations += [Violation(f"no bytes left in {kind} of {FILE_NAME}", n) for kind, n in _residue(path).items()]
    return CatalogReport(ledger_entries, violations)


def _file(path: Path) -> Iterator[Violation]:
    conn = open_reader(path)
    try:
        messages = [text for (text,) in conn.execute("PRAGMA integrity_check(10)")]
        if messages != ["ok"]:
            yield Violation(f"SQLite integrity check of {FILE_NAME}", len(messages), str(messages[0])[:200])
            return
        dangling = conn.execute("PRAGMA foreign_key_check").fetchall()
        if dangling:
            yield Violation("references in the catalog lead somewhere", len(dangling), f"table {dangling[0][0]}")
        revision = conn.execute("SELECT version_num FROM alembic_version").get
        if revision != HEAD:
            yield Violation("the catalog's schema is this program's", 1, f"it is {revision}")
    finally:
        conn.close()


def _ledger(database: Database) -> tuple[int, list[Violation]]:
    """Check chain, tree, heads and receipts: (how many entries follow one another, what is wrong)."""
    found = Findings()
    with database.read() as db:
        size = check_stored(db, found)
        if found.ok:
            found.checks += check_log(export_lines(db)).checks
    return size, [Violation(_LEDGER[check.name], 1, check.said) for check in found.checks if not check.ok]


def _projects(traces: Path, known: set[int]) -> list[Violation]:
    """Every trace belongs to a project of the catalog: one of no project could be seen and deleted by nobody."""
    if not traces.is_file():
        return []
    conn = open_reader(traces)
    try:
        found: list[Any] = conn.execute("SELECT project_id, count(*) FROM trace GROUP BY project_id").fetchall()
    finally:
        conn.close()
    unknown = {project_id: n for project_id, n in found if project_id not in known}
    where = "project_id " + ", ".join(map(str, sorted(unknown)))
    return [Violation("every trace belongs to a project", sum(unknown.values()), where)] if unknown else []


def _purposes(db: Connection) -> Iterator[Violation]:
    """What makes a project a dataset or an experiment stands beside it, as long as it is there and no longer."""
    rows = db.execute(select(project.c.id, project.c.purpose).where(project.c.state != ProjectState.GONE))
    purposes = {row.id: row.purpose for row in rows}
    of_purpose = {each: {n for n, purpose in purposes.items() if purpose == each} for each in ProjectPurpose}
    datasets = set(db.scalars(select(dataset.c.project_id)))
    defined = set(db.scalars(select(experiment.c.project_id)))
    points = {
        "every dataset has a project of its own": datasets ^ of_purpose[ProjectPurpose.DATASET],
        "every definition of an experiment has its project": defined - of_purpose[ProjectPurpose.EXPERIMENT],
        "every project has a known purpose": {n for n, each in purposes.items() if each not in set(ProjectPurpose)},
    }
    for invariant, wrong in points.items():
        if wrong:
            yield Violation(invariant, len(wrong), "project_id " + ", ".join(map(str, sorted(wrong))))


def _residue(path: Path) -> dict[str, int]:
    try:
        return dict(scan_database(path).residue)
    except (StoreDamaged, apsw.Error):
        return {"unreadable pages": 1}
