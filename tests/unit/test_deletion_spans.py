"""Spans deleted by themselves, from the guards to the receipt, over both Catalogs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan.deletion.annotations import kind_of
from clearspan.deletion.plan import canonical_request, parse_request, plain_request
from clearspan.deletion.policy import Policy
from clearspan.deletion.request import BySpans, DeletionRequest
from clearspan.deletion.result import render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Conflict, Held, InvalidFilter, Unguarded
from clearspan.proof.receipt import counted_in
from clearspan.store.port import DeletionKind
from clearspan.testing.deletions import SCOPE, World, by_ids, hold_on, open_world

S = DeletionState


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param == "real", traces=3) as made:
        yield made


def by_spans(*names: str, **fields: Any) -> DeletionRequest:
    return DeletionRequest(1, "key_1", "native", SCOPE, BySpans(names), **fields)


def spans_left(world: World) -> int:
    return world.store.count_spans(SCOPE)


def test_it_ends_verified_with_exact_counts_and_words_for_them(world: World) -> None:
    result = world.deleter().delete(by_spans("t0.1", "t1/t1.0", "t1/t0.1", "t9.9"))
    assert (result.state, result.matched, result.hidden, result.kind) == (S.VERIFIED, 2, 2, DeletionKind.SPANS)
    assert render_message(result) == "Successfully deleted 2 spans"
    job = world.job(result.deletion_id)
    assert (job.planned, job.purged["span"], job.remaining["span"]) == ({"span": 2}, 2, 0)
    assert (job.shape, kind_of(job.shape)) == (("span_ids:in:4",), DeletionKind.SPANS)
    assert (spans_left(world), world.ids_left()) == (10, {"t0", "t1", "t2"})
    assert counted_in({"spans": {}}) == "spans"
    again = world.deleter().delete(by_spans("t0.1"))
    assert render_message(again) == "No spans matched; nothing was deleted"


def test_a_request_is_read_back_as_it_was(world: World) -> None:
    request = by_spans("t0.1", "t1/t1.0")
    assert parse_request(plain_request(request), 1).selection == BySpans(("t0.1", "t1/t1.0"))
    assert canonical_request(request) == canonical_request(by_spans("t1/t1.0", "t0.1"))


def test_guards_count_spans(world: World) -> None:
    deleter = world.deleter()
    with pytest.raises(InvalidFilter, match="at least one span id"):
        deleter.delete(by_spans())
    with pytest.raises(Unguarded, match="spans"):
        deleter.delete(by_spans("t0.0", "t0.1", policy=Policy(max_traces=1)))
    with pytest.raises(Unguarded):
        deleter.delete(by_spans("t0.0", "t0.1", policy=Policy(max_share_ppm=100_000)))
    with pytest.raises(Conflict):
        deleter.delete(by_spans("t0.0", expected_count=2))
    assert spans_left(world) == 12
    assert deleter.delete(by_spans("t0.0", policy=Policy(max_traces=1, max_share_ppm=100_000))).is_erased


def test_a_preview_tells_and_does_exactly_that(world: World) -> None:
    deleter = world.deleter()
    seen = deleter.preview(by_spans("t0.0", "t0.1", "t1.0"))
    assert (seen.plan.matched, seen.by_project, sum(seen.by_day.values()), seen.held) == (3, {1: 3}, 3, {})
    assert [row.summary.trace_id for row in seen.samples] == ["t0", "t1"]
    other = deleter.preview(by_spans("t0.0"))
    result = deleter.delete_planned(seen.token, org_id=1, requested_by="key_1")
    assert (result.state, result.hidden) == (S.VERIFIED, 3)
    with pytest.raises(Conflict) as refused:
        deleter.delete_planned(other.token, org_id=1, requested_by="key_1")
    assert refused.value.code == "plan_mismatch"
    assert spans_left(world) == 9


def test_what_a_hold_keeps_is_a_deletion_of_its_own(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    hold, _ = holds.create(hold_on("t0"))
    with pytest.raises(Held, match="all spans that match"):
        deleter.delete(by_spans("t0.0"), refuse_held=True)
    assert deleter.preview(by_spans("t0.0", "t0.1", "t1.0")).held_traces == 2
    parent = deleter.delete(by_spans("t0.0", "t0.1", "t1.0"))
    assert (parent.state, parent.hidden, parent.held) == (S.VERIFIED, 1, 2)
    assert parent.child_id is not None
    child = world.job(parent.child_id)
    assert (child.state, child.matched, child.planned, child.kind) == (S.BLOCKED, 2, {"span": 2}, DeletionKind.SPANS)
    assert spans_left(world) == 11
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert world.job(parent.child_id).state is S.VERIFIED
    assert spans_left(world) == 9


def test_a_link_to_a_trace_goes_with_its_last_span(tmp_path: Path) -> None:
    with open_world(tmp_path, real=True, traces=2) as world:
        assert world.real is not None
        world.real.run_shares.create(1, 1, "t0", "a" * 32)
        deleter = world.deleter()
        kept = deleter.delete(by_spans("t0.0", "t0.1"))
        assert world.job(kept.deletion_id).purged["share"] == 0
        assert world.real.run_shares.token_of(1, "t0") is not None
        gone = deleter.delete(by_spans("t0.2", "t0.3"))
        assert (gone.state, world.job(gone.deletion_id).purged["share"]) == (S.VERIFIED, 1)
        assert world.real.run_shares.token_of(1, "t0") is None


def test_a_cancel_makes_spans_visible_again(world: World) -> None:
    deleter = world.deleter()
    far = world.clock.now_ns() + 10**15
    hidden = deleter.delete(by_spans("t0.0", "t1.0", not_before_ns=far))
    assert (hidden.state, spans_left(world)) == (S.HIDDEN, 10)
    assert deleter.cancel(hidden.deletion_id, by="key_1").job.state is S.CANCELLED
    assert spans_left(world) == 12
    second = deleter.delete(by_spans("t0.0", not_before_ns=far))
    deleter.delete(by_ids("t0"))
    with pytest.raises(Conflict) as refused:
        deleter.cancel(second.deletion_id, by="key_1")
    assert refused.value.code == "trace_deleted"
