"""Deletions take the traces of evaluators with them, which hold what is to be removed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from clearspan.deletion.job import DeletionJob
from clearspan.deletion.linked import KEYS, Copies, copies_not_covered, copies_taken, find_copies, widened
from clearspan.deletion.plan import parse_private
from clearspan.deletion.policy import Policy
from clearspan.deletion.preview import parse_kept, render_kept
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.deletion.result import render_message, render_message_for_one
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Conflict, NotPermitted, Unguarded
from clearspan.model.runs import run_id_of, spellings_of
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import METADATA
from clearspan.query.operators import Operator
from clearspan.store.memory import MemoryStore
from clearspan.store.port import PlannedTrace
from clearspan.store.sqlite import linking
from clearspan.testing.build import SECOND_NS, T0_NS, make_batch, make_span, with_metadata
from clearspan.testing.catalog import FakeCatalog
from clearspan.testing.deletions import ANNA, BERT, DAY, World, by_filter, by_ids, hold_on, open_world
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, visible

A, B = "a" * 32, "b" * 32
APP, EVALUATORS, OTHER = 1, 2, 3
REACH = Scope((APP, EVALUATORS))
EVERYWHERE = Scope((APP, EVALUATORS, OTHER))


@pytest.fixture(params=[False, True], ids=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param, traces=0) as made:
        if isinstance(made.catalog, FakeCatalog):
            made.catalog.projects = EVERYWHERE.project_ids
        else:
            assert made.real is not None
            for name in ("evaluators", "other"):
                made.real.create_project(made.real.first_org.id, name)
        fill(made.store)
        yield made


def fill(store: MemoryStore) -> None:
    """A run of anna and one of bert, each judged, the judge judged, and judged once more where few may look."""
    write(store, A, customer_identifier="anna")
    write(store, B, customer_identifier="bert")
    write(store, "1" * 32, project_id=EVALUATORS, about=A, start_s=1e6)
    write(store, "2" * 32, project_id=EVALUATORS, about="1" * 32, key="reference_run_id", start_s=2e6)
    write(store, "3" * 32, project_id=OTHER, about=A)
    write(store, "4" * 32, project_id=EVALUATORS, about=B)


def write(
    store: MemoryStore,
    trace_id: str,
    *,
    project_id: int = APP,
    about: str | None = None,
    key: str = "target_run_id",
    start_s: float = 0,
    **context: str,
) -> None:
    pairs = {} if about is None else {key: str(UUID(about))}
    span = make_span(trace_id, start_s=start_s, context=with_metadata(pairs, **context))
    store.write([make_batch(trace_id, [span], project_id=project_id)], received_ns=T0_NS)


def left(world: World) -> set[str]:
    return {trace_id[0] for _, trace_id in visible(world.store, EVERYWHERE.project_ids)}


def in_reach(asked: DeletionRequest, reach: Scope = REACH) -> DeletionRequest:
    return replace(asked, reach=reach)


@pytest.mark.parametrize("asked", [by_filter(ANNA), by_ids(A), by_ids(A, window=DAY)], ids=["filter", "id", "both"])
def test_judges_and_their_judges_go_with_what_they_judged(world: World, asked: DeletionRequest) -> None:
    """They match no filter, lie outside the window, and in another project."""
    deleter = world.deleter()
    result = deleter.delete(in_reach(asked))
    assert result.state is DeletionState.VERIFIED
    assert (result.matched, result.hidden, result.no_longer_matching) == (3, 3, 0)
    assert (result.copies, result.copies_not_covered) == (2, 1)
    assert left(world) == {"b", "3", "4"}
    job = world.job(result.deletion_id)
    assert job.project_ids == (APP, EVALUATORS), "who may see it must be allowed to see both"
    assert job.shape[-2:] == ("copies:taken:2", "copies:not_covered:1")
    assert world.catalog.receipt(result.deletion_id) is not None


def test_reach_is_the_scope_where_nobody_says_more(world: World) -> None:
    result = world.deleter().delete(by_ids(A))
    assert (result.hidden, result.copies, result.copies_not_covered) == (1, 0, 2)
    assert left(world) == {"b", "1", "2", "3", "4"}


def test_with_all_projects_in_reach_nothing_is_left_out(world: World) -> None:
    result = world.deleter().delete(in_reach(by_ids(A), EVERYWHERE))
    assert (result.hidden, result.copies, result.copies_not_covered) == (4, 3, 0)
    assert left(world) == {"b", "4"}


def test_copies_stay_on_request_and_are_counted(world: World) -> None:
    result = world.deleter().delete(replace(in_reach(by_ids(A)), leave_copies=True))
    assert (result.hidden, result.copies, result.copies_not_covered) == (1, 0, 2)
    assert left(world) == {"b", "1", "2", "3", "4"}


def test_an_environment_of_the_request_is_not_one_of_its_copies(world: World) -> None:
    write(world.store, "5" * 32, environment="prod", customer_identifier="anna")
    write(world.store, "6" * 32, project_id=EVALUATORS, about="5" * 32, environment="test")
    asked = replace(by_filter(ANNA), scope=Scope((APP,), "prod"))
    own = world.deleter().plan(replace(asked, reach=Scope((APP, EVALUATORS), "prod")))
    assert (len(own.traces), own.copies_not_covered) == (1, 1), "a key of one environment reaches no other"
    result = world.deleter().delete(in_reach(asked))
    assert (result.hidden, result.copies, result.no_longer_matching) == (2, 1, 0)
    assert left(world) == {"a", "b", "1", "2", "3", "4"}


def test_a_preview_lists_the_copies_and_deletes_exactly_that(world: World) -> None:
    deleter = world.deleter()
    told = deleter.preview(in_reach(by_filter(ANNA)))
    assert (len(told.plan.traces), len(told.plan.copies), told.plan.copies_not_covered) == (3, 2, 1)
    assert told.by_project == {APP: 1, EVALUATORS: 2}
    assert parse_kept(render_kept(told.plan, 5)).plan.copies == told.plan.copies
    who = {"org_id": 1, "requested_by": "key_1"}
    with pytest.raises(NotPermitted):
        deleter.delete_planned(told.token, **who, project_ids=(APP,))  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="2 of them because they hold copies"):
        deleter.delete_planned(told.token, **who, expected_count=1)  # type: ignore[arg-type]
    result = deleter.delete_planned(told.token, **who, project_ids=REACH.project_ids, expected_count=3)  # type: ignore[arg-type]
    assert (result.hidden, result.copies, result.state) == (3, 2, DeletionState.VERIFIED)


def test_what_no_longer_matches_stays_whatever_its_copies(world: World) -> None:
    deleter = world.deleter()
    hide = world.store.hide

    def change_first(*args: object, **rest: object) -> object:
        write(world.store, A, customer_identifier="bert", start_s=0.5)
        return hide(*args, **rest)  # type: ignore[arg-type]

    world.store.hide = change_first  # type: ignore[method-assign,assignment]
    result = deleter.delete(in_reach(by_filter(ANNA, window=Window(T0_NS, T0_NS + SECOND_NS))))
    assert (result.matched, result.hidden, result.no_longer_matching) == (3, 2, 1)
    assert left(world) >= {"a", "b"}


def test_limits_of_the_key_count_copies_and_those_of_a_dialect_do_not(world: World) -> None:
    deleter = world.deleter()
    with pytest.raises(Unguarded):
        deleter.plan(in_reach(by_filter(ANNA, policy=Policy(max_traces=2))))
    with pytest.raises(Unguarded):
        deleter.plan(in_reach(by_filter(ANNA, policy=Policy(max_share_ppm=500_000))))
    with pytest.raises(Conflict):
        deleter.plan(in_reach(by_filter(ANNA, expected_count=1)))
    assert len(deleter.plan(in_reach(by_filter(ANNA, matches_max=1, expected_count=3))).traces) == 3


def test_a_hold_keeps_a_copy_and_its_remainder_goes_later(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    hold, _ = holds.create(replace(hold_on("1" * 32), scope=REACH))
    result = deleter.delete(in_reach(by_filter(ANNA)))
    assert (result.hidden, result.held) == (2, 1)
    assert left(world) == {"b", "1", "3", "4"}
    assert result.child_id is not None
    holds.release(hold.hold_id, org_id=1, by="key_2")
    deleter.run_due()
    assert world.job(result.child_id).hidden == 1, "the copy matches no filter and is let go all the same"
    assert left(world) == {"b", "3", "4"}


def test_the_stored_request_is_the_widened_one(world: World) -> None:
    plan = world.deleter().plan(in_reach(by_filter(ANNA)))
    carried = parse_private(plan.private_bytes(), 1)
    assert carried.scope == REACH
    assert carried.window == Window()
    assert orjson.loads(plan.private_bytes())["request"]["window"] == list(DAY)


def test_without_copies_the_request_is_carried_out_as_it_is() -> None:
    asked = by_filter(BERT)
    assert widened(asked, []) is asked


def test_messages_say_what_was_taken_and_what_was_not(world: World) -> None:
    result = world.deleter().delete(in_reach(by_ids(A)))
    told = "2 of the 3 traces hold copies of the others. 1 traces with copies are not covered and stay as they are"
    assert render_message(result) == f"Successfully deleted 3 traces. {told}"
    assert render_message_for_one(result, A) == f"Successfully deleted trace {A}. {told}"


def test_a_job_of_before_says_that_there_were_none() -> None:
    shape = ("customer_identifier:equals:1",)
    assert (copies_taken(shape), copies_not_covered(shape)) == (0, 0)
    assert "copies" not in DeletionJob.__slots__


@pytest.mark.parametrize("seed", range(12))
def test_the_copies_are_what_a_plain_walk_finds(seed: int) -> None:
    """Graphs with loops, chains and several targets, in three projects."""
    rng = random.Random(seed)
    store = MemoryStore(TOMBSTONE_SECRET)
    ids = [f"{n:032x}" for n in range(1, 25)]
    about = {each: rng.sample(ids, rng.choice([0, 0, 1, 1, 2])) for each in ids}
    project = {each: rng.choice([APP, EVALUATORS, OTHER]) for each in ids}
    for each in ids:
        keys = rng.sample(["target_run_id", "reference_run_id"], 2)
        pairs = {key: str(UUID(target)) for key, target in zip(keys, about[each], strict=False)}
        span = make_span(each, context=with_metadata(pairs))
        store.write([make_batch(each, [span], project_id=project[each])], received_ns=T0_NS)
    planned = store.plan(EVERYWHERE, None, Window(), received_before_ns=2**63 - 1, limit=99)
    chosen = rng.sample(planned, 3)
    expected = {trace.trace_id for trace in chosen}
    while True:
        more = {each for each in ids if project[each] != OTHER and expected & set(about[each])} - expected
        if not more:
            break
        expected |= more
    beyond = {each for each in ids if expected & set(about[each])} - expected
    found = find_copies(store, chosen, REACH, EVERYWHERE, {}, limit=100)
    assert {trace.trace_id for trace in found.traces} == expected - {trace.trace_id for trace in chosen}
    assert list(found.traces) == sorted(found.traces)
    assert found.not_covered == len(beyond)


def test_more_copies_than_a_plan_may_list_are_listed_one_too_many() -> None:
    store = MemoryStore(TOMBSTONE_SECRET)
    fill(store)
    [root] = store.plan_ids(Scope((APP,)), [A], Window())
    assert len(find_copies(store, [root], EVERYWHERE, EVERYWHERE, {}, limit=1).traces) == 2
    assert find_copies(store, [], EVERYWHERE, EVERYWHERE, {}, limit=1) == Copies()
    assert isinstance(root, PlannedTrace)


def test_a_metadata_filter_keeps_to_its_own_matches(world: World) -> None:
    """The evaluator's own metadata is no reason to take what it judged."""
    where = Condition(METADATA, Operator.EQUALS, (str(UUID(A)),), "target_run_id")
    asked = DeletionRequest(1, "key_1", "native", REACH, ByFilter(where), delete_all=True)
    result = world.deleter().delete(asked)
    assert (result.hidden, result.copies) == (2, 1)
    assert left(world) == {"a", "b", "3", "4"}
    assert isinstance(by_ids(A).selection, ByIds)


@pytest.mark.parametrize("seed", range(10))
def test_from_the_runs_and_from_the_links_the_same_is_found(tmp_path: Path, seed: int) -> None:
    """Ids of every kind (own, of the root, UUIDv8, UUIDv5), in every spelling, with names of nothing among them."""
    rng = random.Random(seed)
    store, memory = open_local_store(tmp_path, TOMBSTONE_SECRET), MemoryStore(TOMBSTONE_SECRET)
    with contextlib.closing(store):
        ids = [*[f"{rng.getrandbits(128):032x}" for _ in range(20)], *[f"trace {n}" for n in range(5)]]
        spans = {each: [_span_id(rng, each) for _ in range(rng.randint(1, 3))] for each in ids}
        names = [run_id_of(each, own, at == 0) for each in ids for at, own in enumerate(spans[each])]
        names += [*ids[:20], f"{rng.getrandbits(128):032x}"]
        for each in ids:
            pairs = {}
            for key in rng.sample([*KEYS, "other"], rng.randint(0, 2)):
                pairs[key] = rng.choice([*spellings_of(rng.choice(names)), "no id", "A" * 31 + "b"])
            context = with_metadata(pairs)
            made = [make_span(own, start_s=at, context=context) for at, own in enumerate(spans[each])]
            batch = make_batch(each, made, project_id=rng.choice([APP, EVALUATORS, OTHER]))
            store.writer.write_now([batch], received_ns=T0_NS)
            memory.write([batch], received_ns=T0_NS)
        planned = store.deletions.plan(EVERYWHERE, None, Window(), received_before_ns=2**63 - 1, limit=99)
        again = {(each.project_id, each.trace_id): each.trace_pk for each in _all(memory)}
        for size in (1, 3, 12):
            pks = [each.trace_pk for each in rng.sample(planned, size)]
            with store.reader.snapshot() as conn:
                used = linking.uses(conn, EVERYWHERE, KEYS)
                from_links = linking.from_links(conn, used, pks, linking.measure(conn, pks).projects)
                assert from_links == linking.from_runs(conn, used, pks)
            chosen = store.deletions.naming(EVERYWHERE, pks, KEYS, limit=99)
            assert {each.trace_pk for each in chosen} == from_links
            plain = [again[each.project_id, each.trace_id] for each in planned if each.trace_pk in pks]
            expected = memory.naming(EVERYWHERE, plain, KEYS, limit=99)
            assert {each.trace_id for each in chosen} == {each.trace_id for each in expected}


def _span_id(rng: random.Random, trace_id: str) -> str:
    own = f"{rng.getrandbits(128):032x}"
    return rng.choice([own, own[:16], f"span {own[:4]}", trace_id])


def _all(store: MemoryStore) -> list[PlannedTrace]:
    return store.plan(EVERYWHERE, None, Window(), received_before_ns=2**63 - 1, limit=99)


def test_a_name_in_capitals_is_understood(world: World) -> None:
    write(world.store, "5" * 32, project_id=EVALUATORS)
    span = make_span("6" * 32, context=with_metadata({"target_run_id": str(UUID("ab" * 16)).upper()}))
    write(world.store, "ab" * 16)
    world.store.write([make_batch("6" * 32, [span], project_id=EVALUATORS)], received_ns=T0_NS)
    assert world.deleter().delete(in_reach(by_ids("ab" * 16))).copies == 1
