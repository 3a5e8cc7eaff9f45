"""P1 and P2 under SIGKILL: what was acknowledged is there, nothing that was never sent is, and start-up is clean."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearspan.store.sqlite import fsck
from promises.plugin import PromiseFixture

from .live import Live, start

SEED = 20261122
CLIENTS = 4
POINTS = ("writer.before_commit", "writer.after_commit", "writer.after_answer")
ROUNDS_SHORT = 2
ROUNDS_LONG = 50
PAGE = 1000
WINDOW = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2027-01-01T00:00:00Z"}
T0_NS = 1_780_000_000_000_000_000


Send = Callable[[bytes], bool]


class Gone(Exception):
    """The server is."""


class Oracle:
    """What was sent and what was acknowledged, by trace and span."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent: dict[str, set[str]] = {}
        self.acknowledged: dict[str, set[str]] = {}

    @contextmanager
    def sender(self, live: Live) -> Iterator[Send]:
        """How a client sends a body and learns whether it was acknowledged; Gone once the server is."""
        with live.client() as client:

            def send(body: bytes) -> bool:
                headers = {"Content-Type": "application/x-protobuf"}
                try:
                    return client.post("/v1/traces", content=body, headers=headers).status_code == 200
                except httpx.TransportError:
                    raise Gone from None

            yield send

    def send(self, export: Send, rng: random.Random, trace_ids: list[str]) -> None:
        """One request with spans of new traces and, now and then, late spans of an old one."""
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        ids = [rng.choice(trace_ids)] if trace_ids and rng.random() < 0.3 else []
        ids += [rng.randbytes(16).hex() for _ in range(rng.randint(1, 20))]
        spans: dict[str, set[str]] = {}
        for trace_id in ids:
            for _ in range(rng.randint(1, 5)):
                span = scope.spans.add(
                    trace_id=bytes.fromhex(trace_id),
                    span_id=rng.randbytes(8),
                    name="chat",
                    start_time_unix_nano=T0_NS,
                    end_time_unix_nano=T0_NS + 10**9,
                )
                span.attributes.add(key="gen_ai.prompt").value.string_value = rng.randbytes(200).hex()
                spans.setdefault(trace_id, set()).add(span.span_id.hex())
        with self.lock:
            for trace_id, span_ids in spans.items():
                self.sent.setdefault(trace_id, set()).update(span_ids)
        if export(request.SerializeToString()):
            trace_ids += ids
            with self.lock:
                for trace_id, span_ids in spans.items():
                    self.acknowledged.setdefault(trace_id, set()).update(span_ids)

    @contextmanager
    def load(self, live: Live, seed: int) -> Iterator[None]:
        """Clients that send as fast as they are answered, until the server is gone or the block ends."""
        stop = threading.Event()

        def run(number: int) -> None:
            rng = random.Random(f"{seed}/{number}")
            trace_ids: list[str] = []
            with self.sender(live) as export:
                while not stop.is_set():
                    try:
                        self.send(export, rng, trace_ids)
                    except Gone:
                        return  # sent, perhaps stored, not acknowledged

        threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def check(self, live: Live, seed: int) -> None:
        """Lost: acknowledged and not there. Phantom: there and never sent."""
        there: dict[str, int] = {}
        with live.client() as client:
            page = 1
            while True:
                answer = client.post(
                    "/api/traces/list/", params={**WINDOW, "page": page, "page_size": PAGE}, json={}
                ).json()
                there.update({row["trace_unique_id"]: row["span_count"] for row in answer["results"]})
                if not answer["results"]:
                    break
                page += 1
            lost = {t for t, spans in self.acknowledged.items() if there.get(t, 0) < len(spans)}
            phantom = {t for t, count in there.items() if count > len(self.sent.get(t, ()))}
            assert (lost, phantom) == (set(), set()), f"seed {seed}"
            # The counts above could hide a span lost for one gained; look inside some traces.
            for trace_id in random.Random(seed).sample(sorted(there), k=min(20, len(there))):
                nodes = client.get(f"/api/traces/{trace_id}/").json()["span_tree"]
                found = {node["span_unique_id"] for node in nodes}
                assert self.acknowledged.get(trace_id, set()) <= found <= self.sent[trace_id], f"seed {seed}"


def one_round(data: Path, oracle: Oracle, seed: int, *, fault: str | None = None, **settings: str) -> float:
    """Load, kill, start again, check. Returns the seconds of the second start."""
    rng = random.Random(seed)
    live = start(data, fault=fault, **settings)
    with oracle.load(live, seed):
        if fault is None:
            time.sleep(rng.uniform(0.05, 1.2))  # the moment of death is the one thing here that may be random
            (live.kill if rng.random() < 0.7 else live.kill_server_only)()
        else:
            time.sleep(1.0)  # the writer kills itself at its point, is started again, and goes on dying
            live.kill()
    again = start(data)
    oracle.check(again, seed)
    assert again.stop() == 0
    report = fsck.check(data)
    assert report.violations == [], f"seed {seed}"
    return again.started_s


@pytest.mark.parametrize("rounds", [ROUNDS_SHORT, pytest.param(ROUNDS_LONG, marks=pytest.mark.long)])
def test_a_killed_server_keeps_what_it_acknowledged(tmp_path: Path, promise: PromiseFixture, rounds: int) -> None:
    oracle, counter, starts = Oracle(), promise("P1", "F1"), []
    for number in range(rounds):
        with counter.run(SEED + number):
            starts.append(one_round(tmp_path / "data", oracle, SEED + number))
    acknowledged = sum(map(len, oracle.acknowledged.values()))
    print(f"{rounds} kills, {acknowledged} spans acknowledged, worst start {max(starts):.2f} s")
    assert acknowledged > 100 * rounds, "the load was too light to mean anything"


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_a_writer_that_dies_at_a_point_loses_nothing(
    tmp_path: Path, promise: PromiseFixture, point: str, rounds: int
) -> None:
    oracle, counter = Oracle(), promise("P1", "F1")
    for number in range(rounds):
        visit = random.Random(f"{SEED}/{point}/{number}").randint(1, 30)
        with counter.run(f"{SEED}/{point}/{number}"):
            one_round(tmp_path / "data", oracle, SEED + number, fault=f"{point}:{visit}:kill")
    assert oracle.acknowledged
