"""Which questions the drill puts to the read interfaces: every described GET, and lists by every kind of condition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

Json = dict[str, Any]

FIELDS = {
    "customer id": "customer_identifier",
    "session": "session_identifier",
    "group": "trace_group_identifier",
    "thread": "thread_identifier",
    "environment": "environment",
    "span name": "span_name",
    "model": "model",
    "provider": "provider_id",
    "prompt id": "prompt_id",
    "prompt name": "prompt_name",
    "deployment": "deployment_name",
    "workflow": "span_workflow_name",
    "path": "span_path",
    "error class": "error_class",
}
"""Where a needle of a field can be asked for by equality."""

_LIST = "/api/traces/list/"
_PARAMETER = re.compile(r"\{(\w+)\}")


class Question(NamedTuple):
    """One request to a read interface."""

    route: str  # as the API's description names it
    method: str
    path: str
    body: Json | None = None


class Facts(NamedTuple):
    """What there is to ask about; plain values, fit for JSON."""

    trace_ids: Sequence[str]
    pairs: Sequence[tuple[str, str]]  # (metadata key, value)
    needles: Sequence[tuple[str, str]]  # (field, text), one or more a field
    parameters: Mapping[str, Sequence[str]]  # path parameter → values to fill in


def questions(openapi: Json, facts: Facts, window: str) -> tuple[list[Question], list[str]]:
    """Every question, and the described GET routes that cannot be asked because a parameter's value is unknown.

    Args:
        window: `start_time=…&end_time=…` that holds everything planted.
    """
    asked: list[Question] = []
    left_out: list[str] = []
    for route, operations in openapi.get("paths", {}).items():
        if "get" not in operations:
            continue
        paths = list(_filled(route, facts.parameters))
        asked += [Question(f"GET {route}", "GET", path) for path in paths]
        if not paths:
            left_out.append(f"GET {route}")
    asked += [_filtered(condition, window) for condition in _conditions(facts)]
    asked += [
        Question(f"GET {_LIST}", "GET", f"{_LIST}?{window}&page_size=1000&environment={quote(text, safe='')}")
        for field, text in facts.needles
        if field == "environment"
    ]
    summary = "/clickhouse/traces/summary/"
    asked.append(Question(f"POST {summary}", "POST", f"{summary}?{window}", {}))
    return asked, left_out


def _filled(route: str, parameters: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The route with every combination of parameter values that belong together: values are taken in step, and the
    last of a shorter list stands for the rest."""
    names = _PARAMETER.findall(route)
    if not names:
        yield route
        return
    if not all(parameters.get(name) for name in names):
        return
    for nth in range(max(len(parameters[name]) for name in names)):
        path = route
        for name in names:
            values = parameters[name]
            path = path.replace(f"{{{name}}}", quote(values[min(nth, len(values) - 1)], safe=""))
        yield path


def _conditions(facts: Facts) -> Iterator[Json]:
    yield {}
    for trace_id in facts.trace_ids:
        yield {"trace_unique_id": {"operator": "=", "value": [trace_id]}}
    for key, value in facts.pairs:
        yield {f"metadata__{key}": {"operator": "=", "value": [value]}}
    for field, text in facts.needles:
        if field in FIELDS:
            yield {FIELDS[field]: {"operator": "=", "value": [text]}}
        yield {"text": {"operator": "contains", "value": [text]}}


def _filtered(filters: Json, window: str) -> Question:
    return Question(f"POST {_LIST}", "POST", f"{_LIST}?{window}&page_size=1000", {"filters": filters})
