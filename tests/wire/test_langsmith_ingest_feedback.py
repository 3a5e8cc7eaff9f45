"""Feedback that comes as parts of a body of runs."""

from __future__ import annotations

from typing import Any

import pytest
from langsmith_requests import multipart, run, run_id

from clearspan.model.errors import ReadTooSlow
from clearspan.testing.wire import Wire


def test_feedback_comes_with_runs_or_before_them(wire: Wire) -> None:
    def said(number: int, of: int, **fields: Any) -> tuple[str, dict[str, Any]]:
        own = run_id(100 + number)
        return f"feedback.{own}", {"id": own, "run_id": run_id(of), "trace_id": run_id(of), "key": "k", **fields}

    parts = (said(1, 1, score=1), said(2, 2, score=0.5), said(3, 1, key=""), (f"post.{run_id(1)}", run(1)))
    body, headers = multipart(*parts)
    answer = wire.post("/runs/multipart", body, headers=headers)
    assert answer.status_code == 202
    assert (answer.json()["accepted"], answer.json()["feedback_accepted"]) == (1, 2)
    assert [(each["kind"], each["id"]) for each in answer.json()["rejected"]] == [("feedback", run_id(103))]
    only, headers = multipart(said(4, 1, key=""))
    assert wire.post("/runs/multipart", only, headers=headers).status_code == 422


DEEP = b'{"a":' * 300 + b"1" + b"}" * 300


@pytest.mark.parametrize(
    "fault",
    [
        b'"created_at": 1.7e15',  # microseconds, where milliseconds are meant
        b'"created_at": -9007199254740000',
        b'"feedback_source": {"type": ["api"]}',
        b'"feedback_source": {"metadata": %b}' % DEEP,
        b'"extra": %b' % DEEP,
        b'"value": 1e999',
        b'"correction": {"a": 1e999}',
    ],
)
def test_bad_feedback_costs_itself_alone(wire: Wire, fault: bytes) -> None:
    base = b'{"id": "%b", "run_id": "%b", "key": "k"' % (run_id(101).encode(), run_id(1).encode())
    bad = base + b", " + fault + b"}"
    good = {"id": run_id(102), "run_id": run_id(1), "key": "k"}
    parts = (f"post.{run_id(1)}", run(1)), (f"feedback.{run_id(101)}", bad), (f"feedback.{run_id(102)}", good)
    body, headers = multipart(*parts)
    answer = wire.post("/runs/multipart", body, headers=headers)
    assert (answer.status_code, answer.json()["accepted"], answer.json()["feedback_accepted"]) == (202, 1, 1)
    assert [each["id"] for each in answer.json()["rejected"]] == [run_id(101)]
    assert wire.post("/feedback", bad).status_code == 422
    change = wire.send("PATCH", f"/feedback/{run_id(102)}", b"{" + fault + b"}")
    assert change.status_code in (200, 422), "what it changes is refused, the rest is passed over"


def test_numbers_too_long_to_be_any_are_refused(wire: Wire) -> None:
    assert wire.get(f"/feedback?offset={'0' * 20}{'9' * 30}").status_code == 422


def test_a_write_whose_look_up_is_too_slow_is_to_be_sent_again(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> None:
        raise ReadTooSlow

    monkeypatch.setattr(wire.services.reader, "find_spans", slow)
    update = {"id": run_id(1), "outputs": {"a": 1}}
    feedback = {"id": run_id(101), "run_id": run_id(1), "key": "k"}
    for path, body in (("/runs/batch", {"patch": [update]}), ("/feedback", feedback)):
        answer = wire.post(path, body)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), "clients drop what gets a 400"
