"""Named points where a test may stop, break or slow the running process.

Product code calls `fault("deletion.after_hide")` at the places where a crash would hurt most. Nothing happens unless
the environment says so when the process starts:

    CLEARSPAN_FAULT=point:n:action[,point:n:action…]

`n` is the visit that fires, counted from 1 (0: every visit). Actions: `kill` (SIGKILL to this process), `raise`
(`FaultInjected`), `delay` (half a second), `crash` (`Crash`, which no handler of errors catches: the nearest thing
to a kill inside one process). Child processes inherit the setting. When off, a call costs one look at
a module variable.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

VARIABLE = "CLEARSPAN_FAULT"
ACTIONS = frozenset({"kill", "raise", "delay", "crash"})
DELAY_S = 0.5


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


def _act(spec: FaultSpec) -> None:
    if spec.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif spec.action == "raise":
        raise FaultInjected(spec.point)
    elif spec.action == "crash":
        raise Crash(spec.point)
    else:
        time.sleep(DELAY_S)


_armed: _Armed | None = _Armed(parse_faults(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else None


def fault(point: str) -> None:
    """A place where this process may be made to die, fail or wait. Does nothing unless armed for `point`."""
    if _armed is not None:
        _armed.visit(point)


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm this process for the length of a `with` block; for tests that need no second process."""
    global _armed
    before, _armed = _armed, _Armed(parse_faults(text))
    try:
        yield
    finally:
        _armed = before
