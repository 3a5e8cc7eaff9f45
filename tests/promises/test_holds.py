"""Holds that come in the middle, and cancels at every state, on a real server: the hold wins, the sums add up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from crash.live import Live, wait_for
from crash.stories import FAR
from crash.world import END_S, Group, World, check_receipt, ended, native_delete

from .plugin import PromiseFixture
from .table import Counter

SEED = 20261122
ROUNDS_LONG = 20
TRACES, SPANS = 260, 10  # rows for several batches
CHECKED = "deletion.after_batch"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data", random.Random(SEED))


@pytest.fixture
def live(world: World) -> Iterator[Live]:
    server = world.start()
    yield server
    server.end()


def hold(client: httpx.Client, group: Group) -> dict[str, Any]:
    answer = client.post("/v1/holds", json={"filters": group.filters, "reason": "a lawsuit"})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def release(client: httpx.Client, hold_id: str) -> None:
    answer = client.request("DELETE", f"/v1/holds/{hold_id}", json={})
    assert answer.status_code == 200, answer.text


def deletion(client: httpx.Client, deletion_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/deletions/{deletion_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def held_child(live: Live, parent: dict[str, Any]) -> dict[str, Any]:
    """The child of a verified deletion, once it says that it is held."""
    with live.client() as client:
        wait_for(lambda: deletion(client, parent["child_id"])["state"] == "blocked", "the child is held")
        found = deletion(client, parent["child_id"])
    assert (found["problem"], found["alarm"]) == ("held", None)
    assert found["blocked_by"]
    return found


def hold_in_the_middle(world: World, live: Live, seed: str) -> None:
    """The worker stands still after some batches; a hold comes; what is not purged by then stays, hidden."""
    rng = random.Random(seed)
    group = world.plant(live, TRACES, SPANS)
    live.arm(CHECKED, "pause")
    with live.client() as client:
        asked = native_delete(client, group, wait="none").json()
        live.wait_fired(CHECKED)
        kept = hold(client, group)
        assert 0 < kept["traces"]["hidden_kept"] < TRACES
        assert kept["traces"]["protected"] == 0
        live.release(CHECKED)
        parent = ended(live, asked["id"])
        held = parent["traces"]["held"]
        assert (parent["state"], parent["traces"]["hidden"] + held) == ("verified", TRACES)
        assert held == kept["traces"]["hidden_kept"]
        assert parent["counts"]["trace"]["purged"] == TRACES - held
        child = held_child(live, parent)
        if rng.random() < 0.5:
            world.there -= set(group.trace_ids)
            world.check(live)  # hidden stays hidden
        release(client, kept["id"])
    last = ended(live, child["id"])
    assert (last["state"], last["traces"]["hidden"], last["traces"]["held"]) == ("verified", held, 0)
    check_receipt(live, parent["id"], TRACES - held)
    check_receipt(live, child["id"], held)
    world.took(group)
    world.deletions += 1
    world.send_late(live, group)
    world.check(live)


def hold_before(world: World, live: Live, seed: str) -> None:
    """Held before the deletion: never hidden. The child's cancel leaves everything as it was."""
    rng = random.Random(seed)
    kept, free = world.plant(live, rng.randint(2, 20)), world.plant(live, 3)
    both = Group("", [*kept.trace_ids, *free.trace_ids], 3, set())
    with live.client() as client:
        held = hold(client, kept)
        assert held["traces"]["protected"] == len(kept.trace_ids)
        refused = native_delete(client, kept)
        assert (refused.status_code, refused.json()["code"]) == (423, "held"), refused.text
        asked = client.post("/v1/deletions", json={"trace_ids": both.trace_ids, "delete_all": True})
        parent = ended(live, asked.json()["id"])
        counts = parent["traces"]
        assert (parent["state"], counts["hidden"], counts["held"]) == ("verified", 3, len(kept.trace_ids))
        world.took(free)
        world.check(live)
        child = held_child(live, parent)
        assert client.post(f"/v1/deletions/{child['id']}/cancel", json={}).json()["state"] == "cancelled"
        release(client, held["id"])
    world.check(live)


def finish(world: World, live: Live, counter: Counter) -> None:
    with counter.run(f"{SEED}/files", runs=0):
        world.check(live)
        assert live.stop() == 0
        world.check_files(receipts_min=True)


@pytest.mark.parametrize("rounds", [1, pytest.param(ROUNDS_LONG, marks=pytest.mark.long)])
def test_a_hold_wins_over_all_that_is_not_purged(
    world: World, live: Live, promise: PromiseFixture, rounds: int
) -> None:
    counter = promise("P4 P5 P6", "F12")
    for number in range(rounds):
        for play in (hold_in_the_middle, hold_before):
            seed = f"{SEED}/{play.__name__}/{number}"
            with counter.run(seed):
                play(world, live, seed)
    finish(world, live, counter)


def cancel(client: httpx.Client, deletion_id: str) -> httpx.Response:
    return client.post(f"/v1/deletions/{deletion_id}/cancel", json={"reason": "a mistake"}, timeout=END_S)


def cancel_paused(world: World, live: Live, point: str, *, may_win: bool) -> None:
    """A cancel that comes while the worker stands at a point: all is back, or it is refused and all goes."""
    group = world.plant(live, 5)
    live.arm(point, "pause")
    with live.client() as client, ThreadPoolExecutor(1) as pool:
        asked = native_delete(client, group, wait="none").json()
        live.wait_fired(point)
        answer: Future[httpx.Response] = pool.submit(cancel, client, asked["id"])
        live.release(point)
        told = answer.result()
    found = ended(live, asked["id"])
    if told.status_code == 200:
        assert may_win
        assert found["state"] == "cancelled"
    else:
        assert (told.status_code, told.json()["code"]) == (409, "purge_begun"), told.text
        assert (found["state"], found["traces"]["hidden"]) == ("verified", 5)
        world.took(group)
    world.check(live)


def cancel_waiting(world: World, live: Live) -> None:
    """Hidden, with time to think: cancelled, all is back; cancelled again, nothing more; deleted again, all is gone."""
    group = world.plant(live, 5)
    with live.client() as client:
        asked = native_delete(client, group, wait="hidden", not_before=FAR).json()
        assert asked["state"] == "hidden"
        world.there -= set(group.trace_ids)
        world.check(live)
        for _ in range(2):
            assert cancel(client, asked["id"]).json()["state"] == "cancelled"
        world.there |= set(group.trace_ids)
        world.check(live)
        again = native_delete(client, group).json()
        assert (again["state"], again["traces"]["hidden"]) == ("verified", 5)
        assert cancel(client, again["id"]).json()["code"] == "purge_begun"
    world.took(group)
    world.check(live)


def cancel_planned(world: World, live: Live) -> None:
    """Not yet hidden: the cancel is refused, as nobody could say what it undid; the deletion goes on."""
    group = world.plant(live, 5)
    point = "deletion.before_hide"
    live.arm(point, "pause")
    with live.client() as client, live.client() as other, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(native_delete, client, group)
        live.wait_fired(point)
        (planned,) = other.get("/v1/deletions", params={"state": "planned"}).json()["data"]
        assert cancel(other, planned["id"]).json()["code"] == "deletion_in_progress"
        live.release(point)
        assert asking.result().json()["state"] == "verified"
    world.took(group)
    world.check(live)


@pytest.mark.parametrize("rounds", [1, pytest.param(ROUNDS_LONG, marks=pytest.mark.long)])
def test_a_cancel_undoes_all_or_nothing_at_each_state(
    world: World, live: Live, promise: PromiseFixture, rounds: int
) -> None:
    counter = promise("P5 P6", "F33")
    for number in range(rounds):
        with counter.run(f"{SEED}/waiting/{number}"):
            cancel_waiting(world, live)
        with counter.run(f"{SEED}/planned/{number}"):
            cancel_planned(world, live)
        for point, may_win in (
            ("deletion.before_shares", True), ("deletion.before_batch", True), ("deletion.after_batch", False),
            ("deletion.before_settle", False), ("deletion.before_verify", False), ("deletion.before_receipt", False),
        ):  # fmt: skip
            with counter.run(f"{SEED}/{point}/{number}"):
                cancel_paused(world, live, point, may_win=may_win)
    finish(world, live, counter)
