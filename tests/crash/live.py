"""A real server as a child process, to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

KEY = "crash-test-key-0123456789"
START_S = 30.0


@dataclass
class Live:
    """One running server."""

    process: subprocess.Popen[str]
    url: str
    started_s: float

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)

    def kill(self) -> None:
        """SIGKILL to the server and its writer at once, as a machine that dies takes both."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self._reap()

    def kill_server_only(self) -> None:
        """SIGKILL to the server; its writer sees the socket close and ends by itself."""
        os.kill(self.process.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self._reap()

    def _reap(self) -> int:
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(30)


def start(data: Path, *, fault: str | None = None) -> Live:
    """Start a server on a free port and wait until it is ready."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CLEARSPAN_")}
    environment["CLEARSPAN_API_KEY"] = KEY
    if fault:
        environment["CLEARSPAN_FAULT"] = fault
    began = time.monotonic()
    with (data.parent / f"{data.name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "clearspan", "serve", "--json", "--port", "0", "--data", str(data)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the server did not start, exit code {process.wait()}"
    live = Live(process, json.loads(line)["url"], 0.0)
    with live.client() as client:
        while True:
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, "the server ended"
            assert time.monotonic() - began < START_S, "the server is not ready"
            time.sleep(0.02)
    live.started_s = time.monotonic() - began
    return live
