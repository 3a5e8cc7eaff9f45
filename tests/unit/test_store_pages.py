"""Deep pages, which the hourly counters find; and a store of the version before that learns a new index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import apsw
import pytest

from clearspan.model.trace import Scope, Window
from clearspan.query.page import OffsetPage, parse_sort
from clearspan.store.sqlite import listing, schema
from clearspan.store.sqlite.open import SqliteStore
from clearspan.store.sqlite.rows import HOUR_NS
from clearspan.testing.build import T0_NS, make_batch, make_span
from clearspan.testing.local_store import open_local_store

TRACES = 120
HOUR_S = 3600


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """Traces of two projects in nine hours, with empty hours between them and many that start together."""
    opened = open_local_store(tmp_path_factory.mktemp("data"))
    rng = random.Random(6)
    starts = [rng.choice((0, 1, 2, 5, 8)) * HOUR_S + rng.choice((0, 7, 1800, 3599)) for _ in range(TRACES)]
    batches = [
        make_batch(f"t{n}", [make_span("s", start_s=start, completion_tokens=tokens(n))], project_id=1 + n % 2)
        for n, start in enumerate(starts)
    ]
    opened.writer.submit(batches, T0_NS).result()
    yield opened
    opened.close()


@pytest.mark.parametrize(("projects", "sort"), list(product([(1,), (1, 2)], ["timestamp", "-timestamp"])))
def test_a_page_found_by_the_counters_is_the_page(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, projects: tuple[int, ...], sort: str
) -> None:
    bounds = [None, *(T0_NS // HOUR_NS * HOUR_NS + n * HOUR_NS // 2 for n in (0, 1, 2, 5, 9, 15, 16, 17, 40))]
    for start_ns, end_ns in product(bounds, bounds):
        window = Window(start_ns, end_ns)

        def page(number: int, size: int, window: Window = window) -> list[int]:
            found = store.reader.list_traces(Scope(projects), None, window, parse_sort(sort), OffsetPage(number, size))
            return [row.trace_pk for row in found.rows]

        monkeypatch.setattr(listing, "SKIP_MIN", 10_000)
        plain = page(1, 1000)
        monkeypatch.setattr(listing, "SKIP_MIN", 0)
        assert [pk for number in range(1, 20) for pk in page(number, 7)] == plain


def tokens(n: int) -> int | None:
    """Equal for several traces, unknown for some."""
    return None if n % 7 == 0 else n * 31 % 17


@pytest.mark.parametrize("sort", ["total_completion_tokens", "-total_completion_tokens", "-span_count"])
@pytest.mark.parametrize("sample", [1, 10, 1_000])
def test_a_page_above_a_sample_is_the_page(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, sample: int, sort: str
) -> None:
    def page(number: int, size: int) -> list[int]:
        found = store.reader.list_traces(Scope((1,)), None, Window(), parse_sort(sort), OffsetPage(number, size))
        return [row.trace_pk for row in found.rows]

    plain = page(1, 1000)
    monkeypatch.setattr(listing, "SAMPLE_FROM", 0)
    monkeypatch.setattr(listing, "SAMPLE_TRACES", sample)
    assert [pk for number in range(1, 20) for pk in page(number, 5)] == plain


def test_a_store_of_version_6_gets_the_covering_index(tmp_path: Path) -> None:
    conn = apsw.Connection(str(tmp_path / "old.db"))
    for migration in schema.migrations()[:6]:
        conn.execute(migration.sql)
    conn.execute("PRAGMA user_version = 6")
    assert schema.migrate(conn) >= 7
    plan = conn.execute(
        "EXPLAIN QUERY PLAN SELECT count(*) FROM trace INDEXED BY trace_by_error "
        "WHERE project_id = 1 AND error_count > 0 AND environment = 'a' AND llm_call_count > 2 AND total_tokens > 5"
    ).fetchall()
    assert "COVERING INDEX trace_by_error" in str(plan[0][3])
    conn.close()
