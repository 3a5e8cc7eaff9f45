"""One deletion of 100,000 traces by filter, beside readers and a trickle of ingest.

What the caller waits for (hidden), what the auditor waits for (verified), what everybody else feels meanwhile: the
p95 of a list page against its idle p95, the longest acknowledgement of a single span (a stall of the writer shows
there), and the memory that the deletion took.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench import phases
from bench.client import Connection, render_json
from bench.generate import Body, customer_name
from bench.load import drive
from bench.phases import Run, WrongAnswer
from bench.report import timing, value
from bench.server import Watch, usage

SIZE = 100_000
STALL_OFFSET = 1 << 22
"""Single spans of this phase lie behind those of every other."""
GIVE_UP_S = 900.0
IDLE_S = 5.0


def large_delete(run: Run) -> None:
    """Delete SIZE traces, or half of a smaller store, and print the budgets of design.md section 6."""
    chosen, names = _customers(run, min(SIZE, (run.plan.traces - len(run.deleted)) // 2))
    if not chosen:
        return
    spans = sum(run.generator.span_count(index) for index in chosen)
    label = f"{len(chosen):,} traces by filter"
    idle = _beside(run, lambda: time.sleep(IDLE_S), STALL_OFFSET)
    memory_before = usage(run.server.pid).rss_mib
    with Watch(run.server.pid) as watch:
        busy = _beside(run, lambda: _delete(run, names), STALL_OFFSET + 100_000)
    run.deleted.update(chosen)
    preview_s, hidden_s, verified_s, matched = busy.outcome
    if matched > len(chosen):
        raise WrongAnswer(f"{matched:,} traces matched, {len(chosen):,} were sent and not deleted")
    run.add(value("delete", f"{label}: previewed", "ms", preview_s * 1e3, None, note=f"{matched:,} matched"))
    run.add(value("delete", f"{label}: hidden", "ms", hidden_s * 1e3, 1_000, note=f"{spans:,} spans"))
    run.add(value("delete", f"{label}: purged and verified", "s", verified_s, 60))
    idle_p95 = float(np.percentile(idle.lists_ms, 95))
    run.add(timing("delete", f"{label}: list beside it", busy.lists_ms, 2 * idle_p95, f"idle p95 {idle_p95:.1f} ms"))
    note = (
        f"p95 {np.percentile(busy.acks_ms, 95):.1f} ms of {len(busy.acks_ms):,}; idle longest {max(idle.acks_ms):.0f}"
    )
    run.add(value("delete", f"{label}: longest ack of one span beside it", "ms", max(busy.acks_ms), 100, note=note))
    extra = watch.peak_rss_mib - memory_before
    run.add(value("delete", f"{label}: extra memory, RSS of all processes", "MiB", extra, 256))


Outcome = tuple[float, float, float, int]
"""Seconds to the preview's answer, to hidden and to verified; how many traces it were."""


class Beside:
    """What readers and single spans saw while something ran, and that something's outcome."""

    def __init__(self, outcome: Outcome, lists_ms: list[float], acks_ms: list[float]) -> None:
        self.outcome, self.lists_ms, self.acks_ms = outcome, lists_ms, acks_ms


def _beside(run: Run, work: Callable[[], Outcome | None], offset: int) -> Beside:
    """Run `work` while one connection reads list pages and another sends one span at a time, each without a pause."""
    over = threading.Event()

    def read() -> list[float]:
        connection = Connection(run.server.address)
        request = phases.list_request(run, {})
        times: list[float] = []
        while not over.is_set():
            began = time.perf_counter()
            if connection.send(request).status != 200:
                raise WrongAnswer("a list page was refused beside the deletion")
            times.append((time.perf_counter() - began) * 1e3)
            over.wait(0.02)  # a reader, not a flood
        connection.close()
        return times

    def bodies() -> Iterator[Body]:
        for body in run.generator.single_span_bodies(run.plan.traces + offset):
            if over.is_set():
                return
            time.sleep(0.005)
            yield body

    def working() -> Outcome | None:
        try:
            return work()
        finally:
            over.set()

    with ThreadPoolExecutor(2) as pool:
        reading, outcome = pool.submit(read), pool.submit(working)
        # In this thread, because the driver handles signals.
        acks = asyncio.run(drive(run.server.address, bodies(), clients=1)).ack_ms
        run.extra += len(acks)
        return Beside(outcome.result() or (0.0, 0.0, 0.0, 0), reading.result(), acks)


def _delete(run: Run, names: list[str]) -> Outcome:
    """Preview and delete by filter through the native API, as a careful client would."""
    connection = Connection(run.server.address)
    body: dict[str, object] = {
        "filters": {"customer_identifier": {"operator": "IN", "value": names}},
        "start_time": phases.window(run)["start_time"],
        "end_time": phases.iso(phases.END_NS + 1_800 * 10**9),  # without the traces sent beyond the plan
    }
    began = time.perf_counter()
    preview = _post(run, connection, "/v1/deletions/preview", body)
    previewed = time.perf_counter() - began
    body |= {"expected_count": preview["traces"]["matched"], "wait": "hidden"}
    began = time.perf_counter()
    shown = _post(run, connection, "/v1/deletions", body)
    hidden = time.perf_counter() - began
    while shown["state"] not in ("verified", "failed", "cancelled") and time.perf_counter() - began < GIVE_UP_S:
        time.sleep(0.1)
        shown = connection.send(render_json(run.server.address, "GET", f"/v1/deletions/{shown['id']}")).json()
    connection.close()
    if shown["state"] != "verified":
        raise WrongAnswer(f"the deletion ended {shown['state']}: {shown}")
    return previewed, hidden, time.perf_counter() - began, int(shown["traces"]["matched"])


def _post(run: Run, connection: Connection, path: str, body: dict[str, object]) -> dict[str, Any]:
    answer = connection.send(render_json(run.server.address, "POST", path, body))
    if answer.status not in (200, 201, 202):
        raise WrongAnswer(f"{path} answered {answer.status}: {answer.body[:400]!r}")
    told: dict[str, Any] = answer.json()
    return told


def _customers(run: Run, size: int) -> tuple[list[int], list[str]]:
    """The largest customers whose remaining traces are at most `size` together: (traces, names)."""
    numbers = np.concatenate([chunk.customer for chunk in phases.chunks(run)])[: run.plan.traces]
    names, counts = np.unique(numbers, return_counts=True)
    chosen: list[int] = []
    total = 0
    for place in itertools.islice(np.argsort(-counts, kind="stable").tolist(), 2_000):
        if total + int(counts[place]) <= size:
            chosen.append(int(names[place]))
            total += int(counts[place])
    indexes = np.flatnonzero(np.isin(numbers, chosen)).tolist()
    return [index for index in indexes if index not in run.deleted], [customer_name(number) for number in chosen]
