"""The promises, the faults they are tried with, and the table that a test run makes of its own counts.

Tests count runs and violations with the fixture `promise` or the mark of that name (tests/conftest.py). This module
holds the words and the sums; it knows nothing of pytest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

PROMISES: Final = {
    "P1": "what a 2xx acknowledged is there after kill -9",
    "P2": "sent again, or in another order: the same trace",
    "P3": "a deletion takes what its preview named, or nothing",
    "P4": "hidden: no interface shows it; purged: no byte is left",
    "P5": "an accepted deletion ends, and says how",
    "P6": "nothing else is deleted, every count is exact",
    "P7": "late spans bring nothing back, and are counted",
    "P8": "the ledger only grows; a receipt is checked offline",
    "P9": "a tenant neither sees nor harms another",
    "P10": "bad input costs little and stops nobody else",
}

FAULTS: Final = {
    "F1": "kill -9 while ingesting",
    "F2": "kill -9 at every point of a deletion",
    "F5": "full disk",
    "F7": "changed log or receipt",
    "F9": "batches sent again",
    "F10": "spans out of order",
    "F11": "deletion races ingest",
    "F12": "deletions and holds that overlap",
    "F13": "random filters",
    "F14": "hostile input",
    "F21": "restarts during a large deletion",
    "F24": "every read asked, every byte scanned",
    "F25": "a reader that keeps an old snapshot",
    "F26": "receipts checked by another process",
    "F31": "ingest between preview and execution",
    "F32": "tokens replayed, expired, foreign, altered",
    "F33": "cancelled at each state",
    "T1": "every route with every kind of key",
    "T2": "two tenants with the same ids",
}
"""F1 to F30 are numbered as in the project's test plan; F31 and up were added since."""

EXPECTED: Final = {
    "P1": ("F1",),
    "P2": ("F9", "F10"),
    "P3": ("F13", "F31", "F32"),
    "P4": ("F2", "F11", "F12", "F24", "F25"),
    "P5": ("F2", "F5", "F12", "F21", "F33"),
    "P6": ("F2", "F11", "F12", "F13", "F21", "F33"),
    "P7": ("F2", "F11"),
    "P8": ("F2", "F7", "F26"),
    "P9": ("T1", "T2", "F32"),
    "P10": ("F14",),
}
"""The rows of the table: every one is shown, tested or not."""

NOT_TESTED: Final = "not tested"


@dataclass
class Tally:
    """Runs and violations of one promise under one fault."""

    promise: str
    fault: str
    runs: int = 0
    violations: int = 0
    last_seed: str | None = None  # of the last failure

    def add(self, other: Tally) -> None:
        self.runs += other.runs
        self.violations += other.violations
        self.last_seed = other.last_seed or self.last_seed


class Counter:
    """Counts runs for several promises and faults at once; what the fixture hands to a test."""

    def __init__(self, promises: str, faults: str) -> None:
        """
        Args:
            promises: "P4" or "P4 P6", each of which the runs show.
            faults: likewise. Pairs that the table does not expect are left out; one that pairs with nothing is an
                error, as its runs would be lost.
        """
        pairs = [(p, f) for p in promises.split() for f in faults.split() if f in EXPECTED[p]]
        lost = {*promises.split(), *faults.split()} - {name for pair in pairs for name in pair}
        if lost:
            raise ValueError(f"not in the table of promises: {sorted(lost)}")
        self.tallies = [Tally(p, f) for p, f in pairs]

    def count(self, runs: int = 1, *, violations: int = 0, seed: object = None) -> None:
        """So many runs, and how many of them broke the promise."""
        for tally in self.tallies:
            tally.add(Tally(tally.promise, tally.fault, runs, violations, None if seed is None else str(seed)))

    @contextmanager
    def run(self, seed: object = None, *, runs: int = 1) -> Iterator[None]:
        """One run; whatever is raised inside is a violation, and goes on."""
        try:
            yield
        except BaseException:
            self.count(runs, violations=1, seed="-" if seed is None else seed)
            raise
        self.count(runs)

    @property
    def has_violations(self) -> bool:
        return any(tally.violations for tally in self.tallies)


def dump(tallies: Iterable[Tally]) -> str:
    """Counts as text, for the way from a worker to the process that prints."""
    return json.dumps([asdict(tally) for tally in tallies])


def load(text: str) -> list[Tally]:
    return [Tally(**each) for each in json.loads(text)]


class Table:
    """The sums of a whole run."""

    def __init__(self) -> None:
        self._rows = {(p, f): Tally(p, f) for p, faults in EXPECTED.items() for f in faults}

    def add(self, tallies: Iterable[Tally]) -> None:
        for tally in tallies:
            self._rows[tally.promise, tally.fault].add(tally)

    @property
    def is_empty(self) -> bool:
        return not any(row.runs for row in self._rows.values())

    def lines(self) -> list[str]:
        """The table as text, one line a row."""
        out = [f"{'promise':<58} {'faults':<42} {'runs':>9} {'violations':>10}  seed of the last failure"]
        for promise, text in PROMISES.items():
            head = f"{promise:<4}{text}"
            for fault in EXPECTED[promise]:
                row = self._rows[promise, fault]
                said = (
                    f"{row.runs:>9,} {row.violations:>10,}  {row.last_seed or '-'}" if row.runs else f"{NOT_TESTED:>20}"
                )
                out.append(f"{head:<58} {fault + ' ' + FAULTS[fault]:<42} {said}")
                head = ""
        return out

    def write(self, path: Path) -> None:
        """The same as JSON: {"promises": {id: text}, "faults": {id: text}, "rows": [{promise, fault, runs, …}]}."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) | {"tested": row.runs > 0} for row in self._rows.values()]
        path.write_text(json.dumps({"promises": PROMISES, "faults": FAULTS, "rows": rows}, indent=1) + "\n")
