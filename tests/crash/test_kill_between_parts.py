"""A run comes as a create and an update; whatever is killed between or during the two, neither is lost."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from .live import Live, start

POINTS = ("writer.before_commit", "writer.after_commit", "writer.after_answer")


def messages(run_id: str) -> dict[str, dict[str, Any]]:
    """The two messages about one run, each enough to place it."""
    common = {
        "id": run_id,
        "trace_id": run_id,
        "dotted_order": f"20261121T223332433523Z{run_id}",
        "name": "outer",
        "run_type": "chain",
        "start_time": "2026-11-21T22:33:32.433523+00:00",
        "session_name": "p",
    }
    return {
        "post": {**common, "inputs": {"q": "asked"}, "outputs": {}, "events": []},
        "patch": {**common, "outputs": {"a": "answered"}, "end_time": "2026-11-21T22:33:33.433523+00:00"},
    }


def send(live: Live, which: str, message: dict[str, Any]) -> bool:
    """Whether it was acknowledged."""
    try:
        with live.client() as client:
            return client.post("/runs/batch", json={which: [message]}).status_code == 202
    except httpx.HTTPError:
        return False


def read(live: Live, run_id: str) -> str:
    with live.client() as client:
        answer = client.get(f"/api/traces/{run_id.replace('-', '')}/")
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.mark.parametrize("order", [pytest.param(("post", "patch"), marks=pytest.mark.long), ("patch", "post")])
def test_a_kill_between_create_and_update_loses_neither(tmp_path: Path, order: tuple[str, str]) -> None:
    run_id = str(uuid.uuid4())
    for which in order:
        live = start(tmp_path / "data")
        try:
            assert send(live, which, messages(run_id)[which])
        finally:
            live.kill()
    live = start(tmp_path / "data")
    try:
        text = read(live, run_id)
        assert "asked" in text
        assert "answered" in text
    finally:
        live.end()


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_during_the_update_keeps_the_create_and_takes_the_resend(tmp_path: Path, point: str) -> None:
    run_id = str(uuid.uuid4())
    live = start(tmp_path / "data", faults=tmp_path / "faults")
    try:
        assert send(live, "post", messages(run_id)["post"])
        live.arm(point, "kill")
        deadline = time.monotonic() + 60
        while not send(live, "patch", messages(run_id)["patch"]):
            assert "asked" in read(live, run_id)
            assert time.monotonic() < deadline, "the update was never taken"
            time.sleep(0.2)
        text = read(live, run_id)
        assert "asked" in text
        assert "answered" in text
    finally:
        live.end()
