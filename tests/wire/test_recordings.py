"""The fixed values of the recordings, asserted one by one: what the contracts say each family means."""

from __future__ import annotations

import pytest
from recordings import FAMILIES, Recorded, family

from clearspan.ingest.detail import decode_span, searchable_text

CHATTING = tuple(name for name in FAMILIES if name != "openinference-openai-agents")
NOT_SENT = {
    "openinference-openai-agents": {"cached_tokens", "reasoning_tokens"},
    "otel-genai-v2-events": {"cached_tokens", "reasoning_tokens"},
    "respan-native": {"cached_tokens", "reasoning_tokens"},
}
CHAT_COST = 158_850_000  # 163 plain and 1,024 cached input tokens and 96 output tokens of gpt-4o-mini
CHAT_COST_UNCACHED = 235_650_000


def answered_chats(name: str) -> list[Recorded]:
    return [each for each in family(name).spans if each.span.kind == "chat" and each.span.prompt_tokens]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answered_chat_has_the_canned_counts(name: str) -> None:
    chats = answered_chats(name)
    assert chats
    for each in chats:
        span = each.span
        assert (span.prompt_tokens, span.completion_tokens) == (1187, 96), each.body
        assert span.total_tokens in (None, 1283)
        without_details = "Completion with" in span.name or "streaming response" in span.name  # Logfire's OpenAI spans
        if not without_details:
            for field, value in (("cached_tokens", 1024), ("reasoning_tokens", 64)):
                expected = None if field in NOT_SENT.get(name, ()) else value
                streamed_openllmetry = name == "openllmetry" and field == "reasoning_tokens" and span.is_streaming
                assert getattr(span, field) == (None if streamed_openllmetry else expected), (each.body, field)
        assert span.provider == "openai"
        assert span.model in ("gpt-4o-mini", "o4-mini")
        assert span.response_model in ("gpt-4o-mini-2024-07-18", "o4-mini", "gpt-4o-mini")
        assert span.usage_repeats is False


@pytest.mark.parametrize("name", FAMILIES)
def test_a_chat_costs_the_same_whoever_reports_it(name: str) -> None:
    costs = {each.span.cost_pico for each in answered_chats(name) if each.span.model == "gpt-4o-mini"}
    assert costs == {CHAT_COST_UNCACHED if "cached_tokens" in NOT_SENT.get(name, ()) else CHAT_COST}


@pytest.mark.parametrize("name", FAMILIES)
def test_no_trace_counts_a_token_twice(name: str) -> None:
    found = family(name)
    for trace_id, summary in found.traces.items():
        calls = [each.span for each in found.spans if each.trace_id == trace_id and each.span.kind == "chat"]
        answered = sum(span.prompt_tokens is not None for span in calls)
        embedded = any(each.span.kind == "embedding" for each in found.spans if each.trace_id == trace_id)
        if not embedded:
            assert (summary.prompt_tokens or 0) == 1187 * answered, trace_id
            assert (summary.total_tokens or 0) == 1283 * answered, trace_id
            assert summary.llm_call_count == len(calls), trace_id


@pytest.mark.parametrize("name", ["vercel-ai-sdk-json", "vercel-ai-sdk-proto"])
def test_vercel_outer_operations_repeat_and_are_not_counted(name: str) -> None:
    outer = [each.span for each in family(name).spans if each.span.name in ("ai.generateText", "ai.streamText")]
    assert {span.prompt_tokens for span in outer if span.prompt_tokens} == {1187, 2374}
    assert all(span.usage_repeats for span in outer if span.prompt_tokens)
    assert all(span.entity_name == "weather-fn" and span.kind == "chain" for span in outer)


def test_json_and_protobuf_of_the_same_client_become_the_same() -> None:
    def shapes(name: str) -> list[tuple[object, ...]]:
        return [
            (span.name, span.kind, span.model, span.provider, span.prompt_tokens, span.status, span.is_streaming)
            for span in (each.span for each in family(name).spans)
        ]

    assert shapes("vercel-ai-sdk-json") == shapes("vercel-ai-sdk-proto")


def test_pydantic_agent_sums_are_not_counted_and_scrubbed_text_is_no_session() -> None:
    found = family("pydantic-ai-logfire")
    agents = [each.span for each in found.spans if each.span.kind == "agent"]
    assert all(span.usage_repeats for span in agents if span.prompt_tokens)
    turn = next(each for each in found.spans if each.span.name == "session turn")
    assert turn.context.session_id is None
    assert "session_id" not in dict(turn.context.metadata)
    assert turn.context.customer_identifier == "user-ada"
    assert all(each.context.environment == "staging" for each in found.spans)
    assert {each.span.cost_source for each in answered_chats("pydantic-ai-logfire")} == {"source"}


@pytest.mark.parametrize(
    ("name", "session", "customer"),
    [
        ("openinference", "sess-ada-1", "user-ada"),
        ("openllmetry", "sess-ada-1", "cust-7"),
        ("otel-genai-latest", "sess-ada-1", "user-ada"),
        ("otel-genai-v2-events", "sess-ada-1", "user-ada"),
        ("respan-native", "grp-1", "user-ada"),  # the client overwrites the session with the group
        ("langsmith-otel", "sess-ada-1", "user-ada"),
        ("vercel-ai-sdk-proto", "sess-ada-1", "user-ada"),
    ],
)
def test_the_agent_trace_knows_session_and_user(name: str, session: str, customer: str) -> None:
    traces = family(name).traces.values()
    assert any(t.session_id == session and t.customer_identifier == customer and t.span_count > 1 for t in traces)


def test_metadata_of_each_family_is_filterable() -> None:
    expected = {
        "openinference": {"tenant": "acme", "plan": "pro", "n": "3", "nested.a": "[1,2]"},
        "openllmetry": {"tenant": "acme", "plan": "pro", "customer_identifier": "cust-7"},
        "respan-native": {"tenant": "acme", "n": "3"},
        "langsmith-otel": {"tenant": "acme", "user_id": "user-ada"},
        "vercel-ai-sdk-json": {"tenant": "acme", "userId": "user-ada"},
    }
    for name, pairs in expected.items():
        assert any(pairs.items() <= dict(t.metadata_all).items() for t in family(name).traces.values()), name
    recorded = {pair for t in family("respan").traces.values() for pair in t.metadata_all}
    assert {("custom.attr", "x"), ("custom_identifier", "cust-9"), ("n", "3"), ("n", "7"), ("k", "v")} <= recorded


def test_tags_of_each_family() -> None:
    for name, tags in (
        ("openinference", ("beta", "eu")),
        ("langsmith-otel", ("beta",)),
        ("vercel-ai-sdk-json", ("beta",)),
    ):
        assert any(t.tags == tags for t in family(name).traces.values()), name


def test_names_come_from_what_people_wrote() -> None:
    assert "weather_workflow" in {t.name for t in family("respan-native").traces.values()}
    assert {"weather_flow", "js_flow"} <= {t.name for t in family("respan").traces.values()}
    assert "weather_workflow" in {t.name for t in family("openllmetry").traces.values()}
    assert "Chat Completion with 'gpt-4o-mini'" in {t.name for t in family("pydantic-ai-logfire").traces.values()}


@pytest.mark.parametrize("name", CHATTING)
def test_a_streamed_or_plain_answer_is_readable(name: str) -> None:
    for each in answered_chats(name):
        detail = decode_span(each.record, each.log_records)
        answers = [m for m in detail.output_messages if m["role"] == "assistant"]
        assert answers, each.body
        assert any("°C in Zürich" in str(m["content"]) or m.get("tool_calls") for m in answers), each.body


@pytest.mark.parametrize("name", CHATTING)
def test_tool_calls_have_ids_names_and_readable_arguments(name: str) -> None:
    calls = [
        call
        for each in answered_chats(name)
        for message in decode_span(each.record, each.log_records).output_messages
        for call in message.get("tool_calls", ())
    ]
    assert {"call_w1", "call_w2"} <= {call["id"] for call in calls}
    assert {call["name"] for call in calls} == {"get_weather"}
    assert any("Zürich" in call["arguments"] for call in calls)
    assert any("東京" in call["arguments"] for call in calls)


@pytest.mark.parametrize(
    "name", ["openinference", "openllmetry", "otel-genai-latest", "respan-native", "langsmith-otel"]
)
def test_escaped_text_is_found_as_people_read_it(name: str) -> None:
    texts = [searchable_text(each.record) for each in family(name).spans]
    assert any("Zürich" in text for text in texts)
    assert any("東京" in text for text in texts)
    assert not any("iVBORw0KGgo" in text for text in texts), "base64 is not text"


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("openinference", {"openai.RateLimitError", "openai.BadRequestError"}),
        ("openllmetry", {"RateLimitError", "BadRequestError"}),
        ("otel-genai-latest", {"openai.RateLimitError", "openai.BadRequestError"}),
        ("otel-genai-v2-events", {"RateLimitError", "BadRequestError"}),
        ("respan-native", {"RateLimitError", "BadRequestError", "ValueError"}),
        ("langsmith-otel", {"RateLimitError", "BadRequestError", "ValueError"}),
    ],
)
def test_errors_are_named_by_their_class(name: str, classes: set[str]) -> None:
    failed = [each.span for each in family(name).spans if each.span.status == "error"]
    assert classes <= {span.error_class for span in failed}
    assert all(span.error_fingerprint for span in failed)


def test_one_error_has_one_fingerprint_across_families() -> None:
    prints = {
        span.error_fingerprint
        for name in ("openinference", "openllmetry", "otel-genai-latest", "respan-native", "pydantic-ai-logfire")
        for span in (each.span for each in family(name).spans)
        if span.error_class in ("openai.RateLimitError", "RateLimitError")
    }
    assert len(prints) == 1


def test_time_to_first_token_from_attributes_and_events() -> None:
    for name in ("openinference", "openllmetry", "otel-genai-latest", "vercel-ai-sdk-json"):
        found = [each.span.ttft_s for each in family(name).spans if each.span.ttft_s is not None]
        assert found, name
        assert all(0 < seconds < 1 for seconds in found), name
        streamed = [each.span.is_streaming for each in family(name).spans if each.span.ttft_s is not None]
        assert all(streamed), name


def test_nul_in_text_is_kept() -> None:
    errors = [decode_span(each.record).error_message or "" for each in family("openllmetry").spans]
    assert any("\x00" in message for message in errors)


def test_legacy_ingest_of_the_published_client() -> None:
    recorded = next(each for each in family("respan").spans if each.trace_id == "t9")
    detail = decode_span(recorded.record)
    assert (detail.input, detail.output) == ("hi", '{"a": 1}')
    assert (recorded.span.kind, recorded.span.status) == ("workflow", "ok")
    assert (recorded.span.end_ns - recorded.span.start_ns) / 1e9 == 31 * 86_400 - 1
    assert recorded.context.customer_identifier == "user-1"
