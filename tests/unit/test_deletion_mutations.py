"""Whichever target's rows stay behind, on the embedded store, the deletion ends `failed` and names it.

The rows are kept by triggers of SQLite itself, so the test knows nothing of how the purge removes them: it takes the
registry's list of tables, and a target that is added there is tested from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from clearspan.catalog.catalog import Catalog
from clearspan.deletion.execute import Deleter
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.state import DeletionState
from clearspan.deletion.targets import NAMES, TARGETS, Home, Target
from clearspan.model.errors import NotFound
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import T0_NS, make_batch, make_log, make_span, with_metadata
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.deletions import SECRET, by_ids
from clearspan.testing.local_store import open_local_store

S = DeletionState


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, clock=FixedClock(), ids=CountingIds()) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path, catalog: Catalog) -> Iterator[SqliteStore]:
    opened = open_local_store(tmp_path, catalog.tombstone_secret)
    context = with_metadata({"k": "v"}, customer_identifier="anna")
    for trace_id in ("t1", "t2", "stays"):
        spans = [make_span(f"s{n}", context=context, text="some words") for n in range(3)]
        batch = make_batch(trace_id, [*spans, make_log("s0", context=context)])
        opened.writer.submit([batch], T0_NS).result()
    for trace_id in ("t1", "t2"):
        catalog.set_share(1, 1, trace_id, public=True)
    yield opened
    opened.close()


@contextmanager
def rows_stay(store: SqliteStore, catalog: Catalog, target: Target) -> Iterator[None]:
    """Make every DELETE of the target's tables do nothing."""
    run: Callable[[str], object]
    if target.home is Home.TRACES:
        run = store.writer._service.conn.execute  # type: ignore[attr-defined]
    else:

        def run(sql: str) -> object:
            with catalog.database.write() as db:
                return db.execute(text(sql))

    for table in target.tables:
        run(f"CREATE TRIGGER keep_{table} BEFORE DELETE ON {table} BEGIN SELECT RAISE(IGNORE); END")
    yield
    for table in target.tables:
        run(f"DROP TRIGGER keep_{table}")


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_a_target_whose_rows_stay_is_named(store: SqliteStore, catalog: Catalog, target: Target) -> None:
    records = CatalogRecords(catalog, FixedClock(), CountingIds())
    deleter = Deleter(store.deletions, records, FixedClock(), CountingIds(), secret=SECRET)
    with rows_stay(store, catalog, target):
        result = deleter.delete(by_ids("t1", "t2"))
        job = deleter.status(result.deletion_id).job
        assert (result.state, job.problem) == (S.FAILED, f"survivors:{target.name}")
        assert (job.remaining[target.name] or 0) > 0
        assert {name for name, count in job.remaining.items() if count} == {target.name}
        with pytest.raises(NotFound):
            deleter.receipt(result.deletion_id)
    assert deleter.delete(by_ids("stays")).state is S.VERIFIED, "only because of the trigger"


def test_the_same_without_a_mutation_is_verified(store: SqliteStore, catalog: Catalog) -> None:
    records = CatalogRecords(catalog, FixedClock(), CountingIds())
    deleter = Deleter(store.deletions, records, FixedClock(), CountingIds(), secret=SECRET)
    result = deleter.delete(by_ids("t1", "t2"))
    job = deleter.status(result.deletion_id).job
    assert (result.state, job.problem) == (S.VERIFIED, None)
    assert min(job.purged[name] for name in NAMES) > 0, "every target had rows to lose"
