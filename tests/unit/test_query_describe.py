"""Filters in words, without values, and as plain data."""

from __future__ import annotations

import pickle

import pytest

from clearspan.model.trace import Window
from clearspan.query.ast import Condition, Expr, Group, conditions, conjuncts
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.describe import describe, describe_shape
from clearspan.query.fields import METADATA, find_field
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition


def cond(name: str, operator: str, *values: object) -> Condition:
    field, key = find_field(name)
    return make_condition(name, field, Operator(operator), values, key=key)


COST = cond("total_cost", "gte", "0.10")
TREE = Group(
    "AND",
    (
        cond("customer_identifier", "equals", "ada@example.com"),
        cond("model", "in", "m1", "m2"),
        cond("latency", "gt", 2),
        Group("OR", (COST, cond("metadata__plan", "not", "pro"), cond("stream", "equals", True))),
        cond("start_time", "lt", "2026-01-01T00:00:00.5Z"),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        (None, "any trace"),
        (cond("trace_unique_id", "in", *"abcdefg"), 'trace_unique_id is one of "a", "b", "c", "d", "e" and 2 more'),
        (cond("name", "not", "a", "b"), 'name is none of "a", "b"'),
        (cond("environment", "is_null", False), "environment is present"),
        (cond("name", "equals", "x" * 100), 'name is "' + "x" * 79 + '…"'),
        (cond("scores__exact match", "gte", 0.5), "scores__exact match ≥ 0.5"),
        (cond("scores__exact", "is_null"), "scores__exact is missing"),
        (cond("error_count", "gt", 1e300), "error_count > 1e+300"),
        (
            TREE,
            'customer_identifier is "ada@example.com" and (total_cost ≥ 0.10 USD or metadata__plan is not "pro" or '
            "on a span stream is true) and start_time < 2026-01-01T00:00:00.500000Z and "
            'on a span (model is one of "m1", "m2" and latency > 2 s)',
        ),
    ],
)
def test_describe(expr: Expr | None, told: str) -> None:
    assert describe(expr) == told


@pytest.mark.parametrize(
    ("window", "told"),
    [
        (Window(), "any trace; started at any time"),
        (Window(0, 10**9), "any trace; started from 1970-01-01T00:00:00Z to before 1970-01-01T00:00:01Z"),
        (Window(None, 0), "any trace; started before 1970-01-01T00:00:00Z"),
        (Window(0), "any trace; started from 1970-01-01T00:00:00Z"),
        (Window(10**30), f"any trace; started from {10**30} ns"),
    ],
)
def test_describe_window(window: Window, told: str) -> None:
    assert describe(None, window) == told


def test_shape_holds_no_values_and_no_metadata_keys() -> None:
    assert describe_shape(TREE) == (
        "customer_identifier equals(1) AND (total_cost gte(1) OR metadata not(1) OR span stream equals(1)) AND "
        "start_time lt(1) AND span (model in(2) AND latency gt(1))"
    )
    assert describe_shape(cond("scores__a person's name", "not_in", 0, 1)) == "scores not_in(2)"
    assert describe_shape(None) == "any trace"


def test_a_tree_survives_both_ways_of_travelling() -> None:
    assert decode_expr(encode_expr(TREE)) == TREE
    scores = Group("AND", (cond("scores__exact", "in", 0.1, 1), cond("scores__a b", "is_null")))
    assert decode_expr(encode_expr(scores)) == scores


def test_a_tree_that_was_stored_before_scores_is_still_read() -> None:
    stored = {"AND": [["metadata", "equals", ["pro"], "plan"], ["total_cost", "gt", ["0.5"], None]]}
    assert decode_expr(stored) == Group("AND", (cond("metadata__plan", "equals", "pro"), cond("total_cost", "gt", 0.5)))
    again = pickle.loads(pickle.dumps(TREE))
    assert again == TREE
    (metadata,) = [c for c in conditions(again) if c.key]
    assert metadata.field is METADATA  # never a field made by the sender
    assert encode_expr(TREE.children[0]) == ["customer_identifier", "equals", ["ada@example.com"], None]


@pytest.mark.parametrize(
    "plain",
    [
        {"XOR": []},
        {"AND": [], "OR": []},
        ["bogus", "equals", ["x"], None],
        ["name", "bogus", ["x"], None],
        ["name", "equals", [1], None],
        ["error_count", "equals", ["x"], None],
        ["start_time", "gt", ["x"], None],
        ["name"],
        7,
    ],
)
def test_other_data_is_not_a_tree(plain: object) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, ArithmeticError)):
        decode_expr(plain)


def test_walks() -> None:
    assert [c.field.name for c in conditions(TREE)][:3] == ["customer_identifier", "model", "latency"]
    nested = Group("AND", (Group("AND", TREE.children[:2]), TREE.children[3]))
    assert list(conjuncts(nested)) == [*TREE.children[:2], TREE.children[3]]
    assert list(conjuncts(TREE.children[0])) == [TREE.children[0]]
