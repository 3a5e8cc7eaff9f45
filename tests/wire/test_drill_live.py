"""The drill against a real server: it passes, and it fails when anything of what was deleted is left anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan.drill.report import DrillReport
from clearspan.drill.run import run_drill
from clearspan.drill.server import Target
from clearspan.testing.live import LIVE_KEY, SRC, Live, start_server, stop_server

TRACES = 12
NOT_PLANTED = {"reason", "idempotency key", "filter value"}
"""Needles of the request that deletes: before it they are nowhere."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def live(data: Path) -> Iterator[Live]:
    server = start_server(data, CLEARSPAN_LOG_LEVEL="error")
    yield server
    stop_server(server)


def drill(live: Live, data: Path, *, at: str | None = None, leave: Path | None = None) -> DrillReport:
    """A drill on a running server; at a step, what the data directory holds then is left in a file there."""

    def tell(line: str) -> None:
        if line == at and leave is not None:
            leave.write_bytes(b"".join(path.read_bytes() for path in sorted(data.glob("traces.db*"))))

    return run_drill(Target(live.url, LIVE_KEY, data), data.parent, traces=TRACES, tell=tell)


def failed(report: DrillReport) -> dict[str, str]:
    return {check.name: check.said for check in report.checks if not check.ok}


def test_a_drill_finds_what_is_left_and_nothing_else_fails(live: Live, data: Path) -> None:
    stray = data / "copy-of-yesterday"
    report = drill(live, data, at="Deleting", leave=stray)
    assert not report.ok
    assert list(failed(report)) == [
        "after: no needle is left, nor a piece of one",
        "the neighbours are deleted at the end",
    ], "the copy holds both kinds"
    assert "copy-of-yesterday" in failed(report)["after: no needle is left, nor a piece of one"]
    assert report.deletion["state"] == "verified"
    assert len(report.checks) > 25
    seen = {row["field"]: row["before"]["files"] == row["needles"] for row in report.planted}
    late = {field for field in seen if field.startswith("late: ")}
    assert {field for field, is_seen in seen.items() if not is_seen} == NOT_PLANTED | late
    everything = live.http.post("/api/traces/list/?start_time=2020-01-01", json={}).json()
    assert everything["count"] == 0, "a drill on a running server takes its neighbours with it"


def test_the_command_brings_its_own_server_and_writes_a_report(tmp_path: Path) -> None:
    report = tmp_path / "drill.md"
    command = [sys.executable, "-m", "clearspan", "drill", "--traces", str(TRACES), "--report", str(report), "--json"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLEARSPAN_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    said = json.loads(done.stdout)
    assert said["ok"]
    assert said == json.loads(report.with_name("drill.md.json").read_text())
    assert "Nothing of what was deleted was found." in report.read_text()
    assert said["is_own_server"]
    assert not Path(said["data"]).exists()
    assert subprocess.run(command, capture_output=True, env=environ, cwd=tmp_path).returncode == 2, "never overwritten"


SABOTAGE = {
    "one target is not purged": (
        "from clearspan.store.sqlite import erase\n"
        "erase._CHILDREN['log'] = erase._CHILDREN['log'].replace(' WHERE ', ' WHERE 0 AND ')\n",
        {"the deletion is verified", "after: no needle is left, nor a piece of one"},
    ),
    "freed bytes are not zeroed": (
        "from clearspan.files import vfs\n"
        "vfs.unallocated_gap = lambda page, *, is_first: None\n"
        "connect = vfs._connect\n"
        "def careless(*args, **options):\n"
        "    connection = connect(*args, **options)\n"
        "    connection.execute('PRAGMA secure_delete=OFF').fetchall()\n"
        "    return connection\n"
        "vfs._connect = careless\n",
        {"after: no needle is left, nor a piece of one"},
    ),
}
"""What is broken in the server → checks that must fail."""


@pytest.mark.long
@pytest.mark.parametrize("broken", SABOTAGE)
def test_a_drill_of_a_server_that_erases_badly_fails(broken: str, data: Path) -> None:
    code, expected = SABOTAGE[broken]
    folder = data.parent / "broken"
    folder.mkdir()
    # Every process of the server runs this first, its writer too.
    (folder / "sitecustomize.py").write_text(code)
    server = start_server(data, CLEARSPAN_LOG_LEVEL="error", PYTHONPATH=f"{folder}{os.pathsep}{SRC}")
    try:
        report = drill(server, data)
    finally:
        stop_server(server)
    assert expected <= set(failed(report)), failed(report)
    assert not any(name.startswith("before") for name in failed(report)), "the control must hold"
