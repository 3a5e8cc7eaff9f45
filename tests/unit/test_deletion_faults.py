"""Fault points: off unless asked for, and exactly where and when asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clearspan import faults

SRC = str(Path(faults.__file__).resolve().parent.parent)


def run_with(setting: str | None) -> subprocess.CompletedProcess[str]:
    code = "from clearspan.faults import fault\nfor n in range(3): fault('a.b'); print(n, flush=True)"
    env = {**os.environ, "PYTHONPATH": SRC}
    env.pop(faults.VARIABLE, None)
    if setting is not None:
        env[faults.VARIABLE] = setting
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_nothing_happens_unless_asked() -> None:
    assert run_with(None).stdout == "0\n1\n2\n"
    assert run_with("").stdout == "0\n1\n2\n"
    assert run_with("other.point:1:kill").returncode == 0


def test_the_nth_visit_kills() -> None:
    ended = run_with("a.b:3:kill")
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "0\n1\n")


@pytest.mark.parametrize("text", ["a.b", "a.b:1", "a.b:1:explode", "a.b:-1:kill", "a.b:x:kill", "a:1:kill:2"])
def test_a_misspelt_fault_stops_the_start(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        faults.parse_faults(text)


def test_armed_only_inside_the_block() -> None:
    with faults.armed("x:2:raise,y:0:crash"):
        faults.fault("x")
        with pytest.raises(faults.FaultInjected):
            faults.fault("x")
        faults.fault("x")
        for _ in range(2):
            with pytest.raises(faults.Crash):
                faults.fault("y")
    faults.fault("y")


def test_points_are_armed_and_released_while_the_process_runs(tmp_path: Path) -> None:
    with faults.armed(f"@{tmp_path}"):
        faults.fault("p")
        (tmp_path / "p").write_text("2:raise")
        faults.fault("p")
        with pytest.raises(faults.FaultInjected):
            faults.fault("p")
        assert (tmp_path / "p.fired").exists()
        faults.fault("p")  # fires once
        (tmp_path / "q").write_text("1:pause")
        paused = threading.Thread(target=faults.fault, args=("q",))
        paused.start()
        give_up_at = time.monotonic() + 10
        while not (tmp_path / "q.fired").exists():
            assert time.monotonic() < give_up_at
        assert paused.is_alive()
        (tmp_path / "q.fired").unlink()
        paused.join(10)
        assert not paused.is_alive()
