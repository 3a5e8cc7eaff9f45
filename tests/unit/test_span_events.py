"""What was said, where a span keeps it in events of its own, and kinds that no word names."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearspan.ingest.detail import decode_span, input_output
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder, decode_traces_protobuf
from clearspan.ingest.payload import parse_block, records_by_id
from clearspan.model.span import Span

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}


def sent(
    *events: tuple[str, Mapping[str, str]], attributes: Mapping[str, str] | None = None, backwards: bool = False
) -> tuple[Span, bytes]:
    """The row and record of one span with those events, a nanosecond apart; `backwards`: in the other order."""
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="call", start_time_unix_nano=1, end_time_unix_nano=99)
    )
    for key, value in (attributes or {}).items():
        span.attributes.add(key=key).value.string_value = value
    numbered = list(enumerate(events, 1))
    for number, (name, said) in reversed(numbered) if backwards else numbered:
        event = span.events.add(name=name, time_unix_nano=number)
        for key, value in said.items():
            event.attributes.add(key=key).value.string_value = value
    (batch,) = decode_traces_protobuf(request.SerializeToString(), Decoder(Origin(1))).batches
    return batch.spans[0], records_by_id(parse_block(batch.block))[batch.spans[0].span_id]


CHAT = (
    ("gen_ai.system.message", {"content": "be brief"}),
    ("gen_ai.user.message", {"content": "hi", "role": "user"}),
    ("gen_ai.assistant.message", {"tool_calls": json.dumps([CALL])}),
    ("gen_ai.tool.message", {"content": "found", "id": "c1"}),
)
SAID = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "name": "look", "arguments": '{"q": 1}'}]},
    {"role": "tool", "content": "found", "tool_call_id": "c1"},
]


@pytest.mark.parametrize("backwards", [False, True])
def test_messages_of_events_are_what_went_in_and_came_out(backwards: bool) -> None:
    choice = {"index": "0", "finish_reason": "stop", "message": json.dumps({"role": "assistant", "content": "hello"})}
    _, record = sent(*CHAT, ("gen_ai.choice", choice), ("exception", {"exception.message": "no"}), backwards=backwards)
    span = decode_span(record)
    assert span.input_messages == SAID
    assert span.output_messages == [{"role": "assistant", "content": "hello", "finish_reason": "stop"}]
    assert input_output(record) == (span.input, span.output)
    assert [json.loads(text or "") for text in input_output(record)] == [span.input_messages, span.output_messages]
    assert len(span.events) == 6, "they stay events too"


def test_without_a_choice_the_last_words_are_the_answer() -> None:
    span = decode_span(sent(*CHAT)[1])
    assert (span.input_messages, span.output_messages) == (SAID[:2], SAID[2:])
    asked_only = decode_span(sent(*CHAT[:2])[1])
    assert (asked_only.input_messages, asked_only.output_messages, asked_only.output) == (SAID[:2], [], None)


def test_events_with_the_whole_content() -> None:
    question = json.dumps([{"role": "user", "content": "hi"}])
    _, record = sent(
        ("gen_ai.content.prompt", {"gen_ai.prompt": question}),
        ("gen_ai.content.completion", {"gen_ai.completion": '[{"role": "assistant", "content": "hello"}]'}),
    )
    span = decode_span(record)
    assert span.input_messages == [{"role": "user", "content": "hi"}]
    assert span.output_messages == [{"role": "assistant", "content": "hello"}]
    assert None not in input_output(record)


def test_attributes_come_before_events() -> None:
    attributes = {"input.value": "from attributes", "gen_ai.output.messages": '[{"role": "assistant", "content": "a"}]'}
    _, record = sent(*CHAT, ("gen_ai.choice", {"content": "other"}), attributes=attributes)
    span = decode_span(record)
    assert (span.input, span.input_messages) == ("from attributes", SAID)
    assert span.output_messages == [{"role": "assistant", "content": "a"}]
    assert input_output(record) == ("from attributes", attributes["gen_ai.output.messages"])


def test_events_of_other_names_say_nothing() -> None:
    _, record = sent(("gen_ai.evaluation.result", {"content": "x"}), ("log", {"message": "gen_ai.choice"}))
    assert input_output(record) == (None, None)
    assert (decode_span(record).input_messages, decode_span(record).output_messages) == ([], [])


def test_the_prompt_of_logfire_is_an_input_where_nothing_better_is_said() -> None:
    assert input_output(sent(attributes={"prompt": "write a poem"})[1]) == ("write a poem", None)
    assert input_output(sent(attributes={"prompt": "p", "input": "i"})[1]) == ("i", None)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"gen_ai.tool.name": "look"}, "tool"),
        ({"llm.prompt_template.variables": '{"city": "Rome"}'}, "prompt"),
        ({"llm.prompt_template.variables": "{}", "openinference.span.kind": "LLM"}, "chat"),
        ({"gen_ai.tool.name": "look", "gen_ai.operation.name": "chat"}, "chat"),
        ({"gen_ai.tool.name": "look", "llm.prompt_template.variables": "{}"}, "tool"),
        ({"gen_ai.tool.name": ""}, "span"),
    ],
)
def test_a_kind_that_no_word_names(attributes: dict[str, str], kind: str) -> None:
    assert sent(attributes=attributes)[0].kind == kind
