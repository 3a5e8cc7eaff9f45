"""What every store must hold of filters by score: those of a trace and its root span, as far as reads show them."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import SCORES, field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage, SortKey
from clearspan.store.annotations import AnnotationChange, AnnotationQuery, AnnotationWrite
from clearspan.store.memory import MemoryStore
from clearspan.store.port import HideOutcome
from clearspan.store.sessions import TraceOrder
from clearspan.testing.build import T0_NS, make_annotation, make_batch, make_span, make_trace
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores

T = AnnotationTarget
ONE, BOTH, ANY_TIME = Scope((1,)), Scope((1, 2)), Window()


def score(operator: Operator, *values: float, name: str = "exact") -> Condition:
    return Condition(SCORES, operator, tuple(Decimal(repr(value)) for value in values), name)


def put(stores: Stores, trace_id: str, value: float | None, *, project_id: int = 1, **fields: Any) -> None:
    said = make_annotation(**{"name": "exact", "target": T.TRACE, "trace_id": trace_id, "score": value, **fields})
    said = said._replace(annotation_id=f"{said.annotation_id}-{trace_id}-{said.name}-{said.identifier}-{said.span_id}")
    stores.annotating.put_annotations([AnnotationWrite((project_id,), said)], received_ns=T0_NS)


def ids(stores: Stores, expr: Expr, scope: Scope = ONE) -> list[str]:
    """What a list, a count, a walk and sums agree on."""
    page = stores.reader.list_traces(scope, expr, ANY_TIME, NEWEST_FIRST, OffsetPage(1, 100))
    found = sorted(row.summary.trace_id for row in page.rows)
    by_cost = SortKey(field_named("total_cost"), descending=False)
    again = stores.reader.list_traces(scope, expr, ANY_TIME, by_cost, OffsetPage(1, 100))
    assert sorted(row.summary.trace_id for row in again.rows) == found
    assert page.total == len(found) == stores.reader.count_traces(scope, expr, ANY_TIME)
    assert stores.reader.sum_traces(scope, expr, ANY_TIME).traces == len(found)
    walk = stores.reader.walk_traces(scope, expr, ANY_TIME, order=TraceOrder.START_DESC, limit=100)  # type: ignore[attr-defined]
    assert sorted(row.summary.trace_id for row in walk.rows) == found
    return found


def test_scores_of_the_trace_and_of_its_root_span_count_alike(stores: Stores) -> None:
    for n in range(5):
        stores.writer.write([make_trace(f"t{n}", span_count=2)], received_ns=T0_NS)
    put(stores, "t0", 1.0)
    put(stores, "t1", 1.0, target=T.SPAN, span_id="t1.0")
    put(stores, "t2", 1.0, target=T.SPAN, span_id="t2.1")  # not the root
    put(stores, "t3", 1.0, name="other")
    put(stores, "t4", None)
    assert ids(stores, score(Operator.EQUALS, 1)) == ["t0", "t1"]
    assert ids(stores, score(Operator.IS_NOT_NULL)) == ["t0", "t1"]
    assert ids(stores, score(Operator.IS_NULL)) == ["t2", "t3", "t4"]
    assert ids(stores, score(Operator.NOT, 0)) == ["t0", "t1"], "no negation holds without a score"
    assert ids(stores, score(Operator.NOT_IN, 0, 1)) == []
    both = Group("AND", (score(Operator.GTE, 0.5), Condition(field_named("name"), Operator.IS_NOT_NULL)))
    assert ids(stores, both) == ["t0", "t1"]
    either = Group("OR", (score(Operator.GTE, 0.5), score(Operator.LT, 2, name="other")))
    assert ids(stores, either) == ["t0", "t1", "t3"]


def test_of_several_scores_any_will_do(stores: Stores) -> None:
    stores.writer.write([make_trace("t0")], received_ns=T0_NS)
    for number, value in enumerate((0.2, 0.9)):
        put(stores, "t0", value, number=number, identifier=str(number))
    assert ids(stores, score(Operator.LT, 0.3)) == ids(stores, score(Operator.GT, 0.8)) == ["t0"]
    assert ids(stores, score(Operator.NOT, 0.9)) == []
    assert ids(stores, score(Operator.NOT, 0.5)) == ["t0"]


def test_of_two_projects_each_has_its_own(stores: Stores) -> None:
    for project_id, value in ((1, 1.0), (2, 0.0)):
        stores.writer.write([make_trace("t", project_id=project_id)], received_ns=T0_NS)
        put(stores, "t", value, project_id=project_id)
    assert ids(stores, score(Operator.EQUALS, 0)) == []
    assert ids(stores, score(Operator.EQUALS, 0), Scope((2,))) == ["t"]
    assert ids(stores, score(Operator.GTE, 0), BOTH) == ["t", "t"]


def test_what_waits_is_not_seen_until_its_span_is_there(stores: Stores) -> None:
    put(stores, "t0", 1.0)
    stores.writer.write([make_batch("t1", [make_span("a", parent="b")])], received_ns=T0_NS)
    put(stores, "t1", 1.0, target=T.SPAN, span_id="b")
    assert ids(stores, score(Operator.IS_NOT_NULL)) == []
    stores.writer.write([make_trace("t0"), make_batch("t1", [make_span("b")])], received_ns=T0_NS)
    assert ids(stores, score(Operator.EQUALS, 1)) == ["t0", "t1"]


def test_a_new_root_brings_its_own_scores(stores: Stores) -> None:
    stores.writer.write([make_batch("t", [make_span("a", parent="b")])], received_ns=T0_NS)
    put(stores, "t", 1.0, target=T.SPAN, span_id="a")
    assert ids(stores, score(Operator.EQUALS, 1)) == ["t"]
    stores.writer.write([make_batch("t", [make_span("b", start_s=-1.0)])], received_ns=T0_NS)
    assert ids(stores, score(Operator.EQUALS, 1)) == []


def test_a_changed_a_hidden_and_a_shown_score(stores: Stores) -> None:
    stores.writer.write([make_trace("t")], received_ns=T0_NS)
    put(stores, "t", 1.0)
    (row,) = stores.annotations.list_annotations(ONE, AnnotationQuery(), limit=10)
    change = AnnotationChange({"score": 0.0}, {}, T0_NS, "key_1", None)
    stores.annotating.patch_annotation(ONE, row.annotation.annotation_id, change)
    assert ids(stores, score(Operator.EQUALS, 1)) == []
    assert ids(stores, score(Operator.EQUALS, 0)) == ["t"]
    lines = stores.deletions.plan_annotations(ONE, AnnotationQuery(), limit=10)
    stores.deletions.hide_annotations("del_1", ONE, AnnotationQuery(), lines, b"why", manifest_salt=b"s" * 32)
    assert ids(stores, score(Operator.IS_NOT_NULL)) == []
    assert ids(stores, score(Operator.IS_NULL)) == ["t"]
    put(stores, "t", 0.5)
    assert ids(stores, score(Operator.GT, 0)) == ["t"], "said anew"


def test_a_hide_looks_at_the_scores_again(stores: Stores) -> None:
    for n in range(3):
        stores.writer.write([make_trace(f"t{n}")], received_ns=T0_NS)
        put(stores, f"t{n}", 0.0)
    low = score(Operator.LT, 0.5)
    lines = stores.deletions.plan(ONE, low, ANY_TIME, received_before_ns=2**62, limit=10)
    assert len(lines) == 3
    put(stores, "t1", 1.0, at_s=5)
    assert stores.deletions.hide("del_1", ONE, low, ANY_TIME, lines, b"why") == HideOutcome(2, 1, 0, 0)
    assert ids(stores, score(Operator.IS_NOT_NULL)) == ["t1"]


def _random_annotation(rng: random.Random) -> Annotation:
    trace_id = f"t{rng.randrange(6)}"
    target = rng.choice((T.TRACE, T.TRACE, T.SPAN, T.SPAN, T.DOCUMENT))
    return make_annotation(
        rng.choice(("exact", "judge")),
        number=rng.randrange(30),
        target=target,
        trace_id=trace_id,
        span_id=None if target is T.TRACE else f"{trace_id}.{rng.randrange(3)}",
        document_position=0 if target is T.DOCUMENT else None,
        score=rng.choice((None, 0.0, 0.1, 0.5, 1.0)),
        identifier=rng.choice(("", "b")),
        at_s=rng.randrange(9),
    )


def _act(rng: random.Random, stores: Stores) -> None:
    match rng.choice(("write", "say", "say", "say", "hide", "change")):
        case "write":
            batch = make_trace(f"t{rng.randrange(6)}", span_count=rng.choice((1, 2, 3)), project_id=rng.choice((1, 2)))
            stores.writer.write([batch], received_ns=T0_NS)
        case "say":
            write = AnnotationWrite(rng.choice(((1,), (2,), (1, 2))), _random_annotation(rng))
            stores.annotating.put_annotations([write], received_ns=T0_NS)
        case "change":
            change = AnnotationChange({"score": rng.choice((None, 0.0, 1.0))}, {}, T0_NS, "key_1", None)
            stores.annotating.patch_annotation(BOTH, f"{rng.randrange(30):032x}", change)
        case _:
            query = AnnotationQuery(names=(rng.choice(("exact", "judge")),), identifiers=("b",))
            lines = stores.deletions.plan_annotations(ONE, query, limit=2)
            number = f"del_{rng.getrandbits(40):x}"
            stores.deletions.hide_annotations(number, ONE, query, lines, b"why", manifest_salt=b"s" * 32)


OPERATORS = (
    Operator.EQUALS, Operator.NOT, Operator.IN, Operator.NOT_IN, Operator.LT, Operator.GTE, Operator.IS_NULL,
    Operator.NOT_EMPTY,
)  # fmt: skip


def _questions(rng: random.Random) -> list[Expr]:
    asked: list[Expr] = []
    for operator in OPERATORS:
        count = {Operator.IN: 2, Operator.NOT_IN: 2, Operator.IS_NULL: 0, Operator.NOT_EMPTY: 0}.get(operator, 1)
        values = rng.sample((0.0, 0.1, 0.5, 1.0), count)
        asked.append(score(operator, *values, name=rng.choice(("exact", "judge"))))
    pair = tuple(rng.sample(asked, 2))
    return [*asked, Group("AND", pair), Group("OR", pair)]


@pytest.mark.parametrize("seed", range(4))
def test_two_stores_agree_whatever_was_said(tmp_path: Path, seed: int) -> None:
    model = Stores.of_memory(MemoryStore(TOMBSTONE_SECRET))
    subject = Stores.of_sqlite(open_local_store(tmp_path, TOMBSTONE_SECRET))
    try:
        hits = 0
        for turn in range(64):
            for each in (model, subject):
                _act(random.Random(seed * 1000 + turn), each)
            if turn % 8 == 7:
                for expr in _questions(random.Random(seed * 1000 + turn)):
                    expected = ids(model, expr, BOTH)
                    assert ids(subject, expr, BOTH) == expected, (turn, expr)
                    hits += len(expected) > 0
        assert hits > 10
    finally:
        subject.close()
