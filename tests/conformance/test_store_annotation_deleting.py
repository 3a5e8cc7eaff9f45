"""What every store must hold of deleting annotations by themselves: hidden from all reads at once, nothing of them
left, and nobody kept from saying the same again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.errors import Conflict
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, SomeEntry, SomeSpan
from clearspan.query.fields import Collection, field_named
from clearspan.query.operators import Operator
from clearspan.store.annotation_deletion import PlannedAnnotation, named
from clearspan.store.annotations import AnnotationOutcome, AnnotationQuery, AnnotationWrite
from clearspan.store.port import Breakdown, DeletionKind, HideOutcome, HoldRow, child_id_of
from clearspan.testing.build import SECOND_NS, T0_NS, make_annotation, make_trace, with_metadata
from clearspan.testing.stores import Stores

T = AnnotationTarget
ONE, BOTH = Scope((1,)), Scope((1, 2))
ALL = AnnotationQuery()
CHILD = child_id_of("del_1")


def said(number: int, trace_id: str | None = "t0", **fields: Any) -> Annotation:
    about = {"trace_id": trace_id, "target": T.TRACE, "at_s": number, "name": f"n{number}"}
    return make_annotation(**{"number": number, **about, **fields})


def put(stores: Stores, *annotations: Annotation, project_id: int = 1) -> list[AnnotationOutcome]:
    writes = [AnnotationWrite((project_id,), each) for each in annotations]
    return stores.annotating.put_annotations(writes, received_ns=T0_NS)


def write(stores: Stores, count: int = 3, project_id: int = 1) -> None:
    """Traces t0, t1 … of the session s, with an annotation each, numbered so."""
    context = with_metadata({}, session_id="s")
    for n in range(count):
        stores.writer.write([make_trace(f"t{n}", project_id=project_id, context=context)], received_ns=T0_NS)
        put(stores, said(n, f"t{n}"), project_id=project_id)


def plan(stores: Stores, query: AnnotationQuery = ALL, scope: Scope = ONE, limit: int = 100) -> list[PlannedAnnotation]:
    return stores.deletions.plan_annotations(scope, query, limit=limit)


def hide(
    stores: Stores,
    lines: Sequence[PlannedAnnotation],
    deletion_id: str = "del_1",
    query: AnnotationQuery = ALL,
    **more: Any,
) -> HideOutcome:
    return stores.deletions.hide_annotations(
        deletion_id, ONE, query, lines, b"who and why", **{"manifest_salt": b"s" * 32, **more}
    )


def purge(stores: Stores, deletion_id: str = "del_1", rows_max: int = 2) -> int:
    progress = stores.deletions.progress(deletion_id)
    assert progress is not None
    total, batch_no, more = 0, progress.batches, progress.more
    while more:
        counts, more = stores.deletions.purge_batch(deletion_id, batch_no, rows_max=rows_max)
        assert stores.deletions.purge_batch(deletion_id, batch_no, rows_max=rows_max) == (counts, more), "a repeat"
        assert set(counts) <= {"annotation"}
        total += counts.get("annotation", 0)
        batch_no += 1
    assert not any(stores.deletions.remaining(deletion_id).values())
    stores.deletions.settle(deletion_id)
    assert not any(stores.deletions.remaining(deletion_id).values())
    return total


def ids(stores: Stores, query: AnnotationQuery = ALL, scope: Scope = BOTH) -> list[int]:
    rows = stores.annotations.list_annotations(scope, query, limit=100)
    return sorted(int(row.annotation.annotation_id, 16) for row in rows)


def hold(hold_id: str, *trace_ids: str) -> HoldRow:
    return HoldRow(hold_id, 7, ONE, None, trace_ids or None, Window(), "a lawsuit", 5, "key_1")


def test_a_plan_lists_what_matches_and_shows(stores: Stores) -> None:
    write(stores)
    write(stores, project_id=2)
    put(stores, said(7, "not there", kind=AnnotatorKind.LLM), said(8, key_id="key_9", user_id="user_1"))
    put(stores, said(9, None, target=T.PROJECT))
    assert [line.annotation_id[-1] for line in plan(stores)] == ["0", "1", "2", "7", "8", "9"], "what waits, too"
    assert [line.annotation_id[-1] for line in plan(stores, limit=1)] == ["0", "1"], "one more than the limit"
    for query, numbers in (
        (AnnotationQuery(names=("n1", "n7")), ["1", "7"]),
        (AnnotationQuery(kinds=(AnnotatorKind.LLM,)), ["7"]),
        (AnnotationQuery(key_ids=("key_9",)), ["8"]),
        (AnnotationQuery(user_ids=("user_1",)), ["8"]),
        (AnnotationQuery(targets=(T.PROJECT,)), ["9"]),
        (AnnotationQuery(annotation_ids=(f"{2:032x}", f"{7:032x}")), ["2", "7"]),
        (AnnotationQuery(created=Window(T0_NS + SECOND_NS, T0_NS + 7 * SECOND_NS)), ["1", "2"]),
        (AnnotationQuery(created=Window(T0_NS + SECOND_NS + 1, T0_NS + 7 * SECOND_NS + 1)), ["2", "7"]),
    ):
        assert [line.annotation_id[-1] for line in plan(stores, query)] == numbers, query
    assert plan(stores, scope=Scope(())) == []
    assert stores.deletions.count_annotations(ONE) == 6
    assert stores.deletions.count_annotations(BOTH) == 9
    assert stores.deletions.count_annotations(Scope((1,), "prod")) == 0


def test_hidden_ones_are_gone_from_every_read(stores: Stores) -> None:
    write(stores)
    about = Condition(field_named("annotation_name"), Operator.EQUALS, ("n1",))
    asks = SomeSpan(SomeEntry(Collection.ANNOTATIONS, about))
    assert stores.reader.count_traces(ONE, asks, Window()) == 1
    put(stores, said(7, "not there"))
    assert stores.annotations.annotation_figures().waiting == 1
    lines = plan(stores, AnnotationQuery(annotation_ids=(f"{1:032x}", f"{7:032x}")))
    assert hide(stores, lines) == HideOutcome(2, 0, 0, 0)
    assert ids(stores) == [0, 2]
    assert ids(stores, AnnotationQuery(annotation_ids=(f"{1:032x}", f"{7:032x}"))) == []
    assert stores.reader.count_traces(ONE, asks, Window()) == 0
    assert stores.spans.list_spans(ONE, SomeEntry(Collection.ANNOTATIONS, about), Window(), limit=5).rows == []
    assert stores.annotations.annotation_figures().waiting == 0
    pks = [line.trace_pk for line in stores.deletions.plan(ONE, None, Window(), received_before_ns=2**62, limit=9)]
    told = stores.annotations.annotations_of(pks)
    assert sorted(row.annotation.name for rows in told.values() for row in rows) == ["n0", "n2"]
    assert [line.annotation_id[-1] for line in plan(stores)] == ["0", "2"]
    assert stores.reader.count_traces(ONE, None, Window()) == 3, "their traces stay"
    assert stores.deletions.annotation_samples([line.row_no for line in lines]) == []
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.kind is DeletionKind.ANNOTATIONS
    assert progress.more
    assert stores.deletions.manifest("del_1") == [], "it lists no traces"
    assert stores.deletions.annotation_manifest("del_1") == lines


def test_a_purge_removes_them_and_settle_their_ids(stores: Stores) -> None:
    write(stores, 5)
    lines = plan(stores, AnnotationQuery(names=("n0", "n1", "n3")))
    hide(stores, lines)
    before = stores.deletions.leaves("del_1")
    assert purge(stores) == 3
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.settled
    assert progress.request is None
    assert progress.purged == {"annotation": 3}
    assert stores.deletions.annotation_manifest("del_1") == []
    assert stores.deletions.leaves("del_1") == before
    assert len(set(before)) == 3
    assert ids(stores) == [2, 4]
    assert named(lines)[0] == (1, f"annotation:{0:032x}")


def test_hiding_again_changes_nothing(stores: Stores) -> None:
    write(stores)
    lines = plan(stores)
    assert hide(stores, lines[:2]) == hide(stores, lines[:2]) == HideOutcome(2, 0, 0, 0)
    assert hide(stores, lines, "del_2") == HideOutcome(1, 0, 2, 0), "what another deletion took is absent"
    purge(stores)
    assert hide(stores, lines[:2]) == HideOutcome(2, 0, 0, 0)
    assert purge(stores, "del_2") == 1


def test_what_changed_so_that_it_no_longer_matches_is_left_alone(stores: Stores) -> None:
    write(stores)
    query = AnnotationQuery(kinds=(AnnotatorKind.HUMAN,))
    lines = plan(stores, query)
    put(stores, said(1, "t1", kind=AnnotatorKind.LLM))
    with pytest.raises(Conflict) as refused:
        hide(stores, lines, query=query, exact=True)
    assert refused.value.code == "plan_mismatch"
    assert stores.deletions.progress("del_1") is None
    assert hide(stores, lines, query=query) == HideOutcome(2, 1, 0, 0)
    assert ids(stores) == [1]


def test_a_preview_is_used_up_by_the_hide(stores: Stores) -> None:
    write(stores)
    stores.deletions.save_preview(b"k", b"body", 2**60)
    assert hide(stores, plan(stores), exact=True, preview_key=b"k").hidden == 3
    assert stores.deletions.get_preview(b"k") is None
    with pytest.raises(Conflict) as refused:
        hide(stores, [], "del_2", preview_key=b"k")
    assert refused.value.code == "plan_used_or_unknown"


def test_the_same_can_be_said_anew(stores: Stores) -> None:
    """A write after the hide is another row, which the deletion does not take."""
    write(stores)
    hide(stores, plan(stores))
    (outcome,) = put(stores, said(1, "t1", explanation="anew"))
    assert outcome.deletion_id is None
    put(stores, said(20, "t2", name="n2", explanation="under another id"))
    assert ids(stores) == [1, 20]
    assert purge(stores) == 3
    assert ids(stores) == [1, 20]
    lines = plan(stores)
    assert hide(stores, lines, "del_2").hidden == 2
    put(stores, said(1, "t1", explanation="for the third time"))
    assert purge(stores, "del_2") == 2
    assert ids(stores) == [1]


def test_cancelling_shows_them_again(stores: Stores) -> None:
    write(stores)
    put(stores, said(7, "later"), said(8, None, target=T.SESSION, session_id="s2"))
    hide(stores, plan(stores, AnnotationQuery(names=("n0", "n1", "n7", "n8"))))
    put(stores, said(1, "t1", explanation="anew"))
    context = with_metadata({}, session_id="s2")
    stores.writer.write([make_trace("later", context=context)], received_ns=T0_NS)
    assert ids(stores) == [1, 2]
    assert stores.deletions.cancel("del_1") == 4
    assert stores.deletions.cancel("del_1") == 0
    assert ids(stores) == [0, 1, 2, 7, 8], "those whose target came meanwhile are where they belong"
    anew = stores.annotations.list_annotations(ONE, AnnotationQuery(names=("n1",)), limit=9)
    assert [row.annotation.explanation for row in anew] == ["anew"], "the later word stays"
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.cancelled
    assert progress.request is None
    assert stores.deletions.annotation_manifest("del_1") == stores.deletions.leaves("del_1") == []
    with pytest.raises(Conflict) as refused:
        stores.deletions.purge_batch("del_1", 0, rows_max=9)
    assert refused.value.code == "cancelled"
    assert hide(stores, plan(stores), "del_2").hidden == 5
    assert purge(stores, "del_2") == 5


def test_a_purge_that_began_cannot_be_cancelled(stores: Stores) -> None:
    write(stores)
    hide(stores, plan(stores))
    stores.deletions.purge_batch("del_1", 0, rows_max=1)
    with pytest.raises(Conflict) as refused:
        stores.deletions.cancel("del_1")
    assert refused.value.code == "purge_begun"


def test_an_annotation_of_a_held_trace_is_held(stores: Stores) -> None:
    write(stores, 4)
    put(stores, said(9, None, target=T.SESSION, session_id="s"), said(10, None, target=T.PROJECT))
    stores.deletions.add_hold(hold("h1", "t1"))
    lines = plan(stores)
    assert stores.deletions.annotations_held([line.row_no for line in lines]) == {"h1": 2}
    assert stores.deletions.annotations_held_among([line.row_no for line in lines]) == 2
    assert hide(stores, lines) == HideOutcome(4, 0, 0, 2)
    assert ids(stores) == [1, 9], "t1's, and what was said of its session"
    assert [line.annotation_id[-1] for line in stores.deletions.annotation_manifest(CHILD)] == ["1", "9"]
    progress = stores.deletions.progress(CHILD)
    assert progress is not None
    assert progress.is_waiting
    assert progress.kind is DeletionKind.ANNOTATIONS
    assert stores.deletions.hide_annotation_child(CHILD, ONE, ALL) is None, "the parent is not finished"
    assert purge(stores) == 4
    assert stores.deletions.hide_annotation_child(CHILD, ONE, ALL) is None, "it is held"
    stores.deletions.release_hold("h1", 9)
    assert stores.deletions.hide_annotation_child(CHILD, ONE, ALL) == HideOutcome(2, 0, 0, 0)
    assert ids(stores) == []
    assert purge(stores, CHILD) == 2


def test_a_hold_between_hide_and_purge_keeps_them_hidden(stores: Stores) -> None:
    write(stores)
    hide(stores, plan(stores))
    stores.deletions.add_hold(hold("h1", "t0", "t2"))
    assert purge(stores) == 1
    progress = stores.deletions.progress("del_1")
    assert progress is not None
    assert progress.outcome == HideOutcome(1, 0, 0, 2)
    assert ids(stores) == [], "hidden stays hidden"
    stores.deletions.release_hold("h1", 9)
    stores.deletions.add_hold(hold("h2", "t2"))
    assert stores.deletions.hide_annotation_child(CHILD, ONE, ALL) == HideOutcome(1, 0, 0, 1)
    assert purge(stores, CHILD) == 1
    assert stores.deletions.cancel(child_id_of(CHILD)) == 1
    assert ids(stores) == [2], "who cancels the child shows what the hold kept"


def test_a_hold_of_everything_keeps_what_belongs_to_no_trace(stores: Stores) -> None:
    put(stores, said(1, None, target=T.PROJECT), said(2, "not there"))
    stores.deletions.add_hold(hold("h1"))
    assert hide(stores, plan(stores)) == HideOutcome(0, 0, 0, 2)
    assert ids(stores) == [1]


def test_a_deletion_of_the_trace_takes_what_is_hidden(stores: Stores) -> None:
    write(stores)
    hide(stores, plan(stores))
    lines = stores.deletions.plan_ids(ONE, ["t1"], Window())
    stores.deletions.hide("del_2", ONE, None, Window(), lines, b"")
    counts, more = stores.deletions.purge_batch("del_2", 0, rows_max=999)
    assert (counts["annotation"], more) == (1, False)
    assert purge(stores) == 2, "each row is counted where it was removed"
    write_again = stores.deletions.plan_ids(ONE, ["t0"], Window())
    stores.deletions.hide("del_3", ONE, None, Window(), write_again, b"")
    assert plan(stores) == []


def test_annotations_of_hidden_traces_are_absent(stores: Stores) -> None:
    write(stores)
    lines = plan(stores)
    stores.deletions.hide("del_2", ONE, None, Window(), stores.deletions.plan_ids(ONE, ["t1"], Window()), b"")
    assert hide(stores, lines) == HideOutcome(2, 0, 1, 0)


def test_where_they_lie(stores: Stores) -> None:
    write(stores)
    put(stores, said(86_400, "t1"))
    row_nos = [line.row_no for line in plan(stores)]
    told = stores.deletions.annotation_breakdown(row_nos)
    assert isinstance(told, Breakdown)
    assert sorted(told.by_day.values()) == [1, 3]
    assert told.by_project == {1: 4}
    samples = stores.deletions.annotation_samples(row_nos)
    assert [row.annotation.name for row in samples] == ["n0", "n1", "n2", "n86400"]


def test_survivors_are_found_by_number(stores: Stores) -> None:
    """Nothing is left here to be found; that rows which a purge left behind are, tests/unit shows with triggers."""
    write(stores)
    hide(stores, plan(stores))
    with pytest.raises(ValueError, match="not finished"):
        stores.deletions.purge_survivors("del_1", -1, rows_max=9)
    purge(stores)
    above: int | None = -1
    while above is not None:
        counts, above = stores.deletions.purge_survivors("del_1", above, rows_max=2)
        assert not any(counts.values())
