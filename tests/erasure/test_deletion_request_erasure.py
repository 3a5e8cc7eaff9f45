"""A deletion leaves nothing of what was asked: filter values, reason, idempotency key and ids go with the data."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from clearspan import faults
from clearspan.catalog.catalog import Catalog
from clearspan.deletion.execute import Deleter
from clearspan.deletion.holds import HoldRequest, Holds
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.deletion.state import DeletionState
from clearspan.files.vfs import open_reader
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Group
from clearspan.query.fields import BY_NAME, METADATA
from clearspan.query.operators import Operator
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.local_store import open_local_store
from clearspan.testing.needles import needle_of, scan_folder, scan_values

SEED = 7
DAY = Window(T0_NS - 10**12, T0_NS + 10**14)


class World(NamedTuple):
    folder: Path
    store: SqliteStore
    catalog: Catalog
    clock: FixedClock
    ids: CountingIds

    def deleter(self) -> Deleter:
        records = CatalogRecords(self.catalog, self.clock, self.ids)
        return Deleter(
            self.store.deletions, records, self.clock, self.ids, secret=self.catalog.tombstone_secret, rows_max=40
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock, ids = FixedClock(), CountingIds()
    with Catalog.open(tmp_path, clock=clock, ids=ids) as catalog:
        store = open_local_store(tmp_path, catalog.tombstone_secret)
        yield World(tmp_path, store, catalog, clock, ids)
        store.close()


def plant(world: World, rng: random.Random, count: int = 12) -> dict[str, SpanContext]:
    """Traces whose id, customer and metadata are needles; all share one customer and one metadata pair."""
    customer, key, value = (needle_of(rng.randbytes(12)) for _ in range(3))
    planted = {}
    for _ in range(count):
        trace_id = needle_of(rng.randbytes(12))
        context = SpanContext(customer_identifier=customer, metadata=((key, value),))
        planted[trace_id] = context
        spans = [make_span(f"s{n}", context=context, start_s=n) for n in range(5)]
        world.store.writer.submit([make_batch(trace_id, spans)], world.clock.now_ns()).result()
    for n in range(30):  # neighbours that stay
        world.store.writer.submit([make_batch(f"stays-{n}", [make_span("s")])], world.clock.now_ns()).result()
    world.clock.advance(1)
    return planted


def request_for(planted: dict[str, SpanContext], rng: random.Random) -> tuple[DeletionRequest, set[str]]:
    """A deletion by filter, and every needle in it and in what it deletes."""
    context = next(iter(planted.values()))
    ((key, value),) = context.metadata
    reason, idempotency_key, other = (needle_of(rng.randbytes(12)) for _ in range(3))
    assert context.customer_identifier is not None
    where = Group(
        "AND",
        (
            Condition(BY_NAME["customer_identifier"], Operator.IN, (context.customer_identifier, other)),
            Condition(METADATA, Operator.EQUALS, (value,), key),
        ),
    )
    request = DeletionRequest(
        1, "key_1", "respan", Scope((1,)), ByFilter(where), DAY, reason=reason, idempotency_key=idempotency_key
    )
    return request, {*planted, context.customer_identifier, key, value, reason, idempotency_key, other}


def test_nothing_of_a_verified_deletion_is_in_any_file_or_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(SEED)
    planted = plant(world, rng)
    request, needles = request_for(planted, rng)
    with caplog.at_level(logging.DEBUG):
        result = world.deleter().delete(request)
    assert (result.state, result.hidden) == (DeletionState.VERIFIED, len(planted))
    assert scan_folder(world.folder, needles) == []
    assert not any(needle in caplog.text for needle in needles)
    assert world.catalog.ledger(deletion_id=result.deletion_id)[0].body["matched"] == len(planted)


def test_the_scan_would_find_them_before(world: World) -> None:
    """While a deletion runs, the plain request lies in traces.db and nowhere else."""
    rng = random.Random(SEED)
    request, needles = request_for(plant(world, rng), rng)
    with faults.armed("deletion.before_settle:1:crash"), pytest.raises(faults.Crash):
        world.deleter().delete(request)
    hits = scan_folder(world.folder, needles)
    assert {hit.needle for hit in hits} == needles - {request.idempotency_key}
    assert {hit.file.partition("-")[0] for hit in hits} == {"traces.db"}
    deleter = world.deleter()
    assert deleter.resume() == 1
    deleter.run_due()
    assert scan_folder(world.folder, needles) == []


@pytest.mark.parametrize("point", ["after_hide", "after_batch", "after_settle", "after_purged_recorded"])
def test_nor_after_a_crash_and_a_resume(world: World, point: str) -> None:
    rng = random.Random(SEED)
    planted = plant(world, rng)
    _, needles = request_for(planted, rng)
    request = DeletionRequest(1, "key_1", "respan", Scope((1,)), ByIds(tuple(planted)))
    with faults.armed(f"deletion.{point}:1:crash"), pytest.raises(faults.Crash):
        world.deleter().delete(request)
    deleter = world.deleter()
    assert deleter.resume() == 1
    deleter.run_due()
    assert scan_folder(world.folder, needles) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_reader_that_keeps_the_log_keeps_the_deletion_unverified(world: World, restarted: bool) -> None:
    rng = random.Random(SEED)
    request, needles = request_for(plant(world, rng), rng)
    world.store.deletions.log_empty_wait_s = 0.0
    reader = open_reader(world.folder / "traces.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM trace").fetchall()
    deleter = world.deleter()
    result = deleter.delete(request)
    assert result.state is DeletionState.HIDDEN
    progress = world.store.deletions.progress(result.deletion_id)
    assert progress is not None
    assert progress.settled, "the request is erased; what is missing is the emptied log"
    if restarted:
        deleter = world.deleter()
        assert deleter.resume() == 1
    for _ in range(6):
        deleter.run_due()
        assert deleter.status(result.deletion_id)[0].state in (DeletionState.HIDDEN, DeletionState.BLOCKED)
        world.clock.advance(100)
    assert deleter.status(result.deletion_id)[0].problem == "overloaded"
    assert scan_folder(world.folder, needles) != []
    reader.execute("COMMIT")
    reader.close()
    deleter.run_due()
    assert deleter.status(result.deletion_id)[0].state is DeletionState.VERIFIED
    assert scan_folder(world.folder, needles) == []


def test_a_request_that_matches_nothing_is_not_written_down(world: World) -> None:
    rng = random.Random(SEED)
    plant(world, rng)
    foreign = needle_of(rng.randbytes(12))
    where = Condition(BY_NAME["customer_identifier"], Operator.EQUALS, (foreign,))
    request = DeletionRequest(1, "key_1", "respan", Scope((1,)), ByFilter(where), DAY, reason=foreign)
    assert world.deleter().delete(request).matched == 0
    assert scan_folder(world.folder, {foreign}) == []


# -- what else is said of deletions -------------------------------------------------------------------------------


def found(world: World, needles: set[str]) -> set[str]:
    """Those of the needles that some file holds, raw or unpacked."""
    hits = {hit.needle for hit in scan_folder(world.folder, needles)}
    return hits | {hit.needle for hit in scan_values(world.folder / "traces.db", needles)}


def holds_of(world: World, deleter: Deleter) -> Holds:
    records = CatalogRecords(world.catalog, world.clock, world.ids)
    return Holds(world.store.deletions, records, deleter, world.clock, world.ids)


def test_a_preview_and_its_token_leave_nothing(world: World) -> None:
    rng = random.Random(SEED)
    planted = plant(world, rng)
    request, needles = request_for(planted, rng)
    deleter = world.deleter()
    preview = deleter.preview(request)
    other = deleter.preview(replace(request, reason=needle_of(rng.randbytes(12))))
    assert other.plan.request.reason is not None
    needles |= {preview.token, other.token, other.plan.request.reason}
    assert request.reason in found(world, needles), "it is kept till then, packed"
    result = deleter.delete_planned(preview.token, org_id=1, requested_by="key_1")
    assert (result.state, result.hidden) == (DeletionState.VERIFIED, len(planted))
    assert found(world, needles) == set(), "the other preview listed the same traces"


def test_a_preview_that_nobody_used_goes_when_it_has_expired(world: World) -> None:
    rng = random.Random(SEED)
    planted = plant(world, rng)
    reason, value = needle_of(rng.randbytes(12)), needle_of(rng.randbytes(12))
    customer = next(iter(planted.values())).customer_identifier
    assert customer is not None
    where = Condition(BY_NAME["customer_identifier"], Operator.IN, (customer, value))
    request = DeletionRequest(1, "key_1", "native", Scope((1,)), ByFilter(where), DAY, reason=reason)
    deleter = world.deleter()
    assert len(deleter.preview(request).plan.traces) == len(planted)
    assert found(world, {reason, value}) == {reason, value}
    world.clock.advance(16 * 60)
    deleter.run_due()
    assert found(world, {reason, value}) == set()


def test_a_hold_its_release_and_the_child_deletion_leave_nothing(world: World) -> None:
    """But for the words of the release, a note that stays until it is erased by itself."""
    rng = random.Random(SEED)
    planted = plant(world, rng)
    request, needles = request_for(planted, rng)
    deleter = world.deleter()
    holds = holds_of(world, deleter)
    why, why_over, value = (needle_of(rng.randbytes(12)) for _ in range(3))
    by_filter = Condition(BY_NAME["customer_identifier"], Operator.EQUALS, (value,))
    kept = tuple(planted)[:3]
    first, _ = holds.create(HoldRequest(1, "key_2", Scope((1,)), ByIds(kept), reason=why))
    second, _ = holds.create(HoldRequest(1, "key_2", Scope((1,)), ByFilter(by_filter), DAY, reason=why))
    result = deleter.delete(request)
    assert (result.state, result.hidden, result.held) == (DeletionState.VERIFIED, len(planted) - 3, 3)
    gone = set(planted) - set(kept)
    assert found(world, gone) == set()
    # The child has a copy of the request; the holds say what they say.
    said = {request.reason, why, value, *kept}
    assert found(world, {each for each in said if each is not None}) == said
    for hold in (first, second):
        holds.release(hold.hold_id, org_id=1, by="key_2", reason=why_over)
    assert found(world, {why, value}) == set()
    deleter.run_due()
    assert result.child_id is not None
    assert deleter.status(result.child_id).job.state is DeletionState.VERIFIED
    assert found(world, needles | {why, value}) == set()
    assert found(world, {why_over}) == {why_over}
    for hold in (first, second):
        assert deleter.erase_note(f"{hold.hold_id}.hold.released")
    assert found(world, {why_over}) == set()


@pytest.mark.parametrize("point", [None, "deletion.after_cancel", "store.after_cancel"])
def test_a_cancelled_deletion_keeps_the_traces_and_forgets_the_request(world: World, point: str | None) -> None:
    rng = random.Random(SEED)
    planted = plant(world, rng)
    request, needles = request_for(planted, rng)
    theirs = {*planted, *(each for context in planted.values() for each in said_by(context))}
    deleter = world.deleter()
    result = deleter.delete(request, wait_s=0)
    why = needle_of(rng.randbytes(12))
    if point is None:
        deleter.cancel(result.deletion_id, by="key_1", reason=why)
    else:
        with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
            deleter.cancel(result.deletion_id, by="key_1", reason=why)
        world.store.close()
        reopened = open_local_store(world.folder, world.catalog.tombstone_secret)
        world = world._replace(store=reopened)
        deleter = world.deleter()
        deleter.resume()
        deleter.run_due()
    assert deleter.status(result.deletion_id).job.state is DeletionState.CANCELLED
    assert found(world, needles - theirs) == set()
    assert found(world, theirs) == theirs, "the traces are as before"
    assert found(world, {why}) == {why}
    assert deleter.erase_note(f"{result.deletion_id}.cancelled")
    assert found(world, {why}) == set()
    if point is not None:
        world.store.close()


def said_by(context: SpanContext) -> set[str]:
    """The needles of a context of `plant`."""
    ((key, value),) = context.metadata
    assert context.customer_identifier is not None
    return {context.customer_identifier, key, value}
