"""Every recorded request of LangSmith's clients, in order, at both roots: none is forgotten, and each has an answer.

What the answers hold is the matter of test_langsmith_ingest.py, test_langsmith_reads.py and test_langsmith_examples.py.
Here each request must be in a table of what is served, with the statuses that may be given; and answers about datasets
and examples say again, in the same words, what the recorded requests had brought.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from langsmith_requests import FOLDERS, RECORDED, ROOTS, SENT_ANEW

from clearspan.testing.clock import FixedClock
from clearspan.testing.wire import Wire

RECORDED_AT_NS = 1_795_300_500_000_000_000
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

OWN_NAMES = {"id", "session_id", "next", "next_cursor", "share_token"}

SERVED = {
    "GET /info": {200},
    "GET /settings": {200},
    "POST /runs": {202},
    "PATCH /runs/{id}": {202},
    "POST /runs/batch": {202},
    "POST /runs/multipart": {202},
    "POST /otel/v1/traces": {200},
    "GET /_att/{id}/img": {200},  # an attachment, by the link of the run's own answer
    "POST /runs/query": {200},
    "POST /runs/stats": {200},
    "GET /runs/{id}": {200, 404},
    "PUT /runs/{id}/share": {200},
    "GET /runs/{id}/share": {200},
    "DELETE /runs/{id}/share": {200},
    "GET /sessions": {200},
    "POST /sessions": {200, 409},
    "GET /sessions/{id}": {200},
    "PATCH /sessions/{id}": {200},
    "DELETE /sessions/{id}": {200, 202, 404},
    "POST /feedback": {200},
    "GET /feedback": {200},
    "GET /feedback/{id}": {200},
    "PATCH /feedback/{id}": {200},
    "DELETE /feedback/{id}": {200},
    "POST /v2/runs/query": {200},
    "GET /v2/runs/{id}": {200, 404},
    "POST /v2/runs/{id}/share": {200},
    "POST /v2/traces/query": {200},
    "GET /v2/traces/{id}/runs": {200},
    "POST /v2/threads/query": {200},
    "GET /datasets": {200},
    "POST /datasets": {200},
    "DELETE /datasets/{id}": {200},
    "GET /examples": {200},
    "POST /examples/bulk": {200},
    "POST /platform/datasets/{id}/examples": {201},
}
"""Method and path without a root → the statuses it may have."""


def lines(folder: str) -> Iterator[dict[str, Any]]:
    # Not splitlines: it would break texts at U+2028.
    yield from map(json.loads, (RECORDED / folder / "requests.jsonl").read_text().strip().split("\n"))


def rootless(path: str) -> str:
    return path.removeprefix("/api/v1").removeprefix("/api").replace("/v1/platform/", "/platform/")


def name_of(said: dict[str, Any]) -> str:
    return f"{said['method']} {UUID.sub('{id}', rootless(urlsplit(said['path']).path))}"


def at_root(path: str, root: str) -> str:
    """The address of an operation where a client with that endpoint looks for it; v2 alternates, too."""
    bare = rootless(path)
    if bare.startswith("/v2/"):
        return bare if root else "/api" + bare
    if bare.startswith("/platform/"):
        return (root or "/v1") + bare
    return root + bare


def pairs(recorded: Any, ours: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """What the recorder named by itself (projects, cursors, tokens) → what this server calls it."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        for name in recorded.keys() & ours.keys():
            yield from pairs(recorded[name], ours[name], name)
    elif isinstance(recorded, list) and isinstance(ours, list):
        # Runs keep their ids, whatever their order; of a project there is one.
        known = {each["id"]: each for each in ours if isinstance(each, dict) and "id" in each}
        for theirs, mine in zip(recorded, ours, strict=False):
            yield from pairs(theirs, known.get(theirs.get("id"), mine) if isinstance(theirs, dict) else mine, key)
    elif isinstance(recorded, str) and isinstance(ours, str) and key in OWN_NAMES and recorded != ours:
        yield recorded, ours


def alike(recorded: Any, ours: Any) -> None:
    """Ours says everything that clients read from the recorder's answer about datasets and examples."""
    if isinstance(recorded, list):
        assert len(recorded) == len(ours)
        for theirs, mine in zip(recorded, ours, strict=True):
            alike(theirs, mine)
    elif "name" in recorded or "count" in recorded:
        assert recorded.keys() <= ours.keys()
        for key in recorded.keys() & {"description", "data_type", "inputs", "outputs", "count"}:
            assert ours[key] == recorded[key], key


def link_of(wire: Wire, path: str) -> str:
    """The address of the file that the recorder had under `path`: /_att/{run}/{name}."""
    _, _, run_id, name = path.split("/")
    link = wire.get(f"/runs/{run_id}").json()["s3_urls"][f"attachment.{name}"]["presigned_url"]
    return str(urlsplit(link)._replace(scheme="", netloc="").geturl())


def test_every_recorded_request_is_in_the_table() -> None:
    seen = Counter(name_of(said) for folder in FOLDERS for said in lines(folder))
    assert seen.keys() == SERVED.keys()
    assert sum(seen.values()) == 155


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_recorded_request_is_answered(wire: Wire, folder: str, root: str) -> None:
    assert isinstance(wire.clock, FixedClock)
    wire.clock.advance((RECORDED_AT_NS - wire.clock.now_ns()) / 1e9)
    ours: dict[str, str] = {}

    def swapped(text: str) -> str:
        for recorded, mine in ours.items():
            text = text.replace(recorded, mine)
        return text

    for number, said in enumerate(lines(folder)):
        name, path = name_of(said), swapped(said["path"])
        named = said.get("body_file")
        body = (RECORDED / folder / named).read_bytes() if named else None
        if body is None and said["body"] is not None:
            # The recorder's pages were of 3: a cursor to a page that this server did not make is left out.
            told = said["body"]
            if isinstance(told, dict) and told.get("cursor") not in ours:
                told = {key: each for key, each in told.items() if key != "cursor"}
            body = swapped(json.dumps(told)).encode()
        headers = {key: value for key, value in said["headers"].items() if key.lower() not in SENT_ANEW}
        address = link_of(wire, path) if name.startswith("GET /_att/") else at_root(path, root)
        answer = wire.send(said["method"], address, body, headers=headers)
        where = (number, name, address, answer.text[:300])
        assert answer.status_code in SERVED[name], where
        if said["answered"] >= 400 or answer.status_code >= 400:
            assert answer.status_code == said["answered"], where
        if name.endswith(("/datasets", "/examples", "/examples/bulk")):
            alike(said["recorder_answer"], answer.json())
        if answer.headers.get("content-type", "").startswith("application/json") and answer.content:
            ours.update(pairs(said["recorder_answer"], answer.json()))
