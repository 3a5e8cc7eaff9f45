"""Processor time and bytes written a trace, by step, of a deletion that is scattered over a store.

    python -m bench.micro_delete [--traces 40000] [--share 0.1] [--data DIR]

The writer runs in this process, so that one clock counts it, and a batch is bounded by its processor time. Nothing else
asks the store meanwhile. Compare two versions in turns: other work on the machine adds up to a third.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.generate import END_NS, Generator, Plan
from clearspan.deletion.plan import root_of_traces
from clearspan.deletion.steps import ROWS_MAX
from clearspan.files.vfs import open_reader
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder, decode_traces_protobuf
from clearspan.ingest.pricing import PriceBook
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.store.sqlite.deleting import SqliteDeletionStore
from clearspan.store.sqlite.open import DATABASE
from clearspan.store.sqlite.process import Options, Service
from clearspan.store.sqlite.reader import SqliteReader

SECRET = bytes(32)
SALT = bytes(32)
SCOPE, ALWAYS = Scope((1,)), Window()
GROUP_SPANS = 2_000
CHECKPOINT_BYTES = 16 * 2**20
CACHE_MIB = 32
DELETION_ID = "del_micro"


def open_service(folder: Path) -> Service:
    """The writer of a folder's store, in this process."""
    options = Options(folder / DATABASE, SECRET, GROUP_SPANS, CHECKPOINT_BYTES, CACHE_MIB)
    return Service(options, monotonic=time.thread_time)


def fill(folder: Path, traces: int) -> None:
    """A store of generated traces of some ten spans, its text index sealed as far as it will be."""
    folder.mkdir(parents=True)
    service, prices = open_service(folder), PriceBook()
    prices.warm()
    decoder = Decoder(Origin(1, "key"), prices=prices)
    group: list[TraceBatch] = []
    for body in Generator(Plan(traces, big_every=0, giant_spans=0)).bodies():
        group += decode_traces_protobuf(body.data, decoder).batches
        if sum(len(batch.spans) for batch in group) >= GROUP_SPANS:
            service.write(group, received_ns=END_NS)
            service.keep_up()
            group = []
    service.write(group, received_ns=END_NS)
    while service.work_when_idle():
        pass
    service.empty_log()
    service.close()


class InProcess:
    """deleting.Caller without a process."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Run it now; the copying of the log goes on as after each call."""
        answer = getattr(self._service, name)(*args)
        self._service.checkpoint_if_long()
        return answer

    def start(self, name: str, *args: Any) -> Future[Any]:
        """As `call`, done when it returns."""
        done: Future[Any] = Future()
        done.set_result(self.call(name, *args))
        return done


def delete(service: Service, store: SqliteDeletionStore, share: float) -> None:
    """Delete a share of the traces, drawn at random, and print what each step cost."""
    every = store.plan(SCOPE, None, ALWAYS, received_before_ns=2**62, limit=10**7)
    chosen = sorted(random.Random(1).sample(every, round(share * len(every))))
    pks = [each.trace_pk for each in chosen]

    @contextmanager
    def step(name: str) -> Iterator[None]:
        began, own, written = time.process_time(), time.thread_time(), written_bytes()
        yield
        own = time.thread_time() - own
        while service.copy_log(CHECKPOINT_BYTES):
            time.sleep(0.01)
        cost = [1e6 * seconds / len(pks) for seconds in (time.process_time() - began, own)]
        kib = (written_bytes() - written) / len(pks) / 1024
        print(f"{name:12} {cost[0]:8.1f} µs/trace, {cost[1]:8.1f} without copying the log {kib:8.1f} KiB/trace")

    print(f"{len(pks):,} of {len(every):,} traces")
    with step("count"):
        store.count_targets(pks)
    with step("commit to"):
        root_of_traces(SALT, chosen)
    with step("hide"):
        store.hide(DELETION_ID, SCOPE, None, ALWAYS, chosen, b"{}", manifest_salt=SALT)
    batches = 0
    for name, is_due in (("purge rows", has_rows), ("purge text", has_text)):
        with step(name):
            while is_due(service):
                store.purge_batch(DELETION_ID, batches, rows_max=ROWS_MAX)
                batches += 1
    for name in ("recount", "settle", "recount"):
        with step(name):
            left = store.remaining(DELETION_ID) if name == "recount" else store.settle(DELETION_ID)
        if left and any(left.values()):
            raise SystemExit(f"left over: {left}")


def has_rows(service: Service) -> bool:
    """Whether traces are hidden, and not yet purged."""
    return bool(service.conn.execute("SELECT EXISTS (SELECT 1 FROM hidden)").get)


def has_text(service: Service) -> bool:
    """Whether purged traces have bits in the sealed text index."""
    return bool(service.conn.execute("SELECT EXISTS (SELECT 1 FROM text_erase)").get)


def written_bytes() -> int:
    """What this process has written so far, to whatever file."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar:")).split()[1])


def main() -> None:
    """Fill, unless there is a store in the folder already, delete from a copy, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--traces", type=int, default=40_000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--data", type=Path, help="keep the filled store here; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.data and options.data.parent) as scratch:
        full = options.data or Path(scratch) / "full"
        if not full.exists():
            fill(full, options.traces)
        work = Path(shutil.copytree(full, Path(scratch) / "work"))
        service = open_service(work)
        reader = SqliteReader(lambda: open_reader(work / DATABASE, cache_mib=4))
        store = SqliteDeletionStore(work / DATABASE, reader, InProcess(service), SECRET)
        delete(service, store, options.share)
        reader.close()
        service.close()


if __name__ == "__main__":
    main()
