"""Offset pages and sort keys of lists."""

from __future__ import annotations

from dataclasses import dataclass

from clearspan.model.errors import InvalidPage
from clearspan.query.fields import FIELDS, START_TIME, Field

PAGE_SIZE_MAX = 1000
PAGE_SIZE_DEFAULT = 50
_OFFSET_MAX = 2**62  # no table is longer; keeps an absurd page number inside SQLite's integers

SORTABLE: dict[str, Field] = {"timestamp": START_TIME} | {field.name: field for field in FIELDS if field.sortable}
"""What `sort_by` may name."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """The order of a list: by one field, missing values last either way, ties by trace_pk in the same direction."""

    field: Field
    descending: bool

    def __post_init__(self) -> None:
        assert self.field.sortable


NEWEST_FIRST = SortKey(START_TIME, descending=True)


def parse_sort(text: str) -> SortKey:
    """Read `sort_by`: a name of SORTABLE, with a leading `-` for descending.

    Raises:
        InvalidPage: unknown; the message names what was given and what is allowed.
    """
    descending = text.startswith("-")
    field = SORTABLE.get(text[1:] if descending else text)
    if field is None:
        raise InvalidPage(
            f"cannot sort by `{text[:100]}`; allowed, each with an optional leading `-`: {', '.join(SORTABLE)}",
            fields=("sort_by",),
        )
    return SortKey(field, descending)


@dataclass(frozen=True, slots=True)
class OffsetPage:
    """Page `page` (from 1) of `page_size` rows (1 to 1000).

    Raises:
        InvalidPage: either is out of range.
    """

    page: int = 1
    page_size: int = PAGE_SIZE_DEFAULT

    def __post_init__(self) -> None:
        if self.page < 1:
            raise InvalidPage(f"page is {_short(self.page)}; pages count from 1", fields=("page",))
        if not 1 <= self.page_size <= PAGE_SIZE_MAX:
            message = f"page_size is {_short(self.page_size)}; it must be from 1 to {PAGE_SIZE_MAX}"
            raise InvalidPage(message, fields=("page_size",))

    @property
    def offset(self) -> int:
        """Rows before the page; never over 2**62, whatever page was asked for."""
        return min((self.page - 1) * self.page_size, _OFFSET_MAX)


def _short(number: int) -> str:
    # Python refuses to print integers of thousands of digits, and nobody wants to read them.
    return str(number) if number.bit_length() <= 64 else "a very large number"
