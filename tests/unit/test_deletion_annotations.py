"""Annotations deleted by themselves, from the guards to the receipt, over both Catalogs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearspan.catalog.catalog import Catalog
from clearspan.deletion.annotations import kind_of
from clearspan.deletion.execute import Deleter
from clearspan.deletion.plan import canonical_request, parse_request, plain_request
from clearspan.deletion.policy import Policy
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.result import render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.errors import Conflict, Held, InvalidFilter, Unguarded
from clearspan.model.trace import Window
from clearspan.proof.receipt import check_receipt
from clearspan.store.annotations import AnnotationQuery, AnnotationWrite
from clearspan.store.port import DeletionKind
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import T0_NS, make_annotation, make_trace
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.deletions import DAY, SCOPE, SECRET, World, by_annotations, by_ids, hold_on, open_world
from clearspan.testing.local_store import open_local_store

S = DeletionState
SECOND = 1_000_000_000
SCORES = {"names": ("score",), "window": DAY}


def say(store: Any, number: int, trace_id: str | None, name: str = "score", **fields: Any) -> None:
    fields = {"target": AnnotationTarget.TRACE, "at_s": number, "explanation": "some words", **fields}
    said = make_annotation(name, number=number, trace_id=trace_id, identifier=str(number), **fields)
    store.put_annotations([AnnotationWrite((1,), said)], received_ns=T0_NS)


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param == "real") as made:
        for number in range(8):
            say(made.store, number, f"t{number}", user_id=f"user_{number % 2}")
        say(made.store, 20, "t0", "another")
        yield made


def left(world: World) -> list[int]:
    rows = world.store.list_annotations(SCOPE, AnnotationQuery(), limit=100)
    return sorted(int(row.annotation.annotation_id, 16) for row in rows)


def test_it_ends_verified_with_exact_counts_and_words_for_them(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_annotations(**SCORES))
    assert (result.state, result.matched, result.hidden, result.kind) == (S.VERIFIED, 8, 8, DeletionKind.ANNOTATIONS)
    assert render_message(result) == "Successfully deleted 8 annotations"
    assert left(world) == [20]
    assert len(world.ids_left()) == 8, "their traces stay"
    job = world.job(result.deletion_id)
    assert (job.shape, job.kind) == (("annotation.name:in:1",), DeletionKind.ANNOTATIONS)
    assert job.planned == {"annotation": 8}
    assert {name: rows for name, rows in job.purged.items() if rows} == {"annotation": 8}
    assert set(job.remaining.values()) == {0}
    assert world.moves(result.deletion_id) == ["planned", "hidden", "purged", "verified"]
    again = deleter.delete(by_annotations(**SCORES))
    assert render_message(again) == "No annotations matched; nothing was deleted"
    assert kind_of(("trace_ids:in:1",)) is DeletionKind.TRACES


@pytest.mark.parametrize("world", ["real"], indirect=True)  # the fake Catalog signs nothing
def test_the_receipt_counts_annotations(world: World) -> None:
    assert world.real is not None
    deleter = world.deleter()
    world.holds(deleter).create(hold_on("t1"))
    result = deleter.delete(by_annotations(**SCORES))
    jws = deleter.receipt(result.deletion_id)
    found = check_receipt(jws, [each.key for each in world.real.signing_keys()])
    assert found.ok, found
    assert found.payload is not None
    assert "traces" not in found.payload
    assert found.payload["annotations"] == {
        "matched": 8, "deleted": 7, "already_absent": 0, "no_longer_matching": 0, "held": 1, "failed": 0,
    }  # fmt: skip
    assert found.payload["scope"]["conditions"] == ["annotation.name:in:1"]
    assert found.payload["manifest"]["size"] == 7


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"window": DAY}, "empty_filter"),
        ({"names": ("score",)}, "unbounded_window"),
        ({"names": ("score",), "window": Window(T0_NS, None)}, "unbounded_window"),
        ({**SCORES, "expected_count": 7}, "expected_count_mismatch"),
        ({**SCORES, "matches_max": 7}, "too_many_matches"),
        ({**SCORES, "policy": Policy(max_traces=7)}, "key_limit_exceeded"),
        ({**SCORES, "policy": Policy(max_share_ppm=880_000)}, "key_share_exceeded"),
        ({**SCORES, "policy": Policy(require_reason=True)}, "reason_required"),
        ({"names": ("score",), "delete_all": True, "policy": Policy(forbid_delete_all=True)}, "delete_all_forbidden"),
        ({**SCORES, "window_is_implicit": True, "strict_window": True}, "implicit_window"),
    ],
)
def test_what_is_refused_changes_nothing(world: World, fields: dict[str, Any], code: str) -> None:
    with pytest.raises((InvalidFilter, Unguarded, Conflict)) as refused:
        world.deleter().delete(by_annotations(**fields))
    assert refused.value.code == code
    assert len(left(world)) == 9


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        ({"annotation_ids": (f"{3:032x}",)}, [3]),
        ({"targets": (AnnotationTarget.TRACE,), "delete_all": True}, [0, 1, 2, 3, 4, 5, 6, 7, 20]),
        ({"user_ids": ("user_1",), "delete_all": True}, [1, 3, 5, 7]),
        ({"identifiers": ("2", "20"), "delete_all": True}, [2, 20]),
        ({"kinds": (AnnotatorKind.LLM,), "delete_all": True}, []),
        ({"names": ("score",), "window": Window(T0_NS + 2 * SECOND, T0_NS + 4 * SECOND)}, [2, 3]),
        ({"names": ("score",), "window": Window(T0_NS + 2 * SECOND + 1, T0_NS + 4 * SECOND + 1)}, [3, 4]),
    ],
)
def test_each_condition_takes_what_it_says(world: World, fields: dict[str, Any], gone: list[int]) -> None:
    result = world.deleter().delete(by_annotations(**fields))
    assert (result.state, result.hidden) == (S.VERIFIED, len(gone))
    assert left(world) == sorted({*range(8), 20} - set(gone))


def test_a_request_survives_being_written_down() -> None:
    asked = by_annotations(kinds=(AnnotatorKind.LLM,), targets=(AnnotationTarget.SPAN,), key_ids=("b", "a"), window=DAY)
    read = parse_request(plain_request(asked), 1)
    assert canonical_request(read) == canonical_request(asked)
    assert (
        read.selection
        == by_annotations(kinds=(AnnotatorKind.LLM,), targets=(AnnotationTarget.SPAN,), key_ids=("a", "b")).selection
    )


def test_an_idempotency_key_stands_for_one_request(world: World) -> None:
    first = world.deleter().delete(by_annotations(**SCORES, idempotency_key="k"))
    assert world.deleter().delete(by_annotations(**SCORES, idempotency_key="k")) == first
    for other in (
        by_annotations(names=("another",), window=DAY, idempotency_key="k"),
        by_ids("t1", idempotency_key="k"),
    ):
        with pytest.raises(Conflict) as refused:
            world.deleter().delete(other)
        assert refused.value.code == "idempotency_key_reused"
    assert left(world) == [20]


def test_a_preview_tells_and_its_token_deletes_exactly_that(world: World) -> None:
    deleter = world.deleter()
    world.holds(deleter).create(hold_on("t1"))
    preview = deleter.preview(by_annotations(**SCORES))
    assert (preview.plan.matched, preview.held_traces, list(preview.held.values())) == (8, 1, [1])
    assert preview.samples == []
    assert len(preview.annotation_samples) == 8
    assert sum(preview.by_day.values()) == 8
    assert preview.by_project == {1: 8}
    assert len(left(world)) == 9
    say(world.store, 30, "t3", "score")
    result = deleter.delete_planned(preview.token, org_id=1, requested_by="key_1")
    assert (result.matched, result.hidden, result.held) == (8, 7, 1)
    assert left(world) == [1, 20, 30]
    with pytest.raises(Conflict) as refused:
        deleter.delete_planned(preview.token, org_id=1, requested_by="key_1")
    assert refused.value.code == "plan_used_or_unknown"


def test_a_preview_of_deleted_annotations_is_void(world: World) -> None:
    deleter = world.deleter()
    preview = deleter.preview(by_annotations(**SCORES))
    traces = deleter.preview(by_ids("t0"))
    deleter.delete(by_annotations(annotation_ids=(f"{1:032x}",)))
    with pytest.raises(Conflict) as refused:
        deleter.delete_planned(preview.token, org_id=1, requested_by="key_1")
    assert refused.value.code == "plan_mismatch"
    assert deleter.delete_planned(traces.token, org_id=1, requested_by="key_1").hidden == 1, "numbers are not mixed up"


def test_what_a_hold_keeps_goes_on_when_it_is_released(world: World) -> None:
    deleter = world.deleter()
    hold, _ = world.holds(deleter).create(hold_on("t1", "t2"))
    with pytest.raises(Held):
        deleter.delete(by_annotations(annotation_ids=(f"{1:032x}",)), refuse_held=True)
    result = deleter.delete(by_annotations(**SCORES))
    assert (result.state, result.hidden, result.held) == (S.VERIFIED, 6, 2)
    assert "; 2 annotations are held and were not deleted" in render_message(result)
    assert result.child_id is not None
    assert deleter.blocked_by(result.child_id) == {hold.hold_id: 2}
    deleter = world.restarted()
    world.holds(deleter).release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    child = world.job(result.child_id)
    assert (child.state, child.hidden, child.kind, child.planned) == (
        S.VERIFIED, 2, DeletionKind.ANNOTATIONS, {"annotation": 2},
    )  # fmt: skip
    assert left(world) == [20]


def test_a_restart_takes_it_up(world: World) -> None:
    result = world.deleter().delete(by_annotations(**SCORES), wait_s=0, wait_for="hidden")
    assert result.state is S.HIDDEN
    assert left(world) == [20]
    world.restarted().run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED


def test_a_cancel_shows_them_again(world: World) -> None:
    deleter = world.deleter()
    later = world.clock.now_ns() + 10**12
    result = deleter.delete(by_annotations(**SCORES, not_before_ns=later))
    assert result.state is S.HIDDEN
    assert left(world) == [20]
    assert deleter.cancel(result.deletion_id, by="key_1").job.state is S.CANCELLED
    assert len(left(world)) == 9


def test_the_same_can_be_said_anew(world: World) -> None:
    world.deleter().delete(by_annotations(**SCORES))
    say(world.store, 3, "t3")
    assert left(world) == [3, 20]


def test_a_trace_with_the_id_of_an_annotation_keeps_its_share(tmp_path: Path) -> None:
    """Feedback may carry any id, that of a trace as well."""
    with open_world(tmp_path, real=True) as world:
        assert world.real is not None
        trace_id = f"{5:032x}"
        world.store.write([make_trace(trace_id)], received_ns=T0_NS)
        world.real.set_share(1, 1, trace_id, public=True)
        say(world.store, 5, "t5")
        assert world.deleter().delete(by_annotations(annotation_ids=(trace_id,))).state is S.VERIFIED
        result = world.deleter().delete(by_ids(trace_id))
        assert world.job(result.deletion_id).purged["share"] == 1, "it was there until its trace went"


# -- on the embedded store, with rows that stay -----------------------------------------------------------------------


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, clock=FixedClock(), ids=CountingIds()) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path, catalog: Catalog) -> Iterator[SqliteStore]:
    opened = open_local_store(tmp_path, catalog.tombstone_secret)
    for number in range(3):
        opened.writer.submit([make_trace(f"t{number}")], T0_NS).result()
        say(opened.annotations, number, f"t{number}")
    yield opened
    opened.close()


def test_rows_that_stay_are_named_and_a_retry_removes_them(store: SqliteStore, catalog: Catalog) -> None:
    """The mutation of test_deletion_mutations.py: a trigger of the database keeps the rows."""
    deleter = Deleter(
        store.deletions,
        CatalogRecords(catalog, FixedClock(), CountingIds()),
        FixedClock(),
        CountingIds(),
        secret=SECRET,
    )
    run = store.writer._service.conn.execute  # type: ignore[attr-defined]
    run("CREATE TRIGGER keep BEFORE DELETE ON annotation BEGIN SELECT RAISE(IGNORE); END")
    result = deleter.delete(replace(by_annotations(**SCORES), window=Window(0, 2**62)))
    job = deleter.status(result.deletion_id).job
    assert (result.state, job.problem) == (S.FAILED, "survivors:annotation,hidden_annotation")
    assert store.reader.list_annotations(SCOPE, AnnotationQuery(), limit=9) == [], "what is there stays hidden"
    deleter.retry(result.deletion_id, by="key_1")
    deleter.run_due()
    assert deleter.status(result.deletion_id).job.problem == job.problem, "nothing has changed"
    run("DROP TRIGGER keep")
    deleter.retry(result.deletion_id, by="key_1")
    deleter.run_due()
    job = deleter.status(result.deletion_id).job
    assert (job.state, job.purged["annotation"]) == (S.VERIFIED, 3)
    assert set(job.remaining.values()) == {0}
