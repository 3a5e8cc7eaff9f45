"""A live server, as a user starts it, and a canned model server for clients that trace calls to one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
SRC = HERE.parent.parent / "src"
KEY = "key-of-the-client-tests"
PROGRAM_S = 120
READY_S = 60


class Live(NamedTuple):
    """A server process that answers."""

    url: str
    process: subprocess.Popen[str]
    http: httpx.Client

    def traces(self, **filters: Any) -> list[dict[str, Any]]:
        """Every trace of the last day that matches."""
        answer = self.http.post(
            "/api/traces/list/", params={"start_time": "2020-01-01", "page_size": 1000}, json={"filters": filters}
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["results"]
        return found

    def trace(self, trace_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/traces/{trace_id}/").json()
        return found


def start_server(data: Path, *options: str, **environment: str) -> Live:
    """`clearspan serve` on a free port; returns when it is ready."""
    command = [sys.executable, "-m", "clearspan.cli.main", "serve", "--port", "0", "--data", str(data), "--json"]
    with (data.parent / f"{data.name}.log").open("a") as log:
        process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, "PYTHONPATH": str(SRC), "CLEARSPAN_API_KEY": KEY, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    http = httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=READY_S,
        transport=httpx.HTTPTransport(retries=10),
    )
    assert http.get("/readyz").status_code == 200
    return Live(url, process, http)


def stop_server(live: Live) -> None:
    """SIGTERM; it must end by itself and without an error."""
    live.http.close()
    live.process.terminate()
    assert live.process.wait(READY_S) == 0
    assert live.process.stdout is not None
    live.process.stdout.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """A server with nothing in it."""
    server = start_server(tmp_path / "data")
    try:
        yield server
    finally:
        stop_server(server)


@pytest.fixture(scope="module")
def shared_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server for the tests of one module that look at their own traces only."""
    server = start_server(tmp_path_factory.mktemp("shared") / "data")
    try:
        yield server
    finally:
        stop_server(server)


def run_program(python: Path, name: str, **environment: str) -> dict[str, Any]:
    """A client program in its own environment; what it printed last, as JSON."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    done = subprocess.run(
        [python, str(PROGRAMS / name)],
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return printed


class _Model(BaseHTTPRequestHandler):
    """Answers every chat completion with the same words and counts."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(
            {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "21 degrees"}}
                ],
                "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not a word."""


@pytest.fixture
def model_url() -> Iterator[str]:
    """Base URL of a stand-in for the OpenAI API."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()
