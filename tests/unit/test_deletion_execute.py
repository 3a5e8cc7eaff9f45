"""The Deleter: from request to proof, over failures and restarts, on a plain and on the real Catalog."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan import deletion, faults
from clearspan.catalog.catalog import Catalog
from clearspan.catalog.ledger import check_chain
from clearspan.deletion import worker
from clearspan.deletion.execute import Deleter
from clearspan.deletion.job import DeletionQuery
from clearspan.deletion.records import KIND, CatalogRecords
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.deletion.result import render_message
from clearspan.deletion.state import DeletionState
from clearspan.deletion.steps import ATTEMPTS_MAX, RETRY_S
from clearspan.deletion.targets import NAMES
from clearspan.model.clock import SystemClock
from clearspan.model.errors import Conflict, InvalidPage, NotFound, Overloaded, StoreDamaged, Unguarded
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.memory import MemoryStore
from clearspan.store.port import HideOutcome
from clearspan.testing.build import T0_NS, make_batch, make_span, make_trace
from clearspan.testing.catalog import FakeCatalog
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.deletions import ANNA, BERT, SCOPE, SECRET, World, by_filter, by_ids, ids_in, open_world
from clearspan.testing.stores import TOMBSTONE_SECRET, visible

S = DeletionState
STEPS = ["0.planned", "1.hidden", "2.purged", "3.verified", ""]
"""Of the ledger's entries: a row for each move, and one for the receipt."""


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param == "real") as made:
        yield made


# -- the road -----------------------------------------------------------------------------------------------------


def test_a_deletion_ends_verified_with_exact_counts(world: World) -> None:
    result = world.deleter().delete(by_filter(ids_in("t1", "t2", "t3", "zz"), matches_max=1000))
    assert (result.state, result.matched, result.hidden) == (S.VERIFIED, 3, 3)
    assert render_message(result) == "Successfully deleted 3 traces"
    assert world.ids_left() == {"t0", "t4", "t5", "t6", "t7"}
    job = world.catalog.get_deletion(result.deletion_id)
    assert job is not None
    assert {name: job.purged[name] for name in NAMES} == {
        "trace": 3, "span": 12, "log": 0, "context": 3, "metadata": 3, "block": 3, "text_signature": 3, "share": 0,
        "annotation": 0, "attachment": 0, "attachment_piece": 0,
    }  # fmt: skip
    assert job.remaining == dict.fromkeys(NAMES, 0)
    assert list(job.times_ns) == ["planned", "hidden", "purged", "verified"]
    progress = world.store.progress(result.deletion_id)
    assert progress is not None
    assert (progress.request, progress.settled) == (None, True)


def test_a_receipt_tells_the_time_of_every_state(world: World) -> None:
    deleter = world.deleter()
    receipt = deleter.receipt(deleter.delete(by_ids("t1")).deletion_id)
    if world.real is not None:
        body = receipt.split(".")[1]
        receipt = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()
    assert set(json.loads(receipt)["times"]) == {"planned", "hidden", "purged", "verified"}


def test_a_cursor_beyond_every_time_is_refused(world: World) -> None:
    if world.real is not None:
        with pytest.raises(InvalidPage):
            world.deleter().list_deletions(DeletionQuery(1, (1,), after="9999999999999999999.del_1"))


def test_each_move_is_one_ledger_row_without_values(world: World) -> None:
    result = world.deleter().delete(by_filter(ANNA, reason="because-anna-asked"))
    if world.real is None:
        assert isinstance(world.catalog, FakeCatalog)
        assert [row.after for row in world.catalog.ledger] == [S.PLANNED, S.HIDDEN, S.PURGED, S.VERIFIED]
        return
    entries = world.real.ledger(deletion_id=result.deletion_id)
    assert [entry.step for entry in entries] == STEPS
    assert [entry.kind for entry in entries] == [KIND] * 4 + ["receipt"]
    assert not any("anna" in str(entry) for entry in entries)
    assert entries[0].body["shape"] == ["customer_identifier:equals:1"]
    assert check_chain(world.real.ledger()) == len(world.real.ledger())
    assert world.real.get_job(result.deletion_id).state == "done"


def test_nothing_matched_deletes_nothing_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.store, "purge_batch", None)  # neither is called: they would write for nothing
    monkeypatch.setattr(world.store, "settle", None)
    result = world.deleter().delete(by_filter(BERT, window_is_implicit=True))
    assert (result.state, result.matched, result.hidden) == (S.VERIFIED, 0, 0)
    assert render_message(result).startswith("No traces matched from 2")
    assert len(world.ids_left()) == 8


def test_a_repeat_deletes_nothing_more(world: World) -> None:
    deleter = world.deleter()
    request = by_ids("t1", "t2")
    assert deleter.delete(request).hidden == 2
    before = visible(world.store, [1])
    for _ in range(2):
        assert deleter.delete(request).matched == 0
    assert visible(world.store, [1]) == before


def test_by_id_every_permitted_copy_goes_and_no_other(world: World) -> None:
    for project_id in (2, 3):
        world.store.write([make_trace("t1", project_id=project_id)], received_ns=T0_NS)
    request = DeletionRequest(1, "key_1", "respan", Scope((1, 2)), ByIds(("t1",)))
    assert world.deleter().delete(request).hidden == 2
    assert set(visible(world.store, [2, 3])) == {(3, "t1")}


def test_too_many_matches_delete_nothing(world: World) -> None:
    before = visible(world.store, [1])
    with pytest.raises(Unguarded, match="nothing was deleted"):
        world.deleter().delete(by_filter(ANNA, matches_max=7))
    with pytest.raises(Conflict):
        world.deleter().delete(by_filter(ANNA, expected_count=7))
    assert visible(world.store, [1]) == before
    assert world.catalog.unfinished_deletions() == []
    assert world.deleter().delete(by_filter(ANNA, matches_max=8, expected_count=8)).hidden == 8


def test_a_plan_changes_nothing_and_names_what_would_go(world: World) -> None:
    before = visible(world.store, [1])
    plan = world.deleter().plan(by_filter(ids_in("t1", "t5")))
    assert [line.trace_id for line in plan.traces] == ["t1", "t5"]
    assert plan.planned["span"] == 8
    assert visible(world.store, [1]) == before
    assert world.catalog.unfinished_deletions() == []


def test_shares_die_with_their_trace(world: World) -> None:
    if world.real is None:
        assert isinstance(world.catalog, FakeCatalog)
        world.catalog.shares = {(1, "t1"), (1, "t2")}
    else:
        for trace_id in ("t1", "t2"):
            world.real.set_share(1, 1, trace_id, public=True)
    result = world.deleter().delete(by_ids("t1", "t3"))
    job = world.catalog.get_deletion(result.deletion_id)
    assert job is not None
    assert job.purged["share"] == 1
    (other,) = world.store.plan_ids(SCOPE, ["t2"], Window())
    assert world.catalog.count_shares(job, [other]) == 1


def test_what_changed_between_plan_and_hide_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Condition(BY_NAME["error_count"], Operator.EQUALS, (0,))
    world.store.write([make_batch("t9", [make_span("s", status="error")])], received_ns=T0_NS)
    create = world.catalog.create_deletion

    def create_while_others_act(job: Any) -> Any:
        world.store.write([make_batch("t1", [make_span("late", status="error")])], received_ns=T0_NS)
        other = world.store.plan_ids(SCOPE, ["t2", "t3"], Window())
        world.store.hide("del_other", SCOPE, None, Window(), other, b"")
        return create(job)

    monkeypatch.setattr(world.catalog, "create_deletion", create_while_others_act)
    result = world.deleter().delete(by_filter(calm))
    assert (result.matched, result.hidden, result.no_longer_matching, result.already_absent) == (8, 5, 1, 2)
    assert world.ids_left() == {"t1", "t9"}


def test_late_spans_are_refused_and_seen_in_the_status(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1"))
    (outcome,) = world.store.write([make_trace("t1")], received_ns=T0_NS)
    assert (outcome.refused, outcome.deletion_id) == (2, result.deletion_id)
    job, progress = deleter.status(result.deletion_id)
    assert job.state is S.VERIFIED
    assert progress is not None
    assert progress.late_refused == 2
    with pytest.raises(NotFound):
        deleter.status("del_unknown")


# -- idempotency keys ---------------------------------------------------------------------------------------------


def test_a_repeated_key_returns_the_first_deletion(world: World) -> None:
    deleter = world.deleter()
    first = deleter.delete(by_ids("t1", "t2", idempotency_key="once"))
    world.clock.advance(3600)
    assert world.restarted().delete(by_ids("t2", "t1", idempotency_key="once")) == first
    other = DeletionRequest(1, "key_2", "native", SCOPE, ByIds(("t3",)), idempotency_key="once")
    assert deleter.delete(other).deletion_id != first.deletion_id


def test_a_key_used_for_another_request_is_refused(world: World) -> None:
    deleter = world.deleter()
    deleter.delete(by_ids("t1", idempotency_key="once"))
    with pytest.raises(Conflict, match="nothing was deleted") as caught:
        deleter.delete(by_ids("t2", idempotency_key="once"))
    assert caught.value.code == "idempotency_key_reused"
    assert "t2" in world.ids_left()


@pytest.mark.parametrize("given_up", [1, 3])
def test_a_key_whose_deletion_was_given_up_can_be_used_again(
    world: World, monkeypatch: pytest.MonkeyPatch, given_up: int
) -> None:
    def refuse(*_: Any, **__: Any) -> HideOutcome:
        raise Overloaded("full")

    deleter = world.deleter()
    request = by_ids("t1", idempotency_key="once")
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "hide", refuse)
        for _ in range(given_up):
            with pytest.raises(Overloaded):
                deleter.delete(request)
    assert "t1" in world.ids_left()
    done = deleter.delete(request)
    assert (done.state, done.hidden) == (S.VERIFIED, 1)
    assert world.restarted().delete(request) == done


@pytest.mark.parametrize("refused", [False, True])
def test_a_repeat_that_comes_while_the_first_is_accepted_does_not_wait_in_vain(
    world: World, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    hide, entered, may_go_on = world.store.hide, threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> HideOutcome:
        entered.set()
        assert may_go_on.wait(60)
        if refused:
            raise Overloaded("full")
        return hide(*args, **options)

    monkeypatch.setattr(world.store, "hide", slow)
    deleter = Deleter(world.store, world.catalog, SystemClock(), world.ids, secret=SECRET)
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(deleter.delete(by_ids("t1", idempotency_key="once"), wait_s=3600))
        except Overloaded as error:
            answers.append(error.code)

    deleter.start()
    try:
        threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
        threads[0].start()
        assert entered.wait(60)
        threads[1].start()
        may_go_on.set()
        for thread in threads:
            thread.join(60)
    finally:
        deleter.close()
    assert len(answers) == 2, "nobody waits until the deadline"
    assert answers[0] == answers[1]
    assert ("t1" in world.ids_left()) is refused


# -- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_real", [False, True])
def test_a_survivor_ends_the_deletion_failed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_real: bool
) -> None:
    """Mutation: whichever target's delete does nothing, the recount finds it."""
    with open_world(tmp_path, real=is_real, traces=len(NAMES)) as world:
        check_survivors(world, monkeypatch)


def check_survivors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, target in enumerate(NAMES):
        deleter = world.deleter()
        with monkeypatch.context() as patch:
            if target == "share":
                patch.setattr(world.catalog, "count_shares", lambda *_: 1)
            else:
                count = world.store.remaining
                patch.setattr(world.store, "remaining", lambda d, t=target, c=count: {**c(d), t: 3})
            result = deleter.delete(by_ids(f"t{number}"))
        job, progress = deleter.status(result.deletion_id)
        assert (result.state, job.problem, result.failed) == (S.FAILED, f"survivors:{target}", 1)
        assert "failed" in render_message(result)
        assert progress is not None
        assert not progress.settled  # what is left can still be found by its id
        assert f"t{number}" not in world.ids_left()


def test_a_target_that_cannot_be_counted_blocks_until_it_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deleter = world.deleter()
    with monkeypatch.context() as patch:
        count = world.store.remaining
        patch.setattr(world.store, "remaining", lambda d: {**count(d), "span": None})
        result = deleter.delete(by_ids("t1"))
        assert result.state is S.HIDDEN
        for _ in range(ATTEMPTS_MAX):
            world.clock.advance(RETRY_S[-1])
            deleter.run_due()
        job, _ = deleter.status(result.deletion_id)
        assert (job.state, job.problem, job.moves) == (S.BLOCKED, "uncounted:span", 2)
        for _ in range(3):  # it stays blocked, in one ledger row, until something has changed
            world.clock.advance(RETRY_S[-1])
            deleter.run_due()
        assert deleter.status(result.deletion_id)[0].moves == 2
        assert render_message(deleter.delete(by_ids("t2"), wait_s=0)) == "1 traces hidden; erasure in progress"
    world.clock.advance(RETRY_S[-1])
    deleter.run_due()
    assert deleter.status(result.deletion_id)[0].state is S.VERIFIED


def test_a_target_the_store_does_not_mention_is_not_zero(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    count = world.store.remaining

    def forgetful(deletion_id: str) -> dict[str, int | None]:
        return {name: found for name, found in count(deletion_id).items() if name != "block"}

    monkeypatch.setattr(world.store, "remaining", forgetful)
    assert world.deleter().delete(by_ids("t1")).state is S.HIDDEN


def test_passing_errors_are_tried_again_without_a_trace_in_the_ledger(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError("anna's data in the message"), Overloaded("busy"), StoreDamaged("anna")])
    purge = world.store.purge_batch

    def unreliable(*args: Any, **kwargs: Any) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return purge(*args, **kwargs)

    monkeypatch.setattr(world.store, "purge_batch", unreliable)
    deleter = world.deleter()
    with caplog.at_level(logging.DEBUG, logger="clearspan"):
        result = deleter.delete(by_ids("t1", "t2"))
        assert result.state is S.HIDDEN
        for _ in range(3):
            world.clock.advance(RETRY_S[-1])
            deleter.run_due()
    job, _ = deleter.status(result.deletion_id)
    assert (job.state, job.moves, job.purged["trace"]) == (S.VERIFIED, 3, 2)
    assert "OSError" in caplog.text
    assert "anna" not in caplog.text


def test_a_lost_answer_of_hide_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer committed and died before it answered: the deletion goes on, once, with exact counts."""
    hide = world.store.hide
    calls: list[HideOutcome] = []

    def answer_is_lost(*args: Any, **options: Any) -> HideOutcome:
        calls.append(hide(*args, **options))
        if len(calls) == 1:
            raise ConnectionError
        return calls[-1]

    monkeypatch.setattr(world.store, "hide", answer_is_lost)
    result = world.deleter().delete(by_ids("t1", "t2"))
    assert (result.state, result.hidden, len(calls)) == (S.VERIFIED, 2, 2)


@pytest.mark.parametrize("error", [Overloaded("the writer died"), ConnectionError()])
def test_a_hide_that_was_committed_is_never_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    hide = world.store.hide

    def commit_and_fail(*args: Any, **options: Any) -> HideOutcome:
        hide(*args, **options)
        raise error

    monkeypatch.setattr(world.store, "hide", commit_and_fail)
    deleter = world.deleter()
    if isinstance(error, Overloaded):
        assert deleter.delete(by_ids("t1")).state is S.VERIFIED
        return
    with pytest.raises(ConnectionError):
        deleter.delete(by_ids("t1"))
    world.clock.advance(RETRY_S[-1])
    deleter.run_due()
    assert world.catalog.unfinished_deletions() == []
    assert "t1" not in world.ids_left()


def test_a_refused_hide_cancels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> HideOutcome:
        raise Overloaded("full")

    monkeypatch.setattr(world.store, "hide", refuse)
    deleter = world.deleter()
    with pytest.raises(Overloaded):
        deleter.delete(by_ids("t1", idempotency_key="k"))
    assert world.catalog.unfinished_deletions() == []
    assert len(world.ids_left()) == 8


# -- restarts -----------------------------------------------------------------------------------------------------

POINTS = [
    "deletion.before_hide", "deletion.after_hide", "deletion.after_hidden_recorded", "deletion.before_shares",
    "deletion.before_batch", "deletion.after_batch", "deletion.before_settle", "deletion.after_settle",
    "deletion.after_purged_recorded", "deletion.before_verify", "deletion.before_receipt",
    "deletion.after_verified_recorded",
]  # fmt: skip


ELSEWHERE = {  # of children, cancels, holds and lifts: in test_deletion_children.py, _cancel.py and _holds.py; of
    # redacted and detached items and of follow-ups: in tests/property/test_dataset_deletion.py and test_follow_ups.py
    "deletion.before_follow_up", "deletion.after_follow_up", "deletion.after_detach",
    "deletion.before_placeholders", "deletion.after_placeholders",
    "deletion.before_child", "deletion.after_child", "deletion.before_hide_child", "deletion.after_hide_child",
    "deletion.before_cancel", "deletion.after_cancel", "deletion.after_cancelled_recorded", "deletion.before_lift",
    "deletion.after_failed_recorded", "deletion.after_blocked_recorded",
    "transfer.after_move", "transfer.after_record",  # test_transfers.py
    "hold.before_add", "hold.after_add", "hold.before_release", "hold.after_release",
}  # fmt: skip


def test_the_list_of_fault_points_is_whole() -> None:
    folder = Path(deletion.__file__).parent
    source = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    named = set(re.findall(r'fault\("([^"]+)"\)', source))
    recorded = {f"deletion.after_{state.value}_recorded" for state in S if state is not S.PLANNED}
    assert {*POINTS, *ELSEWHERE} == named | recorded


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("visit", [1, 2])
def test_a_deletion_that_dies_anywhere_is_finished_by_the_next_process(world: World, point: str, visit: int) -> None:
    before = visible(world.store, [1])
    crashed = False
    with faults.armed(f"{point}:{visit}:crash"):
        try:
            world.deleter().delete(by_ids("t1", "t2", "t3", "t4", "t5"))
        except faults.Crash:
            crashed = True
    assert crashed is (visit == 1 or point in ("deletion.before_batch", "deletion.after_batch"))
    deleter = world.restarted()
    deleter.resume()
    deleter.run_due()
    assert world.catalog.unfinished_deletions() == []
    left = {trace_id for _, trace_id in before} - {"t1", "t2", "t3", "t4", "t5"}
    if point == "deletion.before_hide" and crashed:  # nobody was told that anything was hidden, and nothing was
        assert visible(world.store, [1]) == before
        return
    assert visible(world.store, [1]) == {key: seen for key, seen in before.items() if key[1] in left}
    (deletion_id,) = world.store._deletions
    job, progress = deleter.status(deletion_id)
    assert (job.state, job.hidden, job.purged["trace"], job.purged["span"]) == (S.VERIFIED, 5, 5, 20)
    assert progress is not None
    assert (progress.settled, progress.request) == (True, None)
    if world.real is not None:
        assert [entry.step for entry in world.real.ledger(deletion_id=deletion_id)] == STEPS


def test_a_deletion_survives_dying_at_every_step(world: World) -> None:
    with faults.armed("deletion.after_hide:1:crash"), pytest.raises(faults.Crash):
        world.deleter().delete(by_ids(*(f"t{n}" for n in range(8))))
    for point in (*["deletion.after_batch"] * 3, "deletion.before_settle", "deletion.after_settle"):
        deleter = world.restarted()
        deleter.resume()
        with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
            deleter.run_due()
    deleter = world.restarted()
    assert deleter.resume() == 1
    deleter.run_due()
    (deletion_id,) = world.store._deletions
    job = deleter.status(deletion_id)[0]
    assert (job.state, job.purged["trace"], job.purged["span"]) == (S.VERIFIED, 8, 32)
    assert deleter.resume() == 0


# -- in the background --------------------------------------------------------------------------------------------


def test_large_deletions_leave_a_thread_to_the_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SMALL", 1)
    may_go_on = threading.Event()
    with open_world(tmp_path, real=False, traces=10) as world:
        settle = world.store.settle

        def slow(deletion_id: str) -> None:
            assert world.job(deletion_id).matched == 1 or may_go_on.wait(60)
            settle(deletion_id)

        monkeypatch.setattr(world.store, "settle", slow)
        deleter = Deleter(world.store, world.catalog, SystemClock(), world.ids, secret=SECRET)
        deleter.start()
        try:
            large = [deleter.delete(by_ids(f"t{n}", f"t{n + 1}", f"t{n + 2}"), wait_s=0) for n in (0, 3, 6)]
            assert deleter.delete(by_ids("t9"), wait_s=20).state is S.VERIFIED
            assert {world.job(each.deletion_id).state for each in large} == {S.HIDDEN}
        finally:
            may_go_on.set()
            deleter.close()


def test_a_thread_carries_deletions_out(world: World) -> None:
    world_clock = SystemClock()
    deleter = Deleter(world.store, world.catalog, world_clock, world.ids, secret=SECRET, rows_max=5)
    deleter.start()
    try:
        results = []
        threads = [
            threading.Thread(target=lambda n=n: results.append(deleter.delete(by_ids(f"t{n}")))) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        deleter.close()
    assert [result.state for result in results] == [S.VERIFIED] * 8
    assert sum(result.hidden for result in results) == 8
    assert world.ids_left() == set()


def test_an_answer_does_not_wait_longer_than_asked(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_ids("t1"), wait_s=0)
    assert (result.state, result.hidden) == (S.HIDDEN, 1)
    assert "t1" not in world.ids_left()
    assert render_message(result) == "1 traces hidden; erasure in progress"
    deleter.run_due()
    assert deleter.status(result.deletion_id)[0].state is S.VERIFIED


def test_a_small_deletion_is_not_held_up_by_a_large_one(world: World) -> None:
    for n in range(60):
        world.store.write([make_trace(f"big{n}", span_count=9)], received_ns=T0_NS)
    deleter = world.deleter()
    large = deleter.delete(by_ids(*(f"big{n}" for n in range(60))), wait_s=0)
    small = deleter.delete(by_ids("t1"))
    assert small.state is S.VERIFIED
    progress = world.store.progress(large.deletion_id)
    assert progress is not None
    assert progress.more
    deleter.run_due()
    assert deleter.status(large.deletion_id)[0].state is S.VERIFIED


def test_two_processes_do_not_carry_out_one_deletion(tmp_path: Path) -> None:
    clock, ids = FixedClock(), CountingIds()
    store = MemoryStore(TOMBSTONE_SECRET)
    store.write([make_trace("t1")], received_ns=T0_NS)
    with Catalog.open(tmp_path, clock=clock, ids=ids) as catalog:
        one, two = (Deleter(store, CatalogRecords(catalog, clock, ids), clock, ids, secret=SECRET) for _ in range(2))
        result = one.delete(by_ids("t1"), wait_s=0)
        assert two.resume(take_over=False) == 1
        two.run_due()
        assert two.status(result.deletion_id)[0].state is S.HIDDEN  # the first holds the lease
        clock.advance(61)  # the first has died without a word
        two.run_due()
        assert two.status(result.deletion_id)[0].state is S.VERIFIED
        one.run_due()  # or was only slow: it finds the deletion taken and lets go
        assert [entry.step for entry in catalog.ledger(deletion_id=result.deletion_id)] == STEPS
