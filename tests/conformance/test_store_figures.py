"""What every store must hold of figures over many traces: what reading the traces one by one would say."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.test_store_scores import ANY_TIME, BOTH, ONE

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import IS_ROOT, METADATA, field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.figures import last_of_key
from clearspan.store.port import PlannedTrace, TraceDetail
from clearspan.store.sqlite import figures, select
from clearspan.testing.build import T0_NS, make_batch, make_span, with_metadata
from clearspan.testing.stores import Stores

SCOPES = (ONE, BOTH, Scope(()), Scope((1,), "staging"))
MARKED = Condition(METADATA, Operator.IS_NOT_NULL, (), "marked")
UNMARKED = Condition(METADATA, Operator.IS_NULL, (), "marked")
ROOT = Condition(IS_ROOT, Operator.EQUALS, (True,))
FAILED = Condition(field_named("error_count"), Operator.GT, (0,))
FILTERS = (None, MARKED, UNMARKED, Group("AND", (UNMARKED, FAILED)), Group("OR", (MARKED, FAILED)))
WINDOWS = (ANY_TIME, Window(T0_NS + 3 * 10**9, T0_NS + 9 * 10**9))


@pytest.fixture(params=[(select.RARE_MAX, figures.CHUNK), (2, 1)], ids=["rare", "common"])
def filled(stores: Stores, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stores:
    """Traces of all kinds, some without a root; metadata that is rare, or that is not; read at once, or one by one."""
    rare, chunk = request.param
    monkeypatch.setattr(select, "RARE_MAX", rare)
    monkeypatch.setattr(figures, "CHUNK", chunk)
    rng = random.Random(11)
    for n in range(16):
        pairs = {"item": f"i{n % 7}"} if n % 4 else {}
        pairs |= {"marked": "yes"} if n % 5 == 0 else {}
        context = with_metadata(pairs, environment=rng.choice([None, "staging"]))
        spans = [
            make_span(
                f"t{n}.{at}",
                parent=f"t{n}.0" if at else "gone" if n % 6 == 5 else None,
                start_s=float(rng.randrange(12)),
                status=rng.choice(["ok", "error", "pending", "unset"]),
                ttft_s=rng.choice([None, 0.1, 0.2, 1e-9]),
                cost_pico=rng.choice([None, 0, 10**12]),
                context=context,
            )
            for at in range(1 + n % 3)
        ]
        stores.writer.write([make_batch(f"t{n}", spans, project_id=1 + n % 2)], received_ns=T0_NS)
    return stores


def details(stores: Stores, scope: Scope, where: Expr | None, window: Window) -> list[TraceDetail]:
    """Every trace that matches, the first start first."""
    rows = stores.reader.list_traces(scope, where, window, NEWEST_FIRST, OffsetPage(1, 100)).rows
    found = [stores.reader.get_trace(scope, row.summary.trace_id) for row in rows]
    return sorted(
        (each for each in found if each is not None), key=lambda each: (each.row.summary.start_ns, each.row.trace_pk)
    )


def check(stores: Stores) -> None:
    reader: Any = stores.reader
    for scope in SCOPES:
        for where in FILTERS:
            for window in WINDOWS:
                found = details(stores, scope, where, window)
                for limit in (100, 2):
                    told = reader.trace_figures(scope, where, window, key="item", limit=limit)
                    assert list(zip(*told, strict=True)) == [_figure(each) for each in found[:limit]]
                    values = reader.trace_values(scope, where, window, key="item", limit=limit)
                    assert values == told.values
                seconds = [each.span.ttft_s for detail in found for each in detail.spans]
                known = [each for each in seconds if each is not None]
                assert reader.first_tokens(scope, where, window) == (len(known), pytest.approx(sum(known)))
                assert reader.count_traces(scope, where, window) == len(found)


def _figure(detail: TraceDetail) -> tuple[object, ...]:
    summary = detail.row.summary
    statuses = {each.span.span_id: each.span.status for each in detail.spans}
    return (
        detail.row.trace_pk, summary.trace_id, dict(summary.metadata).get("item"), summary.end_ns - summary.start_ns,
        summary.error_count, summary.unpriced_count, summary.cost_pico or 0, summary.cost_pico is not None,
        statuses.get(summary.root_span_id or "") == "pending",
    )  # fmt: skip


def test_figures_are_those_of_the_traces(filled: Stores) -> None:
    assert len(details(filled, BOTH, None, ANY_TIME)) == 16
    check(filled)
    rows = filled.reader.list_traces(BOTH, MARKED, ANY_TIME, NEWEST_FIRST, OffsetPage(1, 2)).rows
    planned = sorted(PlannedTrace(row.trace_pk, row.project_id, row.summary.trace_id) for row in rows)
    filled.deletions.hide("del_1", BOTH, None, ANY_TIME, planned, b"{}")
    assert len(details(filled, BOTH, None, ANY_TIME)) == 14
    check(filled)


def test_statuses_are_those_of_the_spans(filled: Stores) -> None:
    for scope in SCOPES:
        for where in (None, ROOT, Group("AND", (ROOT, UNMARKED)), Group("AND", (ROOT, MARKED)), MARKED):
            for window in WINDOWS:
                rows = filled.spans.list_spans(scope, where, window, limit=1_000).rows
                found = filled.reader.span_statuses(scope, where, window)  # type: ignore[attr-defined]
                assert found == Counter(row.detail.span.status for row in rows)


TEXTS = st.lists(st.sampled_from(["key", "kéy", '"', "\\", "[", "],[", ",", '["key","', '","', "\n"]), max_size=3).map(
    "".join
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4), st.sampled_from(["key", "kéy", '"', "none"]))
def test_the_value_of_a_key_is_the_last_one(pairs: list[tuple[str, str]], key: str) -> None:
    assert last_of_key(orjson.dumps(pairs).decode(), key) == dict(pairs).get(key)
    assert last_of_key(None, key) is None
