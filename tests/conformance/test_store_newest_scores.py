"""What every store must hold of the scores of many traces: what reading each trace's annotations would say."""

from __future__ import annotations

import random
from typing import Any

from tests.conformance.test_store_scores import ANY_TIME, BOTH, ONE, T

from clearspan.experiments.results import scores_of
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.annotations import AnnotationWrite
from clearspan.store.port import PlannedTrace
from clearspan.testing.build import T0_NS, make_annotation, make_trace
from clearspan.testing.stores import Stores

NAMES = ("exact", "tone", "exact:strict")


def told(stores: Stores, scope: Scope, where: Expr | None, window: Window, name: str | None = None) -> list[Any]:
    found = stores.reader.scores_of(scope, where, window, name=name)  # type: ignore[attr-defined]
    return [(each.trace_pk, each.name, each.score, each.label, each.value is not None) for each in found]


def expected(stores: Stores, scope: Scope, where: Expr | None, window: Window, name: str | None = None) -> list[Any]:
    """By way of each trace and all of its annotations."""
    rows = stores.reader.list_traces(scope, where, window, NEWEST_FIRST, OffsetPage(1, 1000)).rows
    said = stores.reader.annotations_of([row.trace_pk for row in rows])  # type: ignore[attr-defined]
    return sorted(
        (row.trace_pk, each.name, each.score, each.label, each.value is not None)
        for row in rows
        for each in scores_of(said.get(row.trace_pk, []), row.summary.root_span_id)
        if name in (None, each.name)
    )


def test_the_newest_scores_are_those_that_each_trace_has(stores: Stores) -> None:
    rng = random.Random(7)
    for n in range(12):
        trace = make_trace(f"t{n}", span_count=2, project_id=1 + n % 2)
        stores.writer.write([trace], received_ns=T0_NS)
    for number in range(90):
        n = rng.randrange(12)
        target, span_id = rng.choice([(T.TRACE, None), (T.SPAN, f"t{n}.0"), (T.SPAN, f"t{n}.1")])
        said = make_annotation(
            rng.choice(NAMES), number=number, target=target, trace_id=f"t{n}", span_id=span_id,
            identifier=str(rng.randrange(3)), score=rng.choice([None, 0.0, 0.5, 1.0]),
            label=rng.choice([None, "good"]), value=rng.choice([None, b'"x"']),
            created_ns=T0_NS + number, updated_ns=T0_NS + rng.randrange(100),
        )  # fmt: skip
        stores.annotating.put_annotations([AnnotationWrite((1 + n % 2,), said)], received_ns=T0_NS)
    some = Condition(field_named("trace_unique_id"), Operator.IN, ("t1", "t2", "t3"))
    assert len(told(stores, BOTH, None, ANY_TIME)) > 20
    for scope in (ONE, BOTH, Scope(()), Scope((1,), "staging")):
        for where in (None, some):
            for name in (None, *NAMES, "nobody"):
                assert told(stores, scope, where, ANY_TIME, name) == expected(stores, scope, where, ANY_TIME, name)
    late = Window(T0_NS + 10**15)
    assert told(stores, BOTH, None, late) == expected(stores, BOTH, None, late) == []

    row = stores.reader.list_traces(BOTH, some, ANY_TIME, NEWEST_FIRST, OffsetPage(1, 1)).rows[0]
    planned = [PlannedTrace(row.trace_pk, row.project_id, row.summary.trace_id)]
    stores.deletions.hide("del_1", BOTH, None, ANY_TIME, planned, b"{}")
    after = told(stores, BOTH, None, ANY_TIME)
    assert after == expected(stores, BOTH, None, ANY_TIME)
    assert row.trace_pk not in {each[0] for each in after}
