"""What expressions about one span ask of its wire record: its texts, and the leaves of its input and output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from clearspan.ingest.detail import decode_span, input_output, searchable_text
from clearspan.ingest.messages import parse_json
from clearspan.query.evaluate import SpanPayload

_ALONE = {"inputs": "input", "outputs": "output"}
"""The key of what is no object: a text, a number, a list of them."""


def payload_of(record: bytes) -> SpanPayload:
    """Everything at once, for stores that keep it. Cost: about 50 µs for a record of 1 KB."""
    text, given_in, given_out, error = (part_of(record, what) for what in ("text", "input", "output", "error"))
    return SpanPayload(
        text or "", given_in, given_out, error, entries_of(record, "inputs"), entries_of(record, "outputs")
    )


def part_of(record: bytes, what: str) -> str | None:
    """One text of a record (payload.record_bytes); None: it has none.

    Args:
        what: "text" (all that is readable), "input", "output" or "error" (the message).
    """
    match what:
        case "text":
            text: str | None = searchable_text(record)
        case "error":
            text = decode_span(record).error_message
        case _:
            given_in, given_out = input_output(record)
            text = given_in if what == "input" else given_out
    return None if text is None else _storable(text)


def entries_of(record: bytes, what: str) -> list[tuple[str, str]]:
    """The leaves of a record's "inputs" or "outputs": (keys joined by dots, value as text), in order.

    The items of a list share the key of the list. Values are text as it is, numbers and booleans as JSON; null is no
    value. An input that is no object has the key `input`, such an output `output`.
    """
    given_in, given_out = input_output(record)
    text = given_in if what == "inputs" else given_out
    if text is None:
        return []
    return [(_storable(key), _storable(leaf)) for key, leaf in _leaves(parse_json(text), _ALONE[what])]


def _leaves(value: Any, alone: str) -> Iterator[tuple[str, str]]:
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, each = stack.pop()
        if isinstance(each, dict):
            stack.extend((f"{path}.{key}" if path else str(key), inner) for key, inner in reversed(each.items()))
        elif isinstance(each, list):
            stack.extend((path, inner) for inner in reversed(each))
        elif isinstance(each, str):
            yield path or alone, each
        elif each is not None and not (isinstance(each, float) and not math.isfinite(each)):
            yield path or alone, json.dumps(each)


def _storable(text: str) -> str:
    """Text that SQLite can hold: a lone surrogate, which JSON can say, becomes a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
