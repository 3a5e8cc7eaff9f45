"""Hypothesis strategies for model values. The pools are small on purpose: ids meet, contents compete, filters match."""

from __future__ import annotations

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

_start_s = st.sampled_from((-7200.0, -1.0, 0.0, 1.0, 2.0, 3600.0))
_small = st.sampled_from((None, 0, 1, 2, 7))


def spans() -> st.SearchStrategy[Built]:
    """One span; parents may be missing or form cycles."""
    return st.builds(
        make_span,
        st.sampled_from(SPAN_IDS),
        parent=st.sampled_from((None, *SPAN_IDS, "gone")),
        start_s=_start_s,
        duration_s=st.sampled_from((0.0, 1.0, 2.0, 5.0)),
        context=st.sampled_from(CONTEXTS),
        text=st.sampled_from(("", "hello world", "日本語", "a'b\"c")),
        kind=st.sampled_from(("span", "workflow", "chat", "tool")),
        status=st.sampled_from(("ok", "error", "unset")),
        model=st.sampled_from((None, "m", "n")),
        prompt_tokens=_small,
        completion_tokens=_small,
        cost_pico=st.sampled_from((None, 0, 10**9, 2 * 10**9)),
        usage_repeats=st.booleans(),
    )


def logs() -> st.SearchStrategy[Built]:
    """One log record, of a span or of the trace."""
    return st.builds(
        make_log,
        st.sampled_from((None, *SPAN_IDS)),
        at_s=_start_s,
        text=st.sampled_from(("", "log text")),
        context=st.sampled_from(CONTEXTS),
        event_name=st.sampled_from((None, "e1", "e2")),
    )


@st.composite
def batches(draw: st.DrawFn) -> TraceBatch:
    """What one request brings for one trace: one to four spans and logs, each id once."""
    items = draw(st.lists(st.one_of(spans(), spans(), logs()), min_size=1, max_size=4))
    by_id: dict[Any, Built] = {item.row[0]: item for item in items}
    return make_batch(draw(st.sampled_from(TRACE_IDS)), by_id.values(), project_id=draw(st.sampled_from(PROJECT_IDS)))


def scopes() -> st.SearchStrategy[Scope]:
    """One project, both, or one environment."""
    return st.builds(
        Scope, st.sampled_from(((1,), (2,), (1, 2), (2, 1))), st.sampled_from((None, None, None, "prod", "staging"))
    )


def windows() -> st.SearchStrategy[Window]:
    """Open, half open or bounded, with edges on the starts of spans."""
    edge = st.one_of(st.none(), st.none(), _start_s.map(lambda s: T0_NS + round(s * SECOND_NS)))
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
