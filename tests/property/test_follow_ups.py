"""Copies that are made while a deletion is under way: no word of a deleted trace stays that nobody tells of."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from clearspan import faults
from clearspan.catalog import SourcePolicy
from clearspan.catalog.datasets import Dataset
from clearspan.deletion import redaction
from clearspan.deletion.follow_up import FollowUps, follow_up_id_of
from clearspan.deletion.holds import HoldRequest, Holds
from clearspan.deletion.job import DeletionJob, DeletionQuery
from clearspan.deletion.linked import copies_detached, copies_not_covered, copies_redacted, copies_taken
from clearspan.deletion.projects import ProjectRemoval, RemovalRequest
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.request import ByIds
from clearspan.deletion.result import DeletionResult, render_message, result_of
from clearspan.deletion.state import DeletionState
from clearspan.experiments import item_documents
from clearspan.model.errors import Conflict, Overloaded
from clearspan.model.trace import Scope, Window
from clearspan.store.port import HideOutcome
from clearspan.testing.datasets import APP, WORD, DatasetWorld, open_dataset_world

A, B = "a" * 32, "b" * 32
WHO = {"org_id": 1, "requested_by": "key_1"}


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatasetWorld]:
    with open_dataset_world(request.param, tmp_path / "data") as made:
        yield made


def before_hide(bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]) -> None:
    """Do one thing before each of the next hides."""
    hide, left = bench.stores.deletions.hide, list(acts)

    def act_first(*args: Any, **rest: Any) -> HideOutcome:
        if left:
            left.pop(0)()
        return hide(*args, **rest)

    monkeypatch.setattr(bench.stores.deletions, "hide", act_first)


def judge(bench: DatasetWorld, trace_id: str, of: str, project_id: int = APP) -> None:
    bench.trace(trace_id, project_id, target_run_id=str(UUID(of)), said=WORD)


def hidden_only(bench: DatasetWorld, *trace_ids: str, **more: Any) -> DeletionResult:
    deleter = bench.deleter or bench.start()
    return deleter.delete(bench.request(*trace_ids, **more), wait_s=0, wait_for="hidden")


def finish(bench: DatasetWorld, result: DeletionResult) -> tuple[DeletionJob, DeletionJob | None]:
    """The deletion at its end, and its follow-up."""
    assert bench.deleter is not None
    bench.deleter.run_due()
    job = bench.deleter.status(result.deletion_id).job
    assert job.state is DeletionState.VERIFIED, job.problem
    return job, None if job.follow_up_id is None else bench.deleter.status(job.follow_up_id).job


def everywhere(bench: DatasetWorld) -> Scope:
    reach = bench.request(A).reach
    assert reach is not None
    return reach


def count(bench: DatasetWorld) -> int:
    return bench.stores.reader.count_traces(everywhere(bench), None, Window())


# -- direct deletions -------------------------------------------------------------------------------------------------


def test_a_copy_made_before_the_hide_goes_by_a_deletion_of_its_own(
    bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.trace(A, said=WORD)
    before_hide(bench, monkeypatch, lambda: judge(bench, B, A))
    result = bench.delete(A, reason="anna asked")
    assert (result.state, result.matched, result.copies) == (DeletionState.VERIFIED, 1, 0)
    assert result.follow_up_id == follow_up_id_of(result.deletion_id, 0)
    assert result.follow_up_id in render_message(result)
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.state, follow_up.hidden, copies_taken(follow_up.shape)) == (DeletionState.VERIFIED, 1, 1)
    assert (follow_up.requested_by, follow_up.dialect, follow_up.parent_id) == ("key_1", "native", None)
    assert bench.conditions(result.deletion_id)[-1] == f"copies:follow_up:{result.follow_up_id}"
    assert bench.conditions(result.follow_up_id)[-1] == f"copies:made_since:{result.deletion_id}"
    assert count(bench) == 0
    assert WORD.encode() not in bench.bytes_left()


def test_copies_of_copies_are_followed_to_the_end(bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in the last moment: while the deletion before is being hidden."""
    bench.trace(A, said=WORD)
    ids = [f"{n:032x}" for n in range(1, 4)]
    chain = [lambda own=own, of=of: judge(bench, own, of) for own, of in zip(ids, [A, *ids], strict=False)]
    before_hide(bench, monkeypatch, *chain)
    _, follow_up = finish(bench, bench.delete(A))
    for _ in ids:
        assert follow_up is not None
        assert follow_up.state is DeletionState.VERIFIED
        _, follow_up = finish(bench, result_of(follow_up))
    assert (follow_up, count(bench)) == (None, 0)
    assert WORD.encode() not in bench.bytes_left()


@pytest.mark.parametrize(
    ("policy", "taken", "told"),
    [
        (SourcePolicy.ERASE, 1, {}),
        (SourcePolicy.REDACT, 1, {"redacted": 1}),
        (SourcePolicy.DETACH, 0, {"detached": 1}),
    ],
)
def test_the_policy_of_the_dataset_counts_for_an_item_made_after_the_hide(
    bench: DatasetWorld, policy: SourcePolicy, taken: int, told: dict[str, int]
) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", policy)
    known = bench.add(dataset, A)
    result = hidden_only(bench, A)
    item = bench.add(dataset, A)
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.state, follow_up.matched, follow_up.hidden) == (DeletionState.VERIFIED, taken, taken)
    assert copies_redacted(follow_up.shape) == told.get("redacted", 0)
    assert copies_detached(follow_up.shape) == told.get("detached", 0), (
        "the one that the plan told of is not told again"
    )
    kept = {SourcePolicy.ERASE: {}, SourcePolicy.REDACT: {known: True, item: True}}
    assert bench.left(dataset) == kept.get(policy, {known: False, item: False})


def test_what_the_key_does_not_reach_is_counted(bench: DatasetWorld) -> None:
    other = bench.catalog.create_project(1, "other").id
    bench.trace(A)
    judge(bench, "1" * 32, A, other)
    result = hidden_only(bench, A, reach=Scope((APP,)))
    assert result.copies_not_covered == 1
    judge(bench, "2" * 32, A, other)
    later = bench.catalog.create_project(1, "later").id
    judge(bench, "3" * 32, A, later)
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.matched, copies_not_covered(follow_up.shape), follow_up.project_ids) == (0, 2, (APP,))
    assert follow_up.state is DeletionState.VERIFIED
    assert count(bench) == 3


def test_copies_that_are_to_stay_stay_and_are_counted(bench: DatasetWorld) -> None:
    bench.trace(A)
    judge(bench, "1" * 32, A)
    result = hidden_only(bench, A, leave_copies=True)
    judge(bench, "2" * 32, A)
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.matched, copies_not_covered(follow_up.shape), count(bench)) == (0, 1, 2)


def test_a_hold_keeps_a_copy_made_meanwhile_and_lets_it_go(bench: DatasetWorld) -> None:
    bench.trace(A)
    result = hidden_only(bench, A)
    judge(bench, B, A)
    holds = holds_of(bench)
    hold, _ = holds.create(HoldRequest(1, "key_2", everywhere(bench), ByIds((B,))))
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.hidden, follow_up.held, count(bench)) == (0, 1, 1)
    holds.release(hold.hold_id, org_id=1, by="key_2")
    finish(bench, result)
    assert count(bench) == 0


def test_a_held_remainder_looks_for_copies_when_it_goes(bench: DatasetWorld) -> None:
    """And does not take for new what the same hold kept of the first plan, nor an empty item."""
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.REDACT)
    item = bench.add(dataset, A, versions=2)
    bench.start()
    holds = holds_of(bench)
    hold, _ = holds.create(HoldRequest(1, "key_2", everywhere(bench), ByIds((A, item))))
    result = hidden_only(bench, A)
    assert (result.hidden, result.held) == (1, 2)
    job, follow_up = finish(bench, result)
    assert (follow_up, bench.left(dataset)) == (None, {item: True})
    judge(bench, B, A)
    holds.release(hold.hold_id, org_id=1, by="key_2")
    bench.deleter.run_due()  # type: ignore[union-attr]
    assert job.child_id is not None
    child, follow_up = finish(bench, result_of(bench.deleter.status(job.child_id).job))  # type: ignore[union-attr]
    assert follow_up is not None
    assert (child.hidden, follow_up.hidden, follow_up.state) == (2, 1, DeletionState.VERIFIED)
    assert (bench.left(dataset), count(bench)) == ({item: True}, 1)


def test_the_word_for_an_empty_item_is_that_of_the_items() -> None:
    assert redaction.PLACEHOLDER_KEY == item_documents.REDACTED_KEY


def test_a_deletion_that_waits_for_its_time_looks_then(bench: DatasetWorld) -> None:
    bench.trace(A)
    result = hidden_only(bench, A, not_before_ns=bench.clock.now_ns() + 10**12)
    assert bench.deleter is not None
    bench.deleter.run_due()
    judge(bench, B, A)
    bench.clock.advance(2000)
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.hidden, count(bench)) == (1, 0)


def test_a_removed_dataset_takes_results_written_meanwhile(
    bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = bench.dataset("golden", SourcePolicy.ERASE)
    item, runs = bench.add(dataset, None), bench.experiment(dataset)
    deleter = bench.start()
    removal = ProjectRemoval(bench.catalog, deleter, bench.stores.reader, bench.stores.annotating, bench.clock)
    project = bench.catalog.find_project_number(1, dataset.project_id)
    assert project is not None
    before_hide(bench, monkeypatch, lambda: bench.trace(B, runs, _reference_example_id=str(UUID(item)), said=WORD))
    result = removal.remove(project, RemovalRequest(1, "key_1", "native", reach=everywhere(bench)), wait_s=0)
    _, follow_up = finish(bench, result)
    removal.sweep()
    assert follow_up is not None
    assert (follow_up.hidden, count(bench)) == (1, 0)
    assert bench.catalog.datasets.find(1, dataset.uuid) is None
    assert WORD.encode() not in bench.bytes_left()


def test_where_nothing_was_copied_there_is_no_follow_up(bench: DatasetWorld) -> None:
    bench.trace(A)
    judge(bench, B, A)
    result = bench.delete(A)
    job, follow_up = finish(bench, result)
    assert (copies_taken(job.shape), follow_up) == (1, None)
    listed = bench.deleter.list_deletions(DeletionQuery(1, everywhere(bench).project_ids))  # type: ignore[union-attr]
    assert [each.deletion_id for each in listed.jobs] == [job.deletion_id]


# -- plan tokens ------------------------------------------------------------------------------------------------------


def test_a_token_is_refused_once_there_are_copies_that_its_plan_does_not_list(bench: DatasetWorld) -> None:
    bench.trace(A)
    judge(bench, "1" * 32, A)
    dataset = bench.dataset("kept", SourcePolicy.DETACH)
    bench.add(dataset, A)
    deleter = bench.start()
    told = deleter.preview(bench.request(A))
    judge(bench, B, "1" * 32)
    with pytest.raises(Conflict, match=r"Copies .* preview") as refused:
        deleter.delete_planned(told.token, **WHO)  # type: ignore[arg-type]
    assert (refused.value.code, count(bench)) == ("plan_mismatch", 4)
    told = deleter.preview(bench.request(A))
    result = deleter.delete_planned(told.token, **WHO)  # type: ignore[arg-type]
    assert (result.hidden, result.copies, result.copies_detached) == (3, 2, 1)
    assert finish(bench, result)[1] is None


@pytest.mark.parametrize("policy", list(SourcePolicy))
def test_a_token_is_refused_for_an_item_that_was_made_since(bench: DatasetWorld, policy: SourcePolicy) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", policy)
    bench.add(dataset, A)
    deleter = bench.start()
    told = deleter.preview(bench.request(A))
    bench.add(dataset, A)
    with pytest.raises(Conflict, match="Copies"):
        deleter.delete_planned(told.token, **WHO)  # type: ignore[arg-type]
    assert count(bench) == 3


def test_a_copy_made_while_a_token_is_used_goes_by_a_follow_up(
    bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.trace(A)
    deleter = bench.start()
    told = deleter.preview(bench.request(A))
    before_hide(bench, monkeypatch, lambda: judge(bench, B, A))
    _, follow_up = finish(bench, deleter.delete_planned(told.token, **WHO))  # type: ignore[arg-type]
    assert follow_up is not None
    assert (follow_up.hidden, count(bench)) == (1, 0)


# -- crashes and failures ---------------------------------------------------------------------------------------------

POINTS = [
    ("deletion.before_follow_up", 1), ("deletion.before_hide", 1), ("deletion.after_hide", 1),
    ("deletion.after_hidden_recorded", 1), ("deletion.after_follow_up", 1), ("deletion.before_batch", 1),
    ("deletion.after_batch", 1), ("deletion.before_settle", 1), ("deletion.after_purged_recorded", 1),
]  # fmt: skip


@pytest.mark.parametrize(("point", "visit"), POINTS)
def test_there_is_one_follow_up_wherever_the_process_dies(bench: DatasetWorld, point: str, visit: int) -> None:
    bench.trace(A)
    dataset = bench.dataset("golden", SourcePolicy.DETACH)
    result = hidden_only(bench, A)
    judge(bench, B, A)
    bench.add(dataset, A)
    assert bench.deleter is not None
    with faults.armed(f"{point}:{visit}:crash"), pytest.raises(faults.Crash):
        bench.deleter.run_due()
    bench.start()
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.state, follow_up.hidden, copies_detached(follow_up.shape)) == (DeletionState.VERIFIED, 1, 1)
    assert count(bench) == 1
    scope = DeletionQuery(1, everywhere(bench).project_ids)
    jobs = [each for each in bench.deleter.list_deletions(scope).jobs if each.hidden is not None]
    assert {each.deletion_id for each in jobs} == {result.deletion_id, follow_up.deletion_id}


def test_nothing_is_purged_while_the_follow_up_cannot_be_hidden(
    bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.trace(A)
    result = hidden_only(bench, A)
    judge(bench, B, A)

    def refuse(*_: object, **__: object) -> HideOutcome:
        raise Overloaded("full")

    assert bench.deleter is not None
    with monkeypatch.context() as patched:
        patched.setattr(bench.stores.deletions, "hide", refuse)
        bench.deleter.run_due()
    progress = bench.stores.deletions.progress(result.deletion_id)
    assert progress is not None
    assert (progress.batches, count(bench)) == (0, 1)
    bench.clock.advance(1)
    _, follow_up = finish(bench, result)
    assert follow_up is not None
    assert (follow_up.deletion_id, follow_up.hidden) == (follow_up_id_of(result.deletion_id, 1), 1)


# -- everything at once -----------------------------------------------------------------------------------------------


def holds_of(bench: DatasetWorld) -> Holds:
    deleter = bench.deleter or bench.start()
    records = CatalogRecords(bench.catalog, bench.clock, bench.ids)
    return Holds(bench.stores.deletions, records, deleter, bench.clock, bench.ids)


@dataclass
class Node:
    """A trace, or an item with its versions."""

    of: str | None
    kind: str  # source, judge, item, result
    project: int
    versions: int = 1
    dataset: Dataset | None = None


@dataclass
class Graph:
    """What a test wrote, and what must become of it."""

    bench: DatasetWorld
    rng: random.Random
    other: int
    runs: int
    datasets: list[Dataset]
    nodes: dict[str, Node] = field(default_factory=dict)

    def grow(self, most: int) -> None:
        """Up to so many copies of anything there is."""
        for _ in range(self.rng.randint(0, most)):
            of = self.rng.choice(list(self.nodes))
            own = f"{1000 + len(self.nodes):032x}"
            if self.nodes[of].kind == "item":
                self.nodes[own] = Node(of, "result", self.rng.choice([self.runs, self.other]))
                self.bench.trace(own, self.nodes[own].project, _reference_example_id=str(UUID(of)), said=WORD)
            elif self.rng.random() < 0.5:
                self.nodes[own] = Node(of, "judge", self.rng.choice([APP, self.runs, self.other]))
                judge(self.bench, own, of, self.nodes[own].project)
            else:
                dataset, versions = self.rng.choice(self.datasets), self.rng.randint(1, 2)
                item = self.bench.add(dataset, of, versions=versions)
                self.nodes[item] = Node(of, "item", dataset.project_id, versions, dataset)

    def fate(self, chosen: set[str], *, leave_copies: bool) -> tuple[set[str], set[str], set[str]]:
        """Which nodes go, which are beyond reach, and which their datasets keep."""
        gone, beyond, kept = set(chosen), set[str](), set[str]()
        for own, node in self.nodes.items():  # a copy comes after what it copies
            if node.of not in gone:
                continue
            detaches = node.dataset is not None and node.dataset.on_source_deleted is SourcePolicy.DETACH
            if leave_copies or node.project == self.other:
                if node.of in chosen or not leave_copies:
                    beyond.add(own)
            else:
                (kept if detaches else gone).add(own)
        return gone, beyond, kept

    def versions(self, names: set[str]) -> int:
        return sum(self.nodes[each].versions for each in names)


CRASHES = [
    "deletion.before_follow_up", "deletion.after_follow_up", "deletion.after_hide", "deletion.after_batch",
    "deletion.before_child", "deletion.before_placeholders", "deletion.before_settle", "deletion.before_verify",
]  # fmt: skip


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(n, marks=pytest.mark.long) for n in range(8, 120))])
def test_in_every_interleaving_each_copy_goes_or_is_told_of(
    bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Copies before the plan, between plan and hide, between hide and purge; with holds, crashes and plan tokens."""
    rng = random.Random(seed)
    datasets = [bench.dataset(policy.value, policy) for policy in SourcePolicy]
    other = bench.catalog.create_project(1, "other").id
    graph = Graph(bench, rng, other, bench.experiment(datasets[0]), datasets)
    for n in range(1, 4):
        bench.trace(f"{n:032x}", said=WORD)
        graph.nodes[f"{n:032x}"] = Node(None, "source", APP)
    graph.grow(6)
    deleter = bench.start()
    chosen = set(rng.sample([f"{n:032x}" for n in range(1, 4)], rng.randint(1, 2)))
    held = tuple(rng.sample(list(graph.nodes), 2)) if rng.random() < 0.5 else ()
    hold = holds_of(bench).create(HoldRequest(1, "key_2", everywhere(bench), ByIds(held)))[0] if held else None
    reach = replace_projects(everywhere(bench), without=other)
    asked = bench.request(*sorted(chosen), reach=reach, leave_copies=rng.random() < 0.2)
    before_hide(bench, monkeypatch, lambda: graph.grow(3))
    if rng.random() < 0.3:
        token = deleter.preview(asked).token
        deleter.delete_planned(token, wait_s=0, wait_for="hidden", **WHO)  # type: ignore[arg-type]
    else:
        deleter.delete(asked, wait_s=0, wait_for="hidden")
    graph.grow(4)
    crash = rng.choice(CRASHES)
    try:
        with faults.armed(f"{crash}:1:crash"):
            deleter.run_due()
    except faults.Crash:
        deleter = bench.start()
    deleter.run_due()
    if hold is not None:
        holds_of(bench).release(hold.hold_id, org_id=1, by="key_2")
        deleter.run_due()
    check_fate(graph, chosen, leave_copies=asked.leave_copies)


def replace_projects(scope: Scope, *, without: int) -> Scope:
    return scope._replace(project_ids=tuple([each for each in scope.project_ids if each != without]))


def check_fate(graph: Graph, chosen: set[str], *, leave_copies: bool) -> None:
    """Reads show what must be there, and the deletions told exactly of what stays."""
    bench = graph.bench
    assert bench.deleter is not None
    gone, beyond, kept = graph.fate(chosen, leave_copies=leave_copies)
    jobs = bench.deleter.list_deletions(DeletionQuery(1, everywhere(bench).project_ids)).jobs
    assert {each.state for each in jobs if each.hidden is not None} == {DeletionState.VERIFIED}
    empty = {each for each in gone if (it := graph.nodes[each].dataset) and it.on_source_deleted is SourcePolicy.REDACT}
    assert sum(each.hidden or 0 for each in jobs) == graph.versions(gone)
    for dataset in graph.datasets:
        mine = {own for own, node in graph.nodes.items() if node.dataset == dataset}
        assert bench.left(dataset) == {item: item in empty for item in mine - (gone - empty)}
    assert count(bench) == graph.versions(set(graph.nodes) - gone) + len(empty)
    told = [each for each in jobs if each.parent_id is None]
    assert sum(copies_not_covered(each.shape) for each in told) == graph.versions(beyond)
    assert sum(copies_detached(each.shape) for each in told) == graph.versions(kept)
    if set(graph.nodes) == gone:
        assert WORD.encode() not in bench.bytes_left()


def test_beside_a_busy_evaluator_every_copy_of_before_the_search_goes(
    bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In threads: it judges on and on, and the deletion runs to its end beside it."""
    bench.trace(A, said=WORD)
    written: list[str] = []
    before: list[int] = []
    search = FollowUps._search

    def note_and_search(self: FollowUps, job: DeletionJob, *args: Any) -> Any:
        before.append(len(written))
        return search(self, job, *args)

    monkeypatch.setattr(FollowUps, "_search", note_and_search)
    stop = threading.Event()

    def evaluate() -> None:
        while not stop.is_set() and len(written) < 2000:
            own = f"{len(written) + 1:032x}"
            judge(bench, own, A)
            written.append(own)

    evaluator = threading.Thread(target=evaluate)
    deleter = bench.start()
    deleter.start()
    try:
        evaluator.start()
        while len(written) < 5:
            time.sleep(0.001)
        result = deleter.delete(bench.request(A), wait_s=20)
        assert result.state is DeletionState.VERIFIED
        stop.set()
        evaluator.join()
        ends = [result.deletion_id]
        give_up_at = time.monotonic() + 30
        while (job := deleter.status(ends[-1]).job).follow_up_id is not None or job.state is not DeletionState.VERIFIED:
            assert time.monotonic() < give_up_at, job.problem
            time.sleep(0.005)
            if job.follow_up_id is not None:
                ends.append(job.follow_up_id)
    finally:
        stop.set()
        deleter.close()
    seen = bench.stores.deletions.plan(Scope((APP,)), None, Window(), received_before_ns=2**63 - 1, limit=9999)
    left = {trace.trace_id for trace in seen}
    assert not left & set(written[: before[0]])
    assert sum(deleter.status(each).job.hidden or 0 for each in ends) == 1 + len(written) - count(bench)
