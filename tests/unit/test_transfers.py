"""Traces that move to another project take their public links along, whatever crashes or fails in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan import faults
from clearspan.catalog.ledger import TRANSFER_KIND
from clearspan.deletion.state import DeletionState
from clearspan.deletion.transfers import Transfers
from clearspan.model.errors import NotFound, Overloaded
from clearspan.model.trace import Scope
from clearspan.proof.manifest import manifest_leaves, manifest_root
from clearspan.store.tombstone import manifest_salt_of
from clearspan.store.transfer import TransferOrder
from clearspan.testing.datasets import APP, DatasetWorld, open_dataset_world

A, B = "a" * 32, "b" * 32
TOKEN = "7" * 32


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatasetWorld]:
    """Trace A in the first project, public by both kinds of links, and B, which is not."""
    with open_dataset_world(request.param, tmp_path / "data") as made:
        made.trace(A)
        made.trace(B)
        org = made.catalog.first_org
        made.catalog.set_share(org.id, APP, A, public=True, fields=("metadata",))
        assert made.catalog.run_shares.create(org.id, APP, A, TOKEN) == TOKEN
        yield made


def started(bench: DatasetWorld) -> Transfers:
    """As a new process has it."""
    return Transfers(bench.stores.transfers, bench.catalog, bench.clock, bench.ids)


def project(bench: DatasetWorld, name: str) -> int:
    return bench.catalog.create_project(bench.catalog.first_org.id, name).id


def move(bench: DatasetWorld, transfers: Transfers, *trace_ids: str, to: int) -> int:
    scope = Scope(tuple(each.id for each in bench.catalog.projects(1)))
    return transfers.transfer(1, scope, trace_ids, to, by="key_1")


def links(bench: DatasetWorld) -> tuple[list[int], int | None]:
    """The projects that the links of A name, the second kind by its token."""
    shared = [each.project_id for each in bench.catalog.find_share(bench.catalog.first_org.public_id, A)]
    found = bench.catalog.run_shares.find(TOKEN)
    if found is not None:
        assert (found.trace_id, bench.catalog.run_shares.token_of(found.project_id, A)) == (A, TOKEN)
    return shared, None if found is None else found.project_id


def told(bench: DatasetWorld) -> list[dict[str, Any]]:
    """What the ledger says of transfers."""
    return [each.body | {"id": each.deletion_id} for each in bench.catalog.ledger() if each.kind == TRANSFER_KIND]


def test_links_follow_and_the_ledger_tells(bench: DatasetWorld) -> None:
    to = project(bench, "to")
    assert move(bench, started(bench), A, B, to=to) == 2
    assert links(bench) == ([to], to)
    [entry] = told(bench)
    salt = manifest_salt_of(bench.catalog.tombstone_secret, entry.pop("id"))
    root = manifest_root(manifest_leaves(salt, [(APP, A), (APP, B)])).hex()
    assert entry == {
        "by": "key_1", "from_project_id": APP, "to_project_id": to, "traces": 2, "links": 2, "manifest_root": root,
    }  # fmt: skip
    assert move(bench, started(bench), A, to=to) == 1
    with pytest.raises(NotFound):
        move(bench, started(bench), "c" * 32, to=to)
    assert (len(told(bench)), bench.stores.transfers.open_transfers()) == (1, [])


@pytest.mark.parametrize("point", ["transfer.after_move", "transfer.after_record"])
def test_a_crash_loses_no_link(bench: DatasetWorld, point: str) -> None:
    to = project(bench, "to")
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        move(bench, started(bench), A, to=to)
    assert len(bench.stores.transfers.open_transfers()) == 1
    started(bench).finish()
    assert links(bench) == ([to], to)
    assert move(bench, started(bench), A, to=to) == 1, "the client asks again"
    [entry] = told(bench)
    assert (entry["links"], bench.stores.transfers.open_transfers()) == (2, [])


def test_a_failing_catalog_is_asked_again(bench: DatasetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    to, transfers = project(bench, "to"), started(bench)

    def fail(*_: object) -> None:
        raise Overloaded

    with monkeypatch.context() as patched:
        patched.setattr(bench.catalog, "record_transfer", fail)
        with pytest.raises(Overloaded):
            move(bench, transfers, A, to=to)
    assert links(bench) == ([APP], APP)
    transfers.finish()
    assert (links(bench), len(told(bench))) == (([to], to), 1)


def test_links_move_in_the_order_of_their_traces(bench: DatasetWorld) -> None:
    """Two transfers whose servers died, the second back to where the first began; links left behind are in no way."""
    to, org = project(bench, "to"), bench.catalog.first_org
    bench.catalog.set_share(org.id, to, A, public=True)
    bench.catalog.run_shares.create(org.id, to, A, "8" * 32)
    for number, goal in enumerate((to, APP, to)):
        order = TransferOrder(f"mov_{number}", 1, "key_1")
        scope = Scope((APP, to))
        bench.stores.transfers.transfer(scope, [A], goal, moved_ns=bench.clock.now_ns(), order=order)
    started(bench).finish()
    assert links(bench) == ([to], to)
    assert [each["links"] for each in told(bench)] == [2, 2, 2]


def test_a_deletion_finds_the_links_of_a_transfer_that_was_not_finished(bench: DatasetWorld) -> None:
    to = project(bench, "to")
    with faults.armed("transfer.after_move:1:crash"), pytest.raises(faults.Crash):
        move(bench, started(bench), A, to=to)
    deleter = bench.start()
    deleter.settle_links_with(started(bench).finish)
    result = deleter.delete(bench.request(A, scope=Scope((to,))))
    assert (result.state, result.matched) == (DeletionState.VERIFIED, 1)
    assert deleter.status(result.deletion_id).job.purged["share"] == 2
    assert (links(bench), bench.stores.transfers.open_transfers()) == (([], None), [])
    if held := bench.bytes_left():
        assert A.encode() not in held
