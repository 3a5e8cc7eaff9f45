"""What every store must hold of the scores of many traces: what reading each trace's annotations would say."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from tests.conformance.test_store_scores import ANY_TIME, BOTH, ONE, T

from clearspan.experiments.results import scores_of, words_of, words_said
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import METADATA, field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.annotations import AnnotationRow, AnnotationWrite
from clearspan.store.port import PlannedTrace
from clearspan.store.sqlite import score_columns
from clearspan.testing.build import T0_NS, make_annotation, make_trace, with_metadata
from clearspan.testing.stores import Stores

NAMES = ("exact", "tone", "exact:strict")
SOME = Condition(field_named("trace_unique_id"), Operator.IN, ("t1", "t2", "t3"))
UNMARKED = Condition(METADATA, Operator.IS_NULL, (), "marked")


@pytest.fixture(params=[2_000, 0], ids=["each trace", "by name"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of the embedded store to the same answer."""
    monkeypatch.setattr(score_columns, "FEW_TRACES", request.param)


def told(reader: Any, scope: Scope, where: Expr | None, window: Window, name: str | None = None) -> list[Any]:
    """(trace_pk, name, score, words) by name and trace."""
    plain = reader.score_columns(scope, where, window, name=name)
    found = []
    for column, again in zip(reader.score_columns(scope, where, window, name=name, in_words=True), plain, strict=True):
        assert (again.name, again.last) == (column.name, column.last)
        assert column.last.trace_pk == column.trace_pks[-1]
        np.testing.assert_array_equal(again.trace_pks, column.trace_pks)
        np.testing.assert_array_equal(again.scores, column.scores)
        found += [
            (pk, column.name, None if math.isnan(score) else score, words_said(column.said[no]))
            for pk, score, no in zip(
                column.trace_pks.tolist(), column.scores.tolist(), column.said_nos.tolist(), strict=True
            )
        ]
    return found


def expected(reader: Any, scope: Scope, where: Expr | None, window: Window, name: str | None = None) -> list[Any]:
    """By way of each trace and all of its annotations."""
    rows = reader.list_traces(scope, where, window, NEWEST_FIRST, OffsetPage(1, 1000)).rows
    said: dict[int, list[AnnotationRow]] = reader.annotations_of([row.trace_pk for row in rows])
    return sorted(
        (
            (row.trace_pk, each.name, each.score, words_of(each))
            for row in rows
            for each in scores_of(said.get(row.trace_pk, []), row.summary.root_span_id)
            if name in (None, each.name)
        ),
        key=lambda each: (each[1], each[0]),
    )


def check(reader: Any) -> None:
    for scope in (ONE, BOTH, Scope(()), Scope((1,), "staging")):
        for where in (None, SOME, UNMARKED, Group("AND", (UNMARKED, SOME))):
            for name in (None, NAMES[0], "nobody"):
                assert told(reader, scope, where, ANY_TIME, name) == expected(reader, scope, where, ANY_TIME, name)
    late = Window(T0_NS + 10**15)
    assert told(reader, BOTH, None, late) == expected(reader, BOTH, None, late) == []


def annotation(rng: random.Random, number: int, *, numbers_only: bool) -> tuple[int, Any]:
    """Of which trace, and what. Only numbers of traces, one of a name: what the index of scores holds whole."""
    n = rng.randrange(12)
    if numbers_only:
        said: dict[str, Any] = {"target": T.TRACE, "score": rng.choice([0.0, 0.5, 1.0])}
    else:
        target, span_id = rng.choice([(T.TRACE, None), (T.SPAN, f"t{n}.0"), (T.SPAN, f"t{n}.1")])
        said = {
            "target": target, "span_id": span_id, "identifier": str(rng.randrange(3)),
            "score": rng.choice([None, 0.0, 0.5, 1.0]), "label": rng.choice([None, "good", "bad"]),
            "value": rng.choice([None, b'"x"', b"0.25", b' ["a", "b"]', b"[]", b"[1]"]),
        }  # fmt: skip
    times: dict[str, Any] = {"created_ns": T0_NS + number, "updated_ns": T0_NS + rng.randrange(100)}
    return n, make_annotation(rng.choice(NAMES), number=number, trace_id=f"t{n}", **said, **times)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("numbers_only", [False, True])
def test_the_newest_scores_are_those_that_each_trace_has(stores: Stores, numbers_only: bool) -> None:
    rng = random.Random(7)
    for n in range(12):
        context = with_metadata({"marked": "yes"} if n % 5 == 0 else {})
        stores.writer.write([make_trace(f"t{n}", project_id=1 + n % 2, context=context)], received_ns=T0_NS)
    for number in range(90):
        n, said = annotation(rng, number, numbers_only=numbers_only)
        stores.annotating.put_annotations([AnnotationWrite((1 + n % 2,), said)], received_ns=T0_NS)
    assert len(told(stores.reader, BOTH, None, ANY_TIME)) > 20
    check(stores.reader)

    row = stores.reader.list_traces(BOTH, SOME, ANY_TIME, NEWEST_FIRST, OffsetPage(1, 1)).rows[0]
    planned = [PlannedTrace(row.trace_pk, row.project_id, row.summary.trace_id)]
    stores.deletions.hide("del_1", BOTH, None, ANY_TIME, planned, b"{}")
    check(stores.reader)
    assert row.trace_pk not in {each[0] for each in told(stores.reader, BOTH, None, ANY_TIME)}
