"""The table of attributes, and what single attributes of each family become."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from clearspan.ingest import semconv
from clearspan.ingest.dispatch import RULES, SLOTS, Effects, read_attributes
from clearspan.ingest.failure import error_fingerprint, specific_class
from clearspan.ingest.limits import DEFAULT_LIMITS
from clearspan.ingest.metadata import canonical_pairs
from clearspan.ingest.origin import Origin
from clearspan.ingest.promote import Promoter, Source
from clearspan.model.span import KINDS, Span, SpanContext


def any_of(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_of(each) for each in value]))
    if isinstance(value, dict):
        pairs = [KeyValue(key=key, value=any_of(each)) for key, each in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=pairs))
    return AnyValue(string_value=value)


def promote(attributes: dict[str, Any], **fields: Any) -> tuple[Span, SpanContext]:
    wire = WireSpan(**{"trace_id": b"\1" * 16, "span_id": b"\1" * 8, "start_time_unix_nano": 10**9} | fields)
    wire.attributes.extend(KeyValue(key=key, value=any_of(value)) for key, value in attributes.items())
    promoter = Promoter(Origin(1), DEFAULT_LIMITS, None)
    _, span = promoter.span(wire.SerializeToString(), Source(0, None))
    return span, promoter.contexts[span.context_key]


def test_the_table_names_each_attribute_of_a_field_once() -> None:
    assert len({field.name for field in semconv.FIELDS}) == len(semconv.FIELDS)
    for field in semconv.FIELDS:
        assert len(set(field.keys)) == len(field.keys), field.name
    assert len(SLOTS) == len(semconv.FIELDS)


def test_every_kind_is_one_of_the_models() -> None:
    assert set(semconv.KIND_WORDS.values()) <= KINDS
    words = ["ai.generateText", "ai.streamText.doStream", "ai.embedMany.doEmbed", "ai.toolCall", "ai.rerank.doRerank"]
    assert [semconv.parse_kind(word) for word in words] == ["chain", "chat", "embedding", "tool", "reranker"]
    assert semconv.parse_kind("LLM") == semconv.parse_kind("llm") == "chat"
    assert semconv.parse_kind("EMBEDDING") == "embedding"
    assert semconv.parse_kind("no such word") is None


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"openinference.span.kind": "RETRIEVER"}, "retriever"),
        ({"gen_ai.operation.name": "invoke_agent"}, "agent"),
        ({"respan.entity.log_type": "chat", "traceloop.span.kind": "task"}, "chat"),
        ({"keywordsai.entity.log_type": "embedding"}, "embedding"),
        ({"traceloop.span.kind": "workflow", "llm.request.type": "chat"}, "workflow"),
        ({"respan.entity.log_type": "no such", "llm.request.type": "chat"}, "chat"),
        ({"langsmith.span.kind": "tool"}, "tool"),
        ({"langsmith.span.kind": "retriever", "gen_ai.operation.name": "embeddings"}, "retriever"),
        ({"langsmith.span.kind": "parser"}, "parser"),
        ({"gen_ai.operation.name": 5}, "span"),
        ({}, "span"),
    ],
)
def test_kinds(attributes: dict[str, Any], kind: str) -> None:
    assert promote(attributes)[0].kind == kind


def test_counts_in_every_spelling_and_none_for_what_is_no_count() -> None:
    for value in (1187, 1187.0, "1187"):
        assert promote({"gen_ai.usage.input_tokens": value})[0].prompt_tokens == 1187
    for value in (-1, 1.5, "many", True, 2**60, float("nan"), [1], ""):
        assert promote({"gen_ai.usage.input_tokens": value})[0].prompt_tokens is None
    assert promote({"gen_ai.usage.input_tokens": 0})[0].prompt_tokens == 0
    both = promote({"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.input_tokens": 7})[0]
    assert both.prompt_tokens == 7
    assert promote({"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.input_tokens": -7})[0].prompt_tokens == 5


def test_three_names_of_reasoning_tokens() -> None:
    for key in (
        "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens", "llm.token_count.completion_details.reasoning",
        "ai.usage.reasoningTokens",
    ):  # fmt: skip
        assert promote({key: 64})[0].reasoning_tokens == 64, key


def test_costs_of_the_source() -> None:
    assert promote({"operation.cost": 0.00015885})[0].cost_pico == 158_850_000
    assert promote({"llm.cost.prompt": 0.1, "llm.cost.completion": 0.2})[0].cost_pico == 300_000_000_000
    assert promote({"llm.cost.prompt": 0.1, "llm.cost.total": 0.5})[0].cost_pico == 500_000_000_000
    assert promote({"gen_ai.usage.cost": 0.0})[0].cost_pico == 0
    assert promote({"gen_ai.usage.cost": -1.0})[0].cost_pico is None
    assert promote({"gen_ai.usage.cost": float("inf")})[0].cost_pico is None
    assert promote({"operation.cost": 1})[0].cost_source == "source"


def test_aggregated_usage_repeats_and_own_usage_does_not() -> None:
    aggregated = {"gen_ai.aggregated_usage.input_tokens": 9, "gen_ai.aggregated_usage.output_tokens": 1}
    assert promote(aggregated)[0].usage_repeats is True
    own = promote(aggregated | {"gen_ai.usage.input_tokens": 4})[0]
    assert (own.usage_repeats, own.prompt_tokens) == (False, 4)
    assert promote({})[0].usage_repeats is False


def test_token_details_as_json_and_as_python_repr() -> None:
    repr_only = {"gen_ai.usage.input_token_details": "{'audio': 0, 'cache_read': 1024}"}
    assert promote(repr_only)[0].cached_tokens == 1024
    usage = (
        '{"input_tokens": 5, "output_token_details": {"reasoning": 3}, "input_token_details": {"cache_creation": 2} }'
    )
    span = promote({"langsmith.metadata.usage_metadata": usage})[0]
    assert (span.prompt_tokens, span.reasoning_tokens, span.cache_creation_tokens) == (5, 3, 2)
    assert span.cost_pico is None
    stated = promote(
        {"langsmith.usage_metadata": '{"input_tokens": 5, "total_cost": 0.5}', "gen_ai.usage.input_tokens": 5}
    )[0]
    assert (stated.prompt_tokens, stated.cost_pico, stated.cost_source) == (5, 5 * 10**11, "source")
    sides = promote({"langsmith.metadata.usage_metadata": '{"input_cost": 0.5, "output_cost": "0.25"}'})[0]
    assert sides.cost_pico == 75 * 10**10
    assert promote({"langsmith.usage_metadata": '{"total_cost": -1}'})[0].cost_pico is None
    for hostile in ("__import__('os').system('x')", "{'a': " * 500, "[" * 999, "{1: }", "{'cache_read': 'x'}", "{}"):
        assert promote({"gen_ai.usage.input_token_details": hostile})[0].cached_tokens is None


def test_providers_are_split_only_for_vercel() -> None:
    assert promote({"gen_ai.provider.name": "aws.bedrock"})[0].provider == "aws.bedrock"
    assert promote({"ai.operationId": "ai.generateText", "ai.model.provider": "openai.chat"})[0].provider == "openai"
    assert promote({"gen_ai.system": "langchain"})[0].provider is None
    assert promote({"llm.system": "x", "llm.provider": "azure"})[0].provider == "azure"


def test_the_model_asked_for_comes_from_the_settings_or_is_what_answered() -> None:
    settings = '{"model": "gpt-4o-mini", "stream": true}'
    span = promote({"llm.invocation_parameters": settings, "llm.model_name": "gpt-4o-mini-2024-07-18"})[0]
    assert (span.model, span.response_model, span.is_streaming) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True)
    assert promote({"llm.invocation_parameters": "{'python': 1}", "llm.model_name": "m"})[0].model == "m"


def test_prompts() -> None:
    span = promote({"respan.prompt": '{"prompt_id": "p1", "version": 3, "variables": {}}'})[0]
    assert (span.prompt_id, span.prompt_version) == ("p1", "3")
    assert promote({"llm.prompt_template.version": "v2"})[0].prompt_version == "v2"


def test_sessions_group_wins_over_session_wins_over_thread() -> None:
    group, session, thread = (
        "respan.trace.trace_group_identifier", "respan.sessions.session_identifier", "respan.threads.thread_identifier",
    )  # fmt: skip
    assert promote({thread: "t"})[1].session_id == "t"
    assert promote({thread: "t", session: "s"})[1].session_id == "s"
    every = promote({thread: "t", session: "s", group: "g"})[1]
    assert (every.session_id, every.thread_id, every.group_id) == ("g", "t", "g")
    assert promote({"session_id": "[Scrubbed due to 'session']", "gen_ai.conversation.id": "c"})[1].session_id == "c"


def test_status_and_errors() -> None:
    assert promote({})[0].status == "unset"
    assert promote({}, status=Status(code=1))[0].status == "ok"
    assert promote({"error.type": "timeout"})[0][10:14] == (
        "error",
        None,
        "timeout",
        error_fingerprint("timeout", None),
    )
    assert promote({"status_code": 429})[0].status == "error"
    assert promote({"http.status_code": 404})[0].status == "unset"
    assert promote({"status_code": 500}, status=Status(code=1))[0].status == "ok"
    caught = WireSpan.Event(name="exception")
    assert promote({}, events=[caught])[0].status == "unset"
    caught.attributes.add(key="exception.type").value.string_value = "ValueError"
    # LangSmith's JavaScript client says `ok` at the beginning, after which its error is no news to OpenTelemetry.
    own = {"langsmith.traceable": "true"}
    dropped = promote(own, events=[caught], status=Status(code=1))[0]
    assert (dropped.status, dropped.error_class) == ("error", "ValueError")
    assert promote(own, status=Status(code=1))[0].status == "ok"
    assert promote({}, events=[caught], status=Status(code=1))[0].status == "ok"
    failed = promote({}, events=[caught], status=Status(code=2, message="bad"))[0]
    assert (failed.error_class, failed.error_fingerprint) == ("ValueError", error_fingerprint("ValueError", "bad"))


def test_fingerprints_ignore_what_varies() -> None:
    one = error_fingerprint("openai.RateLimitError", "Request req_1 for 'gpt-4o' failed after 2.5s at 0x7f3a\ntrace 1")
    two = error_fingerprint("RateLimitError", 'Request req_22 for "o3" failed after 17s at 0xbeef\nother')
    assert one == two
    assert one is not None
    assert one != error_fingerprint("BadRequestError", "Request req_1 for 'gpt-4o' failed after 2.5s at 0x7f3a")
    assert error_fingerprint("E", "job 3fa85f64-5717-4562-b3fc-2c963f66afa6") == error_fingerprint(
        "E", "job 0af7651916cd"
    )
    assert error_fingerprint(None, None) is None
    assert error_fingerprint("E", None) != error_fingerprint(None, "E")
    assert specific_class("Exception", "RateLimitError('429')") == "RateLimitError"
    assert specific_class("ValueError", "Other('x')") == "ValueError"
    assert specific_class("Exception", "plain words (here)") == "Exception"


def test_time_to_first_token() -> None:
    event = WireSpan.Event(name="First Token Stream Event", time_unix_nano=10**9 + 250_000_000)
    later = WireSpan.Event(name="First Token Stream Event", time_unix_nano=10**9 + 900_000_000)
    assert promote({}, events=[event, later])[0].ttft_s == 0.25
    assert promote({"ai.response.msToFirstChunk": 26.5}, events=[event])[0].ttft_s == 0.0265
    assert promote({"gen_ai.response.time_to_first_chunk": 0.1})[0].ttft_s == 0.1
    early = WireSpan.Event(name="ai.stream.firstChunk", time_unix_nano=5)
    assert promote({}, events=[early])[0].ttft_s is None


def test_metadata_from_every_place() -> None:
    _, context = promote({
        "metadata": '{"tenant": "acme", "n": 3, "deep": {"a": [1, 2], "ok": true}, "none": null}',
        "respan.metadata.plan": "pro", "respan.metadata.nested": {"k": {"x": 1.5}}, "keywordsai.metadata.old": "1",
        "traceloop.association.properties.team": "blue", "langsmith.metadata.rev": "r1",
        "ai.telemetry.metadata.region": "eu", "respan.span_params.custom_identifier": "c9", "custom.attr": "x",
        "flag": False, "ratio": 0.5, "user_id": "u1",
    })  # fmt: skip
    assert dict(context.metadata) == {
        "tenant": "acme", "n": "3", "deep.a": "[1,2]", "deep.ok": "true", "plan": "pro", "nested.k.x": "1.5",
        "old": "1", "team": "blue", "rev": "r1", "region": "eu", "custom_identifier": "c9", "custom.attr": "x",
        "flag": "false", "ratio": "0.5", "user_id": "u1",
    }  # fmt: skip
    assert context.customer_identifier == "u1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gen_ai.something.new", "x"), ("http.url", "x"), ("input.value", "x"),
        ("langsmith.metadata.LANGSMITH_KEY", "x"), ("metadata", "no object" * 40),
        ("custom", "x" * 257), ("custom", ["a", "b"]), ("custom", {"a": 1}), ("custom", ""),
        ("k" * 201, "x"), ("session_id", "[Scrubbed due to 'session']"), ("agent.name", "x"), ("", "x"),
        ("respan.metadata.", "x"), ("langsmith.metadata.usage_metadata", "{}"), ("custom", float("nan")),
    ],
)  # fmt: skip
def test_what_is_not_metadata(key: str, value: Any) -> None:
    metadata = dict(promote({key: value})[1].metadata)
    assert metadata == ({} if value == value else {"custom": "NaN"})


def test_metadata_is_bounded_and_sorted() -> None:
    many = promote({f"respan.metadata.k{i:03}": "v" for i in range(100)})[1].metadata
    assert [key for key, _ in many] == [f"k{i:03}" for i in range(64)]
    assert canonical_pairs([("b", "1"), ("a", "2" * 5000), ("b", "3")]) == (("a", "2" * 1024), ("b", "1"))


def test_tags_of_every_shape() -> None:
    assert promote({"tag.tags": ["b", "a", "b", ""]})[1].tags == ("b", "a")
    assert promote({"langsmith.span.tags": "beta, eu"})[1].tags == ("beta", "eu")
    assert promote({"langsmith.span.tags": "beta,eu"})[1].tags == ("beta", "eu")
    assert promote({"logfire.tags": "beta,eu"})[1].tags == ("beta,eu",)
    assert promote({"ai.telemetry.metadata.tags": '["x", 5]'})[1].tags == ("x", "5")
    assert promote({"tag.tags": {"no": "list"}})[1].tags == ()


def test_names_for_people() -> None:
    assert promote({"traceloop.entity.name": "plan"}, name="task")[0].entity_name == "plan"
    assert promote({"logfire.msg": "Hello Ada"}, name="Hello {name}")[0].entity_name == "Hello Ada"
    assert promote({"logfire.msg": "running tool"}, name="execute_tool x")[0].entity_name is None
    outer = {"ai.operationId": "ai.generateText", "ai.telemetry.functionId": "fn"}
    assert promote(outer)[0].entity_name == "fn"
    assert promote(outer | {"ai.operationId": "ai.generateText.doGenerate"})[0].entity_name is None


def test_a_langsmith_name_counts_where_it_says_more_than_the_span() -> None:
    assert promote({"langsmith.trace.name": "answer"}, name="POST /chat")[0].entity_name == "answer"
    assert promote({"langsmith.trace.name": "answer"}, name="answer")[0].entity_name is None


def test_long_texts_are_cut_in_the_row() -> None:
    assert promote({"user.id": "x" * 5000})[1].customer_identifier == "x" * 1024


def test_odd_layouts_are_skipped_or_read_the_long_way() -> None:
    value_first = b"\x12\x03\x0a\x01v\x0a\x05model"
    long_key = KeyValue(key="k" * 300, value=AnyValue(string_value="v")).SerializeToString()
    nonminimal = b"\x0a\x05model\x12\x84\x00\x0a\x02hi"  # a length of two bytes where one would do
    twice = KeyValue(key="model", value=AnyValue(string_value="a")).SerializeToString() + b"\x12\x03\x0a\x01b"
    slots, _, pairs = read_attributes([b"", value_first, long_key, nonminimal], Effects())
    assert slots[SLOTS["model"]] == "hi"
    assert pairs == []
    assert read_attributes([twice], Effects())[0][SLOTS["model"]] == "b"


def test_learning_new_keys_is_bounded() -> None:
    before = len(RULES)
    for i in range(30_000):
        assert RULES[b"gen_ai.endless.%d" % i] is None
    assert len(RULES) <= max(before, 20_000)
