"""Traces whose metadata names runs of other traces, found in every store as in a plain model."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from clearspan.model.runs import run_id_of
from clearspan.model.trace import Scope, Window
from clearspan.store.port import PlannedTrace
from clearspan.testing.build import T0_NS, make_batch, make_span, make_trace, with_metadata
from clearspan.testing.stores import Stores

KEYS = ("target_run_id", "reference_run_id")
TRACE_IDS = ("a" * 32, "b" * 32, "trace_abc", "0123456789abcdef")
SPAN_IDS = ("c" * 32, "0123456789abcde0", "span one")
EVERYWHERE = Scope((1, 2, 3))


def planned(stores: Stores, scope: Scope = EVERYWHERE) -> list[PlannedTrace]:
    return stores.deletions.plan(scope, None, Window(), received_before_ns=2**63 - 1, limit=10_000)


def names(found: list[PlannedTrace]) -> set[tuple[int, str]]:
    return {(trace.project_id, trace.trace_id) for trace in found}


def judge(stores: Stores, trace_id: str, key: str, value: str, *, project_id: int = 2, **context: str) -> None:
    """A trace of an evaluator: its second span says what it judged."""
    root = make_span(f"{trace_id}.0")
    run = make_span(f"{trace_id}.1", parent=f"{trace_id}.0", context=with_metadata({key: value}, **context))
    stores.writer.write([make_batch(trace_id, [root, run], project_id=project_id)], received_ns=T0_NS)


@pytest.mark.parametrize("seed", range(4))
def test_every_run_of_every_kind_is_found_and_nothing_else(stores: Stores, seed: int) -> None:
    rng = random.Random(seed)
    targets: dict[str, str] = {}  # run id → trace id
    for trace_id in TRACE_IDS:
        spans = [make_span(f"root of {trace_id}")]
        spans += [make_span(each, parent=f"root of {trace_id}", start_s=1) for each in SPAN_IDS]
        stores.writer.write([make_batch(trace_id, spans)], received_ns=T0_NS)
        for number, span in enumerate(spans):
            targets[run_id_of(trace_id, getattr(span.row, "span_id"), number == 0)] = trace_id  # noqa: B009
    shared = run_id_of("", "c" * 32, False)  # one span id in all four traces is one run id
    expected: dict[str, set[tuple[int, str]]] = {trace_id: set() for trace_id in TRACE_IDS}
    for number, (run_id, trace_id) in enumerate(sorted(targets.items())):
        key, project_id = rng.choice([*KEYS, "other"]), rng.choice([2, 3])
        judge(stores, f"j{number}", key, rng.choice([run_id, str(UUID(run_id))]), project_id=project_id)
        if key in KEYS:
            for each in TRACE_IDS if run_id == shared else (trace_id,):
                expected[each].add((project_id, f"j{number}"))
    judge(stores, "stranger", KEYS[0], str(UUID(int=12)))
    by_id = {trace.trace_id: trace.trace_pk for trace in planned(stores)}
    for trace_id, wanted in expected.items():
        found = stores.deletions.naming(EVERYWHERE, [by_id[trace_id]], KEYS, limit=100)
        assert names(found) == wanted, trace_id
        assert found == sorted(found)
    every = [by_id[trace_id] for trace_id in TRACE_IDS]
    union = set.union(*expected.values())
    assert names(stores.deletions.naming(EVERYWHERE, every, KEYS, limit=100)) == union
    only = names(stores.deletions.naming(Scope((3,)), every, KEYS, limit=100))
    assert only == {each for each in union if each[0] == 3}
    assert len(stores.deletions.naming(EVERYWHERE, every, KEYS, limit=1)) == min(2, len(union))
    assert stores.deletions.naming(EVERYWHERE, every, ("nothing",), limit=9) == []


def test_what_is_given_hidden_or_of_another_environment_is_left_out(stores: Stores) -> None:
    stores.writer.write([make_trace("a" * 32)], received_ns=T0_NS)
    for number in (1, 2):
        judge(stores, f"j{number}", KEYS[0], str(UUID("a" * 32)), environment=f"e{number}")
    by_id = {trace.trace_id: trace for trace in planned(stores)}
    root = by_id["a" * 32].trace_pk

    def found(scope: Scope = EVERYWHERE, *given: int) -> set[str]:
        return {each.trace_id for each in stores.deletions.naming(scope, [root, *given], KEYS, limit=9)}

    assert found() == {"j1", "j2"}
    assert found(EVERYWHERE, by_id["j1"].trace_pk) == {"j2"}
    assert found(EVERYWHERE, 999) == {"j1", "j2"}, "a trace that is gone names nothing"
    assert found(Scope((1, 2), "e2")) == {"j2"}
    stores.deletions.hide("del_1", EVERYWHERE, None, Window(), [by_id["j1"]], b"x")
    assert found() == {"j2"}


def test_runs_are_found_by_their_ids_alone(stores: Stores) -> None:
    for number, key in enumerate((*KEYS, "other")):
        judge(stores, f"j{number}", key, str(UUID("d" * 32)).upper(), project_id=2)
    judge(stores, "j9", KEYS[0], "e" * 32, project_id=3)
    find = stores.deletions.naming_runs
    assert names(find(EVERYWHERE, ["d" * 32, "e" * 32], KEYS, limit=9)) == {(2, "j0"), (2, "j1"), (3, "j9")}
    assert names(find(Scope((2,)), ["d" * 32, "e" * 32], KEYS, limit=0)) == {(2, "j0")}, "one beyond the limit"
    assert find(EVERYWHERE, [], KEYS, limit=9) == find(EVERYWHERE, ["f" * 32], KEYS, limit=9) == []
