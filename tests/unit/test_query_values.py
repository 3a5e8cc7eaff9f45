"""What a caller may write as a value, and what becomes of it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from clearspan.model.errors import InvalidFilter
from clearspan.query.ast import Condition
from clearspan.query.compile_sql import compile_where
from clearspan.query.fields import find_field
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition, metadata_text, shown


def make(name: str, operator: str, *values: object) -> Condition:
    field, key = find_field(name)
    return make_condition(name, field, Operator(operator), values, key=key)


def column_values(name: str, operator: str, value: object) -> tuple[object, ...]:
    return compile_where(make(name, operator, value), project_ids=(1,)).params


@pytest.mark.parametrize(
    ("name", "given", "held"),
    [
        ("error_count", 7, Decimal(7)),
        ("error_count", "7", Decimal(7)),
        ("error_count", " 7".strip(), Decimal(7)),
        ("error_count", 7.0, Decimal("7.0")),
        ("error_count", "-1.5e1", Decimal(-15)),
        ("total_cost", 0.00015885, Decimal("0.00015885")),
        ("total_cost", Decimal("0.1"), Decimal("0.1")),
        ("customer_identifier", "", ""),
        ("customer_identifier", "a\0b", "a\0b"),
        ("trace_unique_id", "0AF76519-16CD-43DD-8448-EB211C80319C", "0af7651916cd43dd8448eb211c80319c"),
        ("trace_unique_id", "trace_ABC", "trace_ABC"),
        ("prompt_version_number", 3, "3"),
        ("prompt_version_number", "3", "3"),
        ("status", "error", "error"),
        ("stream", True, True),
        ("stream", "False", False),
        ("metadata__k", "x", "x"),
        ("metadata__k", 7, "7"),
        ("metadata__k", 7.0, "7.0"),
        ("metadata__k", True, "true"),
        ("start_time", "1970-01-01", 0),
        ("start_time", "1970-01-01 00:00:01", 1_000_000_000),
        ("start_time", "1970-01-01T00:00:00.000000001Z", 1),
        ("start_time", "1970-01-01T01:00+01:00", 0),
        ("start_time", "1969-12-31T23:30:00-0030", 0),
        ("end_time", "1969-12-31T23:59:59.9Z", -100_000_000),
    ],
)
def test_values_take_the_form_of_their_field(name: str, given: object, held: object) -> None:
    (value,) = make(name, "equals", given).values
    assert value == held
    assert type(value) is type(held)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *[
            ("error_count", bad)
            for bad in (True, None, "", " 7", "7 ", "0x7", "1_000", "٧", "seven", "1e", [7], {"a": 1})
        ],
        *[("error_count", bad) for bad in (float("nan"), float("inf"), "nan", "Infinity", 10**400, "1e301", "1e-900")],
        *[("error_count", bad) for bad in ("1" * 401, "1e99999", Decimal("sNaN"))],
        *[("customer_identifier", bad) for bad in (7, 1.5, True, None, ["a"], {"a": 1}, "\ud800")],
        *[("trace_unique_id", bad) for bad in ("", "a\0b", "x" * 257, 7)],
        *[("status", bad) for bad in ("ok", "ERROR", "")],
        *[("prompt_version_number", bad) for bad in (1.5, True, 10**400)],
        *[("stream", bad) for bad in (0, 1, "yes", None)],
        *[("metadata__k", bad) for bad in (None, ["a"], {"a": 1}, float("nan"), "\udfff", 10**400)],
        *[("metadata__\ud800", "x")],
        *[("start_time", bad) for bad in (0, 1.7e9, None, "", "now", "2026", "2026-13-01", "2026-01-01T25:00:00Z")],
        *[("start_time", bad) for bad in ("2026-01-01T00:00:00+99:00", "2026-01-01T00:00:00+00:60", "2026-01-01T")],
        *[("start_time", bad) for bad in ("2026-01-01T00:00:00.0000000001Z", "0000-01-01", True)],
    ],
)
def test_wrong_values_are_refused_by_name(name: str, given: object) -> None:
    with pytest.raises(InvalidFilter) as caught:
        make(name, "equals", given)
    assert caught.value.fields == (name,)
    assert caught.value.code == "invalid_filter"


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("customer_identifier", "gt"), ("error_count", "contains"), ("stream", "lt"), ("total_cost", "icontains"),
        ("text", "equals"), ("text", "is_null"), ("customer_identifier", "full_text_search"), ("status", "gte"),
    ],
)  # fmt: skip
def test_operators_that_do_not_fit_the_type_are_refused_by_name(name: str, operator: str) -> None:
    with pytest.raises(InvalidFilter, match=f"{operator} does not fit") as caught:
        make(name, operator, "1")
    assert caught.value.fields == (name,)


@pytest.mark.parametrize("operator", ["lt", "gte"])
def test_one_value_where_one_is_meant(operator: str) -> None:
    with pytest.raises(InvalidFilter, match="takes one value, 2 were given"):
        make("error_count", operator, 1, 2)
    with pytest.raises(InvalidFilter, match="takes one value"):
        make("name", "contains", "a", "b")


@pytest.mark.parametrize("operator", ["equals", "in", "not", "not_in", "gt"])
def test_no_value_is_refused(operator: str) -> None:
    with pytest.raises(InvalidFilter, match="list of values is empty"):
        make("error_count", operator)


@pytest.mark.parametrize("operator", ["contains", "not_contains", "icontains", "startswith", "not_endswith"])
def test_an_empty_text_to_look_for_is_refused(operator: str) -> None:
    with pytest.raises(InvalidFilter, match="would match everything"):
        make("name", operator, "")


def test_a_blank_search_is_refused() -> None:
    for operator in ("contains", "icontains", "full_text_search"):
        with pytest.raises(InvalidFilter):
            make("text", operator, " \n")


@pytest.mark.parametrize("given", [(), ("",), (None,), (True,)])
def test_presence_tests_carry_no_value(given: tuple[object, ...]) -> None:
    for operator in (Operator.EMPTY, Operator.NOT_EMPTY):
        assert make("name", operator, *given) == Condition(find_field("name")[0], operator)


@pytest.mark.parametrize("given", [(False,), ("x",), (0,), ("", "")])
def test_presence_tests_refuse_other_values(given: tuple[object, ...]) -> None:
    with pytest.raises(InvalidFilter):
        make("name", "empty", *given)


@pytest.mark.parametrize(
    ("given", "operator"),
    [
        ((), Operator.IS_NULL), ((True,), Operator.IS_NULL), (("true",), Operator.IS_NULL),
        ((False,), Operator.IS_NOT_NULL), (("False",), Operator.IS_NOT_NULL),
    ],
)  # fmt: skip
def test_isnull_is_turned_round_by_false(given: tuple[object, ...], operator: Operator) -> None:
    assert make("model", "is_null", *given).operator is operator


@pytest.mark.parametrize("given", [("",), (1,), (None,), (True, True)])
def test_isnull_takes_one_truth_value(given: tuple[object, ...]) -> None:
    with pytest.raises(InvalidFilter):
        make("model", "is_null", *given)


def test_metadata_is_ordered_as_text_and_never_as_numbers() -> None:
    assert column_values("metadata__day", "gte", "2026-01-01") == ("day", "2026-01-01")
    with pytest.raises(InvalidFilter, match="10 comes before 9"):
        make("metadata__n", "gt", 3)


@pytest.mark.parametrize(
    ("name", "operator", "given", "bound"),
    [
        ("total_cost", "equals", 0.1, 10**11),
        ("total_cost", "equals", "0.1000", 10**11),
        ("total_cost", "equals", 1e-13, 0.5),  # between two pico-dollars: equal to none
        ("total_cost", "gt", 1.5e-12, 1),
        ("total_cost", "gte", 1.5e-12, 2),
        ("total_cost", "lt", 1.5e-12, 2),
        ("total_cost", "lte", 1.5e-12, 1),
        ("total_cost", "gte", "9223372.0368547758", 9_223_372_036_854_775_800),
        ("total_cost", "gt", 1e10, 1e19),
        ("total_cost", "lt", -1e300, -1e19),
        ("error_count", "gt", 2.5, 2),
        ("error_count", "gt", -2.5, -3),
        ("error_count", "equals", 2**63, 0.5),
        ("error_count", "equals", -(2**63), -(2**63)),
        ("error_count", "equals", -0.0, 0),
        ("duration", "equals", 1.5, 1_500_000_000),
        ("duration", "equals", "0.123456789", 123_456_789),
        ("start_time", "lt", "9999-12-31T23:59:59Z", 1e19),
    ],
)
def test_numbers_are_brought_to_the_columns_unit_exactly(
    name: str, operator: str, given: object, bound: int | float
) -> None:
    (param,) = column_values(name, operator, given)
    assert param == bound
    assert type(param) is type(bound)


def test_metadata_text_is_json_for_what_is_not_text() -> None:
    assert [metadata_text(value) for value in ("x", "", 1, -1.5, True, False)] == [
        "x",
        "",
        "1",
        "-1.5",
        "true",
        "false",
    ]
    with pytest.raises(ValueError, match="is needed"):
        metadata_text(float("inf"))


def test_values_are_quoted_short_and_safe() -> None:
    assert shown("a" * 500).endswith("…")
    assert len(shown("a" * 500)) <= 80
    assert shown("\ud800").encode()
    assert shown(10**5000) == "a very large number"
    assert shown([[1] * 10**6]) == "a list"
