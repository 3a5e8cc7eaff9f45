"""What becomes of items of datasets, and of results of experiments, when the traces they were made from are deleted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from clearspan import faults
from clearspan.catalog import SourcePolicy
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.holds import HoldRequest, Holds
from clearspan.deletion.job import DeletionQuery
from clearspan.deletion.preview import parse_kept, render_kept
from clearspan.deletion.projects import ProjectRemoval, RemovalRequest, is_removal
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.request import ByIds
from clearspan.deletion.result import render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.trace import Scope, Window
from clearspan.testing.datasets import APP, WORD, open_dataset_world
from clearspan.testing.datasets import DatasetWorld as Bench

A, B = "a" * 32, "b" * 32
NEEDLE = WORD


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with open_dataset_world(request.param, tmp_path / "data") as made:
        yield made


@pytest.mark.parametrize(
    ("policy", "counts", "told"),
    [  # counts: matched, copies, detached, redacted
        (SourcePolicy.ERASE, (4, 3, 0, 0), ["trace_ids:in:1", "copies:taken:3"]),
        (SourcePolicy.REDACT, (4, 3, 0, 1), ["trace_ids:in:1", "copies:taken:3", "copies:redacted:1"]),
        (SourcePolicy.DETACH, (1, 0, 2, 0), ["trace_ids:in:1", "copies:detached:2"]),
    ],
)
def test_a_dataset_says_what_becomes_of_its_items(
    bench: Bench, policy: SourcePolicy, counts: tuple[int, ...], told: list[str]
) -> None:
    """Of the item both versions, and the result of an experiment; another item, and another's result, stay."""
    bench.trace(A)
    dataset = bench.dataset("golden", policy)
    item, other = bench.add(dataset, A, versions=2), bench.add(dataset, B, said="else")
    runs = bench.experiment(dataset)
    bench.trace("1" * 32, runs, _reference_example_id=str(UUID(item)))
    bench.trace("2" * 32, runs, _reference_example_id=str(UUID(other)))
    deleter = bench.start()
    plan = deleter.preview(bench.request(A)).plan
    assert (plan.matched, len(plan.copies), plan.copies_detached, len({v.item_id for v in plan.redacted})) == counts
    assert parse_kept(render_kept(plan, 5)).plan.redacted == plan.redacted
    before_ns = bench.clock.now_ns()
    bench.clock.advance(60)
    result = bench.delete(A)
    assert (result.matched, result.copies, result.copies_detached, result.items_redacted) == counts
    assert (result.state, result.hidden, result.copies_not_covered) == (DeletionState.VERIFIED, counts[0], 0)
    assert bench.conditions(result.deletion_id) == told
    expected = {SourcePolicy.ERASE: {}, SourcePolicy.REDACT: {item: True}, SourcePolicy.DETACH: {item: False}}[policy]
    assert bench.left(dataset) == {other: False, **expected}
    assert bench.stores.reader.count_traces(Scope((runs,)), None, Window()) == (1 if counts[1] else 2)
    assert (NEEDLE.encode() in bench.bytes_left()) is (policy is SourcePolicy.DETACH and bool(bench.bytes_left()))
    assert ("stay, as their datasets are set to" in render_message(result)) is (policy is SourcePolicy.DETACH)
    if policy is SourcePolicy.DETACH:
        times = (before_ns, bench.clock.now_ns() + 10**9)
        shown = [each for at in times for each in bench.items.list(dataset, ids=[item], as_of_ns=at).items]
        assert [(each.source_run_id, each.metadata) for each in shown] == [(None, {"k": WORD})] * 2
        assert A.encode() not in bench.bytes_left()
        assert [each.source_run_id for each in bench.items.list(dataset, ids=[other]).items] == [B]
    if policy is SourcePolicy.REDACT:
        [empty] = bench.items.list(dataset, ids=[item]).items
        assert (empty.inputs, empty.outputs, empty.metadata, empty.source_run_id) == ({}, None, {}, None)
        assert bench.items.list(dataset, ids=[item], as_of_ns=before_ns).items == []
        again = bench.delete(A)
        assert (again.matched, bench.left(dataset)[item]) == (0, True)


@pytest.mark.parametrize("point", ["deletion.after_detach", "deletion.before_batch", "deletion.after_batch"])
def test_no_item_keeps_the_id_of_what_is_gone_wherever_the_process_dies(bench: Bench, point: str) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.DETACH)
    item = bench.add(dataset, A, versions=2)
    result = bench.start().delete(bench.request(A), wait_s=0, wait_for="hidden")
    assert [each.source_run_id for each in bench.items.list(dataset).items] == [A], "it can be cancelled yet"
    late = bench.add(dataset, A)
    assert bench.deleter is not None
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        bench.deleter.run_due()
    deleter = bench.start()
    deleter.run_due()
    job = deleter.status(result.deletion_id).job
    assert (job.state, result.copies_detached, job.follow_up_id is not None) == (DeletionState.VERIFIED, 2, True)
    found = bench.items.list(dataset).items
    assert [(each.id, each.source_run_id) for each in found] == [(each, None) for each in sorted([item, late])]


def test_an_item_that_a_hold_keeps_stays_as_it_is(bench: Bench) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.DETACH)
    item = bench.add(dataset, A)
    deleter = bench.start()
    holds = Holds(
        bench.stores.deletions, CatalogRecords(bench.catalog, bench.clock, bench.ids), deleter, bench.clock, bench.ids
    )
    holds.create(HoldRequest(1, "key_2", Scope((dataset.project_id,)), ByIds((item,)), Window(), "a lawsuit"))
    assert bench.delete(A).state is DeletionState.VERIFIED
    assert [each.source_run_id for each in bench.items.list(dataset).items] == [A]


@pytest.mark.parametrize("seed", range(8))
def test_in_every_graph_exactly_the_copies_go(bench: Bench, seed: int) -> None:
    """Items of several sources and datasets, items made from results, against a plain walk."""
    rng = random.Random(seed)
    sources = [f"{n:032x}" for n in range(1, 7)]
    for each in sources:
        bench.trace(each)
    datasets = {each: bench.dataset(f"d{n}", each) for n, each in enumerate(rng.choices(list(SourcePolicy), k=1))}
    datasets |= {each: bench.dataset(each.value, each) for each in SourcePolicy}
    made: dict[str, tuple[Dataset, str | None, int]] = {}
    results: dict[str, str] = {}
    for n in range(12):
        dataset = rng.choice(list(datasets.values()))
        source = rng.choice([*sources, *results, None])
        versions = rng.randint(1, 3)
        item = bench.add(dataset, source, versions=versions)
        made[item] = (dataset, source, versions)
        if rng.random() < 0.5:
            results[f"{n + 100:032x}"] = item
            bench.trace(f"{n + 100:032x}", APP, _reference_example_id=str(UUID(item)))
    chosen = rng.sample(sources, 2)
    gone, items_gone, kept = set(chosen), set[str](), set[str]()
    for _ in range(len(made)):
        for item, (dataset, source, _n) in made.items():
            if source in gone:
                (kept if dataset.on_source_deleted is SourcePolicy.DETACH else items_gone).add(item)
        gone |= {result for result, item in results.items() if item in items_gone}
    redacted = {item for item in items_gone if made[item][0].on_source_deleted is SourcePolicy.REDACT}
    matched = len(gone) + sum(made[item][2] for item in items_gone)
    told = bench.start().preview(bench.request(*chosen))
    assert (told.plan.matched, sum(told.by_project.values())) == (matched, matched)
    result = bench.delete(*chosen)
    assert (result.state, result.hidden) == (DeletionState.VERIFIED, matched)
    assert (result.copies_detached, result.items_redacted) == (sum(made[item][2] for item in kept), len(redacted))
    for dataset in bench.catalog.datasets.listed(1):
        mine = {item for item, (where, _, _) in made.items() if where.uuid == dataset.uuid}
        assert bench.left(dataset) == {item: item in redacted for item in mine - (items_gone - redacted)}


def test_a_key_that_reaches_no_datasets_counts_their_items(bench: Bench) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.DETACH)
    item = bench.add(dataset, A)
    result = bench.delete(A, reach=Scope((APP,)))
    assert (result.matched, result.copies_not_covered, result.copies_detached) == (1, 1, 0)
    assert bench.left(dataset) == {item: False}


def test_the_word_means_something_in_datasets_only(bench: Bench) -> None:
    bench.trace(A)
    bench.trace(B, source_run_id=A)
    assert bench.delete(A).matched == 1


POINTS = [
    "deletion.after_hide", "deletion.after_batch", "deletion.before_placeholders", "deletion.after_placeholders",
    "deletion.before_settle", "deletion.after_settle", "deletion.before_verify",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_empty_items_are_written_once_wherever_the_process_dies(bench: Bench, point: str) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.REDACT)
    items = [bench.add(dataset, A, versions=n) for n in (1, 2)]
    bench.start()
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        bench.delete(A)
    assert set(bench.left(dataset)) <= set(items)
    bench.start().run_due()
    [job] = bench.deleter.list_deletions(DeletionQuery(1, (APP, dataset.project_id))).jobs  # type: ignore[union-attr]
    assert (job.state, job.hidden) == (DeletionState.VERIFIED, 4)
    assert bench.left(dataset) == dict.fromkeys(items, True)
    assert bench.stores.reader.count_traces(Scope((dataset.project_id,)), None, Window()) == 2


def test_a_deletion_that_owes_empty_items_waits_for_who_writes_them(bench: Bench) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.REDACT)
    item = bench.add(dataset, A)
    bench.start(redacts=False)
    result = bench.delete(A, idempotency_key="k")
    assert result.state is DeletionState.HIDDEN
    assert bench.left(dataset) == {}
    bench.start().run_due()
    assert bench.delete(A, idempotency_key="k").state is DeletionState.VERIFIED
    assert bench.left(dataset) == {item: True}


def test_of_a_cancelled_deletion_no_empty_item_is_written(bench: Bench) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.REDACT)
    item = bench.add(dataset, A)
    result = bench.delete(A, not_before_ns=bench.clock.now_ns() + 10**12)
    assert bench.left(dataset) == {}
    assert bench.deleter is not None
    bench.deleter.cancel(result.deletion_id, by="key_1")
    bench.deleter.run_due()
    assert bench.left(dataset) == {item: False}
    assert bench.stores.reader.count_traces(Scope((dataset.project_id,)), None, Window()) == 1


def test_an_item_that_a_hold_keeps_is_replaced_when_it_goes(bench: Bench) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.REDACT)
    item = bench.add(dataset, A)
    deleter = bench.start()
    holds = Holds(bench.stores.deletions, CatalogRecords(bench.catalog, bench.clock, bench.ids), deleter,
                  bench.clock, bench.ids)  # fmt: skip
    hold, _ = holds.create(HoldRequest(1, "key_2", Scope((dataset.project_id,)), ByIds((item,)), reason="law"))
    result = bench.delete(A)
    assert (result.hidden, result.held, bench.left(dataset)) == (1, 1, {item: False})
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert bench.left(dataset) == {item: True}


@pytest.mark.parametrize("dialect", ["respan", "langsmith", "phoenix", "native"])
def test_a_dataset_is_removed_like_a_project(bench: Bench, dialect: str) -> None:
    """With the results of experiments, which hold its items; the experiment itself stays, with what else it has."""
    dataset = bench.dataset("golden", SourcePolicy.ERASE)
    item, runs = bench.add(dataset, None, versions=3), bench.experiment(dataset)
    bench.trace("1" * 32, runs, _reference_example_id=str(UUID(item)))
    bench.trace("2" * 32, runs)
    deleter = bench.start()
    removal = ProjectRemoval(bench.catalog, deleter, bench.stores.reader, bench.stores.annotating, bench.clock)
    project = bench.catalog.find_project_number(1, dataset.project_id)
    assert project is not None
    asked = RemovalRequest(1, "key_1", dialect, reach=bench.request(A).reach)
    result = removal.remove(project, asked, wait_s=0)
    assert (result.state, result.matched, result.copies) == (DeletionState.HIDDEN, 4, 1)
    deleter.run_due()
    removal.sweep()
    job = deleter.status(result.deletion_id).job
    assert (job.state, is_removal(dialect, job.shape)) == (DeletionState.VERIFIED, True)
    assert bench.catalog.find_project_number(1, dataset.project_id) is None
    assert bench.catalog.datasets.find(1, dataset.uuid) is None
    assert bench.catalog.datasets.of_projects([dataset.project_id]) == {}
    assert bench.stores.reader.count_traces(Scope((runs, dataset.project_id)), None, Window()) == 1
    assert NEEDLE.encode() not in bench.bytes_left()


def test_no_empty_item_is_written_to_a_dataset_that_leaves(bench: Bench) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.REDACT)
    bench.add(dataset, A)
    bench.start()
    with faults.armed("deletion.before_placeholders:1:crash"), pytest.raises(faults.Crash):
        bench.delete(A)
    deleter = bench.start()
    bench.catalog.project_leaves(dataset.project_id, "del_x")
    deleter.run_due()
    assert bench.stores.reader.count_traces(Scope((dataset.project_id,)), None, Window()) == 0
