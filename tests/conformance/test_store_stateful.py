"""Random histories: any store does what the in-memory store does, step for step.

For the in-memory store itself this shows only that equal histories give equal states; it is the model of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from clearspan.model.errors import Conflict
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.memory import MemoryStore
from clearspan.store.port import DeletionProgress, DeletionStore, HideOutcome, HoldRow, child_id_of
from clearspan.testing import strategies as make
from clearspan.testing.build import T0_NS
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores, visible

SHORT_RUN = {"max_examples": 12, "stateful_step_count": 20}
LONG_RUN = {"max_examples": 400, "stateful_step_count": 50}
COMPARED = ("trace", "span", "log", "context", "metadata", "block")


class SameHistory(RuleBasedStateMachine):
    """Every step is done to both stores; every answer must be the same."""

    make_subject: Callable[[], Stores]

    def __init__(self) -> None:
        super().__init__()
        self.subject = type(self).make_subject()
        self.model = MemoryStore(TOMBSTONE_SECRET)
        self.deletion_ids: list[str] = []
        self.asked: dict[str, tuple[Scope, Expr | None, Window]] = {}
        self.hold_ids: list[str] = []
        self.previews: list[bytes] = []
        self.received_ns = T0_NS

    @rule(batches=st.lists(make.batches(), min_size=1, max_size=4))
    def write(self, batches: list[TraceBatch]) -> None:
        self.received_ns += 1
        expected = self.model.write(batches, received_ns=self.received_ns)
        assert self.subject.writer.write(batches, received_ns=self.received_ns) == expected

    @rule(
        scope=make.scopes(),
        where=st.none() | make.filters(),
        window=make.windows(),
        sort=make.sorts(),
        page=st.builds(OffsetPage, st.integers(1, 3), st.sampled_from((1, 2, 1000))),
    )
    def read(self, scope: Scope, where: Expr | None, window: Window, sort: SortKey, page: OffsetPage) -> None:
        expected = self.model.list_traces(scope, where, window, sort, page)
        found = self.subject.reader.list_traces(scope, where, window, sort, page)
        ids = [[(row.project_id, row.summary.trace_id) for row in each.rows] for each in (expected, found)]
        assert ids[0] == ids[1]
        assert found.total == expected.total == self.subject.reader.count_traces(scope, where, window)
        assert self.subject.reader.sum_traces(scope, where, window) == self.model.sum_traces(scope, where, window)

    @rule(scope=make.scopes(), where=st.none() | make.filters(), window=make.windows())
    def delete_by_filter(self, scope: Scope, where: Expr | None, window: Window) -> None:
        ask = {"received_before_ns": self.received_ns + 1, "limit": 1000}
        plans = [each.plan(scope, where, window, **ask) for each in (self.model, self.subject.deletions)]
        self._hide(scope, where, window, plans)

    @rule(scope=make.scopes(), ids=st.lists(st.sampled_from(make.TRACE_IDS), max_size=3), window=make.windows())
    def delete_by_ids(self, scope: Scope, ids: list[str], window: Window) -> None:
        plans = [each.plan_ids(scope, ids, window) for each in (self.model, self.subject.deletions)]
        self._hide(scope, None, window, plans)

    @rule(which=st.integers(0, 5), rows_max=st.sampled_from((1, 5, 1000)))
    def purge(self, which: int, rows_max: int) -> None:
        """All batches of one deletion, which each store cuts in its own way, and its settling."""
        deletion_id = self._deletion(which)
        if deletion_id is None:
            return
        for store in self._both():
            progress = store.progress(deletion_id)
            assert progress is not None
            if progress.cancelled or progress.is_waiting:
                return
            batch_no, more = progress.batches, progress.more
            while more:
                _, more = store.purge_batch(deletion_id, batch_no, rows_max=rows_max)
                batch_no += 1
            store.settle(deletion_id, rows_max=rows_max)
        mine, theirs = self._progress(deletion_id)
        assert {n: Counter(mine.purged)[n] for n in COMPARED} == {n: Counter(theirs.purged)[n] for n in COMPARED}
        assert not any(self.subject.deletions.remaining(deletion_id).values())

    @rule(
        scope=make.scopes(),
        where=st.none() | make.filters(),
        ids=st.none() | st.lists(st.sampled_from(make.TRACE_IDS), max_size=2).map(tuple),
        window=make.windows(),
    )
    def add_hold(self, scope: Scope, where: Expr | None, ids: tuple[str, ...] | None, window: Window) -> None:
        hold_id = f"hold_{len(self.hold_ids)}"
        self.hold_ids.append(hold_id)
        hold = HoldRow(hold_id, 1, scope, where, ids, window, "why", len(self.hold_ids), "key_1")
        outcomes = [store.add_hold(hold) for store in self._both()]
        assert outcomes[0] == outcomes[1]

    @rule(which=st.integers(0, 5))
    def release_hold(self, which: int) -> None:
        if which < len(self.hold_ids):
            released = [store.release_hold(self.hold_ids[which], 9) for store in self._both()]
            assert released[0] == released[1]
        assert self.model.holds(None, True) == self.subject.deletions.holds(None, True)

    @rule(which=st.integers(0, 5), generation=st.integers(1, 2))
    def let_child_go(self, which: int, generation: int) -> None:
        parent_id = child_id = self._deletion(which)
        if parent_id is None or child_id is None:
            return
        for _ in range(generation):
            child_id = child_id_of(child_id)
        known = [store.progress(child_id) for store in self._both()]
        assert (known[0] is None) == (known[1] is None)
        if known[0] is None or known[0].cancelled:
            return
        outcomes = [store.hide_child(child_id, *self.asked[parent_id]) for store in self._both()]
        assert outcomes[0] == outcomes[1]
        if outcomes[0] is not None and child_id not in self.deletion_ids:
            self.deletion_ids.append(child_id)
            self.asked[child_id] = self.asked[parent_id]

    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        deletion_id = self._deletion(which)
        if deletion_id is None:
            return
        answers: list[int | str] = []
        for store in self._both():
            try:
                answers.append(store.cancel(deletion_id))
            except Conflict as conflict:
                answers.append(conflict.code)
        assert answers[0] == answers[1]

    @rule(project_id=st.sampled_from(make.PROJECT_IDS), trace_id=st.sampled_from(make.TRACE_IDS))
    def lift(self, project_id: int, trace_id: str) -> None:
        found = [store.find_tombstone(project_id, trace_id) for store in self._both()]
        assert found[0] == found[1]
        answers: list[str | None] = []
        for store in self._both():
            try:
                answers.append(store.lift_tombstone(project_id, trace_id))
            except Conflict as conflict:
                answers.append(conflict.code)
        assert answers[0] == answers[1]

    @rule()
    def preview(self) -> None:
        key = b"k%d" % len(self.previews)
        self.previews.append(key)
        for store in self._both():
            store.save_preview(key, b"body", len(self.previews))

    def _both(self) -> tuple[DeletionStore, DeletionStore]:
        return self.model, self.subject.deletions

    def _deletion(self, which: int) -> str | None:
        return self.deletion_ids[which] if which < len(self.deletion_ids) else None

    def _progress(self, deletion_id: str) -> tuple[DeletionProgress, DeletionProgress]:
        mine, theirs = self.model.progress(deletion_id), self.subject.deletions.progress(deletion_id)
        assert mine is not None
        assert theirs is not None
        return mine, theirs

    @invariant()
    def deletions_stand_alike(self) -> None:
        for deletion_id in [*self.deletion_ids, *map(child_id_of, self.deletion_ids)]:
            mine, theirs = self.model.progress(deletion_id), self.subject.deletions.progress(deletion_id)
            if mine is None or theirs is None:
                assert mine is theirs
                continue
            same = {"batches": 0, "purged": {}}
            assert mine._replace(**same) == theirs._replace(**same)
            assert [line[1:] for line in self.model.manifest(deletion_id)] == [
                line[1:] for line in self.subject.deletions.manifest(deletion_id)
            ]
            assert self.model.leaves(deletion_id) == self.subject.deletions.leaves(deletion_id)
            assert self.model.tombstones(deletion_id, b"", 99) == self.subject.deletions.tombstones(
                deletion_id, b"", 99
            )

    def _hide(self, scope: Scope, where: Expr | None, window: Window, plans: list) -> None:  # type: ignore[type-arg]
        mine, theirs = plans
        assert [line[1:] for line in mine] == [line[1:] for line in theirs]
        counts = [
            store.count_targets([line.trace_pk for line in lines])
            for store, lines in ((self.model, mine), (self.subject.deletions, theirs))
        ]
        assert {n: counts[0][n] for n in COMPARED} == {n: counts[1][n] for n in COMPARED}
        held = [
            store.held_among([line.trace_pk for line in lines])
            for store, lines in ((self.model, mine), (self.subject.deletions, theirs))
        ]
        assert held[0] == held[1]
        deletion_id = f"del_{len(self.deletion_ids)}"
        key = self.previews[-1] if self.previews else None
        outcomes: list[HideOutcome | str] = []
        for store, lines in ((self.model, mine), (self.subject.deletions, theirs)):
            try:
                outcomes.append(
                    store.hide(deletion_id, scope, where, window, lines, b"why", exact=key is not None, preview_key=key)
                )
            except Conflict as conflict:
                outcomes.append(conflict.code)
        assert outcomes[0] == outcomes[1]
        if not isinstance(outcomes[0], str):
            self.deletion_ids.append(deletion_id)
            self.asked[deletion_id] = (scope, where, window)

    @invariant()
    def readers_see_the_same(self) -> None:
        assert visible(self.subject.reader, make.PROJECT_IDS) == visible(self.model, make.PROJECT_IDS)

    def teardown(self) -> None:
        self.subject.close()


def run(make_stores: Callable[[], Stores], size: dict[str, int]) -> None:
    machine = type("SameHistory", (SameHistory,), {"make_subject": staticmethod(make_stores)})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            **size,  # type: ignore[arg-type]
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_histories_are_told_alike(make_stores: Callable[[], Stores]) -> None:
    run(make_stores, SHORT_RUN)


@pytest.mark.long
def test_many_random_histories_are_told_alike(make_stores: Callable[[], Stores]) -> None:
    run(make_stores, LONG_RUN)
