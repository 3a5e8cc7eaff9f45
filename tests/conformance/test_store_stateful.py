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

from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.memory import MemoryStore
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
        if which >= len(self.deletion_ids):
            return
        deletion_id = self.deletion_ids[which]
        for store in (self.model, self.subject.deletions):
            progress = store.progress(deletion_id)
            assert progress is not None
            batch_no, more = progress.batches, progress.more
            while more:
                _, more = store.purge_batch(deletion_id, batch_no, rows_max=rows_max)
                batch_no += 1
            store.settle(deletion_id)
        mine, theirs = self.model.progress(deletion_id), self.subject.deletions.progress(deletion_id)
        assert mine is not None
        assert theirs is not None
        assert {n: Counter(mine.purged)[n] for n in COMPARED} == {n: Counter(theirs.purged)[n] for n in COMPARED}
        assert mine.late_refused == theirs.late_refused
        assert not any(self.subject.deletions.remaining(deletion_id).values())

    def _hide(self, scope: Scope, where: Expr | None, window: Window, plans: list) -> None:  # type: ignore[type-arg]
        mine, theirs = plans
        assert [line[1:] for line in mine] == [line[1:] for line in theirs]
        counts = [
            store.count_targets([line.trace_pk for line in lines])
            for store, lines in ((self.model, mine), (self.subject.deletions, theirs))
        ]
        assert {n: counts[0][n] for n in COMPARED} == {n: counts[1][n] for n in COMPARED}
        deletion_id = f"del_{len(self.deletion_ids)}"
        self.deletion_ids.append(deletion_id)
        outcome = self.model.hide(deletion_id, scope, where, window, mine, b"why")
        assert self.subject.deletions.hide(deletion_id, scope, where, window, theirs, b"why") == outcome

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
