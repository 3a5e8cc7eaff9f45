"""Copies of spans that are deleted by themselves: each goes, or is told of, in both stores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from clearspan.catalog import SourcePolicy
from clearspan.deletion import guard, plan
from clearspan.deletion.holds import HoldRequest, Holds
from clearspan.deletion.preview import parse_kept, render_kept
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.request import ByIds, BySpans
from clearspan.deletion.result import DeletionResult, render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Conflict, Unguarded
from clearspan.model.runs import run_id_of
from clearspan.model.trace import Scope, Window
from clearspan.store.port import DeletionKind
from clearspan.testing.build import T0_NS, make_batch, make_span, with_metadata
from clearspan.testing.datasets import APP, WORD, DatasetWorld, open_dataset_world

T, OTHER = "a" * 32, "b" * 32
ROOT, CHILD, LEAF = T, "c" * 32, "0123456789abcdef"
"""A run of LangSmith's, which is the root, one of its own below it, and a span as OTLP has them."""
LEAF_RUN = run_id_of(T, LEAF, is_root=False)
VERIFIED = DeletionState.VERIFIED
WHO = {"org_id": 1, "requested_by": "key_1"}


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatasetWorld]:
    with open_dataset_world(request.param, tmp_path / "data") as made:
        write(made, T, ROOT, CHILD, LEAF)
        yield made


def write(bench: DatasetWorld, trace_id: str, *span_ids: str, **pairs: str) -> None:
    """A trace; metadata is that of the first span, the others are its children."""
    spans = [make_span(span_ids[0], context=with_metadata(pairs))]
    spans += [make_span(each, parent=span_ids[0], start_s=1) for each in span_ids[1:]]
    bench.stores.writer.write([make_batch(trace_id, spans, project_id=APP)], received_ns=T0_NS)


def delete(bench: DatasetWorld, *names: str, **more: Any) -> DeletionResult:
    more = {"selection": BySpans(names), **more}
    return (bench.deleter or bench.start()).delete(bench.request(**more))


def spans_left(bench: DatasetWorld, trace_id: str = T) -> set[str]:
    found = bench.stores.reader.get_trace(Scope((APP,)), trace_id)
    return set() if found is None else {each.span.span_id for each in found.spans}


def judge(bench: DatasetWorld, trace_id: str, of: str) -> None:
    bench.trace(trace_id, target_run_id=str(UUID(of)), said=WORD)


@pytest.mark.parametrize(
    ("policy", "span_id", "run_id", "counts", "told"),
    [  # counts: matched, copies, detached, redacted; beside an item of the whole trace
        (SourcePolicy.ERASE, LEAF, LEAF_RUN, (4, 3, 0, 0), ["copies:taken:3"]),
        (SourcePolicy.REDACT, CHILD, CHILD, (4, 3, 0, 1), ["copies:taken:3", "copies:redacted:1"]),
        (SourcePolicy.DETACH, CHILD, CHILD, (1, 0, 2, 0), ["copies:detached:2"]),
    ],
)
def test_items_made_from_a_span_go_with_it(
    bench: DatasetWorld, policy: SourcePolicy, span_id: str, run_id: str, counts: tuple[int, ...], told: list[str]
) -> None:
    """In all their versions, with their results; what was made of the root or of another span stays."""
    dataset = bench.dataset("golden", policy)
    item = bench.add(dataset, run_id, versions=2)
    whole, other = bench.add(dataset, T, said="whole"), bench.add(dataset, OTHER, said="else")
    runs = bench.experiment(dataset)
    bench.trace("1" * 32, runs, _reference_example_id=str(UUID(item)))
    asked = bench.request(selection=BySpans((f"{T}/{span_id}",)))
    seen = bench.start().preview(asked).plan
    assert (seen.matched, len(seen.copies), seen.copies_detached, len({v.item_id for v in seen.redacted})) == counts
    assert seen.copies_of_trace == 1
    kept = parse_kept(render_kept(seen, 5)).plan
    assert (kept.runs, kept.copies_of_trace, kept.redacted) == (seen.runs, 1, seen.redacted)
    result = delete(bench, f"{T}/{span_id}")
    assert (result.matched, result.copies, result.copies_detached, result.items_redacted) == counts
    assert (result.state, result.hidden, result.kind) == (VERIFIED, counts[0], DeletionKind.SPANS)
    assert bench.conditions(result.deletion_id) == ["span_ids:in:1", *told, "copies:of_trace:1"]
    expected = {SourcePolicy.ERASE: {}, SourcePolicy.REDACT: {item: True}, SourcePolicy.DETACH: {item: False}}[policy]
    assert bench.left(dataset) == {whole: False, other: False, **expected}
    detached = {item: None} if policy is SourcePolicy.DETACH else {}
    links = {each.id: each.source_run_id for each in bench.items.list(dataset).items if not each.redacted}
    assert links == {whole: T, other: OTHER, **detached}, "of what is left the links stay"
    assert spans_left(bench) == {ROOT, CHILD, LEAF} - {span_id}
    assert "1 traces with copies of their whole traces stay" in render_message(result)
    if bench.bytes_left():
        assert (WORD.encode() in bench.bytes_left()) is (policy is SourcePolicy.DETACH)


def test_a_root_takes_what_was_made_from_its_run(bench: DatasetWorld) -> None:
    write(bench, OTHER, "fedcba9876543210", "f" * 16)  # its root goes by the trace's id
    dataset = bench.dataset("golden", SourcePolicy.ERASE)
    bench.add(dataset, OTHER)
    judge(bench, "1" * 32, OTHER)
    judge(bench, "2" * 32, "1" * 32)
    child = delete(bench, f"{OTHER}/{'f' * 16}")
    assert (child.matched, child.copies, child.copies_of_trace) == (1, 0, 2), "one may hold it: it is told"
    assert bench.left(dataset)
    root = delete(bench, f"{OTHER}/fedcba9876543210")
    assert (root.state, root.matched, root.copies, root.copies_of_trace) == (VERIFIED, 4, 3, 0)
    assert render_message(root).startswith("Successfully deleted 4 spans and copies. 3 of the 4 are traces that hold")
    assert bench.left(dataset) == {}


def test_a_trace_is_no_copy_of_its_own_spans(bench: DatasetWorld) -> None:
    """An evaluator that ran inside of the trace stays there, and is told of."""
    write(bench, OTHER, "d" * 32, "e" * 32, target_run_id="e" * 32)
    result = delete(bench, f"{OTHER}/{'e' * 32}")
    assert (result.state, result.matched, result.copies, result.copies_of_trace) == (VERIFIED, 1, 0, 1)
    assert spans_left(bench, OTHER) == {"d" * 32}


def test_a_span_of_a_trace_that_goes_as_a_copy_is_not_counted_beside_it(bench: DatasetWorld) -> None:
    write(bench, OTHER, "d" * 32, target_run_id=CHILD)
    result = delete(bench, CHILD, "d" * 32, f"{T}/{LEAF}")
    assert (result.state, result.matched, result.copies) == (VERIFIED, 3, 1)
    assert (spans_left(bench), spans_left(bench, OTHER)) == ({ROOT}, set())


@pytest.mark.parametrize(("span_id", "run_id"), [(ROOT, ROOT), (LEAF, LEAF_RUN)])
def test_a_copy_made_after_the_hide_goes_by_a_follow_up(bench: DatasetWorld, span_id: str, run_id: str) -> None:
    dataset = bench.dataset("golden", SourcePolicy.ERASE)
    deleter = bench.start()
    asked = bench.request(selection=BySpans((f"{T}/{span_id}",)))
    result = deleter.delete(asked, wait_s=0, wait_for="hidden")
    bench.add(dataset, run_id, versions=2)
    bench.add(dataset, T, said="whole")
    deleter.run_due()
    job = deleter.status(result.deletion_id).job
    assert (job.state, job.hidden) == (VERIFIED, 1)
    assert job.follow_up_id is not None
    follow_up = deleter.status(job.follow_up_id).job
    wholes = span_id != ROOT
    assert (follow_up.state, follow_up.hidden, follow_up.kind) == (VERIFIED, 2 if wholes else 3, DeletionKind.TRACES)
    assert ("copies:of_trace:1" in follow_up.shape) is wholes
    assert len(bench.left(dataset)) == (1 if wholes else 0)


def test_a_token_is_refused_once_there_are_copies_that_it_does_not_list(bench: DatasetWorld) -> None:
    deleter = bench.start()
    judge(bench, "1" * 32, CHILD)
    seen = deleter.preview(bench.request(selection=BySpans((CHILD,))))
    judge(bench, "2" * 32, CHILD)
    with pytest.raises(Conflict) as refused:
        deleter.delete_planned(seen.token, **WHO)
    assert refused.value.code == "plan_mismatch"
    again = deleter.preview(bench.request(selection=BySpans((CHILD,))))
    result = deleter.delete_planned(again.token, **WHO)
    assert (result.state, result.hidden, result.copies) == (VERIFIED, 3, 2)


def test_copies_that_are_to_stay_or_out_of_reach_are_counted(bench: DatasetWorld) -> None:
    judge(bench, "1" * 32, CHILD)
    left = delete(bench, CHILD, leave_copies=True)
    assert (left.state, left.matched, left.copies, left.copies_not_covered) == (VERIFIED, 1, 0, 1)
    bench.add(bench.dataset("golden", SourcePolicy.ERASE), LEAF_RUN)
    bound = delete(bench, f"{T}/{LEAF}", reach=Scope((APP,)))
    assert (bound.state, bound.matched, bound.copies_not_covered) == (VERIFIED, 1, 1)


def test_holds_keep_copies_and_cancels_bring_them_back(bench: DatasetWorld) -> None:
    judge(bench, "1" * 32, CHILD)
    judge(bench, "2" * 32, CHILD)
    deleter = bench.start()
    records = CatalogRecords(bench.catalog, bench.clock, bench.ids)
    holds = Holds(bench.stores.deletions, records, deleter, bench.clock, bench.ids)
    hold, _ = holds.create(HoldRequest(1, "key_2", Scope((APP,)), ByIds(("1" * 32,)), Window(), "a lawsuit"))
    asked = bench.request(selection=BySpans((CHILD,)), not_before_ns=bench.clock.now_ns() + 10**12)
    early = deleter.delete(asked)
    assert (early.hidden, early.held) == (2, 1)
    deleter.cancel(early.deletion_id, by="key_1")
    assert spans_left(bench) == {ROOT, CHILD, LEAF}
    assert bench.stores.reader.count_traces(Scope((APP,)), None, Window()) == 3
    parent = delete(bench, CHILD)
    assert (parent.state, parent.hidden, parent.held) == (VERIFIED, 2, 1)
    assert parent.child_id is not None
    assert deleter.status(parent.child_id).job.planned["trace"] == 1
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert deleter.status(parent.child_id).job.state is VERIFIED
    assert bench.stores.reader.count_traces(Scope((APP,)), None, Window()) == 1


def test_more_copies_than_one_hide_takes_are_refused(bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (guard, plan):
        monkeypatch.setattr(module, "SPAN_COPIES_MAX", 1)
    judge(bench, "1" * 32, CHILD)
    judge(bench, "2" * 32, CHILD)
    with pytest.raises(Unguarded, match="traces hold copies of these spans") as refused:
        delete(bench, CHILD)
    assert refused.value.code == "too_many_matches"
    assert delete(bench, CHILD, leave_copies=True).hidden == 1


@pytest.mark.parametrize("seed", range(2))
def test_in_every_graph_exactly_what_names_the_spans_goes(bench: DatasetWorld, seed: int) -> None:
    """Judges of spans, of whole traces and of each other, against a plain walk."""
    rng = random.Random(seed)
    runs = {ROOT: f"{T}/{ROOT}", CHILD: f"{T}/{CHILD}", LEAF_RUN: f"{T}/{LEAF}"}
    names = dict[str, str]()  # judge → the run that it names
    for number in range(12):
        of = rng.choice([*runs, *names, "9" * 32])
        names[f"{number + 1:032x}"] = of
        judge(bench, f"{number + 1:032x}", of)
    chosen = rng.sample(sorted(runs), rng.randrange(1, 3))
    gone: set[str] = set(chosen)
    while more := {each for each, of in names.items() if of in gone} - gone:
        gone |= more
    copies = gone & names.keys()
    left_of_trace = {each for each, of in names.items() if of == ROOT} - gone
    result = delete(bench, *(runs[each] for each in chosen))
    assert (result.state, result.matched, result.copies) == (VERIFIED, len(chosen) + len(copies), len(copies))
    assert result.copies_of_trace == len(left_of_trace)
    found = bench.stores.reader.count_traces(Scope((APP,)), None, Window())
    assert found == 1 + len(names) - len(copies)
