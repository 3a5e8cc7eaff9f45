"""Every field a filter may name: one table, from which the compiler, the oracle, the parsers and the docs read.

A *trace-level* field has one value per trace. A *span-level* field has one value per span: a trace matches when
some span of it does. Two pseudo-fields are neither a column of the trace nor of a span: `metadata` (named with its
key, `metadata__<key>`) and `text` (everything readable in the trace).

Missing values. Where the wire did not say, the column is NULL, and no condition matches it, negations included;
only `empty` and `isnull` do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from clearspan.model.errors import InvalidFilter

METADATA_PREFIX = "metadata__"


class Level(StrEnum):
    """Whose value a field is."""

    TRACE = "trace"
    SPAN = "span"


class FieldType(StrEnum):
    """What values a field takes in a filter, and in which unit its column holds them."""

    TEXT = "text"
    ID = "id"  # text in the normal form of model.ids
    VERSION = "version"  # text that is mostly a whole number: numbers are welcome, compared as text
    INT = "int"
    MONEY = "money"  # filters say US dollars, the column holds pico-dollars
    DURATION = "duration"  # filters say seconds, the column holds nanoseconds
    SECONDS = "seconds"  # filters and column say seconds (or a rate), as float
    BOOL = "bool"
    TIME = "time"  # filters say ISO 8601, the column holds Unix nanoseconds
    METADATA = "metadata"  # text, named with a key
    SEARCH = "search"  # all readable text of a trace


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the registry. Two fields are the same field when their names are equal."""

    name: str
    type: FieldType
    level: Level
    sql: str  # over alias t (trace), s (span) or m (metadata); never anything a caller wrote
    nullable: bool = True
    aliases: tuple[str, ...] = ()
    sortable: bool = False
    bulk_delete: bool = False  # may be named in Respan's bulk deletion
    choices: tuple[str, ...] = ()  # the only values that equality can ask for

    def __reduce__(self) -> tuple[Callable[[str], Field], tuple[str]]:
        """Between processes a field goes by its name: SQL comes from the receiver's own table."""
        return _field_of_name, (self.name,)


def _trace(name: str, type: FieldType, sql: str, **rest: object) -> Field:
    return Field(name, type, Level.TRACE, sql, **rest)  # type: ignore[arg-type]


def _span(name: str, type: FieldType, sql: str, **rest: object) -> Field:
    return Field(name, type, Level.SPAN, sql, **rest)  # type: ignore[arg-type]


_T = FieldType

METADATA = _trace("metadata", _T.METADATA, "m.value", bulk_delete=True)
START_TIME = _trace("start_time", _T.TIME, "t.start_ns", nullable=False, sortable=True, bulk_delete=True)

FIELDS: tuple[Field, ...] = (
    # Trace level.
    _trace("trace_unique_id", _T.ID, "t.trace_id", nullable=False, aliases=("trace_id", "id"), bulk_delete=True),
    _trace("name", _T.TEXT, "t.name", nullable=False, aliases=("workflow_name",)),
    _trace("customer_identifier", _T.TEXT, "t.customer_identifier", bulk_delete=True),
    _trace("environment", _T.TEXT, "t.environment", bulk_delete=True),
    _trace("organization_key_id", _T.TEXT, "t.key_id"),
    _trace("trace_group_identifier", _T.TEXT, "t.group_id"),
    _trace("session_identifier", _T.TEXT, "t.session_id"),
    _trace("thread_identifier", _T.TEXT, "t.thread_id"),
    _trace("root_span_unique_id", _T.ID, "t.root_span_id"),
    START_TIME,
    _trace("end_time", _T.TIME, "t.end_ns", nullable=False, sortable=True, bulk_delete=True),
    _trace("duration", _T.DURATION, "t.duration_ns", nullable=False, sortable=True),
    _trace("span_count", _T.INT, "t.span_count", nullable=False, sortable=True, bulk_delete=True),
    _trace("llm_call_count", _T.INT, "t.llm_call_count", nullable=False, sortable=True, bulk_delete=True),
    _trace("error_count", _T.INT, "t.error_count", nullable=False, sortable=True, bulk_delete=True),
    _trace("unpriced_count", _T.INT, "t.unpriced_count", nullable=False),
    _trace("total_cost", _T.MONEY, "t.cost_pico", sortable=True, bulk_delete=True),
    _trace("total_prompt_tokens", _T.INT, "t.prompt_tokens", sortable=True, bulk_delete=True),
    _trace("total_completion_tokens", _T.INT, "t.completion_tokens", sortable=True, bulk_delete=True),
    _trace(
        "total_tokens",
        _T.INT,
        "t.total_tokens",
        aliases=("total_request_tokens",),
        sortable=True,
        bulk_delete=True,
    ),
    METADATA,
    _trace("text", _T.SEARCH, "t.trace_pk", nullable=False),
    # Span level.
    _span("span_unique_id", _T.ID, "s.span_id", nullable=False, aliases=("span_id",)),
    _span("span_name", _T.TEXT, "s.name", nullable=False),
    _span("span_workflow_name", _T.TEXT, "s.workflow_name"),
    _span("span_path", _T.TEXT, "s.path"),
    _span("span_parent_id", _T.ID, "s.parent_id"),
    _span("model", _T.TEXT, "s.model"),
    _span("provider_id", _T.TEXT, "s.provider"),
    _span("deployment_name", _T.TEXT, "s.deployment_name"),
    _span("prompt_id", _T.TEXT, "s.prompt_id"),
    _span("prompt_name", _T.TEXT, "s.prompt_name"),
    _span("prompt_version_number", _T.VERSION, "s.prompt_version"),
    _span("log_type", _T.TEXT, "s.kind", nullable=False),
    _span("log_method", _T.TEXT, "s.log_method"),
    _span(
        "status",
        _T.TEXT,
        "(CASE s.status WHEN 'error' THEN 'error' ELSE 'success' END)",
        nullable=False,
        choices=("success", "error"),
    ),
    _span("status_code", _T.INT, "s.status_code"),
    _span("error_class", _T.TEXT, "s.error_class"),
    _span("error_fingerprint", _T.TEXT, "s.error_fingerprint"),
    _span("cost", _T.MONEY, "s.cost_pico"),
    _span("latency", _T.DURATION, "(s.end_ns - s.start_ns)", nullable=False),
    _span("time_to_first_token", _T.SECONDS, "s.ttft_s", aliases=("ttft",)),
    # Completion tokens over latency; missing when either is unknown or the span took no time.
    _span("tokens_per_second", _T.SECONDS, "(s.completion_tokens * 1e9 / (s.end_ns - s.start_ns))"),
    _span("routing_time", _T.SECONDS, "s.routing_time_s"),
    _span("prompt_tokens", _T.INT, "s.prompt_tokens", aliases=("input_tokens",)),
    _span("completion_tokens", _T.INT, "s.completion_tokens", aliases=("output_tokens",)),
    _span("prompt_cache_hit_tokens", _T.INT, "s.cached_tokens"),
    _span("prompt_cache_creation_tokens", _T.INT, "s.cache_creation_tokens"),
    _span("stream", _T.BOOL, "s.is_streaming"),
)

BY_NAME: Mapping[str, Field] = MappingProxyType(
    {name: field for field in FIELDS for name in (field.name, *field.aliases)}
)
"""Name or alias → field. `metadata` is in it; its wire form `metadata__<key>` is read by `find_field`."""


def _field_of_name(name: str) -> Field:
    return BY_NAME[name]


def find_field(name: str, *, bulk_delete: bool = False) -> tuple[Field, str | None]:
    """The field that a caller's key names, and the metadata key where it has one.

    Args:
        name: as the caller wrote it, `metadata__<key>` included; case matters.
        bulk_delete: only fields that Respan's bulk deletion may name.
    Raises:
        InvalidFilter: unknown, not allowed here, or `metadata__` without a key; `.fields` is the name.
    """
    if name.startswith(METADATA_PREFIX):
        key = name[len(METADATA_PREFIX) :]
        if not key:
            raise InvalidFilter(f"`{name}` names no metadata key: write `{METADATA_PREFIX}<key>`", fields=(name,))
        return METADATA, key
    field = BY_NAME.get(name)
    if field is None or field is METADATA:
        raise InvalidFilter(f"unknown filter field `{name}`{_hint(name, bulk_delete)}", fields=(name,))
    if bulk_delete and not field.bulk_delete:
        message = f"`{name}` cannot be used in a bulk deletion{_hint(name, bulk_delete)}"
        raise InvalidFilter(message, fields=(name,))
    return field, None


def allowed_names(*, bulk_delete: bool = False) -> list[str]:
    """Canonical names as a caller writes them, in the order of the table."""
    return [
        f"{METADATA_PREFIX}<key>" if field is METADATA else field.name
        for field in FIELDS
        if field.bulk_delete or not bulk_delete
    ]


def _hint(name: str, bulk_delete: bool) -> str:
    names = allowed_names(bulk_delete=bulk_delete)
    near = difflib.get_close_matches(name[:100], names, n=1)
    guess = f"; did you mean `{near[0]}`?" if near and near[0] != name else ""
    return f"{guess}; allowed: {', '.join(names)}"
