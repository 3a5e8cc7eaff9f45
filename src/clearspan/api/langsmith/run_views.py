"""Spans as LangSmith's runs, in the words of the classic API and of v2. Pure: what is shown was loaded before.

The classic API says costs as decimal text and words in lower case; v2 says costs as numbers and words in upper case.
What a run does not state is null. A root that states no usage of its own shows that of its whole trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.api.langsmith.inputs import Json, render_time, uuid_text
from clearspan.api.langsmith.run_content import RunContent, usd_text
from clearspan.api.langsmith.run_tree import RunTree
from clearspan.ingest.rollup import span_total_tokens
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY, dotted_segment, parse_dotted_order
from clearspan.model.runs import is_run_id, run_id_of
from clearspan.model.usage import PICO_PER_USD, usd_from_pico
from clearspan.store.spans import SpanRow

_STATUS: Final = {"error": "error", "pending": "pending"}
_PICO_DIGITS: Final = len(str(PICO_PER_USD)) - 1


class RunFacts(NamedTuple):
    """Everything that a run is shown from. None: not asked for, or not there."""

    row: SpanRow
    project_uuid: str | None  # 32 hex digits
    tenant: str | None  # the organisation's UUID
    content: RunContent | None = None
    tree: RunTree | None = None
    feedback_stats: Json | None = None
    attachments: Mapping[str, tuple[str, str]] | None = None  # name → (link, mime type)
    share_token: str | None = None  # 32 hex digits
    share_root: str = ""  # address before `/public/…`

    @property
    def is_root(self) -> bool:
        """Whether it is the root of its trace."""
        return self.row.detail.span.span_id == self.row.trace.summary.root_span_id

    @property
    def run_id(self) -> str:
        """32 hex digits."""
        return run_id_of(self.row.trace.summary.trace_id, self.row.detail.span.span_id, self.is_root)

    @property
    def told(self) -> RunContent:
        """What the record says; only for columns that are loaded with it."""
        assert self.content is not None
        return self.content


def shown_trace_id(row: SpanRow) -> str:
    """The id (32 hex digits) by which clients know a run's trace: its own, else its root's run id."""
    summary = row.trace.summary
    if is_run_id(summary.trace_id):
        return summary.trace_id
    root_id = summary.root_span_id or row.detail.span.span_id
    return run_id_of(summary.trace_id, root_id, True)


def render_run(facts: RunFacts, columns: Iterable[str]) -> Json:
    """The asked for columns of a run; names that are none are passed over."""
    return {name: _COLUMNS[name](facts) for name in columns if name in _COLUMNS}


def render_run_v2(facts: RunFacts, columns: Iterable[str]) -> Json:
    """As `render_run`, by v2's names in upper case; keys of the answer are in lower case."""
    return {name.lower(): _COLUMNS_V2[name](facts) for name in columns if name in _COLUMNS_V2}


def _uuid(hex32: str | None) -> str | None:
    return None if hex32 is None else uuid_text(hex32)


def _end_ns(facts: RunFacts) -> int | None:
    span = facts.row.detail.span
    return None if span.status == "pending" else span.end_ns


def _latency(facts: RunFacts) -> float | None:
    end_ns = _end_ns(facts)
    return None if end_ns is None else (end_ns - facts.row.detail.span.start_ns) / 1e9


def _status(facts: RunFacts) -> str:
    return _STATUS.get(facts.row.detail.span.status, "success")


def _first_token(facts: RunFacts) -> str | None:
    span = facts.row.detail.span
    return None if span.ttft_s is None else render_time(span.start_ns + round(span.ttft_s * 1e9))


def _parent_run_id(facts: RunFacts) -> str | None:
    summary, parent = facts.row.trace.summary, facts.row.detail.span.parent_id
    if facts.is_root:
        return None
    if parent is None:  # clients expect every run but the root to stand below another
        parent = summary.root_span_id or facts.row.detail.span.span_id
    return uuid_text(run_id_of(summary.trace_id, parent, parent == summary.root_span_id))


def _dotted_order(facts: RunFacts) -> str:
    sent = facts.told.dotted_order
    if sent is not None:
        return sent
    span_id = facts.row.detail.span.span_id
    if facts.tree is None:  # the root's needs no tree
        return dotted_segment(facts.row.detail.span.start_ns, facts.run_id)
    return facts.tree.dotted_order(span_id)


def _parent_run_ids(facts: RunFacts) -> list[str]:
    return [uuid_text(segment.run_id) for segment in parse_dotted_order(_dotted_order(facts))[:-1]]


def _child_run_ids(facts: RunFacts) -> list[str]:
    tree = facts.tree
    if tree is None:
        return []
    return [uuid_text(tree.run_id(each)) for each in tree.descendants(facts.row.detail.span.span_id)]


def _states_usage(facts: RunFacts) -> bool:
    return span_total_tokens(facts.row.detail.span) is not None


def _tokens(facts: RunFacts, own: int | None, of_trace: int | None) -> int | None:
    return of_trace if facts.is_root and not _states_usage(facts) else own


def _total_tokens(facts: RunFacts) -> int | None:
    return _tokens(facts, span_total_tokens(facts.row.detail.span), facts.row.trace.summary.total_tokens)


def _prompt_tokens(facts: RunFacts) -> int | None:
    return _tokens(facts, facts.row.detail.span.prompt_tokens, facts.row.trace.summary.prompt_tokens)


def _completion_tokens(facts: RunFacts) -> int | None:
    return _tokens(facts, facts.row.detail.span.completion_tokens, facts.row.trace.summary.completion_tokens)


def _cost_pico(facts: RunFacts) -> int | None:
    own = facts.row.detail.span.cost_pico
    return facts.row.trace.summary.cost_pico if own is None and facts.is_root else own


def cost_text(pico: int | None) -> str | None:
    """Pico-dollars as the decimal text of dollars, exactly."""
    return None if pico is None else usd_text(Decimal(pico).scaleb(-_PICO_DIGITS))


def _reference_example(facts: RunFacts) -> str | None:
    return dict(facts.row.detail.context.metadata).get(REFERENCE_EXAMPLE_KEY)


def _thread_id(facts: RunFacts) -> str | None:
    context = facts.row.detail.context
    return context.thread_id if context.thread_id is not None else context.session_id


def _app_path(facts: RunFacts) -> str | None:
    if facts.project_uuid is None or facts.tenant is None:
        return None
    return f"/o/{facts.tenant}/projects/p/{uuid_text(facts.project_uuid)}/r/{uuid_text(facts.run_id)}"


def _s3_urls(facts: RunFacts) -> Json | None:
    if not facts.attachments:
        return None
    return {
        f"attachment.{name}": {"presigned_url": link, "mime_type": mime_type}
        for name, (link, mime_type) in facts.attachments.items()
    }


def _amounts(details: Mapping[str, Decimal]) -> Json | None:
    return {key: usd_text(amount) for key, amount in details.items()} or None


def _counts(details: Mapping[str, int]) -> Json | None:
    return dict(details) or None


_COLUMNS: Final[Mapping[str, Callable[[RunFacts], Any]]] = {
    "id": lambda f: uuid_text(f.run_id),
    "name": lambda f: f.told.name,
    "run_type": lambda f: f.told.run_type,
    "start_time": lambda f: render_time(f.row.detail.span.start_ns),
    "end_time": lambda f: render_time(_end_ns(f)),
    "latency": _latency,
    "status": _status,
    "error": lambda f: f.told.error,
    "extra": lambda f: f.told.extra,
    "events": lambda f: f.told.events,
    "inputs": lambda f: f.told.inputs,
    "inputs_preview": lambda f: f.told.inputs_preview,
    "outputs": lambda f: f.told.outputs,
    "outputs_preview": lambda f: f.told.outputs_preview,
    "messages": lambda f: f.told.messages(),
    "serialized": lambda f: f.told.serialized,
    "manifest_id": lambda f: None,
    "s3_urls": _s3_urls,
    "parent_run_id": _parent_run_id,
    "parent_run_ids": _parent_run_ids,
    "child_run_ids": _child_run_ids,
    "session_id": lambda f: _uuid(f.project_uuid),
    "trace_id": lambda f: uuid_text(shown_trace_id(f.row)),
    "dotted_order": _dotted_order,
    "thread_id": _thread_id,
    "tags": lambda f: list(f.row.detail.context.tags),
    "reference_example_id": _reference_example,
    "reference_dataset_id": lambda f: None,
    "total_tokens": _total_tokens,
    "prompt_tokens": _prompt_tokens,
    "completion_tokens": _completion_tokens,
    "prompt_token_details": lambda f: _counts(f.told.usage.prompt_token_details),
    "completion_token_details": lambda f: _counts(f.told.usage.completion_token_details),
    "total_cost": lambda f: cost_text(_cost_pico(f)),
    "prompt_cost": lambda f: usd_text(f.told.usage.prompt_cost),
    "completion_cost": lambda f: usd_text(f.told.usage.completion_cost),
    "prompt_cost_details": lambda f: _amounts(f.told.usage.prompt_cost_details),
    "completion_cost_details": lambda f: _amounts(f.told.usage.completion_cost_details),
    "price_model_id": lambda f: None,
    "first_token_time": _first_token,
    "feedback_stats": lambda f: f.feedback_stats or {},
    "share_token": lambda f: _uuid(f.share_token),
    "app_path": _app_path,
    "in_dataset": lambda f: False,
    "last_queued_at": lambda f: None,
    "trace_tier": lambda f: None,
    "trace_first_received_at": lambda f: render_time(f.row.trace.received_ns),
    "inserted_at": lambda f: render_time(f.row.trace.received_ns),
    "ttl_seconds": lambda f: None,
    "trace_upgrade": lambda f: False,
}

COLUMNS: Final = tuple(_COLUMNS)
"""What the classic API can be asked for."""
_ON_REQUEST: Final = frozenset(
    {"latency", "inputs_preview", "outputs_preview", "messages", "child_run_ids", "s3_urls", "manifest_id"}
)
DEFAULT_COLUMNS: Final = tuple(name for name in _COLUMNS if name not in _ON_REQUEST)
"""What a list shows that does not say."""
ONE_RUN_COLUMNS: Final = tuple(name for name in _COLUMNS if name != "messages")
"""What one run shows."""
ALWAYS: Final = ("id", "name", "run_type", "start_time", "trace_id")
"""What clients' models insist on, asked for or not."""


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _details(details: Mapping[str, Decimal | int]) -> Json:
    return {"raw": {key: each if isinstance(each, int) else float(each) for key, each in details.items()}}


def _error_preview(facts: RunFacts) -> str | None:
    error = facts.told.error
    return error.strip().split("\n", 1)[0][:200] if error else None


def _attachments_v2(facts: RunFacts) -> Json:
    return {name: link for name, (link, _) in (facts.attachments or {}).items()}


def _share_url(facts: RunFacts) -> str | None:
    return None if facts.share_token is None else f"{facts.share_root}/public/{uuid_text(facts.share_token)}/r"


def _object(value: Any) -> Any:
    """v2's inputs and outputs are objects or absent."""
    return None if isinstance(value, msgspec.Raw) and bytes(value)[:1] != b"{" else value


_COLUMNS_V2: Final[Mapping[str, Callable[[RunFacts], Any]]] = {
    **{
        name.upper(): _COLUMNS[name]
        for name in (
            "id", "name", "start_time", "end_time", "first_token_time", "error", "extra", "events",
            "inputs_preview", "outputs_preview", "parent_run_id", "parent_run_ids", "trace_id", "thread_id",
            "dotted_order", "reference_example_id", "reference_dataset_id", "total_tokens", "prompt_tokens",
            "completion_tokens", "price_model_id", "tags", "app_path", "last_queued_at", "feedback_stats",
        )
    },
    "RUN_TYPE": lambda f: f.told.run_type.upper(),
    "STATUS": lambda f: _status(f).upper(),
    "LATENCY_SECONDS": _latency,
    "ERROR_PREVIEW": _error_preview,
    "METADATA": lambda f: f.told.metadata,
    "INPUTS": lambda f: _object(f.told.inputs),
    "OUTPUTS": lambda f: _object(f.told.outputs),
    "MANIFEST": lambda f: f.told.serialized,
    "PROJECT_ID": lambda f: _uuid(f.project_uuid),
    "IS_ROOT": lambda f: f.is_root,
    "TOTAL_COST": lambda f: usd_from_pico(_cost_pico(f)),
    "PROMPT_COST": lambda f: _number(f.told.usage.prompt_cost),
    "COMPLETION_COST": lambda f: _number(f.told.usage.completion_cost),
    "PROMPT_TOKEN_DETAILS": lambda f: _details(f.told.usage.prompt_token_details),
    "COMPLETION_TOKEN_DETAILS": lambda f: _details(f.told.usage.completion_token_details),
    "PROMPT_COST_DETAILS": lambda f: _details(f.told.usage.prompt_cost_details),
    "COMPLETION_COST_DETAILS": lambda f: _details(f.told.usage.completion_cost_details),
    "ATTACHMENTS": _attachments_v2,
    "THREAD_EVALUATION_TIME": lambda f: None,
    "IS_IN_DATASET": lambda f: False,
    "SHARE_URL": _share_url,
    "LS_USER_ID": lambda f: None,
}  # fmt: skip

COLUMNS_V2: Final = tuple(_COLUMNS_V2)
"""What v2 can be asked for."""


class Needs(NamedTuple):
    """What has to be loaded for some columns."""

    content: bool
    tree: bool  # of every trace; else only of traces whose runs do not say where they stand
    ancestors: bool
    feedback: bool
    attachments: bool
    shares: bool


_RECORD_FREE: Final = frozenset(
    {
        "id", "start_time", "end_time", "latency", "latency_seconds", "status", "s3_urls", "attachments",
        "parent_run_id", "child_run_ids", "session_id", "project_id", "trace_id", "thread_id", "tags",
        "reference_example_id", "reference_dataset_id", "total_tokens", "prompt_tokens", "completion_tokens",
        "total_cost", "price_model_id", "first_token_time", "feedback_stats", "share_token", "share_url", "app_path",
        "in_dataset", "is_in_dataset", "is_root", "last_queued_at", "trace_tier", "trace_first_received_at",
        "inserted_at", "ttl_seconds", "trace_upgrade", "manifest_id", "thread_evaluation_time", "ls_user_id",
    }
)  # fmt: skip


def needs_of(columns: Sequence[str]) -> Needs:
    """What has to be loaded for these columns, by the names of either API."""
    asked = {name.lower() for name in columns}
    return Needs(
        content=bool(asked - _RECORD_FREE),
        tree="child_run_ids" in asked,
        ancestors=bool(asked & {"dotted_order", "parent_run_ids"}),
        feedback="feedback_stats" in asked,
        attachments=bool(asked & {"s3_urls", "attachments"}),
        shares=bool(asked & {"share_token", "share_url"}),
    )
