"""The gate before Phoenix's deletions of annotations, against a plain model of what it must let through."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from clearspan.api.phoenix.annotation_delete import (
    NOT_ASCENDING,
    UNBOUNDED,
    DeleteQuery,
    check_bounds,
    window_of,
)
from clearspan.api.phoenix.conventions import Invalid, Refused, read_query

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.one_of(
    st.datetimes(timezones=ZONES),
    st.integers(-3, 3).map(lambda n: EPOCH + n * MICROSECOND),  # close together
)
WINDOW = {
    None: None,
    "2026-01-01T00:00:00Z": 1_767_225_600_000_000,
    "2026-01-01": 1_767_225_600_000_000,
    "1767225600": 1_767_225_600_000_000,
    "2026-01-01T00:00:00": 1_767_225_600_000_000,
    "2026-01-01T02:00:00.000001+02:00": 1_767_225_600_000_001,
}
"""A bound as sent → microseconds."""
SWITCH = {None: False, "true": True, "1": True, "yes": True, "TRUE": True, "false": False, "0": False}
TEXTS = (None, "a", "")
KINDS = (None, "LLM", "llm")


def micros(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def verdict(start: int | None, end: int | None, delete_all: bool) -> str | None:
    """The words of a refusal; None: it may pass."""
    if start is not None and end is not None:
        return None if start < end else NOT_ASCENDING
    return None if delete_all else UNBOUNDED


@given(st.none() | MOMENTS, st.none() | MOMENTS, st.booleans())
def test_a_request_passes_with_two_ends_or_with_the_word_for_all(
    start: datetime | None, end: datetime | None, delete_all: bool
) -> None:
    sent = [None if each is None else micros(each) for each in (start, end)]
    expected = verdict(sent[0], sent[1], delete_all)
    if expected is None:
        check_bounds(start, end, delete_all)
    else:
        with pytest.raises(Refused) as refused:
            check_bounds(start, end, delete_all)
        assert (refused.value.status, refused.value.message) == (422, expected)


@given(st.none() | MOMENTS, st.none() | MOMENTS, st.integers(-(2**62), 2**62), st.integers(-2, 2))
def test_the_window_is_half_open_to_the_microsecond(
    start: datetime | None, end: datetime | None, created_ns: int, beside: int
) -> None:
    near = [created_ns] + [micros(each) * 1000 + beside for each in (start, end) if each is not None]
    if start is not None and end is not None and start >= end:
        return
    window = window_of(start, end)
    assert window.start_ns is None or window.end_ns is None or window.start_ns < window.end_ns
    for ns in near:
        if abs(ns) > 2**62:
            continue
        shown = ns // 1000  # as `created_at` tells it
        inside = (start is None or micros(start) <= shown) and (end is None or shown < micros(end))
        assert inside is (
            (window.start_ns is None or window.start_ns <= ns) and (window.end_ns is None or ns < window.end_ns)
        )


def asked(**said: str | None) -> str:
    """What becomes of a query: `pass`, the words of the gate, or the parameters that are wrong."""
    sent = urlencode({name: value for name, value in said.items() if value is not None})
    request = Request({"type": "http", "query_string": sent.encode(), "headers": []})
    try:
        query = read_query(request, DeleteQuery)
    except Invalid as wrong:
        return " ".join(str(each["loc"][1]) for each in wrong.details)
    try:
        check_bounds(query.start_time, query.end_time, query.delete_all)
    except Refused as refused:
        return refused.message
    return "pass"


def test_every_mixture_of_parameters() -> None:
    switches = {**SWITCH, "maybe": None, "": None}
    bounds = {**WINDOW, "yesterday": None, "": None}
    tried = 0
    for name, identifier, kind, start, end, switch in itertools.product(TEXTS, TEXTS, KINDS, bounds, bounds, switches):
        wrong = [
            *(["name"] if name == "" else []),
            *(["identifier"] if identifier == "" else []),
            *(["annotator_kind"] if kind == "llm" else []),
            *(["start_time"] if start not in WINDOW else []),
            *(["end_time"] if end not in WINDOW else []),
            *(["delete_all"] if switch not in SWITCH else []),
        ]
        expected = " ".join(wrong) or verdict(WINDOW[start], WINDOW[end], SWITCH[switch]) or "pass"
        said = {
            "name": name, "identifier": identifier, "annotator_kind": kind,
            "start_time": start, "end_time": end, "delete_all": switch,
        }  # fmt: skip
        assert asked(**said) == expected, said
        tried += 1
    assert tried == 27 * 64 * 9
