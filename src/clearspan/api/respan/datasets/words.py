"""What the filters and orders of this API may name."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from clearspan.api.respan.filters import Vocabulary
from clearspan.experiments.item_documents import ITEM_ID_KEY
from clearspan.model.errors import InvalidPage
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import METADATA, START_TIME, Field, find_field
from clearspan.query.operators import EQUALITY
from clearspan.query.page import SortKey

_IDS: Final = frozenset({"id", "unique_id", "log_id", "trace_unique_id", "trace_id"})
_TIMES: Final = {"timestamp": START_TIME, "start_time": START_TIME}
DEFAULT_SORT: Final = "-timestamp"


def _find(name: str) -> tuple[Field, str | None]:
    if name in _IDS:
        return METADATA, ITEM_ID_KEY
    return (_TIMES[name], None) if name in _TIMES else find_field(name)


def _finish(condition: Condition) -> Expr:
    if condition.key != ITEM_ID_KEY or condition.operator not in EQUALITY:
        return condition
    return Condition(condition.field, condition.operator, tuple(map(_hex, condition.values)), condition.key)


def _hex(value: Any) -> str:
    """A UUID as the store keeps it; anything else as it is, which matches nothing."""
    try:
        return UUID(str(value)).hex
    except ValueError:
        return str(value)


LOGS: Final = Vocabulary(_find, _finish)
"""Of lists of rows: metadata, text, times; an id is the row's, whichever version it is in."""


def parse_log_order(sort_by: str | None) -> SortKey:
    """The `sort_by` of a list of rows: by the time of their last change. Raises InvalidPage."""
    text = sort_by or DEFAULT_SORT
    field = _TIMES.get(text.removeprefix("-"))
    if field is None:
        allowed = ", ".join(_TIMES)
        raise InvalidPage(f"cannot sort by `{text[:100]}`; allowed, each with a `-` before it or not: {allowed}",
                          fields=("sort_by",))  # fmt: skip
    return SortKey(field, text.startswith("-"))
