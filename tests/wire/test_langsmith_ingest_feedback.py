"""Feedback that comes as parts of a body of runs."""

from __future__ import annotations

from typing import Any

from langsmith_requests import multipart, run, run_id

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
