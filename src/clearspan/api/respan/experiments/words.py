"""What the filters and orders of this API may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from clearspan.api.respan.filters import Vocabulary
from clearspan.experiments.definitions import find_definition_field
from clearspan.experiments.results import ByName, ByScore, Order
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.errors import InvalidPage
from clearspan.query.ast import Condition, Expr, RootSpan
from clearspan.query.fields import METADATA, SCORES, SCORES_PREFIX, Field, field_named, find_field
from clearspan.query.operators import EQUALITY
from clearspan.query.page import SORTABLE, SortKey, parse_sort

DEFINITIONS: Final = Vocabulary(find_definition_field)
"""Of lists of experiments."""

ALIASES: Final = {"cost": "total_cost", "latency": "duration", "timestamp": "start_time"}
"""What documents call fields of a trace, here and in `sort_by`."""
_STATUS: Final = field_named("span_status")
_COMPARISON: Final = "comparison_key"
DEFAULT_SORT: Final = "-start_time"

ScoreName = Callable[[str], str]
"""How scores are called that a caller means by an evaluator."""


def result_words(score_name: ScoreName) -> Vocabulary:
    """Of lists of results: every field of traces, and what only results have."""

    def find(name: str) -> tuple[Field, str | None]:
        if name == "status":
            return _STATUS, None
        if name == _COMPARISON:
            return METADATA, REFERENCE_EXAMPLE_KEY
        field, key = find_field(ALIASES.get(name, name))
        return field, score_name(key) if field is SCORES and key is not None else key

    return Vocabulary(find, _finished)


def _finished(condition: Condition) -> Expr:
    if condition.field is _STATUS:  # a result's is its root's: a step that failed and was caught is no failure
        return RootSpan(condition)
    if condition.key == REFERENCE_EXAMPLE_KEY and condition.operator in EQUALITY:
        values = tuple([_dashed(str(value)) for value in condition.values])
        return Condition(condition.field, condition.operator, values, condition.key)
    return condition


def _dashed(text: str) -> str:
    """A UUID as the store keeps it; anything else as it is, which matches nothing."""
    try:
        return str(UUID(text))
    except ValueError:
        return text


def parse_result_order(sort_by: str | None, score_name: ScoreName) -> Order:
    """The `sort_by` of a list of results. Raises InvalidPage."""
    text = sort_by or DEFAULT_SORT
    descending, name = text.startswith("-"), text.removeprefix("-")
    name = ALIASES.get(name, name)
    if name == "name":
        return ByName(descending)
    if name.startswith(SCORES_PREFIX) and len(name) > len(SCORES_PREFIX):
        return ByScore(score_name(name.removeprefix(SCORES_PREFIX)), descending)
    try:
        return SortKey(parse_sort(name).field, descending)
    except InvalidPage:
        allowed = ", ".join((*SORTABLE, *ALIASES, "name", f"{SCORES_PREFIX}<evaluator>"))
        raise InvalidPage(
            f"cannot sort by `{text[:100]}`; allowed, each with an optional leading `-`: {allowed}",
            fields=("sort_by",),
        ) from None
