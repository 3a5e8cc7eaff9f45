"""How commands reach a server, what its refusals become, and how words become a selection."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import typer

from clearspan.cli import remote
from clearspan.cli.output import printable
from clearspan.cli.remote import Remote, RemoteFailure, find_key, open_remote
from clearspan.cli.selection import gather, parse_condition, read_filters, read_time, selection_body

URL = "http://server.test"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], Remote]:
    """A Remote whose requests this function answers."""

    def put(answer: Answer) -> Remote:
        monkeypatch.setattr(remote, "transport_for", lambda url: httpx.MockTransport(answer))
        return Remote(URL, "a-key")

    return put


def test_a_success_is_its_json_and_the_key_travels_in_a_header(serve: Callable[[Answer], Remote]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True})

    assert serve(answer).get("/v1/x?a=1") == {"ok": True}
    assert seen[0].headers["Authorization"] == "Bearer a-key"
    assert str(seen[0].url) == f"{URL}/v1/x?a=1"


@pytest.mark.parametrize(
    ("status", "body", "line", "code"),
    [
        (422, {"title": "Unguarded", "detail": "A window is needed.", "code": "unguarded"},
         "A window is needed. (unguarded)", "unguarded"),
        (409, {"detail": "Not 3.", "code": "expected_count"}, "Not 3. (expected_count)", "expected_count"),
        (401, {"detail": "Your key is invalid", "error": "x"}, "Your key is invalid", None),
        (500, None, "/v1/x answered 500.", None),
        (404, {"detail": "\x1b[1m", "code": "gone"}, "\N{REPLACEMENT CHARACTER}[1m (gone)", "gone"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_status_1(
    serve: Callable[[Answer], Remote], status: int, body: object, line: str, code: str | None
) -> None:
    there = serve(lambda _: httpx.Response(status, text="<html>" if body is None else json.dumps(body)))
    with pytest.raises(RemoteFailure) as failure:
        there.get("/v1/x")
    assert (str(failure.value), failure.value.code, failure.value.exit_status) == (line, code, 1)
    assert failure.value.status == status


@pytest.mark.parametrize(
    ("error", "part"), [(httpx.ConnectError("refused"), "cannot be reached"), (httpx.ReadTimeout("slow"), "within")]
)
def test_no_server_is_status_2(serve: Callable[[Answer], Remote], error: Exception, part: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(RemoteFailure, match=part) as failure:
        serve(answer).get("/v1/x")
    assert failure.value.exit_status == 2


def test_something_else_that_answers_is_told_apart(serve: Callable[[Answer], Remote]) -> None:
    with pytest.raises(RemoteFailure, match="is it a Clearspan server"):
        serve(lambda _: httpx.Response(200, text="<html>")).get("/v1/x")


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8321", "http://", "http://x:port"])
def test_an_address_that_is_none_is_status_2(url: str) -> None:
    with pytest.raises(RemoteFailure, match="not the address of a server") as failure:
        Remote(url, "k")
    assert failure.value.exit_status == 2


def test_lists_are_read_to_their_end(serve: Callable[[Answer], Remote]) -> None:
    pages = {None: {"data": [1, 2], "next_cursor": "c"}, "c": {"data": [3], "next_cursor": None}}
    there = serve(lambda request: httpx.Response(200, json=pages[request.url.params.get("cursor")]))
    assert list(there.pages("/v1/deletions", state=None)) == [1, 2, 3]


def test_the_key_comes_from_a_file_or_the_option(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert find_key("given", None) == "given"
    assert find_key("given", file) == "from-file"
    for key, path in ((None, None), ("", None), ("with\nline", None), (None, tmp_path / "none")):
        with pytest.raises(RemoteFailure) as failure:
            find_key(key, path)
        assert failure.value.exit_status == 2


def test_a_failure_ends_the_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, open_remote(URL, None, None):
        raise AssertionError("there is no key")
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.startswith("clearspan: No API key")


@pytest.mark.parametrize(
    ("words", "gathered"),
    [
        (["--where", "a", "=", "b c", "--json"], ["--where", "a = 'b c'", "--json"]),
        (["--where", "a = 'b c'", "--json"], ["--where", "a = 'b c'", "--json"]),
        (["--where", "e", "gt", "-1"], ["--where", "e gt -1"]),
        (["--where", "e", "empty", "--where", "f", "in", "1", "2"], ["--where", "e empty", "--where", "f in 1 2"]),
        (["--trace-id", "x", "y", "--yes"], ["--trace-id", "x y", "--yes"]),
        (["--where"], ["--where"]),
        (["--reason", "a", "--json"], ["--reason", "a", "--json"]),
    ],
)
def test_words_after_where_belong_to_it(words: list[str], gathered: list[str]) -> None:
    assert gather(words) == gathered


def test_a_condition_keeps_every_value() -> None:
    assert parse_condition("customer_identifier in a@x 'b c'") == {
        "field": "customer_identifier", "operator": "in", "value": ["a@x", "b c"],
    }  # fmt: skip
    assert parse_condition("name is_null")["value"] == []


@pytest.mark.parametrize("text", ["", "name", "name =", "name = 'open"])
def test_half_a_condition_is_refused(text: str) -> None:
    with pytest.raises(RemoteFailure) as failure:
        parse_condition(text)
    assert failure.value.exit_status == 2


def test_filters_come_as_json_or_file_alone_or_in_a_body(tmp_path: Path) -> None:
    filters = {"name": {"operator": "=", "value": ["x"]}}
    (tmp_path / "f.json").write_text(json.dumps({"filters": filters, "operator": "OR"}))
    assert read_filters(json.dumps(filters)) == {"filters": filters}
    assert read_filters(f"@{tmp_path / 'f.json'}") == {"filters": filters, "operator": "OR"}
    for bad in ("{", "@none.json", json.dumps({"filters": {}, "delete_all": True})):
        with pytest.raises(RemoteFailure):
            read_filters(bad)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (None, None),
        ("30d", "2026-10-23T12:00:00+00:00"),
        ("90m", "2026-11-22T10:30:00+00:00"),
        ("now", "2026-11-22T12:00:00+00:00"),
        ("2026-01-31", "2026-01-31"),
    ],
)
def test_times_are_times_or_spans_ago(text: str | None, read: str | None) -> None:
    assert read_time(text, NOW, "--from") == read


@pytest.mark.parametrize("text", ["yesterday", "30", "0d", "1y", ""])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(RemoteFailure, match="--from"):
        read_time(text, NOW, "--from")


def test_a_selection_says_only_what_was_given() -> None:
    nothing = {"where": None, "filters": None, "trace_id": None, "project": None, "environment": None}
    assert selection_body(**nothing, start=None, end=None) == {}  # type: ignore[arg-type]
    body = selection_body(
        where=["name = x"], filters=None, trace_id=["a b", "c"], project="p", environment=None, start="1h", end="now",
        now=NOW,
    )  # fmt: skip
    assert body == {
        "filters": [{"field": "name", "operator": "=", "value": ["x"]}],
        "trace_ids": ["a", "b", "c"],
        "project": "p",
        "start_time": "2026-11-22T11:00:00+00:00",
        "end_time": "2026-11-22T12:00:00+00:00",
    }
    with pytest.raises(RemoteFailure, match="together"):
        selection_body(**nothing | {"where": ["a = b"], "filters": "{}"}, start=None, end=None)  # type: ignore[arg-type]


def test_a_terminal_is_told_nothing_but_text() -> None:
    assert (
        printable("a\x1b]0;x\x07\n")
        == "a\N{REPLACEMENT CHARACTER}]0;x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    )
    assert (printable(None), printable(12345), printable("東京")) == ("–", "12,345", "東京")
