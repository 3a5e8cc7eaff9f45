"""The compiled SQL and the plain-Python oracle agree, on random traces and random filters.

Texts are chosen to hurt: NUL, quotes, LIKE's wildcards, letters whose case folding changes their length, numbers
that look like text, and numbers at the edges of 64 bits. Words come from small sets, so that filters do match.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

import clearspan
from clearspan.model.errors import InvalidFilter
from clearspan.model.span import Span
from clearspan.model.trace import TraceSummary
from clearspan.query.ast import Condition, Expr, Group, conditions
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.compile_sql import compile_order, compile_where
from clearspan.query.describe import describe, describe_shape
from clearspan.query.evaluate import TraceFacts, matches, order_key
from clearspan.query.fields import FIELDS, PREFIX_OF, Field, FieldType
from clearspan.query.operators import ALLOWED, EQUALITY, PRESENCE, Operator, casefold, text_matches
from clearspan.query.page import SORTABLE, SortKey
from clearspan.query.values import make_condition

MIGRATIONS = Path(clearspan.__path__[0]) / "store" / "sqlite" / "migrations"

SHORT_RUN = {"filters": 300, "traces": 200}
LONG_RUN = {"filters": 10_000, "traces": 1_000}

TEXTS = (
    "", "a", "A", "ab", "aB", "ba", "b", "a\0b", "\0", "b\0a", "é", "e\u0301", "É", "ß", "SS", "ss", "ſ", "ﬃ", "ffi",
    "İ", "i\u0307", "ı", "I", "日本語", "本", "😀", "a😀b", "\uffff", "\U00010000", "%", "_", "a%b", "*", "?", "[a]",
    "'", '"', "' OR 1=1 --", "\\", "\n", " a ", "7", "7.0", "07", "-0", "null", "true", "{}", "0" * 40, "a" * 300,
)  # fmt: skip
IDS = ("a1", "A1", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "trace_abc123", "é", "a%", "x'y")
WIRE_IDS = (*IDS, "0AF7651916CD43DD8448EB211C80319C", "0af76519-16cd-43dd-8448-eb211c80319c", "B7AD6B7169203331")
INTS = (None, None, 0, 1, 2, 3, 7, 100, 2**53, 2**53 + 1)
COSTS = (None, 0, 1, 2, 10**11, 10**12, 158_850_000, 3 * 10**11, 2**63 - 1)
LASTED_NS = (0, 1, 2, 10**9, 1_500_000_000, 123_456_789, 3 * 10**9, 86_400 * 10**9)
SCORES = (None, 0.0, -0.0, 1.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 7.0, -1.0, 1e300, 5e-324)
FLOATS = (None, 0.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 1.0, 7.0, 1e300, 5e-324)
STARTS_NS = (0, 1, 1_767_225_600_000_000_000, 1_767_225_600_000_000_001, 1_767_225_600_123_456_789, -1)
KEYS = ("k", "K", "a.b", "k'", "ключ", "k\0")

WIRE_NUMBERS: tuple[object, ...] = (
    0, -0.0, "0", 1, "1", "+1", "1e0", 1.0, 2, 2.5, "2.5", 3, 7, "7", "07", 100, -1, 0.5, 2**53, 2**53 + 1,
    float(2**53), 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, -(10**30), 1e300, -1e300, 5e-324, 0.1, 0.2,
    0.1 + 0.2, 0.3, "0.1", "1e-12", 1e-12, 1.5e-12,
    "0.00015885", 0.00015885, 1.5, "0.123456789", "0.1234567891", 1e-9, 5e-10, 86_400, 9223372.036854775807,
    "9223372.036854775807", 7 * 1e9 / (3 * 10**9), 100 * 1e9 / 123_456_789,
)  # fmt: skip
WIRE_TIMES = (
    "1970-01-01", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000001Z", "2026-01-01T00:00:00",
    "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.123456Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.999999999Z",
)  # fmt: skip
WIRE_METADATA: tuple[object, ...] = (*TEXTS, 7, 7.0, True, False, -0.0, 10**30)


class World:
    """Random traces, both as rows of a database and as facts for the oracle."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.db = apsw.Connection(":memory:")
        for migration in sorted(MIGRATIONS.glob("*.sql")):
            self.db.execute(migration.read_text())
        self.facts: dict[int, TraceFacts] = {}
        self.projects: dict[int, int] = {}
        self.db.create_scalar_function("casefold", casefold, 1, deterministic=True)
        self.db.create_scalar_function("text_match", self._text_match, 3)
        self._said = 0
        with self.db:
            for phase in (0, 1, 3):  # hidden by a deletion in the making, waiting, hidden
                zero = dict.fromkeys(("hidden", "no_longer_matching", "already_absent"), 0)
                self._insert("deletion", {"deletion_no": phase + 1, "deletion_id": str(phase), "phase": phase} | zero)
            for pk in range(1, size + 1):
                self._add(rng, pk)

    def _text_match(self, pk: int, operator: str, needle: str) -> bool:
        return text_matches(operator, needle, self.facts[pk].text)

    def _add(self, rng: random.Random, pk: int) -> None:
        summary = random_summary(rng, pk)
        spans = {span.span_id: span for span in (random_span(rng) for _ in range(rng.choice((0, 1, 2, 4))))}
        texts = [rng.choice(TEXTS) for _ in range(rng.randrange(4))]
        self.projects[pk] = project = rng.choice((1, 2))
        scores = [score for _ in range(rng.choice((0, 1, 2, 5))) for score in self._annotate(rng, pk, summary)]
        self.facts[pk] = TraceFacts(summary, list(spans.values()), texts, (), scores)
        values = summary._asdict() | {"metadata": None, "tags": None}
        pairs = values.pop("metadata_all")
        values |= {"trace_pk": pk, "project_id": project, "duration_ns": summary.duration_ns, "received_ns": 0}
        self._insert("trace", values)
        for key, value in pairs:
            row = {"project_id": project, "key": key, "value": value, "start_ns": summary.start_ns, "trace_pk": pk}
            self._insert("metadata", row)
        for span in spans.values():
            self._insert("span", span._asdict() | {"trace_pk": pk, "block_no": 0})

    def _annotate(self, rng: random.Random, pk: int, summary: TraceSummary) -> list[tuple[str, float]]:
        """One annotation; its score if a filter may see it."""
        target = rng.choice(("trace", "trace", "span", "span", "document", "session"))
        self._said += 1
        row: dict[str, Any] = {
            "annotation_no": self._said, "annotation_id": "a", "key": str(self._said).encode(), "identifier": "",
            "kind": "CODE", "source": "app", "created_ns": 0, "updated_ns": 0, "project_id": self.projects[pk],
            "trace_pk": pk, "target": target, "name": rng.choice(KEYS), "score": rng.choice(SCORES),
            "span_id": None if target in ("trace", "session") else rng.choice((summary.root_span_id, *IDS[:2])),
            "waits_ns": rng.choice((None,) * 7 + (1,)),
        }  # fmt: skip
        self._insert("annotation", row)
        phase = rng.choice((None,) * 5 + (0, 1, 3))
        if phase is not None:
            self._insert("hidden_annotation", {"annotation_no": self._said, "deletion_no": phase + 1})
        of_root = target == "span" and row["span_id"] is not None and row["span_id"] == summary.root_span_id
        is_seen = phase in (None, 0) and row["waits_ns"] is None and (target == "trace" or of_root)
        return [(row["name"], row["score"])] if is_seen and row["score"] is not None else []

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))

    def by_sql(
        self, expr: Expr, projects: Sequence[int], *, entered: FieldType | None = FieldType.METADATA
    ) -> set[int]:
        """The traces found; what is `entered` comes as sets, and everything else is probed trace by trace."""
        sql, params = (
            compile_where(expr, project_ids=None)
            if entered is None
            else compile_where(expr, project_ids=projects, entered=entered, rare_keys=KEYS[: self._said % 7])
        )
        inside = " OR ".join(f"t.project_id = {project}" for project in projects)
        rows = self.db.execute(f"SELECT t.trace_pk FROM trace t WHERE ({inside}) AND {sql}", params)
        return {pk for (pk,) in rows}

    def by_oracle(self, expr: Expr, projects: Sequence[int]) -> set[int]:
        return {pk for pk, facts in self.facts.items() if self.projects[pk] in projects and matches(expr, facts)}


def random_summary(rng: random.Random, pk: int) -> TraceSummary:
    def text() -> str | None:
        return rng.choice((None, rng.choice(TEXTS)))

    start = rng.choice(STARTS_NS)
    pairs = {(rng.choice(KEYS), rng.choice(TEXTS)) for _ in range(rng.choice((0, 1, 2, 5)))}
    return TraceSummary(
        trace_id=IDS[pk] if pk < len(IDS) else f"{rng.choice(IDS)}{pk}",
        root_span_id=rng.choice((None, *IDS)),
        name=rng.choice(TEXTS),
        kind=None,
        start_ns=start,
        end_ns=start + rng.choice(LASTED_NS),
        span_count=rng.choice(INTS) or 0,
        llm_call_count=rng.choice(INTS) or 0,
        error_count=rng.choice(INTS) or 0,
        unpriced_count=rng.choice(INTS) or 0,
        prompt_tokens=rng.choice(INTS),
        completion_tokens=rng.choice(INTS),
        total_tokens=rng.choice(INTS),
        cached_tokens=None,
        reasoning_tokens=None,
        cost_pico=rng.choice(COSTS),
        model=None,
        customer_identifier=text(),
        session_id=text(),
        thread_id=text(),
        group_id=text(),
        environment=text(),
        key_id=text(),
        metadata=(),
        tags=(),
        metadata_all=tuple(sorted(pairs)),
    )


def random_span(rng: random.Random) -> Span:
    def text() -> str | None:
        return rng.choice((None, rng.choice(TEXTS)))

    start = rng.choice(STARTS_NS)
    optional_texts = (
        "entity_name", "workflow_name", "path", "log_method", "error_class", "error_fingerprint", "model",
        "response_model", "provider", "deployment_name", "prompt_id", "prompt_name", "prompt_version", "cost_source",
    )  # fmt: skip
    counts = (
        "status_code", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens",
        "cache_creation_tokens", "reasoning_tokens",
    )  # fmt: skip
    return Span(
        span_id=rng.choice(IDS),
        parent_id=rng.choice((None, *IDS)),
        name=rng.choice(TEXTS),
        kind=rng.choice(("chat", "tool", "workflow", "unknown")),
        start_ns=start,
        end_ns=start + rng.choice(LASTED_NS),
        status=rng.choice(("unset", "ok", "error")),
        usage_repeats=False,
        cost_pico=rng.choice(COSTS),
        ttft_s=rng.choice(FLOATS),
        routing_time_s=rng.choice(FLOATS),
        is_streaming=rng.choice((None, True, False)),
        context_key=0,
        content_hash=0,
        **{name: text() for name in optional_texts},  # type: ignore[arg-type]
        **{name: rng.choice(INTS) for name in counts},  # type: ignore[arg-type]
    )


def random_values(rng: random.Random, field: Field, operator: Operator) -> list[object]:
    if operator in PRESENCE:
        return [rng.choice((True, False))] if operator is Operator.IS_NULL else [""]
    pools: dict[FieldType, Sequence[object]] = {
        FieldType.ID: WIRE_IDS,
        FieldType.BOOL: (True, False, "true"),
        FieldType.TIME: WIRE_TIMES,
        FieldType.METADATA: WIRE_METADATA,
        FieldType.VERSION: (*TEXTS, 7, 0),
        FieldType.TEXT: field.choices or (*TEXTS, "chat", "tool"),
        FieldType.SEARCH: (*TEXTS, "a b", "SS 本"),
    }
    count = rng.choice((1, 1, 2, 5)) if operator in EQUALITY else 1
    return [rng.choice(pools.get(field.type, WIRE_NUMBERS)) for _ in range(count)]


def random_condition(rng: random.Random, field: Field | None = None, operator: Operator | None = None) -> Condition:
    """A condition on any field with any operator that it takes; values that are refused are drawn again."""
    field = field or rng.choice(FIELDS)
    key = rng.choice(KEYS) if field.name in PREFIX_OF else None
    while True:
        chosen = operator or rng.choice(sorted(ALLOWED[field.type]))
        if chosen is Operator.IS_NOT_NULL:
            return Condition(field, chosen, (), key)
        try:
            return make_condition("f", field, chosen, random_values(rng, field, chosen), key=key)
        except InvalidFilter:
            continue


def random_expr(rng: random.Random, depth: int = 0) -> Expr:
    if depth == 4 or rng.random() < 0.3 + 0.2 * depth:
        return random_condition(rng)
    children = tuple(random_expr(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 2, 3, 3, 4))))
    return Group(rng.choice(("AND", "OR")), children)


def compare(seed: int, filters: int, traces: int) -> tuple[int, int]:
    """Run SQL and oracle on random filters; returns how many filters matched something and how many all of it."""
    rng = random.Random(seed)
    world = World(rng, traces)
    some = every = 0
    for number in range(filters):
        # Each field once in its turn, so that none is left to luck; then whole trees.
        expr = random_condition(rng, FIELDS[number % len(FIELDS)]) if number % 3 == 0 else random_expr(rng)
        projects = rng.choice(((1, 2), (1,), (2,)))
        by_sql, by_oracle = world.by_sql(expr, projects), world.by_oracle(expr, projects)
        assert by_sql == by_oracle, (
            f"seed {seed}, filter {number}: {describe(expr)}\n{compile_where(expr, project_ids=projects)}\n"
            f"only SQL: {[world.facts[pk] for pk in sorted(by_sql - by_oracle)[:2]]}\n"
            f"only oracle: {[world.facts[pk] for pk in sorted(by_oracle - by_sql)[:2]]}"
        )
        if any(condition.key is not None for condition in conditions(expr)):
            for entered in (None, FieldType.SCORE):
                found = world.by_sql(expr, projects, entered=entered)
                assert found == by_oracle, f"seed {seed}, filter {number}, entered by {entered}"
        assert decode_expr(encode_expr(expr)) == expr
        some += bool(by_sql)
        every += len(by_sql) == sum(project in projects for project in world.projects.values())
    return some, every


@pytest.mark.promise("P3 P6", "F13", runs=SHORT_RUN["filters"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sql_and_oracle_agree(seed: int) -> None:
    some, every = compare(seed, **SHORT_RUN)
    # The comparison means something only when filters tell traces apart.
    assert some - every > SHORT_RUN["filters"] // 3


@pytest.mark.promise("P3 P6", "F13", runs=LONG_RUN["filters"])
@pytest.mark.long
def test_sql_and_oracle_agree_at_length() -> None:
    started = time.monotonic()
    some, every = compare(20_260_731, **LONG_RUN)
    print(f"{LONG_RUN}: {some} filters matched some traces, {every} all; {time.monotonic() - started:.0f} s")
    assert some - every > LONG_RUN["filters"] // 3


def test_every_field_and_operator_agrees_alone() -> None:
    rng = random.Random(4)
    world = World(rng, 100)
    for field in FIELDS:
        for operator in sorted(ALLOWED[field.type]) * 3:
            condition = random_condition(rng, field, operator)
            expected = world.by_oracle(condition, (1, 2))
            for entered in (FieldType.METADATA, FieldType.SCORE, None):
                assert world.by_sql(condition, (1, 2), entered=entered) == expected, (describe(condition), entered)


def test_sort_agrees_with_the_oracle() -> None:
    rng = random.Random(5)
    world = World(rng, 200)
    for field in SORTABLE.values():
        for descending in (True, False):
            sort = SortKey(field, descending)
            sql = f"SELECT t.trace_pk FROM trace t ORDER BY {compile_order(sort)}"
            by_sql = [pk for (pk,) in world.db.execute(sql)]
            assert by_sql == sorted(world.facts, key=lambda pk: order_key(sort, world.facts[pk].summary, pk)), sort


def other_values(rng: random.Random, expr: Expr) -> Expr:
    """The same tree with other values, as many in each place."""
    if isinstance(expr, Group):
        return Group(expr.connector, tuple(other_values(rng, child) for child in expr.children))
    while True:
        other = random_condition(rng, expr.field, expr.operator)
        if other.operator == expr.operator and len(other.values) == len(expr.values):
            return other


def test_sql_and_shape_never_depend_on_values() -> None:
    rng = random.Random(6)
    for _ in range(200):
        expr = random_expr(rng)
        other = other_values(rng, expr)
        assert compile_where(expr, project_ids=(1,)).sql == compile_where(other, project_ids=(2,)).sql
        assert compile_where(expr, project_ids=None).sql == compile_where(other, project_ids=None).sql
        by_scores = [compile_where(each, project_ids=(1,), entered=FieldType.SCORE).sql for each in (expr, other)]
        assert by_scores[0] == by_scores[1]
        assert describe_shape(expr) == describe_shape(other)


def test_no_word_of_a_caller_gets_into_the_sql() -> None:
    rng = random.Random(7)
    marker = "Zq'\"; DROP TABLE trace; --"
    for field in FIELDS:
        if "contains" not in ALLOWED[field.type]:
            continue
        for operator in sorted(ALLOWED[field.type] - PRESENCE):
            values = [field.choices[0] if field.choices and operator in EQUALITY else marker]
            key = marker if field.type is FieldType.METADATA else None
            condition = make_condition("f", field, operator, values, key=key)
            tree = Group("OR", (condition, random_condition(rng)))
            sql = compile_where(tree, project_ids=(1, 2)).sql
            assert "Zq" not in sql
            assert "DROP" not in sql
            assert ";" not in sql
            assert "Zq" not in describe_shape(tree)
            assert all(isinstance(part, Condition) for part in conditions(tree))


def test_the_largest_filters_run() -> None:
    """What the wire's limits allow (500 conditions, 10,000 values, 20 levels) stays within SQLite's own limits."""
    rng = random.Random(8)
    world = World(rng, 30)
    widest = tuple(random_condition(rng) for _ in range(500))
    seconds = next(field for field in FIELDS if field.type is FieldType.SECONDS)
    longest = make_condition("f", seconds, Operator.NOT_IN, [n / 7 for n in range(10_000)])
    deepest: Expr = Group("OR", widest[:20])
    for level in range(20):
        deepest = Group("OR" if level % 2 else "AND", (widest[level], deepest))
    for expr in (Group("OR", widest), Group("AND", widest), longest, deepest):
        assert world.by_sql(expr, (1, 2)) == world.by_oracle(expr, (1, 2))
