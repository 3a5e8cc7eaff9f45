"""What a filter of sessions may name. A session is no row of the store: its filters are answered from what it sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

from clearspan.api.phoenix.filter_grammar import Subject, Vocabulary, parse_filter
from clearspan.model.usage import PICO_PER_USD
from clearspan.query.ast import Condition, Expr, Group, Not, conjuncts
from clearspan.query.evaluate import Held, holds
from clearspan.query.fields import Field, FieldType, Level
from clearspan.query.operators import Operator
from clearspan.store.sessions import SessionRow

_T = FieldType


def sum_of(row: SessionRow, name: str) -> int:
    """The sum of a number of its traces; what is unknown counts as 0."""
    return sum(getattr(each, name) or 0 for each in row.traces)


def _cost(row: SessionRow) -> Fraction:
    return Fraction(sum_of(row, "cost_pico")) / Fraction(Decimal(PICO_PER_USD))


_VALUES: Final[Mapping[str, tuple[FieldType, int, Callable[[SessionRow], Held]]]] = {
    "session_id": (_T.TEXT, 0, lambda row: row.session_id),
    "start_time": (_T.TIME, 0, lambda row: row.start_ns),
    "end_time": (_T.TIME, 0, lambda row: row.end_ns),
    "duration_ms": (_T.DURATION, 3, lambda row: Fraction(row.end_ns - row.start_ns, 10**9)),
    "num_traces": (_T.INT, 0, lambda row: len(row.traces)),
    "num_traces_with_error": (_T.INT, 0, lambda row: sum(1 for each in row.traces if each.error_count)),
    "token_count_prompt": (_T.INT, 0, lambda row: sum_of(row, "prompt_tokens")),
    "token_count_completion": (_T.INT, 0, lambda row: sum_of(row, "completion_tokens")),
    "token_count_total": (_T.INT, 0, lambda row: sum_of(row, "total_tokens")),
    "total_cost": (_T.MONEY, 0, _cost),
    "llm_span_count": (_T.INT, 0, lambda row: sum_of(row, "llm_call_count")),
}
"""Name → its type, its unit (see Subject.shift), and the value of a session in the filter's unit."""
_AGGREGATES: Final = "only what a session sums can be filtered, not what is inside it"

SESSION: Final = Vocabulary(
    names={
        # These fields have no column: `session_matches` is what answers for them.
        name: Subject(Field(name, type, Level.TRACE, "", nullable=False), shift=shift)
        for name, (type, shift, _) in _VALUES.items()
    },
    refused={
        name: _AGGREGATES
        for name in (
            "annotations", "evals", "session_annotations", "trace_annotations", "attributes", "metadata", "user",
            "first_input", "last_output", "any_input", "any_output", "prompt_cost", "completion_cost",
            "tool_span_count",
        )
    },
)  # fmt: skip


def parse_session_filter(text: str) -> Expr | None:
    """The tree of a filter of sessions; None for a blank one. Raises InvalidFilter."""
    return parse_filter(text, SESSION)


def session_matches(expr: Expr | None, row: SessionRow) -> bool:
    """Whether a session meets a filter."""
    match expr:
        case None:
            return True
        case Condition():
            return holds(expr, _VALUES[expr.field.name][2](row))
        case Not():
            return not session_matches(expr.child, row)
        case Group():
            found = (session_matches(child, row) for child in expr.children)
            return all(found) if expr.connector == "AND" else any(found)
    raise AssertionError("a session has no spans here")


def named_sessions(expr: Expr | None) -> list[str] | None:
    """The only sessions that can meet a filter, where it names them; None: it does not."""
    for part in () if expr is None else conjuncts(expr):
        if (
            isinstance(part, Condition)
            and part.field.name == "session_id"
            and part.operator in (Operator.EQUALS, Operator.IN)
        ):
            return [str(value) for value in part.values]
    return None
