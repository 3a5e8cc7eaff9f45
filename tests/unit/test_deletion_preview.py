"""Previews: what is executed is what was looked at, once, by who looked at it, within a quarter of an hour."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from clearspan import faults
from clearspan.deletion.policy import Policy
from clearspan.deletion.preview import LIFETIME_S, PREFIX, PREVIEWS_MAX, owner_of, parse_kept, render_kept, token_key
from clearspan.deletion.result import DeletionResult
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Conflict, NotPermitted, Unguarded
from clearspan.settings import Settings
from clearspan.testing.build import T0_NS, make_batch, make_span, make_trace, with_metadata
from clearspan.testing.deletions import ANNA, World, by_filter, by_ids, hold_on, ids_in, open_world
from clearspan.testing.stores import visible

S = DeletionState
SEED = 20261122


@pytest.fixture(params=[False, True], ids=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=False) as made:
        yield made


def refusal(world: World, token: str, **who: object) -> str:
    """The code of the refusal; nothing may have been deleted."""
    before = visible(world.store, [1])
    with pytest.raises(Conflict, match=r"[Nn]othing was deleted") as caught:
        world.deleter().delete_planned(token, **{"org_id": 1, "requested_by": "key_1", **who})  # type: ignore[arg-type]
    assert visible(world.store, [1]) == before
    return caught.value.code


def test_a_preview_tells_everything_and_changes_nothing(world: World) -> None:
    before = visible(world.store, [1])
    deleter = world.deleter()
    hold, _ = world.holds(deleter).create(hold_on("t1"))
    told = deleter.preview(by_filter(ANNA, idempotency_key="not kept"))
    assert told.token.startswith(PREFIX)
    assert told.expires_ns == world.clock.now_ns() + LIFETIME_S * 10**9
    assert (len(told.plan.traces), told.plan.planned["span"]) == (8, 32)
    assert (told.held, told.held_traces) == ({hold.hold_id: 1}, 1)
    assert sum(told.by_day.values()) == told.by_project[1] == len(told.samples) == 8
    assert len(told.plan.manifest_root) == 64
    assert visible(world.store, [1]) == before
    assert world.catalog.unfinished_deletions() == []
    assert told.token not in repr(told)
    assert "anna" not in repr(told)


def test_a_plan_deletes_exactly_what_it_listed_and_only_once(world: World) -> None:
    deleter = world.deleter()
    told = deleter.preview(by_filter(ANNA, reason="r"))
    context = with_metadata({}, customer_identifier="anna")
    world.store.write([make_trace("new", context=context)], received_ns=T0_NS)
    result = deleter.delete_planned(told.token, org_id=1, requested_by="key_1", expected_count=8)
    assert (result.state, result.hidden) == (S.VERIFIED, 8)
    assert world.ids_left() == {"new"}
    job = world.job(result.deletion_id)
    assert job.manifest_root == told.plan.manifest_root
    assert deleter.receipt(result.deletion_id)
    assert refusal(world, told.token) == "plan_used_or_unknown"


@pytest.mark.parametrize("who", [{"org_id": 2}, {"requested_by": "key_2"}, {"org_id": 2, "requested_by": "key_2"}])
def test_a_plan_is_of_no_use_to_others(world: World, who: dict[str, object]) -> None:
    told = world.deleter().preview(by_filter(ANNA))
    assert refusal(world, told.token, **who) == "plan_used_or_unknown"
    assert world.deleter().delete_planned(told.token, org_id=1, requested_by="key_1").hidden == 8


def test_every_other_token_is_unknown(plain: World) -> None:
    token = plain.deleter().preview(by_filter(ANNA)).token
    for place in range(len(token)):
        altered = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert refusal(plain, altered) == "plan_used_or_unknown"
    for odd in ("", token[:-1], token + "A", token.upper(), "plan_\ud800", " " + token):
        assert refusal(plain, odd) == "plan_used_or_unknown"


def test_a_plan_expires_and_is_erased(world: World) -> None:
    deleter = world.deleter()
    told = deleter.preview(by_filter(ANNA))
    world.clock.advance(LIFETIME_S - 1)
    deleter.run_due()
    world.clock.advance(1)
    assert refusal(world, told.token) == "plan_expired"
    world.clock.advance(60)
    deleter.run_due()
    assert refusal(world, told.token) == "plan_used_or_unknown"


def test_a_key_has_so_many_open_plans_and_no_more(world: World) -> None:
    deleter = world.deleter(previews_max=3)
    first, *_ = [deleter.preview(by_ids("t1")) for _ in range(3)]
    before = world.store.preview_keys()
    with pytest.raises(Conflict, match="3 open plan tokens") as caught:
        deleter.preview(by_ids("t2"))
    assert caught.value.code == "too_many_plans"
    assert world.store.preview_keys() == before
    assert world.restarted().preview(by_ids("t2")), "the usual number is another"
    other = world.deleter(previews_max=4)
    for stranger in (replace(by_ids("t2"), requested_by="key_2"), replace(by_ids("t2"), org_id=2)):
        assert other.preview(stranger).token, "each key has its own"
    with pytest.raises(Conflict):
        other.preview(by_ids("t2"))
    assert other.delete_planned(first.token, org_id=1, requested_by="key_1").state is S.VERIFIED
    assert other.preview(by_ids("t2")).token, "a used token is none"
    world.clock.advance(LIFETIME_S)
    for _ in range(3):
        assert deleter.preview(by_ids("t3")).token, "an expired one neither, even if it was not swept yet"
    assert len(world.store.preview_keys()) == 3


def test_the_bound_holds_when_many_ask_at_once(world: World) -> None:
    deleter = world.deleter(previews_max=5)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(deleter.preview, by_ids("t1")) for _ in range(24)]
    assert [each.exception() is None for each in asked].count(True) == 5 == len(world.store.preview_keys())
    assert Settings().plans_open_max == PREVIEWS_MAX


def test_a_plan_goes_with_the_traces_it_lists(world: World) -> None:
    deleter = world.deleter()
    gone, kept = deleter.preview(by_ids("t1", "t2")), deleter.preview(by_ids("t3"))
    assert deleter.delete(by_ids("t2")).state is S.VERIFIED
    owner = owner_of(1, "key_1")
    assert world.store.get_preview(token_key(gone.token, owner)) == b""
    assert world.store.get_preview(token_key(kept.token, owner))


def test_a_plan_that_a_deletion_overtakes_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deleter = world.deleter()
    save = world.store.save_preview

    def overtaken(key: bytes, body: bytes, expires_ns: int) -> None:
        deleter.delete(by_ids("t2"))
        save(key, body, expires_ns)

    monkeypatch.setattr(type(world.store), "save_preview", lambda _, *args: overtaken(*args))
    with pytest.raises(Conflict) as caught:
        deleter.preview(by_ids("t1", "t2"))
    assert caught.value.code == "plan_mismatch"
    assert [world.store.get_preview(key) for key in world.store.preview_keys()] == [b""]


def test_a_plan_whose_traces_changed_deletes_nothing(world: World) -> None:
    deleter = world.deleter()
    gone, changed = deleter.preview(by_ids("t1", "t2")), deleter.preview(by_filter(ids_in("t3", "t4")))
    deleter.delete(by_ids("t2"))
    assert refusal(world, gone.token) == "plan_mismatch"
    far = make_batch("t3", [make_span("s-early", start_s=-(10**6))])
    world.store.write([far], received_ns=T0_NS)
    assert refusal(world, changed.token) == "plan_mismatch"
    assert world.catalog.unfinished_deletions() == []


def test_held_traces_of_a_plan_go_to_the_child(world: World) -> None:
    deleter = world.deleter()
    told = deleter.preview(by_ids("t1", "t2"))
    world.holds(deleter).create(hold_on("t1"))
    result = deleter.delete_planned(told.token, org_id=1, requested_by="key_1")
    assert (result.hidden, result.held) == (1, 1)


def test_guards_hold_when_a_plan_is_executed(world: World) -> None:
    deleter = world.deleter()
    token = deleter.preview(by_filter(ANNA)).token
    who = {"org_id": 1, "requested_by": "key_1"}
    with pytest.raises(Conflict):
        deleter.delete_planned(token, **who, expected_count=7)  # type: ignore[arg-type]
    with pytest.raises(Unguarded):
        deleter.delete_planned(token, **who, policy=Policy(max_traces=7))  # type: ignore[arg-type]
    with pytest.raises(Unguarded):
        deleter.delete_planned(token, **who, policy=Policy(max_share_ppm=999_999))  # type: ignore[arg-type]
    with pytest.raises(NotPermitted):
        deleter.delete_planned(token, **who, project_ids=(2, 3))  # type: ignore[arg-type]
    assert len(world.ids_left()) == 8
    assert deleter.delete_planned(token, **who, project_ids=(1, 2), policy=Policy(max_traces=8)).hidden == 8  # type: ignore[arg-type]


def test_an_idempotency_key_covers_a_plan(world: World) -> None:
    deleter = world.deleter()
    token = deleter.preview(by_ids("t1")).token

    def execute(token: str) -> DeletionResult:
        return deleter.delete_planned(token, org_id=1, requested_by="key_1", idempotency_key="once")

    first = execute(token)
    assert execute(token) == first
    with pytest.raises(Conflict) as caught:
        execute(deleter.preview(by_ids("t2")).token)
    assert caught.value.code == "idempotency_key_reused"
    assert "t2" in world.ids_left()


@pytest.mark.parametrize("point", ["deletion.before_hide", "deletion.after_hide"])
def test_a_plan_survives_a_crash_unless_it_was_used(world: World, point: str) -> None:
    told = world.deleter().preview(by_ids("t1"))
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        world.deleter().delete_planned(told.token, org_id=1, requested_by="key_1")
    deleter = world.restarted()
    deleter.run_due()
    if point == "deletion.after_hide":
        assert refusal(world, told.token) == "plan_used_or_unknown"
    else:
        assert deleter.delete_planned(told.token, org_id=1, requested_by="key_1").hidden == 1
    assert "t1" not in world.ids_left()


def test_a_kept_plan_is_read_as_it_was(plain: World) -> None:
    for request in (by_filter(ANNA, window_is_implicit=True, matches_max=9), by_ids("t1", reason="ü", not_before_ns=7)):
        plan = plain.deleter().plan(request)
        kept = parse_kept(render_kept(plan, 5))
        assert (kept.expires_ns, kept.plan.traces, kept.plan.request) == (5, plan.traces, request)
        assert (kept.plan.manifest_salt, kept.plan.planned) == (plan.manifest_salt, plan.planned)


# -- the property -------------------------------------------------------------------------------------------------


def play(seed: int, folder: Path) -> str:
    """Preview, let others act, execute: what goes is what was listed, all of it or nothing. Returns what came out."""
    rng = random.Random(seed)
    with open_world(folder, real=False, traces=rng.randint(1, 8)) as world:
        deleter = world.deleter()
        chosen = rng.sample([f"t{n}" for n in range(8)], rng.randint(1, 8))
        request = by_filter(rng.choice((ANNA, ids_in(*chosen)))) if rng.random() < 0.7 else by_ids(*chosen)
        told = deleter.preview(request)
        listed = {trace.trace_id for trace in told.plan.traces}
        kept: set[str] = set()
        for _ in range(rng.randint(0, 4)):
            _act(rng, world, kept)
        before = world.ids_left()
        token = told.token if rng.random() < 0.9 else told.token[:-1] + rng.choice("AQgw")
        try:
            result = deleter.delete_planned(token, org_id=1, requested_by=rng.choice(("key_1",) * 9 + ("key_2",)))
        except Conflict as error:
            assert world.ids_left() == before, f"seed {seed}"
            return error.code
        gone = before - world.ids_left()
        assert gone == listed - kept, f"seed {seed}"
        assert result.hidden == len(gone), f"seed {seed}"
        with pytest.raises(Conflict):
            deleter.delete_planned(token, org_id=1, requested_by="key_1")
        return "deleted"


def _act(rng: random.Random, world: World, kept: set[str]) -> None:
    trace_id = f"t{rng.randrange(10)}"
    match rng.randrange(5):
        case 0 | 1:
            context = with_metadata({}, customer_identifier=rng.choice(("anna", "bert")))
            span = make_span(f"x{rng.randrange(99)}", start_s=rng.choice((5, 5, -1)), context=context)
            world.store.write([make_batch(trace_id, [span])], received_ns=T0_NS)
        case 2:
            kept.add(trace_id)
            world.holds(world.deleter()).create(hold_on(trace_id))
        case 3 if rng.random() < 0.3:
            world.deleter().delete(by_ids(trace_id))
        case 4 if rng.random() < 0.2:
            world.clock.advance(rng.choice((10, LIFETIME_S)))


def check_plays(rounds: int, folder: Path) -> None:
    outcomes = Counter(play(SEED + n, folder) for n in range(rounds))
    assert {"deleted", "plan_mismatch", "plan_expired", "plan_used_or_unknown"} <= set(outcomes), outcomes


def test_deleted_is_previewed(tmp_path: Path) -> None:
    check_plays(150, tmp_path)


@pytest.mark.long
def test_deleted_is_previewed_in_many_runs(tmp_path: Path) -> None:
    check_plays(10_000, tmp_path)
