"""Trace templates: whole traces serialised once, with a list of the bytes that differ from trace to trace.

Building spans attribute by attribute costs about 100 µs each; copying a template and writing ids, times, customer,
token counts and a few words of text into it costs about 3 µs a span. Every value that changes has a fixed width, so
no length prefix moves. A trace is thus `body.copy(); body[destinations] = record[sources]`.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from bench.words import TOOLS, WORKFLOWS, TextSampler

FAMILIES = ("genai", "openinference")
MODELS = (
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", 34),
    ("openai", "gpt-4o", "gpt-4o-2024-08-06", 22),
    ("anthropic", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20241022", 22),
    ("google", "gemini-1.5-pro", "gemini-1.5-pro-002", 8),
    ("mistral", "mistral-large-latest", "mistral-large-2411", 8),
    ("in-house", "house-llm-7b", "house-llm-7b", 6),  # no price anywhere: stays unknown
)
PLANS = (("free", 50), ("pro", 35), ("enterprise", 15))
TIERS = (("bronze", 40), ("silver", 35), ("gold", 25))
REGIONS = (("eu-west", 40), ("us-east", 40), ("ap-south", 20))

WORD_SLOTS, DIGIT_SLOTS, HEX_SLOTS = 4, 8, 4
EXTERNAL_PARENT = 0xFFFF_FFFF

# The record that a template's `sources` point into: fixed fields first, then those that grow with the span count.
TRACE_ID = 0
PARENT = 16
CUSTOMER = 24
SESSION = CUSTOMER + 13
TENANT = SESSION + 16
WORDS = TENANT + 12
DIGITS = WORDS + 12 * WORD_SLOTS
HEXES = DIGITS + 8 * DIGIT_SLOTS
PER_SPAN = HEXES + 12 * HEX_SLOTS  # token counts: two bytes in, two bytes out for each span


@dataclass(frozen=True, slots=True)
class TraceTemplate:
    """One serialised trace. `body` holds `ScopeSpans.spans` entries, children before the root."""

    family: str
    span_count: int
    body: np.ndarray
    ends: tuple[int, ...]  # offset in `body` behind each span
    time_offsets: np.ndarray  # int64 ns after the trace's start: start, end of each span in turn
    destinations: np.ndarray
    sources: np.ndarray


def span_id_base(span_count: int) -> int:
    return PER_SPAN + 4 * span_count


def time_base(span_count: int) -> int:
    return PER_SPAN + 12 * span_count


def build_template(
    rng: random.Random, sampler: TextSampler, span_count: int, *, subtree: bool = False, message_mean: int = 500
) -> TraceTemplate:
    """One template of `span_count` spans; with `subtree` its root hangs below a parent outside of it."""
    story = _Story(rng, sampler, message_mean)
    spans = story.spans(span_count, subtree=subtree)
    body = bytearray()
    ends: list[int] = []
    destinations: list[np.ndarray] = []
    sources: list[np.ndarray] = []
    for index, span in enumerate(spans):
        raw = span.SerializeToString()
        body += b"\x12" + varint(len(raw))
        _find_patches(raw, len(body), index, span_count, destinations, sources)
        body += raw
        ends.append(len(body))
    return TraceTemplate(
        family=story.family,
        span_count=span_count,
        body=np.frombuffer(bytes(body), np.uint8),
        ends=tuple(ends),
        time_offsets=np.array(story.time_offsets, np.int64),
        destinations=np.concatenate(destinations).astype(np.intp),
        sources=np.concatenate(sources).astype(np.intp),
    )


def varint(value: int) -> bytes:
    """Protobuf's variable-length form of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- marks that are replaced in every trace ------------------------------------------------------------------

_TRACE_MARK = b"\xd1\xd2\xd3\xd4TRACEMARK\xd5\xd6\xd7"
_PATCHES = re.compile(
    rb"(?P<trace>" + re.escape(_TRACE_MARK) + rb")"
    rb"|\xf1\xf2(?P<span>....)\xf3\xf4"
    rb"|\xe1\xe2(?P<time>....)\xe3\xe4"
    rb"|@@(?P<slot>[WDHCST])(?P<number>\d?)@+"
    rb"|(?:usage\.(?P<way>input|output)_tokens|token_count\.(?P<oi>prompt|completion))\x12\x03\x18(?P<count>..)",
    re.DOTALL,
)
_SLOT_START = {b"W": WORDS, b"D": DIGITS, b"H": HEXES, b"C": CUSTOMER, b"S": SESSION, b"T": TENANT}
_SLOT_WIDTH = {"W": 12, "D": 8, "H": 12, "C": 13, "S": 16, "T": 12}


def _slot(kind: str, number: int | str = "") -> str:
    return f"@@{kind}{number}".ljust(_SLOT_WIDTH[kind], "@")


def _span_mark(index: int) -> bytes:
    return b"\xf1\xf2" + index.to_bytes(4, "big") + b"\xf3\xf4"


def _time_mark(index: int) -> int:
    return int.from_bytes(b"\xe1\xe2" + index.to_bytes(4, "big") + b"\xe3\xe4", "little")


def _find_patches(
    raw: bytes, at: int, span: int, span_count: int, destinations: list[np.ndarray], sources: list[np.ndarray]
) -> None:
    for match in _PATCHES.finditer(raw):
        start, end = match.span("count") if match["count"] else match.span()
        if match["trace"]:
            source = TRACE_ID
        elif match["span"]:
            index = int.from_bytes(match["span"], "big")
            source = PARENT if index == EXTERNAL_PARENT else span_id_base(span_count) + 8 * index
        elif match["time"]:
            source = time_base(span_count) + 8 * int.from_bytes(match["time"], "big")
        elif match["count"]:
            is_input = match["way"] == b"input" or match["oi"] == b"prompt"
            source = PER_SPAN + 4 * span + (0 if is_input else 2)
        else:
            kind = match["slot"]
            source = _SLOT_START[kind] + int(match["number"] or 0) * _SLOT_WIDTH[kind.decode()]
            assert end - start == _SLOT_WIDTH[kind.decode()], match[0]
        destinations.append(np.arange(at + start, at + end))
        sources.append(np.arange(source, source + end - start))


# ---- the story a template tells -------------------------------------------------------------------------------


class _Story:
    """A workflow whose model calls repeat the conversation so far and whose tools answer in between."""

    HISTORY = 2  # messages of earlier turns that a model call repeats

    def __init__(self, rng: random.Random, sampler: TextSampler, message_mean: int) -> None:
        self.rng, self.sampler, self.message_mean = rng, sampler, message_mean
        self.family = "genai" if rng.random() < 0.6 else "openinference"
        self.cjk = rng.random() < 0.08
        self.workflow = rng.choice(WORKFLOWS)
        self.model = rng.choices(MODELS, [model[3] for model in MODELS])[0]
        self.metadata = {
            "plan": _weighted(rng, PLANS),
            "tier": _weighted(rng, TIERS),
            "region": _weighted(rng, REGIONS),
            "tenant": _slot("T"),
            "app_version": f"{rng.randint(1, 4)}.{rng.randint(0, 30)}",
            "request_id": _slot("H", 0),
        }
        self.time_offsets: list[int] = []
        self._slots = 0
        self.system = sampler.prose(rng.randint(120, 400))
        self.question = self._message(slots=True) + f" {_slot('W', 0)} {_slot('D', 0)}"
        self.history: list[tuple[str, str]] = [("user", self.question)]

    def spans(self, count: int, *, subtree: bool) -> list[Span]:
        """`count` spans as they end: model calls and tools by turns, a task around each dozen, the root last."""
        rng = self.rng
        root = count - 1
        spans: list[Span] = []
        clock = 2_000_000
        task, task_left, task_start = root, 0, 0
        tool = rng.choice(TOOLS)
        for index in range(count - 1):
            if count > 30 and task_left == 0 and count - index > 14:
                task, task_left, task_start = index + 12, 12, clock
            is_task = index == task
            start = task_start if is_task else clock
            clock += 500_000 if is_task else int(rng.lognormvariate(19.0 if index % 2 == 0 else 17.5, 0.9))
            self.time_offsets += [start, clock]
            parent = root if is_task or task_left == 0 else task
            if is_task:
                span = self._task(index)
                task, task_left = root, 0
            elif index % 2 == 0:
                tool = rng.choice(TOOLS)
                span = self._model_call(tool)
            else:
                span = self._tool_call(tool)
            task_left = max(0, task_left - 1) if task != root else 0
            self._frame(span, index, parent)
            spans.append(span)
        last = self._model_call(rng.choice(TOOLS)) if count == 1 else self._root()
        if count == 1 and self.family == "genai":
            last.attributes.extend(_attributes(self._whose()))
        self.time_offsets += [0, clock + 1_000_000]
        self._frame(last, root, EXTERNAL_PARENT if subtree else None)
        spans.append(last)
        return spans

    def _frame(self, span: Span, index: int, parent: int | None) -> None:
        span.trace_id = _TRACE_MARK
        span.span_id = _span_mark(index)
        if parent is not None:
            span.parent_span_id = _span_mark(parent)
        span.start_time_unix_nano = _time_mark(2 * index)
        span.end_time_unix_nano = _time_mark(2 * index + 1)
        span.flags = 0x100
        if self.rng.random() < 0.03:
            message = f"{self.rng.choice(('TimeoutError', 'RateLimitError', 'ValueError'))}: {self.sampler.prose(60)}"
            span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=message))
            event = span.events.add(name="exception", time_unix_nano=_time_mark(2 * index + 1))
            trace_back = (
                f'Traceback (most recent call last):\n  File "app/{self.workflow}.py", line {self.rng.randint(9, 900)}'
            )
            event.attributes.extend(
                _attributes({"exception.type": message.split(":")[0], "exception.message": message,
                             "exception.stacktrace": trace_back + "\n" + message})
            )  # fmt: skip

    def _message(self, *, slots: bool = False) -> str:
        size = int(min(self.rng.lognormvariate(0, 0.9) * self.message_mean * 0.667, 8_000))
        text = self.sampler.cjk(size // 3) if self.cjk and self.rng.random() < 0.7 else self.sampler.prose(size)
        if slots or self.rng.random() < 0.5:
            self._slots += 1
            number = self._slots
            text += f" {_slot('D', number % DIGIT_SLOTS)} {_slot('H', number % HEX_SLOTS)} {_slot('W', 1 + number % 3)}"
        return text

    def _tool_result(self) -> str:
        rng = self.rng
        rows = [
            {"id": rng.getrandbits(31), "name": " ".join(self.sampler.words(2)), "score": round(rng.random(), 4),
             "note": self.sampler.prose(rng.randint(30, 120))}
            for _ in range(rng.randint(1, 4))
        ]  # fmt: skip
        return json.dumps({"ref": _slot("D", rng.randrange(DIGIT_SLOTS)), "rows": rows}, ensure_ascii=False)

    def _model_call(self, tool: str) -> Span:
        rng = self.rng
        shown = [("system", self.system), *self.history[-self.HISTORY :]]
        answer = self._message()
        self.history.append(("assistant", answer))
        if self.family == "genai":
            return self._genai_call(shown, answer, tool)
        return self._openinference_call(shown, answer, rng.random() < 0.5)

    def _genai_call(self, shown: list[tuple[str, str]], answer: str, tool: str) -> Span:
        provider, asked, answered, _ = self.model
        rng = self.rng
        messages = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in shown]
        values: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": asked,
            "gen_ai.response.model": answered,
            "gen_ai.response.id": f"chatcmpl-{rng.getrandbits(64):016x}",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.request.temperature": round(rng.random(), 2),
            "gen_ai.request.max_tokens": 2048,
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.output_tokens": 300,
            "gen_ai.response.time_to_first_chunk": round(rng.random() * 2, 6),
            "server.address": "api.example.com",
            "server.port": 443,
            "gen_ai.input.messages": json.dumps(messages, ensure_ascii=False),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": answer}], "finish_reason": "stop"}],
                ensure_ascii=False,
            ),
        }
        if rng.random() < 0.3:
            values["gen_ai.tool.definitions"] = json.dumps(
                [{"type": "function", "name": tool, "description": self.sampler.prose(60),
                  "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}}]
            )  # fmt: skip
        if rng.random() < 0.3:
            values["gen_ai.conversation.id"] = _slot("S")
        return Span(name=f"chat {asked}", kind=Span.SPAN_KIND_CLIENT, attributes=_attributes(values))

    def _openinference_call(self, shown: list[tuple[str, str]], answer: str, with_request: bool) -> Span:
        provider, asked, answered, _ = self.model
        values: dict[str, Any] = {
            "llm.system": provider,
            "llm.provider": provider,
            "llm.model_name": answered,
            "llm.invocation_parameters": json.dumps({"model": asked, "temperature": round(self.rng.random(), 2)}),
            "llm.token_count.prompt": 1000,
            "llm.token_count.completion": 300,
            "openinference.span.kind": "LLM",
            "output.value": answer,
        }
        if with_request:
            request = {"model": asked, "messages": [{"role": role, "content": text} for role, text in shown]}
            values["input.value"] = json.dumps(request, ensure_ascii=False)
            values["input.mime_type"] = "application/json"
        for number, (role, text) in enumerate(shown):
            values[f"llm.input_messages.{number}.message.role"] = role
            values[f"llm.input_messages.{number}.message.content"] = text
        values["llm.output_messages.0.message.role"] = "assistant"
        values["llm.output_messages.0.message.content"] = answer
        values |= self._everywhere()
        return Span(name="ChatCompletion", kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values))

    def _tool_call(self, tool: str) -> Span:
        arguments = json.dumps({"query": " ".join(self.sampler.words(5)), "limit": self.rng.randint(1, 50)})
        result = self._tool_result()
        self.history.append(("tool", result))
        if self.family == "genai":
            values: dict[str, Any] = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": tool,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": f"call_{self.rng.getrandbits(48):012x}",
                "gen_ai.tool.call.arguments": arguments,
                "gen_ai.tool.call.result": result,
            }
            return Span(name=f"execute_tool {tool}", kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values))
        values = {
            "openinference.span.kind": "TOOL",
            "tool.name": tool,
            "tool.parameters": arguments,
            "input.value": arguments,
            "output.value": result,
        }
        return Span(name=tool, kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values | self._everywhere()))

    def _task(self, index: int) -> Span:
        name = f"step_{index}"
        if self.family == "genai":
            values: dict[str, Any] = {
                "traceloop.span.kind": "task",
                "traceloop.entity.name": name,
                "traceloop.workflow.name": self.workflow,
                "traceloop.entity.input": json.dumps({"args": [self.sampler.prose(80)], "kwargs": {}}),
                "traceloop.entity.output": json.dumps(self.sampler.prose(120)),
            }
            return Span(name="task", kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values))
        values = {"openinference.span.kind": "CHAIN", "input.value": self.sampler.prose(80)} | self._everywhere()
        return Span(name=name, kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values))

    def _root(self) -> Span:
        answer = self.history[-1][1]
        if self.family == "genai":
            values: dict[str, Any] = {
                "traceloop.span.kind": "workflow",
                "traceloop.workflow.name": self.workflow,
                "traceloop.entity.name": self.workflow,
                "respan.entity.log_method": "python_tracing",
                "traceloop.entity.input": json.dumps({"args": [self.question], "kwargs": {}}, ensure_ascii=False),
                "traceloop.entity.output": json.dumps(answer, ensure_ascii=False),
                **self._whose(),
            }
            return Span(name="workflow", kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values))
        values = {"openinference.span.kind": "AGENT", "input.value": self.question, "output.value": answer}
        return Span(
            name=self.workflow, kind=Span.SPAN_KIND_INTERNAL, attributes=_attributes(values | self._everywhere())
        )

    def _whose(self) -> dict[str, Any]:
        """What Respan's client sets on the root only."""
        return {
            "respan.customer_params.customer_identifier": _slot("C"),
            "respan.sessions.session_identifier": _slot("S"),
            **{f"respan.metadata.{key}": value for key, value in self.metadata.items()},
        }

    def _everywhere(self) -> dict[str, Any]:
        """What OpenInference copies to each span in scope."""
        return {"session.id": _slot("S"), "user.id": _slot("C"), "metadata": json.dumps(self.metadata)}


def _attributes(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in values.items()]


def _any(value: Any) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[_any(item) for item in value]))


def _weighted(rng: random.Random, choices: tuple[tuple[str, int], ...]) -> str:
    return rng.choices([name for name, _ in choices], [weight for _, weight in choices])[0]
