"""A live server, as a user starts it, and a canned model server for clients that trace calls to one."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from venvs import ensure_venv

from clearspan.testing.live import Live, start_server, stop_server

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
PROGRAM_S = 120


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


@pytest.fixture(scope="session")
def run_client() -> Callable[..., dict[str, Any]]:
    """`run_client("langsmith-0.15.0", "run_….py", KEY="value")`: a program in that client's environment."""
    return lambda client, program, **environment: run_program(ensure_venv(client), program, **environment)


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
