"""Named points where a test may stop, break or slow the running process.

Product code calls `fault("deletion.after_hide")` at the places where a crash would hurt most. Nothing happens unless
the environment says so when the process starts:

    CLEARSPAN_FAULT=point:n:action[,point:n:action…]
    CLEARSPAN_FAULT=@directory

`n` is the visit that fires, counted from 1 (0: every visit). Actions: `kill` (SIGKILL to this process), `kill_all`
(SIGKILL to its process group at once: server and writer die as with a machine), `raise` (`FaultInjected`), `delay`
(half a second), `crash` (`Crash`, which no handler of errors catches: the nearest thing to a kill inside one process),
`pause` (with a directory only). Child processes inherit the setting. When off, a call costs one look at a module
variable.

With a directory a test arms points while the processes run: the file `directory/<point>` holds `n:action`, visits are
counted per process from its appearance on. The file is renamed to `<point>.fired` before the action, so that it fires
once, in one process, and the test knows; `pause` then lasts until the test removes that file.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

VARIABLE = "CLEARSPAN_FAULT"
ACTIONS = frozenset({"kill", "kill_all", "raise", "delay", "crash"})
DELAY_S = 0.5
PAUSE_S_MAX = 120.0
FIRED = ".fired"


class FaultInjected(RuntimeError):
    """Raised by a fault point on purpose. Not a ClearspanError: no code may expect it."""


class Crash(BaseException):
    """Raised by a fault point to unwind everything, as if the process had died there."""


class FaultSpec(NamedTuple):
    """One armed point."""

    point: str
    visit: int  # 1: the first visit fires; 0: every visit
    action: str


def parse_faults(text: str) -> tuple[FaultSpec, ...]:
    """`a.b:1:kill,c.d:0:delay` → its specs. Raises ValueError on anything else: a misspelt fault tests nothing."""
    specs = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        point, visit, action = part.split(":")
        if action not in ACTIONS or int(visit) < 0:
            raise ValueError(f"not a fault: {part!r}")
        specs.append(FaultSpec(point, int(visit), action))
    return tuple(specs)


class _Armed:
    """The armed points and how often each was visited."""

    def __init__(self, specs: tuple[FaultSpec, ...]) -> None:
        self._specs = specs
        self._visits: dict[str, int] = {}
        self._lock = threading.Lock()

    def visit(self, point: str) -> None:
        with self._lock:
            count = self._visits[point] = self._visits.get(point, 0) + 1
        for spec in self._specs:
            if spec.point == point and spec.visit in (0, count):
                _act(spec)


class _Directory:
    """Points that a test arms and releases through files, while this process runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._visits: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def visit(self, point: str) -> None:
        path = self._folder / point
        try:
            text, number = path.read_text(), path.stat().st_mtime_ns
        except OSError:
            return
        wanted, action = text.split(":")
        with self._lock:
            count = self._visits[point, number] = self._visits.get((point, number), 0) + 1
        if int(wanted) not in (0, count):
            return
        fired = path.with_name(point + FIRED)
        try:
            path.rename(fired)
        except OSError:
            return  # another process was first
        if action == "pause":
            _wait_until_gone(fired)
        else:
            _act(FaultSpec(point, count, action))


def _wait_until_gone(path: Path) -> None:
    give_up_at = time.monotonic() + PAUSE_S_MAX
    while path.exists():
        if time.monotonic() > give_up_at:
            raise FaultInjected(f"nobody released {path.name}")
        time.sleep(0.002)


def _act(spec: FaultSpec) -> None:
    if spec.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif spec.action == "kill_all":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    elif spec.action == "raise":
        raise FaultInjected(spec.point)
    elif spec.action == "crash":
        raise Crash(spec.point)
    else:
        time.sleep(DELAY_S)


def _from_environment(text: str | None) -> _Armed | _Directory | None:
    if not text:
        return None
    return _Directory(Path(text[1:])) if text.startswith("@") else _Armed(parse_faults(text))


_armed: _Armed | _Directory | None = _from_environment(os.environ.get(VARIABLE))


def fault(point: str) -> None:
    """A place where this process may be made to die, fail or wait. Does nothing unless armed for `point`."""
    if _armed is not None:
        _armed.visit(point)


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm this process for the length of a `with` block; for tests that need no second process."""
    global _armed
    before, _armed = _armed, _from_environment(text)
    try:
        yield
    finally:
        _armed = before
