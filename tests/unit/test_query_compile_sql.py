"""The exact SQL of every operator on every type of field, as a snapshot, and of groups."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.compile_sql import compile_where
from clearspan.query.fields import FieldType, find_field
from clearspan.query.operators import ALLOWED, EQUALITY, PRESENCE, Operator
from clearspan.query.values import make_condition

GOLDEN = Path(__file__).parent.parent / "fixtures/filters/golden_sql.json"

SAMPLES: dict[str, list[object]] = {
    "customer_identifier": ["Ada", "O'Neil"],
    "trace_unique_id": ["0AF7651916CD43DD8448EB211C80319C", "trace_1"],
    "error_count": [2.5, "3"],
    "total_cost": [0.1, 1e-13],
    "duration": [1.5, 2],
    "start_time": ["2026-01-01T00:00:00Z", "2026-01-02"],
    "metadata__plan": ["pro", "7"],
    "scores__exact": [0.5, "1"],
    "text": ["Größe", "x"],
    "model": ["gpt-4o", "o3"],
    "prompt_version_number": [3, "4"],
    "status": ["error", "success"],
    "latency": ["0.25", 4],
    "time_to_first_token": [0.1, 2],
    "tokens_per_second": [33.3, 40],
    "stream": [True, False],
}
"""One field of each type and level, with two values."""


def condition(name: str, operator: Operator, *values: object) -> Condition:
    field, key = find_field(name)
    if operator is Operator.IS_NOT_NULL:
        operator, values = Operator.IS_NULL, (False,)
    return make_condition(name, field, operator, values, key=key)


def compiled() -> list[dict[str, Any]]:
    rows = []
    for name, values in SAMPLES.items():
        for operator in sorted(ALLOWED[find_field(name)[0].type]):
            for count in (1, 2) if operator in EQUALITY else (0,) if operator in PRESENCE else (1,):
                expr = condition(name, operator, *values[:count])
                entered = expr.field.type if expr.key is not None else FieldType.METADATA
                ways = {
                    compile_where(expr, project_ids=(1, 2), entered=entered),
                    compile_where(expr, project_ids=None),
                }
                for sql, params in sorted(ways, reverse=True):
                    shown = [param.decode() if isinstance(param, bytes) else param for param in params]
                    rows.append({"field": name, "operator": operator, "values": count, "sql": sql, "params": shown})
    return rows


def test_sql_of_every_operator_and_type_is_as_reviewed() -> None:
    rows = compiled()
    if os.environ.get("CLEARSPAN_REWRITE_GOLDEN"):
        GOLDEN.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
    assert rows == json.loads(GOLDEN.read_text())


def test_only_what_is_entered_comes_as_a_set() -> None:
    plan, exact = condition("metadata__plan", Operator.EQUALS, "pro"), condition("scores__exact", Operator.GT, 0)
    both = Group("AND", (plan, exact))
    for entered, sets in ((FieldType.METADATA, plan), (FieldType.SCORE, exact)):
        sql, _ = compile_where(both, project_ids=(1,), entered=entered)
        alone, _ = compile_where(sets, project_ids=(1,), entered=entered)
        assert sql.count("t.trace_pk IN (SELECT") == 1
        assert alone in sql
        assert "EXISTS" in sql


CUSTOMER = condition("customer_identifier", Operator.EQUALS, "a")
MODEL = condition("model", Operator.EQUALS, "m")
SLOW = condition("latency", Operator.GT, 2)
OF_MODEL = "EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk AND s.model = ?)"
OF_SLOW = "EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk AND (s.end_ns - s.start_ns) > ?)"
OF_BOTH = "EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk AND s.model = ? AND (s.end_ns - s.start_ns) > ?)"


@pytest.mark.parametrize(
    ("expr", "sql"),
    [
        (None, "1"),
        (Group("AND", ()), "1"),
        (Group("OR", ()), "0"),
        (CUSTOMER, "t.customer_identifier = ?"),
        (MODEL, OF_MODEL),
        (Group("AND", (MODEL, CUSTOMER, SLOW)), f"(t.customer_identifier = ? AND {OF_BOTH})"),
        (Group("OR", (MODEL, CUSTOMER, SLOW)), f"({OF_MODEL} OR t.customer_identifier = ? OR {OF_SLOW})"),
        (Group("AND", (MODEL, Group("AND", (SLOW,)))), f"({OF_SLOW} AND {OF_MODEL})"),
        (
            Group("AND", (MODEL, Group("OR", (SLOW, CUSTOMER)))),
            f"(({OF_SLOW} OR t.customer_identifier = ?) AND {OF_MODEL})",
        ),
    ],
)
def test_groups(expr: Expr | None, sql: str) -> None:
    assert compile_where(expr, project_ids=(1,)).sql == sql


def test_ten_thousand_values_are_one_parameter() -> None:
    ids = [f"t{n}" for n in range(10_000)]
    sql, params = compile_where(condition("trace_unique_id", Operator.IN, *ids), project_ids=(1,))
    assert sql == "t.trace_id IN (SELECT value FROM json_each(?))"
    assert [json.loads(str(param)) for param in params] == [ids]
