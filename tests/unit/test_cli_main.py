"""The command line as a whole, `fsck` and `demo`; keys and projects have tests of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import clearspan
from clearspan.catalog.fsck import CatalogReport
from clearspan.cli import fsck as fsck_command
from clearspan.cli.main import COMMANDS, build
from clearspan.store.sqlite.fsck import Report, Violation

DISCARD_URL = "http://127.0.0.1:9"  # a port nobody listens on
SOUND = Report(traces=2, spans=7, blocks=3, violations=[])
DAMAGED = SOUND._replace(violations=[Violation("blocks can be read", 1, "trace_pk 2")])


def run(*words: str) -> tuple[int, str, str]:
    """(status, stdout, stderr) of a command in this process."""
    result = CliRunner().invoke(build(words[0]), list(words))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "traces.db").touch()
    return tmp_path


def test_help_names_every_command_and_loads_none() -> None:
    script = (
        "import sys; from clearspan.cli.main import build; build(None)(['--help'], standalone_mode=False);"
        "sys.exit(any(name.startswith(('clearspan.api', 'clearspan.store')) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_version() -> None:
    assert run("--version")[:2] == (0, f"clearspan {clearspan.__version__}\n")


@pytest.mark.parametrize(
    ("report", "catalog", "broken"),
    [
        (SOUND, CatalogReport(4, []), []),
        (DAMAGED, CatalogReport(4, []), ["blocks can be read"]),
        (
            SOUND,
            CatalogReport(4, [Violation("every trace belongs to a project", 3)]),
            ["every trace belongs to a project"],
        ),
    ],
)
def test_fsck_tells_what_it_found(
    data: Path, monkeypatch: pytest.MonkeyPatch, report: Report, catalog: CatalogReport, broken: list[str]
) -> None:
    monkeypatch.setattr(fsck_command, "check", lambda folder, pages: report)
    monkeypatch.setattr(fsck_command, "check_catalog", lambda folder, pages: catalog)
    code, out, _ = run("fsck", "--data", str(data), "--json")
    assert code == bool(broken)
    told = json.loads(out)
    assert (told["ok"], told["traces"], told["ledger_entries"]) == (not broken, 2, 4)
    assert [each["invariant"] for each in told["violations"]] == broken
    code, out, _ = run("fsck", "--data", str(data))
    assert code == bool(broken)
    assert "2 traces, 7 spans" in out
    assert ("Every invariant holds." in out) is (not broken)
    assert all(invariant in out for invariant in broken)


def test_fsck_of_no_store_or_another_file_is_status_2(tmp_path: Path, data: Path) -> None:
    code, out, err = run("fsck", "--data", str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert "no traces.db" in err
    (data / "traces.db").write_bytes(b"not a database" * 100)
    assert run("fsck", "--data", str(data))[0] == 2


def test_demo_without_a_server_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearspan.demo.show.READY_WAIT_S", 0.0)
    code, out, err = run("demo", "load", "--url", DISCARD_URL, "--data", str(tmp_path), "--json")
    assert (code, out) == (1, "")
    assert "/readyz did not answer" in err
    assert list(tmp_path.iterdir()) == []
