"""Which attributes hold what went into a span and what came out, best first.

What a list page shows and what people search is the text as the client sent it; the detail view adds the
messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from clearspan.ingest.messages import (
    Message,
    from_openinference,
    from_traceloop,
    parse_json,
    parse_messages,
    unflatten,
)
from clearspan.ingest.metadata import json_text

INPUT_KEYS: Final = (
    "traceloop.entity.input",
    "input.value",
    "gen_ai.input.messages",
    "gen_ai.prompt",
    "ai.prompt.messages",
    "ai.prompt",
    "ai.toolCall.args",
    "ai.value",
    "ai.values",
    "gen_ai.tool.call.arguments",
    "pydantic_ai.all_messages",
    "all_messages_events",
    "tool_arguments",
    "input",
    "prompt",
)

OUTPUT_KEYS: Final = (
    "traceloop.entity.output",
    "output.value",
    "gen_ai.output.messages",
    "gen_ai.completion",
    "ai.response.text",
    "ai.response.object",
    "ai.response.toolCalls",
    "ai.toolCall.result",
    "ai.embedding",
    "ai.embeddings",
    "gen_ai.tool.call.result",
    "final_result",
    "tool_response",
    "output",
)

FLATTENED_INPUTS: Final = ("llm.input_messages.", "gen_ai.prompt.")
FLATTENED_OUTPUTS: Final = ("llm.output_messages.", "gen_ai.completion.")
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
"""The first message of an input, apart from the others; the only one when nothing else was said."""

# The better source of messages is not the better source of text: OpenInference's `input.value` is the whole request.
_INPUT_MESSAGES: Final = ("gen_ai.input.messages", "ai.prompt.messages", "pydantic_ai.all_messages", "gen_ai.prompt")
_OUTPUT_MESSAGES: Final = ("gen_ai.output.messages", "gen_ai.completion", "final_result")


def value_text(value: Any) -> str | None:
    """An input or output as the text that readers are given: text as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json_text(value)


def input_messages(attributes: Mapping[str, Any]) -> list[Message]:
    """What was said before the call, from whichever attributes hold it; [] for a span that holds none."""
    instructions = parse_json(attributes.get(SYSTEM_INSTRUCTIONS))
    head: list[Message] = []
    if isinstance(instructions, list):
        head = parse_messages([{"role": "system", "parts": instructions}])
    for key in _INPUT_MESSAGES:
        if found := parse_messages(attributes.get(key)):
            return head + found
    for prefix, read in (("llm.input_messages.", from_openinference), ("gen_ai.prompt.", from_traceloop)):
        if found := read(attributes, prefix):
            return head + found
    return head + (parse_messages(attributes.get("ai.prompt")) if "ai.prompt" in attributes else [])


def output_messages(attributes: Mapping[str, Any]) -> list[Message]:
    """What was answered; [] for a span that holds none."""
    for key in _OUTPUT_MESSAGES:
        if found := parse_messages(attributes.get(key), "assistant"):
            return found
    for prefix, read in (
        ("llm.output_messages.", from_openinference),
        ("gen_ai.completion.", from_traceloop),
    ):
        if found := read(attributes, prefix):
            return found
    text, calls = attributes.get("ai.response.text"), parse_json(attributes.get("ai.response.toolCalls"))
    if text or isinstance(calls, list):
        message = {"role": "assistant", "content": text or None, "tool_calls": calls}
        return parse_messages([message], "assistant")
    return []


def tool_definitions(attributes: Mapping[str, Any]) -> list[Any]:
    """The tools that a call offered to the model, each as its source describes it."""
    for key in ("gen_ai.tool.definitions", "llm.request.functions", "ai.prompt.tools"):
        found = parse_json(attributes.get(key))
        if isinstance(found, list):
            return [parse_json(each) for each in found]
    flat = [each.get("tool") for each in unflatten(attributes, "llm.tools.") if isinstance(each, dict)]
    if flat:
        return [parse_json(each.get("json_schema")) if isinstance(each, dict) else each for each in flat]
    for key, inner in (("model_request_parameters", "function_tools"), ("gen_ai.prompt", "tools")):
        holder = parse_json(attributes.get(key))
        if isinstance(holder, Mapping) and isinstance(holder.get(inner), list):
            tools: list[Any] = holder[inner]
            return tools
    return []
