"""What every recorded body becomes, as files that people have read: tests/fixtures/*/golden/.

Set CLEARSPAN_REWRITE_GOLDEN=1 to write them anew, then read the diff against the contracts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from recordings import FAMILIES, OTLP, RESPAN, Recorded, family

from clearspan.ingest.detail import decode_span, input_output
from clearspan.ingest.messages import Message

SKIPPED_SPAN_FIELDS = {"start_ns", "end_ns", "context_key", "content_hash"}
SKIPPED_SUMMARY_FIELDS = {"trace_id", "start_ns", "end_ns", "metadata_all", "key_id"}


def prefix(text: str | None, size: int = 120) -> str | None:
    return text if text is None or len(text) <= size else f"{text[:size]}… ({len(text)})"


def told(message: Message) -> str:
    """A message on one line: role, content, calls."""
    content = message["content"]
    line = f"{message['role']}: {content if isinstance(content, str) or content is None else json.dumps(content)}"
    calls = [f"{call['name']}({call['arguments']})#{call['id']}" for call in message.get("tool_calls", ())]
    answers = f" [answers {message['tool_call_id']}]" if message.get("tool_call_id") else ""
    return str(prefix(line, 100)) + answers + "".join(f" → {call}" for call in calls)


def shown(fields: dict[str, Any], skipped: set[str]) -> dict[str, Any]:
    """Only what is known, pairs as objects."""
    out = {key: value for key, value in fields.items() if key not in skipped and value not in (None, (), False)}
    if "metadata" in out:
        out["metadata"] = dict(out["metadata"])
    return out


def span_entry(recorded: Recorded) -> dict[str, Any]:
    detail = decode_span(recorded.record, recorded.log_records)
    assert input_output(recorded.record, recorded.log_records) == (detail.input, detail.output)
    context = shown(recorded.context._asdict(), {"key_id"})
    entry = shown(recorded.span._asdict(), SKIPPED_SPAN_FIELDS) | {
        "trace_id": recorded.trace_id,
        "context": context or None,
        "input": prefix(detail.input),
        "output": prefix(detail.output),
        "asked": [told(message) for message in detail.input_messages] or None,
        "answered": [told(message) for message in detail.output_messages] or None,
        "tools": len(detail.tools) or None,
        "error_message": prefix(detail.error_message),
        "events": [event.name for event in detail.events][:3] or None,
    }
    return {key: value for key, value in entry.items() if value is not None}


def golden(name: str) -> dict[str, Any]:
    found = family(name)
    bodies = {
        body: {
            "spans": request.span_count,
            "logs": request.log_count,
            "rejected": request.rejected_count,
            "became": [span_entry(each) for each in found.spans if each.body == body],
        }
        for body, request in found.requests.items()
    }
    traces = {trace_id: shown(summary._asdict(), SKIPPED_SUMMARY_FIELDS) for trace_id, summary in found.traces.items()}
    value: dict[str, Any] = json.loads(json.dumps({"bodies": bodies, "traces": traces}))
    return value


def golden_path(name: str) -> Path:
    return (RESPAN if name == "respan" else OTLP) / "golden" / f"{name}.json"


@pytest.mark.parametrize("name", [*FAMILIES, "respan"])
def test_every_recorded_body_becomes_what_the_golden_file_says(name: str) -> None:
    path, became = golden_path(name), golden(name)
    if os.environ.get("CLEARSPAN_REWRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(became, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert became == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*FAMILIES, "respan"])
def test_no_genuine_body_loses_anything(name: str) -> None:
    for body, request in family(name).requests.items():
        assert (request.rejected_count, request.reasons) == (0, ()), body
        assert request.span_count + request.log_count > 0, body
