"""A server process as a user starts it, on a free port of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx

SRC = Path(__file__).resolve().parent.parent.parent
LIVE_KEY = "key-of-the-live-tests"
READY_S = 60


class Live(NamedTuple):
    """A server process that answers."""

    url: str
    process: subprocess.Popen[str]
    http: httpx.Client
    grpc: str | None = None  # address of OTLP over gRPC; off unless an option asks for it

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
            env={
                **os.environ,
                "PYTHONPATH": str(SRC),
                "CLEARSPAN_API_KEY": LIVE_KEY,
                "CLEARSPAN_GRPC_PORT": "off",
                "CLEARSPAN_RESERVE_BYTES": "1 MiB",  # a scan of all files reads it, too
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    url = told["url"]
    http = httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {LIVE_KEY}"},
        timeout=READY_S,
        transport=httpx.HTTPTransport(retries=10),
    )
    assert http.get("/readyz").status_code == 200
    return Live(url, process, http, told["grpc"])


def stop_server(live: Live) -> None:
    """SIGTERM; it must end by itself and without an error."""
    live.http.close()
    live.process.terminate()
    assert live.process.wait(READY_S) == 0
    assert live.process.stdout is not None
    live.process.stdout.close()
