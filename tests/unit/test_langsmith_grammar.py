"""LangSmith's filter language: what each text means, and what is refused with which words."""

from __future__ import annotations

import json

import pytest

from clearspan.api.langsmith.filter_text import CALLS_MAX, DEPTH_MAX, LENGTH_MAX, VALUES_MAX
from clearspan.api.langsmith.grammar import FIELDS, OPERATORS, parse_filter, parse_filters
from clearspan.ingest.run_promotion import KIND_OF_RUN_TYPE, RUN_TYPE_OF_KIND
from clearspan.model.errors import InvalidFilter
from clearspan.model.span import KINDS
from clearspan.query.ast import Condition, Group, Not, RootSpan, SomeEntry, SomeSpan
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.describe import describe
from clearspan.query.fields import Collection
from clearspan.query.operators import Operator

UUID = "0af76519-16cd-43dd-8448-eb211c80319c"

MEANINGS = {
    'eq(run_type, "tool")': 'log_type is one of "function", "tool"',
    'neq(run_type, "tool")': 'not (log_type is one of "function", "tool")',
    'eq(run_type, "parser")': 'log_type is "parser"',
    "eq(name, 'it\\'s')": 'span_name is "it\'s"',
    'eq(name, "\\u00fc\\n\\ud83d\\ude00")': 'span_name is "ü\\n😀"',
    "gt(latency, 10)": "span_latency > 10 s",
    'gt(latency, "5s")': "span_latency > 5 s",
    'lte(latency, "250ms")': "span_latency ≤ 0.250 s",
    'lt(latency, "1.5m")': "span_latency < 90.0 s",
    'gt(start_time, "2023-07-15T12:34:56Z")': "span_start_time > 2023-07-15T12:34:56Z",
    "neq(error, null)": 'span_status is "error"',
    "eq(error, null)": 'span_status is not "error"',
    'eq(error, "x")': 'span_error is "x"',
    'search("refund")': 'span_text contains, in any case, "refund"',
    'search(name, "refund")': 'span_name contains, in any case, "refund"',
    'has(tags, "beta")': 'a tag with (tag is "beta")',
    'in(tags, ["a", "b"])': 'a tag with (tag is one of "a", "b")',
    'exists(metadata, "k")': 'metadata with (metadata_key is "k")',
    'has(metadata, \'{"k": 7, "l": "v"}\')': (
        'metadata with (metadata_key is "k" and metadata_value is "7") and '
        'metadata with (metadata_key is "l" and metadata_value is "v")'
    ),
    'like(input_value, "%text%")': 'an input value with (input_value contains "text")',
    'like(name, "a%")': 'span_name starts with "a"',
    'like(name, "%a")': 'span_name ends with "a"',
    'like(name, "a")': 'span_name is "a"',
    'like(name, "a%b")': 'span_name is like "a%b"',
    "eq(is_root, true)": "is_root is true",
    "eq(is_root, false)": "not (is_root is true)",
    "eq(execution_order, 1)": "is_root is true",
    "eq(thread_id, 'th-1')": 'span_thread_id is "th-1"',
    "neq(thread_id, null)": "span_thread_id is present",
    "eq(total_cost, 0.5)": "cost is 0.5 USD",
    "gte(total_tokens, 1e3)": "span_total_tokens ≥ 1000",
    f'eq(id, "{UUID}")': 'run_id is "0af7651916cd43dd8448eb211c80319c"',
    f'in(trace_id, ["{UUID.upper()}"])': 'trace_unique_id is "0af7651916cd43dd8448eb211c80319c"',
    "eq(feedback_score, true)": "an annotation with (annotation_score is 1)",
    'not(or(eq(name, "a"), eq(name, "b")))': 'not (span_name is "a" or span_name is "b")',
    'and(eq(name, "a"))': 'span_name is "a"',
    'AND(eq(name,"a"),OR(eq(name,"b"),eq(name,"c")))': 'span_name is "a" and (span_name is "b" or span_name is "c")',
}


@pytest.mark.parametrize("text", MEANINGS)
def test_a_text_means(text: str) -> None:
    assert describe(parse_filter(text), of_span=True) == MEANINGS[text]


PAIRS = {
    'and(eq(metadata_key, "k"), eq(metadata_value, "v"))': (
        'metadata with (metadata_key is "k" and metadata_value is "v")'
    ),
    'and(eq(metadata_value, "v"), eq(metadata_key, "k"))': (
        'metadata with (metadata_value is "v" and metadata_key is "k")'
    ),
    'and(eq(metadata_key, "k"), neq(metadata_value, "v"))': (
        'metadata with (metadata_key is "k" and metadata_value is not "v")'
    ),
    'neq(metadata_key, "k")': 'not (metadata with (metadata_key is "k"))',
    'neq(metadata_value, "v")': 'not (metadata with (metadata_value is "v"))',
    'and(neq(metadata_key, "k"), eq(metadata_value, "v"))': (
        'not (metadata with (metadata_key is "k")) and metadata with (metadata_value is "v")'
    ),
    'and(eq(metadata_key,"a"),eq(metadata_value,"1"),eq(metadata_key,"b"),eq(metadata_value,"2"))': (
        'metadata with (metadata_key is "a" and metadata_value is "1") and '
        'metadata with (metadata_key is "b" and metadata_value is "2")'
    ),
    'and(in(metadata_key, ["session_id","thread_id"]), eq(metadata_value, "t"))': (
        'metadata with (metadata_key is one of "session_id", "thread_id" and metadata_value is "t")'
    ),
    'and(eq(feedback_key,"q"), gt(feedback_score,0.2), lt(feedback_score,1), eq(feedback_source,"api"))': (
        'an annotation with (annotation_name is "q" and annotation_score > 0.2 and annotation_score < 1 '
        'and annotation_source is "api")'
    ),
    'or(eq(metadata_key, "k"), eq(metadata_value, "v"))': (
        'metadata with (metadata_key is "k") or metadata with (metadata_value is "v")'
    ),
    'and(eq(input_key, "q.a"), like(input_value, "%x%"))': (
        'an input value with (input_key is "q.a" and input_value contains "x")'
    ),
}


@pytest.mark.parametrize("text", PAIRS)
def test_conditions_pair(text: str) -> None:
    assert describe(parse_filter(text), of_span=True) == PAIRS[text]


def test_the_three_filters_turn_to_the_run_its_root_and_its_tree() -> None:
    own, root, tree = (Condition(parse_filter(f'eq(name, "{name}")').field, Operator.EQUALS, (name,)) for name in "abc")  # type: ignore[union-attr]
    found = parse_filters('eq(name, "a")', 'eq(name, "b")', 'eq(name, "c")')
    assert found == Group("AND", (own, RootSpan(root), SomeSpan(tree)))
    assert parse_filters(None, None, 'eq(name, "c")') == SomeSpan(tree)
    assert parse_filters() is None


def test_a_run_type_finds_what_is_shown_as_it_and_nothing_else() -> None:
    asked: dict[str, set[object]] = {}
    for run_type, kind in KIND_OF_RUN_TYPE.items():
        found = parse_filter(f'eq(run_type, "{run_type}")')
        assert isinstance(found, Condition)
        asked[run_type] = set(found.values)
        assert RUN_TYPE_OF_KIND.get(kind, "chain") == run_type, "a run is shown as what it says"
    for kind in KINDS:
        shown_as = RUN_TYPE_OF_KIND.get(kind, "chain")
        assert [run_type for run_type, kinds in asked.items() if kind in kinds] == [shown_as]


def test_not_of_a_pair_is_about_every_entry() -> None:
    found = parse_filter('not(and(eq(metadata_key, "k"), eq(metadata_value, "v")))')
    assert isinstance(found, Not)
    assert isinstance(found.child, SomeEntry)
    assert found.child.collection is Collection.METADATA


def test_an_examples_id_is_found_in_either_spelling() -> None:
    found = parse_filter(f'eq(reference_example, "{UUID}")')
    assert f'"{UUID}"' in describe(found, of_span=True)
    assert f'"{UUID.replace("-", "")}"' in describe(found, of_span=True)


REFUSED = {
    "": "`op(arg, …)` is needed",
    "name": "`op(arg, …)` is needed",
    "bogus(((": 'not "("',
    "error_count > 0": "is not understood",
    'eq(name, "a") eq(name, "b")': "follows the end",
    'eq(name, "a"': "`,` or `)` is needed, not the end",
    'eq(name, "a)': "without its closing quote",
    'eq(name, "\\x")': "escape",
    'eq(name, "\\ud800")': "not valid Unicode",
    "eq(name, a)": "texts stand in quotes",
    'eq("name", "a")': "takes a field and a value",
    'eq(nam, "a")': "unknown field `nam`; fields: ",
    'equals(name, "a")': f"unknown operator `equals`; allowed: {', '.join(OPERATORS)}",
    'gt(name, "a")': "gt does not fit the field `name`; allowed: eq, neq, in, like, search",
    'like(latency, "5%")': "like does not fit the field `latency`",
    'eq(latency, "5 parsecs")': "not a duration",
    'eq(start_time, "yesterday")': "a time like",
    'eq(total_tokens, "many")': "a number is needed",
    'eq(run_type, "agent")': "allowed: llm, chain, tool",
    'eq(status, "done")': "allowed: success, error, pending",
    "eq(metadata_value, null)": "never null",
    "gt(latency, null)": "takes no null",
    "gt(metadata_value, 7)": "compared as text",
    'eq(metadata, "x")': "has(metadata",
    "has(metadata, 'k')": "an object as JSON text",
    "has(metadata, '{\"k\": [1]}')": "text, a number",
    'has(name, "x")': "has takes tags and metadata",
    "exists(tags, 'x')": "exists takes metadata",
    "in(name, 'x')": "in takes a list",
    "in(name, [])": "list of values is empty",
    "in(name, [null])": "takes no null",
    "and()": "and() is empty",
    "not()": "not takes one operator",
    "and(name)": "an operator is needed, not the field `name`",
    "eq(execution_order, 2)": "eq(execution_order, 1)",
    "eq(prompt_cost, 1)": "not kept apart from `total_cost`",
    'search("")': "takes a text",
    "eq(name, [1])": "a single value",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter) as refused:
        parse_filters(None, text)
    assert REFUSED[text] in str(refused.value)
    assert refused.value.fields == ("trace_filter",)


def test_every_unknown_field_is_told_all_fields() -> None:
    with pytest.raises(InvalidFilter) as refused:
        parse_filter("eq(colour, 1)")
    assert all(name in str(refused.value) for name in FIELDS)


def nested(depth: int) -> str:
    return "not(" * depth + 'eq(name, "a")' + ")" * depth


def test_size_is_bounded() -> None:
    parse_filter(nested(DEPTH_MAX - 2))
    for text in (
        nested(DEPTH_MAX - 1),
        nested(100_000),
        "[" * 100_000,
        f'eq(name, "{"x" * LENGTH_MAX}")',
        f"or({', '.join(['eq(name, null)'] * CALLS_MAX)})",
        f"in(name, [{', '.join(['1'] * VALUES_MAX)}])",
        f"eq(total_tokens, {'9' * 1000})",
    ):
        with pytest.raises(InvalidFilter):
            parse_filter(text)


CONTRACT = """
eq(run_type, "llm")
and(eq(run_type,"chain"),gt(latency,0))
has(tags,"t1")
eq(error,"x")
eq(thread_id, "th-1")
gt(latency, 10)
gt(latency, "5s")
neq(error, null)
gt(start_time, "2023-07-15T12:34:56Z")
search("text")
in(metadata_key, ["session_id","thread_id"])
eq(metadata_key,'x')
like(input_value, "%text%")
exists(metadata, "k")
and(eq(feedback_key, "user_score"), gt(feedback_score, 0.5))
"""


@pytest.mark.parametrize("text", CONTRACT.strip().splitlines())
def test_examples_survive_the_way_to_storage_and_back(text: str) -> None:
    expr = parse_filter(text)
    assert decode_expr(json.loads(json.dumps(encode_expr(expr)))) == expr
