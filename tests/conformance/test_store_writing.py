"""What every store must hold of writing: the merge law, identity, log-only traces."""

from __future__ import annotations

import random
from collections.abc import Callable

from clearspan.ingest.payload import decode_record
from clearspan.model.span import SpanContext, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.testing.build import T0_NS, Built, make_batch, make_log, make_span, make_trace, with_metadata
from clearspan.testing.stores import Stores, visible

SHUFFLES = 25
SEED = 20260101
SCOPE = Scope((1,))
ANY_TIME = Window()


def pieces() -> list[TraceBatch]:
    """Three traces in fourteen batches: competing contents, late roots, a cycle, orphans, logs before spans."""
    anna = with_metadata({"plan": "pro", "n": "1"}, customer_identifier="anna", environment="prod")
    bert = SpanContext(customer_identifier="bert", session_id="s-1", tags=("x", "y"))
    items: list[tuple[str, list[Built]]] = [
        ("a", [make_span("a2", parent="a1", start_s=1, context=anna, kind="chat", prompt_tokens=7, cost_pico=5)]),
        ("a", [make_span("a1", start_s=0, duration_s=9, context=bert, kind="workflow", name="outer")]),
        ("a", [make_span("a2", parent="a1", start_s=1, context=bert, kind="chat", prompt_tokens=9, text="other")]),
        ("a", [make_span("a2", parent="a1", start_s=1, duration_s=3, context=anna, text="longest", status="error")]),
        ("a", [make_span("a2", parent="a1", start_s=0.5, duration_s=3.5, context=bert, text="as long")]),
        ("a", [make_span("a3", parent="gone", start_s=2), make_span("a4", parent="a3", start_s=3, text="x" * 500)]),
        ("b", [make_log("b1", at_s=5, text="before its span", context=anna)]),
        ("b", [make_span("b1", parent="b2"), make_span("b2", parent="b1", start_s=-1)]),
        ("b", [make_log(None, at_s=1, event_name="start"), make_log(None, at_s=2)]),
        ("b", [make_span("b3", start_s=7, context=anna), make_log("b3", at_s=7.5, context=bert)]),
        ("c", [make_log(None, at_s=3, event_name="alone", context=bert)]),
        ("c", [make_log(None, at_s=2, event_name="alone too", context=anna)]),
        ("a", [make_span("a1", start_s=0, duration_s=9, context=bert, kind="workflow", name="outer", text="again")]),
        ("a", [make_span("a2", parent="a1", start_s=1, context=anna), make_span("a5", parent="a2", context=bert)]),
    ]
    return [make_batch(trace_id, built) for trace_id, built in items]


def test_any_order_and_repetition_leaves_the_same(make_stores: Callable[[], Stores]) -> None:
    first = make_stores()
    for batch in pieces():
        first.writer.write([batch], received_ns=T0_NS)
    expected = visible(first.reader, [1])
    rng = random.Random(SEED)
    for shuffle in range(SHUFFLES):
        batches = pieces() + rng.sample(pieces(), rng.randint(0, 10))
        rng.shuffle(batches)
        other = make_stores()
        while batches:
            share = [batches.pop() for _ in range(min(len(batches), rng.randint(1, 6)))]
            other.writer.write(share, received_ns=T0_NS)
        assert visible(other.reader, [1]) == expected, f"seed {SEED}, shuffle {shuffle}"


def test_the_winner_is_the_later_end_then_the_larger_hash(stores: Stores) -> None:
    short = make_span("s", duration_s=1, text="short")
    rivals = [make_span("s", duration_s=2, text=text) for text in ("one", "two", "three")]
    winner = max(rivals, key=lambda built: built.row.content_hash)
    for item in (short, *rivals, short):
        stores.writer.write([make_batch("t", [item])], received_ns=T0_NS)
    detail = stores.reader.get_trace(SCOPE, "t")
    assert detail is not None
    assert [each.span for each in detail.spans] == [winner.row]
    assert decode_record(detail.spans[0].record).raw == winner.raw


def test_outcomes_count_what_changed(stores: Stores) -> None:
    span, log = make_span("s", duration_s=2), make_log("s")
    loser, winner = make_span("s", duration_s=1), make_span("s", duration_s=3)

    def write(*items: Built) -> tuple[int, int, int]:
        (outcome,) = stores.writer.write([make_batch("t", items)], received_ns=T0_NS)
        assert outcome.deletion_id is None
        return outcome.stored, outcome.repeated, outcome.refused

    assert write(span, log) == (2, 0, 0)
    assert write(span, log) == (0, 2, 0)
    assert write(loser) == (0, 1, 0)
    assert write(winner, log) == (1, 1, 0)


def test_outcomes_are_in_the_order_of_the_batches(stores: Stores) -> None:
    known, new = make_trace("known"), make_trace("new", span_count=3)
    stores.writer.write([known], received_ns=T0_NS)
    outcomes = stores.writer.write([known, new, known], received_ns=T0_NS)
    assert [(outcome.stored, outcome.repeated) for outcome in outcomes] == [(0, 2), (3, 0), (0, 2)]
    assert stores.writer.write([], received_ns=T0_NS) == []


def test_a_write_is_visible_when_it_returns(stores: Stores) -> None:
    for n in range(5):
        stores.writer.write([make_batch("t", [make_span(f"s{n}", start_s=n)])], received_ns=T0_NS)
        detail = stores.reader.get_trace(SCOPE, "t")
        assert detail is not None
        assert detail.row.summary.span_count == n + 1


def test_received_is_when_the_first_part_came(stores: Stores) -> None:
    stores.writer.write([make_batch("t", [make_span("s1")])], received_ns=T0_NS + 5)
    stores.writer.write([make_batch("t", [make_span("s2")])], received_ns=T0_NS + 9)
    detail = stores.reader.get_trace(SCOPE, "t")
    assert detail is not None
    assert detail.row.received_ns == T0_NS + 5


def test_the_handle_of_a_trace_stays(stores: Stores) -> None:
    stores.writer.write([make_trace("t"), make_trace("u")], received_ns=T0_NS)
    before = stores.reader.get_trace(SCOPE, "t")
    stores.writer.write([make_batch("t", [make_span("late", start_s=-50)])], received_ns=T0_NS)
    after = stores.reader.get_trace(SCOPE, "t")
    assert before is not None
    assert after is not None
    assert before.row.trace_pk == after.row.trace_pk


def test_a_trace_of_logs_alone_is_a_trace(stores: Stores) -> None:
    context = SpanContext(customer_identifier="anna", environment="prod")
    logs = [make_log("s9", at_s=2, event_name="second"), make_log(None, at_s=1, event_name="first", context=context)]
    stores.writer.write([make_batch("t", logs)], received_ns=T0_NS)
    detail = stores.reader.get_trace(SCOPE, "t")
    assert detail is not None
    assert (detail.row.summary.root_span_id, detail.row.summary.span_count) == (None, 0)
    assert (detail.row.summary.name, detail.row.summary.customer_identifier) == ("first", "anna")
    assert [each.log.event_name for each in detail.logs] == ["first", "second"]
    assert detail.spans == []
    assert [decode_record(each.record).raw for each in detail.logs] == [logs[1].raw, logs[0].raw]
    stores.writer.write([make_batch("t", [make_span("s9", start_s=1)])], received_ns=T0_NS)
    detail = stores.reader.get_trace(SCOPE, "t")
    assert detail is not None
    assert (detail.row.summary.root_span_id, len(detail.logs)) == ("s9", 2)


def test_superseded_contents_leave_the_targets(stores: Stores) -> None:
    old = make_span("s", duration_s=1, context=with_metadata({"k": "old"}), text="old")
    new = make_span("s", duration_s=2, context=with_metadata({"k": "new"}), text="new")
    stores.writer.write([make_batch("t", [old])], received_ns=T0_NS)
    stores.writer.write([make_batch("t", [new])], received_ns=T0_NS)
    (line,) = stores.deletions.plan_ids(SCOPE, ["t"], ANY_TIME)
    counts = stores.deletions.count_targets([line.trace_pk])
    assert {name: counts[name] for name in ("trace", "span", "log", "context", "metadata", "block")} == {
        "trace": 1, "span": 1, "log": 0, "context": 1, "metadata": 1, "block": 1,
    }  # fmt: skip
