"""The merge law where LangSmith runs come in parts: their fusion stays, in whatever order the parts come."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from clearspan.ingest.langsmith import promote_run, run_values
from clearspan.ingest.payload import decode_record
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.port import SpanDetail
from clearspan.testing.build import SECOND_NS, T0_NS, make_batch, make_span, make_trace
from clearspan.testing.runs import create, run_batches, run_id, update
from clearspan.testing.stores import Stores, visible

SEED = 20261122
SHUFFLES = 12
SCOPE = Scope((1,))
ANY_TIME = Window()


def parts() -> list[TraceBatch]:
    """Two traces in many requests: late creates, second updates, children, other dialects under a run's id."""
    requests = [
        (run_batches(create(1, trace=1, inputs={"q": "what"}, extra={"metadata": {"a": "1"}}), at_s=0)),
        (run_batches(update(1, trace=1, end_s=3, outputs={"a": "that"}, extra={"metadata": {"b": "2"}}), at_s=1)),
        (run_batches(update(1, trace=1, end_s=4, tags=["late"]), at_s=2)),
        (run_batches(create(2, trace=1, start_s=1, run_type="llm"), create(3, trace=1, start_s=2), at_s=3)),
        (run_batches(update(2, trace=1, end_s=2, error="ValueError: no"), at_s=4)),
        (run_batches(update(3, trace=1, end_s=2.5, outputs={"x": 1}), at_s=5)),
        (run_batches(create(9, trace=9), update(9, trace=9, end_s=7), at_s=6)),
        [make_batch(run_id(1), [make_span(run_id(2), start_s=9, duration_s=99, text="of another dialect")])],
        [make_batch(run_id(1), [make_span(run_id(2), start_s=9, duration_s=5, text="and one more")])],
        [make_batch(run_id(1), [make_span("0123456789abcdef", parent=run_id(1), start_s=1)])],
    ]
    return [batch for request in requests for batch in request]


def the_span(stores: Stores, number: int, trace: int = 1) -> SpanDetail:
    detail = stores.reader.get_trace(SCOPE, run_id(trace))
    assert detail is not None
    return next(each for each in detail.spans if each.span.span_id == run_id(number))


def fields_of(detail: SpanDetail) -> dict[str, object]:
    return run_values(decode_record(detail.record).raw)


def write(stores: Stores, *batches: TraceBatch) -> list[tuple[int, int]]:
    outcomes = stores.writer.write(batches, received_ns=T0_NS)
    return [(outcome.stored, outcome.repeated) for outcome in outcomes]


def test_any_order_and_repetition_of_parts_leaves_the_same(make_stores: Callable[[], Stores]) -> None:
    first = make_stores()
    for batch in parts():
        write(first, batch)
    expected = visible(first.reader, [1])
    assert len(expected) == 2
    rng = random.Random(SEED)
    for shuffle in range(SHUFFLES):
        batches = parts() + rng.sample(parts(), rng.randint(0, 6))
        rng.shuffle(batches)
        other = make_stores()
        while batches:
            write(other, *[batches.pop() for _ in range(min(len(batches), rng.randint(1, 5)))])
        assert visible(other.reader, [1]) == expected, f"seed {SEED}, shuffle {shuffle}"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("together", [True, False])
def test_create_and_updates_are_one_run(stores: Stores, order: tuple[int, ...], together: bool) -> None:
    messages = [
        run_batches(create(1, trace=1, inputs={"q": "what"}), at_s=0),
        run_batches(update(1, trace=1, end_s=3, outputs={"a": "first"}), at_s=1),
        run_batches(update(1, trace=1, end_s=2, outputs={"a": "second"}), at_s=2),
    ]
    batches = [batch for at in order for batch in messages[at]]
    for share in [batches] if together else [[batch] for batch in batches]:
        write(stores, *share)
    found = the_span(stores, 1)
    fields = fields_of(found)
    assert (fields["inputs"], fields["outputs"]) == ({"q": "what"}, {"a": "second"})
    assert (found.span.start_ns, found.span.end_ns) == (T0_NS, T0_NS + 2 * SECOND_NS)
    assert (found.span, found.context) == promote_run(decode_record(found.record).raw)
    detail = stores.reader.get_trace(SCOPE, run_id(1))
    assert detail is not None
    assert (detail.row.summary.end_ns, detail.row.summary.span_count) == (found.span.end_ns, 1)


def test_outcomes_of_parts(stores: Stores) -> None:
    begin = run_batches(create(1, trace=1), create(2, trace=1), at_s=0)
    end = run_batches(update(1, trace=1), at_s=1)
    assert write(stores, *begin) == [(2, 0)]
    assert write(stores, *end) == [(1, 0)]
    assert write(stores, *end, *begin) == [(0, 1), (0, 2)]
    assert write(stores, *run_batches(update(1, trace=1), at_s=50)) == [(0, 1)], "resent by the client, later"


def test_a_run_document_stays_against_other_dialects(stores: Stores) -> None:
    run = run_batches(create(1, trace=1), update(1, trace=1), at_s=0)
    other = make_batch(run_id(1), [make_span(run_id(1), duration_s=1000, text="other")])
    assert write(stores, other) == [(1, 0)]
    assert write(stores, *run) == [(1, 0)]
    assert write(stores, other) == [(0, 1)]
    assert the_span(stores, 1).span.name == "run 1"


def test_what_the_parts_left_is_gone(stores: Stores) -> None:
    """Blocks and contexts that nothing refers to any more, and their metadata, are no rows of the trace."""
    write(stores, *run_batches(create(1, trace=1, extra={"metadata": {"k": "old"}}), at_s=0))
    write(stores, *run_batches(update(1, trace=1, extra={"metadata": {"k": "new"}}), at_s=1))
    (line,) = stores.deletions.plan_ids(SCOPE, [run_id(1)], ANY_TIME)
    counts = stores.deletions.count_targets([line.trace_pk])
    assert {name: counts[name] for name in ("span", "context", "metadata", "block", "text_signature")} == dict.fromkeys(
        ("span", "context", "metadata", "block", "text_signature"), 1
    )
    detail = stores.reader.get_trace(SCOPE, run_id(1))
    assert detail is not None
    assert detail.row.summary.metadata_all == (("k", "new"),)


def test_search_finds_the_fused_text(stores: Stores) -> None:
    write(stores, make_trace("another"))
    write(stores, *run_batches(create(1, trace=1, inputs={"q": "zanzibar"}), at_s=0))
    write(stores, *run_batches(update(1, trace=1, outputs={"a": "kilimanjaro"}), at_s=1))
    write(stores, *run_batches(update(1, trace=1, outputs={"a": "ruwenzori"}), at_s=2))

    def found(text: str) -> list[str]:
        where = Condition(BY_NAME["text"], Operator.CONTAINS, (text,))
        page = stores.reader.list_traces(SCOPE, where, ANY_TIME, NEWEST_FIRST, OffsetPage())
        return [row.summary.trace_id for row in page.rows]

    assert found("zanzibar") == found("ruwenzori") == [run_id(1)]
    assert found("kilimanjaro") == []


def test_parts_of_a_deleted_run_are_refused(stores: Stores) -> None:
    write(stores, *run_batches(create(1, trace=1), at_s=0))
    planned = stores.deletions.plan_ids(SCOPE, [run_id(1)], ANY_TIME)
    stores.deletions.hide("del-1", SCOPE, None, ANY_TIME, planned, b"{}")
    for is_hidden in (True, False):
        (outcome,) = stores.writer.write(run_batches(update(1, trace=1), at_s=1), received_ns=T0_NS)
        assert (outcome.stored, outcome.refused, outcome.deletion_id) == (0, 1, "del-1")
        if is_hidden:
            stores.deletions.purge_batch("del-1", 0, rows_max=100)
    assert visible(stores.reader, [1]) == {}
