"""Traces after a position, and sessions: every store against a plain model."""

from __future__ import annotations

import random
from typing import Any, cast

from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr, Group, RootSpan
from clearspan.query.evaluate import SpanFacts, TraceFacts, matches
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.query.values import make_condition
from clearspan.store.port import TraceRow
from clearspan.store.sessions import SessionReader, SessionRow, TraceOrder, TracePosition
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.stores import Stores

SEED = 20261122
SCOPE = Scope((1, 2))
TRACES = 60
S = 1_000_000_000


def reader_of(stores: Stores) -> SessionReader:
    return cast(SessionReader, stores.reader)


def fill(stores: Stores) -> None:
    """Traces in two projects, many of them with equal starts and durations; sessions that meet in both projects."""
    rng, batches = random.Random(SEED), []
    for n in range(TRACES):
        context = SpanContext(
            session_id=rng.choice([None, "", "s1", "s2", "s3", "ß", "only here"]) if n else "first",
            environment=rng.choice([None, "prod"]),
            metadata=(("tier", rng.choice(["gold", "iron"])),),
        )
        span = make_span(
            "root", start_s=rng.randrange(5), duration_s=rng.randrange(1, 4), context=context,
            status=rng.choice(["ok", "error"]), kind="chat", prompt_tokens=rng.choice([None, n]),
            total_tokens=rng.choice([None, 2 * n]), cost_pico=rng.choice([None, 0, n]),
        )  # fmt: skip
        batches.append(make_batch(f"t{n}", [span], project_id=rng.choice([1, 2])))
    stores.writer.write(batches, received_ns=T0_NS)


def everything(stores: Stores, scope: Scope = SCOPE) -> list[TraceRow]:
    page = stores.reader.list_traces(scope, None, Window(), NEWEST_FIRST, OffsetPage(1, 1000))
    return [row._replace(summary=row.summary._replace(metadata_all=())) for row in page.rows]


def value_of(row: TraceRow, order: TraceOrder) -> int:
    return row.summary.start_ns if order.is_by_start else row.summary.duration_ns


def hide(stores: Stores, *trace_ids: str, scope: Scope = SCOPE) -> None:
    planned = stores.deletions.plan_ids(scope, trace_ids, Window())
    stores.deletions.hide(f"del-{trace_ids[0]}", scope, None, Window(), planned, b"{}")


def condition(name: str, operator: Operator, *values: Any) -> Expr:
    return make_condition(name, field_named(name), operator, values)


WHERES: tuple[Expr | None, ...] = (
    None,
    condition("error_count", Operator.GT, 0),
    condition("session_identifier", Operator.IN, "s1", "s2", "none"),
    condition("duration", Operator.GTE, 2),
    condition("trace_unique_id", Operator.IN, "t1", "t2", "t3", "t50"),
    make_condition("metadata__tier", field_named("metadata"), Operator.EQUALS, ["gold"], key="tier"),
    RootSpan(condition("status", Operator.EQUALS, "error")),
    Group("OR", ()),
)


SIGHTS = (
    (SCOPE, Window()),
    (Scope((1,)), Window(T0_NS + S, T0_NS + 3 * S)),
    (Scope((1, 2), "prod"), Window(None, T0_NS + 4 * S)),
    (Scope(()), Window()),
)


def test_pages_of_traces_put_together_are_the_plain_models(stores: Stores) -> None:
    fill(stores)
    hide(stores, "t5", "t6")
    for scope, window in SIGHTS:
        rows = [row for row in everything(stores, scope) if _is_within(row, window)]
        details = {
            row.trace_pk: stores.reader.get_trace(Scope((row.project_id,)), row.summary.trace_id) for row in rows
        }
        for where in WHERES:
            matching = [row for row in rows if _matches(where, details[row.trace_pk])]
            for order in TraceOrder:
                expected = sorted(
                    matching, key=lambda row: (value_of(row, order), row.trace_pk), reverse=order.is_descending
                )
                assert walked(stores, scope, where, window, order) == expected, (scope, where, order)
                for skip in (0, 3, len(expected), len(expected) + 1):
                    rest = reader_of(stores).walk_traces(scope, where, window, order=order, skip=skip, limit=4)
                    assert rest.rows == expected[skip : skip + 4]
                    assert (rest.after is not None) == (skip + 4 < len(expected))


def walked(stores: Stores, scope: Scope, where: Expr | None, window: Window, order: TraceOrder) -> list[TraceRow]:
    """All pages of a list, of sizes that differ."""
    rng = random.Random(SEED)
    found: list[TraceRow] = []
    after: TracePosition | None = None
    while True:
        limit = rng.randrange(1, 20)
        page = reader_of(stores).walk_traces(scope, where, window, order=order, after=after, limit=limit)
        found += page.rows
        assert len(page.rows) <= limit
        if page.after is None:
            return found
        assert page.after == (value_of(page.rows[-1], order), page.rows[-1].trace_pk)
        after = page.after


def _is_within(row: TraceRow, window: Window) -> bool:
    start_ns = row.summary.start_ns
    return (window.start_ns is None or start_ns >= window.start_ns) and (
        window.end_ns is None or start_ns < window.end_ns
    )


def _matches(where: Expr | None, detail: Any) -> bool:
    facts = TraceFacts(
        detail.row.summary, [each.span for each in detail.spans],
        details=[SpanFacts(each.span, each.context) for each in detail.spans],
    )  # fmt: skip
    return matches(where, facts)


def model_of(rows: list[TraceRow]) -> dict[tuple[int, str], list[TraceRow]]:
    made: dict[tuple[int, str], list[TraceRow]] = {}
    for row in rows:
        if row.summary.session_id is not None:
            made.setdefault((row.project_id, row.summary.session_id), []).append(row)
    return made


def check(row: SessionRow, traces: list[TraceRow]) -> None:
    told = [each.summary for each in sorted(traces, key=lambda each: (each.summary.start_ns, each.trace_pk))]
    assert [(each.trace_id, each.start_ns, each.end_ns) for each in row.traces] == [
        (each.trace_id, each.start_ns, each.end_ns) for each in told
    ]
    for name in ("error_count", "llm_call_count", "prompt_tokens", "completion_tokens", "total_tokens", "cost_pico"):
        assert [getattr(each, name) for each in row.traces] == [getattr(each, name) for each in told]
    assert row.first_pk == min(each.trace_pk for each in traces)
    assert (row.start_ns, row.end_ns) == (min(each.start_ns for each in told), max(each.end_ns for each in told))


def test_sessions_are_the_visible_traces_of_one_id_and_project(stores: Stores) -> None:
    fill(stores)
    hide(stores, "t0", "t7", "t8")
    for scope in (SCOPE, Scope((2,)), Scope((1, 2), "prod"), Scope(()), Scope((9,))):
        for descending in (False, True):
            check_sessions(stores, descending, scope)


def check_sessions(stores: Stores, descending: bool, scope: Scope) -> None:
    model = model_of(everything(stores, scope))
    assert not any(session_id == "first" for _, session_id in model), "its only trace is hidden"
    rng = random.Random(SEED)
    rows: list[SessionRow] = []
    after: int | None = None
    while True:
        page = reader_of(stores).list_sessions(scope, descending=descending, after=after, limit=rng.randrange(1, 4))
        rows += page.rows
        if page.after is None:
            break
        assert page.after == page.rows[-1].first_pk
        after = page.after
    assert [row.first_pk for row in rows] == sorted((row.first_pk for row in rows), reverse=descending)
    assert {(row.project_id, row.session_id) for row in rows} == set(model)
    assert len(rows) == len(model)
    for row in rows:
        check(row, model[row.project_id, row.session_id])
    found = reader_of(stores).find_sessions(scope, ["s1", "ß", "", "nowhere", "first"])
    assert [(row.project_id, row.session_id) for row in found] == sorted(
        key for key in model if key[1] in ("s1", "ß", "")
    )
    for row in found:
        check(row, model[row.project_id, row.session_id])


def test_a_session_stays_in_its_place_while_others_come_and_go(stores: Stores) -> None:
    for n, session_id in enumerate(["a", "b", "c", "a", "d"]):
        context = SpanContext(session_id=session_id)
        batch = make_batch(f"t{n}", [make_span("root", start_s=10 - n, context=context)])
        stores.writer.write([batch], received_ns=T0_NS)
    reader, scope = reader_of(stores), Scope((1,))
    first = reader.list_sessions(scope, limit=2)
    assert [row.session_id for row in first.rows] == ["a", "b"]
    hide(stores, "t1", scope=scope)
    late = make_batch("t9", [make_span("root", start_s=-5, context=SpanContext(session_id="c"))])
    stores.writer.write([late], received_ns=T0_NS)
    assert [row.session_id for row in reader.list_sessions(scope, after=first.after, limit=9).rows] == ["c", "d"]
    assert [row.session_id for row in reader.list_sessions(scope, limit=9).rows] == ["a", "c", "d"]
    assert reader.find_sessions(scope, ["c"])[0].traces[0].trace_id == "t9"
