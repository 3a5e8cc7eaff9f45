"""What every store must hold of annotations: one row a key, nothing lost that waits, nothing left that was deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.errors import Conflict
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.store.annotations import (
    NEW_PROJECTS,
    AnnotationChange,
    AnnotationFigures,
    AnnotationOutcome,
    AnnotationQuery,
    AnnotationWrite,
)
from clearspan.testing.build import SECOND_NS, T0_NS, make_annotation, make_batch, make_span, make_trace
from clearspan.testing.stores import Stores

T = AnnotationTarget
ONE, TWO, BOTH = Scope((1,)), Scope((2,)), Scope((1, 2))
ALL = AnnotationQuery()


def put(
    stores: Stores,
    *annotations: Annotation,
    projects: tuple[int, ...] = (1,),
    received_ns: int = T0_NS,
    must_exist: bool = False,
) -> list[AnnotationOutcome]:
    writes = [AnnotationWrite(projects, each, must_exist) for each in annotations]
    return stores.annotating.put_annotations(writes, received_ns=received_ns)


def on_span(span_id: str = "t.0", trace_id: str | None = "t", **fields: Any) -> Annotation:
    return make_annotation(**{"number": 1, **fields}, trace_id=trace_id, span_id=span_id)


def on_trace(trace_id: str = "t", **fields: Any) -> Annotation:
    return make_annotation(**{"number": 2, **fields}, target=T.TRACE, trace_id=trace_id)


def on_session(session_id: str = "s", **fields: Any) -> Annotation:
    return make_annotation(**{"number": 3, **fields}, target=T.SESSION, session_id=session_id)


def listed(stores: Stores, query: AnnotationQuery = ALL, scope: Scope = BOTH, **page: Any) -> list[Annotation]:
    rows = stores.annotations.list_annotations(scope, query, **{"limit": 100, **page})
    return [row.annotation for row in rows]


def ids(stores: Stores, query: AnnotationQuery = ALL, scope: Scope = BOTH) -> list[int]:
    return sorted(int(each.annotation_id, 16) for each in listed(stores, query, scope))


def by_id(stores: Stores, number: int, scope: Scope = BOTH) -> list[Annotation]:
    return listed(stores, AnnotationQuery(annotation_ids=(f"{number:032x}",)), scope)


def write(stores: Stores, trace_id: str = "t", *, project_id: int = 1, **fields: Any) -> None:
    stores.writer.write([make_trace(trace_id, project_id=project_id, **fields)], received_ns=T0_NS)


def delete(stores: Stores, *trace_ids: str, deletion_id: str = "del_1", rows_max: int = 100) -> Counter[str]:
    hide(stores, *trace_ids, deletion_id=deletion_id)
    return purge(stores, deletion_id, rows_max)


def hide(stores: Stores, *trace_ids: str, deletion_id: str = "del_1") -> None:
    manifest = stores.deletions.plan_ids(ONE, trace_ids, Window())
    assert len(manifest) == len(trace_ids)
    stores.deletions.hide(deletion_id, ONE, None, Window(), manifest, b"why")


def purge(stores: Stores, deletion_id: str, rows_max: int = 100) -> Counter[str]:
    counts: Counter[str] = Counter()
    batch_no, more = 0, True
    while more:
        batch, more = stores.deletions.purge_batch(deletion_id, batch_no, rows_max=rows_max)
        counts.update(batch)
        batch_no += 1
    assert set(stores.deletions.remaining(deletion_id).values()) == {0}
    return counts


# -- writing ------------------------------------------------------------------------------------------------------


def test_everything_that_was_said_is_read_back(stores: Stores) -> None:
    write(stores)
    said = on_span(
        kind=AnnotatorKind.LLM, label="good", score=0.25, explanation="because ü", value=b'{"a":[1,null]}',
        correction=b'"x"', metadata=b'{"k":1}', source="auto_eval", extra=b'{"score":true}', at_s=3.5,
        document_position=None, key_id="key_1", user_id="user_1", identifier="i",
    )  # fmt: skip
    document = on_span(number=4, target=T.DOCUMENT, document_position=2)
    project = make_annotation(number=5, target=T.PROJECT, score=1.0)
    outcomes = put(stores, said, document, project)
    assert outcomes == [AnnotationOutcome(each.annotation_id, 1) for each in (said, document, project)]
    assert listed(stores) == [project, document, said]
    rows = stores.annotations.list_annotations(ONE, ALL, limit=10)
    assert [(row.project_id, row.is_waiting) for row in rows] == [(1, False)] * 3
    assert [row.row_no for row in rows] == sorted((row.row_no for row in rows), reverse=True)


def test_the_same_key_replaces_what_was_said_and_keeps_id_and_creation(stores: Stores) -> None:
    write(stores)
    put(stores, on_span(score=1.0, explanation="first", user_id="ann"))
    again = on_span(number=9, score=0.0, user_id="bob", kind=AnnotatorKind.CODE, at_s=5)
    (outcome,) = put(stores, again)
    assert outcome == AnnotationOutcome(f"{1:032x}", 1)
    assert listed(stores) == [again._replace(annotation_id=f"{1:032x}", created_ns=T0_NS)]


@pytest.mark.parametrize(
    "other",
    [
        on_span(number=9, name="other"),
        on_span(number=9, identifier="i"),
        on_span("t.1", number=9),
        on_trace("t", number=9),
        on_span(number=9, target=T.DOCUMENT, document_position=0),
        on_session("t.0", number=9),
    ],
)
def test_each_part_of_the_key_tells_apart(stores: Stores, other: Annotation) -> None:
    write(stores)
    write(stores, "u", context=SpanContext(session_id="t.0"))
    put(stores, on_span(), other)
    assert ids(stores, AnnotationQuery(annotation_ids=(f"{1:032x}", f"{9:032x}"))) == [1, 9]


def test_the_same_key_in_another_project_is_another_annotation(stores: Stores) -> None:
    write(stores)
    write(stores, project_id=2)
    put(stores, on_span(score=1.0))
    put(stores, on_span(score=0.0), projects=(2,))
    assert [each.score for each in listed(stores, scope=ONE)] == [1.0]
    assert [each.score for each in listed(stores, scope=TWO)] == [0.0]


def test_of_two_with_one_key_in_one_call_the_later_wins_and_both_get_its_id(stores: Stores) -> None:
    write(stores)
    first, second = put(stores, on_span(score=1.0), on_span(number=9, score=0.0))
    assert first.annotation_id == second.annotation_id == f"{1:032x}"
    assert [each.score for each in listed(stores)] == [0.0]


def test_an_id_that_is_taken_moves_its_row_to_the_new_key(stores: Stores) -> None:
    write(stores)
    put(stores, on_span(score=1.0))
    put(stores, on_span(name="renamed", score=0.5, at_s=9))
    assert [(each.name, each.score, each.created_ns) for each in listed(stores)] == [("renamed", 0.5, T0_NS)]


def test_the_first_project_that_holds_the_target_gets_it(stores: Stores) -> None:
    write(stores, project_id=2)
    stores.writer.write([make_batch("t", [make_span("elsewhere")])], received_ns=T0_NS)
    (outcome,) = put(stores, on_span(), projects=(1, 2))
    assert outcome.project_id == 2, "project 1 has the trace, but not the span"
    (outcome,) = put(stores, on_trace(), projects=(1, 2))
    assert outcome.project_id == 1


def test_a_missing_target_that_must_exist_voids_the_whole_call(stores: Stores) -> None:
    write(stores)
    found, missing = put(stores, on_span(), on_span("unknown", number=9), must_exist=True)
    assert (found.project_id, found.is_missing) == (None, False)
    assert (missing.project_id, missing.is_missing) == (None, True)
    assert listed(stores) == by_id(stores, 1) == by_id(stores, 9) == []
    assert stores.annotations.annotation_figures() == AnnotationFigures(0, 0)


# -- changing -----------------------------------------------------------------------------------------------------


def change(at_s: float = 7, extra: dict[str, object] | None = None, **fields: object) -> AnnotationChange:
    return AnnotationChange(fields, extra or {}, T0_NS + round(at_s * SECOND_NS), "key_2", None)


def test_a_change_names_what_changes(stores: Stores) -> None:
    write(stores)
    put(stores, on_span(score=1.0, explanation="why", extra=b'{"score":true,"group":"g"}', user_id="ann"))
    row = stores.annotating.patch_annotation(ONE, f"{1:032x}", change(score=0.5, extra={"score": None}))
    assert row is not None
    expected = on_span(
        score=0.5, explanation="why", extra=b'{"group":"g"}', updated_ns=T0_NS + 7 * SECOND_NS, key_id="key_2"
    )
    assert row.annotation == expected
    assert listed(stores) == [expected]
    stores.annotating.patch_annotation(ONE, f"{1:032x}", change(explanation=None, value=b"[1]"))
    assert [(each.explanation, each.score, each.value) for each in listed(stores)] == [(None, 0.5, b"[1]")]


def test_what_the_scope_does_not_show_cannot_be_changed(stores: Stores) -> None:
    write(stores)
    put(stores, on_span(score=1.0))
    patch = stores.annotating.patch_annotation
    assert patch(TWO, f"{1:032x}", change(score=0.0)) is None
    assert patch(Scope((1,), "prod"), f"{1:032x}", change(score=0.0)) is None
    assert patch(ONE, f"{9:032x}", change(score=0.0)) is None
    hide(stores, "t")
    assert patch(ONE, f"{1:032x}", change(score=0.0)) is None
    stores.deletions.cancel("del_1")
    assert [each.score for each in listed(stores)] == [1.0]
    with pytest.raises(ValueError, match="name"):
        patch(ONE, f"{1:032x}", change(name="other"))


# -- waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [on_span(), on_trace(), on_session(), on_span(trace_id=None)], ids=["span", "trace", "session", "bare span"]
)
def test_what_comes_before_its_target_waits_and_is_not_lost(stores: Stores, said: Annotation) -> None:
    number = int(said.annotation_id, 16)
    (outcome,) = put(stores, said)
    assert outcome == AnnotationOutcome(said.annotation_id, 1, is_waiting=True)
    assert listed(stores) == []
    assert by_id(stores, number) == [said]
    assert by_id(stores, number, TWO) == by_id(stores, number, Scope((1,), "prod")) == []
    assert stores.annotations.annotation_figures().waiting == 1
    write(stores, "other", context=SpanContext(session_id="another"))
    assert listed(stores) == []
    write(stores, context=SpanContext(session_id="s"))
    arrived = said._replace(trace_id="t") if said.target is T.SPAN else said
    assert listed(stores) == by_id(stores, number) == [arrived]
    assert stores.annotations.annotation_figures() == AnnotationFigures(0, 0)
    assert put(stores, arrived)[0] == AnnotationOutcome(said.annotation_id, 1), "and its key is that of any other"
    assert len(listed(stores)) == 1


def test_what_waits_for_a_span_belongs_to_its_trace_already(stores: Stores) -> None:
    write(stores)
    put(stores, on_span("late"))
    assert listed(stores) == []
    stores.writer.write([make_batch("t", [make_span("late")])], received_ns=T0_NS)
    assert listed(stores) == [on_span("late")]
    put(stores, on_span("later", number=9))
    assert delete(stores, "t")["annotation"] == 2
    assert by_id(stores, 1) == by_id(stores, 9) == []
    assert stores.annotations.annotation_figures() == AnnotationFigures(0, 0)


def test_what_waits_is_attached_in_whichever_of_its_projects_the_target_arrives(stores: Stores) -> None:
    put(stores, on_span(), on_session(), projects=(2, 1))
    write(stores, project_id=3, context=SpanContext(session_id="s"))
    assert stores.annotations.annotation_figures().waiting == 2
    write(stores, context=SpanContext(session_id="s"))
    assert ids(stores, scope=ONE) == [1, 3]
    assert ids(stores, scope=TWO) == []


def test_what_is_attached_meets_its_own_key(stores: Stores) -> None:
    put(stores, on_span(score=0.5, at_s=5), projects=(2, 1))
    put(stores, on_span(number=9, score=1.0, at_s=1))
    write(stores)
    assert [(int(each.annotation_id), each.score) for each in listed(stores)] in ([(1, 0.5)], [(9, 0.5)])
    put(stores, on_trace(score=0.5, at_s=1), projects=(2, 3))
    write(stores, project_id=3)
    put(stores, on_trace(number=8, score=1.0, at_s=5), projects=(3,))
    assert [each.score for each in listed(stores, AnnotationQuery(targets=(T.TRACE,)), Scope((2, 3)))] == [1.0]
    assert stores.annotations.annotation_figures().waiting == 0


def test_what_waits_for_new_projects_finds_its_target_in_them(stores: Stores) -> None:
    put(stores, on_span(), projects=(1, NEW_PROJECTS))
    put(stores, on_span("u.0", "u", number=2), projects=(1, NEW_PROJECTS))
    put(stores, on_span("v.0", "v", number=7), projects=(1,))
    write(stores, project_id=2)
    write(stores, "v", project_id=2)
    assert listed(stores) == []
    assert stores.annotating.widen_waiting((3, 4)) == 0, "another organisation's"
    assert stores.annotating.widen_waiting((1, 2)) == 2
    assert ids(stores, scope=TWO) == [1]
    assert stores.annotating.widen_waiting((1, 2)) == 0
    write(stores, "u", project_id=2)
    assert ids(stores, scope=TWO) == [1, 2]
    assert stores.annotations.annotation_figures().waiting == 1


def test_new_projects_are_searched_for_spans_without_a_trace_and_for_sessions(stores: Stores) -> None:
    otlp = f"{7:016x}"
    put(
        stores,
        on_span(trace_id=None),
        on_span(otlp, None, number=2),
        on_session(),
        on_session("elsewhere", number=4),
        projects=(1, NEW_PROJECTS),
    )
    write(stores, project_id=2, context=SpanContext(session_id="s"))
    stores.writer.write([make_batch("u", [make_span(otlp)], project_id=2)], received_ns=T0_NS)
    assert listed(stores) == []
    assert stores.annotating.widen_waiting((1, 2)) == 4
    assert ids(stores, scope=TWO) == [1, 2, 3]
    assert {each.trace_id for each in listed(stores, AnnotationQuery(targets=(T.SPAN,)))} == {"t", "u"}
    assert stores.annotations.annotation_figures().waiting == 1


def test_what_waits_in_vain_expires_and_is_counted(stores: Stores) -> None:
    put(stores, on_span(), on_session(), received_ns=T0_NS)
    put(stores, on_span("late", number=9), received_ns=T0_NS + 1)
    assert stores.annotating.expire_annotations(T0_NS) == 0
    assert stores.annotating.expire_annotations(T0_NS + 1) == 2
    assert by_id(stores, 1) == []
    assert stores.annotations.annotation_figures() == AnnotationFigures(1, 2)
    write(stores)
    stores.writer.write([make_batch("t", [make_span("late")])], received_ns=T0_NS)
    assert ids(stores) == [9]
    assert stores.annotating.expire_annotations(T0_NS + 10**18) == 0, "what does not wait does not expire"
    assert stores.annotations.annotation_figures() == AnnotationFigures(0, 2)


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (AnnotationQuery(targets=(T.TRACE,)), [2]),
        (AnnotationQuery(trace_ids=("t",)), [1, 2, 6]),
        (AnnotationQuery(trace_ids=("u", "nowhere")), [7]),
        (AnnotationQuery(span_ids=("t.0", "u.0")), [1, 6, 7]),
        (AnnotationQuery(span_ids=("t.0",), names=("tone",)), [6]),
        (AnnotationQuery(session_ids=("s",)), [3]),
        (AnnotationQuery(names=("quality",)), [1, 2, 3]),
        (AnnotationQuery(names_not=("quality",)), [5, 6, 7]),
        (AnnotationQuery(identifiers=("i",)), [6]),
        (AnnotationQuery(kinds=(AnnotatorKind.CODE,)), [7]),
        (AnnotationQuery(sources=("app",)), [5]),
        (AnnotationQuery(user_ids=("ann",)), [1]),
        (AnnotationQuery(has_comment=True), [2]),
        (AnnotationQuery(has_comment=False, has_score=True), [1, 7]),
        (AnnotationQuery(created=Window(T0_NS + 6 * SECOND_NS, T0_NS + 7 * SECOND_NS)), [6]),
        (AnnotationQuery(names=("tone",), created=Window(T0_NS + 7 * SECOND_NS)), [7]),
        (AnnotationQuery(annotation_ids=(f"{2:032x}",), names=("tone",)), []),
    ],
)
def test_a_list_holds_what_meets_every_condition(stores: Stores, query: AnnotationQuery, expected: list[int]) -> None:
    write(stores, context=SpanContext(session_id="s"))
    write(stores, "u", project_id=2)
    put(
        stores,
        on_span(score=1.0, user_id="ann"),
        on_trace(explanation="said", score=0.0),
        on_session(),
        make_annotation("project", number=5, target=T.PROJECT, source="app"),
        on_span(number=6, name="tone", identifier="i", at_s=6),
    )
    put(stores, on_span("u.0", "u", number=7, name="tone", kind=AnnotatorKind.CODE, score=0.5, at_s=7), projects=(2,))
    assert ids(stores, query) == expected
    assert ids(stores, query, ONE) == [number for number in expected if number != 7]
    assert ids(stores, query, Scope(())) == []


def test_lists_go_on_by_row_or_by_offset(stores: Stores) -> None:
    write(stores)
    put(stores, *(on_span(number=n, identifier=str(n)) for n in range(1, 8)))
    numbers = [7, 6, 5, 4, 3, 2, 1]
    rows = stores.annotations.list_annotations(ONE, ALL, limit=3)
    assert [int(row.annotation.annotation_id, 16) for row in rows] == numbers[:3]
    rest = listed(stores, before_row=rows[-1].row_no)
    assert [int(each.annotation_id, 16) for each in rest] == numbers[3:]
    assert [int(each.annotation_id, 16) for each in listed(stores, offset=2, limit=2)] == numbers[2:4]
    assert [int(each.annotation_id, 16) for each in listed(stores, scope=BOTH, limit=2)] == numbers[:2]


def test_an_environment_sees_its_own(stores: Stores) -> None:
    write(stores, context=SpanContext(environment="prod", session_id="s"))
    put(stores, on_span(), on_trace(), on_session(), make_annotation(number=5, target=T.PROJECT))
    assert ids(stores, scope=Scope((1,), "prod")) == [1, 2, 3]
    assert ids(stores, scope=Scope((1,), "test")) == []


def test_annotations_of_traces(stores: Stores) -> None:
    write(stores, context=SpanContext(session_id="s"))
    write(stores, "u", project_id=2)
    write(stores, "silent")
    put(stores, on_span(), on_trace(), on_session(), on_span("missing", number=8))
    put(stores, on_span("u.0", "u", number=7), projects=(2,))
    pks = [line.trace_pk for line in stores.deletions.plan_ids(BOTH, ("t", "u", "silent"), Window())]
    found = stores.annotations.annotations_of(pks)
    assert {pk: [int(row.annotation.annotation_id, 16) for row in rows] for pk, rows in found.items()} == {
        pks[0]: [1, 2], pks[1]: [7],
    }  # fmt: skip
    hide(stores, "t")
    assert stores.annotations.annotations_of(pks).keys() == {pks[1]}


# -- deleting -----------------------------------------------------------------------------------------------------


def test_annotations_share_the_fate_of_their_trace(stores: Stores) -> None:
    write(stores)
    write(stores, "stays")
    put(stores, on_span(), on_trace(), on_span(number=6, target=T.DOCUMENT, document_position=0))
    put(stores, on_span("stays.0", "stays", number=7))
    (line,) = stores.deletions.plan_ids(ONE, ("t",), Window())
    assert stores.deletions.count_targets([line.trace_pk])["annotation"] == 3
    hide(stores, "t")
    assert ids(stores) == [7]
    assert by_id(stores, 1) == []
    stores.deletions.cancel("del_1")
    assert ids(stores) == [1, 2, 6, 7]
    assert delete(stores, "t", deletion_id="del_2")["annotation"] == 3
    assert ids(stores) == [7]


@pytest.mark.parametrize("rows_max", [1, 3, 100])
def test_many_annotations_of_one_trace_go_in_batches(stores: Stores, rows_max: int) -> None:
    write(stores)
    put(stores, *(on_span(number=n, identifier=str(n)) for n in range(1, 12)))
    assert delete(stores, "t", rows_max=rows_max)["annotation"] == 11


def test_late_annotations_are_refused_and_counted(stores: Stores) -> None:
    write(stores)
    hide(stores, "t")
    for number, said in enumerate((on_span(), on_trace(), on_span("unknown", number=9))):
        (outcome,) = put(stores, said)
        assert outcome == AnnotationOutcome(said.annotation_id, None, deletion_id="del_1")
        progress = stores.deletions.progress("del_1")
        assert progress is not None
        assert progress.late_refused == number + 1
    purge(stores, "del_1")
    assert put(stores, on_span())[0].deletion_id == "del_1"
    assert put(stores, on_span(), must_exist=True)[0].deletion_id == "del_1"
    assert put(stores, on_span(), projects=(2, 1))[0].deletion_id == "del_1", "refused in one of its projects"
    (outcome,) = put(stores, on_span(), projects=(2,))
    assert outcome.is_waiting, "a trace of that id in another project is another trace"
    stores.deletions.lift_tombstone(1, "t")
    assert put(stores, on_span())[0].is_waiting


def test_a_session_s_annotation_goes_with_its_last_trace(stores: Stores) -> None:
    for trace_id in ("a", "b", "c"):
        write(stores, trace_id, context=SpanContext(session_id="s"))
    write(stores, "d", project_id=2, context=SpanContext(session_id="s"))
    put(stores, on_session(), on_session(number=6, name="other"))
    put(stores, on_session(number=7), projects=(2,))
    lines = stores.deletions.plan_ids(ONE, ("a", "b", "c"), Window())
    pks = [line.trace_pk for line in lines]
    assert stores.deletions.count_targets(pks[:2])["annotation"] == 0
    assert stores.deletions.count_targets(pks)["annotation"] == 2
    assert delete(stores, "a").get("annotation", 0) == 0
    assert ids(stores) == [3, 6, 7]
    hide(stores, "b", "c", deletion_id="del_2")
    assert ids(stores) == [7], "no trace of the session can be seen"
    assert put(stores, on_session(number=9, name="late"))[0].deletion_id == "del_2"
    stores.deletions.cancel("del_2")
    assert ids(stores) == [3, 6, 7]
    assert delete(stores, "b", "c", deletion_id="del_3", rows_max=2)["annotation"] == 2
    assert ids(stores) == [7]
    assert by_id(stores, 3) == []
    assert put(stores, on_session())[0].is_waiting, "nothing is left of the session, not even its name"


def test_what_was_said_of_a_project_goes_with_it(stores: Stores) -> None:
    write(stores)
    put(stores, on_span(), make_annotation(number=5, target=T.PROJECT), on_span("late", "unknown", number=8))
    put(stores, make_annotation(number=6, target=T.PROJECT), projects=(2,))
    assert stores.annotating.purge_project_annotations(1) == 2
    assert stores.annotating.purge_project_annotations(1) == 0
    assert ids(stores) == [1, 6]


def test_a_session_that_its_traces_leave_waits_again(stores: Stores) -> None:
    old = make_span("r", context=SpanContext(session_id="s"))
    stores.writer.write([make_batch("t", [old])], received_ns=T0_NS)
    put(stores, on_session())
    new = make_span("r", duration_s=9, context=SpanContext(session_id="another"))
    stores.writer.write([make_batch("t", [new])], received_ns=T0_NS + 5)
    assert listed(stores) == []
    assert stores.annotations.annotation_figures().waiting == 1
    assert stores.annotating.expire_annotations(T0_NS + 5) == 0
    assert stores.annotating.expire_annotations(T0_NS + 6) == 1


def test_a_change_may_not_bring_back_what_is_being_purged(make_stores: Callable[[], Stores]) -> None:
    stores = make_stores()
    write(stores)
    put(stores, on_span())
    delete(stores, "t")
    assert stores.annotating.patch_annotation(ONE, f"{1:032x}", change(score=0.0)) is None
    assert by_id(stores, 1) == []
    with pytest.raises(Conflict):
        stores.deletions.cancel("del_1")
