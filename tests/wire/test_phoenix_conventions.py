"""What every answer of the Phoenix dialect has in common."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from starlette.requests import Request

from clearspan.api.phoenix import conventions, cursors, globalids
from clearspan.api.phoenix.conventions import AnnotatorWord, Body, Invalid, Limit1000, Moment, Query, Text
from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire

VERSION = "x-phoenix-server-version"


class Everything(Query):
    """One parameter of each kind."""

    limit: Limit1000 = 100
    start_time: Moment | None = None
    delete_all: bool = False
    annotator_kind: AnnotatorWord | None = None
    name: Text | None = None
    span_id: list[str] = Field(default_factory=list)
    identifier: list[Text] = Field(default_factory=list)


class Required(Query):
    start_time: Moment
    end_time: Moment


class Item(Body):
    name: Text
    tags: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["a"])


def query(text: str) -> Everything:
    return conventions.read_query(request_of(text), Everything)


def request_of(text: str) -> Request:
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": text.encode(), "headers": []})


def complaint(text: str, kind: type[Query] = Everything) -> dict[str, Any]:
    with pytest.raises(Invalid) as caught:
        conventions.read_query(request_of(text), kind)
    body = json.loads(bytes(caught.value.response().body))
    assert caught.value.response().status_code == 422
    return dict(body["detail"][0])


def test_the_version_needs_no_key_and_is_plain_text(wire: Wire) -> None:
    for key in (None, "wrong"):
        answer = wire.get("/arize_phoenix_version", key=key)
        assert (answer.status_code, answer.text) == (200, "20.26.1")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers[VERSION] == "20.26.1"


def test_an_unknown_path_is_404_in_plain_text_and_names_the_version(wire: Wire) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = wire.send(method, "/v1/nothing-here")
        assert (answer.status_code, answer.headers[VERSION]) == (404, "20.26.1")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs", "/v1/metrics", "/v1/deletions", "/v1/platform/x", "/api/x"])
def test_what_others_own_keeps_its_own_words(wire: Wire, path: str) -> None:
    answer = wire.get(path)
    assert VERSION not in answer.headers
    assert answer.headers["content-type"].split(";")[0] != "text/plain"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limit=0", {"type": "greater_than", "msg": "Input should be greater than 0", "input": "0", "ctx": {"gt": 0}}),
        (
            "limit=1001",
            {
                "type": "less_than_equal",
                "msg": "Input should be less than or equal to 1000",
                "input": "1001",
                "ctx": {"le": 1000},
            },
        ),
        (
            "start_time=not-a-time",
            {
                "type": "datetime_from_date_parsing",
                "msg": "Input should be a valid datetime or date, invalid character in year",
                "input": "not-a-time",
                "ctx": {"error": "invalid character in year"},
            },
        ),
        (
            "delete_all=maybe",
            {
                "type": "bool_parsing",
                "msg": "Input should be a valid boolean, unable to interpret input",
                "input": "maybe",
            },
        ),
        (
            "annotator_kind=ROBOT",
            {
                "type": "literal_error",
                "msg": "Input should be 'LLM', 'CODE' or 'HUMAN'",
                "input": "ROBOT",
                "ctx": {"expected": "'LLM', 'CODE' or 'HUMAN'"},
            },
        ),
        (
            "name=",
            {
                "type": "string_too_short",
                "msg": "String should have at least 1 character",
                "input": "",
                "ctx": {"min_length": 1},
            },
        ),
    ],
)
def test_a_wrong_parameter_is_told_as_phoenix_tells_it(text: str, expected: dict[str, Any]) -> None:
    name = text.split("=")[0]
    assert complaint(text) == {"loc": ["query", name], **expected}


def test_a_missing_parameter_has_no_input_and_a_list_names_the_position() -> None:
    assert complaint("end_time=2026-01-01", Required) == {
        "type": "missing", "loc": ["query", "start_time"], "msg": "Field required", "input": None,
    }  # fmt: skip
    assert complaint("identifier=a&identifier=")["loc"] == ["query", "identifier", 1]
    with pytest.raises(Invalid) as caught:
        conventions.read_query(request_of(""), Required)
    assert [each["loc"][1] for each in caught.value.details] == ["start_time", "end_time"]


def test_of_a_repeated_parameter_the_last_counts_unless_it_is_a_list() -> None:
    found = query("limit=1&limit=2&span_id=a&span_id=b&unknown=x")
    assert (found.limit, found.span_id) == (2, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05%2B02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("1795300859", datetime(2026, 11, 21, 22, 40, 59, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
    ],
)
def test_times_may_be_dates_seconds_and_without_offset(text: str, expected: datetime) -> None:
    assert query(f"start_time={text}").start_time == expected


@given(st.sampled_from(["true", "1", "yes", "false", "0", "no"]), st.randoms(use_true_random=False))
def test_a_truth_value_may_be_in_any_case(word: str, rng: Any) -> None:
    mixed = "".join(rng.choice((each.upper(), each)) for each in word)
    assert query(f"delete_all={mixed}").delete_all is (word in ("true", "1", "yes"))


@given(st.integers(min_value=-(2**51), max_value=2**52))
def test_a_time_written_is_the_time_read(microseconds: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    ns = conventions.bound_ns(at)
    written = conventions.render_time(ns)
    assert written is not None
    assert written.endswith("+00:00")
    assert ("." in written) is bool(at.microsecond)
    assert query("start_time=" + written.replace("+", "%2B")).start_time == at


@given(st.text())
def test_no_parameter_is_read_into_anything_but_a_value_or_a_complaint(text: str) -> None:
    for name in Everything.model_fields:
        with contextlib.suppress(Invalid):
            query(f"{name}={quote(text, errors='replace')}")


@pytest.mark.parametrize("at", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)])
def test_a_bound_beyond_what_is_stored_fits_the_store(at: datetime) -> None:
    bound = conventions.bound_ns(at)
    assert bound is not None
    assert abs(bound) < 2**63


def test_a_body_is_told_as_phoenix_tells_it() -> None:
    def told(body: bytes) -> dict[str, Any]:
        with pytest.raises(Invalid) as caught:
            conventions.parse_object(body, Item)
        return dict(caught.value.details[0])

    assert told(b"") == {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}
    assert told(b"{}") == {"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": {}}
    assert told(b'{"name": ""}')["type"] == "string_too_short"
    assert told(b"[]")["loc"] == ["body"]
    assert told(b"{")["type"] == "json_invalid"
    assert told(b'{"name": "a", "name": "b"}')["type"] == "json_invalid"
    assert told(b'{"name": "a", "tags": []}') == {
        "type": "too_short", "loc": ["body", "tags"], "msg": "List should have at least 1 item after validation, not 0",
        "input": [], "ctx": {"field_type": "List", "min_length": 1, "actual_length": 0},
    }  # fmt: skip
    assert conventions.parse_object(b'{"name": "a", "more": 1}', Item) == Item(name="a")


IDS = st.text(min_size=1, max_size=40)
ROWS = st.integers(min_value=0, max_value=2**63 - 1)


@given(ROWS, IDS, IDS)
def test_a_global_id_leads_back(row: int, trace_id: str, span_id: str) -> None:
    assert globalids.project_of(globalids.project_gid(row)) == row
    assert globalids.trace_of(globalids.trace_gid(row, trace_id)) == (row, trace_id)
    assert globalids.span_of(globalids.span_gid(row, trace_id, span_id)) == (row, trace_id, span_id)
    assert globalids.session_of(globalids.session_gid(row, trace_id)) == (row, trace_id)
    assert globalids.trace_of(globalids.span_gid(row, trace_id, span_id)) is None


@given(st.text())
def test_any_other_text_is_a_name(text: str) -> None:
    made = globalids.parse(text)
    if made is not None:
        assert globalids.render(*made) == text
    assert globalids.project_of(text) is None or text == globalids.project_gid(globalids.project_of(text) or 0)


def test_global_ids_are_phoenixs_for_projects() -> None:
    assert globalids.project_gid(2) == "UHJvamVjdDoy"
    for text in ("U3Bhbjox", "1", "no-such", "UHJvamVjdDo=", "UHJvamVjdDowMg==", "UHJvamVjdDoy\n"):
        assert globalids.project_of(text) is None, text
    assert globalids.row_of(globalids.render("Project", "99999999999999999999"), "Project") is None


@given(
    st.lists(st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)))
)
def test_a_cursor_leads_back_and_only_in_its_own_list(values: list[Any]) -> None:
    made = cursors.render_cursor("a.desc", *values)
    kinds = [type(each) for each in values]
    assert cursors.parse_cursor(made, "a.desc", *kinds) == tuple(values)
    assert cursors.parse_cursor(made, "b.desc", *kinds) is None
    assert cursors.parse_cursor(made, "a.desc", *kinds, int) is None


@given(st.text())
def test_any_other_text_is_no_cursor(text: str) -> None:
    assert cursors.parse_cursor(text, "a", int) is None


def test_a_viewer_is_a_key_that_only_reads(wire: Wire) -> None:
    def principal(*scopes: KeyScope) -> Any:
        return wire.catalog.authenticate(wire.key(*scopes))

    assert conventions.is_viewer(principal(KeyScope.READ))
    assert not conventions.is_viewer(principal(KeyScope.READ, KeyScope.INGEST))
    assert conventions.is_admin(principal(KeyScope.ADMIN))
    with pytest.raises(conventions.Refused, match="Only admin or system users"):
        conventions.require_admin(principal(KeyScope.READ, KeyScope.DELETE))
