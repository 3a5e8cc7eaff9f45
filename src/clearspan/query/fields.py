"""Every field a filter may name: one table, from which the compiler, the oracle, the parsers and the docs read.

A *trace-level* field has one value per trace. A *span-level* field has one value per span: a trace matches when
some span of it does. An *entry-level* field has one value per entry of a collection that a span carries: its metadata,
its tags, its annotations, the values of its input and output. Three pseudo-fields are neither a column of the trace nor
of a span: `metadata` (named with its key, `metadata__<key>`), `scores` (named with the name of annotations,
`scores__<name>`) and `text` (everything readable in the trace).

SPAN_FIELDS hold what only an expression about one span may name (LangSmith's runs): filters of traces do not know them.

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
from clearspan.model.span import SpanContext

METADATA_PREFIX = "metadata__"
SCORES_PREFIX = "scores__"


class Level(StrEnum):
    """Whose value a field is."""

    TRACE = "trace"
    SPAN = "span"
    ENTRY = "entry"


class Collection(StrEnum):
    """What a span carries many of."""

    METADATA = "metadata"  # its own (key, value) pairs
    TAGS = "tags"
    ANNOTATIONS = "annotations"  # about the span; of the root span also about its trace
    INPUTS = "inputs"  # (key, value) of every leaf of its input; keys of nested values are joined by dots
    OUTPUTS = "outputs"


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
    SCORE = "score"  # filters and column say a number, as float; named with a key, the name of annotations
    SEARCH = "search"  # all readable text of a trace


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the registry. Two fields are the same field when their names are equal."""

    name: str
    type: FieldType
    level: Level
    sql: str  # over alias t (trace), s (span), m (metadata) or a (annotation); never anything a caller wrote
    nullable: bool = True
    aliases: tuple[str, ...] = ()
    sortable: bool = False
    bulk_delete: bool = False  # may be named in Respan's bulk deletion
    choices: tuple[str, ...] = ()  # the only values that equality can ask for
    collection: Collection | None = None  # of an entry-level field
    payload: bool = False  # read from the wire record: 1,000 times as slow as a column

    def __reduce__(self) -> tuple[Callable[[str], Field], tuple[str]]:
        """Between processes a field goes by its name: SQL comes from the receiver's own table."""
        return field_named, (self.name,)


def _trace(name: str, type: FieldType, sql: str, **rest: object) -> Field:
    return Field(name, type, Level.TRACE, sql, **rest)  # type: ignore[arg-type]


def _span(name: str, type: FieldType, sql: str, **rest: object) -> Field:
    return Field(name, type, Level.SPAN, sql, **rest)  # type: ignore[arg-type]


_T = FieldType

METADATA = _trace("metadata", _T.METADATA, "m.value", bulk_delete=True)
SCORES = _trace("scores", _T.SCORE, "a.score")
PREFIX_OF: Mapping[str, str] = MappingProxyType({METADATA.name: METADATA_PREFIX, SCORES.name: SCORES_PREFIX})
"""Name of a field that filters name with a key → what stands before the key."""
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
    SCORES,
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
"""Name or alias → field. `metadata` and `scores` are in it; `find_field` reads their wire form, `metadata__<key>`."""


_AT_THREAD, _AT_SESSION = (SpanContext._fields.index(name) for name in ("thread_id", "session_id"))
THREAD_OF_CONTEXT = f"coalesce(c.body ->> '$[{_AT_THREAD}]', c.body ->> '$[{_AT_SESSION}]')"
"""Of a row of `context`, in the words of the index `context_by_thread`; NULL: it names no thread."""
_THREAD = (
    f"(SELECT {THREAD_OF_CONTEXT} FROM context c "  # noqa: S608
    "WHERE c.trace_pk = s.trace_pk AND c.context_key = s.context_key)"
)


def _part(what: str) -> str:
    """A text of the span's wire record; the connection's function `span_part` reads it."""
    return f"span_part(s.trace_pk, s.span_id, s.block_no, '{what}')"


def _entry(collection: Collection, name: str, type: FieldType, sql: str, **rest: object) -> Field:
    return Field(name, type, Level.ENTRY, sql, collection=collection, **rest)  # type: ignore[arg-type]


_IS_PENDING = "s.status = 'pending'"

IS_ROOT = _span("is_root", _T.BOOL, "(s.span_id = t.root_span_id)")
RUN_ID = _span("run_id", _T.ID, "run_id(t.trace_id, s.span_id, s.span_id IS t.root_span_id)", nullable=False)
THREAD_ID = _span("span_thread_id", _T.TEXT, _THREAD)
SPAN_TEXT = _span("span_text", _T.TEXT, _part("text"), nullable=False, payload=True)

SPAN_FIELDS: tuple[Field, ...] = (
    IS_ROOT,
    RUN_ID,
    # Of the span that is named as the parent, whether it is here or not.
    _span(
        "parent_run_id",
        _T.ID,
        "(CASE WHEN s.parent_id IS NOT NULL THEN run_id(t.trace_id, s.parent_id, s.parent_id IS t.root_span_id) END)",
    ),
    _span("span_start_time", _T.TIME, "s.start_ns", nullable=False),
    _span("span_end_time", _T.TIME, f"(CASE WHEN NOT {_IS_PENDING} THEN s.end_ns END)"),
    _span("span_latency", _T.DURATION, f"(CASE WHEN NOT {_IS_PENDING} THEN s.end_ns - s.start_ns END)"),
    _span(
        "span_status",
        _T.TEXT,
        "(CASE s.status WHEN 'error' THEN 'error' WHEN 'pending' THEN 'pending' ELSE 'success' END)",
        nullable=False,
        choices=("success", "error", "pending"),
    ),
    # As sums count them: what the span states, else its two parts.
    _span(
        "span_total_tokens",
        _T.INT,
        "coalesce(s.total_tokens, CASE WHEN s.prompt_tokens IS NOT NULL OR s.completion_tokens IS NOT NULL "
        "THEN coalesce(s.prompt_tokens, 0) + coalesce(s.completion_tokens, 0) END)",
    ),
    THREAD_ID,
    SPAN_TEXT,
    _span("span_input", _T.TEXT, _part("input"), payload=True),
    _span("span_output", _T.TEXT, _part("output"), payload=True),
    _span("span_error", _T.TEXT, _part("error"), payload=True),
    _entry(Collection.METADATA, "metadata_key", _T.TEXT, "(e.value ->> 0)", nullable=False),
    _entry(Collection.METADATA, "metadata_value", _T.METADATA, "(e.value ->> 1)", nullable=False),
    _entry(Collection.TAGS, "tag", _T.TEXT, "e.value", nullable=False),
    _entry(Collection.ANNOTATIONS, "annotation_name", _T.TEXT, "a.name", nullable=False),
    _entry(Collection.ANNOTATIONS, "annotation_score", _T.SECONDS, "a.score"),
    _entry(Collection.ANNOTATIONS, "annotation_label", _T.TEXT, "a.label"),
    _entry(Collection.ANNOTATIONS, "annotation_source", _T.TEXT, "a.source", nullable=False),
    _entry(Collection.ANNOTATIONS, "annotation_target", _T.TEXT, "a.target", nullable=False),
    _entry(Collection.INPUTS, "input_key", _T.TEXT, "(e.value ->> 0)", nullable=False, payload=True),
    _entry(Collection.INPUTS, "input_value", _T.METADATA, "(e.value ->> 1)", nullable=False, payload=True),
    _entry(Collection.OUTPUTS, "output_key", _T.TEXT, "(e.value ->> 0)", nullable=False, payload=True),
    _entry(Collection.OUTPUTS, "output_value", _T.METADATA, "(e.value ->> 1)", nullable=False, payload=True),
)
"""What only expressions about one span may name; see ast.py."""

_EVERY_NAME: Mapping[str, Field] = MappingProxyType({**BY_NAME, **{field.name: field for field in SPAN_FIELDS}})


def field_named(name: str) -> Field:
    """The field of a name or alias, SPAN_FIELDS included. Raises KeyError."""
    return _EVERY_NAME[name]


def find_field(name: str, *, bulk_delete: bool = False) -> tuple[Field, str | None]:
    """The field that a caller's name means, and the key where it has one.

    Args:
        name: as the caller wrote it, `metadata__<key>` and `scores__<name>` included; case matters.
        bulk_delete: only fields that Respan's bulk deletion may name.
    Raises:
        InvalidFilter: unknown, not allowed here, or a prefix without a key; `.fields` is the name.
    """
    field, key = _keyed(name)
    if field is None:
        raise InvalidFilter(f"unknown filter field `{name}`{_hint(name, bulk_delete)}", fields=(name,))
    if bulk_delete and not field.bulk_delete:
        message = f"`{name}` cannot be used in a bulk deletion{_hint(name, bulk_delete)}"
        raise InvalidFilter(message, fields=(name,))
    if key == "":
        what = "score" if field is SCORES else "metadata key"
        raise InvalidFilter(f"`{name}` names no {what}: write `{_written(field)}`", fields=(name,))
    return field, key


def _keyed(name: str) -> tuple[Field | None, str | None]:
    """The field that a name means, and its key; a field that needs a key is not known without its prefix."""
    for field in (METADATA, SCORES):
        prefix = PREFIX_OF[field.name]
        if name.startswith(prefix):
            return field, name[len(prefix) :]
    return (None if name in PREFIX_OF else BY_NAME.get(name)), None


def allowed_names(*, bulk_delete: bool = False) -> list[str]:
    """Canonical names as a caller writes them, in the order of the table."""
    return [_written(field) for field in FIELDS if field.bulk_delete or not bulk_delete]


def _written(field: Field) -> str:
    """A field as a caller writes it."""
    prefix = PREFIX_OF.get(field.name)
    return field.name if prefix is None else f"{prefix}<{'name' if field is SCORES else 'key'}>"


def _hint(name: str, bulk_delete: bool) -> str:
    names = allowed_names(bulk_delete=bulk_delete)
    near = difflib.get_close_matches(name[:100], names, n=1)
    guess = f"; did you mean `{near[0]}`?" if near and near[0] != name else ""
    return f"{guess}; allowed: {', '.join(names)}"
