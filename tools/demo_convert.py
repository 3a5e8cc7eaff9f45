"""Public traces in their authors' formats → OTLP/JSON with GenAI attributes. Used by build_demo.py.

Real: texts, tool calls and results, the tree, and for `frameworks` also times, models and token counts. Made up, and
said so in the demo's README: customers, sessions, environments, and the times of every source but `frameworks`.
No token count and no model is invented: where the source has none, the span has none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

CUSTOMERS = ("user@example.com", "ada@example.com", "grace@example.net", "linus@example.org", "wei@example.com")
ENVIRONMENTS = ("production", "production", "production", "staging", "staging", "development")
EPOCH_NS = 1_767_225_600 * 10**9  # 2026-01-01: where derived times begin; the loader moves everything to now
MS = 10**6

EMAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@(?!example\.(?:com|org|net)\b)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
PHONE = re.compile(r"(?<![\w.-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?|\d{3}[ .-])\d{3,4}[ .-]\d{4}(?![\w-])")

FRAMEWORKS_LEFT_OUT = {"csharp-agent-with-gemini-2026-03-09"}  # names a person and the hosts of a company
PRIVATE_ATTRIBUTES = ("host.", "process.", "os.", "otel.", "service.instance", "langfuse.")
MAGENTIC_BYTES_MAX = 70_000


def scrub(text: str) -> str:
    """`text` without e-mail addresses (reserved example domains stay) and telephone numbers."""
    return PHONE.sub("[phone number removed]", EMAIL.sub("[e-mail address removed]", text))


def pick(options: tuple[str, ...], *key: object) -> str:
    return options[stable_number(*key) % len(options)]


def stable_number(*key: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:6], "big")


def stable_id(n_bytes: int, *key: object) -> str:
    return hashlib.sha256(repr(("clearspan demo", *key)).encode()).hexdigest()[: 2 * n_bytes]


def otlp_value(value: Any) -> dict[str, Any]:
    """A Python value as an OTLP/JSON AnyValue; text is scrubbed on the way."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [otlp_value(each) for each in value]}}
    return {"stringValue": scrub(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}


def otlp_attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": otlp_value(value)} for key, value in values.items() if value is not None]


@dataclass
class DemoSpan:
    """One span on its way to OTLP/JSON."""

    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    error: str | None = None
    scope: str = "clearspan.demo"

    def to_otlp(self, trace_id: str) -> dict[str, Any]:
        span: dict[str, Any] = {"traceId": trace_id, "spanId": self.span_id}
        if self.parent_id:
            span["parentSpanId"] = self.parent_id
        span |= {
            "name": scrub(self.name),
            "kind": 1,
            "startTimeUnixNano": str(self.start_ns),
            "endTimeUnixNano": str(self.end_ns),
            "attributes": otlp_attributes(self.attributes),
            "status": {"code": 2, "message": scrub(self.error)} if self.error else {},
        }
        return span


@dataclass
class Trace:
    """One trace: its spans with the resource they share."""

    trace_id: str
    resource: dict[str, Any]
    spans: list[DemoSpan] = field(default_factory=list)

    def resource_spans(self) -> Iterator[dict[str, Any]]:
        scopes = dict.fromkeys(span.scope for span in self.spans)
        yield {
            "resource": {"attributes": otlp_attributes(self.resource)},
            "scopeSpans": [
                {
                    "scope": {"name": scope},
                    "spans": [span.to_otlp(self.trace_id) for span in self.spans if span.scope == scope],
                }
                for scope in scopes
            ],
        }


class Script:
    """Writes down a run of steps one after the other, with times derived from the texts' lengths."""

    def __init__(self, source: str, key: str, service: str, root: str, root_attributes: dict[str, Any]) -> None:
        self.key = (source, key)
        customer = pick(CUSTOMERS, "customer", *self.key)
        self.trace = Trace(
            stable_id(16, *self.key),
            {"service.name": service, "deployment.environment.name": pick(ENVIRONMENTS, "environment", *self.key)},
        )
        self.root = DemoSpan(
            stable_id(8, *self.key, 0), None, root, EPOCH_NS, EPOCH_NS,
            {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": root, "user.id": customer,
             "session.id": f"{source}-{customer.split('@')[0]}", "source": source, **root_attributes},
        )  # fmt: skip
        self.trace.spans.append(self.root)
        self.now_ns = EPOCH_NS + 5 * MS

    def step(self, name: str, attributes: dict[str, Any], took_ms: int, error: str | None = None) -> DemoSpan:
        span = DemoSpan(
            stable_id(8, *self.key, len(self.trace.spans)), self.root.span_id, name,
            self.now_ns, self.now_ns + took_ms * MS, attributes, error,
        )  # fmt: skip
        self.trace.spans.append(span)
        self.now_ns = span.end_ns + 2 * MS
        self.root.end_ns = self.now_ns
        return span

    def chat(self, asked: str, answered: str) -> None:
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": text_message("user", asked),
            "gen_ai.output.messages": text_message("assistant", answered),
        }
        self.step("chat", attributes, 400 + 8 * (len(answered) // 4))

    def tool(self, name: str, arguments: str, result: str, took_ms: int, error: str | None = None) -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.arguments": arguments,
            "gen_ai.tool.call.result": result,
        }
        if error:
            attributes["error.type"] = "tool_error"
        self.step(f"execute_tool {name}", attributes, took_ms, error)


def text_message(role: str, text: str) -> str:
    """One message in the GenAI conventions' JSON form."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": scrub(text)}]}], ensure_ascii=False)


# --- tau-bench: customer-service dialogues -------------------------------------------------------------------------

TURN = re.compile(r"(?m)^(user|assistant|tool): ")


def tau_bench(folder: Path) -> Iterator[Trace]:
    """Dialogues as `role: text` lines; an `assistant: None` before a `tool:` is the call of a tool."""
    for path in sorted((folder / "tau-bench-fewshot").glob("*.jsonl")):
        domain = "airline" if "Airline" in path.name else "retail"
        for number, line in enumerate(path.read_text().splitlines()):
            yield one_dialogue(domain, number, json.loads(line)["messages_display"])


def one_dialogue(domain: str, number: int, text: str) -> Trace:
    parts = TURN.split(text)[1:]
    turns = list(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    script = Script(
        "tau-bench", f"{domain}-{number}", "support-desk", f"{domain} support",
        {"domain": domain, "gen_ai.input.messages": text_message("user", turns[0][1])},
    )  # fmt: skip
    heard = turns[0][1]
    for role, said in turns[1:]:
        if role == "tool":
            failed = said if said.lower().startswith("error") else None
            script.tool("backend", "", said, 40 + stable_number(said) % 400, failed)
            heard = said
        elif role == "user":
            heard = said
        elif said != "None":
            script.chat(heard, said)
            script.root.attributes["gen_ai.output.messages"] = text_message("assistant", said)
    return script.trace


# --- SWE-agent: thought, action, observation -------------------------------------------------------------------------


def swe_agent(folder: Path) -> Iterator[Trace]:
    """Trajectories of a coding agent. Token totals, where recorded, are put on the root: steps carry none."""
    for path in sorted((folder / "swe-agent").glob("*.traj")):
        run = json.loads(path.read_text())
        if not run.get("trajectory") or path.stem.startswith("replay__"):
            continue
        stats = run["info"].get("model_stats", {})
        usage = {
            "gen_ai.usage.input_tokens": stats.get("tokens_sent") or None,
            "gen_ai.usage.output_tokens": stats.get("tokens_received") or None,
            "operation.cost": stats.get("instance_cost") or None,
        }
        script = Script("swe-agent", path.stem, "code-agent", f"swe-agent {path.stem}"[:80], usage)
        seen = f"Task: {path.stem}"
        script.root.attributes["gen_ai.input.messages"] = text_message("user", seen)
        for step in run["trajectory"]:
            script.chat(seen, step.get("response") or step.get("thought") or "")
            seen = step.get("observation") or ""
            action = (step.get("action") or "").strip()
            took_ms = round(1000 * (step.get("execution_time") or 0.2))
            failed = first_error(seen)
            script.tool((action.split() or ["none"])[0][:40], action, seen, took_ms, failed)
        submission = str(run["info"].get("submission") or "")
        script.root.attributes["gen_ai.output.messages"] = text_message("assistant", submission)
        yield script.trace


def first_error(observation: str) -> str | None:
    """The last line of a traceback in a command's output, if there is one."""
    if "Traceback (most recent call last)" not in observation:
        return None
    lines = [line for line in observation.splitlines() if re.match(r"\w+(Error|Exception)\b", line)]
    return lines[-1][:300] if lines else None


# --- Magentic-One: a team of agents ----------------------------------------------------------------------------------


def magentic_one(folder: Path) -> Iterator[Trace]:
    """Message lists with a role for each agent. Only runs without contact addresses, and not the largest ones."""
    for path in sorted((folder / "magentic-one").glob("*.json")):
        text = path.read_text()
        messages = json.loads(text)
        if not isinstance(messages, list) or len(text) > MAGENTIC_BYTES_MAX:
            continue
        if EMAIL.search(text) or PHONE.search(text):
            continue
        script = Script(
            "magentic-one", path.stem, "research-team", "research team",
            {"gen_ai.input.messages": text_message("user", messages[0]["content"])},
        )  # fmt: skip
        heard = messages[0]["content"]
        for message in messages[1:]:
            said, role = str(message["content"]), message["role"]
            add_agent_step(script, role, heard, said)
            heard = said
        script.root.attributes["gen_ai.output.messages"] = text_message("assistant", heard)
        yield script.trace


def add_agent_step(script: Script, role: str, heard: str, said: str) -> None:
    if role.startswith("Orchestrator"):
        script.chat(heard, said)
        script.trace.spans[-1].name = f"chat {role}"
    elif role == "ComputerTerminal":
        script.tool("terminal", heard, said, 900, first_error(said))
    else:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": role,
            "gen_ai.input.messages": text_message("user", heard),
            "gen_ai.output.messages": text_message("assistant", said),
        }
        script.step(f"invoke_agent {role}", attributes, 1500 + stable_number(said) % 4000)


# --- Traces of agent frameworks, exported from Langfuse --------------------------------------------------------------


def frameworks(folder: Path) -> Iterator[Trace]:
    """Exports that keep most of the original OpenTelemetry attributes, with real times, models and token counts."""
    for path in sorted((folder / "langfuse-framework-traces").glob("*.trace.json")):
        name = path.name.removesuffix(".trace.json")
        if name not in FRAMEWORKS_LEFT_OUT:
            yield one_export(name, json.loads(path.read_text()))


def one_export(name: str, export: dict[str, Any]) -> Trace:
    head, observations = export["trace"], export["observations"]
    details = {each["id"]: as_dict(each["metadata"]) for each in observations}
    first = next(iter(details.values()), {})
    resource = as_dict(first.get("resourceAttributes")) | {
        "deployment.environment.name": pick(ENVIRONMENTS, "environment", name)
    }
    trace = Trace(stable_id(16, "frameworks", name), without_private(resource))
    ids = {each["id"]: stable_id(8, name, each["id"]) for each in observations}
    for each in sorted(observations, key=lambda one: (one["parentObservationId"] is not None, one["startTime"])):
        attributes = export_attributes(each, details[each["id"]])
        if each["parentObservationId"] not in ids:
            attributes |= {
                "user.id": head["userId"] or pick(CUSTOMERS, "customer", name),
                "session.id": head["sessionId"] or f"frameworks-{name}",
                "tag.tags": head["tags"] or None,
                "source": "frameworks",
                "framework": name,
            }
        trace.spans.append(
            DemoSpan(
                ids[each["id"]], ids.get(each["parentObservationId"]), each["name"] or each["type"].lower(),
                ns_of(each["startTime"]), ns_of(each["endTime"] or each["startTime"]), attributes,
                (each["statusMessage"] or "error") if each["level"] == "ERROR" else None,
                as_dict(details[each["id"]].get("scope")).get("name") or "unknown",
            )
        )  # fmt: skip
    return trace


OPERATIONS = {"GENERATION": "chat", "TOOL": "execute_tool", "AGENT": "invoke_agent"}
TEXT_ATTRIBUTES = re.compile(
    r"gen_ai\.(input|output)\.messages$|(input|output)\.value$|ai\.(prompt|response)|gen_ai\.prompt"
)
NUMBERS = re.compile(r"gen_ai\.usage\.|llm\.token_count\.|ai\.usage\.|gen_ai\.request\.(seed|choice)")


def export_attributes(observation: dict[str, Any], details: dict[str, Any]) -> dict[str, Any]:
    """The original attributes, and what the export moved out of them: texts, usage, model and kind."""
    attributes = {
        key: numeric(key, value) for key, value in without_private(as_dict(details.get("attributes"))).items()
    }
    if not any(key.endswith("span.kind") or key in {"gen_ai.operation.name", "ai.operationId"} for key in attributes):
        attributes["gen_ai.operation.name"] = OPERATIONS.get(observation["type"])
    for side in ("input", "output"):
        if observation[side] is not None and not any(carries_text(key, side) for key in attributes):
            attributes[f"{side}.value"] = observation[side]
    usage = observation["usageDetails"]
    if usage and not any(NUMBERS.match(key) for key in attributes):
        attributes |= {
            "gen_ai.usage.input_tokens": usage.get("input"),
            "gen_ai.usage.output_tokens": usage.get("output"),
        }
    if observation["model"] and not any("model" in key for key in attributes):
        attributes["gen_ai.request.model"] = observation["model"]
    return attributes


def carries_text(key: str, side: str) -> bool:
    words = {
        "input": ("input", "prompt", "arguments", "args"),
        "output": ("output", "completion", "response", "result"),
    }
    return bool(TEXT_ATTRIBUTES.match(key)) and any(word in key for word in words[side])


def numeric(key: str, value: Any) -> Any:
    """Token counts and the like as numbers; the export turned everything into text."""
    return int(value) if NUMBERS.match(key) and isinstance(value, str) and value.isdigit() else value


def without_private(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not key.startswith(PRIVATE_ATTRIBUTES)}


def as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = json.loads(value)
    return value if isinstance(value, dict) else {}


def ns_of(text: str) -> int:
    at = datetime.fromisoformat(text)
    return int(at.timestamp() * 1000) * MS


SOURCES = {
    "frameworks": frameworks,
    "tau-bench": tau_bench,
    "swe-agent": swe_agent,
    "magentic-one": magentic_one,
}
