"""The query parameters of the Respan dialect. Unknown ones are ignored, as its clients expect, but not in deletions."""

from __future__ import annotations

import re

from starlette.datastructures import QueryParams

from clearspan.model.errors import InvalidInput, InvalidPage, NotFound
from clearspan.model.ids import normalise_id
from clearspan.query.page import PAGE_SIZE_DEFAULT, OffsetPage, SortKey, parse_sort

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)

DEFAULT_SORT = "-timestamp"


def parse_page(query: QueryParams, page_size_max: int) -> OffsetPage:
    """`page` and `page_size`. Raises InvalidPage, naming the parameter."""
    page_size = _integer(query, "page_size", min(PAGE_SIZE_DEFAULT, page_size_max))
    if not 1 <= page_size <= page_size_max:
        raise InvalidPage(f"page_size must be from 1 to {page_size_max}", fields=("page_size",))
    return OffsetPage(_integer(query, "page", 1), page_size)


def parse_sort_by(query: QueryParams) -> SortKey:
    """`sort_by`. Raises InvalidPage."""
    return parse_sort(query.get("sort_by") or DEFAULT_SORT)


def parse_environment(query: QueryParams) -> str | None:
    """`environment`; an empty one means none."""
    return query.get("environment") or None


def parse_trace_id(text: str, *, for_write: bool = False) -> str:
    """The normal form of a trace id in a path.

    Raises:
        NotFound: it cannot be an id, and so nothing is stored under it.
        InvalidInput: the same, where `for_write` says that "not found" would be an answer of its own.
    """
    try:
        return normalise_id(text)
    except ValueError as error:
        if for_write:
            raise InvalidInput(f"The trace id is not valid: {error}.", fields=("trace_unique_id",)) from None
        raise NotFound("No trace was found under that id.") from None


def _integer(query: QueryParams, key: str, default: int) -> int:
    text = query.get(key)
    if text is None or text == "":
        return default
    if not _INTEGER.fullmatch(text):
        raise InvalidPage(f"{key} must be a whole number.", fields=(key,))
    return int(text)
