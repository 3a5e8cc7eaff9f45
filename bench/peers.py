"""The same load against Arize Phoenix (SQLite) and Clearspan, one after the other in one run, and the ratios.

    python -m bench.peers                    20,000 spans: about four minutes, nearly all of it Phoenix's
    python -m bench.peers --spans 2000       smaller

Phoenix runs as a separate process from a virtual environment of its own (.venvs/phoenix, made on first use). It
acknowledges spans before it stores them, so both are timed from the first byte sent until a read shows every span.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import report
from bench.client import Address, Connection, render_json
from bench.generate import DAY_NS, END_NS, Generator, Plan, trace_id
from bench.load import drive
from bench.phases import iso
from bench.server import Server, Watch, directory_bytes, free_port, stop_process, wait_ready

PHOENIX = "arize-phoenix==20.26.1"
ROOT = Path(__file__).parent.parent
SAMPLES = 30
DELETES = 100
RATIO_WANTED = 150


@dataclass
class Figures:
    """What one product reached. Times in ms."""

    product: str
    acked_s: float = 0.0  # all bodies acknowledged
    queryable_s: float = 0.0  # every span shown by a read
    spans_per_s: float = 0.0  # from the first byte sent until then
    list_ms: list[float] = field(default_factory=list)
    filter_ms: list[float] = field(default_factory=list)
    detail_ms: list[float] = field(default_factory=list)
    delete_ms: list[float] = field(default_factory=list)  # one trace by id, one call each
    peak_rss_mib: float = 0.0
    disk_mib: float = 0.0
    sent_mib: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Calls:
    """How a product is asked: rendered requests, and how to read its count of spans."""

    count: Callable[[Connection], int]  # cheap: spans or traces that reads show now
    counts_traces: bool
    list_page: bytes
    filtered_page: bytes
    detail: Callable[[str], bytes]
    delete: Callable[[str], bytes]


def measure(
    product: str, address: Address, pid: int, data: Path, calls: Calls, generator: Generator, console: Console
) -> Figures:
    """Ingest, lists, details and deletes of one product, from an empty store."""
    figures = Figures(product)
    connection = Connection(address)
    plan = generator.plan
    with Watch(pid) as watch:
        began = time.perf_counter()
        result = asyncio.run(drive(address, generator.bodies(), clients=4))
        figures.acked_s = time.perf_counter() - began
        with console.status(f"{product}: waiting until {result.spans:,} spans are queryable") as status:
            expected = result.traces if calls.counts_traces else result.spans
            while (count := calls.count(connection)) < expected:
                status.update(f"{product}: {count:,} of {expected:,} queryable")
                time.sleep(0.2)
        figures.queryable_s = time.perf_counter() - began
    figures.spans_per_s = result.spans / figures.queryable_s
    figures.sent_mib = result.sent_bytes / 2**20
    if result.waits:
        figures.notes.append(f"{result.waits} answers 503")
    if calls.counts_traces:
        _check_details(connection, calls, generator)
    indexes = range(0, plan.traces, max(1, plan.traces // SAMPLES))
    figures.list_ms = _times(connection, [calls.list_page] * (SAMPLES + 3))
    figures.filter_ms = _times(connection, [calls.filtered_page] * (SAMPLES + 3))
    figures.detail_ms = _times(connection, [calls.detail(trace_id(plan, index)) for index in indexes])
    victims = range(1, plan.traces, max(1, plan.traces // DELETES))
    figures.delete_ms = _times(connection, [calls.delete(trace_id(plan, index)) for index in victims], warm_up=0)
    connection.close()
    figures.peak_rss_mib = watch.peak_rss_mib
    figures.disk_mib = sum(directory_bytes(data).values()) / 2**20
    return figures


def _check_details(connection: Connection, calls: Calls, generator: Generator) -> None:
    """Where only traces were counted: their spans are all there too (not timed)."""
    for index in range(0, generator.plan.traces, 7):
        shown = connection.send(calls.detail(trace_id(generator.plan, index))).json()["span_count"]
        if shown != generator.span_count(index):
            raise RuntimeError(f"trace {index} shows {shown} spans, {generator.span_count(index)} were sent")


def _times(connection: Connection, requests: Sequence[bytes], warm_up: int = 3) -> list[float]:
    times: list[float] = []
    for raw in requests:
        began = time.perf_counter()
        response = connection.send(raw)
        times.append((time.perf_counter() - began) * 1e3)
        if response.status not in (200, 204):
            raise RuntimeError(f"{raw[:160]!r} answered {response.status}: {response.body[:300]!r}")
    return times[warm_up:]


def measure_clearspan(generator: Generator, console: Console, work: Path) -> Figures:
    """Clearspan through Respan's API."""
    data = work / "clearspan"
    server = Server(data, work / "clearspan.log")
    server.start()
    address = server.address
    window = urlencode({"start_time": iso(generator.plan.start_ns - DAY_NS), "end_time": iso(END_NS + DAY_NS)})

    def list_request(filters: dict[str, Any], page_size: int = 50) -> bytes:
        path = f"/api/traces/list/?{window}&page_size={page_size}"
        return render_json(address, "POST", path, {"filters": filters} if filters else {})

    calls = Calls(
        count=lambda connection: int(connection.send(list_request({}, 1)).json()["count"]),
        counts_traces=True,
        list_page=list_request({}),
        filtered_page=list_request({"error_count": {"operator": "gt", "value": [0]}}),
        detail=lambda trace: render_json(address, "GET", f"/api/traces/{trace}/"),
        delete=lambda trace: render_json(address, "DELETE", f"/api/traces/{trace}/?{window}"),
    )
    try:
        return measure("Clearspan", address, server.pid, data, calls, generator, console)
    finally:
        server.stop()


def measure_phoenix(generator: Generator, console: Console, work: Path, python: Path) -> Figures:
    """Phoenix through its REST API; the count of spans by its GraphQL, which its own pages use."""
    data, log = work / "phoenix", work / "phoenix.log"
    data.mkdir()
    address = Address("127.0.0.1", free_port())
    settings = {
        "PHOENIX_WORKING_DIR": str(data),
        "PHOENIX_HOST": address.host,
        "PHOENIX_PORT": str(address.port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | settings
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python), "-m", "phoenix.server.main", "serve"], env=environment, stdout=output, stderr=output
        )
    traces = "/v1/projects/default/traces?limit=50&sort=start_time&order=desc"

    def count_spans(connection: Connection) -> int:
        query = {"query": "{projects{edges{node{name recordCount}}}}"}
        edges = connection.call("POST", "/graphql", query).json()["data"]["projects"]["edges"]
        return sum(edge["node"]["recordCount"] for edge in edges)

    calls = Calls(
        count=count_spans,
        counts_traces=False,
        list_page=render_json(address, "GET", traces),
        filtered_page=render_json(address, "GET", f"{traces}&filter={quote('error_count > 0')}"),
        detail=lambda trace: render_json(address, "GET", f"/v1/projects/default/spans?limit=1000&trace_id={trace}"),
        delete=lambda trace: render_json(address, "DELETE", f"/v1/traces/{trace}"),
    )
    try:
        wait_ready(address, "/arize_phoenix_version", process, log)
        return measure("Phoenix", address, process.pid, data, calls, generator, console)
    finally:
        if process.poll() is None:
            stop_process(process)


def phoenix_python(console: Console) -> Path:
    """The interpreter of .venvs/phoenix; made and filled on first use (about 300 packages)."""
    directory = ROOT / ".venvs" / "phoenix"
    python = directory / "bin" / "python"
    stamp = directory / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != PHOENIX:
        with console.status(f"installing {PHOENIX} into {directory.relative_to(ROOT)}"):
            venv.create(directory, clear=True, with_pip=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", PHOENIX], check=True)
        stamp.write_text(PHOENIX, encoding="utf-8")
    return python


def compare(ours: Figures, theirs: Figures) -> Iterator[tuple[str, str, str, str]]:
    """Rows: what, ours, theirs, and how many times better ours is."""

    def times(what: str, mine: list[float], other: list[float]) -> Iterator[tuple[str, str, str, str]]:
        for name, percentile in (("median", 50), ("p95", 95)):
            a, b = float(np.percentile(mine, percentile)), float(np.percentile(other, percentile))
            yield f"{what}, {name}", f"{a:,.1f} ms", f"{b:,.1f} ms", f"{b / a:,.1f}×"

    yield (
        "ingest until queryable", f"{ours.spans_per_s:,.0f} spans/s", f"{theirs.spans_per_s:,.0f} spans/s",
        f"{ours.spans_per_s / theirs.spans_per_s:,.0f}×",
    )  # fmt: skip
    yield "last acknowledgement after", f"{ours.acked_s:.2f} s (durable)", f"{theirs.acked_s:.2f} s (not stored)", ""
    yield from times("list of 50 traces, newest first", ours.list_ms, theirs.list_ms)
    yield from times("the same where error_count > 0", ours.filter_ms, theirs.filter_ms)
    yield from times("spans of one trace", ours.detail_ms, theirs.detail_ms)
    yield from times("delete of one trace", ours.delete_ms, theirs.delete_ms)
    yield (
        "data directory", f"{ours.disk_mib:,.1f} MiB", f"{theirs.disk_mib:,.1f} MiB",
        f"{theirs.disk_mib / ours.disk_mib:,.1f}×",
    )  # fmt: skip
    yield (
        "peak memory, RSS", f"{ours.peak_rss_mib:,.0f} MiB", f"{theirs.peak_rss_mib:,.0f} MiB",
        f"{theirs.peak_rss_mib / ours.peak_rss_mib:,.1f}×",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spans", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phoenix-python", type=Path, help="interpreter that has arize-phoenix installed")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "out" / "peers.json")
    options = parser.parse_args()
    console = Console()
    plan = Plan(traces=options.spans // 10, seed=options.seed, templates=500, big_every=0, giant_spans=0)
    generator = Generator(plan)
    python = options.phoenix_python or phoenix_python(console)
    work = Path(tempfile.mkdtemp(prefix="clearspan-peers-"))
    machine = report.machine(work)
    console.print(report.machine_line(machine))
    try:
        ours = measure_clearspan(generator, console, work)
        console.print(f"Clearspan: {ours.spans_per_s:,.0f} spans/s until queryable")
        theirs = measure_phoenix(generator, console, work, python)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rows = list(compare(ours, theirs))
    table = Table("what", "Clearspan", f"Phoenix ({PHOENIX})", "ratio")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for figures in (ours, theirs):
        for note in figures.notes:
            console.print(f"{figures.product}: {note}")
    ratio = ours.spans_per_s / theirs.spans_per_s
    verdict = "met" if ratio >= RATIO_WANTED else "MISSED"
    console.print(f"wanted: at least {RATIO_WANTED}× from sent to queryable; {ratio:,.0f}×: {verdict}")
    content = {
        "command": report.command_line("bench.peers"), "machine": machine, "table": rows,
        "figures": [asdict(ours), asdict(theirs)],
    }  # fmt: skip
    report.dump(options.json, content)


if __name__ == "__main__":
    main()
