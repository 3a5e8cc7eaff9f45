"""A text search that gives up: what it found is right, its page is full if it can be, and its total is a floor."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Group
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage, parse_sort
from clearspan.store.port import TracePage
from clearspan.store.sqlite import textsearch
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import SECOND_NS, T0_NS, make_batch, make_span
from clearspan.testing.local_store import open_local_store

TRACES = 60
FIRST_TEN = OffsetPage(1, 10)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """Traces t0 … t59, the newest last; every one says `common`, each tenth `seldom`, in its second span."""
    opened = open_local_store(tmp_path_factory.mktemp("data"))
    rng = random.Random(5)
    for n in range(TRACES):
        word = "seldom" if n % 10 == 0 else "usual"
        texts = [rng.randbytes(60).hex(), f"common {word} {rng.randbytes(60).hex()}", rng.randbytes(60).hex()]
        spans = [make_span(f"s{at}", start_s=n, text=text, cost_pico=n) for at, text in enumerate(texts)]
        batch = make_batch(f"t{n}", spans)
        opened.writer.submit([batch], T0_NS + n * SECOND_NS).result()
    yield opened
    opened.close()


class Clock:
    """Stands in for `time` in textsearch: each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


def search(store: SqliteStore, word: str, page: OffsetPage = FIRST_TEN, sort: str = "-timestamp") -> TracePage:
    where = Condition(BY_NAME["text"], Operator.ICONTAINS, (word,))
    return store.reader.list_traces(Scope((1,)), where, Window(), parse_sort(sort), page)


def names(page: TracePage) -> list[str]:
    return [row.summary.trace_id for row in page.rows]


def limit(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(textsearch, "SEARCH_S_MAX", seconds)
    monkeypatch.setattr(textsearch, "COMPLETE_S_MAX", seconds)
    monkeypatch.setattr(textsearch, "time", Clock())


def test_a_search_in_time_is_exact(store: SqliteStore) -> None:
    found = search(store, "common")
    assert names(found) == [f"t{n}" for n in range(59, 49, -1)]
    assert (found.total, found.total_is_exact) == (TRACES, True)
    found = search(store, "SELDOM")
    assert names(found) == ["t50", "t40", "t30", "t20", "t10", "t0"]
    assert (found.total, found.total_is_exact) == (6, True)


@pytest.mark.parametrize("given_max", [0, 1_000])
@pytest.mark.parametrize("seconds", [5, 25, 45, 90])
def test_what_a_search_found_before_it_gave_up_is_right(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, seconds: int, given_max: int
) -> None:
    """Whether it starts from candidates or walks its index."""
    monkeypatch.setattr(textsearch, "PAGE_GIVEN_MAX", given_max)
    monkeypatch.setattr(textsearch, "CANDIDATES_GIVEN_MAX", given_max)
    limit(monkeypatch, seconds)
    for sort in ("-timestamp", "-total_cost", "timestamp", "-total_tokens"):
        found = search(store, "common", sort=sort)
        assert not found.total_is_exact
        assert len(found.rows) <= found.total <= TRACES
        if sort == "-timestamp":
            assert names(found) == [f"t{n}" for n in range(59, 59 - len(found.rows), -1)]


def test_a_page_comes_before_the_total(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walking in order, ten looks at ten traces fill it; there is time for no more than fifteen or so."""
    monkeypatch.setattr(textsearch, "PAGE_GIVEN_MAX", 0)
    limit(monkeypatch, 35)
    found = search(store, "common")
    assert names(found) == [f"t{n}" for n in range(59, 49, -1)]
    assert not found.total_is_exact
    assert 10 <= found.total < TRACES
    second = search(store, "common", OffsetPage(2, 10))
    assert second.total >= 10 + len(second.rows)


def test_many_hits_end_a_search_after_half_its_time(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textsearch, "PAGE_GIVEN_MAX", 0)
    monkeypatch.setattr(textsearch, "HITS_ENOUGH", 20)
    limit(monkeypatch, 80)
    half = search(store, "common").total
    monkeypatch.setattr(textsearch, "HITS_ENOUGH", 1_000)
    limit(monkeypatch, 80)
    assert 10 <= half < search(store, "common").total <= TRACES


def test_a_rare_text_is_found_completely(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has more time than a common one: as long as it has few candidates, or few were found."""
    limit(monkeypatch, 20)
    monkeypatch.setattr(textsearch, "COMPLETE_S_MAX", 1_000)
    assert search(store, "common").total_is_exact  # 60 candidates are few
    monkeypatch.setattr(textsearch, "PAGE_GIVEN_MAX", 10)
    assert search(store, "common").total_is_exact  # fewer than HITS_ENOUGH
    monkeypatch.setattr(textsearch, "HITS_ENOUGH", 5)
    assert not search(store, "common").total_is_exact
    assert search(store, "seldom").total_is_exact
    monkeypatch.setattr(textsearch, "CANDIDATES_GIVEN_MAX", 10)
    monkeypatch.setattr(textsearch, "HITS_ENOUGH", 1_000)
    assert not search(store, "common").total_is_exact


def test_a_deletion_never_gives_up(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 5)
    where = Condition(BY_NAME["text"], Operator.ICONTAINS, ("common",))
    assert store.reader.count_traces(Scope((1,)), where, Window()) == TRACES


def test_two_texts_at_once(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tuple(Condition(BY_NAME["text"], Operator.ICONTAINS, (word,)) for word in ("common", "seldom"))
    both = Group("AND", parts)
    found = store.reader.list_traces(Scope((1,)), both, Window(), NEWEST_FIRST, FIRST_TEN)
    assert (found.total, found.total_is_exact, len(found.rows)) == (6, True, 6)
    limit(monkeypatch, 20)
    found = store.reader.list_traces(Scope((1,)), both, Window(), NEWEST_FIRST, FIRST_TEN)
    assert set(names(found)) <= {"t50", "t40", "t30", "t20", "t10", "t0"}
    assert len(found.rows) <= found.total <= 6
    either = Group("OR", parts)
    limit(monkeypatch, 20)
    found = store.reader.list_traces(Scope((1,)), either, Window(), NEWEST_FIRST, FIRST_TEN)
    assert len(found.rows) <= found.total <= TRACES
    assert not found.total_is_exact
