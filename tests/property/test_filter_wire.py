"""Any JSON as `filters` is a tree or a refusal that names a key; never another error."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.api.respan.filters import parse_filters
from clearspan.model.errors import InvalidFilter
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.compile_sql import compile_where

JOINS = st.sampled_from(["AND", "or"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), JOINS)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
)
WORDS = st.sampled_from(["regex", "", None, 7, "IS_NULL"])
ODD_CONDITIONS = st.fixed_dictionaries(
    {}, optional={"operator": WORDS, "value": ANYTHING, "connector": LEAVES, "extra": LEAVES}
)


def good_conditions(words: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"operator": st.sampled_from(words), "value": values})


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3)
GOOD = {
    "customer_identifier": good_conditions(["=", "not", "IN", "icontains", "empty"], st.sampled_from(["", ["a"], "b"])),
    "error_count": good_conditions(["", ">", "LTE", "!="], st.integers() | st.floats(-1e9, 1e9).map(lambda x: [x])),
    "metadata__k": good_conditions(["eq", "not_contains", "startswith"], TEXT | TEXT.map(lambda x: [x])),
    "model": good_conditions(["in", "not_in"], st.lists(TEXT, min_size=1, max_size=3)),
    "latency": good_conditions(["lt", "gte"], st.floats(0, 10)),
    "start_time": good_conditions([">=", "<"], st.datetimes().map(lambda at: at.isoformat())),
}


def levels(bundles: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A level of mostly good members; one now and then is odd."""
    good = {name: one | st.lists(one, min_size=1, max_size=2) for name, one in GOOD.items()}
    odd = {"model ": ODD_CONDITIONS, "\ud800": ODD_CONDITIONS, "trace_unique_id": ODD_CONDITIONS | ANYTHING}
    usual = st.fixed_dictionaries({}, optional=good | {"bundle": bundles})
    return usual | usual | usual | st.fixed_dictionaries({}, optional=good | odd | {"bundle": bundles})


def bundles_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"filter_params": levels(inner)}, optional={"connector": JOINS | JOINS | LEAVES})


LEVELS = levels(st.recursive(bundles_of(GOOD["model"]), bundles_of, max_leaves=4))
LISTED = LEVELS.map(
    lambda level: [{"field": name, **one} for name, one in level.items() if isinstance(one, dict) and name != "bundle"]
)
FILTERS = LEVELS | LISTED | ANYTHING


@settings(max_examples=200, derandomize=True, deadline=None)
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
