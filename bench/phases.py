"""The phases of a run: what is sent, what is asked, and which budget of design.md section 6 it is held to.

Each query runs on warm caches, from this process over loopback, 50 times or for 20 seconds, whichever is shorter (never
fewer than 10 times), with other values each time where the query has values. Answers are checked, not only timed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.client import Connection, Response, render_json
from bench.generate import (
    ABSENT_WORD,
    BIG_CUSTOMER,
    CHUNK,
    CJK_NEEDLE,
    COMMON_WORD,
    DAY_NS,
    END_NS,
    RARE_NEEDLE,
    Body,
    Chunk,
    Generator,
    Plan,
    customer_name,
    trace_id,
)
from bench.load import LoadResult, drive
from bench.report import Row, timing, value
from bench.server import Server, Watch, usage

ROOT = Path(__file__).parent.parent
SAMPLES = 50
SAMPLES_MIN = 10
QUERY_SECONDS_MAX = 20.0
WARM_UP = 3
DELETE_SIZE = 1_000
SINGLE_SPAN_OFFSET = 1 << 20


@dataclass
class Run:
    """One benchmark run: the plan, the server, and the rows so far."""

    plan: Plan
    generator: Generator
    server: Server
    console: Console
    clients: int = 4
    compress: bool = False
    samples: int = SAMPLES
    rows: list[Row] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)  # numbers of traces deleted so far
    extra: int = 0  # traces sent beyond the plan's

    def add(self, row: Row) -> None:
        """Keep a row and say it at once: a long run should show what it found so far."""
        self.rows.append(row)
        self.console.print(
            f"  {row.phase}: {row.name}  {row.judged:,.3g} {row.unit}"
            + (f" (median {row.median:,.3g})" if row.median is not None else "")
            + f"  {row.verdict}"
        )


class WrongAnswer(Exception):
    """The server answered, but not what was sent: no figure can be taken from such a run."""


# ---- ingest -------------------------------------------------------------------------------------------------------


def ingest(run: Run) -> LoadResult:
    """Send the whole plan; rate, its lowest window while the store grows, acknowledgement times, memory under load."""
    generator = run.generator
    expected = int(run.plan.traces * run.plan.mean_spans)
    with (
        Watch(run.server.pid) as watch,
        Progress(
            TextColumn("ingest"), BarColumn(), TextColumn("{task.completed:,.0f} spans"), TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"), console=run.console, refresh_per_second=2,
        ) as progress,
    ):  # fmt: skip
        task = progress.add_task("ingest", total=expected, rate="")
        began = time.perf_counter()
        sent = 0

        def on_ack(spans: int) -> None:
            nonlocal sent
            sent += spans
            progress.update(task, completed=sent, rate=f"{sent / (time.perf_counter() - began):,.0f}/s")

        result = asyncio.run(
            drive(run.server.address, generator.bodies(), clients=run.clients, compress=run.compress, on_ack=on_ack)
        )
    for spans, rate in result.windows:
        run.console.print(f"    {spans:>12,} spans: {rate:,.0f} spans/s")
    acks = result.percentiles()
    cpu = f"{run.clients} clients, batches of {run.plan.batch_spans}; driver used {result.client_cpu_seconds:.0f} s CPU"
    run.add(value("ingest", "OTLP protobuf, durable", "spans/s", result.rate, 20_000, at_least=True, note=cpu))
    lowest = min((rate for _, rate in result.windows), default=result.rate)
    run.add(value("ingest", "slowest million spans", "spans/s", lowest, 20_000, at_least=True))
    run.add(
        value("ingest", "ack of a batch, p95", "ms", acks["p95"], None, note=f"p50 {acks['p50']}, p99 {acks['p99']}")
    )
    run.add(
        value("memory", "under ingest load, RSS of all processes", "MiB", watch.peak_rss_mib, 400,
              note=f"PSS {watch.peak_pss_mib:.0f} MiB; {watch.cpu_s:.0f} s CPU in {result.seconds:.0f} s")
    )  # fmt: skip
    if result.rejected_spans:
        raise WrongAnswer(f"{result.rejected_spans} of our spans were rejected")
    return result


def check_counts(run: Run) -> None:
    """Every trace is there, by the store's own exact count, at once."""
    connection = Connection(run.server.address)
    total = int(connection.send(list_request(run, {}, page_size=1)).json()["count"])
    connection.close()
    expected = run.plan.traces + run.extra - len(run.deleted)
    if total != expected:
        raise WrongAnswer(f"the store counts {total:,} traces, {expected:,} were sent and not deleted")


def small_requests(run: Run) -> None:
    """One span a request: one client, then sixteen. Their numbers lie far behind those of any other phase."""
    first = run.plan.traces + SINGLE_SPAN_OFFSET
    for clients, count, budget in ((1, 400, 5.0), (16, 3_200, 20.0)):
        bodies: Iterator[Body] = itertools.islice(run.generator.single_span_bodies(first), count)
        result = asyncio.run(drive(run.server.address, bodies, clients=clients))
        first += count
        run.extra += count
        note = f"{result.rate:,.0f} requests/s"
        run.add(timing("small requests", f"1 span, {clients} client(s), ack", result.ack_ms[clients:], budget, note))


# ---- reads --------------------------------------------------------------------------------------------------------


def traces_by_id(run: Run) -> None:
    """Detail of traces of 10, 1,000 and 20,000 spans."""
    rng = random.Random(11)
    ten = _indexes_of(run, rng, lambda index: run.generator.span_count(index) == 10, run.samples)
    every = run.plan.big_every
    big = [index for index in range(17, run.plan.traces, every) if index != run.plan.giant_index] if every else []
    giant = [run.plan.giant_index] if run.plan.giant_spans else []
    for label, indexes, budget in (("10 spans", ten, 5.0), ("1,000 spans", big, 50.0), ("giant trace", giant, None)):
        if indexes:
            _trace_by_id(run, label, indexes, budget)


def _trace_by_id(run: Run, label: str, indexes: Sequence[int], budget: float | None) -> None:
    connection = Connection(run.server.address)
    size = 0
    for index in indexes[:WARM_UP]:
        answer = connection.send(_get_request(run, index)).json()
        size = int(answer["span_count"])
        if size != run.generator.span_count(index):
            raise WrongAnswer(f"trace {index} has {size} spans, {run.generator.span_count(index)} were sent")
    requests = (_get_request(run, index) for index in itertools.cycle(indexes))
    times, last = _time(run, connection, requests)
    note = f"{size:,} spans, {len(last.body) / 1024:,.0f} KiB JSON"
    run.add(timing("trace by id", label, times, budget, note))
    connection.close()


@dataclass(frozen=True)
class ListQuery:
    """One kind of list page. `filters(rng)` gives the values of one request; `count` what it must count, if known."""

    name: str
    budget_ms: float | None
    filters: Callable[[random.Random], dict[str, object]] = lambda rng: {}
    sort_by: str = "-timestamp"
    page: int = 1


def list_queries(plan: Plan) -> list[ListQuery]:
    """The list pages of the budget table, 50 rows each with an exact count."""

    def equals(name: str, text: str) -> dict[str, object]:
        return {name: {"operator": "=", "value": [text]}}

    def tenant(rng: random.Random) -> dict[str, object]:
        return equals("metadata__tenant", f"tenant-{rng.randrange(plan.tenants):05d}")

    def rare_customer(rng: random.Random) -> dict[str, object]:
        return equals("customer_identifier", customer_name(2 + rng.randrange(plan.customers // 2, plan.customers)))

    def three_fields(rng: random.Random) -> dict[str, object]:
        return equals("environment", "staging") | {
            "error_count": {"operator": "gt", "value": [0]},
            "llm_call_count": {"operator": "gte", "value": [rng.randint(2, 5)]},
        }

    pro = equals("metadata__plan", "pro")
    return [
        ListQuery("default sort", 10),
        ListQuery("numeric sort (total_cost)", 10, sort_by="-total_cost"),
        ListQuery("metadata equality (tenant)", 10, tenant),
        ListQuery("customer, rare", 10, rare_customer),
        ListQuery("customer with 30 % of all", 10, lambda rng: equals("customer_identifier", BIG_CUSTOMER)),
        ListQuery("3-field filter", 100, three_fields),
        ListQuery("broad metadata (35 %), numeric sort", 100, lambda rng: pro, sort_by="-total_cost"),
        ListQuery("sort by an unindexed number", 100, sort_by="-total_completion_tokens"),
        ListQuery("deep page, default sort", None, page=max(1, plan.traces // 100)),
    ]


def lists(run: Run, phase: str = "list", factor: float = 1.0) -> None:
    """Every list page; `factor` loosens the budgets (3 while ingest runs)."""
    connection = Connection(run.server.address)
    for query in list_queries(run.plan):
        rng = random.Random(7)
        requests = (
            list_request(run, query.filters(rng), sort_by=query.sort_by, page=query.page) for _ in itertools.count()
        )
        times, last = _time(run, connection, requests)
        count = last.json()["count"]
        budget = None if query.budget_ms is None else query.budget_ms * factor
        run.add(timing(phase, query.name, times, budget, f"{count:,} matches in the last answer"))
    connection.close()


def lists_during_ingest(run: Run, seconds: float) -> None:
    """The same pages while another process sends traces at full rate."""
    first = -(-run.plan.traces // CHUNK) * CHUNK
    command = [
        sys.executable, "-m", "bench.load", "--url", run.server.address.url, "--traces", str(run.plan.traces),
        "--first", str(first), "--last", str(first + 10_000_000), "--seconds", str(seconds), "--templates", "300",
        "--seed", str(run.plan.seed), "--clients", str(run.clients), "--json", str(result_file(run)),
    ]  # fmt: skip
    assert run.server.address.key is not None
    before = stored_traces(run)
    command += ["--key", run.server.address.key]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as load:
        while stored_traces(run) == before and load.poll() is None:
            time.sleep(0.05)
        lists(run, "list during ingest", 3.0)
        still_running = load.poll() is None
        load.terminate()
    arrived = stored_traces(run) - before
    run.extra += arrived
    seen = json.loads(result_file(run).read_text(encoding="utf-8"))
    run.add(value("ingest", "beside the lists", "spans/s", float(seen["spans_per_s"]), None))
    if seen["traces"] != arrived:
        raise WrongAnswer(f"{seen['traces']:,} traces were acknowledged beside the lists, {arrived:,} arrived")
    if not still_running:
        run.console.print("    [red]ingest ended early: the last lists ran beside nothing[/red]")


def result_file(run: Run) -> Path:
    """Where the second driver writes what it saw."""
    return run.server.log.with_name("load-during-lists.json")


def stored_traces(run: Run) -> int:
    connection = Connection(run.server.address)
    total = int(connection.send(list_request(run, {}, page_size=1)).json()["count"])
    connection.close()
    return total


def text_search(run: Run) -> None:
    """Substring search over inputs and outputs. The planted needles' counts are known and checked."""
    expected = {RARE_NEEDLE: _planted(run, 0), CJK_NEEDLE: _planted(run, 1) + _planted(run, 2), ABSENT_WORD: 0}
    words = (
        ("rare word", RARE_NEEDLE), ("common word", COMMON_WORD), ("CJK, rare", CJK_NEEDLE), ("CJK, common", "订单"),
        ("absent word", ABSENT_WORD),
    )  # fmt: skip
    connection = Connection(run.server.address)
    for label, word in words:
        request = list_request(run, {"text": {"operator": "icontains", "value": [word]}})
        times, last = _time(run, connection, itertools.repeat(request))
        answer = last.json()
        is_floor = "lower bound" in answer.get("message", "")
        note = f"{answer['count']:,} matches" + (" at least" if is_floor else "")
        if len(answer["results"]) != min(50, answer["count"]):
            raise WrongAnswer(f"search for {word!r} found {answer['count']} and showed {len(answer['results'])}")
        if word in expected:
            note += f", {expected[word]:,} planted"
            if answer["count"] < expected[word]:
                raise WrongAnswer(f"search for {word!r} found {answer['count']}, {expected[word]} were planted")
        run.add(timing("text search", label, times, 400.0, note))
    connection.close()


# ---- deletes ------------------------------------------------------------------------------------------------------


def deletes(run: Run, rounds: int = 5) -> None:
    """1,000 traces by ids and 1,000 by filter, scattered over the whole store, several rounds of each."""
    size = min(DELETE_SIZE, run.plan.traces // 20)
    rng = random.Random(23)
    by_ids = (_scattered(run, rng, size) for _ in range(rounds))
    _delete_rounds(run, f"{size:,} traces by ids", by_ids, lambda indexes: _ids_filter(run, indexes))
    customers = _customer_sets(run, size, rounds)
    _delete_rounds(run, f"about {size:,} traces by filter", customers, lambda indexes: _customer_filter(run, indexes))


def _delete_rounds(
    run: Run, name: str, rounds: Iterator[list[int]], filters: Callable[[list[int]], dict[str, object]]
) -> None:
    hidden_ms: list[float] = []
    verified_ms: list[float] = []
    notes: set[str] = set()
    spans = 0
    for indexes in rounds:
        spans += sum(run.generator.span_count(index) for index in indexes)
        answer, hidden, verified = _delete(run, filters(indexes), indexes[len(indexes) // 2])
        if answer["deleted_count"] != len(indexes):
            raise WrongAnswer(f"{answer['deleted_count']} deleted, {len(indexes)} expected: {answer}")
        run.deleted.update(indexes)
        hidden_ms.append(hidden)
        verified_ms.append(verified)
        notes.add(str(answer.get("state", "")))
    if not verified_ms:
        return
    note = f"{spans // len(verified_ms):,} spans each" + (f"; {', '.join(sorted(notes))}" if any(notes) else "")
    run.add(timing("delete", f"{name}: hidden", hidden_ms, 100.0, "as a reader sees it, polled"))
    run.add(timing("delete", f"{name}: answered (purged, verified)", verified_ms, 2_000.0, note))


def _delete(run: Run, filters: dict[str, object], victim: int) -> tuple[dict[str, object], float, float]:
    """One bulk delete, while a second connection polls one of the traces. (answer, ms to hidden, ms to the answer)."""
    bounds = window(run) | {"end_time": iso(END_NS + 1_800 * 10**9)}  # without the traces sent beyond the plan
    request = render_json(run.server.address, "POST", f"/api/traces/bulk/?{urlencode(bounds)}", {"filters": filters})
    began = time.perf_counter()
    gone = threading.Event()
    seen: list[float] = []

    def poll() -> None:
        with_connection = Connection(run.server.address)
        probe = _get_request(run, victim)
        while not gone.is_set():
            if with_connection.send(probe).status == 404:
                seen.append((time.perf_counter() - began) * 1e3)
                break
            time.sleep(0.002)
        with_connection.close()

    poller = threading.Thread(target=poll)
    poller.start()
    connection = Connection(run.server.address)
    response = connection.send(request)
    took = (time.perf_counter() - began) * 1e3
    connection.close()
    gone.set()
    poller.join()
    if response.status != 200:
        raise WrongAnswer(f"bulk delete answered {response.status}: {response.body[:400]!r}")
    state = response.headers.get("clearspan-deletion-state", "")
    return response.json() | {"state": state}, seen[0] if seen else took, took


def _ids_filter(run: Run, indexes: Sequence[int]) -> dict[str, object]:
    ids = [trace_id(run.plan, index) for index in indexes]
    return {"trace_unique_id": {"operator": "IN", "value": ids}}


def _customer_filter(run: Run, indexes: Sequence[int]) -> dict[str, object]:
    names = set()
    for index in indexes:
        chunk, place = run.generator.facts(index)
        names.add(customer_name(int(chunk.customer[place])))
    return {"customer_identifier": {"operator": "IN", "value": sorted(names)}}


def _scattered(run: Run, rng: random.Random, size: int) -> list[int]:
    """`size` ordinary traces spread evenly over the store, none of them deleted yet."""
    special = run.plan.giant_index
    step = run.plan.traces // size
    chosen: list[int] = []
    for start in range(0, step * size, step):
        candidates = [
            index
            for index in range(start, start + step)
            if index not in run.deleted and index != special and not run.plan.is_big(index)
        ]
        if candidates:
            chosen.append(rng.choice(candidates))
    return chosen


def _customer_sets(run: Run, size: int, rounds: int) -> Iterator[list[int]]:
    """For each round, all remaining traces of some customers: as many customers as fit into `size` traces."""
    numbers = np.concatenate([chunk.customer for chunk in chunks(run)])[: run.plan.traces]
    order = np.argsort(numbers, kind="stable")
    names, starts = np.unique(numbers[order], return_index=True)
    groups = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
    waiting = sorted(groups, reverse=True)  # the rarest customers have the highest numbers
    for _ in range(rounds):
        chosen: list[int] = []
        while waiting and len(chosen) + len(groups[waiting[0]]) <= size:
            members = groups[waiting.pop(0)].tolist()
            chosen += [index for index in members if index not in run.deleted]
        if not chosen:
            return
        yield sorted(chosen)


# ---- shared -------------------------------------------------------------------------------------------------------


def at_rest(run: Run, startup_s: float) -> None:
    """After a restart: how long it took, and what the server holds when nobody asks."""
    run.add(value("start-up", "until /readyz, store filled", "s", startup_s, 3.0))
    time.sleep(3)
    now = usage(run.server.pid)
    note = f"PSS {now.pss_mib:.0f} MiB, {now.processes} processes"
    run.add(value("memory", "at rest, RSS of all processes", "MiB", now.rss_mib, 150, note=note))


def _time(run: Run, connection: Connection, requests: Iterator[bytes]) -> tuple[list[float], Response]:
    """Times in ms of up to `run.samples` requests after a warm-up, and the last answer."""
    times: list[float] = []
    deadline = time.perf_counter() + QUERY_SECONDS_MAX
    for done, raw in enumerate(requests):
        began = time.perf_counter()
        response = connection.send(raw)
        took = (time.perf_counter() - began) * 1e3
        if response.status != 200:
            raise WrongAnswer(f"{raw[:120]!r} answered {response.status}: {response.body[:400]!r}")
        if done >= WARM_UP or took > 5_000:
            times.append(took)
        if len(times) >= run.samples or (time.perf_counter() > deadline and len(times) >= SAMPLES_MIN):
            break
    return times, response


def window(run: Run) -> dict[str, str]:
    """A window that holds every trace of the run, those sent beyond the plan too."""
    return {"start_time": iso(run.plan.start_ns - DAY_NS), "end_time": iso(END_NS + 7 * DAY_NS)}


def iso(ns: int) -> str:
    """Unix time in ns as the API takes it, to the second."""
    return str(np.datetime64(ns // 10**9, "s")) + "Z"


def list_request(
    run: Run, filters: dict[str, object], *, sort_by: str = "-timestamp", page: int = 1, page_size: int = 50
) -> bytes:
    query = window(run) | {"page": str(page), "page_size": str(page_size), "sort_by": sort_by}
    body = {"filters": filters} if filters else {}
    return render_json(run.server.address, "POST", f"/api/traces/list/?{urlencode(query)}", body)


def _get_request(run: Run, index: int) -> bytes:
    return render_json(run.server.address, "GET", f"/api/traces/{trace_id(run.plan, index)}/")


def _indexes_of(run: Run, rng: random.Random, wanted: Callable[[int], bool], count: int) -> list[int]:
    found: list[int] = []
    for _ in range(200_000):
        index = rng.randrange(run.plan.traces)
        if index not in run.deleted and wanted(index):
            found.append(index)
            if len(found) == count:
                break
    return found


def chunks(run: Run) -> Iterator[Chunk]:
    for number in range(-(-run.plan.traces // CHUNK)):
        yield Chunk(run.plan, number, len(run.generator.templates))


def _planted(run: Run, needle: int) -> int:
    """How many traces of the plan, not deleted, carry a needle."""
    total = 0
    for number, chunk in enumerate(chunks(run)):
        for place in np.flatnonzero(chunk.needle == needle).tolist():
            index = number * CHUNK + place
            total += index < run.plan.traces and index not in run.deleted
    return total
