"""Load the demo set into a running server, once for each data directory.

`demo.json` in the data directory holds the instant that the traces were dated from, `demo-key` the demo's key. Both are
written before the first request: a load that was cut off goes on with the same bytes, which the server knows already.
After that, a start leaves the demo as it is; traces that were deleted stay deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from clearspan.catalog.catalog import Catalog
from clearspan.demo.dataset import DemoRequest, demo_requests
from clearspan.demo.redate import redate
from clearspan.model.clock import Clock
from clearspan.model.errors import ClearspanError, NotAuthenticated, Overloaded

STATE_FILE = "demo.json"
KEY_FILE = "demo-key"
PROJECT = "demo"
ATTEMPTS = 5


class DemoNotLoaded(ClearspanError):
    """The server did not take a part of the demo."""

    code = "demo_not_loaded"


@dataclass(frozen=True, slots=True)
class DemoState:
    """What the two files remember."""

    key: str  # reads, writes and deletes in the project `demo` only
    now_ns: int  # the traces are dated before this instant
    loaded: bool


class Loaded(NamedTuple):
    """A load that reached its end."""

    state: DemoState
    refusals: list[str]  # in words; a load that goes on after a deletion is refused what was deleted


def prepare(catalog: Catalog, data: Path, clock: Clock) -> DemoState:
    """The demo's project and key, made when they are not there; the state is on disk when this returns."""
    state = read_state(data)
    if state is not None and _is_valid(catalog, state.key):
        return state
    org_id = catalog.first_org.id
    project = catalog.find_project(org_id, PROJECT) or catalog.create_project(org_id, PROJECT)
    made = catalog.create_key(org_id, name="demo", project_ids=[project.id])
    fresh = DemoState(key=made.secret, now_ns=clock.now_ns(), loaded=False)
    # A new key in place of a revoked one changes nothing about what is loaded.
    state = fresh if state is None else replace(state, key=made.secret)
    write_state(data, state)
    return state


def load(base_url: str, data: Path, state: DemoState, on_progress: Callable[[int, int], None]) -> Loaded:
    """Post what is not loaded yet, and remember that it is.

    Args:
        on_progress: called with (requests done, requests in all).
    Raises:
        DemoNotLoaded: an answer other than success.
        Overloaded: the server stayed busy.
        OSError: there is no server.
    """
    if state.loaded:
        return Loaded(state, [])
    requests = redate(list(demo_requests()), state.now_ns)
    refusals = []
    on_progress(0, len(requests))
    address = urlsplit(base_url)
    connection = HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=60)
    try:
        for done, request in enumerate(requests, 1):
            if refusal := _post(connection, request, state.key):
                refusals.append(refusal)
            on_progress(done, len(requests))
    finally:
        connection.close()
    state = replace(state, loaded=True)
    write_state(data, state)
    return Loaded(state, refusals)


def read_state(data: Path) -> DemoState | None:
    """The remembered state; None when there is none or it cannot be read."""
    try:
        key = (data / KEY_FILE).read_text("utf-8").strip()
        return DemoState(key=key, **json.loads((data / STATE_FILE).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_state(data: Path, state: DemoState) -> None:
    """Replace both files, each in one step."""
    _replace(data / KEY_FILE, state.key + "\n")
    _replace(data / STATE_FILE, json.dumps({"now_ns": state.now_ns, "loaded": state.loaded}) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner may read, and put it in place when it is on disk."""
    beside = path.with_name(path.name + ".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _is_valid(catalog: Catalog, key: str) -> bool:
    try:
        catalog.authenticate(key)
    except NotAuthenticated:
        return False
    return True


def _post(connection: HTTPConnection, request: DemoRequest, key: str) -> str | None:
    """Send one request; what of it was refused, or None."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": request.content_type}
    for _ in range(ATTEMPTS):
        connection.request("POST", request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 503:
            return _refusal(request, answer, body)
        time.sleep(float(answer.headers.get("Retry-After", "1")))
    raise Overloaded("The server stayed too busy to take the demo.")


def _refusal(request: DemoRequest, answer: HTTPResponse, body: bytes) -> str | None:
    """What OTLP's partial success says, in words; None when everything was taken."""
    if answer.status >= 300:
        detail = body[:300].decode("utf-8", "replace")
        raise DemoNotLoaded(f"{request.path} answered {answer.status} to a request of {request.source}: {detail}")
    if (answer.headers.get("Content-Type") or "").startswith("application/json"):
        partial = json.loads(body or b"{}").get("partialSuccess") or {}
        count, reason = int(partial.get("rejectedSpans", 0)), partial.get("errorMessage", "")
    else:
        # The log service's answer has the same shape: field 1 holds a count and a reason.
        parsed = ExportTraceServiceResponse.FromString(body).partial_success
        count, reason = parsed.rejected_spans, parsed.error_message
    return f"{request.source}: {count} records were not taken: {reason}" if count else None
