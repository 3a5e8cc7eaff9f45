"""P4 to P6 under SIGKILL: a deletion that dies at any point is ended by the next start, once, with exact counts."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from clearspan.catalog.catalog import Catalog
from clearspan.deletion.job import DeletionJob
from clearspan.deletion.records import KIND, CatalogRecords
from clearspan.deletion.state import DeletionState
from clearspan.model.clock import SystemClock, SystemIds
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.sqlite import fsck
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.local_store import open_local_store
from clearspan.testing.needles import needle_of, scan_folder

from .live import start

SEED = 20261122
VICTIMS, OTHERS, SPANS = 250, 60, 12
WINDOW = {"start_time": "2025-12-31T00:00:00Z", "end_time": "2026-02-01T00:00:00Z"}
WAIT_S = 30.0

AT_ONCE = ("deletion.after_hide:1", "deletion.after_batch:2")
EVERYWHERE = (
    "deletion.before_hide:1", "deletion.after_hidden_recorded:1", "deletion.before_shares:1",
    "deletion.before_batch:1", "deletion.before_batch:2", "deletion.after_batch:1", "deletion.before_settle:1",
    "deletion.after_settle:1", "deletion.after_purged_recorded:1", "deletion.before_verify:1",
    "deletion.after_verified_recorded:1", "store.before_hide:1", "store.after_hide:1", "store.before_purge_batch:1",
    "store.before_purge_batch:2", "store.after_purge_batch:1", "store.after_purge_batch:2", "store.after_settle:1",
)  # fmt: skip
NOTHING_HIDDEN = {"deletion.before_hide:1", "store.before_hide:1"}


class Planted(NamedTuple):
    customer: str
    victims: list[str]
    others: list[str]
    needles: set[str]  # of the victims, and of the request


def plant(data: Path, rng: random.Random) -> Planted:
    victims, others = ([needle_of(rng.randbytes(12)) for _ in range(count)] for count in (VICTIMS, OTHERS))
    customer = needle_of(rng.randbytes(12))
    needles = {customer, *victims}
    with Catalog.open(data) as catalog:
        (project,) = catalog.projects(catalog.first_org.id)
        store = open_local_store(data, catalog.tombstone_secret)
        for trace_id in rng.sample(victims + others, k=VICTIMS + OTHERS):
            text = needle_of(rng.randbytes(12))
            if trace_id in victims:
                needles.add(text)
            context = SpanContext(customer_identifier=customer if trace_id in victims else None)
            spans = [
                make_span(f"s{n}", start_s=n, context=context, text=text + rng.randbytes(rng.randint(10, 900)).hex())
                for n in range(SPANS)
            ]
            store.writer.submit([make_batch(trace_id, spans, project_id=project.id)], T0_NS).result()
        store.close()
    return Planted(customer, victims, others, needles)


def delete_and_die(data: Path, customer: str, fault: str) -> None:
    """Ask a server that is armed to die; whether it answers or not is not the question."""
    filters = {"customer_identifier": {"operator": "=", "value": [customer]}}
    live = start(data, fault=f"{fault}:kill")
    with live.client() as client, contextlib.suppress(httpx.TransportError):
        client.post("/api/traces/bulk/", params=WINDOW, json={"filters": filters}, timeout=WAIT_S)
    live.kill()


def ended_jobs(data: Path) -> list[DeletionJob]:
    """Every deletion, once none is open any more."""
    give_up_at = time.monotonic() + WAIT_S
    with Catalog.open(data) as catalog:
        records = CatalogRecords(catalog, SystemClock(), SystemIds())
        while open_jobs := records.unfinished_deletions():
            assert time.monotonic() < give_up_at, f"stuck: {open_jobs}"
            time.sleep(0.05)
        found = [records.get_deletion(job.id) for job in catalog.list_jobs(kind=KIND)]
    return [job for job in found if job is not None]


def visible_ids(data: Path) -> set[str]:
    with Catalog.open(data) as catalog:
        scope = Scope(tuple(project.id for project in catalog.projects(catalog.first_org.id)))
        store = open_local_store(data, catalog.tombstone_secret)
        rows = store.reader.list_traces(scope, None, Window(), NEWEST_FIRST, OffsetPage(1, 1000)).rows
        store.close()
    return {row.summary.trace_id for row in rows}


@pytest.mark.parametrize("fault", [*AT_ONCE, *(pytest.param(each, marks=pytest.mark.long) for each in EVERYWHERE)])
def test_a_killed_deletion_is_ended_by_the_next_start(tmp_path: Path, fault: str) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    planted = plant(data, random.Random(SEED))
    delete_and_die(data, planted.customer, fault)
    again = start(data)
    jobs = ended_jobs(data)
    assert again.stop() == 0
    assert fsck.check(data).violations == []
    if fault in NOTHING_HIDDEN:
        assert [job.state for job in jobs] == [DeletionState.CANCELLED]
        assert visible_ids(data) == {*planted.victims, *planted.others}
        return
    (job,) = jobs
    assert (job.state, job.hidden) == (DeletionState.VERIFIED, VICTIMS)
    assert (job.purged["trace"], job.purged["span"]) == (VICTIMS, VICTIMS * SPANS)
    assert visible_ids(data) == set(planted.others)
    assert scan_folder(data, planted.needles) == []
