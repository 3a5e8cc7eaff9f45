"""A stored LangSmith run decoded for reading: its inputs and outputs, its messages, its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from clearspan.ingest.messages import Message, parse_messages
from clearspan.ingest.run_document import RawFields, parse_document, run_view
from clearspan.ingest.text import readable

_ROLES: Final = {
    "human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool",
    "developer": "developer", "chat": "user",
}  # fmt: skip
"""LangChain's message types, `HumanMessage` and `AIMessageChunk` among them without their ending."""

_DEPTH_MAX: Final = 8
_EMPTY: Final = (b"null", b"{}", b'""')
_NOT_TEXT: Final = frozenset({
    "id", "trace_id", "parent_run_id", "dotted_order", "session_id", "reference_example_id", "run_type", "start_time",
    "end_time", "session_name", "status",
})  # fmt: skip
"""Fields that place a run: filters find them, and a word in them would find every run of a project."""

_SET_UP: Final = "LANGSMITH_"  # beginning of the metadata in which the SDKs repeat their environment


def run_input_output(raw: bytes) -> tuple[str | None, str | None]:
    """What went into a run and what came out, as the client's JSON; text where it is text. Cost: 5 to 10 µs."""
    view = run_view(parse_document(raw))
    return _value_text(view, "inputs"), _value_text(view, "outputs")


def run_texts(raw: bytes) -> Iterator[str]:
    """Every text of a run that a person may look for: not its ids and times, nor what describes the client."""
    for name, value in decoded_view(raw).items():
        if name == "extra" and isinstance(value, dict):
            value = {key: each for key, each in value.items() if key != "runtime"}
            if isinstance(metadata := value.get("metadata"), dict):
                value["metadata"] = {key: each for key, each in metadata.items() if not key.startswith(_SET_UP)}
        if name not in _NOT_TEXT:
            yield from readable(value)


def decoded_view(raw: bytes) -> dict[str, Any]:
    """The fields of a run as plain values."""
    return {name: msgspec.json.decode(value) for name, value in run_view(parse_document(raw)).items()}


def run_messages(value: Any, role: str) -> list[Message]:
    """The conversation in a run's inputs or outputs; [] for one that holds none.

    Args:
        role: of a bare text.
    """
    return parse_messages(_plain(value, 0), role)


def run_tools(view: Mapping[str, Any]) -> list[Any]:
    """The tools that a call offered to the model, each as its source describes it."""
    extra, inputs = view.get("extra"), view.get("inputs")
    holders = (extra.get("invocation_params") if isinstance(extra, dict) else None, inputs)
    for holder in holders:
        tools = holder.get("tools") if isinstance(holder, dict) else None
        if isinstance(tools, list):
            return tools
    return []


def _value_text(view: RawFields, name: str) -> str | None:
    raw = view.get(name)
    if raw is None or (text := bytes(raw)) in _EMPTY:
        return None
    return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()


def _plain(value: Any, depth: int) -> Any:
    """A value with LangChain's messages, serialised or as dicts, as chat messages."""
    if depth > _DEPTH_MAX:
        return value
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    message = value.get("kwargs") if value.get("type") == "constructor" and "lc" in value else value
    if isinstance(message, dict) and "content" in message and "role" not in message:
        role = _role(message, value.get("id"))
        if role is not None:
            return {**message, "role": role}
    return {key: _plain(each, depth + 1) for key, each in value.items()}


def _role(message: Mapping[str, Any], class_path: Any) -> str | None:
    word = message.get("type")
    if not isinstance(word, str) and isinstance(class_path, list) and class_path:
        word = class_path[-1]
    if not isinstance(word, str):
        return None
    return _ROLES.get(word.removesuffix("Chunk").removesuffix("Message").lower())
