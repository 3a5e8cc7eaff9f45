"""The server a drill works on: one of its own, on a directory of its own, or one that runs already."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import httpx

from clearspan.drill.needles import Needle, Wanted
from clearspan.model.errors import ClearspanError

START_S = 60.0
STOP_S = 60.0
ANSWER_TIMEOUT_S = 60.0


class DrillFailed(ClearspanError):
    """The drill could not be carried out."""

    code = "drill_failed"


class Unreachable(DrillFailed):
    """No server answers there."""

    code = "unreachable"


class Target(NamedTuple):
    """Where the drill plants and looks."""

    url: str
    key: str
    data: Path
    logs: tuple[Path, ...] = ()  # files outside the data directory that the server writes


class OwnServer:
    """A server process of the drill's own, in a fresh data directory."""

    def __init__(self, folder: Path) -> None:
        """Start it and wait until it is ready. Raises DrillFailed."""
        self.data, self.log = folder / "data", folder / "server.log"
        key = "drill-" + secrets.token_hex(16)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CLEARSPAN_")}
        command = [sys.executable, "-m", "clearspan", "serve", "--json", "--port", "0", "--grpc-port", "off"]
        command += ["--data", str(self.data)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environ | {"CLEARSPAN_API_KEY": key}, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        timer = threading.Timer(START_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()  # empty when the process has ended
        timer.cancel()
        if not line:
            self.stop()
            raise DrillFailed(f"The server of the drill did not start: {self.log.read_text()[-500:]}")
        self.target = Target(json.loads(line)["url"], key, self.data, (self.log,))

    def stop(self) -> int:
        """End it by its process id, as an operator does, and wait; its exit code. Safe to repeat."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()


@contextmanager
def connect(target: Target) -> Iterator[Api]:
    """The server's API as the drill needs it."""
    headers = {"Authorization": f"Bearer {target.key}"}
    with httpx.Client(base_url=target.url, headers=headers, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http:
        yield Api(http)


class Api:
    """Calls that either answer or end the drill with a sentence."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def request(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Any answer, whatever its status. Raises Unreachable."""
        try:
            return self._http.request(method, path, **rest)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._http.base_url} does not answer: {error}.") from error

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a success. Raises DrillFailed with what the server said."""
        answer = self.request(method, path, json=body)
        if not answer.is_success:
            refuse(f"{method} {path}", answer)
        return answer.json()


def refuse(what: str, answer: httpx.Response) -> NoReturn:
    """Raises DrillFailed."""
    raise DrillFailed(f"{what} was answered {answer.status_code}: {answer.text[:300]}")


def send_witness(order: dict[str, Any]) -> dict[str, Any]:
    """Run the witness as a process of its own and return what it found. Raises DrillFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "clearspan.drill.look"], input=json.dumps(order), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise DrillFailed(f"The process that looks for needles failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wanted(needles: dict[str, Wanted]) -> dict[str, Any]:
    """Needles by kind, as an order for the witness holds them."""
    return {kind: each.dump() for kind, each in needles.items()}


def texts(needles: list[Needle]) -> list[tuple[str, str]]:
    """(field, text) of one needle for each field and form, to ask the read interfaces for."""
    chosen = {(needle.field, needle.form): needle.text for needle in needles if needle.form != "bytes"}
    return [(field, text) for (field, _), text in chosen.items()]
