"""kill -9 of server and writer at every named point of a deletion: P4 to P8, each point many times.

The points are read from the product's source. One that no scenario here reaches fails its run: the server has to die.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest

from promises.plugin import PromiseFixture
from promises.points import fault_points
from promises.table import Counter

from .live import Live, wait_for
from .stories import OF_ANNOTATIONS, STORIES, Feedback, Story
from .world import Group, World, bulk_delete, check_receipt, deletion_ids, ended, native_delete

SEED = 20261122
ROUNDS_LONG = 20
CHUNKS = 4
TRACES, SPANS = 12, 3
TRACES_MANY, SPANS_MANY = 260, 10  # rows for two batches and more
DEATH_S = 20.0

ELSEWHERE = {
    "deletion.after_planned_recorded": "never recorded by a move: a deletion is made in this state",
    "deletion.after_blocked_recorded": "needs a store that fails five times: tests/unit/test_deletion_execute.py",
    "deletion.after_failed_recorded": "needs a survivor, which a sound store never leaves: the same file",
    "deletion.before_follow_up": "needs a copy written between plan and purge: tests/property/test_follow_ups.py",
    "deletion.after_follow_up": "the same; that test dies at it over the real files as well",
    "experiment.before_item": "of experiments: test_kill_experiment.py",
    "experiment.before_scores": "of experiments: test_kill_experiment.py",
    "experiment.before_result": "of experiments: test_kill_experiment.py",
    "experiment.after_result": "of experiments: test_kill_experiment.py",
    "experiment.before_cursor": "of experiments: test_kill_experiment.py",
    "experiment.after_given": "of experiments: tests/unit/test_experiment_runner.py",
    "writer.before_commit": "of ingest: test_kill_ingest.py",
    "writer.after_commit": "of ingest: test_kill_ingest.py",
    "writer.after_answer": "of ingest: test_kill_ingest.py",
}
NOTHING_HIDDEN = {"deletion.before_hide", "store.before_hide"}
MANY_VISITS = {"deletion.before_batch", "deletion.after_batch", "store.before_purge_batch", "store.after_purge_batch"}
OF_ANNOTATIONS_SHORT = {"store.after_purge_batch"}
"""Of annotations, which every run visits; the store's and the engine's code is the one that deletions of traces use."""
POINTS = [point for point in fault_points() if point not in ELSEWHERE]


def test_every_exception_is_still_a_point() -> None:
    assert set(ELSEWHERE) | NOTHING_HIDDEN | MANY_VISITS | set(STORIES) <= set(fault_points())


def wait_dead(live: Live, point: str) -> None:
    wait_for(lambda: live.process.poll() is not None, f"the server dies at {point}", seconds=DEATH_S)
    live.kill()


def one_story(world: World, live: Live, point: str, seed: str, story: Story | None = None) -> Live:
    """A client's steps, one of which meets the death and is repeated after the next start."""
    story = story or STORIES[point](world, live, random.Random(seed))
    live.arm(point, "kill_all")
    for step in story.steps():
        try:
            with live.client() as client:
                step(client)
        except httpx.TransportError:
            wait_dead(live, point)
            live = world.start()
            with live.client() as client:
                step(client)
    if live.process.poll() is not None or live.is_armed(point) or live.has_fired(point):
        wait_dead(live, point)  # some points are passed by the worker, after the last answer
        live = world.start()
    story.check(live)
    world.check(live)
    return live


def one_round(world: World, live: Live, point: str, seed: str) -> Live:
    """One death at a point, the next start, and everything that must be true then. Returns the running server."""
    if point in STORIES:
        return one_story(world, live, point, seed)
    rng = random.Random(seed)
    many = point in MANY_VISITS and rng.random() < 0.5
    group = world.plant(live, *((TRACES_MANY, SPANS_MANY) if many else (TRACES, SPANS)))
    world.plant(live, 2)  # bystanders
    before = set(deletion_ids(world.data))
    live.arm(point, "kill_all", 2 if many else 1)
    with live.client() as client, contextlib.suppress(httpx.TransportError):
        (native_delete if rng.random() < 0.5 else bulk_delete)(client, group)
    wait_dead(live, point)
    live = world.start()
    check_after(world, live, group, sorted(set(deletion_ids(world.data)) - before), hides=point not in NOTHING_HIDDEN)
    return live


def one_writer_death(world: World, live: Live, point: str) -> None:
    """Only the writer dies and another is started: the deletion goes on, or was refused and nothing happened."""
    group = world.plant(live, TRACES, SPANS)
    before = set(deletion_ids(world.data))
    live.arm(point, "kill")
    with live.client() as client:
        answer = bulk_delete(client, group)
    assert live.has_fired(point)
    live.disarm()
    assert answer.is_success or answer.status_code == 503, answer.text
    new = sorted(set(deletion_ids(world.data)) - before)
    check_after(world, live, group, new, hides=answer.is_success)


def check_after(world: World, live: Live, group: Group, new: list[str], *, hides: bool) -> None:
    """Exactly one deletion, ended as it must, with exact counts; reads agree with the model."""
    assert len(new) == 1, new
    found = ended(live, new[0])
    if not hides:
        assert found["state"] == "cancelled"
    else:
        world.took(group)
        assert (found["state"], found["traces"]["hidden"]) == ("verified", len(group.trace_ids))
        for target, rows in (("trace", len(group.trace_ids)), ("span", group.spans)):
            counts = found["counts"][target]
            assert (counts["planned"], counts["purged"], counts["remaining"]) == (rows, rows, 0), target
        check_receipt(live, new[0], len(group.trace_ids))
        world.send_late(live, group)
    world.check(live)


@pytest.mark.parametrize(
    "point",
    [pytest.param(each, marks=[] if each in OF_ANNOTATIONS_SHORT else pytest.mark.long) for each in OF_ANNOTATIONS],
)
def test_a_deletion_of_annotations_survives_a_death(tmp_path: Path, point: str) -> None:
    world = World(tmp_path, random.Random(SEED))
    live = world.start()
    try:
        live = one_story(world, live, point, f"{SEED}/{point}", Feedback(world, live, random.Random(point)))
        assert live.stop() == 0
        world.check_files()
    finally:
        live.end()


def run_rounds(data: Path, counter: Counter, plan: Iterable[tuple[str, str]]) -> None:
    """(point, seed) after (point, seed) on one directory; at the end the files are read."""
    world = World(data, random.Random(SEED))
    live = world.start()
    try:
        for point, seed in plan:
            with counter.run(seed):
                live = one_round(world, live, point, seed)
            if point.startswith("store.") and point not in STORIES:
                with counter.run(f"{seed}/writer"):
                    one_writer_death(world, live, point)
        with counter.run(f"{SEED}/files", runs=0):
            assert live.stop() == 0
            world.check_files()
    finally:
        live.end()


# By default half of the points, each in a chunk with points before and after it; in long runs every point.
@pytest.mark.parametrize(
    "chunk", [0, pytest.param(1, marks=pytest.mark.long), 2, pytest.param(3, marks=pytest.mark.long)]
)
def test_a_deletion_survives_a_death_at_any_point(tmp_path: Path, promise: PromiseFixture, chunk: int) -> None:
    points = POINTS[chunk::CHUNKS]
    run_rounds(tmp_path / "data", promise("P4 P5 P6 P7 P8", "F2"), [(point, f"{SEED}/{point}/0") for point in points])


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
def test_a_deletion_survives_many_deaths_at_a_point(tmp_path: Path, promise: PromiseFixture, point: str) -> None:
    seeds = [f"{SEED}/{point}/{number}" for number in range(1, ROUNDS_LONG)]
    run_rounds(tmp_path / "data", promise("P4 P5 P6 P7 P8", "F2"), [(point, seed) for seed in seeds])
