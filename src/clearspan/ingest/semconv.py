"""What the attributes of every known client mean, as one table.

`FIELDS` says for each field of the model which attributes carry it, the best first. Families: OpenInference
(OI), OpenLLMetry (OLL), OTel GenAI (GEN) and its older form with log events (EVT), Respan (RSP), Pydantic
AI with Logfire (PYD), LangSmith over OTLP (LSO), Vercel AI SDK (VAI). Where two families meet on one span
(LSO writes GEN names, OLL-based Respan writes Traceloop's) the order here decides, not a guess about the
sender.

Ingest compiles the table to key → (slot, rank, reader) (promote.py); the detail view asks it by name
(detail.py). `keywordsai.` is Respan's older prefix with the same suffixes.

Metadata, what filters find as `metadata__<key>`: the keys under `METADATA_PREFIXES` without their prefix,
OpenInference's and Respan's JSON objects flattened with dots, and any attribute nobody knows, under its
full name, if its value is a scalar of at most `UNKNOWN_VALUE_CHARS_MAX` characters and its namespace is not
one of `NOISE_NAMESPACES`, in which instrumentation libraries describe themselves. The bounds are there
because each pair becomes an index row; the attribute itself is kept whole in the payload whatever its size.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Reader = Literal["text", "object", "count", "number", "money", "flag", "tags", "kind"]

METADATA_PAIRS_MAX: Final = 64  # per span; the first in the order of the wire
METADATA_KEY_CHARS_MAX: Final = 200  # a longer key is not indexed
METADATA_VALUE_CHARS_MAX: Final = 1024  # a longer value is cut
UNKNOWN_VALUE_CHARS_MAX: Final = 256
TEXT_CHARS_MAX: Final = 1024  # of a promoted text; a longer one is cut in the row and whole in the payload
SCRUBBED: Final = "[Scrubbed due to"  # Logfire's stand-in for what it removed: never a value


class Field(NamedTuple):
    """One field of the model, and the attributes that carry it, the best first."""

    name: str
    read: Reader
    keys: tuple[str, ...]


FIELDS: Final[tuple[Field, ...]] = (
    # What it is
    Field("kind", "kind", (
        "respan.entity.log_type",
        "openinference.span.kind",
        "traceloop.span.kind",
        "ai.operationId",
        # Before the operation's name: LangSmith's client calls a retriever "embeddings" there.
        "langsmith.span.kind",
        "gen_ai.operation.name",
        "llm.request.type",
    )),
    # What these are about tells the kind of a span that does not say it.
    Field("tool_name", "text", ("gen_ai.tool.name",)),
    Field("template_variables", "object", ("llm.prompt_template.variables",)),
    Field("entity_name", "text", ("traceloop.entity.name",)),
    Field("run_name", "text", ("langsmith.trace.name",)),
    Field("workflow_name", "text", ("traceloop.workflow.name",)),
    Field("path", "text", ("traceloop.entity.path",)),
    Field("log_method", "text", ("respan.entity.log_method",)),
    Field("operation_id", "text", ("ai.operationId",)),
    Field("function_id", "text", ("ai.telemetry.functionId",)),
    Field("message", "text", ("logfire.msg",)),
    # Model and prompt
    Field("model", "text", (
        "gen_ai.request.model",
        "ai.model.id",
        "llm.request.model",
        "langsmith.metadata.ls_model_name",
        "model_name",
        "model",
    )),
    Field("response_model", "text", (
        "gen_ai.response.model",
        "ai.response.model",
        "llm.response.model",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
    )),
    Field("invocation", "object", ("llm.invocation_parameters", "embedding.invocation_parameters")),
    Field("provider", "text", (
        "gen_ai.provider.name",
        "llm.provider",
        "langsmith.metadata.ls_provider",
        "gen_ai.system",
        "llm.system",
        "ai.model.provider",
    )),
    Field("deployment_name", "text", ("deployment_name", "respan.deployment_name")),
    Field("prompt_id", "text", ("respan.prompt.prompt_id", "prompt_id")),
    Field("prompt_name", "text", ("gen_ai.prompt.name", "traceloop.prompt.key", "prompt_name")),
    Field("prompt_version", "text", (
        "gen_ai.prompt.version",
        "traceloop.prompt.version",
        "llm.prompt_template.version",
        "prompt_version_number",
    )),
    Field("prompt", "object", ("respan.prompt",)),
    # Usage and cost. The aggregated names come last: a span that has only them repeats its descendants.
    Field("prompt_tokens", "count", (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        "prompt_tokens",
        "gen_ai.aggregated_usage.input_tokens",
    )),
    Field("completion_tokens", "count", (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "completion_tokens",
        "gen_ai.aggregated_usage.output_tokens",
    )),
    Field("total_tokens", "count", (
        "gen_ai.usage.total_tokens",
        "llm.token_count.total",
        "llm.usage.total_tokens",
        "ai.usage.totalTokens",
        "ai.usage.tokens",
        "total_request_tokens",
        "total_tokens",
        "gen_ai.aggregated_usage.total_tokens",
    )),
    Field("cached_tokens", "count", (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.cachedInputTokens",
        "prompt_cache_hit_tokens",
        "gen_ai.aggregated_usage.cache_read.input_tokens",
    )),
    Field("cache_creation_tokens", "count", (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.token_count.prompt_details.cache_write",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
        "prompt_cache_creation_tokens",
        "gen_ai.aggregated_usage.cache_creation.input_tokens",
    )),
    Field("reasoning_tokens", "count", (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "llm.usage.reasoning_tokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
        "ai.usage.reasoningTokens",
        "gen_ai.aggregated_usage.details.reasoning_tokens",
    )),
    Field("usage_json", "object", ("langsmith.usage_metadata", "langsmith.metadata.usage_metadata")),
    Field("input_details", "object", ("gen_ai.usage.input_token_details",)),
    Field("output_details", "object", ("gen_ai.usage.output_token_details",)),
    Field("cost", "money", (
        "operation.cost",
        "llm.cost.total",
        "gen_ai.usage.cost",
        "gen_ai.usage.total_cost",
        "respan.cost",
        "cost",
    )),
    Field("cost_prompt", "money", ("llm.cost.prompt",)),
    Field("cost_completion", "money", ("llm.cost.completion",)),
    # Time and outcome
    Field("ttft_s", "number", (
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.server.time_to_first_token",
        "llm.openai.chat_completions.streaming_time_to_first_token",
        "time_to_first_token",
    )),
    Field("ttft_ms", "number", ("ai.response.msToFirstChunk",)),
    Field("routing_time_s", "number", ("routing_time", "respan.routing_time")),
    Field("is_streaming", "flag", (
        "gen_ai.is_streaming",
        "gen_ai.request.stream",
        "llm.is_streaming",
        "langsmith.request.streaming",
        "stream",
    )),
    Field("status_code", "count", ("status_code", "http.response.status_code", "http.status_code")),
    Field("error_class", "text", ("error.type",)),
    Field("error_message", "text", ("error.message",)),
    Field("is_traceable", "flag", ("langsmith.traceable",)),
    # Who and where
    Field("customer_identifier", "text", (
        "respan.customer_params.customer_identifier",
        "user.id",
        "traceloop.association.properties.customer_identifier",
        "traceloop.association.properties.user_id",
        "langsmith.metadata.user_id",
        "ai.telemetry.metadata.userId",
        "enduser.id",
        "customer_identifier",
        "user_id",
        "gen_ai.user",
    )),
    Field("customer_email", "text", ("respan.customer_params.email", "user.email")),
    Field("customer_name", "text", ("respan.customer_params.name", "user.full_name", "user.name")),
    Field("session_id", "text", (
        "respan.sessions.session_identifier",
        "session.id",
        "traceloop.association.properties.session_id",
        "langsmith.metadata.session_id",
        "langsmith.metadata.conversation_id",
        "ai.telemetry.metadata.sessionId",
        "session_identifier",
        "session_id",
        "gen_ai.conversation.id",
    )),
    Field("thread_id", "text", (
        "respan.threads.thread_identifier",
        "traceloop.association.properties.thread_id",
        "langsmith.metadata.thread_id",
        "thread_identifier",
    )),
    Field("group_id", "text", ("respan.trace.trace_group_identifier", "trace_group_identifier")),
    Field("environment", "text", (
        "respan.environment",
        "deployment.environment.name",
        "deployment.environment",
    )),
    Field("tags", "tags", (
        "tag.tags",
        "langsmith.span.tags",
        "ai.telemetry.metadata.tags",
        "traceloop.association.properties.tags",
        "logfire.tags",
    )),
)  # fmt: skip

KIND_WORDS: Final[dict[str, str]] = {
    # GEN, EVT, OLL, PYD: gen_ai.operation.name
    "chat": "chat",
    "text_completion": "completion",
    "generate_content": "generation",
    "embeddings": "embedding",
    "invoke_agent": "agent",
    "create_agent": "agent",
    "invoke_workflow": "workflow",
    "execute_tool": "tool",
    "retrieval": "retriever",
    # OI: openinference.span.kind. Every known OI source of an LLM span is a chat or a Responses call.
    "llm": "chat",
    # RSP and legacy ingest: log types, with the words older clients use
    "completion": "completion",
    "response": "response",
    "responses": "response",
    "generation": "generation",
    "embedding": "embedding",
    "text": "text",
    "workflow": "workflow",
    "agent": "agent",
    "task": "task",
    "tool": "tool",
    "chain": "chain",
    "retriever": "retriever",
    "reranker": "reranker",
    "rerank": "reranker",
    "guardrail": "guardrail",
    "evaluator": "evaluator",
    "prompt": "prompt",
    "handoff": "handoff",
    "function": "function",
    "speech": "speech",
    "transcription": "transcription",
    "score": "score",
    "batch": "batch",
    "custom": "custom",
    "span": "span",
    "other": "other",
    "unknown": "unknown",
    # LSO: langsmith.span.kind
    "parser": "parser",
}

_VERCEL_STEPS: Final = (
    ("embed", "embedding"),
    ("rerank", "reranker"),
    ("speech", "speech"),
    ("transcri", "transcription"),
)
"""What an `ai.*.do*` step does, by a part of its name; any other is a chat call."""


def parse_kind(word: str) -> str | None:
    """A wire word for what a span is → one of model.span.KINDS; None for a word nobody has defined.

    An operation id of the Vercel AI SDK is known by its `ai.`: `ai.toolCall` is a tool, a step `….do…` is
    the call to the model, and what is around the steps (`ai.generateText`) is a chain, for it may hold many
    of them.
    """
    known = KIND_WORDS.get(word)
    if known is not None or not word.startswith("ai."):
        return known or KIND_WORDS.get(word.lower())
    if word == "ai.toolCall":
        return "tool"
    if not is_vercel_step(word):
        return "chain"
    lowered = word.lower()
    return next((kind for part, kind in _VERCEL_STEPS if part in lowered), "chat")


def is_vercel_step(operation_id: str) -> bool:
    """Whether a Vercel operation is one call to a model: its tokens count, the outer operation repeats
    them."""
    return ".do" in operation_id


METADATA_PREFIXES: Final = (
    "respan.metadata.",
    "respan.properties.",
    "traceloop.association.properties.",
    "langsmith.metadata.",
    "ai.telemetry.metadata.",
)

METADATA_OBJECTS: Final = ("metadata", "respan.metadata", "respan.properties")
"""Attributes that hold a whole object, as JSON text or as a key-value list."""

METADATA_RENAMED: Final[dict[str, str]] = {
    "respan.span_params.custom_identifier": "custom_identifier",
    "respan.evaluation_params.evaluation_identifier": "evaluation_identifier",
}

METADATA_TOO: Final = frozenset({"user_id", "session_id", "customer_identifier", "session_identifier"})
"""Promoted names that are an application's own words: they are its metadata as well."""

METADATA_NEVER: Final = (
    "langsmith.metadata.LANGSMITH_",
    "langsmith.metadata.ls_invocation_params",
    "langsmith.metadata.usage_metadata",
    "ai.telemetry.metadata.tags",
    "traceloop.association.properties.tags",
)
"""Beginnings of keys under a metadata prefix that describe the client's set-up or repeat what is promoted."""

NOISE_NAMESPACES: Final = frozenset({
    "ai", "gen_ai", "llm", "openinference", "input", "output", "embedding", "retrieval", "reranker", "tool",
    "message", "document", "tag", "graph", "langsmith", "traceloop", "respan", "keywordsai", "logfire",
    "pydantic_ai", "openai", "anthropic", "azure", "aws", "gcp", "vertex_ai", "langgraph", "operation",
    "resource", "telemetry", "otel", "http", "url", "net", "network", "server", "client", "user_agent",
    "code", "thread", "process", "host", "os", "service", "exception", "error", "rpc", "db", "messaging",
    "peer", "faas", "cloud", "k8s", "container", "status",
})  # fmt: skip

NOISE_NAMES: Final = frozenset({
    "agent.name", "agent_name", "all_messages", "all_messages_events", "async", "duration", "final_result", "metadata",
    "model_request_parameters", "request_data", "response_data", "return", "tool_arguments", "tool_response",
})  # fmt: skip
"""Single names under which instrumentations (Pydantic AI, Logfire, OpenInference) keep what they record."""

COMMA_TAGS: Final = "langsmith.span.tags"
"""LangSmith documents tags joined by a comma, with or without a space after it; the others put both."""

_OLDER: Final = "keywordsai."
_NEWER: Final = "respan."


def modern(key: str) -> str:
    """`keywordsai.x` is read as `respan.x`."""
    return _NEWER + key[len(_OLDER) :] if key.startswith(_OLDER) else key


def metadata_key(key: str) -> str | None:
    """The name under which a scalar attribute is metadata, None if it is not. `key` has been made
    `modern`."""
    for prefix in METADATA_PREFIXES:
        if key.startswith(prefix):
            return None if key.startswith(METADATA_NEVER) or key == prefix else key[len(prefix) :]
    return METADATA_RENAMED.get(key) or (key if key in METADATA_TOO else None)


def is_noise(key: str) -> bool:
    """Whether an attribute outside the table says nothing that an application meant as metadata."""
    namespace, dot, _ = key.partition(".")
    return not key or key in NOISE_NAMES or (bool(dot) and namespace in NOISE_NAMESPACES)


BY_NAME: Final[dict[str, Field]] = {field.name: field for field in FIELDS}
PROMOTED: Final[frozenset[str]] = frozenset(key for field in FIELDS for key in field.keys)
