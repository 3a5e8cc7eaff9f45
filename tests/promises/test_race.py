"""Deletions that race writers and each other on a real server: everything is erased or refused, and the sums add up."""

from __future__ import annotations

import random
from collections import Counter as Sums
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import httpx
import pytest

from clearspan.files.vfs import open_reader
from clearspan.testing.needles import needle_of
from crash.live import Live, wait_for
from crash.world import WINDOW, Group, World, bulk_delete, ended

from .plugin import PromiseFixture
from .table import Counter

SEED = 20261122
RACES_SHORT, RACES_LONG = 25, 1000
OVERLAPS_SHORT, OVERLAPS_LONG = 3, 60
WRITERS = 3
SPANS_MAX = 6


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data", random.Random(SEED))


@pytest.fixture
def live(world: World) -> Iterator[Live]:
    server = world.start()
    yield server
    server.end()


def race(clients: list[httpx.Client], pool: ThreadPoolExecutor, world: World, seed: str) -> Sums[str]:
    """One trace is written by several clients while another deletes it."""
    rng = random.Random(seed)
    trace_id, customer = needle_of(rng.randbytes(12)), needle_of(rng.randbytes(12))
    sums: Sums[str] = Sums()
    gate = Barrier(WRITERS + 1)

    def send(client: httpx.Client, number: int) -> str:
        answer = client.post("/api/v1/traces/ingest", json=[world.span(customer, trace_id, number, "x")])
        assert answer.status_code == 200, answer.text
        return "refused" if "1 spans refused" in answer.json()["message"] else "stored"

    def write(writer: int, count: int) -> list[str]:
        gate.wait()
        return [send(clients[writer], 100 * (writer + 1) + n) for n in range(count)]

    def delete(client: httpx.Client) -> dict[str, Any]:
        gate.wait()
        answer = client.delete(f"/api/traces/{trace_id}/")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    sums[send(clients[0], 0)] += 1
    writers = [pool.submit(write, n, rng.randint(1, SPANS_MAX)) for n in range(WRITERS)]
    answer = delete(clients[WRITERS])
    for writer in writers:
        sums.update(writer.result())
    assert answer["deleted_count"] == 1, answer
    found = clients[0].get(f"/v1/deletions/{answer['deletion_id']}").json()
    assert found["state"] == "verified", found
    assert found["counts"]["span"]["purged"] == sums["stored"], (found, sums)
    assert found["late_refused"] == sums["refused"], (found, sums)
    assert clients[0].get(f"/api/traces/{trace_id}/").status_code == 404
    assert send(clients[0], 9999) == "refused"
    world.gone.add(trace_id)
    world.needles |= {trace_id, customer}
    world.deletions += 1
    return sums


def run_races(world: World, live: Live, counter: Counter, rounds: int) -> None:
    sums: Sums[str] = Sums()
    clients = [live.client() for _ in range(WRITERS + 1)]
    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(rounds):
            with counter.run(f"{SEED}/{number}"):
                sums += race(clients, pool, world, f"{SEED}/{number}")
    for client in clients:
        client.close()
    print(f"{rounds} races: {dict(sums)}")
    assert sums["refused"] > 0, "no span came late: this was no race"
    assert sums["stored"] > rounds, "no span came in time: this was no race"
    with counter.run(f"{SEED}/files", runs=0):
        world.check(live)
        assert live.stop() == 0
        world.check_files()


def test_spans_that_race_a_deletion_are_erased_or_refused(world: World, live: Live, promise: PromiseFixture) -> None:
    run_races(world, live, promise("P4 P6 P7", "F11"), RACES_SHORT)


@pytest.mark.long
def test_spans_that_race_a_thousand_deletions(world: World, live: Live, promise: PromiseFixture) -> None:
    run_races(world, live, promise("P4 P6 P7", "F11"), RACES_LONG)


def overlap(world: World, live: Live, pool: ThreadPoolExecutor, seed: str) -> None:
    """Several deletions at once whose filters share traces: each trace is counted by exactly one of them."""
    rng = random.Random(seed)
    groups = [world.plant(live, rng.randint(1, 30), 2) for _ in range(3)]
    choices = [rng.sample(groups, k=rng.randint(1, 3)) for _ in range(3)]
    gate = Barrier(len(choices))

    def delete(chosen: list[Group]) -> dict[str, Any]:
        filters = {"customer_identifier": {"operator": "in", "value": [group.customer for group in chosen]}}
        with live.client() as client:
            gate.wait()
            answer = client.post("/api/traces/bulk/", params=WINDOW, json={"filters": filters})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    answers = list(pool.map(delete, choices))
    taken = [group for group in groups if any(group in chosen for chosen in choices)]
    hidden = matched = 0
    for answer, chosen in zip(answers, choices, strict=True):
        if answer["deletion_id"] is None:
            continue  # all of it was taken by then
        found = ended(live, answer["deletion_id"])
        counts = found["traces"]
        assert found["state"] == "verified"
        assert counts["matched"] == counts["hidden"] + counts["already_absent"] + counts["no_longer_matching"]
        assert counts["matched"] <= sum(len(group.trace_ids) for group in chosen)
        assert answer["deleted_count"] == counts["hidden"]
        assert found["counts"]["trace"]["purged"] == counts["hidden"]
        hidden += counts["hidden"]
        matched += counts["matched"]
    assert hidden == sum(len(group.trace_ids) for group in taken) <= matched
    for group in taken:
        world.took(group)
    world.check(live)


def run_overlaps(world: World, live: Live, counter: Counter, rounds: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        for number in range(rounds):
            with counter.run(f"{SEED}/{number}"):
                overlap(world, live, pool, f"{SEED}/{number}")
    with counter.run(f"{SEED}/files", runs=0):
        assert live.stop() == 0
        world.check_files(receipts_min=True)


def test_of_overlapping_deletions_each_trace_is_counted_once(world: World, live: Live, promise: PromiseFixture) -> None:
    run_overlaps(world, live, promise("P4 P5 P6", "F12"), OVERLAPS_SHORT)


@pytest.mark.long
def test_of_many_overlapping_deletions_each_trace_is_counted_once(
    world: World, live: Live, promise: PromiseFixture
) -> None:
    run_overlaps(world, live, promise("P4 P5 P6", "F12"), OVERLAPS_LONG)


def delete_beside_a_snapshot(world: World, live: Live) -> None:
    """While a reader outside keeps an old snapshot, the log cannot be emptied: nothing may be called purged."""
    group = world.plant(live, 5)
    conn = open_reader(world.data / "traces.db")
    conn.execute("BEGIN")
    conn.execute("SELECT count(*) FROM trace").fetchall()
    answers: list[dict[str, Any]] = []
    asked = Event()

    def ask() -> None:
        with live.client() as client:
            asked.set()
            answers.append(bulk_delete(client, group).json())

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        asked.wait()
        wait_for(lambda: not visible(live, group), "the traces are hidden")
        with live.client() as client:
            (deletion_id,) = open_deletions(world)

            def is_waiting() -> bool:
                found = client.get(f"/v1/deletions/{deletion_id}").json()
                assert found["state"] in ("hidden", "blocked"), found
                return bool(found["counts"]["span"]["purged"] == group.spans)

            wait_for(is_waiting, "every row is removed")
            assert is_waiting()
        conn.execute("COMMIT")
        conn.close()
        asking.result()
    world.took(group)
    found = ended(live, answers[0]["deletion_id"])
    assert (found["state"], found["traces"]["hidden"]) == ("verified", len(group.trace_ids))
    world.check(live)


def visible(live: Live, group: Group) -> bool:
    with live.client() as client:
        return client.get(f"/api/traces/{group.trace_ids[0]}/").status_code == 200


def open_deletions(world: World) -> list[str]:
    conn = open_reader(world.data / "catalog.db")
    query = "SELECT id FROM job WHERE kind = 'deletion' AND state IN ('ready', 'running')"
    try:
        return [row[0] for row in conn.execute(query)]
    finally:
        conn.close()


def test_nothing_is_called_purged_while_a_reader_keeps_an_old_snapshot(
    world: World, live: Live, promise: PromiseFixture
) -> None:
    counter = promise("P4", "F25")
    with counter.run(SEED):
        delete_beside_a_snapshot(world, live)
        assert live.stop() == 0
        world.check_files()
