"""Respan's filter JSON → the filter tree.

Accepted forms (contract: filters by field, list form, bundles):

    {"customer_identifier": {"operator": "=", "value": ["a"]}}     one condition
    {"latency": [{"operator": "gt", "value": [1]}, {…}]}            several on one field: all must hold
    [{"field": "latency", "operator": "gt", "value": [1]}]          list form
    {"any label": {"connector": "OR", "filter_params": {…}}}        bundle: its members joined by its connector

Joining. Members of one level (the request, a bundle, the list of one field) are joined by one connector: the
request's `operator`, the bundle's `connector`, AND within a field's list. A condition may carry a `connector` of
its own, which joins it to the next one; where those of one level disagree, with each other or with what the level
itself says, the filter is refused: the order in which AND and OR would be applied is nowhere written down, and a
wrong guess would delete the wrong traces. A bundle says such things without doubt.
The last member's connector joins nothing and means nothing; the list of one field is a level of its own.

The list of one field stands directly in its level where both are joined by AND, so that a range on a span-level field
and its neighbours hold on the same span. A bundle is always a group of its own.

Everything is checked before anything is done: an unknown field, operator or key, a value of the wrong type, an
empty list of values. Errors name the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeGuard

from clearspan.model.errors import InvalidFilter
from clearspan.query.ast import Condition, Connector, Expr, Group
from clearspan.query.fields import Field, FieldType, find_field
from clearspan.query.operators import SPELLINGS_TOLD, Operator, parse_operator
from clearspan.query.values import is_unicode, make_condition, shown

DEPTH_MAX = 20
CONDITIONS_MAX = 500
VALUES_MAX = 10_000

_CONDITION_KEYS = frozenset({"operator", "value", "connector"})
_BUNDLE_KEYS = frozenset({"connector", "filter_params"})
_FUNCTION_KEYS = ("operator_function", "operator_args")
_NOT_OFFERED = frozenset({"regex", "overlap", "not_overlap", "has_key", "trigram_word_similar"})


def _as_it_is(condition: Condition) -> Expr:
    return condition


class Vocabulary(NamedTuple):
    """What the keys of one endpoint's filters mean."""

    find: Callable[[str], tuple[Field, str | None]]  # as fields.find_field
    finish: Callable[[Condition], Expr] = _as_it_is  # what a checked condition becomes


_OF_TRACES: Mapping[str, Vocabulary] = {
    "list": Vocabulary(find_field),
    "bulk_delete": Vocabulary(partial(find_field, bulk_delete=True)),
}


def parse_filters(
    body_filters: object, operator: object = None, *, fields: Literal["list", "bulk_delete"] | Vocabulary
) -> Expr | None:
    """Read `filters` and the top-level `operator` of a request body.

    Args:
        body_filters: decoded JSON; None, `{}` and `[]` mean no filter.
        operator: "AND" (also when None) or "OR", in any case: joins the members of the top level.
        fields: which endpoint asks; a bulk deletion may name fewer fields, and what is not traces has its own.
    Returns:
        The tree, or None for no filter. It never says anything about tenant, window or the `environment` parameter.
    Raises:
        InvalidFilter: `.fields` holds the offending key.
    Cost: O(size of the JSON); nesting, conditions and values are limited by DEPTH_MAX, CONDITIONS_MAX, VALUES_MAX.
    """
    said = _connector(operator, "operator")
    if body_filters is None:
        return None
    return _Reader(fields if isinstance(fields, Vocabulary) else _OF_TRACES[fields]).top(body_filters, said)


def current_filters(body_filters: object) -> dict[str, Any]:
    """Filters that `parse_filters` took, as answers repeat them: by key, canonical operators, values in a list."""
    if isinstance(body_filters, Mapping):
        return {str(key): _told(value) for key, value in body_filters.items()}
    out: dict[str, Any] = {}
    for item in body_filters if _is_list(body_filters) else ():
        assert isinstance(item, Mapping), "parse_filters took it"
        key = str(item.get("field", "filters"))
        told = _told({name: value for name, value in item.items() if name != "field"})
        out[key] = told if key not in out else [*(out[key] if isinstance(out[key], list) else [out[key]]), told]
    return out


def _told(value: object) -> Any:
    if _is_list(value):
        return [_told(each) for each in value]
    assert isinstance(value, Mapping), "parse_filters took it"
    connector = {} if value.get("connector") is None else {"connector": str(value["connector"]).upper()}
    if "filter_params" in value:
        return connector | {"filter_params": current_filters(value["filter_params"])}
    word, given = value.get("operator"), value.get("value", [])
    operator = parse_operator(word if isinstance(word, str) else None)
    assert operator is not None, "parse_filters took it"
    shown_as = "" if operator is Operator.EQUALS else operator.value  # the dialect's own word for equality
    return {"operator": shown_as, "value": list(given) if _is_list(given) else [given]} | connector


class _Member(NamedTuple):
    """One member of a level."""

    key: str
    expr: Expr
    connector: Connector | None = None  # the one that it carries itself
    spreads: bool = False  # an AND group whose children stand directly in an AND level


class _Reader:
    """Reads one filter; holds what is counted over the whole of it."""

    def __init__(self, words: Vocabulary) -> None:
        self._words = words
        self._conditions = 0
        self._values = 0

    def top(self, filters: object, said: Connector | None) -> Expr | None:
        if isinstance(filters, Mapping):
            return _joined(list(self._members(filters, depth=1)), said, "filters")
        if _is_list(filters):
            return _joined(list(self._listed(filters)), said, "filters")
        raise _refused("filters", f"an object or a list of conditions is needed, not {shown(filters)}")

    def _members(self, filters: Mapping[object, object], depth: int) -> Iterator[_Member]:
        for key, value in filters.items():
            assert isinstance(key, str), "JSON keys are text"
            if not is_unicode(key):
                raise _refused("filters", "a key is not valid Unicode")
            if isinstance(value, Mapping):
                yield self._member(key, value, depth)
            elif _is_list(value):
                yield self._range(key, value, depth)
            else:
                raise _refused(key, f'{{"operator": …, "value": …}} is needed, not {shown(value)}')

    def _listed(self, filters: Sequence[object]) -> Iterator[_Member]:
        for item in filters:
            if not isinstance(item, Mapping):
                raise _refused("filters", f"each item of the list must be an object, not {shown(item)}")
            if "filter_params" in item:
                yield self._member("filters", item, depth=1)
                continue
            name = item.get("field")
            if not isinstance(name, str) or not is_unicode(name):
                raise _refused("field", f"each condition of the list needs a `field`, not {shown(name)}")
            yield self._member(name, {key: value for key, value in item.items() if key != "field"}, depth=1)

    def _member(self, key: str, value: Mapping[object, object], depth: int) -> _Member:
        if "filter_params" in value:
            return _Member(key, self._bundle(key, value, depth + 1), None)
        expr = self._words.finish(self._condition(key, value))
        return _Member(key, expr, _connector(value.get("connector"), key))

    def _range(self, key: str, values: Sequence[object], depth: int) -> _Member:
        """The list of one field: AND, or OR when every connector in it says so."""
        members: list[_Member] = []
        for value in values:
            if not isinstance(value, Mapping):
                raise _refused(key, f'each item must be {{"operator": …, "value": …}}, not {shown(value)}')
            members.append(self._member(key, value, depth + 1))
        expr = _joined(members, None, key)
        if expr is None:
            raise _refused(key, "the list of conditions is empty")
        return _Member(key, expr, spreads=isinstance(expr, Group) and expr.connector == "AND")

    def _bundle(self, key: str, value: Mapping[object, object], depth: int) -> Expr:
        if depth > DEPTH_MAX:
            raise _refused(key, f"bundles are nested deeper than {DEPTH_MAX}")
        _only(key, value, _BUNDLE_KEYS)
        said, params = _connector(value.get("connector"), key), value["filter_params"]
        if not isinstance(params, Mapping):
            raise _refused(key, f"`filter_params` must be an object, not {shown(params)}")
        members = list(self._members(params, depth))
        expr = _joined(members, said, key)
        if expr is None:
            raise _refused(key, "`filter_params` is empty")
        return expr if isinstance(expr, Group) else Group("AND", (expr,))

    def _condition(self, key: str, value: Mapping[object, object]) -> Condition:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            raise _refused(key, f"more than {CONDITIONS_MAX} conditions")
        field, metadata_key = self._words.find(key)
        for word in _FUNCTION_KEYS:
            if value.get(word) is not None:
                raise _refused(key, f"`{word}` is not supported")
        _only(key, value, _CONDITION_KEYS | set(_FUNCTION_KEYS))
        operator = _operator(key, value.get("operator"), is_search=field.type is FieldType.SEARCH)
        given = value.get("value", [])
        values = given if _is_list(given) else [given]
        self._values += len(values)
        if self._values > VALUES_MAX:
            raise _refused(key, f"more than {VALUES_MAX} values")
        return make_condition(key, field, operator, values, key=metadata_key)


def _joined(members: list[_Member], said: Connector | None, key: str) -> Expr | None:
    """One expression of the members of a level; None when there are none.

    Raises:
        InvalidFilter: their connectors disagree.
    """
    if not members:
        return None
    asked = [(member.key, member.connector or said or "AND") for member in members[:-1]]
    for member_key, connector in asked:
        if connector != (said or asked[0][1]):
            raise _refused(
                member_key,
                f"its connector {connector} disagrees with {said or asked[0][1]} beside it; "
                "put what belongs together into a bundle",
            )
    connector = said or (asked[0][1] if asked else "AND")
    children: list[Expr] = []
    for member in members:
        if member.spreads and connector == "AND" and isinstance(member.expr, Group):
            children.extend(member.expr.children)
        else:
            children.append(member.expr)
    return children[0] if len(children) == 1 else Group(connector, tuple(children))


def _operator(key: str, word: object, *, is_search: bool) -> Operator:
    if word is not None and not isinstance(word, str):
        raise _refused(key, f"the operator must be text, not {shown(word)}")
    operator = parse_operator(word)
    if operator is None:
        assert word is not None
        known = "is not supported" if word.lower() in _NOT_OFFERED else "is unknown"
        raise _refused(key, f"the operator {shown(word)} {known}; allowed: {SPELLINGS_TOLD}")
    if operator is Operator.FULL_TEXT_SEARCH and not is_search:
        raise _refused(key, "full_text_search works only on the field `text`; use contains or icontains")
    return operator


def _connector(word: object, key: str) -> Connector | None:
    if word is None:
        return None
    match word.upper() if isinstance(word, str) else "":
        case "AND":
            return "AND"
        case "OR":
            return "OR"
        case _:
            raise _refused(key, f"AND or OR is needed to join conditions, not {shown(word)}")


def _only(key: str, value: Mapping[object, object], allowed: frozenset[str]) -> None:
    extra = sorted(str(name) for name in value if name not in allowed)
    if extra:
        raise _refused(key, f"unknown key {shown(extra[0])}; allowed: {', '.join(sorted(allowed))}")


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _refused(key: str, message: str) -> InvalidFilter:
    return InvalidFilter(f"filter `{key[:200]}`: {message}", fields=(key,))
