"""Hypothesis strategies for model values. The pools are small on purpose: ids meet, contents compete, filters match."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from clearspan.model.span import SpanContext, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import BY_NAME, METADATA
from clearspan.query.operators import Operator
from clearspan.query.page import SORTABLE, SortKey
from clearspan.testing.build import SECOND_NS, T0_NS, Built, make_batch, make_log, make_span, with_metadata

PROJECT_IDS = (1, 2)
TRACE_IDS = tuple(f"t{n}" for n in range(5))
SPAN_IDS = tuple(f"s{n}" for n in range(4))
CONTEXTS = (
    SpanContext(),
    SpanContext(customer_identifier="anna", environment="prod"),
    SpanContext(customer_identifier="bert", session_id="s-1", environment="staging", tags=("x",)),
    with_metadata({"plan": "pro"}, customer_identifier="anna", thread_id="th"),
    with_metadata({"plan": "free", "n": "7"}, group_id="g", key_id="key_1"),
)

STARTS_S = (-7200.0, -1.0, 0.0, 1.0, 2.0, 3600.0)
_SMALL = (None, 0, 1, 2, 7)


def _random_span(rng: random.Random) -> Built:
    return make_span(
        rng.choice(SPAN_IDS),
        parent=rng.choice((None, *SPAN_IDS, "gone")),
        start_s=rng.choice(STARTS_S),
        duration_s=rng.choice((0.0, 1.0, 2.0, 5.0)),
        context=rng.choice(CONTEXTS),
        text=rng.choice(("", "hello world", "日本語", "a'b\"c")),
        kind=rng.choice(("span", "workflow", "chat", "tool")),
        status=rng.choice(("ok", "error", "unset")),
        model=rng.choice((None, "m", "n")),
        prompt_tokens=rng.choice(_SMALL),
        completion_tokens=rng.choice(_SMALL),
        cost_pico=rng.choice((None, 0, 10**9, 2 * 10**9)),
        usage_repeats=rng.random() < 0.3,
    )


def _random_log(rng: random.Random) -> Built:
    return make_log(
        rng.choice((None, *SPAN_IDS)),
        at_s=rng.choice(STARTS_S),
        text=rng.choice(("", "log text")),
        context=rng.choice(CONTEXTS),
        event_name=rng.choice((None, "e1", "e2")),
    )


# Drawn whole, not field by field: one draw a span instead of thirteen, which is most of a property test's time.
_rng = random.Random(20260101)
SPANS = tuple(_random_span(_rng) for _ in range(300))
LOGS = tuple(_random_log(_rng) for _ in range(60))


@st.composite
def batches(draw: st.DrawFn) -> TraceBatch:
    """What one request brings for one trace: one to four spans and logs, each id once."""
    items = draw(st.lists(st.sampled_from(SPANS) | st.sampled_from(LOGS), min_size=1, max_size=4))
    by_id: dict[Any, Built] = {item.row[0]: item for item in items}
    return make_batch(draw(st.sampled_from(TRACE_IDS)), by_id.values(), project_id=draw(st.sampled_from(PROJECT_IDS)))


def scopes() -> st.SearchStrategy[Scope]:
    """One project, both, or one environment."""
    return st.builds(
        Scope, st.sampled_from(((1,), (2,), (1, 2), (2, 1))), st.sampled_from((None, None, None, "prod", "staging"))
    )


def windows() -> st.SearchStrategy[Window]:
    """Open, half open or bounded, with edges on the starts of spans."""
    edge = st.one_of(st.none(), st.none(), st.sampled_from(STARTS_S).map(lambda s: T0_NS + round(s * SECOND_NS)))
    return st.builds(Window, edge, edge)


def conditions() -> st.SearchStrategy[Condition]:
    """One condition that has a fair chance to match something."""
    return st.sampled_from(
        (
            _condition("customer_identifier", Operator.EQUALS, "anna"),
            _condition("customer_identifier", Operator.NOT, "anna"),
            _condition("environment", Operator.IN, "prod", "staging"),
            _condition("session_identifier", Operator.IS_NULL),
            _condition("trace_unique_id", Operator.IN, "t0", "t3"),
            _condition("error_count", Operator.GT, Decimal(0)),
            _condition("span_count", Operator.LTE, Decimal(2)),
            _condition("total_cost", Operator.GTE, Decimal("0.001")),
            _condition("total_prompt_tokens", Operator.LT, Decimal(3)),
            _condition("start_time", Operator.GTE, T0_NS),
            _condition("model", Operator.EQUALS, "m"),
            _condition("log_type", Operator.IN, "chat", "tool"),
            _condition("span_parent_id", Operator.IS_NOT_NULL),
            Condition(METADATA, Operator.EQUALS, ("pro",), "plan"),
            Condition(METADATA, Operator.NOT, ("pro",), "plan"),
            Condition(METADATA, Operator.NOT_EMPTY, (), "n"),
        )
    )


def filters() -> st.SearchStrategy[Expr]:
    """A condition or a small tree of groups."""
    return st.recursive(
        conditions(),
        lambda inner: st.builds(
            Group, st.sampled_from(("AND", "OR")), st.lists(inner, min_size=1, max_size=3).map(tuple)
        ),
        max_leaves=4,
    )


def sorts() -> st.SearchStrategy[SortKey]:
    """Any order a list may be asked for."""
    return st.builds(SortKey, st.sampled_from(sorted(SORTABLE.values(), key=lambda field: field.name)), st.booleans())


def _condition(field: str, operator: Operator, *values: str | int | Decimal) -> Condition:
    return Condition(BY_NAME[field], operator, values)
