"""Restarts during a large deletion: progress never goes back, and the end is the same as without them."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from crash.live import Live
from crash.world import OPEN_STATES, Group, World, check_receipt, native_delete

from .plugin import PromiseFixture
from .table import Counter

SEED = 20261122
TRACES_SHORT, TRACES_LONG = 8_000, 200_000
BETWEEN_SHORT_S, BETWEEN_LONG_S = 0.1, 2.0
RESTARTS_SHORT = 4
PLANTED_AT_ONCE = 5_000
ORDER = {"planned": 0, "hidden": 1, "blocked": 1, "purged": 2, "verified": 3}
GIVE_UP_S = 1_200.0


class Watch:
    """What the API has said of one deletion so far. It may only grow."""

    def __init__(self, deletion_id: str) -> None:
        self.deletion_id = deletion_id
        self.last: dict[str, Any] = {}
        self.rank, self.rows, self.share = 0, 0, 0.0

    def look(self, client: httpx.Client) -> str:
        answer = client.get(f"/v1/deletions/{self.deletion_id}")
        assert answer.status_code == 200, answer.text
        found = self.last = answer.json()
        rank = ORDER[found["state"]]
        rows = sum(counts["purged"] or 0 for counts in found["counts"].values())
        assert rank >= self.rank, f"{found['state']} after {self.rank}"
        assert rows >= self.rows, f"{rows} rows after {self.rows}"
        assert found["progress"] >= self.share, f"{found['progress']} after {self.share}"
        self.rank, self.rows, self.share = rank, rows, found["progress"]
        return str(found["state"])

    def look_for(self, live: Live, seconds: float) -> bool:
        """Look again and again for so long; whether the deletion is over."""
        until = time.monotonic() + seconds
        with live.client() as client:
            while self.look(client) in OPEN_STATES:
                if time.monotonic() >= until:
                    return False
                time.sleep(0.05)
        return True


def plant_many(world: World, live: Live, count: int) -> Group:
    """So many traces of one span and one customer."""
    parts = [PLANTED_AT_ONCE] * (count // PLANTED_AT_ONCE) + [count % PLANTED_AT_ONCE]
    whole = world.plant(live, 1, 1)
    with ThreadPoolExecutor(3) as pool:
        for group in pool.map(lambda n: world.plant(live, n, 1, customer=whole.customer), parts):
            whole.trace_ids += group.trace_ids
            whole.needles |= group.needles
    return whole


def delete_over_restarts(world: World, count: int, between_s: float, restarts_max: int | None) -> None:
    """SIGTERM and SIGKILL in turn, every so many seconds, until the deletion is over or the restarts are used up."""
    live = world.start()
    try:
        group = plant_many(world, live, count)
        stays = world.plant(live, 50)
        with live.client() as client:
            answer = native_delete(client, group, wait="none")
            assert answer.status_code == 202, answer.text
        watch = Watch(answer.json()["id"])
        restarts, began = 0, time.monotonic()
        while not watch.look_for(live, between_s if restarts_max is None or restarts < restarts_max else GIVE_UP_S):
            assert time.monotonic() - began < GIVE_UP_S, "stuck"
            if restarts % 2:
                live.kill()
            else:
                assert live.stop() == 0
            restarts += 1
            live = world.start()
        print(f"{len(group.trace_ids)} traces, {restarts} restarts, {time.monotonic() - began:.1f} s")
        assert restarts > 0, "it was over before the first restart"
        check_end(world, live, group, watch)
        assert set(stays.trace_ids) <= world.there
        assert live.stop() == 0
        world.check_files()
    finally:
        live.end()


def check_end(world: World, live: Live, group: Group, watch: Watch) -> None:
    total = len(group.trace_ids)
    found = watch.last
    assert (found["state"], found["traces"]["hidden"]) == ("verified", total)
    for target in ("trace", "span"):
        counts = found["counts"][target]
        assert (counts["planned"], counts["purged"], counts["remaining"]) == (total, total, 0)
    world.took(group)
    world.check(live)
    check_receipt(live, watch.deletion_id, total)


def run(tmp_path: Path, counter: Counter, count: int, between_s: float, restarts_max: int | None) -> None:
    with counter.run(SEED):
        delete_over_restarts(World(tmp_path / "data", random.Random(SEED)), count, between_s, restarts_max)


def test_a_deletion_goes_on_over_restarts(tmp_path: Path, promise: PromiseFixture) -> None:
    run(tmp_path, promise("P5 P6", "F21"), TRACES_SHORT, BETWEEN_SHORT_S, RESTARTS_SHORT)


@pytest.mark.long
def test_a_large_deletion_goes_on_over_restarts_every_two_seconds(tmp_path: Path, promise: PromiseFixture) -> None:
    run(tmp_path, promise("P5 P6", "F21"), TRACES_LONG, BETWEEN_LONG_S, None)
