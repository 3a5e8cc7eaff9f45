"""Figures of an experiment out of the store are those of its results read one by one, in both stores."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.comparison_outcomes import Outcome, outcomes_of

from clearspan.api.respan.experiments.histograms import binned
from clearspan.experiments.histogram import number_bins, truth_bins, word_bins
from clearspan.experiments.pairing import normal_key, read_side
from clearspan.experiments.result_runs import NEWEST, SUPERSEDED_KEY
from clearspan.experiments.results import Result, Results, ResultSummary, words_of
from clearspan.experiments.score_types import ScoreType
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.trace import Scope, Window
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.annotations import AnnotationWrite
from clearspan.store.memory import MemoryStore
from clearspan.store.sqlite import score_columns
from clearspan.testing.build import T0_NS, make_annotation, make_batch, make_span, with_metadata
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores

SCOPE, WINDOW = Scope((1,)), Window()
FAST = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ("exact", "tone")

results = st.lists(
    st.fixed_dictionaries(
        {
            "item": st.sampled_from([None, "5eed0000-0000-4000-8000-000000000001", "odd"]),
            "superseded": st.booleans(),
            "status": st.sampled_from(["ok", "error", "pending"]),
            "seconds": st.floats(0, 9).map(lambda value: round(value, 3)),
            "cost_pico": st.one_of(st.none(), st.integers(0, 2**62)),
            "tokens": st.one_of(st.none(), st.integers(0, 1000)),
            "ttft_s": st.one_of(st.none(), st.floats(0, 5)),
        }
    ),
    max_size=8,
)
said = st.lists(
    st.fixed_dictionaries(
        {
            "trace": st.integers(0, 7),
            "on_root": st.booleans(),
            "name": st.sampled_from(NAMES),
            "identifier": st.sampled_from(["", "a"]),
            "score": st.one_of(st.none(), st.floats(-10, 10), st.sampled_from([0.0, 1.0])),
            "label": st.sampled_from([None, "good", "bad"]),
            "value": st.sampled_from([None, b"true", b'["a","b","a"]', b'["a",1]']),
            "updated": st.integers(0, 5),
        }
    ),
    max_size=16,
)


@pytest.fixture(params=["memory", "sqlite by trace", "sqlite by name"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    few = 0 if request.param.endswith("name") else score_columns.FEW_TRACES
    with mock.patch.object(score_columns, "FEW_TRACES", few):
        yield request.param


def fill(stores: Stores, traces: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> None:
    for n, each in enumerate(traces):
        pairs = {} if each["item"] is None else {REFERENCE_EXAMPLE_KEY: each["item"]}
        pairs |= {SUPERSEDED_KEY: "2"} if each["superseded"] else {}
        span = make_span(
            f"r{n}", start_s=float(n), duration_s=each["seconds"], status=each["status"], ttft_s=each["ttft_s"],
            cost_pico=each["cost_pico"], completion_tokens=each["tokens"], context=with_metadata(pairs),
        )  # fmt: skip
        stores.writer.write([make_batch(f"t{n}", [span])], received_ns=T0_NS)
    for number, each in enumerate(annotations):
        n = each["trace"]
        target: dict[str, Any] = {"target": AnnotationTarget.TRACE, "trace_id": f"t{n}"}
        if each["on_root"]:
            target |= {"target": AnnotationTarget.SPAN, "span_id": f"r{n}"}
        fields = {name: each[name] for name in ("identifier", "score", "label", "value")}
        written = make_annotation(
            each["name"], number=number, created_ns=T0_NS, updated_ns=T0_NS + each["updated"], **target, **fields
        )
        stores.annotating.put_annotations([AnnotationWrite((1,), written)], received_ns=T0_NS)


def one_by_one(stores: Stores, reader: Results) -> list[Result]:
    """Every result that counts, in the order of arrival."""
    rows = stores.reader.list_traces(SCOPE, NEWEST, WINDOW, NEWEST_FIRST, OffsetPage(1, 100)).rows
    return sorted(reader.load(rows), key=lambda each: each.row.trace_pk)


def check_summary(found: ResultSummary, known: list[Result], first_tokens: list[float]) -> None:
    rows = [each.row.summary for each in known]
    costs = [row.cost_pico for row in rows if row.cost_pico is not None]
    assert (found.results, found.error_count) == (len(rows), sum(row.error_count for row in rows))
    assert found.cost_pico == (sum(costs) if costs else None)
    seconds = [row.duration_ns / 1e9 for row in rows]
    assert found.latency_s == (pytest.approx(math.fsum(seconds) / len(rows)) if rows else None)
    mean = math.fsum(first_tokens) / len(first_tokens) if first_tokens else None
    assert found.first_token_s == (None if mean is None else pytest.approx(mean))
    assert sorted(found.scores) == sorted({score.name for each in known for score in each.scores})
    for name, told in found.scores.items():
        scores = [score for each in known for score in each.scores if score.name == name]
        numbers = [score.score for score in scores if score.score is not None]
        assert told.sample == scores[-1]._replace(explanation=None)
        assert (told.n, told.mean.n) == (len(scores), len(numbers))
        assert told.mean.total == pytest.approx(math.fsum(numbers))
        assert (told.true_count, told.false_count) == (sum(x != 0 for x in numbers), sum(x == 0 for x in numbers))
        assert told.labels == Counter(word for score in scores for word in words_of(score))


def check_histograms(reader: Results, known: list[Result]) -> None:
    for name in NAMES:
        scores = [score for each in known for score in each.scores if score.name == name]
        column = reader.scores(SCOPE, NEWEST, WINDOW, name, in_words=True)
        if column is None:
            assert scores == []
            continue
        numbers = [score.score for score in scores if score.score is not None]
        in_words = [score for score in scores if words_of(score)]
        values = [score.score for score in in_words if score.score is not None]
        expected = {
            ScoreType.NUMERICAL: number_bins(numbers, 7),
            ScoreType.BOOLEAN: truth_bins([number != 0 for number in numbers]),
            ScoreType.CATEGORICAL: word_bins([words_of(score) for score in in_words], values),
        }
        for kind, told in expected.items():
            assert binned(kind, column, 7) == told._replace(total=len(scores), unbinned=len(scores) - told.total)


def outcome_of(result: Result, key: str, *, waits: bool) -> Outcome:
    summary = result.row.summary
    return Outcome(
        normal_key(key),
        summary.trace_id,
        {each.name: each.score for each in result.scores if each.score is not None},
        None if summary.cost_pico is None or summary.unpriced_count else summary.cost_pico / 10**12,
        None if waits else summary.duration_ns / 1e9,
        summary.error_count > 0,
        waits,
    )


@FAST
@given(results, said)
def test_figures_are_those_of_the_results(
    way: str, traces: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as data:
        stores = (
            Stores.of_memory(MemoryStore(TOMBSTONE_SECRET))
            if way == "memory"
            else Stores.of_sqlite(open_local_store(Path(data), TOMBSTONE_SECRET))
        )
        try:
            fill(stores, traces, [each for each in annotations if each["trace"] < len(traces)])
            store: Any = stores.reader
            reader = Results(store, seconds_max=60, monotonic_s=lambda: 0.0)
            known = one_by_one(stores, reader)
            spans = stores.spans.list_spans(SCOPE, None, WINDOW, limit=100, records=False).rows
            matching = {each.row.trace_pk for each in known}
            first_tokens = [
                row.detail.span.ttft_s
                for row in spans
                if row.trace.trace_pk in matching and row.detail.span.ttft_s is not None
            ]
            check_summary(reader.summary(SCOPE, NEWEST, WINDOW, in_words=lambda _: True), known, first_tokens)
            check_histograms(reader, known)
            side = read_side(store, SCOPE)
            waiting = {row.trace.trace_pk for row in spans if row.detail.span.status == "pending"}
            keyed = [
                outcome_of(each, key, waits=each.row.trace_pk in waiting)
                for each in known
                if (key := each.comparison_key) is not None
            ]
            assert sorted(outcomes_of(side), key=lambda each: each.trace_id) == sorted(
                keyed, key=lambda each: each.trace_id
            )
            assert side.without_key == len(known) - len(keyed)
        finally:
            stores.close()
