"""Respan's filter JSON: every accepted form, and every refusal by the name of its key."""

from __future__ import annotations

from typing import Any

import pytest

from clearspan.api.respan.filters import CONDITIONS_MAX, DEPTH_MAX, VALUES_MAX, parse_filters
from clearspan.model.errors import InvalidFilter
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.describe import describe
from clearspan.query.fields import METADATA, allowed_names, find_field
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition


def cond(name: str, operator: str, *values: object) -> Condition:
    field, key = find_field(name)
    return make_condition(name, field, Operator(operator), values, key=key)


def parse(filters: object, operator: object = None) -> Expr | None:
    return parse_filters(filters, operator, fields="list")


def both(*children: Expr) -> Group:
    return Group("AND", children)


def either(*children: Expr) -> Group:
    return Group("OR", children)


A = {"operator": "", "value": ["a"]}
ADA = cond("customer_identifier", "equals", "a")
PROD = cond("environment", "equals", "a")
GROUPED = cond("trace_group_identifier", "equals", "a")
FAST, SLOW, MODEL = cond("latency", "lt", 1), cond("latency", "gt", 10), cond("model", "equals", "a")


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_no_filter(nothing: object) -> None:
    assert parse(nothing) is None
    assert parse(nothing, "OR") is None


def test_the_documented_bulk_deletions() -> None:
    one = {"customer_identifier": {"operator": "=", "value": ["user@example.com"]}}
    ids = {"trace_unique_id": {"operator": "IN", "value": ["trace_abc123", "trace_def456"]}}
    failed = {"error_count": {"operator": "gt", "value": [0]}}
    assert [parse_filters(filters, fields="bulk_delete") for filters in (one, ids, failed)] == [
        cond("customer_identifier", "equals", "user@example.com"),
        cond("trace_unique_id", "in", "trace_abc123", "trace_def456"),
        cond("error_count", "gt", 0),
    ]


@pytest.mark.parametrize(
    "condition",
    [A, {"value": ["a"]}, {"value": "a"}, {"operator": None, "value": ["a"]}, {"operator": "EQ", "value": "a"}],
)
def test_ways_to_say_equals(condition: dict[str, Any]) -> None:
    assert parse({"customer_identifier": condition}) == ADA


def test_members_are_joined_by_the_top_operator() -> None:
    filters = {"customer_identifier": A, "environment": A}
    assert parse(filters) == both(ADA, PROD)
    assert parse(filters, "AND") == both(ADA, PROD)
    assert parse(filters, "or") == either(ADA, PROD)


def test_a_range_stands_in_its_and_level_but_stays_together_under_or() -> None:
    between = [{"operator": "lt", "value": [1]}, {"operator": ">", "value": 10}]
    assert parse({"latency": between}) == both(FAST, SLOW)
    assert parse({"model": A, "latency": between}) == both(MODEL, FAST, SLOW)
    assert parse({"model": A, "latency": between}, "OR") == either(MODEL, both(FAST, SLOW))
    assert parse({"latency": between[:1]}) == FAST


def test_connectors_of_conditions_join_them_to_the_next() -> None:
    lt, gt = {"operator": "lt", "value": [1], "connector": "OR"}, {"operator": "gt", "value": [10]}
    assert parse({"latency": [lt, gt]}) == either(FAST, SLOW)
    assert parse({"latency": [lt, gt | {"connector": "OR"}], "model": A}) == both(either(FAST, SLOW), MODEL)
    assert parse({"customer_identifier": A | {"connector": "or"}, "environment": A}) == either(ADA, PROD)
    assert parse({"customer_identifier": A, "environment": A | {"connector": "OR"}}) == both(ADA, PROD)
    assert parse({"customer_identifier": A | {"connector": "AND"}, "environment": A}, "AND") == both(ADA, PROD)


@pytest.mark.parametrize(
    ("filters", "operator", "key"),
    [
        ({"customer_identifier": A | {"connector": "OR"}, "environment": A, "model": A}, None, "environment"),
        ({"customer_identifier": A | {"connector": "AND"}, "environment": A}, "OR", "customer_identifier"),
        ({"customer_identifier": A | {"connector": "OR"}, "environment": A}, "AND", "customer_identifier"),
        (
            {"g": {"connector": "OR", "filter_params": {"environment": A | {"connector": "AND"}, "model": A}}},
            None,
            "environment",
        ),
    ],
)
def test_connectors_that_disagree_are_refused(filters: object, operator: object, key: str) -> None:
    with pytest.raises(InvalidFilter, match="disagrees") as caught:
        parse(filters, operator)
    assert caught.value.fields == (key,)


def test_bundles_nest() -> None:
    filters = {
        "customer_identifier": A,
        "any of these": {
            "connector": "OR",
            "filter_params": {
                "environment": A,
                "and": {"filter_params": {"model": A, "latency": {"operator": "gt", "value": [10]}}},
            },
        },
    }
    assert parse(filters) == both(ADA, either(PROD, both(MODEL, SLOW)))
    assert parse(filters, "OR") == either(ADA, either(PROD, both(MODEL, SLOW)))


def test_a_bundle_of_one_is_a_group_of_its_own() -> None:
    assert parse({"model": A, "b": {"filter_params": {"latency": {"operator": "gt", "value": 10}}}}) == both(
        MODEL, both(SLOW)
    )
    assert parse({"model": [{"filter_params": {"environment": A}}, {"value": "a"}]}) == both(both(PROD), MODEL)


def test_the_list_form() -> None:
    items = [{"field": "customer_identifier", **A}, {"field": "metadata__plan", "value": 7}]
    plan = cond("metadata__plan", "equals", "7")
    assert parse(items) == both(ADA, plan)
    assert parse(items, "OR") == either(ADA, plan)
    assert parse([items[0] | {"connector": "OR"}, items[1]]) == either(ADA, plan)
    assert parse([{"connector": "OR", "filter_params": {"environment": A, "model": A}}]) == either(PROD, MODEL)
    assert parse(items[:1]) == ADA


def test_metadata_keys_and_aliases() -> None:
    assert parse({"metadata__a.b": {"value": True}}) == Condition(METADATA, Operator.EQUALS, ("true",), "a.b")
    assert parse({"total_request_tokens": {"operator": ">=", "value": "7"}}) == cond("total_tokens", "gte", 7)


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [("isnull", [True], "is missing"), ("isnull", False, "is present"), ("is_empty", [""], "is empty"),
     ("notEmpty", [""], "is not empty"), ("NOTEMPTY", [], "is not empty")],
)  # fmt: skip
def test_presence(operator: str, value: object, expected: str) -> None:
    assert describe(parse({"environment": {"operator": operator, "value": value}})) == f"environment {expected}"
    assert parse({"environment": {"operator": "empty"}}) == cond("environment", "empty")


def test_null_for_what_is_not_used_is_accepted() -> None:
    unused = {"connector": None, "operator_function": None, "operator_args": None}
    assert parse({"customer_identifier": A | unused}) == ADA


@pytest.mark.parametrize(
    ("filters", "key", "told"),
    [
        ("x", "filters", "an object or a list"),
        (7, "filters", "an object or a list"),
        (["x"], "filters", "must be an object"),
        ([{"operator": "=", "value": ["x"]}], "field", "needs a `field`"),
        ([{"field": 7, "value": ["x"]}], "field", "needs a `field`"),
        ({"bogus": A}, "bogus", "unknown filter field"),
        ({"customer_identifer": A}, "customer_identifer", "did you mean `customer_identifier`"),
        ({"metadata__": A}, "metadata__", "no metadata key"),
        ({"customer_identifier": "a"}, "customer_identifier", "is needed"),
        ({"customer_identifier": ["a"]}, "customer_identifier", "each item"),
        ({"customer_identifier": []}, "customer_identifier", "is empty"),
        ({"customer_identifier": {}}, "customer_identifier", "list of values is empty"),
        ({"customer_identifier": {"value": []}}, "customer_identifier", "list of values is empty"),
        ({"customer_identifier": {"operator": "in", "value": []}}, "customer_identifier", "list of values is empty"),
        ({"customer_identifier": {"value": None}}, "customer_identifier", "null is not a value"),
        ({"customer_identifier": {"value": ["a", None]}}, "customer_identifier", "null is not a value"),
        ({"customer_identifier": {"value": [["a"]]}}, "customer_identifier", "text is needed"),
        ({"customer_identifier": {"value": {"a": 1}}}, "customer_identifier", "text is needed"),
        ({"customer_identifier": {"operator": "bogus", "value": "a"}}, "customer_identifier", '"bogus" is unknown'),
        ({"customer_identifier": {"operator": 7, "value": "a"}}, "customer_identifier", "must be text"),
        ({"customer_identifier": {"operator": "regex", "value": "a"}}, "customer_identifier", "not supported"),
        ({"name": {"operator": "full_text_search", "value": "a"}}, "name", "only on the field `text`"),
        ({"customer_identifier": A | {"values": ["b"]}}, "customer_identifier", 'unknown key "values"'),
        ({"customer_identifier": A | {"field": "x"}}, "customer_identifier", 'unknown key "field"'),
        ({"customer_identifier": A | {"connector": "XOR"}}, "customer_identifier", "AND or OR"),
        ({"customer_identifier": A | {"connector": 1}}, "customer_identifier", "AND or OR"),
        ({"model": A | {"operator_function": "mapContainsKey"}}, "model", "`operator_function` is not supported"),
        ({"model": A | {"operator_args": ["k"]}}, "model", "`operator_args` is not supported"),
        ({"error_count": {"operator": "gt", "value": ["x"]}}, "error_count", "a number is needed"),
        ({"error_count": {"operator": "gt", "value": [True]}}, "error_count", "a number is needed"),
        ({"error_count": {"operator": "gt", "value": [1, 2]}}, "error_count", "takes one value"),
        ({"g": {"filter_params": {}}}, "g", "is empty"),
        ({"g": {"filter_params": []}}, "g", "must be an object"),
        ({"g": {"filter_params": {"model": A}, "operator": "OR"}}, "g", 'unknown key "operator"'),
        ({"g": {"connector": "any", "filter_params": {"model": A}}}, "g", "AND or OR"),
        ({"g": {"filter_params": {"bogus": A}}}, "bogus", "unknown filter field"),
        ({"\ud800": A}, "filters", "not valid Unicode"),
        ({"name": {"value": "\ud800"}}, "name", "not valid Unicode"),
    ],
)
def test_refusals_name_the_key(filters: object, key: str, told: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(filters)
    assert caught.value.fields == (key,)
    assert told in caught.value.message
    caught.value.message.encode()  # can be sent


@pytest.mark.parametrize("operator", ["XOR", "", 1, True, ["AND"]])
def test_other_top_operators_are_refused(operator: object) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse({"model": A}, operator)
    assert caught.value.fields == ("operator",)


def test_a_bulk_deletion_refuses_every_other_field_even_in_a_bundle() -> None:
    others = [name for name in allowed_names() if name not in allowed_names(bulk_delete=True)]
    for name in others:
        with pytest.raises(InvalidFilter, match="bulk deletion") as caught:
            parse_filters({"g": {"filter_params": {name: {"operator": "isnull", "value": True}}}}, fields="bulk_delete")
        assert caught.value.fields == (name,)
    assert {"model", "scores__<name>"} <= set(others)


def nested(depth: int) -> dict[str, Any]:
    filters: dict[str, Any] = {"model": A}
    for _ in range(depth):
        filters = {"g": {"filter_params": filters}}
    return filters


def test_limits() -> None:
    assert parse(nested(DEPTH_MAX - 1)) is not None
    with pytest.raises(InvalidFilter, match=f"deeper than {DEPTH_MAX}"):
        parse(nested(DEPTH_MAX))
    with pytest.raises(InvalidFilter, match="deeper than"):
        parse(nested(400))
    assert parse({"model": [A] * CONDITIONS_MAX}) is not None
    with pytest.raises(InvalidFilter, match=f"more than {CONDITIONS_MAX} conditions"):
        parse({"model": [A] * (CONDITIONS_MAX + 1)})
    assert parse({"model": {"value": ["a"] * VALUES_MAX}}) is not None
    with pytest.raises(InvalidFilter, match=f"more than {VALUES_MAX} values"):
        parse({"model": {"value": ["a"] * VALUES_MAX}, "name": {"value": "a"}})
