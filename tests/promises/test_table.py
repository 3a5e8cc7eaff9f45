"""The table itself: counts reach it over workers, failures become violations, and what never ran is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promises.table import EXPECTED, FAULTS, NOT_TESTED, PROMISES, Counter, Table, dump, load

TESTS = Path(__file__).resolve().parent.parent

SAMPLE = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_runs(promise, number):
    counter = promise("P4 P6", "F11")
    with counter.run(number):
        pass

def test_breaks(promise):
    counter = promise("P5", "F2")
    with counter.run(1):
        pass
    with counter.run("seed-7"):
        assert False

def test_fails_outside(promise):
    promise("P8", "F26")
    assert False

@pytest.mark.promise("P2", "F9 F10", runs=80)
def test_marked():
    pass
"""


def run_pytest(folder: Path, *options: str) -> tuple[str, dict[tuple[str, str], dict[str, object]]]:
    """A run of its own over SAMPLE with this repository's plugin; its output and its JSON by (promise, fault)."""
    (folder / "test_sample.py").write_text(SAMPLE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "promises.plugin"]
    done = subprocess.run(
        [*command, "--promises", "out.json", *options, "."],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    rows = json.loads((folder / "out.json").read_text())["rows"]
    return done.stdout, {(row["promise"], row["fault"]): row for row in rows}


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_counts_reach_the_table(tmp_path: Path, options: tuple[str, ...]) -> None:
    output, rows = run_pytest(tmp_path, *options)
    said = {key: (row["runs"], row["violations"], row["last_seed"]) for key, row in rows.items() if row["tested"]}
    assert said == {
        ("P4", "F11"): (4, 0, None),
        ("P6", "F11"): (4, 0, None),
        ("P5", "F2"): (2, 1, "seed-7"),
        ("P8", "F26"): (1, 1, "-"),
        ("P2", "F9"): (80, 0, None),
        ("P2", "F10"): (80, 0, None),
    }
    assert "seed-7" in output
    assert output.count(NOT_TESTED) == len(rows) - len(said)


def test_every_promise_and_every_fault_has_a_row() -> None:
    assert set(EXPECTED) == set(PROMISES)
    assert {fault for faults in EXPECTED.values() for fault in faults} == set(FAULTS)
    assert all(faults for faults in EXPECTED.values())
    assert len(Table().lines()) == 1 + sum(map(len, EXPECTED.values()))


def test_runs_that_no_row_would_show_are_refused() -> None:
    for promises, faults in (("P1", "F2"), ("P4 P1", "F11"), ("P4", "F11 F1")):
        with pytest.raises(ValueError, match="not in the table"):
            Counter(promises, faults)


def test_counts_survive_the_way_between_processes() -> None:
    counter = Counter("P4", "F24")
    counter.count(7, violations=2, seed=5)
    assert load(dump(counter.tallies)) == counter.tallies
