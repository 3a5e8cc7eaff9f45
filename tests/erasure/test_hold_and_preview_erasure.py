"""What was said about traces leaves no copy either: requests, holds, previews and notes, once they are over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.port import HideOutcome, HoldRow, PlannedTrace, child_id_of
from clearspan.store.sqlite import fsck
from clearspan.store.sqlite.judge import Question
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import T0_NS, make_batch, make_log, make_span
from clearspan.testing.local_store import open_local_store
from clearspan.testing.needles import needle_of, scan_folder
from clearspan.testing.stores import TOMBSTONE_SECRET, visible

SEED = 11
ONE = Scope((1,))
ANY_TIME = Window()
COUNT = 60


@pytest.fixture(params=["whole", "staged"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    """A store of COUNT traces; hides are one transaction, or staged."""
    made = open_local_store(tmp_path, TOMBSTONE_SECRET)
    made.deletions.direct_max = 0 if request.param == "staged" else 1000
    yield made
    made.close()
    assert fsck.check(tmp_path).violations == []


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


def word(rng: random.Random) -> str:
    return needle_of(rng.randbytes(12))


def plant(store: SqliteStore, rng: random.Random) -> list[str]:
    """Traces whose ids are needles."""
    ids = [word(rng) for _ in range(COUNT)]
    for n, trace_id in enumerate(ids):
        context = SpanContext(customer_identifier=f"c{n % 3}")
        items = [make_span(f"s{m}", context=context, start_s=n) for m in range(4)]
        store.writer.submit([make_batch(trace_id, [*items, make_log("s0", text="hello")])], T0_NS).result()
    return ids


def plan(store: SqliteStore) -> list[PlannedTrace]:
    return store.deletions.plan(ONE, None, ANY_TIME, received_before_ns=2**62, limit=1000)


def hide(store: SqliteStore, deletion_id: str, request: str, key: bytes | None = None) -> HideOutcome:
    return store.deletions.hide(
        deletion_id, ONE, None, ANY_TIME, plan(store), request.encode(), manifest_salt=b"s" * 32, preview_key=key
    )


def erase(store: SqliteStore, deletion_id: str) -> None:
    progress = store.deletions.progress(deletion_id)
    assert progress is not None
    batch_no, more = progress.batches, progress.more
    while more:
        _, more = store.deletions.purge_batch(deletion_id, batch_no, rows_max=60)
        batch_no += 1
    store.deletions.settle(deletion_id, rows_max=7)


def left(folder: Path, *needles: str) -> set[str]:
    return {hit.needle for hit in scan_folder(folder, set(needles))}


def hold_of(rng: random.Random, *ids: str) -> tuple[HoldRow, list[str]]:
    """A hold of those traces, and the needles in it."""
    value, reason = word(rng), word(rng)
    where = Condition(BY_NAME["customer_identifier"], Operator.IN, (value, "c0", "c1", "c2"))
    hold = HoldRow("hold_1", 1, ONE, where, ids or None, Window(0, 2**62), reason, 1, "key_1")
    return hold, [value, reason]


def test_a_deletion_with_all_that_belongs_to_it(store: SqliteStore, tmp_path: Path, rng: random.Random) -> None:
    ids = plant(store, rng)
    body, request, note = word(rng), word(rng), word(rng)
    store.deletions.save_preview(b"key", body.encode() * 900, 100)
    store.deletions.put_note("note", b"salt", note.encode())
    hold, held_words = hold_of(rng, *ids[5:15])
    store.deletions.add_hold(hold)
    said = [body, request, note, *held_words]
    assert hide(store, "del_1", request, b"key").held == 10
    assert left(tmp_path, *said) == set(said), "the scan finds them before"
    erase(store, "del_1")
    gone = [each for each in ids if each not in ids[5:15]]
    assert left(tmp_path, *gone, body) == set()
    assert left(tmp_path, request, note, *held_words, ids[5]) == {request, note, *held_words, ids[5]}
    assert store.deletions.release_hold(hold.hold_id, 9)
    assert left(tmp_path, *held_words) == set()
    assert store.deletions.erase_note("note")
    assert left(tmp_path, note) == set()
    assert store.deletions.hide_child(child_id_of("del_1"), ONE, None, ANY_TIME) == HideOutcome(10, 0, 0, 0)
    erase(store, child_id_of("del_1"))
    assert left(tmp_path, *said, *ids) == set()


def test_a_cancelled_deletion_leaves_the_traces_and_nothing_else(
    store: SqliteStore, tmp_path: Path, rng: random.Random
) -> None:
    plant(store, rng)
    before = visible(store.reader, [1])
    request, body = word(rng), word(rng)
    store.deletions.save_preview(b"key", body.encode(), 100)
    hide(store, "del_1", request, b"key")
    assert left(tmp_path, request) == {request}
    assert store.deletions.cancel("del_1") == COUNT
    assert left(tmp_path, request, body) == set()
    assert visible(store.reader, [1]) == before
    assert fsck.check(tmp_path).violations == []
    hide(store, "del_2", request)
    erase(store, "del_2")
    assert left(tmp_path, request, *(trace_id for _, trace_id in before)) == set()


def test_previews_that_expire(store: SqliteStore, tmp_path: Path, rng: random.Random) -> None:
    bodies = [word(rng) for _ in range(6)]
    for n, body in enumerate(bodies):
        store.deletions.save_preview(b"key%d" % n, body.encode() * (1 + 300 * n), n)
    assert left(tmp_path, *bodies) == set(bodies)
    assert store.deletions.sweep_previews(3) == 4
    assert left(tmp_path, *bodies) == set(bodies[4:])


def test_a_hold_set_in_the_middle_and_its_child(store: SqliteStore, tmp_path: Path, rng: random.Random) -> None:
    ids = plant(store, rng)
    request = word(rng)
    hide(store, "del_1", request)
    store.deletions.purge_batch("del_1", 0, rows_max=60)
    hold, words = hold_of(rng)
    kept = store.deletions.add_hold(hold).hidden_kept
    assert 0 < kept < COUNT
    erase(store, "del_1")
    assert len(left(tmp_path, *ids)) == kept
    assert left(tmp_path, request, *words) == {request, *words}
    store.deletions.release_hold(hold.hold_id, 9)
    assert store.deletions.hide_child(child_id_of("del_1"), ONE, None, ANY_TIME) == HideOutcome(kept, 0, 0, 0)
    erase(store, child_id_of("del_1"))
    assert left(tmp_path, request, *words, *ids) == set()


def test_a_stage_that_never_counted_leaves_nothing(tmp_path: Path, rng: random.Random) -> None:
    """A crash in the middle of staging: the next start forgets it, and the traces are as they were."""
    store = open_local_store(tmp_path, TOMBSTONE_SECRET)
    plant(store, rng)
    before = visible(store.reader, [1])
    lines = plan(store)
    store.writer.call("stage_begin", "del_1", Question(ONE, None, ANY_TIME), None)
    hit = store.deletions._staged_lines(store.writer._service.conn, lines[: COUNT // 2])  # type: ignore[attr-defined]
    store.writer.call("stage_lines", "del_1", hit, [tuple(line) for line in lines[COUNT // 2 :]])
    store.writer.call("stage_tombstones", "del_1")
    assert visible(store.reader, [1]) == before
    assert store.deletions.progress("del_1") is None
    assert store.deletions.find_tombstone(1, lines[0].trace_id) is None
    (outcome,) = store.writer.submit([make_batch(lines[0].trace_id, [make_span("late")])], T0_NS).result()
    assert outcome.stored == 1
    after = visible(store.reader, [1])
    store.close()
    store = open_local_store(tmp_path, TOMBSTONE_SECRET)
    assert visible(store.reader, [1]) == after
    rows = store.writer._service.conn.execute("SELECT count(*) FROM tombstone").get  # type: ignore[attr-defined]
    assert rows == 0
    assert hide(store, "del_1", word(rng)) == HideOutcome(COUNT, 0, 0, 0)
    store.close()
    assert fsck.check(tmp_path).violations == []
