"""Pages and sort keys."""

from __future__ import annotations

import pytest

from clearspan.model.errors import InvalidPage
from clearspan.query.compile_sql import compile_order
from clearspan.query.page import SORTABLE, OffsetPage, parse_sort


def test_sortable_is_the_contracts_list() -> None:
    assert set(SORTABLE) == set(
        [
            "timestamp",
            "start_time",
            "end_time",
            "duration",
            "total_cost",
            "total_tokens",
            "total_prompt_tokens",
            "total_completion_tokens",
            "span_count",
            "llm_call_count",
            "error_count",
        ]
    )


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("-timestamp", "t.start_ns DESC, t.trace_pk DESC"),
        ("start_time", "t.start_ns ASC, t.trace_pk ASC"),
        ("-total_cost", "t.cost_pico DESC, t.trace_pk DESC"),
        ("total_cost", "t.cost_pico ASC NULLS LAST, t.trace_pk ASC"),
        ("error_count", "t.error_count ASC, t.trace_pk ASC"),
    ],
)
def test_order(text: str, order: str) -> None:
    assert compile_order(parse_sort(text)) == order


@pytest.mark.parametrize(
    "text", ["", "-", "--timestamp", "+timestamp", "name", "metadata__k", "t.start_ns", "Duration"]
)
def test_other_sorts_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidPage) as caught:
        parse_sort(text)
    assert caught.value.fields == ("sort_by",)
    assert f"`{text}`" in caught.value.message


@pytest.mark.parametrize(("page", "size", "offset"), [(1, 50, 0), (3, 1000, 2000), (10**400, 1, 2**62)])
def test_offsets(page: int, size: int, offset: int) -> None:
    assert OffsetPage(page, size).offset == offset


@pytest.mark.parametrize(
    ("page", "size", "field"),
    [(0, 50, "page"), (-1, 50, "page"), (1, 0, "page_size"), (1, 1001, "page_size"), (1, 10**400, "page_size")],
)
def test_pages_out_of_range_are_refused_by_name(page: int, size: int, field: str) -> None:
    with pytest.raises(InvalidPage) as caught:
        OffsetPage(page, size)
    assert caught.value.fields == (field,)
