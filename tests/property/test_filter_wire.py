"""Any JSON as `filters` is a tree or a refusal that names a key; never another error."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.api.respan.filters import parse_filters
from clearspan.model.errors import InvalidFilter
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.compile_sql import compile_where

NAMES = st.sampled_from(
    ["customer_identifier", "error_count", "model", "latency", "metadata__k", "text", "g", "\ud800", ""]
)
WORDS = st.sampled_from(["=", "not", "IN", "gt", "contains", "isnull", "empty", "regex", "", None, 7])
JOINS = st.sampled_from(["AND", "or"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), JOINS)
VALUES = st.one_of(LEAVES, st.lists(LEAVES, max_size=3))


def conditions(**more: Any) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"operator": WORDS, "value": VALUES, "connector": LEAVES, "extra": LEAVES}
    return st.fixed_dictionaries(more, optional=optional)


def bundles(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    params = st.dictionaries(NAMES, inner, max_size=3)
    bundle = st.fixed_dictionaries({"filter_params": params}, optional={"connector": LEAVES})
    return st.one_of(bundle, st.lists(inner, max_size=3), LEAVES)


MEMBERS = st.recursive(conditions(), bundles, max_leaves=8)
FILTERS = st.one_of(
    st.dictionaries(NAMES, MEMBERS, max_size=4), st.lists(conditions(field=NAMES), max_size=3), MEMBERS, VALUES
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(FILTERS, st.sampled_from([None, "AND", "or", "xor"]), st.sampled_from(["list", "bulk_delete"]))
def test_any_json_is_a_tree_or_a_refusal(filters: Any, operator: Any, fields: Any) -> None:
    try:
        expr = parse_filters(filters, operator, fields=fields)
    except InvalidFilter as error:
        refused = error
    else:
        sql, params = compile_where(expr, project_ids=(1,))
        assert sql.count("?") == len(params)
        assert expr is None or decode_expr(encode_expr(expr)) == expr
        return
    assert len(refused.fields) == 1
    (refused.message + refused.fields[0]).encode()  # an answer can quote both
