"""Any order of any batches, each any number of times, gives one trace."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.ingest.merge import merge, wins
from clearspan.ingest.rollup import summarise, tree_parents
from clearspan.model.span import LogRecord, Span, SpanContext
from clearspan.model.trace import TraceSummary

SHUFFLES = 100
SHUFFLES_LONG = 1_000
IDS = [f"s{i}" for i in range(8)]
KINDS = ["span", "chat", "workflow", "agent", "tool", "embedding"]

CONTEXTS = {
    0: SpanContext(),
    1: SpanContext(customer_identifier="ada", session_id="s1", metadata=(("plan", "pro"), ("n", "1"))),
    2: SpanContext(customer_identifier="bob", environment="dev", tags=("x",), metadata=(("n", "2"),)),
}

optional_counts = st.none() | st.integers(0, 5_000)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """A span of a small trace: parents may be absent, missing, itself or part of a cycle."""
    start_ns = draw(st.integers(0, 20))
    prompt, completion = draw(optional_counts), draw(optional_counts)
    return Span(
        draw(st.sampled_from(IDS)), draw(st.none() | st.sampled_from([*IDS, "gone"])), draw(st.sampled_from("abc")),
        None, draw(st.none() | st.just("flow")), None, draw(st.sampled_from(KINDS)), None, start_ns,
        start_ns + draw(st.integers(0, 20)), draw(st.sampled_from(["unset", "ok", "error"])), None, None, None,
        draw(st.none() | st.just("m")), None, None, None, None, None, None, prompt, completion, None, None, None, None,
        draw(st.booleans()), draw(optional_counts), None, None, None, None, draw(st.sampled_from([0, 1, 2])),
        draw(st.integers(0, 3)),
    )  # fmt: skip


logs = st.builds(
    LogRecord, st.integers(0, 5), st.none() | st.sampled_from(IDS), st.integers(0, 9), st.none() | st.just("e"),
    st.none(), st.sampled_from([0, 1, 2]),
)  # fmt: skip


def store(arrived: Sequence[Span], logged: Sequence[LogRecord]) -> TraceSummary:
    """What a store holds after these arrivals, in this order."""
    kept = {log.log_hash: log for log in logged}
    return summarise("t", list(merge(arrived).values()), list(kept.values()), CONTEXTS)


def distinct_contents(arrived: Sequence[Span]) -> list[Span]:
    """One span per (id, end, hash): the same hash is the same content."""
    return list({(each.span_id, each.end_ns, each.content_hash): each for each in arrived}.values())


def assert_order_free(arrived: list[Span], logged: list[LogRecord], seed: int) -> None:
    rng = random.Random(seed)
    first = store(arrived, logged)
    again = arrived + rng.choices(arrived, k=len(arrived))
    logged = logged + logged
    rng.shuffle(again)
    rng.shuffle(logged)
    assert store(again, logged) == first, f"seed {seed}"


arrivals = st.lists(spans(), min_size=1, max_size=24).map(distinct_contents)
log_lists = st.lists(logs, max_size=4, unique_by=lambda log: log.log_hash)


@pytest.mark.promise("P2", "F9 F10", runs=SHUFFLES)
@given(arrivals, log_lists, st.integers(0, 2**32))
@settings(max_examples=SHUFFLES, deadline=None)
def test_order_and_repeats_change_nothing(arrived: list[Span], logged: list[LogRecord], seed: int) -> None:
    assert_order_free(arrived, logged, seed)


@pytest.mark.promise("P2", "F9 F10", runs=SHUFFLES_LONG)
@pytest.mark.long
@given(arrivals, log_lists, st.integers(0, 2**32))
@settings(max_examples=SHUFFLES_LONG, deadline=None)
def test_order_and_repeats_change_nothing_long(arrived: list[Span], logged: list[LogRecord], seed: int) -> None:
    assert_order_free(arrived, logged, seed)


@given(spans(), spans())
def test_of_two_contents_one_wins(one: Span, two: Span) -> None:
    assert not wins(one, one)
    if (one.end_ns, one.content_hash) != (two.end_ns, two.content_hash):
        assert wins(one, two) != wins(two, one)


@given(arrivals)
@settings(deadline=None)
def test_every_span_reaches_a_root_and_only_cycles_are_cut(arrived: list[Span]) -> None:
    held = list(merge(arrived).values())
    parents = tree_parents(held)
    for each in held:
        at, steps = each.span_id, 0
        while (parent := parents[at]) is not None:
            at, steps = parent, steps + 1
            assert steps <= len(held), "a cycle"
        if parents[each.span_id] is not None:
            assert parents[each.span_id] == each.parent_id


@given(arrivals)
@settings(deadline=None)
def test_sums_take_no_span_and_its_ancestor(arrived: list[Span]) -> None:
    held = list(merge(arrived).values())
    found = store(arrived, [])
    own = [each for each in held if not each.usage_repeats]
    assert (found.prompt_tokens or 0) <= sum(each.prompt_tokens or 0 for each in own)
    assert found.llm_call_count <= sum(each.kind in ("chat", "embedding") for each in held)
    assert found.error_count == sum(each.status == "error" for each in held)
    assert found.span_count == len(held)
