"""Operators: spellings, and the recorded answers of a published client's evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearspan.model.errors import InvalidFilter
from clearspan.model.trace import TraceSummary
from clearspan.query.evaluate import TraceFacts, matches
from clearspan.query.fields import FieldType, find_field
from clearspan.query.operators import ALLOWED, NEGATIONS, Operator, casefold, parse_operator, text_matches
from clearspan.query.values import make_condition

RECORDED = json.loads(
    (Path(__file__).parent.parent / "fixtures/filters/filter_semantics_respan_tracing_2.24.0.json").read_text()
)

# Our canonical names where they differ from the recorded ones; None: a word that we refuse.
OURS: dict[str, str | None] = {
    "": "equals", "ilike": "icontains", "isnull": "is_null", "NOT_IN": "not_in",
    ">": "gt", ">=": "gte", "<": "lt", "<=": "lte",
    "regex": None, "has_key": None, "overlap": None, "not_overlap": None, "trigram_word_similar": None, "bogus": None,
}  # fmt: skip


@pytest.mark.parametrize("case", RECORDED["operator_normalisation"], ids=lambda case: repr(case["operator"]))
def test_operators_are_read_as_the_client_reads_them(case: dict[str, Any]) -> None:
    found = parse_operator(case["operator"])
    assert (found and found.value) == OURS.get(case["canonical"], case["canonical"])


def test_like_has_no_spelling_in_filters_of_traces() -> None:
    assert parse_operator("like") is None


@pytest.mark.parametrize("operator", [operator for operator in Operator if operator is not Operator.LIKE])
def test_operators_are_known_in_any_case(operator: Operator) -> None:
    assert parse_operator(operator.value.upper()) is operator
    assert parse_operator(f" {operator.value}") is None


# The recorded record {"s": "Hello World", "n": 3.5, "i": 0, "e": "", "z": null}, held by fields of those types.
FIELD_OF = {
    "s": "customer_identifier",
    "n": "total_cost",
    "i": "error_count",
    "e": "environment",
    "z": "session_identifier",
    "missing": "metadata__missing",
}
RECORD = TraceSummary(
    trace_id="t", root_span_id=None, name="n", kind=None, start_ns=0, end_ns=0, span_count=1, llm_call_count=0,
    error_count=0, unpriced_count=0, prompt_tokens=None, completion_tokens=None, total_tokens=None,
    cached_tokens=None, reasoning_tokens=None, cost_pico=3_500_000_000_000, model=None,
    customer_identifier="Hello World", session_id=None, thread_id=None, group_id=None, environment="", key_id=None,
    metadata=(), tags=(), metadata_all=(("there", "x"),),
)  # fmt: skip

# Where the published documentation says otherwise, we follow it. These two are differences in meaning:
DELIBERATE = {
    ("s", "not", ("x", "Hello World")): False,  # none of the values; the evaluator compares with the list as a whole
    ("missing", "not", ("x",)): False,  # no negation holds without a value; the evaluator says true
}
# Words that the evaluator does not know, and therefore answers "no match"; the documentation has them.
NOT_KNOWN_THERE = {("s", "not_contains", ("zzz",)): True, ("s", "iexact", ("hello world",)): True}
# A number's text is that number everywhere, as the evaluator itself has it for gt and lt.
NUMERIC_TEXT = {("i", "", ("0",)): True}
# "No match" would hide the mistake, and a deletion rests on it: refused.
REFUSED = {
    ("s", "gt", (1,)), ("s", "bogus", ("x",)), ("n", "gt", (1, 2)), ("s", "regex", ("^H.*d$",)),
    ("missing", "gt", (0,)),  # metadata is text
}  # fmt: skip


def answer(field_name: str, operator_word: str, values: list[object]) -> bool:
    field, key = find_field(FIELD_OF[field_name])
    operator = parse_operator(operator_word)
    if operator is None:
        raise InvalidFilter
    return matches(make_condition(field_name, field, operator, values, key=key), TraceFacts(RECORD))


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda c: f"{c['field']} {c['operator']} {c['value']}")
def test_recorded_evaluator_cases(case: dict[str, Any]) -> None:
    values = case["value"] if isinstance(case["value"], list) else [case["value"]]
    name = (case["field"], case["operator"], tuple(values))
    if name in REFUSED:
        with pytest.raises(InvalidFilter):
            answer(case["field"], case["operator"], values)
        return
    expected = (DELIBERATE | NOT_KNOWN_THERE | NUMERIC_TEXT).get(name, case["matches"])
    assert answer(case["field"], case["operator"], values) is expected


def test_every_named_difference_is_one() -> None:
    recorded = {
        (c["field"], c["operator"], tuple(c["value"]) if isinstance(c["value"], list) else (c["value"],)): c["matches"]
        for c in RECORDED["cases"]
    }
    ours = DELIBERATE | NOT_KNOWN_THERE | NUMERIC_TEXT
    assert all(recorded[name] is not answer for name, answer in ours.items())
    assert set(recorded) >= REFUSED


def test_a_missing_number_matches_no_comparison() -> None:
    field, _ = find_field("total_tokens")
    for operator in (Operator.GT, Operator.LT, Operator.EQUALS, Operator.NOT, Operator.NOT_IN):
        assert not matches(make_condition("f", field, operator, [0]), TraceFacts(RECORD))


def test_every_type_has_operators_and_negations_come_with_their_positive_form() -> None:
    assert set(ALLOWED) == set(FieldType)
    for allowed in ALLOWED.values():
        assert {NEGATIONS[operator] for operator in allowed if operator in NEGATIONS} <= allowed


def test_casefold_keeps_null_and_folds_beyond_ascii() -> None:
    assert casefold(None) is None
    assert casefold("STRASSE") == casefold("straße")
    assert casefold("É") != casefold("E\u0301")  # not normalised


@pytest.mark.parametrize(
    ("operator", "needle", "found"),
    [
        ("contains", "lo W", True),
        ("contains", "lo w", False),
        ("contains", "World本", False),  # never across two texts
        ("icontains", "LO w", True),
        ("full_text_search", "日本  hello", True),
        ("full_text_search", "hello nobody", False),
    ],
)
def test_text_search(operator: str, needle: str, found: bool) -> None:
    assert text_matches(operator, needle, ["Hello World", "本 日本語"]) is found
