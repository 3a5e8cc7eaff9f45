"""A real server as a child process, to be killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from .forking import Forked

KEY = "crash-test-key-0123456789"
START_S = 60.0
END_S = 60.0


@dataclass
class Live:
    """One running server."""

    process: Forked
    url: str
    started_s: float
    faults: Path | None = None  # where points are armed while it runs; see clearspan/faults.py
    grpc: str | None = None  # address of OTLP over gRPC; off unless a setting asks for it

    def arm(self, point: str, action: str, visit: int = 1) -> None:
        """Let the next, or the `visit`-th, arrival at a point from now on do something."""
        assert self.faults is not None
        making = self.faults / "making"
        making.write_text(f"{visit}:{action}")
        making.rename(self.faults / point)

    def disarm(self) -> None:
        """No point does anything any more; what is paused goes on."""
        assert self.faults is not None
        for path in self.faults.iterdir():
            path.unlink()

    def is_armed(self, point: str) -> bool:
        assert self.faults is not None
        return (self.faults / point).exists()

    def has_fired(self, point: str) -> bool:
        assert self.faults is not None
        return (self.faults / f"{point}.fired").exists()

    def wait_fired(self, point: str) -> None:
        """Until an armed point was reached: a server that pauses there then stands still."""
        wait_for(lambda: self.has_fired(point), f"{point} is reached")

    def release(self, point: str) -> None:
        """Let a paused point go on."""
        assert self.faults is not None
        (self.faults / f"{point}.fired").unlink()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)

    def kill(self) -> None:
        """SIGKILL to the server and its writer at once, as a machine that dies takes both."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(END_S)

    def kill_server_only(self) -> None:
        """SIGKILL to the server; its writer sees the socket close and ends by itself."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(END_S)

    def end(self) -> None:
        """For the end of a test: gone, however far it came."""
        if self.process.poll() is None:
            self.kill()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(END_S)


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = START_S) -> None:
    """Look until it is so; AssertionError when it is not in time."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.01)


def start(data: Path, *, fault: str | None = None, faults: Path | None = None, **settings: str) -> Live:
    """Start a server on a free port and wait until it is ready.

    Args:
        fault: points armed from the start, as CLEARSPAN_FAULT has them.
        faults: instead, a directory through which `Live.arm` arms them later; emptied here.
        settings: environment variables without their prefix.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CLEARSPAN_")}
    environment["CLEARSPAN_API_KEY"] = KEY
    environment["CLEARSPAN_GRPC_PORT"] = "off"  # unless the settings say otherwise
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of many writers compiles everything anew
    environment |= {f"CLEARSPAN_{name.upper()}": value for name, value in settings.items()}
    if faults is not None:
        shutil.rmtree(faults, ignore_errors=True)
        faults.mkdir()
        fault = f"@{faults}"
    if fault:
        environment["CLEARSPAN_FAULT"] = fault
    began = time.monotonic()
    told_in = data.parent / f"{data.name}.told"
    told_in.unlink(missing_ok=True)
    process = Forked(
        ["serve", "--json", "--port", "0", "--data", str(data)],
        environment,
        told_in,
        data.parent / f"{data.name}.log",
    )

    def is_told() -> bool:
        assert process.poll() is None, f"the server did not start, exit code {process.poll()}"
        return told_in.exists() and told_in.read_text().endswith("\n")

    wait_for(is_told, "the server tells its address")
    told = json.loads(told_in.read_text())
    live = Live(process, told["url"], 0.0, faults, told["grpc"])
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
