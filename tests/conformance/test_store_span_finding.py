"""Spans found by their ids alone: run ids, whatever dialect they came by, and the ids that spans have themselves."""

from __future__ import annotations

import random

from clearspan.ingest.payload import decode_record
from clearspan.model.runs import run_id_of
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.testing.build import T0_NS, Built, make_batch, make_span
from clearspan.testing.runs import create, run_batches, run_id
from clearspan.testing.stores import Stores, visible

SEED = 20261122
SCOPE = Scope((1, 2))
HEX16 = ("0123456789abcdef", "0123456789abcde0", "00000000000000aa")
TRACE_IDS = (
    "a" * 32, "a" * 31 + "b", "c" * 32, "trace_abc", "0123456789abcdef", "z" * 32, "A long one: ü",
)  # fmt: skip
SPAN_IDS = (*HEX16, "f" * 32, "span one", "sixteen letters!", "thirty-two letters, not one more")


def fill(stores: Stores) -> None:
    """The same span ids in traces with ids of every kind, in two projects; some without the parent they name."""
    rng = random.Random(SEED)
    for project_id in (1, 2):
        for trace_id in TRACE_IDS:
            ids = rng.sample(SPAN_IDS, 5)
            items: list[Built] = [
                make_span(
                    span_id,
                    parent=ids[0] if n else None,
                    start_s=n,
                    text=f"{project_id} {trace_id} {span_id}",
                    context=SpanContext(environment="prod" if project_id == 2 else None),
                )
                for n, span_id in enumerate(ids)
            ]
            stores.writer.write([make_batch(trace_id, items, project_id=project_id)], received_ns=T0_NS)
    stores.writer.write(run_batches(create(1, trace=1), create(2, trace=1)), received_ns=T0_NS)


def everything(stores: Stores, project_ids: tuple[int, ...] = (1, 2)) -> dict[str, set[tuple[int, str, str]]]:
    """run id → (project, trace, span) of all that have it."""
    found: dict[str, set[tuple[int, str, str]]] = {}
    for (project_id, trace_id), seen in visible(stores.reader, project_ids).items():
        for each in seen.spans:
            span_id = each.span.span_id
            made = run_id_of(trace_id, span_id, span_id == seen.summary.root_span_id)
            found.setdefault(made, set()).add((project_id, trace_id, span_id))
    return found


def places(stores: Stores, *run_ids: str, scope: Scope = SCOPE) -> set[tuple[int, str, str]]:
    rows = stores.spans.find_spans(scope, run_ids)
    keys = [(row.trace.trace_pk, row.detail.span.span_id) for row in rows]
    assert keys == sorted(set(keys))
    return {(row.trace.project_id, row.trace.summary.trace_id, row.detail.span.span_id) for row in rows}


def test_every_span_is_found_by_its_run_id(stores: Stores) -> None:
    fill(stores)
    expected = everything(stores)
    assert len(expected) > 30
    for made, spans in expected.items():
        assert places(stores, made) == spans, made
    assert places(stores, *expected) == set().union(*expected.values())


def by_own_id(stores: Stores, *span_ids: str, project_ids: tuple[int, ...] = (1, 2)) -> set[tuple[int, str, str]]:
    """(project, trace, span) of every visible span that is called so."""
    return {
        (project_id, trace_id, each.span.span_id)
        for (project_id, trace_id), seen in visible(stores.reader, project_ids).items()
        for each in seen.spans
        if each.span.span_id in span_ids
    }


def test_every_span_is_found_by_its_own_id(stores: Stores) -> None:
    fill(stores)
    own = [each for each in SPAN_IDS if len(each) != 32]
    assert places(stores, *own) == by_own_id(stores, *own)
    for span_id in own:
        assert places(stores, span_id) == by_own_id(stores, span_id) != set()
    assert places(stores, *HEX16, *HEX16, "b" * 16) == by_own_id(stores, *HEX16)
    assert places(stores, *HEX16, scope=Scope((1,))) == by_own_id(stores, *HEX16, project_ids=(1,))
    assert places(stores, *HEX16, scope=Scope((1, 2), "prod")) == by_own_id(stores, *HEX16, project_ids=(2,))
    assert places(stores, HEX16[0], run_id(1)) == by_own_id(stores, HEX16[0], run_id(1))
    planned = stores.deletions.plan_ids(SCOPE, TRACE_IDS[:3], Window())
    stores.deletions.hide("del-1", SCOPE, None, Window(), planned, b"{}")
    left = by_own_id(stores, *HEX16)
    assert places(stores, *HEX16) == left
    stores.deletions.purge_batch("del-1", 0, rows_max=1000)
    assert places(stores, *HEX16) == left


def test_span_ids_are_found_in_every_bucket(stores: Stores) -> None:
    ids = [f"{n:016x}" for n in range(2_600)]  # three buckets of 1,024 traces, the last one not full
    batches = [make_batch(f"{n:032x}", [make_span(ids[n])]) for n in range(2_600)]
    stores.writer.write(batches, received_ns=T0_NS)
    stores.writer.write([make_batch("f" * 32, [make_span(ids[5])])], received_ns=T0_NS)
    for n in (0, 5, 1_022, 1_023, 1_024, 2_047, 2_048, 2_599):
        expected = {(1, f"{n:032x}", ids[n])} | ({(1, "f" * 32, ids[5])} if n == 5 else set())
        assert places(stores, ids[n]) == expected
    assert len(places(stores, *ids[1_000:2_100])) == 1_100


def test_what_is_found_is_whole(stores: Stores) -> None:
    fill(stores)
    whole = visible(stores.reader, [1, 2])
    for row in stores.spans.find_spans(SCOPE, list(everything(stores))):
        seen = whole[row.trace.project_id, row.trace.summary.trace_id]
        assert row.detail in seen.spans
        assert row.trace.summary._replace(metadata_all=()) == seen.summary._replace(metadata_all=())
        assert decode_record(row.detail.record).raw


def test_other_ids_find_nothing(stores: Stores) -> None:
    fill(stores)
    nowhere = [run_id(77), run_id_of("c" * 32, "b" * 16, False), run_id_of("no", "where", False), "b" * 16, ""]
    assert places(stores, *nowhere) == set()
    assert places(stores, "span on", "sixteen letters?", HEX16[0].upper(), "trace_abc", HEX16[0][:15]) == set()
    assert places(stores) == set()


def test_scopes_hold(stores: Stores) -> None:
    fill(stores)
    ids = list(everything(stores))
    assert places(stores, *ids, scope=Scope((1,))) == set().union(*everything(stores, (1,)).values())
    assert places(stores, *ids, scope=Scope((1, 2), "prod")) == set().union(*everything(stores, (2,)).values())
    assert places(stores, *ids, scope=Scope(())) == set()


def test_hidden_spans_are_not_found(stores: Stores) -> None:
    fill(stores)
    ids = list(everything(stores))
    planned = stores.deletions.plan_ids(SCOPE, ["a" * 32, run_id(1), "trace_abc"], Window())
    stores.deletions.hide("del-1", SCOPE, None, Window(), planned, b"{}")
    left = set().union(*everything(stores).values())
    assert places(stores, *ids) == left
    stores.deletions.purge_batch("del-1", 0, rows_max=1000)
    assert places(stores, *ids) == left


def test_a_late_root_takes_the_name_of_the_trace(stores: Stores) -> None:
    trace_id = "d" * 32
    child, root = make_span(HEX16[0], parent=HEX16[1], start_s=1), make_span(HEX16[1], start_s=0)
    stores.writer.write([make_batch(trace_id, [child])], received_ns=T0_NS)
    assert places(stores, trace_id) == {(1, trace_id, HEX16[0])}
    stores.writer.write([make_batch(trace_id, [root])], received_ns=T0_NS)
    assert places(stores, trace_id) == {(1, trace_id, HEX16[1])}
    assert places(stores, run_id_of(trace_id, HEX16[0], False)) == {(1, trace_id, HEX16[0])}
