"""What filters mean, case by case. That SQL means the same is shown by the differential test."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clearspan.model.errors import InvalidFilter
from clearspan.model.span import Span
from clearspan.model.trace import TraceSummary
from clearspan.query.ast import Expr, Group
from clearspan.query.evaluate import TraceFacts, matches
from clearspan.query.fields import find_field
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition

SUMMARY = TraceSummary(
    trace_id="t1", root_span_id="r", name="Größe", kind=None, start_ns=0, end_ns=1_500_000_000, span_count=2,
    llm_call_count=1, error_count=0, unpriced_count=0, prompt_tokens=None, completion_tokens=None, total_tokens=0,
    cached_tokens=None, reasoning_tokens=None, cost_pico=100_000_000_000, model=None, customer_identifier="Ada",
    session_id=None, thread_id=None, group_id=None, environment="", key_id=None, metadata=(), tags=(),
    metadata_all=(("plan", "free"), ("plan", "pro"), ("blank", "")),
)  # fmt: skip


def span(**fields: object) -> Span:
    blank = dict.fromkeys(Span._fields)
    return Span(**(blank | {"start_ns": 0, "end_ns": 0, "status": "unset", "name": "s"} | fields))  # type: ignore[arg-type]


SPANS = [
    span(span_id="a", model="m1", end_ns=3_000_000_000, completion_tokens=6, status="ok"),
    span(span_id="b", model="m2", end_ns=1_000_000_000, status="error", status_code=500),
]
FACTS = TraceFacts(
    SUMMARY, SPANS, ["Hello World", "日本語のテキスト"], (), [("exact", 1.0), ("judge", 0.2), ("judge", 0.9)]
)


def cond(name: str, operator: str, *values: object) -> Expr:
    field, key = find_field(name)
    return make_condition(name, field, Operator(operator), values, key=key)


def holds(name: str, operator: str, *values: object, facts: TraceFacts = FACTS) -> bool:
    return matches(cond(name, operator, *values), facts)


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("equals", ["Ada"], True),
        ("equals", ["ada"], False),
        ("equals", ["x", "Ada"], True),
        ("in", ["x", "y"], False),
        ("not", ["x"], True),
        ("not", ["x", "Ada"], False),  # none of them
        ("not_in", ["x", "y"], True),
        ("contains", ["d"], True),
        ("contains", ["D"], False),
        ("icontains", ["D"], True),
        ("not_contains", ["d"], False),
        ("startswith", ["Ad"], True),
        ("not_startswith", ["ad"], True),
        ("endswith", ["da"], True),
        ("iexact", ["ADA"], True),
        ("contains", ["%"], False),  # no wildcards
        ("contains", ["_"], False),
    ],
)
def test_text(operator: str, values: Sequence[object], expected: bool) -> None:
    assert holds("customer_identifier", operator, *values) is expected


def test_case_folding_reaches_beyond_ascii() -> None:
    assert holds("name", "icontains", "GRÖSSE")
    assert holds("name", "iexact", "grösse")
    assert not holds("name", "contains", "grösse")


@pytest.mark.parametrize(
    "operator", ["equals", "not", "not_in", "contains", "not_contains", "not_startswith", "not_endswith", "iexact"]
)
@pytest.mark.parametrize("name", ["session_identifier", "metadata__absent"])
def test_nothing_but_presence_tests_matches_a_missing_value(name: str, operator: str) -> None:
    assert not holds(name, operator, "x")
    assert holds(name, "is_null", True)
    assert holds(name, "empty")
    assert not holds(name, "is_null", False)
    assert not holds(name, "not_empty")


def test_an_empty_text_is_there_and_empty() -> None:
    for name in ("environment", "metadata__blank"):
        assert holds(name, "empty")
        assert not holds(name, "not_empty")
        assert not holds(name, "is_null", True)
        assert holds(name, "equals", "")
        assert holds(name, "not", "x")


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("equals", ["pro"], True),
        ("equals", ["free"], True),
        ("not", ["pro"], False),  # some span says pro
        ("not", ["gold"], True),
        ("not_contains", ["fre"], False),
        ("gt", ["g"], True),
        ("gt", ["z"], False),
    ],
)
def test_metadata_is_a_set_of_values(operator: str, values: Sequence[object], expected: bool) -> None:
    assert holds("metadata__plan", operator, *values) is expected


def test_conditions_on_several_metadata_keys_are_independent() -> None:
    both = Group("AND", (cond("metadata__plan", "equals", "pro"), cond("metadata__plan", "equals", "free")))
    assert matches(both, FACTS)


def test_unknown_numbers_are_not_zero() -> None:
    assert holds("total_tokens", "equals", 0)
    assert not holds("total_prompt_tokens", "equals", 0)
    assert not holds("total_prompt_tokens", "not", 5)
    assert holds("total_prompt_tokens", "is_null", True)


def test_dollars_and_seconds_are_exact() -> None:
    assert holds("total_cost", "equals", 0.1)
    assert not holds("total_cost", "gt", 0.1)
    assert holds("total_cost", "gt", "0.0999999999999")
    assert holds("duration", "equals", 1.5)
    assert holds("tokens_per_second", "equals", 2)
    assert not holds("tokens_per_second", "lt", 2)  # the other span's is missing


def test_conditions_of_one_and_group_hold_on_the_same_span() -> None:
    m1, m2, slow = cond("model", "equals", "m1"), cond("model", "equals", "m2"), cond("latency", "gt", 2)
    assert matches(Group("AND", (m1, slow)), FACTS)
    assert not matches(Group("AND", (m2, slow)), FACTS)
    assert not matches(Group("AND", (m1, m2)), FACTS)
    assert matches(Group("AND", (m2, Group("AND", (slow,)))), FACTS)  # another group, another span
    assert matches(Group("AND", (Group("OR", (m1,)), m2)), FACTS)
    assert matches(Group("OR", (cond("model", "equals", "m3"), slow)), FACTS)


def test_a_span_negation_asks_for_a_span_with_another_value() -> None:
    assert holds("model", "not", "m1")
    assert not holds("model", "not", "m1", "m2")
    assert not holds("status_code", "not", 500)  # the other span has none


def test_status_is_success_or_error() -> None:
    assert holds("status", "equals", "success")
    assert holds("status", "equals", "error")
    assert not holds("status", "not", "success", "error")


def test_a_trace_without_spans_matches_no_span_condition() -> None:
    bare = TraceFacts(SUMMARY)
    assert not holds("model", "is_null", True, facts=bare)
    assert not holds("status", "equals", "success", facts=bare)
    assert matches(Group("AND", ()), bare)
    assert not matches(Group("OR", ()), bare)
    assert matches(None, bare)


def test_text_search_looks_into_each_text() -> None:
    assert holds("text", "icontains", "hello")
    assert holds("text", "contains", "本語の")
    assert holds("text", "full_text_search", "world テキスト")
    assert not holds("text", "contains", "hello")


@pytest.mark.parametrize(
    ("name", "operator", "values", "expected"),
    [
        ("exact", "equals", [1], True),
        ("exact", "equals", ["1.0"], True),
        ("exact", "not", [1], False),
        ("exact", "gte", [1], True),
        ("exact", "lt", [1], False),
        ("judge", "gt", [0.8], True),  # one of several is enough
        ("judge", "lt", [0.3], True),
        ("judge", "in", [0.9, 7], True),
        ("judge", "not_in", [0.9, 7], False),  # none of them may be
        ("judge", "not", [0.5], True),
        ("judge", "is_null", [], False),
        ("judge", "not_empty", [], True),
        ("other", "equals", [0], False),
        ("other", "not", [0], False),  # no negation holds without a score
        ("other", "not_in", [0, 1], False),
        ("other", "lt", [1], False),
        ("other", "is_null", [], True),
        ("other", "empty", [], True),
        ("other", "is_null", [False], False),
        ("EXACT", "equals", [1], False),
    ],
)
def test_scores(name: str, operator: str, values: Sequence[object], expected: bool) -> None:
    assert holds(f"scores__{name}", operator, *values) is expected


@pytest.mark.parametrize(
    ("operator", "values"),
    [("contains", ["1"]), ("equals", ["high"]), ("equals", [True]), ("gt", [0, 1]), ("startswith", ["1"]), ("in", [])],
)
def test_scores_are_numbers_only(operator: str, values: Sequence[object]) -> None:
    with pytest.raises(InvalidFilter):
        cond("scores__exact", operator, *values)
