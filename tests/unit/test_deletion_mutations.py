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

from clearspan import faults
from clearspan.catalog.catalog import Catalog
from clearspan.deletion.execute import Deleter
from clearspan.deletion.holds import Holds
from clearspan.deletion.job import DeletionQuery
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.state import DeletionState
from clearspan.deletion.targets import NAMES, TARGETS, Home, Target
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.errors import NotFound
from clearspan.model.span import Attachment
from clearspan.store.annotations import AnnotationWrite
from clearspan.store.sqlite import text_index
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import T0_NS, make_annotation, make_batch, make_log, make_span, with_metadata
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.deletions import SECRET, by_ids, hold_on
from clearspan.testing.local_store import open_local_store
from clearspan.testing.needles import needle_of, scan_folder
from clearspan.testing.stores import visible

S = DeletionState


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, clock=FixedClock(), ids=CountingIds()) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path, catalog: Catalog) -> Iterator[SqliteStore]:
    opened = open_local_store(tmp_path, catalog.tombstone_secret)
    for number, trace_id in enumerate(("t1", "t2", "stays")):
        session_id = "another" if trace_id == "stays" else "a session"
        context = with_metadata({"k": "v"}, customer_identifier="anna", session_id=session_id)
        spans = [make_span(f"s{n}", context=context, text="some words") for n in range(3)]
        batch = make_batch(trace_id, [*spans, make_log("s0", context=context)])
        file = Attachment("s0", "a file", "text/plain", b"some words")
        opened.writer.submit([batch._replace(attachments=(file,))], T0_NS).result()
        said = make_annotation(number=number, trace_id=trace_id, span_id="s0", explanation="some words")
        of_session = make_annotation(number=10 + number, target=AnnotationTarget.SESSION, session_id=session_id)
        writes = [AnnotationWrite((1,), each) for each in (said, of_session)]
        opened.annotations.put_annotations(writes, received_ns=T0_NS)
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


@contextmanager
def slices_stay(store: SqliteStore) -> Iterator[None]:
    """Make every change of sealed text signatures do nothing."""
    run = store.writer._service.conn.execute  # type: ignore[attr-defined]
    for event in ("UPDATE", "DELETE"):
        run(f"CREATE TRIGGER no_{event} BEFORE {event} ON text_slice BEGIN SELECT RAISE(IGNORE); END")
    yield
    for event in ("UPDATE", "DELETE"):
        run(f"DROP TRIGGER no_{event}")


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_a_target_whose_rows_stay_is_named(store: SqliteStore, catalog: Catalog, target: Target) -> None:
    records = CatalogRecords(catalog, FixedClock(), CountingIds())
    deleter = Deleter(store.deletions, records, FixedClock(), CountingIds(), secret=SECRET)
    with rows_stay(store, catalog, target):
        result = deleter.delete(by_ids("t1", "t2"))
        job = deleter.status(result.deletion_id).job
        named = [target.name, "hidden"] if target.name == "trace" else [target.name]  # what is there stays hidden
        assert (result.state, job.problem) == (S.FAILED, f"survivors:{','.join(named)}")
        assert (job.remaining[target.name] or 0) > 0
        assert {name for name, count in job.remaining.items() if count} == set(named)
        assert {trace_id for _, trace_id in visible(store.reader, [1])} == {"stays"}
        with pytest.raises(NotFound):
            deleter.receipt(result.deletion_id)
        deleter.retry(result.deletion_id, by="key_1")
        deleter.run_due()
        assert deleter.status(result.deletion_id).job.problem == job.problem, "nothing has changed"
    deleter.retry(result.deletion_id, by="key_1")
    deleter.run_due()
    job = deleter.status(result.deletion_id).job
    assert (job.state, job.problem) == (S.VERIFIED, None)
    assert {name: job.purged[name] for name in NAMES} == {name: job.planned.get(name, 2) for name in NAMES}, (
        "each row was counted once"
    )
    assert set(job.remaining.values()) == {0}
    assert deleter.receipt(result.deletion_id)
    assert deleter.delete(by_ids("stays")).state is S.VERIFIED, "only because of the trigger"


def test_the_same_without_a_mutation_is_verified(store: SqliteStore, catalog: Catalog) -> None:
    records = CatalogRecords(catalog, FixedClock(), CountingIds())
    deleter = Deleter(store.deletions, records, FixedClock(), CountingIds(), secret=SECRET)
    result = deleter.delete(by_ids("t1", "t2"))
    job = deleter.status(result.deletion_id).job
    assert (result.state, job.problem) == (S.VERIFIED, None)
    assert min(job.purged[name] for name in NAMES) > 0, "every target had rows to lose"


def test_sealed_text_that_stays_is_named_and_goes_on_a_retry(store: SqliteStore, catalog: Catalog) -> None:
    """Sealed signatures are bits of shared rows: they are cleared by updates, which a DELETE trigger never sees."""
    records = CatalogRecords(catalog, FixedClock(), CountingIds())
    deleter = Deleter(store.deletions, records, FixedClock(), CountingIds(), secret=SECRET)
    text_index.seal(store.writer._service.conn, 0)  # type: ignore[attr-defined]
    with slices_stay(store):
        result = deleter.delete(by_ids("t1", "t2"))
        job = deleter.status(result.deletion_id).job
        assert (result.state, job.problem) == (S.FAILED, "survivors:text_signature")
        assert job.remaining["text_signature"] == 2
        deleter.retry(result.deletion_id, by="key_1")
        deleter.run_due()
        assert deleter.status(result.deletion_id).job.state is S.FAILED
    deleter.retry(result.deletion_id, by="key_1")
    deleter.run_due()
    job = deleter.status(result.deletion_id).job
    assert (job.state, job.remaining["text_signature"]) == (S.VERIFIED, 0)
    assert deleter.receipt(result.deletion_id)
    with store.reader.snapshot() as conn:
        assert text_index.count(conn, [1, 2]) == 0
        assert text_index.count(conn, [3]) == 1, "the neighbour keeps its bits"


def test_what_turns_up_after_the_request_is_erased_goes_on_a_retry(
    store: SqliteStore, catalog: Catalog, tmp_path: Path
) -> None:
    """Row numbers are all that is left by then; in batches, with the write-ahead log emptied after the last."""
    needle, ids = needle_of(b"a survivor's"), CountingIds()
    records = CatalogRecords(catalog, FixedClock(), ids)
    deleter = Deleter(store.deletions, records, FixedClock(), ids, secret=SECRET, rows_max=7)
    with faults.armed("deletion.after_purged_recorded:1:crash"), pytest.raises(faults.Crash):
        deleter.delete(by_ids("t1", "t2"))
    conn = store.writer._service.conn  # type: ignore[attr-defined]
    rows = [(pk, key, f'["{needle}"]') for pk in (1, 2) for key in range(20)]
    conn.executemany("INSERT INTO context (trace_pk, context_key, body) VALUES (?, ?, ?)", rows)
    records = CatalogRecords(catalog, FixedClock(), ids)
    deleter = Deleter(store.deletions, records, FixedClock(), ids, secret=SECRET, rows_max=7)
    deleter.resume()
    deleter.run_due()
    (job,) = deleter.list_deletions(DeletionQuery(1, (1,))).jobs
    assert (job.state, job.problem, job.remaining["context"]) == (S.FAILED, "survivors:context", 40)
    assert scan_folder(tmp_path, {needle}) != []
    deleter.retry(job.deletion_id, by="key_1")
    deleter.run_due()
    job, progress = deleter.status(job.deletion_id)
    assert (job.state, job.purged["context"]) == (S.VERIFIED, 42)
    assert progress is not None
    assert progress.batches > 6, "a few rows at a time"
    assert scan_folder(tmp_path, {needle}) == []
    assert deleter.receipt(job.deletion_id)


def test_a_retry_leaves_what_a_hold_covers(store: SqliteStore, catalog: Catalog) -> None:
    ids = CountingIds()
    records = CatalogRecords(catalog, FixedClock(), ids)
    deleter = Deleter(store.deletions, records, FixedClock(), ids, secret=SECRET)
    holds = Holds(store.deletions, records, deleter, FixedClock(), ids)
    with rows_stay(store, catalog, TARGETS[0]):
        deletion_id = deleter.delete(by_ids("t1", "t2")).deletion_id
    hold, _ = holds.create(hold_on("t1"))
    deleter.retry(deletion_id, by="key_1")
    deleter.run_due()
    job = deleter.status(deletion_id).job
    assert (job.state, job.remaining["trace"]) == (S.FAILED, 1)
    holds.release(hold.hold_id, org_id=1, by="key_1")
    deleter.retry(deletion_id, by="key_1")
    deleter.run_due()
    job = deleter.status(deletion_id).job
    assert (job.state, job.purged["trace"]) == (S.VERIFIED, 2)
