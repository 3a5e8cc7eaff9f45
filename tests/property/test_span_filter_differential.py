"""LangSmith's filters over single spans: the compiled SQL and the plain-Python oracle agree, on random texts and spans.

Texts are drawn from the grammar, so that what is compared is what a client can ask for. Words come from small sets, so
that filters do match; among them are NUL, quotes, wildcards and letters whose case folding changes their length.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clearspan
from clearspan.api.langsmith.grammar import parse_filters
from clearspan.ingest.rollup import summarise
from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.errors import InvalidFilter
from clearspan.model.runs import run_id_of
from clearspan.model.span import Span, SpanContext
from clearspan.query.ast import Expr, Not, RootSpan, SomeSpan
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.compile_span import compile_span
from clearspan.query.compile_sql import compile_where
from clearspan.query.describe import describe, describe_shape
from clearspan.query.evaluate import SpanFacts, SpanPayload, TraceFacts, matches
from clearspan.query.evaluate_span import span_matches
from clearspan.store.sqlite.rows import context_body
from clearspan.store.sqlite.textsearch import register_pure
from clearspan.testing.build import make_span

MIGRATIONS = Path(clearspan.__path__[0]) / "store" / "sqlite" / "migrations"
TRACES = 40
SHORT_RUN, LONG_RUN = 300, 10_000

WORDS = (
    "a",
    "A",
    "ab",
    "b",
    "a%b",
    "%",
    "_",
    "ß",
    "SS",
    "é",
    "a\0b",
    "'",
    '"',
    "\\",
    "\n",
    "7",
    "",
    "日本語",
    "😀",
    "x y",
)
KEYS = ("k", "K", "a.b", "thread_id", "_reference_example_id")
TRACE_IDS = (*(f"{n:032x}" for n in range(1, 6)), "t-1", "trace é")
SPAN_IDS = (*(f"{n:016x}" for n in range(1, 5)), *(f"{n:032x}" for n in (1, 2, 77)), "odd id")
NUMBERS = ("0", "1", "-1", "2.5", "1e3", "7", "0.1", "1e-12", "9223372036854775807", "1e30")
SCORES = (None, 0.0, 1.0, 0.1, 2.5, -1.0)
UUIDS = (
    "00000000-0000-0000-0000-000000000001", f"{2:032x}", "e" * 32,
    *(run_id_of(trace, span, False) for trace in TRACE_IDS[:2] for span in SPAN_IDS[:2]),
    run_id_of("t-1", "odd id", False),
)  # fmt: skip


class World:
    """Random traces, as rows of a database and as facts for the oracle."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.facts: dict[int, TraceFacts] = {}
        self.db = apsw.Connection(":memory:")
        for migration in sorted(MIGRATIONS.glob("*.sql")):
            self.db.execute(migration.read_text())
        register_pure(self.db)
        self.db.create_scalar_function("span_part", self._part, 4)
        self.db.create_scalar_function("span_entries", self._entries, 4)
        with self.db:
            for pk in range(1, TRACES + 1):
                self._add(rng, pk)

    def _details(self, pk: int, span_id: str) -> SpanFacts:
        return next(each for each in self.facts[pk].details if each.span.span_id == span_id)

    def _part(self, pk: int, span_id: str, _: int, what: str) -> Any:
        return getattr(self._details(pk, span_id).payload, what)

    def _entries(self, pk: int, span_id: str, _: int, what: str) -> str:
        return orjson.dumps(getattr(self._details(pk, span_id).payload, what)).decode()

    def _add(self, rng: random.Random, pk: int) -> None:
        built = {each.row.span_id: each for each in (random_span(rng) for _ in range(rng.choice((1, 1, 2, 4))))}  # type: ignore[union-attr]
        spans: list[Span] = [each.row for each in built.values()]  # type: ignore[misc]
        contexts = {each.row.context_key: each.context for each in built.values()}
        summary = summarise(rng.choice(TRACE_IDS), spans, [], contexts)
        said = [random_annotation(rng, pk, number, spans) for number in range(rng.choice((0, 0, 1, 3)))]
        details = [
            SpanFacts(span, contexts[span.context_key], about(said, span, summary.root_span_id), random_payload(rng))
            for span in spans
        ]
        self.facts[pk] = TraceFacts(summary, spans, (), details)
        values = summary._asdict() | {"metadata": None, "tags": None}
        del values["metadata_all"]
        self._insert(
            "trace", values | {"trace_pk": pk, "project_id": pk, "duration_ns": summary.duration_ns, "received_ns": 0}
        )
        for key, context in contexts.items():
            self._insert("context", {"trace_pk": pk, "context_key": key, "body": context_body(context)})
        for span in spans:
            self._insert("span", span._asdict() | {"trace_pk": pk, "block_no": 0})
        for each in said:
            self._insert(
                "annotation", each._asdict() | {"trace_pk": pk, "project_id": pk, "key": each.annotation_id.encode()}
            )

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))

    def by_sql(self, expr: Expr | None) -> set[tuple[int, str]]:
        sql, params = compile_span(expr)
        return set(
            self.db.execute(
                "SELECT s.trace_pk, s.span_id FROM trace t CROSS JOIN span s ON s.trace_pk = t.trace_pk WHERE " + sql,
                params,
            )
        )

    def by_oracle(self, expr: Expr | None) -> set[tuple[int, str]]:
        return {
            (pk, each.span.span_id)
            for pk, facts in self.facts.items()
            for each in facts.details
            if span_matches(expr, each, facts)
        }

    def traces_by_sql(self, expr: Expr) -> set[int]:
        sql, params = compile_where(expr, project_ids=None)
        return {pk for (pk,) in self.db.execute("SELECT t.trace_pk FROM trace t WHERE " + sql, params)}

    def traces_by_oracle(self, expr: Expr) -> set[int]:
        return {pk for pk, facts in self.facts.items() if matches(expr, facts)}


def random_span(rng: random.Random) -> Any:
    context = SpanContext(
        session_id=rng.choice((None, None, "s", "a")),
        thread_id=rng.choice((None, None, "a", "th")),
        tags=tuple(rng.sample(WORDS, rng.randrange(3))),
        metadata=tuple(
            sorted({rng.choice(KEYS): rng.choice((*WORDS, UUIDS[0])) for _ in range(rng.randrange(3))}.items())
        ),
    )
    return make_span(
        rng.choice(SPAN_IDS),
        parent=rng.choice((None, *SPAN_IDS)),
        start_s=rng.choice((-3600.0, 0.0, 1.0, 2.5)),
        duration_s=rng.choice((0.0, 0.5, 1.0, 2.5, 1000.0)),
        context=context,
        name=rng.choice(WORDS),
        kind=rng.choice(("chat", "tool", "chain", "workflow", "unknown", "prompt")),
        status=rng.choice(("ok", "unset", "error", "pending")),
        ttft_s=rng.choice((None, 0.1, 1.0)),
        prompt_tokens=rng.choice((None, 0, 1, 7)),
        completion_tokens=rng.choice((None, 0, 1, 7)),
        total_tokens=rng.choice((None, None, 7, 2**53)),
        cost_pico=rng.choice((None, 0, 1, 10**11, 10**12, 2**63 - 1)),
    )


def random_annotation(rng: random.Random, pk: int, number: int, spans: list[Span]) -> Annotation:
    said: dict[str, Any] = dict.fromkeys(Annotation._fields)
    said |= {
        "annotation_id": f"{pk}-{number}",
        "target": rng.choice(
            (AnnotationTarget.SPAN, AnnotationTarget.SPAN, AnnotationTarget.TRACE, AnnotationTarget.DOCUMENT)
        ),
        "trace_id": "x",
        "name": rng.choice(WORDS),
        "identifier": "",
        "kind": AnnotatorKind.HUMAN,
        "score": rng.choice(SCORES),
        "source": rng.choice(("api", "app")),
        "created_ns": 0,
        "updated_ns": 0,
    }
    if said["target"] is not AnnotationTarget.TRACE:
        said["span_id"] = rng.choice(spans).span_id
    return Annotation(**said)


def about(said: list[Annotation], span: Span, root_id: str | None) -> list[Annotation]:
    return [
        each
        for each in said
        if (each.target is AnnotationTarget.TRACE and span.span_id == root_id)
        or (each.target is AnnotationTarget.SPAN and each.span_id == span.span_id)
    ]


def random_payload(rng: random.Random) -> SpanPayload:
    def leaves() -> list[tuple[str, str]]:
        return [(rng.choice(KEYS), rng.choice(WORDS)) for _ in range(rng.randrange(3))]

    texts = (None, *WORDS)
    return SpanPayload(rng.choice(WORDS), rng.choice(texts), rng.choice(texts), rng.choice(texts), leaves(), leaves())


@cache
def world(seed: int) -> World:
    return World(seed)


def quoted(text: str) -> str:
    """A text as a client may write it, in either quotes."""
    if len(text) % 2:
        return json.dumps(text, ensure_ascii=False)
    return "'" + json.dumps(text)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


def one_of_values(kind: str) -> st.SearchStrategy[str]:
    pools = {
        "text": [quoted(word) for word in WORDS],
        "key": [quoted(word) for word in (*KEYS, *WORDS[:4])],
        "number": list(NUMBERS),
        "duration": [*NUMBERS, '"5s"', '"500ms"', '"0.5 s"', '"1m"'],
        "time": ['"2026-01-01"', '"2026-01-01T00:00:01Z"', "'2026-01-01T01:00:00+01:00'"],
        "id": [quoted(each) for each in (*UUIDS, *TRACE_IDS, "odd id")],
        "run_type": ['"llm"', '"chain"', '"tool"', '"prompt"', '"parser"'],
        "status": ['"success"', '"error"', '"pending"'],
        "bool": ["true", "false"],
    }
    return st.sampled_from(pools[kind])


FIELD_KINDS = {
    "id": "id", "parent_run_id": "id", "trace_id": "id", "thread_id": "text", "name": "text", "status": "status",
    "start_time": "time", "end_time": "time", "latency": "duration", "first_token_time": "duration",
    "total_tokens": "number", "prompt_tokens": "number", "completion_tokens": "number", "total_cost": "number",
    "is_root": "bool", "tags": "text", "metadata_key": "key", "metadata_value": "text", "feedback_key": "text",
    "feedback_score": "number", "feedback_source": "text", "input_key": "key", "input_value": "text",
    "output_key": "key", "output_value": "text", "error": "text", "run_type": "run_type", "reference_example": "id",
}  # fmt: skip


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    """One operator on one field; some do not fit and are refused, which is as good."""
    name = draw(st.sampled_from(sorted(FIELD_KINDS)))
    value = one_of_values(FIELD_KINDS[name])
    operator = draw(st.sampled_from(("eq", "eq", "neq", "gt", "gte", "lt", "lte", "in", "like", "search", "null")))
    if operator == "null":
        return f"{draw(st.sampled_from(('eq', 'neq')))}({name}, null)"
    if operator == "in":
        return f"in({name}, [{', '.join(draw(st.lists(value, min_size=1, max_size=3)))}])"
    if operator in ("like", "search") and draw(st.booleans()):
        value = st.sampled_from(('"a%"', '"%b"', "'%a%'", '"a%b"', '"%"', '"%a%b%"'))
    return f"{operator}({name},{draw(value)})"


@st.composite
def pairs(draw: st.DrawFn) -> str:
    """Two or three conditions on the same entry."""
    key, value = draw(
        st.sampled_from(
            (("metadata_key", "metadata_value"), ("feedback_key", "feedback_score"), ("input_key", "input_value"))
        )
    )
    kind = FIELD_KINDS[value]
    parts = [f"eq({key}, {draw(one_of_values(FIELD_KINDS[key]))})"]
    operators = ("eq", "neq", "gt", "lte") if kind == "number" else ("eq", "neq", "in")
    for _ in range(draw(st.integers(1, 2))):
        operator = draw(st.sampled_from(operators))
        said = draw(one_of_values(kind))
        parts.append(f"{operator}({value}, {f'[{said}]' if operator == 'in' else said})")
    return f"and({', '.join(draw(st.permutations(parts)))})"


def texts() -> st.SearchStrategy[str]:
    """Filters of the grammar, most of them valid."""
    leaf = (
        comparisons()
        | pairs()
        | st.sampled_from(WORDS).map(lambda word: f"search({quoted(word)})")
        | st.sampled_from(WORDS).map(lambda word: f"has(tags, {quoted(word)})")
        | st.tuples(st.sampled_from(KEYS), st.sampled_from(WORDS)).map(
            lambda pair: f"has(metadata, {quoted(json.dumps(dict([pair])))})"
        )
        | st.sampled_from(KEYS).map(lambda key: f"exists(metadata, {quoted(key)})")
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(
                lambda op, parts: f"{op}({', '.join(parts)})",
                st.sampled_from(("and", "or")),
                st.lists(inner, min_size=1, max_size=3),
            ),
            inner.map(lambda part: f"not({part})"),
        ),
        max_leaves=5,
    )


def check(seed: int, filter: str | None, trace_filter: str | None, tree_filter: str | None) -> None:
    try:
        expr = parse_filters(filter, trace_filter, tree_filter)
    except InvalidFilter:
        return
    there = world(seed)
    by_sql, by_oracle = there.by_sql(expr), there.by_oracle(expr)
    assert by_sql == by_oracle, (
        f"{describe(expr, of_span=True)}\n{compile_span(expr)}\nonly SQL: {sorted(by_sql - by_oracle)[:3]}\n"
        f"only oracle: {sorted(by_oracle - by_sql)[:3]}"
    )
    if expr is None:
        return
    assert decode_expr(json.loads(json.dumps(encode_expr(expr)))) == expr
    assert describe_shape(expr)
    assert there.by_sql(Not(expr)) == there.by_sql(None) - by_sql, "not(…) has no third answer"
    for of_trace in (SomeSpan(expr), Not(RootSpan(expr))):
        assert there.traces_by_sql(of_trace) == there.traces_by_oracle(of_trace)
    assert there.traces_by_sql(SomeSpan(expr)) == {pk for pk, _ in by_sql}


MAYBE = st.none() | st.none() | texts()


@pytest.mark.promise("P3 P6", "F13", runs=SHORT_RUN)
@settings(max_examples=SHORT_RUN, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 3), st.none() | texts(), MAYBE, MAYBE)
def test_sql_and_oracle_agree_about_spans(seed: int, filter: str | None, root: str | None, tree: str | None) -> None:
    check(seed, filter, root, tree)


@pytest.mark.promise("P3 P6", "F13", runs=LONG_RUN)
@pytest.mark.long
@settings(max_examples=LONG_RUN, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 20), st.none() | texts(), MAYBE, MAYBE)
def test_sql_and_oracle_agree_about_spans_at_length(
    seed: int, filter: str | None, root: str | None, tree: str | None
) -> None:
    check(seed, filter, root, tree)


def test_filters_tell_spans_apart() -> None:
    """The comparison means something only when filters match some spans and not others."""
    rng = random.Random(5)
    some = tried = 0
    while tried < 200:
        name = rng.choice(sorted(FIELD_KINDS))
        value = rng.choice(
            {"text": [quoted(word) for word in WORDS], "number": NUMBERS, "duration": NUMBERS, "bool": ("true",)}.get(
                FIELD_KINDS[name], ('"llm"', '"success"', '"2026-01-01"', '"k"', quoted(UUIDS[0]))
            )
        )
        try:
            expr = parse_filters(f"{rng.choice(('eq', 'neq', 'gt', 'lt', 'search'))}({name}, {value})")
        except InvalidFilter:
            continue
        tried += 1
        some += 0 < len(world(1).by_sql(expr)) < len(world(1).by_sql(None))
    assert some > 80
