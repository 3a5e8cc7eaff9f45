"""Canary conformance: what is hidden shows in no answer of any read route, what is purged in no byte of any file."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from clearspan import faults
from clearspan.deletion.preview import LIFETIME_S
from clearspan.store.sqlite import fsck
from clearspan.store.sqlite.open import DATABASE
from clearspan.testing.needles import scan_folder, scan_values
from clearspan.testing.wire import Wire, open_wire

from .canary import CANARIES, WRITES, ask, late_span, read_routes, text_fields_without_needle
from .planting import Planted, plant
from .plugin import PromiseFixture
from .table import Counter

SEED = 20261122
NEEDLES_SHORT, NEEDLES_LONG = 50, 1000
PAUSED_AT = "deletion.before_batch"
WAIT_S = 30.0


@pytest.fixture
def points(tmp_path: Path) -> Path:
    folder = tmp_path / "points"
    folder.mkdir()
    return folder


@pytest.fixture
def wire(tmp_path: Path, points: Path) -> Iterator[Wire]:
    with ExitStack() as stack:
        stack.enter_context(faults.armed(f"@{points}"))
        yield open_wire(stack, tmp_path / "data", "sqlite", delete_wait_s=0.0)


def wait_for(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


Asked = dict[tuple[str, str], tuple[int, int]]


def ask_all(wire: Wire, planted: Planted, *, lasting: bool = False, step: int = 1, is_first: bool = False) -> Asked:
    """(method, path) → (questions, hits), of the routes that answer at once or of the others.

    Args:
        step: so manieth questions are asked of what is another spelling, or the HEAD, of a route that was asked all.
        is_first: each is asked until it shows something.
    """
    routes = [route for route in read_routes(wire) if CANARIES[route.endpoint].lasts is lasting]
    asked: Asked = {}
    seen: set[str] = set()
    for route in sorted(routes, key=lambda each: each.method == "HEAD"):
        of_route = step if route.endpoint in seen else 1
        asked[route.method, route.path] = ask(wire, planted, route, step=of_route, is_first=is_first)
        seen.add(route.endpoint)
    return asked


def check_silent(asked: Asked, counter: Counter) -> None:
    for key, (questions, hits) in asked.items():
        counter.count(questions, violations=hits, seed=SEED if hits else None)
        assert hits == 0, key


def delete_all_and_pause(wire: Wire, planted: Planted, points: Path) -> None:
    """The planted traces are hidden, and nothing is purged while the point is armed."""
    (points / PAUSED_AT).write_text("1:pause")
    filters = {"customer_identifier": {"value": [planted.customer]}}
    answer = wire.post(f"/api/traces/bulk/{wire.window()}", {"filters": filters})
    told = answer.json()
    assert (told["state"], told["deleted_count"] - told["copies"]) == ("hidden", len(planted.trace_ids)), answer.text
    assert told["copies"] == 2 * len(planted.item_ids), "each version of each item"
    planted.deletion_id = told["deletion_id"]
    wait_for((points / f"{PAUSED_AT}.fired").exists)


def check_canaries(wire: Wire, points: Path, counter: Counter, needle_count: int, step: int) -> None:
    rng = random.Random(SEED)
    planted = plant(wire, rng, needle_count)
    assert text_fields_without_needle(planted) == set()
    for trace_id in planted.trace_ids:
        assert wire.send("PATCH", f"/api/traces/{trace_id}/", {"is_public": True}).status_code == 200
    for run_id in planted.run_ids:
        planted.tokens.append(rng.randbytes(16).hex())
        answer = wire.send("PUT", f"/runs/{run_id}/share", {"share_token": planted.tokens[-1]})
        assert answer.status_code == 200, answer.text
    before = ask_all(wire, planted, is_first=True)
    blind = [
        route for route in read_routes(wire)
        if CANARIES[route.endpoint].shows and route.method != "HEAD" and not before[route.method, route.path][1]
    ]  # fmt: skip
    assert blind == [], "these cannot tell: they did not show what was there"

    delete_all_and_pause(wire, planted, points)
    with ThreadPoolExecutor(1) as beside:
        lasting = beside.submit(ask_all, wire, planted, lasting=True, step=step)
        check_silent(ask_all(wire, planted, step=step), counter)
        late = wire.post("/api/v1/traces/ingest", [late_span(wire, planted)])
        assert "1 spans refused" in late.json()["message"]
        assert wire.get(f"/v1/deletions/{planted.deletion_id}").json()["state"] == "hidden"
        (points / f"{PAUSED_AT}.fired").unlink()
        check_silent(lasting.result(), counter)
    wait_for(lambda: wire.get(f"/v1/deletions/{planted.deletion_id}").json()["state"] == "verified")
    check_silent(ask_all(wire, planted, step=step), counter)
    wire.clock.advance(LIFETIME_S + 1)  # the previews above name what they found until they expire
    wire.services.deleter._keep_house()
    check_files(wire.data, planted, counter)


def check_files(data: Path, planted: Planted, counter: Counter) -> None:
    """No needle in any file, raw or decoded; nor an id that is not a needle, as text or as bytes."""
    wanted = planted.needles
    hits: list[object] = [*scan_folder(data, wanted)]
    for database in (DATABASE, "catalog.db"):
        hits += scan_values(data / database, wanted)
    ids = [each for each in planted.trace_ids if each not in wanted]
    for path in data.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        hits += [(path, each) for each in ids if each.encode() in content or bytes.fromhex(each) in content]
    counter.count(len(wanted) + len(ids), violations=len(hits), seed=SEED if hits else None)
    assert hits == []


def test_no_route_shows_a_hidden_trace(wire: Wire, points: Path, promise: PromiseFixture) -> None:
    check_canaries(wire, points, promise("P4", "F24"), NEEDLES_SHORT, step=10)


@pytest.mark.long
def test_no_route_shows_a_thousand_hidden_needles(wire: Wire, points: Path, promise: PromiseFixture) -> None:
    check_canaries(wire, points, promise("P4", "F24"), NEEDLES_LONG, step=1)


def test_every_read_route_has_a_canary(wire: Wire) -> None:
    routes = read_routes(wire)
    missing = sorted({f"{route.endpoint} ({route.method} {route.path})" for route in routes} - {""})
    missing = [text for text in missing if text.split()[0] not in CANARIES]
    assert missing == [], "read routes without a canary in tests/promises/canary.py"
    assert set(CANARIES) == {route.endpoint for route in routes}, "canaries of routes that are gone"
    assert not set(CANARIES) & set(WRITES)


def test_nothing_is_wrong_with_the_store_after_it_is_closed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "sqlite")
        planted = plant(wire, random.Random(SEED), NEEDLES_SHORT)
        assert scan_folder(wire.data, planted.needles), "the scan finds what is there"
        filters = {"customer_identifier": {"value": [planted.customer]}}
        assert wire.post(f"/api/traces/bulk/{wire.window()}", {"filters": filters}).json()["state"] == "verified"
    assert fsck.check(tmp_path / "data").violations == []
    assert scan_folder(tmp_path / "data", planted.needles) == []
