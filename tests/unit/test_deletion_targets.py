"""No table can be forgotten: each is a registered target or exempt with a reason."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import apsw

from clearspan.catalog.catalog import Catalog
from clearspan.catalog.tables import metadata
from clearspan.deletion.coverage import render_coverage
from clearspan.deletion.execute import Deleter
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.targets import CATALOG_EXEMPT, EXEMPT, FILES, NAMES, STORE_NAMES, TARGETS, Home
from clearspan.store.memory import MemoryStore
from clearspan.testing.build import T0_NS, make_trace
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.deletions import by_ids
from clearspan.testing.local_store import open_local_store


def tables_of_the_trace_store() -> set[str]:
    """Every table that the migrations make, virtual tables' own ones included."""
    conn = apsw.Connection(":memory:")
    folder = resources.files("clearspan.store.sqlite").joinpath("migrations")
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if re.fullmatch(r"\d{4}_\w+\.sql", entry.name):
            conn.execute(entry.read_text(encoding="utf-8"))
    rows = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return {name for (name,) in rows}


def registered(home: Home) -> list[str]:
    return [table for target in TARGETS if target.home is home for table in target.tables]


def test_every_table_of_the_trace_store_is_registered_or_exempt_once() -> None:
    named = [*registered(Home.TRACES), *EXEMPT]
    assert len(named) == len(set(named))
    assert set(named) == tables_of_the_trace_store()


def test_every_table_of_the_catalog_is_registered_or_exempt_once() -> None:
    named = [*registered(Home.CATALOG), *CATALOG_EXEMPT]
    assert len(named) == len(set(named))
    assert set(named) == set(metadata.tables)


def test_every_exemption_has_a_reason() -> None:
    assert all(len(reason) > 10 for reason in (*EXEMPT.values(), *CATALOG_EXEMPT.values()))


def test_names_are_unique_and_the_store_counts_them_all() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert set(STORE_NAMES) == set(MemoryStore(b"").count_targets([]))


def test_the_page_for_readers_is_in_step() -> None:
    page = Path(__file__).parents[2] / "docs" / "deletion-coverage.md"
    assert page.read_text() == render_coverage(), "made by: python -m clearspan.deletion.coverage"


def test_a_data_directory_holds_registered_files_only(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        store = open_local_store(tmp_path, catalog.tombstone_secret, reserve_bytes=4096)
        store.writer.submit([make_trace("t")], T0_NS).result()
        clock, ids = FixedClock(), CountingIds()
        records = CatalogRecords(catalog, clock, ids)
        Deleter(store.deletions, records, clock, ids, secret=b"k").delete(by_ids("t"))
        found = {path.name for path in tmp_path.iterdir()}
        store.close()
    assert {"traces.db", "catalog.db", "reserve"} <= found <= set(FILES)
