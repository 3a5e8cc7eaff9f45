"""What LangSmith's clients sent, request by request, and short ways to send more of the kind."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from clearspan.ingest.langsmith import run_values
from clearspan.ingest.payload import decode_record
from clearspan.model.trace import Scope
from clearspan.store.spans import SpanReader, SpanRow
from clearspan.testing.wire import Wire

RECORDED = Path(__file__).parent.parent / "fixtures" / "langsmith"
FOLDERS = tuple(sorted(path.parent.name for path in RECORDED.glob("*/requests.jsonl")))
ROOTS = ("", "/api/v1")
BOUNDARY = "0570bb2f07da4adfad2dcbbbfc07cee2"
SENT_ANEW = {"x-api-key", "content-length", "transfer-encoding", "host", "connection"}


class Exchange(NamedTuple):
    """One recorded request."""

    method: str
    path: str  # without a root
    headers: dict[str, str]
    body: bytes


def exchanges(folder: str) -> Iterator[Exchange]:
    """The requests of one recording that bring runs, in the order of their arrival."""
    for line in (RECORDED / folder / "requests.jsonl").read_text().strip().split("\n"):
        said = json.loads(line)
        path = said["path"].removeprefix("/api/v1")
        is_run = said["method"] == "PATCH" and path.startswith("/runs/")
        if is_run or path in ("/runs", "/runs/batch", "/runs/multipart", "/otel/v1/traces"):
            name = said.get("body_file")
            body = (RECORDED / folder / name).read_bytes() if name else json.dumps(said["body"]).encode()
            headers = {key: value for key, value in said["headers"].items() if key.lower() not in SENT_ANEW}
            yield Exchange(said["method"], path, headers, body)


def replay(wire: Wire, folder: str, root: str = "", **rest: Any) -> list[Any]:
    """Send a recording again; the answers."""
    return [
        wire.send(each.method, root + each.path, each.body, headers=each.headers, **rest) for each in exchanges(folder)
    ]


def run_id(number: int) -> str:
    return str(uuid.UUID(int=0x01A2003E_4C11_7C15_9D87_000000000000 + number))


def run(number: int, **fields: Any) -> dict[str, Any]:
    """A root run that has everything a client sends."""
    own = run_id(number)
    return {
        "id": own,
        "trace_id": own,
        "dotted_order": f"20261121T223332433523Z{own}",
        "name": "outer",
        "run_type": "chain",
        "start_time": "2026-11-21T22:33:32.433523+00:00",
        "inputs": {"q": number},
        "session_name": "p",
        **fields,
    }


def multipart(*parts: tuple[str, Any], kind: str = "application/json") -> tuple[bytes, dict[str, str]]:
    """(body, headers) of parts by name; what is no bytes is sent as JSON."""
    out = b""
    for name, content in parts:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}'
        out += f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"
    return out + f"--{BOUNDARY}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def rows(wire: Wire, *ids: str, org_id: int | None = None) -> list[SpanRow]:
    """The stored runs of those ids in every project of an organisation."""
    org_id = org_id if org_id is not None else wire.catalog.first_org.id
    projects = tuple(each.id for each in wire.catalog.projects(org_id))
    reader = cast(SpanReader, wire.services.reader)
    return reader.find_spans(Scope(projects), [each.replace("-", "") for each in ids])


def stored(wire: Wire, number: int) -> dict[str, Any]:
    """The fields of the only stored copy of a run."""
    (found,) = rows(wire, run_id(number))
    return run_values(decode_record(found.detail.record).raw)
