"""Conditions of Phoenix's query language: whatever is written, it becomes a tree of a few nodes or is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearspan.api.phoenix import expressions
from clearspan.api.phoenix.expressions import BadExpression, parse_condition, parse_projection

NODES = (
    expressions.Comparison, expressions.IsMissing, expressions.IsOrphan, expressions.Every, expressions.Some,
    expressions.Negation, expressions.Const, expressions.Named, expressions.Attribute, expressions.Cast,
    expressions.Said,
)  # fmt: skip
PLAIN = (str, int, float, bool, type(None))

HOSTILE = (
    "name ==", "import os", "name = 'x'", "__import__('os').system('x')", "foo == 1", "lambda: 1",
    "name.upper() == 'X'", "[x for x in name]", "name == f'{name}'", "name if name else name", "eval('1')", "name",
    "1 + 1 == 2", "annotations['x'].explanation == 'y'", "evals['x'] > 1", "annotations == 1",
    "latency_ms > 'x' > None", "trace_annotations['x'].score > 1", "annotations['x']['y'] == 1", "annotations['']",
    "start_time > 5", "start_time > 'soon'", "name == ['a']", "attributes[name] == 1", "attributes[0:1] == 1",
    "attributes == 1", "name is 1", "print(name) == 1", "ｎame == 'x'", "parent_span == 1", "'a' 'b'",
    "name := 'x'", "(name := 'x') == 'x'", "name == " + "9" * 30, "(" * 100 + "name" + ")" * 100,
    "not " * 60 + "name == 'x'", "name == 'x' and " * 400, "name == 'x'" + " and name == 'x'" * 400, "name == b'x'",
    "name == 1j", "name == ...", "int(name, 2) == 1", "int(x=name) == 1", "open(name) == 1", "str == 1", "int('1')",
    "name == {'a': 1}", "name in {'a'}", "name == (yield)", "await name == 1", "*name == 1", "name[...] == 1",
    "().__class__ == 1", "''.__class__.__mro__ == 1", "(1).real == 1", "cumulative_token_count.total > 1",
    "name is not 'x'", "name == -'x'", "name == ~1", "name == +1", "name @ name == 1", "x" * 9_000, "\x00", "",
    "name == 'x'\nimport os", "name == 'x'; name", "attributes[['a', name]] == 1", "attributes[[]] == 1",
)  # fmt: skip


def parts(node: Any) -> Iterator[Any]:
    """A tree's nodes and values."""
    yield node
    if dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            value = getattr(node, field.name)
            for each in value if isinstance(value, tuple) else (value,):
                yield from parts(each)


def assert_closed(text: str) -> None:
    """The text is refused, or its tree holds our nodes and plain values only."""
    for parse in (parse_condition, parse_projection):
        try:
            found = parse(text)
        except BadExpression:
            continue
        assert all(isinstance(each, (*NODES, *PLAIN)) for each in parts(found)), text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadExpression):
        parse_condition(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert_closed(text)


_ATOMS = st.sampled_from((
    "name", "span_kind", "attributes", "'x'", "1", "None", "True", "__import__", "os", "parent_span", "[1, 'a']",
    "input.value", "metadata['a']", "lambda: 0", "f'{name}'", "b'x'", "{}", "...", "latency_ms", "start_time",
))  # fmt: skip


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    words = ("==", "!=", "<", "in", "not in", "is", "is not", "and", "or", "+", "%", "**", "if 1 else", ":=", ",", ";")
    return st.one_of(
        st.tuples(inner, st.sampled_from(words), inner).map(lambda each: f"({each[0]} {each[1]} {each[2]})"),
        st.tuples(inner, inner).map(lambda each: f"{each[0]}({each[1]})"),
        st.tuples(inner, inner).map(lambda each: f"{each[0]}[{each[1]}]"),
        inner.map(lambda each: f"not {each}"),
        inner.map(lambda each: f"{each}.__class__"),
        inner.map(lambda each: f"[x for x in {each}]"),
        inner.map(lambda each: f"-{each}"),
    )


@given(st.recursive(_ATOMS, _larger, max_leaves=12))
def test_any_expression_of_python_is_read_or_refused(text: str) -> None:
    assert_closed(text)
