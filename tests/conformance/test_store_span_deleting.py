"""What every store must hold of deleting spans by themselves: what is left is what had been without them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.errors import Conflict
from clearspan.model.span import Attachment, SpanContext, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import METADATA, field_named
from clearspan.query.operators import Operator
from clearspan.store.annotations import AnnotationQuery, AnnotationWrite
from clearspan.store.port import DeletionKind, HideOutcome, HoldRow, PlannedTrace, child_id_of
from clearspan.store.span_deletion import render_name, without_spans
from clearspan.testing.build import T0_NS, Built, make_annotation, make_batch, make_log, make_span, make_trace
from clearspan.testing.stores import Stores, visible

T = AnnotationTarget
ONE, BOTH = Scope((1,)), Scope((1, 2))
ALL = Window()
CHILD = child_id_of("del_1")


def write(stores: Stores, *batches: TraceBatch) -> list[tuple[int, int, str | None]]:
    outcomes = stores.writer.write(batches, received_ns=T0_NS)
    return [(each.stored, each.refused, each.deletion_id) for each in outcomes]


def put(stores: Stores, *annotations: Annotation) -> list[str | None]:
    writes = [AnnotationWrite((1,), each) for each in annotations]
    return [each.deletion_id for each in stores.annotating.put_annotations(writes, received_ns=T0_NS)]


def said(number: int, trace_id: str, span_id: str | None = None, **fields: Any) -> Annotation:
    target = T.TRACE if span_id is None else T.SPAN
    about = {"trace_id": trace_id, "span_id": span_id, "target": target, "name": f"n{number}"}
    return make_annotation(**{"number": number, **about, **fields})


def plan(stores: Stores, *names: str, scope: Scope = ONE) -> list[PlannedTrace]:
    return stores.deletions.plan_spans(scope, names)


def hide(stores: Stores, lines: Sequence[PlannedTrace], deletion_id: str = "del_1", **more: Any) -> HideOutcome:
    return stores.deletions.hide(
        deletion_id, ONE, None, ALL, lines, b"who and why", **{"manifest_salt": b"s" * 32, **more}
    )


def purge(stores: Stores, deletion_id: str = "del_1") -> dict[str, int]:
    progress = stores.deletions.progress(deletion_id)
    assert progress is not None
    batch_no, more = progress.batches, progress.more
    while more:
        counts, more = stores.deletions.purge_batch(deletion_id, batch_no, rows_max=3)
        assert stores.deletions.purge_batch(deletion_id, batch_no, rows_max=3) == (counts, more), "a repeat"
        batch_no += 1
    assert not any(stores.deletions.remaining(deletion_id).values())
    stores.deletions.settle(deletion_id)
    assert not any(stores.deletions.remaining(deletion_id).values())
    done = stores.deletions.progress(deletion_id)
    assert done is not None
    assert done.settled
    return {target: count for target, count in done.purged.items() if count}


def spans_of(stores: Stores, trace_id: str = "t", project_id: int = 1) -> list[str] | None:
    found = stores.reader.get_trace(Scope((project_id,)), trace_id)
    return None if found is None else sorted(each.span.span_id for each in found.spans)


def hold(*trace_ids: str) -> HoldRow:
    return HoldRow("hold_1", 7, ONE, None, trace_ids or None, ALL, "a lawsuit", 5, "key_1")


def everything(stores: Stores) -> dict[str, Any]:
    """All that reads tell of project 1, but for the handles of the store."""
    search = Condition(field_named("text"), Operator.CONTAINS, ("word1",))
    plan_is = Condition(METADATA, Operator.EQUALS, ("b",), key="plan")
    page = stores.spans.list_spans(ONE, None, ALL, limit=1000)
    keys = [(row.trace.trace_pk, row.detail.span.span_id) for row in page.rows]
    named = {key: (row.trace.summary.trace_id, key[1]) for key, row in zip(keys, page.rows, strict=True)}
    annotations = stores.annotations.list_annotations(ONE, AnnotationQuery(), limit=1000)
    return {
        "traces": visible(stores.reader, [1]),
        "sums": stores.reader.sum_traces(ONE, None, ALL),
        "stats": stores.spans.span_stats(ONE, None, ALL),
        "by text": stores.reader.count_traces(ONE, search, ALL),
        "by metadata": stores.reader.count_traces(ONE, plan_is, ALL),
        "visible": (stores.deletions.count_visible(ONE), stores.deletions.count_spans(ONE)),
        "spans": sorted((*named[key], row.detail) for key, row in zip(keys, page.rows, strict=True)),
        "attachments": sorted(
            (named[key], sorted(infos)) for key, infos in stores.spans.list_attachments(ONE, keys).items()
        ),
        "annotations": sorted(row.annotation.annotation_id for row in annotations),
    }


class World:
    """Random traces of several batches, with spans that were superseded, logs, files and annotations."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.batches: list[TraceBatch] = []
        self.spans: dict[str, list[str]] = {}
        self.annotations: list[Annotation] = []
        for number in range(6):
            self._trace(f"t{number}")

    def _trace(self, trace_id: str) -> None:
        ids = [f"{self.random.getrandbits(128):032x}" for _ in range(self.random.randint(1, 5))]
        self.spans[trace_id] = ids
        for _ in range(self.random.randint(1, 3)):
            mine = [self._span(each, ids) for each in ids if self.random.random() < 0.7]
            logs = [
                make_log(self.random.choice([None, *ids]), at_s=n, text=f"said {n}", context=self._context())
                for n in range(self.random.randint(0, 2))
            ]
            files = tuple(
                Attachment(each, "f", "text/plain", self.random.randbytes(9)) for each in ids if self._rarely()
            )
            self.batches.append(make_batch(trace_id, [*mine, *logs])._replace(attachments=files))
        self.batches.append(make_batch(trace_id, [self._span(each, ids) for each in ids]))
        self.annotations += [
            said(len(self.annotations) + n, trace_id, span_id)
            for n, span_id in enumerate([None, *filter(lambda _: self._rarely(), ids)])
        ]

    def _rarely(self) -> bool:
        return self.random.random() < 0.3

    def _context(self) -> SpanContext:
        pick = self.random.choice
        return SpanContext(
            environment=pick((None, "production", "test")),
            session_id=pick((None, "s1", "s2")),
            customer_identifier=pick((None, "c")),
            metadata=(("plan", pick("ab")),) if self._rarely() else (),
        )

    def _span(self, span_id: str, ids: list[str]) -> Built:
        return make_span(
            span_id,
            parent=self.random.choice([None, *ids]),
            start_s=self.random.randint(-9000, 9000),
            duration_s=self.random.randint(1, 9),
            context=self._context(),
            status=self.random.choice(("ok", "error")),
            cost_pico=self.random.choice((None, 7)),
            text=f"word{self.random.randint(0, 3)} {self.random.randint(0, 99)}",
        )

    def fill(self, stores: Stores, gone: set[str]) -> None:
        """As if some spans had never been."""
        whole = {trace_id for trace_id, ids in self.spans.items() if set(ids) <= gone}
        for batch in self.batches:
            if batch.trace_id not in whole:
                write(stores, without_spans(batch, gone))
        put(stores, *(a for a in self.annotations if a.span_id not in gone and a.trace_id not in whole))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_is_what_the_other_spans_make(make_stores: Callable[[], Stores], seed: int) -> None:
    world, stores, model = World(seed), make_stores(), make_stores()
    world.fill(stores, set())
    before = everything(stores)
    ids = [each for of_trace in world.spans.values() for each in of_trace]
    gone = set(world.random.sample(ids, k=len(ids) // 2)) | set(world.spans["t0"])
    first, second = sorted(gone)[::2], sorted(gone)[1::2]
    lines = plan(stores, *first)
    assert hide(stores, lines) == HideOutcome(len(first), 0, 0)
    assert hide(stores, lines) == HideOutcome(len(first), 0, 0), "a repeat"
    assert stores.deletions.cancel("del_1") == len(first)
    assert everything(stores) == before
    assert hide(stores, plan(stores, *first), "del_2") == HideOutcome(len(first), 0, 0)
    assert hide(stores, plan(stores, *second), "del_3") == HideOutcome(len(second), 0, 0)
    world.fill(model, gone)
    hidden = everything(stores)
    assert hidden == everything(model)
    assert purge(stores, "del_3")["span"] == len(second)
    assert purge(stores, "del_2")["span"] == len(first)
    assert everything(stores) == hidden
    for batch in world.batches:
        write(stores, batch)
    assert everything(stores)["spans"] == hidden["spans"], "late copies are refused"


def test_a_span_goes_and_its_children_stay(stores: Stores) -> None:
    write(stores, make_trace("t", span_count=3))
    lines = plan(stores, "t.0")
    assert [(line.project_id, line.trace_id) for line in lines] == [(1, "t/t.0")]
    assert plan(stores, "t/t.0") == lines
    assert plan(stores, "u/t.0", "t/u.0", "nothing") == []
    assert plan(stores, "t.0", scope=Scope((2,))) == []
    assert hide(stores, lines) == HideOutcome(1, 0, 0)
    assert spans_of(stores) == ["t.1", "t.2"]
    assert plan(stores, "t.0") == []
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.kind is DeletionKind.SPANS
    assert [line.trace_id for line in stores.deletions.manifest("del_1")] == ["t/t.0"]
    assert purge(stores) == {"trace": 1, "span": 1, "context": 1, "block": 1, "text_signature": 1}
    assert spans_of(stores) == ["t.1", "t.2"]


def test_what_was_planned_may_be_gone_or_out_of_sight(stores: Stores) -> None:
    write(stores, make_trace("t", span_count=3), make_trace("u"))
    lines = plan(stores, "t.0", "t.1", "u.0")
    whole = stores.deletions.plan_ids(ONE, ["u"], ALL)
    stores.deletions.hide("del_0", ONE, None, ALL, whole, b"")
    hide(stores, plan(stores, "t.0"), "del_9")
    assert hide(stores, lines) == HideOutcome(1, 0, 2)
    with pytest.raises(Conflict) as refused:
        hide(stores, lines, "del_2", exact=True)
    assert refused.value.code == "plan_mismatch"
    assert stores.deletions.progress("del_2") is None
    production = Scope((1,), "production")
    outcome = stores.deletions.hide("del_3", production, None, ALL, plan(stores, "t.2"), b"")
    assert outcome == HideOutcome(0, 1, 0)
    assert spans_of(stores) == ["t.2"]


def test_the_last_span_takes_the_trace_and_what_was_said_of_it(stores: Stores) -> None:
    write(stores, make_trace("t"), make_batch("t", [make_log(None, text="of the trace")]))
    put(stores, said(1, "t"), said(2, "t", "t.0"), said(3, "t", "elsewhere"))
    assert hide(stores, plan(stores, "t.0", "t.1")) == HideOutcome(2, 0, 0)
    assert spans_of(stores) is None
    assert stores.deletions.count_visible(ONE) == 0
    assert stores.annotations.list_annotations(ONE, AnnotationQuery(), limit=9) == []
    # The trace may begin anew, with other spans and other words.
    assert write(stores, make_batch("t", [make_span("t.0"), make_span("t.9")])) == [(1, 1, "del_1")]
    assert put(stores, said(1, "t"), said(2, "t", "t.0")) == [None, "del_1"]
    assert spans_of(stores) == ["t.9"]
    assert purge(stores)["annotation"] == 2
    assert len(stores.annotations.list_annotations(ONE, AnnotationQuery(), limit=9)) == 1
    assert spans_of(stores) == ["t.9"]


def test_late_parts_of_a_span_are_refused_and_counted(stores: Stores) -> None:
    write(stores, make_trace("t", span_count=2))
    hide(stores, plan(stores, "t.1"))
    late = make_batch("t", [make_span("t.1", text="again"), make_span("t.2"), make_log("t.1"), make_log("t.0")])
    late = late._replace(attachments=(Attachment("t.1", "f", "text/plain", b"x"),))
    assert write(stores, late) == [(2, 3, "del_1")]
    assert write(stores, make_batch("t", [make_span("t.1", text="and again")])) == [(0, 1, "del_1")]
    assert put(stores, said(1, "t", "t.1"), said(2, "t", "t.2")) == ["del_1", None]
    purge(stores)
    assert write(stores, make_batch("t", [make_log("t.1", text="later")])) == [(0, 1, "del_1")]
    assert put(stores, said(3, "t", "t.1")) == ["del_1"]
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.late_refused == 7
    assert spans_of(stores) == ["t.0", "t.2"]
    assert stores.deletions.lift_tombstone(1, render_name("t", "t.1")) == "del_1"
    assert write(stores, make_batch("t", [make_span("t.1")])) == [(1, 0, None)]
    assert spans_of(stores) == ["t.0", "t.1", "t.2"]


def test_a_hold_on_the_trace_keeps_its_spans(stores: Stores) -> None:
    write(stores, make_trace("t", span_count=3), make_trace("u"))
    stores.deletions.add_hold(hold("t"))
    assert hide(stores, plan(stores, "t.0", "t.1", "u.0")) == HideOutcome(1, 0, 0, 2)
    assert spans_of(stores) == ["t.0", "t.1", "t.2"]
    assert purge(stores)["span"] == 1
    assert stores.deletions.hide_child(CHILD, ONE, None, ALL) is None
    assert [line.trace_id for line in stores.deletions.manifest(CHILD)] == ["t/t.0", "t/t.1"]
    stores.deletions.release_hold("hold_1", 9)
    assert stores.deletions.hide_child(CHILD, ONE, None, ALL) == HideOutcome(2, 0, 0)
    assert spans_of(stores) == ["t.2"]
    assert purge(stores, CHILD)["span"] == 2


@pytest.mark.parametrize("span_ids", [["t.0"], ["t.0", "t.1"]])
def test_a_hold_that_comes_after_the_hide_keeps_what_is_hidden(stores: Stores, span_ids: list[str]) -> None:
    write(stores, make_trace("t"))
    hide(stores, plan(stores, *span_ids))
    stores.deletions.add_hold(hold("t"))
    assert stores.deletions.purge_batch("del_1", 0, rows_max=100) == ({}, False)
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.outcome == HideOutcome(0, 0, 0, len(span_ids))
    stores.deletions.release_hold("hold_1", 9)
    assert stores.deletions.hide_child(CHILD, ONE, None, ALL) == HideOutcome(len(span_ids), 0, 0)
    assert purge(stores, CHILD)["span"] == len(span_ids)


def test_a_cancel_brings_back_spans_beside_what_came_since(stores: Stores) -> None:
    file = Attachment("t.0", "f", "text/plain", b"one")
    write(stores, make_trace("t")._replace(attachments=(file,)))
    put(stores, said(1, "t"), said(2, "t", "t.0"))
    hide(stores, plan(stores, "t.0", "t.1"))
    other = Attachment("t.2", "f", "text/plain", b"two")
    write(stores, make_batch("t", [make_span("t.2")])._replace(attachments=(other,)))
    put(stores, said(7, "t", name="n1", at_s=5))
    assert stores.deletions.cancel("del_1") == 2
    assert stores.deletions.cancel("del_1") == 0
    assert spans_of(stores) == ["t.0", "t.1", "t.2"]
    rows = stores.annotations.list_annotations(ONE, AnnotationQuery(), limit=9)
    assert sorted(row.annotation.name for row in rows) == ["n1", "n2"], "of the two words the later one"
    for span_id, data in (("t.0", b"one"), ("t.2", b"two")):
        found = stores.spans.read_attachment(ONE, "t", span_id, "f")
        assert found is not None
        assert b"".join(found[1]) == data
    assert write(stores, make_batch("t", [make_span("t.3")])) == [(1, 0, None)]


def test_no_cancel_brings_back_a_span_of_a_trace_that_was_deleted(stores: Stores) -> None:
    write(stores, make_trace("t"))
    hide(stores, plan(stores, "t.0"))
    stores.deletions.hide("del_2", ONE, None, ALL, stores.deletions.plan_ids(ONE, ["t"], ALL), b"")
    with pytest.raises(Conflict) as refused:
        stores.deletions.cancel("del_1")
    assert refused.value.code == "trace_deleted"
    assert stores.deletions.cancel("del_2") == 1
    assert stores.deletions.cancel("del_1") == 1
    assert spans_of(stores) == ["t.0", "t.1"]
