"""Traces that move to another project, with all that belongs to them, and what follows them there."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from typing import Any

import pytest

from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.errors import Conflict, NotFound
from clearspan.model.span import Attachment, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import METADATA
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.annotations import AnnotationQuery, AnnotationRow, AnnotationWrite
from clearspan.store.port import HoldRow, WriteOutcome
from clearspan.store.transfer import OpenTransfer, TransferOrder
from clearspan.testing.build import T0_NS, make_annotation, make_batch, make_span, with_metadata
from clearspan.testing.stores import Stores, visible

A, B, C = 1, 2, 3
EVERYWHERE = Scope((A, B, C))
NUMBERS = itertools.count()
IDS = tuple(f"{n:032x}" for n in range(1, 7))


def batch(trace_id: str, *, project_id: int = A, number: int = 0, session: str | None = None) -> TraceBatch:
    """The `number`-th span of a trace; 0 is its root."""
    context = with_metadata({"plan": "pro", "n": str(number)})._replace(session_id=session)
    parent = f"{trace_id[-4:]}.0" if number else None
    span = make_span(f"{trace_id[-4:]}.{number}", parent=parent, start_s=number, context=context)
    return make_batch(trace_id, [span], project_id=project_id)


def say(stores: Stores, said: list[Annotation], project_id: int) -> None:
    writes = [AnnotationWrite((project_id,), each, False) for each in said]
    stores.annotating.put_annotations(writes, received_ns=T0_NS)


def move(stores: Stores, trace_ids: list[str], to: int, *, scope: Scope = EVERYWHERE) -> int:
    order = TransferOrder(f"mov_{next(NUMBERS)}", 1, "key_1")
    return stores.transfers.transfer(scope, trace_ids, to, moved_ns=T0_NS, order=order)


def where(stores: Stores) -> set[tuple[str, int]]:
    """(trace id, project), by lists, counts and the metadata index alike."""
    found: set[tuple[str, int]] = set()
    for project_id in (A, B, C):
        scope = Scope((project_id,))
        rows = stores.reader.list_traces(scope, None, Window(), NEWEST_FIRST, OffsetPage(1, 100)).rows
        assert stores.reader.count_traces(scope, None, Window()) == stores.deletions.count_visible(scope) == len(rows)
        pro = Condition(METADATA, Operator.EQUALS, ("pro",), "plan")
        assert stores.reader.count_traces(scope, pro, Window()) == len(rows)
        found |= {(row.summary.trace_id, project_id) for row in rows}
    return found


def test_a_moved_trace_is_the_same_trace_elsewhere(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0]), batch(IDS[0], number=1), batch(IDS[1])], received_ns=T0_NS)
    before = visible(stores.reader, [A])
    assert move(stores, [IDS[0], IDS[0]], B) == 1
    assert where(stores) == {(IDS[0], B), (IDS[1], A)}
    assert visible(stores.reader, [B])[B, IDS[0]] == before[A, IDS[0]]
    assert move(stores, [IDS[0]], B) == 1  # it is there


def test_late_spans_follow_wherever_they_were_sent(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0])], received_ns=T0_NS)
    for to in (B, C, A, B):
        move(stores, [IDS[0]], to)
    for number, project_id in enumerate((A, B, C), start=1):
        outcome = stores.writer.write([batch(IDS[0], project_id=project_id, number=number)], received_ns=T0_NS)
        assert outcome[0].stored == 1
    assert where(stores) == {(IDS[0], B)}
    found = stores.reader.get_trace(Scope((B,)), IDS[0])
    assert found is not None
    assert len(found.spans) == 4


def test_deleted_in_the_new_project_it_stays_deleted_in_the_old(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0])], received_ns=T0_NS)
    move(stores, [IDS[0]], B)
    manifest = stores.deletions.plan_ids(Scope((B,)), [IDS[0]], Window())
    stores.deletions.hide("del_1", Scope((B,)), None, Window(), manifest, b"{}")
    late = stores.writer.write([batch(IDS[0], number=1), batch(IDS[0], project_id=B, number=2)], received_ns=T0_NS)
    assert [each.refused for each in late] == [1, 1]
    assert where(stores) == set()
    with pytest.raises(NotFound):
        move(stores, [IDS[0]], C)


def test_a_plan_of_before_the_move_no_longer_matches(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0])], received_ns=T0_NS)
    everywhere = Scope((A, B))
    manifest = stores.deletions.plan_ids(everywhere, [IDS[0]], Window())
    move(stores, [IDS[0]], B)
    outcome = stores.deletions.hide("del_1", everywhere, None, Window(), manifest, b"{}")
    assert (outcome.hidden, outcome.no_longer_matching) == (0, 1)
    assert where(stores) == {(IDS[0], B)}


def test_what_cannot_move_moves_nothing(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0]), batch(IDS[1]), batch(IDS[2]), batch(IDS[2], project_id=B)], received_ns=T0_NS)
    stores.writer.write([batch(IDS[3], project_id=B), batch(IDS[4]), batch(IDS[4], project_id=C)], received_ns=T0_NS)
    gone = stores.deletions.plan_ids(Scope((C,)), [IDS[4]], Window())
    stores.deletions.hide("del_1", Scope((C,)), None, Window(), gone, b"{}")
    hold = HoldRow("hold_1", 1, Scope((A,)), None, (IDS[1],), Window(), "why", T0_NS, "key_1")
    stores.deletions.add_hold(hold)
    before = where(stores)
    for trace_ids, to, wanted in (
        ([IDS[0], "f" * 32], B, None),
        ([IDS[0], IDS[3]], C, "several_projects"),
        ([IDS[0], IDS[1]], B, "held"),
        ([IDS[0], IDS[4]], C, "taken"),  # deleted there
    ):
        with pytest.raises(NotFound if wanted is None else Conflict) as told:
            move(stores, list(trace_ids), to)
        assert wanted is None or told.value.code == wanted
    with pytest.raises(Conflict, match="destination"):
        move(stores, [IDS[0], IDS[2]], B, scope=Scope((A,)))
    with pytest.raises(NotFound):
        move(stores, [IDS[0]], B, scope=Scope((A,), "prod"))
    assert where(stores) == before


def test_what_was_said_of_it_goes_along(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0], session="s1"), batch(IDS[1], session="s2")], received_ns=T0_NS)
    stores.writer.write([batch(IDS[2], session="s2")], received_ns=T0_NS)
    of_trace = make_annotation("good", number=1, target=AnnotationTarget.TRACE, trace_id=IDS[0])
    of_span = make_annotation("fine", number=2, trace_id=IDS[0], span_id=f"{IDS[0][-4:]}.0")
    early = make_annotation("early", number=3, target=AnnotationTarget.TRACE, trace_id=IDS[1])
    sessions = [
        make_annotation("calm", number=n + 10, target=AnnotationTarget.SESSION, session_id=f"s{n}") for n in (1, 2)
    ]
    say(stores, [of_trace, of_span, *sessions], A)
    say(stores, [early], B)  # waits there

    def said(project_id: int) -> set[str]:
        rows = stores.annotations.list_annotations(Scope((project_id,)), AnnotationQuery(), limit=10)
        return {f"{row.annotation.name} {row.annotation.session_id or ''}".strip() for row in rows}

    assert said(A) == {"good", "fine", "calm s1", "calm s2"}
    move(stores, [IDS[0], IDS[1]], B)
    assert said(B) == {"good", "fine", "early", "calm s1"}
    assert said(A) == {"calm s2"}  # that session has a trace here; the other one left with its last


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_moves_and_writes_equals_a_plain_model(stores: Stores, seed: int) -> None:
    rng = random.Random(seed)
    home: dict[str, int] = {}
    spans: defaultdict[str, set[int]] = defaultdict(set)
    sent_to: defaultdict[str, set[int]] = defaultdict(set)
    for _ in range(60):
        trace_id = rng.choice(IDS)
        if trace_id in home and rng.random() < 0.4:
            to = rng.choice([A, B, C])
            move(stores, [trace_id], to)
            home[trace_id] = to
        else:
            sent_to[trace_id].add(home.get(trace_id, A))
            project_id, number = rng.choice(sorted(sent_to[trace_id])), rng.randrange(5)
            stores.writer.write([batch(trace_id, project_id=project_id, number=number)], received_ns=T0_NS)
            home.setdefault(trace_id, project_id)
            spans[trace_id].add(number)
    assert where(stores) == set(home.items())
    for trace_id, project_id in home.items():
        found: Any = stores.reader.get_trace(Scope((project_id,)), trace_id)
        assert len(found.spans) == len(spans[trace_id])


def test_the_later_of_two_that_say_the_same_stays(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0])], received_ns=T0_NS)
    old = make_annotation("good", number=1, target=AnnotationTarget.TRACE, trace_id=IDS[0])
    new: Annotation = old._replace(annotation_id="f" * 32, score=0.25, updated_ns=old.updated_ns + 1)
    say(stores, [old], A)
    say(stores, [new], B)
    move(stores, [IDS[0]], B)
    [row] = stores.annotations.list_annotations(Scope((B,)), AnnotationQuery(), limit=10)
    assert row.annotation.score == 0.25


def test_a_span_deleted_before_the_move_stays_deleted_after_it(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0]), batch(IDS[0], number=1), batch(IDS[0], number=2)], received_ns=T0_NS)
    manifest = stores.deletions.plan_spans(Scope((A,)), [f"{IDS[0][-4:]}.1"])
    stores.deletions.hide("del_1", Scope((A,)), None, Window(), manifest, b"{}")
    with pytest.raises(Conflict) as told:
        move(stores, [IDS[0]], B)
    assert told.value.code == "being_deleted"
    stores.deletions.purge_batch("del_1", 0, rows_max=100)
    homes = [A]
    for to in (B, C, B):
        move(stores, [IDS[0]], to)
        homes.append(to)
        for project_id in homes:
            late = batch(IDS[0], project_id=project_id, number=1)
            assert stores.writer.write([late], received_ns=T0_NS)[0].refused == 1
    assert where(stores) == {(IDS[0], B)}
    found = stores.reader.get_trace(Scope((B,)), IDS[0])
    assert found is not None
    assert [each.span.span_id for each in found.spans] == [f"{IDS[0][-4:]}.{n}" for n in (0, 2)]


def test_words_about_a_session_are_deleted_with_its_traces_wherever_those_went(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0], session="s1"), batch(IDS[1], session="s1")], received_ns=T0_NS)
    say(stores, [make_annotation("calm", target=AnnotationTarget.SESSION, session_id="s1")], A)
    move(stores, [IDS[0]], B)
    assert [row.project_id for row in told(stores)] == [A]
    move(stores, [IDS[1]], B)
    assert [row.project_id for row in told(stores)] == [B]
    manifest = stores.deletions.plan_ids(Scope((B,)), list(IDS[:2]), Window())
    stores.deletions.hide("del_1", Scope((B,)), None, Window(), manifest, b"{}")
    counts, _ = stores.deletions.purge_batch("del_1", 0, rows_max=1_000)
    assert counts["annotation"] == 1
    assert stores.annotations.annotation_figures().waiting == 0


def told(stores: Stores) -> list[AnnotationRow]:
    return stores.annotations.list_annotations(EVERYWHERE, AnnotationQuery(), limit=10)


def test_late_words_follow_and_meet_the_tombstones_of_every_project_it_was_in(stores: Stores) -> None:
    gone, there, late = (f"{IDS[0][-4:]}.{n}" for n in (1, 0, 2))
    stores.writer.write([batch(IDS[0]), batch(IDS[0], number=1), batch(IDS[1])], received_ns=T0_NS)
    manifest = stores.deletions.plan_spans(Scope((A,)), [gone])
    stores.deletions.hide("del_1", Scope((A,)), None, Window(), manifest, b"{}")
    stores.deletions.purge_batch("del_1", 0, rows_max=100)
    early = make_annotation("early", number=9, trace_id=IDS[0], span_id=late)
    nameless = make_annotation("nameless", number=8, trace_id=None, span_id=late)
    say(stores, [early, nameless], A)  # wait there for the span
    move(stores, [IDS[0], IDS[1]], B)
    for number, project_id in enumerate((A, B)):
        words = [make_annotation(f"n{number}", number=number, trace_id=IDS[0], span_id=each) for each in (gone, there)]
        outcomes = stores.annotating.put_annotations(
            [AnnotationWrite((project_id,), each) for each in words], received_ns=T0_NS
        )
        assert [(each.deletion_id, each.project_id) for each in outcomes] == [("del_1", None), (None, B)]
    assert {row.annotation.name for row in told(stores)} == {"n0", "n1"}
    stores.writer.write([batch(IDS[0], number=2)], received_ns=T0_NS)
    assert {row.annotation.name for row in told(stores)} == {"n0", "n1", "early", "nameless"}
    manifest = stores.deletions.plan_ids(Scope((B,)), [IDS[1]], Window())
    stores.deletions.hide("del_2", Scope((B,)), None, Window(), manifest, b"{}")
    stores.deletions.purge_batch("del_2", 0, rows_max=100)
    word = make_annotation("late", number=20, target=AnnotationTarget.TRACE, trace_id=IDS[1])
    [outcome] = stores.annotating.put_annotations([AnnotationWrite((A,), word)], received_ns=T0_NS)
    assert outcome.deletion_id == "del_2"


def test_files_follow_their_runs(stores: Stores) -> None:
    root, early, gone = (f"{n:032x}" for n in (70, 71, 72))
    files = {each: Attachment(each, "f", "text/plain", each.encode()) for each in (root, early, gone)}

    def send(span_id: str, project_id: int = A) -> WriteOutcome:
        homeless = TraceBatch(project_id, "", (), (), {}, b"", attachments=(files[span_id],))
        return stores.writer.write([homeless], received_ns=T0_NS)[0]

    stores.writer.write([make_batch(root, [make_span(root)]), make_batch(gone, [make_span(gone)])], received_ns=T0_NS)
    assert send(early).stored == 1  # waits for its run
    move(stores, [root, gone], B)
    manifest = stores.deletions.plan_ids(Scope((B,)), [gone], Window())
    stores.deletions.hide("del_1", Scope((B,)), None, Window(), manifest, b"{}")
    stores.deletions.purge_batch("del_1", 0, rows_max=100)
    assert (send(root).stored, send(gone).deletion_id) == (1, "del_1")
    stores.writer.write([make_batch(root, [make_span(early, parent=root)])], received_ns=T0_NS)
    for span_id in (root, early):
        found = stores.spans.read_attachment(Scope((B,)), root, span_id, "f")
        assert found is not None
        assert b"".join(found[1]) == span_id.encode()


def test_no_move_lets_in_what_the_destination_deleted(stores: Stores) -> None:
    stores.writer.write([batch(IDS[0], project_id=B), batch(IDS[0], project_id=C)], received_ns=T0_NS)
    stores.writer.write([batch(IDS[1]), batch(IDS[1], project_id=C)], received_ns=T0_NS)
    manifest = stores.deletions.plan_spans(Scope((B,)), [f"{IDS[0][-4:]}.0"])  # the only span of its trace
    stores.deletions.hide("del_1", Scope((B,)), None, Window(), manifest, b"{}")
    with pytest.raises(Conflict) as told_of_span:
        move(stores, [IDS[0]], B, scope=Scope((C,)))
    assert told_of_span.value.code == "taken"
    move(stores, [IDS[1]], B, scope=Scope((A,)))
    with pytest.raises(Conflict) as told_of_moved:  # late data of the one that left A would come to it
        move(stores, [IDS[1]], A, scope=Scope((C,)))
    assert told_of_moved.value.code == "taken"
    move(stores, [IDS[1]], A, scope=Scope((B,)))
    assert where(stores) == {(IDS[0], C), (IDS[1], A), (IDS[1], C)}


@pytest.mark.parametrize("kind", ["trace", "span", "copy of a span", "annotation"])
def test_nothing_moves_that_a_deletion_waits_for(stores: Stores, kind: str) -> None:
    stores.writer.write([batch(IDS[0]), batch(IDS[0], number=1), batch(IDS[1])], received_ns=T0_NS)
    say(stores, [make_annotation("good", target=AnnotationTarget.TRACE, trace_id=IDS[0])], A)
    stores.deletions.add_hold(HoldRow("hold_1", 1, Scope((A,)), None, (IDS[0],), Window(), "why", T0_NS, "key_1"))
    here, query = Scope((A,)), AnnotationQuery(names=("good",))
    if kind == "annotation":
        lines = stores.deletions.plan_annotations(here, query, limit=10)
        stores.deletions.hide_annotations("del_1", here, query, lines, b"{}")
    else:
        traces = [] if kind == "span" else stores.deletions.plan_ids(here, [IDS[0]], Window())
        own, other = f"{IDS[0][-4:]}.1", f"{IDS[1][-4:]}.0"  # a copy is a trace beside a span of another trace
        names = {"trace": [], "span": [own], "copy of a span": [other]}[kind]
        manifest = [*traces, *stores.deletions.plan_spans(here, names)]
        stores.deletions.hide("del_1", here, None, Window(), manifest, b"{}")
    stores.deletions.release_hold("hold_1", 9)
    with pytest.raises(Conflict) as told_why:
        move(stores, [IDS[0]], B)
    assert told_why.value.code == "being_deleted"
    if kind != "copy of a span":
        assert move(stores, [IDS[1]], B) == 1
    stores.deletions.cancel("del_1")
    assert move(stores, [IDS[0]], B) == 1


def test_a_trace_that_lost_a_span_moves_is_deleted_and_comes_back_without_it(stores: Stores) -> None:
    ids = [f"{IDS[0][-4:]}.{n}" for n in range(3)]
    gone = ids[1]
    stores.writer.write([batch(IDS[0], number=n, session="s1") for n in range(3)], received_ns=T0_NS)
    say(
        stores, [make_annotation(f"n{n}", number=n, trace_id=IDS[0], span_id=f"{IDS[0][-4:]}.{n}") for n in range(3)], A
    )
    manifest = stores.deletions.plan_spans(Scope((A,)), [gone])
    stores.deletions.hide("del_1", Scope((A,)), None, Window(), manifest, b"{}")
    stores.deletions.purge_batch("del_1", 0, rows_max=100)
    before = visible(stores.reader, [A])[A, IDS[0]]
    move(stores, [IDS[0]], B)
    hidden = stores.deletions.plan_ids(Scope((B,)), [IDS[0]], Window())
    stores.deletions.hide("del_2", Scope((B,)), None, Window(), hidden, b"{}")
    for project_id in (A, B):
        late = [batch(IDS[0], project_id=project_id, number=n) for n in (0, 1, 3)]
        assert [each.deletion_id for each in stores.writer.write(late, received_ns=T0_NS)] == ["del_2"] * 3
    assert stores.deletions.cancel("del_2") == 1
    for to in (A, B, A):
        move(stores, [IDS[0]], to)
        assert visible(stores.reader, [to])[to, IDS[0]] == before
        assert sorted(row.annotation.name for row in told(stores)) == ["n0", "n2"]
        assert stores.writer.write([batch(IDS[0], number=1)], received_ns=T0_NS)[0].deletion_id == "del_1"
    assert not any(stores.deletions.remaining("del_1").values())
    stores.deletions.lift_tombstone(A, f"{IDS[0]}/{gone}")
    assert stores.writer.write([batch(IDS[0], number=1, session="s1")], received_ns=T0_NS)[0].stored == 1
    move(stores, [IDS[0]], B)
    assert where(stores) == {(IDS[0], B)}


def test_what_moved_is_noted_until_it_is_closed(stores: Stores) -> None:
    stores.writer.write([batch(each) for each in IDS[:3]], received_ns=T0_NS)
    store, orders = stores.transfers, [TransferOrder(f"mov_{word}", 7, "key_9") for word in "zyxw"]
    assert store.open_transfers() == []
    store.transfer(EVERYWHERE, [IDS[1], IDS[0], IDS[1]], B, moved_ns=T0_NS, order=orders[0])
    store.transfer(EVERYWHERE, [IDS[0]], C, moved_ns=T0_NS, order=orders[1])
    assert store.transfer(EVERYWHERE, [IDS[0]], C, moved_ns=T0_NS, order=orders[2]) == 1, "it is there"
    with pytest.raises(NotFound):
        store.transfer(EVERYWHERE, [IDS[2], "none"], C, moved_ns=T0_NS, order=orders[3])
    first, second = OpenTransfer(*orders[0], A, B, IDS[:2]), OpenTransfer(*orders[1], B, C, IDS[:1])
    assert store.open_transfers() == [first, second]
    for _ in range(2):
        store.close_transfer("mov_z")
    assert store.open_transfers() == [second]
