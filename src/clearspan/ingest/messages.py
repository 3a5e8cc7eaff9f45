"""Conversations in one form, whatever family wrote them.

A message is `{role, content, tool_calls?, tool_call_id?, name?, finish_reason?}`. Content is text, None, or
a list of parts `{type: "text", text}`, `{type: "image", url}` and, for what is neither, the part as it
came. A tool call is `{id, name, arguments}` with arguments as text. Known forms: OpenAI's chat messages and
Responses items, the parts of OTel GenAI (Pydantic AI's spelling too), the Vercel AI SDK's, and the
flattened keys of OpenInference and Traceloop. What fits none of them stays as it is: nothing is dropped
because it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from clearspan.ingest.metadata import json_text
from clearspan.ingest.surrogates import without_lone_surrogates

Message = dict[str, Any]

_decode = msgspec.json.Decoder().decode
_INDEX_MAX: Final = 10_000
_DEPTH_MAX: Final = 12
_CONTENT_PROMPT: Final = "gen_ai.content.prompt"
_CONTENT_COMPLETION: Final = "gen_ai.content.completion"
_EVENT_JSON: Final = frozenset({"message", "tool_calls"})  # objects, which attributes hold as JSON text
MESSAGE_EVENTS: Final = frozenset({
    _CONTENT_PROMPT, _CONTENT_COMPLETION, "gen_ai.choice", "gen_ai.system.message", "gen_ai.user.message",
    "gen_ai.assistant.message", "gen_ai.tool.message",
})  # fmt: skip  # the events of a span that hold what was said
_MESSAGE_KEYS: Final = frozenset({"role", "content", "parts", "message", "tool_calls"})


def parse_json(value: Any) -> Any:
    """The JSON a text holds, U+FFFD for lone surrogates; the text itself when it holds none, for what looks like
    JSON is not always JSON."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return _decode(value)
    except (msgspec.DecodeError, RecursionError):
        plain = value.encode()
        mended = without_lone_surrogates(plain)
        return value if mended is plain else parse_json(mended.decode())


def parse_messages(value: Any, role: str = "user") -> list[Message]:
    """Messages of a request's or answer's value, as JSON text or decoded.

    Args:
        value: a list of messages, an object with `messages`, `input`, `choices`, `output` or `message`, or
        one text. role: of a bare text.
    """
    value = parse_json(value)
    if value is None or value == "":
        return []
    if isinstance(value, list):
        return _join_calls([message for each in value for message in _from_item(each, role)])
    if not isinstance(value, Mapping):
        return [{"role": role, "content": value if isinstance(value, str) else json_text(value)}]
    for key in ("messages", "input", "choices", "output", "generations"):
        inner = value.get(key)
        if isinstance(inner, list) or (isinstance(inner, str) and key in ("input", "output")):
            return _system(value, role) + parse_messages(inner, role)
    if isinstance(value.get("prompt"), str):
        return [*_system(value, role), {"role": role, "content": value["prompt"]}]
    return _from_item(value, role) if _MESSAGE_KEYS & set(value) else []


def _system(value: Mapping[str, Any], role: str) -> list[Message]:
    """The instructions that a request carries apart from its messages; an answer only repeats them."""
    system = value.get("instructions") or value.get("system")
    return [{"role": "system", "content": system}] if role == "user" and isinstance(system, str) and system else []


def _from_item(item: Any, role: str) -> list[Message]:
    """One item of a list of messages: usually one message, several for a nested list."""
    if isinstance(item, str):
        return [{"role": role, "content": item}]
    if isinstance(item, list):
        return [message for each in item for message in _from_item(each, role)]
    if not isinstance(item, Mapping):
        return [{"role": role, "content": json_text(item)}]
    if isinstance(item.get("message"), Mapping) and "role" not in item:  # a choice
        message = _from_item(item["message"], "assistant")
        if message and item.get("finish_reason"):
            message[0]["finish_reason"] = item["finish_reason"]
        return message
    if isinstance(item.get("parts"), list):
        return _from_parts(item, role)
    if item.get("type") == "function_call":
        return [{"role": "assistant", "content": None, "tool_calls": [_tool_call(item)]}]
    if item.get("type") == "function_call_output":
        return [{"role": "tool", "content": _content(item.get("output")), "tool_call_id": item.get("call_id")}]
    if "role" not in item and "content" not in item and "tool_calls" not in item:
        return [{"role": role, "content": json_text(item)}]
    return _from_chat(item, role)


def _from_chat(item: Mapping[str, Any], role: str) -> list[Message]:
    """An OpenAI or Vercel message; Vercel's tool results become messages of their own."""
    content = item.get("content")
    calls = [_tool_call(each) for each in _list(item.get("tool_calls")) if isinstance(each, Mapping)]
    results: list[Message] = []
    if isinstance(content, list):
        rest = []
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "tool-call":
                calls.append(_tool_call(part))
            elif kind == "tool-result":
                output = part.get("output", part.get("result"))
                output = output.get("value", output) if isinstance(output, Mapping) else output
                results.append({"role": "tool", "content": _content(output), "tool_call_id": part.get("toolCallId")})
            else:
                rest.append(part)
        content = rest
    message: Message = {"role": _text(item.get("role")) or role, "content": _content(content)}
    if calls:
        message["tool_calls"] = calls
    for key, name in (("tool_call_id", "tool_call_id"), ("name", "name"), ("finish_reason", "finish_reason")):
        if item.get(key):
            message[name] = item[key]
    return results if results and message["content"] in (None, "") and not calls else [message, *results]


def _from_parts(item: Mapping[str, Any], role: str) -> list[Message]:
    """A message of OTel GenAI: text, tool calls and tool answers are parts of it."""
    role = _text(item.get("role")) or role
    rest: list[Any] = []
    calls: list[dict[str, Any]] = []
    results: list[Message] = []
    for part in item["parts"]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            rest.append({"type": "text", "text": part.get("content") or ""})
        elif kind == "tool_call":
            calls.append(_tool_call(part))
        elif kind == "tool_call_response":
            answer = part.get("response", part.get("result"))
            results.append({"role": "tool", "content": _content(answer), "tool_call_id": part.get("id")})
        elif kind == "blob":
            mime = part.get("mime_type") or "application/octet-stream"
            rest.append({"type": "image", "url": f"data:{mime};base64,{part.get('content') or ''}"})
        else:
            rest.append(part)
    message: Message = {"role": role, "content": _content(rest)}
    if calls:
        message["tool_calls"] = calls
    if item.get("finish_reason"):
        message["finish_reason"] = item["finish_reason"]
    return results if results and not rest and not calls else [message, *results]


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call of any family; arguments are text there and objects here, and are made text."""
    function = call.get("function")
    inner = function if isinstance(function, Mapping) else call
    arguments = next(
        (inner[key] for key in ("arguments", "input", "args") if inner.get(key) is not None),
        None,
    )
    return {
        "id": call.get("call_id") or call.get("id") or call.get("toolCallId"),
        "name": inner.get("name") or call.get("toolName"),
        "arguments": arguments if isinstance(arguments, str) or arguments is None else json_text(arguments),
    }


def _content(value: Any) -> Any:
    """Text, None or parts; a lone text part is its text."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        return json_text(value)
    parts = [_part(each) for each in value]
    if all(isinstance(part, dict) and part.get("type") == "text" and "text" in part for part in parts):
        return "\n".join(str(part["text"]) for part in parts) if parts else None
    return parts


def _part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        return part
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind in ("image_url", "input_image", "image"):
        image = part.get("image_url") or part.get("url") or part.get("image")
        while isinstance(image, Mapping):
            image = image.get("url") or image.get("image")
        return {"type": "image", "url": image} if isinstance(image, str) else dict(part)
    return dict(part)


def _join_calls(messages: list[Message]) -> list[Message]:
    """Responses items list each call apart: calls in a row, after the assistant's text if any, are one
    message."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        bare_call = message["content"] is None and set(message) == {"role", "content", "tool_calls"}
        if bare_call and last is not None and last["role"] == "assistant" and "tool_call_id" not in last:
            last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
        else:
            joined.append(message)
    return joined


def unflatten(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """`<prefix><i>.a.b` → a list of objects in the order of i, numbers inside names lists again.

    Indices above 10,000 and names nested more than 12 deep are left out: a sender may write any.
    """
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        path = key[len(prefix) :].split(".") if key.startswith(prefix) else []
        if not path or not path[0].isdigit() or len(path) > _DEPTH_MAX:
            continue
        at = root
        for name in path[:-1]:
            inner = at.setdefault(name, {})
            if not isinstance(inner, dict):
                break
            at = inner
        else:
            at[path[-1]] = value
    return _as_lists(root) if root else []


def _as_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isascii() and key.isdigit() and len(key) <= 5 for key in value):
        indices = sorted(int(key) for key in value if int(key) <= _INDEX_MAX)
        by_index = {int(key): each for key, each in value.items()}
        return [_as_lists(by_index[i]) for i in indices]
    return {key: _as_lists(each) for key, each in value.items()}


def from_openinference(attributes: Mapping[str, Any], prefix: str) -> list[Message]:
    """`llm.input_messages.` or `llm.output_messages.` → messages."""
    messages: list[Message] = []
    for each in unflatten(attributes, prefix):
        flat = each.get("message") if isinstance(each, dict) else None
        if not isinstance(flat, dict):
            continue
        parts = [_from_oi_part(part) for part in _list(flat.get("contents"))]
        content = _content(parts) if parts else flat.get("content")
        message: Message = {"role": flat.get("role") or "user", "content": content}
        calls = [each.get("tool_call") for each in _list(flat.get("tool_calls")) if isinstance(each, dict)]
        if calls:
            message["tool_calls"] = [_oi_call(call) for call in calls if isinstance(call, dict)]
        for key in ("tool_call_id", "name"):
            if flat.get(key):
                message[key] = flat[key]
        messages.append(message)
    return messages


def _oi_call(call: dict[str, Any]) -> dict[str, Any]:
    return _tool_call({"id": call.get("id"), "function": call.get("function")})


def _from_oi_part(part: Any) -> Any:
    inner = part.get("message_content") if isinstance(part, dict) else None
    return inner if isinstance(inner, dict) else part


def from_traceloop(attributes: Mapping[str, Any], prefix: str) -> list[Message]:
    """`gen_ai.prompt.` or `gen_ai.completion.` → messages; tool calls are JSON text or flattened once
    more."""
    messages: list[Message] = []
    role = "assistant" if prefix == "gen_ai.completion." else "user"
    for each in unflatten(attributes, prefix):
        if isinstance(each, dict):
            calls = parse_json(each.get("tool_calls"))
            content = parse_json(each["content"]) if isinstance(each.get("content"), str) else each.get("content")
            is_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
            flat = {**each, "tool_calls": calls, "content": content if is_parts else each.get("content")}
            messages.extend(_from_chat(flat, role))
    return messages


def from_span_events(events: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[list[Message], list[Message]]:
    """Messages that a span keeps as its events, (name, attributes) in order of time: (asked, answered).

    One event a message, or `gen_ai.content.prompt` and `gen_ai.content.completion` with all of them. What the assistant
    and tools said is part of the question where a `gen_ai.choice` answers it; else what follows the last word of the
    user or the system is the answer.
    """
    asked: list[Message] = []
    answered: list[Message] = []
    for name, attributes in events:
        if name == _CONTENT_PROMPT:
            asked += parse_messages(attributes.get("gen_ai.prompt"))
        elif name == _CONTENT_COMPLETION:
            answered += parse_messages(attributes.get("gen_ai.completion"), "assistant")
        else:
            said = {key: parse_json(value) if key in _EVENT_JSON else value for key, value in attributes.items()}
            before, after = from_events([(name, said)])
            asked += before
            answered += after
    if not answered:
        last = max((at for at, each in enumerate(asked) if each["role"] not in ("assistant", "tool")), default=-1)
        asked, answered = asked[: last + 1], asked[last + 1 :]
    return asked, answered


def from_events(events: Iterable[tuple[str, Any]]) -> tuple[list[Message], list[Message]]:
    """Messages of older OTel GenAI log events, (event name, body) in order of time: (asked, answered)."""
    asked: list[Message] = []
    answered: list[Message] = []
    for name, body in events:
        body = body if isinstance(body, Mapping) else {"content": body}
        if name == "gen_ai.choice":
            answered.extend(_from_item(body, "assistant"))
        elif name.startswith("gen_ai.") and name.endswith(".message"):
            role = _text(body.get("role")) or name.split(".")[1]
            message = {**body, "role": role}
            if role == "tool" and "id" in body:
                message["tool_call_id"] = body["id"]
            asked.extend(_from_chat(message, role))
    return asked, answered


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
