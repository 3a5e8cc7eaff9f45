"""Rows, verdicts, the table and the JSON file; and what machine it was."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure beside its budget."""

    phase: str
    name: str
    unit: str
    budget: float | None  # None: no budget was set, the figure is for information
    at_least: bool  # the budget is a floor (a rate), not a ceiling (a time, a size)
    judged: float  # the figure that the budget is about: p95 of times, else the value
    median: float | None = None
    samples: int = 1
    note: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` with the factor, or nothing where no budget was set."""
        if self.budget is None:
            return ""
        met = self.judged >= self.budget if self.at_least else self.judged <= self.budget
        if met:
            return "met"
        worse, better = (self.budget, self.judged) if self.at_least else (self.judged, self.budget)
        return f"MISSED {worse / better:.1f}×" if better else "MISSED"


def timing(phase: str, name: str, times_ms: Sequence[float], budget_ms: float | None, note: str = "") -> Row:
    """A row of times: median, and p95 against the budget."""
    median, p95 = (float(value) for value in np.percentile(times_ms, (50, 95)))
    return Row(phase, name, "ms", budget_ms, False, p95, median, len(times_ms), note)


def value(
    phase: str, name: str, unit: str, figure: float, budget: float | None, *, at_least: bool = False, note: str = ""
) -> Row:
    """A row of one figure."""
    return Row(phase, name, unit, budget, at_least, figure, note=note)


def number(figure: float | None) -> str:
    """Three significant digits, thousands apart."""
    if figure is None:
        return ""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.3g}"


def print_table(console: Console, title: str, rows: Sequence[Row]) -> None:
    """The table for people."""
    table = Table(title=title, title_justify="left")
    for heading in ("phase", "what", "unit", "budget", "median", "p95 / value", "n", "verdict", "note"):
        right = heading in ("budget", "median", "p95 / value", "n")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    phase = ""
    for row in rows:
        if row.phase != phase and phase:
            table.add_section()
        bound = "" if row.budget is None else ("≥ " if row.at_least else "≤ ") + number(row.budget)
        style = "red" if row.verdict.startswith("MISSED") else ""
        table.add_row(
            row.phase if row.phase != phase else "", row.name, row.unit, bound, number(row.median),
            number(row.judged), str(row.samples), row.verdict, row.note, style=style,
        )  # fmt: skip
        phase = row.phase
    console.print(table)


def markdown(rows: Sequence[Row]) -> str:
    """The same table for docs/performance.md."""
    lines = ["| what | budget | median | p95 or value | n | verdict |", "|---|---|---|---|---|---|"]
    for row in rows:
        bound = "–" if row.budget is None else ("≥ " if row.at_least else "≤ ") + f"{number(row.budget)} {row.unit}"
        note = f" ({row.note})" if row.note else ""
        lines.append(
            f"| {row.phase}: {row.name}{note} | {bound} | {number(row.median)} | {number(row.judged)} {row.unit} "
            f"| {row.samples} | {row.verdict or '–'} |"
        )
    return "\n".join(lines) + "\n"


def write_json(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Rows with their verdicts, and whatever else is worth keeping."""
    dump(path, {**facts, "rows": [asdict(row) | {"verdict": row.verdict} for row in rows]})


def dump(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, and the directory it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on: processor, kernel, file system, and how long a durable write of 4 KiB takes."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(directory),
        "fdatasync_ms": round(_sync_ms(directory), 3),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """One line for people."""
    return (
        f"{facts['cores']} cores ({facts['cpu']}), {facts['memory_gib']} GiB, {facts['kernel']}, "
        f"{facts['file_system']} (fdatasync {facts['fdatasync_ms']} ms), Python {facts['python']}, "
        f"load before {facts['load_before']}, commit {facts['commit']}"
    )


def command_line(module: str) -> str:
    """The command as it would be typed again."""
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _file_system(directory: Path) -> str:
    """Type of the mount that holds `directory`."""
    found = "unknown"
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return found
    place = directory.resolve()
    for point, kind in sorted(mounts, key=lambda mount: len(mount[0])):
        if place.is_relative_to(point):
            found = kind
    return found


def _sync_ms(directory: Path) -> float:
    """Median time of appending 4 KiB durably."""
    directory.mkdir(parents=True, exist_ok=True)
    times: list[float] = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times))


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
