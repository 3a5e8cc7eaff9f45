"""`clearspan delete`, `deletions` and `holds` against a server of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from clearspan.cli import delete as delete_command
from clearspan.cli import follow, remote
from clearspan.cli.main import build

Json = dict[str, Any]
DELETION = "/v1/deletions/del_1"


def preview(matched: int = 3, held: int = 0) -> Json:
    return {
        "plan_token": "plan_secret",
        "expires_at": "2026-11-22T12:15:00Z",
        "effective_window": {"start_time": None, "end_time": None, "source": "request"},
        "projects": ["demo"],
        "traces": {"matched": matched, "held": held},
        "counts": {"trace": {"planned": matched}, "log": {"planned": 0}, "span": {"planned": 1234}},
        "holds": [{"id": "hold_1", "traces": held}] if held else [],
        "by_day": {"2026-11-22": matched},
        "by_project": {"demo": matched},
        "samples": [
            {"trace_id": "t1", "start_time": "2026-11-22", "name": "a\x1b[31m", "customer_identifier": None,
             "span_count": 4}
        ],
    }  # fmt: skip


def deletion(state: str, **more: Any) -> Json:
    gone = 1234 if state == "verified" else 0
    return {
        "id": "del_1",
        "state": state,
        "problem": None,
        "requested_by": "key_1",
        "scope": ["name:equals:1"],
        "created_at": "2026-11-22T12:00:00Z",
        "effective_window": {"start_time": None, "end_time": None, "source": "request"},
        "traces": {"matched": 3, "hidden": 3, "already_absent": 0, "no_longer_matching": 0, "held": 0, "failed": 0},
        "counts": {"span": {"planned": 1234, "hidden": 1234, "purged": gone, "remaining": 1234 - gone}},
        "times": {"hidden": "2026-11-22T12:00:00Z"},
        "links": {"cancel": f"{DELETION}/cancel"} if state == "hidden" else {},
        **more,
    }


class Server:
    """Answers from a table of (method, path) → JSON or (status, JSON), lists in turn; remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {
            ("POST", "/v1/deletions/preview"): preview(),
            ("POST", "/v1/deletions"): deletion("hidden"),
            ("GET", DELETION): [deletion("hidden"), deletion("purged"), deletion("verified")],
            ("GET", f"{DELETION}/receipt"): {"id": "del_1", "receipt": "a.b.c", "payload": {"ledger": {"size": 4}}},
            ("GET", "/v1/ledger/keys"): {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "x"}], "validity": {}},
            ("GET", "/v1/ledger/head"): {"head": "h.e.ad", "size": 5},
            ("GET", "/v1/ledger/consistency"): {"old_size": 4, "size": 5, "path": []},
        }
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        place = (request.method, request.url.path)
        self.asked.append((*place, json.loads(request.content) if request.content else dict(request.url.params)))
        answer = self.answers.get(place, (404, {"detail": "There is no such thing.", "code": "not_found"}))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        return httpx.Response(status, json=body)

    def bodies(self, method: str, path: str) -> list[Any]:
        return [body for each, where, body in self.asked if (each, where) == (method, path)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    made = Server()
    monkeypatch.setattr(remote, "transport_for", lambda url: httpx.MockTransport(made))
    monkeypatch.setattr(follow, "POLL_S", 0.0)
    monkeypatch.setenv("CLEARSPAN_API_KEY", "a-key")
    monkeypatch.setenv("CLEARSPAN_URL", "http://server.test")
    monkeypatch.chdir(tmp_path)
    return made


def run(*words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(build(words[0]), list(words), input=typed)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is there to confirm."""
    monkeypatch.setattr(delete_command, "check_confirmable", lambda yes, expected: None)


YES = ("--yes", "--expected-count", "3")
WHERE = ("delete", "--where", "customer_identifier", "=", "a@example.com", "b c")


def test_a_script_previews_executes_that_plan_waits_and_keeps_the_receipt(server: Server) -> None:
    ran = run(*WHERE, "--from", "2026-01-01", "--to", "2026-02-01", "--reason", "asked", *YES)
    assert ran.exit_code == 0, ran.stderr
    [asked] = server.bodies("POST", "/v1/deletions/preview")
    assert asked == {
        "filters": [{"field": "customer_identifier", "operator": "=", "value": ["a@example.com", "b c"]}],
        "start_time": "2026-01-01",
        "end_time": "2026-02-01",
        "reason": "asked",
    }
    assert server.bodies("POST", "/v1/deletions") == [
        {"plan_token": "plan_secret", "expected_count": 3, "wait": "hidden"}
    ]
    papers = json.loads(Path("receipt-del_1.json").read_text())
    assert (papers["receipt"], papers["head"], papers["consistency"]["size"]) == ("a.b.c", "h.e.ad", 5)
    assert papers["keys"] == [{"kty": "OKP", "crv": "Ed25519", "x": "x"}], "as `verify --key` reads them"
    assert "3 of 3 matched traces are erased." in ran.stdout
    assert "clearspan verify receipt-del_1.json" in ran.stdout
    assert "\x1b" not in ran.stdout, "what traces say does not move the cursor"
    assert "plan_secret" not in ran.stdout


def test_json_is_one_document(server: Server) -> None:
    ran = run(*WHERE, "--delete-all", *YES, "--json", "--receipt", "kept.json")
    said = json.loads(ran.stdout)
    assert (ran.exit_code, said["deletion"]["state"], said["receipt_file"]) == (0, "verified", "kept.json")
    assert Path("kept.json").is_file()
    assert server.bodies("POST", "/v1/deletions/preview")[0]["delete_all"] is True


def test_a_preview_tells_what_becomes_of_copies(server: Server) -> None:
    copies = {"taken": 2, "not_covered": 1, "detached": 0, "redacted_items": 0, "of_trace": 1_000}
    server.answers["POST", "/v1/deletions/preview"] = preview() | {"kind": "spans", "copies": copies}
    told = run("delete", "--span-id", "a/b", "--dry-run").stdout
    assert "3 spans match" in told
    for part in (
        "2 of them are traces with copies",
        "1 traces with copies stay",
        "1,000 traces with copies of the whole",
    ):
        assert part in told
    assert "detached" not in told
    assert "replaced" not in told


def test_a_dry_run_executes_nothing(server: Server) -> None:
    server.answers["POST", "/v1/deletions/preview"] = preview(held=2)
    ran = run(*WHERE, "--delete-all", "--dry-run")
    assert ran.exit_code == 0
    for part in ("3 traces match", "Hold hold_1 keeps 2", "1,234", "2026-11-22", "t1"):
        assert part in ran.stdout
    assert "log" not in ran.stdout, "a target without rows is not worth a line"
    assert server.bodies("POST", "/v1/deletions") == []
    assert json.loads(run(*WHERE, "--delete-all", "--dry-run", "--json").stdout)["traces"]["matched"] == 3


@pytest.mark.parametrize(
    ("typed", "executed"), [("3\n", True), ("4\n", False), ("yes\n", False), ("\n", False), ("", False)]
)
def test_the_number_has_to_be_typed(server: Server, terminal: None, typed: str, executed: bool) -> None:
    ran = run(*WHERE, "--delete-all", typed=typed)
    assert bool(server.bodies("POST", "/v1/deletions")) is executed
    assert ran.exit_code == (0 if executed else 1)
    assert "Type the number of traces, 3" in ran.stderr
    assert ("not confirmed" in ran.stderr) is not executed


@pytest.mark.parametrize(
    ("more", "status", "line"),
    [
        ((), 2, "Nobody is there to confirm"),
        (("--yes",), 2, "--yes needs --expected-count"),
        (("--yes", "--expected-count", "4"), 1, "3 traces match, not 4; nothing was deleted"),
        ((*YES, "--receipt", "there.json"), 1, "there.json exists already"),
        ((*YES, "--filters", "{}"), 2, "cannot be given together"),
        ((*YES, "--from", "soon"), 2, "--from is neither"),
        ((*YES, "--url", "nowhere"), 2, "not the address of a server"),
        ((*YES, "--key-file", "none"), 2, "cannot be read"),
    ],
)
def test_what_is_not_sure_is_refused_and_nothing_executed(
    server: Server, more: tuple[str, ...], status: int, line: str
) -> None:
    Path("there.json").write_text("{}")
    ran = run(*WHERE, *more)
    assert (ran.exit_code, line in ran.stderr) == (status, True), ran.stderr
    assert ran.stderr.count("clearspan: ") == 1
    assert server.bodies("POST", "/v1/deletions") == []


def test_a_changed_plan_and_a_missing_window_are_told_in_one_line(server: Server) -> None:
    server.answers["POST", "/v1/deletions"] = (409, {"detail": "A trace has changed.", "code": "plan_mismatch"})
    ran = run(*WHERE, "--delete-all", *YES)
    assert (ran.exit_code, ran.stderr) == (1, "clearspan: A trace has changed. (plan_mismatch)\n")
    server.answers["POST", "/v1/deletions/preview"] = (422, {"detail": "No.", "code": "unbounded_window"})
    assert "Give --from and --to, or --delete-all." in run(*WHERE, *YES).stderr


def test_nothing_that_matches_is_a_success_without_receipt(server: Server) -> None:
    server.answers["POST", "/v1/deletions/preview"] = preview(0)
    ran = run(*WHERE, "--delete-all", "--yes", "--expected-count", "0")
    assert (ran.exit_code, "nothing was deleted" in ran.stdout) == (0, True)
    assert server.bodies("POST", "/v1/deletions") == []


def test_a_failure_names_what_is_left_and_the_way_on(server: Server) -> None:
    server.answers["GET", DELETION] = deletion("failed", problem="survivors:log")
    ran = run(*WHERE, "--delete-all", *YES)
    assert ran.exit_code == 1
    assert "survivors:log" in ran.stderr
    assert "clearspan deletions retry del_1" in ran.stdout
    assert not Path("receipt-del_1.json").exists()


@pytest.mark.parametrize(("waits_for", "word"), [("not_before", "not before 2027"), ("held", "it waits")])
def test_what_waits_for_long_is_not_waited_for(server: Server, waits_for: str, word: str) -> None:
    state = "hidden" if waits_for == "not_before" else "blocked"
    server.answers["POST", "/v1/deletions"] = deletion(state, waits_for=waits_for, not_before="2027-01-01T00:00:00Z")
    ran = run(*WHERE, "--delete-all", "--not-before", "2027-01-01", *YES)
    assert ran.exit_code == 0
    assert word in ran.stdout
    assert "clearspan deletions watch del_1" in ran.stdout
    assert server.bodies("GET", DELETION) == []
    assert server.bodies("POST", "/v1/deletions/preview")[0]["not_before"] == "2027-01-01"


def test_a_time_too_far_ahead_is_refused_in_the_servers_words(server: Server) -> None:
    told = "not_before may be 2027-11-23T00:00:00Z at the latest (setting not_before_days_max); nothing was deleted."
    server.answers["POST", "/v1/deletions/preview"] = (422, {"detail": told, "code": "not_before_too_late"})
    ran = run(*WHERE, "--delete-all", "--not-before", "2206-01-01", *YES)
    assert (ran.exit_code, told in ran.stderr) == (1, True)
    assert server.bodies("POST", "/v1/deletions/preview")[0]["not_before"] == "2206-01-01"
    assert server.bodies("POST", "/v1/deletions") == []


def test_ctrl_c_says_the_state_and_the_way_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.time, "sleep", interrupt)
    ran = run(*WHERE, "--delete-all", *YES)
    assert ran.exit_code == follow.INTERRUPTED
    for part in ("del_1 is hidden", "goes on at the server", "deletions watch del_1", "deletions cancel del_1"):
        assert part in ran.stderr


def test_progress_is_of_what_was_hidden() -> None:
    said = deletion("hidden", counts={
        "span": {"planned": 10, "hidden": 8, "purged": 5},
        "log": {"planned": 4, "hidden": None, "purged": None},
        "share": {"planned": 0, "hidden": 0, "purged": None},
    })  # fmt: skip
    assert list(follow.target_progress(said)) == [("span", 5, 8), ("log", 0, 4)]
    assert list(follow.target_progress({**said, "state": "verified"})) == [("span", 8, 8), ("log", 4, 4)]


LISTED = {"data": [deletion("verified")], "next_cursor": None}


@pytest.mark.parametrize(
    ("words", "place", "answer", "shown"),
    [
        (("deletions", "list", "--state", "verified"), ("GET", "/v1/deletions"), LISTED, "del_1  verified  3/3"),
        (("deletions", "show", "del_1"), ("GET", DELETION), deletion("blocked", problem="full"), "(full)"),
        (("deletions", "watch", "del_1"), ("GET", DELETION), deletion("verified"), "recount found nothing"),
        (("deletions", "cancel", "del_1"), ("POST", f"{DELETION}/cancel"), deletion("cancelled"), "as before"),
        (("deletions", "retry", "del_1"), ("POST", f"{DELETION}/retry"), deletion("hidden"), "is hidden"),
        (("deletions", "tombstones", "del_1"), ("GET", f"{DELETION}/tombstones"),
         {"data": [{"key": "ab12"}], "next_cursor": None}, "ab12"),
        (("deletions", "lift", "t1", "--reason", "r"), ("POST", "/v1/tombstones/lift"),
         {"lifted": True, "deletion_id": "del_1"}, "lifted"),
    ],
)  # fmt: skip
def test_deletions_are_shown_as_text_and_as_json(
    server: Server, words: tuple[str, ...], place: tuple[str, str], answer: Json, shown: str
) -> None:
    server.answers[place] = answer
    ran = run(*words)
    assert (ran.exit_code, shown in ran.stdout) == (0, True), ran.output
    said = json.loads(run(*words, "--json").stdout)
    assert said == (answer if "next_cursor" not in answer else {"data": answer["data"]})


def test_watching_one_that_failed_is_status_1(server: Server) -> None:
    server.answers["GET", DELETION] = deletion("failed", problem="survivors:span")
    assert run("deletions", "watch", "del_1").exit_code == 1


def test_a_receipt_is_printed_or_kept_once(server: Server) -> None:
    assert json.loads(run("deletions", "receipt", "del_1", "--out", "-").stdout)["receipt"] == "a.b.c"
    assert run("deletions", "receipt", "del_1").exit_code == 0
    again = run("deletions", "receipt", "del_1")
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


def test_an_unknown_deletion_is_status_1_and_one_line(server: Server) -> None:
    ran = run("deletions", "show", "del/../x")
    assert (ran.exit_code, ran.stderr) == (1, "clearspan: There is no such thing. (not_found)\n")
    assert server.asked[-1][1] == "/v1/deletions/del/../x", "sent quoted: never another path"


HOLD = {
    "id": "hold_1", "state": "active", "projects": ["demo"], "scope": ["name:equals:1"], "reason": "court",
    "created_at": "2026-11-22", "created_by": "key_1", "window": {"start_time": None, "end_time": None},
    "traces": {"protected": 4, "hidden_kept": 1}, "links": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "place", "answer", "body"),
    [
        (("list", "--released"), ("GET", "/v1/holds"), {"data": [HOLD], "next_cursor": None},
         {"limit": "200", "state": "all"}),
        (("show", "hold_1"), ("GET", "/v1/holds/hold_1"), HOLD, {}),
        (("add", "--reason", "court", "--where", "name", "=", "x"), ("POST", "/v1/holds"), HOLD,
         {"filters": [{"field": "name", "operator": "=", "value": ["x"]}], "reason": "court"}),
        (("add", "--reason", "court", "--everything", "--project", "demo"), ("POST", "/v1/holds"), HOLD,
         {"everything": True, "project": "demo", "reason": "court"}),
        (("release", "hold_1", "--reason", "over"), ("DELETE", "/v1/holds/hold_1"), HOLD, {"reason": "over"}),
    ],
)  # fmt: skip
def test_holds(server: Server, words: tuple[str, ...], place: tuple[str, str], answer: Json, body: Json) -> None:
    server.answers[place] = answer
    ran = run("holds", *words)
    assert (ran.exit_code, "hold_1" in ran.stdout) == (0, True), ran.output
    assert server.asked[-1] == (*place, body)
    assert json.loads(run("holds", *words, "--json").stdout)


def test_without_a_terminal_nobody_can_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(delete_command.sys, "stdin", Pipe())
    check: Callable[[bool, int | None], None] = delete_command.check_confirmable
    check(True, 3)
    with pytest.raises(remote.RemoteFailure):
        check(False, 3)


def test_spans_are_named_by_their_ids_and_told_as_such(server: Server) -> None:
    server.answers["POST", "/v1/deletions/preview"] = preview() | {"kind": "spans"}
    server.answers["GET", DELETION] = deletion("verified") | {"kind": "spans"}
    ran = run("delete", "--span-id", "a", "t/b", "--span-id", "c", *YES)
    assert ran.exit_code == 0, ran.output
    assert server.bodies("POST", "/v1/deletions/preview") == [{"span_ids": ["a", "t/b", "c"]}]
    assert "3 spans match\n" in ran.output
    assert "matched spans are erased" in ran.output
