"""What every store must hold of reading: tenancy, filters, order, pages, windows, details, root records."""

from __future__ import annotations

from decimal import Decimal

import pytest

from clearspan.ingest.payload import decode_record
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.evaluate import order_key
from clearspan.query.fields import BY_NAME, METADATA
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, SORTABLE, OffsetPage, SortKey, parse_sort
from clearspan.testing.build import SECOND_NS, T0_NS, make_batch, make_log, make_span, make_trace, with_metadata
from clearspan.testing.stores import Stores

EVERYTHING = OffsetPage(1, 1000)
ANY_TIME = Window()
BOTH = Scope((1, 2))


def where(field: str, operator: Operator, *values: str | int | Decimal) -> Condition:
    return Condition(BY_NAME[field], operator, values)


def ids(
    stores: Stores,
    scope: Scope = Scope((1,)),  # noqa: B008
    expr: Expr | None = None,
    window: Window = ANY_TIME,
    sort: SortKey = NEWEST_FIRST,
    page: OffsetPage = EVERYTHING,
) -> list[str]:
    found = stores.reader.list_traces(scope, expr, window, sort, page)
    assert found.total == stores.reader.count_traces(scope, expr, window)
    assert found.total == stores.reader.sum_traces(scope, expr, window).traces
    return [row.summary.trace_id for row in found.rows]


def test_the_same_id_in_two_projects_is_two_traces(stores: Stores) -> None:
    for project_id, received_ns, text in ((1, T0_NS + 1, "one"), (2, T0_NS + 2, "two"), (3, T0_NS + 3, "three")):
        batch = make_batch("t", [make_span("s", text=text)], project_id=project_id)
        stores.writer.write([batch], received_ns=received_ns)

    def text_of(scope: Scope) -> list[bytes]:
        detail = stores.reader.get_trace(scope, "t")
        return [] if detail is None else [decode_record(each.record).raw for each in detail.spans]

    raw = {text: make_span("s", text=text).raw for text in ("one", "two", "three")}
    assert text_of(Scope((1,))) == [raw["one"]]
    assert text_of(BOTH) == [raw["two"]]  # the newest received copy
    assert text_of(Scope((3, 1))) == [raw["three"]]
    assert text_of(Scope((4,))) == []
    assert text_of(Scope(())) == []
    assert ids(stores, BOTH) == ["t", "t"]
    assert ids(stores, Scope(())) == []


def test_another_tenant_changes_nothing_one_can_see(stores: Stores) -> None:
    stores.writer.write([make_trace(f"t{n}", start_s=n) for n in range(4)], received_ns=T0_NS)
    before = stores.reader.list_traces(Scope((1,)), None, ANY_TIME, NEWEST_FIRST, EVERYTHING)
    foreign = [make_trace(f"t{n}", project_id=2, start_s=n, kind="chat") for n in range(6)]
    stores.writer.write(foreign, received_ns=T0_NS)
    assert stores.reader.list_traces(Scope((1,)), None, ANY_TIME, NEWEST_FIRST, EVERYTHING) == before
    assert ids(stores, expr=where("log_type", Operator.EQUALS, "chat")) == []
    assert stores.reader.get_trace(Scope((1,)), "t5") is None


def test_an_environment_hides_all_others(stores: Stores) -> None:
    for trace_id, environment in (("p", "prod"), ("s", "staging"), ("n", None)):
        context = SpanContext(environment=environment)
        stores.writer.write([make_batch(trace_id, [make_span("s", context=context)])], received_ns=T0_NS)
    scope = Scope((1,), "staging")
    assert ids(stores, scope) == ["s"]
    assert stores.reader.get_trace(scope, "p") is None
    assert stores.reader.get_trace(scope, "n") is None
    assert stores.reader.get_trace(scope, "s") is not None
    either = Group("OR", (where("environment", Operator.EQUALS, "prod"), where("span_count", Operator.GTE, Decimal(0))))
    assert ids(stores, scope, either) == ["s"]
    assert ids(stores, Scope((1,), "nowhere")) == []


def test_windows_are_half_open_on_the_start(stores: Stores) -> None:
    stores.writer.write([make_trace(f"t{n}", span_count=1, start_s=n) for n in range(5)], received_ns=T0_NS)

    def window(start_s: int | None, end_s: int | None) -> Window:
        at = [None if s is None else T0_NS + s * SECOND_NS for s in (start_s, end_s)]
        return Window(*at)

    assert ids(stores, window=window(1, 3)) == ["t2", "t1"]
    assert ids(stores, window=window(3, None)) == ["t4", "t3"]
    assert ids(stores, window=window(None, 1)) == ["t0"]
    assert ids(stores, window=window(2, 2)) == []
    assert ids(stores, window=Window(T0_NS + 1, T0_NS + SECOND_NS)) == []
    assert ids(stores, window=Window(T0_NS, T0_NS + SECOND_NS + 1)) == ["t1", "t0"]


def test_a_window_counts_exactly_at_its_edges_over_hours_and_before_1970(stores: Stores) -> None:
    hours = [-2, -1, 0, 1, 2]
    offsets_ns = [0, 1, 1_800 * SECOND_NS, 3_600 * SECOND_NS - 1]
    starts = sorted(hour * 3_600 * SECOND_NS + offset for hour in hours for offset in offsets_ns)
    for n, start_ns in enumerate(starts):
        span = make_span("s", start_s=(start_ns - T0_NS) / SECOND_NS)
        exact = span._replace(row=span.row._replace(start_ns=start_ns, end_ns=start_ns + 1))
        stores.writer.write([make_batch(f"t{n}", [exact])], received_ns=T0_NS)
    edges = [None, *starts, starts[-1] + 1]
    for start in edges:
        for end in edges:
            expected = sum((start is None or at >= start) and (end is None or at < end) for at in starts)
            assert stores.reader.count_traces(Scope((1,)), None, Window(start, end)) == expected


def test_pages_visit_each_row_once_and_end_empty(stores: Stores) -> None:
    stores.writer.write([make_trace(f"t{n}", start_s=n // 4) for n in range(23)], received_ns=T0_NS)
    everything = ids(stores)
    assert len(everything) == 23
    paged: list[str] = []
    for page in range(1, 6):
        found = stores.reader.list_traces(Scope((1,)), None, ANY_TIME, NEWEST_FIRST, OffsetPage(page, 5))
        assert (found.total, found.total_is_exact) == (23, True)
        paged += [row.summary.trace_id for row in found.rows]
    assert paged == everything
    for page in (6, 7, 2**40):
        past = stores.reader.list_traces(Scope((1,)), None, ANY_TIME, NEWEST_FIRST, OffsetPage(page, 5))
        assert (past.rows, past.total) == ([], 23)


def test_ties_are_broken_by_arrival_in_the_direction_of_the_sort(stores: Stores) -> None:
    for n in range(6):
        stores.writer.write([make_trace(f"t{n}", span_count=1 + n % 2)], received_ns=T0_NS)
    assert ids(stores) == ["t5", "t4", "t3", "t2", "t1", "t0"]
    assert ids(stores, sort=parse_sort("timestamp")) == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert ids(stores, sort=parse_sort("span_count")) == ["t0", "t2", "t4", "t1", "t3", "t5"]
    assert ids(stores, sort=parse_sort("-span_count")) == ["t5", "t3", "t1", "t4", "t2", "t0"]


@pytest.mark.parametrize("name", sorted(SORTABLE))
def test_every_sort_agrees_with_its_values_and_puts_missing_last(stores: Stores, name: str) -> None:
    values = [None, 3, 0, None, 7, 3]
    for n, value in enumerate(values):
        span = make_span(
            f"s{n}", start_s=n % 3, duration_s=1 + n % 4, kind="chat", cost_pico=value, prompt_tokens=value,
            completion_tokens=value, total_tokens=value, status="error" if n % 2 else "ok",
        )  # fmt: skip
        stores.writer.write([make_batch(f"t{n}", [span], project_id=1 + n % 2)], received_ns=T0_NS)
    for descending in (False, True):
        sort = SortKey(SORTABLE[name], descending)
        rows = stores.reader.list_traces(BOTH, None, ANY_TIME, sort, EVERYTHING).rows
        keys = [order_key(sort, row.summary, row.trace_pk) for row in rows]
        assert len(keys) == 6
        assert keys == sorted(keys)


def test_filters_reach_traces_spans_and_metadata(stores: Stores) -> None:
    anna = with_metadata({"plan": "pro"}, customer_identifier="anna")
    stores.writer.write(
        [
            make_batch("a", [make_span("a1", context=anna), make_span("a2", kind="chat", model="m", cost_pico=10)]),
            make_batch("b", [make_span("b1", kind="chat", model="n", cost_pico=20, status="error")]),
            make_batch("c", [make_span("c1", kind="tool", model="m"), make_span("c2", kind="chat", model="n")]),
        ],
        received_ns=T0_NS,
    )
    chat_m = (where("log_type", Operator.EQUALS, "chat"), where("model", Operator.EQUALS, "m"))
    plan = Condition(METADATA, Operator.EQUALS, ("pro",), "plan")
    cases: list[tuple[Expr, set[str]]] = [
        (where("customer_identifier", Operator.EQUALS, "anna"), {"a"}),
        (where("customer_identifier", Operator.NOT, "bert"), {"a"}),
        (where("customer_identifier", Operator.IS_NULL), {"b", "c"}),
        (where("trace_unique_id", Operator.IN, "a", "c", "zz"), {"a", "c"}),
        (where("error_count", Operator.GT, Decimal(0)), {"b"}),
        (Group("AND", chat_m), {"a"}),  # both on one span
        (Group("AND", (chat_m[0], Group("AND", (chat_m[1],)))), {"a", "c"}),  # each on a span of its own
        (Group("OR", chat_m), {"a", "b", "c"}),
        (plan, {"a"}),
        (Group("OR", (plan, where("cost", Operator.EQUALS, Decimal("0.00000000002")))), {"a", "b"}),
        (Group("AND", ()), {"a", "b", "c"}),
        (Group("OR", ()), set()),
    ]
    for expr, expected in cases:
        assert set(ids(stores, expr=expr)) == expected, expr


def test_text_is_found_in_spans_and_logs_and_goes_with_them(stores: Stores) -> None:
    texts = {
        "en": "The quick Brown fox",
        "de": "Straße und Übermut",
        "ja": "東京都の天気は晴れです",
        "quote": 'she said "no"',
    }
    for trace_id, text in texts.items():
        item = make_log("s", text=text) if trace_id == "de" else make_span("s", text=text)
        batch = make_batch(trace_id, [item])
        stores.writer.write([batch], received_ns=T0_NS)
    cases = [
        (Operator.CONTAINS, "quick Brown", {"en"}),
        (Operator.CONTAINS, "quick brown", set()),
        (Operator.ICONTAINS, "QUICK bROWN", {"en"}),
        (Operator.ICONTAINS, "strasse", {"de"}),
        (Operator.CONTAINS, "京都の天気", {"ja"}),
        (Operator.CONTAINS, "天", {"ja"}),
        (Operator.CONTAINS, 'said "no"', {"quote"}),
        (Operator.FULL_TEXT_SEARCH, "fox quick", {"en"}),
        (Operator.FULL_TEXT_SEARCH, "fox Übermut", set()),
        (Operator.CONTAINS, "nowhere to be found", set()),
    ]
    for operator, needle, expected in cases:
        assert set(ids(stores, expr=where("text", operator, needle))) == expected, needle
    about_tokyo = where("text", Operator.CONTAINS, "東京")
    plan = stores.deletions.plan(Scope((1,)), about_tokyo, ANY_TIME, received_before_ns=T0_NS + 1, limit=9)
    assert [line.trace_id for line in plan] == ["ja"]
    stores.deletions.hide("del_1", Scope((1,)), about_tokyo, ANY_TIME, plan, b"")
    assert ids(stores, expr=about_tokyo) == []
    stores.deletions.purge_batch("del_1", 0, rows_max=100)
    assert ids(stores, expr=about_tokyo) == []
    assert stores.deletions.remaining("del_1")["text_signature"] == 0


def test_sums_leave_the_unknown_out(stores: Stores) -> None:
    costs = [None, 5, 0]
    for n, cost in enumerate(costs):
        span = make_span("s", kind="chat", cost_pico=cost, prompt_tokens=3, duration_s=1, status="error")
        stores.writer.write([make_batch(f"t{n}", [span])], received_ns=T0_NS)
    stores.writer.write([make_batch("other", [make_span("s")], project_id=2)], received_ns=T0_NS)
    sums = stores.reader.sum_traces(Scope((1,)), None, ANY_TIME)
    assert sums == (3, 3, 3 * SECOND_NS, 9, None, 9, 5)
    nothing = stores.reader.sum_traces(Scope((2,)), None, ANY_TIME)
    assert nothing[:1] + nothing[3:] == (1, None, None, None, None)


def test_details_are_whole_sorted_and_lossless(stores: Stores) -> None:
    anna = with_metadata({"k": "v"}, customer_identifier="anna", tags=("a", "b"))
    items = [
        make_span("s2", parent="s1", start_s=2, text="zwei\0日本"),
        make_span("s1", start_s=0, context=anna),
        make_span("s0", parent="s1", start_s=2, is_streaming=True, ttft_s=0.25, usage_repeats=True),
        make_log("s1", at_s=3),
        make_log(None, at_s=1, text="first"),
    ]
    for item in items:
        stores.writer.write([make_batch("t", [item])], received_ns=T0_NS)
    detail = stores.reader.get_trace(Scope((1,)), "t")
    assert detail is not None
    order = [items[1], items[2], items[0]]
    assert [each.span for each in detail.spans] == [item.row for item in order]
    assert [each.context for each in detail.spans] == [item.context for item in order]
    assert [decode_record(each.record).raw for each in detail.spans] == [item.raw for item in order]
    assert [each.log for each in detail.logs] == [items[4].row, items[3].row]
    assert [decode_record(each.record).raw for each in detail.logs] == [items[4].raw, items[3].raw]
    assert detail.row.summary.metadata_all == (("k", "v"),)


def test_root_records_are_the_roots_and_its_logs(stores: Stores) -> None:
    root, log, other = make_span("r", text="root"), make_log("r", text="its log"), make_log("c", text="another's")
    stores.writer.write(
        [
            make_batch("with", [make_span("c", parent="r", start_s=-5), root, log, other]),
            make_batch("without", [make_span("x", text="x")]),
            make_batch("logs", [make_log(None, text="alone", at_s=2), make_log("zz", text="of a span")]),
        ],
        received_ns=T0_NS,
    )
    rows = stores.reader.list_traces(Scope((1,)), None, ANY_TIME, NEWEST_FIRST, EVERYTHING).rows
    records = stores.reader.root_records(rows)
    found = {
        row.summary.trace_id: (
            None if (root_record := records[row.trace_pk][0]) is None else decode_record(root_record).raw,
            [decode_record(record).raw for record in records[row.trace_pk][1]],
        )
        for row in rows
    }
    alone = make_log(None, text="alone", at_s=2).raw
    assert found == {
        "with": (root.raw, [log.raw]),
        "without": (make_span("x", text="x").raw, []),
        "logs": (None, [alone]),
    }


def test_pages_over_very_many_projects(stores: Stores) -> None:
    projects = tuple(range(1, 601))  # more than SQLite takes SELECTs of one compound
    batches = [make_trace(f"t{n}", span_count=1, project_id=n, start_s=float(n * 7 % 600)) for n in projects]
    stores.writer.write(batches, received_ns=T0_NS)
    wide = Scope(projects)
    newest = [f"t{n}" for n in sorted(projects, key=lambda n: n * 7 % 600, reverse=True)]
    assert ids(stores, wide) == newest
    assert ids(stores, wide, page=OffsetPage(3, 100)) == newest[200:300]
    assert ids(stores, wide, sort=parse_sort("start_time"), page=OffsetPage(2, 50)) == newest[::-1][50:100]
    # Costs are unknown: only the tie is left, in either direction.
    cheapest = ids(stores, wide, sort=parse_sort("total_cost"))
    assert cheapest == ids(stores, wide, sort=parse_sort("-total_cost"))[::-1]
    assert sorted(cheapest) == sorted(newest)


def test_sums_beyond_64_bits_are_exact(stores: Stores) -> None:
    most = 2**63 - 1
    batches = [make_trace(f"t{n}", span_count=1, cost_pico=most - n, kind="chat") for n in range(2)]
    stores.writer.write(batches, received_ns=T0_NS)
    assert stores.reader.sum_traces(Scope((1,)), None, ANY_TIME).cost_pico == 2 * most - 1
